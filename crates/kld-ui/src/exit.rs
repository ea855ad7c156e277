//! How a command ends.

use std::process::ExitCode;

/// The four ways a command ends; the number is the exit code of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum ExitStatus {
    /// What was asked for is so.
    Done = 0,
    /// It is not; an error says why.
    Failed = 1,
    /// The command line or the manifest made no sense; nothing was tried.
    Usage = 2,
    /// With `--check`: nothing was changed, and something would be.
    Pending = 3,
}

impl ExitStatus {
    /// The number the process exits with.
    pub const fn code(self) -> u8 {
        self as u8
    }
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        Self::from(status.code())
    }
}

#[cfg(test)]
mod tests {
    use super::ExitStatus::{Done, Failed, Pending, Usage};

    #[test]
    fn codes_are_a_promise_to_scripts() {
        assert_eq!([Done, Failed, Usage, Pending].map(super::ExitStatus::code), [0, 1, 2, 3]);
    }
}

//! The only code of kldload that touches a machine: processes, files that must not be half-written, locks, and
//! one module per tool of the system.
//!
//! Each tool module has two thin parts: `*_cmd` makes a [`Cmd`], `parse_*` reads the tool's output. Both are pure; that
//! the real tools take the one and write the other is tested on a machine (`kldload/tests/vm/tools.rs`).

mod atomic;
pub mod civil;
mod cmd;
pub mod folder;
mod lock;
pub mod mounts;
pub mod nft;
mod octal;
pub mod systemd;
pub mod wireguard;
mod within;
pub mod zfs;
pub mod zpool;

pub use atomic::{AtomicFile, WriteError, atomic_write};
pub use cmd::{Child, Cmd, ExecError, Line, Output, batches, package_of};
pub use lock::{Lock, LockError};
pub use within::within;

/// Output of a tool that is not what its documentation says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("could not read the output of `{tool}`: {reason}")]
pub struct ParseError {
    /// The command whose output it is.
    pub tool: &'static str,
    /// What was expected and what came, in one line.
    pub reason: String,
}

/// A tool that could not be asked: it failed, or it answered something unknown.
#[derive(Debug, thiserror::Error)]
pub enum ToolError {
    /// The tool did not run, or failed.
    #[error(transparent)]
    Exec(#[from] ExecError),
    /// The tool answered something unknown.
    #[error(transparent)]
    Parse(#[from] ParseError),
}

impl ToolError {
    /// What the user can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Exec(error) => error.hint(),
            Self::Parse(_) => None,
        }
    }
}

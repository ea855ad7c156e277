//! Why a guest did not do what it was for.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use kld_host::ExecError;

use crate::QmpError;

/// What can go wrong with a guest. `console` is the end of its serial console.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// QEMU or `qemu-img` is missing or failed.
    #[error(transparent)]
    Exec(#[from] ExecError),
    /// QEMU's control socket.
    #[error(transparent)]
    Qmp(#[from] QmpError),
    /// No UEFI for guests on this machine.
    #[error("no UEFI firmware for guests (OVMF) is installed")]
    NoFirmware,
    /// A file of the guest.
    #[error("could not {action} `{}`", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// QEMU ended by itself.
    #[error("the guest ended while waiting for {waiting_for}{}", Tail(log, console))]
    Ended {
        /// What was waited for.
        waiting_for: String,
        /// What QEMU has said.
        log: String,
        /// What the guest has said last.
        console: String,
    },
    /// Its processors stand still: KVM has given it up, or its disk has failed.
    #[error("the guest stopped ({status}) while waiting for {waiting_for}{}", Tail(reason, console))]
    Stopped {
        /// QEMU's word for it: `internal-error`, `io-error`.
        status: String,
        /// What was waited for.
        waiting_for: String,
        /// The first that QEMU has said of it; registers follow.
        reason: String,
        /// What the guest has said last.
        console: String,
    },
    /// It runs, and does not come to it.
    #[error("the guest did not come to {waiting_for} within {} s{}", limit.as_secs(), Tail("", console))]
    Deadline {
        /// What was waited for.
        waiting_for: String,
        /// For how long.
        limit: Duration,
        /// What the guest has said last.
        console: String,
    },
    /// The control channel broke.
    #[error("lost touch with the guest{}", Tail("", console))]
    Control {
        /// Why.
        source: io::Error,
        /// What the guest has said last.
        console: String,
    },
    /// No state of this name was saved.
    #[error("the guest has no saved state `{name}`")]
    NoState {
        /// The name.
        name: String,
    },
    /// A script in the guest said no.
    #[error("`{script}` failed in the guest with status {status}{}", Tail("", stderr))]
    Script {
        /// Its first line.
        script: String,
        /// Its exit status.
        status: i32,
        /// Its stderr.
        stderr: String,
    },
}

impl VmError {
    /// What the user can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Exec(error) => error.hint(),
            Self::NoFirmware => Some("`apt install ovmf`".to_owned()),
            _ => None,
        }
    }
}

/// The last lines of both, indented below the message.
struct Tail<'a>(&'a str, &'a str);

impl fmt::Display for Tail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for text in [self.0, self.1] {
            let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
            lines[lines.len().saturating_sub(20)..].iter().try_for_each(|line| write!(f, "\n  {line}"))?;
        }
        Ok(())
    }
}

//! What a change interrupts.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What stands still for a moment when a step is made, or what it waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interruption {
    /// A unit reads its configuration again, and goes on.
    Reload,
    /// A unit is started again.
    Restart,
    /// A unit stops.
    Stop,
    /// A file system is unmounted and mounted elsewhere.
    Remount,
    /// The change is there, and in use after the next start of the machine.
    Reboot,
}

impl fmt::Display for Interruption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reload => "reload",
            Self::Restart => "restart",
            Self::Stop => "stop",
            Self::Remount => "remount",
            Self::Reboot => "reboot",
        })
    }
}

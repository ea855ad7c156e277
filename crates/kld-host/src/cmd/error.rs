//! Why a command did not do what it was for.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

/// Lines of stderr shown in the message; all of it is in the error.
const LINES_SHOWN: usize = 20;

/// A command that did not succeed. `command` is as one would type it, without secrets.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The program is nowhere in `PATH` nor in the system's folders.
    #[error("`{program}` is not installed")]
    Missing {
        /// The program.
        program: String,
        /// The Debian package that has it, where known.
        package: Option<&'static str>,
    },
    /// The system would not start it.
    #[error("could not start `{command}`")]
    Start {
        /// What was run.
        command: String,
        /// Why not.
        source: io::Error,
    },
    /// The file for its stdin cannot be opened.
    #[error("could not open `{}` as input of `{command}`", path.display())]
    Input {
        /// The file.
        path: PathBuf,
        /// What was to be run.
        command: String,
        /// Why not.
        source: io::Error,
    },
    /// It ran and said no.
    #[error("`{command}` failed with {status}{}", Tail(stderr))]
    Failed {
        /// What was run.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// Its stderr, whole; of a streamed command the last 64 KiB.
        stderr: String,
    },
    /// It was killed because it took too long.
    #[error("`{command}` did not end within {limit:?}{}", Tail(stderr))]
    TimedOut {
        /// What was run.
        command: String,
        /// The limit.
        limit: Duration,
        /// Its stderr until then.
        stderr: String,
    },
    /// Its output could not be read to the end, or its end not seen.
    #[error("lost touch with `{command}`")]
    Pipe {
        /// What was run.
        command: String,
        /// Why.
        source: io::Error,
    },
    /// It wrote bytes where text was expected.
    #[error("`{command}` wrote something that is not UTF-8")]
    NotText {
        /// What was run.
        command: String,
    },
}

impl ExecError {
    /// What the user can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Missing { package: Some(package), .. } => Some(format!("`apt install {package}`")),
            Self::Missing { program, package: None } => {
                Some(format!("install the package that has `{program}`, or put it into `PATH`"))
            }
            _ => None,
        }
    }

    /// What was run, as a person would type it; `None` when its program is missing.
    pub fn command(&self) -> Option<&str> {
        match self {
            Self::Missing { .. } => None,
            Self::Start { command, .. }
            | Self::Input { command, .. }
            | Self::Failed { command, .. }
            | Self::TimedOut { command, .. }
            | Self::Pipe { command, .. }
            | Self::NotText { command } => Some(command),
        }
    }

    /// The whole stderr of a command that ran.
    pub fn stderr(&self) -> Option<&str> {
        match self {
            Self::Failed { stderr, .. } | Self::TimedOut { stderr, .. } => Some(stderr),
            _ => None,
        }
    }
}

/// The last lines of stderr, indented below the message.
struct Tail<'a>(&'a str);

impl fmt::Display for Tail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<&str> = self.0.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
        let left_out = lines.len().saturating_sub(LINES_SHOWN);
        if left_out > 0 {
            write!(f, "\n  ({left_out} lines above)")?;
        }
        lines[left_out..].iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

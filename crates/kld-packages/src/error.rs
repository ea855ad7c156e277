//! Why packages were not changed.

use std::io;
use std::path::PathBuf;

use kld_boot::{BootError, MachineError};
use kld_host::ExecError;

use crate::checks::Finding;

/// What is not done, and why.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// A system whose package manager is not known.
    #[error("this system has no package manager that kldload knows")]
    NoManager,
    /// The clone could not be made, entered in the menu or started next.
    #[error(transparent)]
    Boot(#[from] BootError),
    /// A tool failed, or the package manager.
    #[error(transparent)]
    Exec(#[from] ExecError),
    /// The machine refused.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// A file that cannot be used.
    #[error("could not {action} `{}`", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The package manager said no.
    #[error("`{program}` failed{}", indented(said))]
    Manager {
        /// Its program.
        program: String,
        /// Its last words.
        said: String,
    },
    /// The process inside failed.
    #[error("nothing was changed: {said}")]
    Inside {
        /// What it said.
        said: String,
    },
    /// The process inside answered something else than a report.
    #[error("the process in the clone gave no report")]
    NoReport,
    /// The program is not in the system that it shall judge.
    #[error("`{program}` is not in the root file system")]
    ProgramElsewhere {
        /// Where it is.
        program: String,
    },
    /// What came out would not start, or not be well.
    #[error("the changed system is not fit to start, and was destroyed{}", list(findings))]
    Unfit {
        /// Why.
        findings: Vec<Finding>,
    },
}

/// How many of a package manager's last words are shown.
const LINES: usize = 12;

fn indented(said: &str) -> String {
    let lines: Vec<&str> = said.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(LINES)..].iter().map(|line| format!("\n  {line}")).collect()
}

fn list(findings: &[Finding]) -> String {
    findings.iter().map(|finding| format!("\n  {finding}")).collect()
}

impl PackageError {
    /// What the user can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoManager => Some("it knows apt".to_owned()),
            Self::Boot(error) => error.hint(),
            Self::Exec(error) => error.hint(),
            Self::Machine(error) => error.hint(),
            Self::ProgramElsewhere { .. } => Some("install it as `/usr/bin/kldload`".to_owned()),
            Self::Unfit { findings } => Some(findings.first()?.check.hint().to_owned()),
            Self::Manager { .. } | Self::Inside { .. } => {
                Some("`--verbose` shows all that was done; the running system is as it was".to_owned())
            }
            Self::File { .. } | Self::NoReport => None,
        }
    }

    /// What the process inside said when it failed: its own error, behind everything that the package manager wrote.
    pub fn inside(error: ExecError) -> Self {
        let said = match error.stderr() {
            Some(stderr) => {
                let last = stderr.rsplit("error: ").next().unwrap_or_default();
                last.split("\n\nhint: ").next().unwrap_or_default().trim().to_owned()
            }
            None => return Self::Exec(error),
        };
        match said.is_empty() {
            true => Self::Exec(error),
            false => Self::Inside { said },
        }
    }

    pub(crate) fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::ExitStatus;

    use super::*;

    #[test]
    fn what_the_process_inside_said_is_told_without_what_it_did() {
        let stderr = "Unpacking x\nerror: `apt-get` failed\n  E: no\n\nhint: x\n".to_owned();
        let failed =
            |stderr| ExecError::Failed { command: "c".to_owned(), status: ExitStatus::from_raw(256), stderr };
        let error = PackageError::inside(failed(stderr));
        assert_eq!(error.to_string(), "nothing was changed: `apt-get` failed\n  E: no");
        assert!(matches!(PackageError::inside(failed(String::new())), PackageError::Exec(_)));
    }
}

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
            Self::File { .. } | Self::NoReport => None,
        }
    }

    pub(crate) fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }
}

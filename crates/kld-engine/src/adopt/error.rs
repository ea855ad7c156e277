//! Why a directory is not adopted, or not brought back, and what to do.

use super::compare::Difference;
use super::units_of;
use super::users::User;
use crate::host::HostError;

/// What a directory cannot be adopted for, or not be brought back.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// It cannot be: nothing was touched.
    #[error("cannot adopt `{path}`: {reason}")]
    Refused {
        /// The directory.
        path: String,
        /// Why not.
        reason: String,
        /// What the person can do.
        hint: String,
    },
    /// Somebody uses it: nothing was touched.
    #[error("`{path}` is in use{}", list(users))]
    InUse {
        /// The directory.
        path: String,
        /// By whom.
        users: Vec<User>,
    },
    /// It did not work out, and the directory is as it was.
    #[error("`{path}` was not adopted, and is as it was: {reason}")]
    Failed {
        /// The directory.
        path: String,
        /// Why, in the tool's own words.
        reason: String,
        /// What was written into its place meanwhile, when something was.
        left: Vec<String>,
    },
    /// It was told to stop, and everything is as it was.
    #[error("told to stop, and `{path}` is as it was")]
    Stopped {
        /// The directory.
        path: String,
        /// What was written into its place meanwhile, when something was.
        left: Vec<String>,
    },
    /// Nothing of this name waits to be confirmed.
    #[error("`{path}` is not an adopted directory that waits to be confirmed")]
    NotWaiting {
        /// The directory.
        path: String,
    },
    /// The directory that was kept is not what was copied.
    #[error("the directory kept as `{aside}` has changed since it was copied{}", list(differences))]
    Changed {
        /// Where it is.
        aside: String,
        /// How it differs from the dataset now.
        differences: Vec<Difference>,
    },
    /// An adoption was interrupted, and cannot be brought to an end.
    #[error("cannot end the adoption of `{path}`, which was interrupted")]
    Stuck {
        /// The directory.
        path: String,
        /// Why.
        #[source]
        source: HostError,
    },
    /// The machine refused.
    #[error(transparent)]
    Host(#[from] HostError),
}

/// One per line, indented.
pub(super) fn list<T: std::fmt::Display>(of: &[T]) -> String {
    of.iter().map(|one| format!("\n  {one}")).collect()
}

impl AdoptError {
    /// What the person can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Refused { hint, .. } => Some(hint.clone()),
            Self::InUse { users, .. } => {
                let units = units_of(users);
                Some(if units.is_empty() {
                    "end what uses it; a shell that works in it leaves it with `cd /`".to_owned()
                } else {
                    let units: Vec<&str> = units.iter().map(String::as_str).collect();
                    format!(
                        "`systemctl stop {}`, or `--stop-services` stops and starts them again",
                        units.join(" ")
                    )
                })
            }
            Self::Failed { left, .. } | Self::Stopped { left, .. } if !left.is_empty() => {
                Some(format!("`{}` is what was written meanwhile, or cannot be destroyed", left.join("`, `")))
            }
            Self::Failed { reason, .. } if reason.contains("access control list") => {
                Some("`-o acltype=posix -o xattr=sa` gives the dataset access control lists".to_owned())
            }
            Self::Failed { reason, .. } if reason.contains("of chattr") => {
                Some("`lsattr` shows the flag, `chattr` takes it away".to_owned())
            }
            Self::Failed { .. } => Some("mend what it names, and adopt again".to_owned()),
            Self::Stopped { .. } => Some("the same command does the whole of it".to_owned()),
            Self::NotWaiting { .. } => Some("`kldload adopt --list` shows what was adopted".to_owned()),
            Self::Changed { aside, .. } => {
                Some(format!("take what you need from `{aside}` and remove it yourself, or `--undo`"))
            }
            Self::Stuck { .. } => {
                Some("mend what the error names, then `kldload recover` goes on".to_owned())
            }
            Self::Host(error) => error.hint(),
        }
    }
}

//! Why something about a boot environment is not done.

use std::fmt;

use kld_ui::ByteSize;

use crate::machine::MachineError;
use crate::name::NameError;

/// Why an environment must stay as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protection {
    /// It is the system that runs.
    Running,
    /// It starts next.
    Next,
    /// It starts next, and only once.
    Once,
    /// It is the last one known to be well.
    LastGood,
    /// Somebody looks into it.
    Mounted(String),
}

impl fmt::Display for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Running => f.write_str("it is running"),
            Self::Next => f.write_str("it starts next"),
            Self::Once => f.write_str("it starts next, once"),
            Self::LastGood => f.write_str("it is the last one that was well"),
            Self::Mounted(place) => write!(f, "it is mounted at `{place}`"),
        }
    }
}

/// What is not done, and why.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The machine's root is something else.
    #[error("the root file system is {kind}, not ZFS")]
    NotZfs {
        /// What it is.
        kind: String,
    },
    /// The root is the pool itself.
    #[error("the root file system `{dataset}` is a pool, and has no place beside it for other environments")]
    NoParent {
        /// The dataset.
        dataset: String,
    },
    /// Nothing here reads boot entries.
    #[error("this machine is not started by boot entries of systemd-boot{}{}", found.as_ref().map_or(String::new(), |found| format!(", but by {found}")), notes.iter().map(|note| format!("\n  {note}")).collect::<String>())]
    NoLoader {
        /// What starts it instead.
        found: Option<String>,
        /// What was seen on the way.
        notes: Vec<String>,
    },
    /// The entries lie apart from the loader.
    #[error("`{mount}` holds boot entries and no loader")]
    LoaderElsewhere {
        /// The partition.
        mount: String,
    },
    /// A name that is none.
    #[error(transparent)]
    Name(#[from] NameError),
    /// An environment that is not there.
    #[error("there is no boot environment `{name}`")]
    NoSuch {
        /// Its name.
        name: String,
        /// Those that are there.
        there: Vec<String>,
    },
    /// A snapshot that is not there.
    #[error("there is no snapshot `{name}` of a boot environment")]
    NoSnapshot {
        /// Its name.
        name: String,
    },
    /// A name that is taken.
    #[error("there is a boot environment `{name}` already")]
    Exists {
        /// Its name.
        name: String,
    },
    /// A boot entry that belongs to something else.
    #[error("the boot entry `{path}` belongs to something else")]
    EntryTaken {
        /// Its file.
        path: String,
    },
    /// Datasets below an environment.
    #[error("`{name}` has datasets below it (`{child}`)")]
    HasChildren {
        /// The environment.
        name: String,
        /// One of them.
        child: String,
    },
    /// An environment without a kernel.
    #[error("`{name}` has no kernel with an initial RAM file system in its /boot")]
    NoKernel {
        /// The environment.
        name: String,
    },
    /// No entry that a new one could be made after.
    #[error("no boot entry starts `{dataset}` or the running system")]
    NoModel {
        /// The dataset.
        dataset: String,
    },
    /// A boot partition that would be full.
    #[error("`{mount}` has {} free and {} are needed", ByteSize(*free), ByteSize(*needed))]
    Full {
        /// The partition.
        mount: String,
        /// Bytes that are free.
        free: u64,
        /// Bytes that are needed.
        needed: u64,
        /// Environments whose kernel nobody else uses, with its bytes.
        would_free: Vec<(String, u64)>,
    },
    /// An environment that must stay.
    #[error("`{name}` stays as it is: {why}")]
    Protected {
        /// The environment.
        name: String,
        /// Why.
        why: Protection,
    },
    /// Something that was made from an environment and is none itself.
    #[error("`{clone}` was made from `{snapshot}`, and is no boot environment")]
    Dependent {
        /// What was made.
        clone: String,
        /// What from.
        snapshot: String,
    },
    /// A snapshot that somebody holds.
    #[error("somebody holds the snapshot `{snapshot}`")]
    Held {
        /// The snapshot.
        snapshot: String,
    },
    /// Two snapshots of one name that would be in one dataset.
    #[error("`{heir}` would take over the snapshot `@{snapshot}` of `{name}`, and has one of that name")]
    Collision {
        /// What stays.
        heir: String,
        /// What goes.
        name: String,
        /// The snapshot's name.
        snapshot: String,
    },
    /// An environment that was never finished.
    #[error("`{name}` is half-made: its creation was interrupted")]
    HalfMade {
        /// The environment.
        name: String,
    },
    /// A loader that knows no single start.
    #[error("the loader cannot take an entry for one start only: {reason}")]
    NoOneShot {
        /// Why.
        reason: &'static str,
    },
    /// An environment that is not mounted.
    #[error("`{name}` is not mounted")]
    NotMounted {
        /// The environment.
        name: String,
    },
    /// A directory that is no place to mount.
    #[error("`{path}` is no empty directory")]
    NotEmpty {
        /// The directory.
        path: String,
    },
    /// What was written is not what the loader will take.
    #[error("everything is written, and the loader would still start {}", would.as_deref().map_or("something else".to_owned(), |name| format!("`{name}`")))]
    NotTaken {
        /// What it would start.
        would: Option<String>,
    },
    /// The machine refused.
    #[error(transparent)]
    Machine(#[from] MachineError),
}

impl BootError {
    /// What the user can do.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NotZfs { .. } | Self::NoParent { .. } => {
                "boot environments are datasets beside the running root: `rpool/ROOT/NAME`".to_owned()
            }
            Self::NoLoader { found: Some(found), .. } if found.starts_with("ZFSBootMenu") => {
                "its own menu starts, clones and destroys environments".to_owned()
            }
            Self::NoLoader { .. } => {
                "`bootctl install` puts systemd-boot on a mounted EFI system partition".to_owned()
            }
            Self::LoaderElsewhere { .. } => {
                "kernels and loader must lie on one partition: an extended boot partition (XBOOTLDR) is not supported"
                    .to_owned()
            }
            Self::NoSuch { there, .. } => format!("there are: {}", there.join(", ")),
            Self::NoSnapshot { .. } => {
                "name it as `zfs list -t snapshot` does, or `ENVIRONMENT@NAME`".to_owned()
            }
            Self::Exists { .. } => "choose another name, or `kbe destroy` that one".to_owned(),
            Self::EntryTaken { .. } => "choose another name, or give that entry another one".to_owned(),
            Self::HasChildren { .. } => {
                "an environment is one dataset: move what must survive a rollback beside it".to_owned()
            }
            Self::NoKernel { .. } => "install a kernel in it: `kbe mount` shows its files".to_owned(),
            Self::NoModel { .. } => "`bootctl list` shows what the loader knows".to_owned(),
            Self::Full { would_free, .. } => match &would_free[..] {
                [] => "make the partition larger, or remove what is not kldload's".to_owned(),
                some => {
                    let some = some.iter().map(|(name, size)| format!("{name} ({})", ByteSize(*size)));
                    format!("`kbe destroy` one with a kernel of its own: {}", some.collect::<Vec<_>>().join(", "))
                }
            },
            Self::Protected { name, why } => match why {
                Protection::Running => format!("start another first: `kbe activate NAME`, then restart; `{name}` can go then"),
                Protection::Next => "activate another first: `kbe activate NAME`".to_owned(),
                Protection::Once => "`kbe activate` of another takes that back".to_owned(),
                Protection::LastGood => "it is the way back: let another one be well first".to_owned(),
                Protection::Mounted(_) => format!("`kbe umount {name}`"),
            },
            Self::Dependent { clone, .. } => format!("`zfs promote {clone}` makes it independent"),
            Self::Held { snapshot } => format!("`zfs holds {snapshot}` says who"),
            Self::Collision { heir, snapshot, .. } => format!("`zfs rename {heir}@{snapshot}` to another name"),
            Self::HalfMade { name } => format!("`kbe create {name}` makes it anew, `kbe prune` removes it"),
            Self::NoOneShot { .. } => "`kbe activate NAME` without `--once` works".to_owned(),
            Self::NotMounted { name } => format!("`kbe mount {name}`"),
            Self::NotEmpty { .. } => "name an empty directory, or none".to_owned(),
            Self::NotTaken { .. } => "`bootctl status` and `bootctl list` show what the loader sees".to_owned(),
            Self::Name(error) => return error.hint(),
            Self::Machine(error) => return error.hint(),
        })
    }
}

//! What is done, as data: printable, in order, without a choice left.

use std::fmt;
use std::time::Duration;

use kld_host::Cmd;
use kld_host::zfs::pool_of;
use kld_ui::ByteSize;

use crate::loader;
use crate::look::{GOOD, Good, MADE_BY, MADE_FOR, STATE, TRIAL, Unfinished};
use crate::machine::{Machine, MachineError};
use crate::mount;
use crate::transfer;
use crate::trial::Trial;

/// Longer than any of these takes on a busy pool.
const DEADLINE: Duration = Duration::from_secs(300);

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Takes a snapshot for an environment.
    Snapshot {
        /// `rpool/ROOT/debian@before-20261127-041300`.
        snapshot: String,
        /// The environment.
        made_for: String,
    },
    /// Makes an environment, marked as unfinished.
    Clone {
        /// What from.
        snapshot: String,
        /// The environment's dataset.
        dataset: String,
        /// Its properties.
        properties: Vec<(String, String)>,
    },
    /// Makes an environment of a stream, marked as unfinished.
    Receive {
        /// The file with the stream.
        file: String,
        /// The environment's dataset.
        dataset: String,
    },
    /// Copies a file that is booted from.
    Copy {
        /// Where it lies.
        from: String,
        /// Where it goes.
        to: String,
        /// Its bytes.
        size: u64,
    },
    /// Writes a small file on a boot partition.
    Write {
        /// Where.
        path: String,
        /// What.
        text: String,
    },
    /// Removes a file or an empty directory from a boot partition.
    Remove {
        /// Which.
        path: String,
    },
    /// Says that an environment is unfinished, or no more.
    Mark {
        /// The environment's dataset.
        dataset: String,
        /// What is under way.
        state: Option<Unfinished>,
    },
    /// Remembers that an environment is well.
    Good {
        /// Its dataset.
        dataset: String,
        /// What is remembered.
        good: Good,
    },
    /// Remembers that an environment is a person's, whoever has made it.
    Claim {
        /// Its dataset.
        dataset: String,
    },
    /// Remembers that an environment must prove itself, or has not, or has.
    Trial {
        /// Its dataset.
        dataset: String,
        /// What is remembered; nothing once it was found well.
        trial: Option<Trial>,
    },
    /// Makes a clone the owner of what it shares with its origin.
    Promote {
        /// The clone.
        dataset: String,
    },
    /// Destroys an environment and its snapshots.
    Destroy {
        /// Its dataset.
        dataset: String,
    },
    /// Destroys one snapshot.
    DestroySnapshot {
        /// Which.
        snapshot: String,
    },
    /// Renames an environment.
    Rename {
        /// What it is called.
        from: String,
        /// What it will be called.
        to: String,
    },
    /// Mounts an environment to look into it or change it.
    Mount {
        /// Its dataset.
        dataset: String,
        /// An empty directory, made when it is not there.
        place: String,
    },
    /// Unmounts an environment from where somebody has looked into it.
    Unmount {
        /// Where.
        place: String,
    },
    /// Tells loaders that ask the pool.
    Bootfs {
        /// The environment's dataset.
        dataset: String,
    },
    /// Sets the variable that goes before `loader.conf`, or takes it away.
    DefaultVariable {
        /// The entry.
        entry: Option<String>,
    },
    /// Sets the entry for one start, or takes it away.
    Once {
        /// The entry.
        entry: Option<String>,
    },
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Snapshot { snapshot, .. } => write!(f, "snapshot {snapshot}"),
            Self::Clone { dataset, .. } => write!(f, "clone it as {dataset}"),
            Self::Receive { file, dataset } => write!(f, "receive {file} as {dataset}"),
            Self::Copy { to, size, .. } => write!(f, "copy {} to {to}", ByteSize(*size)),
            Self::Write { path, .. } => write!(f, "write {path}"),
            Self::Remove { path } => write!(f, "remove {path}"),
            Self::Mark { dataset, state: None } => write!(f, "mark {dataset} as complete"),
            Self::Mark { dataset, state: Some(Unfinished::Making) } => {
                write!(f, "mark {dataset} as being made")
            }
            Self::Mark { dataset, state: Some(Unfinished::Leaving) } => {
                write!(f, "mark {dataset} as being destroyed")
            }
            Self::Good { dataset, .. } => write!(f, "remember that {dataset} is well"),
            Self::Claim { dataset } => write!(f, "remember that {dataset} stays until somebody destroys it"),
            Self::Trial { dataset, trial: None } => write!(f, "end the trial of {dataset}"),
            Self::Trial { dataset, trial: Some(Trial::Waiting) } => write!(f, "put {dataset} on trial"),
            Self::Trial { dataset, trial: Some(Trial::Failed(reason)) } => {
                write!(f, "remember of {dataset}: {reason}")
            }
            Self::Promote { dataset } => write!(f, "promote {dataset}: it takes over what it shares"),
            Self::Destroy { dataset } => write!(f, "destroy {dataset} with its snapshots"),
            Self::DestroySnapshot { snapshot } => write!(f, "destroy {snapshot}"),
            Self::Rename { from, to } => write!(f, "rename {from} to {to}"),
            Self::Mount { dataset, place } => write!(f, "mount {dataset} at {place}"),
            Self::Unmount { place } => write!(f, "unmount {place}"),
            Self::Bootfs { dataset } => write!(f, "set the pool's bootfs to {dataset}"),
            Self::DefaultVariable { entry: Some(entry) } => {
                write!(f, "let the firmware hold {entry} while loader.conf is written")
            }
            Self::DefaultVariable { entry: None } => write!(f, "let loader.conf decide"),
            Self::Once { entry: Some(entry) } => write!(f, "start {entry} next, once"),
            Self::Once { entry: None } => write!(f, "forget what was to start once"),
        }
    }
}

impl Action {
    /// Does it.
    pub(crate) fn perform(&self, machine: &dyn Machine) -> Result<(), MachineError> {
        let zfs = |args: &[&str]| machine.run(&Cmd::new("zfs").args(args).timeout(DEADLINE)).map(drop);
        match self {
            Self::Snapshot { snapshot, made_for } => {
                zfs(&["snapshot", "-o", &format!("{MADE_FOR}={made_for}"), snapshot])
            }
            Self::Clone { snapshot, dataset, properties } => {
                let mark = (STATE.to_owned(), "making".to_owned());
                let all = properties.iter().chain([&mark]);
                let pairs = all.flat_map(|(name, value)| ["-o".to_owned(), format!("{name}={value}")]);
                let clone = Cmd::new("zfs").arg("clone").args(pairs).args([snapshot, dataset]);
                machine.run(&clone.timeout(DEADLINE)).map(drop)
            }
            Self::Receive { file, dataset } => {
                machine.run(&transfer::receive_cmd(file, dataset, &format!("{STATE}=making"))).map(drop)
            }
            Self::Copy { from, to, .. } => {
                let bytes = machine.read(from)?.ok_or_else(|| MachineError::File {
                    action: "read",
                    path: from.into(),
                    source: std::io::ErrorKind::NotFound.into(),
                })?;
                machine.write(to, &bytes)
            }
            Self::Write { path, text } => machine.write(path, text.as_bytes()),
            Self::Remove { path } => machine.remove(path),
            Self::Mark { dataset, state } => match state {
                None => zfs(&["inherit", STATE, dataset]),
                Some(Unfinished::Making) => zfs(&["set", &format!("{STATE}=making"), dataset]),
                Some(Unfinished::Leaving) => zfs(&["set", &format!("{STATE}=leaving"), dataset]),
            },
            Self::Good { dataset, good } => zfs(&["set", &format!("{GOOD}={good}"), dataset]),
            Self::Claim { dataset } => zfs(&["inherit", MADE_BY, dataset]),
            Self::Trial { dataset, trial: None } => zfs(&["inherit", TRIAL, dataset]),
            Self::Trial { dataset, trial: Some(trial) } => {
                zfs(&["set", &format!("{TRIAL}={trial}"), dataset])
            }
            Self::Promote { dataset } => zfs(&["promote", dataset]),
            Self::Destroy { dataset } => zfs(&["destroy", "-r", dataset]),
            Self::DestroySnapshot { snapshot } => zfs(&["destroy", snapshot]),
            Self::Rename { from, to } => zfs(&["rename", "-u", from, to]),
            Self::Mount { dataset, place } => mount::mount_writable(machine, dataset, place),
            Self::Unmount { place } => mount::unmount_place(machine, place),
            Self::Bootfs { dataset } => {
                let set = Cmd::new("zpool").args(["set", &format!("bootfs={dataset}"), pool_of(dataset)]);
                machine.run(&set.timeout(DEADLINE)).map(drop)
            }
            Self::DefaultVariable { entry } => machine.run(&loader::default_cmd(entry.as_deref())).map(drop),
            Self::Once { entry } => machine.run(&loader::once_cmd(entry.as_deref())).map(drop),
        }
    }
}

/// How much comes free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Freed {
    /// Bytes.
    pub bytes: u64,
    /// Whether it may be more: what snapshots share with each other is not known beforehand.
    pub at_least: bool,
}

impl fmt::Display for Freed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.at_least { "≥" } else { "" };
        f.pad(&format!("{sign}{}", ByteSize(self.bytes)))
    }
}

/// What will be done, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// The changes.
    pub actions: Vec<Action>,
    /// What comes free in the pool.
    pub frees: Freed,
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.actions.iter().try_for_each(|action| writeln!(f, "  {action}"))
    }
}

/// Does what a plan says. Stops at the first thing that fails; whatever was done until then, the machine starts as it
/// did, and the next plan deals with what is left.
///
/// # Errors
/// What the machine refused.
pub fn carry_out(
    machine: &dyn Machine,
    plan: &Plan,
    progress: &mut dyn FnMut(&Action),
) -> Result<(), MachineError> {
    for action in &plan.actions {
        progress(action);
        action.perform(machine)?;
    }
    Ok(())
}

//! Datasets that are encrypted at rest: their keys, they themselves, and what the image carried for them.
//!
//! What lies below the mount point in the boot environment is copied in before the dataset is mounted over it, and
//! then removed there. [`FILL`] on the dataset says how far that has come. Copy and removal go to one pool, whose
//! transactions are committed in order: after a power cut there is never neither.

use super::{Changes, IdentityError, Node, StepResult, mounts};
use crate::keys::{self, KeyError, Leftover};
use crate::machine::{Machine, MachineError};
use kld_host::{Cmd, zfs};
use kld_system::node::{NodeConfig, NodeDatasetKey, NodeEncrypted};
use std::path::Path;
use std::time::Duration;

/// The property that says what is left to do; absent when nothing is.
const FILL: &str = "org.kldload:fill";
const COPYING: &str = "copying";
const COPIED: &str = "copied";
/// Where a dataset is mounted while it is filled.
const FILL_MOUNT: &str = "/run/kldload/fill";
const DEADLINE: Duration = Duration::from_secs(60);
/// Copying what an image carried.
const COPY_DEADLINE: Duration = Duration::from_secs(240);

pub(super) fn ensure(node: &Node<'_>) -> StepResult {
    let mut changes = Changes::default();
    if node.config.encrypted.is_empty() {
        return Ok(changes);
    }
    let list =
        Cmd::new("zfs").args(["list", "-H", "-o", "name", "-t", "filesystem", "-r", &node.config.pool]);
    let existing = node.machine.run_text(list.timeout(DEADLINE))?;
    let mut failed = Vec::new();
    let (mut locked, mut shut): (Vec<&str>, Vec<&str>) = Default::default();
    for wanted in &node.config.encrypted {
        let is_there = existing.lines().any(|name| name == wanted.dataset);
        let needs_another_key = wanted.key.is_none() || !is_there;
        if needs_another_key && shut.iter().any(|above| is_below(&wanted.dataset, above)) {
            continue;
        }
        match ensure_one(node, wanted, is_there, &mut changes) {
            Ok(Lock::Open) => {}
            Ok(Lock::Shut) => {
                locked.push(&wanted.dataset);
                shut.push(&wanted.dataset);
            }
            Err(error) => {
                failed.push(error);
                shut.push(&wanted.dataset);
            }
        }
    }
    // Not an error: the machine is itself without them, and somebody may be on the way.
    changes.warnings.extend(locked.iter().map(|dataset| locked_until(dataset)));
    match failed.len() {
        0 => Ok(changes),
        1 => Err(failed.remove(0)),
        _ => Err(IdentityError::several(node.config.encrypted.len(), &failed)),
    }
}

/// What waits, and for what.
pub(crate) fn locked_until(dataset: &str) -> String {
    format!("{dataset} is locked: `kldload key unlock {dataset}`")
}

/// Makes, fills and mounts what the node could not while `root` was locked: it, and those with its key.
pub(crate) fn make_below(machine: &dyn Machine, config: &NodeConfig, root: &str) -> Result<(), KeyError> {
    let list = Cmd::new("zfs").args(["list", "-H", "-o", "name", "-t", "filesystem", "-r", root]);
    let existing = machine.run_text(list.timeout(DEADLINE))?;
    let has_its_key =
        |of: &&NodeEncrypted| of.dataset == root || (of.key.is_none() && is_below(&of.dataset, root));
    for wanted in config.encrypted.iter().filter(has_its_key) {
        if !existing.lines().any(|name| name == wanted.dataset) {
            create(machine, wanted)?;
        }
        fill(machine, wanted)?;
    }
    Ok(())
}

fn is_below(dataset: &str, root: &str) -> bool {
    dataset.strip_prefix(root).is_some_and(|rest| rest.starts_with('/'))
}

/// Whether a dataset could be opened.
#[derive(PartialEq, Eq)]
enum Lock {
    Open,
    /// A person has its key.
    Shut,
}

fn ensure_one(
    node: &Node<'_>,
    wanted: &NodeEncrypted,
    is_there: bool,
    changes: &mut Changes,
) -> Result<Lock, IdentityError> {
    let (machine, dataset) = (node.machine, &wanted.dataset);
    if let (Some(key), true) = (&wanted.key, is_there)
        && open(node, dataset, key, changes)? == Lock::Shut
    {
        return Ok(Lock::Shut);
    }
    if !is_there {
        if let Some(key) = &wanted.key
            && keys::prepare(machine, key)?
        {
            changes.made.push(format!("key of {dataset}"));
        }
        create(machine, wanted)?;
        changes.made.push(dataset.clone());
    }
    fill(machine, wanted)?;
    mounts::ensure(node, wanted, !is_there, changes)?;
    Ok(Lock::Open)
}

/// Loads the key of a dataset that is there, when the machine has it.
fn open(
    node: &Node<'_>,
    dataset: &str,
    key: &NodeDatasetKey,
    changes: &mut Changes,
) -> Result<Lock, KeyError> {
    let machine = node.machine;
    let now = keys::state(machine, dataset)?;
    if now.by_passphrase {
        match keys::forget_leftover(machine, node.config, dataset, key)? {
            Leftover::None => {}
            Leftover::Removed => {
                changes.made.push(format!("an end of the sealed key of {dataset}, which has a passphrase"))
            }
            Leftover::NeededBy(other) => changes.warnings.push(format!(
                "the sealed key of {dataset}, which has a passphrase, is kept: {other} needs it"
            )),
        }
        return Ok(if now.is_loaded() { Lock::Open } else { Lock::Shut });
    }
    if keys::settle(machine, dataset, key)? {
        changes.made.push(format!("key of {dataset}, sealed in both places"));
    }
    keys::unseal_for_zfs(machine, key)?;
    if now.is_unavailable() {
        machine.run(zfs::load_key_cmd(dataset), &[])?;
    }
    Ok(Lock::Open)
}

/// Makes the dataset in one command: with its key, marked as to be filled, and not to be mounted yet.
fn create(machine: &dyn Machine, wanted: &NodeEncrypted) -> Result<(), MachineError> {
    let location = wanted.key.as_ref().map(|key| format!("file://{}", key.key_file));
    let mut properties = vec![("canmount", "noauto"), (FILL, COPYING)];
    if let (Some(key), Some(location)) = (&wanted.key, &location) {
        properties.extend([
            ("encryption", key.algorithm.as_str()),
            ("keyformat", "raw"),
            ("keylocation", location),
        ]);
    }
    let given = wanted.properties.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    properties.extend(given.filter(|(name, _)| *name != "canmount"));
    machine.run(zfs::create_cmd(&wanted.dataset, &properties), &[]).map(drop)
}

fn fill(machine: &dyn Machine, wanted: &NodeEncrypted) -> Result<(), MachineError> {
    let state = property(machine, &wanted.dataset, FILL)?;
    let mountpoint = given(wanted, "mountpoint").filter(|path| path.starts_with('/') && *path != "/");
    if state == COPYING {
        if let Some(mountpoint) = mountpoint {
            copy(machine, wanted, mountpoint)?;
        }
        machine.run(zfs::set_cmd(&wanted.dataset, &[(FILL, COPIED)]), &[])?;
    }
    if state == COPYING || state == COPIED {
        // Still unmounted: this is the boot environment's copy, which would stay readable below the dataset.
        if let Some(mountpoint) = mountpoint.filter(|path| machine.has(path)) {
            let old = Cmd::new("find").args([mountpoint, "-xdev", "-mindepth", "1", "-delete"]);
            machine.run(old.timeout(COPY_DEADLINE), &[])?;
        }
        let canmount = given(wanted, "canmount").unwrap_or("on");
        machine.run(zfs::set_cmd(&wanted.dataset, &[("canmount", canmount)]), &[])?;
        machine.run(Cmd::new("zfs").args(["inherit", FILL, &wanted.dataset]).timeout(DEADLINE), &[])?;
    }
    Ok(())
}

fn copy(machine: &dyn Machine, wanted: &NodeEncrypted, mountpoint: &str) -> Result<(), MachineError> {
    let run = |command: Cmd| machine.run(command.timeout(COPY_DEADLINE), &[]).map(drop);
    machine.make_folder(Path::new(FILL_MOUNT))?;
    if is_mounted(machine, FILL_MOUNT)? {
        run(Cmd::new("umount").arg(FILL_MOUNT))?;
    }
    run(Cmd::new("mount").args(["-t", "zfs", "-o", "zfsutil", &wanted.dataset, FILL_MOUNT]))?;
    if machine.has(mountpoint) {
        run(Cmd::new("cp").args(["-ax", "--", &format!("{mountpoint}/."), FILL_MOUNT]))?;
    }
    if let Some((owner, mode)) = &wanted.owner {
        run(Cmd::new("chown").args([owner, FILL_MOUNT]))?;
        run(Cmd::new("chmod").args([mode, FILL_MOUNT]))?;
    }
    run(Cmd::new("umount").arg(FILL_MOUNT))
}

/// What the manifest says of a property.
pub(super) fn given<'a>(wanted: &'a NodeEncrypted, name: &str) -> Option<&'a str> {
    wanted.properties.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
}

pub(super) fn property(machine: &dyn Machine, dataset: &str, name: &str) -> Result<String, MachineError> {
    let text = machine.run_text(zfs::get_cmd(dataset, &[name], false))?;
    let found = zfs::parse_get(&text)?.into_iter().next();
    // A mark that a parent carries is the parent's.
    Ok(found.filter(|p| !p.source.starts_with("inherited")).map(|p| p.value).unwrap_or_default())
}

fn is_mounted(machine: &dyn Machine, path: &str) -> Result<bool, MachineError> {
    let table = machine.read_text("/proc/self/mounts")?.unwrap_or_default();
    Ok(table.lines().any(|line| line.split(' ').nth(1) == Some(path)))
}

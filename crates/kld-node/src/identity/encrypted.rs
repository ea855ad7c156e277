//! Datasets that are encrypted at rest: their keys, they themselves, and what the image carried for them.
//!
//! What lies below the mount point in the boot environment is copied in before the dataset is mounted over it, and
//! then removed there. [`FILL`] on the dataset says how far that has come. Copy and removal go to one pool, whose
//! transactions are committed in order: after a power cut there is never neither.

use super::{Changes, Node, StepResult, mount_unit, secrets};
use crate::keys;
use crate::machine::{Access, Machine, MachineError};
use kld_host::{Cmd, zfs};
use kld_system::node::{NodeDatasetKey, NodeEncrypted};
use std::path::Path;
use std::time::Duration;

/// The property that says what is left to do; absent when nothing is.
const FILL: &str = "org.kldload:fill";
const COPYING: &str = "copying";
const COPIED: &str = "copied";
/// Where a dataset is mounted while it is filled.
const FILL_MOUNT: &str = "/run/kldload/fill";
/// Where zfs-mount-generator(8) puts the mount units of the datasets in its cache.
const UNITS: &str = "/run/systemd/generator";
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
    for wanted in &node.config.encrypted {
        let is_there = existing.lines().any(|name| name == wanted.dataset);
        if let Some(key) = wanted.key.as_ref().filter(|_| is_there)
            && keys::settle(node.machine, &wanted.dataset, key)?
        {
            changes.made.push(format!("end of the rotation of the key of {}", wanted.dataset));
        }
        if let Some(key) = &wanted.key
            && ensure_key(node.machine, key)?
        {
            changes.made.push(format!("key of {}", wanted.dataset));
        }
        if is_there {
            unlock(node.machine, wanted)?;
        } else {
            create(node.machine, wanted)?;
            changes.made.push(wanted.dataset.clone());
        }
        fill(node.machine, wanted)?;
        mount(node.machine, wanted)?;
    }
    Ok(changes)
}

/// The key is on disk, encrypted, and in memory, as `zfs load-key` reads it. Whether it had to be made.
fn ensure_key(machine: &dyn Machine, key: &NodeDatasetKey) -> Result<bool, MachineError> {
    let sealed = Path::new(&key.credential_file);
    let new = !machine.has(sealed);
    if new {
        let mut bytes = [0; 32];
        machine.fill_random(&mut bytes);
        secrets::seal(machine, &key.credential, &bytes, sealed)?;
    }
    if !machine.has(&key.key_file) {
        if let Some(folder) = Path::new(&key.key_file).parent() {
            machine.make_folder(folder)?;
        }
        let bytes = secrets::unseal(machine, &key.credential, sealed)?;
        machine.write(Path::new(&key.key_file), &bytes, Access::SECRET)?;
    }
    Ok(new)
}

fn unlock(machine: &dyn Machine, wanted: &NodeEncrypted) -> Result<(), MachineError> {
    if wanted.key.is_some() && property(machine, &wanted.dataset, "keystatus")? == "unavailable" {
        machine.run(zfs::load_key_cmd(&wanted.dataset), &[])?;
    }
    Ok(())
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

/// Mounts what systemd will not. A dataset of the mount cache has a mount unit, which waits for this program; a mount
/// made here as well could be confined to this service's own view of the file systems.
fn mount(machine: &dyn Machine, wanted: &NodeEncrypted) -> Result<(), MachineError> {
    let path = given(wanted, "mountpoint").filter(|path| path.starts_with('/'));
    let has_unit = path.is_some_and(|path| machine.has(format!("{UNITS}/{}", mount_unit(path))));
    let is_wanted = given(wanted, "canmount").unwrap_or("on") == "on" && path.is_some() && !has_unit;
    if is_wanted && property(machine, &wanted.dataset, "mounted")? == "no" {
        machine.run(zfs::mount_cmd(&wanted.dataset), &[])?;
    }
    Ok(())
}

fn given<'a>(wanted: &'a NodeEncrypted, name: &str) -> Option<&'a str> {
    wanted.properties.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
}

fn property(machine: &dyn Machine, dataset: &str, name: &str) -> Result<String, MachineError> {
    let text = machine.run_text(zfs::get_cmd(dataset, &[name], false))?;
    let found = zfs::parse_get(&text)?.into_iter().next();
    // A mark that a parent carries is the parent's.
    Ok(found.filter(|p| !p.source.starts_with("inherited")).map(|p| p.value).unwrap_or_default())
}

fn is_mounted(machine: &dyn Machine, path: &str) -> Result<bool, MachineError> {
    let table = machine.read_text("/proc/self/mounts")?.unwrap_or_default();
    Ok(table.lines().any(|line| line.split(' ').nth(1) == Some(path)))
}

//! Looking into environments that do not run.

use std::time::Duration;

use kld_host::{Cmd, zfs};

use crate::action::{Action, Plan};
use crate::error::{BootError, Protection};
use crate::esp::mounts;
use crate::look::{Environment, Looked};
use crate::machine::{Machine, MachineError};

/// Where environments are mounted when nobody says where.
const PLACES: &str = "/run/kbe";
/// Where the origin of a new environment is mounted, for its kernel only. No environment has this name.
pub(crate) const SOURCE: &str = "/run/kbe/.source";
/// Where the owner of a snapshot is mounted while `zfs diff` compares with it.
pub(crate) const OWNER: &str = "/run/kbe/.owner";
const DEADLINE: Duration = Duration::from_secs(60);

/// Mounts a dataset or snapshot at `place`, for reading (`ro`) or writing (`rw`).
fn mount(machine: &dyn Machine, source: &str, access: &str, place: &str) -> Result<(), MachineError> {
    machine.make_directory(place)?;
    // What ZFS mounts by itself is mounted elsewhere with `zfsutil` only; snapshots, and what is left to mount(8), without.
    let options = match source.contains('@') || is_legacy(machine, source)? {
        true => access.to_owned(),
        false => format!("{access},zfsutil"),
    };
    let mount = Cmd::new("mount").args(["-t", "zfs", "-o", &options, source, place]);
    machine.run(&mount.timeout(DEADLINE)).map(drop)
}

fn is_legacy(machine: &dyn Machine, dataset: &str) -> Result<bool, MachineError> {
    let said = machine.run(&zfs::get_cmd(dataset, &["mountpoint"], false))?;
    Ok(zfs::parse_get(&said)?.iter().any(|of| of.name == "mountpoint" && of.value == "legacy"))
}

/// Mounts a dataset or snapshot at [`SOURCE`], read-only; what a killed command has left there goes first.
pub(crate) fn mount_for_a_look(machine: &dyn Machine, source: &str) -> Result<(), MachineError> {
    mount_read_only(machine, source, SOURCE)
}

fn mount_read_only(machine: &dyn Machine, source: &str, place: &str) -> Result<(), MachineError> {
    unmount(machine, place)?;
    mount(machine, source, "ro", place)
}

/// Does something while a dataset is mounted: where it is, or else at `place`, read-only. `work` gets the path, `/` as nothing.
pub(crate) fn while_mounted<T, E: From<BootError>>(
    machine: &dyn Machine,
    dataset: &str,
    place: &str,
    work: impl FnOnce(&str) -> Result<T, E>,
) -> Result<T, E> {
    let mounts = mounts(machine).map_err(BootError::from)?;
    let mounted = mounts.iter().filter(|mount| mount.source == dataset).map(|mount| mount.point.as_str());
    if let Some(point) = mounted.min() {
        return work(point.trim_end_matches('/'));
    }
    mount_read_only(machine, dataset, place).map_err(BootError::from)?;
    let done = work(place);
    unmount(machine, place).map_err(BootError::from)?;
    done
}

/// Unmounts what a killed command has left mounted for its own look.
pub(crate) fn unmount_leftovers(machine: &dyn Machine) -> Result<(), MachineError> {
    [SOURCE, OWNER].iter().try_for_each(|place| unmount(machine, place))
}

/// Unmounts what is mounted at `place` and removes the directory; nothing there is no error.
pub(crate) fn unmount(machine: &dyn Machine, place: &str) -> Result<(), MachineError> {
    if mounts(machine)?.iter().any(|mount| mount.point == place) {
        machine.run(&Cmd::new("umount").arg(place).timeout(DEADLINE))?;
    }
    machine.remove(place)
}

pub(crate) fn mount_writable(machine: &dyn Machine, dataset: &str, place: &str) -> Result<(), MachineError> {
    mount(machine, dataset, "rw", place)
}

/// Unmounts an environment; a directory that nobody has named goes.
pub(crate) fn unmount_place(machine: &dyn Machine, place: &str) -> Result<(), MachineError> {
    machine.run(&Cmd::new("umount").arg(place).timeout(DEADLINE))?;
    if place.starts_with(PLACES) { machine.remove(place) } else { Ok(()) }
}

/// Mounts an environment at `place`, an empty directory, or below `/run/kbe`: what is to be done, which is nothing when it
/// is mounted there, and where.
///
/// # Errors
/// When there is no such environment, it is mounted elsewhere, or the directory holds something.
pub fn plan_mount(
    machine: &dyn Machine,
    name: &str,
    place: Option<&str>,
) -> Result<(Plan, String), BootError> {
    let looked = Looked::before_change(machine)?;
    let environment = not_running(&looked, name)?;
    if let Some(there) = environment.mounted.first() {
        if place.is_none_or(|place| place == there) {
            return Ok((Plan::default(), there.clone()));
        }
        return Err(BootError::Protected { name: name.to_owned(), why: Protection::Mounted(there.clone()) });
    }
    let place = place.map_or_else(|| format!("{PLACES}/{name}"), str::to_owned);
    let is_taken = mounts(machine)?.iter().any(|mount| mount.point == place);
    if is_taken || machine.size(&place)?.is_some() || !machine.list(&place)?.is_empty() {
        return Err(BootError::NotEmpty { path: place });
    }
    let mount = Action::Mount { dataset: environment.dataset.clone(), place: place.clone() };
    Ok((Plan { actions: vec![mount], ..Plan::default() }, place))
}

/// Unmounts an environment wherever it is mounted.
///
/// # Errors
/// When it is not mounted, or runs.
pub fn plan_umount(machine: &dyn Machine, name: &str) -> Result<Plan, BootError> {
    let looked = Looked::before_change(machine)?;
    let environment = not_running(&looked, name)?;
    if environment.mounted.is_empty() {
        return Err(BootError::NotMounted { name: name.to_owned() });
    }
    let places = environment.mounted.iter().map(|place| Action::Unmount { place: place.clone() });
    Ok(Plan { actions: places.collect(), ..Plan::default() })
}

fn not_running<'a>(looked: &'a Looked, name: &str) -> Result<&'a Environment, BootError> {
    match looked.environment(name)? {
        of if of.is_running() => {
            Err(BootError::Protected { name: name.to_owned(), why: Protection::Running })
        }
        of => Ok(of),
    }
}

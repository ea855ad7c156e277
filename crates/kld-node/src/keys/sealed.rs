//! The sealed key of a dataset, which lies in two places, and the one in memory that ZFS reads.
//!
//! What is in `/etc` goes where its boot environment goes, and with it when that is destroyed; the dataset is in neither.
//! So the key that counts is the one in [`KEPT`], and none is ever made for a dataset that is there.

use std::path::{Path, PathBuf};

use kld_host::zfs;
use kld_system::node::NodeDatasetKey;

use super::{KeyError, state};
use crate::identity::secrets::{seal, unseal};
use crate::machine::{Access, Machine, MachineError};

/// Where the newest keys lie, sealed: a dataset that no rollback of the system takes back.
pub(super) const KEPT: &str = "/var/lib/kldload/keys";

pub(super) fn newest(key: &NodeDatasetKey) -> PathBuf {
    Path::new(KEPT).join(format!("{}.cred", key.credential))
}

/// The key for a dataset that is to be made: the one that was sealed for this name before, or a new one; sealed in both
/// places, then unsealed to where ZFS reads it. Whether it is new.
pub(crate) fn prepare(machine: &dyn Machine, key: &NodeDatasetKey) -> Result<bool, MachineError> {
    let (newest, own) = (newest(key), Path::new(&key.credential_file));
    let is_new = !machine.has(&newest) && !machine.has(own);
    if is_new {
        make(machine, key)?;
    }
    copy_to_both(machine, key, if machine.has(&newest) { &newest } else { own })?;
    // Whatever lies there: what the dataset is made with must be what is sealed.
    put_for_zfs(machine, key, &unseal(machine, &key.credential, own)?)?;
    Ok(is_new)
}

/// Makes a key and seals it in [`KEPT`], in place of what lies there.
pub(super) fn make(machine: &dyn Machine, key: &NodeDatasetKey) -> Result<[u8; 32], MachineError> {
    let mut bytes = [0; 32];
    machine.fill_random(&mut bytes);
    machine.make_folder(Path::new(KEPT))?;
    seal(machine, &key.credential, &bytes, &newest(key))?;
    Ok(bytes)
}

/// The sealed key lies where ZFS reads it.
pub(crate) fn unseal_for_zfs(machine: &dyn Machine, key: &NodeDatasetKey) -> Result<(), MachineError> {
    if machine.has(&key.key_file) {
        return Ok(());
    }
    let bytes = unseal(machine, &key.credential, Path::new(&key.credential_file))?;
    put_for_zfs(machine, key, &bytes)
}

/// Makes what is sealed in one place what is sealed in both.
fn copy_to_both(machine: &dyn Machine, key: &NodeDatasetKey, from: &Path) -> Result<(), MachineError> {
    put_in_both(machine, key, &machine.read(from)?.unwrap_or_default())
}

/// A sealed key lies in both places.
pub(super) fn put_in_both(
    machine: &dyn Machine,
    key: &NodeDatasetKey,
    sealed: &[u8],
) -> Result<(), MachineError> {
    for place in [newest(key).as_path(), Path::new(&key.credential_file)] {
        if machine.read(place)?.as_deref() != Some(sealed) {
            if place.starts_with(KEPT) {
                machine.make_folder(Path::new(KEPT))?;
            }
            machine.write(place, sealed, Access::SECRET)?;
        }
    }
    Ok(())
}

pub(super) fn put_for_zfs(
    machine: &dyn Machine,
    key: &NodeDatasetKey,
    bytes: &[u8],
) -> Result<(), MachineError> {
    let file = Path::new(&key.key_file);
    if let Some(folder) = file.parent() {
        machine.make_folder(folder)?;
    }
    machine.write(file, bytes, Access::SECRET)
}

fn places(key: &NodeDatasetKey) -> [PathBuf; 3] {
    [newest(key), PathBuf::from(&key.credential_file), PathBuf::from(&key.key_file)]
}

/// Whether a key of the machine is anywhere, sealed or not.
pub(super) fn remains(machine: &dyn Machine, key: &NodeDatasetKey) -> bool {
    places(key).iter().any(|place| machine.has(place))
}

/// Removes the key of a dataset that has a passphrase by now. Whether there was one.
pub(crate) fn forget(machine: &dyn Machine, key: &NodeDatasetKey) -> Result<bool, MachineError> {
    let there = remains(machine, key);
    for place in places(key).iter().filter(|place| machine.has(place)) {
        machine.remove(place)?;
    }
    Ok(there)
}

/// Whether there are two sealed keys, and not the same.
pub(super) fn differ(machine: &dyn Machine, key: &NodeDatasetKey) -> Result<bool, MachineError> {
    let newest = machine.read(&newest(key))?;
    Ok(newest.is_some() && newest != machine.read(Path::new(&key.credential_file))?)
}

/// When the two sealed keys of a dataset that is there are not the same, or one is missing, proves which one loads it and
/// keeps that in both places; the one in memory is sealed again when it is the last. Whether there was something to settle.
///
/// # Errors
/// When none does, or the machine refuses; then everything stays as it is.
pub(crate) fn settle(machine: &dyn Machine, dataset: &str, key: &NodeDatasetKey) -> Result<bool, KeyError> {
    let (newest, own) = (newest(key), Path::new(&key.credential_file));
    let sealed = machine.read(&newest)?;
    if sealed.is_some() && sealed == machine.read(own)? {
        return Ok(false);
    }
    let file = Path::new(&key.key_file);
    let in_memory = machine.read(file)?;
    let unsealed = |from: &Path| machine.has(from).then(|| unseal(machine, &key.credential, from).ok())?;
    let loads = |bytes: &[u8]| {
        let proven = || -> Result<(), MachineError> {
            put_for_zfs(machine, key, bytes)?;
            machine.run(zfs::check_key_cmd(dataset), &[]).map(drop)
        };
        proven().is_ok()
    };
    for from in [newest.as_path(), own] {
        if unsealed(from).is_some_and(|bytes| loads(&bytes)) {
            copy_to_both(machine, key, from)?;
            return Ok(true);
        }
    }
    if let Some(bytes) = in_memory {
        if loads(&bytes) {
            machine.make_folder(Path::new(KEPT))?;
            seal(machine, &key.credential, &bytes, &newest)?;
            copy_to_both(machine, key, &newest)?;
            return Ok(true);
        }
    } else if machine.has(file) {
        // Nothing that was tried stays where ZFS reads it.
        machine.remove(file)?;
    }
    let any = machine.has(&newest) || machine.has(own);
    let (dataset, kept) = (dataset.to_owned(), newest.display().to_string());
    Err(match state(machine, &dataset)?.status.as_str() {
        "available" => KeyError::OnlyLoaded { dataset },
        "unavailable" if any => KeyError::NoneLoads { dataset },
        "unavailable" => KeyError::Missing { dataset, kept },
        _ => KeyError::NotEncrypted { dataset },
    })
}

//! The host id: one number in every boot entry, in `/etc/hostid`, in the running kernel and in the pool's label.
//!
//! ZFS writes the host id into the label of a pool and does not import a pool that was left open under another one. The
//! initramfs of an image holds none, so a new image's label says 0, and the kernel's arguments must carry the number
//! from the next start on. Loader and label cannot change in the same instant. Until the label surely says the same, an
//! entry therefore also lets the import be forced; a power cut in between leaves a machine that starts.
//!
//! The order: entries (with [`FORCE`]), `/etc/hostid`, kernel; then [`settle`] writes the label, looks at it, and takes
//! [`FORCE`] away.

use super::{Changes, IdentityError, Node, StepResult, entries};
use crate::machine::{Access, Machine, MachineError};
use kld_disk::BootEntry;
use kld_disk::boot_entry::ENTRIES;
use kld_host::{Cmd, zpool};
use std::path::Path;
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) const FILE: &str = "/etc/hostid";
pub(crate) const ARGUMENT: &str = "spl.spl_hostid";
/// What the initramfs of Debian takes as leave to force the import of the root pool.
const FORCE: &str = "zfsforce";
/// The running kernel's.
pub(crate) const PARAMETER: &str = "/sys/module/spl/parameters/spl_hostid";

pub(super) fn ensure(node: &Node<'_>) -> StepResult {
    let machine = node.machine;
    let entries = entries::read(machine, &node.config.esp.mount)?;
    if entries.is_empty() {
        let folder = Path::new(&node.config.esp.mount).join(ENTRIES);
        return Err(IdentityError::NoBootEntry { folder: folder.display().to_string() });
    }
    let stored = read_file(machine)?;
    let id = stored
        .or_else(|| entries.iter().find_map(|(_, entry)| entry_id(entry)))
        .unwrap_or_else(|| new_id(machine));
    let mut changes = Changes::default();
    let running = running(machine)?;

    for (path, mut entry) in entries {
        if entry_id(&entry) != Some(id) {
            entry.set_option(ARGUMENT, &format!("0x{id:08x}"));
            if running != Some(id) {
                entry.set_option(FORCE, "1");
            }
            entries::replace(machine, &path, &entry)?;
            changes.made.push(format!("0x{id:08x} in {}", path.display()));
        }
    }
    if stored != Some(id) {
        machine.write(Path::new(FILE), &id.to_le_bytes(), Access::PUBLIC)?;
        changes.made.push(format!("0x{id:08x} in {FILE}"));
    }
    // The kernel's own threads do not see the machine's /etc: it must be told.
    if running.is_some_and(|running| running != id) {
        machine.set_parameter(Path::new(PARAMETER), &id.to_string())?;
        changes.made.push("told the kernel".to_owned());
    }
    Ok(changes)
}

/// Whether the pool was imported under the machine's own host id: then its label says so.
pub(super) fn is_in_label(node: &Node<'_>) -> bool {
    let stored = read_file(node.machine).ok().flatten();
    stored.is_some() && running(node.machine).ok().flatten() == stored
}

/// Brings the number into the pool's label and, once it is there, takes [`FORCE`] away. `in_label`: the pool was
/// imported under it.
pub(super) fn settle(node: &Node<'_>, in_label: bool) -> StepResult {
    let machine = node.machine;
    let pool = node.config.pool.as_str();
    let entries = entries::read(machine, &node.config.esp.mount)?;
    let forced: Vec<_> = entries.into_iter().filter(|(_, entry)| entry.option(FORCE).is_some()).collect();
    if forced.is_empty() {
        return Ok(Changes::default());
    }
    if !in_label {
        // OpenZFS 2.3 keeps the host id of the import; switching `multihost` makes it ask again, and a new GUID
        // writes the label.
        for value in ["multihost=on", "multihost=off"] {
            machine.run(Cmd::new("zpool").args(["set", value, pool]).timeout(DEADLINE), &[])?;
        }
        machine.run(zpool::reguid_cmd(pool), &[])?;
        let vdev = format!("/dev/disk/by-partlabel/{pool}");
        let label = machine.run_text(Cmd::new("zdb").args(["-l", &vdev]).timeout(DEADLINE))?;
        if label_host_id(&label) != read_file(machine)? {
            // The next start imports under the number, which writes it.
            return Ok(Changes::default());
        }
    }
    let mut changes = Changes::default();
    for (path, mut entry) in forced {
        entry.remove_option(FORCE);
        entries::replace(machine, &path, &entry)?;
        changes.made.push(format!("{} imports without force", path.display()));
    }
    Ok(changes)
}

/// The number in what `zdb -l` prints of a label.
fn label_host_id(text: &str) -> Option<u32> {
    text.lines().find_map(|line| line.trim().strip_prefix("hostid: ")?.parse().ok())
}

/// The running kernel's number; `None` when ZFS is not loaded.
fn running(machine: &dyn Machine) -> Result<Option<u32>, MachineError> {
    Ok(machine.read_text(PARAMETER)?.and_then(|text| text.trim().parse().ok()))
}

/// The number in `/etc/hostid` (4 bytes, little-endian); what is not one counts as none, as it does for ZFS.
pub(crate) fn read_file(machine: &dyn Machine) -> Result<Option<u32>, MachineError> {
    let bytes = machine.read(Path::new(FILE))?;
    Ok(bytes.and_then(|bytes| Some(u32::from_le_bytes(bytes.try_into().ok()?))).filter(|&id| id != 0))
}

/// The number in an entry's kernel arguments.
pub(crate) fn entry_id(entry: &BootEntry) -> Option<u32> {
    let text = entry.option(ARGUMENT)?;
    match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
    .filter(|&id| id != 0)
}

fn new_id(machine: &dyn Machine) -> u32 {
    loop {
        let mut bytes = [0; 4];
        machine.fill_random(&mut bytes);
        // 0 means none to ZFS.
        if bytes != [0; 4] {
            return u32::from_le_bytes(bytes);
        }
    }
}

//! The pool's own number, and a pool as large as its disk.

use super::{Changes, IdentityError, Node, StepResult, once};
use crate::machine::{Machine, MachineError};
use kld_disk::{MIB, SECTOR};
use kld_host::{Cmd, zpool};
use std::path::{Path, PathBuf};
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(60);
/// What a layout may leave unused at the end of a disk: less than 1 MiB of alignment, and 1 MiB for the backup table.
const SLACK: u64 = 2 * MIB / SECTOR;

/// A new GUID for the pool: two copies of an image in one machine would otherwise be one pool to ZFS.
pub(super) fn ensure_guid(node: &Node<'_>) -> StepResult {
    once(node.machine, "pool-guid", || {
        node.machine.run(zpool::reguid_cmd(&node.config.pool), &[])?;
        let guid = pool_property(node.machine, &node.config.pool, "guid")?;
        Ok(Changes::made(format!("{} is {guid}", node.config.pool)))
    })
}

/// A new GUID for the disk's partition table.
pub(super) fn ensure_disk_guid(node: &Node<'_>) -> StepResult {
    let Some(partition) = Partition::find(node.machine, &node.config.pool)? else {
        return Ok(Changes::default());
    };
    once(node.machine, "disk-guid", || {
        let guid = new_guid(node.machine);
        node.machine.run(sfdisk().args(["--disk-id", &partition.disk, &guid]), &[])?;
        Ok(Changes::made(format!("{} is {guid}", partition.disk)))
    })
}

/// The pool fills its disk: the backup table goes to the disk's end, the partition grows, then the pool.
pub(super) fn ensure_size(node: &Node<'_>) -> StepResult {
    let (machine, pool) = (node.machine, &node.config.pool);
    let Some(partition) = Partition::find(machine, pool)? else { return Ok(Changes::default()) };
    let mut changes = Changes::default();
    if partition.can_grow() {
        let Partition { disk, number, .. } = &partition;
        machine.run(sfdisk().args(["--relocate", "gpt-bak-std", disk]), &[])?;
        machine.run(sfdisk().args(["-N", &number.to_string(), disk]), b",+\n")?;
        machine
            .run(Cmd::new("partx").args(["-u", "--nr", &number.to_string(), disk]).timeout(DEADLINE), &[])?;
        changes.made.push(format!("partition {number} of {disk} fills the disk"));
    }
    // Asked for in any case: a machine that died after the partition grew has room that the pool does not use.
    let room = pool_property(machine, pool, "expandsize")?;
    if !changes.made.is_empty() || room.parse::<u64>().is_ok_and(|bytes| bytes > 0) {
        // udev follows the partition, and takes its links away and gives them back while it does; ZFS opens the device
        // anew by one of them, and a pool that does not find its disk stands still for ever.
        machine.run(Cmd::new("udevadm").args(["settle", "--timeout=30"]).timeout(DEADLINE), &[])?;
        machine.run(zpool::expand_cmd(pool, &device_of(machine, pool, &partition)?), &[])?;
        let size = pool_property(machine, pool, "size")?;
        changes.made.push(format!("{pool} has {size} bytes"));
    }
    Ok(changes)
}

/// The disk is in use: the kernel learns of the change from partx, which changes one partition.
fn sfdisk() -> Cmd {
    Cmd::new("sfdisk").args(["--quiet", "--no-reread", "--no-tell-kernel"]).timeout(DEADLINE)
}

fn pool_property(machine: &dyn Machine, pool: &str, property: &str) -> Result<String, MachineError> {
    machine.run_text(Cmd::new("zpool").args(["get", "-Hp", "-o", "value", property, pool]).timeout(DEADLINE))
}

/// What ZFS calls the partition.
fn device_of(
    machine: &dyn Machine,
    pool: &str,
    partition: &Partition,
) -> Result<zpool::Device, IdentityError> {
    let json = machine.run_text(zpool::status_cmd(pool))?;
    let status = zpool::parse_status(pool, &json).map_err(MachineError::from)?;
    let is_it = |device: &zpool::Device| {
        machine.resolve(Path::new(&device.path)).is_some_and(|real| real == Path::new(&partition.device))
    };
    status.devices.into_iter().find(is_it).ok_or_else(|| IdentityError::Answer {
        tool: "zpool status",
        reason: format!("`{}` is not a device of `{pool}`", partition.device),
    })
}

/// A random GUID (RFC 9562, version 4).
fn new_guid(machine: &dyn Machine) -> String {
    let mut bytes = [0; 16];
    machine.fill_random(&mut bytes);
    bytes[6] = bytes[6] & 0x0F | 0x40;
    bytes[8] = bytes[8] & 0x3F | 0x80;
    let hex = |range: std::ops::Range<usize>| -> String {
        bytes[range].iter().map(|byte| format!("{byte:02x}")).collect()
    };
    [hex(0..4), hex(4..6), hex(6..8), hex(8..10), hex(10..16)].join("-")
}

/// The partition that the image was built with: its label is the pool's name.
#[derive(Debug)]
struct Partition {
    /// `/dev/vda`.
    disk: String,
    /// `/dev/vda2`.
    device: String,
    number: u32,
    /// Sectors behind the partition.
    behind: u64,
}

impl Partition {
    fn can_grow(&self) -> bool {
        self.behind > SLACK
    }

    /// `None` on a machine whose pool is on whole disks, or was not made from an image.
    fn find(machine: &dyn Machine, pool: &str) -> Result<Option<Self>, IdentityError> {
        let Some(device) = machine.resolve(&Path::new("/dev/disk/by-partlabel").join(pool)) else {
            return Ok(None);
        };
        let Some(name) = device.file_name() else { return Ok(None) };
        // /sys/devices/…/vda/vda2: the folder above a partition's is its disk's.
        let Some(folder) = machine.resolve(&Path::new("/sys/class/block").join(name)) else {
            return Ok(None);
        };
        let Some(disk) = folder.parent().map(Path::to_owned) else { return Ok(None) };
        let number = read_number(machine, folder.join("partition"))?;
        let end = read_number(machine, folder.join("start"))? + read_number(machine, folder.join("size"))?;
        let sectors = read_number(machine, disk.join("size"))?;
        let disk_name = disk.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Some(Self {
            disk: format!("/dev/{disk_name}"),
            device: device.display().to_string(),
            number: u32::try_from(number).unwrap_or(u32::MAX),
            behind: sectors.saturating_sub(end),
        }))
    }
}

fn read_number(machine: &dyn Machine, path: PathBuf) -> Result<u64, IdentityError> {
    let text = machine.read_text(&path)?.unwrap_or_default();
    text.trim().parse().map_err(|_| IdentityError::Answer {
        tool: "sysfs",
        reason: format!("no number in `{}`", path.display()),
    })
}

//! Where a dataset is mounted, and who uses the volume that it is.

use std::path::Path;

use anyhow::Context as _;
use kld_engine::users_of_device;
use kld_host::mounts::Mount;
use kld_ui::Hinted;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// Where a dataset is mounted, by ZFS or by `mount`; its `mountpoint` need not say so.
pub(super) fn places<'a>(mounts: &'a [Mount], dataset: &str) -> Vec<&'a str> {
    let of_it = mounts.iter().filter(|mount| mount.kind == "zfs" && mount.source == dataset);
    of_it.map(|mount| mount.point.as_str()).collect()
}

/// That nobody uses a volume: who has a file system on it, or a machine, finds another one below itself. No service is known
/// to let go of it for a while.
pub(super) fn unused_volume(dataset: &str) -> anyhow::Result<()> {
    // udev writes blanks so.
    let link = Path::new("/dev/zvol").join(dataset.replace(' ', "+"));
    // What has no device, nobody uses.
    let Ok(device) = link.canonicalize() else { return Ok(()) };
    let in_use =
        |who: String, hint: String| Err(Hinted::new(format!("`{dataset}` is in use: {who}"), hint).into());
    // The kernel gives it to nobody alone while it, or a part of it, is mounted, swapped to, or below another device.
    match rustix::fs::open(&device, OFlags::RDONLY | OFlags::EXCL | OFlags::CLOEXEC, Mode::empty()) {
        Err(Errno::BUSY) => {
            let device = device.display();
            return in_use(format!("the kernel uses {device}"), format!("`lsblk {device}` says what for"));
        }
        opened => drop(opened.with_context(|| format!("cannot open `{}`", device.display()))?),
    }
    match users_of_device(&device.to_string_lossy())?.first() {
        Some(user) => in_use(user.to_string(), "end it first".to_owned()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dataset_is_where_it_is_mounted_whoever_did_it() {
        let table = "22 1 0:23 / / rw - zfs t/root rw\n40 22 0:40 / /mnt/a\\040b rw - zfs t/db rw\n\
                     41 22 0:40 /data /srv/data rw - zfs t/db rw\n42 22 0:41 / /old rw - zfs t/db@one rw\n";
        let mounts = kld_host::mounts::parse(table);
        assert_eq!(places(&mounts, "t/db"), ["/mnt/a b", "/srv/data"]);
        assert!(places(&mounts, "t/d").is_empty());
    }
}

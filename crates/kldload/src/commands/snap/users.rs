//! Who uses a dataset, wherever it is mounted, or the volume that it is.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use kld_engine::{User, users_on};
use kld_host::mounts::Mount;
use kld_ui::Hinted;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// Where a dataset is mounted, by ZFS or by `mount`; its `mountpoint` need not say so.
pub(super) fn places<'a>(mounts: &'a [Mount], dataset: &str) -> Vec<&'a str> {
    let of_it = mounts.iter().filter(|mount| mount.kind == "zfs" && mount.source == dataset);
    of_it.map(|mount| mount.point.as_str()).collect()
}

/// Everybody who uses what is mounted on one of these, once.
pub(super) fn users_at(places: &[&str]) -> anyhow::Result<Vec<User>> {
    let mut users: Vec<User> = Vec::new();
    for place in places {
        for user in users_on(place)? {
            if users.iter().all(|known| (known.process, &known.unit) != (user.process, &user.unit)) {
                users.push(user);
            }
        }
    }
    Ok(users)
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
    match who_has_open(&device)?.first() {
        Some(user) => in_use(user.to_string(), "end it first".to_owned()),
        None => Ok(()),
    }
}

/// Processes that have a device open, or a partition of it.
fn who_has_open(device: &Path) -> anyhow::Result<Vec<User>> {
    let is_it = |path: &PathBuf| {
        let rest = path.to_str().and_then(|path| path.strip_prefix(device.to_str()?));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('p'))
    };
    let mut users = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let base = entry?.path();
        let process = base.file_name().and_then(|name| name.to_str()?.parse().ok());
        // A process that ended meanwhile has nothing open.
        let (Some(process), Ok(files)) = (process, fs::read_dir(base.join("fd"))) else { continue };
        let mut paths = files.flatten().filter_map(|file| fs::read_link(file.path()).ok());
        if let Some(path) = paths.find(is_it) {
            let name = fs::read_to_string(base.join("comm")).unwrap_or_default().trim().to_owned();
            let does = format!("has {} open", path.display());
            users.push(User { name, process: Some(process), unit: None, does });
        }
    }
    users.sort_by_key(|user| user.process);
    Ok(users)
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

    #[test]
    fn whoever_has_a_device_or_a_partition_of_it_open_is_found() {
        let folder = tempfile::tempdir().expect("writable");
        let folder = folder.path().canonicalize().expect("there");
        let _part = fs::File::create(folder.join("zd16p1")).expect("written");
        let users = who_has_open(&folder.join("zd16")).expect("readable");
        assert_eq!(users.iter().map(|user| user.process).collect::<Vec<_>>(), [Some(std::process::id())]);
        assert!(users[0].does.ends_with("/zd16p1 open"), "{}", users[0]);
        assert!(who_has_open(&folder.join("zd1")).expect("readable").is_empty());
    }
}

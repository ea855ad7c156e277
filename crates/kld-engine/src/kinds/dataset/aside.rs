//! Datasets that go with the apply that has made them, and those that are put aside because somebody has written into them.

use std::time::Duration;

use kld_host::Cmd;
use kld_host::zfs;

use super::place::{is_mounted, mount, set};
use super::{exists, unmount_cmd};
use crate::destroy::destroyed;
use crate::history::Store;
use crate::host::{Host, HostError};

/// Destroys a new dataset, or puts it aside when somebody has written into it, or holds or has cloned a snapshot of it.
pub(super) fn take_away(
    host: &dyn Host,
    store: &Store<'_>,
    dataset: &str,
    mountpoint: Option<&str>,
) -> Result<(), HostError> {
    if !exists(host, dataset)? {
        return Ok(());
    }
    if !holds_anything(host, dataset, mountpoint)? && destroyed(host, dataset)? {
        return Ok(());
    }
    // Somebody needs it since: out of the way, and nothing lost.
    host.run(&zfs::set_cmd(dataset, &[("canmount", "noauto")]))?;
    if is_mounted(host, dataset)? {
        host.run(&unmount_cmd(dataset))?;
    }
    let aside = format!("{dataset}{}", aside_end(store.number));
    host.run(&Cmd::new("zfs").args(["rename", dataset, &aside])).map(drop)
}

/// The way back from [`take_away`]: by its old name again, or made once more when nothing was in it.
pub(super) fn bring_back(
    host: &dyn Host,
    store: &Store<'_>,
    dataset: &str,
    properties: &[(String, String)],
    make: impl FnOnce() -> Result<(), HostError>,
) -> Result<(), HostError> {
    let aside = format!("{dataset}{}", aside_end(store.number));
    if !exists(host, dataset)? {
        if !exists(host, &aside)? {
            return make();
        }
        host.run(&Cmd::new("zfs").args(["rename", &aside, dataset]))?;
    }
    let wanted = properties.iter().find(|(name, _)| name == "canmount").map_or("on", |(_, value)| value);
    let found = zfs::parse_get(&host.text(&zfs::get_cmd(dataset, &["canmount"], false))?)?;
    // A volume has none.
    let differs = found.iter().any(|of| of.value != wanted && of.value != "-");
    // One that is locked is mounted when somebody unlocks it.
    if differs { set(host, dataset, "canmount", wanted) } else { mount(host, dataset) }
}

/// How the name of a dataset ends that taking this apply back has put aside.
fn aside_end(number: u32) -> String {
    format!(".undone-{number:06}")
}

/// The datasets that taking an apply back has put aside, because something was written into them, or somebody needs their snapshots.
///
/// # Errors
/// When datasets cannot be listed.
pub fn put_aside(host: &dyn Host, number: u32) -> Result<Vec<String>, HostError> {
    let list = Cmd::new("zfs").args(["list", "-H", "-o", "name", "-t", "filesystem,volume"]);
    let names = host.text(&list.timeout(Duration::from_secs(60)))?;
    let end = aside_end(number);
    Ok(names.lines().filter(|name| name.ends_with(&end)).map(str::to_owned).collect())
}

/// Whether there are files in a dataset, in one of its snapshots, or datasets below it.
fn holds_anything(host: &dyn Host, dataset: &str, mountpoint: Option<&str>) -> Result<bool, HostError> {
    let below = Cmd::new("zfs").args(["list", "-H", "-r", "-o", "name", "-t", "filesystem,volume", dataset]);
    if host.text(&below)?.lines().count() > 1 {
        return Ok(true);
    }
    // Where it is now: somebody may have given it another place since, or mounted one that had none.
    let found =
        zfs::parse_get(&host.text(&zfs::get_cmd(dataset, &["canmount", "mounted", "mountpoint"], false))?)?;
    let value = |name: &str| found.iter().find(|of| of.name == name).map_or("", |of| &*of.value);
    let is_mounted = value("mounted") == "yes";
    if mountpoint.is_none() && !is_mounted && value("canmount") == "off" {
        return Ok(false);
    }
    // What cannot be looked into is kept.
    let path = value("mountpoint");
    if !path.starts_with('/') {
        return Ok(true);
    }
    // A directory that nothing is mounted on says nothing: an undo that was interrupted has unmounted it already.
    if !is_mounted && host.run(&zfs::mount_cmd(dataset).accept(1))?.code != 0 {
        return Ok(true);
    }
    if !host.list(path)?.is_empty() {
        return Ok(true);
    }
    let snapshots = format!("{path}/.zfs/snapshot");
    for name in host.list(&snapshots)? {
        if !host.list(&format!("{snapshots}/{name}"))?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

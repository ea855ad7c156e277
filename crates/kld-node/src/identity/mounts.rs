//! How encrypted datasets are mounted: by systemd, whose units zfs-mount-generator(8) makes of a cache of datasets.

use kld_host::Cmd;
use kld_system::node::NodeEncrypted;
use kld_system::{mount_cache_columns, mount_cache_path};
use std::path::Path;
use std::time::Duration;

use super::encrypted::{given, property};
use super::{Changes, Node, chain, mount_unit};
use crate::machine::{Access, Machine, MachineError};

/// Where zfs-mount-generator(8) puts its units.
const UNITS: &str = "/run/systemd/generator";
const DEADLINE: Duration = Duration::from_secs(60);

/// Sees to it that a dataset is mounted, or says that the next start does so.
pub(super) fn ensure(
    node: &Node<'_>,
    wanted: &NodeEncrypted,
    is_new: bool,
    changes: &mut Changes,
) -> Result<(), MachineError> {
    let (machine, dataset) = (node.machine, &wanted.dataset);
    let Some(place) = mounted_at(wanted) else { return Ok(()) };
    let unit = mount_unit(place);
    if has_unit(machine, &unit) {
        if !is_new {
            return Ok(());
        }
    } else {
        if property(machine, dataset, "mounted")? != "no" {
            return Ok(());
        }
        make_unit(machine, &node.config.pool, dataset)?;
        if !has_unit(machine, &unit) {
            return run_mount(machine, dataset);
        }
    }
    // systemd has no reason to when it has started already. It is not waited for: it waits for this program.
    let start = Cmd::new("systemctl").args(["start", "--no-block", &unit]).timeout(DEADLINE);
    if let Err(error) = machine.run(start, &[]) {
        changes.warnings.push(format!("{dataset} is mounted by the next start: {}", chain(&error)));
    }
    Ok(())
}

/// Has a unit made for a dataset that was born a moment ago. The cache has its line since the image was built or the apply began, but
/// for what ZFS's event daemon has written since, who did not know it. Mounted without a unit, it would be unmounted as soon as
/// there is one: that unit is bound to the one that loads the key, which was not started.
fn make_unit(machine: &dyn Machine, pool: &str, dataset: &str) -> Result<(), MachineError> {
    let cache = mount_cache_path(pool);
    // A machine without a cache mounts by other means.
    let Some(text) = machine.read_text(&cache)? else { return Ok(()) };
    let is_its = |line: &str| line.split('\t').next() == Some(dataset);
    if !text.lines().any(is_its) {
        let columns = mount_cache_columns();
        let list = Cmd::new("zfs").args(["list", "-H", "-o", &columns, "--", dataset]);
        let line = machine.run_text(list.timeout(DEADLINE))?;
        // In the order in which the daemon sorts them.
        let mut lines: Vec<&str> = text.lines().chain(line.lines()).collect();
        lines.sort_unstable();
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        machine.write(Path::new(&cache), text.as_bytes(), Access::PUBLIC)?;
    }
    machine.run(Cmd::new("systemctl").arg("daemon-reload").timeout(DEADLINE), &[]).map(drop)
}

fn has_unit(machine: &dyn Machine, unit: &str) -> bool {
    machine.has(format!("{UNITS}/{unit}"))
}

/// systemd runs the command: this service has a view of the file systems of its own, and nobody else would see the mount. Not
/// `--wait`, which needs a message bus that may not run yet.
fn run_mount(machine: &dyn Machine, dataset: &str) -> Result<(), MachineError> {
    let properties = ["--property=Type=oneshot", "--property=DefaultDependencies=no"];
    let run = Cmd::new("systemd-run").args(["--quiet", "--collect"]).args(properties);
    machine.run(run.args(["zfs", "mount", dataset]).timeout(DEADLINE), &[]).map(drop)
}

/// Mounts a dataset whose key was not there when the machine started. systemd is waited for.
pub(crate) fn now(machine: &dyn Machine, dataset: &str, place: &str) -> Result<(), MachineError> {
    let unit = mount_unit(place);
    if has_unit(machine, &unit) {
        let start = Cmd::new("systemctl").args(["start", "--", &unit]).timeout(DEADLINE);
        return machine.run(start, &[]).map(drop);
    }
    run_mount(machine, dataset)
}

/// Where it is mounted by itself.
fn mounted_at(wanted: &NodeEncrypted) -> Option<&str> {
    let is_on = given(wanted, "canmount").unwrap_or("on") == "on";
    given(wanted, "mountpoint").filter(|path| is_on && path.starts_with('/'))
}

//! What waits for the key of a dataset: the question for it, mounts, services.

use std::collections::BTreeMap;
use std::time::Duration;

use kld_host::mounts::is_within;
use kld_host::{Cmd, zfs};
use kld_system::node::{NodeConfig, NodeDatasetKey};

use super::KeyError;
use crate::identity::{encrypted, mounts, unit_name};
use crate::machine::{Machine, MachineError};

const DEADLINE: Duration = Duration::from_secs(60);
/// A service may do much before it is up.
const START_DEADLINE: Duration = Duration::from_secs(300);

/// The unit of zfs-mount-generator(8) asks at the console, one and a half minutes for each try: it would not see that somebody has
/// answered here. It is stopped before the key is loaded, because after that its stopping unloads it.
pub(super) fn stop_asking(machine: &dyn Machine, dataset: &str) -> Result<(), MachineError> {
    let unit = format!("zfs-load-key@{}.service", unit_name(dataset));
    // There is none for a dataset that is not mounted by itself.
    let stop = Cmd::new("systemctl").args(["stop", "--", &unit]).accept(5).timeout(DEADLINE);
    machine.run(stop, &[]).map(drop)
}

/// Stops the unit that has unsealed a key, and it alone. An apply that starts the node's own unit again would restart it, and with it
/// whatever needs it: the dataset would be locked in the middle of that.
pub(super) fn let_go(machine: &dyn Machine, key: &NodeDatasetKey) -> Result<(), MachineError> {
    let stop = Cmd::new("systemctl").args(["stop", "--job-mode=ignore-dependencies", "--", &key.unit]);
    machine.run(stop.accept(5).timeout(DEADLINE), &[]).map(drop)
}

/// Makes and mounts what could not be without the key.
pub(super) fn mount(
    machine: &dyn Machine,
    config: &NodeConfig,
    dataset: &str,
) -> Result<Vec<String>, KeyError> {
    encrypted::make_below(machine, config, dataset)?;
    let asked = ["canmount", "encryptionroot", "mounted", "mountpoint"];
    let text = machine.run_text(zfs::get_cmd(dataset, &asked, true))?;
    let mut found: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for property in zfs::parse_get(&text).map_err(MachineError::from)? {
        found.entry(property.dataset).or_default().insert(property.name, property.value);
    }
    let mut mounted = Vec::new();
    for (name, of) in found {
        let is = |property: &str, value: &str| of.get(property).is_some_and(|is| is == value);
        let place = of.get("mountpoint").filter(|place| place.starts_with('/'));
        let waits = is("canmount", "on") && is("encryptionroot", dataset) && is("mounted", "no");
        if let (Some(place), true) = (place, waits) {
            mounts::now(machine, &name, place)?;
            mounted.push(name);
        }
    }
    Ok(mounted)
}

/// Starts the services of the manifest that do not run and need what is mounted here.
pub(super) fn start(
    machine: &dyn Machine,
    config: &NodeConfig,
    dataset: &str,
) -> Result<Vec<String>, MachineError> {
    let units: Vec<&str> = config.services.iter().map(|service| service.unit.as_str()).collect();
    if units.is_empty() {
        return Ok(Vec::new());
    }
    let below = config.mounts.iter().filter(|mount| is_within(&mount.dataset, dataset));
    let places: Vec<&str> = below.map(|mount| mount.path.as_str()).collect();
    let show = Cmd::new("systemctl").args(["show", "--property=Id,ActiveState,RequiresMountsFor", "--"]);
    let text = machine.run_text(show.args(&units).timeout(DEADLINE))?;
    let waits = waiting(&text, &places);
    if !waits.is_empty() {
        let start = Cmd::new("systemctl").args(["start", "--"]).args(&waits).timeout(START_DEADLINE);
        machine.run(start, &[])?;
    }
    Ok(waits)
}

/// Those among the blocks of `systemctl show` that do not run and need one of the places.
fn waiting(text: &str, places: &[&str]) -> Vec<String> {
    let mut waiting = Vec::new();
    for block in text.split("\n\n") {
        let of: BTreeMap<&str, &str> = block.lines().filter_map(|line| line.split_once('=')).collect();
        let get = |name: &str| of.get(name).copied().unwrap_or_default();
        let mut needed = get("RequiresMountsFor").split_whitespace();
        if !matches!(get("ActiveState"), "active" | "reloading")
            && needed.any(|path| places.iter().any(|place| is_within(path, place)))
        {
            waiting.push(get("Id").to_owned());
        }
    }
    waiting
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_does_not_run_and_needs_the_place_has_waited() {
        let unit = |name: &str, state: &str, needs: &str| {
            format!("Id={name}\nActiveState={state}\nRequiresMountsFor={needs}\n")
        };
        let text = [
            unit("a.service", "failed", "/var/tmp /srv/vault"),
            unit("b.service", "inactive", "/srv/vault/db"),
            unit("c.service", "active", "/srv/vault"),
            unit("d.service", "inactive", "/srv/vaults"),
            unit("e.service", "inactive", ""),
        ];
        assert_eq!(waiting(&text.join("\n"), &["/srv/vault"]), ["a.service", "b.service"]);
        assert!(waiting("", &["/srv/vault"]).is_empty());
    }
}

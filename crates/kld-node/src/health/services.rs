//! Whether the services that must run do, and no other unit has failed.

use super::{DEADLINE, Family, Probe, Status, View, age};
use kld_host::{Cmd, systemd};
use std::collections::BTreeMap;

/// A service that systemd has started again this often, and the last time within [`SETTLED`] seconds, is one that keeps ending: between two
/// ends it runs. One that waits at a start for another ends once or twice.
const KEEPS_ENDING: u64 = 3;
const SETTLED: u64 = 120;

pub(super) fn probe(view: &View) -> Vec<Probe> {
    if let Some(said) = view.without_units("services") {
        return said;
    }
    let failed =
        Cmd::new("systemctl").args(["list-units", "--failed", "--plain", "--no-legend", "--no-pager"]);
    let failed = match view.machine.run_text(failed.timeout(DEADLINE)) {
        Ok(text) => text,
        Err(error) => return vec![Probe::unanswered("services", &error)],
    };
    let failed = failed.lines().filter_map(|line| line.split_ascii_whitespace().next());
    let mut bad: BTreeMap<&str, String> = failed.map(|unit| (unit, format!("{unit} failed"))).collect();

    let wanted: Vec<&str> =
        view.config.iter().flat_map(|config| &config.services).map(|service| service.unit.as_str()).collect();
    let (mut metrics, mut restless) = (Vec::new(), BTreeMap::new());
    if !wanted.is_empty() {
        let states = view.machine.run_text(systemd::show_cmd(&wanted));
        let states = match states.and_then(|text| Ok(systemd::parse_show(&text)?)) {
            Ok(states) => states,
            Err(error) => return vec![Probe::unanswered("services", &error)],
        };
        for unit in &wanted {
            let state = states.get(*unit).cloned().unwrap_or_default();
            let up = state.active == "active";
            metrics.push((*unit, f64::from(u8::from(up))));
            if up && state.restarts >= KEEPS_ENDING {
                let since = view.uptime().unwrap_or(0).saturating_sub(state.active_since);
                if since < SETTLED {
                    let (times, since) = (state.restarts, age(since));
                    restless.insert(
                        *unit,
                        format!("{unit} keeps ending: started again {times} times, {since} ago"),
                    );
                }
            }
            if !up && state.active != "failed" {
                let load = if state.load == "loaded" { &state.active } else { &state.load };
                bad.insert(unit, format!("{unit} is {load}"));
            }
        }
    }
    let (status, named) = if bad.is_empty() { (Status::Warn, restless) } else { (Status::Fail, bad) };
    let mut probe = match named.keys().next() {
        None => Probe::new(
            "services",
            Status::Ok,
            match wanted.len() {
                0 => "no unit has failed".to_owned(),
                all => format!("{all} of {all} running, no unit has failed"),
            },
        ),
        Some(unit) => Probe::new("services", status, Vec::from_iter(named.values().cloned()).join(", "))
            .with_command(format!("systemctl status {unit}; journalctl -b -u {unit}"))
            .with_subjects(named.keys().copied()),
    };
    for (unit, up) in metrics {
        probe = probe.with_metric(Family::ServiceUp, unit, up);
    }
    vec![probe]
}

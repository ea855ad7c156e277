//! Whether the planes are up, and which peers have been heard of.

use super::{AHEAD, DEADLINE, Family, Probe, Status, View, age};
use crate::machine::MachineError;
use kld_host::{Cmd, wireguard};

/// A peer that talks shakes hands every two minutes (WireGuard, 6.1: REKEY_AFTER_TIME); after 180 s its keys are dead.
const FRESH: u64 = 180;

pub(super) fn probe(view: &View) -> Vec<Probe> {
    let interfaces: Vec<String> = match &view.config {
        Some(config) => config.planes.iter().map(|plane| plane.interface.clone()).collect(),
        None if view.machine.has("/usr/bin/wg") => {
            let list = Cmd::new("wg").args(["show", "interfaces"]).timeout(DEADLINE);
            match view.machine.run_text(list) {
                Ok(text) => text.split_ascii_whitespace().map(str::to_owned).collect(),
                Err(error) => return vec![Probe::unanswered("wireguard", &error)],
            }
        }
        None => Vec::new(),
    };
    if interfaces.is_empty() {
        return vec![Probe::new("wireguard", Status::Info, "no interface")];
    }
    interfaces.iter().map(|interface| probe_one(view, interface)).collect()
}

fn probe_one(view: &View, interface: &str) -> Probe {
    let answer = view.machine.run_text(wireguard::dump_cmd(interface));
    let plane = match answer.and_then(|text| Ok(wireguard::parse_dump(&text)?)) {
        Ok(plane) => plane,
        Err(error) => return silent(view, interface, &error),
    };
    let now = view.machine.now();
    // Nothing is known of the age of one that is dated ahead of the clock.
    let age_of = |at: u64| (at <= now.saturating_add(AHEAD)).then(|| now.saturating_sub(at));
    let ages: Vec<(&str, Option<u64>)> =
        plane.peers.iter().map(|peer| (&*peer.public_key, peer.handshake.and_then(age_of))).collect();
    let seen = ages.iter().filter_map(|(_, age)| *age);
    let fresh = seen.clone().filter(|age| *age <= FRESH).count();
    let last =
        seen.clone().min().map_or(String::new(), |seconds| format!(", last heard {} ago", age(seconds)));
    // Laptops sleep: a peer that is silent, or was never seen, is no fault of this machine.
    let status = if fresh == ages.len() { Status::Ok } else { Status::Info };
    let mut probe =
        Probe::new("wireguard", status, format!("{interface} up, {fresh} of {} peers up{last}", ages.len()))
            .with_command(format!("wg show {interface}"));
    for (key, age) in ages {
        if let Some(age) = age {
            probe = probe.with_metric(Family::PeerHandshakeAge, format!("{interface} {key}"), age as f64);
        }
    }
    probe
}

/// One that `wg` does not tell of. Whether it is there, the kernel says.
fn silent(view: &View, interface: &str, error: &MachineError) -> Probe {
    let is_up = view.machine.has(format!("/sys/class/net/{interface}"));
    let probe = if is_up {
        let probe = Probe::unanswered("wireguard", error);
        // Who repeats what was asked sees private keys.
        match error.hint() {
            Some(_) => probe,
            None => probe.with_command(format!("wg show {interface}")),
        }
    } else {
        Probe::new("wireguard", Status::Fail, format!("{interface} is not up"))
            .with_command(format!("networkctl status {interface}"))
    };
    probe.with_subjects([interface])
}

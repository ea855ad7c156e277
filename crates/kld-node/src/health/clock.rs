//! Whether the clock is kept right: snapshots, certificates and handshakes rest on it.

use super::{DEADLINE, Probe, Status, View, age};
use kld_host::Cmd;

/// A machine without a network is not ill at once.
const PATIENCE: u64 = 86_400;
pub(super) const SHOW: &str = "timedatectl timesync-status";

pub(super) fn probe(view: &View) -> Vec<Probe> {
    let show = ["show", "--property", "NTP", "--property", "NTPSynchronized"];
    let Ok(text) = view.machine.run_text(Cmd::new("timedatectl").args(show).timeout(DEADLINE)) else {
        return vec![Probe::new("clock", Status::Info, "timedatectl cannot be asked")];
    };
    let is = |name: &str| text.lines().any(|line| line.strip_prefix(name) == Some("=yes"));
    if is("NTPSynchronized") {
        return vec![Probe::new("clock", Status::Ok, "kept right by the network")];
    }
    let up = view.uptime().unwrap_or(0);
    let why = if is("NTP") { "no server has answered" } else { "nobody is asked" };
    let status = if up > PATIENCE { Status::Warn } else { Status::Info };
    let summary = format!("not set by the network since the start {} ago: {why}", age(up));
    vec![Probe::new("clock", status, summary).with_command(SHOW)]
}

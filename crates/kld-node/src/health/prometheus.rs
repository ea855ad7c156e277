//! Health as Prometheus reads it (text exposition format 0.0.4), for node_exporter's textfile collector.

use super::{Family, Health};
use std::fmt::Write as _;

/// Name, label and help of a family.
fn describe(family: Family) -> (&'static str, &'static str, &'static str) {
    match family {
        Family::PoolOnline => ("kldload_pool_online", "pool", "1 when the pool is ONLINE, else 0."),
        Family::PoolCapacity => ("kldload_pool_capacity_ratio", "pool", "Used part of the pool, 0 to 1."),
        Family::PoolErrors => {
            ("kldload_pool_errors", "pool", "Read, write, checksum and permanent errors of the pool.")
        }
        Family::ScrubAge => ("kldload_scrub_age_seconds", "pool", "Seconds since the last scrub ended."),
        Family::ServiceUp => ("kldload_service_up", "unit", "1 when the unit is active, else 0."),
        Family::SnapshotAge => ("kldload_snapshot_age_seconds", "dataset", "Age of the newest snapshot."),
        Family::ReplicationLag => {
            ("kldload_replication_lag_seconds", "target", "Seconds since the last successful replication.")
        }
        Family::ReplicationSuccess => (
            "kldload_replication_last_success_timestamp_seconds",
            "target",
            "Seconds since 1970 at which a replication last succeeded.",
        ),
        Family::PeerHandshakeAge => {
            ("kldload_peer_handshake_age_seconds", "peer", "Seconds since the peer's last handshake.")
        }
    }
}

/// All numbers of `health`, grouped by family, each with its HELP and TYPE line; then the status of every probe as a
/// number from 0 (ok) to 4 (fail).
pub fn render_prometheus(health: &Health) -> String {
    let mut text = String::new();
    let mut metrics: Vec<_> = health.probes.iter().flat_map(|probe| &probe.metrics).collect();
    metrics.sort_by(|a, b| (a.family, &a.label).cmp(&(b.family, &b.label)));
    let mut last = None;
    for metric in metrics {
        let (name, label, help) = describe(metric.family);
        if last != Some(metric.family) {
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
            last = Some(metric.family);
        }
        let _ = writeln!(text, "{name}{{{label}=\"{}\"}} {}", escape(&metric.label), metric.value);
    }
    let name = "kldload_probe_status";
    let _ =
        writeln!(text, "# HELP {name} What a probe of kst found: 0 ok, 1 info, 2 warn, 3 timeout, 4 fail.");
    let _ = writeln!(text, "# TYPE {name} gauge");
    // A probe that looks at several things gives one result for each; the worst counts.
    let mut probes: std::collections::BTreeMap<&str, u8> = std::collections::BTreeMap::new();
    for probe in &health.probes {
        let worst = probes.entry(&probe.name).or_default();
        *worst = (probe.status as u8).max(*worst);
    }
    for (probe, status) in probes {
        let _ = writeln!(text, "{name}{{probe=\"{}\"}} {status}", escape(probe));
    }
    text
}

/// Label values: backslash, quote and newline are escaped.
fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

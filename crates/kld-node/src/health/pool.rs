//! Whether the pools are whole and have room.

use super::{DEADLINE, Family, Probe, Status, View};
use crate::machine::MachineError;
use kld_host::Cmd;
use kld_host::zpool::{self, Imported, PoolStatus};

/// ZFS slows down, and cannot free what it cannot log, when a pool is nearly full (zpoolconcepts, OpenZFS tuning).
const CAPACITY_WARN: u64 = 80;
const CAPACITY_FAIL: u64 = 95;
/// A record of the default size: with less, nothing can be written. Reservations leave that little long before all is taken.
const ROOM: u64 = 128 << 10;

pub(super) fn probe(view: &View) -> Vec<Probe> {
    let pools = match view.pools() {
        Ok(pools) => pools,
        Err(error) => return vec![Probe::unanswered("pool", &error)],
    };
    let mut probes: Vec<Probe> = pools.iter().map(|pool| probe_one(view, pool)).collect();
    match view.own_pool() {
        Some(own) if pools.iter().all(|pool| pool.name != own) => {
            let probe = Probe::new("pool", Status::Fail, format!("{own} is not imported"));
            let probe = probe.with_command(format!("zpool import {own}")).with_subjects([own]);
            probes.insert(0, probe.with_metric(Family::PoolOnline, own, 0.0));
        }
        None if pools.is_empty() => {
            probes.push(Probe::new("pool", Status::Info, "no pool is imported").with_command("zpool import"));
        }
        _ => {}
    }
    probes
}

fn probe_one(view: &View, pool: &Imported) -> Probe {
    if !pool.answers() {
        // Whoever asks it more than this waits, too.
        let summary = format!("{} {}: whoever uses it waits", pool.name, pool.state);
        return Probe::new("pool", Status::Fail, summary)
            .with_subjects([&pool.name])
            .with_command(format!("zpool status {}", pool.name))
            .with_metric(Family::PoolOnline, &pool.name, 0.0);
    }
    let pool = pool.name.as_str();
    let status = match status_of(view, pool) {
        Ok(status) => status,
        Err(error) => {
            let probe = Probe::unanswered("pool", &error).with_subjects([pool]);
            return probe.with_metric(Family::PoolOnline, pool, 0.0);
        }
    };
    let get = ["get", "-Hp", "-o", "property,value", "capacity,fragmentation,readonly", pool];
    let text = view.machine.run_text(Cmd::new("zpool").args(get).timeout(DEADLINE)).unwrap_or_default();
    let percent = |name: &str| -> Option<u64> {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('\t'))?;
        value.trim_end_matches('%').parse().ok()
    };
    let capacity = percent("capacity");
    let errors = status.errors.saturating_add(status.device_errors);
    let mut parts = vec![format!("{pool} {}", status.state)];
    parts.push(if errors == 0 { "no errors".to_owned() } else { format!("{errors} errors") });
    parts.extend(status.unusable.iter().map(ToString::to_string));
    parts.extend(capacity.map(|percent| format!("{percent}% full")));
    let available = Cmd::new("zfs").args(["get", "-Hp", "-o", "value", "available", pool]).timeout(DEADLINE);
    let available = view.machine.run_text(available).ok().and_then(|text| text.parse::<u64>().ok());
    let is_read_only = text.lines().any(|line| line == "readonly\ton");
    parts.extend(is_read_only.then(|| "imported read-only".to_owned()));
    let is_out_of_room = available.is_some_and(|bytes| bytes < ROOM);
    parts.extend(is_out_of_room.then(|| "no room left".to_owned()));
    // Of the free space: how much of it lies in small pieces. Worth knowing, and nothing that anybody can mend but by room.
    parts.extend(percent("fragmentation").map(|percent| format!("{percent}% fragmented")));

    let full = capacity.unwrap_or(0);
    let found = if status.state != "ONLINE" || status.errors > 0 || full >= CAPACITY_FAIL || is_out_of_room {
        Status::Fail
    } else if errors > 0 || full >= CAPACITY_WARN || is_read_only || !status.unusable.is_empty() {
        Status::Warn
    } else {
        Status::Ok
    };
    // ZFS also remarks on pools that are well: features that are not enabled.
    let remark = status.problem.as_deref().filter(|_| found != Status::Ok);
    parts.extend(remark.and_then(|text| text.lines().next()).map(str::to_owned));
    let online = if status.state == "ONLINE" { 1.0 } else { 0.0 };
    let mut probe = Probe::new("pool", found, parts.join(", "))
        .with_subjects((found > Status::Info).then_some(pool))
        .with_metric(Family::PoolOnline, pool, online)
        .with_metric(Family::PoolErrors, pool, errors as f64);
    if let Some(percent) = capacity {
        probe = probe.with_metric(Family::PoolCapacity, pool, percent as f64 / 100.0);
    }
    match found {
        Status::Ok => probe,
        _ if is_out_of_room => probe.with_command(format!("kdf {pool}")),
        _ => probe.with_command(format!("zpool status -v {pool}")),
    }
}

/// How a pool is that answers, as whichever OpenZFS there is says it.
pub(super) fn status_of(view: &View, pool: &str) -> Result<PoolStatus, MachineError> {
    let json = view.machine.run_text(zpool::status_cmd(pool))?;
    if !json.is_empty() {
        return Ok(zpool::parse_status(pool, &json)?);
    }
    Ok(zpool::parse_status_text(pool, &view.machine.run_text(zpool::status_text_cmd(pool))?)?)
}

//! Whether sanoid keeps up: the newest snapshot of every dataset it is to snapshot.

use super::{AHEAD, DEADLINE, Family, Probe, Status, View, age};
use kld_host::Cmd;
use std::collections::BTreeMap;

pub(super) const SHOW: &str = "systemctl status sanoid.timer sanoid.service";

pub(super) fn probe(view: &View) -> Vec<Probe> {
    let Some(policy) = view.config.as_ref().and_then(|config| config.snapshots.as_ref()) else {
        return vec![Probe::new("snapshots", Status::Info, "no policy")];
    };
    let list = Cmd::new("zfs")
        .args(["list", "-Hp", "-d", "1", "-t", "snapshot", "-o", "name,creation"])
        .args(&policy.datasets);
    let text = match view.machine.run_text(list.timeout(DEADLINE)) {
        Ok(text) => text,
        Err(error) => return vec![Probe::unanswered("snapshots", &error)],
    };
    let now = view.machine.now();
    let dates = parse_dates(&text, now);
    let limit = u64::from(policy.max_age_minutes) * 60;
    let mut probe = Probe::new("snapshots", Status::Ok, "").with_command(SHOW);
    let (mut oldest, mut missing, mut late) = (0, Vec::new(), Vec::new());
    for dataset in &policy.datasets {
        let Some(created) = dates.newest.get(dataset.as_str()) else {
            missing.push(dataset.as_str());
            continue;
        };
        let seconds = now.saturating_sub(*created);
        oldest = oldest.max(seconds);
        if seconds > limit {
            late.push(format!("{dataset}: {}", age(seconds)));
            probe.subjects.push(dataset.clone());
        }
        probe = probe.with_metric(Family::SnapshotAge, dataset, seconds as f64);
    }
    // sanoid's timer needs its first round after a start.
    let just_started = view.uptime().is_some_and(|seconds| seconds < limit);
    (probe.status, probe.summary) = if just_started && !(late.is_empty() && missing.is_empty()) {
        let datasets = late.len() + missing.len();
        (Status::Info, format!("{datasets} datasets wait for the first round since the start"))
    } else if !late.is_empty() {
        (Status::Fail, format!("too old: {}", late.join(", ")))
    } else if !missing.is_empty() {
        (Status::Warn, format!("none yet of {}", missing.join(", ")))
    } else {
        (Status::Ok, format!("newest of {} datasets at most {} old", policy.datasets.len(), age(oldest)))
    };
    vec![warn_of_future(probe, &dates.future)]
}

/// What the rest of a dataset's snapshots say of it stands.
fn warn_of_future(mut probe: Probe, future: &BTreeMap<&str, usize>) -> Probe {
    if future.is_empty() {
        return probe;
    }
    let datasets: Vec<&str> = future.keys().copied().collect();
    let list = format!("zfs list -d 1 -t snapshot -S creation -o name,creation {}", datasets.join(" "));
    let show = if probe.status > Status::Info { format!("{SHOW}; {list}") } else { list };
    let count: usize = future.values().sum();
    let are = if count == 1 { "1 snapshot is".to_owned() } else { format!("{count} snapshots are") };
    probe.summary += &format!("; {are} dated in the future: the clock was wrong");
    if probe.subjects.is_empty() {
        probe = probe.with_subjects(datasets);
    }
    probe.status = probe.status.max(Status::Warn);
    probe.with_command(show)
}

/// The snapshot that every dataset of an image has: it is as old as the image, and no work of sanoid's.
const INSTALL: &str = "install";

/// When snapshots were made, by dataset.
#[derive(Default)]
struct Dates<'a> {
    newest: BTreeMap<&'a str, u64>,
    /// How many are dated ahead of the clock: nothing is known of their age.
    future: BTreeMap<&'a str, usize>,
}

/// `pool/data@name<TAB>seconds` per line.
fn parse_dates(text: &str, now: u64) -> Dates<'_> {
    let mut dates = Dates::default();
    for line in text.lines() {
        if let Some((name, created)) = line.split_once('\t')
            && let (Some((dataset, snapshot)), Ok(created)) =
                (name.split_once('@'), created.trim().parse::<u64>())
            && snapshot != INSTALL
        {
            if created > now.saturating_add(AHEAD) {
                *dates.future.entry(dataset).or_default() += 1;
            } else {
                let known = dates.newest.entry(dataset).or_insert(created);
                *known = created.max(*known);
            }
        }
    }
    dates
}

//! Whether the other machine has what it is to have: the age of the last success.

use super::{AHEAD, Family, Probe, Status, View, age};
use std::path::Path;

pub(super) const SHOW: &str = "systemctl status kldload-replicate.timer kldload-replicate.service";
const START: &str = "systemctl start kldload-replicate.service";

pub(super) fn probe(view: &View) -> Vec<Probe> {
    let Some(wanted) = view.config.as_ref().and_then(|config| config.replication.as_ref()) else {
        return vec![Probe::new("replication", Status::Info, "none is set up")];
    };
    let target = format!("{}:{}", wanted.host, wanted.target);
    let Some(last) = view.machine.modified(Path::new(&wanted.stamp_file)) else {
        return vec![
            Probe::new("replication", Status::Warn, format!("never yet to {target}")).with_command(SHOW),
        ];
    };
    if last > view.machine.now().saturating_add(AHEAD) {
        let summary = format!("the last one to {target} is dated in the future: the clock was wrong");
        // The next one that succeeds is dated anew.
        return vec![Probe::new("replication", Status::Warn, summary).with_command(START)];
    }
    let lag = view.machine.now().saturating_sub(last);
    let late = lag > u64::from(wanted.max_age_minutes) * 60;
    let status = if late { Status::Fail } else { Status::Ok };
    vec![
        Probe::new("replication", status, format!("to {target} {} ago", age(lag)))
            .with_command(SHOW)
            .with_metric(Family::ReplicationSuccess, target.clone(), last as f64)
            .with_metric(Family::ReplicationLag, target, lag as f64),
    ]
}

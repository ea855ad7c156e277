//! Whether every block was read lately, and found good.

use super::pool::status_of;
use super::{AHEAD, Family, Probe, Status, View, age};

/// The timer scrubs once a month; a week later something is wrong.
const OLD: u64 = 38 * 86_400;

pub(super) fn probe(view: &View) -> Vec<Probe> {
    match view.pools() {
        // That one does not answer is said once.
        Ok(pools) => {
            pools.iter().filter(|pool| pool.answers()).map(|pool| probe_one(view, &pool.name)).collect()
        }
        Err(error) => vec![Probe::unanswered("scrub", &error)],
    }
}

fn probe_one(view: &View, pool: &str) -> Probe {
    let status = match status_of(view, pool) {
        Ok(status) => status,
        Err(error) => return Probe::unanswered("scrub", &error).with_subjects([pool]),
    };
    let start = format!("zpool scrub {pool}");
    let Some(scan) = status.scan else {
        return Probe::new("scrub", Status::Info, format!("{pool} was never scrubbed")).with_command(start);
    };
    let what = scan.function.to_lowercase();
    if scan.errors > 0 {
        let summary = format!("{what} of {pool} found {} errors", scan.errors);
        let command = format!("zpool status -v {pool}");
        return Probe::new("scrub", Status::Fail, summary).with_command(command).with_subjects([pool]);
    }
    // Seconds since 1970, as `zpool status --json-int` writes them.
    let ended: Option<u64> = scan.ended.as_deref().and_then(|text| text.parse().ok());
    let now = view.machine.now();
    match (scan.state.as_str(), ended) {
        ("SCANNING", _) => Probe::new("scrub", Status::Info, format!("{what} of {pool} is running")),
        ("FINISHED", Some(ended)) if ended > now.saturating_add(AHEAD) => {
            let summary = format!("the last {what} of {pool} is dated in the future: the clock was wrong");
            Probe::new("scrub", Status::Warn, summary).with_command(start).with_subjects([pool])
        }
        ("FINISHED", Some(ended)) => {
            let seconds = now.saturating_sub(ended);
            let status = if seconds > OLD { Status::Warn } else { Status::Ok };
            Probe::new("scrub", status, format!("{what} of {pool} found no errors {} ago", age(seconds)))
                .with_command(start)
                .with_metric(Family::ScrubAge, pool, seconds as f64)
        }
        ("FINISHED", None) => Probe::new("scrub", Status::Ok, format!("{what} of {pool} found no errors")),
        (state, _) => {
            Probe::new("scrub", Status::Info, format!("{what} of {pool}: {}", state.to_lowercase()))
                .with_command(start)
        }
    }
}

//! What comes free when snapshots go: exactly, for any choice of them.
//!
//! A block that no snapshot but those between two others and the two themselves refers to goes when all of them go. So what
//! comes free is the sum over unbroken runs of chosen snapshots, each of which `zfs destroy -n` is asked about as a range:
//! seven thousand in a row are one word of its command line.

use std::collections::BTreeSet;

use kld_host::Cmd;

use crate::snapshot::{DEADLINE, Snapshot};

/// Bytes of names in one word: Linux takes 128 KiB.
const ROOM: usize = 100 << 10;

/// Asks what destroying the `chosen` ones of one dataset would free; `all` are all of its snapshots. The answers, read with
/// [`crate::parse_reclaim`], are to be added.
pub fn reclaim_cmds(dataset: &str, all: &[Snapshot], chosen: &[&Snapshot]) -> Vec<Cmd> {
    let mut parts: Vec<String> = Vec::new();
    for run in runs(dataset, all, chosen) {
        match parts.last_mut().filter(|part| part.len() + run.len() < ROOM) {
            Some(part) => *part = format!("{part},{run}"),
            None => parts.push(run),
        }
    }
    let ask = |part: String| {
        Cmd::new("zfs").args(["destroy", "-nvp"]).arg(format!("{dataset}@{part}")).timeout(DEADLINE)
    };
    parts.into_iter().map(ask).collect()
}

/// Unbroken runs, oldest first, as `zfs destroy` takes them: `first%last`.
fn runs(dataset: &str, all: &[Snapshot], chosen: &[&Snapshot]) -> Vec<String> {
    let chosen: BTreeSet<u64> =
        chosen.iter().filter(|one| one.dataset == dataset).map(|one| one.txg).collect();
    let mut all: Vec<&Snapshot> = all.iter().filter(|snapshot| snapshot.dataset == dataset).collect();
    all.sort_by_key(|snapshot| snapshot.txg);
    let runs = all.chunk_by(|a, b| chosen.contains(&a.txg) == chosen.contains(&b.txg));
    let runs = runs.filter(|run| chosen.contains(&run[0].txg));
    runs.map(|run| match run {
        [one] => one.name.clone(),
        [first, .., last] => format!("{}%{}", first.name, last.name),
        [] => String::new(),
    })
    .collect()
}

//! What comes free when snapshots go: exactly, for any choice of them.
//!
//! A block that no snapshot but those between two others and the two themselves refers to goes when all of them go. So what
//! comes free is the sum over unbroken runs of chosen snapshots, each of which `zfs destroy -n` is asked about as a range:
//! seven thousand in a row are one word of its command line.

use std::collections::{BTreeMap, BTreeSet};

use kld_host::{Cmd, ParseError};

use crate::snapshot::{DEADLINE, Snapshot};

/// Bytes of names in one word: Linux takes 128 KiB.
const ROOM: usize = 100 << 10;

/// Asks what destroying the `chosen` ones of one dataset would free; `all` are all of its snapshots. The answers, read with
/// [`crate::parse_reclaim`], are to be added.
pub fn reclaim_cmds(dataset: &str, all: &[Snapshot], chosen: &[&Snapshot]) -> Vec<Cmd> {
    let mut parts: Vec<String> = Vec::new();
    for run in runs(dataset, all, chosen) {
        let run = range(&run);
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

/// The bytes that `zfs destroy -nvp` would free: its line `reclaim<TAB>BYTES`.
///
/// # Errors
/// When there is no such line.
pub fn parse_reclaim(text: &str) -> Result<u64, ParseError> {
    let bytes = text.lines().find_map(|line| line.strip_prefix("reclaim\t")?.trim().parse().ok());
    bytes.ok_or_else(|| ParseError { tool: "zfs destroy", reason: "no line `reclaim`".to_owned() })
}

/// What destroying the `chosen` ones of one dataset would free, when that needs no question: what each of them alone holds. `all`
/// are all snapshots of the dataset, and `by_snapshots` is its property `usedbysnapshots`.
pub fn known(
    dataset: &str,
    all: &[Snapshot],
    chosen: &[&Snapshot],
    by_snapshots: Option<u64>,
) -> Option<u64> {
    let alone = |of: &mut dyn Iterator<Item = &Snapshot>| {
        of.filter(|one| one.dataset == dataset).map(|one| one.used).sum::<u64>()
    };
    // Neighbours that go together take with them what they share. There is nothing of that kind when all that would come free with
    // all snapshots is what they hold alone.
    let shares_nothing = || by_snapshots == Some(alone(&mut all.iter()));
    let no_neighbours = runs(dataset, all, chosen).iter().all(|run| run.len() == 1);
    (no_neighbours || shares_nothing()).then(|| alone(&mut chosen.iter().copied()))
}

/// Asks for `usedbysnapshots` of these datasets, and of all below when `recursive`.
pub fn by_snapshots_cmd(datasets: &[String], recursive: bool) -> Cmd {
    let depth: &[&str] = if recursive { &["-r"] } else { &["-d", "0"] };
    Cmd::new("zfs")
        .args(["list", "-Hp", "-t", "filesystem,volume"])
        .args(depth)
        .args(["-o", "name,usedbysnapshots"])
        .args(datasets)
        .timeout(DEADLINE)
}

/// Reads the output of [`by_snapshots_cmd`]. A dataset of a pool that does not know is left out.
pub fn parse_by_snapshots(text: &str) -> BTreeMap<String, u64> {
    let pair = |line: &str| {
        let (name, bytes) = line.split_once('\t')?;
        Some((name.to_owned(), bytes.trim().parse().ok()?))
    };
    text.lines().filter_map(pair).collect()
}

/// Unbroken runs of chosen ones, in the order in which they were made.
fn runs<'a>(dataset: &str, all: &'a [Snapshot], chosen: &[&Snapshot]) -> Vec<Vec<&'a Snapshot>> {
    let chosen: BTreeSet<u64> =
        chosen.iter().filter(|one| one.dataset == dataset).map(|one| one.txg).collect();
    let mut all: Vec<&Snapshot> = all.iter().filter(|snapshot| snapshot.dataset == dataset).collect();
    all.sort_by_key(|snapshot| snapshot.txg);
    let runs = all.chunk_by(|a, b| chosen.contains(&a.txg) == chosen.contains(&b.txg));
    runs.filter(|run| chosen.contains(&run[0].txg)).map(<[_]>::to_vec).collect()
}

/// As `zfs destroy` takes it: `first%last`.
fn range(run: &[&Snapshot]) -> String {
    match run {
        [one] => one.name.clone(),
        [first, .., last] => format!("{}%{}", first.name, last.name),
        [] => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_zfs_says() {
        assert_eq!(parse_reclaim("destroy\tt@a\nreclaim\t4096\n"), Ok(4096));
        assert!(parse_reclaim("").is_err());
        let of = parse_by_snapshots("t\t0\nt/a b\t4096\nt/old\t-\n");
        assert_eq!(of.into_iter().collect::<Vec<_>>(), [("t".to_owned(), 0), ("t/a b".to_owned(), 4096)]);
    }
}

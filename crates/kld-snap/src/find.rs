//! Which snapshot a person means.

use crate::snapshot::Snapshot;

/// It is not clear which one is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unclear {
    /// Where it was looked for.
    pub dataset: String,
    /// What was asked for.
    pub name: String,
    /// Whether several would fit.
    pub several: bool,
    /// Those that may be meant, newest first.
    pub candidates: Vec<String>,
}

impl std::fmt::Display for Unclear {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { dataset, name, .. } = self;
        match self.several {
            true => write!(f, "`{name}` may be one of several snapshots of `{dataset}`"),
            false => write!(f, "`{dataset}` has no snapshot `{name}`"),
        }
    }
}

impl std::error::Error for Unclear {}

impl Unclear {
    /// What the person can do.
    pub fn hint(&self) -> Option<String> {
        if self.candidates.is_empty() {
            return Some(format!("`ksnap {} NAME` makes one", self.dataset));
        }
        let names: Vec<String> = self.candidates.iter().map(|name| format!("`{name}`")).collect();
        Some(format!("name one of them in full: {}", names.join(", ")))
    }
}

/// Candidates that are named.
const NAMED: usize = 8;

/// The snapshot that `name` means among those of one dataset: the one that is called exactly so, or the newest
/// `name-YYYYmmdd-HHMMSS`.
///
/// # Errors
/// When both exist, or neither.
pub fn find<'a>(dataset: &str, snapshots: &'a [Snapshot], name: &str) -> Result<&'a Snapshot, Unclear> {
    let of_dataset = || snapshots.iter().filter(|snapshot| snapshot.dataset == dataset);
    let exact = of_dataset().find(|snapshot| snapshot.name == name);
    let newest =
        of_dataset().filter(|snapshot| snapshot.short() == Some(name)).max_by_key(|snapshot| snapshot.txg);
    let unclear = |several: bool, mut candidates: Vec<&Snapshot>| {
        candidates.sort_by_key(|snapshot| std::cmp::Reverse(snapshot.txg));
        let candidates = candidates.iter().take(NAMED).map(|snapshot| snapshot.name.clone()).collect();
        Unclear { dataset: dataset.to_owned(), name: name.to_owned(), several, candidates }
    };
    match (exact, newest) {
        (Some(one), None) | (None, Some(one)) => Ok(one),
        (Some(one), Some(other)) => Err(unclear(true, vec![one, other])),
        (None, None) => {
            let alike: Vec<&Snapshot> =
                of_dataset().filter(|snapshot| snapshot.name.contains(name)).collect();
            let several = !alike.is_empty();
            Err(unclear(several, if several { alike } else { of_dataset().collect() }))
        }
    }
}

/// All that a specification of `zfs destroy` names, in the order in which they were made: names as [`find`] takes them, with
/// commas between them, and ranges `FROM%TO`, in which both are meant, and a missing end is the oldest or the newest.
///
/// # Errors
/// When a name is unclear, or a range has nothing in it.
pub fn choose<'a>(
    dataset: &str,
    snapshots: &'a [Snapshot],
    specification: &str,
) -> Result<Vec<&'a Snapshot>, Unclear> {
    let mut chosen: Vec<&Snapshot> = Vec::new();
    for part in specification.split(',') {
        let Some((from, to)) = part.split_once('%') else {
            chosen.push(find(dataset, snapshots, part)?);
            continue;
        };
        let end = |name: &str, open: u64| match name {
            "" => Ok(open),
            name => find(dataset, snapshots, name).map(|snapshot| snapshot.txg),
        };
        let range = end(from, 0)?..=end(to, u64::MAX)?;
        let within = |snapshot: &&Snapshot| snapshot.dataset == dataset && range.contains(&snapshot.txg);
        let before = chosen.len();
        chosen.extend(snapshots.iter().filter(within));
        if chosen.len() == before {
            let (dataset, name) = (dataset.to_owned(), part.to_owned());
            return Err(Unclear { dataset, name, several: false, candidates: Vec::new() });
        }
    }
    chosen.sort_by_key(|snapshot| snapshot.txg);
    chosen.dedup_by_key(|snapshot| snapshot.txg);
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::parse_list;

    fn snapshots(names: &[&str]) -> Vec<Snapshot> {
        let line = |(txg, name): (usize, &&str)| format!("t/db@{name}\t{txg}\t{txg}\t0\t0\t0\t0\t\n");
        parse_list(&names.iter().enumerate().map(line).collect::<String>()).expect("good")
    }

    #[test]
    fn the_newest_of_a_short_name_is_meant() {
        let all = snapshots(&["pre-20260101-000000", "pre-20270101-000000", "pre-20260601-000000", "kept"]);
        // The order in which they were made counts, not what their names say.
        assert_eq!(find("t/db", &all, "pre").expect("clear").name, "pre-20260601-000000");
        assert_eq!(find("t/db", &all, "pre-20260101-000000").expect("clear").name, "pre-20260101-000000");
        assert_eq!(find("t/db", &all, "kept").expect("clear").name, "kept");
    }

    #[test]
    fn candidates_are_named_when_it_is_not_clear() {
        let all = snapshots(&["pre-20260101-000000", "pre", "other"]);
        let unclear = find("t/db", &all, "pre").expect_err("two of them");
        assert_eq!(unclear.to_string(), "`pre` may be one of several snapshots of `t/db`");
        assert_eq!(unclear.candidates, ["pre", "pre-20260101-000000"]);
        let unclear = find("t/db", &all, "oth").expect_err("not its name");
        assert_eq!(unclear.hint().as_deref(), Some("name one of them in full: `other`"));
        let unclear = find("t/db", &all, "x").expect_err("no such");
        assert_eq!(
            (unclear.to_string().as_str(), unclear.candidates.len()),
            ("`t/db` has no snapshot `x`", 3)
        );
        assert_eq!(
            find("t/x", &all, "pre").expect_err("none").hint().as_deref(),
            Some("`ksnap t/x NAME` makes one")
        );
    }

    #[test]
    fn lists_and_ranges_are_those_of_zfs_destroy() {
        let all = snapshots(&["a", "b-20260101-000000", "c", "b-20270101-000000", "d"]);
        let txgs = |text: &str| {
            choose("t/db", &all, text).map(|found| found.iter().map(|s| s.txg).collect::<Vec<_>>())
        };
        assert_eq!(txgs("d,a,a"), Ok(vec![0, 4]));
        assert_eq!(txgs("b"), Ok(vec![3]));
        assert_eq!(txgs("b-20260101-000000%b,a"), Ok(vec![0, 1, 2, 3]));
        assert_eq!(
            (txgs("%c"), txgs("c%"), txgs("%")),
            (Ok(vec![0, 1, 2]), Ok(vec![2, 3, 4]), Ok(vec![0, 1, 2, 3, 4]))
        );
        assert!(txgs("d%a").is_err() && txgs("x").is_err() && txgs("a,,b").is_err() && txgs("a%x").is_err());
    }
}

//! Clones, bookmarks and holds: what datasets and snapshots say about one another, in both directions.

use std::collections::{BTreeMap, BTreeSet};

use super::walk::{Walked, WalkedSet};
use super::{FindingKind, Place, Report};
use crate::read::bytes::word;
use crate::read::dataset::{DatasetPhys, Dir};
use crate::read::error::ReadError;
use crate::read::marks::Bookmark;
use crate::read::pool::Pool;

/// Datasets and snapshots by object.
type Sets<'w> = BTreeMap<u64, (&'w WalkedSet, DatasetPhys)>;

pub(super) fn check(pool: &Pool, walked: &Walked, report: &mut Report) {
    let sets: Sets = walked.sets.iter().filter_map(|set| Some((set.object, (set, set.phys?)))).collect();
    let mut followers: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
    for (object, (_, phys)) in &sets {
        followers.entry(phys.previous).or_default().insert(*object);
    }
    for (object, (set, phys)) in &sets {
        let place = Place::dataset(&set.name);
        let after = followers.get(object).cloned().unwrap_or_default();
        check_followers(pool, phys, after, &place, report);
        if phys.next == 0 && phys.holds != 0 {
            report.add(FindingKind::Structure, place.clone(), "it has holds, but is no snapshot");
        }
        report.take(place.clone(), pool.holds_of(phys, &set.name));
        let bookmarks = pool.bookmarks_of(*object, &set.name);
        for bookmark in report.take(place, bookmarks).flatten().unwrap_or_default() {
            check_bookmark(pool, &bookmark, phys.dir, &sets, report);
        }
    }
    if let Some(dirs) = report.take(Place::dataset("$MOS"), pool.dirs()) {
        check_dirs(pool, &dirs, &sets, report);
    }
}

/// Compares what a snapshot says about what follows it with `after`: the next snapshot or head, and clones.
fn check_followers(
    pool: &Pool,
    phys: &DatasetPhys,
    mut after: BTreeSet<u64>,
    place: &Place,
    report: &mut Report,
) {
    if phys.children != after.len() as u64 {
        let problem = format!("it says {} datasets follow it, but {} do", phys.children, after.len());
        report.add(FindingKind::Structure, place.clone(), problem);
    }
    if phys.next != 0 && !after.remove(&phys.next) {
        report.add(FindingKind::Structure, place.clone(), "the dataset that it leads to does not follow it");
    }
    if let Some(said) = report.take(place.clone(), members(pool, phys.next_clones))
        && said != after
    {
        report.add(FindingKind::Structure, place.clone(), "the table of its clones does not name its clones");
    }
}

/// Compares what directories say about their origins and their clones.
fn check_dirs(pool: &Pool, dirs: &[Dir], sets: &Sets, report: &mut Report) {
    let dir_of = |object: u64| sets.get(&object).map(|(_, phys)| phys.dir);
    let mut clones: BTreeMap<u64, BTreeSet<u64>> = BTreeMap::new();
    for dir in dirs.iter().filter(|dir| dir.phys.origin != 0) {
        match dir_of(dir.phys.origin) {
            Some(origin) => drop(clones.entry(origin).or_default().insert(dir.phys.head)),
            None => {
                report.add(FindingKind::Structure, Place::dataset(&dir.name), "its origin does not exist")
            }
        }
    }
    let descends: BTreeMap<u64, u64> = sets
        .values()
        .filter(|(_, phys)| dir_of(phys.previous) != Some(phys.dir))
        .map(|(_, phys)| (phys.dir, phys.previous))
        .collect();
    for dir in dirs {
        let place = Place::dataset(&dir.name);
        if descends.get(&dir.object).is_some_and(|previous| *previous != dir.phys.origin) {
            let problem = "its oldest snapshot does not descend from its origin";
            report.add(FindingKind::Structure, place.clone(), problem);
        }
        let wanted = clones.remove(&dir.object).unwrap_or_default();
        if let Some(said) = report.take(place.clone(), members(pool, dir.phys.clones))
            && said != wanted
        {
            report.add(
                FindingKind::Structure,
                place,
                "the table of clones does not name all that descend from it",
            );
        }
    }
}

/// Compares a bookmark of a dataset in directory `dir` with its snapshot, while there is one.
fn check_bookmark(pool: &Pool, bookmark: &Bookmark, dir: u64, sets: &Sets, report: &mut Report) {
    if !bookmark.has_snapshot {
        return;
    }
    let place = Place::dataset(&bookmark.name);
    let snapshot = sets.values().map(|(_, phys)| phys).find(|phys| {
        (phys.dir, phys.guid, phys.created_txg) == (dir, bookmark.guid, bookmark.created_txg)
            && phys.next != 0
    });
    let Some(snapshot) = snapshot else {
        return report.add(FindingKind::Structure, place, "the snapshot that it remembers does not exist");
    };
    let freed = match sets.get(&snapshot.next) {
        Some((_, next)) => report.take(place.clone(), deadlist_bytes(pool, next)),
        None => None,
    };
    if let (Some((held, said)), Some(freed)) = (bookmark.space, freed)
        && (held, said) != (snapshot.referenced, freed)
    {
        let problem = format!(
            "it says the snapshot held {held} bytes, of which {said} were freed before the next one, but it held {} and \
             {freed} were freed",
            snapshot.referenced
        );
        report.add(FindingKind::Accounting, place, problem);
    }
}

/// What a deadlist says is in it; that this is so is checked elsewhere.
fn deadlist_bytes(pool: &Pool, phys: &DatasetPhys) -> Result<u64, ReadError> {
    Ok(word(&pool.mos.dnode(phys.deadlist)?.bonus, 0))
}

/// The objects in a table that is a set of them; a table that was never made is empty.
fn members(pool: &Pool, table: u64) -> Result<BTreeSet<u64>, ReadError> {
    if table == 0 {
        return Ok(BTreeSet::new());
    }
    let entries = pool.mos.zap(table)?.entries()?;
    let numbers =
        entries.iter().map(|entry| entry.number().filter(|number| entry.hex_name() == Some(*number)));
    let damaged = || ReadError::damaged(format!("table {table}"), "an entry of it is no object");
    numbers.map(|number| number.ok_or_else(damaged)).collect()
}

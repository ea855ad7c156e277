//! Accounting of datasets and snapshots: what they say they take, counted again.
//!
//! A dataset refers to what the snapshot before it does, less the blocks in its deadlist, plus the blocks born since.

use std::collections::BTreeMap;

use super::lists::{self, ListHeader};
use super::walk::{Walked, WalkedSet};
use super::{FindingKind, Place, Report};
use crate::read::bytes::word;
use crate::read::dataset::DatasetPhys;
use crate::read::error::ReadError;
use crate::read::pool::Pool;

/// Most lists of one deadlist that are believed.
const FLAG_UNIQUE_ACCURATE: u64 = 4;
const DEADLIST_TABLE: u8 = 50;

/// A deadlist, counted.
#[derive(Debug, Default)]
struct Deadlist {
    /// Birth and bytes of each block.
    blocks: Vec<(u64, u64)>,
    bytes: u64,
}

pub(super) fn check(pool: &Pool, walked: &Walked, report: &mut Report) {
    let sets: BTreeMap<u64, &WalkedSet> =
        walked.sets.iter().filter(|set| set.object != 0).map(|set| (set.object, set)).collect();
    let mut dead = BTreeMap::new();
    for (object, set) in &sets {
        let Some(phys) = &set.phys else { continue };
        if let Some(deadlist) = report.take(Place::dataset(&set.name), read_deadlist(pool, phys)) {
            let (deadlist, problems) = deadlist;
            for problem in problems {
                report.add(FindingKind::Accounting, Place::dataset(&set.name), problem);
            }
            dead.insert(*object, deadlist);
        }
    }
    for (object, set) in &sets {
        let Some(phys) = &set.phys else { continue };
        check_dataset(*object, set, phys, &sets, &dead, report);
    }
    if let Some(dirs) = report.take(Place::dataset("$MOS"), pool.dirs()) {
        check_dirs(&dirs, &sets, report);
    }
}

fn check_dataset(
    object: u64,
    set: &WalkedSet,
    phys: &DatasetPhys,
    sets: &BTreeMap<u64, &WalkedSet>,
    dead: &BTreeMap<u64, Deadlist>,
    report: &mut Report,
) {
    let place = Place::dataset(&set.name);
    let previous = sets.get(&phys.previous).and_then(|set| set.phys);
    if phys.previous != 0 {
        match previous {
            None => {
                report.add(FindingKind::Structure, place.clone(), "the snapshot before it does not exist")
            }
            Some(previous) => {
                if previous.created_txg != phys.previous_txg {
                    let problem = "it says the snapshot before it was made in another transaction group";
                    report.add(FindingKind::Structure, place.clone(), problem);
                }
                if previous.dir == phys.dir && previous.next != object {
                    let problem = "the snapshot before it does not lead to it";
                    report.add(FindingKind::Structure, place.clone(), problem);
                }
            }
        }
    }
    let (true, Some(deadlist)) = (set.complete, dead.get(&object)) else { return };
    let expected = (previous.map_or(0, |previous| previous.referenced))
        .wrapping_add(set.born)
        .wrapping_sub(deadlist.bytes);
    if phys.referenced != expected {
        let problem = format!("it says it refers to {} bytes, but refers to {expected}", phys.referenced);
        report.add(FindingKind::Accounting, place.clone(), problem);
    }
    if phys.flags & FLAG_UNIQUE_ACCURATE == 0 {
        return;
    }
    let unique = match phys.next {
        0 => Some(set.born),
        // What only this snapshot holds died before the next one and was born after the one before. Clones do not count:
        // OpenZFS charges the snapshot with what they hold, too.
        next => dead.get(&next).map(|next| {
            let own = next.blocks.iter().filter(|(birth, _)| *birth > phys.previous_txg);
            own.map(|(_, bytes)| bytes).sum()
        }),
    };
    if let Some(unique) = unique.filter(|unique| *unique != phys.unique) {
        let problem = format!("it says {} bytes are its own alone, but {unique} are", phys.unique);
        report.add(FindingKind::Accounting, place, problem);
    }
}

/// Reads a deadlist and compares what its headers say with what is in it.
fn read_deadlist(pool: &Pool, phys: &DatasetPhys) -> Result<(Deadlist, Vec<String>), ReadError> {
    let mut deadlist = Deadlist::default();
    let mut problems = Vec::new();
    if phys.deadlist == 0 {
        return Ok((deadlist, problems));
    }
    let dnode = pool.mos.dnode(phys.deadlist)?;
    if dnode.object_type != DEADLIST_TABLE {
        // Before there were tables of lists, it was one list.
        let header = lists::header(pool, phys.deadlist)?;
        add_list(pool, phys.deadlist, header, 0, &mut deadlist, &mut problems)?;
        return Ok((deadlist, problems));
    }
    let said = word(&dnode.bonus, 0);
    for entry in pool.mos.zap(phys.deadlist)?.entries()? {
        let (Some(after), Some(list)) = (entry.hex_name(), entry.number()) else {
            problems.push("an entry of its deadlist is no list".to_owned());
            continue;
        };
        let header = lists::header(pool, list)?;
        add_list(pool, list, header, after, &mut deadlist, &mut problems)?;
    }
    if deadlist.bytes != said {
        problems.push(format!("its deadlist says {said} bytes, its lists have {}", deadlist.bytes));
    }
    Ok((deadlist, problems))
}

fn add_list(
    pool: &Pool,
    object: u64,
    header: ListHeader,
    after: u64,
    deadlist: &mut Deadlist,
    problems: &mut Vec<String>,
) -> Result<(), ReadError> {
    let pointers = lists::pointers(pool, object)?;
    let bytes: u64 = pointers.iter().map(|pointer| pool.blocks.charge(pointer)).sum();
    if bytes != header.bytes {
        problems.push(format!("list {object} of its deadlist says {} bytes, but has {bytes}", header.bytes));
    }
    if pointers.iter().any(|pointer| pointer.birth <= after) {
        problems.push(format!("list {object} of its deadlist has blocks that are too old for it"));
    }
    deadlist.bytes += bytes;
    deadlist.blocks.extend(pointers.iter().map(|pointer| (pointer.birth, pool.blocks.charge(pointer))));
    Ok(())
}

/// Checks what directories say is used by their head and snapshots, and by what is below them.
fn check_dirs(dirs: &[crate::read::dataset::Dir], sets: &BTreeMap<u64, &WalkedSet>, report: &mut Report) {
    const FLAG_BREAKDOWN: u64 = 1;
    for dir in dirs {
        let [head, snapshots, children, children_reserved, head_reserved] = dir.phys.breakdown;
        if dir.phys.flags & FLAG_BREAKDOWN == 0 {
            continue;
        }
        let place = Place::dataset(&dir.name);
        let sum = [head, snapshots, children, children_reserved, head_reserved]
            .into_iter()
            .fold(0, u64::wrapping_add);
        if sum != dir.phys.used {
            let problem = format!("it says it uses {} bytes, its parts add up to {sum}", dir.phys.used);
            report.add(FindingKind::Accounting, place.clone(), problem);
        }
        let own: Vec<_> =
            sets.values().filter(|set| set.phys.is_some_and(|phys| phys.dir == dir.object)).collect();
        let born: u64 = own.iter().map(|set| set.born).sum();
        if !dir.is_hidden() && own.iter().all(|set| set.complete) && head.wrapping_add(snapshots) != born {
            let said = head.wrapping_add(snapshots);
            let problem = format!("it says head and snapshots use {said} bytes, but they use {born}");
            report.add(FindingKind::Accounting, place.clone(), problem);
        }
        let below: u64 = dirs
            .iter()
            .filter(|child| child.phys.parent == dir.object)
            .map(|child| child.phys.used.max(child.phys.reserved))
            .fold(0, u64::wrapping_add);
        if children.wrapping_add(children_reserved) != below {
            let said = children.wrapping_add(children_reserved);
            let problem = format!("it says what is below it uses {said} bytes, but that uses {below}");
            report.add(FindingKind::Accounting, place, problem);
        }
    }
}

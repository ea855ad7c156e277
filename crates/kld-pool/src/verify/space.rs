//! Space maps: what the pool says is allocated, and how that compares with what was found in use.

use std::collections::BTreeSet;

use super::segments::Ranges;
use super::walk::Walked;
use super::{FindingKind, Place, Report};
use crate::read::bytes::{u64_at, word};
use crate::read::error::ReadError;
use crate::read::pool::Pool;
use crate::read::vdev::Top;

/// Longest space map that is believed, in bytes.
const MAX_MAP: u64 = 256 << 20;
/// Findings after which a space map is given up: each of its entries may be wrong.
const MAX_FINDINGS: usize = 1000;
/// Most metaslabs of a vdev that are believed.
const MAX_METASLABS: u64 = 1 << 20;

/// What is allocated on each top-level vdev.
#[derive(Debug, Default)]
pub(super) struct Maps {
    tops: Vec<Ranges>,
    /// Not all space maps could be read: nothing can be said about leaks.
    incomplete: bool,
}

impl Maps {
    pub(super) fn allocated(&self) -> u64 {
        self.tops.iter().map(Ranges::bytes).sum()
    }
}

/// An entry of a space map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Change {
    frees: bool,
    /// Top-level vdev, in maps that are about more than one.
    vdev: Option<u32>,
    /// In units.
    offset: u64,
    run: u64,
}

/// Decodes the entries of a space map; what is cut off at its end is an error.
fn changes(bytes: &[u8]) -> impl Iterator<Item = Result<Change, &'static str>> {
    const DEBUG: u64 = 2;
    const TWO_WORDS: u64 = 3;
    const NO_VDEV: u64 = (1 << 24) - 1;
    let mut words = bytes.chunks_exact(8).map(|bytes| word(bytes, 0));
    std::iter::from_fn(move || {
        let first = words.by_ref().find(|word| word >> 62 != DEBUG)?;
        if first >> 62 != TWO_WORDS {
            return Some(Ok(Change {
                frees: (first >> 15) & 1 == 1,
                vdev: None,
                offset: (first >> 16) & ((1 << 47) - 1),
                run: (first & ((1 << 15) - 1)) + 1,
            }));
        }
        let Some(second) = words.next() else { return Some(Err("an entry of two words is cut off")) };
        let vdev = first & NO_VDEV;
        Some(Ok(Change {
            frees: second >> 63 == 1,
            vdev: (vdev != NO_VDEV).then_some(vdev as u32),
            offset: second & (u64::MAX >> 1),
            run: ((first >> 24) & ((1 << 36) - 1)) + 1,
        }))
    })
}

fn damaged(object: u64, problem: &'static str) -> ReadError {
    ReadError::damaged(format!("space map {object}"), problem)
}

/// A space map's bytes and how many bytes it says are allocated.
fn read_map(pool: &Pool, object: u64) -> Result<(Vec<u8>, u64), ReadError> {
    let dnode = pool.mos.dnode(object)?;
    let len = u64_at(&dnode.bonus, 8).ok_or_else(|| damaged(object, "it has no header"))?;
    Ok((pool.mos.content(object, len, MAX_MAP)?, word(&dnode.bonus, 2)))
}

/// Reads the space maps of all vdevs and replays the log of those that are not up to date.
pub(super) fn read(pool: &Pool, report: &mut Report) -> Maps {
    let mut maps = Maps::default();
    let mut flushed = Vec::new();
    for (id, top) in pool.blocks.tops().iter().enumerate() {
        let mut ranges = Ranges::default();
        let mut unflushed = Vec::new();
        if let Some(top) = top.as_ref().filter(|top| top.metaslab_array != 0) {
            if let Err(error) = read_top(pool, id as u32, top, &mut ranges, report) {
                report.add(FindingKind::Unreadable, Place::default(), error.to_string());
                maps.incomplete = true;
            }
            match read_unflushed(pool, top) {
                Ok(txgs) => unflushed = txgs,
                Err(error) => {
                    report.add(FindingKind::Unreadable, Place::default(), error.to_string());
                    maps.incomplete = true;
                }
            }
        }
        maps.tops.push(ranges);
        flushed.push(unflushed);
    }
    if let Err(error) = replay_logs(pool, &mut maps, &flushed, report) {
        report.add(FindingKind::Unreadable, Place::default(), error.to_string());
        maps.incomplete = true;
    }
    maps
}

fn read_top(
    pool: &Pool,
    vdev: u32,
    top: &Top,
    ranges: &mut Ranges,
    report: &mut Report,
) -> Result<(), ReadError> {
    let count = top.metaslabs();
    if count > MAX_METASLABS {
        return Err(ReadError::damaged(format!("vdev {vdev}"), "it has too many metaslabs"));
    }
    let array = pool.mos.content(top.metaslab_array, count * 8, MAX_METASLABS * 8)?;
    let mut seen = BTreeSet::new();
    for metaslab in 0..count {
        let object = word(&array, metaslab as usize);
        if object == 0 {
            continue;
        }
        if !seen.insert(object) {
            report.add(FindingKind::SpaceMap, Place::mos(object), "it belongs to two metaslabs");
            continue;
        }
        let base = metaslab.checked_shl(top.metaslab_shift).unwrap_or(0);
        let size = 1u64 << top.metaslab_shift;
        let (bytes, said) = read_map(pool, object)?;
        let mut own = Ranges::default();
        let before = report.findings.len();
        for change in changes(&bytes) {
            if report.findings.len() - before >= MAX_FINDINGS {
                return Err(damaged(object, "nearly nothing in it is right"));
            }
            let change = change.map_err(|problem| damaged(object, problem))?;
            // Entries of a metaslab count from its start.
            let range = bytes_of(&change, top.ashift).filter(|(_, end)| *end <= size);
            let Some((start, end)) = range else {
                report.add(
                    FindingKind::SpaceMap,
                    Place::mos(object),
                    "an entry lies outside of the metaslab",
                );
                continue;
            };
            apply(&mut own, &change, start, end, Place::mos(object), report);
        }
        if own.bytes() != said {
            let problem =
                format!("it says {said} bytes are allocated, its entries add up to {}", own.bytes());
            report.add(FindingKind::SpaceMap, Place::mos(object), problem);
        }
        for (start, end) in own.iter() {
            ranges.add(base.saturating_add(start), base.saturating_add(end));
        }
    }
    Ok(())
}

fn bytes_of(change: &Change, shift: u32) -> Option<(u64, u64)> {
    let scale = |units: u64| units.checked_mul(1 << shift);
    let start = scale(change.offset)?;
    Some((start, start.checked_add(scale(change.run)?)?))
}

fn apply(ranges: &mut Ranges, change: &Change, start: u64, end: u64, place: Place, report: &mut Report) {
    if change.frees {
        if !ranges.remove(start, end) {
            report.add(
                FindingKind::SpaceMap,
                place,
                format!("it frees {start:#x} to {end:#x}, which is free"),
            );
        }
    } else if !ranges.add(start, end) {
        report.add(FindingKind::SpaceMap, place, format!("it allocates {start:#x} to {end:#x} twice"));
    }
}

/// For each metaslab the transaction group up to which its space map has everything.
fn read_unflushed(pool: &Pool, top: &Top) -> Result<Vec<u64>, ReadError> {
    if top.table == 0 {
        return Ok(Vec::new());
    }
    let Some(object) = pool.mos.zap(top.table)?.number("com.delphix:ms_unflushed_phys_txgs")? else {
        return Ok(Vec::new());
    };
    let count = top.metaslabs().min(MAX_METASLABS);
    let bytes = pool.mos.content(object, count * 8, MAX_METASLABS * 8)?;
    Ok((0..count as usize).map(|i| word(&bytes, i)).collect())
}

/// Applies the logs, oldest first, to the metaslabs that do not have them yet.
fn replay_logs(
    pool: &Pool,
    maps: &mut Maps,
    flushed: &[Vec<u64>],
    report: &mut Report,
) -> Result<(), ReadError> {
    /// Entries of logs count in sectors of 512 bytes, on the whole vdev.
    const LOG_SHIFT: u32 = 9;
    let Some(table) = pool.directory_object("com.delphix:log_spacemap_zap")? else { return Ok(()) };
    let mut logs: Vec<(u64, u64)> = pool
        .mos
        .zap(table)?
        .entries()?
        .iter()
        .filter_map(|entry| Some((entry.hex_name()?, entry.number()?)))
        .collect();
    logs.sort_unstable();
    let tops = pool.blocks.tops();
    for (txg, object) in logs {
        let (bytes, _) = read_map(pool, object)?;
        let before = report.findings.len();
        for change in changes(&bytes) {
            if report.findings.len() - before >= MAX_FINDINGS {
                return Err(damaged(object, "nearly nothing in it is right"));
            }
            let change = change.map_err(|problem| damaged(object, problem))?;
            let vdev = change.vdev.unwrap_or(u32::MAX) as usize;
            let top = tops.get(vdev).and_then(Option::as_ref);
            let range = bytes_of(&change, LOG_SHIFT);
            let (Some(top), Some((start, end)), Some(ranges)) = (top, range, maps.tops.get_mut(vdev)) else {
                report.add(FindingKind::SpaceMap, Place::mos(object), "an entry of the log lies on no vdev");
                continue;
            };
            let metaslab = start.checked_shr(top.metaslab_shift).unwrap_or(0) as usize;
            let known = flushed.get(vdev).and_then(|txgs| txgs.get(metaslab)).copied().unwrap_or(0);
            if txg >= known {
                apply(ranges, &change, start, end, Place::mos(object), report);
            }
        }
    }
    Ok(())
}

/// Compares what is allocated with what was found in use.
pub(super) fn compare(pool: &Pool, maps: Maps, walked: &Walked, report: &mut Report) {
    let mut used: Vec<Ranges> = maps.tops.iter().map(|_| Ranges::default()).collect();
    let mut last: Option<&super::walk::Segment> = None;
    for segment in &walked.segments {
        let place = Place { space: Some((segment.vdev, segment.offset, segment.len)), ..Place::default() };
        let end = segment.offset.checked_add(segment.len);
        let (Some(ranges), Some(end)) = (used.get_mut(segment.vdev as usize), end) else {
            report.add(FindingKind::Structure, place, "a block lies on a vdev that does not exist");
            continue;
        };
        let again = last.is_some_and(|last| last.same_place(segment));
        last = Some(segment);
        let fresh = ranges.add(segment.offset, end);
        if !fresh && (!again || !segment.shared) {
            report.add(FindingKind::DoubleAllocation, place, "two blocks use the same space");
        }
    }
    report.used = used.iter().map(Ranges::bytes).collect();
    if maps.incomplete {
        report.not_checked.push("leaks, because not all space maps can be read".to_owned());
        return;
    }
    for (vdev, (used, allocated)) in used.iter().zip(&maps.tops).enumerate() {
        let place = |(start, end): (u64, u64)| Place {
            space: Some((vdev as u32, start, end - start)),
            ..Place::default()
        };
        // Vdevs without space maps, such as missing ones, say nothing.
        let has_maps =
            pool.blocks.tops().get(vdev).and_then(Option::as_ref).is_some_and(|top| top.metaslab_array != 0);
        if !has_maps {
            continue;
        }
        for range in used.minus(allocated).iter() {
            report.add(FindingKind::NotAllocated, place(range), "a block uses space that is marked free");
        }
        if walked.complete {
            for range in allocated.minus(used).iter() {
                report.add(FindingKind::Leak, place(range), "nothing uses this space, but it is marked used");
            }
        }
    }
    if !walked.complete {
        report.not_checked.push("leaks, because not all blocks can be found".to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_all_sorts() {
        let words = [
            2 << 62 | 99,
            5 << 16 | 2,
            5 << 16 | 1 << 15 | 2,
            3 << 62 | 9 << 24 | 1,
            1 << 63 | 77,
            3 << 62 | 9 << 24 | ((1 << 24) - 1),
            77,
        ];
        let bytes: Vec<u8> = words.iter().flat_map(|word: &u64| word.to_le_bytes()).collect();
        let change = |frees, vdev, offset, run| Change { frees, vdev, offset, run };
        let all = |bytes: &[u8]| changes(bytes).collect::<Result<Vec<_>, _>>();
        assert_eq!(
            all(&bytes).unwrap(),
            [
                change(false, None, 5, 3),
                change(true, None, 5, 3),
                change(true, Some(1), 77, 10),
                change(false, None, 77, 10)
            ]
        );
        assert!(all(&bytes[..32]).is_err());
    }
}

//! Lists of datasets and of block pointers.

use std::collections::{BTreeMap, BTreeSet};

use super::walk::WalkedSet;
use crate::read::bytes::word;
use crate::read::error::ReadError;
use crate::read::pointer::{BlockPointer, POINTER};
use crate::read::pool::Pool;

/// Most bytes of a list, and lists in lists, that are believed.
const MAX_LIST: u64 = 1 << 30;
const MAX_DEPTH: u32 = 32;

/// A list of block pointers, as its header describes it.
#[derive(Clone, Copy, Debug)]
pub(super) struct ListHeader {
    count: u64,
    /// Bytes that the blocks take.
    pub(super) bytes: u64,
    sublists: u64,
    sublist_count: u64,
}

pub(super) fn header(pool: &Pool, object: u64) -> Result<ListHeader, ReadError> {
    let bonus = pool.mos.dnode(object)?.bonus;
    let at = |index| word(&bonus, index);
    Ok(ListHeader { count: at(0), bytes: at(1), sublists: at(4), sublist_count: at(5) })
}

/// The pointers of a list and of all lists in it.
pub(super) fn pointers(pool: &Pool, object: u64) -> Result<Vec<BlockPointer>, ReadError> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    collect(pool, object, 0, &mut seen, &mut found)?;
    Ok(found)
}

fn collect(
    pool: &Pool,
    object: u64,
    depth: u32,
    seen: &mut BTreeSet<u64>,
    found: &mut Vec<BlockPointer>,
) -> Result<(), ReadError> {
    let damaged = |problem| ReadError::damaged(format!("list of blocks {object}"), problem);
    let header = header(pool, object)?;
    // The one list that is empty for good may stand in several others.
    let is_empty = header.count == 0 && header.sublists == 0;
    if depth == MAX_DEPTH || (!is_empty && !seen.insert(object)) {
        return Err(damaged("it contains itself"));
    }
    let len = header.count.checked_mul(POINTER as u64).ok_or_else(|| damaged("it is too long"))?;
    let bytes = pool.mos.content(object, len, MAX_LIST)?;
    for bytes in bytes.chunks_exact(POINTER) {
        found.push(BlockPointer::decode(bytes).map_err(|bad| damaged(bad.text()))?);
    }
    if header.sublists != 0 {
        let len =
            header.sublist_count.checked_mul(8).ok_or_else(|| damaged("it has too many lists in it"))?;
        let sublists = pool.mos.content(header.sublists, len, MAX_LIST)?;
        for sublist in sublists.chunks_exact(8) {
            collect(pool, word(sublist, 0), depth + 1, seen, found)?;
        }
    }
    Ok(())
}

/// Every dataset and snapshot, the hidden ones too: by directory, oldest first; and whether it is encrypted.
pub(super) fn datasets(pool: &Pool) -> Result<Vec<(WalkedSet, bool)>, ReadError> {
    let mut sets = Vec::new();
    for dir in pool.dirs()? {
        let mut chain = pool.chain(&dir)?;
        chain.reverse();
        let mut names = BTreeMap::new();
        if let Some((_, head)) = chain.last()
            && head.snapshots != 0
        {
            for entry in pool.mos.zap(head.snapshots)?.entries()? {
                let name = String::from_utf8_lossy(&entry.name).into_owned();
                names.insert(entry.number().unwrap_or(0), name);
            }
        }
        for (object, phys) in chain {
            let name = match names.get(&object) {
                Some(snapshot) => format!("{}@{snapshot}", dir.name),
                None => dir.name.clone(),
            };
            let set = WalkedSet { name, object, phys: Some(phys), born: 0, complete: true };
            sets.push((set, dir.encrypted));
        }
    }
    Ok(sets)
}

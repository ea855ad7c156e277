//! The way through the pool: every object set, every object, every block, each once.

use std::collections::HashSet;

use super::check::{Job, Queue, Spot, check_all};
use super::lists;
use super::{FindingKind, Place, Report};
use crate::device::Progress;
use crate::read::block::MAX_GANG_DEPTH;
use crate::read::dataset::DatasetPhys;
use crate::read::dnode::Dnode;
use crate::read::objset::{ObjectSet, SLOTS_PER_BLOCK, objects_of};
use crate::read::pointer::{BlockPointer, Body, POINTER, Stored};
use crate::read::pool::Pool;
use crate::read::zap::Zap;

/// Space that something uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Segment {
    pub(super) vdev: u32,
    pub(super) offset: u64,
    pub(super) len: u64,
    /// Several block pointers may lead here (deduplication, cloned files).
    pub(super) shared: bool,
}

impl Segment {
    pub(super) fn same_place(&self, other: &Segment) -> bool {
        (self.vdev, self.offset, self.len) == (other.vdev, other.offset, other.len)
    }
}

/// An object set that was walked.
#[derive(Clone, Debug)]
pub(super) struct WalkedSet {
    pub(super) name: String,
    /// Its dataset object; 0 for the pool's own objects.
    pub(super) object: u64,
    pub(super) phys: Option<DatasetPhys>,
    /// Bytes that its blocks born after the snapshot before it take.
    pub(super) born: u64,
    /// All its blocks were found.
    pub(super) complete: bool,
}

/// What the walk found.
#[derive(Debug, Default)]
pub(super) struct Walked {
    /// Sorted.
    pub(super) segments: Vec<Segment>,
    pub(super) sets: Vec<WalkedSet>,
    /// Everything was reached.
    pub(super) complete: bool,
    /// Space maps among the pool's objects, and objects that carry a table beside their bonus.
    pub(super) space_maps: u64,
    pub(super) zapified: u64,
}

/// Walks through the whole pool; `total` is the bytes that progress is told about.
pub(super) fn walk(pool: &Pool, total: u64, progress: &dyn Progress, report: &mut Report) -> Walked {
    let mut plan =
        vec![(WalkedSet { name: "$MOS".to_owned(), object: 0, phys: None, born: 0, complete: true }, false)];
    let mut complete = true;
    match lists::datasets(pool) {
        Ok(datasets) => plan.extend(datasets),
        Err(error) => {
            report.add(FindingKind::Unreadable, Place::dataset("$MOS"), error.to_string());
            complete = false;
        }
    }
    let (mut walked, checked) = check_all(&pool.blocks, |queue| {
        let mut walker = Walker {
            pool,
            queue,
            progress,
            total,
            done: 0,
            clones: has_clones(pool),
            seen: HashSet::new(),
            walked: Walked { complete, ..Walked::default() },
            faults: Vec::new(),
            blocks: 0,
            not_checked: Vec::new(),
        };
        for (set, encrypted) in plan {
            walker.walk_set(set, encrypted);
        }
        walker.walk_lists();
        report.blocks = walker.blocks;
        report.not_checked.append(&mut walker.not_checked);
        (walker.walked, walker.faults)
    });
    report.copies = checked.copies;
    report.bytes = checked.bytes;
    report.not_checked.extend(checked.not_supported);
    let place = |spot: &Spot| Place {
        dataset: walked.0.sets.get(spot.set).map(|set| set.name.clone()),
        object: spot.object,
        block: Some((spot.level, spot.number)),
        ..Place::default()
    };
    for fault in checked.faults.into_iter().chain(std::mem::take(&mut walked.1)) {
        report.findings.push(super::Finding {
            place: place(&fault.spot),
            kind: fault.kind,
            problem: fault.problem,
        });
    }
    walked.0.segments.sort_unstable();
    if pool.missing_devices() > 0 {
        report.not_checked.push(format!("copies on {} missing devices", pool.missing_devices()));
    }
    walked.0
}

/// Whether blocks of files may be used in several places without being marked so.
fn has_clones(pool: &Pool) -> bool {
    let features = pool.features().unwrap_or_default();
    features.iter().any(|feature| feature.guid == "com.fudosecurity:block_cloning" && feature.references > 0)
}

pub(super) struct Walker<'w, 'a> {
    pub(super) pool: &'w Pool<'a>,
    queue: &'w mut Queue,
    progress: &'w dyn Progress,
    total: u64,
    done: u64,
    clones: bool,
    /// Blocks with pointers in them: none may lead to itself or be met twice.
    pub(super) seen: HashSet<(u32, u64)>,
    pub(super) walked: Walked,
    faults: Vec<super::check::Fault>,
    blocks: u64,
    pub(super) not_checked: Vec<String>,
}

/// What one object takes, as far as it was visited.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    bytes: u64,
    /// Parts belong to an earlier snapshot and were left out.
    pruned: bool,
    broken: bool,
}

/// One object on its way.
#[derive(Clone, Copy)]
struct Visit<'d> {
    set: usize,
    object: Option<u64>,
    dnode: &'d Dnode,
    /// Blocks born up to this transaction group were visited with an earlier snapshot.
    after: u64,
}

impl<'a> Walker<'_, 'a> {
    fn fault(&mut self, spot: Spot, kind: FindingKind, problem: impl Into<String>) {
        self.faults.push(super::check::Fault { spot, kind, problem: problem.into() });
    }

    pub(super) fn unreadable(&mut self, spot: Spot, problem: impl Into<String>) {
        self.walked.complete = false;
        if let Some(set) = self.walked.sets.get_mut(spot.set) {
            set.complete = false;
        }
        self.fault(spot, FindingKind::Unreadable, problem);
    }

    /// Notes the space of a block and has its copies checked.
    fn visit(&mut self, spot: Spot, pointer: &BlockPointer) {
        if let Body::Stored(stored) = &pointer.body {
            self.blocks += 1;
            let shared = stored.dedup || (self.clones && spot.level == 0);
            self.add_segments(spot, stored, pointer.physical_birth, shared, 0);
            self.done += pointer.asize();
            if self.blocks.is_multiple_of(256) {
                self.progress.bytes(self.done.min(self.total), self.total);
            }
        }
        self.queue.push(Job { spot, pointer: *pointer });
    }

    /// The parts of a block that is shared are shared as well, although their pointers do not say so.
    pub(super) fn add_segments(&mut self, spot: Spot, stored: &Stored, birth: u64, shared: bool, depth: u32) {
        let mut is_gang = false;
        let mut parts = None;
        for dva in stored.dvas() {
            let mut len = dva.asize;
            if dva.gang {
                // The address says what the parts take with it; the list of them is one sector.
                let tops = self.pool.blocks.tops();
                let top = tops.get(dva.vdev as usize).and_then(Option::as_ref);
                len = top.map_or(512, |top| top.asize_of(1 << top.ashift));
                is_gang = true;
                let read = |child| self.pool.blocks.read_gang(stored, &dva, child, birth).ok();
                parts = parts.or_else(|| (0..self.pool.blocks.children(&dva)).find_map(read));
            }
            self.walked.segments.push(Segment { vdev: dva.vdev, offset: dva.offset, len, shared });
        }
        // All copies of the list name the same parts.
        match parts.filter(|_| depth < MAX_GANG_DEPTH) {
            Some(parts) => {
                for part in parts {
                    if let Body::Stored(stored) = &part.body {
                        self.add_segments(spot, stored, part.physical_birth, shared, depth + 1);
                    }
                }
            }
            None if is_gang => self.unreadable(spot, "the list of the block's parts cannot be read"),
            None => {}
        }
    }

    fn walk_set(&mut self, set: WalkedSet, encrypted: bool) {
        let index = self.walked.sets.len();
        let spot = Spot { set: index, object: None, level: 0, number: 0 };
        let root = match &set.phys {
            Some(phys) => phys.pointer().map_err(|error| error.to_string()),
            None => self.pool.uberblock.root().map_err(|bad| bad.text().to_owned()),
        };
        let after = set.phys.map_or(0, |phys| phys.previous_txg);
        let is_head = set.phys.is_some_and(|phys| phys.next == 0);
        self.walked.sets.push(set);
        let root = match root {
            Ok(root) => root,
            Err(problem) => return self.unreadable(spot, problem),
        };
        if root.is_hole() || (root.birth <= after && !is_head) {
            return;
        }
        let opened = ObjectSet::open(self.pool.blocks.clone(), &root);
        if root.birth <= after {
            // All it holds has been met in its newest snapshot, but the log in a snapshot counts for nothing.
            if let Ok(Some(opened)) = opened {
                self.walk_log(index, &opened);
            }
            return;
        }
        self.visit(spot, &root);
        let opened = match opened {
            Ok(Some(opened)) => opened,
            Ok(None) => return,
            Err(error) => return self.unreadable(spot, error.to_string()),
        };
        let mut born = self.pool.blocks.charge(&root);
        let mut objects = Sum::default();
        let meta = Visit { set: index, object: None, dnode: &opened.meta, after };
        let sum = self.walk_tree(meta, root.birth, &mut |walker, number, pointer| {
            walker.walk_dnodes(index, number, pointer, after, encrypted, &mut objects)
        });
        born += sum.bytes + objects.bytes;
        if opened.meta_fill().is_some_and(|fill| fill != root.fill) {
            self.fault(spot, FindingKind::Structure, "the object set miscounts its objects");
        }
        for dnode in &opened.accounting {
            let visit = Visit { set: index, object: None, dnode, after };
            born += self.walk_tree(visit, root.birth, &mut |_, _, _| None).bytes;
        }
        if is_head {
            self.walk_log(index, &opened);
        }
        self.walked.sets[index].born = born;
    }

    /// Walks the objects in a block of dnodes; gives their number.
    fn walk_dnodes(
        &mut self,
        set: usize,
        number: u64,
        pointer: &BlockPointer,
        after: u64,
        encrypted: bool,
        total: &mut Sum,
    ) -> Option<u64> {
        let spot = Spot { set, object: None, level: 0, number };
        let block = match self.pool.blocks.read_cached(pointer) {
            Ok(block) => block,
            Err(error) => {
                self.unreadable(spot, error.to_string());
                return None;
            }
        };
        let mut count = 0;
        for found in objects_of(&block, number.checked_mul(SLOTS_PER_BLOCK)?) {
            match found {
                Ok((object, dnode)) => {
                    count += 1;
                    total.bytes += self.walk_object(set, object, &dnode, after, pointer.birth, encrypted);
                }
                Err(error) => self.unreadable(spot, error.to_string()),
            }
        }
        Some(count)
    }

    /// Walks one object; gives what it takes.
    fn walk_object(
        &mut self,
        set: usize,
        object: u64,
        dnode: &Dnode,
        after: u64,
        latest: u64,
        encrypted: bool,
    ) -> u64 {
        const SPACE_MAP_BONUS: u8 = 7;
        const SPACE_MAP_HEADER: usize = 320;
        let spot = Spot { set, object: Some(object), level: 0, number: 0 };
        let visit = Visit { set, object: Some(object), dnode, after };
        let mut sum = self.walk_tree(visit, latest, &mut |_, _, _| None);
        if let Some(bytes) = &dnode.spill {
            match BlockPointer::decode(bytes) {
                Ok(spill) if spill.is_hole() => {}
                Ok(spill) if spill.birth <= after => sum.pruned = true,
                Ok(spill) => {
                    self.visit(spot, &spill);
                    sum.bytes += self.pool.blocks.charge(&spill);
                }
                Err(bad) => {
                    sum.broken = true;
                    self.unreadable(spot, bad.text());
                }
            }
        }
        if !sum.pruned && !sum.broken && sum.bytes != dnode.used {
            let problem = format!("it says it takes {} bytes, but takes {}", dnode.used, sum.bytes);
            self.fault(spot, FindingKind::Accounting, problem);
        }
        if set == 0 {
            self.walked.zapified += u64::from(dnode.object_type == 0xc4 && dnode.bonus_type != 0);
            self.walked.space_maps +=
                u64::from(dnode.bonus_type == SPACE_MAP_BONUS && dnode.bonus.len() == SPACE_MAP_HEADER);
        }
        if !encrypted && sum.bytes > 0 && !sum.broken && is_table(dnode.object_type) {
            let problems = Zap::open(&self.pool.blocks, dnode.clone(), object).and_then(|zap| zap.problems());
            match problems {
                Ok(problems) => {
                    problems.into_iter().for_each(|problem| self.fault(spot, FindingKind::Structure, problem))
                }
                Err(error) => self.unreadable(spot, error.to_string()),
            }
        }
        sum.bytes
    }

    /// Walks the blocks of an object. `each` is called for its data blocks and may say how many things are in one.
    fn walk_tree(
        &mut self,
        visit: Visit,
        latest: u64,
        each: &mut dyn FnMut(&mut Self, u64, &BlockPointer) -> Option<u64>,
    ) -> Sum {
        let mut sum = Sum::default();
        let top = visit.dnode.levels - 1;
        for (number, bytes) in visit.dnode.pointers.iter().enumerate() {
            self.descend(visit, bytes, top, number as u64, latest, &mut sum, each);
        }
        sum
    }

    /// Walks what is below one pointer; gives its fill count as far as it is known.
    #[allow(clippy::too_many_arguments, reason = "a recursion carries its place")]
    fn descend(
        &mut self,
        visit: Visit,
        bytes: &[u8],
        level: u8,
        number: u64,
        latest: u64,
        sum: &mut Sum,
        each: &mut dyn FnMut(&mut Self, u64, &BlockPointer) -> Option<u64>,
    ) -> u64 {
        let spot = Spot { set: visit.set, object: visit.object, level, number };
        let pointer = match visit.dnode.checked(bytes, level) {
            Ok(pointer) => pointer,
            Err(error) => {
                sum.broken = true;
                self.unreadable(spot, error.to_string());
                return 0;
            }
        };
        if pointer.is_hole() {
            return 0;
        }
        if pointer.birth > latest {
            self.fault(spot, FindingKind::Structure, "the block was born after what leads to it");
        }
        if pointer.birth <= visit.after {
            sum.pruned = true;
            return pointer.fill;
        }
        self.visit(spot, &pointer);
        sum.bytes += self.pool.blocks.charge(&pointer);
        if level == 0 {
            if number > visit.dnode.last_block {
                self.fault(spot, FindingKind::Structure, "the block lies behind the end of its object");
            }
            if let Some(count) = each(self, number, &pointer)
                && count != pointer.fill
            {
                let problem = format!("it says it has {} objects, but has {count}", pointer.fill);
                self.fault(spot, FindingKind::Structure, problem);
            }
            return pointer.fill;
        }
        if let Body::Stored(stored) = &pointer.body
            && let Some(dva) = stored.dvas().next()
            && !self.seen.insert((dva.vdev, dva.offset))
        {
            sum.broken = true;
            self.unreadable(spot, "the block has already been met elsewhere");
            return pointer.fill;
        }
        let block = match self.pool.blocks.read_cached(&pointer) {
            Ok(block) => block,
            Err(error) => {
                sum.broken = true;
                self.unreadable(spot, error.to_string());
                return pointer.fill;
            }
        };
        let count = block.len() / POINTER;
        let mut fill = 0u64;
        let mut known = true;
        for (i, bytes) in block.chunks_exact(POINTER).enumerate() {
            let below = number.checked_mul(count as u64).and_then(|first| first.checked_add(i as u64));
            // A hole that was never born has no number worth computing.
            if bytes.iter().all(|byte| *byte == 0) {
                continue;
            }
            let Some(below) = below else {
                known = false;
                self.unreadable(spot, "the number of a block exceeds 64 bits");
                continue;
            };
            let broken = std::mem::take(&mut sum.broken);
            let found = self.descend(visit, bytes, level - 1, below, pointer.birth, sum, each);
            known &= !sum.broken;
            sum.broken |= broken;
            fill = fill.saturating_add(found);
        }
        if known && fill != pointer.fill {
            let problem = format!("it says {} blocks are below it, there are {fill}", pointer.fill);
            self.fault(spot, FindingKind::Structure, problem);
        }
        pointer.fill
    }
}

/// Types of objects that are tables (`DMU_BSWAP_ZAP` in `dmu.c` of OpenZFS).
fn is_table(object_type: u8) -> bool {
    const NEW_TYPE: u8 = 0x80;
    const TABLE: u8 = 4;
    const OLD: [u8; 27] = [
        1, 13, 14, 15, 20, 21, 22, 24, 27, 28, 31, 32, 37, 38, 39, 40, 41, 42, 43, 45, 46, 47, 48, 50, 52,
        0xc4, 0xe4,
    ];
    OLD.contains(&object_type) || (object_type & NEW_TYPE != 0 && object_type & 0x1f == TABLE)
}

impl ObjectSet<'_> {
    /// Fill count of the array of dnodes; none when its pointers cannot be decoded.
    fn meta_fill(&self) -> Option<u64> {
        let fill = |bytes: &[u8; POINTER]| Some(BlockPointer::decode(bytes).ok()?.fill);
        self.meta.pointers.iter().try_fold(0u64, |sum, bytes| Some(sum.saturating_add(fill(bytes)?)))
    }
}

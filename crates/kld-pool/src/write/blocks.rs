//! What the blocks of an object were: the memory by which the next version of a dataset shares what has not changed.
//!
//! It is kept only for datasets whose snapshots differ from one another: about 180 bytes for each block.

use std::ops::Range;
use std::sync::Arc;

use crate::format::blkptr::{BlockPointer, Role};
use crate::write::indirect::Root;
use crate::write::space::Space;

/// A hash of a block's content before compression.
pub(crate) type Digest = [u8; 32];

/// Hashes content to tell whether it changed.
pub(crate) fn digest(content: &[u8]) -> Digest {
    *blake3::hash(content).as_bytes()
}

/// One block that is not a plain hole.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recorded {
    pub(crate) index: u64,
    pub(crate) pointer: BlockPointer,
    /// Of level 0 only.
    pub(crate) digest: Option<Digest>,
}

/// All blocks of an object, by level; the root is the only one of the last level.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    pub(crate) levels: Vec<Vec<Recorded>>,
    /// Levels of the tree, those without a block included.
    pub(crate) depth: u8,
    /// Bytes of a block of level 0.
    pub(crate) block_size: u64,
    /// What all of them take.
    pub(crate) space: Space,
}

impl Blocks {
    /// The tree again, for a version that has it unchanged.
    pub(crate) fn as_root(self: &Arc<Blocks>) -> Root {
        let root = self.get(usize::from(self.depth) - 1, 0);
        Root {
            pointer: root.map_or(BlockPointer::HOLE, |root| root.pointer),
            levels: self.depth,
            space: self.space,
            blocks: Some(Arc::clone(self)),
        }
    }

    pub(crate) fn get(&self, level: usize, index: u64) -> Option<&Recorded> {
        let blocks = self.levels.get(level)?;
        blocks.binary_search_by_key(&index, |block| block.index).ok().map(|at| &blocks[at])
    }

    /// The blocks of a level in `range`, in order.
    pub(crate) fn range(&self, level: usize, range: Range<u64>) -> &[Recorded] {
        let Some(blocks) = self.levels.get(level) else { return &[] };
        let at = |index| blocks.partition_point(|block| block.index < index);
        &blocks[at(range.start)..at(range.end)]
    }

    /// How many blocks from `index` on are plain holes.
    pub(crate) fn holes_at(&self, level: usize, index: u64) -> u64 {
        match self.levels.get(level) {
            Some(blocks) => {
                let next = blocks.partition_point(|block| block.index < index);
                blocks.get(next).map_or(u64::MAX, |block| block.index - index)
            }
            None => u64::MAX,
        }
    }

    /// The pointer for a block that is a hole now: one that was freed remembers when, also when a whole indirect block
    /// was freed with it.
    pub(crate) fn hole(&self, level: usize, index: u64, lsize: u64, role: Role, now: u64) -> BlockPointer {
        const WIDTH_SHIFT: usize = 10;
        if let Some(block) = self.get(level, index) {
            return if block.pointer.is_hole() {
                block.pointer
            } else {
                BlockPointer::freed(lsize, role, now)
            };
        }
        (level + 1..self.levels.len())
            .find_map(|above| self.get(above, index >> (WIDTH_SHIFT * (above - level))))
            .filter(|block| block.pointer.is_hole())
            .map_or(BlockPointer::HOLE, |block| BlockPointer::freed(lsize, role, block.pointer.birth()))
    }

    /// The blocks that `next` no longer has.
    pub(crate) fn dead_in(&self, next: Option<&Blocks>) -> impl Iterator<Item = BlockPointer> {
        self.levels
            .iter()
            .enumerate()
            .flat_map(move |(level, blocks)| {
                blocks.iter().filter(move |block| {
                    let lives = next
                        .and_then(|next| next.get(level, block.index))
                        .is_some_and(|other| other.pointer == block.pointer);
                    !block.pointer.is_hole() && !lives
                })
            })
            .map(|block| block.pointer)
    }
}

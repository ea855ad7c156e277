//! The tree of indirect blocks over an object's data blocks, built while the data is being placed.
//!
//! Pointers arrive in block order; every 1024 of them become an indirect block. Memory is one open indirect block per
//! level, whatever the size of the object, and runs of holes cost nothing.

use crate::format::blkptr::{BlockPointer, Role};
use crate::format::dnode::POINTERS_PER_INDIRECT;
use crate::write::error::WriteError;
use crate::write::media::{Media, Placement};
use crate::write::space::Space;

/// A finished tree.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Root {
    pub(crate) pointer: BlockPointer,
    /// 1 when the pointer is that of the only data block.
    pub(crate) levels: u8,
    /// What the indirect blocks take.
    pub(crate) space: Space,
}

/// The open indirect blocks, lowest level first.
#[derive(Debug)]
pub(crate) struct IndirectTree {
    object_type: u8,
    copies: usize,
    open: Vec<Vec<BlockPointer>>,
    space: Space,
}

impl IndirectTree {
    pub(crate) fn new(object_type: u8, copies: usize) -> IndirectTree {
        IndirectTree { object_type, copies, open: vec![Vec::new()], space: Space::default() }
    }

    /// Adds the pointer of the next data block.
    pub(crate) fn push(&mut self, media: &mut Media, pointer: BlockPointer) -> Result<(), WriteError> {
        self.push_at(media, 0, pointer)
    }

    /// Adds `count` data blocks that are holes.
    pub(crate) fn push_holes(&mut self, media: &mut Media, count: u64) -> Result<(), WriteError> {
        self.push_holes_at(media, 0, count)
    }

    /// Closes the tree; it has at least `min_levels` levels.
    pub(crate) fn finish(mut self, media: &mut Media, min_levels: u8) -> Result<Root, WriteError> {
        let mut level = 0;
        loop {
            let is_top = level + 1 == self.open.len() && self.open[level].len() <= 1;
            if is_top && level + 1 >= usize::from(min_levels) {
                let pointer = self.open[level].first().copied().unwrap_or(BlockPointer::HOLE);
                return Ok(Root { pointer, levels: (level + 1) as u8, space: self.space });
            }
            if !self.open[level].is_empty() {
                self.close(media, level)?;
            }
            level += 1;
        }
    }

    fn push_at(&mut self, media: &mut Media, level: usize, pointer: BlockPointer) -> Result<(), WriteError> {
        // A full block is closed only when another pointer arrives: it may be the last one.
        if self.open[level].len() == POINTERS_PER_INDIRECT {
            self.close(media, level)?;
        }
        self.open[level].push(pointer);
        Ok(())
    }

    fn push_holes_at(&mut self, media: &mut Media, level: usize, mut count: u64) -> Result<(), WriteError> {
        const WIDTH: u64 = POINTERS_PER_INDIRECT as u64;
        while count > 0 {
            let room = WIDTH - self.open[level].len() as u64;
            if room == 0 {
                self.close(media, level)?;
            } else if room == WIDTH && count >= WIDTH * 2 {
                // Whole indirect blocks of holes are holes one level up; the last ones stay here, so that a level
                // never ends empty.
                let whole = count / WIDTH - 1;
                self.ensure_level(level + 1);
                self.push_holes_at(media, level + 1, whole)?;
                count -= whole * WIDTH;
            } else {
                let here = room.min(count);
                self.open[level].extend(std::iter::repeat_n(BlockPointer::HOLE, here as usize));
                count -= here;
            }
        }
        Ok(())
    }

    /// Turns the open block of `level` into a pointer one level up.
    fn close(&mut self, media: &mut Media, level: usize) -> Result<(), WriteError> {
        self.ensure_level(level + 1);
        let pointers = std::mem::take(&mut self.open[level]);
        if pointers.iter().all(BlockPointer::is_hole) {
            return self.push_at(media, level + 1, BlockPointer::HOLE);
        }
        let mut block = vec![0; POINTERS_PER_INDIRECT * 128];
        for (slot, pointer) in block.chunks_exact_mut(128).zip(&pointers) {
            slot.copy_from_slice(&pointer.to_bytes());
        }
        let role = Role { object_type: self.object_type, level: (level + 1) as u8 };
        let fill = pointers.iter().map(BlockPointer::fill).sum();
        let stored = media.store(&block, Placement { role, copies: self.copies, fill })?;
        self.space += stored.space;
        self.push_at(media, level + 1, stored.pointer)
    }

    fn ensure_level(&mut self, level: usize) {
        if self.open.len() <= level {
            self.open.push(Vec::new());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Block, Form};
    use crate::format::blkptr::Extent;
    use crate::write::space::{Allocator, Geometry};

    fn with_media<T>(run: impl FnOnce(&mut Media) -> T) -> T {
        let file = tempfile::tempfile().unwrap();
        let mut media = Media::new(&file, Allocator::new(Geometry::of(64 << 20), 12), 12).unwrap();
        run(&mut media)
    }

    fn data_pointer(media: &mut Media) -> BlockPointer {
        let extent = Extent { lsize: 512, psize: 512, asize: 4096, compression: 2, checksum: [1; 4] };
        let block = Block { lsize: 512, form: Form::Stored(extent) };
        let role = Role { object_type: 19, level: 0 };
        media.place(&block, Placement { role, copies: 1, fill: 1 }).0.pointer
    }

    #[test]
    fn levels_and_fill_by_block_count() {
        for (count, levels) in [(1u64, 1u8), (2, 2), (1024, 2), (1025, 3), (3000, 3)] {
            with_media(|media| {
                let mut tree = IndirectTree::new(19, 2);
                for _ in 0..count {
                    let pointer = data_pointer(media);
                    tree.push(media, pointer).unwrap();
                }
                let root = tree.finish(media, 1).unwrap();
                assert_eq!((root.levels, root.pointer.fill()), (levels, count), "{count}");
            });
        }
    }

    #[test]
    fn runs_of_holes_equal_single_holes() {
        for (before, holes, after) in
            [(0u64, 5000u64, 1u64), (1, 3_000_000, 2), (1023, 2048, 1), (1024, 1024, 0), (0, 7000, 0)]
        {
            let shape = |one_by_one: bool| {
                with_media(|media| {
                    let mut tree = IndirectTree::new(19, 2);
                    for _ in 0..before {
                        let pointer = data_pointer(media);
                        tree.push(media, pointer).unwrap();
                    }
                    if one_by_one {
                        (0..holes).for_each(|_| tree.push(media, BlockPointer::HOLE).unwrap());
                    } else {
                        tree.push_holes(media, holes).unwrap();
                    }
                    for _ in 0..after {
                        let pointer = data_pointer(media);
                        tree.push(media, pointer).unwrap();
                    }
                    let root = tree.finish(media, 1).unwrap();
                    (root.levels, root.pointer.fill(), root.space)
                })
            };
            assert_eq!(shape(true), shape(false), "{before} {holes} {after}");
        }
    }

    #[test]
    fn minimum_levels_are_kept() {
        with_media(|media| {
            let mut tree = IndirectTree::new(10, 2);
            let pointer = data_pointer(media);
            tree.push(media, pointer).unwrap();
            assert_eq!(tree.finish(media, 6).unwrap().levels, 6);
        });
    }
}

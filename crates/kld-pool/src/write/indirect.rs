//! The tree of indirect blocks over an object's data blocks, built while the data is being placed.
//!
//! Pointers arrive in block order; every 1024 of them become an indirect block. Memory is one open indirect block per
//! level, whatever the size of the object, and runs of holes cost nothing. Where an earlier version of the object is known,
//! an indirect block that would be the same is not written again.

use std::sync::Arc;

use crate::format::blkptr::{BlockPointer, Role};
use crate::format::dnode::POINTERS_PER_INDIRECT;
use crate::write::blocks::{Blocks, Digest, Recorded, digest};
use crate::write::error::WriteError;
use crate::write::media::Media;
use crate::write::space::Space;

const WIDTH: u64 = POINTERS_PER_INDIRECT as u64;
/// Bytes of an indirect block.
const INDIRECT: u64 = WIDTH * 128;

/// A finished tree.
#[derive(Clone, Debug)]
pub(crate) struct Root {
    pub(crate) pointer: BlockPointer,
    /// 1 when the pointer is that of the only data block.
    pub(crate) levels: u8,
    /// What data and indirect blocks take.
    pub(crate) space: Space,
    /// Kept when the next version of the object may share them.
    pub(crate) blocks: Option<Arc<Blocks>>,
}

/// The open indirect blocks, lowest level first.
#[derive(Debug)]
pub(crate) struct IndirectTree {
    object_type: u8,
    block_size: u64,
    open: Vec<Vec<BlockPointer>>,
    /// Pointers that came, by level.
    counts: Vec<u64>,
    space: Space,
    previous: Option<Arc<Blocks>>,
    recorded: Option<Blocks>,
}

impl IndirectTree {
    /// A tree of data blocks of `block_size` bytes; blocks of `previous` are shared if they have that size, too.
    pub(crate) fn new(
        media: &Media,
        object_type: u8,
        block_size: u64,
        previous: Option<Arc<Blocks>>,
    ) -> IndirectTree {
        IndirectTree {
            object_type,
            block_size,
            open: vec![Vec::new()],
            counts: vec![0],
            space: Space::default(),
            previous: previous.filter(|previous| previous.block_size == block_size),
            recorded: media.rules.record.then(|| Blocks { block_size, ..Blocks::default() }),
        }
    }

    /// Stores the next data block, of metadata, unless the earlier version has the same.
    pub(crate) fn store(&mut self, media: &mut Media, content: &[u8], fill: u64) -> Result<(), WriteError> {
        let role = self.role(0);
        self.store_by(media, content, |media| media.store(content, role, fill))
    }

    /// Like [`Self::store`], uncompressed.
    pub(crate) fn store_plain(
        &mut self,
        media: &mut Media,
        content: &[u8],
        fill: u64,
    ) -> Result<(), WriteError> {
        let role = self.role(0);
        self.store_by(media, content, |media| media.store_plain(content, role, fill))
    }

    fn store_by<'m>(
        &mut self,
        media: &mut Media<'m>,
        content: &[u8],
        store: impl FnOnce(&mut Media<'m>) -> Result<BlockPointer, WriteError>,
    ) -> Result<(), WriteError> {
        let digest = self.recorded.is_some().then(|| digest(content));
        let known = self.previous.as_ref().and_then(|previous| previous.get(0, self.counts[0]));
        let pointer = match known {
            Some(known) if digest.is_some() && known.digest == digest => known.pointer,
            _ => store(media)?,
        };
        self.push(media, pointer, digest)
    }

    /// Adds the pointer of the next data block.
    pub(crate) fn push(
        &mut self,
        media: &mut Media,
        pointer: BlockPointer,
        digest: Option<Digest>,
    ) -> Result<(), WriteError> {
        self.push_at(media, 0, pointer, digest)
    }

    /// Adds the next data block as the earlier version has it.
    pub(crate) fn push_unchanged(&mut self, media: &mut Media) -> Result<(), WriteError> {
        let known = self.previous.as_ref().and_then(|previous| previous.get(0, self.counts[0]));
        let known = *known.expect("a block is unchanged only where there was one");
        self.push_at(media, 0, known.pointer, known.digest)
    }

    /// Adds `count` data blocks that are holes.
    pub(crate) fn push_holes(&mut self, media: &mut Media, mut count: u64) -> Result<(), WriteError> {
        while count > 0 {
            let plain = self.previous.as_ref().map_or(u64::MAX, |known| known.holes_at(0, self.counts[0]));
            if plain == 0 {
                self.push_at(media, 0, BlockPointer::HOLE, None)?;
                count -= 1;
            } else {
                let run = plain.min(count);
                self.push_holes_at(media, 0, run)?;
                count -= run;
            }
        }
        Ok(())
    }

    /// Closes the tree; it has at least `min_levels` levels.
    pub(crate) fn finish(mut self, media: &mut Media, min_levels: u8) -> Result<Root, WriteError> {
        let mut level = 0;
        loop {
            let is_top = level + 1 == self.open.len() && self.open[level].len() <= 1;
            if is_top && level + 1 >= usize::from(min_levels) {
                let pointer = self.open[level].first().copied().unwrap_or(BlockPointer::HOLE);
                let space = self.space;
                let levels = (level + 1) as u8;
                let blocks = self.recorded.map(|blocks| Arc::new(Blocks { space, depth: levels, ..blocks }));
                return Ok(Root { pointer, levels, space, blocks });
            }
            if !self.open[level].is_empty() {
                self.close(media, level)?;
            }
            level += 1;
        }
    }

    fn role(&self, level: usize) -> Role {
        Role { object_type: self.object_type, level: level as u8 }
    }

    fn push_at(
        &mut self,
        media: &mut Media,
        level: usize,
        pointer: BlockPointer,
        digest: Option<Digest>,
    ) -> Result<(), WriteError> {
        // A full block is closed only when another pointer arrives: it may be the last one.
        if self.open[level].len() == POINTERS_PER_INDIRECT {
            self.close(media, level)?;
        }
        let index = self.counts[level];
        let pointer = match &self.previous {
            Some(previous) if pointer == BlockPointer::HOLE => {
                let lsize = if level == 0 { self.block_size } else { INDIRECT };
                previous.hole(level, index, lsize, self.role(level), media.rules.birth)
            }
            _ => pointer,
        };
        if pointer != BlockPointer::HOLE
            && let Some(recorded) = &mut self.recorded
        {
            recorded.levels.resize(self.open.len().max(recorded.levels.len()), Vec::new());
            recorded.levels[level].push(Recorded { index, pointer, digest });
        }
        self.space += Space::of(&pointer, media.deflation());
        self.open[level].push(pointer);
        self.counts[level] += 1;
        Ok(())
    }

    fn push_holes_at(&mut self, media: &mut Media, level: usize, mut count: u64) -> Result<(), WriteError> {
        while count > 0 {
            let room = WIDTH - self.open[level].len() as u64;
            if room == 0 {
                self.close(media, level)?;
            } else if room == WIDTH && count >= WIDTH * 2 {
                // Whole indirect blocks of holes are holes one level up; the last ones stay here, so that a level
                // never ends empty.
                let whole = count / WIDTH - 1;
                self.ensure_level(level + 1);
                self.push_plain_holes_above(media, level + 1, whole)?;
                self.counts[level] += whole * WIDTH;
                count -= whole * WIDTH;
            } else {
                let here = room.min(count);
                if self.previous.is_some() {
                    (0..here).try_for_each(|_| self.push_at(media, level, BlockPointer::HOLE, None))?;
                } else {
                    self.open[level].extend(std::iter::repeat_n(BlockPointer::HOLE, here as usize));
                    self.counts[level] += here;
                }
                count -= here;
            }
        }
        Ok(())
    }

    /// Holes of a level above data. An earlier version may have freed whole indirect blocks there, whose data blocks it
    /// does not list.
    fn push_plain_holes_above(
        &mut self,
        media: &mut Media,
        level: usize,
        mut count: u64,
    ) -> Result<(), WriteError> {
        while count > 0 {
            let plain =
                self.previous.as_ref().map_or(u64::MAX, |known| known.holes_at(level, self.counts[level]));
            let run = plain.min(count);
            if run == 0 {
                self.push_at(media, level, BlockPointer::HOLE, None)?;
                count -= 1;
            } else {
                self.push_holes_at(media, level, run)?;
                count -= run;
            }
        }
        Ok(())
    }

    /// Turns the open block of `level` into a pointer one level up.
    fn close(&mut self, media: &mut Media, level: usize) -> Result<(), WriteError> {
        self.ensure_level(level + 1);
        let pointers = std::mem::take(&mut self.open[level]);
        let index = self.counts[level + 1];
        if pointers.iter().all(BlockPointer::is_hole) {
            // An object that had fewer levels knows nothing of this one: the youngest of its freed blocks counts.
            let youngest = pointers.iter().map(BlockPointer::birth).max().unwrap_or(0);
            let is_known = self.previous.as_ref().is_some_and(|known| known.levels.len() > level + 1);
            let hole = match youngest {
                0 => BlockPointer::HOLE,
                _ if is_known => BlockPointer::HOLE,
                birth => BlockPointer::freed(INDIRECT, self.role(level + 1), birth),
            };
            return self.push_at(media, level + 1, hole, None);
        }
        if let Some(same) = self.same_as_before(level, index, &pointers) {
            return self.push_at(media, level + 1, same, None);
        }
        let mut block = vec![0; POINTERS_PER_INDIRECT * 128];
        for (slot, pointer) in block.chunks_exact_mut(128).zip(&pointers) {
            slot.copy_from_slice(&pointer.to_bytes());
        }
        let fill = pointers.iter().map(BlockPointer::fill).sum();
        let pointer = media.store(&block, self.role(level + 1), fill)?;
        self.push_at(media, level + 1, pointer, None)
    }

    /// The indirect block of the earlier version, if it holds just these pointers.
    fn same_as_before(&self, level: usize, index: u64, pointers: &[BlockPointer]) -> Option<BlockPointer> {
        let previous = self.previous.as_ref()?;
        let known = previous.get(level + 1, index).filter(|known| !known.pointer.is_hole())?;
        let first = index * WIDTH;
        let before =
            previous.range(level, first..first + WIDTH).iter().map(|known| (known.index, known.pointer));
        let now = pointers.iter().enumerate().filter(|(_, pointer)| **pointer != BlockPointer::HOLE);
        now.map(|(at, pointer)| (first + at as u64, *pointer)).eq(before).then_some(known.pointer)
    }

    fn ensure_level(&mut self, level: usize) {
        if self.open.len() <= level {
            self.open.push(Vec::new());
            self.counts.push(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Block, Form};
    use crate::device::WriteAt;
    use crate::format::blkptr::Extent;
    use crate::spec::Vdev;
    use crate::write::media::Rules;
    use crate::write::shape::Shape;

    fn with_media<T>(run: impl FnOnce(&mut Media) -> T) -> T {
        let file = tempfile::tempfile().unwrap();
        let outs: [&dyn WriteAt; 1] = [&file];
        let shapes = [Shape::of(&Vdev::disk(64 << 20, "/a"), 12)];
        run(&mut Media::new(vec![&outs], shapes.to_vec(), 12, Rules::plain(2)).unwrap())
    }

    fn data_pointer(media: &mut Media) -> BlockPointer {
        let extent =
            Extent { lsize: 512, psize: 512, asize: 4096, compression: 2, algorithm: 7, checksum: [1; 4] };
        let block = Block { lsize: 512, form: Form::Stored(extent) };
        let role = Role { object_type: 19, level: 0 };
        media.place(&block, role, 1).0
    }

    #[test]
    fn levels_and_fill_by_block_count() {
        for (count, levels) in [(1u64, 1u8), (2, 2), (1024, 2), (1025, 3), (3000, 3)] {
            with_media(|media| {
                let mut tree = IndirectTree::new(media, 19, 512, None);
                for _ in 0..count {
                    let pointer = data_pointer(media);
                    tree.push(media, pointer, None).unwrap();
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
                    let mut tree = IndirectTree::new(media, 19, 512, None);
                    for _ in 0..before {
                        let pointer = data_pointer(media);
                        tree.push(media, pointer, None).unwrap();
                    }
                    if one_by_one {
                        (0..holes).for_each(|_| tree.push(media, BlockPointer::HOLE, None).unwrap());
                    } else {
                        tree.push_holes(media, holes).unwrap();
                    }
                    for _ in 0..after {
                        let pointer = data_pointer(media);
                        tree.push(media, pointer, None).unwrap();
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
            let mut tree = IndirectTree::new(media, 10, 512, None);
            let pointer = data_pointer(media);
            tree.push(media, pointer, None).unwrap();
            assert_eq!(tree.finish(media, 6).unwrap().levels, 6);
        });
    }
}

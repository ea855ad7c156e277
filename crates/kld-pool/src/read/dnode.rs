//! Dnodes: what an object is, and the tree of blocks below it.

use super::block::Blocks;
use super::bytes::{u16_at, u64_at};
use super::error::ReadError;
use super::pointer::{BlockPointer, POINTER};

/// Bytes of one slot; large dnodes take several.
pub(crate) const SLOT: usize = 512;
const POINTERS_AT: usize = 64;
const SECTOR: u64 = 512;
/// Of the largest object with the smallest blocks and indirect blocks (`DN_MAX_LEVELS`).
const MAX_LEVELS: u8 = 12;
const INDIRECT_SHIFTS: std::ops::RangeInclusive<u8> = 10..=17;
/// log2 of the bytes of a pointer.
const POINTER_SHIFT: u8 = 7;
const FLAG_USED_BYTES: u8 = 1;
const FLAG_SPILL: u8 = 4;

/// An object's description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dnode {
    pub(crate) object_type: u8,
    pub(crate) bonus_type: u8,
    pub(crate) levels: u8,
    indirect_shift: u8,
    /// Bytes of a data block.
    pub(crate) block_size: u64,
    pub(crate) last_block: u64,
    /// Bytes that all its blocks take on the vdevs.
    pub(crate) used: u64,
    pub(crate) slots: usize,
    pub(crate) pointers: Vec<[u8; POINTER]>,
    pub(crate) bonus: Vec<u8>,
    pub(crate) spill: Option<[u8; POINTER]>,
}

impl Dnode {
    /// Decodes the dnode at the start of `bytes`, which may be longer; none when the slot is free.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Option<Dnode>, &'static str> {
        const SHORT: &str = "it is cut off";
        let head: &[u8; POINTERS_AT] = bytes.first_chunk().ok_or(SHORT)?;
        if head[0] == 0 {
            return Ok(None);
        }
        let slots = usize::from(head[12]) + 1;
        let bytes = bytes.get(..slots * SLOT).ok_or("it crosses the end of its block")?;
        let (indirect_shift, levels, count, flags) = (head[1], head[2], usize::from(head[3]), head[7]);
        if levels == 0 || levels > MAX_LEVELS {
            return Err("its number of levels is impossible");
        }
        if !(1..=3).contains(&count) {
            return Err("its number of block pointers is impossible");
        }
        if !INDIRECT_SHIFTS.contains(&indirect_shift) {
            return Err("the size of its indirect blocks is impossible");
        }
        let block_size = u64::from(u16_at(head, 8).ok_or(SHORT)?) * SECTOR;
        if block_size == 0 {
            return Err("the size of its blocks is impossible");
        }
        let used = u64_at(head, 24).ok_or(SHORT)?;
        let pointers = (0..count)
            .map(|i| super::bytes::array(bytes, POINTERS_AT + i * POINTER))
            .collect::<Option<Vec<_>>>()
            .ok_or(SHORT)?;
        let bonus_at = POINTERS_AT + count * POINTER;
        let bonus_len = usize::from(u16_at(head, 10).ok_or(SHORT)?);
        let has_spill = flags & FLAG_SPILL != 0;
        let bonus_end = bytes.len() - if has_spill { POINTER } else { 0 };
        let bonus = bytes
            .get(bonus_at..bonus_at + bonus_len)
            .filter(|_| bonus_at + bonus_len <= bonus_end)
            .ok_or("its bonus is longer than its slots")?;
        Ok(Some(Dnode {
            object_type: head[0],
            bonus_type: head[4],
            levels,
            indirect_shift,
            block_size,
            last_block: u64_at(head, 16).ok_or(SHORT)?,
            used: if flags & FLAG_USED_BYTES != 0 { used } else { used.saturating_mul(SECTOR) },
            slots,
            pointers,
            bonus: bonus.to_vec(),
            spill: if has_spill { super::bytes::array(bytes, bytes.len() - POINTER) } else { None },
        }))
    }

    /// log2 of the pointers in an indirect block.
    fn fanout_shift(&self) -> u32 {
        u32::from(self.indirect_shift - POINTER_SHIFT)
    }

    /// Pointers in an indirect block.
    pub(crate) fn fanout(&self) -> u64 {
        1 << self.fanout_shift()
    }

    /// What decides which block a pointer leads to: objects of equal shape can be compared pointer by pointer.
    pub(crate) fn shape(&self) -> (u8, u8, u64, usize) {
        (self.levels, self.indirect_shift, self.block_size, self.pointers.len())
    }

    /// Data blocks below one pointer at `level`; none when that exceeds 64 bits.
    pub(crate) fn blocks_below(&self, level: u8) -> Option<u64> {
        1u64.checked_shl(self.span_shift(level))
    }

    /// Data blocks below one pointer at `level` (a pointer at level 0 is a data block), as a shift.
    fn span_shift(&self, level: u8) -> u32 {
        self.fanout_shift() * u32::from(level)
    }

    /// The pointer of data block `number`; none when it or everything around it is a hole.
    pub(crate) fn pointer(&self, blocks: &Blocks, number: u64) -> Result<Option<BlockPointer>, ReadError> {
        let top = self.levels - 1;
        let index = number.checked_shr(self.span_shift(top)).unwrap_or(0);
        let root = usize::try_from(index).ok().and_then(|index| self.pointers.get(index));
        let Some(root) = root else { return Ok(None) };
        let mut pointer = self.checked(root, top)?;
        for level in (0..top).rev() {
            if pointer.is_hole() {
                return Ok(None);
            }
            let block = blocks.read_cached(&pointer)?;
            let mask = (1u64 << self.fanout_shift()) - 1;
            let index = number.checked_shr(self.span_shift(level)).unwrap_or(0) & mask;
            pointer = self.child(&block, index, level)?;
        }
        Ok(Some(pointer).filter(|pointer| !pointer.is_hole()))
    }

    /// Pointer `index` of an indirect block whose children are at `level`.
    fn child(&self, block: &[u8], index: u64, level: u8) -> Result<BlockPointer, ReadError> {
        let at = (index as usize) * POINTER;
        let bytes = block
            .get(at..at + POINTER)
            .ok_or(ReadError::damaged("an indirect block", "it is shorter than its object says"))?;
        self.checked(bytes, level)
    }

    /// A pointer at `level`, whose size is what the dnode says.
    pub(crate) fn checked(&self, bytes: &[u8], level: u8) -> Result<BlockPointer, ReadError> {
        let pointer =
            BlockPointer::decode(bytes).map_err(|bad| ReadError::damaged("an object", bad.text()))?;
        if pointer.is_hole() {
            return Ok(pointer);
        }
        let size = if level == 0 { self.block_size } else { 1 << self.indirect_shift };
        if pointer.level != level {
            return Err(ReadError::damaged("a block pointer", "it is of another level than its place"));
        }
        if pointer.lsize as u64 != size {
            return Err(ReadError::damaged(
                "a block pointer",
                "its block has another size than its object says",
            ));
        }
        Ok(pointer)
    }

    /// Data block `number`, decoded; none for a hole.
    pub(crate) fn read(
        &self,
        blocks: &Blocks,
        number: u64,
    ) -> Result<Option<std::sync::Arc<[u8]>>, ReadError> {
        match self.pointer(blocks, number)? {
            Some(pointer) => Ok(Some(blocks.read_cached(&pointer)?)),
            None => Ok(None),
        }
    }

    /// The number of the first data block at or after `from` that is not a hole.
    pub(crate) fn next_data(&self, blocks: &Blocks, from: u64) -> Result<Option<u64>, ReadError> {
        let top = self.levels - 1;
        let shift = self.span_shift(top);
        let first = from.checked_shr(shift).unwrap_or(0);
        for (i, bytes) in self.pointers.iter().enumerate() {
            let i = i as u64;
            if i < first {
                continue;
            }
            let pointer = self.checked(bytes, top)?;
            let base = i.checked_shl(shift).unwrap_or(0);
            if let Some(found) = self.next_below(blocks, pointer, top, base, from)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The first data block at or after `from` below a pointer at `level` that covers blocks from `base`.
    fn next_below(
        &self,
        blocks: &Blocks,
        pointer: BlockPointer,
        level: u8,
        base: u64,
        from: u64,
    ) -> Result<Option<u64>, ReadError> {
        if pointer.is_hole() {
            return Ok(None);
        }
        let Some(below) = level.checked_sub(1) else {
            return Ok((base >= from).then_some(base));
        };
        let block = blocks.read_cached(&pointer)?;
        let shift = self.span_shift(below);
        let count = 1u64 << self.fanout_shift();
        let start = from.saturating_sub(base).checked_shr(shift).unwrap_or(0);
        for index in start..count {
            // Blocks whose numbers exceed 64 bits cannot exist.
            let Some(number) =
                1u64.checked_shl(shift).and_then(|span| index.checked_mul(span)?.checked_add(base))
            else {
                return Ok(None);
            };
            let child = self.child(&block, index, below)?;
            if let Some(found) = self.next_below(blocks, child, below, number, from)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// Fills `buf` from byte `at` of the object's data; what lies in holes or behind the last block reads as zeros.
    pub(crate) fn read_bytes(&self, blocks: &Blocks, at: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        let mut at = at;
        let mut rest = buf;
        while !rest.is_empty() {
            let (number, within) = (at / self.block_size, (at % self.block_size) as usize);
            let len = rest.len().min(self.block_size as usize - within);
            let (part, behind) = rest.split_at_mut(len);
            match self.pointer(blocks, number)? {
                // A whole block is not asked for again soon.
                Some(pointer) if len as u64 == self.block_size => {
                    part.copy_from_slice(&blocks.read(&pointer)?);
                }
                Some(pointer) => {
                    let block = blocks.read_cached(&pointer)?;
                    part.copy_from_slice(&block[within..within + len]);
                }
                None => part.fill(0),
            }
            rest = behind;
            at = at
                .checked_add(len as u64)
                .ok_or(ReadError::damaged("an object", "it is longer than 64 bits can say"))?;
        }
        Ok(())
    }
}

//! Tables of many entries: a table of pointers to leaves, which hold chains of 24-byte chunks.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use super::super::bytes::{u16_at, u32_at, u64_at};
use super::super::error::ReadError;
use super::{Entry, HASH_BITS, Zap, damaged, hash, need};

const HEADER_MAGIC: u64 = 0x2_f52a_b2ab;
const LEAF_MAGIC: u32 = 0x02ab_1eaf;
const LEAF_TYPE: u64 = 1 << 63;
const LEAF_HEADER: usize = 48;
const CHUNK: usize = 24;
const CHUNK_BYTES: usize = 21;
const CHUNK_ARRAY: u8 = 251;
const CHUNK_ENTRY: u8 = 252;
const END: u16 = 0xffff;
/// Hashes that keep 48 bits instead of 28.
const FLAG_HASH64: u64 = 1;
/// Keys are numbers.
const FLAG_NUMBER_KEYS: u64 = 2;
/// Names are hashed as their capital or small letters (`zap_normflags`, of `U8_TEXTPREP_*`): tables of bookmarks, and
/// directories of file systems where case does not count.
const TO_UPPER: u64 = 2;
const TO_LOWER: u64 = 4;
/// Most bits of a hash that select a leaf.
const MAX_PREFIX: u64 = 48;

/// The head of the table.
#[derive(Debug)]
pub(super) struct Header {
    /// First block of the pointer table; none when it lies in the second half of the first block.
    table: Option<(u64, u64)>,
    /// log2 of the number of pointers.
    shift: u32,
    blocks: u64,
    leaves: u64,
    entries: u64,
    salt: u64,
    normalization: u64,
    flags: u64,
}

impl Header {
    pub(super) fn decode(block: &[u8]) -> Result<Header, &'static str> {
        if need(block, 8)? != HEADER_MAGIC {
            return Err("its magic number is wrong");
        }
        let shift = need(block, 32)?;
        let (first, count) = (need(block, 16)?, need(block, 24)?);
        if shift > MAX_PREFIX {
            return Err("its table of pointers is impossibly large");
        }
        if count == 0 && block.len() / 16 != 1usize.checked_shl(shift as u32).unwrap_or(0) {
            return Err("its table of pointers does not fit its block");
        }
        Ok(Header {
            table: (count > 0).then_some((first, count)),
            shift: shift as u32,
            blocks: need(block, 56)?,
            leaves: need(block, 64)?,
            entries: need(block, 72)?,
            salt: need(block, 80)?,
            normalization: need(block, 88)?,
            flags: need(block, 96)?,
        })
    }

    /// The hash of a name; none where the tables of Unicode would be needed for it.
    fn hash(&self, name: &[u8]) -> Option<u64> {
        let hashed = match self.normalization {
            0 => Cow::Borrowed(name),
            _ if !name.is_ascii() => return None,
            flags if flags & TO_UPPER != 0 => Cow::Owned(name.to_ascii_uppercase()),
            flags if flags & TO_LOWER != 0 => Cow::Owned(name.to_ascii_lowercase()),
            _ => Cow::Borrowed(name),
        };
        let bits = if self.flags & FLAG_HASH64 != 0 { 48 } else { HASH_BITS };
        Some(hash(self.salt, &hashed, bits))
    }
}

/// A leaf with the limits its size gives.
pub(super) struct Leaf {
    block: Arc<[u8]>,
    prefix: u64,
    prefix_len: u32,
    /// log2 of the number of hash chains.
    hash_shift: u32,
    chunks_at: usize,
    chunks: usize,
    number_keys: bool,
}

impl Leaf {
    fn decode(block: Arc<[u8]>, number_keys: bool) -> Result<Leaf, &'static str> {
        if need(&block, 0)? != LEAF_TYPE || u32_at(&block, 24) != Some(LEAF_MAGIC) {
            return Err("a leaf does not start like one");
        }
        // One hash chain for each 32 bytes of a leaf, whose size is a power of two.
        let chains = block.len() / 32;
        if !chains.is_power_of_two() {
            return Err("its leaves have an impossible size");
        }
        let prefix_len = u32::from(u16_at(&block, 32).unwrap_or(0));
        if u64::from(prefix_len) > MAX_PREFIX {
            return Err("the prefix of a leaf is impossibly long");
        }
        let chunks_at = LEAF_HEADER + chains * 2;
        Ok(Leaf {
            prefix: need(&block, 16)?,
            prefix_len,
            hash_shift: chains.trailing_zeros(),
            chunks_at,
            chunks: (block.len().saturating_sub(chunks_at) / CHUNK).min(usize::from(END)),
            block,
            number_keys,
        })
    }

    fn chunk(&self, index: u16) -> Option<&[u8]> {
        let index = usize::from(index);
        let at = self.chunks_at + index * CHUNK;
        (index < self.chunks).then(|| self.block.get(at..at + CHUNK)).flatten()
    }

    /// The bytes of a chain of chunks; none when the chain is broken or too short.
    fn array(&self, first: u16, len: usize) -> Option<Vec<u8>> {
        if len > self.block.len() {
            return None;
        }
        let mut bytes = Vec::with_capacity(len);
        let mut next = first;
        while bytes.len() < len {
            let chunk = self.chunk(next).filter(|chunk| chunk[0] == CHUNK_ARRAY)?;
            bytes.extend(&chunk[1..1 + CHUNK_BYTES.min(len - bytes.len())]);
            next = u16_at(chunk, 22)?;
        }
        Some(bytes)
    }

    /// The entry in an entry chunk, and its hash.
    fn entry(&self, chunk: &[u8]) -> Option<(Entry, u64)> {
        let integer_size = chunk[1];
        if !matches!(integer_size, 1 | 2 | 4 | 8) {
            return None;
        }
        let field = |at| u16_at(chunk, at);
        let key_size = if self.number_keys { 8 } else { 1 };
        let mut name = self.array(field(4)?, usize::from(field(6)?) * key_size)?;
        if !self.number_keys && name.pop() != Some(0) {
            return None;
        }
        let value = self.array(field(8)?, usize::from(field(10)?) * usize::from(integer_size))?;
        Some((Entry { name, integer_size, value }, u64_at(chunk, 16)?))
    }

    /// All entries in the order of their chunks.
    pub(super) fn for_each(&self, each: &mut dyn FnMut(Entry)) -> Result<(), &'static str> {
        self.with_hashes(&mut |entry, _, _| each(entry))
    }

    /// Entries with their hashes and differentiators.
    fn with_hashes(&self, each: &mut dyn FnMut(Entry, u64, u32)) -> Result<(), &'static str> {
        let mut left = self.block.len();
        for index in 0..self.chunks {
            let chunk = self.chunk(index as u16).unwrap_or_default();
            if chunk.first() == Some(&CHUNK_ENTRY) {
                let (entry, hash) = self.entry(chunk).ok_or("an entry is broken")?;
                // Chunks that several entries share would make much of little.
                let taken = left.checked_sub(entry.name.len() + entry.value.len());
                left = taken.ok_or("its entries are longer than their leaf")?;
                each(entry, hash, u32_at(chunk, 12).unwrap_or(0));
            }
        }
        Ok(())
    }

    /// The entry called `name`, through the chain of its hash.
    fn find(&self, name: &[u8], hash: u64) -> Result<Option<Entry>, &'static str> {
        let chain = hash.checked_shl(self.prefix_len).unwrap_or(0) >> (64 - self.hash_shift);
        let mut next = u16_at(&self.block, LEAF_HEADER + chain as usize * 2).ok_or("a leaf is cut off")?;
        for _ in 0..=self.chunks {
            if next == END {
                return Ok(None);
            }
            let chunk =
                self.chunk(next).filter(|chunk| chunk[0] == CHUNK_ENTRY).ok_or("a chain is broken")?;
            if u64_at(chunk, 16) == Some(hash) {
                let (entry, _) = self.entry(chunk).ok_or("an entry is broken")?;
                if entry.name == name {
                    return Ok(Some(entry));
                }
            }
            next = u16_at(chunk, 2).unwrap_or(END);
        }
        Err("a chain runs in a circle")
    }
}

impl Zap<'_, '_> {
    fn leaf(&self, header: &Header, number: u64) -> Result<Leaf, ReadError> {
        let block =
            self.dnode.read(self.blocks, number)?.ok_or_else(|| damaged(self.object, "a leaf is a hole"))?;
        Leaf::decode(block, header.flags & FLAG_NUMBER_KEYS != 0)
            .map_err(|problem| damaged(self.object, problem))
    }

    /// Block `number` of the pointers to leaves.
    fn pointers(&self, header: &Header, number: u64) -> Result<Vec<u64>, ReadError> {
        let hole = || damaged(self.object, "its table of pointers has a hole");
        let read = |number| self.dnode.read(self.blocks, number)?.ok_or_else(hole);
        let block = match header.table {
            None => read(0)?,
            Some((first, _)) => read(first.checked_add(number).ok_or_else(hole)?)?,
        };
        let from = if header.table.is_none() { block.len() / 2 } else { 0 };
        Ok(block[from..].chunks_exact(8).map(|bytes| u64_at(bytes, 0).unwrap_or(0)).collect())
    }

    pub(super) fn find_in_leaf(&self, header: &Header, name: &[u8]) -> Result<Option<Entry>, ReadError> {
        let Some(hash) = header.hash(name) else {
            let mut found = None;
            self.each_leaf(header, &mut |leaf| {
                leaf.for_each(&mut |entry| {
                    if entry.name == name {
                        found = Some(entry);
                    }
                })
            })?;
            return Ok(found);
        };
        let index = hash.checked_shr(64 - header.shift).unwrap_or(0);
        let per_block = self.dnode.block_size / 8;
        let (block, within) =
            if header.table.is_some() { (index / per_block, index % per_block) } else { (0, index) };
        let pointers = self.pointers(header, block)?;
        let leaf = pointers
            .get(within as usize)
            .ok_or_else(|| damaged(self.object, "its table of pointers is too short"))?;
        self.leaf(header, *leaf)?.find(name, hash).map_err(|problem| damaged(self.object, problem))
    }

    /// Calls `each` for every leaf once, in the order of hashes.
    pub(super) fn each_leaf(
        &self,
        header: &Header,
        each: &mut dyn FnMut(&Leaf) -> Result<(), &'static str>,
    ) -> Result<(), ReadError> {
        let count = header.table.map_or(1, |(_, count)| count);
        if count.checked_mul(self.dnode.block_size).is_none_or(|bytes| bytes > self.blocks.device_bytes()) {
            return Err(damaged(self.object, "its table of pointers is larger than the pool"));
        }
        let mut seen = BTreeSet::new();
        for block in 0..count {
            for number in self.pointers(header, block)? {
                if seen.insert(number) {
                    let leaf = self.leaf(header, number)?;
                    each(&leaf).map_err(|problem| damaged(self.object, problem))?;
                }
            }
        }
        Ok(())
    }

    pub(super) fn fat_problems(&self, header: &Header) -> Result<Vec<String>, ReadError> {
        let mut problems = Vec::new();
        let (mut leaves, mut entries) = (0, 0);
        let number_keys = header.flags & FLAG_NUMBER_KEYS != 0;
        self.each_leaf(header, &mut |leaf| {
            leaves += 1;
            let mut in_leaf = 0;
            let mut names = BTreeSet::new();
            let mut places = BTreeSet::new();
            leaf.with_hashes(&mut |entry, found, differentiator| {
                in_leaf += 1;
                if !number_keys && header.hash(&entry.name).is_some_and(|hash| found != hash) {
                    problems.push(format!("the hash of `{}` is wrong", entry.name.escape_ascii()));
                }
                if found.checked_shr(64 - leaf.prefix_len).unwrap_or(0) != leaf.prefix {
                    problems.push(format!("`{}` is in the wrong leaf", entry.name.escape_ascii()));
                }
                if !number_keys && !matches!(leaf.find(&entry.name, found), Ok(Some(_))) {
                    problems.push(format!("`{}` is not found by its hash", entry.name.escape_ascii()));
                }
                if !places.insert((found, differentiator)) || !names.insert(entry.name) {
                    problems.push("two entries have the same name, or hash and differentiator".to_owned());
                }
            })?;
            entries += in_leaf;
            if u16_at(&leaf.block, 30).map(u64::from) != Some(in_leaf) {
                problems.push("a leaf miscounts its entries".to_owned());
            }
            Ok(())
        })?;
        if leaves != header.leaves {
            problems.push(format!("it says {} leaves and has {leaves}", header.leaves));
        }
        if entries != header.entries {
            problems.push(format!("it says {} entries and has {entries}", header.entries));
        }
        if header.blocks > self.dnode.last_block.saturating_add(1) {
            problems.push("it says it has more blocks than its object".to_owned());
        }
        Ok(problems)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A leaf whose entries all have the one value that is in it.
    fn leaf(entries: usize) -> Leaf {
        const BYTES: usize = 1024;
        let mut block = vec![0; BYTES];
        block[..8].copy_from_slice(&LEAF_TYPE.to_le_bytes());
        block[24..28].copy_from_slice(&LEAF_MAGIC.to_le_bytes());
        let chunks_at = LEAF_HEADER + BYTES / 32 * 2;
        let mut put = |index: usize, bytes: &[u8]| {
            block[chunks_at + index * CHUNK..][..bytes.len()].copy_from_slice(bytes);
        };
        // "a" and its NUL; 21 bytes that lead to themselves.
        put(0, &[CHUNK_ARRAY, b'a', 0]);
        put(1, &[&[CHUNK_ARRAY][..], &[7; CHUNK_BYTES], &[1, 0]].concat());
        for i in 0..entries {
            // Eight-byte integers, no next entry, name in chunk 0 (2 bytes), value in chunk 1 (60 integers).
            put(2 + i, &[CHUNK_ENTRY, 8, 255, 255, 0, 0, 2, 0, 1, 0, 60, 0]);
        }
        Leaf::decode(block.into(), false).unwrap()
    }

    #[test]
    fn entries_cannot_share_more_than_a_leaf_holds() {
        let mut found = Vec::new();
        leaf(2).for_each(&mut |entry| found.push((entry.name, entry.value.len()))).unwrap();
        assert_eq!(found, [(b"a".to_vec(), 480), (b"a".to_vec(), 480)]);
        assert_eq!(leaf(3).for_each(&mut |_| ()), Err("its entries are longer than their leaf"));
    }

    #[test]
    fn names_are_hashed_as_the_table_normalizes_them() {
        let header = |normalization| Header {
            table: None,
            shift: 0,
            blocks: 0,
            leaves: 0,
            entries: 0,
            salt: 77,
            normalization,
            flags: 0,
        };
        let plain = |name: &[u8]| header(0).hash(name);
        assert_eq!(header(TO_UPPER).hash(b"Mark-1"), plain(b"MARK-1"));
        assert_eq!(header(TO_LOWER).hash(b"Mark-1"), plain(b"mark-1"));
        assert_ne!(header(TO_UPPER).hash(b"Mark-1"), plain(b"Mark-1"));
        assert_eq!(header(TO_UPPER).hash("märk".as_bytes()), None);
        assert!(plain("märk".as_bytes()).is_some());
    }
}

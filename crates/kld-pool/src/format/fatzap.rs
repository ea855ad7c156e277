//! Fat ZAPs: an extendible hash table of 16 KiB leaves below a pointer table.
//!
//! Block 0 is the header; a table of up to 1024 pointers lives in its second half, a larger one in the blocks that
//! follow; then come the leaves. A leaf holds 24-byte chunks: entries, and arrays for their names and values.

use super::zap::{Entry, HASH_BITS, ZapBlocks};
use super::{put_u16, put_u32, put_u64};

const BLOCK: usize = 16 << 10;
const HEADER_BLOCK_TYPE: u64 = (1 << 63) | 1;
const HEADER_MAGIC: u64 = 0x2_f52a_b2ab;
const LEAF_BLOCK_TYPE: u64 = 1 << 63;
const LEAF_MAGIC: u32 = 0x2ab_1eaf;
/// The pointer table embedded in the header has 2^10 entries.
const EMBEDDED_SHIFT: u32 = 10;
/// A pointer table larger than this (64 MiB) means that the names do not spread under this salt.
const MAX_SHIFT: u32 = 23;

/// Buckets of a leaf, and where its parts start.
const BUCKETS: usize = 512;
const BUCKET_BITS: u32 = 9;
const BUCKETS_AT: usize = 48;
const CHUNKS_AT: usize = BUCKETS_AT + BUCKETS * 2;
const CHUNK: usize = 24;
const CHUNKS: usize = (BLOCK - CHUNKS_AT) / CHUNK;
const ARRAY_BYTES: usize = 21;
const END: u16 = 0xffff;

const CHUNK_ENTRY: u8 = 252;
const CHUNK_ARRAY: u8 = 251;
const CHUNK_FREE: u8 = 253;

/// An entry with its hash and the number that tells it from others with the same hash.
struct Hashed<'a> {
    hash: u64,
    differentiator: u32,
    entry: &'a Entry,
}

/// A range of the sorted entries that share the first `bits` bits of their hash.
struct Leaf<'a> {
    prefix: u64,
    bits: u32,
    entries: &'a [Hashed<'a>],
}

/// The table as blocks; none when too many names share a hash prefix (then another salt will do).
pub(crate) fn build(entries: &[Entry], hashes: &[u64], salt: u64) -> Option<ZapBlocks> {
    let mut sorted: Vec<Hashed> = entries
        .iter()
        .zip(hashes)
        .map(|(entry, hash)| Hashed { hash: *hash, differentiator: 0, entry })
        .collect();
    // Stable: entries with equal hashes keep the order of insertion.
    sorted.sort_by_key(|hashed| hashed.hash);
    for i in 1..sorted.len() {
        if sorted[i].hash == sorted[i - 1].hash {
            sorted[i].differentiator = sorted[i - 1].differentiator + 1;
        }
    }
    let leaves = split(&sorted)?;
    let shift = leaves.iter().map(|leaf| leaf.bits).max().unwrap_or(0).max(EMBEDDED_SHIFT);
    let table_blocks = if shift > EMBEDDED_SHIFT { (8 << shift) / BLOCK } else { 0 };

    let first_leaf = 1 + table_blocks;
    let mut table = Vec::with_capacity(8 << shift);
    for (i, leaf) in leaves.iter().enumerate() {
        let pointer = (first_leaf + i) as u64;
        (0..1u64 << (shift - leaf.bits)).for_each(|_| table.extend(pointer.to_le_bytes()));
    }
    let mut header = vec![0; BLOCK];
    let fields = [
        HEADER_BLOCK_TYPE,
        HEADER_MAGIC,
        u64::from(table_blocks > 0),
        table_blocks as u64,
        u64::from(shift),
        0,
        0,
        (first_leaf + leaves.len()) as u64,
        leaves.len() as u64,
        entries.len() as u64,
        salt,
    ];
    for (i, field) in fields.into_iter().enumerate() {
        put_u64(&mut header, i * 8, field);
    }
    let mut blocks = vec![header];
    if table_blocks == 0 {
        blocks[0][BLOCK / 2..].copy_from_slice(&table);
    } else {
        blocks.extend(table.chunks(BLOCK).map(<[u8]>::to_vec));
    }
    blocks.extend(leaves.iter().map(Leaf::to_block));
    Some(ZapBlocks { block_size: BLOCK as u32, blocks })
}

/// Divides the entries into leaves, in hash order, splitting by one more bit until each fits.
fn split<'a>(sorted: &'a [Hashed<'a>]) -> Option<Vec<Leaf<'a>>> {
    let mut leaves = Vec::new();
    let mut open = vec![Leaf { prefix: 0, bits: 0, entries: sorted }];
    while let Some(leaf) = open.pop() {
        if leaf.entries.iter().map(|hashed| chunks_of(hashed.entry)).sum::<usize>() <= CHUNKS {
            leaves.push(leaf);
            continue;
        }
        if leaf.bits >= MAX_SHIFT.min(HASH_BITS) {
            return None;
        }
        let bit = 63 - leaf.bits;
        let middle = leaf.entries.partition_point(|hashed| hashed.hash >> bit & 1 == 0);
        let (low, high) = leaf.entries.split_at(middle);
        open.push(Leaf { prefix: leaf.prefix << 1 | 1, bits: leaf.bits + 1, entries: high });
        open.push(Leaf { prefix: leaf.prefix << 1, bits: leaf.bits + 1, entries: low });
    }
    Some(leaves)
}

/// Chunks that an entry takes: itself, its name with the NUL, its value.
fn chunks_of(entry: &Entry) -> usize {
    1 + (entry.name.len() + 1).div_ceil(ARRAY_BYTES) + entry.value.len().div_ceil(ARRAY_BYTES)
}

impl Leaf<'_> {
    fn to_block(&self) -> Vec<u8> {
        let mut block = vec![0; BLOCK];
        block[BUCKETS_AT..CHUNKS_AT].fill(0xff);
        let mut used = 0;
        let mut last_in_bucket = [END; BUCKETS];
        for hashed in self.entries {
            let entry = hashed.entry;
            let chunk = used as u16;
            used += 1;
            let mut name = entry.name.clone();
            name.push(0);
            let name_chunk = put_array(&mut block, &mut used, &name);
            let value_chunk = put_array(&mut block, &mut used, &entry.value);
            let at = chunk_at(chunk);
            block[at] = CHUNK_ENTRY;
            block[at + 1] = entry.integer_size;
            put_u16(&mut block, at + 2, END);
            put_u16(&mut block, at + 4, name_chunk);
            put_u16(&mut block, at + 6, name.len() as u16);
            put_u16(&mut block, at + 8, value_chunk);
            put_u16(&mut block, at + 10, (entry.value.len() / usize::from(entry.integer_size)) as u16);
            put_u32(&mut block, at + 12, hashed.differentiator);
            put_u64(&mut block, at + 16, hashed.hash);
            let bucket = (hashed.hash >> (64 - BUCKET_BITS - self.bits)) as usize % BUCKETS;
            match std::mem::replace(&mut last_in_bucket[bucket], chunk) {
                END => put_u16(&mut block, BUCKETS_AT + bucket * 2, chunk),
                earlier => put_u16(&mut block, chunk_at(earlier) + 2, chunk),
            }
        }
        for free in used..CHUNKS {
            let at = chunk_at(free as u16);
            block[at] = CHUNK_FREE;
            put_u16(&mut block, at + 22, if free + 1 == CHUNKS { END } else { free as u16 + 1 });
        }
        const ENTRIES_SORTED: u8 = 1;
        put_u64(&mut block, 0, LEAF_BLOCK_TYPE);
        put_u64(&mut block, 16, self.prefix);
        put_u32(&mut block, 24, LEAF_MAGIC);
        put_u16(&mut block, 28, (CHUNKS - used) as u16);
        put_u16(&mut block, 30, self.entries.len() as u16);
        put_u16(&mut block, 32, self.bits as u16);
        put_u16(&mut block, 34, if used < CHUNKS { used as u16 } else { END });
        block[36] = ENTRIES_SORTED;
        block
    }
}

fn chunk_at(chunk: u16) -> usize {
    CHUNKS_AT + usize::from(chunk) * CHUNK
}

/// Writes `bytes` into the next free chunks, chained; gives the first one.
fn put_array(block: &mut [u8], used: &mut usize, bytes: &[u8]) -> u16 {
    let first = *used as u16;
    let mut pieces = bytes.chunks(ARRAY_BYTES).peekable();
    while let Some(piece) = pieces.next() {
        let at = chunk_at(*used as u16);
        *used += 1;
        block[at] = CHUNK_ARRAY;
        block[at + 1..at + 1 + piece.len()].copy_from_slice(piece);
        put_u16(block, at + 22, if pieces.peek().is_some() { *used as u16 } else { END });
    }
    first
}

#[cfg(test)]
mod tests {
    use super::super::zap::{Zap, hash};
    use super::*;

    fn get16(b: &[u8], at: usize) -> usize {
        usize::from(u16::from_le_bytes([b[at], b[at + 1]]))
    }
    fn get64(b: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(b[at..at + 8].try_into().unwrap())
    }

    /// Looks a name up the way a reader does: pointer table, bucket, chain, name compare.
    fn lookup(blocks: &[Vec<u8>], name: &[u8]) -> Option<u64> {
        let header = &blocks[0];
        let (table, numblks, shift, salt) =
            (get64(header, 16), get64(header, 24), get64(header, 32), get64(header, 80));
        let wanted = hash(salt, name);
        let index = (wanted >> (64 - shift)) as usize;
        let leaf = if numblks == 0 {
            get64(header, BLOCK / 2 + index * 8)
        } else {
            get64(&blocks[table as usize + index * 8 / BLOCK], index * 8 % BLOCK)
        };
        let leaf = &blocks[leaf as usize];
        let bits = get16(leaf, 32) as u32;
        let mut chunk = get16(leaf, BUCKETS_AT + (wanted >> (64 - 9 - bits)) as usize % BUCKETS * 2);
        let array = |mut chunk: usize, len: usize| {
            let mut bytes = Vec::new();
            while chunk != 0xffff {
                let at = CHUNKS_AT + chunk * CHUNK;
                bytes.extend(&leaf[at + 1..at + 22]);
                chunk = get16(leaf, at + 22);
            }
            bytes.truncate(len);
            bytes
        };
        while chunk != 0xffff {
            let at = CHUNKS_AT + chunk * CHUNK;
            let found = array(get16(leaf, at + 4), get16(leaf, at + 6));
            if get64(leaf, at + 16) == wanted && found[..found.len() - 1] == *name {
                return Some(u64::from_be_bytes(array(get16(leaf, at + 8), 8).try_into().unwrap()));
            }
            chunk = get16(leaf, at + 2);
        }
        None
    }

    #[test]
    fn every_name_is_found() {
        for (count, width) in [(2048, 4), (5000, 255), (60_000, 20)] {
            let mut zap = Zap::new(0x1234_5678_9abc_def1);
            for i in 0..count {
                zap.add_u64(format!("{i:0width$}"), i);
            }
            let built = zap.build().unwrap();
            assert_eq!(built.block_size, 16384);
            for i in (0..count).step_by(37) {
                assert_eq!(lookup(&built.blocks, format!("{i:0width$}").as_bytes()), Some(i), "{count} {i}");
            }
            assert_eq!(lookup(&built.blocks, b"absent"), None);
        }
    }

    #[test]
    fn names_that_share_one_hash_are_refused_not_looped_over() {
        let entries: Vec<Entry> =
            (0..100).map(|i| Entry { name: vec![i; 200], integer_size: 8, value: vec![0; 8] }).collect();
        assert!(build(&entries, &[0xabc0_0000_0000_0000; 100], 1).is_none());
    }
}

//! ZAP objects: the name → value tables of ZFS (directories, properties, almost everything in the MOS).
//!
//! Small tables whose values are single 64-bit integers become a *micro* ZAP (one block); all others a *fat* one
//! (see [`super::fatzap`]).

use std::collections::BTreeMap;

use super::{fatzap, put_u16, put_u32, put_u64};

/// Header of a micro ZAP: `ZBT_MICRO`.
const MICRO_BLOCK_TYPE: u64 = (1 << 63) | 3;
const MICRO_ENTRY: usize = 64;
/// Entries that fit into the largest micro ZAP block (128 KiB) after its header.
const MICRO_MAX_ENTRIES: usize = 2047;
/// Longest name of a micro entry: 50 bytes with its NUL.
const MICRO_MAX_NAME: usize = 49;
/// CRC-64 of ECMA-182, reflected: the polynomial of ZAP hashes.
const CRC_POLYNOMIAL: u64 = 0xc96c_5795_d787_0f42;
/// Salts that are tried until the names spread well enough.
const MAX_SALTS: u64 = 16;

/// Why a table cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Overcrowded;

/// One value: its integer size and its bytes (integers big-endian, as fat ZAPs store them).
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) name: Vec<u8>,
    pub(crate) integer_size: u8,
    pub(crate) value: Vec<u8>,
}

/// A table under construction. Names must be distinct.
#[derive(Clone, Debug)]
pub(crate) struct Zap {
    pub(crate) entries: Vec<Entry>,
    salt: u64,
}

/// The blocks of a table.
#[derive(Debug)]
pub(crate) struct ZapBlocks {
    pub(crate) block_size: u32,
    pub(crate) blocks: Vec<Vec<u8>>,
}

impl Zap {
    /// An empty table; `salt` spreads its hashes and must be odd to be non-zero for every reader.
    pub(crate) fn new(salt: u64) -> Zap {
        Zap { entries: Vec::new(), salt: salt | 1 }
    }

    pub(crate) fn add_u64(&mut self, name: impl AsRef<[u8]>, value: u64) {
        self.push(name.as_ref(), 8, value.to_be_bytes().to_vec());
    }

    /// Adds a string, stored with its NUL.
    pub(crate) fn add_text(&mut self, name: impl AsRef<[u8]>, value: &str) {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.push(name.as_ref(), 1, bytes);
    }

    /// Adds an array of bytes.
    pub(crate) fn add_bytes(&mut self, name: impl AsRef<[u8]>, value: &[u8]) {
        self.push(name.as_ref(), 1, value.to_vec());
    }

    pub(crate) fn add_u16s(&mut self, name: impl AsRef<[u8]>, values: &[u16]) {
        self.push(name.as_ref(), 2, values.iter().flat_map(|value| value.to_be_bytes()).collect());
    }

    pub(crate) fn add_u64s(&mut self, name: impl AsRef<[u8]>, values: &[u64]) {
        self.push(name.as_ref(), 8, values.iter().flat_map(|value| value.to_be_bytes()).collect());
    }

    fn push(&mut self, name: &[u8], integer_size: u8, value: Vec<u8>) {
        self.entries.push(Entry { name: name.to_vec(), integer_size, value });
    }

    /// The table as blocks, in the smaller of the two forms that can hold it.
    pub(crate) fn build(&self) -> Result<ZapBlocks, Overcrowded> {
        let fits_micro = self.entries.len() <= MICRO_MAX_ENTRIES
            && self.entries.iter().all(|entry| {
                entry.integer_size == 8 && entry.value.len() == 8 && entry.name.len() <= MICRO_MAX_NAME
            });
        if fits_micro {
            return Ok(self.build_micro());
        }
        (0..MAX_SALTS)
            .find_map(|attempt| {
                let salt = self.salt.wrapping_add(attempt * 2);
                let hashes = self.entries.iter().map(|entry| hash(salt, &entry.name)).collect::<Vec<_>>();
                fatzap::build(&self.entries, &hashes, salt)
            })
            .ok_or(Overcrowded)
    }

    fn build_micro(&self) -> ZapBlocks {
        let len = (MICRO_ENTRY * (self.entries.len() + 1)).next_multiple_of(512);
        let mut block = vec![0; len];
        put_u64(&mut block, 0, MICRO_BLOCK_TYPE);
        put_u64(&mut block, 8, self.salt);
        // Names with equal hashes are told apart by a differentiator that counts up.
        let mut seen: BTreeMap<u64, u32> = BTreeMap::new();
        for (entry, slot) in self.entries.iter().zip(block[MICRO_ENTRY..].chunks_exact_mut(MICRO_ENTRY)) {
            let differentiator = seen.entry(hash(self.salt, &entry.name)).or_default();
            slot[..8].copy_from_slice(&entry.value);
            slot[..8].reverse();
            put_u32(slot, 8, *differentiator);
            put_u16(slot, 12, 0);
            slot[14..14 + entry.name.len()].copy_from_slice(&entry.name);
            *differentiator += 1;
        }
        ZapBlocks { block_size: len as u32, blocks: vec![block] }
    }
}

/// The hash of a name: the top 28 bits of a CRC-64 that starts from the salt.
pub(crate) fn hash(salt: u64, name: &[u8]) -> u64 {
    const TABLE: [u64; 256] = crc_table();
    let crc = name.iter().fold(salt, |crc, byte| (crc >> 8) ^ TABLE[usize::from(crc as u8 ^ byte)]);
    crc & !((1 << (64 - HASH_BITS)) - 1)
}

/// Significant bits of a hash.
pub(crate) const HASH_BITS: u32 = 28;

const fn crc_table() -> [u64; 256] {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let mut crc = i as u64;
        let mut bit = 0;
        while bit < 8 {
            crc = (crc >> 1) ^ ((crc & 1).wrapping_neg() & CRC_POLYNOMIAL);
            bit += 1;
        }
        table[i] = crc;
        i += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_is_crc64_xz_without_inversion() {
        // CRC-64/XZ of "123456789" is 0x995dc9bbdf1939fa: init and final xor are all ones.
        assert_eq!(hash(u64::MAX, b"123456789"), !0x995d_c9bb_df19_39fa & !0xf_ffff_ffff);
    }

    #[test]
    fn a_micro_zap_is_one_block() {
        let mut zap = Zap::new(2);
        zap.add_u64("ROOT", 0x0102);
        let built = zap.build().unwrap();
        assert_eq!((built.block_size, built.blocks.len()), (512, 1));
        let block = &built.blocks[0];
        assert_eq!(block[..8], MICRO_BLOCK_TYPE.to_le_bytes());
        assert_eq!(block[8..16], 3u64.to_le_bytes());
        assert_eq!(block[64..72], 0x0102u64.to_le_bytes());
        assert_eq!(&block[78..83], b"ROOT\0");
    }

    #[test]
    fn the_form_follows_the_content() {
        let micro = |count: usize, name_len: usize| {
            let mut zap = Zap::new(1);
            for i in 0..count {
                zap.add_u64(format!("{i:0name_len$}"), i as u64);
            }
            zap.build().unwrap().block_size != 16384
        };
        assert!(micro(0, 1));
        assert!(micro(2047, 49));
        assert!(!micro(2048, 4));
        assert!(!micro(1, 50));
        let mut zap = Zap::new(1);
        zap.add_text("mountpoint", "/");
        assert_eq!(zap.build().unwrap().block_size, 16384);
    }

    #[test]
    fn equal_hashes_get_distinct_differentiators() {
        let names = colliding_names();
        let mut zap = Zap::new(1);
        for name in &names {
            zap.add_u64(name, 1);
        }
        let block = zap.build().unwrap().blocks.remove(0);
        let differentiators: Vec<u8> = (0..names.len()).map(|i| block[64 + i * 64 + 8]).collect();
        assert_eq!(differentiators, [0, 1]);
    }

    /// Two names with the same 28-bit hash, found by search.
    fn colliding_names() -> [String; 2] {
        let mut seen = std::collections::HashMap::new();
        for i in 0..1_000_000u64 {
            // Scrambled: a CRC keeps names that differ in few bits apart.
            let name = format!("{:x}", i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            if let Some(earlier) = seen.insert(hash(1, name.as_bytes()), name.clone()) {
                return [earlier, name];
            }
        }
        unreachable!("a million names share 2^28 hashes")
    }
}

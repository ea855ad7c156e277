//! ZAP objects, the tables of ZFS: one block of small entries, or a hash table of leaves.

mod fat;

use std::sync::Arc;

use super::block::Blocks;
use super::bytes::{u32_at, u64_at, word};
use super::dnode::Dnode;
use super::error::ReadError;

const MICRO: u64 = (1 << 63) | 3;
const FAT: u64 = (1 << 63) | 1;
const MICRO_ENTRY: usize = 64;
const MICRO_NAME_AT: usize = 14;

/// One entry of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Without its NUL; of tables with numbers as keys the numbers, big-endian.
    pub(crate) name: Vec<u8>,
    /// Bytes of each integer of the value: 1, 2, 4 or 8.
    pub(crate) integer_size: u8,
    /// The integers, big-endian.
    pub(crate) value: Vec<u8>,
}

impl Entry {
    /// The value, when it is a single 64-bit number.
    pub(crate) fn number(&self) -> Option<u64> {
        if self.integer_size != 8 || self.value.len() != 8 {
            return None;
        }
        Some(u64::from_be_bytes(*self.value.first_chunk()?))
    }

    /// The value as bytes up to a NUL, when it is a string.
    pub(crate) fn text(&self) -> Option<&[u8]> {
        (self.integer_size == 1).then(|| self.value.split(|byte| *byte == 0).next().unwrap_or_default())
    }

    /// The name, when it is a hexadecimal number.
    pub(crate) fn hex_name(&self) -> Option<u64> {
        u64::from_str_radix(std::str::from_utf8(&self.name).ok()?, 16).ok()
    }
}

#[derive(Debug)]
enum Form {
    Micro(Arc<[u8]>),
    Fat(fat::Header),
}

/// A table.
#[derive(Debug)]
pub(crate) struct Zap<'s, 'a> {
    blocks: &'s Blocks<'a>,
    dnode: Dnode,
    object: u64,
    form: Form,
}

impl<'s, 'a> Zap<'s, 'a> {
    /// The table in the data of `dnode`, which is object `object`.
    pub(crate) fn open(blocks: &'s Blocks<'a>, dnode: Dnode, object: u64) -> Result<Zap<'s, 'a>, ReadError> {
        let first = dnode.read(blocks, 0)?.ok_or_else(|| damaged(object, "its first block is a hole"))?;
        let form = match word(&first, 0) {
            MICRO => Form::Micro(first),
            FAT => Form::Fat(fat::Header::decode(&first).map_err(|problem| damaged(object, problem))?),
            _ => return Err(damaged(object, "it does not start like a table")),
        };
        Ok(Zap { blocks, dnode, object, form })
    }

    /// Calls `each` for every entry, in an order that depends on the table's bytes alone.
    pub(crate) fn for_each(&self, each: &mut dyn FnMut(Entry)) -> Result<(), ReadError> {
        match &self.form {
            Form::Micro(block) => {
                micro_entries(block).for_each(|(name, value)| each(micro_entry(name, value)));
                Ok(())
            }
            Form::Fat(header) => self.each_leaf(header, &mut |leaf| leaf.for_each(each)),
        }
    }

    /// All entries, sorted by name.
    pub(crate) fn entries(&self) -> Result<Vec<Entry>, ReadError> {
        let mut entries = Vec::new();
        self.for_each(&mut |entry| entries.push(entry))?;
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// The entry called `name`.
    pub(crate) fn get(&self, name: &[u8]) -> Result<Option<Entry>, ReadError> {
        match &self.form {
            Form::Micro(block) => Ok(micro_entries(block)
                .find(|(found, _)| *found == name)
                .map(|(name, value)| micro_entry(name, value))),
            Form::Fat(header) => self.find_in_leaf(header, name),
        }
    }

    /// The number called `name`; an entry of another sort is damage.
    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>, ReadError> {
        match self.get(name.as_bytes())? {
            None => Ok(None),
            Some(entry) => match entry.number() {
                Some(number) => Ok(Some(number)),
                None => Err(damaged(self.object, "an entry is not a number")),
            },
        }
    }

    /// The number called `name`, which must be there.
    pub(crate) fn need(&self, name: &'static str) -> Result<u64, ReadError> {
        self.number(name)?.ok_or_else(|| damaged(self.object, "an entry it must have is missing"))
    }

    /// What is wrong with the table's structure, beyond what stops it from being read.
    pub(crate) fn problems(&self) -> Result<Vec<String>, ReadError> {
        match &self.form {
            Form::Micro(block) => Ok(micro_problems(block)),
            Form::Fat(header) => self.fat_problems(header),
        }
    }
}

fn damaged(object: u64, problem: &'static str) -> ReadError {
    ReadError::damaged(format!("table {object}"), problem)
}

/// Names and values of a one-block table.
fn micro_entries(block: &[u8]) -> impl Iterator<Item = (&[u8], u64)> {
    block.chunks_exact(MICRO_ENTRY).skip(1).filter_map(|slot| {
        let name = slot[MICRO_NAME_AT..].split(|byte| *byte == 0).next().unwrap_or_default();
        (!name.is_empty()).then(|| (name, word(slot, 0)))
    })
}

fn micro_entry(name: &[u8], value: u64) -> Entry {
    Entry { name: name.to_vec(), integer_size: 8, value: value.to_be_bytes().to_vec() }
}

fn micro_problems(block: &[u8]) -> Vec<String> {
    let salt = word(block, 1);
    let mut problems = Vec::new();
    if salt == 0 {
        problems.push("it has no salt".to_owned());
    }
    let mut names: Vec<&[u8]> = micro_entries(block).map(|(name, _)| name).collect();
    names.sort_unstable();
    if names.windows(2).any(|pair| pair[0] == pair[1]) {
        problems.push("two entries have the same name".to_owned());
    }
    let mut hashes: Vec<(u64, u32)> = block
        .chunks_exact(MICRO_ENTRY)
        .skip(1)
        .filter(|slot| slot[MICRO_NAME_AT] != 0)
        .map(|slot| {
            let name = slot[MICRO_NAME_AT..].split(|byte| *byte == 0).next().unwrap_or_default();
            (hash(salt, name, HASH_BITS), u32_at(slot, 8).unwrap_or(0))
        })
        .collect();
    hashes.sort_unstable();
    if hashes.windows(2).any(|pair| pair[0] == pair[1]) {
        problems.push("two entries have the same hash and differentiator".to_owned());
    }
    problems
}

/// Bits of a hash that count: all others are zero.
const HASH_BITS: u32 = 28;

/// CRC-64 (ECMA-182, reflected) that starts from the salt, cut to its top `bits`.
fn hash(salt: u64, name: &[u8], bits: u32) -> u64 {
    const POLYNOMIAL: u64 = 0xc96c_5795_d787_0f42;
    const TABLE: [u64; 256] = {
        let mut table = [0; 256];
        let mut i = 0;
        while i < 256 {
            let mut crc = i as u64;
            let mut bit = 0;
            while bit < 8 {
                crc = if crc & 1 == 1 { (crc >> 1) ^ POLYNOMIAL } else { crc >> 1 };
                bit += 1;
            }
            table[i] = crc;
            i += 1;
        }
        table
    };
    let crc = name.iter().fold(salt, |crc, byte| (crc >> 8) ^ TABLE[usize::from(*byte ^ (crc & 0xff) as u8)]);
    crc >> (64 - bits) << (64 - bits)
}

/// Words of a structure that must be there.
fn need(block: &[u8], at: usize) -> Result<u64, &'static str> {
    u64_at(block, at).ok_or("it is cut off")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_of_a_known_string() {
        // CRC-64/XZ of "123456789" is 0x995dc9bbdf1939fa: init and final xor are all ones.
        assert_eq!(hash(u64::MAX, b"123456789", 28), !0x995d_c9bb_df19_39fau64 >> 36 << 36);
    }
}

//! Reads a partition table that somebody wrote: the primary one, or the backup when the primary is damaged.

use super::{ARRAY_LEN, ENTRY_LEN, HEADER_LEN};
use crate::crc32::crc32;
use crate::{Guid, SECTOR};
use std::io::{self, Read, Seek, SeekFrom};

/// Entries of more bytes than this are nothing that anybody writes.
const MAX_ENTRY: u32 = 4096;
/// Tables are 16 KiB nearly everywhere; more than this is read for nobody.
const MAX_ARRAY: u64 = 64 * ARRAY_LEN as u64;

/// A partition that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundPartition {
    /// Number in the table, from 1.
    pub number: u32,
    /// First byte on the disk.
    pub start: u64,
    /// Bytes.
    pub len: u64,
    /// Partition type.
    pub kind: Guid,
    /// Partition name; what is not UTF-16 is replaced.
    pub label: String,
}

/// The partitions of a disk with 512-byte sectors, in the order of the table; `None` when it has no whole table.
///
/// # Errors
/// Those of `disk`.
pub fn read_partitions(disk: &mut (impl Read + Seek)) -> io::Result<Option<Vec<FoundPartition>>> {
    let size = disk.seek(SeekFrom::End(0))?;
    let last = (size / SECTOR).saturating_sub(1);
    for lba in [1, last] {
        if lba > 0
            && let Some(found) = read_table(disk, lba, size)?
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// The table whose header is in sector `lba`; `None` unless all of it is whole and inside the disk.
fn read_table(disk: &mut (impl Read + Seek), lba: u64, size: u64) -> io::Result<Option<Vec<FoundPartition>>> {
    let Some(header) = read_bytes(disk, lba.checked_mul(SECTOR), SECTOR, size)? else { return Ok(None) };
    let u32_at = |at: usize| header[at..at + 4].iter().rev().fold(0_u32, |n, byte| n << 8 | u32::from(*byte));
    let u64_at = |at: usize| header[at..at + 8].iter().rev().fold(0_u64, |n, byte| n << 8 | u64::from(*byte));
    let mut summed = header[..HEADER_LEN].to_vec();
    summed[16..20].fill(0);
    if &header[..8] != b"EFI PART" || u32_at(12) != HEADER_LEN as u32 || crc32(&summed) != u32_at(16) {
        return Ok(None);
    }
    let (count, entry_len) = (u32_at(80), u32_at(84));
    let len = u64::from(count) * u64::from(entry_len);
    if !(ENTRY_LEN as u32..=MAX_ENTRY).contains(&entry_len) || len > MAX_ARRAY {
        return Ok(None);
    }
    let Some(array) = read_bytes(disk, u64_at(72).checked_mul(SECTOR), len, size)? else { return Ok(None) };
    if crc32(&array) != u32_at(88) {
        return Ok(None);
    }
    let entries = array.chunks_exact(entry_len as usize).zip(1..);
    Ok(Some(entries.filter_map(|(entry, number)| parse(entry, number, size)).collect()))
}

/// One entry; `None` for an unused one and for one that is not inside the disk.
fn parse(entry: &[u8], number: u32, size: u64) -> Option<FoundPartition> {
    let kind = Guid::from_disk(entry[..16].try_into().ok()?);
    let u64_at = |at: usize| entry[at..at + 8].iter().rev().fold(0_u64, |n, byte| n << 8 | u64::from(*byte));
    let (first, last) = (u64_at(32), u64_at(40));
    let start = first.checked_mul(SECTOR)?;
    let end = last.checked_add(1)?.checked_mul(SECTOR)?;
    if first == 0 || end <= start || end > size {
        return None;
    }
    let units = entry[56..128].chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]]));
    let units: Vec<u16> = units.take_while(|unit| *unit != 0).collect();
    Some(FoundPartition { number, start, len: end - start, kind, label: String::from_utf16_lossy(&units) })
}

fn read_bytes(
    disk: &mut (impl Read + Seek),
    at: Option<u64>,
    len: u64,
    size: u64,
) -> io::Result<Option<Vec<u8>>> {
    let Some(at) = at.filter(|at| at.checked_add(len).is_some_and(|end| end <= size)) else {
        return Ok(None);
    };
    let mut bytes = vec![0; len as usize];
    disk.seek(SeekFrom::Start(at))?;
    disk.read_exact(&mut bytes)?;
    Ok(Some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DiskLayout, MIB};
    use proptest::prelude::*;
    use std::io::Cursor;

    fn disk() -> Vec<u8> {
        let layout = DiskLayout::plan(128 * MIB, 33 * MIB, "rpool", &[7; 32]).expect("it fits");
        let mut disk = Cursor::new(vec![0; 128 << 20]);
        layout.write_tables(&mut disk).expect("memory takes it");
        disk.into_inner()
    }

    #[test]
    fn finds_what_was_written_also_in_the_backup() {
        let mut disk = disk();
        let read = |disk: &[u8]| read_partitions(&mut Cursor::new(disk)).expect("memory reads");
        let found = read(&disk).expect("there is a table");
        assert_eq!(found.len(), 2);
        assert_eq!((found[1].number, found[1].label.as_str(), found[1].kind), (2, "rpool", Guid::ZFS));
        assert_eq!((found[0].start, found[1].start), (MIB, 34 * MIB));
        disk[600] ^= 1;
        disk[1024] ^= 1;
        assert_eq!(read(&disk), Some(found));
        disk[512..1024].fill(0);
        let end = disk.len();
        disk[end - 512..].fill(0);
        assert_eq!(read(&disk), None);
        assert_eq!(read(&[]), None);
    }

    #[test]
    fn changed_headers_never_panic() {
        let disk = disk();
        for at in 512..604 {
            for value in [0, 1, 0x7F, 0xFF] {
                let mut disk = disk[..4096].to_vec();
                disk[at] = value;
                // Its checksum is made right, so that what is behind it is reached.
                disk[528..532].fill(0);
                let sum = crc32(&disk[512..604]);
                disk[528..532].copy_from_slice(&sum.to_le_bytes());
                read_partitions(&mut Cursor::new(disk)).expect("memory reads");
            }
        }
    }
    proptest! {
        #[test]
        fn any_bytes_get_an_answer(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
            read_partitions(&mut Cursor::new(bytes)).expect("memory reads");
        }

        /// Both checksums are made right, so that what is found comes from changed bytes.
        #[test]
        fn what_is_found_lies_inside_the_disk(
            changes in proptest::collection::vec((0usize..92, any::<u8>()), 0..4),
            entries in proptest::collection::vec((0usize..512, any::<u8>()), 0..40),
        ) {
            let mut disk = disk();
            entries.into_iter().for_each(|(at, byte)| disk[1024 + at] = byte);
            changes.into_iter().for_each(|(at, byte)| disk[512 + at] = byte);
            let number = |at: usize| u32::from_le_bytes([disk[at], disk[at + 1], disk[at + 2], disk[at + 3]]);
            let len = number(512 + 80).wrapping_mul(number(512 + 84)) as usize;
            let array = disk.get(1024..1024 + len).map_or(0, crc32);
            disk[512 + 88..512 + 92].copy_from_slice(&array.to_le_bytes());
            disk[512 + 16..512 + 20].fill(0);
            let sum = crc32(&disk[512..512 + HEADER_LEN]);
            disk[512 + 16..512 + 20].copy_from_slice(&sum.to_le_bytes());
            let size = disk.len() as u64;
            for found in read_partitions(&mut Cursor::new(disk)).expect("memory reads").unwrap_or_default() {
                prop_assert!(found.len > 0 && found.start.checked_add(found.len).is_some_and(|end| end <= size));
                prop_assert!(found.number > 0 && found.label.chars().count() <= 36);
            }
        }
    }
}

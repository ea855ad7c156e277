//! The partition table of every image: an EFI system partition, then the pool to the end of the disk.
//!
//! Follows UEFI 2.10, chapter 5 (GUID Partition Table): a protective MBR, 128 entries of 128 bytes, a backup at the
//! end. Limits: 512-byte sectors, these two partitions, labels of at most 36 UTF-16 units.

mod read;

pub use read::{FoundPartition, read_partitions};

use crate::crc32::crc32;
use crate::{Guid, MIB, SECTOR, Section};
use std::io::{self, Seek, SeekFrom, Write};

/// The partition label of the EFI system partition; `/etc/fstab` names it.
pub const ESP_LABEL: &str = "kldload-esp";
/// The usual size of the EFI system partition in bytes: room for several kernels with their initrds.
pub const ESP_SIZE: u64 = 512 * MIB;
/// The least room for the pool in bytes: OpenZFS refuses devices below 64 MiB (SPA_MINDEVSIZE).
pub const POOL_MIN: u64 = 64 * MIB;

const ENTRY_COUNT: u32 = 128;
const ENTRY_LEN: usize = 128;
const ARRAY_LEN: usize = ENTRY_COUNT as usize * ENTRY_LEN;
const ARRAY_SECTORS: u64 = ARRAY_LEN as u64 / SECTOR;
/// UEFI 2.10, table 5.5: the header's own length.
const HEADER_LEN: usize = 92;
const LABEL_UNITS: usize = 36;

/// One partition of a [`DiskLayout`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    /// Number in the table, from 1.
    pub number: u32,
    /// First byte on the disk; a multiple of 1 MiB.
    pub start: u64,
    /// Bytes; a multiple of 1 MiB.
    pub len: u64,
    /// Partition type.
    pub kind: Guid,
    /// Unique GUID (`PARTUUID`).
    pub guid: Guid,
    /// Partition name (`PARTLABEL`).
    pub label: String,
}

impl Partition {
    /// The partition of `disk` as a stream; `next` names what lies behind it in errors.
    pub fn section<T>(&self, disk: T, next: &str) -> Section<T> {
        Section::new(disk, &self.label, self.start, self.len, next)
    }
}

/// Where everything on a disk is. Only [`DiskLayout::plan`] makes one, so that its partitions are always inside the
/// disk, aligned and disjoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskLayout {
    size: u64,
    guid: Guid,
    esp: Partition,
    pool: Partition,
}

/// Why a disk cannot be laid out as asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// The disk does not hold the partitions.
    #[error(
        "a disk of `{size}` bytes is too small for an EFI system partition of {esp} bytes and a pool: {needed} bytes are needed"
    )]
    TooSmall {
        /// Bytes asked for.
        size: u64,
        /// Bytes of the EFI system partition.
        esp: u64,
        /// The least bytes that would do.
        needed: u64,
    },
    /// The disk does not end at a sector's end.
    #[error("a disk of `{size}` bytes is not a whole number of {SECTOR}-byte sectors")]
    PartSector {
        /// Bytes asked for.
        size: u64,
    },
    /// The EFI system partition does not end at a MiB.
    #[error("an EFI system partition of `{esp}` bytes is not a whole number of MiB")]
    EspSize {
        /// Bytes asked for.
        esp: u64,
    },
    /// The label does not fit in a partition entry.
    #[error("partition label `{label}` is longer than {LABEL_UNITS} UTF-16 units")]
    LabelTooLong {
        /// The label.
        label: String,
    },
}

impl LayoutError {
    /// What the user can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::TooSmall { needed, .. } => {
                Some(format!("give a size of at least {}M", needed.div_ceil(MIB)))
            }
            Self::PartSector { size } => Some(format!("give a size of {}M", size.div_ceil(MIB))),
            Self::EspSize { esp } => Some(format!("give {} bytes", esp.next_multiple_of(MIB).max(MIB))),
            Self::LabelTooLong { .. } => Some("choose a shorter pool name".to_owned()),
        }
    }
}

impl DiskLayout {
    /// Lays out a disk of `size` bytes: `esp` bytes of EFI system partition from 1 MiB on, then the pool, labelled
    /// `pool_label`, to the last whole MiB before the backup table. GUIDs come from `seed`.
    ///
    /// # Errors
    /// [`LayoutError`] says what does not fit, and how many bytes would.
    pub fn plan(size: u64, esp: u64, pool_label: &str, seed: &[u8; 32]) -> Result<Self, LayoutError> {
        if !size.is_multiple_of(SECTOR) {
            return Err(LayoutError::PartSector { size });
        }
        if esp == 0 || !esp.is_multiple_of(MIB) {
            return Err(LayoutError::EspSize { esp });
        }
        if pool_label.encode_utf16().count() > LABEL_UNITS {
            return Err(LayoutError::LabelTooLong { label: pool_label.to_owned() });
        }
        // One MiB in front for the tables and alignment, one behind for the backup table and alignment.
        let needed = esp.saturating_add(POOL_MIN + 2 * MIB);
        if size < needed {
            return Err(LayoutError::TooSmall { size, esp, needed });
        }
        let pool_start = MIB + esp;
        let pool_end = (size - (ARRAY_SECTORS + 1) * SECTOR) / MIB * MIB;
        let partition = |number, start, len, kind, guid, label: &str| Partition {
            number,
            start,
            len,
            kind,
            guid: Guid::derive(seed, guid),
            label: label.to_owned(),
        };
        Ok(Self {
            size,
            guid: Guid::derive(seed, "disk"),
            esp: partition(1, MIB, esp, Guid::EFI_SYSTEM, "partition 1", ESP_LABEL),
            pool: partition(2, pool_start, pool_end - pool_start, Guid::ZFS, "partition 2", pool_label),
        })
    }

    /// The disk's size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The disk's GUID.
    pub fn guid(&self) -> Guid {
        self.guid
    }

    /// Partition 1, the EFI system partition.
    pub fn esp(&self) -> &Partition {
        &self.esp
    }

    /// Partition 2, the pool: its `len` is the size of the pool's device.
    pub fn pool(&self) -> &Partition {
        &self.pool
    }

    /// Writes the protective MBR and both tables; touches no byte of a partition.
    ///
    /// # Errors
    /// Those of `disk`.
    pub fn write_tables(&self, disk: &mut (impl Write + Seek)) -> io::Result<()> {
        let array = self.render_entries();
        let array_crc = crc32(&array);
        let last = self.size / SECTOR - 1;
        let backup_array = last - ARRAY_SECTORS;

        disk.rewind()?;
        disk.write_all(&self.render_mbr())?;
        disk.write_all(&self.render_header(1, last, 2, array_crc))?;
        disk.write_all(&array)?;
        disk.seek(SeekFrom::Start(backup_array * SECTOR))?;
        disk.write_all(&array)?;
        disk.write_all(&self.render_header(last, 1, backup_array, array_crc))
    }

    /// One partition of type 0xEE over the whole disk, so that tools that know only MBR see no free space.
    fn render_mbr(&self) -> [u8; SECTOR as usize] {
        let mut mbr = [0; SECTOR as usize];
        let sectors = u32::try_from(self.size / SECTOR - 1).unwrap_or(u32::MAX);
        let entry = &mut mbr[446..462];
        entry[1..4].copy_from_slice(&[0x00, 0x02, 0x00]); // the second sector, as cylinder, head, sector
        entry[4] = 0xEE;
        entry[5..8].fill(0xFF);
        entry[8..12].copy_from_slice(&1_u32.to_le_bytes());
        entry[12..16].copy_from_slice(&sectors.to_le_bytes());
        mbr[510..].copy_from_slice(&[0x55, 0xAA]);
        mbr
    }

    fn render_header(&self, own: u64, other: u64, array: u64, array_crc: u32) -> [u8; SECTOR as usize] {
        let mut header = Vec::with_capacity(SECTOR as usize);
        header.extend_from_slice(b"EFI PART");
        header.extend_from_slice(&0x0001_0000_u32.to_le_bytes()); // revision 1.0
        header.extend_from_slice(&(HEADER_LEN as u32).to_le_bytes());
        header.extend_from_slice(&[0; 8]); // checksum, set below; reserved
        let last_usable = self.size / SECTOR - 1 - ARRAY_SECTORS - 1;
        for lba in [own, other, 2 + ARRAY_SECTORS, last_usable] {
            header.extend_from_slice(&lba.to_le_bytes());
        }
        header.extend_from_slice(&self.guid.to_disk());
        header.extend_from_slice(&array.to_le_bytes());
        header.extend_from_slice(&ENTRY_COUNT.to_le_bytes());
        header.extend_from_slice(&(ENTRY_LEN as u32).to_le_bytes());
        header.extend_from_slice(&array_crc.to_le_bytes());
        let crc = crc32(&header);
        header[16..20].copy_from_slice(&crc.to_le_bytes());
        let mut sector = [0; SECTOR as usize];
        sector[..HEADER_LEN].copy_from_slice(&header);
        sector
    }

    fn render_entries(&self) -> Vec<u8> {
        let mut array = vec![0; ARRAY_LEN];
        for (partition, entry) in [&self.esp, &self.pool].into_iter().zip(array.chunks_exact_mut(ENTRY_LEN)) {
            entry[..16].copy_from_slice(&partition.kind.to_disk());
            entry[16..32].copy_from_slice(&partition.guid.to_disk());
            let first = partition.start / SECTOR;
            let last = (partition.start + partition.len) / SECTOR - 1;
            entry[32..40].copy_from_slice(&first.to_le_bytes());
            entry[40..48].copy_from_slice(&last.to_le_bytes());
            for (unit, place) in partition.label.encode_utf16().zip(entry[56..].chunks_exact_mut(2)) {
                place.copy_from_slice(&unit.to_le_bytes());
            }
        }
        array
    }
}

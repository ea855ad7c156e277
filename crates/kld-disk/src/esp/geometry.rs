//! Sizes of a FAT32 file system and its boot sector (fatgen103, *Boot Sector and BPB Structure*).

use super::EspError;
use crate::{MIB, SECTOR};

/// The count of clusters from which on a FAT file system is FAT32; nothing else decides (fatgen103, p. 14).
const CLUSTERS_MIN: u64 = 65_525;
/// Sectors before the first FAT: 16 KiB, so that clusters are aligned to 4 KiB.
const RESERVED: u64 = 32;
/// The sector of the copy of the boot sector.
pub(super) const BACKUP_SECTOR: u64 = 6;
/// Clusters of 4 KiB where there are enough of them, which is the page size of every reader.
const CLUSTER_SECTORS: [u64; 4] = [8, 4, 2, 1];
const SIZE_MIN: u64 = 33 * MIB;
/// The sector count is a 32-bit field; whole MiB below that.
const SIZE_MAX: u64 = 2 * 1024 * 1024 * MIB - MIB;

#[derive(Debug, Clone, Copy)]
pub(super) struct Geometry {
    /// Sectors of the file system.
    total: u32,
    /// Sectors before the first FAT.
    pub(super) reserved: u64,
    /// Sectors of one FAT.
    pub(super) fat: u64,
    /// Sectors in a cluster.
    per_cluster: u64,
    /// Clusters of data.
    pub(super) clusters: u32,
}

impl Geometry {
    pub(super) fn plan(size: u64) -> Result<Self, EspError> {
        let bad = || EspError::Size { size, min: SIZE_MIN, max: SIZE_MAX };
        if !(SIZE_MIN..=SIZE_MAX).contains(&size) || !size.is_multiple_of(SECTOR) {
            return Err(bad());
        }
        let total = size / SECTOR;
        CLUSTER_SECTORS
            .into_iter()
            .find_map(|per_cluster| {
                // Four bytes of FAT for each cluster and for the two numbers that name none, in two copies; a
                // multiple of 4 sectors keeps clusters aligned.
                let entries = total - RESERVED + 2 * per_cluster;
                let fat = entries.div_ceil(SECTOR / 4 * per_cluster + 2).next_multiple_of(4);
                let clusters = (total - RESERVED - 2 * fat) / per_cluster;
                (clusters >= CLUSTERS_MIN).then_some((per_cluster, fat, clusters))
            })
            .and_then(|(per_cluster, fat, clusters)| {
                Some(Self {
                    total: u32::try_from(total).ok()?,
                    reserved: RESERVED,
                    fat,
                    per_cluster,
                    clusters: u32::try_from(clusters).ok()?,
                })
            })
            .ok_or_else(bad)
    }

    /// Bytes in a cluster.
    pub(super) fn cluster(&self) -> u64 {
        self.per_cluster * SECTOR
    }

    /// The byte at which `cluster` begins; the first one is number 2.
    pub(super) fn offset_of(&self, cluster: u32) -> u64 {
        let data = self.reserved + 2 * self.fat;
        (data + u64::from(cluster.saturating_sub(2)) * self.per_cluster) * SECTOR
    }

    pub(super) fn render_boot_sector(&self, volume_id: u32, label: [u8; 11]) -> [u8; SECTOR as usize] {
        let mut sector = [0; SECTOR as usize];
        let mut put =
            |offset: usize, bytes: &[u8]| sector[offset..offset + bytes.len()].copy_from_slice(bytes);
        put(0, &[0xEB, 0x58, 0x90]); // jump over the fields
        put(3, b"MSWIN4.1"); // the name that fatgen103 recommends for the sake of old readers
        put(11, &(SECTOR as u16).to_le_bytes());
        put(13, &[self.per_cluster as u8]);
        put(14, &(self.reserved as u16).to_le_bytes());
        put(16, &[2]); // FATs
        put(21, &[0xF8]); // fixed disk
        put(24, &63_u16.to_le_bytes()); // sectors per track and heads: of no use but expected
        put(26, &255_u16.to_le_bytes());
        put(32, &self.total.to_le_bytes());
        put(36, &(self.fat as u32).to_le_bytes());
        put(44, &2_u32.to_le_bytes()); // cluster of the root directory
        put(48, &1_u16.to_le_bytes()); // sector of the FSInfo structure
        put(50, &(BACKUP_SECTOR as u16).to_le_bytes());
        put(64, &[0x80, 0, 0x29]); // drive number; reserved; the next three fields are there
        put(67, &volume_id.to_le_bytes());
        put(71, &label);
        put(82, b"FAT32   ");
        put(90, &[0xF4, 0xEB, 0xFD]); // code for a BIOS that boots it all the same: halt
        put(510, &[0x55, 0xAA]);
        sector
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_accepted_size_is_fat32_with_room_for_its_chains() {
        for mib in [33, 34, 64, 100, 128, 256, 257, 260, 512, 1024, 4096, 100_000] {
            let geometry = Geometry::plan(mib * MIB).unwrap();
            assert!(u64::from(geometry.clusters) >= CLUSTERS_MIN, "{mib} MiB");
            assert!(geometry.fat * SECTOR / 4 >= u64::from(geometry.clusters) + 2, "{mib} MiB");
            assert!(geometry.offset_of(2 + geometry.clusters) <= mib * MIB, "{mib} MiB");
            assert!(geometry.offset_of(2).is_multiple_of(4096), "{mib} MiB");
        }
        assert_eq!(Geometry::plan(512 * MIB).unwrap().cluster(), 4096);
        assert!(Geometry::plan(32 * MIB).is_err());
        assert!(Geometry::plan(512 * MIB + 1).is_err());
        assert!(Geometry::plan(u64::MAX / SECTOR * SECTOR).is_err());
    }
}

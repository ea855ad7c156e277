//! GUIDs as GPT stores them: the first three fields little-endian (UEFI 2.10, appendix A).

use sha2::{Digest, Sha256};
use std::fmt;

/// A GUID, kept in the order in which it is written as text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Guid([u8; 16]);

impl Guid {
    /// Partition type of an EFI system partition: C12A7328-F81F-11D2-BA4B-00A0C93EC93B (UEFI 2.10, table 5.7).
    pub const EFI_SYSTEM: Self = Self(0xC12A7328_F81F_11D2_BA4B_00A0C93EC93B_u128.to_be_bytes());
    /// Partition type that OpenZFS gives its partitions: 6A898CC3-1DD2-11B2-99A6-080020736631 (`zpool create` on Linux).
    pub const ZFS: Self = Self(0x6A898CC3_1DD2_11B2_99A6_080020736631_u128.to_be_bytes());

    /// The GUID that `seed` gives to the thing called `name`: the first 16 bytes of SHA-256 over both, marked as
    /// version 8 (RFC 9562: vendor-specific contents).
    pub fn derive(seed: &[u8; 32], name: &str) -> Self {
        let digest = Sha256::new().chain_update(seed).chain_update(name).finalize();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        bytes[6] = bytes[6] & 0x0F | 0x80;
        bytes[8] = bytes[8] & 0x3F | 0x80;
        Self(bytes)
    }

    /// The GUID that a GPT holds as these bytes.
    pub fn from_disk(bytes: [u8; 16]) -> Self {
        // Turning around is its own opposite.
        Self(Self(bytes).to_disk())
    }

    /// The bytes as a GPT holds them.
    pub fn to_disk(self) -> [u8; 16] {
        let mut bytes = self.0;
        bytes[..4].reverse();
        bytes[4..6].reverse();
        bytes[6..8].reverse();
        bytes
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Guid({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_disk_order() {
        assert_eq!(Guid::EFI_SYSTEM.to_string(), "c12a7328-f81f-11d2-ba4b-00a0c93ec93b");
        assert_eq!(
            Guid::EFI_SYSTEM.to_disk(),
            [0x28, 0x73, 0x2A, 0xC1, 0x1F, 0xF8, 0xD2, 0x11, 0xBA, 0x4B, 0x00, 0xA0, 0xC9, 0x3E, 0xC9, 0x3B]
        );
    }

    #[test]
    fn derived_guids_differ_by_seed_and_name_and_carry_version_and_variant() {
        let disk = Guid::derive(&[1; 32], "disk");
        assert_eq!(disk, Guid::derive(&[1; 32], "disk"));
        assert_ne!(disk, Guid::derive(&[1; 32], "esp"));
        assert_ne!(disk, Guid::derive(&[2; 32], "disk"));
        let text = disk.to_string();
        assert_eq!(&text[14..15], "8");
        assert!("89ab".contains(&text[19..20]), "{text}");
    }
}

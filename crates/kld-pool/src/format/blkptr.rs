//! Block pointers (`blkptr_t`): 128 bytes that say where a block lies, how large it is and what it must hash to.
//!
//! Three forms are written: holes (all zero: never born), embedded (the compressed block itself, at most 112
//! bytes, sits in the pointer) and ordinary ones with one to three copies.

use super::SECTOR;
use super::checksum::Checksum;
use super::dnode::object_type;

/// Bytes of payload an embedded block pointer can carry (`BPE_PAYLOAD_SIZE`).
pub(crate) const EMBEDDED_MAX: usize = 112;
/// Words of an embedded pointer that keep their meaning: the properties and the birth txg.
const WORD_PROPERTIES: usize = 6;
const WORD_BIRTH: usize = 10;
const WORD_FILL: usize = 11;

const EMBEDDED_BIT: u64 = 1 << 39;
const LITTLE_ENDIAN_BIT: u64 = 1 << 63;

/// A block pointer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct BlockPointer([u64; 16]);

/// Where a copy of a block lies: a top-level vdev and a byte in its space. As one number, so that what follows on a vdev
/// follows in numbers, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Address(u64);

impl Address {
    /// Bits of a byte offset: more than the largest vdev needs.
    const OFFSET_BITS: u32 = 56;
    /// Most top-level vdevs that can be told apart.
    pub(crate) const MAX_VDEVS: usize = 1 << (u64::BITS - Address::OFFSET_BITS);

    pub(crate) fn new(vdev: usize, offset: u64) -> Address {
        debug_assert!(vdev < Address::MAX_VDEVS && offset >> Address::OFFSET_BITS == 0);
        Address((vdev as u64) << Address::OFFSET_BITS | offset)
    }

    pub(crate) fn vdev(self) -> usize {
        (self.0 >> Address::OFFSET_BITS) as usize
    }

    pub(crate) fn offset(self) -> u64 {
        self.0 & ((1 << Address::OFFSET_BITS) - 1)
    }

    pub(crate) fn number(self) -> u64 {
        self.0
    }

    pub(crate) fn of_number(number: u64) -> Address {
        Address(number)
    }
}

/// One copy of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Dva {
    pub(crate) address: Address,
    /// Allocated bytes.
    pub(crate) asize: u64,
}

/// What the properties word says about a block besides sizes and compression.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Role {
    /// DMU object type (`dmu_object_type_t`).
    pub(crate) object_type: u8,
    /// 0 for data, n for indirect blocks n above it.
    pub(crate) level: u8,
}

/// An ordinary block as it lies on the vdev.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    /// Logical size in bytes, a multiple of 512.
    pub(crate) lsize: u64,
    /// Size after compression in bytes, a multiple of 512.
    pub(crate) psize: u64,
    /// Bytes on a device that takes it as it is: the size after compression, rounded up to whole sectors.
    pub(crate) asize: u64,
    /// `enum zio_compress` code.
    pub(crate) compression: u8,
    /// `enum zio_checksum` code.
    pub(crate) algorithm: u8,
    pub(crate) checksum: Checksum,
}

impl BlockPointer {
    /// A block that was never written and reads as zeros.
    pub(crate) const HOLE: BlockPointer = BlockPointer([0; 16]);

    /// A block of 1 to 3 copies, born in `birth`.
    pub(crate) fn stored(extent: &Extent, copies: &[Dva], role: Role, birth: u64, fill: u64) -> BlockPointer {
        let mut words = [0; 16];
        const VDEV_SHIFT: u32 = 32;
        for (copy, Dva { address, asize }) in copies.iter().enumerate() {
            words[copy * 2] = (asize / SECTOR as u64) | (address.vdev() as u64) << VDEV_SHIFT;
            words[copy * 2 + 1] = address.offset() / SECTOR as u64;
        }
        words[WORD_PROPERTIES] = (extent.lsize / SECTOR as u64 - 1)
            | (extent.psize / SECTOR as u64 - 1) << 16
            | u64::from(extent.compression) << 32
            | u64::from(extent.algorithm) << 40
            | role.bits();
        words[WORD_BIRTH] = birth;
        words[WORD_FILL] = fill;
        words[12..].copy_from_slice(&extent.checksum);
        BlockPointer(words)
    }

    /// A block of `lsize` bytes whose compressed form (at most [`EMBEDDED_MAX`] bytes) is `payload`.
    pub(crate) fn embedded(
        payload: &[u8],
        lsize: u64,
        compression: u8,
        role: Role,
        birth: u64,
    ) -> BlockPointer {
        let mut bytes = [0; EMBEDDED_MAX];
        bytes[..payload.len()].copy_from_slice(payload);
        let mut chunks = bytes.chunks_exact(8);
        let mut words = [0; 16];
        for (i, word) in words.iter_mut().enumerate() {
            if i != WORD_PROPERTIES && i != WORD_BIRTH {
                let mut chunk = [0; 8];
                chunk.copy_from_slice(chunks.next().expect("14 words of 8 bytes are 112 bytes"));
                *word = u64::from_le_bytes(chunk);
            }
        }
        words[WORD_PROPERTIES] = (lsize - 1)
            | (payload.len() as u64 - 1) << 25
            | u64::from(compression) << 32
            | EMBEDDED_BIT
            | role.bits();
        words[WORD_BIRTH] = birth;
        BlockPointer(words)
    }

    /// A block of `lsize` bytes that held something and was freed in `birth`: an incremental send must say so.
    pub(crate) fn freed(lsize: u64, role: Role, birth: u64) -> BlockPointer {
        let mut words = [0; 16];
        words[WORD_PROPERTIES] = (lsize / SECTOR as u64 - 1) | (role.bits() & !LITTLE_ENDIAN_BIT);
        words[WORD_BIRTH] = birth;
        BlockPointer(words)
    }

    /// Whether there is nothing to read.
    pub(crate) fn is_hole(&self) -> bool {
        self.0[0] == 0 && self.0[1] == 0 && !self.is_embedded()
    }

    pub(crate) fn is_embedded(&self) -> bool {
        self.0[WORD_PROPERTIES] & EMBEDDED_BIT != 0
    }

    /// The transaction group the block was written in; 0 for one that never was.
    pub(crate) fn birth(&self) -> u64 {
        self.0[WORD_BIRTH]
    }

    /// Whether ZFS counts the block as metadata: everything but the level-0 blocks of files and volumes.
    pub(crate) fn is_metadata(&self) -> bool {
        let properties = self.0[WORD_PROPERTIES];
        let role = Role { object_type: (properties >> 48) as u8, level: (properties >> 56) as u8 & 0x1f };
        role.is_metadata()
    }

    /// The vdev of each copy, and what it takes there.
    pub(crate) fn copies(&self) -> impl Iterator<Item = (usize, u64)> {
        const ASIZE: u64 = (1 << 24) - 1;
        const VDEV_SHIFT: u32 = 32;
        let words = if self.is_embedded() { [0; 3] } else { [self.0[0], self.0[2], self.0[4]] };
        let copies = words.map(|word| ((word >> VDEV_SHIFT) as usize, (word & ASIZE) * SECTOR as u64));
        copies.into_iter().filter(|(_, asize)| *asize > 0)
    }

    /// Bytes after compression; 0 for a hole.
    pub(crate) fn psize(&self) -> u64 {
        let properties = self.0[WORD_PROPERTIES];
        if self.is_hole() {
            0
        } else if self.is_embedded() {
            (properties >> 25 & 0x7f) + 1
        } else {
            ((properties >> 16 & 0xffff) + 1) * SECTOR as u64
        }
    }

    /// Bytes before compression; 0 for a hole.
    pub(crate) fn lsize(&self) -> u64 {
        let properties = self.0[WORD_PROPERTIES];
        if self.is_hole() {
            0
        } else if self.is_embedded() {
            (properties & 0x1ff_ffff) + 1
        } else {
            ((properties & 0xffff) + 1) * SECTOR as u64
        }
    }

    /// The pointer as a list of freed blocks keeps it: without what only a reader of the block needs.
    pub(crate) fn without_content(&self) -> BlockPointer {
        let mut words = [0; 16];
        if !self.is_embedded() {
            words[..6].copy_from_slice(&self.0[..6]);
        }
        words[WORD_PROPERTIES] = self.0[WORD_PROPERTIES];
        words[WORD_BIRTH] = self.0[WORD_BIRTH];
        BlockPointer(words)
    }

    /// Blocks below and including this one that hold something (for dnode blocks: allocated dnodes).
    pub(crate) fn fill(&self) -> u64 {
        if self.is_hole() {
            0
        } else if self.0[WORD_PROPERTIES] & EMBEDDED_BIT != 0 {
            1
        } else {
            self.0[WORD_FILL]
        }
    }

    pub(crate) fn words(&self) -> &[u64; 16] {
        &self.0
    }

    pub(crate) fn to_bytes(self) -> [u8; 128] {
        let mut bytes = [0; 128];
        for (chunk, word) in bytes.chunks_exact_mut(8).zip(self.0) {
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }
}

impl Role {
    /// Everything but the level-0 blocks of files and volumes.
    pub(crate) fn is_metadata(self) -> bool {
        self.level > 0 || !matches!(self.object_type, object_type::PLAIN_FILE | object_type::VOLUME)
    }

    fn bits(self) -> u64 {
        u64::from(self.object_type) << 48 | u64::from(self.level) << 56 | LITTLE_ENDIAN_BIT
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_stored_block() {
        let extent = Extent {
            lsize: 131_072,
            psize: 8192,
            asize: 8192,
            compression: 15,
            algorithm: 7,
            checksum: [1, 2, 3, 4],
        };
        let copies = [(0, 4096, 8192), (3, 12_288, 12_288)]
            .map(|(vdev, offset, asize)| Dva { address: Address::new(vdev, offset), asize });
        let bp = BlockPointer::stored(&extent, &copies, Role { object_type: 19, level: 0 }, 10, 1);
        assert_eq!(bp.words()[..4], [16, 8, 24 | 3 << 32, 24]);
        assert_eq!(bp.words()[6], 255 | 15 << 16 | 15 << 32 | 7 << 40 | 19 << 48 | 1 << 63);
        assert_eq!(bp.words()[10..], [10, 1, 1, 2, 3, 4]);
        assert_eq!(bp.fill(), 1);
        assert_eq!(bp.copies().collect::<Vec<_>>(), [(0, 8192), (3, 12_288)]);
        assert_eq!((bp.psize(), bp.lsize(), bp.birth()), (8192, 131_072, 10));
        assert!(!bp.is_metadata() && !bp.is_hole());
        assert_eq!(bp.without_content().words()[10..], [10, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn a_freed_block_is_a_hole_with_a_birth() {
        let bp = BlockPointer::freed(131_072, Role { object_type: 19, level: 1 }, 11);
        assert!(bp.is_hole() && bp.is_metadata());
        assert_eq!((bp.birth(), bp.fill(), bp.copies().count(), bp.psize()), (11, 0, 0, 0));
        assert_eq!(bp.words()[6], 255 | 19 << 48 | 1 << 56);
    }

    #[test]
    fn an_embedded_payload_skips_two_words() {
        let payload: Vec<u8> = (1..=112).collect();
        let bp = BlockPointer::embedded(&payload, 131_072, 15, Role { object_type: 19, level: 0 }, 10);
        let bytes = bp.to_bytes();
        assert_eq!(bytes[..48], payload[..48]);
        assert_eq!(bytes[56..80], payload[48..72]);
        assert_eq!(bytes[88..], payload[72..]);
        assert_eq!(bp.words()[6] & 0x1ff_ffff, 131_071);
        assert_eq!((bp.copies().count(), bp.psize(), bp.lsize()), (0, 112, 131_072));
        assert_eq!(bp.fill(), 1);
        assert_eq!(BlockPointer::HOLE.fill(), 0);
    }
}

//! Dnodes: what an object is, how large its blocks are and where its block tree starts.

use super::blkptr::BlockPointer;
use super::{SECTOR, put_u16, put_u64};

/// DMU object types (`dmu_object_type_t`) that are written.
pub(crate) mod object_type {
    pub(crate) const NONE: u8 = 0;
    pub(crate) const OBJECT_DIRECTORY: u8 = 1;
    pub(crate) const OBJECT_ARRAY: u8 = 2;
    pub(crate) const PACKED_NVLIST: u8 = 3;
    pub(crate) const PACKED_NVLIST_SIZE: u8 = 4;
    pub(crate) const BPOBJ: u8 = 5;
    pub(crate) const BPOBJ_HEADER: u8 = 6;
    pub(crate) const SPACE_MAP_HEADER: u8 = 7;
    pub(crate) const SPACE_MAP: u8 = 8;
    pub(crate) const DNODE: u8 = 10;
    pub(crate) const OBJSET: u8 = 11;
    pub(crate) const DSL_DIR: u8 = 12;
    pub(crate) const DSL_DIR_CHILD_MAP: u8 = 13;
    pub(crate) const DSL_SNAPSHOT_MAP: u8 = 14;
    pub(crate) const DSL_PROPERTIES: u8 = 15;
    pub(crate) const DSL_DATASET: u8 = 16;
    pub(crate) const PLAIN_FILE: u8 = 19;
    pub(crate) const DIRECTORY: u8 = 20;
    pub(crate) const MASTER_NODE: u8 = 21;
    pub(crate) const UNLINKED_SET: u8 = 22;
    pub(crate) const VOLUME: u8 = 23;
    pub(crate) const VOLUME_PROPERTIES: u8 = 24;
    pub(crate) const POOL_PROPERTIES: u8 = 31;
    pub(crate) const NEXT_CLONES: u8 = 37;
    pub(crate) const USER_GROUP_USED: u8 = 39;
    pub(crate) const USER_REFERENCES: u8 = 41;
    pub(crate) const SA: u8 = 44;
    pub(crate) const SA_MASTER: u8 = 45;
    pub(crate) const SA_REGISTRATION: u8 = 46;
    pub(crate) const SA_LAYOUTS: u8 = 47;
    pub(crate) const DEADLIST: u8 = 50;
    pub(crate) const DEADLIST_HEADER: u8 = 51;
    pub(crate) const DSL_CLONES: u8 = 52;
    /// `DMU_OTN_ZAP_METADATA`: a ZAP whose meaning the reader need not know.
    pub(crate) const ZAP_METADATA: u8 = 0xc4;
}

/// Bytes of a dnode slot.
pub(crate) const SLOT: usize = 512;
/// Bytes of a block of dnodes, and slots in it.
pub(crate) const BLOCK: usize = 16 << 10;
pub(crate) const SLOTS_PER_BLOCK: usize = BLOCK / SLOT;
/// Where the bonus buffer starts: after the fixed fields and one block pointer.
pub(crate) const BONUS_OFFSET: usize = 192;
/// A spill block pointer takes the end of the dnode.
pub(crate) const SPILL_POINTER: usize = 128;
/// log2 of the size of indirect blocks: 128 KiB, 1024 pointers.
pub(crate) const INDIRECT_SHIFT: u8 = 17;
pub(crate) const POINTERS_PER_INDIRECT: usize = (1 << INDIRECT_SHIFT) / 128;

/// `used` counts bytes, not sectors.
pub(crate) const FLAG_USED_BYTES: u8 = 1;
/// The object's bytes, and the object itself, are counted in the totals of its owners.
pub(crate) const FLAG_BYTES_ACCOUNTED: u8 = 2;
pub(crate) const FLAG_OBJECTS_ACCOUNTED: u8 = 8;
/// The last 128 bytes are a pointer to a spill block.
const FLAG_SPILL: u8 = 4;

/// One object.
#[derive(Clone, Debug)]
pub(crate) struct Dnode {
    pub(crate) object_type: u8,
    pub(crate) bonus_type: u8,
    pub(crate) bonus: Vec<u8>,
    /// Data block size in bytes.
    pub(crate) block_size: u32,
    pub(crate) levels: u8,
    /// Number of the last data block.
    pub(crate) last_block: u64,
    /// Allocated bytes of all blocks, indirect and spill ones included, times copies.
    pub(crate) used: u64,
    pub(crate) pointer: BlockPointer,
    pub(crate) spill: Option<BlockPointer>,
    /// Size in slots of 512 bytes, 1 to 32.
    pub(crate) slots: u8,
    pub(crate) flags: u8,
}

impl Dnode {
    /// An object of one slot without data and without bonus.
    pub(crate) fn new(object_type: u8) -> Dnode {
        Dnode::with_bonus(object_type, object_type::NONE, Vec::new())
    }

    pub(crate) fn with_bonus(object_type: u8, bonus_type: u8, bonus: Vec<u8>) -> Dnode {
        Dnode {
            object_type,
            bonus_type,
            bonus,
            block_size: SECTOR as u32,
            levels: 1,
            last_block: 0,
            used: 0,
            pointer: BlockPointer::HOLE,
            spill: None,
            slots: 1,
            flags: FLAG_USED_BYTES,
        }
    }

    /// The dnode as it stands in its block: `slots` × 512 bytes.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        const ONE_POINTER: u8 = 1;
        let mut bytes = vec![0; SLOT * usize::from(self.slots)];
        bytes[0] = self.object_type;
        bytes[1] = INDIRECT_SHIFT;
        bytes[2] = self.levels;
        bytes[3] = ONE_POINTER;
        bytes[4] = self.bonus_type;
        bytes[7] = self.flags | if self.spill.is_some() { FLAG_SPILL } else { 0 };
        put_u16(&mut bytes, 8, (self.block_size as usize / SECTOR) as u16);
        put_u16(&mut bytes, 10, self.bonus.len() as u16);
        bytes[12] = self.slots - 1;
        put_u64(&mut bytes, 16, self.last_block);
        put_u64(&mut bytes, 24, self.used);
        bytes[64..BONUS_OFFSET].copy_from_slice(&self.pointer.to_bytes());
        bytes[BONUS_OFFSET..BONUS_OFFSET + self.bonus.len()].copy_from_slice(&self.bonus);
        if let Some(spill) = self.spill {
            let at = bytes.len() - SPILL_POINTER;
            bytes[at..].copy_from_slice(&spill.to_bytes());
        }
        bytes
    }
}

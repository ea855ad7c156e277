//! An object set under construction: numbered objects, their blocks, and the array of dnodes they end up in.

use std::collections::BTreeMap;

use crate::format::blkptr::Role;
use crate::format::dnode::{self, Dnode, SLOT, SLOTS_PER_BLOCK};
use crate::format::zap::Zap;
use crate::write::error::WriteError;
use crate::write::indirect::IndirectTree;
use crate::write::media::{Media, Placement};
use crate::write::space::Space;

/// Bytes of an `objset_phys_t` with its three accounting dnodes.
pub(crate) const OBJSET_LEN: usize = 4096;
pub(crate) const TYPE_AT: usize = 704;

/// One block of the dnode array.
#[derive(Debug)]
pub(crate) struct DnodeBlock {
    pub(crate) bytes: Vec<u8>,
    /// Dnodes in it.
    pub(crate) fill: u64,
}

/// Objects by number.
#[derive(Debug)]
pub(crate) struct ObjectSet {
    objects: BTreeMap<u64, Dnode>,
    /// First free slot; slot 0 is never an object.
    next: u64,
    copies: usize,
    pub(crate) space: Space,
}

impl ObjectSet {
    /// An empty set whose metadata is stored `copies` times.
    pub(crate) fn new(copies: usize) -> ObjectSet {
        ObjectSet { objects: BTreeMap::new(), next: 1, copies, space: Space::default() }
    }

    /// Gives an object the next free number. A dnode never crosses a block of dnodes.
    pub(crate) fn add(&mut self, dnode: Dnode) -> u64 {
        let slots = u64::from(dnode.slots);
        let per_block = SLOTS_PER_BLOCK as u64;
        if self.next % per_block + slots > per_block {
            self.next = self.next.next_multiple_of(per_block);
        }
        let object = self.next;
        self.next += slots;
        self.objects.insert(object, dnode);
        object
    }

    pub(crate) fn get_mut(&mut self, object: u64) -> &mut Dnode {
        self.objects.get_mut(&object).expect("object numbers come from `add`")
    }

    pub(crate) fn get(&self, object: u64) -> &Dnode {
        self.objects.get(&object).expect("object numbers come from `add`")
    }

    /// First free object number.
    pub(crate) fn next(&self) -> u64 {
        self.next
    }

    pub(crate) fn len(&self) -> usize {
        self.objects.len()
    }

    /// Stores the blocks of an object.
    pub(crate) fn set_blocks(
        &mut self,
        media: &mut Media,
        object: u64,
        block_size: u32,
        blocks: &[Vec<u8>],
    ) -> Result<(), WriteError> {
        let copies = self.copies;
        let dnode = self.get_mut(object);
        let space = store_blocks(media, dnode, copies, block_size, blocks)?;
        self.space += space;
        Ok(())
    }

    /// Stores a table as the blocks of an object.
    pub(crate) fn set_zap(&mut self, media: &mut Media, object: u64, zap: &Zap) -> Result<(), WriteError> {
        let built = zap.build().map_err(|_| WriteError::TableTooCrowded { entries: zap.entries.len() })?;
        self.set_blocks(media, object, built.block_size, &built.blocks)
    }

    /// Adds an object that is a table.
    pub(crate) fn add_zap(
        &mut self,
        media: &mut Media,
        object_type: u8,
        zap: &Zap,
    ) -> Result<u64, WriteError> {
        let object = self.add(Dnode::new(object_type));
        self.set_zap(media, object, zap)?;
        Ok(object)
    }

    /// Stores a table whose dnode lives in the object set's header, not in the array.
    pub(crate) fn header_zap(
        &mut self,
        media: &mut Media,
        object_type: u8,
        zap: &Zap,
    ) -> Result<Dnode, WriteError> {
        let built = zap.build().map_err(|_| WriteError::TableTooCrowded { entries: zap.entries.len() })?;
        let mut dnode = Dnode::new(object_type);
        self.space += store_blocks(media, &mut dnode, self.copies, built.block_size, &built.blocks)?;
        Ok(dnode)
    }

    /// Number of blocks that the dnode array has when `more` one-slot objects are added.
    pub(crate) fn dnode_block_count(&self, more: u64) -> u64 {
        (self.next + more).div_ceil(SLOTS_PER_BLOCK as u64)
    }

    /// The dnode array, block by block.
    pub(crate) fn dnode_blocks(&self) -> impl Iterator<Item = DnodeBlock> {
        let per_block = SLOTS_PER_BLOCK as u64;
        (0..self.dnode_block_count(0)).map(move |block| {
            let first = block * per_block;
            let mut bytes = vec![0; dnode::BLOCK];
            let mut fill = 0;
            for (object, dnode) in self.objects.range(first..first + per_block) {
                let at = (object - first) as usize * SLOT;
                let encoded = dnode.to_bytes();
                bytes[at..at + encoded.len()].copy_from_slice(&encoded);
                fill += 1;
            }
            DnodeBlock { bytes, fill }
        })
    }
}

fn store_blocks(
    media: &mut Media,
    dnode: &mut Dnode,
    copies: usize,
    block_size: u32,
    blocks: &[Vec<u8>],
) -> Result<Space, WriteError> {
    let role = Role { object_type: dnode.object_type, level: 0 };
    let mut tree = IndirectTree::new(dnode.object_type, copies);
    let mut space = Space::default();
    for block in blocks {
        let stored = media.store(block, Placement { role, copies, fill: 1 })?;
        space += stored.space;
        tree.push(media, stored.pointer)?;
    }
    let root = tree.finish(media, 1)?;
    space += root.space;
    dnode.used += space.referenced;
    dnode.pointer = root.pointer;
    dnode.levels = root.levels;
    dnode.block_size = block_size;
    dnode.last_block = blocks.len().saturating_sub(1) as u64;
    Ok(space)
}

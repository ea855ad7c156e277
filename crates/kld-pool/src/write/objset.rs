//! An object set under construction: numbered objects, their blocks, and the array of dnodes they end up in.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::format::blkptr::BlockPointer;
use crate::format::dnode::{self, Dnode, SLOT, SLOTS_PER_BLOCK, object_type};
use crate::format::put_u64;
use crate::format::zap::Zap;
use crate::write::blocks::Blocks;
use crate::write::error::WriteError;
use crate::write::indirect::{IndirectTree, Root};
use crate::write::media::Media;
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

/// What has blocks in an object set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    Object(u64),
    /// The spill block of an object.
    Spill(u64),
    /// One of the accounting tables.
    Account(u8),
    /// The dnode array.
    Dnodes,
    Header,
}

/// What one version of an object set leaves to the next.
#[derive(Clone, Debug, Default)]
pub(crate) struct Legacy {
    next: u64,
    parts: BTreeMap<Part, Arc<Blocks>>,
}

/// Objects by number.
#[derive(Debug)]
pub(crate) struct ObjectSet {
    objects: BTreeMap<u64, Dnode>,
    /// First free slot; slot 0 is never an object.
    next: u64,
    pub(crate) space: Space,
    /// Blocks of this version and of the one before, where they are remembered.
    parts: BTreeMap<Part, Arc<Blocks>>,
    before: BTreeMap<Part, Arc<Blocks>>,
}

impl ObjectSet {
    /// An empty set.
    pub(crate) fn new() -> ObjectSet {
        ObjectSet::following(Legacy::default())
    }

    /// The next version of a set: numbers go on where it ended.
    pub(crate) fn following(legacy: Legacy) -> ObjectSet {
        ObjectSet {
            objects: BTreeMap::new(),
            next: legacy.next.max(1),
            space: Space::default(),
            parts: BTreeMap::new(),
            before: legacy.parts,
        }
    }

    pub(crate) fn leave(self) -> Legacy {
        Legacy { next: self.next, parts: self.parts }
    }

    /// All objects, by number.
    pub(crate) fn take_objects(&mut self) -> BTreeMap<u64, Dnode> {
        std::mem::take(&mut self.objects)
    }

    /// The blocks of the version before that this one no longer has.
    pub(crate) fn dead(&self) -> Vec<BlockPointer> {
        let changed = self.before.iter().map(|(part, blocks)| (blocks, self.parts.get(part)));
        let changed = changed.filter(|(before, now)| now.is_none_or(|now| !Arc::ptr_eq(before, now)));
        changed.flat_map(|(before, now)| before.dead_in(now.map(|now| &**now))).collect()
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

    /// Gives an object the number it had in an earlier version.
    pub(crate) fn put(&mut self, object: u64, dnode: Dnode) {
        self.objects.insert(object, dnode);
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

    /// The blocks of a part in the version before.
    pub(crate) fn before(&self, part: Part) -> Option<Arc<Blocks>> {
        self.before.get(&part).cloned()
    }

    /// Starts the tree over the blocks of a part.
    pub(crate) fn tree(&self, media: &Media, part: Part, object_type: u8, block_size: u64) -> IndirectTree {
        IndirectTree::new(media, object_type, block_size, self.before(part))
    }

    /// Charges a finished tree to the set.
    pub(crate) fn charge(&mut self, part: Part, root: &Root) {
        self.space += root.space;
        if let Some(blocks) = &root.blocks {
            self.parts.insert(part, Arc::clone(blocks));
        }
    }

    /// Makes a finished tree the content of an object.
    pub(crate) fn set_content(&mut self, object: u64, block_size: u32, blocks: u64, root: &Root) {
        self.charge(Part::Object(object), root);
        set_content(self.get_mut(object), block_size, blocks, root);
    }

    /// Stores the blocks of an object.
    pub(crate) fn set_blocks(
        &mut self,
        media: &mut Media,
        object: u64,
        block_size: u32,
        blocks: &[Vec<u8>],
    ) -> Result<(), WriteError> {
        let object_type = self.get(object).object_type;
        let root = self.store_blocks(media, Part::Object(object), object_type, block_size, blocks)?;
        set_content(self.get_mut(object), block_size, blocks.len() as u64, &root);
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
    pub(crate) fn account(
        &mut self,
        media: &mut Media,
        index: u8,
        object_type: u8,
        zap: &Zap,
    ) -> Result<Dnode, WriteError> {
        let built = zap.build().map_err(|_| WriteError::TableTooCrowded { entries: zap.entries.len() })?;
        let part = Part::Account(index);
        let root = self.store_blocks(media, part, object_type, built.block_size, &built.blocks)?;
        let mut dnode = Dnode::new(object_type);
        set_content(&mut dnode, built.block_size, built.blocks.len() as u64, &root);
        Ok(dnode)
    }

    /// Stores the spill block of an object.
    pub(crate) fn set_spill(
        &mut self,
        media: &mut Media,
        object: u64,
        spill: Vec<u8>,
    ) -> Result<(), WriteError> {
        let size = spill.len() as u32;
        let root = self.store_blocks(media, Part::Spill(object), object_type::SA, size, &[spill])?;
        let dnode = self.get_mut(object);
        dnode.spill = Some(root.pointer);
        dnode.used += root.space.referenced;
        Ok(())
    }

    fn store_blocks(
        &mut self,
        media: &mut Media,
        part: Part,
        object_type: u8,
        block_size: u32,
        blocks: &[Vec<u8>],
    ) -> Result<Root, WriteError> {
        let mut tree = self.tree(media, part, object_type, u64::from(block_size));
        for block in blocks {
            tree.store(media, block, 1)?;
        }
        let root = tree.finish(media, 1)?;
        self.charge(part, &root);
        Ok(root)
    }

    /// Writes the dnode array of a dataset and the header above it, whose accounting dnodes are `accounts`.
    pub(crate) fn write(
        &mut self,
        media: &mut Media,
        kind: u64,
        accounts: &[Dnode],
    ) -> Result<BlockPointer, WriteError> {
        /// The dnode array of a dataset has as many levels as it can ever need: OpenZFS never adds one.
        const DNODE_LEVELS: u8 = 6;
        const ACCOUNTS_AT: usize = 1024;
        const FLAGS_AT: usize = 712;
        /// Accounting is complete: bytes of users and groups, with a table for projects also objects and projects.
        const BYTES_COMPLETE: u64 = 1;
        const ALL_COMPLETE: u64 = 7;
        let mut tree = self.tree(media, Part::Dnodes, object_type::DNODE, dnode::BLOCK as u64);
        for block in self.dnode_blocks() {
            if block.fill == 0 {
                tree.push_holes(media, 1)?;
            } else {
                tree.store(media, &block.bytes, block.fill)?;
            }
        }
        let root = tree.finish(media, DNODE_LEVELS)?;
        self.charge(Part::Dnodes, &root);
        let mut meta_dnode = Dnode::new(object_type::DNODE);
        set_content(&mut meta_dnode, dnode::BLOCK as u32, self.dnode_block_count(0), &root);

        let mut header = vec![0; OBJSET_LEN];
        header[..SLOT].copy_from_slice(&meta_dnode.to_bytes());
        put_u64(&mut header, TYPE_AT, kind);
        let complete = match accounts.len() {
            0 => 0,
            3 => ALL_COMPLETE,
            _ => BYTES_COMPLETE,
        };
        put_u64(&mut header, FLAGS_AT, complete);
        for (slot, account) in header[ACCOUNTS_AT..].chunks_exact_mut(SLOT).zip(accounts) {
            slot.copy_from_slice(&account.to_bytes());
        }
        let mut tree = self.tree(media, Part::Header, object_type::OBJSET, OBJSET_LEN as u64);
        tree.store_plain(media, &header, root.pointer.fill())?;
        let root = tree.finish(media, 1)?;
        self.charge(Part::Header, &root);
        Ok(root.pointer)
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

fn set_content(dnode: &mut Dnode, block_size: u32, blocks: u64, root: &Root) {
    dnode.used += root.space.referenced;
    dnode.pointer = root.pointer;
    dnode.levels = root.levels;
    dnode.block_size = block_size;
    dnode.last_block = blocks.saturating_sub(1);
}

//! The pool's output: blocks are placed in order, written, and become block pointers.

use std::io;

use crate::codec::{Allow, Block, Compression, Encoder, Form};
use crate::device::WriteAt;
use crate::format::blkptr::{Address, BlockPointer, Dva, Role};
use crate::format::dnode::object_type;
use crate::format::hasher::{Algorithm, Hasher};
use crate::write::allocator::{Allocator, Class, MAX_COPIES};
use crate::write::error::WriteError;
use crate::write::shape::Shape;
use crate::write::space::{DATA_START, Deflation};
use crate::write::txg;

/// Copies of the pool's own blocks.
pub(crate) const POOL_COPIES: usize = MAX_COPIES;

/// How the blocks of a dataset, or of the pool itself, are written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// Transaction group of the blocks.
    pub(crate) birth: u64,
    /// Checksum of content; metadata has it, too, where it can.
    pub(crate) hasher: Hasher,
    /// Copies of each block of content and of metadata.
    pub(crate) content_copies: usize,
    pub(crate) metadata_copies: usize,
    /// Whether to remember blocks, for a later version to share them.
    pub(crate) record: bool,
}

impl Rules {
    /// fletcher-4 and one birth for all, content once.
    pub(crate) fn plain(metadata_copies: usize) -> Rules {
        Rules {
            birth: txg::BIRTH,
            hasher: Hasher::new(Algorithm::Fletcher4, [0; 32]),
            content_copies: 1,
            metadata_copies,
            record: false,
        }
    }

    fn copies(&self, role: Role) -> usize {
        if role.is_metadata() { self.metadata_copies } else { self.content_copies }
    }
}

/// The output, one or several devices for each top-level vdev, and its allocator.
pub(crate) struct Media<'a> {
    vdevs: Vec<&'a [&'a dyn WriteAt]>,
    shapes: Vec<Shape>,
    deflation: Deflation,
    pub(crate) allocator: Allocator,
    metadata: Encoder,
    buffer: Vec<u8>,
    written: u64,
    pub(crate) rules: Rules,
}

impl std::fmt::Debug for Media<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Media").field("allocator", &self.allocator).field("written", &self.written).finish()
    }
}

impl<'a> Media<'a> {
    pub(crate) fn new(
        vdevs: Vec<&'a [&'a dyn WriteAt]>,
        shapes: Vec<Shape>,
        ashift: u8,
        rules: Rules,
    ) -> Result<Media<'a>, WriteError> {
        let metadata = Encoder::new(Compression::Lz4, rules.hasher.for_metadata(), ashift)
            .map_err(|source| WriteError::Compress { source })?;
        let (allocator, deflation) = (Allocator::new(&shapes), Deflation::of(&shapes));
        Ok(Media { vdevs, shapes, deflation, allocator, metadata, buffer: Vec::new(), written: 0, rules })
    }

    /// Changes how the blocks to come are written.
    pub(crate) fn set_rules(&mut self, rules: Rules) {
        self.metadata.set_hasher(rules.hasher.for_metadata());
        self.rules = rules;
    }

    pub(crate) fn deflation(&self) -> &Deflation {
        &self.deflation
    }

    /// What is charged for copies.
    pub(crate) fn charge(&self, copies: &[Dva]) -> u64 {
        copies.iter().map(|copy| self.deflation.charge(copy.address.vdev(), copy.asize)).sum()
    }

    /// Bytes written so far, once for all devices of a vdev.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    pub(crate) fn sync(&self) -> Result<(), WriteError> {
        self.vdevs
            .iter()
            .copied()
            .flatten()
            .try_for_each(|out| out.sync())
            .map_err(|source| WriteError::Sync { source })
    }

    /// Gives a block its place. The numbers of addresses say where the caller must write its bytes.
    pub(crate) fn place(&mut self, block: &Block, role: Role, fill: u64) -> (BlockPointer, Vec<u64>) {
        let birth = self.rules.birth;
        match &block.form {
            Form::Hole => (BlockPointer::HOLE, Vec::new()),
            Form::Embedded { payload, compression } => {
                (BlockPointer::embedded(payload, block.lsize, *compression, role, birth), Vec::new())
            }
            Form::Stored(extent) => {
                let class = if role.is_metadata() { Class::Metadata } else { Class::Content };
                let copies = self.allocator.allocate(class, extent.asize, self.rules.copies(role));
                let pointer = BlockPointer::stored(extent, &copies, role, birth, fill);
                (pointer, copies.iter().map(|copy| copy.address.number()).collect())
            }
        }
    }

    /// Stores a block of metadata, compressed with lz4 where that helps.
    pub(crate) fn store(&mut self, data: &[u8], role: Role, fill: u64) -> Result<BlockPointer, WriteError> {
        let has_own_fill =
            matches!(role.object_type, object_type::DNODE | object_type::OBJSET | object_type::SA);
        let allow = Allow { embedded: role.level == 0 && !has_own_fill, holes: false };
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        let block = self
            .metadata
            .encode(data, allow, &mut buffer)
            .map_err(|source| WriteError::Compress { source })?;
        self.finish(&block, role, fill, buffer)
    }

    /// Stores a block of metadata as it is.
    pub(crate) fn store_plain(
        &mut self,
        data: &[u8],
        role: Role,
        fill: u64,
    ) -> Result<BlockPointer, WriteError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        let block = self.metadata.store_plain(data, &mut buffer);
        self.finish(&block, role, fill, buffer)
    }

    fn finish(
        &mut self,
        block: &Block,
        role: Role,
        fill: u64,
        buffer: Vec<u8>,
    ) -> Result<BlockPointer, WriteError> {
        let (pointer, addresses) = self.place(block, role, fill);
        for address in addresses {
            self.write(&buffer, address)?;
        }
        self.buffer = buffer;
        Ok(pointer)
    }

    /// Encodes `data` uncompressed in `copies` that were allocated before.
    pub(crate) fn store_at(
        &mut self,
        data: &[u8],
        copies: &[Dva],
        role: Role,
        fill: u64,
    ) -> Result<BlockPointer, WriteError> {
        let mut buffer = Vec::new();
        let block = self.metadata.store_plain(data, &mut buffer);
        for copy in copies {
            self.write(&buffer, copy.address.number())?;
        }
        match &block.form {
            Form::Stored(extent) => Ok(BlockPointer::stored(extent, copies, role, self.rules.birth, fill)),
            Form::Hole | Form::Embedded { .. } => unreachable!("plain blocks are stored"),
        }
    }

    /// Writes the sectors of one block, or of a mirror also of blocks that follow one another, at an address, given as a
    /// number. Once something did not fit nothing more is
    /// written: the run is then only about how much space would have been needed.
    pub(crate) fn write(&mut self, bytes: &[u8], address: u64) -> Result<(), WriteError> {
        if !self.allocator.fits() {
            return Ok(());
        }
        self.written += bytes.len() as u64;
        let address = Address::of_number(address);
        let at = DATA_START + address.offset();
        let outs = self.vdevs[address.vdev()];
        match &self.shapes[address.vdev()].raidz {
            None => outs.iter().try_for_each(|out| write_to(*out, bytes, at)),
            Some(raidz) => raidz.columns(address.offset(), bytes).iter().try_for_each(|column| {
                write_to(outs[column.device], &column.bytes, DATA_START + column.offset)
            }),
        }
    }

    /// Writes at an offset of one device of a vdev.
    pub(crate) fn write_one(
        &mut self,
        vdev: usize,
        device: usize,
        bytes: &[u8],
        offset: u64,
    ) -> Result<(), WriteError> {
        if device == 0 {
            self.written += bytes.len() as u64;
        }
        write_to(self.vdevs[vdev][device], bytes, offset)
    }
}

fn write_to(out: &dyn WriteAt, bytes: &[u8], offset: u64) -> Result<(), WriteError> {
    out.write_all_at(bytes, offset).map_err(|source: io::Error| WriteError::Output { offset, source })
}

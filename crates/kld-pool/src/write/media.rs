//! The pool's one output: blocks are placed in order, written, and become block pointers.

use std::io;

use crate::codec::{Allow, Block, Compression, Encoder, Form};
use crate::device::WriteAt;
use crate::format::blkptr::{BlockPointer, Role};
use crate::format::dnode::object_type;
use crate::write::error::WriteError;
use crate::write::space::{Allocator, DATA_START, Space};
use crate::write::txg;

/// Copies of metadata in a dataset, and of the pool's own.
pub(crate) const DATASET_COPIES: usize = 2;
pub(crate) const POOL_COPIES: usize = 3;

/// A block that is in the pool, and what it costs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stored {
    pub(crate) pointer: BlockPointer,
    pub(crate) space: Space,
}

/// How a block of metadata is stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placement {
    pub(crate) role: Role,
    pub(crate) copies: usize,
    pub(crate) fill: u64,
}

/// The output with its allocator.
pub(crate) struct Media<'a> {
    out: &'a dyn WriteAt,
    pub(crate) allocator: Allocator,
    metadata: Encoder,
    buffer: Vec<u8>,
    written: u64,
}

impl std::fmt::Debug for Media<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Media").field("allocator", &self.allocator).field("written", &self.written).finish()
    }
}

impl<'a> Media<'a> {
    pub(crate) fn new(
        out: &'a dyn WriteAt,
        allocator: Allocator,
        ashift: u8,
    ) -> Result<Media<'a>, WriteError> {
        let metadata =
            Encoder::new(Compression::Lz4, ashift).map_err(|source| WriteError::Compress { source })?;
        Ok(Media { out, allocator, metadata, buffer: Vec::new(), written: 0 })
    }

    /// Bytes written so far.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    pub(crate) fn sync(&self) -> Result<(), WriteError> {
        self.out.sync().map_err(|source| WriteError::Sync { source })
    }

    /// Gives a block its place. The offsets say where the caller must write its bytes.
    pub(crate) fn place(&mut self, block: &Block, at: Placement) -> (Stored, Vec<u64>) {
        let metadata = is_metadata(at.role);
        match &block.form {
            Form::Hole => (Stored { pointer: BlockPointer::HOLE, space: Space::default() }, Vec::new()),
            Form::Embedded { payload, compression } => {
                let compressed = payload.len() as u64;
                let uncompressed = if metadata { compressed } else { block.lsize };
                let pointer = BlockPointer::embedded(payload, block.lsize, *compression, at.role, txg::BIRTH);
                (Stored { pointer, space: Space { referenced: 0, compressed, uncompressed } }, Vec::new())
            }
            Form::Stored(extent) => {
                let offsets: Vec<u64> =
                    (0..at.copies).map(|_| self.allocator.allocate(extent.asize)).collect();
                let pointer = BlockPointer::stored(extent, &offsets, at.role, txg::BIRTH, at.fill);
                let space = Space {
                    referenced: extent.asize * at.copies as u64,
                    compressed: extent.psize,
                    uncompressed: if metadata { extent.psize } else { extent.lsize },
                };
                (Stored { pointer, space }, offsets)
            }
        }
    }

    /// Stores a block of metadata, compressed with lz4 where that helps.
    pub(crate) fn store(&mut self, data: &[u8], at: Placement) -> Result<Stored, WriteError> {
        let has_own_fill =
            matches!(at.role.object_type, object_type::DNODE | object_type::OBJSET | object_type::SA);
        let allow = Allow { embedded: at.role.level == 0 && !has_own_fill, holes: false };
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        let block = self
            .metadata
            .encode(data, allow, &mut buffer)
            .map_err(|source| WriteError::Compress { source })?;
        self.finish(&block, at, buffer)
    }

    /// Stores a block of metadata as it is.
    pub(crate) fn store_plain(&mut self, data: &[u8], at: Placement) -> Result<Stored, WriteError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        let block = self.metadata.store_plain(data, &mut buffer);
        self.finish(&block, at, buffer)
    }

    fn finish(&mut self, block: &Block, at: Placement, buffer: Vec<u8>) -> Result<Stored, WriteError> {
        let (stored, offsets) = self.place(block, at);
        for offset in offsets {
            self.write(&buffer, offset)?;
        }
        self.buffer = buffer;
        Ok(stored)
    }

    /// Encodes `data` uncompressed at `offsets` that were allocated before.
    pub(crate) fn store_at(
        &mut self,
        data: &[u8],
        offsets: &[u64],
        role: Role,
        fill: u64,
    ) -> Result<BlockPointer, WriteError> {
        let mut buffer = Vec::new();
        let block = self.metadata.store_plain(data, &mut buffer);
        for offset in offsets {
            self.write(&buffer, *offset)?;
        }
        match &block.form {
            Form::Stored(extent) => Ok(BlockPointer::stored(extent, offsets, role, txg::BIRTH, fill)),
            Form::Hole | Form::Embedded { .. } => unreachable!("plain blocks are stored"),
        }
    }

    /// Writes at an offset of the allocatable space. What lies past its end is dropped: the run is then only about how
    /// much space would have been needed.
    pub(crate) fn write(&mut self, bytes: &[u8], offset: u64) -> Result<(), WriteError> {
        if self.allocator.fits() {
            self.write_device(bytes, DATA_START + offset)?;
        }
        Ok(())
    }

    /// Writes at an offset of the vdev.
    pub(crate) fn write_device(&mut self, bytes: &[u8], offset: u64) -> Result<(), WriteError> {
        self.written += bytes.len() as u64;
        self.out
            .write_all_at(bytes, offset)
            .map_err(|source: io::Error| WriteError::Output { offset, source })
    }
}

/// Whether ZFS counts a block as metadata: everything but the level-0 blocks of files.
fn is_metadata(role: Role) -> bool {
    role.level > 0 || role.object_type != object_type::PLAIN_FILE
}

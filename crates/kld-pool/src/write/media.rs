//! The pool's output: blocks are placed in order, written, and become block pointers.

use std::io;

use crate::codec::{Allow, Block, Compression, Encoder, Form, Output};
use crate::device::WriteAt;
use crate::format::blkptr::{BlockPointer, Role};
use crate::format::dnode::object_type;
use crate::format::hasher::{Algorithm, Hasher};
use crate::write::allocator::{Allocator, Class, MAX_COPIES};
use crate::write::error::WriteError;
use crate::write::space::DATA_START;
use crate::write::txg;

/// Blocks of metadata that follow one another are written together, up to about this many bytes.
const RUN: usize = 1 << 20;

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

/// The output, one or several devices with the same content, and its allocator.
pub(crate) struct Media<'a> {
    outs: &'a [&'a dyn WriteAt],
    pub(crate) allocator: Allocator,
    metadata: Encoder,
    buffer: Output,
    /// Metadata that is not written yet, by copy: each has a lane of its own.
    runs: [Run; MAX_COPIES],
    written: u64,
    pub(crate) rules: Rules,
}

/// Bytes that go to one place.
#[derive(Debug, Default)]
struct Run {
    offset: u64,
    bytes: Vec<u8>,
}

impl std::fmt::Debug for Media<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Media").field("allocator", &self.allocator).field("written", &self.written).finish()
    }
}

impl<'a> Media<'a> {
    pub(crate) fn new(
        outs: &'a [&'a dyn WriteAt],
        allocator: Allocator,
        ashift: u8,
        rules: Rules,
    ) -> Result<Media<'a>, WriteError> {
        let metadata = Encoder::new(Compression::Lz4, rules.hasher.for_metadata(), ashift)
            .map_err(|source| WriteError::Compress { source })?;
        let (buffer, runs) = Default::default();
        Ok(Media { outs, allocator, metadata, buffer, runs, written: 0, rules })
    }

    /// Changes how the blocks to come are written.
    pub(crate) fn set_rules(&mut self, rules: Rules) {
        self.metadata.set_hasher(rules.hasher.for_metadata());
        self.rules = rules;
    }

    /// Bytes written so far to each device.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Writes what is still to be written, and makes everything durable.
    pub(crate) fn sync(&mut self) -> Result<(), WriteError> {
        (0..self.runs.len()).try_for_each(|copy| self.flush(copy))?;
        self.outs.iter().try_for_each(|out| out.sync()).map_err(|source| WriteError::Sync { source })
    }

    /// Gives a block its place. The offsets say where the caller must write its bytes.
    pub(crate) fn place(&mut self, block: &Block, role: Role, fill: u64) -> (BlockPointer, Vec<u64>) {
        let birth = self.rules.birth;
        match &block.form {
            Form::Hole => (BlockPointer::HOLE, Vec::new()),
            Form::Embedded { payload, compression } => {
                (BlockPointer::embedded(payload, block.lsize, *compression, role, birth), Vec::new())
            }
            Form::Stored(extent) => {
                let class = if role.is_metadata() { Class::Metadata } else { Class::Content };
                let offsets = self.allocator.allocate(class, extent.asize, self.rules.copies(role));
                (BlockPointer::stored(extent, &offsets, role, birth, fill), offsets)
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
        buffer: Output,
    ) -> Result<BlockPointer, WriteError> {
        let (pointer, offsets) = self.place(block, role, fill);
        self.append(buffer.bytes(), &offsets)?;
        self.buffer = buffer;
        Ok(pointer)
    }

    /// Encodes `data` uncompressed at `offsets` that were allocated before.
    pub(crate) fn store_at(
        &mut self,
        data: &[u8],
        offsets: &[u64],
        role: Role,
        fill: u64,
    ) -> Result<BlockPointer, WriteError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        let block = self.metadata.store_plain(data, &mut buffer);
        self.append(buffer.bytes(), offsets)?;
        self.buffer = buffer;
        match &block.form {
            Form::Stored(extent) => Ok(BlockPointer::stored(extent, offsets, role, self.rules.birth, fill)),
            Form::Hole | Form::Embedded { .. } => unreachable!("plain blocks are stored"),
        }
    }

    /// Writes the copies of a block of metadata, each together with what lies before and behind it.
    fn append(&mut self, bytes: &[u8], offsets: &[u64]) -> Result<(), WriteError> {
        if !self.writes() {
            return Ok(());
        }
        for (copy, offset) in offsets.iter().enumerate() {
            let run = &self.runs[copy];
            if run.offset + run.bytes.len() as u64 != *offset || run.bytes.len() >= RUN {
                self.flush(copy)?;
                self.runs[copy].offset = *offset;
            }
            self.runs[copy].bytes.extend_from_slice(bytes);
        }
        Ok(())
    }

    fn flush(&mut self, copy: usize) -> Result<(), WriteError> {
        let mut run = std::mem::take(&mut self.runs[copy]);
        if !run.bytes.is_empty() {
            self.count(run.bytes.len());
            write_blocks(self.outs, &run.bytes, run.offset)?;
        }
        run.bytes.clear();
        self.runs[copy] = run;
        Ok(())
    }

    /// Whether blocks are written. Once something did not fit nothing more is: the run is then only about how much space
    /// would have been needed.
    pub(crate) fn writes(&self) -> bool {
        self.allocator.fits()
    }

    /// For threads that write content: where the caller then says that something was written.
    pub(crate) fn outs(&self) -> &'a [&'a dyn WriteAt] {
        self.outs
    }

    /// Counts bytes that were, or will be, written by somebody else.
    pub(crate) fn count(&mut self, bytes: usize) {
        self.written += bytes as u64;
    }

    /// Writes at an offset of the device at `index`.
    pub(crate) fn write_one(&mut self, index: usize, bytes: &[u8], offset: u64) -> Result<(), WriteError> {
        if index == 0 {
            self.written += bytes.len() as u64;
        }
        write_to(self.outs[index], bytes, offset)
    }
}

/// Writes at an offset of the allocatable space of every device.
pub(crate) fn write_blocks(outs: &[&dyn WriteAt], bytes: &[u8], offset: u64) -> Result<(), WriteError> {
    outs.iter().try_for_each(|out| write_to(*out, bytes, DATA_START + offset))
}

fn write_to(out: &dyn WriteAt, bytes: &[u8], offset: u64) -> Result<(), WriteError> {
    out.write_all_at(bytes, offset).map_err(|source: io::Error| WriteError::Output { offset, source })
}

//! The pool's output: blocks are placed in order, written, and become block pointers.

use crate::codec::{Allow, Block, Compression, Encoder, Form, Output};
use crate::device::WriteAt;
use crate::format::blkptr::{BlockPointer, Dva, Role};
use crate::format::dnode::object_type;
use crate::format::hasher::{Algorithm, Hasher};
use crate::write::allocator::{Allocator, Class, MAX_COPIES};
use crate::write::error::WriteError;
use crate::write::outputs::Outputs;
use crate::write::shape::Shape;
use crate::write::space::Deflation;
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

/// The output and its allocator.
pub(crate) struct Media<'a> {
    outputs: Outputs<'a>,
    deflation: Deflation,
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
    /// The number of an address.
    address: u64,
    bytes: Vec<u8>,
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
        let (outputs, (buffer, runs)) = (Outputs::new(vdevs, &shapes), Default::default());
        Ok(Media { outputs, deflation, allocator, metadata, buffer, runs, written: 0, rules })
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

    /// Writes what is still to be written, and makes everything durable.
    pub(crate) fn sync(&mut self) -> Result<(), WriteError> {
        (0..self.runs.len()).try_for_each(|copy| self.flush(copy))?;
        self.outputs.sync()
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
        buffer: Output,
    ) -> Result<BlockPointer, WriteError> {
        let (pointer, addresses) = self.place(block, role, fill);
        self.append(buffer.bytes(), addresses.into_iter())?;
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
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        let block = self.metadata.store_plain(data, &mut buffer);
        self.append(buffer.bytes(), copies.iter().map(|copy| copy.address.number()))?;
        self.buffer = buffer;
        match &block.form {
            Form::Stored(extent) => Ok(BlockPointer::stored(extent, copies, role, self.rules.birth, fill)),
            Form::Hole | Form::Embedded { .. } => unreachable!("plain blocks are stored"),
        }
    }

    /// Writes the copies of a block of metadata, each together with what lies before and behind it. Blocks of a raidz never
    /// do: each has its parity between itself and the next.
    fn append(&mut self, bytes: &[u8], addresses: impl Iterator<Item = u64>) -> Result<(), WriteError> {
        if !self.writes() {
            return Ok(());
        }
        for (copy, address) in addresses.enumerate() {
            let run = &self.runs[copy];
            if run.address + run.bytes.len() as u64 != address || run.bytes.len() >= RUN {
                self.flush(copy)?;
                self.runs[copy].address = address;
            }
            self.runs[copy].bytes.extend_from_slice(bytes);
        }
        Ok(())
    }

    fn flush(&mut self, copy: usize) -> Result<(), WriteError> {
        let mut run = std::mem::take(&mut self.runs[copy]);
        if !run.bytes.is_empty() {
            self.count(run.bytes.len());
            self.outputs.write(&run.bytes, run.address)?;
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

    /// For threads that write content: the caller then says that something was written.
    pub(crate) fn outputs(&self) -> &Outputs<'a> {
        &self.outputs
    }

    /// Counts bytes that were, or will be, written by somebody else.
    pub(crate) fn count(&mut self, bytes: usize) {
        self.written += bytes as u64;
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
            self.count(bytes.len());
        }
        self.outputs.write_one(vdev, device, bytes, offset)
    }
}

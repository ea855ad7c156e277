//! Turns what a walk meets into records. Blocks are read ahead by threads; records come in the order of the walk.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use super::Form;
use super::error::SendError;
use super::record::{Kind, RECORD, Record, Running, SUM_AT};
use super::walk::{Item, is_metadata};
use crate::read::ReadError;
use crate::read::block::Blocks;
use crate::read::checksum::kind;
use crate::read::dnode::Dnode;
use crate::read::pointer::{BlockPointer, Body, Stored};

/// Bytes of blocks that are read ahead.
const AHEAD: usize = 32 << 20;
/// Items that wait, whatever their size.
const MAX_ITEMS: usize = 8192;
/// Largest block that every receiver takes (`SPA_OLD_MAXBLOCKSIZE`).
pub(super) const OLD_MAX_BLOCK: usize = 128 << 10;
/// `enum zio_compress`: not compressed, and the first that old receivers do not know.
const COMPRESS_OFF: u8 = 2;
const COMPRESS_LZ4: u8 = 15;
const COMPRESS_ZSTD: u8 = 16;
/// `DRR_OBJECT_SPILL` of an object, `DRR_SPILL_UNMODIFIED` of a spill block, `DRR_CHECKSUM_DEDUP` of a block.
const FLAG_SPILL: u8 = 1 << 2;
const FLAG_DEDUP: u8 = 1;
/// The length that stands for everything up to the end (`DMU_OBJECT_END`).
const TO_THE_END: u64 = u64::MAX;

/// A block to read.
#[derive(Debug)]
struct Task {
    pointer: BlockPointer,
    /// As it is stored, not decompressed.
    stored: Option<Stored>,
    answer: Sender<Result<Vec<u8>, ReadError>>,
}

/// Reads blocks until there are no more tasks.
fn work(blocks: &Blocks, tasks: &Mutex<Receiver<Task>>) {
    loop {
        let Ok(task) = tasks.lock().map(|tasks| tasks.recv()) else { return };
        let Ok(Task { pointer, stored, answer }) = task else { return };
        let content = match &stored {
            Some(stored) => blocks.read_stored(&pointer, stored),
            None => blocks.read(&pointer),
        };
        // Nobody waits any more once something else failed.
        drop(answer.send(content));
    }
}

/// A free range that may still grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pending {
    Bytes { object: u64, offset: u64, length: u64 },
    Objects { first: u64, count: u64 },
}

/// An item, and the content of its block when it has one that must be read.
type Waiting = (Item, Option<Receiver<Result<Vec<u8>, ReadError>>>);

/// The records of one stream on their way out.
pub(super) struct Output<'o> {
    out: &'o mut dyn Write,
    form: Form,
    to_guid: u64,
    sum: Running,
    bytes: u64,
    pending: Option<Pending>,
}

impl<'o> Output<'o> {
    pub(super) fn new(out: &'o mut dyn Write, form: Form, to_guid: u64) -> Output<'o> {
        Output { out, form, to_guid, sum: Running::default(), bytes: 0, pending: None }
    }

    /// Writes everything `walk` meets.
    pub(super) fn items(
        &mut self,
        blocks: &Blocks,
        threads: usize,
        walk: impl FnOnce(&mut dyn FnMut(Item) -> Result<(), SendError>) -> Result<(), SendError>,
    ) -> Result<(), SendError> {
        let (tasks, queue) = channel();
        let queue = Mutex::new(queue);
        std::thread::scope(|scope| {
            for _ in 0..threads.max(1) {
                scope.spawn(|| work(blocks, &queue));
            }
            // Dropped at the end of this closure: then the threads end.
            let tasks = tasks;
            let mut waiting: VecDeque<Waiting> = VecDeque::new();
            let mut ahead = 0;
            walk(&mut |item| {
                ahead += size(&item);
                let content = self.form.task(&item).map(|(pointer, stored)| {
                    let (answer, content) = channel();
                    // The queue outlives the walk.
                    drop(tasks.send(Task { pointer, stored, answer }));
                    content
                });
                waiting.push_back((item, content));
                while ahead > AHEAD || waiting.len() > MAX_ITEMS {
                    let Some(next) = waiting.pop_front() else { break };
                    ahead -= size(&next.0);
                    self.finish(next)?;
                }
                Ok(())
            })?;
            waiting.into_iter().try_for_each(|next| self.finish(next))
        })
    }

    fn finish(&mut self, (item, content): Waiting) -> Result<(), SendError> {
        let content = match content {
            Some(content) => content.recv().map_err(|_| SendError::Interrupted)??,
            None => Vec::new(),
        };
        self.item(item, &content).map_err(SendError::Write)
    }

    /// Ends the stream; gives its length in bytes.
    pub(super) fn end(mut self) -> io::Result<u64> {
        self.flush_pending()?;
        let end = Record::new(Kind::End).sum(8, self.sum.0).u64(40, self.to_guid);
        self.record(end, &[])?;
        self.out.flush()?;
        Ok(self.bytes)
    }

    /// Writes one item; `content` is what its form says, as it is stored or decoded.
    pub(super) fn item(&mut self, item: Item, content: &[u8]) -> io::Result<()> {
        match item {
            Item::FreeObjects { first, count } => self.free(Pending::Objects { first, count }),
            Item::Free { object, offset, length } => self.free(Pending::Bytes { object, offset, length }),
            Item::Object { number, dnode } => self.object(number, &dnode),
            Item::Block { object, object_type, offset, pointer } => {
                self.flush_pending()?;
                let record = |kind| Record::new(kind).u64(8, object);
                match &pointer.body {
                    Body::Embedded { payload, len, compression } if self.form.embeds(&pointer) => {
                        let record = record(Kind::WriteEmbedded)
                            .u64(16, offset)
                            .u64(24, pointer.lsize as u64)
                            .u64(32, self.to_guid)
                            .u8(40, *compression)
                            .u32(48, pointer.lsize as u32)
                            .u32(52, *len as u32);
                        self.record(record, &padded(&payload[..*len]))
                    }
                    _ => {
                        let record = record(Kind::Write).u32(16, object_type.into()).u64(40, self.to_guid);
                        self.write(record, offset, &pointer, content)
                    }
                }
            }
            Item::Spill { object, pointer, unmodified } => {
                self.flush_pending()?;
                let record = Record::new(Kind::Spill)
                    .u64(8, object)
                    .u64(16, pointer.lsize as u64)
                    .u64(24, self.to_guid)
                    .u8(32, if unmodified { FLAG_SPILL } else { 0 });
                self.record(record, content)
            }
        }
    }

    fn object(&mut self, number: u64, dnode: &Dnode) -> io::Result<()> {
        self.flush_pending()?;
        let most = if self.form.large_blocks { u64::MAX } else { OLD_MAX_BLOCK as u64 };
        let record = Record::new(Kind::Object)
            .u64(8, number)
            .u32(16, dnode.object_type.into())
            .u32(20, dnode.bonus_type.into())
            .u32(24, dnode.block_size.min(most) as u32)
            .u32(28, dnode.bonus.len() as u32)
            .u8(32, dnode.checksum)
            .u8(33, dnode.compression)
            .u8(34, dnode.slots as u8)
            .u8(35, if dnode.spill.is_some() { FLAG_SPILL } else { 0 })
            .u64(40, self.to_guid);
        self.record(record, &padded(&dnode.bonus))?;
        let end = dnode.last_block.saturating_add(1).saturating_mul(dnode.block_size);
        self.free(Pending::Bytes { object: number, offset: end, length: TO_THE_END })
    }

    /// A block, in parts when it is larger than what may be sent.
    fn write(
        &mut self,
        record: Record,
        offset: u64,
        pointer: &BlockPointer,
        content: &[u8],
    ) -> io::Result<()> {
        const NO_CHECKSUM: u8 = kind::OFF;
        let len = pointer.lsize as u64;
        if self.form.splits(pointer) {
            for (i, part) in (0..).zip(content.chunks(OLD_MAX_BLOCK)) {
                let part_of = record.clone().u64(24, offset + i * OLD_MAX_BLOCK as u64);
                self.record(part_of.u64(32, part.len() as u64).u8(48, NO_CHECKSUM), part)?;
            }
            return Ok(());
        }
        let mut record = record.u64(24, offset).u64(32, len).u8(48, NO_CHECKSUM);
        if let Body::Stored(stored) = &pointer.body {
            record = record
                .u8(48, stored.checksum_kind)
                .u8(49, if is_strong(stored.checksum_kind) { FLAG_DEDUP } else { 0 })
                .sum(56, stored.checksum)
                .u64(88, key_properties(len, stored));
            if self.form.sends_stored(pointer).is_some() {
                record = record.u8(50, stored.compression).u64(96, content.len() as u64);
            }
        }
        self.record(record, content)
    }

    /// Frees a range, together with the one before it when they touch.
    fn free(&mut self, range: Pending) -> io::Result<()> {
        let joined = match (self.pending, range) {
            (
                Some(Pending::Bytes { object, offset, length }),
                Pending::Bytes { object: next, offset: from, length: more },
            ) if object == next && offset.wrapping_add(length) == from => {
                let length = if more == TO_THE_END { more } else { length.saturating_add(more) };
                Some(Pending::Bytes { object, offset, length })
            }
            (Some(Pending::Objects { first, count }), Pending::Objects { first: next, count: more })
                if first.saturating_add(count) == next =>
            {
                Some(Pending::Objects { first, count: count.saturating_add(more) })
            }
            _ => None,
        };
        if joined.is_none() {
            self.flush_pending()?;
        }
        self.pending = Some(joined.unwrap_or(range));
        // Nothing can follow what goes up to the end.
        if joined.is_none() && matches!(range, Pending::Bytes { length: TO_THE_END, .. }) {
            self.flush_pending()?;
        }
        Ok(())
    }

    fn flush_pending(&mut self) -> io::Result<()> {
        let record = match self.pending.take() {
            None => return Ok(()),
            Some(Pending::Bytes { object, offset, length }) => {
                Record::new(Kind::Free).u64(8, object).u64(16, offset).u64(24, length).u64(32, self.to_guid)
            }
            Some(Pending::Objects { first, count }) => {
                Record::new(Kind::FreeObjects).u64(8, first).u64(16, count).u64(24, self.to_guid)
            }
        };
        self.record(record, &[])
    }

    /// Writes a record with the checksum of everything before it.
    pub(super) fn record(&mut self, mut record: Record, payload: &[u8]) -> io::Result<()> {
        self.sum.add(&record.0[..SUM_AT]);
        // The first record has a name in this place.
        if record.0[0] != Kind::Begin as u8 {
            record = record.sum(SUM_AT, self.sum.0);
        }
        self.sum.add(&record.0[SUM_AT..]);
        self.sum.add(payload);
        self.bytes += (RECORD + payload.len()) as u64;
        self.out.write_all(&record.0)?;
        self.out.write_all(payload)
    }
}

impl Form {
    /// Whether a block of data is sent as it is embedded in its pointer.
    ///
    /// Never a large one that must be split, and never a spill block, which has no offset. OpenZFS does since 2.3
    /// (<https://github.com/openzfs/zfs/issues/18239>), and its receivers take the one for data at the end of a file.
    pub(super) fn embeds(self, pointer: &BlockPointer) -> bool {
        matches!(pointer.body, Body::Embedded { compression, .. }
            if self.embedded
                && !self.splits(pointer)
                && (compression < COMPRESS_LZ4 || self.lz4)
                && (compression != COMPRESS_ZSTD || self.zstd))
    }

    /// Whether a block is sent in parts.
    fn splits(self, pointer: &BlockPointer) -> bool {
        !self.large_blocks && pointer.lsize > OLD_MAX_BLOCK
    }

    /// Where a block lies that is sent as it is stored. Metadata is not: a receiver of the other byte order must turn it.
    pub(super) fn sends_stored(self, pointer: &BlockPointer) -> Option<Stored> {
        match &pointer.body {
            Body::Stored(stored)
                if self.compressed
                    && stored.compression != COMPRESS_OFF
                    && !self.splits(pointer)
                    && !is_metadata(pointer.object_type) =>
            {
                Some(*stored)
            }
            _ => None,
        }
    }

    /// What must be read for an item.
    fn task(self, item: &Item) -> Option<(BlockPointer, Option<Stored>)> {
        match item {
            Item::Block { pointer, .. } if self.embeds(pointer) => None,
            Item::Block { pointer, .. } => Some((*pointer, self.sends_stored(pointer))),
            Item::Spill { pointer, .. } => Some((*pointer, None)),
            Item::FreeObjects { .. } | Item::Object { .. } | Item::Free { .. } => None,
        }
    }
}

/// Payloads are made of 64-bit words.
pub(super) fn padded(payload: &[u8]) -> Vec<u8> {
    let mut padded = payload.to_vec();
    padded.resize(payload.len().next_multiple_of(8), 0);
    padded
}

/// Bytes that an item holds while it waits.
fn size(item: &Item) -> usize {
    match item {
        Item::Block { pointer, .. } | Item::Spill { pointer, .. } => pointer.lsize,
        Item::Object { dnode, .. } => dnode.slots * crate::read::dnode::SLOT,
        Item::FreeObjects { .. } | Item::Free { .. } => 0,
    }
}

/// Checksums that are trusted to tell blocks apart (`ZCHECKSUM_FLAG_DEDUP`).
fn is_strong(checksum: u8) -> bool {
    matches!(checksum, kind::SHA256 | kind::SHA512 | kind::SKEIN | kind::BLAKE3)
}

/// Sizes and compression of a block as the key of deduplication has them (`ddk_prop`).
fn key_properties(lsize: u64, stored: &Stored) -> u64 {
    const SECTOR: u64 = 512;
    (lsize / SECTOR - 1) | (stored.psize as u64 / SECTOR - 1) << 16 | u64::from(stored.compression) << 32
}

//! Content of files and volumes on its way into the pool: read, compressed, checksummed and written by several threads, placed by one.
//!
//! Work is cut into tasks of about a mebibyte. Threads take them in order; the caller's thread gives the results their
//! places in that same order, so that the bytes of the pool do not depend on how many threads there are. Memory is bounded
//! by the number of tasks under way, whatever the tree, and used again. Meanwhile one more thread makes durable what was
//! written, so that the disk works while the processors do, not after them.

mod placer;
mod syncer;
mod worker;

use std::collections::BTreeMap;
use std::sync::{Arc, mpsc};

use placer::Placer;
use syncer::Syncer;
use worker::{CloseOnDrop, Done, Encoded, Queue, Work, work};

use crate::codec::{Compression, Output};
use crate::format::hasher::Hasher;
use crate::tree::{Data, ReadError, Reader};
use crate::write::blocks::Blocks;
use crate::write::error::WriteError;
use crate::write::indirect::Root;
use crate::write::media::Media;

/// Input of one task in bytes, and the most parts it may have.
pub(crate) const TASK_BYTES: u64 = 1 << 20;
pub(crate) const TASK_PARTS: usize = 512;

/// Content to be written as the blocks of an object.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    pub(crate) object: u64,
    /// Not empty.
    pub(crate) data: &'a Data,
    /// Bytes the object has; what `data` has less reads as zeros.
    pub(crate) len: u64,
    pub(crate) block_size: u64,
    pub(crate) object_type: u8,
    /// The object's blocks in an earlier version of the dataset.
    pub(crate) before: Option<Arc<Blocks>>,
}

impl Job<'_> {
    pub(crate) fn blocks(&self) -> u64 {
        self.len.div_ceil(self.block_size)
    }

    /// Bytes from `offset` on that are known to be a hole.
    fn hole_at(&self, offset: u64) -> u64 {
        if offset >= self.data.len() {
            return self.len - offset;
        }
        let hole = self.data.hole_at(offset);
        if offset + hole >= self.data.len() { if hole > 0 { self.len - offset } else { 0 } } else { hole }
    }

    /// Blocks from `block` on that are known to be a hole.
    pub(crate) fn hole_blocks_at(&self, block: u64) -> u64 {
        let offset = block * self.block_size;
        let hole = self.hole_at(offset);
        if offset + hole < self.len {
            hole / self.block_size
        } else if hole > 0 {
            self.blocks() - block
        } else {
            0
        }
    }

    /// The blocks from `first` on that are treated as one: a hole of any length, or data of about `room` bytes; how many
    /// they are, and whether they are a hole.
    pub(crate) fn stretch_at(&self, first: u64, room: u64) -> (u64, bool) {
        let hole = self.hole_blocks_at(first);
        if hole > 0 {
            return (hole, true);
        }
        let most = (room / self.block_size).max(1).min(self.blocks() - first);
        let count = (1..most).find(|ahead| self.hole_blocks_at(first + ahead) > 0).unwrap_or(most);
        (count, false)
    }

    /// Reads whole blocks from `first` on; what lies behind the end is zeros.
    pub(crate) fn read(&self, reader: &mut Reader, first: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        let start = first * self.block_size;
        let len = self.data.len().saturating_sub(start).min(buf.len() as u64) as usize;
        let (content, behind) = buf.split_at_mut(len);
        reader.read_at(self.data, start, content)?;
        behind.fill(0);
        Ok(())
    }
}

/// All content of a dataset.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// By job.
    pub(crate) roots: Vec<Root>,
    pub(crate) used_zstd: bool,
}

/// Why a file did not get into the pool.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Content could not be read; the object it was for.
    Read {
        object: u64,
        error: ReadError,
    },
    Write(WriteError),
}

impl From<WriteError> for Failure {
    fn from(error: WriteError) -> Failure {
        Failure::Write(error)
    }
}

/// How files are written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) compression: Compression,
    pub(crate) hasher: Hasher,
    /// Whether to hash content, so that a later version finds out what changed.
    pub(crate) record: bool,
    pub(crate) ashift: u8,
    pub(crate) threads: usize,
}

/// Consecutive blocks of one file that are read together, or are a hole together.
#[derive(Clone, Copy, Debug)]
struct Part {
    job: usize,
    first: u64,
    count: u64,
    is_hole: bool,
}

/// Writes the content of `jobs`; tells `progress` about each stretch of content that has its place.
pub(crate) fn write_content(
    media: &mut Media,
    jobs: &[Job],
    settings: Settings,
    progress: &mut dyn FnMut(u64),
) -> Result<Outcome, Failure> {
    if jobs.is_empty() {
        return Ok(Outcome::default());
    }
    let threads = settings.threads.max(1);
    // Enough that no thread waits for a slow neighbour.
    let window = threads * 4;
    let queue = Queue::default();
    let (done_sender, done_receiver) = mpsc::channel();
    let outputs = media.outputs().clone();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (queue, outputs, done_sender) = (&queue, &outputs, done_sender.clone());
            scope.spawn(move || work(jobs, settings, outputs, queue, &done_sender));
        }
        drop(done_sender);
        let mut syncer = Syncer::start(scope, &outputs);
        // Leaving early (an error) ends the threads, too.
        let queue = CloseOnDrop(&queue);
        let mut tasks = plan(jobs).enumerate();
        let mut placer = Placer::new(jobs);
        let mut waiting: BTreeMap<usize, (Vec<Part>, Result<Encoded, Failure>)> = BTreeMap::new();
        let mut free: Vec<Output> = Vec::new();
        // Tasks whose memory is in use, and the one to be placed next.
        let (mut under_way, mut next) = (0, 0);
        loop {
            while under_way < window
                && let Some((number, parts)) = tasks.next()
            {
                let output = free.pop().unwrap_or_default();
                queue.0.push(Work::Encode { number, parts, output });
                under_way += 1;
            }
            if under_way == 0 {
                syncer.finish()?;
                return Ok(placer.outcome);
            }
            match done_receiver.recv().expect("threads live while tasks are under way") {
                Done::Encoded { number, parts, result } => {
                    waiting.insert(number, (parts, result));
                }
                Done::Written(output) => {
                    let output = output?;
                    syncer.wrote(output.bytes().len() as u64);
                    free.push(output);
                    under_way -= 1;
                }
                Done::Died => panic!("a thread that writes content panicked"),
            }
            while let Some((parts, encoded)) = waiting.remove(&next) {
                let Encoded { blocks, output } = encoded?;
                let runs = placer.place(media, &parts, &blocks, progress)?;
                queue.0.push(Work::Write { output, runs });
                next += 1;
            }
        }
    })
}

/// Cuts files into tasks.
fn plan<'a>(jobs: &'a [Job<'a>]) -> impl Iterator<Item = Vec<Part>> + 'a {
    let mut job = 0;
    let mut block = 0;
    std::iter::from_fn(move || {
        let mut parts = Vec::new();
        let mut bytes = 0;
        while job < jobs.len() && bytes < TASK_BYTES && parts.len() < TASK_PARTS {
            let (count, is_hole) = jobs[job].stretch_at(block, TASK_BYTES - bytes);
            let part = Part { job, first: block, count, is_hole };
            if !part.is_hole {
                bytes += part.count * jobs[job].block_size;
            }
            block += part.count;
            if block == jobs[job].blocks() {
                job += 1;
                block = 0;
            }
            parts.push(part);
        }
        (!parts.is_empty()).then_some(parts)
    })
}

//! Content of files and volumes on its way into the pool: read, compressed and checksummed by several threads, placed and written by one.
//!
//! Work is cut into tasks of about a mebibyte. Threads take them in order; the caller's thread places the results in
//! that same order, so that the bytes of the pool do not depend on how many threads there are. Memory is bounded by the
//! number of tasks under way, whatever the tree.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, mpsc};

use crate::codec::{Allow, Block, CODE_ZSTD, Compression, Encoder, Form};
use crate::format::blkptr::{BlockPointer, Role};
use crate::format::hasher::Hasher;
use crate::tree::{Data, ReadError, Reader};
use crate::write::allocator::MAX_COPIES;
use crate::write::blocks::{Blocks, Digest, digest};
use crate::write::error::WriteError;
use crate::write::indirect::{IndirectTree, Root};
use crate::write::media::Media;

/// Input of one task in bytes, and the most parts it may have.
const TASK_BYTES: u64 = 1 << 20;
const TASK_PARTS: usize = 512;

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

/// A task's blocks in order (without those of hole parts), and the bytes of the stored ones, one after the other.
struct Encoded {
    blocks: Vec<EncodedBlock>,
    bytes: Vec<u8>,
}

struct EncodedBlock {
    /// None when the earlier version has the same.
    block: Option<Block>,
    digest: Option<Digest>,
}

struct Task {
    number: u64,
    parts: Vec<Part>,
}

struct Done {
    number: u64,
    parts: Vec<Part>,
    result: Result<Encoded, Failure>,
}

/// Writes the content of `jobs`; tells `progress` about each stretch of content that is done.
pub(crate) fn write_content(
    media: &mut Media,
    jobs: &[Job],
    settings: Settings,
    progress: &mut dyn FnMut(u64),
) -> Result<Outcome, Failure> {
    let threads = settings.threads.max(1);
    // Enough that no thread waits for a slow neighbour.
    let window = threads * 4;
    let (task_sender, task_receiver) = mpsc::channel::<Task>();
    let (done_sender, done_receiver) = mpsc::channel::<Done>();
    let task_receiver = Mutex::new(task_receiver);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let done_sender = done_sender.clone();
            let task_receiver = &task_receiver;
            scope.spawn(move || work(jobs, settings, task_receiver, &done_sender));
        }
        drop(done_sender);
        // Owned here, so that leaving early (an error) ends the threads: their next receive fails.
        let task_sender = task_sender;
        let mut tasks = plan(jobs).enumerate();
        let mut placer = Placer { jobs, outcome: Outcome::default(), tree: None };
        let mut waiting: BTreeMap<u64, Done> = BTreeMap::new();
        let (mut sent, mut placed) = (0, 0);
        loop {
            while sent - placed < window as u64
                && let Some((number, parts)) = tasks.next()
            {
                let number = number as u64;
                task_sender.send(Task { number, parts }).expect("the receiver outlives the threads");
                sent += 1;
            }
            if placed == sent {
                return Ok(placer.outcome);
            }
            let done = done_receiver.recv().expect("threads live while tasks are under way");
            waiting.insert(done.number, done);
            while let Some(done) = waiting.remove(&placed) {
                placer.place(media, &done.parts, done.result?, progress)?;
                placed += 1;
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
            let part = next_part(&jobs[job], job, block, TASK_BYTES - bytes);
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

/// The part of a file that starts at block `first`: a hole of any length, or data of about `room` bytes.
fn next_part(job: &Job, index: usize, first: u64, room: u64) -> Part {
    let size = job.block_size;
    let whole_hole_blocks = |block: u64| {
        let offset = block * size;
        let hole = job.hole_at(offset);
        if offset + hole >= job.len { if hole > 0 { job.blocks() - block } else { 0 } } else { hole / size }
    };
    let hole = whole_hole_blocks(first);
    if hole > 0 {
        return Part { job: index, first, count: hole, is_hole: true };
    }
    let most = (room / size).max(1).min(job.blocks() - first);
    let count = (1..most).find(|ahead| whole_hole_blocks(first + ahead) > 0).unwrap_or(most);
    Part { job: index, first, count, is_hole: false }
}

/// One thread: tasks in, encoded blocks out, until either channel closes.
fn work(jobs: &[Job], settings: Settings, tasks: &Mutex<mpsc::Receiver<Task>>, done: &mpsc::Sender<Done>) {
    let mut encoder = None;
    let mut reader = Reader::default();
    let mut input = Vec::new();
    loop {
        let task = match tasks.lock() {
            Ok(tasks) => tasks.recv(),
            // Another thread panicked while it waited; its panic is reported when the scope ends.
            Err(_) => return,
        };
        let Ok(Task { number, parts }) = task else { return };
        let result = encode_task(jobs, settings, &parts, &mut encoder, &mut reader, &mut input);
        if done.send(Done { number, parts, result }).is_err() {
            return;
        }
    }
}

fn encode_task(
    jobs: &[Job],
    settings: Settings,
    parts: &[Part],
    encoder: &mut Option<Encoder>,
    reader: &mut Reader,
    input: &mut Vec<u8>,
) -> Result<Encoded, Failure> {
    let compress_error = |source| Failure::Write(WriteError::Compress { source });
    let encoder = match encoder {
        Some(encoder) => encoder,
        None => {
            let Settings { compression, hasher, ashift, .. } = settings;
            encoder.insert(Encoder::new(compression, hasher, ashift).map_err(compress_error)?)
        }
    };
    let mut encoded = Encoded { blocks: Vec::new(), bytes: Vec::new() };
    for part in parts.iter().filter(|part| !part.is_hole) {
        let job = &jobs[part.job];
        let start = part.first * job.block_size;
        let span = (part.count * job.block_size) as usize;
        let content = job.data.len().saturating_sub(start).min(span as u64) as usize;
        if input.len() < span {
            input.resize(span, 0);
        }
        let input = &mut input[..span];
        reader
            .read_at(job.data, start, &mut input[..content])
            .map_err(|error| Failure::Read { object: job.object, error })?;
        input[content..].fill(0);
        for (block, index) in input.chunks_exact(job.block_size as usize).zip(part.first..) {
            const ALLOW: Allow = Allow { embedded: true, holes: true };
            let digest = settings.record.then(|| digest(block));
            let before = job.before.as_ref().and_then(|before| before.get(0, index));
            let is_same = before.is_some_and(|before| digest.is_some() && before.digest == digest);
            let block = match is_same {
                true => None,
                false => Some(encoder.encode(block, ALLOW, &mut encoded.bytes).map_err(compress_error)?),
            };
            encoded.blocks.push(EncodedBlock { block, digest });
        }
    }
    Ok(encoded)
}

/// Places encoded blocks in order and builds the tree over each object.
struct Placer<'a> {
    jobs: &'a [Job<'a>],
    outcome: Outcome,
    tree: Option<IndirectTree>,
}

impl Placer<'_> {
    fn place(
        &mut self,
        media: &mut Media,
        parts: &[Part],
        encoded: Encoded,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), WriteError> {
        let mut blocks = encoded.blocks.iter();
        let mut runs = [Run::default(); MAX_COPIES];
        for part in parts {
            let job = &self.jobs[part.job];
            let mut tree = match self.tree.take() {
                Some(tree) if part.first > 0 => tree,
                _ => IndirectTree::new(media, job.object_type, job.block_size, job.before.clone()),
            };
            if part.is_hole {
                tree.push_holes(media, part.count)?;
            } else {
                for EncodedBlock { block, digest } in blocks.by_ref().take(part.count as usize) {
                    match block {
                        Some(block) => {
                            let role = Role { object_type: job.object_type, level: 0 };
                            let pointer = self.place_block(media, block, role, &mut runs, &encoded.bytes)?;
                            tree.push(media, pointer, *digest)?;
                        }
                        None => tree.push_unchanged(media)?,
                    }
                }
            }
            let end = part.first + part.count;
            if end == job.blocks() {
                self.outcome.roots.push(tree.finish(media, 1)?);
            } else {
                self.tree = Some(tree);
            }
            let done = |block: u64| (block * job.block_size).min(job.data.len());
            progress(done(end) - done(part.first));
        }
        runs.iter_mut().try_for_each(|run| run.flush(media, &encoded.bytes))
    }

    fn place_block(
        &mut self,
        media: &mut Media,
        block: &Block,
        role: Role,
        runs: &mut [Run; MAX_COPIES],
        bytes: &[u8],
    ) -> Result<BlockPointer, WriteError> {
        let (pointer, offsets) = media.place(block, role, 1);
        self.outcome.used_zstd |= block.compression_code() == Some(CODE_ZSTD);
        if let Form::Stored(extent) = &block.form {
            for (run, offset) in runs.iter_mut().zip(offsets) {
                run.extend(media, offset, extent.asize, bytes)?;
            }
        }
        Ok(pointer)
    }
}

/// Blocks that follow one another both in a task's buffer and on the vdev: one write.
#[derive(Clone, Copy, Default)]
struct Run {
    /// Where the run starts in the buffer, and its length.
    start: usize,
    len: usize,
    /// Where it goes on the vdev.
    offset: u64,
}

impl Run {
    fn extend(&mut self, media: &mut Media, offset: u64, len: u64, bytes: &[u8]) -> Result<(), WriteError> {
        if self.len == 0 || self.offset + self.len as u64 != offset {
            self.flush(media, bytes)?;
            self.offset = offset;
        }
        self.len += len as usize;
        Ok(())
    }

    fn flush(&mut self, media: &mut Media, bytes: &[u8]) -> Result<(), WriteError> {
        let end = self.start + self.len;
        if self.len > 0 {
            media.write(&bytes[self.start..end], self.offset)?;
        }
        self.start = end;
        self.len = 0;
        Ok(())
    }
}

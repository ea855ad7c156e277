//! File content on its way into the pool: read, compressed and checksummed by several threads, placed and written by one.
//!
//! Work is cut into tasks of about a mebibyte. Threads take them in order; the caller's thread places the results in
//! that same order, so that the bytes of the pool do not depend on how many threads there are. Memory is bounded by the
//! number of tasks under way, whatever the tree.

use std::collections::BTreeMap;
use std::sync::{Mutex, mpsc};

use crate::codec::{Allow, Block, CODE_ZSTD, Compression, Encoder, Form};
use crate::format::blkptr::{BlockPointer, Role};
use crate::format::dnode::object_type;
use crate::tree::{Data, NodeId, ReadError, Reader};
use crate::write::error::WriteError;
use crate::write::indirect::{IndirectTree, Root};
use crate::write::media::{DATASET_COPIES, Media, Placement};
use crate::write::space::Space;

/// Input of one task in bytes, and the most parts it may have.
const TASK_BYTES: u64 = 1 << 20;
const TASK_PARTS: usize = 512;

/// A file to be written.
#[derive(Debug)]
pub(crate) struct Job<'a> {
    pub(crate) node: NodeId,
    pub(crate) data: &'a Data,
    pub(crate) block_size: u64,
}

impl Job<'_> {
    fn blocks(&self) -> u64 {
        self.data.len().div_ceil(self.block_size)
    }
}

/// A file that is in the pool.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) root: Root,
    /// Data and indirect blocks.
    pub(crate) space: Space,
}

/// All files of a dataset.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) files: Vec<Written>,
    pub(crate) used_zstd: bool,
}

/// Why a file did not get into the pool.
#[derive(Debug)]
pub(crate) enum Failure {
    Read { node: NodeId, error: ReadError },
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
    blocks: Vec<Block>,
    bytes: Vec<u8>,
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

/// Writes the content of `jobs` (none empty); tells `progress` about each stretch of content that is done.
pub(crate) fn write_files(
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
        let mut placer = Placer { jobs, outcome: Outcome::default(), tree: None, space: Space::default() };
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
        let hole = job.data.hole_at(offset);
        if offset + hole >= job.data.len() {
            if hole > 0 { job.blocks() - block } else { 0 }
        } else {
            hole / size
        }
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
        None => encoder.insert(Encoder::new(settings.compression, settings.ashift).map_err(compress_error)?),
    };
    let mut encoded = Encoded { blocks: Vec::new(), bytes: Vec::new() };
    for part in parts.iter().filter(|part| !part.is_hole) {
        let job = &jobs[part.job];
        let start = part.first * job.block_size;
        let span = (part.count * job.block_size) as usize;
        let content = (job.data.len() - start).min(span as u64) as usize;
        if input.len() < span {
            input.resize(span, 0);
        }
        let input = &mut input[..span];
        reader
            .read_at(job.data, start, &mut input[..content])
            .map_err(|error| Failure::Read { node: job.node, error })?;
        input[content..].fill(0);
        for block in input.chunks_exact(job.block_size as usize) {
            let allow = Allow { embedded: true, holes: true };
            encoded.blocks.push(encoder.encode(block, allow, &mut encoded.bytes).map_err(compress_error)?);
        }
    }
    Ok(encoded)
}

/// Places encoded blocks in order and builds the tree over each file.
struct Placer<'a> {
    jobs: &'a [Job<'a>],
    outcome: Outcome,
    tree: Option<IndirectTree>,
    /// Data blocks of the file in progress.
    space: Space,
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
        let mut run = Run::default();
        for part in parts {
            let job = &self.jobs[part.job];
            let mut tree = match self.tree.take() {
                Some(tree) if part.first > 0 => tree,
                _ => IndirectTree::new(object_type::PLAIN_FILE, DATASET_COPIES),
            };
            if part.is_hole {
                tree.push_holes(media, part.count)?;
            } else {
                for block in blocks.by_ref().take(part.count as usize) {
                    let pointer = self.place_block(media, block, &mut run, &encoded.bytes)?;
                    tree.push(media, pointer)?;
                }
            }
            let end = part.first + part.count;
            if end == job.blocks() {
                let root = tree.finish(media, 1)?;
                let space = std::mem::take(&mut self.space) + root.space;
                self.outcome.files.push(Written { root, space });
            } else {
                self.tree = Some(tree);
            }
            progress((end * job.block_size).min(job.data.len()) - part.first * job.block_size);
        }
        run.flush(media, &encoded.bytes)
    }

    fn place_block(
        &mut self,
        media: &mut Media,
        block: &Block,
        run: &mut Run,
        bytes: &[u8],
    ) -> Result<BlockPointer, WriteError> {
        const ONE_COPY: usize = 1;
        let role = Role { object_type: object_type::PLAIN_FILE, level: 0 };
        let (stored, offsets) = media.place(block, Placement { role, copies: ONE_COPY, fill: 1 });
        self.space += stored.space;
        self.outcome.used_zstd |= block.compression_code() == Some(CODE_ZSTD);
        if let (Form::Stored(extent), [offset]) = (&block.form, offsets.as_slice()) {
            run.extend(media, *offset, extent.asize, bytes)?;
        }
        Ok(stored.pointer)
    }
}

/// Blocks that follow one another both in a task's buffer and on the vdev: one write.
#[derive(Default)]
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

//! The threads: they read and encode content, and write what has its place.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, mpsc};

use super::{Failure, Job, Part, Settings};
use crate::codec::{Allow, Block, Encoder, Output};
use crate::tree::Reader;
use crate::write::blocks::{Digest, digest};
use crate::write::error::WriteError;
use crate::write::outputs::Outputs;

/// What a thread is asked to do.
pub(super) enum Work {
    /// Fill `output` with the content of `parts`.
    Encode { number: usize, parts: Vec<Part>, output: Output },
    /// Write runs of `output`.
    Write { output: Output, runs: Vec<Run> },
}

/// What a thread has done.
pub(super) enum Done {
    Encoded {
        number: usize,
        parts: Vec<Part>,
        result: Result<Encoded, Failure>,
    },
    /// The memory can be used again.
    Written(Result<Output, WriteError>),
    /// The thread panicked: in an output or a source of the caller's, or by a fault of ours.
    Died,
}

/// Blocks that follow one another both in the output of a task and on the vdev.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    /// Where the run starts in the output, and its length.
    pub(super) start: usize,
    pub(super) len: usize,
    /// Where it goes: the number of an address.
    pub(super) address: u64,
}

/// The blocks of a task in order (without those of hole parts); `output` holds the stored ones, one after the other.
pub(super) struct Encoded {
    pub(super) blocks: Vec<EncodedBlock>,
    pub(super) output: Output,
}

pub(super) struct EncodedBlock {
    /// None when the earlier version has the same.
    pub(super) block: Option<Block>,
    pub(super) digest: Option<Digest>,
}

/// Work that no thread has taken: the newest write comes first, since its bytes are still in the processor's cache.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    work: VecDeque<Work>,
    is_closed: bool,
}

impl Queue {
    pub(super) fn push(&self, work: Work) {
        let mut state = self.lock();
        match work {
            Work::Write { .. } => state.work.push_front(work),
            Work::Encode { .. } => state.work.push_back(work),
        }
        self.changed.notify_one();
    }

    /// The next work; waits for it. None when there will be no more.
    fn take(&self) -> Option<Work> {
        let mut state = self.lock();
        loop {
            if state.is_closed {
                return None;
            }
            match state.work.pop_front() {
                None => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                work => return work,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the threads when the caller's is done with them, for good or for bad.
pub(super) struct CloseOnDrop<'a>(pub(super) &'a Queue);

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        self.0.lock().is_closed = true;
        self.0.changed.notify_all();
    }
}

/// Says so when the thread dies: the caller's would wait for what it had in hand.
struct LastWord<'a>(&'a mpsc::Sender<Done>);

impl Drop for LastWord<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            drop(self.0.send(Done::Died));
        }
    }
}

/// One thread: works until the queue is closed.
pub(super) fn work(
    jobs: &[Job],
    settings: Settings,
    outputs: &Outputs<'_>,
    queue: &Queue,
    done: &mpsc::Sender<Done>,
) {
    let _last_word = LastWord(done);
    let mut encoder = None;
    let mut reader = Reader::default();
    let mut input = Vec::new();
    while let Some(work) = queue.take() {
        let answer = match work {
            Work::Encode { number, parts, output } => {
                let result = encode(jobs, settings, &parts, &mut encoder, &mut reader, &mut input, output);
                Done::Encoded { number, parts, result }
            }
            Work::Write { output, runs } => Done::Written(write(outputs, &runs, &output).map(|()| output)),
        };
        if done.send(answer).is_err() {
            return;
        }
    }
}

fn write(outputs: &Outputs<'_>, runs: &[Run], output: &Output) -> Result<(), WriteError> {
    runs.iter()
        .try_for_each(|run| outputs.write(&output.bytes()[run.start..run.start + run.len], run.address))
}

fn encode(
    jobs: &[Job],
    settings: Settings,
    parts: &[Part],
    encoder: &mut Option<Encoder>,
    reader: &mut Reader,
    input: &mut Vec<u8>,
    mut output: Output,
) -> Result<Encoded, Failure> {
    let compress_error = |source| Failure::Write(WriteError::Compress { source });
    let encoder = match encoder {
        Some(encoder) => encoder,
        None => {
            let Settings { compression, hasher, ashift, .. } = settings;
            encoder.insert(Encoder::new(compression, hasher, ashift).map_err(compress_error)?)
        }
    };
    output.clear();
    let mut blocks = Vec::new();
    for part in parts.iter().filter(|part| !part.is_hole) {
        let job = &jobs[part.job];
        let span = (part.count * job.block_size) as usize;
        if input.len() < span {
            input.resize(span, 0);
        }
        let input = &mut input[..span];
        job.read(reader, part.first, input).map_err(|error| Failure::Read { object: job.object, error })?;
        for (block, index) in input.chunks_exact(job.block_size as usize).zip(part.first..) {
            const ALLOW: Allow = Allow { embedded: true, holes: true };
            let digest = settings.record.then(|| digest(block));
            let before = job.before.as_ref().and_then(|before| before.get(0, index));
            let is_same = before.is_some_and(|before| digest.is_some() && before.digest == digest);
            let block = match is_same {
                true => None,
                false => Some(encoder.encode(block, ALLOW, &mut output).map_err(compress_error)?),
            };
            blocks.push(EncodedBlock { block, digest });
        }
    }
    Ok(Encoded { blocks, output })
}

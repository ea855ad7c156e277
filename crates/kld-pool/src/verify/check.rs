//! Reading and checking of copies, by several threads.

use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

use super::FindingKind;
use crate::read::block::{Blocks, CopyProblem, place};
use crate::read::pointer::{BlockPointer, Body};

/// Blocks handed to a thread together.
const BATCH: usize = 64;

/// Where a block belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Spot {
    /// Index of the object set.
    pub(super) set: usize,
    /// None for what lies in the head of the object set.
    pub(super) object: Option<u64>,
    pub(super) level: u8,
    pub(super) number: u64,
}

/// A block to be checked.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) spot: Spot,
    pub(super) pointer: BlockPointer,
}

/// Something wrong with a block.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) spot: Spot,
    pub(super) kind: FindingKind,
    pub(super) problem: String,
}

/// What all threads found.
#[derive(Debug, Default)]
pub(super) struct Checked {
    pub(super) faults: Vec<Fault>,
    pub(super) not_supported: BTreeSet<String>,
    pub(super) copies: u64,
    pub(super) bytes: u64,
}

/// Hands blocks to the threads.
#[derive(Debug)]
pub(super) struct Queue {
    sender: SyncSender<Vec<Job>>,
    batch: Vec<Job>,
}

impl Queue {
    pub(super) fn push(&mut self, job: Job) {
        self.batch.push(job);
        if self.batch.len() == BATCH {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let batch = std::mem::take(&mut self.batch);
        // Threads only end when this side is dropped.
        drop(self.sender.send(batch));
    }
}

/// Runs `produce` with a queue and checks everything that it pushes; memory is bounded by the length of the queue.
pub(super) fn check_all<T>(blocks: &Blocks, produce: impl FnOnce(&mut Queue) -> T) -> (T, Checked) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (sender, receiver) = sync_channel(threads * 4);
    let receiver = Mutex::new(receiver);
    let total = Mutex::new(Checked::default());
    let produced = std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let own = work(blocks, &receiver);
                total.lock().unwrap_or_else(PoisonError::into_inner).add(own);
            });
        }
        let mut queue = Queue { sender, batch: Vec::new() };
        let produced = produce(&mut queue);
        queue.flush();
        produced
    });
    (produced, total.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn work(blocks: &Blocks, receiver: &Mutex<Receiver<Vec<Job>>>) -> Checked {
    let mut checked = Checked::default();
    loop {
        let next = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(jobs) = next else { return checked };
        jobs.iter().for_each(|job| checked.check(blocks, job));
    }
}

impl Checked {
    fn add(&mut self, other: Checked) {
        self.faults.extend(other.faults);
        self.not_supported.extend(other.not_supported);
        self.copies += other.copies;
        self.bytes += other.bytes;
    }

    fn fault(&mut self, job: &Job, kind: FindingKind, problem: String) {
        self.faults.push(Fault { spot: job.spot, kind, problem });
    }

    /// Reads every copy of a block.
    fn check(&mut self, blocks: &Blocks, job: &Job) {
        let Body::Stored(stored) = &job.pointer.body else {
            if let Err(error) = blocks.read(&job.pointer) {
                self.fault(job, FindingKind::Unreadable, error.to_string());
            }
            return;
        };
        let (mut good, mut bad, mut unknown) = (0, 0, 0);
        for dva in stored.dvas() {
            for child in 0..blocks.children(&dva) {
                match blocks.read_copy(stored, &dva, child, job.pointer.physical_birth) {
                    Ok(raw) => {
                        self.copies += 1;
                        self.bytes += raw.len() as u64;
                        for (child, problem) in blocks.bad_columns(&dva, &raw) {
                            let place = place(&dva);
                            let problem = format!("the column at {place} on child {child}: {problem}");
                            self.fault(job, FindingKind::Copy, problem);
                        }
                        // Once is enough: all good copies have the same bytes.
                        if good == 0
                            && !stored.encrypted
                            && let Err(error) =
                                blocks.decode_stored(&job.pointer, stored.compression, raw, &dva)
                        {
                            self.fault(job, FindingKind::Unreadable, error.to_string());
                        }
                        good += 1;
                    }
                    Err(CopyProblem::Missing) => unknown += 1,
                    Err(problem @ (CopyProblem::NotSupported(_) | CopyProblem::Vdev(_))) => {
                        self.not_supported.insert(problem.to_string());
                        unknown += 1;
                    }
                    Err(problem) => {
                        bad += 1;
                        let place = place(&dva);
                        let problem = format!("the copy at {place} on child {child}: {problem}");
                        self.fault(job, FindingKind::Copy, problem);
                    }
                }
            }
        }
        if good == 0 && unknown == 0 && bad > 0 {
            self.fault(job, FindingKind::Unreadable, "no copy of the block is good".to_owned());
        }
    }
}

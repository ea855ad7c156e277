//! The data of an object piece by piece: blocks are read, checked and decompressed by several threads, and handed over in
//! order. Holes are passed over; what cannot be read is a piece of its own, and the rest goes on behind it.

use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use super::block::Blocks;
use super::dnode::Dnode;
use super::error::ReadError;
use super::pointer::BlockPointer;

/// Bytes of data that a thread reads before it wakes the one that hands over: waking costs as much as reading a small block.
const TASK: u64 = 1 << 20;
/// Tasks that each thread is given ahead of the one that is handed over.
const AHEAD: usize = 2;
/// Bytes of data below which threads cost more than they bring.
const MIN_PARALLEL: u64 = 4 << 20;
/// Threads beyond which the one that hands over is the slowest.
const MAX_THREADS: usize = 16;

/// A stretch of the data of a file or volume; what lies between two pieces is a hole, which reads as zeros.
#[derive(Debug)]
#[non_exhaustive]
pub enum Piece {
    /// Data.
    Data {
        /// Where it stands in the file, in bytes.
        offset: u64,
        /// The data.
        bytes: Vec<u8>,
    },
    /// Data that cannot be read.
    Unreadable {
        /// Where it stands in the file, in bytes.
        range: Range<u64>,
        /// Why not.
        error: ReadError,
    },
}

/// Hands the first `size` bytes of an object to `sink`, which ends it by an error. `threads` 0 is one per core.
pub(crate) fn read_pieces<E>(
    blocks: &Blocks,
    dnode: &Dnode,
    size: u64,
    threads: usize,
    sink: &mut dyn FnMut(Piece) -> Result<(), E>,
) -> Result<(), E> {
    let mut leaves = Leaves::new(blocks, dnode, size);
    let is_large = size.min(dnode.used.max(dnode.block_size)) >= MIN_PARALLEL;
    let threads = match threads {
        // Asking the system costs as much as reading a small file.
        0 if is_large => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    let threads = threads.min(MAX_THREADS);
    if threads < 2 || !is_large {
        for leaf in leaves {
            sink(leaf.read(blocks, size))?;
        }
        return Ok(());
    }
    let per_task = usize::try_from(TASK / dnode.block_size.max(1)).unwrap_or(usize::MAX).max(1);
    std::thread::scope(|scope| {
        // Thread i reads the tasks i, i + n, i + 2n …: the order needs no more than asking the threads in turn. No
        // channel ever holds more than `AHEAD`, so that sending does not wait.
        let workers: Vec<_> = (0..threads)
            .map(|_| {
                let (to_worker, work) = sync_channel::<Vec<Leaf>>(AHEAD);
                let (to_sink, done) = sync_channel::<Vec<Piece>>(AHEAD);
                scope.spawn(move || {
                    let read =
                        |task: Vec<Leaf>| task.into_iter().map(|leaf| leaf.read(blocks, size)).collect();
                    while let Ok(task) = work.recv()
                        && to_sink.send(read(task)).is_ok()
                    {}
                });
                (to_worker, done)
            })
            .collect();
        let (mut sent, mut received) = (0, 0);
        let mut receive = |received: &mut usize| {
            let pieces = workers[*received % threads].1.recv();
            *received += 1;
            pieces.expect("a thread ends when its work does").into_iter().try_for_each(&mut *sink)
        };
        loop {
            let task: Vec<Leaf> = leaves.by_ref().take(per_task).collect();
            if task.is_empty() {
                break;
            }
            if sent - received == threads * AHEAD {
                receive(&mut received)?;
            }
            workers[sent % threads].0.send(task).expect("a thread ends when its work does");
            sent += 1;
        }
        while received < sent {
            receive(&mut received)?;
        }
        Ok(())
    })
}

/// The stretches of the first `size` bytes of an object that are no holes, or may be none.
pub(crate) fn data_ranges(blocks: &Blocks, dnode: &Dnode, size: u64) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for leaf in Leaves::new(blocks, dnode, size) {
        let range = match leaf {
            Leaf::Block { offset, .. } => offset..offset.saturating_add(dnode.block_size).min(size),
            Leaf::Lost { range, .. } => range,
        };
        match ranges.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ => ranges.push(range),
        }
    }
    ranges
}

/// A place where an object has data.
enum Leaf {
    Block {
        offset: u64,
        pointer: BlockPointer,
    },
    /// What leads to the data cannot be read.
    Lost {
        range: Range<u64>,
        error: ReadError,
    },
}

impl Leaf {
    fn read(self, blocks: &Blocks, size: u64) -> Piece {
        match self {
            Leaf::Lost { range, error } => Piece::Unreadable { range, error },
            Leaf::Block { offset, pointer } => {
                // The caller knows that the block starts before the end.
                let len = (size - offset).min(pointer.lsize as u64);
                match blocks.read(&pointer) {
                    Ok(mut bytes) => {
                        bytes.truncate(len as usize);
                        Piece::Data { offset, bytes }
                    }
                    Err(error) => Piece::Unreadable { range: offset..offset + len, error },
                }
            }
        }
    }
}

/// The blocks of an object that are no holes, in order.
struct Leaves<'b, 'a> {
    blocks: &'b Blocks<'a>,
    dnode: &'b Dnode,
    size: u64,
    /// From the dnode down to the pointers being walked.
    open: Vec<Level>,
}

/// Pointers that are walked.
struct Level {
    pointers: Arc<[u8]>,
    next: usize,
    /// Level of the blocks they point at, and number of the first data block below the first of them.
    level: u8,
    base: u64,
}

impl<'b, 'a> Leaves<'b, 'a> {
    fn new(blocks: &'b Blocks<'a>, dnode: &'b Dnode, size: u64) -> Leaves<'b, 'a> {
        let pointers: Arc<[u8]> = dnode.pointers.concat().into();
        let top = Level { pointers, next: 0, level: dnode.levels - 1, base: 0 };
        Leaves { blocks, dnode, size, open: vec![top] }
    }

    /// The bytes of the file below a pointer, up to its end; none when it starts behind the end.
    fn span(&self, level: u8, base: u64) -> Option<Range<u64>> {
        let start = base.checked_mul(self.dnode.block_size).filter(|start| *start < self.size)?;
        let blocks = self.dnode.blocks_below(level);
        let end = blocks.and_then(|blocks| blocks.checked_add(base)?.checked_mul(self.dnode.block_size));
        Some(start..end.unwrap_or(self.size).min(self.size))
    }
}

impl Iterator for Leaves<'_, '_> {
    type Item = Leaf;

    fn next(&mut self) -> Option<Leaf> {
        const POINTER: usize = super::pointer::POINTER;
        loop {
            let at = self.open.last_mut()?;
            let index = at.next;
            let level = at.level;
            // A number that exceeds 64 bits is behind the end of any file.
            let base = match index {
                0 => Some(at.base),
                _ => self
                    .dnode
                    .blocks_below(level)
                    .and_then(|below| below.checked_mul(index as u64)?.checked_add(at.base)),
            };
            let bytes = at.pointers.get(index * POINTER..(index + 1) * POINTER);
            let (Some(bytes), Some(base)) = (bytes, base) else {
                self.open.pop();
                continue;
            };
            at.next += 1;
            let pointer = self.dnode.checked(bytes, level);
            if matches!(&pointer, Ok(pointer) if pointer.is_hole()) {
                continue;
            }
            let Some(range) = self.span(level, base) else {
                self.open.pop();
                continue;
            };
            let pointer = match pointer {
                Ok(pointer) => pointer,
                Err(error) => return Some(Leaf::Lost { range, error }),
            };
            let Some(below) = level.checked_sub(1) else {
                return Some(Leaf::Block { offset: range.start, pointer });
            };
            match self.blocks.read_cached(&pointer) {
                Ok(pointers) => self.open.push(Level { pointers, next: 0, level: below, base }),
                Err(error) => return Some(Leaf::Lost { range, error }),
            }
        }
    }
}

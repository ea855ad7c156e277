//! The caller's thread: it gives encoded blocks their places, in order, and builds the tree over each object.

use super::worker::{EncodedBlock, Run};
use super::{Job, Outcome, Part};
use crate::codec::{Block, CODE_ZSTD, Form};
use crate::format::blkptr::{BlockPointer, Role};
use crate::write::allocator::MAX_COPIES;
use crate::write::error::WriteError;
use crate::write::indirect::IndirectTree;
use crate::write::media::Media;

/// What has been placed so far.
pub(super) struct Placer<'a> {
    jobs: &'a [Job<'a>],
    pub(super) outcome: Outcome,
    /// Of an object that is not complete.
    tree: Option<IndirectTree>,
}

impl<'a> Placer<'a> {
    pub(super) fn new(jobs: &'a [Job<'a>]) -> Placer<'a> {
        Placer { jobs, outcome: Outcome::default(), tree: None }
    }

    /// Places the blocks of a task; gives what must be written of its output.
    pub(super) fn place(
        &mut self,
        media: &mut Media,
        parts: &[Part],
        blocks: &[EncodedBlock],
        progress: &mut dyn FnMut(u64),
    ) -> Result<Vec<Run>, WriteError> {
        let mut blocks = blocks.iter();
        let mut runs = Runs::default();
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
                            let pointer = self.place_block(media, block, role, &mut runs);
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
        Ok(if media.writes() { runs.finish(media) } else { Vec::new() })
    }

    fn place_block(&mut self, media: &mut Media, block: &Block, role: Role, runs: &mut Runs) -> BlockPointer {
        let (pointer, addresses) = media.place(block, role, 1);
        self.outcome.used_zstd |= block.compression_code() == Some(CODE_ZSTD);
        if let Form::Stored(extent) = &block.form {
            runs.push(&addresses, extent.asize as usize);
        }
        pointer
    }
}

/// The runs of a task.
#[derive(Default)]
struct Runs {
    closed: Vec<Run>,
    /// The one that grows, of each copy.
    open: [Option<Run>; MAX_COPIES],
    /// Where the next block starts in the output.
    end: usize,
}

impl Runs {
    /// The next block of the output, and where its copies go.
    fn push(&mut self, addresses: &[u64], len: usize) {
        for (open, address) in self.open.iter_mut().zip(addresses) {
            match open {
                Some(run) if run.address + run.len as u64 == *address => run.len += len,
                _ => self.closed.extend(open.replace(Run { start: self.end, len, address: *address })),
            }
        }
        self.end += len;
    }

    fn finish(mut self, media: &mut Media) -> Vec<Run> {
        self.closed.extend(self.open.into_iter().flatten());
        media.count(self.closed.iter().map(|run| run.len).sum());
        self.closed
    }
}

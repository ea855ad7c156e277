//! Space that no file and no table refers to, but that is in use: intent logs, and what is about to be freed.

use super::check::Spot;
use super::lists;
use super::walk::Walker;
use crate::read::block::CopyProblem;
use crate::read::checksum::{check_log_block, kind};
use crate::read::objset::ObjectSet;
use crate::read::pointer::{BlockPointer, Body};

impl<'a> Walker<'_, 'a> {
    /// Notes the space of an intent log that was not replayed. Its last block is allocated but not yet written.
    pub(super) fn walk_log(&mut self, set: usize, opened: &ObjectSet<'a>) {
        const NEXT_AT: usize = 8;
        let spot = Spot { set, object: None, level: 0, number: 0 };
        let mut next = opened.log;
        while let Ok(pointer) = BlockPointer::decode(&next) {
            let Body::Stored(stored) = &pointer.body else { return };
            let unclaimed = opened.log_claimed == 0 && pointer.birth > self.pool.uberblock.txg();
            // A block that the pool does not know of yet is not allocated either.
            let Some(dva) = stored.dvas().next().filter(|_| !unclaimed) else { return };
            if stored.checksum_kind != kind::ZILOG2 || !self.seen.insert((dva.vdev, dva.offset)) {
                return;
            }
            self.add_segments(spot, stored, pointer.physical_birth, stored.dedup, 0);
            let block = (0..self.pool.blocks.children(&dva)).find_map(|child| {
                let accept = |raw: &[u8]| match check_log_block(raw, &stored.checksum) {
                    true => Ok(()),
                    false => Err(CopyProblem::Checksum),
                };
                self.pool.blocks.read_device(&dva, child, stored.psize, &accept).ok()
            });
            let Some(block) = block else { return };
            if opened.log_claimed != 0 {
                self.note("blocks that an intent log refers to");
            }
            match crate::read::bytes::array(&block, NEXT_AT) {
                Some(pointer) => next = pointer,
                None => return,
            }
        }
    }

    fn note(&mut self, what: &str) {
        if !self.not_checked.iter().any(|noted| noted == what) {
            self.not_checked.push(what.to_owned());
        }
    }

    /// Notes the space of blocks that nobody refers to any more, but that are not free yet.
    pub(super) fn walk_lists(&mut self) {
        let spot = Spot { set: 0, object: None, level: 0, number: 0 };
        for name in ["sync_bplist", "free_bpobj"] {
            let freed = match self.pool.directory_object(name) {
                Ok(Some(object)) => lists::pointers(self.pool, object),
                Ok(None) => continue,
                Err(error) => Err(error),
            };
            match freed {
                Ok(freed) => {
                    for pointer in freed {
                        if let Body::Stored(stored) = &pointer.body {
                            self.add_segments(spot, stored, pointer.physical_birth, stored.dedup, 0);
                        }
                    }
                }
                Err(error) => self.unreadable(spot, error.to_string()),
            }
        }
        for (name, what) in [
            ("bptree_obj", "leaks, because a dataset is being destroyed"),
            ("com.delphix:zpool_checkpoint", "leaks, because the pool has a checkpoint"),
        ] {
            if let Ok(Some(object)) = self.pool.directory_object(name)
                && self.pool.mos.find(object).is_ok_and(|dnode| dnode.is_some_and(|dnode| dnode.used > 0))
            {
                self.walked.complete = false;
                self.note(what);
            }
        }
    }
}

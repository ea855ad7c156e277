//! Object sets: numbered objects, their dnodes in an array that is an object itself.

use std::sync::Arc;

use super::block::Blocks;
use super::bytes::u64_at;
use super::dnode::{Dnode, SLOT};
use super::error::ReadError;
use super::pointer::{BlockPointer, POINTER};
use super::zap::Zap;

/// Slots in a block of dnodes.
pub(crate) const SLOTS_PER_BLOCK: u64 = 32;
const DNODE_BLOCK: u64 = 16 << 10;

/// What an object set is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SetKind {
    /// The pool's own objects.
    Meta,
    Filesystem,
    Volume,
    Other(u64),
}

/// An object set.
#[derive(Debug)]
pub(crate) struct ObjectSet<'a> {
    pub(crate) blocks: Arc<Blocks<'a>>,
    pub(crate) kind: SetKind,
    pub(crate) meta: Dnode,
    /// Space accounting by user, group and project, as far as there is any.
    pub(crate) accounting: Vec<Dnode>,
    /// First block of the intent log.
    pub(crate) log: [u8; POINTER],
    /// Transaction group in which the log was claimed at an import.
    pub(crate) log_claimed: u64,
}

impl<'a> ObjectSet<'a> {
    /// The object set that `pointer` leads to; none when it was never written.
    pub(crate) fn open(
        blocks: Arc<Blocks<'a>>,
        pointer: &BlockPointer,
    ) -> Result<Option<ObjectSet<'a>>, ReadError> {
        const LOG_AT: usize = 512;
        const LOG_POINTER_AT: usize = LOG_AT + 16;
        const KIND_AT: usize = 704;
        const ACCOUNTING_AT: [usize; 3] = [1024, 1536, 2048];
        let damaged = |problem| ReadError::damaged("an object set", problem);
        if pointer.is_hole() {
            return Ok(None);
        }
        let bytes = blocks.read_cached(pointer)?;
        let meta =
            Dnode::decode(&bytes).map_err(damaged)?.ok_or_else(|| damaged("it has no array of dnodes"))?;
        if meta.block_size != DNODE_BLOCK {
            return Err(damaged("the blocks of its array of dnodes have an impossible size"));
        }
        let kind = match u64_at(&bytes, KIND_AT).ok_or_else(|| damaged("it is cut off"))? {
            1 => SetKind::Meta,
            2 => SetKind::Filesystem,
            3 => SetKind::Volume,
            other => SetKind::Other(other),
        };
        let accounting = ACCOUNTING_AT
            .into_iter()
            .filter_map(|at| bytes.get(at..at + SLOT))
            .filter_map(|slot| Dnode::decode(slot).map_err(damaged).transpose())
            .collect::<Result<_, _>>()?;
        let log = super::bytes::array(&bytes, LOG_POINTER_AT).ok_or_else(|| damaged("it is cut off"))?;
        let log_claimed = u64_at(&bytes, LOG_AT).unwrap_or(0);
        Ok(Some(ObjectSet { kind, meta, accounting, log, log_claimed, blocks }))
    }

    /// The dnode of object `number`, if there is such an object.
    pub(crate) fn find(&self, number: u64) -> Result<Option<Dnode>, ReadError> {
        if number == 0 {
            return Ok(None);
        }
        let Some(block) = self.meta.read(&self.blocks, number / SLOTS_PER_BLOCK)? else { return Ok(None) };
        let at = (number % SLOTS_PER_BLOCK) as usize * SLOT;
        let bytes = block.get(at..).unwrap_or_default();
        Dnode::decode(bytes).map_err(|problem| ReadError::damaged(format!("object {number}"), problem))
    }

    /// The dnode of object `number`, which must exist.
    pub(crate) fn dnode(&self, number: u64) -> Result<Dnode, ReadError> {
        self.find(number)?.ok_or_else(|| {
            ReadError::damaged(format!("object {number}"), "it is referred to but does not exist")
        })
    }

    /// The table that is object `number`.
    pub(crate) fn zap(&self, number: u64) -> Result<Zap<'_, 'a>, ReadError> {
        Zap::open(&self.blocks, self.dnode(number)?, number)
    }

    /// The first `len` bytes of data of object `number`, at most `limit` and never more than the devices hold.
    pub(crate) fn content(&self, number: u64, len: u64, limit: u64) -> Result<Vec<u8>, ReadError> {
        if len > limit.min(self.blocks.device_bytes()) {
            return Err(ReadError::damaged(
                format!("object {number}"),
                "it is longer than such an object can be",
            ));
        }
        let mut bytes = vec![0; len as usize];
        self.dnode(number)?.read_bytes(&self.blocks, 0, &mut bytes)?;
        Ok(bytes)
    }
}

/// The dnodes in a block whose first slot is object `first`, in ascending order.
pub(crate) fn objects_of(block: &[u8], first: u64) -> Vec<Result<(u64, Dnode), ReadError>> {
    let mut found = Vec::new();
    let mut slot = 0;
    while slot * SLOT < block.len() {
        let number = first.saturating_add(slot as u64);
        slot += match Dnode::decode(&block[slot * SLOT..]) {
            Ok(None) => 1,
            Ok(Some(dnode)) => {
                let slots = dnode.slots;
                found.push(Ok((number, dnode)));
                slots
            }
            Err(problem) => {
                found.push(Err(ReadError::damaged(format!("object {number}"), problem)));
                1
            }
        };
    }
    found
}

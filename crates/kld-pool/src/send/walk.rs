//! Walks over a snapshot in the order of a stream: its objects, and what was written to and freed from each since a
//! transaction group.

use crate::read::ReadError;
use crate::read::dnode::{Dnode, SLOT};
use crate::read::objset::{ObjectSet, SLOTS_PER_BLOCK};
use crate::read::pointer::{BlockPointer, Body, POINTER};

/// `DMU_OT_SA`, the type of spill blocks.
const TYPE_SA: u8 = 44;

/// What is met on the way.
#[derive(Debug)]
pub(super) enum Item {
    /// Numbers that no object has.
    FreeObjects { first: u64, count: u64 },
    /// An object, before everything in it.
    Object { number: u64, dnode: Box<Dnode> },
    /// Bytes of an object that are a hole; a length of all ones is up to the end.
    Free { object: u64, offset: u64, length: u64 },
    /// A data block of an object.
    Block { object: u64, object_type: u8, offset: u64, pointer: BlockPointer },
    /// The spill block of an object; `unmodified` when it is older than what is asked for.
    Spill { object: u64, pointer: BlockPointer, unmodified: bool },
}

/// Where an interrupted stream goes on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    pub(super) object: u64,
    /// First data block of the object that is still to be sent.
    pub(super) block: u64,
}

/// What is walked over.
#[derive(Debug)]
pub(super) struct Walk<'s, 'a> {
    pub(super) set: &'s ObjectSet<'a>,
    /// Only what was born after this transaction group.
    pub(super) since: u64,
    pub(super) start: Start,
}

/// A pointer's place in its object.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) level: u8,
    pub(super) number: u64,
}

impl Place {
    /// The data blocks below it, as their first number and how many they are; none when 64 bits cannot say it.
    fn span(self, dnode: &Dnode) -> Option<(u64, u64)> {
        let count = 1u64.checked_shl(dnode.span_shift(self.level))?;
        Some((self.number.checked_mul(count)?, count))
    }
}

type Each<'e, E> = &'e mut dyn FnMut(Item) -> Result<(), E>;

impl Walk<'_, '_> {
    /// Calls `each` for everything, in ascending order of objects and offsets.
    pub(super) fn run<E: From<ReadError>>(&self, each: Each<'_, E>) -> Result<(), E> {
        let meta = &self.set.meta;
        // Blocks of dnodes that end before the object to start with.
        let skip = self.start.object / SLOTS_PER_BLOCK;
        self.visit_all(meta, skip, &mut |place, pointer| {
            let Some((block, count)) = place.span(meta) else { return Ok(()) };
            if !pointer.is_hole() {
                return self.objects(&pointer, block.saturating_mul(SLOTS_PER_BLOCK), each);
            }
            free_objects((block, count), meta.last_block.saturating_add(1)).map_or(Ok(()), &mut *each)
        })
    }

    /// The objects of one block of dnodes. All are described again, also those that did not change.
    fn objects<E: From<ReadError>>(
        &self,
        pointer: &BlockPointer,
        first: u64,
        each: Each<'_, E>,
    ) -> Result<(), E> {
        let block = self.set.blocks.read_cached(pointer)?;
        let mut slot = 0;
        while slot * SLOT < block.len() {
            let number = first.saturating_add(slot as u64);
            let dnode = Dnode::decode(&block[slot * SLOT..])
                .map_err(|problem| ReadError::damaged(format!("object {number}"), problem))?;
            slot += dnode.as_ref().map_or(1, |dnode| dnode.slots);
            if number < self.start.object {
                continue;
            }
            match dnode {
                // The number of the table of dnodes itself: never an object, and never said to be free.
                None if number == 0 => {}
                None => each(Item::FreeObjects { first: number, count: 1 })?,
                Some(_) if number == 0 => {
                    return Err(ReadError::damaged("object 0", "no object can have this number").into());
                }
                Some(dnode) => self.object(number, dnode, each)?,
            }
        }
        Ok(())
    }

    fn object<E: From<ReadError>>(&self, number: u64, dnode: Dnode, each: Each<'_, E>) -> Result<(), E> {
        let spill = spill_of(number, &dnode)?;
        let unmodified = spill.is_some_and(|spill| spill.logical_birth <= self.since);
        let spill = spill.map(|pointer| Item::Spill { object: number, pointer, unmodified });
        each(Item::Object { number, dnode: Box::new(dnode.clone()) })?;
        let (early, late) = if unmodified { (spill, None) } else { (None, spill) };
        early.map_or(Ok(()), &mut *each)?;
        let skip = if number == self.start.object { self.start.block } else { 0 };
        self.visit_all(&dnode, skip, &mut |place, pointer| {
            item(number, &dnode, place, pointer).map_or(Ok(()), &mut *each)
        })?;
        late.map_or(Ok(()), each)
    }

    /// Calls `leaf` for every hole and every data block of an object that is new enough, from data block `skip` on.
    fn visit_all<E: From<ReadError>>(
        &self,
        dnode: &Dnode,
        skip: u64,
        leaf: &mut dyn FnMut(Place, BlockPointer) -> Result<(), E>,
    ) -> Result<(), E> {
        for (number, bytes) in (0..).zip(&dnode.pointers) {
            self.visit(dnode, skip, bytes, Place { level: dnode.levels - 1, number }, leaf)?;
        }
        Ok(())
    }

    fn visit<E: From<ReadError>>(
        &self,
        dnode: &Dnode,
        skip: u64,
        bytes: &[u8],
        place: Place,
        leaf: &mut dyn FnMut(Place, BlockPointer) -> Result<(), E>,
    ) -> Result<(), E> {
        let end = place.span(dnode).and_then(|(first, count)| first.checked_add(count));
        if end.is_some_and(|end| end <= skip) {
            return Ok(());
        }
        let pointer = dnode.checked(bytes, place.level)?;
        // A hole without a birth has been one for ever, or since before holes had births: it is sent to be sure.
        if pointer.logical_birth != 0 && pointer.logical_birth <= self.since {
            return Ok(());
        }
        let below = match &pointer.body {
            Body::Redacted => {
                return Err(ReadError::NotSupported { what: "a redacted block".to_owned() }.into());
            }
            Body::Stored(stored) if stored.encrypted => {
                return Err(ReadError::NotSupported { what: "an encrypted block".to_owned() }.into());
            }
            Body::Hole => None,
            Body::Embedded { .. } | Body::Stored(_) => place.level.checked_sub(1),
        };
        let Some(level) = below else { return leaf(place, pointer) };
        let block = self.set.blocks.read_cached(&pointer)?;
        for (i, bytes) in (0..).zip(block.chunks_exact(POINTER)) {
            let number = place.number.checked_mul(dnode.fanout()).and_then(|first| first.checked_add(i));
            let Some(number) = number else { return Ok(()) };
            self.visit(dnode, skip, bytes, Place { level, number }, leaf)?;
        }
        Ok(())
    }
}

/// The numbers of blocks of dnodes that are holes, as their first and how many they are; `blocks` are there in all.
pub(super) fn free_objects((block, count): (u64, u64), blocks: u64) -> Option<Item> {
    // Numbers behind the last block were never in use.
    let first = block.saturating_mul(SLOTS_PER_BLOCK);
    let end = blocks.saturating_mul(SLOTS_PER_BLOCK);
    let count = count.saturating_mul(SLOTS_PER_BLOCK).min(end.saturating_sub(first));
    (count > 0).then_some(Item::FreeObjects { first, count })
}

/// What is sent of a hole or a data block of an object, if anything.
pub(super) fn item(object: u64, dnode: &Dnode, place: Place, pointer: BlockPointer) -> Option<Item> {
    // Blocks whose numbers or offsets exceed 64 bits cannot hold anything.
    let (first, count) = place.span(dnode)?;
    let offset = first.checked_mul(dnode.block_size)?;
    offset.checked_add(dnode.block_size)?;
    // What lies behind the last block is freed together with the description of the object.
    if first > dnode.last_block && !(pointer.is_hole() && is_metadata(dnode.object_type)) {
        return None;
    }
    if !pointer.is_hole() {
        return Some(Item::Block { object, object_type: dnode.object_type, offset, pointer });
    }
    let end = first.checked_add(count).and_then(|end| end.checked_mul(dnode.block_size));
    Some(Item::Free { object, offset, length: end.unwrap_or(u64::MAX) - offset })
}

fn spill_of(number: u64, dnode: &Dnode) -> Result<Option<BlockPointer>, ReadError> {
    let damaged = |problem| ReadError::damaged(format!("object {number}"), problem);
    let Some(spill) = &dnode.spill else { return Ok(None) };
    let pointer = BlockPointer::decode(spill).map_err(|bad| damaged(bad.text()))?;
    match &pointer.body {
        Body::Hole => Ok(None),
        Body::Redacted => Err(ReadError::NotSupported { what: "a redacted block".to_owned() }),
        Body::Stored(stored) if stored.encrypted => {
            Err(ReadError::NotSupported { what: "an encrypted block".to_owned() })
        }
        _ if pointer.object_type != TYPE_SA || pointer.level != 0 => {
            Err(damaged("its spill block is something else"))
        }
        _ => Ok(Some(pointer)),
    }
}

/// Whether ZFS counts blocks of such objects as metadata (`DMU_OT_IS_METADATA`).
pub(super) fn is_metadata(object_type: u8) -> bool {
    const NEW_TYPE: u8 = 0x80;
    const METADATA: u8 = 0x40;
    /// Files, volumes, two kinds of bytes that nothing uses, blocks of deduplication.
    const DATA: [u8; 5] = [19, 23, 25, 26, 49];
    if object_type & NEW_TYPE != 0 { object_type & METADATA != 0 } else { !DATA.contains(&object_type) }
}

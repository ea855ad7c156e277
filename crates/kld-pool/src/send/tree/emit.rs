//! Puts the answers of the threads into the order of a stream: objects by number, their blocks by offset, and between them
//! what is free.

use super::super::SendError;
use super::super::ordered::in_order;
use super::super::output::Output;
use super::super::spans::{Fate, Spans};
use super::super::walk::{Item, Place, free_objects, item};
use super::state::{State, sized};
use super::work::{Answer, Answers, Encoding, Older, Run, Worker, tasks};
use crate::format::blkptr::BlockPointer as Written;
use crate::format::dnode::SLOTS_PER_BLOCK;
use crate::read::dnode::Dnode;
use crate::read::pointer::BlockPointer;

/// Levels of the array of dnodes: as many as it can ever need.
const DNODE_LEVELS: u8 = 6;
const SLOTS: u64 = SLOTS_PER_BLOCK as u64;

/// A stream on its way out.
pub(super) struct Emit<'e, 'o, 's, 't> {
    output: &'e mut Output<'o>,
    newer: &'s State<'t>,
    older: Older<'s, 't>,
    /// What became of each block of dnodes.
    fates: &'s [Fate],
    dnodes: Spans,
    /// The slot that comes next.
    slot: u64,
    /// The object whose blocks are coming.
    open: Option<Open>,
}

struct Open {
    number: u64,
    dnode: Dnode,
    spans: Spans,
}

fn hole() -> BlockPointer {
    BlockPointer::decode(&Written::HOLE.to_bytes()).expect("what is written here can be read")
}

impl<'e, 'o, 's, 't> Emit<'e, 'o, 's, 't> {
    pub(super) fn new(
        output: &'e mut Output<'o>,
        newer: &'s State<'t>,
        older: Older<'s, 't>,
        fates: &'s [Fate],
    ) -> Emit<'e, 'o, 's, 't> {
        let before = if older.0.is_some() { DNODE_LEVELS } else { 0 };
        let dnodes = Spans::new(DNODE_LEVELS, before, false);
        Emit { output, newer, older, fates, dnodes, slot: 0, open: None }
    }

    /// Writes the records of all objects.
    pub(super) fn all(mut self, encoding: &Encoding) -> Result<(), SendError> {
        let (newer, older) = (self.newer, self.older);
        let worker = || {
            let mut worker = Worker::new(newer, older, encoding);
            move |parts| worker.work(parts)
        };
        let tasks = tasks(newer, older, self.fates);
        in_order(encoding.settings.threads, tasks, worker, |answers| self.take(answers?))?;
        self.advance(newer.dnode_blocks * SLOTS)?;
        let met = &mut free_dnodes(self.output, newer.dnode_blocks);
        self.dnodes.finish(None, met)
    }

    fn take(&mut self, (answers, content): Answers) -> Result<(), SendError> {
        let mut rest = content.as_slice();
        answers.into_iter().try_for_each(|answer| self.answer(answer, &mut rest))
    }

    fn answer(&mut self, answer: Answer, content: &mut &[u8]) -> Result<(), SendError> {
        let number = answer.part.object;
        let object = &self.newer.objects[&number];
        let spill = object.spill.as_deref();
        let is_known = spill.is_some_and(|spill| self.older.has_spill(number, spill));
        let mut open = match self.open.take() {
            Some(open) if answer.part.first > 0 => open,
            _ => {
                self.advance(number)?;
                self.enter()?;
                self.slot += u64::from(object.dnode.slots);
                let mut dnode = sized(&object.dnode, answer.block_size, answer.blocks);
                dnode.spill = spill.map(|_| Written::HOLE);
                let dnode = Dnode::decode(&dnode.to_bytes()).ok().flatten();
                let dnode = dnode.expect("what is written here can be read");
                self.item(Item::Object { number, dnode: Box::new(dnode.clone()) }, &[])?;
                if let Some(spill) = spill.filter(|_| is_known) {
                    self.spill(number, spill, true)?;
                }
                let meets_rest = super::super::walk::is_metadata(dnode.object_type);
                let spans = Spans::new(dnode.levels, answer.levels_before, meets_rest);
                Open { number, dnode, spans }
            }
        };
        for run in answer.runs {
            self.run(&mut open, run, content)?;
        }
        if !answer.part.is_last {
            self.open = Some(open);
            return Ok(());
        }
        let Open { number, dnode, spans } = open;
        spans.finish(answer.behind, &mut free_blocks(self.output, number, &dnode))?;
        spill.filter(|_| !is_known).map_or(Ok(()), |spill| self.spill(number, spill, false))
    }

    fn run(&mut self, open: &mut Open, run: Run, content: &mut &[u8]) -> Result<(), SendError> {
        let Open { number, dnode, spans } = open;
        match run {
            Run::Unsent(fate, count) => {
                spans.push_run(fate, count, &mut free_blocks(self.output, *number, dnode))
            }
            Run::New(pointer, len) => {
                let place = Place { level: 0, number: spans.next() };
                spans.push_changed(&mut free_blocks(self.output, *number, dnode))?;
                let (own, rest) = content.split_at(len);
                *content = rest;
                item(*number, dnode, place, *pointer).map_or(Ok(()), |item| self.item(item, own))
            }
        }
    }

    /// Says what is free before slot `to`, and passes over the blocks of dnodes that are not sent.
    fn advance(&mut self, to: u64) -> Result<(), SendError> {
        while self.slot < to {
            if !self.enter()? {
                self.slot += SLOTS;
                continue;
            }
            // The number of the table of dnodes itself is never said to be free.
            if self.slot > 0 {
                self.item(Item::FreeObjects { first: self.slot, count: 1 }, &[])?;
            }
            self.slot += 1;
        }
        Ok(())
    }

    /// Where a block of dnodes starts: whether it is sent.
    fn enter(&mut self) -> Result<bool, SendError> {
        if !self.slot.is_multiple_of(SLOTS) {
            return Ok(true);
        }
        let met = &mut free_dnodes(self.output, self.newer.dnode_blocks);
        match self.fates[(self.slot / SLOTS) as usize] {
            Fate::Changed => self.dnodes.push_changed(met).map(|()| true),
            fate => self.dnodes.push_run(fate, 1, met).map(|()| false),
        }
    }

    fn spill(&mut self, object: u64, spill: &[u8], unmodified: bool) -> Result<(), SendError> {
        let pointer = BlockPointer { lsize: spill.len(), ..hole() };
        self.item(Item::Spill { object, pointer, unmodified }, spill)
    }

    fn item(&mut self, item: Item, content: &[u8]) -> Result<(), SendError> {
        self.output.item(item, content).map_err(SendError::Write)
    }
}

/// Says that the blocks of an object below a pointer are free.
fn free_blocks<'f>(
    output: &'f mut Output<'_>,
    number: u64,
    dnode: &'f Dnode,
) -> impl FnMut(Place) -> Result<(), SendError> + 'f {
    move |place| match item(number, dnode, place, hole()) {
        Some(item) => output.item(item, &[]).map_err(SendError::Write),
        None => Ok(()),
    }
}

/// Says that the numbers of dnodes below a pointer are free.
fn free_dnodes<'f>(
    output: &'f mut Output<'_>,
    blocks: u64,
) -> impl FnMut(Place) -> Result<(), SendError> + 'f {
    move |place| {
        let shift = u32::from(place.level) * 10;
        let span = (place.number << shift, 1 << shift);
        match free_objects(span, blocks) {
            Some(item) => output.item(item, &[]).map_err(SendError::Write),
            None => Ok(()),
        }
    }
}

//! What threads do: they read content, find out what became of it since the older state, and encode what is new.

use super::super::ordered::in_order;
use super::super::spans::Fate;
use super::super::{Form, SendError};
use super::state::{Content, Object, State};
use crate::codec::{Allow, Block, CODE_ZSTD, Compression, Encoder, Form as BlockForm, Output, is_zero};
use crate::format::blkptr::{Address, BlockPointer as Written, Dva, Role};
use crate::read::pointer::BlockPointer;
use crate::tree::Reader;
use crate::write::error::WriteError;
use crate::write::pipeline::{Job, Settings, TASK_BYTES, TASK_PARTS};

/// How blocks are encoded, and which of them are sent so.
#[derive(Clone, Copy)]
pub(super) struct Encoding {
    pub(super) settings: Settings,
    pub(super) form: Form,
}

/// The state that a receiver has, if any.
#[derive(Clone, Copy)]
pub(super) struct Older<'s, 't>(pub(super) Option<&'s State<'t>>);

/// A part of an object.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) object: u64,
    pub(super) first: u64,
    count: u64,
    kind: PartKind,
    pub(super) is_last: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PartKind {
    /// Blocks that hold data.
    Data,
    /// Blocks that are known to be a hole.
    Hole,
    /// Blocks that are known to be the same as in the older state.
    Same,
    /// All of an object that is no data.
    Whole,
}

/// A part that was read.
pub(super) struct Answer {
    pub(super) part: Part,
    pub(super) block_size: u64,
    /// Blocks of the whole object.
    pub(super) blocks: u64,
    /// Levels of pointers in the older state; 0 when it has no blocks of this size.
    pub(super) levels_before: u8,
    pub(super) runs: Vec<Run>,
    /// The first block behind the last one in which the older state has data; of the last part.
    pub(super) behind: Option<u64>,
}

/// Blocks that have one fate.
pub(super) enum Run {
    Unsent(Fate, u64),
    /// A block that is new, with so many bytes of the answers' content.
    New(Box<BlockPointer>, usize),
}

/// The parts of a task, and the content of their blocks, one after the other.
pub(super) type Answers = (Vec<Answer>, Vec<u8>);

/// Adds to runs of blocks that have one fate.
fn add(runs: &mut Vec<Run>, fate: Fate, count: u64) {
    match runs.last_mut() {
        Some(Run::Unsent(last, so_far)) if *last == fate => *so_far += count,
        _ if count == 0 => {}
        _ => runs.push(Run::Unsent(fate, count)),
    }
}

impl<'s, 't> Older<'s, 't> {
    fn object(self, number: u64) -> Option<&'s Object<'t>> {
        self.0.and_then(|state| state.objects.get(&number))
    }

    /// The older content of an object, where its blocks can be compared.
    fn job(self, number: u64, block_size: u64) -> Option<&'s Job<'t>> {
        match &self.object(number)?.content {
            Content::Data(job) if job.block_size == block_size => Some(job),
            _ => None,
        }
    }

    /// Whether the spill block of an object is the one that a receiver has.
    pub(super) fn has_spill(self, number: u64, spill: &[u8]) -> bool {
        self.object(number).and_then(|object| object.spill.as_deref()) == Some(spill)
    }

    /// What became of each block of dnodes: everything in it is read to find out, up to the first difference.
    pub(super) fn fates(self, newer: &State<'_>, encoding: &Encoding) -> Result<Vec<Fate>, SendError> {
        let mut fates = Vec::new();
        let compression = encoding.settings.compression;
        let worker = || {
            let mut compare = Compare { compression, reader: Reader::default(), buffers: Default::default() };
            move |block| self.fate(newer, block, &mut compare)
        };
        in_order(encoding.settings.threads, 0..newer.dnode_blocks, worker, |fate| {
            fates.push(fate?);
            Ok(())
        })?;
        Ok(fates)
    }

    fn fate(self, newer: &State<'_>, block: u64, compare: &mut Compare) -> Result<Fate, SendError> {
        let is_empty = newer.block(block).next().is_none();
        let Some(older) = self.0.filter(|older| older.block(block).next().is_some()) else {
            return Ok(if is_empty { Fate::Hole } else { Fate::Changed });
        };
        if is_empty {
            return Ok(Fate::Freed);
        }
        if !newer.block(block).map(|(number, _)| number).eq(older.block(block).map(|(number, _)| number)) {
            return Ok(Fate::Changed);
        }
        for ((number, now), (_, before)) in newer.block(block).zip(older.block(block)) {
            let is_same = now.dnode.to_bytes() == before.dnode.to_bytes() && now.spill == before.spill;
            if !is_same || !compare.same(number, (newer, now), (older, before))? {
                return Ok(Fate::Changed);
            }
        }
        Ok(Fate::Same)
    }
}

/// Finds out whether two objects hold the same.
struct Compare {
    compression: Compression,
    reader: Reader,
    buffers: [Vec<u8>; 2],
}

impl Compare {
    fn same(
        &mut self,
        number: u64,
        (newer, now): (&State<'_>, &Object<'_>),
        (older, before): (&State<'_>, &Object<'_>),
    ) -> Result<bool, SendError> {
        match (&now.content, &before.content) {
            (Content::Nothing, Content::Nothing) => Ok(true),
            (Content::Data(a), Content::Data(b)) => a_is_b(a, b, self).map_err(|(error, is_older)| {
                let state = if is_older { older } else { newer };
                state.unreadable(number, error).into()
            }),
            _ => {
                let tables = (newer.table(now)?, older.table(before)?);
                Ok(matches!(tables, (Some(a), Some(b)) if a.blocks == b.blocks))
            }
        }
    }
}

/// Whether blocks of the same number are the same, and holes where the other has holes. An error says whether it is the
/// second that cannot be read.
fn a_is_b(a: &Job<'_>, b: &Job<'_>, compare: &mut Compare) -> Result<bool, (crate::tree::ReadError, bool)> {
    if a.block_size != b.block_size || a.len != b.len {
        return Ok(false);
    }
    if a.data.is_same(b.data) {
        return Ok(true);
    }
    let Compare { compression, reader, buffers: [mine, theirs] } = compare;
    let mut block = 0;
    while block < a.blocks() {
        let ((here, a_hole), (there, b_hole)) =
            (a.stretch_at(block, TASK_BYTES), b.stretch_at(block, TASK_BYTES));
        let count = here.min(there);
        if !(a_hole && b_hole) {
            let bytes = (count * a.block_size) as usize;
            for buffer in [&mut *mine, &mut *theirs] {
                buffer.resize(bytes.max(buffer.len()), 0);
            }
            let (mine, theirs) = (&mut mine[..bytes], &mut theirs[..bytes]);
            a.read(reader, block, mine).map_err(|error| (error, false))?;
            b.read(reader, block, theirs).map_err(|error| (error, true))?;
            // Zeros become holes only where blocks are compressed.
            if mine != theirs || (a_hole != b_hole && *compression == Compression::Off) {
                return Ok(false);
            }
        }
        block += count;
    }
    Ok(true)
}

/// Cuts the objects of changed blocks of dnodes into tasks of about a mebibyte.
pub(super) fn tasks<'s, 't>(
    newer: &'s State<'t>,
    older: Older<'s, 't>,
    fates: &'s [Fate],
) -> impl Iterator<Item = Vec<Part>> + use<'s, 't> {
    let blocks = (0..).zip(fates).filter(|(_, fate)| **fate == Fate::Changed).map(|(block, _)| block);
    let mut objects = blocks.flat_map(|block| newer.block(block));
    let mut open: Option<(u64, &Job<'_>, u64)> = None;
    std::iter::from_fn(move || {
        let mut parts = Vec::new();
        let mut bytes = 0;
        while bytes < TASK_BYTES && parts.len() < TASK_PARTS {
            let (object, job, first) = match open.take() {
                Some(open) => open,
                None => match objects.next() {
                    None => break,
                    Some((object, Object { content: Content::Data(job), .. })) => (object, job, 0),
                    Some((object, _)) => {
                        parts.push(Part { object, first: 0, count: 0, kind: PartKind::Whole, is_last: true });
                        continue;
                    }
                },
            };
            let is_same = || {
                older
                    .job(object, job.block_size)
                    .is_some_and(|old| old.len == job.len && old.data.is_same(job.data))
            };
            let (count, kind) = match job.stretch_at(first, TASK_BYTES - bytes) {
                _ if first == 0 && is_same() => (job.blocks(), PartKind::Same),
                (count, true) => (count, PartKind::Hole),
                (count, false) => {
                    bytes += count * job.block_size;
                    (count, PartKind::Data)
                }
            };
            let is_last = first + count == job.blocks();
            parts.push(Part { object, first, count, kind, is_last });
            if !is_last {
                open = Some((object, job, first + count));
            }
        }
        (!parts.is_empty()).then_some(parts)
    })
}

/// One thread: its memory and its encoders.
pub(super) struct Worker<'s, 't> {
    newer: &'s State<'t>,
    older: Older<'s, 't>,
    form: Form,
    data: Result<Encoder, WriteError>,
    metadata: Result<Encoder, WriteError>,
    compression: Compression,
    output: Output,
    reader: Reader,
    input: Vec<u8>,
    old: Vec<u8>,
}

/// What the older state has at a block.
enum Was {
    Hole,
    Data,
}

impl<'s, 't> Worker<'s, 't> {
    pub(super) fn new(newer: &'s State<'t>, older: Older<'s, 't>, encoding: &Encoding) -> Worker<'s, 't> {
        let Settings { compression, hasher, ashift, .. } = encoding.settings;
        let encoder = |compression, hasher| {
            Encoder::new(compression, hasher, ashift).map_err(|source| WriteError::Compress { source })
        };
        Worker {
            newer,
            older,
            form: encoding.form,
            data: encoder(compression, hasher),
            metadata: encoder(Compression::Lz4, hasher.for_metadata()),
            compression,
            output: Output::default(),
            reader: Reader::default(),
            input: Vec::new(),
            old: Vec::new(),
        }
    }

    pub(super) fn work(&mut self, parts: Vec<Part>) -> Result<Answers, SendError> {
        let mut content = Vec::new();
        let answers =
            parts.into_iter().map(|part| self.part(part, &mut content)).collect::<Result<_, _>>()?;
        Ok((answers, content))
    }

    fn part(&mut self, part: Part, content: &mut Vec<u8>) -> Result<Answer, SendError> {
        let newer = self.newer;
        let object = &newer.objects[&part.object];
        let Content::Data(job) = &object.content else { return self.whole(part, object, content) };
        let old = self.older.job(part.object, job.block_size);
        let mut runs = Vec::new();
        match part.kind {
            // Of an object that is nothing but a hole that is said again.
            PartKind::Same => match self.first_data(part.object, job, 0)? {
                Some(_) => add(&mut runs, Fate::Same, part.count),
                None => add(&mut runs, Fate::Hole, part.count),
            },
            PartKind::Hole => self.hole(part, old, &mut runs)?,
            PartKind::Data | PartKind::Whole => self.data(part, job, old, &mut runs, content)?,
        }
        let behind = match old {
            Some(old) if part.is_last => self.first_data(part.object, old, job.blocks())?,
            _ => None,
        };
        let before = self.older.object(part.object);
        Ok(Answer {
            part,
            block_size: job.block_size,
            blocks: job.blocks(),
            levels_before: before.map_or(0, |before| before.levels_of(job.block_size)),
            runs,
            behind,
        })
    }

    /// An object that is a table, or holds nothing.
    fn whole(&mut self, part: Part, object: &Object<'_>, content: &mut Vec<u8>) -> Result<Answer, SendError> {
        let Some(table) = self.newer.table(object)? else {
            let block_size = u64::from(object.dnode.block_size);
            let runs = vec![Run::Unsent(Fate::Hole, 1)];
            return Ok(Answer { part, block_size, blocks: 1, levels_before: 0, runs, behind: None });
        };
        let older = match (self.older.0, self.older.object(part.object)) {
            (Some(state), Some(object)) => state.table(object)?,
            _ => None,
        };
        let older = older.filter(|older| older.block_size == table.block_size);
        let older = older.map(|older| older.blocks).unwrap_or_default();
        let role = Role { object_type: object.dnode.object_type, level: 0 };
        let allow = Allow { embedded: true, holes: false };
        let mut runs = Vec::new();
        for (i, block) in table.blocks.iter().enumerate() {
            if older.get(i) == Some(block) {
                add(&mut runs, Fate::Same, 1);
                continue;
            }
            self.output.clear();
            let encoder = self.metadata.as_mut().map_err(|error| again(error))?;
            let encoded = encoder.encode(block, allow, &mut self.output).map_err(compress)?;
            runs.push(send(self.form, &encoded, role, block, &self.output, content));
        }
        let blocks = table.blocks.len() as u64;
        let behind = (older.len() as u64 > blocks).then_some(blocks);
        let levels_before =
            if older.is_empty() { 0 } else { super::super::spans::levels_above(older.len() as u64) };
        Ok(Answer { part, block_size: table.block_size.into(), blocks, levels_before, runs, behind })
    }

    fn data(
        &mut self,
        part: Part,
        job: &Job<'_>,
        old: Option<&Job<'_>>,
        runs: &mut Vec<Run>,
        content: &mut Vec<u8>,
    ) -> Result<(), SendError> {
        const ALLOW: Allow = Allow { embedded: true, holes: true };
        let size = job.block_size as usize;
        let role = Role { object_type: job.object_type, level: 0 };
        let mut input = std::mem::take(&mut self.input);
        let bytes = part.count as usize * size;
        input.resize(bytes.max(input.len()), 0);
        job.read(&mut self.reader, part.first, &mut input[..bytes])
            .map_err(|error| self.newer.unreadable(part.object, error))?;
        for (number, block) in (part.first..).zip(input[..bytes].chunks_exact(size)) {
            let was = self.was(part.object, old, number)?;
            if matches!(was, Was::Data) && self.old == block {
                add(runs, Fate::Same, 1);
                continue;
            }
            self.output.clear();
            let encoder = self.data.as_mut().map_err(|error| again(error))?;
            let encoded = encoder.encode(block, ALLOW, &mut self.output).map_err(compress)?;
            match (&encoded.form, was) {
                (BlockForm::Hole, Was::Hole) => add(runs, Fate::Hole, 1),
                (BlockForm::Hole, Was::Data) => add(runs, Fate::Freed, 1),
                _ => runs.push(send(self.form, &encoded, role, block, &self.output, content)),
            }
        }
        self.input = input;
        Ok(())
    }

    fn hole(&mut self, part: Part, old: Option<&Job<'_>>, runs: &mut Vec<Run>) -> Result<(), SendError> {
        let (mut number, end) = (part.first, part.first + part.count);
        while number < end {
            let rest = end - number;
            let holes = match old {
                Some(old) if number < old.blocks() => old.hole_blocks_at(number).min(rest),
                _ => rest,
            };
            if holes > 0 {
                add(runs, Fate::Hole, holes);
                number += holes;
                continue;
            }
            let fate = match self.was(part.object, old, number)? {
                Was::Hole => Fate::Hole,
                Was::Data => Fate::Freed,
            };
            add(runs, fate, 1);
            number += 1;
        }
        Ok(())
    }

    /// What the older state has at a block; data is then in `self.old`.
    fn was(&mut self, object: u64, old: Option<&Job<'_>>, number: u64) -> Result<Was, SendError> {
        let Some(old) = old.filter(|old| number < old.blocks() && old.hole_blocks_at(number) == 0) else {
            return Ok(Was::Hole);
        };
        self.old.resize(old.block_size as usize, 0);
        let read = old.read(&mut self.reader, number, &mut self.old);
        if let (Err(error), Some(state)) = (read, self.older.0) {
            return Err(state.unreadable(object, error).into());
        }
        // Zeros are holes where blocks are compressed.
        Ok(if self.compression != Compression::Off && is_zero(&self.old) { Was::Hole } else { Was::Data })
    }

    /// The first block from `number` on in which the older state has data.
    fn first_data(&mut self, object: u64, old: &Job<'_>, mut number: u64) -> Result<Option<u64>, SendError> {
        while number < old.blocks() {
            match old.hole_blocks_at(number) {
                0 => match self.was(object, Some(old), number)? {
                    Was::Data => return Ok(Some(number)),
                    Was::Hole => number += 1,
                },
                holes => number += holes,
            }
        }
        Ok(None)
    }
}

fn compress(source: std::io::Error) -> SendError {
    WriteError::Compress { source }.into()
}

/// An error that a thread meets each time.
fn again(error: &WriteError) -> SendError {
    compress(std::io::Error::other(error.to_string()))
}

/// A block as it is sent: its pointer, and what goes with it at the end of `content`.
fn send(
    form: Form,
    encoded: &Block,
    role: Role,
    block: &[u8],
    output: &Output,
    content: &mut Vec<u8>,
) -> Run {
    let pointer = pointer(encoded, role);
    let len = content.len();
    if !form.embeds(&pointer) {
        match form.sends_stored(&pointer) {
            Some(stored) => content.extend_from_slice(&output.bytes()[..stored.psize]),
            None => content.extend_from_slice(block),
        }
    }
    Run::New(Box::new(pointer), content.len() - len)
}

/// The pointer that a block would have, at some place.
fn pointer(encoded: &Block, role: Role) -> BlockPointer {
    const BIRTH: u64 = 1;
    let written = match &encoded.form {
        BlockForm::Hole => Written::HOLE,
        BlockForm::Embedded { payload, compression } => {
            Written::embedded(payload, encoded.lsize, *compression, role, BIRTH)
        }
        BlockForm::Stored(extent) => {
            let somewhere = Dva { address: Address::new(0, 0), asize: extent.asize };
            Written::stored(extent, &[somewhere], role, BIRTH, 1)
        }
    };
    BlockPointer::decode(&written.to_bytes()).expect("what is written here can be read")
}

/// Whether zstd makes any block smaller: only then the dataset uses it.
pub(super) fn compresses(state: &State<'_>, settings: Settings) -> Result<bool, SendError> {
    const ALLOW: Allow = Allow { embedded: true, holes: true };
    let Settings { compression, hasher, ashift, .. } = settings;
    let mut encoder = Encoder::new(compression, hasher, ashift).map_err(compress)?;
    let (mut reader, mut output, mut input) = (Reader::default(), Output::default(), Vec::new());
    for job in state.jobs() {
        let mut number = 0;
        input.resize(job.block_size as usize, 0);
        while number < job.blocks() {
            match job.hole_blocks_at(number) {
                0 => {
                    job.read(&mut reader, number, &mut input)
                        .map_err(|error| state.unreadable(job.object, error))?;
                    output.clear();
                    let block = encoder.encode(&input, ALLOW, &mut output).map_err(compress)?;
                    if block.compression_code() == Some(CODE_ZSTD) {
                        return Ok(true);
                    }
                    number += 1;
                }
                holes => number += holes,
            }
        }
    }
    Ok(false)
}

//! Pools with chosen wrong bytes whose checksums are all right: damage that gets past the first line of defence.
//!
//! The blocks of a whole pool are found once, children before parents. Changed blocks then get new checksums in the
//! pointers that lead to them, up to the uberblocks and the areas of the labels.

use std::collections::{BTreeMap, HashMap};
use std::io;

use crate::device::ReadAt;
use crate::format::checksum::{fletcher4, seal_area};
use crate::format::put_u64;
use crate::read::Pool;
use crate::read::block::Blocks;
use crate::read::dnode::{Dnode, SLOT};
use crate::read::pointer::{BlockPointer, Body, POINTER};
use crate::read::vdev::DATA_START;

/// Where the checksum and the number of its algorithm stand in a block pointer, and the pointers in a dnode.
const CHECKSUM_AT: usize = 96;
const CHECKSUM_KIND_AT: usize = 53;
const POINTERS_AT: usize = 64;
const CODE_OFF: u8 = 2;
const CODE_LZ4: u8 = 15;

/// A whole pool, taken apart.
pub(super) struct Forge {
    image: Vec<u8>,
    /// Children before parents; the areas of the labels come last.
    blocks: Vec<Block>,
}

/// A block or a self-checking area.
struct Block {
    /// First bytes of its copies in the image.
    places: Vec<usize>,
    data: Vec<u8>,
    form: Form,
    /// Pointers in `data`, and the blocks that they lead to.
    children: Vec<(usize, usize)>,
    /// The pointer to it; empty for an area.
    pointer: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Plain,
    /// As many bytes, compressed.
    Lz4(usize),
    /// Part of a label, whose checksum stands at its end.
    Area,
}

/// What the blocks at the end of a tree of pointers hold.
#[derive(Clone, Copy)]
enum Leaf {
    Set,
    Dnodes,
    Data,
}

/// A change of the bytes of a block as a reader sees them.
pub(super) struct Change {
    /// Which block; all numbers are taken modulo what there is.
    pub(super) block: usize,
    pub(super) at: usize,
    pub(super) what: What,
}

pub(super) enum What {
    Set {
        width: usize,
        value: u64,
    },
    Add {
        width: usize,
        value: u64,
    },
    Flip {
        width: usize,
        value: u64,
    },
    Fill {
        len: usize,
        byte: u8,
    },
    /// As many bytes of another block.
    Copy {
        len: usize,
        block: usize,
        from: usize,
    },
    /// One of the pointers in the block leads to another block, without a checksum: rings become possible.
    Lead {
        block: usize,
    },
}

/// An image with parts that differ from what it was made from.
pub(super) struct Forged<'f> {
    base: &'f [u8],
    parts: BTreeMap<usize, Vec<u8>>,
}

impl Forged<'_> {
    /// Overwrites bytes. Scratches may touch each other: each byte is a part of its own.
    pub(super) fn scratch(&mut self, at: usize, bytes: &[u8]) {
        for (i, byte) in bytes.iter().enumerate().filter(|(i, _)| at + i < self.base.len()) {
            self.parts.insert(at + i, vec![*byte]);
        }
    }
}

impl ReadAt for Forged<'_> {
    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
        self.base.read_at(buf, at)?;
        let at = at as usize;
        let end = at + buf.len();
        // No part is longer than the largest block, and none overlap.
        let first = self.parts.range(..=at).next_back().map_or(at, |(start, _)| *start);
        for (start, part) in self.parts.range(first..end) {
            let (from, to) = (at.max(*start), end.min(start + part.len()));
            if from < to {
                buf[from - at..to - at].copy_from_slice(&part[from - start..to - start]);
            }
        }
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.base.len() as u64)
    }
}

impl Forge {
    /// Takes the pool in `image` apart.
    pub(super) fn new(image: Vec<u8>) -> Forge {
        let mut blocks = Vec::new();
        {
            let pool = Pool::open(&[&image]).expect("the pool is good");
            let mut seen = HashMap::new();
            let pointer = pool.uberblock.root;
            let root = collect(&pool.blocks, &pointer, Leaf::Set, &mut seen, &mut blocks);
            let labels = [0, 256 << 10, image.len() - (512 << 10), image.len() - (256 << 10)];
            let slots = |label: usize| (label + (128 << 10)..label + (256 << 10)).step_by(4096);
            let used = labels.into_iter().flat_map(slots).filter(|slot| image[*slot..slot + 8] != [0; 8]);
            let used: Vec<usize> = used.collect();
            let slot = image[used[0]..used[0] + 4096].to_vec();
            blocks.push(Block {
                places: used,
                data: slot,
                form: Form::Area,
                children: root.map(|root| (40, root)).into_iter().collect(),
                pointer: Vec::new(),
            });
            blocks.push(Block {
                places: labels.map(|label| label + (16 << 10)).to_vec(),
                data: image[16 << 10..128 << 10].to_vec(),
                form: Form::Area,
                children: Vec::new(),
                pointer: Vec::new(),
            });
        }
        Forge { image, blocks }
    }

    /// The pool as it was made.
    pub(super) fn untouched(&self) -> Forged<'_> {
        Forged { base: &self.image, parts: BTreeMap::new() }
    }

    /// A byte of the image: an even `number` counts only those of blocks and labels, because the rest is empty.
    pub(super) fn place(&self, number: usize) -> usize {
        if number % 2 == 1 {
            return number / 2 % self.image.len();
        }
        let block = &self.blocks[number / 2 % self.blocks.len()];
        let number = number / 2 / self.blocks.len();
        let place = block.places[number % block.places.len()];
        (place + number / block.places.len() % block.data.len().max(1)).min(self.image.len() - 1)
    }

    pub(super) fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Bytes of block `index` up to the last one that is not zero.
    pub(super) fn extent(&self, index: usize) -> usize {
        let data = &self.blocks[index].data;
        data.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
    }

    /// The pool with `changes`; none when a changed block no longer fits where it was.
    pub(super) fn apply(&self, changes: &[Change]) -> Option<Forged<'_>> {
        let mut forged = Forged { base: &self.image, parts: BTreeMap::new() };
        let mut sums = vec![None; self.blocks.len()];
        for (index, block) in self.blocks.iter().enumerate() {
            let own: Vec<&Change> =
                changes.iter().filter(|change| change.block % self.blocks.len() == index).collect();
            let below: Vec<_> =
                block.children.iter().filter_map(|(at, child)| Some((*at, sums[*child]?))).collect();
            if own.is_empty() && below.is_empty() {
                continue;
            }
            let mut data = block.data.clone();
            for (at, sum) in below {
                put_checksum(&mut data, at, sum);
            }
            own.iter().for_each(|change| self.change(block, &mut data, change));
            let stored = block.encode(data)?;
            sums[index] = Some(fletcher4(&stored));
            for place in &block.places {
                let mut copy = stored.clone();
                if block.form == Form::Area {
                    seal_area(&mut copy, *place as u64);
                }
                forged.parts.insert(*place, copy);
            }
        }
        Some(forged)
    }

    fn change(&self, block: &Block, data: &mut [u8], change: &Change) {
        let at = change.at % data.len();
        let other = |number: usize| &self.blocks[number % self.blocks.len()];
        let number = |data: &[u8], width: usize| {
            let mut bytes = [0; 8];
            let have = width.min(data.len() - at);
            bytes[..have].copy_from_slice(&data[at..at + have]);
            u64::from_le_bytes(bytes)
        };
        let mut put = |width: usize, value: u64| {
            let have = width.min(data.len() - at);
            data[at..at + have].copy_from_slice(&value.to_le_bytes()[..have]);
        };
        match change.what {
            What::Set { width, value } => put(width, value),
            What::Add { width, value } => {
                let old = number(data, width);
                let have = width.min(data.len() - at);
                data[at..at + have].copy_from_slice(&old.wrapping_add(value).to_le_bytes()[..have]);
            }
            What::Flip { width, value } => {
                let old = number(data, width);
                let have = width.min(data.len() - at);
                data[at..at + have].copy_from_slice(&(old ^ value).to_le_bytes()[..have]);
            }
            What::Fill { len, byte } => {
                let end = data.len().min(at + len);
                data[at..end].fill(byte);
            }
            What::Copy { len, block, from } => {
                let source = &other(block).data;
                let from = from % source.len();
                let len = len.min(source.len() - from).min(data.len() - at);
                data[at..at + len].copy_from_slice(&source[from..from + len]);
            }
            What::Lead { block: target } => {
                let pointer = &other(target).pointer;
                if let (false, false) = (block.children.is_empty(), pointer.is_empty()) {
                    let (at, _) = block.children[change.at % block.children.len()];
                    data[at..at + POINTER].copy_from_slice(pointer);
                    data[at + CHECKSUM_KIND_AT] = CODE_OFF;
                }
            }
        }
    }
}

impl Block {
    /// The bytes as they are stored.
    fn encode(&self, data: Vec<u8>) -> Option<Vec<u8>> {
        let Form::Lz4(stored_len) = self.form else { return Some(data) };
        let mut stored = vec![0; 4 + lz4_flex::block::get_maximum_output_size(data.len())];
        let len = lz4_flex::block::compress_into(&data, &mut stored[4..]).ok()?;
        stored[..4].copy_from_slice(&(len as u32).to_be_bytes());
        stored.truncate(4 + len);
        (stored.len() <= stored_len).then(|| {
            stored.resize(stored_len, 0);
            stored
        })
    }
}

pub(super) fn put_checksum(bytes: &mut [u8], pointer_at: usize, checksum: [u64; 4]) {
    for (i, word) in checksum.into_iter().enumerate() {
        put_u64(bytes, pointer_at + CHECKSUM_AT + i * 8, word);
    }
}

/// Notes the block that a pointer leads to, after everything below it; gives its number.
fn collect(
    blocks: &Blocks,
    pointer: &[u8],
    leaf: Leaf,
    seen: &mut HashMap<u64, usize>,
    found: &mut Vec<Block>,
) -> Option<usize> {
    const FILE: u8 = 19;
    const VOLUME: u8 = 23;
    let decoded = BlockPointer::decode(pointer).expect("the pool is good");
    let Body::Stored(stored) = &decoded.body else { return None };
    let dva = stored.dvas().next()?;
    if let Some(known) = seen.get(&dva.offset) {
        return Some(*known);
    }
    // Content of users is of interest as it is stored: it is what decompressors get.
    let is_content = decoded.level == 0 && matches!(decoded.object_type, FILE | VOLUME);
    let form = match stored.compression {
        CODE_LZ4 if !is_content => Form::Lz4(stored.psize),
        _ => Form::Plain,
    };
    let data = if is_content {
        blocks.read_device(&dva, 0, stored.psize, &|_| Ok(())).ok()?
    } else {
        blocks.read(&decoded).expect("the pool is good")
    };
    let mut children = Vec::new();
    for (at, below) in pointers_in(&data, decoded.level, leaf) {
        let child = collect(blocks, &data[at..at + POINTER], below, seen, found);
        children.extend(child.map(|child| (at, child)));
    }
    let places = stored.dvas().map(|dva| (dva.offset + DATA_START) as usize).collect();
    found.push(Block { places, data, form, children, pointer: pointer.to_vec() });
    seen.insert(dva.offset, found.len() - 1);
    Some(found.len() - 1)
}

/// Where pointers stand in a block, and what is at the end of the trees that they are the roots of.
fn pointers_in(data: &[u8], level: u8, leaf: Leaf) -> Vec<(usize, Leaf)> {
    const ACCOUNTING_AT: [usize; 3] = [1024, 1536, 2048];
    if level > 0 {
        return (0..data.len()).step_by(POINTER).map(|at| (at, leaf)).collect();
    }
    let mut found = Vec::new();
    match leaf {
        Leaf::Set => {
            pointers_of(data, 0, Leaf::Dnodes, &mut found);
            for at in ACCOUNTING_AT.into_iter().filter(|at| at + SLOT <= data.len()) {
                pointers_of(data, at, Leaf::Data, &mut found);
            }
        }
        Leaf::Dnodes => {
            let mut at = 0;
            while at < data.len() {
                at += pointers_of(data, at, Leaf::Data, &mut found) * SLOT;
            }
        }
        Leaf::Data => {}
    }
    found
}

/// The pointers of the dnode at `at`; gives the slots it takes.
fn pointers_of(data: &[u8], at: usize, leaf: Leaf, found: &mut Vec<(usize, Leaf)>) -> usize {
    const BONUS_DATASET: u8 = 16;
    const ROOT_AT: usize = 128;
    let Some(dnode) = Dnode::decode(&data[at..]).expect("the pool is good") else { return 1 };
    let first = at + POINTERS_AT;
    found.extend((0..dnode.pointers.len()).map(|i| (first + i * POINTER, leaf)));
    if dnode.spill.is_some() {
        found.push((at + dnode.slots * SLOT - POINTER, Leaf::Data));
    }
    if dnode.bonus_type == BONUS_DATASET {
        found.push((first + dnode.pointers.len() * POINTER + ROOT_AT, Leaf::Set));
    }
    dnode.slots
}

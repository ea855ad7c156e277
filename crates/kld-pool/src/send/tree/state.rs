//! A dataset as it was at one time: its objects as the writer plans them, and what each of them holds.

use std::collections::BTreeMap;

use super::super::spans::levels_above;
use crate::format::dnode::{Dnode, SLOTS_PER_BLOCK, object_type};
use crate::format::zap::{Zap, ZapBlocks};
use crate::spec::Volume;
use crate::tree::{Kind, NodeId, ReadError};
use crate::write::error::WriteError;
use crate::write::fs::{Inventory, LaidOut, block_size};
use crate::write::objset::ObjectSet;
use crate::write::pipeline::Job;
use crate::write::seed::Seed;
use crate::write::volume;

/// The objects of a dataset.
pub(super) struct State<'t> {
    pub(super) objects: BTreeMap<u64, Object<'t>>,
    /// Blocks of dnodes.
    pub(super) dnode_blocks: u64,
    origin: Origin<'t>,
    seed: Seed,
    dataset: &'t str,
}

/// Where the objects come from.
enum Origin<'t> {
    Files(Inventory<'t>),
    Volume(&'t Volume),
}

/// An object with what it holds.
pub(super) struct Object<'t> {
    /// Complete but for what the blocks of a table decide.
    pub(super) dnode: Dnode,
    pub(super) content: Content<'t>,
    pub(super) spill: Option<Vec<u8>>,
}

pub(super) enum Content<'t> {
    Nothing,
    Data(Job<'t>),
    /// A table that is made when it is needed.
    Directory(NodeId),
    Table(Zap),
}

impl<'t> State<'t> {
    /// Also gives back what the next version of the set follows.
    pub(super) fn of_files(
        laid_out: LaidOut<'t>,
        record_size: u64,
        seed: Seed,
        dataset: &'t str,
    ) -> (State<'t>, ObjectSet) {
        let LaidOut { inventory, objects: mut set, spills, tables } = laid_out;
        let dnode_blocks = set.dnode_block_count(0);
        let dnodes = set.take_objects().into_iter();
        let mut objects: BTreeMap<u64, Object<'t>> =
            dnodes.map(|(number, dnode)| (number, Object::empty(dnode))).collect();
        for (number, node) in inventory.nodes() {
            let Some(object) = objects.get_mut(&number) else { continue };
            match node.kind() {
                Kind::Directory => object.content = Content::Directory(node.id()),
                Kind::File(data) if !data.is_empty() => object.hold(Job {
                    object: number,
                    data,
                    len: data.len(),
                    block_size: block_size(data, record_size, None),
                    object_type: object_type::PLAIN_FILE,
                    before: None,
                }),
                _ => {}
            }
        }
        for (number, spill) in spills {
            if let Some(object) = objects.get_mut(&number) {
                object.spill = Some(spill);
            }
        }
        for (number, table) in tables {
            if let Some(object) = objects.get_mut(&number) {
                object.content = Content::Table(table);
            }
        }
        (State { objects, dnode_blocks, origin: Origin::Files(inventory), seed, dataset }, set)
    }

    pub(super) fn of_volume(given: &'t Volume, seed: Seed, dataset: &'t str) -> State<'t> {
        let mut objects: BTreeMap<u64, Object<'t>> =
            volume::dnodes(given).map(|(number, dnode)| (number, Object::empty(dnode))).into();
        if let Some(content) = objects.get_mut(&volume::CONTENT)
            && !given.data.is_empty()
        {
            content.hold(volume::job(given));
        }
        if let Some(table) = objects.get_mut(&volume::PROPERTIES) {
            table.content = Content::Table(volume::properties(given, seed));
        }
        State { objects, dnode_blocks: 1, origin: Origin::Volume(given), seed, dataset }
    }

    /// The largest block of data.
    pub(super) fn largest_block(&self) -> u64 {
        if let Origin::Volume(volume) = self.origin {
            return volume.block_size;
        }
        self.jobs().map(|job| job.block_size).max().unwrap_or(0)
    }

    /// All content that is not made here.
    pub(super) fn jobs(&self) -> impl Iterator<Item = &Job<'t>> {
        self.objects.values().filter_map(|object| match &object.content {
            Content::Data(job) => Some(job),
            _ => None,
        })
    }

    /// The objects of one block of dnodes.
    pub(super) fn block(&self, number: u64) -> impl Iterator<Item = (u64, &Object<'t>)> {
        let first = number * SLOTS_PER_BLOCK as u64;
        self.objects.range(first..first + SLOTS_PER_BLOCK as u64).map(|(number, object)| (*number, object))
    }

    /// The blocks of a table; none when the object is something else.
    pub(super) fn table(&self, object: &Object<'_>) -> Result<Option<ZapBlocks>, WriteError> {
        let build = |zap: &Zap| {
            zap.build().map_err(|_| WriteError::TableTooCrowded { entries: zap.entries.len() }).map(Some)
        };
        match (&object.content, &self.origin) {
            (Content::Table(zap), _) => build(zap),
            (Content::Directory(id), Origin::Files(inventory)) => build(&inventory.directory(*id, self.seed)),
            _ => Ok(None),
        }
    }

    /// What it means that the content of an object could not be read.
    pub(super) fn unreadable(&self, object: u64, error: ReadError) -> WriteError {
        match &self.origin {
            Origin::Files(inventory) => inventory.unreadable(object, error, self.dataset),
            Origin::Volume(given) => volume::unreadable(&given.data, error, self.dataset),
        }
    }
}

impl<'t> Object<'t> {
    fn empty(dnode: Dnode) -> Object<'t> {
        Object { dnode, content: Content::Nothing, spill: None }
    }

    fn hold(&mut self, job: Job<'t>) {
        self.dnode = sized(&self.dnode, job.block_size, job.blocks());
        self.content = Content::Data(job);
    }

    /// Levels of pointers over data of blocks of this size; 0 when there is none.
    pub(super) fn levels_of(&self, block_size: u64) -> u8 {
        match &self.content {
            Content::Data(job) if job.block_size == block_size => levels_above(job.blocks()),
            _ => 0,
        }
    }
}

/// The dnode with so many blocks.
pub(super) fn sized(dnode: &Dnode, block_size: u64, blocks: u64) -> Dnode {
    Dnode {
        block_size: block_size as u32,
        last_block: blocks.saturating_sub(1),
        levels: levels_above(blocks),
        ..dnode.clone()
    }
}

//! A tree as a ZFS file system (ZPL version 5): one object set of files, directories and the tables about them.

pub(crate) mod acl;
pub(crate) mod attributes;
pub(crate) mod pipeline;

use std::collections::{BTreeMap, BTreeSet};

use attributes::{Layouts, MAX_SLOTS, Place};
use pipeline::{Failure, Job, Settings};

use crate::features::Feature;
use crate::format::blkptr::{BlockPointer, Role};
use crate::format::dnode::{self, Dnode, FLAGS_ACCOUNTED, SLOT, object_type};
use crate::format::zap::Zap;
use crate::format::{SECTOR, put_u64};
use crate::tree::{Data, Kind, NodeId, ReadError, Tree};
use crate::write::error::WriteError;
use crate::write::indirect::IndirectTree;
use crate::write::media::{DATASET_COPIES, Media, Placement};
use crate::write::objset::{OBJSET_LEN, ObjectSet, TYPE_AT};
use crate::write::seed::Seed;
use crate::write::space::Space;

/// Objects before the first file: master node, SA tables, delete queue.
const MASTER_NODE: u64 = 1;
/// `DMU_OST_ZFS` and the flags of an object set whose space accounting is complete.
const OBJSET_ZFS: u64 = 2;
const ACCOUNTING_COMPLETE: u64 = 7;
const FLAGS_AT: usize = 712;
/// The dnode array of a dataset has as many levels as it can ever need: OpenZFS never adds one.
const META_DNODE_LEVELS: u8 = 6;
/// A block larger than this needs the `large_blocks` feature.
const OLD_MAX_BLOCK: u64 = 128 << 10;

/// How a dataset's content is stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    pub(crate) record_size: u64,
    pub(crate) large_dnodes: bool,
    pub(crate) settings: Settings,
}

/// A file system that is in the pool.
#[derive(Debug)]
pub(crate) struct Filesystem {
    pub(crate) pointer: BlockPointer,
    pub(crate) space: Space,
    pub(crate) features: BTreeSet<Feature>,
    pub(crate) objects: u64,
    /// Apparent size of its files.
    pub(crate) logical: u64,
}

/// What is known of a node, by its index in the tree.
#[derive(Clone, Copy, Debug, Default)]
struct Inode {
    object: u64,
    place: Place,
}

/// The nodes of a tree in the order of their first names, and what the tree says about each.
struct Inventory<'a> {
    tree: &'a Tree,
    order: Vec<NodeId>,
    inodes: Vec<Inode>,
    /// The directory that holds the first name.
    parents: Vec<NodeId>,
}

/// Writes the content of `tree` as a file system of its own.
pub(crate) fn write_filesystem(
    media: &mut Media,
    dataset: &str,
    seed: Seed,
    tree: &Tree,
    layout: Layout,
    progress: &mut dyn FnMut(u64),
) -> Result<Filesystem, WriteError> {
    let mut features = BTreeSet::from([Feature::UserObjectAccounting, Feature::ProjectQuota]);
    let mut objects = ObjectSet::new(DATASET_COPIES);
    let mut inventory = Inventory::take(tree);

    let tables = Tables::reserve(&mut objects);
    let mut layouts = Layouts::default();
    inventory.number(&mut objects, &mut layouts, dataset, layout, &mut features)?;
    let spills = inventory.set_attributes(&mut objects, &mut layouts, dataset, layout)?;
    let logical = inventory.write_files(media, &mut objects, dataset, layout, &mut features, progress)?;
    for (object, spill) in spills {
        let role = Role { object_type: object_type::SA, level: 0 };
        let stored = media.store(&spill, Placement { role, copies: DATASET_COPIES, fill: 1 })?;
        objects.space += stored.space;
        let dnode = objects.get_mut(object);
        dnode.spill = Some(stored.pointer);
        dnode.used += stored.space.referenced;
    }
    inventory.write_directories(media, &mut objects, seed)?;
    tables.write(media, &mut objects, seed, &layouts, inventory.object(tree.root().id()))?;
    let accounts = Accounts::of(&inventory, &objects).write(media, &mut objects, seed)?;
    let count = objects.len() as u64;
    let pointer = write_objset(media, &mut objects, &accounts)?;
    Ok(Filesystem { pointer, space: objects.space, features, objects: count, logical })
}

impl<'a> Inventory<'a> {
    fn take(tree: &'a Tree) -> Inventory<'a> {
        let mut order = Vec::new();
        let mut seen = vec![false; tree.slot_count()];
        let mut inodes = vec![Inode::default(); seen.len()];
        let mut parents = vec![tree.root().id(); seen.len()];
        for (_, node) in tree.walk() {
            let id = node.id();
            // The root has no parent that would have seen it.
            if !std::mem::replace(&mut seen[id.index()], true) {
                order.push(id);
            }
            if node.is_dir() {
                let place = &mut inodes[id.index()].place;
                place.links += 2;
                for (_, child) in node.entries() {
                    let below = child.id().index();
                    inodes[id.index()].place.entries += 1;
                    if child.is_dir() {
                        inodes[id.index()].place.links += 1;
                    } else {
                        if inodes[below].place.links == 0 {
                            parents[below] = id;
                        }
                        inodes[below].place.links += 1;
                    }
                    if child.is_dir() {
                        parents[below] = id;
                    }
                }
            }
        }
        Inventory { tree, order, inodes, parents }
    }

    fn object(&self, id: NodeId) -> u64 {
        self.inodes[id.index()].object
    }

    fn max_slots(layout: Layout) -> u8 {
        if layout.large_dnodes { MAX_SLOTS } else { 1 }
    }

    fn pack(
        &self,
        id: NodeId,
        layouts: &mut Layouts,
        dataset: &str,
        layout: Layout,
    ) -> Result<attributes::Packed, WriteError> {
        let node = self.tree.node(id);
        let place = self.inodes[id.index()].place;
        attributes::pack(node.meta(), node.kind(), place, Self::max_slots(layout), layouts).map_err(|error| {
            WriteError::XattrsTooLarge {
                dataset: dataset.to_owned(),
                path: self.tree.path_of(id),
                bytes: error.bytes,
            }
        })
    }

    /// Gives every node its object; the size of a dnode follows from the size of the attributes.
    fn number(
        &mut self,
        objects: &mut ObjectSet,
        layouts: &mut Layouts,
        dataset: &str,
        layout: Layout,
        features: &mut BTreeSet<Feature>,
    ) -> Result<(), WriteError> {
        for i in 0..self.order.len() {
            let id = self.order[i];
            let packed = self.pack(id, layouts, dataset, layout)?;
            if packed.slots > 1 {
                features.insert(Feature::LargeDnode);
            }
            let is_dir = self.tree.node(id).is_dir();
            let kind = if is_dir { object_type::DIRECTORY } else { object_type::PLAIN_FILE };
            let mut dnode = Dnode::with_bonus(kind, object_type::SA, Vec::new());
            dnode.slots = packed.slots;
            dnode.flags |= FLAGS_ACCOUNTED;
            self.inodes[id.index()].object = objects.add(dnode);
        }
        Ok(())
    }

    /// Fills the bonus buffers, now that the numbers of parents are known; gives the blocks that spill over.
    fn set_attributes(
        &mut self,
        objects: &mut ObjectSet,
        layouts: &mut Layouts,
        dataset: &str,
        layout: Layout,
    ) -> Result<Vec<(u64, Vec<u8>)>, WriteError> {
        let mut spills = Vec::new();
        for i in 0..self.order.len() {
            let id = self.order[i];
            self.inodes[id.index()].place.parent = self.object(self.parents[id.index()]);
            let packed = self.pack(id, layouts, dataset, layout)?;
            let object = self.object(id);
            objects.get_mut(object).bonus = packed.bonus;
            if let Some(spill) = packed.spill {
                spills.push((object, spill));
            }
        }
        Ok(spills)
    }

    /// Writes the content of all files; gives their apparent size.
    fn write_files(
        &self,
        media: &mut Media,
        objects: &mut ObjectSet,
        dataset: &str,
        layout: Layout,
        features: &mut BTreeSet<Feature>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<u64, WriteError> {
        let jobs: Vec<Job> = self
            .order
            .iter()
            .filter_map(|id| match self.tree.node(*id).kind() {
                Kind::File(data) if !data.is_empty() => {
                    Some(Job { node: *id, data, block_size: block_size(data, layout.record_size) })
                }
                _ => None,
            })
            .collect();
        let outcome = pipeline::write_files(media, &jobs, layout.settings, progress)
            .map_err(|failure| self.explain(failure, dataset))?;
        if outcome.used_zstd {
            features.insert(Feature::ZstdCompress);
        }
        for (job, written) in jobs.iter().zip(&outcome.files) {
            let dnode = objects.get_mut(self.object(job.node));
            dnode.pointer = written.root.pointer;
            dnode.levels = written.root.levels;
            dnode.block_size = job.block_size as u32;
            dnode.last_block = job.data.len().div_ceil(job.block_size) - 1;
            dnode.used += written.space.referenced;
            objects.space += written.space;
            if job.block_size > OLD_MAX_BLOCK {
                features.insert(Feature::LargeBlocks);
            }
        }
        Ok(jobs.iter().map(|job| job.data.len()).sum())
    }

    fn explain(&self, failure: Failure, dataset: &str) -> WriteError {
        let (node, error) = match failure {
            Failure::Write(error) => return error,
            Failure::Read { node, error } => (node, error),
        };
        let source = match self.tree.node(node).kind() {
            Kind::File(data) => data.source().map(|file| file.path().to_owned()),
            _ => None,
        };
        let (dataset, path) = (dataset.to_owned(), self.tree.path_of(node));
        let source_path = source.unwrap_or_default();
        match error {
            ReadError::Io(source) => WriteError::ReadFile { dataset, path, source_path, source },
            ReadError::Changed => WriteError::FileChanged { dataset, path, source_path },
        }
    }

    fn write_directories(
        &self,
        media: &mut Media,
        objects: &mut ObjectSet,
        seed: Seed,
    ) -> Result<(), WriteError> {
        /// Where a directory entry keeps the type of what it names.
        const TYPE_SHIFT: u32 = 60;
        for id in &self.order {
            let node = self.tree.node(*id);
            if !node.is_dir() {
                continue;
            }
            let object = self.object(*id);
            let mut zap = Zap::new(seed.number("directory", object));
            for (name, child) in node.entries() {
                let kind = attributes::entry_type(child.kind());
                zap.add_u64(name, kind << TYPE_SHIFT | self.object(child.id()));
            }
            objects.set_zap(media, object, &zap)?;
        }
        Ok(())
    }
}

/// A file that fits into one record is one block of its own size; a larger one is made of records.
fn block_size(data: &Data, record_size: u64) -> u64 {
    if data.len() <= record_size { data.len().next_multiple_of(SECTOR as u64) } else { record_size }
}

/// The tables every file system has, at fixed numbers before the first file.
struct Tables {
    master: u64,
    sa_master: u64,
    sa_registry: u64,
    sa_layouts: u64,
    delete_queue: u64,
}

impl Tables {
    fn reserve(objects: &mut ObjectSet) -> Tables {
        let mut add = |kind| objects.add(Dnode::new(kind));
        let tables = Tables {
            master: add(object_type::MASTER_NODE),
            sa_master: add(object_type::SA_MASTER),
            sa_registry: add(object_type::SA_REGISTRATION),
            sa_layouts: add(object_type::SA_LAYOUTS),
            delete_queue: add(object_type::UNLINKED_SET),
        };
        debug_assert_eq!(tables.master, MASTER_NODE, "readers look for the master node at this number");
        tables
    }

    fn write(
        &self,
        media: &mut Media,
        objects: &mut ObjectSet,
        seed: Seed,
        layouts: &Layouts,
        root: u64,
    ) -> Result<(), WriteError> {
        const ZPL_VERSION: u64 = 5;
        let zap = |object: u64| Zap::new(seed.number("table", object));
        let mut registry = zap(self.sa_registry);
        for (number, (name, length, byteswap)) in attributes::REGISTRY.into_iter().enumerate() {
            registry.add_u64(format!("ZPL_{name}"), length << 24 | byteswap << 16 | number as u64);
        }
        objects.set_zap(media, self.sa_registry, &registry)?;

        let mut table = zap(self.sa_layouts);
        for (number, list) in layouts.iter() {
            table.add_u16s(number.to_string(), list);
        }
        objects.set_zap(media, self.sa_layouts, &table)?;

        let mut sa = zap(self.sa_master);
        sa.add_u64("REGISTRY", self.sa_registry);
        sa.add_u64("LAYOUTS", self.sa_layouts);
        objects.set_zap(media, self.sa_master, &sa)?;

        objects.set_zap(media, self.delete_queue, &zap(self.delete_queue))?;

        let mut master = zap(self.master);
        master.add_u64("VERSION", ZPL_VERSION);
        master.add_u64("SA_ATTRS", self.sa_master);
        master.add_u64("DELETE_QUEUE", self.delete_queue);
        master.add_u64("ROOT", root);
        for name in ["normalization", "utf8only", "casesensitivity"] {
            master.add_u64(name, 0);
        }
        objects.set_zap(media, self.master, &master)
    }
}

/// Bytes and objects of an owner.
#[derive(Clone, Copy, Debug, Default)]
struct Usage {
    bytes: u64,
    objects: u64,
}

/// Space by user, by group and by project (all files are in project 0).
struct Accounts {
    by: [BTreeMap<u32, Usage>; 3],
}

impl Accounts {
    fn of(inventory: &Inventory, objects: &ObjectSet) -> Accounts {
        let mut by: [BTreeMap<u32, Usage>; 3] = Default::default();
        for id in &inventory.order {
            let meta = inventory.tree.node(*id).meta();
            // OpenZFS charges the smallest dnode, whatever its size.
            let bytes = objects.get(inventory.object(*id)).used + SLOT as u64;
            for (map, owner) in by.iter_mut().zip([meta.uid, meta.gid, 0]) {
                let usage = map.entry(owner).or_default();
                usage.bytes += bytes;
                usage.objects += 1;
            }
        }
        Accounts { by }
    }

    fn write(
        &self,
        media: &mut Media,
        objects: &mut ObjectSet,
        seed: Seed,
    ) -> Result<Vec<Dnode>, WriteError> {
        let mut dnodes = Vec::new();
        for (i, map) in self.by.iter().enumerate() {
            let mut zap = Zap::new(seed.number("accounting", i as u64));
            for (owner, usage) in map {
                zap.add_u64(format!("{owner:x}"), usage.bytes);
                zap.add_u64(format!("obj-{owner:x}"), usage.objects);
            }
            dnodes.push(objects.header_zap(media, object_type::USER_GROUP_USED, &zap)?);
        }
        Ok(dnodes)
    }
}

/// Writes the dnode array and the header above it.
fn write_objset(
    media: &mut Media,
    objects: &mut ObjectSet,
    accounts: &[Dnode],
) -> Result<BlockPointer, WriteError> {
    const ACCOUNTS_AT: usize = 1024;
    let role = Role { object_type: object_type::DNODE, level: 0 };
    let mut tree = IndirectTree::new(object_type::DNODE, DATASET_COPIES);
    let mut space = Space::default();
    for block in objects.dnode_blocks() {
        if block.fill == 0 {
            tree.push_holes(media, 1)?;
            continue;
        }
        let stored =
            media.store(&block.bytes, Placement { role, copies: DATASET_COPIES, fill: block.fill })?;
        space += stored.space;
        tree.push(media, stored.pointer)?;
    }
    let root = tree.finish(media, META_DNODE_LEVELS)?;
    space += root.space;
    let mut meta_dnode = Dnode::new(object_type::DNODE);
    meta_dnode.block_size = dnode::BLOCK as u32;
    meta_dnode.pointer = root.pointer;
    meta_dnode.levels = root.levels;
    meta_dnode.last_block = objects.dnode_block_count(0) - 1;
    meta_dnode.used = space.referenced;

    let mut header = vec![0; OBJSET_LEN];
    header[..SLOT].copy_from_slice(&meta_dnode.to_bytes());
    put_u64(&mut header, TYPE_AT, OBJSET_ZFS);
    put_u64(&mut header, FLAGS_AT, ACCOUNTING_COMPLETE);
    for (slot, account) in header[ACCOUNTS_AT..].chunks_exact_mut(SLOT).zip(accounts) {
        slot.copy_from_slice(&account.to_bytes());
    }
    let role = Role { object_type: object_type::OBJSET, level: 0 };
    let fill = root.pointer.fill();
    let stored = media.store_plain(&header, Placement { role, copies: DATASET_COPIES, fill })?;
    objects.space += space;
    objects.space += stored.space;
    Ok(stored.pointer)
}

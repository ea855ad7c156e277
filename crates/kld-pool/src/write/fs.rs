//! A tree as a ZFS file system (ZPL version 5): one object set of files, directories and the tables about them.
//!
//! A dataset whose snapshots hold different trees is written tree by tree, oldest first. A path keeps its object number in
//! all of them, and blocks that a tree shares with the one before are not written again.

pub(crate) mod acl;
pub(crate) mod attributes;
mod xattr_dirs;

use std::collections::{BTreeMap, BTreeSet};

use attributes::{Layouts, Limits, MAX_SLOTS, Place, XattrsTooLarge};

use crate::features::Feature;
use crate::format::SECTOR;
use crate::format::blkptr::BlockPointer;
use crate::format::dnode::{Dnode, FLAG_BYTES_ACCOUNTED, FLAG_OBJECTS_ACCOUNTED, SLOT, object_type};
use crate::format::zap::Zap;
use crate::tree::{Data, Kind, Node, NodeId, ReadError, Tree};
use crate::write::blocks::Blocks;
use crate::write::error::WriteError;
use crate::write::media::Media;
use crate::write::objset::{Legacy, ObjectSet, Part};
use crate::write::pipeline::{self, Failure, Job, Settings};
use crate::write::seed::Seed;
use crate::write::space::Space;

/// Objects before the first file: master node, SA tables, delete queue.
const MASTER_NODE: u64 = 1;
/// `DMU_OST_ZFS`.
const OBJSET_ZFS: u64 = 2;
/// A block larger than this needs the `large_blocks` feature.
pub(crate) const OLD_MAX_BLOCK: u64 = 128 << 10;

/// How a dataset's content is stored.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    pub(crate) record_size: u64,
    pub(crate) large_dnodes: bool,
    /// Whether objects are counted by owner, and all by project; bytes by user and group always are.
    pub(crate) accounting: bool,
    pub(crate) settings: Settings,
}

/// The content of a dataset, as it was at one time, that is in the pool.
#[derive(Clone, Debug)]
pub(crate) struct Version {
    pub(crate) pointer: BlockPointer,
    /// What all its blocks take, those shared with the version before included.
    pub(crate) space: Space,
    /// Blocks of the version before that it no longer has.
    pub(crate) dead: Vec<BlockPointer>,
    pub(crate) features: BTreeSet<Feature>,
    pub(crate) objects: u64,
    /// Apparent size of its content.
    pub(crate) logical: u64,
}

/// What is known of a node, by its index in the tree.
#[derive(Clone, Copy, Debug, Default)]
struct Inode {
    object: u64,
    place: Place,
}

/// The nodes of a tree in the order of their first names, and what the tree says about each.
pub(crate) struct Inventory<'a> {
    tree: &'a Tree,
    order: Vec<NodeId>,
    /// First names, in the same order; only where they are needed.
    paths: Vec<Vec<u8>>,
    inodes: Vec<Inode>,
    /// The directory that holds the first name; the owner of a hidden one.
    parents: Vec<NodeId>,
    /// Hidden directories of large extended attributes, by owner.
    xattr_dirs: BTreeMap<NodeId, NodeId>,
}

/// A tree with the files that its large attributes become.
pub(crate) struct Whole<'a> {
    given: &'a Tree,
    expanded: Option<xattr_dirs::Expanded>,
}

impl<'a> Whole<'a> {
    pub(crate) fn of(given: &'a Tree) -> Whole<'a> {
        Whole { given, expanded: xattr_dirs::expand(given) }
    }

    fn tree(&self) -> &Tree {
        self.expanded.as_ref().map_or(self.given, |expanded| &expanded.tree)
    }

    /// Owners and their hidden directories.
    fn hidden(&self) -> &[(NodeId, NodeId)] {
        self.expanded.as_ref().map_or(&[], |expanded| &expanded.dirs)
    }
}

/// A version of which everything is known but its blocks.
pub(crate) struct LaidOut<'t> {
    /// All objects, without content.
    pub(crate) objects: ObjectSet,
    pub(crate) inventory: Inventory<'t>,
    /// Spill blocks, by object.
    pub(crate) spills: Vec<(u64, Vec<u8>)>,
    /// Master node, attribute tables, delete queue.
    pub(crate) tables: Vec<(u64, Zap)>,
}

/// A file system of which one version after the other is written.
#[derive(Clone)]
pub(crate) struct Writer<'a> {
    dataset: &'a str,
    seed: Seed,
    layout: Layout,
    layouts: Layouts,
    features: BTreeSet<Feature>,
    numbers: Numbers,
    /// Content by object, as the version before has it.
    files: BTreeMap<u64, Data>,
    legacy: Legacy,
    tables: Option<Tables>,
}

/// Numbers that objects keep through all versions.
#[derive(Clone, Default)]
struct Numbers {
    /// By first name, whether it is a directory, and slots: a number never changes its kind.
    known: BTreeMap<(Vec<u8>, bool, u8), Number>,
}

#[derive(Clone, Copy)]
struct Number {
    object: u64,
    /// Transaction group that gave the number.
    born: u64,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(dataset: &'a str, seed: Seed, layout: Layout) -> Writer<'a> {
        let mut features = BTreeSet::new();
        if layout.accounting {
            features.extend([Feature::UserObjectAccounting, Feature::ProjectQuota]);
        }
        Writer {
            dataset,
            seed,
            layout,
            layouts: Layouts::default(),
            features,
            numbers: Numbers::default(),
            files: BTreeMap::new(),
            legacy: Legacy::default(),
            tables: None,
        }
    }

    /// A clone, whose next version follows the last one that was written here. Hashes of tables go on from the same
    /// numbers: a table that does not change stays the same block.
    pub(crate) fn branch(&self, dataset: &'a str, layout: Layout) -> Writer<'a> {
        Writer { dataset, layout, ..self.clone() }
    }

    /// Writes `tree` as the next version.
    pub(crate) fn write(
        &mut self,
        media: &mut Media,
        tree: &Tree,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Version, WriteError> {
        let whole = Whole::of(tree);
        let laid_out = self.lay_out(&whole, media.rules.birth, media.rules.record)?;
        let LaidOut { inventory, mut objects, spills, tables } = laid_out;
        let logical = self.write_files(&inventory, media, &mut objects, progress)?;
        for (object, spill) in spills {
            objects.set_spill(media, object, spill)?;
        }
        for id in inventory.directories() {
            objects.set_zap(media, inventory.object(id), &inventory.directory(id, self.seed))?;
        }
        for (object, table) in tables {
            objects.set_zap(media, object, &table)?;
        }
        let accounts = Accounts::of(&inventory, &objects, self.layout.accounting);
        let accounts = accounts.write(media, &mut objects, self.seed)?;
        let count = objects.len() as u64;
        let pointer = objects.write(media, OBJSET_ZFS, &accounts)?;
        let (space, dead) = (objects.space, objects.dead());
        self.legacy = objects.leave();
        Ok(Version { pointer, space, dead, features: self.features.clone(), objects: count, logical })
    }

    /// Everything about the next version but its blocks: what a pool and a stream have in common. New numbers are born in
    /// `birth`; with `keep_paths` a later version can find the paths again.
    pub(crate) fn lay_out<'t>(
        &mut self,
        whole: &'t Whole<'t>,
        birth: u64,
        keep_paths: bool,
    ) -> Result<LaidOut<'t>, WriteError> {
        let tree = whole.tree();
        let mut objects = ObjectSet::following(std::mem::take(&mut self.legacy));
        let mut inventory = Inventory::take(tree, whole.hidden(), keep_paths);
        let tables = match self.tables {
            Some(tables) => tables.put(&mut objects),
            None => Tables::reserve(&mut objects),
        };
        self.tables = Some(tables);
        self.number(&mut inventory, &mut objects, birth)?;
        let spills = self.set_attributes(&mut inventory, &mut objects)?;
        let tables = tables.fill(self.seed, &self.layouts, inventory.object(tree.root().id()));
        Ok(LaidOut { inventory, objects, spills, tables })
    }

    /// Goes on to the next version after one that was laid out and not written.
    pub(crate) fn pass(&mut self, objects: ObjectSet) {
        self.legacy = objects.leave();
    }

    /// What its versions so far use.
    pub(crate) fn features(&self) -> &BTreeSet<Feature> {
        &self.features
    }

    fn pack(&mut self, inventory: &Inventory, id: NodeId) -> Result<attributes::Packed, WriteError> {
        let node = inventory.tree.node(id);
        let place = inventory.inodes[id.index()].place;
        attributes::pack(node.meta(), node.kind(), place, self.limits(), &mut self.layouts)
            .map_err(|error| self.xattrs_too_large(inventory, id, error))
    }

    fn limits(&self) -> Limits {
        let max_slots = if self.layout.large_dnodes { MAX_SLOTS } else { 1 };
        Limits { max_slots, projects: self.layout.accounting }
    }

    fn xattrs_too_large(&self, inventory: &Inventory, id: NodeId, error: XattrsTooLarge) -> WriteError {
        let (dataset, path) = (self.dataset.to_owned(), inventory.tree.path_of(id));
        WriteError::XattrsTooLarge { dataset, path, bytes: error.bytes }
    }

    /// Gives every node its object; the size of a dnode follows from the size of the attributes.
    fn number(
        &mut self,
        inventory: &mut Inventory,
        objects: &mut ObjectSet,
        born: u64,
    ) -> Result<(), WriteError> {
        for i in 0..inventory.order.len() {
            let id = inventory.order[i];
            let node = inventory.tree.node(id);
            let slots = attributes::slots(
                node.meta(),
                node.kind(),
                inventory.inodes[id.index()].place,
                self.limits(),
            )
            .map_err(|error| self.xattrs_too_large(inventory, id, error))?;
            if slots > 1 {
                self.features.insert(Feature::LargeDnode);
            }
            let is_dir = node.is_dir();
            let kind = if is_dir { object_type::DIRECTORY } else { object_type::PLAIN_FILE };
            let mut dnode = Dnode::with_bonus(kind, object_type::SA, Vec::new());
            dnode.slots = slots;
            dnode.flags |= FLAG_BYTES_ACCOUNTED;
            if self.layout.accounting {
                dnode.flags |= FLAG_OBJECTS_ACCOUNTED;
            }
            let number = match inventory.paths.get(i) {
                None => Number { object: objects.add(dnode), born },
                Some(path) => match self.numbers.known.get(&(path.clone(), is_dir, slots)) {
                    Some(number) => {
                        objects.put(number.object, dnode);
                        *number
                    }
                    None => {
                        let number = Number { object: objects.add(dnode), born };
                        self.numbers.known.insert((path.clone(), is_dir, slots), number);
                        number
                    }
                },
            };
            let inode = &mut inventory.inodes[id.index()];
            inode.object = number.object;
            inode.place.born = number.born;
        }
        Ok(())
    }

    /// Fills the bonus buffers, now that the numbers of parents are known; gives the blocks that spill over.
    fn set_attributes(
        &mut self,
        inventory: &mut Inventory,
        objects: &mut ObjectSet,
    ) -> Result<Vec<(u64, Vec<u8>)>, WriteError> {
        let mut spills = Vec::new();
        for i in 0..inventory.order.len() {
            let id = inventory.order[i];
            let parent = inventory.object(inventory.parents[id.index()]);
            let xattr_dir = inventory.xattr_dirs.get(&id).map(|dir| inventory.object(*dir));
            let place = &mut inventory.inodes[id.index()].place;
            (place.parent, place.xattr_dir) = (parent, xattr_dir);
            let packed = self.pack(inventory, id)?;
            let object = inventory.object(id);
            objects.get_mut(object).bonus = packed.bonus;
            if let Some(spill) = packed.spill {
                spills.push((object, spill));
            }
        }
        Ok(spills)
    }

    /// Writes the content of all files; gives their apparent size.
    fn write_files(
        &mut self,
        inventory: &Inventory,
        media: &mut Media,
        objects: &mut ObjectSet,
        progress: &mut dyn FnMut(u64),
    ) -> Result<u64, WriteError> {
        let mut jobs = Vec::new();
        let mut files = BTreeMap::new();
        for id in &inventory.order {
            let Kind::File(data) = inventory.tree.node(*id).kind() else { continue };
            if data.is_empty() {
                continue;
            }
            let object = inventory.object(*id);
            let before = objects.before(Part::Object(object));
            let job = Job {
                object,
                data,
                len: data.len(),
                block_size: block_size(data, self.layout.record_size, before.as_deref()),
                object_type: object_type::PLAIN_FILE,
                before,
            };
            if job.block_size > OLD_MAX_BLOCK {
                self.features.insert(Feature::LargeBlocks);
            }
            if media.rules.record {
                files.insert(object, data.clone());
            }
            // Content that is the same by reference need not even be read.
            let is_same = self.files.get(&object).is_some_and(|before| before.is_same(data));
            match &job.before {
                Some(before) if is_same => {
                    let root = before.as_root();
                    objects.set_content(object, job.block_size as u32, job.blocks(), &root);
                    progress(data.len());
                }
                _ => jobs.push(job),
            }
        }
        let logical = files_len(inventory);
        let outcome = pipeline::write_content(media, &jobs, self.layout.settings, progress)
            .map_err(|failure| explain(inventory, failure, self.dataset))?;
        if outcome.used_zstd {
            self.features.insert(Feature::ZstdCompress);
        }
        for (job, root) in jobs.iter().zip(&outcome.roots) {
            objects.set_content(job.object, job.block_size as u32, job.blocks(), root);
        }
        self.files = files;
        Ok(logical)
    }
}

fn files_len(inventory: &Inventory) -> u64 {
    let files = inventory.order.iter().map(|id| match inventory.tree.node(*id).kind() {
        Kind::File(data) => data.len(),
        _ => 0,
    });
    files.fold(0, u64::saturating_add)
}

fn explain(inventory: &Inventory, failure: Failure, dataset: &str) -> WriteError {
    let (object, error) = match failure {
        Failure::Write(error) => return error,
        Failure::Read { object, error } => (object, error),
    };
    let id = inventory.order.iter().find(|id| inventory.object(**id) == object);
    let node = id.map(|id| inventory.tree.node(*id));
    let source = node.and_then(|node| match node.kind() {
        Kind::File(data) => data.source().map(|file| file.path().to_owned()),
        _ => None,
    });
    let path = node.map(|node| inventory.tree.path_of(node.id())).unwrap_or_default();
    let (dataset, source_path) = (dataset.to_owned(), source.unwrap_or_default());
    match error {
        ReadError::Io(source) => WriteError::ReadFile { dataset, path, source_path, source },
        ReadError::Changed => WriteError::FileChanged { dataset, path, source_path },
    }
}

impl<'a> Inventory<'a> {
    fn take(tree: &'a Tree, hidden: &[(NodeId, NodeId)], keep_paths: bool) -> Inventory<'a> {
        let count = tree.slot_count();
        let mut inventory = Inventory {
            tree,
            order: Vec::new(),
            paths: Vec::new(),
            inodes: vec![Inode::default(); count],
            parents: vec![tree.root().id(); count],
            xattr_dirs: hidden.iter().copied().collect(),
        };
        let mut seen = vec![false; count];
        // The root has no parent that would have seen it.
        let mut add = |inventory: &mut Inventory, id: NodeId, path: &mut dyn FnMut() -> Vec<u8>| {
            if !std::mem::replace(&mut seen[id.index()], true) {
                inventory.order.push(id);
                if keep_paths {
                    inventory.paths.push(path());
                }
            }
        };
        for (mut path, node) in tree.walk() {
            add(&mut inventory, node.id(), &mut || std::mem::take(&mut path));
            inventory.visit(node);
        }
        for (owner, dir) in hidden {
            // No name holds a NUL, so that these cannot be taken for any other.
            let node = tree.node(*dir);
            let base = if keep_paths { format!("{}\0", tree.path_of(*owner)) } else { String::new() };
            inventory.parents[dir.index()] = *owner;
            add(&mut inventory, *dir, &mut || base.clone().into_bytes());
            inventory.visit(node);
            for (name, file) in node.entries() {
                add(&mut inventory, file.id(), &mut || [base.as_bytes(), name].concat());
                inventory.inodes[file.id().index()].place.is_hidden = true;
            }
            inventory.inodes[dir.index()].place.is_hidden = true;
            // Its number comes later; that there is one counts already for the size of the dnode.
            inventory.inodes[owner.index()].place.xattr_dir = Some(0);
        }
        inventory
    }

    /// Counts the names in a directory.
    fn visit(&mut self, node: Node) {
        if !node.is_dir() {
            return;
        }
        let id = node.id();
        self.inodes[id.index()].place.links += 2;
        for (_, child) in node.entries() {
            let below = child.id().index();
            self.inodes[id.index()].place.entries += 1;
            if child.is_dir() {
                self.inodes[id.index()].place.links += 1;
                self.parents[below] = id;
            } else {
                if self.inodes[below].place.links == 0 {
                    self.parents[below] = id;
                }
                self.inodes[below].place.links += 1;
            }
        }
    }

    fn object(&self, id: NodeId) -> u64 {
        self.inodes[id.index()].object
    }

    fn directories(&self) -> impl Iterator<Item = NodeId> {
        self.order.iter().copied().filter(|id| self.tree.node(*id).is_dir())
    }

    /// The table of a directory.
    pub(crate) fn directory(&self, id: NodeId, seed: Seed) -> Zap {
        /// Where a directory entry keeps the type of what it names.
        const TYPE_SHIFT: u32 = 60;
        let mut zap = Zap::new(seed.number("directory", self.object(id)));
        for (name, child) in self.tree.node(id).entries() {
            let kind = attributes::entry_type(child.kind());
            zap.add_u64(name, kind << TYPE_SHIFT | self.object(child.id()));
        }
        zap
    }

    /// Every node with its object.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = (u64, Node<'a>)> {
        self.order.iter().map(|id| (self.object(*id), self.tree.node(*id)))
    }

    /// What it means for `dataset` that the content of an object could not be read.
    pub(crate) fn unreadable(&self, object: u64, error: ReadError, dataset: &str) -> WriteError {
        explain(self, Failure::Read { object, error }, dataset)
    }
}

/// A file that fits into one record is one block of its own size; a larger one is made of records. What a clone has from
/// its origin keeps its blocks, whatever the records of the clone are.
pub(crate) fn block_size(data: &Data, record_size: u64, before: Option<&Blocks>) -> u64 {
    let alone = data.len().next_multiple_of(SECTOR as u64);
    match before.map(|before| (before.block_size, before.depth)) {
        Some((size, 1)) if size == alone => size,
        Some((size, 2..)) if data.len() > size => size,
        _ if data.len() <= record_size => alone,
        _ => record_size,
    }
}

/// The tables every file system has, at fixed numbers before the first file.
#[derive(Clone, Copy)]
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

    /// The same tables in a later version.
    fn put(self, objects: &mut ObjectSet) -> Tables {
        for (object, kind) in [
            (self.master, object_type::MASTER_NODE),
            (self.sa_master, object_type::SA_MASTER),
            (self.sa_registry, object_type::SA_REGISTRATION),
            (self.sa_layouts, object_type::SA_LAYOUTS),
            (self.delete_queue, object_type::UNLINKED_SET),
        ] {
            objects.put(object, Dnode::new(kind));
        }
        self
    }

    /// What they hold, in the order in which they are written.
    fn fill(&self, seed: Seed, layouts: &Layouts, root: u64) -> Vec<(u64, Zap)> {
        const ZPL_VERSION: u64 = 5;
        let zap = |object: u64| Zap::new(seed.number("table", object));
        let mut registry = zap(self.sa_registry);
        for (number, (name, length, byteswap)) in attributes::REGISTRY.into_iter().enumerate() {
            registry.add_u64(format!("ZPL_{name}"), length << 24 | byteswap << 16 | number as u64);
        }

        let mut table = zap(self.sa_layouts);
        for (number, list) in layouts.iter() {
            table.add_u16s(number.to_string(), list);
        }

        let mut sa = zap(self.sa_master);
        sa.add_u64("REGISTRY", self.sa_registry);
        sa.add_u64("LAYOUTS", self.sa_layouts);

        let mut master = zap(self.master);
        master.add_u64("VERSION", ZPL_VERSION);
        master.add_u64("SA_ATTRS", self.sa_master);
        master.add_u64("DELETE_QUEUE", self.delete_queue);
        master.add_u64("ROOT", root);
        for name in ["normalization", "utf8only", "casesensitivity"] {
            master.add_u64(name, 0);
        }
        vec![
            (self.sa_registry, registry),
            (self.sa_layouts, table),
            (self.sa_master, sa),
            (self.delete_queue, zap(self.delete_queue)),
            (self.master, master),
        ]
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
    with_objects: bool,
}

impl Accounts {
    fn of(inventory: &Inventory, objects: &ObjectSet, with_objects: bool) -> Accounts {
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
        Accounts { by, with_objects }
    }

    fn write(
        &self,
        media: &mut Media,
        objects: &mut ObjectSet,
        seed: Seed,
    ) -> Result<Vec<Dnode>, WriteError> {
        let mut dnodes = Vec::new();
        // Projects came together with the count of objects.
        let tables = if self.with_objects { self.by.len() } else { 2 };
        for (i, map) in (0u8..).zip(&self.by[..tables]) {
            let mut zap = Zap::new(seed.number("accounting", u64::from(i)));
            for (owner, usage) in map {
                zap.add_u64(format!("{owner:x}"), usage.bytes);
                if self.with_objects {
                    zap.add_u64(format!("obj-{owner:x}"), usage.objects);
                }
            }
            dnodes.push(objects.account(media, i, object_type::USER_GROUP_USED, &zap)?);
        }
        Ok(dnodes)
    }
}

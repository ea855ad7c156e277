//! The dataset and snapshot layer: directories (names, properties, space), datasets (heads and snapshots) and the hidden
//! ones every pool has: `$MOS`, `$FREE` and `$ORIGIN`, whose snapshot every dataset descends from that is not a clone.

mod marks;

use std::collections::{BTreeMap, BTreeSet};

use crate::features::{self, Feature, FeatureSet};
use crate::format::blkptr::BlockPointer;
use crate::format::dnode::{Dnode, object_type};
use crate::format::words;
use crate::format::zap::Zap;
use crate::properties::Stored;
use crate::write::error::WriteError;
use crate::write::fs::Version;
use crate::write::media::Media;
use crate::write::objset::ObjectSet;
use crate::write::origins::{Origin, base, clones, deadlist_keys, previous_txg, writing_order};
use crate::write::plan::Planned;
use crate::write::seed::Seed;
use crate::write::space::Space;
use crate::write::totals::{Own, Totals, total};
use crate::write::txg;

/// 64-bit words of `dsl_dir_phys_t` and of `dsl_dataset_phys_t`.
const DIR_WORDS: usize = 32;
const DATASET_WORDS: usize = 40;
/// Bytes of a deadlist's header.
const DEADLIST_HEADER: usize = 320;
/// Bytes of a bpobj's header, and the size of its blocks.
const BPOBJ_HEADER: usize = 48;
const BPOBJ_BLOCK: u32 = 128 << 10;

/// A DSL directory: its object and its two tables.
#[derive(Clone, Copy, Debug)]
struct Dir {
    object: u64,
    properties: u64,
    children: u64,
}

/// A dataset that is in the pool.
#[derive(Clone, Debug)]
struct Placed {
    dir: Dir,
    head: u64,
    /// The snapshot it descends from.
    origin: u64,
    /// Oldest first.
    snapshots: Vec<u64>,
    /// For each snapshot the table of its clones; 0 when it has none.
    next_clones: Vec<u64>,
    /// The table of all clones of its snapshots, or 0.
    clones: u64,
}

impl Placed {
    /// Its oldest snapshot, or else its head: what the snapshot that it descends from leads to.
    fn oldest(&self) -> u64 {
        self.snapshots.first().copied().unwrap_or(self.head)
    }
}

/// The layer, once all of it but the space totals is written.
#[derive(Debug)]
pub(crate) struct Dsl {
    created: u64,
    mos: Dir,
    free: Dir,
    origin: Dir,
    origin_head: u64,
    clones: u64,
    datasets: Vec<Placed>,
    pub(crate) usage: features::Usage,
}

/// What a dataset object says, besides what all have in common.
struct Dataset<'a> {
    dir: u64,
    previous: Option<(u64, u64)>,
    next: u64,
    snapshot_names: u64,
    children: u64,
    created_txg: u64,
    deadlist: u64,
    space: Space,
    unique: u64,
    pointer: &'a BlockPointer,
    next_clones: u64,
    holds: u64,
}

/// An object that lists no block pointers.
pub(crate) fn empty_bpobj() -> Dnode {
    bpobj(0, Space::default())
}

/// An object that lists block pointers, without its blocks.
fn bpobj(count: usize, space: Space) -> Dnode {
    let mut header = words(&[count as u64, space.referenced, space.compressed, space.uncompressed]);
    header.resize(BPOBJ_HEADER, 0);
    let mut dnode = Dnode::with_bonus(object_type::BPOBJ, object_type::BPOBJ_HEADER, header);
    dnode.block_size = BPOBJ_BLOCK;
    dnode
}

/// Builds the layer step by step.
struct Builder<'a, 'm> {
    media: &'a mut Media<'m>,
    objects: &'a mut ObjectSet,
    seed: Seed,
    created: u64,
    enabled: &'a FeatureSet,
    usage: features::Usage,
}

impl Dsl {
    /// Writes everything but the directories' space totals, which depend on what the pool's own objects take.
    pub(crate) fn write(
        media: &mut Media,
        objects: &mut ObjectSet,
        seed: Seed,
        created: u64,
        enabled: &FeatureSet,
        plan: &[Planned],
        contents: &[Vec<Version>],
    ) -> Result<Dsl, WriteError> {
        let mut builder =
            Builder { media, objects, seed, created, enabled, usage: features::Usage::default() };
        let dirs: Vec<Dir> = plan.iter().map(|_| builder.add_dir()).collect();
        let (mos, free, origin) = (builder.add_dir(), builder.add_dir(), builder.add_dir());

        let origin_head = builder.objects.add(Dnode::with_bonus(
            object_type::DSL_DATASET,
            object_type::DSL_DATASET,
            Vec::new(),
        ));
        let origin_snapshot = builder.objects.add(Dnode::with_bonus(
            object_type::DSL_DATASET,
            object_type::DSL_DATASET,
            Vec::new(),
        ));
        let mut placed: BTreeMap<usize, Placed> = BTreeMap::new();
        for at in writing_order(plan) {
            let origin = match plan[at].origin {
                Some(Origin { dataset, snapshot }) => placed[&dataset].snapshots[snapshot],
                None => origin_snapshot,
            };
            placed.insert(at, builder.add_dataset(plan, contents, at, dirs[at], origin)?);
        }
        let datasets: Vec<Placed> = placed.into_values().collect();
        let ordinary: Vec<&Placed> =
            datasets.iter().filter(|placed| placed.origin == origin_snapshot).collect();
        let next_clones = builder.objects.add(Dnode::new(object_type::NEXT_CLONES));
        let clones = builder.objects.add(Dnode::new(object_type::DSL_CLONES));
        builder.set_members(next_clones, ordinary.iter().map(|placed| placed.oldest()))?;
        builder.set_members(clones, ordinary.iter().map(|placed| placed.head))?;
        builder.set_origin(origin, origin_head, origin_snapshot, ordinary.len() as u64, next_clones)?;
        for origin in datasets.iter().filter(|origin| origin.clones != 0) {
            let all: Vec<&Placed> =
                datasets.iter().filter(|clone| origin.snapshots.contains(&clone.origin)).collect();
            let tables = origin.snapshots.iter().zip(&origin.next_clones);
            for (snapshot, table) in tables.filter(|(_, table)| **table != 0) {
                let own = all.iter().filter(|clone| clone.origin == *snapshot);
                builder.set_members(*table, own.map(|clone| clone.oldest()))?;
            }
            builder.set_members(origin.clones, all.iter().map(|clone| clone.head))?;
        }
        builder.set_tables(plan, &dirs, [("$MOS", mos), ("$FREE", free), ("$ORIGIN", origin)])?;
        let usage = builder.usage;
        Ok(Dsl { created, mos, free, origin, origin_head, clones, datasets, usage })
    }

    /// The object of the pool's root directory.
    pub(crate) fn root_dir(&self) -> u64 {
        self.datasets[0].dir.object
    }

    /// The dataset object of the dataset at `index` of the plan.
    pub(crate) fn head(&self, index: usize) -> u64 {
        self.datasets[index].head
    }

    /// Sets the space totals of all directories, now that it is known what the pool's own objects take.
    pub(crate) fn settle(&self, objects: &mut ObjectSet, plan: &[Planned], totals: &[Totals], mos: Space) {
        for ((placed, planned), totals) in self.datasets.iter().zip(plan).zip(totals) {
            let parent = planned.parent.map_or(0, |parent| self.datasets[parent].dir.object);
            self.set_dir(objects, placed.dir, placed.head, parent, placed.origin, totals, placed.clones);
        }
        let root = self.root_dir();
        let mos_totals = Totals {
            used: mos.referenced,
            compressed: mos.compressed,
            uncompressed: mos.uncompressed,
            head: mos.referenced,
            ..Totals::default()
        };
        self.set_dir(objects, self.mos, 0, root, 0, &mos_totals, 0);
        self.set_dir(objects, self.free, 0, root, 0, &Totals::default(), 0);
        self.set_dir(objects, self.origin, self.origin_head, root, 0, &Totals::default(), self.clones);
    }

    #[allow(clippy::too_many_arguments, reason = "the fields of one on-disk structure")]
    fn set_dir(
        &self,
        objects: &mut ObjectSet,
        dir: Dir,
        head: u64,
        parent: u64,
        origin: u64,
        totals: &Totals,
        clones: u64,
    ) {
        const FLAG_USED_BREAKDOWN: u64 = 1;
        let mut fields = vec![
            self.created,
            head,
            parent,
            origin,
            dir.children,
            totals.used,
            totals.compressed,
            totals.uncompressed,
            totals.quota,
            totals.reserved,
            dir.properties,
            0,
            FLAG_USED_BREAKDOWN,
            totals.head,
            totals.snapshots,
            totals.child,
            totals.child_reserved,
            totals.head_reserved,
            clones,
        ];
        fields.resize(DIR_WORDS, 0);
        objects.get_mut(dir.object).bonus = words(&fields);
    }
}

impl Builder<'_, '_> {
    fn add_dir(&mut self) -> Dir {
        let dir = Dnode::with_bonus(object_type::DSL_DIR, object_type::DSL_DIR, Vec::new());
        Dir {
            object: self.objects.add(dir),
            properties: self.objects.add(Dnode::new(object_type::DSL_PROPERTIES)),
            children: self.objects.add(Dnode::new(object_type::DSL_DIR_CHILD_MAP)),
        }
    }

    fn zap(&self, purpose: &str, object: u64) -> Zap {
        Zap::new(self.seed.number(purpose, object))
    }

    fn add_zap(&mut self, kind: u8, zap: &Zap) -> Result<u64, WriteError> {
        self.objects.add_zap(self.media, kind, zap)
    }

    fn set_zap(&mut self, object: u64, zap: &Zap) -> Result<(), WriteError> {
        self.objects.set_zap(self.media, object, zap)
    }

    /// The blocks that the snapshot before has and this dataset does not: a list for each transaction group in `keys`
    /// (ascending) of those born after it and not after the next.
    fn add_deadlist(&mut self, keys: &[u64], dead: &[BlockPointer]) -> Result<u64, WriteError> {
        let space = total(dead, self.media.deflation());
        let mut header = words(&[space.referenced, space.compressed, space.uncompressed]);
        header.resize(DEADLIST_HEADER, 0);
        let object =
            self.objects.add(Dnode::with_bonus(object_type::DEADLIST, object_type::DEADLIST_HEADER, header));
        let mut zap = self.zap("deadlist", object);
        for (i, key) in keys.iter().enumerate() {
            let end = keys.get(i + 1).copied().unwrap_or(u64::MAX);
            let listed: Vec<BlockPointer> = dead
                .iter()
                .filter(|pointer| (*key < pointer.birth()) && pointer.birth() <= end)
                .copied()
                .collect();
            zap.add_u64(format!("{key:x}"), self.add_bpobj(&listed)?);
        }
        self.set_zap(object, &zap)?;
        Ok(object)
    }

    fn add_bpobj(&mut self, listed: &[BlockPointer]) -> Result<u64, WriteError> {
        const PER_BLOCK: usize = BPOBJ_BLOCK as usize / 128;
        let space = total(listed, self.media.deflation());
        let object = self.objects.add(bpobj(listed.len(), space));
        if !listed.is_empty() {
            let blocks: Vec<Vec<u8>> = listed
                .chunks(PER_BLOCK)
                .map(|chunk| {
                    let mut block: Vec<u8> =
                        chunk.iter().flat_map(|pointer| pointer.without_content().to_bytes()).collect();
                    block.resize(BPOBJ_BLOCK as usize, 0);
                    block
                })
                .collect();
            self.objects.set_blocks(self.media, object, BPOBJ_BLOCK, &blocks)?;
        }
        Ok(object)
    }

    /// Adds a dataset object; one that uses features or has bookmarks carries a table about it, as its data.
    fn add_dataset_object(
        &mut self,
        features: &BTreeSet<Feature>,
        bookmarks: Option<u64>,
    ) -> Result<u64, WriteError> {
        let has_table = !features.is_empty() || bookmarks.is_some();
        let kind = if has_table { object_type::ZAP_METADATA } else { object_type::DSL_DATASET };
        let object = self.objects.add(Dnode::with_bonus(kind, object_type::DSL_DATASET, Vec::new()));
        if has_table {
            let mut zap = self.zap("dataset features", object);
            features.iter().for_each(|feature| zap.add_u64(feature.guid(), 0));
            if let Some(bookmarks) = bookmarks {
                // The field is called like the feature.
                zap.add_u64(Feature::Bookmarks.guid(), bookmarks);
            }
            self.set_zap(object, &zap)?;
            self.usage.add(features.iter().copied().chain(bookmarks.map(|_| Feature::Bookmarks)));
        }
        Ok(object)
    }

    /// Fills a table that is a set of objects.
    fn set_members(&mut self, table: u64, members: impl Iterator<Item = u64>) -> Result<(), WriteError> {
        let mut zap = self.zap("set of objects", table);
        members.for_each(|object| zap.add_u64(format!("{object:x}"), object));
        self.set_zap(table, &zap)
    }

    /// Adds the head of a dataset and its snapshots, which descend from `origin`.
    fn add_dataset(
        &mut self,
        plan: &[Planned],
        contents: &[Vec<Version>],
        at: usize,
        dir: Dir,
        origin: u64,
    ) -> Result<Placed, WriteError> {
        let (planned, versions) = (&plan[at], &contents[at]);
        let seed = self.seed.part(planned.name.as_str());
        let states: Vec<&Version> = planned.states.iter().map(|state| &versions[*state]).collect();
        let newest = states.len() - 1;
        // A state that is the same as the one before let go of nothing; the oldest of a clone let go of what its origin has.
        let dead = |i: usize| match planned.states.get(i) {
            Some(state) if i == 0 || planned.states[i - 1] != *state => versions[*state].dead.as_slice(),
            _ => &[],
        };
        let bookmarks = self.add_bookmarks(planned, &seed, &states, &dead)?;
        let head = self.add_dataset_object(&states[newest].features, bookmarks)?;
        let snapshots: Vec<u64> = states[..newest]
            .iter()
            .map(|version| self.add_dataset_object(&version.features, None))
            .collect::<Result<_, _>>()?;
        let mut names = self.zap("snapshot names", head);
        for (snapshot, object) in planned.snapshots.iter().zip(&snapshots) {
            names.add_u64(&snapshot.name, *object);
        }
        let snapshot_names = self.add_zap(object_type::DSL_SNAPSHOT_MAP, &names)?;

        let clones: Vec<u64> =
            (0..newest).map(|snapshot| clones(plan, Origin { dataset: at, snapshot }).len() as u64).collect();
        let mut table = |kind, is_needed| if is_needed { self.objects.add(Dnode::new(kind)) } else { 0 };
        let placed = Placed {
            dir,
            head,
            origin,
            next_clones: clones.iter().map(|count| table(object_type::NEXT_CLONES, *count > 0)).collect(),
            clones: table(object_type::DSL_CLONES, clones.iter().any(|count| *count > 0)),
            snapshots,
        };
        let chain: Vec<u64> = placed.snapshots.iter().copied().chain([head]).collect();
        let mut previous = origin;
        for (i, object) in chain.iter().enumerate() {
            let is_head = i == newest;
            let version = states[i];
            let previous_txg = previous_txg(plan, planned, i);
            let deadlist = self.add_deadlist(&deadlist_keys(plan, planned, i), dead(i))?;
            let created_txg = if is_head { planned.created_txg() } else { planned.state_txg(i) };
            let unique = if is_head {
                Own::of(planned, versions, base(plan, contents, planned), self.media.deflation()).unique
            } else {
                // Nobody else has what is neither in the snapshot before nor in the next one; clones do not count.
                let freed = dead(i + 1).iter().filter(|pointer| pointer.birth() > previous_txg);
                total(freed, self.media.deflation()).referenced
            };
            let holds = match planned.snapshots.get(i) {
                Some(snapshot) => self.add_holds(&snapshot.holds)?,
                None => 0,
            };
            let bonus = self.dataset_bonus(
                &seed,
                i as u64,
                &Dataset {
                    dir: dir.object,
                    previous: Some((previous, previous_txg)),
                    next: chain.get(i + 1).copied().unwrap_or(0),
                    snapshot_names: if is_head { snapshot_names } else { 0 },
                    children: clones.get(i).map_or(0, |clones| 1 + clones),
                    created_txg,
                    deadlist,
                    space: version.space,
                    unique,
                    pointer: &version.pointer,
                    next_clones: placed.next_clones.get(i).copied().unwrap_or(0),
                    holds,
                },
            );
            self.objects.get_mut(*object).bonus = bonus;
            previous = *object;
        }
        Ok(placed)
    }

    /// Fills in `$ORIGIN` and its snapshot, from which `filesystems` descend.
    fn set_origin(
        &mut self,
        dir: Dir,
        head: u64,
        snapshot: u64,
        filesystems: u64,
        next_clones: u64,
    ) -> Result<(), WriteError> {
        let seed = self.seed.part("$ORIGIN");
        let mut names = self.zap("snapshot names", head);
        names.add_u64("$ORIGIN", snapshot);
        let snapshot_names = self.add_zap(object_type::DSL_SNAPSHOT_MAP, &names)?;
        let common = Dataset {
            dir: dir.object,
            previous: None,
            next: 0,
            snapshot_names: 0,
            children: 0,
            created_txg: txg::ORIGIN,
            deadlist: 0,
            space: Space::default(),
            unique: 0,
            pointer: &BlockPointer::HOLE,
            next_clones: 0,
            holds: 0,
        };
        let snapshot_deadlist = self.add_deadlist(&[], &[])?;
        let head_deadlist = self.add_deadlist(&[0], &[])?;
        let head_bonus = self.dataset_bonus(
            &seed,
            0,
            &Dataset {
                previous: Some((snapshot, txg::ORIGIN)),
                snapshot_names,
                deadlist: head_deadlist,
                ..common
            },
        );
        let snapshot_bonus = self.dataset_bonus(
            &seed,
            1,
            &Dataset {
                next: head,
                children: 1 + filesystems,
                deadlist: snapshot_deadlist,
                next_clones,
                ..common
            },
        );
        self.objects.get_mut(head).bonus = head_bonus;
        self.objects.get_mut(snapshot).bonus = snapshot_bonus;
        Ok(())
    }

    fn dataset_bonus(&self, seed: &Seed, index: u64, dataset: &Dataset) -> Vec<u8> {
        const FLAG_UNIQUE_ACCURATE: u64 = 4;
        // File system ids have 56 bits.
        let fsid = (seed.number("fsid", index) >> 8).max(1);
        let (previous, previous_txg) = dataset.previous.unwrap_or((0, 0));
        let mut fields = vec![
            dataset.dir,
            previous,
            previous_txg,
            dataset.next,
            dataset.snapshot_names,
            dataset.children,
            self.created,
            dataset.created_txg,
            dataset.deadlist,
            dataset.space.referenced,
            dataset.space.compressed,
            dataset.space.uncompressed,
            dataset.unique,
            fsid,
            seed.number("guid", index),
            FLAG_UNIQUE_ACCURATE,
        ];
        fields.extend(dataset.pointer.words());
        let properties = 0;
        fields.extend([dataset.next_clones, properties, dataset.holds]);
        fields.resize(DATASET_WORDS, 0);
        words(&fields)
    }

    /// Writes the property and child tables of all directories.
    fn set_tables(
        &mut self,
        plan: &[Planned],
        dirs: &[Dir],
        hidden: [(&str, Dir); 3],
    ) -> Result<(), WriteError> {
        for (i, dir) in dirs.iter().enumerate() {
            let mut properties = self.zap("properties", dir.object);
            for (name, value) in plan[i].properties.into_iter().flat_map(|properties| properties.stored()) {
                match value {
                    Stored::Number(number) => properties.add_u64(name, *number),
                    Stored::Text(text) => properties.add_text(name, text),
                    Stored::AsWritten => {}
                }
            }
            self.set_zap(dir.properties, &properties)?;
            let mut children = self.zap("children", dir.object);
            if plan[i].parent.is_none() {
                hidden.iter().for_each(|(name, dir)| children.add_u64(name, dir.object));
            }
            for (child, dir) in plan.iter().zip(dirs).filter(|(child, _)| child.parent == Some(i)) {
                children.add_u64(child.name.last(), dir.object);
            }
            self.set_zap(dir.children, &children)?;
        }
        for (_, dir) in hidden {
            let (properties, children) =
                (self.zap("properties", dir.object), self.zap("children", dir.object));
            self.set_zap(dir.properties, &properties)?;
            self.set_zap(dir.children, &children)?;
        }
        Ok(())
    }
}

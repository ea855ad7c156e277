//! The whole pool: datasets first, then the pool's own objects (the MOS), the labels last.
//!
//! Some of the MOS describes what was allocated, which includes itself. Those parts have a fixed size: they are stored
//! uncompressed, their space is reserved before any of them is written.

use crate::device::{Progress, WriteAt};
use crate::features;
use crate::format::blkptr::{Address, BlockPointer, Dva, Role};
use crate::format::dnode::{self, Dnode, POINTERS_PER_INDIRECT, SLOT, object_type};
use crate::format::hasher::Algorithm;
use crate::format::zap::Zap;
use crate::format::{SECTOR, put_u64};
use crate::spec::{PoolSpec, Redundancy, Vdev};
use crate::write::allocator::{Allocator, Class, Touched};
use crate::write::contents::{salt, write_contents};
use crate::write::dsl::{self, Dsl};
use crate::write::error::WriteError;
use crate::write::fs::Version;
use crate::write::label::{Config, Leaf, Top};
use crate::write::media::{Media, POOL_COPIES, Rules};
use crate::write::objset::{OBJSET_LEN, ObjectSet, TYPE_AT};
use crate::write::origins::base;
use crate::write::plan::{Planned, plan};
use crate::write::seed::Seed;
use crate::write::shape::Shape;
use crate::write::space::{MAX_DEVICE, MIN_DEVICE, Space, device_size_for};
use crate::write::totals::{self, Own};
use crate::write::txg;

/// `DMU_OST_META`.
const OBJSET_META: u64 = 1;
/// Size of the configuration object's block.
const CONFIG_BLOCK: usize = 16 << 10;
/// Bytes of a space map with its one run, and of its header with the histogram.
const SPACE_MAP: usize = 4096;
const SPACE_MAP_HEADER: usize = 320;

/// What is in a pool that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Summary {
    /// The pool's GUID.
    pub guid: u64,
    /// Bytes allocated on the vdevs, all copies of metadata included.
    pub allocated: u64,
    /// Bytes that can be allocated at all.
    pub capacity: u64,
    /// Bytes written to the output.
    pub written: u64,
    /// Its datasets, parents before children, also those that were not given but had to be made.
    pub datasets: Vec<DatasetSummary>,
}

/// What is in one dataset.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DatasetSummary {
    /// Its name.
    pub name: String,
    /// Objects in it: files, directories, and five tables.
    pub objects: u64,
    /// Apparent size of its files in bytes.
    pub logical: u64,
    /// Bytes its blocks have after compression, one copy of each.
    pub compressed: u64,
    /// Bytes its blocks take on the vdev (`zfs get referenced`).
    pub referenced: u64,
}

/// Writes the pool that `spec` describes to `outs`, one for each of its devices, those of the first vdev first: each reads
/// as zeros and is at least as large as its vdev.
///
/// The bytes depend on `spec` and on the content it refers to, and on nothing else. When this fails, `outs` hold no pool:
/// the labels are written last.
pub fn write_pool(
    spec: &PoolSpec,
    outs: &[&dyn WriteAt],
    progress: &dyn Progress,
) -> Result<Summary, WriteError> {
    const ASHIFTS: std::ops::RangeInclusive<u8> = 9..=16;
    if let Some(size) = spec.vdevs.iter().map(|vdev| vdev.size).find(|size| *size < MIN_DEVICE) {
        return Err(WriteError::BelowMinimum { size });
    }
    // The space of a raidz is that of all its devices.
    let space = |vdev: &Vdev| match vdev.redundancy {
        Redundancy::Mirror => vdev.size,
        Redundancy::Raidz(_) => vdev.size.saturating_mul(vdev.paths.len() as u64),
    };
    if let Some(size) = spec.vdevs.iter().map(space).find(|size| *size > MAX_DEVICE) {
        return Err(WriteError::AboveMaximum { size });
    }
    if !ASHIFTS.contains(&spec.ashift) {
        return Err(WriteError::BadAshift(spec.ashift));
    }
    let vdevs = devices_of(spec, outs)?;
    let plan = plan(spec)?;
    let shapes: Vec<Shape> = spec.vdevs.iter().map(|vdev| Shape::of(vdev, spec.ashift)).collect();
    let mut media = Media::new(vdevs, shapes.clone(), spec.ashift, Rules::plain(POOL_COPIES))?;
    let seed = Seed::new(spec.seed);

    let contents = write_contents(spec, &plan, seed, &mut media, progress)?;
    media.set_rules(Rules::plain(POOL_COPIES));
    let mut pool = Pool { spec, shapes, seed: seed.part("$MOS"), media, objects: ObjectSet::new() };
    pool.write(&plan, &contents)
}

/// The outputs of each top-level vdev.
fn devices_of<'a>(
    spec: &PoolSpec,
    outs: &'a [&'a dyn WriteAt],
) -> Result<Vec<&'a [&'a dyn WriteAt]>, WriteError> {
    /// Most devices of a raidz that are allowed here: nobody wants more to depend on one another.
    const MAX_RAIDZ: u64 = 255;
    let paths = spec.vdevs.iter().map(|vdev| vdev.paths.len()).sum();
    let has_devices = spec.vdevs.iter().all(|vdev| !vdev.paths.is_empty());
    if !has_devices || !(1..=Address::MAX_VDEVS).contains(&spec.vdevs.len()) {
        return Err(WriteError::BadVdevs);
    }
    for vdev in &spec.vdevs {
        if let Redundancy::Raidz(parity) = vdev.redundancy {
            let (devices, least) = (vdev.paths.len(), parity.columns() + 1);
            if !(least..=MAX_RAIDZ).contains(&(devices as u64)) {
                return Err(WriteError::BadRaidz { devices, least });
            }
        }
    }
    if paths != outs.len() {
        return Err(WriteError::Outputs { paths, outputs: outs.len() });
    }
    let mut rest = outs;
    let vdevs = spec.vdevs.iter().map(|vdev| {
        let (own, others) = rest.split_at(vdev.paths.len());
        rest = others;
        own
    });
    Ok(vdevs.collect())
}

struct Pool<'a> {
    spec: &'a PoolSpec,
    /// Of each top-level vdev.
    shapes: Vec<Shape>,
    seed: Seed,
    media: Media<'a>,
    objects: ObjectSet,
}

/// Objects of the MOS whose content is written after the datasets'.
struct Fixtures {
    directory: u64,
    config: u64,
    /// One for each top-level vdev.
    metaslab_arrays: Vec<u64>,
    features_for_read: u64,
    features_for_write: u64,
    feature_descriptions: u64,
    feature_enabled_txg: u64,
    properties: u64,
    sync_bplist: u64,
    free_bpobj: u64,
}

/// Where one block goes: its copies.
type Copies = Vec<Dva>;

/// Space for what describes the allocation.
struct Reservation {
    features: Copies,
    space_maps: Vec<Copies>,
    /// For each top-level vdev.
    arrays: Vec<Copies>,
    dnodes: Vec<Copies>,
    /// Indirect blocks over the dnodes, by level, the lowest first; the last level is one block.
    indirects: Vec<Vec<Copies>>,
    objset: Copies,
    /// What all of it takes.
    space: Space,
}

/// Sizes of what is reserved.
struct Sizes {
    features: usize,
    /// For each top-level vdev.
    arrays: Vec<usize>,
    dnode_blocks: u64,
}

impl Fixtures {
    fn reserve(objects: &mut ObjectSet, vdevs: usize) -> Fixtures {
        let mut add = |dnode| objects.add(dnode);
        let zap = || Dnode::new(object_type::ZAP_METADATA);
        let config =
            || Dnode::with_bonus(object_type::PACKED_NVLIST, object_type::PACKED_NVLIST_SIZE, vec![0; 8]);
        Fixtures {
            // Readers look for it at number 1.
            directory: add(Dnode::new(object_type::OBJECT_DIRECTORY)),
            config: add(config()),
            metaslab_arrays: (0..vdevs).map(|_| add(Dnode::new(object_type::OBJECT_ARRAY))).collect(),
            features_for_read: add(zap()),
            features_for_write: add(zap()),
            feature_descriptions: add(zap()),
            feature_enabled_txg: add(zap()),
            properties: add(Dnode::new(object_type::POOL_PROPERTIES)),
            sync_bplist: add(dsl::empty_bpobj()),
            free_bpobj: add(dsl::empty_bpobj()),
        }
    }
}

impl Reservation {
    fn take(media: &Media, allocator: &mut Allocator, sizes: &Sizes, space_maps: u64) -> Reservation {
        let mut space = Space::default();
        let mut take = |size: usize| {
            let size = size as u64;
            let copies = allocator.allocate(Class::Metadata, size, POOL_COPIES);
            space.referenced += media.charge(&copies);
            space.compressed += size;
            space.uncompressed += size;
            copies
        };
        let features = take(sizes.features);
        let maps = (0..space_maps).map(|_| take(SPACE_MAP)).collect();
        let arrays = sizes.arrays.iter().map(|size| take(*size)).collect();
        let dnodes = (0..sizes.dnode_blocks).map(|_| take(dnode::BLOCK)).collect();
        let mut indirects: Vec<Vec<Copies>> = Vec::new();
        let mut below = sizes.dnode_blocks;
        while below > 1 || indirects.is_empty() {
            below = below.div_ceil(POINTERS_PER_INDIRECT as u64);
            indirects.push((0..below).map(|_| take(POINTERS_PER_INDIRECT * 128)).collect());
        }
        let objset = take(OBJSET_LEN);
        Reservation { features, space_maps: maps, arrays, dnodes, indirects, objset, space }
    }
}

impl<'a> Pool<'a> {
    fn write(&mut self, plan: &[Planned], contents: &[Vec<Version>]) -> Result<Summary, WriteError> {
        let fixtures = Fixtures::reserve(&mut self.objects, self.shapes.len());
        let created = self.spec.created;
        let enabled = self.spec.properties.features();
        let dsl =
            Dsl::write(&mut self.media, &mut self.objects, self.seed, created, &enabled, plan, contents)?;
        self.write_properties(&fixtures, &dsl, plan)?;
        self.write_features(&fixtures, &dsl.usage)?;
        let salted = plan.iter().any(|planned| planned.effective.checksum == Algorithm::Blake3);
        self.write_directory(&fixtures, &dsl, salted)?;
        let guid = self.seed.number("pool guid", 0);
        let newest = plan.iter().map(|planned| planned.state_txg(planned.snapshots.len())).max();
        let config = Config {
            name: self.spec.name.as_str(),
            guid,
            tops: self.tops(&fixtures),
            vdev_type: self.spec.vdev_type,
            ashift: self.spec.ashift,
            properties: &self.spec.properties,
            txg: txg::uberblock(newest.unwrap_or(txg::BIRTH)),
            created,
        };
        self.write_config(&fixtures, &config)?;

        let features_for_write = self.features_for_write(&fixtures, &dsl.usage, 0)?.len();
        let (maps, reservation) = self.reserve(features_for_write)?;
        self.objects.space += reservation.space;
        let own: Vec<Own> = plan
            .iter()
            .zip(contents)
            .map(|(planned, versions)| {
                Own::of(planned, versions, base(plan, contents, planned), self.media.deflation())
            })
            .collect();
        let totals = totals::totals(plan, &own, self.objects.space);
        totals::check_quotas(plan, &own, &totals)?;
        let allocator = &self.media.allocator;
        let deflation = self.media.deflation();
        let charged = deflation.charge_all(allocator.by_vdev());
        debug_assert!(
            totals.first().is_none_or(|root| root.used >= charged),
            "every allocated byte is charged to somebody"
        );
        debug_assert!(
            plan.iter().any(|planned| planned
                .properties
                .is_some_and(|set| set.get("reservation").is_some() || set.get("refreservation").is_some()))
                || totals.first().is_none_or(|root| root.used == charged),
            "and none twice, unless somebody reserves more"
        );
        let capacities = || self.shapes.iter().map(|shape| shape.geometry.capacity());
        let capacity = capacities().sum();
        let used = totals.first().map_or(0, |root| root.used);
        let all = deflation.charge_all(capacities());
        if !allocator.fits() || used > all {
            // What is charged is less than what it takes by the same share as all that could be charged.
            let reserved = u128::from(used) * u128::from(capacity) / u128::from(all.max(1));
            let needed = allocator.allocated().max(u64::try_from(reserved).unwrap_or(u64::MAX));
            return Err(self.too_small(needed, allocator.largest()));
        }
        let own_space = self.objects.space;
        dsl.settle(&mut self.objects, plan, &totals, own_space);
        self.store_features_for_write(&fixtures, &dsl.usage, &reservation)?;
        self.store_space_maps(&fixtures, &maps, &reservation)?;
        let root = self.store_objset(&reservation)?;

        self.media.sync()?;
        for (vdev, top) in config.tops.iter().enumerate() {
            for device in 0..top.leaves.len() {
                for (at, label) in config.labels(vdev, device, &root) {
                    self.media.write_one(vdev, device, &label, at)?;
                }
            }
        }
        self.media.sync()?;
        Ok(Summary {
            guid,
            allocated: self.media.allocator.allocated(),
            capacity,
            written: self.media.written(),
            datasets: plan
                .iter()
                .zip(contents)
                .filter_map(|(planned, versions)| summary(planned, versions))
                .collect(),
        })
    }

    /// That `needed` bytes are needed, in blocks of at most `largest`, spread evenly.
    fn too_small(&self, needed: u64, largest: u64) -> WriteError {
        let vdevs = self.spec.vdevs.len() as u64;
        let each = |shape: &Shape| device_size_for(needed.div_ceil(vdevs), largest, shape.width());
        WriteError::TooSmall {
            size: self
                .spec
                .vdevs
                .iter()
                .zip(&self.shapes)
                .map(|(vdev, shape)| vdev.size * shape.width())
                .sum(),
            needed: self.shapes.iter().map(|shape| each(shape) * shape.width()).sum(),
        }
    }

    /// The top-level vdevs as labels describe them.
    fn tops(&self, fixtures: &Fixtures) -> Vec<Top<'a>> {
        let spec = self.spec;
        let mut leaf_guids = (0..).map(|i| self.seed.number("vdev guid", i));
        let places = spec.vdevs.iter().zip(&self.shapes).zip(&fixtures.metaslab_arrays);
        let top = |(i, ((vdev, shape), array)): (u64, ((&'a Vdev, &Shape), &u64))| {
            let paths = vdev.paths.iter();
            let leaves: Vec<Leaf> =
                paths.zip(&mut leaf_guids).map(|(path, guid)| Leaf { guid, path }).collect();
            let parity = shape.raidz.map(|raidz| raidz.parity);
            let guid = match (leaves.as_slice(), parity) {
                ([leaf], None) => leaf.guid,
                (_, None) => self.seed.number("mirror guid", i),
                (_, Some(_)) => self.seed.number("raidz guid", i),
            };
            Top { guid, parity, leaves, geometry: shape.geometry, metaslab_array: *array }
        };
        (0..).zip(places).map(top).collect()
    }

    fn zap(&self, object: u64) -> Zap {
        Zap::new(self.seed.number("table", object))
    }

    fn set_zap(&mut self, object: u64, zap: &Zap) -> Result<(), WriteError> {
        self.objects.set_zap(&mut self.media, object, zap)
    }

    fn write_properties(
        &mut self,
        fixtures: &Fixtures,
        dsl: &Dsl,
        plan: &[Planned],
    ) -> Result<(), WriteError> {
        let mut zap = self.zap(fixtures.properties);
        let bootfs = self.spec.bootfs.as_ref();
        if let Some(index) = plan.iter().position(|planned| Some(&planned.name) == bootfs) {
            zap.add_u64("bootfs", dsl.head(index));
        }
        zap.add_u64("ashift", u64::from(self.spec.ashift));
        self.spec.properties.numbers().for_each(|(name, number)| zap.add_u64(name, number));
        self.set_zap(fixtures.properties, &zap)
    }

    /// Writes the feature tables, except the one whose counts depend on how many space maps there are.
    fn write_features(&mut self, fixtures: &Fixtures, usage: &features::Usage) -> Result<(), WriteError> {
        let mut descriptions = self.zap(fixtures.feature_descriptions);
        let mut enabled = self.zap(fixtures.feature_enabled_txg);
        let enabled_set = self.spec.properties.features();
        for (guid, _) in usage.for_read(&enabled_set).into_iter().chain(usage.for_write(&enabled_set, 0)) {
            descriptions.add_text(guid, features::short_name(guid));
            enabled.add_u64(guid, txg::POOL_CREATED);
        }
        let mut for_read = self.zap(fixtures.features_for_read);
        usage.for_read(&enabled_set).into_iter().for_each(|(guid, count)| for_read.add_u64(guid, count));
        self.set_zap(fixtures.feature_descriptions, &descriptions)?;
        self.set_zap(fixtures.feature_enabled_txg, &enabled)?;
        self.set_zap(fixtures.features_for_read, &for_read)
    }

    fn write_directory(&mut self, fixtures: &Fixtures, dsl: &Dsl, salted: bool) -> Result<(), WriteError> {
        const VERSION: u64 = 5000;
        let mut zap = self.zap(fixtures.directory);
        for (name, value) in [
            ("root_dataset", dsl.root_dir()),
            ("config", fixtures.config),
            ("sync_bplist", fixtures.sync_bplist),
            ("free_bpobj", fixtures.free_bpobj),
            ("features_for_read", fixtures.features_for_read),
            ("features_for_write", fixtures.features_for_write),
            ("feature_descriptions", fixtures.feature_descriptions),
            ("feature_enabled_txg", fixtures.feature_enabled_txg),
            ("pool_props", fixtures.properties),
            ("deflate", 1),
            ("creation_version", VERSION),
        ] {
            zap.add_u64(name, value);
        }
        if salted {
            zap.add_bytes("org.illumos:checksum_salt", &salt(Seed::new(self.spec.seed)));
        }
        self.set_zap(fixtures.directory, &zap)
    }

    fn write_config(&mut self, fixtures: &Fixtures, config: &Config) -> Result<(), WriteError> {
        let mut packed = config.pack_for_pool();
        let dnode = self.objects.get_mut(fixtures.config);
        dnode.bonus = (packed.len() as u64).to_le_bytes().to_vec();
        packed.resize(packed.len().next_multiple_of(CONFIG_BLOCK), 0);
        let blocks: Vec<Vec<u8>> = packed.chunks(CONFIG_BLOCK).map(<[u8]>::to_vec).collect();
        self.objects.set_blocks(&mut self.media, fixtures.config, CONFIG_BLOCK as u32, &blocks)
    }

    /// Reserves space for what describes the allocation; gives the space maps' objects, one for each metaslab touched.
    fn reserve(&mut self, features: usize) -> Result<(Vec<u64>, Reservation), WriteError> {
        let arrays: Vec<usize> = self.shapes.iter().map(array_size).collect();
        let mut count = self.media.allocator.touched().count() as u64;
        loop {
            let arrays = arrays.clone();
            let sizes = Sizes { features, arrays, dnode_blocks: self.objects.dnode_block_count(count) };
            let mut trial = self.media.allocator.clone();
            let reservation = Reservation::take(&self.media, &mut trial, &sizes, count);
            let touched = trial.touched().count() as u64;
            if touched > count {
                count = touched;
                continue;
            }
            self.media.allocator = trial;
            let space_map = || {
                let header = vec![0; SPACE_MAP_HEADER];
                Dnode::with_bonus(object_type::SPACE_MAP, object_type::SPACE_MAP_HEADER, header)
            };
            let maps = (0..count).map(|_| self.objects.add(space_map())).collect();
            return Ok((maps, reservation));
        }
    }

    /// Stores a reserved block of an object that has only this one.
    fn store_single(&mut self, object: u64, block: &[u8], copies: &Copies) -> Result<(), WriteError> {
        let role = Role { object_type: self.objects.get(object).object_type, level: 0 };
        let pointer = self.media.store_at(block, copies, role, 1)?;
        let used = self.media.charge(copies);
        let dnode = self.objects.get_mut(object);
        dnode.block_size = block.len() as u32;
        dnode.pointer = pointer;
        dnode.used = used;
        Ok(())
    }

    fn store_features_for_write(
        &mut self,
        fixtures: &Fixtures,
        usage: &features::Usage,
        reservation: &Reservation,
    ) -> Result<(), WriteError> {
        let block = self.features_for_write(fixtures, usage, reservation.space_maps.len() as u64)?;
        self.store_single(fixtures.features_for_write, &block, &reservation.features)
    }

    /// The one block of the table of features for writing. Its size does not depend on the counts in it.
    fn features_for_write(
        &self,
        fixtures: &Fixtures,
        usage: &features::Usage,
        space_maps: u64,
    ) -> Result<Vec<u8>, WriteError> {
        let mut zap = self.zap(fixtures.features_for_write);
        let features = usage.for_write(&self.spec.properties.features(), space_maps);
        features.into_iter().for_each(|(guid, count)| zap.add_u64(guid, count));
        let built = zap.build().map_err(|_| WriteError::TableTooCrowded { entries: zap.entries.len() })?;
        Ok(built.blocks.concat())
    }

    fn store_space_maps(
        &mut self,
        fixtures: &Fixtures,
        maps: &[u64],
        reservation: &Reservation,
    ) -> Result<(), WriteError> {
        let mut arrays: Vec<Vec<u8>> = self.shapes.iter().map(|shape| vec![0; array_size(shape)]).collect();
        let touched: Vec<Touched> = self.media.allocator.touched().collect();
        for ((touched, map), copies) in touched.into_iter().zip(maps).zip(&reservation.space_maps) {
            let Touched { vdev, metaslab, used } = touched;
            put_u64(&mut arrays[vdev], metaslab * 8, *map);
            let size = self.shapes[vdev].geometry.metaslab_size();
            let (header, run) = space_map(*map, used, size, self.spec.ashift);
            self.store_single(*map, &run, copies)?;
            self.objects.get_mut(*map).bonus = header;
        }
        for ((object, array), copies) in fixtures.metaslab_arrays.iter().zip(&arrays).zip(&reservation.arrays)
        {
            self.store_single(*object, array, copies)?;
        }
        Ok(())
    }

    /// Stores the dnode array, the indirect blocks over it and the header; gives the pointer the uberblock needs.
    fn store_objset(&mut self, reservation: &Reservation) -> Result<BlockPointer, WriteError> {
        const INDIRECT: usize = POINTERS_PER_INDIRECT * 128;
        let mut role = Role { object_type: object_type::DNODE, level: 0 };
        let mut meta_dnode = Dnode::new(object_type::DNODE);
        let mut pointers = Vec::new();
        for (block, copies) in self.objects.dnode_blocks().zip(&reservation.dnodes) {
            pointers.push(self.media.store_at(&block.bytes, copies, role, block.fill)?);
            meta_dnode.used += self.media.charge(copies);
        }
        meta_dnode.last_block = pointers.len() as u64 - 1;
        for level in &reservation.indirects {
            role.level += 1;
            let mut above = Vec::new();
            for (chunk, copies) in pointers.chunks(POINTERS_PER_INDIRECT).zip(level) {
                let mut block: Vec<u8> = chunk.iter().flat_map(|pointer| pointer.to_bytes()).collect();
                block.resize(INDIRECT, 0);
                let fill = chunk.iter().map(BlockPointer::fill).sum();
                above.push(self.media.store_at(&block, copies, role, fill)?);
                meta_dnode.used += self.media.charge(copies);
            }
            pointers = above;
        }
        meta_dnode.block_size = dnode::BLOCK as u32;
        meta_dnode.levels = role.level + 1;
        meta_dnode.pointer = pointers.first().copied().unwrap_or(BlockPointer::HOLE);
        let mut header = vec![0; OBJSET_LEN];
        header[..SLOT].copy_from_slice(&meta_dnode.to_bytes());
        put_u64(&mut header, TYPE_AT, OBJSET_META);
        let role = Role { object_type: object_type::OBJSET, level: 0 };
        self.media.store_at(&header, &reservation.objset, role, meta_dnode.pointer.fill())
    }
}

/// Bytes of the list of a vdev's space maps.
fn array_size(shape: &Shape) -> usize {
    (shape.geometry.metaslabs as usize * 8).next_multiple_of(SECTOR)
}

/// What the head of a dataset holds.
fn summary(planned: &Planned, versions: &[Version]) -> Option<DatasetSummary> {
    let head = versions.last()?;
    Some(DatasetSummary {
        name: planned.name.to_string(),
        objects: head.objects,
        logical: head.logical,
        compressed: head.space.compressed,
        referenced: head.space.referenced,
    })
}

/// A space map with one run of `used` bytes at the start of a metaslab: its header and its data.
fn space_map(object: u64, used: u64, metaslab: u64, ashift: u8) -> (Vec<u8>, Vec<u8>) {
    const TWO_WORD_ENTRY: u64 = 3 << 62;
    const RUN_SHIFT: u32 = 24;
    const ENTRY_LEN: u64 = 16;
    const HISTOGRAM_AT: usize = 64;
    const BUCKETS: u32 = 32;
    let mut header = vec![0; SPACE_MAP_HEADER];
    let mut run = vec![0; SPACE_MAP];
    put_u64(&mut header, 0, object);
    if used > 0 {
        // Type allocated and offset 0 are a second word of zero.
        put_u64(&mut run, 0, TWO_WORD_ENTRY | ((used >> ashift) - 1) << RUN_SHIFT);
        put_u64(&mut header, 8, ENTRY_LEN);
        put_u64(&mut header, 16, used);
    }
    // The allocator of the importing system chooses metaslabs by this: one free run, in the bucket of its size.
    let free = metaslab - used;
    if free > 0 {
        let bucket = (free.ilog2() - u32::from(ashift)).min(BUCKETS - 1);
        put_u64(&mut header, HISTOGRAM_AT + bucket as usize * 8, 1);
    }
    (header, run)
}

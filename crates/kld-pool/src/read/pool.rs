//! Opening a pool: labels, the best uberblock, the pool's own objects.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::block::Blocks;
use super::bytes::{text, u64_at};
use super::error::{OpenError, ReadError};
use super::label::{Uberblock, read_labels};
use super::nvlist::NvList;
use super::objset::ObjectSet;
use super::vdev::{Device, Form, Top};
use crate::device::ReadAt;

/// Object of the MOS that names all others.
pub(crate) const OBJECT_DIRECTORY: u64 = 1;
/// Largest packed configuration that is believed.
const MAX_CONFIG: u64 = 64 << 20;
/// Most top-level vdevs that are believed.
const MAX_TOPS: usize = 4096;

/// Features that change how things are read here. All others that may be active either add objects that a reader can
/// leave alone, or show up where they matter (an unknown checksum, a redacted block), and are refused there.
const NOT_SUPPORTED: [&str; 1] = ["com.delphix:device_removal"];

/// A pool that is open for reading.
#[derive(Debug)]
pub struct Pool<'a> {
    pub(crate) blocks: Arc<Blocks<'a>>,
    pub(crate) mos: ObjectSet<'a>,
    pub(crate) uberblock: Uberblock,
    pub(crate) config: NvList,
    name: String,
    guid: u64,
}

/// A feature of a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Feature {
    /// Its full name, such as `org.illumos:lz4_compress`.
    pub guid: String,
    /// How much uses it; 0 is enabled but not in use.
    pub references: u64,
    /// Whether even reading the pool needs it.
    pub for_read: bool,
}

/// A value in a table of properties.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PropertyValue {
    /// A number, or the number that stands for a word.
    Number(u64),
    /// A text.
    Text(String),
}

impl<'a> Pool<'a> {
    /// Opens the pool on `devices`: its disks, partitions or files, in any order. Of a mirror one device is enough.
    ///
    /// Nothing is written. The pool may have been exported or not; what an intent log holds is not replayed.
    pub fn open(devices: &[&'a dyn ReadAt]) -> Result<Pool<'a>, OpenError> {
        let mut found = Vec::new();
        let mut pool: Option<(String, u64)> = None;
        let mut configs = Vec::new();
        for (index, io) in devices.iter().enumerate() {
            let size = io.size().map_err(|source| OpenError::Device { index, source })?;
            let labels = read_labels(*io, size);
            let txg = |config: &NvList| config.number("txg").unwrap_or(0);
            let best =
                labels.iter().filter_map(|label| label.config.as_ref()).max_by_key(|config| txg(config));
            let Some(config) = best.cloned() else { continue };
            // Spares and caches have labels without a pool.
            let (Some(name), Some(guid)) = (config.text("name"), config.number("pool_guid")) else {
                continue;
            };
            match &pool {
                Some((first, known)) if *known != guid => {
                    return Err(OpenError::DifferentPools { first: first.clone(), second: name });
                }
                Some(_) => {}
                None => pool = Some((name, guid)),
            }
            found.push(Device { io: *io, size, labels, guid: config.number("guid").unwrap_or(0) });
            configs.push(config);
        }
        let (name, guid) = pool.ok_or(OpenError::NoLabel)?;
        let tops = tops_of_labels(&configs, &found);
        let uberblock = found
            .iter()
            .flat_map(|device| &device.labels)
            .flat_map(|label| &label.uberblocks)
            .max_by_key(|uberblock| uberblock.age)
            .cloned()
            .ok_or_else(|| OpenError::NoUberblock { pool: name.clone() })?;
        let blocks = Arc::new(Blocks::new(found, tops));
        let read = |source| OpenError::Read { pool: name.clone(), source };
        let mos = open_mos(&blocks, &uberblock).map_err(read)?;
        let config = read_config(&mos).map_err(read)?;
        blocks.settle(tops_of_config(&config, &blocks.devices));
        let mut pool = Pool { blocks, mos, uberblock, config, name, guid };
        pool.finish()?;
        Ok(pool)
    }

    /// Takes over what the pool says about itself; refuses what cannot be read.
    fn finish(&mut self) -> Result<(), OpenError> {
        if let Some(name) = self.config.text("name") {
            self.name = name;
        }
        let read = |source| OpenError::Read { pool: self.name.clone(), source };
        let read_salt = || {
            let directory = self.mos.zap(OBJECT_DIRECTORY)?;
            directory.get(b"org.illumos:checksum_salt")
        };
        if let Some(salt) = read_salt().map_err(read)?
            && let Some(salt) = salt.value.first_chunk()
        {
            self.blocks.set_salt(*salt);
        }
        let active = self.features().map_err(read)?;
        let refused: Vec<String> = active
            .into_iter()
            .filter(|feature| feature.references > 0 && NOT_SUPPORTED.contains(&feature.guid.as_str()))
            .map(|feature| feature.guid)
            .collect();
        if refused.is_empty() {
            return Ok(());
        }
        Err(OpenError::Features { pool: self.name.clone(), features: refused.join(", ") })
    }

    /// The pool's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The pool's GUID.
    pub fn guid(&self) -> u64 {
        self.guid
    }

    /// The last transaction group that is in the pool.
    pub fn txg(&self) -> u64 {
        self.uberblock.txg()
    }

    /// When that was, in seconds since 1970.
    pub fn timestamp(&self) -> u64 {
        self.uberblock.age.1
    }

    /// Bad copies of blocks met so far, for which another copy was good.
    pub fn healed(&self) -> u64 {
        self.blocks.healed()
    }

    /// Devices of the pool that were not given.
    pub fn missing_devices(&self) -> usize {
        let children = self.blocks.tops().iter().flatten().flat_map(|top| match &top.form {
            Form::Copies(children) => vec![children],
            Form::Raidz(_, children) => children.iter().collect(),
            Form::NotSupported(_) | Form::Absent => Vec::new(),
        });
        children.flatten().filter(|child| child.is_none()).count()
    }

    /// Every feature the pool has enabled, by name.
    pub fn features(&self) -> Result<Vec<Feature>, ReadError> {
        let directory = self.mos.zap(OBJECT_DIRECTORY)?;
        let mut features = Vec::new();
        for (table, for_read) in [("features_for_read", true), ("features_for_write", false)] {
            let Some(table) = directory.number(table)? else { continue };
            features.extend(self.mos.zap(table)?.entries()?.iter().map(|entry| Feature {
                guid: text(&entry.name),
                references: entry.number().unwrap_or(0),
                for_read,
            }));
        }
        features.sort_by(|a, b| a.guid.cmp(&b.guid));
        Ok(features)
    }

    /// Pool properties that are set, by name; numbers stand for words as in `zpool_prop.c` of OpenZFS.
    pub fn properties(&self) -> Result<BTreeMap<String, PropertyValue>, ReadError> {
        let mut properties = BTreeMap::new();
        for name in ["comment", "compatibility"] {
            if let Some(value) = self.config.text(name) {
                properties.insert(name.to_owned(), PropertyValue::Text(value));
            }
        }
        if let Some(table) = self.mos.zap(OBJECT_DIRECTORY)?.number("pool_props")? {
            for entry in self.mos.zap(table)?.entries()? {
                let value = match (entry.number(), entry.text()) {
                    (Some(number), _) => PropertyValue::Number(number),
                    (None, Some(value)) => PropertyValue::Text(text(value)),
                    (None, None) => continue,
                };
                properties.insert(text(&entry.name), value);
            }
        }
        Ok(properties)
    }

    /// The object called `name` in the pool's object directory.
    pub(crate) fn directory_object(&self, name: &str) -> Result<Option<u64>, ReadError> {
        self.mos.zap(OBJECT_DIRECTORY)?.number(name)
    }
}

fn open_mos<'a>(blocks: &Arc<Blocks<'a>>, uberblock: &Uberblock) -> Result<ObjectSet<'a>, ReadError> {
    let root = uberblock.root().map_err(|bad| ReadError::damaged("the uberblock", bad.text()))?;
    ObjectSet::open(Arc::clone(blocks), &root)?
        .ok_or_else(|| ReadError::damaged("the uberblock", "it leads nowhere"))
}

fn read_config(mos: &ObjectSet) -> Result<NvList, ReadError> {
    let object = mos.zap(OBJECT_DIRECTORY)?.need("config")?;
    let len = u64_at(&mos.dnode(object)?.bonus, 0)
        .ok_or_else(|| ReadError::damaged("the configuration", "its length is missing"))?;
    NvList::unpack(&mos.content(object, len, MAX_CONFIG)?)
        .ok_or_else(|| ReadError::damaged("the configuration", "it is not a list of names and values"))
}

fn find_device(devices: &[Device], guid: u64) -> Option<usize> {
    devices.iter().position(|device| device.guid == guid)
}

/// Each label describes its own top-level vdev.
fn tops_of_labels(configs: &[NvList], devices: &[Device]) -> Vec<Option<Top>> {
    let mut tops = Vec::new();
    for tree in configs.iter().filter_map(|config| config.list("vdev_tree")) {
        let id = tree.number("id").and_then(|id| usize::try_from(id).ok()).filter(|id| *id < MAX_TOPS);
        let Some(id) = id else { continue };
        if tops.len() <= id {
            tops.resize(id + 1, None);
        }
        tops[id] = Top::of(tree, &|guid| find_device(devices, guid));
    }
    tops
}

fn tops_of_config(config: &NvList, devices: &[Device]) -> Vec<Option<Top>> {
    let children = config.list("vdev_tree").map(|root| root.lists("children")).unwrap_or_default();
    children.iter().map(|tree| Top::of(tree, &|guid| find_device(devices, guid))).collect()
}

//! A volume: one object set with the content of a block device and a table that says its size.

use std::collections::BTreeSet;

use crate::features::Feature;
use crate::format::dnode::{Dnode, object_type};
use crate::format::zap::Zap;
use crate::spec::Volume;
use crate::tree::{Data, ReadError};
use crate::write::error::WriteError;
use crate::write::fs::{OLD_MAX_BLOCK, Version};
use crate::write::media::Media;
use crate::write::objset::{Legacy, ObjectSet, Part};
use crate::write::pipeline::{self, Failure, Job, Settings};
use crate::write::seed::Seed;

/// `DMU_OST_ZVOL`.
const OBJSET_VOLUME: u64 = 3;
/// Objects that readers look for at these numbers.
pub(crate) const CONTENT: u64 = 1;
pub(crate) const PROPERTIES: u64 = 2;

/// A volume of which one version after the other is written.
#[derive(Clone)]
pub(crate) struct Writer<'a> {
    dataset: &'a str,
    seed: Seed,
    settings: Settings,
    features: BTreeSet<Feature>,
    legacy: Legacy,
}

impl<'a> Writer<'a> {
    pub(crate) fn new(dataset: &'a str, seed: Seed, settings: Settings) -> Writer<'a> {
        Writer { dataset, seed, settings, features: BTreeSet::new(), legacy: Legacy::default() }
    }

    /// A clone, whose next version follows the last one that was written here.
    pub(crate) fn branch(&self, dataset: &'a str, settings: Settings) -> Writer<'a> {
        Writer { dataset, settings, ..self.clone() }
    }

    /// Writes `volume`, whose sizes are checked, as the next version.
    pub(crate) fn write(
        &mut self,
        media: &mut Media,
        volume: &Volume,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Version, WriteError> {
        let mut objects = ObjectSet::following(std::mem::take(&mut self.legacy));
        for (number, dnode) in dnodes(volume) {
            if objects.next() == number {
                objects.add(dnode);
            } else {
                objects.put(number, dnode);
            }
        }
        if !volume.data.is_empty() {
            let job = Job { before: objects.before(Part::Object(CONTENT)), ..job(volume) };
            let blocks = job.blocks();
            let outcome = pipeline::write_content(media, &[job], self.settings, progress)
                .map_err(|failure| self.explain(failure, &volume.data))?;
            if outcome.used_zstd {
                self.features.insert(Feature::ZstdCompress);
            }
            for root in &outcome.roots {
                objects.set_content(CONTENT, volume.block_size as u32, blocks, root);
            }
        }
        if volume.block_size > OLD_MAX_BLOCK {
            self.features.insert(Feature::LargeBlocks);
        }
        objects.set_zap(media, PROPERTIES, &properties(volume, self.seed))?;
        let pointer = objects.write(media, OBJSET_VOLUME, &[])?;
        let (space, dead, count) = (objects.space, objects.dead(), objects.len() as u64);
        self.legacy = objects.leave();
        let (features, logical) = (self.features.clone(), volume.size);
        Ok(Version { pointer, space, dead, features, objects: count, logical })
    }

    fn explain(&self, failure: Failure, data: &Data) -> WriteError {
        match failure {
            Failure::Write(error) => error,
            Failure::Read { error, .. } => unreadable(data, error, self.dataset),
        }
    }
}

/// The objects of a volume, without content.
pub(crate) fn dnodes(volume: &Volume) -> [(u64, Dnode); 2] {
    let mut content = Dnode::new(object_type::VOLUME);
    content.block_size = volume.block_size as u32;
    [(CONTENT, content), (PROPERTIES, Dnode::new(object_type::VOLUME_PROPERTIES))]
}

/// The content of a volume.
pub(crate) fn job(volume: &Volume) -> Job<'_> {
    Job {
        object: CONTENT,
        data: &volume.data,
        len: volume.size,
        block_size: volume.block_size,
        object_type: object_type::VOLUME,
        before: None,
    }
}

/// The table about a volume; `seed` is that of its dataset.
pub(crate) fn properties(volume: &Volume, seed: Seed) -> Zap {
    let mut properties = Zap::new(seed.number("table", PROPERTIES));
    properties.add_u64("size", volume.size);
    properties
}

/// What it means for `dataset` that the content of a volume could not be read.
pub(crate) fn unreadable(data: &Data, error: ReadError, dataset: &str) -> WriteError {
    let dataset = dataset.to_owned();
    let source_path = data.source().map(|file| file.path().to_owned()).unwrap_or_default();
    // A volume has no names inside.
    let path = String::from("/");
    match error {
        ReadError::Io(source) => WriteError::ReadFile { dataset, path, source_path, source },
        ReadError::Changed => WriteError::FileChanged { dataset, path, source_path },
    }
}

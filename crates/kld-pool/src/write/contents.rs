//! The content of all datasets, each in all its versions.

use std::collections::{BTreeMap, BTreeSet};

use crate::device::Progress;
use crate::features::Feature;
use crate::format::hasher::{Algorithm, Hasher};
use crate::spec::{Content, PoolSpec};
use crate::tree::{Meta, Timestamp, Tree};
use crate::write::error::WriteError;
use crate::write::fs::{self, Layout, Version};
use crate::write::media::{Media, POOL_COPIES, Rules};
use crate::write::origins::{Origin, base, starts_as_origin, writing_order};
use crate::write::pipeline::Settings;
use crate::write::plan::Planned;
use crate::write::seed::Seed;
use crate::write::volume;

/// The salt of the pool's keyed checksums.
pub(crate) fn salt(seed: Seed) -> [u8; 32] {
    let mut salt = [0; 32];
    for (i, word) in (0..).zip(salt.chunks_exact_mut(8)) {
        word.copy_from_slice(&seed.number("checksum salt", i).to_le_bytes());
    }
    salt
}

/// What a dataset holds for which nothing is given.
pub(crate) fn empty_tree(spec: &PoolSpec) -> Tree {
    let mut empty = Tree::new();
    let created = Timestamp { sec: spec.created.cast_signed(), nsec: 0 };
    if let Some(meta) = empty.meta_mut("") {
        *meta = Meta::root(0o755, created);
    }
    empty
}

/// How the content of a dataset is stored; `seed` is that of the pool.
pub(crate) fn layout(spec: &PoolSpec, planned: &Planned, seed: Seed) -> Layout {
    let effective = planned.effective;
    let enabled = spec.properties.features();
    Layout {
        record_size: effective.record_size,
        large_dnodes: effective.large_dnodes,
        accounting: enabled.has(Feature::UserObjectAccounting) && enabled.has(Feature::ProjectQuota),
        settings: Settings {
            compression: effective.compression,
            hasher: Hasher::new(effective.checksum, salt(seed)),
            record: planned.remembers,
            ashift: spec.ashift,
            threads: match spec.threads {
                0 => std::thread::available_parallelism().map_or(1, usize::from),
                threads => threads,
            },
        },
    }
}

/// Writes the datasets of the plan, each in all its versions.
pub(crate) fn write_contents(
    spec: &PoolSpec,
    plan: &[Planned],
    seed: Seed,
    media: &mut Media,
    progress: &dyn Progress,
) -> Result<Vec<Vec<Version>>, WriteError> {
    let empty = empty_tree(spec);
    let sizes = plan.iter().flat_map(|planned| &planned.versions).map(|content| content.apparent_size());
    // Sparse files may add up to more than a number holds.
    let total = sizes.fold(0, u64::saturating_add);
    let mut done = 0u64;
    progress.bytes(done, total);
    let mut advance = |bytes| {
        done = done.saturating_add(bytes);
        progress.bytes(done, total);
    };
    // What clones go on from.
    let origins: BTreeSet<Origin> = plan.iter().filter_map(|planned| planned.origin).collect();
    let mut kept: BTreeMap<Origin, Writers> = BTreeMap::new();
    let mut contents: Vec<Vec<Version>> = vec![Vec::new(); plan.len()];
    for at in writing_order(plan) {
        let planned = &plan[at];
        let name = planned.name.as_str();
        let effective = planned.effective;
        let layout = layout(spec, planned, seed);
        let settings = layout.settings;
        let mut writers = match planned.origin.and_then(|origin| kept.get(&origin)) {
            Some(writers) => Writers {
                files: writers.files.branch(name, layout),
                volumes: writers.volumes.branch(name, settings),
            },
            None => Writers {
                files: fs::Writer::new(name, seed.part(name), layout),
                volumes: volume::Writer::new(name, seed.part(name), settings),
            },
        };
        let origin = base(plan, &contents, planned).map(|(version, _)| version.clone());
        let mut versions: Vec<Version> = Vec::new();
        // What an older one turned on stays on.
        let mut features = origin.as_ref().map(|origin| origin.features.clone()).unwrap_or_default();
        for (i, content) in planned.versions.iter().enumerate() {
            media.set_rules(Rules {
                birth: planned.birth(i),
                hasher: settings.hasher,
                content_copies: effective.copies,
                metadata_copies: (effective.copies + 1).min(POOL_COPIES),
                record: planned.remembers,
            });
            let unchanged = origin.as_ref().filter(|_| i == 0 && starts_as_origin(plan, planned));
            let mut version = match (unchanged, content) {
                (Some(origin), _) => {
                    advance(content.apparent_size());
                    Version { dead: Vec::new(), ..origin.clone() }
                }
                (None, Content::Empty) => writers.files.write(media, &empty, &mut advance)?,
                (None, Content::Files(tree)) => writers.files.write(media, tree, &mut advance)?,
                (None, Content::Volume(volume)) => writers.volumes.write(media, volume, &mut advance)?,
            };
            if unchanged.is_none() {
                features.extend(feature_of(effective.checksum));
            }
            features.append(&mut version.features);
            version.features.clone_from(&features);
            versions.push(version);
            let snapshots = (0..planned.snapshots.len()).filter(|snapshot| planned.states[*snapshot] == i);
            for origin in snapshots.map(|snapshot| Origin { dataset: at, snapshot }) {
                if origins.contains(&origin) {
                    kept.insert(origin, writers.clone());
                }
            }
        }
        contents[at] = versions;
    }
    Ok(contents)
}

/// A dataset that is being written, as it was at one time.
#[derive(Clone)]
struct Writers<'a> {
    files: fs::Writer<'a>,
    volumes: volume::Writer<'a>,
}

fn feature_of(checksum: Algorithm) -> Option<Feature> {
    match checksum {
        Algorithm::Sha512 => Some(Feature::Sha512),
        Algorithm::Blake3 => Some(Feature::Blake3),
        Algorithm::Off | Algorithm::Fletcher4 | Algorithm::Sha256 => None,
    }
}

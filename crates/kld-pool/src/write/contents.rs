//! The content of all datasets, each in all its versions.

use std::collections::BTreeSet;

use crate::device::Progress;
use crate::features::Feature;
use crate::format::hasher::{Algorithm, Hasher};
use crate::spec::{Content, PoolSpec};
use crate::tree::{Meta, Timestamp, Tree};
use crate::write::error::WriteError;
use crate::write::fs::{self, Layout, Version};
use crate::write::media::{Media, POOL_COPIES, Rules};
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

/// Writes the datasets of the plan, each in all its versions.
pub(crate) fn write_contents(
    spec: &PoolSpec,
    plan: &[Planned],
    seed: Seed,
    media: &mut Media,
    progress: &dyn Progress,
) -> Result<Vec<Vec<Version>>, WriteError> {
    let threads = match spec.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    let mut empty = Tree::new();
    let created = Timestamp { sec: spec.created.cast_signed(), nsec: 0 };
    if let Some(meta) = empty.meta_mut("") {
        *meta = Meta::root(0o755, created);
    }
    let sizes = plan.iter().flat_map(|planned| &planned.versions).map(|content| content.apparent_size());
    // Sparse files may add up to more than a number holds.
    let total = sizes.fold(0, u64::saturating_add);
    let mut done = 0u64;
    progress.bytes(done, total);
    let mut advance = |bytes| {
        done = done.saturating_add(bytes);
        progress.bytes(done, total);
    };
    let enabled = spec.properties.features();
    let accounting = enabled.has(Feature::UserObjectAccounting) && enabled.has(Feature::ProjectQuota);
    plan.iter()
        .map(|planned| {
            let name = planned.name.as_str();
            let effective = planned.effective;
            let hasher = Hasher::new(effective.checksum, salt(seed));
            let record = planned.versions.len() > 1;
            let compression = effective.compression;
            let settings = Settings { compression, hasher, record, ashift: spec.ashift, threads };
            let layout = Layout {
                record_size: effective.record_size,
                large_dnodes: effective.large_dnodes,
                accounting,
                settings,
            };
            let mut files = fs::Writer::new(name, seed.part(name), layout);
            let mut volumes = volume::Writer::new(name, seed.part(name), settings);
            let mut versions = Vec::new();
            for (i, content) in planned.versions.iter().enumerate() {
                media.set_rules(Rules {
                    birth: planned.birth(i),
                    hasher,
                    content_copies: effective.copies,
                    metadata_copies: (effective.copies + 1).min(POOL_COPIES),
                    record,
                });
                versions.push(match content {
                    Content::Empty => files.write(media, &empty, &mut advance)?,
                    Content::Files(tree) => files.write(media, tree, &mut advance)?,
                    Content::Volume(volume) => volumes.write(media, volume, &mut advance)?,
                });
            }
            // What the newer ones turned on stays on.
            let mut features = BTreeSet::new();
            for version in &mut versions {
                features.extend(feature_of(effective.checksum));
                features.append(&mut version.features);
                version.features.clone_from(&features);
            }
            Ok(versions)
        })
        .collect()
}

fn feature_of(checksum: Algorithm) -> Option<Feature> {
    match checksum {
        Algorithm::Sha512 => Some(Feature::Sha512),
        Algorithm::Blake3 => Some(Feature::Blake3),
        Algorithm::Off | Algorithm::Fletcher4 | Algorithm::Sha256 => None,
    }
}

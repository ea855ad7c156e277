//! Reference counts of features, counted again.

use std::collections::BTreeMap;

use super::walk::Walked;
use super::{FindingKind, Place, Report};
use crate::read::bytes::text;
use crate::read::error::ReadError;
use crate::read::pool::{OBJECT_DIRECTORY, Pool};
use crate::read::zap::Zap;

/// Features that each dataset or snapshot using them counts once.
const PER_DATASET: [&str; 11] = [
    "com.datto:encryption",
    "com.delphix:redacted_datasets",
    "org.freebsd:zstd_compress",
    "org.illumos:edonr",
    "org.illumos:sha512",
    "org.illumos:skein",
    "org.open-zfs:large_blocks",
    "org.openzfs:blake3",
    "org.zfsonlinux:large_dnode",
    "org.zfsonlinux:project_quota",
    "org.zfsonlinux:userobj_accounting",
];

pub(super) fn check(pool: &Pool, walked: &Walked, report: &mut Report) {
    let Some(features) = report.take(Place::dataset("$MOS"), pool.features()) else { return };
    let mut counted: BTreeMap<String, u64> = BTreeMap::new();
    for set in walked.sets.iter().filter(|set| set.object != 0) {
        if let Some(used) = report.take(Place::dataset(&set.name), features_of(pool, set.object)) {
            used.into_iter().for_each(|feature| *counted.entry(feature).or_default() += 1);
        }
    }
    let [mut with_bookmarks, mut long, mut written] = [0; 3];
    for set in walked.sets.iter().filter(|set| set.object != 0) {
        // What cannot be read was said when bookmarks were looked at.
        if let Ok(Some(bookmarks)) = pool.bookmarks_of(set.object, &set.name) {
            with_bookmarks += 1;
            long += bookmarks.iter().filter(|bookmark| bookmark.is_long).count() as u64;
            written += bookmarks.iter().filter(|bookmark| bookmark.space.is_some()).count() as u64;
        }
    }
    let said: BTreeMap<&str, u64> =
        features.iter().map(|feature| (feature.guid.as_str(), feature.references)).collect();
    let mut compare = |guid: &str, found: u64| {
        // A feature that is not enabled has no count.
        if let Some(said) = said.get(guid).copied().or((found > 0).then_some(0))
            && said != found
        {
            let problem = format!("feature `{guid}` says it is used {said} times, it is used {found} times");
            report.add(FindingKind::FeatureCount, Place::default(), problem);
        }
    };
    for guid in PER_DATASET {
        compare(guid, counted.get(guid).copied().unwrap_or(0));
    }
    compare("com.delphix:bookmarks", with_bookmarks);
    // OpenZFS counts a bookmark that moves with a promoted clone once more, and forgets none that goes with its dataset:
    // only too few uses are wrong.
    if said.get("com.datto:bookmark_v2").is_some_and(|said| *said < long) {
        compare("com.datto:bookmark_v2", long);
    }
    compare("com.delphix:bookmark_written", written);
    if walked.complete {
        compare("com.delphix:spacemap_histogram", walked.space_maps);
        compare("com.delphix:extensible_dataset", walked.zapified);
    }
    if let Ok(Some(enabled)) = enabled_features(pool) {
        compare("com.delphix:enabled_txg", enabled);
    }
}

/// The features that a dataset's own table names.
fn features_of(pool: &Pool, object: u64) -> Result<Vec<String>, ReadError> {
    const TABLE: u8 = 0xc4;
    let dnode = pool.mos.dnode(object)?;
    if dnode.object_type != TABLE {
        return Ok(Vec::new());
    }
    let entries = Zap::open(&pool.blocks, dnode, object)?.entries()?;
    Ok(entries.iter().map(|entry| text(&entry.name)).filter(|name| name.contains(':')).collect())
}

/// How many features have a transaction group in which they were enabled.
fn enabled_features(pool: &Pool) -> Result<Option<u64>, ReadError> {
    let Some(table) = pool.mos.zap(OBJECT_DIRECTORY)?.number("feature_enabled_txg")? else { return Ok(None) };
    Ok(Some(pool.mos.zap(table)?.entries()?.len() as u64))
}

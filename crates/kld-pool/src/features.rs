//! Feature flags: which on-disk extensions a pool enables, and how many objects use each.
//!
//! Every feature of the pool's `compatibility` set is enabled, as `zpool create` does, so that the machine can use what
//! its release offers (encryption, block cloning) without an upgrade first. Enabled is not used: a pool is still
//! read by every release that knows the features *in use*. Names and tables: zpool-features(7).

use std::collections::{BTreeMap, BTreeSet};

/// A release of OpenZFS, as far as features tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Release {
    V2_0,
    V2_1,
    V2_2,
    V2_3,
    V2_4,
}

impl Release {
    /// The release whose features are enabled when nobody says otherwise: the oldest that a distribution still supports.
    pub(crate) const DEFAULT: Release = Release::V2_1;
}

/// Features that a pool enables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FeatureSet {
    enabled: BTreeSet<&'static str>,
}

impl FeatureSet {
    /// Everything a release knows.
    pub(crate) fn release(release: Release) -> FeatureSet {
        let known = FEATURES.iter().filter(|(_, _, since)| *since <= release);
        FeatureSet { enabled: known.map(|(guid, ..)| *guid).collect() }
    }

    /// What the loader GRUB reads: its version 2.12 and later, or also those before.
    pub(crate) fn grub(before_2_12: bool) -> FeatureSet {
        let old = FEATURES.iter().filter(|(guid, ..)| GRUB_2_06.contains(&short_name(guid)));
        let new = FEATURES.iter().filter(|(guid, ..)| !before_2_12 && GRUB_2_12.contains(&short_name(guid)));
        FeatureSet { enabled: old.chain(new).map(|(guid, ..)| *guid).collect() }
    }

    /// What both have.
    pub(crate) fn and(self, other: &FeatureSet) -> FeatureSet {
        FeatureSet { enabled: self.enabled.intersection(&other.enabled).copied().collect() }
    }

    pub(crate) fn has(&self, feature: Feature) -> bool {
        self.enabled.contains(feature.guid())
    }

    /// Whether a feature is in use in every pool of this set, by its full name.
    pub(crate) fn always_uses(&self, guid: &str) -> bool {
        self.enabled.contains(guid) && ACTIVE_WHEN_ENABLED.contains(&guid)
    }
}

/// The feature sets `grub2-2.06` and, on top of it, `grub2-2.12` (compatibility.d of OpenZFS).
const GRUB_2_06: [&str; 14] = [
    "allocation_classes",
    "async_destroy",
    "block_cloning",
    "device_rebuild",
    "embedded_data",
    "empty_bpobj",
    "enabled_txg",
    "hole_birth",
    "log_spacemap",
    "lz4_compress",
    "resilver_defer",
    "spacemap_histogram",
    "spacemap_v2",
    "zpool_checkpoint",
];
const GRUB_2_12: [&str; 8] = [
    "bookmarks",
    "extensible_dataset",
    "filesystem_limits",
    "large_blocks",
    "livelist",
    "project_quota",
    "userobj_accounting",
    "zilsaxattr",
];

/// Who must know a feature that is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NeededTo {
    Read,
    Write,
}

use NeededTo::{Read, Write};

/// Every feature: its name, who must know it, and the release that brought it (2.0 for all earlier ones).
const FEATURES: &[(&str, NeededTo, Release)] = &[
    ("com.datto:bookmark_v2", Read, Release::V2_0),
    ("com.datto:encryption", Read, Release::V2_0),
    ("com.datto:resilver_defer", Write, Release::V2_0),
    ("com.delphix:async_destroy", Write, Release::V2_0),
    ("com.delphix:bookmark_written", Read, Release::V2_0),
    ("com.delphix:bookmarks", Write, Release::V2_0),
    ("com.delphix:device_removal", Read, Release::V2_0),
    ("com.delphix:embedded_data", Read, Release::V2_0),
    ("com.delphix:empty_bpobj", Write, Release::V2_0),
    (ENABLED_TXG, Write, Release::V2_0),
    (EXTENSIBLE_DATASET, Read, Release::V2_0),
    ("com.delphix:head_errlog", Read, Release::V2_2),
    ("com.delphix:hole_birth", Read, Release::V2_0),
    ("com.delphix:livelist", Write, Release::V2_0),
    ("com.delphix:log_spacemap", Write, Release::V2_0),
    ("com.delphix:obsolete_counts", Write, Release::V2_0),
    ("com.delphix:redacted_datasets", Read, Release::V2_0),
    ("com.delphix:redaction_bookmarks", Read, Release::V2_0),
    ("com.delphix:redaction_list_spill", Read, Release::V2_3),
    (SPACEMAP_HISTOGRAM, Write, Release::V2_0),
    ("com.delphix:spacemap_v2", Write, Release::V2_0),
    ("com.delphix:zpool_checkpoint", Write, Release::V2_0),
    ("com.fudosecurity:block_cloning", Write, Release::V2_2),
    ("com.joyent:filesystem_limits", Write, Release::V2_0),
    ("com.joyent:multi_vdev_crash_dump", Read, Release::V2_0),
    ("com.klarasystems:dynamic_gang_header", Read, Release::V2_4),
    ("com.klarasystems:fast_dedup", Write, Release::V2_3),
    ("com.klarasystems:large_microzap", Write, Release::V2_3),
    ("com.klarasystems:vdev_zaps_v2", Read, Release::V2_2),
    ("com.truenas:block_cloning_endian", Write, Release::V2_4),
    ("com.truenas:physical_rewrite", Write, Release::V2_4),
    ("org.freebsd:zstd_compress", Read, Release::V2_0),
    ("org.illumos:edonr", Read, Release::V2_0),
    ("org.illumos:lz4_compress", Read, Release::V2_0),
    ("org.illumos:sha512", Read, Release::V2_0),
    ("org.illumos:skein", Read, Release::V2_0),
    ("org.open-zfs:large_blocks", Read, Release::V2_0),
    ("org.openzfs:blake3", Read, Release::V2_2),
    ("org.openzfs:device_rebuild", Write, Release::V2_0),
    ("org.openzfs:draid", Read, Release::V2_1),
    ("org.openzfs:raidz_expansion", Read, Release::V2_3),
    ("org.openzfs:zilsaxattr", Write, Release::V2_2),
    ("org.zfsonlinux:allocation_classes", Write, Release::V2_0),
    ("org.zfsonlinux:large_dnode", Read, Release::V2_0),
    ("org.zfsonlinux:longname", Read, Release::V2_3),
    ("org.zfsonlinux:project_quota", Write, Release::V2_0),
    ("org.zfsonlinux:userobj_accounting", Write, Release::V2_0),
];

const ENABLED_TXG: &str = "com.delphix:enabled_txg";
const EXTENSIBLE_DATASET: &str = "com.delphix:extensible_dataset";
const SPACEMAP_HISTOGRAM: &str = "com.delphix:spacemap_histogram";

/// In use, once, as soon as they are enabled.
const ACTIVE_WHEN_ENABLED: [&str; 5] = [
    "com.delphix:embedded_data",
    "com.delphix:head_errlog",
    "com.delphix:hole_birth",
    "com.delphix:spacemap_v2",
    "org.illumos:lz4_compress",
];

/// Features whose use is counted: those of content per dataset and per snapshot, bookmarks per dataset that has some, what
/// is in a bookmark per bookmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Feature {
    Bookmarks,
    BookmarkV2,
    BookmarkWritten,
    LargeBlocks,
    LargeDnode,
    ZstdCompress,
    Sha512,
    Blake3,
    UserObjectAccounting,
    ProjectQuota,
}

impl Feature {
    pub(crate) fn guid(self) -> &'static str {
        match self {
            Feature::Bookmarks => "com.delphix:bookmarks",
            Feature::BookmarkV2 => "com.datto:bookmark_v2",
            Feature::BookmarkWritten => "com.delphix:bookmark_written",
            Feature::LargeBlocks => "org.open-zfs:large_blocks",
            Feature::LargeDnode => "org.zfsonlinux:large_dnode",
            Feature::ZstdCompress => "org.freebsd:zstd_compress",
            Feature::Sha512 => "org.illumos:sha512",
            Feature::Blake3 => "org.openzfs:blake3",
            Feature::UserObjectAccounting => "org.zfsonlinux:userobj_accounting",
            Feature::ProjectQuota => "org.zfsonlinux:project_quota",
        }
    }
}

/// How often each feature is used.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    /// By name.
    counts: BTreeMap<&'static str, u64>,
}

impl Usage {
    /// Counts one dataset or snapshot that uses `features`.
    pub(crate) fn add(&mut self, features: impl IntoIterator<Item = Feature>) {
        let mut any = false;
        for feature in features {
            self.count(feature);
            any = true;
        }
        // Its object carries a table of features, which is a use of its own.
        *self.counts.entry(EXTENSIBLE_DATASET).or_default() += u64::from(any);
    }

    /// Counts one use.
    pub(crate) fn count(&mut self, feature: Feature) {
        *self.counts.entry(feature.guid()).or_default() += 1;
    }

    /// Features a reader must know, with their reference counts.
    pub(crate) fn for_read(&self, set: &FeatureSet) -> Vec<(&'static str, u64)> {
        self.counted(Read, set, 0)
    }

    /// Features only a writer must know, with their reference counts.
    pub(crate) fn for_write(&self, set: &FeatureSet, space_maps: u64) -> Vec<(&'static str, u64)> {
        self.counted(Write, set, space_maps)
    }

    fn counted(&self, table: NeededTo, set: &FeatureSet, space_maps: u64) -> Vec<(&'static str, u64)> {
        let enabled = || FEATURES.iter().filter(|(guid, ..)| set.enabled.contains(guid));
        let count = |guid: &'static str| match guid {
            // This one counts the features that are enabled, itself included.
            ENABLED_TXG => enabled().count() as u64,
            SPACEMAP_HISTOGRAM => space_maps,
            _ if ACTIVE_WHEN_ENABLED.contains(&guid) => 1,
            _ => self.counts.get(guid).copied().unwrap_or(0),
        };
        let of_table = enabled().filter(|(_, needed_to, _)| *needed_to == table);
        of_table.map(|(guid, ..)| (*guid, count(guid))).collect()
    }
}

/// Features that a label must name because a reader needs them to read even the pool's own metadata.
pub(crate) const FOR_LABEL: [&str; 2] = ["com.delphix:hole_birth", "com.delphix:embedded_data"];

/// What a feature is called in its description: the part of its name after the colon.
pub(crate) fn short_name(guid: &str) -> &str {
    guid.split_once(':').map_or(guid, |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_and_complete() {
        assert!(FEATURES.is_sorted_by_key(|(guid, ..)| *guid), "each once, easy to find");
        // Counted in OpenZFS' own lists, compatibility.d/openzfs-2.0-linux and on.
        for (release, count) in [
            (Release::V2_0, 33),
            (Release::V2_1, 34),
            (Release::V2_2, 39),
            (Release::V2_3, 44),
            (Release::V2_4, 47),
        ] {
            let usage = Usage::default();
            let set = FeatureSet::release(release);
            let enabled = usage.for_read(&set).len() + usage.for_write(&set, 0).len();
            assert_eq!(enabled, count, "{release:?}");
        }
        assert_eq!(FeatureSet::grub(true).enabled.len(), GRUB_2_06.len());
        assert_eq!(FeatureSet::grub(false).enabled.len(), GRUB_2_06.len() + GRUB_2_12.len());
        for name in ACTIVE_WHEN_ENABLED.into_iter().chain(FOR_LABEL) {
            assert!(FEATURES.iter().any(|(guid, ..)| *guid == name), "{name}");
        }
    }

    /// The README's table of features has all of them, each in the row that is true.
    #[test]
    fn the_readme_has_every_feature() {
        let readme = include_str!("../README.md");
        let row = |start: &str| -> BTreeSet<&str> {
            let line = readme.lines().find(|line| line.starts_with(&format!("| {start}"))).unwrap();
            line.split('`').skip(1).step_by(2).collect()
        };
        let rows = ["in use from the start", "in use where", "enabled, for the machine"].map(row);
        let always =
            ACTIVE_WHEN_ENABLED.into_iter().chain([ENABLED_TXG, EXTENSIBLE_DATASET, SPACEMAP_HISTOGRAM]);
        assert_eq!(rows[0], always.map(short_name).collect());
        let counted = [
            Feature::Bookmarks,
            Feature::BookmarkV2,
            Feature::BookmarkWritten,
            Feature::LargeBlocks,
            Feature::LargeDnode,
            Feature::ZstdCompress,
            Feature::Sha512,
            Feature::Blake3,
            Feature::UserObjectAccounting,
            Feature::ProjectQuota,
        ];
        assert_eq!(rows[1], counted.map(|feature| short_name(feature.guid())).into());
        let rest = FEATURES.iter().map(|(guid, ..)| short_name(guid));
        assert_eq!(rows[2], rest.filter(|name| !rows[0].contains(name) && !rows[1].contains(name)).collect());
    }

    #[test]
    fn what_is_used_is_counted() {
        let mut usage = Usage::default();
        usage.add([Feature::LargeDnode, Feature::ProjectQuota]);
        usage.add([Feature::LargeDnode]);
        usage.add([]);
        let set = FeatureSet::release(Release::V2_1);
        let read: BTreeMap<_, _> = usage.for_read(&set).into_iter().collect();
        assert_eq!((read[Feature::LargeDnode.guid()], read[EXTENSIBLE_DATASET]), (2, 2));
        assert_eq!((read["org.illumos:lz4_compress"], read["com.datto:encryption"]), (1, 0));
        let write: BTreeMap<_, _> = usage.for_write(&set, 7).into_iter().collect();
        assert_eq!(
            (write[Feature::ProjectQuota.guid()], write[SPACEMAP_HISTOGRAM], write[ENABLED_TXG]),
            (1, 7, 34)
        );
    }
}

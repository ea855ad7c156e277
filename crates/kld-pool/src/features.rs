//! Feature flags: which on-disk extensions the pool enables, and how many objects use each.
//!
//! Only features that OpenZFS 2.0 and later know are enabled, so that the pool imports there; `zpool upgrade` enables the
//! rest.

use std::collections::BTreeMap;

/// Features whose use is counted per dataset and per snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Feature {
    LargeBlocks,
    LargeDnode,
    ZstdCompress,
    UserObjectAccounting,
    ProjectQuota,
}

impl Feature {
    pub(crate) fn guid(self) -> &'static str {
        match self {
            Feature::LargeBlocks => "org.open-zfs:large_blocks",
            Feature::LargeDnode => "org.zfsonlinux:large_dnode",
            Feature::ZstdCompress => "org.freebsd:zstd_compress",
            Feature::UserObjectAccounting => "org.zfsonlinux:userobj_accounting",
            Feature::ProjectQuota => "org.zfsonlinux:project_quota",
        }
    }
}

/// How often each feature is used.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    counts: BTreeMap<Feature, u64>,
    /// Objects that carry a table of features.
    zapified: u64,
}

impl Usage {
    /// Counts one dataset or snapshot that uses `features`.
    pub(crate) fn add(&mut self, features: impl IntoIterator<Item = Feature>) {
        let mut any = false;
        for feature in features {
            *self.counts.entry(feature).or_default() += 1;
            any = true;
        }
        self.zapified += u64::from(any);
    }

    fn count(&self, feature: Feature) -> u64 {
        self.counts.get(&feature).copied().unwrap_or(0)
    }

    /// Features a reader must know, with their reference counts.
    pub(crate) fn for_read(&self) -> Vec<(&'static str, u64)> {
        vec![
            ("com.delphix:hole_birth", 1),
            ("com.delphix:embedded_data", 1),
            ("org.illumos:lz4_compress", 1),
            ("com.delphix:extensible_dataset", self.zapified),
            (Feature::LargeBlocks.guid(), self.count(Feature::LargeBlocks)),
            (Feature::LargeDnode.guid(), self.count(Feature::LargeDnode)),
            (Feature::ZstdCompress.guid(), self.count(Feature::ZstdCompress)),
        ]
    }

    /// Features only a writer must know, with their reference counts.
    pub(crate) fn for_write(&self, space_maps: u64) -> Vec<(&'static str, u64)> {
        const ENABLED_TXG: &str = "com.delphix:enabled_txg";
        let mut features = vec![
            ("com.delphix:async_destroy", 0),
            ("com.delphix:empty_bpobj", 0),
            ("com.delphix:spacemap_histogram", space_maps),
            ("com.delphix:spacemap_v2", 1),
            ("com.delphix:bookmarks", 0),
            ("com.joyent:filesystem_limits", 0),
            (Feature::UserObjectAccounting.guid(), self.count(Feature::UserObjectAccounting)),
            (Feature::ProjectQuota.guid(), self.count(Feature::ProjectQuota)),
            (ENABLED_TXG, 0),
        ];
        // This one counts the features that are enabled.
        let enabled = (features.len() + self.for_read().len()) as u64;
        if let Some(last) = features.last_mut() {
            last.1 = enabled;
        }
        features
    }
}

/// Features that a label must name because a reader needs them to read even the pool's own metadata.
pub(crate) const FOR_LABEL: [&str; 2] = ["com.delphix:hole_birth", "com.delphix:embedded_data"];

/// What a feature is called in its description: the part of its name after the colon.
pub(crate) fn short_name(guid: &str) -> &str {
    guid.split_once(':').map_or(guid, |(_, name)| name)
}

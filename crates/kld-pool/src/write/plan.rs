//! The datasets of a pool in the order they are written: parents before children, missing ones made up.

use std::collections::{BTreeMap, BTreeSet};

use crate::features::{Feature, FeatureSet, short_name};
use crate::format::hasher::Algorithm;
use crate::name::{DatasetName, check_bookmark, check_hold, check_snapshot};
use crate::properties::{Effective, Properties};
use crate::spec::{Content, DatasetSpec, PoolSpec, SnapshotSpec};
use crate::write::error::WriteError;
use crate::write::origins::{self, Origin};
use crate::write::txg;

/// A dataset to be written.
#[derive(Debug)]
pub(crate) struct Planned<'a> {
    pub(crate) name: DatasetName,
    /// Index of its parent in the plan; none for the root of the pool.
    pub(crate) parent: Option<usize>,
    /// None when nothing is set.
    pub(crate) properties: Option<&'a Properties>,
    pub(crate) effective: Effective,
    /// The snapshot it is a clone of.
    pub(crate) origin: Option<Origin>,
    /// Its snapshots, oldest first.
    pub(crate) snapshots: &'a [SnapshotSpec],
    /// Its bookmarks: name, and place in `snapshots`.
    pub(crate) bookmarks: Vec<(&'a str, usize)>,
    /// What is different among its snapshots and its head, oldest first.
    pub(crate) versions: Vec<&'a Content>,
    /// For each snapshot and last the head, its place in `versions`.
    pub(crate) states: Vec<usize>,
    /// Transaction group of its oldest state.
    pub(crate) first_txg: u64,
    /// Whether blocks must be remembered: a later version, of the dataset or of a clone, shares them.
    pub(crate) remembers: bool,
}

impl Planned<'_> {
    /// The transaction group of a snapshot, or behind the last of them of what the head holds.
    pub(crate) fn state_txg(&self, state: usize) -> u64 {
        self.first_txg + state as u64
    }

    /// The transaction group that made the dataset.
    pub(crate) fn created_txg(&self) -> u64 {
        self.first_txg - txg::CREATED_BEFORE
    }

    /// The transaction group a version is born in: when the first that holds it was taken.
    pub(crate) fn birth(&self, version: usize) -> u64 {
        self.state_txg(self.states.iter().position(|state| *state == version).unwrap_or(0))
    }

    pub(crate) fn is_volume(&self) -> bool {
        self.versions.iter().any(|version| matches!(version, Content::Volume(_)))
    }

    /// A limit or reservation set on the dataset.
    pub(crate) fn bytes(&self, property: &str) -> Option<u64> {
        self.properties.and_then(|properties| properties.bytes(property))
    }
}

/// Orders and checks the datasets of `spec`. The root of the pool comes first.
pub(crate) fn plan(spec: &PoolSpec) -> Result<Vec<Planned<'_>>, WriteError> {
    let mut given = BTreeMap::new();
    let mut names = BTreeSet::from([spec.name.root_dataset()]);
    for dataset in &spec.datasets {
        if dataset.name.pool() != spec.name.as_str() {
            let (dataset, pool) = (dataset.name.to_string(), spec.name.to_string());
            return Err(WriteError::ForeignDataset { dataset, pool });
        }
        if given.insert(&dataset.name, dataset).is_some() {
            return Err(WriteError::Duplicate(dataset.name.to_string()));
        }
        check_names(dataset)?;
        let mut name = Some(dataset.name.clone());
        while let Some(present) = name {
            name = present.parent();
            names.insert(present);
        }
    }
    // Byte order of names puts a parent, which is a prefix, before its children.
    let mut planned: Vec<Planned> = Vec::with_capacity(names.len());
    let mut index = BTreeMap::new();
    for name in names {
        let parent: Option<usize> = name.parent().and_then(|parent| index.get(&parent).copied());
        let dataset = given.get(&name);
        let inherited = parent.map_or_else(Effective::default, |parent| planned[parent].effective);
        let properties = dataset.map(|dataset| &dataset.properties);
        index.insert(name.clone(), planned.len());
        let (versions, states) =
            dataset.map_or((vec![&Content::Empty], vec![0]), |dataset| states(dataset, None));
        planned.push(Planned {
            name,
            parent,
            properties,
            effective: properties.map_or(inherited, |properties| inherited.with(properties)),
            origin: None,
            snapshots: dataset.map_or(&[], |dataset| &dataset.snapshots),
            bookmarks: dataset.map_or(Ok(Vec::new()), |dataset| bookmarks(dataset))?,
            versions,
            states,
            first_txg: txg::BIRTH,
            remembers: false,
        });
    }
    origins::resolve(&mut planned, &given)?;
    for dataset in &planned {
        if dataset.parent.is_some_and(|parent| planned[parent].is_volume()) {
            return Err(WriteError::BelowVolume(dataset.name.to_string()));
        }
        check(dataset, origins::content(&planned, dataset), &spec.properties.features())?;
    }
    if let Some(bootfs) = &spec.bootfs
        && !index.contains_key(bootfs)
    {
        return Err(WriteError::NoBootfs(bootfs.to_string()));
    }
    Ok(planned)
}

/// Fails when snapshots, holds or bookmarks have impossible names.
fn check_names(dataset: &DatasetSpec) -> Result<(), WriteError> {
    let name = &dataset.name;
    let mut seen = BTreeSet::new();
    let mut add = |name: String| match seen.replace(name) {
        Some(name) => Err(WriteError::Duplicate(name)),
        None => Ok(()),
    };
    for snapshot in &dataset.snapshots {
        check_snapshot(name, &snapshot.name)?;
        add(format!("{name}@{}", snapshot.name))?;
        for tag in &snapshot.holds {
            check_hold(tag)?;
            // No other name has a blank in front of an `@`.
            add(format!("{tag} @{}", snapshot.name))?;
        }
    }
    for bookmark in &dataset.bookmarks {
        check_bookmark(name, &bookmark.name)?;
        add(format!("{name}#{}", bookmark.name))?;
    }
    Ok(())
}

/// The bookmarks of a dataset with the places of their snapshots.
fn bookmarks(dataset: &DatasetSpec) -> Result<Vec<(&str, usize)>, WriteError> {
    let place = |name: &str| dataset.snapshots.iter().position(|snapshot| snapshot.name == name);
    let found = dataset.bookmarks.iter().map(|bookmark| {
        let snapshot = place(&bookmark.snapshot).ok_or_else(|| WriteError::NoSnapshot {
            what: format!("{}#{}", dataset.name, bookmark.name),
            snapshot: format!("{}@{}", dataset.name, bookmark.snapshot),
        })?;
        Ok((bookmark.name.as_str(), snapshot))
    });
    found.collect()
}

/// The distinct contents of a dataset, oldest first, and which of them each snapshot and the head has. A clone for which
/// nothing is given has what its origin holds.
pub(crate) fn states<'a>(
    dataset: &'a DatasetSpec,
    origin: Option<&'a Content>,
) -> (Vec<&'a Content>, Vec<usize>) {
    let given = |content: &'a Content| match (content, origin) {
        (Content::Empty, Some(origin)) => origin,
        _ => content,
    };
    let mut newer = given(&dataset.content);
    let mut contents = vec![newer];
    for snapshot in dataset.snapshots.iter().rev() {
        newer = snapshot.content.as_ref().map_or(newer, given);
        contents.push(newer);
    }
    let mut versions: Vec<&Content> = Vec::new();
    let mut states = Vec::new();
    for content in contents.into_iter().rev() {
        if versions.last().is_none_or(|last| !std::ptr::eq(*last, content)) {
            versions.push(content);
        }
        states.push(versions.len() - 1);
    }
    (versions, states)
}

/// Fails when a dataset is not possible by itself, with its origin or with the features of the pool.
fn check(dataset: &Planned, origin: Option<&Content>, features: &FeatureSet) -> Result<(), WriteError> {
    const OLD_MAX_BLOCK: u64 = 128 << 10;
    let name = || dataset.name.to_string();
    let contents = || origin.into_iter().chain(dataset.versions.iter().copied());
    let volumes = contents().filter_map(|version| match version {
        Content::Volume(volume) => Some(volume),
        Content::Empty | Content::Files(_) => None,
    });
    let mut block_sizes = Vec::new();
    for volume in volumes {
        const RANGE: std::ops::RangeInclusive<u64> = 512..=16 << 20;
        let fits = volume.block_size.is_power_of_two() && RANGE.contains(&volume.block_size);
        let first = *block_sizes.first().unwrap_or(&volume.block_size);
        if !fits
            || volume.size == 0
            || !volume.size.is_multiple_of(volume.block_size)
            || volume.data.len() > volume.size
            || volume.block_size != first
        {
            return Err(WriteError::BadVolume { dataset: name() });
        }
        block_sizes.push(volume.block_size);
    }
    if !block_sizes.is_empty() && block_sizes.len() < contents().count() {
        return Err(WriteError::BadVolume { dataset: name() });
    }
    if dataset.is_volume() {
        const FILES_ONLY: [&str; 26] = [
            "aclinherit",
            "aclmode",
            "acltype",
            "atime",
            "canmount",
            "casesensitivity",
            "devices",
            "direct",
            "dnodesize",
            "exec",
            "longname",
            "mountpoint",
            "nbmand",
            "normalization",
            "overlay",
            "quota",
            "recordsize",
            "refquota",
            "relatime",
            "setuid",
            "sharenfs",
            "sharesmb",
            "snapdir",
            "utf8only",
            "vscan",
            "xattr",
        ];
        let set = FILES_ONLY
            .into_iter()
            .find(|property| dataset.properties.is_some_and(|properties| properties.get(property).is_some()));
        if let Some(property) = set {
            return Err(WriteError::NotForVolumes { dataset: name(), property });
        }
    } else if dataset.properties.is_some_and(|properties| properties.get("volthreading").is_some()) {
        return Err(WriteError::OnlyForVolumes { dataset: name(), property: "volthreading" });
    }
    let Effective { record_size, compression, large_dnodes, checksum, .. } = dataset.effective;
    let block_size = block_sizes.into_iter().max();
    for (is_needed, property, feature) in [
        (compression.zstd_level().is_some(), "compression", Feature::ZstdCompress),
        (checksum == Algorithm::Sha512, "checksum", Feature::Sha512),
        (checksum == Algorithm::Blake3, "checksum", Feature::Blake3),
        (block_size.is_none() && record_size > OLD_MAX_BLOCK, "recordsize", Feature::LargeBlocks),
        (block_size.is_some_and(|size| size > OLD_MAX_BLOCK), "volblocksize", Feature::LargeBlocks),
        (block_size.is_none() && large_dnodes, "dnodesize", Feature::LargeDnode),
        (!dataset.bookmarks.is_empty(), "bookmarks", Feature::Bookmarks),
    ] {
        if is_needed && !features.has(feature) {
            return Err(WriteError::FeatureDisabled {
                dataset: name(),
                property,
                feature: short_name(feature.guid()),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Compression;
    use crate::spec::BookmarkSpec;

    fn spec(names: &[&str]) -> PoolSpec {
        let mut spec = PoolSpec::new("p".parse().unwrap(), 1 << 30, [0; 32]);
        spec.datasets = names.iter().map(|name| DatasetSpec::new(name.parse().unwrap())).collect();
        spec
    }

    #[test]
    fn parents_are_made_and_come_first() {
        let mut spec = spec(&["p/a/b/c", "p/a-b", "p/a"]);
        spec.datasets[2].properties.set("compression", "zstd-7").unwrap();
        let planned = plan(&spec).unwrap();
        let names: Vec<_> = planned.iter().map(|dataset| (dataset.name.as_str(), dataset.parent)).collect();
        assert_eq!(
            names,
            [("p", None), ("p/a", Some(0)), ("p/a-b", Some(0)), ("p/a/b", Some(1)), ("p/a/b/c", Some(3))]
        );
        assert_eq!(planned[4].effective.compression, Compression::Zstd(7));
        assert_eq!(planned[2].effective.compression, Compression::Lz4);
    }

    #[test]
    fn what_cannot_be_is_said() {
        let error = |spec: &PoolSpec| plan(spec).unwrap_err().to_string();
        assert_eq!(error(&spec(&["q/a"])), "dataset `q/a` is not in pool `p`");
        assert_eq!(error(&spec(&["p/a", "p/a"])), "`p/a` is given twice");
        let mut snapshots = spec(&["p/a"]);
        snapshots.datasets[0].snapshots = vec!["x".into(), "x".into()];
        assert_eq!(error(&snapshots), "`p/a@x` is given twice");
        let mut bootfs = spec(&["p/a"]);
        bootfs.bootfs = Some("p/b".parse().unwrap());
        assert_eq!(error(&bootfs), "the dataset to boot from, `p/b`, is not given");
        let mut marked = spec(&["p/a"]);
        marked.datasets[0].bookmarks = vec![BookmarkSpec { name: "m".to_owned(), snapshot: "s".to_owned() }];
        assert_eq!(error(&marked), "`p/a#m` needs the snapshot `p/a@s`, which is not given");
        marked.datasets[0].snapshots = vec!["s".into()];
        assert!(plan(&marked).is_ok());
        marked.properties.set("compatibility", "grub2-2.06").unwrap();
        assert_eq!(
            error(&marked),
            "`bookmarks` of `p/a` needs feature `bookmarks`, which is not in the pool's `compatibility`"
        );
        let mut held = spec(&["p/a"]);
        held.datasets[0].snapshots = vec!["s".into()];
        held.datasets[0].snapshots[0].holds = vec!["x".to_owned(), "x".to_owned()];
        assert_eq!(error(&held), "`x @s` is given twice");
    }
}

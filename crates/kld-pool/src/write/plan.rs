//! The datasets of a pool in the order they are written: parents before children, missing ones made up.

use std::collections::{BTreeMap, BTreeSet};

use crate::features::{Feature, FeatureSet, short_name};
use crate::format::hasher::Algorithm;
use crate::name::{DatasetName, check_snapshot};
use crate::properties::{Effective, Properties};
use crate::spec::{Content, DatasetSpec, PoolSpec};
use crate::write::error::WriteError;
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
    /// Names of its snapshots, oldest first.
    pub(crate) snapshots: Vec<&'a str>,
    /// What is different among its snapshots and its head, oldest first.
    pub(crate) versions: Vec<&'a Content>,
    /// For each snapshot and last the head, its place in `versions`.
    pub(crate) states: Vec<usize>,
}

impl Planned<'_> {
    /// The transaction group a version is born in: when the first that holds it was taken.
    pub(crate) fn birth(&self, version: usize) -> u64 {
        txg::snapshot(self.states.iter().position(|state| *state == version).unwrap_or(0))
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
        let mut seen = BTreeSet::new();
        for snapshot in &dataset.snapshots {
            check_snapshot(&dataset.name, &snapshot.name)?;
            if !seen.insert(&snapshot.name) {
                return Err(WriteError::Duplicate(format!("{}@{}", dataset.name, snapshot.name)));
            }
        }
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
        let (versions, states) = dataset.map_or((vec![&Content::Empty], vec![0]), |dataset| states(dataset));
        if let Some(parent) = parent
            && planned[parent].is_volume()
        {
            return Err(WriteError::BelowVolume(name.to_string()));
        }
        planned.push(Planned {
            name,
            parent,
            properties,
            effective: properties.map_or(inherited, |properties| inherited.with(properties)),
            snapshots: dataset.map_or(Vec::new(), |dataset| {
                dataset.snapshots.iter().map(|one| one.name.as_str()).collect()
            }),
            versions,
            states,
        });
    }
    planned.iter().try_for_each(|dataset| check(dataset, &spec.properties.features()))?;
    if let Some(bootfs) = &spec.bootfs
        && !index.contains_key(bootfs)
    {
        return Err(WriteError::NoBootfs(bootfs.to_string()));
    }
    Ok(planned)
}

/// The distinct contents of a dataset, oldest first, and which of them each snapshot and the head has.
fn states(dataset: &DatasetSpec) -> (Vec<&Content>, Vec<usize>) {
    let mut newer = &dataset.content;
    let mut contents = vec![newer];
    for snapshot in dataset.snapshots.iter().rev() {
        newer = snapshot.content.as_ref().unwrap_or(newer);
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

/// Fails when a dataset is not possible by itself, or not with the features of the pool.
fn check(dataset: &Planned, features: &FeatureSet) -> Result<(), WriteError> {
    const OLD_MAX_BLOCK: u64 = 128 << 10;
    let name = || dataset.name.to_string();
    let volumes = dataset.versions.iter().filter_map(|version| match version {
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
    if !block_sizes.is_empty() && block_sizes.len() < dataset.versions.len() {
        return Err(WriteError::BadVolume { dataset: name() });
    }
    if dataset.is_volume() {
        const FILES_ONLY: [&str; 15] = [
            "acltype",
            "atime",
            "canmount",
            "devices",
            "dnodesize",
            "exec",
            "mountpoint",
            "overlay",
            "quota",
            "recordsize",
            "refquota",
            "relatime",
            "setuid",
            "snapdir",
            "xattr",
        ];
        let set = FILES_ONLY
            .into_iter()
            .find(|property| dataset.properties.is_some_and(|properties| properties.get(property).is_some()));
        if let Some(property) = set {
            return Err(WriteError::NotForVolumes { dataset: name(), property });
        }
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
    }
}

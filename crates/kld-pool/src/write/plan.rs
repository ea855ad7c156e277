//! The datasets of a pool in the order they are written: parents before children, missing ones made up.

use std::collections::{BTreeMap, BTreeSet};

use crate::name::{DatasetName, check_snapshot};
use crate::properties::{Effective, Properties};
use crate::spec::PoolSpec;
use crate::tree::Tree;
use crate::write::error::WriteError;

/// A dataset to be written.
#[derive(Debug)]
pub(crate) struct Planned<'a> {
    pub(crate) name: DatasetName,
    /// Index of its parent in the plan; none for the root of the pool.
    pub(crate) parent: Option<usize>,
    /// None when nothing is set.
    pub(crate) properties: Option<&'a Properties>,
    pub(crate) effective: Effective,
    pub(crate) tree: Option<&'a Tree>,
    pub(crate) snapshots: &'a [String],
}

impl Planned<'_> {
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
            check_snapshot(&dataset.name, snapshot)?;
            if !seen.insert(snapshot) {
                return Err(WriteError::Duplicate(format!("{}@{snapshot}", dataset.name)));
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
        planned.push(Planned {
            name,
            parent,
            properties,
            effective: properties.map_or(inherited, |properties| inherited.with(properties)),
            tree: dataset.and_then(|dataset| dataset.tree.as_ref()),
            snapshots: dataset.map_or(&[], |dataset| &dataset.snapshots),
        });
    }
    if let Some(bootfs) = &spec.bootfs
        && !index.contains_key(bootfs)
    {
        return Err(WriteError::NoBootfs(bootfs.to_string()));
    }
    Ok(planned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Compression;
    use crate::spec::DatasetSpec;

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

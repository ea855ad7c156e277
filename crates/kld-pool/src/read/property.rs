//! Dataset properties with where they come from.

use std::collections::BTreeMap;

use super::bytes::text;
use super::dataset::{Dataset, DatasetKind, Dir};
use super::error::ReadError;
use super::pool::{Pool, PropertyValue};
use super::zap::Entry;

/// Properties that a child does not take from its parent (`zfs_prop.c` of OpenZFS).
const NOT_INHERITED: &[&str] = &[
    "canmount",
    "casesensitivity",
    "filesystem_count",
    "filesystem_limit",
    "normalization",
    "quota",
    "refquota",
    "refreservation",
    "reservation",
    "snapshot_count",
    "snapshot_limit",
    "utf8only",
    "version",
    "volsize",
    "volblocksize",
];

/// A property that is not at its default.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Property {
    /// Its value; numbers stand for words as in `zfs_prop.c` of OpenZFS.
    pub value: PropertyValue,
    /// Where it comes from.
    pub source: PropertySource,
}

/// Where the value of a property comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PropertySource {
    /// Set on the dataset.
    Local,
    /// Set by a receive.
    Received,
    /// Taken from the named ancestor.
    Inherited(String),
}

/// What one table says about a property.
#[derive(Default)]
struct Setting {
    local: Option<PropertyValue>,
    received: Option<PropertyValue>,
    /// Inherited on purpose although a value was received.
    inherits: bool,
}

impl Pool<'_> {
    /// The properties of a dataset or snapshot, by name; those at their default are left out.
    pub fn dataset_properties(&self, dataset: &Dataset) -> Result<BTreeMap<String, Property>, ReadError> {
        let mut properties = BTreeMap::new();
        let dirs = self.dirs()?;
        let base = dataset.name.split('@').next().unwrap_or_default();
        // The root first, the dataset itself last: the nearest one wins.
        let mut path: Vec<&Dir> = dirs
            .iter()
            .filter(|dir| {
                base.strip_prefix(&dir.name).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            })
            .collect();
        path.sort_by_key(|dir| dir.name.len());
        for dir in path {
            let own = dir.name == base && dataset.kind != DatasetKind::Snapshot;
            self.apply(&mut properties, dir.phys.properties, own, &dir.name)?;
        }
        if dataset.kind == DatasetKind::Snapshot {
            self.apply(&mut properties, dataset.phys.properties, true, &dataset.name)?;
        }
        Ok(properties)
    }

    fn apply(
        &self,
        properties: &mut BTreeMap<String, Property>,
        table: u64,
        own: bool,
        from: &str,
    ) -> Result<(), ReadError> {
        if table == 0 {
            return Ok(());
        }
        for (name, setting) in settings(self.mos.zap(table)?.entries()?) {
            if !own && NOT_INHERITED.contains(&name.as_str()) {
                continue;
            }
            let (value, source) = match setting {
                Setting { local: Some(value), .. } => (value, PropertySource::Local),
                Setting { received: Some(value), inherits: false, .. } => (value, PropertySource::Received),
                _ => continue,
            };
            let source = if own { source } else { PropertySource::Inherited(from.to_owned()) };
            properties.insert(name, Property { value, source });
        }
        Ok(())
    }
}

fn settings(entries: Vec<Entry>) -> BTreeMap<String, Setting> {
    let mut settings: BTreeMap<String, Setting> = BTreeMap::new();
    for entry in entries {
        let name = text(&entry.name);
        let (name, suffix) = name.split_once('$').unwrap_or((&name, ""));
        let value = match (entry.number(), entry.text()) {
            (Some(number), _) => PropertyValue::Number(number),
            (None, Some(value)) => PropertyValue::Text(text(value)),
            (None, None) => continue,
        };
        let setting = settings.entry(name.to_owned()).or_default();
        match suffix {
            "" => setting.local = Some(value),
            "recvd" => setting.received = Some(value),
            "inherit" => setting.inherits = true,
            _ => {}
        }
    }
    settings
}

//! Pool properties: what `zpool create -o` takes, as far as it makes sense for a pool that is written once.

use std::collections::BTreeMap;

use crate::features::{FeatureSet, Release};
use crate::properties::PropertyError;

/// Feature sets (`compatibility=`) that are releases. Those for FreeBSD lack `edonr`, which a written pool enables and
/// never uses, so that FreeBSD imports it.
const RELEASES: &[(&str, Release)] = &[
    ("off", Release::DEFAULT),
    ("openzfs-2.0-freebsd", Release::V2_0),
    ("openzfs-2.0-linux", Release::V2_0),
    ("openzfs-2.1-freebsd", Release::V2_1),
    ("openzfs-2.1-linux", Release::V2_1),
    ("openzfs-2.2", Release::V2_2),
    ("openzfs-2.2-freebsd", Release::V2_2),
    ("openzfs-2.2-linux", Release::V2_2),
    ("openzfs-2.3", Release::V2_3),
    ("openzfs-2.3-freebsd", Release::V2_3),
    ("openzfs-2.3-linux", Release::V2_3),
    ("openzfs-2.4", Release::V2_4),
    ("openzfs-2.4-freebsd", Release::V2_4),
    ("openzfs-2.4-linux", Release::V2_4),
];
/// Feature sets of the loader GRUB, and whether each is for versions before 2.12.
const GRUBS: &[(&str, bool)] = &[("grub2", false), ("grub2-2.06", true), ("grub2-2.12", false)];

/// Properties of `zpool create` that have no place here: how their names begin, and what to do instead.
const NOT_SETTABLE: &[(&str, &str)] = &[
    ("altroot", "say it when the pool is imported: `zpool import -R`"),
    ("ashift", "it is a field of the pool's specification"),
    ("bootfs", "it is a field of the pool's specification"),
    ("cachefile", "say it when the pool is imported: `zpool import -o cachefile=…`"),
    ("dedup", "set it on the running machine"),
    ("feature@", "choose the features with `compatibility`"),
    ("multihost", "set it on the running machine, which has a host id"),
    ("readonly", "say it when the pool is imported: `zpool import -o readonly=on`"),
    ("version", "pools are of version 5000, with features"),
];

fn feature_set(name: &str) -> Option<FeatureSet> {
    let release = RELEASES.iter().find(|(known, _)| *known == name);
    let grub = GRUBS.iter().find(|(known, _)| *known == name);
    release
        .map(|(_, release)| FeatureSet::release(*release))
        .or_else(|| grub.map(|(_, before_2_12)| FeatureSet::grub(*before_2_12)))
}

/// Properties set on a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolProperties {
    /// Those kept in the pool's property table.
    numbers: BTreeMap<String, u64>,
    comment: Option<String>,
    compatibility: Option<String>,
}

impl PoolProperties {
    /// No property set.
    pub fn new() -> PoolProperties {
        PoolProperties::default()
    }

    /// Sets a property to what `zpool create -o name=value` would; the last value given counts.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), PropertyError> {
        let bad = |hint: &str| PropertyError::BadValue {
            name: name.to_owned(),
            value: value.to_owned(),
            hint: hint.to_owned(),
        };
        match name {
            "autotrim" | "autoexpand" | "autoreplace" | "delegation" | "listsnapshots" => {
                let number = match value {
                    "on" => 1,
                    "off" => 0,
                    _ => return Err(bad("on or off")),
                };
                self.numbers.insert(name.to_owned(), number);
            }
            "failmode" => {
                let number = match value {
                    "wait" => 0,
                    "continue" => 1,
                    "panic" => 2,
                    _ => return Err(bad("wait, continue or panic")),
                };
                self.numbers.insert(name.to_owned(), number);
            }
            "comment" => {
                const MAX: usize = 32;
                if value.len() > MAX || !value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
                    return Err(bad("at most 32 printable ASCII characters"));
                }
                self.comment = Some(value.to_owned());
            }
            "compatibility" => {
                if value.split(',').any(|set| feature_set(set).is_none()) {
                    let releases = RELEASES.iter().map(|(name, _)| *name);
                    let names: Vec<&str> = releases.chain(GRUBS.iter().map(|(name, _)| *name)).collect();
                    return Err(bad(&format!("one of {}", names.join(", "))));
                }
                self.compatibility = Some(value.to_owned()).filter(|value| value != "off");
            }
            // A written pool is as these say.
            "version" if value == "5000" => {}
            "multihost" | "readonly" if value == "off" => {}
            _ => {
                let hint = NOT_SETTABLE.iter().find(|(known, _)| name.starts_with(known));
                let name = name.to_owned();
                return Err(match hint {
                    Some((_, hint)) => PropertyError::NotSettable { name, hint },
                    None => PropertyError::Unknown { name },
                });
            }
        }
        Ok(())
    }

    /// The features that are enabled: of several sets what all of them have.
    pub(crate) fn features(&self) -> FeatureSet {
        let sets = self.compatibility.iter().flat_map(|sets| sets.split(','));
        sets.filter_map(feature_set)
            .reduce(|all, set| all.and(&set))
            .unwrap_or_else(|| FeatureSet::release(Release::DEFAULT))
    }

    pub(crate) fn numbers(&self) -> impl Iterator<Item = (&str, u64)> {
        self.numbers.iter().map(|(name, number)| (name.as_str(), *number))
    }

    /// Texts that are kept in the pool's configuration, not in the property table.
    pub(crate) fn configuration(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [("comment", &self.comment), ("compatibility", &self.compatibility)]
            .into_iter()
            .filter_map(|(name, value)| value.as_deref().map(|value| (name, value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        let mut properties = PoolProperties::new();
        for (name, value, accepted) in [
            ("autotrim", "on", true),
            ("autotrim", "yes", false),
            ("comment", "made by hand", true),
            ("comment", "a comment of more than 32 characters", false),
            ("compatibility", "openzfs-2.1-linux", true),
            ("compatibility", "grub3", false),
            ("failmode", "continue", true),
            ("ashift", "12", false),
            ("version", "5000", true),
            ("version", "28", false),
            ("nonsense", "1", false),
        ] {
            assert_eq!(properties.set(name, value).is_ok(), accepted, "{name}={value}");
        }
        assert_eq!(properties.numbers().collect::<Vec<_>>(), [("autotrim", 1), ("failmode", 1)]);
        assert_eq!(
            properties.configuration().collect::<Vec<_>>(),
            [("comment", "made by hand"), ("compatibility", "openzfs-2.1-linux")]
        );
    }

    #[test]
    fn of_several_sets_the_features_that_all_have() {
        let release = FeatureSet::release;
        for (value, features) in [
            (None, release(Release::DEFAULT)),
            (Some("off"), release(Release::DEFAULT)),
            (Some("openzfs-2.3-linux"), release(Release::V2_3)),
            (Some("openzfs-2.3-linux,openzfs-2.0-freebsd"), release(Release::V2_0)),
            (Some("grub2-2.12,grub2-2.06"), FeatureSet::grub(true)),
            (Some("grub2-2.12,openzfs-2.4"), FeatureSet::grub(false)),
        ] {
            let mut properties = PoolProperties::new();
            value.into_iter().for_each(|value| properties.set("compatibility", value).unwrap());
            assert_eq!(properties.features(), features, "{value:?}");
        }
    }
}

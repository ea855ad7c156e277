//! Names of pools, datasets and snapshots, checked once by the rules of ZFS.

use std::fmt;
use std::str::FromStr;

/// Longest full name of a dataset or snapshot (`ZFS_MAX_DATASET_NAME_LEN` with its NUL).
const MAX_NAME: usize = 255;
/// Names a pool cannot have: words of the `zpool create` command line and prefixes of old device names.
const RESERVED: [&str; 5] = ["mirror", "raidz", "draid", "spare", "log"];

/// A name breaks the rules of ZFS.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is not a {what}: {reason}")]
pub struct NameError {
    /// The name as given.
    pub name: String,
    /// What it was to name.
    pub what: &'static str,
    /// The rule that it breaks.
    pub reason: &'static str,
}

/// The name of a pool: a letter, then letters, digits, `_`, `-`, `.`, `:` and blanks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolName(String);

/// The full name of a dataset, such as `rpool/ROOT/debian`; its first component is the pool.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DatasetName(String);

/// The full name of a snapshot, such as `rpool/ROOT/debian@install`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SnapshotName {
    dataset: DatasetName,
    snapshot: String,
}

impl PoolName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The dataset at the root of the pool, which has the same name.
    pub fn root_dataset(&self) -> DatasetName {
        DatasetName(self.0.clone())
    }
}

impl DatasetName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The pool the dataset is in.
    pub fn pool(&self) -> &str {
        self.0.split('/').next().unwrap_or_default()
    }

    /// The dataset it is in; none for the root of the pool.
    pub fn parent(&self) -> Option<DatasetName> {
        self.0.rsplit_once('/').map(|(parent, _)| DatasetName(parent.to_owned()))
    }

    /// The last component.
    pub fn last(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }
}

impl FromStr for PoolName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<PoolName, NameError> {
        let fail = |reason| Err(NameError { name: name.to_owned(), what: "pool name", reason });
        if !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
            return fail("it must start with a letter");
        }
        if !name.bytes().all(is_allowed) {
            return fail("only letters, digits, `_`, `-`, `.`, `:` and blanks are allowed");
        }
        if name.len() > MAX_NAME {
            return fail("it is longer than 255 bytes");
        }
        if RESERVED.iter().any(|word| name.starts_with(word)) {
            return fail("it starts with a word that zpool reserves");
        }
        Ok(PoolName(name.to_owned()))
    }
}

impl FromStr for DatasetName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<DatasetName, NameError> {
        let fail = |reason| Err(NameError { name: name.to_owned(), what: "dataset name", reason });
        if name.len() > MAX_NAME {
            return fail("it is longer than 255 bytes");
        }
        let mut components = name.split('/');
        if let Err(error) = components.next().unwrap_or_default().parse::<PoolName>() {
            return fail(error.reason);
        }
        for component in components {
            if let Some(reason) = broken_component(component) {
                return fail(reason);
            }
        }
        Ok(DatasetName(name.to_owned()))
    }
}

impl SnapshotName {
    /// The dataset it was taken of.
    pub fn dataset(&self) -> &DatasetName {
        &self.dataset
    }

    /// The part behind the `@`.
    pub fn snapshot(&self) -> &str {
        &self.snapshot
    }
}

impl FromStr for SnapshotName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<SnapshotName, NameError> {
        let Some((dataset, snapshot)) = name.split_once('@') else {
            return Err(NameError { name: name.to_owned(), what: "snapshot name", reason: "it has no `@`" });
        };
        let dataset = dataset.parse()?;
        check_snapshot(&dataset, snapshot)?;
        Ok(SnapshotName { dataset, snapshot: snapshot.to_owned() })
    }
}

/// Checks the part of a snapshot's name behind the `@`.
pub(crate) fn check_snapshot(dataset: &DatasetName, snapshot: &str) -> Result<(), NameError> {
    check_part(format!("{dataset}@{snapshot}"), snapshot, "snapshot name")
}

/// Checks the part of a bookmark's name behind the `#`.
pub(crate) fn check_bookmark(dataset: &DatasetName, bookmark: &str) -> Result<(), NameError> {
    check_part(format!("{dataset}#{bookmark}"), bookmark, "bookmark name")
}

fn check_part(name: String, part: &str, what: &'static str) -> Result<(), NameError> {
    let reason = match broken_component(part) {
        Some(reason) => reason,
        None if name.len() > MAX_NAME => "it is longer than 255 bytes",
        None => return Ok(()),
    };
    Err(NameError { name, what, reason })
}

/// Checks the tag of a hold, which may have any characters. zfs(8) keeps tags that start with a dot for itself.
pub(crate) fn check_hold(tag: &str) -> Result<(), NameError> {
    let reason = match tag {
        "" => "it is empty",
        _ if tag.starts_with('.') => "it starts with a dot",
        _ if tag.contains('\0') => "it has a NUL",
        _ if tag.len() > MAX_NAME => "it is longer than 255 bytes",
        _ => return Ok(()),
    };
    Err(NameError { name: tag.to_owned(), what: "tag of a hold", reason })
}

fn broken_component(component: &str) -> Option<&'static str> {
    match component {
        "" => Some("a component is empty"),
        "." | ".." => Some("a component is `.` or `..`"),
        _ if !component.bytes().all(is_allowed) => {
            Some("only letters, digits, `_`, `-`, `.`, `:` and blanks are allowed")
        }
        _ => None,
    }
}

fn is_allowed(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_-.: ".contains(&byte)
}

impl fmt::Display for PoolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for DatasetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for SnapshotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.dataset, self.snapshot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (name, is_pool, is_dataset) in [
            ("rpool", true, true),
            ("rpool/ROOT/debian-13.1", false, true),
            ("r pool", true, true),
            ("0pool", false, false),
            ("mirror1", false, false),
            ("rpool/", false, false),
            ("rpool//a", false, false),
            ("rpool/../a", false, false),
            ("rpool/a@b", false, false),
            ("rpool/ä", false, false),
            ("", false, false),
        ] {
            assert_eq!(name.parse::<PoolName>().is_ok(), is_pool, "{name}");
            assert_eq!(name.parse::<DatasetName>().is_ok(), is_dataset, "{name}");
        }
        assert!(format!("p/{}", "a".repeat(253)).parse::<DatasetName>().is_ok());
        assert!(format!("p/{}", "a".repeat(254)).parse::<DatasetName>().is_err());
        let name: DatasetName = "rpool/ROOT/debian".parse().unwrap();
        assert_eq!((name.pool(), name.last()), ("rpool", "debian"));
        assert_eq!(name.parent().unwrap().as_str(), "rpool/ROOT");
        assert!(check_snapshot(&name, "install").is_ok());
        let snapshot: SnapshotName = "rpool/ROOT/debian@install".parse().unwrap();
        assert_eq!((snapshot.dataset(), snapshot.snapshot()), (&name, "install"));
        for wrong in ["rpool", "rpool/@a", "rpool@", "rpool@a@b", "rpool@a/b"] {
            assert!(wrong.parse::<SnapshotName>().is_err(), "{wrong}");
        }
        assert!(check_hold("kept for: audit/2026").is_ok());
        for wrong in ["", ".send-1", "a\0", &"a".repeat(256)] {
            assert!(check_hold(wrong).is_err(), "{wrong}");
        }
        assert_eq!(
            check_snapshot(&name, "a/b").unwrap_err().to_string(),
            "`rpool/ROOT/debian@a/b` is not a snapshot name: only letters, digits, `_`, `-`, `.`, `:` and blanks are allowed"
        );
    }
}

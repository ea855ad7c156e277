//! What a dataset is for, and the properties that fit: the one table of them.

use std::fmt;
use std::str::FromStr;

/// What a dataset holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Purpose {
    General,
    Postgres,
    Mysql,
    Media,
    Logs,
    Archive,
    Vm,
    Mail,
}

/// A property, and why it fits.
pub type Fit = (&'static str, &'static str, &'static str);

const NO_ATIME: Fit = ("atime", "off", "reading must not cause writing");
const LZ4: Fit =
    ("compression", "lz4", "costs less time than it saves, and gives up early on what is compressed");
const ZSTD: Fit =
    ("compression", "zstd", "text shrinks by half again of what lz4 leaves, and is read seldom");

/// All purposes with their properties. Record sizes after `Workload Tuning` of the OpenZFS documentation, where it names one.
const TABLE: [(Purpose, &str, &[Fit]); 8] = [
    (Purpose::General, "general", &[LZ4, NO_ATIME]),
    (
        Purpose::Postgres,
        "postgres",
        &[
            ("recordsize", "8k", "PostgreSQL reads and writes pages of 8K (OpenZFS, Workload Tuning)"),
            LZ4,
            NO_ATIME,
        ],
    ),
    (
        Purpose::Mysql,
        "mysql",
        &[
            ("recordsize", "16k", "InnoDB reads and writes pages of 16K (OpenZFS, Workload Tuning)"),
            LZ4,
            NO_ATIME,
        ],
    ),
    (
        Purpose::Media,
        "media",
        &[
            ("recordsize", "1M", "large files, read from begin to end (OpenZFS, Workload Tuning)"),
            LZ4,
            NO_ATIME,
        ],
    ),
    (
        Purpose::Logs,
        "logs",
        &[("recordsize", "128k", "lines that are appended; larger records compress better"), ZSTD, NO_ATIME],
    ),
    (
        Purpose::Archive,
        "archive",
        &[
            ("recordsize", "1M", "written once, read as a whole (OpenZFS, Workload Tuning)"),
            ("compression", "zstd-9", "written once: time for compression is spent once"),
            NO_ATIME,
        ],
    ),
    (
        Purpose::Vm,
        "vm",
        &[("recordsize", "64k", "the cluster of qcow2: a guest's write touches one record"), LZ4, NO_ATIME],
    ),
    (
        Purpose::Mail,
        "mail",
        &[
            ("recordsize", "128k", "a message is a file, and a small file is one record of its own size"),
            ZSTD,
            NO_ATIME,
        ],
    ),
];

impl Purpose {
    /// Their names, in the order of the table.
    pub fn names() -> [&'static str; 8] {
        TABLE.map(|(_, name, _)| name)
    }

    /// All of them.
    pub fn all() -> [Self; 8] {
        TABLE.map(|(purpose, _, _)| purpose)
    }

    /// The properties that fit.
    pub fn properties(self) -> &'static [Fit] {
        TABLE.iter().find(|(purpose, _, _)| *purpose == self).map_or(&[], |(_, _, properties)| properties)
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = TABLE.iter().find(|(purpose, _, _)| purpose == self).map_or("", |(_, name, _)| name);
        f.pad(name)
    }
}

impl FromStr for Purpose {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = TABLE.iter().find(|(_, name, _)| *name == text);
        found
            .map(|(purpose, _, _)| *purpose)
            .ok_or_else(|| format!("`{text}` is none of {}", Self::names().join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_purpose_is_one_row() {
        for (purpose, name) in Purpose::all().into_iter().zip(Purpose::names()) {
            assert_eq!((name.parse(), purpose.to_string().as_str()), (Ok(purpose), name));
            let properties = purpose.properties();
            let names: Vec<&str> = properties.iter().map(|(name, _, _)| *name).collect();
            assert!(names.contains(&"compression") && names.contains(&"atime"), "{purpose}");
            assert!(properties.iter().all(|(_, _, why)| !why.is_empty()), "{purpose}");
        }
        assert!("oracle".parse::<Purpose>().is_err());
    }
}

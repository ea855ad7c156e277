//! Dataset properties: the names and values that `zfs create -o` takes, checked when they are set.
//!
//! A value is kept as ZFS stores it. Only what is set is stored with a dataset; the rest is inherited, also for what
//! decides how the dataset's own blocks are written (record size, compression, dnode size).

mod value;

use std::collections::BTreeMap;

pub(crate) use value::Stored;

use crate::codec::Compression;
use crate::format::hasher::Algorithm;

/// Record size when none is set, as in ZFS.
const DEFAULT_RECORD_SIZE: u64 = 128 << 10;
/// zstd level behind plain `zstd`.
const DEFAULT_ZSTD_LEVEL: u8 = 3;

/// Properties set on a dataset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Properties {
    set: BTreeMap<String, Setting>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Setting {
    text: String,
    stored: Stored,
}

/// A property cannot be set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PropertyError {
    /// ZFS has no such property.
    #[error("unknown property `{name}`")]
    Unknown {
        /// The name as given.
        name: String,
    },
    /// ZFS has it, but it cannot be set while a pool is written.
    #[error("property `{name}` cannot be set here")]
    NotSettable {
        /// The property.
        name: String,
        /// What to do instead.
        hint: &'static str,
    },
    /// The value is not one the property can have.
    #[error("property `{name}` cannot be `{value}`")]
    BadValue {
        /// The property.
        name: String,
        /// The value as given.
        value: String,
        /// What it can be.
        hint: String,
    },
    /// ZFS knows the value, but blocks cannot be written that way.
    #[error("`{name}={value}` is not supported for writing")]
    UnsupportedValue {
        /// The property.
        name: String,
        /// The value as given.
        value: String,
        /// What can be used instead.
        hint: String,
    },
}

impl PropertyError {
    /// What the user can do about it.
    pub fn hint(&self) -> &str {
        match self {
            PropertyError::Unknown { .. } => {
                "a property of your own needs a colon in its name, such as `com.example:owner`"
            }
            PropertyError::NotSettable { hint, .. } => hint,
            PropertyError::BadValue { hint, .. } | PropertyError::UnsupportedValue { hint, .. } => hint,
        }
    }
}

impl Properties {
    /// No property set: everything is inherited.
    pub fn new() -> Properties {
        Properties::default()
    }

    /// Sets a property to what `zfs create -o name=value` would; the last value given counts.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), PropertyError> {
        let stored = value::parse(name, value)?;
        self.set.insert(name.to_owned(), Setting { text: value.to_owned(), stored });
        Ok(())
    }

    /// A property as it was given.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.set.get(name).map(|setting| setting.text.as_str())
    }

    /// All properties as they were given, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.set.iter().map(|(name, setting)| (name.as_str(), setting.text.as_str()))
    }

    /// All properties as ZFS stores them, by name.
    pub(crate) fn stored(&self) -> impl Iterator<Item = (&str, &Stored)> {
        self.set.iter().map(|(name, setting)| (name.as_str(), &setting.stored))
    }

    fn number(&self, name: &str) -> Option<u64> {
        match self.set.get(name)?.stored {
            Stored::Number(number) => Some(number),
            Stored::Text(_) | Stored::AsWritten => None,
        }
    }

    /// A limit or reservation in bytes; none when not set or `none`.
    pub(crate) fn bytes(&self, name: &str) -> Option<u64> {
        self.number(name).filter(|bytes| *bytes > 0)
    }
}

/// What decides how blocks are written, after inheritance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Effective {
    pub(crate) record_size: u64,
    pub(crate) compression: Compression,
    pub(crate) large_dnodes: bool,
    pub(crate) checksum: Algorithm,
    /// Copies of content; metadata has one more, at most three.
    pub(crate) copies: usize,
}

impl Default for Effective {
    fn default() -> Effective {
        // Compression is on by default since OpenZFS 2.2, and `on` is lz4.
        Effective {
            record_size: DEFAULT_RECORD_SIZE,
            compression: Compression::Lz4,
            large_dnodes: false,
            checksum: Algorithm::Fletcher4,
            copies: 1,
        }
    }
}

impl Effective {
    /// What a dataset with `properties` has when its parent has `self`.
    pub(crate) fn with(self, properties: &Properties) -> Effective {
        Effective {
            record_size: properties.number("recordsize").unwrap_or(self.record_size),
            compression: properties.number("compression").map_or(self.compression, value::compression_of),
            large_dnodes: properties.number("dnodesize").map_or(self.large_dnodes, |size| size != 0),
            checksum: properties.number("checksum").map_or(self.checksum, value::checksum_of),
            copies: properties.number("copies").map_or(self.copies, |copies| copies as usize),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(name: &str, value: &str) -> Result<Stored, PropertyError> {
        value::parse(name, value)
    }

    #[test]
    fn accepted_values() {
        for (name, value, expected) in [
            ("recordsize", "128k", 131_072),
            ("recordsize", "1M", 1 << 20),
            ("recordsize", "512", 512),
            ("compression", "off", 2),
            ("compression", "on", 1),
            ("compression", "lz4", 15),
            ("compression", "zstd", 16),
            ("compression", "zstd-3", 16 | 3 << 7),
            ("compression", "zstd-19", 16 | 19 << 7),
            ("compression", "zstd-fast", 16 | 103 << 7),
            ("compression", "zstd-fast-500", 16 | 122 << 7),
            ("compression", "gzip", 10),
            ("compression", "gzip-9", 13),
            ("compression", "zle", 14),
            ("compression", "lzjb", 3),
            ("recordsize", "16M", 16 << 20),
            ("atime", "off", 0),
            ("relatime", "on", 1),
            ("xattr", "sa", 2),
            ("acltype", "posix", 1),
            ("acltype", "posixacl", 1),
            ("canmount", "noauto", 2),
            ("quota", "10G", 10 << 30),
            ("quota", "1.5g", 3 << 29),
            ("refquota", "none", 0),
            ("dnodesize", "auto", 1),
            ("snapdir", "visible", 1),
            ("sync", "disabled", 2),
            ("logbias", "throughput", 1),
            ("primarycache", "metadata", 1),
            ("copies", "3", 3),
            ("checksum", "fletcher4", 7),
            ("checksum", "blake3", 14),
        ] {
            assert_eq!(stored(name, value), Ok(Stored::Number(expected)), "{name}={value}");
        }
        for (name, value) in [("mountpoint", "/srv"), ("mountpoint", "none"), ("com.example:a", "b c")] {
            assert_eq!(stored(name, value), Ok(Stored::Text(value.into())));
        }
    }

    #[test]
    fn refused_values() {
        let errors: Vec<String> = [
            ("recordsize", "3k"),
            ("recordsize", "32M"),
            ("compression", "gzip-10"),
            ("compression", "zstd-fast-11"),
            ("compression", "zstd-20"),
            ("compression", "lz5"),
            ("copies", "4"),
            ("checksum", "skein"),
            ("xattr", "dir"),
            ("dnodesize", "4k"),
            ("quota", "10Q"),
            ("mountpoint", "srv"),
            ("atime", "yes"),
            ("volsize", "1G"),
            ("encryption", "on"),
            ("recordsise", "1M"),
            ("Com.example:a", "b"),
        ]
        .into_iter()
        .map(|(name, value)| {
            let error = stored(name, value).unwrap_err();
            format!("{error} ({})", error.hint())
        })
        .collect();
        expect_test::expect![[r#"
            property `recordsize` cannot be `3k` (a power of two from 512 to 16M)
            property `recordsize` cannot be `32M` (a power of two from 512 to 16M)
            property `compression` cannot be `gzip-10` (off, on, lz4, zstd, zstd-1 to zstd-19, zstd-fast-1 to zstd-fast-1000, gzip-1 to gzip-9, zle or lzjb)
            property `compression` cannot be `zstd-fast-11` (off, on, lz4, zstd, zstd-1 to zstd-19, zstd-fast-1 to zstd-fast-1000, gzip-1 to gzip-9, zle or lzjb)
            property `compression` cannot be `zstd-20` (off, on, lz4, zstd, zstd-1 to zstd-19, zstd-fast-1 to zstd-fast-1000, gzip-1 to gzip-9, zle or lzjb)
            property `compression` cannot be `lz5` (off, on, lz4, zstd, zstd-1 to zstd-19, zstd-fast-1 to zstd-fast-1000, gzip-1 to gzip-9, zle or lzjb)
            property `copies` cannot be `4` (1, 2 or 3)
            `checksum=skein` is not supported for writing (on, off, fletcher4, sha256, sha512 or blake3)
            `xattr=dir` is not supported for writing (on or sa)
            `dnodesize=4k` is not supported for writing (legacy or auto)
            property `quota` cannot be `10Q` (none or a size such as 10G)
            property `mountpoint` cannot be `srv` (an absolute path, none or legacy)
            property `atime` cannot be `yes` (on or off)
            property `volsize` cannot be set here (it is said with the content of a volume)
            property `encryption` cannot be set here (make the encrypted dataset on the running machine, where its key is)
            unknown property `recordsise` (a property of your own needs a colon in its name, such as `com.example:owner`)
            property `Com.example:a` cannot be `b` (the name of a user property is lower-case letters, digits and `:+._-`, at most 255 bytes; its value at most 8191 bytes)"#]]
        .assert_eq(&errors.join("\n"));
    }

    #[test]
    fn inheritance() {
        let mut parent = Properties::new();
        parent.set("compression", "zstd-9").unwrap();
        parent.set("dnodesize", "auto").unwrap();
        let mut child = Properties::new();
        child.set("recordsize", "8k").unwrap();
        let effective = Effective::default().with(&parent).with(&child);
        assert_eq!(
            effective,
            Effective {
                record_size: 8192,
                compression: Compression::Zstd(9),
                large_dnodes: true,
                ..Effective::default()
            }
        );
        child.set("compression", "zstd").unwrap();
        assert_eq!(effective.with(&child).compression, Compression::Zstd(3));
    }
}

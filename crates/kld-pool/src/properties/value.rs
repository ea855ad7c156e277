//! Values of properties: from the words of the command line to what is stored.

use super::{DEFAULT_ZSTD_LEVEL, PropertyError};
use crate::codec::{Compression, ZSTD_FAST_LEVELS};
use crate::format::hasher::Algorithm;

/// A value as it stands in a property table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    Number(u64),
    Text(String),
    /// What every dataset has that is written: it stands elsewhere, or nowhere.
    AsWritten,
}

const COMPRESS_ON: u64 = 1;
const COMPRESS_OFF: u64 = 2;
const COMPRESS_LZJB: u64 = 3;
/// That of gzip-1; the other levels follow.
const COMPRESS_GZIP: u64 = 5;
const COMPRESS_ZLE: u64 = 14;
const COMPRESS_LZ4: u64 = 15;
const COMPRESS_ZSTD: u64 = 16;
/// The level stands above the algorithm.
const LEVEL_SHIFT: u32 = 7;
const MAX_ZSTD_LEVEL: u8 = 19;
const MAX_GZIP_LEVEL: u8 = 9;
const DEFAULT_GZIP_LEVEL: u8 = 6;

/// The words a property accepts, with the number each is stored as.
type Words = &'static [(&'static str, u64)];

const ON_OFF: Words = &[("off", 0), ("on", 1)];
const CACHE: Words = &[("none", 0), ("metadata", 1), ("all", 2)];

/// Properties whose value is one of a few words, with the number each is stored as (`zfs_prop.c` of OpenZFS).
const WORDS: &[(&str, Words, &str)] = &[
    ("atime", ON_OFF, "on or off"),
    ("relatime", ON_OFF, "on or off"),
    ("devices", ON_OFF, "on or off"),
    ("exec", ON_OFF, "on or off"),
    ("setuid", ON_OFF, "on or off"),
    ("readonly", ON_OFF, "on or off"),
    ("overlay", ON_OFF, "on or off"),
    ("nbmand", ON_OFF, "on or off"),
    ("vscan", ON_OFF, "on or off"),
    ("zoned", ON_OFF, "on or off"),
    ("volthreading", ON_OFF, "on or off"),
    // `on` means system attributes since OpenZFS 2.3; that is also how attributes are written here.
    ("xattr", &[("off", 0), ("on", 2), ("sa", 2)], "on or sa"),
    ("acltype", &[("off", 0), ("noacl", 0), ("posix", 1), ("posixacl", 1)], "off or posix"),
    ("canmount", &[("off", 0), ("on", 1), ("noauto", 2)], "on, off or noauto"),
    ("dnodesize", &[("legacy", 0), ("auto", 1)], "legacy or auto"),
    ("snapdir", &[("hidden", 0), ("visible", 1)], "hidden or visible"),
    ("sync", &[("standard", 0), ("always", 1), ("disabled", 2)], "standard, always or disabled"),
    ("logbias", &[("latency", 0), ("throughput", 1)], "latency or throughput"),
    ("primarycache", CACHE, "all, metadata or none"),
    ("secondarycache", CACHE, "all, metadata or none"),
    ("prefetch", CACHE, "all, metadata or none"),
    ("direct", &[("disabled", 0), ("standard", 1), ("always", 2)], "standard, always or disabled"),
    ("snapdev", &[("hidden", 0), ("visible", 1)], "hidden or visible"),
    (
        "volmode",
        &[("default", 0), ("full", 1), ("geom", 1), ("dev", 2), ("none", 3)],
        "default, full, geom, dev or none",
    ),
    // What inherited entries become where ACLs are of the other kind; on Linux nothing asks.
    (
        "aclinherit",
        &[("discard", 0), ("noallow", 1), ("passthrough", 3), ("restricted", 4), ("passthrough-x", 5)],
        "discard, noallow, restricted, passthrough or passthrough-x",
    ),
    (
        "aclmode",
        &[("discard", 0), ("groupmask", 2), ("passthrough", 3), ("restricted", 4)],
        "discard, groupmask, passthrough or restricted",
    ),
    ("redundant_metadata", &[("all", 0), ("most", 1)], "all or most"),
    ("copies", &[("1", 1), ("2", 2), ("3", 3)], "1, 2 or 3"),
    (
        "checksum",
        &[("on", 1), ("off", 2), ("fletcher4", 7), ("sha256", 8), ("sha512", 11), ("blake3", 14)],
        "on, off, fletcher4, sha256, sha512 or blake3",
    ),
];

/// Values that ZFS knows and that are refused because blocks or attributes would have to be written differently.
const UNSUPPORTED: &[(&str, &[&str])] = &[
    ("xattr", &["dir"]),
    ("acltype", &["nfsv4"]),
    ("dnodesize", &["1k", "2k", "4k", "8k", "16k"]),
    ("checksum", &["fletcher2", "noparity", "skein", "edonr"]),
    ("redundant_metadata", &["some", "none"]),
    ("snapdir", &["disabled"]),
];

/// Properties of which one value is what is written, with all such values. The table of properties has none of them.
const AS_WRITTEN: &[(&str, &[&str])] = &[
    ("casesensitivity", &["sensitive"]),
    ("dedup", &["off"]),
    ("encryption", &["off"]),
    ("keyformat", &["none"]),
    ("keylocation", &["none"]),
    ("longname", &["off"]),
    ("normalization", &["none"]),
    ("special_small_blocks", &["0"]),
    ("utf8only", &["off"]),
    ("version", &["5", "current"]),
];

/// Properties of ZFS that have no place here, or only with the values of [`AS_WRITTEN`].
const NOT_SETTABLE: &[(&str, &str)] = &[
    ("volsize", OF_VOLUMES),
    ("volblocksize", OF_VOLUMES),
    ("encryption", ENCRYPTED),
    ("keyformat", ENCRYPTED),
    ("keylocation", ENCRYPTED),
    ("pbkdf2iters", ENCRYPTED),
    ("dedup", "set it on the running machine"),
    ("special_small_blocks", "set it on the running machine when it has a special vdev"),
    ("casesensitivity", "names are case-sensitive: make such a dataset on the running machine"),
    ("normalization", "names are stored as they are: make such a dataset on the running machine"),
    ("utf8only", "names are stored as they are: make such a dataset on the running machine"),
    ("longname", "names have at most 255 bytes: set it on the running machine"),
    ("version", "file systems are of version 5"),
    ("filesystem_limit", "set it on the running machine"),
    ("snapshot_limit", "set it on the running machine"),
    ("mlslabel", "Linux has no such labels"),
    ("jailed", "it is called `zoned` on Linux"),
];
const OF_VOLUMES: &str = "it is said with the content of a volume";
const ENCRYPTED: &str = "make the encrypted dataset on the running machine, where its key is";

/// Texts that are handed to the kernel's or the machine's own parser.
const TEXTS: [&str; 6] = ["context", "defcontext", "fscontext", "rootcontext", "sharenfs", "sharesmb"];

/// Checks a property and gives the value to store.
pub(super) fn parse(name: &str, value: &str) -> Result<Stored, PropertyError> {
    if name.contains(':') {
        return parse_user(name, value);
    }
    if AS_WRITTEN.iter().any(|(known, values)| *known == name && values.contains(&value)) {
        return Ok(Stored::AsWritten);
    }
    if let Some((_, hint)) = NOT_SETTABLE.iter().find(|(known, _)| *known == name) {
        return Err(PropertyError::NotSettable { name: name.to_owned(), hint });
    }
    if let Some((_, words, hint)) = WORDS.iter().find(|(known, _, _)| *known == name) {
        if let Some((_, number)) = words.iter().find(|(word, _)| *word == value) {
            return Ok(Stored::Number(*number));
        }
        let known = UNSUPPORTED.iter().any(|(property, values)| *property == name && values.contains(&value));
        return Err(if known { unsupported(name, value, hint) } else { bad(name, value, hint) });
    }
    match name {
        "recordsize" => parse_record_size(value),
        "compression" => parse_compression(value),
        "quota" | "refquota" | "reservation" | "refreservation" => parse_limit(name, value),
        "mountpoint" => parse_mountpoint(value),
        _ if TEXTS.contains(&name) => parse_text(name, value),
        // Quotas of one user, and what OpenZFS 2.4 has for all of them, are kept with the files.
        _ if name.contains("quota") => {
            let (name, hint) = (name.to_owned(), "set it on the running machine");
            Err(PropertyError::NotSettable { name, hint })
        }
        _ => Err(PropertyError::Unknown { name: name.to_owned() }),
    }
}

fn bad(name: &str, value: &str, hint: &str) -> PropertyError {
    PropertyError::BadValue { name: name.to_owned(), value: value.to_owned(), hint: hint.to_owned() }
}

fn unsupported(name: &str, value: &str, hint: &str) -> PropertyError {
    PropertyError::UnsupportedValue { name: name.to_owned(), value: value.to_owned(), hint: hint.to_owned() }
}

fn parse_record_size(value: &str) -> Result<Stored, PropertyError> {
    /// The largest that OpenZFS 2.2 accepts; 2.1 reads it, and sets at most 1M without changing a module parameter.
    const RANGE: std::ops::RangeInclusive<u64> = 512..=16 << 20;
    match parse_size(value) {
        Some(size) if size.is_power_of_two() && RANGE.contains(&size) => Ok(Stored::Number(size)),
        _ => Err(bad("recordsize", value, "a power of two from 512 to 16M")),
    }
}

fn parse_compression(value: &str) -> Result<Stored, PropertyError> {
    const HINT: &str =
        "off, on, lz4, zstd, zstd-1 to zstd-19, zstd-fast-1 to zstd-fast-1000, gzip-1 to gzip-9, zle or lzjb";
    let levels = |text: &str, most: u8| text.parse::<u8>().ok().filter(|level| (1..=most).contains(level));
    let zstd = |compression: Compression| {
        let (_, number) = compression.zstd_level()?;
        Some(COMPRESS_ZSTD | u64::from(number) << LEVEL_SHIFT)
    };
    let number = match value.split_once('-').unwrap_or((value, "")) {
        ("on", "") => Some(COMPRESS_ON),
        ("off", "") => Some(COMPRESS_OFF),
        ("lzjb", "") => Some(COMPRESS_LZJB),
        ("zle", "") => Some(COMPRESS_ZLE),
        ("lz4", "") => Some(COMPRESS_LZ4),
        ("gzip", "") => Some(COMPRESS_GZIP + u64::from(DEFAULT_GZIP_LEVEL) - 1),
        ("gzip", level) => levels(level, MAX_GZIP_LEVEL).map(|level| COMPRESS_GZIP + u64::from(level) - 1),
        ("zstd", "") => Some(COMPRESS_ZSTD),
        ("zstd", "fast") => zstd(Compression::ZstdFast(1)),
        ("zstd", level) => match level.strip_prefix("fast-") {
            Some(fast) => {
                let level = ZSTD_FAST_LEVELS.into_iter().find(|level| level.to_string() == fast);
                level.map(Compression::ZstdFast).and_then(zstd)
            }
            None => levels(level, MAX_ZSTD_LEVEL).map(Compression::Zstd).and_then(zstd),
        },
        _ => None,
    };
    number.map(Stored::Number).ok_or_else(|| bad("compression", value, HINT))
}

/// What a stored `compression` means for blocks that are written.
pub(super) fn compression_of(stored: u64) -> Compression {
    const GZIP: std::ops::Range<u64> = COMPRESS_GZIP..COMPRESS_ZLE;
    let level = (stored >> LEVEL_SHIFT) as u8;
    match stored & ((1 << LEVEL_SHIFT) - 1) {
        COMPRESS_OFF => Compression::Off,
        COMPRESS_LZJB => Compression::Lzjb,
        COMPRESS_ZLE => Compression::Zle,
        COMPRESS_ZSTD if level == 0 => Compression::Zstd(DEFAULT_ZSTD_LEVEL),
        COMPRESS_ZSTD => Compression::from_zstd_level(level).unwrap_or(Compression::Zstd(DEFAULT_ZSTD_LEVEL)),
        code if GZIP.contains(&code) => Compression::Gzip((code - COMPRESS_GZIP + 1) as u8),
        _ => Compression::Lz4,
    }
}

/// What a stored `checksum` means for blocks that are written.
pub(super) fn checksum_of(stored: u64) -> Algorithm {
    let known = [Algorithm::Off, Algorithm::Sha256, Algorithm::Sha512, Algorithm::Blake3];
    known.into_iter().find(|algorithm| u64::from(algorithm.code()) == stored).unwrap_or(Algorithm::Fletcher4)
}

fn parse_limit(name: &str, value: &str) -> Result<Stored, PropertyError> {
    if value == "none" {
        return Ok(Stored::Number(0));
    }
    parse_size(value).map(Stored::Number).ok_or_else(|| bad(name, value, "none or a size such as 10G"))
}

fn parse_mountpoint(value: &str) -> Result<Stored, PropertyError> {
    const MAX: usize = 1023;
    let is_path = value.starts_with('/') && value.len() <= MAX && !value.contains('\0');
    if is_path || matches!(value, "none" | "legacy") {
        Ok(Stored::Text(value.to_owned()))
    } else {
        Err(bad("mountpoint", value, "an absolute path, none or legacy"))
    }
}

fn parse_text(name: &str, value: &str) -> Result<Stored, PropertyError> {
    const MAX: usize = 1023;
    if !value.is_empty() && value.len() <= MAX && !value.chars().any(char::is_control) {
        return Ok(Stored::Text(value.to_owned()));
    }
    Err(bad(name, value, "a text of one line, at most 1023 bytes"))
}

fn parse_user(name: &str, value: &str) -> Result<Stored, PropertyError> {
    const MAX_NAME: usize = 255;
    const MAX_VALUE: usize = 8191;
    let is_name = name.len() <= MAX_NAME
        && !name.starts_with('-')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b":+._-".contains(&byte));
    if is_name && value.len() <= MAX_VALUE && !value.contains('\0') {
        return Ok(Stored::Text(value.to_owned()));
    }
    let hint = "the name of a user property is lower-case letters, digits and `:+._-`, at most 255 bytes; its value at \
                most 8191 bytes";
    Err(bad(name, value, hint))
}

/// A size such as `512`, `128k`, `1.5G`, `10GiB`: binary units, upper or lower case.
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    const UNITS: &str = "KMGTPE";
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let mut unit = unit.to_ascii_uppercase();
    if unit.len() > 1 {
        unit = unit.strip_suffix("IB").or(unit.strip_suffix('B'))?.to_owned();
    }
    let shift = match unit.as_str() {
        "" | "B" => 0,
        unit if unit.len() == 1 => 10 * (UNITS.find(unit)? as u32 + 1),
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    // Fractions are exact to a billionth of a unit.
    const SCALE: u64 = 1_000_000_000;
    if whole.is_empty() || fraction.len() > 9 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let fraction: u64 = format!("{fraction:0<9}").parse().ok()?;
    let value = (u128::from(whole.parse::<u64>().ok()?) << shift)
        + ((u128::from(fraction) << shift) / u128::from(SCALE));
    u64::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, size) in [
            ("0", Some(0)),
            ("512", Some(512)),
            ("512B", Some(512)),
            ("8k", Some(8192)),
            ("8KB", Some(8192)),
            ("8KiB", Some(8192)),
            ("1.5G", Some(3 << 29)),
            ("16E", None),
            ("15E", Some(15 << 60)),
            ("1X", None),
            ("-1", None),
            (".5G", None),
            ("1.2.3K", None),
            ("", None),
            ("k", None),
            ("1é", None),
        ] {
            assert_eq!(parse_size(text), size, "{text}");
        }
    }
}

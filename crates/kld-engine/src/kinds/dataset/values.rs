//! Values of properties as ZFS understands and shows them.

use kld_host::zfs::Property;
use kld_ui::ByteSize;

use crate::host::{Host, HostError};

/// Values that name numbers of bytes, and `none` for 0.
const SIZES: [&str; 8] = [
    "recordsize",
    "quota",
    "refquota",
    "reservation",
    "refreservation",
    "volsize",
    "volblocksize",
    "special_small_blocks",
];

/// Whether a value as a person writes it is the exact one that `zfs get -p` prints.
pub(super) fn same(property: &str, wanted: &str, found: &str) -> bool {
    if SIZES.contains(&property) {
        return number(wanted).is_some() && number(wanted) == number(found);
    }
    // Of the names that a value has, ZFS prints the first in its table (`zfs_prop_init` of OpenZFS).
    let name = |value| match (property, value) {
        ("compression", "on") => "lz4",
        ("compression", "zstd-3") => "zstd",
        ("compression", "zstd-fast-1") => "zstd-fast",
        ("compression", "gzip-6") => "gzip",
        ("acltype", "posixacl") => "posix",
        ("acltype", "noacl") => "off",
        _ => value,
    };
    match (wanted.parse::<u64>(), found.parse::<u64>()) {
        (Ok(wanted), Ok(found)) => wanted == found,
        // That there are any; how they are stored is ZFS's choice, and another one in each version.
        _ if (property, wanted) == ("xattr", "on") => matches!(found, "on" | "sa" | "dir"),
        _ => name(wanted) == name(found),
    }
}

/// The version of the module, whose tools come with it.
const VERSION: &str = "/sys/module/zfs/version";

/// Calls `xattr=on` by the name that means the same to every version. What prints as `on` is `dir` before OpenZFS 2.3 and `sa`
/// in 2.3; from 2.4 on `sa` prints as `sa` (`xattr_table` in module/zcommon/zfs_prop.c: the first name of the value is printed).
pub(super) fn name_attributes(host: &dyn Host, found: &mut [Property]) -> Result<(), HostError> {
    let mut on = found.iter_mut().filter(|of| of.name == "xattr" && of.value == "on").peekable();
    if on.peek().is_some() {
        let is_old = host.read(VERSION)?.is_some_and(|version| is_before_2_3(&version));
        on.for_each(|of| of.value = if is_old { "dir" } else { "sa" }.to_owned());
    }
    Ok(())
}

/// `2.1.11-1`.
fn is_before_2_3(version: &str) -> bool {
    let mut numbers = version.trim().split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    numbers.next().zip(numbers.next()).is_some_and(|version| version < (2, 3))
}

/// `128k`, `10G`, `none`, `131072` in bytes.
pub(super) fn number(text: &str) -> Option<u64> {
    if matches!(text, "none" | "-") {
        return Some(0);
    }
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = text[digits.len()..].trim_end_matches(['B', 'b', 'i']).to_ascii_uppercase();
    let shift = match unit.as_str() {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        "P" => 50,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// A value as `zfs` shows it to people.
pub(super) fn shown(property: &str, value: &str) -> String {
    match number(value) {
        // It has no such property.
        _ if value == "-" => value.to_owned(),
        Some(0) if SIZES.contains(&property) => "none".to_owned(),
        Some(bytes) if SIZES.contains(&property) => ByteSize(bytes).to_string(),
        _ => value.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_compared_as_zfs_understands_them() {
        for (property, wanted, found, want) in [
            ("recordsize", "128k", "131072", true),
            ("recordsize", "1M", "131072", false),
            ("quota", "none", "0", true),
            ("quota", "10G", "10737418240", true),
            ("compression", "zstd-3", "zstd", true),
            ("compression", "zstd-3", "zstd-4", false),
            ("compression", "zstd-fast-1", "zstd-fast", true),
            ("compression", "zstd-fast-2", "zstd-fast", false),
            ("acltype", "noacl", "off", true),
            ("acltype", "noacl", "posix", false),
            ("xattr", "on", "dir", true),
            ("xattr", "on", "off", false),
            ("xattr", "sa", "dir", false),
            ("filesystem_limit", "010", "10", true),
            ("filesystem_limit", "none", "0", false),
            ("atime", "off", "off", true),
            ("mountpoint", "/srv/10G", "/srv/10240M", false),
        ] {
            assert_eq!(same(property, wanted, found), want, "{property} {wanted} {found}");
        }
    }

    #[test]
    fn versions_are_told_apart() {
        assert!(["2.2.99-1\n", "2.1.11-1", "0.8.6"].into_iter().all(is_before_2_3));
        assert!(!["2.3.2-2\n", "2.4.0", "3.0", "", "unknown"].into_iter().any(is_before_2_3));
    }

    #[test]
    fn limits_are_shown_as_zfs_does() {
        for (property, value, want) in [
            ("quota", "0", "none"),
            ("quota", "-", "-"),
            ("recordsize", "131072", "128K"),
            ("refquota", "1288490188", "1.20G"),
            ("copies", "1024", "1024"),
        ] {
            assert_eq!(shown(property, value), want);
        }
    }
}

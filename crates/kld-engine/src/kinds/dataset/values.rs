//! Values of properties as ZFS understands and shows them.

use kld_ui::ByteSize;

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
    let on = |value: &str| match (property, value) {
        // zfsprops(7): `on` is a fixed choice of these.
        ("compression", "on") => "lz4".to_owned(),
        ("acltype", "posixacl") => "posix".to_owned(),
        ("xattr", "on") => "sa".to_owned(),
        ("compression", "zstd-3") => "zstd".to_owned(),
        ("compression", "gzip-6") => "gzip".to_owned(),
        _ => value.to_owned(),
    };
    on(wanted) == on(found)
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
            ("atime", "off", "off", true),
            ("mountpoint", "/srv/10G", "/srv/10240M", false),
        ] {
            assert_eq!(same(property, wanted, found), want, "{property} {wanted} {found}");
        }
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

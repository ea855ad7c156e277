//! The properties of datasets: native properties of OpenZFS file systems as zfsprops(7) of OpenZFS 2.3 lists them.

use super::{Key, Kind, Rule, Section};
use crate::values::{Wrong, parse_size};

const ON_OFF: Kind = Kind::Choice(&["on", "off"]);

/// Properties of one dataset.
pub(crate) static DATASET: Section = Section {
    title: "zfs_layout: datasets",
    one: "a dataset",
    doc: "One dataset per service. The name begins with the pool; every dataset of a manifest is in the same pool. \
          Names that contain a colon (`com.example:note`) are user properties and may hold any word.",
    frame: "zfs_layout:\n  rpool/srv/webapp:\n    {}\n",
    shorthands: &["zfs_layout:\n  rpool/srv/webapp: recordsize=128k  compression=lz4  atime=off\n"],
    keys: &[
        Key::optional(
            "recordsize",
            Kind::Checked(&RECORD_SIZE),
            "Largest block of a file: 8k for databases, 128k in general, 1M for large media files. \
             A power of two from 512 to 16M.",
            "recordsize: 128k",
        ),
        Key::optional(
            "compression",
            Kind::Checked(&COMPRESSION),
            "How blocks are compressed: `lz4` in general, `zstd` or `zstd-1` … `zstd-19` for archives, `off` for what \
             is compressed already.",
            "compression: zstd-3",
        ),
        Key::optional("atime", ON_OFF, "Whether reading a file writes its access time.", "atime: off"),
        Key::optional(
            "mountpoint",
            Kind::Text("an absolute path, or `none`"),
            "Where it is mounted. Default: the name without the pool (`/srv/webapp`).",
            "mountpoint: /var/lib/webapp",
        ),
        Key::optional(
            "encryption",
            Kind::Choice(&["off", "on", "aes-256-gcm", "aes-128-gcm"]),
            "Native encryption. The dataset is made at first boot with a key born on the machine; `on` is \
             `aes-256-gcm`.",
            "encryption: on",
        ),
        Key::optional(
            "quota",
            Kind::Checked(&SIZE_OR_NONE),
            "Most it may use, snapshots included.",
            "quota: 50G",
        ),
        Key::optional(
            "refquota",
            Kind::Checked(&SIZE_OR_NONE),
            "Most its files may use, snapshots not counted.",
            "refquota: 40G",
        ),
        Key::optional(
            "reservation",
            Kind::Checked(&SIZE_OR_NONE),
            "Space kept free for it and what is below it.",
            "reservation: 5G",
        ),
        Key::optional(
            "refreservation",
            Kind::Checked(&SIZE_OR_NONE),
            "Space kept free for its own files.",
            "refreservation: 5G",
        ),
        Key::optional(
            "copies",
            Kind::Choice(&["1", "2", "3"]),
            "How many copies of each block are kept.",
            "copies: 2",
        ),
        Key::optional(
            "checksum",
            Kind::Choice(&["on", "fletcher2", "fletcher4", "sha256", "sha512", "skein", "edonr", "blake3"]),
            "Which checksum proves a block. `off` is refused: it would give up what ZFS is for.",
            "checksum: blake3",
        ),
        Key::optional(
            "dedup",
            Kind::Choice(&["off", "on", "verify", "sha256", "sha512", "skein", "blake3"]),
            "Whether equal blocks are stored once. Costs memory for every block.",
            "dedup: off",
        ),
        Key::optional(
            "xattr",
            Kind::Choice(&["sa", "dir", "on", "off"]),
            "How extended attributes are stored; `sa` keeps them with the file.",
            "xattr: sa",
        ),
        Key::optional(
            "acltype",
            Kind::Choice(&["posix", "posixacl", "nfsv4", "off", "noacl"]),
            "Which access control lists it keeps.",
            "acltype: posix",
        ),
        Key::optional(
            "aclinherit",
            Kind::Choice(&["discard", "noallow", "restricted", "passthrough", "passthrough-x"]),
            "What new files inherit of NFSv4 ACLs.",
            "aclinherit: passthrough",
        ),
        Key::optional(
            "aclmode",
            Kind::Choice(&["discard", "groupmask", "passthrough", "restricted"]),
            "What chmod does to an ACL.",
            "aclmode: discard",
        ),
        Key::optional(
            "canmount",
            Kind::Choice(&["on", "off", "noauto"]),
            "Whether it is mounted.",
            "canmount: on",
        ),
        Key::optional("devices", ON_OFF, "Whether device nodes in it work.", "devices: off"),
        Key::optional("exec", ON_OFF, "Whether programs in it may be run.", "exec: off"),
        Key::optional("setuid", ON_OFF, "Whether set-user-id bits in it count.", "setuid: off"),
        Key::optional("readonly", ON_OFF, "Whether it can be written.", "readonly: off"),
        Key::optional("relatime", ON_OFF, "With `atime=on`: writes access times rarely.", "relatime: on"),
        Key::optional(
            "overlay",
            ON_OFF,
            "Whether it may be mounted over a directory that is not empty.",
            "overlay: off",
        ),
        Key::optional(
            "nbmand",
            ON_OFF,
            "Mandatory locks; of no use on Linux, kept for pools from elsewhere.",
            "nbmand: off",
        ),
        Key::optional(
            "vscan",
            ON_OFF,
            "Virus scan service; of no use on Linux, kept for pools from elsewhere.",
            "vscan: off",
        ),
        Key::optional(
            "utf8only",
            ON_OFF,
            "Refuses file names that are not UTF-8. Fixed when the dataset is made.",
            "utf8only: on",
        ),
        Key::optional(
            "snapdir",
            Kind::Choice(&["hidden", "visible", "disabled"]),
            "Whether `.zfs` is listed.",
            "snapdir: hidden",
        ),
        Key::optional(
            "sync",
            Kind::Choice(&["standard", "always"]),
            "When writes are made durable. `disabled` is refused: it breaks the promise of fsync, and with it databases.",
            "sync: standard",
        ),
        Key::optional(
            "logbias",
            Kind::Choice(&["latency", "throughput"]),
            "What synchronous writes are tuned for; `throughput` suits databases without a log device.",
            "logbias: throughput",
        ),
        Key::optional(
            "primarycache",
            Kind::Choice(&["all", "metadata", "none"]),
            "What is cached in memory; `metadata` where the database caches itself.",
            "primarycache: metadata",
        ),
        Key::optional(
            "secondarycache",
            Kind::Choice(&["all", "metadata", "none"]),
            "What is cached on a cache device.",
            "secondarycache: all",
        ),
        Key::optional(
            "redundant_metadata",
            Kind::Choice(&["all", "most", "some", "none"]),
            "How much metadata is stored twice.",
            "redundant_metadata: most",
        ),
        Key::optional(
            "special_small_blocks",
            Kind::Checked(&SMALL_BLOCKS),
            "Blocks up to this size go to the special device; 0 for none.",
            "special_small_blocks: 0",
        ),
        Key::optional(
            "dnodesize",
            Kind::Choice(&["legacy", "auto", "1k", "2k", "4k", "8k", "16k"]),
            "Size of a file's own record; `auto` goes with `xattr=sa`.",
            "dnodesize: auto",
        ),
        Key::optional(
            "casesensitivity",
            Kind::Choice(&["sensitive", "insensitive", "mixed"]),
            "Whether `A` and `a` are two names. Fixed when the dataset is made.",
            "casesensitivity: sensitive",
        ),
        Key::optional(
            "normalization",
            Kind::Choice(&["none", "formC", "formD", "formKC", "formKD"]),
            "How file names are compared. Fixed when the dataset is made.",
            "normalization: none",
        ),
        Key::optional(
            "filesystem_limit",
            Kind::Checked(&COUNT_OR_NONE),
            "How many datasets may be below it.",
            "filesystem_limit: 100",
        ),
        Key::optional(
            "snapshot_limit",
            Kind::Checked(&COUNT_OR_NONE),
            "How many snapshots may be taken of it.",
            "snapshot_limit: 1000",
        ),
    ],
};

/// Properties that exist, but only for volumes; a manifest lays out file systems.
pub(crate) const VOLUME_PROPERTIES: &[&str] =
    &["volsize", "volblocksize", "volmode", "volthreading", "snapdev"];

static RECORD_SIZE: Rule =
    Rule { what: "a record size", pattern: "^[0-9]+[KMkm]?$", check: |text| power_of_two(text, 512) };

static SMALL_BLOCKS: Rule = Rule {
    what: "a size",
    pattern: "^[0-9]+[KMkm]?$",
    check: |text| if text == "0" { Ok(()) } else { power_of_two(text, 512) },
};

static COMPRESSION: Rule = Rule {
    what: "a compression",
    pattern: "^(on|off|lz4|lzjb|zle|gzip(-[1-9])?|zstd(-[0-9]+)?|zstd-fast(-[0-9]+)?)$",
    check: check_compression,
};

static SIZE_OR_NONE: Rule = Rule {
    what: "a size, or `none`",
    pattern: "^(none|[0-9]+[KMGTPkmgtp]?)$",
    check: |text| if text == "none" { Ok(()) } else { parse_size(text).map(drop) },
};

static COUNT_OR_NONE: Rule = Rule {
    what: "a number, or `none`",
    pattern: "^(none|[0-9]+)$",
    check: |text| {
        if text == "none" { Ok(()) } else { crate::values::parse_integer(text, 0, 1 << 53).map(drop) }
    },
};

/// OpenZFS: SPA_MINBLOCKSIZE is 512 bytes, SPA_MAXBLOCKSIZE 16 MiB.
fn power_of_two(text: &str, min: u64) -> Result<(), Wrong> {
    const MAX: u64 = 16 << 20;
    let wrong = Wrong::because("it must be a power of two from 512 to 16M");
    let Ok(size) = parse_size(text) else { return Err(wrong.hint("for example `8k`, `128k` or `1M`")) };
    if size.is_power_of_two() && (min..=MAX).contains(&size) {
        return Ok(());
    }
    let near = size.clamp(min, MAX).next_power_of_two();
    Err(wrong.hint(format!("`{}` is near", short_size(near))))
}

fn short_size(bytes: u64) -> String {
    match bytes {
        b if b >= 1 << 20 && b.is_multiple_of(1 << 20) => format!("{}M", b >> 20),
        b if b >= 1 << 10 && b.is_multiple_of(1 << 10) => format!("{}k", b >> 10),
        b => b.to_string(),
    }
}

fn check_compression(text: &str) -> Result<(), Wrong> {
    const PLAIN: [&str; 8] = ["lz4", "zstd", "off", "on", "gzip", "zstd-fast", "lzjb", "zle"];
    if PLAIN.contains(&text) {
        return Ok(());
    }
    let level = |digits: &str, allowed: fn(u64) -> bool, range: &str| {
        let good =
            !digits.starts_with('0') && crate::values::parse_integer(digits, 0, 1000).is_ok_and(allowed);
        if good { Ok(()) } else { Err(Wrong::because(format!("its level must be {range}"))) }
    };
    if let Some(digits) = text.strip_prefix("zstd-fast-") {
        let allowed = |l| matches!(l, 1..=10 | 20 | 30 | 40 | 50 | 60 | 70 | 80 | 90 | 100 | 500 | 1000);
        return level(digits, allowed, "1 to 10, 20, 30, … 100, 500 or 1000");
    }
    if let Some(digits) = text.strip_prefix("zstd-") {
        return level(digits, |l| (1..=19).contains(&l), "1 to 19");
    }
    if let Some(digits) = text.strip_prefix("gzip-") {
        return level(digits, |l| (1..=9).contains(&l), "1 to 9");
    }
    let wrong = Wrong::because("ZFS has no such compression");
    match crate::nearest::did_you_mean(text, PLAIN) {
        Some(hint) => Err(wrong.hint(hint)),
        None => Err(wrong.hint("use `lz4`, `zstd`, `zstd-1` … `zstd-19` or `off`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compressions() {
        for good in ["lz4", "off", "zstd-19", "zstd-fast-500", "gzip-9"] {
            assert_eq!(check_compression(good), Ok(()), "{good}");
        }
        for bad in ["", "lz5", "zstd-0", "zstd-20", "zstd-03", "zstd-", "gzip-10", "zstd-fast-11", "zstd--1"]
        {
            assert!(check_compression(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_powers_of_two_are_record_sizes() {
        let good: Vec<u64> = (1..=1 << 15).filter(|b| power_of_two(&b.to_string(), 512).is_ok()).collect();
        assert_eq!(good, (9..=15).map(|bit| 1 << bit).collect::<Vec<u64>>());
    }
}

//! What the README says is so: its tables are the test.

use std::collections::BTreeSet;
use std::path::Path;

use kld_pool::{PoolProperties, Properties, PropertyError};

const README: &str = include_str!("../README.md");

/// What `zfs create -o` can set with OpenZFS 2.3 on Linux (zfsprops(7)).
const DATASETS: [&str; 59] = [
    "aclinherit",
    "aclmode",
    "acltype",
    "atime",
    "canmount",
    "casesensitivity",
    "checksum",
    "compression",
    "context",
    "copies",
    "dedup",
    "defcontext",
    "devices",
    "direct",
    "dnodesize",
    "encryption",
    "exec",
    "filesystem_limit",
    "fscontext",
    "keyformat",
    "keylocation",
    "logbias",
    "longname",
    "mountpoint",
    "nbmand",
    "normalization",
    "overlay",
    "pbkdf2iters",
    "prefetch",
    "primarycache",
    "quota",
    "readonly",
    "recordsize",
    "redundant_metadata",
    "refquota",
    "refreservation",
    "relatime",
    "reservation",
    "rootcontext",
    "secondarycache",
    "setuid",
    "sharenfs",
    "sharesmb",
    "snapdev",
    "snapdir",
    "snapshot_limit",
    "special_small_blocks",
    "sync",
    "userquota@root",
    "utf8only",
    "version",
    "volblocksize",
    "volmode",
    "volsize",
    "volthreading",
    "vscan",
    "xattr",
    "zoned",
    "com.example:note",
];

/// What `zpool create -o` can set (zpoolprops(7)).
const POOLS: [&str; 17] = [
    "altroot",
    "ashift",
    "autoexpand",
    "autoreplace",
    "autotrim",
    "bootfs",
    "cachefile",
    "comment",
    "compatibility",
    "dedup_table_quota",
    "delegation",
    "failmode",
    "feature@lz4_compress",
    "listsnapshots",
    "multihost",
    "readonly",
    "version",
];

/// The rows of the table whose first column is called so, cell by cell.
fn table(head: &str) -> Vec<Vec<&'static str>> {
    let at = README.find(&format!("| {head} |")).expect("the table is there");
    let rows = README[at..].lines().skip(2).take_while(|line| line.starts_with('|'));
    rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

/// The words in backticks.
fn words(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// Every value of every row is taken or refused as its column says, and the rows have all of `names`.
fn check(head: &str, names: &[&str], set: &dyn Fn(&str, &str) -> Result<(), PropertyError>) {
    let mut seen = BTreeSet::new();
    for row in table(head) {
        for property in words(row[0]) {
            assert!(seen.insert(property), "{property} stands there twice");
            for value in words(row[1]) {
                set(property, value).unwrap_or_else(|error| panic!("{property}={value}: {error}"));
            }
            for value in words(row[2]) {
                let Err(error) = set(property, value) else { panic!("{property}={value} is taken") };
                assert!(!matches!(error, PropertyError::Unknown { .. }), "{error}");
                assert!(!error.hint().is_empty(), "{error}");
            }
        }
    }
    let missing: Vec<_> = names.iter().filter(|name| !seen.contains(*name)).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_property_of_datasets_is_taken_or_refused() {
    check("of datasets", &DATASETS, &|name, value| Properties::new().set(name, value));
}

#[test]
fn every_property_of_pools_is_taken_or_refused() {
    check("of pools", &POOLS, &|name, value| PoolProperties::new().set(name, value));
}

#[test]
fn what_proves_a_row_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = ["tests", "src", "../kldload/tests/vm"].map(|folder| root.join(folder));
    let tests: BTreeSet<&str> = words(README).into_iter().filter(|word| word.ends_with(".rs")).collect();
    assert!(tests.len() > 10, "{tests:?}");
    for test in tests {
        assert!(folders.iter().any(|folder| folder.join(test).is_file()), "there is no {test}");
    }
}

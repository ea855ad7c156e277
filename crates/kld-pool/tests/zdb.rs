//! Pools as zdb sees them: every block readable, nothing leaked, counts right, files intact.

mod support;

use kld_pool::SnapshotSpec;
use kld_pool::tree::{Data, Extent, Kind, Meta, SourceFile, Timestamp, Tree};
use std::sync::Arc;
use support::{Random, dataset, pool, random_tree, write};

fn check_random(seed: u64, ashift: u8, properties: &[(&str, &str)]) {
    let mut random = Random(seed);
    let tree = random_tree(&mut random, 250);
    let other = random_tree(&mut random, 20);
    let mut spec = pool(300);
    spec.ashift = ashift;
    let mut root = dataset("fz/root", properties, Some(tree.clone()));
    root.snapshots = vec!["install".into()];
    spec.datasets = vec![root, dataset("fz/srv/data", &[], Some(other))];
    let image = write(&spec);
    image.check();
    let files: Vec<_> = tree
        .walk()
        // zdb refuses to extract an empty file.
        .filter(|(_, node)| matches!(node.kind(), Kind::File(data) if !data.is_empty()))
        .collect();
    for _ in 0..3 {
        let (path, _) = &files[random.below(files.len())];
        let text = std::str::from_utf8(path).unwrap();
        assert_eq!(image.extract("fz/root", text), tree.read(path).unwrap(), "seed {seed} {text}");
    }
}

#[test]
fn lz4_with_default_records() {
    check_random(1, 12, &[("dnodesize", "auto")]);
}

#[test]
fn zstd_with_large_records() {
    check_random(2, 12, &[("compression", "zstd-3"), ("recordsize", "1M"), ("dnodesize", "auto")]);
}

#[test]
fn uncompressed_with_small_records_and_spill_blocks() {
    check_random(3, 12, &[("compression", "off"), ("recordsize", "4k")]);
}

#[test]
fn strongest_zstd_and_small_sectors() {
    check_random(4, 9, &[("compression", "zstd-19"), ("recordsize", "16k")]);
}

#[test]
fn large_sectors() {
    check_random(5, 13, &[("recordsize", "32k")]);
}

#[test]
fn nested_datasets_with_limits_and_snapshots() {
    let mut spec = pool(200);
    let tree = || Some(random_tree(&mut Random(6), 30));
    let mut deep = dataset(
        "fz/srv/app/db",
        &[("recordsize", "8k"), ("refreservation", "10M"), ("com.example:k", "v")],
        tree(),
    );
    deep.snapshots = ["a", "b", "c"].map(SnapshotSpec::from).into();
    spec.datasets = vec![
        deep,
        dataset("fz/srv", &[("quota", "100M"), ("reservation", "50M"), ("mountpoint", "/srv")], None),
        dataset("fz", &[("mountpoint", "none"), ("atime", "off"), ("compression", "zstd-3")], None),
        dataset("fz/ROOT/debian", &[("canmount", "noauto"), ("mountpoint", "/")], tree()),
    ];
    spec.bootfs = Some("fz/ROOT/debian".parse().unwrap());
    spec.properties.set("compatibility", "openzfs-2.1-linux").unwrap();
    spec.properties.set("autotrim", "on").unwrap();
    let image = write(&spec);
    image.check();
    let names: Vec<_> = image.summary.datasets.iter().map(|dataset| dataset.name.as_str()).collect();
    assert_eq!(names, ["fz", "fz/ROOT", "fz/ROOT/debian", "fz/srv", "fz/srv/app", "fz/srv/app/db"]);
    let text = String::from_utf8(image.zdb(&["-C", "fz"]).stdout).unwrap();
    assert!(text.contains("compatibility: 'openzfs-2.1-linux'"), "{text}");
}

#[test]
fn deep_trees_of_blocks_and_long_holes() {
    let mut tree = Tree::new();
    let meta = || Meta::root(0o644, Timestamp::default());
    // 512-byte records: three levels of indirect blocks in a megabyte.
    let content = Random(8).bytes(1_100_000);
    tree.insert("deep", meta(), Kind::File(Data::bytes(content.clone()))).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    std::fs::write(&source, &content).unwrap();
    let file = Arc::new(SourceFile::open(&source).unwrap());
    let extents = [Extent { start: 5 << 30, len: 700_000, offset: 1000 }];
    tree.insert("sparse", meta(), Kind::File(Data::Sparse { file, extents: extents.into(), len: 1 << 40 }))
        .unwrap();
    for i in 0..5000 {
        tree.insert(format!("{i:0100}"), meta(), Kind::Fifo).unwrap();
    }
    let mut spec = pool(128);
    spec.datasets = vec![dataset("fz/root", &[("recordsize", "512"), ("compression", "off")], Some(tree))];
    let image = write(&spec);
    image.check();
    assert_eq!(image.extract("fz/root", "deep"), content);
}

//! The far ends: very large attributes, directories, files and numbers of datasets.

mod support;

use std::sync::Arc;

use kld_pool::tree::{Data, Extent, Kind, Meta, SourceFile, Timestamp, Tree};
use support::{Random, dataset, pool, write};

fn meta() -> Meta {
    Meta::root(0o644, Timestamp::default())
}

#[test]
fn attributes_that_do_not_fit_the_inode() {
    let random = &mut Random(71);
    let mut tree = Tree::new();
    for (name, sizes) in [
        ("one", &[40_000][..]),
        ("several", &[30_000, 30_000, 30_000, 100]),
        ("both", &[100, 70_000]),
        ("small", &[100]),
    ] {
        let mut meta = meta();
        for (i, size) in sizes.iter().enumerate() {
            meta.xattrs.insert(format!("user.{i}").into_bytes(), random.bytes(*size));
        }
        tree.insert(name, meta.clone(), Kind::File(Data::bytes(*b"content"))).unwrap();
        tree.insert(format!("{name}.d"), meta.clone(), Kind::Directory).unwrap();
        tree.insert(format!("{name}.d/link"), meta, Kind::Symlink(b"target".to_vec())).unwrap();
    }
    tree.link("one", "one.again").unwrap();
    let mut changed = tree.clone();
    changed.meta_mut("both").unwrap().xattrs.insert(b"user.1".to_vec(), random.bytes(80_000));
    changed.remove("one.d/link").unwrap();
    for properties in [&[][..], &[("dnodesize", "auto")]] {
        let mut spec = pool(128);
        let mut root = dataset("fz/root", properties, Some(changed.clone()));
        root.snapshots = vec!["a".into(), "b".into()];
        root.snapshots[0].content = Some(tree.clone().into());
        spec.datasets = vec![root, dataset("fz/alone", properties, Some(tree.clone()))];
        let image = write(&spec);
        image.check();
        for state in ["fz/root@a", "fz/alone"] {
            // Numbers start after five tables and the root; "both" is the first name.
            let text = String::from_utf8(image.zdb(&["-dddd", state, "7"]).stdout).unwrap();
            assert!(text.contains("user.0"), "{text}");
            let line =
                text.lines().find(|line| line.trim_start().starts_with("xattr\t")).expect(&text).to_owned();
            let number = line.split_whitespace().last().unwrap().to_owned();
            let text = String::from_utf8(image.zdb(&["-dddd", state, &number]).stdout).unwrap();
            assert!(text.contains("user.1 = ") && text.contains("uid     0"), "{text}");
        }
    }
}

#[test]
fn a_directory_of_a_quarter_million_names() {
    let mut tree = Tree::new();
    tree.insert("file", meta(), Kind::File(Data::bytes(*b"x"))).unwrap();
    tree.insert("d", Meta::root(0o755, Timestamp::default()), Kind::Directory).unwrap();
    for i in 0..250_000 {
        tree.link("file", format!("d/name-{i}")).unwrap();
    }
    let mut spec = pool(256);
    spec.datasets = vec![dataset("fz/root", &[], Some(tree))];
    let image = write(&spec);
    image.check();
    assert_eq!(image.extract("fz/root", "d/name-249999"), b"x");
}

#[test]
fn sparse_files_of_many_tebibytes() {
    let content = Random(72).bytes(3_000_000);
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    std::fs::write(&source, &content).unwrap();
    let file = Arc::new(SourceFile::open(&source).unwrap());
    let mut tree = Tree::new();
    for (name, start, len) in
        [("a", 1u64 << 42, 5 << 40), ("b", (1 << 60) + 12_345, 1 << 61), ("c", 0, 1 << 45)]
    {
        let extents = [Extent { start, len: 2_000_000, offset: 77 }];
        let data = Data::Sparse { file: Arc::clone(&file), extents: extents.into(), len };
        tree.insert(name, meta(), Kind::File(data)).unwrap();
    }
    let whole = Data::Slice { file, offset: 0, len: 3_000_000 };
    tree.insert("whole", meta(), Kind::File(whole)).unwrap();
    let mut older = tree.clone();
    older.remove("b").unwrap();
    let mut spec = pool(128);
    let mut root = dataset("fz/root", &[("recordsize", "16k")], Some(tree));
    root.snapshots = vec!["a".into()];
    root.snapshots[0].content = Some(older.into());
    spec.datasets = vec![root];
    let image = write(&spec);
    image.check();
    assert!(image.extract("fz/root", "whole") == content);
}

#[test]
fn more_objects_of_the_pool_than_one_indirect_block_can_name() {
    let mut spec = pool(512);
    spec.datasets = (0..3500).map(|i| dataset(&format!("fz/d{i}"), &[], None)).collect();
    let image = write(&spec);
    image.check();
    let text = String::from_utf8(image.zdb(&["-dd", "fz"]).stdout).unwrap();
    assert!(text.contains("Dataset fz/d3499 "), "{}", &text[..2000]);
}

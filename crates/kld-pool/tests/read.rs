//! What the writer writes comes back identical through the reader, whatever the tree and the settings.

mod support;

use std::collections::BTreeMap;
use std::io::Read;

use kld_pool::read::{DatasetKind, Filesystem, Node, NodeKind, Pool, PropertySource, PropertyValue};
use kld_pool::tree::{Kind, Tree};
use proptest::prelude::*;
use support::{Random, dataset, pool, random_tree, write};

/// Compares a file system with the tree it was written from.
fn compare(filesystem: &Filesystem, tree: &Tree) {
    let mut objects: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    let mut names = tree.walk();
    for entry in filesystem.walk() {
        let entry = entry.unwrap();
        let (path, wanted) = names.next().expect("the pool has more names than the tree");
        let shown = String::from_utf8_lossy(&path).into_owned();
        assert_eq!(entry.path, path, "{shown}");
        let (found, meta) = (entry.node.metadata(), wanted.meta());
        // Links have no mode of their own: Linux shows all bits.
        let mode = if matches!(wanted.kind(), Kind::Symlink(_)) { 0o777 } else { meta.mode };
        assert_eq!(
            (found.mode, found.uid, found.gid, found.modified),
            (mode, meta.uid.into(), meta.gid.into(), meta.mtime),
            "{shown}"
        );
        assert_eq!(filesystem.xattrs(&entry.node).unwrap(), meta.xattrs, "{shown}");
        compare_content(filesystem, &entry.node, wanted.kind(), &shown);
        let looked_up = filesystem.lookup(&path).unwrap();
        assert_eq!(looked_up.object(), entry.node.object(), "{shown}");
        // Names that are one file in the tree are one object in the pool, and the other way round.
        let first = objects.entry(entry.node.object()).or_insert_with(|| path.clone());
        assert_eq!(tree.get(&first[..]).unwrap().id(), wanted.id(), "{shown}");
    }
    assert!(names.next().is_none(), "the pool has fewer names than the tree");
}

fn compare_content(filesystem: &Filesystem, node: &Node, wanted: &Kind, shown: &str) {
    let found = node.metadata();
    match wanted {
        Kind::Directory => assert_eq!(found.kind, NodeKind::Directory, "{shown}"),
        Kind::File(data) => {
            assert_eq!((found.kind, found.size), (NodeKind::File, data.len()), "{shown}");
            let mut content = Vec::new();
            filesystem.content(node).read_to_end(&mut content).unwrap();
            assert!(content == data.read().unwrap(), "{shown}");
        }
        Kind::Symlink(target) => {
            assert_eq!(found.kind, NodeKind::Symlink, "{shown}");
            assert_eq!(filesystem.read_link(node).unwrap(), *target, "{shown}");
        }
        Kind::CharDevice { major, minor } => {
            assert_eq!(found.kind, NodeKind::CharDevice { major: *major, minor: *minor }, "{shown}");
        }
        Kind::BlockDevice { major, minor } => {
            assert_eq!(found.kind, NodeKind::BlockDevice { major: *major, minor: *minor }, "{shown}");
        }
        Kind::Fifo => assert_eq!(found.kind, NodeKind::Fifo, "{shown}"),
        Kind::Socket => assert_eq!(found.kind, NodeKind::Socket, "{shown}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn what_is_written_is_read(
        seed: u64,
        count in 1usize..120,
        ashift in prop::sample::select(vec![9u8, 12, 13]),
        compression in prop::sample::select(vec!["off", "lz4", "zstd-1", "zstd-19"]),
        records in prop::sample::select(vec!["512", "4k", "16k", "128k", "1M"]),
        dnodes in prop::sample::select(vec!["legacy", "auto"]),
    ) {
        let tree = random_tree(&mut Random(seed), count);
        let mut spec = pool(300);
        spec.ashift = ashift;
        let properties = [("compression", compression), ("recordsize", records), ("dnodesize", dnodes)];
        let mut root = dataset("fz/root", &properties, Some(tree.clone()));
        root.snapshots = vec!["install".into()];
        spec.datasets = vec![root];
        let image = write(&spec);
        let file = image.device();
        let pool = Pool::open(&[&file]).unwrap();
        compare(&pool.filesystem("fz/root").unwrap(), &tree);
        compare(&pool.filesystem("fz/root@install").unwrap(), &tree);
        prop_assert_eq!(pool.healed(), 0);
    }
}

#[test]
fn datasets_and_properties() {
    let mut spec = pool(128);
    let mut app = dataset("fz/srv/app", &[("recordsize", "8k"), ("quota", "1G")], None);
    app.snapshots = vec!["a".into(), "b".into()];
    spec.datasets = vec![app, dataset("fz", &[("mountpoint", "none"), ("compression", "zstd-3")], None)];
    spec.properties.set("autotrim", "on").unwrap();
    let image = write(&spec);
    let file = image.device();
    let pool = Pool::open(&[&file]).unwrap();
    assert_eq!((pool.name(), pool.guid(), pool.missing_devices()), ("fz", image.summary.guid, 0));
    assert_eq!(pool.properties().unwrap()["autotrim"], PropertyValue::Number(1));
    let datasets = pool.datasets().unwrap();
    let names: Vec<_> = datasets.iter().map(|dataset| (dataset.name.as_str(), dataset.kind)).collect();
    let (filesystem, snapshot) = (DatasetKind::Filesystem, DatasetKind::Snapshot);
    assert_eq!(
        names,
        [
            ("fz", filesystem),
            ("fz/srv", filesystem),
            ("fz/srv/app", filesystem),
            ("fz/srv/app@a", snapshot),
            ("fz/srv/app@b", snapshot)
        ]
    );
    let written = &image.summary.datasets;
    assert_eq!(datasets[2].space.referenced, written[2].referenced);
    let properties = pool.dataset_properties(&datasets[2]).unwrap();
    assert_eq!(properties["recordsize"].value, PropertyValue::Number(8192));
    assert_eq!(properties["recordsize"].source, PropertySource::Local);
    assert_eq!(properties["quota"].value, PropertyValue::Number(1 << 30));
    assert_eq!(properties["compression"].value, PropertyValue::Number(16 | 3 << 7));
    assert_eq!(properties["compression"].source, PropertySource::Inherited("fz".into()));
    let inherited = pool.dataset_properties(&datasets[3]).unwrap();
    assert!(!inherited.contains_key("quota"), "a limit is not inherited");
    let features = pool.features().unwrap();
    let lz4 = features.iter().find(|feature| feature.guid == "org.illumos:lz4_compress").unwrap();
    assert_eq!((lz4.references, lz4.for_read), (1, true));
}

#[test]
fn large_directories_and_sparse_files() {
    use kld_pool::tree::{Data, Extent, Meta, SourceFile, Timestamp};
    let mut tree = Tree::new();
    let meta = || Meta::root(0o644, Timestamp::default());
    tree.ensure_dir("many", Meta::root(0o755, Timestamp::default())).unwrap();
    for i in 0..20_000 {
        tree.insert(format!("many/{i:060}"), meta(), Kind::Fifo).unwrap();
    }
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    std::fs::write(&source, [7; 900_000]).unwrap();
    let file = std::sync::Arc::new(SourceFile::open(&source).unwrap());
    let extents = [Extent { start: 5 << 30, len: 700_000, offset: 1000 }];
    tree.insert("sparse", meta(), Kind::File(Data::Sparse { file, extents: extents.into(), len: 1 << 40 }))
        .unwrap();
    let mut spec = pool(128);
    spec.datasets = vec![dataset("fz/root", &[("compression", "off")], Some(tree))];
    let image = write(&spec);
    let file = image.device();
    let pool = Pool::open(&[&file]).unwrap();
    let filesystem = pool.filesystem("fz/root").unwrap();
    let many = filesystem.lookup("many").unwrap();
    assert_eq!(filesystem.read_dir(&many).unwrap().len(), 20_000);
    assert!(filesystem.lookup(format!("many/{:060}", 19_999)).is_ok());
    let missing = filesystem.lookup("many/none").unwrap_err();
    assert_eq!(missing.to_string(), "no `many/none` in the file system");
    let sparse = filesystem.lookup("sparse").unwrap();
    let (start, end) = filesystem.next_data(&sparse, 0).unwrap().unwrap();
    assert!(start <= 5 << 30 && end > 5 << 30, "{start} {end}");
    let mut buf = [1; 3000];
    assert_eq!(filesystem.read(&sparse, (5 << 30) - 1000, &mut buf).unwrap(), 3000);
    assert_eq!((buf[999], buf[1000], buf[2999]), (0, 7, 7));
    assert_eq!(filesystem.read(&sparse, (1 << 40) - 5, &mut buf).unwrap(), 5);
    assert_eq!(filesystem.read(&sparse, 1 << 40, &mut buf).unwrap(), 0);
}

#[test]
fn a_damaged_label_is_replaced_by_another() {
    let mut spec = pool(64);
    spec.datasets = vec![dataset("fz/root", &[], Some(random_tree(&mut Random(5), 50)))];
    let mut bytes = write(&spec).bytes();
    let names = |bytes: &Vec<u8>| {
        let pool = Pool::open(&[bytes]).unwrap();
        pool.filesystem("fz/root").unwrap().walk().map(Result::unwrap).count()
    };
    let whole = names(&bytes);
    for label in [0, 256 << 10, (64 << 20) - (512 << 10)] {
        bytes[label..label + (256 << 10)].fill(0xa5);
        assert_eq!(names(&bytes), whole);
    }
    bytes[(64 << 20) - (256 << 10)..].fill(0xa5);
    assert_eq!(Pool::open(&[&bytes]).unwrap_err().to_string(), "found no pool: no vdev label is whole");
    let nothing: Vec<u8> = Vec::new();
    assert!(Pool::open(&[&nothing]).is_err());
    assert!(Pool::open(&[]).is_err());
}

//! Clones, bookmarks and holds, judged by zdb and by our own verifier: nothing leaks, what is shared is stored once.

mod support;

use kld_pool::read::{Dataset, DatasetKind, Pool};
use kld_pool::tree::{Data, Kind, Meta, Timestamp, Tree};
use kld_pool::verify::verify;
use kld_pool::{BookmarkSpec, Content, DatasetSpec, PoolSpec, SnapshotSpec, Volume, WriteError, write_pool};
use support::{Image, Random, change, copy, dataset, pool, random_tree, snapshot, write};

fn clone(name: &str, origin: &str, properties: &[(&str, &str)], tree: Option<Tree>) -> DatasetSpec {
    let mut clone = dataset(name, properties, tree);
    clone.origin = Some(origin.parse().unwrap());
    clone
}

fn bookmark(name: &str, snapshot: &str) -> BookmarkSpec {
    BookmarkSpec { name: name.to_owned(), snapshot: snapshot.to_owned() }
}

/// Both judges; gives the datasets.
fn check(image: &Image) -> Vec<Dataset> {
    image.check();
    let bytes = image.bytes();
    let pool = Pool::open(&[&bytes]).unwrap();
    let report = verify(&pool, &());
    assert!(report.is_clean() && report.not_checked.is_empty(), "{report:#?}");
    pool.datasets().unwrap()
}

fn find<'d>(datasets: &'d [Dataset], name: &str) -> &'d Dataset {
    datasets.iter().find(|dataset| dataset.name == name).unwrap()
}

/// A family: clones of the oldest, a middle and the newest snapshot, a clone of a clone, one before its origin by name.
fn family(seed: u64, properties: &[(&str, &str)]) -> (PoolSpec, Vec<(&'static str, Tree)>) {
    let mut random = Random(seed);
    let mut grow = |from: &Tree| {
        let mut next = copy(from);
        change(&mut next, &mut random);
        next
    };
    let first = random_tree(&mut Random(seed), 150);
    let (second, third, other) = (grow(&first), grow(&first), grow(&first));
    let (mine, deep, last) = (grow(&second), grow(&other), grow(&third));
    let mut root = dataset("fz/m/root", properties, Some(third.clone()));
    root.snapshots = vec![snapshot("a", &first), snapshot("b", &second), "c".into()];
    root.snapshots[1].holds = vec!["keep".to_owned(), "a tag: of any sort".to_owned()];
    root.bookmarks = vec![bookmark("oldest", "a"), bookmark("again", "a"), bookmark("newest", "c")];
    let mut branch = clone("fz/m/branch", "fz/m/root@a", properties, Some(deep.clone()));
    branch.snapshots = vec![snapshot("x", &other), "y".into()];
    branch.bookmarks = vec![bookmark("x", "x")];
    let mut spec = pool(500);
    spec.datasets = vec![
        root,
        branch,
        clone("fz/a", "fz/m/root@b", &[("recordsize", "16k"), ("checksum", "sha256")], Some(mine.clone())),
        clone("fz/deep", "fz/m/branch@x", &[], None),
        clone(
            "fz/z/last",
            "fz/m/root@c",
            &[("compression", "zstd-3"), ("refreservation", "20M")],
            Some(last.clone()),
        ),
    ];
    let states = vec![
        ("fz/m/root@a", first),
        ("fz/m/root@b", second),
        ("fz/m/root", third),
        ("fz/m/branch@x", other.clone()),
        ("fz/m/branch@y", deep.clone()),
        ("fz/a", mine),
        ("fz/deep", other),
        ("fz/z/last", last),
    ];
    (spec, states)
}

#[test]
fn random_families_of_clones() {
    for (seed, properties) in [
        (81, &[("dnodesize", "auto")][..]),
        (82, &[("recordsize", "4k"), ("compression", "off"), ("copies", "2")]),
        (83, &[("recordsize", "1M"), ("compression", "zstd-3")]),
    ] {
        let (spec, states) = family(seed, properties);
        let image = write(&spec);
        let datasets = check(&image);
        for (name, origin) in [
            ("fz/m/branch", Some("fz/m/root@a")),
            ("fz/a", Some("fz/m/root@b")),
            ("fz/deep", Some("fz/m/branch@x")),
            ("fz/m/root", None),
        ] {
            assert_eq!(find(&datasets, name).origin.as_deref(), origin, "{name}");
        }
        assert_eq!(find(&datasets, "fz/m/root@a").clones, ["fz/m/branch"]);
        let mut random = Random(seed);
        for (state, tree) in &states {
            support::check_state(&image, state, tree, &mut random);
        }
    }
}

#[test]
fn marks_are_listed_as_they_were_given() {
    let (spec, _) = family(84, &[]);
    let image = write(&spec);
    let datasets = check(&image);
    let bytes = image.bytes();
    let pool = Pool::open(&[&bytes]).unwrap();
    let snapshot = find(&datasets, "fz/m/root@b");
    let holds = pool.holds(snapshot).unwrap();
    let tags: Vec<_> = holds.iter().map(|hold| (hold.tag.as_str(), hold.created)).collect();
    assert_eq!(tags, [("a tag: of any sort", spec.created), ("keep", spec.created)]);
    assert_eq!(pool.holds(find(&datasets, "fz/m/root@a")).unwrap(), []);
    let bookmarks = pool.bookmarks(find(&datasets, "fz/m/root")).unwrap();
    let oldest = find(&datasets, "fz/m/root@a");
    let names: Vec<_> = bookmarks.iter().map(|mark| mark.name.as_str()).collect();
    assert_eq!(names, ["fz/m/root#again", "fz/m/root#newest", "fz/m/root#oldest"]);
    assert_eq!((bookmarks[0].guid, bookmarks[0].created_txg), (oldest.guid, oldest.created_txg));
    // zdb knows bookmarks by their names, too.
    let text = String::from_utf8(image.zdb(&["-dddd", "fz/m/root#newest"]).stdout).unwrap();
    let guid = format!("{:x}", find(&datasets, "fz/m/root@c").guid);
    assert!(text.contains(&guid), "{guid}: {text}");
    // Without the newer features a bookmark is what the oldest releases know.
    let mut old = spec.clone();
    old.properties.set("compatibility", "grub2-2.12").unwrap();
    old.datasets.truncate(2);
    check(&write(&old));
}

#[test]
fn a_clone_without_changes_costs_nothing_but_its_own_entry() {
    let tree = random_tree(&mut Random(85), 200);
    let allocated = |content: Option<Option<Content>>| {
        let mut root = dataset("fz/root", &[("recordsize", "16k")], Some(tree.clone()));
        root.snapshots = vec!["install".into()];
        let mut spec = pool(200);
        spec.datasets.push(root);
        if let Some(content) = content {
            let mut other = clone("fz/other", "fz/root@install", &[], None);
            other.content = content.unwrap_or_default();
            spec.datasets.push(other);
        }
        let image = write(&spec);
        let datasets = check(&image);
        if let Some(clone) = datasets.iter().find(|dataset| dataset.name == "fz/other") {
            assert_eq!(clone.space.referenced, find(&datasets, "fz/root").space.referenced);
            assert_eq!(clone.space.used, 0);
        }
        image.summary.allocated
    };
    let alone = allocated(None);
    // Nothing given, the same tree, and the same tree from elsewhere, although the clone asks for other records.
    for content in [None, Some(tree.clone().into()), Some(copy(&tree).into())] {
        let more = allocated(Some(content)) - alone;
        assert!(more < 100_000, "{more}");
    }
}

#[test]
fn clones_of_volumes() {
    let content = Random(86).bytes(3 << 20);
    let mut changed = content.clone();
    changed[2 << 20..(2 << 20) + 100].fill(7);
    let volume = |data: &[u8]| {
        Content::Volume(Volume { size: 8 << 20, block_size: 16 << 10, data: Data::bytes(data.to_vec()) })
    };
    let mut disk = dataset("fz/disk", &[("compression", "off")], None);
    disk.content = volume(&content);
    disk.snapshots = vec!["a".into()];
    let (mut same, mut other) =
        (clone("fz/same", "fz/disk@a", &[], None), clone("fz/b", "fz/disk@a", &[], None));
    other.content = volume(&changed);
    same.snapshots = vec!["s".into()];
    let mut spec = pool(128);
    spec.datasets = vec![disk, same, other];
    let image = write(&spec);
    let datasets = check(&image);
    assert_eq!(find(&datasets, "fz/same").kind, DatasetKind::Volume);
    let used = find(&datasets, "fz/b").space.used;
    assert!((16 << 10..400 << 10).contains(&used), "{used}");
    let bytes = image.bytes();
    let pool = Pool::open(&[&bytes]).unwrap();
    for (name, wanted) in [("fz/same", &content), ("fz/b", &changed), ("fz/disk", &content)] {
        let mut found = vec![0; wanted.len()];
        pool.volume(name).unwrap().read(0, &mut found).unwrap();
        assert!(found == *wanted, "{name}");
    }
}

#[test]
fn every_state_of_a_clone_is_charged_with_what_it_has_of_its_own() {
    const RECORD: u64 = 128 << 10;
    /// The least that a change costs: indirect blocks, dnodes and the tables over them.
    const METADATA: u64 = 400 << 10;
    let tree = |content: &[u8]| {
        let mut tree = Tree::new();
        let meta = Meta::root(0o644, Timestamp::default());
        tree.insert("f", meta, Kind::File(Data::bytes(content.to_vec()))).unwrap();
        tree
    };
    let whole = Random(87).bytes(40 * RECORD as usize);
    let with = |from: &[u8], records: std::ops::Range<u64>, byte: u8| {
        let mut changed = from.to_vec();
        let bytes = records.start * RECORD..records.end * RECORD;
        changed[bytes.start as usize..bytes.end as usize].fill(byte);
        changed
    };
    let first = with(&whole, 0..10, 1);
    let second = with(&first, 0..4, 2);
    let mut root = dataset("fz/root", &[("compression", "off")], Some(tree(&whole[..10 * RECORD as usize])));
    root.snapshots = vec![snapshot("a", &tree(&whole))];
    let mut branch = clone("fz/branch", "fz/root@a", &[("compression", "off")], Some(tree(&second)));
    branch.snapshots = vec![snapshot("x", &tree(&first))];
    let mut spec = pool(128);
    spec.datasets = vec![root, branch];
    let datasets = check(&write(&spec));
    for (name, used, referenced) in [
        // What the head gave up is charged to the snapshot, although the clone has it, too.
        ("fz/root@a", 30 * RECORD, 40 * RECORD),
        ("fz/root", 40 * RECORD, 10 * RECORD),
        ("fz/branch@x", 4 * RECORD, 40 * RECORD),
        ("fz/branch", 14 * RECORD, 40 * RECORD),
    ] {
        let space = find(&datasets, name).space;
        assert!((used..used + METADATA).contains(&space.used), "{name}: {} used", space.used);
        assert!((referenced..referenced + METADATA).contains(&space.referenced), "{name}: {space:?}");
    }
}

#[test]
fn impossible_clones_are_refused() {
    let error = |datasets: Vec<DatasetSpec>| {
        let mut spec = pool(64);
        spec.datasets = datasets;
        let out = tempfile::tempfile().unwrap();
        let error: WriteError = write_pool(&spec, &[&out], &()).unwrap_err();
        assert_eq!(out.metadata().unwrap().len(), 0, "nothing is touched");
        error.to_string()
    };
    let with_snapshot = |mut dataset: DatasetSpec| {
        dataset.snapshots = vec![SnapshotSpec::from("s")];
        dataset
    };
    let none = error(vec![clone("fz/b", "fz/a@s", &[], None)]);
    assert_eq!(none, "`fz/b` needs the snapshot `fz/a@s`, which is not given");
    let circle = [("fz/a", "fz/b@s"), ("fz/b", "fz/a@s")];
    let circle = circle.map(|(name, origin)| with_snapshot(clone(name, origin, &[], None)));
    assert_eq!(error(circle.into()), "`fz/a` is a clone of itself");
    assert_eq!(error(vec![with_snapshot(clone("fz/a", "fz/a@s", &[], None))]), "`fz/a` is a clone of itself");
    let mut volume = with_snapshot(dataset("fz/v", &[], None));
    volume.content = Content::Volume(Volume { size: 1 << 20, block_size: 8192, data: Data::bytes([1; 10]) });
    let files = clone("fz/f", "fz/v@s", &[], Some(Tree::new()));
    assert_eq!(error(vec![volume, files]), "the volume `fz/f` cannot have its sizes");
}

//! Datasets whose snapshots differ, judged by zdb: nothing leaks, every state reads as it was, totals add up.

mod support;

use kld_pool::tree::{Data, Kind, Tree};
use kld_pool::{Content, SnapshotSpec};
use support::{Random, change, check_state, copy, dataset, meta, pool, random_tree, snapshot, write};

#[test]
fn random_changes_between_snapshots() {
    for (seed, properties) in [
        (31, &[("dnodesize", "auto")][..]),
        (32, &[("recordsize", "4k"), ("compression", "off")]),
        (33, &[("recordsize", "1M"), ("compression", "zstd-3"), ("checksum", "sha256"), ("copies", "2")]),
    ] {
        let mut random = Random(seed);
        let mut trees = vec![random_tree(&mut random, 200)];
        for _ in 0..3 {
            let mut next = copy(trees.last().unwrap());
            change(&mut next, &mut random);
            trees.push(next);
        }
        let mut spec = pool(400);
        let mut root = dataset("fz/root", properties, trees.last().cloned());
        root.snapshots = vec![
            snapshot("a", &trees[0]),
            snapshot("b", &trees[1]),
            "b2".into(),
            snapshot("c", &trees[2]),
            "head".into(),
        ];
        root.snapshots[2].content = Some(Content::Files(copy(&trees[1])));
        spec.datasets = vec![root, dataset("fz/other", &[], Some(trees[0].clone()))];
        let image = write(&spec);
        image.check();
        for (name, tree) in [("a", 0), ("b", 1), ("b2", 1), ("c", 2), ("head", 3)] {
            check_state(&image, &format!("fz/root@{name}"), &trees[tree], &mut random);
        }
        check_state(&image, "fz/root", &trees[3], &mut random);
    }
}

#[test]
fn what_did_not_change_is_stored_once() {
    let tree = random_tree(&mut Random(41), 300);
    let allocated = |snapshots: Vec<SnapshotSpec>, head: &Tree| {
        let mut spec = pool(300);
        let mut root = dataset("fz/root", &[], Some(head.clone()));
        root.snapshots = snapshots;
        spec.datasets = vec![root];
        let image = write(&spec);
        image.check();
        image.summary.allocated
    };
    let alone = allocated(vec!["a".into()], &tree);
    let again = allocated(vec![snapshot("a", &copy(&tree))], &tree);
    assert!(again - alone < 100_000, "{again} {alone}");
    let mut larger = copy(&tree);
    larger.insert("new", meta(), Kind::File(Data::bytes(Random(5).bytes(1 << 20)))).unwrap();
    let more = allocated(vec![snapshot("a", &tree)], &larger);
    assert!((1 << 20..3 << 20).contains(&(more - alone)), "{more} {alone}");
}

#[test]
fn files_that_grow_shrink_and_get_holes() {
    let random = &mut Random(51);
    let whole = random.bytes(3_000_000);
    let states: Vec<Vec<u8>> = vec![
        whole.clone(),
        whole[..2_000_000].to_vec(),
        [&whole[..500_000], &[0; 1_500_000], &whole[..900_000]].concat(),
        vec![0; 2_900_000],
        [&vec![0; 1_000_000], &whole[..10_000], &vec![0; 1_890_000]].concat(),
        whole[..100].to_vec(),
        whole.clone(),
    ];
    let tree = |content: &[u8]| {
        let mut tree = Tree::new();
        tree.insert("f", meta(), Kind::File(Data::bytes(content.to_vec()))).unwrap();
        tree
    };
    for properties in [&[("recordsize", "512")][..], &[("recordsize", "128k")]] {
        let mut spec = pool(200);
        let mut root = dataset("fz/root", properties, states.last().map(|content| tree(content)));
        let older = states[..states.len() - 1].iter().enumerate();
        root.snapshots = older.map(|(i, content)| snapshot(&format!("s{i}"), &tree(content))).collect();
        spec.datasets = vec![root];
        let image = write(&spec);
        image.check();
        for (i, content) in states[..states.len() - 1].iter().enumerate() {
            assert!(image.extract(&format!("fz/root@s{i}"), "f") == *content, "{i}");
        }
        assert!(image.extract("fz/root", "f") == whole);
    }
}

#[test]
fn bytes_of_versions_do_not_depend_on_threads() {
    let random = &mut Random(61);
    let old = random_tree(random, 100);
    let mut new = copy(&old);
    change(&mut new, random);
    let image = |threads| {
        let mut spec = pool(128);
        spec.threads = threads;
        let mut root = dataset("fz/root", &[("compression", "zstd-1")], Some(new.clone()));
        root.snapshots = vec![snapshot("a", &old)];
        spec.datasets = vec![root];
        write(&spec).bytes()
    };
    assert!(image(1) == image(4));
}

#[test]
fn every_state_is_charged_with_what_only_it_holds() {
    const RECORD: u64 = 128 << 10;
    /// The least that a change costs: indirect blocks, dnodes and the tables over them.
    const METADATA: u64 = 256 << 10;
    let whole = Random(71).bytes(40 * RECORD as usize);
    let tree = |content: &[u8]| {
        let mut tree = Tree::new();
        tree.insert("f", meta(), Kind::File(Data::bytes(content.to_vec()))).unwrap();
        tree
    };
    let mut changed = whole.clone();
    changed[..3 * RECORD as usize].fill(7);
    let mut spec = pool(128);
    let mut root = dataset("fz/root", &[("compression", "off")], Some(tree(&changed[..5 * RECORD as usize])));
    root.snapshots = vec![snapshot("a", &tree(&whole)), snapshot("b", &tree(&changed)), "c".into()];
    spec.datasets = vec![root];
    let image = write(&spec);
    image.check();
    let zdb = |args: &[&str]| String::from_utf8(image.zdb(args).stdout).unwrap();
    let list = zdb(&["-d", "fz"]);
    let number = |state: &str, field: &str| {
        let line = list.lines().find(|line| line.starts_with(&format!("Dataset {state} "))).unwrap();
        let id = line.split("ID ").nth(1).unwrap().split(',').next().unwrap();
        let text = zdb(&["-P", "-dddd", "fz", id]);
        let line = text.lines().find(|line| line.trim().starts_with(field)).expect(&text);
        line.split(" = ").nth(1).unwrap().trim().parse::<u64>().unwrap()
    };
    for (state, unique, referenced) in [
        ("fz/root@a", 3 * RECORD, 40 * RECORD),
        // The other 35 records are also those of the first snapshot.
        ("fz/root@b", 0, 40 * RECORD),
        ("fz/root@c", 0, 5 * RECORD),
        ("fz/root", 0, 5 * RECORD),
    ] {
        let (found_unique, found) = (number(state, "unique = "), number(state, "used_bytes"));
        assert!((unique..unique + METADATA).contains(&found_unique), "{state}: {found_unique} unique");
        assert!((referenced..referenced + METADATA).contains(&found), "{state}: {found}");
    }
    assert_eq!(number("fz/root@c", "unique = "), 0);
    let deadlist = zdb(&["-ddddd", "fz/root@c"]);
    assert!(deadlist.contains("Deadlist"), "{deadlist}");
}

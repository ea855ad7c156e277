//! Pools on several top-level vdevs and on raidz, judged by zdb and by our own verifier.

mod support;

use std::io::Read;

use kld_pool::read::Pool;
use kld_pool::tree::{Data, Kind, Meta, Timestamp, Tree};
use kld_pool::verify::{FindingKind, verify};
use kld_pool::{Parity, PoolSpec, ReadAt, Redundancy, Vdev, WriteError, write_pool};
use support::{Random, check_state, dataset, pool, random_tree, write};

fn vdev(mib: u64, paths: &[&str]) -> Vdev {
    let paths = paths.iter().map(|path| (*path).to_owned()).collect();
    Vdev { size: mib << 20, paths, redundancy: Redundancy::Mirror }
}

fn raidz(mib: u64, devices: usize, parity: Parity) -> Vdev {
    let paths = (0..devices).map(|i| format!("/z{i}")).collect();
    Vdev { size: mib << 20, paths, redundancy: Redundancy::Raidz(parity) }
}

/// A device, a mirror, and a larger device.
fn stripe() -> (PoolSpec, Tree) {
    let mut tree = random_tree(&mut Random(91), 200);
    let meta = Meta::root(0o644, Timestamp::default());
    tree.insert("large", meta, Kind::File(Data::bytes(Random(92).bytes(70 << 20)))).unwrap();
    let mut spec = pool(0);
    spec.vdevs = vec![vdev(100, &["/a"]), vdev(100, &["/b", "/c"]), vdev(200, &["/d"])];
    let mut root = dataset("fz/root", &[("recordsize", "64k")], Some(tree.clone()));
    root.snapshots = vec!["a".into()];
    spec.datasets =
        vec![root, dataset("fz/twice", &[("copies", "2")], Some(random_tree(&mut Random(93), 20)))];
    (spec, tree)
}

#[test]
fn blocks_are_spread_over_all_vdevs() {
    let (spec, tree) = stripe();
    let image = write(&spec);
    image.check();
    check_state(&image, "fz/root", &tree, &mut Random(94));
    let config = String::from_utf8(image.zdb(&["-C", "fz"]).stdout).unwrap();
    assert!(config.contains("vdev_children: 3") && config.contains("type: 'mirror'"), "{config}");
    let files = image.devices();
    let outs: Vec<&dyn ReadAt> = files.iter().map(|file| file as &dyn ReadAt).collect();
    // In any order, as the labels say where each belongs.
    let pool = Pool::open(&[outs[3], outs[1], outs[0], outs[2]]).unwrap();
    let report = verify(&pool, &());
    assert!(report.is_clean() && report.not_checked.is_empty(), "{report:#?}");
    assert_eq!(report.used.iter().sum::<u64>(), image.summary.allocated);
    // By their sizes: the last one is twice as large as the others.
    let share = |vdev: usize| report.used[vdev] * 100 / image.summary.allocated;
    assert!((22..=28).contains(&share(0)) && (22..=28).contains(&share(1)), "{:?}", report.used);
    assert!((46..=54).contains(&share(2)), "{:?}", report.used);
}

#[test]
fn a_vdev_that_is_missing_takes_content_but_no_names() {
    let (spec, tree) = stripe();
    let image = write(&spec);
    let files = image.devices();
    let outs: Vec<&dyn ReadAt> = files.iter().map(|file| file as &dyn ReadAt).collect();
    for present in [&[0, 1, 2][..], &[0, 3], &[2, 3]] {
        let present: Vec<&dyn ReadAt> = present.iter().map(|i| outs[*i]).collect();
        let pool = Pool::open(&present).unwrap();
        let filesystem = pool.filesystem("fz/root").unwrap();
        let names = filesystem.walk().map(|entry| entry.unwrap().path);
        assert!(names.eq(tree.walk().map(|(path, _)| path)));
        let large = filesystem.lookup(b"large").unwrap();
        assert!(filesystem.content(&large).read_to_end(&mut Vec::new()).is_err());
    }
    // Of the mirror one device is enough.
    let pool = Pool::open(&[outs[0], outs[2], outs[3]]).unwrap();
    let filesystem = pool.filesystem("fz/root").unwrap();
    let mut content = Vec::new();
    filesystem.content(&filesystem.lookup(b"large").unwrap()).read_to_end(&mut content).unwrap();
    assert!(content == tree.read("large").unwrap());
}

#[test]
fn bytes_of_all_devices_do_not_depend_on_threads() {
    let bytes = |threads| {
        let (mut spec, _) = stripe();
        spec.threads = threads;
        let image = write(&spec);
        image.bytes_of_devices()
    };
    let one = bytes(1);
    assert!(one == bytes(3));
    assert!(one[1][4 << 20..90 << 20] == one[2][4 << 20..90 << 20], "the sides of a mirror hold the same");
}

#[test]
fn small_vdevs_fill_up_and_what_does_not_fit_says_how_much_would() {
    let mut tree = Tree::new();
    let meta = Meta::root(0o644, Timestamp::default());
    tree.insert("f", meta, Kind::File(Data::bytes(Random(95).bytes(110 << 20)))).unwrap();
    let mut spec = pool(0);
    spec.datasets = vec![dataset("fz/root", &[], Some(tree))];
    spec.vdevs = vec![vdev(64, &["/a"]), vdev(64, &["/b"]), vdev(64, &["/c"])];
    write(&spec).check();
    spec.vdevs.pop();
    let outs = [tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap()];
    let Err(WriteError::TooSmall { size, needed }) = write_pool(&spec, &[&outs[0], &outs[1]], &()) else {
        panic!("it must not fit")
    };
    assert_eq!(size, 128 << 20);
    spec.vdevs.iter_mut().for_each(|vdev| vdev.size = needed / 2);
    write(&spec).check();
}

#[test]
fn a_vdev_without_device_is_refused() {
    let error = |vdevs: Vec<Vdev>| {
        let mut spec = pool(64);
        spec.vdevs = vdevs;
        write_pool(&spec, &[&tempfile::tempfile().unwrap()], &()).unwrap_err().to_string()
    };
    for vdevs in [vec![], vec![vdev(64, &["/a"]), vdev(64, &[])]] {
        assert_eq!(error(vdevs), "a pool needs 1 to 256 vdevs, each with a device");
    }
    let narrow = error(vec![raidz(64, 2, Parity::Double)]);
    assert_eq!(narrow, "a raidz on 2 devices is not possible: it takes 3 to 255");
    let two = vec![vdev(64, &["/a"]), vdev(64, &["/b"])];
    assert_eq!(error(two), "a pool on 2 devices cannot be written to 1 outputs");
}

/// A tree with files of all sizes, and one that touches all rows and both halves of a swap.
fn raidz_spec(seed: u64, vdevs: Vec<Vdev>, ashift: u8, properties: &[(&str, &str)]) -> (PoolSpec, Tree) {
    let mut tree = random_tree(&mut Random(seed), 150);
    let meta = Meta::root(0o644, Timestamp::default());
    tree.insert("large", meta, Kind::File(Data::bytes(Random(seed).bytes(5 << 20)))).unwrap();
    let mut spec = pool(0);
    spec.ashift = ashift;
    spec.vdevs = vdevs;
    let mut root = dataset("fz/root", properties, Some(tree.clone()));
    root.snapshots = vec![support::snapshot("a", &random_tree(&mut Random(seed), 100)), "b".into()];
    spec.datasets = vec![root, dataset("fz/kept", &[("refreservation", "20M")], None)];
    (spec, tree)
}

#[test]
fn raidz_of_every_parity() {
    for (seed, devices, parity, ashift, properties) in [
        (101, 3, Parity::Single, 12, &[][..]),
        (102, 2, Parity::Single, 9, &[("recordsize", "16k")]),
        (103, 6, Parity::Double, 12, &[("recordsize", "1M"), ("compression", "zstd-1")]),
        (104, 5, Parity::Triple, 9, &[("copies", "2"), ("checksum", "sha256")]),
        (105, 11, Parity::Triple, 12, &[("compression", "off")]),
    ] {
        let (spec, tree) = raidz_spec(seed, vec![raidz(120, devices, parity)], ashift, properties);
        let image = write(&spec);
        image.check();
        check_state(&image, "fz/root", &tree, &mut Random(seed));
        let files = image.devices();
        let outs: Vec<&dyn ReadAt> = files.iter().map(|file| file as &dyn ReadAt).collect();
        let report = verify(&Pool::open(&outs).unwrap(), &());
        assert!(report.is_clean() && report.not_checked.is_empty(), "seed {seed}: {report:#?}");
        assert_eq!(report.used, [image.summary.allocated]);
    }
}

#[test]
fn several_raidz_in_one_pool() {
    let vdevs = vec![raidz(80, 3, Parity::Single), raidz(100, 4, Parity::Double)];
    let (spec, tree) = raidz_spec(106, vdevs, 12, &[]);
    let image = write(&spec);
    image.check();
    check_state(&image, "fz/root", &tree, &mut Random(106));
    let files = image.devices();
    let outs: Vec<&dyn ReadAt> = files.iter().map(|file| file as &dyn ReadAt).collect();
    let report = verify(&Pool::open(&outs).unwrap(), &());
    assert!(report.is_clean() && report.used.iter().all(|used| *used > 1 << 20), "{report:#?}");
}

/// The content of every file, or how many of them cannot be read.
fn read_all(pool: &Pool, tree: &Tree) -> Result<(), usize> {
    let filesystem = pool.filesystem("fz/root").unwrap();
    let mut unreadable = 0;
    for entry in filesystem.walk() {
        let entry = entry.unwrap();
        if let Kind::File(data) = tree.get(&entry.path).unwrap().kind() {
            let mut content = Vec::new();
            match filesystem.content(&entry.node).read_to_end(&mut content) {
                Ok(_) => assert!(content == data.read().unwrap(), "{:?}", entry.path),
                Err(_) => unreadable += 1,
            }
        }
    }
    if unreadable == 0 { Ok(()) } else { Err(unreadable) }
}

#[test]
fn raidz_makes_up_for_devices_that_are_missing_or_wrong() {
    let (spec, tree) = raidz_spec(107, vec![raidz(120, 5, Parity::Double)], 12, &[]);
    let image = write(&spec);
    let whole: Vec<Vec<u8>> = image.bytes_of_devices();
    let mut garbage = whole.clone();
    for bytes in &mut garbage {
        bytes[4 << 20..100 << 20].iter_mut().for_each(|byte| *byte ^= 0x5a);
    }
    for (missing, wrong) in [(&[0, 3][..], &[][..]), (&[4], &[1]), (&[], &[2, 4])] {
        let outs: Vec<&dyn ReadAt> = (0..5)
            .filter(|i| !missing.contains(i))
            .map(|i| if wrong.contains(&i) { &garbage[i] as &dyn ReadAt } else { &whole[i] })
            .collect();
        let pool = Pool::open(&outs).unwrap();
        assert_eq!(pool.missing_devices(), missing.len());
        assert_eq!(read_all(&pool, &tree), Ok(()), "{missing:?} {wrong:?}");
        assert_eq!(pool.healed() > 0, !wrong.is_empty());
        let report = verify(&pool, &());
        assert!(report.findings.iter().all(|finding| finding.kind == FindingKind::Copy));
        assert_eq!(report.is_clean(), wrong.is_empty());
        // Each wrong device is named.
        for child in wrong {
            let named = format!("on child {child}");
            assert!(report.findings.iter().any(|finding| finding.problem.contains(&named)), "{named}");
        }
    }
    // zdb reads what is left of it, too.
    for gone in ["pool1.img", "pool3.img"] {
        std::fs::remove_file(image.dir.path().join(gone)).unwrap();
    }
    image.check();
}

#[test]
fn a_wrong_byte_of_any_column_is_found() {
    let (spec, _) = raidz_spec(108, vec![raidz(120, 4, Parity::Single)], 12, &[]);
    let image = write(&spec);
    let mut bytes: Vec<Vec<u8>> = image.bytes_of_devices();
    let mut random = Random(109);
    for _ in 0..12 {
        // What was never written is no part of a block.
        let (device, at) = loop {
            let (device, at) = (random.below(4), (4 << 20) + random.below(1 << 20));
            if bytes[device][at] != 0 {
                break (device, at);
            }
        };
        bytes[device][at] ^= 4;
        let outs: Vec<&dyn ReadAt> = bytes.iter().map(|bytes| bytes as &dyn ReadAt).collect();
        let report = verify(&Pool::open(&outs).unwrap(), &());
        let kinds: Vec<_> = report.findings.iter().map(|finding| finding.kind).collect();
        assert!(!kinds.is_empty() && kinds.iter().all(|kind| *kind == FindingKind::Copy), "{report:#?}");
        bytes[device][at] ^= 4;
    }
}

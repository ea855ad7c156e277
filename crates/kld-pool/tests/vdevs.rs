//! Pools on several top-level vdevs, judged by zdb and by our own verifier.

mod support;

use std::fs::File;
use std::io::Read;

use kld_pool::read::Pool;
use kld_pool::tree::{Data, Kind, Meta, Timestamp, Tree};
use kld_pool::verify::verify;
use kld_pool::{PoolSpec, ReadAt, Vdev, WriteError, write_pool};
use support::{Image, Random, check_state, dataset, pool, random_tree, write};

fn vdev(mib: u64, paths: &[&str]) -> Vdev {
    Vdev { size: mib << 20, paths: paths.iter().map(|path| (*path).to_owned()).collect() }
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

fn devices(image: &Image, count: usize) -> Vec<File> {
    let names = (0..count).map(|i| if i == 0 { "pool.img".to_owned() } else { format!("pool{i}.img") });
    names.map(|name| File::open(image.dir.path().join(name)).unwrap()).collect()
}

#[test]
fn blocks_are_spread_over_all_vdevs() {
    let (spec, tree) = stripe();
    let image = write(&spec);
    image.check();
    check_state(&image, "fz/root", &tree, &mut Random(94));
    let config = String::from_utf8(image.zdb(&["-C", "fz"]).stdout).unwrap();
    assert!(config.contains("vdev_children: 3") && config.contains("type: 'mirror'"), "{config}");
    let files = devices(&image, 4);
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
    let files = devices(&image, 4);
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
        devices(&image, 4)
            .iter_mut()
            .map(|file| {
                let mut bytes = Vec::new();
                file.read_to_end(&mut bytes).unwrap();
                bytes
            })
            .collect::<Vec<_>>()
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
    let two = vec![vdev(64, &["/a"]), vdev(64, &["/b"])];
    assert_eq!(error(two), "a pool on 2 devices cannot be written to 1 outputs");
}

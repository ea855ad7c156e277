//! Every way blocks can be written, judged by zdb: compressions, checksums, copies, mirrors, volumes, feature sets.

mod support;

use std::fs::File;
use std::os::unix::fs::FileExt;

use kld_pool::tree::{Data, Extent, Kind, Meta, SourceFile, Timestamp, Tree};
use kld_pool::{Content, Volume};
use support::{Image, Random, dataset, pool, random_tree, write};

/// A tree of files, each with its content; and a pool with it.
fn samples(seed: u64) -> (Tree, Vec<(String, Vec<u8>)>) {
    let mut random = Random(seed);
    let mut tree = random_tree(&mut random, 40);
    let mut files = Vec::new();
    for (i, len) in [100usize, 5000, 131_072, 700_001].into_iter().enumerate() {
        let part = random.bytes(len / 9 + 1);
        let mut content: Vec<u8> = part.iter().copied().cycle().take(len).collect();
        content[len / 2..len / 4 * 3].fill(0);
        let name = format!("sample-{i}");
        let kind = Kind::File(Data::bytes(content.clone()));
        tree.insert(&name, Meta::root(0o644, Timestamp::default()), kind).unwrap();
        files.push((name, content));
    }
    (tree, files)
}

fn check_samples(image: &Image, dataset: &str, files: &[(String, Vec<u8>)]) {
    for (name, content) in files {
        assert!(image.extract(dataset, name) == *content, "{dataset} {name}");
    }
}

#[test]
fn every_compression() {
    let (tree, files) = samples(11);
    let mut spec = pool(300);
    let words = [
        "on",
        "lzjb",
        "zle",
        "gzip",
        "gzip-1",
        "gzip-9",
        "lz4",
        "zstd",
        "zstd-19",
        "zstd-fast",
        "zstd-fast-10",
        "zstd-fast-1000",
    ];
    for word in words {
        let properties = [("compression", word), ("dnodesize", "auto")];
        spec.datasets.push(dataset(&format!("fz/{word}"), &properties, Some(tree.clone())));
    }
    let image = write(&spec);
    image.check();
    for word in words {
        check_samples(&image, &format!("fz/{word}"), &files[1..]);
    }
}

#[test]
fn every_checksum_and_number_of_copies() {
    let (tree, files) = samples(12);
    let mut spec = pool(300);
    spec.properties.set("compatibility", "openzfs-2.2").unwrap();
    let words = ["on", "off", "fletcher4", "sha256", "sha512", "blake3"];
    for (word, copies) in words.into_iter().zip(["1", "2", "3"].into_iter().cycle()) {
        let properties = [("checksum", word), ("copies", copies), ("dnodesize", "auto")];
        let mut dataset = dataset(&format!("fz/{word}"), &properties, Some(tree.clone()));
        dataset.snapshots.push("s".into());
        spec.datasets.push(dataset);
    }
    let image = write(&spec);
    image.check();
    for word in words {
        check_samples(&image, &format!("fz/{word}"), &files);
    }
}

#[test]
fn records_of_sixteen_mebibytes() {
    let mut tree = Tree::new();
    let content = Random(13).bytes(21_000_000);
    let kind = Kind::File(Data::bytes(content.clone()));
    tree.insert("large", Meta::root(0o644, Timestamp::default()), kind).unwrap();
    let mut spec = pool(256);
    spec.datasets = vec![dataset("fz/root", &[("recordsize", "16M")], Some(tree))];
    let image = write(&spec);
    image.check();
    assert!(image.extract("fz/root", "large") == content);
}

#[test]
fn a_mirror_is_whole_with_each_of_its_devices() {
    let (tree, files) = samples(14);
    let mut spec = pool(128);
    spec.vdevs[0].paths = vec!["/a".to_owned(), "/b".to_owned(), "/c".to_owned()];
    spec.datasets = vec![dataset("fz/root", &[], Some(tree))];
    let image = write(&spec);
    image.check();
    let config = String::from_utf8(image.zdb(&["-C", "fz"]).stdout).unwrap();
    assert!(config.contains("type: 'mirror'"), "{config}");
    for gone in ["pool.img", "pool2.img"] {
        std::fs::remove_file(image.dir.path().join(gone)).unwrap();
        image.check();
        check_samples(&image, "fz/root", &files);
    }
}

#[test]
fn no_damaged_region_takes_all_copies_of_metadata() {
    const WINDOW: u64 = 16 << 20;
    const DATA: std::ops::Range<u64> = 4 << 20..(300 << 20) - (512 << 10);
    let mut tree = random_tree(&mut Random(15), 300);
    let kind = Kind::File(Data::bytes(Random(16).bytes(60 << 20)));
    tree.insert("large", Meta::root(0o644, Timestamp::default()), kind).unwrap();
    let mut spec = pool(300);
    spec.datasets = vec![dataset("fz/root", &[], Some(tree))];
    let image = write(&spec);
    image.check();
    let file = File::options().read(true).write(true).open(image.dir.path().join("pool.img")).unwrap();
    let listing = || {
        let output = image.zdb(&["-dd", "fz/root"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let whole = listing();
    let mut saved = vec![0; WINDOW as usize];
    for start in DATA.step_by(WINDOW as usize / 2) {
        let len = WINDOW.min(DATA.end - start) as usize;
        file.read_exact_at(&mut saved[..len], start).unwrap();
        if saved[..len].iter().all(|byte| *byte == 0) {
            continue;
        }
        file.write_all_at(&vec![0xa5; len], start).unwrap();
        assert!(listing() == whole, "damage at {start}");
        file.write_all_at(&saved[..len], start).unwrap();
    }
}

#[test]
fn volumes_and_their_snapshots() {
    let mut random = Random(17);
    let content = random.bytes(300_000);
    let mut changed = content.clone();
    changed[100_000..100_100].fill(9);
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    std::fs::write(&source, &content).unwrap();
    let file = std::sync::Arc::new(SourceFile::open(&source).unwrap());
    let extents = [Extent { start: 7 << 30, len: 200_000, offset: 500 }];
    let sparse = Data::Sparse { file, extents: extents.into(), len: 8 << 30 };
    let mut spec = pool(200);
    for (name, size, block_size, data, compression) in [
        ("fz/small", 1 << 20, 512, Data::bytes(content.clone()), "lz4"),
        ("fz/plain", 1 << 20, 16 << 10, Data::bytes(content.clone()), "off"),
        ("fz/sparse", 100 << 30, 128 << 10, sparse, "zstd-3"),
        ("fz/large", 2 << 20, 1 << 20, Data::bytes(content.clone()), "zle"),
        ("fz/empty", 1 << 40, 8 << 10, Data::bytes([]), "on"),
    ] {
        let mut volume = dataset(name, &[("compression", compression)], None);
        volume.content = Content::Volume(Volume { size, block_size, data });
        spec.datasets.push(volume);
    }
    let mut small = dataset("fz/versions", &[], None);
    let volume = |data: &[u8]| {
        Content::Volume(Volume { size: 1 << 20, block_size: 4 << 10, data: Data::bytes(data.to_vec()) })
    };
    small.content = volume(&content);
    small.snapshots = vec!["a".into(), "b".into()];
    small.snapshots[0].content = Some(volume(&changed));
    spec.datasets.push(small);
    let image = write(&spec);
    image.check();
    let text = String::from_utf8(image.zdb(&["-dddd", "fz/sparse", "1", "2"]).stdout).unwrap();
    assert!(text.contains("size = 107374182400"), "{text}");
}

#[test]
fn feature_sets_of_the_boot_loader() {
    let (tree, files) = samples(18);
    for set in ["grub2-2.06", "grub2", "grub2-2.12,openzfs-2.1-linux"] {
        let mut spec = pool(128);
        spec.properties.set("compatibility", set).unwrap();
        let mut boot = dataset("fz/boot", &[("compression", "lz4")], Some(tree.clone()));
        boot.snapshots = vec!["a".into()];
        spec.datasets = vec![boot];
        let image = write(&spec);
        image.check();
        check_samples(&image, "fz/boot", &files);
    }
    for (property, value, feature) in [
        ("compression", "zstd-3", "zstd_compress"),
        ("recordsize", "1M", "large_blocks"),
        ("dnodesize", "auto", "large_dnode"),
        ("checksum", "blake3", "blake3"),
    ] {
        let mut spec = pool(128);
        spec.properties.set("compatibility", "grub2-2.06").unwrap();
        spec.datasets = vec![dataset("fz/boot", &[(property, value)], None)];
        let error = kld_pool::write_pool(&spec, &[&tempfile::tempfile().unwrap()], &()).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!(
                "`{property}` of `fz/boot` needs feature `{feature}`, which is not in the pool's `compatibility`"
            )
        );
    }
}

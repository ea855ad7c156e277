//! What is taken out of a pool is what was put in: as files of the host, as a tar, as an image of a volume.

mod support;

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt;

use kld_pool::extract::{Report, extract_dir, extract_tar, extract_volume};
use kld_pool::read::Pool;
use kld_pool::tree::{Data, Extent, Kind, Meta, SourceFile, Timestamp, Tree};
use kld_pool::{Content, Volume};
use proptest::prelude::*;
use support::{Image, Random, dataset, pool, random_tree, write};

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn meta(mode: u32) -> Meta {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    Meta { uid, gid, ..Meta::root(mode, Timestamp { sec: 1_600_000_000, nsec: 7 }) }
}

fn image_of(tree: &Tree, properties: &[(&str, &str)]) -> Image {
    let mut spec = pool(300);
    spec.datasets = vec![dataset("fz/root", properties, Some(tree.clone()))];
    write(&spec)
}

/// A tree that this host can hold: attributes where Linux allows them and of a size that file systems take, devices and
/// owners only for root.
fn possible(tree: &Tree) -> Tree {
    let mut possible = tree.clone();
    for (path, node) in tree.walk() {
        if !is_root() && matches!(node.kind(), Kind::CharDevice { .. } | Kind::BlockDevice { .. }) {
            possible.remove(&path);
            continue;
        }
        let own = meta(0);
        let is_plain = matches!(node.kind(), Kind::File(_) | Kind::Directory);
        let meta = possible.meta_mut(&path).unwrap();
        meta.xattrs.retain(|_, value| is_plain && value.len() < 2000);
        if !is_root() {
            (meta.uid, meta.gid) = (own.uid, own.gid);
        }
    }
    possible
}

/// Everything about a tree, in words; content by its sum.
fn describe(tree: &Tree) -> Vec<String> {
    let mut first: BTreeMap<_, String> = BTreeMap::new();
    tree.walk()
        .map(|(path, node)| {
            let path = String::from_utf8_lossy(&path).into_owned();
            let kind = match node.kind() {
                Kind::File(data) => {
                    let content = data.read().unwrap();
                    let sum = content
                        .iter()
                        .fold(7u64, |sum, byte| sum.wrapping_mul(31).wrapping_add((*byte).into()));
                    format!("file of {} bytes, {sum:x}", content.len())
                }
                kind => format!("{kind:?}"),
            };
            // Links have no mode of their own.
            let mut meta = node.meta().clone();
            if matches!(node.kind(), Kind::Symlink(_)) {
                meta.mode = 0o777;
            }
            let twin = first.entry(node.id()).or_insert_with(|| path.clone()).clone();
            format!("{path} ={twin} {kind} {meta:?}")
        })
        .collect()
}

#[track_caller]
fn assert_same(found: &Tree, wanted: &Tree) {
    let (found, wanted) = (describe(found), describe(wanted));
    for (found, wanted) in found.iter().zip(&wanted) {
        assert_eq!(found, wanted);
    }
    assert_eq!(found.len(), wanted.len());
}

#[track_caller]
fn assert_whole(report: &Report) {
    let problems: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
    assert!(problems.is_empty() && report.left_out.is_empty(), "{problems:?} {:?}", report.left_out);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn files_of_the_host_are_the_files_of_the_pool(
        seed: u64,
        count in 1usize..120,
        compression in prop::sample::select(vec!["off", "lz4"]),
        records in prop::sample::select(vec!["512", "4k", "128k"]),
        threads in 0usize..4,
    ) {
        let tree = possible(&random_tree(&mut Random(seed), count));
        let image = image_of(&tree, &[("compression", compression), ("recordsize", records)]);
        let bytes = image.bytes();
        let pool = Pool::open(&[&bytes]).unwrap();
        let to = image.dir.path().join("to");
        let report = extract_dir(&pool.filesystem("fz/root").unwrap(), "/", &to, threads, &()).unwrap();
        assert_whole(&report);
        prop_assert_eq!(1 + report.directories + report.files + report.hard_links + report.others, 1 + tree.walk().count() as u64);
        assert_same(&Tree::from_dir(&to).unwrap(), &tree);
    }

    #[test]
    fn a_tar_of_a_pool_makes_the_same_pool(
        seed: u64,
        count in 1usize..120,
        compression in prop::sample::select(vec!["off", "lz4", "zstd-3"]),
        records in prop::sample::select(vec!["512", "16k", "1M"]),
        threads in 0usize..4,
    ) {
        let mut tree = random_tree(&mut Random(seed), count);
        let sockets: Vec<_> = tree.walk().filter(|(_, node)| matches!(node.kind(), Kind::Socket)).map(|(path, _)| path).collect();
        sockets.iter().for_each(|path| drop(tree.remove(path)));
        let properties = [("compression", compression), ("recordsize", records)];
        let image = image_of(&tree, &properties);
        let first = image.bytes();
        let pool = Pool::open(&[&first]).unwrap();
        let path = image.dir.path().join("x.tar");
        let mut tar = File::create_new(&path).unwrap();
        let report = extract_tar(&pool.filesystem("fz/root").unwrap(), "", &mut tar, threads, &()).unwrap();
        assert_whole(&report);
        let again = Tree::from_tar(&path).unwrap();
        prop_assert!(image_of(&again, &properties).bytes() == first, "the pools differ");
    }
}

/// A tree of what is hard: holes, attributes, long and odd names, times before 1970, hard links into closed directories.
fn hard(dir: &std::path::Path) -> Tree {
    let source = dir.join("source");
    std::fs::write(&source, vec![7; 900_000]).unwrap();
    let source = std::sync::Arc::new(SourceFile::open(&source).unwrap());
    let mut tree = Tree::new();
    *tree.meta_mut("").unwrap() = meta(0o2750);
    let sparse = |extents: &[(u64, u64)], len| {
        let extents =
            extents.iter().map(|(start, len)| Extent { start: *start, len: *len, offset: 5 }).collect();
        Kind::File(Data::Sparse { file: source.clone(), extents, len })
    };
    for (name, extents, len) in [
        ("front", &[(0, 300_000)][..], 1 << 36),
        ("middle", &[(5 << 20, 400_000), (9 << 20, 1), (1 << 35, 10)], 1 << 36),
        ("back", &[((1 << 36) - 131_072, 131_072)], 1 << 36),
        ("nothing", &[], 12_345_678),
        ("huge", &[(9 << 30, 10)], 10 << 30),
    ] {
        tree.insert(name, meta(0o640), sparse(extents, len)).unwrap();
    }
    let mut attributes = meta(0o644);
    attributes.xattrs.insert(b"user.a=b%=".to_vec(), b"x\0\n=".to_vec());
    attributes.xattrs.insert(b"user.empty".to_vec(), Vec::new());
    // Version 2, then user, user 1, group, mask, other: rights and who.
    let acl: Vec<u8> =
        [(1u16, 6u16, u32::MAX), (2, 4, 1), (4, 4, u32::MAX), (16, 4, u32::MAX), (32, 4, u32::MAX)]
            .iter()
            .fold(2u32.to_le_bytes().to_vec(), |acl, (tag, rights, who)| {
                [acl, tag.to_le_bytes().into(), rights.to_le_bytes().into(), who.to_le_bytes().into()]
                    .concat()
            });
    attributes.xattrs.insert(b"system.posix_acl_access".to_vec(), acl.clone());
    tree.insert("attributes", attributes.clone(), Kind::File(Data::bytes(*b"x"))).unwrap();
    let mut directory = meta(0o1755);
    directory.xattrs.insert(b"system.posix_acl_default".to_vec(), acl);
    tree.insert("inheriting", directory, Kind::Directory).unwrap();
    // What is made in a directory with a default ACL must not get it.
    tree.insert("inheriting/f", meta(0o664), Kind::File(Data::bytes(*b"x"))).unwrap();
    tree.insert("inheriting/d", meta(0o775), Kind::Directory).unwrap();
    if is_root() {
        let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let mut capable = Meta { uid: 5, gid: 6, ..meta(0o755) };
        capable.xattrs.insert(b"security.capability".to_vec(), capability.to_vec());
        tree.insert("capable", capable, Kind::File(Data::bytes(*b"#!"))).unwrap();
        tree.insert("given-away", Meta { uid: 5, gid: 6, ..meta(0o6755) }, Kind::File(Data::bytes(*b"#!")))
            .unwrap();
    }
    for (name, time) in
        [("old", (-2, 750_000_000)), ("older", (-1_000_000_000, 0)), ("newer", (9_000_000_000, 1))]
    {
        let time = Timestamp { sec: time.0, nsec: time.1 };
        tree.insert(name, Meta { mtime: time, ..meta(0o644) }, Kind::Fifo).unwrap();
    }
    let odd: Vec<u8> = (1..=255).filter(|byte| *byte != b'/').collect();
    for (i, name) in
        [odd, vec![b'n'; 255], b"-rf".to_vec(), "größe".into(), b"\xff\n".to_vec(), b" ".to_vec()]
            .into_iter()
            .enumerate()
    {
        tree.insert(&name, meta(0o600), Kind::File(Data::bytes(vec![b'x'; i]))).unwrap();
        tree.insert([b"l", &name[1..]].concat(), meta(0o777), Kind::Symlink(name.clone())).unwrap();
        tree.link(&name, [b"h", &name[1..]].concat()).unwrap();
    }
    tree.insert("closed", meta(0o000), Kind::Directory).unwrap();
    tree.insert("closed/inner", meta(0o000), Kind::Directory).unwrap();
    tree.insert("closed/inner/f", meta(0o400), Kind::File(Data::bytes(*b"secret"))).unwrap();
    tree.link("closed/inner/f", "zz").unwrap();
    tree
}

#[test]
fn what_is_hard_comes_out_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let tree = hard(dir.path());
    let image = image_of(&tree, &[]);
    let bytes = image.bytes();
    let pool = Pool::open(&[&bytes]).unwrap();
    let filesystem = pool.filesystem("fz/root").unwrap();
    let to = dir.path().join("to");
    let report = extract_dir(&filesystem, "/", &to, 0, &()).unwrap();
    assert_whole(&report);
    let blocks: u64 = ["front", "middle", "back", "nothing", "huge"]
        .iter()
        .map(|name| std::fs::metadata(to.join(name)).unwrap().blocks())
        .sum();
    assert!(blocks * 512 < 4 << 20, "holes stay holes: {blocks} sectors");

    let mut tar = Vec::new();
    assert_whole(&extract_tar(&filesystem, "/", &mut tar, 0, &()).unwrap());
    assert!(tar.len() < 4 << 20, "holes stay holes: {} bytes", tar.len());
    let path = dir.path().join("x.tar");
    std::fs::write(&path, tar).unwrap();
    // Files of tebibytes are not read: their parts are what is compared.
    let small = |tree: &Tree| {
        let mut tree = tree.clone();
        let large: Vec<Vec<u8>> = tree
            .walk()
            .filter(|(_, node)| matches!(node.kind(), Kind::File(data) if data.len() > 1 << 30))
            .map(|(path, _)| path)
            .collect();
        large.iter().for_each(|path| drop(tree.remove(path)));
        tree
    };
    assert_same(&small(&Tree::from_tar(&path).unwrap()), &small(&tree));
    assert!(image_of(&Tree::from_tar(&path).unwrap(), &[]).bytes() == bytes, "a tar makes the same pool");
    // A directory that nobody may enter is not scanned by anybody but root.
    if is_root() {
        assert_same(&small(&Tree::from_dir(&to).unwrap()), &small(&tree));
        assert!(
            image_of(&Tree::from_dir(&to).unwrap(), &[]).bytes() == bytes,
            "a directory makes the same pool"
        );
    } else {
        for name in ["closed/inner", "closed"] {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(to.join("closed"), PermissionsExt::from_mode(0o700)).unwrap();
            std::fs::set_permissions(to.join(name), PermissionsExt::from_mode(0o700)).unwrap();
        }
        assert_eq!(std::fs::read(to.join("zz")).unwrap(), b"secret");
    }
}

#[test]
fn every_mode_survives() {
    let mut tree = Tree::new();
    *tree.meta_mut("").unwrap() = meta(0o755);
    for mode in 0..0o10_000 {
        tree.insert(format!("f{mode:04o}"), meta(mode), Kind::File(Data::bytes(*b""))).unwrap();
        tree.insert(format!("d{mode:04o}"), meta(mode), Kind::Directory).unwrap();
        tree.insert(format!("p{mode:04o}"), meta(mode), Kind::Fifo).unwrap();
        tree.insert(format!("s{mode:04o}"), meta(mode), Kind::Socket).unwrap();
    }
    let image = image_of(&tree, &[]);
    let bytes = image.bytes();
    let pool = Pool::open(&[&bytes]).unwrap();
    let to = image.dir.path().join("to");
    assert_whole(&extract_dir(&pool.filesystem("fz/root").unwrap(), "/", &to, 0, &()).unwrap());
    for entry in std::fs::read_dir(&to).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        assert_eq!(format!("{:04o}", entry.metadata().unwrap().mode() & 0o7777), name[1..], "{name}");
    }
}

#[test]
fn a_part_comes_out_by_itself() {
    let mut tree = Tree::new();
    for path in ["a", "a/b"] {
        tree.insert(path, meta(0o755), Kind::Directory).unwrap();
    }
    tree.insert("a/b/f", meta(0o644), Kind::File(Data::bytes(*b"content"))).unwrap();
    let image = image_of(&tree, &[]);
    let bytes = image.bytes();
    let pool = Pool::open(&[&bytes]).unwrap();
    let filesystem = pool.filesystem("fz/root").unwrap();
    for (from, file) in [("/a", "b/f"), ("a/b/", "f"), ("/a/b/f", "f"), ("a//b/./f/", "f")] {
        let to = image.dir.path().join(from.replace('/', "_"));
        assert_whole(&extract_dir(&filesystem, from, &to, 0, &()).unwrap());
        assert_eq!(std::fs::read(to.join(file)).unwrap(), b"content", "{from}");
        let path = image.dir.path().join("part.tar");
        assert_whole(&extract_tar(&filesystem, from, &mut File::create(&path).unwrap(), 0, &()).unwrap());
        assert_eq!(Tree::from_tar(&path).unwrap().read(file).unwrap(), b"content", "{from}");
    }
}

#[test]
fn a_tree_deeper_than_files_may_be_open() {
    let mut tree = Tree::new();
    let mut path = String::new();
    for depth in 0..2000 {
        path.push('d');
        tree.insert(&path, meta(0o755), Kind::Directory).unwrap();
        path.push('/');
        if depth % 500 == 0 {
            tree.insert(format!("{path}f"), meta(0o644), Kind::File(Data::bytes(*b"content"))).unwrap();
        }
    }
    let image = image_of(&tree, &[]);
    let bytes = image.bytes();
    let pool = Pool::open(&[&bytes]).unwrap();
    let to = image.dir.path().join("t");
    let report = extract_dir(&pool.filesystem("fz/root").unwrap(), "/", &to, 0, &()).unwrap();
    assert_whole(&report);
    assert_eq!((report.directories, report.files), (2001, 4));
}

#[test]
fn a_volume_comes_out_as_a_sparse_image() {
    // Enough that several threads read it.
    let mut content = vec![0; 12 << 20];
    content[3 << 20..9 << 20].copy_from_slice(&Random(5).bytes(6 << 20));
    content[0] = 9;
    let mut spec = pool(128);
    let mut volume = dataset("fz/vol", &[], None);
    volume.content =
        Content::Volume(Volume { size: 64 << 20, block_size: 16 << 10, data: Data::bytes(content.clone()) });
    spec.datasets = vec![volume];
    let image = write(&spec);
    let mut bytes = image.bytes();
    let extract = |bytes: &Vec<u8>, threads| {
        let pool = Pool::open(&[bytes]).unwrap();
        let path = image.dir.path().join("vol.img");
        let out = File::create(&path).unwrap();
        let report = extract_volume(&pool.volume("fz/vol").unwrap(), &out, threads, &()).unwrap();
        let meta = out.metadata().unwrap();
        assert_eq!(meta.len(), 64 << 20);
        assert!(meta.blocks() * 512 < 7 << 20, "holes stay holes");
        (report, std::fs::read(path).unwrap())
    };
    for threads in [1, 2, 5] {
        let (report, found) = extract(&bytes, threads);
        assert_whole(&report);
        assert!(found[..12 << 20] == content && found[12 << 20..].iter().all(|byte| *byte == 0));
    }

    let block = &content[(3 << 20) + (32 << 10)..][..16 << 10];
    let at = bytes.windows(block.len()).position(|window| window == block).unwrap();
    bytes[at + 5] ^= 1;
    let (report, found) = extract(&bytes, 5);
    let start = (3 << 20) + (32 << 10);
    assert_eq!(report.problems[0].range, Some(start..start + (16 << 10)));
    content[start as usize..][..16 << 10].fill(0);
    assert!(found[..12 << 20] == content, "the rest is there");
}

/// A pool on a mirror, with a file of four records that are not compressed.
fn mirror() -> (Image, Vec<u8>, [Vec<u8>; 2]) {
    let content = Random(8).bytes(4 << 17);
    let mut tree = Tree::new();
    tree.insert("d", meta(0o755), Kind::Directory).unwrap();
    tree.insert("d/f", meta(0o644), Kind::File(Data::bytes(content.clone()))).unwrap();
    tree.insert("z", meta(0o644), Kind::File(Data::bytes(*b"behind"))).unwrap();
    let mut spec = pool(64);
    spec.vdevs[0].paths = vec!["/a".to_owned(), "/b".to_owned()];
    spec.datasets = vec![dataset("fz/root", &[], Some(tree))];
    let image = write(&spec);
    let side = |name| std::fs::read(image.dir.path().join(name)).unwrap();
    let sides = [side("pool.img"), side("pool1.img")];
    (image, content, sides)
}

#[test]
fn damage_is_healed_from_the_other_side_or_reported_with_its_place() {
    let (image, mut content, [mut a, mut b]) = mirror();
    let place =
        |side: &[u8], at: usize| side.windows(64).position(|window| *window == content[at..at + 64]).unwrap();
    let mut runs = 0;
    let mut run = |sides: &[&Vec<u8>]| {
        let devices: Vec<&dyn kld_pool::ReadAt> =
            sides.iter().map(|side| *side as &dyn kld_pool::ReadAt).collect();
        let pool = Pool::open(&devices).unwrap();
        runs += 1;
        let to = image.dir.path().join(format!("to{runs}"));
        let report = extract_dir(&pool.filesystem("fz/root").unwrap(), "/", &to, 2, &()).unwrap();
        let problems: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
        assert_eq!(std::fs::read(to.join("z")).unwrap(), b"behind");
        (pool.healed(), problems, std::fs::read(to.join("d/f")).unwrap())
    };
    assert_eq!(run(&[&a, &b]), (0, vec![], content.clone()));
    assert_eq!(run(&[&b]), (0, vec![], content.clone()), "a missing side is no damage");
    let (first, third) = (place(&a, 100), place(&b, (2 << 17) + 5));
    a[first] ^= 1;
    b[third] ^= 1;
    assert_eq!(run(&[&a, &b]), (1, vec![], content.clone()), "each side has what the other one lacks");
    // The second and third record of one side alone: one stretch.
    let second = place(&b, (1 << 17) + 77);
    b[second] ^= 1;
    let (_, problems, found) = run(&[&b]);
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].starts_with("`/d/f`: bytes 131072 to 393216 are missing: "), "{problems:?}");
    assert!(problems[0].contains("wrong checksum"), "{problems:?}");
    content[1 << 17..3 << 17].fill(0);
    assert!(found == content, "what is missing is zeros, the rest is there");
}

#[test]
fn a_damaged_file_in_a_tar_has_its_length() {
    let (image, mut content, [mut a, _]) = mirror();
    let at = a.windows(64).position(|window| *window == content[100..164]).unwrap();
    a[at] ^= 1;
    let pool = Pool::open(&[&a]).unwrap();
    let path = image.dir.path().join("x.tar");
    let report =
        extract_tar(&pool.filesystem("fz/root").unwrap(), "/", &mut File::create(&path).unwrap(), 0, &())
            .unwrap();
    assert_eq!(report.problems[0].range, Some(0..1 << 17));
    let tree = Tree::from_tar(&path).unwrap();
    content[..1 << 17].fill(0);
    assert!(tree.read("d/f").unwrap() == content);
    assert_eq!(tree.read("z").unwrap(), b"behind");
}

//! What holds for every file that can be written: names, sizes, modes and ACLs up to their limits come back, and the bytes
//! depend on nothing but them.

mod support;

use std::collections::BTreeMap;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use kld_pool::read::{NodeKind, Pool};
use kld_pool::tree::{Data, Extent, Kind, Meta, SourceFile, Timestamp, Tree};
use kld_pool::verify::verify;
use proptest::prelude::*;
use support::{Random, dataset, pool, write};

fn meta() -> Meta {
    Meta::root(0o644, Timestamp { sec: 1_600_000_000, nsec: 1 })
}

/// Writes the tree and reads it again; every name of it must be there, and nothing else.
fn read_again(
    tree: &Tree,
    properties: &[(&str, &str)],
    mib: u64,
    each: &mut dyn FnMut(&kld_pool::read::Filesystem, &kld_pool::read::WalkEntry, kld_pool::tree::Node),
) -> support::Image {
    let mut spec = pool(mib);
    spec.datasets = vec![dataset("fz/root", properties, Some(tree.clone()))];
    let image = write(&spec);
    let file = image.device();
    let pool = Pool::open(&[&file]).unwrap();
    let report = verify(&pool, &());
    assert!(report.is_clean(), "{:?}", report.findings);
    let filesystem = pool.filesystem("fz/root").unwrap();
    let mut wanted = tree.walk();
    for entry in filesystem.walk() {
        let entry = entry.unwrap();
        let (path, node) = wanted.next().expect("the pool has a name too many");
        assert_eq!(entry.path, path);
        each(&filesystem, &entry, node);
    }
    assert!(wanted.next().is_none(), "the pool has a name too few");
    image
}

#[test]
fn names_of_every_byte_and_length() {
    let mut names: Vec<Vec<u8>> =
        (1..=255u8).filter(|byte| !b"/.".contains(byte)).map(|byte| vec![byte]).collect();
    names.extend((1..=255u8).filter(|byte| *byte != b'/').map(|byte| vec![b'-', byte, byte]));
    // Around the longest name of a small table, and the longest of all.
    names.extend([48, 49, 50, 51, 254, 255].map(|len| vec![b'-'; len]));
    names.extend([
        b"...".to_vec(),
        b"--".to_vec(),
        b"-rf *".to_vec(),
        "\u{202e}é\u{0301}".as_bytes().to_vec(),
    ]);
    let mut tree = Tree::new();
    let dir = Meta::root(0o755, Timestamp::default());
    // All of them in one large table; and those of a small one alone.
    for (folder, longest) in [("all", 255), ("short", 49)] {
        tree.ensure_dir(folder, dir.clone()).unwrap();
        for (i, name) in names.iter().filter(|name| name.len() <= longest).enumerate() {
            let path = [folder.as_bytes(), b"/", name].concat();
            let kind = match i % 3 {
                0 => Kind::Directory,
                1 => Kind::Symlink(name.clone()),
                _ => Kind::File(Data::bytes(name.clone())),
            };
            tree.insert(path, meta(), kind).unwrap();
        }
    }
    let image = read_again(&tree, &[], 64, &mut |filesystem, entry, node| {
        let found = filesystem.lookup(&entry.path).unwrap();
        assert_eq!(found.object(), entry.node.object());
        if let Kind::Symlink(target) = node.kind() {
            assert_eq!(filesystem.read_link(&found).unwrap(), *target);
        }
    });
    image.check();
    for refused in [&[b'a'; 256][..], b"a\0b", b".."] {
        assert!(tree.insert(refused, meta(), Kind::Fifo).is_err(), "{}", refused.escape_ascii());
    }
}

/// Sizes at every limit: of an embedded block, a sector, a block, a record, and what one block of pointers can name.
#[test]
fn sizes_around_every_limit() {
    let noise = Random(5).bytes(600_000);
    for (records, record) in [("512", 512usize), ("4k", 4096), ("128k", 131_072)] {
        let span = record * 1024;
        let limits = [1, 112, 512, 4096, record, 2 * record, 3 * record, span];
        let mut tree = Tree::new();
        for limit in limits.into_iter().filter(|limit| *limit < noise.len()) {
            for size in [limit - 1, limit, limit + 1] {
                let plain = Data::bytes(&noise[..size]);
                let same = Data::bytes(vec![7; size]);
                let zeros = Data::bytes(vec![0; size]);
                for (name, data) in [("noise", plain), ("same", same), ("zeros", zeros)] {
                    tree.insert(format!("{name}-{size}"), meta(), Kind::File(data)).unwrap();
                }
            }
        }
        for compression in ["off", "lz4", "zstd-1"] {
            read_again(
                &tree,
                &[("recordsize", records), ("compression", compression)],
                64,
                &mut |fs, entry, node| {
                    if let Kind::File(data) = node.kind() {
                        let mut content = Vec::new();
                        fs.content(&entry.node).read_to_end(&mut content).unwrap();
                        let shown = String::from_utf8_lossy(&entry.path);
                        assert!(content == data.read().unwrap(), "{shown} {records} {compression}");
                    }
                },
            );
        }
    }
}

#[test]
fn sparse_sizes_around_the_span_of_pointers_and_the_longest_file() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("source");
    std::fs::write(&source, Random(6).bytes(10_000)).unwrap();
    let file = Arc::new(SourceFile::open(&source).unwrap());
    let mut tree = Tree::new();
    let span = 131_072u64 * 1024;
    for end in [span, span * 1024, i64::MAX.cast_unsigned()] {
        for len in [end - 1, end, end.saturating_add(1).min(i64::MAX.cast_unsigned())] {
            // The last bytes of the file, across a limit where there is one.
            let extents = [Extent { start: len - 5000, len: 5000, offset: 100 }];
            let data = Data::Sparse { file: Arc::clone(&file), extents: extents.into(), len };
            tree.insert(format!("{len}"), meta(), Kind::File(data)).unwrap();
        }
    }
    let wanted = std::fs::read(&source).unwrap();
    let image = read_again(&tree, &[], 64, &mut |filesystem, entry, node| {
        if let Kind::File(data) = node.kind() {
            let mut tail = vec![0; 5001];
            let have = filesystem.read(&entry.node, data.len() - 5001, &mut tail).unwrap();
            assert_eq!((have, tail[0]), (5001, 0));
            assert!(tail[1..] == wanted[100..5100], "{}", data.len());
        }
    });
    image.check();
}

#[test]
fn every_mode_of_every_kind() {
    let mut tree = Tree::new();
    for (name, kind) in [
        ("directory", Kind::Directory),
        ("file", Kind::File(Data::bytes(*b"x"))),
        ("link", Kind::Symlink(b"x".to_vec())),
        ("char", Kind::CharDevice { major: 4095, minor: 1_048_575 }),
        ("block", Kind::BlockDevice { major: 0, minor: 0 }),
        ("fifo", Kind::Fifo),
        ("socket", Kind::Socket),
    ] {
        tree.ensure_dir(name, Meta::root(0o755, Timestamp::default())).unwrap();
        for mode in 0..=0o7777u32 {
            let ids = (mode.wrapping_mul(0x9e37_79b9), !mode);
            let meta = Meta { mode, uid: ids.0, gid: ids.1, ..meta() };
            tree.insert(format!("{name}/{mode:04o}"), meta, kind.clone()).unwrap();
        }
    }
    let image = read_again(&tree, &[], 128, &mut |_, entry, node| {
        let (found, wanted) = (entry.node.metadata(), node.meta());
        let kind = match node.kind() {
            Kind::Directory => NodeKind::Directory,
            Kind::File(_) => NodeKind::File,
            Kind::Symlink(_) => NodeKind::Symlink,
            Kind::CharDevice { major, minor } => NodeKind::CharDevice { major: *major, minor: *minor },
            Kind::BlockDevice { major, minor } => NodeKind::BlockDevice { major: *major, minor: *minor },
            Kind::Fifo => NodeKind::Fifo,
            Kind::Socket => NodeKind::Socket,
        };
        // Links have no mode of their own: Linux shows all bits.
        let mode = if kind == NodeKind::Symlink { 0o777 } else { wanted.mode };
        let found = (found.kind, found.mode, found.uid, found.gid);
        assert_eq!(
            found,
            (kind, mode, wanted.uid.into(), wanted.gid.into()),
            "{}",
            entry.path.escape_ascii()
        );
    });
    image.check();
}

/// A POSIX ACL as the kernel keeps it: version 2, then tag, permissions and id of each entry.
fn acl(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut bytes = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(permissions.to_le_bytes());
        bytes.extend(id.to_le_bytes());
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn acls_and_attributes_come_back(
        access in prop::collection::vec((0u16..8, any::<u32>()), 0..600),
        default in prop::option::of(prop::collection::vec((0u16..8, any::<u32>()), 0..20)),
        others in prop::collection::btree_map("user\\.\\PC{1,50}", prop::collection::vec(any::<u8>(), 0..3000), 0..5),
        dnodes in prop::sample::select(vec!["legacy", "auto"]),
    ) {
        const USER_OBJ: u16 = 1;
        const USER: u16 = 2;
        const GROUP_OBJ: u16 = 4;
        const MASK: u16 = 16;
        const OTHER: u16 = 32;
        const NOBODY: u32 = u32::MAX;
        let full = |users: &[(u16, u32)]| {
            let named = users.iter().map(|(permissions, id)| (USER, *permissions, *id));
            let all: Vec<_> = [(USER_OBJ, 7, NOBODY)].into_iter().chain(named)
                .chain([(GROUP_OBJ, 5, NOBODY), (MASK, 7, NOBODY), (OTHER, 0, NOBODY)]).collect();
            acl(&all)
        };
        let mut xattrs: BTreeMap<Vec<u8>, Vec<u8>> =
            others.into_iter().map(|(name, value)| (name.into_bytes(), value)).collect();
        xattrs.insert(b"system.posix_acl_access".to_vec(), full(&access));
        if let Some(default) = default {
            xattrs.insert(b"system.posix_acl_default".to_vec(), full(&default));
        }
        let mut tree = Tree::new();
        tree.insert("d", Meta { mode: 0o750, xattrs: xattrs.clone(), ..meta() }, Kind::Directory).unwrap();
        xattrs.remove(&b"system.posix_acl_default"[..]);
        tree.insert("d/f", Meta { mode: 0o670, xattrs, ..meta() }, Kind::File(Data::bytes(*b"x"))).unwrap();
        read_again(&tree, &[("dnodesize", dnodes)], 64, &mut |filesystem, entry, node| {
            assert_eq!(filesystem.xattrs(&entry.node).unwrap(), node.meta().xattrs);
            assert_eq!(entry.node.metadata().mode, node.meta().mode);
        });
    }
}

/// A tree on the host: what it holds is always the same, how it came about is not.
fn lay_out(root: &Path, names: &[&str]) {
    std::fs::create_dir_all(root.join("d/e")).unwrap();
    for name in names {
        std::fs::write(root.join(name), name.repeat(500)).unwrap();
    }
    std::os::unix::fs::symlink("../a", root.join("d/link")).unwrap();
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_500_000_000);
    for name in names.iter().chain(&["d/e", "d", ""]) {
        let path = root.join(name);
        let mode = if path.is_dir() { 0o755 } else { 0o640 };
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        let times = std::fs::FileTimes::new().set_modified(time);
        std::fs::File::open(&path).unwrap().set_times(times).unwrap();
    }
}

#[test]
fn the_same_content_gives_the_same_bytes_wherever_and_whenever() {
    let dir = tempfile::tempdir().unwrap();
    let names = ["a", "b", "d/c", "d/e/f"];
    let (one, other) = (dir.path().join("one"), dir.path().join("a/much/longer/way/to/the other"));
    lay_out(&one, &names);
    // Another order, another mask, later, and read before: none of it is content.
    let mask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let backwards: Vec<&str> = names.iter().rev().copied().collect();
    lay_out(&other, &backwards);
    std::fs::read(other.join("a")).unwrap();
    let image = |root: &Path, threads| {
        let mut tree = Tree::from_dir(root).unwrap();
        // Links have times of their own.
        tree.meta_mut("d/link").unwrap().mtime = Timestamp::default();
        let mut spec = pool(64);
        spec.threads = threads;
        spec.datasets = vec![dataset("fz/root", &[], Some(tree))];
        write(&spec).bytes()
    };
    let first = image(&one, 1);
    assert!(first == image(&other, 3), "the bytes depend on where and how a tree came about");
    rustix::process::umask(mask);
    assert!(first == image(&one, 2), "the bytes depend on the mask of the user");
}

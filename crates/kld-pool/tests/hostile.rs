//! Sources that change, loop, nest or stand exactly at a limit: a clear error or the right pool, never a wrong one.

mod support;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use kld_pool::read::Pool;
use kld_pool::tree::{Data, Kind, Meta, Timestamp, Tree};
use kld_pool::verify::verify;
use kld_pool::{Progress, WriteAt, WriteError, write_pool};
use support::{Random, dataset, pool, write};

/// Does something to a file as soon as the first bytes are written.
struct Meddler<'a> {
    path: PathBuf,
    how: &'a (dyn Fn(&File) + Sync),
    done: std::sync::Once,
}

impl Progress for Meddler<'_> {
    fn bytes(&self, done: u64, _total: u64) {
        if done > 0 {
            self.done
                .call_once(|| (self.how)(&File::options().read(true).write(true).open(&self.path).unwrap()));
        }
    }
}

#[test]
fn a_file_that_changes_while_it_is_read_ends_the_run() {
    let content = Random(1).bytes(40 << 20);
    for (what, how) in [
        ("grows", &(|file: &File| file.set_len(41 << 20).unwrap()) as &(dyn Fn(&File) + Sync)),
        ("shrinks", &|file| file.set_len(39 << 20).unwrap()),
        ("changes in place", &|file| FileExt::write_all_at(file, b"!", (40 << 20) - 1).unwrap()),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, &content).unwrap();
        let tar = dir.path().join("x.tar");
        for (from, tree) in [(&path, from_dir(dir.path())), (&tar, from_tar(&tar, &content))] {
            let mut spec = pool(128);
            spec.threads = 1;
            spec.datasets = vec![dataset("fz/root", &[("compression", "off")], Some(tree))];
            let out = tempfile::tempfile().unwrap();
            out.set_len(spec.vdevs[0].size).unwrap();
            let meddler = Meddler { path: from.clone(), how, done: std::sync::Once::new() };
            let error = write_pool(&spec, &[&out as &dyn WriteAt], &meddler).unwrap_err();
            assert!(matches!(error, WriteError::FileChanged { .. }), "{what}: {error}");
            let said = error.to_string();
            assert!(
                said.contains(&format!("`{}`", from.display())) && said.contains("`/f`"),
                "{what}: {said}"
            );
            assert!(Pool::open(&[&out]).is_err(), "{what}: what was written is no pool");
        }
    }
}

fn from_dir(dir: &Path) -> Tree {
    let mut tree = Tree::from_dir(dir).unwrap();
    tree.remove("x.tar");
    tree
}

/// A tar of one file.
fn from_tar(path: &Path, content: &[u8]) -> Tree {
    let mut header = [0u8; 512];
    header[0] = b'f';
    header[100..107].copy_from_slice(b"0000644");
    header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
    header[156] = b'0';
    header[257..265].copy_from_slice(b"ustar\x0000");
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    std::fs::write(path, [&header, content, &[0; 1024]].concat()).unwrap();
    Tree::from_tar(path).unwrap()
}

#[test]
fn a_file_that_becomes_something_else_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    for make in [
        |path: &Path| std::os::unix::fs::symlink("/etc/passwd", path).unwrap(),
        |path: &Path| {
            let mode = rustix::fs::Mode::RUSR;
            rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        },
        |path: &Path| std::fs::create_dir(path).unwrap(),
        |_: &Path| {},
    ] {
        std::fs::write(&path, [1; 5000]).unwrap();
        let tree = Tree::from_dir(dir.path()).unwrap();
        std::fs::remove_file(&path).unwrap();
        make(&path);
        let mut spec = pool(64);
        spec.datasets = vec![dataset("fz/root", &[], Some(tree))];
        let out = tempfile::tempfile().unwrap();
        out.set_len(spec.vdevs[0].size).unwrap();
        let error = write_pool(&spec, &[&out as &dyn WriteAt], &()).unwrap_err();
        assert!(error.to_string().contains(&format!("`{}`", path.display())), "{error}");
        drop(std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir(&path)));
    }
}

#[test]
fn links_that_loop_are_links() {
    let dir = tempfile::tempdir().unwrap();
    for (name, target) in [("self", "self"), ("a", "b"), ("b", "a"), ("up", "."), ("root", "/")] {
        std::os::unix::fs::symlink(target, dir.path().join(name)).unwrap();
    }
    let mut tree = Tree::from_dir(dir.path()).unwrap();
    tree.overlay(Tree::from_dir(dir.path()).unwrap());
    let mut spec = pool(64);
    spec.datasets = vec![dataset("fz/root", &[], Some(tree))];
    let bytes = write(&spec).bytes();
    let pool = Pool::open(&[&bytes]).unwrap();
    assert_eq!(pool.filesystem("fz/root").unwrap().walk().map(Result::unwrap).count(), 6);
    assert!(verify(&pool, &()).is_clean());
}

#[test]
fn a_directory_too_deep_for_paths_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let flags = rustix::fs::OFlags::DIRECTORY;
    let mut at: std::os::fd::OwnedFd = File::open(dir.path()).unwrap().into();
    for _ in 0..10_000 {
        rustix::fs::mkdirat(&at, "d", rustix::fs::Mode::RWXU).unwrap();
        at = rustix::fs::openat(&at, "d", flags, rustix::fs::Mode::empty()).unwrap();
    }
    let error = Tree::from_dir(dir.path()).unwrap_err();
    assert!(error.to_string().contains("/d/d/d"), "{error}");
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("too long"), "{source}");
    // Whoever removes directories by path, or by one open file for each, cannot remove these.
    for _ in 0..10_000 {
        at = rustix::fs::openat(&at, "..", flags, rustix::fs::Mode::empty()).unwrap();
        rustix::fs::unlinkat(&at, "d", rustix::fs::AtFlags::REMOVEDIR).unwrap();
    }
}

/// Files that end just before, at and behind the end of everything that has one: an embedded block, a sector, a record,
/// what one indirect block can name.
#[test]
fn sizes_around_every_limit() {
    let random = Random(2).bytes(2 << 20);
    let meta = || Meta::root(0o644, Timestamp::default());
    for (records, record) in [("512", 512usize), ("4k", 4096), ("128k", 128 << 10)] {
        let mut tree = Tree::new();
        let mut limits = vec![1, 100, 112, 512, 4096, 131_072, record, 2 * record, 8 * record];
        // 1024 pointers in an indirect block.
        limits.extend(Some(1024 * record).filter(|limit| *limit < 1 << 20));
        for limit in limits {
            for size in [limit - 1, limit, limit + 1] {
                let noise = random[..size].to_vec();
                let text: Vec<u8> = (0..size).map(|i| (i / 30) as u8).collect();
                let mut late = vec![0; size];
                late.last_mut().into_iter().for_each(|byte| *byte = 1);
                for (kind, content) in [("noise", noise), ("text", text), ("late", late)] {
                    let data = Kind::File(Data::bytes(content));
                    tree.insert(format!("{kind}-{size}"), meta(), data).unwrap();
                }
            }
        }
        for compression in ["off", "lz4"] {
            let mut spec = pool(256);
            spec.datasets = vec![dataset(
                "fz/root",
                &[("recordsize", records), ("compression", compression)],
                Some(tree.clone()),
            )];
            let bytes = write(&spec).bytes();
            let pool = Pool::open(&[&bytes]).unwrap();
            let filesystem = pool.filesystem("fz/root").unwrap();
            for (path, node) in tree.walk().skip(1) {
                let Kind::File(data) = node.kind() else { continue };
                let mut found = Vec::new();
                let node = filesystem.lookup(&path).unwrap();
                std::io::Read::read_to_end(&mut filesystem.content(&node), &mut found).unwrap();
                assert!(
                    found == data.read().unwrap(),
                    "{records} {compression} {}",
                    String::from_utf8_lossy(&path)
                );
            }
            let report = verify(&pool, &());
            assert!(report.is_clean(), "{records} {compression}: {:?}", report.findings);
        }
    }
}

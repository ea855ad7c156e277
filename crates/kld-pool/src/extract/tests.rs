//! Pools that mean harm.

use std::path::{Path, PathBuf};

use super::{LeftOut, extract_dir, extract_tar};
use crate::device::Progress;
use crate::read::Pool;
use crate::tree::{Data, Kind, Meta, Timestamp, Tree};
use crate::{DatasetSpec, PoolSpec, write_pool};

fn meta(mode: u32) -> Meta {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    Meta { uid, gid, ..Meta::root(mode, Timestamp { sec: 7, nsec: 8 }) }
}

fn file(content: &str) -> Kind {
    Kind::File(Data::bytes(content.as_bytes()))
}

fn image(tree: Tree) -> Vec<u8> {
    let mut root = DatasetSpec::new("fz/root".parse().unwrap());
    root.content = tree.into();
    let mut spec = PoolSpec::new("fz".parse().unwrap(), 64 << 20, [1; 32]);
    spec.datasets = vec![root];
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(spec.size).unwrap();
    write_pool(&spec, &[file.as_file()], &()).unwrap();
    std::fs::read(file.path()).unwrap()
}

/// Every path below a directory of the host.
fn names(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let entry = entry.unwrap();
            found.push(entry.path());
            if entry.file_type().unwrap().is_dir() {
                open.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

#[test]
fn names_that_no_file_can_have_are_left_out() {
    let mut tree = Tree::new();
    tree.insert("d", meta(0o755), Kind::Directory).unwrap();
    tree.insert("d/e", meta(0o755), Kind::Directory).unwrap();
    tree.insert("d/e/good", meta(0o644), file("good")).unwrap();
    for (i, name) in ["..", ".", "/", "a/b", "../escaped", "/tmp/escaped", ""].into_iter().enumerate() {
        let id = tree.add(meta(0o644), file(&format!("evil {i}")));
        tree.name_anyhow("d/e", name, id);
    }
    let twin = tree.get("d/e").unwrap().id();
    tree.name_anyhow("", "twin", twin);
    let bytes = image(tree);
    let pool = Pool::open(&[&bytes]).unwrap();
    let filesystem = pool.filesystem("fz/root").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("a/b");
    std::fs::create_dir(dir.path().join("a")).unwrap();
    let report = extract_dir(&filesystem, "/", &to, 0, &()).unwrap();
    let said: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
    let bad = said.iter().filter(|said| said.ends_with("no file can have this name")).count();
    assert!(bad >= 6 && said.iter().any(|said| said.contains("`/d/e/../escaped`")), "{said:?}");
    assert_eq!(said.last().unwrap(), "`/twin`: the directory has another name already");
    let wanted = ["a", "a/b", "a/b/d", "a/b/d/e", "a/b/d/e/good"].map(|name| dir.path().join(name));
    assert_eq!(names(dir.path()), wanted);

    let mut tar = Vec::new();
    let report = extract_tar(&filesystem, "/", &mut tar, 0, &()).unwrap();
    assert_eq!(report.problems.len(), said.len());
    assert!(!tar.windows(7).any(|part| part == b"escaped"));
}

/// Renames a directory while it is being filled, and puts a link in its place.
struct Prankster {
    from: PathBuf,
    to: PathBuf,
    link_to: PathBuf,
}

impl Progress for Prankster {
    fn bytes(&self, _done: u64, _total: u64) {
        if !self.to.exists() {
            std::fs::rename(&self.from, &self.to).unwrap();
            std::os::unix::fs::symlink(&self.link_to, &self.from).unwrap();
        }
    }
}

#[test]
fn nothing_is_written_through_a_link_that_appears_meanwhile() {
    let mut tree = Tree::new();
    let mut path = String::new();
    for _ in 0..50 {
        path.push('d');
        tree.insert(&path, meta(0o755), Kind::Directory).unwrap();
        path.push('/');
    }
    tree.insert(format!("{path}1"), meta(0o644), file("one")).unwrap();
    tree.insert(format!("{path}2"), meta(0o644), file("two")).unwrap();
    tree.insert("d/d/z", meta(0o644), file("late")).unwrap();
    tree.insert("d/hard", meta(0o644), file("hard")).unwrap();
    tree.link("d/hard", "z").unwrap();
    let bytes = image(tree);
    let pool = Pool::open(&[&bytes]).unwrap();
    let filesystem = pool.filesystem("fz/root").unwrap();

    // A link in the way of what is written later.
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    std::fs::create_dir(path("outside")).unwrap();
    let prank = Prankster { from: path("to/d"), to: path("to/moved"), link_to: path("outside") };
    let report = extract_dir(&filesystem, "/", &path("to"), 0, &prank).unwrap();
    let said: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
    // The first name of the hard link is no longer where it was.
    assert!(said.len() == 1 && said[0].starts_with("`/z`: cannot be made"), "{said:?}");
    assert!(names(&path("outside")).is_empty());
    assert_eq!(std::fs::read(path("to/moved/d/z")).unwrap(), b"late");

    // A directory that is moved out, so that the way up leads elsewhere.
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    std::fs::create_dir(path("outside")).unwrap();
    let prank = Prankster { from: path("to/d/d"), to: path("outside/moved"), link_to: path("outside") };
    let error = extract_dir(&filesystem, "/", &path("to"), 0, &prank).unwrap_err();
    assert!(error.to_string().contains("was moved away"), "{error}");
    assert!(!path("outside/z").exists());
}

#[test]
fn what_the_host_cannot_take_is_counted() {
    let mut tree = Tree::new();
    let mut with_attribute = meta(0o644);
    with_attribute.xattrs.insert(b"user.k".to_vec(), b"v".to_vec());
    // Only files and directories can have attributes of users.
    tree.insert("pipe", with_attribute, Kind::Fifo).unwrap();
    tree.insert("socket", meta(0o640), Kind::Socket).unwrap();
    let bytes = image(tree);
    let pool = Pool::open(&[&bytes]).unwrap();
    let filesystem = pool.filesystem("fz/root").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let report = extract_dir(&filesystem, "/", &dir.path().join("to"), 0, &()).unwrap();
    let attributes = &report.left_out[&LeftOut::Attributes("user".to_owned())];
    assert_eq!((attributes.count, attributes.first.as_slice()), (1, &b"pipe"[..]));
    let report = extract_tar(&filesystem, "/", &mut Vec::new(), 0, &()).unwrap();
    assert_eq!(report.left_out.keys().collect::<Vec<_>>(), [&LeftOut::Sockets]);
}

#[test]
fn only_an_empty_directory_is_extracted_to() {
    let bytes = image(Tree::new());
    let pool = Pool::open(&[&bytes]).unwrap();
    let filesystem = pool.filesystem("fz/root").unwrap();
    let dir = tempfile::tempdir().unwrap();
    assert!(extract_dir(&filesystem, "/", dir.path(), 0, &()).is_ok());
    std::fs::write(dir.path().join("mine"), "precious").unwrap();
    let error = extract_dir(&filesystem, "/", dir.path(), 0, &()).unwrap_err();
    assert_eq!(error.to_string(), format!("the directory `{}` is not empty", dir.path().display()));
    let error = extract_dir(&filesystem, "/nope", &dir.path().join("new"), 0, &()).unwrap_err();
    assert!(error.to_string().contains("no `/nope`") && !dir.path().join("new").exists());
}

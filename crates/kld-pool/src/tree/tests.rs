//! Laws of trees: lookups, replacement, cutting and laying over.

use super::*;

fn meta(mode: u32) -> Meta {
    Meta::root(mode, Timestamp { sec: 7, nsec: 0 })
}

fn tree(paths: &[&str]) -> Tree {
    let mut tree = Tree::new();
    for path in paths {
        let (path, kind) = match path.split_once(" -> ") {
            Some((path, target)) => (path, Kind::Symlink(target.as_bytes().to_vec())),
            None => match path.split_once('=') {
                Some((path, content)) => (path, Kind::File(Data::bytes(content.as_bytes()))),
                None => (*path, Kind::Directory),
            },
        };
        tree.insert(path, meta(0o700), kind).unwrap();
    }
    tree
}

fn listing(tree: &Tree) -> Vec<String> {
    tree.walk()
        .skip(1)
        .map(|(path, node)| {
            let path = String::from_utf8(path).unwrap();
            match node.kind() {
                Kind::Directory => path + "/",
                Kind::File(data) => format!("{path}={}", String::from_utf8(data.read().unwrap()).unwrap()),
                Kind::Symlink(target) => format!("{path} -> {}", String::from_utf8_lossy(target)),
                _ => path,
            }
        })
        .collect()
}

#[test]
fn walk_is_depth_first_in_byte_order() {
    let tree = tree(&["b", "a", "a/z=1", "a/B", "a/B/x=2", "a.c=3"]);
    assert_eq!(listing(&tree), ["a/", "a/B/", "a/B/x=2", "a/z=1", "a.c=3", "b/"]);
    assert_eq!((tree.len(), tree.apparent_size()), (7, 3));
}

#[test]
fn paths_are_normalised_or_refused() {
    let mut tree = tree(&["a", "a/f=1"]);
    for path in ["a/f", "/a/f", "./a//f", "a/./f"] {
        assert!(tree.get(path).is_some(), "{path}");
    }
    let long = "n".repeat(256);
    for (path, message) in [
        ("a/../f", "path `a/../f` leaves its directory by `..`"),
        (long.as_str(), &format!("path `{long}` has a name of more than 255 bytes")),
        ("x/y", "cannot add `x/y`: its parent is not a directory"),
        ("a/f/y", "cannot add `a/f/y`: its parent is not a directory"),
        ("a", "cannot replace the directory `a`"),
        ("", "cannot replace the directory `/`"),
    ] {
        assert_eq!(tree.insert(path, meta(0), Kind::Fifo).unwrap_err().to_string(), message);
    }
    assert_eq!(listing(&tree), ["a/", "a/f=1"]);
}

#[test]
fn insert_replaces_files_and_keeps_directories() {
    let mut tree = tree(&["d", "d/f=1", "g=2"]);
    tree.insert("g", meta(0o600), Kind::Symlink(b"d".to_vec())).unwrap();
    tree.insert("d", meta(0o711), Kind::Directory).unwrap();
    tree.ensure_dir("d/new/deep", meta(0o750)).unwrap();
    assert_eq!(listing(&tree), ["d/", "d/f=1", "d/new/", "d/new/deep/", "g -> d"]);
    assert_eq!(tree.get("d").unwrap().meta().mode, 0o711);
    assert_eq!(tree.resolve("g/f").unwrap().id(), tree.get("d/f").unwrap().id());
    assert!(tree.get("g/f").is_none());
    assert!(tree.ensure_dir("g/x", meta(0)).is_err());
}

#[test]
fn links_share_a_node_and_a_cut_makes_two() {
    let mut tree = tree(&["a", "b", "a/f=1"]);
    tree.link("a/f", "b/g").unwrap();
    tree.link("a/f", "a/h").unwrap();
    assert_eq!(tree.get("a/f").unwrap().id(), tree.get("b/g").unwrap().id());
    assert_eq!((tree.len(), tree.apparent_size()), (4, 1));
    assert!(tree.link("a", "c").is_err());
    assert!(tree.link("none", "c").is_err());
    let part = tree.split_off("a").unwrap();
    assert_eq!(listing(&part), ["f=1", "h=1"]);
    assert_eq!(part.get("f").unwrap().id(), part.get("h").unwrap().id());
    assert_eq!(part.root().meta().mode, 0o700);
    assert_eq!(listing(&tree), ["a/", "b/", "b/g=1"]);
    assert!(tree.split_off("").is_none());
    assert!(tree.split_off("b/g").is_none());
}

#[test]
fn remove_takes_the_whole_subtree() {
    let mut tree = tree(&["a", "a/b", "a/b/f=1", "c=2"]);
    assert!(matches!(tree.remove("a"), Some((_, Kind::Directory))));
    assert!(tree.remove("a").is_none());
    assert_eq!((listing(&tree), tree.len(), tree.apparent_size()), (vec!["c=2".to_owned()], 2, 1));
}

#[test]
fn overlay_merges_directories_and_wins() {
    let mut lower =
        tree(&["etc", "etc/a=1", "etc/b=2", "usr", "usr/lib", "usr/lib/x=3", "lib -> usr/lib", "d", "d/e=4"]);
    let mut upper = tree(&["etc", "etc/b=9", "etc/c", "lib", "lib/m", "d=5"]);
    upper.meta_mut("etc").unwrap().mode = 0o755;
    upper.link("etc/b", "etc/z").unwrap();
    lower.overlay(upper);
    assert_eq!(
        listing(&lower),
        [
            "d=5",
            "etc/",
            "etc/a=1",
            "etc/b=9",
            "etc/c/",
            "etc/z=9",
            "lib -> usr/lib",
            "usr/",
            "usr/lib/",
            "usr/lib/m/",
            "usr/lib/x=3"
        ]
    );
    assert_eq!(lower.get("etc").unwrap().meta().mode, 0o755);
    assert_eq!(lower.get("etc/b").unwrap().id(), lower.get("etc/z").unwrap().id());
}

#[test]
fn overlay_survives_loops_of_links() {
    let mut lower = tree(&["a -> b", "b -> a"]);
    lower.overlay(tree(&["a", "a/f=1"]));
    assert_eq!(listing(&lower), ["a/", "a/f=1", "b -> a"]);
    assert!(lower.resolve("b/f").is_some());
}

#[test]
fn clamped_times() {
    let mut tree = tree(&["a=1"]);
    tree.clamp_mtimes(Timestamp { sec: 6, nsec: 5 });
    assert_eq!(tree.get("a").unwrap().meta().mtime, Timestamp { sec: 6, nsec: 5 });
    assert_eq!(tree.root().meta().mtime, Timestamp::default());
}

#[test]
fn a_directory_of_the_host() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    std::fs::create_dir(path("d")).unwrap();
    std::fs::write(path("d/f"), b"content").unwrap();
    std::fs::hard_link(path("d/f"), path("g")).unwrap();
    for (name, value) in [("user.text", &b"v"[..]), ("user.empty", b""), ("user.long", &[7; 1000])] {
        rustix::fs::setxattr(path("d/f"), name, value, rustix::fs::XattrFlags::empty()).unwrap();
    }
    std::os::unix::fs::symlink("/etc", path("l")).unwrap();
    let sparse = std::fs::File::create(path("sparse")).unwrap();
    sparse.set_len(10 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, &[1; 4096], 5 << 20).unwrap();
    let tree = Tree::from_dir(dir.path()).unwrap();
    assert_eq!(tree.read("d/f").unwrap(), b"content");
    assert_eq!(tree.get("g").unwrap().id(), tree.get("d/f").unwrap().id());
    let xattrs = &tree.get("g").unwrap().meta().xattrs;
    assert_eq!(
        (xattrs.len(), &xattrs[&b"user.text"[..]][..], &xattrs[&b"user.long"[..]][..]),
        (3, &b"v"[..], &[7; 1000][..])
    );
    assert_eq!(xattrs[&b"user.empty"[..]], b"");
    assert!(matches!(tree.get("l").unwrap().kind(), Kind::Symlink(target) if target == b"/etc"));
    let Kind::File(data) = tree.get("sparse").unwrap().kind() else { panic!("a file") };
    assert_eq!(data.len(), 10 << 20);
    assert_eq!(data.hole_at(6 << 20), 4 << 20);
    assert_eq!(data.hole_at(5 << 20), 0);
    let content = tree.read("sparse").unwrap();
    assert_eq!(content.iter().filter(|byte| **byte == 1).count(), 4096);
    std::fs::write(path("d/f"), b"changed!").unwrap();
    assert!(tree.read("d/f").is_err());
    let error = Tree::from_dir(path("none")).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot read the metadata of `{}`", path("none").display()));
}

//! Real trees: a good copy is the same, and whatever single thing is changed in it is found.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::time::{Duration, UNIX_EPOCH};

use kld_host::Cmd;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};
use tempfile::TempDir;

use super::*;

/// A tree with one of everything that can be made without being root, with odd names.
fn tree(files: &[Vec<u8>]) -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let at = |name: &str| dir.path().join("old").join(name);
    fs::create_dir_all(at("below/deep")).expect("writable");
    fs::create_dir_all(at("empty")).expect("writable");
    for (number, content) in files.iter().enumerate() {
        let folder = ["", "below/", "below/deep/"][number % 3];
        fs::write(at(&format!("{folder}file {number}\nö")), content).expect("writable");
    }
    fs::write(at("one"), "shared").expect("writable");
    fs::hard_link(at("one"), at("below/other name")).expect("links work");
    fs::write(at("two"), "shared").expect("writable");
    fs::hard_link(at("two"), at("below/two's")).expect("links work");
    symlink("../nowhere", at("below/link")).expect("links work");
    let sparse = File::create(at("sparse")).expect("writable");
    sparse.set_len(1 << 20).expect("sparse files work");
    rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), FileType::Fifo, 0o600.into(), 0)
        .expect("pipes can be made");
    rustix::fs::setxattr(at("one"), "user.note", b"seen", rustix::fs::XattrFlags::empty())
        .expect("attributes work");
    fs::set_permissions(at("two"), fs::Permissions::from_mode(0o4750)).expect("owned");
    copy(&dir);
    dir
}

/// As the engine copies.
fn copy(dir: &TempDir) {
    fs::create_dir(dir.path().join("new")).expect("writable");
    let from = format!("{}/.", dir.path().join("old").display());
    let words = ["-a", "--reflink=never", "--"];
    Cmd::new("cp").args(words).arg(from).arg(dir.path().join("new")).run().expect("cp works");
}

/// To the end.
fn both(old: &Path, new: &Path) -> Result<Comparison, Fault> {
    compare(old, new, &AtomicBool::new(false)).map(|done| done.expect("nobody stops it"))
}

fn differences(dir: &TempDir) -> Vec<Difference> {
    both(&dir.path().join("old"), &dir.path().join("new")).expect("readable").differences
}

/// Something with its times as they were: only what is meant to be changed is.
fn quietly(path: &Path, change: impl FnOnce(&Path)) {
    let (times, above) = (times_of(path), times_of(path.parent().expect("it lies in a directory")));
    change(path);
    if rustix::fs::lstat(path).is_ok() {
        set_times(path, &times);
    }
    set_times(path.parent().expect("it lies in a directory"), &above);
}

fn times_of(path: &Path) -> rustix::fs::Timestamps {
    let stat = rustix::fs::lstat(path).expect("it is there");
    let time =
        |tv_sec, tv_nsec: u64| rustix::fs::Timespec { tv_sec, tv_nsec: tv_nsec.try_into().expect("a part") };
    rustix::fs::Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

fn set_times(path: &Path, times: &rustix::fs::Timestamps) {
    rustix::fs::utimensat(rustix::fs::CWD, path, times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)
        .expect("owned");
}

/// Everything that can be wrong with one name of a copy, by what it can happen to.
fn spoil(path: &Path, how: usize) -> Option<&'static str> {
    let meta = fs::symlink_metadata(path).expect("it is there");
    let is_file = meta.is_file();
    let changes: [(&'static str, bool); 11] = [
        ("content", is_file && meta.len() > 0),
        ("size", is_file),
        ("mode", !meta.is_symlink()),
        ("time", true),
        ("attribute", is_file || meta.is_dir()),
        ("gone", !meta.is_dir()),
        ("type", !meta.is_dir()),
        ("target", meta.is_symlink()),
        ("link broken", is_file && meta.nlink() > 1),
        ("one more", meta.is_dir()),
        ("owner", rustix::process::geteuid().is_root()),
    ];
    let possible: Vec<&'static str> =
        changes.into_iter().filter(|(_, can)| *can).map(|(name, _)| name).collect();
    let change = *possible.get(how % possible.len())?;
    quietly(path, |path| match change {
        "content" => {
            let mut bytes = fs::read(path).expect("readable");
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(path, bytes).expect("writable");
        }
        "size" => fs::write(path, [fs::read(path).expect("readable"), vec![0]].concat()).expect("writable"),
        "mode" => fs::set_permissions(path, fs::Permissions::from_mode(meta.mode() ^ 0o2)).expect("owned"),
        "attribute" => {
            let flags = rustix::fs::XattrFlags::empty();
            rustix::fs::lsetxattr(path, "user.note", b"other", flags).expect("attributes work");
        }
        "gone" => fs::remove_file(path).expect("writable"),
        "type" => {
            fs::remove_file(path).expect("writable");
            fs::create_dir(path).expect("writable");
        }
        "target" => {
            fs::remove_file(path).expect("writable");
            symlink("elsewhere", path).expect("links work");
        }
        "link broken" => {
            let bytes = fs::read(path).expect("readable");
            fs::remove_file(path).expect("writable");
            fs::write(path, bytes).expect("writable");
            fs::set_permissions(path, meta.permissions()).expect("owned");
        }
        "one more" => fs::write(path.join("of nobody"), "").expect("writable"),
        "owner" => std::os::unix::fs::lchown(path, Some(meta.uid() + 1), None).expect("root may"),
        _ => {}
    });
    if change == "time" {
        let mut times = times_of(path);
        times.last_modification.tv_nsec = (times.last_modification.tv_nsec + 1) % 1_000_000_000;
        set_times(path, &times);
    }
    Some(change)
}

/// Every name in a tree, with the root.
fn everything(root: &Path) -> Vec<PathBuf> {
    let mut all = vec![root.to_owned()];
    let mut next = 0;
    while next < all.len() {
        if fs::symlink_metadata(&all[next]).expect("it is there").is_dir() {
            let mut inside: Vec<PathBuf> = fs::read_dir(&all[next])
                .expect("readable")
                .map(|entry| entry.expect("readable").path())
                .collect();
            inside.sort();
            all.extend(inside);
        }
        next += 1;
    }
    all
}

#[test]
fn any_single_difference_is_found() {
    let mut runner = TestRunner::new(Config { cases: 400, failure_persistence: None, ..Config::default() });
    let files = prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..6);
    let seen = std::cell::RefCell::new(BTreeSet::new());
    let law = |(files, at, how): (Vec<Vec<u8>>, Index, usize)| {
        let dir = tree(&files);
        prop_assert_eq!(differences(&dir), []);
        let all = everything(&dir.path().join("new"));
        let path = &all[at.index(all.len())];
        if let Some(change) = spoil(path, how) {
            seen.borrow_mut().insert(change);
            prop_assert!(!differences(&dir).is_empty(), "{} of {} is not found", change, path.display());
        }
        Ok(())
    };
    runner.run(&(files, any::<Index>(), 0..1000_usize), law).unwrap_or_else(|error| panic!("{error}"));
    let seen = seen.into_inner();
    assert!(seen.len() >= 10, "too few kinds of changes were made: {seen:?}");
}

#[test]
fn differences_are_said_with_their_place() {
    let dir = tree(&[b"a".to_vec()]);
    let new = |name: &str| dir.path().join("new").join(name);
    quietly(&new("two"), |path| fs::set_permissions(path, fs::Permissions::from_mode(0o640)).expect("owned"));
    quietly(&new("empty"), |path| fs::remove_dir(path).expect("empty"));
    let said: Vec<String> = differences(&dir).iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "below/two's: mode 4750, in the copy 640",
            "empty: is not in the copy",
            "two: mode 4750, in the copy 640"
        ]
    );
}

#[test]
fn links_that_are_exchanged_are_found() {
    // Four names of two files, with the same content: every number is right, and the pairs are not.
    let dir = tree(&[]);
    let new = |name: &str| dir.path().join("new").join(name);
    for name in ["one", "below/other name", "two", "below/two's"] {
        let old = dir.path().join("old").join(name);
        fs::set_permissions(&old, fs::Permissions::from_mode(0o640)).expect("owned");
        rustix::fs::setxattr(&old, "user.note", b"seen", rustix::fs::XattrFlags::empty())
            .expect("attributes work");
        File::options()
            .write(true)
            .open(&old)
            .and_then(|file| file.set_modified(UNIX_EPOCH + Duration::from_secs(9)))
            .expect("owned");
    }
    fs::remove_dir_all(dir.path().join("new")).expect("writable");
    copy(&dir);
    assert_eq!(differences(&dir), []);
    quietly(&new("below/two's"), |path| {
        fs::remove_file(path).expect("writable");
        fs::hard_link(new("one"), path).expect("links work");
    });
    quietly(&new("below/other name"), |path| {
        fs::remove_file(path).expect("writable");
        fs::hard_link(new("two"), path).expect("links work");
    });
    let found = differences(&dir);
    assert!(found.iter().all(|one| one.what.starts_with("shares its content")), "{found:?}");
    assert_eq!(found.len(), 2, "{found:?}");
}

#[test]
fn a_survey_changes_with_whatever_is_changed_and_stays_when_it_is_renamed() {
    let dir = tree(&[b"a".to_vec()]);
    let old = dir.path().join("old");
    let first = survey(&old).expect("readable");
    let comparison = both(&old, &dir.path().join("new")).expect("readable");
    let stopped = compare(&old, &dir.path().join("new"), &AtomicBool::new(true));
    assert_eq!(stopped.expect("readable"), None);
    assert_eq!(comparison.old, first.stamp);
    assert_eq!(comparison.new, survey(&dir.path().join("new")).expect("readable").stamp);
    assert_eq!((first.entries, first.linked_outside.len()), (12, 0));
    let aside = dir.path().join("aside");
    fs::rename(&old, &aside).expect("it can be renamed");
    assert_eq!(survey(&aside).expect("readable").stamp, first.stamp, "renaming is ours to do");
    // Longer than the clock of any file system is coarse.
    std::thread::sleep(Duration::from_millis(20));
    quietly(&aside.join("one"), |path| fs::write(path, "sharet").expect("writable"));
    assert_ne!(
        survey(&aside).expect("readable").stamp,
        first.stamp,
        "times that were set back do not hide it"
    );

    fs::hard_link(aside.join("two"), dir.path().join("outside")).expect("links work");
    let linked = survey(&aside).expect("readable").linked_outside;
    assert!(linked == ["below/two's"] || linked == ["two"], "{linked:?}");
}

#[test]
fn a_link_in_the_place_of_a_tree_is_not_followed() {
    let dir = tree(&[]);
    symlink(dir.path().join("old"), dir.path().join("to-old")).expect("links work");
    assert!(survey(&dir.path().join("to-old")).is_err());
    assert!(both(&dir.path().join("to-old"), &dir.path().join("new")).is_err());
}

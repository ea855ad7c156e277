//! Whether a copy of a tree is that tree: every name with its type, mode, owner, times, links, target, attributes and content.
//!
//! The checker is no relative of the copier, so that what the copier forgets is found.

use std::collections::{BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{FileType, IFlags, Stat};
use sha2::{Digest as _, Sha256};

use super::walk::{self, Fault};
use crate::kinds::hex;

/// One thing in which a copy is not the original.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Where, relative to the root; `.` is the root.
    pub path: String,
    /// What: `content`, `mode 644, in the copy 600`.
    pub what: String,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.path, self.what)
    }
}

/// What a comparison has found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Comparison {
    /// The differences, at most twenty.
    pub differences: Vec<Difference>,
    /// The [`Survey::stamp`] of the original.
    pub old: String,
    /// The [`Survey::stamp`] of the copy.
    pub new: String,
}

/// After so many differences, nobody reads on.
const MOST: usize = 20;

/// What a tree is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Survey {
    /// How many names, with the root.
    pub entries: u64,
    /// Bytes on disk.
    pub bytes: u64,
    /// A digest of names and numbers, which changes with whatever is changed in the tree.
    pub stamp: String,
    /// Files that have a further name outside of the tree.
    pub linked_outside: Vec<String>,
}

/// Goes through a tree.
pub(crate) fn survey(root: &Path) -> Result<Survey, Fault> {
    let dir = walk::open_root(root)?;
    let mut surveyor =
        Surveyor { root, digest: Sha256::new(), survey: Survey::default(), links: HashMap::new() };
    let stat = walk::stat_of(&dir, root)?;
    surveyor.take(Path::new("."), &stat);
    surveyor.descend(dir, Path::new(""))?;
    let Surveyor { digest, mut survey, links, .. } = surveyor;
    survey.stamp = hex(&digest.finalize());
    let outside = links.into_values().filter(|(count, seen, _)| count > seen);
    survey.linked_outside = outside.map(|(_, _, path)| path.display().to_string()).collect();
    survey.linked_outside.sort();
    Ok(survey)
}

struct Surveyor<'a> {
    root: &'a Path,
    digest: Sha256,
    survey: Survey,
    /// Names that a file has, names that were seen, and the first of them.
    links: HashMap<(u64, u64), (u64, u64, PathBuf)>,
}

impl Surveyor<'_> {
    fn take(&mut self, path: &Path, stat: &Stat) {
        self.digest.update(walk::stamp(path, stat, path == Path::new(".")));
        self.survey.entries += 1;
        self.survey.bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * 512;
        let names = count_of(stat);
        if names > 1 && walk::kind(stat) != FileType::Directory {
            let file = self.links.entry((stat.st_dev, stat.st_ino)).or_insert((names, 0, path.to_owned()));
            file.1 += 1;
        }
    }

    fn descend(&mut self, dir: OwnedFd, below: &Path) -> Result<(), Fault> {
        for name in visible(walk::names(dir.as_fd(), &self.root.join(below))?, below) {
            let path = below.join(&name);
            let shown = self.root.join(&path);
            let stat = walk::stat(dir.as_fd(), &name, &shown)?;
            self.take(&path, &stat);
            if walk::kind(&stat) == FileType::Directory {
                self.descend(walk::open(dir.as_fd(), &name, &shown)?, &path)?;
            }
        }
        Ok(())
    }
}

/// ZFS shows its snapshots in the root of a dataset, when it is asked to.
fn visible(mut names: Vec<OsString>, below: &Path) -> Vec<OsString> {
    if below == Path::new("") {
        names.retain(|name| name != ".zfs");
    }
    names
}

fn count_of(stat: &Stat) -> u64 {
    #[allow(clippy::useless_conversion, reason = "its width differs between architectures")]
    u64::from(stat.st_nlink)
}

/// Compares a tree with its copy; `None` when `stop` is set before that is done.
pub(crate) fn compare(old: &Path, new: &Path, stop: &AtomicBool) -> Result<Option<Comparison>, Fault> {
    let (old_dir, new_dir) = (walk::open_root(old)?, walk::open_root(new)?);
    let mut pair = Pair::new(old, new, stop);
    let (a, b) = (walk::stat_of(&old_dir, old)?, walk::stat_of(&new_dir, new)?);
    pair.stamp(Path::new("."), &a, &b);
    pair.numbers(Path::new("."), &a, &b);
    pair.descend((old_dir, new_dir), Path::new(""))?;
    if pair.is_stopped() {
        return Ok(None);
    }
    let Pair { found, digests: (old, new), .. } = pair;
    Ok(Some(Comparison { differences: found, old: hex(&old.finalize()), new: hex(&new.finalize()) }))
}

type Place = (u64, u64);

struct Pair<'a> {
    old: &'a Path,
    new: &'a Path,
    digests: (Sha256, Sha256),
    found: Vec<Difference>,
    /// Files with several names, and what stands for them in the other tree.
    links: (HashMap<Place, Place>, HashMap<Place, Place>),
    stop: &'a AtomicBool,
}

impl<'a> Pair<'a> {
    fn new(old: &'a Path, new: &'a Path, stop: &'a AtomicBool) -> Self {
        let links = (HashMap::new(), HashMap::new());
        Self { old, new, digests: (Sha256::new(), Sha256::new()), found: Vec::new(), links, stop }
    }

    /// What it would find from now on, nobody will read.
    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    fn differ(&mut self, path: &Path, what: impl Into<String>) {
        let path = if path == Path::new("") { Path::new(".") } else { path };
        if self.found.len() < MOST {
            self.found.push(Difference { path: path.display().to_string(), what: what.into() });
        }
    }

    fn stamp(&mut self, path: &Path, old: &Stat, new: &Stat) {
        let is_root = path == Path::new(".");
        self.digests.0.update(walk::stamp(path, old, is_root));
        self.digests.1.update(walk::stamp(path, new, is_root));
    }

    /// Two open directories: what they are themselves, then everything in them.
    fn descend(&mut self, dirs: (OwnedFd, OwnedFd), below: &Path) -> Result<(), Fault> {
        let (old, new) = (self.old.join(below), self.new.join(below));
        self.attributes(below, &open_attributes(&dirs.0, &old)?, &open_attributes(&dirs.1, &new)?);
        let names = (
            visible(walk::names(dirs.0.as_fd(), &old)?, below),
            visible(walk::names(dirs.1.as_fd(), &new)?, below),
        );
        let there: (BTreeSet<&OsString>, BTreeSet<&OsString>) =
            (names.0.iter().collect(), names.1.iter().collect());
        for name in there.0.union(&there.1) {
            if self.is_stopped() {
                break;
            }
            let path = below.join(name);
            match (there.0.contains(name), there.1.contains(name)) {
                (true, true) => self.one((dirs.0.as_fd(), dirs.1.as_fd()), name, &path)?,
                (true, false) => self.differ(&path, "is not in the copy"),
                _ => self.differ(&path, "is in the copy only"),
            }
        }
        Ok(())
    }

    fn one(
        &mut self,
        dirs: (BorrowedFd<'_>, BorrowedFd<'_>),
        name: &OsStr,
        path: &Path,
    ) -> Result<(), Fault> {
        let (old, new) = (self.old.join(path), self.new.join(path));
        let (a, b) = (walk::stat(dirs.0, name, &old)?, walk::stat(dirs.1, name, &new)?);
        self.stamp(path, &a, &b);
        if walk::kind(&a) != walk::kind(&b) {
            self.differ(path, "is of another type in the copy");
            return Ok(());
        }
        self.numbers(path, &a, &b);
        match walk::kind(&a) {
            FileType::Directory => {
                let both = (walk::open(dirs.0, name, &old)?, walk::open(dirs.1, name, &new)?);
                return self.descend(both, path);
            }
            FileType::RegularFile => {
                let both = (walk::open(dirs.0, name, &old)?, walk::open(dirs.1, name, &new)?);
                self.attributes(path, &open_attributes(&both.0, &old)?, &open_attributes(&both.1, &new)?);
                if a.st_size == b.st_size && !same_content(both, (&old, &new), self.stop)? {
                    self.differ(path, "content");
                }
                return Ok(());
            }
            FileType::Symlink => {
                let read = |dir, shown: &Path| {
                    rustix::fs::readlinkat(dir, name, Vec::new()).map_err(walk::at(shown))
                };
                if read(dirs.0, &old)? != read(dirs.1, &new)? {
                    self.differ(path, "target");
                }
            }
            _ if a.st_rdev != b.st_rdev => self.differ(path, "device number"),
            _ => {}
        }
        let both = (named_attributes(dirs.0, name, &old)?, named_attributes(dirs.1, name, &new)?);
        self.attributes(path, &both.0, &both.1);
        Ok(())
    }

    /// What `stat` says, as far as a copy can have it.
    fn numbers(&mut self, path: &Path, old: &Stat, new: &Stat) {
        let is = walk::kind(old);
        let (a, b) = (old.st_mode & 0o7777, new.st_mode & 0o7777);
        if is != FileType::Symlink && a != b {
            self.differ(path, format!("mode {a:o}, in the copy {b:o}"));
        }
        let (a, b) = ((old.st_uid, old.st_gid), (new.st_uid, new.st_gid));
        if a != b {
            self.differ(path, format!("owner {}:{}, in the copy {}:{}", a.0, a.1, b.0, b.1));
        }
        if walk::mtime(old) != walk::mtime(new) {
            self.differ(path, "time of its last change");
        }
        if is == FileType::Directory {
            return;
        }
        if is == FileType::RegularFile && old.st_size != new.st_size {
            self.differ(path, format!("{} bytes, in the copy {}", old.st_size, new.st_size));
        }
        let (a, b) = (count_of(old), count_of(new));
        if a != b {
            self.differ(path, format!("{a} names, in the copy {b}"));
        } else if a > 1 {
            let places = ((old.st_dev, old.st_ino), (new.st_dev, new.st_ino));
            let there = *self.links.0.entry(places.0).or_insert(places.1);
            let back = *self.links.1.entry(places.1).or_insert(places.0);
            if (there, back) != (places.1, places.0) {
                self.differ(path, "shares its content with other names than in the copy");
            }
        }
    }

    fn attributes(&mut self, path: &Path, old: &Attributes, new: &Attributes) {
        let names: BTreeSet<&OsString> = old.extended.keys().chain(new.extended.keys()).collect();
        for name in names {
            if old.extended.get(name) != new.extended.get(name) {
                let shown = match name.as_bytes() {
                    b"system.posix_acl_access" | b"system.posix_acl_default" => {
                        "access control list".to_owned()
                    }
                    _ => format!("extended attribute {}", name.display()),
                };
                self.differ(path, shown);
            }
        }
        for (flag, word) in FLAGS {
            if old.flags.contains(flag) != new.flags.contains(flag) {
                self.differ(path, word);
            }
        }
    }
}

/// What no copier takes along: chattr(1).
const FLAGS: [(IFlags, &str); 3] = [
    (IFlags::IMMUTABLE, "the flag `i` of chattr (immutable)"),
    (IFlags::APPEND, "the flag `a` of chattr (append only)"),
    (IFlags::PROJECT_INHERIT, "the flag `P` of chattr (project quota)"),
];

/// What `stat` does not say.
struct Attributes {
    extended: HashMap<OsString, Vec<u8>>,
    flags: IFlags,
}

fn open_attributes(file: &OwnedFd, shown: &Path) -> Result<Attributes, Fault> {
    let list = sized(|buffer: &mut [u8]| rustix::fs::flistxattr(file, buffer)).map_err(walk::at(shown))?;
    let get = |name: &OsStr| sized(|buffer: &mut [u8]| rustix::fs::fgetxattr(file, name, buffer));
    let extended = collect(&list, get).map_err(walk::at(shown))?;
    // A file system without flags says so.
    let flags = rustix::fs::ioctl_getflags(file).unwrap_or(IFlags::empty());
    Ok(Attributes { extended, flags })
}

/// Those of something that is not to be opened.
fn named_attributes(dir: BorrowedFd<'_>, name: &OsStr, shown: &Path) -> Result<Attributes, Fault> {
    let path = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name);
    let list = sized(|buffer: &mut [u8]| rustix::fs::llistxattr(&path, buffer)).map_err(walk::at(shown))?;
    let get = |name: &OsStr| sized(|buffer: &mut [u8]| rustix::fs::lgetxattr(&path, name, buffer));
    let extended = collect(&list, get).map_err(walk::at(shown))?;
    Ok(Attributes { extended, flags: IFlags::empty() })
}

fn collect(
    list: &[u8],
    get: impl Fn(&OsStr) -> rustix::io::Result<Vec<u8>>,
) -> rustix::io::Result<HashMap<OsString, Vec<u8>>> {
    let names = list.split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(OsStr::from_bytes);
    // Those of btrfs tell btrfs what to do, and nobody else.
    let names = names.filter(|name| !name.as_bytes().starts_with(b"btrfs."));
    names.map(|name| Ok((name.to_owned(), get(name)?))).collect()
}

/// Calls with more and more room; none of it is needed when the file system knows no attributes.
fn sized(call: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    let mut buffer = vec![0; 1 << 10];
    loop {
        match call(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            Err(rustix::io::Errno::RANGE) => buffer.resize(buffer.len() * 4, 0),
            Err(rustix::io::Errno::NOTSUP) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        }
    }
}

/// Whether two files hold the same, as far as that was looked at before `stop` was set.
fn same_content(both: (OwnedFd, OwnedFd), shown: (&Path, &Path), stop: &AtomicBool) -> Result<bool, Fault> {
    let (mut old, mut new) = (File::from(both.0), File::from(both.1));
    let (mut a, mut b) = (vec![0; 1 << 17], vec![0; 1 << 17]);
    loop {
        let count = fill(&mut old, &mut a).map_err(|error| (shown.0.to_owned(), error))?;
        let other = fill(&mut new, &mut b).map_err(|error| (shown.1.to_owned(), error))?;
        if a[..count] != b[..other] {
            return Ok(false);
        }
        if count == 0 || stop.load(Ordering::SeqCst) {
            return Ok(true);
        }
    }
}

/// Reads until the buffer is full or the file has ended.
fn fill(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests;

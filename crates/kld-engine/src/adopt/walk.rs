//! Going through a tree of files by directory handles: no link is followed, whoever may change the tree meanwhile.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};

/// An error that says where it happened.
pub(super) fn at(path: &Path) -> impl FnOnce(rustix::io::Errno) -> (PathBuf, io::Error) + '_ {
    move |errno| (path.to_owned(), errno.into())
}

/// What went wrong, and where.
pub(super) type Fault = (PathBuf, io::Error);

/// Opens a directory itself, and not what a link in its place leads to.
pub(super) fn open_root(path: &Path) -> Result<OwnedFd, Fault> {
    rustix::fs::open(
        path,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC,
        Mode::empty(),
    )
    .map_err(at(path))
}

/// Opens a directory or regular file in a directory, never through a link, without waiting for anybody.
pub(super) fn open(dir: BorrowedFd<'_>, name: &OsStr, shown: &Path) -> Result<OwnedFd, Fault> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty()).map_err(at(shown))
}

/// The names in a directory, sorted.
pub(super) fn names(dir: BorrowedFd<'_>, shown: &Path) -> Result<Vec<OsString>, Fault> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(dir).map_err(at(shown))? {
        let name = entry.map_err(at(shown))?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(OsString::from_vec(name));
        }
    }
    names.sort();
    Ok(names)
}

/// What there is about a name in a directory.
pub(super) fn stat(dir: BorrowedFd<'_>, name: &OsStr, shown: &Path) -> Result<Stat, Fault> {
    rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(at(shown))
}

/// What there is about an open file.
pub(super) fn stat_of(file: impl AsFd, shown: &Path) -> Result<Stat, Fault> {
    rustix::fs::fstat(file).map_err(at(shown))
}

/// Directory, file, link …
pub(super) fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// The time of the last change of content: seconds and nanoseconds.
pub(super) fn mtime(stat: &Stat) -> (i64, u64) {
    (stat.st_mtime, stat.st_mtime_nsec)
}

/// What of a file cannot stay as it was when somebody changes it. `ctime` is the kernel's own and cannot be set back; that of
/// the root changes when it is renamed, which is ours to do.
pub(super) fn stamp(path: &Path, stat: &Stat, is_root: bool) -> Vec<u8> {
    let mut bytes = path.as_os_str().as_bytes().to_vec();
    bytes.push(0);
    let ctime = if is_root { (0, 0) } else { (stat.st_ctime, stat.st_ctime_nsec) };
    // Not that of a directory: file systems count differently after the same changes.
    let size = if kind(stat) == FileType::Directory { 0 } else { stat.st_size };
    let numbers = format!(
        "{} {} {} {} {} {} {:?} {:?}\n",
        stat.st_ino,
        stat.st_mode,
        stat.st_uid,
        stat.st_gid,
        stat.st_rdev,
        size,
        mtime(stat),
        ctime
    );
    bytes.extend(numbers.as_bytes());
    bytes
}

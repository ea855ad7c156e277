//! Owner, attributes, mode and times of a file that was made.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::report::{LeftOut, Report, Trouble};
use crate::read::{Filesystem, Node};
use crate::tree::Timestamp;

/// A file that was made.
pub(super) enum Made<'d> {
    /// A file or directory, open.
    Open(BorrowedFd<'d>),
    /// A device, pipe or socket, held by a handle that cannot read or write: opening one would act on it.
    Held(OwnedFd),
    /// A symbolic link in a directory.
    Link(BorrowedFd<'d>, &'d [u8]),
}

impl Made<'_> {
    /// Holds the special file `name` of a directory, which `is_it` must recognise: another file may stand there by now.
    pub(super) fn hold(
        directory: BorrowedFd<'_>,
        name: &[u8],
        kind: rustix::fs::FileType,
    ) -> rustix::io::Result<Made<'static>> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(directory, name, flags, Mode::empty())?;
        match rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode) == kind {
            true => Ok(Made::Held(file)),
            false => Err(Errno::EXIST),
        }
    }

    fn set_owner(&self, uid: Uid, gid: Gid) -> rustix::io::Result<()> {
        let (uid, gid) = (Some(uid), Some(gid));
        match self {
            Made::Open(file) => rustix::fs::fchown(file, uid, gid),
            Made::Held(file) => rustix::fs::chownat(file, "", uid, gid, AtFlags::EMPTY_PATH),
            Made::Link(directory, name) => {
                rustix::fs::chownat(directory, *name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
            }
        }
    }

    fn set_attribute(&self, name: &[u8], value: &[u8]) -> rustix::io::Result<()> {
        let flags = XattrFlags::empty();
        match self {
            Made::Open(file) => rustix::fs::fsetxattr(file, name, value, flags),
            Made::Held(file) => rustix::fs::setxattr(through(file.as_fd()), name, value, flags),
            Made::Link(directory, link) => {
                let path = [through(*directory).as_bytes(), link].join(&b'/');
                rustix::fs::lsetxattr(path, name, value, flags)
            }
        }
    }

    fn set_mode(&self, mode: Mode) -> rustix::io::Result<()> {
        match self {
            Made::Open(file) => rustix::fs::fchmod(file, mode),
            Made::Held(file) => rustix::fs::chmod(through(file.as_fd()), mode),
            // Links have none.
            Made::Link(..) => Ok(()),
        }
    }

    fn set_times(&self, times: &Timestamps) -> rustix::io::Result<()> {
        match self {
            Made::Open(file) => rustix::fs::futimens(file, times),
            Made::Held(file) => {
                rustix::fs::utimensat(rustix::fs::CWD, through(file.as_fd()), times, AtFlags::empty())
            }
            Made::Link(directory, name) => {
                rustix::fs::utimensat(directory, *name, times, AtFlags::SYMLINK_NOFOLLOW)
            }
        }
    }

    /// Gives it what the pool says about it.
    pub(super) fn adorn(&self, filesystem: &Filesystem<'_>, node: &Node, path: &[u8], report: &mut Report) {
        let found = node.metadata();
        // Changing the owner takes away set-id bits and capabilities, attributes the right to set more of them.
        let owner = (owner(found.uid), owner(found.gid));
        let is_owned = match owner {
            (Some(uid), Some(gid)) => self.set_owner(Uid::from_raw(uid), Gid::from_raw(gid)),
            _ => Err(Errno::INVAL),
        };
        let mut mode = found.mode;
        if is_owned.is_err() {
            report.leave_out(LeftOut::Owners, path);
            if mode & SET_ID != 0 {
                report.leave_out(LeftOut::SetIdBits, path);
                mode &= !SET_ID;
            }
        }
        match filesystem.xattrs(node) {
            Ok(attributes) => {
                for (name, value) in &attributes {
                    match self.set_attribute(name, value) {
                        Ok(()) => {}
                        Err(Errno::PERM | Errno::ACCESS | Errno::NOTSUP) => {
                            report.leave_out(LeftOut::attribute(name), path);
                        }
                        Err(error) => report.problem(path, None, attribute_trouble(name, error)),
                    }
                }
            }
            Err(error) => report.problem(path, None, Trouble::Read(error)),
        }
        let times =
            Timestamps { last_access: timespec(found.accessed), last_modification: timespec(found.modified) };
        let done = self.set_mode(Mode::from_raw_mode(mode)).and_then(|()| self.set_times(&times));
        if let Err(error) = done {
            report.problem(path, None, Trouble::Write(error.into()));
        }
    }
}

const SET_ID: u32 = 0o6000;

/// An owner of this host: those of foreign domains have more than 32 bits, and the largest number means none.
fn owner(number: u64) -> Option<u32> {
    u32::try_from(number).ok().filter(|number| *number != u32::MAX)
}

fn timespec(time: Timestamp) -> Timespec {
    Timespec { tv_sec: time.sec, tv_nsec: time.nsec.into() }
}

fn attribute_trouble(name: &[u8], error: Errno) -> Trouble {
    let error = io::Error::from(error);
    Trouble::Write(io::Error::new(
        error.kind(),
        format!("attribute `{}`: {error}", crate::tree::display(name)),
    ))
}

/// The path of an open file of this process.
fn through(file: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

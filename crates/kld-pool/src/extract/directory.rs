//! A file system as files of the host.
//!
//! Everything is reached from a directory that is open, by one name, and links are never followed: whatever the pool says and
//! whoever renames what meanwhile, nothing outside the directory is written to. Directories belong to the caller alone until
//! everything in them is done.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::levels::{DIRECTORY, Levels};
use super::node::Made;
use super::report::{ExtractError, LeftOut, Report, Trouble};
use super::visit::{At, Visitor, split, visit};
use crate::device::Progress;
use crate::read::{Filesystem, Node, NodeKind, Piece};
use crate::tree::display;

/// Directories and files while they are being made.
const PRIVATE_DIR: Mode = Mode::RWXU;
const PRIVATE_FILE: Mode = Mode::RUSR.union(Mode::WUSR);

/// Takes the file or directory `from` of a file system out into the directory `to`, which is new or empty: the content of a
/// directory comes to lie in `to`, which gets its owner, mode, attributes and times; a file keeps its name.
///
/// `threads` read each large file, 0 is one per core. `progress` hears of the bytes that were read; how many there will be is
/// not known.
pub fn extract_dir(
    filesystem: &Filesystem<'_>,
    from: &str,
    to: &Path,
    threads: usize,
    progress: &dyn Progress,
) -> Result<Report, ExtractError> {
    let top = filesystem.lookup(from)?;
    // Of a file its name is part of the paths.
    let (base, name) = if top.is_dir() { (from, "") } else { split(from) };
    let root = open_empty(to)?;
    let levels = Levels::new(root).map_err(|error| write_error(&[], error))?;
    let mut target = Target {
        filesystem,
        threads,
        progress,
        report: Report::below(base),
        levels,
        links: BTreeMap::new(),
        closed: Vec::new(),
    };
    if top.is_dir() {
        visit(filesystem, &top, &mut target)?;
        target.close_directories()?;
    } else {
        target.file(At { path: name.as_bytes(), name: name.as_bytes() }, &top)?;
    }
    Ok(target.report)
}

/// The directory at `path`, made if there is none.
fn open_empty(path: &Path) -> Result<OwnedFd, ExtractError> {
    let shown = || path.display().to_string();
    let fail = |source: io::Error| ExtractError::Write { path: shown(), source };
    match rustix::fs::mkdir(path, PRIVATE_DIR) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(fail(error.into())),
    }
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(path, flags, Mode::empty()).map_err(|error| fail(error.into()))?;
    match std::fs::read_dir(path).map_err(fail)?.next() {
        None => Ok(directory),
        Some(_) => Err(ExtractError::NotEmpty { path: shown() }),
    }
}

struct Target<'f, 'a> {
    filesystem: &'f Filesystem<'a>,
    threads: usize,
    progress: &'f dyn Progress,
    report: Report,
    levels: Levels,
    /// Files that may come again, by object: their first names.
    links: BTreeMap<u64, Vec<u8>>,
    /// Directories that are done but for their mode, which would lock out later hard links to what is in them.
    closed: Vec<(Vec<u8>, Mode)>,
}

impl Visitor for Target<'_, '_> {
    fn report(&mut self) -> &mut Report {
        &mut self.report
    }

    fn enter(&mut self, at: At<'_>, node: &Node) -> Result<bool, ExtractError> {
        self.report.directories += 1;
        if at.name.is_empty() {
            self.levels.set_root(node);
            return Ok(true);
        }
        let above = self.levels.current();
        let made = rustix::fs::mkdirat(above, at.name, PRIVATE_DIR)
            .and_then(|()| rustix::fs::openat(above, at.name, DIRECTORY, Mode::empty()))
            .and_then(|directory| self.levels.push(directory, node));
        match made {
            Ok(()) => Ok(true),
            Err(error) => self.fail(at.path, error).map(|()| false),
        }
    }

    fn leave(&mut self, path: &[u8]) -> Result<(), ExtractError> {
        let left = self.levels.pop().map_err(|error| match error {
            Errno::STALE => ExtractError::Moved { path: display(path) },
            error => write_error(path, error),
        })?;
        let Some((directory, node)) = left else { return Ok(()) };
        Made::Open(directory.as_fd()).adorn(self.filesystem, &node, path, &mut self.report);
        let open_again = || -> rustix::io::Result<Option<Mode>> {
            let mode = Mode::from_raw_mode(rustix::fs::fstat(&directory)?.st_mode & 0o7777);
            if mode.contains(Mode::XUSR) {
                return Ok(None);
            }
            rustix::fs::fchmod(&directory, mode | PRIVATE_DIR)?;
            Ok(Some(mode))
        };
        match open_again() {
            Ok(mode) => self.closed.extend(mode.map(|mode| (path.to_owned(), mode))),
            Err(error) => self.fail(path, error)?,
        }
        Ok(())
    }

    fn file(&mut self, at: At<'_>, node: &Node) -> Result<(), ExtractError> {
        let may_come_again = node.metadata().links > 1;
        if may_come_again && let Some(first) = self.links.get(&node.object()) {
            match self.link(first, at) {
                Ok(()) => self.report.hard_links += 1,
                Err(error) => self.fail(at.path, error)?,
            }
            return Ok(());
        }
        if self.make(at, node)? && may_come_again {
            self.links.insert(node.object(), at.path.to_owned());
        }
        Ok(())
    }
}

impl Target<'_, '_> {
    /// Makes anything but a directory; whether it is there now.
    fn make(&mut self, at: At<'_>, node: &Node) -> Result<bool, ExtractError> {
        let kind = node.metadata().kind;
        let done = match kind {
            // Visits go into directories.
            NodeKind::Directory => return Ok(false),
            NodeKind::File => return self.make_file(at, node),
            NodeKind::Symlink => match self.filesystem.read_link(node) {
                Ok(target) => rustix::fs::symlinkat(target, self.levels.current(), at.name),
                Err(error) => {
                    self.report.problem(at.path, None, Trouble::Read(error));
                    return Ok(false);
                }
            },
            NodeKind::CharDevice { major, minor } => {
                self.make_node(at, FileType::CharacterDevice, rustix::fs::makedev(major, minor))
            }
            NodeKind::BlockDevice { major, minor } => {
                self.make_node(at, FileType::BlockDevice, rustix::fs::makedev(major, minor))
            }
            NodeKind::Fifo => self.make_node(at, FileType::Fifo, 0),
            NodeKind::Socket => self.make_node(at, FileType::Socket, 0),
        };
        let is_device = matches!(kind, NodeKind::CharDevice { .. } | NodeKind::BlockDevice { .. });
        let made = done.and_then(|()| match kind {
            NodeKind::Symlink => Ok(Made::Link(self.levels.current(), at.name)),
            _ => Made::hold(self.levels.current(), at.name, file_type(kind)),
        });
        match made {
            Ok(made) => {
                self.report.others += 1;
                made.adorn(self.filesystem, node, at.path, &mut self.report);
                Ok(true)
            }
            Err(Errno::PERM) if is_device => {
                self.report.leave_out(LeftOut::Devices, at.path);
                Ok(false)
            }
            Err(error) => {
                self.fail(at.path, error)?;
                Ok(false)
            }
        }
    }

    fn make_node(&self, at: At<'_>, kind: FileType, device: u64) -> rustix::io::Result<()> {
        rustix::fs::mknodat(self.levels.current(), at.name, kind, PRIVATE_FILE, device)
    }

    fn make_file(&mut self, at: At<'_>, node: &Node) -> Result<bool, ExtractError> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
        let opened = rustix::fs::openat(self.levels.current(), at.name, flags, PRIVATE_FILE);
        let file = match opened {
            Ok(file) => File::from(file),
            Err(error) => {
                self.fail(at.path, error)?;
                return Ok(false);
            }
        };
        if let Err(error) = rustix::fs::ftruncate(&file, node.metadata().size) {
            // Longer than files can be here: better none than a short one.
            rustix::fs::unlinkat(self.levels.current(), at.name, AtFlags::empty())
                .map_err(|error| write_error(at.path, error))?;
            self.fail(at.path, error)?;
            return Ok(false);
        }
        let (report, progress) = (&mut self.report, self.progress);
        self.filesystem.read_pieces::<ExtractError>(node, self.threads, &mut |piece| {
            match piece {
                Piece::Data { offset, bytes } => {
                    file.write_all_at(&bytes, offset)
                        .map_err(|source| ExtractError::Write { path: display(at.path), source })?;
                    report.bytes += bytes.len() as u64;
                    progress.bytes(report.bytes, 0);
                }
                Piece::Unreadable { range, error } => {
                    report.problem(at.path, Some(range), Trouble::Read(error));
                }
            }
            Ok(())
        })?;
        report.files += 1;
        Made::Open(file.as_fd()).adorn(self.filesystem, node, at.path, report);
        Ok(true)
    }

    /// Gives the file that was made as `first` a further name.
    fn link(&self, first: &[u8], at: At<'_>) -> rustix::io::Result<()> {
        let split = |path: &[u8]| path.iter().rposition(|byte| *byte == b'/');
        let (parent, name) = match split(first) {
            Some(slash) => (&first[..slash], &first[slash + 1..]),
            None => (&[][..], first),
        };
        let is_here = parent == split(at.path).map_or(&[][..], |slash| &at.path[..slash]);
        let far = if is_here { None } else { Some(self.levels.open(parent, OFlags::PATH)?) };
        let directory = far.as_ref().map_or(self.levels.current(), |far| far.as_fd());
        rustix::fs::linkat(directory, name, self.levels.current(), at.name, AtFlags::empty())
    }

    /// Gives directories that nobody may enter their modes. Those further down come first.
    fn close_directories(&mut self) -> Result<(), ExtractError> {
        for (path, mode) in std::mem::take(&mut self.closed) {
            let closed = self
                .levels
                .open(&path, OFlags::RDONLY)
                .and_then(|directory| rustix::fs::fchmod(directory, mode));
            if let Err(error) = closed {
                self.fail(&path, error)?;
            }
        }
        Ok(())
    }

    /// A problem with one file, unless all that follow would have it, too.
    fn fail(&mut self, path: &[u8], error: Errno) -> Result<(), ExtractError> {
        const LASTING: [Errno; 6] =
            [Errno::NOSPC, Errno::DQUOT, Errno::ROFS, Errno::IO, Errno::MFILE, Errno::NFILE];
        if LASTING.contains(&error) {
            return Err(write_error(path, error));
        }
        self.report.problem(path, None, Trouble::Write(error.into()));
        Ok(())
    }
}

fn file_type(kind: NodeKind) -> FileType {
    match kind {
        NodeKind::Directory => FileType::Directory,
        NodeKind::File => FileType::RegularFile,
        NodeKind::Symlink => FileType::Symlink,
        NodeKind::CharDevice { .. } => FileType::CharacterDevice,
        NodeKind::BlockDevice { .. } => FileType::BlockDevice,
        NodeKind::Fifo => FileType::Fifo,
        NodeKind::Socket => FileType::Socket,
    }
}

fn write_error(path: &[u8], error: Errno) -> ExtractError {
    ExtractError::Write { path: display(path), source: error.into() }
}

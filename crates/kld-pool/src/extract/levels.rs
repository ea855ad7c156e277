//! The directories of the host that are being filled, from the outermost to the innermost, however deep.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::read::Node;

/// Directories that stay open while deeper ones are filled; those above are opened again on the way up.
const MAX_OPEN: usize = 32;
pub(super) const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Open directories.
pub(super) struct Levels {
    /// Never empty; the first and the last are open.
    levels: Vec<Level>,
}

struct Level {
    /// None while it is too far up to be kept open.
    directory: Option<OwnedFd>,
    /// Device and inode.
    id: (u64, u64),
    /// What the pool says about it.
    node: Option<Node>,
}

impl Levels {
    /// Only the directory that everything is extracted to.
    pub(super) fn new(root: OwnedFd) -> rustix::io::Result<Levels> {
        let id = identity(root.as_fd())?;
        Ok(Levels { levels: vec![Level { directory: Some(root), id, node: None }] })
    }

    /// The directory that everything is extracted to.
    pub(super) fn root(&self) -> BorrowedFd<'_> {
        self.levels[0].directory.as_ref().expect("the outermost directory stays open").as_fd()
    }

    /// The innermost directory.
    pub(super) fn current(&self) -> BorrowedFd<'_> {
        let last = self.levels.last().and_then(|level| level.directory.as_ref());
        last.expect("the innermost directory is open").as_fd()
    }

    /// Says what the pool calls the outermost directory.
    pub(super) fn set_root(&mut self, node: &Node) {
        self.levels[0].node = Some(node.clone());
    }

    /// Goes into a directory of the innermost one.
    pub(super) fn push(&mut self, directory: OwnedFd, node: &Node) -> rustix::io::Result<()> {
        let id = identity(directory.as_fd())?;
        self.levels.push(Level { directory: Some(directory), id, node: Some(node.clone()) });
        if let Some(far) = self.levels.len().checked_sub(MAX_OPEN).filter(|far| *far > 0) {
            self.levels[far].directory = None;
        }
        Ok(())
    }

    /// Leaves the innermost directory. The one above must be the one that it was: `ESTALE` if somebody moved this one away.
    pub(super) fn pop(&mut self) -> rustix::io::Result<Option<(OwnedFd, Node)>> {
        if self.levels.len() == 1 {
            let root = rustix::io::fcntl_dupfd_cloexec(self.root(), 0)?;
            return Ok(self.levels[0].node.take().map(|node| (root, node)));
        }
        let Some(Level { directory: Some(directory), node: Some(node), .. }) = self.levels.pop() else {
            return Ok(None);
        };
        if let Some(above) = self.levels.last_mut().filter(|above| above.directory.is_none()) {
            let opened = rustix::fs::openat(&directory, "..", DIRECTORY, Mode::empty())?;
            if identity(opened.as_fd())? != above.id {
                return Err(Errno::STALE);
            }
            above.directory = Some(opened);
        }
        Ok(Some((directory, node)))
    }

    /// A directory that was made before, opened name by name from the outermost on.
    pub(super) fn open(&self, path: &[u8], how: OFlags) -> rustix::io::Result<OwnedFd> {
        let mut names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).peekable();
        let mut at = rustix::io::fcntl_dupfd_cloexec(self.root(), 0)?;
        while let Some(name) = names.next() {
            let how = if names.peek().is_some() { OFlags::PATH } else { how };
            at = rustix::fs::openat(&at, name, DIRECTORY | how, Mode::empty())?;
        }
        Ok(at)
    }
}

fn identity(file: BorrowedFd<'_>) -> rustix::io::Result<(u64, u64)> {
    let stat = rustix::fs::fstat(file)?;
    Ok((stat.st_dev, stat.st_ino))
}

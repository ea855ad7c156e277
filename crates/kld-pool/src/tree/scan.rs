//! A tree from a directory of the host.
//!
//! Metadata is taken as `lstat` gives it; links are never followed, sockets are kept. Extended attributes are those a
//! file system is meant to carry: `user.`, `security.`, `trusted.` (without the ones of overlayfs) and POSIX ACLs.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use super::data::mtime_of;
use super::{Data, Extent, Kind, Meta, NodeId, SourceFile, Tree};

/// A directory of the host could not be taken in.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} `{}`", path.display())]
pub struct ScanError {
    /// What was tried.
    pub action: &'static str,
    /// What it was tried on.
    pub path: PathBuf,
    /// Why it failed.
    #[source]
    pub source: io::Error,
}

impl Tree {
    /// The content of the directory `root` of the host. File content is not read until the pool is written, and must not
    /// change until then.
    pub fn from_dir(root: impl AsRef<Path>) -> Result<Tree, ScanError> {
        let root = root.as_ref();
        let mut scan = Scan { tree: Tree::new(), seen: BTreeMap::new() };
        let metadata =
            std::fs::metadata(root).map_err(|source| fail("read the metadata of", root, source))?;
        scan.tree.slots[0].meta = scan.meta(root, &metadata)?;
        scan.directory(root, NodeId::ROOT)?;
        Ok(scan.tree)
    }
}

impl Data {
    /// The content of a file of the host, with its holes; links are followed. It is not read until the pool is written, and
    /// must not change until then.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Data, ScanError> {
        let given = path.as_ref();
        let path = std::fs::canonicalize(given).map_err(|source| fail("find", given, source))?;
        let metadata =
            std::fs::metadata(&path).map_err(|source| fail("read the metadata of", given, source))?;
        if !metadata.is_file() {
            let source = io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file");
            return Err(fail("read", given, source));
        }
        file_data(&path, &metadata)
    }
}

fn fail(action: &'static str, path: &Path, source: impl Into<io::Error>) -> ScanError {
    ScanError { action, path: path.to_owned(), source: source.into() }
}

struct Scan {
    tree: Tree,
    /// Files with several names, by device and inode.
    seen: BTreeMap<(u64, u64), NodeId>,
}

impl Scan {
    fn directory(&mut self, root: &Path, at: NodeId) -> Result<(), ScanError> {
        let mut open = vec![(root.to_owned(), at)];
        while let Some((path, parent)) = open.pop() {
            let entries = std::fs::read_dir(&path).map_err(|source| fail("list", &path, source))?;
            for entry in entries {
                let entry = entry.map_err(|source| fail("list", &path, source))?;
                let child = entry.path();
                let id = self.node(&child)?;
                self.tree.slot_mut(parent).entries.insert(entry.file_name().into_vec(), id);
                if self.tree.is_dir(id) {
                    open.push((child, id));
                }
            }
        }
        Ok(())
    }

    fn node(&mut self, path: &Path) -> Result<NodeId, ScanError> {
        let metadata =
            std::fs::symlink_metadata(path).map_err(|source| fail("read the metadata of", path, source))?;
        let inode = (metadata.dev(), metadata.ino());
        let may_have_names = metadata.nlink() > 1 && !metadata.is_dir();
        if may_have_names && let Some(id) = self.seen.get(&inode) {
            return Ok(*id);
        }
        let kind = self.kind(path, &metadata)?;
        let meta = self.meta(path, &metadata)?;
        let id = self.tree.add(meta, kind);
        if may_have_names {
            self.seen.insert(inode, id);
        }
        Ok(id)
    }

    fn kind(&self, path: &Path, metadata: &std::fs::Metadata) -> Result<Kind, ScanError> {
        let file_type = metadata.file_type();
        let (major, minor) = (rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev()));
        Ok(if file_type.is_dir() {
            Kind::Directory
        } else if file_type.is_symlink() {
            let target = std::fs::read_link(path).map_err(|source| fail("read the link", path, source))?;
            Kind::Symlink(target.into_os_string().into_vec())
        } else if file_type.is_char_device() {
            Kind::CharDevice { major, minor }
        } else if file_type.is_block_device() {
            Kind::BlockDevice { major, minor }
        } else if file_type.is_fifo() {
            Kind::Fifo
        } else if file_type.is_socket() {
            Kind::Socket
        } else {
            Kind::File(file_data(path, metadata)?)
        })
    }

    fn meta(&self, path: &Path, metadata: &std::fs::Metadata) -> Result<Meta, ScanError> {
        Ok(Meta {
            mode: metadata.mode() & 0o7777,
            uid: metadata.uid(),
            gid: metadata.gid(),
            mtime: mtime_of(metadata),
            xattrs: xattrs(path).map_err(|source| fail("read the extended attributes of", path, source))?,
        })
    }
}

fn file_data(path: &Path, metadata: &std::fs::Metadata) -> Result<Data, ScanError> {
    const SECTOR: u64 = 512;
    let len = metadata.len();
    if len == 0 {
        return Ok(Data::Bytes(Arc::new([])));
    }
    let file = Arc::new(SourceFile::by_path(path, len, mtime_of(metadata)));
    if metadata.blocks() * SECTOR >= len {
        return Ok(Data::Slice { file, offset: 0, len });
    }
    // Fewer sectors than bytes: sparse, or compressed by the host's file system.
    let extents = extents_of(path, len).map_err(|source| fail("find the holes of", path, source))?;
    Ok(match extents.as_slice() {
        [whole] if whole.len == len => Data::Slice { file, offset: 0, len },
        _ => Data::Sparse { file, extents: extents.into(), len },
    })
}

fn extents_of(path: &Path, len: u64) -> io::Result<Vec<Extent>> {
    let file = File::open(path)?;
    let mut extents = Vec::new();
    let mut at = 0;
    while at < len {
        let start = match rustix::fs::seek(&file, SeekFrom::Data(at)) {
            Ok(start) => start,
            // No data after this point.
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let end = rustix::fs::seek(&file, SeekFrom::Hole(start))?.min(len);
        if end <= start {
            break;
        }
        extents.push(Extent { start, len: end - start, offset: start });
        at = end;
    }
    Ok(extents)
}

fn xattrs(path: &Path) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let names = match sized(|| rustix::fs::llistxattr_query(path), |buf| rustix::fs::llistxattr(path, buf)) {
        Ok(names) => names,
        Err(Errno::NOTSUP) => return Ok(BTreeMap::new()),
        Err(error) => return Err(error.into()),
    };
    let mut found = BTreeMap::new();
    for name in names.split(|byte| *byte == 0).filter(|name| is_carried(name)) {
        let size = || rustix::fs::lgetxattr_query(path, name);
        match sized(size, |buf| rustix::fs::lgetxattr(path, name, buf)) {
            Ok(value) => {
                found.insert(name.to_vec(), value);
            }
            // Listed but not readable without privilege, or gone since.
            Err(Errno::NODATA) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(found)
}

fn is_carried(name: &[u8]) -> bool {
    const CARRIED: [&[u8]; 4] = [b"user.", b"security.", b"trusted.", b"system.posix_acl_"];
    CARRIED.iter().any(|prefix| name.starts_with(prefix)) && !name.starts_with(b"trusted.overlay.")
}

/// Asks for the size, then for the value; again when it grew in between.
fn sized(
    size: impl Fn() -> rustix::io::Result<usize>,
    read: impl Fn(&mut [u8]) -> rustix::io::Result<usize>,
) -> rustix::io::Result<Vec<u8>> {
    loop {
        let mut buf = vec![0; size()?];
        if buf.is_empty() {
            return Ok(buf);
        }
        match read(&mut buf) {
            Ok(len) => {
                buf.truncate(len);
                return Ok(buf);
            }
            Err(Errno::RANGE) => {}
            Err(error) => return Err(error),
        }
    }
}

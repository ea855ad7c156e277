//! A tree from a directory of the host.
//!
//! Metadata is taken as `lstat` gives it; links are never followed, sockets are kept. Extended attributes are those a
//! file system is meant to carry: `user.`, `security.`, `trusted.` (without the ones of overlayfs) and POSIX ACLs.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

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

/// Most threads that list directories; more wait for one another in the kernel.
const MAX_THREADS: usize = 16;

impl Tree {
    /// The content of the directory `root` of the host. File content is not read until the pool is written, and must not
    /// change until then. Directories are listed by several threads; what comes out does not depend on them.
    pub fn from_dir(root: impl AsRef<Path>) -> Result<Tree, ScanError> {
        let root = root.as_ref();
        let metadata =
            std::fs::metadata(root).map_err(|source| fail("read the metadata of", root, source))?;
        let mut tree = Tree::new();
        tree.slots[0].meta = meta(root, &metadata)?;
        let scan = Scan {
            state: Mutex::new(State {
                open: vec![(0, root.to_owned())],
                listings: vec![Vec::new()],
                left: 1,
                failed: None,
            }),
            changed: Condvar::new(),
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
        std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(|| scan.work()))));
        let state = scan.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        match state.failed {
            Some(error) => Err(error),
            None => {
                assemble(&mut tree, state.listings);
                Ok(tree)
            }
        }
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

/// An entry of a directory.
struct Found {
    name: Vec<u8>,
    meta: Meta,
    kind: Kind,
    /// Device and inode, when it may have further names.
    inode: Option<(u64, u64)>,
    /// Of a directory: the number of its listing.
    listing: usize,
}

/// What the threads share.
struct Scan {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    /// Directories that nobody has taken, each with the number of its listing.
    open: Vec<(usize, PathBuf)>,
    listings: Vec<Vec<Found>>,
    /// Directories that are not listed yet.
    left: usize,
    /// What went wrong at the least path: the same, whichever thread was first.
    failed: Option<ScanError>,
}

impl Scan {
    /// One thread: lists directories until none is left.
    fn work(&self) {
        let mut state = self.lock();
        while state.left > 0 {
            let Some((number, path)) = state.open.pop() else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(state);
            let listed = list(&path);
            state = self.lock();
            match listed {
                Ok(mut entries) => {
                    for entry in entries.iter_mut().filter(|entry| matches!(entry.kind, Kind::Directory)) {
                        entry.listing = state.listings.len();
                        state.listings.push(Vec::new());
                        let child = path.join(OsStr::from_bytes(&entry.name));
                        state.open.push((entry.listing, child));
                        state.left += 1;
                    }
                    state.listings[number] = entries;
                }
                Err(error) if state.failed.as_ref().is_none_or(|failed| error.path < failed.path) => {
                    state.failed = Some(error);
                }
                Err(_) => {}
            }
            state.left -= 1;
            self.changed.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The entries of a directory, by name.
fn list(path: &Path) -> Result<Vec<Found>, ScanError> {
    let entries = std::fs::read_dir(path).map_err(|source| fail("list", path, source))?;
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|source| fail("list", path, source))?;
        let child = entry.path();
        let metadata = entry.metadata().map_err(|source| fail("read the metadata of", &child, source))?;
        let may_have_names = metadata.nlink() > 1 && !metadata.is_dir();
        found.push(Found {
            meta: meta(&child, &metadata)?,
            kind: kind(&child, &metadata)?,
            inode: may_have_names.then(|| (metadata.dev(), metadata.ino())),
            name: entry.file_name().into_vec(),
            listing: 0,
        });
    }
    found.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// Makes nodes of the listings, the first of which is the root's.
fn assemble(tree: &mut Tree, mut listings: Vec<Vec<Found>>) {
    let mut seen: BTreeMap<(u64, u64), NodeId> = BTreeMap::new();
    let mut open = vec![(0, NodeId::ROOT)];
    while let Some((number, at)) = open.pop() {
        let mut entries = Vec::new();
        for Found { name, meta, kind, inode, listing } in std::mem::take(&mut listings[number]) {
            let is_dir = matches!(kind, Kind::Directory);
            let known = inode.and_then(|inode| seen.get(&inode).copied());
            let id = known.unwrap_or_else(|| tree.add(meta, kind));
            if let Some(inode) = inode {
                seen.insert(inode, id);
            }
            if is_dir {
                open.push((listing, id));
            }
            entries.push((name, id));
        }
        tree.slot_mut(at).entries = entries.into_iter().collect();
    }
}

fn kind(path: &Path, metadata: &std::fs::Metadata) -> Result<Kind, ScanError> {
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

fn meta(path: &Path, metadata: &std::fs::Metadata) -> Result<Meta, ScanError> {
    Ok(Meta {
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
        mtime: mtime_of(metadata),
        xattrs: xattrs(path).map_err(|source| fail("read the extended attributes of", path, source))?,
    })
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

//! The content of files: in memory, or by reference to a file of the host.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Timestamp;

/// The content of a regular file.
#[derive(Clone, Debug)]
pub enum Data {
    /// In memory.
    Bytes(Arc<[u8]>),
    /// A region of a file of the host.
    Slice {
        /// Where the region lies.
        file: Arc<SourceFile>,
        /// First byte of the region.
        offset: u64,
        /// Length of the region, and of the content, in bytes.
        len: u64,
    },
    /// Regions of a file of the host with holes between them, which read as zeros.
    Sparse {
        /// Where the regions lie.
        file: Arc<SourceFile>,
        /// The regions that hold data, in ascending order, not overlapping, ending at or before `len`.
        extents: Arc<[Extent]>,
        /// Length of the content in bytes.
        len: u64,
    },
}

/// A part of a sparse file that holds data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Where the part stands in the content.
    pub start: u64,
    /// Length in bytes.
    pub len: u64,
    /// Where the part stands in the source file.
    pub offset: u64,
}

/// A file of the host that content is read from while the pool is written. It must stay what it was when the tree was made:
/// its size and modification time are compared after each read, so that what was read is what was there before.
#[derive(Debug)]
pub struct SourceFile {
    path: PathBuf,
    /// Open all the time; otherwise opened when needed.
    held: Option<File>,
    len: u64,
    mtime: Timestamp,
}

/// Why content could not be read.
#[derive(Debug)]
pub(crate) enum ReadError {
    Io(io::Error),
    /// Size or modification time differ from when the tree was made.
    Changed,
}

impl SourceFile {
    /// A file that stays open for as long as the tree lives, such as a tar.
    pub fn open(path: impl Into<PathBuf>) -> io::Result<SourceFile> {
        let path = path.into();
        let file = File::open(&path)?;
        SourceFile::held(file, path)
    }

    /// A file that is open already and stays open; `path` is what messages call it.
    pub fn held(file: File, path: impl Into<PathBuf>) -> io::Result<SourceFile> {
        let metadata = file.metadata()?;
        let (len, mtime) = (metadata.len(), mtime_of(&metadata));
        Ok(SourceFile { path: path.into(), held: Some(file), len, mtime })
    }

    /// A file that is opened when it is read.
    pub fn by_path(path: impl Into<PathBuf>, len: u64, mtime: Timestamp) -> SourceFile {
        SourceFile { path: path.into(), held: None, len, mtime }
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn held_open(&self) -> Option<&File> {
        self.held.as_ref()
    }

    fn reopen(&self) -> Result<File, ReadError> {
        const NO_FOLLOW: i32 = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
        // A pipe in place of the file would never open.
        const NO_WAIT: i32 = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        std::fs::OpenOptions::new()
            .read(true)
            .custom_flags(NO_FOLLOW | NO_WAIT)
            .open(&self.path)
            .map_err(ReadError::Io)
    }

    /// Reads a part of the file, which must lie in it.
    fn read_at(&self, file: &File, offset: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        file.read_exact_at(buf, offset).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => ReadError::Changed,
            _ => ReadError::Io(error),
        })?;
        let now = file.metadata().map_err(ReadError::Io)?;
        if now.len() == self.len && mtime_of(&now) == self.mtime { Ok(()) } else { Err(ReadError::Changed) }
    }
}

pub(super) fn mtime_of(metadata: &std::fs::Metadata) -> Timestamp {
    Timestamp { sec: metadata.mtime(), nsec: metadata.mtime_nsec().clamp(0, 999_999_999) as u32 }
}

impl Data {
    /// Content from memory.
    pub fn bytes(content: impl Into<Arc<[u8]>>) -> Data {
        Data::Bytes(content.into())
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Data::Bytes(bytes) => bytes.len() as u64,
            Data::Slice { len, .. } | Data::Sparse { len, .. } => *len,
        }
    }

    /// Whether the content is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The whole content.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        let len = usize::try_from(self.len()).map_err(io::Error::other)?;
        let mut content = Vec::new();
        content.try_reserve_exact(len)?;
        content.resize(len, 0);
        Reader::default().read_at(self, 0, &mut content).map_err(|error| match error {
            ReadError::Io(error) => error,
            ReadError::Changed => io::Error::other("the file changed since the tree was made"),
        })?;
        Ok(content)
    }

    /// Whether this is surely the content of `other`: the same memory or the same part of the same file.
    pub(crate) fn is_same(&self, other: &Data) -> bool {
        match (self, other) {
            (Data::Bytes(a), Data::Bytes(b)) => Arc::ptr_eq(a, b),
            (Data::Slice { file: a, offset: from, len }, Data::Slice { file: b, offset, len: other_len }) => {
                Arc::ptr_eq(a, b) && (from, len) == (offset, other_len)
            }
            (
                Data::Sparse { file: a, extents, len },
                Data::Sparse { file: b, extents: other_extents, len: other_len },
            ) => Arc::ptr_eq(a, b) && (extents, len) == (other_extents, other_len),
            _ => false,
        }
    }

    /// The host file the content comes from.
    pub(crate) fn source(&self) -> Option<&Arc<SourceFile>> {
        match self {
            Data::Bytes(_) => None,
            Data::Slice { file, .. } | Data::Sparse { file, .. } => Some(file),
        }
    }

    /// How many bytes from `offset` on are known to be a hole.
    pub(crate) fn hole_at(&self, offset: u64) -> u64 {
        match self {
            Data::Sparse { extents, len, .. } => {
                let next = extents.partition_point(|extent| extent.start + extent.len <= offset);
                extents.get(next).map_or(*len, |extent| extent.start).saturating_sub(offset)
            }
            Data::Bytes(_) | Data::Slice { .. } => 0,
        }
    }
}

/// Reads content; keeps the last file open, since its next part is usually wanted next.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    last: Option<(Arc<SourceFile>, File)>,
}

impl Reader {
    /// Fills `buf` with the content from `offset` on; both must lie within its length.
    pub(crate) fn read_at(&mut self, data: &Data, offset: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        match data {
            Data::Bytes(bytes) => {
                let start = offset as usize;
                buf.copy_from_slice(&bytes[start..start + buf.len()]);
                Ok(())
            }
            Data::Slice { file, offset: start, .. } => self.read_file(file, start + offset, buf),
            Data::Sparse { file, extents, .. } => {
                buf.fill(0);
                let end = offset + buf.len() as u64;
                let first = extents.partition_point(|extent| extent.start + extent.len <= offset);
                for extent in extents[first..].iter().take_while(|extent| extent.start < end) {
                    let from = extent.start.max(offset);
                    let to = (extent.start + extent.len).min(end);
                    let part = &mut buf[(from - offset) as usize..(to - offset) as usize];
                    self.read_file(file, extent.offset + (from - extent.start), part)?;
                }
                Ok(())
            }
        }
    }

    fn read_file(&mut self, source: &Arc<SourceFile>, offset: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        if let Some(file) = source.held_open() {
            return source.read_at(file, offset, buf);
        }
        match &self.last {
            Some((open, file)) if Arc::ptr_eq(open, source) => source.read_at(file, offset, buf),
            _ => {
                let file = source.reopen()?;
                let result = source.read_at(&file, offset, buf);
                self.last = Some((Arc::clone(source), file));
                result
            }
        }
    }
}

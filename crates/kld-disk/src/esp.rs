//! The EFI system partition: a FAT32 file system with given files, written in one pass.
//!
//! Follows Microsoft's *FAT32 File System Specification* 1.03 (fatgen103). Every file is one run of clusters, and
//! nothing is written where the file system holds zeros, so that a sparse image stays sparse. Limits: 512-byte
//! sectors; names of printable ASCII; files below 4 GiB; sizes from 33 MiB (fewer than 65525 clusters would be FAT16 to
//! every reader) to 2 TiB.

mod directory;

pub use directory::civil_from_days;
mod geometry;
mod tree;

use crate::SECTOR;
use geometry::Geometry;
use std::fmt;
use std::io::{self, Read, Seek, SeekFrom, Write};
use tree::Tree;

/// Copy buffer, in bytes.
const CHUNK: usize = 1 << 20;

/// What an EFI system partition is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EspSpec {
    /// Bytes of the partition.
    pub size: u64,
    /// Volume label, at most 11 characters; written in capitals.
    pub label: String,
    /// Serial number; readers show it as `XXXX-XXXX`, and it is the file system's UUID.
    pub volume_id: u32,
    /// Time of every entry, in seconds since 1970; FAT knows 1980 to 2107.
    pub epoch: u64,
}

/// A file to be written: `path` without a leading `/`, and exactly `len` bytes from `content`.
pub struct EspFile<'a> {
    path: String,
    len: u64,
    content: Box<dyn Read + 'a>,
}

impl<'a> EspFile<'a> {
    /// A file whose bytes are in memory.
    pub fn from_bytes(path: &str, bytes: &'a [u8]) -> Self {
        Self::from_reader(path, bytes.len() as u64, bytes)
    }

    /// A file of `len` bytes that are read when it is written.
    pub fn from_reader(path: &str, len: u64, content: impl Read + 'a) -> Self {
        Self { path: path.trim_start_matches('/').to_owned(), len, content: Box::new(content) }
    }
}

impl fmt::Debug for EspFile<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EspFile").field("path", &self.path).field("len", &self.len).finish_non_exhaustive()
    }
}

/// Why an EFI system partition could not be written.
#[derive(Debug, thiserror::Error)]
pub enum EspError {
    /// The partition is too small or too large for FAT32.
    #[error("`{size}` bytes cannot be a FAT32 file system: it needs {min} to {max} bytes, in whole sectors")]
    Size {
        /// Bytes asked for.
        size: u64,
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
    /// The label is not a FAT label.
    #[error("volume label `{label}` is not 1 to 11 letters, digits, `-`, `_` or spaces")]
    Label {
        /// The label.
        label: String,
    },
    /// A path that FAT cannot hold.
    #[error("path `{path}` cannot be on a FAT file system: {reason}")]
    Path {
        /// The path.
        path: String,
        /// The rule it breaks.
        reason: &'static str,
    },
    /// Two paths that FAT cannot tell apart, or a file where a folder must be.
    #[error("path `{path}` is taken twice: FAT does not tell capitals from small letters")]
    Taken {
        /// The second one.
        path: String,
    },
    /// A file of 4 GiB or more.
    #[error("file `{path}` has {len} bytes: a FAT file must be smaller than 4 GiB")]
    FileTooLarge {
        /// The file.
        path: String,
        /// Its bytes.
        len: u64,
    },
    /// The files do not fit.
    #[error("the EFI system partition holds {available} bytes, but its files need {needed}")]
    Full {
        /// Bytes needed, in whole clusters.
        needed: u64,
        /// Bytes there are.
        available: u64,
    },
    /// A source that gave more or fewer bytes than announced.
    #[error("file `{path}` changed while it was read: {expected} bytes were announced")]
    Length {
        /// The file.
        path: String,
        /// Bytes announced.
        expected: u64,
    },
    /// A source that cannot be read.
    #[error("cannot read the content of `{path}`")]
    Read {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The image cannot be written.
    #[error("cannot write the EFI system partition")]
    Write(#[source] io::Error),
}

impl EspError {
    /// What the user can do.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Full { needed, .. } => {
                Some(format!("give the EFI system partition {}M or more", needed.div_ceil(crate::MIB) + 2))
            }
            Self::Size { .. } => Some("512M is a good size for an EFI system partition".to_owned()),
            _ => None,
        }
    }
}

/// Writes the file system to `out`, whose bytes 0 to `spec.size` must be zero or never written. The order of `files`
/// does not matter.
///
/// # Errors
/// [`EspError`]; everything but reading and writing is checked before the first byte is written.
pub fn write_esp(
    out: &mut (impl Write + Seek),
    spec: &EspSpec,
    files: Vec<EspFile<'_>>,
) -> Result<(), EspError> {
    let geometry = Geometry::plan(spec.size)?;
    let label = parse_label(&spec.label)?;
    let tree = Tree::plan(files, label, &geometry)?;

    write_fats(out, &geometry, &tree).map_err(EspError::Write)?;
    for (cluster, bytes) in tree.render_directories(spec.epoch) {
        write_at(out, geometry.offset_of(cluster), &bytes).map_err(EspError::Write)?;
    }
    let free = geometry.clusters - tree.used;
    write_boot_sectors(out, &geometry, spec.volume_id, label, free, 2 + tree.used)
        .map_err(EspError::Write)?;

    let mut buffer = vec![0; CHUNK];
    for file in tree.files {
        out.seek(SeekFrom::Start(geometry.offset_of(file.cluster))).map_err(EspError::Write)?;
        copy_exactly(out, file.source, &mut buffer)?;
    }
    out.flush().map_err(EspError::Write)
}

fn parse_label(label: &str) -> Result<[u8; 11], EspError> {
    let good = (1..=11).contains(&label.len())
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_ ".contains(&b))
        && label.trim() == label;
    if !good {
        return Err(EspError::Label { label: label.to_owned() });
    }
    let mut field = [b' '; 11];
    field[..label.len()].copy_from_slice(label.to_ascii_uppercase().as_bytes());
    Ok(field)
}

/// Clusters are given out from 2 on in one go, so that a chain is a run and only the used part of each FAT is written.
fn write_fats(out: &mut (impl Write + Seek), geometry: &Geometry, tree: &Tree<'_>) -> io::Result<()> {
    const END: u32 = 0x0FFF_FFFF;
    let mut fat = Vec::with_capacity((2 + tree.used as usize) * 4);
    for reserved in [0x0FFF_FFF8, END] {
        fat.extend_from_slice(&u32::to_le_bytes(reserved));
    }
    for (first, count) in &tree.runs {
        debug_assert_eq!(fat.len(), *first as usize * 4, "runs are given out in order, without gaps");
        for next in first + 1..first + count {
            fat.extend_from_slice(&next.to_le_bytes());
        }
        fat.extend_from_slice(&END.to_le_bytes());
    }
    for copy in 0..2 {
        write_at(out, (geometry.reserved + copy * geometry.fat) * SECTOR, &fat)?;
    }
    Ok(())
}

fn write_boot_sectors(
    out: &mut (impl Write + Seek),
    geometry: &Geometry,
    volume_id: u32,
    label: [u8; 11],
    free: u32,
    next_free: u32,
) -> io::Result<()> {
    let boot = geometry.render_boot_sector(volume_id, label);
    let mut info = [0; SECTOR as usize];
    info[..4].copy_from_slice(b"RRaA");
    info[484..488].copy_from_slice(b"rrAa");
    info[488..492].copy_from_slice(&free.to_le_bytes());
    info[492..496].copy_from_slice(&next_free.to_le_bytes());
    info[510..].copy_from_slice(&[0x55, 0xAA]);
    for first in [0, geometry::BACKUP_SECTOR] {
        write_at(out, first * SECTOR, &boot)?;
        write_at(out, (first + 1) * SECTOR, &info)?;
    }
    Ok(())
}

fn write_at(out: &mut (impl Write + Seek), offset: u64, bytes: &[u8]) -> io::Result<()> {
    out.seek(SeekFrom::Start(offset))?;
    out.write_all(bytes)
}

fn copy_exactly(out: &mut impl Write, file: EspFile<'_>, buffer: &mut [u8]) -> Result<(), EspError> {
    let EspFile { path, len, mut content } = file;
    let mut left = len;
    loop {
        let count = match content.read(buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(source) => return Err(EspError::Read { path, source }),
        };
        if count as u64 > left || (count == 0 && left > 0) {
            return Err(EspError::Length { path, expected: len });
        }
        if count == 0 {
            return Ok(());
        }
        out.write_all(&buffer[..count]).map_err(EspError::Write)?;
        left -= count as u64;
    }
}

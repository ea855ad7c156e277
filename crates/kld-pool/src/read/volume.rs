//! Volumes: one object of data, as long as a table says.

use super::dataset::DatasetKind;
use super::error::ReadError;
use super::objset::ObjectSet;
use super::pieces::{Piece, read_pieces};
use super::pool::Pool;

const DATA: u64 = 1;
const TABLE: u64 = 2;

/// A volume or a snapshot of one.
#[derive(Debug)]
pub struct Volume<'a> {
    set: ObjectSet<'a>,
    data: super::dnode::Dnode,
    size: u64,
}

impl<'a> Pool<'a> {
    /// Opens the volume, or the snapshot of one, called `name`.
    pub fn volume(&self, name: &str) -> Result<Volume<'a>, ReadError> {
        let dataset = self.dataset(name)?;
        let wrong = || ReadError::WrongKind { what: name.to_owned(), expected: "volume" };
        if dataset.encrypted {
            return Err(ReadError::Encrypted { dataset: dataset.name });
        }
        if matches!(dataset.kind, DatasetKind::Filesystem | DatasetKind::Other) {
            return Err(wrong());
        }
        let set = ObjectSet::open(self.blocks.clone(), &dataset.phys.pointer()?)?;
        let set = set.filter(|set| set.kind == super::objset::SetKind::Volume).ok_or_else(wrong)?;
        let size = set.zap(TABLE)?.need("size")?;
        let data = set.dnode(DATA)?;
        Ok(Volume { set, data, size })
    }
}

impl Volume<'_> {
    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Fills `buf` from byte `offset`; what lies behind the end reads as zeros.
    pub fn read(&self, offset: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        self.data.read_bytes(&self.set.blocks, offset, buf)
    }

    /// Hands the data of the volume to `sink`, piece by piece in order, passing over holes; `sink` ends it by an error.
    /// Blocks are read by `threads` threads, 0 is one per core.
    pub fn read_pieces<E>(
        &self,
        threads: usize,
        sink: &mut dyn FnMut(Piece) -> Result<(), E>,
    ) -> Result<(), E> {
        read_pieces(&self.set.blocks, &self.data, self.size, threads, sink)
    }
}

//! Where a pool is written to and read from: anything with positions, and a report of how far the work is.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// An output that can be written at any position, from several threads.
///
/// The output must read as zeros where nothing was written: holes and padding are never written, so that a
/// sparse file stays sparse.
pub trait WriteAt: Sync {
    /// Writes all of `buf` at byte `offset`.
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()>;

    /// Makes what was written durable. Called before the labels are written and once more after them; of larger pools also
    /// while others write, so that not all is left to the end.
    fn sync(&self) -> io::Result<()>;
}

impl WriteAt for File {
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, buf, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

/// A vdev, or anything that holds the bytes of one, read at any position and from several threads.
pub trait ReadAt: Sync {
    /// Fills all of `buf` from byte `at`; fails when that is past the end.
    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<()>;

    /// Its size in bytes.
    fn size(&self) -> io::Result<u64>;
}

impl ReadAt for File {
    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
        self.read_exact_at(buf, at)
    }

    /// Also right for a block device, whose metadata says 0.
    fn size(&self) -> io::Result<u64> {
        use std::io::{Seek, SeekFrom};
        let mut file = self;
        file.seek(SeekFrom::End(0))
    }
}

impl ReadAt for &[u8] {
    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
        let part = usize::try_from(at)
            .ok()
            .and_then(|start| self.get(start..start.checked_add(buf.len())?))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.copy_from_slice(part);
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }
}

impl ReadAt for Vec<u8> {
    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
        self.as_slice().read_at(buf, at)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }
}

/// A part of a file, such as one partition of a disk image.
#[derive(Debug)]
pub struct Region<'a> {
    /// The file that holds the region.
    pub file: &'a File,
    /// First byte of the region in the file.
    pub start: u64,
    /// Length of the region in bytes; writes past it fail.
    pub len: u64,
}

impl WriteAt for Region<'_> {
    fn write_all_at(&self, buf: &[u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(buf.len() as u64).filter(|end| *end <= self.len);
        if end.is_none() {
            return Err(io::Error::new(
                io::ErrorKind::WriteZero,
                format!("{} bytes at {offset} exceed the region of {} bytes", buf.len(), self.len),
            ));
        }
        FileExt::write_all_at(self.file, buf, self.start + offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

impl ReadAt for Region<'_> {
    fn read_at(&self, buf: &mut [u8], at: u64) -> io::Result<()> {
        at.checked_add(buf.len() as u64)
            .filter(|end| *end <= self.len)
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        let at = self.start.checked_add(at).ok_or(io::ErrorKind::UnexpectedEof)?;
        self.file.read_exact_at(buf, at)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.len)
    }
}

/// Hears how many bytes of file content have been written or read. Called from one thread, in order.
pub trait Progress: Sync {
    /// `done` of `total` bytes (apparent file sizes) are done; a `total` of 0 is not known.
    fn bytes(&self, done: u64, total: u64);
}

/// No report.
impl Progress for () {
    fn bytes(&self, _done: u64, _total: u64) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_keeps_its_bounds() {
        let file = tempfile::tempfile().unwrap();
        let region = Region { file: &file, start: 100, len: 10 };
        region.write_all_at(b"0123456789", 0).unwrap();
        let error = region.write_all_at(b"ab", 9).unwrap_err();
        assert_eq!(error.to_string(), "2 bytes at 9 exceed the region of 10 bytes");
        assert!(region.write_all_at(b"a", u64::MAX).is_err());
        assert_eq!(file.metadata().unwrap().len(), 110);
    }
}

//! A part of a disk as a stream of its own: a partition's writer cannot leave the partition.

use std::io::{self, Read, Seek, SeekFrom, Write};

/// The bytes `[start, start + len)` of `inner`, seen as a stream from 0 to `len`.
///
/// Reads end at `len`. A write that would pass `len` writes nothing and fails, naming what it would have overwritten.
#[derive(Debug)]
pub struct Section<T> {
    inner: T,
    name: String,
    next: String,
    start: u64,
    len: u64,
    position: u64,
}

/// A write that would have left its section.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is full: writing {count} bytes at {position} of {len} would have overwritten `{next}`")]
pub struct SectionOverrun {
    /// The section.
    pub name: String,
    /// What lies behind it.
    pub next: String,
    /// Bytes that were to be written.
    pub count: u64,
    /// Where in the section, in bytes.
    pub position: u64,
    /// The section's size in bytes.
    pub len: u64,
}

impl<T> Section<T> {
    /// The section called `name` of `len` bytes from byte `start` on, followed by what `next` names.
    pub fn new(inner: T, name: &str, start: u64, len: u64, next: &str) -> Self {
        Self { inner, name: name.to_owned(), next: next.to_owned(), start, len, position: 0 }
    }

    /// The section's size in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether the section holds no byte.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The stream underneath, at whatever position it was left.
    pub fn into_inner(self) -> T {
        self.inner
    }
}

impl<T: Seek> Section<T> {
    /// Every access seeks: the stream underneath may be shared (`&File`) and moved in between.
    fn place(&mut self) -> io::Result<u64> {
        self.inner.seek(SeekFrom::Start(self.start + self.position))
    }
}

impl<T: Read + Seek> Read for Section<T> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = self.len.saturating_sub(self.position);
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buf.len());
        if wanted == 0 {
            return Ok(0);
        }
        self.place()?;
        let count = self.inner.read(&mut buf[..wanted])?;
        self.position += count as u64;
        Ok(count)
    }
}

impl<T: Write + Seek> Write for Section<T> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let count = buf.len() as u64;
        if self.position.checked_add(count).is_none_or(|end| end > self.len) {
            return Err(io::Error::other(SectionOverrun {
                name: self.name.clone(),
                next: self.next.clone(),
                count,
                position: self.position,
                len: self.len,
            }));
        }
        self.place()?;
        let count = self.inner.write(buf)?;
        self.position += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl<T: Seek> Seek for Section<T> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(delta) => self.len.checked_add_signed(delta),
            SeekFrom::Current(delta) => self.position.checked_add_signed(delta),
        };
        self.position = target.ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("seek before the start of `{}`", self.name))
        })?;
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    #[test]
    fn stays_inside_and_names_what_it_spared() {
        let mut disk = Cursor::new(vec![0xEE; 32]);
        let mut section = Section::new(&mut disk, "esp", 8, 8, "pool");
        section.write_all(b"abcdef").unwrap();
        let error = section.write_all(b"ghi").unwrap_err();
        assert_eq!(
            error.to_string(),
            "`esp` is full: writing 3 bytes at 6 of 8 would have overwritten `pool`"
        );
        section.write_all(b"gh").unwrap();
        section.rewind().unwrap();
        let mut text = String::new();
        section.read_to_string(&mut text).unwrap();
        assert_eq!(text, "abcdefgh");
        assert_eq!(section.seek(SeekFrom::End(-3)).unwrap(), 5);
        assert!(section.seek(SeekFrom::Current(-6)).is_err());
        let disk = disk.into_inner();
        assert!(disk[..8].iter().chain(&disk[16..]).all(|&byte| byte == 0xEE));
    }

    #[test]
    fn a_write_at_the_end_of_the_address_space_does_not_wrap() {
        let mut section = Section::new(Cursor::new(Vec::new()), "esp", 0, 8, "pool");
        section.seek(SeekFrom::Start(u64::MAX)).unwrap();
        assert!(section.write(b"x").is_err());
        assert_eq!(section.read(&mut [0; 4]).unwrap(), 0);
    }
}

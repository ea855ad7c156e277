//! Lines of text over a unix socket, with a deadline per line.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// A line is at most this long: the output of a command in a guest, as base64.
const LONGEST: usize = 256 << 20;
/// A wait of no time would be one without end.
const LEAST: Duration = Duration::from_millis(1);

#[derive(Debug)]
pub(crate) struct LineSocket {
    stream: UnixStream,
    /// Read, not yet handed out. What a deadline interrupts stays here for the next call.
    pending: Vec<u8>,
    /// Bytes of `pending` that hold no end of line.
    searched: usize,
}

impl LineSocket {
    pub(crate) fn connect(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path)?;
        // A guest that does not read must not hold its host for ever.
        stream.set_write_timeout(Some(Duration::from_secs(60)))?;
        Ok(Self { stream, pending: Vec::new(), searched: 0 })
    }

    pub(crate) fn send(&mut self, line: &str) -> io::Result<()> {
        self.stream.write_all(line.as_bytes())
    }

    /// The next line without its end; `None` when the deadline comes first.
    pub(crate) fn read(&mut self, deadline: Instant) -> io::Result<Option<String>> {
        let mut buffer = [0; 65536];
        loop {
            if let Some(end) = self.pending[self.searched..].iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.pending.drain(..=self.searched + end).collect();
                self.searched = 0;
                return Ok(Some(String::from_utf8_lossy(line.trim_ascii_end()).into_owned()));
            }
            self.searched = self.pending.len();
            // What has already come is read, also at the deadline.
            let left = deadline.saturating_duration_since(Instant::now()).max(LEAST);
            if self.pending.len() > LONGEST {
                return Err(io::Error::other("a line without end"));
            }
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.pending.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

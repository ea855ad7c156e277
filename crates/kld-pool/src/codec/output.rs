//! Where encoded blocks are collected: memory that is used again, and never zeroed twice.

/// Stored blocks, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// Longer than what is used: behind it lies what an encoder may write over.
    memory: Vec<u8>,
    used: usize,
}

impl Output {
    /// What was stored since the last [`Self::clear`].
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.memory[..self.used]
    }

    /// Forgets what was stored, not the memory.
    pub(crate) fn clear(&mut self) {
        self.used = 0;
    }

    /// Room for `len` bytes more, with anything in it.
    pub(super) fn room(&mut self, len: usize) -> &mut [u8] {
        let end = self.used + len;
        if self.memory.len() < end {
            self.memory.resize(end, 0);
        }
        &mut self.memory[self.used..end]
    }

    /// Takes the first `len` bytes of the room and zeros after them, `padded` bytes in all; gives those.
    pub(super) fn take(&mut self, len: usize, padded: usize) -> &[u8] {
        self.room(padded)[len..].fill(0);
        let start = self.used;
        self.used += padded;
        &self.memory[start..self.used]
    }
}

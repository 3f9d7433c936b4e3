//! A growable byte buffer whose first byte lies on a 4 KiB boundary, as O_DIRECT demands.

use super::limits::BLOCK;
use std::fmt;

/// Bytes that start on a block boundary in memory.
///
/// The alignment is found inside an over-allocated `Vec`, so no unsafe code is needed.
pub struct AlignedBuf {
    bytes: Vec<u8>,
    start: usize,
}

impl AlignedBuf {
    /// An empty buffer with room for `capacity` bytes.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        let mut bytes: Vec<u8> = Vec::with_capacity(capacity + BLOCK);
        let start = bytes.as_ptr().align_offset(BLOCK);
        assert!(start < BLOCK, "an offset to a boundary exists within a block");
        bytes.resize(start, 0);
        Self { bytes, start }
    }

    /// Bytes written so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Appends `more`, moving to a larger aligned allocation when needed.
    pub fn extend_from_slice(&mut self, more: &[u8]) {
        self.reserve(more.len());
        self.bytes.extend_from_slice(more);
    }

    /// Appends zeros up to the next block boundary.
    pub fn pad_to_block(&mut self) {
        let padded = self.len().next_multiple_of(BLOCK);
        self.reserve(padded - self.len());
        self.bytes.resize(self.start + padded, 0);
    }

    /// Cuts the content to `len` bytes.
    ///
    /// # Panics
    /// Never panics: a `len` beyond the content changes nothing.
    pub fn truncate(&mut self, len: usize) {
        self.bytes.truncate(self.start.saturating_add(len));
    }

    /// The content, mutable.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        self.bytes.split_at_mut(self.start).1
    }

    /// Bytes that can be appended without moving the content.
    #[must_use]
    pub fn spare(&self) -> usize {
        self.bytes.capacity() - self.bytes.len()
    }

    /// The vector underneath, for a driver that appends to it within its capacity: what is there stays there.
    pub(crate) fn as_vec_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    fn reserve(&mut self, more: usize) {
        if self.bytes.capacity() - self.bytes.len() >= more {
            return;
        }
        let wanted = (self.len() + more).max(self.len() * 2);
        let mut grown = Self::with_capacity(wanted);
        grown.bytes.extend_from_slice(self.as_ref());
        *self = grown;
    }
}

impl AsRef<[u8]> for AlignedBuf {
    fn as_ref(&self) -> &[u8] {
        self.bytes.split_at(self.start).1
    }
}

impl fmt::Debug for AlignedBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AlignedBuf({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_stays_aligned_and_whole_while_it_grows() {
        let mut buf = AlignedBuf::with_capacity(16);
        let mut expected = Vec::new();
        for round in 0..2000_u32 {
            let piece = round.to_le_bytes();
            buf.extend_from_slice(&piece);
            expected.extend_from_slice(&piece);
            assert_eq!(buf.as_ref().as_ptr().align_offset(BLOCK), 0);
        }
        assert_eq!(buf.as_ref(), expected);
        buf.pad_to_block();
        assert_eq!(buf.len() % BLOCK, 0);
        assert!(buf.as_ref().split_at(expected.len()).1.iter().all(|&b| b == 0));
    }
}

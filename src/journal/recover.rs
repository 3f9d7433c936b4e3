//! Walks the segments found on disk and decides what the history is.

use crate::base::{Fault, Position, SegmentIndex, Seq};
use crate::format::control::EpochMark;
use bytes::Bytes;

/// Reads of segments during recovery.
pub trait SegmentSource {
    /// Up to `len` bytes of a segment from `offset` (block aligned); fewer only at its end.
    ///
    /// # Errors
    /// The fault of the read.
    fn read(&mut self, segment: SegmentIndex, offset: u64, len: usize) -> Result<Bytes, Fault>;
}

/// A segment that belongs to the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its number.
    pub index: SegmentIndex,
    /// Its size (bytes).
    pub bytes: u64,
    /// Where the history stood before it.
    pub base: Position,
    /// Where the history stands after its last batch that counts.
    pub end: Position,
    /// Offset after that batch.
    pub used: u64,
}

/// A journal as recovery found it. Nothing was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Segments with entries that count, in order.
    pub segments: Vec<SegmentInfo>,
    /// Segment files without any; to be deleted.
    pub unused: Vec<SegmentIndex>,
    /// End of the history.
    pub end: Position,
    /// The highest durable head that a batch or mark here tells of its writer.
    pub announced: Seq,
    /// Where each epoch begins, as far as the segments reach.
    pub epochs: Vec<EpochMark>,
    /// The lowest segment number never used here.
    pub next_index: u64,
}

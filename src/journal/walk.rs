//! The walk over one segment that stands by itself, as on a spool: the same steps as in a journal.

use super::cursor::{Cursor, CursorError, WalkStep};
use super::segments::Segments;
use super::{ReadStep, SegmentInfo};
use bytes::Bytes;

/// Reads the batches of one segment in order, and holds them to where it says that it begins and ends.
#[derive(Debug)]
pub struct SegmentWalk {
    segments: Segments,
    cursor: Cursor,
}

impl SegmentWalk {
    /// From its first batch on.
    ///
    /// # Errors
    /// Never, as long as the segment holds something.
    pub fn new(info: SegmentInfo) -> Result<Self, CursorError> {
        let segments = Segments::new(vec![info]);
        let cursor = Cursor::new(&segments, info.base.seq)?;
        Ok(Self { segments, cursor })
    }

    /// The next batch, or the bytes that are needed for it; the end once all were given.
    ///
    /// # Errors
    /// [`CursorError::Damaged`]: something is not what was written, or not where it belongs.
    pub fn step(&mut self) -> Result<ReadStep, CursorError> {
        Ok(match self.cursor.step(&self.segments)? {
            WalkStep::Batch(batch) => ReadStep::Batch(batch),
            WalkStep::Read(request) => ReadStep::Wait(Some(request)),
            WalkStep::End => ReadStep::End,
        })
    }

    /// Takes the bytes of the last request.
    pub fn feed(&mut self, bytes: Bytes) {
        self.cursor.feed(bytes);
    }
}

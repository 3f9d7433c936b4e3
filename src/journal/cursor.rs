//! The walk over a journal's segments: which bytes are needed next, and the batch that they hold.

use super::SegmentInfo;
use super::segments::Segments;
use crate::base::limits::{BLOCK, BLOCK_U64, READ_CHUNK};
use crate::base::{Position, SegmentIndex, Seq};
use crate::format::DecodeError;
use crate::format::batch::Batch;
use bytes::Bytes;

/// A read that the cursor needs next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadRequest {
    /// The segment.
    pub segment: SegmentIndex,
    /// Offset in it, on a block boundary.
    pub offset: u64,
    /// Bytes.
    pub len: usize,
}

/// Why a cursor cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CursorError {
    /// The entry is not in the journal any more.
    #[error("entry {wanted} is not in the journal any more; the oldest is {oldest}")]
    Released {
        /// Wanted.
        wanted: Seq,
        /// Oldest there.
        oldest: Seq,
    },
    /// What was read is not what was written.
    #[error("segment {segment} is damaged at byte {offset}: {error}")]
    Damaged {
        /// The segment.
        segment: SegmentIndex,
        /// Where in it.
        offset: u64,
        /// How it was seen.
        error: DecodeError,
    },
}

/// A place in a journal from which batches are read in order.
#[derive(Debug)]
pub(super) struct Cursor {
    /// The next entry wanted.
    next: Seq,
    /// The history up to what was read last.
    at: Position,
    segment: SegmentIndex,
    offset: u64,
    /// Bytes read from `offset` on.
    ahead: Bytes,
    /// What the last request asked for, until its bytes gave a batch.
    asked: usize,
}

impl Cursor {
    /// A cursor whose first batch is the one that holds the entry after `after`.
    ///
    /// # Errors
    /// [`CursorError::Released`] when that entry was released.
    pub(super) fn new(segments: &Segments, after: Seq) -> Result<Self, CursorError> {
        let Some(info) = segments.holding(after.next()) else {
            let oldest = segments.oldest().unwrap_or_default();
            return Err(CursorError::Released { wanted: after.next(), oldest });
        };
        let (segment, at) = (info.index, info.base);
        Ok(Self { next: after.next(), at, segment, offset: BLOCK_U64, ahead: Bytes::new(), asked: 0 })
    }

    /// Takes the bytes of the last request.
    pub(super) fn feed(&mut self, bytes: Bytes) {
        self.ahead = bytes;
    }

    /// The next batch if its bytes were read; else what must be read first; none at the end of what is durable.
    ///
    /// # Errors
    /// Any [`CursorError`].
    pub(super) fn step(&mut self, segments: &Segments) -> Result<WalkStep, CursorError> {
        loop {
            let Some(info) = segments.get(self.segment) else {
                let oldest = segments.oldest().unwrap_or_default();
                return Err(CursorError::Released { wanted: self.next, oldest });
            };
            if self.offset >= info.used || self.at.seq >= info.end.seq {
                if self.at.seq < info.end.seq {
                    return Err(self.damaged(DecodeError::Short { what: "segment", needed: 1, found: 0 }));
                }
                let Some(next) = segments.after(self.segment) else { return Ok(WalkStep::End) };
                *self = Self { segment: next.index, at: next.base, next: self.next, ..Self::at_start(next) };
                continue;
            }
            match Batch::from_disk(&self.ahead) {
                Ok(batch) => {
                    if let Some(batch) = self.take(batch)? {
                        return Ok(WalkStep::Batch(batch));
                    }
                }
                Err(DecodeError::Short { needed, .. })
                    if self.asked < needed && self.ahead.len() < self.left(info) =>
                {
                    return Ok(WalkStep::Read(self.request(info, needed)));
                }
                Err(error) => return Err(self.damaged(error)),
            }
        }
    }

    fn at_start(info: &SegmentInfo) -> Self {
        let (next, at, segment) = (info.base.seq.next(), info.base, info.index);
        Self { next, at, segment, offset: BLOCK_U64, ahead: Bytes::new(), asked: 0 }
    }

    fn left(&self, info: &SegmentInfo) -> usize {
        usize::try_from(info.used - self.offset).unwrap_or(usize::MAX)
    }

    fn request(&mut self, info: &SegmentInfo, needed: usize) -> ReadRequest {
        // The first look at a batch tells its length; the next read brings all of it.
        let len = READ_CHUNK.max(needed.next_multiple_of(BLOCK)).min(self.left(info));
        self.asked = len;
        ReadRequest { segment: self.segment, offset: self.offset, len }
    }

    fn take(&mut self, batch: Batch) -> Result<Option<Batch>, CursorError> {
        let h = *batch.header();
        if h.first_seq != self.at.seq.next() || h.prev_chain != self.at.chain {
            let (expected, found) = (self.at.seq.0 + 1, h.first_seq.0);
            return Err(self.damaged(DecodeError::Field { what: "batch in its place", expected, found }));
        }
        let padded = h.padded_len();
        self.offset += padded as u64;
        self.asked = 0;
        self.ahead = self.ahead.slice(padded..);
        if h.mark {
            return Ok(None);
        }
        self.at = batch.end();
        if h.last_seq() < self.next {
            return Ok(None);
        }
        self.next = h.last_seq().next();
        Ok(Some(batch))
    }

    fn damaged(&self, error: DecodeError) -> CursorError {
        CursorError::Damaged { segment: self.segment, offset: self.offset, error }
    }
}

/// What a cursor gives.
#[derive(Debug)]
pub(super) enum WalkStep {
    /// The next batch.
    Batch(Batch),
    /// It needs these bytes first.
    Read(ReadRequest),
    /// Nothing more is durable.
    End,
}

//! Room for segments: what is there, what is asked for, and what becomes of updates while there is none.

use super::{Journal, JournalState, Pending, Spare};
use crate::base::limits::BLOCK_U64;
use crate::base::{Fault, Now, SegmentIndex};
use crate::format::batch::BATCH_HEADER;

/// Room at the end of a segment into which updates are taken only when it is known whether another will follow.
const RESERVE: u64 = 256 << 10;
/// A segment that could not be made is tried again after this (milliseconds).
pub(super) const PREPARE_RETRY_MS: u64 = 250;
/// After room was made for it, after this: what was released has to be gone by then (milliseconds).
const ROOM_RETRY_MS: u64 = 20;

impl Journal {
    /// Bytes in segment files, those made ahead and being opened included, and how many they are.
    #[must_use]
    pub fn disk_use(&self) -> (u64, u64) {
        let spare = match self.spare {
            Spare::Preparing { bytes, .. } | Spare::Ready { bytes, .. } => bytes,
            Spare::None | Spare::Waiting { .. } => 0,
        };
        // One that is being opened is in neither place.
        let opening = self.in_flight.opening().map_or(0, |info| info.bytes);
        let count = self.segments.len() as u64 + u64::from(spare > 0) + u64::from(opening > 0);
        (self.segments.bytes() + spare + opening, count)
    }

    /// Whether an update of `bytes` can be taken now.
    #[must_use]
    pub fn state_for(&self, bytes: usize) -> JournalState {
        if self.failures >= 2 {
            return JournalState::Failed;
        }
        let Some(fault) = self.lacking else { return JournalState::Open };
        let pending: u64 = self.pending.iter().map(Pending::padded).sum();
        let need = pending + (bytes + BATCH_HEADER) as u64 + 2 * BLOCK_U64;
        match (need <= self.room(), fault.is_shortage()) {
            (true, _) => JournalState::Open,
            (false, true) => JournalState::NoSpace,
            (false, false) => JournalState::Failed,
        }
    }

    /// Whether what is accepted comes near the end of the room there is for certain, and it is not known yet whether
    /// there will be more. What were taken now would get no answer, should there be none.
    #[must_use]
    pub fn is_short(&self) -> bool {
        let ready = if let Spare::Ready { bytes, .. } = self.spare { bytes - BLOCK_U64 } else { 0 };
        let pending = self.pending_bytes as u64 + self.pending.len() as u64 * BLOCK_U64;
        let need = pending + RESERVE.min(self.segment_bytes / 4);
        self.target().is_some() && self.lacking.is_none() && need > self.room().max(ready)
    }

    /// The segment asked for is there.
    pub fn segment_ready(&mut self, index: SegmentIndex) {
        if let Spare::Preparing { index: wanted, bytes } = self.spare
            && wanted == index
        {
            self.spare = Spare::Ready { index, bytes };
            self.lacking = None;
            self.moves += 1;
        }
    }

    /// The segment asked for could not be made.
    pub fn segment_failed(&mut self, now: Now, index: SegmentIndex, fault: Fault) {
        if let Spare::Preparing { index: wanted, .. } = self.spare
            && wanted == index
        {
            let until = now.mono.plus_ms(PREPARE_RETRY_MS);
            self.spare = Spare::Waiting { until };
            self.lacking = Some(fault);
        }
    }

    /// Whether the disk has no room for the next segment, and half of the one in use is full: soon nothing can be taken.
    #[must_use]
    pub fn is_starved(&self) -> bool {
        self.lacking == Some(Fault::NoSpace) && self.room() < self.segment_bytes / 2
    }

    /// Room was made for the next segment: it is tried again soon, and until then nothing is known of it.
    pub fn made_room(&mut self, now: Now) {
        if let Spare::Waiting { .. } = self.spare {
            self.spare = Spare::Waiting { until: now.mono.plus_ms(ROOM_RETRY_MS) };
            self.lacking = None;
        }
    }

    /// Why the last attempt to make a segment failed, if it did.
    #[must_use]
    pub fn waits_for_segment(&self) -> Option<Fault> {
        self.lacking
    }
}

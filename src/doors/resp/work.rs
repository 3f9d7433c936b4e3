//! What clients cost, counted where the cost arises, so that none can keep the others waiting.
//!
//! A *round* is what all clients may cost before the caller comes back to its other duties; a *slice* is what one
//! client may cost before the next has its turn. The more wait, the shorter the slices. A unit is about a nanosecond.

use crate::base::limits::{WORK_LEAST, WORK_ROUND, WORK_SLICE};

/// The account of both.
#[derive(Debug)]
pub(super) struct Work {
    /// Left of this round; below zero once too much was done.
    round: isize,
    /// Left of this slice.
    slice: isize,
    /// The most that one slice took beyond what it was given, since the last look.
    #[cfg(test)]
    pub(super) spent: usize,
}

fn signed(units: usize) -> isize {
    isize::try_from(units).unwrap_or(isize::MAX)
}

impl Work {
    /// A whole round.
    pub(super) fn new() -> Self {
        Self {
            round: signed(WORK_ROUND),
            slice: 0,
            #[cfg(test)]
            spent: 0,
        }
    }

    /// A new round begins.
    pub(super) fn begin_round(&mut self) {
        self.round = signed(WORK_ROUND);
    }

    /// A client's turn begins; so many more wait for theirs. `times` the usual slice.
    pub(super) fn begin_slice(&mut self, waiting: usize, times: usize) {
        let slice = (WORK_ROUND / (waiting + 1)).clamp(WORK_LEAST, WORK_SLICE);
        self.slice = signed(slice * times);
    }

    /// Counts.
    pub(super) fn spend(&mut self, units: usize) {
        self.slice = self.slice.saturating_sub(signed(units));
        self.round = self.round.saturating_sub(signed(units));
        #[cfg(test)]
        {
            self.spent += units;
        }
    }

    /// Whether the client has had its slice.
    pub(super) fn slice_is_over(&self) -> bool {
        self.slice <= 0
    }

    /// Whether all have had their round.
    pub(super) fn round_is_over(&self) -> bool {
        self.round <= 0
    }

    /// Whether even those who just came in have to wait for the next.
    pub(super) fn round_is_overdrawn(&self) -> bool {
        self.round <= -signed(WORK_ROUND)
    }
}

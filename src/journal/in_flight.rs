//! The writes of a journal that are under way: two at most, and taken as done in the order in which they were asked
//! for, whatever the order in which they end. So what is durable never has a hole.
//!
//! The second one begins before the first has ended only when that pays: when much waits, so that the disk need not
//! wait between them, or when the first one takes long.

use super::SegmentInfo;
use crate::base::limits::{BATCH_SOFT, BLOCK_U64, GROUP_MAX};
use crate::base::{Mono, Seq};
use crate::format::batch::Batch;
use std::collections::VecDeque;

/// A write that takes longer than this no longer keeps the next one waiting for company (microseconds).
const OVERLAP_AFTER_US: u64 = 500;

/// What a write is for.
#[derive(Debug)]
pub(super) enum Writing {
    /// Batches, behind the header of the segment that the write opens, if it opens one. None only behind a header.
    Batches {
        opens: Option<SegmentInfo>,
        batches: Vec<Batch>,
        padded: u64,
    },
    Mark {
        announced: Seq,
    },
}

impl Writing {
    /// Bytes of the segment that it takes, a header not counted.
    fn room(&self) -> u64 {
        match self {
            Self::Batches { padded, .. } => *padded,
            Self::Mark { .. } => BLOCK_U64,
        }
    }
}

#[derive(Debug)]
struct Flight {
    write: u64,
    writing: Writing,
    began: Mono,
    /// How it ended: well or not.
    ended: Option<bool>,
}

/// The writes under way, and those that ended before one that was asked for earlier; oldest first.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    list: VecDeque<Flight>,
}

impl InFlight {
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The segment being opened, if one is. All that is under way is in it then.
    pub(super) fn opening(&self) -> Option<SegmentInfo> {
        match self.list.front()?.writing {
            Writing::Batches { opens, .. } => opens,
            Writing::Mark { .. } => None,
        }
    }

    /// Bytes of the segment that are being written to, a header not counted.
    pub(super) fn room(&self) -> u64 {
        self.list.iter().map(|flight| flight.writing.room()).sum()
    }

    /// When a second write may begin, with `waiting` bytes that it would carry, if one may at all. Both have to be short:
    /// recovery looks no further for what proves that a bad write was once durable than the longest one reaches.
    pub(super) fn second_at(&self, waiting: usize, first_of_it: u64) -> Option<Mono> {
        let (Some(Flight { writing: Writing::Batches { batches, padded, .. }, began, ended: None, .. }), 1) =
            (self.list.front(), self.list.len())
        else {
            return None;
        };
        let short = GROUP_MAX as u64;
        if *padded > short || first_of_it > short {
            return None;
        }
        if waiting >= BATCH_SOFT {
            return Some(Mono(0));
        }
        // Company comes while the first is under way: half as much as it carries is worth a write.
        let carries: usize = batches.iter().map(|batch| batch.header().len as usize).sum();
        (waiting * 2 >= carries).then_some(Mono(began.0 + OVERLAP_AFTER_US))
    }

    pub(super) fn push(&mut self, write: u64, writing: Writing, began: Mono) {
        self.list.push_back(Flight { write, writing, began, ended: None });
    }

    /// A write ended, well or not; false if it is not known.
    pub(super) fn end(&mut self, write: u64, well: bool) -> bool {
        let flight = self.list.iter_mut().find(|flight| flight.write == write && flight.ended.is_none());
        flight.map(|flight| flight.ended = Some(well)).is_some()
    }

    /// Whether one of them failed.
    pub(super) fn have_failed(&self) -> bool {
        self.list.iter().any(|flight| flight.ended == Some(false))
    }

    /// The oldest, if it is done.
    pub(super) fn take_done(&mut self) -> Option<Writing> {
        let done = self.list.front()?.ended == Some(true);
        if done { self.list.pop_front().map(|flight| flight.writing) } else { None }
    }

    /// What has to be written again, oldest first: all from one that failed on, once none is under way any more.
    pub(super) fn take_failed(&mut self) -> Vec<Writing> {
        let failed = self.list.front().is_some_and(|flight| flight.ended == Some(false));
        if !failed || self.list.iter().any(|flight| flight.ended.is_none()) {
            return Vec::new();
        }
        self.list.drain(..).map(|flight| flight.writing).collect()
    }
}

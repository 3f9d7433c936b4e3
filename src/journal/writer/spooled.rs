//! What of the journal stands on the spool: copies of sealed segments that stay readable when their files are gone here.

use super::Journal;
use crate::base::{Position, SegmentIndex, Seq};
use crate::journal::SegmentInfo;

impl Journal {
    /// The oldest sealed segment that holds something beyond `after`, and of which the spool has no copy.
    #[must_use]
    pub fn next_to_spool(&self, after: Seq) -> Option<SegmentInfo> {
        self.segments.next_to_spool(after)
    }

    /// The spool has a copy of a segment, durably: it is readable from there once it is gone here. False if it does not lead up
    /// to what is here: the journal was cut, left, or has let go of more meanwhile.
    pub fn spooled(&mut self, copy: SegmentInfo) -> bool {
        self.segments.spooled(copy)
    }

    /// Of the copies on a spool, takes those that lead up to this journal without a gap; returns how many they are.
    pub fn adopt_spooled(&mut self, copies: &[SegmentInfo]) -> usize {
        self.segments.adopt(copies)
    }

    /// The spool's copies up to this one are not readable any more.
    pub fn unspool(&mut self, up_to: SegmentIndex) {
        self.segments.unspool(up_to);
    }

    /// Where the history stands before the first copy on the spool that can be read, and behind the last one.
    #[must_use]
    pub fn spool_reach(&self) -> Option<(Position, Position)> {
        self.segments.copies().map(|(first, last)| (first.base, last.end))
    }

    /// Where the oldest segment here ends, if another follows it and the spool has a copy of it that can be read.
    #[must_use]
    pub fn oldest_spooled(&self) -> Option<Seq> {
        let end = self.second_base()?;
        let (first, last) = self.segments.copies()?;
        (first.base.seq < end && end <= last.end.seq).then_some(end)
    }

    /// The numbers of the first and of the last copy on the spool that can be read.
    #[must_use]
    pub fn spool_numbers(&self) -> Option<(SegmentIndex, SegmentIndex)> {
        self.segments.copies().map(|(first, last)| (first.index, last.index))
    }

    /// The copy that is read where the journal itself does not hold a segment any more.
    #[must_use]
    pub fn copy_of(&self, index: SegmentIndex) -> Option<SegmentInfo> {
        self.segments.get(index).filter(|_| !self.segments.is_here(index)).copied()
    }
}

//! The catalogue of a journal's segments.

use super::SegmentInfo;
use crate::base::{Position, SegmentIndex, Seq};
use std::collections::VecDeque;

/// Segments of the history in order; the last one is being written.
///
/// Copies of some stand outside of the journal's directory, on the spool, and stay readable when the journal has let go of
/// its own. These copies are a history without a gap that leads up to a segment here, or they are forgotten.
#[derive(Debug, Default)]
pub(super) struct Segments {
    list: VecDeque<SegmentInfo>,
    /// Sum of their sizes.
    bytes: u64,
    /// Those of which the spool has a copy, in order.
    spooled: VecDeque<SegmentInfo>,
}

impl Segments {
    pub(super) fn new(list: Vec<SegmentInfo>) -> Self {
        let bytes = list.iter().map(|info| info.bytes).sum();
        Self { list: list.into(), bytes, spooled: VecDeque::new() }
    }

    pub(super) fn push(&mut self, info: SegmentInfo) {
        self.bytes += info.bytes;
        self.list.push_back(info);
    }

    pub(super) fn last_mut(&mut self) -> Option<&mut SegmentInfo> {
        self.list.back_mut()
    }

    pub(super) fn newest(&self) -> Option<&SegmentInfo> {
        self.list.back()
    }

    /// The segment here, or its copy on the spool.
    pub(super) fn get(&self, index: SegmentIndex) -> Option<&SegmentInfo> {
        let find = |list: &'_ VecDeque<SegmentInfo>| list.partition_point(|info| info.index < index);
        let is_it = |info: &&SegmentInfo| info.index == index;
        let here = self.list.get(find(&self.list)).filter(is_it);
        here.or_else(|| self.spooled.get(find(&self.spooled)).filter(is_it))
    }

    /// Whether a segment is in the journal itself.
    pub(super) fn is_here(&self, index: SegmentIndex) -> bool {
        self.list.front().is_some_and(|front| front.index <= index)
    }

    pub(super) fn after(&self, index: SegmentIndex) -> Option<&SegmentInfo> {
        let at = self.list.partition_point(|info| info.index <= index);
        let here = self.list.get(at);
        let copy = self.spooled.get(self.spooled.partition_point(|info| info.index <= index));
        match (here, copy) {
            (Some(here), Some(copy)) if copy.index < here.index => Some(copy),
            (here, _) => here,
        }
    }

    /// The segment that holds `seq`, or will hold it if it is the next to be written.
    pub(super) fn holding(&self, seq: Seq) -> Option<&SegmentInfo> {
        let find =
            |list: &'_ VecDeque<SegmentInfo>| list.partition_point(|info| info.base.seq < seq).checked_sub(1);
        let here = find(&self.list).and_then(|at| self.list.get(at));
        here.or_else(|| find(&self.spooled).and_then(|at| self.spooled.get(at)))
    }

    /// The oldest entry that can be read, here or on the spool, or the next one to come.
    pub(super) fn oldest(&self) -> Option<Seq> {
        let here = self.list.front()?;
        Some(self.spooled.front().map_or(here, |copy| copy).base.seq.min(here.base.seq).next())
    }

    /// The oldest segment that is sealed and holds something beyond `after`, and of which the spool has no copy.
    pub(super) fn next_to_spool(&self, after: Seq) -> Option<SegmentInfo> {
        let sealed = self.list.len().saturating_sub(1);
        let beyond = |info: &&SegmentInfo| match self.spooled.back() {
            Some(last) => info.index > last.index,
            None => true,
        };
        let wanted = |info: &&SegmentInfo| info.end.seq > after.max(info.base.seq);
        self.list.iter().take(sealed).filter(beyond).find(wanted).copied()
    }

    /// The spool has a copy of this one, durably. One that does not continue the copies begins them anew; false for one that
    /// does not lead up to a segment here.
    pub(super) fn spooled(&mut self, copy: SegmentInfo) -> bool {
        if !self.list.iter().any(|info| info.base == copy.end) {
            return false;
        }
        if self.spooled.back().is_some_and(|last| last.end != copy.base) {
            self.spooled.clear();
        }
        self.spooled.push_back(copy);
        true
    }

    /// Of the copies that a spool has, in the order of their numbers, those that lead up to a segment here without a gap are readable from now on: of
    /// another history, or behind a gap, none is. Returns how many they are.
    pub(super) fn adopt(&mut self, copies: &[SegmentInfo]) -> usize {
        self.spooled.clear();
        for copy in copies.iter().rev() {
            let joins = match self.spooled.front() {
                Some(first) => first.base == copy.end,
                None => self.list.iter().any(|info| info.base == copy.end),
            };
            if joins && copy.end.seq > copy.base.seq {
                self.spooled.push_front(*copy);
            }
        }
        self.spooled.len()
    }

    /// The spool lets go of its copies up to this one.
    pub(super) fn unspool(&mut self, up_to: SegmentIndex) {
        while self.spooled.front().is_some_and(|copy| copy.index <= up_to) {
            self.spooled.pop_front();
        }
    }

    /// The first and the last copy that can be read.
    pub(super) fn copies(&self) -> Option<(&SegmentInfo, &SegmentInfo)> {
        self.spooled.front().zip(self.spooled.back())
    }

    pub(super) fn second_base(&self) -> Option<Seq> {
        self.list.get(1).map(|info| info.base.seq)
    }

    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes out the oldest segment if all of it is at or below `up_to` and another follows it.
    pub(super) fn release_one(&mut self, up_to: Seq) -> Option<SegmentInfo> {
        let front = self.list.front()?;
        let next = self.list.get(1)?;
        let done = front.end.seq <= up_to && next.base.seq <= up_to;
        if !done {
            return None;
        }
        self.bytes -= front.bytes;
        let gone = self.list.pop_front();
        let joins =
            |copy: &SegmentInfo| self.list.front().is_some_and(|front| copy.end.seq >= front.base.seq);
        if !self.spooled.back().is_some_and(joins) {
            self.spooled.clear();
        }
        gone
    }

    /// Forgets all; returns what there was.
    pub(super) fn clear(&mut self) -> Vec<SegmentIndex> {
        self.bytes = 0;
        self.spooled.clear();
        self.list.drain(..).map(|info| info.index).collect()
    }

    /// Forgets what is beyond `end`; returns segments of which nothing is left.
    pub(super) fn cut(&mut self, end: Position) -> Vec<SegmentIndex> {
        let mut gone = Vec::new();
        while let Some(last) = self.list.back_mut() {
            if last.base.seq > end.seq {
                gone.push(last.index);
                self.bytes -= last.bytes;
                self.list.pop_back();
                continue;
            }
            if last.end.seq > end.seq {
                last.end = end;
                last.reusable = false;
            }
            break;
        }
        while self.spooled.back().is_some_and(|copy| copy.end.seq > end.seq) {
            self.spooled.pop_back();
        }
        if self.list.is_empty() {
            self.spooled.clear();
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Chain, Epoch};

    /// Segments of ten entries each: number `n` holds what comes after entry `10 * n`.
    fn info(n: u64) -> SegmentInfo {
        let at = |n: u64| Position { epoch: Epoch(2), seq: Seq(10 * n), chain: Chain(100 + n) };
        SegmentInfo {
            index: SegmentIndex(n),
            bytes: 4096,
            base: at(n),
            end: at(n + 1),
            used: 4096,
            reusable: true,
        }
    }

    fn journal(numbers: impl Iterator<Item = u64>) -> Segments {
        Segments::new(numbers.map(info).collect())
    }

    fn walk(segments: &Segments, after: u64) -> Vec<u64> {
        let first = segments.holding(Seq(after + 1)).copied();
        let next = |info: &SegmentInfo| segments.after(info.index).copied();
        std::iter::successors(first, next).map(|info| info.index.0).collect()
    }

    #[test]
    fn a_walk_goes_over_copies_and_then_over_what_is_here_each_once() {
        let mut segments = journal(1..7);
        assert!((1..5).all(|n| segments.spooled(info(n))));
        assert_eq!(walk(&segments, 10), [1, 2, 3, 4, 5, 6]);
        for gone in 1..4 {
            assert_eq!(segments.release_one(Seq(40)).unwrap().index.0, gone);
        }
        assert_eq!((walk(&segments, 10), walk(&segments, 35)), (vec![1, 2, 3, 4, 5, 6], vec![3, 4, 5, 6]));
        assert_eq!((segments.oldest(), segments.second_base()), (Some(Seq(11)), Some(Seq(50))));
        assert!(!segments.is_here(SegmentIndex(3)) && segments.is_here(SegmentIndex(4)));
        assert_eq!(segments.get(SegmentIndex(2)), Some(&info(2)));
        segments.unspool(SegmentIndex(2));
        assert_eq!((segments.oldest(), segments.holding(Seq(25))), (Some(Seq(31)), None));
        // What is let go without a copy ends them all.
        assert!(segments.release_one(Seq(60)).is_some() && segments.release_one(Seq(60)).is_some());
        assert_eq!((segments.oldest(), segments.copies()), (Some(Seq(61)), None));
    }

    #[test]
    fn the_next_to_copy_is_sealed_is_needed_and_follows_the_last_copy() {
        let mut segments = journal(1..5);
        assert_eq!(segments.next_to_spool(Seq(25)), Some(info(2)), "the first that holds something of it");
        assert_eq!(segments.next_to_spool(Seq(40)), None, "the last one is written to");
        assert!(segments.spooled(info(2)));
        assert_eq!(segments.next_to_spool(Seq(0)), Some(info(3)));
        assert!(segments.spooled(info(3)));
        assert_eq!(segments.next_to_spool(Seq(0)), None);
        assert!(!segments.spooled(info(9)), "it leads nowhere");
        assert!(segments.spooled(info(1)) && segments.oldest() == Some(Seq(11)), "a new beginning");
    }

    #[test]
    fn of_what_a_spool_has_only_that_is_read_which_leads_up_to_this_history() {
        let other = |n: u64| {
            let mut info = info(n);
            info.base.chain = Chain(info.base.chain.0 + 7);
            info.end.chain = Chain(info.end.chain.0 + 7);
            info
        };
        for (copies, read) in [
            (vec![info(1), info(2), info(3)], vec![1, 2, 3]),
            (vec![info(1), info(2), info(3), info(4), info(5)], vec![1, 2, 3, 4, 5]),
            (vec![info(1), info(3)], vec![3]),
            (vec![info(1), info(2)], vec![]),
            (vec![other(1), other(2), other(3)], vec![]),
            (vec![info(1), info(2), info(3), other(4), other(5)], vec![1, 2, 3]),
            (vec![info(1), other(2), info(3)], vec![3]),
            (vec![info(8)], vec![]),
        ] {
            let mut segments = journal(4..7);
            assert_eq!(segments.adopt(&copies), read.len(), "{copies:?}");
            let found: Vec<u64> = segments.spooled.iter().map(|info| info.index.0).collect();
            assert_eq!(found, read, "{copies:?}");
        }
    }

    #[test]
    fn a_cut_takes_the_copies_of_what_it_cuts() {
        let mut segments = journal(3..6);
        assert_eq!(segments.adopt(&[info(1), info(2), info(3), info(4)]), 4);
        segments.cut(Position { seq: Seq(45), ..info(4).end });
        assert_eq!(segments.copies().map(|(_, last)| last.index.0), Some(3));
        assert_eq!(segments.clear().len(), 2);
        assert_eq!(segments.copies(), None);
    }
}

//! The catalogue of a journal's segments.

use super::SegmentInfo;
use crate::base::{Position, SegmentIndex, Seq};
use std::collections::VecDeque;

/// Segments of the history in order; the last one is being written.
#[derive(Debug, Default)]
pub(super) struct Segments {
    list: VecDeque<SegmentInfo>,
    /// Sum of their sizes.
    bytes: u64,
}

impl Segments {
    pub(super) fn new(list: Vec<SegmentInfo>) -> Self {
        let bytes = list.iter().map(|info| info.bytes).sum();
        Self { list: list.into(), bytes }
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

    pub(super) fn get(&self, index: SegmentIndex) -> Option<&SegmentInfo> {
        let at = self.list.partition_point(|info| info.index < index);
        self.list.get(at).filter(|info| info.index == index)
    }

    pub(super) fn after(&self, index: SegmentIndex) -> Option<&SegmentInfo> {
        let at = self.list.partition_point(|info| info.index <= index);
        self.list.get(at)
    }

    /// The segment that holds `seq`, or will hold it if it is the next to be written.
    pub(super) fn holding(&self, seq: Seq) -> Option<&SegmentInfo> {
        let past = self.list.partition_point(|info| info.base.seq < seq);
        past.checked_sub(1).and_then(|at| self.list.get(at))
    }

    /// The oldest entry that can be read, or the next one to come.
    pub(super) fn oldest(&self) -> Option<Seq> {
        self.list.front().map(|info| info.base.seq.next())
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
        self.list.pop_front()
    }

    /// Forgets all; returns what there was.
    pub(super) fn clear(&mut self) -> Vec<SegmentIndex> {
        self.bytes = 0;
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
        gone
    }
}

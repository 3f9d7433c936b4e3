//! The two journals, and what was asked of their disks and is not answered yet.

use super::read_back::ReadFor;
use crate::base::limits::{BLOCK_U64, SEGMENT_MIN};
use crate::base::{JournalKind, Seq};
use crate::format::PairId;
use crate::journal::{Journal, Recovered};
use std::collections::HashMap;
use std::ops::{Index, IndexMut};

/// Both journals, by [`JournalKind::index`].
#[derive(Debug)]
pub(super) struct Journals {
    each: [Journal; 2],
    /// The write of a journal that an effect's number stands for.
    writes: HashMap<u64, (JournalKind, u64)>,
    /// Who asked for what is read back, by the effect's number.
    reads: HashMap<u64, ReadFor>,
}

/// The local journal carries little, and is walked at every start: its segments are an eighth of the others'.
fn local_segment(bytes: u64) -> u64 {
    (bytes / 8).next_multiple_of(BLOCK_U64).clamp(SEGMENT_MIN.min(bytes), bytes)
}

impl Journals {
    pub(super) fn new(pair: PairId, segment_bytes: u64, [replicated, local]: [Recovered; 2]) -> Self {
        let each = [
            Journal::new(JournalKind::Replicated, pair, segment_bytes, replicated),
            Journal::new(JournalKind::Local, pair, local_segment(segment_bytes), local),
        ];
        Self { each, writes: HashMap::new(), reads: HashMap::new() }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Journal> {
        self.each.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Journal> {
        self.each.iter_mut()
    }

    /// The last entry of each.
    pub(super) fn appended(&self) -> [Seq; 2] {
        self.each.each_ref().map(|journal| journal.pace().appended)
    }

    /// The last entry of each that is on this node's disk.
    pub(super) fn durable(&self) -> [Seq; 2] {
        self.each.each_ref().map(|journal| journal.pace().durable)
    }

    /// The effect `id` carries out this write of a journal.
    pub(super) fn write_begins(&mut self, id: u64, journal: JournalKind, write: u64) {
        self.writes.insert(id, (journal, write));
    }

    /// The write that the effect `id` carried out.
    pub(super) fn write_ends(&mut self, id: u64) -> Option<(JournalKind, u64)> {
        self.writes.remove(&id)
    }

    /// The effect `id` reads something back.
    pub(super) fn read_begins(&mut self, id: u64, who: ReadFor) {
        self.reads.insert(id, who);
    }

    /// Who asked for what the effect `id` read.
    pub(super) fn read_ends(&mut self, id: u64) -> Option<ReadFor> {
        self.reads.remove(&id)
    }
}

impl Index<usize> for Journals {
    type Output = Journal;

    fn index(&self, index: usize) -> &Journal {
        &self.each[index]
    }
}

impl IndexMut<usize> for Journals {
    fn index_mut(&mut self, index: usize) -> &mut Journal {
        &mut self.each[index]
    }
}

//! The world's own account of what was written where: every batch ever sequenced, and for each node and journal
//! the history that is durable there and what a crash may add to it.

use crate::base::{JournalKind, Position};
use crate::format::batch::Batch;
use crate::format::entry::EntryKind;
use crate::format::segment::SegmentHeader;
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap};

/// Journals that are told apart: the replicated one of the pair, and a local one for each node.
pub(super) fn space(node: usize, journal: JournalKind) -> usize {
    match journal {
        JournalKind::Replicated => 0,
        JournalKind::Local => 1 + node,
    }
}

/// A batch as its sequencer made it.
#[derive(Clone, Debug)]
pub(super) struct Known {
    /// The batch.
    pub(super) batch: Batch,
    /// Who sequenced it.
    pub(super) origin: usize,
    /// Whether it was ever durable where it was sequenced.
    pub(super) durable_at_origin: bool,
}

/// Where a value (or a deletion) stands in a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// See [`space`].
    pub(super) space: usize,
    /// End of the batch that holds it.
    pub(super) chain: u64,
    /// Its number.
    pub(super) seq: u64,
    /// Who sequenced it.
    pub(super) origin: usize,
}

/// The end of a batch in a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tip {
    /// Running checksum.
    pub(super) chain: u64,
    /// Last entry.
    pub(super) seq: u64,
    /// Its epoch.
    pub(super) epoch: u64,
}

impl Tip {
    /// Of a position.
    pub(super) fn of(position: Position) -> Self {
        Self { chain: position.chain.0, seq: position.seq.0, epoch: position.epoch.0 }
    }
}

/// What a write does to a history once it is durable.
#[derive(Clone, Debug)]
pub(super) enum Move {
    /// A segment begins; what is beyond this point is cut.
    Header(Tip),
    /// A batch follows.
    Batch(Tip),
}

/// A write that is under way, or ended before an earlier one.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    /// Its number.
    pub(super) write: u64,
    /// The segment.
    pub(super) segment: u64,
    /// What it does to the history.
    pub(super) moves: Vec<Move>,
    /// How it ended: well or not.
    pub(super) ended: Option<bool>,
}

/// One journal of one node.
#[derive(Clone, Debug)]
pub(super) struct JournalTruth {
    /// What is durable, from the beginning.
    pub(super) path: Vec<Tip>,
    /// Other histories that recovery may find instead: a failed write, a cut whose batch did not follow yet.
    pub(super) others: Vec<Vec<Tip>>,
    /// The writes under way, oldest first.
    pub(super) pending: Vec<Pending>,
    /// Batch ends by segment.
    pub(super) segments: BTreeMap<u64, Vec<u64>>,
    /// What was handed to the store last, in this life.
    pub(super) offered: Tip,
    /// What the store holds.
    pub(super) applied: u64,
    /// The most that it ever held.
    pub(super) applied_most: u64,
    /// What the store holds durably.
    pub(super) checkpointed: u64,
}

impl Default for JournalTruth {
    fn default() -> Self {
        let start = Tip { chain: 0, seq: 0, epoch: 0 };
        Self {
            path: vec![start],
            others: Vec::new(),
            pending: Vec::new(),
            segments: BTreeMap::new(),
            offered: start,
            applied: 0,
            applied_most: 0,
            checkpointed: 0,
        }
    }
}

impl JournalTruth {
    /// End of what is durable.
    pub(super) fn tip(&self) -> Tip {
        self.path.last().copied().unwrap_or(Tip { chain: 0, seq: 0, epoch: 0 })
    }

    /// Whether the batch that ends with `chain` is durable here.
    pub(super) fn holds(&self, chain: u64) -> bool {
        // Newest first: questions are about new batches.
        self.path.iter().rev().any(|tip| tip.chain == chain)
    }

    /// The history that `moves` make of `path`.
    pub(super) fn after(path: &[Tip], moves: &[Move]) -> Vec<Tip> {
        let mut path = path.to_vec();
        for step in moves {
            match step {
                Move::Header(base) => {
                    if let Some(at) = path.iter().rposition(|tip| tip.chain == base.chain) {
                        path.truncate(at + 1);
                    }
                }
                Move::Batch(tip) => path.push(*tip),
            }
        }
        path
    }

    /// What the writes under way do to the history, in order.
    pub(super) fn moves(&self) -> Vec<Move> {
        self.pending.iter().flat_map(|pending| pending.moves.iter().cloned()).collect()
    }

    /// End of the history once all that is under way is durable.
    pub(super) fn ahead(&self) -> Tip {
        Self::after(&self.path, &self.moves()).last().copied().unwrap_or_else(|| self.tip())
    }

    /// A write ended. It is durable with all before it, however it and they end; and one that failed is settled, with
    /// those behind it, when none of them is under way: any beginning of what they did may be there.
    pub(super) fn ended(&mut self, write: u64, well: bool) {
        if let Some(pending) = self.pending.iter_mut().find(|pending| pending.write == write) {
            pending.ended = Some(well);
        }
        while self.pending.first().is_some_and(|first| first.ended == Some(true)) {
            let first = self.pending.remove(0);
            self.written(&first);
        }
        let failed = self.pending.first().is_some_and(|first| first.ended == Some(false));
        if failed && self.pending.iter().all(|pending| pending.ended.is_some()) {
            self.others = self.admissible().split_off(1);
            self.pending.clear();
        }
    }

    fn written(&mut self, done: &Pending) {
        let new = Self::after(&self.path, &done.moves);
        let batches = done.moves.iter().any(|m| matches!(m, Move::Batch(_)));
        let header = done.moves.iter().any(|m| matches!(m, Move::Header(_)));
        if batches {
            self.others.clear();
        } else if header && new.len() < self.path.len() {
            self.others.push(self.path.clone());
        }
        for step in &done.moves {
            if let Move::Batch(tip) = step {
                self.segments.entry(done.segment).or_default().push(tip.chain);
            }
        }
        self.path = new;
    }

    /// Every history that recovery may find after a death now; the first is what is durable.
    pub(super) fn admissible(&self) -> Vec<Vec<Tip>> {
        let mut all = vec![self.path.clone()];
        all.extend(self.others.iter().cloned());
        let moves = self.moves();
        all.extend((1..=moves.len()).map(|n| Self::after(&self.path, &moves[..n])));
        all
    }
}

/// What a journal write holds.
#[derive(Debug)]
pub(super) struct Parsed {
    /// A header at its front.
    pub(super) header: Option<SegmentHeader>,
    /// Its batches and marks, in order.
    pub(super) batches: Vec<Batch>,
}

/// Takes a journal write apart.
///
/// # Errors
/// What is wrong with it: a node never writes bytes that it would refuse itself.
pub(super) fn parse(offset: u64, bytes: &Bytes) -> Result<Parsed, String> {
    let mut rest = bytes.clone();
    let mut header = None;
    if offset == 0 {
        header = Some(SegmentHeader::decode(&rest).map_err(|e| e.to_string())?);
        rest = rest.slice(4096..);
    }
    let mut batches = Vec::new();
    while !rest.is_empty() {
        let batch = Batch::from_disk(&rest).map_err(|e| e.to_string())?;
        rest = rest.slice(batch.disk().len()..);
        batches.push(batch);
    }
    Ok(Parsed { header, batches })
}

/// Command and part that a value was made by: values are `v<command>.<part>~...`.
pub(super) fn value_tag(value: &[u8]) -> Option<(usize, usize)> {
    let end = value.iter().position(|&b| b == b'~')?;
    let text = std::str::from_utf8(value.get(1..end)?).ok()?;
    let (op, part) = text.split_once('.')?;
    Some((op.parse().ok()?, part.parse().ok()?))
}

/// Everything sequenced so far.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    /// By space and end.
    pub(super) batches: HashMap<(usize, u64), Known>,
    /// Which batch of the replicated journal has a number: (epoch, first entry) to its end.
    numbers: HashMap<(u64, u64), u64>,
    /// Where each value stands; more than once if its file was copied.
    pub(super) values: HashMap<(usize, usize), Vec<Place>>,
    /// Deletions: item, place, time.
    pub(super) deletes: Vec<(Vec<u8>, Place, u64)>,
}

impl History {
    /// Notes a batch that `node` sequenced.
    ///
    /// # Errors
    /// The end of another batch with the same number.
    pub(super) fn register(
        &mut self,
        node: usize,
        journal: JournalKind,
        batch: &Batch,
        now: u64,
    ) -> Result<(), u64> {
        let (space, chain, h) = (space(node, journal), batch.end().chain.0, *batch.header());
        if space == 0
            && let Some(other) = self.numbers.insert((h.epoch.0, h.first_seq.0), chain)
        {
            return Err(other);
        }
        for (seq, entry) in batch.entries() {
            let place = Place { space, chain, seq: seq.0, origin: node };
            match entry.kind {
                EntryKind::Put | EntryKind::BlockWrite => {
                    if let Some(tag) = value_tag(entry.value) {
                        self.values.entry(tag).or_default().push(place);
                    }
                }
                EntryKind::Delete => self.deletes.push((entry.id.to_vec(), place, now)),
                _ => {}
            }
        }
        let known = Known { batch: batch.clone(), origin: node, durable_at_origin: false };
        self.batches.insert((space, chain), known);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_tells_which_command_made_it() {
        assert_eq!(value_tag(b"v12.3~xxx"), Some((12, 3)));
        assert_eq!(value_tag(b"hello"), None);
        assert_eq!(value_tag(b""), None);
    }

    #[test]
    fn a_header_cuts_and_a_failed_write_leaves_every_beginning_of_it_possible() {
        let tip = |n| Tip { chain: n, seq: n, epoch: 2 };
        let mut journal = JournalTruth::default();
        journal.path.extend([tip(1), tip(2), tip(3)]);
        let pending = |write, moves| Pending { write, segment: 1, moves, ended: None };
        journal.pending = vec![pending(1, vec![Move::Header(tip(2)), Move::Batch(tip(9))])];
        let ends: Vec<u64> =
            journal.admissible().iter().map(|path| path.last().map_or(0, |t| t.chain)).collect();
        assert_eq!(ends, [3, 2, 9]);
        journal.ended(1, false);
        assert_eq!(journal.admissible().len(), 3);
        assert_eq!(journal.tip(), tip(3));
        journal.pending = vec![pending(2, vec![Move::Header(tip(2)), Move::Batch(tip(9))])];
        journal.ended(2, true);
        assert_eq!(journal.path.len(), 4);
        assert_eq!(journal.admissible().len(), 1);
    }

    #[test]
    fn of_two_writes_the_later_one_counts_only_with_the_earlier_one() {
        let tip = |n| Tip { chain: n, seq: n, epoch: 2 };
        let pending =
            |write| Pending { write, segment: 1, moves: vec![Move::Batch(tip(write))], ended: None };
        let ends = |journal: &JournalTruth| -> Vec<u64> {
            journal.admissible().iter().map(|path| path.last().map_or(0, |t| t.chain)).collect()
        };
        for first_ends_well in [true, false] {
            let mut journal =
                JournalTruth { pending: vec![pending(1), pending(2)], ..JournalTruth::default() };
            assert_eq!(journal.ahead(), tip(2));
            journal.ended(2, true);
            assert_eq!((journal.tip().seq, ends(&journal)), (0, vec![0, 1, 2]));
            journal.ended(1, first_ends_well);
            let (durable, possible) = if first_ends_well { (2, vec![2]) } else { (0, vec![0, 1, 2]) };
            assert_eq!((journal.tip().seq, ends(&journal)), (durable, possible));
            assert!(journal.pending.is_empty());
        }
    }
}

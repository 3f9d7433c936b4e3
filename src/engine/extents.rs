//! Changes of volumes that were accepted and are not yet applied: by volume, which range holds what, newest wins.
//!
//! Data is not copied for this: an extent names the batch that holds it, and a batch lives until it is applied anyway.

use crate::base::{FileId, JournalKind, Seq};
use crate::format::batch::Batch;
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};

/// What a range holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// Bytes at this offset of the batch that begins with this entry.
    Data {
        /// Its first entry.
        batch: Seq,
        /// Where in its bytes.
        at: usize,
    },
    /// Zeros, which need take no space.
    Hole,
    /// Zeros, for which space is taken.
    Zeros,
}

/// A range that is not yet applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    /// Where it begins (bytes).
    pub(super) start: u64,
    /// Where it ends (bytes, not included).
    pub(super) end: u64,
    /// The journal of the change.
    pub(super) journal: JournalKind,
    /// The entry.
    pub(super) seq: Seq,
    /// What is there.
    pub(super) content: Content,
}

impl Extent {
    /// The part of it within a range that it overlaps.
    fn within(self, start: u64, end: u64) -> Self {
        let skipped = usize::try_from(start.saturating_sub(self.start)).unwrap_or(usize::MAX);
        let content = match self.content {
            Content::Data { batch, at } => Content::Data { batch, at: at.saturating_add(skipped) },
            other => other,
        };
        Self { start: self.start.max(start), end: self.end.min(end), content, ..self }
    }
}

/// One volume.
#[derive(Debug, Default)]
struct Volume {
    /// By start; they do not overlap.
    map: BTreeMap<u64, Extent>,
    /// The last change accepted for it, by journal.
    last: [Seq; 2],
}

impl Volume {
    /// The extents that overlap a range, cut to it, in order.
    fn overlapping(&self, start: u64, end: u64) -> impl Iterator<Item = Extent> + '_ {
        let before = self.map.range(..start).next_back().map(|(_, extent)| extent);
        let inside = self.map.range(start..end).map(|(_, extent)| extent);
        before
            .into_iter()
            .chain(inside)
            .filter(move |extent| extent.end > start && extent.start < end)
            .map(move |extent| extent.within(start, end))
    }

    /// Frees a range of what `gone` says; what lies outside the range stays.
    fn carve(&mut self, start: u64, end: u64, gone: impl Fn(&Extent) -> bool) {
        let keys: Vec<u64> = {
            let before = self.map.range(..start).next_back().filter(|(_, extent)| extent.end > start);
            let inside = self.map.range(start..end);
            before.into_iter().chain(inside).filter(|(_, extent)| gone(extent)).map(|(key, _)| *key).collect()
        };
        for key in keys {
            let Some(extent) = self.map.remove(&key) else { continue };
            if extent.start < start {
                self.map.insert(extent.start, extent.within(extent.start, start));
            }
            if extent.end > end {
                self.map.insert(end, extent.within(end, extent.end));
            }
        }
    }
}

/// All volumes.
#[derive(Debug, Default)]
pub(super) struct Extents {
    volumes: BTreeMap<FileId, Volume>,
    count: usize,
    /// Sealed batches with changes of volumes, by journal, oldest first, until they are applied.
    sealed: [VecDeque<Batch>; 2],
    /// The first entry of the epoch in which this node serves; what came before may be of any volume.
    epoch: Seq,
}

impl Extents {
    /// How many ranges are not yet applied.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// How many of them are one volume's.
    pub(super) fn of(&self, file: FileId) -> usize {
        self.volumes.get(&file).map_or(0, |volume| volume.map.len())
    }

    /// An epoch begins with this entry, in which this node serves.
    pub(super) fn epoch(&mut self, first: Seq) {
        self.epoch = first;
        // Numbers of an earlier epoch of this node may be beyond the end of the journal now.
        self.volumes.values_mut().for_each(|volume| volume.last[JournalKind::Replicated.index()] = Seq(0));
    }

    /// The entry up to which a volume's changes may have been answered: the last one accepted in this epoch, or its
    /// first, as those of an earlier life, or of the peer as primary, are not known by volume. What this node's own
    /// journal had when it started is on its disk.
    pub(super) fn last(&self, file: FileId, journal: JournalKind) -> Seq {
        let last = self.volumes.get(&file).map_or(Seq(0), |volume| volume.last[journal.index()]);
        if journal == JournalKind::Replicated { last.max(self.epoch) } else { last }
    }

    /// Notes a change.
    pub(super) fn set(&mut self, file: FileId, extent: Extent) {
        let volume = self.volumes.entry(file).or_default();
        let before = volume.map.len();
        volume.carve(extent.start, extent.end, |_| true);
        volume.map.insert(extent.start, extent);
        volume.last[extent.journal.index()] = extent.seq;
        self.count = self.count + volume.map.len() - before;
    }

    /// The changes within a range of a volume, in order.
    pub(super) fn within(&self, file: FileId, start: u64, end: u64) -> Vec<Extent> {
        self.volumes.get(&file).map_or_else(Vec::new, |volume| volume.overlapping(start, end).collect())
    }

    /// Keeps a batch until it is applied.
    pub(super) fn sealed(&mut self, journal: JournalKind, batch: &Batch) {
        if batch.changes_volumes() {
            self.sealed[journal.index()].push_back(batch.clone());
        }
    }

    /// The sealed batch that begins with `first`, if it holds changes of volumes.
    pub(super) fn batch(&self, journal: JournalKind, first: Seq) -> Option<&Bytes> {
        let sealed = &self.sealed[journal.index()];
        let at = sealed.partition_point(|batch| batch.header().first_seq < first);
        sealed.get(at).filter(|batch| batch.header().first_seq == first).map(Batch::disk)
    }

    /// The store shows everything of `journal` up to `seq`; `batch` was among it.
    pub(super) fn applied(&mut self, journal: JournalKind, seq: Seq, batch: &Batch) {
        if !batch.changes_volumes() {
            return;
        }
        for (_, entry) in batch.entries() {
            let (start, end) = match entry.block_change() {
                Some(change) => (change.offset, change.end()),
                None => (0, u64::MAX),
            };
            if let Some(volume) = self.volumes.get_mut(&entry.file) {
                let before = volume.map.len();
                volume.carve(start, end, |extent| extent.journal == journal && extent.seq <= seq);
                self.count = self.count + volume.map.len() - before;
            }
        }
        let sealed = &mut self.sealed[journal.index()];
        while sealed.front().is_some_and(|batch| batch.header().last_seq() <= seq) {
            sealed.pop_front();
        }
    }

    /// The volume is gone or empty, and so are the changes of it.
    pub(super) fn forget(&mut self, file: FileId) {
        if let Some(volume) = self.volumes.remove(&file) {
            self.count -= volume.map.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Chain, Epoch, Prng};
    use crate::format::PairId;
    use crate::format::batch::{BatchBuilder, Seal};
    use crate::format::entry::{BlockId, Entry, EntryKind};

    const FILE: FileId = FileId(9);
    const SIZE: u64 = 300;

    fn seal(journal: JournalKind) -> Seal {
        Seal {
            epoch: Epoch(2),
            prev_chain: Chain(0),
            durable: Seq(0),
            wall_ms: 0,
            pair: PairId([0; 16]),
            journal,
        }
    }

    /// A batch of one write, noted as the engine does.
    fn write(extents: &mut Extents, journal: JournalKind, seq: u64, offset: u64, bytes: &[u8]) -> Batch {
        let mut builder = BatchBuilder::new(Seq(seq), 0);
        let id = BlockId::write(offset);
        let (_, at) =
            builder.push(&Entry { kind: EntryKind::BlockWrite, file: FILE, id: id.as_ref(), value: bytes });
        let batch = builder.seal(&seal(journal));
        extents.sealed(journal, &batch);
        let content = Content::Data { batch: Seq(seq), at };
        let end = offset + bytes.len() as u64;
        extents.set(FILE, Extent { start: offset, end, journal, seq: Seq(seq), content });
        batch
    }

    /// What the extents make of the bytes that the store shows.
    fn overlay(extents: &Extents, shown: &[u8]) -> Vec<u8> {
        let mut all = shown.to_vec();
        for extent in extents.within(FILE, 0, SIZE) {
            let range = usize::try_from(extent.start).unwrap()..usize::try_from(extent.end).unwrap();
            match extent.content {
                Content::Data { batch, at } => {
                    let bytes = extents.batch(extent.journal, batch).unwrap();
                    let len = range.len();
                    all[range].copy_from_slice(&bytes[at..at + len]);
                }
                Content::Hole | Content::Zeros => all[range].fill(0),
            }
        }
        all
    }

    #[test]
    fn the_newest_change_of_every_byte_is_seen_however_they_overlap_and_are_applied() {
        for seed in 0..300 {
            let mut prng = Prng::new(seed);
            let mut extents = Extents::default();
            let (mut truth, mut shown) = (vec![0_u8; 300], vec![0_u8; 300]);
            let mut waiting: VecDeque<(u64, Option<Batch>, u64, Vec<u8>)> = VecDeque::new();
            for seq in 1..80 {
                let offset = prng.below(SIZE - 1);
                let len = 1 + prng.below((SIZE - offset).min(90));
                let mut bytes: Vec<u8> =
                    (0..len).map(|n| u8::try_from((seq * 7 + n) % 251).unwrap()).collect();
                let journal = JournalKind::Replicated;
                let at = usize::try_from(offset).unwrap();
                let batch = if prng.percent(25) {
                    bytes.fill(0);
                    let content = if prng.percent(50) { Content::Hole } else { Content::Zeros };
                    let mut builder = BatchBuilder::new(Seq(seq), 0);
                    let id = BlockId::range(offset, len);
                    builder.push(&Entry {
                        kind: EntryKind::BlockPunch,
                        file: FILE,
                        id: id.as_ref(),
                        value: &[],
                    });
                    extents.set(
                        FILE,
                        Extent { start: offset, end: offset + len, journal, seq: Seq(seq), content },
                    );
                    builder.seal(&seal(journal))
                } else {
                    write(&mut extents, journal, seq, offset, &bytes)
                };
                truth[at..at + bytes.len()].copy_from_slice(&bytes);
                waiting.push_back((seq, Some(batch), offset, bytes));
                assert_eq!(overlay(&extents, &shown), truth, "seed {seed} after entry {seq}");
                while prng.percent(40)
                    && let Some((seq, batch, offset, bytes)) = waiting.pop_front()
                {
                    let at = usize::try_from(offset).unwrap();
                    shown[at..at + bytes.len()].copy_from_slice(&bytes);
                    extents.applied(journal, Seq(seq), &batch.unwrap());
                    assert_eq!(overlay(&extents, &shown), truth, "seed {seed} applied {seq}");
                }
            }
            for (seq, batch, _, _) in waiting {
                extents.applied(JournalKind::Replicated, Seq(seq), &batch.unwrap());
            }
            assert_eq!((extents.count(), extents.sealed[0].len()), (0, 0));
        }
    }

    #[test]
    fn what_the_other_journal_changed_stays_until_that_journal_is_applied() {
        let mut extents = Extents::default();
        let first = write(&mut extents, JournalKind::Local, 90, 0, &[1; 40]);
        let second = write(&mut extents, JournalKind::Replicated, 5, 10, &[2; 10]);
        extents.applied(JournalKind::Local, Seq(90), &first);
        let left = extents.within(FILE, 0, SIZE);
        assert_eq!(left.iter().map(|e| (e.start, e.end)).collect::<Vec<_>>(), [(10, 20)]);
        assert_eq!(extents.last(FILE, JournalKind::Local), Seq(90));
        extents.applied(JournalKind::Replicated, Seq(5), &second);
        assert_eq!(extents.count(), 0);
        write(&mut extents, JournalKind::Local, 91, 0, &[1; 40]);
        extents.forget(FILE);
        assert_eq!((extents.count(), extents.of(FILE)), (0, 0));
    }

    #[test]
    fn a_flush_waits_for_all_that_came_before_the_epoch() {
        let mut extents = Extents::default();
        write(&mut extents, JournalKind::Replicated, 90, 0, &[1; 40]);
        write(&mut extents, JournalKind::Local, 7, 0, &[1; 40]);
        // The node was cut off: entries from 51 on were never the pair's.
        extents.epoch(Seq(60));
        assert_eq!(extents.last(FILE, JournalKind::Replicated), Seq(60));
        assert_eq!(extents.last(FileId(1 << 40), JournalKind::Replicated), Seq(60));
        assert_eq!(extents.last(FILE, JournalKind::Local), Seq(7));
        write(&mut extents, JournalKind::Replicated, 61, 0, &[1; 40]);
        assert_eq!(extents.last(FILE, JournalKind::Replicated), Seq(61));
    }
}

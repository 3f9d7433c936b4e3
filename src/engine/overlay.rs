//! Items as the updates accepted so far leave them, as long as the store has not applied those updates.
//!
//! The store applies many updates at once. What it shows then is taken out of here little by little: until it is, both
//! say the same, and nobody waits for all of it.
//!
//! An update of very many items is a layer of its own, which comes and goes as a whole. What a layer says of an item is
//! newer than what the base says: what is put into the base later is taken out of the layers.

use super::changes::ItemHasher;
use crate::base::{FileId, JournalKind, Seq};
use crate::doors::Draft;
use crate::format::batch::Batch;
use bytes::Bytes;
use foldhash::fast::FixedState;
use smallvec::SmallVec;
use std::collections::{HashMap, VecDeque};

/// Entries taken out at a time, at least.
const TIDY_STEP: usize = 2048;
/// Of the batches that wait to be taken out, the share that is, at least.
const TIDY_SHARE: usize = 16;
/// What is counted as looked through for one run of a layer.
const RUN_LOOKED: usize = 10;

/// Keys are short and chosen by clients: a fast hash whose seed they do not know.
type Map<K, V> = HashMap<K, V, FixedState>;
/// Most of them in place.
type Id = SmallVec<[u8; 24]>;

/// An update that the store does not show yet.
#[derive(Clone, Debug)]
pub(super) struct Unapplied {
    pub(super) journal: JournalKind,
    pub(super) seq: Seq,
    /// None: deleted.
    pub(super) value: Option<Bytes>,
}

/// What is known of an item that the store does not show yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending<'o> {
    pub(super) journal: JournalKind,
    pub(super) seq: Seq,
    /// None: deleted.
    pub(super) value: Option<&'o Bytes>,
}

/// An update of very many items.
#[derive(Debug)]
struct Layer {
    journal: JournalKind,
    seq: Seq,
    draft: Draft,
}

/// The first unapplied items of a file behind some id.
#[derive(Debug, Default)]
pub(super) struct Part<'o> {
    /// In order.
    pub(super) items: Vec<(&'o [u8], Pending<'o>)>,
    /// There may be more behind this id, which is known up to here only.
    pub(super) until: Option<&'o [u8]>,
    /// How many were looked through.
    pub(super) looked: usize,
}

/// By file, then by item.
#[derive(Debug)]
pub(super) struct Overlay {
    hash: FixedState,
    items: ItemHasher,
    files: Map<FileId, Map<Id, Unapplied>>,
    /// The newest last.
    layers: Vec<Layer>,
    /// Layers that the store shows: their items are freed little by little.
    leaving: Vec<Draft>,
    /// What the store shows and is still here.
    shown: VecDeque<(JournalKind, Batch)>,
}

impl Overlay {
    /// Nothing; `seed` differs from process to process.
    pub(super) fn new(seed: u64) -> Self {
        let hash = FixedState::with_seed(seed);
        let (items, layers) = (ItemHasher::new(seed), Vec::new());
        let files = HashMap::with_hasher(hash.clone());
        Self { files, items, layers, hash, leaving: Vec::new(), shown: VecDeque::new() }
    }

    pub(super) fn set(&mut self, file: FileId, id: &[u8], update: Unapplied) {
        let hash = &self.hash;
        let items = self.files.entry(file).or_insert_with(|| HashMap::with_hasher(hash.clone()));
        match items.get_mut(id) {
            Some(old) => *old = update,
            None => drop(items.insert(Id::from_slice(id), update)),
        }
        if !self.layers.is_empty() {
            let item = self.items.item(file, id);
            self.layers.iter_mut().for_each(|layer| layer.draft.supersede(item, file, id));
        }
    }

    /// An update of very many items, which is the batch that ends at `seq`.
    pub(super) fn set_all(&mut self, journal: JournalKind, seq: Seq, draft: Draft) {
        self.layers.push(Layer { journal, seq, draft });
    }

    pub(super) fn get(&self, file: FileId, id: &[u8]) -> Option<Pending<'_>> {
        if !self.layers.is_empty() {
            let item = self.items.item(file, id);
            for Layer { journal, seq, draft } in self.layers.iter().rev() {
                if let Some(found) = draft.find(item, file, id) {
                    return Some(Pending { journal: *journal, seq: *seq, value: found.value.as_ref() });
                }
            }
        }
        self.files.get(&file)?.get(id).map(Unapplied::pending)
    }

    /// No more items of a file than this have an update here.
    pub(super) fn items_at_most(&self, file: FileId) -> u64 {
        let layers: usize = self.layers.iter().map(|layer| layer.draft.len()).sum();
        let items = self.files.get(&file).map_or(0, HashMap::len);
        (layers + items) as u64
    }

    /// The store shows these.
    pub(super) fn applied(&mut self, journal: JournalKind, batches: Vec<Batch>) {
        if !self.files.is_empty() || !self.layers.is_empty() {
            self.shown.extend(batches.into_iter().map(|batch| (journal, batch)));
        }
    }

    /// Whether nothing is here that the store shows.
    pub(super) fn is_tidy(&self) -> bool {
        self.shown.is_empty() && self.leaving.is_empty()
    }

    /// Takes out some of what the store shows, or all of it; it shows each journal up to `shown`.
    pub(super) fn tidy(&mut self, shown: [Seq; 2], all: bool) {
        let (mut entries, mut batches) = (0, self.shown.len().div_ceil(TIDY_SHARE));
        if let Some(draft) = self.leaving.last_mut()
            && !draft.shed(TIDY_STEP)
        {
            self.leaving.pop();
        }
        while let Some((journal, batch)) = self.shown.front().cloned()
            && (all || batches > 0 || entries < TIDY_STEP)
        {
            self.shown.pop_front();
            batches = batches.saturating_sub(1);
            let last = batch.header().last_seq();
            if let Some(at) =
                self.layers.iter().position(|layer| layer.journal == journal && layer.seq == last)
            {
                self.leaving.push(self.layers.remove(at).draft);
                entries += TIDY_STEP;
                continue;
            }
            for (_, entry) in batch.entries() {
                entries += 1;
                if !entry.id.is_empty() {
                    self.remove(journal, shown[journal.index()], entry.file, entry.id);
                }
            }
        }
    }

    /// The store shows everything of `journal` up to `seq`; `file` and `id` were among it.
    fn remove(&mut self, journal: JournalKind, seq: Seq, file: FileId, id: &[u8]) {
        let Some(items) = self.files.get_mut(&file) else { return };
        if items.get(id).is_some_and(|item| item.journal == journal && item.seq <= seq) {
            items.remove(id);
            if items.is_empty() && items.capacity() > 4096 {
                self.files.remove(&file);
            }
        }
    }

    /// The file's items are gone, and so are the updates of them.
    pub(super) fn forget(&mut self, file: FileId) {
        self.files.remove(&file);
        self.layers.iter_mut().for_each(|layer| layer.draft.supersede_file(file));
    }

    /// The first unapplied items of a file after `after`, in order; more than `limit` only if there are several layers.
    pub(super) fn part(&self, file: FileId, after: Option<&[u8]>, limit: usize) -> Part<'_> {
        let mut part = Part::default();
        for Layer { journal, seq, draft } in self.layers.iter().rev() {
            if !draft.files().contains(&file) {
                continue;
            }
            let mut first = First::new(limit);
            for run in draft.runs(file, after) {
                // Some steps to find where it begins.
                part.looked += RUN_LOOKED;
                for drafted in run {
                    part.looked += 1;
                    let value = drafted.value.as_ref();
                    let pending = Pending { journal: *journal, seq: *seq, value };
                    if first.is_beyond(&drafted.id) {
                        break;
                    }
                    if drafted.is_newest() {
                        first.push(&drafted.id, pending);
                    }
                }
            }
            part.take(first);
        }
        if let Some(items) = self.files.get(&file) {
            part.looked += items.len();
            let mut first = First::new(limit);
            for (id, item) in items {
                if after.is_none_or(|after| id.as_slice() > after) && !first.is_beyond(id) {
                    first.push(id, item.pending());
                }
            }
            part.take(first);
        }
        if let Some(until) = part.until {
            part.items.retain(|(id, _)| *id <= until);
        }
        // The sort is stable: of one item the newest comes first.
        part.items.sort_by_key(|(id, _)| *id);
        part.items.dedup_by_key(|(id, _)| *id);
        part
    }
}

impl Unapplied {
    fn pending(&self) -> Pending<'_> {
        Pending { journal: self.journal, seq: self.seq, value: self.value.as_ref() }
    }
}

impl<'o> Part<'o> {
    /// Adds the first items of one source.
    fn take(&mut self, first: First<'o>) {
        let First { mut found, until, .. } = first.cut();
        self.until = [self.until, until].into_iter().flatten().min();
        self.items.append(&mut found);
    }
}

/// The first items of one source, whose ids are all different. Never more than twice as many are held.
struct First<'o> {
    limit: usize,
    found: Vec<(&'o [u8], Pending<'o>)>,
    /// None behind it is one of the first.
    until: Option<&'o [u8]>,
}

impl<'o> First<'o> {
    fn new(limit: usize) -> Self {
        Self { limit, found: Vec::new(), until: None }
    }

    fn is_beyond(&self, id: &[u8]) -> bool {
        self.until.is_some_and(|until| id > until)
    }

    fn push(&mut self, id: &'o [u8], pending: Pending<'o>) {
        self.found.push((id, pending));
        if self.found.len() / 2 >= self.limit {
            *self = std::mem::replace(self, Self::new(0)).cut();
        }
    }

    fn cut(mut self) -> Self {
        if self.found.len() > self.limit {
            let (_, last, _) = self.found.select_nth_unstable_by_key(self.limit - 1, |(id, _)| *id);
            self.until = Some(last.0);
            self.found.truncate(self.limit);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Chain, Epoch, Prng};
    use crate::doors::Update;
    use crate::format::PairId;
    use crate::format::batch::{BatchBuilder, Seal};
    use crate::format::entry::{Entry, EntryKind};

    const FILE: FileId = FileId(4);

    /// A batch of updates of items by their number, which the overlay has from then on.
    fn update(overlay: &mut Overlay, journal: JournalKind, first: Seq, ids: &[u64]) -> Batch {
        let mut builder = BatchBuilder::new(first, 4096);
        for id in ids {
            let id = id.to_le_bytes();
            let (seq, _) = builder.push(&Entry { kind: EntryKind::Put, file: FILE, id: &id, value: b"v" });
            let value = Some(Bytes::copy_from_slice(&seq.0.to_le_bytes()));
            overlay.set(FILE, &id, Unapplied { journal, seq, value });
        }
        let (epoch, prev_chain, durable, pair) = (Epoch(2), Chain(0), Seq(0), PairId([4; 16]));
        builder.seal(&Seal { epoch, prev_chain, durable, wall_ms: 0, pair, journal })
    }

    #[test]
    fn what_an_update_of_very_many_items_held_is_freed_in_steps_once_the_store_shows_it() {
        let (mut overlay, mut draft) = (Overlay::new(1), Draft::default());
        let count = 2 * TIDY_STEP + 1;
        for n in 0..count {
            let id = n.to_le_bytes();
            draft.put(overlay.items.item(FILE, &id), &Update::Put { file: FILE, id: &id, value: b"v" });
        }
        let batch = update(&mut Overlay::new(2), JournalKind::Replicated, Seq(1), &[1]);
        overlay.set_all(JournalKind::Replicated, Seq(1), draft);
        overlay.applied(JournalKind::Replicated, vec![batch]);
        let mut left = Vec::new();
        while !overlay.is_tidy() {
            overlay.tidy([Seq(1); 2], false);
            assert!(overlay.get(FILE, &0_usize.to_le_bytes()).is_none(), "the store shows it");
            left.push(overlay.leaving.iter().map(Draft::len).sum::<usize>());
        }
        assert_eq!(left, [count, count - TIDY_STEP, 1, 0]);
    }

    #[test]
    fn however_much_is_shown_at_once_the_newest_stays_seen_until_it_is_shown_too() {
        for seed in 0..200 {
            let mut prng = Prng::new(seed);
            let mut overlay = Overlay::new(seed);
            let (mut next, mut shown) = (Seq(1), [Seq(0); 2]);
            // The newest update of each item; and what was accepted and is not shown.
            let (mut newest, mut waiting) = (HashMap::new(), VecDeque::new());
            for _ in 0..100 {
                if prng.percent(60) {
                    let ids: Vec<u64> = (0..=prng.below(100)).map(|_| prng.below(300)).collect();
                    waiting.push_back(update(&mut overlay, JournalKind::Replicated, next, &ids));
                    for id in ids {
                        newest.insert(id, next);
                        next = next.next();
                    }
                } else {
                    let count = usize::try_from(prng.below(waiting.len() as u64 + 1)).unwrap();
                    let done: Vec<Batch> = waiting.drain(..count).collect();
                    shown[0] = done.last().map_or(shown[0], |batch| batch.header().last_seq());
                    overlay.applied(JournalKind::Replicated, done);
                }
                if prng.percent(50) {
                    overlay.tidy(shown, false);
                }
                for (id, seq) in &newest {
                    let found = overlay.get(FILE, &id.to_le_bytes()).map(|item| item.seq);
                    assert!(found == Some(*seq) || (found.is_none() && *seq <= shown[0]), "seed {seed}");
                }
            }
            overlay.tidy(shown, true);
            assert!(overlay.is_tidy(), "seed {seed}");
            let left = newest.values().filter(|seq| **seq > shown[0]).count();
            assert_eq!(overlay.part(FILE, None, usize::MAX).items.len(), left, "seed {seed}");
        }
    }

    /// An update of these items by their number, all at once.
    fn update_all(overlay: &mut Overlay, seq: Seq, ids: &[u64]) {
        let mut draft = Draft::default();
        for id in ids {
            let id = id.to_be_bytes();
            let item = overlay.items.item(FILE, &id);
            let value = Some(Bytes::copy_from_slice(&seq.0.to_le_bytes()));
            draft.set(item, FILE, &id, value);
        }
        drop(draft.take_body());
        overlay.set_all(JournalKind::Replicated, seq, draft);
    }

    #[test]
    fn a_part_has_the_first_items_of_all_updates_each_by_its_newest_one() {
        for seed in 0..20 {
            let mut prng = Prng::new(seed);
            let (mut overlay, mut newest) = (Overlay::new(seed), std::collections::BTreeMap::new());
            for seq in 1..60 {
                let many = prng.percent(20);
                let count = if many { 2000 } else { 1 + prng.below(50) };
                let mut ids: Vec<u64> = (0..count).map(|_| prng.below(5000)).collect();
                ids.sort_unstable();
                ids.dedup();
                match many {
                    true => update_all(&mut overlay, Seq(seq), &ids),
                    false => ids.iter().for_each(|id| {
                        let update =
                            Unapplied { journal: JournalKind::Replicated, seq: Seq(seq), value: None };
                        overlay.set(FILE, &id.to_be_bytes(), update);
                    }),
                }
                newest.extend(ids.into_iter().map(|id| (id, Seq(seq))));
            }
            let (mut after, mut found) = (None, Vec::new());
            loop {
                let limit = 1 + usize::try_from(prng.below(300)).unwrap();
                let part = overlay.part(FILE, after.as_ref().map(<[u8; 8]>::as_slice), limit);
                let number = |id: &[u8]| u64::from_be_bytes(id.try_into().unwrap());
                found.extend(part.items.iter().map(|(id, item)| (number(id), item.seq)));
                let Some(until) = part.until else { break };
                after = Some(number(until).to_be_bytes());
            }
            assert!(found == newest.into_iter().collect::<Vec<_>>(), "seed {seed}");
        }
    }

    #[test]
    fn a_part_beside_updates_of_very_many_items_looks_at_few_of_them() {
        let mut overlay = Overlay::new(1);
        for layer in 0..5 {
            let ids: Vec<u64> = (0..20_000_u64).map(|n| n.wrapping_mul(0x9E37_79B9_7F4A_7C15)).collect();
            update_all(&mut overlay, Seq(1 + layer), &ids);
        }
        for after in [None, Some(1_u64 << 63)] {
            let after = after.map(u64::to_be_bytes);
            let part = overlay.part(FILE, after.as_ref().map(<[u8; 8]>::as_slice), 256);
            assert_eq!(part.items.len(), 256);
            assert!(part.looked < 20_000, "{} of 100,000", part.looked);
        }
    }

    #[test]
    fn what_is_shown_is_taken_out_little_by_little_and_none_of_it_stays() {
        let mut overlay = Overlay::new(1);
        let mut batches = Vec::new();
        for n in 0..1000 {
            let ids: Vec<u64> = (n * 100..(n + 1) * 100).collect();
            batches.push(update(&mut overlay, JournalKind::Local, Seq(1 + n * 100), &ids));
        }
        overlay.applied(JournalKind::Local, batches);
        let (mut steps, mut left) = (0, overlay.part(FILE, None, usize::MAX).items.len());
        while !overlay.is_tidy() {
            overlay.tidy([Seq(0), Seq(100_000)], false);
            let now = overlay.part(FILE, None, usize::MAX).items.len();
            assert!(left - now <= left / TIDY_SHARE + TIDY_STEP, "{} at once", left - now);
            (left, steps) = (now, steps + 1);
        }
        assert!(left == 0 && steps < 50, "{left} are left after {steps} steps");
    }
}

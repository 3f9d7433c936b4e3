//! How far each journal is on its way into the store.

use crate::base::limits::UNAPPLIED_MAX;
use crate::base::{Fault, JournalKind, Mono, Round, Seq};
use crate::format::batch::Batch;
use crate::journal::JournalReader;
use std::collections::VecDeque;

/// One journal's way into the store.
///
/// Its positions, by an example. A standby starts with 90 entries in its journal. Its store shows the items of 40 of them,
/// and its volumes may lack what came after 25. The primary has told that 70 are on its disk.
///
/// | position | at the start | entries 26 to 60 are with the store | the store shows them |
/// |---|---|---|---|
/// | `visible` | 25 | 25 | 60 |
/// | `submitted` | 25 | 60 | 60 |
/// | `applied` | 40 | 40 | 60 |
/// | `learned` | 40 | 60 | 60 |
/// | `disk_until` | 90 | 90 | 90 |
/// | `announced` | 70 | 70 | 70 |
/// | `disk_needs` | 0 | 75 | 75 |
///
/// The batches of 26 to 60 are read back, as they are not beyond `disk_until`; until the store shows them they are in
/// `under_way`. The next batch holds the entries 61 to 75: it may not be applied yet, so it is read again only when 75
/// may be. What the primary sends meanwhile, from 91 on, waits in `queue`. If the store fails, `submitted` goes back to
/// `visible`, and all from there on is submitted again in the next round.
#[derive(Debug)]
pub(in crate::engine) struct Applier {
    /// The store shows the items of all entries up to here.
    applied: Seq,
    /// The store was given all entries up to here in this life, and shows them, volumes included. It is behind `applied`
    /// only after a start that found volumes behind the items.
    visible: Seq,
    /// The last entry given to the store.
    submitted: Seq,
    /// Up to here batches come from the journal on disk; beyond, from `queue`.
    disk_until: Seq,
    reader: JournalReader,
    /// The next batch on disk ends here: it is not read again before that may be applied.
    disk_needs: Seq,
    /// The namespace knows the definitions up to here.
    learned: Seq,
    /// Durable (or received) batches beyond `disk_until`, in order, and whether the namespace knows them.
    queue: VecDeque<(Batch, bool)>,
    /// Given to the store, not yet seen applied.
    under_way: VecDeque<Batch>,
    /// Of what is given now. A failure begins the next one.
    round: Round,
    /// Of `queue` and `under_way`.
    bytes: usize,
    /// On a standby: the last entry that the primary told to be on its own disk.
    announced: Seq,
    /// Why the store took nothing, and when it is tried again.
    fault: Option<(Fault, Mono)>,
}

impl Applier {
    /// A store that shows everything up to `applied`, but has to be given everything after `replay_from` again.
    pub(in crate::engine) fn new(applied: Seq, replay_from: Seq, end: Seq, announced: Seq) -> Self {
        let visible = replay_from.min(applied);
        Self {
            applied,
            visible,
            submitted: visible,
            disk_until: end,
            reader: JournalReader::after(visible),
            disk_needs: Seq(0),
            learned: applied,
            queue: VecDeque::new(),
            under_way: VecDeque::new(),
            round: Round(0),
            bytes: 0,
            announced,
            fault: None,
        }
    }

    pub(in crate::engine) fn applied(&self) -> Seq {
        self.applied
    }

    pub(in crate::engine) fn visible(&self) -> Seq {
        self.visible
    }

    /// Of what is given now.
    pub(in crate::engine) fn round(&self) -> Round {
        self.round
    }

    /// Whether the store shows all that it was given.
    pub(in crate::engine) fn is_idle(&self) -> bool {
        self.under_way.is_empty()
    }

    /// Leaves its history for one that begins at `origin`. What the store still tells of the one before is not heard.
    pub(in crate::engine) fn restart_at(&mut self, origin: Seq) {
        let round = self.round.next();
        *self = Self { round, ..Self::new(origin, origin, origin, origin) };
    }

    /// The store took something else in this round; false if that is of an earlier one.
    pub(in crate::engine) fn goes_on(&mut self, round: Round) -> bool {
        let now = round == self.round;
        if now {
            self.fault = None;
        }
        now
    }

    pub(in crate::engine) fn submitted(&self) -> Seq {
        self.submitted
    }

    pub(in crate::engine) fn announced(&self) -> Seq {
        self.announced
    }

    /// What was accepted and is not yet applied (bytes).
    pub(in crate::engine) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn fault(&self) -> Option<(Fault, Mono)> {
        self.fault
    }

    pub(in crate::engine) fn reader(&mut self) -> &mut JournalReader {
        &mut self.reader
    }

    /// The primary told that its disk has all up to here; gives the highest that it told.
    pub(in crate::engine) fn announce(&mut self, durable: Seq) -> Seq {
        self.announced = self.announced.max(durable);
        self.announced
    }

    pub(in crate::engine) fn set_announced(&mut self, announced: Seq) {
        self.announced = announced;
    }

    /// A batch that is sealed or received, behind all others.
    pub(super) fn enqueue(&mut self, batch: Batch, known: bool) {
        self.bytes += batch.header().len as usize;
        self.queue.push_back((batch, known));
    }

    /// Drops what is beyond `end`: it is no longer part of the history.
    pub(in crate::engine) fn cut(&mut self, end: Seq) {
        while let Some((batch, _)) = self.queue.back()
            && batch.header().last_seq() > end
        {
            self.bytes -= batch.header().len as usize;
            self.queue.pop_back();
        }
        self.disk_until = self.disk_until.min(end);
        self.disk_needs = Seq(0);
        self.announced = self.announced.min(end);
    }

    /// Whether the next batch comes from the journal on disk.
    pub(super) fn reads_back(&self) -> bool {
        self.submitted < self.disk_until
    }

    /// Looks for the next batch on disk, unless there is no room for it, or it is known to be beyond `limit`.
    pub(super) fn seek(&mut self, limit: Seq) -> bool {
        if self.bytes > UNAPPLIED_MAX || self.disk_needs > limit {
            return false;
        }
        self.reader.seek(self.submitted);
        true
    }

    /// The next batch on disk may not be applied yet; it is found again, from its segment's start, when it may.
    pub(super) fn is_beyond(&mut self, batch: &Batch) {
        self.disk_needs = batch.header().last_seq();
    }

    /// The next batch of those in memory.
    pub(super) fn next(&self) -> Option<&Batch> {
        self.queue.front().map(|(batch, _)| batch)
    }

    /// Takes the next batch of those in memory, and whether the namespace knows it.
    pub(super) fn take_next(&mut self) -> Option<(Batch, bool)> {
        self.queue.pop_front()
    }

    /// The batch that was read back is in memory.
    pub(super) fn hold(&mut self, batch: &Batch) {
        self.bytes += batch.header().len as usize;
    }

    /// Whether the namespace may not know what a batch defines.
    pub(super) fn is_news(&self, batch: &Batch) -> bool {
        batch.header().first_seq > self.learned
    }

    /// A batch is given to the store, in the round that comes back.
    pub(super) fn submit(&mut self, batch: &Batch) -> Round {
        let last = batch.header().last_seq();
        self.learned = self.learned.max(last);
        self.submitted = last;
        self.under_way.push_back(batch.clone());
        self.round
    }

    /// The store shows all up to `seq`; gives the batches that it was given and now shows. None if that was told already,
    /// or is of an earlier round.
    ///
    /// # Panics
    /// If the store shows what it was not given.
    pub(super) fn shows(&mut self, round: Round, seq: Seq) -> Option<Vec<Batch>> {
        if round != self.round || seq <= self.visible {
            return None;
        }
        assert!(seq <= self.submitted, "the store shows nothing that it was not given");
        self.visible = seq;
        self.applied = self.applied.max(seq);
        self.fault = None;
        let mut done = Vec::new();
        while self.under_way.front().is_some_and(|batch| batch.header().last_seq() <= seq) {
            let Some(batch) = self.under_way.pop_front() else { break };
            self.bytes -= batch.header().len as usize;
            done.push(batch);
        }
        Some(done)
    }

    /// The store could not apply a batch: all that it does not show is given again from `retry` on, in order; what it has is
    /// no change to it (I-11). False if that is of an earlier round: what was given behind a batch that failed cannot follow
    /// it either, and the first fault is the reason.
    pub(super) fn failed(&mut self, round: Round, fault: Fault, retry: Mono) -> bool {
        if round != self.round {
            return false;
        }
        self.round = self.round.next();
        self.fault = Some((fault, retry));
        while let Some(batch) = self.under_way.pop_back() {
            if batch.header().first_seq > self.disk_until {
                self.queue.push_front((batch, true));
            } else {
                self.bytes -= batch.header().len as usize;
            }
        }
        self.disk_needs = Seq(0);
        self.submitted = self.visible;
        self.reader = JournalReader::after(self.submitted);
        true
    }

    /// The store shows an entry that this life has not given it.
    #[cfg(test)]
    pub(super) fn show_one_more(&mut self) {
        self.applied = self.applied.next();
    }

    /// Nothing is given to the store before `retry`.
    pub(super) fn wait(&mut self, fault: Fault, retry: Mono) {
        self.fault = Some((fault, retry));
    }

    /// Room was made: a store that was short of it is tried again at `soon`.
    pub(super) fn retry_at(&mut self, soon: Mono) {
        if let Some((Fault::NoSpace, retry)) = &mut self.fault {
            *retry = soon;
        }
    }
}

/// Both journals' ways into the store.
#[derive(Debug)]
pub(in crate::engine) struct Appliers {
    each: [Applier; 2],
    /// What the store showed when this process began.
    at_start: [Seq; 2],
}

impl Appliers {
    pub(in crate::engine) fn new(each: [Applier; 2]) -> Self {
        let at_start = each.each_ref().map(Applier::visible);
        Self { each, at_start }
    }

    pub(in crate::engine) fn of(&self, journal: JournalKind) -> &Applier {
        match journal {
            JournalKind::Replicated => &self.each[0],
            JournalKind::Local => &self.each[1],
        }
    }

    pub(in crate::engine) fn of_mut(&mut self, journal: JournalKind) -> &mut Applier {
        match journal {
            JournalKind::Replicated => &mut self.each[0],
            JournalKind::Local => &mut self.each[1],
        }
    }

    /// Of the replicated journal.
    pub(in crate::engine) fn replicated(&self) -> &Applier {
        &self.each[0]
    }

    pub(in crate::engine) fn replicated_mut(&mut self) -> &mut Applier {
        &mut self.each[0]
    }

    pub(in crate::engine) fn applied(&self) -> [Seq; 2] {
        self.each.each_ref().map(Applier::applied)
    }

    pub(super) fn visible(&self) -> [Seq; 2] {
        self.each.each_ref().map(Applier::visible)
    }

    /// What a journal's entries were visible of when this process began.
    pub(super) fn visible_at_start(&self, journal: JournalKind) -> Seq {
        match journal {
            JournalKind::Replicated => self.at_start[0],
            JournalKind::Local => self.at_start[1],
        }
    }

    /// Updates accepted and not yet applied (bytes).
    pub(super) fn bytes(&self) -> usize {
        self.each.iter().map(Applier::bytes).sum()
    }

    /// The store's fault, if it has one.
    pub(super) fn fault(&self) -> Option<Fault> {
        self.each.iter().find_map(|applier| applier.fault.map(|(fault, _)| fault))
    }

    /// When the store is tried again. A retry that is under way ends the fault or sets the next one.
    pub(super) fn retry_deadline(&self, now: Mono) -> Option<Mono> {
        let retries = self.each.iter().filter_map(|applier| applier.fault.map(|(_, retry)| retry));
        retries.filter(|retry| *retry > now).min()
    }

    pub(super) fn retry_at(&mut self, soon: Mono) {
        self.each.iter_mut().for_each(|applier| applier.retry_at(soon));
    }

    #[cfg(test)]
    pub(in crate::engine) fn replace(&mut self, replicated: Applier) {
        self.each[0] = replicated;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Epoch, FileId};
    use crate::format::PairId;
    use crate::format::batch::{BatchBuilder, Seal};
    use crate::format::entry::{Entry, EntryKind};

    /// The entries `first` to `last`, in one batch.
    fn batch(first: u64, last: u64) -> Batch {
        let mut builder = BatchBuilder::new(Seq(first), 0);
        for _ in first..=last {
            builder.push(&Entry { kind: EntryKind::Put, file: FileId(9), id: b"x", value: b"v" });
        }
        builder.seal(&Seal {
            epoch: Epoch(2),
            prev_chain: crate::base::Chain(0),
            durable: Seq(0),
            wall_ms: 0,
            pair: PairId([1; 16]),
            journal: JournalKind::Replicated,
        })
    }

    fn positions(applier: &Applier) -> [u64; 7] {
        let Applier { visible, submitted, applied, learned, disk_until, announced, disk_needs, .. } = applier;
        [visible, submitted, applied, learned, disk_until, announced, disk_needs].map(|seq| seq.0)
    }

    /// The example of [`Applier`], up to its second column.
    fn example() -> Applier {
        let mut applier = Applier::new(Seq(40), Seq(25), Seq(90), Seq(70));
        assert_eq!(positions(&applier), [25, 25, 40, 40, 90, 70, 0]);
        for (first, last) in [(26, 40), (41, 60)] {
            assert!(applier.reads_back() && applier.seek(applier.announced()));
            let batch = batch(first, last);
            assert_eq!(applier.is_news(&batch), first > 40, "what items show is known to the namespace");
            applier.hold(&batch);
            assert_eq!(applier.submit(&batch), Round(0));
        }
        applier.is_beyond(&batch(61, 75));
        assert!(!applier.seek(Seq(74)) && applier.seek(Seq(75)));
        applier
    }

    #[test]
    fn the_positions_of_the_example_are_what_its_table_says() {
        let mut applier = example();
        assert_eq!(positions(&applier), [25, 60, 40, 60, 90, 70, 75]);
        assert_eq!(applier.shows(Round(0), Seq(60)).map(|done| done.len()), Some(2));
        assert_eq!(positions(&applier), [60, 60, 60, 60, 90, 70, 75]);
        assert_eq!(applier.bytes(), 0);
        assert!(applier.shows(Round(0), Seq(60)).is_none(), "that is known");
    }

    #[test]
    fn what_failed_is_given_again_from_what_is_visible_on_in_the_next_round() {
        let mut applier = example();
        assert!(!applier.failed(Round(7), Fault::NoSpace, Mono(9)), "another round");
        assert!(applier.failed(Round(0), Fault::NoSpace, Mono(9)));
        assert_eq!(positions(&applier), [25, 25, 40, 60, 90, 70, 0]);
        assert_eq!((applier.fault(), applier.bytes()), (Some((Fault::NoSpace, Mono(9))), 0));
        assert!(applier.shows(Round(0), Seq(40)).is_none(), "what an earlier round did is not known");
        applier.hold(&batch(26, 40));
        assert_eq!(applier.submit(&batch(26, 40)), Round(1));
        assert_eq!(applier.shows(Round(1), Seq(40)).map(|done| done.len()), Some(1));
        assert_eq!(applier.fault(), None);
    }

    #[test]
    fn what_is_in_memory_only_waits_in_order_when_the_store_failed_and_goes_with_a_cut() {
        let mut applier = Applier::new(Seq(5), Seq(5), Seq(5), Seq(5));
        for n in 6..=9 {
            applier.enqueue(batch(n, n), false);
        }
        for _ in 0..2 {
            let (next, known) = applier.take_next().expect("four wait");
            assert!(!known);
            applier.submit(&next);
        }
        let bytes = applier.bytes();
        assert!(applier.failed(Round(0), Fault::Errno(5), Mono(0)));
        assert_eq!(applier.bytes(), bytes, "nothing is read back for it");
        let order: Vec<u64> = applier.queue.iter().map(|(batch, _)| batch.header().first_seq.0).collect();
        assert_eq!(order, [6, 7, 8, 9]);
        assert!(applier.queue.iter().take(2).all(|(_, known)| *known), "the namespace has learned them");
        applier.cut(Seq(7));
        assert_eq!(applier.queue.len(), 2);
        assert_eq!(applier.bytes(), bytes / 2);
    }

    #[test]
    fn no_more_is_read_back_than_there_is_room_for() {
        let mut applier = example();
        applier.bytes = UNAPPLIED_MAX + 1;
        assert!(!applier.seek(Seq(90)));
    }
}

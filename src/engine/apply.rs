//! From durable batches to the store: in order, bounded, also after a restart and after a fault.

use super::core::Core;
use super::effect::{Severity, StoreEffect, VolumeEffect};
use super::event::StoreEvent;
use super::read_back::ReadFor;
use crate::base::limits::UNAPPLIED_MAX;
use crate::base::{Fault, JournalKind, Mono, Round, Seq};
use crate::format::batch::Batch;
use crate::format::dptr::DptrKind;
use crate::journal::{JournalReader, ReadStep};
use crate::store::StoreRead;
use crate::store::namespace::FileInfo;
use std::collections::VecDeque;

/// A store that failed is tried again after this (milliseconds).
const RETRY_MS: u64 = 250;
/// The same where room was made for it (milliseconds).
const ROOM_RETRY_MS: u64 = 20;

/// One journal's way into the store.
#[derive(Debug)]
pub(super) struct Applier {
    /// Visible in the store.
    pub(super) applied: Seq,
    /// Up to here the store was given everything in this life, and has shown it. Behind `applied` only after a start
    /// that found volumes behind the items.
    shown: Seq,
    /// The last entry given to the store.
    handed: Seq,
    /// Up to here batches come from the journal on disk; beyond, from `queue`.
    disk_until: Seq,
    pub(super) reader: JournalReader,
    /// The next batch on disk ends here: no use in reading it again before that may be applied.
    disk_needs: Seq,
    /// The namespace knows the definitions up to here.
    learned: Seq,
    /// Durable (or received) batches beyond `disk_until`, in order, and whether the namespace knows them.
    queue: VecDeque<(Batch, bool)>,
    /// Given to the store, not yet seen applied.
    under_way: VecDeque<Batch>,
    /// Of what is given now. A failure begins the next one.
    round: Round,
    pub(super) bytes: usize,
    /// On a standby: what the primary announced as durable on its own disk.
    pub(super) announced: Seq,
    pub(super) fault: Option<(Fault, Mono)>,
}

impl Applier {
    /// A store that shows everything up to `applied`, but has to be given everything after `replay_from` again.
    pub(super) fn new(applied: Seq, replay_from: Seq, end: Seq, announced: Seq) -> Self {
        let shown = replay_from.min(applied);
        Self {
            applied,
            shown,
            handed: shown,
            disk_until: end,
            reader: JournalReader::after(shown),
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

    fn enqueue(&mut self, batch: Batch, known: bool) {
        self.bytes += batch.header().len as usize;
        self.queue.push_back((batch, known));
    }

    /// Drops what is beyond `end`: it is no longer part of the history.
    pub(super) fn cut(&mut self, end: Seq) {
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
}

impl<S: StoreRead> Core<S> {
    /// Whether only what the primary announced may be applied.
    fn follows_journal(&self, journal: JournalKind) -> bool {
        journal == JournalKind::Replicated && !self.is_primary() && !self.state.applies_all()
    }

    fn follows_with_volumes(&self, journal: JournalKind) -> bool {
        let volume = |info: &FileInfo| info.dptr.kind == DptrKind::Blocks;
        let follows = journal == JournalKind::Replicated && !self.is_primary();
        follows && self.namespace.files().any(|(_, info)| volume(info))
    }

    /// How far a journal may be applied now.
    fn apply_limit(&self, journal: JournalKind) -> Seq {
        let durable = self.journals[journal.index()].pace().durable;
        if self.follows_journal(journal) { durable.min(self.appliers[0].announced) } else { durable }
    }

    /// Whether `batch` must wait although it may be applied. What is written into a volume is there at once, not at the
    /// next checkpoint: after a crash of a standby everything that may be in its volumes has to be replayed, so it must
    /// be known from the disk that the primary had announced it. If it is not yet, a mark is asked for.
    fn must_be_told(&mut self, journal: JournalKind, batch: &Batch) -> bool {
        // A takeover that is interrupted leaves a standby again: it too has to know what its volumes may show.
        let follows = journal == JournalKind::Replicated && !self.is_primary();
        if !follows
            || !batch.changes_volumes()
            || batch.header().last_seq() <= self.replicated().recorded_head()
        {
            return false;
        }
        self.replicated_mut().want_mark();
        self.dirty |= self.replicated().wants_mark();
        true
    }

    pub(super) fn enqueue_own(&mut self, journal: JournalKind, batch: Batch) {
        self.appliers[journal.index()].enqueue(batch, true);
    }

    pub(super) fn enqueue_received(&mut self, batch: Batch) {
        self.appliers[0].enqueue(batch, false);
    }

    /// Updates accepted and not yet applied (bytes).
    pub(super) fn unapplied_bytes(&self) -> usize {
        self.appliers.iter().map(|applier| applier.bytes).sum()
    }

    /// Whether the store shows all that a journal holds.
    pub(super) fn all_applied(&self, journal: JournalKind) -> bool {
        self.appliers[journal.index()].shown == self.journals[journal.index()].pace().appended
    }

    /// Whether the store shows all it may show now.
    pub(super) fn applied_to_limit(&self, journal: JournalKind) -> bool {
        self.appliers[journal.index()].shown >= self.apply_limit(journal)
    }

    /// Entries that the store was given since the start, of those that it lacked or may have now.
    pub(super) fn replayed(&self) -> (u64, u64) {
        let each = JournalKind::ALL.into_iter().zip(self.shown_at_start).map(|(journal, begin)| {
            let (shown, end) = (self.appliers[journal.index()].shown, self.apply_limit(journal));
            (shown.0.saturating_sub(begin.0), end.max(shown).0.saturating_sub(begin.0))
        });
        each.fold((0, 0), |(done, total), (more, of)| (done + more, total + of))
    }

    pub(super) fn pump_apply(&mut self) {
        let shown = [self.appliers[0].shown, self.appliers[1].shown];
        // What the peer sends from now on must not be hidden.
        self.overlay.tidy(shown, !self.is_primary());
        for journal in JournalKind::ALL {
            if let Some((_, retry)) = self.appliers[journal.index()].fault
                && self.now.mono < retry
            {
                continue;
            }
            while self.hand_one(journal) {}
        }
        self.pump_checkpoint();
    }

    /// Gives the next batch to the store; false when there is none to give now.
    fn hand_one(&mut self, journal: JournalKind) -> bool {
        let limit = self.apply_limit(journal);
        let applier = &mut self.appliers[journal.index()];
        if applier.handed >= limit {
            return false;
        }
        if applier.handed < applier.disk_until {
            let told = self.replicated().recorded_head();
            let limit = if self.follows_with_volumes(journal) { limit.min(told) } else { limit };
            if self.appliers[journal.index()].handed >= limit {
                self.replicated_mut().want_mark();
                self.dirty |= self.replicated().wants_mark();
                return false;
            }
            return self.hand_from_disk(journal, limit);
        }
        let Some((next, _)) = applier.queue.front() else { return false };
        let next = next.clone();
        if next.header().last_seq() > limit || self.must_be_told(journal, &next) {
            return false;
        }
        let applier = &mut self.appliers[journal.index()];
        let Some((batch, known)) = applier.queue.pop_front() else { return false };
        self.hand(journal, batch, known);
        true
    }

    fn hand_from_disk(&mut self, journal: JournalKind, limit: Seq) -> bool {
        let applier = &mut self.appliers[journal.index()];
        if applier.bytes > UNAPPLIED_MAX || applier.disk_needs > limit {
            return false;
        }
        applier.reader.seek(applier.handed);
        match self.read_on(ReadFor::Apply(journal)) {
            Ok(ReadStep::Batch(batch)) if batch.header().last_seq() <= limit => {
                self.appliers[journal.index()].bytes += batch.header().len as usize;
                self.hand(journal, batch, false);
                true
            }
            // Beyond what may be applied: found again, from its segment's start, when it may.
            Ok(ReadStep::Batch(batch)) => {
                self.appliers[journal.index()].disk_needs = batch.header().last_seq();
                false
            }
            Ok(ReadStep::Wait(_) | ReadStep::End) => false,
            Err(error) => {
                let fault = Fault::Errno(5);
                self.appliers[journal.index()].fault = Some((fault, self.now.mono.plus_ms(10_000)));
                let text = format!("replaying the {} journal: {error}", journal.name());
                self.incident_once(Severity::Critical, "replay-failed", text);
                false
            }
        }
    }

    /// Bytes for [`Self::hand_from_disk`] could not be read.
    pub(super) fn apply_unread(&mut self, journal: JournalKind, fault: Fault) {
        self.appliers[journal.index()].fault = Some((fault, self.now.mono.plus_ms(RETRY_MS)));
        let text = format!("reading back the {} journal: {fault}", journal.name());
        self.incident_once(Severity::Critical, "replay-failed", text);
    }

    fn hand(&mut self, journal: JournalKind, batch: Batch, known: bool) {
        if !known && batch.header().first_seq > self.appliers[journal.index()].learned {
            self.learn_definitions(journal, &batch);
        }
        let applier = &mut self.appliers[journal.index()];
        applier.learned = applier.learned.max(batch.header().last_seq());
        applier.handed = batch.header().last_seq();
        applier.under_way.push_back(batch.clone());
        let round = applier.round;
        self.checkpoint.bytes_since += u64::from(batch.header().len);
        self.effect(StoreEffect::Apply { journal, round, batch });
    }

    /// Lets the sequencer's namespace follow entries that it did not make itself.
    fn learn_definitions(&mut self, journal: JournalKind, batch: &Batch) {
        let ordinal = self.ordinal();
        for (seq, entry) in batch.entries() {
            if !entry.kind.defines() {
                continue;
            }
            match self.namespace.apply(ordinal, journal, &entry) {
                Ok(outcome) => self.note_outcome(&outcome),
                Err(error) => {
                    let text = format!("entry {seq} of the {} journal: {error}", journal.name());
                    self.incident(Severity::Critical, "definition-refused", text);
                }
            }
        }
    }

    pub(super) fn note_outcome(&mut self, outcome: &crate::store::namespace::Outcome) {
        self.changes.note_outcome(outcome, &self.namespace);
        for renamed in &outcome.renamed {
            let text =
                format!("{} goes by {} now: the other journal holds that name", renamed.from, renamed.to);
            self.incident(Severity::Warning, "renamed", text);
        }
        for (file, _) in &outcome.dropped {
            self.overlay.forget(*file);
            self.extents.forget(*file);
            self.written_anew(*file, 0, u64::MAX);
            if self.namespace.file(*file).is_none() {
                self.effect(VolumeEffect::Forget { file: *file });
            }
        }
        self.note_promises();
    }

    pub(super) fn store_event(&mut self, event: StoreEvent) {
        match event {
            StoreEvent::Applied { journal, round, seq } => self.applied(journal, round, seq),
            StoreEvent::ApplyFailed { journal, round, fault } => self.apply_failed(journal, round, fault),
            StoreEvent::Checkpointed { applied } => self.checkpointed(applied),
            StoreEvent::CheckpointFailed { fault } => self.checkpoint_failed(fault),
        }
    }

    pub(super) fn applied(&mut self, journal: JournalKind, round: Round, seq: Seq) {
        let own = journal == JournalKind::Local || self.is_primary();
        let applier = &mut self.appliers[journal.index()];
        if round != applier.round || seq <= applier.shown {
            return;
        }
        assert!(seq <= applier.handed, "the store shows nothing that it was not given");
        applier.shown = seq;
        applier.applied = applier.applied.max(seq);
        applier.fault = None;
        let mut done = Vec::new();
        while applier.under_way.front().is_some_and(|batch| batch.header().last_seq() <= seq) {
            let Some(batch) = applier.under_way.pop_front() else { break };
            applier.bytes -= batch.header().len as usize;
            done.push(batch);
        }
        if own {
            for batch in &done {
                self.extents.applied(journal, seq, batch);
            }
            self.overlay.applied(journal, done);
        } else {
            // Of this node's own entries it was noted when they were made.
            done.iter().for_each(|batch| self.changes.note_entries(batch.entries().map(|(_, entry)| entry)));
        }
        // The other journal may still be waiting for its turn.
        if self.any_store_fault().is_some() {
            return;
        }
        self.incident_over("store-failed", "store-back", "the store applies again".to_owned());
        self.incident_over("replay-failed", "replay-back", "the journal is read back again".to_owned());
    }

    pub(super) fn apply_failed(&mut self, journal: JournalKind, round: Round, fault: Fault) {
        let retry = self.now.mono.plus_ms(RETRY_MS);
        let applier = &mut self.appliers[journal.index()];
        if round != applier.round {
            // What was given behind a batch that failed cannot follow it either: the first fault is the reason.
            return;
        }
        applier.round = round.next();
        self.room_wanted |= fault == Fault::NoSpace;
        let applier = &mut self.appliers[journal.index()];
        applier.fault = Some((fault, retry));
        // All that the store has not shown is given again, in order; what it has is no change to it (I-11).
        while let Some(batch) = applier.under_way.pop_back() {
            if batch.header().first_seq > applier.disk_until {
                applier.queue.push_front((batch, true));
            } else {
                applier.bytes -= batch.header().len as usize;
            }
        }
        applier.disk_needs = Seq(0);
        applier.handed = applier.shown;
        applier.reader = JournalReader::after(applier.handed);
        if fault == Fault::NoSpace && self.has_claim() {
            // Room can be made, which is told.
            return;
        }
        let text = format!("applying the {} journal to the store: {fault}", journal.name());
        self.incident_once(Severity::Critical, "store-failed", text);
    }

    /// The store's fault, if it has one now that clients have to be told of.
    pub(super) fn store_fault(&self) -> Option<Fault> {
        if self.room_is_made() { None } else { self.any_store_fault() }
    }

    fn any_store_fault(&self) -> Option<Fault> {
        self.appliers.iter().find_map(|applier| applier.fault.map(|(fault, _)| fault))
    }

    /// Whether the store was short of room, and room was just made for it: clients wait for what comes of that.
    pub(super) fn room_is_made(&self) -> bool {
        self.now.mono < self.room_until && self.any_store_fault() == Some(Fault::NoSpace)
    }

    /// Room was made: the store is tried again as soon as that can be gone which made it.
    pub(super) fn retry_apply_soon(&mut self) {
        let soon = self.now.mono.plus_ms(ROOM_RETRY_MS);
        for applier in &mut self.appliers {
            if let Some((Fault::NoSpace, retry)) = &mut applier.fault {
                *retry = soon;
            }
        }
    }

    pub(super) fn apply_deadline(&self) -> Option<Mono> {
        // A retry that is under way ends the fault or sets the next one.
        let retries = self.appliers.iter().filter_map(|applier| applier.fault.map(|(_, retry)| retry));
        let tidying = (!self.overlay.is_tidy()).then_some(self.now.mono);
        retries.filter(|retry| *retry > self.now.mono).chain(tidying).min()
    }

    /// Whether a checkpoint would cover more than the last one. What an earlier life left in the store, and this one has
    /// not given it again yet, none covers.
    pub(super) fn lacks_checkpoint(&self) -> bool {
        let covered = self.checkpoint.covered;
        self.appliers.iter().zip(covered).any(|(applier, covered)| covered < applier.shown)
    }

    pub(super) fn pump_checkpoint(&mut self) {
        let applied = [self.appliers[0].applied, self.appliers[1].applied];
        let changed = applied != self.checkpoint.covered;
        let due = self.checkpoint.wanted
            || self.checkpoint.bytes_since >= self.config.checkpoint_bytes
            || self.now.mono >= self.checkpoint.at.plus_ms(self.config.checkpoint_ms);
        if self.checkpoint.running || !changed || !due {
            return;
        }
        self.checkpoint.running = true;
        self.checkpoint.wanted = false;
        self.checkpoint.bytes_since = 0;
        self.checkpoint.at = self.now.mono;
        self.effect(StoreEffect::Checkpoint);
    }

    pub(super) fn checkpoint_deadline(&self) -> Option<Mono> {
        let applied = [self.appliers[0].applied, self.appliers[1].applied];
        let idle = self.checkpoint.running || applied == self.checkpoint.covered;
        if idle { None } else { Some(self.checkpoint.at.plus_ms(self.config.checkpoint_ms)) }
    }

    pub(super) fn checkpointed(&mut self, applied: [Seq; 2]) {
        self.checkpoint.running = false;
        self.checkpoint.failed = false;
        self.checkpoint.covered = applied;
        self.incident_over("checkpoint-failed", "checkpoint-back", "the store is durable again".to_owned());
        self.release_journals();
    }

    pub(super) fn checkpoint_failed(&mut self, fault: Fault) {
        self.checkpoint.running = false;
        self.checkpoint.failed = true;
        self.checkpoint.at = self.now.mono;
        self.room_wanted |= fault == Fault::NoSpace;
        let text = format!("making the store durable: {fault}; the journal is kept until it succeeds");
        self.incident_once(Severity::Warning, "checkpoint-failed", text);
    }
}

#[cfg(test)]
#[path = "apply_tests.rs"]
pub(super) mod tests;

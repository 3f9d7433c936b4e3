//! From durable batches to the store: in order, bounded, also after a restart and after a fault.

mod applier;
mod checkpoint;

use super::core::Core;
use super::effect::{Severity, StoreEffect, VolumeEffect};
use super::event::StoreEvent;
use super::read_back::ReadFor;
use super::sync::Place;
use crate::base::{Fault, JournalKind, Mono, Round, Seq};
use crate::format::batch::Batch;
use crate::format::control::Role;
use crate::format::dptr::DptrKind;
use crate::journal::ReadStep;
use crate::store::StoreRead;
use crate::store::namespace::FileInfo;
pub(super) use applier::{Applier, Appliers};
pub(super) use checkpoint::Checkpoint;

/// A store that failed is tried again after this (milliseconds).
const RETRY_MS: u64 = 250;
/// A journal that cannot be read back as it should be is tried again after this (milliseconds).
const UNREADABLE_RETRY_MS: u64 = 10_000;
const EIO: i32 = 5;
/// A store that failed and for which room was made is tried again after this (milliseconds).
const ROOM_RETRY_MS: u64 = 20;

impl<S: StoreRead> Core<S> {
    /// Whether what a journal holds came from a primary, which announces it. What a diverged node holds it had applied as
    /// the primary.
    fn comes_from_primary(&self, journal: JournalKind) -> bool {
        journal == JournalKind::Replicated && matches!(self.control.role(), Role::Standby | Role::Incomplete)
    }

    /// Whether only what the primary announced may be applied.
    fn follows_journal(&self, journal: JournalKind) -> bool {
        self.comes_from_primary(journal) && !self.roles.applies_all()
    }

    fn follows_with_volumes(&self, journal: JournalKind) -> bool {
        let volume = |info: &FileInfo| info.dptr.kind == DptrKind::Blocks;
        self.comes_from_primary(journal) && self.namespace.files().any(|(_, info)| volume(info))
    }

    /// How far a journal may be applied now.
    pub(super) fn apply_limit(&self, journal: JournalKind) -> Seq {
        let durable = self.journals[journal.index()].pace().durable;
        if self.follows_journal(journal) {
            durable.min(self.appliers.replicated().announced())
        } else {
            durable
        }
    }

    /// Whether `batch` must wait although it may be applied. What is written into a volume is there at once, not at the
    /// next checkpoint: after a crash of a standby everything that may be in its volumes has to be replayed, so it must
    /// be known from the disk that the primary had announced it. If it is not yet, a mark is asked for.
    fn must_be_recorded(&mut self, journal: JournalKind, batch: &Batch) -> bool {
        // A takeover that is interrupted leaves a standby again: it too has to know what its volumes may show.
        if !self.comes_from_primary(journal)
            || !batch.changes_volumes()
            || batch.header().last_seq() <= self.replicated().recorded_head()
        {
            return false;
        }
        self.want_mark();
        true
    }

    /// Asks the replicated journal for a mark, which records how far the primary's disk is.
    fn want_mark(&mut self) {
        self.replicated_mut().want_mark();
        self.dirty |= self.replicated().wants_mark();
    }

    pub(super) fn enqueue_own(&mut self, journal: JournalKind, batch: Batch) {
        self.appliers.of_mut(journal).enqueue(batch, true);
    }

    pub(super) fn enqueue_received(&mut self, batch: Batch) {
        self.appliers.replicated_mut().enqueue(batch, false);
    }

    /// Updates accepted and not yet applied (bytes).
    pub(super) fn unapplied_bytes(&self) -> usize {
        self.appliers.bytes()
    }

    /// Whether the store shows all that a journal holds.
    pub(super) fn all_applied(&self, journal: JournalKind) -> bool {
        self.appliers.of(journal).visible() == self.journals[journal.index()].pace().appended
    }

    /// Whether the store shows all it may show now.
    pub(super) fn applied_to_limit(&self, journal: JournalKind) -> bool {
        self.appliers.of(journal).visible() >= self.apply_limit(journal)
    }

    /// Entries that the store was given since the start, of those that it lacked or may have now.
    pub(super) fn replayed(&self) -> (u64, u64) {
        let each = JournalKind::ALL.into_iter().map(|journal| {
            let begin = self.appliers.visible_at_start(journal);
            let (visible, end) = (self.appliers.of(journal).visible(), self.apply_limit(journal));
            (visible.0.saturating_sub(begin.0), end.max(visible).0.saturating_sub(begin.0))
        });
        each.fold((0, 0), |(done, total), (more, of)| (done + more, total + of))
    }

    pub(super) fn pump_apply(&mut self) {
        // What the peer sends from now on must not be hidden.
        self.overlay.tidy(self.appliers.visible(), !self.is_primary());
        for journal in JournalKind::ALL {
            if let Some((_, retry)) = self.appliers.of(journal).fault()
                && self.now.mono < retry
            {
                continue;
            }
            while self.submit_one(journal) {}
        }
        self.pump_checkpoint();
    }

    /// Gives the next batch to the store; false when there is none to give now.
    fn submit_one(&mut self, journal: JournalKind) -> bool {
        if journal == JournalKind::Replicated {
            if self.waits_for_copy() {
                return false;
            }
            if self.submit_chunk() {
                return true;
            }
            match self.submit_look() {
                Place::Taken => return true,
                Place::Held => return false,
                Place::Free => {}
            }
        }
        let limit = self.apply_limit(journal);
        if self.appliers.of(journal).submitted() >= limit {
            return false;
        }
        if self.appliers.of(journal).reads_back() {
            let recorded = self.replicated().recorded_head();
            let limit = if self.follows_with_volumes(journal) { limit.min(recorded) } else { limit };
            if self.appliers.of(journal).submitted() >= limit {
                self.want_mark();
                return false;
            }
            return self.submit_from_disk(journal, limit);
        }
        let Some(next) = self.appliers.of(journal).next().cloned() else { return false };
        if next.header().last_seq() > limit || self.must_be_recorded(journal, &next) {
            return false;
        }
        let Some((batch, known)) = self.appliers.of_mut(journal).take_next() else { return false };
        self.submit(journal, batch, known);
        true
    }

    /// Gives the store the chunk that stands behind what it was given, if there is one.
    fn submit_chunk(&mut self) -> bool {
        let applier = self.appliers.replicated();
        let (submitted, round) = (applier.submitted(), applier.round());
        let Some((chunk, progress)) = self.resync.submit(submitted) else { return false };
        self.checkpoint.submitted(chunk.content.bytes());
        self.effect(StoreEffect::TakeChunk { round, chunk, progress });
        true
    }

    fn submit_from_disk(&mut self, journal: JournalKind, limit: Seq) -> bool {
        if !self.appliers.of_mut(journal).seek(limit) {
            return false;
        }
        match self.read_on(ReadFor::Apply(journal)) {
            Ok(ReadStep::Batch(batch)) if batch.header().last_seq() <= limit => {
                self.appliers.of_mut(journal).hold(&batch);
                self.submit(journal, batch, false);
                true
            }
            Ok(ReadStep::Batch(batch)) => {
                self.appliers.of_mut(journal).is_beyond(&batch);
                false
            }
            Ok(ReadStep::Wait(_) | ReadStep::End) => false,
            Err(error) => {
                let retry = self.now.mono.plus_ms(UNREADABLE_RETRY_MS);
                self.appliers.of_mut(journal).wait(Fault::Errno(EIO), retry);
                let text = format!("replaying the {} journal: {error}", journal.name());
                self.incident_once(Severity::Critical, "replay-failed", text);
                false
            }
        }
    }

    /// Bytes for [`Self::submit_from_disk`] could not be read.
    pub(super) fn apply_unread(&mut self, journal: JournalKind, fault: Fault) {
        self.appliers.of_mut(journal).wait(fault, self.now.mono.plus_ms(RETRY_MS));
        let text = format!("reading back the {} journal: {fault}", journal.name());
        self.incident_once(Severity::Critical, "replay-failed", text);
    }

    fn submit(&mut self, journal: JournalKind, batch: Batch, known: bool) {
        if !known && self.appliers.of(journal).is_news(&batch) {
            self.learn_definitions(journal, &batch);
        }
        if journal == JournalKind::Replicated {
            self.note_healing(&batch);
        }
        let round = self.appliers.of_mut(journal).submit(&batch);
        self.checkpoint.submitted(u64::from(batch.header().len));
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
            StoreEvent::CopyBegun { result } => self.copy_begun(result),
            StoreEvent::RewindPrepared { result } => self.rewind_prepared(result),
            StoreEvent::ChunkTaken { round, id } => self.chunk_taken(round, id),
            StoreEvent::Rotten { items } => self.items_rotten(items),
            StoreEvent::Fetched { fetch, result } => self.fetched(fetch, result),
        }
    }

    /// The store shows this much already, whatever was told of it so far. What the store was given again after a start
    /// does not count: items show it, volumes may not.
    pub(super) fn note_visible(&mut self, visible: [Seq; 2]) {
        for journal in JournalKind::ALL {
            let applier = self.appliers.of(journal);
            let (applied, round) = (applier.applied(), applier.round());
            let seq = visible[journal.index()].min(applier.submitted());
            if seq > applied {
                self.applied(journal, round, seq);
            }
        }
    }

    fn applied(&mut self, journal: JournalKind, round: Round, seq: Seq) {
        let own = journal == JournalKind::Local || self.is_primary();
        let Some(done) = self.appliers.of_mut(journal).shows(round, seq) else { return };
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
        if self.appliers.fault().is_some() {
            return;
        }
        self.incident_over("store-failed", "store-back", "the store applies again".to_owned());
        self.incident_over("replay-failed", "replay-back", "the journal is read back again".to_owned());
    }

    fn apply_failed(&mut self, journal: JournalKind, round: Round, fault: Fault) {
        let retry = self.now.mono.plus_ms(RETRY_MS);
        if !self.appliers.of_mut(journal).failed(round, fault, retry) {
            return;
        }
        self.stats.apply_failed();
        if journal == JournalKind::Replicated {
            self.resync.take_back();
            self.looks_taken_back();
        }
        self.room.want_after(fault);
        if fault == Fault::NoSpace && self.has_claim() && self.checkpoint.failed().is_none() {
            // Room can be made, which is told. It cannot while checkpoints fail: the store needs the journal then.
            return;
        }
        let text = format!("applying the {} journal to the store: {fault}", journal.name());
        self.incident_once(Severity::Critical, "store-failed", text);
    }

    /// The store's fault, if it has one now that clients have to be told of.
    pub(super) fn store_fault(&self) -> Option<Fault> {
        if self.room_is_made() { None } else { self.appliers.fault() }
    }

    /// Whether the store was short of room, and room was just made for it: clients wait for what comes of that.
    pub(super) fn room_is_made(&self) -> bool {
        self.room.is_made(self.now.mono) && self.appliers.fault() == Some(Fault::NoSpace)
    }

    /// Room was made: the store is tried again as soon as that can be gone which made it.
    pub(super) fn retry_apply_soon(&mut self) {
        self.appliers.retry_at(self.now.mono.plus_ms(ROOM_RETRY_MS));
    }

    pub(super) fn apply_deadline(&self) -> Option<Mono> {
        let tidying = (!self.overlay.is_tidy()).then_some(self.now.mono);
        self.appliers.retry_deadline(self.now.mono).into_iter().chain(tidying).min()
    }
}

#[cfg(test)]
pub(super) mod tests;

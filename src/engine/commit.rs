//! The sequencer: journals driven, watermarks, what may be answered.

use super::core::Core;
use super::effect::{JournalEffect, PrepareSegment, RemoveSegment, Severity};
use super::event::JournalEvent;
use super::incidents::Matter;
use crate::base::limits::{QUEUE_MAX, UNAPPLIED_MAX};
use crate::base::{Fault, JournalKind, SegmentIndex};
use crate::doors::Refusal;
use crate::journal::{JournalOp, JournalState};
use crate::store::StoreRead;

impl<S: StoreRead> Core<S> {
    /// Starts writes, hands sealed batches to the link.
    pub(super) fn pump_journals(&mut self) {
        if self.is_primary() {
            let appended = self.replicated().pace().appended;
            self.stats.track.accepted(self.now.mono, None, appended);
        }
        for kind in JournalKind::ALL {
            let sealed = self.journals[kind.index()].pump(self.now);
            for batch in sealed {
                self.extents.sealed(kind, &batch);
                self.stats.batch(&batch, kind == JournalKind::Replicated);
                if kind == JournalKind::Replicated {
                    self.peer.lacks(batch.header(), self.now.mono);
                    self.spool.sealed(self.now.mono, u64::from(batch.header().len));
                    self.link.window.push(batch);
                }
            }
            if kind == JournalKind::Replicated {
                self.drain_journal();
                self.keep_quota();
            }
            self.journal_ops(kind);
        }
        self.make_room();
        self.note_journal_state();
        self.pump_standstill();
    }

    pub(super) fn journal_event(&mut self, event: JournalEvent) {
        match event {
            JournalEvent::SegmentReady { journal, index } => {
                self.journals[journal.index()].segment_ready(index);
            }
            JournalEvent::SegmentFailed { journal, index, fault } => {
                self.segment_failed(journal, index, fault);
            }
            JournalEvent::Written { write } => self.written(write),
            JournalEvent::WriteFailed { write, fault } => self.write_failed(write, fault),
            JournalEvent::Read { read, result } => self.read_done(read, result),
        }
    }

    pub(super) fn journal_ops(&mut self, journal: JournalKind) {
        while let Some(op) = self.journals[journal.index()].poll_op() {
            let effect = match op {
                JournalOp::Prepare { index, bytes } => {
                    JournalEffect::Prepare(PrepareSegment { journal, index, bytes })
                }
                JournalOp::Write { write: inner, segment, offset, parts } => {
                    let write = self.fresh_id();
                    self.journals.write_begins(write, journal, inner);
                    JournalEffect::Write { write, journal, segment, offset, parts }
                }
                JournalOp::Remove { index, reuse } => {
                    JournalEffect::Remove(RemoveSegment { journal, index, reuse })
                }
            };
            self.effect(effect);
        }
    }

    pub(super) fn written(&mut self, write: u64) {
        let Some((journal, inner)) = self.journals.write_ends(write) else { return };
        let at = journal.index();
        let batches = self.journals[at].written(self.now, inner);
        let primary = journal == JournalKind::Local || self.is_primary();
        if primary {
            let durable = self.journals[at].pace().durable;
            self.journals[at].set_announced(durable);
            for batch in batches {
                self.enqueue_own(journal, batch);
            }
        }
    }

    pub(super) fn write_failed(&mut self, write: u64, fault: Fault) {
        let Some((journal, inner)) = self.journals.write_ends(write) else { return };
        self.journals[journal.index()].write_failed(inner);
        self.disk.write_failed(fault);
        self.stats.write_failed();
        let name = journal.name();
        if self.journals[journal.index()].has_failed() {
            let text = format!("writing the {name} journal failed twice ({fault}): this node is read-only");
            self.incident_once(Severity::Critical, "journal-failed", text);
            // What they wait for will never be durable.
            self.abandon([journal], &Refusal::DiskFailed);
        } else {
            let text = format!(
                "writing the {name} journal: {fault}; the segment is poisoned, what was not acknowledged goes to a new one"
            );
            self.incident(Severity::Critical, "journal-poisoned", text);
        }
    }

    pub(super) fn segment_failed(&mut self, journal: JournalKind, index: SegmentIndex, fault: Fault) {
        self.journals[journal.index()].segment_failed(self.now, index, fault);
        self.disk.set_unmade(Some(fault));
    }

    /// Tells when no segment can be made, and when one was made again.
    fn note_journal_state(&mut self) {
        let waits =
            JournalKind::ALL.iter().any(|kind| self.journals[kind.index()].waits_for_segment().is_some());
        match self.disk.unmade() {
            Some(_) if !waits => {
                self.disk.set_unmade(None);
                self.incident_over(
                    Matter::JournalNoSpace,
                    "journal-space",
                    "the journal has room again".to_owned(),
                );
                let text = "journal segments can be made again".to_owned();
                self.incident_over(Matter::JournalUnmade, "journal-space", text);
            }
            // While room can still be made and nobody is refused, the loss of the claim is told.
            Some(Fault::NoSpace) if self.has_claim() && self.takes_updates() => {}
            Some(Fault::NoSpace) => {
                let text = "no space for the next journal segment: updates are refused when this one is full";
                self.settled(&[Matter::JournalUnmade]);
                self.incident_once(Severity::Critical, Matter::JournalNoSpace, text.to_owned());
            }
            Some(fault) => {
                let text = format!(
                    "the next journal segment cannot be made ({fault}): updates are refused when this one is full"
                );
                self.settled(&[Matter::JournalNoSpace]);
                self.incident_once(Severity::Critical, Matter::JournalUnmade, text);
            }
            None => {}
        }
    }

    /// Whether an update of `bytes` can go into `journal` now.
    pub(super) fn journal_takes(&self, journal: JournalKind, bytes: usize) -> JournalState {
        if journal == JournalKind::Replicated && self.spool_blocks() {
            return JournalState::NoSpace;
        }
        self.journals[journal.index()].state_for(bytes)
    }

    /// Whether queues are full.
    pub(super) fn is_congested(&self) -> bool {
        let (queued, short) = self.queues();
        queued > QUEUE_MAX
            || self.unapplied_bytes() > UNAPPLIED_MAX
            || self.is_barred()
            || short
            || self.room_is_made()
            || self.spool.holds_users()
    }
}

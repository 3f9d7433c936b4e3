//! The sequencer: journals driven, watermarks, what may be answered.

use super::core::{Core, ReadFor};
use super::effect::{JournalEffect, PrepareSegment, ReadSegment, RemoveSegment, Severity};
use super::event::JournalEvent;
use super::incidents::Matter;
use crate::base::limits::{BLOCK_U64, QUEUE_MAX, UNAPPLIED_MAX, UNWRITTEN_MS};
use crate::base::{Fault, JournalKind, SegmentIndex, Seq};
use crate::doors::CommitWatermarks;
use crate::journal::{JournalOp, JournalState, ReadRequest};
use crate::store::StoreRead;

/// After room was made for the store, its clients wait so long at most before they are refused (milliseconds).
const ROOM_MADE_MS: u64 = 2_000;

impl<S: StoreRead> Core<S> {
    /// Starts writes, hands sealed batches to the link.
    pub(super) fn pump_journals(&mut self) {
        for kind in JournalKind::ALL {
            let sealed = self.journals[kind.index()].pump(self.now);
            for batch in sealed {
                self.extents.sealed(kind, &batch);
                if kind == JournalKind::Replicated {
                    self.lag.sealed(batch.header().last_seq(), u64::from(batch.header().len), self.now.mono);
                    self.link.window.push(batch);
                }
            }
            self.journal_ops(kind);
        }
        self.make_room();
        self.note_journal_state();
        self.let_go_of_unwritten();
    }

    /// What was accepted may wait for a segment that cannot be made. It is kept, and may become durable later; who
    /// waits for its answer is let go within a bound, not knowing.
    fn let_go_of_unwritten(&mut self) {
        let durable = [self.journals[0].pace().durable, self.journals[1].pace().durable];
        let waits = JournalKind::ALL.iter().any(|kind| {
            let journal = &self.journals[kind.index()];
            journal.waits_for_segment().is_some() && !journal.is_written()
        });
        let now = self.now.mono;
        self.unwritten = match self.unwritten {
            _ if !waits => None,
            Some((known, since)) if known == durable => {
                let over = now >= since.plus_ms(UNWRITTEN_MS);
                self.state.abandon_clients |= over;
                Some((durable, if over { now } else { since }))
            }
            _ => Some((durable, now)),
        };
    }

    pub(super) fn unwritten_deadline(&self) -> Option<crate::base::Mono> {
        self.unwritten.map(|(_, since)| since.plus_ms(UNWRITTEN_MS))
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
            JournalEvent::Read { read, result } => match self.reads.remove(&read) {
                Some(ReadFor::Apply(journal)) => self.apply_read(journal, read, result),
                Some(ReadFor::Stream) => self.stream_read(read, result),
                Some(ReadFor::Listing) => self.listing_read(read, result),
                Some(ReadFor::Diverged) => self.diverged_read(read, result),
                None => {}
            },
        }
    }

    pub(super) fn journal_ops(&mut self, journal: JournalKind) {
        while let Some(op) = self.journals[journal.index()].poll_op() {
            let effect = match op {
                JournalOp::Prepare { index, bytes } => {
                    self.keep_quota(journal, bytes);
                    JournalEffect::Prepare(PrepareSegment { journal, index, bytes })
                }
                JournalOp::Write { write: inner, segment, offset, parts } => {
                    let write = self.fresh_id();
                    self.writes.insert(write, (journal, inner));
                    JournalEffect::Write { write, journal, segment, offset, parts }
                }
                JournalOp::Remove { index, reuse } => {
                    JournalEffect::Remove(RemoveSegment { journal, index, reuse })
                }
            };
            self.effect(effect);
        }
    }

    /// Asks for a part of a segment. Who asked keeps the number: bytes under another one are those that it, or who was
    /// in its place before, no longer waits for.
    pub(super) fn read_segment(
        &mut self,
        purpose: ReadFor,
        journal: JournalKind,
        request: ReadRequest,
    ) -> u64 {
        let read = self.fresh_id();
        self.reads.insert(read, purpose);
        let ReadRequest { segment, offset, len } = request;
        self.effect(JournalEffect::Read(ReadSegment { read, journal, segment, offset, len }));
        read
    }

    pub(super) fn written(&mut self, write: u64) {
        let Some((journal, inner)) = self.writes.remove(&write) else { return };
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
        let Some((journal, inner)) = self.writes.remove(&write) else { return };
        self.journals[journal.index()].write_failed(inner);
        self.write_fault = Some(fault);
        let name = journal.name();
        if self.journals[journal.index()].has_failed() {
            let text = format!("writing the {name} journal failed twice ({fault}): this node is read-only");
            self.incident_once(Severity::Critical, "journal-failed", text);
            // What they wait for will never be durable.
            self.state.abandon_clients = true;
        } else {
            let text = format!(
                "writing the {name} journal: {fault}; the segment is poisoned, what was not acknowledged goes to a new one"
            );
            self.incident(Severity::Critical, "journal-poisoned", text);
        }
    }

    pub(super) fn segment_failed(&mut self, journal: JournalKind, index: SegmentIndex, fault: Fault) {
        self.journals[journal.index()].segment_failed(self.now, index, fault);
        self.unmade = Some(fault);
    }

    /// Tells when no segment can be made, and when one was made again.
    fn note_journal_state(&mut self) {
        let waits =
            JournalKind::ALL.iter().any(|kind| self.journals[kind.index()].waits_for_segment().is_some());
        match self.unmade {
            Some(_) if !waits => {
                self.unmade = None;
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
        self.journals[journal.index()].state_for(bytes)
    }

    /// Whether queues are full.
    pub(super) fn is_congested(&self) -> bool {
        let queued: usize = self.journals.iter().map(crate::journal::Journal::queued_bytes).sum();
        let short = self.journals.iter().any(crate::journal::Journal::is_short);
        queued > QUEUE_MAX
            || self.unapplied_bytes() > UNAPPLIED_MAX
            || self.barrier.is_some()
            || short
            || self.room_is_made()
    }

    /// How far things are, for replies.
    pub(super) fn marks(&self) -> CommitWatermarks {
        let durable = [self.journals[0].pace().durable, self.journals[1].pace().durable];
        let acked = self.link.acked;
        let at_peer = |seq: Seq| match (self.degraded, self.restoring) {
            (None, _) => durable[0].min(seq),
            (Some(_), None) => durable[0],
            (Some(_), Some(lowered)) => durable[0].min(seq.max(lowered)),
        };
        CommitWatermarks {
            durable,
            replicated: [durable[0], at_peer(acked.received), at_peer(acked.durable), at_peer(acked.applied)],
        }
    }

    /// What every consumer has confirmed: journals may forget it (I-06).
    pub(super) fn release_journals(&mut self) {
        if self.control_write.is_some() {
            return;
        }
        let [replicated, local] = self.checkpoint.covered;
        let busy = self.state.needs_journal() || self.listing.is_some();
        if !busy {
            let at_peer = if self.is_primary() { self.link.retained } else { Seq(u64::MAX) };
            let up_to = replicated.min(at_peer);
            if self.journals[0].second_base().is_some_and(|base| base <= up_to)
                && (self.saved_table != self.control.table || !self.peer_is_kept(up_to))
            {
                // Where an epoch began must not be known from the journal alone when that part of it goes, and that the
                // peer had it must be known when it comes back without.
                self.write_control();
                return;
            }
            self.journals[0].release(up_to);
            self.journal_ops(JournalKind::Replicated);
        }
        self.journals[1].release(local);
        self.journal_ops(JournalKind::Local);
    }

    /// Makes room under the quota: a peer that is away too long loses its claim, and will need a full copy.
    pub(super) fn keep_quota(&mut self, journal: JournalKind, more: u64) {
        if journal == JournalKind::Local {
            return;
        }
        let quota = self.config.quota_bytes.max(3 * self.config.segment_bytes + BLOCK_U64);
        while self.journals[0].disk_use().0 > quota.max(more)
            && self.drop_oldest(true, || format!("the journal is at its quota of {quota} bytes"))
        {}
    }

    /// Makes room on a full disk: as at the quota, an absent peer loses its claim before this node's users are stopped
    /// (I-52).
    fn make_room(&mut self) {
        let starved = self.journals.iter().any(crate::journal::Journal::is_starved);
        let for_store = std::mem::take(&mut self.room_wanted);
        if !starved && !for_store {
            return;
        }
        // What nobody claims goes as soon as the store has it durably.
        self.checkpoint.wanted |= starved;
        self.release_journals();
        if !self.has_claim() {
            return;
        }
        if self.drop_oldest(!for_store, || "the disk is full".to_owned()) {
            self.journal_ops(JournalKind::Replicated);
            let now = self.now;
            if for_store {
                self.room_until = now.mono.plus_ms(ROOM_MADE_MS);
                self.retry_apply_soon();
            }
            self.journals.iter_mut().for_each(|journal| journal.made_room(now));
        }
    }

    /// Whether segments are kept only because an absent peer lacks them.
    pub(super) fn has_claim(&self) -> bool {
        let claimed = self.journals[0].second_base().is_some_and(|base| self.link.retained < base);
        self.is_primary() && claimed
    }

    /// Drops the oldest segment of the replicated journal whatever the peer lacks of it; false if it is needed here.
    fn drop_oldest(&mut self, kept: bool, why: impl Fn() -> String) -> bool {
        let Some(next) = self.journals[0].second_base() else { return false };
        if next > self.checkpoint.covered[0] || self.state.needs_journal() {
            self.checkpoint.wanted = true;
            return false;
        }
        // As at a release: where an epoch began must not be known from that part of the journal alone.
        if self.saved_table != self.control.table {
            if self.control_write.is_none() && self.peer_may_be_written() {
                self.write_control();
            }
            return false;
        }
        let Some(oldest) = self.journals[0].drop_oldest(kept) else { return false };
        if !self.is_primary() || self.link.retained.max(self.control.peer.holds) >= Seq(oldest.0 - 1) {
            return true;
        }
        self.set_apart();
        if !self.incidents.lasts(Matter::PeerDropped) {
            let text = format!(
                "{}: entries before {oldest} are gone that the peer does not have; it will need a full copy",
                why()
            );
            self.incident_once(Severity::Critical, Matter::PeerDropped, text);
        }
        true
    }
}

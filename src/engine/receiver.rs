//! The standby's side of the stream, and the answer to every hello that is not refused at once.

use super::core::Core;
use super::effect::{LinkEffect, Severity};
use super::incidents::{FOLLOWED, Matter};
use super::link::Link;
use super::roles::Stage;
use crate::base::limits::{CREDIT_WINDOW, RECEIVED_ACK_MS};
use crate::base::shown::Grouped;
use crate::base::{Epoch, Mono, Now, Position, Seq};
use crate::format::batch::Batch;
use crate::format::control::{EpochMark, Role};
use crate::format::frame::{Ack, FrameHeader, FrameKind, Hello, Refuse, RefuseCode};
use crate::format::handover::Handover;
use crate::format::rewind::Rewind;
use crate::journal::JournalState;
use crate::pair::{Frame, Head, LinkSession, Verdict};
use crate::store::StoreRead;
use bytes::Bytes;

/// The connection that the peer made.
#[derive(Debug)]
pub(super) struct Inbound {
    pub(super) session: LinkSession,
    /// The peer's address, for people.
    pub(super) from: String,
    pub(super) phase: Phase,
    /// The copy that begins next is this rewind.
    rewind: Option<Box<Rewind>>,
}

#[derive(Debug)]
pub(super) enum Phase {
    /// It was answered; a primary's stream may begin.
    Answered { follow: bool, epoch: Epoch },
    /// Until the journal is quiet, has been cut, and the control file holds the primary's epoch.
    Beginning { common: Position, epoch: Epoch, control: Option<u64> },
    /// A copy begins: until this node has left its own history.
    Leaving,
    /// Batches come.
    Following(Following),
    /// The primary, of this epoch, gave its role to this node, and waits for a word.
    Taking { epoch: Epoch },
}

#[derive(Debug)]
pub(super) struct Following {
    epoch: Epoch,
    received_bytes: u64,
    sent_ack: Option<Ack>,
    sent_credit: u64,
    /// Since when something is received that no ack has told of.
    unacked_since: Option<Mono>,
}

impl Following {
    /// Whether the peer is to be told of `ack` now. Of what is received it is told alone only if somebody `wants_received`,
    /// or if the disk takes too long: else with what is durable, in one frame and one wake-up there instead of two.
    fn is_due(&mut self, ack: Ack, now: Mono, wants_received: bool) -> bool {
        let Some(told) = self.sent_ack else { return true };
        if told.received == ack.received {
            self.unacked_since = None;
        } else if self.unacked_since.is_none() {
            self.unacked_since = Some(now);
        }
        // No ack goes out for `applied` alone until everything received is applied: under load the next batch's ack
        // carries it.
        told.durable != ack.durable
            || (told.applied != ack.applied && ack.applied == ack.received)
            || self.unacked_since.is_some_and(|since| wants_received || now >= since.plus_ms(RECEIVED_ACK_MS))
    }
}

impl Inbound {
    /// Of a call whose hello, sent in `epoch`, is about to be answered.
    pub(super) fn new(session: LinkSession, from: String, epoch: Epoch) -> Self {
        Self { session, from, phase: Phase::Answered { follow: false, epoch }, rewind: None }
    }

    #[cfg(test)]
    pub(super) fn beginning(session: LinkSession) -> Self {
        let phase = Phase::Beginning { common: Position::default(), epoch: Epoch(1), control: Some(0) };
        Self { session, from: String::new(), phase, rewind: None }
    }

    pub(super) fn is_following(&self) -> bool {
        matches!(self.phase, Phase::Following(_) | Phase::Beginning { .. } | Phase::Leaving)
    }

    /// When the peer has to be told of what is received, whatever the disk does.
    pub(super) fn ack_deadline(&self) -> Option<Mono> {
        match &self.phase {
            Phase::Following(following) => Some(following.unacked_since?.plus_ms(RECEIVED_ACK_MS)),
            Phase::Answered { .. } | Phase::Beginning { .. } | Phase::Leaving | Phase::Taking { .. } => None,
        }
    }

    pub(super) fn waits_for_control(&self, write: u64) -> bool {
        matches!(self.phase, Phase::Beginning { control: Some(id), .. } if id == write)
    }
}

impl Link {
    /// Whether batches of a primary come.
    pub(super) fn follows_stream(&self) -> bool {
        matches!(&self.inbound, Some(Inbound { phase: Phase::Following(_), .. }))
    }

    /// This node takes the role of the primary, of `epoch`, that streams to it.
    pub(super) fn takes_role(&mut self, epoch: Epoch) {
        if let Some(inbound) = &mut self.inbound {
            inbound.phase = Phase::Taking { epoch };
        }
    }

    /// A step of a switchover for the primary that streams to this node, or did.
    pub(super) fn say_to_primary(&mut self, now: Now, head: Head, step: &Handover) {
        if let Some(Inbound { session, phase: Phase::Following(_) | Phase::Taking { .. }, .. }) =
            &mut self.inbound
        {
            session.send(now, FrameKind::Handover, head, step.encode().into());
        }
    }
}

impl<S: StoreRead> Core<S> {
    /// Frames of the connection that the peer made.
    pub(super) fn read_inbound(&mut self) {
        while let Some(inbound) = &mut self.link.inbound {
            if matches!(inbound.phase, Phase::Beginning { .. } | Phase::Leaving) {
                // What follows is read when the beginning is done; the credit given bounds it.
                return;
            }
            match inbound.session.poll() {
                Ok(None) => {
                    if let Some((buffer, until)) = inbound.session.take_room() {
                        let conn = inbound.session.conn;
                        self.effect(LinkEffect::Fill { conn, buffer, until });
                    }
                    return;
                }
                Ok(Some((header, frame))) => {
                    self.health.hears_clock(self.now.wall_ms, header.wall_ms);
                    self.inbound_frame(&header, frame);
                }
                Err(fault) => self.inbound_fault(&fault.to_string()),
            }
        }
    }

    fn inbound_frame(&mut self, header: &FrameHeader, frame: Frame) {
        let diverged = self.roles.stage() == Stage::Diverged;
        let Some(inbound) = &mut self.link.inbound else { return };
        match (frame, &inbound.phase) {
            // What a diverged node holds is no history that goes on.
            (Frame::Begin(begin), Phase::Answered { follow: true, epoch })
                if header.epoch == *epoch && !diverged =>
            {
                let (common, epoch) = (begin.common, *epoch);
                inbound.phase = Phase::Beginning { common, epoch, control: None };
                self.dirty = true;
            }
            (Frame::CopyBegin(begin), Phase::Answered { follow: true, epoch }) if header.epoch == *epoch => {
                let (epoch, rewind) = (*epoch, inbound.rewind.take());
                self.copy_offered(begin, epoch, rewind);
            }
            (Frame::Rewind(rewind), Phase::Answered { follow: true, epoch }) if header.epoch == *epoch => {
                inbound.rewind = Some(rewind);
            }
            (Frame::Chunk(chunk), Phase::Following(following)) if header.epoch == following.epoch => {
                self.take_chunk(chunk);
            }
            (
                frame @ (Frame::Ask(_) | Frame::Mark(_) | Frame::Answer(_) | Frame::Order(_)),
                Phase::Following(following),
            ) if header.epoch == following.epoch => self.compare_frame(frame),
            (Frame::Batch(batch), Phase::Following(following)) if header.epoch == following.epoch => {
                self.take_batch(batch, header.durable);
            }
            (Frame::Heartbeat, Phase::Following(following)) if header.epoch == following.epoch => {
                self.announce(header.durable);
            }
            (Frame::Handover(step), Phase::Following(following)) if header.epoch == following.epoch => {
                self.hear_primary(step, header);
            }
            (Frame::Heartbeat, Phase::Answered { .. } | Phase::Taking { .. }) => {}
            // A compare that was under way ends with the stream, which ends when the roles have changed.
            (Frame::Ask(_) | Frame::Mark(_) | Frame::Answer(_) | Frame::Order(_), Phase::Taking { .. }) => {}
            (Frame::Refuse(refuse), _) => {
                self.hear_refusal(&refuse, header);
                self.end_inbound(&format!("the peer gave up: {}", refuse.text));
            }
            _ => self.inbound_fault("a frame came that has no place now"),
        }
    }

    /// The peer broke a rule: counted, told, and the connection ends.
    pub(super) fn inbound_fault(&mut self, text: &str) {
        self.link.count_refusal();
        self.incident(Severity::Warning, "link-refused", format!("the peer was cut off: {text}"));
        self.end_inbound(text);
    }

    /// Answers the hello of the call that has just become the connection in use.
    pub(super) fn answer(&mut self, hello: &Hello, header: &FrameHeader, verdict: Verdict) {
        let peer_epoch = header.epoch;
        let own_hello = self.hello();
        let (head, now) = (self.head(), self.now);
        self.peer.introduced(hello);
        // A peer of an older epoch is answered, so that it learns of the newer one.
        if !matches!(verdict, Verdict::Refuse(..)) {
            self.hear_hello(hello, header);
        }
        let follow = verdict == Verdict::Follow;
        if let Some(inbound) = &mut self.link.inbound {
            inbound.session.admit();
            inbound.session.send(now, FrameKind::Hello, head, own_hello);
            inbound.phase = Phase::Answered { follow, epoch: peer_epoch };
        }
        if !follow {
            self.flush_inbound();
            self.act_on(verdict, peer_epoch);
            if hello.role == Role::Primary && self.serving() {
                // An old primary is back: it listens when it has stepped down.
                self.link.dial_now(now.mono);
            }
        }
        self.dirty = true;
        self.read_inbound();
    }

    pub(super) fn refuse_inbound(&mut self, code: RefuseCode, text: String) {
        let (head, now) = (self.head(), self.now);
        if let Some(inbound) = &mut self.link.inbound {
            let refuse = Refuse { code: code as u16, text: text.clone() };
            inbound.session.send(now, FrameKind::Refuse, head, refuse.encode().into());
        }
        self.flush_inbound();
        self.end_inbound(&text);
    }

    /// This node does not take the role that its primary gives it: the last word on this stream.
    pub(super) fn refuse_role(&mut self, why: String) {
        self.refuse_inbound(RefuseCode::NotNow, why);
    }

    pub(super) fn flush_inbound(&mut self) {
        if let Some(inbound) = &mut self.link.inbound {
            let (conn, parts) = (inbound.session.conn, inbound.session.take_out());
            if !parts.is_empty() {
                self.effect(LinkEffect::Send { conn, parts });
            }
        }
    }

    pub(super) fn pump_receiver(&mut self) {
        self.pump_beginning();
        let unapplied = self.appliers.replicated().bytes() as u64;
        let wants_received = self.ack_promise.wants_received();
        let ack = self.own_ack();
        let (mut head, now, beat) = (self.head(), self.now, self.config.heartbeat_ms);
        let Some(inbound) = &mut self.link.inbound else { return };
        match &mut inbound.phase {
            Phase::Following(following) => {
                let credit = following.received_bytes + CREDIT_WINDOW.saturating_sub(unapplied);
                head = Head { credit: credit.max(following.sent_credit), ..head };
                let moved = following.is_due(ack, now.mono, wants_received)
                    || head.credit >= following.sent_credit + CREDIT_WINDOW / 4;
                if moved || now.mono >= inbound.session.sent.plus_ms(beat) {
                    following.sent_ack = Some(ack);
                    following.unacked_since = None;
                    following.sent_credit = head.credit;
                    inbound.session.send(now, FrameKind::Ack, head, ack.encode().into());
                }
            }
            Phase::Taking { epoch } => {
                // The new epoch acts only once it is on disk.
                head = Head { epoch: *epoch, ..Head::default() };
                if now.mono >= inbound.session.sent.plus_ms(beat) {
                    inbound.session.send(now, FrameKind::Heartbeat, head, Bytes::new());
                }
            }
            Phase::Answered { .. } | Phase::Beginning { .. } | Phase::Leaving => {
                if now.mono >= inbound.session.sent.plus_ms(beat) {
                    inbound.session.send(now, FrameKind::Heartbeat, head, Bytes::new());
                }
            }
        }
        self.flush_inbound();
    }

    fn own_ack(&self) -> Ack {
        let pace = self.replicated().pace();
        Ack { received: pace.appended, durable: pace.durable, applied: self.applied_here() }
    }

    /// Carries a beginning on as far as it can go now: quiet journal, cut, control file, first ack.
    fn pump_beginning(&mut self) {
        let Some(Inbound { phase: Phase::Beginning { common, epoch, control: None }, .. }) =
            &self.link.inbound
        else {
            return;
        };
        let (common, epoch) = (*common, *epoch);
        if !self.replicated().is_quiet() || self.control.is_being_written() {
            return;
        }
        let end = self.replicated().sealed();
        if common.seq > end.seq || self.replicated().end_at(common.seq) != Some(common) {
            let text =
                format!("the stream begins after entry {}, which is not in this node's history", common.seq);
            self.incident_once(Severity::Critical, "history-differs", text.clone());
            return self.refuse_inbound(RefuseCode::History, text);
        }
        if common.seq < end.seq {
            // Only what was announced of this history counts: its numbers may have been given again since.
            let announced = self.appliers.replicated().announced().min(end.seq);
            if announced > common.seq {
                let text = format!(
                    "entries {} to {announced} are here, and the primary, which had announced them as durable, does not \
                     have them any more",
                    common.seq.next()
                );
                self.incident_once(Severity::Critical, "history-differs", text.clone());
                return self.refuse_inbound(RefuseCode::History, text);
            }
            if self.appliers.replicated().applied() > common.seq {
                let text =
                    format!("entries after {} are applied here and unknown to the primary", common.seq);
                self.incident_once(Severity::Critical, "history-differs", text.clone());
                return self.refuse_inbound(RefuseCode::History, text);
            }
            let text = format!(
                "entries {} to {} were acknowledged to nobody and are cut",
                common.seq.next(),
                end.seq
            );
            self.incident(Severity::Notice, "tail-cut", text);
            self.replicated_mut().cut(common);
            self.appliers.replicated_mut().cut(common.seq);
            // The new epoch is accepted only when the cut is on disk: else a crash would bring the tail back beside
            // what the primary has numbered alike since.
            self.dirty = true;
            return;
        }
        self.control.forget_epochs_after(common.seq);
        if self.control.epoch() == epoch {
            return self.follow(epoch);
        }
        self.control.accept_epoch(epoch);
        let write = Some(self.write_control());
        if let Some(Inbound { phase: Phase::Beginning { control, .. }, .. }) = &mut self.link.inbound {
            *control = write;
        }
    }

    /// An epoch is durable before it acts (I-20).
    pub(super) fn receiver_control_written(&mut self, write: u64) {
        if let Some(Inbound { phase: Phase::Beginning { control: Some(id), epoch, .. }, .. }) =
            &self.link.inbound
            && *id == write
        {
            self.follow(*epoch);
        }
    }

    pub(super) fn follow(&mut self, epoch: Epoch) {
        let end = self.replicated().sealed().seq;
        self.resync.stream_begins(end);
        self.compares.link_ended();
        let Some(inbound) = &mut self.link.inbound else { return };
        let following =
            Following { epoch, received_bytes: 0, sent_ack: None, sent_credit: 0, unacked_since: None };
        inbound.phase = Phase::Following(following);
        self.dirty = true;
        if self.is_incomplete() {
            // It follows only when the copy is whole, and says so then.
            return self.read_inbound();
        }
        self.peer.set_joined();
        let text = format!("this node follows the primary {} in epoch {epoch}", self.peer.name());
        self.settled(&FOLLOWED);
        self.all_well(Matter::PeerLost, "following", text);
        self.read_inbound();
    }

    fn take_batch(&mut self, batch: Batch, durable: Seq) {
        let header = *batch.header();
        let end = self.replicated().sealed();
        let Some(Inbound { phase: Phase::Following(following), .. }) = &mut self.link.inbound else { return };
        following.received_bytes += u64::from(header.len);
        let beyond = following.received_bytes.saturating_sub(following.sent_credit);
        if beyond > 0 {
            // What is granted bounds the memory of this node: a peer that ignores it is none that can be followed.
            let granted = following.sent_credit;
            return self.inbound_fault(&format!(
                "it sent {} bytes of batches beyond the {} that were granted",
                Grouped(beyond),
                Grouped(granted)
            ));
        }
        let wrong = if header.mark || header.journal != crate::base::JournalKind::Replicated {
            Some("a batch of the wrong kind")
        } else if header.pair != self.config.pair {
            Some("a batch of another pair")
        } else if header.epoch > following.epoch || header.epoch < end.epoch {
            Some("a batch of an epoch that has no place here")
        } else if header.last_seq() <= end.seq {
            return self.take_duplicate(&batch);
        } else if header.first_seq != end.seq.next() || header.prev_chain != end.chain {
            Some("a batch that does not continue the history")
        } else {
            None
        };
        if let Some(text) = wrong {
            return self.inbound_fault(text);
        }
        if self.journal_takes(crate::base::JournalKind::Replicated, header.len as usize)
            == JournalState::Failed
        {
            return self.end_inbound("the journal's disk failed");
        }
        if header.epoch > end.epoch {
            let (epoch, first_seq, prev_chain) = (header.epoch, header.first_seq, header.prev_chain);
            self.control.begin_epoch(EpochMark { epoch, first_seq, prev_chain });
        }
        self.resync.note_batch(&batch);
        self.stats.batch(&batch, true);
        self.stats.track.accepted(self.now.mono, Some(end.seq), header.last_seq());
        self.replicated_mut().accept(batch.clone());
        self.enqueue_received(batch);
        self.announce(durable);
    }

    /// A batch that is here already changes nothing; the same numbers with other content are an incident (I-11).
    fn take_duplicate(&mut self, batch: &Batch) {
        let known = self.replicated().end_at(batch.header().last_seq());
        if known.is_some_and(|known| known != batch.end()) {
            let text = format!("{batch:?} has other content than what is here under the same numbers");
            self.incident(Severity::Critical, "history-differs", text);
            self.end_inbound("its history differs");
        }
    }

    fn announce(&mut self, durable: Seq) {
        self.peer.hear_announced(durable);
        let announced = self.appliers.replicated_mut().announce(durable);
        self.replicated_mut().set_announced(announced);
        self.dirty = true;
    }
}

#[cfg(test)]
#[path = "receiver_tests.rs"]
mod tests;

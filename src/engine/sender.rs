//! The primary's side of the stream: from the live tail in memory, or from the journal for a peer that is behind.

use super::core::Core;
use super::effect::{LinkEffect, Severity};
use super::incidents::{FOLLOWED, Matter};
use super::link::Link;
use super::read_back::ReadFor;
use super::sync::{Answering, Gathering, Giving, Parting};
use crate::base::limits::{LIVE_WINDOW_FULL, LIVE_WINDOW_MAX};
use crate::base::{Fault, Position, Seq};
use crate::format::batch::Batch;
use crate::format::frame::{Ack, Begin, FrameKind};
use crate::journal::{JournalReader, ReadStep};
use crate::pair::{LinkFault, LinkSession};
use crate::store::StoreRead;
use bytes::Bytes;
use std::collections::VecDeque;

/// Bytes given to the driver and not yet taken by the operating system, above which no more are given.
const UNSENT_MAX: u64 = 4 << 20;

/// The connection that this node made.
#[derive(Debug)]
pub(super) struct Outbound {
    pub(super) session: LinkSession,
    pub(super) phase: OutboundPhase,
}

impl Outbound {
    pub(super) fn is_streaming(&self) -> bool {
        matches!(self.phase, OutboundPhase::Streaming(_))
    }

    /// Whether heartbeats are sent on it.
    pub(super) fn speaks(&self) -> bool {
        !matches!(self.phase, OutboundPhase::Connecting)
    }
}

#[derive(Debug)]
pub(super) enum OutboundPhase {
    Connecting,
    Greeting,
    /// The definitions are being read that a copy begins with; if that is of no use, it is done so often again.
    Defining {
        read: u64,
        reads_left: u32,
        parting: Option<Parting>,
    },
    /// The journal is read for what was touched since the histories parted.
    Gathering(Box<Gathering>),
    Streaming(Box<Stream>),
}

/// Where the stream is.
#[derive(Debug)]
pub(super) struct Stream {
    /// The history up to the last batch sent.
    sent: Position,
    sent_bytes: u64,
    unsent: u64,
    /// The peer's grant.
    credit: u64,
    heard_credit: bool,
    acked: Ack,
    /// The durable head that the last frame announced.
    announced: Seq,
    pub(super) reader: JournalReader,
    /// Read back from the journal, and waiting for credit.
    ready: Option<Batch>,
    /// What the peer wants of the content.
    pub(super) giving: Giving,
    /// What the peer asks for to compare.
    pub(super) answering: Answering,
}

impl Stream {
    /// To a peer that has the history up to `common`.
    pub(super) fn behind(common: Position) -> Self {
        Self {
            sent: common,
            sent_bytes: 0,
            unsent: 0,
            credit: 0,
            heard_credit: false,
            acked: Ack { received: common.seq, ..Ack::default() },
            announced: Seq(0),
            reader: JournalReader::after(common.seq),
            ready: None,
            giving: Giving::behind(common.seq),
            answering: Answering::default(),
        }
    }

    /// The last entry sent.
    pub(super) fn sent_up_to(&self) -> Seq {
        self.sent.seq
    }

    /// So many bytes beside batches are sent.
    pub(super) fn sends(&mut self, bytes: usize) {
        self.unsent += bytes as u64;
    }

    /// Whether less than `most` bytes were given to the driver and not taken yet.
    pub(super) fn has_room(&self, most: u64) -> bool {
        self.unsent < most
    }

    /// Whether the next batch to send is in memory, or yet to come.
    pub(super) fn is_live(&self, live: &SendWindow) -> bool {
        self.heard_credit && live.reaches(self.sent.seq.next())
    }
}

/// The newest batches, kept in memory for the link.
#[derive(Debug, Default)]
pub(super) struct SendWindow {
    batches: VecDeque<Batch>,
    bytes: usize,
    /// End of what was ever pushed.
    end: Seq,
}

impl SendWindow {
    pub(super) fn push(&mut self, batch: Batch) {
        self.bytes += batch.header().len as usize;
        self.end = batch.header().last_seq();
        self.batches.push_back(batch);
    }

    /// Whether the batch that begins at `seq` is here, or is the next to be pushed.
    fn reaches(&self, seq: Seq) -> bool {
        match self.batches.front() {
            Some(front) => front.header().first_seq <= seq,
            None => seq > self.end,
        }
    }

    /// Whether there is little room before what the peer lacks has to be forgotten.
    pub(super) fn is_full(&self) -> bool {
        self.bytes > LIVE_WINDOW_FULL
    }

    fn starting_at(&self, seq: Seq) -> Option<&Batch> {
        let at = self.batches.partition_point(|batch| batch.header().first_seq < seq);
        self.batches.get(at).filter(|batch| batch.header().first_seq == seq)
    }

    /// Forgets what is durable here and either at the peer, or too much, or of no use to anyone.
    fn trim(&mut self, durable: Seq, acked: Seq, streaming: bool) {
        while let Some(front) = self.batches.front() {
            let last = front.header().last_seq();
            let needless = acked >= last || !streaming || self.bytes > LIVE_WINDOW_MAX;
            if last > durable || !needless {
                return;
            }
            self.bytes -= front.header().len as usize;
            self.batches.pop_front();
        }
    }
}

impl Link {
    pub(super) fn stream(&mut self) -> Option<(&mut LinkSession, &mut Stream)> {
        match &mut self.outbound {
            Some(Outbound { session, phase: OutboundPhase::Streaming(stream) }) => Some((session, stream)),
            _ => None,
        }
    }
}

impl<S: StoreRead> Core<S> {
    pub(super) fn start_stream(&mut self, common: Position) {
        let (head, now) = (self.head(), self.now);
        let known = self.replicated().end_at(common.seq);
        if known.is_some_and(|known| known != common) {
            let text = format!("the peer's history differs at entry {}, where both should agree", common.seq);
            self.incident_once(Severity::Critical, "history-differs", text.clone());
            return self.part_from_peer(&text);
        }
        if common.seq.next() < self.replicated().oldest() {
            let oldest = self.replicated().oldest();
            let text =
                format!("the peer needs entries from {}, the oldest here is {oldest}", common.seq.next());
            if self.spool.is_unknown(self.now.mono) {
                return self.end_outbound(
                    false,
                    &format!("{text}; the spool, which may have them, cannot be read now"),
                );
            }
            // All that it has applied is part of this history.
            return self.give_copy(&text, true, None);
        }
        self.resync.not_needed();
        let Some(outbound) = &mut self.link.outbound else { return };
        outbound.session.admit();
        outbound.session.send(now, FrameKind::Begin, head, Begin { common }.encode().into());
        outbound.phase = OutboundPhase::Streaming(Box::new(Stream::behind(common)));
        self.peer.stream_begins(now.mono, common);
        self.dirty = true;
    }

    /// The standby tells how far it is. What cannot be ends the session and frees nothing (N17).
    pub(super) fn sender_ack(&mut self, ack: Ack, credit: u64) {
        let now = self.now.mono;
        let Some((_, stream)) = self.link.stream() else { return };
        let first = !stream.heard_credit;
        if let Err(fault) = check_ack(stream, ack) {
            return self.outbound_fault(&fault.to_string());
        }
        stream.acked = ack;
        let granted = credit > stream.credit;
        stream.credit = stream.credit.max(credit);
        stream.heard_credit = true;
        if granted {
            self.peer.moved(now);
        }
        self.peer.acknowledged(now, ack);
        self.ack_promise.acked(ack);
        self.dirty = true;
        // What left this journal while the peer had it in memory alone is on its disk now.
        let again = self.peer.record().apart && ack.durable.next() >= self.replicated().oldest();
        if first {
            self.link.dial_now(now);
        }
        // A peer that is incomplete does not follow yet.
        if (first || again) && !self.peer.is_incomplete() {
            self.peer.set_joined();
            let text = format!("the peer {} follows from entry {}", self.peer.name(), ack.durable);
            self.settled(&FOLLOWED);
            self.all_well(Matter::PeerLost, "peer-follows", text);
        }
    }

    pub(super) fn link_sent(&mut self, conn: crate::base::ConnId) {
        if let Some((session, stream)) = self.link.stream()
            && session.conn == conn
        {
            stream.unsent = 0;
            self.peer.moved(self.now.mono);
            self.dirty = true;
        }
    }

    pub(super) fn link_moved(&mut self, conn: crate::base::ConnId) {
        if self.link.stream().is_some_and(|(session, _)| session.conn == conn) {
            self.peer.moved(self.now.mono);
        }
    }

    /// Bytes for [`Self::batch_from_disk`] could not be read.
    pub(super) fn stream_unread(&mut self, fault: Fault) {
        let text = format!("reading the journal for the peer: {fault}");
        self.incident_once(Severity::Critical, "catch-up-failed", text.clone());
        self.end_outbound(true, &text);
    }

    pub(super) fn pump_sender(&mut self) {
        self.pump_gathering();
        loop {
            while self.send_batch() {}
            if !self.pump_giving() && !self.pump_answering() {
                break;
            }
        }
        let (head, now, beat) = (self.head(), self.now, self.config.heartbeat_ms);
        let Some(outbound) = &mut self.link.outbound else {
            let durable = self.replicated().pace().durable;
            self.link.window.trim(durable, Seq(0), false);
            return;
        };
        let mut speak = now.mono >= outbound.session.sent.plus_ms(beat);
        if let OutboundPhase::Streaming(stream) = &mut outbound.phase
            && stream.heard_credit
            && stream.announced < head.durable.min(stream.sent.seq)
        {
            speak = true;
            stream.announced = head.durable;
        }
        if speak && outbound.speaks() {
            outbound.session.send(now, FrameKind::Heartbeat, head, Bytes::new());
        }
        let (conn, parts) = (outbound.session.conn, outbound.session.take_out());
        if !parts.is_empty() {
            self.effect(LinkEffect::Send { conn, parts });
        }
        let (durable, acked) = (self.replicated().pace().durable, self.peer.acked().durable);
        let streaming = self.link.is_streaming();
        self.link.window.trim(durable, acked, streaming);
    }

    /// Sends the next batch if there is one and the peer has granted room for it.
    fn send_batch(&mut self) -> bool {
        let (head, now) = (self.head(), self.now);
        let Some((_, stream)) = self.link.stream() else { return false };
        if !stream.heard_credit || stream.unsent > UNSENT_MAX || stream.reader.is_waiting() {
            return false;
        }
        if !stream.giving.lets_go_on(stream.sent.seq) || !stream.answering.lets_go_on(stream.sent.seq) {
            return false;
        }
        let next = stream.sent.seq.next();
        let ready = stream.ready.take();
        let live = self.link.window.starting_at(next).cloned();
        let Some(batch) = ready.or(live).or_else(|| self.batch_from_disk(next)) else { return false };
        let Some((session, stream)) = self.link.stream() else { return false };
        let header = batch.header();
        if header.first_seq != next || header.prev_chain != stream.sent.chain {
            let text = format!("the peer's history differs before entry {next}: it needs a full copy");
            self.incident_once(Severity::Critical, "history-differs", text);
            self.end_outbound(true, "its history differs");
            return false;
        }
        if stream.sent_bytes + u64::from(header.len) > stream.credit {
            stream.ready = Some(batch);
            return false;
        }
        session.send(now, FrameKind::Batch, head, batch.wire());
        stream.announced = stream.announced.max(head.durable);
        stream.sent = batch.end();
        stream.sent_bytes += u64::from(header.len);
        stream.unsent += u64::from(header.len);
        true
    }

    /// The batch that begins at `next`, from the journal; none while it is being read or is not yet durable.
    fn batch_from_disk(&mut self, next: Seq) -> Option<Batch> {
        if next > self.replicated().pace().durable {
            return None;
        }
        let (_, stream) = self.link.stream()?;
        stream.reader.seek(Seq(next.0 - 1));
        match self.read_on(ReadFor::Stream) {
            Ok(ReadStep::Batch(batch)) => Some(batch),
            Ok(ReadStep::Wait(_) | ReadStep::End) => None,
            Err(error) => {
                let text = format!("catching the peer up: {error}");
                self.incident_once(Severity::Critical, "catch-up-failed", text.clone());
                self.end_outbound(true, &text);
                None
            }
        }
    }
}

/// Acks never go back, never exceed what was sent, and each level is within the one before it (I-12).
fn check_ack(stream: &Stream, ack: Ack) -> Result<(), LinkFault> {
    let fault = |what, found: Seq, expected: String| LinkFault::Ack { what, found: found.0, expected };
    let old = stream.acked;
    if ack.received > stream.sent.seq {
        return Err(fault("received", ack.received, format!("only {} was sent", stream.sent.seq)));
    }
    if ack.durable > ack.received || ack.applied > ack.durable {
        let expected = format!("received {} is the most", ack.received);
        return Err(fault("durable or applied", ack.durable.max(ack.applied), expected));
    }
    for (what, before, now) in [
        ("received", old.received, ack.received),
        ("durable", old.durable, ack.durable),
        ("applied", old.applied, ack.applied),
    ] {
        if now < before {
            return Err(fault(what, now, format!("it was {before} already")));
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "sender_tests.rs"]
mod tests;

//! The link as the engine sees it: dialing, hellos, what both sides do with the verdict.
//!
//! The node whose role is primary dials; a standby listens. Both directions may be open at once for a moment, when a
//! returned primary asks while its successor dials: each connection is judged by itself.
//!
//! A call is judged by its hello before it changes anything (`callers.rs`): it takes the place of the connection in use
//! only if that one is silent.

use super::callers::Callers;
use super::core::Core;
use super::effect::{Effect, LinkEffect, Severity};
use super::event::LinkEvent;
use super::incidents::Matter;
use super::peer::door_told;
use super::receiver::Inbound;
use super::roles::Stage;
use super::sender::{Outbound, OutboundPhase, SendWindow};
use super::throttle::Throttle;
use crate::base::limits::NAME_MAX;
use crate::base::{AlignedBuf, ConnId, Epoch, Mono, Now, Prng, Seq};
use crate::format::control::Role;
use crate::format::frame::{
    FEATURE_ALL_CONTENT, FEATURE_COMPARE, FEATURE_COPY, FEATURE_DIGESTS, FEATURE_HANDOVER, FEATURE_LOST,
    FEATURE_PARTIAL, FEATURE_QUERY, FEATURE_REWIND, FEATURE_TAKES_PARTIAL, FrameHeader, FrameKind, Hello,
    PROTOCOL_FLOOR, PROTOCOL_VERSION, Refuse, RefuseCode,
};
use crate::pair::{Frame, Head, LinkSession, Own, Verdict, judge};
use crate::store::StoreRead;
use bytes::Bytes;
use std::collections::VecDeque;

const BACKOFF_FIRST_MS: u64 = 100;
/// A peer that comes back is found within about this time (milliseconds). An attempt costs two handshakes.
const BACKOFF_MAX_MS: u64 = 1_000;
/// An attempt to connect is given up after this, so that the next one begins with a fresh first packet (milliseconds): the
/// kernel repeats a lost one only after 1, 3, 7 .. seconds.
const CONNECT_MS: u64 = 2_000;

/// What every hello of this version says that it can do.
pub(super) const FEATURES_ALWAYS: u32 =
    FEATURE_COPY | FEATURE_HANDOVER | FEATURE_COMPARE | FEATURE_QUERY | FEATURE_LOST | FEATURE_DIGESTS;
/// What this version knows of.
pub(super) const FEATURES_KNOWN: u32 =
    FEATURES_ALWAYS | FEATURE_REWIND | FEATURE_PARTIAL | FEATURE_TAKES_PARTIAL | FEATURE_ALL_CONTENT;

/// What a hello says that this node does now.
fn features_of(own: &Own, all_content: bool) -> u32 {
    let some = [
        (all_content, FEATURE_ALL_CONTENT),
        (own.serving || own.rewinds, FEATURE_REWIND),
        (own.partial, FEATURE_PARTIAL),
        (own.takes_partial, FEATURE_TAKES_PARTIAL),
    ];
    some.iter().filter(|(holds, _)| *holds).fold(FEATURES_ALWAYS, |all, (_, feature)| all | feature)
}

/// Both directions of the link. What is known of the peer stays without them: [`super::peer::Peer`].
#[derive(Debug)]
pub(super) struct Link {
    pub(super) outbound: Option<Outbound>,
    pub(super) inbound: Option<Inbound>,
    /// Calls that are not judged yet.
    pub(super) callers: Callers,
    pub(super) window: SendWindow,
    /// Whether changes of volumes wait for the peer.
    pub(super) throttle: Throttle,
    /// Why the last connection came to nothing or ended.
    pub(super) trouble: String,
    /// Peers, calls and frames that were refused.
    refused: u64,
    next_dial: Mono,
    backoff_ms: u64,
    next_conn: u64,
    prng: Prng,
}

impl Link {
    pub(super) fn new(seed: u64) -> Self {
        let mut prng = Prng::new(seed);
        let first = prng.next_u64() >> 2;
        Self {
            outbound: None,
            inbound: None,
            callers: Callers::default(),
            window: SendWindow::default(),
            throttle: Throttle::default(),
            trouble: String::new(),
            refused: 0,
            next_dial: Mono(0),
            backoff_ms: BACKOFF_FIRST_MS,
            next_conn: first,
            prng,
        }
    }

    pub(super) fn count_refusal(&mut self) {
        self.refused += 1;
    }

    /// Peers, calls and frames that were refused.
    pub(super) fn refused(&self) -> u64 {
        self.refused
    }

    /// Whether the peer follows this node's stream.
    pub(super) fn is_streaming(&self) -> bool {
        self.outbound.as_ref().is_some_and(Outbound::is_streaming)
    }

    /// Whether the stream has reached the live tail.
    pub(super) fn caught_up(&self) -> bool {
        match self.outbound.as_ref().map(|outbound| &outbound.phase) {
            Some(OutboundPhase::Streaming(stream)) => stream.is_live(&self.window),
            _ => false,
        }
    }

    /// Whether the link is up in either direction.
    pub(super) fn is_up(&self) -> bool {
        self.is_streaming() || self.inbound.as_ref().is_some_and(Inbound::is_following)
    }

    /// Whether a primary streams to this node.
    pub(super) fn hears_primary(&self) -> bool {
        self.inbound.as_ref().is_some_and(Inbound::is_following)
    }

    /// When the peer that follows this node's stream was last heard.
    pub(super) fn stream_heard(&self) -> Option<Mono> {
        self.outbound
            .as_ref()
            .filter(|outbound| outbound.is_streaming())
            .map(|outbound| outbound.session.heard)
    }

    /// When the primary that streams to this node was last heard.
    pub(super) fn primary_heard(&self) -> Option<Mono> {
        self.inbound.as_ref().filter(|inbound| inbound.is_following()).map(|inbound| inbound.session.heard)
    }

    pub(super) fn dial_now(&mut self, now: Mono) {
        self.next_dial = now;
        self.backoff_ms = BACKOFF_FIRST_MS;
    }

    fn back_off(&mut self, now: Mono) {
        let jitter = self.prng.below(self.backoff_ms / 2 + 1);
        self.next_dial = now.plus_ms(self.backoff_ms / 2 + jitter);
        self.backoff_ms = (self.backoff_ms * 2).min(BACKOFF_MAX_MS);
    }

    /// Ends every connection.
    fn close_all(&mut self, out: &mut VecDeque<Effect>) {
        if let Some(outbound) = self.outbound.take() {
            out.push_back(Effect::Link(LinkEffect::Close { conn: outbound.session.conn, abort: true }));
        }
        if let Some(inbound) = self.inbound.take() {
            out.push_back(Effect::Link(LinkEffect::Close { conn: inbound.session.conn, abort: true }));
        }
        for conn in self.callers.take_all() {
            out.push_back(Effect::Link(LinkEffect::Close { conn, abort: true }));
        }
    }
}

impl<S: StoreRead> Core<S> {
    /// Ends every connection.
    pub(super) fn close_link(&mut self) {
        self.peer.lost();
        self.compares.link_ended();
        self.compares.stream_ended();
        self.link.close_all(&mut self.out);
    }

    pub(super) fn own(&self) -> Own {
        Own {
            pair: self.config.pair,
            ordinal: self.config.ordinal,
            role: self.role_on_disk(),
            serving: self.serving(),
            epoch: self.control.epoch(),
            end: self.replicated().sealed(),
            applied: self.applied_here(),
            table: self.control.table().to_vec(),
            rewinds: self.may_be_rewound(),
            partial: self.peer.record().partial,
            takes_partial: self.resync.takes_partial(),
        }
    }

    pub(super) fn hello(&self) -> Bytes {
        let own = self.own();
        let (known, relied_on) = self.known_of_peer();
        let mut name = self.config.name.clone();
        name.truncate(NAME_MAX);
        Hello {
            version: PROTOCOL_VERSION,
            floor: PROTOCOL_FLOOR,
            features: features_of(&own, self.resync.gives_all_content()),
            pair: own.pair,
            ordinal: own.ordinal,
            role: own.role,
            serving: own.serving,
            end: own.end,
            applied: own.applied,
            table: own.table,
            name,
            known,
            relied_on,
            door: door_told(&self.config.resp_doors),
            copied: self.can_go_on_copying(),
        }
        .encode()
        .into()
    }

    /// What every frame's header says now.
    pub(super) fn head(&self) -> Head {
        let durable = if self.is_primary() { self.replicated().pace().durable } else { Seq(0) };
        Head { epoch: self.control.epoch(), durable, credit: 0 }
    }

    pub(super) fn pump_link(&mut self) {
        self.check_silence();
        self.pump_callers();
        self.pump_dial();
        self.pump_sender();
        self.pump_receiver();
        let full = self.link.window.is_full() && self.link.caught_up();
        self.link.throttle.look(self.now.mono, full);
    }

    pub(super) fn link_deadline(&self) -> Option<Mono> {
        let timeout = self.config.peer_timeout_ms;
        let beat = self.config.heartbeat_ms;
        let of = |session: &LinkSession, patience: u64, speaks: bool| {
            let silent = session.heard.plus_ms(patience);
            if speaks { silent.min(session.sent.plus_ms(beat)) } else { silent }
        };
        let outbound = self.link.outbound.as_ref();
        let outbound = outbound.map(|o| of(&o.session, self.patience_with(o), o.speaks()));
        let inbound = self.link.inbound.as_ref().map(|inbound| of(&inbound.session, timeout, true));
        let dial = (self.link.outbound.is_none() && self.wants_to_dial()).then_some(self.link.next_dial);
        let callers = self.callers_deadline();
        let ack = self.link.inbound.as_ref().and_then(Inbound::ack_deadline);
        [outbound, inbound, ack, callers, dial, self.link.throttle.deadline()].into_iter().flatten().min()
    }

    fn wants_to_dial(&self) -> bool {
        // What is on the spool decides how the peer is brought up.
        !self.stopping
            && matches!(self.roles.stage(), Stage::Asking | Stage::Serving)
            && self.spool.awaited_until(self.now.mono).is_none()
    }

    fn pump_dial(&mut self) {
        if self.link.outbound.is_some() || !self.wants_to_dial() || self.now.mono < self.link.next_dial {
            return;
        }
        self.link.next_conn += 1;
        let conn = ConnId(self.link.next_conn & !(1 << 63));
        let session = LinkSession::dialed(conn, conn.0, self.now.mono);
        self.link.outbound = Some(Outbound { session, phase: OutboundPhase::Connecting });
        self.effect(LinkEffect::Connect { conn });
    }

    /// How long this node waits for a word on the connection that it made (milliseconds).
    fn patience_with(&self, outbound: &Outbound) -> u64 {
        let timeout = self.config.peer_timeout_ms;
        if matches!(outbound.phase, OutboundPhase::Connecting) { timeout.min(CONNECT_MS) } else { timeout }
    }

    fn check_silence(&mut self) {
        let silent =
            |session: &LinkSession, now: Now, timeout: u64| now.mono >= session.heard.plus_ms(timeout);
        let timeout = self.config.peer_timeout_ms;
        let patience = |outbound: &Outbound| self.patience_with(outbound);
        if let Some(outbound) =
            self.link.outbound.as_ref().filter(|o| silent(&o.session, self.now, patience(o)))
        {
            let why = match outbound.phase {
                OutboundPhase::Connecting => {
                    let patience = patience(outbound);
                    format!("connecting to {}: no answer within {patience} ms", self.peer_address())
                }
                _ => "it was silent for too long".to_owned(),
            };
            self.end_outbound(true, &why);
        }
        if self.link.inbound.as_ref().is_some_and(|i| silent(&i.session, self.now, timeout)) {
            self.end_inbound("it was silent for too long");
        }
    }

    /// Ends the connection this node made, and dials again later.
    pub(super) fn end_outbound(&mut self, abort: bool, why: &str) {
        let Some(outbound) = self.link.outbound.take() else { return };
        self.effect(LinkEffect::Close { conn: outbound.session.conn, abort });
        self.outbound_gone(&outbound, why);
    }

    fn outbound_gone(&mut self, outbound: &Outbound, why: &str) {
        self.dirty = true;
        why.clone_into(&mut self.link.trouble);
        self.peer.lost();
        self.peer.keep();
        self.compares.stream_ended();
        if outbound.is_streaming() {
            self.peer.stream_ended(outbound.session.heard);
            let text = format!("the link to the peer is down: {why}");
            self.incident_once(Severity::Warning, "peer-lost", text);
        }
        self.link.back_off(self.now.mono);
    }

    pub(super) fn end_inbound(&mut self, why: &str) {
        let Some(inbound) = self.link.inbound.take() else { return };
        self.effect(LinkEffect::Close { conn: inbound.session.conn, abort: false });
        self.inbound_gone(&inbound, why);
    }

    fn inbound_gone(&mut self, inbound: &Inbound, why: &str) {
        self.dirty = true;
        self.resync.not_offered();
        self.compares.link_ended();
        self.peer.keep();
        why.clone_into(&mut self.link.trouble);
        if inbound.is_following() {
            self.settled(&[Matter::PeerTwice]);
            let text = format!("the link from the primary is down: {why}");
            self.incident_once(Severity::Warning, "peer-lost", text);
        }
    }

    pub(super) fn link_connected(&mut self, conn: ConnId) {
        let (hello, head, now) = (self.hello(), self.head(), self.now);
        let Some(outbound) = &mut self.link.outbound else { return };
        if outbound.session.conn != conn || !matches!(outbound.phase, OutboundPhase::Connecting) {
            return;
        }
        outbound.session.heard = now.mono;
        outbound.phase = OutboundPhase::Greeting;
        outbound.session.send(now, FrameKind::Hello, head, hello);
    }

    pub(super) fn link_closed(&mut self, conn: ConnId, why: &str) {
        if self.link.outbound.as_ref().is_some_and(|outbound| outbound.session.conn == conn) {
            if let Some(outbound) = self.link.outbound.take() {
                self.outbound_gone(&outbound, why);
            }
        } else if self.link.inbound.as_ref().is_some_and(|inbound| inbound.session.conn == conn)
            && let Some(inbound) = self.link.inbound.take()
        {
            self.inbound_gone(&inbound, why);
        } else {
            self.link.callers.closed(conn);
        }
        self.dirty = true;
    }

    pub(super) fn link_event(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Accepted { conn, from } => self.link_accepted(conn, from),
            LinkEvent::Connected { conn } => self.link_connected(conn),
            LinkEvent::Bytes { conn, bytes } => self.link_bytes(conn, &bytes),
            LinkEvent::Filled { conn, buffer } => self.link_filled(conn, buffer),
            LinkEvent::Sent { conn } => self.link_sent(conn),
            LinkEvent::Moved { conn } => self.link_moved(conn),
            LinkEvent::Closed { conn, why } => self.link_closed(conn, &why),
        }
    }

    pub(super) fn link_bytes(&mut self, conn: ConnId, bytes: &[u8]) {
        let now = self.now.mono;
        if let Some(outbound) = &mut self.link.outbound
            && outbound.session.conn == conn
        {
            outbound.session.feed(now, bytes);
            self.peer.speaks(now);
            self.read_outbound();
        } else if let Some(inbound) = &mut self.link.inbound
            && inbound.session.conn == conn
        {
            inbound.session.feed(now, bytes);
            self.peer.speaks(now);
            self.read_inbound();
        } else {
            self.caller_says(conn, bytes);
        }
        // Bytes of any other connection are of one that is over: nobody reads them (I-14).
    }

    pub(super) fn link_filled(&mut self, conn: ConnId, buffer: AlignedBuf) {
        let now = self.now.mono;
        if let Some(inbound) = &mut self.link.inbound
            && inbound.session.conn == conn
        {
            inbound.session.filled(now, buffer);
            self.peer.speaks(now);
            self.read_inbound();
        } else if let Some(outbound) = &mut self.link.outbound
            && outbound.session.conn == conn
        {
            outbound.session.filled(now, buffer);
            self.peer.speaks(now);
            self.read_outbound();
        }
    }

    /// Frames of the connection that this node made.
    fn read_outbound(&mut self) {
        while let Some(outbound) = &mut self.link.outbound {
            match outbound.session.poll() {
                Ok(None) => {
                    if let Some((buffer, until)) = outbound.session.take_room() {
                        let conn = outbound.session.conn;
                        self.effect(LinkEffect::Fill { conn, buffer, until });
                    }
                    return;
                }
                Ok(Some((header, frame))) => {
                    self.health.hears_clock(self.now.wall_ms, header.wall_ms);
                    match (frame, &outbound.phase) {
                        (Frame::Hello(hello), OutboundPhase::Greeting) => self.greeted(&hello, &header),
                        (Frame::Refuse(refuse), _) => self.refused_by_peer(&refuse, &header),
                        (Frame::Ack(ack), OutboundPhase::Streaming(_)) => self.sender_ack(ack, header.credit),
                        (Frame::Want(want), OutboundPhase::Streaming(_)) => self.wanted(want),
                        (Frame::Handover(step), OutboundPhase::Streaming(_)) => {
                            self.hear_standby(&step, &header)
                        }
                        (
                            frame @ (Frame::Ask(_) | Frame::Answer(_) | Frame::Report(_)),
                            OutboundPhase::Streaming(_),
                        ) => self.asked_frame(frame),
                        (Frame::Heartbeat, _) => {}
                        _ => self.outbound_fault("a frame came that has no place in an answer"),
                    }
                }
                Err(fault) => self.outbound_fault(&fault.to_string()),
            }
        }
    }

    /// The peer broke a rule: counted, told, and the connection ends.
    pub(super) fn outbound_fault(&mut self, text: &str) {
        self.link.count_refusal();
        let incident = format!("the peer was cut off: {text}");
        self.incident(Severity::Warning, "link-refused", incident);
        self.end_outbound(true, text);
    }

    fn refused_by_peer(&mut self, refuse: &Refuse, header: &FrameHeader) {
        self.hear_refusal(refuse, header);
        if self.role_is_refused(&refuse.text) {
            return self.end_outbound(false, &refuse.text);
        }
        let text = format!("the peer refuses this node: {}", refuse.text);
        if refuse.code != RefuseCode::NotNow as u16 {
            self.peer.set_forbids(true);
            self.incident_once(Severity::Warning, "refused-by-peer", text.clone());
            self.roles.peer_forbids(&text);
        }
        self.end_outbound(false, &text);
    }

    /// The peer answered this node's hello.
    fn greeted(&mut self, hello: &Hello, header: &FrameHeader) {
        let peer_epoch = header.epoch;
        self.peer.introduced(hello);
        let verdict = judge(&self.own(), hello, peer_epoch);
        if !matches!(verdict, Verdict::Refuse(..)) {
            self.hear_hello(hello, header);
        }
        if !matches!(verdict, Verdict::Refuse(..) | Verdict::OwnStateOld(_)) {
            self.peer.set_forbids(false);
        }
        let streams = matches!(
            verdict,
            Verdict::Stream { .. } | Verdict::NeedsFullSync { .. } | Verdict::Rewind { .. }
        );
        if let Some(why) = self.unlicensed().filter(|_| streams) {
            return self.end_outbound(false, why);
        }
        match verdict {
            Verdict::Stream { common } => self.start_stream(common),
            Verdict::NeedsFullSync { why, safe } => self.give_copy(&why, safe, None),
            Verdict::Rewind { common } => self.rewind_peer(common),
            Verdict::MayServe => {
                self.end_outbound(false, "the question is answered");
                self.may_serve();
            }
            other => {
                let why = self.act_on(other, peer_epoch);
                self.end_outbound(false, &why);
            }
        }
    }

    /// What a hello means in either direction.
    pub(super) fn act_on(&mut self, verdict: Verdict, peer_epoch: Epoch) -> String {
        match verdict {
            Verdict::StepDown { common, .. } => {
                self.step_down(common, peer_epoch);
                "the peer serves in a higher epoch".to_owned()
            }
            Verdict::OwnStateOld(why) => {
                self.own_state_is_old(&why);
                self.serves_no_more(&why, peer_epoch);
                why
            }
            Verdict::Refuse(_, text) => {
                self.link.count_refusal();
                self.incident_once(
                    Severity::Warning,
                    "peer-refused",
                    format!("the peer was refused: {text}"),
                );
                text
            }
            Verdict::MayServe => {
                self.may_serve();
                "the question is answered".to_owned()
            }
            Verdict::Wait(why) => why.to_owned(),
            Verdict::Stream { .. }
            | Verdict::NeedsFullSync { .. }
            | Verdict::Rewind { .. }
            | Verdict::Follow => "wrong direction".to_owned(),
        }
    }

    /// This node, a primary, lacks what its peer knows of.
    pub(super) fn own_state_is_old(&mut self, why: &str) {
        self.peer.set_forbids(true);
        let text = format!(
            "this node must not serve: {why}; if the peer has the newer state, stop this node and say there: \
             hot-backup takeover --peer-is-down; if what is lacking here is lost for good, stop the peer and say here: \
             hot-backup start --alone --accept-loss"
        );
        self.roles.peer_forbids(&text);
        self.incident_once(Severity::Critical, "state-set-back", text);
    }

    /// The peer's journal cannot be joined to this one: tells it so, that it may know that it lacks something.
    pub(super) fn part_from_peer(&mut self, why: &str) {
        self.peer.set_apart();
        self.dirty = true;
        let (head, now) = (self.head(), self.now);
        let text = format!("this primary cannot send what is lacking there: {why}");
        let refuse = Refuse { code: RefuseCode::History as u16, text };
        if let Some(outbound) = &mut self.link.outbound {
            outbound.session.send(now, FrameKind::Refuse, head, refuse.encode().into());
            let (conn, parts) = (outbound.session.conn, outbound.session.take_out());
            self.effect(LinkEffect::Send { conn, parts });
        }
        self.end_outbound(false, "it needs a full copy");
    }

    /// Whether this node can take part in a conversation now.
    pub(super) fn can_talk(&self) -> bool {
        if self.replicated().has_failed() || self.resync.is_leaving() {
            return false;
        }
        match self.roles.stage() {
            Stage::Standby | Stage::Incomplete | Stage::Asking | Stage::Serving => true,
            Stage::HandingOver | Stage::Diverged => true,
            Stage::Replaying => !matches!(self.control.role(), Role::Standby | Role::Incomplete),
            Stage::Opening | Stage::SteppingDown | Stage::Stopped => false,
        }
    }

    /// The control file that a connection waited for is durable.
    pub(super) fn link_control_written(&mut self, write: u64) {
        self.receiver_control_written(write);
        self.release_journals();
    }

    pub(super) fn link_control_failed(&mut self, write: u64) {
        if self.link.inbound.as_ref().is_some_and(|inbound| inbound.waits_for_control(write)) {
            self.end_inbound("the control file could not be written");
        }
    }
}

#[cfg(test)]
#[path = "link_tests.rs"]
mod tests;

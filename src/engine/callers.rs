//! Calls to this node's link port: judged by their hello before they change anything.
//!
//! The peer has one connection. A new one means that the old one is dead, or that somebody else has the peer's key: a copy
//! of its directory that is served elsewhere. So while a primary streams to this node, a call waits until it is known
//! whether the stream still speaks:
//!
//! ```text
//! accepted -> hello -+- cannot be -------------------------------> refused
//!                    +- no stream, or it is silent --------------> takes its place
//!                    +- a stream that spoke a short time ago -+- goes on to speak -> refused, both addresses are told
//!                                                             +- ends, falls silent -> takes its place
//! ```

use super::core::Core;
use super::effect::{LinkEffect, Severity};
use super::incidents::Matter;
use super::receiver::Inbound;
use super::roles::Stage;
use crate::base::limits::{CALLER_BYTES_MAX, LINK_CALLERS_MAX};
use crate::base::{ConnId, Mono};
use crate::format::frame::{FrameHeader, FrameKind, Hello, Refuse, RefuseCode};
use crate::pair::{Frame, LinkSession, Verdict, judge_caller};
use crate::store::StoreRead;
use std::collections::VecDeque;

/// A stream that said nothing for so many heartbeats is silent.
const SILENT_BEATS: u64 = 3;

/// A call that is not judged yet.
#[derive(Debug)]
struct Caller {
    session: LinkSession,
    from: String,
    claim: Option<Box<Claim>>,
}

/// A hello that waits until it is known whether the stream in use still speaks.
#[derive(Debug)]
struct Claim {
    hello: Hello,
    header: FrameHeader,
    since: Mono,
}

/// Calls that are not judged yet, oldest first.
#[derive(Debug, Default)]
pub(super) struct Callers {
    list: VecDeque<Caller>,
}

impl Callers {
    /// Forgets a connection that is over.
    pub(super) fn closed(&mut self, conn: ConnId) {
        self.list.retain(|caller| caller.session.conn != conn);
    }

    /// Forgets all, and gives their connections.
    pub(super) fn take_all(&mut self) -> Vec<ConnId> {
        self.list.drain(..).map(|caller| caller.session.conn).collect()
    }

    fn take(&mut self, conn: ConnId) -> Option<Caller> {
        let at = self.list.iter().position(|caller| caller.session.conn == conn)?;
        self.list.remove(at)
    }
}

impl<S: StoreRead> Core<S> {
    pub(super) fn link_accepted(&mut self, conn: ConnId, from: String) {
        if self.stopping || self.roles.stage() == Stage::Stopped {
            return self.effect(LinkEffect::Close { conn, abort: true });
        }
        if self.link.callers.list.len() >= LINK_CALLERS_MAX
            && let Some(oldest) = self.link.callers.list.pop_front()
        {
            self.effect(LinkEffect::Close { conn: oldest.session.conn, abort: true });
        }
        let session = LinkSession::accepted(conn, self.now.mono);
        self.link.callers.list.push_back(Caller { session, from, claim: None });
    }

    /// Bytes of a connection that is not in use: of a call, or of one that is over, which nobody reads (I-14).
    pub(super) fn caller_says(&mut self, conn: ConnId, bytes: &[u8]) {
        let now = self.now.mono;
        let Some(caller) = self.link.callers.list.iter_mut().find(|caller| caller.session.conn == conn)
        else {
            return;
        };
        caller.session.feed(now, bytes);
        if caller.session.buffered() > CALLER_BYTES_MAX {
            return self.caller_fault(conn, "it sent more than a hello before it was answered");
        }
        if caller.claim.is_some() {
            // What follows the hello is read when it is answered.
            return;
        }
        match caller.session.poll() {
            Ok(None) => {}
            Ok(Some((header, Frame::Hello(hello)))) => {
                caller.claim = Some(Box::new(Claim { hello, header, since: now }));
                self.judge_claim(conn);
            }
            Ok(Some(_)) => self.caller_fault(conn, "a frame came that has no place now"),
            Err(fault) => self.caller_fault(conn, &fault.to_string()),
        }
    }

    fn caller_fault(&mut self, conn: ConnId, text: &str) {
        self.link.count_refusal();
        self.incident(Severity::Warning, "link-refused", format!("the peer was cut off: {text}"));
        self.link.callers.closed(conn);
        self.effect(LinkEffect::Close { conn, abort: false });
    }

    /// How long the stream in use may be silent before a call takes its place (milliseconds).
    fn silent_after(&self) -> u64 {
        (SILENT_BEATS * self.config.heartbeat_ms).min(self.config.peer_timeout_ms)
    }

    /// Decides on a call as soon as that can be done.
    fn judge_claim(&mut self, conn: ConnId) {
        let caller = self.link.callers.list.iter().find(|caller| caller.session.conn == conn);
        let Some(claim) = caller.and_then(|caller| caller.claim.as_deref()) else { return };
        let (since, wait) = (claim.since, self.silent_after());
        if self.roles.stage() == Stage::SteppingDown && self.now.mono < since.plus_ms(wait) {
            // Soon it can be the standby of whoever calls.
            return;
        }
        if !self.can_talk() {
            let text = format!("this node is {}", self.roles.word());
            return self.refuse_caller(conn, RefuseCode::NotNow, text);
        }
        let verdict = judge_caller(&self.own(), &claim.hello, claim.header.epoch);
        if let Verdict::Refuse(code, text) = &verdict
            && *code != RefuseCode::Epoch
        {
            let (code, text) = (*code, text.clone());
            self.link.count_refusal();
            self.incident_once(Severity::Warning, "peer-refused", format!("the peer was refused: {text}"));
            return self.refuse_caller(conn, code, text);
        }
        match self.link.primary_heard() {
            Some(heard) if self.now.mono < heard.plus_ms(wait) && self.now.mono < since.plus_ms(wait) => {}
            Some(heard) if self.now.mono < heard.plus_ms(wait) => self.refuse_twin(conn),
            _ => self.admit(conn, verdict),
        }
    }

    /// The call takes the place of the connection in use.
    fn admit(&mut self, conn: ConnId, verdict: Verdict) {
        let Some(Caller { session, from, claim: Some(claim) }) = self.link.callers.take(conn) else { return };
        self.end_inbound("the peer connected anew");
        self.peer.speaks(self.now.mono);
        self.link.inbound = Some(Inbound::new(session, from, claim.header.epoch));
        self.answer(&claim.hello, &claim.header, verdict);
    }

    /// Two have the peer's key, and one of them streams to this node.
    fn refuse_twin(&mut self, conn: ConnId) {
        let streams = self.link.inbound.as_ref().map_or(String::new(), |inbound| inbound.from.clone());
        let caller = self.link.callers.list.iter().find(|caller| caller.session.conn == conn);
        let calls = caller.map_or(String::new(), |caller| host(&caller.from).to_owned());
        self.link.count_refusal();
        let text = format!(
            "two nodes have the peer's key: one streams from {streams}, and another, which calls from {calls}, is refused; \
             a copy of the peer's directory is served there: stop it"
        );
        self.incident_once(Severity::Critical, Matter::PeerTwice, text);
        let text = format!("the node whose key this is streams from {streams} already");
        self.refuse_caller(conn, RefuseCode::Role, text);
    }

    fn refuse_caller(&mut self, conn: ConnId, code: RefuseCode, text: String) {
        let (head, now) = (self.head(), self.now);
        let Some(mut caller) = self.link.callers.take(conn) else { return };
        let refuse = Refuse { code: code as u16, text };
        caller.session.send(now, FrameKind::Refuse, head, refuse.encode().into());
        self.effect(LinkEffect::Send { conn, parts: caller.session.take_out() });
        self.effect(LinkEffect::Close { conn, abort: false });
    }

    /// Ends silent calls, and decides on those that wait.
    pub(super) fn pump_callers(&mut self) {
        let (now, timeout) = (self.now.mono, self.config.peer_timeout_ms);
        let silent = |caller: &Caller| caller.claim.is_none() && now >= caller.session.heard.plus_ms(timeout);
        let gone: Vec<ConnId> =
            self.link.callers.list.iter().filter(|c| silent(c)).map(|c| c.session.conn).collect();
        for conn in gone {
            self.link.callers.closed(conn);
            self.effect(LinkEffect::Close { conn, abort: false });
        }
        let waiting: Vec<ConnId> = self.link.callers.list.iter().map(|caller| caller.session.conn).collect();
        for conn in waiting {
            self.judge_claim(conn);
        }
    }

    pub(super) fn callers_deadline(&self) -> Option<Mono> {
        let (wait, timeout) = (self.silent_after(), self.config.peer_timeout_ms);
        let heard = self.link.primary_heard();
        let due = |caller: &Caller| match &caller.claim {
            None => caller.session.heard.plus_ms(timeout),
            Some(claim) => {
                let decided = claim.since.plus_ms(wait);
                heard.map_or(decided, |heard| decided.min(heard.plus_ms(wait)))
            }
        };
        self.link.callers.list.iter().map(due).min()
    }
}

/// An address without its port, which each call has anew.
fn host(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(host, _)| host)
}

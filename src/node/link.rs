//! Connections to and from the peer: made, proven, pumped.
//!
//! The engine hears of a connection only once the peer's key was checked. Until then it costs one of a few slots
//! and has a few seconds, and the oldest gives way to the next; those from the peer's address have slots of their own.
//! What fails is counted, and told once a minute for each reason.

use super::core::{RoundContext, Target};
use super::dial::{Attempt, Dial};
use super::incidents::RateLimited;
use super::operators::LinkTold;
use super::tls::{LinkIdentity, LinkSecurityError, Room, SecureLink};
use crate::base::limits::{
    LINK_RECEIVE, LINK_RECEIVE_LOOK, LINK_UNACKED_MS, LINKS_MAX, LINKS_OWN_KEPT, LINKS_PEER_UNKNOWN_MAX,
    LINKS_UNKNOWN_MAX, SEND_BYTES_MAX, SEND_PARTS_MAX,
};
use crate::base::{AlignedBuf, ConnId, Mono, plainly};
use crate::engine::incidents::Matter;
use crate::engine::{Event, LinkEffect, LinkEvent};
use crate::io::{Goal, Op};
use bytes::Bytes;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, getpeername, setsockopt, socket, sockopt,
};
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

/// The highest bit marks the driver's numbers, so that they never meet those that the engine gives out.
const ACCEPTED: u64 = 1 << 63;

/// Gives the keys as they stand on disk, for each connection anew, so that a peer may be trusted without a restart.
pub(crate) type Keys = Box<dyn Fn() -> Result<LinkIdentity, LinkSecurityError> + Send>;

/// All link connections.
pub(crate) struct Links {
    slots: Vec<Option<PeerConnection>>,
    keys: Keys,
    /// The line by which the peer knows this node.
    identity: String,
    dial: Dial,
    /// Where the last connection came from that proved its key.
    proven_host: Option<IpAddr>,
    serial: u64,
    refusals: RateLimited,
    /// Why the last connection that came, or any that could come, is not let in.
    trouble: String,
}

/// Where a connection is in its life.
///
/// ```text
/// Connecting -> Proving -> Established -> Leaving -> Cut
/// ```
/// Every state may go to `Cut` at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// The three-way handshake of a connection made from here.
    Connecting,
    /// The keys are being checked.
    Proving,
    /// The engine uses it.
    Established,
    /// Ends when what was given is sent.
    Leaving,
    /// Only completions are waited for.
    Cut,
}

/// Whether the node that was dialled trusts this one's key, as far as it shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mistrust {
    None,
    /// It ended the connection before anything was proven: so does a node that trusts nobody yet.
    Likely,
    /// It said so.
    Told,
}

impl Mistrust {
    /// Adds what to do there.
    fn explain(self, trouble: String, identity: &str) -> String {
        match self {
            Self::None => trouble,
            Self::Likely => format!(
                "{trouble}; if the peer trusts nobody yet, run `hot-backup trust` there, with this node's identity: {identity}"
            ),
            Self::Told => format!("{trouble}, with this node's identity: {identity}"),
        }
    }
}

#[derive(Debug)]
struct PeerConnection {
    id: ConnId,
    socket: Arc<OwnedFd>,
    far: String,
    /// The address that it came from, if it was accepted.
    host: Option<IpAddr>,
    phase: Phase,
    /// Its key was checked.
    proven: bool,
    secure: SecureLink,
    receiving: bool,
    /// What the next receive reads into; none while one is under way or none is to come.
    idle: Option<Vec<u8>>,
    sending: bool,
    connecting: bool,
    /// Of a connection made from here: the address, and those that are tried after it.
    attempt: Option<Attempt>,
    /// What came of the proof says that the peer may not trust this node's key.
    mistrust: Mistrust,
    queue: VecDeque<Bytes>,
    /// What the engine gave and is not secured yet: a large batch is, as it is sent, so that no round takes long by it.
    plain: VecDeque<Bytes>,
    /// The engine gave something since it was last told that all is sent.
    owed: bool,
    /// End of patience while connecting, proving or leaving.
    deadline: Option<Mono>,
}

impl Links {
    /// No connections yet; `dial` says where [`Self::connect`] goes.
    pub(crate) fn new(keys: Keys, identity: String, dial: Dial) -> Self {
        // A node that trusts nobody yet says so before anybody calls.
        let trouble = keys().and_then(|keys| SecureLink::accept(&keys)).err();
        let trouble = trouble.map(|error| error.to_string()).unwrap_or_default();
        let refusals = RateLimited::new(Matter::LinkRefused);
        Self { slots: Vec::new(), keys, identity, dial, proven_host: None, serial: 0, refusals, trouble }
    }

    fn is_peer_host(&self, host: Option<IpAddr>) -> bool {
        host.is_some_and(|host| self.proven_host == Some(host) || self.dial.has_host(host))
    }

    /// What an operator is told of connections that the engine never heard of.
    pub(crate) fn told(&self) -> LinkTold {
        LinkTold { refused: self.refusals.count(), trouble: self.trouble.clone() }
    }

    /// Takes in a connection that came to the link port.
    pub(crate) fn accepted(&mut self, turn: &mut RoundContext, socket: OwnedFd) {
        let host = far_host(&socket);
        let far = far_name(&socket);
        self.dial.refresh(turn.now);
        self.make_room(turn, host, &far);
        self.serial += 1;
        let id = ConnId(ACCEPTED | self.serial);
        let secure = (self.keys)().and_then(|keys| SecureLink::accept(&keys));
        self.start(turn, id, socket, (far, host), None, secure);
    }

    /// The oldest of those that have not proved their key gives way to one that comes now, if there are too many. Those
    /// from the peer's address and all others do not disturb each other.
    fn make_room(&mut self, turn: &mut RoundContext, host: Option<IpAddr>, far: &str) {
        let of_peer = self.is_peer_host(host);
        let most = if of_peer { LINKS_PEER_UNKNOWN_MAX } else { LINKS_UNKNOWN_MAX };
        let unknown = self.slots.iter().enumerate().filter_map(|(slot, link)| {
            let link = link.as_ref()?;
            let counts = link.was_accepted() && !link.proven && link.phase != Phase::Cut;
            (counts && self.is_peer_host(link.host) == of_peer).then_some((link.id, slot))
        });
        let (count, oldest) = unknown.fold((0, None), |(count, oldest), link| {
            (count + 1, Some(oldest.map_or(link, |oldest| link.min(oldest))))
        });
        if count < most {
            return;
        }
        let Some((_, slot)) = oldest else { return };
        if let Some(link) = self.slots.get_mut(slot).and_then(Option::as_mut) {
            let why = format!(
                "{} gives its slot to {far}: {count} connections are still to prove their key",
                link.far
            );
            self.refusals.note(turn, "slots", &why);
            link.cut(turn);
        }
        self.settle(turn, slot);
    }

    /// Does what the engine asks for.
    pub(crate) fn perform(&mut self, turn: &mut RoundContext, effect: LinkEffect) {
        match effect {
            LinkEffect::Connect { conn } => self.connect(turn, conn),
            LinkEffect::Send { conn, parts } => self.send(turn, conn, parts),
            LinkEffect::Fill { conn, buffer, until } => self.fill(conn, buffer, until),
            LinkEffect::Close { conn, abort } => self.close(turn, conn, abort),
        }
    }

    /// Begins a connection to the peer.
    fn connect(&mut self, turn: &mut RoundContext, conn: ConnId) {
        match self.dial.begin(conn, turn.now, turn.patience.handshake_ms) {
            Ok(Some(attempt)) => self.dial(turn, conn, attempt),
            Ok(None) => {}
            Err(why) => self.not_reached(turn, conn, why),
        }
    }

    /// The name service answered.
    pub(crate) fn found(&mut self, turn: &mut RoundContext, answer: io::Result<Vec<SocketAddr>>) {
        match self.dial.found(answer, turn.patience.handshake_ms) {
            Some((conn, Ok(attempt))) => self.dial(turn, conn, attempt),
            Some((conn, Err(why))) => self.not_reached(turn, conn, why),
            None => {}
        }
    }

    fn dial(&mut self, turn: &mut RoundContext, conn: ConnId, mut attempt: Attempt) {
        let far = self.dial.peer().to_string();
        let socket = loop {
            match dialling_socket(attempt.at) {
                Ok(socket) => break socket,
                Err(error) if !attempt.go_on(&error) => {
                    let why = format!("making a socket to connect to {far}: {}", attempt.troubles(&far));
                    return self.not_reached(turn, conn, why);
                }
                Err(_) => {}
            }
        };
        let secure = (self.keys)().and_then(|keys| SecureLink::dial(&keys));
        self.start(turn, conn, socket, (far, None), Some(attempt), secure);
    }

    /// A dial came to nothing before there was a connection.
    fn not_reached(&mut self, turn: &mut RoundContext, conn: ConnId, why: String) {
        self.dial.tell(&why);
        turn.events.push(Event::Link(LinkEvent::Closed { conn, why }));
    }

    fn start(
        &mut self,
        turn: &mut RoundContext,
        id: ConnId,
        socket: OwnedFd,
        (far, host): (String, Option<IpAddr>),
        attempt: Option<Attempt>,
        secure: Result<SecureLink, LinkSecurityError>,
    ) {
        let slot = self.slots.iter().position(Option::is_none).unwrap_or(self.slots.len());
        let most = if host.is_some() { LINKS_MAX - LINKS_OWN_KEPT } else { LINKS_MAX };
        let secure = match secure {
            Ok(secure) if slot < most => secure,
            Ok(_) => return self.turn_away(turn, id, &far, "too many link connections"),
            Err(error) => return self.turn_away(turn, id, &far, &error.to_string()),
        };
        tune(&socket);
        let phase = if attempt.is_some() { Phase::Connecting } else { Phase::Proving };
        let mut link = PeerConnection {
            id,
            socket: Arc::new(socket),
            far,
            host,
            phase,
            proven: false,
            secure,
            receiving: false,
            idle: None,
            sending: false,
            connecting: false,
            attempt,
            mistrust: Mistrust::None,
            queue: VecDeque::new(),
            plain: VecDeque::new(),
            owed: false,
            deadline: Some(turn.now.plus_ms(turn.patience.handshake_ms)),
        };
        if phase == Phase::Connecting {
            link.begin_connect(turn, slot, &mut self.dial);
        } else {
            link.begin_proof(turn, slot);
        }
        if slot == self.slots.len() {
            self.slots.push(Some(link));
        } else if let Some(place) = self.slots.get_mut(slot) {
            *place = Some(link);
        }
    }

    fn turn_away(&mut self, turn: &mut RoundContext, conn: ConnId, far: &str, trouble: &str) {
        if conn.0 & ACCEPTED == 0 {
            self.not_reached(turn, conn, format!("connecting to {far}: {trouble}"));
        } else {
            trouble.clone_into(&mut self.trouble);
            self.refusals.note(turn, trouble, &format!("refusing {far}: {trouble}"));
        }
    }

    /// Sends after all that was given before.
    fn send(&mut self, turn: &mut RoundContext, conn: ConnId, parts: Vec<Bytes>) {
        let Some((slot, link)) = self.find(conn) else { return };
        if link.phase != Phase::Established {
            return;
        }
        link.owed = true;
        link.plain.extend(parts);
        self.send_on(turn, slot);
        self.settle(turn, slot);
    }

    /// Ends a connection, after what was given is sent or at once.
    fn close(&mut self, turn: &mut RoundContext, conn: ConnId, abort: bool) {
        if self.dial.give_up(conn) {
            return;
        }
        let Some((slot, link)) = self.find(conn) else { return };
        if abort || link.phase < Phase::Established {
            link.cut(turn);
        } else if link.phase == Phase::Established {
            // The goodbye comes behind all that was given.
            if link.secure_some(usize::MAX).is_err() {
                link.cut(turn);
                return self.settle(turn, slot);
            }
            link.secure.close();
            link.pump(turn, slot);
            link.phase = Phase::Leaving;
            link.deadline = Some(turn.now.plus_ms(turn.patience.linger_ms));
        }
        self.settle(turn, slot);
    }

    /// A connect ended.
    pub(crate) fn connected(&mut self, turn: &mut RoundContext, slot: usize, result: io::Result<()>) {
        let Some(link) = self.slots.get_mut(slot).and_then(Option::as_mut) else { return };
        link.connecting = false;
        if link.phase == Phase::Connecting {
            match result {
                Ok(()) => link.begin_proof(turn, slot),
                Err(error) => self.try_next(turn, slot, error),
            }
        }
        self.settle(turn, slot);
    }

    /// An address of the peer does not answer: the next one is tried, if there is one.
    fn try_next(&mut self, turn: &mut RoundContext, slot: usize, mut error: io::Error) {
        let Some(link) = self.slots.get_mut(slot).and_then(Option::as_mut) else { return };
        let far = link.far.clone();
        let Some(attempt) = &mut link.attempt else { return };
        while attempt.go_on(&error) {
            match dialling_socket(attempt.at) {
                Ok(socket) => {
                    tune(&socket);
                    link.socket = Arc::new(socket);
                    return link.begin_connect(turn, slot, &mut self.dial);
                }
                Err(other) => error = other,
            }
        }
        let troubles = attempt.troubles(&far);
        self.lose(turn, slot, "connecting to", &troubles);
    }

    /// The engine wants what comes next in this buffer.
    fn fill(&mut self, conn: ConnId, buffer: AlignedBuf, until: usize) {
        if let Some((_, link)) = self.find(conn) {
            link.secure.give_room(Room { buffer, until });
        }
    }

    /// Receives on every connection on which the engine has seen all that came.
    pub(crate) fn read_on(&mut self, turn: &mut RoundContext) {
        for (slot, place) in self.slots.iter_mut().enumerate() {
            if let Some(link) = place
                && let Some(buffer) = link.idle.take()
            {
                link.receive(turn, slot, buffer);
            }
        }
    }

    /// A receive ended.
    pub(crate) fn received(&mut self, turn: &mut RoundContext, slot: usize, result: io::Result<Vec<u8>>) {
        let Some(link) = self.slots.get_mut(slot).and_then(Option::as_mut) else { return };
        link.receiving = false;
        let outcome = match result {
            _ if link.phase >= Phase::Leaving => Ok(()),
            Ok(bytes) if bytes.is_empty() => Err(link.end_of_stream()),
            Ok(bytes) => {
                let outcome = link.take_in(turn, slot, bytes);
                if link.proven && link.host.is_some() {
                    self.proven_host = link.host;
                }
                outcome
            }
            Err(error) => {
                link.note_cut();
                Err(plainly(&error))
            }
        };
        self.receive_ended(turn, slot, outcome);
    }

    /// A receive into the engine's buffer ended.
    pub(crate) fn filled(&mut self, turn: &mut RoundContext, slot: usize, result: io::Result<AlignedBuf>) {
        let Some(link) = self.slots.get_mut(slot).and_then(Option::as_mut) else { return };
        link.receiving = false;
        let outcome = match result {
            _ if link.phase >= Phase::Leaving => Ok(()),
            Ok(buffer) => {
                turn.events.push(Event::Link(LinkEvent::Filled { conn: link.id, buffer }));
                link.idle = Some(Vec::with_capacity(LINK_RECEIVE_LOOK));
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(link.end_of_stream()),
            Err(error) => Err(error.to_string()),
        };
        self.receive_ended(turn, slot, outcome);
    }

    fn receive_ended(&mut self, turn: &mut RoundContext, slot: usize, outcome: Result<(), String>) {
        let Some(link) = self.slots.get_mut(slot).and_then(Option::as_mut) else { return };
        if link.phase == Phase::Established {
            match link.attempt.take() {
                Some(attempt) => self.dial.reached(attempt.at),
                None => self.trouble.clear(),
            }
        }
        if let Err(trouble) = outcome {
            let doing =
                if link.phase == Phase::Established { "receiving from" } else { "proving the key of" };
            let trouble = link.mistrust.explain(trouble, &self.identity);
            // A TLS alert should still reach the other side, so that its operator sees the reason there too.
            link.pump(turn, slot);
            self.lose_gently(turn, slot, doing, &trouble);
        }
        self.settle(turn, slot);
    }

    /// A send ended.
    pub(crate) fn sent(&mut self, turn: &mut RoundContext, slot: usize, result: io::Result<()>) {
        let Some(link) = self.slots.get_mut(slot).and_then(Option::as_mut) else { return };
        link.sending = false;
        match result {
            Ok(()) => self.send_on(turn, slot),
            Err(error) => self.lose(turn, slot, "sending to", &error.to_string()),
        }
        self.settle(turn, slot);
    }

    /// Goes on with what the engine gave: what is sent, and as much ready behind it.
    fn send_on(&mut self, turn: &mut RoundContext, slot: usize) {
        let Some(link) = self.slots.get_mut(slot).and_then(Option::as_mut) else { return };
        if link.phase == Phase::Established
            && let Err(error) = link.secure_some(2 * SEND_BYTES_MAX)
        {
            return self.lose(turn, slot, "sending to", &error.to_string());
        }
        link.pump(turn, slot);
        link.tell_sent(turn);
    }

    /// When the next connection's patience ends.
    pub(crate) fn deadline(&self) -> Option<Mono> {
        let links = self.slots.iter().flatten().filter_map(|link| link.deadline).min();
        [links, self.dial.deadline()].into_iter().flatten().min()
    }

    /// Ends the connections whose time is over.
    pub(crate) fn expire(&mut self, turn: &mut RoundContext) {
        if let Some((conn, why)) = self.dial.expire(turn.now, turn.patience.handshake_ms) {
            self.not_reached(turn, conn, why);
        }
        for slot in 0..self.slots.len() {
            let Some(link) = self.slots.get_mut(slot).and_then(Option::as_mut) else { continue };
            if link.deadline.is_some_and(|at| at <= turn.now) && !link.turn_to_next(turn) {
                let (doing, trouble) = match &mut link.attempt {
                    Some(attempt) if link.phase == Phase::Connecting => {
                        ("connecting to", attempt.end_late(&link.far))
                    }
                    _ => ("proving the key of", format!("not done within {} ms", turn.patience.handshake_ms)),
                };
                self.lose(turn, slot, doing, &trouble);
                self.settle(turn, slot);
            }
        }
    }

    /// Whether anything given for sending was not taken by the operating system yet.
    pub(crate) fn unsent(&self) -> bool {
        let busy = |link: &PeerConnection| link.phase != Phase::Cut && (link.sending || link.has_more());
        self.slots.iter().flatten().any(busy)
    }

    /// Ends all connections at once.
    pub(crate) fn cut_all(&mut self, turn: &mut RoundContext) {
        for slot in 0..self.slots.len() {
            if let Some(link) = self.slots.get_mut(slot).and_then(Option::as_mut) {
                link.cut(turn);
            }
            self.settle(turn, slot);
        }
    }

    fn find(&mut self, conn: ConnId) -> Option<(usize, &mut PeerConnection)> {
        let (slot, place) = self
            .slots
            .iter_mut()
            .enumerate()
            .find(|(_, place)| place.as_ref().is_some_and(|link| link.id == conn))?;
        place.as_mut().map(|link| (slot, link))
    }

    /// The connection failed: tells whoever knows of it and cuts it.
    fn lose(&mut self, turn: &mut RoundContext, slot: usize, doing: &str, trouble: &str) {
        self.tell_lost(turn, slot, doing, trouble);
        if let Some(link) = self.slots.get_mut(slot).and_then(Option::as_mut) {
            link.cut(turn);
        }
    }

    /// The same, but what is queued may still be sent.
    fn lose_gently(&mut self, turn: &mut RoundContext, slot: usize, doing: &str, trouble: &str) {
        self.tell_lost(turn, slot, doing, trouble);
        if let Some(link) = self.slots.get_mut(slot).and_then(Option::as_mut) {
            link.plain.clear();
            link.phase = Phase::Leaving;
            link.deadline = Some(turn.now.plus_ms(turn.patience.linger_ms));
        }
    }

    fn tell_lost(&mut self, turn: &mut RoundContext, slot: usize, doing: &str, trouble: &str) {
        let Some(link) = self.slots.get(slot).and_then(Option::as_ref) else { return };
        if link.phase >= Phase::Leaving {
            return;
        }
        let why = format!("{doing} {}: {trouble}", link.far);
        if link.phase == Phase::Proving {
            if link.was_accepted() {
                self.trouble.clone_from(&why);
            }
            self.refusals.note(turn, &format!("{doing} {trouble}"), &why);
        }
        let (conn, phase) = (link.id, link.phase);
        if phase == Phase::Connecting {
            self.not_reached(turn, conn, why);
        } else if phase == Phase::Established || !link.was_accepted() {
            turn.events.push(Event::Link(LinkEvent::Closed { conn, why }));
        }
    }

    /// Cuts a leaving connection with nothing left to send; frees the slot when the driver holds nothing of it.
    fn settle(&mut self, turn: &mut RoundContext, slot: usize) {
        let Some(place) = self.slots.get_mut(slot) else { return };
        let Some(link) = place.as_mut() else { return };
        if link.phase == Phase::Leaving && !link.sending && link.queue.is_empty() {
            link.cut(turn);
        }
        if link.phase == Phase::Cut && !link.receiving && !link.sending && !link.connecting {
            *place = None;
        }
    }
}

impl PeerConnection {
    fn was_accepted(&self) -> bool {
        self.id.0 & ACCEPTED != 0
    }

    fn begin_connect(&mut self, turn: &mut RoundContext, slot: usize, dial: &mut Dial) {
        let Some(attempt) = &self.attempt else { return };
        dial.trying(attempt);
        self.connecting = true;
        self.deadline = Some(turn.now.plus_ms(attempt.each_ms));
        let op = Op::Connect(Arc::clone(&self.socket), attempt.at);
        turn.driver.submit(Target::LinkConnect(slot).token(), op);
    }

    /// Gives up an address of the peer that does not answer, if there is another: its completion goes on with that.
    fn turn_to_next(&mut self, turn: &mut RoundContext) -> bool {
        match &mut self.attempt {
            Some(attempt) if self.phase == Phase::Connecting && attempt.has_more() => {
                attempt.is_late = true;
                self.deadline = None;
                turn.driver.cancel(self.socket.as_raw_fd());
                true
            }
            _ => false,
        }
    }

    fn begin_proof(&mut self, turn: &mut RoundContext, slot: usize) {
        self.phase = Phase::Proving;
        self.deadline = Some(turn.now.plus_ms(turn.patience.handshake_ms));
        self.pump(turn, slot);
        self.receive(turn, slot, Vec::with_capacity(LINK_RECEIVE));
    }

    /// Receives into the engine's buffer if what comes needs no decryption, else into this one.
    fn receive(&mut self, turn: &mut RoundContext, slot: usize, mut buffer: Vec<u8>) {
        if self.phase >= Phase::Leaving {
            return;
        }
        if let Some(Room { buffer, until }) = self.secure.take_bare_room() {
            self.receiving = true;
            let goal = Goal { least: buffer.len() + 1, most: until };
            let op = Op::Fill(Arc::clone(&self.socket), buffer, goal);
            return turn.driver.submit(Target::LinkReceive(slot).token(), op);
        }
        buffer.clear();
        self.receiving = true;
        turn.driver.submit(Target::LinkReceive(slot).token(), Op::Receive(Arc::clone(&self.socket), buffer));
    }

    /// Bytes from the wire, to the engine once the peer is proven.
    fn take_in(&mut self, turn: &mut RoundContext, slot: usize, wire: Vec<u8>) -> Result<(), String> {
        if self.secure.is_bare() {
            turn.events.push(Event::Link(LinkEvent::Bytes { conn: self.id, bytes: Bytes::from(wire) }));
            self.idle = Some(Vec::with_capacity(LINK_RECEIVE));
            return Ok(());
        }
        let result = self.secure.wire_input(&wire);
        if self.phase == Phase::Proving && self.secure.is_established() {
            self.phase = Phase::Established;
            self.proven = true;
            self.deadline = None;
            let conn = self.id;
            let accepted = self.was_accepted();
            turn.events.push(if accepted {
                Event::Link(LinkEvent::Accepted { conn, from: self.far.clone() })
            } else {
                Event::Link(LinkEvent::Connected { conn })
            });
        }
        if let Some(buffer) = self.secure.take_filled() {
            turn.events.push(Event::Link(LinkEvent::Filled { conn: self.id, buffer }));
        }
        while let Some(bytes) = self.secure.take_plain() {
            turn.events.push(Event::Link(LinkEvent::Bytes { conn: self.id, bytes }));
        }
        self.pump(turn, slot);
        if matches!(result, Err(LinkSecurityError::NotTrustedThere)) {
            self.mistrust = Mistrust::Told;
        }
        result.map_err(|error| error.to_string())?;
        if self.secure.peer_closed() {
            return Err(self.end_of_stream());
        }
        self.idle =
            Some(if wire.capacity() < LINK_RECEIVE { Vec::with_capacity(LINK_RECEIVE) } else { wire });
        Ok(())
    }

    /// The connection ended from there.
    fn note_cut(&mut self) {
        if self.phase == Phase::Proving && !self.was_accepted() {
            self.mistrust = Mistrust::Likely;
        }
    }

    fn end_of_stream(&mut self) -> String {
        self.note_cut();
        self.secure
            .wire_end()
            .map_or_else(|error| error.to_string(), |()| "the peer closed the link".to_owned())
    }

    /// Whether anything waits to be sent.
    fn has_more(&self) -> bool {
        !self.queue.is_empty() || !self.plain.is_empty()
    }

    /// Secures what the engine gave until about so many bytes are ready to be sent.
    fn secure_some(&mut self, most: usize) -> Result<(), LinkSecurityError> {
        self.queue.extend(self.secure.take_wire());
        let mut ready: usize = self.queue.iter().map(Bytes::len).sum();
        while ready < most && !self.plain.is_empty() {
            self.secure.send_plain(&take_parts(&mut self.plain))?;
            for wire in self.secure.take_wire() {
                ready += wire.len();
                self.queue.push_back(wire);
            }
        }
        Ok(())
    }

    /// Starts a send of what is queued unless one is under way.
    fn pump(&mut self, turn: &mut RoundContext, slot: usize) {
        self.queue.extend(self.secure.take_wire());
        let ready = matches!(self.phase, Phase::Proving | Phase::Established | Phase::Leaving);
        if self.sending || self.queue.is_empty() || !ready {
            return;
        }
        let parts = take_parts(&mut self.queue);
        self.sending = true;
        turn.driver.submit(Target::LinkSend(slot).token(), Op::Send(Arc::clone(&self.socket), parts));
    }

    /// Tells the engine that nothing of what it gave waits any more, or that there is less of it.
    fn tell_sent(&mut self, turn: &mut RoundContext) {
        if self.phase != Phase::Established || !self.owed {
            return;
        }
        if self.sending {
            return turn.events.push(Event::Link(LinkEvent::Moved { conn: self.id }));
        }
        self.owed = false;
        turn.events.push(Event::Link(LinkEvent::Sent { conn: self.id }));
    }

    fn cut(&mut self, turn: &mut RoundContext) {
        self.queue.clear();
        self.plain.clear();
        self.idle = None;
        self.deadline = None;
        if self.phase != Phase::Cut {
            self.phase = Phase::Cut;
            turn.driver.cancel(self.socket.as_raw_fd());
        }
    }
}

fn dialling_socket(at: SocketAddr) -> io::Result<OwnedFd> {
    let family = if at.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    Ok(socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?)
}

/// What goes out in one send: not too much, so that progress on a slow link is seen.
fn take_parts(queue: &mut VecDeque<Bytes>) -> Vec<Bytes> {
    let (mut parts, mut left) = (Vec::new(), SEND_BYTES_MAX);
    while parts.len() < SEND_PARTS_MAX
        && left > 0
        && let Some(mut part) = queue.pop_front()
    {
        let now = part.split_to(part.len().min(left));
        left -= now.len();
        parts.push(now);
        if !part.is_empty() {
            queue.push_front(part);
        }
    }
    parts
}

/// Small frames must not wait for each other, and a peer that vanished must not hold a socket for ever. A socket
/// without these still works, so a failure changes nothing.
fn tune(socket: &OwnedFd) {
    let unacked = u32::try_from(LINK_UNACKED_MS).expect("a few seconds fit");
    let _ = setsockopt(socket, sockopt::TcpNoDelay, &true);
    let _ = setsockopt(socket, sockopt::KeepAlive, &true);
    let _ = setsockopt(socket, sockopt::TcpUserTimeout, &unacked);
}

/// The other end's host.
fn far_host(socket: &OwnedFd) -> Option<IpAddr> {
    let address = getpeername::<SockaddrStorage>(socket.as_raw_fd()).ok()?;
    let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip()).to_canonical()))
}

/// The other end's address, for people.
fn far_name(socket: &OwnedFd) -> String {
    getpeername::<SockaddrStorage>(socket.as_raw_fd())
        .map_or_else(|_| "an unknown address".to_owned(), |address| address.to_string())
}

#[cfg(test)]
#[path = "link_tests.rs"]
mod tests;

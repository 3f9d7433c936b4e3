//! The clients' connections, of both doors: bytes in when the engine allows it, bytes out in order, bounded patience.
//!
//! A slot is free again only when none of its operations is under way, so a token that names a slot is never
//! ambiguous. The slot's number is part of the [`ConnId`], so that an effect finds its connection without a search.

use super::core::{DoorKeys, RoundContext, Target};
use super::door_tls::DoorSession;
use super::guesses::Guesses;
use super::incidents::RateLimited;
use crate::base::limits::{
    CLIENT_RECEIVE_MAX, CLIENT_RECEIVE_MIN, CLIENTS_KEPT, CLIENTS_MAX, CLIENTS_UNPROVEN_MAX, NBD_CLIENTS_MAX,
    NBD_KEPT, NBD_STUCK_MS, NBD_UNPROVEN_MAX, SEND_BYTES_MAX, SEND_PARTS_MAX,
};
use crate::base::{Admission, AlignedBuf, ConnId, Mono, Places, Rank};
use crate::engine::incidents::Matter;
use crate::engine::{ClientDoor, ClientEffect, ClientEvent, ClientPlace, Event};
use crate::io::{Goal, Op};
use bytes::Bytes;
use nix::sys::socket::{SockaddrStorage, getpeername, getsockname};
use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

/// One receive of a client that speaks TLS (bytes).
const TLS_RECEIVE: usize = 64 << 10;
const SLOT_BITS: u32 = 16;
const SLOT_MASK: u64 = (1 << SLOT_BITS) - 1;
const _: () = assert!(CLIENTS_MAX + NBD_CLIENTS_MAX < 1 << (SLOT_BITS - 1));
/// Where few sockets may be open, one part in so many of them is for clients of volumes.
const NBD_SHARE: usize = 8;

/// All clients.
#[derive(Debug)]
pub(crate) struct Clients {
    /// Those of items and of volumes.
    doors: [Gate; 2],
    slots: Vec<Option<Client>>,
    free: Vec<usize>,
    serial: u64,
    /// Clients that were told to go, oldest first, and when patience with them ends.
    lingering: VecDeque<(Mono, ConnId)>,
    /// Clients that ended their stream, oldest first, and when patience with them ends.
    ended: VecDeque<(Mono, ConnId)>,
    guesses: Guesses,
    /// Clients that are not read from before a time, as somebody at their address guesses passwords.
    parked: BTreeSet<(Mono, ConnId)>,
}

/// Who may come in by a door, and who could not.
#[derive(Debug)]
struct Gate {
    name: &'static str,
    places: Places<ConnId>,
    refusals: RateLimited,
}

#[derive(Debug)]
struct Client {
    id: ConnId,
    socket: Arc<OwnedFd>,
    /// It is one of volumes.
    blocks: bool,
    rank: Rank,
    /// Its address, for people.
    far: String,
    host: Option<IpAddr>,
    /// The engine knows who it is.
    proven: bool,
    /// What to receive into when its address is listened to again.
    parked: Option<(Mono, Vec<u8>)>,
    /// The end of what it sends is waited for.
    watching: bool,
    end: End,
    /// Its TLS, once it asked for that.
    tls: Option<Box<Secured>>,
    /// A receive is under way.
    receiving: bool,
    /// A send is under way, and how many of the engine's sends it carries.
    sending: Option<usize>,
    queue: VecDeque<Part>,
    /// What the next buffer should hold (bytes).
    wanted: usize,
    /// The engine was told that it is gone; nothing more comes from it.
    told: bool,
    /// To be ended once the queue is sent.
    leaving: bool,
    /// The socket was cut; only completions are waited for.
    cut: bool,
}

impl Clients {
    /// None yet; at most `limit` at once, and never more than [`CLIENTS_MAX`] and [`NBD_CLIENTS_MAX`].
    pub(crate) fn new(limit: usize) -> Self {
        let nbd = NBD_CLIENTS_MAX.min(limit / NBD_SHARE);
        let resp = CLIENTS_MAX.min(limit - nbd);
        let gate = |name, places| Gate { name, places, refusals: RateLimited::new(Matter::ClientRefused) };
        Self {
            doors: [
                gate("the RESP door", Places::new(resp, CLIENTS_KEPT, CLIENTS_UNPROVEN_MAX)),
                gate("the NBD door", Places::new(nbd, NBD_KEPT, NBD_UNPROVEN_MAX)),
            ],
            slots: Vec::new(),
            free: Vec::new(),
            serial: 0,
            lingering: VecDeque::new(),
            ended: VecDeque::new(),
            guesses: Guesses::default(),
            parked: BTreeSet::new(),
        }
    }

    /// Clients refused since the start, at the RESP and at the NBD door.
    pub(crate) fn refusals(&self) -> [u64; 2] {
        [self.doors[0].refusals.count(), self.doors[1].refusals.count()]
    }

    /// Takes a new connection in; gives the socket back when there are too many.
    pub(crate) fn open(
        &mut self,
        turn: &mut RoundContext,
        socket: OwnedFd,
        door: ClientDoor,
        rank: Rank,
    ) -> Result<(), OwnedFd> {
        let blocks = matches!(door, ClientDoor::Blocks { .. });
        let (far, host) = (far_name(&socket), far_host(&socket));
        if !self.admit(turn, blocks, rank, &far) {
            return Err(socket);
        }
        let place = matches!(door, ClientDoor::Items { .. }).then(|| Box::new(place_of(&socket)));
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.serial += 1;
        let conn = ConnId(self.serial << SLOT_BITS | slot as u64);
        let client = Client {
            id: conn,
            socket: Arc::new(socket),
            blocks,
            rank,
            far,
            host,
            proven: false,
            parked: None,
            watching: false,
            end: End::Open,
            tls: None,
            receiving: false,
            sending: None,
            queue: VecDeque::new(),
            wanted: CLIENT_RECEIVE_MIN,
            told: false,
            leaving: false,
            cut: false,
        };
        if let Some(place) = self.slots.get_mut(slot) {
            place.insert(client).watch(turn, slot);
        }
        self.doors[usize::from(blocks)].places.take(rank, conn);
        turn.events.push(Event::Client(ClientEvent::Opened { conn, door }));
        if let Some(place) = place {
            turn.events.push(Event::Client(ClientEvent::Placed { conn, place }));
        }
        Ok(())
    }

    /// Whether there is a place for one more, which may be that of somebody who has not proved who it is.
    fn admit(&mut self, turn: &mut RoundContext, blocks: bool, rank: Rank, far: &str) -> bool {
        let gate = &mut self.doors[usize::from(blocks)];
        match gate.places.admit(rank) {
            Admission::Free => true,
            Admission::InsteadOf(oldest) => {
                let slot = usize::try_from(oldest.0 & SLOT_MASK).unwrap_or(usize::MAX);
                let Some(client) = self.slots.get_mut(slot).and_then(Option::as_mut) else { return false };
                gate.places.settle(client.rank, oldest);
                let why = format!(
                    "{} at {} gives its place to {far}: too many are there that have not proved who they are",
                    client.far, gate.name
                );
                gate.refusals.note(turn, "unproven", &why);
                client.lose(turn);
                self.settle(turn, slot);
                true
            }
            Admission::Full => {
                gate.refusals.note(
                    turn,
                    "full",
                    &format!("refusing {far}: all places of {} are taken", gate.name),
                );
                false
            }
        }
    }

    /// Does what the engine asks for.
    pub(crate) fn perform(&mut self, turn: &mut RoundContext, effect: ClientEffect, keys: &DoorKeys) {
        match effect {
            ClientEffect::Send { conn, bytes } => self.send(turn, conn, bytes),
            ClientEffect::Receive { conn, buffer } => self.receive(turn, conn, buffer),
            ClientEffect::StartTls { conn } => self.start_tls(turn, conn, keys),
            ClientEffect::Fill { conn, buffer, until } => self.fill(turn, conn, buffer, until),
            ClientEffect::Proven { conn } => self.proven(conn),
            ClientEffect::Guessed { conn } => self.guessed(turn, conn),
            ClientEffect::Refused { conn, why } => self.refused(turn, conn, &why),
            ClientEffect::Close { conn, stuck: false } => self.close(turn, conn),
            ClientEffect::Close { conn, stuck: true } => self.cut_stuck(turn, conn),
        }
    }

    /// The engine knows who it is.
    fn proven(&mut self, conn: ConnId) {
        if let Some((_, client)) = self.find(conn) {
            client.proven = true;
            let (gate, rank) = (usize::from(client.blocks), client.rank);
            self.doors[gate].places.settle(rank, conn);
        }
    }

    /// It gave a wrong password: for a while nothing more is read from its address, but from those who gave the right one.
    fn guessed(&mut self, turn: &mut RoundContext, conn: ConnId) {
        let Some((_, client)) = self.find(conn) else { return };
        let (far, host) = (client.far.clone(), client.host);
        if let Some(host) = host {
            self.guesses.wrong(host, turn.now);
        }
        let reason = host.map_or_else(|| far.clone(), |host| host.to_string());
        let gate = &mut self.doors[0];
        gate.refusals.note(turn, &reason, &format!("{far} gave a wrong password at {}", gate.name));
    }

    /// The engine denied it what it came for.
    fn refused(&mut self, turn: &mut RoundContext, conn: ConnId, why: &str) {
        if let Some((_, client)) = self.find(conn) {
            let (at, far) = (usize::from(client.blocks), client.far.clone());
            let gate = &mut self.doors[at];
            gate.refusals.note(turn, why, &format!("{far} was refused at {}: {why}", gate.name));
        }
    }

    /// Reads from a client once.
    fn receive(&mut self, turn: &mut RoundContext, conn: ConnId, mut buffer: Vec<u8>) {
        let Some((slot, client)) = self.find(conn) else { return };
        if client.told || client.leaving || client.receiving || client.end == End::Drained {
            return;
        }
        buffer.clear();
        if buffer.capacity() < client.wanted || buffer.capacity() > client.wanted.saturating_mul(4) {
            buffer = Vec::with_capacity(client.wanted);
        }
        if let Some(tls) = &mut client.tls {
            tls.wanted = Some(Wanted::Some(buffer));
            client.serve_secured(turn, slot);
            return self.settle(turn, slot);
        }
        let host = client.host.filter(|_| !client.proven && !client.blocks);
        if let Some(until) = host.and_then(|host| self.guesses.until(host, turn.now)) {
            let Some((_, client)) = self.find(conn) else { return };
            client.parked = Some((until, buffer));
            self.parked.insert((until, conn));
            return;
        }
        let Some((slot, client)) = self.find(conn) else { return };
        client.read(turn, slot, buffer);
    }

    /// Reads from those who were not listened to, and whose time is over.
    fn unpark(&mut self, turn: &mut RoundContext) {
        while let Some((until, conn)) = self.parked.first().copied().filter(|(until, _)| *until <= turn.now) {
            self.parked.remove(&(until, conn));
            if let Some((slot, client)) = self.find(conn)
                && let Some((_, buffer)) = client.parked.take()
                && !client.told
                && !client.leaving
            {
                client.read(turn, slot, buffer);
            }
        }
    }

    /// Receives into the buffer, behind what is in it, until it holds so much.
    fn fill(&mut self, turn: &mut RoundContext, conn: ConnId, buffer: AlignedBuf, until: usize) {
        let Some((slot, client)) = self.find(conn) else { return };
        if client.told || client.leaving || client.receiving {
            return;
        }
        if let Some(tls) = &mut client.tls {
            tls.wanted = Some(Wanted::Until(buffer, until));
            client.serve_secured(turn, slot);
            return self.settle(turn, slot);
        }
        client.receiving = true;
        let op = Op::Fill(Arc::clone(&client.socket), buffer, Goal::all(until));
        turn.driver.submit(Target::ClientFill(slot).token(), op);
    }

    /// From here on the connection is TLS; the client speaks first.
    fn start_tls(&mut self, turn: &mut RoundContext, conn: ConnId, keys: &DoorKeys) {
        let Some((slot, client)) = self.find(conn) else { return };
        let session = keys(called_at(&client.socket))
            .and_then(|config| DoorSession::new(config).map_err(|error| error.to_string()));
        match session {
            Ok(session) => {
                client.tls =
                    Some(Box::new(Secured { session, plain: Vec::new(), wanted: None, told: false }));
                client.read(turn, slot, Vec::with_capacity(TLS_RECEIVE));
            }
            Err(error) => {
                tracing::warn!("securing a client's connection: {error}");
                client.lose(turn);
            }
        }
        self.settle(turn, slot);
    }

    /// Sends after all that was given before.
    fn send(&mut self, turn: &mut RoundContext, conn: ConnId, bytes: Bytes) {
        let Some((slot, client)) = self.find(conn) else { return };
        if client.told || client.leaving {
            return;
        }
        match &mut client.tls {
            None => client.queue.push_back(Part { bytes, counts: true }),
            Some(tls) => {
                // Only memory can fail, and does not.
                let _ = tls.session.send(&bytes);
                client.queue.push_back(Part { bytes: tls.session.take_wire(), counts: true });
            }
        }
        client.pump(turn, slot);
    }

    /// Ends a connection once what was given is sent, or when patience ends.
    fn close(&mut self, turn: &mut RoundContext, conn: ConnId) {
        let Some((slot, client)) = self.find(conn) else { return };
        if client.leaving {
            return;
        }
        client.tell_gone(turn);
        client.leaving = true;
        if let Some(tls) = &mut client.tls {
            tls.session.close();
            client.queue.push_back(Part { bytes: tls.session.take_wire(), counts: false });
            client.pump(turn, slot);
        }
        self.lingering.push_back((turn.now.plus_ms(turn.patience.linger_ms), conn));
        self.settle(turn, slot);
    }

    /// Ends a connection at once whose client takes nothing.
    fn cut_stuck(&mut self, turn: &mut RoundContext, conn: ConnId) {
        let Some((slot, client)) = self.find(conn) else { return };
        let unsent: usize = client.queue.iter().map(|part| part.bytes.len()).sum();
        tracing::warn!(
            "a client took nothing of what waits for it for {} s and is cut; {unsent} bytes and what is being sent \
             are dropped",
            NBD_STUCK_MS / 1000
        );
        client.lose(turn);
        self.settle(turn, slot);
    }

    /// A receive ended.
    pub(crate) fn received(&mut self, turn: &mut RoundContext, slot: usize, result: io::Result<Vec<u8>>) {
        let Some(client) = self.slots.get_mut(slot).and_then(Option::as_mut) else { return };
        client.receiving = false;
        match result {
            Ok(bytes) if client.tls.is_some() => {
                let conn = client.id;
                if let Some(why) = client.secured_bytes(turn, slot, bytes) {
                    self.refused(turn, conn, &why);
                    self.lingering.push_back((turn.now.plus_ms(turn.patience.linger_ms), conn));
                }
            }
            Ok(bytes) if !bytes.is_empty() => {
                client.adapt(bytes.len());
                if !client.told {
                    turn.events.push(Event::Client(ClientEvent::Bytes { conn: client.id, bytes }));
                }
            }
            Ok(_) => self.saw_end(turn, slot, End::Drained),
            Err(_) => client.lose(turn),
        }
        self.settle(turn, slot);
    }

    /// The other side sends no more, whether or not all that it sent was received.
    pub(crate) fn ended(&mut self, turn: &mut RoundContext, slot: usize) {
        let Some(client) = self.slots.get_mut(slot).and_then(Option::as_mut) else { return };
        client.watching = false;
        self.saw_end(turn, slot, End::Seen);
        self.settle(turn, slot);
    }

    /// A client of items may still read what is owed to it. One of volumes says goodbye, or is gone: what it sent and
    /// what waits for it is dropped.
    fn saw_end(&mut self, turn: &mut RoundContext, slot: usize, end: End) {
        let Some(client) = self.slots.get_mut(slot).and_then(Option::as_mut) else { return };
        if client.told || client.end >= end {
            return;
        }
        if client.blocks {
            return client.lose(turn);
        }
        if client.end == End::Open {
            self.ended.push_back((turn.now.plus_ms(turn.patience.ended_ms), client.id));
        }
        client.end = end;
        turn.events.push(Event::Client(ClientEvent::Ended { conn: client.id, drained: end == End::Drained }));
    }

    /// A fill ended.
    pub(crate) fn filled(&mut self, turn: &mut RoundContext, slot: usize, result: io::Result<AlignedBuf>) {
        let Some(client) = self.slots.get_mut(slot).and_then(Option::as_mut) else { return };
        client.receiving = false;
        match result {
            Ok(buffer) if !client.told => {
                // Most of what a larger buffer would take next is of a payload like this one, and would be copied.
                client.wanted = CLIENT_RECEIVE_MIN;
                turn.events.push(Event::Client(ClientEvent::Filled { conn: client.id, buffer }));
            }
            Ok(_) => {}
            Err(_) => client.lose(turn),
        }
        self.settle(turn, slot);
    }

    /// A send ended.
    pub(crate) fn sent(&mut self, turn: &mut RoundContext, slot: usize, result: &io::Result<()>) {
        let Some(client) = self.slots.get_mut(slot).and_then(Option::as_mut) else { return };
        let covered = client.sending.take().unwrap_or(0);
        match result {
            Ok(()) => {
                if !client.told {
                    let conn = client.id;
                    turn.events.extend(
                        std::iter::repeat_with(|| Event::Client(ClientEvent::Sent { conn })).take(covered),
                    );
                }
                client.pump(turn, slot);
            }
            Err(_) => client.lose(turn),
        }
        self.settle(turn, slot);
    }

    /// When patience with the first of those that were told to go ends.
    pub(crate) fn deadline(&self) -> Option<Mono> {
        let first = [self.lingering.front(), self.ended.front(), self.parked.first()];
        first.into_iter().flatten().map(|(until, _)| *until).min()
    }

    /// Cuts those whose time is over.
    pub(crate) fn expire(&mut self, turn: &mut RoundContext) {
        self.unpark(turn);
        let now = turn.now;
        let due = |list: &mut VecDeque<(Mono, ConnId)>| {
            let (until, conn) = *list.front()?;
            (until <= now).then(|| list.pop_front()).map(|_| conn)
        };
        while let Some(conn) = due(&mut self.lingering).or_else(|| due(&mut self.ended)) {
            if let Some((slot, client)) = self.find(conn) {
                client.lose(turn);
                self.settle(turn, slot);
            }
        }
    }

    /// Whether anything given for sending was not taken by the operating system yet.
    pub(crate) fn unsent(&self) -> bool {
        self.slots
            .iter()
            .flatten()
            .any(|client| !client.cut && (client.sending.is_some() || !client.queue.is_empty()))
    }

    /// Ends all connections at once.
    pub(crate) fn cut_all(&mut self, turn: &mut RoundContext) {
        for slot in 0..self.slots.len() {
            if let Some(client) = self.slots.get_mut(slot).and_then(Option::as_mut) {
                client.lose(turn);
            }
            self.settle(turn, slot);
        }
    }

    fn find(&mut self, conn: ConnId) -> Option<(usize, &mut Client)> {
        let slot = usize::try_from(conn.0 & SLOT_MASK).ok()?;
        let client = self.slots.get_mut(slot)?.as_mut()?;
        (client.id == conn).then_some((slot, client))
    }

    /// Cuts a client that has nothing left to wait for, and frees its slot when the driver holds nothing of it.
    fn settle(&mut self, turn: &mut RoundContext, slot: usize) {
        let Some(place) = self.slots.get_mut(slot) else { return };
        let Some(client) = place.as_mut() else { return };
        if client.leaving && client.queue.is_empty() && client.sending.is_none() {
            client.lose(turn);
        }
        if client.cut && !client.receiving && !client.watching && client.sending.is_none() {
            let (gate, rank, conn) = (usize::from(client.blocks), client.rank, client.id);
            if let Some((until, _)) = client.parked {
                self.parked.remove(&(until, conn));
            }
            *place = None;
            self.free.push(slot);
            self.doors[gate].places.leave(rank, conn);
        }
    }
}

/// What is known of the end of what a client sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    /// It may send more.
    Open,
    /// It sends no more, but something may be left to receive.
    Seen,
    /// Nothing is left.
    Drained,
}

/// Where a connection comes from and to, in Redis's form; empty where the kernel does not tell.
fn place_of(socket: &OwnedFd) -> ClientPlace {
    let fd = socket.as_raw_fd();
    let local = getsockname::<SockaddrStorage>(fd).ok();
    if let Some(unix) = local.as_ref().and_then(SockaddrStorage::as_unix_addr) {
        let path = unix.path().map(|path| path.display().to_string()).unwrap_or_default();
        let name = format!("{path}:0");
        return ClientPlace { remote: name.clone(), local: name, fd, unix: true };
    }
    let text = |address: Option<SockaddrStorage>| address.map(|a| a.to_string()).unwrap_or_default();
    ClientPlace { remote: text(getpeername(fd).ok()), local: text(local), fd, unix: false }
}

/// What is to be sent.
#[derive(Debug)]
struct Part {
    bytes: Bytes,
    /// It is one of the engine's sends, which hears of it.
    counts: bool,
}

/// A client's TLS, and what the engine waits for of it.
#[derive(Debug)]
struct Secured {
    session: DoorSession,
    /// Decrypted, not yet asked for.
    plain: Vec<u8>,
    wanted: Option<Wanted>,
    /// The engine knows that the connection is secure.
    told: bool,
}

/// What the engine asked for.
#[derive(Debug)]
enum Wanted {
    /// Anything.
    Some(Vec<u8>),
    /// A buffer filled so far.
    Until(AlignedBuf, usize),
}

fn far_host(socket: &OwnedFd) -> Option<IpAddr> {
    host_of(&getpeername::<SockaddrStorage>(socket.as_raw_fd()).ok()?)
}

/// The address of this machine that a client called.
fn called_at(socket: &OwnedFd) -> Option<IpAddr> {
    host_of(&getsockname::<SockaddrStorage>(socket.as_raw_fd()).ok()?)
}

fn host_of(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip()).to_canonical()))
}

/// The other end's address, for people.
fn far_name(socket: &OwnedFd) -> String {
    match getpeername::<SockaddrStorage>(socket.as_raw_fd()) {
        Ok(address) if address.as_unix_addr().is_none() => address.to_string(),
        Ok(_) => "a Unix socket".to_owned(),
        Err(_) => "an unknown address".to_owned(),
    }
}

impl Client {
    fn watch(&mut self, turn: &mut RoundContext, slot: usize) {
        self.watching = true;
        turn.driver.submit(Target::ClientEnd(slot).token(), Op::AwaitEnd(Arc::clone(&self.socket)));
    }

    fn read(&mut self, turn: &mut RoundContext, slot: usize, buffer: Vec<u8>) {
        self.receiving = true;
        let op = Op::Receive(Arc::clone(&self.socket), buffer);
        turn.driver.submit(Target::ClientReceive(slot).token(), op);
    }

    /// Bytes of the wire came, or its end; why the client is refused if they are no good.
    fn secured_bytes(&mut self, turn: &mut RoundContext, slot: usize, bytes: Vec<u8>) -> Option<String> {
        let tls = self.tls.as_mut()?;
        if bytes.is_empty() {
            self.lose(turn);
            return None;
        }
        let result = tls.session.wire_input(&bytes, &mut tls.plain);
        let wire = tls.session.take_wire();
        if !wire.is_empty() {
            self.queue.push_back(Part { bytes: wire, counts: false });
            self.pump(turn, slot);
        }
        if let Err(error) = result {
            self.tell_gone(turn);
            // Gone once it was told why.
            self.leaving = true;
            return Some(format!("its TLS failed: {error}"));
        }
        self.serve_secured(turn, slot);
        if self.tls.as_ref().is_some_and(|tls| tls.session.peer_closed()) {
            self.lose(turn);
        }
        None
    }

    /// Gives the engine what it waits for, as far as it is there, and reads on.
    fn serve_secured(&mut self, turn: &mut RoundContext, slot: usize) {
        let (conn, told) = (self.id, self.told);
        let Some(tls) = &mut self.tls else { return };
        if tls.session.is_established() && !std::mem::replace(&mut tls.told, true) && !told {
            turn.events.push(Event::Client(ClientEvent::Secured { conn }));
        }
        match tls.wanted.take() {
            Some(Wanted::Some(mut buffer)) if !tls.plain.is_empty() => {
                buffer.clear();
                std::mem::swap(&mut buffer, &mut tls.plain);
                turn.events.push(Event::Client(ClientEvent::Bytes { conn, bytes: buffer }));
            }
            Some(Wanted::Until(mut buffer, until)) => {
                let some = tls.plain.len().min(until.saturating_sub(buffer.len()));
                buffer.extend_from_slice(tls.plain.get(..some).unwrap_or_default());
                tls.plain.drain(..some);
                if buffer.len() >= until {
                    turn.events.push(Event::Client(ClientEvent::Filled { conn, buffer }));
                } else {
                    tls.wanted = Some(Wanted::Until(buffer, until));
                }
            }
            other => tls.wanted = other,
        }
        // Before the end of the handshake nobody has to ask.
        let reads_on = tls.wanted.is_some() || !tls.told;
        if reads_on && !self.receiving && !self.told && !self.leaving && !self.cut {
            self.read(turn, slot, Vec::with_capacity(TLS_RECEIVE));
        }
    }

    /// Starts a send of what is queued unless one is under way.
    fn pump(&mut self, turn: &mut RoundContext, slot: usize) {
        if self.sending.is_some() || self.queue.is_empty() || self.cut {
            return;
        }
        let (mut parts, mut counted, mut left) = (Vec::new(), 0, SEND_BYTES_MAX);
        while parts.len() < SEND_PARTS_MAX
            && left > 0
            && let Some(part) = self.queue.front_mut()
        {
            // A long one goes out in pieces: the kernel copies each within the round.
            let now = part.bytes.split_to(part.bytes.len().min(left));
            left -= now.len();
            parts.push(now);
            if part.bytes.is_empty() {
                counted += usize::from(part.counts);
                self.queue.pop_front();
            }
        }
        self.sending = Some(counted);
        turn.driver.submit(Target::ClientSend(slot).token(), Op::Send(Arc::clone(&self.socket), parts));
    }

    /// Larger buffers for a client that fills them, smaller ones for a client that does not.
    fn adapt(&mut self, received: usize) {
        if received >= self.wanted {
            self.wanted = self.wanted.saturating_mul(4).min(CLIENT_RECEIVE_MAX);
        } else if received < self.wanted / 16 {
            self.wanted = (self.wanted / 2).max(CLIENT_RECEIVE_MIN);
        }
    }

    /// The connection is over; what is not sent is dropped.
    fn lose(&mut self, turn: &mut RoundContext) {
        self.tell_gone(turn);
        self.queue.clear();
        if !std::mem::replace(&mut self.cut, true) {
            turn.driver.cancel(self.socket.as_raw_fd());
        }
    }

    fn tell_gone(&mut self, turn: &mut RoundContext) {
        if !std::mem::replace(&mut self.told, true) {
            turn.events.push(Event::Client(ClientEvent::Closed { conn: self.id }));
        }
    }
}

#[cfg(test)]
#[path = "clients_tests.rs"]
mod tests;

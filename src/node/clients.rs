//! The clients' connections, of both doors: bytes in when the engine allows it, bytes out in order, bounded patience.
//!
//! A slot is free again only when none of its operations is under way, so a token that names a slot is never
//! ambiguous. The slot's number is part of the [`ConnId`], so that an effect finds its connection without a search.

use super::core::{Target, Turn};
use super::door_tls::DoorSession;
use crate::base::limits::{
    CLIENT_RECEIVE_MAX, CLIENT_RECEIVE_MIN, CLIENTS_MAX, NBD_STUCK_MS, SEND_BYTES_MAX, SEND_PARTS_MAX,
};
use crate::base::{AlignedBuf, ConnId, Mono};
use crate::engine::{ClientDoor, ClientPlace, Event};
use crate::io::{Goal, Op};
use bytes::Bytes;
use nix::sys::socket::{SockaddrStorage, getpeername, getsockname};
use rustls::ServerConfig;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

/// One receive of a client that speaks TLS (bytes).
const TLS_RECEIVE: usize = 64 << 10;
const SLOT_BITS: u32 = 16;
const SLOT_MASK: u64 = (1 << SLOT_BITS) - 1;
const _: () = assert!(CLIENTS_MAX < 1 << SLOT_BITS);

/// All clients.
#[derive(Debug)]
pub(crate) struct Clients {
    limit: usize,
    slots: Vec<Option<Client>>,
    free: Vec<usize>,
    serial: u64,
    /// Clients that were told to go, oldest first, and when patience with them ends.
    lingering: VecDeque<(Mono, ConnId)>,
}

#[derive(Debug)]
struct Client {
    id: ConnId,
    socket: Arc<OwnedFd>,
    /// It is one of volumes.
    blocks: bool,
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
    /// None yet; at most `limit` at once, and never more than [`CLIENTS_MAX`].
    pub(crate) fn new(limit: usize) -> Self {
        let limit = limit.min(CLIENTS_MAX);
        Self { limit, slots: Vec::new(), free: Vec::new(), serial: 0, lingering: VecDeque::new() }
    }

    /// How many sockets are held.
    fn count(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Takes a new connection in; gives the socket back when there are too many.
    pub(crate) fn open(&mut self, turn: &mut Turn, socket: OwnedFd, door: ClientDoor) -> Result<(), OwnedFd> {
        if self.count() >= self.limit {
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
            blocks: matches!(door, ClientDoor::Blocks { .. }),
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
            *place = Some(client);
        }
        turn.events.push(Event::ClientOpened { conn, door });
        if let Some(place) = place {
            turn.events.push(Event::ClientPlaced { conn, place });
        }
        Ok(())
    }

    /// Reads from a client once.
    pub(crate) fn receive(&mut self, turn: &mut Turn, conn: ConnId, mut buffer: Vec<u8>) {
        let Some((slot, client)) = self.find(conn) else { return };
        if client.told || client.leaving || client.receiving {
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
        client.read(turn, slot, buffer);
    }

    /// Receives into the buffer, behind what is in it, until it holds so much.
    pub(crate) fn fill(&mut self, turn: &mut Turn, conn: ConnId, buffer: AlignedBuf, until: usize) {
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
    pub(crate) fn start_tls(
        &mut self,
        turn: &mut Turn,
        conn: ConnId,
        config: Result<Arc<ServerConfig>, String>,
    ) {
        let Some((slot, client)) = self.find(conn) else { return };
        let session = config.and_then(|config| DoorSession::new(config).map_err(|error| error.to_string()));
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
    pub(crate) fn send(&mut self, turn: &mut Turn, conn: ConnId, bytes: Bytes) {
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
    pub(crate) fn close(&mut self, turn: &mut Turn, conn: ConnId) {
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
    pub(crate) fn cut_stuck(&mut self, turn: &mut Turn, conn: ConnId) {
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
    pub(crate) fn received(&mut self, turn: &mut Turn, slot: usize, result: io::Result<Vec<u8>>) {
        let Some(client) = self.slots.get_mut(slot).and_then(Option::as_mut) else { return };
        client.receiving = false;
        match result {
            Ok(bytes) if client.tls.is_some() => client.secured_bytes(turn, slot, bytes),
            Ok(bytes) if !bytes.is_empty() => {
                client.adapt(bytes.len());
                if !client.told {
                    turn.events.push(Event::ClientBytes { conn: client.id, bytes });
                }
            }
            // Of volumes no client does that: it says goodbye, or is gone, and nothing is kept for it.
            Ok(_) if client.blocks || client.queue.is_empty() && client.sending.is_none() => {
                client.lose(turn)
            }
            // The client sends no more, but may still read the answers that are on their way.
            Ok(_) => {
                client.tell_gone(turn);
                if !client.leaving {
                    client.leaving = true;
                    self.lingering.push_back((turn.now.plus_ms(turn.patience.linger_ms), client.id));
                }
            }
            Err(_) => client.lose(turn),
        }
        self.settle(turn, slot);
    }

    /// A fill ended.
    pub(crate) fn filled(&mut self, turn: &mut Turn, slot: usize, result: io::Result<AlignedBuf>) {
        let Some(client) = self.slots.get_mut(slot).and_then(Option::as_mut) else { return };
        client.receiving = false;
        match result {
            Ok(buffer) if !client.told => {
                // Most of what a larger buffer would take next is of a payload like this one, and would be copied.
                client.wanted = CLIENT_RECEIVE_MIN;
                turn.events.push(Event::ClientFilled { conn: client.id, buffer });
            }
            Ok(_) => {}
            Err(_) => client.lose(turn),
        }
        self.settle(turn, slot);
    }

    /// A send ended.
    pub(crate) fn sent(&mut self, turn: &mut Turn, slot: usize, result: &io::Result<()>) {
        let Some(client) = self.slots.get_mut(slot).and_then(Option::as_mut) else { return };
        let covered = client.sending.take().unwrap_or(0);
        match result {
            Ok(()) => {
                if !client.told {
                    let conn = client.id;
                    turn.events.extend(std::iter::repeat_with(|| Event::ClientSent { conn }).take(covered));
                }
                client.pump(turn, slot);
            }
            Err(_) => client.lose(turn),
        }
        self.settle(turn, slot);
    }

    /// When patience with the first of those that were told to go ends.
    pub(crate) fn deadline(&self) -> Option<Mono> {
        self.lingering.front().map(|(until, _)| *until)
    }

    /// Cuts those whose time is over.
    pub(crate) fn expire(&mut self, turn: &mut Turn) {
        while self.deadline().is_some_and(|until| until <= turn.now) {
            let Some((_, conn)) = self.lingering.pop_front() else { return };
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
    pub(crate) fn cut_all(&mut self, turn: &mut Turn) {
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
    fn settle(&mut self, turn: &mut Turn, slot: usize) {
        let Some(place) = self.slots.get_mut(slot) else { return };
        let Some(client) = place.as_mut() else { return };
        if client.leaving && client.queue.is_empty() && client.sending.is_none() {
            client.lose(turn);
        }
        if client.cut && !client.receiving && client.sending.is_none() {
            *place = None;
            self.free.push(slot);
        }
    }
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

impl Client {
    fn read(&mut self, turn: &mut Turn, slot: usize, buffer: Vec<u8>) {
        self.receiving = true;
        let op = Op::Receive(Arc::clone(&self.socket), buffer);
        turn.driver.submit(Target::ClientReceive(slot).token(), op);
    }

    /// Bytes of the wire came, or its end.
    fn secured_bytes(&mut self, turn: &mut Turn, slot: usize, bytes: Vec<u8>) {
        let Some(tls) = &mut self.tls else { return };
        if bytes.is_empty() {
            return self.lose(turn);
        }
        let result = tls.session.wire_input(&bytes, &mut tls.plain);
        let wire = tls.session.take_wire();
        if !wire.is_empty() {
            self.queue.push_back(Part { bytes: wire, counts: false });
            self.pump(turn, slot);
        }
        if let Err(error) = result {
            tracing::info!("a client's TLS: {error}");
            self.tell_gone(turn);
            // Gone once it was told why.
            self.leaving = true;
            return;
        }
        self.serve_secured(turn, slot);
    }

    /// Gives the engine what it waits for, as far as it is there, and reads on.
    fn serve_secured(&mut self, turn: &mut Turn, slot: usize) {
        let (conn, told) = (self.id, self.told);
        let Some(tls) = &mut self.tls else { return };
        if tls.session.is_established() && !std::mem::replace(&mut tls.told, true) && !told {
            turn.events.push(Event::ClientSecured { conn });
        }
        match tls.wanted.take() {
            Some(Wanted::Some(mut buffer)) if !tls.plain.is_empty() => {
                buffer.clear();
                std::mem::swap(&mut buffer, &mut tls.plain);
                turn.events.push(Event::ClientBytes { conn, bytes: buffer });
            }
            Some(Wanted::Until(mut buffer, until)) => {
                let some = tls.plain.len().min(until.saturating_sub(buffer.len()));
                buffer.extend_from_slice(tls.plain.get(..some).unwrap_or_default());
                tls.plain.drain(..some);
                if buffer.len() >= until {
                    turn.events.push(Event::ClientFilled { conn, buffer });
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
    fn pump(&mut self, turn: &mut Turn, slot: usize) {
        if self.sending.is_some() || self.queue.is_empty() || self.cut {
            return;
        }
        let mut bytes = 0;
        let fits = |part: &&Part| {
            let first = bytes == 0;
            bytes += part.bytes.len();
            first || bytes <= SEND_BYTES_MAX
        };
        let count = self.queue.iter().take(SEND_PARTS_MAX).take_while(fits).count();
        let some = self.queue.drain(..count);
        let mut counted = 0;
        let parts: Vec<Bytes> = some
            .map(|part| {
                counted += usize::from(part.counts);
                part.bytes
            })
            .collect();
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
    fn lose(&mut self, turn: &mut Turn) {
        self.tell_gone(turn);
        self.queue.clear();
        if !std::mem::replace(&mut self.cut, true) {
            turn.driver.cancel(self.socket.as_raw_fd());
        }
    }

    fn tell_gone(&mut self, turn: &mut Turn) {
        if !std::mem::replace(&mut self.told, true) {
            turn.events.push(Event::ClientClosed { conn: self.id });
        }
    }
}

//! The clients' connections, of both doors: bytes in when the engine allows it, bytes out in order, bounded patience.
//!
//! A slot is free again only when none of its operations is under way, so a token that names a slot is never
//! ambiguous. The slot's number is part of the [`ConnId`], so that an effect finds its connection without a search.

use super::core::{Target, Turn};
use crate::base::limits::{CLIENT_RECEIVE_MAX, CLIENT_RECEIVE_MIN, CLIENTS_MAX, SEND_PARTS_MAX};
use crate::base::{AlignedBuf, ConnId, Mono};
use crate::engine::{ClientDoor, Event};
use crate::io::Op;
use bytes::Bytes;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

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
    /// Which door it came in by.
    blocks: bool,
    /// A receive is under way.
    receiving: bool,
    /// How many of the engine's sends the send under way carries; 0 when none is.
    sending: usize,
    queue: VecDeque<Bytes>,
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
            receiving: false,
            sending: 0,
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
        client.receiving = true;
        turn.driver
            .submit(Target::ClientReceive(slot).token(), Op::Receive(Arc::clone(&client.socket), buffer));
    }

    /// Receives into the buffer, behind what is in it, until it holds so much.
    pub(crate) fn fill(&mut self, turn: &mut Turn, conn: ConnId, buffer: AlignedBuf, until: usize) {
        let Some((slot, client)) = self.find(conn) else { return };
        if client.told || client.leaving || client.receiving {
            return;
        }
        client.receiving = true;
        let op = Op::Fill(Arc::clone(&client.socket), buffer, until);
        turn.driver.submit(Target::ClientFill(slot).token(), op);
    }

    /// Sends after all that was given before.
    pub(crate) fn send(&mut self, turn: &mut Turn, conn: ConnId, bytes: Bytes) {
        let Some((slot, client)) = self.find(conn) else { return };
        if client.told || client.leaving {
            return;
        }
        client.queue.push_back(bytes);
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
        self.lingering.push_back((turn.now.plus_ms(turn.patience.linger_ms), conn));
        self.settle(turn, slot);
    }

    /// A receive ended.
    pub(crate) fn received(&mut self, turn: &mut Turn, slot: usize, result: io::Result<Vec<u8>>) {
        let Some(client) = self.slots.get_mut(slot).and_then(Option::as_mut) else { return };
        client.receiving = false;
        match result {
            Ok(bytes) if !bytes.is_empty() => {
                client.adapt(bytes.len());
                if !client.told {
                    turn.events.push(Event::ClientBytes { conn: client.id, bytes });
                }
            }
            Ok(_) if client.queue.is_empty() && client.sending == 0 => client.lose(turn),
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
        let covered = std::mem::take(&mut client.sending);
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
            .any(|client| !client.cut && (client.sending > 0 || !client.queue.is_empty()))
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
        if client.leaving && client.queue.is_empty() && client.sending == 0 {
            client.lose(turn);
        }
        if client.cut && !client.receiving && client.sending == 0 {
            *place = None;
            self.free.push(slot);
        }
    }
}

impl Client {
    /// Starts a send of what is queued unless one is under way.
    fn pump(&mut self, turn: &mut Turn, slot: usize) {
        if self.sending > 0 || self.queue.is_empty() || self.cut {
            return;
        }
        let parts: Vec<Bytes> = self.queue.drain(..self.queue.len().min(SEND_PARTS_MAX)).collect();
        self.sending = parts.len();
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

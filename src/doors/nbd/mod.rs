//! The NBD door: block files as disks for kernels, hypervisors and tools.
//!
//! A pure machine: bytes of clients go in, [`NbdOutput`]s come out, everything about the database is asked of a
//! [`BlockBackend`]. An export is named `account/file`; the empty name means the only volume, if there is one only.
//!
//! # Rules
//! - A write is replied to as soon as it was accepted; that promises nothing. With FUA, and for a flush, the reply
//!   waits until the change is safe.
//! - Replies leave in the order in which they become known, as the protocol allows.
//! - A connection is read further only when what it sent is carried out or bounded, it has taken its replies and,
//!   before a change, the backend is not congested. So none can grow this node's memory.
//! - The payload of a large write is received into the buffers that become batches, 1 MiB at most each. That of a
//!   write that was refused is thrown away as it comes.
//! - Reads of one connection and of all together are bounded, and so is what clients have not taken: before a request
//!   is begun there is room for its reply. Those that find no room go on in order of arrival.
//! - A client that takes nothing of what waits for it for [`NBD_STUCK_MS`] is cut. One that was ended has that long to
//!   take its replies, and counts as a client until then, and until nothing is read for it any more.

mod budget;
pub mod fuzz;
mod handshake;
mod incoming;
mod outbox;
mod pending;
mod refusal;
mod replies;
mod session;
mod transmission;

#[cfg(test)]
mod tests;

use super::{Allocation, BlockBackend, Piece, Refusal};
#[cfg(doc)]
use crate::base::limits::NBD_STUCK_MS;
use crate::base::limits::{NBD_CLIENTS_MAX, NBD_HANDSHAKE_MS, NBD_TRAFFIC_MAX};
use crate::base::{AlignedBuf, ConnId, FileId, Mono, Now, Seq};
use budget::Budget;
use bytes::Bytes;
use pending::PendingRequests;
use session::{Fate, NbdSession};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What the door is set to.
#[derive(Clone, Debug, Default)]
pub struct NbdConfig {}

/// Whether a connection may, or must, be secured by TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tls {
    /// There is no TLS.
    Off,
    /// A client may ask for it.
    Offered,
    /// Nothing is told or done without it.
    Required,
}

/// What the door wants done.
#[derive(Debug)]
pub enum NbdOutput {
    /// Send to a client; answered by [`NbdDoor::sent`]. Several may be under way; they leave in this order.
    Send {
        /// The client.
        conn: ConnId,
        /// What.
        bytes: Bytes,
    },
    /// Read from a client once; answered by [`NbdDoor::input`]. Of this and [`Self::Fill`] at most one is under way
    /// for each client.
    Receive {
        /// The client.
        conn: ConnId,
        /// An empty buffer; its capacity is how much to read at most.
        buffer: Vec<u8>,
    },
    /// Append what a client sends to a buffer until it is so long; answered by [`NbdDoor::filled`].
    Fill {
        /// The client.
        conn: ConnId,
        /// The buffer; it has room.
        buffer: AlignedBuf,
        /// Length of its content at the end (bytes).
        until: usize,
    },
    /// Begin TLS as the server once what was given is sent; answered by [`NbdDoor::secured`].
    StartTls {
        /// The client.
        conn: ConnId,
    },
    /// The client has chosen an export, as whoever may do so only can.
    Proven {
        /// The client.
        conn: ConnId,
    },
    /// The client was denied what it came for.
    Refused {
        /// The client.
        conn: ConnId,
        /// Why, for people.
        why: String,
    },
    /// End the connection once what was given is sent. Nothing more comes for the client.
    Close {
        /// The client.
        conn: ConnId,
        /// Now, as it takes nothing of what was given.
        stuck: bool,
    },
}

/// What the clients of a volume did since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VolumeTraffic {
    /// Connections now.
    pub clients: u64,
    /// Reads.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
    /// Trims and writes of zeros.
    pub zeros: u64,
    /// Flushes.
    pub flushes: u64,
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written.
    pub written_bytes: u64,
}

/// What all clients share.
#[derive(Debug)]
struct NbdShared {
    outputs: VecDeque<NbdOutput>,
    /// Clients with small replies that are not in `outputs` yet.
    dirty: Vec<ConnId>,
    /// Clients that cannot go on now, in the order of their turn.
    blocked: VecDeque<ConnId>,
    /// Until when clients have to choose an export.
    deadlines: BTreeSet<(Mono, ConnId)>,
    requests: PendingRequests,
    budget: Budget,
    /// When it is looked at whether clients take their replies.
    watches: BTreeSet<(Mono, ConnId)>,
    /// The time of what is being done.
    now: Mono,
    traffic: BTreeMap<FileId, VolumeTraffic>,
    zeros: Bytes,
}

impl NbdShared {
    fn refuse(&mut self, conn: ConnId, why: impl Into<String>) {
        self.outputs.push_back(NbdOutput::Refused { conn, why: why.into() });
    }

    fn traffic(&mut self, file: FileId) -> &mut VolumeTraffic {
        if self.traffic.len() >= NBD_TRAFFIC_MAX && !self.traffic.contains_key(&file) {
            self.traffic.retain(|_, traffic| traffic.clients > 0);
        }
        self.traffic.entry(file).or_default()
    }
}

/// The door. See the module's head.
#[derive(Debug)]
pub struct NbdDoor {
    sessions: BTreeMap<ConnId, NbdSession>,
    shared: NbdShared,
}

impl NbdDoor {
    /// A door without clients.
    #[must_use]
    pub fn new(_config: NbdConfig) -> Self {
        let shared = NbdShared {
            outputs: VecDeque::new(),
            dirty: Vec::new(),
            blocked: VecDeque::new(),
            deadlines: BTreeSet::new(),
            requests: PendingRequests::default(),
            budget: Budget::default(),
            watches: BTreeSet::new(),
            now: Mono::default(),
            traffic: BTreeMap::new(),
            zeros: outbox::zeros(),
        };
        Self { sessions: BTreeMap::new(), shared }
    }

    /// A client connected.
    pub fn open(&mut self, now: Now, conn: ConnId, tls: Tls) {
        if self.sessions.len() >= NBD_CLIENTS_MAX {
            self.shared.refuse(conn, format!("{NBD_CLIENTS_MAX} clients are connected"));
            self.shared.outputs.push_back(NbdOutput::Close { conn, stuck: false });
            return;
        }
        self.shared.now = now.mono;
        let deadline = now.mono.plus_ms(NBD_HANDSHAKE_MS);
        self.shared.deadlines.insert((deadline, conn));
        let mut session = NbdSession::new(conn, tls, deadline);
        session.begin(&mut self.shared);
        self.sessions.insert(conn, session);
    }

    /// Whether this is a client of this door.
    #[must_use]
    pub fn knows(&self, conn: ConnId) -> bool {
        self.sessions.get(&conn).is_some_and(|session| !session.is_gone())
    }

    /// A [`NbdOutput::StartTls`] was done: what comes from now on came under TLS.
    pub fn secured(&mut self, conn: ConnId) {
        if let Some(session) = self.sessions.get_mut(&conn) {
            session.secured(&mut self.shared);
        }
    }

    /// Bytes came, as allowed by a [`NbdOutput::Receive`]; `bytes` goes back with a later one.
    pub fn input(&mut self, now: Now, conn: ConnId, bytes: Vec<u8>, backend: &mut impl BlockBackend) {
        self.shared.now = now.mono;
        if let Some(session) = self.sessions.get_mut(&conn) {
            session.received(bytes);
            self.advance(conn, backend);
        }
    }

    /// A [`NbdOutput::Fill`] was done.
    pub fn filled(&mut self, now: Now, conn: ConnId, buffer: AlignedBuf, backend: &mut impl BlockBackend) {
        self.shared.now = now.mono;
        if let Some(session) = self.sessions.get_mut(&conn) {
            session.filled(buffer);
            self.advance(conn, backend);
        }
    }

    /// The bytes of one [`NbdOutput::Send`] were taken by the operating system.
    pub fn sent(&mut self, now: Now, conn: ConnId) {
        self.shared.now = now.mono;
        if let Some(session) = self.sessions.get_mut(&conn) {
            session.sent(&mut self.shared);
            self.finish(conn);
        }
    }

    /// The client is gone. What it was not told stays as it is in the volume.
    pub fn close(&mut self, conn: ConnId) {
        if let Some(session) = self.sessions.get_mut(&conn) {
            session.leave(&mut self.shared);
            self.finish(conn);
        }
    }

    /// The client sends no more. Of volumes no client does that and stays: it is over, and what it sent and was not begun
    /// is dropped.
    pub fn ended(&mut self, conn: ConnId) {
        self.close(conn);
        self.shared.outputs.push_back(NbdOutput::Close { conn, stuck: false });
    }

    /// What a read of the backend found.
    pub fn read_done(&mut self, now: Now, token: u64, result: Result<Vec<Piece>, Refusal>) {
        self.shared.now = now.mono;
        let Some(flight) = self.shared.requests.take(token) else { return };
        let Some(session) = self.sessions.get_mut(&flight.conn) else { return };
        session.read_done(flight, result, &mut self.shared);
        self.finish(flight.conn);
    }

    /// What a look of the backend for allocations found.
    pub fn allocation_done(&mut self, now: Now, token: u64, result: Result<Vec<Allocation>, Refusal>) {
        self.shared.now = now.mono;
        let Some(flight) = self.shared.requests.take(token) else { return };
        let Some(session) = self.sessions.get_mut(&flight.conn) else { return };
        session.allocation_done(flight, result, &mut self.shared);
        self.finish(flight.conn);
    }

    /// Time has come to [`Self::deadline`].
    pub fn tick(&mut self, now: Now, _backend: &mut impl BlockBackend) {
        self.shared.now = now.mono;
        while let Some(&(deadline, conn)) = self.shared.deadlines.first() {
            if deadline > now.mono {
                break;
            }
            self.shared.deadlines.pop_first();
            let why = format!("it chose no volume within {} s", NBD_HANDSHAKE_MS / 1000);
            self.shared.refuse(conn, why);
            self.end(conn);
        }
        while let Some(&(at, conn)) = self.shared.watches.first() {
            if at > now.mono {
                break;
            }
            self.shared.watches.pop_first();
            let Some(session) = self.sessions.get_mut(&conn) else { continue };
            if session.is_stuck(&mut self.shared) {
                session.leave(&mut self.shared);
                self.shared.outputs.push_back(NbdOutput::Close { conn, stuck: true });
                self.finish(conn);
            }
        }
    }

    /// Watermarks may have moved, congestion may be over, replies may have been taken: sends the replies whose waits
    /// are over and goes on with the clients that were stopped. To be called after every round of events.
    pub fn release(&mut self, now: Now, backend: &mut impl BlockBackend) {
        self.shared.now = now.mono;
        let marks = backend.watermarks();
        for session in self.sessions.values_mut() {
            session.release(&marks, &mut self.shared);
        }
        // Those that got on stand behind those that did not, so that all have their turn.
        let mut got_on = VecDeque::new();
        for conn in std::mem::take(&mut self.shared.blocked) {
            let before = self.shared.blocked.len();
            if self.advance(conn, backend) && self.shared.blocked.len() > before {
                got_on.extend(self.shared.blocked.pop_back());
            }
        }
        self.shared.blocked.append(&mut got_on);
    }

    /// When [`Self::tick`] is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Mono> {
        let first = [self.shared.deadlines.first(), self.shared.watches.first()];
        first.into_iter().flatten().map(|(at, _)| *at).min()
    }

    /// Fails every request that waits for an entry after `beyond` (by [`crate::base::JournalKind::index`]); what it is
    /// about may be kept or not. Without a bound it fails all that wait, and their clients are ended: this node is not
    /// the one to ask any more.
    pub fn abandon(&mut self, why: &Refusal, beyond: Option<[Seq; 2]>) {
        let mut over = Vec::new();
        for (conn, session) in &mut self.sessions {
            if beyond.is_none() && session.waits() {
                over.push(*conn);
            }
            session.abandon(why, beyond, &mut self.shared);
        }
        over.into_iter().for_each(|conn| self.end(conn));
    }

    /// This node is not the one any more that takes changes of some volumes: their clients end, so that they look for the
    /// one that does.
    pub fn part(&mut self, backend: &impl BlockBackend) {
        let writable = |file| backend.volume(file).is_ok_and(|volume| volume.writable);
        let over: Vec<ConnId> = self
            .sessions
            .iter()
            .filter(|(_, session)| session.volume().is_some_and(|file| !writable(file)))
            .map(|(conn, _)| *conn)
            .collect();
        over.into_iter().for_each(|conn| self.end(conn));
    }

    /// Clients connected.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.sessions.values().filter(|session| !session.is_gone()).count()
    }

    /// What the clients of a volume did.
    #[must_use]
    pub fn traffic(&self, file: FileId) -> VolumeTraffic {
        self.shared.traffic.get(&file).copied().unwrap_or_default()
    }

    /// The next thing to do.
    pub fn output(&mut self) -> Option<NbdOutput> {
        if self.shared.outputs.is_empty() {
            // Only now, so that the small replies of a whole round leave together.
            for conn in std::mem::take(&mut self.shared.dirty) {
                if let Some(session) = self.sessions.get_mut(&conn) {
                    session.flush(&mut self.shared);
                }
            }
        }
        self.shared.outputs.pop_front()
    }

    /// Carries out what a client sent, as far as it can be; whether it got on.
    fn advance(&mut self, conn: ConnId, backend: &mut impl BlockBackend) -> bool {
        let Some(session) = self.sessions.get_mut(&conn) else { return false };
        let (fate, got_on) = session.advance(&mut self.shared, backend);
        match fate {
            Fate::Waits => {}
            Fate::Blocked if self.shared.blocked.contains(&conn) => {}
            Fate::Blocked => self.shared.blocked.push_back(conn),
            Fate::Ends => self.end(conn),
        }
        got_on
    }

    fn end(&mut self, conn: ConnId) {
        if let Some(session) = self.sessions.get_mut(&conn) {
            session.end(&mut self.shared);
            self.finish(conn);
        }
    }

    /// Closes the connection of one that was ended and has all its replies, and forgets one that is over.
    fn finish(&mut self, conn: ConnId) {
        let Some(session) = self.sessions.get_mut(&conn) else { return };
        if session.has_taken_all() {
            session.leave(&mut self.shared);
            self.shared.outputs.push_back(NbdOutput::Close { conn, stuck: false });
        }
        if session.is_over() {
            self.sessions.remove(&conn);
        }
    }

    /// What clients have not taken, and what requests under way may add (bytes).
    #[cfg(test)]
    fn held(&self) -> usize {
        self.sessions.values().map(NbdSession::held).sum()
    }
}

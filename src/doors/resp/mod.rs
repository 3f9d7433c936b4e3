//! The RESP door: applications read and write items with any Redis client.
//!
//! A pure machine: bytes of clients go in, [`DoorOutput`]s come out, everything about the database is asked of a
//! [`Backend`]. Keys are `account,file,item-id`, split at the first two commas; a key without two commas is an item
//! of the default file, if there is one. A key with two commas never falls back to the default file.
//!
//! # Rules
//! - Replies of one client leave in the order of its commands. A reply whose update is not yet safe holds back
//!   itself and those behind it; commands behind it are carried out meanwhile, up to a limit.
//! - A client is read further only when what it sent is carried out, it has taken its replies and the backend is
//!   not congested, so that none can grow this node's memory. A client that waits in WAIT, KEYS or DBSIZE may
//!   send a little ahead.
//! - What a client costs is counted, and bounded in each turn: see `work.rs`. What takes longer goes on in later turns:
//!   walks (`walk.rs`), commands of many keys (`gather.rs`), transactions (`transaction.rs`). A client that leaves
//!   costs nothing any more.
//! - A transaction is one batch of one journal. KEYS, SCAN and DBSIZE in it see what it did so
//!   far; they begin anew with it when anybody else changes anything meanwhile.
//! - WATCH sees every change that the backend tells, whoever made it: none is noted here.
//! - WAIT counts the peer only when it has the client's updates on its disk. That is more than in Redis, where
//!   memory is enough. It speaks of updates to replicated files; a client that made none waits for all there are.
//!   WAITAOF counts this node's disk likewise, for both journals.
//! - Before a client has authenticated it may send commands of 4 KiB only, and for a minute only.

mod changes;
mod clients;
mod connection;
mod count;
mod docs;
mod fetching;
mod gather;
mod glob;
mod info;
mod items;
mod line;
mod outbox;
mod pile;
mod refusal;
mod report;
mod session;
mod subcommands;
mod table;
mod transaction;
mod turn;
mod walk;
mod watch;
mod work;

#[cfg(test)]
mod bench;
#[cfg(test)]
mod model;
#[cfg(test)]
pub(crate) mod tests;
#[cfg(test)]
mod vectors;

use crate::base::limits::{
    CLIENT_HOLDS_LITTLE, CLIENTS_MAX, CLIENTS_MEMORY_KEPT, CLIENTS_MEMORY_MAX, SCAN_CURSORS_MAX,
};
use crate::base::{ConnId, Mono, Now, Seq};
use crate::doors::index::FastHash;
use crate::doors::{Backend, CommitWatermarks, FetchId, Refusal};
use bytes::{Bytes, BytesMut};
pub use clients::ClientPlace;
pub use info::Memory;
use session::RespSession;
use std::collections::{BTreeSet, HashMap, VecDeque};

/// The Redis whose commands and replies this door follows, as told to clients.
const COMPATIBLE_WITH: &str = "7.2.0";

/// What the door is set to.
#[derive(Clone, Debug, Default)]
pub struct RespConfig {
    /// `account,file` for keys without two commas.
    pub default_file: Option<String>,
    /// What clients that are not trusted have to give first.
    pub password: Option<String>,
    /// This program's version, for INFO.
    pub version: String,
    /// The port of the door, for INFO; 0 if it is not on TCP.
    pub tcp_port: u16,
    /// A number that no other run of the program has, for INFO.
    pub run: u64,
}

/// What the door wants done.
#[derive(Debug)]
pub enum DoorOutput {
    /// Send to a client; answered by [`RespDoor::sent`]. At most one is under way for each client.
    Send {
        /// The client.
        conn: ConnId,
        /// What.
        bytes: Bytes,
    },
    /// Read from a client once; answered by [`RespDoor::input`]. At most one is under way for each client.
    Receive {
        /// The client.
        conn: ConnId,
        /// An empty buffer; its capacity is how much to read at most.
        buffer: Vec<u8>,
    },
    /// The client needs no password, or has given it.
    Proven {
        /// The client.
        conn: ConnId,
    },
    /// The client gave a wrong password.
    Guessed {
        /// The client.
        conn: ConnId,
    },
    /// End the connection once what was given is sent. The door has forgotten the client.
    Close {
        /// The client.
        conn: ConnId,
    },
}

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default)]
struct Stats {
    connections: u64,
    rejected: u64,
    denied: u64,
    commands: u64,
    updates: u64,
    error_replies: u64,
    protocol_errors: u64,
    input_bytes: u64,
    output_bytes: u64,
}

/// What all clients share.
#[derive(Debug)]
struct RespShared {
    config: RespConfig,
    lookup: table::Lookup,
    outputs: VecDeque<DoorOutput>,
    arena: BytesMut,
    /// Clients with replies held back or in WAIT.
    waiting: Vec<ConnId>,
    /// The watermarks with which all of them were looked at; none if they have to be looked at whatever the next ones are.
    released: Option<CommitWatermarks>,
    /// How many were looked at so far.
    #[cfg(test)]
    looked_at: usize,
    /// Clients that can go on at once.
    ready: line::Line,
    /// Clients that can go on when the backend is not congested.
    congested: line::Line,
    work: work::Work,
    /// What is over and not freed yet.
    pile: pile::Pile,
    /// Clients in WAIT or WAITAOF.
    blocked: usize,
    /// Ends of those that have one.
    deadlines: BTreeSet<(Mono, ConnId)>,
    /// Until when clients have to authenticate: one time for each that has not.
    locked: BTreeSet<(Mono, ConnId)>,
    changes: changes::Changes,
    watches: watch::Watches,
    cursors: walk::Cursors,
    /// Buffers, queued transactions and replies of all clients (bytes).
    memory: usize,
    clients: usize,
    stats: Stats,
    rate: info::Rate,
    /// What the process takes.
    process: Memory,
    count: count::Count,
    fetches: fetching::Fetches,
    roster: clients::Roster,
    /// Clients whose connections another one ended in this turn.
    killed: Vec<ConnId>,
}

impl RespShared {
    /// Whether there is memory for `more` bytes of who holds `held` of them then. What is large leaves room for the small
    /// things of others.
    fn has_room(&self, held: usize, more: usize) -> bool {
        let kept = if held > CLIENT_HOLDS_LITTLE { CLIENTS_MEMORY_KEPT } else { 0 };
        self.memory + more <= CLIENTS_MEMORY_MAX - kept
    }

    /// Whether all who wait were looked at with these watermarks already: nobody's wait is over then. A client in WAIT
    /// waits for more than these tell; and while memory is short, what others give back lets a client go on.
    fn were_looked_at(&mut self, marks: CommitWatermarks) -> bool {
        let by_marks_alone = self.blocked == 0 && self.memory <= CLIENTS_MEMORY_MAX;
        let before = std::mem::replace(&mut self.released, by_marks_alone.then_some(marks));
        by_marks_alone && before == Some(marks)
    }

    /// Takes what was changed, by whomever, to those who want to know.
    fn learn<B: Backend>(&mut self, backend: &mut B) {
        while let Some(change) = backend.next_change() {
            self.watches.changed(change);
            self.changes.push(change);
        }
        if self.watches.is_empty() && self.changes.is_idle() {
            backend.want_changes(false);
        }
    }
}

/// The door. See the module's head.
#[derive(Debug)]
pub struct RespDoor {
    sessions: HashMap<ConnId, Box<RespSession>, FastHash>,
    shared: RespShared,
}

impl RespDoor {
    /// A door without clients.
    #[must_use]
    pub fn new(config: RespConfig) -> Self {
        let shared = RespShared {
            config,
            lookup: table::Lookup::new(),
            outputs: VecDeque::new(),
            arena: BytesMut::new(),
            waiting: Vec::new(),
            released: None,
            #[cfg(test)]
            looked_at: 0,
            ready: line::Line::default(),
            congested: line::Line::default(),
            work: work::Work::new(),
            pile: pile::Pile::default(),
            blocked: 0,
            deadlines: BTreeSet::new(),
            locked: BTreeSet::new(),
            changes: changes::Changes::default(),
            watches: watch::Watches::default(),
            cursors: walk::Cursors::default(),
            memory: 0,
            clients: 0,
            stats: Stats::default(),
            rate: info::Rate::default(),
            process: Memory::default(),
            count: count::Count::default(),
            fetches: fetching::Fetches::default(),
            roster: clients::Roster::default(),
            killed: Vec::new(),
        };
        Self { sessions: HashMap::default(), shared }
    }

    /// A client connected; a `trusted` one needs no password.
    pub fn open(&mut self, now: Now, conn: ConnId, trusted: bool) {
        self.shared.stats.connections += 1;
        if self.sessions.len() >= CLIENTS_MAX {
            self.shared.stats.rejected += 1;
            let bytes = Bytes::from_static(b"-ERR max number of clients reached\r\n");
            self.shared.outputs.push_back(DoorOutput::Send { conn, bytes });
            self.shared.outputs.push_back(DoorOutput::Close { conn });
            return;
        }
        let mut session = Box::new(RespSession::new(conn, now, trusted));
        if !trusted && self.shared.config.password.is_some() {
            session.client.lock(now, &mut self.shared);
        } else {
            self.shared.outputs.push_back(DoorOutput::Proven { conn });
        }
        session.begin(&mut self.shared);
        self.sessions.insert(conn, session);
        self.shared.clients = self.sessions.len();
    }

    /// Where a client's connection comes from and to, for CLIENT LIST.
    pub fn placed(&mut self, conn: ConnId, place: ClientPlace) {
        if let Some(session) = self.sessions.get(&conn)
            && let Some(card) = self.shared.roster.card(session.client.card)
        {
            card.place = place;
        }
    }

    /// What the process takes of the machine's memory, for INFO.
    pub fn measured(&mut self, memory: Memory) {
        self.shared.process = memory;
    }

    /// The client is gone. What it was not told stays as it is in the database.
    pub fn close(&mut self, conn: ConnId) {
        let Some(session) = self.sessions.remove(&conn) else { return };
        if session.in_waiting {
            // The list of those who wait still names it.
            self.shared.released = None;
        }
        session.leave(&mut self.shared);
        self.shared.clients = self.sessions.len();
    }

    /// The client sends no more than what it has sent, of which `drained` tells whether all was handed over. What of it
    /// was not begun and has to wait is dropped; what was begun is answered.
    pub fn ended<B: Backend>(&mut self, now: Now, conn: ConnId, drained: bool, backend: &mut B) {
        if let Some(session) = self.sessions.get_mut(&conn) {
            session.ended(drained);
            self.advance(now, conn, backend);
        }
    }

    /// Bytes came, as allowed by a [`DoorOutput::Receive`]; `bytes` goes back with the next one.
    pub fn input<B: Backend>(&mut self, now: Now, conn: ConnId, bytes: Vec<u8>, backend: &mut B) {
        self.shared.stats.input_bytes += bytes.len() as u64;
        if let Some(session) = self.sessions.get_mut(&conn) {
            session.received(bytes);
            if session.in_ready.is_some() || self.shared.work.round_is_overdrawn() {
                session.wait_for_turn(&mut self.shared);
            } else {
                self.advance(now, conn, backend);
            }
        }
    }

    /// The caller has seen to its other duties: clients may cost another round.
    pub fn begin_round(&mut self) {
        self.shared.work.begin_round();
    }

    /// The bytes of one [`DoorOutput::Send`] were taken by the operating system. Tells whether [`Self::tick`] is due.
    pub fn sent(&mut self, conn: ConnId) -> bool {
        if let Some(session) = self.sessions.get_mut(&conn) {
            session.sent(&mut self.shared);
            if session.send(&mut self.shared) {
                self.close(conn);
                return true;
            }
            if session.could_go_on(&self.shared) {
                session.wait_for_turn(&mut self.shared);
            }
        }
        !self.shared.ready.is_empty()
    }

    /// Watermarks may have moved, congestion may be over: sends the replies whose waits are over, goes on with
    /// the clients that were stopped. To be called after every such event; [`Self::deadline`] does not ask for it.
    pub fn release<B: Backend>(&mut self, now: Now, backend: &mut B) {
        let marks = backend.watermarks();
        if self.shared.were_looked_at(marks) {
            return self.go_on(now, backend);
        }
        let mut waiting = std::mem::take(&mut self.shared.waiting);
        waiting.retain(|&conn| {
            #[cfg(test)]
            {
                self.shared.looked_at += 1;
            }
            let Some(session) = self.sessions.get_mut(&conn) else { return false };
            session.release(&marks, &mut self.shared, backend);
            let goes_on = session.could_go_on(&self.shared) && session.in_ready.is_none();
            if goes_on && self.shared.work.round_is_over() {
                session.wait_for_turn(&mut self.shared);
            } else if goes_on {
                self.advance(now, conn, backend);
                return self.sessions.get_mut(&conn).is_some_and(|session| session.still_waits());
            }
            if session.send(&mut self.shared) {
                self.close(conn);
                return false;
            }
            session.still_waits()
        });
        waiting.append(&mut self.shared.waiting);
        self.shared.waiting = waiting;
        self.go_on(now, backend);
    }

    /// Time has come to [`Self::deadline`].
    pub fn tick<B: Backend>(&mut self, now: Now, backend: &mut B) {
        while let Some(&(deadline, conn)) = self.shared.deadlines.first() {
            if deadline > now.mono {
                break;
            }
            self.shared.deadlines.pop_first();
            if let Some(session) = self.sessions.get_mut(&conn) {
                session.expire(&mut self.shared, backend);
                self.advance(now, conn, backend);
            }
        }
        while let Some(&(deadline, conn)) = self.shared.locked.first() {
            if deadline > now.mono {
                break;
            }
            self.shared.locked.pop_first();
            if let Some(session) = self.sessions.get_mut(&conn) {
                session.client.closing = true;
                self.advance(now, conn, backend);
            }
        }
        self.shared.rate.look(now.mono, self.shared.stats.commands);
        self.shared.count.tick(now, backend);
        self.shared.learn(backend);
        self.go_on(now, backend);
    }

    /// What [`crate::doors::Unread::Cold`] named is in memory: who waits for it goes on at the next [`Self::tick`].
    pub fn fetched(&mut self, fetch: FetchId) {
        if self.shared.count.fetched(fetch) {
            return;
        }
        let Some(conn) = self.shared.fetches.remove(&fetch) else { return };
        if let Some(session) = self.sessions.get_mut(&conn)
            && session.client.fetching.over(fetch)
        {
            session.wait_for_turn(&mut self.shared);
        }
    }

    /// The next thing to do.
    pub fn output(&mut self) -> Option<DoorOutput> {
        self.shared.outputs.pop_front()
    }

    /// When [`Self::tick`] is due, in a new round; the past if at once.
    #[must_use]
    pub fn deadline(&self) -> Option<Mono> {
        if !self.shared.ready.is_empty() || !self.shared.pile.is_empty() {
            return Some(Mono(0));
        }
        let wait = self.shared.deadlines.first().map(|(deadline, _)| *deadline);
        let authenticate = self.shared.locked.first().map(|(deadline, _)| *deadline);
        wait.into_iter().chain(authenticate).chain(self.shared.count.deadline()).min()
    }

    /// Clients connected.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.sessions.len()
    }

    /// Tells every client that waits for an entry after `beyond` (by [`crate::base::JournalKind::index`]), or for any,
    /// why no answer will come; what it asked for may be kept or not. Then its connection ends: what it sent behind
    /// that has no answer either.
    pub fn abandon(&mut self, why: &Refusal, beyond: Option<[Seq; 2]>) {
        let mut waiting = std::mem::take(&mut self.shared.waiting);
        waiting.retain(|&conn| {
            let Some(session) = self.sessions.get_mut(&conn) else { return false };
            if !session.abandon(why, beyond, &mut self.shared) {
                return true;
            }
            if session.send(&mut self.shared) {
                self.close(conn);
                return false;
            }
            session.still_waits()
        });
        self.shared.waiting = waiting;
    }

    fn advance<B: Backend>(&mut self, now: Now, conn: ConnId, backend: &mut B) {
        let Some(session) = self.sessions.get_mut(&conn) else { return };
        self.shared.ready.leave(&mut session.in_ready);
        self.shared.work.begin_slice(self.shared.ready.len(), 1);
        if session.advance(now, &mut self.shared, backend) {
            self.close(conn);
        }
        for conn in std::mem::take(&mut self.shared.killed) {
            if self.sessions.contains_key(&conn) {
                self.close(conn);
                self.shared.outputs.push_back(DoorOutput::Close { conn });
            }
        }
    }

    /// Goes on with the clients that can, each in turn, as long as the round lasts.
    fn go_on<B: Backend>(&mut self, now: Now, backend: &mut B) {
        if !backend.congested() {
            while let Some(conn) = self.shared.congested.pop() {
                if let Some(session) = self.sessions.get_mut(&conn) {
                    session.in_congested = None;
                    session.wait_for_turn(&mut self.shared);
                }
            }
        }
        self.shared.pile.shrink(&mut self.shared.work);
        let mut had_their_turn = Vec::new();
        for _ in 0..self.shared.ready.len() {
            if self.shared.work.round_is_over() {
                break;
            }
            if backend.congested() {
                return self.stop_ready(had_their_turn);
            }
            let Some(conn) = self.shared.ready.pop() else { break };
            if let Some(session) = self.sessions.get_mut(&conn) {
                session.in_ready = None;
                self.advance(now, conn, backend);
                had_their_turn.push(conn);
            }
        }
    }

    /// The backend is congested: all wait for the end of that, those last who had their turn just now.
    fn stop_ready(&mut self, had_their_turn: Vec<ConnId>) {
        let mut waiting = Vec::new();
        while let Some(conn) = self.shared.ready.pop() {
            waiting.push(conn);
        }
        let again = had_their_turn.into_iter().filter(|conn| !waiting.contains(conn)).collect::<Vec<_>>();
        for conn in waiting.into_iter().chain(again) {
            let Some(session) = self.sessions.get_mut(&conn) else { continue };
            if session.in_ready.take().is_some() || session.in_congested.is_some() {
                session.wait_for_room(&mut self.shared);
            }
        }
    }
}

//! The core thread: one engine, one driver, every socket. Each round is one wait, all that came of it into the
//! engine, then all that the engine asks for out to the driver and the other threads.
//!
//! Everything that one wait brought is fed before anything is carried out: the engine sees the updates of many
//! clients at once and seals them into one batch.

use super::apply::{Apply, LookJob};
use super::clients::Clients;
use super::compares::CompareJob;
use super::dial::Dial;
use super::disk::FileJob;
use super::inbox::{InboxReceiver, Message};
use super::incidents::{Notes, RateLimited};
use super::layout::Layout;
use super::link::{Keys, Links};
use super::manager;
use super::notify::Desk;
use super::operators::{Beside, Operators};
use super::peer_address::{PeerAddress, Resolver};
use super::process::MemoryMeter;
use super::rounds::RoundMeter;
use super::save::SaveDesk;
use super::segments::Segments;
use super::starting::{self, Starting};
use super::store_reads::StoreFetch;
use super::volumes::VolumeReads;
use crate::base::limits::{
    ACCEPT_FAILING_MS, ACCEPT_PAUSE_MS, CLIENT_ENDED_MS, CLIENT_KEEPALIVE_S, INBOX_MAX, LINGER_MS,
    LINK_HANDSHAKE_MS, STOP_FLUSH_MS, STOP_MS,
};
use crate::base::{Mono, Now, Rank};
use crate::engine::admin::StatsView;
use crate::engine::incidents::Matter;
use crate::engine::{
    ClientDoor, CompareEffect, CopyEffect, Effect, Engine, Event, Incident, JournalEvent, PrepareSegment,
    ScrubEffect, SpoolEffect, StoreEffect, Tls,
};
use crate::io::{Completion, Driver, Op, Outcome, Token, processor_time};
use crate::store::StoreRead;
use nix::sys::socket::{MsgFlags, send, setsockopt, sockopt};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{Sender, SyncSender};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What the loop drives: the engine, or a test's script.
pub(crate) trait Brain {
    /// Tells what happened.
    fn input(&mut self, now: Now, event: Event);
    /// The next thing to do.
    fn output(&mut self) -> Option<Effect>;
    /// When [`Event::Tick`] is due.
    fn deadline(&self) -> Option<Mono>;
    /// Whether what the disk held is replayed, so that it can answer.
    fn is_up(&self) -> bool;
    /// Entries replayed until then, and how many there are.
    fn replayed(&self) -> (u64, u64) {
        (0, 0)
    }
    /// What it has counted.
    fn stats(&self) -> StatsView {
        StatsView::default()
    }
}

impl<S: StoreRead> Brain for Engine<S> {
    fn input(&mut self, now: Now, event: Event) {
        Engine::input(self, now, event);
    }

    fn output(&mut self) -> Option<Effect> {
        Engine::output(self)
    }

    fn deadline(&self) -> Option<Mono> {
        Engine::deadline(self)
    }

    fn is_up(&self) -> bool {
        Engine::is_up(self)
    }

    fn replayed(&self) -> (u64, u64) {
        Engine::replayed(self)
    }

    fn stats(&self) -> StatsView {
        Engine::stats(self)
    }
}

/// What every part of the core needs in a round.
pub(crate) struct RoundContext {
    /// Takes operations; nothing reaches the kernel before the next wait.
    pub(crate) driver: Box<dyn Driver>,
    /// For the engine, in order.
    pub(crate) events: Vec<Event>,
    /// Raised here, not by the engine.
    pub(crate) incidents: Vec<Incident>,
    /// This round's time.
    pub(crate) now: Mono,
    /// The same on the wall (milliseconds since 1970).
    pub(crate) wall_ms: u64,
    /// With others.
    pub(crate) patience: Patience,
}

/// What a completion is for. The number is a slot of the part it belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// A listening socket.
    Accept(usize),
    /// A client's receive.
    ClientReceive(usize),
    /// A client's send.
    ClientSend(usize),
    /// A connect to the peer.
    LinkConnect(usize),
    /// A link connection's receive.
    LinkReceive(usize),
    /// A link connection's send.
    LinkSend(usize),
    /// A journal write.
    Write(usize),
    /// A client's receive of a payload in place.
    ClientFill(usize),
    /// The end of what a client sends.
    ClientEnd(usize),
}

impl Target {
    /// As a driver's token.
    pub(crate) fn token(self) -> Token {
        let (kind, slot) = match self {
            Self::Accept(slot) => (0, slot),
            Self::ClientReceive(slot) => (1, slot),
            Self::ClientSend(slot) => (2, slot),
            Self::LinkConnect(slot) => (3, slot),
            Self::LinkReceive(slot) => (4, slot),
            Self::LinkSend(slot) => (5, slot),
            Self::Write(slot) => (6, slot),
            Self::ClientFill(slot) => (7, slot),
            Self::ClientEnd(slot) => (8, slot),
        };
        Token((slot as u64) << 4 | kind)
    }

    /// From a driver's token.
    pub(crate) fn of(token: Token) -> Option<Self> {
        let slot = usize::try_from(token.0 >> 4).ok()?;
        Some(match token.0 & 15 {
            0 => Self::Accept(slot),
            1 => Self::ClientReceive(slot),
            2 => Self::ClientSend(slot),
            3 => Self::LinkConnect(slot),
            4 => Self::LinkReceive(slot),
            5 => Self::LinkSend(slot),
            6 => Self::Write(slot),
            7 => Self::ClientFill(slot),
            8 => Self::ClientEnd(slot),
            _ => return None,
        })
    }
}

/// Who is expected on a listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// The peer.
    Link,
    /// Redis clients.
    Resp {
        /// Whether they need no password.
        trusted: bool,
        /// From where they can come.
        rank: Rank,
    },
    /// Clients of volumes.
    Nbd {
        /// Whether they may or must secure the connection.
        tls: Tls,
        /// From where they can come.
        rank: Rank,
    },
}

/// A listening socket.
#[derive(Clone, Debug)]
pub(crate) struct Listener {
    /// Bound and listening, in blocking mode.
    pub(crate) socket: Arc<OwnedFd>,
    /// Who is expected.
    pub(crate) door: Door,
}

/// The other threads' ends.
pub(crate) struct Workers {
    /// Makes segments.
    pub(crate) bulk: Sender<PrepareSegment>,
    /// Reads, removes, replaces and saves files.
    pub(crate) files: Sender<FileJob>,
    /// Copies segments to another disk, and reads them there.
    pub(crate) spool: Sender<SpoolEffect>,
    /// Applies to the store.
    pub(crate) apply: Sender<Apply>,
    /// Reads for a peer that is given a copy.
    pub(crate) copies: Sender<CopyEffect>,
    /// Reads and hashes for a compare.
    pub(crate) compares: Sender<CompareJob>,
    /// Reads everything, now and then.
    pub(crate) scrub: Sender<ScrubEffect>,
    /// Read of the store what is not in memory.
    pub(crate) fetches: Sender<StoreFetch>,
    /// Tells people.
    pub(crate) notes: Notes,
    /// Keeps what was counted in the end.
    pub(crate) stats: Sender<StatsView>,
    /// Tells whether the core lives; tests have none.
    pub(crate) desk: Option<Desk>,
    /// Looks up the peer's name.
    pub(crate) resolver: Resolver,
    /// Tells the service manager.
    pub(crate) manager: SyncSender<manager::Life>,
    /// How far the start is.
    pub(crate) starting: Arc<Starting>,
}

impl Workers {
    /// Looks and repairs go to the store in their place among the batches.
    fn compare(&self, effect: CompareEffect) {
        let (to, apply) = (self.compares.clone(), &self.apply);
        match effect {
            CompareEffect::Look { look, round, file, span, what, most } => {
                let _ =
                    apply.send(Apply::Look(Box::new(LookJob { look, round, file, span, what, most, to })));
            }
            CompareEffect::Repair { look, round, chunk } => {
                let _ = apply.send(Apply::Repair(look, round, Box::new(chunk)));
            }
            CompareEffect::Keep { bytes } => {
                let _ = to.send(CompareJob::Keep(bytes));
            }
        }
    }
}

/// Monotonic time since it was made, and the wall clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(Instant);

impl Clock {
    /// Begins at zero.
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn read(self) -> (Mono, u64) {
        let mono = u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX);
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        (Mono(mono), u64::try_from(wall.as_millis()).unwrap_or(u64::MAX))
    }
}

/// The door's TLS as it stands on disk, for a client that called at this address.
pub(crate) type DoorKeys = Box<dyn Fn(Option<IpAddr>) -> Result<Arc<rustls::ServerConfig>, String> + Send>;

/// Where the core begins and ends.
pub(crate) struct CoreParts {
    /// The node's directory.
    pub(crate) layout: Layout,
    /// Open already.
    pub(crate) listeners: Vec<Listener>,
    /// Reads of volumes.
    pub(crate) volumes: VolumeReads,
    /// What this node shows clients of volumes that want TLS.
    pub(crate) door_tls: DoorKeys,
    /// What this node proves and expects on the link.
    pub(crate) keys: Keys,
    /// Where the peer listens.
    pub(crate) peer: PeerAddress,
    /// The line by which the peer knows this node.
    pub(crate) identity: String,
    /// Clients at once.
    pub(crate) clients_max: usize,
    /// With others.
    pub(crate) patience: Patience,
}

/// How long the core waits for others (milliseconds); tests are less patient.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    /// See [`STOP_MS`].
    pub(crate) stop_ms: u64,
    /// See [`LINGER_MS`].
    pub(crate) linger_ms: u64,
    /// See [`LINK_HANDSHAKE_MS`].
    pub(crate) handshake_ms: u64,
    /// See [`CLIENT_ENDED_MS`].
    pub(crate) ended_ms: u64,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            stop_ms: STOP_MS,
            linger_ms: LINGER_MS,
            handshake_ms: LINK_HANDSHAKE_MS,
            ended_ms: CLIENT_ENDED_MS,
        }
    }
}

/// How the loop ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The engine finished everything.
    Clean,
    /// It did not within its time; the journal will tell at the next start.
    OutOfTime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Running,
    /// The engine was told to stop, and has until then.
    Stopping(Mono),
    /// The engine stopped; answers on their way have until then.
    Flushing(Mono),
}

/// The core thread's state.
pub(crate) struct CoreThread<B> {
    brain: B,
    turn: RoundContext,
    clock: Clock,
    outbox: InboxReceiver,
    workers: Workers,
    listeners: Vec<Listener>,
    paused_until: Option<Mono>,
    paused: Vec<usize>,
    accept_trouble: RateLimited,
    /// Why nobody can connect; it is tried again before that time.
    unaccepted: Option<(Mono, io::Error)>,
    clients: Clients,
    links: Links,
    segments: Segments,
    volumes: VolumeReads,
    door_tls: DoorKeys,
    operators: Operators,
    saves: SaveDesk,
    memory: MemoryMeter,
    rounds: RoundMeter,
    stage: Stage,
    is_up: bool,
    completions: Vec<Completion>,
}

impl<B: Brain> CoreThread<B> {
    /// A core that has not begun.
    pub(crate) fn new(
        brain: B,
        driver: Box<dyn Driver>,
        outbox: InboxReceiver,
        workers: Workers,
        ends: CoreParts,
    ) -> Self {
        let clock = Clock::start();
        let (now, wall_ms) = clock.read();
        let patience = ends.patience;
        let dial = Dial::new(ends.peer, workers.resolver.clone());
        Self {
            brain,
            turn: RoundContext { driver, events: Vec::new(), incidents: Vec::new(), now, wall_ms, patience },
            clock,
            outbox,
            workers,
            listeners: ends.listeners,
            paused_until: None,
            paused: Vec::new(),
            unaccepted: None,
            accept_trouble: RateLimited::new(Matter::AcceptFailed),
            clients: Clients::new(ends.clients_max),
            links: Links::new(ends.keys, ends.identity, dial),
            segments: Segments::new(ends.layout),
            volumes: ends.volumes,
            door_tls: ends.door_tls,
            operators: Operators::default(),
            saves: SaveDesk::default(),
            memory: MemoryMeter::new(),
            rounds: RoundMeter::default(),
            stage: Stage::Running,
            is_up: false,
            completions: Vec::new(),
        }
    }

    /// Runs until the node has stopped.
    ///
    /// # Errors
    /// When the driver itself is broken.
    pub(crate) fn run(mut self) -> io::Result<Ending> {
        for door in 0..self.listeners.len() {
            self.accept(door);
        }
        self.turn.events.push(Event::Tick);
        loop {
            self.feed();
            self.carry_out();
            self.tell_start();
            if let Some(ending) = self.ending() {
                self.clients.cut_all(&mut self.turn);
                self.links.cut_all(&mut self.turn);
                let _ = self.workers.stats.send(self.brain.stats());
                return Ok(ending);
            }
            let timeout = self.timeout();
            self.turn.driver.wait(timeout, &mut self.completions)?;
            (self.turn.now, self.turn.wall_ms) = self.clock.read();
            if let Ok(used) = processor_time() {
                self.rounds.end(self.turn.now, used);
            }
            self.take_completions();
            self.take_messages();
            self.expire();
        }
    }

    /// Tells how far the replay is, until the node is up.
    fn tell_start(&mut self) {
        if self.is_up {
            return;
        }
        if self.brain.is_up() {
            self.is_up = true;
            let _ = self.workers.apply.send(Apply::Replayed);
            let _ = self.workers.manager.try_send(manager::Life::Up);
        } else {
            let (done, total) = self.brain.replayed();
            self.workers.starting.set(starting::Stage::Replay, done, total);
        }
    }

    fn feed(&mut self) {
        let now = Now { mono: self.turn.now, wall_ms: self.turn.wall_ms };
        if let Some(memory) = self.memory.look(now.mono) {
            self.brain.input(now, Event::Measured { memory });
            if let Some(desk) = &self.workers.desk {
                desk.pulse();
            }
        }
        for event in self.turn.events.drain(..) {
            self.brain.input(now, event);
        }
        if self.brain.deadline().is_some_and(|at| at <= now.mono) {
            self.brain.input(now, Event::Tick);
        }
    }

    fn carry_out(&mut self) {
        while let Some(effect) = self.brain.output() {
            self.perform(effect);
        }
        self.links.read_on(&mut self.turn);
        for incident in self.turn.incidents.drain(..) {
            self.operators.remember(&incident);
            self.workers.notes.incident(incident);
        }
    }

    /// A worker whose end is gone has panicked, and then the process is ending: its sends may fail unseen.
    fn perform(&mut self, effect: Effect) {
        let turn = &mut self.turn;
        let workers = &self.workers;
        match effect {
            Effect::Client(effect) => self.clients.perform(turn, effect, &self.door_tls),
            Effect::Link(effect) => self.links.perform(turn, effect),
            Effect::Journal(effect) => self.segments.perform(turn, effect, workers),
            Effect::Store(StoreEffect::Apply { journal, round, batch }) => {
                let _ = workers.apply.send(Apply::Batch(journal, round, batch));
            }
            Effect::Store(StoreEffect::Checkpoint) => {
                let _ = workers.apply.send(Apply::Checkpoint(workers.apply.clone()));
            }
            Effect::Store(StoreEffect::BeginCopy { begin, ranges }) => {
                let _ = workers.apply.send(Apply::BeginCopy(begin, ranges));
            }
            Effect::Store(StoreEffect::PrepareRewind { prepared }) => {
                let _ = workers.apply.send(Apply::PrepareRewind(prepared));
            }
            Effect::Store(StoreEffect::TakeChunk { round, chunk, progress }) => {
                let _ = workers.apply.send(Apply::Chunk(round, Box::new((chunk, progress))));
            }
            Effect::Copy(effect) => {
                let _ = workers.copies.send(effect);
            }
            Effect::Compare(effect) => workers.compare(effect),
            Effect::Store(StoreEffect::FindRot) => {
                let _ = workers.apply.send(Apply::FindRot);
            }
            Effect::Store(StoreEffect::Fetch { fetch, file, generation, part }) => {
                let _ = workers.fetches.send(StoreFetch { fetch, file, generation, part });
            }
            Effect::Volume(effect) => {
                if let Some(ordered) = self.volumes.perform(turn, effect) {
                    let _ = workers.apply.send(Apply::Volume(ordered));
                }
            }
            Effect::Spool(effect) => {
                let _ = workers.spool.send(effect);
            }
            Effect::Scrub(effect) => {
                let _ = workers.scrub.send(effect);
            }
            Effect::File(effect) => {
                let _ = workers.files.send(FileJob::File(effect));
            }
            Effect::Admin { token, reply } => {
                let unaccepted = self.unaccepted.as_ref().filter(|(until, _)| turn.now < *until);
                let beside = Beside {
                    link: &self.links.told(),
                    refused: self.clients.refusals(),
                    unaccepted: unaccepted.map(|(_, error)| error),
                    longest_round_ms: self.rounds.longest_ms(),
                };
                self.operators.answer(token, reply, &beside);
            }
            Effect::Save { token, answer } => self.saves.answer(token, answer),
            Effect::Incident(incident) => workers.notes.incident(incident),
            Effect::Ended { code, wall_ms } => workers.notes.ended(code, wall_ms),
            Effect::Stopped => self.stage = Stage::Flushing(turn.now.plus_ms(STOP_FLUSH_MS)),
        }
    }

    fn take_completions(&mut self) {
        let mut completions = std::mem::take(&mut self.completions);
        for Completion { token, outcome } in completions.drain(..) {
            let turn = &mut self.turn;
            match (Target::of(token), outcome) {
                (Some(Target::ClientReceive(slot)), Outcome::Received(result)) => {
                    self.clients.received(turn, slot, result);
                }
                (Some(Target::ClientFill(slot)), Outcome::Filled(result)) => {
                    self.clients.filled(turn, slot, result);
                }
                (Some(Target::ClientSend(slot)), Outcome::Sent(result)) => {
                    self.clients.sent(turn, slot, &result);
                }
                (Some(Target::ClientEnd(slot)), Outcome::Ended) => self.clients.ended(turn, slot),
                (Some(Target::LinkReceive(slot)), Outcome::Received(result)) => {
                    self.links.received(turn, slot, result);
                }
                (Some(Target::LinkReceive(slot)), Outcome::Filled(result)) => {
                    self.links.filled(turn, slot, result);
                }
                (Some(Target::LinkSend(slot)), Outcome::Sent(result)) => self.links.sent(turn, slot, result),
                (Some(Target::LinkConnect(slot)), Outcome::Connected(result)) => {
                    self.links.connected(turn, slot, result);
                }
                (Some(Target::Write(slot)), Outcome::Written(result)) => {
                    self.segments.written(turn, slot, result);
                }
                (Some(Target::Accept(door)), Outcome::Accepted(result)) => self.accepted(door, result),
                (target, outcome) => unreachable!("{target:?} was completed by {outcome:?}"),
            }
        }
        self.completions = completions;
    }

    fn take_messages(&mut self) {
        // More than a full inbox came in meanwhile, and woke the driver for the next round.
        for _ in 0..=INBOX_MAX {
            let Some(message) = self.outbox.take() else { return };
            match message {
                Message::Event(event) => self.turn.events.push(event),
                Message::SegmentReady { journal, index, file } => {
                    self.segments.keep(journal, index, file);
                    self.turn.events.push(Event::Journal(JournalEvent::SegmentReady { journal, index }));
                }
                Message::Admin { request, reply } => self.operators.ask(&mut self.turn, request, reply),
                Message::Save { ask, reply } => self.turn.events.push(self.saves.ask(ask, reply)),
                Message::CallerRefused { uid, times } => self.operators.refused(&mut self.turn, uid, times),
                Message::Alive { reply } => {
                    let _ = reply.try_send(());
                }
                Message::PeerFound(answer) => self.links.found(&mut self.turn, answer),
                Message::Stop => self.stop(),
            }
        }
    }

    fn stop(&mut self) {
        if self.stage == Stage::Running {
            self.stage = Stage::Stopping(self.turn.now.plus_ms(self.turn.patience.stop_ms));
            self.turn.events.push(Event::Stop);
            let _ = self.workers.manager.try_send(manager::Life::Stopping);
            for listener in &self.listeners {
                self.turn.driver.cancel(listener.socket.as_raw_fd());
            }
        }
    }

    fn ending(&self) -> Option<Ending> {
        match self.stage {
            Stage::Running => None,
            Stage::Stopping(until) => (until <= self.turn.now).then_some(Ending::OutOfTime),
            Stage::Flushing(until) => {
                let flushed = !self.clients.unsent() && !self.links.unsent();
                (flushed || until <= self.turn.now).then_some(Ending::Clean)
            }
        }
    }

    fn accept(&mut self, door: usize) {
        if let Some(listener) = self.listeners.get(door) {
            let op = Op::Accept(Arc::clone(&listener.socket));
            self.turn.driver.submit(Target::Accept(door).token(), op);
        }
    }

    fn accepted(&mut self, door: usize, result: io::Result<OwnedFd>) {
        if self.stage != Stage::Running {
            return;
        }
        if result.is_ok() {
            self.unaccepted = None;
        }
        match (result, self.listeners.get(door).map(|listener| listener.door)) {
            (Ok(socket), Some(Door::Link)) => self.links.accepted(&mut self.turn, socket),
            (Ok(socket), Some(Door::Resp { trusted, rank })) => {
                tune(&socket);
                let door = ClientDoor::Items { trusted };
                if let Err(socket) = self.clients.open(&mut self.turn, socket, door, rank) {
                    refuse(&socket);
                }
            }
            (Ok(socket), Some(Door::Nbd { tls, rank })) => {
                tune(&socket);
                // Dropped if there are too many: the protocol has no words for that before its greeting.
                let _ = self.clients.open(&mut self.turn, socket, ClientDoor::Blocks { tls }, rank);
            }
            (Ok(_), None) => {}
            (Err(error), _) => {
                // No descriptors or no memory: trying again at once would only burn the processor.
                let text = format!("accepting a connection: {error}");
                self.accept_trouble.note(&mut self.turn, &text, &text);
                self.paused.push(door);
                self.paused_until = Some(self.turn.now.plus_ms(ACCEPT_PAUSE_MS));
                self.unaccepted = Some((self.turn.now.plus_ms(ACCEPT_FAILING_MS), error));
                return;
            }
        }
        self.accept(door);
    }

    fn expire(&mut self) {
        self.clients.expire(&mut self.turn);
        self.links.expire(&mut self.turn);
        if self.paused_until.is_some_and(|until| until <= self.turn.now) {
            self.paused_until = None;
            for door in std::mem::take(&mut self.paused) {
                self.accept(door);
            }
        }
    }

    fn timeout(&self) -> Option<Duration> {
        if !self.turn.events.is_empty() {
            return Some(Duration::ZERO);
        }
        let stage = match self.stage {
            Stage::Running => None,
            Stage::Stopping(until) | Stage::Flushing(until) => Some(until),
        };
        let deadlines =
            [self.brain.deadline(), self.clients.deadline(), self.links.deadline(), self.paused_until, stage];
        let first = deadlines.into_iter().flatten().min()?;
        Some(Duration::from_micros(first.since(self.turn.now)))
    }
}

/// Answers must not wait for each other, and a client whose machine is gone must not keep its slot. These fail on a
/// Unix socket, which needs none of them.
pub(crate) fn tune(socket: &OwnedFd) {
    let idle = CLIENT_KEEPALIVE_S;
    let _ = setsockopt(socket, sockopt::TcpNoDelay, &true)
        .and_then(|()| setsockopt(socket, sockopt::KeepAlive, &true))
        .and_then(|()| setsockopt(socket, sockopt::TcpKeepIdle, &idle));
}

/// Tells a client why it may not stay, if it can be told without waiting.
fn refuse(socket: &OwnedFd) {
    let words = b"-ERR max number of clients reached\r\n";
    let _ = send(socket.as_raw_fd(), words, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL);
}

#[cfg(test)]
#[path = "core_testing.rs"]
pub(super) mod testing;
#[cfg(test)]
#[path = "core_tests.rs"]
mod tests;

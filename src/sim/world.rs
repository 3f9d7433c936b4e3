//! Two nodes, their disks, the wire between them, clients and an operator, on one simulated clock.

use super::blocks::{BLOCKERS, Blocker};
use super::checker::Checker;
use super::client::{Client, Op};
use super::cold::ColdStore;
use super::disk::Disk;
use super::net::Net;
use super::operator::Operator;
use super::options::{Mutation, Options, Streams};
use super::trace::Trace;
use crate::base::{AlignedBuf, ConnId, FileId, JournalKind, Mono, Now, Ordinal, Round, SegmentIndex, Seq};
use crate::engine::{
    ClientEvent, CompareEvent, CopyEffect, Engine, EngineConfig, Event, ReadSegment, Rounds, ScrubEvent,
    ScrubPart, StoreEvent, StoredPart,
};
use crate::format::PairId;
use crate::format::batch::Batch;
use crate::format::chunk::{Chunk, CopyBegin, Progress};
use crate::format::control::{Control, Role};
use crate::format::rewind::{Prepared, Ranges};
use crate::store::memory::MemoryStore;
use crate::store::{RottenItems, StoreWrite};
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};

/// The pair of every run.
pub(super) const PAIR: PairId = PairId([0x5a; 16]);
/// Smallest segments, so that they change often.
pub(super) const SEGMENT_BYTES: u64 = 64 << 10;
/// More ticks in a row that lead to nothing are a busy loop.
const SPINS_MAX: u32 = 20;

/// Something that will happen.
#[derive(Debug)]
pub(super) enum Ev {
    /// A node's engine wants to look at the clock.
    Tick,
    /// A journal write ends.
    Written(JournalKind, u64),
    /// A segment was made, or not.
    Prepared(JournalKind, SegmentIndex),
    /// A read ends.
    Read(ReadSegment),
    /// Something that was asked of the spool ends.
    Spool(super::spool::Done),
    /// The control file was replaced, or not.
    Control(u64),
    /// The store applies some of what waits.
    Store,
    /// The store reads a volume, or tells what takes space in it: number, file, offset, length, which.
    Volume(u64, FileId, u64, usize, bool),
    /// Something is read for a peer that is given a copy.
    Copy(CopyEffect),
    /// Something was done for a compare.
    Compared(CompareEvent),
    /// A save goes on.
    Save,
    /// A part was scrubbed.
    Scrub(u64, ScrubPart),
    ScrubKept,
    /// What was to be fetched is in memory.
    Fetched(u64, FileId, u32, StoredPart),
    /// What the store did is told.
    Told,
    /// The slow part of a checkpoint begins.
    CheckpointBegins,
    /// The checkpoint ends.
    Checkpoint,
    /// Diverged entries were saved, or not.
    Diverged(u64),
    /// An attempt to connect ends (connection).
    Connect(u64),
    /// A node is told of a connection.
    ConnUp(u64),
    /// Bytes arrive at the node.
    Pipe(u64),
    /// The node's bytes were taken.
    Sent(u64),
    /// The node is told that a connection is over.
    Down(u64, &'static str),
    /// Bytes of a client arrive at the node.
    ClientBytes(ConnId),
    /// Bytes to a client were taken.
    ClientSent(ConnId),
    /// A client has hung up.
    ClientGone(ConnId),
    /// Items were found rotten.
    Rotten(Vec<RottenItems>),
    /// An operator's request arrives.
    Admin(u64),
    /// The node starts.
    Boot,
    /// The node dies at a bad moment: during its recovery.
    DieAgain,
}

/// What a store was given.
#[derive(Clone, Debug)]
pub(super) enum Given {
    /// A batch.
    Batch(Batch),
    /// The beginning of a copy.
    Begin(Box<CopyBegin>, Option<Box<Ranges>>),
    /// What a rewind will begin with.
    Prepare(Box<Prepared>),
    /// A range of it.
    Chunk(Chunk, Progress),
    /// A look at a range.
    Look(super::compares::Wanted),
    /// A range that is to be what the other node has.
    Repair(u64, Chunk),
}

impl Given {
    /// Whether it belongs to no round.
    pub(super) fn stands_alone(&self) -> bool {
        matches!(self, Self::Begin(..) | Self::Prepare(_))
    }
}

/// What happens to no node.
#[derive(Debug)]
pub(super) enum WorldEv {
    /// A client acts.
    Client(usize),
    /// A client gives up: client, session, command.
    GiveUp(usize, u64, usize),
    /// A client in a hurry leaves.
    Leaves(usize, u64),
    /// A client of the volume acts.
    Blocker(usize),
    /// A client of the volume gives up: client, session, request (none: it is not even connected).
    BlockerGivesUp(usize, u64, Option<u64>),
    /// Trouble comes.
    Trouble,
    /// This trouble comes to this node.
    Moment(super::options::Trouble, usize),
    /// A trouble ends.
    TroubleOver(super::operator::Undo),
    /// The operator looks.
    Operator,
    /// The watch beside a node looks.
    Watch(usize),
}

/// Either, with the life of the node that it is for.
#[derive(Debug)]
enum What {
    Node(usize, u64, Ev),
    World(WorldEv),
}

#[derive(Debug)]
struct Scheduled {
    time: u64,
    tie: u64,
    what: What,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        (self.time, self.tie) == (other.time, other.tie)
    }
}
impl Eq for Scheduled {}
impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> Ordering {
        // The heap gives the greatest first; the earliest is wanted.
        (other.time, other.tie).cmp(&(self.time, self.tie))
    }
}

/// A client's connection at a node.
#[derive(Debug, Default)]
pub(super) struct Door {
    /// Whose.
    pub(super) client: usize,
    /// The node reads: into this buffer.
    pub(super) receive: Option<Vec<u8>>,
    /// Not yet read.
    pub(super) inbox: Vec<u8>,
    /// The node fills this buffer up to here.
    pub(super) fill: Option<(AlignedBuf, usize)>,
    /// Sends under way (bytes each).
    pub(super) sends: VecDeque<usize>,
}

/// What is wrong with a node's surroundings now.
#[derive(Debug, Default)]
pub(super) struct Ills {
    /// So many journal writes will fail.
    pub(super) write_errors: u32,
    /// So many applications to the store will fail.
    pub(super) store_errors: u32,
    /// Control files cannot be replaced until.
    pub(super) control_until: u64,
    /// Reads fail until.
    pub(super) read_until: u64,
    /// The disk is slow until.
    pub(super) slow_until: u64,
    /// The process stands still until.
    pub(super) suspended_until: u64,
    /// When it was last told that there is no room.
    pub(super) no_room_at: u64,
    /// When something of all this was last so.
    pub(super) last: u64,
}

/// A node and its surroundings.
#[derive(Debug)]
pub(super) struct Node {
    /// Its disk.
    pub(super) disk: Disk,
    /// Its spool.
    pub(super) spool: super::spool::SpoolDisk,
    /// Its store.
    pub(super) store: MemoryStore,
    /// Blocks of its volumes of which a bit has turned.
    pub(super) rotten: BTreeSet<(FileId, u64)>,
    /// Of those, the ones that the other node gave back.
    pub(super) healed: BTreeSet<(FileId, u64)>,
    /// An item was changed behind its back.
    pub(super) planted: Option<()>,
    /// What the store was given, in order.
    pub(super) log: Vec<(JournalKind, Batch)>,
    /// The same before the copy began that no checkpoint covers yet.
    pub(super) log_before_copy: Option<Vec<(JournalKind, Batch)>>,
    /// Where its local journal stood when it last left its history for a copy.
    pub(super) left_local: Option<Seq>,
    /// The same, as its decisions read it.
    pub(super) cold: Option<ColdStore>,
    /// Its decisions, while it lives.
    pub(super) engine: Option<Engine<ColdStore>>,
    /// Counts its lives.
    pub(super) life: u64,
    /// When this life began.
    pub(super) booted_at: u64,
    /// Its clock runs wrong by so much (millionths).
    drift_ppm: i64,
    /// How far its wall clock has jumped (milliseconds).
    pub(super) wall_offset_ms: i64,
    tick_at: Option<u64>,
    /// Ticks in a row that led to nothing, although one was due at once.
    spins: u32,
    /// Why it cannot start at all.
    pub(super) halted: Option<String>,
    /// Batches that wait for the store.
    pub(super) queue: VecDeque<(JournalKind, Round, Given)>,
    /// Which of them still count.
    pub(super) rounds: Rounds,
    /// What the store did and the node was not told yet, in order.
    pub(super) to_tell: VecDeque<StoreEvent>,
    /// Whether the store works on them.
    pub(super) store_busy: bool,
    /// Whether a checkpoint is under way.
    pub(super) checkpointing: bool,
    /// What its volumes had been given when its slow part began.
    pub(super) sync_began_at: [Seq; 2],
    /// Clients.
    pub(super) doors: BTreeMap<ConnId, Door>,
    /// See [`Ills`].
    pub(super) ills: Ills,
    /// A clean stop was asked for at this time.
    pub(super) stopping: Option<u64>,
}

impl Node {
    /// A timer of an earlier life is no timer.
    pub(super) fn forget_tick(&mut self) {
        self.tick_at = None;
    }
}

/// Everything.
#[derive(Debug)]
pub(super) struct World {
    /// What the run is made of.
    pub(super) options: Options,
    /// Randomness.
    pub(super) streams: Streams,
    /// The record.
    pub(super) trace: Trace,
    /// The rules.
    pub(super) check: Checker,
    /// The nodes.
    pub(super) nodes: [Node; 2],
    /// The wire.
    pub(super) net: Net,
    /// The clients.
    pub(super) clients: Vec<Client>,
    /// The clients of the volume.
    pub(super) blockers: Vec<Blocker>,
    /// What all of them asked for.
    pub(super) ops: Vec<Op>,
    /// The operator.
    pub(super) operator: Operator,
    /// Where the lease is.
    pub(super) arbiter: super::lease::Arbiter,
    /// Numbers of clients' connections.
    pub(super) next_conn: u64,
    /// The mutation has struck.
    pub(super) mutated: bool,
    /// Commands whose clients left before they were answered.
    pub(super) left: Vec<super::ends::Left>,
    /// Who makes saves.
    pub(super) saver: super::saves::Saver,
    /// Who opens views.
    pub(super) viewer: super::views::Viewer,
    heap: BinaryHeap<Scheduled>,
    ties: u64,
}

impl World {
    /// A new pair; nothing runs yet. The last `keep` events are kept in words.
    pub(super) fn new(options: Options, keep: usize) -> Self {
        let control = |role| Control::new(role, PAIR);
        let controls = [control(Role::Primary), control(Role::Standby)];
        let mut streams = Streams::new(options.seed);
        let drift = |node: usize| if node == 0 { 0 } else { 10_000 };
        let node = |n: usize| Node {
            disk: Disk::new(controls[n].encode()),
            spool: super::spool::SpoolDisk::default(),
            store: MemoryStore::new(Ordinal(u8::try_from(n).unwrap_or(0))),
            rotten: BTreeSet::new(),
            healed: BTreeSet::new(),
            planted: None,
            log: Vec::new(),
            log_before_copy: None,
            left_local: None,
            cold: None,
            engine: None,
            life: 0,
            booted_at: 0,
            drift_ppm: drift(n),
            wall_offset_ms: 0,
            tick_at: None,
            spins: 0,
            halted: None,
            queue: VecDeque::new(),
            rounds: Rounds::default(),
            to_tell: VecDeque::new(),
            store_busy: false,
            checkpointing: false,
            sync_began_at: [Seq(0); 2],
            doors: BTreeMap::new(),
            ills: Ills::default(),
            stopping: None,
        };
        let clients = (0..=options.clients).map(|_| Client::new()).collect();
        let operator = Operator::new(&mut streams.operator);
        Self {
            nodes: [node(0), node(1)],
            check: Checker::new(PAIR, controls.clone()),
            trace: Trace::new(keep),
            net: Net::default(),
            clients,
            blockers: (0..BLOCKERS).map(|_| Blocker::new()).collect(),
            ops: Vec::new(),
            operator,
            arbiter: super::lease::Arbiter::default(),
            next_conn: 1,
            left: Vec::new(),
            mutated: false,
            saver: super::saves::Saver::new(options.seed),
            viewer: super::views::Viewer::new(options.seed),
            heap: BinaryHeap::new(),
            ties: 0,
            streams,
            options,
        }
    }

    /// The world again, as it is while no node lives: everything that is on disk, and what is known of it. `which`
    /// chooses to which batch since the last checkpoint the stores fell back.
    pub(super) fn dead_copy(&self, which: usize) -> Self {
        let node = |n: usize| {
            let old = &self.nodes[n];
            let mut store = MemoryStore::new(Ordinal(u8::try_from(n).unwrap_or(0)));
            let loose = old.store.boundaries().len();
            let log = &old.log[..old.log.len() - which % loose];
            for (journal, batch) in log {
                let same = store.apply(*journal, std::slice::from_ref(batch));
                assert!(same.is_ok(), "what was applied once can be applied again");
            }
            let covered = store.checkpoint();
            assert!(covered.is_ok(), "a store in memory can be checkpointed");
            Node {
                disk: old.disk.clone(),
                spool: old.spool.clone(),
                store,
                rotten: BTreeSet::new(),
                healed: BTreeSet::new(),
                planted: None,
                cold: None,
                log: log.to_vec(),
                log_before_copy: None,
                left_local: None,
                engine: None,
                life: old.life,
                booted_at: 0,
                drift_ppm: old.drift_ppm,
                wall_offset_ms: old.wall_offset_ms,
                tick_at: None,
                spins: 0,
                halted: old.halted.clone(),
                queue: VecDeque::new(),
                rounds: Rounds::default(),
                to_tell: VecDeque::new(),
                store_busy: false,
                checkpointing: false,
                sync_began_at: [Seq(0); 2],
                doors: BTreeMap::new(),
                ills: Ills::default(),
                stopping: None,
            }
        };
        let mut trace = Trace::new(0);
        trace.now = self.trace.now;
        let mut copy = Self {
            nodes: [node(0), node(1)],
            check: self.check.clone(),
            trace,
            net: Net::default(),
            clients: (0..=self.options.clients).map(|_| Client::new()).collect(),
            blockers: (0..BLOCKERS).map(|_| Blocker::new()).collect(),
            ops: self.ops.clone(),
            operator: self.operator.clone(),
            arbiter: self.arbiter.clone(),
            next_conn: self.next_conn,
            left: self.left.clone(),
            mutated: false,
            saver: super::saves::Saver::new(self.options.seed),
            viewer: super::views::Viewer::new(self.options.seed),
            heap: BinaryHeap::new(),
            ties: 0,
            streams: self.streams.clone(),
            options: self.options.clone(),
        };
        copy.after(0, WorldEv::Operator);
        copy
    }

    /// What a node's engine is told at its start.
    pub(super) fn config(&self, n: usize) -> EngineConfig {
        let o = &self.options;
        EngineConfig {
            name: if n == 0 { "a" } else { "b" }.to_owned(),
            ordinal: Ordinal(u8::try_from(n).unwrap_or(0)),
            pair: PAIR,
            segment_bytes: SEGMENT_BYTES,
            quota_bytes: o.quota_segments.map_or(1 << 30, |segments| segments * SEGMENT_BYTES),
            spool: o.spool_config(),
            ack_level: o.ack_level,
            on_peer_loss: o.on_peer_loss,
            serve_alone: o.serve_alone,
            under_lease: o.leased,
            heartbeat_ms: o.heartbeat_ms,
            peer_timeout_ms: o.peer_timeout_ms,
            checkpoint_ms: o.checkpoint_ms,
            checkpoint_bytes: o.checkpoint_bytes,
            peer_host: "peer".to_owned(),
            peer_port: 2000,
            full_sync: o.full_sync,
            on_diverged: o.on_diverged,
            chunk_bytes: 16 << (o.seed % 11),
            compare_range: 16 << (o.seed % 9),
            canary_seconds: u64::from(o.canary),
            canary_late_ms: 1000,
            seed: o.seed ^ n as u64 ^ self.nodes[n].life << 8,
            ..EngineConfig::default()
        }
    }

    /// Schedules something for a node in its present life.
    pub(super) fn node_after(&mut self, us: u64, n: usize, ev: Ev) {
        let life = self.nodes[n].life;
        self.push(us, What::Node(n, life, ev));
    }

    /// Schedules something else.
    pub(super) fn after(&mut self, us: u64, ev: WorldEv) {
        self.push(us, What::World(ev));
    }

    fn push(&mut self, us: u64, what: What) {
        self.ties += 1;
        self.heap.push(Scheduled { time: self.trace.now + us, tie: self.ties, what });
    }

    /// Lets the next thing happen; false when nothing ever will.
    pub(super) fn step(&mut self) -> bool {
        let Some(Scheduled { time, what, .. }) = self.heap.pop() else { return false };
        self.trace.now = self.trace.now.max(time);
        self.check.at(self.trace.now);
        match what {
            What::World(ev) => self.world_event(ev),
            What::Node(n, life, ev) => {
                let boot = matches!(ev, Ev::Boot);
                if !boot && (life != self.nodes[n].life || self.nodes[n].engine.is_none()) {
                    if let Ev::Pipe(id) = ev {
                        self.undeliverable(id, n);
                    }
                    return true;
                }
                let until = self.nodes[n].ills.suspended_until;
                if until > self.trace.now && !matches!(ev, Ev::DieAgain | Ev::Connect(_)) {
                    self.ties += 1;
                    self.heap.push(Scheduled { time: until, tie: self.ties, what: What::Node(n, life, ev) });
                    return true;
                }
                self.node_event(n, ev);
            }
        }
        true
    }

    /// A node's clocks.
    pub(super) fn now_at(&self, n: usize) -> Now {
        let node = &self.nodes[n];
        let real = self.trace.now - node.booted_at;
        let wall = 1_700_000_000_000_i64.saturating_add(node.wall_offset_ms);
        Now {
            mono: Mono(stretch(real, node.drift_ppm)),
            wall_ms: u64::try_from(wall).unwrap_or(0).saturating_add(self.trace.now / 1000),
        }
    }

    /// Tells a node what happened and carries out what it wants.
    pub(super) fn input(&mut self, n: usize, event: impl Into<Event>) {
        let now = self.now_at(n);
        let Some(engine) = &mut self.nodes[n].engine else { return };
        engine.input(now, event.into());
        while let Some(effect) = self.nodes[n].engine.as_mut().and_then(Engine::output) {
            self.effect(n, effect);
        }
        if self.nodes[n].engine.as_ref().is_some_and(Engine::is_up) {
            self.nodes[n].store.replayed();
        }
        self.check_canary(n);
        self.schedule_tick(n);
    }

    /// A test update counts as arrived only once both nodes have applied it (I-53).
    fn check_canary(&mut self, n: usize) {
        let Some(seq) = self.nodes[n].engine.as_ref().and_then(Engine::canary_arrived) else { return };
        for node in 0..2 {
            let applied = self.check.nodes[node].journals[0].applied_most;
            if applied < seq.0 {
                let text = format!(
                    "node {n} says that test update {seq} arrived; node {node} has applied {applied}"
                );
                self.check.fail("I-53", text);
            }
        }
        self.trace.sometimes("a test update made the whole way");
    }

    fn schedule_tick(&mut self, n: usize) {
        let node = &self.nodes[n];
        let Some(deadline) = node.engine.as_ref().and_then(Engine::deadline) else { return };
        let real = node.booted_at + unstretch(deadline.0, node.drift_ppm) + 1;
        let at = real.max(self.trace.now);
        if node.tick_at.is_some_and(|tick| tick <= at) {
            return;
        }
        self.nodes[n].tick_at = Some(at);
        // Timers come late, and in bulk.
        let late = if self.streams.node.percent(20) { self.streams.node.below(2_000) } else { 0 };
        self.node_after(at - self.trace.now + late, n, Ev::Tick);
    }

    fn node_event(&mut self, n: usize, ev: Ev) {
        match ev {
            Ev::Tick => {
                self.trace.ticks += 1;
                self.nodes[n].tick_at = None;
                let before = self.trace.events;
                self.input(n, Event::Tick);
                self.check_spin(n, before);
            }
            Ev::Written(journal, write) => self.disk_written(n, journal, write),
            Ev::Prepared(journal, index) => self.disk_prepared(n, journal, index),
            Ev::Read(read) => self.disk_read(n, read),
            Ev::Spool(done) => self.spool_done(n, done),
            Ev::Control(write) => self.control_done(n, write),
            Ev::Store => self.store_work(n),
            Ev::Volume(read, file, offset, len, allocation) => {
                self.volume_asked(n, read, (file, offset, len), allocation);
            }
            Ev::Copy(effect) => self.copy_read(n, effect),
            Ev::Compared(event) => self.input(n, event),
            Ev::Save => self.save_step(n),
            Ev::Scrub(job, part) => self.scrubbed(n, job, part),
            Ev::ScrubKept => self.input(n, ScrubEvent::Kept),
            Ev::Fetched(fetch, file, generation, part) => {
                let Some(cold) = &self.nodes[n].cold else { return };
                cold.fetched(file, generation, &part);
                let result = part.fetch(cold, file, generation);
                self.trace.sometimes("a read of the store was cold");
                self.input(n, StoreEvent::Fetched { fetch, result });
            }
            Ev::Rotten(items) => self.input(n, StoreEvent::Rotten { items }),
            Ev::Told => self.store_told(n),
            Ev::CheckpointBegins => self.checkpoint_begins(n),
            Ev::Checkpoint => self.checkpoint_done(n),
            Ev::Diverged(save) => self.diverged_done(n, save),
            Ev::Connect(id) => self.connect_done(n, id),
            Ev::ConnUp(id) => self.conn_up(n, id),
            Ev::Pipe(id) => self.deliver(n, id),
            Ev::Sent(id) => self.sent(n, id),
            Ev::Down(id, why) => self.conn_down(n, id, why),
            Ev::ClientBytes(conn) => self.client_bytes(n, conn),
            Ev::ClientSent(conn) => self.client_sent(n, conn),
            Ev::ClientGone(conn) => self.input(n, ClientEvent::Closed { conn }),
            Ev::Admin(token) => self.admin_arrives(n, token),
            Ev::Boot => self.boot(n),
            Ev::DieAgain => self.die_again(n),
        }
    }

    /// A deadline that has passed is acted upon: a node that only asks to be woken again burns its processor.
    fn check_spin(&mut self, n: usize, events_before: u64) {
        let now = self.now_at(n).mono;
        let due = self.nodes[n].engine.as_ref().and_then(Engine::deadline).is_some_and(|at| at <= now);
        let idle = due && self.trace.events == events_before;
        let node = &mut self.nodes[n];
        node.spins = if idle { node.spins + 1 } else { 0 };
        if node.spins > SPINS_MAX {
            let text = format!("node {n} asks to be woken at once, {SPINS_MAX} times over, and does nothing");
            self.check.fail("I-51", text);
        }
    }

    fn world_event(&mut self, ev: WorldEv) {
        match ev {
            WorldEv::Client(c) => self.client_acts(c),
            WorldEv::Leaves(c, session) => self.client_leaves(c, session),
            WorldEv::GiveUp(c, session, op) => self.client_gives_up(c, session, op),
            WorldEv::Blocker(b) => self.blocker_acts(b),
            WorldEv::BlockerGivesUp(b, session, cookie) => self.blocker_gives_up(b, session, cookie),
            WorldEv::Trouble => self.trouble(),
            WorldEv::Moment(kind, n) => self.bad_moment(kind, n),
            WorldEv::TroubleOver(undo) => self.trouble_over(undo),
            WorldEv::Operator => self.operator_looks(),
            WorldEv::Watch(n) => self.watch_looks(n),
        }
    }

    /// Whether the rule `mutation` is to be broken now; each is broken once, at a moment chosen by chance.
    pub(super) fn mutate(&mut self, mutation: Mutation) -> bool {
        if self.options.mutation != Some(mutation) || self.mutated || !self.operator.ready() {
            return false;
        }
        if self.streams.node.percent(80) {
            return false;
        }
        self.mutated = true;
        self.trace.event("mutation", 0, 0, || format!("{mutation:?}"));
        true
    }

    /// The node with that seq applied: where its history stands then.
    pub(super) fn tip_at(&self, n: usize, journal: JournalKind, seq: Seq) -> Option<super::truth::Tip> {
        let path = &self.check.nodes[n].journals[journal.index()].path;
        path.iter().rev().find(|tip| tip.seq == seq.0).copied()
    }
}

fn stretch(real: u64, ppm: i64) -> u64 {
    let extra = i128::from(real) * i128::from(ppm) / 1_000_000;
    u64::try_from(i128::from(real) + extra).unwrap_or(real)
}

fn unstretch(node: u64, ppm: i64) -> u64 {
    let real = i128::from(node) * 1_000_000 / (1_000_000 + i128::from(ppm));
    u64::try_from(real).unwrap_or(node)
}

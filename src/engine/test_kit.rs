//! A node for tests: the engine with a driver that does everything at once, but for what the test lets go wrong.

use super::admin::{AdminAnswer, AdminReply, AdminRequest, Grant, Status};
use super::roles::Stage;
use super::{
    Allocation, ClientDoor, ClientEffect, ClientEvent, CompareEffect, CompareEvent, CopyEffect, CopyEvent,
    Effect, Engine, EngineConfig, Event, FileEffect, FileEvent, JournalEffect, JournalEvent, LinkEffect,
    LinkEvent, PeerLoss, PrepareSegment, ReadSegment, RemoveSegment, SaveAnswer, SpoolEffect, SpoolEvent,
    SpoolFound, StartState, StoreEffect, StoreEvent, VolumeEffect, VolumeEvent,
};
use crate::base::{AckLevel, ConnId, Fault, JournalKind, Mono, Now, Ordinal, Round, SegmentIndex, Seq};
use crate::format::PairId;
use crate::format::batch::Batch;
use crate::format::compare::{Found, Span};
use crate::format::compared::Compared;
use crate::format::control::{Control, Role};
use crate::format::dptr::DptrKind;
use crate::format::spool::PartHeader;
use crate::format::unless::settled;
use crate::journal::Recovered;
use crate::store::StoreRead as _;
use crate::store::memory::MemoryStore;
use crate::store::namespace::Namespace;
use crate::store::{CompareTarget as _, CopySource as _, CopyTarget as _, StoreWrite as _};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};

pub(super) const PAIR: PairId = PairId([1; 16]);
/// The Redis client of a node that serves.
pub(super) const CLIENT: ConnId = ConnId(1);
/// A client of a volume.
pub(super) const BLOCKER: ConnId = ConnId(2);

/// Events after which a node that asks for more and more is taken for one that never ends.
const STEPS_MAX: usize = 100_000;

/// Node `ordinal` of the pair; small segments, so that tests need few entries to fill one.
pub(super) fn config(ordinal: u8) -> EngineConfig {
    EngineConfig {
        name: if ordinal == 0 { "a" } else { "b" }.to_owned(),
        ordinal: Ordinal(ordinal),
        pair: PAIR,
        segment_bytes: 64 << 10,
        quota_bytes: 1 << 30,
        ack_level: AckLevel::Local,
        on_peer_loss: PeerLoss::Block,
        checkpoint_bytes: 1 << 30,
        canary_seconds: 0,
        ..EngineConfig::default()
    }
}

/// A start that finds empty journals beside this control file and this store.
pub(super) fn empty<S>(control: Control, store: S) -> StartState<S> {
    StartState {
        control,
        journals: [Recovered::default(), Recovered::default()],
        store,
        namespace: Namespace::new(),
        applied: [Seq(0); 2],
        replay_from: [Seq(0); 2],
        copied: None,
        prepared: None,
    }
}

/// What of its surroundings refuses, hangs or is left to the test.
#[derive(Debug, Default)]
pub(super) struct Ills {
    /// Segments cannot be made.
    pub(super) segments: Option<Fault>,
    /// Writes of the journals fail.
    pub(super) writes: Option<Fault>,
    /// Writes of the control file fail.
    pub(super) control: Option<Fault>,
    /// The store cannot apply.
    pub(super) store: Option<Fault>,
    /// Volumes cannot be read.
    pub(super) volumes: Option<Fault>,
    /// Journals cannot be read back.
    pub(super) reads: Option<Fault>,
    /// After so many times more, the store cannot be made durable.
    pub(super) checkpoints: Option<(usize, Fault)>,
    /// Neither writes of the journals nor segments end.
    pub(super) disk_hangs: bool,
    /// Segments do not end.
    pub(super) segments_hang: bool,
    /// What the store is given waits in [`Node::given`].
    pub(super) store_waits: bool,
    /// The node's calls wait in [`Node::dialled`]; otherwise nobody is there.
    pub(super) peer_is_there: bool,
    /// The spool's disk.
    pub(super) spool: Option<Fault>,
    /// The drive of the spool's reels.
    pub(super) reels: Option<Fault>,
    /// Segments of both journals that the disk has room for; `None` for any number.
    pub(super) room: Option<usize>,
    /// What a compare came to is kept only later.
    pub(super) keeping_hangs: bool,
}

/// A node with its disk and store, and all that it has said.
pub(super) struct Node {
    pub(super) engine: Engine<MemoryStore>,
    pub(super) store: MemoryStore,
    pub(super) now: Now,
    pub(super) ills: Ills,
    /// The control file.
    pub(super) control: Control,
    /// The segments of both journals.
    pub(super) segments: BTreeMap<(JournalKind, SegmentIndex), Vec<u8>>,
    /// Given to the store, and neither applied nor failed yet.
    pub(super) given: VecDeque<(JournalKind, Round, Batch)>,
    /// Incidents: their word and their text.
    pub(super) told: Vec<(&'static str, String)>,
    /// What operators were answered.
    pub(super) answered: Vec<AdminReply>,
    /// What who saves was answered.
    pub(super) save_answers: Vec<SaveAnswer>,
    /// What clients of items were sent.
    pub(super) said: String,
    /// What [`BLOCKER`] was sent.
    pub(super) told_blocks: Vec<u8>,
    /// What the node sent on each connection of the link.
    pub(super) sent: Vec<(ConnId, Vec<Bytes>)>,
    /// Connections that the node ended, of the link and of clients.
    pub(super) closed: Vec<ConnId>,
    pub(super) dialled: Option<ConnId>,
    /// Lines of entries that the pair never kept, as saved.
    pub(super) saved: Vec<u8>,
    /// What the primary has in their place, once this node was rewound.
    pub(super) base: Vec<u8>,
    /// What is to be fetched from the store.
    pub(super) fetches: VecDeque<u64>,
    /// How often the store was to be made durable.
    pub(super) checkpoints: usize,
    /// What is kept of compares.
    pub(super) kept: Compared,
    /// What a hanging disk will tell when it goes on.
    pub(super) late: Vec<Event>,
    /// Parts on the spool, with the bytes of their segments.
    pub(super) spool: BTreeMap<String, (PartHeader, Vec<u8>)>,
    /// The same of those on reels.
    pub(super) reels: BTreeMap<String, (PartHeader, Vec<u8>)>,
    /// Bytes that the spool's disk has beside them.
    pub(super) spool_room: u64,
    /// The drive works, and says nothing of it until it is asked to flush.
    pub(super) flushes: VecDeque<Event>,
    pub(super) holds_flushes: bool,
}

impl Node {
    /// A node with empty journals whose control file names this role.
    pub(super) fn new(config: EngineConfig, role: Role) -> Self {
        let store = MemoryStore::new(config.ordinal);
        Self::found(config, Control::new(role, PAIR), store)
    }

    /// A node that starts with empty journals, whatever its control file says.
    pub(super) fn found(config: EngineConfig, control: Control, store: MemoryStore) -> Self {
        let start = empty(control.clone(), store.clone());
        Self {
            engine: Engine::new(config, start),
            store,
            now: Now { mono: Mono(1_000_000), wall_ms: 0 },
            ills: Ills::default(),
            control,
            segments: BTreeMap::new(),
            given: VecDeque::new(),
            told: Vec::new(),
            answered: Vec::new(),
            save_answers: Vec::new(),
            said: String::new(),
            told_blocks: Vec::new(),
            sent: Vec::new(),
            closed: Vec::new(),
            dialled: None,
            saved: Vec::new(),
            base: Vec::new(),
            fetches: VecDeque::new(),
            checkpoints: 0,
            kept: Compared::default(),
            late: Vec::new(),
            spool: BTreeMap::new(),
            reels: BTreeMap::new(),
            spool_room: 1 << 30,
            flushes: VecDeque::new(),
            holds_flushes: false,
        }
    }

    /// A node that was put at a stage.
    pub(super) fn at(stage: Stage, role: Role) -> Self {
        let mut node = Self::new(config(0), role);
        node.engine.core.roles.place(stage);
        node
    }

    /// A node that serves alone, with the files `app,orders` (items) and `app,disk` (a volume), and [`CLIENT`].
    pub(super) fn serving(config: EngineConfig) -> Self {
        let mut node = Self::new(config, Role::Primary);
        node.input(Event::Tick);
        node.asks(AdminRequest::StartAlone);
        if node.engine.core.config.under_lease {
            let (run, from) = (node.engine.core.config.seed, node.now.mono.0);
            let grant = Some(Grant { run, from, ms: 3000, alone: false });
            node.asks(AdminRequest::Lease { grant });
        }
        node.asks(AdminRequest::AccountCreate { name: "app".to_owned(), flags: "L".to_owned() });
        for (name, kind, bytes) in
            [("app,orders", DptrKind::Records, None), ("app,disk", DptrKind::Blocks, Some(1 << 20))]
        {
            let (name, flags) = (name.to_owned(), None);
            node.asks(AdminRequest::FileCreate { name, kind, flags, bytes, ack: None });
        }
        node.opens(CLIENT);
        node.told.clear();
        node
    }

    /// The same, and from now on the store does only what the test lets it do.
    pub(super) fn with_waiting_store() -> Self {
        let mut node = Self::serving(config(0));
        node.ills.store_waits = true;
        node
    }

    /// A client of items is there.
    pub(super) fn opens(&mut self, conn: ConnId) {
        let door = ClientDoor::Items { trusted: true };
        self.input(Event::Client(ClientEvent::Opened { conn, door }));
    }

    /// Something happens, and all that follows from it.
    ///
    /// # Panics
    /// If it never ends, or if the engine has more to do afterwards and did not say so: a pump that lets another go on
    /// has to set `dirty`.
    pub(super) fn input(&mut self, event: Event) {
        let (mut events, mut steps) = (VecDeque::from([event]), 0);
        while let Some(event) = events.pop_front() {
            steps += 1;
            assert!(steps < STEPS_MAX, "it asks for something again and again");
            self.engine.input(self.now, event);
            while let Some(effect) = self.engine.output() {
                events.extend(self.carry_out(effect));
            }
            self.engine.core.dirty = true;
            if let Some(effect) = self.engine.output() {
                panic!("forgotten until something else happened: {effect:?}");
            }
        }
    }

    fn carry_out(&mut self, effect: Effect) -> Option<Event> {
        let hangs = match effect {
            Effect::Journal(JournalEffect::Prepare(_)) => self.ills.disk_hangs || self.ills.segments_hang,
            Effect::Journal(JournalEffect::Write { .. }) => self.ills.disk_hangs,
            _ => false,
        };
        let event = self.outcome(effect)?;
        if hangs {
            self.late.push(event);
            return None;
        }
        Some(event)
    }

    fn outcome(&mut self, effect: Effect) -> Option<Event> {
        match effect {
            Effect::Journal(effect) => self.journal(effect).map(Event::Journal),
            Effect::Spool(effect) => self.spools(effect),
            Effect::Store(effect) => self.stores(effect).map(Event::Store),
            Effect::Copy(effect) => Some(Event::Copy(self.copies(effect))),
            Effect::Compare(effect) => self.compares(effect).map(Event::Compare),
            Effect::Volume(effect) => self.volume(effect).map(Event::Volume),
            Effect::File(effect) => Some(Event::File(self.file(effect))),
            Effect::Link(effect) => self.link(effect).map(Event::Link),
            Effect::Client(ClientEffect::Send { conn, bytes }) => {
                match conn {
                    BLOCKER => self.told_blocks.extend_from_slice(&bytes),
                    _ => self.said.push_str(std::str::from_utf8(&bytes).unwrap()),
                }
                Some(Event::Client(ClientEvent::Sent { conn }))
            }
            Effect::Client(ClientEffect::Close { conn, .. }) => {
                self.closed.push(conn);
                None
            }
            Effect::Incident(incident) => {
                if ["peer-set-back", "entries-missing"].contains(&incident.kind) {
                    assert_eq!(self.control.peer, *self.engine.core.peer.record(), "a crash forgets it");
                }
                self.told.push((incident.kind, incident.text));
                None
            }
            Effect::Admin { reply, .. } => {
                self.answered.push(reply);
                None
            }
            Effect::Save { answer, .. } => {
                self.save_answers.push(answer);
                None
            }
            _ => None,
        }
    }

    fn journal(&mut self, effect: JournalEffect) -> Option<JournalEvent> {
        Some(match effect {
            JournalEffect::Prepare(PrepareSegment { journal, index, bytes }) => {
                let full = self.ills.room.is_some_and(|room| self.segments.len() >= room);
                let fault = self.ills.segments.or(full.then_some(Fault::NoSpace));
                if let Some(fault) = fault {
                    return Some(JournalEvent::SegmentFailed { journal, index, fault });
                }
                self.segments.insert((journal, index), vec![0; usize::try_from(bytes).unwrap()]);
                JournalEvent::SegmentReady { journal, index }
            }
            JournalEffect::Write { write, journal, segment, offset, parts } => {
                if let Some(fault) = self.ills.writes {
                    return Some(JournalEvent::WriteFailed { write, fault });
                }
                let (bytes, at) = (parts.concat(), usize::try_from(offset).unwrap());
                let disk = self.segments.get_mut(&(journal, segment)).expect("a segment that was made");
                disk[at..at + bytes.len()].copy_from_slice(&bytes);
                JournalEvent::Written { write }
            }
            JournalEffect::Read(ReadSegment { read, journal, segment, offset, len }) => {
                let (disk, at) = (&self.segments[&(journal, segment)], usize::try_from(offset).unwrap());
                let bytes = disk.get(at..disk.len().min(at + len)).unwrap_or_default();
                let bytes = Bytes::copy_from_slice(bytes);
                JournalEvent::Read { read, result: self.ills.reads.map_or(Ok(bytes), Err) }
            }
            JournalEffect::Remove(RemoveSegment { journal, index, .. }) => {
                self.segments.remove(&(journal, index));
                return None;
            }
        })
    }

    /// Bytes that the spool's disk has left.
    fn spool_free(&self) -> u64 {
        self.spool_room.saturating_sub(self.spool.values().map(|(part, _)| part.file_bytes()).sum())
    }

    fn spools(&mut self, effect: SpoolEffect) -> Option<Event> {
        let (fault, reels) = (self.ills.spool, self.ills.reels);
        Some(match effect {
            SpoolEffect::Open { round, .. } => {
                let parts = self.spool.values().map(|(part, _)| *part).collect();
                let reels = self.reels.values().map(|(part, _)| *part).collect();
                let found = SpoolFound { parts, reels, free: self.spool_free(), damaged: Vec::new() };
                SpoolEvent::Opened { round, result: fault.map_or(Ok(found), Err) }.into()
            }
            SpoolEffect::Copy { round, part } => {
                let segment = &self.segments[&(JournalKind::Replicated, part.index)];
                let bytes = segment[..usize::try_from(part.bytes).unwrap()].to_vec();
                let tape = self.engine.core.spool.settings.is_tape();
                let full = (!tape && self.spool_free() < part.file_bytes()).then_some(Fault::NoSpace);
                let fault = if tape { reels } else { fault.or(full) };
                if fault.is_none() {
                    let to = if tape { &mut self.reels } else { &mut self.spool };
                    to.insert(part.file_name(), (part, bytes));
                }
                let event =
                    SpoolEvent::Copied { round, result: fault.map_or(Ok(self.spool_free()), Err) }.into();
                if !(tape && self.holds_flushes) {
                    return Some(event);
                }
                self.flushes.push_back(event);
                return None;
            }
            SpoolEffect::Move { round, part } => {
                if reels.is_none() {
                    let bytes = self.spool[&part.file_name()].1.clone();
                    self.reels.insert(part.file_name(), (part, bytes));
                }
                let event = SpoolEvent::Moved { round, result: reels.map_or(Ok(()), Err) }.into();
                if !self.holds_flushes {
                    return Some(event);
                }
                self.flushes.push_back(event);
                return None;
            }
            SpoolEffect::Read { read: ReadSegment { read, offset, len, .. }, part } => {
                let name = part.file_name();
                let (_, bytes) = self.spool.get(&name).unwrap_or_else(|| &self.reels[&name]);
                let at = usize::try_from(offset).unwrap();
                let bytes = Bytes::copy_from_slice(&bytes[at..bytes.len().min(at + len)]);
                JournalEvent::Read { read, result: fault.map_or(Ok(bytes), Err) }.into()
            }
            SpoolEffect::Remove { part, reel } => {
                let from = if reel { &mut self.reels } else { &mut self.spool };
                from.remove(&part.file_name());
                return None;
            }
            SpoolEffect::Keep { .. } => SpoolEvent::Kept { result: Ok(()) }.into(),
        })
    }

    fn stores(&mut self, effect: StoreEffect) -> Option<StoreEvent> {
        match effect {
            StoreEffect::Checkpoint => {
                self.checkpoints += 1;
                Some(match &mut self.ills.checkpoints {
                    Some((0, fault)) => StoreEvent::CheckpointFailed { fault: *fault },
                    left => {
                        left.iter_mut().for_each(|(left, _)| *left -= 1);
                        StoreEvent::Checkpointed { applied: self.store.checkpoint().unwrap() }
                    }
                })
            }
            StoreEffect::FindRot => {
                self.store.tell_rotten_again();
                let items = self.store.take_rotten_items();
                (!items.is_empty()).then_some(StoreEvent::Rotten { items })
            }
            StoreEffect::Fetch { fetch, .. } => {
                self.fetches.push_back(fetch);
                None
            }
            StoreEffect::Apply { journal, round, batch } => {
                if let Some(fault) = self.ills.store {
                    return Some(StoreEvent::ApplyFailed { journal, round, fault });
                }
                if self.ills.store_waits {
                    self.given.push_back((journal, round, batch));
                    return None;
                }
                self.store.apply(journal, std::slice::from_ref(&batch)).unwrap();
                Some(StoreEvent::Applied { journal, round, seq: batch.header().last_seq() })
            }
            StoreEffect::PrepareRewind { prepared } => {
                if let Some(fault) = self.ills.store {
                    return Some(StoreEvent::RewindPrepared { result: Err(fault) });
                }
                self.store.prepare_rewind(&prepared).unwrap();
                Some(StoreEvent::RewindPrepared { result: Ok(()) })
            }
            StoreEffect::BeginCopy { begin, ranges } => {
                if let Some(fault) = self.ills.store {
                    return Some(StoreEvent::CopyBegun { result: Err(fault) });
                }
                self.store.begin_copy(&begin, ranges.as_deref()).unwrap();
                Some(StoreEvent::CopyBegun { result: Ok(()) })
            }
            StoreEffect::TakeChunk { round, chunk, progress } => {
                if let Some(fault) = self.ills.store {
                    let journal = JournalKind::Replicated;
                    return Some(StoreEvent::ApplyFailed { journal, round, fault });
                }
                self.store.take_chunk(&chunk, &progress).unwrap();
                Some(StoreEvent::ChunkTaken { round, id: chunk.id })
            }
        }
    }

    fn copies(&mut self, effect: CopyEffect) -> CopyEvent {
        match effect {
            CopyEffect::Definitions { read } => CopyEvent::Definitions {
                read,
                result: Ok(self.store.definitions().map(|(at, all)| (at[0], all)).unwrap()),
                size: self.store.size(),
            },
            CopyEffect::Range { read, want } => {
                let chunk = self.store.range(&want).unwrap();
                CopyEvent::Range { read, result: Ok(settled(chunk, &want)) }
            }
        }
    }

    fn compares(&mut self, effect: CompareEffect) -> Option<CompareEvent> {
        match effect {
            CompareEffect::Look { look, file, span, what, most, .. } => {
                let at = self.store.shown();
                if let Span::Query(query) = &span {
                    let namespace = self.store.namespace().as_ref().clone();
                    let found = super::view::listing_of(namespace, self.store.snapshot(), query);
                    let found = found.map_or(Found::Unread, Found::Details);
                    return Some(CompareEvent::Looked { look, at, found });
                }
                let found = self.store.look(file, &span, most).and_then(|look| (look.read)());
                let found = found.map_or(Found::Unread, |chunk| Found::of(chunk, &span, what));
                Some(CompareEvent::Looked { look, at, found })
            }
            CompareEffect::Repair { look, chunk, .. } => {
                self.store.repair(&chunk).unwrap();
                Some(CompareEvent::Repaired { look, result: Ok(()) })
            }
            CompareEffect::Keep { bytes } => {
                self.kept = Compared::decode(&bytes).unwrap();
                (!self.ills.keeping_hangs).then_some(CompareEvent::Kept)
            }
        }
    }

    fn volume(&mut self, effect: VolumeEffect) -> Option<VolumeEvent> {
        Some(match effect {
            VolumeEffect::Read { read, file, offset, len, .. } => {
                let bytes = || self.store.volume_bytes(file, offset, len);
                VolumeEvent::Read { read, result: self.ills.volumes.map_or_else(|| Ok(bytes()), Err) }
            }
            VolumeEffect::Allocation { read, file, offset, len, .. } => {
                let parts = self.store.volume_allocation(file, offset, len).into_iter();
                let parts = parts.map(|(len, hole)| Allocation { len, hole }).collect();
                VolumeEvent::Allocation { read, result: self.ills.volumes.map_or(Ok(parts), Err) }
            }
            VolumeEffect::Forget { .. } => return None,
        })
    }

    fn file(&mut self, effect: FileEffect) -> FileEvent {
        match effect {
            FileEffect::WriteControl { write, bytes } => match self.ills.control {
                Some(fault) => FileEvent::ControlFailed { write, fault },
                None => {
                    self.control = Control::decode(&bytes).unwrap();
                    FileEvent::ControlWritten { write }
                }
            },
            FileEffect::SaveDiverged { save, file, first, bytes } => {
                let saved = if file.ends_with(".base") { &mut self.base } else { &mut self.saved };
                if first {
                    saved.clear();
                }
                saved.extend_from_slice(&bytes);
                FileEvent::DivergedSaved { save }
            }
        }
    }

    fn link(&mut self, effect: LinkEffect) -> Option<LinkEvent> {
        match effect {
            LinkEffect::Connect { conn } if self.ills.peer_is_there => self.dialled = Some(conn),
            LinkEffect::Connect { conn } => {
                return Some(LinkEvent::Closed { conn, why: "nobody is there".to_owned() });
            }
            LinkEffect::Send { conn, parts } => {
                self.sent.push((conn, parts));
                return Some(LinkEvent::Sent { conn });
            }
            LinkEffect::Close { conn, .. } => self.closed.push(conn),
            LinkEffect::Fill { .. } => {}
        }
        None
    }

    /// The disk does what it was asked for while it hung, and hangs no more.
    pub(super) fn goes_on(&mut self) {
        (self.ills.disk_hangs, self.ills.segments_hang) = (false, false);
        for event in std::mem::take(&mut self.late) {
            self.input(event);
        }
    }

    /// Time passes at once, and the node looks at the clock.
    pub(super) fn passes(&mut self, ms: u64) {
        self.now.mono = self.now.mono.plus_ms(ms);
        self.input(Event::Tick);
    }

    /// The same, with a look at the clock each ten milliseconds.
    pub(super) fn lives(&mut self, ms: u64) {
        for _ in 0..ms / 10 {
            self.passes(10);
        }
    }

    /// The store applies all that it was given.
    pub(super) fn apply(&mut self) {
        while self.apply_one() {}
    }

    /// The store applies one batch, if it was given any.
    pub(super) fn apply_one(&mut self) -> bool {
        let Some((journal, round, batch)) = self.given.pop_front() else { return false };
        self.store.apply(journal, std::slice::from_ref(&batch)).unwrap();
        self.input(Event::Store(StoreEvent::Applied { journal, round, seq: batch.header().last_seq() }));
        true
    }

    /// An operator asks for something; behind a barrier it takes some rounds.
    #[track_caller]
    pub(super) fn asks(&mut self, request: AdminRequest) -> AdminReply {
        self.answered.clear();
        self.input(Event::Admin { token: 1, request });
        for _ in 0..8 {
            if let Some(reply) = self.answered.pop() {
                return reply;
            }
            self.apply();
            self.input(Event::Tick);
        }
        panic!("no answer to an operator");
    }

    #[track_caller]
    pub(super) fn status(&mut self) -> Status {
        match self.asks(AdminRequest::Status) {
            AdminReply::Ok { value: AdminAnswer::Status(status) } => *status,
            other => panic!("no status: {other:?}"),
        }
    }

    /// One line of the Redis protocol, and what [`CLIENT`] is told at once.
    pub(super) fn says(&mut self, line: &str) -> String {
        self.said.clear();
        let bytes = format!("{line}\r\n").into_bytes();
        self.input(Event::Client(ClientEvent::Bytes { conn: CLIENT, bytes }));
        self.said.clone()
    }

    /// What [`CLIENT`] is told that sets an item.
    pub(super) fn set(&mut self, id: &str) -> String {
        self.says(&format!("SET app,orders,{id} x"))
    }

    /// How often an incident was told.
    pub(super) fn times(&self, kind: &str) -> usize {
        self.told.iter().filter(|(told, _)| *told == kind).count()
    }
}

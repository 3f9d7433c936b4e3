//! The state of a node's decisions, and the helpers that every part of them uses.

use super::admin::{AdminAnswer, AdminReply};
use super::apply::Applier;
use super::blocks::BlockReads;
use super::changes::Changes;
use super::config::{EngineConfig, StartState};
use super::copy::CopyJob;
use super::damage::Damage;
use super::definitions::Barrier;
use super::effect::{Effect, FileEffect};
use super::extents::Extents;
use super::incidents::Incidents;
use super::lag::Lag;
use super::link::Link;
use super::listing::Listing;
use super::overlay::Overlay;
use super::peer::{self, Keeping};
use super::promises::Promises;
use super::read_back::ReadFor;
use super::roles::{RoleState, Stage};
use super::scrub::Scrubs;
use crate::base::limits::{BLOCK_U64, SEGMENT_MIN};
use crate::base::{AckLevel, Fault, JournalKind, Mono, Now, Ordinal, Seq, Wait};
use crate::format::control::{Control, EpochMark, Role};
use crate::journal::{Journal, Recovered};
use crate::store::StoreRead;
use crate::store::namespace::Namespace;
use std::collections::{HashMap, VecDeque};

/// Everything but the doors.
#[derive(Debug)]
pub(super) struct Core<S> {
    pub(super) config: EngineConfig,
    pub(super) now: Now,
    pub(super) out: VecDeque<Effect>,
    pub(super) control: Control,
    /// The control file being written.
    pub(super) control_write: Option<u64>,
    /// The epochs that the control file on disk names, and those in the one being written: a segment that an epoch
    /// begins in may be released only once the control file knows that epoch.
    pub(super) saved_table: Vec<EpochMark>,
    pub(super) writing_table: Vec<EpochMark>,
    /// What of the peer's own words is on disk already.
    pub(super) keeping: Keeping,
    pub(super) next_id: u64,
    pub(super) journals: [Journal; 2],
    /// Writes under way, by the number in their effect.
    pub(super) writes: HashMap<u64, (JournalKind, u64)>,
    pub(super) reads: HashMap<u64, ReadFor>,
    pub(super) namespace: Namespace,
    pub(super) store: S,
    pub(super) appliers: [Applier; 2],
    /// What the store showed when this process began.
    pub(super) shown_at_start: [Seq; 2],
    pub(super) overlay: Overlay,
    pub(super) changes: Changes,
    pub(super) extents: Extents,
    pub(super) block_reads: BlockReads,
    pub(super) checkpoint: Checkpoint,
    pub(super) state: RoleState,
    pub(super) link: Link,
    pub(super) lag: Lag,
    /// Since when the configured ack level is lowered to `local`, and from which entry on.
    pub(super) degraded: Option<Seq>,
    /// The peer is back, but the promise stays lowered up to here until all up to here is there.
    pub(super) restoring: Option<Seq>,
    /// The promise is restored only once the peer has confirmed all up to here: what there was when it was lowered.
    pub(super) resume_at: Seq,
    pub(super) peer_lost_at: Option<Mono>,
    /// The highest ack level that is configured for the database or any of its files.
    pub(super) promised: AckLevel,
    /// Whether one of these levels is `received`: then the peer waits for that word alone.
    pub(super) wants_received: bool,
    /// Updates that wait for the peer, and since when.
    pub(super) promises: Promises,
    pub(super) barrier: Option<Barrier>,
    pub(super) definitions: VecDeque<(u64, super::admin::AdminRequest)>,
    pub(super) admin_waits: Vec<(Wait, u64, AdminReply)>,
    pub(super) copy: Option<CopyJob>,
    /// A copy that failed does not begin again before.
    pub(super) copy_not_before: Mono,
    pub(super) listing: Option<Listing>,
    /// Why the last write of a journal failed.
    pub(super) write_fault: Option<Fault>,
    /// Holds answers at a lowered level back, for half of the time at most; and up to where they are given then.
    pub(super) pace: super::throttle::Throttle,
    pub(super) paced_at: Seq,
    /// Since when each journal waits for a disk that does nothing for it, and what it had done until then.
    pub(super) standstill: [Option<(u64, Mono)>; 2],
    /// Why the last segment could not be made, while one waits.
    pub(super) unmade: Option<Fault>,
    pub(super) incidents: Incidents,
    pub(super) refused: u64,
    pub(super) damage: Damage,
    pub(super) scrubs: Scrubs,
    /// Something besides the journal found the disk full.
    pub(super) room_wanted: bool,
    /// Room was made for the store, which tries again: until then nobody is told that the disk is full.
    pub(super) room_until: Mono,
    /// Set by whatever may let something else go on.
    pub(super) dirty: bool,
    pub(super) stopping: bool,
}

/// The local journal carries little, and is walked at every start: its segments are an eighth of the others'.
fn local_segment(bytes: u64) -> u64 {
    (bytes / 8).next_multiple_of(BLOCK_U64).clamp(SEGMENT_MIN.min(bytes), bytes)
}

/// Adds the epochs that the journal knows to those of the control file, and leaves out those that it does not reach.
fn learn_epochs(control: &mut Control, replicated: &Recovered) {
    for mark in &replicated.epochs {
        if control.table.last().is_none_or(|last| last.epoch < mark.epoch) {
            control.table.push(*mark);
        }
    }
    control.table.retain(|mark| mark.first_seq <= replicated.end.seq);
    control.epoch = control.epoch.max(replicated.end.epoch);
}

/// When the store was last made durable, and what it was then.
#[derive(Debug, Default)]
pub(super) struct Checkpoint {
    pub(super) running: bool,
    pub(super) wanted: bool,
    /// The last one failed.
    pub(super) failed: bool,
    pub(super) at: Mono,
    pub(super) covered: [Seq; 2],
    pub(super) bytes_since: u64,
}

impl<S: StoreRead> Core<S> {
    pub(super) fn new(config: EngineConfig, start: StartState<S>) -> Self {
        let StartState { mut control, journals: [replicated, local], store, namespace, applied, replay_from } =
            start;
        let end = replicated.end.seq;
        let (saved_table, saved_peer) = (control.table.clone(), control.peer);
        let keeping = peer::found(&mut control.peer, control.role, (end, replicated.announced), saved_peer);
        learn_epochs(&mut control, &replicated);
        let applier = |at: usize, found: &Recovered| {
            Applier::new(applied[at], replay_from[at], found.end.seq, found.announced)
        };
        let appliers = [applier(0, &replicated), applier(1, &local)];
        let (pair, bytes) = (config.pair, config.segment_bytes);
        let journals = [
            Journal::new(JournalKind::Replicated, pair, bytes, replicated),
            Journal::new(JournalKind::Local, pair, local_segment(bytes), local),
        ];
        let mut core = Self {
            now: Now::default(),
            out: VecDeque::new(),
            control,
            control_write: None,
            saved_table,
            writing_table: Vec::new(),
            keeping,
            next_id: 1,
            journals,
            writes: HashMap::new(),
            reads: HashMap::new(),
            namespace,
            store,
            appliers,
            shown_at_start: [replay_from[0].min(applied[0]), replay_from[1].min(applied[1])],
            overlay: Overlay::new(config.seed),
            changes: Changes::new(config.seed),
            extents: Extents::default(),
            block_reads: BlockReads::default(),
            // The store shows this much, but a process that died may have left it only in the page cache: nothing
            // counts as durable before the first checkpoint of this life (I-06).
            checkpoint: Checkpoint { wanted: applied != [Seq(0); 2], ..Checkpoint::default() },
            state: RoleState::new(Stage::Replaying),
            link: Link::new(config.seed),
            lag: Lag::default(),
            degraded: None,
            restoring: None,
            resume_at: Seq(0),
            peer_lost_at: None,
            promised: AckLevel::Local,
            wants_received: false,
            promises: Promises::default(),
            barrier: None,
            definitions: VecDeque::new(),
            admin_waits: Vec::new(),
            copy: None,
            copy_not_before: Mono(0),
            listing: None,
            write_fault: None,
            pace: super::throttle::Throttle::default(),
            paced_at: Seq(0),
            standstill: [None; 2],
            unmade: None,
            incidents: Incidents::default(),
            refused: 0,
            damage: Damage::default(),
            scrubs: Scrubs::default(),
            room_wanted: false,
            room_until: Mono(0),
            dirty: true,
            stopping: false,
            config,
        };
        core.note_promises();
        core
    }

    pub(super) fn ordinal(&self) -> Ordinal {
        self.config.ordinal
    }

    pub(super) fn fresh_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    pub(super) fn replicated(&self) -> &Journal {
        &self.journals[0]
    }

    pub(super) fn replicated_mut(&mut self) -> &mut Journal {
        &mut self.journals[0]
    }

    /// Whether this node accepts updates to replicated files now.
    pub(super) fn serving(&self) -> bool {
        matches!(self.state.step, Stage::Serving) && !self.stopping
    }

    /// Whether this node answers reads, and updates of its own local files.
    pub(super) fn readable(&self) -> bool {
        matches!(self.state.step, Stage::Serving | Stage::Standby)
    }

    /// Whether the replicated journal carries this node's own entries.
    pub(super) fn is_primary(&self) -> bool {
        self.control.role == Role::Primary
    }

    pub(super) fn effect(&mut self, effect: impl Into<Effect>) {
        self.out.push_back(effect.into());
    }

    pub(super) fn reply(&mut self, token: u64, reply: AdminReply) {
        self.effect(Effect::Admin { token, reply });
    }

    pub(super) fn reply_value(&mut self, token: u64, value: impl Into<AdminAnswer>) {
        self.reply(token, AdminReply::Ok { value: value.into() });
    }

    pub(super) fn reply_no(&mut self, token: u64, message: impl Into<String>, next: impl Into<String>) {
        self.reply(token, AdminReply::No { message: message.into(), next: next.into() });
    }

    /// Starts replacing the control file; `control` already holds what shall stand there.
    pub(super) fn write_control(&mut self) {
        let write = self.fresh_id();
        self.control_write = Some(write);
        self.writing_table.clone_from(&self.control.table);
        self.keeping.writing = self.control.peer;
        let bytes = self.control.encode();
        self.effect(FileEffect::WriteControl { write, bytes });
    }

    /// The ack level of a file, or the database's.
    pub(super) fn level(&self, own: Option<AckLevel>) -> AckLevel {
        own.unwrap_or(self.config.ack_level)
    }
}

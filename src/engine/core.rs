//! The state of a node's decisions, and the helpers that every part of them uses.

use super::admin::{AdminAnswer, AdminReply};
use super::apply::{Applier, Appliers, Checkpoint};
use super::blocks::BlockReads;
use super::canary::Canary;
use super::changes::Changes;
use super::config::{EngineConfig, StartState};
use super::control_file::ControlFile;
use super::copy::Copies;
use super::damage::Damage;
use super::definitions::Operators;
use super::degrade::AckPromise;
use super::effect::Effect;
use super::extents::Extents;
use super::fetches::Fetches;
use super::health::Health;
use super::incidents::Incidents;
use super::journals::Journals;
use super::lease::Lease;
use super::licence::Standing;
use super::link::Link;
use super::listing::Listing;
use super::overlay::Overlay;
use super::peer::Peer;
use super::retention::Room;
use super::roles::{Roles, Stage};
use super::save::Saving;
use super::scrub::Scrubs;
use super::spool::Spool;
use super::standstill::DiskTrouble;
use super::stats::Stats;
use super::sync::{Compares, Resync};
use crate::base::{AckLevel, Now, Ordinal};
use crate::format::control::Role;
use crate::journal::{Journal, Recovered};
use crate::store::StoreRead;
use crate::store::namespace::Namespace;
use std::cell::OnceCell;
use std::collections::VecDeque;

/// Everything but the doors.
#[derive(Debug)]
pub(super) struct Core<S: StoreRead> {
    pub(super) config: EngineConfig,
    pub(super) now: Now,
    pub(super) out: VecDeque<Effect>,
    pub(super) control: ControlFile,
    pub(super) peer: Peer,
    pub(super) next_id: u64,
    pub(super) journals: Journals,
    pub(super) disk: DiskTrouble,
    pub(super) namespace: Namespace,
    pub(super) store: S,
    /// The state of it that this turn reads, once it has read any.
    pub(super) snapshot: OnceCell<S::Snapshot>,
    pub(super) fetches: Fetches,
    pub(super) appliers: Appliers,
    pub(super) overlay: Overlay,
    pub(super) changes: Changes,
    pub(super) extents: Extents,
    pub(super) block_reads: BlockReads,
    pub(super) checkpoint: Checkpoint,
    pub(super) roles: Roles,
    pub(super) lease: Lease,
    pub(super) link: Link,
    pub(super) ack_promise: AckPromise,
    pub(super) operators: Operators,
    pub(super) copies: Copies,
    pub(super) resync: Resync,
    pub(super) compares: Compares,
    pub(super) listing: Option<Listing>,
    pub(super) saving: Option<Saving>,
    pub(super) incidents: Incidents,
    pub(super) damage: Damage,
    pub(super) canary: Canary,
    pub(super) health: Health,
    pub(super) scrubs: Scrubs,
    pub(super) room: Room,
    pub(super) licence: Standing,
    pub(super) stats: Stats,
    pub(super) spool: Spool,
    /// Set by whatever may let something else go on.
    pub(super) dirty: bool,
    pub(super) stopping: bool,
}

impl<S: StoreRead> Core<S> {
    pub(super) fn new(config: EngineConfig, start: StartState<S>) -> Self {
        let mut start = start;
        let resync = Resync::found(&mut start);
        let StartState { control, journals, store, namespace, applied, replay_from, .. } = start;
        let [replicated, local] = journals;
        let peer = Peer::found(control.peer, control.role, replicated.end.seq, replicated.announced);
        let control = ControlFile::found(control, &replicated);
        let applier = |at: usize, found: &Recovered| {
            Applier::new(applied[at], replay_from[at], found.end.seq, found.announced)
        };
        let appliers = Appliers::new([applier(0, &replicated), applier(1, &local)]);
        let journals = Journals::new(config.pair, config.segment_bytes, [replicated, local]);
        let mut core = Self {
            now: Now::default(),
            out: VecDeque::new(),
            control,
            peer,
            next_id: 1,
            journals,
            disk: DiskTrouble::default(),
            namespace,
            store,
            snapshot: OnceCell::new(),
            fetches: Fetches::default(),
            appliers,
            overlay: Overlay::new(config.seed),
            changes: Changes::new(config.seed),
            extents: Extents::default(),
            block_reads: BlockReads::default(),
            checkpoint: Checkpoint::found(applied),
            roles: Roles::new(),
            lease: Lease::default(),
            link: Link::new(config.seed),
            ack_promise: AckPromise::default(),
            operators: Operators::default(),
            copies: Copies::default(),
            resync,
            compares: Compares::default(),
            listing: None,
            saving: None,
            incidents: Incidents::default(),
            damage: Damage::default(),
            canary: Canary::default(),
            health: Health::default(),
            scrubs: Scrubs::default(),
            room: Room::default(),
            licence: Standing::default(),
            stats: Stats::default(),
            spool: Spool::new(config.spool.clone()),
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
        self.roles.stage() == Stage::Serving && !self.stopping
    }

    /// Whether this node answers reads, and updates of its own local files.
    pub(super) fn readable(&self) -> bool {
        matches!(self.roles.stage(), Stage::Serving | Stage::HandingOver | Stage::Standby)
    }

    /// Whether the replicated journal carries this node's own entries.
    pub(super) fn is_primary(&self) -> bool {
        self.control.role() == Role::Primary
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

    /// The ack level of a file, or the database's.
    pub(super) fn level(&self, own: Option<AckLevel>) -> AckLevel {
        own.unwrap_or(self.config.ack_level)
    }
}

//! The decisions: composes the rooms below into one node, without I/O, clock, threads or randomness.
//!
//! The daemon drives it with real disks and sockets, the simulator with hostile ones; neither decides anything.
//! Nothing here reads a clock, a file, a socket or the environment. The one exception to "only events" is the store,
//! which the sequencer reads directly ([`crate::store::StoreRead`]): a read must see every update accepted before it.

pub mod admin;
mod answer;
mod apply;
mod backend;
mod blocks;
mod callers;
mod canary;
mod changes;
mod commit;
mod condition;
pub mod config;
mod control_file;
mod copy;
mod core;
mod damage;
pub mod decider;
mod definitions;
mod degrade;
pub mod effect;
pub mod event;
mod extents;
#[cfg(test)]
mod faults_tests;
mod fetches;
mod health;
pub mod incidents;
mod journals;
mod lease;
pub mod licence;
mod link;
mod listing;
pub mod long_way;
mod meters;
pub mod notices;
mod outputs;
mod overlay;
mod peer;
mod promises;
mod reach;
mod read_back;
mod receipts;
mod receiver;
pub mod records;
mod reels;
mod retention;
mod roles;
mod rounds;
mod save;
mod scrub;
mod sender;
mod spool;
mod spool_age;
mod spool_verbs;
mod standstill;
pub mod stats;
mod status;
mod sync;
#[cfg(test)]
mod test_kit;
#[cfg(test)]
mod test_pair;
mod throttle;
pub mod view;

use self::core::Core;
use crate::base::{Epoch, Mono, Now, Seq};
use crate::doors::BlockBackend as _;
use crate::doors::nbd::{NbdConfig, NbdDoor};
use crate::doors::resp::{RespConfig, RespDoor};
use crate::format::compare::Order;
use crate::store::StoreRead;
use admin::AdminRequest;
use blocks::Answer;
pub use config::{
    EngineConfig, FullSync, OnDiverged, PeerLoss, SpoolConfig, SpoolFull, SpoolKeep, SpoolMode, StartState,
};
pub use effect::{
    Allocation, ClientDoor, ClientEffect, ClientPlace, CompareEffect, CopyEffect, Effect, Fetched,
    FileEffect, Incident, JournalEffect, LinkEffect, Memory, PrepareSegment, ReadSegment, RemoveSegment,
    ScrubEffect, ScrubPart, Severity, SpoolEffect, StoreEffect, StoredPart, Tls, VolumeEffect,
};
pub use event::{
    ClientEvent, CompareEvent, CopyEvent, Event, FileEvent, JournalEvent, LinkEvent, ScrubEvent, SpoolEvent,
    SpoolFound, StoreEvent, VolumeEvent,
};
pub use health::DiskSpace;
use roles::Stage;
pub use rounds::Rounds;
pub use save::{SaveAnswer, SaveAsk};
use standstill::Abandon;
pub use sync::{
    Apart, Known, Link, Past, SetWalk, Span, Taken, Unlinked, Until, WalkError, is_over, is_same, link,
    within,
};

/// One node's decisions. Call [`Engine::input`] with each event, then take [`Engine::output`] until it is empty,
/// then wait for the next event or for [`Engine::deadline`].
///
/// Several events may be told before the effects are taken: what they ask for is then decided together, so that
/// updates that came at the same time share one durable write.
#[derive(Debug)]
pub struct Engine<S: StoreRead> {
    core: Core<S>,
    door: RespDoor,
    nbd: NbdDoor,
    meters: meters::Meters,
}

impl<S: StoreRead> Engine<S> {
    /// A node as found on disk; its first effects come out at the first [`Self::input`] (a [`Event::Tick`] will do).
    #[must_use]
    pub fn new(config: EngineConfig, start: StartState<S>) -> Self {
        let door = RespDoor::new(RespConfig {
            default_file: config.resp_default.clone(),
            password: config.resp_password.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            tcp_port: config.resp_doors.first().map_or(0, std::net::SocketAddr::port),
            run: config.seed,
        });
        Self {
            core: Core::new(config, start),
            door,
            nbd: NbdDoor::new(NbdConfig::default()),
            meters: meters::Meters::default(),
        }
    }

    /// Tells what happened.
    pub fn input(&mut self, now: Now, event: Event) {
        let core = &mut self.core;
        core.now = now;
        let was_dirty = std::mem::replace(&mut core.dirty, true);
        if core.look_at_lease() {
            self.tell_abandoned();
        }
        let core = &mut self.core;
        match event {
            Event::Journal(event) => core.journal_event(event),
            Event::Spool(event) => core.spool_event(event),
            Event::Store(event) => core.store_event(event),
            Event::Copy(event) => core.copy_event(event),
            Event::Compare(event) => core.compare_event(event),
            Event::Volume(VolumeEvent::Read { read, result }) => core.volume_read(read, result),
            Event::Volume(VolumeEvent::Allocation { read, result }) => core.volume_allocation(read, result),
            Event::Volume(VolumeEvent::Wrong { places }) => core.volumes_wrong(&places),
            Event::Scrub(event) => core.scrub_event(event),
            Event::File(event) => core.file_event(event),
            Event::Link(event) => core.link_event(event),
            Event::Client(event) => self.client_event(now, event, was_dirty),
            Event::Tick => self.door.begin_round(),
            Event::Measured { memory } => self.door.measured(memory),
            Event::DiskSpace(disk) => core.health.disk_measured(disk),
            Event::Admin { token, request } => self.admin(token, request),
            Event::Save { token, ask } => core.save_asked(token, ask),
            Event::ViewEnded { name, why } => core.view_ended(&name, &why),
            Event::Licence(tested) => core.licence_tested(*tested),
            Event::Stop => core.stopping = true,
        }
    }

    /// `was_dirty`: something that came before may let another part go on.
    fn client_event(&mut self, now: Now, event: ClientEvent, was_dirty: bool) {
        let core = &mut self.core;
        match event {
            ClientEvent::Opened { conn, door: ClientDoor::Items { trusted } } => {
                self.door.open(now, conn, trusted)
            }
            ClientEvent::Opened { conn, door: ClientDoor::Blocks { tls } } => self.nbd.open(now, conn, tls),
            ClientEvent::Placed { conn, place } => self.door.placed(conn, *place),
            ClientEvent::Bytes { conn, bytes } if self.nbd.knows(conn) => {
                self.nbd.input(now, conn, bytes, core)
            }
            ClientEvent::Filled { conn, buffer } => self.nbd.filled(now, conn, buffer, core),
            ClientEvent::Secured { conn } => self.nbd.secured(conn),
            ClientEvent::Sent { conn } if self.nbd.knows(conn) => self.nbd.sent(now, conn),
            ClientEvent::Closed { conn } if self.nbd.knows(conn) => self.nbd.close(conn),
            ClientEvent::Bytes { conn, bytes } => {
                core.begin_turn();
                self.door.input(now, conn, bytes, core);
                core.end_turn();
            }
            ClientEvent::Ended { conn, .. } if self.nbd.knows(conn) => self.nbd.ended(conn),
            ClientEvent::Ended { conn, drained } => {
                core.begin_turn();
                self.door.ended(now, conn, drained, core);
                core.end_turn();
            }
            ClientEvent::Sent { conn } => {
                // Most often nobody can go on by it, and it comes for every reply.
                let due = self.door.sent(conn);
                core.dirty = was_dirty || due;
            }
            ClientEvent::Closed { conn } => self.door.close(conn),
        }
    }

    fn admin(&mut self, token: u64, request: AdminRequest) {
        let core = &mut self.core;
        match request {
            AdminRequest::Status => {
                let clients = self.door.clients() + self.nbd.clients();
                let volumes = core.volume_views(|file| self.nbd.traffic(file), &self.meters);
                let status = admin::Status { volumes, ..core.status(clients as u64) };
                core.reply_value(token, status);
            }
            AdminRequest::Incidents => {
                let list: Vec<_> = core.incidents.recent().map(admin::IncidentView::from).collect();
                core.reply_value(token, list);
            }
            AdminRequest::Takeover { peer_is_down, dry_run, accept_loss, now, incomplete, epoch } => {
                let word = roles::Word { peer_is_down, accept_loss, now, dry_run, incomplete, epoch };
                core.takeover(token, word);
            }
            AdminRequest::Lease { grant } => core.lease(token, grant),
            AdminRequest::Switchover { dry_run } => core.switchover(token, dry_run),
            AdminRequest::StartAlone => core.start_alone(token, false),
            AdminRequest::StartAloneAcceptLoss => core.start_alone(token, true),
            AdminRequest::Resync { rate, full, accept_incomplete } => {
                core.resync(token, rate, full, accept_incomplete);
            }
            AdminRequest::AccountList => {
                let list = core.account_views();
                core.reply_value(token, list);
            }
            AdminRequest::FileList { account } => {
                let mut list = core.file_views(account.as_deref());
                for view in &mut list {
                    view.clients = self.nbd.traffic(crate::base::FileId(view.id)).clients;
                }
                core.reply_value(token, list);
            }
            AdminRequest::LogShow { limit } => core.start_listing(token, limit),
            AdminRequest::Stats => {
                let view = core.stats_view();
                core.reply_value(token, view);
            }
            AdminRequest::Queue => {
                let view = core.queue_view();
                core.reply_value(token, view);
            }
            AdminRequest::Receipt { seq, epoch } => {
                let view = core.receipt(Seq(seq), epoch.map(Epoch));
                core.reply_value(token, view);
            }
            AdminRequest::Scrub { name, rate, renew } => {
                core.scrub(token, &scrub::Wanted { name, rate, renew });
            }
            AdminRequest::ScrubStop => core.stop_scrub(token),
            AdminRequest::Compare { name, repair, dry_run, rate } => {
                let name = name.unwrap_or_default();
                core.compare_files(token, Order { stop: false, repair, dry_run, rate, name });
            }
            AdminRequest::CompareQuery { query } => core.compare_query(token, &query),
            AdminRequest::CompareStop => core.stop_compare(token),
            AdminRequest::CompareResult => {
                let view = core.compare_result(true);
                core.reply_value(token, view);
            }
            AdminRequest::ViewOpen(_) => core.view_terms(token),
            AdminRequest::SpoolStart { to, always } => core.start_spool(token, to, always),
            AdminRequest::SpoolStop { drop } => core.stop_spool(token, drop),
            AdminRequest::DivergedList => {
                let list = core.roles.diverged_files().to_vec();
                core.reply_value(token, list);
            }
            other => core.queue_definition(token, other),
        }
    }

    /// The next thing to do.
    pub fn output(&mut self) -> Option<Effect> {
        loop {
            if let Some(effect) = self.core.out.pop_front() {
                return Some(effect);
            }
            if let Some(output) = self.door.output() {
                return Some(ClientEffect::from(output).into());
            }
            if let Some(output) = self.nbd.output() {
                return Some(ClientEffect::from(output).into());
            }
            if !std::mem::take(&mut self.core.dirty) {
                return None;
            }
            self.pump();
        }
    }

    /// Lets every part go on as far as it can.
    ///
    /// The order is that in which one part waits for another, so that most often one round is enough:
    ///
    /// 1. The journals seal and write. Everything else waits for what is durable.
    /// 2. The store is given what may be applied by that.
    /// 3. Stages change: they wait for a quiet journal and a store that shows all of it.
    /// 4. The link dials, sends what was sealed and acknowledges what is durable, as the stage allows.
    /// 5. The promise is looked at with what the link knows; so the watermarks below are those of this round.
    /// 6. Operators' changes, copies and listings put entries behind those of clients.
    /// 7. The record of the peer is written last: a control file that a stage needs goes first and holds it too.
    /// 8. People and clients are told what is true at the end of the round.
    ///
    /// Who makes something possible for a part that had its turn already sets `dirty`; then there is another round. So
    /// does every event, as it may concern any part. A test's driver (`test_kit.rs`) runs one round more after each event
    /// and fails if that finds something to do.
    fn pump(&mut self) {
        let core = &mut self.core;
        core.pump_journals();
        core.pump_apply();
        core.pump_roles();
        core.pump_taking();
        core.pump_compare();
        core.pump_link();
        core.pump_degrade();
        core.pump_definitions();
        core.pump_copy();
        core.pump_scrub();
        core.pump_listing();
        core.pump_save();
        core.pump_spool();
        core.pump_canary();
        core.pump_health();
        core.pump_peer_state();
        core.pump_peer_record();
        core.pump_stats();
        core.pump_incidents();
        self.tell_abandoned();
        let core = &mut self.core;
        if core.roles.parts_from_blocks() {
            self.nbd.part(core);
        }
        while let Some(answer) = core.block_reads.answers.pop_front() {
            match answer {
                Answer::Read(token, result) => self.nbd.read_done(core.now, token, result),
                Answer::Allocation(token, result) => self.nbd.allocation_done(core.now, token, result),
            }
        }
        core.begin_turn();
        while let Some(fetch) = core.fetches.done.pop_front() {
            self.door.fetched(fetch);
        }
        self.door.tick(core.now, core);
        self.door.release(core.now, core);
        core.end_turn();
        self.nbd.tick(core.now, core);
        self.nbd.release(core.now, core);
        core.tell_damage();
        let door = &self.nbd;
        self.meters.look(core.now.mono, || {
            core.volumes().iter().map(|volume| (volume.file, door.traffic(volume.file))).collect()
        });
    }

    /// Tells clients that wait for an answer which will not come.
    fn tell_abandoned(&mut self) {
        if let Some(Abandon { why, beyond }) = self.core.disk.take_abandoned() {
            self.door.abandon(&why, beyond);
            self.nbd.abandon(&why, beyond);
        }
    }

    /// What this process has counted.
    #[must_use]
    pub fn stats(&self) -> stats::StatsView {
        self.core.stats_view()
    }

    /// Whether everything that was found on disk and may be applied is, so that the node can take its part: serve,
    /// ask its peer, stand by.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.core.roles.stage() != Stage::Replaying
    }

    /// The last test update that made the whole way: everything up to this entry is applied on both nodes.
    #[must_use]
    pub fn canary_arrived(&self) -> Option<crate::base::Seq> {
        self.core.canary.arrived()
    }

    /// The last entry of each journal; what clients asked for and is not in them was not begun.
    #[must_use]
    pub fn appended(&self) -> [crate::base::Seq; 2] {
        self.core.journals.appended()
    }

    /// The entries that are answered at level `local` now whatever was promised: those after the first number, and, once
    /// the peer has caught up, only those up to the second.
    #[must_use]
    pub fn lowered(&self) -> Option<(crate::base::Seq, Option<crate::base::Seq>)> {
        self.core.lowered()
    }

    /// Entries replayed until now, and how many there are.
    #[must_use]
    pub fn replayed(&self) -> (u64, u64) {
        self.core.replayed()
    }

    /// When [`Event::Tick`] is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Mono> {
        let core = &self.core;
        let journals = core.journals.iter().filter_map(crate::journal::Journal::deadline).min();
        [
            journals,
            core.apply_deadline(),
            core.checkpoint_deadline(),
            core.roles_deadline(),
            core.lease_deadline(),
            core.resync.deadline(),
            core.compare_deadline(),
            core.link_deadline(),
            core.degrade_deadline(),
            core.peer.write_deadline(core.now.mono),
            core.incidents.deadline(),
            core.copies.deadline(core.now.mono),
            core.stuck_deadline(),
            core.standstill_deadline(),
            core.canary_deadline(),
            core.scrub_deadline(),
            core.spool_deadline(),
            self.door.deadline(),
            self.nbd.deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }
}

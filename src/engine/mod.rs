//! The decisions: composes the rooms below into one node, without I/O, clock, threads or randomness.
//!
//! The daemon drives it with real disks and sockets, the simulator with hostile ones; neither decides anything.
//! Nothing here reads a clock, a file, a socket or the environment. The one exception to "only events" is the store,
//! which the sequencer reads directly ([`crate::store::StoreRead`]): a read must see every update accepted before it.

pub mod admin;
mod apply;
mod backend;
mod blocks;
mod callers;
mod changes;
mod commit;
mod condition;
pub mod config;
mod copy;
mod core;
mod damage;
mod definitions;
mod degrade;
pub mod effect;
mod extents;
pub mod incidents;
mod lag;
mod link;
mod listing;
mod meters;
mod overlay;
mod peer;
mod peer_door;
mod progress;
mod promises;
mod reach;
mod receiver;
mod roles;
mod rounds;
mod sender;
mod status;
mod takeover;
mod throttle;

use self::core::{Core, ReadFor};
use crate::base::{Mono, Now};
use crate::doors::BlockBackend as _;
use crate::doors::nbd::{NbdConfig, NbdDoor, NbdOutput};
use crate::doors::resp::{DoorOutput, RespConfig, RespDoor};
use crate::store::StoreRead;
use admin::AdminRequest;
use blocks::Answer;
pub use config::{EngineConfig, PeerLoss, StartState};
pub use effect::{Allocation, ClientDoor, ClientPlace, Effect, Event, Incident, Memory, Severity, Tls};
use roles::Stage;
pub use rounds::Rounds;

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
        match event {
            Event::Tick => self.door.begin_round(),
            Event::SegmentReady { journal, index } => core.journals[journal.index()].segment_ready(index),
            Event::SegmentFailed { journal, index, fault } => {
                core.segment_failed(journal, index, fault);
            }
            Event::Written { write } => core.written(write),
            Event::WriteFailed { write, fault } => core.write_failed(write, fault),
            Event::ControlWritten { write } => core.control_written(write),
            Event::ControlFailed { write, fault } => core.control_failed(write, fault),
            Event::Read { read, result } => match core.reads.remove(&read) {
                Some(ReadFor::Apply(journal)) => core.apply_read(journal, read, result),
                Some(ReadFor::Stream) => core.stream_read(read, result),
                Some(ReadFor::Listing) => core.listing_read(read, result),
                Some(ReadFor::Diverged) => core.diverged_read(read, result),
                None => {}
            },
            Event::Applied { journal, round, seq } => core.applied(journal, round, seq),
            Event::ApplyFailed { journal, round, fault } => core.apply_failed(journal, round, fault),
            Event::Checkpointed { applied } => core.checkpointed(applied),
            Event::CheckpointFailed { fault } => core.checkpoint_failed(fault),
            Event::VolumeRead { read, result } => core.volume_read(read, result),
            Event::VolumeAllocation { read, result } => core.volume_allocation(read, result),
            Event::DivergedSaved { save } => core.diverged_saved(save),
            Event::DivergedFailed { save, fault } => core.diverged_failed(save, fault),
            Event::LinkAccepted { conn, from } => core.link_accepted(conn, from),
            Event::LinkConnected { conn } => core.link_connected(conn),
            Event::LinkBytes { conn, bytes } => core.link_bytes(conn, &bytes),
            Event::LinkFilled { conn, buffer } => core.link_filled(conn, buffer),
            Event::LinkSent { conn } => core.link_sent(conn),
            Event::LinkMoved { conn } => core.link_moved(conn),
            Event::LinkClosed { conn, why } => core.link_closed(conn, &why),
            Event::ClientOpened { conn, door: ClientDoor::Items { trusted } } => {
                self.door.open(now, conn, trusted)
            }
            Event::ClientOpened { conn, door: ClientDoor::Blocks { tls } } => self.nbd.open(now, conn, tls),
            Event::ClientPlaced { conn, place } => self.door.placed(conn, *place),
            Event::Measured { memory } => self.door.measured(memory),
            Event::ClientBytes { conn, bytes } if self.nbd.knows(conn) => {
                self.nbd.input(now, conn, bytes, core)
            }
            Event::ClientFilled { conn, buffer } => self.nbd.filled(now, conn, buffer, core),
            Event::ClientSecured { conn } => self.nbd.secured(conn),
            Event::ClientSent { conn } if self.nbd.knows(conn) => self.nbd.sent(now, conn),
            Event::ClientClosed { conn } if self.nbd.knows(conn) => self.nbd.close(conn),
            Event::ClientBytes { conn, bytes } => {
                core.store.pin();
                self.door.input(now, conn, bytes, core);
                core.store.unpin();
            }
            Event::ClientEnded { conn, .. } if self.nbd.knows(conn) => self.nbd.ended(conn),
            Event::ClientEnded { conn, drained } => {
                core.store.pin();
                self.door.ended(now, conn, drained, core);
                core.store.unpin();
            }
            Event::ClientSent { conn } => {
                // Most often nobody can go on by it, and it comes for every reply.
                let due = self.door.sent(conn);
                core.dirty = was_dirty || due;
            }
            Event::ClientClosed { conn } => self.door.close(conn),
            Event::Admin { token, request } => self.admin(token, request),
            Event::Stop => core.stopping = true,
        }
    }

    fn admin(&mut self, token: u64, request: AdminRequest) {
        let core = &mut self.core;
        match request {
            AdminRequest::Status => {
                let clients = self.door.clients() + self.nbd.clients();
                let volumes = core.volume_views(|file| self.nbd.traffic(file), &self.meters);
                let status = admin::Status { volumes, ..core.status(clients as u64) };
                core.reply_value(token, &status);
            }
            AdminRequest::Incidents => {
                let list: Vec<_> = core.incidents.recent().cloned().collect();
                core.reply_value(token, &list);
            }
            AdminRequest::Takeover { peer_is_down, dry_run, accept_loss, now } => {
                core.takeover(token, takeover::Word { peer_is_down, accept_loss, now, dry_run });
            }
            AdminRequest::StartAlone => core.start_alone(token, false),
            AdminRequest::StartAloneAcceptLoss => core.start_alone(token, true),
            AdminRequest::AccountList => {
                let list = core.account_views();
                core.reply_value(token, &list);
            }
            AdminRequest::FileList { account } => {
                let mut list = core.file_views(account.as_deref());
                for view in &mut list {
                    view.clients = self.nbd.traffic(crate::base::FileId(view.id)).clients;
                }
                core.reply_value(token, &list);
            }
            AdminRequest::LogShow { limit } => core.start_listing(token, limit),
            AdminRequest::DivergedList => {
                let list = core.state.diverged_files.clone();
                core.reply_value(token, &list);
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
                return Some(match output {
                    DoorOutput::Send { conn, bytes } => Effect::ClientSend { conn, bytes },
                    DoorOutput::Receive { conn, buffer } => Effect::ClientReceive { conn, buffer },
                    DoorOutput::Proven { conn } => Effect::ClientProven { conn },
                    DoorOutput::Guessed { conn } => Effect::ClientGuessed { conn },
                    DoorOutput::Close { conn } => Effect::ClientClose { conn, stuck: false },
                });
            }
            if let Some(output) = self.nbd.output() {
                return Some(match output {
                    NbdOutput::Send { conn, bytes } => Effect::ClientSend { conn, bytes },
                    NbdOutput::Receive { conn, buffer } => Effect::ClientReceive { conn, buffer },
                    NbdOutput::Fill { conn, buffer, until } => Effect::ClientFill { conn, buffer, until },
                    NbdOutput::Proven { conn } => Effect::ClientProven { conn },
                    NbdOutput::Refused { conn, why } => Effect::ClientRefused { conn, why },
                    NbdOutput::StartTls { conn } => Effect::ClientStartTls { conn },
                    NbdOutput::Close { conn, stuck } => Effect::ClientClose { conn, stuck },
                });
            }
            if !std::mem::take(&mut self.core.dirty) {
                return None;
            }
            self.pump();
        }
    }

    /// Lets every part go on as far as it can.
    fn pump(&mut self) {
        let core = &mut self.core;
        core.pump_journals();
        core.pump_apply();
        core.pump_roles();
        core.pump_link();
        core.pump_degrade();
        core.pump_definitions();
        core.pump_copy();
        core.pump_listing();
        core.watch_peer();
        core.pump_peer();
        core.pump_incidents();
        if std::mem::take(&mut core.state.abandon_clients) {
            self.door.abandon();
            self.nbd.abandon();
        }
        while let Some(answer) = core.block_reads.answers.pop_front() {
            match answer {
                Answer::Read(token, result) => self.nbd.read_done(core.now, token, result),
                Answer::Allocation(token, result) => self.nbd.allocation_done(core.now, token, result),
            }
        }
        core.store.pin();
        self.door.tick(core.now, core);
        self.door.release(core.now, core);
        core.store.unpin();
        self.nbd.tick(core.now, core);
        self.nbd.release(core.now, core);
        core.tell_damage();
        let door = &self.nbd;
        self.meters.look(core.now.mono, || {
            core.volumes().iter().map(|volume| (volume.file, door.traffic(volume.file))).collect()
        });
    }

    /// Whether everything that was found on disk and may be applied is, so that the node can take its part: serve,
    /// ask its peer, stand by.
    #[must_use]
    pub fn is_up(&self) -> bool {
        !matches!(self.core.state.step, Stage::Replaying)
    }

    /// The last entry of each journal; what clients asked for and is not in them was not begun.
    #[must_use]
    pub fn appended(&self) -> [crate::base::Seq; 2] {
        self.core.journals.each_ref().map(|journal| journal.pace().appended)
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
            core.link_deadline(),
            core.degrade_deadline(),
            core.peer_deadline(),
            core.incidents.deadline(),
            core.stuck_deadline(),
            core.unwritten_deadline(),
            self.door.deadline(),
            self.nbd.deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }
}

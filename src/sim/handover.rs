//! Switchovers: the operator asks for them at bad moments, and what must hold of a role that is given away.

use super::checker::Checker;
use super::disk::Death;
use super::net::Seen;
use super::operator::Purpose;
use super::options::{Mutation, Trouble};
use super::world::{World, WorldEv};
use crate::base::{ConnId, Epoch};
use crate::engine::LinkEvent;
use crate::engine::admin::{AdminReply, AdminRequest};
use crate::format::control::Role;
use crate::format::frame::{FRAME_HEADER, FrameFields, FrameKind, Refuse, RefuseCode, encode_header};
use crate::format::handover::Handover;
use bytes::Bytes;

/// What is done to the pair while it changes roles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// The node that was primary loses its power.
    Primary,
    /// The node that was standby.
    Standby,
    /// Both.
    Both,
    /// All connections are reset, and what is on its way is lost.
    Reset,
    /// Nothing gets through any more, for two seconds.
    Silence,
    /// Nothing gets from the old primary to the other.
    ToStandby,
    /// Nothing gets back.
    ToPrimary,
}

/// Each of them.
pub const HARMS: [Harm; 7] =
    [Harm::Primary, Harm::Standby, Harm::Both, Harm::Reset, Harm::Silence, Harm::ToStandby, Harm::ToPrimary];

/// The role that a node gave away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Given {
    /// Its epoch then.
    epoch: Epoch,
    /// The connection.
    session: u64,
}

impl World {
    /// The operator asks a node for a switchover; now and then just to see what it would do.
    pub(super) fn switch_over(&mut self, n: usize) {
        if self.nodes[n].engine.is_none() || self.disk_was_damaged() {
            return;
        }
        let dry_run = self.streams.operator.percent(10);
        self.ask(n, AdminRequest::Switchover { dry_run }, Purpose::Switchover { dry_run });
        if self.streams.operator.percent(60) {
            let kind = [Trouble::Kill, Trouble::Power, Trouble::Reset, Trouble::Silence, Trouble::HalfOpen]
                [usize::try_from(self.streams.operator.below(5)).unwrap_or(0)];
            let node = usize::try_from(self.streams.operator.below(2)).unwrap_or(0);
            let us = self.streams.operator.below(40 * (self.options.disk_us + self.options.net_us));
            self.after(us, WorldEv::Moment(kind, node));
        }
    }

    /// Something bad happens to a node that may be changing roles.
    pub(super) fn bad_moment(&mut self, kind: Trouble, n: usize) {
        if !self.operator.healing() {
            self.strike(kind, n, 300_000);
        }
    }

    /// The operator asks a node for a switchover, at exactly this moment.
    pub(super) fn switch_over_now(&mut self, n: usize) {
        self.ask(n, AdminRequest::Switchover { dry_run: false }, Purpose::Switchover { dry_run: false });
    }

    /// Does that to the pair, of which node `n` was the primary.
    pub(super) fn harm(&mut self, harm: Harm, n: usize) {
        match harm {
            Harm::Primary => self.die(n, Death::Power),
            Harm::Standby => self.die(1 - n, Death::Power),
            Harm::Both => {
                self.die(0, Death::Power);
                self.die(1, Death::Power);
            }
            Harm::Reset => self.reset_all(),
            Harm::Silence => self.net.blocked = [true; 2],
            Harm::ToStandby => self.net.blocked[n] = true,
            Harm::ToPrimary => self.net.blocked[1 - n] = true,
        }
    }

    pub(super) fn switchover_answer(&mut self, dry_run: bool, reply: &AdminReply) {
        match reply {
            AdminReply::Ok { .. } if !dry_run => self.trace.sometimes("a switchover"),
            AdminReply::Ok { .. } => {}
            AdminReply::No { message, .. } => {
                if message.contains("did not get level") {
                    self.trace.sometimes("a switchover was given up");
                }
            }
            AdminReply::Error { .. } => {}
        }
    }

    /// A role was given away on a connection. A forged word makes the old primary go on while the other takes it.
    pub(super) fn role_was_given(&mut self, n: usize, id: u64, conn: ConnId, epoch: Epoch) {
        if !self.mutate(Mutation::ServeOn) {
            return;
        }
        let Some(connection) = self.net.connections.get(&id) else { return };
        let number = connection.ends[1 - n].out.last_number + 1;
        let refuse = Refuse { code: RefuseCode::NotNow as u16, text: "forged".to_owned() }.encode();
        let fields = FrameFields { session: conn.0, number, epoch, ..FrameFields::default() };
        let mut bytes = encode_header(FrameKind::Refuse, &fields, &refuse).to_vec();
        assert_eq!(bytes.len(), FRAME_HEADER);
        bytes.extend_from_slice(&refuse);
        let now = self.now_at(n);
        if let Some(engine) = &mut self.nodes[n].engine {
            engine.input(now, LinkEvent::Bytes { conn, bytes: Bytes::from(bytes) }.into());
        }
    }
}

impl Checker {
    /// A node sent a frame of a switchover, or refused one.
    pub(super) fn on_handover(&mut self, node: usize, seen: &Seen, step: Option<&Handover>) {
        if matches!(step, None | Some(Handover::Taken { .. })) {
            self.nodes[node].ended_stream_at = Some(self.now);
        }
        match step {
            // It has not taken what it was given on this connection.
            None => {
                let same = |given: &mut Given| given.session == seen.header.session;
                self.nodes[1 - node].given.take_if(same);
            }
            Some(Handover::Give { at, .. }) => {
                let (own, peer) = (&self.nodes[node].journals[0], &self.nodes[1 - node].journals[0]);
                // It may have died since it said so: its store fell back then, and its journal brings it there again.
                let there = &self.nodes[1 - node];
                let died = there.said.last().is_none_or(|said| said.deaths != there.deaths);
                let level = own.tip().chain == at.chain.0
                    && own.tip().seq == at.seq.0
                    && own.pending.iter().all(|pending| pending.moves.is_empty())
                    && (peer.holds(at.chain.0) || there.shortened)
                    && (peer.applied >= at.seq.0 || died);
                if !level {
                    let text = format!(
                        "node {node} gives its role away at entry {}; it ends at {}, the other at {}, which shows {}",
                        at.seq,
                        own.tip().seq,
                        peer.tip().seq,
                        peer.applied
                    );
                    self.fail("I-25", text);
                }
                let (epoch, session) = (seen.header.epoch, seen.header.session);
                self.nodes[node].given = Some(Given { epoch, session });
            }
            Some(Handover::Taken { .. }) => {
                let control = &self.nodes[node].control;
                if control.role != Role::Primary || control.epoch != seen.header.epoch {
                    let text =
                        format!("node {node} says that it took epoch {}, and has not", seen.header.epoch);
                    self.fail("I-25", text);
                }
            }
            Some(Handover::Ask { .. } | Handover::Told(_)) => {}
        }
    }

    /// A node becomes primary, or opens another epoch as such.
    pub(super) fn on_opening(&mut self, node: usize, was: Role) {
        let by_word = self.nodes[node].taking_over;
        if was == Role::Standby && !by_word {
            if self.nodes[1 - node].given.is_none() {
                let text = format!("node {node} becomes primary, and nobody told it to or gave it the role");
                self.fail("I-25", text);
            }
            let gone: Vec<usize> = self.gone(node).iter().map(|acked| acked.op).collect();
            if !gone.is_empty() {
                self.fail("I-25", format!("a switchover to node {node} loses commands {gone:?}"));
            }
        }
        if let Some(Given { epoch, .. }) = self.nodes[node].given.take()
            && self.nodes[1 - node].control.role == Role::Primary
            && self.nodes[1 - node].control.epoch > epoch
        {
            let text = format!("node {node} serves again after epoch {epoch}, although its role was taken");
            self.fail("I-25", text);
        }
    }

    /// A node appended to its journal in this epoch.
    pub(super) fn on_appended(&mut self, node: usize, epoch: Epoch) {
        if self.nodes[node].given.is_some_and(|given| given.epoch == epoch) {
            let text =
                format!("node {node} accepts updates in epoch {epoch}, although it gave its role away");
            self.fail("I-25", text);
        }
    }
}

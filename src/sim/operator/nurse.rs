//! After the last trouble: the pair becomes whole, or it is said why not.

use super::super::disk::Death;
use super::super::world::{Ev, World};
use super::{Phase, Purpose, Undo};
use crate::base::AckLevel;
use crate::engine::admin::{AdminRequest, Status};
use crate::engine::{OnDiverged, PeerLoss};
use crate::format::control::Role;
use crate::format::dptr::FileState;

impl World {
    /// After the last trouble: what an operator would do, until the pair is whole; then one more update.
    pub(super) fn nurse(&mut self, since: u64, probe: Option<usize>) {
        let waited = self.trace.now - since;
        for n in 0..2 {
            if self.nodes[n].engine.is_some() {
                self.operator.status_asked[n] = self.trace.now;
                self.ask(n, AdminRequest::Status, Purpose::Status);
            } else if self.nodes[n].halted.is_none() {
                self.node_after(1_000, n, Ev::Boot);
            }
            if self.operator.status[n].as_ref().is_some_and(|s| s.state == "read-only") {
                self.trace.sometimes("a node became read-only");
                self.die(n, Death::Kill);
            }
        }
        self.prod(waited);
        let whole = self.is_whole();
        if waited > 60_000_000 {
            let states = self
                .operator
                .status
                .each_ref()
                .map(|s| s.as_ref().map(|s| (s.role.clone(), s.state.clone(), s.reason.clone())));
            let text = format!(
                "the pair is not whole a minute after the last trouble ({}): {states:?}",
                self.why_not()
            );
            return self.check.fail("I-50", text);
        }
        let Some(serving) = whole else { return };
        match probe {
            None if self.may_probe(serving) => {
                let number = self.ops.len();
                if self.send_probe(serving) {
                    self.operator.phase = Phase::Heal { since, probe: Some(number) };
                }
            }
            None => self.finish(serving),
            Some(number) => match &self.ops[number].ending {
                super::super::client::Ending::Ok => self.finish(serving),
                super::super::client::Ending::Open => {}
                _ => self.operator.phase = Phase::Heal { since, probe: None },
            },
        }
    }

    /// Whether an update must succeed now.
    fn may_probe(&self, serving: usize) -> bool {
        let other = 1 - serving;
        let role = self.check.nodes[other].control.role;
        let lives = self.nodes[other].engine.is_some();
        let degrades = matches!(self.options.on_peer_loss, PeerLoss::Degrade { .. });
        // What an incomplete peer acknowledges keeps no promise.
        let alone = (role == Role::Incomplete || self.check.cannot_be_followed(serving)) && degrades;
        (lives && role == Role::Standby && !self.check.cannot_be_followed(serving))
            || alone
            || self.options.ack_level == AckLevel::Local
    }

    /// What only an operator can decide.
    fn prod(&mut self, waited: u64) {
        if self.operator.paused && waited.is_multiple_of(500_000) {
            self.trouble_over(Undo::Resume);
        }
        if waited < 8_000_000 || !waited.is_multiple_of(1_000_000) {
            return;
        }
        let serving = (0..2).any(|n| self.operator.status[n].as_ref().is_some_and(Status::serves));
        if serving {
            return;
        }
        for n in 0..2 {
            if self.nodes[n].engine.is_none() {
                continue;
            }
            // Both wait for the operator, and the one that is behind says for what.
            let other = self.operator.status[1 - n].as_ref();
            let behind = other.is_some_and(|s| s.reason.contains("hot-backup takeover --peer-is-down"));
            if behind && self.check.nodes[n].control.role == Role::Standby {
                self.die(1 - n, Death::Kill);
            } else if self.nodes[1 - n].halted.is_none() {
                continue;
            }
            match self.check.nodes[n].control.role {
                Role::Standby => {
                    self.ask_takeover(n);
                }
                // Nobody has more than this node: the other one is halted for good.
                Role::Primary => self.ask(n, AdminRequest::StartAloneAcceptLoss, Purpose::Alone),
                Role::Diverged | Role::Incomplete => {}
            }
        }
    }

    /// The node that serves, if the pair is whole: the other one is equal, or diverged, or halted for good.
    fn is_whole(&mut self) -> Option<usize> {
        let state = |n: usize| self.operator.status[n].as_ref().map_or("", |s| s.state.as_str());
        let serves = |n: &usize| self.operator.status[*n].as_ref().is_some_and(Status::serves);
        let serving = (0..2).find(serves)?;
        let other = 1 - serving;
        if self.operator.paused || !self.settled(serving) {
            return None;
        }
        if self.nodes[other].halted.is_some() {
            return Some(serving);
        }
        match state(other) {
            "diverged" if self.options.on_diverged == OnDiverged::Wait => Some(serving),
            "standby" => {
                let tip = self.check.nodes[serving].journals[0].tip();
                let there = &self.check.nodes[other].journals[0];
                let lag = self.operator.status[serving].as_ref().map_or(1, |s| s.peer.lag_entries);
                let equal = there.tip() == tip && there.applied == tip.seq && lag == 0 && self.settled(other);
                // What it said may be over: it left its history for a copy since.
                let stands_by = self.check.nodes[other].control.role == Role::Standby;
                (equal && stands_by && !self.copies(serving)).then_some(serving)
            }
            _ => None,
        }
    }

    /// Whether a node shows all that its journals hold.
    fn settled(&self, n: usize) -> bool {
        let journals = &self.check.nodes[n].journals;
        journals.iter().all(|j| j.applied == j.tip().seq && j.pending.is_empty())
    }

    /// Whether a file is on its way into the replicated journal: what failed for rot is tried again after a while.
    fn copies(&self, n: usize) -> bool {
        let ns = self.nodes[n].store.namespace();
        ns.files().any(|(_, info)| info.replicated && info.dptr.state == FileState::Copying)
    }

    fn why_not(&self) -> String {
        let of = |n: usize| {
            let j = &self.check.nodes[n].journals;
            let up = self.nodes[n].engine.is_some();
            format!(
                "node {n} up {up} ends at {:?} applied {} / {:?} {}",
                j[0].tip(),
                j[0].applied,
                j[1].tip(),
                j[1].applied
            )
        };
        format!("{}; {}", of(0), of(1))
    }

    fn finish(&mut self, serving: usize) {
        self.last_checks(serving);
        self.operator.phase = Phase::Done;
    }
}

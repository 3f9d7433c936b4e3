//! A primary that comes back asks its peer before it serves.

use super::opening::Cause;
use super::stage::StageData;
use super::{Roles, Stage};
use crate::base::{Epoch, Mono};
use crate::doors::Refusal;
use crate::engine::core::Core;
use crate::engine::effect::Severity;
use crate::store::StoreRead;

/// What a primary keeps while it asks.
#[derive(Debug)]
pub(super) struct Asking {
    /// When it began to ask.
    since: Mono,
    /// Why it does not serve, as the peer told it; empty as long as the peer told nothing.
    why: String,
    /// The operator said `start --alone`.
    alone: bool,
    /// An incident reports that it waits. Once for each time of waiting: what comes back may change from dial to dial.
    reported: bool,
}

impl Asking {
    pub(super) fn since(now: Mono) -> Self {
        Self { since: now, why: String::new(), alone: false, reported: false }
    }

    pub(super) fn why(&self) -> &str {
        &self.why
    }
}

impl Roles {
    fn asking_mut(&mut self) -> Option<&mut Asking> {
        match &mut self.at {
            StageData::Asking(asking) => Some(asking),
            _ => None,
        }
    }

    pub(super) fn asking(&self) -> Option<&Asking> {
        match &self.at {
            StageData::Asking(asking) => Some(asking),
            _ => None,
        }
    }

    /// The peer told why this node must not serve: said in `status` while it asks.
    pub(in crate::engine) fn peer_forbids(&mut self, why: &str) {
        if let Some(asking) = self.asking_mut() {
            why.clone_into(&mut asking.why);
        }
    }

    /// The operator said `start --alone`.
    pub(super) fn serve_alone(&mut self) {
        if let Some(asking) = self.asking_mut() {
            asking.alone = true;
        }
    }
}

impl<S: StoreRead> Core<S> {
    /// Whether the config lets this node serve although its peer is silent, and nothing is known that forbids it.
    fn may_serve_unasked(&self) -> bool {
        self.config.serve_alone
            && !self.peer.forbids()
            && !self.peer.record().promised
            && self.peer_is_ahead().is_none()
    }

    /// When the peer has been silent for long enough.
    fn asked_until(&self) -> Option<Mono> {
        self.roles.asking().map(|asking| asking.since.plus_ms(self.config.peer_timeout_ms))
    }

    /// When a node that may serve unasked does so.
    pub(super) fn asking_deadline(&self) -> Option<Mono> {
        self.asked_until().filter(|_| self.may_serve_unasked())
    }

    pub(super) fn pump_asking(&mut self) {
        let silent = self.asked_until().is_some_and(|until| self.now.mono >= until);
        let silent_for_good = silent && self.may_serve_unasked();
        let Some(asking) = self.roles.asking_mut() else { return };
        if asking.alone || silent_for_good {
            let text = if asking.alone {
                "serving without having asked the peer, on the operator's word".to_owned()
            } else {
                "serving without having heard from the peer, as on_restart_alone = \"serve\" says".to_owned()
            };
            self.incident(Severity::Warning, "alone", text);
            self.open_epoch(Cause::Own);
        } else if silent && asking.why.is_empty() && !std::mem::replace(&mut asking.reported, true) {
            let text = format!("this node waits for its peer: {}", self.asking_reason());
            self.incident_once(Severity::Warning, "waiting-for-peer", text);
        }
    }

    /// A node that serves hears that its state is an older one than its peer knows of: it asks again, and who serves is for an
    /// operator to say. One who said that what is lacking here may be given up has said it already, as long as the peer knows
    /// of no higher epoch (I-21).
    pub(in crate::engine) fn serves_no_more(&mut self, why: &str, peer_epoch: Epoch) {
        let said = self.roles.accepts_loss && peer_epoch <= self.control.epoch();
        if self.roles.stage() != Stage::Serving || said {
            return;
        }
        self.refuse_pending(why);
        self.copies.stop();
        self.give_up(why);
        self.disk.abandon_all(Refusal::NotServing(why.to_owned()));
        self.close_link();
        let asking = Asking { why: why.to_owned(), reported: true, ..Asking::since(self.now.mono) };
        self.roles.enter(StageData::Asking(asking));
        self.dirty = true;
    }

    /// The peer does not serve and will not: this node may, unless the peer once told of more than is here.
    pub(in crate::engine) fn may_serve(&mut self) {
        if self.roles.stage() != Stage::Asking {
            return;
        }
        match self.peer_is_ahead() {
            Some(why) => self.own_state_is_old(&why),
            None => self.open_epoch(Cause::Own),
        }
    }
}

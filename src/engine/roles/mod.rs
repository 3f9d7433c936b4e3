//! Who this node is allowed to be: asking, serving, taking over, stepping down.
//!
//! ```text
//!  start -> Replaying -+- role standby ----------------> Standby --takeover--> Opening -> Serving
//!                      +- role primary -> Asking -+- peer does not serve ----> Opening -> Serving
//!                      |                          +- start --alone ----------> Opening -> Serving
//!                      |                          +- peer serves, higher epoch -> SteppingDown
//!                      +- role diverged ---------------> Diverged                  |
//!                      +- role incomplete -------------> Incomplete --the copy is whole--> Standby
//!  Standby --a copy begins--> Incomplete                                           |
//!  Serving -- the role is given away --> HandingOver -- the peer took it --> SteppingDown; it did not -> Serving; unknown -> Asking
//!  Standby, Diverged --a copy begins--> Incomplete                                 |
//!  Standby, Diverged --a rewind is to begin, entries are not saved--> SteppingDown |
//!  Serving -- the peer knows of more than is here --> Asking
//!  Serving -- a higher epoch is seen --> SteppingDown -+- nothing beyond the common history -> Standby
//!                                                      +- entries the pair never kept ------> Diverged
//! ```
//!
//! A takeover may begin during the replay of a standby, too, and every stage ends in Stopped. All of it stands in
//! [`stage::TRANSITIONS`]: [`Roles::enter`] is the only way to another stage, and allows no other. What a stage keeps is
//! in its own file, and is gone with the stage.

mod asking;
mod diverged;
mod opening;
mod stage;
mod stepping_down;
mod stopping;
mod switchover;
mod takeover;

use super::core::Core;
use crate::base::{JournalKind, Mono};
use crate::format::control::Role;
use crate::store::StoreRead;
use asking::Asking;
use diverged::Saved;
pub(super) use stage::Stage;
use stage::StageData;
use switchover::Switchover;
use takeover::WaitingTakeover;
pub(super) use takeover::Word;

/// A failed control file is written again after this (milliseconds).
const CONTROL_RETRY_MS: u64 = 500;

/// The stage, and what outlives a stage.
#[derive(Debug)]
pub(super) struct Roles {
    at: StageData,
    /// A takeover that waits for the link to be noticed as dead.
    waiting_takeover: Option<WaitingTakeover>,
    diverged_files: Vec<String>,
    switchover: Switchover,
    saved: Option<Saved>,
    /// An operator said in this life that what the peer knows of, and this node lacks, may be given up.
    accepts_loss: bool,
}

impl Roles {
    /// A node that has just been started.
    pub(super) fn new() -> Self {
        Self {
            at: StageData::Replaying,
            waiting_takeover: None,
            diverged_files: Vec::new(),
            saved: None,
            accepts_loss: false,
            switchover: Switchover::default(),
        }
    }

    /// Where this node is.
    pub(super) fn stage(&self) -> Stage {
        self.at.stage()
    }

    /// Goes to another stage; gives what the one before kept.
    ///
    /// # Panics
    /// If the table of transitions does not have this one.
    fn enter(&mut self, next: StageData) -> StageData {
        let (from, to) = (self.at.stage(), next.stage());
        assert!(from.may_become(to), "no node goes from {from:?} to {to:?}");
        std::mem::replace(&mut self.at, next)
    }

    /// A copy begins.
    pub(super) fn becomes_incomplete(&mut self) {
        if matches!(self.stage(), Stage::Standby | Stage::Diverged) {
            self.enter(StageData::Incomplete);
        }
    }

    /// The copy is whole.
    pub(super) fn becomes_whole(&mut self) {
        self.enter(StageData::Standby);
    }

    /// Whether everything that is durable here may be applied, announced or not: a takeover is under way.
    pub(super) fn applies_all(&self) -> bool {
        self.stage() == Stage::Opening
    }

    /// Whether the journal must not shrink now.
    pub(super) fn needs_journal(&self) -> bool {
        matches!(
            self.stage(),
            Stage::Replaying | Stage::Opening | Stage::HandingOver | Stage::SteppingDown | Stage::Diverged
        )
    }

    pub(super) fn word(&self) -> &'static str {
        match &self.at {
            StageData::Replaying => "replaying",
            StageData::Standby => "standby",
            StageData::Incomplete => "incomplete",
            StageData::Asking(_) => "asking-peer",
            StageData::Opening(opening) if opening.is_takeover() => "taking-over",
            StageData::Opening(_) => "starting-epoch",
            StageData::Serving => "serving",
            StageData::HandingOver(_) => "handing-over",
            StageData::SteppingDown(_) => "stepping-down",
            StageData::Diverged => "diverged",
            StageData::Stopped => "stopping",
        }
    }

    /// Why this node does not serve, in words for a client; empty where the peer has not told it.
    pub(super) fn reason(&self) -> String {
        match &self.at {
            StageData::Incomplete => {
                "it is given a copy that is not whole yet; only the primary has the rest".to_owned()
            }
            StageData::Replaying => "it replays its journal".to_owned(),
            StageData::Asking(asking) => asking.why().to_owned(),
            StageData::Opening(_) => "it begins a new epoch".to_owned(),
            StageData::HandingOver(_) => {
                "it has given its role to its peer, which has not said yet that it serves".to_owned()
            }
            StageData::SteppingDown(_) => "its peer serves in a higher epoch".to_owned(),
            StageData::Diverged => {
                "its peer has taken over, and it holds entries the pair never kept".to_owned()
            }
            StageData::Stopped => "it is shutting down".to_owned(),
            StageData::Standby | StageData::Serving => String::new(),
        }
    }

    /// When a stage whose last step failed goes on.
    fn retry_deadline(&self) -> Option<Mono> {
        match &self.at {
            StageData::Opening(opening) => opening.deadline(),
            StageData::SteppingDown(step_down) => step_down.deadline(),
            _ => None,
        }
    }
}

impl Roles {
    /// A write of the control file failed: true if this stage waited for it.
    pub(super) fn control_failed(&mut self, write: u64, now: Mono) -> bool {
        match &mut self.at {
            StageData::Opening(opening) if opening.waits_for_control(write) => opening.control_failed(now),
            StageData::SteppingDown(step_down) if step_down.waits_for_control(write) => {
                step_down.control_failed(now);
            }
            _ => return false,
        }
        true
    }
}

impl<S: StoreRead> Core<S> {
    pub(super) fn pump_roles(&mut self) {
        if self.stopping {
            self.pump_stop();
        }
        match self.roles.stage() {
            Stage::Replaying => self.pump_replaying(),
            Stage::Asking => self.pump_asking(),
            Stage::Opening => self.pump_opening(),
            Stage::SteppingDown => self.pump_step_down(),
            Stage::Standby
            | Stage::Incomplete
            | Stage::Serving
            | Stage::HandingOver
            | Stage::Diverged
            | Stage::Stopped => {}
        }
        self.pump_switchover();
        self.retry_takeover();
    }

    pub(super) fn roles_deadline(&self) -> Option<Mono> {
        let waiting = self.roles.waiting_takeover.as_ref().map(WaitingTakeover::until);
        let switchover = self.roles.switchover.deadline();
        [self.asking_deadline(), waiting, self.roles.retry_deadline(), switchover].into_iter().flatten().min()
    }

    fn pump_replaying(&mut self) {
        // Nothing of the replicated journal is given to a store that has no copy to go on with.
        let done = |kind: &JournalKind| {
            self.applied_to_limit(*kind) || (*kind == JournalKind::Replicated && self.waits_for_copy())
        };
        if !JournalKind::ALL.iter().all(done) {
            return;
        }
        self.dirty = true;
        let next = match self.control.role() {
            Role::Standby => {
                self.tell_gap();
                StageData::Standby
            }
            Role::Diverged => StageData::Diverged,
            Role::Incomplete => StageData::Incomplete,
            Role::Primary => StageData::Asking(Asking::since(self.now.mono)),
        };
        self.roles.enter(next);
    }

    /// A write of the control file is done: true if this stage waited for it.
    pub(super) fn roles_control_written(&mut self, write: u64) -> bool {
        match &self.roles.at {
            StageData::Opening(opening) if opening.waits_for_control(write) => self.start_epoch(),
            StageData::SteppingDown(step_down) if step_down.waits_for_control(write) => {
                self.finish_step_down();
            }
            _ => return false,
        }
        true
    }
}

#[cfg(test)]
mod tests;

//! A primary whose peer serves in a higher epoch stops serving, saves what the pair never kept, and becomes the standby or
//! diverged.

use super::diverged::Export;
use super::stage::{Retry, StageData};
use super::{CONTROL_RETRY_MS, Roles, Stage};
use crate::base::{Epoch, JournalKind, Mono, Position, Seq};
use crate::doors::Refusal;
use crate::engine::core::Core;
use crate::engine::effect::Severity;
use crate::engine::incidents::Matter;
use crate::format::control::Role;
use crate::format::frame::FEATURE_PARTIAL;
use crate::store::StoreRead;

/// What a node keeps while it steps down.
#[derive(Debug)]
pub(super) struct StepDown {
    /// Where its history and the peer's part.
    common: Position,
    /// The epoch that the peer serves in.
    epoch: Epoch,
    step: StepDownStep,
    pub(super) export: Export,
    retry: Retry,
    /// It served, and its store shows all that it holds.
    served: bool,
}

/// What a step-down waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StepDownStep {
    /// All that is in the journal is durable and applied.
    Drain,
    /// More of what the pair never kept is read back.
    Export,
    /// This save of it is done; `last` if it is the last one.
    Saving { save: u64, last: bool },
    /// This write of the control file is done.
    Control(u64),
}

impl StepDown {
    pub(super) fn new(common: Position, epoch: Epoch, served: bool) -> Self {
        let (step, export, retry) = (StepDownStep::Drain, Export::default(), Retry::default());
        Self { common, epoch, step, export, retry, served }
    }

    pub(super) fn deadline(&self) -> Option<Mono> {
        self.retry.deadline()
    }

    pub(super) fn waits_for_control(&self, write: u64) -> bool {
        self.step == StepDownStep::Control(write)
    }

    /// The control file could not be written: the node has no new role yet.
    pub(super) fn control_failed(&mut self, now: Mono) {
        self.step = StepDownStep::Drain;
        self.retry.after(now, CONTROL_RETRY_MS);
    }

    /// The last save under way, if it is `save`, and whether it is the last one.
    pub(super) fn saving(&self, save: u64) -> Option<bool> {
        match self.step {
            StepDownStep::Saving { save: under_way, last } if under_way == save => Some(last),
            _ => None,
        }
    }

    pub(super) fn go_on(&mut self, step: StepDownStep) {
        self.step = step;
    }

    /// Nothing is done before `ms` milliseconds have passed.
    pub(super) fn wait(&mut self, now: Mono, ms: u64) {
        self.retry.after(now, ms);
    }
}

impl Roles {
    pub(super) fn stepping_down(&mut self) -> Option<&mut StepDown> {
        match &mut self.at {
            StageData::SteppingDown(step_down) => Some(step_down),
            _ => None,
        }
    }

    /// The last entry of the history that the peer has too; none unless this node steps down.
    pub(super) fn common(&self) -> Seq {
        match &self.at {
            StageData::SteppingDown(step_down) => step_down.common.seq,
            _ => Seq(0),
        }
    }
}

impl<S: StoreRead> Core<S> {
    /// The peer serves in a higher epoch: nothing is accepted any more.
    pub(in crate::engine) fn step_down(&mut self, common: Position, epoch: Epoch) {
        if !matches!(self.roles.stage(), Stage::Asking | Stage::Serving | Stage::HandingOver) {
            return;
        }
        let why = "this node steps down: its peer has taken over";
        self.refuse_pending(why);
        self.copies.stop();
        if self.roles.stage() == Stage::HandingOver {
            // Nobody waits for an entry that the peer lacks: who still waits goes on when this node is the standby.
            self.is_taken();
        } else {
            self.give_up(why);
            let text = format!(
                "the peer serves in epoch {epoch}: this node (epoch {}) stops serving",
                self.control.epoch()
            );
            self.incident(Severity::Critical, "fenced", text);
            self.disk.abandon_all(Refusal::NotServing(why.to_owned()));
        }
        self.close_link();
        self.roles.enter(StageData::SteppingDown(StepDown::new(common, epoch, true)));
        self.dirty = true;
    }

    /// The primary offers to rewind this node, and its entries after `common` are not saved for certain: they are now, and
    /// the primary is heard again after that.
    pub(in crate::engine) fn save_before_rewind(&mut self, common: Position, epoch: Epoch) {
        self.close_link();
        self.roles.enter(StageData::SteppingDown(StepDown::new(common, epoch, false)));
        self.dirty = true;
    }

    pub(super) fn pump_step_down(&mut self) {
        let shown = match self.roles.stepping_down() {
            Some(StepDown { served: false, .. }) => self.appliers.replicated().is_idle(),
            _ => self.all_applied(JournalKind::Replicated),
        };
        let quiet = self.replicated().is_quiet() && shown;
        let end = self.replicated().sealed().seq;
        let control_free = !self.control.is_being_written();
        let from = self.unsaved(self.roles.common());
        let now = self.now.mono;
        let gone = from > self.roles.common() && self.spool.is_unknown(now);
        let Some(step_down) = self.roles.stepping_down() else { return };
        if step_down.retry.holds(now) {
            return;
        }
        match step_down.step {
            StepDownStep::Drain if gone => self.wait_with_step_down(from),
            StepDownStep::Drain if quiet && end > from && !step_down.export.has_begun() => {
                step_down.step = StepDownStep::Export;
                step_down.export = Export::after(from);
                self.pump_export();
            }
            StepDownStep::Drain if quiet && control_free => self.write_step_down(),
            StepDownStep::Export => self.pump_export(),
            _ => {}
        }
    }

    /// What the journal has let go of may be on the spool, and it is not known yet what that holds.
    fn wait_with_step_down(&mut self, from: Seq) {
        if self.spool.awaited_until(self.now.mono).is_some() {
            return;
        }
        let text = format!(
            "entries {} to {from}, which the pair never kept, may be on the spool, which cannot be read now: this node waits for \
             it, for ten minutes at most",
            self.roles.common().next()
        );
        self.incident_once(Severity::Critical, Matter::DivergedUnsaved, text);
        if let Some(step_down) = self.roles.stepping_down() {
            step_down.wait(self.now.mono, CONTROL_RETRY_MS);
        }
    }

    fn write_step_down(&mut self) {
        let end = self.replicated().sealed().seq;
        let Some(StepDown { common, epoch, .. }) = self.roles.stepping_down() else { return };
        let (common, epoch) = (common.seq, *epoch);
        // What the two have in common says nothing of content where one of them holds a part of a copy.
        let partial = self.peer.record().partial;
        let spared = self.peer.features() & FEATURE_PARTIAL != 0 && !partial;
        let role = if end > common || partial || spared { Role::Diverged } else { Role::Standby };
        self.control.step_down(epoch, role);
        self.peer.takes_over(common);
        if spared {
            self.peer.spares();
        }
        let write = self.write_control();
        if let Some(step_down) = self.roles.stepping_down() {
            step_down.step = StepDownStep::Control(write);
        }
    }

    pub(super) fn finish_step_down(&mut self) {
        let (common, end) = (self.roles.common(), self.replicated().sealed().seq);
        self.settled(&[Matter::DivergedUnsaved, Matter::WaitingForPeer]);
        if self.roles.stepping_down().is_some_and(|step_down| step_down.served) {
            self.appliers.replicated_mut().set_announced(end);
        }
        if self.control.role() == Role::Diverged {
            self.roles.enter(StageData::Diverged);
            let from = self.unsaved(common);
            let gone = match from > common {
                true => {
                    format!(", but for {} to {from}, which only the store here still shows", common.next())
                }
                false => String::new(),
            };
            let saved = match end > common {
                true => format!(
                    "entries {} to {end} were never kept by the pair; they are saved in diverged/{}{gone}",
                    common.next(),
                    self.roles.diverged_files().last().map_or("", String::as_str)
                ),
                false => "it holds no entry that the pair never kept".to_owned(),
            };
            let text = match self.peer.record().spared {
                true => format!(
                    "the peer took over with a part of a copy, and this node, which is whole, keeps what it has; {saved}; to \
                     go back to what is here: stop the peer, then say here: hot-backup takeover --peer-is-down; to be made \
                     what the peer has: hot-backup resync --accept-incomplete"
                ),
                false => saved,
            };
            self.incident(Severity::Critical, "diverged", text);
        } else {
            self.roles.enter(StageData::Standby);
            self.handed_over();
            let text = "this node holds nothing that the pair never kept: it is the standby now".to_owned();
            self.incident(Severity::Notice, "standby", text);
        }
    }
}

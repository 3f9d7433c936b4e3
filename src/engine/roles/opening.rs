//! The beginning of an epoch: of a primary that serves again, or of a standby that takes over.
//!
//! (1) Everything in the journal is durable and applied (and a part of a copy, which no journal holds, durable in the
//! store), (2) the control file with the new epoch is durable, (3) the epoch's first entry is durable, (4) the doors open.
//! A crash before (2) leaves what was, after it a primary that must ask before it serves (I-20, I-26).

use super::stage::{Retry, StageData};
use super::switchover::Handed;
use super::takeover::PendingTakeover;
use super::{CONTROL_RETRY_MS, Roles};
use crate::base::{Epoch, FileId, JournalKind, Mono, Seq};
use crate::engine::core::Core;
use crate::engine::effect::Severity;
use crate::engine::incidents::Matter;
use crate::engine::status::seconds;
use crate::format::control::Role;
use crate::format::entry::{Entry, EntryKind, EpochStart};
use crate::store::StoreRead;

/// Where there is no epoch left to open, it is looked again after this (milliseconds).
const NO_EPOCH_RETRY_MS: u64 = 10_000;

/// What a node keeps while it opens an epoch.
#[derive(Debug)]
pub(super) struct Opening {
    step: OpeningStep,
    cause: Cause,
    retry: Retry,
}

/// Why an epoch is opened.
#[derive(Debug)]
pub(super) enum Cause {
    /// A primary serves again.
    Own,
    /// A standby takes over.
    Takeover(PendingTakeover),
    /// The primary gave its role to this standby.
    Handover(Handed),
}

/// What an opening waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OpeningStep {
    /// All that is in the journal is durable and applied.
    Drain,
    /// The part of a copy with which this node takes over is durable in the store.
    Checkpoint,
    /// This write of the control file is done.
    Control(u64),
    /// This entry, the epoch's first, is durable.
    Entry(Seq),
}

impl Opening {
    pub(super) fn new(cause: Cause) -> Self {
        Self { step: OpeningStep::Drain, cause, retry: Retry::default() }
    }

    pub(super) fn is_takeover(&self) -> bool {
        !matches!(self.cause, Cause::Own)
    }

    pub(super) fn deadline(&self) -> Option<Mono> {
        self.retry.deadline()
    }

    pub(super) fn waits_for_control(&self, write: u64) -> bool {
        self.step == OpeningStep::Control(write)
    }

    /// The control file could not be written: nothing has happened, and all is done again.
    pub(super) fn control_failed(&mut self, now: Mono) {
        self.step = OpeningStep::Drain;
        self.retry.after(now, CONTROL_RETRY_MS);
    }
}

impl Roles {
    pub(super) fn opening(&mut self) -> Option<&mut Opening> {
        match &mut self.at {
            StageData::Opening(opening) => Some(opening),
            _ => None,
        }
    }

    /// The epoch is open: what belonged to its opening.
    fn serve(&mut self) -> Option<Opening> {
        self.opening()?;
        match self.enter(StageData::Serving) {
            StageData::Opening(opening) => Some(opening),
            _ => None,
        }
    }
}

impl<S: StoreRead> Core<S> {
    pub(super) fn open_epoch(&mut self, cause: Cause) {
        // Who gave this node its role waits for a word on the connection that stands.
        if !matches!(cause, Cause::Handover(_)) {
            self.close_link();
        }
        self.link.trouble.clear();
        self.roles.enter(StageData::Opening(Opening::new(cause)));
        self.dirty = true;
    }

    pub(super) fn pump_opening(&mut self) {
        let now = self.now.mono;
        let Some(opening) = self.roles.opening() else { return };
        if opening.retry.holds(now) {
            return;
        }
        match opening.step {
            OpeningStep::Drain => {
                let quiet = self.replicated().is_quiet() && self.all_applied(JournalKind::Replicated);
                if quiet && !self.control.is_being_written() {
                    self.drained();
                }
            }
            OpeningStep::Checkpoint => {
                if self.checkpoint.has_covered() {
                    self.write_new_epoch();
                }
            }
            OpeningStep::Control(_) => {}
            OpeningStep::Entry(seq) => {
                if self.replicated().pace().durable >= seq {
                    self.finish_opening();
                }
            }
        }
    }

    fn drained(&mut self) {
        // A primary begins with what its store holds after a crash: there is no copy that could begin anew.
        if self.control.role() != Role::Incomplete {
            return self.write_new_epoch();
        }
        self.checkpoint.force();
        self.dirty = true;
        if let Some(opening) = self.roles.opening() {
            opening.step = OpeningStep::Checkpoint;
        }
    }

    fn write_new_epoch(&mut self) {
        let end = self.replicated().sealed();
        let now = self.now.mono;
        let Some(takeover) = self.roles.opening().map(|opening| opening.is_takeover()) else { return };
        let Some(epoch) = self.epoch_to_open(takeover) else {
            let text = "no epoch number is left: this node can open none".to_owned();
            self.incident_once(Severity::Critical, Matter::NoEpoch, text);
            if let Some(opening) = self.roles.opening() {
                opening.step = OpeningStep::Drain;
                opening.retry.after(now, NO_EPOCH_RETRY_MS);
            }
            return;
        };
        let was_primary = self.is_primary();
        let partial = self.control.role() == Role::Incomplete;
        self.peer.own_epoch_opens(was_primary, end.seq);
        if partial {
            self.peer.takes_over_partial();
        }
        self.control.open_epoch(epoch, end);
        let write = self.write_control();
        if let Some(opening) = self.roles.opening() {
            opening.step = OpeningStep::Control(write);
        }
    }

    /// The epoch that this node opens next: above all that it or its peer has ever been heard in, so that no number is
    /// opened twice, not even by a node whose control file was set back.
    pub(in crate::engine) fn epoch_to_open(&self, takeover: bool) -> Option<Epoch> {
        let heard = self.peer.record().epoch;
        let known = self.control.epoch().max(heard).max(self.replicated().sealed().epoch);
        if takeover { known.takeover_for(self.ordinal()) } else { known.next_for(self.ordinal()) }
    }

    pub(super) fn start_epoch(&mut self) {
        let epoch = self.control.epoch();
        if self.peer.record().partial {
            self.copy_ends_here();
        }
        self.replicated_mut().set_epoch(epoch);
        let start = EpochStart { epoch, ordinal: self.ordinal(), name: self.config.name.clone() };
        let value = start.encode();
        let entry = Entry { kind: EntryKind::EpochStart, file: FileId(0), id: &[], value: &value };
        let seq = self.appending(JournalKind::Replicated).append(std::iter::once(entry));
        self.extents.epoch(seq);
        if let Some(opening) = self.roles.opening() {
            opening.step = OpeningStep::Entry(seq);
        }
        self.dirty = true;
    }

    fn finish_opening(&mut self) {
        let Some(opening) = self.roles.serve() else { return };
        self.link.dial_now(self.now.mono);
        self.dirty = true;
        self.incident_over("waiting-for-peer", "serving", "this node serves again".to_owned());
        let epoch = self.control.epoch();
        self.roles.switchover.open_doors();
        let mut takeover = match opening.cause {
            Cause::Own => {
                let text = format!("this node serves as primary in epoch {epoch}");
                return self.incident(Severity::Notice, "epoch", text);
            }
            Cause::Handover(handed) => return self.took_over(handed),
            Cause::Takeover(takeover) => takeover,
        };
        takeover.account.epoch = epoch.0;
        takeover.account.seconds = seconds(self.now.mono.since(takeover.started));
        let text = format!("taken over in epoch {epoch}: {}", takeover.account.lost);
        self.incident(Severity::Warning, "takeover", text);
        self.reply_value(takeover.token, takeover.account);
    }
}

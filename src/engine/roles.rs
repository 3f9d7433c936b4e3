//! Who this node is allowed to be: asking, serving, taking over, stepping down.
//!
//! ```text
//!  start -> Replaying -+- role standby ----------------> Standby --takeover--> Opening -> Serving
//!                      +- role primary -> Asking -+- peer does not serve ----> Opening -> Serving
//!                      |                          +- start --alone ----------> Opening -> Serving
//!                      |                          +- peer serves, higher epoch -> SteppingDown
//!                      +- role diverged ---------------> Diverged                  |
//!  Serving -- a higher epoch is seen --> SteppingDown -+- nothing beyond the common history -> Standby
//!                                                      +- entries the pair never kept ------> Diverged
//! ```
//! Opening: (1) everything in the journal is durable and applied, (2) the control file with the new epoch is
//! durable, (3) the epoch's first entry is durable, (4) the doors open. A crash before (2) leaves what was, after
//! it a primary that must ask before it serves (I-20, I-26).

use super::core::Core;
use super::effect::{Effect, FileEffect, Severity};
use super::event::FileEvent;
use super::incidents::Matter;
use super::read_back::ReadFor;
use super::takeover::{PendingTakeover, WaitingTakeover};
use crate::base::limits::DIVERGED_SAVE;
use crate::base::{Epoch, Fault, JournalKind, Mono, Position, Seq, Wait};
use crate::doors::Refusal;
use crate::format::batch::Batch;
use crate::format::control::{EpochMark, Role};
use crate::format::entry::{Entry, EntryKind, EpochStart};
use crate::journal::{JournalReader, ReadStep};
use crate::pair::{diverged_line, record};
use crate::store::StoreRead;
use bytes::Bytes;

/// A failed control file is written again after this (milliseconds).
const CONTROL_RETRY_MS: u64 = 500;

/// See the picture at the head of this module.
#[derive(Debug)]
pub(super) enum Stage {
    Replaying,
    Standby,
    Asking,
    Opening(Opening),
    Serving,
    SteppingDown(StepDown),
    Diverged,
    Stopped,
}

#[derive(Debug)]
pub(super) struct Opening {
    stage: OpenStage,
    takeover: Option<PendingTakeover>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OpenStage {
    Drain,
    Control(u64),
    Entry(Seq),
}

#[derive(Debug)]
pub(super) struct StepDown {
    common: Position,
    epoch: Epoch,
    stage: StepDownStage,
    /// Reads what has to be saved.
    pub(super) reader: JournalReader,
    /// The lines of what was read and is not handed over yet.
    gathered: Vec<u8>,
    started_file: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StepDownStage {
    Drain,
    Export,
    Saving { save: u64, last: bool },
    Control(u64),
}

/// What clients are told that wait for an answer which will not come.
#[derive(Debug)]
pub(super) struct Abandon {
    pub(super) why: Refusal,
    /// Those that wait for an entry after these, by journal; without it all that wait.
    pub(super) beyond: Option<[Seq; 2]>,
}

/// The step, and what goes with it.
#[derive(Debug)]
pub(super) struct RoleState {
    pub(super) step: Stage,
    /// Why it does not serve, from outside (the peer's silence, say).
    pub(super) why: String,
    /// The operator said `start --alone`.
    pub(super) alone: bool,
    asking_since: Mono,
    /// People were told that this node waits for its peer.
    told_asking: bool,
    /// A takeover that waits for the link to be noticed as dead.
    pub(super) waiting_takeover: Option<WaitingTakeover>,
    retry_at: Option<Mono>,
    stop_sent: bool,
    /// Clients that wait for an answer which will not come must be told so.
    pub(super) abandon_clients: Option<Abandon>,
    pub(super) diverged_files: Vec<String>,
}

impl RoleState {
    pub(super) fn new(step: Stage) -> Self {
        Self {
            step,
            why: String::new(),
            alone: false,
            asking_since: Mono(0),
            told_asking: false,
            waiting_takeover: None,
            retry_at: None,
            stop_sent: false,
            abandon_clients: None,
            diverged_files: Vec::new(),
        }
    }

    /// Whether everything that is durable here may be applied, announced or not: a takeover is under way.
    pub(super) fn applies_all(&self) -> bool {
        matches!(self.step, Stage::Opening(_))
    }

    /// Whether the journal must not shrink now.
    pub(super) fn needs_journal(&self) -> bool {
        matches!(self.step, Stage::Replaying | Stage::Opening(_) | Stage::SteppingDown(_) | Stage::Diverged)
    }

    pub(super) fn word(&self) -> &'static str {
        match &self.step {
            Stage::Replaying => "replaying",
            Stage::Standby => "standby",
            Stage::Asking => "asking-peer",
            Stage::Opening(opening) if opening.takeover.is_some() => "taking-over",
            Stage::Opening(_) => "starting-epoch",
            Stage::Serving => "serving",
            Stage::SteppingDown(_) => "stepping-down",
            Stage::Diverged => "diverged",
            Stage::Stopped => "stopping",
        }
    }

    /// Why this node does not serve, in words for a client.
    pub(super) fn reason(&self) -> String {
        match &self.step {
            Stage::Replaying => "it replays its journal".to_owned(),
            Stage::Asking => self.why.clone(),
            Stage::Opening(_) => "it begins a new epoch".to_owned(),
            Stage::SteppingDown(_) => "its peer serves in a higher epoch".to_owned(),
            Stage::Diverged => "its peer has taken over, and it holds entries the pair never kept".to_owned(),
            Stage::Stopped => "it is shutting down".to_owned(),
            Stage::Standby | Stage::Serving => String::new(),
        }
    }
}

impl<S: StoreRead> Core<S> {
    pub(super) fn pump_roles(&mut self) {
        if self.stopping {
            self.pump_stop();
        }
        if let Some(retry) = self.state.retry_at {
            if self.now.mono < retry {
                return;
            }
            self.state.retry_at = None;
        }
        match &self.state.step {
            Stage::Replaying => self.pump_replaying(),
            Stage::Asking => self.pump_asking(),
            Stage::Opening(_) => self.pump_opening(),
            Stage::SteppingDown(_) => self.pump_step_down(),
            Stage::Standby | Stage::Serving | Stage::Diverged | Stage::Stopped => {}
        }
        self.retry_takeover();
    }

    pub(super) fn roles_deadline(&self) -> Option<Mono> {
        let alone = match self.state.step {
            Stage::Asking if self.may_serve_unasked() => {
                Some(self.state.asking_since.plus_ms(self.config.peer_timeout_ms))
            }
            _ => None,
        };
        let waiting = self.state.waiting_takeover.as_ref().map(WaitingTakeover::until);
        [alone, waiting, self.state.retry_at].into_iter().flatten().min()
    }

    fn pump_replaying(&mut self) {
        if !JournalKind::ALL.iter().all(|kind| self.applied_to_limit(*kind)) {
            return;
        }
        self.dirty = true;
        self.state.step = match self.control.role {
            Role::Standby => {
                self.tell_gap();
                Stage::Standby
            }
            Role::Diverged => Stage::Diverged,
            Role::Primary => {
                self.state.asking_since = self.now.mono;
                self.state.told_asking = false;
                self.state.why.clear();
                Stage::Asking
            }
        };
    }

    /// Whether the config lets this node serve although its peer is silent, and nothing is known that forbids it.
    fn may_serve_unasked(&self) -> bool {
        self.config.serve_alone && !self.link.refuses_us && self.peer_is_ahead().is_none()
    }

    fn pump_asking(&mut self) {
        let silent_for_good = self.may_serve_unasked()
            && self.now.mono >= self.state.asking_since.plus_ms(self.config.peer_timeout_ms);
        if self.state.alone || silent_for_good {
            let text = if self.state.alone {
                "serving without having asked the peer, on the operator's word".to_owned()
            } else {
                "serving without having heard from the peer, as on_restart_alone = \"serve\" says".to_owned()
            };
            self.incident(Severity::Warning, "alone", text);
            self.open_epoch(None);
        } else if self.now.mono >= self.state.asking_since.plus_ms(self.config.peer_timeout_ms)
            && self.state.why.is_empty()
        {
            // Once for each time of waiting: what comes back may change from dial to dial.
            if !std::mem::replace(&mut self.state.told_asking, true) {
                let text = format!("this node waits for its peer: {}", self.asking_reason());
                self.incident_once(Severity::Warning, "waiting-for-peer", text);
            }
        }
    }

    /// The peer does not serve and will not: this node may, unless the peer once told of more than is here.
    pub(super) fn may_serve(&mut self) {
        if !matches!(self.state.step, Stage::Asking) {
            return;
        }
        match self.peer_is_ahead() {
            Some(why) => self.own_state_is_old(&why),
            None => self.open_epoch(None),
        }
    }

    pub(super) fn open_epoch(&mut self, takeover: Option<PendingTakeover>) {
        self.link.close_all(&mut self.out);
        self.state.alone = false;
        self.state.why.clear();
        self.link.trouble.clear();
        self.state.step = Stage::Opening(Opening { stage: OpenStage::Drain, takeover });
        self.dirty = true;
    }

    fn pump_opening(&mut self) {
        let Stage::Opening(opening) = &self.state.step else { return };
        match opening.stage {
            OpenStage::Drain => {
                let quiet = self.replicated().is_quiet() && self.all_applied(JournalKind::Replicated);
                if quiet && self.control_write.is_none() {
                    self.write_new_epoch();
                }
            }
            OpenStage::Control(_) => {}
            OpenStage::Entry(seq) => {
                if self.replicated().pace().durable >= seq {
                    self.finish_opening();
                }
            }
        }
    }

    fn write_new_epoch(&mut self) {
        let end = self.replicated().sealed();
        let Stage::Opening(opening) = &self.state.step else { return };
        let Some(epoch) = self.epoch_to_open(opening.takeover.is_some()) else {
            let text = "no epoch number is left: this node can open none".to_owned();
            self.incident_once(Severity::Critical, Matter::NoEpoch, text);
            self.state.retry_at = Some(self.now.mono.plus_ms(10_000));
            return;
        };
        let was_primary = self.is_primary();
        self.control.peer = record::at_opening(&self.control.peer, was_primary, end.seq);
        self.control.table.retain(|mark| mark.first_seq <= end.seq);
        self.control.table.push(EpochMark { epoch, first_seq: end.seq.next(), prev_chain: end.chain });
        self.control.epoch = epoch;
        self.control.role = Role::Primary;
        self.write_control();
        let write = self.control_write.unwrap_or_default();
        if let Stage::Opening(opening) = &mut self.state.step {
            opening.stage = OpenStage::Control(write);
        }
    }

    /// The epoch that this node opens next: above all that it or its peer has ever been heard in, so that no number is
    /// opened twice, not even by a node whose control file was set back.
    pub(super) fn epoch_to_open(&self, takeover: bool) -> Option<Epoch> {
        let known = self.control.epoch.max(self.control.peer.epoch).max(self.replicated().sealed().epoch);
        if takeover { known.takeover_for(self.ordinal()) } else { known.next_for(self.ordinal()) }
    }

    fn start_epoch(&mut self) {
        let epoch = self.control.epoch;
        self.replicated_mut().set_epoch(epoch);
        let start = EpochStart { epoch, ordinal: self.ordinal(), name: self.config.name.clone() };
        let value = start.encode();
        let entry =
            Entry { kind: EntryKind::EpochStart, file: crate::base::FileId(0), id: &[], value: &value };
        let seq = self.appending(JournalKind::Replicated).append(std::iter::once(entry));
        self.extents.epoch(seq);
        if let Stage::Opening(opening) = &mut self.state.step {
            opening.stage = OpenStage::Entry(seq);
        }
        self.dirty = true;
    }

    fn finish_opening(&mut self) {
        let Stage::Opening(opening) = std::mem::replace(&mut self.state.step, Stage::Serving) else { return };
        self.link.dial_now(self.now.mono);
        self.dirty = true;
        self.incident_over("waiting-for-peer", "serving", "this node serves again".to_owned());
        let epoch = self.control.epoch;
        let Some(mut takeover) = opening.takeover else {
            self.incident(Severity::Notice, "epoch", format!("this node serves as primary in epoch {epoch}"));
            return;
        };
        takeover.account.epoch = epoch.0;
        takeover.account.seconds = seconds(self.now.mono.since(takeover.started));
        let text = format!("taken over in epoch {epoch}: {}", takeover.account.lost);
        self.incident(Severity::Warning, "takeover", text);
        self.reply_value(takeover.token, takeover.account);
    }

    /// The control file is durable.
    pub(super) fn file_event(&mut self, event: FileEvent) {
        match event {
            FileEvent::ControlWritten { write } => self.control_written(write),
            FileEvent::ControlFailed { write, fault } => self.control_failed(write, fault),
            FileEvent::DivergedSaved { save } => self.diverged_saved(save),
            FileEvent::DivergedFailed { save, fault } => self.diverged_failed(save, fault),
        }
    }

    pub(super) fn control_written(&mut self, write: u64) {
        if self.control_write != Some(write) {
            return;
        }
        self.control_write = None;
        self.incident_over("control-failed", "control-back", "the control file is written again".to_owned());
        self.saved_table = std::mem::take(&mut self.writing_table);
        self.peer_written();
        self.dirty = true;
        match &mut self.state.step {
            Stage::Opening(opening) if opening.stage == OpenStage::Control(write) => self.start_epoch(),
            Stage::SteppingDown(fall) if fall.stage == StepDownStage::Control(write) => {
                self.finish_step_down()
            }
            _ => self.link_control_written(write),
        }
    }

    pub(super) fn control_failed(&mut self, write: u64, fault: Fault) {
        if self.control_write != Some(write) {
            return;
        }
        self.control_write = None;
        self.peer_not_written();
        self.dirty = true;
        self.room_wanted |= fault == Fault::NoSpace;
        let text = format!("writing the control file: {fault}; it is tried again");
        self.incident_once(Severity::Critical, "control-failed", text);
        let retry = Some(self.now.mono.plus_ms(CONTROL_RETRY_MS));
        match &mut self.state.step {
            Stage::Opening(opening) if opening.stage == OpenStage::Control(write) => {
                opening.stage = OpenStage::Drain;
                self.state.retry_at = retry;
            }
            Stage::SteppingDown(fall) if fall.stage == StepDownStage::Control(write) => {
                fall.stage = StepDownStage::Drain;
                self.state.retry_at = retry;
            }
            _ => self.link_control_failed(write),
        }
    }

    /// The peer serves in a higher epoch: nothing is accepted any more.
    pub(super) fn step_down(&mut self, common: Position, epoch: Epoch) {
        if matches!(
            self.state.step,
            Stage::SteppingDown(_) | Stage::Diverged | Stage::Replaying | Stage::Stopped
        ) {
            return;
        }
        let text = format!(
            "the peer serves in epoch {epoch}: this node (epoch {}) stops serving",
            self.control.epoch
        );
        self.incident(Severity::Critical, "fenced", text);
        let why = "this node steps down: its peer has taken over";
        self.refuse_pending(why);
        self.copy = None;
        self.state.abandon_clients = Some(Abandon { why: Refusal::NotServing(why.to_owned()), beyond: None });
        self.link.close_all(&mut self.out);
        let stage = StepDownStage::Drain;
        self.state.step = Stage::SteppingDown(StepDown {
            common,
            epoch,
            stage,
            reader: JournalReader::default(),
            gathered: Vec::new(),
            started_file: false,
        });
        self.dirty = true;
    }

    fn pump_step_down(&mut self) {
        let quiet = self.replicated().is_quiet() && self.all_applied(JournalKind::Replicated);
        let end = self.replicated().sealed().seq;
        let control_free = self.control_write.is_none();
        let from = self.unsaved(self.fall_common());
        let Stage::SteppingDown(fall) = &mut self.state.step else { return };
        match fall.stage {
            StepDownStage::Drain if quiet && end > from && !fall.started_file => {
                fall.stage = StepDownStage::Export;
                fall.reader = JournalReader::after(from);
                fall.gathered = Vec::new();
                self.pump_export();
            }
            StepDownStage::Drain if quiet && control_free => self.write_step_down(),
            StepDownStage::Export => self.pump_export(),
            _ => {}
        }
    }

    fn diverged_name(&self, common: Seq) -> String {
        let end = self.replicated().sealed();
        format!("epoch-{}-entries-{}-{}.jsonl", end.epoch, common.next().0, end.seq.0)
    }

    /// The last entry that is not saved: the end of the common history, or of what the journal has let go because the peer
    /// had it, if that one was set back since.
    fn unsaved(&self, common: Seq) -> Seq {
        common.max(Seq(self.replicated().oldest().0.saturating_sub(1)))
    }

    /// Saves the entries after the common history before anything else may happen to them. Each save waits for the disk,
    /// so many small batches go into one.
    fn pump_export(&mut self) {
        let common = self.unsaved(self.fall_common());
        loop {
            match self.read_on(ReadFor::Diverged) {
                Ok(ReadStep::Batch(batch)) => {
                    let last = batch.header().last_seq() == self.journals[0].sealed().seq;
                    if self.gather_diverged(common, &batch) >= DIVERGED_SAVE || last {
                        return self.save_gathered(common, last);
                    }
                }
                Ok(ReadStep::Wait(_)) => return,
                Ok(ReadStep::End) | Err(_) => {
                    let text = "the entries that the pair never kept cannot all be read back; this node stays as it is";
                    self.incident_once(Severity::Critical, "diverged-unsaved", text.to_owned());
                    self.state.retry_at = Some(self.now.mono.plus_ms(10_000));
                    return;
                }
            }
        }
    }

    /// Adds the lines of a batch to what is saved next; returns how much that is (bytes).
    fn gather_diverged(&mut self, common: Seq, batch: &Batch) -> usize {
        let Stage::SteppingDown(fall) = &mut self.state.step else { return 0 };
        for (seq, entry) in batch.entries().filter(|(seq, _)| *seq > common) {
            let name = self.namespace.file(entry.file).map_or("", |info| info.key.as_str());
            fall.gathered.extend_from_slice(&diverged_line(seq, batch.header().epoch, name, &entry));
        }
        fall.gathered.len()
    }

    fn save_gathered(&mut self, common: Seq, last: bool) {
        let (file, save) = (self.diverged_name(common), self.fresh_id());
        let Stage::SteppingDown(fall) = &mut self.state.step else { return };
        let first = !std::mem::replace(&mut fall.started_file, true);
        fall.stage = StepDownStage::Saving { save, last };
        let bytes = Bytes::from(std::mem::take(&mut fall.gathered));
        self.effect(FileEffect::SaveDiverged { save, file, first, bytes });
    }

    /// Bytes for [`Self::pump_export`] could not be read.
    pub(super) fn diverged_unread(&mut self) {
        self.state.retry_at = Some(self.now.mono.plus_ms(CONTROL_RETRY_MS));
    }

    pub(super) fn diverged_saved(&mut self, saved: u64) {
        let Stage::SteppingDown(fall) = &mut self.state.step else { return };
        let StepDownStage::Saving { save, last } = fall.stage else { return };
        if save != saved {
            return;
        }
        self.dirty = true;
        if !last {
            fall.stage = StepDownStage::Export;
            return;
        }
        fall.stage = StepDownStage::Drain;
        let file = self.diverged_name(self.unsaved(self.fall_common()));
        self.state.diverged_files.push(file);
    }

    fn fall_common(&self) -> Seq {
        match &self.state.step {
            Stage::SteppingDown(fall) => fall.common.seq,
            _ => Seq(0),
        }
    }

    pub(super) fn diverged_failed(&mut self, failed: u64, fault: Fault) {
        let Stage::SteppingDown(StepDown { stage: StepDownStage::Saving { save, .. }, .. }) = self.state.step
        else {
            return;
        };
        if save != failed {
            return;
        }
        let text = format!("saving the entries that the pair never kept: {fault}; it is tried again");
        self.incident_once(Severity::Critical, "diverged-unsaved", text);
        if let Stage::SteppingDown(fall) = &mut self.state.step {
            fall.stage = StepDownStage::Drain;
            fall.started_file = false;
            self.state.retry_at = Some(self.now.mono.plus_ms(CONTROL_RETRY_MS));
        }
    }

    fn write_step_down(&mut self) {
        let end = self.replicated().sealed().seq;
        let Stage::SteppingDown(fall) = &self.state.step else { return };
        let diverged = end > fall.common.seq;
        self.control.epoch = self.control.epoch.max(fall.epoch);
        self.control.role = if diverged { Role::Diverged } else { Role::Standby };
        self.control.peer = record::at_stepping_down(&self.control.peer, fall.common.seq);
        self.write_control();
        let write = self.control_write.unwrap_or_default();
        if let Stage::SteppingDown(fall) = &mut self.state.step {
            fall.stage = StepDownStage::Control(write);
        }
    }

    fn finish_step_down(&mut self) {
        let (common, end) = (self.fall_common(), self.replicated().sealed().seq);
        self.settled(&[Matter::DivergedUnsaved, Matter::WaitingForPeer]);
        self.appliers[0].announced = end;
        if self.control.role == Role::Diverged {
            self.state.step = Stage::Diverged;
            let from = self.unsaved(common);
            let gone = match from > common {
                true => {
                    format!(", but for {} to {from}, which only the store here still shows", common.next())
                }
                false => String::new(),
            };
            let text = format!(
                "entries {} to {end} were never kept by the pair; they are saved in diverged/{}{gone}",
                common.next(),
                self.state.diverged_files.last().map_or("", String::as_str)
            );
            self.incident(Severity::Critical, "diverged", text);
        } else {
            self.state.step = Stage::Standby;
            let text = "this node holds nothing that the pair never kept: it is the standby now".to_owned();
            self.incident(Severity::Notice, "standby", text);
        }
    }

    /// Everything under way is finished, then the process may end.
    fn pump_stop(&mut self) {
        if self.state.stop_sent {
            return;
        }
        // A journal that failed stays as it is; the other one still finishes its write.
        let quiet = self.journals.iter().all(|journal| journal.is_written() || journal.has_failed());
        let applied =
            JournalKind::ALL.iter().all(|kind| self.applied_to_limit(*kind)) || self.store_fault().is_some();
        if !quiet || !applied || self.control_write.is_some() {
            return;
        }
        if self.lacks_checkpoint() && self.store_fault().is_none() && !self.checkpoint.failed {
            self.checkpoint.wanted = true;
            self.pump_checkpoint();
            return;
        }
        if !self.peer_settled() {
            return;
        }
        self.state.stop_sent = true;
        self.state.step = Stage::Stopped;
        self.link.close_all(&mut self.out);
        self.effect(Effect::Stopped);
    }

    /// Lets go of operators whose request will not be carried out.
    pub(super) fn refuse_pending(&mut self, why: &str) {
        self.barrier = None;
        let waiting: Vec<u64> = self
            .definitions
            .drain(..)
            .map(|(token, _)| token)
            .chain(self.admin_waits.drain(..).map(|(_, token, _): (Wait, u64, _)| token))
            .collect();
        for token in waiting {
            self.reply_no(token, why, "see `hot-backup status`");
        }
    }
}

/// Seconds from microseconds, for people.
pub(super) fn seconds(micros: u64) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "an age for people to read")]
    let micros = micros as f64;
    micros / 1_000_000.0
}

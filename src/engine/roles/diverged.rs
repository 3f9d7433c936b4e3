//! Saves the entries that the pair never kept, before anything else may happen to them.

use super::stepping_down::StepDownStep;
use super::{CONTROL_RETRY_MS, Roles};
use crate::base::limits::DIVERGED_SAVE;
use crate::base::{Fault, Seq};
use crate::engine::core::Core;
use crate::engine::effect::{FileEffect, Severity};
use crate::engine::read_back::ReadFor;
use crate::format::batch::Batch;
use crate::format::rewind::Ranges;
use crate::journal::{JournalReader, ReadStep};
use crate::pair::diverged_line;
use crate::store::StoreRead;
use bytes::Bytes;

/// What cannot be read back is tried again after this (milliseconds).
const UNREADABLE_RETRY_MS: u64 = 10_000;

/// How far the save is.
#[derive(Debug, Default)]
pub(super) struct Export {
    reader: JournalReader,
    /// The lines of what was read and is not saved yet.
    gathered: Vec<u8>,
    /// A first part was given to the disk: the next one goes behind it.
    begun: bool,
    /// What they touched.
    touched: Ranges,
}

/// What this process saved.
#[derive(Debug)]
pub(super) struct Saved {
    /// Every entry after this one.
    after: Seq,
    /// What they touched; none if the journal had let go of some.
    touched: Option<Ranges>,
}

impl Export {
    /// Of everything after entry `from`.
    pub(super) fn after(from: Seq) -> Self {
        Self { reader: JournalReader::after(from), ..Self::default() }
    }

    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }
}

impl Roles {
    /// What reads the entries back that have to be saved, while that is done.
    pub(in crate::engine) fn export_reader(&mut self) -> Option<&mut JournalReader> {
        self.stepping_down().map(|step_down| &mut step_down.export.reader)
    }

    /// Whether this process saved every entry after `common`.
    pub(in crate::engine) fn has_saved(&self, common: Seq) -> bool {
        self.saved.as_ref().is_some_and(|saved| saved.after <= common)
    }

    /// What the entries touched that this process saved; none if that is not known.
    pub(in crate::engine) fn touched(&self) -> Option<&Ranges> {
        self.saved.as_ref()?.touched.as_ref()
    }

    /// The names of the files in `diverged/` that this process wrote.
    pub(in crate::engine) fn diverged_files(&self) -> &[String] {
        &self.diverged_files
    }
}

impl<S: StoreRead> Core<S> {
    fn diverged_name(&self, common: Seq) -> String {
        let end = self.replicated().sealed();
        format!("epoch-{}-entries-{}-{}.jsonl", end.epoch, common.next().0, end.seq.0)
    }

    /// The last entry that is not saved: the end of the common history, or of what the journal has let go because the peer
    /// had it, if that one was set back since.
    pub(super) fn unsaved(&self, common: Seq) -> Seq {
        common.max(Seq(self.replicated().oldest().0.saturating_sub(1)))
    }

    /// Saves the entries after the common history. Each save waits for the disk, so many small batches go into one.
    pub(super) fn pump_export(&mut self) {
        let common = self.unsaved(self.roles.common());
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
                    return self.wait_with_export(UNREADABLE_RETRY_MS);
                }
            }
        }
    }

    fn wait_with_export(&mut self, ms: u64) {
        let now = self.now.mono;
        if let Some(step_down) = self.roles.stepping_down() {
            step_down.wait(now, ms);
        }
    }

    /// Adds the lines of a batch to what is saved next; returns how much that is (bytes).
    fn gather_diverged(&mut self, common: Seq, batch: &Batch) -> usize {
        let Some(step_down) = self.roles.stepping_down() else { return 0 };
        let Export { gathered, touched, .. } = &mut step_down.export;
        for (seq, entry) in batch.entries().filter(|(seq, _)| *seq > common) {
            let name = self.namespace.file(entry.file).map_or("", |info| info.key.as_str());
            gathered.extend_from_slice(&diverged_line(seq, batch.header().epoch, name, &entry));
            touched.note(&entry);
        }
        gathered.len()
    }

    fn save_gathered(&mut self, common: Seq, last: bool) {
        let (file, save) = (self.diverged_name(common), self.fresh_id());
        let Some(step_down) = self.roles.stepping_down() else { return };
        let first = !std::mem::replace(&mut step_down.export.begun, true);
        let bytes = Bytes::from(std::mem::take(&mut step_down.export.gathered));
        step_down.go_on(StepDownStep::Saving { save, last });
        self.effect(FileEffect::SaveDiverged { save, file, first, bytes });
    }

    /// Bytes for [`Self::pump_export`] could not be read.
    pub(in crate::engine) fn diverged_unread(&mut self) {
        self.wait_with_export(CONTROL_RETRY_MS);
    }

    pub(in crate::engine) fn diverged_saved(&mut self, save: u64) {
        let Some(step_down) = self.roles.stepping_down() else { return };
        let Some(last) = step_down.saving(save) else { return };
        step_down.go_on(if last { StepDownStep::Drain } else { StepDownStep::Export });
        self.dirty = true;
        if last {
            let touched = std::mem::take(&mut step_down.export.touched);
            let common = self.roles.common();
            let from = self.unsaved(common);
            let file = self.diverged_name(from);
            self.roles.diverged_files.retain(|known| *known != file);
            self.roles.diverged_files.push(file);
            let touched = (from == common).then_some(touched);
            self.roles.saved = Some(Saved { after: common, touched });
        }
    }

    pub(in crate::engine) fn diverged_failed(&mut self, save: u64, fault: Fault) {
        let now = self.now.mono;
        let Some(step_down) = self.roles.stepping_down() else { return };
        if step_down.saving(save).is_none() {
            return;
        }
        // All of it is written again, from the first entry.
        (step_down.export.begun, step_down.export.touched) = (false, Ranges::default());
        step_down.go_on(StepDownStep::Drain);
        step_down.wait(now, CONTROL_RETRY_MS);
        let text = format!("saving the entries that the pair never kept: {fault}; it is tried again");
        self.incident_once(Severity::Critical, "diverged-unsaved", text);
    }
}

#[cfg(test)]
impl Roles {
    /// As after a restart.
    pub(in crate::engine) fn forget_saved(&mut self) {
        self.saved = None;
    }
}

//! Copies a file's content into the replicated journal, while users write: after `+L`, after a pause of logging.
//!
//! The sequencer reads each item as it is at that moment and puts it in order among the users' updates, so a copied
//! value can never overtake a newer one.

use super::core::Core;
use super::effect::Severity;
use crate::base::{FileId, JournalKind};
use crate::format::entry::{Entry, EntryKind};
use crate::store::StoreRead;
use bytes::Bytes;

/// Items looked at in one go.
const ITEMS: usize = 64;
/// The copy pauses while more than this waits for the disk (bytes): users come first.
const QUEUED_MAX: usize = 2 << 20;

/// A copy under way.
#[derive(Debug)]
pub(super) struct CopyJob {
    file: FileId,
    after: Option<Bytes>,
    items: u64,
}

impl<S: StoreRead> Core<S> {
    pub(super) fn pump_copy(&mut self) {
        if !self.serving() || self.barrier.is_some() {
            return;
        }
        if self.copy.is_none() {
            let due = self.namespace.copies_due().next();
            if let Some(file) = due {
                self.begin_copy(file);
            }
        }
        while self.copy.is_some() && self.replicated().queued_bytes() < QUEUED_MAX && !self.is_congested() {
            self.copy_some();
        }
    }

    fn begin_copy(&mut self, file: FileId) {
        let Ok(change) = self.namespace.begin_copy(file, self.ordinal()) else { return };
        let entries: Vec<Entry<'_>> = change.entries.iter().map(|entry| entry.entry()).collect();
        self.replicated_mut().append(entries.iter().copied());
        for entry in &entries {
            self.define(JournalKind::Replicated, entry);
        }
        self.copy = Some(CopyJob { file, after: None, items: 0 });
        self.dirty = true;
    }

    fn copy_some(&mut self) {
        let Some(job) = self.copy.take() else { return };
        let CopyJob { file, after, mut items } = job;
        // The file was deleted, cleared, or is no longer replicated: nothing is left to copy.
        let due = self.namespace.file(file).is_some_and(crate::store::namespace::FileInfo::copy_is_due);
        if !due {
            return;
        }
        let found = match self.merged(file, after.as_deref(), ITEMS, true) {
            Ok((found, _)) => found,
            Err(error) => {
                let text = format!("copying a file to the peer: {error}");
                self.incident_once(Severity::Warning, "copy-failed", text);
                return;
            }
        };
        self.dirty = true;
        for (id, value) in &found {
            self.replicated_mut().append(std::iter::once(Entry { kind: EntryKind::Put, file, id, value }));
        }
        items += found.len() as u64;
        if found.len() == ITEMS {
            let after = found.last().map(|(id, _)| id.clone());
            self.copy = Some(CopyJob { file, after, items });
            return;
        }
        if let Ok(change) = self.namespace.end_copy(file) {
            for new in &change.entries {
                self.replicated_mut().append(std::iter::once(new.entry()));
                self.define(JournalKind::Replicated, &new.entry());
            }
        }
        let name = self.namespace.file(file).map_or_else(String::new, |info| info.key.clone());
        self.incident(
            Severity::Notice,
            "copied",
            format!("{name}: {items} items are copied into the journal"),
        );
    }
}

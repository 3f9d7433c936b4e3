//! Copies a file's content into the replicated journal, while users write: after `+L`, after a pause of logging.
//!
//! The sequencer puts each item or range, as it is at that moment, in order among the users' updates, so a copied value
//! can never overtake a newer one.

use super::backend::Merged;
use super::blocks::{Asker, joined};
use super::core::Core;
use super::effect::Severity;
use super::incidents::Matter;
use crate::base::limits::{BLOCK_U64, COPY_RETRY_MS, FETCH_TRIES_MAX};
use crate::base::shown::Grouped;
use crate::base::{FileId, JournalKind, Mono};
use crate::doors::{Allocation, FetchId, IfCold, Piece, Refusal, Unread};
use crate::format::dptr::DptrKind;
use crate::format::entry::{BlockId, Entry, EntryKind};
use crate::store::StoreRead;
use bytes::Bytes;

/// Items looked at in one go.
const ITEMS: usize = 64;
/// The copy pauses while more than this waits for the disk (bytes): users come first.
const QUEUED_MAX: usize = 2 << 20;
/// One read of a volume, and one entry (bytes).
const PIECE: u64 = 256 << 10;
/// How much of a volume one look for data covers (bytes).
const LOOK: u64 = 1 << 30;

/// A copy under way.
#[derive(Debug)]
pub(super) struct CopyJob {
    file: FileId,
    copied: u64,
    at: CopyAt,
}

/// How far it is.
#[derive(Debug)]
enum CopyAt {
    /// After this item.
    Item(Option<Bytes>),
    /// The items after this one are being fetched, for the so-manieth time.
    Fetching { fetch: FetchId, after: Option<Bytes>, tries: u32 },
    /// They were fetched.
    Fetched { after: Option<Bytes>, tries: u32 },
    /// What takes space from this offset on is asked for.
    Looking { ask: u64, at: u64 },
    /// From here to there something takes space.
    Data(u64, u64),
    /// The first piece of that is being read, and whether a client has changed it meanwhile.
    Reading { ask: u64, at: u64, until: u64, changed: bool },
}

/// The copy under way, and when the next one may begin.
#[derive(Debug, Default)]
pub(super) struct Copies {
    job: Option<CopyJob>,
    /// One failed: none begins before this.
    retry_at: Option<Mono>,
}

impl Copies {
    /// What is due begins anew when this node serves again.
    pub(super) fn stop(&mut self) {
        self.job = None;
    }

    /// Whether a file is being copied.
    pub(super) fn are_under_way(&self) -> bool {
        self.job.is_some()
    }

    /// When the next copy may begin, if one failed a moment ago.
    pub(super) fn deadline(&self, now: Mono) -> Option<Mono> {
        self.retry_at.filter(|at| now < *at)
    }
}

impl<S: StoreRead> Core<S> {
    pub(super) fn pump_copy(&mut self) {
        if !self.may_update() || self.operators.has_barrier() {
            return;
        }
        if self.copies.job.is_none() && self.copies.deadline(self.now.mono).is_none() {
            let due = self.namespace.copies_due().next();
            if let Some(file) = due {
                self.begin_copy(file);
            }
        }
        let waits = |job: &CopyJob| {
            matches!(job.at, CopyAt::Looking { .. } | CopyAt::Reading { .. } | CopyAt::Fetching { .. })
        };
        while self.copies.job.as_ref().is_some_and(|job| !waits(job))
            && self.replicated().queued_bytes() < QUEUED_MAX
            && !self.is_congested()
        {
            self.copy_some();
        }
    }

    fn begin_copy(&mut self, file: FileId) {
        let Ok(change) = self.namespace.begin_copy(file, self.ordinal()) else { return };
        let entries: Vec<Entry<'_>> = change.entries.iter().map(|entry| entry.entry()).collect();
        self.appending(JournalKind::Replicated).append(entries.iter().copied());
        for entry in &entries {
            self.define(JournalKind::Replicated, entry);
        }
        let blocks = self.namespace.file(file).is_some_and(|info| info.dptr.kind == DptrKind::Blocks);
        let at = if blocks { CopyAt::Data(0, 0) } else { CopyAt::Item(None) };
        self.copies.job = Some(CopyJob { file, copied: 0, at });
        self.dirty = true;
    }

    fn copy_some(&mut self) {
        let Some(job) = self.copies.job.take() else { return };
        // The file was deleted, cleared, or is no longer replicated: nothing is left to copy.
        let due = self.namespace.file(job.file).is_some_and(crate::store::namespace::FileInfo::copy_is_due);
        if !due {
            return;
        }
        self.dirty = true;
        match job.at {
            CopyAt::Item(after) => self.copy_items(job.file, job.copied, after, 0),
            CopyAt::Fetched { after, tries } => self.copy_items(job.file, job.copied, after, tries),
            CopyAt::Data(at, until) if at < until => self.read_piece(job.file, job.copied, at, until),
            CopyAt::Data(at, _) => self.look_for_data(job.file, job.copied, at),
            at @ (CopyAt::Looking { .. } | CopyAt::Reading { .. } | CopyAt::Fetching { .. }) => {
                self.copies.job = Some(CopyJob { at, ..job });
            }
        }
    }

    fn copy_items(&mut self, file: FileId, mut copied: u64, after: Option<Bytes>, tries: u32) {
        let if_cold = if tries < FETCH_TRIES_MAX { IfCold::Fetch } else { IfCold::Wait };
        let found = match self.merged(file, after.as_deref(), ITEMS, (true, if_cold)) {
            Ok(found) => found,
            Err(Unread::Cold(fetch)) => {
                let at = CopyAt::Fetching { fetch, after, tries: tries + 1 };
                self.copies.job = Some(CopyJob { file, copied, at });
                return;
            }
            Err(Unread::Refused(error)) => return self.copy_failed(&error),
        };
        let Merged { items: found, next, .. } = found;
        for (id, value) in &found {
            self.appending(JournalKind::Replicated).append(std::iter::once(Entry {
                kind: EntryKind::Put,
                file,
                id,
                value,
            }));
        }
        copied += found.len() as u64;
        if next.is_some() {
            self.copies.job = Some(CopyJob { file, copied, at: CopyAt::Item(next) });
            return;
        }
        self.end_copy(file, &format!("{} items are copied into the journal", Grouped(copied)));
    }

    /// A fetch is over: goes on if the copy waits for it.
    pub(super) fn copy_fetched(&mut self, over: FetchId) {
        if let Some(CopyJob { at, .. }) = &mut self.copies.job
            && let CopyAt::Fetching { fetch, after, tries } = at
            && *fetch == over
        {
            *at = CopyAt::Fetched { after: after.take(), tries: *tries };
        }
    }

    /// The job ends; it is due still, and begins again from the start after a while: each beginning is an entry.
    fn copy_failed(&mut self, error: &Refusal) {
        self.copies.retry_at = Some(self.now.mono.plus_ms(COPY_RETRY_MS));
        let text = format!("copying a file to the peer: {error}");
        self.incident_once(Severity::Warning, "copy-failed", text);
    }

    fn end_copy(&mut self, file: FileId, what: &str) {
        if let Ok(change) = self.namespace.end_copy(file) {
            for new in &change.entries {
                self.appending(JournalKind::Replicated).append(std::iter::once(new.entry()));
                self.define(JournalKind::Replicated, &new.entry());
            }
        }
        self.settled(&[Matter::CopyFailed]);
        let name = self.namespace.file(file).map_or_else(String::new, |info| info.key.clone());
        self.incident(Severity::Notice, "copied", format!("{name}: {what}"));
    }
}

/// Volumes: only what takes space is copied; the peer begins with an empty volume.
impl<S: StoreRead> Core<S> {
    fn look_for_data(&mut self, file: FileId, copied: u64, at: u64) {
        let bytes = self.namespace.file(file).map_or(0, |info| info.dptr.blocks * BLOCK_U64);
        if at >= bytes {
            return self.end_copy(file, &format!("{} bytes are copied into the journal", Grouped(copied)));
        }
        let ask = self.fresh_id();
        self.copies.job = Some(CopyJob { file, copied, at: CopyAt::Looking { ask, at } });
        if let Err(error) = self.begin_allocation(Asker::Copy(ask), file, at, LOOK.min(bytes - at)) {
            self.copies.job = None;
            self.copy_failed(&error);
        }
    }

    /// What takes space is known.
    pub(super) fn copy_found(&mut self, answered: u64, result: Result<Vec<Allocation>, Refusal>) {
        let Some(CopyJob { file, copied, at: CopyAt::Looking { ask, at } }) = self.copies.job else { return };
        if ask != answered {
            return;
        }
        self.copies.job = None;
        match result {
            Err(error) => self.copy_failed(&error),
            Ok(parts) => {
                let hole: u64 = parts.iter().take_while(|part| part.hole).map(|part| part.len).sum();
                let data = parts.iter().find(|part| !part.hole).map_or(0, |part| part.len);
                let (from, until) = (at + hole, at + hole + data);
                self.copies.job = Some(CopyJob { file, copied, at: CopyAt::Data(from, until) });
            }
        }
    }

    fn read_piece(&mut self, file: FileId, copied: u64, at: u64, until: u64) {
        let ask = self.fresh_id();
        self.copies.job =
            Some(CopyJob { file, copied, at: CopyAt::Reading { ask, at, until, changed: false } });
        if let Err(error) = self.begin_read(Asker::Copy(ask), file, at, PIECE.min(until - at)) {
            self.copies.job = None;
            self.copy_failed(&error);
        }
    }

    /// A client changes a range: what was read of it and is not in the journal yet is out of date.
    pub(super) fn note_copied_over(&mut self, file: FileId, start: u64, end: u64) {
        if let Some(CopyJob { file: copying, at: CopyAt::Reading { at, until, changed, .. }, .. }) =
            &mut self.copies.job
            && *copying == file
        {
            *changed |= start < (*at + PIECE).min(*until) && end > *at;
        }
    }

    /// A piece was read.
    pub(super) fn copy_read(&mut self, answered: u64, result: Result<Vec<Piece>, Refusal>) {
        let Some(CopyJob { file, copied, at: CopyAt::Reading { ask, at, until, changed } }) = self.copies.job
        else {
            return;
        };
        if ask != answered {
            return;
        }
        self.copies.job = None;
        let due = self.namespace.file(file).is_some_and(crate::store::namespace::FileInfo::copy_is_due);
        match result {
            Err(error) => self.copy_failed(&error),
            Ok(_) if !due || !self.may_update() => {}
            Ok(_) if changed => self.copies.job = Some(CopyJob { file, copied, at: CopyAt::Data(at, until) }),
            Ok(pieces) => {
                let value = joined(&pieces);
                let id = BlockId::write(at);
                let kind = EntryKind::BlockWrite;
                let entry = Entry { kind, file, id: id.as_ref(), value: &value };
                self.appending(JournalKind::Replicated).append(std::iter::once(entry));
                let len = value.len() as u64;
                let at = CopyAt::Data(at + len, until);
                self.copies.job = Some(CopyJob { file, copied: copied + len, at });
            }
        }
        self.dirty = true;
    }
}

#[cfg(test)]
#[path = "copy_tests.rs"]
mod tests;

//! What the doors may ask of the database.

use super::core::Core;
use super::overlay::{Pending, Unapplied};
use crate::base::limits::{BATCH_MAX, ITEM_ID_MAX, ITEM_VALUE_MAX};
use crate::base::{AckLevel, FileId, JournalKind, Seq, Wait};
use crate::doors::{
    Backend, Change, CommitWatermarks, CountOf, Draft, FetchId, IfCold, ItemHash, Refusal, ReplicationView,
    Scanned, Unread, Update,
};
use crate::format::batch::BATCH_HEADER;
use crate::format::dptr::DptrKind;
use crate::format::entry::{ENTRY_HEADER, Entry, EntryKind};
use crate::journal::JournalState;
use crate::store::StoreRead;
use crate::store::namespace::FileInfo;
use bytes::Bytes;

fn parts<'a>(update: &Update<'a>) -> (FileId, &'a [u8], Option<&'a [u8]>) {
    match *update {
        Update::Put { file, id, value } => (file, id, Some(value)),
        Update::Delete { file, id } => (file, id, None),
    }
}

fn entry_of<'a>(update: &Update<'a>) -> Entry<'a> {
    match parts(update) {
        (file, id, Some(value)) => Entry { kind: EntryKind::Put, file, id, value },
        (file, id, None) => Entry { kind: EntryKind::Delete, file, id, value: &[] },
    }
}

fn too_large(what: &'static str, found: usize, limit: &'static str) -> Refusal {
    Refusal::TooLarge { what, found, limit }
}

impl<S: StoreRead> Core<S> {
    fn file_info(&self, file: FileId) -> Result<&FileInfo, Refusal> {
        self.namespace.file(file).ok_or_else(|| Refusal::NoSuchFile(format!("with id {file}")))
    }

    fn not_serving(&self) -> Refusal {
        Refusal::NotServing(self.reason())
    }

    /// Checks a group of updates; returns its journal, level and size.
    fn check(&self, updates: &[Update<'_>]) -> Result<(JournalKind, AckLevel, usize), Refusal> {
        let mut journal = None;
        let mut level = AckLevel::Local;
        let mut bytes = 0;
        for update in updates {
            let (file, id, value) = parts(update);
            let info = self.file_info(file)?;
            if id.is_empty() || id.len() > ITEM_ID_MAX {
                return Err(too_large("item id", id.len(), "1 to 255 bytes"));
            }
            let len = value.map_or(0, <[u8]>::len);
            if len > ITEM_VALUE_MAX {
                return Err(too_large("item value", len, "at most 16 MiB"));
            }
            if *journal.get_or_insert(info.journal) != info.journal {
                return Err(Refusal::MixedJournals);
            }
            if info.replicated && !self.may_update() {
                return Err(if self.readable() { Refusal::ReadOnly } else { self.not_serving() });
            }
            if info.journal == JournalKind::Replicated {
                level = level.max(self.level(info.dptr.ack));
            }
            bytes += ENTRY_HEADER + id.len() + len;
        }
        if bytes + BATCH_HEADER + 4096 > BATCH_MAX {
            return Err(too_large("transaction", bytes, "at most 32 MiB in one batch"));
        }
        Ok((journal.unwrap_or(JournalKind::Local), level, bytes))
    }

    pub(super) fn check_disk(&self, journal: JournalKind, bytes: usize) -> Result<(), Refusal> {
        self.check_barrier()?;
        self.check_moves(journal)?;
        match self.journal_takes(journal, bytes) {
            JournalState::Open => {}
            JournalState::NoSpace => return Err(Refusal::NoSpace),
            JournalState::Failed => return Err(Refusal::DiskFailed),
        }
        match self.store_fault() {
            None => Ok(()),
            Some(crate::base::Fault::NoSpace) => Err(Refusal::NoSpace),
            Some(_) => Err(Refusal::DiskFailed),
        }
    }

    /// Marks files as stale that are changed while logging is paused, in the same batch.
    fn stale_marks(&self, updates: &[Update<'_>]) -> Vec<crate::store::namespace::NewEntry> {
        let mut marks: Vec<crate::store::namespace::NewEntry> = Vec::new();
        for update in updates {
            let (file, ..) = parts(update);
            let due = self.namespace.file(file).is_some_and(FileInfo::needs_stale_mark);
            if due
                && !marks.iter().any(|mark| mark.file == file)
                && let Ok(change) = self.namespace.mark_stale(file)
            {
                marks.extend(change.entries);
            }
        }
        marks
    }

    fn overlay_updates(&mut self, journal: JournalKind, updates: &[Update<'_>], last: Seq) {
        for update in updates {
            let (file, id, value) = parts(update);
            let value = value.map(Bytes::copy_from_slice);
            self.overlay.set(file, id, Unapplied { journal, seq: last, value });
        }
    }

    /// The wait for an update that may not be durable yet; none if it is. What will never be durable cannot be seen.
    fn seen(&self, update: Pending<'_>) -> Result<Option<Wait>, Refusal> {
        let Pending { journal, seq, .. } = update;
        let own = &self.journals[journal.index()];
        if seq <= own.pace().durable {
            return Ok(None);
        }
        self.check_moves(journal)?;
        Ok(Some(Wait { journal, seq, level: AckLevel::Local }))
    }

    /// The value of an item after every update accepted so far, and whether it is durable.
    pub(super) fn item(
        &mut self,
        file: FileId,
        id: &[u8],
        if_cold: IfCold,
    ) -> Result<(Option<Bytes>, Option<Wait>), Unread> {
        let generation = self.file_info(file)?.dptr.generation;
        if let Some(update) = self.overlay.get(file, id) {
            return Ok((update.value.cloned(), self.seen(update)?));
        }
        Ok((self.stored_item(file, generation, id, if_cold)?, None))
    }
}

impl<S: StoreRead> Backend for Core<S> {
    fn resolve(&self, account_and_file: &[u8]) -> Result<FileId, Refusal> {
        let name = || String::from_utf8_lossy(account_and_file).into_owned();
        if !self.readable() {
            return Err(self.not_serving());
        }
        let id = self.namespace.resolve(account_and_file).ok_or_else(|| Refusal::NoSuchFile(name()))?;
        match self.file_info(id)?.dptr.kind {
            DptrKind::Records => Ok(id),
            DptrKind::Blocks | DptrKind::Account => Err(Refusal::NotRecords(name())),
        }
    }

    fn read(
        &mut self,
        file: FileId,
        id: &[u8],
        if_cold: IfCold,
    ) -> Result<(Option<Bytes>, Option<Wait>), Unread> {
        if !self.readable() {
            return Err(self.not_serving().into());
        }
        self.item(file, id, if_cold)
    }

    fn fetch(&mut self, file: FileId, id: &[u8]) -> Option<FetchId> {
        match self.read(file, id, IfCold::Fetch) {
            Err(Unread::Cold(fetch)) => Some(fetch),
            _ => None,
        }
    }

    fn update(&mut self, updates: &[Update<'_>]) -> Result<Wait, Refusal> {
        if self.stopping || !self.readable() {
            return Err(self.not_serving());
        }
        let (journal, level, bytes) = self.check(updates)?;
        self.check_disk(journal, bytes)?;
        let marks = self.stale_marks(updates);
        if marks.is_empty() {
            let last = self.appending(journal).append(updates.iter().map(entry_of));
            self.overlay_updates(journal, updates, last);
            self.dirty = true;
            return Ok(self.promise(Wait { journal, seq: last, level }));
        }
        let entries: Vec<Entry<'_>> =
            marks.iter().map(|mark| mark.entry()).chain(updates.iter().map(entry_of)).collect();
        let last = self.appending(journal).append(entries.iter().copied());
        for mark in &marks {
            self.define(journal, &mark.entry());
        }
        self.overlay_updates(journal, updates, last);
        self.dirty = true;
        Ok(self.promise(Wait { journal, seq: last, level }))
    }

    fn commit(&mut self, mut draft: Draft) -> Result<Wait, Refusal> {
        if self.stopping || !self.readable() {
            return Err(self.not_serving());
        }
        // One update of each file stands for all: what is checked of items was checked when they were put in.
        let files: Vec<Update<'_>> =
            draft.files().iter().map(|file| Update::Delete { file: *file, id: b"-" }).collect();
        let (journal, level, _) = self.check(&files)?;
        if !draft.fits() {
            return Err(too_large("transaction", draft.batch_len(), "at most 32 MiB in one batch"));
        }
        self.check_disk(journal, draft.batch_len())?;
        // A mark that comes before what it is for does no harm if that does not come.
        let marks = self.stale_marks(&files);
        if !marks.is_empty() {
            self.appending(journal).append(marks.iter().map(|mark| mark.entry()));
            marks.iter().for_each(|mark| self.define(journal, &mark.entry()));
        }
        let Some(last) = self.appending(journal).append_draft(&mut draft) else {
            unreachable!("a draft that is committed holds something")
        };
        self.overlay.set_all(journal, last, draft);
        self.dirty = true;
        Ok(self.promise(Wait { journal, seq: last, level }))
    }

    fn scan(
        &mut self,
        file: FileId,
        after: Option<&[u8]>,
        limit: usize,
        if_cold: IfCold,
    ) -> Result<Scanned, Unread> {
        if !self.readable() {
            return Err(self.not_serving().into());
        }
        let Merged { items, next, wait, looked } = self.merged(file, after, limit, (false, if_cold))?;
        let ids = items.into_iter().map(|(id, _)| id).collect();
        Ok(Scanned { ids, next, wait, looked })
    }

    fn items_at_most(&self, file: FileId) -> u64 {
        self.stored_at_most(file) + self.overlay.items_at_most(file)
    }

    fn estimate(&mut self, file: FileId, of: CountOf, if_cold: IfCold) -> Result<u64, Unread> {
        if !self.readable() {
            return Err(self.not_serving().into());
        }
        let generation = self.file_info(file)?.dptr.generation;
        self.stored_count(file, generation, of, if_cold)
    }

    fn item_hash(&self, file: FileId, id: &[u8]) -> ItemHash {
        self.changes.item(file, id)
    }

    fn want_changes(&mut self, wanted: bool) {
        self.changes.want(wanted);
    }

    fn next_change(&mut self) -> Option<Change> {
        let role = [self.may_update(), self.readable(), self.is_primary()];
        self.changes.take(role)
    }

    fn next_record_file(&self, from: FileId) -> Option<(FileId, String)> {
        let mut files = self.namespace.files_from(from);
        let records = |info: &FileInfo| info.dptr.kind == DptrKind::Records && !info.key.is_empty();
        files.find(|(_, info)| records(info)).map(|(id, info)| (id, info.key.clone()))
    }

    fn record_files(&self) -> Vec<(FileId, String)> {
        self.namespace
            .files()
            .filter(|(_, info)| info.dptr.kind == DptrKind::Records && !info.key.is_empty())
            .map(|(id, info)| (id, info.key.clone()))
            .collect()
    }

    fn watermarks(&self) -> CommitWatermarks {
        self.commit_watermarks()
    }

    fn appended(&self) -> Seq {
        self.replicated().pace().appended
    }

    fn epoch(&self) -> u64 {
        self.control.epoch().0
    }

    fn peer_acked(&self) -> [Seq; 3] {
        let acked = self.peer.confirmed();
        [acked.received, acked.durable, acked.applied]
    }

    fn congested(&self) -> bool {
        self.is_congested()
    }

    fn view(&self) -> ReplicationView {
        self.replication_view()
    }
}

/// A part of a file's items, as the updates accepted so far leave them.
#[derive(Debug, Default)]
pub(super) struct Merged {
    /// In order.
    pub(super) items: Vec<(Bytes, Bytes)>,
    /// See [`Scanned::next`].
    pub(super) next: Option<Bytes>,
    /// As for [`Backend::read`].
    wait: Option<Wait>,
    looked: usize,
}

impl<S: StoreRead> Core<S> {
    /// Up to `limit` items of a file after `after`, in order. Of the store and of what it does not show yet, no more
    /// than so many are looked at; the part ends where one of them is not known any further.
    pub(super) fn merged(
        &mut self,
        file: FileId,
        after: Option<&[u8]>,
        limit: usize,
        how: (bool, IfCold),
    ) -> Result<Merged, Unread> {
        let generation = self.file_info(file)?.dptr.generation;
        let limit = limit.max(1);
        let stored = self.stored_items(file, generation, after, limit, how)?;
        let unapplied = self.overlay.part(file, after, limit);
        let stored_until = stored.last().filter(|_| stored.len() == limit).map(|(id, _)| id.clone());
        let until = match (unapplied.until.map(Bytes::copy_from_slice), stored_until) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        let within = |id: &[u8]| until.as_ref().is_none_or(|until| id <= until.as_ref());
        let mut merged = Merged { looked: unapplied.looked, ..Merged::default() };
        let mut stored = stored.into_iter().filter(|(id, _)| within(id)).peekable();
        let mut pending = unapplied.items.into_iter().filter(|(id, _)| within(id)).peekable();
        while merged.items.len() < limit {
            let next_pending = pending.peek().map(|(id, _)| *id);
            let own = match (next_pending, stored.peek()) {
                (None, None) => {
                    merged.next = until;
                    return Ok(merged);
                }
                (Some(new), Some((old, _))) => new <= old.as_ref(),
                (new, _) => new.is_some(),
            };
            if !own {
                merged.items.extend(stored.next());
                continue;
            }
            if let Some((id, update)) = pending.next() {
                stored.next_if(|(old, _)| old.as_ref() == id);
                self.push_unapplied(&mut merged, id, update)?;
            }
        }
        // Whatever is left comes with the next part.
        merged.next = merged.items.last().map(|(id, _)| id.clone());
        Ok(merged)
    }

    fn push_unapplied(&self, merged: &mut Merged, id: &[u8], update: Pending<'_>) -> Result<(), Refusal> {
        if let Some(due) = self.seen(update)?
            && merged.wait.is_none_or(|wait| wait.journal == due.journal && wait.seq < due.seq)
        {
            merged.wait = Some(due);
        }
        if let Some(value) = update.value {
            merged.items.push((Bytes::copy_from_slice(id), value.clone()));
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "backend_tests.rs"]
mod tests;

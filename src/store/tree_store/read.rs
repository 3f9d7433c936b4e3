//! Reads of the store: memtables, the newest first, over the tables.

use super::super::{StoreError, StoreRead, keys};
use super::flush::{Shared, View};
use super::memtable::{Memtable, Part, RECORDS};
use crate::base::FileId;
use bytes::Bytes;
use std::sync::{Arc, Mutex, PoisonError};

/// Values longer than this are handed out without a copy (bytes).
const SHARE_FROM: usize = 4096;
/// Updates of a memtable that are looked at together, at least.
const STEP: usize = 64;

/// Reads of the store, from any thread. Each call sees a state between two batches.
pub struct StoreReader {
    pub(super) shared: Arc<Shared>,
    /// Of this reader alone, not of its clones.
    pin: Mutex<Pin>,
}

/// Which state reads see.
enum Pin {
    /// The newest.
    None,
    /// That of the first read to come.
    Wanted,
    /// This one, up to that commit of its active memtable.
    Taken(Arc<View>, u32),
}

impl std::fmt::Debug for StoreReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StoreReader")
    }
}

impl Clone for StoreReader {
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.shared))
    }
}

impl StoreReader {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, pin: Mutex::new(Pin::None) }
    }

    /// The newest state, whatever is pinned.
    pub(super) fn newest(&self) -> Snapshot<'_> {
        Snapshot::newest(&self.shared, self.shared.view())
    }

    fn snapshot(&self) -> Snapshot<'_> {
        let mut pin = self.pin.lock().unwrap_or_else(PoisonError::into_inner);
        if let Pin::Taken(view, commit) = &*pin {
            return Snapshot { shared: &self.shared, view: Arc::clone(view), commit: *commit };
        }
        let snapshot = self.newest();
        if let Pin::Wanted = *pin {
            *pin = Pin::Taken(Arc::clone(&snapshot.view), snapshot.commit);
        }
        snapshot
    }

    fn set_pin(&self, pin: Pin) {
        *self.pin.lock().unwrap_or_else(PoisonError::into_inner) = pin;
    }

    #[cfg(test)]
    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

impl StoreRead for StoreReader {
    fn pin(&self) {
        self.set_pin(Pin::Wanted);
    }

    fn unpin(&self) {
        self.set_pin(Pin::None);
    }

    fn get(&self, file: FileId, generation: u32, id: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.snapshot().get((file, generation), id)
    }

    fn scan(
        &self,
        file: FileId,
        generation: u32,
        after: Option<&[u8]>,
        limit: usize,
        with_values: bool,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.snapshot().scan(file, generation, after, limit, with_values)
    }
}

/// One state between two batches.
pub(super) struct Snapshot<'s> {
    shared: &'s Shared,
    view: Arc<View>,
    commit: u32,
}

impl<'s> Snapshot<'s> {
    /// The newest state of a view.
    pub(super) fn newest(shared: &'s Shared, view: Arc<View>) -> Self {
        let commit = view.active.visible();
        Self { shared, view, commit }
    }

    /// Memtables, the newest first, and the last commit of each that is part of this state.
    fn memtables(&self) -> impl Iterator<Item = (&Memtable, u32)> {
        let frozen = self.view.frozen.iter().map(|memtable| (memtable.as_ref(), memtable.visible()));
        std::iter::once((self.view.active.as_ref(), self.commit)).chain(frozen)
    }

    fn get(&self, table: (FileId, u32), id: &[u8]) -> Result<Option<Bytes>, StoreError> {
        for (memtable, commit) in self.memtables() {
            if let Some(found) = memtable.get(table, id, commit) {
                return Ok(found);
            }
        }
        let mut key = Vec::with_capacity(14 + id.len());
        keys::item(&mut key, table.0, table.1, id);
        Ok(self.shared.tables.get(&key, self.view.tables)?.map(to_bytes))
    }

    pub(super) fn scan(
        &self,
        file: FileId,
        generation: u32,
        after: Option<&[u8]>,
        limit: usize,
        with_values: bool,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let range = keys::range(file, generation, after);
        let stored = self.shared.tables.range(range, self.view.tables);
        let stored = stored.map(|found| {
            let (key, value) = found?;
            let value = if with_values { to_bytes(value) } else { Bytes::new() };
            Ok((Bytes::copy_from_slice(keys::id_of(&key)), value))
        });
        self.merge((file, generation), after, limit, with_values, stored)
    }

    /// Every record of the store itself.
    pub(super) fn records(&self) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let stored = self.shared.tables.range(keys::records(), self.view.tables);
        let stored = stored.map(|found| {
            let (key, value) = found?;
            Ok((Bytes::copy_from_slice(&key), to_bytes(value)))
        });
        self.merge(RECORDS, None, usize::MAX, true, stored)
    }

    /// Up to `limit` items behind `after`: of each the newest content that a memtable has, or what is stored.
    fn merge(
        &self,
        table: (FileId, u32),
        after: Option<&[u8]>,
        limit: usize,
        with_values: bool,
        stored: impl Iterator<Item = Result<(Bytes, Bytes), StoreError>>,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let mut stored = stored.peekable();
        let mut found = Vec::new();
        let mut after = after.map(Bytes::copy_from_slice);
        while found.len() < limit {
            let step = limit.saturating_sub(found.len()).max(STEP);
            let part = self.in_memory(table, after.as_deref(), step, with_values);
            for (id, value) in part.items {
                while found.len() < limit
                    && let Some(next) =
                        stored.next_if(|next| next.as_ref().is_ok_and(|(other, _)| *other < id))
                {
                    found.push(next?);
                }
                if found.len() == limit {
                    return Ok(found);
                }
                if let Some(error) = stored.next_if(Result::is_err) {
                    error?;
                }
                let _ = stored.next_if(|next| next.as_ref().is_ok_and(|(other, _)| *other == id));
                found.extend(value.map(|value| (id, value)));
            }
            match part.until {
                Some(until) => after = Some(until),
                None => {
                    for next in stored.take(limit - found.len()) {
                        found.push(next?);
                    }
                    return Ok(found);
                }
            }
        }
        Ok(found)
    }

    /// The next items of all memtables behind `after`.
    fn in_memory(&self, table: (FileId, u32), after: Option<&[u8]>, limit: usize, with_values: bool) -> Part {
        let mut all = Part::default();
        for (memtable, commit) in self.memtables() {
            let part = memtable.scan(table, after, limit, commit, with_values);
            all.items.extend(part.items);
            all.until = match (all.until, part.until) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
        }
        if let Some(until) = &all.until {
            all.items.retain(|(id, _)| id <= until);
        }
        // The sort is stable: of one item the newest comes first.
        all.items.sort_by(|(a, _), (b, _)| a.cmp(b));
        all.items.dedup_by(|(a, _), (b, _)| a == b);
        all
    }
}

fn to_bytes(value: lsm_tree::UserValue) -> Bytes {
    if value.len() > SHARE_FROM { Bytes::from_owner(value) } else { Bytes::copy_from_slice(&value) }
}

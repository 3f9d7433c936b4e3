//! Reads of the store: memtables, the newest first, over the tables.

use super::super::{Fits, StoreError, StoreRead, StoreSnapshot, Tried, keys};
use super::blocks::{CachedRead, Reading, Stop, tried};
use super::estimate::Counted;
use super::flush::{Shared, View};
use super::memtable::{Memtable, Part, RECORDS};
use super::rot::RottenTables;
use super::tables::Range;
use crate::base::{FileId, Seq};
use bytes::Bytes;
use lsm_tree::{UserKey, UserValue};
use std::sync::Arc;

/// Values longer than this are handed out without a copy (bytes).
pub(super) const SHARE_FROM: usize = 4096;
/// Updates of a memtable that are looked at together, at least.
const STEP: usize = 64;

/// Reads of the store, from any thread.
#[derive(Clone)]
pub struct StoreReader {
    pub(super) shared: Arc<Shared>,
    cached: Option<CachedRead>,
}

impl std::fmt::Debug for StoreReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StoreReader")
    }
}

impl StoreReader {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, cached: None }
    }

    /// With this way to read what the page cache holds. Without one nothing is cold: every read waits for the disk.
    #[must_use]
    pub fn with_cached_reads(self, cached: CachedRead) -> Self {
        Self { cached: Some(cached), ..self }
    }

    #[cfg(test)]
    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

impl StoreRead for StoreReader {
    type Snapshot = Snapshot;

    fn snapshot(&self) -> Snapshot {
        Snapshot { cached: self.cached, ..Snapshot::newest(&self.shared) }
    }
}

/// See [`StoreSnapshot`].
pub struct Snapshot {
    shared: Arc<Shared>,
    view: Arc<View>,
    /// The last commit of the active memtable that is part of it.
    commit: u32,
    applied: [Seq; 2],
    cached: Option<CachedRead>,
    /// It is read by its own tables, and holds back nothing of what comes after it.
    pinned: bool,
}

impl std::fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Snapshot(applied {:?})", self.applied)
    }
}

impl StoreSnapshot for Snapshot {
    fn applied(&self) -> [Seq; 2] {
        self.applied
    }

    fn get(&self, file: FileId, generation: u32, id: &[u8]) -> Result<Option<Bytes>, StoreError> {
        if let Some(found) = self.find_in_memory((file, generation), id) {
            return Ok(found);
        }
        let key = key_of((file, generation), id);
        if self.pinned {
            let found = self.shared.tables.try_get(&self.view.sources, Reading::Waiting, &key);
            return Self::waited(found.map(|value| value.map(to_bytes)));
        }
        let found = self.shared.tables.get(&key, self.view.tables).inspect_err(|_| self.blame_for(&key));
        Ok(found?.map(to_bytes))
    }

    fn scan(
        &self,
        file: FileId,
        generation: u32,
        after: Option<&[u8]>,
        limit: usize,
        with_values: bool,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let range = keys::range(file, generation, after);
        if self.pinned {
            return Self::waited(self.scan_sources(
                (file, generation),
                after,
                Limit::of(limit),
                (with_values, Reading::Waiting),
            ));
        }
        let stored = self.shared.tables.range(range.clone(), self.view.tables);
        let stored = stored.map(|found| found.map(|found| item_of(found, with_values)));
        let found = self.merge((file, generation), after, Limit::of(limit), with_values, stored);
        found.inspect_err(|_| self.blame_in(&range))
    }

    fn items_at_most(&self, file: FileId, generation: u32) -> u64 {
        let in_memory: u64 = self.memtables().map(|(memtable, _)| memtable.records()).sum();
        in_memory + self.view.sources.at_most((file, generation))
    }

    fn estimate(&self, file: FileId, generation: u32, fits: Fits) -> Result<u64, StoreError> {
        Self::waited(self.counted().estimate((file, generation), fits))
    }

    fn try_get(&self, file: FileId, generation: u32, id: &[u8]) -> Result<Tried<Option<Bytes>>, StoreError> {
        let Some(cached) = self.cached else { return self.get(file, generation, id).map(Tried::Done) };
        if let Some(found) = self.find_in_memory((file, generation), id) {
            return Ok(Tried::Done(found));
        }
        let key = key_of((file, generation), id);
        let found = self.shared.tables.try_get(&self.view.sources, Reading::Cached(cached), &key);
        tried(found.map(|value| value.map(to_bytes)))
    }

    fn try_scan(
        &self,
        file: FileId,
        generation: u32,
        after: Option<&[u8]>,
        limit: usize,
        with_values: bool,
    ) -> Result<Tried<Vec<(Bytes, Bytes)>>, StoreError> {
        let Some(cached) = self.cached else {
            return self.scan(file, generation, after, limit, with_values).map(Tried::Done);
        };
        let how = (with_values, Reading::Cached(cached));
        tried(self.scan_sources((file, generation), after, Limit::of(limit), how))
    }
}

impl Snapshot {
    fn counted(&self) -> Counted<'_> {
        let memtables = self.memtables().collect();
        Counted { memtables, sources: &self.view.sources, tables: &self.shared.tables }
    }
}

/// What a scan may give: so many items, and no further one once they have so many bytes together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    pub(super) items: usize,
    pub(super) bytes: usize,
}

impl Limit {
    fn of(items: usize) -> Self {
        Self { items, bytes: usize::MAX }
    }
}

/// What a scan has found, and the room that is left.
struct Found {
    items: Vec<(Bytes, Bytes)>,
    room: Limit,
}

impl Found {
    fn is_full(&self) -> bool {
        self.room.items == 0 || self.room.bytes == 0
    }

    fn push(&mut self, item: (Bytes, Bytes)) {
        self.room.items -= 1;
        self.room.bytes = self.room.bytes.saturating_sub(item.0.len() + item.1.len());
        self.items.push(item);
    }
}

fn key_of(table: (FileId, u32), id: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(14 + id.len());
    keys::item(&mut key, table.0, table.1, id);
    key
}

fn item_of((key, value): (UserKey, UserValue), with_values: bool) -> (Bytes, Bytes) {
    let value = if with_values { to_bytes(value) } else { Bytes::new() };
    (Bytes::copy_from_slice(keys::id_of(&key)), value)
}

impl Snapshot {
    /// The newest state.
    pub(super) fn newest(shared: &Arc<Shared>) -> Self {
        let view = shared.view();
        let (commit, applied) = view.active.newest();
        Self { shared: Arc::clone(shared), view, commit, applied, cached: None, pinned: false }
    }

    /// The newest state, for as long as it is held: merges go on, and what they replace goes, but for the tables of this one.
    pub(super) fn pinned(shared: &Arc<Shared>) -> Self {
        let newest = Self::newest(shared);
        let View { active, frozen, tables, sources } = newest.view.as_ref();
        // Not among the states that are known of, so that nothing is kept for it but what it holds itself.
        let (active, frozen, sources) = (Arc::clone(active), frozen.clone(), Arc::clone(sources));
        let view = Arc::new(View { active, frozen, tables: *tables, sources });
        Self { view, pinned: true, ..newest }
    }

    /// As a scan, of the tables that this state holds.
    fn scan_sources(
        &self,
        table: (FileId, u32),
        after: Option<&[u8]>,
        limit: Limit,
        (with_values, how): (bool, Reading),
    ) -> Result<Vec<(Bytes, Bytes)>, Stop> {
        let range = keys::range(table.0, table.1, after);
        let stored = self.shared.tables.try_range(&self.view.sources, how, &range, with_values);
        let item = |(key, value): (Vec<u8>, Bytes)| (Bytes::copy_from_slice(keys::id_of(&key)), value);
        let stored = stored.map(|found| found.map(item));
        self.merge(table, after, limit, with_values, stored)
    }

    /// Memtables, the newest first, and the last commit of each that is part of this state.
    fn memtables(&self) -> impl Iterator<Item = (&Memtable, u32)> {
        let frozen = self.view.frozen.iter().map(|memtable| (memtable.as_ref(), memtable.visible()));
        std::iter::once((self.view.active.as_ref(), self.commit)).chain(frozen)
    }

    /// The error that a read which waits ends with.
    fn waited<T>(result: Result<T, Stop>) -> Result<T, StoreError> {
        result.map_err(|stop| match stop {
            Stop::Failed(error) => error,
            Stop::Cold => unreachable!("a read that waits for the disk is never cold"),
        })
    }

    /// What is known of an item without the tables; none if nothing is.
    fn find_in_memory(&self, table: (FileId, u32), id: &[u8]) -> Option<Option<Bytes>> {
        self.memtables().find_map(|(memtable, commit)| memtable.get(table, id, commit))
    }

    /// A record of the store itself.
    pub(super) fn record(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        if let Some(found) = self.find_in_memory(RECORDS, key) {
            return Ok(found);
        }
        Ok(self.shared.tables.get(key, self.view.tables)?.map(to_bytes))
    }

    /// Every record of the store itself.
    pub(super) fn records(&self) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let stored = self.shared.tables.range(keys::records(), self.view.tables);
        let stored = stored.map(|found| {
            let (key, value) = found?;
            Ok((Bytes::copy_from_slice(&key), to_bytes(value)))
        });
        self.merge(RECORDS, None, Limit::of(usize::MAX), true, stored)
    }

    /// Items behind `after` with their values, up to a number of them, and until they have so many bytes together.
    pub(super) fn scan_bytes(
        &self,
        (file, generation): (FileId, u32),
        after: &[u8],
        limit: Limit,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        if self.pinned {
            let how = (true, Reading::Waiting);
            return Self::waited(self.scan_sources((file, generation), Some(after), limit, how));
        }
        let range = keys::range(file, generation, Some(after));
        let stored = self.shared.tables.range(range.clone(), self.view.tables);
        let stored = stored.map(|found| found.map(|found| item_of(found, true)));
        let found = self.merge((file, generation), Some(after), limit, true, stored);
        found.inspect_err(|_| self.blame_in(&range))
    }

    /// Reads an item again that could not be read, by code that knows in which table that is, and notes it.
    fn blame_for(&self, key: &[u8]) {
        let _ = self.shared.tables.try_get(&self.view.sources, Reading::Waiting, key);
    }

    /// The same for items in a range.
    fn blame_in(&self, range: &Range) {
        let _ = self
            .shared
            .tables
            .try_range(&self.view.sources, Reading::Waiting, range, false)
            .find(Result::is_err);
    }

    /// Ids behind `after`, up to a number of them, beside the gaps of rotten tables.
    pub(super) fn scan_beside(
        &self,
        rotten: &RottenTables,
        table: (FileId, u32),
        after: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let range = keys::range(table.0, table.1, Some(after));
        let stored = self.stored_beside(rotten, &range, keys::id_of);
        Self::waited(self.merge(table, Some(after), Limit::of(limit), false, stored))
    }

    /// Every record of the store that shows beside the gaps of rotten tables.
    pub(super) fn records_beside(&self, rotten: &RottenTables) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let range = keys::records();
        let stored = self.stored_beside(rotten, &range, |key| key);
        Self::waited(self.merge(RECORDS, None, Limit::of(usize::MAX), true, stored))
    }

    fn stored_beside<'s>(
        &'s self,
        rotten: &'s RottenTables,
        range: &'s Range,
        id: fn(&[u8]) -> &[u8],
    ) -> impl Iterator<Item = Result<(Bytes, Bytes), Stop>> + 's {
        let stored = self.view.sources.range_beside(&self.shared.tables.blocks, rotten, range);
        stored.filter_map(move |found| match found {
            Ok((key, value)) => Some(Ok((Bytes::copy_from_slice(id(&key)), value?))),
            Err(stop) => Some(Err(stop)),
        })
    }

    /// Up to `limit` items behind `after`: of each the newest content that a memtable has, or what is stored.
    fn merge<E>(
        &self,
        table: (FileId, u32),
        after: Option<&[u8]>,
        limit: Limit,
        with_values: bool,
        stored: impl Iterator<Item = Result<(Bytes, Bytes), E>>,
    ) -> Result<Vec<(Bytes, Bytes)>, E> {
        let mut stored = stored.peekable();
        let mut found = Found { items: Vec::new(), room: limit };
        let mut after = after.map(Bytes::copy_from_slice);
        while !found.is_full() {
            let step = found.room.items.max(STEP);
            let part = self.in_memory(table, after.as_deref(), step, with_values);
            for (id, value) in part.items {
                while !found.is_full()
                    && let Some(next) =
                        stored.next_if(|next| next.as_ref().is_ok_and(|(other, _)| *other < id))
                {
                    found.push(next?);
                }
                if found.is_full() {
                    return Ok(found.items);
                }
                if let Some(error) = stored.next_if(Result::is_err) {
                    error?;
                }
                let _ = stored.next_if(|next| next.as_ref().is_ok_and(|(other, _)| *other == id));
                if let Some(value) = value {
                    found.push((id, value));
                }
            }
            match part.until {
                Some(until) => after = Some(until),
                None => {
                    while !found.is_full()
                        && let Some(next) = stored.next()
                    {
                        found.push(next?);
                    }
                    return Ok(found.items);
                }
            }
        }
        Ok(found.items)
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

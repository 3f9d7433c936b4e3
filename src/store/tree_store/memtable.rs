//! Updates that are applied and not yet in a table: a hash table over records that are only ever appended.
//!
//! Each record has the number of the commit that made it and of the one that replaced it, so a reader that knows the
//! last commit it may see gets one state, whatever is written meanwhile. The writer appends in slices and publishes
//! the commit's number at the end, so no reader waits for a whole batch. A scan sorts the part of the table that it
//! needs and keeps it for the scans that go on from there.

use super::super::keys;
use crate::base::limits::{STORE_WINDOW_ITEMS, STORE_WINDOWS_MAX};
use crate::base::{FileId, Prng, Seq};
use bytes::Bytes;
use foldhash::fast::FixedState;
use std::cmp::Ordering as Order;
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard};

/// The content of an item as one commit left it; none if it was deleted.
pub(super) type Content<'a> = Option<&'a [u8]>;

/// Small ids and values are kept in pieces of this size (bytes).
const CHUNK: usize = 1 << 20;
/// Values from here on have an allocation of their own, which readers share (bytes).
const LARGE: usize = 4096;
/// Records appended while readers wait.
const SLICE: usize = 1024;
/// Slots of an empty table.
const SLOTS: usize = 1 << 12;
/// Stands for "deleted" in [`Rec::len`].
const DELETED: u32 = u32::MAX;
/// No commit has replaced the record.
const NEVER: u32 = u32::MAX;

/// One update of one item.
#[derive(Clone, Copy)]
struct Rec {
    /// Where the id begins; a small value follows it.
    at: u32,
    hash: u32,
    /// Which file and generation.
    prefix: u32,
    /// Length of the value (bytes), or [`DELETED`].
    len: u32,
    commit: u32,
    /// The commit that replaced it, or [`NEVER`].
    replaced: u32,
    /// The record that this one replaced, plus one; 0 if none.
    older: u32,
    /// Index of a large value.
    large: u32,
    id_len: u8,
}

/// A record on its way to a table.
struct Sorted {
    /// Of the file's generation, in the order of keys.
    rank: u32,
    head: [u64; 2],
    rec: Rec,
}

/// A file's generation, and the bytes that its keys begin with.
struct Prefix {
    table: (FileId, u32),
    key: Vec<u8>,
}

#[derive(Default)]
struct Inner {
    chunks: Vec<Vec<u8>>,
    large: Vec<Bytes>,
    recs: Vec<Rec>,
    /// Index of the newest record of an item plus one; 0 if free. Linear probing.
    slots: Vec<u32>,
    /// Items that have a slot.
    filled: usize,
    prefixes: Vec<Prefix>,
    prefix_of: HashMap<(FileId, u32), u32>,
    large_bytes: usize,
    /// Bytes of records that were replaced.
    dead: usize,
}

/// Records of one file's generation in the order of their ids, up to some id.
struct Window {
    prefix: u32,
    after: Option<Vec<u8>>,
    until: Option<Vec<u8>>,
    /// Records from this one on are not in it.
    end: usize,
    order: Vec<u32>,
}

/// The first items behind some id, in order.
#[derive(Debug, Default)]
pub(super) struct Part {
    /// None: deleted.
    pub(super) items: Vec<(Bytes, Option<Bytes>)>,
    /// There may be more behind this id, which is known up to here only.
    pub(super) until: Option<Bytes>,
}

/// One update on its way in.
pub(super) struct Update<'a> {
    pub(super) file: FileId,
    pub(super) generation: u32,
    pub(super) id: &'a [u8],
    pub(super) value: Content<'a>,
}

/// Where records of the store itself stand: their id is the whole key.
pub(super) const RECORDS: (FileId, u32) = (FileId(0), 0);

/// Updates between two flushes.
pub(super) struct Memtable {
    /// Tells one from the next; grows.
    pub(super) number: u64,
    inner: RwLock<Inner>,
    /// The last commit that readers see.
    visible: AtomicU32,
    /// The same, and the last entries applied by it.
    newest: Mutex<(u32, [Seq; 2])>,
    windows: Mutex<Vec<Window>>,
    hash: FixedState,
}

impl std::fmt::Debug for Memtable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Memtable({})", self.number)
    }
}

impl Memtable {
    /// An empty one; `seed` is not known to those who choose ids.
    pub(super) fn new(number: u64, seed: u64, applied: [Seq; 2]) -> Self {
        Self {
            number,
            inner: RwLock::new(Inner { slots: vec![0; SLOTS], ..Inner::default() }),
            visible: AtomicU32::new(0),
            newest: Mutex::new((0, applied)),
            windows: Mutex::default(),
            hash: FixedState::with_seed(seed),
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Inner> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last commit that may be seen.
    pub(super) fn visible(&self) -> u32 {
        self.visible.load(Ordering::Acquire)
    }

    /// The last commit that may be seen, and the last entries that are applied with it.
    pub(super) fn newest(&self) -> (u32, [Seq; 2]) {
        *self.newest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether nothing was ever committed.
    pub(super) fn is_empty(&self) -> bool {
        self.visible() == 0
    }

    /// What it takes of memory (bytes).
    pub(super) fn bytes(&self) -> usize {
        self.read().bytes()
    }

    /// How much of [`Self::bytes`] holds what was replaced meanwhile.
    pub(super) fn dead_bytes(&self) -> usize {
        self.read().dead
    }

    /// Makes one commit of updates, seen as a whole, which brings the store to `applied`. To be called by one thread.
    pub(super) fn commit<'a>(&self, updates: impl IntoIterator<Item = Update<'a>>, applied: [Seq; 2]) {
        let commit = self.visible() + 1;
        let mut updates = updates.into_iter().peekable();
        while updates.peek().is_some() {
            let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
            for update in updates.by_ref().take(SLICE) {
                inner.append(&self.hash, commit, &update);
            }
        }
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        self.visible.store(commit, Ordering::Release);
        *newest = (commit, applied);
    }

    /// What is known of an item as of `commit`: none if nothing is.
    pub(super) fn get(&self, table: (FileId, u32), id: &[u8], commit: u32) -> Option<Option<Bytes>> {
        let inner = self.read();
        let prefix = *inner.prefix_of.get(&table)?;
        let mut at = inner.slots[inner.find(self.hash(prefix, id), prefix, id)];
        while let Some(index) = at.checked_sub(1) {
            let rec = inner.recs[index_of(index)];
            if rec.commit <= commit {
                return Some(inner.value(&rec));
            }
            at = rec.older;
        }
        None
    }

    fn hash(&self, prefix: u32, id: &[u8]) -> u32 {
        hash_of(&self.hash, prefix, id)
    }

    /// The first items of a file's generation behind `after` as of `commit`, about `limit` of them; values are empty
    /// unless they are asked for.
    pub(super) fn scan(
        &self,
        table: (FileId, u32),
        after: Option<&[u8]>,
        limit: usize,
        commit: u32,
        with_values: bool,
    ) -> Part {
        let inner = self.read();
        let Some(prefix) = inner.prefix_of.get(&table).copied() else { return Part::default() };
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        let known = windows.iter().position(|window| window.serves(prefix, after, inner.recs.len()));
        let window = match known {
            Some(known) => windows.remove(known),
            None => inner.window(prefix, after),
        };
        let part = inner.part(&window, after, limit, commit, with_values);
        windows.push(window);
        if windows.len() > STORE_WINDOWS_MAX {
            windows.remove(0);
        }
        part
    }

    /// Some newest records of a file's generation by chance, `most` of them at most: the key, and whether the item is there
    /// by it. Tells about how many there are as well.
    pub(super) fn sample(
        &self,
        table: (FileId, u32),
        commit: u32,
        most: usize,
        chance: &mut Prng,
    ) -> (u64, Vec<(Vec<u8>, bool)>) {
        let inner = self.read();
        let Some(prefix) = inner.prefix_of.get(&table).copied() else { return (0, Vec::new()) };
        let count = inner.recs.len() as u64;
        let looked = count.min(most as u64);
        let mut found = Vec::new();
        for n in 0..looked {
            let at = if looked == count { n } else { chance.below(count) };
            let Some(rec) = usize::try_from(at).ok().and_then(|at| inner.recs.get(at)) else { continue };
            if rec.prefix == prefix && rec.commit <= commit && commit < rec.replaced {
                let key = [inner.prefixes[index_of(prefix)].key.as_slice(), inner.id(rec)].concat();
                found.push((key, rec.len != DELETED));
            }
        }
        (count * found.len() as u64 / looked.max(1), found)
    }

    /// Records, those that were replaced included.
    pub(super) fn records(&self) -> u64 {
        self.read().recs.len() as u64
    }

    /// Gives the newest content of every item, in the order of their keys. To be called when nothing is committed any
    /// more.
    ///
    /// # Errors
    /// The first of `each`.
    pub(super) fn in_order<E>(
        &self,
        mut each: impl FnMut(&[u8], Content<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let inner = self.read();
        let mut ranks: Vec<usize> = (0..inner.prefixes.len()).collect();
        ranks.sort_by(|a, b| inner.prefixes[*a].key.cmp(&inner.prefixes[*b].key));
        let mut rank_of = vec![0_u32; ranks.len()];
        for (rank, prefix) in (0..).zip(ranks) {
            rank_of[prefix] = rank;
        }
        let newest = inner.recs.iter().filter(|rec| rec.replaced == NEVER);
        // Copies of the records are sorted: to look each of them up would be a miss of the processor's cache.
        let mut order: Vec<Sorted> = Vec::with_capacity(inner.filled);
        order.extend(newest.map(|rec| Sorted {
            rank: rank_of[index_of(rec.prefix)],
            head: head_of(inner.id(rec)),
            rec: *rec,
        }));
        order.sort_unstable_by(|a, b| {
            let ids = || inner.id(&a.rec).cmp(inner.id(&b.rec));
            (a.rank, a.head).cmp(&(b.rank, b.head)).then_with(ids)
        });
        let mut key = Vec::new();
        for Sorted { rec, .. } in order {
            key.clear();
            key.extend_from_slice(&inner.prefixes[index_of(rec.prefix)].key);
            key.extend_from_slice(inner.id(&rec));
            each(&key, inner.content(&rec))?;
        }
        Ok(())
    }

    /// The same content without what was replaced, as one commit of a new table.
    pub(super) fn rebuilt(&self, number: u64) -> Self {
        let inner = self.read();
        let (_, applied) = self.newest();
        let new = Self { number, hash: self.hash.clone(), ..Self::new(number, 0, applied) };
        let newest = inner.recs.iter().filter(|rec| rec.replaced == NEVER);
        let update = |rec: &'_ Rec| {
            let (file, generation) = inner.prefixes[index_of(rec.prefix)].table;
            Update { file, generation, id: inner.id(rec), value: inner.content(rec) }
        };
        new.commit(newest.map(update), applied);
        new
    }
}

impl Inner {
    fn bytes(&self) -> usize {
        let recs = self.recs.len() * size_of::<Rec>() + self.slots.len() * size_of::<u32>();
        self.chunks.len() * CHUNK + recs + self.large_bytes
    }

    fn append(&mut self, hasher: &FixedState, commit: u32, update: &Update<'_>) {
        let prefix = self.prefix((update.file, update.generation));
        let hash = hash_of(hasher, prefix, update.id);
        if (self.filled + 1) * 4 > self.slots.len() * 3 {
            self.grow();
        }
        let slot = self.find(hash, prefix, update.id);
        let older = self.slots[slot];
        match older.checked_sub(1) {
            None => self.filled += 1,
            Some(index) => {
                let old = &mut self.recs[index_of(index)];
                old.replaced = commit;
                let value = if old.len == DELETED { 0 } else { old.len as usize };
                self.dead += size_of::<Rec>() + usize::from(old.id_len) + value;
            }
        }
        let (at, large) = self.store(update);
        let len = update.value.map_or(DELETED, |value| u32::try_from(value.len()).expect("at most a batch"));
        let id_len = u8::try_from(update.id.len()).expect("ids and records' keys are at most 255 bytes");
        self.recs.push(Rec { at, hash, prefix, len, commit, replaced: NEVER, older, large, id_len });
        self.slots[slot] = u32::try_from(self.recs.len()).expect("a table has a limit in bytes");
    }

    /// Copies the bytes of an update; returns where its id is, and the index of a large value.
    fn store(&mut self, update: &Update<'_>) -> (u32, u32) {
        let value = update.value.unwrap_or_default();
        let large = value.len() >= LARGE;
        let here = if large { &[] } else { value };
        let needed = update.id.len() + here.len();
        if self.chunks.last().is_none_or(|chunk| chunk.len() + needed > CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        let before = (self.chunks.len() - 1) * CHUNK;
        let chunk = self.chunks.last_mut().expect("one was made");
        let at = before + chunk.len();
        chunk.extend_from_slice(update.id);
        chunk.extend_from_slice(here);
        let index = self.large.len();
        if large {
            self.large_bytes += value.len();
            self.large.push(Bytes::copy_from_slice(value));
        }
        let small = |n: usize| u32::try_from(n).expect("a table has a limit in bytes");
        (small(at), small(index))
    }

    fn prefix(&mut self, table: (FileId, u32)) -> u32 {
        if let Some(known) = self.prefix_of.get(&table) {
            return *known;
        }
        let mut key = Vec::new();
        if table != RECORDS {
            keys::item(&mut key, table.0, table.1, &[]);
        }
        let new = u32::try_from(self.prefixes.len()).expect("fewer than records");
        self.prefixes.push(Prefix { table, key });
        self.prefix_of.insert(table, new);
        new
    }

    /// The slot of an item, or the free one where it would be.
    fn find(&self, hash: u32, prefix: u32, id: &[u8]) -> usize {
        let mask = self.slots.len() - 1;
        let mut slot = index_of(hash) & mask;
        loop {
            let Some(index) = self.slots[slot].checked_sub(1) else { return slot };
            let rec = &self.recs[index_of(index)];
            if rec.hash == hash && rec.prefix == prefix && self.id(rec) == id {
                return slot;
            }
            slot = (slot + 1) & mask;
        }
    }

    fn grow(&mut self) {
        let mask = self.slots.len() * 2 - 1;
        let mut slots = vec![0; mask + 1];
        for (rec, index) in self.recs.iter().zip(1_u32..).filter(|(rec, _)| rec.replaced == NEVER) {
            let mut slot = index_of(rec.hash) & mask;
            while slots[slot] != 0 {
                slot = (slot + 1) & mask;
            }
            slots[slot] = index;
        }
        self.slots = slots;
    }

    fn bytes_at(&self, at: usize, len: usize) -> &[u8] {
        &self.chunks[at / CHUNK][at % CHUNK..at % CHUNK + len]
    }

    fn id(&self, rec: &Rec) -> &[u8] {
        self.bytes_at(index_of(rec.at), usize::from(rec.id_len))
    }

    fn content(&self, rec: &Rec) -> Content<'_> {
        match rec.len {
            DELETED => None,
            len if len as usize >= LARGE => Some(&self.large[index_of(rec.large)]),
            len => Some(self.bytes_at(index_of(rec.at) + usize::from(rec.id_len), len as usize)),
        }
    }

    fn value(&self, rec: &Rec) -> Option<Bytes> {
        match rec.len {
            DELETED => None,
            len if len as usize >= LARGE => Some(self.large[index_of(rec.large)].clone()),
            _ => self.content(rec).map(Bytes::copy_from_slice),
        }
    }

    fn by_id(&self, a: u32, b: u32) -> Order {
        let id = |index: u32| self.id(&self.recs[index_of(index)]);
        id(a).cmp(id(b)).then(a.cmp(&b))
    }

    /// Records `from ..` of a prefix whose id is behind `after`.
    fn behind<'a>(
        &'a self,
        from: usize,
        prefix: u32,
        after: Option<&'a [u8]>,
    ) -> impl Iterator<Item = u32> + 'a {
        let recs = self.recs.iter().enumerate().skip(from);
        let behind = move |rec: &Rec| rec.prefix == prefix && after.is_none_or(|after| self.id(rec) > after);
        recs.filter(move |(_, rec)| behind(rec)).map(|(index, _)| u32::try_from(index).expect("as appended"))
    }

    /// Sorts the first records behind an id.
    fn window(&self, prefix: u32, after: Option<&[u8]>) -> Window {
        let mut order: Vec<u32> = self.behind(0, prefix, after).collect();
        let mut until = None;
        if order.len() > STORE_WINDOW_ITEMS {
            let (_, last, _) =
                order.select_nth_unstable_by(STORE_WINDOW_ITEMS - 1, |a, b| self.by_id(*a, *b));
            let last = self.id(&self.recs[index_of(*last)]).to_vec();
            // All records of the last item, so that none of it is known in part.
            order = self
                .behind(0, prefix, after)
                .filter(|index| self.id(&self.recs[index_of(*index)]) <= last.as_slice())
                .collect();
            until = Some(last);
        }
        order.sort_unstable_by(|a, b| self.by_id(*a, *b));
        Window { prefix, after: after.map(<[u8]>::to_vec), until, end: self.recs.len(), order }
    }

    fn part(
        &self,
        window: &Window,
        after: Option<&[u8]>,
        limit: usize,
        commit: u32,
        with_values: bool,
    ) -> Part {
        let id = |index: &u32| self.id(&self.recs[index_of(*index)]);
        let seen = |index: &u32| {
            let rec = &self.recs[index_of(*index)];
            rec.commit <= commit && commit < rec.replaced
        };
        let begin = window.order.partition_point(|index| after.is_some_and(|after| id(index) <= after));
        let limit = limit.max(1);
        let mut order: Vec<u32> = window.order[begin..]
            .iter()
            .filter(|index| seen(index))
            .take(limit.saturating_add(1))
            .copied()
            .collect();
        let until = window.until.as_deref();
        let inside = |index: &u32| until.is_none_or(|until| id(index) <= until);
        order.extend(
            self.behind(window.end, window.prefix, after).filter(|index| seen(index) && inside(index)),
        );
        order.sort_unstable_by(|a, b| self.by_id(*a, *b));
        let more = order.len() > limit;
        order.truncate(limit);
        let value = |rec: &Rec| match with_values {
            true => self.value(rec),
            false => (rec.len != DELETED).then(Bytes::new),
        };
        let item = |index: &u32| (Bytes::copy_from_slice(id(index)), value(&self.recs[index_of(*index)]));
        let items: Vec<_> = order.iter().map(item).collect();
        let last = items.last().filter(|_| more).map(|(id, _)| id.clone());
        Part { items, until: last.or_else(|| until.map(Bytes::copy_from_slice)) }
    }
}

impl Window {
    /// Whether it knows what comes behind `after`, but for few records at the end.
    fn serves(&self, prefix: u32, after: Option<&[u8]>, recs: usize) -> bool {
        self.prefix == prefix
            && self.after.as_deref() <= after
            && self.until.as_deref().is_none_or(|until| after.is_none_or(|after| after < until))
            && recs - self.end <= STORE_WINDOW_ITEMS / 4
    }
}

fn hash_of(hasher: &FixedState, prefix: u32, id: &[u8]) -> u32 {
    let hash = hasher.hash_one((prefix, id));
    u32::try_from(hash >> 32).expect("the upper half")
}

/// The first bytes of an id as numbers that sort as they do.
fn head_of(id: &[u8]) -> [u64; 2] {
    let mut head = [0; 16];
    let len = id.len().min(head.len());
    head[..len].copy_from_slice(&id[..len]);
    let (first, second) = head.split_at(8);
    [first, second].map(|half| u64::from_be_bytes(half.try_into().expect("8 bytes")))
}

fn index_of(index: u32) -> usize {
    usize::try_from(index).expect("addresses have 64 bits")
}

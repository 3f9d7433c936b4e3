//! The store on disk: a memtable over a log-structured merge tree, see `keys.rs` for what is in it.
//!
//! - Invariant: items, definitions, the purge list, where volumes stand and the last entries applied become visible, and
//!   durable, in one atomic step for whole batches. After a crash the store is at the exact batch of its last flush, and
//!   the journals are given again from there.
//! - Invariant: there is no log here: our journal is the write-ahead log. What is applied is in memory until a flush, at
//!   a checkpoint or when the memtable is full.
//! - Invariant: what is read is checked. Rot is refused by name; nothing is cut.
//! - Boundary: no sync is ever tried again after it failed; the store takes nothing more until the process restarts. What
//!   only ran short of room, descriptors or memory is done again: what it was to write is still in memory.
//!
//! Memory: one memtable that is filled and two that are written, and the cache of blocks.

mod archive;
mod blocks;
mod copy;
mod estimate;
mod flush;
mod import;
mod memtable;
mod moment;
mod read;
mod rot;
mod scrub;
mod tables;

pub use blocks::CachedRead;
pub use copy::{CopyReader, VolumeRead};
pub use moment::{Moment, MomentSource, ReadOnce};
pub use read::{Snapshot, StoreReader};
pub use scrub::{TableFile, TableSum};

use super::due::{batches_due, damaged_entry};
use super::namespace::{Namespace, NamespaceError, Outcome};
use super::volumes::{BadPlace, Check, VolumeStore};
use super::{RottenItems, SlowSync, StoreError, StoreWrite, keys};
use crate::base::limits::STORE_MEMTABLE;
use crate::base::{Fault, FileId, JournalKind, Ordinal, Seq};
use crate::format::DecodeError;
use crate::format::batch::Batch;
use crate::format::chunk::Progress;
use crate::format::dptr::DptrKind;
use crate::format::entry::{Entry, EntryKind};
use crate::format::rewind::Prepared;
use bytes::Bytes;
use copy::CopiedBlocks;
use flush::{Shared, Told};
use memtable::{Memtable, RECORDS, Update};
use rot::RottenTables;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

/// A store as found on disk.
#[derive(Debug)]
pub struct Opened {
    /// The one writer.
    pub writer: StoreWriter,
    /// Reads; clone it for other threads.
    pub reader: StoreReader,
    /// The namespace as applied.
    pub namespace: Namespace,
    /// The last entries applied, by [`JournalKind::index`].
    pub applied: [Seq; 2],
    /// Where the journals have to be given again from, at most `applied`: volumes may lack what came after.
    pub replay_from: [Seq; 2],
    /// How far the copy is that the store was given, if it ever was given one.
    pub copied: Option<Progress>,
    /// The rewind that was agreed on, as long as it is not done.
    pub prepared: Option<Prepared>,
}

/// Opens stores.
#[derive(Debug)]
pub struct TreeStore;

impl TreeStore {
    /// Opens the store of `node` in `dir`, with its volumes in `volumes`, or makes an empty one. A store of version 0.1
    /// is converted first.
    ///
    /// # Durability
    /// A store that was made is durable when this returns, but for the name of `dir` in its parent.
    ///
    /// # Errors
    /// [`StoreError::Disk`], also when another process has it open; [`StoreError::Damaged`] when it cannot be what was
    /// written, or is another node's.
    pub fn open(dir: &Path, volumes: &Path, node: Ordinal) -> Result<Opened, StoreError> {
        let (tables, lock) = import::open(dir, node)?;
        let seed = RandomState::new().hash_one(std::process::id());
        let shared = Shared::new(tables, Memtable::new(1, seed, [Seq(0); 2]))?;
        let reader = StoreReader::new(Arc::clone(&shared));
        let missing = || damaged("its records", "they are missing");
        let state = load(&Snapshot::newest(&shared), node)?.ok_or_else(missing)?;
        shared.begin_at(state.applied);
        shared.replace_active(Memtable::new(1, seed, state.applied));
        let namespace = state.namespace.clone();
        let applied = state.applied;
        let mut volumes = VolumeStore::open(volumes, node, state.dirty_from, applied)?;
        volumes.set_copying(state.copied.as_ref().is_some_and(Progress::is_under_way));
        let replay_from = volumes.submitted();
        let (copied, prepared) = (state.copied.clone(), state.prepared.clone());
        let threads = shared.start().map_err(disk("starting the threads of the store"))?;
        let writer = StoreWriter {
            shared,
            node,
            seed,
            frozen_at: (applied, state.dirty_from),
            state,
            volumes,
            failed: None,
            freezes_late: false,
            dropped: BTreeMap::new(),
            purged: None,
            copied_blocks: CopiedBlocks::default(),
            takes_every_copy: false,
            rotten: RottenTables::new(),
            threads,
            lock,
        };
        Ok(Opened { writer, reader, namespace, applied, replay_from, copied, prepared })
    }
}

/// What the writer knows of what is stored.
#[derive(Debug)]
struct State {
    namespace: Namespace,
    applied: [Seq; 2],
    purge: BTreeSet<(FileId, u32)>,
    /// As stored; see [`keys::VOLUMES`].
    dirty_from: [Option<Seq>; 2],
    /// As stored; see [`keys::COPY`].
    copied: Option<Progress>,
    /// As stored; see [`keys::REWIND`].
    prepared: Option<Prepared>,
}

/// Writes of the store; there is one, on the apply thread. Every call may block on the disk.
pub struct StoreWriter {
    shared: Arc<Shared>,
    node: Ordinal,
    seed: u64,
    state: State,
    /// What the last frozen memtable brings: last entries applied, and where volumes stand.
    frozen_at: ([Seq; 2], [Option<Seq>; 2]),
    volumes: VolumeStore,
    /// What is on disk is unknown; only a restart of the process reads it afresh.
    failed: Option<Fault>,
    /// The checkpoint that was begun writes everything at its end.
    freezes_late: bool,
    /// Files that are gone, and the memtable that says so: until it is in tables, a crash brings them back.
    dropped: BTreeMap<FileId, u64>,
    /// The last item that was purged, so that the next step need not look for it.
    purged: Option<((FileId, u32), Bytes)>,
    /// What a copy is ahead of that by blocks of volumes.
    copied_blocks: CopiedBlocks,
    /// See [`StoreWriter::take_every_copy`].
    takes_every_copy: bool,
    /// Tables that cannot be read everywhere.
    rotten: RottenTables,
    threads: Vec<JoinHandle<()>>,
    /// Held as long as anything may be written.
    lock: File,
}

impl std::fmt::Debug for StoreWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StoreWriter(applied {:?}, failed {:?})", self.state.applied, self.failed)
    }
}

impl Drop for StoreWriter {
    fn drop(&mut self) {
        self.shared.stop();
        for thread in self.threads.drain(..) {
            // A panic has ended the process already.
            let _ = thread.join();
        }
        // A child that another thread is just starting has the descriptor, and with it the lock, until it runs its own
        // program.
        let _ = self.lock.unlock();
    }
}

/// An update on its way into a commit, in the form that it has in a memtable.
struct Staged<'a> {
    table: (FileId, u32),
    id: std::borrow::Cow<'a, [u8]>,
    value: Option<std::borrow::Cow<'a, [u8]>>,
}

impl Staged<'_> {
    fn record(key: &[u8], value: Option<Vec<u8>>) -> Self {
        Self { table: RECORDS, id: key.to_vec().into(), value: value.map(Into::into) }
    }

    fn update(&self) -> Update<'_> {
        let (file, generation) = self.table;
        Update { file, generation, id: &self.id, value: self.value.as_deref() }
    }
}

impl StoreWriter {
    /// Keeps so many files of volumes open for writing from now on.
    pub fn keep_volumes_open(&mut self, most: usize) {
        self.volumes.keep_open(most);
    }

    /// Tells which page cache this process writes volumes into, by a word that no other one has. If it is that of the
    /// process before, all that is not under way has to match its checksums from the beginning on.
    ///
    /// # Errors
    /// [`StoreError::Disk`].
    pub fn volumes_live_in(&mut self, life: &str) -> Result<(), StoreError> {
        self.volumes.lives_in(life)
    }

    /// From now on a copy of a file in the journal begins without what the file had, also where it is this node's own: what
    /// is applied came from elsewhere.
    pub fn take_every_copy(&mut self) {
        self.takes_every_copy = true;
        self.volumes.take_every_copy();
    }

    /// The generation of a file's items; none if there is no such file.
    #[must_use]
    pub fn generation(&self, file: FileId) -> Option<u32> {
        self.state.namespace.file(file).map(|info| info.dptr.generation)
    }

    /// The last entry of each journal that is applied.
    #[must_use]
    pub fn applied(&self) -> [Seq; 2] {
        self.state.applied
    }

    /// Deletes up to `max_items` items of dropped files and generations; returns whether there are more. To be called
    /// when there is nothing to apply. No read ever sees them, deleted or not.
    ///
    /// # Errors
    /// [`StoreError::Disk`].
    pub fn purge_step(&mut self, max_items: usize) -> Result<bool, StoreError> {
        self.ready()?;
        self.volumes.rests();
        let Some(table) = self.state.purge.first().copied() else { return Ok(false) };
        self.make_room()?;
        let max_items = max_items.max(1);
        let after = self.purged.as_ref().filter(|(of, _)| *of == table).map(|(_, id)| id.clone());
        let snapshot = Snapshot::newest(&self.shared);
        let items = self.ids_behind(&snapshot, table, after.as_deref().unwrap_or_default(), max_items)?;
        let done = items.len() < max_items;
        let mut staged: Vec<_> =
            items.iter().map(|(id, _)| Staged { table, id: id.as_ref().into(), value: None }).collect();
        if done {
            staged.push(Staged::record(&keys::purge(table.0, table.1), None));
        }
        self.commit(&staged);
        self.purged = items.last().map(|(id, _)| (table, id.clone()));
        if done {
            self.state.purge.remove(&table);
        }
        Ok(!self.state.purge.is_empty())
    }

    /// After a failure in the volumes: a failed sync is for good.
    fn heard_of_sync(&mut self) {
        if let Some(fault) = self.volumes.failed_sync() {
            self.failed = Some(fault.at_sync());
        }
    }

    fn ready(&self) -> Result<(), StoreError> {
        match self.failed {
            None => Ok(()),
            Some(fault) => Err(StoreError::Disk { doing: "using the store, which failed before", fault }),
        }
    }

    /// Decides what a failure of the store's threads means for the next call.
    fn heard(&mut self, result: Result<(), Told>) -> Result<(), StoreError> {
        result.map_err(|told| {
            if !told.passes {
                self.failed = Some(match told.error {
                    StoreError::Disk { fault, .. } => fault,
                    _ => UNCLEAN,
                });
            }
            told.error
        })
    }

    /// Freezes the memtable when it is full; waits while the store's threads are behind.
    fn make_room(&mut self) -> Result<(), StoreError> {
        let result = self.shared.wait_for_room();
        self.heard(result)?;
        let active = Arc::clone(&self.shared.view().active);
        if active.bytes() < STORE_MEMTABLE {
            return Ok(());
        }
        if active.dead_bytes() > STORE_MEMTABLE / 2 {
            // Few items that change often: there is no use in writing them yet.
            self.shared.replace_active(active.rebuilt(active.number));
        } else {
            self.freeze();
        }
        Ok(())
    }

    /// Has what is in memory written to tables; returns the number of the memtable, none if nothing changed.
    fn freeze(&mut self) -> Option<u64> {
        let active = Arc::clone(&self.shared.view().active);
        let brings = (self.state.applied, self.volumes.dirty_from());
        let copied = self.copied_blocks.synced.take();
        if active.is_empty() && brings == self.frozen_at && copied.is_none() {
            return None;
        }
        let (applied, dirty_from) = brings;
        let mut staged = vec![
            Staged::record(&keys::APPLIED, Some(keys::applied_value(applied))),
            Staged::record(&keys::VOLUMES, Some(keys::volumes_value(dirty_from))),
        ];
        staged.extend(copied.iter().flat_map(copy::staged_progress));
        self.commit(&staged);
        self.state.dirty_from = dirty_from;
        if let Some(copied) = copied {
            self.copied_up_to(copied);
        }
        self.frozen_at = brings;
        self.shared.freeze(applied, Memtable::new(active.number + 1, self.seed, applied));
        Some(active.number)
    }

    fn commit(&self, staged: &[Staged<'_>]) {
        self.shared.view().active.commit(staged.iter().map(Staged::update), self.state.applied);
    }

    /// Puts everything that batches change into `staged`, in order, and the definitions into the namespace.
    fn stage<'a>(
        &mut self,
        journal: JournalKind,
        due: &[&'a Batch],
        staged: &mut Vec<Staged<'a>>,
    ) -> Result<(), StoreError> {
        for (_, entry) in due.iter().flat_map(|batch| batch.entries()) {
            let value = match entry.kind {
                EntryKind::Put => Some(entry.value.into()),
                EntryKind::Delete => None,
                kind if kind.changes_blocks() => continue,
                _ => {
                    self.stage_definition(journal, &entry, staged)?;
                    continue;
                }
            };
            // Of a file that is gone the last updates may come late, out of the other journal.
            if let Some(info) = self.state.namespace.file(entry.file) {
                let table = (entry.file, info.dptr.generation);
                staged.push(Staged { table, id: entry.id.into(), value });
            }
        }
        Ok(())
    }

    fn stage_definition(
        &mut self,
        journal: JournalKind,
        entry: &Entry<'_>,
        staged: &mut Vec<Staged<'_>>,
    ) -> Result<(), StoreError> {
        let namespace = &mut self.state.namespace;
        // No node has that number: whichever began a copy of a file, its content comes with the entries.
        let node = if self.takes_every_copy { Ordinal(u8::MAX) } else { self.node };
        let out: Outcome = namespace.apply(node, journal, entry).map_err(damaged_entry)?;
        for id in out.records {
            staged.push(Staged::record(&keys::dptr(id), namespace.record(id)));
        }
        if out.meta {
            staged.push(Staged::record(&keys::NAMESPACE, Some(namespace.meta())));
        }
        let number = self.shared.view().active.number;
        for (file, generation) in out.dropped {
            staged.push(Staged::record(&keys::purge(file, generation), Some(Vec::new())));
            self.state.purge.insert((file, generation));
            self.dropped.insert(file, number);
        }
        Ok(())
    }

    /// Takes back what staging did to the state: that is read again as it was committed.
    fn take_back(&mut self) -> Result<(), StoreError> {
        let missing = || damaged("its records", "they are gone");
        let (applied, dirty_from) = (self.state.applied, self.state.dirty_from);
        let loaded = load(&Snapshot::newest(&self.shared), self.node);
        self.state = loaded.and_then(|state| state.ok_or_else(missing)).inspect_err(|_| {
            self.failed = Some(UNCLEAN);
        })?;
        (self.state.applied, self.state.dirty_from) = (applied, dirty_from);
        self.volumes.fell_back(applied);
        Ok(())
    }
}

impl StoreWrite for StoreWriter {
    fn apply(&mut self, journal: JournalKind, batches: &[Batch]) -> Result<(), StoreError> {
        self.ready()?;
        // First the volumes: what a crash leaves of them without the rest is written again by the replay.
        self.volumes.apply(journal, batches).inspect_err(|_| self.heard_of_sync())?;
        let due = batches_due(journal, self.state.applied[journal.index()], batches)?;
        let Some(last) = due.last().map(|batch| batch.header().last_seq()) else { return Ok(()) };
        self.make_room()?;
        let mut staged = Vec::new();
        if let Err(error) = self.stage(journal, &due, &mut staged) {
            self.take_back()?;
            return Err(error);
        }
        self.state.applied[journal.index()] = last;
        self.commit(&staged);
        Ok(())
    }

    fn begin_checkpoint(&mut self) -> Option<SlowSync> {
        let volumes = self.volumes.begin_sync();
        self.copied_blocks.begin();
        if self.failed.is_some() {
            return volumes;
        }
        // Once the volumes are synced, where they stand is to be written too: little waits for that.
        self.freezes_late = volumes.is_some() && self.shared.view().active.bytes() < FLUSH_AT_ONCE;
        let frozen = if self.freezes_late { None } else { self.freeze() };
        // A failure is heard of at the end of the checkpoint.
        let flush = frozen.map(|number| (Arc::clone(&self.shared), number));
        if volumes.is_none() && flush.is_none() {
            return None;
        }
        Some(Box::new(move || {
            if let Some((shared, number)) = flush {
                let _ = shared.wait_flushed(number);
            }
            volumes.map_or(Ok(()), |sync| sync())
        }))
    }

    fn checkpoint_failed(&mut self, fault: Fault) {
        // What a failed sync left on disk is unknown, whatever a second one says.
        self.failed = Some(fault.at_sync());
    }

    fn read_volume(&mut self, file: FileId, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        self.volumes.read(file, offset, len)
    }

    fn allocation(&mut self, file: FileId, offset: u64, len: u64) -> Result<Vec<(u64, bool)>, StoreError> {
        self.volumes.allocation(file, offset, len)
    }

    fn replayed(&mut self) {
        self.volumes.replayed();
    }

    fn check_volume(&mut self, file: FileId, offset: u64, len: u64, check: Check) -> Result<(), StoreError> {
        self.ready()?;
        self.volumes.check(file, offset, len, check).inspect_err(|_| self.heard_of_sync())
    }

    fn scrubbed_volume(&mut self, file: FileId) -> Result<(), StoreError> {
        self.ready()?;
        self.volumes.scrubbed(file).inspect_err(|_| self.heard_of_sync())
    }

    fn take_bad_places(&mut self) -> Vec<BadPlace> {
        self.volumes.take_bad_places()
    }

    fn take_rotten_items(&mut self) -> Vec<RottenItems> {
        self.find_rotten()
    }

    fn tell_rotten_again(&mut self) {
        self.note_rotten_again();
    }

    fn checkpoint(&mut self) -> Result<[Seq; 2], StoreError> {
        self.ready()?;
        let begun = self.volumes.is_begun();
        let dirty_from = self.volumes.synced(self.state.applied).inspect_err(|error| {
            let fault = if let StoreError::Disk { fault, .. } = error { *fault } else { EIO };
            self.failed = Some(fault.at_sync());
        })?;
        // What was applied since the checkpoint began need not be part of it; but no journal is let go before the store
        // says that volumes do not need it.
        self.copied_blocks.synced(begun);
        if !begun
            || self.freezes_late
            || dirty_from != self.frozen_at.1
            || self.copied_blocks.synced.is_some()
        {
            let _ = self.freeze();
        }
        let last = self.shared.view().active.number - 1;
        let result = self.shared.wait_flushed(last);
        self.heard(result)?;
        let flushed = self.shared.flushed();
        self.dropped.retain(|_, number| *number > flushed);
        let (namespace, dropped) = (&self.state.namespace, &self.dropped);
        let volume = |file| namespace.file(file).is_some_and(|info| info.dptr.kind == DptrKind::Blocks);
        self.volumes.remove_strays(self.state.applied, |file| volume(file) || dropped.contains_key(&file));
        Ok(self.volumes.covered(self.shared.durable()))
    }
}

/// A checkpoint begins to write a memtable of this size before it has synced the volumes (bytes).
const FLUSH_AT_ONCE: usize = 4 << 20;
const EIO: Fault = Fault::Errno(5);
/// EUCLEAN: something has to be repaired.
const UNCLEAN: Fault = Fault::Errno(117);

/// Reads any bytes as the ends of the tree's files.
pub fn fuzz_archive(bytes: &[u8]) {
    archive::fuzz(bytes);
}

/// Reads every record; none if there is nothing at all.
fn load(snapshot: &Snapshot, node: Ordinal) -> Result<Option<State>, StoreError> {
    let (mut format, mut applied, mut meta, mut dirty_from) = (None, None, None, [None; 2]);
    let (mut records, mut purge, mut copied, mut prepared) = (Vec::new(), BTreeSet::new(), None, None);
    for (key, value) in snapshot.records()? {
        match keys::Record::decode(&key).map_err(damaged_record)? {
            keys::Record::Format => format = Some(keys::read_format(&value).map_err(damaged_record)?),
            keys::Record::Applied => applied = Some(keys::read_applied(&value).map_err(damaged_record)?),
            keys::Record::Namespace => meta = Some(value),
            keys::Record::VolumeStore => dirty_from = keys::read_volumes(&value).map_err(damaged_record)?,
            keys::Record::Copy => copied = Some(Progress::decode(&value).map_err(damaged_record)?),
            keys::Record::Rewind => prepared = Some(Prepared::decode(&value).map_err(damaged_record)?),
            keys::Record::Dptr(id) => records.push((id, value)),
            keys::Record::Purge(file, generation) => {
                purge.insert((file, generation));
            }
        }
    }
    let (Some(found), Some(applied), Some(meta)) = (format, applied, meta) else {
        if format.is_none() && applied.is_none() && records.is_empty() {
            return Ok(None);
        }
        return Err(damaged("its records", "some are missing"));
    };
    if found != node {
        return Err(damaged("its format record", "it is the store of the other node"));
    }
    let borrowed = records.iter().map(|(id, value)| (*id, value.as_ref()));
    let namespace = Namespace::from_records(&meta, borrowed)
        .map_err(|error: NamespaceError| damaged("its namespace", &error.to_string()))?;
    Ok(Some(State { namespace, applied, purge, dirty_from, copied, prepared }))
}

/// The records of a store in which nothing is, in the order of their keys.
fn first_records(node: Ordinal) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let namespace = Namespace::new();
    let mut records = BTreeMap::from([
        (keys::FORMAT.to_vec(), keys::format_value(node)),
        (keys::APPLIED.to_vec(), keys::applied_value([Seq(0); 2])),
        (keys::NAMESPACE.to_vec(), namespace.meta()),
    ]);
    for (id, _) in namespace.accounts() {
        records.insert(keys::dptr(id), namespace.record(id).unwrap_or_default());
    }
    records
}

fn disk(doing: &'static str) -> impl Fn(std::io::Error) -> StoreError {
    move |error| StoreError::Disk { doing, fault: Fault::from_io(&error) }
}

fn damaged_record(error: DecodeError) -> StoreError {
    damaged("a record", &error.to_string())
}

fn damaged(what: &'static str, why: &str) -> StoreError {
    StoreError::Damaged { what, why: why.to_owned() }
}

#[cfg(test)]
mod blocks_tests;
#[cfg(test)]
mod damage_tests;
#[cfg(test)]
mod estimate_tests;
#[cfg(test)]
mod import_tests;
#[cfg(test)]
mod memtable_tests;
#[cfg(test)]
mod sync_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod volume_tests;

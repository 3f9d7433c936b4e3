//! The store on disk, on the embedded engine `fjall`: one keyspace, see `keys.rs` for what is in it.
//!
//! - Invariant: items, definitions, the purge list and the last entries applied change in one atomic commit of the
//!   engine for one or more whole batches. After a kill or a power loss the store is at some exact batch boundary, not
//!   older than the last checkpoint.
//! - Invariant: nothing is synced but by [`StoreWrite::checkpoint`] (and by the engine before it writes a table): our
//!   journal is the write-ahead log.
//! - Boundary: what is told as applied is in the kernel's hands, so opening the engine again finds it.
//! - Boundary: no fsync is ever tried again after it failed; the store stays failed until the process restarts. What only
//!   ran short of room, descriptors or memory is done again; the engine is opened anew for that, and all that its own
//!   journal held then is written to tables before anything of it counts as durable.
//!
//! Memory: block cache 32 MiB and at most four write buffers. The engine would let the one in use grow for as long as
//! its threads are behind, and would wait for ever when they have failed; so the writer looks after both itself.

use super::memory::{batches_due, damaged_entry};
use super::namespace::{Namespace, NamespaceError, Outcome};
use super::volumes::VolumeStore;
use super::{SlowSync, StoreError, StoreRead, StoreWrite, keys, torn_tail};
use crate::base::limits::STORE_TABLES_MAX;
use crate::base::{Fault, FileId, JournalKind, Ordinal, Seq};
use crate::format::DecodeError;
use crate::format::batch::Batch;
use crate::format::dptr::DptrKind;
use crate::format::entry::{Entry, EntryKind};
use bytes::Bytes;
use fjall::config::CompressionPolicy;
use fjall::{
    AbstractTree, CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable, Snapshot,
};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

/// Cached blocks of tables (bytes).
const CACHE: u64 = 32 << 20;
/// One write buffer (bytes). The next write begins a new one.
const WRITE_BUFFER: u64 = 24 << 20;
/// Full write buffers that wait to be written to tables; with so many the writer waits.
const BUFFERS_WAITING: usize = 2;
/// Tables that wait to be merged; with so many the writer waits. The engine's own limits are 4 and 30.
const TABLES_WAITING: usize = 20;
/// The writer looks this often whether it may go on.
const WAIT: Duration = Duration::from_millis(1);
/// A commit takes whole batches until it has this much (bytes).
const COMMIT: usize = 16 << 20;
/// The engine's own journal files together (bytes); a file is 64 MB.
const ENGINE_JOURNAL: u64 = 128 << 20;
/// Threads that flush and compact.
const WORKERS: usize = 1;
/// An engine that fails and cannot say why is opened again so often before that is final; a checkpoint begins anew.
const REOPENS_MAX: u32 = 64;
/// Values longer than this are handed out without a copy (bytes).
const SHARE_FROM: usize = 4096;
/// What has to fit on the disk for a failure not to be blamed on its being full (bytes).
const PROBE: usize = 1 << 20;

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
    /// What a power loss had torn of the engine's journal and was cut (bytes); our journal has it.
    pub cut_bytes: u64,
}

/// Opens stores.
#[derive(Debug)]
pub struct FjallStore;

impl FjallStore {
    /// Opens the store of `node` in `dir`, with its volumes in `volumes`, or makes an empty one.
    ///
    /// # Durability
    /// A store that was made is durable when this returns, but for the name of `dir` in its parent.
    ///
    /// # Errors
    /// [`StoreError::Disk`], also when another process has it open; [`StoreError::Damaged`] when it cannot be what was
    /// written, or is another node's.
    pub fn open(dir: &Path, volumes: &Path, node: Ordinal) -> Result<Opened, StoreError> {
        let (handle, cut_bytes) = open_engine(dir)?;
        let state = match load(&handle, node)? {
            Some(state) => state,
            None => create(&handle, node)?,
        };
        let namespace = state.namespace.clone();
        let applied = state.applied;
        let volumes = VolumeStore::open(volumes, node, state.volumes_since, applied)?;
        let replay_from = volumes.given();
        let handle = Arc::new(RwLock::new(Some(handle)));
        let reader = StoreReader { handle: handle.clone(), pin: Mutex::new(Pin::None) };
        let (dir, key) = (dir.to_owned(), Vec::new());
        let writer = StoreWriter {
            handle,
            dir,
            node,
            state,
            shown: applied,
            volumes,
            failed: None,
            rewrite: false,
            reopened: 0,
            key,
        };
        Ok(Opened { writer, reader, namespace, applied, replay_from, cut_bytes })
    }
}

struct Handle {
    db: Database,
    items: Keyspace,
    /// Tells one opening of the engine from the next.
    opening: Arc<()>,
}

impl Handle {
    /// Begins a new write buffer when the one in use is full; waits while the engine's threads are behind.
    fn make_room(&self) -> fjall::Result<()> {
        while self.items.tree.sealed_memtable_count() >= BUFFERS_WAITING
            || self.items.tree.l0_run_count() >= TABLES_WAITING
        {
            // Fails if the threads have failed: nothing would ever become free then.
            self.db.persist(PersistMode::Buffer)?;
            std::thread::sleep(WAIT);
        }
        if self.items.tree.active_memtable().size() >= WRITE_BUFFER {
            self.items.rotate_memtable()?;
        }
        Ok(())
    }

    /// Makes the engine's journal durable.
    fn sync(&self) -> fjall::Result<()> {
        #[cfg(test)]
        super::volumes::testing::sync_engine()?;
        self.db.persist(PersistMode::SyncAll)
    }

    /// Writes all that is in memory to tables, which the engine syncs itself.
    fn write_tables(&self) -> fjall::Result<()> {
        self.items.rotate_memtable()?;
        while self.items.tree.sealed_memtable_count() > 0 {
            // Fails if the threads have failed.
            self.db.persist(PersistMode::Buffer)?;
            std::thread::sleep(WAIT);
        }
        Ok(())
    }
}

/// None after a failure, until the engine could be opened again.
type SharedHandle = Arc<RwLock<Option<Handle>>>;

/// What the writer knows of what is stored.
#[derive(Debug)]
struct State {
    namespace: Namespace,
    applied: [Seq; 2],
    purge: BTreeSet<(FileId, u32)>,
    /// As stored; see [`keys::VOLUMES`].
    volumes_since: [Option<Seq>; 2],
}

/// Reads of the store, from any thread. Each call sees a state between two batches.
pub struct StoreReader {
    handle: SharedHandle,
    /// Of this reader alone, not of its clones.
    pin: Mutex<Pin>,
}

/// Which state reads see.
enum Pin {
    /// The newest.
    None,
    /// That of the first read to come.
    Wanted,
    /// This one, of that opening of the engine.
    Taken(Arc<()>, Snapshot),
}

impl std::fmt::Debug for StoreReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StoreReader")
    }
}

impl StoreReader {
    fn with<T>(&self, read: impl FnOnce(&Snapshot, &Keyspace) -> fjall::Result<T>) -> Result<T, StoreError> {
        let guard = self.handle.read().unwrap_or_else(PoisonError::into_inner);
        let handle = guard.as_ref().ok_or(StoreError::Closed)?;
        let snapshot = self.snapshot(handle);
        read(&snapshot, &handle.items).map_err(|error| engine_error("reading the store", error))
    }

    fn snapshot(&self, Handle { db, opening, .. }: &Handle) -> Snapshot {
        let mut pin = self.pin.lock().unwrap_or_else(PoisonError::into_inner);
        match &*pin {
            Pin::None => db.snapshot(),
            // The numbers of an engine that was closed meanwhile mean nothing to the next.
            Pin::Taken(of, snapshot) if Arc::ptr_eq(of, opening) => snapshot.clone(),
            Pin::Wanted | Pin::Taken(..) => {
                let snapshot = db.snapshot();
                *pin = Pin::Taken(Arc::clone(opening), snapshot.clone());
                snapshot
            }
        }
    }

    fn set_pin(&self, pin: Pin) {
        *self.pin.lock().unwrap_or_else(PoisonError::into_inner) = pin;
    }
}

impl Clone for StoreReader {
    fn clone(&self) -> Self {
        Self { handle: Arc::clone(&self.handle), pin: Mutex::new(Pin::None) }
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
        let mut key = Vec::with_capacity(12 + id.len());
        keys::item(&mut key, file, generation, id);
        self.with(|snapshot, items| Ok(snapshot.get(items, &key)?.map(to_bytes)))
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
        self.with(|snapshot, items| {
            let mut found = Vec::new();
            for guard in snapshot.range(items, range).take(limit) {
                let (key, value) = if with_values {
                    guard.into_inner().map(|(key, value)| (key, to_bytes(value)))?
                } else {
                    (guard.key()?, Bytes::new())
                };
                found.push((Bytes::copy_from_slice(keys::id_of(&key)), value));
            }
            Ok(found)
        })
    }
}

/// Writes of the store; there is one, on the apply thread. Every call may block on the disk.
pub struct StoreWriter {
    handle: SharedHandle,
    dir: PathBuf,
    node: Ordinal,
    state: State,
    /// What was told as applied.
    shown: [Seq; 2],
    volumes: VolumeStore,
    failed: Option<Failure>,
    /// The engine was opened again: what its journal holds may have failed to reach the disk, which nobody would be told
    /// a second time.
    rewrite: bool,
    /// So often since the last checkpoint.
    reopened: u32,
    key: Vec<u8>,
}

/// What a failed call leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    /// The engine has to be opened again, from what it stored.
    Reopen,
    /// What is on disk is unknown; only a restart of the process reads it afresh.
    Final(Fault),
}

impl std::fmt::Debug for StoreWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StoreWriter(applied {:?}, failed {:?})", self.state.applied, self.failed)
    }
}

impl StoreWriter {
    /// Keeps so many files of volumes open for writing from now on.
    pub fn keep_volumes_open(&mut self, most: usize) {
        self.volumes.keep_open(most);
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
        let Some((file, generation)) = self.state.purge.first().copied() else { return Ok(false) };
        let result = self.purge_some(file, generation, max_items.max(1));
        let done = self.outcome("purging the store", result)?;
        if done {
            self.state.purge.remove(&(file, generation));
        }
        Ok(!self.state.purge.is_empty())
    }

    fn purge_some(&self, file: FileId, generation: u32, max_items: usize) -> fjall::Result<bool> {
        let guard = self.handle.read().unwrap_or_else(PoisonError::into_inner);
        let Some(handle) = guard.as_ref() else { return Err(fjall::Error::Poisoned) };
        let mut batch = handle.db.batch();
        let range = keys::range(file, generation, None);
        for found in handle.db.snapshot().range(&handle.items, range).take(max_items) {
            batch.remove(&handle.items, found.key()?);
        }
        let done = batch.len() < max_items;
        if done {
            batch.remove(&handle.items, keys::purge(file, generation));
        }
        handle.make_room()?;
        batch.commit()?;
        Ok(done)
    }

    /// Opens the engine again after a failure that allows it.
    fn ready(&mut self) -> Result<(), StoreError> {
        match self.failed {
            None => return Ok(()),
            Some(Failure::Final(fault)) => {
                return Err(StoreError::Disk { doing: "using the store, which failed before", fault });
            }
            Some(Failure::Reopen) => {}
        }
        let mut guard = self.handle.write().unwrap_or_else(PoisonError::into_inner);
        // The engine holds a lock on its directory until it is gone.
        drop(guard.take());
        let (handle, _) = open_engine(&self.dir)?;
        let missing = || damaged("its records", "they are gone");
        self.state = load(&handle, self.node)?.ok_or_else(missing)?;
        *guard = Some(handle);
        self.volumes.fell_back(self.state.applied);
        self.rewrite = true;
        self.failed = None;
        if self.state.applied.iter().zip(self.shown).any(|(applied, shown)| *applied < shown) {
            self.failed = Some(Failure::Final(EIO));
            return Err(damaged("its engine's journal", "it lost what was applied; a restart replays that"));
        }
        Ok(())
    }

    /// Decides what a failure of the engine means for the next call.
    fn outcome<T>(&mut self, doing: &'static str, result: fjall::Result<T>) -> Result<T, StoreError> {
        result.map_err(|error| {
            // The engine does not say why its threads failed.
            let unsaid = matches!(error, fjall::Error::Poisoned);
            let mut error = engine_error(doing, error);
            if let StoreError::Disk { fault, .. } = &mut error {
                if !fault.is_shortage() {
                    *fault = shortage_in(&self.dir).unwrap_or(*fault);
                }
                self.failed = Some(if fault.is_shortage() {
                    Failure::Reopen
                } else if unsaid && self.reopened < REOPENS_MAX {
                    self.reopened += 1;
                    Failure::Reopen
                } else {
                    Failure::Final(*fault)
                });
            }
            error
        })
    }

    /// Decides what the end of a sync means for the next call.
    fn synced(&mut self, result: fjall::Result<()>) -> Result<(), StoreError> {
        match result {
            // The engine's threads failed; its journal was not even tried.
            Err(fjall::Error::Poisoned) => self.outcome("syncing the store", result),
            Err(error) => {
                let error = engine_error("syncing the store", error);
                // What a failed sync left on disk is unknown, whatever a second one says. Where only room ran out, all of
                // it is written afresh.
                self.failed = Some(match error {
                    StoreError::Disk { fault, .. } if !fault.is_shortage() => Failure::Final(fault),
                    StoreError::Disk { .. } => Failure::Reopen,
                    _ => Failure::Final(EIO),
                });
                Err(error)
            }
            Ok(()) => Ok(()),
        }
    }

    /// Puts the newest content of each item into the batch, in the order of keys: what was overwritten meanwhile is
    /// written once, and neighbours are found where the processor's cache still has them.
    fn stage_items(&mut self, handle: &Handle, batch: &mut fjall::OwnedWriteBatch, items: &mut [Staged<'_>]) {
        // The sort is stable: of the updates of one item the newest is the last.
        items.sort_by(|a, b| a.key().cmp(&b.key()));
        let newest = items.chunk_by(|a, b| a.key() == b.key()).filter_map(<[Staged<'_>]>::last);
        for item in newest {
            keys::item(&mut self.key, item.file, item.generation, item.id);
            match item.value {
                Some(value) => batch.insert(&handle.items, self.key.as_slice(), value),
                None => batch.remove(&handle.items, self.key.as_slice()),
            }
        }
    }

    fn stage_definition(
        &mut self,
        handle: &Handle,
        batch: &mut fjall::OwnedWriteBatch,
        journal: JournalKind,
        entry: &Entry<'_>,
    ) -> Result<(), StoreError> {
        let namespace = &mut self.state.namespace;
        let out: Outcome = namespace.apply(self.node, journal, entry).map_err(damaged_entry)?;
        for id in out.records {
            match namespace.record(id) {
                Some(record) => batch.insert(&handle.items, keys::dptr(id), record),
                None => batch.remove(&handle.items, keys::dptr(id)),
            }
        }
        if out.meta {
            batch.insert(&handle.items, keys::NAMESPACE, namespace.meta());
        }
        for (file, generation) in out.dropped {
            batch.insert(&handle.items, keys::purge(file, generation), []);
            self.state.purge.insert((file, generation));
        }
        Ok(())
    }

    /// Commits the batches at the front of `due` that fit one commit, at least one; returns how many.
    fn commit_some(&mut self, journal: JournalKind, due: &[&Batch]) -> Result<usize, StoreError> {
        let shared = self.handle.clone();
        let guard = shared.read().unwrap_or_else(PoisonError::into_inner);
        let Some(handle) = guard.as_ref() else { return Err(damaged("its engine", "it is closed")) };
        // Its default durability: in the kernel's hands, so that opening the engine again finds it.
        let mut batch = handle.db.batch().durability(Some(PersistMode::Buffer));
        let (mut count, mut bytes) = (0, 0);
        let mut items: Vec<Staged<'_>> = Vec::new();
        for source in due {
            let len = source.header().len as usize;
            if count > 0 && bytes + len > COMMIT {
                break;
            }
            (count, bytes) = (count + 1, bytes + len);
            for (_, entry) in source.entries() {
                let value = match entry.kind {
                    EntryKind::Put => Some(entry.value),
                    EntryKind::Delete => None,
                    kind if kind.changes_blocks() => continue,
                    _ => {
                        self.stage_definition(handle, &mut batch, journal, &entry)?;
                        continue;
                    }
                };
                // Of a file that is gone the last updates may come late, out of the other journal.
                if let Some(info) = self.state.namespace.file(entry.file) {
                    let generation = info.dptr.generation;
                    items.push(Staged { file: entry.file, generation, id: entry.id, value });
                }
            }
            self.state.applied[journal.index()] = source.header().last_seq();
        }
        self.stage_items(handle, &mut batch, &mut items);
        batch.insert(&handle.items, keys::APPLIED, keys::applied_value(self.state.applied));
        let since = self.volumes.since();
        if since != self.state.volumes_since {
            batch.insert(&handle.items, keys::VOLUMES, keys::volumes_value(since));
            self.state.volumes_since = since;
        }
        let result = handle.make_room().and_then(|()| batch.commit());
        drop(guard);
        self.outcome("applying to the store", result)?;
        self.shown[journal.index()] = self.state.applied[journal.index()];
        Ok(count)
    }
}

/// An update of an item on its way into a commit.
struct Staged<'a> {
    file: FileId,
    generation: u32,
    id: &'a [u8],
    value: Option<&'a [u8]>,
}

impl Staged<'_> {
    fn key(&self) -> (FileId, u32, &[u8]) {
        (self.file, self.generation, self.id)
    }
}

impl StoreWrite for StoreWriter {
    fn apply(&mut self, journal: JournalKind, batches: &[Batch]) -> Result<(), StoreError> {
        self.ready()?;
        // First the volumes: what a crash leaves of them without the rest is written again by the replay.
        self.volumes.apply(journal, batches).inspect_err(|_| {
            if let Some(fault) = self.volumes.failed_sync() {
                self.failed = Some(Failure::Final(fault.at_sync()));
            }
        })?;
        let all = batches_due(journal, self.state.applied[journal.index()], batches)?;
        let mut due = all.as_slice();
        while !due.is_empty() {
            let count = self.commit_some(journal, due).inspect_err(|_| {
                // What was staged in memory is not stored: the next call starts from what is.
                self.failed.get_or_insert(Failure::Reopen);
            })?;
            due = due.get(count..).unwrap_or_default();
        }
        Ok(())
    }

    fn begin_checkpoint(&mut self) -> Option<SlowSync> {
        self.volumes.begin_sync()
    }

    fn checkpoint_failed(&mut self, fault: Fault) {
        // What a failed sync left on disk is unknown, whatever a second one says.
        self.failed = Some(Failure::Final(fault.at_sync()));
    }

    fn read_volume(&mut self, file: FileId, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        self.volumes.read(file, offset, len)
    }

    fn allocation(&mut self, file: FileId, offset: u64, len: u64) -> Result<Vec<(u64, bool)>, StoreError> {
        self.volumes.allocation(file, offset, len)
    }

    fn checkpoint(&mut self) -> Result<[Seq; 2], StoreError> {
        self.ready()?;
        let since = self.volumes.synced(self.state.applied).inspect_err(|error| {
            let fault = if let StoreError::Disk { fault, .. } = error { *fault } else { EIO };
            self.failed = Some(Failure::Final(fault));
        })?;
        let shared = self.handle.clone();
        let guard = shared.read().unwrap_or_else(PoisonError::into_inner);
        if since != self.state.volumes_since {
            let record = |handle: &Handle| {
                let mut batch = handle.db.batch();
                batch.insert(&handle.items, keys::VOLUMES, keys::volumes_value(since));
                batch.commit()
            };
            let result = guard.as_ref().map_or(Err(fjall::Error::Poisoned), record);
            self.outcome("writing down where volumes stand", result)?;
        }
        let rewrite = self.rewrite;
        // Nothing is synced before this is done, so it may be done again.
        let write = |handle: &Handle| {
            if rewrite { handle.write_tables() } else { handle.db.persist(PersistMode::Buffer) }
        };
        let result = guard.as_ref().map_or(Err(fjall::Error::Poisoned), write);
        self.outcome("writing the store", result)?;
        let result = guard.as_ref().map_or(Err(fjall::Error::Poisoned), Handle::sync);
        drop(guard);
        self.synced(result)?;
        (self.rewrite, self.reopened) = (false, 0);
        self.state.volumes_since = since;
        let namespace = &self.state.namespace;
        let volume = |file| namespace.file(file).is_some_and(|info| info.dptr.kind == DptrKind::Blocks);
        self.volumes.remove_strays(self.state.applied, volume);
        Ok(self.volumes.covered(self.state.applied))
    }
}

const EIO: Fault = Fault::Errno(5);

fn open_engine(dir: &Path) -> Result<(Handle, u64), StoreError> {
    let disk = |doing| move |error| StoreError::Disk { doing, fault: Fault::from_io(&error) };
    if !remove_unfinished(dir).map_err(disk("removing what is left of an unfinished store"))? {
        return Err(damaged("its engine's files", "the version file is missing"));
    }
    let cut_bytes = torn_tail::cut(dir).map_err(disk("cutting the torn end of the store's journal"))?;
    let db = open_database(dir).map_err(|error| engine_error("opening the store", error))?;
    let options = || {
        let compression = CompressionPolicy::all(CompressionType::None);
        KeyspaceCreateOptions::default()
            .max_memtable_size(u64::MAX)
            .data_block_compression_policy(compression)
    };
    let items = db.keyspace("items", options).map_err(|error| engine_error("opening the store", error))?;
    Ok((Handle { db, items, opening: Arc::new(()) }, cut_bytes))
}

fn open_database(dir: &Path) -> fjall::Result<Database> {
    Database::builder(dir)
        .cache_size(CACHE)
        .max_journaling_size(ENGINE_JOURNAL)
        .journal_compression(CompressionType::None)
        .worker_threads(WORKERS)
        .max_cached_files(Some(STORE_TABLES_MAX))
        .open()
}

/// The engine cannot go on where it was interrupted in making a database, before the first thing was stored. Returns
/// false if there is more than that.
fn remove_unfinished(dir: &Path) -> std::io::Result<bool> {
    let keyspaces = dir.join("keyspaces");
    if !dir.try_exists()? || dir.join("version").try_exists()? {
        return Ok(true);
    }
    if keyspaces.try_exists()? {
        if std::fs::read_dir(&keyspaces)?.next().is_some() {
            return Ok(false);
        }
        std::fs::remove_dir(&keyspaces)?;
    }
    for name in ["lock", "0.jnl"] {
        match std::fs::remove_file(dir.join(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(true)
}

/// Reads every record; none if there is nothing at all.
fn load(handle: &Handle, node: Ordinal) -> Result<Option<State>, StoreError> {
    let (mut format, mut applied, mut meta, mut volumes_since) = (None, None, None, [None; 2]);
    let (mut records, mut purge) = (Vec::new(), BTreeSet::new());
    for found in handle.db.snapshot().range(&handle.items, keys::records()) {
        let (key, value) = found.into_inner().map_err(|error| engine_error("reading the store", error))?;
        match keys::Record::decode(&key).map_err(damaged_record)? {
            keys::Record::Format => format = Some(keys::read_format(&value).map_err(damaged_record)?),
            keys::Record::Applied => applied = Some(keys::read_applied(&value).map_err(damaged_record)?),
            keys::Record::Namespace => meta = Some(value),
            keys::Record::VolumeStore => {
                volumes_since = keys::read_volumes(&value).map_err(damaged_record)?
            }
            keys::Record::Dptr(id) => records.push((id, value)),
            keys::Record::Purge(file, generation) => {
                purge.insert((file, generation));
            }
        }
    }
    let (Some(found), Some(applied), Some(meta)) = (format, applied, meta) else {
        if handle.items.is_empty().map_err(|error| engine_error("reading the store", error))? {
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
    Ok(Some(State { namespace, applied, purge, volumes_since }))
}

fn create(handle: &Handle, node: Ordinal) -> Result<State, StoreError> {
    let namespace = Namespace::new();
    let state = State { namespace, applied: [Seq(0); 2], purge: BTreeSet::new(), volumes_since: [None; 2] };
    let mut batch = handle.db.batch().durability(Some(PersistMode::SyncAll));
    batch.insert(&handle.items, keys::FORMAT, keys::format_value(node));
    batch.insert(&handle.items, keys::APPLIED, keys::applied_value(state.applied));
    batch.insert(&handle.items, keys::NAMESPACE, state.namespace.meta());
    for (id, _) in state.namespace.accounts() {
        batch.insert(&handle.items, keys::dptr(id), state.namespace.record(id).unwrap_or_default());
    }
    batch.commit().map_err(|error| engine_error("making the store", error))?;
    Ok(state)
}

fn to_bytes(value: fjall::UserValue) -> Bytes {
    if value.len() > SHARE_FROM { Bytes::from_owner(value) } else { Bytes::copy_from_slice(&value) }
}

/// What has run out for whoever writes in `dir`, if anything has.
fn shortage_in(dir: &Path) -> Option<Fault> {
    let path = dir.join("probe.tmp");
    // What a process that was killed left there; a link is removed, not followed.
    let _ = std::fs::remove_file(&path);
    let made = std::fs::File::create_new(&path);
    let result = made.and_then(|mut file| std::io::Write::write_all(&mut file, &vec![0x5a; PROBE]));
    let _ = std::fs::remove_file(&path);
    // The engine writes whole tables, which may find no room where this did.
    let free = nix::sys::statvfs::statvfs(dir).map(|disk| disk.blocks_available() * disk.fragment_size());
    match result {
        Ok(()) if free.is_ok_and(|free| free < 2 * WRITE_BUFFER) => Some(Fault::NoSpace),
        Ok(()) => None,
        Err(error) => Some(Fault::from_io(&error)).filter(|fault| fault.is_shortage()),
    }
}

fn engine_error(doing: &'static str, error: fjall::Error) -> StoreError {
    match error {
        fjall::Error::Io(error) | fjall::Error::Storage(fjall::LsmError::Io(error)) => {
            StoreError::Disk { doing, fault: Fault::from_io(&error) }
        }
        // EBUSY: another process has it.
        fjall::Error::Locked => StoreError::Disk { doing, fault: Fault::Errno(16) },
        fjall::Error::Poisoned => StoreError::Disk { doing, fault: EIO },
        other => damaged("its engine's files", &format!("{doing}: {other:?}")),
    }
}

fn damaged_record(error: DecodeError) -> StoreError {
    damaged("a record", &error.to_string())
}

fn damaged(what: &'static str, why: &str) -> StoreError {
    StoreError::Damaged { what, why: why.to_owned() }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod volume_tests;

//! The store in memory: the model that the store on disk is tested against, and the simulator's disk of items.

mod copy;
pub mod moment;
mod rot;

#[cfg(test)]
use super::Tried;
use super::due::{batches_due, damaged_entry};
use super::memory_volumes::MemoryVolumes;
use super::namespace::{FileInfo, Namespace};
use super::volumes::{BadPlace, Check, Plan, RecoveryPoints, Unsettled, Wrong};
use super::{Fits, RottenItems, SlowSync, StoreError, StoreRead, StoreSnapshot, StoreWrite};
use crate::base::limits::BLOCK_U64;
use crate::base::{FileId, JournalKind, Ordinal, Seq};
use crate::format::batch::Batch;
use crate::format::chunk::Progress;
use crate::format::dptr::{DptrKind, FileState};
use crate::format::entry::{Entry, EntryKind};
use crate::format::rewind::Prepared;
use bytes::Bytes;
use rot::RottenRange;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::rc::Rc;

/// A file's items in one generation, with a sum of their hashes kept up to date.
#[derive(Clone, Debug, Default)]
struct Table {
    items: BTreeMap<Bytes, Bytes>,
    sum: u64,
}

impl Table {
    fn set(&mut self, id: Bytes, value: Option<Bytes>) -> Option<Bytes> {
        if let Some(value) = &value {
            self.sum = self.sum.wrapping_add(item_hash(&id, value));
        }
        let old = match value {
            Some(value) => self.items.insert(id.clone(), value),
            None => self.items.remove(&id),
        };
        if let Some(old) = &old {
            self.sum = self.sum.wrapping_sub(item_hash(&id, old));
        }
        old
    }
}

type TableKey = (FileId, u32);

/// What a commit was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Commit {
    Batch,
    Begin,
    Chunk,
}

/// What a fall took back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fallen {
    /// Batches; since a copy began, if one did.
    pub batches: usize,
    /// The beginning of a copy, and so many batches before it.
    pub before_copy: Option<usize>,
}

/// What takes one commit back.
#[derive(Debug)]
struct Undo {
    commit: Commit,
    applied: [Seq; 2],
    dirty_from: [Option<Seq>; 2],
    copied: Option<Progress>,
    prepared: Option<Prepared>,
    namespace: Option<Rc<Namespace>>,
    rot: Vec<RottenRange>,
    changes: Vec<UndoChange>,
}

#[derive(Debug)]
enum UndoChange {
    Item(TableKey, Bytes, Option<Bytes>),
    Table(TableKey, Table),
}

#[derive(Debug)]
struct Inner {
    node: Ordinal,
    namespace: Rc<Namespace>,
    tables: BTreeMap<TableKey, Table>,
    applied: [Seq; 2],
    volumes: MemoryVolumes,
    recovery_points: RecoveryPoints,
    unsettled: Unsettled,
    /// What was found wrong and not told yet.
    found: Vec<BadPlace>,
    /// Items that cannot be read, and whether somebody tried.
    rot: Vec<RottenRange>,
    rot_was_met: Cell<bool>,
    /// Where volumes stand, as committed with the items.
    dirty_from: [Option<Seq>; 2],
    /// How far a copy is that this store was given: as committed with the items, with the blocks that a crash may take, and
    /// with those that the sync under way makes durable.
    copied: Option<Progress>,
    copied_blocks: Option<Progress>,
    copied_begun: Option<Progress>,
    /// A rewind that was agreed on.
    prepared: Option<Prepared>,
    /// Batches since the last checkpoint, oldest first.
    undo: Vec<Undo>,
    /// Reads that do not wait find nothing.
    #[cfg(test)]
    cold: bool,
}

/// A store without a disk. Clones share one content, so that one can be the reader and one the writer.
///
/// It keeps what it needs to fall back, as after a power loss, to any batch since the last checkpoint; a driver that
/// never checkpoints lets it grow.
#[derive(Clone, Debug)]
pub struct MemoryStore {
    inner: Rc<RefCell<Inner>>,
}

impl MemoryStore {
    /// An empty store of a node.
    #[must_use]
    pub fn new(node: Ordinal) -> Self {
        let inner = Inner {
            node,
            namespace: Rc::new(Namespace::new()),
            tables: BTreeMap::new(),
            applied: [Seq(0); 2],
            volumes: MemoryVolumes::default(),
            recovery_points: RecoveryPoints::default(),
            unsettled: Unsettled::at_start(),
            found: Vec::new(),
            rot: Vec::new(),
            rot_was_met: Cell::new(false),
            dirty_from: [None; 2],
            copied: None,
            copied_blocks: None,
            copied_begun: None,
            prepared: None,
            undo: Vec::new(),
            #[cfg(test)]
            cold: false,
        };
        Self { inner: Rc::new(RefCell::new(inner)) }
    }

    /// From now on reads that do not wait for the disk find nothing, or everything.
    #[cfg(test)]
    pub(crate) fn set_cold(&self, cold: bool) {
        self.inner.borrow_mut().cold = cold;
    }

    /// The namespace as applied.
    #[must_use]
    pub fn namespace(&self) -> Rc<Namespace> {
        self.inner.borrow().namespace.clone()
    }

    /// How far a copy is that this store was given, if it ever was given one.
    #[must_use]
    pub fn copied(&self) -> Option<Progress> {
        self.inner.borrow().copied.clone()
    }

    /// The rewind that was agreed on last, if its list is still kept.
    #[must_use]
    pub fn prepared(&self) -> Option<Prepared> {
        self.inner.borrow().prepared.clone()
    }

    /// The last entry of each journal that is applied.
    #[must_use]
    pub fn applied(&self) -> [Seq; 2] {
        self.inner.borrow().applied
    }

    /// What a power loss may leave: the last checkpoint and the state after each batch since, oldest first.
    #[must_use]
    pub fn boundaries(&self) -> Vec<[Seq; 2]> {
        let inner = self.inner.borrow();
        inner.undo.iter().map(|step| step.applied).chain([inner.applied]).collect()
    }

    /// Loses everything after the state with these marks, one of [`Self::boundaries`], as a power loss does.
    /// Returns false, and changes nothing, if there is no such state since the last checkpoint. What is left counts
    /// as on disk: the next power loss loses nothing of it.
    #[must_use]
    pub fn fall_back(&self, to: [Seq; 2]) -> bool {
        let inner = &mut *self.inner.borrow_mut();
        let keep = if inner.applied == to {
            inner.undo.len()
        } else {
            match inner.undo.iter().position(|step| step.applied == to) {
                Some(keep) => keep,
                None => return false,
            }
        };
        inner.undo_to(keep);
        inner.undo.clear();
        true
    }

    /// Loses everything after the first `keep` of [`Self::boundaries`], as a power loss does; tells what that was.
    #[must_use]
    pub fn fall_back_by(&self, keep: usize) -> Fallen {
        let inner = &mut *self.inner.borrow_mut();
        let mut fallen = Fallen::default();
        for step in inner.undo.get(keep..).unwrap_or_default().iter().rev() {
            match (step.commit, &mut fallen.before_copy) {
                (Commit::Batch, Some(before)) => *before += 1,
                (Commit::Batch, None) => fallen.batches += 1,
                (Commit::Begin, before) => *before = Some(0),
                (Commit::Chunk, _) => {}
            }
        }
        inner.undo_to(keep);
        inner.undo.clear();
        fallen
    }

    /// The items of a file in its present generation, in order of id; none if there is no such file.
    #[must_use]
    pub fn items(&self, file: FileId) -> Vec<(Bytes, Bytes)> {
        let inner = self.inner.borrow();
        let table = inner.namespace.file(file).and_then(|info| inner.table(file, info));
        let pairs = table.into_iter().flat_map(|table| &table.items);
        pairs.map(|(id, value)| (id.clone(), value.clone())).collect()
    }

    /// A hash over a file's items; 0 if there are none. It does not depend on how they came to be.
    #[must_use]
    pub fn file_digest(&self, file: FileId) -> u64 {
        let inner = self.inner.borrow();
        inner.namespace.file(file).map_or(0, |info| inner.items_sum(file, info))
    }

    /// A hash over definitions and items, equal on two nodes with the same content.
    ///
    /// With `replicated_only`, over what a pair shares: replicated files and their accounts, by the names they want,
    /// without what belongs to the node (generations, states). The content of a file that is not whole on this node
    /// is left out; a file that is stale is stale only here, so compare after it was copied.
    #[must_use]
    pub fn digest(&self, replicated_only: bool) -> u64 {
        let inner = self.inner.borrow();
        let ns = &inner.namespace;
        let mut hash = 0;
        for (id, info) in ns.accounts() {
            if !replicated_only || ns.account_is_replicated(id) {
                let flags = u64::from(info.dptr.flags.bits());
                hash = mix(mix(mix(hash, id.0), flags), hash_bytes(0, info.dptr.name.as_bytes()));
            }
        }
        for (id, info) in ns.files() {
            if !replicated_only || info.replicated {
                hash = mix(mix(hash, id.0), dptr_hash(info));
                if !replicated_only || info.dptr.state == FileState::Whole {
                    hash = mix(hash, inner.items_sum(id, info));
                }
            }
        }
        if !replicated_only {
            hash = mix(hash, hash_bytes(0, &ns.meta()));
        }
        hash
    }
}

/// Volumes.
impl MemoryStore {
    /// Where the journals have to be given again from: volumes may lack what came after.
    #[must_use]
    pub fn replay_from(&self) -> [Seq; 2] {
        let inner = self.inner.borrow();
        RecoveryPoints::new(inner.dirty_from, inner.applied).submitted()
    }

    /// The last entries whose changes of volumes were carried out in this life.
    #[must_use]
    pub fn submitted(&self) -> [Seq; 2] {
        self.inner.borrow().recovery_points.submitted()
    }

    /// A process that died is followed by another: what it was given it has to be given again.
    pub fn restarted(&self) {
        let inner = &mut *self.inner.borrow_mut();
        inner.recovery_points = RecoveryPoints::new(inner.dirty_from, inner.applied);
        inner.volumes.restarted();
        (inner.copied_blocks, inner.copied_begun) = (None, None);
        inner.unsettled = Unsettled::at_start();
        inner.found.clear();
    }

    /// The volumes' part of applying a batch, and no more: what a death between the two leaves.
    ///
    /// # Errors
    /// As [`StoreWrite::apply`].
    pub fn apply_volumes_only(&self, journal: JournalKind, batch: &Batch) -> Result<(), StoreError> {
        self.inner.borrow_mut().apply_volumes(journal, std::slice::from_ref(batch))
    }

    /// A power loss leaves of each sector of a volume any content that it had since the last checkpoint: `choose` is
    /// told how many there were, and says which.
    pub fn power_loss_of_volumes(&self, choose: &mut dyn FnMut(usize) -> usize) {
        let inner = &mut *self.inner.borrow_mut();
        inner.volumes.power_loss(choose);
        inner.volumes.checkpoint();
    }

    /// The blocks of a range that do not match their checksums.
    #[must_use]
    pub fn wrong_blocks(&self, file: FileId, offset: u64, len: u64) -> Vec<u64> {
        self.inner.borrow().volumes.wrong(file, offset, len)
    }

    /// A bit of a volume turns by itself; false if nothing durable stands there.
    #[must_use]
    pub fn rot(&self, file: FileId, at: u64) -> bool {
        self.inner.borrow_mut().volumes.rot(file, at)
    }

    /// Somebody writes back what a block should hold.
    pub fn heal(&self, file: FileId, block: u64, bytes: &[u8]) {
        self.inner.borrow_mut().volumes.heal(file, block, bytes);
    }

    /// A range of a volume, whatever its checksums say.
    #[must_use]
    pub fn volume_bytes(&self, file: FileId, offset: u64, len: usize) -> Bytes {
        self.inner.borrow().volumes.read(file, offset, len).into()
    }

    /// What takes space in a range of a volume.
    #[must_use]
    pub fn volume_allocation(&self, file: FileId, offset: u64, len: u64) -> Vec<(u64, bool)> {
        self.inner.borrow().volumes.allocation(file, offset, len)
    }
}

impl Inner {
    fn apply_volumes(&mut self, journal: JournalKind, batches: &[Batch]) -> Result<(), StoreError> {
        let due = batches_due(journal, self.recovery_points.submitted()[journal.index()], batches)?;
        let Some(last) = due.last().map(|batch| batch.header().last_seq()) else { return Ok(()) };
        let plan = Plan::of(self.node, due);
        if plan.changes(|file| self.volumes.holds(file)) {
            self.recovery_points.changes(journal);
            let unsettled = &self.unsettled;
            let copied = self.copied_blocks.as_ref().or(self.copied.as_ref());
            let copying = copied.is_some_and(Progress::is_under_way);
            self.volumes.apply(&plan, |file| copying || unsettled.covers(file));
        }
        self.recovery_points.submitted_up_to(journal, last);
        Ok(())
    }

    fn table(&self, file: FileId, info: &FileInfo) -> Option<&Table> {
        self.tables.get(&(file, info.dptr.generation))
    }

    fn items_sum(&self, file: FileId, info: &FileInfo) -> u64 {
        let hash = |(sector, bytes): (u64, &[u8])| hash_bytes(mix(3, sector), bytes);
        let blocks = self.volumes.content(file).map(hash).fold(0, u64::wrapping_add);
        self.table(file, info).map_or(0, |table| table.sum).wrapping_add(blocks)
    }

    /// What takes back what is done next.
    fn step(&self, commit: Commit) -> Undo {
        let (applied, dirty_from, copied) = (self.applied, self.dirty_from, self.copied.clone());
        let (prepared, rot) = (self.prepared.clone(), self.rot.clone());
        Undo { commit, applied, dirty_from, copied, prepared, namespace: None, rot, changes: Vec::new() }
    }

    fn apply_batch(&mut self, journal: JournalKind, batch: &Batch) -> Result<(), StoreError> {
        let mut step = self.step(Commit::Batch);
        let mut result = Ok(());
        for (_, entry) in batch.entries() {
            result = self.apply_entry(journal, &entry, &mut step);
            if result.is_err() {
                break;
            }
        }
        self.applied[journal.index()] = batch.header().last_seq();
        self.dirty_from = self.recovery_points.dirty_from();
        self.undo.push(step);
        result
    }

    fn apply_entry(
        &mut self,
        journal: JournalKind,
        entry: &Entry<'_>,
        step: &mut Undo,
    ) -> Result<(), StoreError> {
        let value = match entry.kind {
            EntryKind::Put => Some(entry.value),
            EntryKind::Delete => None,
            EntryKind::EpochStart => return Ok(()),
            kind if kind.changes_blocks() => return Ok(()),
            _ => return self.apply_definition(journal, entry, step),
        };
        // A file that is gone: its last updates came late out of the other journal.
        let Some(info) = self.namespace.file(entry.file) else { return Ok(()) };
        let key = (entry.file, info.dptr.generation);
        let id = Bytes::copy_from_slice(entry.id);
        let table = self.tables.entry(key).or_default();
        let old = table.set(id.clone(), value.map(Bytes::copy_from_slice));
        self.wrote(key, &id);
        step.changes.push(UndoChange::Item(key, id, old));
        Ok(())
    }

    fn apply_definition(
        &mut self,
        journal: JournalKind,
        entry: &Entry<'_>,
        step: &mut Undo,
    ) -> Result<(), StoreError> {
        step.namespace.get_or_insert_with(|| self.namespace.clone());
        let out =
            Rc::make_mut(&mut self.namespace).apply(self.node, journal, entry).map_err(damaged_entry)?;
        for key in out.dropped {
            if let Some(table) = self.tables.remove(&key) {
                step.changes.push(UndoChange::Table(key, table));
            }
            self.rot_goes(key);
        }
        Ok(())
    }

    fn undo_to(&mut self, keep: usize) {
        while self.undo.len() > keep {
            let Some(step) = self.undo.pop() else { return };
            for change in step.changes.into_iter().rev() {
                match change {
                    UndoChange::Item(key, id, old) => {
                        self.tables.entry(key).or_default().set(id, old);
                    }
                    UndoChange::Table(key, table) => {
                        self.tables.insert(key, table);
                    }
                }
            }
            if let Some(namespace) = step.namespace {
                self.namespace = namespace;
            }
            self.applied = step.applied;
            self.dirty_from = step.dirty_from;
            self.copied = step.copied;
            self.prepared = step.prepared;
            self.rot = step.rot;
        }
    }
}

impl StoreRead for MemoryStore {
    /// It has one owner, so that nothing is applied while a snapshot is read.
    type Snapshot = Self;

    fn snapshot(&self) -> Self {
        self.clone()
    }
}

impl StoreSnapshot for MemoryStore {
    fn applied(&self) -> [Seq; 2] {
        self.inner.borrow().applied
    }

    #[cfg(test)]
    fn try_get(&self, file: FileId, generation: u32, id: &[u8]) -> Result<Tried<Option<Bytes>>, StoreError> {
        if self.inner.borrow().cold {
            return Ok(Tried::Cold);
        }
        self.get(file, generation, id).map(Tried::Done)
    }

    #[cfg(test)]
    fn try_scan(
        &self,
        file: FileId,
        generation: u32,
        after: Option<&[u8]>,
        limit: usize,
        with_values: bool,
    ) -> Result<Tried<Vec<(Bytes, Bytes)>>, StoreError> {
        if self.inner.borrow().cold {
            return Ok(Tried::Cold);
        }
        self.scan(file, generation, after, limit, with_values).map(Tried::Done)
    }

    fn items_at_most(&self, file: FileId, generation: u32) -> u64 {
        self.count(file, generation, |_| true)
    }

    fn estimate(&self, file: FileId, generation: u32, fits: Fits) -> Result<u64, StoreError> {
        Ok(self.count(file, generation, fits))
    }

    fn get(&self, file: FileId, generation: u32, id: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let inner = self.inner.borrow();
        inner.can_read((file, generation), id)?;
        Ok(inner.tables.get(&(file, generation)).and_then(|table| table.items.get(id)).cloned())
    }

    fn scan(
        &self,
        file: FileId,
        generation: u32,
        after: Option<&[u8]>,
        limit: usize,
        with_values: bool,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let inner = self.inner.borrow();
        let empty = Table::default();
        let table = inner.tables.get(&(file, generation)).unwrap_or(&empty);
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let range = table.items.range::<[u8], _>((from, Bound::Unbounded)).take(limit);
        let value = |value: &Bytes| if with_values { value.clone() } else { Bytes::new() };
        let found: Vec<_> = range.map(|(id, item)| (id.clone(), value(item))).collect();
        let last = found.last().filter(|_| found.len() == limit).map(|(id, _)| &id[..]);
        inner.can_walk((file, generation), after.unwrap_or_default(), last)?;
        Ok(found)
    }
}

impl MemoryStore {
    fn count(&self, file: FileId, generation: u32, fits: Fits) -> u64 {
        let inner = self.inner.borrow();
        let items = inner.tables.get(&(file, generation)).into_iter().flat_map(|table| table.items.keys());
        items.filter(|id| fits(id)).count() as u64
    }
}

impl StoreWrite for MemoryStore {
    fn apply(&mut self, journal: JournalKind, batches: &[Batch]) -> Result<(), StoreError> {
        let inner = &mut *self.inner.borrow_mut();
        inner.apply_volumes(journal, batches)?;
        let due = batches_due(journal, inner.applied[journal.index()], batches)?;
        let keep = inner.undo.len();
        for batch in due {
            if let Err(error) = inner.apply_batch(journal, batch) {
                inner.undo_to(keep);
                return Err(error);
            }
        }
        Ok(())
    }

    fn begin_checkpoint(&mut self) -> Option<SlowSync> {
        let inner = &mut *self.inner.borrow_mut();
        inner.recovery_points.begin();
        inner.volumes.begin_sync();
        inner.copied_begun.clone_from(&inner.copied_blocks);
        Some(Box::new(|| Ok(())))
    }

    fn checkpoint(&mut self) -> Result<[Seq; 2], StoreError> {
        let begun = self.inner.borrow().recovery_points.is_begun();
        if !begun {
            let _ = self.begin_checkpoint();
        }
        let inner = &mut *self.inner.borrow_mut();
        inner.undo.clear();
        inner.volumes.synced();
        if let Some(copied) = inner.copied_begun.take() {
            inner.copies_up_to(copied);
        }
        inner.dirty_from = inner.recovery_points.synced(inner.applied);
        if inner.recovery_points.submitted() == inner.applied {
            let namespace = Rc::clone(&inner.namespace);
            let volume = |file| namespace.file(file).is_some_and(|info| info.dptr.kind == DptrKind::Blocks);
            inner.volumes.remove_strays(volume);
        }
        Ok(inner.recovery_points.covered(inner.applied))
    }

    fn read_volume(&mut self, file: FileId, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        let inner = &mut *self.inner.borrow_mut();
        if !inner.unsettled.covers(file) {
            let wrong = inner.volumes.wrong(file, offset, len as u64);
            let place = |block: &u64| BadPlace {
                file,
                offset: block * BLOCK_U64,
                len: BLOCK_U64,
                wrong: Wrong::Content,
            };
            inner.found.extend(wrong.iter().map(place));
            if !wrong.is_empty() {
                let why = "a block does not match its checksum".to_owned();
                return Err(StoreError::Damaged { what: "a volume", why });
            }
        }
        Ok(inner.volumes.read(file, offset, len).into())
    }

    fn replayed(&mut self) {
        self.inner.borrow_mut().unsettled.replayed();
    }

    fn check_volume(&mut self, file: FileId, offset: u64, len: u64, _: Check) -> Result<(), StoreError> {
        // The answer of a read that is found wrong is that it is.
        let _ = self.read_volume(file, offset, usize::try_from(len).unwrap_or(usize::MAX));
        Ok(())
    }

    fn take_rotten_items(&mut self) -> Vec<RottenItems> {
        self.inner.borrow().take_rotten_items()
    }

    fn tell_rotten_again(&mut self) {
        self.inner.borrow().rot_was_met.set(true);
    }

    fn take_bad_places(&mut self) -> Vec<BadPlace> {
        std::mem::take(&mut self.inner.borrow_mut().found)
    }

    fn allocation(&mut self, file: FileId, offset: u64, len: u64) -> Result<Vec<(u64, bool)>, StoreError> {
        Ok(self.inner.borrow().volumes.allocation(file, offset, len))
    }
}

fn dptr_hash(info: &FileInfo) -> u64 {
    let dptr = &info.dptr;
    let kind = match dptr.kind {
        DptrKind::Account => 0,
        DptrKind::Records => 1,
        DptrKind::Blocks => 2,
    };
    let ack = dptr.ack.map_or(0, |level| 1 + u64::from(level.name().as_bytes()[0]));
    let numbers = [kind, u64::from(dptr.flags.bits()), dptr.account.0, dptr.blocks, ack];
    numbers.into_iter().fold(hash_bytes(0, dptr.name.as_bytes()), mix)
}

fn item_hash(id: &[u8], value: &[u8]) -> u64 {
    hash_bytes(hash_bytes(1, id), value)
}

fn hash_bytes(seed: u64, bytes: &[u8]) -> u64 {
    let mut hash = mix(seed, bytes.len() as u64);
    let mut words = bytes.chunks_exact(8);
    for word in &mut words {
        let mut array = [0; 8];
        array.copy_from_slice(word);
        hash = mix(hash, u64::from_le_bytes(array));
    }
    let mut last = [0; 8];
    last[..words.remainder().len()].copy_from_slice(words.remainder());
    mix(hash, u64::from_le_bytes(last))
}

/// Folds a word into a hash: both halves of a 128-bit product, so that every bit reaches every other.
fn mix(hash: u64, word: u64) -> u64 {
    let product = u128::from(hash ^ 0x9E37_79B9_7F4A_7C15) * u128::from(word ^ 0xD6E8_FEB8_6659_FD93);
    let low = u64::try_from(product & u128::from(u64::MAX)).expect("masked to 64 bits");
    let high = u64::try_from(product >> 64).expect("the upper 64 bits of 128");
    (low ^ high).rotate_left(29).wrapping_add(word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Prng;
    use crate::format::dptr::Flags;
    use crate::store::testkit::{History, new_file};

    const A: Ordinal = Ordinal(0);
    const R: JournalKind = JournalKind::Replicated;

    /// `app,orders` (L) with items 1 and 2 in three batches of the replicated journal.
    fn sample() -> (MemoryStore, History, FileId) {
        let (mut store, mut history) = (MemoryStore::new(A), History::new(A, 1));
        let account = history.change(|ns| ns.create_account("app", Flags::L, A));
        let file = history.change(|ns| ns.create_file(&new_file("app", "orders", Flags::L), A));
        let id = history.ahead.resolve(b"app,orders").unwrap();
        let puts = [(EntryKind::Put, id, vec![1], vec![10]), (EntryKind::Put, id, vec![2], vec![20])];
        let items = (R, history.seal(R, &puts));
        for (journal, batch) in [account, file, items] {
            store.apply(journal, &[batch]).unwrap();
        }
        (store, history, id)
    }

    #[test]
    fn items_are_read_and_scanned_in_order_with_values_only_if_asked() {
        let (store, _, id) = sample();
        assert_eq!(store.get(id, 0, &[1]).unwrap().as_deref(), Some(&[10][..]));
        assert_eq!(store.get(id, 1, &[1]).unwrap(), None);
        let ids = |pairs: Vec<(Bytes, Bytes)>| pairs.into_iter().map(|(id, v)| (id[0], v.len())).collect();
        let found: Vec<_> = ids(store.scan(id, 0, None, 9, true).unwrap());
        assert_eq!(found, [(1, 1), (2, 1)]);
        let found: Vec<_> = ids(store.scan(id, 0, Some(&[1]), 9, false).unwrap());
        assert_eq!(found, [(2, 0)]);
        assert_eq!(store.scan(id, 0, None, 1, true).unwrap().len(), 1);
        assert_eq!(store.applied(), [Seq(4), Seq(0)]);
    }

    #[test]
    fn a_duplicate_changes_nothing_and_a_gap_is_refused() {
        let (mut store, mut history, id) = sample();
        let again = history.clone().seal(R, &[(EntryKind::Put, id, vec![3], vec![30])]);
        let late = history.seal(R, &[(EntryKind::Delete, id, vec![1], vec![])]);
        let next = history.seal(R, &[(EntryKind::Delete, id, vec![2], vec![])]);
        let refused = store.apply(R, std::slice::from_ref(&next));
        assert!(matches!(refused, Err(StoreError::OutOfOrder { .. })), "{refused:?}");
        store.apply(R, &[late, next]).unwrap();
        let before = store.digest(false);
        store.apply(R, &[again]).unwrap();
        assert_eq!(store.digest(false), before);
        assert_eq!(store.items(id), []);
    }

    #[test]
    fn a_batch_that_cannot_be_applied_takes_its_whole_call_back() {
        let (mut store, mut history, id) = sample();
        let before = (store.digest(false), store.applied());
        let good = history.seal(R, &[(EntryKind::Put, id, vec![3], vec![30])]);
        // Its value is no D-pointer; no builder of a change would make it.
        let mut builder = crate::format::batch::BatchBuilder::new(history.heads[0].next(), 0);
        builder.push(&Entry { kind: EntryKind::FileChange, file: id, id: &[], value: &[9] });
        let pair = crate::format::PairId([7; 16]);
        let (epoch, prev_chain) = (crate::base::Epoch(2), crate::base::Chain(1));
        let seal =
            crate::format::batch::Seal { epoch, prev_chain, durable: Seq(0), wall_ms: 0, pair, journal: R };
        let refused = store.apply(R, &[good, builder.seal(&seal)]);
        assert!(matches!(refused, Err(StoreError::Damaged { .. })), "{refused:?}");
        assert_eq!((store.digest(false), store.applied()), before);
    }

    #[test]
    fn a_power_loss_leaves_exactly_the_state_at_the_boundary_it_fell_back_to() {
        for seed in 0..200 {
            let (mut store, mut history) = (MemoryStore::new(A), History::new(A, seed));
            let mut prng = Prng::new(seed);
            let mut states = vec![(store.applied(), store.digest(false))];
            for _ in 0..60 {
                let (journal, batch) = history.random(30);
                store.apply(journal, &[batch]).unwrap();
                states.push((store.applied(), store.digest(false)));
                if prng.percent(10) {
                    store.checkpoint().unwrap();
                    states.drain(..states.len() - 1);
                }
            }
            let marks: Vec<_> = states.iter().map(|(applied, _)| *applied).collect();
            assert_eq!(store.boundaries(), marks, "seed {seed}");
            let (to, digest) = states[usize::try_from(prng.below(states.len() as u64)).unwrap()];
            assert!(store.fall_back(to), "seed {seed}");
            assert_eq!((store.applied(), store.digest(false)), (to, digest), "seed {seed}");
            assert!(!store.fall_back([Seq(9999), Seq(0)]), "never a state that was not");
        }
    }

    #[test]
    fn digests_differ_when_an_item_or_a_definition_does() {
        let (mut store, mut history, id) = sample();
        let (all, shared) = (store.digest(false), store.digest(true));
        let swapped = [(EntryKind::Put, id, vec![1], vec![20]), (EntryKind::Put, id, vec![2], vec![10])];
        store.apply(R, &[history.seal(R, &swapped)]).unwrap();
        assert_ne!((store.digest(false), store.digest(true)), (all, shared));
        let back = [(EntryKind::Put, id, vec![1], vec![10]), (EntryKind::Put, id, vec![2], vec![20])];
        store.apply(R, &[history.seal(R, &back)]).unwrap();
        assert_eq!((store.digest(false), store.digest(true)), (all, shared));
        let (journal, batch) = history.change(|ns| ns.create_account("mine", Flags::NONE, A));
        store.apply(journal, &[batch]).unwrap();
        assert_ne!(store.digest(false), all);
        assert_eq!(store.digest(true), shared, "a local account is no business of the pair");
    }

    #[test]
    fn both_nodes_digest_the_same_after_a_copy_although_their_generations_differ() {
        let (mut store, mut history, id) = sample();
        let mut peer = MemoryStore::new(Ordinal(1));
        let (_, begin) = history.change(|ns| ns.begin_copy(id, A));
        let puts = [(EntryKind::Put, id, vec![1], vec![10]), (EntryKind::Put, id, vec![2], vec![20])];
        let content = history.seal(R, &puts);
        let (_, end) = history.change(|ns| ns.end_copy(id));
        // The peer saw the account and the file, and has an item too many.
        let mut early = History::new(A, 1);
        let account = early.change(|ns| ns.create_account("app", Flags::L, A)).1;
        let file = early.change(|ns| ns.create_file(&new_file("app", "orders", Flags::L), A)).1;
        let odd = [(EntryKind::Put, id, vec![8], vec![80]), (EntryKind::Put, id, vec![9], vec![90])];
        peer.apply(R, &[account, file, early.seal(R, &odd)]).unwrap();
        assert_ne!(peer.digest(true), store.digest(true));
        for batch in [begin, content, end] {
            store.apply(R, std::slice::from_ref(&batch)).unwrap();
            peer.apply(R, &[batch]).unwrap();
        }
        assert_eq!(peer.digest(true), store.digest(true));
        assert_eq!(peer.namespace().file(id).unwrap().dptr.generation, 1);
    }
}

//! One moment of the model: items are copied, and what volumes lose is kept before it is overwritten, as the store on disk does it.

use super::{MemoryStore, Table, TableKey};
use crate::base::limits::{BLOCK, BLOCK_U64};
use crate::base::{Fault, FileId, Seq};
use crate::format::chunk::Progress;
use crate::store::namespace::Namespace;
use crate::store::{Fits, StoreError, StoreSnapshot};
use bytes::Bytes;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::Bound;
use std::rc::Rc;

/// What volumes held at a moment, as far as they lost it.
#[derive(Debug, Default)]
pub struct MemoryKept {
    blocks: RefCell<BTreeMap<(FileId, u64), Vec<u8>>>,
    /// Blocks are not kept, and whether that was so of one.
    loses: Cell<bool>,
    lost: Cell<bool>,
}

impl MemoryKept {
    pub(in crate::store) fn keep(&self, file: FileId, block: u64, now: impl FnOnce() -> Vec<u8>) {
        if self.loses.get() {
            self.lost.set(true);
            return;
        }
        self.blocks.borrow_mut().entry((file, block)).or_insert_with(now);
    }

    /// From now on nothing is kept.
    pub fn lose(&self) {
        self.loses.set(true);
    }

    /// Whether something was not kept.
    #[must_use]
    pub fn has_lost(&self) -> bool {
        self.lost.get()
    }
}

/// A moment, for as long as somebody has it. Clones are the same one.
#[derive(Clone, Debug)]
pub struct MemoryMoment {
    store: MemoryStore,
    applied: [Seq; 2],
    namespace: Rc<Namespace>,
    tables: Rc<BTreeMap<TableKey, Table>>,
    kept: Rc<MemoryKept>,
}

impl MemoryStore {
    /// The moment as it is now; none while the store is no state between two batches: during a replay or a copy.
    #[must_use]
    pub fn moment(&self) -> Option<MemoryMoment> {
        let inner = &mut *self.inner.borrow_mut();
        let copied = inner.copied_blocks.as_ref().or(inner.copied.as_ref());
        let copying = copied.is_some_and(Progress::is_under_way);
        if copying || inner.unsettled.is_any() || inner.recovery_points.submitted() != inner.applied {
            return None;
        }
        let kept = Rc::new(MemoryKept::default());
        inner.volumes.keep_for(&kept);
        let (namespace, tables) = (Rc::clone(&inner.namespace), Rc::new(inner.tables.clone()));
        Some(MemoryMoment { store: self.clone(), applied: inner.applied, namespace, tables, kept })
    }
}

impl MemoryMoment {
    /// The definitions.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// What volumes lost since.
    #[must_use]
    pub fn kept(&self) -> &MemoryKept {
        &self.kept
    }

    /// A range of a volume.
    ///
    /// # Errors
    /// [`Fault::UNCLEAN`] where a block is not what was written, and was not touched since.
    pub fn volume_bytes(&self, file: FileId, offset: u64, len: usize) -> Result<Bytes, Fault> {
        let (first, end) = (offset / BLOCK_U64, (offset + len as u64).div_ceil(BLOCK_U64));
        let (mut all, kept) = (Vec::new(), self.kept.blocks.borrow());
        for block in first..end {
            match kept.get(&(file, block)) {
                Some(held) => all.extend_from_slice(held),
                None if !self.store.wrong_blocks(file, block * BLOCK_U64, BLOCK_U64).is_empty() => {
                    return Err(Fault::UNCLEAN);
                }
                None => all.extend_from_slice(&self.store.volume_bytes(file, block * BLOCK_U64, BLOCK)),
            }
        }
        let skip = usize::try_from(offset - first * BLOCK_U64).unwrap_or(usize::MAX);
        Ok(Bytes::from(all).slice(skip..skip + len))
    }
}

impl StoreSnapshot for MemoryMoment {
    fn applied(&self) -> [Seq; 2] {
        self.applied
    }

    fn get(&self, file: FileId, generation: u32, id: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.tables.get(&(file, generation)).and_then(|table| table.items.get(id)).cloned())
    }

    fn scan(
        &self,
        file: FileId,
        generation: u32,
        after: Option<&[u8]>,
        limit: usize,
        with_values: bool,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        let Some(table) = self.tables.get(&(file, generation)) else { return Ok(Vec::new()) };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let range = table.items.range::<[u8], _>((from, Bound::Unbounded)).take(limit);
        let value = |value: &Bytes| if with_values { value.clone() } else { Bytes::new() };
        Ok(range.map(|(id, item)| (id.clone(), value(item))).collect())
    }

    fn items_at_most(&self, file: FileId, generation: u32) -> u64 {
        self.tables.get(&(file, generation)).map_or(0, |table| table.items.len() as u64)
    }

    fn estimate(&self, file: FileId, generation: u32, fits: Fits) -> Result<u64, StoreError> {
        let items = self.tables.get(&(file, generation)).into_iter().flat_map(|table| table.items.keys());
        Ok(items.filter(|id| fits(id)).count() as u64)
    }
}

//! Items of the model that rot: as a block of a table does, which holds nobody knows which items.

use super::{Inner, MemoryStore, TableKey, UndoChange};
use crate::base::FileId;
use crate::format::chunk::Chunk;
use crate::format::dptr::DptrKind;
use crate::store::rotten::Part;
use crate::store::{RottenItems, StoreError};
use bytes::Bytes;
use std::collections::BTreeSet;

/// Items of which those that were not written since cannot be read.
#[derive(Clone, Debug)]
pub(super) struct RottenRange {
    whole: Part,
    /// What was not covered yet.
    left: Vec<Part>,
    /// What was written since.
    known: BTreeSet<Bytes>,
}

fn is_in(id: &[u8], part: &Part) -> bool {
    id > &part.after[..] && (part.through.is_empty() || id <= &part.through[..])
}

impl RottenRange {
    fn is_of(&self, (file, generation): TableKey) -> bool {
        (self.whole.file, self.whole.generation) == (file, generation)
    }
}

impl Inner {
    fn refuse(&self) -> StoreError {
        self.rot_was_met.set(true);
        StoreError::Damaged { what: "a table", why: "a block is rotten".to_owned() }
    }

    /// Whether an item can be read.
    pub(super) fn can_read(&self, table: TableKey, id: &[u8]) -> Result<(), StoreError> {
        let hidden =
            |range: &RottenRange| range.is_of(table) && is_in(id, &range.whole) && !range.known.contains(id);
        if self.rot.iter().any(hidden) { Err(self.refuse()) } else { Ok(()) }
    }

    /// Whether all items behind `after` can be walked over, up to `last` if there are more.
    pub(super) fn can_walk(
        &self,
        table: TableKey,
        after: &[u8],
        last: Option<&[u8]>,
    ) -> Result<(), StoreError> {
        let is_met = |range: &RottenRange| {
            let whole = &range.whole;
            range.is_of(table)
                && (whole.through.is_empty() || whole.through[..] > *after)
                && last.is_none_or(|last| last > &whole.after[..])
        };
        if self.rot.iter().any(is_met) { Err(self.refuse()) } else { Ok(()) }
    }

    /// An item was written.
    pub(super) fn wrote(&mut self, table: TableKey, id: &Bytes) {
        for range in self.rot.iter_mut().filter(|range| range.is_of(table)) {
            if is_in(id, &range.whole) {
                range.known.insert(id.clone());
            }
        }
    }

    /// A range was made what a chunk says.
    pub(super) fn covered(&mut self, chunk: &Chunk, generation: u32) {
        let Some(part) = Part::of_chunk(chunk, generation) else { return };
        for range in &mut self.rot {
            let left = std::mem::take(&mut range.left).into_iter();
            range.left = left.flat_map(|left| left.without(&part)).collect();
        }
        self.rot.retain(|range| !range.left.is_empty());
    }

    /// A generation of a file is gone.
    pub(super) fn rot_goes(&mut self, table: TableKey) {
        self.rot.retain(|range| !range.is_of(table));
    }

    pub(super) fn take_rotten_items(&self) -> Vec<RottenItems> {
        if !self.rot_was_met.replace(false) {
            return Vec::new();
        }
        self.rot.iter().flat_map(|range| &range.left).map(Part::told).collect()
    }
}

impl MemoryStore {
    /// A block of a table rots, with all items behind `after` through `through` that are in tables. False if there is no
    /// such file of items.
    pub fn rot_items(&self, file: FileId, after: Bytes, through: Bytes) -> bool {
        let inner = &mut *self.inner.borrow_mut();
        let info = inner.namespace.file(file).filter(|info| info.dptr.kind == DptrKind::Records);
        let Some(generation) = info.map(|info| info.dptr.generation) else { return false };
        let whole = Part { file, generation, after, through };
        let mut range = RottenRange { left: vec![whole.clone()], whole, known: BTreeSet::new() };
        // What was written since the last checkpoint is in memory, and goes with it at a power loss.
        for step in &mut inner.undo {
            step.rot.push(range.clone());
            for change in &step.changes {
                if let UndoChange::Item(table, id, _) = change
                    && range.is_of(*table)
                    && is_in(id, &range.whole)
                {
                    range.known.insert(id.clone());
                }
            }
        }
        inner.rot.push(range);
        true
    }

    /// Whether any item cannot be read.
    #[must_use]
    pub fn has_rotten_items(&self) -> bool {
        !self.inner.borrow().rot.is_empty()
    }

    /// The rot is gone: what was there is there again, or, with `lose`, is lost.
    pub fn end_rot(&self, lose: bool) {
        let inner = &mut *self.inner.borrow_mut();
        for step in &mut inner.undo {
            step.rot.clear();
        }
        for range in std::mem::take(&mut inner.rot) {
            let key = (range.whole.file, range.whole.generation);
            let Some(table) = inner.tables.get_mut(&key).filter(|_| lose) else { continue };
            let hidden = |id: &&Bytes| is_in(id, &range.whole) && !range.known.contains(*id);
            let gone: Vec<Bytes> = table.items.keys().filter(hidden).cloned().collect();
            for id in gone {
                table.set(id, None);
            }
        }
    }
}

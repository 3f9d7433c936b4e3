//! The model's part in a copy of everything: what it gives, and what it takes.

use super::{Commit, Inner, MemoryStore, Undo, UndoChange};
use crate::base::{FileId, JournalKind, Seq};
use crate::format::chunk::{Chunk, Content, CopyBegin, Definitions, Progress, Want};
use crate::format::dptr::DptrKind;
use crate::format::rewind::{Prepared, Ranges};
use crate::store::due::damaged_entry;
use crate::store::namespace::FileInfo;
use crate::store::volumes::Plan;
use crate::store::{CopySource, CopyTarget, StoreError, StoreSnapshot, chunk};
use bytes::Bytes;
use std::ops::Bound;
use std::rc::Rc;

impl Inner {
    /// The copy is durable so far. When it is done, the list of a rewind is of no use.
    pub(super) fn copies_up_to(&mut self, progress: Progress) {
        if !progress.is_under_way() {
            self.prepared = None;
        }
        self.copied = Some(progress);
    }

    fn take_items(&mut self, file: FileId, chunk: &Chunk, step: &mut Undo) {
        let Content::Items { after, through, items } = &chunk.content else { return };
        let Some(info) = self.namespace.file(file) else { return };
        let key = (file, info.dptr.generation);
        let table = self.tables.entry(key).or_default();
        let until = if chunk.ends { Bound::Unbounded } else { Bound::Included(&through[..]) };
        let from = if after.is_empty() { Bound::Unbounded } else { Bound::Excluded(&after[..]) };
        let there: Vec<Bytes> =
            table.items.range::<[u8], _>((from, until)).map(|(id, _)| id.clone()).collect();
        let gone = there.into_iter().map(|id| (id, None));
        for (id, value) in gone.chain(items.iter().map(|(id, value)| (id.clone(), Some(value.clone())))) {
            let old = table.set(id.clone(), value);
            step.changes.push(UndoChange::Item(key, id, old));
        }
    }
}

impl CopyTarget for MemoryStore {
    fn begin_copy(&mut self, begin: &CopyBegin, ranges: Option<&Ranges>) -> Result<(), StoreError> {
        let inner = &mut *self.inner.borrow_mut();
        let mut step = inner.step(Commit::Begin);
        step.namespace = Some(Rc::clone(&inner.namespace));
        let goes = |(id, info): &(FileId, &FileInfo)| {
            info.replicated && ranges.is_none_or(|ranges| ranges.is_whole(*id))
        };
        let volumes: Vec<FileId> = inner.namespace.files().filter(goes).map(|(id, _)| id).collect();
        inner.volumes.apply(&Plan::of_emptied(volumes), |_| true);
        let out =
            Rc::make_mut(&mut inner.namespace).adopt(&begin.namespace, ranges).map_err(damaged_entry)?;
        for key in out.dropped {
            if let Some(table) = inner.tables.remove(&key) {
                step.changes.push(UndoChange::Table(key, table));
            }
        }
        inner.applied[0] = begin.origin.seq;
        inner.recovery_points.restarted(JournalKind::Replicated, begin.origin.seq);
        inner.dirty_from = inner.recovery_points.dirty_from();
        inner.copied = Some(Progress::at(begin.origin));
        (inner.copied_blocks, inner.copied_begun) = (None, None);
        if ranges.is_none() {
            inner.prepared = None;
        }
        inner.undo.push(step);
        Ok(())
    }

    fn prepare_rewind(&mut self, prepared: &Prepared) -> Result<(), StoreError> {
        let inner = &mut *self.inner.borrow_mut();
        let step = inner.step(Commit::Chunk);
        inner.prepared = Some(prepared.clone());
        inner.undo.push(step);
        Ok(())
    }

    fn take_chunk(&mut self, chunk: &Chunk, progress: &Progress) -> Result<(), StoreError> {
        let inner = &mut *self.inner.borrow_mut();
        if let Content::Blocks { offset, len, runs } = &chunk.content
            && inner.namespace.file(chunk.file).is_some()
        {
            inner.volumes.apply(&Plan::of_range(chunk.file, *offset, *len, runs), |_| true);
        }
        if matches!(chunk.content, Content::Blocks { .. }) || inner.copied_blocks.is_some() {
            inner.copied_blocks = Some(progress.clone());
            return Ok(());
        }
        let mut step = inner.step(Commit::Chunk);
        inner.take_items(chunk.file, chunk, &mut step);
        inner.copies_up_to(progress.clone());
        inner.undo.push(step);
        Ok(())
    }
}

impl CopySource for MemoryStore {
    fn definitions(&self) -> Result<(Seq, Definitions), StoreError> {
        let inner = self.inner.borrow();
        Ok((inner.applied[0], inner.namespace.definitions()))
    }

    fn range(&self, want: &Want) -> Result<Chunk, StoreError> {
        let inner = self.inner.borrow();
        let at = inner.applied[0];
        let gone = Chunk { id: want.id, file: want.file, at, until: at, content: Content::Gone, ends: true };
        let Some(info) = inner.namespace.file(want.file).filter(|info| info.replicated) else {
            return Ok(gone);
        };
        match (want.from.items(), want.from.blocks(), info.dptr.kind) {
            (Some(range), _, DptrKind::Records) => {
                let generation = info.dptr.generation;
                let ids = |after: &[u8], limit, _| self.scan(want.file, generation, Some(after), limit, true);
                Ok(chunk::of_items(gone, range, want.most, ids)?)
            }
            (_, Some(range), DptrKind::Blocks) => {
                let len = chunk::blocks_of(range, want.most, info.dptr.blocks);
                let bytes = inner.volumes.read(want.file, range.0, usize::try_from(len).unwrap_or(0));
                Ok(chunk::of_blocks(gone, range.0, bytes.into(), info.dptr.blocks))
            }
            _ => Ok(gone),
        }
    }
}

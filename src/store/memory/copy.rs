//! The model's part in a copy of everything: what it gives, and what it takes.

use super::{Commit, Inner, MemoryStore, Undo, UndoChange};
use crate::base::{FileId, JournalKind, Seq};
use crate::format::chunk::{Chunk, Content, CopyBegin, Definitions, Progress, Want};
use crate::format::compare::{DEFINITIONS, Span};
use crate::format::dptr::DptrKind;
use crate::format::rewind::{Prepared, Ranges};
use crate::store::StoreWrite as _;
use crate::store::due::damaged_entry;
use crate::store::namespace::FileInfo;
use crate::store::volumes::Plan;
use crate::store::{CompareTarget, CopySource, CopyTarget, Look, StoreError, StoreSnapshot, chunk, compare};
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
        self.covered(chunk, key.1);
        for change in &step.changes {
            if let UndoChange::Item(key, id, _) = change {
                self.wrote(*key, id);
            }
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
            inner.rot_goes(key);
        }
        inner.applied[0] = begin.origin.seq;
        inner.recovery_points.restarted(JournalKind::Replicated, begin.origin.seq);
        inner.dirty_from = inner.recovery_points.dirty_from();
        inner.copied = Some(Progress::of(begin));
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
    fn definitions(&self) -> Result<([Seq; 2], Definitions), StoreError> {
        let inner = self.inner.borrow();
        Ok((inner.applied, inner.namespace.definitions()))
    }

    fn size(&self) -> u64 {
        let inner = self.inner.borrow();
        let files: Vec<_> =
            inner.namespace.files().filter(|(_, info)| info.replicated).map(|(id, _)| id).collect();
        drop(inner);
        let items = |file: &FileId| {
            self.items(*file).iter().map(|(id, value)| (id.len() + value.len()) as u64).sum::<u64>()
        };
        files.iter().map(items).sum()
    }

    fn range(&self, want: &Want) -> Result<Chunk, StoreError> {
        let inner = self.inner.borrow();
        let at = inner.applied[0];
        let gone = Chunk { id: want.id, file: want.file, at, until: at, content: Content::Gone, ends: true };
        let Some(info) = inner.namespace.file(want.file) else { return Ok(gone) };
        match (want.from.items(), want.from.blocks(), info.dptr.kind) {
            (Some(range), _, DptrKind::Records) => {
                let generation = info.dptr.generation;
                let ids = |after: &[u8], limit, _| self.scan(want.file, generation, Some(after), limit, true);
                Ok(chunk::of_items(gone, range, want.most, ids)?)
            }
            (_, Some(range), DptrKind::Blocks) => {
                let looked = |at, len| Ok::<_, StoreError>(inner.volumes.allocation(want.file, at, len));
                if let Some(len) = chunk::hole_from(range, want.most, info.dptr.blocks, looked)? {
                    return Ok(chunk::of_hole(gone, range.0, len, info.dptr.blocks));
                }
                let len = chunk::blocks_of(range, want.most, info.dptr.blocks);
                let bytes = inner.volumes.read(want.file, range.0, usize::try_from(len).unwrap_or(0));
                Ok(chunk::of_blocks(gone, range.0, bytes.into(), info.dptr.blocks))
            }
            _ => Ok(gone),
        }
    }
}

impl CompareTarget for MemoryStore {
    fn look(&mut self, file: FileId, span: &Span, most: u32) -> Result<Look, StoreError> {
        let inner = self.inner.borrow();
        let at = inner.applied[0];
        let nothing = compare::nothing(file, at);
        let info = inner.namespace.file(file).filter(|info| compare::is_common(info));
        let found = match (span, info.map(|info| (info.dptr.kind, &info.dptr))) {
            (Span::Items { after, through }, _) if file == DEFINITIONS => {
                compare::up_to(compare::definitions(&inner.namespace, at, after), through)
            }
            (Span::Items { after, through }, Some((DptrKind::Records, dptr))) => {
                let ids = |after: &[u8], limit, _| self.scan(file, dptr.generation, Some(after), limit, true);
                compare::up_to(chunk::of_items(nothing, (after, None), most, ids)?, through)
            }
            (Span::Blocks { offset, len }, Some((DptrKind::Blocks, dptr))) => {
                let blocks = dptr.blocks;
                let range = (*offset, Some(offset.saturating_add(*len)));
                let looked = |at, len| Ok::<_, StoreError>(inner.volumes.allocation(file, at, len));
                match chunk::hole_from(range, most, blocks, looked)? {
                    Some(len) => chunk::of_hole(nothing, *offset, len, blocks),
                    None => {
                        let len = usize::try_from(chunk::blocks_of(range, most, blocks)).unwrap_or(0);
                        drop(inner);
                        let bytes = self.read_volume(file, *offset, len)?;
                        chunk::of_blocks(nothing, *offset, bytes, blocks)
                    }
                }
            }
            _ => nothing,
        };
        Ok(Look { at, read: Box::new(move || Ok(found)) })
    }

    fn shown(&self) -> Seq {
        self.inner.borrow().applied[0]
    }

    fn repair(&mut self, chunk: &Chunk) -> Result<(), StoreError> {
        let inner = &mut *self.inner.borrow_mut();
        if inner.namespace.file(chunk.file).is_none_or(|info| !compare::is_common(info)) {
            return Err(compare::not_common());
        }
        if let Content::Blocks { offset, len, runs } = &chunk.content {
            inner.volumes.apply(&Plan::of_range(chunk.file, *offset, *len, runs), |_| true);
            return Ok(());
        }
        let mut step = inner.step(Commit::Chunk);
        inner.take_items(chunk.file, chunk, &mut step);
        inner.undo.push(step);
        Ok(())
    }
}

//! How this store gives a copy of what is replicated, and how it becomes one.

use super::super::volumes::allocation_of;
use super::super::{
    CompareTarget, CopySource, CopyTarget, Look, StoreError, StoreSnapshot, chunk, compare, keys,
};
use super::flush::Shared;
use super::read::{Limit, Snapshot, StoreReader};
use super::{Staged, StoreWriter, damaged, damaged_record, load};
use crate::base::limits::{BLOCK, BLOCK_U64};
use crate::base::{Fault, FileId, JournalKind, Ordinal, Seq};
use crate::format::chunk::{Chunk, Content, CopyBegin, Definitions, Progress, Want};
use crate::format::compare::{DEFINITIONS, Span};
use crate::format::dptr::{Dptr, DptrKind};
use crate::format::rewind::{Prepared, Ranges};
use crate::store::due::damaged_entry;
use crate::store::namespace::{Namespace, Outcome};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Reads a range of a volume in a directory, whose every block is checked, from any thread.
pub type VolumeRead = fn(&Path, FileId, u64, usize) -> Result<Bytes, Fault>;

/// Items that are looked at together when a range is replaced.
const STEP: usize = 1024;

/// What is read for a copy.
pub struct CopyReader {
    shared: Arc<Shared>,
    node: Ordinal,
    volumes: PathBuf,
    read_volume: VolumeRead,
    /// See [`CopyReader::naming_lost`].
    names_lost: bool,
}

impl std::fmt::Debug for CopyReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CopyReader")
    }
}

impl StoreReader {
    /// Reads for a copy, of items here and of the volumes in a directory by `read_volume`.
    #[must_use]
    pub fn for_copies(&self, node: Ordinal, volumes: &Path, read_volume: VolumeRead) -> CopyReader {
        CopyReader {
            shared: Arc::clone(&self.shared),
            node,
            volumes: volumes.to_owned(),
            read_volume,
            names_lost: false,
        }
    }
}

impl CopyReader {
    /// From now on a block of a volume that is rotten is a chunk that says so, instead of the end of the copy.
    #[must_use]
    pub fn naming_lost(self) -> Self {
        Self { names_lost: true, ..self }
    }

    /// Reads a range up to its first rotten block; none if that is where it begins.
    fn whole_part(&self, file: FileId, offset: u64, len: u64) -> Result<Option<Bytes>, Fault> {
        let read = |offset, len| {
            let len = usize::try_from(len).unwrap_or(usize::MAX);
            (self.read_volume)(&self.volumes, file, offset, len)
        };
        match read(offset, len) {
            Err(Fault::UNCLEAN) if self.names_lost => {}
            found => return found.map(Some),
        }
        let mut whole = Vec::new();
        for at in (offset..offset + len).step_by(BLOCK) {
            match read(at, BLOCK_U64) {
                Ok(block) => whole.extend_from_slice(&block),
                Err(Fault::UNCLEAN) => break,
                Err(fault) => return Err(fault),
            }
        }
        Ok((!whole.is_empty()).then(|| Bytes::from(whole)))
    }
}

impl CopySource for CopyReader {
    fn definitions(&self) -> Result<([Seq; 2], Definitions), StoreError> {
        let snapshot = Snapshot::newest(&self.shared);
        let state = load(&snapshot, self.node)?.ok_or_else(|| damaged("its records", "they are gone"))?;
        Ok((snapshot.applied(), state.namespace.definitions()))
    }

    fn size(&self) -> u64 {
        self.shared.stored_bytes() + taken(&self.volumes)
    }

    fn range(&self, want: &Want) -> Result<Chunk, StoreError> {
        let snapshot = Snapshot::newest(&self.shared);
        let at = snapshot.applied()[0];
        let empty = Chunk { id: want.id, file: want.file, at, until: at, content: Content::Gone, ends: true };
        let Some(record) = snapshot.record(&keys::dptr(want.file))? else { return Ok(empty) };
        let dptr = Dptr::decode(&record).map_err(damaged_record)?;
        match (want.from.items(), want.from.blocks(), dptr.kind) {
            (Some(range), _, DptrKind::Records) => {
                let table = (want.file, dptr.generation);
                let scan =
                    |after: &[u8], items, bytes| snapshot.scan_bytes(table, after, Limit { items, bytes });
                chunk::of_items(empty, range, want.most, scan)
            }
            (_, Some(range), DptrKind::Blocks) => {
                let failed = |fault| StoreError::Disk { doing: "reading a volume", fault };
                let looked = |at, len| {
                    allocation_of(&self.volumes, want.file, at, len).map_err(|e| Fault::from_io(&e))
                };
                let hole = chunk::hole_from(range, want.most, dptr.blocks, looked).map_err(failed)?;
                if let Some(len) = hole {
                    return Ok(chunk::of_hole(empty, range.0, len, dptr.blocks));
                }
                let (offset, len) = (range.0, chunk::blocks_of(range, want.most, dptr.blocks));
                match self.whole_part(want.file, offset, len).map_err(failed)? {
                    Some(bytes) => Ok(chunk::of_blocks(empty, offset, bytes, dptr.blocks)),
                    None => Ok(chunk::of_lost(empty, offset, dptr.blocks)),
                }
            }
            _ => Ok(empty),
        }
    }
}

/// What the files in a directory take of the disk (bytes); what cannot be looked at counts nothing.
fn taken(dir: &Path) -> u64 {
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten();
    files.filter_map(|file| file.metadata().ok()).map(|meta| meta.blocks() * 512).sum()
}

impl StoreWriter {
    /// How far the copy is that this store is given, if it ever was given one.
    #[must_use]
    pub fn copied(&self) -> Option<&Progress> {
        self.state.copied.as_ref()
    }

    /// Items of generations that are to be purged and that new definitions name again go first.
    fn purge_again(&mut self) -> Result<(), StoreError> {
        let namespace = &self.state.namespace;
        let again = |(file, generation): &(FileId, u32)| {
            namespace.file(*file).is_some_and(|info| info.dptr.generation == *generation)
        };
        let due: Vec<_> = self.state.purge.iter().copied().filter(again).collect();
        for table in due {
            let mut after = Bytes::new();
            loop {
                self.make_room()?;
                let found = self.ids_behind(&Snapshot::newest(&self.shared), table, &after, STEP)?;
                let staged: Vec<_> = found
                    .iter()
                    .map(|(id, _)| Staged { table, id: id.as_ref().into(), value: None })
                    .collect();
                self.commit(&staged);
                match found.last() {
                    Some((id, _)) if found.len() == STEP => after = id.clone(),
                    _ => break,
                }
            }
            self.state.purge.remove(&table);
            self.commit(&[Staged::record(&keys::purge(table.0, table.1), None)]);
        }
        Ok(())
    }

    /// How far the copy is changes.
    pub(super) fn copied_up_to(&mut self, progress: Progress) {
        self.volumes.set_copying(progress.is_under_way());
        if !progress.is_under_way() {
            self.state.prepared = None;
        }
        self.state.copied = Some(progress);
    }

    fn stage_copy(&mut self, begin: &CopyBegin, ranges: Option<&Ranges>) -> Result<(), StoreError> {
        let out = self.state.namespace.adopt(&begin.namespace, ranges).map_err(damaged_entry)?;
        self.purge_again()?;
        let mut staged = self.stage_adopted(out);
        staged.push(Staged::record(&keys::COPY, Some(Progress::of(begin).encode())));
        if ranges.is_none() {
            staged.push(Staged::record(&keys::REWIND, None));
            self.state.prepared = None;
        }
        self.state.applied[JournalKind::Replicated.index()] = begin.origin.seq;
        self.commit(&staged);
        Ok(())
    }

    /// The records of definitions that took the place of others.
    fn stage_adopted(&mut self, out: Outcome) -> Vec<Staged<'static>> {
        let namespace = &self.state.namespace;
        let mut staged: Vec<_> =
            out.records.iter().map(|id| Staged::record(&keys::dptr(*id), namespace.record(*id))).collect();
        staged.push(Staged::record(&keys::NAMESPACE, Some(namespace.meta())));
        let number = self.shared.view().active.number;
        for (file, generation) in out.dropped {
            staged.push(Staged::record(&keys::purge(file, generation), Some(Vec::new())));
            self.state.purge.insert((file, generation));
            self.dropped.insert(file, number);
        }
        staged
    }

    /// Replaces all that this node has alone by what a save holds of its node's (see [`Namespace::adopt_alone`]), beside both
    /// journals. The next checkpoint makes that durable.
    ///
    /// # Errors
    /// Any [`StoreError`]; it may be done again.
    pub fn adopt_alone(
        &mut self,
        definitions: &Definitions,
        ids: &mut BTreeMap<FileId, FileId>,
    ) -> Result<(), StoreError> {
        self.ready()?;
        self.make_room()?;
        let kind = |namespace: &Namespace, id| namespace.file(id).map(|info| info.dptr.kind);
        let before = self.state.namespace.clone();
        let out = self.state.namespace.adopt_alone(definitions, ids, self.node).map_err(damaged_entry)?;
        let volumes = out.dropped.iter().map(|(id, _)| *id);
        let volumes = volumes.filter(|id| kind(&before, *id) == Some(DptrKind::Blocks)).collect();
        if let Err(error) = self.volumes.empty(volumes) {
            self.heard_of_sync();
            self.state.namespace = before;
            return Err(error);
        }
        self.purge_again()?;
        let staged = self.stage_adopted(out);
        self.commit(&staged);
        Ok(())
    }

    /// Makes a range of a file that this node has alone what a chunk says. The next checkpoint makes that durable.
    ///
    /// # Errors
    /// Any [`StoreError`]; it may be done again.
    pub fn take_alone(&mut self, chunk: &Chunk) -> Result<(), StoreError> {
        self.ready()?;
        let info = self.state.namespace.file(chunk.file).filter(|info| !info.replicated);
        let known = info.map(|info| (info.dptr.kind, info.dptr.generation));
        if chunk.content == Content::Gone { Ok(()) } else { self.replace(chunk, known) }
    }

    /// Accounts and files.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.state.namespace
    }

    /// Makes a range of a file of that kind and generation what a chunk says, beside both journals.
    fn replace(&mut self, chunk: &Chunk, known: Option<(DptrKind, u32)>) -> Result<(), StoreError> {
        match (&chunk.content, known) {
            (Content::Blocks { offset, len, runs }, Some((DptrKind::Blocks, _))) => {
                self.volumes.set_range(chunk.file, *offset, *len, runs).inspect_err(|_| self.heard_of_sync())
            }
            (Content::Items { .. }, Some((DptrKind::Records, generation))) => {
                self.make_room()?;
                let staged = self.stage_items(chunk, generation)?;
                self.commit(&staged);
                self.covered(chunk, generation)
            }
            _ => Err(compare::not_common()),
        }
    }

    /// Defines what a save holds the definitions of alone, as far as it is not here: empty, beside both journals. The next
    /// checkpoint makes that durable.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub fn define_alone(&mut self, saved: &Namespace) -> Result<(), StoreError> {
        self.ready()?;
        self.make_room()?;
        let mut records = BTreeSet::new();
        for entry in self.state.namespace.define_alone(saved, self.node) {
            let local = JournalKind::Local;
            let out = self.state.namespace.apply(self.node, local, &entry.entry()).map_err(damaged_entry)?;
            records.extend(out.records);
        }
        let namespace = &self.state.namespace;
        let mut staged: Vec<_> =
            records.iter().map(|id| Staged::record(&keys::dptr(*id), namespace.record(*id))).collect();
        staged.push(Staged::record(&keys::NAMESPACE, Some(namespace.meta())));
        self.commit(&staged);
        Ok(())
    }

    /// What a range of a record file has that a chunk does not, and what the chunk has.
    fn stage_items<'a>(&self, chunk: &'a Chunk, generation: u32) -> Result<Vec<Staged<'a>>, StoreError> {
        let Content::Items { after, through, items } = &chunk.content else { return Ok(Vec::new()) };
        let table = (chunk.file, generation);
        let kept: BTreeSet<&[u8]> = items.iter().map(|(id, _)| id.as_ref()).collect();
        let snapshot = Snapshot::newest(&self.shared);
        let mut staged = Vec::with_capacity(items.len());
        let mut last = after.clone();
        loop {
            let found = self.ids_behind(&snapshot, table, &last, STEP)?;
            let more = found.len() == STEP;
            let mut beyond = false;
            for (id, _) in found {
                beyond = !chunk.ends && id > *through;
                if beyond {
                    break;
                }
                if !kept.contains(id.as_ref()) {
                    staged.push(Staged { table, id: id.to_vec().into(), value: None });
                }
                last = id;
            }
            if beyond || !more {
                break;
            }
        }
        staged.extend(items.iter().map(|(id, value)| Staged {
            table,
            id: id.as_ref().into(),
            value: Some(value.as_ref().into()),
        }));
        Ok(staged)
    }
}

impl CopyTarget for StoreWriter {
    fn begin_copy(&mut self, begin: &CopyBegin, ranges: Option<&Ranges>) -> Result<(), StoreError> {
        self.ready()?;
        self.make_room()?;
        let goes = |file| ranges.is_none_or(|ranges| ranges.is_whole(file));
        let replicated: Vec<FileId> = self
            .state
            .namespace
            .files()
            .filter(|(id, info)| info.replicated && info.dptr.kind == DptrKind::Blocks && goes(*id))
            .map(|(id, _)| id)
            .collect();
        self.volumes
            .restart_at(JournalKind::Replicated, begin.origin.seq, replicated)
            .inspect_err(|_| self.heard_of_sync())?;
        if let Err(error) = self.stage_copy(begin, ranges) {
            self.take_back()?;
            return Err(error);
        }
        self.state.copied = Some(Progress::of(begin));
        self.volumes.set_copying(true);
        self.copied_blocks = CopiedBlocks::default();
        Ok(())
    }

    fn prepare_rewind(&mut self, prepared: &Prepared) -> Result<(), StoreError> {
        self.ready()?;
        self.make_room()?;
        let record = prepared.encode().map_err(damaged_record)?;
        self.commit(&[Staged::record(&keys::REWIND, Some(record))]);
        self.state.prepared = Some(prepared.clone());
        Ok(())
    }

    fn take_chunk(&mut self, chunk: &Chunk, progress: &Progress) -> Result<(), StoreError> {
        self.ready()?;
        let info = self.state.namespace.file(chunk.file).filter(|info| info.replicated);
        let known = info.map(|info| (info.dptr.kind, info.dptr.generation));
        if let (Content::Blocks { offset, len, runs }, Some((DptrKind::Blocks, _))) = (&chunk.content, known)
        {
            self.volumes.set_range(chunk.file, *offset, *len, runs).inspect_err(|_| self.heard_of_sync())?;
        }
        // Blocks are durable after a sync only, and what comes behind them must not be told before they are.
        if matches!(chunk.content, Content::Blocks { .. }) || self.copied_blocks.taken.is_some() {
            self.copied_blocks.taken = Some(progress.clone());
            return Ok(());
        }
        self.make_room()?;
        let mut staged = match known {
            Some((DptrKind::Records, generation)) => self.stage_items(chunk, generation)?,
            _ => Vec::new(),
        };
        staged.extend(staged_progress(progress));
        self.commit(&staged);
        self.copied_up_to(progress.clone());
        match known {
            Some((DptrKind::Records, generation)) => self.covered(chunk, generation),
            _ => Ok(()),
        }
    }
}

impl CompareTarget for StoreWriter {
    fn look(&mut self, file: FileId, span: &Span, most: u32) -> Result<Look, StoreError> {
        let at = self.state.applied[JournalKind::Replicated.index()];
        let nothing = compare::nothing(file, at);
        let done = |chunk: Chunk| Ok(Look { at, read: Box::new(move || Ok(chunk)) });
        if let (DEFINITIONS, Span::Items { after, through }) = (file, span) {
            let all = compare::definitions(&self.state.namespace, at, after);
            return done(compare::up_to(all, through));
        }
        let info = self.state.namespace.file(file).filter(|info| compare::is_common(info));
        let Some((kind, generation, blocks)) =
            info.map(|info| (info.dptr.kind, info.dptr.generation, info.dptr.blocks))
        else {
            return done(nothing);
        };
        match (span, kind) {
            (Span::Items { after, through }, DptrKind::Records) => {
                let snapshot = Snapshot::newest(&self.shared);
                let (after, through) = (after.clone(), through.clone());
                let read = move || {
                    let scan = |after: &[u8], items, bytes| {
                        snapshot.scan_bytes((file, generation), after, Limit { items, bytes })
                    };
                    let found = chunk::of_items(nothing, (&after, None), most, scan)?;
                    Ok(compare::up_to(found, &through))
                };
                Ok(Look { at, read: Box::new(read) })
            }
            (Span::Blocks { offset, len }, DptrKind::Blocks) => {
                let range = (*offset, Some(offset.saturating_add(*len)));
                let looked = |at, len| self.volumes.allocation(file, at, len);
                if let Some(len) = chunk::hole_from(range, most, blocks, looked)? {
                    return done(chunk::of_hole(nothing, *offset, len, blocks));
                }
                let len = usize::try_from(chunk::blocks_of(range, most, blocks)).unwrap_or(usize::MAX);
                let (offset, bytes) = (*offset, self.volumes.read(file, *offset, len)?);
                Ok(Look { at, read: Box::new(move || Ok(chunk::of_blocks(nothing, offset, bytes, blocks))) })
            }
            _ => done(nothing),
        }
    }

    fn shown(&self) -> Seq {
        self.state.applied[JournalKind::Replicated.index()]
    }

    fn repair(&mut self, chunk: &Chunk) -> Result<(), StoreError> {
        self.ready()?;
        let info = self.state.namespace.file(chunk.file).filter(|info| compare::is_common(info));
        let known = info.map(|info| (info.dptr.kind, info.dptr.generation));
        self.replace(chunk, known)
    }
}

/// Records how far a copy is. When it is done, the list of a rewind is of no use.
pub(super) fn staged_progress(progress: &Progress) -> Vec<Staged<'static>> {
    let mut staged = vec![Staged::record(&keys::COPY, Some(progress.encode()))];
    if !progress.is_under_way() {
        staged.push(Staged::record(&keys::REWIND, None));
    }
    staged
}

/// How far a copy is with blocks that a crash may still take.
#[derive(Debug, Default)]
pub(super) struct CopiedBlocks {
    /// With all that were taken.
    pub(super) taken: Option<Progress>,
    /// With those that the sync under way makes durable.
    pub(super) syncing: Option<Progress>,
    /// With those that are durable, and of which the store has not been told.
    pub(super) synced: Option<Progress>,
}

impl CopiedBlocks {
    /// A sync begins.
    pub(super) fn begin(&mut self) {
        self.syncing.clone_from(&self.taken);
    }

    /// It succeeded; if none was `begun`, all is synced.
    pub(super) fn synced(&mut self, begun: bool) {
        self.synced = if begun { self.syncing.take() } else { self.taken.clone() };
    }
}

//! What the doors of a view may ask for.

use super::{ViewBlocks, ViewOf};
use crate::base::limits::{BLOCK_U64, ITEM_ID_MAX, ITEM_VALUE_MAX, VIEW_ITEMS_MAX};
use crate::base::{AckLevel, Fault, FileId, JournalKind, Seq, Wait};
use crate::doors::{
    Allocation, Backend, BlockBackend, Change, CommitWatermarks, CountOf, Draft, FetchId, IfCold, ItemHash,
    Payload, Piece, Refusal, ReplicationView, Scanned, Unread, Update, Volume,
};
use crate::engine::blocks::key_of_export;
use crate::engine::changes::ItemHasher;
use crate::engine::fetches::fits;
use crate::format::dptr::DptrKind;
use crate::store::namespace::FileInfo;
use crate::store::{StoreError, StoreSnapshot};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};

/// What is counted for an item that was written beside its bytes.
const ITEM_COST: usize = 96;

/// An answer for the NBD door.
#[derive(Debug)]
pub(super) enum Answer {
    Read(u64, Result<Vec<Piece>, Refusal>),
    Allocation(u64, Result<Vec<Allocation>, Refusal>),
}

/// The moment, and what was written over it.
#[derive(Debug)]
pub(super) struct ViewBackend<S, B> {
    of: ViewOf<S, B>,
    /// Items that were written; none where they were deleted.
    items: BTreeMap<(FileId, Bytes), Option<Bytes>>,
    written: usize,
    /// What clients changed, as long as somebody wants to know.
    changes: Option<VecDeque<Change>>,
    hasher: ItemHasher,
    answers: Vec<Answer>,
}

/// Nothing has to be waited for: nothing here is safe, or ever will be.
const AT_ONCE: Wait = Wait { journal: JournalKind::Local, seq: Seq(0), level: AckLevel::Local };

fn unread(error: &StoreError) -> Refusal {
    Refusal::Store(error.to_string())
}

fn failed(fault: Fault) -> Refusal {
    match fault {
        Fault::NoSpace => Refusal::NoSpace,
        fault => Refusal::Store(format!("reading a volume of the view: {fault}")),
    }
}

impl<S: StoreSnapshot, B: ViewBlocks> ViewBackend<S, B> {
    pub(super) fn new(of: ViewOf<S, B>, seed: u64) -> Self {
        let (items, hasher) = (BTreeMap::new(), ItemHasher::new(seed));
        Self { of, items, written: 0, changes: None, hasher, answers: Vec::new() }
    }

    pub(super) fn take_answers(&mut self) -> Vec<Answer> {
        std::mem::take(&mut self.answers)
    }

    pub(super) fn written(&self) -> usize {
        self.written
    }

    fn info(&self, file: FileId) -> Result<&FileInfo, Refusal> {
        self.of.namespace.file(file).ok_or_else(|| Refusal::NoSuchFile(format!("with id {file}")))
    }

    fn generation(&self, file: FileId) -> Result<u32, Refusal> {
        Ok(self.info(file)?.dptr.generation)
    }

    /// Whether items of so many bytes more may be written.
    fn check(&self, more: usize) -> Result<(), Refusal> {
        if !self.of.writable {
            return Err(Refusal::ReadOnly);
        }
        let found = self.written + more;
        if found > VIEW_ITEMS_MAX {
            let what = "what is written to a view";
            return Err(Refusal::TooLarge { what, found, limit: "at most 64 MiB of items" });
        }
        Ok(())
    }

    fn set(&mut self, file: FileId, id: Bytes, value: Option<Bytes>) {
        let cost = |id: &Bytes, value: Option<&Bytes>| ITEM_COST + id.len() + value.map_or(0, Bytes::len);
        self.written += cost(&id, value.as_ref());
        if let Some(changes) = &mut self.changes {
            changes.push_back(Change::Item(self.hasher.item(file, &id)));
        }
        if let Some(before) = self.items.insert((file, id.clone()), value) {
            self.written -= cost(&id, before.as_ref());
        }
    }

    fn blocks_of(&self, file: FileId) -> Result<&FileInfo, Refusal> {
        let info = self.info(file)?;
        match info.dptr.kind {
            DptrKind::Blocks => Ok(info),
            DptrKind::Records | DptrKind::Account => Err(Refusal::NotBlocks(info.key.clone())),
        }
    }

    fn changes_blocks(&self, file: FileId) -> Result<(), Refusal> {
        self.blocks_of(file)?;
        if self.of.writable { Ok(()) } else { Err(Refusal::ReadOnly) }
    }
}

impl<S: StoreSnapshot, B: ViewBlocks> Backend for ViewBackend<S, B> {
    fn resolve(&self, account_and_file: &[u8]) -> Result<FileId, Refusal> {
        let name = || String::from_utf8_lossy(account_and_file).into_owned();
        let id = self.of.namespace.resolve(account_and_file).ok_or_else(|| Refusal::NoSuchFile(name()))?;
        match self.info(id)?.dptr.kind {
            DptrKind::Records => Ok(id),
            DptrKind::Blocks | DptrKind::Account => Err(Refusal::NotRecords(name())),
        }
    }

    fn read(&mut self, file: FileId, id: &[u8], _: IfCold) -> Result<(Option<Bytes>, Option<Wait>), Unread> {
        let generation = self.generation(file)?;
        if let Some(value) = self.items.get(&(file, Bytes::copy_from_slice(id))) {
            return Ok((value.clone(), None));
        }
        let value = self.of.items.get(file, generation, id).map_err(|error| unread(&error))?;
        Ok((value, None))
    }

    fn fetch(&mut self, _file: FileId, _id: &[u8]) -> Option<FetchId> {
        None
    }

    fn update(&mut self, updates: &[Update<'_>]) -> Result<Wait, Refusal> {
        let mut more = 0;
        for update in updates {
            let (file, id, value) = match update {
                Update::Put { file, id, value } => (file, id, value.len()),
                Update::Delete { file, id } => (file, id, 0),
            };
            self.info(*file)?;
            if id.is_empty() || id.len() > ITEM_ID_MAX {
                return Err(Refusal::TooLarge { what: "item id", found: id.len(), limit: "1 to 255 bytes" });
            }
            if value > ITEM_VALUE_MAX {
                return Err(Refusal::TooLarge { what: "item value", found: value, limit: "at most 16 MiB" });
            }
            more += ITEM_COST + id.len() + value;
        }
        self.check(more)?;
        for update in updates {
            let (file, id, value) = match update {
                Update::Put { file, id, value } => (*file, id, Some(Bytes::copy_from_slice(value))),
                Update::Delete { file, id } => (*file, id, None),
            };
            self.set(file, Bytes::copy_from_slice(id), value);
        }
        Ok(AT_ONCE)
    }

    fn commit(&mut self, draft: Draft) -> Result<Wait, Refusal> {
        draft.files().iter().try_for_each(|file| self.info(*file).map(drop))?;
        self.check(draft.bytes() + draft.len() * ITEM_COST)?;
        for item in draft.items().iter().filter(|item| item.is_newest()) {
            self.set(item.file, Bytes::copy_from_slice(&item.id), item.value.clone());
        }
        Ok(AT_ONCE)
    }

    fn scan(
        &mut self,
        file: FileId,
        after: Option<&[u8]>,
        limit: usize,
        _: IfCold,
    ) -> Result<Scanned, Unread> {
        let (generation, limit) = (self.generation(file)?, limit.max(1));
        let stored = self.of.items.scan(file, generation, after, limit, false).map_err(|e| unread(&e))?;
        let from = (file, after.map_or_else(Bytes::new, Bytes::copy_from_slice));
        let written =
            self.items.range(from..).filter(|((of, id), _)| *of != file || Some(id.as_ref()) != after);
        let written: Vec<_> = written.take_while(|((of, _), _)| *of == file).take(limit).collect();
        // Beyond the end of either of the two nothing is known.
        let end = |len: usize, last: Option<Bytes>| last.filter(|_| len == limit);
        let ends = [
            end(stored.len(), stored.last().map(|(id, _)| id.clone())),
            end(written.len(), written.last().map(|((_, id), _)| id.clone())),
        ];
        let next = ends.into_iter().flatten().min();
        let mut ids: BTreeMap<Bytes, bool> = stored.into_iter().map(|(id, _)| (id, true)).collect();
        ids.extend(written.iter().map(|((_, id), value)| (id.clone(), value.is_some())));
        let within = |id: &Bytes| next.as_ref().is_none_or(|next| id <= next);
        let looked = written.len();
        let ids = ids.into_iter().filter(|(id, there)| *there && within(id)).map(|(id, _)| id).collect();
        Ok(Scanned { ids, next, looked, wait: None })
    }

    fn items_at_most(&self, file: FileId) -> u64 {
        let stored =
            self.generation(file).map_or(0, |generation| self.of.items.items_at_most(file, generation));
        stored + self.items.len() as u64
    }

    fn estimate(&mut self, file: FileId, of: CountOf, _: IfCold) -> Result<u64, Unread> {
        let generation = self.generation(file)?;
        Ok(self.of.items.estimate(file, generation, fits(of)).map_err(|error| unread(&error))?)
    }

    fn record_files(&self) -> Vec<(FileId, String)> {
        let records = |info: &FileInfo| info.dptr.kind == DptrKind::Records && !info.key.is_empty();
        let files = self.of.namespace.files().filter(|(_, info)| records(info));
        files.map(|(id, info)| (id, info.key.clone())).collect()
    }

    fn next_record_file(&self, from: FileId) -> Option<(FileId, String)> {
        self.record_files().into_iter().find(|(id, _)| *id >= from)
    }

    fn item_hash(&self, file: FileId, id: &[u8]) -> ItemHash {
        self.hasher.item(file, id)
    }

    fn want_changes(&mut self, wanted: bool) {
        self.changes = wanted.then(|| self.changes.take().unwrap_or_default());
    }

    fn next_change(&mut self) -> Option<Change> {
        self.changes.as_mut()?.pop_front()
    }

    fn watermarks(&self) -> CommitWatermarks {
        CommitWatermarks { durable: [Seq(u64::MAX); 2], replicated: [Seq(u64::MAX); 4] }
    }

    fn appended(&self) -> Seq {
        self.of.applied[JournalKind::Replicated.index()]
    }

    fn peer_acked(&self) -> [Seq; 3] {
        [Seq(0); 3]
    }

    fn congested(&self) -> bool {
        false
    }

    fn view(&self) -> ReplicationView {
        let (applied, epoch) = (self.appended(), self.of.epoch);
        ReplicationView {
            primary: self.of.writable,
            epoch,
            appended: applied,
            applied,
            ..ReplicationView::default()
        }
    }
}

impl<S: StoreSnapshot, B: ViewBlocks> BlockBackend for ViewBackend<S, B> {
    fn volumes(&self) -> Vec<Volume> {
        let files = self.of.namespace.files();
        let blocks = files.filter(|(_, info)| info.dptr.kind == DptrKind::Blocks && !info.key.is_empty());
        blocks.filter_map(|(file, _)| self.volume(file).ok()).collect()
    }

    fn volume_named(&self, name: &[u8]) -> Result<Volume, Refusal> {
        let unknown = || Refusal::NoSuchFile(String::from_utf8_lossy(name).into_owned());
        let key = key_of_export(name).ok_or_else(unknown)?;
        self.volume(self.of.namespace.resolve(&key).ok_or_else(unknown)?)
    }

    fn volume(&self, file: FileId) -> Result<Volume, Refusal> {
        let info = self.blocks_of(file)?;
        let (name, bytes) = (info.key.replacen(',', "/", 1), info.dptr.blocks * BLOCK_U64);
        Ok(Volume { file, name, bytes, writable: self.of.writable })
    }

    fn write_blocks(&mut self, file: FileId, offset: u64, payload: Payload<'_>) -> Result<Wait, Refusal> {
        self.changes_blocks(file)?;
        self.of.blocks.write(file, offset, payload.bytes()).map_err(failed)?;
        Ok(AT_ONCE)
    }

    fn zero_blocks(&mut self, file: FileId, offset: u64, len: u64, _hole: bool) -> Result<Wait, Refusal> {
        self.changes_blocks(file)?;
        self.of.blocks.zero(file, offset, len).map_err(failed)?;
        Ok(AT_ONCE)
    }

    fn flush_blocks(&mut self, file: FileId) -> Result<[Wait; 2], Refusal> {
        self.blocks_of(file)?;
        Ok([AT_ONCE; 2])
    }

    fn read_blocks(&mut self, token: u64, file: FileId, offset: u64, len: u32) -> Result<(), Refusal> {
        self.blocks_of(file)?;
        let result = self.of.blocks.read(file, offset, len as usize);
        let result = result.map(|bytes| vec![Piece::Data(bytes)]).map_err(failed);
        self.answers.push(Answer::Read(token, result));
        Ok(())
    }

    fn allocation(&mut self, token: u64, file: FileId, offset: u64, len: u64) -> Result<(), Refusal> {
        self.blocks_of(file)?;
        let parts = self.of.blocks.allocation(file, offset, len).map_err(failed);
        let parts =
            parts.map(|parts| parts.into_iter().map(|(len, hole)| Allocation { len, hole }).collect());
        self.answers.push(Answer::Allocation(token, parts));
        Ok(())
    }

    fn watermarks(&self) -> CommitWatermarks {
        Backend::watermarks(self)
    }

    fn blocks_congested(&self) -> bool {
        false
    }
}

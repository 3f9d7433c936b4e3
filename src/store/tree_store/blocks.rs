//! Reads of tables that never wait for the disk: of blocks in the cache of blocks, and of blocks that the page cache holds.
//!
//! The tree's own reads open files and read them, however long that takes. Here each block of the way to an item (filter,
//! index, data) is looked up in the tree's cache; one that is not there is read with a call that does not wait, checked,
//! and put into the cache. Where that call would have to wait, the answer is [`Tried::Cold`].
//!
//! - Invariant: what is answered is what the tree's own read of the same tables answers. A test compares the two.
//! - Invariant: a block is used only after its checksum was compared.

use super::super::{StoreError, Tried};
use super::read::SHARE_FROM;
use super::rot::{RottenTables, Suspects};
use super::tables::{Range, failed};
use bytes::Bytes;
use lsm_tree::table::block::BlockType;
use lsm_tree::table::filter::block::FilterBlock;
use lsm_tree::table::filter::standard_bloom::Builder;
use lsm_tree::table::{Block, BlockHandle, BlockOffset, DataBlock, IndexBlock, util::SliceIndexes};
use lsm_tree::{Cache, CompressionType, DescriptorTable, GlobalTableId, SeqNo, Table, UserValue, ValueType};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::ops::Bound;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Reads once from a file at an offset, behind what is in the buffer, at most so much and its capacity; tells how much that
/// was. `WouldBlock` if it would have to wait for the disk.
pub type CachedRead = fn(&File, &mut Vec<u8>, usize, u64) -> io::Result<usize>;

/// How a block that is not in the cache is read.
#[derive(Clone, Copy)]
pub(super) enum Reading {
    /// If the page cache holds it.
    Cached(CachedRead),
    /// However long it takes.
    Waiting,
}

impl Reading {
    fn file(self, source: &Source, blocks: &Blocks) -> Result<Arc<File>, Stop> {
        match (blocks.files.access_for_table(&source.id), self) {
            (Some(file), _) => Ok(file),
            // To open the file may have to wait, too.
            (None, Self::Cached(_)) => Err(Stop::Cold),
            (None, Self::Waiting) => {
                let file = Arc::new(File::open(&**source.table.path).map_err(lsm_tree::Error::from)?);
                blocks.files.insert_for_table(source.id, Arc::clone(&file));
                Ok(file)
            }
        }
    }

    fn read(self, file: &File, buffer: &mut Vec<u8>, most: usize, at: u64) -> io::Result<usize> {
        match self {
            Self::Cached(read) => read(file, buffer, most, at),
            Self::Waiting => {
                let before = buffer.len();
                buffer.resize(before + most, 0);
                let got = file.read_at(buffer.get_mut(before..).unwrap_or_default(), at);
                buffer.truncate(before + got.as_ref().map_or(0, |got| *got));
                got
            }
        }
    }
}

const DOING: &str = "reading the store";
/// The newest of what a table holds.
const NEWEST: SeqNo = SeqNo::MAX;

/// A table, and what of it is always in memory.
pub(super) struct Source {
    pub(super) table: Table,
    id: GlobalTableId,
    /// Of the blocks of the index, or of the data where there is one level only.
    pub(super) index: IndexBlock,
    /// Of the parts of the filter.
    pub(super) filters: Option<IndexBlock>,
}

/// The tables of one state of the tree, the newest run first; those of a run are in order and do not overlap.
#[derive(Default)]
pub(super) struct Sources {
    pub(super) runs: Vec<Vec<Arc<Source>>>,
}

impl std::fmt::Debug for Sources {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sources({} runs)", self.runs.len())
    }
}

/// Where blocks are looked up.
pub(super) struct Blocks {
    pub(super) cache: Arc<Cache>,
    pub(super) files: Arc<DescriptorTable>,
    /// Tables of which a block was not what was written.
    pub(super) suspects: Suspects,
}

/// What ends a read early.
pub(super) enum Stop {
    /// It would have to wait for the disk.
    Cold,
    Failed(StoreError),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

impl From<lsm_tree::Error> for Stop {
    fn from(error: lsm_tree::Error) -> Self {
        Self::Failed(failed(DOING, error))
    }
}

/// Tells the two ends apart.
pub(super) fn tried<T>(result: Result<T, Stop>) -> Result<Tried<T>, StoreError> {
    match result {
        Ok(value) => Ok(Tried::Done(value)),
        Err(Stop::Cold) => Ok(Tried::Cold),
        Err(Stop::Failed(error)) => Err(error),
    }
}

impl Sources {
    /// The tables of these runs; what of them is known from `before` is not read again.
    pub(super) fn new(
        runs: impl Iterator<Item = Vec<Table>>,
        tree: u64,
        before: &Self,
        blocks: &Blocks,
    ) -> Result<Self, lsm_tree::Error> {
        let known = |table: &Table| {
            before.runs.iter().flatten().find(|source| source.table.id() == table.id()).map(Arc::clone)
        };
        let source = |table: Table| match known(&table) {
            Some(source) => Ok(source),
            None => Source::open(table, tree, blocks).map(Arc::new),
        };
        let run = |tables: Vec<Table>| tables.into_iter().map(source).collect();
        Ok(Self { runs: runs.map(run).collect::<Result<_, _>>()? })
    }

    /// The newest that the tables hold of a key.
    pub(super) fn get(&self, blocks: &Blocks, how: Reading, key: &[u8]) -> Result<Option<UserValue>, Stop> {
        self.get_from(0, blocks, how, key)
    }

    /// The same, of the runs from this one on.
    pub(super) fn get_from(
        &self,
        first: usize,
        blocks: &Blocks,
        how: Reading,
        key: &[u8],
    ) -> Result<Option<UserValue>, Stop> {
        let hash = Builder::get_hash(key);
        for run in self.runs.iter().skip(first) {
            let at = run.partition_point(|source| source.max() < key);
            let Some(source) = run.get(at).filter(|source| source.min() <= key) else { continue };
            if let Some(item) = source.get(blocks, how, key, hash)? {
                return Ok((!item.is_tombstone()).then_some(item.value));
            }
        }
        Ok(None)
    }

    /// What the tables hold in a range, in order; it ends with [`Stop::Cold`] where it would have to wait.
    pub(super) fn range<'s>(
        &'s self,
        blocks: &'s Blocks,
        how: Reading,
        range: &'s Range,
        with_values: bool,
    ) -> impl Iterator<Item = Result<(Vec<u8>, Bytes), Stop>> + 's {
        let mut merge = Merge::new(self, (range, with_values), blocks, how);
        std::iter::from_fn(move || merge.next().transpose())
    }

    /// What the tables hold in a range, in order, beside the gaps of rotten ones; nothing where an item was deleted.
    pub(super) fn range_beside<'s>(
        &'s self,
        blocks: &'s Blocks,
        rotten: &'s RottenTables,
        range: &'s Range,
    ) -> impl Iterator<Item = Result<(Vec<u8>, Option<Bytes>), Stop>> + 's {
        let mut merge = Merge::new(self, (range, true), blocks, Reading::Waiting);
        merge.rotten = Some(rotten);
        std::iter::from_fn(move || merge.next_entry().transpose())
    }
}

impl Source {
    /// Reads what of a table is always in memory.
    fn open(table: Table, tree: u64, blocks: &Blocks) -> Result<Self, lsm_tree::Error> {
        let file = File::open(&**table.path)?;
        let block = |handle: BlockHandle, kind: BlockType| {
            let block = Block::from_file(&file, handle, CompressionType::None)?;
            check_kind(&block, kind)?;
            Ok::<_, lsm_tree::Error>(IndexBlock::new(block))
        };
        let index = block(table.regions.tli, BlockType::Index)?;
        let filters = table.regions.filter_tli.map(|handle| block(handle, BlockType::Index)).transpose()?;
        let id = GlobalTableId::from((tree, table.id()));
        blocks.files.insert_for_table(id, Arc::new(file));
        Ok(Self { table, id, index, filters })
    }

    pub(super) fn min(&self) -> &[u8] {
        self.table.metadata.key_range.min()
    }

    pub(super) fn max(&self) -> &[u8] {
        self.table.metadata.key_range.max()
    }

    fn get(
        &self,
        blocks: &Blocks,
        how: Reading,
        key: &[u8],
        hash: u64,
    ) -> Result<Option<lsm_tree::InternalValue>, Stop> {
        let filter = match &self.filters {
            Some(filters) => first_from(filters, key).map(|found| found.0),
            None => self.table.regions.filter,
        };
        if let Some(handle) = filter {
            let block = self.block(blocks, how, handle, BlockType::Filter)?;
            if !FilterBlock::new(block).maybe_contains_hash(hash)? {
                return Ok(None);
            }
        }
        // The last key of a block is at or behind this one in the first block only.
        let Some((data, _)) = self.data_from(blocks, how, key)? else { return Ok(None) };
        Ok(data.point_read(key, NEWEST))
    }

    /// The first block of data whose last key is at or behind `key`, and that last key.
    fn data_from(
        &self,
        blocks: &Blocks,
        how: Reading,
        key: &[u8],
    ) -> Result<Option<(DataBlock, Vec<u8>)>, Stop> {
        let Some((mut handle, mut last)) = first_from(&self.index, key) else { return Ok(None) };
        if self.table.regions.index.is_some() {
            let index = IndexBlock::new(self.block(blocks, how, handle, BlockType::Index)?);
            let Some(found) = first_from(&index, key) else { return Ok(None) };
            (handle, last) = found;
        }
        let data = self.block(blocks, how, handle, BlockType::Data)?;
        Ok(Some((DataBlock::new(data), last)))
    }

    /// A block, checked. One that cannot be read is noted.
    pub(super) fn block(
        &self,
        blocks: &Blocks,
        how: Reading,
        handle: BlockHandle,
        kind: BlockType,
    ) -> Result<Block, Stop> {
        self.read_block(blocks, how, handle, kind).inspect_err(|stop| {
            if matches!(stop, Stop::Failed(error) if error.is_damage()) {
                blocks.suspects.note(self.table.id(), false);
            }
        })
    }

    fn read_block(
        &self,
        blocks: &Blocks,
        how: Reading,
        handle: BlockHandle,
        kind: BlockType,
    ) -> Result<Block, Stop> {
        if let Some(block) = blocks.cache.get_block(self.id, handle.offset()) {
            check_kind(&block, kind)?;
            return Ok(block);
        }
        let file = how.file(self, blocks)?;
        let len = handle.size() as usize;
        let mut bytes = Vec::with_capacity(len);
        while bytes.len() < len {
            let (most, at) = (len - bytes.len(), *handle.offset() + bytes.len() as u64);
            match how.read(&file, &mut bytes, most, at) {
                Ok(0) => {
                    let cut = io::Error::from(ErrorKind::UnexpectedEof);
                    return Err(lsm_tree::Error::from(cut).into());
                }
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(Stop::Cold),
                Err(error) => return Err(lsm_tree::Error::from(error).into()),
            }
        }
        let mut rest = bytes.as_slice();
        let block = Block::from_reader(&mut rest, CompressionType::None)?;
        check_kind(&block, kind)?;
        blocks.cache.insert_block(self.id, handle.offset(), block.clone());
        Ok(block)
    }
}

pub(super) fn check_kind(block: &Block, kind: BlockType) -> Result<(), lsm_tree::Error> {
    match block.header.block_type == kind {
        true => Ok(()),
        false => Err(lsm_tree::Error::InvalidTag(("BlockType", block.header.block_type.into()))),
    }
}

/// The first entry of an index whose key is at or behind `key`.
fn first_from(index: &IndexBlock, key: &[u8]) -> Option<(BlockHandle, Vec<u8>)> {
    let mut entries = index.iter();
    if !entries.seek(key, NEWEST) {
        return None;
    }
    let entry = entries.next()?;
    let SliceIndexes(begin, end) = entry.end_key;
    let last = index.as_slice().get(begin..end)?.to_vec();
    Some((BlockHandle::new(BlockOffset(*entry.offset), entry.size), last))
}

/// One key as a table holds it, and where in the block its value is; none: it says that the item was deleted.
pub(super) type Entry = (Vec<u8>, Option<SliceIndexes>);

/// Goes through a run.
struct Cursor<'s> {
    run: &'s [Arc<Source>],
    /// The table that comes next, and where in it.
    table: usize,
    from: Vec<u8>,
    /// Entries of the block at hand that are yet to come, the next one last.
    entries: Vec<Entry>,
    block: Option<DataBlock>,
}

impl<'s> Cursor<'s> {
    fn new(run: &'s [Arc<Source>], from: &[u8]) -> Self {
        let table = run.partition_point(|source| source.max() < from);
        Self { run, table, from: from.to_vec(), entries: Vec::new(), block: None }
    }

    /// The next entry, which stays.
    fn peek(
        &mut self,
        (blocks, how): (&Blocks, Reading),
        rotten: Option<&RottenTables>,
        end: &Bound<Vec<u8>>,
    ) -> Result<Option<&Entry>, Stop> {
        while self.entries.is_empty() {
            let Some(source) = self.run.get(self.table) else { return Ok(None) };
            if is_beyond(source.min(), end) {
                return Ok(None);
            }
            let rotten = rotten.and_then(|rotten| rotten.get(&source.table.id()));
            if let Some(beyond) = rotten.and_then(|table| table.beyond(&self.from)) {
                self.from = beyond;
                continue;
            }
            match source.data_from(blocks, how, &self.from)? {
                None => self.table += 1,
                Some((data, last)) => {
                    self.entries = entries_from(&data, &self.from);
                    self.block = Some(data);
                    // The least key behind the last one of the block.
                    self.from = [last.as_slice(), &[0]].concat();
                }
            }
        }
        Ok(self.entries.last())
    }
}

impl Cursor<'_> {
    fn value(&self, at: &SliceIndexes, wanted: bool) -> Bytes {
        match &self.block {
            Some(block) if wanted => bytes_of(block.as_slice(), at.0, at.1),
            _ => Bytes::new(),
        }
    }
}

/// A part of a block: a long one without a copy.
fn bytes_of(block: &UserValue, begin: usize, end: usize) -> Bytes {
    if end - begin > SHARE_FROM {
        return Bytes::from_owner(block.clone()).slice(begin..end);
    }
    Bytes::copy_from_slice(part(block, begin, end))
}

/// The entries of a block from `from` on, the last one first; of each key the newest only.
pub(super) fn entries_from(data: &DataBlock, from: &[u8]) -> Vec<Entry> {
    let bytes = data.as_slice();
    let mut entries: Vec<Entry> = Vec::with_capacity(data.len());
    for item in data.iter() {
        let SliceIndexes(begin, end) = item.key;
        let prefix = item.prefix.map_or(&[][..], |SliceIndexes(begin, end)| part(bytes, begin, end));
        let key = [prefix, part(bytes, begin, end)].concat();
        let known = entries.last().is_some_and(|(last, _)| *last == key);
        if key.as_slice() < from || known {
            continue;
        }
        entries.push((key, item.value.filter(|_| item.value_type == ValueType::Value)));
    }
    entries.reverse();
    entries
}

fn part(bytes: &[u8], begin: usize, end: usize) -> &[u8] {
    bytes.get(begin..end).unwrap_or_default()
}

pub(super) fn is_beyond(key: &[u8], end: &Bound<Vec<u8>>) -> bool {
    match end {
        Bound::Included(last) => key > last.as_slice(),
        Bound::Excluded(end) => key >= end.as_slice(),
        Bound::Unbounded => false,
    }
}

/// A key, and its value unless it was deleted.
pub(super) type Found = (Vec<u8>, Option<Bytes>);

/// Goes through all runs at once: of each key the newest run decides.
struct Merge<'s> {
    blocks: &'s Blocks,
    how: Reading,
    end: &'s Bound<Vec<u8>>,
    cursors: Vec<Cursor<'s>>,
    with_values: bool,
    /// Tables whose gaps are passed over.
    rotten: Option<&'s RottenTables>,
}

impl<'s> Merge<'s> {
    fn new(
        sources: &'s Sources,
        (range, with_values): (&'s Range, bool),
        blocks: &'s Blocks,
        how: Reading,
    ) -> Self {
        let from = match &range.0 {
            Bound::Included(first) => first.clone(),
            Bound::Excluded(before) => [before.as_slice(), &[0]].concat(),
            Bound::Unbounded => Vec::new(),
        };
        let cursors = sources.runs.iter().map(|run| Cursor::new(run, &from)).collect();
        Self { blocks, how, end: &range.1, cursors, with_values, rotten: None }
    }

    fn next(&mut self) -> Result<Option<(Vec<u8>, Bytes)>, Stop> {
        loop {
            match self.next_entry()? {
                Some((key, Some(value))) => return Ok(Some((key, value))),
                Some((_, None)) => {}
                None => return Ok(None),
            }
        }
    }

    /// The next key, and its value unless it was deleted.
    fn next_entry(&mut self) -> Result<Option<Found>, Stop> {
        let mut first: Option<&[u8]> = None;
        for cursor in &mut self.cursors {
            if let Some((key, _)) = cursor.peek((self.blocks, self.how), self.rotten, self.end)?
                && first.is_none_or(|first| key.as_slice() < first)
            {
                first = Some(key);
            }
        }
        let Some(first) = first.filter(|first| !is_beyond(first, self.end)) else { return Ok(None) };
        let (first, mut newest) = (first.to_vec(), None);
        for cursor in &mut self.cursors {
            if let Some((_, value)) = cursor.entries.pop_if(|(key, _): &mut Entry| *key == first)
                && newest.is_none()
            {
                newest = Some(value.map(|at| cursor.value(&at, self.with_values)));
            }
        }
        Ok(Some((first, newest.flatten())))
    }
}

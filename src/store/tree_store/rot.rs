//! Tables that are not what was written, and how they become whole again by what the other node has.
//!
//! No table is ever changed. Where one cannot be read there is a gap. A gap is first **covered**: the items that the other
//! node has there are written above it, and what shows there from beside it and is not among them is deleted above it.
//! Once all gaps of a table are covered, and that is in tables, everything between its first key and its last is written
//! anew above all tables; only then the table goes, with the others that lie between these keys. So there is no mark to
//! be kept: a crash between two steps leaves the table where it was, and it is found and covered again.
//!
//! - Invariant: what of a gap is not covered is refused; no older item ever shows in its place.
//! - Invariant: a table goes only after all that it and its neighbours between these keys held is durable above it.
//! - Boundary: this runs on the apply thread, so that nothing is flushed between what is read and what goes.
//! - Boundary: items of this node alone come from nowhere: a table with a gap among them stays, and they stay refused.

use super::super::rotten::Part;
use super::super::{RottenItems, StoreError, StoreSnapshot, keys};
use super::blocks::{Source, check_kind};
use super::flush::Failure;
use super::read::Snapshot;
use super::{Staged, State, StoreWriter, damaged_record};
use crate::base::{Fault, FileId};
use crate::format::chunk::Chunk;
use crate::format::dptr::DptrKind;
use bytes::Bytes;
use lsm_tree::CompressionType;
use lsm_tree::table::block::BlockType;
use lsm_tree::table::{Block, BlockHandle, BlockOffset, IndexBlock, util::SliceIndexes};
use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// Tables of which something was not what was written, until somebody looks closer.
#[derive(Default)]
pub(super) struct Suspects {
    any: AtomicBool,
    /// Whether the checksum of all of it is wrong.
    tables: Mutex<BTreeMap<u64, bool>>,
}

impl Suspects {
    /// Notes a table; `as_a_whole`: by the checksum of all of it.
    pub(super) fn note(&self, number: u64, as_a_whole: bool) {
        let mut tables = self.tables.lock().unwrap_or_else(PoisonError::into_inner);
        *tables.entry(number).or_default() |= as_a_whole;
        self.any.store(true, Ordering::Release);
    }

    fn holds(&self, number: u64) -> bool {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&number)
    }

    fn take(&self) -> BTreeMap<u64, bool> {
        if !self.any.load(Ordering::Relaxed) || !self.any.swap(false, Ordering::Acquire) {
            return BTreeMap::new();
        }
        std::mem::take(&mut *self.tables.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Keys behind `after` (all of them, if that is empty) through `through`, which a table holds and which cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Gap {
    after: Vec<u8>,
    through: Vec<u8>,
}

impl Gap {
    /// What of a file is in it.
    fn part_of(&self, file: FileId, generation: u32) -> Option<Part> {
        let (Bound::Included(first), Bound::Excluded(end)) = keys::range(file, generation, None) else {
            return None;
        };
        if self.through <= first || self.after >= end {
            return None;
        }
        let id = |key: &[u8]| Bytes::copy_from_slice(key.get(first.len()..).unwrap_or_default());
        let after = if self.after > first { id(&self.after) } else { Bytes::new() };
        let through = if self.through < end { id(&self.through) } else { Bytes::new() };
        Some(Part { file, generation, after, through })
    }
}

/// A table with gaps.
#[derive(Clone, Debug)]
pub(super) struct RottenTable {
    /// Its first key and its last.
    keys: [Vec<u8>; 2],
    gaps: Vec<Gap>,
    /// What is not covered yet.
    left: Vec<Part>,
    /// Records of the store may be in a gap.
    records: bool,
}

/// By their numbers.
pub(super) type RottenTables = BTreeMap<u64, RottenTable>;

impl RottenTable {
    /// Whether a gap is between the keys of another table.
    fn bars(&self, other: &Self) -> bool {
        let [first, last] = &other.keys;
        self.gaps.iter().any(|gap| gap.through >= *first && gap.after < *last)
    }

    /// Where a walk goes on that has come to `from`, if that is in a gap.
    pub(super) fn beyond(&self, from: &[u8]) -> Option<Vec<u8>> {
        let holds = |gap: &&Gap| (gap.after.is_empty() || from > &gap.after[..]) && from <= &gap.through[..];
        self.gaps.iter().find(holds).map(|gap| [&gap.through[..], &[0]].concat())
    }
}

/// What an index lists: where each block is, and its last key.
fn listed(index: &IndexBlock) -> Vec<(BlockHandle, Vec<u8>)> {
    let bytes = index.as_slice();
    let listed = index.iter().map(|entry| {
        let SliceIndexes(begin, end) = entry.end_key;
        let last = bytes.get(begin..end).unwrap_or_default().to_vec();
        (BlockHandle::new(BlockOffset(*entry.offset), entry.size), last)
    });
    listed.collect()
}

/// A block as it is on the disk; none if it is not what was written, or cannot be read.
fn whole_block(file: &File, handle: BlockHandle, kind: BlockType) -> Result<Option<Block>, lsm_tree::Error> {
    match Block::from_file(file, handle, CompressionType::None) {
        Ok(block) => Ok(check_kind(&block, kind).is_ok().then_some(block)),
        Err(lsm_tree::Error::Io(error)) if Fault::from_io(&error).is_shortage() => Err(error.into()),
        Err(_) => Ok(None),
    }
}

impl Source {
    /// Reads every block from the disk: the gaps, if anything is not what was written. Without a gap it is no item.
    pub(super) fn examined(&self) -> Result<Option<Vec<Gap>>, lsm_tree::Error> {
        let file = File::open(&**self.table.path)?;
        let (mut gaps, mut before): (Vec<Gap>, Vec<u8>) = (Vec::new(), Vec::new());
        let mut gap = |after: &[u8], through: &[u8]| match gaps.last_mut() {
            Some(last) if last.through == after => last.through = through.to_vec(),
            _ => gaps.push(Gap { after: after.to_vec(), through: through.to_vec() }),
        };
        for (handle, last) in listed(&self.index) {
            let blocks = match self.table.regions.index {
                None => vec![(handle, last.clone())],
                Some(_) => match whole_block(&file, handle, BlockType::Index)? {
                    Some(block) => listed(&IndexBlock::new(block)),
                    None => {
                        gap(&before, &last);
                        Vec::new()
                    }
                },
            };
            for (handle, last) in blocks {
                if whole_block(&file, handle, BlockType::Data)?.is_none() {
                    gap(&before, &last);
                }
                before = last;
            }
            before = last;
        }
        let filters = self.filters.as_ref().map_or_else(
            || self.table.regions.filter.into_iter().collect(),
            |filters| listed(filters).into_iter().map(|(handle, _)| handle).collect::<Vec<_>>(),
        );
        let mut whole = gaps.is_empty();
        for handle in filters {
            whole = whole && whole_block(&file, handle, BlockType::Filter)?.is_some();
        }
        Ok((!whole).then_some(gaps))
    }
}

impl StoreWriter {
    /// Looks closer at tables of which something was found wrong: what of files cannot be read.
    pub(super) fn find_rotten(&mut self) -> Vec<RottenItems> {
        let suspects = self.shared.tables.blocks.suspects.take();
        if suspects.is_empty() || self.failed.is_some() {
            return Vec::new();
        }
        let view = self.shared.view();
        let mut items = Vec::new();
        for source in view.sources.runs.iter().flatten() {
            let number = source.table.id();
            let Some(as_a_whole) = suspects.get(&number) else { continue };
            if *as_a_whole || !self.rotten.contains_key(&number) {
                let gaps = match source.examined() {
                    Ok(None) if !as_a_whole => continue,
                    Ok(gaps) => gaps.unwrap_or_default(),
                    Err(error) => {
                        tracing::warn!("looking closer at table {number} of the store: {error:?}");
                        continue;
                    }
                };
                if self.rotten.get(&number).is_none_or(|known| known.gaps != gaps) {
                    tracing::warn!("table {number} of the store cannot be read in {} places", gaps.len());
                    let table = self.rotten_table([source.min().to_vec(), source.max().to_vec()], gaps);
                    self.rotten.insert(number, table);
                }
            }
            let left = self.rotten.get(&number).into_iter().flat_map(|table| &table.left);
            items.extend(left.map(Part::told));
        }
        if let Err(error) = self.replace_covered() {
            tracing::warn!("writing a table of the store anew: {error}");
        }
        items
    }

    /// Ids of items behind `after` with nothing, up to a number of them; what is in gaps that are known is left out.
    pub(super) fn ids_behind(
        &self,
        snapshot: &Snapshot,
        table: (FileId, u32),
        after: &[u8],
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        if self.rotten.is_empty() {
            return snapshot.scan(table.0, table.1, Some(after), limit, false);
        }
        snapshot.scan_beside(&self.rotten, table, after, limit)
    }

    /// Tells again what is known and not covered yet.
    pub(super) fn note_rotten_again(&self) {
        self.rotten.keys().for_each(|number| self.shared.tables.blocks.suspects.note(*number, false));
    }

    fn rotten_table(&self, keys: [Vec<u8>; 2], gaps: Vec<Gap>) -> RottenTable {
        let files = self.state.namespace.files().filter(|(_, info)| info.dptr.kind == DptrKind::Records);
        let left = files
            .flat_map(|(file, info)| {
                gaps.iter().filter_map(move |gap| gap.part_of(file, info.dptr.generation))
            })
            .collect();
        let records = gaps.iter().any(|gap| gap.after.first().is_none_or(|first| *first == 0));
        RottenTable { keys, gaps, left, records }
    }

    /// A range of a file is above all tables now what the other node has there.
    pub(super) fn covered(&mut self, chunk: &Chunk, generation: u32) -> Result<(), StoreError> {
        let Some(part) = Part::of_chunk(chunk, generation).filter(|_| !self.rotten.is_empty()) else {
            return Ok(());
        };
        for table in self.rotten.values_mut() {
            let left = std::mem::take(&mut table.left).into_iter();
            table.left = left.flat_map(|left| left.without(&part)).collect();
        }
        self.replace_covered()
    }

    /// Puts whole tables in the place of those that are covered.
    fn replace_covered(&mut self) -> Result<(), StoreError> {
        let namespace = &self.state.namespace;
        let there = |part: &Part| {
            namespace.file(part.file).is_some_and(|info| info.dptr.generation == part.generation)
        };
        self.rotten.values_mut().for_each(|table| table.left.retain(there));
        let all = std::mem::take(&mut self.rotten).into_iter();
        let (covered, left): (RottenTables, RottenTables) = all.partition(|(_, table)| table.left.is_empty());
        // What lies between the keys of a table has to be readable.
        let barred = |table: &RottenTable| left.values().any(|other| other.bars(table));
        let (barred, covered): (RottenTables, RottenTables) =
            covered.into_iter().partition(|(_, table)| barred(table));
        self.rotten = left;
        self.rotten.extend(barred);
        if covered.is_empty() {
            return Ok(());
        }
        let result = self.write_anew(&covered);
        if result.is_err() {
            // One in which something else turned out to be rotten is looked at afresh.
            let suspects = &self.shared.tables.blocks.suspects;
            self.rotten.extend(covered.into_iter().filter(|(number, _)| !suspects.holds(*number)));
        }
        result
    }

    fn write_anew(&mut self, covered: &RottenTables) -> Result<(), StoreError> {
        if covered.values().any(|table| table.records) {
            let records = self.all_records(covered)?;
            self.commit(&records);
        }
        let _ = self.freeze();
        let last = self.shared.view().active.number - 1;
        let flushed = self.shared.wait_flushed(last);
        self.heard(flushed)?;
        for number in covered.keys() {
            let namespace = &self.state.namespace;
            let is_live = |key: &[u8]| {
                let (file, generation) = keys::table_of(key);
                file == FileId(0)
                    || namespace.file(file).is_some_and(|info| info.dptr.generation == generation)
            };
            match self.shared.write_anew(*number, covered, is_live) {
                Ok(()) => tracing::info!("table {number} of the store was written anew"),
                Err(failure @ Failure::Damaged(..)) => return Err(failure.error()),
                Err(failure) => return self.heard(Err(failure.told())),
            }
        }
        Ok(())
    }

    /// All records of the store, by what is in memory. What else the tables show is deleted.
    fn all_records(&self, rotten: &RottenTables) -> Result<Vec<Staged<'static>>, StoreError> {
        let State { namespace, purge, copied, prepared, .. } = &self.state;
        let mut records = BTreeMap::from([
            (keys::FORMAT.to_vec(), keys::format_value(self.node)),
            (keys::APPLIED.to_vec(), keys::applied_value(self.state.applied)),
            (keys::VOLUMES.to_vec(), keys::volumes_value(self.state.dirty_from)),
            (keys::NAMESPACE.to_vec(), namespace.meta()),
        ]);
        let ids = namespace.accounts().map(|(id, _)| id).chain(namespace.files().map(|(id, _)| id));
        records.extend(ids.filter_map(|id| Some((keys::dptr(id), namespace.record(id)?))));
        records.extend(purge.iter().map(|(file, generation)| (keys::purge(*file, *generation), Vec::new())));
        records.extend(copied.as_ref().map(|copied| (keys::COPY.to_vec(), copied.encode())));
        if let Some(prepared) = prepared {
            let record = prepared.encode().map_err(damaged_record)?;
            records.insert(keys::REWIND.to_vec(), record);
        }
        let shown = Snapshot::newest(&self.shared).records_beside(rotten)?;
        let gone = shown.into_iter().map(|(key, _)| key.to_vec()).filter(|key| !records.contains_key(key));
        let mut staged: Vec<_> = gone.map(|key| Staged::record(&key, None)).collect();
        staged.extend(records.into_iter().map(|(key, value)| Staged::record(&key, Some(value))));
        Ok(staged)
    }
}

#[cfg(test)]
#[path = "rot_tests.rs"]
mod tests;

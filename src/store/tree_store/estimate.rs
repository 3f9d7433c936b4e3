//! How many items a file has, told without walking over them.
//!
//! A count that is kept would have to know of every update whether the item was there before: a read for each write,
//! which costs about as much as the write itself, and a read of the disk where the item is not in memory. So nothing is
//! kept. What tables know of themselves (how many entries) bounds the number; a sample tells how many of the entries
//! count: an entry adds one if its item is there by it, and takes one away if the item is there already by what is older.
//! Summed over all entries of an item that gives 1 if it is there now, else 0.
//!
//! The sample has a fixed size, so the cost does not grow with the store. What is older than everything else needs no
//! sample, and it is by far the most: the error is that of the share that newer runs hold. Where a table holds several
//! files, which of its entries are whose is known up to a part of its index, some thousand entries.

use super::super::{Fits, keys};
use super::blocks::{Reading, Source, Sources, Stop, entries_from, is_beyond};
use super::memtable::Memtable;
use super::tables::{Range, Tables};
use crate::base::limits::{ESTIMATE_SAMPLES, ESTIMATE_SAMPLES_EACH, ESTIMATE_SAMPLES_MEMORY};
use crate::base::{FileId, Prng};
use lsm_tree::table::block::BlockType;
use lsm_tree::table::{BlockHandle, BlockOffset, DataBlock, IndexBlock, util::SliceIndexes};
use std::sync::Arc;

/// Of each part of an index this much is none of its entries (bytes, about).
const PART_OVERHEAD: u64 = 64;

/// One state of the store, to be counted.
pub(super) struct Counted<'s> {
    /// The newest first, and up to which commit.
    pub(super) memtables: Vec<(&'s Memtable, u32)>,
    pub(super) sources: &'s Sources,
    pub(super) tables: &'s Tables,
}

/// An entry that was drawn: its key, and whether the item is there by it.
type Drawn = (Vec<u8>, bool);

/// Entries of one source: how many there are, and some of them by chance.
struct Sample {
    entries: u64,
    keys: Vec<Drawn>,
}

/// Blocks of data of a table that may hold a part of a range.
struct InTable<'s> {
    source: &'s Arc<Source>,
    /// Parts of the index, or blocks of data where the index has one level; each with all bytes up to its end. A part of
    /// so many bytes stands for so many blocks, and a block for so many entries.
    parts: Vec<(u64, BlockHandle)>,
    entries: u64,
}

impl Counted<'_> {
    /// About how many items of a file are there whose ids fit.
    pub(super) fn estimate(&self, (file, generation): (FileId, u32), fits: Fits) -> Result<u64, Stop> {
        let range = keys::range(file, generation, None);
        let runs: Vec<Vec<InTable<'_>>> = self.sources.runs.iter().map(|run| in_run(run, &range)).collect();
        let held: Vec<u64> = runs.iter().map(|run| run.iter().map(|table| table.entries).sum()).collect();
        let all = held.iter().sum::<u64>().max(1);
        // The same state gives the same number.
        let mut chance = Prng::new(all);
        let mut sum = 0.0;
        for (at, (memtable, commit)) in self.memtables.iter().enumerate() {
            let (entries, keys) =
                memtable.sample((file, generation), *commit, ESTIMATE_SAMPLES_MEMORY, &mut chance);
            let older = self.memtables.get(at + 1..).unwrap_or_default();
            sum += self.weigh(&Sample { entries, keys }, (file, generation), fits, (older, 0))?;
        }
        for (at, (run, held)) in runs.iter().zip(&held).enumerate() {
            let share = ESTIMATE_SAMPLES.saturating_mul(*held) / all;
            let wanted = usize::try_from(share).unwrap_or(0).max(ESTIMATE_SAMPLES_EACH);
            let (drawn, keys) = self.sample(run, &range, wanted, &mut chance)?;
            let inside = u128::from(*held) * keys.len() as u128 / drawn.max(1);
            let sample = Sample { entries: u64::try_from(inside).unwrap_or(*held), keys };
            sum += self.weigh(&sample, (file, generation), fits, (&[], at + 1))?;
        }
        Ok(whole(sum))
    }

    /// What a source adds: all its entries, as the sample of them tells.
    fn weigh(
        &self,
        sample: &Sample,
        table: (FileId, u32),
        fits: Fits,
        (memtables, runs): (&[(&Memtable, u32)], usize),
    ) -> Result<f64, Stop> {
        let mut counts = 0_i32;
        for (key, there) in &sample.keys {
            if fits(keys::id_of(key)) {
                let before = self.is_there(key, table, memtables, runs)?;
                counts += i32::from(*there) - i32::from(before);
            }
        }
        let of = u32::try_from(sample.keys.len()).unwrap_or(u32::MAX).max(1);
        Ok(float(sample.entries) * f64::from(counts) / f64::from(of))
    }

    /// Whether an item is there by these memtables, or by the runs from this one on.
    fn is_there(
        &self,
        key: &[u8],
        table: (FileId, u32),
        memtables: &[(&Memtable, u32)],
        runs: usize,
    ) -> Result<bool, Stop> {
        let id = keys::id_of(key);
        for (memtable, commit) in memtables {
            if let Some(found) = memtable.get(table, id, *commit) {
                return Ok(found.is_some());
            }
        }
        Ok(self.sources.get_from(runs, &self.tables.blocks, Reading::Waiting, key)?.is_some())
    }

    /// Entries of a run by chance, and how many were drawn for it: some of them lie beside the range.
    fn sample(
        &self,
        run: &[InTable<'_>],
        range: &Range,
        wanted: usize,
        chance: &mut Prng,
    ) -> Result<(u128, Vec<Drawn>), Stop> {
        let all: u64 = run.iter().map(|table| table.entries).sum();
        let (mut drawn, mut found) = (0, Vec::with_capacity(wanted));
        while found.len() < wanted && drawn < 2 * wanted as u128 && all > 0 {
            drawn += 1;
            let mut at = chance.below(all);
            let table = run.iter().find(|table| {
                let here = at < table.entries;
                at = if here { at } else { at - table.entries };
                here
            });
            if let Some(table) = table {
                found.extend(self.draw(table, range, chance)?);
            }
        }
        Ok((drawn, found))
    }

    fn draw(&self, table: &InTable<'_>, range: &Range, chance: &mut Prng) -> Result<Option<Drawn>, Stop> {
        let (blocks, how) = (&self.tables.blocks, Reading::Waiting);
        let at = chance.below(table.parts.last().map_or(1, |(until, _)| *until));
        let Some((_, part)) = table.parts.iter().find(|(until, _)| at < *until).copied() else {
            return Ok(None);
        };
        let handle = match table.source.table.regions.index {
            None => part,
            Some(_) => {
                let index = IndexBlock::new(table.source.block(blocks, how, part, BlockType::Index)?);
                let Some(handle) = any(&handles(&index), chance).copied() else { return Ok(None) };
                handle
            }
        };
        let data = DataBlock::new(table.source.block(blocks, how, handle, BlockType::Data)?);
        let entries = entries_from(&data, &[]);
        let drawn = any(&entries, chance);
        let inside = |key: &[u8]| {
            let from: &[u8] = match &range.0 {
                std::ops::Bound::Included(from) | std::ops::Bound::Excluded(from) => from,
                std::ops::Bound::Unbounded => &[],
            };
            key >= from && !is_beyond(key, &range.1)
        };
        Ok(drawn.filter(|(key, _)| inside(key)).map(|(key, value)| (key.clone(), value.is_some())))
    }
}

/// The tables of a run that hold a part of a range.
fn in_run<'s>(run: &'s [Arc<Source>], range: &Range) -> Vec<InTable<'s>> {
    let from: &[u8] = match &range.0 {
        std::ops::Bound::Included(from) | std::ops::Bound::Excluded(from) => from,
        std::ops::Bound::Unbounded => &[],
    };
    let overlaps = |source: &&Arc<Source>| source.max() >= from && !is_beyond(source.min(), &range.1);
    run.iter().filter(overlaps).map(|source| in_table(source, from, range)).collect()
}

/// Of a table that holds other files, too, as many entries as its index has parts in the range.
fn in_table<'s>(source: &'s Arc<Source>, from: &[u8], range: &Range) -> InTable<'s> {
    let bytes = source.index.as_slice();
    let (mut parts, mut inside, mut all, mut beyond) = (Vec::new(), 0, 0, false);
    for entry in source.index.iter() {
        let size = u64::from(entry.size).saturating_sub(PART_OVERHEAD).max(1);
        all += size;
        let SliceIndexes(begin, end) = entry.end_key;
        let last = bytes.get(begin..end).unwrap_or_default();
        if !beyond && last >= from {
            inside += size;
            parts.push((inside, BlockHandle::new(BlockOffset(*entry.offset), entry.size)));
        }
        beyond |= is_beyond(last, &range.1);
    }
    let held = source.table.metadata.item_count;
    let share = u128::from(held) * u128::from(inside) / u128::from(all.max(1));
    InTable { source, parts, entries: u64::try_from(share).unwrap_or(held) }
}

fn handles(index: &IndexBlock) -> Vec<BlockHandle> {
    index.iter().map(|entry| BlockHandle::new(BlockOffset(*entry.offset), entry.size)).collect()
}

fn any<'t, T>(of: &'t [T], chance: &mut Prng) -> Option<&'t T> {
    let at = usize::try_from(chance.below(of.len().max(1) as u64)).unwrap_or(0);
    of.get(at)
}

impl Sources {
    /// At most so many items of a file are there, by what tables know of themselves.
    pub(super) fn at_most(&self, (file, generation): (FileId, u32)) -> u64 {
        let range = keys::range(file, generation, None);
        self.runs.iter().flat_map(|run| in_run(run, &range)).map(|table| table.entries).sum()
    }
}

/// Counts are far below what a float holds exactly.
fn float(count: u64) -> f64 {
    let (high, low) = (count >> 32, count & u64::from(u32::MAX));
    let part = |half: u64| f64::from(u32::try_from(half).unwrap_or(u32::MAX));
    part(high) * 4_294_967_296.0 + part(low)
}

fn whole(sum: f64) -> u64 {
    format!("{:.0}", sum.max(0.0)).parse().unwrap_or(0)
}

//! What some batches make of volumes: each byte once, whatever became of it in between.

use crate::base::{FileId, Ordinal};
use crate::format::batch::Batch;
use crate::format::entry::{BlockChange, BlockContent, EntryKind};
use bytes::Bytes;
use std::collections::BTreeMap;

/// What a range holds in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Content<'a> {
    /// These bytes.
    Data(&'a [u8]),
    /// Zeros; space need not be taken.
    Hole,
    /// Zeros; space stays taken.
    Zeros,
}

/// A range, by its start in the map that holds it.
#[derive(Clone, Copy, Debug)]
struct Range<'a> {
    end: u64,
    content: Content<'a>,
}

impl<'a> Range<'a> {
    /// The part of a range that begins at `start`, from `from` to `until`.
    fn part(self, start: u64, from: u64, until: u64) -> Self {
        let content = match self.content {
            Content::Data(bytes) => {
                let at = |offset: u64| usize::try_from(offset - start).unwrap_or(usize::MAX);
                Content::Data(bytes.get(at(from)..at(until)).unwrap_or_default())
            }
            other => other,
        };
        Self { end: until, content }
    }
}

/// One volume.
#[derive(Debug, Default)]
struct VolumePlan<'a> {
    /// Everything that was there before is gone.
    emptied: bool,
    ranges: BTreeMap<u64, Range<'a>>,
}

impl<'a> VolumePlan<'a> {
    fn set(&mut self, change: BlockChange<'a>) {
        let (start, end) = (change.offset, change.end());
        let before = self.ranges.range(..start).next_back().filter(|(_, range)| range.end > start);
        let inside = self.ranges.range(start..end);
        let keys: Vec<u64> = before.into_iter().chain(inside).map(|(key, _)| *key).collect();
        for key in keys {
            let Some(old) = self.ranges.remove(&key) else { continue };
            if key < start {
                self.ranges.insert(key, old.part(key, key, start));
            }
            if old.end > end {
                self.ranges.insert(end, old.part(key, end, old.end));
            }
        }
        let content = match change.content {
            BlockContent::Data(bytes) => Content::Data(bytes),
            BlockContent::Hole => Content::Hole,
            BlockContent::Zeros => Content::Zeros,
        };
        self.ranges.insert(start, Range { end, content });
    }
}

/// Changes of volumes, the last of each byte.
#[derive(Debug, Default)]
pub(in crate::store) struct Plan<'a> {
    volumes: BTreeMap<FileId, VolumePlan<'a>>,
}

impl<'a> Plan<'a> {
    /// Of these batches, in order, on `node`.
    pub(in crate::store) fn of(node: Ordinal, batches: impl IntoIterator<Item = &'a Batch>) -> Self {
        let mut plan = Self::default();
        for batch in batches {
            if !batch.changes_volumes() {
                continue;
            }
            for (_, entry) in batch.entries() {
                if let Some(change) = entry.block_change() {
                    plan.volumes.entry(entry.file).or_default().set(change);
                    continue;
                }
                let emptied = match entry.kind {
                    EntryKind::FileClear | EntryKind::FileDelete => true,
                    // A copy that this node makes itself changes nothing here.
                    EntryKind::CopyBegin => entry.value.first() != Some(&node.0),
                    _ => false,
                };
                if emptied {
                    let volume = VolumePlan { emptied: true, ranges: BTreeMap::new() };
                    plan.volumes.insert(entry.file, volume);
                }
            }
        }
        plan
    }

    /// Of one range: what is in no run is zeros.
    pub(in crate::store) fn of_range(file: FileId, offset: u64, len: u64, runs: &'a [(u64, Bytes)]) -> Self {
        let mut volume = VolumePlan::default();
        if len > 0 {
            volume.set(BlockChange { offset, len, content: BlockContent::Hole });
        }
        for (offset, bytes) in runs.iter().filter(|(_, bytes)| !bytes.is_empty()) {
            let (offset, len) = (*offset, bytes.len() as u64);
            volume.set(BlockChange { offset, len, content: BlockContent::Data(bytes) });
        }
        Self { volumes: BTreeMap::from([(file, volume)]) }
    }

    /// Of volumes that begin anew.
    pub(in crate::store) fn of_emptied(files: impl IntoIterator<Item = FileId>) -> Self {
        let emptied = |file| (file, VolumePlan { emptied: true, ranges: BTreeMap::new() });
        Self { volumes: files.into_iter().map(emptied).collect() }
    }

    /// Whether anything changes: emptying changes only a volume of which something is there.
    pub(in crate::store) fn changes(&self, is_there: impl Fn(FileId) -> bool) -> bool {
        self.volumes.iter().any(|(file, volume)| !volume.ranges.is_empty() || is_there(*file))
    }

    /// The volumes that begin anew.
    pub(in crate::store) fn emptied(&self) -> impl Iterator<Item = FileId> + '_ {
        self.volumes.iter().filter(|(_, volume)| volume.emptied).map(|(file, _)| *file)
    }

    /// The volumes that are changed.
    pub(in crate::store) fn files(&self) -> impl Iterator<Item = FileId> + '_ {
        self.volumes.keys().copied()
    }

    /// Each volume's ranges in order: where, how long, what.
    pub(in crate::store) fn ranges(&self) -> impl Iterator<Item = (FileId, u64, u64, Content<'a>)> + '_ {
        self.volumes.iter().flat_map(|(file, volume)| {
            volume.ranges.iter().map(|(start, range)| (*file, *start, range.end - start, range.content))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Prng;

    #[test]
    fn every_byte_is_what_its_last_change_made_it_and_is_there_once() {
        for seed in 0..400 {
            let mut prng = Prng::new(seed);
            let pool: Vec<u8> = (0..4000_u32).map(|n| u8::try_from(n % 251 + 1).unwrap()).collect();
            let mut volume = VolumePlan::default();
            let mut truth = vec![None; 400];
            for n in 0..40_usize {
                let offset = prng.below(390);
                let len = 1 + prng.below((400 - offset).min(120));
                let (at, until) = (usize::try_from(offset).unwrap(), usize::try_from(offset + len).unwrap());
                let content = match prng.below(6) {
                    0 => BlockContent::Hole,
                    1 => BlockContent::Zeros,
                    _ => BlockContent::Data(&pool[n * 50..n * 50 + until - at]),
                };
                for (i, byte) in truth[at..until].iter_mut().enumerate() {
                    *byte = Some(match content {
                        BlockContent::Data(bytes) => u16::from(bytes[i]),
                        BlockContent::Hole => 1000,
                        BlockContent::Zeros => 2000,
                    });
                }
                volume.set(BlockChange { offset, len, content });
            }
            let mut found = vec![None; 400];
            for (start, range) in &volume.ranges {
                for at in *start..range.end {
                    let place = &mut found[usize::try_from(at).unwrap()];
                    assert_eq!(*place, None, "seed {seed}: byte {at} stands in two ranges");
                    *place = Some(match range.content {
                        Content::Data(bytes) => u16::from(bytes[usize::try_from(at - start).unwrap()]),
                        Content::Hole => 1000,
                        Content::Zeros => 2000,
                    });
                }
            }
            assert_eq!(found, truth, "seed {seed}");
        }
    }
}

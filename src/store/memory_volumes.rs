//! Volumes in memory: the model that those on disk are tested against, and the simulator's disk of them.
//!
//! Like pages of a file that nobody synced: a kill keeps everything, a power loss leaves of each sector any content it
//! had since the last checkpoint, whatever became of the items.

use super::volumes::{Content, Plan};
use crate::base::FileId;
use std::collections::BTreeMap;

/// Sectors are written whole.
const SECTOR: u64 = 512;

type Sector = [u8; 512];
type Key = (FileId, u64);

/// The content of all volumes.
#[derive(Clone, Debug, Default)]
pub(super) struct MemoryVolumes {
    /// What was never written is not here.
    sectors: BTreeMap<Key, Box<Sector>>,
    /// What a sector held since the last checkpoint, oldest first; none: it was not there.
    before: BTreeMap<Key, Vec<Option<Box<Sector>>>>,
    /// How much of `before` the sync under way makes of no account.
    begun: BTreeMap<Key, usize>,
}

impl MemoryVolumes {
    /// Carries out what a plan says.
    pub(super) fn apply(&mut self, plan: &Plan<'_>) {
        for file in plan.emptied() {
            let keys: Vec<Key> = self.of(file).map(|(key, _)| *key).collect();
            keys.into_iter().for_each(|key| self.set(key, None));
        }
        for (file, offset, len, content) in plan.ranges() {
            let (mut at, end) = (offset, offset + len);
            while at < end {
                let (sector, within) = (at / SECTOR, at % SECTOR);
                let until = ((sector + 1) * SECTOR).min(end);
                let key = (file, sector);
                let whole = until - at == SECTOR;
                if content == Content::Hole && (whole || !self.sectors.contains_key(&key)) {
                    self.set(key, None);
                } else {
                    let mut new = self.sectors.get(&key).cloned().unwrap_or_else(|| Box::new([0; 512]));
                    let index = |byte: u64| usize::try_from(byte).unwrap_or(0);
                    let place = &mut new[index(within)..index(within + until - at)];
                    match content {
                        Content::Data(bytes) => {
                            place.copy_from_slice(&bytes[index(at - offset)..index(until - offset)]);
                        }
                        Content::Hole | Content::Zeros => place.fill(0),
                    }
                    self.set(key, Some(new));
                }
                at = until;
            }
        }
    }

    fn set(&mut self, key: Key, new: Option<Box<Sector>>) {
        let old = match new {
            Some(new) => self.sectors.insert(key, new),
            None => self.sectors.remove(&key),
        };
        self.before.entry(key).or_default().push(old);
    }

    fn of(&self, file: FileId) -> impl Iterator<Item = (&Key, &Box<Sector>)> {
        self.sectors.range((file, 0)..=(file, u64::MAX))
    }

    /// Whether anything is there of a volume.
    pub(super) fn holds(&self, file: FileId) -> bool {
        self.of(file).next().is_some()
    }

    /// A sync begins.
    pub(super) fn begin_sync(&mut self) {
        self.begun = self.before.iter().map(|(key, versions)| (*key, versions.len())).collect();
    }

    /// It has ended: what was there when it began is durable, what came since may be there or not.
    pub(super) fn synced(&mut self) {
        for (key, count) in std::mem::take(&mut self.begun) {
            let Some(versions) = self.before.get_mut(&key) else { continue };
            versions.drain(..count.min(versions.len()));
            if versions.is_empty() {
                self.before.remove(&key);
            }
        }
    }

    /// The process that had begun a sync is gone.
    pub(super) fn restarted(&mut self) {
        self.begun.clear();
    }

    /// Everything is durable.
    pub(super) fn checkpoint(&mut self) {
        self.before.clear();
        self.begun.clear();
    }

    /// Of each sector that changed since the last checkpoint one content is left: `choose` is told how many there were
    /// and says which, 0 being the oldest.
    pub(super) fn power_loss(&mut self, choose: &mut dyn FnMut(usize) -> usize) {
        for (key, mut versions) in std::mem::take(&mut self.before) {
            versions.push(self.sectors.get(&key).cloned());
            let chosen = choose(versions.len()).min(versions.len() - 1);
            match versions.swap_remove(chosen) {
                Some(sector) => drop(self.sectors.insert(key, sector)),
                None => drop(self.sectors.remove(&key)),
            }
        }
    }

    /// A range.
    pub(super) fn read(&self, file: FileId, offset: u64, len: usize) -> Vec<u8> {
        let mut all = vec![0; len];
        let end = offset + len as u64;
        for ((_, sector), bytes) in self.sectors.range((file, offset / SECTOR)..(file, end.div_ceil(SECTOR)))
        {
            let start = sector * SECTOR;
            for (at, byte) in (start..).zip(bytes.iter()).filter(|(at, _)| (offset..end).contains(at)) {
                all[usize::try_from(at - offset).unwrap_or(0)] = *byte;
            }
        }
        all
    }

    /// What takes space in a range.
    pub(super) fn allocation(&self, file: FileId, offset: u64, len: u64) -> Vec<(u64, bool)> {
        let mut found: Vec<(u64, bool)> = Vec::new();
        let (mut at, end) = (offset, offset + len);
        while at < end {
            let sector = at / SECTOR;
            let until = ((sector + 1) * SECTOR).min(end);
            let hole = !self.sectors.contains_key(&(file, sector));
            match found.last_mut() {
                Some(last) if last.1 == hole => last.0 += until - at,
                _ => found.push((until - at, hole)),
            }
            at = until;
        }
        found
    }

    /// The sectors of a volume that hold anything but zeros.
    pub(super) fn content(&self, file: FileId) -> impl Iterator<Item = (u64, &[u8])> {
        let sectors = self.of(file).map(|((_, sector), bytes)| (*sector, bytes.as_slice()));
        sectors.filter(|(_, bytes)| bytes.iter().any(|byte| *byte != 0))
    }

    /// Removes every volume that is none.
    pub(super) fn remove_strays(&mut self, is_volume: impl Fn(FileId) -> bool) {
        self.sectors.retain(|(file, _), _| is_volume(*file));
        self.before.retain(|(file, _), _| is_volume(*file));
        self.begun.retain(|(file, _), _| is_volume(*file));
    }
}

//! Volumes in memory: the model that those on disk are tested against, and the simulator's disk of them.
//!
//! Like pages of a file that nobody synced: a kill keeps everything, a power loss leaves of each sector any content it
//! had since the last checkpoint, whatever became of the items.

use super::memory::moment::MemoryKept;
use super::volumes::{Content, Plan};
use crate::base::limits::{BLOCK, BLOCK_U64};
use crate::base::{FileId, crc32c};
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};

/// Sectors are written whole.
const SECTOR: u64 = 512;

type Sector = [u8; 512];
type Key = (FileId, u64);

/// What stands at each place, and what stood there since the last checkpoint.
#[derive(Clone, Debug)]
struct Versions<V> {
    /// What was never written is not here.
    now: BTreeMap<Key, V>,
    /// Since the last checkpoint, oldest first; none: it was not there.
    before: BTreeMap<Key, Vec<Option<V>>>,
    /// How much of `before` the sync under way makes of no account.
    begun: BTreeMap<Key, usize>,
}

impl<V> Default for Versions<V> {
    fn default() -> Self {
        Self { now: BTreeMap::new(), before: BTreeMap::new(), begun: BTreeMap::new() }
    }
}

impl<V: Clone> Versions<V> {
    fn set(&mut self, key: Key, new: Option<V>) {
        let old = match new {
            Some(new) => self.now.insert(key, new),
            None => self.now.remove(&key),
        };
        self.before.entry(key).or_default().push(old);
    }

    fn begin_sync(&mut self) {
        self.begun = self.before.iter().map(|(key, versions)| (*key, versions.len())).collect();
    }

    fn synced(&mut self) {
        for (key, count) in std::mem::take(&mut self.begun) {
            let Some(versions) = self.before.get_mut(&key) else { continue };
            versions.drain(..count.min(versions.len()));
            if versions.is_empty() {
                self.before.remove(&key);
            }
        }
    }

    fn checkpoint(&mut self) {
        self.before.clear();
        self.begun.clear();
    }

    fn power_loss(&mut self, choose: &mut dyn FnMut(usize) -> usize) {
        for (key, mut versions) in std::mem::take(&mut self.before) {
            versions.push(self.now.get(&key).cloned());
            let chosen = choose(versions.len()).min(versions.len() - 1);
            match versions.swap_remove(chosen) {
                Some(value) => drop(self.now.insert(key, value)),
                None => drop(self.now.remove(&key)),
            }
        }
    }

    fn retain(&mut self, keep: impl Fn(FileId) -> bool) {
        self.now.retain(|(file, _), _| keep(*file));
        self.before.retain(|(file, _), _| keep(*file));
        self.begun.retain(|(file, _), _| keep(*file));
    }
}

/// A block's checksum, and whether it was wrong when a part of it was changed.
type Sum = (u32, bool);

/// The content of all volumes, and its checksums.
#[derive(Clone, Debug, Default)]
pub(super) struct MemoryVolumes {
    sectors: Versions<Box<Sector>>,
    /// By block; none: it holds zeros.
    sums: Versions<Sum>,
    /// Who wants what is overwritten kept.
    keepers: Vec<Weak<MemoryKept>>,
}

impl MemoryVolumes {
    /// Carries out what a plan says. In `lenient` files a block that does not match its checksum is taken as it is.
    pub(super) fn apply(&mut self, plan: &Plan<'_>, lenient: impl Fn(FileId) -> bool) {
        self.keep(plan);
        for file in plan.emptied() {
            let keys: Vec<Key> = self.of(file).map(|(key, _)| *key).collect();
            keys.into_iter().for_each(|key| self.sectors.set(key, None));
            let keys: Vec<Key> =
                self.sums.now.range((file, 0)..=(file, u64::MAX)).map(|(key, _)| *key).collect();
            keys.into_iter().for_each(|key| self.sums.set(key, None));
        }
        for (file, offset, len, content) in plan.ranges() {
            let end = offset + len;
            let edges = [offset, end].into_iter().filter(|edge| edge % BLOCK_U64 > 0);
            let wrong: Vec<u64> = edges
                .map(|edge| edge / BLOCK_U64)
                .filter(|block| {
                    let condemned = self.sums.now.get(&(file, *block)).is_some_and(|(_, bad)| *bad);
                    condemned || (!lenient(file) && !self.is_right(file, *block))
                })
                .collect();
            self.write(file, (offset, end), content);
            for block in offset / BLOCK_U64..end.div_ceil(BLOCK_U64) {
                let (start, whole) = (block * BLOCK_U64, content != Content::Hole);
                let covered = offset <= start && start + BLOCK_U64 <= end;
                let bad = wrong.contains(&block);
                let sum = (!covered || whole).then(|| (crc32c(&self.read(file, start, BLOCK)), bad));
                self.sums.set((file, block), sum);
                if bad {
                    // Made durable at once.
                    self.sums.before.remove(&(file, block));
                    self.sums.begun.remove(&(file, block));
                }
            }
        }
    }

    /// From now on what is overwritten is kept there first, as long as somebody has that.
    pub(super) fn keep_for(&mut self, kept: &Rc<MemoryKept>) {
        self.keepers.push(Rc::downgrade(kept));
    }

    /// Keeps the blocks that a plan is about to change.
    fn keep(&mut self, plan: &Plan<'_>) {
        self.keepers.retain(|kept| kept.strong_count() > 0);
        if self.keepers.is_empty() {
            return;
        }
        let emptied =
            plan.emptied().flat_map(|file| self.of(file).map(|((file, sector), _)| (*file, sector / 8)));
        let written = plan.ranges().flat_map(|(file, offset, len, _)| {
            (offset / BLOCK_U64..(offset + len).div_ceil(BLOCK_U64)).map(move |block| (file, block))
        });
        for (file, block) in emptied.chain(written) {
            for kept in self.keepers.iter().filter_map(Weak::upgrade) {
                kept.keep(file, block, || self.read(file, block * BLOCK_U64, BLOCK));
            }
        }
    }

    fn write(&mut self, file: FileId, (offset, end): (u64, u64), content: Content<'_>) {
        let mut at = offset;
        while at < end {
            let (sector, within) = (at / SECTOR, at % SECTOR);
            let until = ((sector + 1) * SECTOR).min(end);
            let key = (file, sector);
            let whole = until - at == SECTOR;
            if content == Content::Hole && (whole || !self.sectors.now.contains_key(&key)) {
                self.sectors.set(key, None);
            } else {
                let mut new = self.sectors.now.get(&key).cloned().unwrap_or_else(|| Box::new([0; 512]));
                let index = |byte: u64| usize::try_from(byte).unwrap_or(0);
                let place = &mut new[index(within)..index(within + until - at)];
                match content {
                    Content::Data(bytes) => {
                        place.copy_from_slice(&bytes[index(at - offset)..index(until - offset)]);
                    }
                    Content::Hole | Content::Zeros => place.fill(0),
                }
                self.sectors.set(key, Some(new));
            }
            at = until;
        }
    }

    /// Whether a block is what was written.
    fn is_right(&self, file: FileId, block: u64) -> bool {
        let bytes = self.read(file, block * BLOCK_U64, BLOCK);
        match self.sums.now.get(&(file, block)) {
            None => bytes.iter().all(|byte| *byte == 0),
            Some((sum, condemned)) => !condemned && *sum == crc32c(&bytes),
        }
    }

    /// The blocks of a range that are not what was written.
    pub(super) fn wrong(&self, file: FileId, offset: u64, len: u64) -> Vec<u64> {
        let blocks = offset / BLOCK_U64..(offset + len).div_ceil(BLOCK_U64);
        blocks.filter(|block| !self.is_right(file, *block)).collect()
    }

    /// A bit of a byte turns by itself, in a block that holds something and did not change since the last checkpoint.
    pub(super) fn rot(&mut self, file: FileId, at: u64) -> bool {
        let block = at / BLOCK_U64;
        let sectors = (file, block * 8)..=(file, block * 8 + 7);
        let fresh = self.sectors.before.range(sectors).next().is_some()
            || self.sums.before.contains_key(&(file, block));
        let Some(sector) = self.sectors.now.get_mut(&(file, at / SECTOR)).filter(|_| !fresh) else {
            return false;
        };
        sector[usize::try_from(at % SECTOR).unwrap_or(0)] ^= 4;
        true
    }

    /// A block is again what it should be, as somebody wrote it back, durably.
    pub(super) fn heal(&mut self, file: FileId, block: u64, bytes: &[u8]) {
        for (n, some) in bytes.chunks(512).enumerate() {
            let key = (file, block * 8 + n as u64);
            let Ok(sector) = <Sector>::try_from(some) else { continue };
            self.sectors.now.insert(key, Box::new(sector));
            self.sectors.before.remove(&key);
            self.sectors.begun.remove(&key);
        }
        self.sums.now.insert((file, block), (crc32c(bytes), false));
        self.sums.before.remove(&(file, block));
        self.sums.begun.remove(&(file, block));
    }

    fn of(&self, file: FileId) -> impl Iterator<Item = (&Key, &Box<Sector>)> {
        self.sectors.now.range((file, 0)..=(file, u64::MAX))
    }

    /// Whether anything is there of a volume.
    pub(super) fn holds(&self, file: FileId) -> bool {
        self.of(file).next().is_some()
    }

    /// A sync begins.
    pub(super) fn begin_sync(&mut self) {
        self.sectors.begin_sync();
        self.sums.begin_sync();
    }

    /// It has ended: what was there when it began is durable, what came since may be there or not.
    pub(super) fn synced(&mut self) {
        self.sectors.synced();
        self.sums.synced();
    }

    /// The process that had begun a sync is gone.
    pub(super) fn restarted(&mut self) {
        self.sectors.begun.clear();
        self.sums.begun.clear();
    }

    /// Everything is durable.
    pub(super) fn checkpoint(&mut self) {
        self.sectors.checkpoint();
        self.sums.checkpoint();
    }

    /// Of each sector and each checksum that changed since the last checkpoint one content is left: `choose` is told how
    /// many there were and says which, 0 being the oldest.
    pub(super) fn power_loss(&mut self, choose: &mut dyn FnMut(usize) -> usize) {
        self.sectors.power_loss(choose);
        self.sums.power_loss(choose);
    }

    /// A range.
    pub(super) fn read(&self, file: FileId, offset: u64, len: usize) -> Vec<u8> {
        let mut all = vec![0; len];
        let end = offset + len as u64;
        for ((_, sector), bytes) in
            self.sectors.now.range((file, offset / SECTOR)..(file, end.div_ceil(SECTOR)))
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
            let hole = !self.sectors.now.contains_key(&(file, sector));
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
        self.sectors.retain(&is_volume);
        self.sums.retain(&is_volume);
    }
}

//! One node's disk: sectors that are durable, writes that are under way, names that may not be durable yet.
//!
//! A write is durable when its completion is delivered, not before, and two of a journal end in any order. At a power
//! loss each 512-byte sector of a write under way is old, new, torn at any byte, or garbage; at a `kill -9` the kernel still holds the write, so
//! each sector is old or new. A new segment is there for certain only once it was reported ready; a removed one
//! may be back after a power loss until the directory was synced again. Removed ones that may be used again are,
//! with all that they held behind the first block.

use crate::base::limits::{BLOCK, GROUP_MAX};
use crate::base::{Fault, JournalKind, Prng, SegmentIndex, Seq};
use crate::format::batch::BatchHeader;
use crate::journal::SegmentSource;
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};

/// Smallest unit that a disk may write for itself.
pub(super) const SECTOR: usize = 512;

/// Files that wait to be used again, at most; more are deleted.
const RETIRED_MAX: usize = 2;

/// How a node dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Death {
    /// The process ends; what the kernel was given is kept.
    Kill,
    /// Everything not durable is gone or damaged.
    Power,
}

/// What a sector of an interrupted write holds afterwards.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fate {
    /// As before.
    Old,
    /// As written.
    New,
    /// New up to this byte, old from there.
    Torn(usize),
    /// Neither; made from this number.
    Garbage(u64),
}

/// A segment file. What was never written is zero.
#[derive(Clone, Debug, Default)]
struct SegmentFile {
    size: u64,
    content: Vec<u8>,
    /// Under the number that it has, it was written up to here.
    end: usize,
}

impl SegmentFile {
    fn renewed(mut self) -> Self {
        let block = self.content.len().min(BLOCK);
        self.content[..block].fill(0);
        Self { end: 0, ..self }
    }
}

/// A segment being made.
#[derive(Clone, Debug)]
struct Making {
    kind: usize,
    index: u64,
    file: SegmentFile,
    /// Of a file that was there, so that no room is needed for it.
    renewed: bool,
}

/// A write under way.
#[derive(Clone, Debug)]
pub(super) struct Flight {
    /// The engine's number for it.
    pub(super) write: u64,
    segment: u64,
    offset: usize,
    /// What is being written.
    pub(super) bytes: Bytes,
    /// How many writes of the journal were durable when it was asked for.
    after: u64,
}

impl Flight {
    /// How many sectors it covers.
    pub(super) fn sectors(&self) -> usize {
        self.bytes.len() / SECTOR
    }
}

/// A durable write, as remembered for later damage.
#[derive(Clone, Debug)]
struct Past {
    segment: u64,
    offset: usize,
    len: usize,
    /// What its place held before.
    before: Vec<u8>,
    /// As of its flight.
    after: u64,
    /// How many writes of the journal were durable with it.
    durable: u64,
}

/// What exactly a power loss leaves of what was under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exact {
    /// By journal: which sectors of the writes, one after the other, are new; the others are old.
    pub(super) sectors: [u64; 2],
    /// A sector that holds neither.
    pub(super) garbage: Option<usize>,
    /// Whether the control file is the new one.
    pub(super) control: bool,
    /// Whether segments being made are there.
    pub(super) made: bool,
}

/// How durable bytes went bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decay {
    /// A bit flipped.
    Rot,
    /// A write that was reported durable never reached its place.
    Lost,
    /// A write that was reported durable went to another place.
    Misdirected,
}

/// One node's disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Disk {
    /// The control file.
    pub(super) control: Vec<u8>,
    /// Its replacement under way.
    pub(super) control_flight: Option<(u64, Vec<u8>)>,
    segments: [BTreeMap<u64, SegmentFile>; 2],
    /// Journal writes under way, in the order in which they were asked for.
    flights: [Vec<Flight>; 2],
    making: Vec<Making>,
    removed: [Vec<(u64, SegmentFile)>; 2],
    /// Files that wait to be used again, oldest first.
    retired: [VecDeque<SegmentFile>; 2],
    /// Files of entries that the pair never kept.
    pub(super) diverged: BTreeMap<String, Vec<u8>>,
    diverged_flight: Option<(String, bool, Bytes)>,
    /// Whether there is no room for new segments.
    pub(super) full: bool,
    past: [Vec<Past>; 2],
    durable: [u64; 2],
}

impl Disk {
    /// A disk with nothing but a control file.
    pub(super) fn new(control: Vec<u8>) -> Self {
        Self { control, ..Self::default() }
    }

    /// Segment files of a journal: number and size.
    pub(super) fn segments(&self, journal: JournalKind) -> Vec<(SegmentIndex, u64)> {
        self.segments[journal.index()].iter().map(|(&index, file)| (SegmentIndex(index), file.size)).collect()
    }

    /// Bytes of a journal's segments, those being made included.
    pub(super) fn bytes(&self, journal: JournalKind) -> u64 {
        let making = self.making.iter().filter(|making| making.kind == journal.index());
        let all = self.segments[journal.index()].values().chain(making.map(|making| &making.file));
        all.map(|file| file.size).sum()
    }

    /// Starts making a segment.
    pub(super) fn prepare(&mut self, journal: JournalKind, index: SegmentIndex, bytes: u64) {
        let (kind, index) = (journal.index(), index.0);
        let waiting = &mut self.retired[kind];
        let old = waiting.iter().position(|file| file.size == bytes).and_then(|at| waiting.remove(at));
        let renewed = old.is_some();
        if renewed {
            // That it has left the journal is made durable first.
            self.removed[kind].clear();
        }
        let file = old.map_or(SegmentFile { size: bytes, ..SegmentFile::default() }, SegmentFile::renewed);
        self.making.push(Making { kind, index, file, renewed });
    }

    /// Ends making a segment; false when there was no room.
    pub(super) fn prepared(&mut self, journal: JournalKind, index: SegmentIndex, fails: bool) -> bool {
        let Some(at) = self.making.iter().position(|m| m.kind == journal.index() && m.index == index.0)
        else {
            return false;
        };
        let Making { kind, index, file, renewed } = self.making.remove(at);
        if fails || (self.full && !renewed) {
            return false;
        }
        self.segments[kind].insert(index, file);
        self.removed[kind].clear();
        true
    }

    /// Takes a segment out of the journal, to be used again or not; false when there was none.
    pub(super) fn remove(&mut self, journal: JournalKind, index: SegmentIndex, reuse: bool) -> bool {
        let kind = journal.index();
        let Some(file) = self.segments[kind].remove(&index.0) else { return false };
        if reuse && self.retired[kind].len() < RETIRED_MAX {
            self.retired[kind].push_back(file.clone());
        }
        self.removed[kind].push((index.0, file));
        true
    }

    /// The last entry of any batch or mark that a segment holds, of whatever life of its file.
    pub(super) fn highest(&self, journal: JournalKind, index: SegmentIndex) -> Option<Seq> {
        let file = self.segments[journal.index()].get(&index.0)?;
        let headers = file.content.chunks(BLOCK).filter_map(|block| BatchHeader::decode(block).ok());
        headers.map(|header| header.last_seq()).max()
    }

    /// Starts a write.
    ///
    /// # Errors
    /// What is wrong with it, if the engine may not ask for it.
    pub(super) fn write(
        &mut self,
        journal: JournalKind,
        segment: SegmentIndex,
        offset: u64,
        flight: (u64, Bytes),
    ) -> Result<(), String> {
        let kind = journal.index();
        let (write, bytes) = flight;
        let under_way = &self.flights[kind];
        let long = |bytes: &Bytes| bytes.len() > GROUP_MAX;
        if under_way.len() > 1 || under_way.iter().any(|other| long(&bytes) || long(&other.bytes)) {
            return Err("a write of a journal beside two, or beside one and too long for that".into());
        }
        if under_way.iter().any(|other| other.segment != segment.0 || offset == 0) {
            return Err("a segment is begun while another is written to".into());
        }
        let Some(file) = self.segments[kind].get_mut(&segment.0) else {
            return Err(format!("a write to segment {segment}, which does not exist"));
        };
        let end = offset + bytes.len() as u64;
        if end > file.size
            || !offset.is_multiple_of(4096)
            || bytes.is_empty()
            || !bytes.len().is_multiple_of(4096)
        {
            return Err(format!("a write of {offset}..{end} to a segment of {} bytes", file.size));
        }
        let offset = usize::try_from(offset).map_err(|e| e.to_string())?;
        if offset < file.end {
            return Err(format!("a block of segment {segment} at {offset} is written twice"));
        }
        file.end = offset + bytes.len();
        self.flights[kind].push(Flight {
            write,
            segment: segment.0,
            offset,
            bytes,
            after: self.durable[kind],
        });
        Ok(())
    }

    /// The writes of a journal that are under way.
    pub(super) fn flights(&self, journal: JournalKind) -> &[Flight] {
        &self.flights[journal.index()]
    }

    fn ended(&mut self, journal: JournalKind, write: u64) -> Option<Flight> {
        let flights = &mut self.flights[journal.index()];
        flights.iter().position(|flight| flight.write == write).map(|at| flights.remove(at))
    }

    /// A write under way is durable now; false if there is none of that number.
    pub(super) fn written(&mut self, journal: JournalKind, write: u64) -> bool {
        let kind = journal.index();
        let ended = self.ended(journal, write);
        let known = ended.is_some();
        if let Some(flight) = ended {
            let (segment, offset, len) = (flight.segment, flight.offset, flight.bytes.len());
            let place = (SegmentIndex(segment), offset as u64);
            let before = self.read(journal, place.0, place.1, len).unwrap_or_default().to_vec();
            self.durable[kind] += 1;
            let (after, durable) = (flight.after, self.durable[kind]);
            self.past[kind].push(Past { segment, offset, len, before, after, durable });
            self.land(kind, &flight, |_| Fate::New);
        }
        known
    }

    /// A write under way failed; what is at its place is decided by `fate`.
    pub(super) fn resolve(&mut self, journal: JournalKind, write: u64, fate: impl FnMut(usize) -> Fate) {
        if let Some(flight) = self.ended(journal, write) {
            self.land(journal.index(), &flight, fate);
        }
    }

    fn land(&mut self, kind: usize, flight: &Flight, mut fate: impl FnMut(usize) -> Fate) {
        let Some(file) = self.segments[kind].get_mut(&flight.segment) else { return };
        let end = flight.offset + flight.bytes.len();
        if file.content.len() < end {
            file.content.resize(end, 0);
        }
        for (i, new) in flight.bytes.chunks(SECTOR).enumerate() {
            let at = flight.offset + i * SECTOR;
            let place = &mut file.content[at..at + new.len()];
            match fate(i) {
                Fate::Old => {}
                Fate::New => place.copy_from_slice(new),
                Fate::Torn(bytes) => {
                    let bytes = bytes.min(new.len());
                    place[..bytes].copy_from_slice(&new[..bytes]);
                }
                Fate::Garbage(seed) => {
                    let mut prng = Prng::new(seed);
                    place.chunks_mut(8).for_each(|c| {
                        let noise = prng.next_u64().to_le_bytes();
                        c.copy_from_slice(&noise[..c.len()]);
                    });
                }
            }
        }
    }

    /// Bytes of a segment; fewer at its end.
    pub(super) fn read(
        &self,
        journal: JournalKind,
        segment: SegmentIndex,
        offset: u64,
        len: usize,
    ) -> Option<Bytes> {
        let file = self.segments[journal.index()].get(&segment.0)?;
        let left = usize::try_from(file.size.saturating_sub(offset)).ok()?;
        let mut out = vec![0; len.min(left)];
        let from = usize::try_from(offset).ok()?.min(file.content.len());
        let there = &file.content[from..(from + out.len()).min(file.content.len())];
        out[..there.len()].copy_from_slice(there);
        Some(Bytes::from(out))
    }

    /// Starts appending to a file of diverged entries, or begins it anew.
    pub(super) fn save_diverged(&mut self, file: String, first: bool, bytes: Bytes) {
        self.diverged_flight = Some((file, first, bytes));
    }

    /// Ends it.
    pub(super) fn saved_diverged(&mut self, whole: bool) {
        if let Some((file, first, bytes)) = self.diverged_flight.take() {
            let len = if whole { bytes.len() } else { bytes.len() / 2 };
            if first {
                self.diverged.remove(&file);
            }
            self.diverged.entry(file).or_default().extend_from_slice(&bytes[..len]);
        }
    }

    /// The node died; journal writes under way must have been resolved by the caller (see [`Self::fates`]).
    pub(super) fn die(&mut self, death: Death, prng: &mut Prng) {
        for journal in JournalKind::ALL {
            for flight in std::mem::take(&mut self.flights[journal.index()]) {
                let mode = prng.below(4);
                self.land(journal.index(), &flight, |_| random_fate(death, mode, prng));
            }
        }
        if let Some((_, new)) = self.control_flight.take()
            && prng.percent(50)
        {
            self.control = new;
        }
        for Making { kind, index, file, renewed } in std::mem::take(&mut self.making) {
            if (renewed || !self.full) && prng.percent(40) {
                self.segments[kind].insert(index, file);
            }
        }
        // A start removes them.
        self.retired = Default::default();
        if self.diverged_flight.is_some() {
            self.saved_diverged(prng.percent(50));
        }
        for kind in 0..2 {
            if death == Death::Kill {
                continue;
            }
            let gone = std::mem::take(&mut self.removed[kind]);
            // Removals become durable in the order in which they were made: the newest come back.
            let from = usize::try_from(prng.below(gone.len() as u64 + 1)).unwrap_or(0);
            self.segments[kind].extend(gone.into_iter().skip(from));
        }
    }

    /// The node loses its power, and exactly this is left.
    pub(super) fn die_exactly(&mut self, exact: &Exact) {
        for journal in JournalKind::ALL {
            let mask = exact.sectors[journal.index()];
            let mut before = 0;
            for flight in std::mem::take(&mut self.flights[journal.index()]) {
                self.land(journal.index(), &flight, |i| match exact.garbage {
                    Some(at) if at == before + i => Fate::Garbage(7),
                    _ if mask >> ((before + i) % 64) & 1 == 1 => Fate::New,
                    _ => Fate::Old,
                });
                before += flight.sectors();
            }
        }
        if let Some((_, new)) = self.control_flight.take()
            && exact.control
        {
            self.control = new;
        }
        for Making { kind, index, file, .. } in std::mem::take(&mut self.making) {
            if exact.made {
                self.segments[kind].insert(index, file);
            }
        }
        self.retired = Default::default();
        self.diverged_flight = None;
        self.removed = Default::default();
    }

    /// Whether something is under way besides journal writes: a control file, a segment being made.
    pub(super) fn under_way(&self) -> (bool, bool) {
        (self.control_flight.is_some(), !self.making.is_empty())
    }

    /// Damages a durable write after which another one was asked for that is durable too; false if there is none.
    pub(super) fn decay(&mut self, journal: JournalKind, decay: Decay, prng: &mut Prng) -> bool {
        let kind = journal.index();
        let alive = |p: &&Past| self.segments[kind].contains_key(&p.segment);
        let past: Vec<Past> = self.past[kind].iter().filter(alive).cloned().collect();
        let Some(last) = past.iter().max_by_key(|p| (p.segment, p.offset)) else { return false };
        let newest = past.iter().map(|p| p.after).max().unwrap_or(0);
        let before: Vec<&Past> = past.iter().filter(|p| p.durable <= newest).collect();
        let pick = usize::try_from(prng.below(before.len() as u64)).unwrap_or(0);
        let Some(victim) = before.get(pick) else { return false };
        let Some(file) = self.segments[kind].get_mut(&victim.segment) else { return false };
        let place = victim.offset..victim.offset + victim.len;
        match decay {
            Decay::Rot => {
                let at = place.start + usize::try_from(prng.below(victim.len as u64)).unwrap_or(0);
                file.content[at] ^= 1 << prng.below(8);
            }
            Decay::Lost => file.content[place].copy_from_slice(&victim.before),
            Decay::Misdirected => {
                let moved = file.content[place.clone()].to_vec();
                file.content[place].copy_from_slice(&victim.before);
                // Behind the last write of the journal: the worst place, for there a walk expects what comes next.
                let to = last.offset + last.len;
                if let Some(target) = self.segments[kind].get_mut(&last.segment)
                    && to as u64 + moved.len() as u64 <= target.size
                {
                    target.content.resize(target.content.len().max(to + moved.len()), 0);
                    target.content[to..to + moved.len()].copy_from_slice(&moved);
                }
            }
        }
        true
    }
}

/// A sector's fate at a death. `mode` 0: nothing arrived, 1: everything did, else a mixture.
pub(super) fn random_fate(death: Death, mode: u64, prng: &mut Prng) -> Fate {
    match (mode, prng.below(10)) {
        (0, _) | (_, 0..=3) => Fate::Old,
        (1, _) | (_, 4..=7) => Fate::New,
        _ if death == Death::Kill => Fate::New,
        (_, 8) => Fate::Torn(usize::try_from(prng.below(SECTOR as u64)).unwrap_or(0)),
        _ => Fate::Garbage(prng.next_u64()),
    }
}

/// Reads of one journal during recovery; every `fail_every`-th one fails.
pub(super) struct DiskSource<'a> {
    /// The disk.
    pub(super) disk: &'a Disk,
    /// The journal.
    pub(super) journal: JournalKind,
    /// Reads until one fails; never if none.
    pub(super) fails_in: Option<u64>,
}

impl SegmentSource for DiskSource<'_> {
    fn read(&mut self, segment: SegmentIndex, offset: u64, len: usize) -> Result<Bytes, Fault> {
        if let Some(left) = &mut self.fails_in {
            if *left == 0 {
                return Err(Fault::Errno(5));
            }
            *left -= 1;
        }
        self.disk.read(self.journal, segment, offset, len).ok_or(Fault::Errno(2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk_with_a_segment() -> Disk {
        let mut disk = Disk::default();
        disk.prepare(JournalKind::Local, SegmentIndex(1), 65536);
        assert!(disk.prepared(JournalKind::Local, SegmentIndex(1), false));
        disk
    }

    fn block(byte: u8) -> Bytes {
        Bytes::from(vec![byte; 4096])
    }

    #[test]
    fn a_write_is_nowhere_before_it_was_reported_and_everywhere_after() {
        let mut disk = disk_with_a_segment();
        disk.write(JournalKind::Local, SegmentIndex(1), 4096, (1, block(7))).unwrap();
        let all = |disk: &Disk| disk.read(JournalKind::Local, SegmentIndex(1), 4096, 4096).unwrap();
        assert_eq!(all(&disk), block(0));
        let mut dead = disk.clone();
        dead.resolve(JournalKind::Local, 1, |i| if i == 2 { Fate::New } else { Fate::Old });
        assert_eq!(all(&dead)[..1024], block(0)[..1024]);
        assert_eq!(all(&dead)[1024..1536], block(7)[..512]);
        assert!(disk.written(JournalKind::Local, 1));
        assert_eq!(all(&disk), block(7));
    }

    #[test]
    fn a_segment_that_was_not_reported_may_be_there_or_not_after_a_death() {
        let mut seen = [false; 2];
        for seed in 0..32 {
            let mut disk = Disk::default();
            disk.prepare(JournalKind::Local, SegmentIndex(1), 65536);
            disk.die(Death::Power, &mut Prng::new(seed));
            seen[disk.segments(JournalKind::Local).len()] = true;
        }
        assert_eq!(seen, [true; 2]);
    }

    #[test]
    fn a_removed_segment_comes_back_only_at_a_power_loss_before_the_next_directory_sync() {
        for (death, synced, back) in
            [(Death::Kill, false, false), (Death::Power, false, true), (Death::Power, true, false)]
        {
            let mut any = false;
            for seed in 0..32 {
                let mut disk = disk_with_a_segment();
                assert!(disk.remove(JournalKind::Local, SegmentIndex(1), false));
                if synced {
                    disk.prepare(JournalKind::Local, SegmentIndex(2), 65536);
                    disk.prepared(JournalKind::Local, SegmentIndex(2), false);
                }
                disk.die(death, &mut Prng::new(seed));
                any |= disk.segments(JournalKind::Local).iter().any(|s| s.0 == SegmentIndex(1));
            }
            assert_eq!(any, back, "{death:?} synced {synced}");
        }
    }

    #[test]
    fn a_second_write_of_the_same_block_is_refused() {
        let mut disk = disk_with_a_segment();
        disk.write(JournalKind::Local, SegmentIndex(1), 0, (1, block(7))).unwrap();
        assert!(disk.written(JournalKind::Local, 1));
        assert!(disk.write(JournalKind::Local, SegmentIndex(1), 0, (2, block(8))).is_err());
    }
}

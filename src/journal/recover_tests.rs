//! Walks the recovery table row by row, and the writer together with it.

use super::*;
use crate::base::{AlignedBuf, Chain, Epoch, FileId, Mono, Now, Prng};
use crate::format::batch::{BatchBuilder, Seal, mark};
use crate::format::entry::{Entry, EntryKind};
use crate::journal::{Journal, JournalOp};
use std::collections::BTreeMap;

const PAIR: PairId = PairId([4; 16]);
const SIZE: usize = 64 << 10;

#[derive(Clone, Default)]
struct Disk {
    files: BTreeMap<SegmentIndex, Vec<u8>>,
    broken: Option<SegmentIndex>,
}

impl SegmentSource for Disk {
    fn read(&mut self, segment: SegmentIndex, offset: u64, len: usize) -> Result<Bytes, Fault> {
        if self.broken == Some(segment) {
            return Err(Fault::Errno(5));
        }
        let file = &self.files[&segment];
        let from = usize::try_from(offset).unwrap().min(file.len());
        let to = (from + len).min(file.len());
        let mut buf = AlignedBuf::with_capacity(to - from);
        buf.extend_from_slice(&file[from..to]);
        Ok(Bytes::from_owner(buf))
    }
}

impl Disk {
    fn recover(&mut self) -> Result<Recovered, RecoveryError> {
        let files: Vec<_> = self.files.iter().map(|(index, bytes)| (*index, bytes.len() as u64)).collect();
        recover(JournalKind::Replicated, PAIR, Ordinal(0), &files, self)
    }

    fn put(&mut self, segment: u64, offset: usize, bytes: &[u8]) {
        let file = self.files.entry(SegmentIndex(segment)).or_insert_with(|| vec![0; SIZE]);
        file[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    fn header(&mut self, segment: u64, base: Position) {
        let (journal, index) = (JournalKind::Replicated, SegmentIndex(segment));
        let header = SegmentHeader { journal, index, base, pair: PAIR, wall_ms: 0 };
        self.put(segment, 0, &header.encode());
    }
}

fn seal(after: Position, epoch: u64, durable: u64) -> Seal {
    Seal {
        epoch: Epoch(epoch),
        prev_chain: after.chain,
        durable: Seq(durable),
        wall_ms: 0,
        pair: PAIR,
        journal: JournalKind::Replicated,
    }
}

fn batch(after: Position, epoch: u64, durable: u64, entries: usize) -> Batch {
    let mut builder = BatchBuilder::new(after.seq.next(), 0);
    for n in 0..entries {
        let id = format!("item-{n}");
        let (kind, file) = (EntryKind::Put, FileId(4));
        builder.push(&Entry { kind, file, id: id.as_bytes(), value: b"value" });
    }
    builder.seal(&seal(after, epoch, durable))
}

/// One segment with three batches of two entries; returns the ends of the history after each.
fn three() -> (Disk, Vec<Position>) {
    let mut disk = Disk::default();
    let mut ends = vec![Position::default()];
    disk.header(1, ends[0]);
    for n in 0..3 {
        let after = ends[n];
        let b = batch(after, 2, after.seq.0, 2);
        disk.put(1, BLOCK * (n + 1), b.disk());
        ends.push(b.end());
    }
    (disk, ends)
}

/// The history goes on in a second segment, and the first is made the third, without its header.
fn disk_with_a_spare() -> Disk {
    let (mut disk, ends) = three();
    disk.header(2, ends[3]);
    disk.put(2, BLOCK, batch(ends[3], 2, 6, 1).disk());
    let mut file = disk.files.remove(&SegmentIndex(1)).unwrap();
    file[..BLOCK].fill(0);
    disk.files.insert(SegmentIndex(3), file);
    disk
}

fn damaged(result: &Result<Recovered, RecoveryError>) -> bool {
    matches!(result, Err(RecoveryError::Damaged { .. }))
}

#[test]
fn the_table() {
    // Rows 1 and 2: nothing, or a segment made ahead, or one whose header write tore.
    assert_eq!(Disk::default().recover().unwrap().end, Position::default());
    let mut disk = Disk::default();
    disk.put(1, 0, &[0]);
    disk.put(2, 0, b"HBs1 torn");
    let found = disk.recover().unwrap();
    assert_eq!((found.end, found.unused.len(), found.next_index), (Position::default(), 2, 3));

    // Row 3: the header is gone, batches are there.
    let (mut disk, _) = three();
    disk.put(1, 0, &[0; BLOCK]);
    assert!(damaged(&disk.recover()));

    // Rows 2 and 3 of a file that was used before: below the end of the history, what it holds is of no account.
    let mut spare = disk_with_a_spare();
    assert_eq!(spare.recover().unwrap().unused, [SegmentIndex(3)]);
    let end = spare.recover().unwrap().end;
    // Beyond it: opened with batches, by a write of which the header was lost, unless something says it was durable.
    let opening = batch(end, 2, end.seq.0, 1);
    spare.put(3, BLOCK, opening.disk());
    let second = batch(opening.end(), 2, end.seq.0, 1);
    spare.put(3, 2 * BLOCK, second.disk());
    let found = spare.recover().unwrap();
    assert_eq!((found.end, found.unused), (end, vec![SegmentIndex(3)]));
    for proof in [batch(second.end(), 2, end.seq.0 + 1, 1), mark(end.seq.next().next(), &seal(end, 3, 0))] {
        let mut rotten = spare.clone();
        rotten.put(3, 3 * BLOCK, proof.disk());
        assert!(damaged(&rotten.recover()));
    }
    // Nothing was made ahead of the oldest segment: its header is gone.
    let mut oldest = disk_with_a_spare();
    let file = oldest.files.remove(&SegmentIndex(3)).unwrap();
    oldest.files.insert(SegmentIndex(0), file);
    assert!(damaged(&oldest.recover()));
    // But one may have been opened in vain, and the next one with the same batches.
    let (mut disk, _) = three();
    disk.files.insert(SegmentIndex(0), disk.files[&SegmentIndex(1)].clone());
    disk.put(0, 0, &[0; BLOCK]);
    assert_eq!(disk.recover().unwrap().unused, [SegmentIndex(0)]);

    // Row 4: another pair's segment, or one under another number.
    let (disk, _) = three();
    let mut other = disk.clone();
    let files = [(SegmentIndex(1), SIZE as u64)];
    let foreign = recover(JournalKind::Replicated, PairId([5; 16]), Ordinal(0), &files, &mut other);
    assert!(matches!(foreign, Err(RecoveryError::Foreign { what: "pair", .. })));
    let foreign = recover(JournalKind::Local, PAIR, Ordinal(0), &files, &mut other);
    assert!(matches!(foreign, Err(RecoveryError::Foreign { what: "journal", .. })));
    let mut renamed = Disk::default();
    renamed.files.insert(SegmentIndex(7), disk.files[&SegmentIndex(1)].clone());
    assert!(matches!(renamed.recover(), Err(RecoveryError::Foreign { what: "segment number", .. })));

    // Row 5: all of it.
    let (mut disk, ends) = three();
    let found = disk.recover().unwrap();
    assert_eq!((found.end, found.segments.len()), (ends[3], 1));
    assert_eq!(found.segments[0].used, 4 * BLOCK_U64);
    assert_eq!(found.epochs.len(), 1);
    assert_eq!(found.announced, Seq(4));

    // Row 6: the last batch is torn; nothing says that it was durable.
    let (mut disk, ends) = three();
    disk.put(1, 3 * BLOCK + 100, b"torn");
    let found = disk.recover().unwrap();
    assert_eq!((found.end, found.torn), (ends[2], Some(3 * BLOCK_U64)));

    // Row 7: the same behind which a mark stands; a batch in the middle; both refuse.
    let (mut disk, ends) = three();
    disk.put(1, 4 * BLOCK, mark(ends[3].seq.next(), &seal(ends[3], 2, 6)).disk());
    assert_eq!(disk.recover().unwrap().end, ends[3]);
    disk.put(1, 3 * BLOCK + 100, b"rot");
    assert!(damaged(&disk.recover()));
    let (mut disk, _) = three();
    disk.put(1, 2 * BLOCK + 100, b"rot");
    assert!(damaged(&disk.recover()));

    // Row 12: a read fails.
    let (mut disk, _) = three();
    disk.broken = Some(SegmentIndex(1));
    assert!(matches!(disk.recover(), Err(RecoveryError::Read { .. })));
}

#[test]
fn on_a_standby_a_later_batch_proves_nothing_about_the_one_before_it() {
    let mut disk = Disk::default();
    let mut end = Position::default();
    disk.header(1, end);
    let mut ends = Vec::new();
    for n in 0..3 {
        // Epoch 3 belongs to the other node: these were received and written in one go.
        let b = batch(end, 3, end.seq.0, 2);
        disk.put(1, BLOCK * (n + 1), b.disk());
        end = b.end();
        ends.push(end);
    }
    disk.put(1, 2 * BLOCK + 100, b"torn");
    assert_eq!(disk.recover().unwrap().end, ends[0]);
    // Its own mark does prove it.
    disk.put(1, 4 * BLOCK, mark(end.seq.next(), &seal(end, 3, 6)).disk());
    assert!(damaged(&disk.recover()));
}

#[test]
fn what_begins_beyond_two_writes_proves_that_what_is_bad_was_durable_also_on_a_standby() {
    for (distance, rotten) in [(2 * GROUP_MAX, true), (2 * GROUP_MAX - BLOCK, false)] {
        let mut disk = Disk::default();
        disk.files.insert(SegmentIndex(1), vec![0; 2 * GROUP_MAX + 8 * BLOCK]);
        disk.header(1, Position::default());
        // Epoch 3 belongs to the other node.
        let first = batch(Position::default(), 3, 0, 2);
        disk.put(1, BLOCK, first.disk());
        disk.put(1, BLOCK + distance, batch(first.end(), 3, 0, 1).disk());
        assert_eq!(disk.recover().unwrap().end, first.end());
        // The first batch, or the header before it.
        for at in [BLOCK + 100, 100] {
            let mut bad = disk.clone();
            bad.put(1, at, b"rot");
            let found = bad.recover();
            assert_eq!(damaged(&found), rotten, "{found:?}");
            assert!(rotten || found.is_ok_and(|found| found.end == Position::default()));
        }
    }
}

#[test]
fn the_table_over_several_segments() {
    // Row 9: the next segment continues inside the first one: what is beyond is cut.
    let (mut disk, ends) = three();
    disk.header(2, ends[2]);
    let b = batch(ends[2], 4, 4, 1);
    disk.put(2, BLOCK, b.disk());
    let found = disk.recover().unwrap();
    assert_eq!(found.end, b.end());
    assert_eq!(found.segments[0].end, ends[2]);
    assert_eq!(found.epochs.iter().map(|e| e.epoch.0).collect::<Vec<_>>(), [2, 4]);

    // Row 8: what the next segment builds on went bad.
    let mut bad = disk.clone();
    bad.put(1, 2 * BLOCK + 90, b"rot");
    assert!(damaged(&bad.recover()));
    // But what was cut may be anything.
    let mut bad = disk.clone();
    bad.put(1, 3 * BLOCK + 90, b"rot");
    assert_eq!(bad.recover().unwrap().end, b.end());

    // Row 10: it continues at no batch's end, or another history.
    let (mut disk, ends) = three();
    disk.header(2, Position { seq: Seq(3), ..ends[2] });
    assert!(damaged(&disk.recover()));
    let (mut disk, ends) = three();
    disk.header(2, Position { chain: Chain(1), ..ends[3] });
    assert!(damaged(&disk.recover()));

    // Row 11: one is missing.
    let (mut disk, ends) = three();
    disk.header(3, Position { seq: Seq(9), ..ends[3] });
    assert!(damaged(&disk.recover()) || matches!(disk.recover(), Err(RecoveryError::Missing { .. })));

    // A segment wholly cut by a later one is of no use.
    let (mut disk, ends) = three();
    disk.header(2, ends[3]);
    disk.put(2, BLOCK, batch(ends[3], 2, 6, 1).disk());
    disk.header(3, ends[1]);
    let found = disk.recover().unwrap();
    assert_eq!((found.end, found.unused), (ends[1], vec![SegmentIndex(2)]));
}

#[test]
fn no_single_bit_flip_in_a_marked_journal_goes_unnoticed_or_shortens_it() {
    let (mut disk, ends) = three();
    disk.put(1, 4 * BLOCK, mark(ends[3].seq.next(), &seal(ends[3], 2, 6)).disk());
    let good = disk.files[&SegmentIndex(1)].clone();
    // Every bit of the header block and of the three batches' used bytes, one in three.
    for bit in (0..4 * BLOCK * 8).step_by(3) {
        let mut bad = disk.clone();
        let byte = &mut bad.files.get_mut(&SegmentIndex(1)).unwrap()[bit / 8];
        *byte ^= 1 << (bit % 8);
        match bad.recover() {
            Err(_) => {}
            // Padding behind a batch carries nothing.
            Ok(found) => {
                assert_eq!(found.end, ends[3], "bit {bit} shortened the journal");
                let block = &good[bit / 8 / BLOCK * BLOCK..][..BLOCK];
                let used = u32::from_le_bytes(block[12..16].try_into().unwrap()) as usize;
                assert!(bit / 8 >= BLOCK && bit / 8 % BLOCK >= used, "bit {bit} was not noticed");
            }
        }
    }
}

/// Drives a journal against the disk: every write either lands whole, in part or not at all.
struct Rig {
    disk: Disk,
    journal: Journal,
    now: Now,
    acked: Seq,
    /// Files of released segments that may be used again.
    retired: VecDeque<Vec<u8>>,
    renewed: usize,
}

impl Rig {
    fn start(mut disk: Disk) -> Self {
        let found = disk.recover().unwrap();
        let journal = Journal::new(JournalKind::Replicated, PAIR, SIZE as u64, found);
        let (retired, renewed) = (VecDeque::new(), 0);
        Self { disk, journal, now: Now::default(), acked: Seq(0), retired, renewed }
    }

    /// Carries out ops until `budget` writes are done; the write after that is left in the hands of the caller.
    fn run(&mut self, budget: &mut u64) -> Option<(SegmentIndex, u64, Bytes)> {
        loop {
            self.journal.pump(self.now);
            let op = self.journal.poll_op()?;
            match op {
                JournalOp::Prepare { index, bytes } => {
                    let len = usize::try_from(bytes).unwrap();
                    let mut file = self.retired.pop_front().unwrap_or_else(|| vec![0; len]);
                    file[..BLOCK].fill(0);
                    self.renewed += usize::from(file.iter().any(|&byte| byte != 0));
                    self.disk.files.insert(index, file);
                    self.journal.segment_ready(index);
                }
                JournalOp::Remove { index, reuse } => {
                    let file = self.disk.files.remove(&index).expect("what is removed is there");
                    self.retired.extend(reuse.then_some(file));
                }
                JournalOp::Write { write, segment, offset, parts } => {
                    let bytes = Bytes::from(parts.concat());
                    if *budget == 0 {
                        return Some((segment, offset, bytes));
                    }
                    *budget -= 1;
                    self.disk.put(segment.0, usize::try_from(offset).unwrap(), &bytes);
                    self.journal.written(self.now, write);
                    self.acked = self.journal.pace().durable;
                }
            }
        }
    }

    fn append(&mut self, n: u64) {
        let id = n.to_le_bytes();
        let value = vec![b'v'; usize::try_from(n * 977 % 9000).unwrap()];
        let (kind, file) = (EntryKind::Put, FileId(4));
        self.journal.append(std::iter::once(Entry { kind, file, id: &id, value: &value }));
    }
}

#[test]
fn a_crash_at_every_write_with_every_subset_of_its_first_sectors_keeps_what_was_acknowledged() {
    let (images, _) = crashes(0..14, false);
    assert!(images > 2000, "only {images} crash images were looked at");
}

#[test]
fn a_crash_in_a_segment_that_was_used_before_keeps_what_was_acknowledged() {
    let (images, renewed) = crashes(60..90, true);
    assert!(images > 5000, "only {images} crash images were looked at");
    assert!(renewed > 4, "only {renewed} segments were used again");
}

/// Crashes at these writes; with `releases` of a journal that keeps only what it must. Returns how many images were
/// looked at, and how many segments were used again in the longest life.
fn crashes(at: std::ops::Range<u64>, releases: bool) -> (u64, usize) {
    let (mut images, mut renewed) = (0_u64, 0);
    for crash_at in at {
        let mut rig = Rig::start(Disk::default());
        rig.journal.set_epoch(Epoch(2));
        let mut budget = crash_at;
        let mut torn = None;
        for n in 0.. {
            rig.append(n);
            torn = rig.run(&mut budget);
            if torn.is_some() {
                break;
            }
            if releases {
                rig.journal.release(rig.acked);
            }
        }
        renewed = renewed.max(rig.renewed);
        let Some((segment, offset, bytes)) = torn else { continue };
        let sectors = bytes.len() / 512;
        let mut prng = Prng::new(crash_at);
        for case in 0..256_u64 {
            // All subsets of up to eight sectors; beyond, a random choice.
            let mut disk = rig.disk.clone();
            for sector in 0..sectors {
                let keep = if sector < 8 { case >> sector & 1 == 1 } else { prng.percent(50) };
                if keep {
                    let at = usize::try_from(offset).unwrap() + sector * 512;
                    disk.put(segment.0, at, &bytes[sector * 512..(sector + 1) * 512]);
                }
            }
            let found =
                disk.recover().unwrap_or_else(|error| panic!("crash {crash_at} case {case}: {error}"));
            assert!(found.end.seq >= rig.acked, "an acknowledged entry was cut");
            assert_eq!(disk.recover().unwrap(), found, "recovery is repeatable");
            // Life goes on, and a second recovery sees one history.
            let mut next = Rig::start(disk);
            next.append(100);
            next.run(&mut 10);
            assert_eq!(next.disk.recover().unwrap().end.seq, found.end.seq.next());
            images += 1;
        }
    }
    (images, renewed)
}

#[test]
fn a_failed_write_poisons_the_segment_and_a_second_one_stops_the_journal() {
    let mut rig = Rig::start(Disk::default());
    rig.journal.set_epoch(Epoch(2));
    rig.append(1);
    rig.run(&mut 1);
    let durable = rig.journal.durable();
    rig.append(2);
    let (segment, offset, bytes) = rig.run(&mut 0).expect("a write is due");
    // The disk kept it although it said that it failed.
    rig.disk.put(segment.0, usize::try_from(offset).unwrap(), &bytes);
    rig.journal.write_failed(2);
    assert_eq!(rig.journal.durable(), durable, "a failed write makes nothing durable");
    rig.run(&mut 10);
    assert_eq!(rig.journal.pace().durable, Seq(2));
    let found = rig.disk.recover().unwrap();
    assert_eq!((found.end.seq, found.segments.len()), (Seq(2), 2));
    // Twice in a row: no more.
    rig.append(3);
    rig.run(&mut 0).expect("a write is due");
    rig.journal.write_failed(4);
    rig.run(&mut 0).expect("a new segment is opened with it");
    rig.journal.write_failed(5);
    assert!(rig.journal.has_failed());
    assert_eq!(rig.journal.pace().durable, Seq(2));
}

#[test]
fn an_idle_journal_writes_one_mark() {
    let mut rig = Rig::start(Disk::default());
    rig.journal.set_epoch(Epoch(2));
    rig.append(1);
    rig.run(&mut 1);
    rig.now.mono = Mono(1_000_000);
    let mut budget = 5;
    rig.run(&mut budget);
    assert_eq!(budget, 4, "one mark and nothing else");
    assert_eq!(rig.disk.recover().unwrap().end.seq, Seq(1));
}

#[test]
fn what_a_mark_tells_is_found_also_in_a_segment_that_another_follows() {
    let (mut disk, ends) = three();
    let end = ends[3];
    disk.put(1, 4 * BLOCK, mark(end.seq.next(), &seal(end, 2, end.seq.0)).disk());
    disk.files.insert(SegmentIndex(2), vec![0; 10 * BLOCK]);
    disk.header(2, end);
    let found = disk.recover().unwrap();
    assert_eq!((found.end, found.announced), (end, end.seq));
}

#[test]
fn a_history_that_begins_with_a_copy_leaves_segments_of_another_one_and_starts_at_its_origin() {
    let origin = crate::format::control::Origin {
        at: Position { epoch: Epoch(4), seq: Seq(100), chain: crate::base::Chain(7) },
        first_segment: SegmentIndex(3),
    };
    let kind = JournalKind::Replicated;
    let pair = PairId([1; 16]);
    // Nothing is read of what is below its first segment, whatever is there.
    struct Refusing;
    impl SegmentSource for Refusing {
        fn read(&mut self, segment: SegmentIndex, _: u64, _: usize) -> Result<Bytes, Fault> {
            assert!(segment.0 >= 3, "segment {segment} is of another history");
            Ok(Bytes::from(vec![0; 4096]))
        }
    }
    let files = [(SegmentIndex(1), 65536), (SegmentIndex(2), 65536), (SegmentIndex(3), 4096)];
    let found = recover_from(&origin, kind, pair, Ordinal(1), &files, &mut Refusing).unwrap();
    assert_eq!((found.end, found.announced, found.segments.len()), (origin.at, Seq(100), 0));
    assert_eq!((found.unused.len(), found.next_index), (3, 4));
    let none = recover_from(&origin, kind, pair, Ordinal(1), &[], &mut Refusing).unwrap();
    assert_eq!((none.end, none.next_index), (origin.at, 3));
}

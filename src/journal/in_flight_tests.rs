//! Two writes of a journal under way: when, and what counts when they end in whichever way and order.

use super::*;
use crate::base::FileId;
use crate::format::entry::EntryKind;

/// A journal with an open segment whose writes wait until the test ends them.
struct Rig {
    journal: Journal,
    now: Now,
    /// Number, segment, offset, length.
    writes: VecDeque<(u64, SegmentIndex, u64, usize)>,
}

impl Rig {
    fn new() -> Self {
        let mut rig = Self::unopened();
        rig.append(100);
        rig.end(0, true);
        assert_eq!(rig.durable(), 1);
        rig
    }

    /// Without a segment so far.
    fn unopened() -> Self {
        let found = Recovered { next_index: 1, ..Recovered::default() };
        let journal = Journal::new(JournalKind::Replicated, PairId([4; 16]), 64 << 20, found);
        let mut rig = Self { journal, now: Now::default(), writes: VecDeque::new() };
        rig.journal.set_epoch(Epoch(2));
        rig
    }

    fn pump(&mut self) {
        self.journal.pump(self.now);
        while let Some(op) = self.journal.poll_op() {
            match op {
                JournalOp::Prepare { index, .. } => {
                    self.journal.segment_ready(index);
                    self.journal.pump(self.now);
                }
                JournalOp::Write { write, segment, offset, parts } => {
                    let len = parts.iter().map(Bytes::len).sum();
                    self.writes.push_back((write, segment, offset, len));
                }
                JournalOp::Remove { .. } => {}
            }
        }
    }

    fn append(&mut self, len: usize) {
        let value = vec![b'v'; len];
        let entry = Entry { kind: EntryKind::Put, file: FileId(4), id: b"id", value: &value };
        self.journal.append(std::iter::once(entry));
        self.pump();
    }

    fn after(&mut self, us: u64) {
        self.now.mono = Mono(self.now.mono.0 + us);
        self.pump();
    }

    /// Ends a write under way; the entries that are durable by it.
    fn end(&mut self, at: usize, well: bool) -> Vec<u64> {
        let (write, ..) = self.writes.remove(at).expect("it is under way");
        let mut batches = Vec::new();
        if well {
            batches = self.journal.written(self.now, write);
        } else {
            self.journal.write_failed(write);
        }
        self.pump();
        batches.iter().map(|batch| batch.header().last_seq().0).collect()
    }

    fn durable(&self) -> u64 {
        self.journal.pace().durable.0
    }

    /// Two under way, of entry 2 and 3.
    fn two() -> Self {
        let mut rig = Self::new();
        rig.append(100);
        rig.append(100);
        assert_eq!(rig.writes.len(), 1, "the second waits for company");
        rig.after(1000);
        assert_eq!(rig.writes.len(), 2);
        rig
    }
}

#[test]
fn the_next_write_waits_no_longer_for_one_that_takes_long() {
    let mut rig = Rig::new();
    rig.append(100);
    assert_eq!(rig.journal.deadline(), None, "nothing waits");
    rig.append(100);
    let due = rig.journal.deadline().expect("it goes out by itself");
    rig.after(due.0 - rig.now.mono.0 - 1);
    assert_eq!(rig.writes.len(), 1);
    rig.after(1);
    let [(_, first, at, len), (_, second, next, _)] = rig.writes.make_contiguous() else {
        panic!("two are under way")
    };
    assert_eq!((first, *at + *len as u64), (second, *next), "one behind the other");
    rig.append(100);
    rig.after(10_000);
    assert_eq!(rig.writes.len(), 2, "never a third");
    rig.end(0, true);
    assert_eq!(rig.writes.len(), 2, "beside the second, which took long");
}

#[test]
fn a_little_waits_beside_much_and_much_waits_for_nothing() {
    let mut rig = Rig::new();
    rig.append(100_000);
    rig.append(100);
    rig.after(10_000);
    assert_eq!(rig.writes.len(), 1, "too little to be worth a write");
    rig.append(BATCH_SOFT);
    assert_eq!(rig.writes.len(), 2);
}

#[test]
fn what_is_longer_than_a_group_goes_alone() {
    let mut rig = Rig::new();
    rig.append(GROUP_MAX);
    rig.append(GROUP_MAX);
    rig.after(10_000);
    assert_eq!(rig.writes.len(), 1, "neither beside it");
    rig.append(2 * BATCH_SOFT);
    assert_eq!(rig.end(0, true), [2]);
    rig.append(2 * BATCH_SOFT);
    rig.after(10_000);
    assert_eq!(rig.writes.len(), 1, "nor it beside another");
}

#[test]
fn the_later_write_counts_only_with_the_earlier_one() {
    let mut rig = Rig::two();
    assert_eq!(rig.end(1, true), [] as [u64; 0]);
    assert_eq!((rig.durable(), rig.journal.is_written()), (1, false));
    assert_eq!(rig.end(0, true), [2, 3]);
    assert_eq!((rig.durable(), rig.journal.is_written()), (3, true));
    let mut rig = Rig::two();
    assert_eq!((rig.end(0, true), rig.durable()), (vec![2], 2));
    assert_eq!((rig.end(0, true), rig.durable()), (vec![3], 3));
}

#[test]
fn what_failed_is_written_again_with_what_was_behind_it_and_counts_once() {
    // Which ends first, and how the first and the second end.
    for (first_to_end, first, second) in [
        (0, false, true),
        (1, false, true),
        (0, true, false),
        (1, true, false),
        (0, false, false),
        (1, false, false),
    ] {
        let mut rig = Rig::two();
        let (_, poisoned, ..) = rig.writes[0];
        let ends = [first, second];
        let mut told = rig.end(first_to_end, ends[first_to_end]);
        assert_eq!(rig.writes.len(), 1, "nothing is begun beside what is still under way");
        told.extend(rig.end(0, ends[1 - first_to_end]));
        let kept: &[u64] = if first { &[2] } else { &[] };
        assert_eq!((told.as_slice(), rig.durable()), (kept, 1 + kept.len() as u64));
        assert!(!rig.journal.has_failed());
        // A new segment, after what is durable, opened with all of the rest in one write.
        assert!(rig.writes[0].1 > poisoned && rig.writes[0].2 == 0);
        assert_eq!(rig.end(0, true).last(), Some(&3));
        assert!(rig.journal.is_written() && rig.durable() == 3);
        // Only now is the next failure the second in a row no longer.
        rig.append(100);
        rig.end(0, false);
        assert!(!rig.journal.has_failed());
        rig.end(0, false);
        assert!(rig.journal.has_failed());
    }
}

#[test]
fn a_failure_that_is_told_before_an_earlier_write_ends_well_is_still_the_first_of_two_in_a_row() {
    let mut rig = Rig::two();
    rig.end(1, false);
    rig.end(0, true);
    assert!(rig.durable() == 2 && !rig.journal.has_failed());
    rig.end(0, false);
    assert!(rig.journal.has_failed());
}

/// A write that opens a segment with entry 1, and one of entry 2 beside it.
fn opening() -> Rig {
    let mut rig = Rig::unopened();
    rig.append(100);
    rig.append(100);
    rig.after(1000);
    let [(_, first, at, len), (_, second, next, _)] = rig.writes.make_contiguous() else {
        panic!("two are under way")
    };
    assert_eq!((first, *at, *at + *len as u64), (second, 0, *next), "one behind the other");
    rig
}

#[test]
fn a_segment_is_opened_with_batches_and_may_have_a_second_write_beside_that() {
    let mut rig = opening();
    assert_eq!(rig.journal.oldest(), Seq(3), "none is open yet");
    assert_eq!(rig.end(1, true), [] as [u64; 0]);
    assert_eq!(rig.end(0, true), [1, 2]);
    assert_eq!((rig.durable(), rig.journal.oldest()), (2, Seq(1)));
    rig.append(100);
    assert_eq!((rig.writes[0].1, rig.writes[0].2), (SegmentIndex(1), 3 * BLOCK_U64), "it goes on there");
}

#[test]
fn a_segment_that_was_opened_in_vain_is_left_and_so_is_one_that_failed_behind_its_header() {
    for (first_to_end, first, second) in
        [(0, false, true), (1, false, true), (0, true, false), (1, true, false), (0, false, false)]
    {
        let mut rig = opening();
        let ends = [first, second];
        let mut told = rig.end(first_to_end, ends[first_to_end]);
        told.extend(rig.end(0, ends[1 - first_to_end]));
        let kept: &[u64] = if first { &[1] } else { &[] };
        assert_eq!(told, kept);
        assert_eq!((rig.writes.len(), rig.writes[0].1, rig.writes[0].2), (1, SegmentIndex(2), 0));
        let unused = if first { vec![] } else { vec![SegmentIndex(1)] };
        assert_eq!(rig.journal.unused, unused);
        rig.end(0, true);
        assert!(rig.durable() == 2 && rig.journal.unused.is_empty());
        assert_eq!(rig.journal.segments.len(), 1 + usize::from(first));
        // Neither may become another segment.
        let again = rig.journal.segments.get(SegmentIndex(1)).is_some_and(|info| info.reusable);
        assert!(!again);
    }
}

/// A write as it was asked for, with the entries of its batches.
struct Asked {
    write: u64,
    entries: Vec<(u64, u64)>,
    ended: Option<bool>,
}

/// What a journal with failing writes gives out, held against what it should.
struct Ledger {
    rig: Rig,
    asked: VecDeque<Asked>,
    /// The last entry sealed, and the last one that is durable.
    sealed: u64,
    durable: u64,
    bytes: std::collections::HashMap<u64, Bytes>,
}

impl Ledger {
    /// Pumps; what is sealed is told once and in order, and each write goes on where the one before it ends, with the
    /// same bytes under the same numbers as ever.
    fn pump(&mut self) {
        for batch in self.rig.journal.pump(self.rig.now) {
            assert_eq!(batch.header().first_seq.0, self.sealed + 1, "sealed once and in order");
            self.sealed = batch.header().last_seq().0;
        }
        while let Some(op) = self.rig.journal.poll_op() {
            match op {
                JournalOp::Prepare { index, .. } => {
                    self.rig.journal.segment_ready(index);
                    self.pump();
                }
                JournalOp::Write { write, offset, parts, .. } => self.asked(write, offset, &parts),
                JournalOp::Remove { .. } => {}
            }
        }
    }

    fn asked(&mut self, write: u64, offset: u64, parts: &[Bytes]) {
        assert!(
            self.asked.iter().all(|asked| asked.ended != Some(false)),
            "none is begun beside one that failed"
        );
        let before = self.asked.back().and_then(|asked| asked.entries.last());
        let mut next = before.map_or(self.durable, |entries| entries.1) + 1;
        let mut entries = Vec::new();
        for part in &parts[usize::from(offset == 0)..] {
            let batch = Batch::from_disk(part).expect("a batch");
            let header = *batch.header();
            if header.mark {
                continue;
            }
            assert_eq!(header.first_seq.0, next, "each batch once, in order");
            next = header.last_seq().0 + 1;
            let known = self.bytes.entry(header.first_seq.0).or_insert_with(|| part.clone());
            assert_eq!(known, part, "written again as it was");
            entries.push((header.first_seq.0, header.last_seq().0));
        }
        self.asked.push_back(Asked { write, entries, ended: None });
        assert!(self.asked.len() <= 2);
    }

    /// A write ends; what is told durable is what all before it are, once.
    fn end(&mut self, at: usize, well: bool) {
        let write = self.asked[at].write;
        self.asked[at].ended = Some(well);
        let told = if well {
            self.rig.journal.written(self.rig.now, write)
        } else {
            self.rig.journal.write_failed(write);
            Vec::new()
        };
        let mut due = Vec::new();
        while self.asked.front().is_some_and(|asked| asked.ended == Some(true)) {
            due.extend(self.asked.pop_front().map(|asked| asked.entries).unwrap_or_default());
        }
        let told: Vec<_> =
            told.iter().map(|batch| (batch.header().first_seq.0, batch.header().last_seq().0)).collect();
        assert_eq!(told, due, "durable once and in order");
        self.durable = due.last().map_or(self.durable, |entries| entries.1);
        assert_eq!(self.rig.durable(), self.durable);
        if self.asked.front().is_some_and(|asked| asked.ended == Some(false))
            && self.asked.iter().all(|asked| asked.ended.is_some())
        {
            // All of them are written again.
            self.asked.clear();
        }
        self.pump();
    }
}

#[test]
fn each_batch_is_given_out_once_and_again_only_after_its_write_failed() {
    let (mut again, mut over, mut ended) = (0, 0, 0);
    for seed in 0..400 {
        let mut prng = crate::base::Prng::new(seed);
        let (asked, bytes) = (VecDeque::new(), std::collections::HashMap::new());
        let mut ledger = Ledger { rig: Rig::unopened(), asked, sealed: 0, durable: 0, bytes };
        for _ in 0..200 {
            match prng.below(8) {
                0..=3 => {
                    let big = prng.percent(10);
                    let len = usize::try_from(prng.below(if big { 2 << 20 } else { 3000 })).unwrap();
                    let value = vec![b'v'; len];
                    let entry = Entry { kind: EntryKind::Put, file: FileId(4), id: b"id", value: &value };
                    ledger.rig.journal.append(std::iter::once(entry));
                    ledger.pump();
                }
                4 => {
                    ledger.rig.now.mono = Mono(ledger.rig.now.mono.0 + prng.below(30_000));
                    ledger.pump();
                }
                _ => {
                    let open: Vec<usize> =
                        (0..ledger.asked.len()).filter(|at| ledger.asked[*at].ended.is_none()).collect();
                    if let Some(at) = open.get(usize::try_from(prng.below(2)).unwrap()).or(open.first()) {
                        let well = !prng.percent(15);
                        again += u32::from(!well);
                        ledger.end(*at, well);
                    }
                }
            }
            over += u32::from(ledger.asked.len() == 2);
        }
        while !ledger.rig.journal.has_failed() && !ledger.asked.is_empty() {
            let at = ledger.asked.iter().position(|asked| asked.ended.is_none()).unwrap();
            ledger.end(at, true);
        }
        if !ledger.rig.journal.has_failed() {
            assert_eq!(ledger.durable, ledger.rig.journal.pace().appended.0, "seed {seed}");
            assert_eq!(ledger.rig.journal.queued_bytes(), 0, "seed {seed}: every byte is accounted for");
            ended += 1;
        }
    }
    assert!(
        again > 400 && over > 400 && ended > 50,
        "{again} failures, {over} overlaps, {ended} came to an end"
    );
}

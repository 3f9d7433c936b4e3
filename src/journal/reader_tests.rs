//! A journal with its segments in memory, read back by readers whose reads fail and cross.

use super::*;
use crate::base::{Epoch, FileId, JournalKind, Mono, Now, Ordinal, Prng, SegmentIndex};
use crate::format::PairId;
use crate::format::entry::{Entry, EntryKind};
use crate::journal::{JournalOp, SegmentSource, recover};
use std::collections::BTreeMap;

const SIZE: u64 = 64 << 10;

struct Disk {
    journal: Journal,
    segments: BTreeMap<SegmentIndex, Vec<u8>>,
    now: Now,
}

impl Disk {
    fn new() -> Self {
        struct Nothing;
        impl SegmentSource for Nothing {
            fn read(&mut self, _: SegmentIndex, _: u64, _: usize) -> Result<Bytes, Fault> {
                Err(Fault::Errno(2))
            }
        }
        let pair = PairId([4; 16]);
        let kind = JournalKind::Replicated;
        let found = recover(kind, pair, Ordinal(0), &[], &mut Nothing).unwrap();
        let now = Now { mono: Mono(1), wall_ms: 1 };
        let mut disk =
            Self { journal: Journal::new(kind, pair, SIZE, found), segments: BTreeMap::new(), now };
        disk.journal.set_epoch(Epoch(2));
        disk.pump();
        disk
    }

    fn pump(&mut self) {
        self.journal.pump(self.now);
        while let Some(op) = self.journal.poll_op() {
            match op {
                JournalOp::Prepare { index, bytes } => {
                    self.segments.insert(index, vec![0; usize::try_from(bytes).unwrap()]);
                    self.journal.segment_ready(index);
                }
                JournalOp::Write { write, segment, offset, parts } => {
                    let bytes = parts.concat();
                    let at = usize::try_from(offset).unwrap();
                    self.segments.get_mut(&segment).unwrap()[at..at + bytes.len()].copy_from_slice(&bytes);
                    self.journal.written(self.now, write);
                }
                JournalOp::Remove { index, .. } => drop(self.segments.remove(&index)),
            }
            self.journal.pump(self.now);
        }
    }

    /// As many entries, each in a batch of its own.
    fn fill(&mut self, entries: u64, prng: &mut Prng) {
        for _ in 0..entries {
            let value = vec![b'v'; usize::try_from(prng.below(9000)).unwrap()];
            let entry = Entry { kind: EntryKind::Put, file: FileId(4), id: b"id", value: &value };
            self.journal.append(std::iter::once(entry));
            self.pump();
        }
    }

    fn read(&self, request: ReadRequest) -> Bytes {
        let segment = &self.segments[&request.segment];
        let from = usize::try_from(request.offset).unwrap().min(segment.len());
        Bytes::copy_from_slice(&segment[from..(from + request.len).min(segment.len())])
    }
}

#[test]
fn a_reader_gives_every_entry_once_and_in_order_whichever_of_its_reads_fail() {
    let (mut failed, mut segments) = (0, 0);
    for seed in 0..40 {
        let mut prng = Prng::new(seed);
        let mut disk = Disk::new();
        disk.fill(60, &mut prng);
        segments += disk.segments.len();
        let begin = prng.below(60);
        let mut reader = JournalReader::after(Seq(begin));
        let (mut given, mut round) = (Vec::new(), 0);
        loop {
            match reader.next(&disk.journal).unwrap() {
                ReadStep::Batch(batch) => given.extend(batch.entries().map(|(seq, _)| seq.0)),
                ReadStep::Wait(Some(_)) if prng.percent(30) => {
                    round += 1;
                    reader.asked(round);
                    assert_eq!(reader.take(round, Err(Fault::Errno(5))), Some(Err(Fault::Errno(5))));
                    failed += 1;
                }
                ReadStep::Wait(Some(request)) => {
                    round += 1;
                    reader.asked(round);
                    assert_eq!(reader.take(round, Ok(disk.read(request))), Some(Ok(())));
                }
                ReadStep::Wait(None) => panic!("seed {seed}: it waits for nothing that was asked for"),
                ReadStep::End => break,
            }
        }
        assert_eq!(given, (begin + 1..=60).collect::<Vec<_>>(), "seed {seed}");
    }
    assert!(failed > 40 && segments > 100, "{failed} reads failed, {segments} segments");
}

#[test]
fn bytes_of_an_earlier_round_are_not_taken_for_those_asked_for_now() {
    let mut disk = Disk::new();
    disk.fill(20, &mut Prng::new(1));
    let mut reader = JournalReader::after(Seq(3));
    let ReadStep::Wait(Some(first)) = reader.next(&disk.journal).unwrap() else { panic!("nothing is read") };
    reader.asked(1);
    assert!(matches!(reader.next(&disk.journal), Ok(ReadStep::Wait(None))), "it asks once");
    // Sent elsewhere: what comes of the first round is nobody's.
    reader.seek(Seq(7));
    assert_eq!(reader.take(1, Ok(disk.read(first))), None);
    let ReadStep::Wait(Some(request)) = reader.next(&disk.journal).unwrap() else {
        panic!("nothing is read")
    };
    reader.asked(2);
    assert_eq!(reader.take(1, Err(Fault::Errno(5))), None);
    assert!(reader.is_waiting());
    assert_eq!(reader.take(2, Ok(disk.read(request))), Some(Ok(())));
    let first = loop {
        match reader.next(&disk.journal).unwrap() {
            ReadStep::Batch(batch) => break batch,
            ReadStep::Wait(Some(request)) => {
                reader.asked(3);
                reader.take(3, Ok(disk.read(request)));
            }
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(first.header().first_seq, Seq(8));
}

#[test]
fn a_reader_at_the_end_goes_on_when_more_is_durable_and_says_what_is_gone() {
    let mut disk = Disk::new();
    disk.fill(3, &mut Prng::new(1));
    let mut reader = JournalReader::after(Seq(0));
    let mut round = 0;
    let mut to_the_end = |disk: &Disk| {
        let mut given = Vec::new();
        loop {
            match reader.next(&disk.journal).unwrap() {
                ReadStep::Batch(batch) => given.extend(batch.entries().map(|(seq, _)| seq.0)),
                ReadStep::Wait(request) => {
                    round += 1;
                    reader.asked(round);
                    reader.take(round, Ok(disk.read(request.unwrap())));
                }
                ReadStep::End => return given,
            }
        }
    };
    assert_eq!(to_the_end(&disk), [1, 2, 3]);
    assert!(to_the_end(&disk).is_empty());
    disk.fill(60, &mut Prng::new(2));
    assert_eq!(to_the_end(&disk), (4..=63).collect::<Vec<_>>());
    disk.journal.release(Seq(63));
    disk.pump();
    let mut reader = JournalReader::after(Seq(0));
    let gone = reader.next(&disk.journal);
    assert!(matches!(gone, Err(CursorError::Released { wanted: Seq(1), .. })), "{gone:?}");
}

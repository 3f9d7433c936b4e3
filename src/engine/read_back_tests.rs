//! Consumers of the journal whose reads fail on the way.

use super::super::apply::Applier;
use super::*;
use crate::base::{Epoch, FileId, Now, Ordinal, Position, SegmentIndex, Seq};
use crate::engine::roles::Stage;
use crate::engine::test_kit::{self, PAIR};
use crate::engine::{Effect, EngineConfig, FileEffect, FileEvent};
use crate::format::control::{Control, Role};
use crate::format::entry::{Entry, EntryKind};
use crate::journal::{Journal, JournalOp};
use crate::store::memory::MemoryStore;
use std::collections::BTreeMap;

fn config() -> EngineConfig {
    EngineConfig { segment_bytes: 256 << 10, ..test_kit::config(0) }
}

/// A primary whose store shows all of a journal that spans several segments, and those.
struct Bench {
    core: Core<MemoryStore>,
    segments: BTreeMap<SegmentIndex, Vec<u8>>,
}

impl Bench {
    fn new(entries: u64) -> Self {
        Self::with(entries, 40 << 10)
    }

    /// The values have this length.
    fn with(entries: u64, value: usize) -> Self {
        let control = Control { epoch: Epoch(2), ..Control::new(Role::Primary, PAIR) };
        let start = test_kit::empty(control, MemoryStore::new(Ordinal(0)));
        let mut bench = Self { core: Core::new(config(), start), segments: BTreeMap::new() };
        bench.core.roles.place(Stage::Serving);
        let value = vec![b'v'; value];
        for _ in 0..entries {
            let journal = &mut bench.core.journals[0];
            journal.set_epoch(Epoch(2));
            let entry = Entry { kind: EntryKind::Put, file: FileId(4), id: b"id", value: &value };
            journal.append(std::iter::once(entry));
            write(journal, &mut bench.segments);
        }
        let end = Seq(entries);
        bench.core.appliers.replace(Applier::new(end, end, end, end));
        bench
    }

    fn bytes(&self, read: &ReadSegment) -> Bytes {
        let segment = &self.segments[&read.segment];
        let from = usize::try_from(read.offset).unwrap();
        Bytes::copy_from_slice(&segment[from..(from + read.len).min(segment.len())])
    }
}

/// Lets a journal do all that it wants.
fn write(journal: &mut Journal, segments: &mut BTreeMap<SegmentIndex, Vec<u8>>) {
    let now = Now::default();
    journal.pump(now);
    while let Some(op) = journal.poll_op() {
        match op {
            JournalOp::Prepare { index, bytes } => {
                segments.insert(index, vec![0; usize::try_from(bytes).unwrap()]);
                journal.segment_ready(index);
            }
            JournalOp::Write { write, segment, offset, parts } => {
                let (bytes, at) = (parts.concat(), usize::try_from(offset).unwrap());
                segments.get_mut(&segment).unwrap()[at..at + bytes.len()].copy_from_slice(&bytes);
                journal.written(now, write);
            }
            JournalOp::Remove { .. } => {}
        }
        journal.pump(now);
    }
}

/// How a save of diverged entries went.
#[derive(Default)]
struct Saves {
    reads: u64,
    count: u64,
    /// The numbers of the entries that are saved.
    seqs: Vec<u64>,
    ended: bool,
}

/// Steps down after entry 2. The reads and the saves of these numbers fail.
fn step_down(bench: &mut Bench, failing_read: u64, failing_save: u64) -> Saves {
    let common = Position { seq: Seq(2), ..Position::default() };
    bench.core.step_down(common, Epoch(9));
    let (mut saves, mut saved) = (Saves::default(), Vec::new());
    for _ in 0..1000 {
        bench.core.pump_roles();
        bench.core.now.mono = bench.core.now.mono.plus_ms(60_000);
        while let Some(effect) = bench.core.out.pop_front() {
            match effect {
                Effect::Journal(JournalEffect::Read(read)) => {
                    let fault = saves.reads == failing_read;
                    saves.reads += 1;
                    let result = if fault { Err(Fault::Errno(5)) } else { Ok(bench.bytes(&read)) };
                    bench.core.read_done(read.read, result);
                }
                Effect::File(FileEffect::SaveDiverged { save, first, bytes, .. }) => {
                    let fault = saves.count == failing_save;
                    saves.count += 1;
                    if first {
                        saved.clear();
                    }
                    saved.push(bytes);
                    match fault {
                        true => {
                            bench.core.file_event(FileEvent::DivergedFailed { save, fault: Fault::Errno(5) })
                        }
                        false => bench.core.file_event(FileEvent::DivergedSaved { save }),
                    }
                }
                Effect::File(FileEffect::WriteControl { .. }) => saves.ended = true,
                _ => {}
            }
        }
    }
    let text = String::from_utf8(saved.concat()).unwrap();
    let seq = |line: &str| line.split_once("\"seq\":")?.1.split([',', '}']).next()?.parse::<u64>().ok();
    saves.seqs = text.lines().map(|line| seq(line).expect("each line has its number")).collect();
    saves
}

#[test]
fn an_entry_that_the_pair_never_kept_is_saved_once_whichever_reads_or_saves_fail_meanwhile() {
    for fails in 0..4 {
        for (reads, saves) in [(fails, u64::MAX), (u64::MAX, fails)] {
            let saves = step_down(&mut Bench::new(120), reads, saves);
            assert!(saves.ended && saves.reads > fails && saves.count > fails, "number {fails} fails");
            assert_eq!(saves.seqs, (3..=120).collect::<Vec<_>>(), "number {fails} fails");
        }
    }
}

#[test]
fn many_small_updates_that_the_pair_never_kept_are_saved_with_few_waits_for_the_disk() {
    let saves = step_down(&mut Bench::with(500, 10), u64::MAX, u64::MAX);
    assert!(saves.ended && saves.seqs == (3..=500).collect::<Vec<_>>());
    assert_eq!(saves.count, 1, "each was a batch of its own");
}

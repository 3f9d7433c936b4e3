//! The apply thread with stores that fail, wait, and say what they were given.

use super::super::inbox::Message;
use super::*;
use crate::base::{Chain, Epoch, FileId};
use crate::engine::Event;
use crate::format::PairId;
use crate::format::batch::{BatchBuilder, Seal};
use crate::format::entry::{Entry, EntryKind};
use crate::io::Wake;
use std::sync::mpsc::channel;

struct NoWake;

impl Wake for NoWake {
    fn wake(&self) {}
}

/// Notes what it is given; fails where told.
#[derive(Default)]
struct Notebook {
    calls: Vec<(JournalKind, Vec<u64>)>,
    fail: Option<JournalKind>,
    /// So many calls more fail; all that come if none.
    failures: Option<u32>,
    mess: u32,
    /// Checkpoints have a slow part, and whether it fails.
    slow: Option<bool>,
    sync_fault: Option<Fault>,
}

impl MomentSource for Notebook {
    fn shows(&self) -> [Seq; 2] {
        [self.shown(); 2]
    }

    fn items(&self) -> Option<Moment> {
        None
    }

    fn moment(&mut self, _kept: &Arc<Kept>) -> Result<Moment, StoreError> {
        Err(StoreError::Damaged { what: "a notebook", why: "nobody can hold it".to_owned() })
    }
}

impl CompareTarget for Notebook {
    fn look(&mut self, file: FileId, _span: &Span, _most: u32) -> Result<Look, StoreError> {
        let at = self.shown();
        let content = crate::format::chunk::Content::Gone;
        let chunk = Chunk { id: 0, file, at, until: at, content, ends: true };
        Ok(Look { at, read: Box::new(move || Ok(chunk)) })
    }

    fn shown(&self) -> Seq {
        let applied = self.calls.iter().filter(|(journal, _)| *journal == JournalKind::Replicated);
        Seq(applied.flat_map(|(_, seqs)| seqs).copied().max().unwrap_or(0))
    }

    fn repair(&mut self, _chunk: &Chunk) -> Result<(), StoreError> {
        Ok(())
    }
}

impl StoreWrite for Notebook {
    fn apply(&mut self, journal: JournalKind, batches: &[Batch]) -> Result<(), StoreError> {
        self.calls.push((journal, batches.iter().map(|batch| batch.header().last_seq().0).collect()));
        let fails = self.failures.is_none_or(|left| left > 0);
        if self.fail == Some(journal) && fails {
            self.failures = self.failures.map(|left| left - 1);
            return Err(StoreError::Disk { doing: "applying", fault: Fault::NoSpace });
        }
        Ok(())
    }

    fn begin_checkpoint(&mut self) -> Option<SlowSync> {
        let fails = self.slow?;
        Some(Box::new(move || if fails { Err(io::Error::from_raw_os_error(5)) } else { Ok(()) }))
    }

    fn checkpoint(&mut self) -> Result<[Seq; 2], StoreError> {
        self.calls.push((JournalKind::Local, Vec::new()));
        Ok([Seq(5), Seq(6)])
    }

    fn checkpoint_failed(&mut self, fault: Fault) {
        self.sync_fault = Some(fault);
    }

    fn read_volume(&mut self, _: FileId, offset: u64, len: usize) -> Result<bytes::Bytes, StoreError> {
        let byte = u8::try_from(offset).unwrap();
        Ok(vec![byte; len].into())
    }

    fn allocation(&mut self, _: FileId, _: u64, len: u64) -> Result<Vec<(u64, bool)>, StoreError> {
        Ok(vec![(len, true)])
    }
}

impl CopyTarget for Notebook {
    fn prepare_rewind(&mut self, prepared: &Prepared) -> Result<(), StoreError> {
        panic!("nobody rewinds: {prepared:?}");
    }

    fn begin_copy(&mut self, begin: &CopyBegin, _: Option<&Ranges>) -> Result<(), StoreError> {
        self.calls.push((JournalKind::Replicated, vec![begin.origin.seq.0]));
        Ok(())
    }

    fn take_chunk(&mut self, chunk: &Chunk, _: &Progress) -> Result<(), StoreError> {
        self.calls.push((JournalKind::Replicated, vec![chunk.at.0]));
        match self.fail {
            Some(JournalKind::Replicated) => Err(StoreError::Disk { doing: "taking", fault: Fault::NoSpace }),
            _ => Ok(()),
        }
    }
}

/// What the apply thread is given.
enum Job {
    Checkpoint,
    Other(Apply),
}

fn batch(journal: JournalKind, seq: u64, value: usize) -> Job {
    batch_of_round(Round(0), journal, seq, value)
}

fn batch_of_round(round: Round, journal: JournalKind, seq: u64, value: usize) -> Job {
    let mut builder = BatchBuilder::new(Seq(seq), 4096);
    let value = vec![0; value];
    builder.push(&Entry { kind: EntryKind::Put, file: crate::base::FileId(4), id: b"i", value: &value });
    let seal = Seal {
        epoch: Epoch(1),
        prev_chain: Chain(0),
        durable: Seq(0),
        wall_ms: 0,
        pair: PairId([0; 16]),
        journal,
    };
    Job::Other(Apply::Batch(journal, round, builder.seal(&seal)))
}

/// What the store was asked, and what the core was told.
fn run_all(store: &mut Notebook, jobs: Vec<Job>) -> Vec<String> {
    let (inbox, outbox) = Inbox::new(Arc::new(NoWake));
    let (give, work) = channel();
    for job in jobs {
        match job {
            Job::Checkpoint => give.send(Apply::Checkpoint(give.clone())).unwrap(),
            Job::Other(job) => give.send(job).unwrap(),
        }
    }
    drop(give);
    let (syncs, sync_work) = channel();
    let syncer = std::thread::spawn(move || run_syncs(&sync_work));
    let tidy = |store: &mut Notebook| {
        store.mess = store.mess.saturating_sub(1);
        Ok(store.mess > 0)
    };
    run(store, tidy, || (), &work, &syncs, &inbox, &AtomicBool::new(false));
    drop(syncs);
    syncer.join().unwrap();
    let told = std::iter::from_fn(|| outbox.take());
    told.map(|message| match message {
        Message::Event(Event::Store(event)) => format!("{event:?}"),
        Message::Event(Event::Volume(event)) => format!("{event:?}"),
        _ => "something else".to_owned(),
    })
    .collect()
}

#[test]
fn waiting_batches_of_one_journal_are_applied_in_one_call_and_in_order() {
    use JournalKind::{Local, Replicated};
    let mut store = Notebook::default();
    let jobs = vec![
        batch(Replicated, 1, 1),
        batch(Replicated, 2, 1),
        batch(Local, 1, 1),
        Job::Checkpoint,
        batch(Local, 2, APPLY_MERGE_MAX * 3 / 4),
        batch(Local, 3, APPLY_MERGE_MAX * 3 / 4),
        batch(Local, 4, 1),
    ];
    let told = run_all(&mut store, jobs);
    let calls = [
        (Replicated, vec![1, 2]),
        (Local, vec![1]),
        (Local, Vec::new()),
        (Local, vec![2, 3]),
        (Local, vec![4]),
    ];
    assert_eq!(store.calls, calls);
    assert_eq!(told.len(), 5);
    assert_eq!(told[0], "Applied { journal: Replicated, round: Round(0), seq: Seq(2) }");
    assert_eq!(told[2], "Checkpointed { applied: [Seq(5), Seq(6)] }");
    assert_eq!(told[4], "Applied { journal: Local, round: Round(0), seq: Seq(4) }");
}

#[test]
fn after_a_rest_the_first_batch_does_not_linger_and_the_next_one_does() {
    let mut linger = Linger::default();
    linger.rested();
    linger.collect(|| panic!("it looks for more"));
    let mut looks = 0;
    linger.collect(|| {
        looks += 1;
        Came::Enough
    });
    assert_eq!(looks, 1);
}

#[test]
fn the_slow_part_of_a_checkpoint_is_done_aside_and_what_came_of_it_is_told() {
    use JournalKind::Replicated;
    let mut store = Notebook { slow: Some(false), ..Notebook::default() };
    let told = run_all(&mut store, vec![Job::Checkpoint, batch(Replicated, 1, 1)]);
    assert!(told.contains(&"Checkpointed { applied: [Seq(5), Seq(6)] }".to_owned()), "{told:?}");
    let mut store = Notebook { slow: Some(true), ..Notebook::default() };
    let told = run_all(&mut store, vec![Job::Checkpoint]);
    assert_eq!(told, ["CheckpointFailed { fault: Errno(5) }"]);
    assert_eq!((store.sync_fault, store.calls.len()), (Some(Fault::Errno(5)), 0));
}

#[test]
fn reads_of_volumes_are_answered_between_the_batches() {
    let file = FileId(4);
    let read =
        Job::Other(Apply::Volume(VolumeEffect::Read { read: 7, file, offset: 3, len: 2, ordered: true }));
    let look = Job::Other(Apply::Volume(VolumeEffect::Allocation {
        read: 8,
        file,
        offset: 0,
        len: 9,
        ordered: true,
    }));
    let told = run_all(&mut Notebook::default(), vec![batch(JournalKind::Local, 1, 1), read, look]);
    assert_eq!(told[0], "Applied { journal: Local, round: Round(0), seq: Seq(1) }");
    assert!(told[1].starts_with("Read { read: 7, result: Ok("), "{told:?}");
    assert!(told[2].starts_with("Allocation { read: 8, result: Ok("), "{told:?}");
}

#[test]
fn batches_collect_while_they_keep_coming_and_are_applied_at_once_when_they_do_not() {
    let mut linger = Linger::default();
    let looks = std::cell::Cell::new(0_u32);
    let mut collect = |what| {
        looks.set(0);
        linger.collect(|| {
            looks.set(looks.get() + 1);
            what
        });
        looks.get()
    };
    assert_eq!(collect(Came::More), u32::try_from(APPLY_LINGER_MS / APPLY_LOOK_MS).unwrap());
    assert_eq!(collect(Came::Enough), 1);
    let found: Vec<u32> = (0..8).map(|_| collect(Came::Nothing)).collect();
    assert_eq!(found, [1, 0, 1, 0, 0, 1, 0, 0]);
}

#[test]
fn a_failure_is_told_once_for_the_call_and_work_goes_on() {
    use JournalKind::{Local, Replicated};
    let mut store = Notebook { fail: Some(Local), ..Notebook::default() };
    let told = run_all(&mut store, vec![batch(Local, 1, 1), batch(Local, 2, 1), batch(Replicated, 1, 1)]);
    assert_eq!(told[0], "ApplyFailed { journal: Local, round: Round(0), fault: NoSpace }");
    assert_eq!(told[1], "Applied { journal: Replicated, round: Round(0), seq: Seq(1) }");
    assert_eq!(told.len(), 2);
}

#[test]
fn what_waits_behind_a_batch_that_failed_is_dropped_until_it_is_given_again() {
    use JournalKind::{Local, Replicated};
    let mut store = Notebook { fail: Some(Local), failures: Some(1), ..Notebook::default() };
    let again = |seq| batch_of_round(Round(1), Local, seq, 1);
    let jobs = vec![
        // Too large to be applied with what follows.
        batch(Local, 1, APPLY_MERGE_MAX),
        batch(Local, 2, 1),
        batch(Replicated, 1, 1),
        batch(Local, 3, 1),
        again(1),
        again(2),
        again(3),
    ];
    let told = run_all(&mut store, jobs);
    assert_eq!(store.calls, [(Local, vec![1]), (Replicated, vec![1]), (Local, vec![1, 2, 3])]);
    assert_eq!(told[0], "ApplyFailed { journal: Local, round: Round(0), fault: NoSpace }");
    assert_eq!(told[1], "Applied { journal: Replicated, round: Round(0), seq: Seq(1) }");
    assert_eq!(told[2..], ["Applied { journal: Local, round: Round(1), seq: Seq(3) }"]);
}

#[test]
fn a_chunk_is_taken_at_its_place_among_the_batches_and_fails_with_its_round() {
    use JournalKind::Replicated;
    let chunk = |id: u64, at: u64| {
        let (at, content) = (Seq(at), crate::format::chunk::Content::Gone);
        let chunk = Chunk { id, file: FileId(4), at, until: at, content, ends: true };
        Job::Other(Apply::Chunk(Round(0), Box::new((chunk, Progress::at(crate::base::Position::default())))))
    };
    let jobs = || vec![batch(Replicated, 1, 1), chunk(7, 1), batch(Replicated, 2, 1), chunk(8, 2)];
    let mut store = Notebook::default();
    let told = run_all(&mut store, jobs());
    assert_eq!(store.calls, [1, 1, 2, 2].map(|seq| (Replicated, vec![seq])));
    assert_eq!(told[1], "ChunkTaken { round: Round(0), id: 7 }");
    let mut store = Notebook { fail: Some(Replicated), failures: Some(0), ..Notebook::default() };
    let told = run_all(&mut store, jobs());
    assert_eq!(told[1], "ApplyFailed { journal: Replicated, round: Round(0), fault: NoSpace }");
    assert_eq!(told.len(), 2, "what stands behind it waits for the next round: {told:?}");
}

#[test]
fn batches_of_two_rounds_are_not_applied_in_one_call() {
    use JournalKind::Local;
    let mut store = Notebook::default();
    run_all(&mut store, vec![batch(Local, 1, 1), batch_of_round(Round(1), Local, 1, 1)]);
    assert_eq!(store.calls, [(Local, vec![1]), (Local, vec![1])]);
}

#[test]
fn the_store_is_tidied_until_it_is_tidy_while_nothing_waits() {
    let (inbox, _outbox) = Inbox::new(Arc::new(NoWake));
    let (give, work) = channel();
    let mut store = Notebook { mess: 3, ..Notebook::default() };
    let give = std::cell::RefCell::new(Some(give));
    let tidy = |store: &mut Notebook| {
        store.mess -= 1;
        if store.mess == 0 {
            give.take();
        }
        Ok(store.mess > 0)
    };
    run(&mut store, tidy, || (), &work, &channel().0, &inbox, &AtomicBool::new(false));
    assert_eq!(store.mess, 0);
    assert!(store.calls.is_empty());
}

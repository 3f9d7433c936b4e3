//! A journal on a disk that is full: what it takes gets an answer, what it cannot take it refuses.

use super::*;
use crate::base::Prng;
use crate::format::entry::EntryKind;
use crate::journal::recover;

const SIZE: u64 = 64 << 10;

/// Its ops wait until the test ends them.
struct Rig {
    journal: Journal,
    now: Now,
    preparing: VecDeque<SegmentIndex>,
    writing: VecDeque<u64>,
}

impl Rig {
    fn new() -> Self {
        struct Nothing;
        impl recover::SegmentSource for Nothing {
            fn read(&mut self, _: SegmentIndex, _: u64, _: usize) -> Result<Bytes, Fault> {
                Err(Fault::Errno(2))
            }
        }
        let pair = PairId([4; 16]);
        let kind = JournalKind::Replicated;
        let found = recover::recover(kind, pair, crate::base::Ordinal(0), &[], &mut Nothing).unwrap();
        let journal = Journal::new(kind, pair, SIZE, found);
        let (preparing, writing) = (VecDeque::new(), VecDeque::new());
        let mut rig = Self { journal, now: Now::default(), preparing, writing };
        rig.journal.set_epoch(Epoch(2));
        rig.pump();
        rig
    }

    fn pump(&mut self) {
        self.journal.pump(self.now);
        while let Some(op) = self.journal.poll_op() {
            match op {
                JournalOp::Prepare { index, .. } => self.preparing.push_back(index),
                JournalOp::Write { write, .. } => self.writing.push_back(write),
                JournalOp::Remove { .. } => {}
            }
        }
    }

    fn written(&mut self) {
        if let Some(write) = self.writing.pop_front() {
            self.journal.written(self.now, write);
        }
        self.pump();
    }

    fn prepared(&mut self, well: bool) {
        let Some(index) = self.preparing.pop_front() else { return };
        match well {
            true => self.journal.segment_ready(index),
            false => self.journal.segment_failed(self.now, index, Fault::NoSpace),
        }
        self.pump();
    }

    fn append(&mut self, len: usize) {
        let value = vec![b'v'; len];
        let entry = Entry { kind: EntryKind::Put, file: FileId(4), id: b"id", value: &value };
        self.journal.append(std::iter::once(entry));
        self.pump();
    }

    fn later(&mut self, ms: u64) {
        self.now.mono = self.now.mono.plus_ms(ms);
        self.pump();
    }

    /// Appends what the journal takes; whether it did.
    fn offer(&mut self, len: usize) -> bool {
        let takes = !self.journal.is_short() && self.journal.state_for(len + 64) == JournalState::Open;
        if takes {
            self.append(len);
        }
        takes
    }
}

#[test]
fn what_is_taken_on_a_full_disk_becomes_durable_in_whatever_order_things_happen() {
    let mut refused = 0;
    for seed in 0..500 {
        let mut prng = Prng::new(seed);
        let mut rig = Rig::new();
        rig.prepared(true);
        rig.written();
        let full_after = prng.below(60);
        for n in 0..400 {
            match prng.below(8) {
                0 => rig.prepared(n < full_after),
                1 | 2 => rig.written(),
                3 => rig.later(prng.below(300)),
                _ => drop(rig.offer(usize::try_from(prng.below(3000)).unwrap())),
            }
        }
        for _ in 0..400 {
            rig.prepared(false);
            rig.written();
        }
        let JournalWatermarks { appended, durable } = rig.journal.pace();
        assert_eq!(appended, durable, "seed {seed}: an update was taken and has no place");
        refused += u64::from(rig.journal.state_for(3000) == JournalState::NoSpace);
        rig.later(PREPARE_RETRY_MS);
        rig.prepared(true);
        assert_eq!(rig.journal.waits_for_segment(), None, "seed {seed}");
        assert!(rig.offer(3000), "seed {seed}: there is room again");
    }
    assert!(refused > 250, "only {refused} runs came to the end of their room");
}

#[test]
fn while_a_segment_is_tried_again_the_disk_counts_as_full() {
    let mut rig = Rig::new();
    rig.prepared(true);
    rig.append(10);
    rig.written();
    rig.prepared(false);
    for _ in 0..3 {
        assert_eq!(rig.journal.waits_for_segment(), Some(Fault::NoSpace));
        assert_eq!(rig.journal.state_for(60 << 10), JournalState::NoSpace);
        rig.later(PREPARE_RETRY_MS);
        assert_eq!(rig.preparing.len(), 1, "it is tried again");
        assert_eq!(rig.journal.waits_for_segment(), Some(Fault::NoSpace));
        assert_eq!(rig.journal.state_for(60 << 10), JournalState::NoSpace);
        rig.prepared(false);
    }
    rig.later(PREPARE_RETRY_MS);
    rig.prepared(true);
    assert_eq!(rig.journal.waits_for_segment(), None);
}

#[test]
fn a_segment_that_lacks_only_descriptors_is_no_failed_disk() {
    for (errno, state) in [(24, JournalState::NoSpace), (5, JournalState::Failed)] {
        let mut rig = Rig::new();
        rig.prepared(true);
        rig.append(10);
        rig.written();
        let index = rig.preparing.pop_front().unwrap();
        rig.journal.segment_failed(rig.now, index, Fault::from_errno(errno));
        assert_eq!(rig.journal.state_for(60 << 10), state, "errno {errno}");
        assert!(!rig.journal.is_starved(), "nobody loses a claim for that");
    }
}

#[test]
fn a_mark_that_is_wanted_where_the_segment_has_no_room_goes_to_the_next_one() {
    let mut rig = Rig::new();
    rig.prepared(true);
    let around = usize::try_from(SIZE - BLOCK_U64).unwrap();
    rig.append(around - 1000);
    rig.written();
    assert!(rig.journal.room() < BLOCK_U64 && rig.writing.is_empty());
    rig.journal.set_announced(Seq(1));
    rig.journal.want_mark();
    rig.prepared(true);
    // The header of the next segment, then the mark.
    rig.written();
    rig.written();
    assert_eq!(rig.journal.recorded_head(), Seq(1));
    assert!(rig.writing.is_empty());
}

#[test]
fn what_is_cut_is_announced_no_more() {
    let mut rig = Rig::new();
    rig.prepared(true);
    for _ in 0..2 {
        rig.append(100);
        rig.written();
    }
    rig.journal.set_announced(Seq(2));
    let end = rig.journal.end_at(Seq(1)).expect("it is remembered");
    rig.journal.cut(end);
    rig.prepared(true);
    rig.written();
    assert!(rig.journal.is_quiet() && rig.journal.durable() == end);
    // Other content comes under the same number: nobody announced it.
    rig.append(100);
    rig.written();
    rig.later(1000);
    rig.written();
    assert_eq!(rig.journal.recorded_head(), Seq(1));
}

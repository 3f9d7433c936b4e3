//! When a write that could begin waits for company.
//!
//! On a device that is quick beside the processor, a write ends before the clients whose updates it carried have come
//! back with the next ones, and each commit costs processor time on both nodes that they are waiting for. So after a
//! write of many, the next one waits until as many have queued, or for a moment at most. Few clients never wait, and on
//! a slower device as many queue during the write by themselves.

use crate::base::Mono;
use crate::base::limits::{HOLD_AFTER, HOLD_US};

/// What the last write was.
#[derive(Debug, Default)]
pub(super) struct Hold {
    ended: Mono,
    entries: u32,
}

impl Hold {
    /// A write of so many entries has ended.
    pub(super) fn written(&mut self, now: Mono, entries: u32) {
        *self = Self { ended: now, entries };
    }

    /// Until when a write of `queued` entries waits for more, if at all.
    pub(super) fn until(&self, queued: u32) -> Option<Mono> {
        (self.entries >= HOLD_AFTER && queued < self.entries)
            .then(|| Mono(self.ended.0.saturating_add(HOLD_US)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{FileId, JournalKind, Now};
    use crate::format::PairId;
    use crate::format::entry::{Entry, EntryKind};
    use crate::journal::{Journal, JournalOp, Recovered};

    #[test]
    fn only_fewer_than_the_last_write_carried_wait_and_only_after_one_of_many() {
        let mut hold = Hold::default();
        assert_eq!(hold.until(1), None);
        hold.written(Mono(1000), HOLD_AFTER);
        assert_eq!(hold.until(HOLD_AFTER - 1), Some(Mono(1000 + HOLD_US)));
        assert_eq!(hold.until(HOLD_AFTER), None);
        hold.written(Mono(2000), HOLD_AFTER - 1);
        assert_eq!(hold.until(1), None);
    }

    struct Rig {
        journal: Journal,
        mono: u64,
    }

    impl Rig {
        fn append(&mut self, count: u32) {
            for _ in 0..count {
                let entry = Entry { kind: EntryKind::Put, file: FileId(4), id: b"i", value: b"v" };
                self.journal.append(std::iter::once(entry));
            }
        }

        /// The writes that begin now; they are still under way.
        fn pump(&mut self) -> Vec<u64> {
            let now = Now { mono: Mono(self.mono), wall_ms: 0 };
            drop(self.journal.pump(now));
            let mut writes = Vec::new();
            while let Some(op) = self.journal.poll_op() {
                match op {
                    JournalOp::Prepare { index, .. } => self.journal.segment_ready(index),
                    JournalOp::Write { write, .. } => writes.push(write),
                    JournalOp::Remove { .. } => {}
                }
            }
            writes
        }

        fn end(&mut self, write: u64) {
            let now = Now { mono: Mono(self.mono), wall_ms: 0 };
            drop(self.journal.written(now, write));
        }
    }

    #[test]
    fn a_small_batch_after_a_large_one_is_written_when_it_has_grown_or_the_moment_is_over() {
        let journal = Journal::new(JournalKind::Replicated, PairId([0; 16]), 1 << 20, Recovered::default());
        let mut rig = Rig { journal, mono: 0 };
        rig.append(HOLD_AFTER);
        rig.pump();
        let [header] = rig.pump()[..] else { panic!("a header is written first") };
        rig.end(header);
        let [first] = rig.pump()[..] else { panic!("nothing keeps the first batch back") };
        rig.append(1);
        rig.mono = 10_000;
        rig.end(first);
        assert!(rig.pump().is_empty(), "one entry waits after a write of many");
        assert_eq!(rig.journal.deadline(), Some(Mono(10_000 + HOLD_US)));
        rig.append(HOLD_AFTER - 1);
        let [second] = rig.pump()[..] else { panic!("as many as before do not wait") };
        rig.append(1);
        rig.end(second);
        assert!(rig.pump().is_empty());
        rig.mono += HOLD_US;
        let [third] = rig.pump()[..] else { panic!("the moment is over") };
        rig.append(1);
        rig.end(third);
        assert_eq!(rig.pump().len(), 1, "after a write of one nobody waits");
    }
}

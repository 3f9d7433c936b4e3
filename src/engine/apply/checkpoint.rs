//! When the store is made durable: often enough that a restart replays little, and when somebody waits for it.

use super::RETRY_MS;
use crate::base::{Fault, JournalKind, Mono, Seq};
use crate::engine::core::Core;
use crate::engine::effect::{Severity, StoreEffect};
use crate::store::StoreRead;

/// When the store was last made durable, and what it was then.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::engine) struct Checkpoint {
    running: bool,
    /// Somebody waits for one.
    wanted: bool,
    /// Why the last one failed, if it did.
    failed: Option<Fault>,
    /// When the last one began, or failed.
    at: Mono,
    /// What the last one that succeeded covers: the journals are kept from there.
    covered: [Seq; 2],
    /// Given to the store since the last one began.
    bytes_since: u64,
}

/// How often checkpoints are made.
#[derive(Clone, Copy, Debug)]
struct Often {
    ms: u64,
    bytes: u64,
}

impl Checkpoint {
    /// The store shows `applied`. A process that died may have left it only in the page cache: nothing counts as durable
    /// before the first checkpoint of this life (I-06).
    pub(in crate::engine) fn found(applied: [Seq; 2]) -> Self {
        Self { wanted: applied != [Seq(0); 2], ..Self::default() }
    }

    pub(in crate::engine) fn is_running(&self) -> bool {
        self.running
    }

    /// Why the last one failed, if it did.
    pub(in crate::engine) fn failed(&self) -> Option<Fault> {
        self.failed
    }

    /// The last entry of a journal that is durable in the store.
    pub(in crate::engine) fn covered(&self, journal: JournalKind) -> Seq {
        match journal {
            JournalKind::Replicated => self.covered[0],
            JournalKind::Local => self.covered[1],
        }
    }

    /// Somebody waits for the next one.
    pub(in crate::engine) fn want(&mut self) {
        self.wanted = true;
    }

    /// Whoever wanted one wants it only under this condition.
    pub(in crate::engine) fn want_only_if(&mut self, wanted: bool) {
        self.wanted = wanted;
    }

    /// So much more was given to the store.
    pub(super) fn submitted(&mut self, bytes: u64) {
        self.bytes_since += bytes;
    }

    /// When the next one is due; none while one runs, and where it would change nothing.
    fn deadline(&self, applied: [Seq; 2], often: Often) -> Option<Mono> {
        if self.running || applied == self.covered {
            return None;
        }
        let at_once = self.wanted || self.bytes_since >= often.bytes;
        let rest = match (at_once, self.failed) {
            (true, None) => 0,
            // Whoever wants it may want it in every round.
            (true, Some(_)) => RETRY_MS.min(often.ms),
            (false, _) => often.ms,
        };
        Some(self.at.plus_ms(rest))
    }

    fn begin(&mut self, now: Mono) {
        *self = Self { running: true, wanted: false, bytes_since: 0, at: now, ..*self };
    }

    fn done(&mut self, applied: [Seq; 2]) {
        *self = Self { running: false, failed: None, covered: applied, ..*self };
    }

    fn fail(&mut self, now: Mono, fault: Fault) {
        *self = Self { running: false, failed: Some(fault), at: now, ..*self };
    }
}

impl<S: StoreRead> Core<S> {
    fn often(&self) -> Often {
        Often { ms: self.config.checkpoint_ms, bytes: self.config.checkpoint_bytes }
    }

    /// Whether a checkpoint would cover more than the last one. What an earlier life left in the store, and this one has
    /// not given it again yet, none covers.
    pub(in crate::engine) fn lacks_checkpoint(&self) -> bool {
        self.appliers
            .visible()
            .iter()
            .zip(self.checkpoint.covered)
            .any(|(visible, covered)| covered < *visible)
    }

    pub(in crate::engine) fn checkpoint_deadline(&self) -> Option<Mono> {
        self.checkpoint.deadline(self.appliers.applied(), self.often())
    }

    pub(in crate::engine) fn pump_checkpoint(&mut self) {
        if self.checkpoint_deadline().is_none_or(|due| self.now.mono < due) {
            return;
        }
        self.checkpoint.begin(self.now.mono);
        self.effect(StoreEffect::Checkpoint);
    }

    pub(super) fn checkpointed(&mut self, applied: [Seq; 2]) {
        self.checkpoint.done(applied);
        self.incident_over("checkpoint-failed", "checkpoint-back", "the store is durable again".to_owned());
        self.release_journals();
    }

    pub(super) fn checkpoint_failed(&mut self, fault: Fault) {
        self.checkpoint.fail(self.now.mono, fault);
        self.room.want_after(fault);
        let text = format!("making the store durable: {fault}; the journal is kept until it succeeds");
        self.incident_once(Severity::Warning, "checkpoint-failed", text);
    }
}

#[cfg(test)]
impl Checkpoint {
    pub(in crate::engine) fn cover(&mut self, replicated: Seq) {
        self.covered[0] = replicated;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFTEN: Often = Often { ms: 10_000, bytes: 1000 };

    fn due(checkpoint: &Checkpoint, applied: u64) -> Option<u64> {
        checkpoint.deadline([Seq(applied), Seq(0)], OFTEN).map(|at| at.0 / 1000)
    }

    #[test]
    fn a_checkpoint_is_due_in_time_or_for_bytes_or_for_who_waits_and_not_where_nothing_changed() {
        let mut checkpoint = Checkpoint::found([Seq(0); 2]);
        assert_eq!(due(&checkpoint, 0), None, "nothing to make durable");
        assert_eq!(due(&checkpoint, 5), Some(10_000));
        checkpoint.submitted(999);
        assert_eq!(due(&checkpoint, 5), Some(10_000));
        checkpoint.submitted(1);
        assert_eq!(due(&checkpoint, 5), Some(0));
        checkpoint.begin(Mono(0).plus_ms(7));
        assert_eq!(due(&checkpoint, 5), None, "one runs");
        checkpoint.done([Seq(5), Seq(0)]);
        assert_eq!((due(&checkpoint, 5), due(&checkpoint, 6)), (None, Some(10_007)));
        checkpoint.want();
        assert_eq!((due(&checkpoint, 5), due(&checkpoint, 6)), (None, Some(7)));
        assert_eq!(
            due(&Checkpoint::found([Seq(3), Seq(0)]), 3),
            Some(0),
            "an earlier life may have synced nothing"
        );
    }

    #[test]
    fn who_waits_for_a_checkpoint_that_failed_does_not_have_it_tried_in_every_round() {
        let mut checkpoint = Checkpoint::found([Seq(3), Seq(0)]);
        checkpoint.begin(Mono(0));
        checkpoint.fail(Mono(0).plus_ms(50), Fault::NoSpace);
        assert_eq!((checkpoint.failed(), due(&checkpoint, 3)), (Some(Fault::NoSpace), Some(10_050)));
        checkpoint.want();
        assert_eq!(due(&checkpoint, 3), Some(50 + RETRY_MS));
        checkpoint.begin(Mono(0).plus_ms(300));
        checkpoint.done([Seq(3), Seq(0)]);
        assert_eq!(checkpoint.failed(), None);
    }
}

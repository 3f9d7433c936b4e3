//! Whether changes of volumes wait for the standby, so that it can be sent what is still in memory.
//!
//! What a standby lacks when it falls out of [`super::sender::SendWindow`] is read back from the journal: every byte once
//! more from the disk that takes the writes, after which it falls behind further. So as long as the standby is live,
//! and what is kept for it leaves no room, changes of volumes wait: for half of the time at most. A standby or a link
//! that is slower for good is left to the journal.

use crate::base::Mono;

/// How much longer changes may have waited than not, before the standby is left behind (microseconds).
const PATIENCE_US: u64 = 250_000;

/// Waits, for a bounded share of the time.
#[derive(Debug, Default)]
pub(super) struct Throttle {
    holds: bool,
    /// Patience is used up; it comes back when all of it is there again.
    exhausted: bool,
    spent_us: u64,
    looked: Mono,
}

impl Throttle {
    /// Looks again, after every event; `full` while the standby is live and there is no room.
    pub(super) fn look(&mut self, now: Mono, full: bool) {
        let passed = now.0.saturating_sub(self.looked.0);
        self.looked = now;
        self.spent_us = match self.holds {
            true => (self.spent_us + passed).min(PATIENCE_US),
            false => self.spent_us.saturating_sub(passed),
        };
        match self.spent_us {
            PATIENCE_US => self.exhausted = true,
            0 => self.exhausted = false,
            _ => {}
        }
        self.holds = full && !self.exhausted;
    }

    /// Whether changes of volumes wait.
    pub(super) fn holds(&self) -> bool {
        self.holds
    }

    /// When they wait no longer, whatever happens.
    pub(super) fn deadline(&self) -> Option<Mono> {
        self.holds.then(|| Mono(self.looked.0 + PATIENCE_US - self.spent_us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1000;

    /// Milliseconds of `total` in which changes wait, when there is room for `free` of every `of` milliseconds.
    fn held(pacing: &mut Throttle, total: u64, free: u64, of: u64) -> u64 {
        let mut held = 0;
        for ms in 0..total {
            pacing.look(Mono(ms * MS), ms % of >= free);
            held += u64::from(pacing.holds());
        }
        held
    }

    #[test]
    fn a_standby_that_nearly_keeps_up_is_waited_for_and_a_slow_one_is_not_for_long() {
        let mut pacing = Throttle::default();
        assert_eq!(held(&mut pacing, 10_000, 6, 10), 4_000, "whenever it is full");
        let mut pacing = Throttle::default();
        let slow = held(&mut pacing, 10_000, 1, 10);
        assert!(
            (4_000..=(10_000 + 250) / 2).contains(&slow),
            "half of the time at most: {slow} of 10,000 ms"
        );
        let first = held(&mut Throttle::default(), 400, 1, 10);
        assert!(first < 350, "{first} ms at first");
    }

    #[test]
    fn a_silent_standby_is_left_at_a_known_time_and_patience_comes_back_whole() {
        let mut pacing = Throttle::default();
        pacing.look(Mono(7 * MS), true);
        assert!(pacing.holds());
        let end = pacing.deadline().expect("it ends by itself");
        assert_eq!(end, Mono(7 * MS + PATIENCE_US));
        pacing.look(Mono(end.0 - 1), true);
        assert!(pacing.holds());
        pacing.look(end, true);
        assert!(!pacing.holds() && pacing.deadline().is_none());
        pacing.look(Mono(end.0 + PATIENCE_US - 1), true);
        assert!(!pacing.holds(), "no little by little");
        pacing.look(Mono(end.0 + PATIENCE_US), true);
        assert!(pacing.holds());
        pacing.look(Mono(end.0 + PATIENCE_US + 1), false);
        assert!(!pacing.holds(), "there is room");
    }
}

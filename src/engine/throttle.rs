//! Waits for a standby, for half of the time at most.
//!
//! Two things wait so. Updates that are answered at a lowered level are held back until the standby is near (`degrade.rs`).
//! Changes of volumes wait so that the standby can be sent what is still in memory: what a standby lacks when it falls out of [`super::sender::SendWindow`] is read back from the journal: every byte once
//! more from the disk that takes the writes, after which it falls behind further. So as long as the standby is live,
//! and what is kept for it leaves no room, changes of volumes wait: for half of the time at most. A standby or a link
//! that is slower for good is left to the journal.

use crate::base::Mono;

/// The wait ends when it has lasted so much longer than the time without it (microseconds).
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
    /// Looks again, after every event; `wanted` while there is a reason to wait.
    pub(super) fn look(&mut self, now: Mono, wanted: bool) {
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
        self.holds = wanted && !self.exhausted;
    }

    /// Whether there is a wait now.
    pub(super) fn holds(&self) -> bool {
        self.holds
    }

    /// When the wait ends, whatever happens.
    pub(super) fn deadline(&self) -> Option<Mono> {
        self.holds.then(|| Mono(self.looked.0 + PATIENCE_US - self.spent_us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1000;

    /// Milliseconds of `total` in which changes wait, when there is room for `free` of every `of` milliseconds.
    fn held(throttle: &mut Throttle, total: u64, free: u64, of: u64) -> u64 {
        let mut held = 0;
        for ms in 0..total {
            throttle.look(Mono(ms * MS), ms % of >= free);
            held += u64::from(throttle.holds());
        }
        held
    }

    #[test]
    fn a_standby_that_nearly_keeps_up_is_waited_for_and_a_slow_one_is_not_for_long() {
        let mut throttle = Throttle::default();
        assert_eq!(held(&mut throttle, 10_000, 6, 10), 4_000, "whenever it is full");
        let mut throttle = Throttle::default();
        let slow = held(&mut throttle, 10_000, 1, 10);
        assert!(
            (4_000..=(10_000 + 250) / 2).contains(&slow),
            "half of the time at most: {slow} of 10,000 ms"
        );
        let first = held(&mut Throttle::default(), 400, 1, 10);
        assert!(first < 350, "{first} ms at first");
    }

    #[test]
    fn a_silent_standby_is_left_at_a_known_time_and_patience_comes_back_whole() {
        let mut throttle = Throttle::default();
        throttle.look(Mono(7 * MS), true);
        assert!(throttle.holds());
        let end = throttle.deadline().expect("it ends by itself");
        assert_eq!(end, Mono(7 * MS + PATIENCE_US));
        throttle.look(Mono(end.0 - 1), true);
        assert!(throttle.holds());
        throttle.look(end, true);
        assert!(!throttle.holds() && throttle.deadline().is_none());
        throttle.look(Mono(end.0 + PATIENCE_US - 1), true);
        assert!(!throttle.holds(), "no little by little");
        throttle.look(Mono(end.0 + PATIENCE_US), true);
        assert!(throttle.holds());
        throttle.look(Mono(end.0 + PATIENCE_US + 1), false);
        assert!(!throttle.holds(), "there is room");
    }
}

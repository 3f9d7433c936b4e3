//! How fast a copy is given, so that users come first, and how fast it goes.

use crate::base::limits::CHUNK_BYTES;
use crate::base::{Mono, Seq};

/// While users change anything, a chunk is followed by a rest of so many times as long as it took.
const RESTS: u64 = 4;
/// Less content than this makes the rest shorter (bytes).
const FULL: u64 = CHUNK_BYTES as u64;
/// No rest is longer (microseconds): chunks are small.
const REST_MAX: u64 = 2_000_000;
/// A rate is of this long at least (microseconds).
const LOOK: u64 = 1_000_000;

/// When the next chunk may be read.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// Not before.
    rests_until: Option<Mono>,
    /// The read of the last one began.
    began: Mono,
    /// Where both journals stood when the last one went.
    changes: [Seq; 2],
    /// What an operator said last (bytes in a second).
    rate: Option<u64>,
}

impl Pace {
    pub(super) fn set_rate(&mut self, rate: Option<u64>) {
        self.rate = rate;
        self.rests_until = None;
    }

    pub(super) fn begins(&mut self, now: Mono) {
        self.began = now;
    }

    /// A rest that is over asks to be woken no more, whether anything is wanted or not.
    pub(super) fn looks(&mut self, now: Mono) {
        self.rests_until.take_if(|until| now >= *until);
    }

    pub(super) fn may_begin(&self) -> bool {
        self.rests_until.is_none()
    }

    pub(super) fn deadline(&self) -> Option<Mono> {
        self.rests_until
    }

    /// A chunk of so many bytes went; both journals end with `changes`, and the config's rate is `rate`.
    pub(super) fn ends(&mut self, now: Mono, bytes: u64, changes: [Seq; 2], rate: u64) {
        let took = now.since(self.began);
        let users = std::mem::replace(&mut self.changes, changes) != changes;
        let rest = match self.rate.unwrap_or(rate) {
            // What holds little, as the ranges of a rewind do, took little from users, however long it waited for its turn.
            0 if users => took.saturating_mul(RESTS * bytes.min(FULL)) / FULL,
            0 => 0,
            rate => bytes.saturating_mul(1_000_000).checked_div(rate).unwrap_or(0).saturating_sub(took),
        };
        self.rests_until = (rest > 0).then(|| now.plus_us(rest.min(REST_MAX)));
    }
}

/// Content as of some seconds ago.
#[derive(Debug, Default)]
pub(super) struct Meter {
    older: (Mono, u64),
    newer: (Mono, u64),
}

impl Meter {
    /// So much came up to now, which is less than before where another copy began.
    pub(super) fn look(&mut self, now: Mono, bytes: u64) {
        if bytes < self.newer.1 {
            *self = Self { older: (now, bytes), newer: (now, bytes) };
        } else if now.since(self.newer.0) >= LOOK {
            self.older = std::mem::replace(&mut self.newer, (now, bytes));
        }
    }

    /// Bytes in a second.
    pub(super) fn rate(&self, now: Mono, bytes: u64) -> u64 {
        let (then, were) = self.older;
        bytes.saturating_sub(were).saturating_mul(1_000_000).checked_div(now.since(then)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const QUIET: [Seq; 2] = [Seq(5), Seq(6)];

    /// The rest after a chunk of a mebibyte that took 3 ms (microseconds).
    fn rest(pace: &mut Pace, changes: [Seq; 2], rate: u64) -> u64 {
        pace.begins(Mono(1_000));
        let now = Mono(4_000);
        pace.ends(now, MIB, changes, rate);
        let rest = pace.deadline().map_or(0, |until| until.since(now));
        assert_eq!(pace.may_begin(), rest == 0);
        pace.looks(Mono(now.0 + rest));
        assert!(pace.may_begin() && pace.deadline().is_none(), "a rest ends");
        rest
    }

    #[test]
    fn a_copy_takes_a_fifth_of_the_time_while_users_change_anything_and_all_of_it_while_they_do_not() {
        let mut pace = Pace::default();
        assert_eq!(rest(&mut pace, QUIET, 0), 12_000);
        assert_eq!(rest(&mut pace, QUIET, 0), 0);
        assert_eq!(rest(&mut pace, [Seq(5), Seq(7)], 0), 12_000);
        pace.begins(Mono(0));
        pace.ends(Mono(3_000), MIB / 100, QUIET, 0);
        assert_eq!(pace.deadline(), Some(Mono(3_119)), "a hundredth of it");
    }

    #[test]
    fn a_rate_holds_whatever_users_do_and_an_operators_word_comes_before_the_config() {
        let mut pace = Pace::default();
        assert_eq!(rest(&mut pace, QUIET, 10 * MIB), 97_000);
        assert_eq!(rest(&mut pace, QUIET, 1000 * MIB), 0);
        assert_eq!(rest(&mut pace, QUIET, 1), REST_MAX);
        pace.set_rate(Some(100 * MIB));
        assert_eq!(rest(&mut pace, QUIET, 1), 7_000);
        pace.set_rate(Some(0));
        assert_eq!(rest(&mut pace, QUIET, 1), 0);
    }

    #[test]
    fn a_rate_is_of_the_last_seconds_and_begins_anew_with_another_copy() {
        let mut meter = Meter::default();
        meter.look(Mono(1_000_000), 0);
        meter.look(Mono(2_000_000), 100 * MIB);
        meter.look(Mono(2_500_000), 180 * MIB);
        assert_eq!(meter.rate(Mono(3_000_000), 200 * MIB), 100 * MIB);
        meter.look(Mono(9_000_000), 3 * MIB);
        assert_eq!(meter.rate(Mono(10_000_000), 5 * MIB), 2 * MIB);
    }
}

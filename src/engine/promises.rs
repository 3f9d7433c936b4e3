//! Updates whose answer waits for the peer: since when the oldest of them waits.

use crate::base::{AckLevel, Mono, Seq};
use crate::format::frame::Ack;
use std::collections::VecDeque;

/// Samples of one level; what comes within one part of so many of the patience shares a sample (I-15).
const SAMPLES: u64 = 256;

/// Updates up to `last` wait since `since`, at the latest.
#[derive(Clone, Copy, Debug)]
struct Sample {
    last: Seq,
    since: Mono,
}

/// For each level above `local`, oldest first.
#[derive(Debug, Default)]
pub(super) struct Promises {
    levels: [VecDeque<Sample>; 3],
}

fn index(level: AckLevel) -> Option<usize> {
    match level {
        AckLevel::Local => None,
        AckLevel::Received => Some(0),
        AckLevel::Durable => Some(1),
        AckLevel::Applied => Some(2),
    }
}

impl Promises {
    /// An update with the last entry `last` waits from now on, for `patience_ms` at most.
    pub(super) fn made(&mut self, level: AckLevel, last: Seq, now: Mono, patience_ms: u64) {
        let Some(samples) = index(level).and_then(|at| self.levels.get_mut(at)) else { return };
        match samples.back_mut() {
            Some(back) if now < back.since.plus_ms(patience_ms / SAMPLES) => back.last = back.last.max(last),
            _ => samples.push_back(Sample { last, since: now }),
        }
    }

    /// The peer has confirmed so much.
    pub(super) fn acked(&mut self, ack: Ack) {
        for (samples, seq) in self.levels.iter_mut().zip([ack.received, ack.durable, ack.applied]) {
            while samples.front().is_some_and(|sample| sample.last <= seq) {
                samples.pop_front();
            }
        }
    }

    /// Nothing waits any more.
    pub(super) fn clear(&mut self) {
        self.levels.iter_mut().for_each(VecDeque::clear);
    }

    /// Since when the oldest waits, and its last entry.
    pub(super) fn oldest(&self) -> Option<(Mono, Seq)> {
        let fronts = self.levels.iter().filter_map(|samples| samples.front());
        fronts.map(|sample| (sample.since, sample.last)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_update_that_waits_is_known_at_each_level_in_bounded_memory() {
        let mut promises = Promises::default();
        assert_eq!(promises.oldest(), None);
        promises.made(AckLevel::Local, Seq(1), Mono(0), 5000);
        assert_eq!(promises.oldest(), None);
        for n in 0..500_000_u64 {
            promises.made(AckLevel::Durable, Seq(n + 2), Mono(n * 10), 5000);
        }
        assert!(promises.levels[1].len() as u64 <= 2 * SAMPLES, "{}", promises.levels[1].len());
        assert_eq!(promises.oldest().unwrap().0, Mono(0));
        promises.made(AckLevel::Received, Seq(500_001), Mono(5_000_000), 5000);
        let received = Ack { received: Seq(500_001), durable: Seq(250_000), applied: Seq(0) };
        promises.acked(received);
        let (since, last) = promises.oldest().unwrap();
        assert!(last > Seq(250_000) && since.since(Mono(0)) > 2_400_000, "{since:?} {last}");
        promises.acked(Ack { durable: Seq(500_001), ..received });
        assert_eq!(promises.oldest(), None);
    }
}

//! What the peer does not have on disk yet: how much, and how old.

use crate::base::{Mono, Seq};
use std::collections::VecDeque;

/// Samples kept; above it neighbours are merged, so that a long outage costs no memory (I-15).
const SAMPLES_MAX: usize = 4096;

#[derive(Clone, Copy, Debug)]
struct Sample {
    last: Seq,
    bytes: u64,
    since: Mono,
}

/// Batches that the peer has not acknowledged as durable, oldest first.
#[derive(Debug, Default)]
pub(super) struct Lag {
    samples: VecDeque<Sample>,
    bytes: u64,
    acked: Seq,
}

impl Lag {
    pub(super) fn sealed(&mut self, last: Seq, bytes: u64, now: Mono) {
        if last <= self.acked {
            return;
        }
        self.bytes += bytes;
        self.samples.push_back(Sample { last, bytes, since: now });
        if self.samples.len() > SAMPLES_MAX {
            let old = std::mem::take(&mut self.samples);
            let mut merged: VecDeque<Sample> = VecDeque::with_capacity(SAMPLES_MAX);
            for (at, sample) in old.into_iter().enumerate() {
                match merged.back_mut() {
                    Some(before) if at % 2 == 1 => {
                        before.last = sample.last;
                        before.bytes += sample.bytes;
                    }
                    _ => merged.push_back(sample),
                }
            }
            self.samples = merged;
        }
    }

    pub(super) fn acked(&mut self, durable: Seq) {
        self.acked = self.acked.max(durable);
        while self.samples.front().is_some_and(|sample| sample.last <= durable) {
            if let Some(sample) = self.samples.pop_front() {
                self.bytes -= sample.bytes;
            }
        }
    }

    /// Bytes of batches, as far as they were sealed by this process.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// When the oldest came.
    pub(super) fn oldest(&self) -> Option<Mono> {
        self.samples.front().map(|sample| sample.since)
    }

    /// Age of the oldest (microseconds).
    pub(super) fn age(&self, now: Mono) -> u64 {
        self.samples.front().map_or(0, |sample| now.since(sample.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_outage_keeps_sums_and_age_in_bounded_memory() {
        let mut risk = Lag::default();
        for n in 1..=100_000_u64 {
            risk.sealed(Seq(n), 10, Mono(n));
        }
        assert!(risk.samples.len() <= SAMPLES_MAX);
        assert_eq!(risk.bytes(), 1_000_000);
        assert_eq!(risk.age(Mono(100_001)), 100_000);
        risk.acked(Seq(100_000));
        assert_eq!((risk.bytes(), risk.age(Mono(100_001))), (0, 0));
    }
}

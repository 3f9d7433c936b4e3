//! How fast volumes are read and written, for status.

use crate::base::{FileId, Mono};
use crate::doors::nbd::VolumeTraffic;
use std::collections::BTreeMap;

/// A sample is taken this often at most, while anything happens (milliseconds).
const EVERY_MS: u64 = 1000;

type Sample = (Mono, BTreeMap<FileId, VolumeTraffic>);

/// Counters as they were one to two seconds ago.
#[derive(Debug, Default)]
pub(super) struct Meters {
    older: Sample,
    newer: Sample,
}

/// What happened to a volume in a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rates {
    pub(super) reads: f64,
    pub(super) writes: f64,
    pub(super) read_bytes: f64,
    pub(super) written_bytes: f64,
}

impl Meters {
    /// Takes a sample if one is due.
    pub(super) fn look(&mut self, now: Mono, counters: impl FnOnce() -> BTreeMap<FileId, VolumeTraffic>) {
        if now >= self.newer.0.plus_ms(EVERY_MS) {
            self.older = std::mem::replace(&mut self.newer, (now, counters()));
        }
    }

    /// From the older sample to `current`.
    pub(super) fn rates(&self, now: Mono, file: FileId, current: &VolumeTraffic) -> Rates {
        let then = self.older.1.get(&file).copied().unwrap_or_default();
        let micros = now.since(self.older.0).max(1);
        let rate = |now: u64, then: u64| {
            let millionths = u128::from(now.saturating_sub(then)) * 1_000_000_000 / u128::from(micros);
            u32::try_from(millionths).map_or(f64::from(u32::MAX), f64::from) / 1000.0
        };
        let bytes = |now: u64, then: u64| rate(now / 1024, then / 1024) * 1024.0;
        Rates {
            reads: rate(current.reads, then.reads),
            writes: rate(current.writes + current.zeros, then.writes + then.zeros),
            read_bytes: bytes(current.read_bytes, then.read_bytes),
            written_bytes: bytes(current.written_bytes, then.written_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_the_last_seconds_and_fade_when_nothing_happens() {
        let file = FileId(4);
        let at = |writes| VolumeTraffic { writes, written_bytes: writes * 4096, ..VolumeTraffic::default() };
        let sample = |writes| BTreeMap::from([(file, at(writes))]);
        let mut meters = Meters::default();
        meters.look(Mono(1_000_000), || sample(0));
        meters.look(Mono(1_500_000), || unreachable!("a sample is not due"));
        meters.look(Mono(2_000_000), || sample(1000));
        let rates = meters.rates(Mono(2_000_000), file, &at(1000));
        assert_eq!((rates.writes, rates.written_bytes), (1000.0, 4_096_000.0));
        let later = meters.rates(Mono(11_000_000), file, &at(1000));
        assert_eq!(later.writes, 100.0);
        assert_eq!(meters.rates(Mono(2_000_000), FileId(9), &at(0)), Rates::default());
    }
}

//! How long things took: a histogram of fixed memory.

use std::fmt;

/// Each power of two has so many buckets, so a time is told to within an eighth of itself.
const PARTS_BITS: u32 = 3;
/// Times are told up to 2 to this power (microseconds, 19 hours); what took longer counts as that.
const POWERS: u32 = 36;
const BUCKETS: usize = ((POWERS - PARTS_BITS + 1) << PARTS_BITS) as usize;

/// Counts of times (microseconds). Recording takes no memory and a dozen instructions.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Histogram {
    buckets: [u64; BUCKETS],
    count: u64,
    sum_us: u64,
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Histogram({} of {} us together)", self.count, self.sum_us)
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: [0; BUCKETS], count: 0, sum_us: 0 }
    }
}

/// The bucket of a time.
fn bucket_of(us: u64) -> usize {
    let us = us.min((1 << POWERS) - 1);
    let power = us.checked_ilog2().unwrap_or(0);
    let at = match power.checked_sub(PARTS_BITS) {
        None => us,
        Some(shift) => (u64::from(shift) << PARTS_BITS) + (us >> shift),
    };
    usize::try_from(at).unwrap_or(BUCKETS - 1).min(BUCKETS - 1)
}

/// The longest time that a bucket counts (microseconds).
fn longest_of(bucket: usize) -> u64 {
    let bucket = bucket as u64;
    let parts = 1_u64 << PARTS_BITS;
    if bucket < 2 * parts {
        return bucket;
    }
    let shift = (bucket >> PARTS_BITS) - 1;
    let part = (bucket & (parts - 1)) + parts;
    ((part + 1) << shift) - 1
}

impl Histogram {
    /// So many things took so long (microseconds).
    pub(super) fn record(&mut self, us: u64, times: u64) {
        if let Some(bucket) = self.buckets.get_mut(bucket_of(us)) {
            *bucket += times;
        }
        self.count += times;
        self.sum_us = self.sum_us.saturating_add(us.saturating_mul(times));
    }

    /// How many there were.
    #[must_use]
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// How long all took together (microseconds).
    #[must_use]
    pub(super) fn sum_us(&self) -> u64 {
        self.sum_us
    }

    /// The buckets that counted anything: the longest time in each (microseconds), and how many.
    #[must_use]
    pub(super) fn filled(&self) -> Vec<(u64, u64)> {
        let filled = self.buckets.iter().enumerate().filter(|(_, count)| **count > 0);
        filled.map(|(at, count)| (longest_of(at), *count)).collect()
    }
}

/// Of buckets as [`Histogram::filled`] tells them: the time (microseconds) within which `permille` of a thousand lie; 0 if
/// there is none.
#[must_use]
pub(super) fn quantile(filled: &[(u64, u64)], permille: u64) -> u64 {
    let count: u128 = filled.iter().map(|(_, count)| u128::from(*count)).sum();
    let wanted = (count * u128::from(permille)).div_ceil(1000).max(1);
    let mut so_far = 0;
    for (longest, count) in filled {
        so_far += u128::from(*count);
        if so_far >= wanted {
            return *longest;
        }
    }
    0
}

/// Both sets of buckets together, in order.
#[must_use]
pub(super) fn together(one: &[(u64, u64)], other: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let mut all = std::collections::BTreeMap::new();
    for (longest, count) in one.iter().chain(other) {
        let place: &mut u64 = all.entry(*longest).or_default();
        *place = place.saturating_add(*count);
    }
    all.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_has_one_bucket_whose_longest_time_is_less_than_an_eighth_longer() {
        for us in 1..5000 {
            let more = bucket_of(us) - bucket_of(us - 1);
            assert!(more <= 1, "{us}");
        }
        for us in (0..5000).chain((0..POWERS).map(|power| 1 << power)).chain([u64::MAX]) {
            let bucket = bucket_of(us);
            assert!(bucket < BUCKETS);
            let longest = longest_of(bucket);
            let told = us.min((1 << POWERS) - 1);
            assert!(longest >= told && longest - told <= told / 8, "{us}: {longest}");
            assert_eq!(bucket_of(longest), bucket);
        }
    }

    #[test]
    fn quantiles_are_of_all_that_was_recorded_also_of_two_lives_together() {
        let mut early = Histogram::default();
        early.record(100, 985);
        let mut late = Histogram::default();
        late.record(9000, 14);
        late.record(70_000, 1);
        assert_eq!((early.count(), late.sum_us()), (985, 196_000));
        let all = together(&early.filled(), &late.filled());
        let of = |permille| quantile(&all, permille);
        assert_eq!(of(500), longest_of(bucket_of(100)));
        assert_eq!(of(990), longest_of(bucket_of(9000)));
        assert_eq!(of(1000), longest_of(bucket_of(70_000)));
        assert_eq!(quantile(&[], 500), 0);
    }
}

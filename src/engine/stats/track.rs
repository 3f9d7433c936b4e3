//! How long entries take from when they were accepted to each stage.

use super::histogram::Histogram;
use super::view::StageView;
use crate::base::limits::STATS_GROUPS_MAX;
use crate::base::{Mono, Seq};
use std::collections::VecDeque;

/// Names of the stages, in the order of [`Track::stages`].
const NAMES: [&str; 5] = ["append", "disk", "apply", "peer", "answer"];

/// Entries that were accepted in one round.
#[derive(Clone, Copy, Debug)]
struct Group {
    last: Seq,
    entries: u64,
    since: Mono,
}

#[derive(Clone, Debug, Default)]
struct Stage {
    times: Histogram,
    /// The number of the next group that it has not reached.
    next: u64,
    untimed: u64,
}

/// Groups on their way, and what was measured.
#[derive(Debug, Default)]
pub(in crate::engine) struct Track {
    groups: VecDeque<Group>,
    /// The number of the first of them.
    first: u64,
    /// The last entry that was accepted.
    last: Option<Seq>,
    stages: [Stage; 5],
}

impl Track {
    /// Entries up to `last` are accepted now. `before` is the last one before them, where that is known: what does not
    /// follow what was accepted last begins anew.
    pub(in crate::engine) fn accepted(&mut self, now: Mono, before: Option<Seq>, last: Seq) {
        let known = self.last.filter(|known| before.is_none_or(|before| before == *known) && *known <= last);
        let Some(known) = known else {
            self.forget();
            self.last = Some(before.unwrap_or(last));
            if let Some(before) = before {
                self.push(now, before, last);
            }
            return;
        };
        self.push(now, known, last);
    }

    fn push(&mut self, now: Mono, before: Seq, last: Seq) {
        if last <= before {
            return;
        }
        self.last = Some(last);
        if self.groups.len() >= STATS_GROUPS_MAX
            && let Some(gone) = self.groups.pop_front()
        {
            for stage in self.stages.iter_mut().filter(|stage| stage.next == self.first) {
                stage.untimed += gone.entries;
                stage.next += 1;
            }
            self.first += 1;
        }
        self.groups.push_back(Group { last, entries: last.0 - before.0, since: now });
    }

    /// Nothing that is on its way is timed.
    fn forget(&mut self) {
        self.first += self.groups.len() as u64;
        self.groups.clear();
        self.stages.iter_mut().for_each(|stage| stage.next = self.first);
    }

    /// The first three stages have come so far; so have the others, on a node that waits for its peer.
    pub(in crate::engine) fn reached(&mut self, now: Mono, own: [Seq; 3], beside: Option<[Seq; 2]>) {
        if self.groups.is_empty() {
            return;
        }
        let (groups, first) = (&self.groups, self.first);
        let marks = own.into_iter().chain(beside.into_iter().flatten());
        for (stage, mark) in self.stages.iter_mut().zip(marks) {
            let from = usize::try_from(stage.next - first).unwrap_or(usize::MAX);
            for group in groups.iter().skip(from).take_while(|group| group.last <= mark) {
                stage.times.record(now.since(group.since), group.entries);
                stage.next += 1;
            }
        }
        let measured = if beside.is_some() { 5 } else { 3 };
        let done = self.stages.iter().take(measured).map(|stage| stage.next).min().unwrap_or(self.first);
        while self.first < done && self.groups.pop_front().is_some() {
            self.first += 1;
        }
        let first = self.first;
        self.stages.iter_mut().for_each(|stage| stage.next = stage.next.max(first));
    }

    pub(super) fn views(&self) -> Vec<StageView> {
        let view = |(name, stage): (&str, &Stage)| {
            StageView {
                name: name.to_owned(),
                count: stage.times.count(),
                sum_us: stage.times.sum_us(),
                untimed: stage.untimed,
                buckets: stage.times.filled(),
                ..StageView::default()
            }
            .told()
        };
        NAMES.into_iter().zip(&self.stages).map(view).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(track: &Track) -> Vec<(u64, u64)> {
        track.views().iter().map(|view| (view.count, view.untimed)).collect()
    }

    fn at(ms: u64) -> Mono {
        Mono(0).plus_ms(ms)
    }

    #[test]
    fn each_stage_is_timed_from_when_the_entry_was_accepted() {
        let mut track = Track::default();
        track.accepted(at(0), None, Seq(10));
        track.accepted(at(1), None, Seq(12));
        track.accepted(at(1), None, Seq(12));
        track.accepted(at(3), None, Seq(15));
        track.reached(at(4), [Seq(15), Seq(12), Seq(11)], Some([Seq(10), Seq(12)]));
        assert_eq!(counts(&track), [(5, 0), (2, 0), (0, 0), (0, 0), (2, 0)]);
        track.reached(at(9), [Seq(15), Seq(15), Seq(15)], Some([Seq(15), Seq(15)]));
        assert_eq!(counts(&track), [(5, 0); 5]);
        assert!(track.groups.is_empty());
        let disk = &track.views()[1];
        // Two entries after 3 ms, three after 6.
        assert_eq!((disk.sum_us, disk.p50_us / 1000, disk.p99_us / 1000), (2 * 3000 + 3 * 6000, 6, 6));
    }

    #[test]
    fn a_stage_that_stands_still_costs_no_memory_and_says_what_it_missed() {
        let mut track = Track::default();
        track.accepted(at(0), None, Seq(0));
        for n in 1..=10_000 {
            track.accepted(at(n), None, Seq(n));
            track.reached(at(n), [Seq(n); 3], Some([Seq(0), Seq(n)]));
        }
        assert_eq!(track.groups.len(), STATS_GROUPS_MAX);
        let missed = 10_000 - STATS_GROUPS_MAX as u64;
        assert_eq!(counts(&track), [(10_000, 0), (10_000, 0), (10_000, 0), (0, missed), (10_000, 0)]);
        track.reached(at(10_001), [Seq(10_000); 3], Some([Seq(10_000); 2]));
        assert_eq!(counts(&track)[3], (STATS_GROUPS_MAX as u64, missed));
    }

    #[test]
    fn what_does_not_follow_begins_anew_and_is_not_timed_as_what_was_cut() {
        let mut track = Track::default();
        track.accepted(at(0), Some(Seq(4)), Seq(9));
        // The tail was cut, or a copy began elsewhere.
        track.accepted(at(5), Some(Seq(6)), Seq(8));
        track.reached(at(6), [Seq(8); 3], None);
        assert_eq!(counts(&track)[..3], [(2, 0); 3]);
        track.accepted(at(7), Some(Seq(1000)), Seq(1001));
        track.reached(at(8), [Seq(1001); 3], None);
        assert_eq!(counts(&track), [(3, 0), (3, 0), (3, 0), (0, 0), (0, 0)]);
    }
}

//! Whether a connected peer still gets on, by the bytes that move and by what it acknowledges.

use crate::base::{Mono, Seq};
use crate::format::frame::Ack;

/// Nothing moves for so long while something is due: it is stuck (microseconds).
const STUCK_AFTER: u64 = 5_000_000;
/// What the peer lacks is older than this: it lags (microseconds).
const LAGGING_AFTER: u64 = 1_000_000;

/// What the peer is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum PeerState {
    /// There is no link.
    Away,
    /// There is one, and this node sends nothing on it.
    Connected,
    /// It has everything on disk.
    Idle,
    /// It is getting the rest.
    Busy,
    /// That takes long.
    Lagging,
    /// Nothing moves any more.
    Stuck,
}

impl PeerState {
    pub(in crate::engine) const fn name(self) -> &'static str {
        match self {
            Self::Away => "away",
            Self::Connected => "connected",
            Self::Idle => "idle",
            Self::Busy => "busy",
            Self::Lagging => "lagging",
            Self::Stuck => "stuck",
        }
    }
}

/// When the stream to the peer last moved.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    /// It received, granted credit, or its machine took bytes.
    moved: Mono,
    /// It holds something in memory, and its disk took nothing of it since then.
    disk_since: Option<Mono>,
}

impl Progress {
    /// A stream begins.
    pub(super) fn begin(now: Mono) -> Self {
        Self { moved: now, disk_since: None }
    }

    /// Bytes on the way were taken, or credit was granted.
    pub(super) fn moved(&mut self, now: Mono) {
        self.moved = now;
    }

    /// It acknowledged `new` after `old`.
    pub(super) fn acked(&mut self, now: Mono, old: Ack, new: Ack) {
        if new.received > old.received || new.durable > old.durable {
            self.moved = now;
        }
        if new.received <= new.durable {
            self.disk_since = None;
        } else if self.disk_since.is_none() || new.durable > old.durable {
            self.disk_since = Some(now);
        }
    }

    /// The state of a peer that lacks what comes after `acked` up to `end`, the oldest of it since `age` microseconds.
    pub(super) fn state(self, now: Mono, acked: Ack, end: Seq, age: u64) -> PeerState {
        if acked.durable >= end {
            return PeerState::Idle;
        }
        let hangs = |since: Mono| now.since(since) > STUCK_AFTER;
        let on_the_way = acked.received < end;
        if age > STUCK_AFTER && (self.disk_since.is_some_and(hangs) || (on_the_way && hangs(self.moved))) {
            return PeerState::Stuck;
        }
        if age > LAGGING_AFTER { PeerState::Lagging } else { PeerState::Busy }
    }

    /// When it will be stuck if nothing moves; `oldest` is what it lacks since then.
    pub(super) fn deadline(self, acked: Ack, end: Seq, oldest: Mono) -> Option<Mono> {
        if acked.durable >= end {
            return None;
        }
        let way = (acked.received < end).then_some(self.moved);
        let first = [self.disk_since, way].into_iter().flatten().min();
        first.map(|since| Mono(since.max(oldest).0.saturating_add(STUCK_AFTER + 1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    fn ack(received: u64, durable: u64) -> Ack {
        Ack { received: Seq(received), durable: Seq(durable), applied: Seq(0) }
    }

    #[test]
    fn a_large_batch_on_a_slow_link_is_no_standstill_while_bytes_are_taken() {
        let mut progress = Progress::begin(Mono(0));
        for second in 0..60 {
            let now = Mono(second * SECOND);
            progress.moved(now);
            assert_ne!(progress.state(now, ack(5, 5), Seq(9), second * SECOND), PeerState::Stuck);
        }
        let state = progress.state(Mono(66 * SECOND), ack(5, 5), Seq(9), 66 * SECOND);
        assert_eq!(state, PeerState::Stuck, "now nothing is taken any more");
    }

    #[test]
    fn a_disk_that_hangs_is_seen_although_the_peer_receives_on() {
        let mut progress = Progress::begin(Mono(0));
        let mut old = ack(0, 0);
        let states: Vec<_> = (1..=10)
            .map(|second| {
                let (now, new) = (Mono(second * SECOND), ack(second, 0));
                progress.acked(now, old, new);
                old = new;
                progress.state(now, new, Seq(second), second * SECOND)
            })
            .collect();
        assert_eq!(states.iter().position(|state| *state == PeerState::Stuck), Some(6), "{states:?}");
        progress.acked(Mono(11 * SECOND), old, ack(10, 4));
        assert_ne!(progress.state(Mono(11 * SECOND), ack(10, 4), Seq(10), 9 * SECOND), PeerState::Stuck);
    }

    #[test]
    fn a_batch_that_took_long_to_come_may_take_its_time_to_be_written() {
        let mut progress = Progress::begin(Mono(0));
        let late = Mono(30 * SECOND);
        progress.moved(late);
        progress.acked(late, ack(0, 0), ack(8, 0));
        assert_eq!(progress.state(late, ack(8, 0), Seq(8), 30 * SECOND), PeerState::Lagging);
        let stuck = progress.deadline(ack(8, 0), Seq(8), Mono(0)).unwrap();
        assert_eq!(progress.state(stuck, ack(8, 0), Seq(8), 36 * SECOND), PeerState::Stuck);
    }

    #[test]
    fn a_peer_that_only_acknowledges_gets_on() {
        let mut progress = Progress::begin(Mono(0));
        for second in 1..60 {
            let now = Mono(second * SECOND);
            progress.acked(now, ack(second - 1, second - 1), ack(second, second));
            assert_ne!(progress.state(now, ack(second, second), Seq(99), second * SECOND), PeerState::Stuck);
        }
        // What it holds in memory reaches its disk, and later it holds something again: that has its own time.
        progress.acked(Mono(60 * SECOND), ack(59, 59), ack(70, 59));
        progress.acked(Mono(61 * SECOND), ack(70, 59), ack(70, 70));
        progress.acked(Mono(90 * SECOND), ack(70, 70), ack(80, 70));
        assert_ne!(progress.state(Mono(91 * SECOND), ack(80, 70), Seq(80), 91 * SECOND), PeerState::Stuck);
        assert_eq!(progress.state(Mono(96 * SECOND), ack(80, 70), Seq(80), 96 * SECOND), PeerState::Stuck);
    }

    #[test]
    fn a_peer_with_nothing_to_do_is_never_stuck() {
        let progress = Progress::begin(Mono(0));
        assert_eq!(progress.state(Mono(999 * SECOND), ack(7, 7), Seq(7), 0), PeerState::Idle);
        assert_eq!(progress.deadline(ack(7, 7), Seq(7), Mono(0)), None);
        // After an hour of rest one update comes.
        assert_eq!(progress.state(Mono(3600 * SECOND), ack(7, 7), Seq(8), 10), PeerState::Busy);
        let stuck = progress.deadline(ack(7, 7), Seq(8), Mono(3600 * SECOND));
        assert_eq!(stuck, Some(Mono(3605 * SECOND + 1)), "it is counted from that update on");
    }
}

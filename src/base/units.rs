//! Newtypes for every number with a meaning, so that one cannot stand in for another.

use super::limits::NUMBER_MAX;
use super::shown::Grouped;
use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        number!($(#[$doc])* $name, shown |number: u64| number);
    };
    ($(#[$doc:meta])* $name:ident, shown $shown:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&$shown(self.0), f)
            }
        }
    };
}

number!(
    /// An entry's number in a journal: from 1, no gaps. 0 means "before the first". It is shown as counts are, for
    /// people; what programs read takes the number itself.
    Seq, shown Grouped
);
number!(
    /// Number of a primary's term. Its lowest bit is the [`Ordinal`] of the node that opened it, so that two
    /// nodes can never open the same one. 0 means "no primary yet".
    Epoch
);
number!(
    /// Running checksum of a journal's history up to a sequence number.
    Chain
);
number!(
    /// Stable id of an account or file; its lowest bit is the ordinal of the node that made it. Never reused.
    FileId
);
number!(
    /// One connection, link or client; never reused within a process.
    ConnId
);
number!(
    /// Number of a segment file; only grows.
    SegmentIndex
);
number!(
    /// How often a worker was given the same work anew: what it has left of an earlier round, and what it says of that,
    /// no longer counts.
    Round
);
number!(
    /// Monotonic time since the node started (microseconds).
    Mono
);

impl Seq {
    /// The following number. Numbers from disk or wire are at most [`NUMBER_MAX`], so it is never the same one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl Round {
    /// The following one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Mono {
    /// This time plus `ms` milliseconds.
    #[must_use]
    pub fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms.saturating_mul(1000)))
    }

    /// So many microseconds later.
    #[must_use]
    pub fn plus_us(self, us: u64) -> Self {
        Self(self.0.saturating_add(us))
    }

    /// Microseconds from `earlier` to this, 0 if it is not earlier.
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Both clocks, read by the caller. Decisions use `mono` only; `wall_ms` is information for people.
#[derive(Clone, Copy, Debug, Default)]
pub struct Now {
    /// Monotonic time.
    pub mono: Mono,
    /// Milliseconds since 1970-01-01 UTC.
    pub wall_ms: u64,
}

/// Which of a pair's two places a node has: 0 was initialised as primary, 1 as standby, and who takes a lost node's place
/// has that one's. It never changes, roles do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ordinal(pub u8);

impl Ordinal {
    /// The other node's.
    #[must_use]
    pub fn other(self) -> Self {
        Self(1 - (self.0 & 1))
    }
}

impl Epoch {
    /// The lowest epoch above this one that a node with `ordinal` may open; none if there is none that can be stored.
    #[must_use]
    pub fn next_for(self, ordinal: Ordinal) -> Option<Self> {
        let next = self.0.checked_add(1)?;
        let own = next & 1 == u64::from(ordinal.0 & 1);
        Self::storable(if own { next } else { next.checked_add(1)? })
    }

    fn storable(number: u64) -> Option<Self> {
        (number <= NUMBER_MAX).then_some(Self(number))
    }

    /// Whether a peer may be in `other` when this is the highest epoch known here: no number of takeovers and restarts
    /// leads further away, and a claim beyond it would use up the numbers that are left.
    #[must_use]
    pub fn can_meet(self, other: Self) -> bool {
        other.0 <= self.0.saturating_add(EPOCH_STEP_MAX)
    }

    /// The node that opened this epoch, or may open it.
    #[must_use]
    pub fn opener(self) -> Ordinal {
        Ordinal(u8::from(self.0 & 1 == 1))
    }
}

/// How far a takeover moves the epoch: it must outrank every epoch that the old primary can have opened unheard, by
/// restarting while it was cut off.
const TAKEOVER_STRIDE: u64 = 1_000_000;
/// No peer is further ahead: a million takeovers.
const EPOCH_STEP_MAX: u64 = TAKEOVER_STRIDE * TAKEOVER_STRIDE;

impl Epoch {
    /// The epoch that a takeover by the node with `ordinal` opens: above any number of restarts of the old primary; none
    /// if there is none that can be stored.
    #[must_use]
    pub fn takeover_for(self, ordinal: Ordinal) -> Option<Self> {
        // At least half a stride away, wherever in its million the old primary has come to.
        let base =
            (self.0.checked_add(TAKEOVER_STRIDE / 2)? / TAKEOVER_STRIDE + 1).checked_mul(TAKEOVER_STRIDE)?;
        Self::storable(base.checked_add(u64::from(ordinal.0 & 1))?)
    }
}

/// A point in a journal's history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The epoch of the entry at `seq`.
    pub epoch: Epoch,
    /// The last entry included.
    pub seq: Seq,
    /// Checksum of everything up to and with `seq`.
    pub chain: Chain,
}

/// Which of a node's two journals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JournalKind {
    /// Changes to DL files; has a peer.
    Replicated,
    /// Changes to all other files; stays here.
    Local,
}

impl JournalKind {
    /// Both, in a fixed order.
    pub const ALL: [Self; 2] = [Self::Replicated, Self::Local];

    /// 0 or 1, for tables.
    #[must_use]
    pub fn index(self) -> usize {
        match self {
            Self::Replicated => 0,
            Self::Local => 1,
        }
    }

    /// The directory name and the word in messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Replicated => "replicated",
            Self::Local => "local",
        }
    }
}

/// How far an update must be before the client hears "ok". Every level includes the local disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AckLevel {
    /// On this node's disk.
    #[default]
    Local,
    /// And in the peer's memory.
    Received,
    /// And on the peer's disk.
    Durable,
    /// And visible in the peer's store.
    Applied,
}

impl AckLevel {
    /// The word used in config, status and help.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Received => "received",
            Self::Durable => "durable",
            Self::Applied => "applied",
        }
    }
}

/// What must be reached before a reply may be sent: `journal` is at `level` up to `seq`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait {
    /// The journal that carries the update.
    pub journal: JournalKind,
    /// The last entry of the update.
    pub seq: Seq,
    /// The promise.
    pub level: AckLevel,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_takeover_outranks_an_old_primary_that_restarted_alone_a_hundred_thousand_times() {
        for (old, new) in [(Ordinal(0), Ordinal(1)), (Ordinal(1), Ordinal(0))] {
            for known in [0, 1, 2, 999_998, 999_999, 1_000_000, 1_000_001, 7_654_321] {
                let mut lonely = Epoch(known);
                for _ in 0..100_000 {
                    lonely = lonely.next_for(old).unwrap();
                }
                let taken = Epoch(known).takeover_for(new).unwrap();
                assert!(taken > lonely, "{known}: {taken} against {lonely}");
                assert_eq!((taken.opener(), lonely.opener()), (new, old));
            }
        }
    }

    #[test]
    fn the_last_numbers_have_no_successor_and_none_wraps_round() {
        for last in [u64::MAX, u64::MAX - 1, NUMBER_MAX] {
            for ordinal in [Ordinal(0), Ordinal(1)] {
                assert_eq!(Epoch(last).next_for(ordinal), None);
                assert_eq!(Epoch(last).takeover_for(ordinal), None);
            }
        }
        assert_eq!(Epoch(2).next_for(Ordinal(0)), Some(Epoch(4)));
        assert_eq!(Epoch(2).next_for(Ordinal(1)), Some(Epoch(3)));
        assert_eq!(Seq(u64::MAX).next(), Seq(u64::MAX));
        assert!(Epoch(2).can_meet(Epoch(5_000_000)) && !Epoch(2).can_meet(Epoch(NUMBER_MAX)));
    }
}

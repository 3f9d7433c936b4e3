//! The long way round: a peer that no fast link reaches is made level by what is carried to it. A save goes first, then what
//! came meanwhile, in rounds; each takes less time than the one before, so less comes meanwhile, until the rest fits a link.
//!
//! - Invariant: a round is begun only if the one after it would be smaller by a tenth; so there is an end, or it is said that
//!   there is none, and why.
//!
//! Sizes are bytes, times are milliseconds, rates are bytes in a second.

use crate::base::limits::RESYNC_ROUNDS_MAX;
use serde::{Deserialize, Serialize};

/// What the arithmetic is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    /// What users change in a second (bytes).
    pub updates: u64,
    /// What is written in a second to what is carried (bytes).
    pub write: u64,
    /// What is read of it and carried out in a second (bytes).
    pub read: u64,
    /// What the link takes in a second (bytes); 0 where nobody told.
    pub link: u64,
    /// How long it takes to carry (milliseconds).
    pub carry_ms: u64,
    /// What goes on a reel (bytes); 0: all of it on one disk.
    pub reel: u64,
}

/// Something that is written, carried and read once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Round {
    /// How much (bytes).
    pub bytes: u64,
    /// On so many reels; 0 on a disk.
    pub reels: u64,
    /// How long it takes to write (milliseconds).
    pub write_ms: u64,
    /// .. to carry.
    pub carry_ms: u64,
    /// .. to read it there.
    pub read_ms: u64,
}

/// Why it does not end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "why")]
pub enum Endless {
    /// Users change as much as is written and read, or more: no round is smaller than the one before.
    Reels {
        /// What users change in a second.
        updates: u64,
        /// What can be written and read in a second, one after the other.
        most: u64,
    },
    /// Users change as much as the link takes, or more.
    Link {
        /// What users change in a second.
        updates: u64,
        /// What the link takes.
        link: u64,
    },
    /// It takes more rounds than anybody carries.
    Rounds,
}

/// What comes next for what the peer lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "next")]
pub enum Next {
    /// Another round.
    Round(Round),
    /// It goes over the link.
    Link {
        /// How much (bytes).
        bytes: u64,
        /// How long that takes, with what comes meanwhile (milliseconds).
        ms: u64,
    },
    /// Another round would leave no less. A link that takes more in a second than users change ends it; nobody told of one.
    AnyLink {
        /// How much (bytes).
        bytes: u64,
        /// The link has to take more than this in a second.
        above: u64,
    },
    /// Nothing ends it.
    Never(Endless),
}

/// What is to be expected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forecast {
    /// Every one that is carried; the first is the save, or what is left of a plan under way.
    pub rounds: Vec<Round>,
    /// What ends it.
    pub end: Next,
}

/// How long so much takes (milliseconds).
#[must_use]
pub fn takes(bytes: u64, rate: u64) -> u64 {
    let ms = (u128::from(bytes) * 1000).checked_div(u128::from(rate));
    ms.map_or(u64::MAX, |ms| u64::try_from(ms).unwrap_or(u64::MAX))
}

impl Round {
    /// How long all of it takes (milliseconds).
    #[must_use]
    pub fn ms(&self) -> u64 {
        self.write_ms.saturating_add(self.carry_ms).saturating_add(self.read_ms)
    }
}

impl Pace {
    /// What it takes to carry so much.
    #[must_use]
    pub fn round(&self, bytes: u64) -> Round {
        let reels = bytes.checked_div(self.reel).map_or(0, |_| bytes.div_ceil(self.reel).max(1));
        let (write_ms, read_ms) = (takes(bytes, self.write), takes(bytes, self.read));
        Round { bytes, reels, write_ms, carry_ms: self.carry_ms, read_ms }
    }

    /// What users change in so long a time.
    #[must_use]
    pub fn meanwhile(&self, ms: u64) -> u64 {
        u64::try_from(u128::from(self.updates) * u128::from(ms) / 1000).unwrap_or(u64::MAX)
    }

    /// What can be written and read in a second, one after the other.
    fn both(&self) -> u64 {
        let (write, read) = (u128::from(self.write), u128::from(self.read));
        let both = (write * read).checked_div(write + read).unwrap_or(0);
        u64::try_from(both).unwrap_or(u64::MAX)
    }

    /// What comes next when the peer lacks so much.
    #[must_use]
    pub fn next(&self, lacks: u64) -> Next {
        let round = self.round(lacks);
        // A round that leaves nearly as much is not worth the way.
        let shrinks = self.meanwhile(round.ms()) <= lacks - lacks / 10 && lacks > 0;
        let spare = self.link.saturating_sub(self.updates);
        if spare > 0 {
            let ms = takes(lacks, spare);
            if ms <= round.ms() || !shrinks {
                return Next::Link { bytes: lacks, ms };
            }
        }
        let (updates, link, most) = (self.updates, self.link, self.both());
        match shrinks {
            true => Next::Round(round),
            false if updates >= most => Next::Never(Endless::Reels { updates, most }),
            false if link == 0 => Next::AnyLink { bytes: lacks, above: updates },
            false => Next::Never(Endless::Link { updates, link }),
        }
    }

    /// What is to be expected when so much is carried first.
    #[must_use]
    pub fn forecast(&self, first: u64) -> Forecast {
        let mut rounds = vec![self.round(first)];
        loop {
            let lacks = self.meanwhile(rounds.last().map_or(0, Round::ms));
            match self.next(lacks) {
                Next::Round(round) if rounds.len() < RESYNC_ROUNDS_MAX => rounds.push(round),
                Next::Round(_) => return Forecast { rounds, end: Next::Never(Endless::Rounds) },
                end => return Forecast { rounds, end },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;
    const MIB: u64 = 1 << 20;
    const HOUR: u64 = 3_600_000;

    /// 1 MiB of updates in a second, a drive of 256 MiB, six hours on the road.
    fn pace(link: u64) -> Pace {
        Pace { updates: MIB, write: 256 * MIB, read: 256 * MIB, link, carry_ms: 6 * HOUR, reel: 1024 * GIB }
    }

    #[test]
    fn each_round_takes_less_time_than_the_one_before_until_the_rest_fits_the_link() {
        // 8 TiB: 9 hours and some to write, as long to read.
        let forecast = pace(2 * MIB).forecast(8 << 40);
        let sizes: Vec<u64> = forecast.rounds.iter().map(|round| round.bytes).collect();
        assert_eq!(sizes.first(), Some(&(8 << 40)));
        assert!(sizes.windows(2).all(|two| two[1] <= two[0] - two[0] / 10), "{sizes:?}");
        let ms: Vec<u64> = forecast.rounds.iter().map(Round::ms).collect();
        assert!(ms.windows(2).all(|two| two[1] < two[0]), "{ms:?}");
        let last = ms.last().copied().unwrap();
        assert!(
            matches!(forecast.end, Next::Link { bytes, ms } if bytes == pace(0).meanwhile(last) && ms > 0),
            "{forecast:?}"
        );
        assert_eq!(forecast.rounds[0].reels, 8);
        assert_eq!(forecast.rounds[1].reels, 1);
        // Of a link that is as fast as the road, nothing but the save is carried.
        let fast = pace(64 * MIB).forecast(8 << 40);
        assert_eq!(fast.rounds.len(), 1, "{fast:?}");
        assert!(matches!(fast.end, Next::Link { ms, .. } if ms < 6 * HOUR), "{fast:?}");
    }

    #[test]
    fn what_the_link_has_beside_the_updates_is_what_it_carries() {
        let pace = pace(3 * MIB);
        let Next::Link { bytes, ms } = pace.next(GIB) else { panic!("{:?}", pace.next(GIB)) };
        assert_eq!((bytes, ms), (GIB, 512_000), "at two MiB a second");
        assert_eq!(takes(GIB, 0), u64::MAX);
        assert_eq!(pace.next(0), Next::Link { bytes: 0, ms: 0 });
    }

    #[test]
    fn without_a_link_it_is_said_how_much_is_left_and_what_link_that_needs() {
        let forecast = pace(0).forecast(8 << 40);
        let Next::AnyLink { bytes, above } = forecast.end else { panic!("{forecast:?}") };
        assert_eq!(above, MIB);
        // What comes while a round is carried is about what is left at last.
        let road = pace(0).meanwhile(6 * HOUR);
        assert!(bytes >= road && bytes < road + road / 5, "{bytes} {road}");
    }

    #[test]
    fn what_does_not_end_is_told_with_its_reason() {
        let slow = Pace { write: MIB, read: 100 * MIB, ..pace(0) };
        let end = slow.forecast(GIB).end;
        assert!(matches!(end, Next::Never(Endless::Reels { updates: MIB, most }) if most < MIB), "{end:?}");
        // A link that is quicker than the updates ends it all the same.
        assert!(matches!(Pace { link: 4 * MIB, ..slow }.forecast(GIB).end, Next::Link { .. }));
        for link in [1, MIB - 1, MIB] {
            let forecast = pace(link).forecast(8 << 40);
            assert_eq!(forecast.end, Next::Never(Endless::Link { updates: MIB, link }));
        }
        // No drive at all.
        let none = Pace { write: 0, ..pace(0) };
        assert!(matches!(none.next(GIB), Next::Never(Endless::Reels { most: 0, .. })));
        // Nine tenths are left each time, of more than anybody has.
        let long = Pace { updates: 89, write: 200, read: 200, link: 0, carry_ms: 0, reel: 0 };
        let forecast = long.forecast(u64::MAX / 2);
        assert_eq!(forecast.end, Next::Never(Endless::Rounds));
        assert_eq!(forecast.rounds.len(), RESYNC_ROUNDS_MAX);
    }

    #[test]
    fn nobody_who_changes_nothing_is_carried_anything_twice() {
        let idle = Pace { updates: 0, ..pace(0) };
        let forecast = idle.forecast(GIB);
        assert_eq!((forecast.rounds.len(), forecast.end), (1, Next::AnyLink { bytes: 0, above: 0 }));
        let numbers = [0, 1, 1000, u64::MAX];
        for updates in numbers {
            for write in numbers {
                for link in numbers {
                    for bytes in numbers {
                        let pace = Pace { updates, write, read: write, link, carry_ms: bytes, reel: link };
                        assert!(pace.forecast(bytes).rounds.len() <= RESYNC_ROUNDS_MAX);
                    }
                }
            }
        }
    }
}

//! Who holds one of a limited number of places, such as those for connections.
//!
//! - Invariant: those of a lower rank never hold the places that are kept for a higher one.
//! - Invariant: who has not proved who it is holds one of a few places, and the oldest of them gives way to the next.

use std::collections::BTreeSet;

/// How near somebody is, lowest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// From anywhere.
    Public,
    /// From this machine.
    Near,
    /// The node's own user.
    Own,
}

const RANKS: usize = 3;
/// Of few places, one part in so many is kept at most.
const KEPT_SHARE: usize = 8;

/// Whether somebody may have a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission<K> {
    /// There is one.
    Free,
    /// This one has to go for it.
    InsteadOf(K),
    /// There is none.
    Full,
}

/// The places, and who holds them. Keys grow with time.
#[derive(Debug)]
pub struct Places<K> {
    /// What this rank and those below it may hold together.
    most: [usize; RANKS],
    /// What the unproven of a rank may hold; the node's own user is not limited so.
    unproven_most: usize,
    held: [usize; RANKS],
    unproven: [BTreeSet<K>; RANKS],
}

impl<K: Ord + Copy> Places<K> {
    /// So many in all; `kept` of them for nobody below [`Rank::Near`], and for nobody below [`Rank::Own`].
    #[must_use]
    pub fn new(all: usize, [near, own]: [usize; 2], unproven: usize) -> Self {
        let share = all / KEPT_SHARE;
        let (near, own) = (near.min(share), own.min(share));
        let unproven_most = unproven.min((all / 2).max(1));
        let unproven = [const { BTreeSet::new() }; RANKS];
        Self { most: [all - own - near, all - own, all], unproven_most, held: [0; RANKS], unproven }
    }

    /// Whether one more of this rank may come in.
    #[must_use]
    pub fn admit(&self, rank: Rank) -> Admission<K> {
        let at = rank as usize;
        if rank != Rank::Own
            && self.unproven[at].len() >= self.unproven_most
            && let Some(oldest) = self.unproven[at].first()
        {
            return Admission::InsteadOf(*oldest);
        }
        let fits = |upto: usize| self.held[..=upto].iter().sum::<usize>() < self.most[upto];
        if (at..RANKS).all(fits) {
            return Admission::Free;
        }
        let oldest = self.unproven[..=at].iter().find_map(|unproven| unproven.first());
        oldest.map_or(Admission::Full, |oldest| Admission::InsteadOf(*oldest))
    }

    /// Somebody came in; nothing is known of it.
    pub fn take(&mut self, rank: Rank, key: K) {
        self.held[rank as usize] += 1;
        self.unproven[rank as usize].insert(key);
    }

    /// It gives way to nobody: it has proved who it is, or is on its way out.
    pub fn settle(&mut self, rank: Rank, key: K) {
        self.unproven[rank as usize].remove(&key);
    }

    /// It has left.
    pub fn leave(&mut self, rank: Rank, key: K) {
        self.settle(rank, key);
        self.held[rank as usize] -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Prng;

    #[test]
    fn the_oldest_that_proved_nothing_gives_way_to_the_next() {
        let mut places = Places::new(100, [4, 4], 3);
        for key in 1..=3 {
            assert_eq!(places.admit(Rank::Public), Admission::Free);
            places.take(Rank::Public, key);
        }
        assert_eq!(places.admit(Rank::Public), Admission::InsteadOf(1));
        assert_eq!(places.admit(Rank::Near), Admission::Free, "others have an allowance of their own");
        places.settle(Rank::Public, 1);
        assert_eq!(places.admit(Rank::Public), Admission::Free, "who has proved itself stays");
        places.take(Rank::Public, 4);
        assert_eq!(places.admit(Rank::Public), Admission::InsteadOf(2));
        places.leave(Rank::Public, 2);
        assert_eq!(places.admit(Rank::Public), Admission::Free);
    }

    #[test]
    fn those_of_a_lower_rank_leave_places_for_the_higher_ones() {
        let mut places = Places::new(10, [1, 1], 10);
        let mut fill = |rank: Rank, keys: std::ops::Range<u32>| {
            for key in keys {
                assert_eq!(places.admit(rank), Admission::Free, "{rank:?} {key}");
                places.take(rank, key);
                places.settle(rank, key);
            }
            places.admit(rank)
        };
        assert_eq!(fill(Rank::Public, 0..8), Admission::Full);
        assert_eq!(fill(Rank::Near, 10..11), Admission::Full);
        assert_eq!(fill(Rank::Own, 20..21), Admission::Full);
    }

    #[test]
    fn where_there_are_few_places_few_are_kept_and_half_are_for_those_who_proved_something() {
        let mut places = Places::new(16, [100, 100], 100);
        assert_eq!((places.most, places.unproven_most), ([12, 14, 16], 8));
        (0..8).for_each(|key| places.take(Rank::Public, key));
        assert_eq!(places.admit(Rank::Public), Admission::InsteadOf(0));
        assert_eq!(Places::<u32>::new(1, [4, 4], 4).admit(Rank::Public), Admission::Free, "one place is one");
    }

    #[test]
    fn a_trusted_one_takes_the_place_of_an_unproven_one_when_all_are_taken() {
        let mut places = Places::new(8, [0, 0], 8);
        (0..4).for_each(|key| places.take(Rank::Public, key));
        (4..8).for_each(|key| {
            places.take(Rank::Near, key);
            places.settle(Rank::Near, key);
        });
        assert_eq!(places.admit(Rank::Own), Admission::InsteadOf(0));
        (0..4).for_each(|key| places.settle(Rank::Public, key));
        assert_eq!(places.admit(Rank::Own), Admission::Full);
    }

    #[test]
    fn however_they_come_and_go_the_places_kept_for_the_higher_ranks_are_there() {
        for seed in 0..200 {
            let mut prng = Prng::new(seed);
            let mut places = Places::new(32, [4, 4], 6);
            let mut inside: Vec<(Rank, u64)> = Vec::new();
            for key in 0..400 {
                let rank = [Rank::Public, Rank::Near, Rank::Own][usize::try_from(prng.below(3)).unwrap()];
                match places.admit(rank) {
                    Admission::Full => {}
                    admission => {
                        if let Admission::InsteadOf(old) = admission {
                            let at = inside.iter().position(|(_, key)| *key == old).expect("it is there");
                            let (rank, key) = inside.swap_remove(at);
                            places.leave(rank, key);
                        }
                        places.take(rank, key);
                        inside.push((rank, key));
                    }
                }
                if prng.percent(50) {
                    let (rank, key) = inside[usize::try_from(prng.below(inside.len() as u64)).unwrap()];
                    places.settle(rank, key);
                }
                if prng.percent(30) {
                    let at = usize::try_from(prng.below(inside.len() as u64)).unwrap();
                    let (rank, key) = inside.swap_remove(at);
                    places.leave(rank, key);
                }
                let upto = |rank| inside.iter().filter(|(held, _)| *held <= rank).count();
                assert!(upto(Rank::Public) <= 24 && upto(Rank::Near) <= 28 && upto(Rank::Own) <= 32);
            }
        }
    }
}

//! Which places of a list an item stands at.

use super::ItemHash;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A hash for numbers that no outsider chooses.
#[derive(Default)]
pub(super) struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        let mixed = (self.0 ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = mixed ^ (mixed >> 32);
    }
}

/// See [`NumberHasher`].
pub(super) type FastHash = BuildHasherDefault<NumberHasher>;

const NONE: u32 = u32::MAX;

/// By the items' numbers. Different items may share one, however unlikely: who must not mix them up compares.
#[derive(Debug, Default)]
pub(super) struct Index {
    last: HashMap<ItemHash, u32, FastHash>,
    /// For each place the one before it with the same number.
    before: Vec<u32>,
}

impl Index {
    /// What one item takes (bytes).
    pub(super) const BYTES_EACH: usize = 40;

    /// Room for so many.
    pub(super) fn with_capacity(count: usize) -> Self {
        Self {
            last: HashMap::with_capacity_and_hasher(count, FastHash::default()),
            before: Vec::with_capacity(count),
        }
    }

    /// Makes room for so many more.
    pub(super) fn reserve(&mut self, count: usize) {
        self.last.reserve(count);
        self.before.reserve(count);
    }

    /// Memory held (bytes).
    pub(super) fn bytes(&self) -> usize {
        self.before.capacity() * Self::BYTES_EACH
    }

    /// The item of the next place.
    pub(super) fn push(&mut self, item: ItemHash) {
        let place = u32::try_from(self.before.len()).unwrap_or(NONE);
        self.before.push(self.last.insert(item, place).unwrap_or(NONE));
    }

    /// The places of an item, the last one first.
    pub(super) fn places(&self, item: ItemHash) -> impl Iterator<Item = u32> + '_ {
        let first = self.last.get(&item).copied();
        std::iter::successors(first, |place| self.before(*place))
    }

    /// The places of the same number before this one, the nearest first.
    pub(super) fn earlier(&self, place: usize) -> impl Iterator<Item = usize> + '_ {
        let first = u32::try_from(place).ok().and_then(|place| self.before(place));
        std::iter::successors(first, |place| self.before(*place)).map(|place| place as usize)
    }

    /// The nearest place of the same number before this one.
    pub(super) fn before(&self, place: u32) -> Option<u32> {
        self.before.get(place as usize).copied().filter(|before| *before != NONE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_place_of_an_item_is_found() {
        let mut index = Index::with_capacity(4);
        for item in [5, 7, 5, 5] {
            index.push(ItemHash(item));
        }
        assert_eq!(index.places(ItemHash(5)).collect::<Vec<_>>(), [3, 2, 0]);
        assert_eq!(index.places(ItemHash(7)).collect::<Vec<_>>(), [1]);
        assert_eq!(index.places(ItemHash(6)).count(), 0);
        assert_eq!(index.earlier(3).collect::<Vec<_>>(), [2, 0]);
    }
}

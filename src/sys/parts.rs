//! Several byte ranges that are sent as one stream, or written as one piece.

use bytes::Bytes;

/// What is left to send or write of some ranges of bytes.
#[derive(Debug, Default)]
pub struct Parts {
    parts: Vec<Bytes>,
    /// The first part that is not wholly sent; it is never empty.
    first: usize,
    /// How much of that part is sent.
    skip: usize,
}

impl Parts {
    /// All of `parts`, in order.
    #[must_use]
    pub fn new(parts: Vec<Bytes>) -> Self {
        let mut all = Self { parts, first: 0, skip: 0 };
        all.advance(0);
        all
    }

    /// Whether everything was sent.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.first == self.parts.len()
    }

    /// Notes that the next `sent` bytes were sent, and frees the parts that are wholly sent.
    ///
    /// # Panics
    /// When `sent` is more than was left.
    pub fn advance(&mut self, mut sent: usize) {
        while let Some(part) = self.parts.get_mut(self.first) {
            let left = part.len() - self.skip;
            if sent < left {
                self.skip += sent;
                return;
            }
            sent -= left;
            *part = Bytes::new();
            self.first += 1;
            self.skip = 0;
        }
        assert_eq!(sent, 0, "no more is sent than was there");
    }

    /// How much is left (bytes).
    #[must_use]
    pub fn left(&self) -> usize {
        self.remaining().map(<[u8]>::len).sum()
    }

    /// What is left, in order, without empty ranges.
    pub fn remaining(&self) -> impl Iterator<Item = &[u8]> {
        let mut skip = self.skip;
        self.parts.iter().skip(self.first).filter_map(move |part| {
            let rest = part.get(std::mem::take(&mut skip)..)?;
            (!rest.is_empty()).then_some(rest)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rest(parts: &Parts) -> Vec<u8> {
        parts.remaining().flatten().copied().collect()
    }

    #[test]
    fn every_way_to_cut_a_send_leaves_exactly_the_rest() {
        let make = || {
            Parts::new(vec![
                Bytes::new(),
                Bytes::from_static(b"abc"),
                Bytes::new(),
                Bytes::from_static(b"d"),
                Bytes::from_static(b"efgh"),
                Bytes::new(),
            ])
        };
        for first in 0..=8 {
            for second in first..=8 {
                let mut parts = make();
                parts.advance(first);
                parts.advance(second - first);
                assert_eq!(rest(&parts), b"abcdefgh"[second..], "after {first} then up to {second}");
                assert_eq!(parts.is_done(), second == 8);
                assert!(parts.remaining().all(|part| !part.is_empty()));
            }
        }
    }

    #[test]
    fn nothing_to_send_is_done_at_once() {
        assert!(Parts::new(Vec::new()).is_done());
        assert!(Parts::new(vec![Bytes::new(), Bytes::new()]).is_done());
    }

    #[test]
    #[should_panic(expected = "no more is sent than was there")]
    fn sending_more_than_there_was_is_a_defect() {
        Parts::new(vec![Bytes::from_static(b"ab")]).advance(3);
    }
}

//! Clients that wait for their turn, in order. Who leaves is gone at once, so none is kept for those who are no more.

use crate::base::ConnId;
use std::collections::BTreeMap;

/// A place in a [`Line`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place(u64);

/// The line.
#[derive(Debug, Default)]
pub(super) struct Line {
    next: u64,
    places: BTreeMap<Place, ConnId>,
}

impl Line {
    /// Takes the last place, unless the client holds one already.
    pub(super) fn join(&mut self, conn: ConnId, place: &mut Option<Place>) {
        if place.is_none() {
            let last = Place(self.next);
            self.next += 1;
            self.places.insert(last, conn);
            *place = Some(last);
        }
    }

    /// Gives a place back.
    pub(super) fn leave(&mut self, place: &mut Option<Place>) {
        if let Some(place) = place.take() {
            self.places.remove(&place);
        }
    }

    /// Who comes next; the client has to forget its place.
    pub(super) fn pop(&mut self) -> Option<ConnId> {
        self.places.pop_first().map(|(_, conn)| conn)
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether nobody waits.
    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_joins_twice_has_one_place_and_who_leaves_has_none() {
        let mut line = Line::default();
        let (mut a, mut b) = (None, None);
        line.join(ConnId(1), &mut a);
        line.join(ConnId(2), &mut b);
        line.join(ConnId(1), &mut a);
        assert_eq!(line.len(), 2);
        line.leave(&mut a);
        line.leave(&mut a);
        line.join(ConnId(1), &mut a);
        assert_eq!([line.pop(), line.pop(), line.pop()], [Some(ConnId(2)), Some(ConnId(1)), None]);
        assert!(line.is_empty());
    }
}

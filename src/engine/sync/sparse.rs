//! Holes of a volume that is compared: the standby looks how far a hole of its own goes, and then both nodes look at all of it
//! at once, so that a volume of many TiB costs no look for each MiB.
//!
//! Where a hole of this node ends is advice alone: at the mark each node asks its own file anew what takes space, reads all
//! that does, and says how far it came. So nothing passes for zeros that one of the nodes holds.

use crate::base::limits::COPY_LOOK_MAX;
use crate::engine::core::Core;
use crate::engine::effect::CompareEffect;
use crate::format::compare::{Found, Span, What};
use crate::format::frame::FEATURE_DIGESTS;
use crate::store::StoreRead;

/// What is known of holes at the place where a volume is walked.
#[derive(Debug, Default)]
pub(super) struct Sparse {
    /// A hole may begin where the walk goes on.
    likely: bool,
    /// The peer takes no long spans.
    older: bool,
    /// The look under way, from where to where.
    looking: Option<(u64, u64, u64)>,
    /// A hole goes from there to there, or is none.
    hole: Option<(u64, u64)>,
}

impl Sparse {
    /// Another file is walked.
    pub(super) fn begins(&mut self) {
        *self = Self { likely: true, older: self.older, ..Self::default() };
    }

    /// A range was looked at on both nodes, in which neither or either held anything.
    pub(super) fn walked(&mut self, empty: bool) {
        self.likely |= empty;
    }

    /// How long the range is that is looked at next, from `at` on, if it is `len` bytes without a hole and `left` are left of
    /// the volume; none while that is not known.
    pub(super) fn span(&mut self, at: u64, len: u64, left: u64) -> Option<u64> {
        if self.older || len == left {
            return Some(len);
        }
        if self.likely || self.looking.is_some() {
            return None;
        }
        let end = self.hole.take().filter(|(from, _)| *from == at).map_or(at, |(_, end)| end);
        Some(len.max(end.saturating_sub(at)).min(left))
    }

    /// Whether to look for a hole now, by this look, from where to where.
    fn begins_look(&mut self, look: u64, at: u64, end: u64) -> bool {
        let begins = self.likely && !self.older && self.looking.is_none();
        if begins {
            (self.likely, self.looking, self.hole) = (false, Some((look, at, end)), None);
        }
        begins
    }

    /// A look found something; false if it was another one.
    pub(super) fn looked(&mut self, look: u64, found: &Found) -> bool {
        let Some((_, from, end)) = self.looking.take_if(|(looking, ..)| *looking == look) else {
            return false;
        };
        self.hole = match found {
            Found::Digest(digest) if digest.count == 0 => Some((from, digest.end().unwrap_or(end))),
            _ => None,
        };
        true
    }

    /// A round of the store failed: a look that was not made is made again.
    pub(super) fn take_back(&mut self) {
        self.likely |= self.looking.take().is_some();
    }
}

impl<S: StoreRead> Core<S> {
    /// Looks how far a hole goes where the walk goes on, if there may be one.
    pub(super) fn look_for_holes(&mut self) {
        let older = self.peer.features() & FEATURE_DIGESTS == 0;
        let (look, most) = (self.next_id + 1, self.config.compare_range);
        let round = self.appliers.replicated().round();
        let Some(run) = &mut self.compares.run else { return };
        let Some((file, at, end)) = run.walks_blocks() else { return };
        if older {
            self.dirty |= !std::mem::replace(&mut run.sparse.older, true);
            return;
        }
        let len = end.saturating_sub(at).min(COPY_LOOK_MAX);
        if !run.sparse.begins_look(look, at, at + len) {
            return;
        }
        self.next_id = look;
        let (span, what) = (Span::Blocks { offset: at, len }, What::Digest);
        self.effect(CompareEffect::Look { look, round, file, span, what, most });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::compare::Digest;
    use bytes::Bytes;

    const MIB: u64 = 1 << 20;

    fn found(count: u32, end: Option<u64>) -> Found {
        let reached = end.map(|end| Bytes::copy_from_slice(&end.to_be_bytes()));
        Found::Digest(Digest { reached, count, bytes: u64::from(count) * 4096, hash: [0; 32] })
    }

    /// A look for a hole from `at` on, with a GiB left, that found so much.
    fn looked(sparse: &mut Sparse, at: u64, count: u32, end: Option<u64>) {
        assert_eq!(sparse.span(at, MIB, 1 << 30), None, "it is not known yet");
        assert!(sparse.begins_look(7, at, at + (1 << 30)) && !sparse.begins_look(8, at, at + (1 << 30)));
        assert!(!sparse.looked(6, &found(count, end)), "another look");
        assert_eq!(sparse.span(at, MIB, 1 << 30), None, "it is under way");
        assert!(sparse.looked(7, &found(count, end)));
    }

    #[test]
    fn a_hole_is_one_range_and_data_is_walked_as_ever_until_a_range_is_empty() {
        let mut sparse = Sparse::default();
        sparse.begins();
        looked(&mut sparse, 0, 0, Some(500 * MIB));
        assert_eq!(sparse.span(0, MIB, 1 << 30), Some(500 * MIB));
        for at in [500, 501] {
            assert_eq!(sparse.span(at * MIB, MIB, 1 << 30), Some(MIB));
            sparse.walked(false);
        }
        sparse.walked(true);
        // Data, and a hole to the end.
        looked(&mut sparse, 502 * MIB, 3, Some(503 * MIB));
        assert_eq!(sparse.span(502 * MIB, MIB, 1 << 30), Some(MIB));
        sparse.walked(true);
        looked(&mut sparse, 503 * MIB, 0, None);
        assert_eq!(sparse.span(503 * MIB, MIB, 500 * MIB), Some(500 * MIB), "no further than the volume");
    }

    #[test]
    fn a_look_that_was_dropped_is_made_again_and_an_older_peer_is_asked_for_short_ranges() {
        let mut sparse = Sparse::default();
        sparse.begins();
        assert!(sparse.begins_look(7, 0, 1 << 30));
        sparse.take_back();
        assert!(!sparse.looked(7, &found(0, None)) && sparse.begins_look(8, 0, 1 << 30));
        sparse.take_back();
        sparse.older = true;
        assert!(!sparse.begins_look(9, 0, 1 << 30) && sparse.span(0, MIB, 1 << 30) == Some(MIB));
        sparse.begins();
        assert_eq!(sparse.span(0, MIB, 1 << 30), Some(MIB), "it is as old for the next volume");
        // What is the last range needs no look.
        assert_eq!(Sparse { likely: true, ..Sparse::default() }.span(5 * MIB, MIB, MIB), Some(MIB));
    }

    #[test]
    fn what_cannot_be_read_is_no_hole() {
        let mut sparse = Sparse::default();
        sparse.begins();
        assert!(sparse.begins_look(7, 0, 1 << 30) && sparse.looked(7, &Found::Unread));
        assert_eq!(sparse.span(0, MIB, 1 << 30), Some(MIB));
    }
}

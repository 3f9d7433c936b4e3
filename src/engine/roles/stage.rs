//! The stages of a node, what each of them keeps, and the table of all transitions.

use super::asking::Asking;
use super::opening::Opening;
use super::stepping_down::StepDown;
use super::switchover::HandingOver;
use crate::base::Mono;

/// Where a node is; the picture stands at the head of [`super`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Stage {
    /// The store is given what it lacks of the journals.
    Replaying,
    /// It follows a primary.
    Standby,
    /// It is given a copy that is not whole yet.
    Incomplete,
    /// A primary asks its peer whether it took over.
    Asking,
    /// An epoch begins.
    Opening,
    /// It accepts updates.
    Serving,
    /// It gave its role away, and does not know yet what became of that.
    HandingOver,
    /// The peer serves in a higher epoch.
    SteppingDown,
    /// It holds entries that the pair never kept.
    Diverged,
    /// The process may end.
    Stopped,
}

impl Stage {
    #[cfg(test)]
    pub(super) const ALL: [Self; 10] = [
        Self::Replaying,
        Self::Standby,
        Self::Incomplete,
        Self::Asking,
        Self::Opening,
        Self::Serving,
        Self::HandingOver,
        Self::SteppingDown,
        Self::Diverged,
        Self::Stopped,
    ];

    /// Whether a node at this stage may come to `next`.
    pub(super) fn may_become(self, next: Self) -> bool {
        TRANSITIONS.iter().any(|(from, to, _)| (*from, *to) == (self, next))
    }
}

/// Every transition that there is: from, to, and what causes it.
pub(super) const TRANSITIONS: [(Stage, Stage, &str); 33] = [
    (Stage::Replaying, Stage::Standby, "replay done, the role is standby"),
    (Stage::Replaying, Stage::Incomplete, "replay done, the role is incomplete"),
    (Stage::Standby, Stage::Incomplete, "a copy begins"),
    (Stage::Incomplete, Stage::Standby, "the copy is whole"),
    (Stage::Standby, Stage::SteppingDown, "a rewind is to begin, and entries of its own are not saved"),
    (Stage::Diverged, Stage::SteppingDown, "a rewind is to begin, and it is not known how they were saved"),
    (Stage::Diverged, Stage::Incomplete, "a rewind begins"),
    (Stage::Replaying, Stage::Asking, "replay done, the role is primary"),
    (Stage::Replaying, Stage::Diverged, "replay done, the role is diverged"),
    (Stage::Replaying, Stage::Opening, "an operator takes over"),
    (Stage::Standby, Stage::Opening, "an operator takes over, or the primary hands over"),
    (Stage::Incomplete, Stage::Opening, "an operator takes over with a part of a copy"),
    (Stage::Diverged, Stage::Opening, "an operator takes over from a peer that did so with a part of a copy"),
    (Stage::Asking, Stage::Opening, "the peer will not serve, or this node may serve alone"),
    (Stage::Asking, Stage::SteppingDown, "the peer serves in a higher epoch"),
    (Stage::Opening, Stage::Serving, "the first entry of the epoch is durable"),
    (Stage::Serving, Stage::SteppingDown, "the peer serves in a higher epoch"),
    (Stage::Serving, Stage::Asking, "the peer knows of more than is here"),
    (Stage::Serving, Stage::HandingOver, "the role is given away"),
    (Stage::HandingOver, Stage::SteppingDown, "the peer took it"),
    (Stage::HandingOver, Stage::Serving, "the peer did not take it"),
    (Stage::HandingOver, Stage::Asking, "the connection ended, and it is not known whether the peer took it"),
    (Stage::SteppingDown, Stage::Standby, "the role is durable, nothing is beyond the common history"),
    (Stage::SteppingDown, Stage::Diverged, "the role is durable, entries are beyond the common history"),
    (Stage::Replaying, Stage::Stopped, "a stop"),
    (Stage::Standby, Stage::Stopped, "a stop"),
    (Stage::Incomplete, Stage::Stopped, "a stop"),
    (Stage::Asking, Stage::Stopped, "a stop"),
    (Stage::Opening, Stage::Stopped, "a stop"),
    (Stage::Serving, Stage::Stopped, "a stop"),
    (Stage::HandingOver, Stage::Stopped, "a stop"),
    (Stage::SteppingDown, Stage::Stopped, "a stop"),
    (Stage::Diverged, Stage::Stopped, "a stop"),
];

/// A stage with what it keeps.
#[derive(Debug)]
pub(super) enum StageData {
    Replaying,
    Standby,
    Incomplete,
    Asking(Asking),
    Opening(Opening),
    Serving,
    HandingOver(HandingOver),
    SteppingDown(StepDown),
    Diverged,
    Stopped,
}

impl StageData {
    pub(super) const fn stage(&self) -> Stage {
        match self {
            Self::Replaying => Stage::Replaying,
            Self::Standby => Stage::Standby,
            Self::Incomplete => Stage::Incomplete,
            Self::Asking(_) => Stage::Asking,
            Self::Opening(_) => Stage::Opening,
            Self::Serving => Stage::Serving,
            Self::HandingOver(_) => Stage::HandingOver,
            Self::SteppingDown(_) => Stage::SteppingDown,
            Self::Diverged => Stage::Diverged,
            Self::Stopped => Stage::Stopped,
        }
    }
}

/// When a stage whose last step failed goes on.
#[derive(Debug, Default)]
pub(super) struct Retry(Option<Mono>);

impl Retry {
    /// The step failed `now`, and is taken again after `ms` milliseconds.
    pub(super) fn after(&mut self, now: Mono, ms: u64) {
        self.0 = Some(now.plus_ms(ms));
    }

    /// Whether the stage still waits; a wait that is over is forgotten.
    pub(super) fn holds(&mut self, now: Mono) -> bool {
        self.0 = self.0.filter(|at| now < *at);
        self.0.is_some()
    }

    pub(super) fn deadline(&self) -> Option<Mono> {
        self.0
    }
}

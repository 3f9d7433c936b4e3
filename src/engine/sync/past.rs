//! What came after a save, from several places that each hold a piece of it: which pieces make one history, and which of
//! their batches are wanted.
//!
//! The history is that of the newest piece. From there each piece is followed by the one that holds the position at which it
//! begins; what an earlier piece has beyond that position was left by the pair (a takeover), and is not taken.
//!
//! - Invariant: what is taken continues what was taken before it, by number, epoch and chain; nothing else is.
//! - Invariant: a batch is taken whole or not at all: what was written as one was never seen in part.

use crate::base::{Epoch, Position, Seq};
use crate::format::PairId;
use crate::format::batch::Batch;

/// Where a history is to end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Until {
    /// With the last entry there is.
    #[default]
    End,
    /// With this entry, or the last one before it that ends a batch.
    Entry(Seq),
    /// With the last batch that was written by this time (ms since 1970).
    Time(u64),
}

impl Until {
    /// Whether a batch is beyond it.
    #[must_use]
    pub fn ends_before(self, batch: &Batch) -> bool {
        match self {
            Self::End => false,
            Self::Entry(last) => batch.header().last_seq() > last,
            Self::Time(last) => batch.header().wall_ms > last,
        }
    }
}

/// A piece of a history: entries behind `base`, up to `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Where the history stood before it.
    pub base: Position,
    /// Where it stands after its last batch.
    pub end: Position,
}

/// Why pieces make no history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unlinked {
    /// These entries are in none of them.
    Gap {
        /// The first.
        from: Seq,
        /// The last.
        to: Seq,
    },
    /// The piece of this number continues a history that no other one holds.
    Branch {
        /// Its number.
        piece: usize,
        /// Where it begins.
        base: Position,
    },
}

/// Whether two positions are one. The chain tells histories apart; where an epoch begins, a piece may tell the one that begins.
#[must_use]
pub fn is_same(one: Position, other: Position) -> bool {
    (one.seq, one.chain) == (other.seq, other.chain)
}

/// A piece, and where it ends if not with its last batch.
pub type Link = (usize, Option<Position>);

/// Which pieces lead from `start` to the newest end, in order. `holds` says of a piece whether one of its batches ends at a
/// position. None are needed if nothing goes beyond `start`.
///
/// # Errors
/// An [`Unlinked`], or what `holds` says.
pub fn link<E>(
    pieces: &[Span],
    start: Position,
    mut holds: impl FnMut(usize, Position) -> Result<bool, E>,
) -> Result<Result<Vec<Link>, Unlinked>, E> {
    let newest =
        |(_, span): &(usize, &Span)| (span.end.epoch, span.end.seq, std::cmp::Reverse(span.base.seq));
    let all = || pieces.iter().enumerate();
    let Some((mut piece, _)) = all().max_by_key(newest).filter(|(_, span)| span.end.seq > start.seq) else {
        return Ok(Ok(Vec::new()));
    };
    let mut links = Vec::new();
    let mut cut = None;
    loop {
        links.push((piece, cut));
        let Some(Span { base, .. }) = pieces.get(piece).copied() else { break };
        // Whether the start is in its history its batches tell.
        if base.seq <= start.seq {
            break;
        }
        let mut there: Vec<_> =
            all().filter(|(_, span)| span.base.seq < base.seq && base.seq <= span.end.seq).collect();
        if there.is_empty() {
            let before = all().map(|(_, span)| span.end.seq).filter(|end| *end < base.seq).max();
            let from = before.unwrap_or(start.seq).max(start.seq).next();
            return Ok(Err(Unlinked::Gap { from, to: base.seq }));
        }
        // Those that end there need not be read.
        there.sort_by_key(|(_, span)| (!is_same(span.end, base), span.base.seq));
        let mut before = None;
        for (other, span) in there {
            if is_same(span.end, base) || holds(other, base)? {
                before = Some(other);
                break;
            }
        }
        let Some(before) = before else { return Ok(Err(Unlinked::Branch { piece, base })) };
        (piece, cut) = (before, Some(base));
    }
    links.reverse();
    Ok(Ok(links))
}

/// What becomes of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is before what is wanted.
    Before,
    /// It comes next.
    Next,
    /// It is behind the end.
    Behind,
}

/// Why a batch is not of the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Apart {
    /// Of another pair.
    #[error("it is of pair {0}")]
    Pair(PairId),
    /// What is before it is not here.
    #[error("entries {from} to {to} are missing before it")]
    Gap {
        /// The first.
        from: Seq,
        /// The last.
        to: Seq,
    },
    /// The history before it is another one.
    #[error("it has another history at entry {at}: there it is of epoch {epoch}")]
    Branch {
        /// Where they part at the latest.
        at: Seq,
        /// Of the batch.
        epoch: Epoch,
    },
}

/// A history that is taken batch by batch.
#[derive(Clone, Copy, Debug)]
pub struct Past {
    pair: PairId,
    at: Position,
    until: Until,
    /// When the last one that was taken was written (ms since 1970); 0 if none was.
    wall_ms: u64,
    /// A batch that ends at the beginning, or begins there, was seen.
    joined: bool,
    /// The first batch behind the end: its entries, and when it was written.
    behind: Option<(Seq, Seq, u64)>,
}

impl Past {
    /// Behind `start`.
    #[must_use]
    pub fn new(pair: PairId, start: Position, until: Until) -> Self {
        Self { pair, at: start, until, wall_ms: 0, joined: false, behind: None }
    }

    /// Where it stands.
    #[must_use]
    pub fn at(&self) -> Position {
        self.at
    }

    /// When what was taken last was written (ms since 1970); 0 if nothing was taken.
    #[must_use]
    pub fn wall_ms(&self) -> u64 {
        self.wall_ms
    }

    /// What comes behind the end: first entry, last one, and when they were written (ms since 1970).
    #[must_use]
    pub fn behind(&self) -> Option<(Seq, Seq, u64)> {
        self.behind
    }

    /// Looks at the next batch.
    ///
    /// # Errors
    /// [`Apart`]: it is of another history.
    pub fn take(&mut self, batch: &Batch) -> Result<Taken, Apart> {
        let (header, end) = (batch.header(), batch.end());
        if header.pair != self.pair {
            return Err(Apart::Pair(header.pair));
        }
        if self.behind.is_some() {
            return Ok(Taken::Behind);
        }
        let branch = Apart::Branch { at: self.at.seq, epoch: header.epoch };
        if end.seq <= self.at.seq {
            // The one that ends where it begins has to end in the same history.
            if end.seq == self.at.seq && end != self.at && !self.joined {
                return Err(branch);
            }
            self.joined |= end == self.at;
            return Ok(Taken::Before);
        }
        if header.first_seq > self.at.seq.next() {
            return Err(Apart::Gap { from: self.at.seq.next(), to: Seq(header.first_seq.0 - 1) });
        }
        let follows = header.first_seq == self.at.seq.next() && header.prev_chain == self.at.chain;
        if !follows || header.epoch < self.at.epoch {
            return Err(branch);
        }
        self.joined = true;
        if self.until.ends_before(batch) {
            self.behind = Some((header.first_seq, end.seq, header.wall_ms));
            return Ok(Taken::Behind);
        }
        (self.at, self.wall_ms) = (end, header.wall_ms);
        Ok(Taken::Next)
    }
}

#[cfg(test)]
#[path = "past_tests.rs"]
mod tests;

//! A copy of everything that is replicated, over the link, while users work: the way to a standby that the journal does
//! not reach any more. [`giver`] is the primary's side, [`taker`] the side of the node that is incomplete,
//! [`rewind`] what is different where only a list of ranges is copied.
//!
//! ```text
//!   primary                                          incomplete
//!     | CopyBegin: definitions at entry 100              |   control file: incomplete; journal and store begin at 100
//!     |------------------------------------------------->|
//!     |                  Want: items of file 4           |
//!     |<-------------------------------------------------|
//!     | batches 101 .. 130, as the store shows them      |   into the journal, then into the store
//!     |------------------------------------------------->|
//!     | Chunk at 130: items `a` to `k` of file 4         |   the range is this, nothing else
//!     |------------------------------------------------->|
//!     |                  Want: items of file 4 behind k  |
//! ```
//!
//! Why the content is right at the end: take any range. Its chunk stood directly behind the batch that ends at its position,
//! and was right there; every later entry was applied in order. Blocks may be newer than their chunk's position, and are right
//! once everything up to the chunk's end is applied, because an entry says what blocks hold, not how they change.
//!
//! - Invariant: no batch beyond a chunk's position is sent before the chunk (I-43).
//! - Invariant: what an incomplete node acknowledges keeps nobody's promise; it never serves and takes nothing over.
//! - Invariant: a node is incomplete in its control file before anything of what it had is changed, and until everything
//!   up to the highest end of a chunk is durable in its store.

mod answering;
mod certificate;
mod compare;
#[cfg(test)]
mod compare_tests;
mod digests;
mod findings;
mod giver;
mod heal;
mod known;
mod pace;
mod partial;
mod past;
mod rewind;
mod sparse;
mod taker;
mod walk;

use crate::base::{Mono, Seq};
use crate::engine::config::StartState;
use crate::format::batch::Batch;
use crate::format::chunk::{Chunk, Progress};
use crate::format::compare::Found;
pub(super) use answering::Answering;
pub(super) use compare::{Compares, Place};
pub(super) use giver::Giving;
pub use known::{Known, is_over, within};
use pace::{Meter, Pace};
pub use past::{Apart, Link, Past, Span, Taken, Unlinked, Until, is_same, link};
pub(super) use rewind::{Gathering, Parting};
use taker::{Leaving, Taking};
pub use walk::{SetWalk, WalkError};

/// What a node keeps of copies beside its connections.
#[derive(Debug)]
pub(super) struct Resync {
    /// The copy that this node is given, while it is incomplete.
    taking: Option<Taking>,
    /// A copy that this node was offered, until it has left its own history for it.
    leaving: Option<Leaving>,
    /// An operator said that the peer may be given one.
    asked: bool,
    /// An operator wants all content of the next one sent, whatever the peer holds.
    all_content: bool,
    /// An operator accepts that this node is made what a primary has that took over with a part of a copy.
    takes_partial: bool,
    /// How fast the peer is given one.
    pace: Pace,
    /// How fast it goes, here or there.
    meter: Meter,
}

impl Resync {
    /// As found on disk. Where a rewind is about to begin in the store, the rest of the start sees what it will begin with.
    pub(super) fn found<S>(start: &mut StartState<S>) -> Self {
        Self {
            taking: Taking::found(start),
            leaving: None,
            asked: false,
            all_content: false,
            takes_partial: false,
            pace: Pace::default(),
            meter: Meter::default(),
        }
    }

    /// The next chunk for a store that was given everything up to `submitted`.
    pub(super) fn submit(&mut self, submitted: Seq) -> Option<(Chunk, Progress)> {
        self.taking.as_mut()?.submit(submitted)
    }

    /// A look of this node found something; false if it was for a compare.
    pub(super) fn looked(&mut self, look: u64, found: &Found) -> bool {
        self.taking.as_mut().is_some_and(|taking| taking.looked(look, found))
    }

    /// A batch came that the peer has sequenced since a copy began.
    pub(super) fn note_batch(&mut self, batch: &Batch) {
        if let Some(base) = self.taking.as_mut().and_then(|taking| taking.base.as_mut()) {
            base.note_batch(batch);
        }
    }

    /// A round of the store failed: what it did not take is given again.
    pub(super) fn take_back(&mut self) {
        if let Some(taking) = &mut self.taking {
            taking.take_back();
        }
    }

    /// The stream goes on behind `common` on a new connection.
    pub(super) fn stream_begins(&mut self, common: Seq) {
        if let Some(taking) = &mut self.taking {
            taking.stream_begins(common);
        }
    }

    pub(super) fn deadline(&self) -> Option<Mono> {
        let taking = self.taking.as_ref().and_then(Taking::deadline);
        let leaving = self.leaving.as_ref().and_then(Leaving::deadline);
        taking.into_iter().chain(leaving).chain(self.pace.deadline()).min()
    }

    /// The peer follows without a copy: the word of an operator who asked for one is not kept for another day.
    pub(super) fn not_needed(&mut self) {
        (self.asked, self.all_content) = (false, false);
    }

    /// See the field.
    pub(super) fn gives_all_content(&self) -> bool {
        self.all_content
    }

    /// See the field.
    pub(super) fn takes_partial(&self) -> bool {
        self.takes_partial
    }

    /// Whether this node is about to leave its history for a copy.
    pub(super) fn is_leaving(&self) -> bool {
        self.leaving.is_some()
    }

    /// The connection is gone that offered a copy; nothing has happened if nothing was begun.
    pub(super) fn not_offered(&mut self) {
        self.leaving.take_if(|leaving| leaving.is_idle());
    }
}

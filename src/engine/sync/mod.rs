//! A copy of everything that is replicated, over the link, while users work: the way to a standby that the journal does
//! not reach any more. [`giver`] is the primary's side, [`taker`] the side of the node that is incomplete.
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
//! - Invariant: no batch beyond a chunk's position is sent before the chunk (C1).
//! - Invariant: what an incomplete node acknowledges keeps nobody's promise; it never serves and takes nothing over.
//! - Invariant: a node is incomplete in its control file before anything of what it had is changed, and until everything
//!   up to the highest end of a chunk is durable in its store.

mod giver;
mod taker;

pub(super) use giver::Giving;
pub(super) use taker::Taking;

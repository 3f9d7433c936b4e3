//! Reels without their drive: packing a stream into blocks, filling reel after reel, reading them back, and the catalogue.
//!
//! - Invariant: a block counts as written only after a flush that succeeded with the drive at the position that was expected
//!   ([`SpanWriter`]). What does not count is kept, and written again to the next reel (I-38).
//! - Invariant: after any fault a drive is disarmed before anything else is asked of it, and nothing more is written to that reel.
//! - Invariant: a reel is written to only if [`judge()`] says so, or if it is the one that is wanted and holds its label alone
//!   ([`is_label_alone()`]); it is read only if it is the one that was wanted (I-37).
//! - Boundary: a [`Drive`] does what it is told. Who brings reels is a [`Shelf`]; both are the caller's.

mod catalogue;
mod cipher;
mod drive;
#[cfg(any(test, feature = "sim"))]
pub mod fake;
mod index;
mod mount;
mod pack;
mod parts;
mod read;
mod span;

pub use catalogue::{AloneHeld, Catalogue, Content, FileHeld, Reel, ReelSet, Save, Stretch};
pub use cipher::{Key, SessionKey};
pub use drive::{Drive, Fault, Got, Medium, Wrote};
pub use index::{Range, StreamIndex, fuzz_index};
pub use mount::{Allowed, Found, Purpose, Refusal, Shelf, ShelfError, Want, identify, is_label_alone, judge};
pub use pack::{Block, Packer, prepared};
pub use parts::{PartHeld, PartIndex, SPOOL_NAME, fuzz_parts};
pub use read::{Locate, Loss, ReadError, ReelReader, SpanReader, Step};
pub use span::{Event, SpanError, SpanWriter, Tail, TailError, WriteOrder, find_tail};

#[cfg(test)]
mod tests;

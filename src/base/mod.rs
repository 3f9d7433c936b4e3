//! Limits, units, checksums, time passed in, randomness passed in, aligned buffers.
//!
//! Everything here is a value or a pure function. Nothing reads a clock, a file or the environment.

mod bounded;
mod buffer;
mod checksum;
mod fault;
pub mod limits;
pub mod moment;
mod places;
mod prng;
mod repeats;
pub mod shown;
mod units;

pub use bounded::{Line, next_line, read_at_most, text_at_most};
pub use buffer::AlignedBuf;
pub use checksum::{chain_next, crc32c, crc32c_append, crc32c_joined, crc32c_parts};
pub use fault::{Fault, plainly};
pub use places::{Admission, Places, Rank};
pub use prng::Prng;
pub use repeats::{Repeats, Telling};
pub use units::{
    AckLevel, Chain, ConnId, Epoch, FileId, JournalKind, Mono, Now, Ordinal, Position, Round, SegmentIndex,
    Seq, Wait,
};

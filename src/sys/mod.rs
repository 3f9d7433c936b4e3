//! The only room with unsafe code: small safe wrappers around what the kernel offers.
//!
//! Every unsafe block is argued against the manual page it relies on. Nothing here decides anything.

#![allow(unsafe_code, reason = "this room exists to keep all unsafe code in one place")]

mod clock;
#[cfg(test)]
pub(crate) mod counting;
mod file;
mod map;
mod memory;
mod parts;
mod passthrough;
mod ring;
mod signal;
mod socket;
mod tape;
mod thread;
mod trial;

pub use clock::local_minute;
pub use file::{
    DirectAlignment, begin_writing, direct_alignment, mount_of, read_at, read_cached, write_at,
    write_durably_at,
};
pub use map::map_read_only;
pub use memory::keep_freed;
pub use parts::Parts;
pub use passthrough::NvmeReads;
pub use ring::{Finished, Ring, Task, WriteTask, missing_operations};
pub use signal::catch_signals;
pub use socket::{Goal, accept, fill, peer_groups, receive, send};
pub use tape::{TapeOp, TapeStatus, scsi_ask, tape_do, tape_position, tape_status};
pub use thread::{give_way, processor_time};
pub use trial::{FileTrial, SendTrial, TrialOp, TrialWays, offers_passthrough};

/// The most bytes that one read, write or send moves (Linux, read(2): 0x7ffff000).
pub const TRANSFER_MAX: usize = 0x7fff_f000;
/// Ranges handed to one call; what has more is continued.
const RANGES: usize = 256;

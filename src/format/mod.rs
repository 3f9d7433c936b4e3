//! Bytes to types and back, each layout in exactly one file.
//!
//! All numbers are little-endian, but for [`nbd`], whose layout others fixed. Decoders take any bytes, never panic, never allocate before a limit was
//! checked, and say what was expected and found. Beside each stands a `fuzz_*` function that a unit test runs.

#![warn(clippy::indexing_slicing)]

pub mod alone;
pub mod asked;
pub mod batch;
pub mod chunk;
pub mod compare;
pub mod compared;
pub mod control;
mod cursor;
pub mod dptr;
pub mod entry;
pub mod frame;
pub mod handover;
mod hasher;
pub mod licence;
pub mod nbd;
pub mod pairing;
pub mod reel;
pub mod resp;
pub mod rewind;
pub mod scrub;
pub mod segment;
pub mod set;
pub mod since;
pub mod socket;
pub mod spool;
pub mod sums;
pub mod tape_health;
pub mod unless;

pub use cursor::{Reader, Writer};

#[cfg(test)]
mod number_tests;

/// Sixteen random bytes that name a pair; a journal, frame or save of another pair is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PairId(pub [u8; 16]);

impl std::fmt::Display for PairId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Why bytes are not what they should be. Nothing was changed when it is returned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Fewer bytes than the layout needs.
    #[error("{what}: needs {needed} bytes, has {found}")]
    Short {
        /// What was being read.
        what: &'static str,
        /// Bytes needed.
        needed: usize,
        /// Bytes found.
        found: usize,
    },
    /// A field holds a value that the layout does not allow.
    #[error("{what}: expected {expected}, found {found}")]
    Field {
        /// The field.
        what: &'static str,
        /// What it may hold.
        expected: u64,
        /// What it holds.
        found: u64,
    },
    /// The checksum does not fit the bytes.
    #[error("{what}: checksum {found:#010x} does not match the bytes ({computed:#010x})")]
    Checksum {
        /// What was being read.
        what: &'static str,
        /// In the bytes.
        found: u32,
        /// Of the bytes.
        computed: u32,
    },
    /// A length beyond its limit.
    #[error("{what}: {found} is over the limit of {limit}")]
    Limit {
        /// What was being read.
        what: &'static str,
        /// The limit.
        limit: u64,
        /// The claim.
        found: u64,
    },
    /// A text that is not UTF-8 or holds control characters.
    #[error("{what}: not printable text")]
    Text {
        /// What was being read.
        what: &'static str,
    },
}

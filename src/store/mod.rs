//! The database itself: namespace and items.

mod due;
mod keys;
#[cfg(any(test, feature = "sim"))]
pub mod memory;
#[cfg(any(test, feature = "sim"))]
mod memory_volumes;
pub mod namespace;
#[cfg(test)]
mod testkit;
mod torn_tail;
pub mod tree_store;
pub mod volumes;

pub use keys::fuzz_record;
pub use torn_tail::fuzz_engine_journal;

use crate::base::{Fault, FileId, JournalKind, Seq};
use crate::format::batch::Batch;
use bytes::Bytes;

/// The slow part of a checkpoint.
pub type SlowSync = Box<dyn FnOnce() -> std::io::Result<()> + Send>;

/// Why the store could not answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The disk or the file system failed.
    #[error("{doing}: {fault}")]
    Disk {
        /// What was being done, to what.
        doing: &'static str,
        /// What came back.
        fault: crate::base::Fault,
    },
    /// What is stored cannot be what was written.
    #[error("{what} in the store is damaged: {why}")]
    Damaged {
        /// Which part.
        what: &'static str,
        /// How it was seen.
        why: String,
    },
    /// A batch does not follow the last one applied.
    #[error("{} journal: batch {first}..={last} offered, but {applied} is the last applied", journal.name())]
    OutOfOrder {
        /// The journal.
        journal: JournalKind,
        /// First entry offered.
        first: Seq,
        /// Last entry offered.
        last: Seq,
        /// Applied so far.
        applied: Seq,
    },
}

/// Reads of applied state. The sequencer holds one; it never sees half a batch.
pub trait StoreRead {
    /// From here to [`Self::unpin`] all reads see one and the same state, whatever is applied meanwhile: so a command
    /// of many reads never sees half a batch either. A store that has one owner need not do anything.
    fn pin(&self) {}

    /// Reads see the newest state again. What was pinned takes space, so this comes soon.
    fn unpin(&self) {}

    /// The value of an item.
    ///
    /// # Errors
    /// [`StoreError::Disk`] or [`StoreError::Damaged`].
    fn get(&self, file: FileId, generation: u32, id: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// Up to `limit` items of a file whose id is greater than `after`, in order of id, values included only if
    /// `with_values`.
    ///
    /// # Errors
    /// [`StoreError::Disk`] or [`StoreError::Damaged`].
    fn scan(
        &self,
        file: FileId,
        generation: u32,
        after: Option<&[u8]>,
        limit: usize,
        with_values: bool,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError>;
}

/// Writes of applied state: one thread, batches of each journal in order.
pub trait StoreWrite {
    /// Applies whole batches of one journal, each atomically with the number of its last entry.
    ///
    /// A batch at or below what is applied changes nothing (I-11); a gap is [`StoreError::OutOfOrder`].
    ///
    /// # Errors
    /// Any [`StoreError`]; nothing of the failed batch and those after it is visible then.
    fn apply(&mut self, journal: JournalKind, batches: &[Batch]) -> Result<(), StoreError>;

    /// Begins a checkpoint: gives the slow part of it, to be done by any thread while batches are applied on, and ended
    /// by [`Self::checkpoint`]; none if there is no slow part.
    fn begin_checkpoint(&mut self) -> Option<SlowSync> {
        None
    }

    /// Makes everything applied when the checkpoint began (or, if none was begun, everything applied so far) survive a
    /// power loss; returns the last entry of each journal that it covers.
    ///
    /// # Errors
    /// [`StoreError::Disk`].
    fn checkpoint(&mut self) -> Result<[Seq; 2], StoreError>;

    /// The slow part of the checkpoint failed.
    fn checkpoint_failed(&mut self, _fault: Fault) {}

    /// Reads a range of a volume as applied; what was never written is zeros.
    ///
    /// # Errors
    /// [`StoreError::Disk`].
    fn read_volume(&mut self, file: FileId, offset: u64, len: usize) -> Result<Bytes, StoreError>;

    /// What takes space in a range of a volume as applied, in order: how long, and whether it is a hole.
    ///
    /// # Errors
    /// [`StoreError::Disk`].
    fn allocation(&mut self, file: FileId, offset: u64, len: u64) -> Result<Vec<(u64, bool)>, StoreError>;
}

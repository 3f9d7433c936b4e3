//! The database itself: namespace and items.

mod chunk;
mod compare;
mod due;
mod keys;
#[cfg(any(test, feature = "sim"))]
pub mod memory;
#[cfg(any(test, feature = "sim"))]
mod memory_volumes;
pub mod namespace;
#[cfg(test)]
mod rewind_tests;
mod rotten;
#[cfg(test)]
mod testkit;
mod torn_tail;
pub mod tree_store;
pub mod volumes;

pub use keys::fuzz_record;
pub use torn_tail::fuzz_engine_journal;
pub use tree_store::fuzz_archive;

use crate::base::{Fault, FileId, JournalKind, Seq};
use crate::format::batch::Batch;
use crate::format::chunk::{Chunk, CopyBegin, Definitions, Progress, Want};
use crate::format::compare::Span;
use crate::format::rewind::{Prepared, Ranges};
use bytes::Bytes;
use volumes::{BadPlace, Check};

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

impl StoreError {
    /// Whether what is stored is not what was written. That it cannot be reached now says nothing.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Damaged { .. } => true,
            Self::Disk { fault, .. } => !fault.is_shortage(),
            Self::OutOfOrder { .. } => false,
        }
    }
}

/// Items that cannot be read, as what is stored of them is not what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RottenItems {
    /// Whose they are.
    pub file: FileId,
    /// Behind this id.
    pub after: Bytes,
    /// Through this one; to the end of the file if it is empty.
    pub through: Bytes,
}

/// What came of a read that does not wait for the disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tried<T> {
    /// The answer.
    Done(T),
    /// The answer is not in memory.
    Cold,
}

/// Whether an id counts.
pub type Fits = fn(&[u8]) -> bool;

/// Reads of applied state. The sequencer holds one.
pub trait StoreRead {
    /// One state between two batches.
    type Snapshot: StoreSnapshot + std::fmt::Debug;

    /// The newest state. What a snapshot shows takes space, so none is kept for long.
    fn snapshot(&self) -> Self::Snapshot;
}

/// One state of the store, whatever is applied meanwhile: who reads several items of it never sees half a batch.
pub trait StoreSnapshot {
    /// The last entry of each journal that it shows, by [`JournalKind::index`].
    fn applied(&self) -> [Seq; 2];

    /// The value of an item. May wait for the disk.
    ///
    /// # Errors
    /// [`StoreError::Disk`] or [`StoreError::Damaged`].
    fn get(&self, file: FileId, generation: u32, id: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// Up to `limit` items of a file whose id is greater than `after`, in order of id, values included only if
    /// `with_values`. May wait for the disk.
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

    /// The file has no more items than this. Told without waiting for the disk.
    fn items_at_most(&self, file: FileId, generation: u32) -> u64;

    /// About how many items the file has whose ids fit, at a cost that does not grow with the file. May wait for the disk.
    ///
    /// # Errors
    /// As [`Self::get`].
    fn estimate(&self, file: FileId, generation: u32, fits: Fits) -> Result<u64, StoreError>;

    /// As [`Self::get`], without waiting for the disk. A store in memory is never cold.
    ///
    /// # Errors
    /// As [`Self::get`].
    fn try_get(&self, file: FileId, generation: u32, id: &[u8]) -> Result<Tried<Option<Bytes>>, StoreError> {
        self.get(file, generation, id).map(Tried::Done)
    }

    /// As [`Self::scan`], without waiting for the disk.
    ///
    /// # Errors
    /// As [`Self::scan`].
    fn try_scan(
        &self,
        file: FileId,
        generation: u32,
        after: Option<&[u8]>,
        limit: usize,
        with_values: bool,
    ) -> Result<Tried<Vec<(Bytes, Bytes)>>, StoreError> {
        self.scan(file, generation, after, limit, with_values).map(Tried::Done)
    }
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

    /// Everything that may be on disk from before the start was applied again: from now on what volumes hold has to match
    /// its checksums.
    fn replayed(&mut self) {}

    /// Checks a range of a volume as it is on disk; what is wrong is among [`Self::take_bad_places`].
    ///
    /// # Errors
    /// [`StoreError::Disk`].
    fn check_volume(
        &mut self,
        _file: FileId,
        _offset: u64,
        _len: u64,
        _check: Check,
    ) -> Result<(), StoreError> {
        Ok(())
    }

    /// A scrub has checked every block of a volume: from now on a block without a checksum has to hold zeros.
    ///
    /// # Errors
    /// [`StoreError::Disk`].
    fn scrubbed_volume(&mut self, _file: FileId) -> Result<(), StoreError> {
        Ok(())
    }

    /// What was found wrong in volumes since this was last asked.
    fn take_bad_places(&mut self) -> Vec<BadPlace> {
        Vec::new()
    }

    /// Items that were found rotten since this was last asked, by reads, scrubs and merges. What [`CompareTarget::repair`]
    /// or [`CopyTarget::take_chunk`] makes of all of them is whole again.
    fn take_rotten_items(&mut self) -> Vec<RottenItems> {
        Vec::new()
    }

    /// Has all rotten items told again that are known and not whole yet.
    fn tell_rotten_again(&mut self) {}
}

/// What makes a store the copy of another one.
pub trait CopyTarget {
    /// Replaces everything that is replicated by the definitions that a copy begins with, in one step; the replicated journal
    /// is applied up to the copy's origin then. With `ranges`, of a rewind, what files hold stays where they do not count as
    /// a whole.
    ///
    /// # Errors
    /// Any [`StoreError`]; volumes that were replicated may be empty then, and all may be done again.
    fn begin_copy(&mut self, begin: &CopyBegin, ranges: Option<&Ranges>) -> Result<(), StoreError>;

    /// Keeps what a rewind will begin with and what it will want, durably from the next checkpoint on until the rewind is
    /// done, or another copy begins.
    ///
    /// # Errors
    /// Any [`StoreError`]; nothing was changed then.
    fn prepare_rewind(&mut self, prepared: &Prepared) -> Result<(), StoreError>;

    /// Makes a range what a chunk says, in one step with how far the copy is. That blocks were copied is remembered from the
    /// next checkpoint on.
    ///
    /// # Errors
    /// Any [`StoreError`]; it may be done again.
    fn take_chunk(&mut self, chunk: &Chunk, progress: &Progress) -> Result<(), StoreError>;
}

/// A look at a range between two batches: what is there can be read by any thread, later.
pub struct Look {
    /// The last entry of the replicated journal that it shows.
    pub at: Seq,
    /// Reads it.
    pub read: LookRead,
}

/// The part of a look that takes its time.
pub type LookRead = Box<dyn FnOnce() -> Result<Chunk, StoreError> + Send>;

impl std::fmt::Debug for Look {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Look(at {})", self.at)
    }
}

/// What a store does to be compared with another, and to be given what it holds wrong; by the one who writes.
pub trait CompareTarget {
    /// Looks at a range as it is now, at most at `most` bytes (but at one item at least). A file whose content the other node
    /// does not have now is none. [`Span::Behind`] is nothing.
    ///
    /// # Errors
    /// [`StoreError::Disk`] or [`StoreError::Damaged`], here or by the part that takes its time.
    fn look(&mut self, file: FileId, span: &Span, most: u32) -> Result<Look, StoreError>;

    /// The last entry of the replicated journal that a look would show now.
    fn shown(&self) -> Seq;

    /// Makes a range what a chunk says, beside both journals. The next checkpoint makes that durable.
    ///
    /// # Errors
    /// Any [`StoreError`], with [`Fault::STALE`] where the file is not there, or not the same on both nodes by its definition;
    /// it may be done again.
    fn repair(&mut self, chunk: &Chunk) -> Result<(), StoreError>;
}

/// Reads for a copy, from any thread. Each call sees a state between two batches, and tells which.
pub trait CopySource {
    /// The definitions, and the last entries that are applied in them, by [`JournalKind::index`].
    ///
    /// # Errors
    /// [`StoreError::Disk`] or [`StoreError::Damaged`].
    fn definitions(&self) -> Result<([Seq; 2], Definitions), StoreError>;

    /// About how much content of replicated files there is (bytes).
    fn size(&self) -> u64;

    /// What a range holds.
    ///
    /// # Errors
    /// [`StoreError::Disk`] or [`StoreError::Damaged`].
    fn range(&self, want: &Want) -> Result<Chunk, StoreError>;
}

//! What a drive does, and how it answers: the rules of `st`, the tape driver of Linux.

/// Why a drive did not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The end of the reel is near, or there: nothing was written. Twice in a row it is there.
    #[error("no space is left on the reel")]
    NoSpace,
    /// The reel cannot be written to.
    #[error("the reel is write-protected")]
    Protected,
    /// There is no reel.
    #[error("there is no reel in the drive")]
    NoMedium,
    /// Somebody else has the drive.
    #[error("the drive is in use by another program")]
    Busy,
    /// The block is longer than any of ours.
    #[error("a block there is longer than any that hot-backup writes")]
    TooLong,
    /// The drive is not where it was told to be: it was reset, or the reel was changed.
    #[error(
        "the drive stands at block {found} where block {expected} was to come: it was reset, or the reel was changed"
    )]
    Moved {
        /// Where it should be.
        expected: u64,
        /// Where it is.
        found: u64,
    },
    /// Anything else, in the words of the system.
    #[error("{0}")]
    Failed(String),
}

/// What came of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrote {
    /// The block was taken.
    Block,
    /// The block was taken, and the end of the reel is near.
    Warned,
}

/// What was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Got {
    /// A block of so many bytes.
    Block(usize),
    /// A filemark.
    Mark,
}

/// What is in a drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    /// No reel, or not ready yet.
    Absent,
    /// A reel.
    Ready {
        /// Whether it cannot be written to.
        protected: bool,
    },
}

/// A drive with at most one reel. All calls may block, for minutes on a real one.
///
/// Positions count blocks and filemarks as one each, from the beginning of the reel. Writing cuts off all that was behind.
///
/// # Errors
/// Any [`Fault`], of any call. Then only [`Self::disarm`] may follow first.
#[allow(clippy::missing_errors_doc, reason = "they are alike, and stand above")]
pub trait Drive: Send {
    /// How people call it.
    fn name(&self) -> String;
    /// What is in it, asked anew.
    fn medium(&mut self) -> Result<Medium, Fault>;
    /// Goes to the beginning.
    fn rewind(&mut self) -> Result<(), Fault>;
    /// Goes behind all that is written.
    fn end(&mut self) -> Result<(), Fault>;
    /// Goes to a position.
    fn seek(&mut self, to: u64) -> Result<(), Fault>;
    /// Where it is.
    fn position(&mut self) -> Result<u64, Fault>;
    /// Writes one block. `Ok` is no promise that it is on the reel: that is for [`Self::marks`].
    fn write(&mut self, block: &[u8]) -> Result<Wrote, Fault>;
    /// Writes so many filemarks, and all that the drive had in memory before them; 0 is the latter alone.
    ///
    /// # Durability
    /// When it returns `Ok` and [`Self::position`] is as expected, all blocks before it are on the reel.
    fn marks(&mut self, count: u32) -> Result<(), Fault>;
    /// Reads one block into `buffer`, or goes past a filemark.
    fn read(&mut self, buffer: &mut [u8]) -> Result<Got, Fault>;
    /// Keeps the reel in the drive, or lets it go.
    fn lock(&mut self, locked: bool) -> Result<(), Fault>;
    /// Makes the driver forget that it was writing, so that it adds no filemark of its own anywhere.
    fn disarm(&mut self);
    /// Gives the reel out.
    fn eject(&mut self) -> Result<(), Fault>;
    /// The numbers of the TapeAlert flags that are set, as far as the drive tells. Asked only where nothing that was written
    /// waits to be told of.
    fn alerts(&mut self) -> Vec<u8> {
        Vec::new()
    }
}

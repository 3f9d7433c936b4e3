//! Why tapes are not written or read.

use crate::base::plainly;
use crate::tape::{Fault, ReadError, ShelfError, SpanError, TailError};
use std::io;

/// Why a tape command came to nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TapeError {
    /// Writing ended.
    #[error(transparent)]
    Write(#[from] SpanError),
    /// Reading ended. What was lost by it is told where the catalogue knows.
    #[error("{error}{held}")]
    Read {
        /// Why.
        error: ReadError,
        /// What it held, for people.
        held: String,
    },
    /// No reel.
    #[error(transparent)]
    Shelf(#[from] ShelfError),
    /// The end of what is written cannot be found.
    #[error("appending to reel {reel}: {error}")]
    Tail {
        /// The reel.
        reel: u32,
        /// Why.
        error: TailError,
    },
    /// It ends before what is known to be on it.
    #[error("appending to reel {reel}: it ends before block {expected}, which the catalogue says is there")]
    SetBack {
        /// The reel.
        reel: u32,
        /// The last block that should be there.
        expected: u64,
    },
    /// The drive.
    #[error("using {drive}: {fault}")]
    Drive {
        /// Its name.
        drive: String,
        /// Why not.
        fault: Fault,
    },
    /// The file system.
    #[error("{doing} {what}: {}", plainly(source))]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        what: String,
        /// Why not.
        source: io::Error,
    },
    /// There is no such save.
    #[error("looking for {what}: it is on none of these reels")]
    NoSave {
        /// Which.
        what: String,
    },
    /// It is encrypted.
    #[error("reading save {save}: it is encrypted with {}", match given { Some(_) => "another key", None => "a key" })]
    Key {
        /// Which.
        save: String,
        /// The key that was given (its number).
        given: Option<u64>,
    },
    /// Reels and order do not fit.
    #[error("{what}: {why}")]
    Unfit {
        /// What was being done.
        what: String,
        /// Why not.
        why: String,
        /// What to do.
        next: &'static str,
    },
}

impl TapeError {
    /// Whether only a reel is missing, which somebody may bring.
    #[must_use]
    pub fn waits(&self) -> bool {
        matches!(self.shelf(), Some(ShelfError::Missing { .. } | ShelfError::Ended { .. }))
            || matches!(self.shelf(), Some(ShelfError::Drive { fault: Fault::NoMedium, .. }))
            // It is an older copy of the right one.
            || matches!(self, Self::SetBack { .. })
    }

    /// Whether another program has the drive.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Drive { fault: Fault::Busy, .. })
            || matches!(self.shelf(), Some(ShelfError::Drive { fault: Fault::Busy, .. }))
    }

    fn shelf(&self) -> Option<&ShelfError> {
        match self {
            Self::Shelf(error)
            | Self::Write(SpanError::Shelf(error))
            | Self::Read { error: ReadError::Shelf(error), .. } => Some(error),
            _ => None,
        }
    }

    /// What to do next, for people.
    #[must_use]
    pub fn next(&self) -> String {
        match self {
            Self::Shelf(error)
            | Self::Write(SpanError::Shelf(error))
            | Self::Read { error: ReadError::Shelf(error), .. } => of_shelf(error).to_owned(),
            Self::Write(SpanError::Lost { .. }) => {
                "begin the save again on other reels; look at the drive (`dmesg`), and keep other programs from it".to_owned()
            }
            Self::Write(_) => "look at the drive (`dmesg`), clean it, and use other reels".to_owned(),
            Self::Read { .. } => {
                "clean the drive and read again, or use a copy of that reel; `hot-backup verify tape:..` tells all that is lost"
                    .to_owned()
            }
            Self::Tail { .. } => "begin a new set on other reels: leave out --append".to_owned(),
            Self::SetBack { .. } => {
                "bring the right reel; if it is this one, what was behind it is lost: begin a new set on other reels".to_owned()
            }
            Self::Drive { fault, .. } => of_fault(fault).to_owned(),
            Self::Io { .. } => "check the path, its owner and the disk".to_owned(),
            Self::NoSave { .. } => "see which there are: hot-backup tape list tape:..".to_owned(),
            Self::Key { .. } => "give the key file that it was written with: --key FILE".to_owned(),
            Self::Unfit { next, .. } => (*next).to_owned(),
        }
    }
}

fn of_shelf(error: &ShelfError) -> &'static str {
    match error {
        ShelfError::Missing { .. } => {
            "bring that reel and begin again; without --no-wait the command waits for it; a reel that may be overwritten \
             needs --relabel, a blank one `hot-backup tape label` or --label-blank"
        }
        ShelfError::Ended { .. } => "begin again when the reel is there",
        ShelfError::Drive { fault, .. } => of_fault(fault),
    }
}

fn of_fault(fault: &Fault) -> &'static str {
    match fault {
        Fault::Busy => "wait until the other program is done with the drive",
        Fault::NoMedium => "put a reel into the drive",
        Fault::Protected => "move the tab of the cartridge, or use another one",
        _ => "look at the drive (`dmesg`, its display), clean it, and try again",
    }
}

/// As an error of a stream, from which [`of_stream`] gets it back.
pub(super) fn into_stream(error: TapeError) -> io::Error {
    io::Error::other(error)
}

/// The error of a tape within one of a stream.
pub(in crate::node) fn of_stream(error: &io::Error) -> Option<&TapeError> {
    error.get_ref().and_then(|inner| inner.downcast_ref())
}

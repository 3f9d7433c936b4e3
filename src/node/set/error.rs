//! What is wrong with a set.

use crate::base::plainly;
use crate::node::tape::{TapeError, of_stream};
use crate::node::tape_socket::{self, SocketError};
use std::io;
use std::path::PathBuf;

/// Why a set cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetError {
    /// The file system refused.
    #[error("{doing} {what}: {}", plainly(source))]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        what: String,
        /// Why not.
        source: io::Error,
    },
    /// The reels.
    #[error(transparent)]
    Tape(#[from] TapeError),
    /// The other machine that takes or gives it.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// What was to be written is there already.
    #[error("writing {}: it is there already", path.display())]
    Exists {
        /// The file or directory.
        path: PathBuf,
    },
    /// It is no set at all.
    #[error("reading {what}: it is not a save set: {why}")]
    NoSet {
        /// The file.
        what: String,
        /// How it was seen.
        why: String,
    },
    /// It has no trailer.
    #[error(
        "reading {what}: it is no save: it has no trailer, so the save was interrupted or its end was cut off ({why})"
    )]
    NoTrailer {
        /// The file.
        what: String,
        /// What is there instead.
        why: String,
    },
    /// A file of it is of another set, or not the next one.
    #[error("reading {what}: {why}")]
    Part {
        /// The file.
        what: String,
        /// What it is.
        why: String,
    },
    /// Sets that do not follow each other.
    #[error("reading {what}: {why}")]
    Chain {
        /// The set that does not fit.
        what: String,
        /// How it was seen.
        why: String,
    },
    /// A block is not what was written.
    #[error("reading {what}: block {number} at byte {offset} is damaged: {why}; it holds {held}")]
    Damaged {
        /// The file.
        what: String,
        /// The block.
        number: u64,
        /// Where in the file.
        offset: u64,
        /// How it was seen.
        why: String,
        /// What is in it.
        held: String,
    },
}

impl SetError {
    /// What to do next, for people.
    #[must_use]
    pub fn next(&self) -> String {
        match self {
            Self::Tape(error) => error.next(),
            Self::Socket(error) => error.next(),
            Self::Io { source, .. } if of_stream(source).is_some() => {
                of_stream(source).map(TapeError::next).unwrap_or_default()
            }
            Self::Io { source, .. } if tape_socket::of_stream(source).is_some() => {
                tape_socket::of_stream(source).map(SocketError::next).unwrap_or_default()
            }
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    "make room there, or save to another place; what was written is no save".to_owned()
                }
                io::ErrorKind::NotFound => "check the path".to_owned(),
                _ => "check the path, its owner and the disk".to_owned(),
            },
            Self::Exists { .. } => "a save never overwrites another: give it a new name".to_owned(),
            Self::NoSet { why, .. } if why.contains("version") => {
                "use the version of hot-backup that made it, or a newer one".to_owned()
            }
            Self::NoSet { .. } => "give a file or directory that `hot-backup save` made".to_owned(),
            Self::NoTrailer { .. } => "use another save; `hot-backup save` makes a new one".to_owned(),
            Self::Part { .. } => "bring all files of that set, and no others, into that directory".to_owned(),
            Self::Chain { .. } => {
                "name the set that holds everything, then each one that was made since the one before \
                                  it (`hot-backup save show` tells which that is)"
                    .to_owned()
            }
            Self::Damaged { .. } => {
                "use another copy of this set; `hot-backup verify` tells all that is damaged".to_owned()
            }
        }
    }
}

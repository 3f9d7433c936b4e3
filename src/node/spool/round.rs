//! What came after a save, on its way to a peer that no link reaches: the parts of a node's spool behind an entry go to a
//! directory or to reels, which are carried. What is there already is not written again, so an interruption costs nothing.

use super::dir::{SpoolDir, WriteError};
use super::history::{History, HistoryError};
use super::reels::{ReelOrder, ReelSpool, is_same};
use super::store::PartStore;
use crate::base::limits::SPOOL_REEL_MS;
use crate::base::plainly;
use crate::format::spool::PartHeader;
use crate::io::make_dir;
use crate::node::tape::TapeError;
use std::io;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

/// Where a round goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RoundPlace {
    /// A directory; the one above it has to be there.
    Dir(PathBuf),
    /// Reels, which nothing else is written to afterwards.
    Reels(Box<ReelOrder>),
}

/// What a round holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// The first entry; 0 if there is nothing.
    pub from: u64,
    /// The last one.
    pub to: u64,
    /// All of it (bytes).
    pub bytes: u64,
    /// What was written now, and not before an interruption (bytes).
    pub fresh: u64,
    /// The reels it is on; none in a directory.
    pub reels: Vec<u32>,
}

/// Why a round was not written.
#[derive(Debug, thiserror::Error)]
pub enum RoundError {
    /// The spool does not have what comes next.
    #[error("reading the spool: {0}")]
    History(#[from] HistoryError),
    /// The place.
    #[error("writing to {what}: {}", plainly(source))]
    Place {
        /// Which.
        what: String,
        /// Why not.
        source: io::Error,
    },
    /// A part of the spool.
    #[error("reading part {part} of the spool: {why}")]
    Part {
        /// Its name.
        part: String,
        /// Why not.
        why: String,
    },
    /// Reels.
    #[error(transparent)]
    Tape(#[from] TapeError),
}

impl RoundError {
    /// What to do next, for people.
    #[must_use]
    pub fn next(&self) -> String {
        match self {
            Self::History(HistoryError::Gap { .. }) => {
                "what came after the save is not all on the spool: begin a new plan with --again".to_owned()
            }
            Self::History(_) | Self::Part { .. } => "see: hot-backup spool verify".to_owned(),
            Self::Place { .. } => {
                "see whether that disk is mounted and has room, then run the plan again".to_owned()
            }
            Self::Tape(error) => error.next(),
        }
    }
}

/// The parts of a spool that hold something behind this entry.
///
/// # Errors
/// [`RoundError::History`]: there is a gap, or a damaged part.
pub fn parts_behind(store: &PartStore, entry: u64) -> Result<Vec<PartHeader>, RoundError> {
    let (all, _) = store.list().map_err(HistoryError::from)?;
    if all.iter().all(|part| part.header.end.seq.0 <= entry) {
        return Ok(Vec::new());
    }
    Ok(History::of(store, entry + 1, u64::MAX)?.parts)
}

/// Writes parts to a place, oldest first, and hears how many bytes are there.
///
/// # Durability
/// When it returns, all of them are synced; on reels the drive said so at a flush.
///
/// # Errors
/// [`RoundError`]. What is there stays, and is not written again.
pub fn write_round(
    store: &mut PartStore,
    parts: &[PartHeader],
    place: &RoundPlace,
    told: &mut dyn FnMut(u64),
) -> Result<Written, RoundError> {
    let mut written = Written {
        from: parts.first().map_or(0, |part| part.first().0),
        to: parts.last().map_or(0, |part| part.end.seq.0),
        bytes: parts.iter().map(PartHeader::file_bytes).sum(),
        ..Written::default()
    };
    match place {
        _ if parts.is_empty() => {}
        RoundPlace::Dir(path) => {
            let failed = |source| RoundError::Place { what: path.display().to_string(), source };
            if path.parent().is_none_or(|above| !above.is_dir()) {
                return Err(failed(io::ErrorKind::NotFound.into()));
            }
            make_dir(path).map_err(failed)?;
            let dir = SpoolDir::at(path.clone());
            let there = dir.list().map_err(failed)?.parts;
            let mut done = 0;
            for part in parts {
                if !there.contains(part) {
                    dir.write(part, |offset, len| store.read(part, offset, len))
                        .map_err(|error| of_write(error, part, &path.display().to_string()))?;
                    written.fresh += part.file_bytes();
                }
                done += part.file_bytes();
                told(done);
            }
        }
        RoundPlace::Reels(order) => {
            written.fresh = to_reels(store, parts, order, told)?;
            written.reels = ReelSpool::new((**order).clone()).reels_of(parts)?;
        }
    }
    Ok(written)
}

fn of_write(error: WriteError, part: &PartHeader, place: &str) -> RoundError {
    let part = part.file_name();
    match error {
        WriteError::Spool(source) => RoundError::Place { what: place.to_owned(), source },
        WriteError::Read(error) => RoundError::Part { part, why: plainly(&error) },
        WriteError::Segment(bad) => RoundError::Part { part, why: bad.why },
        WriteError::Tape(error) => RoundError::Tape(*error),
    }
}

/// Writes what is not there yet; a reel that is missing is waited for, unless the order says otherwise. Gives the bytes.
fn to_reels(
    store: &mut PartStore,
    parts: &[PartHeader],
    order: &ReelOrder,
    told: &mut dyn FnMut(u64),
) -> Result<u64, RoundError> {
    let (mut fresh, mut asked) = (0, String::new());
    loop {
        let mut reels = ReelSpool::new(order.clone());
        let held = reels.list(true)?;
        let is_there = |part: &&PartHeader| held.iter().any(|(held, _)| is_same(&held.header, part));
        let (there, missing): (Vec<&PartHeader>, Vec<&PartHeader>) =
            parts.iter().partition(|part| is_there(part));
        told(there.iter().map(|part| part.file_bytes()).sum());
        if missing.is_empty() {
            // Nothing comes behind it: what is carried away is not asked for again.
            reels.close_last()?;
            return Ok(fresh);
        }
        let mut done = Vec::new();
        let put = missing.iter().try_for_each(|part| {
            let read = |offset, len| store.read(part, offset, len);
            reels.put(part, read, &mut done).map_err(|error| of_write(error, part, &reels.name()))
        });
        let ended = put.and_then(|()| reels.finish(&mut done).map_err(RoundError::from));
        fresh += done.iter().map(PartHeader::file_bytes).sum::<u64>();
        match ended {
            Ok(()) => {}
            Err(RoundError::Tape(error)) if error.waits() && order.options.wait.is_none() => {
                let text = format!("{error}; it is seen by itself");
                if asked != text {
                    order.options.teller.tell(&text);
                    asked = text;
                }
                thread::sleep(Duration::from_millis(SPOOL_REEL_MS));
            }
            Err(error) => return Err(error),
        }
    }
}

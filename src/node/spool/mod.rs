//! The spool's thread: copies of sealed segments on another disk, and reads of them.

mod dir;
mod history;
mod note;
#[cfg(test)]
mod tests;

pub use dir::{BadPart, FILE, SpoolDir};
pub use history::{History, HistoryError};

use super::config::Config;
use super::inbox::{CoreEnded, Inbox};
use super::layout::Layout;
use super::setup;
use crate::base::{Fault, JournalKind, Ordinal};
use crate::engine::{
    EngineConfig, JournalEvent, ReadSegment, SpoolConfig, SpoolEffect, SpoolEvent, SpoolFound,
};
use crate::format::PairId;
use crate::format::spool::PartHeader;
use crate::io::read_direct;
use dir::WriteError;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;

/// What the thread has.
pub(super) struct SpoolDesk {
    layout: Layout,
    pair: PairId,
    ordinal: Ordinal,
    /// What the config says.
    configured: SpoolConfig,
    /// The directory that was opened last.
    dir: Option<SpoolDir>,
}

impl SpoolDesk {
    /// Of a node. What its operator chose takes the place of what the config says.
    pub(super) fn of_node(layout: &Layout, engine: &mut EngineConfig) -> Self {
        let chosen = note::chosen(layout, &engine.spool);
        let configured = std::mem::replace(&mut engine.spool, chosen);
        Self { layout: layout.clone(), configured, pair: engine.pair, ordinal: engine.ordinal, dir: None }
    }

    /// Works until the core is gone or `stop` is set.
    pub(super) fn run(mut self, work: &Receiver<SpoolEffect>, inbox: &Inbox, stop: &AtomicBool) {
        while let Ok(effect) = work.recv() {
            if stop.load(Ordering::Relaxed) || self.work(effect, inbox).is_err() {
                return;
            }
        }
    }

    fn work(&mut self, effect: SpoolEffect, inbox: &Inbox) -> Result<(), CoreEnded> {
        match effect {
            SpoolEffect::Open { round, place } => {
                let result = self.open(&place).map_err(|error| {
                    tracing::warn!("opening the spool {place}: {error}");
                    Fault::from_io(&no_errno(error))
                });
                inbox.event(SpoolEvent::Opened { round, result })
            }
            SpoolEffect::Copy { round, part } => {
                let result = self.copy(&part);
                inbox.event(SpoolEvent::Copied { round, result })
            }
            SpoolEffect::Read { read: ReadSegment { read, offset, len, .. }, part } => {
                let result = self.opened().and_then(|dir| dir.read(&part, offset, len)).map_err(|error| {
                    tracing::warn!("reading {len} bytes at {offset} of part {}: {error}", part.file_name());
                    Fault::from_io(&no_errno(error))
                });
                inbox.event(JournalEvent::Read { read, result })
            }
            SpoolEffect::Keep { place, mode } => {
                let kept = note::keep(&self.layout, &self.configured, &place, mode).map_err(|error| {
                    tracing::error!("keeping the choice of the spool for the next start: {error}");
                    Fault::from_io(&no_errno(error))
                });
                inbox.event(SpoolEvent::Kept { result: kept })
            }
            SpoolEffect::Remove { part } => {
                let removed = self.opened().and_then(|dir| dir.remove(&part).and_then(|()| dir.sync()));
                if let Err(error) = removed {
                    tracing::warn!("removing part {} of the spool: {error}", part.file_name());
                }
                Ok(())
            }
        }
    }

    fn opened(&self) -> io::Result<&SpoolDir> {
        self.dir.as_ref().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn open(&mut self, place: &str) -> io::Result<SpoolFound> {
        self.dir = None;
        let dir = SpoolDir::of(place, self.pair, self.ordinal).map_err(io::Error::other)?;
        dir.make()?;
        dir.tidy()?;
        let found = dir.list()?;
        if let Err(error) = dir.write_index(&found.parts) {
            // It is made again from the parts.
            tracing::warn!("writing the index of the spool {place}: {error}");
        }
        self.dir = Some(dir);
        Ok(found)
    }

    /// Copies a segment; gives what the disk has left.
    fn copy(&self, part: &PartHeader) -> Result<u64, Fault> {
        let path = self.layout.segment(JournalKind::Replicated, part.index);
        let told = |what: &str, error: io::Error| {
            tracing::warn!("copying {} to the spool: {what}: {error}", path.display());
            Fault::from_io(&no_errno(error))
        };
        let dir = self.opened().map_err(|error| told("its directory", error))?;
        let gone = || !path.exists();
        let written = dir.write(part, |offset, len| read_direct(&path, offset, len));
        match written {
            Ok(()) => Ok(dir.free()),
            Err(WriteError::Spool(error)) => Err(told("writing", error)),
            // The journal has let go of it meanwhile.
            Err(WriteError::Read(_) | WriteError::Segment(_)) if gone() => Err(Fault::STALE),
            Err(WriteError::Read(error)) => Err(told("reading", error)),
            Err(WriteError::Segment(error)) => {
                tracing::error!("copying {} to the spool: {error}", path.display());
                Err(Fault::UNCLEAN)
            }
        }
    }
}

/// The spool of the node in a directory, whether it runs or not; none if it has none.
///
/// # Errors
/// In words: the config cannot be read, or names something else.
pub fn of_dir(dir: &Path) -> Result<Option<SpoolDir>, String> {
    let config = Config::load(dir).map_err(|errors| errors.to_string())?.engine;
    let chosen = note::chosen(&Layout::new(dir), &config.spool);
    if chosen.place.is_empty() {
        return Ok(None);
    }
    SpoolDir::of(&chosen.place, config.pair, config.ordinal).map(Some)
}

/// The first entry of a part, if any, that is of the history of the node in a directory already.
///
/// # Errors
/// In words: its control file cannot be read.
pub fn own_part<'a>(dir: &Path, parts: &'a [PartHeader]) -> Result<Option<&'a PartHeader>, String> {
    let config = Config::load(dir).map_err(|errors| errors.to_string())?;
    let control = setup::load_control(&Layout::new(dir), &config).map_err(|error| error.to_string())?;
    let own = |part: &&PartHeader| {
        let mark = control.table.iter().rev().find(|mark| mark.first_seq <= part.end.seq);
        mark.is_some_and(|mark| mark.epoch == part.end.epoch)
    };
    Ok(parts.iter().find(own))
}

/// Kinds of this program's own have the number of the error that they stand for.
fn no_errno(error: io::Error) -> io::Error {
    if error.raw_os_error().is_some() {
        return error;
    }
    io::Error::from_raw_os_error(match error.kind() {
        io::ErrorKind::NotFound => libc::ENOENT,
        io::ErrorKind::PermissionDenied => libc::EACCES,
        io::ErrorKind::InvalidInput => libc::EINVAL,
        _ => libc::EIO,
    })
}

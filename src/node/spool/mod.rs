//! The spool's thread: copies of sealed segments on another disk, and reads of them.

mod dir;
mod far;
mod history;
mod note;
mod reels;
mod round;
mod store;
mod tape;
#[cfg(test)]
pub(in crate::node) mod tests;

pub use dir::{BadPart, FILE, SpoolDir};
pub(in crate::node) use dir::{PART, check_part};
pub use far::{FAR, FarSpool};
pub use history::{History, HistoryError};
pub use reels::{ReelOrder, ReelSpool, Unread};
pub use round::{RoundError, RoundPlace, Written, parts_behind, write_round};
pub use store::{Listed, PartPlace, PartStore};

use super::config::{Config, TapeSettings};
use super::inbox::{CoreEnded, Inbox};
use super::layout::Layout;
use super::setup;
use super::tape::{Place, TapeOptions, Teller, read_key};
use crate::base::{Fault, JournalKind, Ordinal};
use crate::engine::{JournalEvent, ReadSegment, SpoolConfig, SpoolEffect, SpoolEvent, SpoolFound, SpoolMode};
use crate::format::PairId;
use crate::format::spool::PartHeader;
use crate::io::read_direct;
use bytes::Bytes;
use dir::WriteError;
use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use tape::{Alerts, TapeDesk};

/// What the config's `spool` begins with for reels.
pub const TAPE: &str = "tape:";

/// What the thread has.
pub(super) struct SpoolDesk {
    layout: Layout,
    pair: PairId,
    ordinal: Ordinal,
    /// What the config says.
    configured: SpoolConfig,
    tape: TapeSettings,
    name: String,
    /// The directory that was opened last.
    dir: Option<Files>,
    /// Reels that were.
    reels: Option<TapeDesk>,
}

/// Where parts are files.
enum Files {
    Here(SpoolDir),
    /// On another machine.
    There(Box<FarSpool>),
}

impl Files {
    fn read(&self, part: &PartHeader, offset: u64, len: usize) -> io::Result<Bytes> {
        match self {
            Self::Here(dir) => dir.read(part, offset, len),
            Self::There(far) => far.read(part, offset, len),
        }
    }

    fn holds(&self, part: &PartHeader) -> bool {
        match self {
            Self::Here(dir) => dir.holds(part),
            Self::There(far) => far.holds(part),
        }
    }

    fn remove(&self, part: &PartHeader) -> io::Result<()> {
        match self {
            Self::Here(dir) => dir.remove(part).and_then(|()| dir.sync()),
            Self::There(far) => far.remove(part),
        }
    }

    fn write(
        &self,
        part: &PartHeader,
        read: impl FnMut(u64, usize) -> io::Result<Bytes>,
    ) -> Result<u64, WriteError> {
        match self {
            Self::Here(dir) => dir.write(part, read).map(|()| dir.free()),
            Self::There(far) => far.write(part, read).map(|()| far.free()),
        }
    }
}

/// What a write to reels reaches: where answers go, where segments are.
struct Reach<'a> {
    layout: &'a Layout,
    inbox: &'a Inbox,
}

impl Reach<'_> {
    /// Whether the journal has let go of a part's segment.
    fn is_gone(&self, part: &PartHeader) -> bool {
        !self.layout.segment(JournalKind::Replicated, part.index).exists()
    }
}

impl SpoolDesk {
    /// Of a node. What its operator chose takes the place of what the config says.
    pub(super) fn of_node(layout: &Layout, config: &mut Config) -> Self {
        let engine = &mut config.engine;
        let chosen = note::chosen(layout, &engine.spool);
        let configured = std::mem::replace(&mut engine.spool, chosen);
        let (pair, ordinal, name) = (engine.pair, engine.ordinal, engine.name.clone());
        let (layout, tape) = (layout.clone(), config.tape.clone());
        Self { layout, configured, pair, ordinal, tape, name, dir: None, reels: None }
    }

    /// Works until the core is gone or `stop` is set.
    pub(super) fn run(mut self, work: &Receiver<SpoolEffect>, inbox: &Inbox, stop: &AtomicBool) {
        let mut queue = VecDeque::new();
        loop {
            queue.extend(work.try_iter());
            if let Some(reels) = &self.reels
                && reels.tell_alerts(inbox).is_err()
            {
                return;
            }
            let Some(effect) = queue.pop_front() else {
                match self.rest(work, inbox) {
                    Ok(effect) => queue.extend(effect),
                    Err(CoreEnded) => return,
                }
                continue;
            };
            if stop.load(Ordering::Relaxed) || self.work(effect, inbox).is_err() {
                return;
            }
        }
    }

    /// Nothing is to be done: a burst ends, reels that are missing are looked for, until something is.
    fn rest(
        &mut self,
        work: &Receiver<SpoolEffect>,
        inbox: &Inbox,
    ) -> Result<Option<SpoolEffect>, CoreEnded> {
        let Some(reels) = &mut self.reels else { return work.recv().map(Some).map_err(|_| CoreEnded) };
        reels.finish(&Reach { layout: &self.layout, inbox })?;
        match work.recv_timeout(reels.wait()) {
            Ok(effect) => Ok(Some(effect)),
            Err(RecvTimeoutError::Timeout) => reels.idle(inbox).map(|()| None),
            Err(RecvTimeoutError::Disconnected) => Err(CoreEnded),
        }
    }

    fn work(&mut self, effect: SpoolEffect, inbox: &Inbox) -> Result<(), CoreEnded> {
        match effect {
            SpoolEffect::Open { round, place, tape } => {
                let result = self.open(&place, &tape).map_err(|error| {
                    tracing::warn!("opening the spool {place}: {error}");
                    Fault::from_io(&no_errno(error))
                });
                inbox.event(SpoolEvent::Opened { round, result })
            }
            SpoolEffect::Copy { round, part } => match &mut self.reels {
                Some(reels) if self.dir.is_none() => {
                    let path = self.layout.segment(JournalKind::Replicated, part.index);
                    let read = |offset, len| read_direct(&path, offset, len);
                    reels.put((round, true), &part, read, &Reach { layout: &self.layout, inbox })
                }
                _ => {
                    let result = self.copy(&part);
                    inbox.event(SpoolEvent::Copied { round, result })
                }
            },
            SpoolEffect::Move { round, part } => match (&mut self.reels, &self.dir) {
                (Some(reels), Some(dir)) => {
                    let read = |offset, len| dir.read(&part, offset, len);
                    reels.put((round, false), &part, read, &Reach { layout: &self.layout, inbox })
                }
                _ => inbox.event(SpoolEvent::Moved { round, result: Err(Fault::Errno(libc::ENOENT)) }),
            },
            SpoolEffect::Read { read, part } => {
                if let Some(reels) = &mut self.reels
                    && self.dir.as_ref().is_none_or(|dir| !dir.holds(&part))
                {
                    if !reels.reels.is_staged(&part) {
                        // The drive does one thing at a time.
                        reels.finish(&Reach { layout: &self.layout, inbox })?;
                    }
                    return reels.read(read, part, inbox);
                }
                let ReadSegment { read, offset, len, .. } = read;
                let result = self.opened().and_then(|dir| dir.read(&part, offset, len)).map_err(|error| {
                    tracing::warn!("reading {len} bytes at {offset} of part {}: {error}", part.file_name());
                    Fault::from_io(&no_errno(error))
                });
                inbox.event(JournalEvent::Read { read, result })
            }
            SpoolEffect::Keep { place, mode } => {
                if mode == SpoolMode::Off {
                    (self.dir, self.reels) = (None, None);
                }
                let kept = note::keep(&self.layout, &self.configured, &place, mode).map_err(|error| {
                    tracing::error!("keeping the choice of the spool for the next start: {error}");
                    Fault::from_io(&no_errno(error))
                });
                inbox.event(SpoolEvent::Kept { result: kept })
            }
            SpoolEffect::Remove { part, reel } => {
                self.remove(&part, reel);
                Ok(())
            }
        }
    }

    fn remove(&mut self, part: &PartHeader, reel: bool) {
        let removed = match &mut self.reels {
            Some(desk) if reel => desk.reels.let_go(part).map_err(|error| error.to_string()),
            _ => self.opened().and_then(|dir| dir.remove(part)).map_err(|error| error.to_string()),
        };
        if let Err(error) = removed {
            tracing::warn!("letting go of part {} of the spool: {error}", part.file_name());
        }
    }

    fn opened(&self) -> io::Result<&Files> {
        self.dir.as_ref().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn open(&mut self, place: &str, tape: &str) -> io::Result<SpoolFound> {
        (self.dir, self.reels) = (None, None);
        let on_tape = place.strip_prefix(TAPE);
        let mut found = SpoolFound::default();
        if place.starts_with(FAR) {
            let far = FarSpool::of(place, self.layout.dir(), (self.pair, self.ordinal));
            let far = far.map_err(io::Error::other)?.told(Teller::new(|text| tracing::info!("{text}")));
            found = far.list()?;
            self.dir = Some(Files::There(Box::new(far)));
        } else if on_tape.is_none() {
            let dir = SpoolDir::of(place, self.pair, self.ordinal).map_err(io::Error::other)?;
            dir.make()?;
            dir.tidy()?;
            found = dir.list()?;
            if let Err(error) = dir.write_index(&found.parts) {
                // It is made again from the parts.
                tracing::warn!("writing the index of the spool {place}: {error}");
            }
            self.dir = Some(Files::Here(dir));
        }
        if let Some(tape) = on_tape.or_else(|| tape.strip_prefix(TAPE)) {
            let order = order(&self.layout, &self.tape, tape, (self.pair, self.ordinal, &self.name));
            let mut order = order.map_err(io::Error::other)?;
            let alerts = Alerts::default();
            order.options.alarm = alerts.alarm();
            let reels = ReelSpool::new(order);
            let parts = reels.list(false).map_err(|error| io::Error::other(error.to_string()))?;
            found.reels = parts.into_iter().map(|(part, _)| part.header).collect();
            self.reels = Some(TapeDesk::new(reels, alerts));
        }
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
            Ok(free) => Ok(free),
            Err(WriteError::Spool(error)) => Err(told("writing", error)),
            // The journal has let go of it meanwhile.
            Err(WriteError::Read(_) | WriteError::Segment(_)) if gone() => Err(Fault::STALE),
            Err(WriteError::Read(error)) => Err(told("reading", error)),
            Err(WriteError::Segment(error)) => {
                tracing::error!("copying {} to the spool: {error}", path.display());
                Err(Fault::UNCLEAN)
            }
            Err(WriteError::Tape(error)) => Err(told("reels", io::Error::other(error.to_string()))),
        }
    }
}

/// The reels of a node's spool.
fn order(
    layout: &Layout,
    settings: &TapeSettings,
    place: &str,
    (pair, ordinal, node): (PairId, Ordinal, &str),
) -> Result<ReelOrder, String> {
    let mut options = TapeOptions::new(Place::parse(place)?);
    let dir = layout.dir().to_owned();
    options.dir = Some(dir.clone());
    options.changer = Some(settings.changer.clone()).filter(|changer| !changer.is_empty());
    options.allowed.blank = settings.label_blank;
    options.teller = Teller::new(|text| tracing::info!("{text}"));
    if let Some(path) = &settings.key_file {
        options.key = Some(read_key(&dir.join(path)).map_err(|error| error.to_string())?);
    }
    let reel_size = Some(settings.reel_size).filter(|size| *size > 0);
    Ok(ReelOrder { options, reel_size, pair, ordinal, node: node.to_owned(), dir })
}

/// Sixteen bytes of hexadecimal text; what is none is zero.
fn sixteen(text: &str) -> [u8; 16] {
    u128::from_str_radix(text, 16).unwrap_or_default().to_be_bytes()
}

/// Reels on which the node in a directory writes a round to be carried: as its config says, and beside that the options.
///
/// # Errors
/// In words: the config cannot be read, the place is none, or the key cannot be read.
pub fn reels_for_round(
    dir: &Path,
    options: &TapeOptions,
    reel_size: Option<u64>,
) -> Result<ReelOrder, String> {
    let config = Config::load(dir).map_err(|errors| errors.to_string())?;
    let engine = &config.engine;
    let whose = (engine.pair, engine.ordinal, engine.name.as_str());
    let name = options.place.name();
    let place = name.strip_prefix(TAPE).unwrap_or(&name);
    let mut order = order(&Layout::new(dir), &config.tape, place, whose)?;
    order.options.wait = options.wait;
    order.options.teller = options.teller.clone();
    order.options.alarm = options.alarm.clone();
    order.options.allowed.blank |= options.allowed.blank;
    order.options.changer = options.changer.clone().or(order.options.changer);
    order.reel_size = reel_size.or(order.reel_size);
    Ok(order)
}

/// The reels of a pair's spools at a place, to be read, by whichever of its nodes they were written.
#[must_use]
pub fn reels_of_pair(options: &TapeOptions, pair: PairId) -> [ReelSpool; 2] {
    [Ordinal(0), Ordinal(1)].map(|ordinal| {
        let (options, dir) = (options.clone(), std::env::temp_dir());
        ReelSpool::new(ReelOrder { options, reel_size: None, pair, ordinal, node: String::new(), dir })
    })
}

/// Reels that are named by hand, of the node in a directory.
///
/// # Errors
/// In words: the config cannot be read, the place is none, or the key cannot be read.
pub fn reels_at(dir: &Path, place: &str) -> Result<ReelSpool, String> {
    let config = Config::load(dir).map_err(|errors| errors.to_string())?;
    let engine = &config.engine;
    let whose = (engine.pair, engine.ordinal, engine.name.as_str());
    let place = place.strip_prefix(TAPE).unwrap_or(place);
    order(&Layout::new(dir), &config.tape, place, whose).map(ReelSpool::new)
}

/// Parts on another machine, of the node in a directory.
///
/// # Errors
/// In words: the config cannot be read, or the place is none.
pub fn far_at(dir: &Path, place: &str) -> Result<FarSpool, String> {
    let config = Config::load(dir).map_err(|errors| errors.to_string())?.engine;
    FarSpool::of(place, dir, (config.pair, config.ordinal))
}

/// The spool of the node in a directory, whether it runs or not; none if it has none.
///
/// # Errors
/// In words: the config cannot be read, or names something else.
pub fn of_dir(dir: &Path) -> Result<Option<PartStore>, String> {
    let config = Config::load(dir).map_err(|errors| errors.to_string())?.engine;
    let chosen = note::chosen(&Layout::new(dir), &config.spool);
    if chosen.place.is_empty() {
        return Ok(None);
    }
    let tape = if chosen.is_tape() { Some(chosen.place.as_str()) } else { chosen.second() };
    let reels = tape.map(|place| reels_at(dir, place)).transpose()?;
    if chosen.is_far() {
        return Ok(Some(PartStore { far: Some(far_at(dir, &chosen.place)?), dir: None, reels }));
    }
    let on_disk = (!chosen.is_tape()).then(|| SpoolDir::of(&chosen.place, config.pair, config.ordinal));
    Ok(Some(PartStore { dir: on_disk.transpose()?, far: None, reels }))
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

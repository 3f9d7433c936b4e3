//! The places that hold what came after a save: directories and reels of spools, and the journals of nodes, running or not.
//! Together they are one history (`src/engine/sync/past.rs`).
//!
//! All that is wanted of it is read once before anything is done with it: so what is damaged, missing, or of another history
//! is told before anything changes.

use super::layout::Layout;
use super::queue::{DiskQueue, QueueError};
use super::spool::{BadPart, ReelSpool, SpoolDir, Unread, reels_of_pair};
use super::tape::TapeOptions;
use crate::base::{Position, Seq, shown};
pub use crate::engine::Until;
use crate::engine::{Apart, Past, Span, Taken, Unlinked, is_same, link};
use crate::format::PairId;
use crate::format::batch::Batch;
use crate::format::spool::PartHeader;
use crate::tape::PartHeld;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Where a piece of a history is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PastSource {
    /// A directory with parts of a spool.
    Spool(PathBuf),
    /// The replicated journal of the node in this directory.
    Journal(PathBuf),
    /// Reels with parts of a spool.
    Reels(Box<TapeOptions>),
}

/// Why there is no such history.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PastError {
    /// A directory cannot be read.
    #[error("reading {what}: {source}")]
    Io {
        /// Which.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// A journal cannot be read.
    #[error(transparent)]
    Journal(#[from] QueueError),
    /// What is there is not what was written.
    #[error("reading {what}: it is damaged: {why}")]
    Damaged {
        /// The part.
        what: String,
        /// How it was seen.
        why: String,
    },
    /// Of another pair.
    #[error("reading {what}: it is of pair {found}, not of pair {wanted}")]
    OtherPair {
        /// Where.
        what: String,
        /// Its pair.
        found: PairId,
        /// The one of the save.
        wanted: PairId,
    },
    /// Entries are in none of the sources.
    #[error("entries {from} to {to}, which come after the save, are in none of the sources")]
    Gap {
        /// The first.
        from: Seq,
        /// The last.
        to: Seq,
    },
    /// Histories that parted.
    #[error("{what} does not continue the save: {why}")]
    Branch {
        /// The source.
        what: String,
        /// How it was seen.
        why: String,
    },
    /// They end before what was asked for.
    #[error("the sources end with entry {end}, before entry {wanted}")]
    Short {
        /// The last entry.
        end: Seq,
        /// The one that was asked for.
        wanted: Seq,
    },
}

impl PastError {
    /// What to do next, for people.
    #[must_use]
    pub fn next(&self) -> String {
        let text = match self {
            Self::Io { .. } => "check the path and its owner",
            Self::Journal(error) => return error.next(),
            Self::Damaged { .. } => {
                "give an --until before the damage (`hot-backup spool verify` names the entries), or a journal that has \
                 them still"
            }
            Self::OtherPair { .. } => "give sources of one pair",
            Self::Gap { .. } => {
                "add --from with what has them: the spool of the other node, a newer save, or the directory of a node whose \
                 journal still reaches back"
            }
            Self::Branch { .. } => {
                "one of the two holds entries that the pair gave up at a takeover: give a save of the history that the pair \
                 kept, and the spools of both nodes"
            }
            Self::Short { .. } => {
                "what is newest is in the journal: add --from with the node's directory; or give an earlier --until"
            }
        };
        text.to_owned()
    }

    /// Whether all could be read, and is not what is needed.
    #[must_use]
    pub fn is_no(&self) -> bool {
        match self {
            Self::Io { .. } => false,
            Self::Journal(error) => error.is_damage(),
            _ => true,
        }
    }
}

/// A history that was read once: so much comes after a save.
#[derive(Clone, Debug)]
pub struct Found {
    /// The piece and where it is left, in order.
    line: Vec<(Piece, Option<Position>)>,
    pair: PairId,
    start: Position,
    /// The last entry that is wanted.
    pub end: Position,
    /// When it was written (ms since 1970); 0 if nothing comes after the save.
    pub wall_ms: u64,
    /// Batches, and their bytes.
    pub batches: u64,
    /// The same in bytes.
    pub bytes: u64,
    /// What comes behind: first entry, last one of the same batch, and when they were written.
    pub behind: Option<(Seq, Seq, u64)>,
}

#[derive(Clone, Debug)]
enum Piece {
    Part(SpoolDir, Box<PartHeader>),
    /// With the name of its place.
    Reel(Arc<Mutex<ReelSpool>>, Box<PartHeader>, String),
    Journal(PathBuf, Span),
}

#[derive(Default)]
struct Pieces {
    pieces: Vec<Piece>,
    damaged: Vec<(Seq, String, String)>,
}

impl Pieces {
    /// The part that cannot be read and would be needed behind this entry.
    fn damaged_behind(&self, at: Seq) -> Option<PastError> {
        let (_, what, why) = self.damaged.iter().filter(|(first, ..)| *first > at).min()?;
        Some(PastError::Damaged { what: what.clone(), why: why.clone() })
    }
}

/// Why a walk ended early.
enum Stop<E> {
    Past(PastError),
    /// Nothing more is wanted.
    Enough,
    Caller(E),
}

impl Piece {
    fn name(&self) -> String {
        match self {
            Self::Part(dir, part) => format!("part {} in {}", part.file_name(), dir.path().display()),
            Self::Reel(_, part, place) => format!("part {} on {place}", part.file_name()),
            Self::Journal(dir, _) => format!("the journal of {}", dir.display()),
        }
    }

    fn span(&self) -> Span {
        match self {
            Self::Part(_, part) | Self::Reel(_, part, _) => Span { base: part.base, end: part.end },
            Self::Journal(_, span) => *span,
        }
    }

    /// Gives its batches in order, those before `from` as far as that costs nothing.
    fn walk<E>(&self, from: Seq, mut each: impl FnMut(&Batch) -> Result<(), Stop<E>>) -> Result<(), Stop<E>> {
        let mut stopped = None;
        match self {
            Self::Part(dir, part) => {
                let walked = dir.walk(&part.file_name(), |_, batch| {
                    each(&batch).map_err(|stop| {
                        stopped = Some(stop);
                        BadPart { why: String::new(), good_to: None }
                    })
                });
                let bad = |bad: BadPart| PastError::Damaged { what: self.name(), why: bad.why };
                match (stopped, walked) {
                    (Some(stop), _) => Err(stop),
                    (None, walked) => walked.map(drop).map_err(|error| Stop::Past(bad(error))),
                }
            }
            Self::Reel(reels, part, _) => {
                let mut reels = reels.lock().unwrap_or_else(PoisonError::into_inner);
                let walked = reels.bring(part).and_then(|()| {
                    reels.walk(part, |batch| {
                        each(&batch).map_err(|stop| {
                            stopped = Some(stop);
                            BadPart { why: String::new(), good_to: None }
                        })
                    })
                });
                match (stopped, walked) {
                    (Some(stop), _) => Err(stop),
                    (None, walked) => walked.map_err(|error| Stop::Past(unread(error, self.name()))),
                }
            }
            Self::Journal(dir, _) => {
                let queue = DiskQueue::open(dir).map_err(|error| Stop::Past(error.into()))?;
                let walked =
                    queue.walk(from, |batch| each(batch).map_err(|stop| stopped = Some(stop)).is_ok());
                match (stopped, walked) {
                    (Some(stop), _) => Err(stop),
                    (None, walked) => walked.map(drop).map_err(|error| Stop::Past(error.into())),
                }
            }
        }
    }

    /// Whether one of its batches ends at a position.
    fn holds(&self, at: Position) -> Result<bool, PastError> {
        let mut holds = false;
        let walked = self.walk::<()>(at.seq, |batch| {
            holds |= is_same(batch.end(), at);
            if batch.header().last_seq() < at.seq { Ok(()) } else { Err(Stop::Enough) }
        });
        match walked {
            Err(Stop::Past(error)) => Err(error),
            _ => Ok(holds),
        }
    }
}

impl PastSource {
    /// What a directory on the command line is; none if it is neither.
    #[must_use]
    pub fn of(dir: &Path) -> Option<Self> {
        if Layout::new(dir).config().exists() {
            return Some(Self::Journal(dir.to_owned()));
        }
        spool_dirs(dir).is_ok_and(|dirs| !dirs.is_empty()).then(|| Self::Spool(dir.to_owned()))
    }

    /// How it is called in messages.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Spool(dir) => format!("the spool in {}", dir.display()),
            Self::Reels(options) => format!("the spool on {}", options.place.name()),
            Self::Journal(dir) => format!("the journal of {}", dir.display()),
        }
    }

    /// Adds its pieces, and the parts that cannot be read: the first entry by their names, which part, and why.
    fn pieces(&self, pair: PairId, all: &mut Pieces) -> Result<(), PastError> {
        match self {
            Self::Spool(dir) => {
                let failed = |source| PastError::Io { what: self.name(), source };
                for dir in spool_dirs(dir).map_err(failed)? {
                    let dir = SpoolDir::at(dir);
                    let found = dir.list().map_err(failed)?;
                    for (name, why) in found.damaged {
                        let first = name.split('-').next().and_then(|first| first.parse().ok());
                        let what = format!("part {name} in {}", dir.path().display());
                        all.damaged.push((Seq(first.unwrap_or(u64::MAX)), what, why));
                    }
                    if let Some(other) = found.parts.iter().find(|part| part.pair != pair) {
                        let (what, found) = (dir.path().display().to_string(), other.pair);
                        return Err(PastError::OtherPair { what, found, wanted: pair });
                    }
                    let part = |part| Piece::Part(dir.clone(), Box::new(part));
                    all.pieces.extend(found.parts.into_iter().map(part));
                }
            }
            Self::Reels(options) => {
                let failed = |why: String| PastError::Io { what: self.name(), source: io::Error::other(why) };
                let before = all.pieces.len();
                for reels in reels_of_pair(options, pair) {
                    let held = reels.list(true).map_err(|error| failed(error.to_string()))?;
                    let place = reels.name();
                    let reels = Arc::new(Mutex::new(reels));
                    let part = |(part, _): &(PartHeld, u32)| {
                        Piece::Reel(Arc::clone(&reels), Box::new(part.header), place.clone())
                    };
                    all.pieces.extend(held.iter().map(part));
                }
                if all.pieces.len() == before {
                    let why = "its catalogue knows no part of a spool of this pair (hot-backup tape list --scan makes it anew)";
                    return Err(failed(why.to_owned()));
                }
            }
            Self::Journal(dir) => {
                let span = journal_span(dir, pair)?;
                all.pieces.extend(span.map(|span| Piece::Journal(dir.clone(), span)));
            }
        }
        Ok(())
    }
}

fn unread(unread: Unread, what: String) -> PastError {
    match unread {
        Unread::Bad(bad) => PastError::Damaged { what, why: bad.why },
        Unread::Waits(error) => PastError::Io { what, source: io::Error::other(error.to_string()) },
        Unread::Failed(source) => PastError::Io { what, source },
    }
}

/// The directory itself if it holds parts, else those in it that do: a spool has one for each node of each pair.
fn spool_dirs(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let has_parts = |dir: &Path| -> io::Result<bool> {
        let mut names = std::fs::read_dir(dir)?.flatten().map(|entry| entry.path());
        Ok(names.any(|path| path.extension().is_some_and(|end| end == "hbp")))
    };
    if has_parts(dir)? {
        return Ok(vec![dir.to_owned()]);
    }
    let mut dirs = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let is_spool = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("spool-"));
        if is_spool && path.is_dir() && has_parts(&path)? {
            dirs.push(path);
        }
    }
    dirs.sort_unstable();
    Ok(dirs)
}

/// What the journal of a node holds; none if that is nothing.
fn journal_span(dir: &Path, pair: PairId) -> Result<Option<Span>, PastError> {
    let queue = DiskQueue::open(dir)?;
    let mut base = None;
    queue.walk(Seq(0), |batch| {
        let header = batch.header();
        let before = Position {
            epoch: header.epoch,
            seq: Seq(header.first_seq.0.saturating_sub(1)),
            chain: header.prev_chain,
        };
        base = Some((before, header.pair));
        false
    })?;
    let Some((base, found)) = base else { return Ok(None) };
    if found != pair {
        let what = format!("the journal of {}", dir.display());
        return Err(PastError::OtherPair { what, found, wanted: pair });
    }
    let end = queue.end()?;
    Ok(end.filter(|end| end.seq > base.seq).map(|end| Span { base, end }))
}

/// Reads what comes after a save, up to `until`.
///
/// # Errors
/// Any [`PastError`]; nothing was changed.
pub fn find(
    sources: &[PastSource],
    (pair, start): (PairId, Position),
    until: Until,
) -> Result<Found, PastError> {
    let mut all = Pieces::default();
    for source in sources {
        source.pieces(pair, &mut all)?;
    }
    // A reel that holds only what is behind the end is not asked for.
    all.pieces.retain(|piece| match (piece, until) {
        (Piece::Reel(_, part, _), Until::Entry(last)) => part.base.seq < last,
        _ => true,
    });
    let pieces = &all.pieces;
    let spans: Vec<Span> = pieces.iter().map(Piece::span).collect();
    let holds = |piece: usize, at| pieces.get(piece).map_or(Ok(false), |piece| piece.holds(at));
    let named = |piece: usize| pieces.get(piece).map(Piece::name).unwrap_or_default();
    let links = link(&spans, start, holds)?.map_err(|error| match error {
        Unlinked::Gap { from, to } => {
            all.damaged_behind(Seq(from.0 - 1)).unwrap_or(PastError::Gap { from, to })
        }
        Unlinked::Branch { piece, base } => PastError::Branch {
            what: named(piece),
            why: format!(
                "entry {} of epoch {}, which it continues, is in none of the sources",
                base.seq, base.epoch
            ),
        },
    })?;
    let piece = |(piece, cut): (usize, Option<Position>)| pieces.get(piece).map(|found| (found.clone(), cut));
    let line = links.into_iter().filter_map(piece).collect();
    let mut found = Found { line, pair, start, end: start, wall_ms: 0, batches: 0, bytes: 0, behind: None };
    let (mut batches, mut bytes) = (0, 0);
    let past = found.run(until, |batch| {
        batches += 1;
        bytes += u64::from(batch.header().len);
        Ok::<_, PastError>(())
    })?;
    (found.batches, found.bytes) = (batches, bytes);
    (found.end, found.wall_ms, found.behind) = (past.at(), past.wall_ms(), past.behind());
    let more = match until {
        Until::Entry(wanted) => found.end.seq < wanted,
        Until::End | Until::Time(_) => true,
    };
    match (found.behind, until) {
        (Some(_), _) => Ok(found),
        (None, _) if more && let Some(damaged) = all.damaged_behind(found.end.seq) => Err(damaged),
        (None, Until::Entry(wanted)) if more => Err(PastError::Short { end: found.end.seq, wanted }),
        (None, _) => Ok(found),
    }
}

impl Found {
    /// Gives every batch that is wanted, in order.
    ///
    /// # Errors
    /// Any [`PastError`]: the sources are not what they were; or what `each` says. Everything before was given.
    pub fn walk<E: From<PastError>>(&self, each: impl FnMut(&Batch) -> Result<(), E>) -> Result<(), E> {
        let past = self.run(Until::Entry(self.end.seq), each)?;
        if past.at() == self.end {
            return Ok(());
        }
        Err(PastError::Short { end: past.at().seq, wanted: self.end.seq }.into())
    }

    fn run<E: From<PastError>>(
        &self,
        until: Until,
        mut each: impl FnMut(&Batch) -> Result<(), E>,
    ) -> Result<Past, E> {
        let mut past = Past::new(self.pair, self.start, until);
        for (piece, cut) in &self.line {
            let from = past.at().seq;
            let walked = piece.walk(from, |batch| {
                if cut.is_some_and(|cut| batch.header().last_seq() > cut.seq) {
                    return Err(Stop::Enough);
                }
                match past.take(batch) {
                    Ok(Taken::Before) => Ok(()),
                    Ok(Taken::Next) => each(batch).map_err(Stop::Caller),
                    Ok(Taken::Behind) => Err(Stop::Enough),
                    Err(apart) => Err(Stop::Past(apart_of(piece, apart, self.pair))),
                }
            });
            match walked {
                Ok(()) | Err(Stop::Enough) => {}
                Err(Stop::Past(error)) => return Err(error.into()),
                Err(Stop::Caller(error)) => return Err(error),
            }
            if past.behind().is_some() {
                break;
            }
        }
        Ok(past)
    }

    /// What was left behind the end, for people; none if nothing was.
    #[must_use]
    pub fn tail(&self) -> Option<String> {
        let (first, last, wall_ms) = self.behind?;
        Some(match first == last {
            true => format!("entry {first}, of {}", shown::utc(wall_ms)),
            false => {
                format!("entries {first} to {last}, which were written as one at {}", shown::utc(wall_ms))
            }
        })
    }
}

fn apart_of(piece: &Piece, apart: Apart, wanted: PairId) -> PastError {
    match apart {
        Apart::Pair(found) => PastError::OtherPair { what: piece.name(), found, wanted },
        Apart::Gap { from, to } => PastError::Gap { from, to },
        Apart::Branch { .. } => PastError::Branch { what: piece.name(), why: apart.to_string() },
    }
}

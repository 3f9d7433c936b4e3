//! Reads the replicated journal as it lies on the disk, beside a node that may be at work, and locks nothing.
//!
//! A running node writes at the end and lets go at the beginning. So the walk takes what is whole: it ends before what is
//! being written, and begins anew when a segment went away under it.

use super::config::Config;
use super::config_file::ConfigErrors;
use super::layout::Layout;
use super::segment_source::{self, DiskSegments};
use super::setup::{self, SetupError};
use super::starting::Starting;
use crate::base::limits::{BLOCK, BLOCK_U64, READ_CHUNK};
use crate::base::{Fault, JournalKind, Position, SegmentIndex, Seq};
use crate::format::DecodeError;
use crate::format::batch::Batch;
use crate::format::segment::SegmentHeader;
use crate::journal::{RecoveryError, SegmentSource, recover_from};
use bytes::Bytes;
use std::io;
use std::sync::Arc;

const JOURNAL: JournalKind = JournalKind::Replicated;
/// So often the walk begins anew when segments go away under it.
const TRIES: u32 = 5;

/// Why the journal cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// The config is wrong.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// The directory is not a node's.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// A directory or a segment cannot be read.
    #[error("reading the journal in {dir}: {error}")]
    Read {
        /// Where it is.
        dir: String,
        /// What came back.
        error: io::Error,
    },
    /// What is there is not what was written.
    #[error(transparent)]
    Damaged(Box<Damage>),
    /// What a start would say of it.
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
}

impl QueueError {
    /// Whether the journal can be read, and is not whole.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged(_) | Self::Recovery(_))
    }

    /// What to do next, for people.
    #[must_use]
    pub fn next(&self) -> String {
        match self {
            Self::Config(errors) => errors.next(),
            Self::Setup(error) => error.next(),
            Self::Read { .. } => "run this as the node's own user; check the disk (`dmesg`)".to_owned(),
            Self::Damaged(_) | Self::Recovery(_) => {
                "keep the directory; check the disk (`dmesg`); a node that cannot be mended is made anew, as the standby \
                 of its peer"
                    .to_owned()
            }
        }
    }
}

/// Where the chain breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "segment {segment} of the replicated journal is damaged at byte {offset}, behind entry {after}: {why}"
)]
pub struct Damage {
    /// The segment.
    pub segment: SegmentIndex,
    /// Where in it.
    pub offset: u64,
    /// The last entry that is whole.
    pub after: Seq,
    /// How it was seen.
    pub why: String,
}

/// What a walk found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Walked {
    /// The first entry that is there; 0 if there is none.
    pub first: u64,
    /// The last one.
    pub last: u64,
    /// Batches.
    pub batches: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Segments that hold history.
    pub segments: u64,
}

/// A segment on the disk.
#[derive(Clone, Copy, Debug)]
struct Segment {
    index: SegmentIndex,
    bytes: u64,
    base: Position,
}

/// A journal on the disk.
pub struct DiskQueue {
    layout: Layout,
    config: Config,
}

enum Stop {
    /// A segment went away: the node let go of it.
    Moved,
    Failed(QueueError),
}

impl DiskQueue {
    /// Of the node in `dir`.
    ///
    /// # Errors
    /// It is not a node's directory.
    pub fn open(dir: &std::path::Path) -> Result<Self, QueueError> {
        let layout = Layout::new(dir);
        let config = Config::load(dir)?;
        Ok(Self { layout, config })
    }

    fn read_error(&self, error: io::Error) -> QueueError {
        QueueError::Read { dir: self.layout.journal(JOURNAL).display().to_string(), error }
    }

    /// Walks all batches that hold entries from `from` on, in order, and gives each to `take` until that says false. Every
    /// batch is held to its checksum, and to the chain of those before it.
    ///
    /// # Errors
    /// Any [`QueueError`].
    pub fn walk(&self, from: Seq, mut take: impl FnMut(&Batch) -> bool) -> Result<Walked, QueueError> {
        self.walk_to_end(from, &mut take).map(|walk| walk.found)
    }

    /// Where the history on the disk ends; none if there is none. Reads the last segment only.
    ///
    /// # Errors
    /// Any [`QueueError`].
    pub fn end(&self) -> Result<Option<Position>, QueueError> {
        self.walk_to_end(Seq(u64::MAX), &mut |_| true).map(|walk| walk.at)
    }

    fn walk_to_end(&self, from: Seq, take: &mut impl FnMut(&Batch) -> bool) -> Result<Walk, QueueError> {
        let mut from = from;
        let mut tries = 0;
        loop {
            let mut so_far = from;
            let walked = self.walk_once(from, &mut |batch| {
                so_far = batch.header().last_seq().next();
                take(batch)
            });
            match walked {
                Ok(walk) => return Ok(walk),
                Err(Stop::Failed(error)) => return Err(error),
                Err(Stop::Moved) if tries < TRIES => {
                    (from, tries) = (so_far, tries + 1);
                }
                Err(Stop::Moved) => {
                    let gone = io::Error::other("segments go away faster than they can be read");
                    return Err(self.read_error(gone));
                }
            }
        }
    }

    /// The verdict of a start on the journal, which takes a node that does not run.
    ///
    /// # Errors
    /// Any [`QueueError`].
    pub fn recover(&self) -> Result<(), QueueError> {
        let control = setup::load_control(&self.layout, &self.config)?;
        let files = segment_source::list(&self.layout, JOURNAL).map_err(|error| self.read_error(error))?;
        let mut source = self.source(&files)?;
        let (pair, ordinal) = (self.config.engine.pair, self.config.engine.ordinal);
        recover_from(&control.origin, JOURNAL, pair, ordinal, &files, &mut source)?;
        Ok(())
    }

    fn source(&self, files: &[(SegmentIndex, u64)]) -> Result<DiskSegments, QueueError> {
        let starting = Arc::new(Starting::new());
        DiskSegments::new(&self.layout, JOURNAL, files, &starting).map_err(|error| self.read_error(error))
    }

    fn walk_once(&self, from: Seq, take: &mut impl FnMut(&Batch) -> bool) -> Result<Walk, Stop> {
        let files = segment_source::list(&self.layout, JOURNAL)
            .map_err(|error| Stop::Failed(self.read_error(error)))?;
        let mut source = self.source(&files).map_err(Stop::Failed)?;
        let mut segments: Vec<Segment> = Vec::new();
        for (index, bytes) in files {
            let block = self.read(&mut source, (index, 0), BLOCK)?;
            // One that is made ahead has no header yet.
            let Ok(header) = SegmentHeader::decode(&block) else { continue };
            if header.pair == self.config.engine.pair && header.journal == JOURNAL && header.index == index {
                segments.push(Segment { index, bytes, base: header.base });
            }
        }
        // What a later segment's base does not reach was cut.
        let mut cut = None;
        let mut plan = Vec::new();
        for segment in segments.into_iter().rev() {
            let below = cut.is_none_or(|cut: Position| segment.base.seq <= cut.seq);
            if below {
                plan.push((segment, cut));
                cut = Some(segment.base);
            }
        }
        let mut walk = Walk { at: None, found: Walked::default(), from };
        for (segment, cut) in plan.into_iter().rev() {
            // All of it is before what is wanted.
            if cut.is_some_and(|cut| cut.seq < from) {
                continue;
            }
            if !self.walk_segment(&mut source, &mut walk, segment, cut, take)? {
                break;
            }
        }
        Ok(walk)
    }

    fn read(
        &self,
        source: &mut DiskSegments,
        (segment, offset): (SegmentIndex, u64),
        len: usize,
    ) -> Result<Bytes, Stop> {
        const ENOENT: i32 = 2;
        source.read(segment, offset, len).map_err(|fault| match fault {
            Fault::Errno(ENOENT) => Stop::Moved,
            fault => Stop::Failed(self.read_error(io::Error::other(fault.to_string()))),
        })
    }

    /// False if nothing more is wanted.
    fn walk_segment(
        &self,
        source: &mut DiskSegments,
        walk: &mut Walk,
        segment: Segment,
        cut: Option<Position>,
        take: &mut impl FnMut(&Batch) -> bool,
    ) -> Result<bool, Stop> {
        let index = segment.index;
        let damaged = |offset, after, why: String| {
            let damage = Damage { segment: index, offset, after, why };
            Err(Stop::Failed(QueueError::Damaged(Box::new(damage))))
        };
        if walk.at.is_some_and(|at| at != segment.base) {
            return damaged(0, segment.base.seq, "it continues another history".to_owned());
        }
        walk.found.segments += 1;
        let (mut at, mut offset) = (segment.base, BLOCK_U64);
        loop {
            if cut.is_some_and(|cut| cut.seq <= at.seq) {
                break;
            }
            let next = match self.batch_at(source, (index, offset), segment.bytes)? {
                Ok(batch) => continues(&at, batch, self.config.engine.pair),
                Err(error) => Err(error),
            };
            let batch = match next {
                Ok(batch) => batch,
                // The end of the journal: what stands there is being written, or of an earlier life of the file.
                Err(_) if cut.is_none() => break,
                Err(_) if self.is_gone(index) => return Err(Stop::Moved),
                Err(error) => return damaged(offset, at.seq, error.to_string()),
            };
            offset += batch.header().padded_len() as u64;
            if batch.header().mark {
                continue;
            }
            at = batch.end();
            if walk.takes(&batch) && !take(&batch) {
                return Ok(false);
            }
        }
        if cut.is_some_and(|cut| cut != at) {
            return damaged(offset, at.seq, "the next segment continues another history".to_owned());
        }
        walk.at = Some(at);
        Ok(true)
    }

    fn is_gone(&self, segment: SegmentIndex) -> bool {
        let files = segment_source::list(&self.layout, JOURNAL).unwrap_or_default();
        !files.iter().any(|(index, _)| *index == segment)
    }

    fn batch_at(
        &self,
        source: &mut DiskSegments,
        (segment, offset): (SegmentIndex, u64),
        bytes: u64,
    ) -> Result<Result<Batch, DecodeError>, Stop> {
        let mut want = READ_CHUNK;
        loop {
            if offset >= bytes {
                return Ok(Err(DecodeError::Short { what: "segment", needed: BLOCK, found: 0 }));
            }
            let chunk = self.read(source, (segment, offset), want)?;
            match Batch::from_disk(&chunk) {
                Err(DecodeError::Short { needed, .. }) if needed > want => {
                    want = needed.next_multiple_of(BLOCK);
                }
                other => return Ok(other),
            }
        }
    }
}

struct Walk {
    /// Where the segment before ended.
    at: Option<Position>,
    found: Walked,
    from: Seq,
}

impl Walk {
    /// Counts a batch, if it is wanted.
    fn takes(&mut self, batch: &Batch) -> bool {
        let header = batch.header();
        if header.last_seq() < self.from {
            return false;
        }
        let found = &mut self.found;
        if found.first == 0 {
            found.first = header.first_seq.0;
        }
        found.last = header.last_seq().0;
        found.batches += 1;
        found.bytes += u64::from(header.len);
        true
    }
}

fn continues(at: &Position, batch: Batch, pair: crate::format::PairId) -> Result<Batch, DecodeError> {
    let h = batch.header();
    let differ = |what, expected, found| Err(DecodeError::Field { what, expected, found });
    if h.pair != pair || h.journal != JOURNAL {
        return differ("batch of this pair and journal", 1, 0);
    }
    if h.first_seq != at.seq.next() {
        return differ("batch first seq", at.seq.0 + 1, h.first_seq.0);
    }
    if h.prev_chain != at.chain {
        return differ("batch history checksum", at.chain.0, h.prev_chain.0);
    }
    Ok(batch)
}

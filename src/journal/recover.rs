//! Walks the segments found on disk and decides what the history is.
//!
//! The table below is the whole decision; `tests::the_table` walks it row by row.
//!
//! | # | what is found | decision |
//! |---|---|---|
//! | 1 | no segment, or only ones without a header and without any batch | the history is empty |
//! | 2 | a segment without a valid header that holds nothing by which row 3 applies | unused: it was made ahead, or its first write tore |
//! | 3 | a segment without a valid header that holds proof, as in row 7, of something beyond the end of the history, or that is older than the oldest one and holds what comes before that | damaged: refuse |
//! | 4 | a header of another pair, journal or number | foreign: refuse |
//! | 5 | batches follow each other up to the end of the last segment's content | the end of the history |
//! | 6 | the last segment goes bad and nothing behind proves that the bad part was durable | torn tail: the history ends before it |
//! | 7 | the last segment goes bad, and a mark, a batch of an epoch of this node, or any batch so far behind it that it was written later says that the bad part was durable here | damaged: refuse, name the range |
//! | 8 | a segment goes bad before the base of a later segment | damaged: refuse, name the range |
//! | 9 | a later segment's base lies inside an earlier segment, at a batch boundary with the same checksum | what is beyond it is cut |
//! | 10 | the same, but there is no such boundary | damaged: refuse |
//! | 11 | a later segment begins beyond the end of what is before it | a segment is missing: refuse |
//! | 12 | a read fails | refuse: nothing can be decided |
//!
//! A segment may have been used before, see [`super::JournalOp::Remove`]: what it holds of its earlier life ends at or
//! before the base in its header, and so never counts. It cannot continue the history, and proves nothing by row 7,
//! which asks for something beyond that base.
//!
//! Why a batch proves something only in an epoch of this node (row 7): the batch's `durable` is about the disk of
//! the node that sealed it. A standby writes several received batches at once, so on its disk a batch may be whole
//! although the one before it tore; of its own disk only its own marks speak, and places: two writes at most are under
//! way, both short if they are two, so what begins further behind a bad part than both reach was written when the bad part
//! was durable.

use crate::base::limits::{BATCH_MAX, BLOCK, BLOCK_U64, GROUP_MAX, READ_CHUNK};
use crate::base::{Fault, JournalKind, Ordinal, Position, SegmentIndex, Seq};
use crate::format::batch::{Batch, BatchHeader};
use crate::format::control::{EpochMark, Origin};
use crate::format::segment::SegmentHeader;
use crate::format::{DecodeError, PairId};
use bytes::Bytes;
use std::collections::VecDeque;

/// Batch ends remembered, so that a tail can be cut at one of them.
pub(super) const ENDS_KEPT: usize = 4096;

/// Reads of segments during recovery.
pub trait SegmentSource {
    /// Up to `len` bytes of a segment from `offset` (block aligned); fewer only at its end.
    ///
    /// # Errors
    /// The fault of the read.
    fn read(&mut self, segment: SegmentIndex, offset: u64, len: usize) -> Result<Bytes, Fault>;
}

/// A segment that belongs to the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentInfo {
    /// Its number.
    pub index: SegmentIndex,
    /// Its size (bytes).
    pub bytes: u64,
    /// Where the history stood before it.
    pub base: Position,
    /// Where the history stands after its last batch that counts.
    pub end: Position,
    /// Offset after that batch.
    pub used: u64,
    /// Whether the file may become another segment once it was released: all that it holds is history up to `end`. So
    /// it is if this process began it, no write to it failed, and nothing of it was cut.
    pub reusable: bool,
}

/// A journal as recovery found it. Nothing was written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Segments of the history, in order.
    pub segments: Vec<SegmentInfo>,
    /// Segment files of which nothing counts; to be deleted.
    pub unused: Vec<SegmentIndex>,
    /// End of the history.
    pub end: Position,
    /// The highest durable head that a batch or mark here tells of its writer.
    pub announced: Seq,
    /// Where each epoch begins, as far as the segments reach.
    pub epochs: Vec<EpochMark>,
    /// The newest ends of batches, oldest first.
    pub ends: VecDeque<Position>,
    /// The lowest segment number never used here.
    pub next_index: u64,
    /// Where the last segment has the head of a batch whose rest is torn, if it has.
    pub torn: Option<u64>,
}

impl Recovered {
    /// Holds the journal against the store. Only what is durable in the journal is ever applied, so a store that is
    /// ahead proves that the journal lost entries at its end (rot there looks like a torn tail, row 6).
    ///
    /// # Errors
    /// [`RecoveryError::Behind`].
    pub fn check_applied(&self, journal: JournalKind, applied: Seq) -> Result<(), RecoveryError> {
        let end = self.end.seq;
        if applied > end { Err(RecoveryError::Behind { journal, end, applied }) } else { Ok(()) }
    }
}

/// Why a journal cannot be used as it is. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecoveryError {
    /// A segment of something else.
    #[error("segment {segment} of the {} journal belongs to another {what}", journal.name())]
    Foreign {
        /// The journal.
        journal: JournalKind,
        /// The segment.
        segment: SegmentIndex,
        /// Pair, journal or segment number.
        what: &'static str,
    },
    /// Entries that were durable cannot be read back.
    #[error(
        "segment {segment} of the {} journal is damaged at byte {offset}: entry {first} and following, which were \
         durable, cannot be read ({why})", journal.name()
    )]
    Damaged {
        /// The journal.
        journal: JournalKind,
        /// The segment.
        segment: SegmentIndex,
        /// Where in it.
        offset: u64,
        /// The first entry that is missing.
        first: Seq,
        /// How it was seen.
        why: String,
    },
    /// A segment is missing.
    #[error("entries {first} to {last} of the {} journal are missing before segment {segment}", journal.name())]
    Missing {
        /// The journal.
        journal: JournalKind,
        /// The segment after the hole.
        segment: SegmentIndex,
        /// First missing entry.
        first: Seq,
        /// Last missing entry.
        last: Seq,
    },
    /// The journal ends before what the store shows.
    #[error(
        "the {} journal ends at entry {end}, but the store shows entry {applied}: it was damaged or set back",
        journal.name()
    )]
    Behind {
        /// The journal.
        journal: JournalKind,
        /// Its last entry.
        end: Seq,
        /// The last entry in the store.
        applied: Seq,
    },
    /// A read failed.
    #[error("reading segment {segment} of the {} journal at byte {offset}: {fault}", journal.name())]
    Read {
        /// The journal.
        journal: JournalKind,
        /// The segment.
        segment: SegmentIndex,
        /// Where in it.
        offset: u64,
        /// What came back.
        fault: Fault,
    },
}

/// As [`recover`], of a history that begins at `origin`: segments below its first one are of another history, and unused.
/// Where it has no segment yet, it ends where it begins.
///
/// # Errors
/// Any [`RecoveryError`].
pub fn recover_from(
    origin: &Origin,
    journal: JournalKind,
    pair: PairId,
    ordinal: Ordinal,
    files: &[(SegmentIndex, u64)],
    source: &mut dyn SegmentSource,
) -> Result<Recovered, RecoveryError> {
    let (others, own): (Vec<_>, Vec<_>) =
        files.iter().copied().partition(|(index, _)| *index < origin.first_segment);
    let mut found = walk_all((journal, pair, ordinal), &own, source, origin.at)?;
    found.unused.extend(others.iter().map(|(index, _)| *index));
    let used = others.iter().map(|(index, _)| index.0 + 1).max().unwrap_or(1);
    found.next_index = found.next_index.max(used).max(origin.first_segment.0);
    Ok(found)
}

/// Walks `files` (number and size, in any order) and decides by the table at the head of this module.
///
/// # Errors
/// Any [`RecoveryError`]; nothing is ever written, so calling it again gives the same answer (I-07).
pub fn recover(
    journal: JournalKind,
    pair: PairId,
    ordinal: Ordinal,
    files: &[(SegmentIndex, u64)],
    source: &mut dyn SegmentSource,
) -> Result<Recovered, RecoveryError> {
    walk_all((journal, pair, ordinal), files, source, Position::default())
}

/// `start` is where a history stands that has no segment yet.
fn walk_all(
    (journal, pair, ordinal): (JournalKind, PairId, Ordinal),
    files: &[(SegmentIndex, u64)],
    source: &mut dyn SegmentSource,
    start: Position,
) -> Result<Recovered, RecoveryError> {
    let out = Recovered { end: start, announced: start.seq, ..Recovered::default() };
    let mut walk = Walk { journal, pair, ordinal, source, out };
    let mut files = files.to_vec();
    files.sort_unstable();
    walk.out.next_index = files.last().map_or(1, |(index, _)| index.0 + 1);
    let mut headers = Vec::new();
    let mut headless = Vec::new();
    for &(index, bytes) in &files {
        match walk.header(index)? {
            Ok(header) => headers.push((index, bytes, header.base)),
            Err(error) => headless.push((index, bytes, error)),
        }
    }
    // The lowest base of any later segment: what is beyond it in this one no longer counts.
    let mut cut_by: Option<Position> = None;
    let mut plan = Vec::new();
    for &(index, bytes, base) in headers.iter().rev() {
        plan.push((index, bytes, base, cut_by));
        if cut_by.is_none_or(|cut| base.seq < cut.seq) {
            cut_by = Some(base);
        }
    }
    for (index, bytes, base, cut) in plan.into_iter().rev() {
        walk.segment(index, bytes, base, cut)?;
    }
    for (index, bytes, error) in headless {
        let oldest = headers.first().filter(|(first, ..)| index < *first).map(|(.., base)| base.seq);
        walk.headless(index, bytes, oldest, &error)?;
    }
    Ok(walk.out)
}

struct Walk<'a> {
    journal: JournalKind,
    pair: PairId,
    ordinal: Ordinal,
    source: &'a mut dyn SegmentSource,
    out: Recovered,
}

impl Walk<'_> {
    fn read(&mut self, segment: SegmentIndex, offset: u64, len: usize) -> Result<Bytes, RecoveryError> {
        let journal = self.journal;
        self.source.read(segment, offset, len).map_err(|fault| RecoveryError::Read {
            journal,
            segment,
            offset,
            fault,
        })
    }

    fn damaged(&self, segment: SegmentIndex, offset: u64, first: Seq, why: String) -> RecoveryError {
        RecoveryError::Damaged { journal: self.journal, segment, offset, first, why }
    }

    /// Row 4; the inner error says why there is no header.
    fn header(&mut self, index: SegmentIndex) -> Result<Result<SegmentHeader, DecodeError>, RecoveryError> {
        let block = self.read(index, 0, BLOCK)?;
        let header = match SegmentHeader::decode(&block) {
            Ok(header) => header,
            Err(error) => return Ok(Err(error)),
        };
        let what = if header.pair != self.pair {
            "pair"
        } else if header.journal != self.journal {
            "journal"
        } else if header.index != index {
            "segment number"
        } else {
            return Ok(Ok(header));
        };
        Err(RecoveryError::Foreign { journal: self.journal, segment: index, what })
    }

    /// Rows 1 to 3, when the end of the history is known; `oldest` is where the oldest segment with a header begins, if
    /// this one is older.
    fn headless(
        &mut self,
        index: SegmentIndex,
        bytes: u64,
        oldest: Option<Seq>,
        error: &DecodeError,
    ) -> Result<(), RecoveryError> {
        let found = match oldest {
            // One that is made ahead, or opened in vain, is removed before any that holds history.
            Some(base) => self.find(index, bytes, BLOCK_U64, |_, h| h.last_seq() <= base)?,
            None => self.find(index, bytes, BLOCK_U64, self.proof(BLOCK_U64, self.out.end.seq.next()))?,
        };
        match found {
            None => self.out.unused.push(index),
            Some((_, found)) => return Err(self.damaged(index, 0, found.first_seq, error.to_string())),
        }
        Ok(())
    }

    /// Whether a batch or mark at some place says that `missing`, of which there is only a bad part at `bad`, was durable
    /// on this node.
    fn proof(&self, bad: u64, missing: Seq) -> impl Fn(u64, &BatchHeader) -> bool + use<> {
        let (journal, ordinal) = (self.journal, self.ordinal);
        let later = bad + 2 * GROUP_MAX as u64;
        move |at, h| {
            let own = journal == JournalKind::Local || h.epoch.0 & 1 == u64::from(ordinal.0 & 1);
            match h.mark {
                true => h.last_seq() >= missing,
                false => h.first_seq > missing && (own && h.durable >= missing || at >= later),
            }
        }
    }

    /// The first valid batch or mark of this pair and journal at or after `offset` that satisfies `wanted`.
    fn find(
        &mut self,
        index: SegmentIndex,
        bytes: u64,
        mut offset: u64,
        wanted: impl Fn(u64, &BatchHeader) -> bool,
    ) -> Result<Option<(u64, BatchHeader)>, RecoveryError> {
        // Of two writes under way both are short, so what follows a bad one begins within the longest write.
        let bytes = bytes.min(offset + (BATCH_MAX + BLOCK) as u64);
        while offset < bytes {
            let chunk = self.read(index, offset, READ_CHUNK)?;
            if chunk.len() < BLOCK {
                break;
            }
            for (block, at) in chunk.chunks_exact(BLOCK).zip((offset..).step_by(BLOCK)) {
                let Ok(header) = BatchHeader::decode(block) else { continue };
                if header.pair != self.pair || header.journal != self.journal || !wanted(at, &header) {
                    continue;
                }
                let whole = self.read(index, at, header.padded_len())?;
                if Batch::from_disk(&whole).is_ok() {
                    return Ok(Some((at, header)));
                }
            }
            offset += (chunk.len() / BLOCK * BLOCK) as u64;
        }
        Ok(None)
    }

    /// Rows 5 to 11 for one segment; `cut` is the lowest base of a later one.
    fn segment(
        &mut self,
        index: SegmentIndex,
        bytes: u64,
        base: Position,
        cut: Option<Position>,
    ) -> Result<(), RecoveryError> {
        if cut.is_some_and(|cut| cut.seq < base.seq) {
            self.out.unused.push(index);
            return Ok(());
        }
        let first = self.out.segments.is_empty();
        if !first && self.out.end != base {
            return Err(self.join_error(index, base));
        }
        if first {
            self.out.end = base;
            self.out.ends.push_back(base);
        }
        let mut info = SegmentInfo { index, bytes, base, end: base, used: BLOCK_U64, reusable: false };
        let mut chunk = (0_u64, Bytes::new());
        loop {
            if cut.is_some_and(|cut| cut.seq == info.end.seq) {
                self.marks_behind(&mut info, &mut chunk)?;
                break;
            }
            match self.batch_at(&info, &mut chunk)? {
                Ok(batch) if cut.is_none_or(|cut| batch.header().last_seq() <= cut.seq) => {
                    self.take(&mut info, &batch);
                }
                Ok(batch) => {
                    let why = format!("a later segment begins inside {batch:?}");
                    return Err(self.damaged(index, info.used, batch.header().first_seq, why));
                }
                Err(error) => {
                    if cut.is_some() {
                        return Err(self.damaged(index, info.used, info.end.seq.next(), error.to_string()));
                    }
                    self.judge_tail(&info, &error)?;
                    break;
                }
            }
        }
        if let Some(cut) = cut
            && cut != info.end
        {
            let why = "a later segment continues another history".to_owned();
            return Err(self.damaged(index, info.used, cut.seq, why));
        }
        self.out.end = info.end;
        self.out.segments.push(info);
        Ok(())
    }

    /// Marks behind the last batch of a segment that another follows: they tell what was announced, and a standby must
    /// find that again. What else stands there was cut.
    fn marks_behind(
        &mut self,
        info: &mut SegmentInfo,
        chunk: &mut (u64, Bytes),
    ) -> Result<(), RecoveryError> {
        while let Ok(batch) = self.batch_at(info, chunk)?
            && batch.header().mark
        {
            self.take(info, &batch);
        }
        Ok(())
    }

    fn join_error(&self, index: SegmentIndex, base: Position) -> RecoveryError {
        let end = self.out.end;
        if base.seq > end.seq {
            let (first, last) = (end.seq.next(), base.seq);
            RecoveryError::Missing { journal: self.journal, segment: index, first, last }
        } else {
            self.damaged(index, 0, base.seq, "it continues another history".to_owned())
        }
    }

    /// The batch that continues the history at `info.used`; the inner error says why there is none.
    #[allow(clippy::type_complexity, reason = "the outer error stops recovery, the inner one is judged")]
    fn batch_at(
        &mut self,
        info: &SegmentInfo,
        chunk: &mut (u64, Bytes),
    ) -> Result<Result<Batch, DecodeError>, RecoveryError> {
        if info.used >= info.bytes {
            let (needed, found) = (BLOCK, 0);
            return Ok(Err(DecodeError::Short { what: "segment", needed, found }));
        }
        let mut want = READ_CHUNK;
        loop {
            let at = usize::try_from(info.used.saturating_sub(chunk.0)).unwrap_or(usize::MAX);
            let here =
                if info.used < chunk.0 || at > chunk.1.len() { Bytes::new() } else { chunk.1.slice(at..) };
            match Batch::from_disk(&here) {
                Ok(batch) => return Ok(self.continues(info, batch)),
                Err(DecodeError::Short { needed, .. }) if chunk.0 != info.used || needed > want => {
                    want = want.max(needed.next_multiple_of(BLOCK));
                    *chunk = (info.used, self.read(info.index, info.used, want)?);
                    if chunk.1.len() < needed {
                        return Ok(Batch::from_disk(&chunk.1));
                    }
                }
                Err(error) => return Ok(Err(error)),
            }
        }
    }

    fn continues(&self, info: &SegmentInfo, batch: Batch) -> Result<Batch, DecodeError> {
        let h = batch.header();
        let differ = |what, expected, found| Err(DecodeError::Field { what, expected, found });
        if h.pair != self.pair || h.journal != self.journal {
            return differ("batch of this pair and journal", 1, 0);
        }
        if h.first_seq != info.end.seq.next() {
            return differ("batch first seq", info.end.seq.0 + 1, h.first_seq.0);
        }
        if h.prev_chain != info.end.chain {
            return differ("batch history checksum", info.end.chain.0, h.prev_chain.0);
        }
        if h.epoch < info.end.epoch {
            return differ("batch epoch", info.end.epoch.0, h.epoch.0);
        }
        Ok(batch)
    }

    fn take(&mut self, info: &mut SegmentInfo, batch: &Batch) {
        let h = batch.header();
        info.used += h.padded_len() as u64;
        self.out.announced = self.out.announced.max(h.durable);
        if h.mark {
            return;
        }
        if self.journal == JournalKind::Replicated && self.out.epochs.last().is_none_or(|e| e.epoch < h.epoch)
        {
            let starts_here = h.epoch > info.end.epoch;
            if starts_here {
                let (epoch, first_seq, prev_chain) = (h.epoch, h.first_seq, h.prev_chain);
                self.out.epochs.push(EpochMark { epoch, first_seq, prev_chain });
            }
        }
        info.end = batch.end();
        self.out.ends.push_back(info.end);
        if self.out.ends.len() > ENDS_KEPT {
            self.out.ends.pop_front();
        }
    }

    /// Rows 5, 6 and 7.
    fn judge_tail(&mut self, info: &SegmentInfo, error: &DecodeError) -> Result<(), RecoveryError> {
        let missing = info.end.seq.next();
        let proof = self.find(info.index, info.bytes, info.used, self.proof(info.used, missing))?;
        if let Some((at, proof)) = proof {
            let why = format!(
                "{error}; what was written at byte {at} says that entry {} was durable",
                proof.durable
            );
            return Err(self.damaged(info.index, info.used, missing, why));
        }
        // Nothing, or what is left of an earlier life of the file, unless a batch begins there that would continue.
        let rest = self.read(info.index, info.used.min(info.bytes), BLOCK)?;
        let began = BatchHeader::decode(&rest);
        if began.is_ok_and(|h| h.first_seq == missing && h.prev_chain == info.end.chain) {
            self.out.torn = Some(info.used);
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "recover_tests.rs"]
mod tests;

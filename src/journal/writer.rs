//! Appending: entries collect in open batches while a durable write is under way, and the next batch is whatever has
//! queued meanwhile (self-clocking group commit). See [`super::in_flight`] for when a second write goes out beside it.
//!
//! Life of a segment: *prepared* (ahead of time) -> *opened* by a write of its header and the batches that wait ->
//! *active* -> *sealed* when the next one is opened -> *released*, after which its file may be prepared again. A failed
//! write poisons the active segment: it is sealed at its last durable entry and the batches that were not acknowledged are
//! written again, unchanged, to the next segment, whose header cuts off whatever the failed write left behind. A second
//! failure in a row makes the journal read-only.

mod space;
mod spooled;

use super::in_flight::{InFlight, Writing};
use super::recover::ENDS_KEPT;
use super::segments::Segments;
use super::{Recovered, SegmentInfo};
use crate::base::limits::{BATCH_ENTRIES_MAX, BATCH_SOFT, BLOCK_U64, GROUP_MAX};
use crate::base::{AlignedBuf, Epoch, Fault, FileId, JournalKind, Mono, Now, Position, SegmentIndex, Seq};
use crate::format::PairId;
use crate::format::batch::{AROUND, BATCH_HEADER, Batch, BatchBuilder, Seal, mark};
use crate::format::entry::Entry;
use crate::format::segment::SegmentHeader;
use bytes::Bytes;
use std::collections::VecDeque;

/// A mark is written when the journal was idle this long (milliseconds).
const MARK_AFTER_MS: u64 = 20;
/// Batches in one write at most: ranges that the kernel takes in one call.
const GROUP_BATCHES: usize = 256;

/// Something that the journal needs done.
#[derive(Clone, Debug)]
pub enum JournalOp {
    /// Make a segment whose first block is zeros, and the others too or what a removed one left for reuse.
    Prepare {
        /// Its number.
        index: SegmentIndex,
        /// Its size.
        bytes: u64,
    },
    /// Write durably.
    Write {
        /// Comes back with the answer; unique within this journal.
        write: u64,
        /// The segment.
        segment: SegmentIndex,
        /// Where in it.
        offset: u64,
        /// What, one part after the other; each is aligned and whole blocks.
        parts: Vec<Bytes>,
    },
    /// A segment is needed no more.
    Remove {
        /// Its number.
        index: SegmentIndex,
        /// Whether its file may become a segment that is asked for later, with its content behind a first block of
        /// zeros. All of that content was released: it is at or below the base in any header written from now on.
        /// Else the file has to go: what was cut of it could be taken for history once numbers come there again.
        reuse: bool,
    },
}

/// What the journal can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JournalState {
    /// Everything.
    Open,
    /// Nothing until there is room on the disk; it tries again by itself.
    NoSpace,
    /// Nothing until the process is restarted: two writes in a row failed.
    Failed,
}

/// How far a journal is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JournalWatermarks {
    /// The last entry accepted.
    pub appended: Seq,
    /// The last entry on this disk.
    pub durable: Seq,
}

/// Where an entry's value stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The entry.
    pub seq: Seq,
    /// The first entry of its batch.
    pub batch: Seq,
    /// Offset of the value in the batch's bytes.
    pub at: usize,
}

#[derive(Debug)]
pub(super) enum Pending {
    Open(BatchBuilder),
    Sealed(Batch),
}

impl Pending {
    fn len(&self) -> usize {
        match self {
            Self::Open(builder) => builder.len(),
            Self::Sealed(batch) => batch.header().len as usize,
        }
    }

    fn padded(&self) -> u64 {
        (self.len() as u64).next_multiple_of(BLOCK_U64)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spare {
    None,
    Preparing { index: SegmentIndex, bytes: u64 },
    Ready { index: SegmentIndex, bytes: u64 },
    Waiting { until: Mono },
}

/// One of a node's two journals.
#[derive(Debug)]
pub struct Journal {
    kind: JournalKind,
    pair: PairId,
    segment_bytes: u64,
    epoch: Epoch,
    segments: Segments,
    /// Whether the last segment of the catalogue may be written to.
    active: bool,
    spare: Spare,
    /// Why the last attempt to make a segment failed. Stands until one is made: while
    /// it is tried again nothing is better yet.
    lacking: Option<Fault>,
    next_index: u64,
    next_write: u64,
    in_flight: InFlight,
    /// Not yet written, oldest first; only the last may be open.
    pub(super) pending: VecDeque<Pending>,
    pending_bytes: usize,
    /// End of what is sealed (written or not).
    sealed: Position,
    /// The last entry accepted, sealed or not.
    pub(super) appended: Seq,
    durable: Position,
    /// For the headers of marks: on a standby, what the primary announced.
    announced: Seq,
    /// What a recovery of this journal would find announced: the most that a durable header here says.
    recorded_head: Seq,
    /// A mark is wanted although the journal was not idle for long: `announced` has to become part of `told`.
    mark_wanted: bool,
    ends: VecDeque<Position>,
    mark_at: Option<Mono>,
    /// A cut that is not durable yet: the next header makes it so, and is written without waiting for a batch.
    cutting: bool,
    /// Nothing more is written to this history.
    held: bool,
    failures: u32,
    /// Counts what the disk has done for it: writes that ended well, segments that were made.
    moves: u64,
    unused: Vec<SegmentIndex>,
    ops: VecDeque<JournalOp>,
}

impl Journal {
    /// A journal that goes on where recovery found its end. It always opens a new segment: the old one's tail is
    /// never written over.
    #[must_use]
    pub fn new(kind: JournalKind, pair: PairId, segment_bytes: u64, mut found: Recovered) -> Self {
        if found.ends.is_empty() {
            found.ends.push_back(found.end);
        }
        Self {
            kind,
            pair,
            segment_bytes,
            epoch: found.end.epoch,
            segments: Segments::new(found.segments),
            active: false,
            spare: Spare::None,
            lacking: None,
            next_index: found.next_index,
            next_write: 1,
            in_flight: InFlight::default(),
            pending: VecDeque::new(),
            pending_bytes: 0,
            sealed: found.end,
            appended: found.end.seq,
            durable: found.end,
            announced: found.announced,
            recorded_head: found.announced,
            mark_wanted: false,
            ends: found.ends,
            mark_at: None,
            cutting: false,
            held: false,
            failures: 0,
            moves: 0,
            unused: found.unused,
            ops: VecDeque::new(),
        }
    }

    /// The journal's kind.
    #[must_use]
    pub fn kind(&self) -> JournalKind {
        self.kind
    }

    /// How far it is.
    #[must_use]
    pub fn pace(&self) -> JournalWatermarks {
        JournalWatermarks { appended: self.appended, durable: self.durable.seq }
    }

    /// End of what is on this disk.
    #[must_use]
    pub fn durable(&self) -> Position {
        self.durable
    }

    /// End of what is sealed, written or not.
    #[must_use]
    pub fn sealed(&self) -> Position {
        self.sealed
    }

    /// Whether nothing waits and nothing is being written, a cut included.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.is_written() && !self.cutting
    }

    /// Whether every entry accepted is written. A cut (see [`Self::cut`]) may still wait to become durable.
    #[must_use]
    pub fn is_written(&self) -> bool {
        self.pending.is_empty() && self.in_flight.is_empty()
    }

    /// Accepted and not yet durable (bytes).
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.pending_bytes + usize::try_from(self.in_flight.room()).unwrap_or(usize::MAX)
    }

    /// The oldest entry that can be read.
    #[must_use]
    pub fn oldest(&self) -> Seq {
        self.segments.oldest().unwrap_or(self.appended.next())
    }

    /// Sets the epoch of the batches to come. Batches sealed so far keep theirs.
    ///
    /// # Panics
    /// If entries of the old epoch wait unsealed: an epoch begins on a quiet journal.
    pub fn set_epoch(&mut self, epoch: Epoch) {
        assert!(self.pending.is_empty(), "an epoch begins on a quiet journal");
        self.epoch = epoch;
    }

    /// Tells what the primary announced, for the marks of a standby.
    pub fn set_announced(&mut self, announced: Seq) {
        self.announced = self.announced.max(announced);
    }

    /// What the headers on this disk tell of what was announced: a restart knows this much again.
    #[must_use]
    pub fn recorded_head(&self) -> Seq {
        self.recorded_head
    }

    /// Asks for a mark as soon as nothing else is written, unless one would tell nothing new.
    pub fn want_mark(&mut self) {
        self.mark_wanted = self.announced > self.recorded_head && !self.has_failed();
    }

    /// Whether [`Self::pump`] would write a wanted mark now.
    #[must_use]
    pub fn wants_mark(&self) -> bool {
        self.mark_wanted && self.is_written() && self.room() >= BLOCK_U64
    }

    /// Appends entries that belong together: one batch holds all of them. Returns the number of the last.
    ///
    /// # Durability
    /// In memory. Durable once [`Self::pace`] says so.
    ///
    /// # Panics
    /// If `entries` is empty or over the batch limits: the caller has looked.
    pub fn append<'a>(&mut self, entries: impl Iterator<Item = Entry<'a>> + Clone) -> Seq {
        self.append_placed(entries).seq
    }

    /// The same, and tells where the last one's value stands.
    ///
    /// # Durability
    /// As [`Self::append`].
    ///
    /// # Panics
    /// As [`Self::append`].
    pub fn append_placed<'a>(&mut self, entries: impl Iterator<Item = Entry<'a>> + Clone) -> Placed {
        let need: usize = entries.clone().map(|entry| entry.encoded_len()).sum();
        let count = entries.clone().count();
        assert!(count > 0, "there is something to append");
        let builder = self.open_batch(need, count);
        let batch = builder.first_seq();
        let (mut seq, mut at) = (batch, 0);
        for entry in entries {
            (seq, at) = builder.push(&entry);
        }
        self.took(seq, need);
        Placed { seq, batch, at }
    }

    /// Appends a write to a volume whose payload is in place already; see [`BatchBuilder::around`].
    ///
    /// # Durability
    /// As [`Self::append`].
    ///
    /// # Panics
    /// As [`BatchBuilder::around`].
    pub fn append_around(&mut self, file: FileId, offset: u64, buf: AlignedBuf) -> Placed {
        let seq = self.appended.next();
        let len = buf.len();
        let builder = BatchBuilder::around(seq, file, offset, buf);
        self.pending.push_back(Pending::Open(builder));
        self.took(seq, len);
        Placed { seq, batch: seq, at: AROUND }
    }

    /// The bytes so far of the batch that begins with `first`, if it is not sealed.
    #[must_use]
    pub fn unsealed(&self, first: Seq) -> Option<&[u8]> {
        self.pending.iter().rev().find_map(|pending| match pending {
            Pending::Open(builder) if builder.first_seq() == first => Some(builder.bytes()),
            _ => None,
        })
    }

    /// The batch that takes `count` entries of `need` bytes.
    fn open_batch(&mut self, need: usize, count: usize) -> &mut BatchBuilder {
        let fits = |builder: &BatchBuilder| {
            builder.is_empty()
                || (!builder.is_whole()
                    && builder.len() + need <= BATCH_SOFT
                    && builder.count() as usize + count <= BATCH_ENTRIES_MAX as usize)
        };
        if !matches!(self.pending.back(), Some(Pending::Open(builder)) if fits(builder)) {
            let capacity = (need + BATCH_HEADER).max(16 << 10);
            self.pending.push_back(Pending::Open(BatchBuilder::new(self.appended.next(), capacity)));
            self.pending_bytes += BATCH_HEADER;
        }
        let Some(Pending::Open(builder)) = self.pending.back_mut() else {
            unreachable!("an open batch was just made sure of")
        };
        builder
    }

    pub(super) fn took(&mut self, last: Seq, bytes: usize) {
        self.appended = last;
        self.pending_bytes += bytes;
        self.mark_at = None;
    }

    /// Appends a batch that the peer sealed; it must continue the history.
    ///
    /// # Panics
    /// If it does not: the caller has looked.
    pub fn accept(&mut self, batch: Batch) {
        let h = batch.header();
        assert_eq!(h.first_seq, self.appended.next(), "a received batch continues the journal");
        assert_eq!(h.prev_chain, self.sealed.chain, "a received batch continues the history");
        assert_eq!(self.sealed.seq, self.appended, "own entries and received ones never mix");
        self.epoch = h.epoch;
        self.appended = h.last_seq();
        self.sealed = batch.end();
        self.pending_bytes += h.len as usize;
        self.remember_end(self.sealed);
        self.pending.push_back(Pending::Sealed(batch));
        self.mark_at = None;
    }

    fn remember_end(&mut self, end: Position) {
        self.ends.push_back(end);
        if self.ends.len() > ENDS_KEPT {
            self.ends.pop_front();
        }
    }

    /// The end of a batch at `seq`, if it is remembered. Before the first entry every history stands alike.
    #[must_use]
    pub fn end_at(&self, seq: Seq) -> Option<Position> {
        if seq == Seq(0) {
            return Some(Position::default());
        }
        let at = self.ends.partition_point(|end| end.seq < seq);
        self.ends.get(at).filter(|end| end.seq == seq).copied()
    }

    /// Cuts the history back to `end`, which must be the end of a batch (see [`Self::end_at`]). What is beyond it
    /// stays on disk until the next segment's header makes the cut durable; [`Self::is_quiet`] tells when it is.
    ///
    /// # Panics
    /// If something is being written or waits: the caller has waited for [`Self::is_quiet`].
    pub fn cut(&mut self, end: Position) {
        assert!(self.is_quiet(), "a journal is cut when it is quiet");
        assert_eq!(self.end_at(end.seq), Some(end), "a journal is cut at the end of a batch");
        while self.ends.back().is_some_and(|last| last.seq > end.seq) {
            self.ends.pop_back();
        }
        let gone = self.segments.cut(end);
        self.unused.extend(gone);
        (self.sealed, self.durable, self.appended, self.epoch) = (end, end, end.seq, end.epoch);
        self.announced = self.announced.min(end.seq);
        self.recorded_head = self.recorded_head.min(end.seq);
        self.active = false;
        self.cutting = true;
        self.mark_at = None;
    }

    /// Writes nothing more of its history, not even a mark: it is about to be left. Gives the first segment that can be of
    /// another one.
    ///
    /// # Panics
    /// If something is being written or waits: the caller has waited for [`Self::is_quiet`].
    pub fn hold(&mut self) -> SegmentIndex {
        assert!(self.is_quiet(), "a journal is left when it is quiet");
        self.held = true;
        match self.spare {
            Spare::Preparing { index, .. } | Spare::Ready { index, .. } => index,
            Spare::None | Spare::Waiting { .. } => SegmentIndex(self.next_index),
        }
    }

    /// Leaves the history that it [holds](Self::hold) for another one that stands at `origin`, as a copy does. What is on
    /// disk goes when the first header of the new history is durable; [`Self::is_quiet`] tells when it is.
    ///
    /// # Panics
    /// If it was not held.
    pub fn restart_at(&mut self, origin: Position) {
        assert!(self.held, "a journal is held before it is left");
        self.held = false;
        self.unused.extend(self.segments.clear());
        self.ends = VecDeque::from([origin]);
        (self.sealed, self.durable, self.appended, self.epoch) = (origin, origin, origin.seq, origin.epoch);
        (self.announced, self.recorded_head) = (origin.seq, origin.seq);
        self.active = false;
        self.cutting = true;
        self.mark_at = None;
    }

    /// Forgets segments that hold nothing beyond `up_to`.
    pub fn release(&mut self, up_to: Seq) {
        while let Some(info) = self.segments.release_one(up_to) {
            self.ops.push_back(JournalOp::Remove { index: info.index, reuse: info.reusable });
        }
    }

    /// Forgets the oldest segment whatever the peer lacks of it, unless it is the last; returns the oldest entry left.
    /// The store must have all of it.
    /// Its file may be used again if it is to be `kept`.
    pub fn drop_oldest(&mut self, kept: bool) -> Option<Seq> {
        let info = self.segments.release_one(Seq(u64::MAX))?;
        self.ops.push_back(JournalOp::Remove { index: info.index, reuse: info.reusable && kept });
        self.segments.oldest()
    }

    /// Where the second segment begins: up to here the oldest one is the only copy.
    #[must_use]
    pub fn second_base(&self) -> Option<Seq> {
        self.segments.second_base()
    }

    /// What a reader walks over.
    pub(super) fn segments(&self) -> &Segments {
        &self.segments
    }

    /// The next thing to do, if any.
    pub fn poll_op(&mut self) -> Option<JournalOp> {
        self.ops.pop_front()
    }

    /// When [`Self::pump`] has something to do although nothing happened.
    #[must_use]
    pub fn deadline(&self) -> Option<Mono> {
        let retry = match self.spare {
            Spare::Waiting { until } => Some(until),
            _ => None,
        };
        if self.failures >= 2 {
            return None;
        }
        if self.held {
            return retry;
        }
        // A mark that has no room, or waits for the write under way, is not brought on by time.
        let mark = self.mark_at.filter(|_| self.in_flight.is_empty() && self.room() >= BLOCK_U64);
        retry.into_iter().chain(mark).chain(self.second_at()).min()
    }

    /// Starts what can be started. Returns the batches that were sealed, in order: they may be sent to the peer.
    pub fn pump(&mut self, now: Now) -> Vec<Batch> {
        if self.failures >= 2 {
            return Vec::new();
        }
        if let Spare::Waiting { until } = self.spare
            && now.mono >= until
        {
            self.spare = Spare::None;
        }
        if self.spare == Spare::None {
            self.prepare();
        }
        if self.held {
            return Vec::new();
        }
        if !self.in_flight.is_empty() {
            if self.second_at().is_some_and(|at| at <= now.mono) {
                return self.write_pending(now, None);
            }
            // Meanwhile the disk is busy, and what can be done now keeps it waiting no longer afterwards.
            for pending in &mut self.pending {
                if let Pending::Open(builder) = pending {
                    builder.sum();
                }
            }
            return Vec::new();
        }
        let Some(first) = self.pending.front() else {
            if self.cutting {
                return self.open_next(0, now);
            }
            return self.pump_mark(now);
        };
        let need = first.padded();
        if need > self.room() { self.open_next(need, now) } else { self.write_pending(now, None) }
    }

    /// When what waits may be written beside the write under way, if it may and has room.
    fn second_at(&self) -> Option<Mono> {
        let first = self.pending.front()?.padded();
        let at = self.in_flight.second_at(self.pending_bytes, first)?;
        (first <= self.room()).then_some(at)
    }

    /// The segment that may be written to: the one that is being opened, or the active one.
    fn target(&self) -> Option<SegmentInfo> {
        self.in_flight.opening().or_else(|| self.segments.newest().copied().filter(|_| self.active))
    }

    /// Room in it, behind what is being written.
    fn room(&self) -> u64 {
        self.target().map_or(0, |info| info.bytes - info.used - self.in_flight.room())
    }

    fn prepare(&mut self) {
        let biggest = self.pending.iter().map(Pending::padded).max().unwrap_or(0);
        let bytes = self.segment_bytes.max(biggest + BLOCK_U64);
        let index = SegmentIndex(self.next_index);
        self.next_index += 1;
        self.spare = Spare::Preparing { index, bytes };
        self.ops.push_back(JournalOp::Prepare { index, bytes });
    }

    /// Opens the prepared segment, if it is there and large enough for the next batch, with what waits.
    fn open_next(&mut self, need: u64, now: Now) -> Vec<Batch> {
        let Spare::Ready { index, bytes } = self.spare else { return Vec::new() };
        if bytes < need + BLOCK_U64 {
            self.ops.push_back(JournalOp::Remove { index, reuse: true });
            self.prepare();
            return Vec::new();
        }
        self.spare = Spare::None;
        let base = self.durable;
        let info = SegmentInfo { index, bytes, base, end: base, used: BLOCK_U64, reusable: true };
        let newly_sealed = self.write_pending(now, Some(info));
        self.prepare();
        newly_sealed
    }

    fn start_write(
        &mut self,
        now: Now,
        segment: SegmentIndex,
        offset: u64,
        parts: Vec<Bytes>,
        writing: Writing,
    ) {
        let write = self.next_write;
        self.next_write += 1;
        self.in_flight.push(write, writing, now.mono);
        self.ops.push_back(JournalOp::Write { write, segment, offset, parts });
    }

    fn seal(&self, now: Now, durable: Seq) -> Seal {
        Seal {
            epoch: self.epoch,
            prev_chain: self.sealed.chain,
            durable,
            wall_ms: now.wall_ms,
            pair: self.pair,
            journal: self.kind,
        }
    }

    /// Writes what waits: whole batches, one behind the other, up to a limit, in one write; behind the header of the
    /// segment that it `opens`, if it opens one.
    fn write_pending(&mut self, now: Now, opens: Option<SegmentInfo>) -> Vec<Batch> {
        let Some(info) = opens.or_else(|| self.target()) else { return Vec::new() };
        let at = info.used + self.in_flight.room();
        let room = (info.bytes - at).min(GROUP_MAX as u64);
        let mut batches: Vec<Batch> = Vec::new();
        let mut newly_sealed = Vec::new();
        let mut padded = 0;
        while let Some(next) = self.pending.front() {
            let grows = padded + next.padded();
            if !batches.is_empty() && (grows > room || batches.len() == GROUP_BATCHES) {
                break;
            }
            self.pending_bytes -= next.len();
            padded = grows;
            match self.pending.pop_front() {
                Some(Pending::Sealed(batch)) => batches.push(batch),
                Some(Pending::Open(builder)) => {
                    let batch = builder.seal(&self.seal(now, self.durable.seq));
                    self.sealed = batch.end();
                    self.remember_end(self.sealed);
                    newly_sealed.push(batch.clone());
                    batches.push(batch);
                }
                None => break,
            }
        }
        let header = opens.map(|info| {
            let (journal, pair, wall_ms) = (self.kind, self.pair, now.wall_ms);
            SegmentHeader { journal, index: info.index, base: info.base, pair, wall_ms }.encode()
        });
        let at = if header.is_some() { 0 } else { at };
        let parts = header.into_iter().chain(batches.iter().map(|batch| batch.disk().clone())).collect();
        self.start_write(now, info.index, at, parts, Writing::Batches { opens, batches, padded });
        newly_sealed
    }

    /// Writes a mark if one is due, or the header before it.
    fn pump_mark(&mut self, now: Now) -> Vec<Batch> {
        let due = self.mark_wanted || self.mark_at.is_some_and(|at| now.mono >= at);
        if !due {
            return Vec::new();
        }
        let Some(info) = self.target().filter(|_| self.room() >= BLOCK_U64) else {
            return if self.mark_wanted { self.open_next(0, now) } else { Vec::new() };
        };
        self.mark_at = None;
        self.mark_wanted = false;
        let announced = self.announced;
        let block = mark(self.durable.seq.next(), &self.seal(now, announced));
        let parts = vec![block.disk().clone()];
        self.start_write(now, info.index, info.used, parts, Writing::Mark { announced });
        Vec::new()
    }

    /// The write is durable. Returns the batches that are durable now with all before them: its own, unless an earlier
    /// write is still under way, and those of a later one that waited for it.
    pub fn written(&mut self, now: Now, write: u64) -> Vec<Batch> {
        let mut durable = Vec::new();
        if self.in_flight.end(write, true) {
            self.moves += 1;
            while let Some(writing) = self.in_flight.take_done() {
                durable.extend(self.done(now, writing));
            }
            self.write_again();
        }
        durable
    }

    fn done(&mut self, now: Now, writing: Writing) -> Vec<Batch> {
        match writing {
            Writing::Mark { announced } => {
                self.recorded_head = self.recorded_head.max(announced);
                if let Some(info) = self.segments.last_mut() {
                    info.used += BLOCK_U64;
                }
                Vec::new()
            }
            Writing::Batches { opens, batches, padded } => {
                let failed = self.in_flight.have_failed();
                if let Some(info) = opens {
                    self.opened(info, failed);
                }
                let Some(last) = batches.last() else { return batches };
                if !failed {
                    self.failures = 0;
                }
                self.durable = last.end();
                self.recorded_head = self.recorded_head.max(last.header().durable);
                if let Some(info) = self.segments.last_mut() {
                    info.used += padded;
                    info.end = self.durable;
                }
                if self.pending.is_empty() && self.in_flight.is_empty() {
                    self.mark_at = Some(now.mono.plus_ms(MARK_AFTER_MS));
                }
                batches
            }
        }
    }

    /// The segment's header is durable, and so is a cut that it makes; `failed` if a write behind it is not.
    fn opened(&mut self, info: SegmentInfo, failed: bool) {
        self.segments.push(info);
        self.active = !failed;
        self.cutting = false;
        for index in self.unused.drain(..) {
            self.ops.push_back(JournalOp::Remove { index, reuse: false });
        }
    }

    /// The write failed: the segment is poisoned, what it carried goes to the next one, and so does what was written
    /// behind it. Two that were under way together count as one failure.
    pub fn write_failed(&mut self, write: u64) {
        let first = !self.in_flight.have_failed();
        if self.in_flight.end(write, false) {
            self.failures += u32::from(first);
            self.active = false;
            self.write_again();
        }
    }

    /// Takes back what failed, once no write is under way.
    fn write_again(&mut self) {
        let failed = self.in_flight.take_failed();
        match failed.first() {
            // Nothing of the segment counts, nor does what was written behind the header that failed.
            Some(Writing::Batches { opens: Some(info), .. }) => self.unused.push(info.index),
            Some(_) => {
                if let Some(info) = self.segments.last_mut() {
                    info.reusable = false;
                }
            }
            None => {}
        }
        for writing in failed.into_iter().rev() {
            let Writing::Batches { batches, .. } = writing else { continue };
            for batch in batches.into_iter().rev() {
                self.pending_bytes += batch.header().len as usize;
                self.pending.push_front(Pending::Sealed(batch));
            }
        }
    }

    /// Grows whenever the disk has done something for this journal.
    #[must_use]
    pub fn moves(&self) -> u64 {
        self.moves
    }

    /// Whether something waits for the disk to move: what was accepted, or what cannot be accepted before a segment is
    /// made.
    #[must_use]
    pub fn waits_for_disk(&self) -> bool {
        !self.has_failed() && (!self.is_written() || self.is_short())
    }

    /// Whether two writes in a row failed.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.failures >= 2
    }
}

#[cfg(test)]
use space::PREPARE_RETRY_MS;

#[cfg(test)]
#[path = "full_tests.rs"]
mod full_tests;
#[cfg(test)]
#[path = "in_flight_tests.rs"]
mod in_flight_tests;

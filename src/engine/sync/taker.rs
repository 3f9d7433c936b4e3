//! The side of a node that is incomplete: it leaves what it had, asks for every range, and is a standby when all is whole.

use super::digests::{Held, Piece, Step as HeldStep};
use super::rewind::Base;
use crate::base::limits::{BLOCK_U64, CHUNKS_WAITING_MAX};
use crate::base::{Epoch, Fault, FileId, Mono, Seq};
use crate::engine::admin::CopyView;
use crate::engine::config::StartState;
use crate::engine::core::Core;
use crate::engine::effect::{CompareEffect, LinkEffect, Severity, StoreEffect};
use crate::engine::incidents::Matter;
use crate::engine::receiver::{Inbound, Phase};
use crate::engine::roles::Stage;
use crate::format::chunk::{Chunk, Content, CopyBegin, Next, Progress, Want, WantFrom};
use crate::format::compare::{Found, What};
use crate::format::control::{Origin, Role};
use crate::format::dptr::DptrKind;
use crate::format::frame::{FEATURE_DIGESTS, FrameKind};
use crate::format::rewind::{Prepared, Ranges};
use crate::store::StoreRead;
use crate::store::namespace::{FileInfo, Namespace};
use std::collections::VecDeque;

/// A store that could not begin is asked again after this (milliseconds).
const RETRY_MS: u64 = 250;

/// A copy that this node is given.
#[derive(Debug)]
pub(super) struct Taking {
    pub(super) state: State,
    /// Of a rewind: nothing else is wanted.
    pub(super) ranges: Option<Box<Ranges>>,
    /// What is kept beside the entries that this node left, if the rewind began in this life.
    pub(super) base: Option<Base>,
    /// How far it is with all chunks that came. What is before `next` may still wait for the store.
    progress: Progress,
    /// How far it is with those that the store took.
    pub(super) stored: Progress,
    /// The wants that are not answered yet.
    wanted: VecDeque<Wanted>,
    /// So many of them are asked anew: their answers are of no use.
    void: usize,
    /// Where the next want begins.
    asked: Next,
    /// What this node holds of what is wanted, where that is compared first.
    held: Held,
    /// Content that was found equal in this life (bytes).
    equal: u64,
    /// Chunks that came, each with the progress that it makes, and are not in the store yet: those behind `under_way`
    /// were not handed to it.
    chunks: VecDeque<(Chunk, Progress)>,
    under_way: usize,
}

/// A want that is not answered yet.
#[derive(Clone, Debug)]
struct Wanted {
    id: u64,
    /// Where its range begins.
    at: Next,
    /// What was told of what this node holds there.
    piece: Option<Piece>,
    /// Nobody knows how much will come for it, nor where its chunk will end.
    open: bool,
}

impl Wanted {
    /// Whether a chunk answers it.
    fn is_answered_by(&self, chunk: &Chunk) -> bool {
        let unless = self.piece.as_ref().and_then(|piece| piece.unless);
        match chunk.content {
            Content::Equal => unless.is_some() && self.at.file() == Some(chunk.file),
            Content::Differs => {
                unless.is_some_and(|unless| unless.closer) && self.at.file() == Some(chunk.file)
            }
            _ => answers(chunk, &self.at),
        }
    }

    /// Where the range ends that this chunk told of.
    fn behind(&self, chunk: &Chunk) -> Next {
        match (&chunk.content, &self.piece) {
            (Content::Equal, Some(piece)) => piece.behind(),
            _ => behind(chunk, &self.at),
        }
    }
}

/// What a copy waits for.
#[derive(Debug)]
pub(super) enum State {
    /// The store has nothing that could be gone on with, and nothing to begin with.
    Blank,
    /// The store is to begin; it is asked, or will be at that time.
    Beginning(Box<CopyBegin>, Option<Mono>),
    /// Ranges come.
    Taking,
    /// A checkpoint that began when all was there.
    Checkpoint,
    /// This write of the control file; none until it can begin.
    Control(Option<u64>),
    /// It failed, and is tried again then.
    Again(Mono),
}

/// A copy that a node was offered: it leaves its own history for it, and nothing keeps it from that once the control file
/// may say so.
#[derive(Debug)]
pub(super) struct Leaving {
    begin: Box<CopyBegin>,
    epoch: Epoch,
    /// Of a rewind.
    ranges: Option<Box<Ranges>>,
    base: Option<Base>,
    step: Step,
}

/// What a node that leaves its history waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Nothing of it is under way.
    Drain,
    /// The store keeps what the rewind begins with.
    Prepare,
    /// That, and all that the store shows, is durable.
    Checkpoint,
    /// The store could not, and is asked again then.
    Refused(Mono),
    /// The control file may be written.
    Ready,
    /// This write of the control file.
    Control(u64),
    /// It failed, and is tried again then.
    Again(Mono),
}

impl Leaving {
    pub(super) fn of(
        begin: Box<CopyBegin>,
        epoch: Epoch,
        ranges: Option<Box<Ranges>>,
        base: Option<Base>,
    ) -> Self {
        Self { begin, epoch, ranges, base, step: Step::Drain }
    }

    /// Whether nothing was begun.
    pub(super) fn is_idle(&self) -> bool {
        !matches!(self.step, Step::Control(_) | Step::Again(_))
    }

    pub(super) fn deadline(&self) -> Option<Mono> {
        match self.step {
            Step::Again(at) | Step::Refused(at) => Some(at),
            Step::Drain | Step::Prepare | Step::Checkpoint | Step::Ready | Step::Control(_) => None,
        }
    }
}

impl Taking {
    /// As found on disk. Where a rewind is to begin in the store, the start goes on with what it will show then.
    pub(super) fn found<S>(start: &mut StartState<S>) -> Option<Self> {
        if start.control.role != Role::Incomplete {
            return None;
        }
        let origin = start.control.origin.at;
        let prepared = start.prepared.take().filter(|prepared| prepared.begin.origin == origin);
        if let Some(stored) = start.copied.take().filter(|stored| stored.origin == origin) {
            let ranges = prepared.map(|prepared| Box::new(prepared.ranges));
            return Some(Self::of(State::Taking, stored, ranges));
        }
        let Some(Prepared { begin, ranges }) = prepared else {
            return Some(Self::of(State::Blank, Progress::at(origin), None));
        };
        let progress = Progress::of(&begin);
        if start.namespace.adopt(&begin.namespace, Some(&ranges)).is_err() {
            return Some(Self::of(State::Blank, progress, None));
        }
        (start.applied[0], start.replay_from[0]) = (origin.seq, origin.seq);
        let state = State::Beginning(Box::new(begin), Some(Mono(0)));
        Some(Self::of(state, progress, Some(Box::new(ranges))))
    }

    fn of(state: State, progress: Progress, ranges: Option<Box<Ranges>>) -> Self {
        Self {
            state,
            ranges,
            base: None,
            stored: progress.clone(),
            wanted: VecDeque::new(),
            void: 0,
            asked: progress.next.clone(),
            held: Held::default(),
            equal: 0,
            progress,
            chunks: VecDeque::new(),
            under_way: 0,
        }
    }

    /// How this node is made whole.
    fn way(&self) -> &'static str {
        match &self.ranges {
            None => "full-copy",
            Some(ranges) if ranges.compares() => "digests",
            Some(_) => "rewind",
        }
    }

    /// Whether the store may be given batches of the replicated journal.
    fn has_begun(&self) -> bool {
        !matches!(self.state, State::Blank | State::Beginning(..))
    }

    pub(super) fn deadline(&self) -> Option<Mono> {
        match &self.state {
            State::Beginning(_, retry) => *retry,
            State::Again(at) => Some(*at),
            _ => None,
        }
    }

    /// The next chunk for a store that was given everything up to `submitted`.
    pub(super) fn submit(&mut self, submitted: Seq) -> Option<(Chunk, Progress)> {
        let next = self.chunks.get(self.under_way).filter(|(chunk, _)| chunk.at == submitted)?.clone();
        self.under_way += 1;
        Some(next)
    }

    /// A round of the store failed: what it did not take is handed again.
    pub(super) fn take_back(&mut self) {
        self.under_way = 0;
        self.held.take_back();
    }

    /// A look of this node found something; false if it was not for this copy.
    pub(super) fn looked(&mut self, look: u64, found: &Found) -> bool {
        self.held.looked(look, found)
    }

    /// The store took a chunk.
    fn taken(&mut self, id: u64) {
        if self.under_way > 0
            && self.chunks.front().is_some_and(|(chunk, _)| chunk.id == id)
            && let Some((_, progress)) = self.chunks.pop_front()
        {
            self.under_way -= 1;
            self.stored = progress;
        }
    }

    /// The stream goes on behind `common` on a new connection: what is not here is asked for again.
    pub(super) fn stream_begins(&mut self, common: Seq) {
        self.wanted.clear();
        self.void = 0;
        self.chunks.retain(|(chunk, _)| chunk.at <= common);
        self.under_way = self.under_way.min(self.chunks.len());
        let last = self.chunks.back().map(|(_, progress)| progress);
        self.progress = last.unwrap_or(&self.stored).clone();
        self.asked = self.progress.next.clone();
    }

    /// Whether a range more may be wanted now. In a rewind many are small, so some are wanted at once.
    fn may_want(&self) -> bool {
        match self.ranges {
            // Behind one whose end is not known nothing is asked.
            Some(_) if self.wanted.back().is_some_and(|wanted| wanted.open) => false,
            Some(_) => self.wanted.len() + self.chunks.len() < self.held.window(&self.asked),
            None => self.wanted.is_empty() && self.chunks.len() < CHUNKS_WAITING_MAX,
        }
    }

    /// An answer came: where its range begins, if it is of use; none at all if it answers nothing.
    fn answered(&mut self, id: u64) -> Option<Option<Wanted>> {
        let wanted = self.wanted.pop_front().filter(|wanted| wanted.id == id)?;
        if self.void > 0 {
            self.void -= 1;
            return Some(None);
        }
        Some(Some(wanted))
    }

    /// A range differs: it is asked for in smaller parts, and what was asked behind it is asked again.
    fn asks_closer(&mut self, wanted: Wanted) {
        self.held.differs(wanted.piece);
        self.void = self.wanted.len();
        self.asked = self.progress.next.clone();
    }

    /// Everything before `next` came.
    fn goes_on_at(&mut self, next: Next) {
        // A range may be longer than its chunk, or its file is gone: then what was asked behind it is asked again.
        if self.wanted.len() == self.void {
            self.asked = next.clone();
        } else if self.wanted.get(self.void).is_some_and(|wanted| wanted.at != next) {
            self.void = self.wanted.len();
            self.asked = next.clone();
        }
        self.progress.next = next;
    }

    /// Whether everything that belongs to the copy is in the store, which shows entry `shown`.
    fn is_whole(&self, shown: Seq) -> bool {
        self.progress.next == Next::Nothing && self.chunks.is_empty() && shown >= self.progress.until
    }
}

/// The first range at or behind `next` that there is in these definitions, of those of a rewind if it is one.
pub(super) fn settle(next: Next, namespace: &Namespace, ranges: Option<&Ranges>) -> Next {
    if let Some(ranges) = ranges {
        return settle_in(ranges, next, namespace);
    }
    settle_among(next, namespace, |info| info.replicated)
}

/// The same among these files.
pub(super) fn settle_among(next: Next, namespace: &Namespace, among: fn(&FileInfo) -> bool) -> Next {
    let wanted =
        |kind: DptrKind| move |(_, info): &(FileId, &FileInfo)| among(info) && info.dptr.kind == kind;
    let first =
        |from: FileId, kind: DptrKind| namespace.files_from(from).find(wanted(kind)).map(|(id, _)| id);
    let next = match next {
        Next::Items(from, after) => match first(from, DptrKind::Records) {
            Some(file) if file == from => return Next::Items(file, after),
            Some(file) => return Next::Items(file, bytes::Bytes::new()),
            None => Next::Blocks(FileId(0), 0),
        },
        other => other,
    };
    match next {
        Next::Blocks(from, offset) => match first(from, DptrKind::Blocks) {
            Some(file) if file == from => Next::Blocks(file, offset),
            Some(file) => Next::Blocks(file, 0),
            None => Next::Nothing,
        },
        other => other,
    }
}

fn settle_in(ranges: &Ranges, next: Next, namespace: &Namespace) -> Next {
    let is = |file: FileId, kind: DptrKind| {
        namespace.file(file).is_some_and(|info| info.replicated && info.dptr.kind == kind)
    };
    // The place where one stands counts in its own file alone.
    let first = |from: FileId, kind: DptrKind, begin: &dyn Fn(FileId) -> Next| {
        let files = ranges.files_from(from).filter(|file| is(*file, kind));
        files.filter_map(|file| ranges.next(&begin(file))).map(|(at, _)| at).next()
    };
    let next = match next {
        Next::Items(from, after) => {
            let begin =
                |file| Next::Items(file, if file == from { after.clone() } else { bytes::Bytes::new() });
            match first(from, DptrKind::Records, &begin) {
                Some(found) => return found,
                None => Next::Blocks(FileId(0), 0),
            }
        }
        other => other,
    };
    match next {
        Next::Blocks(from, offset) => {
            let begin = |file| Next::Blocks(file, if file == from { offset } else { 0 });
            first(from, DptrKind::Blocks, &begin).unwrap_or(Next::Nothing)
        }
        other => other,
    }
}

/// What to ask for where a range begins: the file, and from where to where.
fn want_at(at: &Next, ranges: Option<&Ranges>) -> Option<(FileId, WantFrom)> {
    let end = ranges.and_then(|ranges| ranges.next(at)).and_then(|(_, end)| end);
    Some(match (at.clone(), end) {
        (Next::Items(file, after), Some(Next::Items(_, through))) => {
            (file, WantFrom::ItemsTo(after, through))
        }
        (Next::Items(file, after), _) => (file, WantFrom::Items(after)),
        (Next::Blocks(file, from), Some(Next::Blocks(_, to))) => (file, WantFrom::BlocksTo(from, to)),
        (Next::Blocks(file, from), _) => (file, WantFrom::Blocks(from)),
        (Next::Nothing, _) => return None,
    })
}

/// Where what is wanted ends.
fn end_of(want: &Want) -> Next {
    match &want.from {
        WantFrom::ItemsTo(_, through) => Next::Items(want.file, through.clone()),
        WantFrom::BlocksTo(_, to) => Next::Blocks(want.file, *to),
        WantFrom::Items(_) => Next::Items(FileId(want.file.0 + 1), bytes::Bytes::new()),
        WantFrom::Blocks(_) => Next::Blocks(FileId(want.file.0 + 1), 0),
    }
}

/// What is wanted behind this chunk, which answers `wanted`.
pub(super) fn behind(chunk: &Chunk, wanted: &Next) -> Next {
    let after = FileId(chunk.file.0 + 1);
    match (&chunk.content, wanted) {
        (Content::Items { through, .. }, _) if !chunk.ends => Next::Items(chunk.file, through.clone()),
        (Content::Blocks { offset, len, .. }, _) if !chunk.ends => Next::Blocks(chunk.file, offset + len),
        (_, Next::Items(..)) => Next::Items(after, bytes::Bytes::new()),
        (_, Next::Blocks(..)) => Next::Blocks(after, 0),
        (_, Next::Nothing) => Next::Nothing,
    }
}

/// Whether a chunk answers what was wanted.
pub(super) fn answers(chunk: &Chunk, wanted: &Next) -> bool {
    match (&chunk.content, wanted) {
        (Content::Gone, Next::Items(file, _) | Next::Blocks(file, _)) => chunk.file == *file,
        (Content::Items { after, .. }, Next::Items(file, from)) => chunk.file == *file && after == from,
        (Content::Blocks { offset, len, .. }, Next::Blocks(file, from)) => {
            chunk.file == *file && offset == from && (*len > 0 || chunk.ends)
        }
        _ => false,
    }
}

/// Whether blocks of a chunk are within their volume.
pub(super) fn fits(chunk: &Chunk, namespace: &Namespace) -> bool {
    let Content::Blocks { offset, len, .. } = &chunk.content else { return true };
    let room = namespace.file(chunk.file).map(|info| info.dptr.blocks.saturating_mul(BLOCK_U64));
    room.is_none_or(|room| offset.checked_add(*len).is_some_and(|end| end <= room))
}

impl<S: StoreRead> Core<S> {
    /// Whether the store may not be given batches of the replicated journal now.
    pub(in crate::engine) fn waits_for_copy(&self) -> bool {
        self.resync.is_leaving() || self.resync.taking.as_ref().is_some_and(|taking| !taking.has_begun())
    }

    /// The last entry of the replicated journal that the store shows, for the peer: none before a copy has begun there.
    pub(in crate::engine) fn applied_here(&self) -> Seq {
        if self.waits_for_copy() { Seq(0) } else { self.appliers.replicated().applied() }
    }

    /// The role that this node has on its disk for certain: a copy is not whole before the control file says so.
    pub(in crate::engine) fn role_on_disk(&self) -> Role {
        if self.resync.taking.is_some() { Role::Incomplete } else { self.control.role() }
    }

    /// Whether an incomplete node can go on with what it was copied.
    pub(in crate::engine) fn can_go_on_copying(&self) -> bool {
        let knows = |taking: &Taking| !matches!(taking.state, State::Blank);
        self.resync.taking.as_ref().is_some_and(knows)
    }

    /// Carries the beginning of a copy on as far as it can go now: nothing under way, then the control file.
    fn pump_leaving(&mut self) {
        let applied = self.appliers.replicated().is_idle() && self.overlay.is_tidy();
        let idle = self.replicated().is_quiet() && applied;
        let (now, writing) = (self.now.mono, self.control.is_being_written());
        // Between two steps the journal may have written a mark.
        let quiet = self.replicated().is_quiet();
        let Some(leaving) = &mut self.resync.leaving else { return };
        match leaving.step {
            Step::Drain if idle && leaving.ranges.is_some() => return self.prepare_rewind(),
            Step::Refused(at) if now >= at => return self.prepare_rewind(),
            Step::Drain if idle => leaving.step = Step::Ready,
            Step::Checkpoint if self.checkpoint.has_covered() => leaving.step = Step::Ready,
            _ => {}
        }
        match leaving.step {
            Step::Ready if quiet && !writing => {
                let (epoch, at, table) = (leaving.epoch, leaving.begin.origin, leaving.begin.table.clone());
                let first_segment = self.replicated_mut().hold();
                self.peer.is_whole_again();
                self.resync.takes_partial = false;
                self.control.begin_copy(epoch, Origin { at, first_segment }, table);
            }
            Step::Again(at) if now >= at && !writing => {}
            _ => return,
        }
        let write = self.write_control();
        if let Some(leaving) = &mut self.resync.leaving {
            leaving.step = Step::Control(write);
        }
    }

    /// What of the node's own history stays has to be durable without its journal.
    fn prepare_rewind(&mut self) {
        let Some(Leaving { begin, ranges: Some(ranges), step, .. }) = &mut self.resync.leaving else {
            return;
        };
        *step = Step::Prepare;
        let prepared = Box::new(Prepared { begin: (**begin).clone(), ranges: (**ranges).clone() });
        self.effect(StoreEffect::PrepareRewind { prepared });
    }

    /// The store keeps what a rewind begins with, or could not.
    pub(in crate::engine) fn rewind_prepared(&mut self, result: Result<(), Fault>) {
        let again = self.now.mono.plus_ms(RETRY_MS);
        let Some(leaving) = self.resync.leaving.as_mut().filter(|leaving| leaving.step == Step::Prepare)
        else {
            return;
        };
        self.dirty = true;
        match result {
            Ok(()) => {
                leaving.step = Step::Checkpoint;
                self.checkpoint.force();
            }
            Err(fault) => {
                leaving.step = Step::Refused(again);
                self.room.want_after(fault);
                let text = format!("preparing a rewind in the store: {fault}");
                self.incident_once(Severity::Critical, Matter::StoreFailed, text);
            }
        }
    }

    /// The control file says that this node is incomplete: now what it had may go.
    fn leave_history(&mut self, leaving: Leaving) {
        let Leaving { begin, epoch, ranges, base, .. } = leaving;
        let (origin, left) = (begin.origin, self.replicated().sealed().seq);
        match self.namespace.adopt(&begin.namespace, ranges.as_deref()) {
            Ok(outcome) => self.note_outcome(&outcome),
            Err(error) => {
                let text = format!("the definitions that a copy begins with: {error}");
                self.incident(Severity::Critical, "definition-refused", text.clone());
                self.end_inbound(&text);
            }
        }
        self.replicated_mut().restart_at(origin);
        self.appliers.replicated_mut().restart_at(origin.seq);
        self.checkpoint.restart_at(origin.seq);
        self.settled(&[Matter::EntriesMissing]);
        // What comes from now on belongs to another history than what it has.
        self.save_failed("this node left its history for that of its peer".to_owned());
        self.tell_left(origin.seq, left, ranges.as_deref());
        let state = State::Beginning(begin.clone(), None);
        let taking = Taking::of(state, Progress::of(&begin), ranges.clone());
        self.resync.taking = Some(Taking { base, ..taking });
        self.roles.becomes_incomplete();
        self.effect(StoreEffect::BeginCopy { begin, ranges });
        if self.link.inbound.as_ref().is_some_and(|inbound| matches!(inbound.phase, Phase::Leaving)) {
            self.follow(epoch);
        }
    }

    /// The store began, or could not.
    pub(in crate::engine) fn copy_begun(&mut self, result: Result<(), Fault>) {
        let now = self.now.mono;
        let Some(taking) = &mut self.resync.taking else { return };
        let State::Beginning(_, retry) = &mut taking.state else { return };
        match result {
            Ok(()) => {
                taking.state = State::Taking;
                self.incident_over("store-failed", "store-back", "the store applies again".to_owned());
            }
            Err(fault) => {
                *retry = Some(now.plus_ms(RETRY_MS));
                self.room.want_after(fault);
                let text = format!("beginning a copy in the store: {fault}");
                self.incident_once(Severity::Critical, "store-failed", text);
            }
        }
    }

    /// A chunk came.
    pub(in crate::engine) fn take_chunk(&mut self, chunk: Chunk) {
        let end = self.replicated().sealed().seq;
        let Some(taking) = &mut self.resync.taking else {
            return self.inbound_fault("a chunk came that nobody wants");
        };
        let wanted = match taking.answered(chunk.id) {
            Some(Some(wanted)) if wanted.is_answered_by(&chunk) => wanted,
            Some(None) => {
                self.dirty = true;
                return;
            }
            _ => return self.inbound_fault("a chunk came that is not what was wanted"),
        };
        if !fits(&chunk, &self.namespace) {
            return self.inbound_fault("a chunk came that is not within its volume");
        }
        if chunk.at != end {
            let text = format!("a chunk came that belongs behind entry {}, and not behind {end}", chunk.at);
            return self.inbound_fault(&text);
        }
        self.dirty = true;
        if chunk.content == Content::Differs {
            return taking.asks_closer(wanted);
        }
        let equal = wanted.piece.as_ref().filter(|_| chunk.content == Content::Equal);
        let equal = equal.map_or(0, |piece| piece.bytes);
        taking.held.answered(chunk.content == Content::Equal);
        taking.equal += equal;
        taking.progress.until = taking.progress.until.max(chunk.until);
        taking.progress.bytes += chunk.content.bytes() + equal;
        self.resync.meter.look(self.now.mono, taking.progress.bytes);
        if let (Some(base), Some(ranges)) = (&mut taking.base, &taking.ranges) {
            base.note_chunk(&chunk, ranges.next(&wanted.at).and_then(|(_, end)| end));
        }
        let next = settle(wanted.behind(&chunk), &self.namespace, taking.ranges.as_deref());
        taking.goes_on_at(next);
        let progress = taking.progress.clone();
        taking.chunks.push_back((chunk, progress));
    }

    /// The store took a chunk.
    pub(in crate::engine) fn chunk_taken(&mut self, round: crate::base::Round, id: u64) {
        if self.appliers.replicated_mut().goes_on(round)
            && let Some(taking) = &mut self.resync.taking
        {
            taking.taken(id);
        }
    }

    /// Asks for the next range, and ends the copy when there is none. Of one that is given, ends the rest between chunks.
    pub(in crate::engine) fn pump_taking(&mut self) {
        self.pump_leaving();
        let now = self.now.mono;
        self.resync.pace.looks(now);
        if self.roles.stage() == Stage::Opening {
            return;
        }
        let shown = self.appliers.replicated().visible();
        let Some(taking) = &mut self.resync.taking else { return };
        let whole = taking.is_whole(shown);
        match &mut taking.state {
            State::Blank => {}
            State::Beginning(begin, retry) => {
                if retry.take_if(|at| now >= *at).is_some() {
                    let (begin, ranges) = (begin.clone(), taking.ranges.clone());
                    self.effect(StoreEffect::BeginCopy { begin, ranges });
                }
            }
            State::Taking if whole && taking.stored.next != Next::Nothing => self.nothing_more(),
            State::Taking if whole => {
                taking.state = State::Checkpoint;
                self.checkpoint.force();
                self.dirty = true;
            }
            State::Taking => while self.want_next() {},
            State::Checkpoint => {
                if self.checkpoint.has_covered() {
                    taking.state = State::Control(None);
                    self.dirty = true;
                }
            }
            State::Again(at) => {
                if now >= *at {
                    taking.state = State::Control(None);
                    self.dirty = true;
                }
            }
            State::Control(None) => self.write_whole(),
            State::Control(Some(_)) => {}
        }
    }

    /// Nothing more is wanted, which no chunk told: the store has to know.
    fn nothing_more(&mut self) {
        let (id, at) = (self.fresh_id(), self.replicated().sealed().seq);
        let Some(taking) = &mut self.resync.taking else { return };
        let chunk = Chunk { id, file: FileId(0), at, until: at, content: Content::Gone, ends: true };
        taking.chunks.push_back((chunk, taking.progress.clone()));
        self.dirty = true;
    }

    /// Asks for the next range that is not asked for yet; false if there is none, or enough is under way.
    fn want_next(&mut self) -> bool {
        let (head, now) = (self.head(), self.now);
        let id = self.next_id + 1;
        let most = self.config.chunk_bytes;
        let Some(taking) = self.resync.taking.as_mut().filter(|taking| taking.may_want()) else {
            return false;
        };
        // Definitions change while a copy goes on.
        let at = settle(taking.asked.clone(), &self.namespace, taking.ranges.as_deref());
        if taking.wanted.len() == taking.void {
            self.dirty |= taking.progress.next != at;
            taking.progress.next = at.clone();
        }
        taking.asked = at.clone();
        let Some((file, mut from)) = want_at(&at, taking.ranges.as_deref()) else { return false };
        let Some(Inbound { session, phase: Phase::Following(_), .. }) = &mut self.link.inbound else {
            return false;
        };
        let compared = taking.ranges.as_ref().is_some_and(|ranges| ranges.is_compared(file));
        let (mut piece, mut limit) = (None, most);
        if compared && self.peer.features() & FEATURE_DIGESTS != 0 {
            let size = self.namespace.file(file).map_or(0, |info| info.dptr.blocks.saturating_mul(BLOCK_U64));
            match taking.held.step(&at, most, size, id) {
                HeldStep::Known(known) => {
                    from = known.from();
                    limit = known.most(most);
                    piece = Some(known);
                }
                HeldStep::Wait => return false,
                HeldStep::Look(span, most) => {
                    let round = self.appliers.replicated().round();
                    self.next_id = id;
                    let what = What::Digest;
                    self.effect(CompareEffect::Look { look: id, round, file, span, what, most });
                    return false;
                }
            }
        }
        let unless = piece.as_ref().and_then(|piece| piece.unless);
        let want = Want { id, file, from, most: limit, unless };
        session.send(now, FrameKind::Want, head, want.encode().into());
        taking.asked = settle(end_of(&want), &self.namespace, taking.ranges.as_deref());
        let open = unless.is_none() && matches!(want.from, WantFrom::Items(_) | WantFrom::Blocks(_));
        taking.wanted.push_back(Wanted { id, at, piece, open });
        self.next_id = id;
        self.flush_inbound();
        true
    }

    /// Everything is durable in the store: the control file may say so.
    fn write_whole(&mut self) {
        if self.control.is_being_written() {
            return;
        }
        self.control.end_copy();
        let write = self.write_control();
        if let Some(taking) = &mut self.resync.taking {
            taking.state = State::Control(Some(write));
        }
    }

    /// A write of the control file is done: true if the beginning or the end of a copy waited for it.
    pub(in crate::engine) fn copy_control_written(&mut self, write: u64) -> bool {
        if let Some(leaving) = self.resync.leaving.take_if(|leaving| leaving.step == Step::Control(write)) {
            self.leave_history(leaving);
            return true;
        }
        let whole = self
            .resync
            .taking
            .as_ref()
            .is_some_and(|taking| matches!(taking.state, State::Control(Some(id)) if id == write));
        if whole {
            let taking = self.resync.taking.take();
            let rewound = taking.as_ref().is_some_and(|taking| taking.way() == "rewind");
            self.keep_base(taking.and_then(|taking| taking.base));
            self.roles.becomes_whole();
            self.dirty = true;
            self.tell_whole(rewound);
            // The primary counts on it from the next hello on, which comes at once.
            if let Some(inbound) = self.link.inbound.take() {
                self.effect(LinkEffect::Close { conn: inbound.session.conn, abort: false });
            }
        }
        whole
    }

    /// It failed: true if the beginning or the end of a copy waited for it. It is written again: which one is on disk is not
    /// known.
    pub(in crate::engine) fn copy_control_failed(&mut self, write: u64) -> bool {
        let again = self.now.mono.plus_ms(RETRY_MS);
        if let Some(leaving) = &mut self.resync.leaving
            && leaving.step == Step::Control(write)
        {
            leaving.step = Step::Again(again);
            return true;
        }
        let Some(taking) = &mut self.resync.taking else { return false };
        let waited = matches!(taking.state, State::Control(Some(id)) if id == write);
        if waited {
            taking.state = State::Again(again);
        }
        waited
    }

    /// The copy that is on its way, for `status`.
    pub(in crate::engine) fn copy_view(&self) -> Option<CopyView> {
        let taking = self.resync.taking.as_ref();
        let (here, way, (origin, bytes, size, equal)) = match taking {
            Some(taking) => {
                let Progress { origin, bytes, size, .. } = &taking.progress;
                (true, taking.way(), (origin.seq, *bytes, *size, taking.equal))
            }
            None => {
                let given = self.link.given_copy()?;
                (false, if given.3 > 0 { "digests" } else { "" }, given)
            }
        };
        let rate = self.resync.meter.rate(self.now.mono, bytes);
        let moved = self.replicated().pace().appended.0.saturating_sub(origin.0);
        Some(CopyView { here, origin: origin.0, bytes, size, rate, moved, way: way.to_owned(), equal })
    }

    /// Whether this node is incomplete.
    pub(in crate::engine) fn is_incomplete(&self) -> bool {
        self.roles.stage() == Stage::Incomplete || self.control.role() == Role::Incomplete
    }
}

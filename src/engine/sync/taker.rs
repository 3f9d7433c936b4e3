//! The side of a node that is incomplete: it leaves what it had, asks for every range, and is a standby when all is whole.

use crate::base::limits::CHUNKS_WAITING_MAX;
use crate::base::{Epoch, Fault, FileId, Mono, Seq};
use crate::engine::admin::{CopyView, DoneView};
use crate::engine::core::Core;
use crate::engine::effect::{LinkEffect, Severity, StoreEffect};
use crate::engine::incidents::Matter;
use crate::engine::receiver::{Inbound, Phase};
use crate::engine::roles::Stage;
use crate::format::chunk::{Chunk, Content, CopyBegin, Next, Progress, Want, WantFrom};
use crate::format::control::{Control, Origin, Role};
use crate::format::dptr::DptrKind;
use crate::format::frame::{FrameKind, RefuseCode};
use crate::store::StoreRead;
use crate::store::namespace::{FileInfo, Namespace};
use std::collections::VecDeque;

/// A store that could not begin is asked again after this (milliseconds).
const RETRY_MS: u64 = 250;

/// A copy that this node is given.
#[derive(Debug)]
pub(super) struct Taking {
    state: State,
    /// How far it is with all chunks that came. What is before `next` may still wait for the store.
    progress: Progress,
    /// How far it is with those that the store took.
    stored: Progress,
    /// The want that is not answered yet.
    wanted: Option<u64>,
    /// Chunks that came, each with the progress that it makes, and are not in the store yet: those behind `under_way`
    /// were not handed to it.
    chunks: VecDeque<(Chunk, Progress)>,
    under_way: usize,
}

/// What a copy waits for.
#[derive(Debug)]
enum State {
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
    step: Step,
}

/// What a node that leaves its history waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Nothing of it is under way.
    Drain,
    /// This write of the control file.
    Control(u64),
    /// It failed, and is tried again then.
    Again(Mono),
}

impl Leaving {
    /// Whether nothing was begun.
    pub(super) fn is_idle(&self) -> bool {
        self.step == Step::Drain
    }

    pub(super) fn deadline(&self) -> Option<Mono> {
        match self.step {
            Step::Again(at) => Some(at),
            Step::Drain | Step::Control(_) => None,
        }
    }
}

impl Taking {
    /// As found on disk: `stored` is what the store tells of its progress.
    pub(super) fn found(control: &Control, stored: Option<&Progress>) -> Option<Self> {
        if control.role != Role::Incomplete {
            return None;
        }
        let fits = stored.filter(|stored| stored.origin == control.origin.at);
        let state = if fits.is_some() { State::Taking } else { State::Blank };
        let progress = fits.cloned().unwrap_or_else(|| Progress::at(control.origin.at));
        Some(Self::of(state, progress))
    }

    fn of(state: State, progress: Progress) -> Self {
        Self {
            state,
            stored: progress.clone(),
            progress,
            wanted: None,
            chunks: VecDeque::new(),
            under_way: 0,
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
        self.wanted = None;
        self.chunks.retain(|(chunk, _)| chunk.at <= common);
        self.under_way = self.under_way.min(self.chunks.len());
        let last = self.chunks.back().map(|(_, progress)| progress);
        self.progress = last.unwrap_or(&self.stored).clone();
    }

    /// Whether everything that belongs to the copy is in the store, which shows entry `shown`.
    fn is_whole(&self, shown: Seq) -> bool {
        self.progress.next == Next::Nothing && self.chunks.is_empty() && shown >= self.progress.until
    }
}

/// The first range at or behind `next` that there is in these definitions.
pub(super) fn settle(next: Next, namespace: &Namespace) -> Next {
    let wanted =
        |kind: DptrKind| move |(_, info): &(FileId, &FileInfo)| info.replicated && info.dptr.kind == kind;
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
        self.resync.taking.as_ref().is_some_and(Taking::has_begun)
    }

    /// The primary offers a copy of everything in place of what this node has.
    pub(in crate::engine) fn copy_offered(&mut self, begin: Box<CopyBegin>, epoch: Epoch) {
        let applied = self.appliers.replicated().applied();
        if !self.is_incomplete() && applied > begin.origin.seq {
            let text = format!(
                "the primary offers a copy that begins at entry {}, and entry {applied} is applied here",
                begin.origin.seq
            );
            self.incident_once(Severity::Critical, "history-differs", text.clone());
            return self.refuse_inbound(RefuseCode::History, text);
        }
        if let Err(error) = self.namespace.clone().adopt(&begin.namespace) {
            return self.inbound_fault(&format!("the definitions that a copy begins with: {error}"));
        }
        let Some(inbound) = &mut self.link.inbound else { return };
        inbound.phase = Phase::Leaving;
        self.resync.leaving = Some(Leaving { begin, epoch, step: Step::Drain });
        self.dirty = true;
    }

    /// Carries the beginning of a copy on as far as it can go now: nothing under way, then the control file.
    fn pump_leaving(&mut self) {
        let Some(leaving) = &self.resync.leaving else { return };
        let idle = self.replicated().is_quiet() && self.appliers.replicated().is_idle();
        let due = match leaving.step {
            Step::Drain => idle,
            Step::Control(_) => false,
            Step::Again(at) => self.now.mono >= at,
        };
        if !due || self.control.is_being_written() {
            return;
        }
        let (epoch, at, table) = (leaving.epoch, leaving.begin.origin, leaving.begin.table.clone());
        if leaving.step == Step::Drain {
            let first_segment = self.replicated_mut().hold();
            self.control.begin_copy(epoch, Origin { at, first_segment }, table);
        }
        let write = self.write_control();
        if let Some(leaving) = &mut self.resync.leaving {
            leaving.step = Step::Control(write);
        }
    }

    /// The control file says that this node is incomplete: now what it had may go.
    fn leave_history(&mut self, begin: Box<CopyBegin>, epoch: Epoch) {
        let origin = begin.origin;
        match self.namespace.adopt(&begin.namespace) {
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
        let text = format!(
            "this node is given a copy of everything that is replicated, from entry {} on; until that is whole it can \
             take nothing over",
            origin.seq
        );
        self.settled(&[Matter::EntriesMissing]);
        self.incident(Severity::Notice, "copying", text);
        self.resync.taking = Some(Taking::of(State::Beginning(begin.clone(), None), Progress::of(&begin)));
        self.roles.becomes_incomplete();
        self.effect(StoreEffect::BeginCopy { begin });
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
        if taking.wanted.take() != Some(chunk.id) || !answers(&chunk, &taking.progress.next) {
            return self.inbound_fault("a chunk came that is not what was wanted");
        }
        if chunk.at != end {
            let text = format!("a chunk came that belongs behind entry {}, and not behind {end}", chunk.at);
            return self.inbound_fault(&text);
        }
        taking.progress.until = taking.progress.until.max(chunk.until);
        taking.progress.bytes += chunk.content.bytes();
        self.resync.meter.look(self.now.mono, taking.progress.bytes);
        taking.progress.next = settle(behind(&chunk, &taking.progress.next), &self.namespace);
        let progress = taking.progress.clone();
        taking.chunks.push_back((chunk, progress));
        self.dirty = true;
    }

    /// The store took a chunk.
    pub(in crate::engine) fn chunk_taken(&mut self, round: crate::base::Round, id: u64) {
        if self.appliers.replicated_mut().goes_on(round)
            && let Some(taking) = &mut self.resync.taking
        {
            taking.taken(id);
        }
    }

    /// Asks for the next range, and ends the copy when there is none.
    pub(in crate::engine) fn pump_taking(&mut self) {
        self.pump_leaving();
        let now = self.now.mono;
        let shown = self.appliers.replicated().visible();
        let Some(taking) = &mut self.resync.taking else { return };
        let whole = taking.is_whole(shown);
        match &mut taking.state {
            State::Blank => {}
            State::Beginning(begin, retry) => {
                if retry.take_if(|at| now >= *at).is_some() {
                    let begin = begin.clone();
                    self.effect(StoreEffect::BeginCopy { begin });
                }
            }
            State::Taking if whole => {
                taking.state = State::Checkpoint;
                self.checkpoint.force();
                self.dirty = true;
            }
            State::Taking => self.want_next(),
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

    fn want_next(&mut self) {
        let (head, now) = (self.head(), self.now);
        let id = self.next_id + 1;
        let most = self.config.chunk_bytes;
        let Some(taking) = &mut self.resync.taking else { return };
        if taking.wanted.is_some() || taking.chunks.len() >= CHUNKS_WAITING_MAX {
            return;
        }
        // Definitions change while a copy goes on.
        taking.progress.next = settle(taking.progress.next.clone(), &self.namespace);
        let (file, from) = match taking.progress.next.clone() {
            Next::Items(file, after) => (file, WantFrom::Items(after)),
            Next::Blocks(file, offset) => (file, WantFrom::Blocks(offset)),
            Next::Nothing => return,
        };
        let Some(Inbound { session, phase: Phase::Following(_), .. }) = &mut self.link.inbound else {
            return;
        };
        let want = Want { id, file, from, most };
        session.send(now, FrameKind::Want, head, want.encode().into());
        taking.wanted = Some(id);
        self.next_id = id;
        self.flush_inbound();
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
            self.leave_history(leaving.begin, leaving.epoch);
            return true;
        }
        let whole = self
            .resync
            .taking
            .as_ref()
            .is_some_and(|taking| matches!(taking.state, State::Control(Some(id)) if id == write));
        if whole {
            self.resync.taking = None;
            self.roles.becomes_whole();
            self.dirty = true;
            let text = "the copy is whole: this node is a standby that can take over".to_owned();
            self.incident(Severity::Notice, "whole", text);
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
        let given = || self.link.given_copy().map(|(origin, bytes, size)| (false, origin, bytes, size));
        let taking = self.resync.taking.as_ref().map(|taking| &taking.progress);
        let taken = taking.map(|progress| (true, progress.origin.seq, progress.bytes, progress.size));
        let (here, origin, bytes, size) = taken.or_else(given)?;
        let rate = self.resync.meter.rate(self.now.mono, bytes);
        let moved = self.replicated().pace().appended.0.saturating_sub(origin.0);
        Some(CopyView { here, origin: origin.0, bytes, size, rate, moved })
    }

    /// `resync`: the peer may be given a copy, at most so fast.
    pub(in crate::engine) fn resync(&mut self, token: u64, rate: Option<u64>) {
        if !self.serving() {
            let message = format!("this node does not serve as primary (it is {})", self.roles.word());
            return self.reply_no(
                token,
                message,
                "say it on the primary: that is the node whose content is copied",
            );
        }
        self.resync.asked = true;
        self.resync.pace.set_rate(rate);
        self.link.dial_now(self.now.mono);
        self.dirty = true;
        self.reply_value(token, DoneView { done: true });
    }

    /// Whether this node is incomplete.
    pub(in crate::engine) fn is_incomplete(&self) -> bool {
        self.roles.stage() == Stage::Incomplete || self.control.role() == Role::Incomplete
    }
}

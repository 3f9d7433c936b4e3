//! Blocks of a volume that are rotten on one node and come again from the other: on the standby as a repair of a compare
//! does, on the primary from the standby.
//!
//! The primary asks directly behind the batch that ends with the last entry sent. The standby looks when it has applied
//! exactly that. What it gives is right on the primary as long as no later entry touched the range: else the primary asks
//! again. A file that is stale, is being copied, or whose changes go to the local journal now has to wait. Whoever answers reads what it gives by its checksums, so rot is copied nowhere.

use super::compare::{Flight, Purpose};
use crate::base::limits::{COMPARE_ASKS_MAX, HEALS_MAX};
use crate::base::{ConnId, Fault, FileId, JournalKind, Round, Seq};
use crate::engine::core::Core;
use crate::engine::effect::{CompareEffect, Severity};
use crate::engine::incidents::Matter;
use crate::format::batch::Batch;
use crate::format::chunk::{Chunk, Content};
use crate::format::compare::{Answer, Ask, Found, Span, What};
use crate::format::dptr::{FileState, LoggingMode};
use crate::format::frame::{FEATURE_COMPARE, FrameKind};
use crate::store::StoreRead;
use std::collections::VecDeque;

/// A range that users write to all the time is asked for so often.
const TRIES_MAX: u32 = 16;

/// A range of a volume that is rotten here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bad {
    file: FileId,
    offset: u64,
    len: u64,
    tries: u32,
}

/// What a primary asked its standby for.
#[derive(Debug)]
struct Asked {
    id: u64,
    conn: ConnId,
    bad: Bad,
    at: Seq,
    /// A later entry changed something in the range.
    touched: bool,
    content: Option<Chunk>,
    given: bool,
}

/// What is rotten on this node and may come from the other.
#[derive(Debug, Default)]
pub(super) struct Heals {
    waiting: VecDeque<Bad>,
    asked: Option<Asked>,
}

impl Heals {
    fn add(&mut self, bad: Bad) {
        let known = |other: &Bad| (other.file, other.offset) == (bad.file, bad.offset);
        let asked = self.asked.as_ref().is_some_and(|asked| known(&asked.bad));
        if self.waiting.len() < HEALS_MAX && !asked && !self.waiting.iter().any(known) {
            self.waiting.push_back(bad);
        }
    }

    /// The range is asked for again later.
    pub(super) fn again(&mut self, file: FileId, span: &Span) {
        if let Span::Blocks { offset, len } = *span {
            self.add(Bad { file, offset, len, tries: 0 });
        }
    }

    /// On a primary: what came, in a store that was given everything up to `submitted`.
    pub(super) fn due(&mut self, submitted: Seq, round: Round) -> Option<CompareEffect> {
        let asked = self.asked.as_mut()?;
        if asked.given || asked.touched || submitted < asked.at {
            return None;
        }
        let chunk = asked.content.clone()?;
        asked.given = true;
        Some(CompareEffect::Repair { look: asked.id, round, chunk })
    }

    pub(super) fn take_back(&mut self) {
        if let Some(asked) = &mut self.asked {
            asked.given = false;
        }
    }

    fn note(&mut self, batch: &Batch) {
        let Some(asked) = &mut self.asked else { return };
        if asked.given || asked.touched || batch.header().last_seq() <= asked.at || !batch.changes_volumes() {
            return;
        }
        let Bad { file, offset, len, .. } = asked.bad;
        asked.touched = batch.entries().filter(|(_, entry)| entry.file == file || entry.kind.defines()).any(
            |(_, entry)| match entry.block_change() {
                Some(change) => change.offset < offset + len && change.end() > offset,
                None => entry.kind.defines(),
            },
        );
    }
}

impl<S: StoreRead> Core<S> {
    /// Blocks of a volume are rotten here.
    pub(in crate::engine) fn wants_healing(&mut self, file: FileId, offset: u64, len: u64) {
        if self.namespace.file(file).is_none_or(|info| !info.replicated) {
            return;
        }
        let (end, step) = (offset.saturating_add(len), u64::from(self.config.compare_range).max(4096));
        let mut at = offset;
        while at < end {
            let len = step.min(end - at);
            self.compares.heals.add(Bad { file, offset: at, len, tries: 0 });
            at += len;
        }
        self.dirty = true;
    }

    /// Whether the standby has of a file what this node, the primary, has: not where the local journal holds changes of it.
    fn is_alike(&self, file: FileId) -> bool {
        let whole = self.namespace.file(file).is_some_and(|info| {
            info.dptr.state == FileState::Whole && info.journal == JournalKind::Replicated
        });
        whole && self.namespace.mode() != LoggingMode::Paused
    }

    /// As the primary: what came, or was asked for, is of no use where the standby has something else.
    pub(super) fn drop_unhealable(&mut self) {
        let asked = self.compares.heals.asked.as_ref().filter(|asked| !asked.given && self.is_primary());
        let Some(bad) = asked.map(|asked| asked.bad).filter(|bad| !self.is_alike(bad.file)) else { return };
        let heals = &mut self.compares.heals;
        if heals.asked.take_if(|asked| asked.content.is_some()).is_some() {
            heals.add(bad);
        } else if let Some(asked) = &mut heals.asked {
            // The answer is still to come.
            asked.touched = true;
        }
    }

    /// A batch of the replicated journal is given to the store.
    pub(in crate::engine) fn note_healing(&mut self, batch: &Batch) {
        self.compares.heals.note(batch);
    }

    /// As the primary: asks the standby for the next range that is rotten here.
    pub(super) fn pump_healing(&mut self) {
        let applier = self.appliers.replicated();
        let shown = applier.submitted().max(applier.applied());
        let (head, now, id) = (self.head(), self.now, self.next_id + 1);
        let able = self.peer.features() & FEATURE_COMPARE != 0 && !self.peer.is_incomplete();
        let next = self.compares.heals.waiting.iter().position(|bad| self.is_alike(bad.file));
        let stream = self.link.stream().filter(|_| able);
        let heals = &mut self.compares.heals;
        let conn = stream.as_ref().map(|(session, _)| session.conn);
        if let Some(asked) = heals.asked.take_if(|asked| Some(asked.conn) != conn && !asked.given) {
            heals.add(asked.bad);
        }
        let Some((session, stream)) = stream else { return };
        let sent = stream.sent_up_to();
        if heals.asked.is_some() || sent < shown {
            return;
        }
        let Some(bad) = next.and_then(|at| heals.waiting.remove(at)) else { return };
        let Bad { file, offset, len, .. } = bad;
        let ask = Ask {
            id,
            at: sent,
            file,
            what: What::Content,
            most: u32::MAX,
            span: Span::Blocks { offset, len },
        };
        let payload = ask.encode();
        let conn = session.conn;
        heals.asked = Some(Asked { id, conn, bad, at: sent, touched: false, content: None, given: false });
        stream.sends(payload.len());
        session.send(now, FrameKind::Ask, head, payload.into());
        self.next_id = id;
        self.dirty = true;
    }

    /// As the primary: the standby answered.
    pub(super) fn healing_answered(&mut self, answer: Answer) {
        let Some(asked) = self.compares.heals.asked.as_mut().filter(|asked| asked.content.is_none()) else {
            return self.outbound_fault("an answer came to what nobody asked");
        };
        let Bad { file, offset, len, .. } = asked.bad;
        let right = |chunk: &Chunk| {
            let whole = matches!(&chunk.content, Content::Blocks { offset: at, len: some, .. }
                if (*at, *some) == (offset, len));
            whole && chunk.file == file
        };
        if answer.id != asked.id || answer.at != asked.at {
            return self.outbound_fault("an answer came that is not to what was asked");
        }
        match answer.found {
            Found::Content(chunk) if right(&chunk) => {
                asked.content = Some(chunk);
                if asked.touched {
                    let bad = Bad { tries: asked.bad.tries + 1, ..asked.bad };
                    self.compares.heals.asked = None;
                    if bad.tries < TRIES_MAX {
                        self.compares.heals.add(bad);
                    }
                }
            }
            Found::Content(_) => self.outbound_fault("content came that is not what was asked for"),
            found => {
                self.compares.heals.asked = None;
                self.not_healed(file, offset, len, &found);
            }
        }
        self.dirty = true;
    }

    /// As the primary: what came was written, or was not; false if it is none of that.
    pub(super) fn heal_ended(&mut self, look: u64, result: Result<(), Fault>) -> bool {
        let Some(asked) = self.compares.heals.asked.take_if(|asked| asked.id == look) else { return false };
        let Bad { file, offset, len, .. } = asked.bad;
        if result.is_ok() {
            self.healed(file, offset, len, asked.at);
        }
        true
    }

    /// As the standby: asks the primary for what is rotten here.
    pub(super) fn heal_here(&mut self) {
        while self.can_compare() && self.compares.under_way() < COMPARE_ASKS_MAX {
            let Some(Bad { file, offset, len, .. }) = self.compares.heals.waiting.pop_front() else { return };
            let _ = self.ask(file, Span::Blocks { offset, len }, What::Content, Purpose::Heal);
        }
    }

    /// As the standby: what was asked for came, and was written.
    pub(super) fn healed_here(&mut self, flight: &Flight) {
        let Span::Blocks { offset, len } = flight.span else { return };
        match &flight.theirs {
            Some(Found::Content(_)) => self.healed(flight.file, offset, len, flight.at.unwrap_or_default()),
            Some(found) => self.not_healed(flight.file, offset, len, &found.clone()),
            None => {}
        }
    }

    fn healed(&mut self, file: FileId, offset: u64, len: u64, at: Seq) {
        let place = self.place_words(file, offset, len);
        let text = format!("{place} was rotten here, and came again from the peer as it was at entry {at}");
        self.incident(Severity::Notice, Matter::Healed, text);
        self.written_anew(file, offset, offset + len);
        // It stands in no journal.
        self.checkpoint.force();
    }

    fn not_healed(&mut self, file: FileId, offset: u64, len: u64, found: &Found) {
        if *found != Found::Unread {
            return;
        }
        let place = self.place_words(file, offset, len);
        let text =
            format!("{place} is rotten here, and cannot be read on the peer either: no node has it whole");
        self.incident_once(Severity::Critical, Matter::BothDamaged, text);
    }

    fn place_words(&self, file: FileId, offset: u64, len: u64) -> String {
        let name = self.namespace.file(file).map_or_else(|| format!("file {file}"), |info| info.key.clone());
        format!("volume {name}, bytes {offset} to {},", (offset + len).saturating_sub(1))
    }
}

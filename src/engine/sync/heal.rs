//! Blocks of a volume, or items, that are rotten on one node and come again from the other: on the standby as a repair of a
//! compare does, on the primary from the standby.
//!
//! The primary asks directly behind the batch that ends with the last entry sent. The standby looks when it has applied
//! exactly that. What it gives is right on the primary as long as no later entry touched the range: else the primary asks
//! again. A file that is stale, is being copied, or whose changes go to the local journal now has to wait. Whoever answers reads what it gives by its checksums, so rot is copied nowhere.
//!
//! Where a block of a table is rotten nobody knows which items it held, so a whole range of ids is asked for, part by part.

use super::compare::{Flight, Purpose};
use super::findings::span_words;
use crate::base::limits::{COMPARE_ASKS_MAX, HEALS_MAX};
use crate::base::{ConnId, Fault, FileId, JournalKind, Round, Seq};
use crate::engine::core::Core;
use crate::engine::damage::Spot;
use crate::engine::effect::{CompareEffect, Severity, StoreEffect};
use crate::engine::incidents::Matter;
use crate::format::batch::Batch;
use crate::format::chunk::{Chunk, Content};
use crate::format::compare::{Answer, Ask, Found, Span, What};
use crate::format::dptr::{FileState, LoggingMode};
use crate::format::entry::Entry;
use crate::format::frame::{FEATURE_COMPARE, FrameKind};
use crate::store::{RottenItems, StoreRead};
use bytes::Bytes;
use std::collections::{BTreeSet, VecDeque};

/// A range that users write to all the time is asked for so often.
const TRIES_MAX: u32 = 16;
/// So little of it at once in the end (bytes).
const ITEMS_LEAST: u32 = 512;
/// Items that users wrote since a range was asked for; with more of them it is asked for again.
const TOUCHED_MAX: usize = 1024;

/// A range that is rotten here.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Bad {
    file: FileId,
    span: Span,
    tries: u32,
}

impl Bad {
    /// Whether both begin at the same place.
    fn is_at(&self, other: &Self) -> bool {
        let at = match (&self.span, &other.span) {
            (Span::Blocks { offset, .. }, Span::Blocks { offset: at, .. }) => offset == at,
            (Span::Items { after, .. }, Span::Items { after: at, .. }) => after == at,
            _ => false,
        };
        at && self.file == other.file
    }

    fn again(&self) -> Self {
        Self { tries: self.tries + 1, ..self.clone() }
    }
}

/// What is left of a span behind what a chunk of it holds.
fn rest_of(span: &Span, chunk: &Chunk) -> Option<Span> {
    match (span, &chunk.content) {
        (Span::Items { through, .. }, Content::Items { through: reached, .. })
            if !chunk.ends && reached != through =>
        {
            Some(Span::Items { after: reached.clone(), through: through.clone() })
        }
        _ => None,
    }
}

/// What of a span a chunk holds.
fn part_of(span: &Span, chunk: &Chunk) -> Span {
    match (span, rest_of(span, chunk)) {
        (Span::Items { after, .. }, Some(Span::Items { after: reached, .. })) => {
            Span::Items { after: after.clone(), through: reached }
        }
        _ => span.clone(),
    }
}

/// Whether an item is in a span.
fn is_in(id: &[u8], span: &Span) -> bool {
    matches!(span, Span::Items { after, through } if id > &after[..] && (through.is_empty() || id <= &through[..]))
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
    /// Items of the file that later entries changed, as long as it is not known how far the content reaches.
    items: BTreeSet<Bytes>,
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
        let asked = self.asked.as_ref().is_some_and(|asked| asked.bad.is_at(&bad));
        if self.waiting.len() < HEALS_MAX && !asked && !self.waiting.iter().any(|known| known.is_at(&bad)) {
            self.waiting.push_back(bad);
        }
    }

    /// The range is asked for again later.
    pub(super) fn again(&mut self, file: FileId, span: &Span) {
        self.add(Bad { file, span: span.clone(), tries: 0 });
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
        let items = matches!(asked.bad.span, Span::Items { .. });
        let of_interest = items || batch.changes_volumes();
        if asked.given || asked.touched || batch.header().last_seq() <= asked.at || !of_interest {
            return;
        }
        let file = asked.bad.file;
        for (_, entry) in batch.entries().filter(|(_, entry)| entry.file == file || entry.kind.defines()) {
            asked.touched |= asked.is_touched_by(&entry);
        }
    }
}

impl Asked {
    fn new(id: u64, conn: ConnId, bad: Bad, at: Seq) -> Self {
        Self { id, conn, bad, at, touched: false, items: BTreeSet::new(), content: None, given: false }
    }

    fn is_touched_by(&mut self, entry: &Entry<'_>) -> bool {
        if entry.kind.defines() {
            return true;
        }
        match (&self.bad.span, entry.block_change()) {
            (Span::Blocks { offset, len }, Some(change)) => {
                change.offset < *offset + *len && change.end() > *offset
            }
            (span @ Span::Items { .. }, None) if is_in(entry.id, span) => match &self.content {
                Some(chunk) => is_in(entry.id, &part_of(span, chunk)),
                None => {
                    self.items.insert(Bytes::copy_from_slice(entry.id));
                    self.items.len() > TOUCHED_MAX
                }
            },
            _ => false,
        }
    }

    /// The content came.
    fn holds(&mut self, chunk: Chunk) {
        let part = part_of(&self.bad.span, &chunk);
        self.touched |= self.items.iter().any(|id| is_in(id, &part));
        self.content = Some(chunk);
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
            self.compares.heals.again(file, &Span::Blocks { offset: at, len });
            at += len;
        }
        self.dirty = true;
    }

    /// Items are rotten here.
    pub(in crate::engine) fn items_rotten(&mut self, items: Vec<RottenItems>) {
        for RottenItems { file, after, through } in items {
            let Some(info) = self.namespace.file(file) else { continue };
            let replicated = info.replicated;
            let spot = Spot::After(after.to_vec());
            let span = Span::Items { after, through };
            if self.damage.is_new(file, spot) {
                let place = self.place_words(file, &span);
                let next = if replicated {
                    "they come again from the peer, if that has them whole"
                } else {
                    "the file is not replicated, so put them again from a save"
                };
                let text =
                    format!("{place} cannot be read from the store: a block of a table is rotten; {next}");
                self.incident(Severity::Critical, Matter::ItemDamaged, text);
            }
            if replicated {
                self.compares.heals.again(file, &span);
            }
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
        let Some(bad) = asked.map(|asked| &asked.bad).filter(|bad| !self.is_alike(bad.file)).cloned() else {
            return;
        };
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
        let range = self.config.compare_range;
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
        // The less is asked for, the less of it users touch meanwhile.
        let most = match bad.span {
            Span::Items { .. } => range.checked_shr(bad.tries).unwrap_or(0).max(ITEMS_LEAST),
            _ => u32::MAX,
        };
        let ask = Ask { id, at: sent, file: bad.file, what: What::Content, most, span: bad.span.clone() };
        let payload = ask.encode();
        heals.asked = Some(Asked::new(id, session.conn, bad, sent));
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
        let Bad { file, span, .. } = asked.bad.clone();
        let right = |chunk: &Chunk| {
            let whole = match (&chunk.content, &span) {
                (Content::Blocks { offset, len, .. }, Span::Blocks { offset: at, len: all }) => {
                    (offset, len) == (at, all)
                }
                (Content::Items { after, through, .. }, Span::Items { after: from, through: until }) => {
                    after == from && (until.is_empty() || (!chunk.ends && through <= until))
                }
                _ => false,
            };
            whole && chunk.file == file
        };
        if answer.id != asked.id || answer.at != asked.at {
            return self.outbound_fault("an answer came that is not to what was asked");
        }
        match answer.found {
            Found::Content(chunk) if right(&chunk) => {
                asked.holds(chunk);
                if asked.touched {
                    let bad = asked.bad.again();
                    self.compares.heals.asked = None;
                    if bad.tries < TRIES_MAX {
                        self.compares.heals.add(bad);
                    }
                }
            }
            Found::Content(_) => self.outbound_fault("content came that is not what was asked for"),
            found => {
                self.compares.heals.asked = None;
                self.not_healed(file, &span, &found);
            }
        }
        self.dirty = true;
    }

    /// As the primary: what came was written, or was not; false if it is none of that.
    pub(super) fn heal_ended(&mut self, look: u64, result: Result<(), Fault>) -> bool {
        let Some(asked) = self.compares.heals.asked.take_if(|asked| asked.id == look) else { return false };
        if let (Ok(()), Some(chunk)) = (result, &asked.content) {
            self.healed(asked.bad.file, &asked.bad.span, chunk, asked.at);
        }
        true
    }

    /// As the standby: asks the primary for what is rotten here.
    pub(super) fn heal_here(&mut self) {
        while self.can_compare() && self.compares.under_way() < COMPARE_ASKS_MAX {
            let Some(Bad { file, span, .. }) = self.compares.heals.waiting.pop_front() else { return };
            let _ = self.ask(file, span, What::Content, Purpose::Heal);
        }
    }

    /// As the standby: what was asked for came, and was written.
    pub(super) fn healed_here(&mut self, flight: &Flight) {
        match &flight.theirs {
            Some(Found::Content(chunk)) => {
                self.healed(flight.file, &flight.span, chunk, flight.at.unwrap_or_default());
            }
            Some(found) => self.not_healed(flight.file, &flight.span, found),
            None => {}
        }
    }

    /// What a chunk holds of a span is whole again.
    fn healed(&mut self, file: FileId, span: &Span, chunk: &Chunk, at: Seq) {
        let part = part_of(span, chunk);
        let place = self.place_words(file, &part);
        let text =
            format!("{place} were rotten here, and came again from the peer as they were at entry {at}");
        self.incident(Severity::Notice, Matter::Healed, text);
        match part {
            Span::Blocks { offset, len } => self.written_anew(file, offset, offset + len),
            _ => {
                self.damage.items_are_whole(file);
                if let Some(rest) = rest_of(span, chunk) {
                    self.compares.heals.again(file, &rest);
                }
                let more = |bad: &Bad| matches!(bad.span, Span::Items { .. });
                if !self.compares.heals.waiting.iter().any(more) {
                    self.effect(StoreEffect::FindRot);
                }
            }
        }
        // It stands in no journal.
        self.checkpoint.force();
    }

    fn not_healed(&mut self, file: FileId, span: &Span, found: &Found) {
        if *found != Found::Unread {
            return;
        }
        let place = self.place_words(file, span);
        let text =
            format!("{place} are rotten here, and cannot be read on the peer either: no node has them whole");
        self.incident_once(Severity::Critical, Matter::BothDamaged, text);
    }

    fn place_words(&self, file: FileId, span: &Span) -> String {
        let name = self.namespace.file(file).map_or_else(|| format!("file {file}"), |info| info.key.clone());
        match span {
            Span::Blocks { .. } => format!("volume {name}, {},", span_words(span)),
            _ => format!("file {name}, {},", span_words(span)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::FileId;

    fn items(after: &'static str, through: &'static str) -> Span {
        Span::Items { after: Bytes::from(after), through: Bytes::from(through) }
    }

    fn chunk((after, through): (&'static str, &'static str), ends: bool) -> Chunk {
        let (after, through) = (Bytes::from(after), Bytes::from(through));
        let content = Content::Items { after, through, items: Vec::new() };
        Chunk { id: 5, file: FileId(3), at: Seq(9), until: Seq(9), content, ends }
    }

    #[test]
    fn what_a_chunk_leaves_of_a_range_is_asked_for_again_and_nothing_else() {
        let all = items("b", "m");
        assert_eq!(rest_of(&all, &chunk(("b", "f"), false)), Some(items("f", "m")));
        assert_eq!(part_of(&all, &chunk(("b", "f"), false)), items("b", "f"));
        for whole in [chunk(("b", "m"), false), chunk(("b", ""), true)] {
            assert_eq!(rest_of(&all, &whole), None);
            assert_eq!(part_of(&all, &whole), all);
        }
        // A range without an end goes on until the file ends.
        assert_eq!(rest_of(&items("b", ""), &chunk(("b", "x"), false)), Some(items("x", "")));
        assert!(
            is_in(b"f", &items("b", "f")) && !is_in(b"b", &items("b", "f")) && is_in(b"z", &items("b", ""))
        );
    }

    #[test]
    fn content_is_written_once_in_a_store_that_was_given_all_of_its_state_and_no_later_change_of_it() {
        let bad = Bad { file: FileId(3), span: items("b", "m"), tries: 0 };
        let heals = |content, touched| {
            let mut asked = Asked::new(5, ConnId(1), bad.clone(), Seq(9));
            (asked.content, asked.touched) = (content, touched);
            Heals { asked: Some(asked), ..Heals::default() }
        };
        let there = || Some(chunk(("b", "m"), false));
        for (content, touched, submitted, due) in [
            (None, false, 9, false),
            (there(), false, 8, false),
            (there(), true, 9, false),
            (there(), false, 9, true),
            (there(), false, 20, true),
        ] {
            let mut heals = heals(content, touched);
            assert_eq!(heals.due(Seq(submitted), Round(1)).is_some(), due, "{touched} {submitted}");
            assert!(heals.due(Seq(submitted), Round(1)).is_none(), "it is given once");
            heals.take_back();
            assert_eq!(heals.due(Seq(submitted), Round(2)).is_some(), due, "a new round gives it again");
        }
    }
}

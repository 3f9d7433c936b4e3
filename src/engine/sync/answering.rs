//! The primary's side of a compare: it chooses the entry at which both nodes look, marks it in the stream, looks there itself
//! and answers. Neither the stream nor updates wait for that.

use crate::base::limits::COMPARE_ASKS_MAX;
use crate::base::{Round, Seq};
use crate::engine::core::Core;
use crate::engine::effect::CompareEffect;
use crate::engine::event::CompareEvent;
use crate::format::compare::{Answer, Ask, Found, Mark, Reached, Span};
use crate::format::frame::FrameKind;
use crate::pair::Frame;
use crate::store::StoreRead;
use bytes::Bytes;
use std::collections::VecDeque;

/// Bytes given to the driver and not yet taken, above which no ask is begun: batches go first.
const UNSENT_MAX: u64 = 1 << 20;

/// What a peer that is streamed to asks for, and how far that is.
#[derive(Debug, Default)]
pub(in crate::engine) struct Answering {
    asks: VecDeque<Ask>,
    /// Those that are answered now, in order: while one is hashed, the next one is read.
    now: VecDeque<Now>,
    reached: Reached,
}

/// Looks that are answered at once.
const NOW_MAX: usize = 2;

/// An ask that is answered now, with its place and span.
#[derive(Debug)]
struct Now {
    ask: Ask,
    look: u64,
    marked: bool,
    given: bool,
    found: Option<Found>,
}

impl Now {
    /// What is of another moment says nothing.
    fn looked(&mut self, at: Seq, found: Found) {
        self.found = Some(if at == self.ask.at { found } else { Found::Unread });
    }
}

impl Answering {
    /// Whether the batch behind entry `sent` may go: not before a mark that stands there.
    pub(in crate::engine) fn lets_go_on(&self, sent: Seq) -> bool {
        self.now.iter().all(|now| now.marked || now.ask.at != sent)
    }

    /// The look that is due in a store that was given everything up to `submitted`.
    pub(super) fn due(&mut self, submitted: Seq, round: Round) -> Option<CompareEffect> {
        let now = self.now.iter_mut().find(|now| !now.given && now.ask.at == submitted)?;
        now.given = true;
        let Ask { file, what, most, span, .. } = now.ask.clone();
        Some(CompareEffect::Look { look: now.look, round, file, span, what, most })
    }

    /// A round of the store failed: a look that was not answered is given again.
    pub(super) fn take_back(&mut self) {
        self.now.iter_mut().for_each(|now| now.given &= now.found.is_some());
    }

    /// Begins with the next ask, to be looked at behind entry `at`; an answer that needs no look comes back.
    fn begin(&mut self, at: Seq, look: u64) -> Option<Answer> {
        // Where items go on is known only once what is before them was looked at.
        let waits = |ask: &Ask| match ask.span {
            Span::Blocks { .. } => self.now.len() >= NOW_MAX,
            _ => !self.now.is_empty(),
        };
        if self.asks.front().is_none_or(waits) {
            return None;
        }
        let mut ask = self.asks.pop_front()?;
        if let Span::Behind(before) = ask.span {
            let found = match self.reached.of(before) {
                Some(Some(after)) => {
                    ask.span = Span::Items { after: after.clone(), through: Bytes::new() };
                    None
                }
                Some(None) => Some(Found::Over),
                None => Some(Found::Unread),
            };
            if let Some(found) = found {
                self.reached.set(ask.id, None);
                return Some(Answer { id: ask.id, at, found });
            }
        }
        ask.at = at;
        self.now.push_back(Now { ask, look, marked: false, given: false, found: None });
        None
    }

    /// The mark that is to be sent before any other batch, once everything up to entry `sent` is.
    fn mark(&mut self, sent: Seq) -> Option<Mark> {
        let now = self.now.iter_mut().find(|now| !now.marked).filter(|now| now.ask.at == sent)?;
        now.marked = true;
        Some(Mark { id: now.ask.id, at: now.ask.at, span: now.ask.span.clone() })
    }

    /// The answer whose mark was sent.
    fn answer(&mut self) -> Option<Answer> {
        let is_known = |now: &Now| now.marked && now.found.is_some();
        let now = if self.now.front().is_some_and(is_known) { self.now.pop_front()? } else { return None };
        let found = now.found?;
        let reached = match &found {
            Found::Digest(digest) => digest.reached.clone(),
            _ => None,
        };
        self.reached.set(now.ask.id, reached);
        Some(Answer { id: now.ask.id, at: now.ask.at, found })
    }

    /// The ask that this look is for.
    fn of(&mut self, look: u64) -> Option<&mut Now> {
        self.now.iter_mut().find(|now| now.look == look && now.given)
    }
}

impl<S: StoreRead> Core<S> {
    /// A frame that belongs to a compare, from the peer that is streamed to.
    pub(in crate::engine) fn asked_frame(&mut self, frame: Frame) {
        self.dirty = true;
        match frame {
            Frame::Ask(ask) => {
                let Some((_, stream)) = self.link.stream() else { return };
                if stream.answering.asks.len() >= COMPARE_ASKS_MAX {
                    return self.outbound_fault("it asks for more looks at once than it may");
                }
                stream.answering.asks.push_back(ask);
            }
            Frame::Answer(answer) => self.healing_answered(*answer),
            Frame::Report(report) => self.compare_reported(*report),
            _ => {}
        }
    }

    /// Goes on with what the peer asks for; whether it sent something that stands before the next batch.
    pub(in crate::engine) fn pump_answering(&mut self) -> bool {
        self.pump_healing();
        let applier = self.appliers.replicated();
        let shown = applier.submitted().max(applier.applied());
        let (head, now, look) = (self.head(), self.now, self.next_id + 1);
        let Some((session, stream)) = self.link.stream() else { return false };
        let sent = stream.sent_up_to();
        let (mut out, before) = (Vec::new(), stream.answering.now.len());
        if stream.has_room(UNSENT_MAX) {
            let over = stream.answering.begin(shown.max(sent), look);
            out.extend(over.map(|answer| (FrameKind::Answer, answer.encode())));
        }
        // The store may be at the place of what was begun already.
        let begun = stream.answering.now.len() > before;
        let mark = stream.answering.mark(sent);
        let marked = mark.is_some();
        out.extend(mark.map(|mark| (FrameKind::Mark, mark.encode())));
        out.extend(stream.answering.answer().map(|answer| (FrameKind::Answer, answer.encode())));
        let said = !out.is_empty();
        for (kind, payload) in out {
            stream.sends(payload.len());
            session.send(now, kind, head, payload.into());
        }
        if begun {
            self.next_id = look;
        }
        self.dirty |= said || begun;
        marked
    }

    /// What was done for a compare.
    pub(in crate::engine) fn compare_event(&mut self, event: CompareEvent) {
        match event {
            CompareEvent::Known { kept } => self.compares_known(*kept),
            CompareEvent::Looked { look, found, .. } if self.resync.looked(look, &found) => self.dirty = true,
            CompareEvent::Looked { look, at, found } => {
                let stream = self.link.stream();
                match stream.and_then(|(_, stream)| stream.answering.of(look)) {
                    Some(now) => now.looked(at, found),
                    None => self.looked(look, at, found),
                }
            }
            CompareEvent::Repaired { look, result } => self.repaired(look, result),
            CompareEvent::Kept => self.compares.keeping = self.compares.keeping.saturating_sub(1),
        }
    }
}

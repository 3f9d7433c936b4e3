//! The standby's side of a compare: it asks for looks, looks at the same moment itself, holds one against the other, and
//! takes the primary's content where it is to repair. The primary's content is never changed by one.
//!
//! - Invariant: both looks at a range show exactly the history up to the mark (I-45).
//! - Invariant: a range is made what the primary has at a mark when the standby is exactly there: until that came, nothing
//!   beyond the mark is applied, for [`COMPARE_HOLD_MS`] at most.

use super::certificate::Run;
use super::findings::{fits, reaches};
use super::heal::Heals;
use crate::base::limits::{COMPARE_ASKS_MAX, COMPARE_HOLD_MS};
use crate::base::{Fault, FileId, Mono, Round, Seq};
use crate::engine::core::Core;
use crate::engine::effect::CompareEffect;
use crate::engine::receiver::{Inbound, Phase};
use crate::format::chunk::{Chunk, Content};
use crate::format::compare::{Answer, Ask, Found, Mark, Reached, Report, Span, What};
use crate::format::compared::Compared;
use crate::format::frame::{FEATURE_COMPARE, FrameKind};
use crate::pair::Frame;
use crate::store::StoreRead;
use std::collections::VecDeque;
use std::ops::Range;

/// Whether the next batch may be given to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine) enum Place {
    /// A look or a repair went first.
    Taken,
    /// Not before content came that belongs before it.
    Held,
    /// It may.
    Free,
}

/// What a look is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To see whether a range is equal.
    Walk,
    /// To name what differs in this range, of which a part is left, and whether anything was found before that.
    Closer(Span, bool),
    /// To make it equal: so many parts, of which these are named.
    Repair(u64, Range<usize>),
    /// To see whether it is equal now.
    Verify(u64, Range<usize>),
    /// To give back what was rotten here.
    Heal,
    /// To see whether a listing is equal.
    Query,
}

/// A look that the peer was asked for.
#[derive(Clone, Debug)]
pub(super) struct Flight {
    pub(super) id: u64,
    pub(super) file: FileId,
    pub(super) span: Span,
    pub(super) what: What,
    most: u32,
    pub(super) purpose: Purpose,
    /// Where both look, once that is known.
    pub(super) at: Option<Seq>,
    /// The store was given it.
    given: bool,
    /// What was found here; of a repair: nothing, when it is done.
    pub(super) own: Option<Found>,
    pub(super) theirs: Option<Found>,
}

impl Flight {
    fn is_over(&self) -> bool {
        self.theirs == Some(Found::Over) || (self.own.is_some() && self.theirs.is_some())
    }
}

/// A look that the primary asked for, to heal itself.
#[derive(Debug)]
struct Owed {
    ask: Ask,
    look: u64,
    given: bool,
}

/// What a node knows of compares.
#[derive(Debug, Default)]
pub(in crate::engine) struct Compares {
    pub(super) flights: VecDeque<Flight>,
    owed: Vec<Owed>,
    pub(super) run: Option<Run>,
    pub(super) heals: Heals,
    /// What is kept of those that began.
    pub(super) kept: Compared,
    /// What is known of the last listing, unless a compare was asked for since; on a primary by the standby's word.
    pub(super) listing: Option<Report>,
    /// What was kept before the start was read.
    pub(super) known: bool,
    /// How many began since the start, here or by this node's word.
    pub(super) number: u64,
    /// On a primary: what the standby tells of one.
    pub(super) remote: Option<Report>,
    /// None begins by itself before.
    pub(super) not_before: Mono,
    /// How often something was to be kept and is not yet: nobody hears of an end that a crash would take back.
    pub(super) keeping: u32,
    /// How far the primary's looks came.
    reached: Reached,
    /// Since when content is waited for that belongs before the next batch.
    held_since: Option<Mono>,
    /// Asked for on this connection, and not waited for any more: what is answered of it is not heard.
    dropped: Vec<u64>,
}

impl Compares {
    /// The standby was told to begin something, of which this is known.
    pub(super) fn ordered(&mut self, report: Report) {
        if report.certificate.is_of_listing() {
            self.listing = Some(report);
        } else {
            (self.remote, self.listing) = (Some(report), None);
        }
    }

    /// Whether the standby is at work at a listing, as far as this primary knows.
    pub(super) fn lists(&self) -> bool {
        self.listing.as_ref().is_some_and(|report| report.running)
    }

    /// The connection that the peer made is over: with it what was asked for on it.
    pub(in crate::engine) fn link_ended(&mut self) {
        self.drop_flights();
        self.owed.clear();
        self.reached = Reached::default();
        self.dropped.clear();
        if let Some(run) = &mut self.run {
            run.fails("the link to the primary was cut off");
        }
    }

    /// The stream of this primary is over: what its standby compares ends there, too.
    pub(in crate::engine) fn stream_ended(&mut self) {
        let told = self.remote.iter_mut().chain(&mut self.listing);
        for report in told.filter(|report| report.running) {
            report.running = false;
            report.certificate.why = "the link to the standby was cut off".to_owned();
        }
    }

    fn drop_flights(&mut self) {
        for flight in std::mem::take(&mut self.flights) {
            if flight.purpose == Purpose::Heal {
                self.heals.again(flight.file, &flight.span);
            }
            self.drop_flight(&flight);
        }
        self.held_since = None;
    }

    /// A flight is not waited for any more.
    fn drop_flight(&mut self, flight: &Flight) {
        if flight.theirs.is_none() {
            self.dropped.push(flight.id);
        }
    }

    /// Nothing of the compare that ended is waited for any more.
    pub(super) fn drop_walk(&mut self) {
        for flight in std::mem::take(&mut self.flights) {
            if flight.purpose == Purpose::Heal {
                self.flights.push_back(flight);
            } else {
                self.drop_flight(&flight);
            }
        }
    }

    /// Asks that the primary has not answered.
    pub(super) fn under_way(&self) -> usize {
        self.flights.len() + self.dropped.len()
    }

    /// What is due in a store that was given everything up to `submitted`.
    fn due(&mut self, submitted: Seq, round: Round, now: Mono) -> (Place, Option<CompareEffect>) {
        if let Some(owed) = self.owed.iter_mut().find(|owed| !owed.given && owed.ask.at == submitted) {
            owed.given = true;
            let Ask { file, what, most, span, .. } = owed.ask.clone();
            let look = CompareEffect::Look { look: owed.look, round, file, span, what, most };
            return (Place::Taken, Some(look));
        }
        let Some(flight) =
            self.flights.iter_mut().find(|flight| !flight.given && flight.at == Some(submitted))
        else {
            self.held_since = None;
            return (Place::Free, None);
        };
        let (look, file, span, what) = (flight.id, flight.file, flight.span.clone(), flight.what);
        if what != What::Content {
            flight.given = true;
            let most = flight.most;
            return (Place::Taken, Some(CompareEffect::Look { look, round, file, span, what, most }));
        }
        match &flight.theirs {
            None => {
                self.held_since.get_or_insert(now);
                (Place::Held, None)
            }
            Some(Found::Content(chunk)) => {
                flight.given = true;
                let chunk = chunk.clone();
                (Place::Taken, Some(CompareEffect::Repair { look, round, chunk }))
            }
            Some(_) => {
                (flight.given, flight.own) = (true, Some(Found::Gone));
                (Place::Taken, None)
            }
        }
    }

    /// A round of the store failed: what was not answered is given again.
    fn take_back(&mut self) {
        self.owed.iter_mut().for_each(|owed| owed.given = false);
        self.flights.iter_mut().filter(|flight| flight.own.is_none()).for_each(|flight| flight.given = false);
        if let Some(run) = &mut self.run {
            run.sparse.take_back();
        }
    }

    pub(in crate::engine) fn hold_deadline(&self) -> Option<Mono> {
        Some(self.held_since?.plus_ms(COMPARE_HOLD_MS))
    }
}

/// Whether an answer can be that to what was asked for.
fn answers(flight: &Flight, found: &Found, reached: &Reached) -> bool {
    match (found, flight.what) {
        (Found::Gone | Found::Unread, _) => flight.at.is_some(),
        (Found::Over, _) => {
            matches!(flight.span, Span::Behind(before) if reached.of(before) == Some(None))
        }
        (Found::Digest(digest), What::Digest) => {
            flight.at.is_some() && reaches(&flight.span, digest.reached.as_ref())
        }
        (Found::Details(details), What::Details) => flight.at.is_some() && fits(&flight.span, details),
        (Found::Content(chunk), What::Content) => is_content_of(chunk, flight),
        _ => false,
    }
}

/// Whether a chunk is of the range that was asked for, at its place.
pub(super) fn is_content_of(chunk: &Chunk, flight: &Flight) -> bool {
    let within = match (&chunk.content, &flight.span) {
        (Content::Items { after, through, .. }, Span::Items { after: from, through: until }) => {
            after == from && (until.is_empty() || (!chunk.ends && through <= until))
        }
        (Content::Blocks { offset, len, .. }, Span::Blocks { offset: from, len: most }) => {
            offset == from && (1..=*most).contains(len)
        }
        _ => false,
    };
    within && chunk.file == flight.file && Some(chunk.at) == flight.at
}

impl<S: StoreRead> Core<S> {
    /// Whether the peer and this node can hold what they have against each other now, this one being the standby.
    pub(super) fn can_compare(&self) -> bool {
        let follows = matches!(&self.link.inbound, Some(Inbound { phase: Phase::Following(_), .. }));
        follows && !self.is_incomplete() && self.peer.features() & FEATURE_COMPARE != 0
    }

    /// Lets a look or a repair take its place before the next batch, if one belongs there.
    pub(in crate::engine) fn submit_look(&mut self) -> Place {
        let applier = self.appliers.replicated();
        let (submitted, round) = (applier.submitted(), applier.round());
        if let Some((_, stream)) = self.link.stream()
            && let Some(look) = stream.answering.due(submitted, round)
        {
            self.effect(look);
            return Place::Taken;
        }
        self.drop_unhealable();
        if let Some(repair) = self.compares.heals.due(submitted, round) {
            self.effect(repair);
            return Place::Taken;
        }
        let (place, effect) = self.compares.due(submitted, round, self.now.mono);
        match effect {
            Some(effect) => self.effect(effect),
            None => self.dirty |= place == Place::Taken,
        }
        place
    }

    /// A round of the store failed.
    pub(in crate::engine) fn looks_taken_back(&mut self) {
        if let Some((_, stream)) = self.link.stream() {
            stream.answering.take_back();
        }
        self.compares.heals.take_back();
        self.compares.take_back();
    }

    /// A frame that belongs to a compare, from the primary.
    pub(in crate::engine) fn compare_frame(&mut self, frame: Frame) {
        self.dirty = true;
        match frame {
            Frame::Mark(mark) => self.marked(mark),
            Frame::Answer(answer) => self.answered(*answer),
            Frame::Ask(ask) => self.owes(ask),
            Frame::Order(order) => self.ordered(order),
            _ => {}
        }
    }

    fn marked(&mut self, mark: Mark) {
        let end = self.replicated().sealed().seq;
        let Compares { flights, reached, dropped, .. } = &mut self.compares;
        if dropped.contains(&mark.id) {
            return;
        }
        let flight = flights.iter_mut().find(|flight| flight.at.is_none() && flight.theirs.is_none());
        let Some(flight) = flight.filter(|flight| flight.id == mark.id) else {
            return self.inbound_fault("a mark came for a look that nobody asked for");
        };
        let fits = match (&flight.span, &mark.span) {
            (Span::Behind(before), Span::Items { after, through }) => {
                through.is_empty() && reached.of(*before) == Some(Some(after))
            }
            (asked, marked) => asked == marked,
        };
        if !fits {
            return self.inbound_fault("a mark came that is not of what was asked for");
        }
        if mark.at != end {
            let text = format!("a mark came that belongs behind entry {}, and not behind {end}", mark.at);
            return self.inbound_fault(&text);
        }
        flight.span = mark.span;
        flight.at = Some(mark.at);
    }

    fn answered(&mut self, answer: Answer) {
        let Compares { flights, reached, dropped, .. } = &mut self.compares;
        let came_to = match &answer.found {
            Found::Digest(digest) => digest.reached.clone(),
            _ => None,
        };
        if let Some(n) = dropped.iter().position(|id| *id == answer.id) {
            dropped.swap_remove(n);
            return;
        }
        let Some(flight) = flights.iter_mut().find(|flight| flight.id == answer.id) else {
            return self.inbound_fault("an answer came to what nobody asked");
        };
        let wrong_place = flight.at.is_some_and(|at| at != answer.at);
        if flight.theirs.is_some() || wrong_place || !answers(flight, &answer.found, reached) {
            return self.inbound_fault("an answer came that is not to what was asked");
        }
        reached.set(answer.id, came_to);
        flight.theirs = Some(answer.found);
    }

    /// The primary wants to know what stands here, where it is rotten there.
    fn owes(&mut self, ask: Ask) {
        let end = self.replicated().sealed().seq;
        if ask.at != end || self.compares.owed.len() >= COMPARE_ASKS_MAX {
            return self.inbound_fault("an ask came that has no place now");
        }
        let look = self.fresh_id();
        self.compares.owed.push(Owed { ask, look, given: false });
    }

    /// A look of this node, as the standby, found something.
    pub(super) fn looked(&mut self, look: u64, at: Seq, found: Found) {
        self.dirty = true;
        if self.compares.run.as_mut().is_some_and(|run| run.sparse.looked(look, &found)) {
            return;
        }
        if let Some(n) = self.compares.owed.iter().position(|owed| owed.look == look) {
            let Owed { ask, .. } = self.compares.owed.swap_remove(n);
            let found = if at == ask.at { found } else { Found::Unread };
            return self.say(FrameKind::Answer, Answer { id: ask.id, at: ask.at, found }.encode());
        }
        if let Some(flight) = self.compares.flights.iter_mut().find(|flight| flight.id == look) {
            flight.own = Some(if flight.at == Some(at) { found } else { Found::Unread });
        }
    }

    /// A range was made what the peer has.
    pub(super) fn repaired(&mut self, look: u64, result: Result<(), Fault>) {
        self.dirty = true;
        if self.heal_ended(look, result) {
            return;
        }
        if let Some(flight) = self.compares.flights.iter_mut().find(|flight| flight.id == look) {
            flight.own = Some(Found::Gone);
            if let Err(fault) = result {
                let heals = flight.purpose == Purpose::Heal;
                flight.theirs = Some(if heals { Found::Gone } else { Found::Unread });
                if let Some(run) = self.compares.run.as_mut().filter(|_| !heals) {
                    run.fails(&format!("a repair could not be written: {fault}"));
                }
            }
        }
    }

    /// Says something to the primary.
    pub(super) fn say(&mut self, kind: FrameKind, payload: Vec<u8>) {
        let (head, now) = (self.head(), self.now);
        if let Some(Inbound { session, phase: Phase::Following(_), .. }) = &mut self.link.inbound {
            session.send(now, kind, head, payload.into());
        }
        self.flush_inbound();
    }

    /// Asks for a look.
    pub(super) fn ask(&mut self, file: FileId, span: Span, what: What, purpose: Purpose) -> u64 {
        let id = self.fresh_id();
        let most = self.config.compare_range;
        let ask = Ask { id, at: Seq(0), file, what, most, span: span.clone() };
        let flight =
            Flight { id, file, span, what, most, purpose, at: None, given: false, own: None, theirs: None };
        self.compares.flights.push_back(flight);
        self.say(FrameKind::Ask, ask.encode());
        id
    }

    /// Goes on with whatever is compared or healed.
    pub(in crate::engine) fn pump_compare(&mut self) {
        if self.compares.hold_deadline().is_some_and(|at| at <= self.now.mono) {
            // The standby lives on without it.
            self.compares.drop_flights();
            if let Some(run) = &mut self.compares.run {
                run.fails("the primary gave no content in time");
            }
        }
        while self.compares.flights.front().is_some_and(Flight::is_over) {
            if let Some(flight) = self.compares.flights.pop_front() {
                self.landed(flight);
            }
        }
        self.begin_scheduled_compare();
        self.go_on_comparing();
        self.heal_here();
    }
}

//! A test update on a timer: it goes the way of users' updates, and one that is late names the part that broke.
//!
//! It is the first entry of the epoch again, which changes nothing on either node, shows in no file, and which every version
//! takes. A primary sends one to a peer that follows, the next when the last has arrived. When the peer is away, that is told.

use super::admin::CanaryView;
use super::core::Core;
use super::effect::Severity;
use super::incidents::Matter;
use super::peer::PeerState;
use super::status::seconds;
use crate::base::{AckLevel, FileId, JournalKind, Mono, Seq};
use crate::format::entry::{Entry, EntryKind, EpochStart};
use crate::journal::JournalState;
use crate::store::StoreRead;

/// What cannot be sent now is tried again after this (milliseconds).
const AGAIN_MS: u64 = 1000;
/// Room that a journal has to have for one (bytes).
const ROOM: usize = 64 << 10;

/// A part of the way, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Disk,
    Link,
    PeerDisk,
    PeerApply,
    Answer,
}

impl Part {
    const ALL: [Self; 5] = [Self::Disk, Self::Link, Self::PeerDisk, Self::PeerApply, Self::Answer];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Link => "link",
            Self::PeerDisk => "peer-disk",
            Self::PeerApply => "peer-apply",
            Self::Answer => "answer",
        }
    }

    /// What is wrong where it does not get beyond this part.
    const fn broken(self) -> &'static str {
        match self {
            Self::Disk => "this node's disk does not end the write of its journal",
            Self::Link => "the peer has not received it, or its word does not come back over the link",
            Self::PeerDisk => "the peer has it in memory, and its disk does not end the write",
            Self::PeerApply => "it is on the peer's disk, and the peer's store has not applied it",
            Self::Answer => {
                "the peer has applied it, and this node cannot answer for it: its own store has not applied it"
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Flight {
    seq: Seq,
    sent: Mono,
    /// The part of the way that it has not passed, and since when it is there.
    part: Part,
    since: Mono,
}

/// The test update under way, and what became of the last.
#[derive(Debug, Default)]
pub(super) struct Canary {
    flight: Option<Flight>,
    next: Option<Mono>,
    /// Sent and arrived in this life.
    sent: u64,
    arrived: u64,
    /// The last entry that arrived, and how long that took (microseconds).
    last: Option<(Seq, u64)>,
}

impl Canary {
    /// The last entry of a test update that arrived.
    pub(super) fn arrived(&self) -> Option<Seq> {
        self.last.map(|(seq, _)| seq)
    }
}

impl<S: StoreRead> Core<S> {
    /// Sends the next test update, and looks how far the one under way is.
    pub(super) fn pump_canary(&mut self) {
        let every = self.config.canary_seconds * 1000;
        if every == 0 || !self.may_update() || !self.link.is_streaming() || self.peer.is_incomplete() {
            (self.canary.flight, self.canary.next) = (None, None);
            return self.settled(&[Matter::CanaryLate]);
        }
        let now = self.now.mono;
        let next = *self.canary.next.get_or_insert(now.plus_ms(every));
        match self.canary.flight {
            Some(flight) => self.follow_canary(flight),
            None if now >= next => self.send_canary(),
            None => {}
        }
    }

    fn send_canary(&mut self) {
        let now = self.now.mono;
        // A peer that has much to catch up with is told of as such.
        let keeps_up = matches!(self.peer_state(), PeerState::Idle | PeerState::Busy);
        let open = self.journal_takes(JournalKind::Replicated, ROOM) == JournalState::Open
            && !self.hangs(JournalKind::Replicated);
        if !keeps_up || !open || self.is_congested() || self.is_barred() {
            self.canary.next = Some(now.plus_ms(AGAIN_MS));
            return;
        }
        let epoch = self.control.epoch();
        let value = EpochStart { epoch, ordinal: self.ordinal(), name: self.config.name.clone() }.encode();
        let entry = Entry { kind: EntryKind::EpochStart, file: FileId(0), id: &[], value: &value };
        let seq = self.appending(JournalKind::Replicated).append(std::iter::once(entry));
        self.canary.flight = Some(Flight { seq, sent: now, part: Part::Disk, since: now });
        self.canary.next = Some(now.plus_ms(self.config.canary_seconds * 1000));
        self.canary.sent += 1;
        self.dirty = true;
    }

    /// How far each part of the way is.
    fn reached(&self, part: Part) -> Seq {
        let acked = self.peer.acked();
        match part {
            Part::Disk => self.replicated().pace().durable,
            Part::Link => acked.received,
            Part::PeerDisk => acked.durable,
            Part::PeerApply => acked.applied,
            Part::Answer => self.committed(AckLevel::Applied).min(self.applied_seq(JournalKind::Replicated)),
        }
    }

    fn follow_canary(&mut self, flight: Flight) {
        let took = self.now.mono.since(flight.sent);
        let Some(part) = Part::ALL.into_iter().find(|part| self.reached(*part) < flight.seq) else {
            self.canary.flight = None;
            self.canary.arrived += 1;
            self.canary.last = Some((flight.seq, took));
            let text = format!("a test update made the whole way again, in {:.1} s", seconds(took));
            return self.incident_over(Matter::CanaryLate, "canary-back", text);
        };
        let now = self.now.mono;
        let since = if part == flight.part { flight.since } else { now };
        self.canary.flight = Some(Flight { part, since, ..flight });
        let late = self.config.canary_late_ms;
        // One that moves on again passes the parts behind the one that is to blame: they are not named for that.
        let passes = self.incidents.lasts(Matter::CanaryLate) && now < since.plus_ms(late);
        if now >= flight.sent.plus_ms(late) && !passes {
            let text = format!(
                "a test update did not make the whole way in time ({}): {}",
                part.name(),
                part.broken()
            );
            self.incident_once(Severity::Warning, Matter::CanaryLate, text);
        }
    }

    /// When the next one is due, or the one under way is late.
    pub(super) fn canary_deadline(&self) -> Option<Mono> {
        let at = match self.canary.flight {
            Some(flight) => flight.sent.plus_ms(self.config.canary_late_ms),
            None => self.canary.next?,
        };
        // What is late already is looked at with each event.
        (at > self.now.mono).then_some(at)
    }

    pub(super) fn canary_view(&self) -> Option<CanaryView> {
        if self.config.canary_seconds == 0 {
            return None;
        }
        let canary = &self.canary;
        let flight = canary.flight.map(|flight| {
            let part = Part::ALL.into_iter().find(|part| self.reached(*part) < flight.seq);
            (part.map_or("", Part::name), seconds(self.now.mono.since(flight.sent)))
        });
        let (at, age) = flight.unwrap_or(("", 0.0));
        Some(CanaryView {
            sent: canary.sent,
            arrived: canary.arrived,
            last_seq: canary.last.map_or(0, |(seq, _)| seq.0),
            last_seconds: canary.last.map(|(_, took)| seconds(took)),
            late: self.incidents.lasts(Matter::CanaryLate),
            at: at.to_owned(),
            under_way_seconds: age,
        })
    }
}

#[cfg(test)]
#[path = "canary_tests.rs"]
mod tests;

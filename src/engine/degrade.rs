//! Lowers promises above `local` when the peer does not answer, and restores them.
//!
//! The bound: an update is answered, at level `local` if need be, [`PeerLoss::Degrade`]'s grace after the peer stopped
//! answering. That is counted from the peer's last word, or from the oldest update that waits for it, so the time after
//! which a silent link is closed adds nothing to it, and a peer that is connected and confirms nothing (its disk hangs) is
//! as good as away. A living peer is given [`LEAST_BEATS`] heartbeats at least.

use super::admin::LoweredView;
use super::config::PeerLoss;
use super::core::Core;
use super::effect::Severity;
use super::incidents::Matter;
use super::peer::PeerState;
use crate::base::limits::LOWERED_SHOWN;
use crate::base::{AckLevel, JournalKind, Mono, Seq, Wait};
use crate::store::StoreRead;
use std::cmp::Ordering;

/// Between two words of a living peer there may be so many heartbeats.
const LEAST_BEATS: u64 = 3;

/// Whether what the peer lacks, so old (microseconds), leaves half of the grace (milliseconds) for what comes now.
fn is_young(age: u64, grace: u64) -> bool {
    age <= grace * 1000 / 2
}

/// Tells that the peer's disk has what was answered without it: the entries after `from`, up to `until`.
fn restored_text(from: Seq, until: Seq) -> String {
    let first = from.next();
    let entries = match first.cmp(&until) {
        Ordering::Less => format!("entries {first} to {until} were"),
        Ordering::Equal => format!("entry {until} was"),
        Ordering::Greater => return "the peer is back: no entry was answered without it".to_owned(),
    };
    format!("the peer is back: {entries} answered without it, and its disk has all up to entry {until} now")
}

impl<S: StoreRead> Core<S> {
    /// The grace (milliseconds), unless clients shall wait for ever.
    fn grace(&self) -> Option<u64> {
        match self.config.on_peer_loss {
            PeerLoss::Degrade { after_ms } => Some(after_ms),
            PeerLoss::Block => None,
        }
    }

    /// The grace of a peer that is connected (milliseconds).
    fn grace_connected(&self) -> Option<u64> {
        self.grace().map(|grace| grace.max(LEAST_BEATS * self.config.heartbeat_ms))
    }

    /// An update was accepted whose answer may wait for the peer.
    pub(super) fn promise(&mut self, wait: Wait) -> Wait {
        let waits = self.degraded.is_none() || self.restoring.is_some();
        if wait.journal == JournalKind::Replicated
            && waits
            && let Some(grace) = self.grace_connected()
        {
            self.promises.made(wait.level, wait.seq, self.now.mono, grace);
        }
        wait
    }

    /// Since when the peer is away; none while it is connected and speaks.
    fn note_loss(&mut self) {
        if self.link.is_streaming() {
            self.peer_lost_at = None;
        } else if self.peer_lost_at.is_none() && self.serving() {
            // What it said last, it said before its connection was given up.
            let heard = self.peer.stream_heard().unwrap_or(self.now.mono);
            self.peer_lost_at = Some(heard);
        }
    }

    /// When the peer counts as lost for those who wait for it, if nothing else happens.
    fn lost_at(&self) -> Option<Mono> {
        let (grace, connected) = (self.grace()?, self.grace_connected()?);
        let away = self.peer_lost_at.map(|since| since.plus_ms(grace));
        let silent = self.link.stream_heard().map(|heard| heard.plus_ms(connected));
        let overdue = self.promises.oldest().map(|(since, _)| since.plus_ms(connected));
        [away, silent, overdue].into_iter().flatten().min()
    }

    pub(super) fn pump_degrade(&mut self) {
        self.note_loss();
        let lost = self.serving() && self.lost_at().is_some_and(|at| self.now.mono >= at);
        if lost && self.promised > AckLevel::Local && (self.degraded.is_none() || self.restoring.is_some()) {
            self.lower();
        }
        // What is durable here was answered at level local; what comes from now on is not.
        if self.degraded.is_some() && self.restoring.is_none() && !lost && self.has_answered() {
            self.restoring = Some(self.replicated().pace().durable);
        }
        self.pump_pace();
        if let (Some(from), Some(until)) = (self.degraded, self.restoring)
            && self.peer.acked().durable >= until
        {
            self.degraded = None;
            self.restoring = None;
            self.incident_over(Matter::Degraded, "restored", restored_text(from, until));
        }
    }

    fn lower(&mut self) {
        let pace = self.replicated().pace();
        self.resume_at = pace.durable;
        self.restoring = None;
        let waiting = self.promises.oldest();
        self.promises.clear();
        if self.degraded.is_some() {
            // It is told of already, and the promise was not restored.
            return;
        }
        let from = self.confirmed().min(pace.durable);
        self.degraded = Some(from);
        let away = match waiting {
            Some((since, seq)) if self.link.is_streaming() => {
                let ms = self.now.mono.since(since) / 1000;
                format!("the peer is connected and has not confirmed entry {seq} for {ms} ms")
            }
            _ => "the peer is away".to_owned(),
        };
        let text = format!(
            "{away}: updates from entry {} on are answered at level local, whatever level was configured",
            from.next()
        );
        self.incident_once(Severity::Warning, Matter::Degraded, text);
    }

    /// Whether the peer has caught up and has confirmed all that there was when the promise was lowered.
    fn has_answered(&self) -> bool {
        self.is_near() && self.has_confirmed()
    }

    fn has_confirmed(&self) -> bool {
        self.confirmed() >= self.resume_at
    }

    /// The last entry that the peer has confirmed at the highest level that is promised.
    fn confirmed(&self) -> Seq {
        let acked = self.peer.acked();
        match self.promised {
            AckLevel::Applied => acked.applied,
            AckLevel::Durable => acked.durable,
            AckLevel::Received | AckLevel::Local => acked.received,
        }
    }

    /// Whether what is made now can be expected to be confirmed within the grace: the stream has reached the live tail, or
    /// what the peer lacks is young. Under a load that does not end the tail may never be reached; clients that wait for
    /// the peer slow that load down.
    fn is_near(&self) -> bool {
        let grace = self.grace_connected().unwrap_or(0);
        self.link.caught_up()
            || (self.link.is_streaming() && is_young(self.peer.lag_age(self.now.mono), grace))
    }

    /// Looks whether answers at a lowered level are held back for a while, so that a peer which gets on under a load that
    /// does not end can come near. Who asked for the peer's word waits for it a little, half of the time at most.
    fn pump_pace(&mut self) {
        let behind = self.degraded.is_some()
            && self.restoring.is_none()
            && self.serving()
            && self.has_confirmed()
            && !self.is_near()
            && matches!(self.peer_state(), PeerState::Busy | PeerState::Lagging);
        let held = self.pace.holds();
        self.pace.look(self.now.mono, behind);
        if self.pace.holds() && !held {
            self.paced_at = self.replicated().pace().durable;
        }
    }

    /// Up to here updates at a lowered level may be answered.
    pub(super) fn answered_lowered(&self, durable: Seq) -> Seq {
        if self.pace.holds() { durable.min(self.paced_at) } else { durable }
    }

    /// When the grace of a peer ends that does not answer.
    pub(super) fn degrade_deadline(&self) -> Option<Mono> {
        self.lost_deadline().into_iter().chain(self.pace.deadline()).min()
    }

    fn lost_deadline(&self) -> Option<Mono> {
        let lowered = self.degraded.is_some() && self.restoring.is_none();
        if lowered || self.promised == AckLevel::Local || !self.serving() {
            return None;
        }
        self.lost_at()
    }

    /// Notes which levels the database and its files promise.
    pub(super) fn note_promises(&mut self) {
        let files = self.namespace.files().filter_map(|(_, info)| info.dptr.ack);
        let (mut highest, mut received) = (AckLevel::Local, false);
        for level in files.chain([self.config.ack_level]) {
            highest = highest.max(level);
            received |= level == AckLevel::Received;
        }
        (self.promised, self.wants_received) = (highest, received);
    }

    /// The entries that are answered at level `local` whatever was promised: after the first, up to the second if it is
    /// known already from where on answers wait again.
    pub(super) fn lowered(&self) -> Option<(Seq, Option<Seq>)> {
        self.degraded.map(|from| (from, self.restoring))
    }

    /// The promises that are lowered now.
    pub(super) fn lowered_promises(&self) -> Vec<LoweredView> {
        if self.degraded.is_none() {
            return Vec::new();
        }
        let view = |file: String, level: AckLevel| LoweredView { file, level: level.name().to_owned() };
        let above = |level: AckLevel| level > AckLevel::Local;
        let own = above(self.config.ack_level).then(|| view(String::new(), self.config.ack_level));
        let of_files = self.namespace.files().filter_map(|(_, info)| {
            let level = info.dptr.ack.filter(|level| info.replicated && above(*level))?;
            Some(view(info.key.clone(), level))
        });
        own.into_iter().chain(of_files.take(LOWERED_SHOWN)).collect()
    }
}

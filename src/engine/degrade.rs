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
use super::promises::Promises;
use super::throttle::Throttle;
use crate::base::limits::LOWERED_SHOWN;
use crate::base::{AckLevel, JournalKind, Mono, Seq, Wait};
use crate::doors::CommitWatermarks;
use crate::format::frame::Ack;
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

/// The grace of a peer that is away, and of one that is connected (milliseconds); none if clients shall wait for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Grace {
    away: u64,
    connected: u64,
}

impl Grace {
    fn of(loss: PeerLoss, heartbeat_ms: u64) -> Option<Self> {
        match loss {
            PeerLoss::Degrade { after_ms } => {
                Some(Self { away: after_ms, connected: after_ms.max(LEAST_BEATS * heartbeat_ms) })
            }
            PeerLoss::Block => None,
        }
    }
}

/// What updates that were promised a level above `local` are answered at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    /// As promised.
    Kept,
    /// Those after this entry at level `local`.
    Lowered { after: Seq },
    /// The peer is back: those after `after` up to `until` at level `local`, later ones as promised again.
    Restoring { after: Seq, until: Seq },
}

/// What the promise depends on, as it is now.
#[derive(Clone, Copy, Debug)]
struct Seen {
    now: Mono,
    grace: Option<Grace>,
    /// This node serves.
    serving: bool,
    /// When the peer that follows this node's stream was last heard; none if none follows.
    stream_heard: Option<Mono>,
    /// The same of a stream that is over.
    ended_heard: Option<Mono>,
    /// A lease lets it be lowered, or none is asked for.
    may_lower: bool,
    /// The stream has reached the live tail.
    caught_up: bool,
    /// The peer gets on, and does not have everything.
    busy: bool,
    acked: Ack,
    /// The last entry of earlier epochs that is on the peer's disk: after a takeover that is what it served itself.
    theirs: Seq,
    /// Age of the oldest that the peer does not have on disk (microseconds).
    lag_age: u64,
    /// The last entry on this node's disk.
    durable: Seq,
}

/// What people are told of the promise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// It is lowered after this entry; of who waited, the oldest and its entry.
    Lowered { after: Seq, waiting: Option<(Mono, Seq)> },
    /// The peer's disk has all that was answered without it: the entries after `after` up to `until`.
    Restored { after: Seq, until: Seq },
}

/// The ack level that clients were promised, and whether it is lowered because the peer does not answer.
#[derive(Debug)]
pub(super) struct AckPromise {
    /// The highest that is configured for the database or any of its files.
    highest: AckLevel,
    /// One of these levels is `received`: then the peer waits for that word alone.
    wants_received: bool,
    level: Level,
    /// It is restored only once the peer has confirmed all up to here: what there was when it was lowered.
    resume_at: Seq,
    /// Since when the peer is away; none while it is connected and speaks.
    lost_since: Option<Mono>,
    /// Updates that wait for the peer, and since when.
    waits: Promises,
    /// Holds answers at a lowered level back, for half of the time at most; up to `held_at` they are given then.
    throttle: Throttle,
    held_at: Seq,
    /// It is time to lower it, and a lease does not let it.
    waits_to_lower: bool,
}

impl Default for AckPromise {
    fn default() -> Self {
        Self {
            highest: AckLevel::Local,
            wants_received: false,
            level: Level::Kept,
            resume_at: Seq(0),
            lost_since: None,
            waits: Promises::default(),
            throttle: Throttle::default(),
            held_at: Seq(0),
            waits_to_lower: false,
        }
    }
}

impl AckPromise {
    /// Notes which levels the database and its files promise.
    fn configure(&mut self, levels: impl Iterator<Item = AckLevel>) {
        (self.highest, self.wants_received) = (AckLevel::Local, false);
        for level in levels {
            self.highest = self.highest.max(level);
            self.wants_received |= level == AckLevel::Received;
        }
    }

    /// Whether the level `received` is promised.
    pub(super) fn wants_received(&self) -> bool {
        self.wants_received
    }

    /// Whether updates are answered at level `local`, whatever was promised.
    pub(super) fn is_lowered(&self) -> bool {
        self.level != Level::Kept
    }

    /// Whether the database or a file promises more than level `local`.
    pub(super) fn promises(&self) -> bool {
        self.highest > AckLevel::Local
    }

    /// Whether it would be lowered if a lease let it.
    pub(super) fn waits_to_lower(&self) -> bool {
        self.waits_to_lower
    }

    /// The peer told how far it is.
    pub(super) fn acked(&mut self, ack: Ack) {
        self.waits.acked(ack);
    }

    /// The ack rule: how far updates may be answered that wait for a peer which has `confirmed` so much at their level.
    /// Never further than this node's own disk.
    pub(super) fn answered(&self, durable: Seq, confirmed: Seq) -> Seq {
        match self.level {
            Level::Kept => durable.min(confirmed),
            Level::Lowered { .. } if self.throttle.holds() => durable.min(self.held_at),
            Level::Lowered { .. } => durable,
            Level::Restoring { until, .. } => durable.min(confirmed.max(until)),
        }
    }

    /// An update was accepted whose answer may wait for the peer.
    fn made(&mut self, level: AckLevel, seq: Seq, now: Mono, grace: Grace) {
        if !matches!(self.level, Level::Lowered { .. }) {
            self.waits.made(level, seq, now, grace.connected);
        }
    }

    /// When the peer counts as lost for those who wait for it, if nothing else happens.
    fn lost_at(&self, grace: Option<Grace>, stream_heard: Option<Mono>) -> Option<Mono> {
        let Grace { away, connected } = grace?;
        let away = self.lost_since.map(|since| since.plus_ms(away));
        let silent = stream_heard.map(|heard| heard.plus_ms(connected));
        let overdue = self.waits.oldest().map(|(since, _)| since.plus_ms(connected));
        [away, silent, overdue].into_iter().flatten().min()
    }

    /// When the promise is lowered if nothing else happens.
    fn lost_deadline(&self, grace: Option<Grace>, stream_heard: Option<Mono>) -> Option<Mono> {
        if matches!(self.level, Level::Lowered { .. }) || self.highest == AckLevel::Local {
            return None;
        }
        self.lost_at(grace, stream_heard)
    }

    /// The last entry that the peer has confirmed at the highest level that is promised.
    fn confirmed(&self, acked: Ack) -> Seq {
        match self.highest {
            AckLevel::Applied => acked.applied,
            AckLevel::Durable => acked.durable,
            AckLevel::Received | AckLevel::Local => acked.received,
        }
    }

    /// Looks what the peer does, after every event.
    fn look(&mut self, seen: &Seen) -> Option<Change> {
        if seen.stream_heard.is_some() {
            self.lost_since = None;
        } else if self.lost_since.is_none() && seen.serving {
            // What it said last, it said before its connection was given up.
            self.lost_since = Some(seen.ended_heard.unwrap_or(seen.now));
        }
        let lost =
            seen.serving && self.lost_at(seen.grace, seen.stream_heard).is_some_and(|at| seen.now >= at);
        let mut change = None;
        let due = lost && self.highest > AckLevel::Local && !matches!(self.level, Level::Lowered { .. });
        self.waits_to_lower = due && !seen.may_lower;
        if due && seen.may_lower {
            change = self.lower(seen);
        }
        let confirmed = self.confirmed(seen.acked) >= self.resume_at;
        // What is durable here was answered at level local; what comes from now on is not.
        if let Level::Lowered { after } = self.level
            && !lost
            && confirmed
            && seen.is_near()
        {
            self.level = Level::Restoring { after, until: seen.durable };
        }
        self.hold(seen, confirmed);
        if let Level::Restoring { after, until } = self.level
            && seen.acked.durable >= until
        {
            self.level = Level::Kept;
            change = Some(Change::Restored { after, until });
        }
        change
    }

    fn lower(&mut self, seen: &Seen) -> Option<Change> {
        self.resume_at = seen.durable;
        let waiting = self.waits.oldest();
        self.waits.clear();
        if let Level::Restoring { after, .. } = self.level {
            // It is told of already, and the promise was not restored.
            self.level = Level::Lowered { after };
            return None;
        }
        let after = self.confirmed(seen.acked).max(seen.theirs).min(seen.durable);
        self.level = Level::Lowered { after };
        Some(Change::Lowered { after, waiting })
    }

    /// Looks whether answers at a lowered level are held back for a while, so that a peer which gets on under a load that
    /// does not end can come near. Who asked for the peer's word waits for it a little, half of the time at most.
    fn hold(&mut self, seen: &Seen, confirmed: bool) {
        let lowered = matches!(self.level, Level::Lowered { .. });
        let behind = lowered && seen.serving && confirmed && !seen.is_near() && seen.busy;
        let held = self.throttle.holds();
        self.throttle.look(seen.now, behind);
        if self.throttle.holds() && !held {
            self.held_at = seen.durable;
        }
    }
}

impl Seen {
    /// Whether what is made now can be expected to be confirmed within the grace: the stream has reached the live tail, or
    /// what the peer lacks is young. Under a load that does not end the tail may never be reached; clients that wait for
    /// the peer slow that load down.
    fn is_near(&self) -> bool {
        let grace = self.grace.map_or(0, |grace| grace.connected);
        self.caught_up || (self.stream_heard.is_some() && is_young(self.lag_age, grace))
    }
}

impl<S: StoreRead> Core<S> {
    fn grace(&self) -> Option<Grace> {
        Grace::of(self.config.on_peer_loss, self.config.heartbeat_ms)
    }

    /// When the peer was last heard that promises may be built on; none while none follows. What an incomplete one
    /// says keeps no promise.
    fn promises_heard(&self) -> Option<Mono> {
        self.link.stream_heard().filter(|_| !self.peer.is_incomplete())
    }

    /// An update was accepted whose answer may wait for the peer.
    pub(super) fn promise(&mut self, wait: Wait) -> Wait {
        if wait.journal == JournalKind::Replicated
            && let Some(grace) = self.grace()
        {
            self.ack_promise.made(wait.level, wait.seq, self.now.mono, grace);
        }
        wait
    }

    pub(super) fn pump_degrade(&mut self) {
        let seen = Seen {
            now: self.now.mono,
            grace: self.grace(),
            serving: self.may_update(),
            stream_heard: self.promises_heard(),
            ended_heard: self.peer.stream_heard(),
            may_lower: self.may_lower(),
            caught_up: self.link.caught_up() && !self.peer.is_incomplete(),
            busy: matches!(self.peer_state(), PeerState::Busy | PeerState::Lagging),
            acked: self.peer.confirmed(),
            theirs: self.on_peers_disk_before_this_epoch(),
            lag_age: self.peer.lag_age(self.now.mono),
            durable: self.replicated().pace().durable,
        };
        match self.ack_promise.look(&seen) {
            Some(Change::Lowered { after, waiting }) => self.tell_lowered(after, waiting),
            Some(Change::Restored { after, until }) => {
                self.incident_over(Matter::Degraded, "restored", restored_text(after, until));
            }
            None => {}
        }
    }

    fn on_peers_disk_before_this_epoch(&self) -> Seq {
        let Some(epoch) = self.control.table().last().filter(|_| !self.peer.is_incomplete()) else {
            return Seq(0);
        };
        self.peer.on_disk().min(Seq(epoch.first_seq.0.saturating_sub(1)))
    }

    fn tell_lowered(&mut self, after: Seq, waiting: Option<(Mono, Seq)>) {
        let away = match waiting {
            Some((since, seq)) if self.promises_heard().is_some() => {
                let ms = self.now.mono.since(since) / 1000;
                format!("the peer is connected and has not confirmed entry {seq} for {ms} ms")
            }
            _ => "the peer is away".to_owned(),
        };
        let text = format!(
            "{away}: updates from entry {} on are answered at level local, whatever level was configured",
            after.next()
        );
        self.incident_once(Severity::Warning, Matter::Degraded, text);
    }

    /// How far things are, for replies.
    pub(super) fn commit_watermarks(&self) -> CommitWatermarks {
        let durable = self.journals.durable();
        let Ack { received, durable: on_disk, applied } = self.peer.confirmed();
        let at_peer = |confirmed: Seq| self.ack_promise.answered(durable[0], confirmed);
        CommitWatermarks {
            durable,
            replicated: [durable[0], at_peer(received), at_peer(on_disk), at_peer(applied)],
        }
    }

    /// When the grace of a peer ends that does not answer, or a wait for one that is behind.
    pub(super) fn degrade_deadline(&self) -> Option<Mono> {
        let promise = &self.ack_promise;
        let lost =
            if self.may_update() { promise.lost_deadline(self.grace(), self.promises_heard()) } else { None };
        let lost = lost.filter(|_| !promise.waits_to_lower());
        lost.into_iter().chain(promise.throttle.deadline()).min()
    }

    /// Notes which levels the database and its files promise.
    pub(super) fn note_promises(&mut self) {
        let files = self.namespace.files().filter_map(|(_, info)| info.dptr.ack);
        self.ack_promise.configure(files.chain([self.config.ack_level]));
    }

    /// The entries that are answered at level `local` whatever was promised: after the first, up to the second if it is
    /// known already from where on answers wait again.
    pub(super) fn lowered(&self) -> Option<(Seq, Option<Seq>)> {
        match self.ack_promise.level {
            Level::Kept => None,
            Level::Lowered { after } => Some((after, None)),
            Level::Restoring { after, until } => Some((after, Some(until))),
        }
    }

    /// The promises that are lowered now.
    pub(super) fn lowered_promises(&self) -> Vec<LoweredView> {
        if !self.ack_promise.is_lowered() {
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The promise, how far answers are held back, this disk, the peer; what is answered at received, durable, applied.
    type AckRow = (Level, Option<u64>, u64, Ack, [u64; 3]);

    const BEAT: u64 = 100;
    const GRACE: u64 = 2000;

    fn ack(received: u64, durable: u64, applied: u64) -> Ack {
        Ack { received: Seq(received), durable: Seq(durable), applied: Seq(applied) }
    }

    fn at(ms: u64) -> Mono {
        Mono(0).plus_ms(ms)
    }

    /// A node that serves and has 20 entries on its disk; its peer follows, is heard now, and has 15, 12 and 10 of them.
    fn seen(ms: u64) -> Seen {
        Seen {
            now: at(ms),
            grace: Grace::of(PeerLoss::Degrade { after_ms: GRACE }, BEAT),
            serving: true,
            may_lower: true,
            stream_heard: Some(at(ms)),
            ended_heard: None,
            caught_up: false,
            busy: true,
            acked: ack(15, 12, 10),
            theirs: Seq(0),
            lag_age: 3_600_000_000,
            durable: Seq(20),
        }
    }

    /// The same, but the peer is away.
    fn away(ms: u64) -> Seen {
        Seen { stream_heard: None, busy: false, ..seen(ms) }
    }

    fn promising(level: AckLevel) -> AckPromise {
        let mut promise = AckPromise::default();
        promise.configure([level].into_iter());
        promise
    }

    fn lowered() -> AckPromise {
        let mut promise = promising(AckLevel::Durable);
        promise.look(&away(0));
        assert!(matches!(promise.look(&away(GRACE)), Some(Change::Lowered { .. })));
        promise
    }

    #[test]
    fn the_ack_rule_at_each_level_is_what_both_have_unless_the_promise_is_lowered() {
        let after = Seq(5);
        let (kept, low) = (Level::Kept, Level::Lowered { after });
        let restoring = |until| Level::Restoring { after, until: Seq(until) };
        let table: [AckRow; 10] = [
            (kept, None, 20, ack(15, 12, 10), [15, 12, 10]),
            (kept, None, 11, ack(15, 12, 10), [11, 11, 10]),
            (kept, None, 20, ack(0, 0, 0), [0, 0, 0]),
            (kept, None, 8, ack(15, 12, 10), [8, 8, 8]),
            (low, None, 20, ack(0, 0, 0), [20, 20, 20]),
            (low, None, 20, ack(15, 12, 10), [20, 20, 20]),
            (low, Some(17), 20, ack(15, 12, 10), [17, 17, 17]),
            (restoring(14), None, 20, ack(15, 12, 10), [15, 14, 14]),
            (restoring(14), None, 20, ack(18, 18, 18), [18, 18, 18]),
            (restoring(14), None, 13, ack(15, 12, 10), [13, 13, 13]),
        ];
        for (level, held, durable, ack, expected) in table {
            let mut promise = AckPromise { level, ..promising(AckLevel::Durable) };
            if let Some(held) = held {
                promise.throttle.look(at(0), true);
                promise.held_at = Seq(held);
            }
            let answered =
                [ack.received, ack.durable, ack.applied].map(|seq| promise.answered(Seq(durable), seq).0);
            assert_eq!(answered, expected, "{level:?}, held at {held:?}, durable {durable}, {ack:?}");
        }
    }

    #[test]
    fn a_promise_is_lowered_at_the_end_of_the_grace_and_not_before_and_says_from_where_on() {
        for (level, after) in [(AckLevel::Received, 15), (AckLevel::Durable, 12), (AckLevel::Applied, 10)] {
            let mut promise = promising(level);
            assert_eq!(promise.look(&away(0)), None);
            assert_eq!(promise.lost_deadline(away(0).grace, None), Some(at(GRACE)));
            assert_eq!(promise.look(&away(GRACE - 1)), None);
            let change = promise.look(&away(GRACE));
            assert_eq!(change, Some(Change::Lowered { after: Seq(after), waiting: None }), "{level:?}");
            assert_eq!(promise.look(&away(GRACE + 1)), None, "it is told once");
            assert_eq!(promise.lost_deadline(away(0).grace, None), None, "nothing is left to wait for");
        }
    }

    #[test]
    fn what_the_peer_had_on_its_disk_when_it_served_itself_was_not_answered_without_it() {
        for (theirs, after) in [(0, 12), (11, 12), (17, 17), (30, 20)] {
            let mut promise = promising(AckLevel::Durable);
            let away = |ms| Seen { theirs: Seq(theirs), ..away(ms) };
            promise.look(&away(0));
            let change = promise.look(&away(GRACE));
            assert_eq!(change, Some(Change::Lowered { after: Seq(after), waiting: None }), "{theirs}");
        }
    }

    #[test]
    fn nothing_is_lowered_where_nothing_was_promised_nobody_serves_or_clients_shall_wait() {
        let mut local = promising(AckLevel::Local);
        let mut blocking = promising(AckLevel::Durable);
        let mut idle = promising(AckLevel::Durable);
        for ms in [0, GRACE, 100 * GRACE] {
            assert_eq!(local.look(&away(ms)), None);
            assert_eq!(blocking.look(&Seen { grace: None, ..away(ms) }), None);
            assert_eq!(idle.look(&Seen { serving: false, ..away(ms) }), None);
        }
        assert!(!local.is_lowered() && !blocking.is_lowered() && !idle.is_lowered());
    }

    #[test]
    fn a_peer_that_speaks_and_confirms_nothing_is_as_good_as_away() {
        let mut promise = promising(AckLevel::Durable);
        let grace = seen(0).grace.expect("it degrades");
        promise.look(&seen(0));
        promise.made(AckLevel::Durable, Seq(20), at(0), grace);
        assert_eq!(promise.look(&seen(GRACE - 1)), None);
        let change = promise.look(&seen(GRACE));
        let waiting = Some((at(0), Seq(20)));
        assert_eq!(change, Some(Change::Lowered { after: Seq(12), waiting }));
    }

    #[test]
    fn a_promise_returns_when_the_peer_has_confirmed_what_there_was_and_is_near() {
        let has_all = ack(20, 20, 20);
        // What the peer has, whether it has reached the tail, how old (ms) what it lacks is: whether answers wait again.
        for (acked, caught_up, age_ms, returns) in [
            (ack(20, 19, 0), true, 0, false),
            (has_all, false, GRACE / 2 + 1, false),
            (has_all, false, GRACE / 2, true),
            (has_all, true, 10 * GRACE, true),
        ] {
            let mut promise = lowered();
            let back = Seen { acked, caught_up, lag_age: age_ms * 1000, durable: Seq(25), ..seen(GRACE + 1) };
            assert_eq!(promise.look(&back), None);
            let expected = Level::Restoring { after: Seq(12), until: Seq(25) };
            assert_eq!(promise.level == expected, returns, "{acked:?} {caught_up} {age_ms}");
            assert!(
                promise.is_lowered(),
                "it is told when the peer's disk has all that was answered without it"
            );
        }
    }

    #[test]
    fn a_promise_is_restored_once_the_peers_disk_has_what_was_answered_without_it() {
        let mut promise = lowered();
        let back = |durable| Seen {
            acked: ack(25, durable, 25),
            caught_up: true,
            durable: Seq(25),
            ..seen(GRACE + 1)
        };
        assert_eq!(promise.look(&back(24)), None);
        assert_eq!(promise.look(&back(25)), Some(Change::Restored { after: Seq(12), until: Seq(25) }));
        assert!(!promise.is_lowered());
    }

    #[test]
    fn a_promise_that_is_lost_again_before_it_was_restored_is_not_told_twice() {
        let mut promise = lowered();
        promise.look(&Seen { acked: ack(20, 20, 20), caught_up: true, durable: Seq(25), ..seen(GRACE + 1) });
        assert!(matches!(promise.level, Level::Restoring { .. }));
        assert_eq!(promise.look(&away(GRACE + 2)), None);
        assert_eq!(promise.look(&away(3 * GRACE)), None);
        assert_eq!(promise.level, Level::Lowered { after: Seq(12) }, "from the first entry on");
    }

    #[test]
    fn answers_at_a_lowered_level_are_held_back_only_for_a_peer_that_gets_on_behind_them() {
        let behind = Seen { acked: ack(20, 20, 20), durable: Seq(30), ..seen(GRACE + 1) };
        for (what, seen, held) in [
            ("it gets on", behind, true),
            ("it does not", Seen { busy: false, ..behind }, false),
            ("it has not confirmed what there was", Seen { acked: ack(19, 19, 19), ..behind }, false),
            ("nobody serves", Seen { serving: false, ..behind }, false),
        ] {
            let mut promise = lowered();
            promise.look(&seen);
            assert_eq!(promise.throttle.holds(), held, "{what}");
            assert_eq!(promise.answered(Seq(40), Seq(20)), Seq(if held { 30 } else { 40 }), "{what}");
        }
    }
}

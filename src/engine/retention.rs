//! How long a journal keeps its segments: who needs entries of it, and what goes when there is too little room.
//!
//! Whoever may still need entries has a [`Claim`]. A segment goes when no claim needs it. When the journal is at its quota, or
//! the disk is full, the claims that may be dropped do not count: this node's users come before them (I-52). A new consumer
//! adds a line to [`Core::claims`].

use super::config::SpoolFull;
use super::core::Core;
use super::effect::Severity;
use super::incidents::Matter;
use super::spool::Stance;
use crate::base::limits::BLOCK_U64;
use crate::base::shown;
use crate::base::{Fault, JournalKind, Mono, Seq};
use crate::store::StoreRead;

/// After room was made for the store, its clients wait so long at most before they are refused (milliseconds).
const ROOM_MADE_MS: u64 = 2_000;

/// Who needs entries of a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Consumer {
    /// The store, until they are durable in it.
    Store,
    /// A role that begins or ends: replay, takeover, the save of what the pair never kept.
    Role,
    /// The peer, until they are on its disk.
    Peer,
    /// `log show`.
    Listing,
    /// A save, until it has their batches.
    Save,
    /// The spool, until it has a copy.
    Spool,
    /// The table of epochs, until the control file knows where each began.
    Epochs,
    /// What is known of the peer's disk, until the control file tells it.
    PeerRecord,
}

/// What a consumer needs of a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Claim {
    consumer: Consumer,
    /// It needs nothing up to here any more. `None`: it needs all, down to a segment that holds nothing.
    done: Option<Seq>,
}

/// It needs nothing at all.
const NOTHING: Option<Seq> = Some(Seq(u64::MAX));
/// It needs all.
const ALL: Option<Seq> = None;

impl Consumer {
    /// Whether its claim does not count where there is too little room.
    const fn may_be_dropped(self) -> bool {
        match self {
            Self::Store | Self::Role | Self::Epochs => false,
            Self::Peer | Self::Listing | Self::Save | Self::Spool | Self::PeerRecord => true,
        }
    }

    /// Whether a new control file ends its claim.
    const fn ends_with_control_file(self) -> bool {
        matches!(self, Self::Epochs | Self::PeerRecord)
    }
}

/// What may become of a journal's oldest segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Somebody needs it.
    Kept,
    /// Only the control file has to be written first.
    Recorded,
    /// It may go, and every other that holds nothing beyond this entry.
    Goes(Seq),
}

/// The one rule. `second` is the last entry of the oldest segment: without it there is only one, which stays. `pressed` says
/// that there is too little room.
fn fate(claims: &[Claim], second: Option<Seq>, pressed: bool) -> Fate {
    let counts = |claim: &&Claim| !(pressed && claim.consumer.may_be_dropped());
    let least = |recorded: bool| {
        let of_kind = |claim: &&Claim| claim.consumer.ends_with_control_file() == recorded;
        claims.iter().filter(counts).filter(of_kind).map(|claim| claim.done).min().unwrap_or(NOTHING)
    };
    match (second, least(false)) {
        (Some(last), Some(done)) if last <= done => {
            if Some(done) > least(true) {
                Fate::Recorded
            } else {
                Fate::Goes(done)
            }
        }
        _ => Fate::Kept,
    }
}

/// Room that something besides the journals lacks.
#[derive(Debug, Default)]
pub(super) struct Room {
    /// Something found the disk full.
    wanted: bool,
    /// Room was made for the store, which tries again: until then nobody is told that the disk is full.
    made_until: Mono,
}

impl Room {
    /// Something failed: room is made if that was what it lacked.
    pub(super) fn want_after(&mut self, fault: Fault) {
        self.wanted |= fault == Fault::NoSpace;
    }

    fn take_wanted(&mut self) -> bool {
        std::mem::take(&mut self.wanted)
    }

    fn made(&mut self, now: Mono) {
        self.made_until = now.plus_ms(ROOM_MADE_MS);
    }

    /// Whether room was made a moment ago.
    pub(super) fn is_made(&self, now: Mono) -> bool {
        now < self.made_until
    }

    #[cfg(test)]
    pub(super) fn is_wanted(&self) -> bool {
        self.wanted
    }
}

impl<S: StoreRead> Core<S> {
    /// Who needs what of the replicated journal. The local one is needed by the store alone.
    fn claims(&self) -> [Claim; 8] {
        // The spool has it for the peer.
        let covered = self.spool_covers();
        self.claims_with(self.peer.retained().max(covered))
    }

    /// The same, where the peer needs what is behind this entry.
    fn claims_with(&self, peer: Seq) -> [Claim; 8] {
        let unless = |needs: bool| if needs { ALL } else { NOTHING };
        let claim = |consumer, done| Claim { consumer, done };
        [
            claim(Consumer::Store, Some(self.checkpoint.covered(JournalKind::Replicated))),
            claim(Consumer::Role, unless(self.roles.needs_journal())),
            claim(Consumer::Peer, if self.is_primary() { Some(peer) } else { NOTHING }),
            claim(Consumer::Listing, unless(self.listing.is_some())),
            claim(Consumer::Save, self.saving.as_ref().map_or(NOTHING, |saving| Some(saving.done()))),
            claim(Consumer::Spool, self.spool_needs().or(NOTHING)),
            claim(Consumer::Epochs, unless(!self.control.knows_all_epochs())),
            claim(Consumer::PeerRecord, self.peer.recorded().or(NOTHING)),
        ]
    }

    /// What the journal may take (bytes).
    pub(super) fn quota(&self) -> u64 {
        self.config.quota_bytes.max(3 * self.config.segment_bytes + BLOCK_U64)
    }

    /// Above this the peer loses its claim (bytes). While the spool takes segments it does not, whatever the journal takes: then
    /// users wait a little, and the disk is the end. Where it takes none, the config says what comes first.
    fn drops_above(&self) -> u64 {
        match self.spool_stance() {
            Stance::Unused | Stance::Stuck(SpoolFull::DropPeer) => self.quota(),
            Stance::Works | Stance::Stuck(SpoolFull::Alarm | SpoolFull::Block) => u64::MAX,
        }
    }

    /// Whether the spool may let go of a part that ends here: nobody needs it, and that the peer has it is on record.
    pub(super) fn may_unspool(&mut self, last: Seq) -> bool {
        let claims = self.claims_with(self.peer.retained());
        let needs = |claim: &&Claim| !matches!(claim.consumer, Consumer::Store | Consumer::Spool);
        let claims: Vec<Claim> = claims.iter().filter(needs).copied().collect();
        match fate(&claims, Some(last), false) {
            Fate::Goes(_) => true,
            Fate::Recorded => {
                if !self.control.is_being_written() && self.peer.may_be_written(self.now.mono) {
                    self.peer.keep_when(self.control.knows_all_epochs());
                    self.write_control();
                }
                false
            }
            Fate::Kept => false,
        }
    }

    /// What every consumer has confirmed: journals may forget it (I-06).
    pub(super) fn release_journals(&mut self) {
        if self.control.is_being_written() {
            return;
        }
        match fate(&self.claims(), self.journals[0].second_base(), false) {
            // Where an epoch began must not be known from the journal alone when that part of it goes, and that the peer had
            // it must be known when it comes back without.
            Fate::Recorded => {
                self.peer.keep_when(self.control.knows_all_epochs());
                self.write_control();
                return;
            }
            Fate::Goes(up_to) => self.journals[0].release(up_to),
            Fate::Kept => {}
        }
        self.journal_ops(JournalKind::Replicated);
        self.journals[1].release(self.checkpoint.covered(JournalKind::Local));
        self.journal_ops(JournalKind::Local);
    }

    /// Makes room under the quota: a peer that is away too long loses its claim, and will need a full copy.
    ///
    /// It is looked at in every round, because what lets a segment go comes from many sides: one more was opened, a
    /// checkpoint or a control file is done, a role has begun.
    pub(super) fn keep_quota(&mut self) {
        let quota = self.drops_above();
        while self.replicated().disk_use().0 > quota
            && self.drop_oldest(true, || format!("the journal is at its quota of {}", shown::bytes(quota)))
        {
        }
    }

    /// Makes room on a full disk: as at the quota, an absent peer loses its claim before this node's users are stopped
    /// (I-52).
    pub(super) fn make_room(&mut self) {
        let starved = self.journals.iter().any(crate::journal::Journal::is_starved);
        let for_store = self.room.take_wanted();
        if !starved && !for_store {
            return;
        }
        // What nobody claims goes as soon as the store has it durably.
        if starved {
            self.checkpoint.want();
        }
        self.release_journals();
        // What the spool has is not lost to the peer; else the config may say that users come second.
        let covered = self.replicated().oldest_spooled().is_some();
        let kept = self.spool_stance() == Stance::Stuck(SpoolFull::Block) && !covered;
        if !self.has_claim() || kept {
            return;
        }
        if self.drop_oldest(!for_store, || "the disk is full".to_owned()) {
            self.journal_ops(JournalKind::Replicated);
            let now = self.now;
            if for_store {
                self.room.made(now.mono);
                self.retry_apply_soon();
            }
            self.journals.iter_mut().for_each(|journal| journal.made_room(now));
        }
    }

    /// Whether an absent peer lacks what the oldest segment holds.
    pub(super) fn has_claim(&self) -> bool {
        let claimed = self.journals[0].second_base().is_some_and(|base| self.peer.retained() < base);
        self.is_primary() && claimed
    }

    /// Drops the oldest segment of the replicated journal whatever the peer lacks of it; false if it is needed here.
    fn drop_oldest(&mut self, kept: bool, why: impl Fn() -> String) -> bool {
        let second = self.journals[0].second_base();
        match fate(&self.claims(), second, true) {
            Fate::Goes(_) => {}
            Fate::Kept => {
                // One that is under way may be all that is lacking.
                let lacks =
                    second.is_some_and(|last| last > self.checkpoint.covered(JournalKind::Replicated));
                if lacks && !self.checkpoint.is_running() {
                    self.checkpoint.want();
                }
                return false;
            }
            Fate::Recorded => {
                if !self.control.is_being_written() && self.peer.may_be_written(self.now.mono) {
                    self.write_control();
                }
                return false;
            }
        }
        let Some(oldest) = self.journals[0].drop_oldest(kept) else { return false };
        // What it has in memory it may still lose: only what it ever said to be on its disk counts.
        // What the spool has can still be read.
        if !self.is_primary() || self.peer.on_disk() >= Seq(oldest.0 - 1) {
            return true;
        }
        self.peer.set_apart();
        self.dirty = true;
        if !self.incidents.lasts(Matter::PeerDropped) {
            let text = format!(
                "{}: entries before {oldest} are gone that are not on the peer's disk; it will need a full copy",
                why()
            );
            self.incident_once(Severity::Critical, Matter::PeerDropped, text);
        }
        self.spool_for_nobody();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A consumer, and what it is done with.
    type Row = (Consumer, Option<u64>);

    /// Nobody needs anything but what the row says.
    fn claims(of: &[Row]) -> Vec<Claim> {
        of.iter().map(|&(consumer, done)| Claim { consumer, done: done.map(Seq) }).collect()
    }

    #[test]
    fn a_segment_goes_when_nobody_needs_it_and_under_pressure_when_only_those_do_who_may_lose_it() {
        use Consumer::{Epochs, Listing, Peer, PeerRecord, Role, Store};
        use Fate::{Goes, Kept, Recorded};
        // The claims; the last entry of the oldest segment is 10; what becomes of it otherwise, and under pressure.
        let table: [(&str, &[Row], Fate, Fate); 17] = [
            ("nobody needs anything", &[], Goes(Seq(u64::MAX)), Goes(Seq(u64::MAX))),
            (
                "all have it",
                &[(Store, Some(30)), (Peer, Some(20)), (Role, Some(u64::MAX))],
                Goes(Seq(20)),
                Goes(Seq(30)),
            ),
            ("all have just that", &[(Store, Some(10)), (Peer, Some(10))], Goes(Seq(10)), Goes(Seq(10))),
            ("the store lacks the last of it", &[(Store, Some(9)), (Peer, Some(30))], Kept, Kept),
            ("the peer lacks the last of it", &[(Store, Some(30)), (Peer, Some(9))], Kept, Goes(Seq(30))),
            ("the peer has none of it", &[(Store, Some(30)), (Peer, Some(0))], Kept, Goes(Seq(30))),
            ("store and peer lack it", &[(Store, Some(9)), (Peer, Some(0))], Kept, Kept),
            ("it is listed", &[(Store, Some(30)), (Peer, Some(30)), (Listing, None)], Kept, Goes(Seq(30))),
            ("a role needs it", &[(Store, Some(30)), (Peer, Some(30)), (Role, None)], Kept, Kept),
            (
                "a role needs it, the peer too",
                &[(Store, Some(30)), (Peer, Some(0)), (Role, None)],
                Kept,
                Kept,
            ),
            (
                "an epoch began there",
                &[(Store, Some(30)), (Peer, Some(30)), (Epochs, None)],
                Recorded,
                Recorded,
            ),
            (
                "an epoch began there, the peer lacks it",
                &[(Store, Some(30)), (Peer, Some(0)), (Epochs, None)],
                Kept,
                Recorded,
            ),
            ("an epoch began there, the store lacks it", &[(Store, Some(9)), (Epochs, None)], Kept, Kept),
            (
                "of the peer less is on record",
                &[(Store, Some(30)), (Peer, Some(20)), (PeerRecord, Some(19))],
                Recorded,
                Goes(Seq(30)),
            ),
            (
                "of the peer enough is on record",
                &[(Store, Some(30)), (PeerRecord, Some(30))],
                Goes(Seq(30)),
                Goes(Seq(30)),
            ),
            (
                "of the peer nothing is on record",
                &[(Store, Some(30)), (PeerRecord, Some(0))],
                Recorded,
                Goes(Seq(30)),
            ),
            (
                "of the peer all is on record",
                &[(Store, Some(30)), (PeerRecord, Some(u64::MAX))],
                Goes(Seq(30)),
                Goes(Seq(30)),
            ),
        ];
        for (what, of, otherwise, pressed) in table {
            let claims = claims(of);
            assert_eq!(fate(&claims, Some(Seq(10)), false), otherwise, "{what}");
            assert_eq!(fate(&claims, Some(Seq(10)), true), pressed, "{what}, under pressure");
            // An only segment stays, whoever needs it.
            for under_pressure in [false, true] {
                assert_eq!(fate(&claims, None, under_pressure), Kept, "{what}: the only segment stays");
            }
        }
    }

    #[test]
    fn no_claim_that_this_nodes_own_entries_hang_on_is_ever_dropped() {
        use Consumer::{Epochs, Listing, Peer, PeerRecord, Role, Save, Spool, Store};
        for consumer in [Store, Role, Peer, Listing, Save, Spool, Epochs, PeerRecord] {
            let alone = [Claim { consumer, done: ALL }];
            let goes = matches!(fate(&alone, Some(Seq(10)), true), Fate::Goes(_));
            assert_eq!(goes, matches!(consumer, Peer | Listing | Save | Spool | PeerRecord), "{consumer:?}");
            assert!(!matches!(fate(&alone, Some(Seq(10)), false), Fate::Goes(_)), "{consumer:?}");
        }
    }

    #[test]
    fn a_segment_that_holds_nothing_stays_for_who_needs_all() {
        for consumer in [Consumer::Role, Consumer::Listing] {
            assert_eq!(
                fate(&[Claim { consumer, done: ALL }], Some(Seq(0)), false),
                Fate::Kept,
                "{consumer:?}"
            );
        }
        let unrecorded = Claim { consumer: Consumer::Epochs, done: ALL };
        assert_eq!(fate(&[unrecorded], Some(Seq(0)), true), Fate::Recorded);
        let store = Claim { consumer: Consumer::Store, done: Some(Seq(0)) };
        assert_eq!(fate(&[store], Some(Seq(0)), false), Fate::Goes(Seq(0)));
    }
}

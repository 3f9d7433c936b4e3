//! What a node keeps of what its peer told: how far each of the two journals once was.
//!
//! A hello tells how far its sender is, and how far its receiver once was. So a node whose directory was replaced by an
//! older copy learns of it as soon as it meets its peer, and still knows it when the peer is gone.

use super::judge::{Own, common_point};
use crate::base::{Epoch, Position, Seq};
use crate::format::control::{PeerRecord, Role};
use crate::format::frame::Hello;

/// Notes what a hello tells that was sent in `epoch` by a peer that is not refused, `durable` standing in its header.
///
/// A primary learns of its standby and of nobody else: what another primary holds is not this node's history.
pub fn note_hello(record: &mut PeerRecord, own: &Own, hello: &Hello, epoch: Epoch, durable: Seq) {
    record.epoch = record.epoch.max(epoch);
    let from_primary = hello.role == Role::Primary;
    let teaches = match own.role {
        Role::Standby => from_primary,
        Role::Primary => hello.role == Role::Standby,
        // Of an incomplete node nothing counts, and what it lacks it is about to be given.
        Role::Diverged | Role::Incomplete => false,
    };
    if !teaches {
        return;
    }
    // The end of its journal may not be on its disk yet; what is applied is.
    let on_disk = durable.max(hello.applied);
    record.holds = if from_primary { on_disk } else { held_of(own, hello) };
    record.on_disk = record.on_disk.max(on_disk);
    // What this node has itself needs no record.
    let lacks = |told: Seq| told > own.end.seq || hello.end.epoch > own.end.epoch && told > Seq(0);
    if lacks(on_disk) {
        offer(record, own, hello, on_disk);
    }
    if lacks(hello.known) {
        record.known_here = record.known_here.max(hello.known);
    }
    if from_primary {
        // Version 1 does not tell what it relied on: it may be all that it has.
        let relied_on = if hello.version > 1 { hello.relied_on } else { on_disk };
        if lacks(relied_on) {
            record.relied_on = record.relied_on.max(relied_on);
        }
    }
}

/// The last entry of this node's history that a standby has: where it went on in another epoch, it has other entries.
fn held_of(own: &Own, hello: &Hello) -> Seq {
    match common_point(&own.table, own.end, &hello.table, hello.end) {
        // It may be ahead of this node.
        Some(common) if common.seq < own.end.seq => common.seq.min(hello.end.seq),
        _ => hello.end.seq,
    }
}

fn offer(record: &mut PeerRecord, own: &Own, hello: &Hello, on_disk: Seq) {
    let shared = common_point(&hello.table, hello.end, &own.table, own.end).unwrap_or_default().seq;
    if hello.end.epoch > record.offered_epoch || record.offered == Seq(0) {
        record.offered_epoch = hello.end.epoch;
        record.shared = shared;
    }
    record.shared = record.shared.min(shared);
    record.offered = record.offered.max(on_disk);
}

/// A range of entries, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// The first entry.
    pub from: Seq,
    /// The last entry.
    pub to: Seq,
}

impl Range {
    /// The entries after `end` up to `to`, if there are any.
    fn after(end: Seq, to: Seq) -> Option<Self> {
        (to > end).then(|| Self { from: end.next(), to })
    }

    /// How many entries.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.to.0.saturating_sub(self.from.0).saturating_add(1)
    }
}

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} to {}", self.from, self.to)
    }
}

/// The last entry that a journal with this `end` shares with what the peer had. What it holds beyond that is of an epoch
/// that was over, and was acknowledged to nobody.
#[must_use]
pub fn shared(record: &PeerRecord, end: Position) -> Seq {
    if record.offered_epoch > end.epoch { record.shared.min(end.seq) } else { end.seq }
}

/// Entries that hellos told of and that a journal with this `end` does not have. A takeover would lose them.
#[must_use]
pub fn missing(record: &PeerRecord, end: Position) -> Option<Range> {
    Range::after(shared(record, end), record.offered.max(record.known_here))
}

/// Entries that were on this node's disk once, and are not in a journal with this `end`: it was set back.
#[must_use]
pub fn set_back(record: &PeerRecord, end: Position) -> Option<Range> {
    Range::after(shared(record, end), record.known_here)
}

/// Of the entries that the peer had and a journal with this `end` does not have, those that may have been answered at level
/// `durable` or above.
#[must_use]
pub fn missing_durable(record: &PeerRecord, end: Position) -> Option<Range> {
    let existed = record.offered.max(record.on_disk);
    Range::after(shared(record, end), record.known_here.max(record.relied_on.min(existed)))
}

/// Entries that the peer had acknowledged and, as far as its last word tells, does not have any more.
#[must_use]
pub fn peer_set_back(record: &PeerRecord) -> Option<Range> {
    Range::after(record.holds, record.on_disk)
}

/// The record of a node that opens an epoch of its own after `end`: from here on its history is the pair's.
#[must_use]
pub fn at_opening(record: &PeerRecord, was_primary: bool, end: Seq) -> PeerRecord {
    let on_disk = record.on_disk.min(end);
    PeerRecord {
        epoch: record.epoch,
        on_disk,
        holds: if was_primary { record.holds.min(end) } else { on_disk },
        open: true,
        apart: was_primary && record.apart,
        partial: record.partial,
        ..PeerRecord::default()
    }
}

/// The record of a primary that steps down, `common` being the last entry of the history that both share.
#[must_use]
pub fn at_stepping_down(record: &PeerRecord, common: Seq) -> PeerRecord {
    let on_disk = record.on_disk.min(common);
    let partial = record.partial;
    PeerRecord { epoch: record.epoch, on_disk, holds: on_disk, partial, ..PeerRecord::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Chain, Ordinal};
    use crate::format::PairId;
    use crate::format::control::EpochMark;

    fn mark(epoch: u64, first: u64) -> EpochMark {
        EpochMark { epoch: Epoch(epoch), first_seq: Seq(first), prev_chain: Chain(first) }
    }

    fn at(epoch: u64, seq: u64) -> Position {
        Position { epoch: Epoch(epoch), seq: Seq(seq), chain: Chain(seq) }
    }

    fn own(role: Role, end: Position) -> Own {
        let (pair, ordinal, table) = (PairId([1; 16]), Ordinal(1), vec![mark(2, 1)]);
        Own {
            pair,
            ordinal,
            role,
            serving: false,
            epoch: end.epoch,
            end,
            applied: end.seq,
            table,
            rewinds: false,
            partial: false,
            takes_partial: false,
        }
    }

    fn hello(role: Role, end: Position, known: u64, relied_on: u64) -> Hello {
        Hello {
            version: 2,
            floor: 1,
            features: 0,
            pair: PairId([1; 16]),
            ordinal: Ordinal(0),
            role,
            serving: role == Role::Primary,
            end,
            applied: end.seq,
            table: vec![mark(2, 1)],
            name: "a".to_owned(),
            known: Seq(known),
            relied_on: Seq(relied_on),
            door: None,
            copied: false,
        }
    }

    fn range(from: u64, to: u64) -> Option<Range> {
        Some(Range { from: Seq(from), to: Seq(to) })
    }

    #[test]
    fn a_standby_that_was_set_back_knows_what_it_had_and_what_its_primary_has() {
        let mut record = PeerRecord::default();
        let me = own(Role::Standby, at(2, 4));
        note_hello(&mut record, &me, &hello(Role::Primary, at(2, 90), 80, 85), Epoch(2), Seq(90));
        assert_eq!(missing(&record, at(2, 4)), range(5, 90));
        assert_eq!(set_back(&record, at(2, 4)), range(5, 80));
        assert_eq!(missing_durable(&record, at(2, 4)), range(5, 85));
        assert_eq!(missing(&record, at(2, 90)), None);
        // A later hello of a primary that itself knows less makes nothing forgotten.
        note_hello(&mut record, &me, &hello(Role::Primary, at(2, 10), 0, 0), Epoch(2), Seq(10));
        assert_eq!(missing(&record, at(2, 4)), range(5, 90));
    }

    #[test]
    fn a_standby_with_a_tail_of_an_epoch_that_is_over_lacks_what_the_next_epoch_numbered_alike() {
        // It holds 27 to 30 of epoch 2, which the primary lost before they were durable; 27 and 28 are others now.
        let mut record = PeerRecord::default();
        let next = Hello { table: vec![mark(2, 1), mark(4, 27)], ..hello(Role::Primary, at(4, 28), 0, 0) };
        note_hello(&mut record, &own(Role::Standby, at(2, 30)), &next, Epoch(4), Seq(28));
        assert_eq!(missing(&record, at(2, 30)), range(27, 28));
        assert_eq!(missing(&record, at(2, 26)), range(27, 28));
        assert_eq!(missing(&record, at(4, 27)), range(28, 28));
        assert_eq!(missing(&record, at(4, 28)), None);
    }

    #[test]
    fn a_primary_of_version_1_may_have_relied_on_all_that_it_has() {
        let mut record = PeerRecord::default();
        let old = Hello { version: 1, ..hello(Role::Primary, at(2, 90), 0, 0) };
        note_hello(&mut record, &own(Role::Standby, at(2, 4)), &old, Epoch(2), Seq(88));
        assert_eq!(missing_durable(&record, at(2, 4)), range(5, 90));
        assert_eq!(set_back(&record, at(2, 4)), None);
    }

    #[test]
    fn a_standby_that_missed_updates_answered_at_level_local_lost_none_at_level_durable() {
        let mut record = PeerRecord::default();
        let from = hello(Role::Primary, at(2, 90), 4, 4);
        note_hello(&mut record, &own(Role::Standby, at(2, 4)), &from, Epoch(2), Seq(90));
        assert_eq!(missing(&record, at(2, 4)), range(5, 90));
        assert_eq!(missing_durable(&record, at(2, 4)), None);
    }

    #[test]
    fn a_primary_learns_from_its_standby_and_not_from_another_primary() {
        let mut record = PeerRecord { on_disk: Seq(80), ..PeerRecord::default() };
        let me = own(Role::Primary, at(2, 60));
        note_hello(&mut record, &me, &hello(Role::Standby, at(2, 4), 70, 0), Epoch(2), Seq(0));
        assert_eq!(peer_set_back(&record), range(5, 80));
        assert_eq!(set_back(&record, at(2, 60)), range(61, 70));
        let before = record;
        note_hello(&mut record, &me, &hello(Role::Primary, at(6, 500), 500, 500), Epoch(7), Seq(500));
        assert_eq!(record, PeerRecord { epoch: Epoch(7), ..before });
    }

    #[test]
    fn what_a_standby_has_of_an_epoch_that_is_over_is_nothing_that_it_holds() {
        let mut record = PeerRecord { on_disk: Seq(80), ..PeerRecord::default() };
        let me = Own { table: vec![mark(2, 1), mark(4, 60)], ..own(Role::Primary, at(4, 95)) };
        // It was set back to entry 59, and has 60 to 90 of epoch 2, which nobody else kept.
        note_hello(&mut record, &me, &hello(Role::Standby, at(2, 90), 0, 0), Epoch(2), Seq(0));
        assert_eq!((record.holds, peer_set_back(&record)), (Seq(59), range(60, 90)));
        // It has all of this history, and more than this node's disk shows.
        let me = own(Role::Primary, at(2, 85));
        note_hello(&mut record, &me, &hello(Role::Standby, at(2, 90), 0, 0), Epoch(2), Seq(0));
        assert_eq!(record.holds, Seq(90));
    }

    #[test]
    fn the_history_of_who_opens_an_epoch_is_the_pairs() {
        let record = PeerRecord {
            epoch: Epoch(4),
            on_disk: Seq(90),
            holds: Seq(90),
            offered: Seq(90),
            offered_epoch: Epoch(4),
            shared: Seq(50),
            known_here: Seq(80),
            relied_on: Seq(80),
            open: false,
            apart: true,
            promised: true,
            restored: true,
            partial: false,
            spared: true,
        };
        let after = at_opening(&record, false, Seq(50));
        assert_eq!((missing(&after, at(2, 50)), missing_durable(&after, at(2, 50))), (None, None));
        assert_eq!((after.epoch, after.on_disk, after.open, after.apart), (Epoch(4), Seq(50), true, false));
        assert_eq!(peer_set_back(&after), None);
        assert!(at_opening(&record, true, Seq(50)).apart);
        let after = at_stepping_down(&record, Seq(50));
        assert_eq!((missing(&after, at(2, 50)), after.on_disk, after.epoch), (None, Seq(50), Epoch(4)));
    }
}

//! What to make of a peer's hello: a pure function, and a table that a test walks.

use crate::base::{Epoch, Ordinal, Position, Seq};
use crate::format::PairId;
use crate::format::control::{EpochMark, Role};
use crate::format::frame::{
    FEATURE_COPY, FEATURE_PARTIAL, FEATURE_REWIND, FEATURE_TAKES_PARTIAL, Hello, PROTOCOL_FLOOR,
    PROTOCOL_VERSION, RefuseCode,
};

/// This node, as it must be known to judge the other.
#[derive(Clone, Debug)]
pub struct Own {
    /// The pair.
    pub pair: PairId,
    /// Which of the two.
    pub ordinal: Ordinal,
    /// The role in the control file.
    pub role: Role,
    /// Whether it accepts updates now.
    pub serving: bool,
    /// The highest epoch opened or accepted.
    pub epoch: Epoch,
    /// End of the journal.
    pub end: Position,
    /// Applied to the store.
    pub applied: Seq,
    /// Where epochs begin.
    pub table: Vec<EpochMark>,
    /// Whether it may be rewound where it holds entries that the peer does not have.
    pub rewinds: bool,
    /// Whether it took over with a part of a copy, and nobody was made whole since.
    pub partial: bool,
    /// Whether an operator accepts that it is made what a peer has that did so.
    pub takes_partial: bool,
}

/// What follows from a hello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Never talk to this one.
    Refuse(RefuseCode, String),
    /// This node is primary and sends everything after `common`.
    Stream {
        /// The last position both have.
        common: Position,
    },
    /// This node is primary, the peer's history cannot be joined: it needs a full copy.
    NeedsFullSync {
        /// Why.
        why: String,
        /// Whether a copy costs nothing that only the peer has.
        safe: bool,
    },
    /// This node is primary, and the peer holds entries that are no part of its history: it is rewound.
    Rewind {
        /// The last position both have, if one is known.
        common: Option<Position>,
    },
    /// This node is a standby of that primary and waits for the stream.
    Follow,
    /// This node may serve: the other does not and will not.
    MayServe,
    /// The other serves in a higher epoch: stop serving for good.
    StepDown {
        /// The last position both have.
        common: Position,
        /// Whether this node holds entries beyond it.
        diverged: bool,
    },
    /// The peer's copy is ahead of what this node has on disk: this node's state was lost or set back.
    OwnStateOld(String),
    /// Nothing to do but to know it; try again later.
    Wait(&'static str),
}

/// Judges the peer's hello, sent in epoch `peer_epoch`.
#[must_use]
pub fn judge(own: &Own, peer: &Hello, peer_epoch: Epoch) -> Verdict {
    if let Some(refusal) = stranger(own, peer, peer_epoch) {
        return refusal;
    }
    match (own.role, peer.role) {
        (Role::Standby | Role::Incomplete, Role::Primary) if !peer.serving => {
            Verdict::Wait("the peer asks before it serves")
        }
        (Role::Standby | Role::Incomplete, Role::Primary) if peer_epoch < own.epoch => Verdict::Refuse(
            RefuseCode::Epoch,
            format!("epoch {peer_epoch} is over: this node has seen epoch {}", own.epoch),
        ),
        (Role::Standby, Role::Primary) if is_spared(own, peer) => Verdict::Wait(SPARED),
        (Role::Standby | Role::Incomplete, Role::Primary) => Verdict::Follow,
        (Role::Diverged, Role::Primary)
            if peer.serving
                && own.rewinds
                && takes_rewind(peer)
                && peer_epoch >= own.epoch
                && !is_spared(own, peer) =>
        {
            Verdict::Follow
        }
        (Role::Standby | Role::Diverged | Role::Incomplete, _) => Verdict::Wait("neither node serves"),
        (Role::Primary, Role::Primary) => two_primaries(own, peer, peer_epoch),
        (Role::Primary, Role::Standby | Role::Diverged)
            if own.serving && own.partial && has_other_content(own, peer) =>
        {
            give_partial(own, peer, peer_epoch)
        }
        (Role::Primary, Role::Standby) if own.serving => stream(own, peer, peer_epoch),
        (Role::Primary, Role::Incomplete) if own.serving => go_on_copying(own, peer, peer_epoch),
        (Role::Primary, Role::Standby | Role::Incomplete) => may_serve(own, peer, peer_epoch),
        (Role::Primary, Role::Diverged) if own.serving => rewind(own, peer, peer_epoch),
        (Role::Primary, Role::Diverged) => Verdict::MayServe,
    }
}

/// Why a node that is whole does not follow.
const SPARED: &str =
    "the primary took over with a part of a copy, and what is whole is not made that by itself";

/// Whether a node keeps what it has, as its peer took over with a part of a copy. One that has nothing keeps nothing.
fn is_spared(own: &Own, peer: &Hello) -> bool {
    let other = own.end.seq > Seq(0) && !was_given(&peer.table, peer.ordinal, &own.table);
    peer.features & FEATURE_PARTIAL != 0 && !own.takes_partial && other
}

/// Whether a node with this table holds what it was given of an epoch that a primary opened since it took over. In the
/// primary's table those stand behind the last one of the other node's.
fn was_given(primary: &[EpochMark], ordinal: Ordinal, held: &[EpochMark]) -> bool {
    let since = primary.iter().rev().take_while(|mark| mark.epoch.opener() == ordinal);
    since.into_iter().any(|mark| held.contains(mark))
}

/// Whether a peer of this primary, which took over with a part of a copy, holds anything else.
fn has_other_content(own: &Own, peer: &Hello) -> bool {
    peer.end.seq > Seq(0) && !was_given(&own.table, own.ordinal, &peer.table)
}

/// This primary took over with a part of a copy: nothing whole is made that unasked, whatever its program is. If it is asked
/// for, all of it is given: what both have in common says nothing of content.
fn give_partial(own: &Own, peer: &Hello, peer_epoch: Epoch) -> Verdict {
    if let Some(old) = own_state_is_old(own, peer, peer_epoch).filter(|_| peer.role == Role::Standby) {
        return old;
    }
    if peer.features & FEATURE_TAKES_PARTIAL == 0 || !takes_rewind(peer) {
        return Verdict::Wait(SPARED);
    }
    rewind(own, peer, peer_epoch)
}

fn takes_rewind(peer: &Hello) -> bool {
    peer.features & FEATURE_REWIND != 0
}

fn rewind(own: &Own, peer: &Hello, peer_epoch: Epoch) -> Verdict {
    if !takes_rewind(peer) || peer_epoch > own.epoch {
        return Verdict::Wait("the peer has diverged, and is not to be rewound");
    }
    Verdict::Rewind { common: common_point(&own.table, own.end, &peer.table, peer.end) }
}

fn stranger(own: &Own, peer: &Hello, peer_epoch: Epoch) -> Option<Verdict> {
    let refuse = |code, text: String| Some(Verdict::Refuse(code, text));
    if peer.version < PROTOCOL_FLOOR || peer.floor > PROTOCOL_VERSION {
        let text = format!(
            "protocol versions {}..={} there, {PROTOCOL_FLOOR}..={PROTOCOL_VERSION} here",
            peer.floor, peer.version
        );
        return refuse(RefuseCode::Version, text);
    }
    if peer.pair != own.pair {
        return refuse(RefuseCode::Pair, format!("pair {} there, {} here", peer.pair, own.pair));
    }
    if peer.ordinal == own.ordinal {
        let text = format!("both nodes are number {} of the pair", own.ordinal.0);
        return refuse(RefuseCode::Ordinal, text);
    }
    if !own.epoch.can_meet(peer_epoch) {
        let text =
            format!("epoch {peer_epoch} is out of reach from epoch {}, the highest known here", own.epoch);
        return refuse(RefuseCode::Protocol, text);
    }
    if peer.serving && peer.role != Role::Primary {
        return refuse(RefuseCode::Role, format!("it says that it serves, as {}", peer.role.name()));
    }
    if peer.serving && peer_epoch.opener() != peer.ordinal {
        let opener = peer_epoch.opener().0;
        let text = format!("it says that it serves in epoch {peer_epoch}, which only node {opener} opens");
        return refuse(RefuseCode::Role, text);
    }
    None
}

/// Judges the hello of a peer that called: only a primary does that.
#[must_use]
pub fn judge_caller(own: &Own, peer: &Hello, peer_epoch: Epoch) -> Verdict {
    match judge(own, peer, peer_epoch) {
        verdict @ Verdict::Refuse(..) => verdict,
        _ if peer.role != Role::Primary => {
            let text = format!("only a primary calls, and it is {}", peer.role.name());
            Verdict::Refuse(RefuseCode::Role, text)
        }
        verdict => verdict,
    }
}

/// Why this node, a primary, must not serve the peer that says this: its own state is an older one.
fn own_state_is_old(own: &Own, peer: &Hello, peer_epoch: Epoch) -> Option<Verdict> {
    if peer_epoch > own.epoch {
        return Some(Verdict::OwnStateOld(format!(
            "the peer has seen epoch {peer_epoch}, this node only {}: its state was set back",
            own.epoch
        )));
    }
    if peer.known > own.end.seq {
        return Some(Verdict::OwnStateOld(format!(
            "the peer has heard that this node had entry {} on its disk, and its journal ends at {}: its state was set back",
            peer.known, own.end.seq
        )));
    }
    None
}

fn stream(own: &Own, peer: &Hello, peer_epoch: Epoch) -> Verdict {
    if let Some(old) = own_state_is_old(own, peer, peer_epoch) {
        return old;
    }
    if is_new_in_place(own, peer) {
        let why = "it is new, and epochs of the node whose place it has are part of the history".to_owned();
        return Verdict::NeedsFullSync { why, safe: true };
    }
    match common_point(&own.table, own.end, &peer.table, peer.end) {
        Some(common) if peer.applied <= common.seq => Verdict::Stream { common },
        Some(common) if takes_rewind(peer) => Verdict::Rewind { common: Some(common) },
        Some(common) => Verdict::NeedsFullSync {
            why: format!(
                "the peer has applied up to {}, the histories agree up to {}",
                peer.applied, common.seq
            ),
            safe: false,
        },
        None => {
            Verdict::NeedsFullSync { why: "the histories have no epoch in common".to_owned(), safe: false }
        }
    }
}

/// Whether a peer that has nothing would catch up on epochs of the node that had its place before. Its journal would hold
/// them as its own, and a recovery takes it for certain how a node writes its own (ARCHITECTURE, section 7). The history
/// that a copy begins has no epoch but this node's. A program that takes no copy is streamed to as ever.
fn is_new_in_place(own: &Own, peer: &Hello) -> bool {
    peer.end.seq == Seq(0)
        && peer.features & FEATURE_COPY != 0
        && own.table.iter().any(|mark| mark.epoch.opener() == peer.ordinal)
}

/// The peer is being given a copy: it goes on with that, or begins anew.
fn go_on_copying(own: &Own, peer: &Hello, peer_epoch: Epoch) -> Verdict {
    let anew = |why: &str| Verdict::NeedsFullSync { why: why.to_owned(), safe: true };
    if !peer.copied {
        return anew("the peer's copy has not begun");
    }
    match stream(own, peer, peer_epoch) {
        Verdict::NeedsFullSync { why, .. } => anew(&why),
        Verdict::Rewind { .. } => anew("the peer's copy went on where this history does not"),
        verdict => verdict,
    }
}

fn may_serve(own: &Own, peer: &Hello, peer_epoch: Epoch) -> Verdict {
    if let Some(old) = own_state_is_old(own, peer, peer_epoch) {
        return old;
    }
    if peer.applied > own.end.seq {
        return Verdict::OwnStateOld(format!(
            "the peer has applied up to {}, this node's journal ends at {}: its state was set back, or a takeover of \
             the peer was interrupted",
            peer.applied, own.end.seq
        ));
    }
    Verdict::MayServe
}

fn two_primaries(own: &Own, peer: &Hello, peer_epoch: Epoch) -> Verdict {
    if peer_epoch < own.epoch {
        return if own.serving || peer.serving {
            Verdict::Wait("the peer has to step down")
        } else {
            Verdict::MayServe
        };
    }
    match common_point(&peer.table, peer.end, &own.table, own.end) {
        Some(common) => Verdict::StepDown { common, diverged: own.end.seq > common.seq },
        None => Verdict::StepDown { common: Position::default(), diverged: own.end.seq.0 > 0 },
    }
}

/// The last position that both histories share, or none if their tables do not reach far enough back.
///
/// Two histories that hold the same epoch from the same first entry agree up to the lower of their two ends in
/// that epoch, because only one node ever writes in an epoch, and always in order (I-20).
#[must_use]
pub fn common_point(
    sender: &[EpochMark],
    sender_end: Position,
    receiver: &[EpochMark],
    receiver_end: Position,
) -> Option<Position> {
    if receiver_end.seq == Seq(0) || sender_end.seq == Seq(0) {
        return Some(Position::default());
    }
    for (at, mark) in receiver.iter().enumerate().rev() {
        let Some(there) = sender.iter().position(|m| m == mark) else { continue };
        let ends = |table: &[EpochMark], at: usize, end: Position| match table.get(at + 1) {
            Some(next) => {
                Position { epoch: mark.epoch, seq: Seq(next.first_seq.0 - 1), chain: next.prev_chain }
            }
            None => end,
        };
        let (a, b) = (ends(sender, there, sender_end), ends(receiver, at, receiver_end));
        return Some(if a.seq <= b.seq { a } else { b });
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Chain;

    fn mark(epoch: u64, first: u64) -> EpochMark {
        EpochMark { epoch: Epoch(epoch), first_seq: Seq(first), prev_chain: Chain(first * 1000) }
    }

    fn at(epoch: u64, seq: u64) -> Position {
        Position { epoch: Epoch(epoch), seq: Seq(seq), chain: Chain(seq * 7) }
    }

    fn own(role: Role, serving: bool, epoch: u64, end: u64) -> Own {
        Own {
            pair: PairId([1; 16]),
            ordinal: Ordinal(0),
            role,
            serving,
            epoch: Epoch(epoch),
            end: at(epoch, end),
            applied: Seq(end),
            table: vec![mark(2, 1)],
            rewinds: true,
            partial: false,
            takes_partial: false,
        }
    }

    fn peer(role: Role, serving: bool, end: u64) -> Hello {
        Hello {
            version: 1,
            floor: 1,
            features: 0,
            pair: PairId([1; 16]),
            ordinal: Ordinal(1),
            role,
            serving,
            end: at(2, end),
            applied: Seq(end),
            table: vec![mark(2, 1)],
            name: "b".to_owned(),
            known: Seq(0),
            relied_on: Seq(0),
            door: None,
            copied: false,
        }
    }

    #[test]
    fn nothing_whole_is_made_a_part_of_a_copy_unless_an_operator_accepts_it() {
        // The other node served in epoch 3; this one took over with what it had of that.
        let table = vec![mark(3, 1), mark(1_000_000, 35)];
        let me = Own { partial: true, table: table.clone(), ..own(Role::Primary, true, 1_000_000, 40) };
        let there = |role, features| Hello {
            features,
            end: at(3, 40),
            table: vec![mark(3, 1)],
            ..peer(role, false, 40)
        };
        let spares = |verdict| verdict == Verdict::Wait(SPARED);
        let says = |hello: &Hello| judge(&me, hello, Epoch(3));
        // Whatever its program is.
        for features in [0, FEATURE_COPY | FEATURE_REWIND] {
            for role in [Role::Standby, Role::Diverged] {
                assert!(spares(says(&there(role, features))), "{role:?} {features}");
            }
        }
        let accepts = FEATURE_COPY | FEATURE_REWIND | FEATURE_TAKES_PARTIAL;
        for role in [Role::Standby, Role::Diverged] {
            assert!(matches!(says(&there(role, accepts)), Verdict::Rewind { .. }), "{role:?}");
        }
        // What was given of this primary's epoch follows it.
        let given = Hello { end: at(1_000_000, 40), table, ..there(Role::Standby, FEATURE_COPY) };
        assert!(matches!(judge(&me, &given, Epoch(1_000_000)), Verdict::Stream { .. }));
        // What is whole nowhere, or is new, is copied as ever.
        let incomplete = Hello { copied: false, ..there(Role::Incomplete, FEATURE_COPY) };
        assert!(matches!(says(&incomplete), Verdict::NeedsFullSync { safe: true, .. }));
        let new = Hello { features: FEATURE_COPY, table: Vec::new(), ..peer(Role::Standby, false, 0) };
        assert!(!spares(says(&new)));
        // As the node that is whole sees it.
        let table = vec![mark(3, 1), mark(1_000_000, 35)];
        let primary = |features| Hello {
            ordinal: Ordinal(0),
            features,
            table: table.clone(),
            ..peer(Role::Primary, true, 40)
        };
        let of = |role, takes_partial, features| {
            let table = vec![mark(3, 1)];
            let node = Own { ordinal: Ordinal(1), takes_partial, table, ..own(role, false, 3, 40) };
            judge(&node, &primary(features), Epoch(1_000_000))
        };
        let partial = FEATURE_REWIND | FEATURE_PARTIAL;
        assert!(spares(of(Role::Standby, false, partial)));
        assert!(matches!(of(Role::Diverged, false, partial), Verdict::Wait(_)));
        for role in [Role::Standby, Role::Diverged, Role::Incomplete] {
            assert_eq!(of(role, true, partial), Verdict::Follow, "{role:?}");
            assert_eq!(of(role, false, FEATURE_REWIND), Verdict::Follow, "{role:?}");
        }
        assert_eq!(of(Role::Incomplete, false, partial), Verdict::Follow, "it is whole nowhere");
        assert!(matches!(of(Role::Primary, false, partial), Verdict::StepDown { .. }));
        let given =
            Own { ordinal: Ordinal(1), table: table.clone(), ..own(Role::Standby, false, 1_000_000, 40) };
        assert_eq!(judge(&given, &primary(partial), Epoch(1_000_000)), Verdict::Follow, "it was given that");
    }

    #[test]
    fn a_new_node_in_a_lost_ones_place_is_copied_and_does_not_catch_up_on_epochs_that_look_like_its_own() {
        // The other node was the primary first, in epoch 3, and is lost; this one took over.
        let me = Own { table: vec![mark(3, 1), mark(6, 8)], ..own(Role::Primary, true, 6, 10) };
        let new = Hello { features: FEATURE_COPY, table: Vec::new(), ..peer(Role::Standby, false, 0) };
        assert!(matches!(judge(&me, &new, Epoch(0)), Verdict::NeedsFullSync { safe: true, .. }));
        // It takes no copy, has something, or none had its place before.
        let stream = Verdict::Stream { common: Position::default() };
        assert_eq!(judge(&me, &Hello { features: 0, ..new.clone() }, Epoch(0)), stream);
        let back = Hello { end: at(3, 5), applied: Seq(5), table: vec![mark(3, 1)], ..new.clone() };
        assert!(matches!(judge(&me, &back, Epoch(3)), Verdict::Stream { .. }));
        assert_eq!(judge(&own(Role::Primary, true, 2, 10), &new, Epoch(0)), stream);
    }

    #[test]
    fn strangers_are_refused_by_name() {
        let me = own(Role::Primary, true, 2, 10);
        let code = |hello: &Hello| match judge(&me, hello, Epoch(2)) {
            Verdict::Refuse(code, _) => code,
            other => panic!("not refused: {other:?}"),
        };
        let good = peer(Role::Standby, false, 10);
        assert_eq!(code(&Hello { pair: PairId([2; 16]), ..good.clone() }), RefuseCode::Pair);
        assert_eq!(code(&Hello { ordinal: Ordinal(0), ..good.clone() }), RefuseCode::Ordinal);
        assert_eq!(code(&Hello { version: 9, floor: 9, ..good.clone() }), RefuseCode::Version);
        assert_eq!(code(&Hello { serving: true, ..good.clone() }), RefuseCode::Role);
        // Epoch 2 is one that only this node opens.
        assert_eq!(code(&Hello { serving: true, role: Role::Primary, ..good }), RefuseCode::Role);
    }

    #[test]
    fn only_a_primary_calls() {
        for (role, refused) in
            [(Role::Standby, true), (Role::Diverged, true), (Role::Incomplete, true), (Role::Primary, false)]
        {
            for own_role in [Role::Standby, Role::Primary, Role::Diverged] {
                let verdict = judge_caller(&own(own_role, false, 2, 10), &peer(role, false, 10), Epoch(1));
                let is_refused = matches!(verdict, Verdict::Refuse(RefuseCode::Role, _));
                assert_eq!(is_refused, refused, "{own_role:?} is called by {role:?}: {verdict:?}");
            }
        }
        let stranger = Hello { pair: PairId([2; 16]), ..peer(Role::Standby, false, 10) };
        let verdict = judge_caller(&own(Role::Standby, false, 2, 10), &stranger, Epoch(1));
        assert!(matches!(verdict, Verdict::Refuse(RefuseCode::Pair, _)), "{verdict:?}");
    }

    #[test]
    fn every_pair_of_roles_has_one_verdict() {
        use Role::{Diverged, Incomplete, Primary, Standby};
        let wait = |v: &Verdict| matches!(v, Verdict::Wait(_));
        let check = |me: (Role, bool, u64), it: (Role, bool, u64), ok: &dyn Fn(&Verdict) -> bool| {
            let verdict = judge(&own(me.0, me.1, me.2, 10), &peer(it.0, it.1, 10), Epoch(it.2));
            assert!(ok(&verdict), "{me:?} meets {it:?}: {verdict:?}");
        };
        check((Standby, false, 2), (Standby, false, 2), &wait);
        check((Standby, false, 2), (Diverged, false, 2), &wait);
        check((Standby, false, 2), (Primary, false, 2), &wait);
        check((Standby, false, 3), (Primary, true, 3), &|v| *v == Verdict::Follow);
        check((Standby, false, 2), (Primary, true, 3), &|v| *v == Verdict::Follow);
        check((Standby, false, 4), (Primary, true, 3), &|v| {
            matches!(v, Verdict::Refuse(RefuseCode::Epoch, _))
        });
        check((Diverged, false, 3), (Primary, true, 3), &wait);
        check((Incomplete, false, 2), (Primary, true, 3), &|v| *v == Verdict::Follow);
        check((Incomplete, false, 2), (Primary, false, 2), &wait);
        check((Incomplete, false, 4), (Primary, true, 3), &|v| {
            matches!(v, Verdict::Refuse(RefuseCode::Epoch, _))
        });
        check((Standby, false, 2), (Incomplete, false, 2), &wait);
        check((Primary, true, 2), (Incomplete, false, 2), &|v| {
            matches!(v, Verdict::NeedsFullSync { safe: true, .. })
        });
        check((Primary, true, 2), (Incomplete, false, 3), &|v| {
            matches!(v, Verdict::NeedsFullSync { safe: true, .. })
        });
        check((Primary, false, 2), (Incomplete, false, 2), &|v| *v == Verdict::MayServe);
        check((Primary, true, 2), (Standby, false, 2), &|v| *v == Verdict::Stream { common: at(2, 10) });
        check((Primary, false, 2), (Standby, false, 2), &|v| *v == Verdict::MayServe);
        check((Primary, false, 2), (Standby, false, 3), &|v| matches!(v, Verdict::OwnStateOld(_)));
        check((Primary, true, 2), (Standby, false, 3), &|v| matches!(v, Verdict::OwnStateOld(_)));
        check((Primary, false, 2), (Diverged, false, 1), &|v| *v == Verdict::MayServe);
        check((Primary, true, 2), (Diverged, false, 1), &wait);
        check((Primary, true, 2), (Primary, true, 1), &wait);
        check((Primary, false, 2), (Primary, true, 1), &wait);
        check((Primary, false, 2), (Primary, false, 1), &|v| *v == Verdict::MayServe);
        check((Primary, true, 2), (Primary, true, 3), &|v| matches!(v, Verdict::StepDown { .. }));
        check((Primary, false, 2), (Primary, false, 3), &|v| matches!(v, Verdict::StepDown { .. }));
    }

    #[test]
    fn a_copy_goes_on_where_the_history_does_and_begins_anew_where_it_does_not() {
        let me = own(Role::Primary, true, 2, 10);
        let begun = Hello { copied: true, ..peer(Role::Incomplete, false, 7) };
        assert_eq!(judge(&me, &begun, Epoch(2)), Verdict::Stream { common: at(2, 7) });
        let elsewhere = Hello { table: vec![mark(6, 1)], ..begun.clone() };
        let further = Hello { end: at(2, 12), applied: Seq(12), ..begun };
        for hello in [elsewhere, further] {
            let verdict = judge(&me, &hello, Epoch(2));
            assert!(matches!(verdict, Verdict::NeedsFullSync { safe: true, .. }), "{verdict:?}");
        }
        // A standby that has more than this node is no node to be written over by itself.
        let ahead = Hello { end: at(2, 12), applied: Seq(12), ..peer(Role::Standby, false, 12) };
        let verdict = judge(&me, &ahead, Epoch(2));
        assert!(matches!(verdict, Verdict::NeedsFullSync { safe: false, .. }), "{verdict:?}");
    }

    #[test]
    fn a_node_that_holds_what_the_primary_does_not_is_rewound_if_both_are_able_and_it_is_to_be() {
        let mut me = own(Role::Primary, true, 4, 80);
        me.table = vec![mark(2, 1), mark(4, 50)];
        let diverged = Hello { features: FEATURE_REWIND, ..peer(Role::Diverged, false, 60) };
        let Verdict::Rewind { common: Some(common) } = judge(&me, &diverged, Epoch(4)) else {
            panic!("it is not rewound")
        };
        assert_eq!((common.epoch, common.seq), (Epoch(2), Seq(49)));
        let wait = |verdict: Verdict| matches!(verdict, Verdict::Wait(_));
        assert!(wait(judge(&me, &Hello { features: 1, ..diverged.clone() }, Epoch(4))));
        assert!(wait(judge(&me, &diverged, Epoch(6))), "it has seen more than this node");
        let strange = Hello { table: vec![mark(6, 1)], ..diverged.clone() };
        assert_eq!(judge(&me, &strange, Epoch(4)), Verdict::Rewind { common: None });
        // So is a standby that has applied what a primary of an older state does not know.
        let standby = Hello { role: Role::Standby, applied: Seq(60), ..diverged };
        assert!(matches!(judge(&me, &standby, Epoch(4)), Verdict::Rewind { common: Some(_) }));
        // The other side lets it begin.
        let there = |features| Hello { features, ..peer(Role::Primary, true, 80) };
        let mut me = own(Role::Diverged, false, 3, 60);
        assert_eq!(judge(&me, &there(FEATURE_REWIND), Epoch(3)), Verdict::Follow);
        assert!(wait(judge(&me, &there(1), Epoch(3))));
        assert!(wait(judge(&me, &Hello { serving: false, ..there(FEATURE_REWIND) }, Epoch(3))));
        me.rewinds = false;
        assert!(wait(judge(&me, &there(FEATURE_REWIND), Epoch(3))));
        (me.rewinds, me.epoch) = (true, Epoch(5));
        assert!(wait(judge(&me, &there(FEATURE_REWIND), Epoch(3))));
    }

    #[test]
    fn a_primary_whose_journal_was_set_back_does_not_serve() {
        let mut me = own(Role::Primary, false, 2, 10);
        me.end = at(2, 5);
        assert!(matches!(judge(&me, &peer(Role::Standby, false, 10), Epoch(2)), Verdict::OwnStateOld(_)));
        // Also if the peer has not applied, or not even received, what this node announced.
        let heard = Hello { applied: Seq(3), known: Seq(6), ..peer(Role::Standby, false, 4) };
        for serving in [false, true] {
            me.serving = serving;
            assert!(matches!(judge(&me, &heard, Epoch(2)), Verdict::OwnStateOld(_)), "serving {serving}");
        }
        let as_it_is = Hello { known: Seq(5), ..heard };
        assert_eq!(judge(&me, &as_it_is, Epoch(2)), Verdict::Stream { common: at(2, 4) });
    }

    #[test]
    fn an_epoch_out_of_reach_is_refused_by_name() {
        let me = own(Role::Standby, false, 2, 10);
        let far = Hello { ordinal: Ordinal(1), ..peer(Role::Primary, false, 10) };
        let verdict = judge(&me, &far, Epoch(u64::MAX / 2));
        assert!(matches!(verdict, Verdict::Refuse(RefuseCode::Protocol, _)), "{verdict:?}");
    }

    #[test]
    fn histories_agree_up_to_the_lower_end_of_the_newest_common_epoch() {
        let a = [mark(2, 1), mark(4, 50)];
        let same = common_point(&a, at(4, 80), &a, at(4, 70));
        assert_eq!(same, Some(at(4, 70)));
        // The receiver wrote on in epoch 2 after the sender's epoch 4 began: it diverged at 49.
        let common = common_point(&a, at(4, 80), &[mark(2, 1)], at(2, 60)).unwrap();
        assert_eq!((common.epoch, common.seq, common.chain), (Epoch(2), Seq(49), Chain(50_000)));
        // The receiver had not seen all of epoch 2.
        assert_eq!(common_point(&a, at(4, 80), &[mark(2, 1)], at(2, 30)), Some(at(2, 30)));
        // Each opened an epoch of its own after 49.
        let b = [mark(2, 1), mark(3, 50)];
        let common = common_point(&a, at(4, 80), &b, at(3, 90)).unwrap();
        assert_eq!((common.epoch, common.seq), (Epoch(2), Seq(49)));
        // An empty receiver starts at the beginning; strangers have nothing in common.
        assert_eq!(common_point(&a, at(4, 80), &[], Position::default()), Some(Position::default()));
        assert_eq!(common_point(&a, at(4, 80), &[mark(6, 1)], at(6, 3)), None);
    }
}

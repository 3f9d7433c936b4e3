//! A node that holds an old copy: what it has is compared by digests, and content comes only where that differs.

use super::{Pair, RESYNC, parted};
use crate::base::FileId;
use crate::base::limits::{CHUNK_BYTES, WANTS_MAX};
use crate::engine::admin::{AdminRequest, CopyView};
use crate::engine::config::OnDiverged;
use crate::engine::sync::digests::{Held, Step};
use crate::format::chunk::{Next, WantFrom};
use crate::format::compare::{Digest, Found, Span};
use crate::store::CopySource as _;
use bytes::Bytes;

/// Both nodes have three MiB of items in `app,large`, and the journal of the second one does not reach back to where the two
/// parted.
fn old_copy() -> Pair {
    let mut pair = Pair::new(OnDiverged::Rewind);
    pair.file(0, "app,large");
    for n in 0..96 {
        pair.sets(0, "app,large", &format!("{n:03}"), &"v".repeat(32 << 10));
    }
    pair.runs(1_000);
    pair.parts();
    pair.sets(0, "app,orders", "mine", "1");
    pair.sets(1, "app,large", "050", "other");
    let end = pair.nodes[1].engine.core.replicated().sealed().seq;
    pair.nodes[1].engine.core.config.quota_bytes = 1;
    for n in 0..8_000 {
        pair.sets(1, "app,orders", &format!("{:03}", n % 10), &"w".repeat(64));
    }
    pair.nodes[1].lives(20_000);
    assert!(pair.nodes[1].engine.core.replicated().oldest() > end, "the journal reaches back");
    pair
}

#[test]
fn an_old_copy_is_compared_and_only_what_differs_goes_over_the_wire() {
    let mut pair = old_copy();
    pair.meets();
    pair.is_whole_again();
    assert_eq!((pair.times(0, "copying"), pair.times(0, "whole"), pair.times(0, "rewound")), (1, 1, 0));
    let (_, text) = pair.nodes[0].told.iter().find(|(kind, _)| *kind == "copying").unwrap();
    assert!(text.contains("compares it with what the primary has by digests"), "{text}");
    // One range of a MiB differs, of it a 32nd.
    assert!(pair.carried < 200_000, "{} bytes", pair.carried);
}

#[test]
fn an_operator_who_wants_all_content_has_all_content_sent() {
    let mut pair = old_copy();
    pair.does(1, AdminRequest::Resync { rate: None, full: true, accept_incomplete: false });
    pair.meets();
    pair.is_whole_again();
    assert!(pair.carried > 3_000_000, "{} bytes", pair.carried);
    // What the standby holds is not even looked at.
    let (_, text) = pair.nodes[0].told.iter().find(|(kind, _)| *kind == "copying").unwrap();
    assert!(text.contains("a copy of everything"), "{text}");
}

#[test]
fn status_tells_by_which_way_a_copy_goes_and_what_was_equal() {
    let mut pair = old_copy();
    pair.cut = false;
    let mut seen: [Option<CopyView>; 2] = [None, None];
    for _ in 0..400_000 {
        if !(0..2).any(|n| pair.step(n)) {
            (0..2).for_each(|n| pair.nodes[n].passes(50));
        }
        for (n, seen) in seen.iter_mut().enumerate() {
            let copy = pair.nodes[n].engine.core.copy_view();
            *seen = copy.filter(|copy| copy.equal > 1 << 20).or(seen.take());
        }
        if seen.iter().all(Option::is_some) {
            break;
        }
    }
    for (copy, here) in seen.into_iter().zip([true, false]) {
        let copy = copy.expect("a copy was seen");
        assert_eq!((copy.here, copy.way.as_str()), (here, "digests"), "{copy:?}");
        assert!(copy.bytes >= copy.equal, "{copy:?}");
    }
}

#[test]
fn a_cut_in_the_middle_of_a_comparison_costs_nothing_but_time() {
    let mut pair = old_copy();
    pair.cut = false;
    for steps in 1..60 {
        for _ in 0..steps {
            if !(0..2).any(|n| pair.step(n)) {
                (0..2).for_each(|n| pair.nodes[n].passes(50));
            }
        }
        pair.cut = true;
        pair.runs(3_000);
        pair.cut = false;
    }
    pair.runs(10_000);
    pair.is_whole_again();
}

#[test]
fn without_an_old_copy_or_with_an_older_program_all_content_is_wanted() {
    let mut pair = parted(OnDiverged::Wait);
    pair.meets();
    let ([at, _], namespace) = pair.nodes[1].store.definitions().unwrap();
    let origin = pair.nodes[1].engine.core.replicated().end_at(at).unwrap();
    let begin = crate::format::chunk::CopyBegin { origin, size: 0, table: Vec::new(), namespace };
    let core = &mut pair.nodes[0].engine.core;
    let ranges = core.compared_with(&begin).expect("it holds what both had");
    let file = core.namespace.resolve(b"app,orders").unwrap();
    assert!(ranges.is_compared(file) && !ranges.is_whole(file) && ranges.compares());
    core.peer.forget_features();
    assert_eq!(core.compared_with(&begin), None, "an older program");
    pair.does(0, RESYNC);
    pair.runs(5_000);
    pair.is_whole_again();
}

const FILE: FileId = FileId(4);

fn items(after: &'static str) -> Next {
    Next::Items(FILE, Bytes::from_static(after.as_bytes()))
}

fn digest(reached: Option<&'static str>, count: u32) -> Found {
    let reached = reached.map(|id| Bytes::from_static(id.as_bytes()));
    Found::Digest(Digest { reached, count, bytes: 1000, hash: [7; 32] })
}

#[test]
fn a_range_is_looked_at_before_it_is_wanted_and_what_is_found_of_another_look_counts_for_nothing() {
    let mut held = Held::default();
    let span = Span::Items { after: Bytes::from_static(b"k"), through: Bytes::new() };
    assert_eq!(held.step(&items("k"), CHUNK_BYTES, 0, 8), Step::Look(span, CHUNK_BYTES));
    assert_eq!(held.step(&items("k"), CHUNK_BYTES, 0, 9), Step::Wait);
    assert!(!held.looked(7, &digest(Some("m"), 3)), "that is another one's");
    assert!(held.looked(8, &digest(Some("m"), 3)) && !held.looked(8, &digest(Some("m"), 3)));
    let Step::Known(piece) = held.step(&items("k"), CHUNK_BYTES, 0, 9) else { panic!("it is not known") };
    let to = WantFrom::ItemsTo(Bytes::from_static(b"k"), Bytes::from_static(b"m"));
    assert_eq!((piece.from(), piece.bytes, piece.most(CHUNK_BYTES)), (to, 1000, 2 * CHUNK_BYTES));
    assert!(piece.unless.is_some_and(|unless| unless.closer));
    assert_eq!(piece.behind(), items("m"));
    // The place moved meanwhile: what was found there is of no use.
    held.step(&items("m"), CHUNK_BYTES, 0, 10);
    held.looked(10, &digest(None, 3));
    assert!(matches!(held.step(&items("p"), CHUNK_BYTES, 0, 11), Step::Look(..)));
    // A round that failed drops the look.
    held.take_back();
    assert!(matches!(held.step(&items("p"), CHUNK_BYTES, 0, 12), Step::Look(..)));
}

#[test]
fn where_nothing_is_held_or_it_cannot_be_read_the_content_is_wanted_without_a_digest() {
    for (found, at, from) in [
        (digest(None, 0), items("k"), WantFrom::Items(Bytes::from_static(b"k"))),
        (Found::Gone, items("k"), WantFrom::Items(Bytes::from_static(b"k"))),
        (Found::Unread, items("k"), WantFrom::Items(Bytes::from_static(b"k"))),
        (Found::Unread, Next::Blocks(FILE, 8192), WantFrom::BlocksTo(8192, 8192 + u64::from(CHUNK_BYTES))),
        (Found::Gone, Next::Blocks(FILE, 8192), WantFrom::Blocks(8192)),
    ] {
        let mut held = Held::default();
        held.step(&at, CHUNK_BYTES, 8 << 20, 1);
        held.looked(1, &found);
        let Step::Known(piece) = held.step(&at, CHUNK_BYTES, 8 << 20, 2) else { panic!("it is not known") };
        assert_eq!((piece.from(), piece.unless, piece.most(CHUNK_BYTES)), (from, None, CHUNK_BYTES));
    }
}

#[test]
fn a_hole_of_a_volume_is_one_range_and_the_last_range_ends_with_the_volume() {
    const SIZE: u64 = 8 << 40;
    let blocks = |reached: Option<u64>| {
        let reached = reached.map(|end| Bytes::copy_from_slice(&end.to_be_bytes()));
        Found::Digest(Digest { reached, count: 0, bytes: 0, hash: [7; 32] })
    };
    for (from, reached, wanted) in [
        (0, Some(5 << 30), WantFrom::BlocksTo(0, 5 << 30)),
        // As far as a look goes.
        (4096, None, WantFrom::BlocksTo(4096, 4096 + (1 << 40))),
        (SIZE - 4096, None, WantFrom::Blocks(SIZE - 4096)),
    ] {
        let mut held = Held::default();
        let at = Next::Blocks(FILE, from);
        let len = (SIZE - from).min(1 << 40);
        assert_eq!(
            held.step(&at, CHUNK_BYTES, SIZE, 1),
            Step::Look(Span::Blocks { offset: from, len }, CHUNK_BYTES)
        );
        held.looked(1, &blocks(reached));
        let Step::Known(piece) = held.step(&at, CHUNK_BYTES, SIZE, 2) else { panic!("it is not known") };
        assert_eq!(piece.from(), wanted);
        assert!(piece.unless.is_some(), "zeros are compared as all else");
    }
}

#[test]
fn what_differs_is_looked_at_in_small_parts_and_less_is_asked_at_once_until_ranges_are_equal_again() {
    let mut held = Held::default();
    assert_eq!(held.window(&items("a")), WANTS_MAX);
    held.step(&items("a"), CHUNK_BYTES, 0, 1);
    held.looked(1, &digest(Some("m"), 3));
    let Step::Known(piece) = held.step(&items("a"), CHUNK_BYTES, 0, 2) else { panic!("it is not known") };
    held.differs(Some(piece));
    assert_eq!((held.window(&items("a")), held.window(&items("l"))), (WANTS_MAX, WANTS_MAX));
    assert_eq!((held.window(&items("m")), held.window(&items(""))), (1, 1));
    let step = held.step(&items("a"), CHUNK_BYTES, 0, 3);
    assert!(matches!(step, Step::Look(_, most) if most == CHUNK_BYTES / 32), "{step:?}");
    held.looked(3, &digest(Some("b"), 1));
    let Step::Known(part) = held.step(&items("a"), CHUNK_BYTES, 0, 4) else { panic!("it is not known") };
    assert!(part.unless.is_some_and(|unless| !unless.closer), "of a part the content comes");
    assert!(matches!(held.step(&items("m"), CHUNK_BYTES, 0, 5), Step::Look(_, CHUNK_BYTES)));
    for window in [2, 4, 8, WANTS_MAX] {
        held.answered(true);
        held.answered(false);
        assert_eq!(held.window(&items("m")), window);
    }
}

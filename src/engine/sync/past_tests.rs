//! Pieces of histories that parted, and the batches of one.

use super::*;
use crate::base::{Chain, FileId, JournalKind};
use crate::format::batch::{BatchBuilder, Seal};
use crate::format::entry::{Entry, EntryKind};
use std::convert::Infallible;

const PAIR: PairId = PairId([4; 16]);

fn at(epoch: u64, seq: u64) -> Position {
    // The chain tells which history it is: here that of the epoch.
    Position { epoch: Epoch(epoch), seq: Seq(seq), chain: Chain(epoch * 1000 + seq) }
}

fn span(base: (u64, u64), end: (u64, u64)) -> Span {
    Span { base: at(base.0, base.1), end: at(end.0, end.1) }
}

/// Each piece holds every position of the epoch in which it begins, and of the one in which it ends.
fn linked(pieces: &[Span], start: (u64, u64)) -> Result<Vec<(usize, Option<u64>)>, Unlinked> {
    let holds = |piece: usize, at: Position| {
        let span: Span = pieces[piece];
        Ok::<_, Infallible>(at.epoch == span.base.epoch || at.epoch == span.end.epoch)
    };
    let Ok(links) = link(pieces, at(start.0, start.1), holds);
    Ok(links?.into_iter().map(|(piece, cut)| (piece, cut.map(|cut| cut.seq.0))).collect())
}

#[test]
fn pieces_are_followed_from_the_newest_end_to_the_start_in_whatever_order_they_come() {
    let mut pieces = vec![span((1, 10), (1, 20)), span((1, 20), (1, 30)), span((1, 30), (1, 40))];
    assert_eq!(linked(&pieces, (1, 12)), Ok(vec![(0, Some(20)), (1, Some(30)), (2, None)]));
    assert_eq!(linked(&pieces, (1, 20)), Ok(vec![(1, Some(30)), (2, None)]));
    assert_eq!(linked(&pieces, (1, 40)), Ok(vec![]), "nothing goes beyond the start");
    assert_eq!(linked(&[], (1, 0)), Ok(vec![]));
    pieces.reverse();
    assert_eq!(linked(&pieces, (1, 12)), Ok(vec![(2, Some(20)), (1, Some(30)), (0, None)]));
    // One that begins with the first batch of an epoch tells that one.
    let next = Span { base: Position { epoch: Epoch(2), ..at(1, 40) }, end: at(2, 60) };
    assert_eq!(linked(&[span((1, 30), (1, 40)), next], (1, 35)), Ok(vec![(0, Some(40)), (1, None)]));
    // A journal that overlaps them.
    pieces.push(span((1, 15), (1, 50)));
    assert_eq!(linked(&pieces, (1, 20)), Ok(vec![(3, None)]));
    assert_eq!(linked(&pieces, (1, 12)), Ok(vec![(2, Some(15)), (3, None)]));
}

#[test]
fn what_a_takeover_left_is_not_taken_and_a_stray_piece_is_passed_by() {
    // The old primary's, of which the second ends with entries that the pair never kept; then the new one's, then its own
    // again.
    let pieces =
        [span((1, 0), (1, 90)), span((1, 90), (1, 100)), span((1, 80), (2, 130)), span((2, 130), (3, 170))];
    assert_eq!(linked(&pieces, (1, 50)), Ok(vec![(0, Some(80)), (2, Some(130)), (3, None)]));
}

#[test]
fn gaps_and_pieces_of_another_history_are_told() {
    let gap = [span((1, 0), (1, 10)), span((1, 20), (1, 30))];
    assert_eq!(linked(&gap, (1, 5)), Err(Unlinked::Gap { from: Seq(11), to: Seq(20) }));
    assert_eq!(linked(&gap[1..], (1, 5)), Err(Unlinked::Gap { from: Seq(6), to: Seq(20) }));
    let branch = [span((1, 0), (1, 30)), span((2, 20), (2, 40))];
    assert_eq!(linked(&branch, (1, 5)), Err(Unlinked::Branch { piece: 1, base: at(2, 20) }));
}

fn batch(pair: PairId, after: Position, (epoch, entries, wall_ms): (u64, u64, u64)) -> Batch {
    let mut builder = BatchBuilder::new(after.seq.next(), 0);
    for _ in 0..entries {
        builder.push(&Entry { kind: EntryKind::Put, file: FileId(7), id: b"k", value: b"v" });
    }
    let (prev_chain, durable, journal) = (after.chain, after.seq, JournalKind::Replicated);
    builder.seal(&Seal { epoch: Epoch(epoch), prev_chain, durable, wall_ms, pair, journal })
}

/// Three batches of two entries each, written in the seconds 1, 2 and 3.
fn history() -> Vec<Batch> {
    let mut all = Vec::new();
    let mut after = at(1, 10);
    for second in 1..=3 {
        let next = batch(PAIR, after, (1, 2, second * 1000));
        after = next.end();
        all.push(next);
    }
    all
}

fn taken(start: Position, until: Until) -> (Vec<Taken>, Past) {
    let mut past = Past::new(PAIR, start, until);
    let told = history().iter().map(|batch| past.take(batch).unwrap()).collect();
    (told, past)
}

#[test]
fn a_history_ends_with_the_last_whole_batch_before_the_end_that_was_asked_for() {
    use Taken::{Before, Behind, Next};
    let (told, past) = taken(at(1, 10), Until::End);
    assert_eq!((told, past.at().seq, past.wall_ms(), past.behind()), (vec![Next; 3], Seq(16), 3000, None));
    for (until, seq, behind) in [
        (Until::Entry(Seq(14)), 14, Some((Seq(15), Seq(16), 3000))),
        (Until::Entry(Seq(13)), 12, Some((Seq(13), Seq(14), 2000))),
        (Until::Entry(Seq(16)), 16, None),
        (Until::Time(2000), 14, Some((Seq(15), Seq(16), 3000))),
        (Until::Time(1999), 12, Some((Seq(13), Seq(14), 2000))),
        (Until::Time(500), 10, Some((Seq(11), Seq(12), 1000))),
    ] {
        let (_, past) = taken(at(1, 10), until);
        assert_eq!((past.at().seq.0, past.behind()), (seq, behind), "{until:?}");
    }
    let second = history()[0].end();
    assert_eq!(taken(second, Until::Time(2000)).0, [Before, Next, Behind]);
}

#[test]
fn a_clock_that_was_set_back_does_not_take_a_history_up_again() {
    let mut past = Past::new(PAIR, at(1, 10), Until::Time(1500));
    let all = history();
    assert_eq!((past.take(&all[0]), past.take(&all[1])), (Ok(Taken::Next), Ok(Taken::Behind)));
    let early = batch(PAIR, all[1].end(), (1, 2, 1000));
    assert_eq!(past.take(&early), Ok(Taken::Behind));
    assert_eq!(past.behind(), Some((Seq(13), Seq(14), 2000)));
}

#[test]
fn what_is_not_of_the_history_is_refused_by_name() {
    let all = history();
    let told = |start: Position, batch: &Batch| Past::new(PAIR, start, Until::End).take(batch).unwrap_err();
    assert_eq!(told(at(1, 10), &all[1]), Apart::Gap { from: Seq(11), to: Seq(12) });
    assert_eq!(told(at(1, 11), &all[0]), Apart::Branch { at: Seq(11), epoch: Epoch(1) }, "in the middle");
    assert_eq!(told(at(2, 12), &all[0]), Apart::Branch { at: Seq(12), epoch: Epoch(1) }, "it ends elsewhere");
    assert_eq!(told(at(2, 12), &all[1]), Apart::Branch { at: Seq(12), epoch: Epoch(1) });
    let newer = Position { epoch: Epoch(5), ..all[0].end() };
    assert_eq!(told(newer, &all[1]), Apart::Branch { at: Seq(12), epoch: Epoch(1) }, "an older epoch");
    let foreign = batch(PairId([5; 16]), at(1, 10), (1, 1, 0));
    assert_eq!(told(at(1, 10), &foreign), Apart::Pair(PairId([5; 16])));
    // Where it was joined, what is given once more is passed by.
    let mut past = Past::new(PAIR, at(1, 10), Until::End);
    past.take(&all[0]).unwrap();
    assert_eq!(past.take(&all[0]), Ok(Taken::Before));
}

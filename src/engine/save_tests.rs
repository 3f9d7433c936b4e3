//! Who saves a node is told where the journal stood, and is given its batches for as long as they are there.

use super::*;
use crate::engine::Event;
use crate::engine::test_kit::{Node, config};

fn asks(node: &mut Node, ask: SaveAsk) -> SaveAnswer {
    node.save_answers.clear();
    node.input(Event::Save { token: 7, ask });
    assert!(node.save_answers.len() <= 1, "a question has one answer");
    node.save_answers.pop().unwrap_or(SaveAnswer::Again)
}

/// A node that serves alone, with three items, and a save of it that began before them.
fn saved() -> (Node, u64, Seq) {
    let mut node = Node::serving(config(0));
    assert_eq!(node.set("0"), "+OK\r\n");
    node.apply();
    let at = node.engine.core.appliers.replicated().visible();
    let SaveAnswer::Begun { save, origin, table, role, up_to } = asks(&mut node, SaveAsk::Begin { at })
    else {
        panic!("it does not begin")
    };
    assert_eq!((origin.seq, role), (at, Role::Primary));
    // What is durable and not in the store yet was answered too.
    assert_eq!(up_to, node.engine.core.replicated().pace().durable);
    assert!(table.iter().all(|mark| mark.first_seq <= at) && !table.is_empty());
    for id in ["1", "2", "3"] {
        assert_eq!(node.set(id), "+OK\r\n");
    }
    (node, save, at)
}

#[test]
fn a_save_is_given_every_batch_behind_what_it_has_and_keeps_the_journal_from_there_on() {
    let (mut node, save, at) = saved();
    let end = node.engine.core.replicated().pace().durable;
    let done = |node: &Node| node.engine.core.saving.as_ref().map(Saving::done);
    assert_eq!(done(&node), Some(at));
    for (after, up_to, expected) in [(at, end, end.0 - at.0), (Seq(end.0 - 1), end, 1), (end, end, 0)] {
        let answer = asks(&mut node, SaveAsk::Next { save, after, up_to });
        let SaveAnswer::Batches { batches, given } = answer else { panic!("{answer:?}") };
        let entries: u64 = batches.iter().map(|batch| u64::from(batch.header().count)).sum();
        assert_eq!(entries, expected);
        assert!(batches.first().is_none_or(|first| first.header().first_seq == after.next()));
        assert!(given <= end && given >= at);
        assert_eq!(done(&node), Some(after));
    }
    assert!(matches!(asks(&mut node, SaveAsk::Begin { at: end }), SaveAnswer::Busy), "one at a time");
    asks(&mut node, SaveAsk::End { save: save + 1 });
    assert_eq!(done(&node), Some(end), "another save ended");
    asks(&mut node, SaveAsk::End { save });
    assert_eq!(done(&node), None);
    let answer = asks(&mut node, SaveAsk::Next { save, after: at, up_to: end });
    assert!(matches!(answer, SaveAnswer::Refused { .. }), "{answer:?}");
}

#[test]
fn a_save_that_the_journal_is_gone_for_fails_and_says_what_to_do() {
    let (mut node, save, at) = saved();
    let answer = asks(&mut node, SaveAsk::Next { save, after: at, up_to: Seq(at.0 + 1000) });
    let SaveAnswer::Refused { why, next } = answer else { panic!("{answer:?}") };
    assert!(why.contains("ends before") && next.contains("journal_quota_bytes"), "{why}; {next}");
    assert!(node.engine.core.saving.is_none());
}

#[test]
fn a_position_that_the_journal_does_not_know_is_asked_again_and_no_save_of_a_part_begins() {
    let mut node = Node::serving(config(0));
    let answer = asks(&mut node, SaveAsk::Begin { at: Seq(1 << 40) });
    assert!(matches!(answer, SaveAnswer::Again), "{answer:?}");
    assert!(node.engine.core.saving.is_none());
    let mut node = Node::at(Stage::Incomplete, Role::Incomplete);
    let answer = asks(&mut node, SaveAsk::Begin { at: Seq(0) });
    let SaveAnswer::Refused { why, .. } = answer else { panic!("{answer:?}") };
    assert!(why.contains("incomplete"), "{why}");
}

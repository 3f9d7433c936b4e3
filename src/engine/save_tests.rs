//! Who saves a node is told where the journal stood, and is given its batches for as long as they are there.

use super::*;
use crate::engine::Event;
use crate::engine::admin::{AdminReply, AdminRequest};
use crate::engine::test_kit::{Node, config};
use crate::format::dptr::DptrKind;
use crate::store::CopySource as _;
use crate::store::namespace::Namespace;

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
    let shown = JournalKind::ALL.map(|journal| node.engine.core.appliers.of(journal).visible());
    let at = shown[0];
    let SaveAnswer::Begun { save, origin, table, role, up_to, own } =
        asks(&mut node, SaveAsk::Begin { at: shown })
    else {
        panic!("it does not begin")
    };
    assert_eq!((origin.seq, role), (at, Role::Primary));
    // What is durable and not in the store yet was answered too.
    assert_eq!(up_to, node.engine.core.replicated().pace().durable);
    assert_eq!(own, node.engine.core.journals[JournalKind::Local.index()].pace().durable);
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
    assert!(
        matches!(asks(&mut node, SaveAsk::Begin { at: [end, Seq(0)] }), SaveAnswer::Busy),
        "one at a time"
    );
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
    let answer = asks(&mut node, SaveAsk::Begin { at: [Seq(1 << 40), Seq(0)] });
    assert!(matches!(answer, SaveAnswer::Again), "{answer:?}");
    assert!(node.engine.core.saving.is_none());
    let mut node = Node::at(Stage::Incomplete, Role::Incomplete);
    let answer = asks(&mut node, SaveAsk::Begin { at: [Seq(0); 2] });
    let SaveAnswer::Refused { why, .. } = answer else { panic!("{answer:?}") };
    assert!(why.contains("incomplete"), "{why}");
}

#[test]
fn a_save_does_not_begin_before_the_store_shows_what_was_defined_on_this_node_alone() {
    let mut node = Node::with_waiting_store();
    let shown = |node: &Node| {
        let (at, definitions) = node.store.definitions().unwrap();
        let all = Namespace::of(&definitions).unwrap();
        (at, all.resolve(b"app,scratch").is_some())
    };
    let request = AdminRequest::FileCreate {
        name: "app,scratch".to_owned(),
        kind: DptrKind::Records,
        flags: Some("T".to_owned()),
        bytes: None,
        ack: None,
    };
    node.answered.clear();
    node.input(Event::Admin { token: 1, request });
    assert!(matches!(node.answered.pop(), Some(AdminReply::Ok { .. })), "it is durable");
    let (at, there) = shown(&node);
    assert!(!there, "and not in the store");
    // What is replicated comes with the batches: that alone keeps no save waiting.
    assert_eq!(node.set("1"), "+OK\r\n");
    let answer = asks(&mut node, SaveAsk::Begin { at });
    assert!(matches!(answer, SaveAnswer::Early), "{answer:?}");
    assert!(node.engine.core.saving.is_none());
    node.apply();
    let answer = asks(&mut node, SaveAsk::Begin { at });
    assert!(matches!(answer, SaveAnswer::Early), "definitions that were read before are no use: {answer:?}");
    let (at, there) = shown(&node);
    assert!(there);
    let answer = asks(&mut node, SaveAsk::Begin { at });
    let SaveAnswer::Begun { save, .. } = answer else { panic!("{answer:?}") };
    asks(&mut node, SaveAsk::End { save });
    // What clients were answered for is in the save, though the store does not show it yet.
    assert_eq!(node.set("2"), "+OK\r\n");
    let answer = asks(&mut node, SaveAsk::Begin { at });
    let SaveAnswer::Begun { origin, up_to, .. } = answer else { panic!("{answer:?}") };
    assert_eq!((origin.seq, up_to), (at[0], at[0].next()));
}

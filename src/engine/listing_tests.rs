//! What an operator sees of the entries that wait for the peer.

use super::*;
use crate::engine::admin::{AdminAnswer, AdminReply, AdminRequest};
use crate::engine::test_kit::{Node, config};

fn listed(node: &mut Node, limit: usize) -> Vec<LogEntryView> {
    match node.asks(AdminRequest::LogShow { limit }) {
        AdminReply::Ok { value: AdminAnswer::Log(list) } => list,
        other => panic!("no list: {other:?}"),
    }
}

/// A node that serves alone, with three items that nobody else has.
fn node() -> Node {
    let mut node = Node::serving(config(0));
    for id in ["1", "2", "3"] {
        assert_eq!(node.set(id), "+OK\r\n");
    }
    node
}

#[test]
fn the_entries_that_wait_for_the_peer_are_listed_in_order_with_file_and_item() {
    let mut node = node();
    let end = node.engine.core.replicated().pace().durable;
    let all = listed(&mut node, 1000);
    assert_eq!(all.len() as u64, end.0);
    assert!(all.windows(2).all(|two| two[0].seq + 1 == two[1].seq));
    let items: Vec<(&str, &str)> =
        all.iter().rev().take(3).map(|view| (view.file.as_str(), view.item.as_str())).collect();
    assert_eq!(items, [("app,orders", "3"), ("app,orders", "2"), ("app,orders", "1")]);
}

#[test]
fn a_listing_ends_at_its_limit_and_begins_behind_what_the_peer_has() {
    let mut node = node();
    assert_eq!(listed(&mut node, 2).len(), 2);
    let end = node.engine.core.replicated().pace().durable;
    node.engine.core.peer.retain(Seq(end.0 - 2));
    let seqs: Vec<u64> = listed(&mut node, 1000).iter().map(|view| view.seq).collect();
    assert_eq!(seqs, [end.0 - 1, end.0]);
    node.engine.core.peer.retain(end);
    assert!(listed(&mut node, 1000).is_empty(), "nothing waits");
}

#[test]
fn a_second_listing_is_refused_while_one_is_under_way() {
    let mut node = node();
    let core = &mut node.engine.core;
    core.start_listing(1, 10);
    core.start_listing(2, 10);
    assert_eq!(core.listing.as_ref().map(|listing| listing.token), Some(1));
    let refused = core.out.iter().any(|effect| {
        matches!(effect, crate::engine::Effect::Admin { token: 2, reply: AdminReply::No { message, .. } }
            if message == "another listing is under way")
    });
    assert!(refused);
}

#[test]
fn a_journal_that_cannot_be_read_is_said_to_who_asked_and_ends_the_listing() {
    let mut node = node();
    node.ills.reads = Some(Fault::Errno(5));
    match node.asks(AdminRequest::LogShow { limit: 10 }) {
        AdminReply::No { message, .. } => assert!(message.starts_with("reading the journal: "), "{message}"),
        other => panic!("a list: {other:?}"),
    }
    node.ills.reads = None;
    assert!(!listed(&mut node, 10).is_empty(), "the next one is taken");
}

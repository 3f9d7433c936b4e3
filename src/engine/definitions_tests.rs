//! Operators' changes: what waits behind a barrier, what does not, and what is refused with which words.

use super::*;
use crate::base::Fault;
use crate::engine::Event;
use crate::engine::roles::Stage;
use crate::engine::test_kit::{Node, config};

fn clear(name: &str, dry_run: bool) -> AdminRequest {
    AdminRequest::FileClear { name: name.to_owned(), dry_run }
}

/// Ends or begins the replication of a file, which moves it from one journal to the other.
fn moves(name: &str, set: &str, clear: &str) -> AdminRequest {
    let (set, clear) = (set.to_owned(), clear.to_owned());
    AdminRequest::SetDptr { set, clear, accounts: false, names: vec![name.to_owned()], ack: None }
}

fn refusal(reply: AdminReply) -> String {
    match reply {
        AdminReply::No { message, .. } => message,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_change_that_stays_in_its_journal_is_answered_once_it_is_durable() {
    let mut node = Node::serving(config(0));
    node.ills.disk_hangs = true;
    node.input(Event::Admin { token: 7, request: clear("app,orders", false) });
    assert!(node.answered.is_empty() && !node.engine.core.operators.has_barrier());
    node.goes_on();
    assert!(matches!(node.answered[..], [AdminReply::Ok { .. }]), "{:?}", node.answered);
}

#[test]
fn a_change_between_the_journals_waits_until_all_before_it_is_applied_and_stops_clients_meanwhile() {
    let mut node = Node::serving(config(0));
    node.ills.store_waits = true;
    assert_eq!(node.set("1"), "+OK\r\n");
    node.input(Event::Admin { token: 7, request: moves("app,orders", "", "L") });
    assert!(node.engine.core.operators.has_barrier() && node.answered.is_empty());
    assert!(node.engine.core.is_congested(), "no client goes on");
    assert_eq!(node.set("2"), "", "this one waits");
    node.answered.clear();
    for _ in 0..10 {
        node.apply();
        node.input(Event::Tick);
    }
    assert!(matches!(node.answered[..], [AdminReply::Ok { .. }]), "{:?}", node.answered);
    assert!(!node.engine.core.operators.has_barrier());
    assert_eq!(node.said, "+OK\r\n", "the client goes on behind it");
    let file = node.engine.core.namespace.resolve(b"app,orders").unwrap();
    assert!(!node.engine.core.namespace.is_replicated(file));
}

#[test]
fn what_is_asked_for_behind_a_barrier_waits_for_its_turn() {
    let mut node = Node::serving(config(0));
    node.ills.store_waits = true;
    node.set("1");
    node.input(Event::Admin { token: 1, request: moves("app,orders", "", "L") });
    node.input(Event::Admin { token: 2, request: clear("app,orders", true) });
    assert!(node.answered.is_empty());
    for _ in 0..10 {
        node.apply();
        node.input(Event::Tick);
    }
    assert_eq!(node.answered.len(), 2, "{:?}", node.answered);
    assert!(
        matches!(&node.answered[1], AdminReply::Ok { value: AdminAnswer::WouldGo(would) } if would.items == 1)
    );
}

#[test]
fn a_barrier_whose_store_takes_nothing_is_given_up_with_nothing_changed() {
    let mut node = Node::serving(config(0));
    node.ills.store = Some(Fault::Errno(5));
    node.set("1");
    node.input(Event::Admin { token: 1, request: moves("app,orders", "", "L") });
    let Some(AdminReply::No { message, .. }) = node.answered.pop() else { panic!("{:?}", node.answered) };
    assert!(
        message.contains("the store cannot apply") || message.starts_with("nothing was changed"),
        "{message}"
    );
    assert!(!node.engine.core.operators.has_barrier());
}

#[test]
fn a_dry_run_counts_and_changes_nothing() {
    let mut node = Node::serving(config(0));
    for id in ["1", "2", "3"] {
        node.set(id);
    }
    let before = node.engine.core.journals.appended();
    match node.asks(clear("app,orders", true)) {
        AdminReply::Ok { value: AdminAnswer::WouldGo(would) } => {
            assert_eq!((would.files, would.items, would.at_least, would.dry_run), (1, 3, false, true));
        }
        other => panic!("no count: {other:?}"),
    }
    assert_eq!(node.engine.core.journals.appended(), before);
}

#[test]
fn a_change_is_refused_with_the_reason_where_it_cannot_be_done() {
    let mut node = Node::serving(config(0));
    assert_eq!(refusal(node.asks(clear("app,none", false))), "there is no file app,none");
    let request = moves("app,orders", "Q", "");
    assert_eq!(refusal(node.asks(request)), "\"Q\" holds a letter that is no flag");
    let stage = |stage| {
        let mut node = Node::serving(config(0));
        node.engine.core.roles.place(stage);
        refusal(node.asks(clear("app,orders", false)))
    };
    assert!(stage(Stage::Asking).starts_with("this node does not serve as primary (it is asking-peer): "));
    assert!(
        stage(Stage::SteppingDown).starts_with("this node does not serve as primary (it is stepping-down): ")
    );
    node.ills.store = Some(Fault::NoSpace);
    node.set("1");
    assert!(refusal(node.asks(clear("app,orders", false))).starts_with("the store cannot apply"));
}

#[test]
fn operators_who_wait_are_let_go_when_the_node_steps_down() {
    let mut node = Node::serving(config(0));
    node.ills.store_waits = true;
    node.set("1");
    node.ills.disk_hangs = true;
    node.input(Event::Admin { token: 1, request: clear("app,orders", false) });
    node.input(Event::Admin { token: 2, request: moves("app,orders", "", "L") });
    assert!(node.answered.is_empty());
    node.engine.core.step_down(crate::base::Position::default(), crate::base::Epoch(9));
    node.input(Event::Tick);
    let messages: Vec<String> = std::mem::take(&mut node.answered).into_iter().map(refusal).collect();
    assert_eq!(messages, ["this node steps down: its peer has taken over"; 2]);
}

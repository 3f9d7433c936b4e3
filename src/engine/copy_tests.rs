//! A copy of a file into the journal, beside users, their changes and what operators do meanwhile.

use super::*;
use crate::base::Fault;
use crate::doors::{BlockBackend as _, Payload};
use crate::engine::Event;
use crate::engine::admin::{AdminReply, AdminRequest};
use crate::engine::test_kit::{Node, config};
use crate::format::dptr::FileState;

/// A node with 200 items in `app,orders` and a MiB with some data in `app,disk`, both still of this node alone.
fn node() -> Node {
    let mut node = Node::serving(config(0));
    for (name, clear) in [("app,orders", "L"), ("app,disk", "L")] {
        flags(&mut node, name, "", clear);
    }
    for n in 0..200 {
        assert_eq!(node.set(&format!("{n:03}")), "+OK\r\n");
    }
    for at in [0, 512 << 10] {
        write(&mut node, at, 7);
    }
    node.told.clear();
    node
}

fn flags(node: &mut Node, name: &str, set: &str, clear: &str) {
    let (names, ack) = (vec![name.to_owned()], None);
    let (set, clear) = (set.to_owned(), clear.to_owned());
    let reply = node.asks(AdminRequest::SetDptr { set, clear, accounts: false, names, ack });
    assert!(matches!(reply, AdminReply::Ok { .. }), "{reply:?}");
}

fn id(node: &Node, name: &str) -> FileId {
    node.engine.core.namespace.resolve(name.as_bytes()).unwrap()
}

fn write(node: &mut Node, at: u64, byte: u8) {
    let file = id(node, "app,disk");
    node.engine.core.write_blocks(file, at, Payload::Borrowed(&[byte; 4096])).unwrap();
    node.input(Event::Tick);
}

fn state(node: &Node, name: &str) -> FileState {
    node.engine.core.namespace.file(id(node, name)).unwrap().dptr.state
}

fn copies(node: &mut Node) {
    for _ in 0..100 {
        node.input(Event::Tick);
    }
}

#[test]
fn a_file_that_begins_to_be_replicated_is_copied_whole_and_said_so() {
    let mut node = node();
    flags(&mut node, "app,orders", "L", "");
    copies(&mut node);
    assert_eq!(state(&node, "app,orders"), FileState::Whole);
    let text = &node.told.iter().find(|(kind, _)| *kind == "copied").expect("it is told").1;
    assert_eq!(text, "app,orders: 200 items are copied into the journal");
}

#[test]
fn a_volume_is_copied_as_far_as_it_takes_space() {
    let mut node = node();
    flags(&mut node, "app,disk", "L", "");
    copies(&mut node);
    assert_eq!(state(&node, "app,disk"), FileState::Whole);
    let text = &node.told.iter().find(|(kind, _)| *kind == "copied").expect("it is told").1;
    let said = text
        .strip_prefix("app,disk: ")
        .and_then(|text| text.strip_suffix(" bytes are copied into the journal"));
    let digits = said.expect("it says how much").chars().filter(char::is_ascii_digit).collect::<String>();
    let bytes: u64 = digits.parse().expect("a number");
    assert!((8192..1 << 20).contains(&bytes), "{text}");
}

#[test]
fn a_copy_stands_still_while_a_barrier_stands_and_where_nobody_serves() {
    let mut node = node();
    flags(&mut node, "app,orders", "L", "");
    let mut waiting = Node::serving(config(0));
    waiting.ills.store_waits = true;
    let (name, flags) = ("app,orders".to_owned(), "L".to_owned());
    let request = AdminRequest::SetDptr {
        set: String::new(),
        clear: flags,
        accounts: false,
        names: vec![name],
        ack: None,
    };
    waiting.set("1");
    waiting.input(Event::Admin { token: 1, request });
    assert!(waiting.engine.core.operators.has_barrier());
    waiting.engine.core.pump_copy();
    assert!(waiting.engine.core.copies.job.is_none());
    let mut standby = Node::at(crate::engine::roles::Stage::Standby, crate::format::control::Role::Standby);
    standby.engine.core.pump_copy();
    assert!(standby.engine.core.copies.job.is_none());
}

#[test]
fn a_piece_that_a_client_changes_while_it_is_read_is_read_again() {
    let mut node = node();
    flags(&mut node, "app,disk", "L", "");
    let file = id(&node, "app,disk");
    for (start, end, again) in [(0, 4096, true), (PIECE - 1, PIECE, true), (PIECE, 2 * PIECE, false)] {
        let core = &mut node.engine.core;
        core.copies.job = Some(CopyJob {
            file,
            copied: 0,
            at: CopyAt::Reading { ask: 5, at: 0, until: 1 << 20, changed: false },
        });
        core.note_copied_over(FileId(99), start, end);
        core.note_copied_over(file, start, end);
        let CopyAt::Reading { changed, .. } = core.copies.job.as_ref().unwrap().at else {
            panic!("it reads")
        };
        assert_eq!(changed, again, "{start} to {end}");
    }
}

#[test]
fn an_answer_to_a_copy_that_was_given_up_is_none_to_the_next_one() {
    let mut node = node();
    let file = id(&node, "app,disk");
    let core = &mut node.engine.core;
    let reading = || CopyAt::Reading { ask: 5, at: 0, until: 4096, changed: false };
    core.copies.job = Some(CopyJob { file, copied: 0, at: reading() });
    core.copy_read(4, Ok(Vec::new()));
    core.copy_found(5, Ok(Vec::new()));
    assert!(matches!(core.copies.job, Some(CopyJob { at: CopyAt::Reading { ask: 5, .. }, .. })));
    core.copies.job = Some(CopyJob { file, copied: 0, at: CopyAt::Looking { ask: 6, at: 0 } });
    core.copy_read(6, Ok(Vec::new()));
    core.copy_found(5, Ok(Vec::new()));
    assert!(matches!(core.copies.job, Some(CopyJob { at: CopyAt::Looking { ask: 6, .. }, .. })));
}

#[test]
fn a_copy_that_fails_is_told_and_begins_anew_after_a_while_and_not_at_once() {
    let mut node = node();
    node.ills.volumes = Some(Fault::Errno(5));
    flags(&mut node, "app,disk", "L", "");
    copies(&mut node);
    let end = node.engine.core.replicated().pace().appended;
    for _ in 0..COPY_RETRY_MS / 1000 - 1 {
        node.passes(1000);
    }
    assert_eq!(node.times("copy-failed"), 1, "{:?}", node.told);
    assert_eq!(node.engine.core.replicated().pace().appended, end, "each beginning is an entry");
    assert_ne!(state(&node, "app,disk"), FileState::Whole);
    node.ills.volumes = None;
    let due = node.engine.core.copies.deadline(node.now.mono).expect("it begins by itself");
    assert!(node.engine.deadline().is_some_and(|at| at <= due));
    node.now.mono = due;
    copies(&mut node);
    assert_eq!(state(&node, "app,disk"), FileState::Whole);
    assert!(!node.engine.core.incidents.lasts(Matter::CopyFailed));
}

#[test]
fn a_file_whose_items_cannot_be_read_is_not_begun_again_at_once() {
    let damaged = || crate::store::StoreError::Damaged {
        what: "a block of a table",
        why: "its checksum is wrong".to_owned(),
    };
    let (mut core, file) = crate::engine::apply::tests::rotten(damaged);
    core.roles.place(crate::engine::roles::Stage::Serving);
    core.begin_copy(file);
    core.pump_copy();
    let end = core.replicated().pace().appended;
    assert!(core.copies.job.is_none() && core.incidents.lasts(Matter::CopyFailed));
    assert!(core.namespace.copies_due().next().is_some(), "it is due still");
    for _ in 0..100 {
        core.pump_copy();
    }
    assert_eq!(core.replicated().pace().appended, end, "each beginning is an entry");
    core.now.mono = core.now.mono.plus_ms(COPY_RETRY_MS);
    core.pump_copy();
    assert!(core.replicated().pace().appended > end);
}

#[test]
fn a_file_that_goes_while_it_is_copied_ends_its_copy() {
    let mut node = node();
    flags(&mut node, "app,orders", "L", "");
    let file = id(&node, "app,orders");
    let name = "app,orders".to_owned();
    node.asks(AdminRequest::FileDelete { name, dry_run: false });
    node.engine.core.copies.job = Some(CopyJob { file, copied: 3, at: CopyAt::Item(None) });
    node.told.clear();
    copies(&mut node);
    assert!(node.engine.core.copies.job.is_none());
    assert_eq!(node.times("copied") + node.times("copy-failed"), 0, "{:?}", node.told);
    assert!(node.store.items(file).is_empty());
}

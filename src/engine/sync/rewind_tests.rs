//! Two nodes whose drivers do everything at once, and the wire between them.

use crate::base::{ConnId, Fault, Ordinal};
use crate::engine::admin::{AdminReply, AdminRequest};
use crate::engine::config::OnDiverged;
use crate::engine::roles::Stage;
use crate::engine::test_kit::{CLIENT, Node, PAIR, config};
use crate::engine::{Event, FullSync, LinkEvent};
use crate::format::control::{Control, Role};
use crate::format::dptr::DptrKind;
use crate::store::memory::MemoryStore;
use bytes::Bytes;
use std::collections::BTreeMap;

/// An operator's word, with nothing else.
const RESYNC: AdminRequest = AdminRequest::Resync { rate: None, full: false, accept_incomplete: false };

/// The word that the peer is dead, with a part of a copy too if so.
fn takeover(incomplete: bool, epoch: Option<u64>) -> AdminRequest {
    let (peer_is_down, dry_run, accept_loss, now) = (true, false, false, true);
    AdminRequest::Takeover { peer_is_down, dry_run, accept_loss, now, incomplete, epoch }
}

/// A pair. The wire may be cut.
struct Pair {
    nodes: [Node; 2],
    /// The connection that each node made, as the other one knows it.
    calls: [Option<(ConnId, ConnId)>; 2],
    number: u64,
    cut: bool,
    /// Bytes of all frames that went over the wire.
    carried: usize,
}

impl Pair {
    /// Two nodes; the second follows the first, which has `app,orders` with a hundred items and `app,disk`.
    fn new(on_diverged: OnDiverged) -> Self {
        let node = |ordinal: u8, role| {
            let config = crate::engine::EngineConfig { on_diverged, ..config(ordinal) };
            let mut node = Node::found(config, Control::new(role, PAIR), MemoryStore::new(Ordinal(ordinal)));
            node.ills.peer_is_there = true;
            node.input(Event::Tick);
            node
        };
        let mut pair = Self {
            nodes: [node(0, Role::Primary), node(1, Role::Standby)],
            calls: [None, None],
            number: 0,
            cut: false,
            carried: 0,
        };
        pair.runs(3_000);
        for (n, node) in pair.nodes.iter_mut().enumerate() {
            node.opens(CLIENT);
            assert_eq!(node.engine.core.serving(), n == 0);
        }
        pair.does(0, AdminRequest::AccountCreate { name: "app".to_owned(), flags: "L".to_owned() });
        pair.file(0, "app,orders");
        let (name, kind, bytes) = ("app,disk".to_owned(), DptrKind::Blocks, Some(1 << 20));
        pair.does(0, AdminRequest::FileCreate { name, kind, flags: None, bytes, ack: None });
        for n in 0..100 {
            pair.sets(0, "app,orders", &format!("{n:03}"), "old");
        }
        pair.runs(1_000);
        assert_eq!(pair.content(0), pair.content(1));
        pair
    }

    fn does(&mut self, n: usize, request: AdminRequest) {
        let reply = self.nodes[n].asks(request);
        assert!(matches!(reply, AdminReply::Ok { .. }), "{reply:?}");
    }

    fn file(&mut self, n: usize, name: &str) {
        let (name, kind) = (name.to_owned(), DptrKind::Records);
        self.does(n, AdminRequest::FileCreate { name, kind, flags: None, bytes: None, ack: None });
    }

    fn sets(&mut self, n: usize, file: &str, id: &str, value: &str) {
        assert_eq!(self.nodes[n].says(&format!("SET {file},{id} {value}")), "+OK\r\n");
    }

    /// Time passes on both nodes, and all that they say reaches the other one.
    fn runs(&mut self, ms: u64) {
        for _ in 0..ms / 50 {
            (0..2).for_each(|n| self.nodes[n].passes(50));
            self.wire();
        }
    }

    fn wire(&mut self) {
        while (0..2).any(|n| self.step(n)) {}
    }

    /// Carries what a node said and did on the link; whether there was anything.
    fn step(&mut self, n: usize) -> bool {
        let mut any = false;
        if let Some(conn) = self.nodes[n].dialled.take() {
            any = true;
            if self.cut {
                let why = "nobody is there".to_owned();
                self.nodes[n].input(Event::Link(LinkEvent::Closed { conn, why }));
            } else {
                self.number += 1;
                let there = ConnId(1 << 63 | self.number);
                self.calls[n] = Some((conn, there));
                let from = "10.0.0.1:4001".to_owned();
                self.nodes[1 - n].input(Event::Link(LinkEvent::Accepted { conn: there, from }));
                self.nodes[n].input(Event::Link(LinkEvent::Connected { conn }));
            }
        }
        for (conn, parts) in std::mem::take(&mut self.nodes[n].sent) {
            any = true;
            if let Some(there) = self.other_end(n, conn).filter(|_| !self.cut) {
                let bytes = Bytes::from(parts.concat());
                self.carried += bytes.len();
                self.nodes[1 - n].input(Event::Link(LinkEvent::Bytes { conn: there, bytes }));
            }
        }
        for conn in std::mem::take(&mut self.nodes[n].closed) {
            let Some(there) = self.other_end(n, conn) else { continue };
            any = true;
            let why = "it was closed".to_owned();
            self.nodes[1 - n].input(Event::Link(LinkEvent::Closed { conn: there, why }));
        }
        any
    }

    fn other_end(&self, n: usize, conn: ConnId) -> Option<ConnId> {
        let own = self.calls[n].filter(|(here, _)| *here == conn).map(|(_, there)| there);
        own.or_else(|| self.calls[1 - n].filter(|(_, there)| *there == conn).map(|(here, _)| here))
    }

    /// The second node takes over while the wire is cut; the first one does not know.
    fn parts(&mut self) {
        self.cut = true;
        self.runs(6_000);
        self.does(1, takeover(false, None));
        assert!(self.nodes.iter().all(|node| node.engine.core.serving()));
    }

    fn meets(&mut self) {
        self.cut = false;
        self.carried = 0;
        self.runs(10_000);
    }

    /// Items of all replicated files, by name.
    fn content(&self, n: usize) -> BTreeMap<String, Vec<(Bytes, Bytes)>> {
        let store = &self.nodes[n].store;
        let names = store.namespace();
        let replicated = names.files().filter(|(_, info)| info.replicated);
        replicated.map(|(id, info)| (info.key.clone(), store.items(id))).collect()
    }

    fn stage(&self, n: usize) -> Stage {
        self.nodes[n].engine.core.roles.stage()
    }

    #[track_caller]
    fn is_whole_again(&self) {
        assert_eq!(
            (self.stage(0), self.stage(1)),
            (Stage::Standby, Stage::Serving),
            "{:?}",
            self.nodes[0].told
        );
        assert_eq!(self.content(0), self.content(1));
        assert_eq!(self.nodes[0].control.role, Role::Standby);
        let wants = self.nodes[0].store.prepared();
        assert_eq!(wants, None, "the list is of no use any more");
    }

    fn times(&self, n: usize, kind: &str) -> usize {
        self.nodes[n].times(kind)
    }
}

/// Both nodes served, and each did what the other does not know.
fn parted(on_diverged: OnDiverged) -> Pair {
    let mut pair = Pair::new(on_diverged);
    pair.parts();
    for id in ["007", "050", "new-a"] {
        pair.sets(0, "app,orders", id, "mine");
    }
    assert_eq!(pair.nodes[0].says("DEL app,orders,051"), ":1\r\n");
    for id in ["007", "060", "new-b"] {
        pair.sets(1, "app,orders", id, "yours");
    }
    pair
}

#[test]
fn a_node_that_has_diverged_is_rewound_to_what_the_primary_has_and_nothing_else_is_copied() {
    let mut pair = parted(OnDiverged::Rewind);
    pair.meets();
    pair.is_whole_again();
    let saved = String::from_utf8(pair.nodes[0].saved.clone()).unwrap();
    for id in ["\"007\"", "\"050\"", "\"051\"", "\"new-a\""] {
        assert!(saved.contains(id), "{saved}");
    }
    assert!(!saved.contains("yours"));
    let base = String::from_utf8(pair.nodes[0].base.clone()).unwrap();
    for (id, value) in [("050", "old"), ("051", "old"), ("007", "yours")] {
        assert!(base.contains(&format!("\"item\":\"{id}\",\"there\":true,\"value\":\"{value}\"")), "{base}");
    }
    assert!(base.contains("\"item\":\"new-a\",\"there\":false"), "{base}");
    assert_eq!((pair.times(0, "rewinding"), pair.times(0, "rewound"), pair.times(0, "copying")), (1, 1, 0));
    assert_eq!((pair.times(1, "rewinding"), pair.times(1, "copying")), (1, 0));
    let text = &pair.nodes[0].told.iter().find(|(kind, _)| *kind == "rewinding").unwrap().1;
    assert!(text.contains("6 ranges in 1 files"), "{text}");
    // It follows on.
    pair.sets(1, "app,orders", "008", "later");
    pair.runs(1_000);
    pair.is_whole_again();
}

#[test]
fn files_that_only_one_of_the_two_made_emptied_or_deleted_are_as_the_primary_has_them() {
    let mut pair = Pair::new(OnDiverged::Rewind);
    for file in ["app,gone-there", "app,gone-here", "app,emptied", "app,renamed"] {
        pair.file(0, file);
        pair.sets(0, file, "1", "old");
    }
    pair.runs(1_000);
    pair.parts();
    let delete = |name: &str| AdminRequest::FileDelete { name: name.to_owned(), dry_run: false };
    pair.does(0, delete("app,gone-here"));
    pair.does(1, delete("app,gone-there"));
    pair.does(0, AdminRequest::FileClear { name: "app,emptied".to_owned(), dry_run: false });
    let to = "renamed-b".to_owned();
    pair.does(1, AdminRequest::FileRename { name: "app,renamed".to_owned(), to });
    pair.file(0, "app,made-here");
    pair.sets(0, "app,made-here", "1", "mine");
    pair.file(1, "app,made-there");
    pair.sets(1, "app,made-there", "1", "yours");
    let account = |name: &str| AdminRequest::AccountCreate { name: name.to_owned(), flags: "L".to_owned() };
    pair.does(0, account("here"));
    pair.file(0, "here,list");
    pair.meets();
    pair.is_whole_again();
    let names: Vec<String> = pair.content(0).into_keys().collect();
    let wanted = ["disk", "emptied", "gone-here", "made-there", "orders", "renamed-b"];
    assert_eq!(names, wanted.map(|name| format!("app,{name}")));
    assert_eq!(pair.times(0, "rewound"), 1);
}

#[test]
fn an_account_that_only_the_diverged_node_deleted_is_back_and_takes_files_again() {
    let mut pair = Pair::new(OnDiverged::Rewind);
    pair.parts();
    pair.does(0, AdminRequest::AccountDelete { name: "app".to_owned(), dry_run: false });
    assert!(pair.content(0).is_empty());
    pair.meets();
    pair.is_whole_again();
    pair.file(1, "app,later");
    pair.sets(1, "app,later", "1", "x");
    pair.runs(1_000);
    pair.is_whole_again();
}

#[test]
fn a_diverged_node_that_is_to_wait_waits_for_the_word_of_an_operator() {
    let mut pair = parted(OnDiverged::Wait);
    pair.meets();
    assert_eq!((pair.stage(0), pair.times(0, "rewinding")), (Stage::Diverged, 0));
    pair.does(0, RESYNC);
    pair.runs(5_000);
    pair.is_whole_again();
}

#[test]
fn a_primary_whose_journal_does_not_reach_back_gives_a_copy_of_everything_after_the_word_if_it_is_to_ask() {
    for full_sync in [FullSync::Auto, FullSync::Ask] {
        let mut pair = parted(OnDiverged::Rewind);
        pair.nodes[1].engine.core.config.full_sync = full_sync;
        let end = pair.nodes[1].engine.core.replicated().sealed().seq;
        pair.nodes[1].engine.core.config.quota_bytes = 1;
        for n in 0..8_000 {
            pair.sets(1, "app,orders", &format!("{:03}", n % 100), &"v".repeat(64));
        }
        pair.nodes[1].lives(20_000);
        assert!(pair.nodes[1].engine.core.replicated().oldest() > end, "the journal reaches back");
        pair.meets();
        if full_sync == FullSync::Ask {
            assert_eq!((pair.stage(0), pair.times(0, "copying")), (Stage::Diverged, 0));
            pair.does(1, RESYNC);
            pair.runs(5_000);
        }
        pair.is_whole_again();
        assert_eq!((pair.times(0, "copying"), pair.times(0, "whole"), pair.times(0, "rewound")), (1, 1, 0));
        assert!(String::from_utf8(pair.nodes[0].saved.clone()).unwrap().contains("\"new-a\""));
    }
}

#[test]
fn nothing_is_left_before_the_list_and_all_that_stays_is_durable_and_a_store_that_refuses_is_asked_again() {
    let mut pair = parted(OnDiverged::Rewind);
    pair.nodes[0].ills.checkpoints = Some((0, Fault::Errno(5)));
    pair.meets();
    assert_eq!(pair.nodes[0].control.role, Role::Diverged, "the checkpoint failed");
    pair.nodes[0].ills.checkpoints = None;
    pair.nodes[0].ills.store = Some(Fault::Errno(5));
    pair.runs(3_000);
    pair.nodes[0].ills.store = None;
    pair.runs(5_000);
    pair.is_whole_again();
}

#[test]
fn a_diverged_node_that_was_restarted_saves_its_entries_again_before_it_leaves_them() {
    let mut pair = parted(OnDiverged::Wait);
    pair.meets();
    // What this process knows of the save is gone with it.
    pair.nodes[0].saved.clear();
    pair.nodes[0].engine.core.roles.forget_saved();
    pair.nodes[0].engine.core.config.on_diverged = OnDiverged::Rewind;
    pair.runs(10_000);
    pair.is_whole_again();
    let saved = String::from_utf8(pair.nodes[0].saved.clone()).unwrap();
    assert!(saved.contains("\"new-a\""), "{saved}");
}

#[test]
fn a_copy_is_whole_when_all_of_it_is_durable_and_not_before() {
    let mut pair = parted(OnDiverged::Rewind);
    pair.nodes[1].engine.core.config.quota_bytes = 1;
    for n in 0..8_000 {
        pair.sets(1, "app,orders", &format!("{:03}", n % 100), &"v".repeat(64));
    }
    pair.nodes[1].lives(20_000);
    // The one before it leaves what it has succeeds.
    pair.nodes[0].ills.checkpoints = Some((1, Fault::Errno(5)));
    pair.meets();
    assert_eq!((pair.times(0, "copying"), pair.times(0, "whole")), (1, 0));
    assert_eq!(pair.nodes[0].control.role, Role::Incomplete);
    pair.nodes[0].ills.checkpoints = None;
    pair.runs(5_000);
    pair.is_whole_again();
}

#[path = "digests_tests.rs"]
mod digests;

#[path = "partial_tests.rs"]
mod partial;

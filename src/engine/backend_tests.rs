//! Proves what a walk finds of pending and stored items together, and that no change of items goes untold.

use super::super::admin::AdminRequest;
use super::*;
use crate::base::{ConnId, Prng};
use crate::engine::test_kit::Node;
use crate::engine::{ClientDoor, ClientEvent, Event};
use crate::format::control::Role;
use crate::format::dptr::LoggingMode;
use crate::store::StoreWrite as _;
use std::collections::{BTreeMap, BTreeSet};

/// The items as they should be, and what a walk has to find of them.
#[derive(Default)]
struct Truth {
    items: BTreeMap<Vec<u8>, Vec<u8>>,
    /// There since the walk began.
    throughout: BTreeSet<Vec<u8>>,
    /// There at some time since.
    ever: BTreeSet<Vec<u8>>,
}

impl Truth {
    fn set(&mut self, id: &[u8], value: Option<&[u8]>) {
        match value {
            Some(value) => {
                self.items.insert(id.to_vec(), value.to_vec());
                self.ever.insert(id.to_vec());
            }
            None => {
                self.items.remove(id);
                self.throughout.remove(id);
            }
        }
    }

    fn walk_begins(&mut self) {
        self.throughout = self.items.keys().cloned().collect();
        self.ever = self.throughout.clone();
    }
}

fn id_of(n: u64) -> Vec<u8> {
    format!("{:03}", n * 7 % 400).into_bytes()
}

/// One random change, of one item or of very many, or the store goes on.
fn change(bench: &mut Node, truth: &mut Truth, file: FileId, prng: &mut Prng) {
    let value = prng.next_u64().to_le_bytes();
    match prng.below(10) {
        0..6 => {
            let mut updates: BTreeMap<Vec<u8>, bool> = BTreeMap::new();
            for _ in 0..=prng.below(4) {
                updates.insert(id_of(prng.below(400)), prng.percent(55));
            }
            let update = |(id, put): (&'static [u8], bool)| match put {
                true => Update::Put { file, id, value: Vec::leak(value.to_vec()) },
                false => Update::Delete { file, id },
            };
            let leaked = updates.iter().map(|(id, put)| update((Vec::leak(id.clone()), *put)));
            bench.engine.core.update(&leaked.collect::<Vec<_>>()).unwrap();
            updates.iter().for_each(|(id, put)| truth.set(id, put.then_some(&value[..])));
        }
        6 => {
            let mut draft = Draft::default();
            let (from, len, put) = (prng.below(400), 1 + prng.below(200), prng.percent(50));
            for n in from..from + len {
                let id = id_of(n);
                let update = match put {
                    true => Update::Put { file, id: &id, value: &value },
                    false => Update::Delete { file, id: &id },
                };
                draft.put(bench.engine.core.item_hash(file, &id), &update);
                truth.set(&id, put.then_some(&value[..]));
            }
            bench.engine.core.commit(draft).unwrap();
        }
        _ => {
            bench.input(Event::Tick);
            for _ in 0..prng.below(4) {
                bench.apply_one();
            }
        }
    }
    bench.input(Event::Tick);
}

#[test]
fn a_walk_over_pending_and_stored_items_meets_each_that_is_there_throughout_exactly_once() {
    let mut found_in_all = 0;
    for seed in 0..60 {
        let mut prng = Prng::new(seed);
        let mut bench = Node::with_waiting_store();
        let file = bench.engine.core.namespace.resolve(b"app,orders").unwrap();
        let mut truth = Truth::default();
        for _ in 0..60 {
            change(&mut bench, &mut truth, file, &mut prng);
        }
        for _ in 0..4 {
            truth.walk_begins();
            let (mut after, mut found): (Option<Bytes>, Vec<Bytes>) = (None, Vec::new());
            loop {
                let limit = usize::try_from(1 + prng.below(60)).unwrap();
                let part = bench.engine.core.scan(file, after.as_deref(), limit, IfCold::Fetch).unwrap();
                assert!(part.ids.len() <= limit, "seed {seed}");
                for id in &part.ids {
                    assert!(truth.items.contains_key(id.as_ref()), "seed {seed}: it is there now");
                }
                found.extend(part.ids);
                assert!(
                    part.next.as_ref().is_none_or(|next| Some(next) > after.as_ref()),
                    "seed {seed}: it goes on"
                );
                after = part.next;
                if after.is_none() {
                    break;
                }
                for _ in 0..prng.below(3) {
                    change(&mut bench, &mut truth, file, &mut prng);
                }
                let id = id_of(prng.below(400));
                let (value, _) = bench.engine.core.read(file, &id, IfCold::Fetch).unwrap();
                assert_eq!(value.as_deref(), truth.items.get(&id).map(Vec::as_slice), "seed {seed}");
            }
            assert!(found.windows(2).all(|pair| pair[0] < pair[1]), "seed {seed}: in order, each once");
            let found: BTreeSet<Vec<u8>> = found.iter().map(|id| id.to_vec()).collect();
            assert!(truth.throughout.is_subset(&found), "seed {seed}: none is missed");
            assert!(found.is_subset(&truth.ever), "seed {seed}: none that never was");
            found_in_all += found.len();
        }
        bench.apply();
        bench.input(Event::Tick);
        bench.apply();
        let stored: Vec<_> = truth.items.keys().cloned().collect();
        let part = bench.engine.core.scan(file, None, 10_000, IfCold::Fetch).unwrap();
        assert_eq!(part.ids.iter().map(|id| id.to_vec()).collect::<Vec<_>>(), stored, "seed {seed}");
    }
    assert!(found_in_all > 10_000, "{found_in_all}");
}

#[test]
fn one_look_of_a_walk_is_bounded_however_many_updates_are_pending() {
    let mut bench = Node::with_waiting_store();
    let file = bench.engine.core.namespace.resolve(b"app,orders").unwrap();
    let id = |n: u64| format!("{n:06}").into_bytes();
    for value in [Some(&b"v"[..]), None] {
        let mut draft = Draft::default();
        for n in 0..20_000 {
            let id = id(n);
            let update = match value {
                Some(value) => Update::Put { file, id: &id, value },
                None => Update::Delete { file, id: &id },
            };
            draft.put(bench.engine.core.item_hash(file, &id), &update);
        }
        bench.engine.core.commit(draft).unwrap();
        bench.input(Event::Tick);
        if value.is_some() {
            bench.apply();
        }
    }
    // All are stored and all are deleted: a part holds nothing, and says where the next begins.
    let part = bench.engine.core.scan(file, None, 100, IfCold::Fetch).unwrap();
    assert_eq!((part.ids.len(), part.next.as_deref()), (0, Some(&id(99)[..])));
    bench.apply();
    bench.input(Event::Tick);
    let part = bench.engine.core.scan(file, None, 100, IfCold::Fetch).unwrap();
    assert_eq!(part, Scanned::default(), "and nothing is kept of it");
}

fn name(text: &str) -> String {
    text.to_owned()
}

#[test]
fn a_watched_key_is_void_whatever_an_operator_does_to_its_items_or_its_name() {
    let flags = |set: &str, clear: &str| AdminRequest::SetDptr {
        set: name(set),
        clear: name(clear),
        accounts: false,
        names: vec![name("app,orders")],
        ack: None,
    };
    let pause = AdminRequest::Logging { mode: LoggingMode::Paused };
    let doings: Vec<(&str, bool, Vec<AdminRequest>)> = vec![
        ("nothing", false, vec![]),
        ("clear", true, vec![AdminRequest::FileClear { name: name("app,orders"), dry_run: false }]),
        (
            "asking what clear would do",
            false,
            vec![AdminRequest::FileClear { name: name("app,orders"), dry_run: true }],
        ),
        ("delete", true, vec![AdminRequest::FileDelete { name: name("app,orders"), dry_run: false }]),
        ("rename", true, vec![AdminRequest::FileRename { name: name("app,orders"), to: name("old") }]),
        (
            "rename of the account",
            true,
            vec![AdminRequest::AccountRename { name: name("app"), to: name("new") }],
        ),
        (
            "delete of the account",
            true,
            vec![AdminRequest::AccountDelete { name: name("app"), dry_run: false }],
        ),
        ("other flags", true, vec![flags("", "L")]),
        ("a pause of logging", true, vec![pause]),
    ];
    for (what, void, requests) in doings {
        let mut bench = Node::with_waiting_store();
        assert_eq!(bench.says("SET app,orders,k 1"), "+OK\r\n");
        assert_eq!(bench.says("WATCH app,orders,k"), "+OK\r\n");
        assert_eq!(bench.says("MULTI"), "+OK\r\n");
        assert_eq!(bench.says("PING"), "+QUEUED\r\n");
        for request in requests {
            bench.asks(request);
        }
        assert_eq!(bench.says("EXEC") == "*-1\r\n", void, "{what}");
        assert!(bench.says("MULTI").starts_with("+OK") && bench.says("PING").starts_with("+QUEUED"));
        assert_eq!(bench.says("EXEC"), "*1\r\n+PONG\r\n", "after {what} the next is not void");
    }
}

#[test]
fn a_watch_is_void_when_the_node_is_no_longer_what_it_was() {
    let mut bench = Node::with_waiting_store();
    bench.says("WATCH app,orders,k");
    bench.says("MULTI");
    bench.says("PING");
    bench.engine.core.control.play(Role::Standby);
    assert_eq!(bench.says("EXEC"), "*-1\r\n");
}

#[test]
fn on_a_standby_a_watched_key_is_void_once_what_the_stream_changes_can_be_seen() {
    for (id, void) in [("k", true), ("other", false)] {
        let mut bench = Node::with_waiting_store();
        bench.says(&format!("SET app,orders,{id} 1"));
        // From here on as if the batch had been received.
        bench.engine.core.control.play(Role::Standby);
        bench.says("WATCH app,orders,k");
        bench.says("MULTI");
        bench.says("PING");
        bench.apply();
        assert_eq!(bench.says("EXEC") == "*-1\r\n", void, "{id}");
    }
}

#[test]
fn changes_that_nobody_takes_become_one_and_those_that_nobody_wants_are_not_kept() {
    let mut bench = Node::with_waiting_store();
    let core = &mut bench.engine.core;
    let file = core.namespace.resolve(b"app,orders").unwrap();
    core.update(&[Update::Put { file, id: b"k", value: b"1" }]).unwrap();
    core.want_changes(true);
    while core.next_change().is_some() {}
    for n in 0..crate::base::limits::CHANGES_MAX as u64 + 10 {
        let id = n.to_le_bytes();
        core.changes.note_entries(std::iter::once(Entry {
            kind: EntryKind::Put,
            file,
            id: &id,
            value: b"1",
        }));
    }
    assert_eq!((core.next_change(), core.next_change()), (Some(Change::All), None));
}

#[test]
fn a_reply_that_was_taken_makes_no_other_part_look_for_something_to_do() {
    let mut bench = Node::with_waiting_store();
    let conn = ConnId(77);
    bench.input(Event::Client(ClientEvent::Opened { conn, door: ClientDoor::Items { trusted: true } }));
    bench.input(Event::Tick);
    let now = bench.engine.core.now;
    bench.engine.input(now, Event::Client(ClientEvent::Sent { conn }));
    assert!(!bench.engine.core.dirty, "nobody waited for that");
    bench.engine.input(now, Event::Tick);
    bench.engine.input(now, Event::Client(ClientEvent::Sent { conn }));
    assert!(bench.engine.core.dirty, "what came before it counts");
}

#[test]
fn a_dry_run_and_a_copy_of_what_is_cold_wait_for_it_and_nobody_waits_for_them() {
    let mut bench = Node::with_waiting_store();
    for id in ["a", "b"] {
        assert_eq!(bench.says(&format!("SET app,orders,{id} 1")), "+OK\r\n");
    }
    bench.apply();
    bench.store.set_cold(true);
    bench.answered.clear();
    let request = AdminRequest::FileClear { name: "app,orders".to_owned(), dry_run: true };
    bench.input(Event::Admin { token: 1, request });
    assert!(bench.answered.is_empty(), "{:?}", bench.answered);
    assert_eq!(bench.says("PING"), "+PONG\r\n");
    assert_eq!(bench.says("GET app,orders,a"), "");
    bench.store.set_cold(false);
    while let Some(fetch) = bench.fetches.pop_front() {
        let result = Ok(crate::engine::Fetched::InMemory);
        bench.input(Event::Store(crate::engine::StoreEvent::Fetched { fetch, result }));
    }
    assert!(bench.said.contains("$1\r\n1"));
    let answered = format!("{:?}", bench.answered);
    assert!(answered.contains("items: 2"), "{answered}");
    // A copy after +L: it waits, and goes on.
    bench.asks(AdminRequest::FileCreate {
        name: "app,plain".to_owned(),
        kind: crate::format::dptr::DptrKind::Records,
        flags: Some("X".to_owned()),
        bytes: None,
        ack: None,
    });
    assert_eq!(bench.says("SET app,plain,p 1"), "+OK\r\n");
    bench.apply();
    bench.store.set_cold(true);
    bench.asks(AdminRequest::SetDptr {
        names: vec!["app,plain".to_owned()],
        accounts: false,
        set: "L".to_owned(),
        clear: "X".to_owned(),
        ack: None,
    });
    // The rest of the barrier goes in steps.
    for _ in 0..8 {
        bench.apply();
        bench.input(Event::Tick);
    }
    assert_eq!(bench.fetches.len(), 1, "one copy waits for one fetch");
    let file = bench.engine.core.namespace.resolve(b"app,plain").unwrap();
    assert!(bench.engine.core.namespace.file(file).unwrap().copy_is_due());
    bench.store.set_cold(false);
    let fetch = bench.fetches.pop_front().unwrap();
    let result = Ok(crate::engine::Fetched::InMemory);
    bench.input(Event::Store(crate::engine::StoreEvent::Fetched { fetch, result }));
    bench.apply();
    assert!(!bench.engine.core.namespace.file(file).unwrap().copy_is_due());
}

#[test]
fn what_the_store_shows_is_noted_before_a_turn_reads_it_although_nobody_told_of_it_yet() {
    let mut bench = Node::with_waiting_store();
    assert_eq!(bench.says("SET app,orders,a 1"), "+OK\r\n");
    let core = &mut bench.engine.core;
    let file = core.namespace.resolve(b"app,orders").unwrap();
    let item = core.item_hash(file, b"a");
    let before = core.appliers.replicated().applied();
    core.want_changes(true);
    while core.next_change().is_some() {}
    // As on a standby: applied there, and that is told later.
    core.control.play(Role::Standby);
    let (journal, round, batch) = bench.given.pop_front().unwrap();
    bench.store.apply(journal, std::slice::from_ref(&batch)).unwrap();
    let core = &mut bench.engine.core;
    core.begin_turn();
    assert_eq!(core.appliers.replicated().applied(), batch.header().last_seq());
    assert!(core.appliers.replicated().applied() > before);
    let noted: Vec<Change> = std::iter::from_fn(|| core.next_change()).collect();
    assert!(noted.contains(&Change::Item(item)) || noted.contains(&Change::All), "{noted:?}");
    core.end_turn();
    // What is told then is known.
    bench.input(Event::Store(crate::engine::StoreEvent::Applied {
        journal,
        round,
        seq: batch.header().last_seq(),
    }));
}

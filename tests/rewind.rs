//! An old primary that holds updates of its own is rewound by itself when it comes back.

use crate::support::{
    Door, EXPORT, Load, Nbd, Node, Pair, Plan, Shape, Told, audit, items, loopback_addresses, make_volume,
    serves_volumes_at, tier, wait_until,
};
use redis::Commands;
use serde_json::Value;
use std::time::{Duration, Instant};

fn plan() -> Plan {
    Plan::quick().config("checkpoint_ms = 100")
}

/// A pair that is level, whose standby is then down for the updates that `mine` makes at the primary, and takes over when
/// that one was killed.
fn parted(pair: &mut Pair, mine: impl FnOnce(&Node)) {
    pair.converges();
    pair.b.kill();
    mine(&pair.a);
    pair.a.kill();
    pair.b.start();
    pair.b.json_when_up(&["takeover", "--peer-is-down"]);
    pair.b.serves();
}

#[track_caller]
fn is_standby_again(node: &Node) {
    node.status("to be the standby", |s| s["state"] == "standby" && s["peer"]["connected"] == true);
}

fn set(node: &Node, file: &str, ids: &[&str], value: &str) {
    let mut redis = node.redis();
    for id in ids {
        let () = redis.set(format!("{file},{id}"), value).unwrap();
    }
}

#[track_caller]
fn are_equal(pair: &Pair, files: &[&str]) {
    for file in files {
        let prefix = format!("{file},");
        let there = || items(&pair.b.door, &prefix);
        wait_until(&format!("{file} to be equal on both"), || {
            (items(&pair.a.door, &prefix) == there()).then_some(())
        });
    }
}

/// The items of the newest set, with what was done to them, in order.
fn shown(node: &Node) -> Vec<(String, String)> {
    let output = node.done(&["diverged", "show", "--json"]);
    let lines = output.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let items = lines.filter(|line| line["item"].is_string());
    items
        .map(|line| (line["item"].as_str().unwrap().to_owned(), line["kind"].as_str().unwrap().to_owned()))
        .collect()
}

#[test]
fn an_old_primary_is_rewound_by_itself_and_what_only_it_had_is_listed_and_given_to_the_primary_again() {
    let mut pair = Pair::start(&plan());
    set(&pair.a, "app,orders", &["1", "2", "3", "4"], "old");
    parted(&mut pair, |a| {
        set(a, "app,orders", &["1", "2", "new"], "mine");
        let () = a.redis().del("app,orders,3").unwrap();
    });
    set(&pair.b, "app,orders", &["2", "other"], "yours");
    pair.a.start();
    is_standby_again(&pair.a);
    are_equal(&pair, &["app,orders"]);
    assert_eq!(pair.a.redis().get::<_, String>("app,orders,1").unwrap(), "old");
    pair.a.incident("rewound");
    let changed = |item: &str, kind: &str| (item.to_owned(), kind.to_owned());
    let mine = [changed("1", "put"), changed("2", "put"), changed("new", "put"), changed("3", "delete")];
    assert_eq!(shown(&pair.a), mine);
    let sets = pair.a.json(&["diverged", "list"]);
    assert_eq!((sets[0]["files"][0].as_str(), sets.as_array().unwrap().len()), (Some("app,orders"), 1));

    // What the primary has changed meanwhile is a conflict, also if that was after the rewind.
    set(&pair.b, "app,orders", &["3"], "newer");
    let Door::Tcp(to) = &pair.b.door else { panic!("a door over TCP") };
    let to = to.to_string();
    let apply = |more: &[&str]| {
        let output = pair.a.verb(&[&["diverged", "apply", "--json", "--to", &to], more].concat());
        let told: Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code(), told["given"].as_u64(), told["conflicts"].as_u64(), told)
    };
    let (code, given, conflicts, told) = apply(&["--dry-run"]);
    assert_eq!((code, given, conflicts), (Some(1), Some(2), Some(2)), "{told}");
    assert_eq!(pair.b.redis().get::<_, String>("app,orders,1").unwrap(), "old", "that was a dry run");
    let (code, given, ..) = apply(&["app,orders,1", "app,orders,new"]);
    assert_eq!((code, given), (Some(0), Some(2)));
    for (id, value) in [("1", "mine"), ("new", "mine"), ("2", "yours"), ("3", "newer")] {
        assert_eq!(pair.b.redis().get::<_, String>(format!("app,orders,{id}")).unwrap(), value, "{id}");
    }
    let (code, _, _, told) = apply(&["--overwrite", "app,orders,2"]);
    assert_eq!(
        (code, pair.b.redis().get::<_, String>("app,orders,2").unwrap().as_str()),
        (Some(0), "mine"),
        "{told}"
    );
    are_equal(&pair, &["app,orders"]);

    let set = sets[0]["set"].as_str().unwrap();
    pair.a.done(&["diverged", "forget", set, "--yes"]);
    assert_eq!(pair.a.json(&["diverged"]).as_array().unwrap().len(), 0);
    assert_eq!(pair.a.verb(&["diverged", "show", set]).status.code(), Some(1));
}

#[test]
fn files_and_blocks_of_a_volume_are_as_the_new_primary_has_them() {
    let mut pair = Pair::set_up(&plan());
    let [at_a, at_b] = loopback_addresses();
    serves_volumes_at(&pair.a, at_a);
    serves_volumes_at(&pair.b, at_b);
    pair.serve();
    make_volume(&pair.a, "8M");
    pair.a.done(&["file", "create", "app,gone-at-b", "--records", "--flags", "L"]);
    pair.a.done(&["file", "create", "app,gone-at-a", "--records", "--flags", "L"]);
    set(&pair.a, "app,gone-at-a", &["1", "2"], "old");
    let block = |n: u64, by: u8| vec![u8::try_from(n % 199).unwrap() + by; 4096];
    let write = |at, blocks: &[u64], by| {
        let mut client = Nbd::open(at, EXPORT).unwrap();
        blocks.iter().for_each(|n| client.write(n * 4096, &block(*n, by)).unwrap());
        client.flush().unwrap();
    };
    write(at_a, &(0..2048).collect::<Vec<_>>(), 1);
    parted(&mut pair, |a| {
        write(at_a, &[7, 8, 9, 1500], 2);
        a.done(&["file", "delete", "app,gone-at-a", "--yes"]);
        a.done(&["file", "create", "app,made-at-a", "--records", "--flags", "L"]);
        set(a, "app,made-at-a", &["1"], "mine");
    });
    wait_until("the volume at b", || Nbd::open(at_b, EXPORT).ok().map(drop));
    write(at_b, &[8, 1000], 3);
    pair.b.done(&["file", "delete", "app,gone-at-b", "--yes"]);
    pair.b.done(&["file", "create", "app,made-at-b", "--records", "--flags", "L"]);
    set(&pair.b, "app,made-at-b", &["1"], "yours");
    pair.a.start();
    is_standby_again(&pair.a);
    pair.a.incident("rewound");
    are_equal(&pair, &["app,gone-at-a", "app,made-at-b"]);
    let names = |node: &Node| {
        let files = node.json(&["file", "list"]);
        files.as_array().unwrap().iter().map(|f| f["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(&pair.a), names(&pair.b));
    let (mut a, mut b) = (Nbd::open(at_a, EXPORT).unwrap(), Nbd::open(at_b, EXPORT).unwrap());
    for n in 0..2048 {
        let by = if [8, 1000].contains(&n) { 3 } else { 1 };
        let found = [a.read(n * 4096, 4096).unwrap(), b.read(n * 4096, 4096).unwrap()];
        assert!(found == [block(n, by), block(n, by)], "block {n}");
    }
}

#[test]
fn a_rewind_goes_on_whoever_is_killed_at_whichever_step() {
    let mut pair = Pair::start(&plan());
    let told = Load::start(&pair.a.door, Shape { most: 300, ..Shape::default() }).run_to_the_end();
    parted(&mut pair, |a| {
        Load::start(&a.door, Shape { first: 20, most: 200, ..Shape::default() }).run_to_the_end();
    });
    let more: Vec<Told> =
        Load::start(&pair.b.door, Shape { first: 40, most: 200, ..Shape::default() }).run_to_the_end();
    for ms in (0..1_000).step_by(70) {
        pair.a.start();
        std::thread::sleep(Duration::from_millis(ms));
        pair.a.kill();
        if ms % 210 == 0 {
            pair.b.kill();
            pair.b.start_alone();
        }
    }
    pair.a.start();
    is_standby_again(&pair.a);
    pair.converges();
    let list = pair.a.incidents();
    assert!(!list.iter().any(|(kind, _)| kind == "copying"), "everything was copied: {list:?}");
    audit(&pair.b.door, &more).is_complete();
    audit(&pair.b.door, &told).is_complete();
    assert!(shown(&pair.a).len() >= 200);
    are_equal(&pair, &["app,orders"]);
    // It takes over with all of it.
    pair.b.kill();
    pair.a.json_when_up(&["takeover", "--peer-is-down"]);
    audit(&pair.a.door, &more).is_complete();
}

#[test]
fn a_diverged_node_that_is_to_wait_is_rewound_after_the_word() {
    let mut pair = Pair::start(&plan().config("on_diverged = \"wait\""));
    parted(&mut pair, |a| set(a, "app,orders", &["1"], "mine"));
    pair.a.start();
    let status = pair.a.status("to have diverged", |s| s["state"] == "diverged");
    assert!(status["next"].as_str().unwrap().contains("hot-backup resync"), "{status}");
    pair.a.done(&["resync"]);
    is_standby_again(&pair.a);
    are_equal(&pair, &["app,orders"]);
}

/// What a process has sent and received over sockets cannot be told apart from its other writes: the bytes that the primary
/// says it gave are the content.
#[test]
fn tier_a_thousand_diverged_updates_in_a_large_database_are_rewound_within_seconds() {
    tier!();
    let mut pair = Pair::start(&Plan::default());
    let value = vec![b'v'; 1000];
    let mut redis = pair.a.redis();
    for from in (0..200_000).step_by(1000) {
        let mut pipe = redis::pipe();
        (from..from + 1000).for_each(|n| {
            pipe.set(format!("app,orders,{n:06}"), &value).ignore();
        });
        let () = pipe.query(&mut redis).unwrap();
    }
    drop(redis);
    parted(&mut pair, |a| {
        let mut redis = a.redis();
        for n in 0..1000 {
            let () = redis.set(format!("app,orders,{:06}", n * 199), "mine").unwrap();
        }
    });
    let began = Instant::now();
    pair.a.start();
    is_standby_again(&pair.a);
    let took = began.elapsed();
    let text = pair.a.incident("rewound");
    println!("{took:?}: {text}");
    are_equal(&pair, &["app,orders"]);
    assert!(took < Duration::from_secs(6), "{took:?}");
}

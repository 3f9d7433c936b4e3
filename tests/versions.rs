//! This program beside an older one, which `HB_OLD_PROGRAM` names: a pair of both, and directories that the older one
//! wrote, also where their conversion is killed at any call.

use crate::support::{
    EXPORT, Nbd, Node, Plan, here, items, loopback_addresses, make_volume, missing, program, scratch,
    serves_volumes_at, skipped, wait_until,
};
use nix::sys::signal::Signal;
use redis::Commands;
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The older program. Without one nothing here can be tried.
fn old_program(name: &str) -> Option<PathBuf> {
    let old = std::env::var_os("HB_OLD_PROGRAM").map(PathBuf::from);
    if old.is_none() {
        skipped(name, "needs HB_OLD_PROGRAM: an older program");
    }
    old
}

/// Sets an item at one node and waits until it is on the disk of the other.
fn goes_over(from: &Node, to: &Node, value: &str) {
    let () = from.redis().set("app,orders,1", value).unwrap();
    let mut there = to.redis();
    wait_until("the update on the peer", || {
        let found = there.get::<_, Option<String>>("app,orders,1").ok().flatten();
        (found.as_deref() == Some(value)).then_some(())
    });
}

#[test]
fn a_node_of_an_older_program_and_one_of_this_make_a_pair_until_both_are_upgraded() {
    let Some(old) = old_program(here!()) else { return };
    for old_is_primary in [true, false] {
        let root = tempfile::tempdir().unwrap();
        let [link_a, link_b, resp_a, resp_b] = loopback_addresses();
        let new = Plan::default();
        let older = Plan { program: Some(old.clone()), ..Plan::default() };
        let [plan_a, plan_b] = if old_is_primary { [&older, &new] } else { [&new, &older] };
        let mut a =
            Node::init(root.path().join("A"), ("a", "primary"), (link_a, link_b, Some(resp_a)), plan_a);
        let mut b =
            Node::init(root.path().join("B"), ("b", "standby"), (link_b, link_a, Some(resp_b)), plan_b);
        a.trusts(&b);
        b.trusts(&a);
        a.start();
        b.start();
        a.serves();
        a.make_orders();
        goes_over(&a, &b, "one");
        a.kill();
        b.json_when_up(&["takeover", "--peer-is-down"]);
        b.serves();
        a.start();
        a.status("to follow", |status| status["state"] == "standby");
        goes_over(&b, &a, "two");
        b.kill();
        a.json_when_up(&["takeover", "--peer-is-down"]);
        a.serves();
        b.start();
        b.status("to follow", |status| status["state"] == "standby");
        goes_over(&a, &b, "three");
        // What the older one wrote is read by this one, and not the other way round.
        let upgraded = if old_is_primary { &mut a } else { &mut b };
        upgraded.kill();
        upgraded.program = program().into();
        upgraded.start();
        a.serves();
        goes_over(&a, &b, "four");
        let upgraded = if old_is_primary { &mut a } else { &mut b };
        upgraded.signal(Signal::SIGTERM);
        assert!(upgraded.ended().success());
        upgraded.program.clone_from(&old);
        upgraded.start();
        assert_eq!(upgraded.ended().code(), Some(2));
        assert!(upgraded.log().contains("control file version: expected 1, found 3"), "{}", upgraded.log());
    }
}

/// Everything that users see of a node: items, volumes, definitions.
#[derive(Debug, PartialEq, Eq)]
struct Contents {
    items: BTreeMap<Vec<u8>, Vec<u8>>,
    volume: Vec<u8>,
    accounts: Value,
    files: Vec<Vec<Value>>,
}

impl Contents {
    #[track_caller]
    fn of(node: &Node, nbd: SocketAddr) -> Self {
        let mut client = wait_until("the volume", || Nbd::open(nbd, EXPORT).ok());
        let len = usize::try_from(client.bytes()).unwrap();
        let volume = client.read(0, len).unwrap();
        let parts = ["name", "kind", "flags", "replicated", "state", "ack", "bytes", "id"];
        let files = node.json(&["file", "list"]);
        let files =
            files.as_array().unwrap().iter().map(|file| parts.map(|part| file[part].clone()).to_vec());
        let files = files.collect();
        Self { items: items(&node.door, ""), volume, accounts: node.json(&["account", "list"]), files }
    }
}

/// The older program's way of working: replicated and local files, large and small items, items that are gone, a file that
/// was cleared, one that was renamed, and a volume; part of it in tables, part in its journal alone.
fn works_on(node: &Node, nbd: SocketAddr) {
    node.make_orders();
    for args in [
        &["file", "create", "app,plain", "--records"][..],
        &["file", "create", "app,cleared", "--records", "--flags", "L"],
        &["file", "create", "app,named", "--records", "--flags", "L", "--ack", "durable"],
        &["account", "create", "other", "--flags", "X"],
    ] {
        node.done(args);
    }
    make_volume(node, "1M");
    let mut redis = node.redis();
    let mut volume = wait_until("the volume", || Nbd::open(nbd, EXPORT).ok());
    for round in 0..4 {
        let mut pipe = redis::pipe();
        for n in round * 100..round * 100 + 200 {
            let text = format!("{n} in round {round}");
            pipe.set(format!("app,orders,{n}"), &text).set(format!("app,plain,{n}"), &text).ignore();
            pipe.set(format!("app,cleared,{n}"), &text).ignore();
        }
        pipe.set(format!("app,orders,large{round}"), vec![b'x'; 300_000 + round]).ignore();
        pipe.set(format!("app,named,{round}"), "named").ignore();
        pipe.del(format!("app,orders,{}", round * 100 + 1)).ignore();
        let () = pipe.query(&mut redis).unwrap();
        let at = u64::try_from(round).unwrap() * 70_000;
        volume.write(at, &vec![u8::try_from(round + 1).unwrap(); 50_000]).unwrap();
        volume.flush().unwrap();
        if round == 1 {
            node.done(&["file", "clear", "app,cleared", "--yes"]);
            node.done(&["file", "rename", "app,named", "app,renamed"]);
            node.done(&["file", "create", "app,named", "--records", "--flags", "L"]);
            // Time for some checkpoints, so that there are tables; what comes behind the last is in the journal alone.
            let began = Instant::now();
            node.status("to have worked for a while", |_| began.elapsed() > Duration::from_millis(700));
        }
    }
}

/// A directory that an older program wrote and was killed over, the place of its volumes, and what it showed.
fn old_directory(dir: PathBuf, old: PathBuf) -> (Node, SocketAddr, Contents) {
    let plan = Plan { program: Some(old), ..Plan::quick().config("checkpoint_ms = 200").io("epoll") };
    let mut node = Node::alone(dir, &plan);
    let [nbd] = loopback_addresses();
    serves_volumes_at(&node, nbd);
    node.start_alone();
    works_on(&node, nbd);
    let shown = Contents::of(&node, nbd);
    assert!(shown.items.len() > 800 && shown.files.len() >= 5, "{:?}", shown.files);
    node.kill();
    node.program = program().into();
    (node, nbd, shown)
}

#[test]
fn what_an_older_program_wrote_is_all_there_after_its_store_is_converted_wherever_that_is_killed() {
    let Some(old) = old_program(here!()) else { return };
    if missing(here!(), &["strace"]) {
        return;
    }
    let root = scratch();
    let (base, nbd, shown) = old_directory(root.path().join("base"), old);
    let store = |node: &Node| node.dir.join("store");
    assert!(store(&base).join("keyspaces").is_dir() && !store(&base).join("tree").exists());
    let until = Instant::now() + Duration::from_secs(100);
    let mut calls = vec!["rename", "fsync", "unlinkat", "unlink", "mkdir", "write", "openat"];
    let (mut kills, mut unconverted, mut converted) = (0, 0, 0);
    for nth in 1.. {
        // Files are opened for much else; what is made of them here comes at the end of a start.
        let nth_of = |call: &str| if call == "openat" { nth * 20 } else { nth };
        calls.retain(|call| {
            if Instant::now() > until {
                return false;
            }
            let mut node = base.copy(root.path().join("node"));
            node.start_through(&strace(call, nth_of(call)));
            let killed = !node.serves_alone();
            node.kill();
            match store(&node).join("tree").exists() {
                false => unconverted += 1,
                true => converted += u32::from(killed),
            }
            node.start_alone();
            assert_eq!(Contents::of(&node, nbd), shown, "killed at {call} {}", nth_of(call));
            kills += u32::from(killed);
            drop(node);
            std::fs::remove_dir_all(root.path().join("node")).unwrap();
            killed
        });
        if calls.is_empty() {
            break;
        }
    }
    println!(
        "killed at {kills} points, {unconverted} before the new store had its name, {converted} behind it"
    );
    assert!(unconverted >= 5 && converted >= 2, "{unconverted} and {converted} of {kills}");
}

/// A program through strace, which kills it at the `nth` such call.
fn strace(call: &str, nth: usize) -> Vec<String> {
    let (inject, trace) = (format!("inject={call}:signal=KILL:when={nth}"), format!("trace={call}"));
    ["strace", "-D", "-f", "-q", "-o", "/dev/null", "-e", &trace, "-e", &inject].map(str::to_owned).to_vec()
}

#[test]
fn a_pair_of_an_older_program_is_upgraded_one_node_after_the_other_and_loses_nothing() {
    let Some(old) = old_program(here!()) else { return };
    let root = scratch();
    let [link_a, link_b, resp_a, resp_b, nbd_a, nbd_b] = loopback_addresses();
    let plan = Plan { program: Some(old), ..Plan::quick().init(&["--ack-level", "durable"]) };
    let mut a = Node::init(root.path().join("A"), ("a", "primary"), (link_a, link_b, Some(resp_a)), &plan);
    let mut b = Node::init(root.path().join("B"), ("b", "standby"), (link_b, link_a, Some(resp_b)), &plan);
    serves_volumes_at(&a, nbd_a);
    serves_volumes_at(&b, nbd_b);
    a.trusts(&b);
    b.trusts(&a);
    a.start();
    b.start();
    a.serves();
    a.status("to have its peer", |status| status["peer"]["connected"] == true);
    works_on(&a, nbd_a);
    let nbd_of = |node: &Node| if node.dir.ends_with("A") { nbd_a } else { nbd_b };
    let same = |a: &Node, b: &Node, what: &str| {
        let end = a.status("to be quiet", |s| s["positions"]["durable"] == s["positions"]["appended"]);
        let end = &end["positions"]["appended"];
        b.status("to have applied everything", |status| {
            status["positions"]["applied"].as_u64() >= end.as_u64()
        });
        let [one, other] = [a, b].map(|node| Contents::of(node, nbd_of(node)));
        // What is not replicated is on one node alone.
        let replicated = |all: Contents| {
            let items = all.items.into_iter().filter(|(key, _)| !key.starts_with(b"app,plain,"));
            (items.collect::<BTreeMap<_, _>>(), all.volume)
        };
        assert!(replicated(one) == replicated(other), "the nodes differ: {what}");
    };
    same(&a, &b, "both old");
    // First the standby, while the primary is written to.
    b.kill();
    let mut redis = a.redis();
    for n in 0..300 {
        let () = redis.set(format!("app,orders,{n}"), "while the standby was away").unwrap();
        if n == 0 {
            b.program = program().into();
            b.start();
        }
    }
    same(&a, &b, "the standby is new");
    // Then the primary.
    a.signal(Signal::SIGTERM);
    assert!(a.ended().success());
    a.program = program().into();
    a.start();
    a.serves();
    let () = a.redis().set("app,orders,1", "both are new").unwrap();
    Nbd::open(nbd_a, EXPORT).unwrap().write(900_000, &[9; 5000]).unwrap();
    same(&a, &b, "both new");
    a.kill();
    b.json_when_up(&["takeover", "--peer-is-down"]);
    b.serves();
    a.start();
    a.status("to follow", |status| status["state"] == "standby");
    same(&b, &a, "the other way round");
}

//! Licences on real nodes: what they stop, what they never stop, and that one is taken while a node runs.

use crate::support::{Node, Pair, Plan, wait_until};
use hot_backup::format::licence::{Day, Licence, LicenceRecord, SignedLicence};
use hot_backup::node::identity::Identity;
use nix::sys::signal::Signal;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use std::time::{SystemTime, UNIX_EPOCH};

fn distributor() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap()
}

fn today() -> Day {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    Day(wall.as_secs() / 86_400)
}

/// A licence of this pair, valid between days counted from today.
fn licence(pair: &Pair, issued: i64, expires: i64) -> String {
    let nodes =
        [&pair.a, &pair.b].map(|node| node.done(&["identity"]).parse::<Identity>().unwrap().fingerprint.0);
    let [issued, expires] = [issued, expires].map(|days| Day(today().0.checked_add_signed(days).unwrap()));
    let licence = Licence { customer: "Example Ltd.".to_owned(), nodes, issued, expires };
    let signature = distributor().sign(licence.signed_text().as_bytes()).as_ref().try_into().unwrap();
    SignedLicence { licence, signature }.to_string()
}

fn asks_for_one(node: &Node) {
    let key: String = distributor().public_key().as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    node.configure(&[format!("licence_key = \"{key}\"")]);
}

/// `license WORDS` with a file; its exit code and what it said.
fn license(node: &Node, words: &[&str], text: &str) -> (Option<i32>, String) {
    let file = node.dir.with_extension("mail");
    std::fs::write(&file, text).unwrap();
    let output = node.verb(&[&["licence"], words, &[file.to_str().unwrap()]].concat());
    let told = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(told).unwrap())
}

#[test]
fn a_licence_that_ended_long_ago_stops_new_links_alone_and_the_next_one_is_taken_while_the_nodes_run() {
    let mut pair = Pair::set_up(&Plan::quick());
    for node in [&pair.a, &pair.b] {
        asks_for_one(node);
    }
    // It cannot be installed any more, but lay there.
    let ended = licence(&pair, -500, -60);
    let (code, told) = license(&pair.a, &["install"], &ended);
    assert_eq!(code, Some(1));
    assert!(told.contains("installing a licence: the licence for Example Ltd. ended with"), "{told}");
    for node in [&pair.a, &pair.b] {
        std::fs::write(node.dir.join("licence"), &ended).unwrap();
    }
    pair.b.start();
    pair.a.start_alone();
    pair.a.incident("licence-over");
    pair.b.incident("licence-over");
    // It serves, and says why its peer does not follow.
    pair.a.make_orders();
    let mut client = pair.a.door.connect();
    let _: () = redis::cmd("SET").arg("app,orders,1").arg("x").query(&mut client).unwrap();
    let status = pair.a.status("to say why", |status| {
        status["link"]["last_error"].as_str().is_some_and(|why| why.contains("without a licence"))
    });
    assert_eq!(status["state"], "serving", "{status}");
    assert_eq!(pair.a.verb(&["license", "show"]).status.code(), Some(1));
    // The next licence is taken while they run.
    let good = licence(&pair, -1, 400);
    let tampered = good.replace("Example Ltd.", "Example Inc.");
    let (code, told) = license(&pair.a, &["verify"], &tampered);
    assert_eq!(code, Some(1));
    assert!(told.contains("the licence was altered"), "{told}");
    for node in [&pair.a, &pair.b] {
        let (code, told) = license(node, &["install"], &good);
        assert_eq!(code, Some(0), "{told}");
    }
    pair.a.incident("licence-good");
    pair.converges();
    assert_eq!(pair.a.json(&["license", "show"])["customer"], "Example Ltd.");
}

#[test]
fn a_takeover_and_reads_need_no_licence_and_a_clock_that_was_turned_back_is_told() {
    let mut pair = Pair::set_up(&Plan::quick());
    let good = licence(&pair, -10, 400);
    for node in [&pair.a, &pair.b] {
        asks_for_one(node);
        let (code, told) = license(node, &["install"], &good);
        assert_eq!(code, Some(0), "{told}");
    }
    pair.serve();
    let mut client = pair.a.door.connect();
    let _: () = redis::cmd("SET").arg("app,orders,1").arg("x").query(&mut client).unwrap();
    pair.converges();
    // The licence is lost on the standby, and its clock has once told a day far ahead.
    pair.b.signal(Signal::SIGTERM);
    assert!(pair.b.ended().success());
    std::fs::remove_file(pair.b.dir.join("licence")).unwrap();
    let record = LicenceRecord { seen: today().plus(400), since: Some(today().plus(300)), issued: today() };
    std::fs::write(pair.b.dir.join("licence.record"), record.encode()).unwrap();
    pair.b.start();
    pair.b.incident("licence-over");
    pair.b.incident("clock-back");
    // The primary has its licence, so it streams.
    pair.converges();
    pair.a.kill();
    pair.b.json_when_up(&["takeover", "--peer-is-down"]);
    pair.b.serves();
    let read: String = redis::cmd("GET").arg("app,orders,1").query(&mut pair.b.door.connect()).unwrap();
    assert_eq!(read, "x");
    wait_until("the licence to be told of", || {
        let told = pair.b.verb(&["license", "show", "--json"]);
        (told.status.code() == Some(1)).then_some(())
    });
}

#[test]
fn the_days_of_grace_go_on_over_stops_and_kills_and_so_does_what_the_clock_once_told() {
    let root = tempfile::tempdir().unwrap();
    let mut node = Node::alone(root.path().join("A"), &Plan::quick());
    asks_for_one(&node);
    let record = node.dir.join("licence.record");
    let kept = || LicenceRecord::decode(&std::fs::read(&record).unwrap()).unwrap();
    // The first test begins the grace, and writes that down before anything is told of it.
    node.start();
    let told = node.incident("licence-bad");
    let LicenceRecord { seen, since, .. } = kept();
    assert_eq!(since, Some(seen));
    assert!(told.contains(&format!("until {}", seen.plus(29))), "{told}");
    node.signal(Signal::SIGTERM);
    assert!(node.ended().success());
    // Days go by.
    let starts = |node: &mut Node| {
        // Only what this life tells is looked at.
        let _ = std::fs::remove_file(node.dir.join("incidents.jsonl"));
        node.start();
    };
    let age = |node: &mut Node, days: u64, seen: Day, code: &str| {
        let since = Day(seen.0 - days);
        let aged = LicenceRecord { since: Some(since), seen, ..kept() };
        std::fs::write(&record, aged.encode()).unwrap();
        starts(node);
        let told = node.incident(code);
        assert_eq!(kept().since, Some(since), "{told}");
        node.kill();
        told
    };
    let told = age(&mut node, 28, seen, "licence-bad");
    assert!(told.contains(&format!("until {}", seen.plus(1))), "{told}");
    age(&mut node, 31, seen, "licence-over");
    // The clock was turned back while the node was down: it gains nothing.
    let ahead = seen.plus(40);
    let told = age(&mut node, 31, ahead, "licence-over");
    assert!(told.contains("there is no licence"), "{told}");
    starts(&mut node);
    node.incident("clock-back");
    assert!(node.incident("licence-over").contains("all else goes on"));
    assert_eq!(kept().seen, ahead);
    // And it stops nothing of what a node does alone.
    assert!(node.serves_alone());
}

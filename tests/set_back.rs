//! A node whose directory was replaced by an older copy of it: neither node denies what is lost by that, before or after
//! the other one is gone.

use crate::support::{Load, Node, Pair, Plan, Shape, audit};
use hot_backup::base::Seq;
use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs;

/// Small segments that are let go as soon as nobody needs them, and no copy before somebody says so.
fn plan() -> Plan {
    let plan = Plan::quick().segments("64K").config("checkpoint_ms = 100").config("full_sync = \"ask\"");
    plan.init(&["--ack-level", "durable"])
}

/// Stops a node and copies its directory.
fn copied(node: &mut Node) -> Node {
    node.kill();
    node.copy(node.dir.with_extension("older"))
}

/// Replaces the directory of a node, which must be stopped, by an older copy.
fn put_back(node: &Node, older: Node) {
    fs::remove_dir_all(&node.dir).unwrap();
    fs::rename(&older.dir, &node.dir).unwrap();
}

/// A range of entries as people are told of it.
fn entries(from: u64, to: u64) -> String {
    format!("entries {} to {}", Seq(from), Seq(to))
}

/// What a request that must be refused is answered.
#[track_caller]
fn refusal(node: &Node, args: &[&str]) -> String {
    let output = node.verb(args);
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{args:?}: {err}");
    err
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap()
}

#[test]
fn a_takeover_by_a_standby_that_was_set_back_denies_no_loss_and_needs_the_word_that_it_is_accepted() {
    let mut pair = Pair::start(&plan());
    let first = Shape { most: 50, ..Shape::default() };
    Load::start(&pair.a.door, first).run_to_the_end();
    pair.converges();
    let older = copied(&mut pair.b);
    pair.b.start();
    pair.connected();
    let told = Load::start(&pair.a.door, Shape { most: 500, first: 10, ..first }).run_to_the_end();
    pair.converges();
    pair.a.status("to let go what both have", |s| number(&s["journal"]["oldest_seq"]) > 300);
    let acked = number(&pair.a.json(&["status"])["positions"]["acked"]);
    pair.b.kill();
    put_back(&pair.b, older);
    pair.b.start();

    // Both say so, and go on saying so.
    assert!(pair.a.incident("peer-set-back").contains(&format!("to {}", Seq(acked))));
    let gap = |status: &Value| !status["gap"].is_null() && status["gap"]["full_copy"] == true;
    let there = pair.a.status("to say what its peer lacks", gap);
    assert_eq!(there["gap"]["here"], false);
    let here = pair.b.status("to say what it lacks", gap);
    let (from, to) = (number(&here["gap"]["from"]), number(&here["gap"]["to"]));
    assert!(from < acked && to >= acked, "{here}");
    pair.b.incident("entries-missing");
    pair.a.kill();
    pair.b.kill();
    pair.b.start();
    // What an incident told of is on its disk; that the journals cannot be joined it may have to hear again.
    let here = pair.b.status("to know it after a restart", |status| !status["gap"].is_null());
    assert_eq!(number(&here["gap"]["from"]), from);

    let said = refusal(&pair.b, &["takeover", "--peer-is-down"]);
    assert!(said.contains(&entries(from, to)) && said.contains("--accept-loss"), "{said}");
    let dry = pair.b.done(&["takeover", "--dry-run"]);
    assert!(dry.contains(&entries(from, to)[1..]) && dry.contains("--accept-loss"), "{dry}");
    let account = pair.b.json(&["takeover", "--peer-is-down", "--accept-loss"]);
    assert_eq!(number(&account["lost_announced"]), to + 1 - from, "{account}");
    assert!(number(&account["durable_level_lost"]) > acked - from, "{account}");
    // It is as it says: what was answered at level durable is not there.
    let missing = audit(&pair.b.door, &told).missing.len();
    assert!(missing > 1000, "{missing}");
}

#[test]
fn a_primary_that_was_set_back_is_not_started_alone_by_mistake() {
    let mut pair = Pair::start(&plan());
    let first = Shape { most: 50, ..Shape::default() };
    Load::start(&pair.a.door, first).run_to_the_end();
    pair.converges();
    let older = copied(&mut pair.a);
    pair.a.start();
    pair.a.serves();
    pair.connected();
    let told = Load::start(&pair.a.door, Shape { most: 100, first: 10, ..first }).run_to_the_end();
    pair.converges();
    let epoch = number(&pair.a.json(&["status"])["epoch"]);
    pair.a.kill();
    put_back(&pair.a, older);
    pair.a.start();
    pair.a.incident("state-set-back");
    let said = refusal(&pair.a, &["start", "--alone"]);
    assert!(said.contains("hot-backup takeover --peer-is-down"), "{said}");
    // Nor when its peer cannot be asked any more.
    pair.b.kill();
    pair.a.kill();
    pair.a.start();
    pair.a.status("to ask", |status| status["state"] == "asking-peer");
    let said = refusal(&pair.a, &["start", "--alone"]);
    assert!(said.contains("--accept-loss"), "{said}");
    pair.a.kill();
    pair.b.start();
    let account = pair.b.json_when_up(&["takeover", "--peer-is-down"]);
    assert!(number(&account["epoch"]) > epoch);
    assert_eq!(account["lost_announced"], 0);
    audit(&pair.b.door, &told).is_complete();
}

#[test]
fn a_standby_whose_claim_was_dropped_at_the_quota_and_its_primary_know_of_the_gap() {
    let plan = Plan::quick().segments("64K").config("checkpoint_ms = 100").config("full_sync = \"ask\"");
    let mut pair = Pair::start(&plan.config("journal_quota_bytes = \"256K\""));
    let first = Shape { most: 20, ..Shape::default() };
    Load::start(&pair.a.door, first).run_to_the_end();
    pair.converges();
    let had = number(&pair.b.json(&["status"])["positions"]["durable"]);
    pair.b.kill();
    let load = Load::start(&pair.a.door, Shape { first: 10, ..Shape::default() });
    pair.a.incident("peer-dropped");
    load.finish();
    let gap = |status: &Value| !status["gap"].is_null() && status["gap"]["full_copy"] == true;
    for restarted in [false, true] {
        if restarted {
            pair.a.signal(Signal::SIGTERM);
            pair.a.ended();
            pair.a.start_alone();
        }
        let there = pair.a.status("to say what its peer lacks", gap);
        assert_eq!((&there["gap"]["here"], number(&there["gap"]["from"])), (&Value::from(false), had + 1));
    }
    pair.b.start();
    assert!(pair.b.incident("entries-missing").contains("needs a full copy"));
    let here = pair.b.status("to say what it lacks", gap);
    let (from, to) = (number(&here["gap"]["from"]), number(&here["gap"]["to"]));
    assert_eq!(from, had + 1);
    pair.a.kill();
    let said = refusal(&pair.b, &["takeover", "--peer-is-down"]);
    assert!(said.contains(&entries(from, to)) && said.contains("--accept-loss"), "{said}");
    let account = pair.b.json(&["takeover", "--peer-is-down", "--accept-loss"]);
    assert_eq!(number(&account["lost_announced"]), to - had, "{account}");
    // All of it was answered while the promise of this level did not depend on the standby.
    assert_eq!(account["durable_level_lost"], 0);
}

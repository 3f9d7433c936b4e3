//! An outage that is larger than the journal goes to another disk, and comes back from there: in order, each entry once, and
//! without a copy of everything.

use crate::support::{Disk, Load, Node, Pair, Plan, Shape, Told, audit, tier, wait_until};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A small journal.
pub(crate) fn plan() -> Plan {
    Plan::quick().segments("64K").config("checkpoint_ms = 100").config("journal_quota_bytes = \"512K\"")
}

/// A place for spools.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn line(&self) -> String {
        format!("spool = \"file:{}\"", self.0.path().display())
    }

    /// The files of all parts in it, in order.
    fn parts(&self) -> Vec<PathBuf> {
        parts_below(self.0.path())
    }
}

pub(crate) fn parts_below(dir: &Path) -> Vec<PathBuf> {
    let dirs =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    let files = dirs.flat_map(|dir| std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()));
    let mut parts: Vec<_> = files.filter(|path| path.extension().is_some_and(|end| end == "hbp")).collect();
    parts.sort();
    parts
}

/// A pair with such a journal, whose primary has a spool, with these lines in the config.
fn pair_with(place: &str, lines: &[&str]) -> Pair {
    let mut pair = Pair::set_up(&plan());
    pair.a.configure(&[place]);
    pair.a.configure(lines);
    pair.serve();
    pair
}

pub(crate) fn parts(status: &Value) -> u64 {
    status["spool"]["parts"].as_u64().unwrap()
}

fn load(node: &Node, first: usize) -> Load {
    Load::start(&node.door, Shape { first, value: 1000, ..Shape::default() })
}

/// The standby is away until so many parts are on the spool.
fn outage(pair: &mut Pair, more: u64) -> Vec<Told> {
    pair.b.kill();
    let load = load(&pair.a, 10);
    pair.a.status("to fill its spool", |status| parts(status) >= more);
    load.finish()
}

/// The standby comes back, gets all of it from the spool, and the spool is let go.
pub(crate) fn comes_back(pair: &mut Pair, files: impl Fn() -> Vec<PathBuf>, told: &[Told]) {
    assert!(told.iter().all(|told| told.refusals().next().is_none()), "an update was refused");
    pair.b.start();
    pair.converges();
    audit(&pair.b.door, told).is_complete();
    let output = pair.b.verb(&["compare", "--rate", "unlimited", "--json"]);
    let end: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(output.status.code() == Some(0) && end["differing"] == 0, "{end}");
    pair.a.status("to let its spool go", |status| parts(status) == 0);
    wait_until("the files to be gone", || files().is_empty().then_some(()));
    for node in [&pair.a, &pair.b] {
        let kinds: Vec<String> = node.incidents().into_iter().map(|(kind, _)| kind).collect();
        let copied = ["peer-dropped", "needs-full-sync", "copying", "whole"];
        assert!(!kinds.iter().any(|kind| copied.contains(&kind.as_str())), "{kinds:?}");
    }
}

#[test]
fn an_outage_that_is_many_times_the_journal_costs_no_update_and_no_full_copy() {
    let place = Place::new();
    let mut pair = pair_with(&place.line(), &[]);
    let told = outage(&mut pair, 40);
    let status = pair.a.json(&["status"]);
    let spool = &status["spool"];
    assert!(spool["bytes"].as_u64() > Some(4 * (512 << 10)), "{spool}");
    pair.a.status("to empty its journal", |status| status["journal"]["bytes"].as_u64() <= Some(512 << 10));
    let status = pair.a.json(&["status"]);
    assert!(spool["room_bytes"].as_u64() > Some(0) && spool["rate"].is_u64(), "{spool}");
    let text = pair.a.done(&["status"]);
    assert!(text.contains("  spool ") && text.contains("room for"), "{text}");
    let listed = pair.a.json(&["spool", "list"]);
    assert_eq!(listed.as_array().unwrap().len() as u64, parts(&status));
    assert_eq!(pair.a.verb(&["spool", "verify"]).status.code(), Some(0));
    assert!(pair.a.incident("spooling").contains("which the peer lacks"));
    assert_eq!(pair.a.verb(&["spool", "stop"]).status.code(), Some(1), "the peer lacks it");
    comes_back(&mut pair, || place.parts(), &told);
    let range = pair.a.incident("unspooled");
    assert!(range.contains("entries "), "{range}");
}

#[test]
fn a_primary_that_is_killed_while_it_spools_knows_its_spool_again_and_loses_nothing() {
    let place = Place::new();
    let mut pair = pair_with(&place.line(), &[]);
    pair.b.kill();
    let mut all = Vec::new();
    for round in 0..4 {
        let before = parts(&pair.a.serves());
        let load = load(&pair.a, 10 + 10 * round);
        pair.a.status("to spool more", |status| parts(status) >= before + 5);
        pair.a.kill();
        all.extend(load.finish());
        if round == 1 {
            // The index is a convenience.
            for dir in std::fs::read_dir(place.0.path()).unwrap() {
                std::fs::write(dir.unwrap().path().join("index"), "rubbish").unwrap();
            }
        }
        pair.a.start_alone();
    }
    pair.b.start();
    pair.converges();
    audit(&pair.b.door, &all).is_complete();
    pair.a.status("to let its spool go", |status| parts(status) == 0);
    let kinds: Vec<String> = pair.a.incidents().into_iter().map(|(kind, _)| kind).collect();
    let bad = ["peer-dropped", "spool-damaged", "spool-stray", "needs-full-sync"];
    assert!(!kinds.iter().any(|kind| bad.contains(&kind.as_str())), "{kinds:?}");
}

#[test]
fn a_rotten_part_is_named_with_its_entries_and_not_served() {
    let place = Place::new();
    let mut pair = pair_with(&place.line(), &[]);
    let told = outage(&mut pair, 8);
    let victim = place.parts()[2].clone();
    let name = victim.file_name().unwrap().to_str().unwrap().to_owned();
    let mut bytes = std::fs::read(&victim).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle..middle + 8192].fill(0);
    std::fs::write(&victim, bytes).unwrap();
    let output = pair.a.verb(&["spool", "verify", "--json"]);
    let views: Value = serde_json::from_slice(&output.stdout).unwrap();
    let bad: Vec<_> = views.as_array().unwrap().iter().filter(|view| view["damage"] != "").collect();
    assert!(output.status.code() == Some(1) && bad.len() == 1 && bad[0]["name"] == name.as_str(), "{views}");
    pair.b.start();
    let text = pair.a.incident("spool-damaged");
    assert!(text.contains(&name) && text.contains(&format!("entries {} to ", bad[0]["from"])), "{text}");
    // What cannot be had from the spool comes as a copy.
    pair.b.incident("whole");
    pair.converges();
    audit(&pair.b.door, &told).is_complete();
}

/// With the standby away, and a spool that takes no more.
fn full(place: &str, policy: &str, fill: impl FnOnce()) -> (Pair, Load) {
    let mut pair = pair_with(place, &[&format!("spool_full = \"{policy}\"")]);
    fill();
    pair.b.kill();
    let load = load(&pair.a, 10);
    let text = pair.a.incident("spool-full");
    assert!(text.contains("entries from ") && text.contains("up to its quota"), "{text}");
    (pair, load)
}

fn drops_the_peer((mut pair, load): (Pair, Load)) {
    let text = pair.a.incident("peer-dropped");
    assert!(text.contains("entries before"), "{text}");
    load.goes_on(200);
    let told = load.finish();
    assert!(told.iter().all(|told| told.refusals().next().is_none()), "users at level local never stop");
    pair.b.start();
    pair.b.incident("whole");
    pair.converges();
    audit(&pair.b.door, &told).is_complete();
}

fn stops_users((mut pair, load): (Pair, Load)) {
    load.is_refused();
    let status = pair.a.status("to refuse", |status| status["state"] == "no-space");
    assert!(status["reason"].as_str().unwrap().contains("spool_full"), "{status}");
    let told = load.finish();
    pair.b.start();
    pair.a.serves();
    pair.converges();
    audit(&pair.b.door, &told).is_complete();
    assert!(!pair.a.incidents().iter().any(|(kind, _)| kind == "peer-dropped"));
}

fn grows((mut pair, load): (Pair, Load)) {
    pair.a.status("to grow beyond its quota", |status| status["journal"]["bytes"].as_u64() > Some(2 << 20));
    let told = load.finish();
    assert!(told.iter().all(|told| told.refusals().next().is_none()), "users at level local never stop");
    pair.b.start();
    pair.converges();
    audit(&pair.b.door, &told).is_complete();
    assert!(!pair.a.incidents().iter().any(|(kind, _)| kind == "peer-dropped"));
}

#[test]
fn a_spool_at_its_limit_drops_the_peer_or_stops_users_or_lets_the_journal_grow_as_configured() {
    let place = Place::new();
    let at_limit = |policy: &str| full(&format!("{}\nspool_limit = \"300K\"", place.line()), policy, || {});
    drops_the_peer(at_limit("drop-peer"));
    stops_users(at_limit("block"));
    grows(at_limit("alarm"));
}

#[test]
fn tier_a_disk_of_the_spool_that_is_full_does_the_same() {
    tier!("root", "mkfs.ext4", "losetup");
    for (policy, then) in
        [("drop-peer", drops_the_peer as fn((Pair, Load))), ("block", stops_users), ("alarm", grows)]
    {
        let disk = Disk::new(32);
        let place = format!("spool = \"file:{}\"", disk.path().display());
        // A part is begun and cannot be ended: nothing of it may stay.
        then(full(&place, policy, || disk.fill()));
        assert!(parts_below(disk.path()).is_empty() || policy != "drop-peer");
    }
}

#[test]
fn a_spool_that_is_not_there_stops_nobody_and_is_used_when_it_comes() {
    let place = Place::new();
    let dir = place.0.path().join("mnt");
    let mut pair = pair_with(&format!("spool = \"file:{}\"", dir.display()), &["spool_full = \"alarm\""]);
    assert!(pair.a.incident("spool-failed").contains("No such file"), "{:?}", pair.a.incidents());
    pair.b.kill();
    let load = load(&pair.a, 10);
    load.goes_on(500);
    std::fs::create_dir(&dir).unwrap();
    pair.a.incident("spool-back");
    pair.a.status("to spool", |status| parts(status) > 5);
    let told = load.finish();
    pair.b.start();
    pair.converges();
    audit(&pair.b.door, &told).is_complete();
}

#[test]
fn a_spool_is_started_and_stopped_while_the_node_runs_and_that_holds_over_restarts() {
    let place = Place::new();
    let mut pair = Pair::set_up(&plan());
    pair.serve();
    assert_eq!(pair.a.verb(&["spool", "status"]).status.code(), Some(1));
    let to = format!("file:{}", place.0.path().display());
    let begun = pair.a.json(&["spool", "start", "--to", &to]);
    assert_eq!(begun["place"], to.as_str());
    let told = outage(&mut pair, 8);
    pair.a.kill();
    pair.a.start_alone();
    pair.a.status("to know its spool again", |status| parts(status) >= 8);
    comes_back(&mut pair, || place.parts(), &told);
    pair.a.done(&["spool", "stop"]);
    pair.a.kill();
    pair.a.start_alone();
    assert_eq!(pair.a.serves()["spool"]["state"], "off");
}

#[test]
fn a_replay_puts_back_what_the_spool_has_and_refuses_what_is_not_meant() {
    let place = Place::new();
    let root = tempfile::tempdir().unwrap();
    let mut node = Node::alone(root.path().join("A"), &plan());
    node.configure(&[place.line(), "spool_mode = \"always\"".to_owned()]);
    node.start_alone();
    node.make_orders();
    let from = (node.json(&["status"])["positions"]["appended"].as_u64().unwrap() + 1).to_string();
    let told = Load::start(&node.door, Shape { most: 100, value: 1000, ..Shape::default() }).run_to_the_end();
    let status = node.status("to spool", |status| parts(status) > 3 && status["spool"]["state"] == "holding");
    let until = status["spool"]["to"].to_string();
    let again = ["spool", "replay", "--from", &from, "--until", &until];
    let refused = node.verb(&again);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(1) && said.contains("of this node's own history"), "{said}");
    let dry = node.json(&[&again[..], &["--again", "--dry-run"]].concat());
    let puts = dry["put"].as_u64().unwrap();
    assert!(puts > 100 && dry["by_hand"] == 0 && dry["files"]["app,orders"] == puts, "{dry}");
    node.done(&["file", "clear", "app,orders", "--yes"]);
    let other = node.json(&[&again[..], &["--again", "--only", "other"]].concat());
    assert!(other["put"] == 0 && other["skipped"] == puts, "{other}");
    assert!(crate::support::items(&node.door, "app,").is_empty());
    let done = node.json(&[&again[..], &["--again"]].concat());
    assert_eq!(done["put"], puts);
    let there = crate::support::items(&node.door, "app,orders,");
    let newest = told.iter().flat_map(|told| (0..told.sent).map(|n| (told.id(n), told.value(n))));
    let known: std::collections::BTreeSet<_> =
        newest.map(|(id, value)| (format!("app,orders,{id}").into_bytes(), value)).collect();
    assert!(there.len() > 50 && there.iter().all(|(id, value)| known.contains(&(id.clone(), value.clone()))));
    // Entries that are missing are named, and nothing is carried out.
    std::fs::remove_file(&place.parts()[1]).unwrap();
    let gap = node.verb(&[&again[..], &["--again"]].concat());
    let said = String::from_utf8_lossy(&gap.stderr).into_owned();
    assert!(gap.status.code() == Some(1) && said.contains("are not on the spool"), "{said}");
}

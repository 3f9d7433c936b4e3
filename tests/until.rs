//! A save and what came after it are one history: any moment of it comes back, as a whole node or beside what is there.

use crate::save::{refused, third, to, verified};
use crate::support::{Load, Node, Plan, Shape, items, wait_until};
use hot_backup::base::shown::utc;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

type Items = BTreeMap<Vec<u8>, Vec<u8>>;

fn now_ms() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// A primary alone, whose every sealed segment goes to a spool; a save of it, a moment after that, and what came later.
struct Story {
    temp: tempfile::TempDir,
    node: Node,
    /// In the moment: its second, its last entry, and what was there.
    time: String,
    seq: u64,
    then: Items,
    /// At the end.
    end: u64,
    now: Items,
}

impl Story {
    fn dir(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    /// `--from` for each of these.
    fn from(&self, names: &[&str]) -> Vec<String> {
        names.iter().flat_map(|name| ["--from".to_owned(), self.dir(name).display().to_string()]).collect()
    }

    fn restore(&self, node: &Node, names: &[&str], more: &[&str]) -> std::process::Output {
        let from = self.from(names);
        let args: Vec<&str> = ["restore"].into_iter().chain(from.iter().map(String::as_str)).collect();
        node.verb(&[&args[..], more].concat())
    }

    fn told() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let spool = temp.path().join("spool");
        std::fs::create_dir(&spool).unwrap();
        let plan = Plan::quick().segments("64K").config("checkpoint_ms = 100");
        let mut node = Node::alone(temp.path().join("A"), &plan);
        let place = format!("spool = \"file:{}\"", spool.display());
        node.configure(&[place, "spool_mode = \"always\"".to_owned()]);
        node.start_alone();
        node.make_orders();
        let load = |node: &Node, first: usize, seed: usize| {
            let shape = Shape { first: seed, most: first, value: 1000, ..Shape::default() };
            Load::start(&node.door, shape).run_to_the_end()
        };
        load(&node, 50, 1);
        node.done(&["save", "--to", &to(&temp.path().join("set"))]);
        load(&node, 150, 20);
        node.done(&["file", "create", "app,late", "--flags", "L"]);
        node.done(&["item", "put", "app,late", "1", "one"]);
        let appended = |node: &Node| node.json(&["status"])["positions"]["appended"].as_u64().unwrap();
        let (seq, then, moment) = (appended(&node), items(&node.door, "app,"), now_ms());
        wait_until("the second to be over", || (now_ms() / 1000 > moment / 1000).then_some(()));
        load(&node, 150, 40);
        node.done(&["file", "clear", "app,late", "--yes"]);
        node.done(&["item", "put", "app,late", "2", "two"]);
        let (end, now) = (appended(&node), items(&node.door, "app,"));
        node.status("to spool what came after that moment", |status| {
            status["spool"]["to"].as_u64() > Some(seq) && status["spool"]["state"] == "holding"
        });
        Self { temp, node, time: utc(moment), seq, then, end, now }
    }
}

#[test]
fn a_save_and_the_spool_and_journal_behind_it_give_back_any_moment() {
    let story = Story::told();
    let all = ["set", "spool", "A"];
    let seq = story.seq.to_string();
    for (name, until, expected, items_then) in [
        ("C", &["--until", story.time.as_str()][..], story.seq, &story.then),
        ("D", &["--until", seq.as_str()][..], story.seq, &story.then),
        ("E", &[][..], story.end, &story.now),
    ] {
        let mut node = third(&story.node, story.dir(name), ("c", "standby"));
        let output = story.restore(&node, &all, &[until, &["--json"]].concat());
        let done: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(done["seq"], expected, "{until:?}: {done} {said}");
        assert!(done["batches"].as_u64() > Some(0) && said.contains("after the save came"), "{done} {said}");
        assert_eq!(said.contains("it ends before"), name != "E", "{said}");
        node.start();
        node.status("to stand by", |status| status["state"] == "standby");
        assert!(items(&node.door, "app,") == *items_then, "{until:?} is another moment");
        node.kill();
    }
    // The same beside what is there: as ordinary updates, while the node works.
    let until = ["--only", "app", "--as", "then", "--until", &story.time];
    let output = story.restore(&story.node, &all, &until);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let beside: Items = items(&story.node.door, "then,")
        .into_iter()
        .map(|(key, value)| ([b"app,", key.strip_prefix(b"then,").unwrap()].concat(), value))
        .collect();
    assert!(beside == story.then, "it is another moment");
    assert!(items(&story.node.door, "app,") == story.now, "what is there stays");
    // One item of a file that was emptied since.
    story.restore(&story.node, &all, &["--only", "app,late,1", "--until", &story.time]);
    assert_eq!(story.node.done(&["item", "get", "app,late", "1"]), "one");
}

/// Copies the parts of the spool to another directory, but for one.
fn spool_without(story: &Story, name: &str, nth: usize) -> PathBuf {
    let of = std::fs::read_dir(story.dir("spool")).unwrap().next().unwrap().unwrap().path();
    let dir = story.dir(name);
    std::fs::create_dir(&dir).unwrap();
    let mut parts: Vec<PathBuf> = std::fs::read_dir(of).unwrap().map(|entry| entry.unwrap().path()).collect();
    parts.retain(|path| path.extension().is_some_and(|end| end == "hbp"));
    parts.sort();
    let left = parts.remove(nth);
    for part in &parts {
        std::fs::copy(part, dir.join(part.file_name().unwrap())).unwrap();
    }
    left
}

#[test]
fn gaps_other_histories_and_moments_that_are_not_there_are_refused_by_name_before_anything_changes() {
    let story = Story::told();
    let empty = third(&story.node, story.dir("C"), ("c", "standby"));
    let refuses = |names: &[&str], more: &[&str], code: i32, what: &str| {
        refused(&story.restore(&empty, names, more), code, what);
        assert!(!empty.dir.join("restoring").exists(), "it was begun: {what}");
        let only = [&["--only", "app", "--as", "other"], more].concat();
        refused(&story.restore(&story.node, names, &only), code, what);
        assert!(items(&story.node.door, "other,").is_empty());
    };
    let set_end = verified(&story.dir("set"))["seq"].as_u64().unwrap();
    let (early, late) = ((set_end - 1).to_string(), (story.end + 1000).to_string());
    refuses(&["set", "spool", "A"], &["--until", &early], 1, "holds the state at entry");
    refuses(&["set", "spool", "A"], &["--until", "2020-01-01 00:00:00"], 1, "2020-01-01 00:00:00Z");
    refuses(&["set", "spool"], &["--until", &late], 1, "the sources end with entry");
    refuses(&["set"], &["--until", &late], 1, "the sources end with entry");
    refuses(&["set", "A"], &["--until", "tomorrow"], 2, "expected the number of an entry");
    // A gap in the spool; where the node's journal has it still, that is read.
    let parts = std::fs::read_dir(story.dir("spool")).unwrap().next().unwrap().unwrap().path();
    let count = std::fs::read_dir(parts)
        .unwrap()
        .flatten()
        .filter(|e| e.path().extension().is_some_and(|x| x == "hbp"));
    let last = count.count() - 1;
    spool_without(&story, "gap", last - 1);
    refuses(&["set", "gap"], &[], 1, "are in none of the sources");
    // A part that is damaged in its middle, and one whose beginning is.
    let left = spool_without(&story, "rotten", last);
    let good = std::fs::read(&left).unwrap();
    for at in [9000, 10] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        std::fs::write(story.dir("rotten").join(left.file_name().unwrap()), &bad).unwrap();
        refuses(&["set", "rotten"], &[], 1, "is damaged");
    }
    // Not in their order, and nothing to begin with.
    refuses(&["spool", "set"], &[], 2, "stands behind what comes after a save");
    refuses(&["spool"], &[], 2, "none of the sources is a save");
    // Another pair, and another history of this one.
    let mut other = Node::alone(story.dir("other"), &Plan::quick());
    other.start_alone();
    other.make_orders();
    refuses(&["set", "other"], &[], 1, "it is of pair");
    let mut branch = third(&story.node, story.dir("branch"), ("c", "standby"));
    branch.start();
    branch.json_when_up(&["takeover", "--peer-is-down"]);
    branch.serves();
    branch.make_orders();
    Load::start(&branch.door, Shape { most: 200, ..Shape::default() }).run_to_the_end();
    let ahead = branch.json(&["status"])["positions"]["appended"].as_u64() > Some(set_end);
    assert!(ahead, "the other history is longer than the set");
    refuses(&["set", "branch"], &[], 1, "does not continue the save");
    // All the same it goes.
    let output = story.restore(&empty, &["set", "spool", "A"], &["--dry-run"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// What a command prints that may say no.
fn told(node: &Node, args: &[&str]) -> serde_json::Value {
    let output = node.verb(&[args, &["--json"]].concat());
    let said = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"))
}

#[test]
fn a_replay_of_a_spool_ends_with_the_second_that_is_named() {
    let story = Story::told();
    let set_end = verified(&story.dir("set"))["seq"].as_u64().unwrap();
    let from = (set_end + 1).to_string();
    let replay = ["spool", "replay", "--from", &from, "--again", "--dry-run"];
    let all = told(&story.node, &replay);
    let some = told(&story.node, &[&replay[..], &["--until", &story.time]].concat());
    assert_eq!(some["to"], story.seq, "{some}");
    assert!(all["to"].as_u64() > Some(story.seq), "{all}");
    let none = told(&story.node, &[&replay[..], &["--until", "2020-01-01 00:00:00"]].concat());
    assert_eq!((&none["put"], &none["to"]), (&0.into(), &0.into()), "{none}");
}

#[test]
fn a_history_that_is_killed_while_it_is_taken_is_begun_again() {
    let story = Story::told();
    let node = third(&story.node, story.dir("C"), ("c", "standby"));
    // As a kill between the note and the end leaves it.
    std::fs::write(node.dir.join("restoring"), "set\n").unwrap();
    refused(&node.verb(&["serve"]), 2, "a restore into it is not finished");
    let output = story.restore(&node, &["set", "spool", "A"], &["--until", &story.time]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut node = node;
    node.start();
    node.status("to stand by", |status| status["state"] == "standby");
    assert!(items(&node.door, "app,") == story.then);
}

//! A history on the spool is kept for the saves that are there: what is older than the oldest goes, what a save needs stays.

use crate::save::to;
use crate::support::{Load, Node, Pair, Plan, Shape};
use serde_json::Value;

fn writes(node: &Node, first: usize) {
    let shape = Shape { first, most: 150, value: 1000, ..Shape::default() };
    Load::start(&node.door, shape).run_to_the_end();
}

fn from(status: &Value) -> u64 {
    status["spool"]["from"].as_u64().unwrap()
}

#[test]
fn what_is_older_than_the_oldest_save_goes_when_an_older_one_is_removed_and_the_rest_stays() {
    let temp = tempfile::tempdir().unwrap();
    let spool = temp.path().join("spool");
    std::fs::create_dir(&spool).unwrap();
    let mut pair = Pair::set_up(&Plan::quick().segments("64K").config("checkpoint_ms = 100"));
    let place = format!("spool = \"file:{}\"", spool.display());
    pair.a.configure(&[&place, "spool_mode = \"always\"", "spool_keep = \"oldest-save\""]);
    pair.serve();
    let mut ends = Vec::new();
    for round in 0..3 {
        writes(&pair.a, 10 * round);
        pair.converges();
        let set = temp.path().join(format!("set{round}"));
        ends.push(pair.a.json(&["save", "--to", &to(&set)])["seq"].as_u64().unwrap());
    }
    writes(&pair.a, 40);
    pair.converges();
    let fits = |status: &Value, end: u64, before: u64| (before + 1..=end + 1).contains(&from(status));
    // What is before the first save goes, and nothing else, though the standby has all of it.
    pair.a.status("to keep what came after the first save", |status| fits(status, ends[0], 1));
    for (gone, kept) in [(0, 1), (1, 2)] {
        std::fs::remove_file(temp.path().join(format!("set{gone}"))).unwrap();
        pair.a.status("to keep what came after the next save", |status| fits(status, ends[kept], ends[gone]));
    }
    // What came after the oldest save brings back any moment since.
    let last = temp.path().join("set2");
    let node = crate::save::third(&pair.a, temp.path().join("C"), ("c", "standby"));
    let (dir, a) = (spool.display().to_string(), pair.a.dir.display().to_string());
    let sources = ["restore", "--from", last.to_str().unwrap(), "--from", &dir, "--from", &a];
    let done = node.json(&[&sources[..], &["--until", &(ends[2] + 100).to_string()]].concat());
    assert!(done["seq"].as_u64() > Some(ends[2]), "{done}");
}

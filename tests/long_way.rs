//! A new standby that no link reaches is made level by what is carried to it: a save, then rounds of what came meanwhile, while
//! users work; the link gets the rest, and no copy. On reels and on a disk, with a plan that is killed on its way.

use crate::save::third;
use crate::support::{Load, Node, Pair, Plan, Shape, Told, audit, program, wait_until};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

fn plan() -> Plan {
    Plan::quick().segments("64K").config("checkpoint_ms = 100").config("journal_quota_bytes = \"512K\"")
}

/// A primary whose standby is lost with its disk, and whose journal does not reach back to it.
struct Stage {
    pair: Pair,
    temp: tempfile::TempDir,
    told: Vec<Told>,
}

fn load(node: &Node, first: usize, most: usize) -> Load {
    Load::start(&node.door, Shape { first, most, value: 1000, ..Shape::default() })
}

impl Stage {
    fn new() -> Self {
        Self::with(&[])
    }

    /// The same with these lines in the config.
    fn with(lines: &[&str]) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let mut pair = Pair::set_up(&plan());
        pair.a.configure(lines);
        pair.serve();
        pair.b.kill();
        let told = load(&pair.a, 10, 600).run_to_the_end();
        pair.a.incident("peer-dropped");
        for name in ["here", "there", "spool"] {
            std::fs::create_dir(temp.path().join(name)).unwrap();
        }
        Self { pair, temp, told }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    fn plan(&self, args: &[&str]) -> Value {
        self.pair.a.json(&[&["resync", "plan"], args].concat())
    }

    /// Carries everything of that name, and gives the place as it is called there.
    fn carry(&self, plan: &Value) -> String {
        let place = plan["carried"]["place"].as_str().unwrap().to_owned();
        let here = self.path("here").display().to_string();
        assert!(place.contains(&here), "{place}");
        let output = Command::new("cp").arg("-a").arg(format!("{here}/.")).arg(self.path("there")).output();
        assert!(output.unwrap().status.success());
        let place = place.replace(&here, &self.path("there").display().to_string());
        place.strip_prefix("file:").unwrap_or(&place).to_owned()
    }

    /// What came since the last round is on the spool: more than is worth a round.
    fn goes_on(&self, load: &Load, plan: &Value) {
        load.goes_on(1500);
        let (has, arrived) = (plan["carried"]["to"].as_u64(), plan["has"].as_u64());
        let after = has.max(arrived).unwrap() + 1200;
        self.pair.a.status("to spool what came", |status| status["spool"]["to"].as_u64() >= Some(after));
    }

    /// The new node stands by with what was carried, and the link brings the rest. No copy runs.
    fn links(&mut self, node: Node, load: Load) {
        node.trusts(&self.pair.a);
        self.pair.a.trusts(&node);
        self.pair.b = node;
        self.pair.b.start();
        wait_until("both to be level", || {
            let output = self.pair.a.verb(&["resync", "plan", "run", "--json"]);
            let plan: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
            (output.status.success() && plan["step"] == "done").then_some(())
        });
        self.told.extend(load.finish());
        let pair = &self.pair;
        pair.converges();
        audit(&pair.b.door, &self.told).is_complete();
        let output = pair.b.verb(&["compare", "--rate", "unlimited", "--json"]);
        let end: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(output.status.code() == Some(0) && end["differing"] == 0, "{end}");
        for node in [&pair.a, &pair.b] {
            let kinds: Vec<String> = node.incidents().into_iter().map(|(kind, _)| kind).collect();
            let copied = ["needs-full-sync", "copying", "whole", "spool-damaged", "rewinding"];
            assert!(!kinds.iter().any(|kind| copied.contains(&kind.as_str())), "{kinds:?}");
        }
        assert_eq!(pair.a.json(&["status"])["spool"]["state"], "off", "the spool is as it was");
    }
}

const FIGURES: [&str; 6] = ["--updates", "10K", "--drive", "100M", "--carry", "10s"];

fn restored(node: &Node, args: &[&str]) -> Value {
    node.json(&[&["restore"], args].concat())
}

fn step(plan: &Value) -> &str {
    plan["step"].as_str().unwrap_or_default()
}

#[test]
fn a_new_standby_without_a_link_is_made_level_by_reels_that_are_carried_in_rounds() {
    let mut stage = Stage::new();
    let load = load(&stage.pair.a, 30, usize::MAX);
    let to = format!("tape:{}", stage.path("here").join("reel-%03d.tap").display());
    let spool = format!("file:{}", stage.path("spool").display());
    let made = stage.plan(&[&["--to", &to, "--spool", &spool, "--reel-size", "1M"], &FIGURES[..]].concat());
    assert_eq!(made["forecast"]["end"]["next"], "any-link", "{made}");
    assert!(made["forecast"]["rounds"].as_array().unwrap().len() < 4, "{made}");
    let again = stage.pair.a.verb(&["resync", "plan", "--to", &to, "--spool", &spool]);
    assert_eq!(again.status.code(), Some(1), "one plan at a time");
    let mut now = stage.plan(&["run"]);
    assert_eq!((step(&now), &now["carried"]["from"]), ("carry-save", &0.into()), "{now}");
    assert!(now["next"][1].as_str().unwrap().contains("hot-backup restore --from "), "{now}");
    let node = third(&stage.pair.a, stage.path("C"), ("c", "standby"));
    let done = restored(&node, &["--from", &stage.carry(&now), "--no-wait"]);
    assert_eq!(done["seq"], now["carried"]["to"]);
    let mut reels = Vec::new();
    for round in 1..=2 {
        stage.goes_on(&load, &now);
        let before = now["carried"]["to"].clone();
        now = stage.plan(&["next"]);
        assert_eq!((step(&now), &now["round"]), ("carry-round", &round.into()), "{now}");
        assert_eq!(
            now["carried"]["from"].as_u64().map(|from| from <= before.as_u64().unwrap() + 1),
            Some(true)
        );
        let carried = now["carried"]["reels"].as_array().unwrap().clone();
        assert!(
            !carried.is_empty() && carried.iter().all(|reel| !reels.contains(reel)),
            "{carried:?} {reels:?}"
        );
        reels.extend(carried);
        let (place, until) = (stage.carry(&now), now["carried"]["to"].to_string());
        assert!(place.ends_with("#spool"), "{place}");
        let more = restored(&node, &["--from", &place, "--until", &until, "--no-wait"]);
        assert_eq!((&more["from"], &more["seq"]), (&before, &now["carried"]["to"]), "{more}");
    }
    // Without a link to be told of, a round is what comes next; a fast one takes the rest.
    let output = stage.pair.a.verb(&["resync", "plan", "next", "--link", "1G", "--json"]);
    let linked: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((step(&linked), output.status.code()), ("link", Some(1)), "{linked}");
    stage.links(node, load);
}

#[test]
fn a_plan_with_a_disk_that_is_carried_is_killed_again_and_again_and_goes_on_where_it_was() {
    let mut stage = Stage::new();
    let load = load(&stage.pair.a, 30, usize::MAX);
    let to = format!("file:{}", stage.path("here").display());
    let spool = format!("file:{}", stage.path("spool").display());
    let output = stage.pair.a.verb(&["resync", "plan", "--to", &to]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(2) && said.contains("--spool"), "{said}");
    stage.plan(&[&["--to", &to, "--spool", &spool], &FIGURES[..]].concat());
    kill_often(&stage, "carry-save");
    let now = stage.plan(&["status"]);
    assert_eq!(step(&now), "carry-save", "{now}");
    let node = third(&stage.pair.a, stage.path("C"), ("c", "standby"));
    restored(&node, &["--from", &stage.carry(&now)]);
    stage.goes_on(&load, &now);
    kill_often(&stage, "carry-round");
    let now = stage.plan(&["run"]);
    assert_eq!(step(&now), "carry-round", "{now}");
    let (place, until) = (stage.carry(&now), now["carried"]["to"].to_string());
    killed_restores(&node, &["restore", "--from", &place, "--until", &until]);
    let more = restored(&node, &["--from", &place]);
    assert_eq!(more["seq"], now["carried"]["to"], "{more}");
    // The same once more changes nothing.
    assert_eq!(restored(&node, &["--from", &place])["batches"], 0);
    stage.pair.a.verb(&["resync", "plan", "next", "--link", "1G"]);
    stage.links(node, load);
}

/// One call of the plan that may say no: what it printed, and what it said.
fn tried(node: &Node, args: &[&str]) -> (Value, String) {
    let output = node.verb(&[&["resync", "plan"], args, &["--json"]].concat());
    let plan: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    (plan, String::from_utf8_lossy(&output.stderr).into_owned())
}

impl Stage {
    /// A plan that came to its link, and the new node, which does not come.
    fn linked(&self) -> (Value, Node) {
        let to = format!("file:{}", self.path("here").display());
        let spool = format!("file:{}", self.path("spool").display());
        self.plan(&[&["--to", &to, "--spool", &spool], &FIGURES[..]].concat());
        let now = self.plan(&["run"]);
        let node = third(&self.pair.a, self.path("C"), ("c", "standby"));
        restored(&node, &["--from", &self.carry(&now)]);
        let (linked, said) = tried(&self.pair.a, &["next", "--link", "1G"]);
        assert_eq!(step(&linked), "link", "{linked} {said}");
        (linked, node)
    }
}

#[test]
fn a_link_that_does_not_come_until_a_round_is_quicker_gives_way_to_one() {
    let mut stage = Stage::new();
    let (linked, node) = stage.linked();
    let load = load(&stage.pair.a, 30, usize::MAX);
    stage.goes_on(&load, &linked);
    // What was told of the link still takes all of it in no time.
    let (linked, said) = tried(&stage.pair.a, &["run"]);
    assert_eq!((step(&linked), said.contains("back to rounds")), ("link", false), "{linked} {said}");
    let (back, said) = tried(&stage.pair.a, &["run", "--link", "1K"]);
    assert_eq!((step(&back), &back["round"]), ("carry-round", &1.into()), "{back} {said}");
    let words = ["back to rounds: the link does not take what waits", " go in a round, in "];
    assert!(words.iter().all(|word| said.contains(word)), "{said}");
    let (place, until) = (stage.carry(&back), back["carried"]["to"].to_string());
    restored(&node, &["--from", &place, "--until", &until]);
    stage.pair.a.verb(&["resync", "plan", "next", "--link", "1G"]);
    stage.links(node, load);
}

#[test]
fn what_neither_the_link_nor_a_round_brings_is_told_with_its_entries() {
    let mut stage = Stage::with(&["spool_limit = \"1M\""]);
    let (linked, _node) = stage.linked();
    let has = linked["has"].as_u64();
    // The spool is full, and the journal goes on to its quota without it.
    for round in 0.. {
        assert!(round < 60, "the journal lets go of nothing");
        stage.told.extend(load(&stage.pair.a, 30 + 10 * round, 100).run_to_the_end());
        if stage.pair.a.json(&["status"])["journal"]["oldest_seq"].as_u64() > has.map(|has| has + 1) {
            break;
        }
    }
    let (_, said) = tried(&stage.pair.a, &["run"]);
    let words = [
        "what the link reads begins with entry ",
        "are not on the spool either",
        "begin a new plan with --again",
    ];
    assert!(words.iter().all(|word| said.contains(word)), "{said}");
    assert_eq!(step(&stage.plan(&["status"])), "link", "{said}");
}

fn begins(node: &Node, args: &[&str]) -> std::process::Child {
    let mut command = Command::new(program());
    command.args(args).arg("--dir").arg(&node.dir).env_remove("HOT_BACKUP_DIR");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

/// Kills the plan's steps earlier and later, until it got so far.
fn kill_often(stage: &Stage, until: &str) {
    let mut ms = 4;
    loop {
        let now = stage.plan(&["status"]);
        if step(&now) == until {
            return;
        }
        let verb = if step(&now) == "carry-save" { "next" } else { "run" };
        let mut child = begins(&stage.pair.a, &["resync", "plan", verb]);
        std::thread::sleep(std::time::Duration::from_millis(ms));
        ms += ms / 2;
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Kills a restore at some moments; until one is whole the node does not start.
fn killed_restores(node: &Node, args: &[&str]) {
    for n in 0..8 {
        let mut child = begins(node, args);
        wait_until("it to begin or end", || {
            (is_begun(&node.dir) || child.try_wait().unwrap().is_some()).then_some(())
        });
        std::thread::sleep(std::time::Duration::from_millis(n * 2));
        let _ = child.kill();
        let _ = child.wait();
        if is_begun(&node.dir) {
            let output = node.verb(&["serve"]);
            assert_eq!(output.status.code(), Some(2), "it is not finished");
        }
    }
}

fn is_begun(dir: &Path) -> bool {
    dir.join("restoring").exists()
}

#[test]
fn a_plan_that_does_not_end_says_why_and_one_that_was_never_made_is_not_gone_on_with() {
    let temp = tempfile::tempdir().unwrap();
    let mut node = Node::alone(temp.path().join("A"), &Plan::quick());
    node.start_alone();
    node.make_orders();
    let none = node.verb(&["resync", "plan", "run"]);
    assert_eq!(none.status.code(), Some(1));
    let to = format!("file:{}", temp.path().display());
    let spool = format!("{to}/spool");
    let plan = |more: &[&str]| {
        let output =
            node.verb(&[&["resync", "plan", "--to", &to, "--spool", &spool, "--dry-run"], more].concat());
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, text) = plan(&["--updates", "10M", "--drive", "10M", "--carry", "1h"]);
    assert!(code == Some(1) && text.contains("no round is smaller than the one before"), "{text}");
    let (code, text) = plan(&["--updates", "10M", "--drive", "100M", "--carry", "1h", "--link", "8M"]);
    assert!(code == Some(1) && text.contains("never fits it"), "{text}");
    let (code, text) = plan(&["--updates", "1M", "--drive", "100M", "--carry", "1h", "--link", "8M"]);
    assert!(code == Some(0) && text.contains("over the link, in ") && text.contains("\nin all "), "{text}");
    assert!(!node.dir.join("resync-plan.json").exists(), "nothing was made");
    node.kill();
}

//! An outage that is larger than journal and disk goes to reels, and comes back from there: reels, directory, journal, in order,
//! each entry once. Writers are killed, reels are missing, foreign, another one of the set, damaged.

use crate::support::{Load, Node, Pair, Plan, Shape, Told, audit, program, wait_until};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn plan() -> Plan {
    Plan::quick().segments("64K").config("checkpoint_ms = 100").config("journal_quota_bytes = \"512K\"")
}

/// A shelf of reels, and a pair that spools to them.
struct Stage {
    pair: Pair,
    temp: tempfile::TempDir,
}

impl Stage {
    /// With these lines in the primary's config; `DIR` stands for the shelf.
    fn new(lines: &[&str]) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let mut pair = Pair::set_up(&plan());
        let dir = temp.path().to_str().unwrap();
        let lines: Vec<String> = lines.iter().map(|line| line.replace("DIR", dir)).collect();
        pair.a.configure(&lines.iter().map(String::as_str).collect::<Vec<_>>());
        pair.serve();
        Self { pair, temp }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    fn reels(&self) -> usize {
        (1..).take_while(|at| self.path(&format!("reel-{at:03}.tap")).exists()).count()
    }

    /// The standby comes back and gets all of it, without a copy.
    fn comes_back(&mut self, told: &[Told]) {
        assert!(told.iter().all(|told| told.refusals().next().is_none()), "an update was refused");
        self.pair.b.start();
        self.levels(told);
    }

    fn levels(&self, told: &[Told]) {
        let pair = &self.pair;
        pair.converges();
        audit(&pair.b.door, told).is_complete();
        let output = pair.b.verb(&["compare", "--rate", "unlimited", "--json"]);
        let end: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert!(output.status.code() == Some(0) && end["differing"] == 0, "{end}");
        pair.a.status("to let its spool go", |status| parts(status) == 0);
        for node in [&pair.a, &pair.b] {
            let kinds: Vec<String> = node.incidents().into_iter().map(|(kind, _)| kind).collect();
            let copied =
                ["peer-dropped", "needs-full-sync", "copying", "whole", "spool-damaged", "spool-stray"];
            assert!(!kinds.iter().any(|kind| copied.contains(&kind.as_str())), "{kinds:?}");
        }
    }
}

fn parts(status: &Value) -> u64 {
    status["spool"]["parts"].as_u64().unwrap()
}

fn on_reels(status: &Value) -> u64 {
    status["spool"]["reel_parts"].as_u64().unwrap()
}

fn load(node: &Node, first: usize) -> Load {
    Load::start(&node.door, Shape { first, value: 1000, ..Shape::default() })
}

fn command(args: &[&str]) {
    let output = Command::new(program()).args(args).env_remove("HOT_BACKUP_DIR").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn list(node: &Node) -> Vec<Value> {
    node.json(&["spool", "list"]).as_array().unwrap().clone()
}

#[test]
fn an_outage_goes_to_several_reels_and_comes_back_from_them_each_entry_once() {
    let mut stage = Stage::new(&["spool = \"tape:DIR/reel-%03d.tap\"", "tape_reel_size = \"1M\""]);
    stage.pair.b.kill();
    let load = load(&stage.pair.a, 10);
    stage.pair.a.status("to fill reels", |status| on_reels(status) >= 40);
    let told = load.finish();
    let status = stage.pair.a.status("to rest", |status| status["spool"]["state"] == "holding");
    assert!(stage.reels() >= 3, "{} reels", stage.reels());
    assert_eq!((parts(&status), status["spool"]["mode"].as_str()), (on_reels(&status), Some("auto")));
    stage
        .pair
        .a
        .status("to empty its journal", |status| status["journal"]["bytes"].as_u64() <= Some(512 << 10));
    let views = list(&stage.pair.a);
    let reels: Vec<u64> = views.iter().map(|view| view["reel"].as_u64().unwrap()).collect();
    assert!(reels.is_sorted() && reels[0] == 1 && reels.last() >= Some(&3), "{reels:?}");
    let joined =
        views.windows(2).all(|pair| pair[0]["to"].as_u64().unwrap() + 1 == pair[1]["from"].as_u64().unwrap());
    assert!(joined, "{views:?}");
    assert_eq!(stage.pair.a.verb(&["spool", "verify"]).status.code(), Some(0));
    let at = format!("tape:{}", stage.path("reel-%03d.tap").display());
    let from = views[0]["from"].to_string();
    let again = ["spool", "replay", "--at", &at, "--from", &from, "--again", "--dry-run"];
    // Definitions of files are left to people, which the exit code says.
    let dry = stage.pair.a.verb(&[&again[..], &["--json"]].concat());
    let dry: Value = serde_json::from_slice(&dry.stdout).unwrap();
    assert!(dry["put"].as_u64() > Some(1000), "{dry}");
    // What the reels hold is made known again by reading them.
    let catalogue = stage.path("reel-catalogue.json");
    fs::remove_file(&catalogue).unwrap();
    command(&["tape", "list", &at, "--scan"]);
    assert_eq!(list(&stage.pair.a), views);
    stage.comes_back(&told);
    assert!(list(&stage.pair.a).iter().all(|view| view["let_go"] == true));
}

#[test]
fn what_the_directory_has_no_room_for_goes_on_to_reels_and_the_ladder_is_climbed_down_in_order() {
    let mut stage = Stage::new(&[
        "spool = \"file:DIR\"",
        "spool_limit = \"600K\"",
        "spool_tape = \"tape:DIR/reel-%03d.tap\"",
        "tape_reel_size = \"1M\"",
    ]);
    stage.pair.b.kill();
    let load = load(&stage.pair.a, 10);
    let status = stage.pair.a.status("to fill reels behind its directory", |status| on_reels(status) >= 20);
    let told = load.finish();
    assert!(parts(&status) > on_reels(&status), "{status}");
    let text = stage.pair.a.done(&["status"]);
    assert!(text.contains(", then tape:") && text.contains("on reels"), "{text}");
    let views = list(&stage.pair.a);
    let disk = views.iter().position(|view| view["reel"] == 0).unwrap();
    assert!(
        disk > 0 && views[disk..].iter().all(|view| view["reel"] == 0),
        "the oldest are on reels: {views:?}"
    );
    stage.comes_back(&told);
    let kinds: Vec<String> = stage.pair.a.incidents().into_iter().map(|(kind, _)| kind).collect();
    assert!(!kinds.iter().any(|kind| kind == "spool-full" || kind == "tape-failed"), "{kinds:?}");
}

#[test]
fn a_primary_that_is_killed_while_it_writes_to_reels_goes_on_behind_what_counts_and_loses_nothing() {
    for ladder in [
        "spool = \"tape:DIR/reel-%03d.tap\"",
        "spool = \"file:DIR\"\nspool_limit = \"400K\"\nspool_tape = \"tape:DIR/reel-%03d.tap\"",
    ] {
        let mut stage = Stage::new(&[ladder, "tape_reel_size = \"2M\""]);
        stage.pair.b.kill();
        let mut all = Vec::new();
        for (round, more) in [0, 2, 4, 6, 8].into_iter().enumerate() {
            let before = on_reels(&stage.pair.a.serves());
            let load = load(&stage.pair.a, 10 + 10 * round);
            stage.pair.a.status("to write more", |status| on_reels(status) > before + more);
            stage.pair.a.kill();
            all.extend(load.finish());
            stage.pair.a.start_alone();
        }
        assert_eq!(stage.pair.a.verb(&["spool", "verify"]).status.code(), Some(0));
        stage.pair.b.start();
        stage.levels(&all);
    }
}

/// Image of a reel that another program wrote.
fn foreign(path: &Path) {
    fs::write(path, [&10_u32.to_le_bytes()[..], b"VOL1ABCDEF", &10_u32.to_le_bytes()].concat()).unwrap();
}

/// A drive for one cartridge at a time, and the shelf behind it.
struct Shelf {
    drive: PathBuf,
    new: PathBuf,
    shelf: Vec<PathBuf>,
}

impl Shelf {
    fn wanted(stage: &Stage) -> String {
        stage.pair.a.json(&["status"])["spool"]["reel_wanted"].as_str().unwrap().to_owned()
    }

    /// The number behind these words of what is wanted.
    fn number(wanted: &str, words: &str) -> Option<usize> {
        let behind = wanted.split(words).nth(1)?;
        behind.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    }

    fn label_new(&self) {
        command(&["tape", "label", &format!("tape:{}", self.new.display())]);
        fs::rename(&self.new, &self.drive).unwrap();
    }

    /// Puts what is in the drive on the shelf, if it was written to.
    fn take_out(&mut self, stage: &Stage) {
        if self.drive.exists() {
            let place = stage.path(&format!("shelf-{}.tap", self.shelf.len() + 1));
            fs::rename(&self.drive, &place).unwrap();
            self.shelf.push(place);
        }
    }

    /// Brings whatever is wanted, new or from the shelf, until this holds.
    fn serve(&mut self, stage: &Stage, what: &str, mut done: impl FnMut(&Value) -> bool) {
        wait_until(what, || {
            let status = stage.pair.a.json(&["status"]);
            let wanted = status["spool"]["reel_wanted"].as_str().unwrap().to_owned();
            if let Some(next) = Self::number(&wanted, "as reel ")
                && next == self.shelf.len() + 1 + usize::from(self.drive.exists())
            {
                self.take_out(stage);
                self.label_new();
            } else if let Some(old) = Self::number(&wanted, "reel ").filter(|_| wanted.contains(" of set ")) {
                let there = self.shelf.get(old - 1).cloned();
                if let Some(there) = there.filter(|there| there.exists()) {
                    // A cartridge is in the drive as a whole, or not at all.
                    let whole = stage.path("whole.tap");
                    fs::copy(&there, &whole).unwrap();
                    fs::rename(&whole, &self.drive).unwrap();
                }
            }
            done(&status).then_some(())
        });
    }
}

#[test]
fn a_reel_that_is_missing_foreign_or_another_one_is_named_and_refused_and_users_never_stop() {
    let mut stage =
        Stage::new(&["spool = \"tape:DIR/drive.tap\"", "tape_reel_size = \"2M\"", "spool_full = \"alarm\""]);
    let mut shelf = Shelf { drive: stage.path("drive.tap"), new: stage.path("new.tap"), shelf: Vec::new() };
    stage.pair.b.kill();
    // More than fits on two reels, and not much more, however few of them share a block.
    let shape = Shape { first: 10, value: 16_000, most: 90, ..Shape::default() };
    let load = Load::start(&stage.pair.a.door, shape);
    let wants = |stage: &Stage, words: &str| {
        wait_until(words, || Shelf::wanted(stage).contains(words).then_some(()));
    };
    wants(&stage, "as reel 1");
    let text = stage.pair.a.incident("reel-wanted");
    assert!(text.contains("it is not there") && text.contains("there is room for"), "{text}");
    foreign(&shelf.drive);
    wants(&stage, "none of ours");
    assert_eq!(fs::read(&shelf.drive).unwrap().len(), 18, "nothing was written to it");
    let request = fs::read(stage.path("drive.tap-request.json")).unwrap();
    let request: Value = serde_json::from_slice(&request).unwrap();
    assert!(request["wanted"].as_str().unwrap().contains("as reel 1"), "{request}");
    shelf.label_new();
    // The full reel still lies there, and is not written to again.
    wants(&stage, "it is reel 1 of that set");
    shelf.serve(&stage, "to fill reels", |status| on_reels(status) > 24);
    let told = load.run_to_the_end();
    assert!(told.iter().all(|told| told.refusals().next().is_none()), "users at level local never stop");
    shelf.serve(&stage, "to rest", |status| {
        status["spool"]["state"] == "holding" && status["journal"]["bytes"].as_u64() <= Some(512 << 10)
    });
    // On the way back the reels are wanted from the first one on; the last one is still in the drive.
    shelf.take_out(&stage);
    let last = shelf.shelf.len();
    assert!(last > 2, "{last} reels");
    fs::copy(&shelf.shelf[last - 1], &shelf.drive).unwrap();
    stage.pair.b.start();
    wants(&stage, &format!("it is reel {last} of that set, and reel 1 is wanted"));
    shelf.serve(&stage, "to be level", |status| parts(status) == 0);
    stage.levels(&told);
    stage.pair.a.incident("reel-there");
}

#[test]
fn a_damaged_reel_is_named_with_its_entries_and_block_and_nothing_of_it_is_sent() {
    let mut stage = Stage::new(&["spool = \"tape:DIR/reel-%03d.tap\"", "tape_reel_size = \"1M\""]);
    stage.pair.b.kill();
    let load = load(&stage.pair.a, 10);
    stage.pair.a.status("to fill reels", |status| on_reels(status) >= 30);
    let told = load.finish();
    stage.pair.a.status("to rest", |status| status["spool"]["state"] == "holding");
    let reel = stage.path("reel-002.tap");
    let mut bytes = fs::read(&reel).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&reel, bytes).unwrap();
    let output = stage.pair.a.verb(&["spool", "verify", "--json"]);
    let views: Value = serde_json::from_slice(&output.stdout).unwrap();
    let bad: Vec<&Value> = views.as_array().unwrap().iter().filter(|view| view["damage"] != "").collect();
    assert!(output.status.code() == Some(1) && !bad.is_empty(), "{views}");
    let damage = bad[0]["damage"].as_str().unwrap();
    assert!(damage.contains("reel 2, position") && damage.contains("entries"), "{damage}");
    stage.pair.b.start();
    let text = stage.pair.a.incident("spool-damaged");
    assert!(text.contains("reel 2, position") && text.contains("entries"), "{text}");
    stage.pair.b.incident("whole");
    stage.pair.converges();
    audit(&stage.pair.b.door, &told).is_complete();
}

#[test]
fn an_image_that_is_still_on_its_way_into_its_place_is_no_damaged_reel() {
    let mut stage = Stage::new(&["spool = \"tape:DIR/reel-%03d.tap\"", "tape_reel_size = \"1M\""]);
    stage.pair.b.kill();
    let load = load(&stage.pair.a, 10);
    stage.pair.a.status("to fill a reel", |status| on_reels(status) >= 10);
    let told = load.finish();
    stage.pair.a.status("to rest", |status| status["spool"]["state"] == "holding");
    // Half of it was copied when it is read.
    let (reel, whole) = (stage.path("reel-001.tap"), stage.path("whole.tap"));
    fs::rename(&reel, &whole).unwrap();
    let bytes = fs::read(&whole).unwrap();
    fs::write(&reel, &bytes[..bytes.len() / 2]).unwrap();
    stage.pair.b.start();
    stage.pair.a.status("to try it again", |status| {
        status["spool"]["reel_wanted"].as_str().is_some_and(|wanted| wanted.contains("is tried again"))
    });
    fs::rename(&whole, &reel).unwrap();
    stage.levels(&told);
}

#[test]
fn reels_with_a_key_tell_nothing_without_it_and_come_back_with_it() {
    use std::os::unix::fs::PermissionsExt;
    let key = tempfile::NamedTempFile::new().unwrap();
    fs::write(key.path(), "5a".repeat(32)).unwrap();
    fs::set_permissions(key.path(), fs::Permissions::from_mode(0o600)).unwrap();
    let line = format!("tape_key_file = \"{}\"", key.path().display());
    let mut stage = Stage::new(&["spool = \"tape:DIR/reel-%03d.tap\"", "tape_reel_size = \"1M\"", &line]);
    stage.pair.b.kill();
    let load = load(&stage.pair.a, 10);
    stage.pair.a.status("to fill reels", |status| on_reels(status) >= 10);
    let told = load.finish();
    let bytes = fs::read(stage.path("reel-001.tap")).unwrap();
    for plain in [&b"orders"[..], b"HBp1"] {
        assert!(!bytes.windows(plain.len()).any(|window| window == plain));
    }
    stage.comes_back(&told);
}

#[test]
fn a_standby_that_takes_over_while_its_primary_has_a_spool_leaves_it_and_the_return_is_in_order() {
    let mut stage = Stage::new(&["spool = \"tape:DIR/reel-%03d.tap\"", "tape_reel_size = \"1M\""]);
    stage.pair.b.kill();
    let lost = load(&stage.pair.a, 10);
    stage.pair.a.status("to fill reels", |status| on_reels(status) >= 10);
    lost.finish();
    stage.pair.a.kill();
    stage.pair.b.start();
    stage.pair.b.done(&["takeover", "--peer-is-down", "--accept-loss"]);
    stage.pair.b.serves();
    // So little that the new primary's journal has it all, even if each takes a block.
    let told =
        Load::start(&stage.pair.b.door, Shape { first: 30, value: 1000, most: 10, ..Shape::default() });
    let told = told.run_to_the_end();
    stage.pair.a.start();
    // What the pair never kept is saved from reels and journal, then the old primary follows.
    stage.pair.a.incident("rewound");
    stage.pair.converges();
    audit(&stage.pair.a.door, &told).is_complete();
    let sets = stage.pair.a.json(&["diverged", "list"]);
    assert!(!sets.as_array().unwrap().is_empty(), "{sets}");
}

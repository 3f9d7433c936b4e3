//! Saves on reels, by whole processes and images of reels in files: written over several, read back whole and in part, with reels
//! that are lost, swapped, foreign, damaged, and writers that are killed. An image is also read as any program reads one.

use crate::support::{Node, Pair, Plan, items, loopback_addresses, noise, program, wait_until};
use redis::Commands;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// What a pair holds, and a directory for reels.
struct Stage {
    pair: Pair,
    temp: tempfile::TempDir,
}

impl Stage {
    /// Three files of which the middle one is small: 9 MiB, some items, 9 MiB.
    fn new() -> Self {
        let pair = Pair::start(&Plan::quick());
        for file in ["app,first", "app,last"] {
            pair.a.done(&["file", "create", file, "--records", "--flags", "L"]);
        }
        let mut client = pair.a.redis();
        for at in 0..36 {
            for (file, seed) in [("first", 1), ("last", 1000)] {
                let () = client.set(format!("app,{file},{at:03}"), noise(256 << 10, seed + at)).unwrap();
            }
            let () = client.set(format!("app,orders,{at}"), format!("order {at}")).unwrap();
        }
        pair.converges();
        Self { pair, temp: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    fn reel(&self, number: u32) -> PathBuf {
        self.path(&format!("reel-{number:03}.tap"))
    }

    /// The place of all reels.
    fn tape(&self) -> String {
        format!("tape:{}", self.path("reel-%03d.tap").display())
    }

    /// A save that takes several reels.
    fn save(&self, more: &[&str]) -> Value {
        self.pair.a.json(&[&["save", "--to", &self.tape(), "--reel-size", "8M"], more].concat())
    }

    fn list(&self) -> Value {
        serde_json::from_slice(&command(&["tape", "list", &self.tape(), "--json"]).stdout).unwrap()
    }

    /// A node of the same pair that is empty.
    fn empty(&self, name: &str) -> Node {
        let config = fs::read_to_string(self.pair.a.dir.join("config.toml")).unwrap();
        let of = |key: &str| {
            let line = config.lines().find(|line| line.starts_with(&format!("{key} = "))).unwrap();
            line.split('"').nth(1).unwrap().to_owned()
        };
        let pair: &'static str = of("pair_id").leak();
        let [resp] = loopback_addresses();
        let places = (of("peer").parse().unwrap(), of("link_listen").parse().unwrap(), Some(resp));
        let plan = Plan::quick().init(&["--pair-id", pair]);
        Node::init(self.path(name), ("c", "standby"), places, &plan)
    }
}

/// One run of the command line that concerns no node.
fn command(args: &[&str]) -> Output {
    Command::new(program()).args(args).env_remove("HOT_BACKUP_DIR").stdin(Stdio::null()).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// One that says no, or fails, with these words.
#[track_caller]
fn refused(output: &Output, code: i32, words: &[&str]) {
    let said = said(output);
    assert_eq!(output.status.code(), Some(code), "{said}");
    for word in words {
        assert!(said.contains(word), "{word} is missing in: {said}");
    }
}

#[track_caller]
fn done(output: &Output) -> String {
    assert!(output.status.success(), "{}", said(output));
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
fn a_save_over_several_reels_comes_back_whole_and_in_part_and_its_catalogue_can_be_made_anew() {
    let mut stage = Stage::new();
    let saved = stage.save(&[]);
    let list = stage.list();
    let reels = list["sets"][0]["reels"].as_array().unwrap().len();
    assert!(reels >= 3 && !stage.reel(u32::try_from(reels).unwrap() + 1).exists(), "{reels} reels");
    let tape = stage.tape();
    let verified: Value =
        serde_json::from_slice(&command(&["verify", &tape, "--no-wait", "--json"]).stdout).unwrap();
    assert_eq!((&verified["whole"], &verified["digest"]), (&true.into(), &saved["digest"]), "{verified}");
    assert!(done(&command(&["tape", "verify", &tape, "--no-wait"])).starts_with("whole: "));
    assert!(done(&command(&["save", "show", &tape])).contains("app,orders"));
    // The catalogue is made of what is on the reels.
    fs::remove_file(stage.path("reel-catalogue.json")).unwrap();
    done(&command(&["tape", "list", &tape, "--scan", "--no-wait"]));
    assert_eq!(stage.list(), list, "scanned, and written");
    // One small file needs the reels on which it is, and what all files need.
    let before = items(&stage.pair.a.door, "app,");
    let mut client = stage.pair.a.redis();
    let () = client.set("app,orders,7", "changed").unwrap();
    let () = client.set("app,first,000", "changed too").unwrap();
    fs::rename(stage.reel(1), stage.path("kept-1")).unwrap();
    refused(
        &stage.pair.a.verb(&["restore", "--from", &tape, "--only", "app,first", "--no-wait"]),
        2,
        &["reel 1 of set", "app,first"],
    );
    fs::rename(stage.path("kept-1"), stage.reel(1)).unwrap();
    stage.pair.a.done(&["restore", "--from", &tape, "--only", "app,orders", "--no-wait"]);
    let value: String = client.get("app,orders,7").unwrap();
    let other: String = client.get("app,first,000").unwrap();
    assert_eq!((value.as_str(), other.as_str()), ("order 7", "changed too"));
    // A whole node.
    let mut node = stage.empty("C");
    let restored = node.json(&["restore", "--from", &tape, "--no-wait"]);
    assert_eq!((&restored["seq"], &restored["items"]), (&saved["seq"], &saved["items"]));
    stage.pair.b.kill();
    node.start();
    node.status("to stand by", |status| status["state"] == "standby");
    assert!(items(&node.door, "app,") == before, "it holds what was saved");
}

#[test]
fn a_file_is_restored_from_the_reels_that_hold_it_and_the_others_are_not_asked_for() {
    let stage = Stage::new();
    stage.save(&[]);
    let tape = stage.tape();
    // In the middle of the large files stand reels that hold nothing else.
    let list = stage.list();
    let ranges = list["sets"][0]["saves"][0]["content"]["ranges"].as_array().unwrap();
    assert!(ranges.len() >= 4, "{ranges:?}");
    let mut client = stage.pair.a.redis();
    let () = client.set("app,last,035", "changed").unwrap();
    let (first, last) = (fs::read(stage.reel(1)).unwrap(), fs::metadata(stage.reel(2)).unwrap().len());
    assert!(first.len() > 4 << 20 && last > 4 << 20);
    // What stands behind the first blocks of reel 1 is content of the first file alone, up to its end.
    let mut damaged = first.clone();
    damaged[6 << 20] ^= 1;
    fs::write(stage.reel(1), &damaged).unwrap();
    stage.pair.a.done(&["restore", "--from", &tape, "--only", "app,last", "--no-wait"]);
    let value: Vec<u8> = client.get("app,last,035").unwrap();
    assert!(value == noise(256 << 10, 1035));
    refused(
        &stage.pair.a.verb(&["restore", "--from", &tape, "--only", "app,first", "--no-wait"]),
        2,
        &["reel 1, position", "of the set", "app,first"],
    );
}

#[test]
fn reels_that_are_swapped_lost_or_damaged_are_named_with_what_they_held() {
    let stage = Stage::new();
    stage.save(&[]);
    let (tape, node) = (stage.tape(), stage.empty("C"));
    let restore = || node.verb(&["restore", "--from", &tape, "--no-wait"]);
    let swap = || {
        fs::rename(stage.reel(2), stage.path("x")).unwrap();
        fs::rename(stage.reel(3), stage.reel(2)).unwrap();
        fs::rename(stage.path("x"), stage.reel(3)).unwrap();
    };
    swap();
    refused(&restore(), 2, &["it is reel 3 of that set, and reel 2 is wanted"]);
    swap();
    fs::rename(stage.reel(2), stage.path("x")).unwrap();
    refused(&restore(), 2, &["reel 2 of set", "it is not there", "it held", "app,"]);
    let lost = command(&["tape", "verify", &tape, "--no-wait", "--json"]);
    assert_eq!(lost.status.code(), Some(1));
    let lost: Value = serde_json::from_slice(&lost.stdout).unwrap();
    assert_eq!((&lost["lost"][0]["reel"], &lost["whole"]), (&2.into(), &false.into()), "{lost}");
    assert!(
        lost["lost"][0]["blocks"].as_u64() > Some(20)
            && lost["lost"][0]["held"].as_str().unwrap().contains("app,")
    );
    let output = command(&["verify", &tape, "--no-wait"]);
    refused(&output, 1, &["is damaged", "it held"]);
    // A foreign reel in its place, and one of another set.
    fs::write(stage.reel(2), [&10_u32.to_le_bytes()[..], b"VOL1ABCDEF", &10_u32.to_le_bytes()].concat())
        .unwrap();
    refused(&restore(), 2, &["none of ours", "VOL1"]);
    let other = format!("tape:{}", stage.path("other-%d.tap").display());
    stage.pair.a.done(&["save", "--to", &other, "--reel-size", "8M"]);
    fs::rename(stage.path("other-2.tap"), stage.reel(2)).unwrap();
    refused(&restore(), 2, &["which is another one"]);
    fs::rename(stage.path("x"), stage.reel(2)).unwrap();
    // It was refused in the middle, so it does not serve, and is begun again.
    let again = restore();
    assert!(again.status.success(), "{}", said(&again));
}

#[test]
fn what_is_on_a_reel_is_never_overwritten_without_the_word_for_it() {
    let stage = Stage::new();
    let tape = stage.tape();
    let foreign = [&10_u32.to_le_bytes()[..], b"VOL1ABCDEF", &10_u32.to_le_bytes()].concat();
    let save = |more: &[&str]| {
        stage.pair.a.verb(&[&["save", "--to", &tape, "--no-wait", "--reel-size", "64M"], more].concat())
    };
    fs::write(stage.reel(1), &foreign).unwrap();
    refused(&save(&[]), 2, &["none of ours", "--relabel"]);
    assert_eq!(fs::read(stage.reel(1)).unwrap(), foreign);
    fs::write(stage.reel(1), b"").unwrap();
    refused(&save(&[]), 2, &["nothing is written on it"]);
    assert!(fs::read(stage.reel(1)).unwrap().is_empty());
    done(&command(&["tape", "label", &tape, "--name", "left shelf"]));
    assert!(done(&command(&["tape", "status", &tape])).contains("left shelf, prepared"));
    done(&save(&[]));
    let kept = fs::read(stage.reel(1)).unwrap();
    for more in [&[][..], &["--label-blank"]] {
        refused(&save(more), 2, &["which is another one"]);
    }
    refused(&command(&["tape", "label", &tape]), 2, &["which is another one"]);
    assert!(fs::read(stage.reel(1)).unwrap() == kept);
    // Write-protected, with every word that there is.
    let mut mode = fs::metadata(stage.reel(1)).unwrap().permissions();
    mode.set_readonly(true);
    fs::set_permissions(stage.reel(1), mode).unwrap();
    refused(&save(&["--relabel"]), 2, &["write-protected"]);
    refused(&save(&["--append"]), 2, &["write-protected"]);
    assert!(fs::read(stage.reel(1)).unwrap() == kept);
    fs::remove_file(stage.reel(1)).unwrap();
    fs::write(stage.reel(1), &foreign).unwrap();
    done(&save(&["--relabel"]));
    done(&command(&["verify", &tape, "--no-wait"]));
}

/// A save in the background.
fn begin(node: &Node, args: &[&str]) -> Child {
    let mut command = Command::new(program());
    command.args(args).arg("--dir").arg(&node.dir).env_remove("HOT_BACKUP_DIR");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

#[test]
fn a_writer_that_is_killed_takes_nothing_from_the_saves_before_it_and_the_next_one_follows() {
    let stage = Stage::new();
    let tape = stage.tape();
    let first = stage.save(&[]);
    let reels = || (1..).take_while(|at| stage.reel(*at).exists()).last().unwrap_or(0);
    let size = || (1..=reels()).map(|at| fs::metadata(stage.reel(at)).unwrap().len()).sum::<u64>();
    for round in 0..3 {
        let before = size();
        let args = ["save", "--to", &tape, "--append", "--reel-size", "8M", "--rate", "8M", "--no-wait"];
        let mut child = begin(&stage.pair.a, &args);
        wait_until("the save to write", || (size() > before + (round << 21) + 1000).then_some(()));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let second = stage.save(&["--append"]);
    let list = stage.list();
    let saves = list["sets"][0]["saves"].as_array().unwrap();
    let complete: Vec<&Value> = saves.iter().filter(|save| !save["bytes"].is_null()).collect();
    assert_eq!(complete.len(), 2, "{saves:?}");
    for (save, told) in complete.iter().zip([&first, &second]) {
        assert_eq!(save["id"], told["set"]);
        let from = format!("{tape}#{}", save["id"].as_str().unwrap());
        let output = command(&["verify", &from, "--no-wait", "--json"]);
        let verified: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)));
        assert_eq!((&verified["whole"], &verified["digest"]), (&true.into(), &told["digest"]), "{verified}");
    }
    // All reels read from end to end: what was interrupted has no end, and nothing is lost.
    let scanned = command(&["tape", "verify", &tape, "--no-wait", "--json"]);
    let scanned: Value = serde_json::from_slice(&scanned.stdout).unwrap();
    assert_eq!(scanned["lost"].as_array().map(Vec::len), Some(0), "{scanned}");
    let saves = stage.list()["sets"][0]["saves"].as_array().unwrap().len();
    assert!((2..=5).contains(&saves), "{saves} saves");
    // A reel that was set back to an older copy of it is not appended to.
    let last = reels();
    let whole = fs::read(stage.reel(last)).unwrap();
    fs::write(stage.reel(last), &whole[..whole.len() / 2]).unwrap();
    let args = ["save", "--to", &tape, "--append", "--no-wait"];
    refused(&stage.pair.a.verb(&args), 2, &["which the catalogue says is there"]);
}

#[test]
fn a_reel_that_is_wanted_is_asked_for_until_somebody_brings_it_or_says_that_nobody_will() {
    let stage = Stage::new();
    let drive = stage.path("drive.tap");
    let tape = format!("tape:{}", drive.display());
    done(&command(&["tape", "label", &tape]));
    let args = ["save", "--to", &tape, "--reel-size", "8M"];
    let mut child = begin(&stage.pair.a, &args);
    let request = || -> Option<Value> {
        let status = command(&["tape", "status", &tape, "--json"]);
        let views: Value = serde_json::from_slice(&status.stdout).ok()?;
        let request = &views[0]["request"];
        (!request.is_null()).then(|| request.clone())
    };
    let mut reels = Vec::new();
    let mut wanted = String::new();
    while child.try_wait().unwrap().is_none() {
        let asked = fs::read(stage.path("drive.tap-request.json")).ok();
        let asked = asked.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
        let Some(asked) = asked else {
            std::thread::sleep(std::time::Duration::from_millis(20));
            continue;
        };
        let now = asked["wanted"].as_str().unwrap().to_owned();
        if now == wanted {
            std::thread::sleep(std::time::Duration::from_millis(20));
            continue;
        }
        // The full reel still lies there, and is not taken.
        assert!(asked["refused"].as_str().unwrap().contains("of that set"), "{asked}");
        if reels.is_empty() {
            assert_eq!(request().unwrap()["wanted"], asked["wanted"]);
        }
        wanted = now;
        let kept = stage.path(&format!("shelf-{:03}.tap", reels.len() + 1));
        fs::rename(&drive, &kept).unwrap();
        reels.push(kept);
        done(&command(&["tape", "label", &format!("tape:{}", stage.path("new.tap").display())]));
        fs::rename(stage.path("new.tap"), &drive).unwrap();
        command(&["tape", "mounted", &tape]);
    }
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(said(&output).contains("request 1: bring a reel to write to, as reel 2"), "{}", said(&output));
    assert!(reels.len() >= 2 && !stage.path("drive.tap-request.json").exists());
    // The same reels as a row of images.
    fs::rename(&drive, stage.path(&format!("shelf-{:03}.tap", reels.len() + 1))).unwrap();
    let row = format!("tape:{}", stage.path("shelf-%03d.tap").display());
    done(&command(&["verify", &row, "--no-wait"]));
    // Nobody waits now; and who waits can be told that nobody comes.
    refused(&command(&["tape", "mounted", &tape]), 1, &["nobody waits"]);
    let child = begin(&stage.pair.a, &["restore", "--from", &tape, "--only", "app,orders"]);
    wait_until("the request", || stage.path("drive.tap-request.json").exists().then_some(()));
    wait_until("the answer", || {
        command(&["tape", "mounted", &tape, "--give-up"]).status.success().then_some(())
    });
    refused(&child.wait_with_output().unwrap(), 2, &["the operator ended it"]);
}

/// A changer of cartridges that are files, with the contract of `mtx-changer`.
const CHANGER: &str = r#"#!/bin/sh
set -e
dir=$(dirname "$3"); at="$dir/loaded"
case $1 in
list) for slot in "$dir"/slot-*; do name=${slot##*-}; echo "$name:$(cat "$slot")"; done ;;
slots) ls "$dir"/slot-* | wc -l ;;
loaded) cat "$at" 2>/dev/null || echo 0 ;;
load) test ! -e "$at"; mv "$dir/cartridge-$2" "$3"; echo "$2" > "$at" ;;
unload) test "$(cat "$at")" = "$2"; mv "$3" "$dir/cartridge-$2"; rm "$at" ;;
*) exit 1 ;;
esac
"#;

#[test]
fn a_changer_brings_reel_after_reel_and_leaves_alone_what_is_not_for_writing() {
    let stage = Stage::new();
    let script = stage.path("changer");
    fs::write(&script, CHANGER).unwrap();
    let drive = stage.path("drive.tap");
    let tape = format!("tape:{}", drive.display());
    let foreign = [&10_u32.to_le_bytes()[..], b"VOL1ABCDEF", &10_u32.to_le_bytes()].concat();
    for slot in 1..=6 {
        fs::write(stage.path(&format!("slot-{slot}")), if slot == 2 { "CLN001L1" } else { "A0001" }).unwrap();
        let path = stage.path(&format!("cartridge-{slot}"));
        match slot {
            2 => {}
            3 => fs::write(&path, &foreign).unwrap(),
            _ => drop(done(&command(&["tape", "label", path.to_str().unwrap()]))),
        }
    }
    let changer = format!("/bin/sh {} %o %S %a %d", script.display());
    let flags = ["--changer", &changer, "--no-wait"];
    let save = [&["save", "--to", &tape, "--reel-size", "8M"], &flags[..]].concat();
    stage.pair.a.done(&save);
    assert!(fs::read(stage.path("cartridge-3")).unwrap() == foreign);
    let listed = command(&["tape", "list", &tape, "--json"]);
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(listed["sets"][0]["reels"].as_array().map(Vec::len), Some(3), "{listed}");
    done(&command(&[&["verify", &tape], &flags[..]].concat()));
    // With a fourth reel wanted none is left.
    refused(&stage.pair.a.verb(&save), 2, &["a reel to write to, as reel 2"]);
}

/// The records of an image, as any program reads them: a block, or none for a filemark.
fn records(path: &Path) -> Vec<Option<Vec<u8>>> {
    let bytes = fs::read(path).unwrap();
    let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
    let (mut at, mut found) = (0, Vec::new());
    while at < bytes.len() {
        let len = number(at);
        if len == 0 {
            found.push(None);
            at += 4;
            continue;
        }
        let behind = at + 4 + len.next_multiple_of(2);
        assert_eq!(number(behind), len, "a record ends with its length");
        found.push(Some(bytes[at + 4..at + 4 + len].to_vec()));
        at = behind + 4;
    }
    found
}

#[test]
fn an_image_is_what_other_programs_expect_and_theirs_are_moved_over_like_ours() {
    let stage = Stage::new();
    let tape = stage.tape();
    let saved = stage.save(&[]);
    let found = records(&stage.reel(1));
    // As with `dd bs=32k count=1`, then `mt fsf 1`, then `dd bs=256k`: a label of its own file, then blocks of one size.
    assert_eq!(found[0].as_ref().map(Vec::len), Some(32 << 10));
    assert!(found[1].is_none() && found[2].as_ref().is_some_and(|block| block.len() == 256 << 10));
    assert!(found.last().unwrap().is_none(), "it ends with a filemark");
    // The payloads of all reels in a row are the save, as a file would have it.
    let mut stream = Vec::new();
    for reel in (1..).map(|at| stage.reel(at)).take_while(|path| path.exists()) {
        let blocks = records(&reel).into_iter().flatten().filter(|block| block[10] == 2);
        blocks.for_each(|block| stream.extend_from_slice(&block[96..]));
    }
    fs::write(stage.path("plain.hbs"), &stream).unwrap();
    let plain = stage.path("plain.hbs");
    let output = command(&["verify", plain.to_str().unwrap(), "--json"]);
    let verified: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&verified["whole"], &verified["digest"]), (&true.into(), &saved["digest"]));
    // An image of a program that has nothing to do with us.
    let block = |bytes: &[u8]| {
        let len = u32::try_from(bytes.len()).unwrap().to_le_bytes();
        [&len[..], bytes, if bytes.len() % 2 == 1 { b"\0" } else { b"" }, &len].concat()
    };
    let theirs = stage.path("theirs.tap");
    fs::write(&theirs, [block(b"one"), vec![0; 4], block(b"two."), block(b"3"), vec![0; 8]].concat())
        .unwrap();
    let position = |words: &[&str]| done(&command(&[&["tape"], words, &[theirs.to_str().unwrap()]].concat()));
    let counted = |verb: &str, count: &str| done(&command(&["tape", verb, theirs.to_str().unwrap(), count]));
    assert_eq!(
        (position(&["rewind"]).as_str(), position(&["eod"]).as_str()),
        ("position 0\n", "position 6\n")
    );
    assert_eq!(
        (counted("fsf", "1").as_str(), counted("fsf", "2").as_str()),
        ("position 2\n", "position 5\n")
    );
    assert_eq!(counted("bsf", "2"), "position 4\n");
    refused(&command(&["tape", "fsf", theirs.to_str().unwrap(), "4"]), 2, &["it has 3 filemarks"]);
    // A copy is as good as what it was made of.
    let copies = format!("tape:{}", stage.path("copy-%d.tap").display());
    done(&command(&["tape", "copy", &tape, &copies]));
    refused(&command(&["tape", "copy", &tape, &copies]), 2, &["it is reel 1 of that set"]);
    assert_eq!(fs::read(stage.path("copy-2.tap")).unwrap(), fs::read(stage.reel(2)).unwrap());
    fs::copy(stage.path("copy-2.tap"), stage.reel(2)).unwrap();
    done(&command(&["verify", &tape, "--no-wait"]));
}

#[test]
fn an_encrypted_save_tells_nothing_without_its_key() {
    let stage = Stage::new();
    let tape = stage.tape();
    let key = |name: &str, text: &str| {
        let path = stage.path(name);
        fs::write(&path, text).unwrap();
        let mut mode = fs::metadata(&path).unwrap().permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut mode, 0o600);
        fs::set_permissions(&path, mode).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (good, other) =
        (key("good", &"0123456789abcdef".repeat(4)), key("other", &"f123456789abcdef".repeat(4)));
    let saved = stage.save(&["--encrypt", &good]);
    for reel in (1..).map(|at| stage.reel(at)).take_while(|path| path.exists()) {
        let bytes = fs::read(reel).unwrap();
        for word in [&b"order 7"[..], b"app,orders", b"HBsb"] {
            assert!(!bytes.windows(word.len()).any(|part| part == word));
        }
    }
    refused(&command(&["verify", &tape, "--no-wait"]), 2, &["it is encrypted with a key", "--key"]);
    refused(&command(&["verify", &tape, "--no-wait", "--key", &other]), 2, &["with another key"]);
    let output = command(&["verify", &tape, "--no-wait", "--key", &good, "--json"]);
    let verified: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&verified["whole"], &verified["digest"]),
        (&true.into(), &saved["digest"]),
        "{}",
        said(&output)
    );
    refused(&stage.pair.a.verb(&["save", "--to", &tape, "--append", "--no-wait"]), 2, &["another key"]);
    // Without a catalogue, reels can be read from end to end and counted, but not understood.
    fs::remove_file(stage.path("reel-catalogue.json")).unwrap();
    assert!(done(&command(&["tape", "list", &tape, "--scan", "--no-wait"])).contains("(encrypted)"));
    done(&command(&["tape", "list", &tape, "--scan", "--no-wait", "--key", &good]));
    assert!(done(&command(&["tape", "list", &tape])).contains(" a "));
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    fs::set_permissions(&good, mode).unwrap();
    refused(&command(&["verify", &tape, "--no-wait", "--key", &good]), 2, &["others may read it"]);
}

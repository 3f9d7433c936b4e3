//! A save of a node at work, and the way back: into an empty node, and into a running primary. Writers number their updates, so
//! that what is restored can be told from every other state.

use crate::support::{
    Disk, EXPORT, Load, Nbd, Node, Pair, Plan, Shape, Told, audit, items, loopback_addresses, make_volume,
    program, serves_volumes_at, tier, wait_until,
};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

/// Another node for the pair of `node`, not started, at the addresses that `place` tells.
pub(crate) fn third(node: &Node, dir: PathBuf, (name, role): (&str, &str)) -> Node {
    let config = std::fs::read_to_string(node.dir.join("config.toml")).unwrap();
    let of = |key: &str| {
        let line = config.lines().find(|line| line.starts_with(&format!("{key} = "))).unwrap();
        line.split('"').nth(1).unwrap().to_owned()
    };
    let pair: &'static str = of("pair_id").leak();
    let [resp] = loopback_addresses();
    // It is in the standby's place where it is one.
    let places = match role {
        "primary" => (of("link_listen"), of("peer")),
        _ => (of("peer"), of("link_listen")),
    };
    let places = (places.0.parse().unwrap(), places.1.parse().unwrap(), Some(resp));
    Node::init(dir, (name, role), places, &Plan::quick().init(&["--pair-id", pair]))
}

/// One run of the command line that concerns no node.
pub(crate) fn command(args: &[&str]) -> Output {
    Command::new(program()).args(args).env_remove("HOT_BACKUP_DIR").stdin(Stdio::null()).output().unwrap()
}

pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// One that says no, or fails.
#[track_caller]
pub(crate) fn refused(output: &Output, code: i32, what: &str) {
    assert_eq!((output.status.code(), said(output).contains(what)), (Some(code), true), "{}", said(output));
    assert!(said(output).contains("what to do:"), "{}", said(output));
}

pub(crate) fn verified(set: &Path) -> serde_json::Value {
    serde_json::from_slice(&command(&["verify", "--json", set.to_str().unwrap()]).stdout).unwrap()
}

pub(crate) fn to(set: &Path) -> String {
    format!("file:{}", set.display())
}

#[track_caller]
fn restored(set: &Path, node: &Node) {
    node.done(&["restore", "--from", set.to_str().unwrap()]);
}

/// Each connection's updates are there up to one of them, and none behind that: a moment of the primary's history. It is not
/// before the save began, when so many were answered.
#[track_caller]
pub(crate) fn is_one_moment(node: &Node, told: &[Told], before: u64) {
    let found = items(&node.door, "app,orders,");
    let mut all = 0;
    for told in told {
        let key = |n: usize| format!("app,orders,{}", told.id(n)).into_bytes();
        let own: Vec<usize> = (0..told.sent).filter(|n| !told.id(*n).ends_with("newest")).collect();
        let there = own.iter().take_while(|n| found.get(&key(**n)) == Some(&told.value(**n))).count();
        assert!(own[there..].iter().all(|n| !found.contains_key(&key(*n))), "there is a hole");
        let end = own.get(there).copied().unwrap_or(told.sent);
        all += end as u64;
        // The item that a writer writes again and again is as its last update before that left it. The moment may be right
        // before an update of that item, and then that is not there yet.
        let newest = found.get(format!("app,orders,w{}-newest", told.writer).as_bytes());
        let repeated: Vec<usize> =
            (0..end).rev().filter(|n| told.id(*n).ends_with("newest")).take(2).collect();
        let fits = match newest {
            Some(newest) => repeated.iter().any(|n| told.value(*n) == *newest),
            None => repeated.len() < 2,
        };
        assert!(fits, "writer {}", told.writer);
    }
    assert!(all >= before, "{all} updates, and {before} were answered");
}

#[test]
fn a_save_under_load_of_either_node_is_the_state_at_its_end_and_a_node_restored_from_it_follows() {
    let mut pair = Pair::start(&Plan::quick().config("checkpoint_ms = 100"));
    let temp = tempfile::tempdir().unwrap();
    let set = |name: &str| temp.path().join(name);
    Load::start(&pair.a.door, Shape { most: 300, first: 20, ..Shape::default() }).run_to_the_end();
    pair.converges();
    let load = Load::start(&pair.a.door, Shape::default());
    load.goes_on(500);
    let before = load.acked();
    let first = pair.a.json(&["save", "--to", &to(&set("a"))]);
    load.goes_on(500);
    let second = pair.b.json(&["save", "--to", &to(&set("b")), "--rate", "2M"]);
    let packed = format!("dir:{}", set("many").display());
    pair.b.done(&["save", "--to", &packed, "--part-size", "1M", "--level", "lz4"]);
    load.goes_on(500);
    let told = load.finish();
    assert!(second["seq"].as_u64() > first["seq"].as_u64(), "{first} {second}");
    pair.b.kill();
    for (name, save) in [("a", &first), ("b", &second)] {
        let verified = verified(&set(name));
        assert_eq!((&verified["whole"], &verified["digest"]), (&true.into(), &save["digest"]), "{verified}");
        let mut node = third(&pair.a, set(&format!("C{name}")), ("c", "standby"));
        let done = node.json(&["restore", "--from", set(name).to_str().unwrap()]);
        assert_eq!((&done["seq"], &done["items"]), (&save["seq"], &save["items"]));
        // Nobody has told it of the primary yet: it shows what was restored.
        node.start();
        node.status("to stand by", |status| status["state"] == "standby");
        is_one_moment(&node, &told, before);
        node.kill();
    }
    // From there on it follows, or is given a copy where the journal has let go what the standby had.
    pair.b = third(&pair.a, set("C"), ("c", "standby"));
    restored(&set("many"), &pair.b);
    pair.b.trusts(&pair.a);
    pair.a.trusts(&pair.b);
    pair.b.start();
    let end = pair.a.json(&["status"])["positions"]["appended"].clone();
    pair.b.status("to have everything", |status| {
        status["state"] == "standby" && status["positions"]["applied"].as_u64() >= end.as_u64()
    });
    pair.connected();
    pair.converges();
    pair.a.kill();
    let account = pair.b.json_when_up(&["takeover", "--peer-is-down"]);
    assert_eq!(account["lost_announced"], 0, "{account}");
    audit(&pair.b.door, &told).is_complete();
}

#[test]
fn blocks_that_clients_write_meanwhile_are_saved_with_all_that_was_flushed_before() {
    let mut pair = Pair::set_up(&Plan::quick());
    let [at, there] = loopback_addresses();
    serves_volumes_at(&pair.a, at);
    pair.serve();
    make_volume(&pair.a, "16M");
    let block = |n: u64, round: u64| vec![u8::try_from((n + round * 7) % 251).unwrap() + 1; 4096];
    let mut client = Nbd::open(at, EXPORT).unwrap();
    for n in (0..4096).filter(|n| n % 3 != 1) {
        client.write(n * 4096, &block(n, 0)).unwrap();
    }
    client.flush().unwrap();
    let temp = tempfile::tempdir().unwrap();
    let set = temp.path().join("set");
    let (dir, target) = (pair.a.dir.clone(), to(&set));
    let save = std::thread::spawn(move || {
        let args = ["save", "--to", &target, "--rate", "20M", "--dir", dir.to_str().unwrap()];
        command(&args)
    });
    // Rounds over the whole volume until the save has ended.
    let mut rounds = 0;
    while !save.is_finished() {
        rounds += 1;
        for n in (0..4096).step_by(16) {
            client.write(n * 4096, &block(n, rounds)).unwrap();
        }
        client.flush().unwrap();
    }
    let output = save.join().unwrap();
    assert!(output.status.success() && rounds > 0, "{}", said(&output));
    let mut node = third(&pair.a, temp.path().join("C"), ("c", "standby"));
    serves_volumes_at(&node, there);
    restored(&set, &node);
    pair.b.kill();
    node.start();
    node.status("to stand by", |status| status["state"] == "standby");
    let mut back = Nbd::open(there, EXPORT).unwrap();
    // What is written in each round is of one round up to some block, and of the one before behind it.
    let mut last = None;
    for n in 0..4096 {
        let found = back.read(n * 4096, 4096).unwrap();
        if n % 16 == 0 {
            let round =
                (0..=rounds).rev().find(|round| found == block(n, *round) && (*round > 0 || n % 3 != 1));
            let round = round.unwrap_or_else(|| panic!("block {n} was never so"));
            assert!(
                last.is_none_or(|last| round == last || round + 1 == last),
                "block {n}: {round} {last:?}"
            );
            last = Some(round);
        } else {
            let wanted = if n % 3 == 1 { vec![0; 4096] } else { block(n, 0) };
            assert!(found == wanted, "block {n}");
        }
    }
}

/// A process that is killed when this is dropped.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn begins(args: &[&str]) -> Running {
    let mut command = Command::new(program());
    command.args(args).env_remove("HOT_BACKUP_DIR").stdin(Stdio::null()).stdout(Stdio::null());
    Running(command.stderr(Stdio::null()).spawn().unwrap())
}

/// A primary that serves alone, with items of a few MiB.
fn full(temp: &Path) -> (Node, Vec<Told>) {
    let mut node = Node::alone(temp.join("A"), &Plan::quick());
    node.start_alone();
    node.make_orders();
    let shape = Shape { most: 600, value: 2000, ..Shape::default() };
    let told = Load::start(&node.door, shape).run_to_the_end();
    (node, told)
}

#[test]
fn a_save_or_a_restore_that_is_killed_is_none_and_the_next_one_is_whole() {
    let temp = tempfile::tempdir().unwrap();
    let (node, told) = full(temp.path());
    let dir = node.dir.to_str().unwrap();
    let set = |n: u64| temp.path().join(format!("set{n}"));
    let mut killed = 0;
    for n in 0..6 {
        let save = begins(&["save", "--to", &to(&set(n)), "--rate", "4M", "--dir", dir]);
        std::thread::sleep(Duration::from_millis(40 + n * 90));
        drop(save);
        if set(n).exists() && verified_no_save(&set(n)) {
            killed += 1;
            let other = third(&node, temp.path().join(format!("N{n}")), ("c", "standby"));
            let output = other.verb(&["restore", "--from", set(n).to_str().unwrap()]);
            refused(&output, 1, "it is no save");
            assert!(!other.dir.join("restoring").exists(), "nothing was begun");
        }
    }
    assert!(killed > 2, "{killed} were killed on the way");
    let set = temp.path().join("whole");
    wait_until("the node to hold nothing for those that are gone", || {
        node.verb(&["save", "--to", &to(&set)]).status.success().then_some(())
    });
    let mut other = third(&node, temp.path().join("C"), ("c", "standby"));
    let mut unfinished = 0;
    for n in 0..12 {
        let dir = other.dir.to_str().unwrap();
        let mut restore = begins(&["restore", "--from", set.to_str().unwrap(), "--dir", dir]);
        while !other.dir.join("restoring").exists() && restore.0.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_micros(200));
        }
        std::thread::sleep(Duration::from_millis(n));
        drop(restore);
        if other.dir.join("restoring").exists() {
            unfinished += 1;
            let output = other.verb(&["serve"]);
            refused(&output, 2, "a restore into it is not finished");
        }
    }
    assert!(unfinished > 0, "none was killed on the way");
    // The last one may have come to its end.
    let output = other.verb(&["restore", "--from", set.to_str().unwrap()]);
    assert!(output.status.success() || said(&output).contains("it is not empty"), "{}", said(&output));
    assert!(!other.dir.join("restoring").exists());
    other.start();
    other.status("to stand by", |status| status["state"] == "standby");
    audit(&other.door, &told).is_complete();
}

pub(crate) fn verified_no_save(set: &Path) -> bool {
    let output = command(&["verify", set.to_str().unwrap()]);
    let no_save = output.status.code() == Some(1) && said(&output).contains("it is no save");
    assert!(
        no_save || output.status.success() || said(&output).contains("not a save set"),
        "{}",
        said(&output)
    );
    no_save
}

#[test]
fn a_save_goes_through_pipes_to_verify_and_into_a_node() {
    let temp = tempfile::tempdir().unwrap();
    let (node, told) = full(temp.path());
    let other = third(&node, temp.path().join("C"), ("c", "standby"));
    let piped = |to: &[&str]| {
        let mut save = Command::new(program());
        save.args(["save", "--to", "-", "--dir"]).arg(&node.dir).stdin(Stdio::null());
        let mut save = save.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let out = save.stdout.take().unwrap();
        let output =
            Command::new(program()).args(to).env_remove("HOT_BACKUP_DIR").stdin(out).output().unwrap();
        assert!(save.wait().unwrap().success(), "{}", said(&output));
        output
    };
    let output = piped(&["verify", "-"]);
    assert!(output.status.success(), "{}", said(&output));
    let output = piped(&["restore", "--from", "-", "--dir", other.dir.to_str().unwrap()]);
    assert!(output.status.success(), "{}", said(&output));
    let mut other = other;
    other.start();
    other.status("to stand by", |status| status["state"] == "standby");
    audit(&other.door, &told).is_complete();
    // Who reads it may go away: that is no save, and says so.
    let mut save = Command::new(program());
    save.args(["save", "--to", "-", "--dir"]).arg(&node.dir).stdin(Stdio::null());
    let mut save = save.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(save.stdout.take());
    let output = save.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
}

#[test]
fn when_both_machines_are_lost_a_save_makes_a_pair_again_on_the_word_of_an_operator() {
    let temp = tempfile::tempdir().unwrap();
    let (mut node, told) = full(temp.path());
    let set = temp.path().join("set");
    node.done(&["save", "--to", &to(&set)]);
    let mut a = third(&node, temp.path().join("A2"), ("a2", "primary"));
    node.kill();
    restored(&set, &a);
    let mut b = third(&a, temp.path().join("B2"), ("b2", "standby"));
    a.trusts(&b);
    b.trusts(&a);
    a.start();
    // It was made as a primary, and does not serve: what the pair did after the save is not known here.
    a.status("to stand by", |status| status["state"] == "standby");
    let output = a.verb(&["takeover", "--peer-is-down"]);
    refused(&output, 1, "restored from a save");
    let account = a.json(&["takeover", "--peer-is-down", "--accept-loss"]);
    assert!(account["lost"].as_str().unwrap().contains("at every ack level"), "{account}");
    a.serves();
    audit(&a.door, &told).is_complete();
    b.start();
    b.incident("whole");
    b.status("to stand by", |status| status["state"] == "standby" && status["peer"]["connected"] == true);
    wait_until("the new standby to have it all", || {
        (items(&a.door, "app,") == items(&b.door, "app,")).then_some(())
    });
}

#[test]
fn a_mistaken_delete_is_undone_item_by_item_file_by_file_and_beside_what_is_there() {
    let temp = tempfile::tempdir().unwrap();
    let mut node = Node::alone(temp.path().join("A"), &Plan::quick());
    node.start_alone();
    node.make_orders();
    for (id, value) in [("1", "one"), ("2", "two"), ("3", "three"), ("4,5", "more")] {
        node.done(&["item", "put", "app,orders", id, value]);
    }
    let set = temp.path().join("set");
    node.done(&["save", "--to", &to(&set)]);
    node.done(&["item", "delete", "app,orders", "1", "2", "4,5"]);
    node.done(&["item", "put", "app,orders", "3", "newer"]);
    node.done(&["item", "put", "app,orders", "9", "since"]);
    let from = ["restore", "--from", set.to_str().unwrap()];
    let run = |more: &[&str]| node.json(&[&from, more].concat());
    let get = |key: &str| {
        node.done(&["item", "get", key.rsplit_once(' ').unwrap().0, key.rsplit_once(' ').unwrap().1])
    };
    let before = items(&node.door, "app,");
    let dry = run(&["--only", "app,orders", "--dry-run"]);
    assert_eq!(
        (&dry[0]["new"], &dry[0]["changed"], &dry[0]["same"]),
        (&3.into(), &1.into(), &0.into()),
        "{dry}"
    );
    assert_eq!(items(&node.door, "app,"), before, "a dry run changes nothing");
    let one = run(&["--only", "app,orders,4,5"]);
    assert_eq!((&one[0]["new"], &one[0]["changed"]), (&1.into(), &0.into()), "{one}");
    assert_eq!(get("app,orders 4,5"), "more");
    let beside = run(&["--only", "app", "--as", "app2"]);
    assert_eq!((&beside[0]["file"], &beside[0]["made"]), (&"app2,orders".into(), &true.into()), "{beside}");
    assert_eq!(items(&node.door, "app2,").len(), 4);
    assert_eq!(get("app,orders 3"), "newer");
    run(&["--only", "app,orders"]);
    assert_eq!((get("app,orders 1"), get("app,orders 3")), ("one".to_owned(), "three".to_owned()));
    assert_eq!(get("app,orders 9"), "since", "what came after the save stays");
    for (only, what) in [
        ("app,orders,nine", "the set has no item nine"),
        ("app,lost", "the set has no such thing"),
        ("other", "the set has no such thing"),
    ] {
        refused(&node.verb(&[&from[..], &["--only", only]].concat()), 1, what);
    }
    // A running node takes parts only, and a whole set makes no part of it.
    refused(&node.verb(&from), 2, "--only");
    assert!(std::fs::read_dir(std::env::temp_dir()).unwrap().flatten().all(|entry| {
        !entry
            .file_name()
            .to_string_lossy()
            .starts_with(&format!("hot-backup-restore-{}", std::process::id()))
    }));
}

#[test]
fn a_save_right_after_a_definition_names_it_and_what_it_has_no_content_of_and_a_restore_defines_that() {
    let temp = tempfile::tempdir().unwrap();
    let (node, told) = full(temp.path());
    let names = |save: &serde_json::Value, key: &str| -> Vec<String> {
        save[key].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
    };
    let (mut alone, mut defined, mut left_out) = (Vec::new(), Vec::new(), Vec::new());
    let set = temp.path().join("set");
    // At once, each time: no save may miss what was answered before it began.
    for (n, flags) in ["T", "Y", "X", "T", "Y", "X"].into_iter().enumerate() {
        let name = format!("app,own{n}");
        node.done(&["file", "create", &name, "--flags", flags]);
        match flags {
            "X" => &mut left_out,
            "Y" => &mut defined,
            _ => &mut alone,
        }
        .push(name);
        let _ = std::fs::remove_file(&set);
        let save = node.json(&["save", "--to", &to(&set)]);
        assert_eq!(
            (names(&save, "alone"), names(&save, "definition_only"), names(&save, "left_out")),
            (alone.clone(), defined.clone(), left_out.clone())
        );
    }
    node.done(&["item", "put", "app,own0", "1", "came after the save"]);
    let shown = command(&["save", "show", set.to_str().unwrap()]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("defined   app,own1 app,own4\n"), "{shown}");
    assert!(shown.contains("left out  app,own2 app,own5\n"), "{shown}");
    for (only, why) in [("app,own1", "the definition alone"), ("app,own2", "the set has no such thing")] {
        refused(&node.verb(&["restore", "--from", set.to_str().unwrap(), "--only", only]), 1, why);
    }
    let mut other = third(&node, temp.path().join("C"), ("c", "standby"));
    restored(&set, &other);
    for _ in 0..2 {
        other.start();
        other.status("to stand by", |status| status["state"] == "standby");
        let files = other.json(&["file", "list"]);
        let files: Vec<(&str, &str)> = files
            .as_array()
            .unwrap()
            .iter()
            .map(|file| (file["name"].as_str().unwrap(), file["flags"].as_str().unwrap()))
            .collect();
        let wanted =
            [("app,orders", "L"), ("app,own0", "T"), ("app,own1", "Y"), ("app,own3", "T"), ("app,own4", "Y")];
        assert_eq!(files, wanted);
        // They are the node's own, and take updates also while it stands by.
        assert!(items(&other.door, "app,own4,").is_empty());
        other.done(&["item", "put", "app,own0", "2", "written here"]);
        assert_eq!(items(&other.door, "app,own0,").len(), 1);
        other.kill();
    }
    other.start();
    other.status("to stand by", |status| status["state"] == "standby");
    audit(&other.door, &told).is_complete();
}

#[test]
fn what_cannot_be_saved_or_restored_is_refused_by_name_and_what_was_there_stays() {
    let temp = tempfile::tempdir().unwrap();
    let (node, _) = full(temp.path());
    let path = |name: &str| temp.path().join(name).to_str().unwrap().to_owned();
    node.done(&["save", "--to", &to(Path::new(&path("set")))]);
    let good = std::fs::read(path("set")).unwrap();
    refused(&node.verb(&["save", "--to", &to(Path::new(&path("set")))]), 2, "it is there already");
    assert!(std::fs::read(path("set")).unwrap() == good);
    refused(&node.verb(&["save", "--to", "file:/nowhere/at/all"]), 2, "no such file");
    refused(
        &node.verb(&["save", "--to", "ftp:127.0.0.1:1"]),
        2,
        "expected file:PATH, dir:PATH, tape:PLACE, tcp:HOST:PORT or -",
    );
    refused(
        &node.verb(&["save", "--to", &to(Path::new(&path("x"))), "--account", "none"]),
        1,
        "there is none of that name",
    );
    assert!(!Path::new(&path("x")).exists());
    node.done(&["save", "--to", &to(Path::new(&path("app"))), "--account", "app"]);
    // Damage of all kinds, each in a file of its own.
    let wrong = |name: &str, bytes: &[u8]| std::fs::write(path(name), bytes).unwrap();
    wrong("cut", &good[..good.len() / 2]);
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 4;
    wrong("flipped", &flipped);
    wrong("text", b"dear backup");
    let empty = third(&node, temp.path().join("C"), ("c", "standby"));
    let from = |set: &str| empty.verb(&["restore", "--from", &path(set)]);
    refused(&from("cut"), 1, "it is no save");
    refused(&from("text"), 2, "it is not a save set");
    refused(&from("missing"), 2, "no such file");
    refused(&from("app"), 2, "the set holds account app only");
    assert!(!empty.dir.join("restoring").exists(), "nothing was begun");
    refused(&from("flipped"), 1, "is damaged");
    let output = command(&["verify", &path("flipped")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("it held the items of app,orders behind"), "{}", said(&output));
    // The parts of it that are whole do not come back without a word either.
    refused(&node.verb(&["restore", "--from", &path("flipped"), "--only", "app,orders"]), 1, "is damaged");
    let other = Node::alone(temp.path().join("other"), &Plan::quick());
    refused(&other.verb(&["restore", "--from", &path("set")]), 2, "the set is of pair");
    refused(&node.verb(&["restore", "--from", &path("set")]), 2, "--only");
    let shown = command(&["save", "show", "--json", &path("app")]);
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(
        (&shown["account"], &shown["files"][0]["name"]),
        (&"app".into(), &"app,orders".into()),
        "{shown}"
    );
    let list = command(&["save", "list", &path("set"), &path("cut")]);
    assert_eq!((list.status.code(), said(&list).contains("it is no save")), (Some(1), true));
}

#[test]
fn tier_a_target_without_room_is_told_and_what_was_written_is_no_save() {
    tier!("root", "losetup", "mkfs.ext4");
    let temp = tempfile::tempdir().unwrap();
    let (node, told) = full(temp.path());
    let disk = Disk::new(3);
    let set = disk.path().join("set");
    let output = node.verb(&["save", "--to", &to(&set)]);
    refused(&output, 2, "no space left");
    assert!(!set.exists(), "half a save is of no use");
    node.done(&["save", "--to", &to(&temp.path().join("set"))]);
    let small = third(&node, disk.path().join("C"), ("c", "standby"));
    let output = small.verb(&["restore", "--from", temp.path().join("set").to_str().unwrap()]);
    refused(&output, 2, "the disk has room for");
    audit(&node.door, &told).is_complete();
}

//! Saves of what changed since an earlier one: small, and with those before them the whole state.

use crate::compare::{behind_its_back, put};
use crate::save::{begins, command, is_one_moment, refused, said, third, to, verified, verified_no_save};
use crate::support::{
    EXPORT, Load, Nbd, Node, Plan, Shape, items, loopback_addresses, make_volume, serves_volumes_at,
    wait_until,
};
use hot_backup::format::chunk::Content;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A primary alone with some MiB of items and a volume, and a save of it.
fn saved(temp: &Path) -> (Node, Nbd, PathBuf) {
    let mut node = Node::alone(temp.join("A"), &Plan::quick().config("checkpoint_ms = 100"));
    let [at] = loopback_addresses();
    serves_volumes_at(&node, at);
    node.start_alone();
    node.make_orders();
    make_volume(&node, "16M");
    Load::start(&node.door, Shape { most: 700, value: 2000, first: 20, ..Shape::default() }).run_to_the_end();
    let mut client = Nbd::open(at, EXPORT).unwrap();
    for n in (0..4096).filter(|n| n % 3 != 1) {
        client.write(n * 4096, &block(n, 0)).unwrap();
    }
    client.flush().unwrap();
    let full = temp.join("full");
    node.done(&["save", "--to", &to(&full)]);
    (node, client, full)
}

fn block(n: u64, round: u64) -> Vec<u8> {
    vec![u8::try_from((n + round * 7) % 251).unwrap() + 1; 4096]
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn size(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().len()
}

/// The content of a node that was restored from these sets, and of its volume.
fn restored(node: &Node, dir: PathBuf, sets: &[&Path]) -> (Node, Nbd) {
    let mut other = third(node, dir, ("c", "standby"));
    let [there] = loopback_addresses();
    serves_volumes_at(&other, there);
    let from = sets.iter().flat_map(|set| ["--from", text(set)]);
    other.done(&["restore"].into_iter().chain(from).collect::<Vec<_>>());
    other.start();
    other.status("to stand by", |status| status["state"] == "standby");
    (other, Nbd::open(there, EXPORT).unwrap())
}

#[test]
fn what_changed_since_a_save_is_small_and_the_chain_of_them_is_the_whole_state() {
    let temp = tempfile::tempdir().unwrap();
    let (node, mut client, full) = saved(temp.path());
    let (one, two) = (temp.path().join("one"), temp.path().join("two"));
    // An item, a file, and a block.
    node.done(&["item", "put", "app,orders", "a", "first"]);
    node.done(&["file", "create", "app,late", "--flags", "L"]);
    node.done(&["item", "put", "app,late", "1", "one"]);
    client.write(5 << 20, &block(7, 3)).unwrap();
    client.flush().unwrap();
    let since = node.json(&["save", "--to", &to(&one), "--since", text(&full)]);
    assert!(size(&one) * 3 < size(&full), "{} of {}: {since}", size(&one), size(&full));
    node.done(&["item", "delete", "app,orders", "a"]);
    node.done(&["item", "put", "app,orders", "z", "last"]);
    node.done(&["file", "clear", "app,late", "--yes"]);
    node.done(&["save", "--to", &to(&two), "--since", text(&one)]);
    assert!(size(&two) * 3 < size(&full), "{} of {}", size(&two), size(&full));
    let shown: serde_json::Value =
        serde_json::from_slice(&command(&["save", "show", "--json", text(&two)]).stdout).unwrap();
    assert_eq!(shown["since"], since["set"], "{shown}");
    let told = command(&["save", "show", text(&two)]);
    assert!(String::from_utf8_lossy(&told.stdout).contains("since     set "), "{told:?}");
    let output = command(&["verify", text(&full), text(&one), text(&two)]);
    assert!(output.status.success(), "{}", said(&output));
    let expected = items(&node.door, "app,");
    let (mut other, mut back) = restored(&node, temp.path().join("C"), &[&full, &one, &two]);
    assert!(items(&other.door, "app,") == expected, "it is another state");
    for n in 0..4096 {
        let wanted = match n {
            1280 => block(7, 3),
            _ if n % 3 == 1 => vec![0; 4096],
            _ => block(n, 0),
        };
        assert!(back.read(n * 4096, 4096).unwrap() == wanted, "block {n}");
    }
    other.kill();
    // Chosen parts come of a chain as of one set.
    let from = ["--from", text(&full), "--from", text(&one)];
    node.done(&[&["restore"][..], &from, &["--only", "app,late,1"]].concat());
    assert_eq!(node.done(&["item", "get", "app,late", "1"]), "one");
    // And what came after it is the history behind the chain.
    let from = ["--from", text(&full), "--from", text(&one), "--from", text(&node.dir)];
    let until = (verified(&two)["seq"].as_u64().unwrap()).to_string();
    let dry =
        [&["restore"][..], &from, &["--only", "app,orders,z", "--until", &until, "--as", "then"]].concat();
    node.done(&dry);
    assert_eq!(node.done(&["item", "get", "then,orders", "z"]), "last");
}

#[test]
fn a_volume_comes_back_block_by_block_or_beside_what_is_there_and_not_while_it_is_in_use() {
    let temp = tempfile::tempdir().unwrap();
    let (node, mut client, full) = saved(temp.path());
    for n in [5, 6, 700] {
        client.write(n * 4096, &block(n, 9)).unwrap();
    }
    client.flush().unwrap();
    let from = ["restore", "--from", text(&full), "--only", "app,disk1"];
    let run = |more: &[&str]| node.json(&[&from[..], more].concat());
    refused(&node.verb(&from), 1, "it is in use");
    let beside = run(&["--as", "then"]);
    assert_eq!((&beside[0]["file"], &beside[0]["made"]), (&"then,disk1".into(), &true.into()), "{beside}");
    drop(client);
    node.status("to have let the client go", |status| status["volumes"][0]["clients"] == 0);
    let dry = run(&["--dry-run"]);
    assert_eq!(
        (&dry[0]["changed"], &dry[0]["same"], &dry[0]["blocks"]),
        (&3.into(), &4093.into(), &true.into())
    );
    assert_eq!(run(&["--dry-run"]), dry, "a dry run changes nothing");
    assert_eq!(run(&[]), dry);
    assert_eq!(run(&[])[0]["changed"], 0);
    // Both are what the save holds, so neither differs from it.
    assert_eq!(run(&["--as", "then", "--dry-run"])[0]["changed"], 0);
    let item = ["restore", "--from", text(&full), "--only", "app,disk1,1"];
    refused(&node.verb(&item), 1, "is a volume");
    node.done(&["account", "create", "less"]);
    node.done(&["file", "create", "less,disk1", "--blocks", "--size", "1M", "--flags", "L"]);
    refused(&node.verb(&[&from[..], &["--as", "less"]].concat()), 1, "and the save's has");
}

#[test]
fn a_link_that_is_missing_or_damaged_or_of_something_else_is_refused_by_name() {
    let temp = tempfile::tempdir().unwrap();
    let (node, _, full) = saved(temp.path());
    let set = |name: &str| temp.path().join(name);
    let since = |name: &str, base: &Path| {
        node.done(&["item", "put", "app,orders", name, name]);
        node.done(&["save", "--to", &to(&set(name)), "--since", text(base)]);
        set(name)
    };
    let one = since("one", &full);
    let two = since("two", &one);
    let empty = third(&node, set("C"), ("c", "standby"));
    for (sets, what) in [
        (&[&one][..], "it holds only what changed since set"),
        (&[&full, &two], "it was made since set"),
        (&[&full, &two, &one], "it was made since set"),
        (&[&one, &full], "it holds only what changed since set"),
        (&[&full, &full], "it holds everything"),
    ] {
        let from: Vec<&str> = sets.iter().flat_map(|set| ["--from", text(set)]).collect();
        refused(&empty.verb(&[&["restore"][..], &from].concat()), 1, what);
        refused(&node.verb(&[&["restore"][..], &from, &["--only", "app"]].concat()), 1, what);
        assert!(!empty.dir.join("restoring").exists());
    }
    refused(&command(&["verify", text(&full), text(&two)]), 1, "it was made since set");
    // Nothing is based on a set that is damaged, of another pair, or of a part.
    let mut bytes = std::fs::read(&full).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(set("rotten"), bytes).unwrap();
    let save = |base: &Path, more: &[&str]| {
        let output = node.verb(&[&["save", "--to", &to(&set("none")), "--since", text(base)], more].concat());
        assert!(!set("none").exists());
        output
    };
    refused(&save(&set("rotten"), &[]), 1, "is damaged");
    refused(&save(&set("nowhere"), &[]), 2, "no such file");
    refused(&save(&full, &["--account", "app"]), 1, "it holds all accounts");
    let mut other = Node::alone(set("other"), &Plan::quick());
    other.start_alone();
    let output = other.verb(&["save", "--to", &to(&set("none")), "--since", text(&full)]);
    refused(&output, 1, "it is of pair");
    assert!(!set("none").exists());
}

#[test]
fn a_save_since_another_under_load_is_one_moment() {
    let temp = tempfile::tempdir().unwrap();
    let (node, _, full) = saved(temp.path());
    let load = Load::start(&node.door, Shape { value: 300, ..Shape::default() });
    load.goes_on(300);
    let one = temp.path().join("one");
    node.done(&["save", "--to", &to(&one), "--since", text(&full)]);
    load.goes_on(300);
    let (before, two) = (load.acked(), temp.path().join("two"));
    node.done(&["save", "--to", &to(&two), "--since", text(&one), "--rate", "8M", "--level", "lz4"]);
    load.goes_on(100);
    let told = load.finish();
    let (other, _) = restored(&node, temp.path().join("C"), &[&full, &one, &two]);
    is_one_moment(&other, &told, before);
}

#[test]
fn a_save_since_another_or_a_restore_of_the_chain_that_is_killed_is_none_and_is_begun_again() {
    let temp = tempfile::tempdir().unwrap();
    let (node, _, full) = saved(temp.path());
    Load::start(&node.door, Shape { most: 200, value: 2000, ..Shape::default() }).run_to_the_end();
    let (dir, set) = (text(&node.dir), |n: u64| temp.path().join(format!("set{n}")));
    for n in 0..4 {
        let save =
            begins(&["save", "--to", &to(&set(n)), "--since", text(&full), "--rate", "8M", "--dir", dir]);
        std::thread::sleep(Duration::from_millis(60 + n * 120));
        drop(save);
        if set(n).exists() && verified_no_save(&set(n)) {
            let other = third(&node, temp.path().join(format!("N{n}")), ("c", "standby"));
            let half = set(n);
            let from = ["restore", "--from", text(&full), "--from", text(&half)];
            refused(&other.verb(&from), 1, "it is no save");
            assert!(!other.dir.join("restoring").exists(), "nothing was begun");
        }
    }
    let one = temp.path().join("one");
    wait_until("the node to hold nothing for those that are gone", || {
        node.verb(&["save", "--to", &to(&one), "--since", text(&full)]).status.success().then_some(())
    });
    node.done(&["item", "put", "app,orders", "behind", "both"]);
    let (expected, mut other) =
        (items(&node.door, "app,"), third(&node, temp.path().join("C"), ("c", "standby")));
    let mut unfinished = 0;
    for n in 0..10 {
        let from = [
            "restore",
            "--from",
            text(&full),
            "--from",
            text(&one),
            "--from",
            dir,
            "--dir",
            text(&other.dir),
        ];
        let mut restore = begins(&from);
        while !other.dir.join("restoring").exists() && restore.0.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_micros(200));
        }
        std::thread::sleep(Duration::from_millis(n * n));
        drop(restore);
        if other.dir.join("restoring").exists() {
            unfinished += 1;
            refused(&other.verb(&["serve"]), 2, "a restore into it is not finished");
        }
    }
    assert!(unfinished > 0, "none was killed on the way");
    // The last one may have come to its end.
    let output = other.verb(&["restore", "--from", text(&full), "--from", text(&one), "--from", dir]);
    assert!(output.status.success() || said(&output).contains("it is not empty"), "{}", said(&output));
    other.start();
    other.status("to stand by", |status| status["state"] == "standby");
    assert!(items(&other.door, "app,") == expected, "it is another state");
}

#[test]
fn a_save_is_held_against_the_node_and_only_what_nobody_changed_counts() {
    let temp = tempfile::tempdir().unwrap();
    let (mut node, mut client, full) = saved(temp.path());
    let against = |node: &Node, set: &Path| {
        let output = node.verb(&["verify", text(set), "--against", "--json"]);
        let view: serde_json::Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", said(&output)));
        (output.status.code(), view)
    };
    let (code, view) = against(&node, &full);
    assert_eq!((code, &view["equal"], &view["changed_since"]), (Some(0), &true.into(), &0.into()), "{view}");
    // What users did since is no difference.
    node.done(&["item", "put", "app,orders", "since", "new"]);
    node.done(&["file", "create", "app,late", "--flags", "L"]);
    client.write(5 << 20, &block(7, 3)).unwrap();
    client.flush().unwrap();
    let (code, view) = against(&node, &full);
    assert_eq!((code, &view["equal"], &view["differing"]), (Some(0), &true.into(), &0.into()), "{view}");
    assert!(view["changed_since"].as_u64() >= Some(3), "{view}");
    // The same name of an item, another history: a node of the pair that never had what the save holds.
    let mut other = third(&node, temp.path().join("C"), ("c", "standby"));
    other.start();
    other.json_when_up(&["takeover", "--peer-is-down"]);
    other.serves();
    let output = other.verb(&["verify", text(&full), "--against"]);
    let named = ["before the save's end", "does not continue the save"];
    assert!(
        !output.status.success() && named.iter().any(|what| said(&output).contains(what)),
        "{}",
        said(&output)
    );
    // What no update did counts, until one does it.
    node.has_applied_all();
    node.kill();
    behind_its_back(&node, |writer, file| {
        let planted = vec![("zzz".into(), "planted".into())];
        let content = Content::Items { after: "zz".into(), through: "zzz".into(), items: planted };
        put(writer, file("app,orders"), content);
    });
    node.start_alone();
    let (code, view) = against(&node, &full);
    let one =
        serde_json::json!({"file": "app,orders", "kind": "item", "place": "zzz", "how": "only_on_node"});
    assert_eq!((code, &view["differing"], &view["differences"][0]), (Some(1), &1.into(), &one), "{view}");
    node.done(&["item", "put", "app,orders", "zzz", "put"]);
    assert_eq!(against(&node, &full).0, Some(0));
    let mut bytes = std::fs::read(&full).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(temp.path().join("rotten"), bytes).unwrap();
    refused(&node.verb(&["verify", text(&temp.path().join("rotten")), "--against"]), 1, "is damaged");
}

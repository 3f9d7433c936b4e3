//! What a listener keeps comes back: to a node that is restored, in part to one that works, and to who looks at it. The wire is
//! cut at several places, sets are missing, foreign, damaged, drives are in use. What stands between is a wire of our own.

use crate::save::third;
use crate::support::{Node, items, loopback_addresses, wait_until};
use crate::tape_socket::{Fate, MIB, SMALL, Stage, Wire, begin, command, listener, refused, said, to};
use redis::Commands;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;

/// A token in a file.
fn token(stage: &Stage, name: &str, digit: &str) -> String {
    let path = stage.path(name);
    fs::write(&path, digit.repeat(64)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A node of the pair that is empty, in the place of the primary, and has the keys of the machine that listens.
fn empty(stage: &Stage, name: &str) -> Node {
    let node = third(&stage.pair.a, stage.path(name), ("c", "primary"));
    node.trusts(&stage.pair.b);
    stage.pair.b.trusts(&node);
    node
}

/// Nothing was begun.
#[track_caller]
fn is_untouched(node: &Node) {
    assert!(!node.dir.join("restoring").exists() && !node.dir.join("store/current").exists());
}

#[test]
fn a_set_comes_back_whole_from_disk_and_reels_over_a_wire_that_is_cut() {
    let mut stage = Stage::new(6);
    let held = items(&stage.pair.a.door, "app,");
    // The new node takes the place of the standby.
    stage.pair.b.kill();
    let token = token(&stage, "t", "1");
    for (to_what, name) in [(stage.dir(), "C"), (stage.reels(), "D")] {
        let [address] = loopback_addresses();
        let more = [&SMALL[..], &["--reel-size", "2M", "--token", &token]].concat();
        let listener = listener(stage.temp.path(), address, &to_what, &more);
        let save = ["save", "--to", &to(listener.address, "monday"), "--token", &token];
        let saved = stage.pair.a.json(&save);
        // The disk knows it by its name, reels by its number, and both give the newest.
        let id = saved["set"].as_str().unwrap();
        let called = if name == "C" { "monday" } else { &id[..8] };
        let mut node = third(&stage.pair.a, stage.path(name), ("c", "standby"));
        // What is looked at first comes whole; what is restored then is cut, and not waited for.
        let fates = [1 << 30, 2 * MIB, 0].map(Fate::CutBack);
        let wire = Wire::start(listener.address, &fates);
        let from = to(wire.address, called);
        refused(
            &node.verb(&["restore", "--from", &from, "--retry", "0", "--token", &token]),
            &["reading from", "was cut"],
        );
        assert!(node.dir.join("restoring").exists(), "a node that is half restored does not start");
        let fates = [1 << 30, MIB + 17, 700, 0, 2 * MIB, 300_000].map(Fate::CutBack);
        let wire = Wire::start(listener.address, &fates);
        let from = format!("tcp:{}", wire.address);
        let output = node.verb(&["restore", "--from", &from, "--token", &token, "--json"]);
        let done: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)));
        assert_eq!(done["seq"], saved["seq"], "{done}");
        assert!(said(&output).matches("it goes on at byte").count() >= 3, "{}", said(&output));
        node.start();
        node.status("to stand by", |status| status["state"] == "standby");
        assert!(items(&node.door, "app,") == held, "something else came back");
        node.kill();
    }
}

#[test]
fn chosen_items_come_back_to_a_primary_that_works_and_reels_are_spaced_to_them() {
    let stage = Stage::new(4);
    let mut client = stage.pair.a.redis();
    stage.pair.a.done(&["file", "create", "app,small", "--flags", "L"]);
    for at in 0..40 {
        let () = client.set(format!("app,small,{at}"), "as it was").unwrap();
    }
    for to_what in [stage.dir(), stage.reels()] {
        let listener = stage.listen(&to_what, &SMALL);
        stage.pair.a.done(&["save", "--to", &to(listener.address, "monday")]);
        let held = items(&stage.pair.a.door, "app,");
        for at in 0..7 {
            let () = client.set(format!("app,small,{at}"), "spoilt").unwrap();
        }
        let fates = [1 << 30, 300_000].map(Fate::CutBack);
        let wire = Wire::start(listener.address, &fates);
        let from = format!("tcp:{}", wire.address);
        let output = stage.pair.a.verb(&["restore", "--from", &from, "--only", "app,small", "--json"]);
        let done: Value =
            serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)));
        assert_eq!((&done[0]["changed"], &done[0]["same"]), (&7.into(), &33.into()), "{done}");
        assert!(items(&stage.pair.a.door, "app,") == held);
    }
}

#[test]
fn a_set_on_another_machine_is_shown_listed_and_verified_and_its_damage_is_named() {
    let stage = Stage::new(2);
    for to_what in [stage.dir(), stage.reels()] {
        let listener = stage.listen(&to_what, &SMALL);
        let saved = stage.pair.a.json(&["save", "--to", &to(listener.address, "monday")]);
        let from = format!("tcp:{}", listener.address);
        let verified = stage.pair.a.json(&["verify", &from]);
        assert_eq!((&verified["whole"], &verified["digest"]), (&true.into(), &saved["digest"]), "{verified}");
        let shown = stage.pair.a.json(&["save", "show", &from]);
        assert_eq!((&shown["set"], &shown["seq"]), (&saved["set"], &saved["seq"]), "{shown}");
        let listed = stage.pair.a.json(&["save", "list", &from]);
        assert_eq!(listed[0]["set"], saved["set"], "{listed}");
    }
    // Of several on a disk the newest, and any by its name.
    let listener = stage.listen(&stage.dir(), &SMALL);
    let newest = stage.pair.a.json(&["save", "--to", &to(listener.address, "tuesday")]);
    let shown = stage.pair.a.json(&["save", "show", &format!("tcp:{}", listener.address)]);
    assert_eq!(shown["set"], newest["set"]);
    let monday = stage.path("backup/monday.hbs");
    let mut bytes = fs::read(&monday).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&monday, &bytes).unwrap();
    let output = stage.pair.a.verb(&["verify", &to(listener.address, "monday")]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("is damaged") && said(&output).contains("it held"), "{}", said(&output));
}

#[test]
fn a_set_that_is_missing_foreign_or_no_save_is_refused_by_name_before_anything_changes() {
    let stage = Stage::new(2);
    let (set, _) = stage.set();
    let listener = stage.listen(&stage.dir(), &[]);
    let node = empty(&stage, "C");
    let restore = |name: &str| node.verb(&["restore", "--from", &to(listener.address, name)]);
    refused(&node.verb(&["restore", "--from", &format!("tcp:{}", listener.address)]), &["holds no save set"]);
    let put = |name: &str, bytes: &[u8]| fs::write(stage.path(&format!("backup/{name}")), bytes).unwrap();
    let whole = fs::read(&set).unwrap();
    put("cut.hbs", &whole[..MIB]);
    put("coming.hbs.part", &whole[..MIB]);
    put("text.hbs", b"no set at all");
    put("foreign.hbs", include_bytes!("data/set-v1.hbs"));
    refused(&restore("nothing"), &["reading from", "nothing.hbs"]);
    refused(&restore("cut"), &["it has no trailer"]);
    refused(&restore("coming"), &["did not come whole"]);
    refused(&restore("text"), &["it is not a save set"]);
    refused(&restore("foreign"), &["is of pair", "this listener gives sets of pair"]);
    // One whose key is not trusted, and one that is not there.
    let stranger = third(&stage.pair.a, stage.path("D"), ("d", "primary"));
    stranger.trusts(&stage.pair.b);
    put("good.hbs", &whole);
    let output = stranger.verb(&["restore", "--from", &to(listener.address, "good")]);
    refused(&output, &["it does not trust this node's key"]);
    let [nobody] = loopback_addresses();
    refused(
        &node.verb(&["restore", "--from", &to(nobody, "good")]),
        &["connecting to", "tape-socket listen"],
    );
    is_untouched(&node);
    is_untouched(&stranger);
    // What is there is found among all that, and taken.
    assert!(node.verb(&["restore", "--from", &format!("tcp:{}", listener.address)]).status.success());
}

#[test]
fn a_drive_is_read_by_one_at_a_time_and_nobody_writes_meanwhile() {
    // More than sockets hold on its way.
    let stage = Stage::new(32);
    let listener = stage.listen(&stage.reels(), &SMALL);
    stage.pair.a.done(&["save", "--to", &to(listener.address, "monday")]);
    let wire = Wire::start(listener.address, &[Fate::CutBack(1 << 30), Fate::HoldBack(MIB)]);
    let child = begin(&stage.pair.a, &["verify", &format!("tcp:{}", wire.address), "--json"]);
    wait_until("the wire to hold", || wire.holds().then_some(()));
    let save = ["save", "--to", &to(listener.address, "tuesday")];
    refused(&stage.pair.a.verb(&save), &["is in use", "reads from it"]);
    let show = ["verify", &format!("tcp:{}", listener.address)];
    refused(&stage.pair.a.verb(&show), &["is in use", "reads from it"]);
    wire.release();
    let output = child.wait_with_output().unwrap();
    let verified: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)));
    assert_eq!(verified["whole"], true, "{verified}");
    assert!(said(&output).contains("it goes on at byte"), "{}", said(&output));
    stage.pair.a.done(&save);
}

#[test]
fn a_token_gives_a_set_to_who_has_it_and_to_nobody_else() {
    let stage = Stage::new(1);
    let (good, other) = (token(&stage, "t", "1"), token(&stage, "u", "2"));
    let [address] = loopback_addresses();
    let (_, saved) = stage.set();
    fs::copy(stage.path("set.hbs"), stage.path("backup/x.hbs")).unwrap();
    let there = listener(stage.temp.path(), address, &stage.dir(), &["--token", &good]);
    let verify = |token: &str| command(&["verify", &to(there.address, "x"), "--token", token, "--json"]);
    refused(&verify(&other), &["is not trusted here"]);
    let output = verify(&good);
    let verified: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)));
    assert_eq!(verified["digest"], saved["digest"], "{verified}");
    let neither = command(&["verify", &to(there.address, "x")]);
    refused(&neither, &["--dir DIR", "--token FILE"]);
}

//! `bench`, by whole processes: what it prints and keeps, that nothing of it stays, whatever ends it, and that it touches
//! nothing that it did not make itself.

use crate::support::{Node, Pair, Plan, loopback_addresses, program, scratch, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

fn bench(args: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.arg("bench").args(args).env_remove("HOT_BACKUP_DIR").stdin(Stdio::null());
    command
}

#[track_caller]
fn done(args: &[&str]) -> String {
    let output = bench(args).output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {}\n{err}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).unwrap().next().is_none()
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// What a report has of one part and what.
fn of<'a>(report: &'a Value, part: &'a str, what: &'a str) -> impl Iterator<Item = &'a Value> {
    let figures = report["figures"].as_array().unwrap().iter();
    figures.filter(move |figure| figure["part"] == part && figure["what"] == what)
}

/// Begins one, and sends it SIGINT when `now` says so.
fn interrupted(args: &[&str], now: impl FnMut() -> Option<()>) -> Output {
    let child: Child = bench(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("the moment to interrupt it", now);
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGINT).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn a_disk_is_measured_shown_kept_drawn_and_compared_and_nothing_stays() {
    let (dir, out) = (scratch(), tempfile::tempdir().unwrap());
    let (json, html) = (out.path().join("a.json"), out.path().join("a.html"));
    let args = ["disk", "--dir", text(dir.path()), "--seconds", "1", "--size", "8M"];
    let shown = done(&[&args[..], &["--save", text(&json), "--html", text(&html)]].concat());
    assert!(is_empty(dir.path()));
    for word in
        ["dsync", "fdatasync", "raw beside", "device cache", "NVMe passthrough", "The journal reaches"]
    {
        assert!(shown.contains(word), "{word} in {shown}");
    }
    let report = read(&json);
    assert_eq!((&report["format"], &report["version"]), (&"hot-backup-bench".into(), &1.into()));
    assert_eq!(of(&report, "disk", "write").count(), 12, "{report}");
    assert!(report["limit"]["sentence"].as_str().unwrap().starts_with("The journal reaches"), "{report}");
    let page = std::fs::read_to_string(&html).unwrap();
    assert!(page.contains("<svg") && !page.contains("http"), "{page}");
    // Beside itself it is as fast as it is.
    let shown = done(&["compare", text(&json), text(&json)]);
    assert!(shown.contains("rate B/A") && shown.contains(" 1.00 "), "{shown}");
    let compared: Value =
        serde_json::from_str(&done(&["compare", text(&json), text(&json), "--json"])).unwrap();
    assert_eq!(compared["rows"].as_array().unwrap().len(), report["figures"].as_array().unwrap().len());
    // Who tries out the machine is led to it.
    let doctor = Command::new(program()).args(["doctor", "--dir", text(dir.path())]).output().unwrap();
    let led = format!("hot-backup bench disk --dir {}\n", dir.path().display());
    assert!(String::from_utf8_lossy(&doctor.stdout).ends_with(&led), "{doctor:?}");
    let wrong = bench(&["compare", text(&json), text(&html)]).output().unwrap();
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("it is not what `hot-backup bench` writes"));
}

#[test]
fn a_measurement_that_is_interrupted_or_finds_no_room_says_so_and_leaves_nothing() {
    let dir = scratch();
    let begun = || (!is_empty(dir.path())).then_some(());
    let output = interrupted(&["disk", "--dir", text(dir.path()), "--seconds", "600"], begun);
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{err}");
    assert!(err.contains("it was interrupted; nothing of it is left"), "{err}");
    assert!(is_empty(dir.path()));
    let output = bench(&["disk", "--dir", text(dir.path()), "--size", "100T"]).output().unwrap();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.code() == Some(2) && err.contains("are needed") && err.contains("make room"),
        "{err}"
    );
    assert!(is_empty(dir.path()));
}

#[test]
fn the_way_between_two_nodes_is_measured_with_their_keys_and_strangers_are_turned_away() {
    let temp = tempfile::tempdir().unwrap();
    let [link, peer] = loopback_addresses();
    let make = |name: &str, role, own, other| {
        Node::init(temp.path().join(name), (name, role), (own, other, None), &Plan::quick())
    };
    let (a, b) = (make("a", "primary", link, peer), make("b", "standby", peer, link));
    a.trusts(&b);
    b.trusts(&a);
    let mut listening = bench(&["link", "--listen", "127.0.0.1:0", "--dir", text(&a.dir)])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = String::new();
    BufReader::new(listening.stdout.take().unwrap()).read_line(&mut first).unwrap();
    let at = first.strip_prefix("listening on ").and_then(|rest| rest.split(' ').next()).unwrap();
    let ask = |more: &[&str]| {
        bench(&[&["link", "--to", at, "--seconds", "1", "--json"], more].concat()).output().unwrap()
    };
    let stranger = ask(&[]);
    assert_eq!(stranger.status.code(), Some(2), "{}", String::from_utf8_lossy(&stranger.stdout));
    let output = ask(&["--dir", text(&b.dir)]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    for way in ["plain", "tls"] {
        for what in ["echo", "stream"] {
            assert_eq!(
                of(&report, "link", what).filter(|f| f["way"] == way).count(),
                3,
                "{what} {way}: {report}"
            );
        }
    }
    kill(Pid::from_raw(i32::try_from(listening.id()).unwrap()), Signal::SIGTERM).unwrap();
    let ended = listening.wait_with_output().unwrap();
    assert!(ended.status.success());
    assert!(String::from_utf8_lossy(&ended.stderr).contains("it proves no key"));
    // This machine with itself needs nobody.
    assert!(done(&["link", "--seconds", "1"]).contains("The link takes"));
}

#[test]
fn a_running_pair_is_measured_in_an_account_of_its_own_that_goes_whatever_ends_it() {
    let pair = Pair::start(&Plan::quick());
    let dir = text(&pair.a.dir);
    let accounts = || pair.a.json(&["account", "list"]).to_string();
    let before = accounts();
    let shown = done(&["pair", "--dir", dir, "--seconds", "2"]);
    for word in ["local", "received", "durable", "applied", "256", "updates a second"] {
        assert!(shown.contains(word), "{word} in {shown}");
    }
    assert_eq!(accounts(), before);
    // Interrupted in the midst of it.
    let begun = || accounts().contains("\"bench\"").then_some(());
    let output = interrupted(&["pair", "--dir", dir, "--seconds", "600"], begun);
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(accounts(), before);
    // One that is there already is not touched, nor is anything done on a standby.
    pair.a.done(&["account", "create", "bench"]);
    let refused = |dir: &str, why: &str| {
        let output = bench(&["pair", "--dir", dir, "--seconds", "1"]).output().unwrap();
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && err.contains(why), "{err}");
    };
    refused(dir, "it has an account bench already");
    assert!(accounts().contains("\"bench\""));
    refused(text(&pair.b.dir), "it is standby, not primary");
}

#[test]
fn a_pair_of_its_own_is_started_measured_beside_the_raw_limits_and_removed() {
    let (dir, out) = (scratch(), tempfile::tempdir().unwrap());
    let json = out.path().join("pair.json");
    done(&["pair", "--temporary", "--dir", text(dir.path()), "--seconds", "2", "--save", text(&json)]);
    assert!(is_empty(dir.path()));
    let report = read(&json);
    assert_eq!(of(&report, "pair", "set").count(), 12);
    assert!(
        of(&report, "disk", "write").count() > 0 && of(&report, "link", "stream").count() > 0,
        "{report}"
    );
    assert_eq!(report["used"].as_array().unwrap().len(), 12);
    assert!(report["limit"]["what"].is_string(), "{report}");
    let begun = || {
        let mut found = std::fs::read_dir(dir.path()).unwrap().flatten();
        found.any(|entry| entry.path().join("a/admin.sock").exists()).then_some(())
    };
    let output = interrupted(&["pair", "--temporary", "--dir", text(dir.path()), "--seconds", "600"], begun);
    assert_eq!(output.status.code(), Some(2), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(is_empty(dir.path()));
}

#[test]
fn an_image_of_a_reel_is_measured_and_does_not_stay() {
    let dir = scratch();
    let shown = done(&["tape", text(&dir.path().join("reel.tap")), "--size", "2M"]);
    assert!(shown.contains("The drive takes"), "{shown}");
    assert!(is_empty(dir.path()));
}

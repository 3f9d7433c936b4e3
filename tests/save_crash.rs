//! A save and a restore that are killed at each of their calls: what is there then is whole, or refused by name, and what is
//! begun again comes to the same end.

use crate::save::{begins, command, refused, said, third, to, verified_no_save};
use crate::support::{Load, Node, Plan, Shape, Told, audit, items, memory, program, tier, tool, wait_until};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// How long each of these tests goes on to calls that it has not reached.
const ENOUGH: Duration = Duration::from_secs(60);
/// Fewer kills prove nothing.
const KILLS_MIN: u32 = 10;

/// A primary that serves alone, with items of some MiB, on which nothing is under way.
fn source(dir: PathBuf) -> (Node, Vec<Told>) {
    let mut node = Node::alone(dir, &Plan::quick());
    node.start_alone();
    node.make_orders();
    let shape = Shape { most: 700, value: 2000, ..Shape::default() };
    let told = Load::start(&node.door, shape).run_to_the_end();
    (node, told)
}

/// Runs the command line and kills it at the `nth` such call of one of its threads; none if it came to its end before.
fn killed(args: &[&str], call: &str, nth: usize) -> Option<Output> {
    let (inject, trace) = (format!("inject={call}:signal=KILL:when={nth}"), format!("trace={call}"));
    let mut command = Command::new(tool("strace").unwrap());
    command.args(["-D", "-f", "-q", "-o", "/dev/null", "-e", &trace, "-e", &inject, program()]);
    let output = command.args(args).env_remove("HOT_BACKUP_DIR").stdin(Stdio::null()).output().unwrap();
    // Killed by a signal, it has no code.
    let code = output.status.code();
    assert!(matches!(code, None | Some(0)), "{args:?}, {call} {nth}: {}", said(&output));
    code.is_none().then_some(output)
}

/// Goes through calls: each is killed when it is made the first time, the second time, and so on, until a run comes to its
/// end. Gives how many were.
fn at_each(calls: &[&str], mut round: impl FnMut(&str, usize) -> bool) -> u32 {
    let until = Instant::now() + ENOUGH;
    let (mut calls, mut kills) = (calls.to_vec(), 0);
    for nth in 1.. {
        calls.retain(|call| {
            Instant::now() < until && round(call, nth) && {
                kills += 1;
                true
            }
        });
        if calls.is_empty() {
            break;
        }
    }
    println!("killed at {kills} points");
    kills
}

fn remove(path: &Path) {
    let _ = std::fs::remove_dir_all(path).or_else(|_| std::fs::remove_file(path));
}

/// Whether a set is what a running node has.
#[track_caller]
fn is_equal(set: &Path, node: &Node, scratch: &Path) {
    let output =
        node.verb(&["verify", set.to_str().unwrap(), "--against", "--scratch", scratch.to_str().unwrap()]);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        said(&output)
    );
}

#[test]
fn tier_a_save_that_is_killed_at_any_call_is_whole_or_refused_by_name_and_the_next_one_is_made() {
    tier!("strace");
    let root = memory();
    let (node, _) = source(root.path().join("A"));
    let set = root.path().join("set");
    let target = format!("dir:{}", set.display());
    let (mut halves, mut wholes) = (0, 0);
    let kills = at_each(&["write", "fsync", "openat", "mkdir"], |call, nth| {
        let args = ["save", "--to", &target, "--part-size", "1M", "--dir", node.dir.to_str().unwrap()];
        let killed = killed(&args, call, nth).is_some();
        if set.exists() && !set.join("part-00001.hbs").exists() {
            // Not even its first file.
            refused(&command(&["verify", set.to_str().unwrap()]), 2, "no such file");
        } else if set.exists() && verified_no_save(&set) {
            assert!(killed, "a save that came to its end is none");
            halves += 1;
        } else if set.exists() && command(&["verify", set.to_str().unwrap()]).status.success() {
            wholes += 1;
            is_equal(&set, &node, root.path());
        }
        remove(&set);
        killed
    });
    println!("{halves} were none, {wholes} whole");
    assert!(kills >= KILLS_MIN && halves > 2 && wholes > 0, "{kills} kills, {halves} halves, {wholes} whole");
    node.done(&["save", "--to", &target]);
    is_equal(&set, &node, root.path());
}

#[test]
fn tier_a_restore_that_is_killed_at_any_call_never_serves_unfinished_and_begun_again_is_equal() {
    tier!("strace");
    let root = memory();
    let (node, told) = source(root.path().join("A"));
    let set = root.path().join("set");
    node.done(&["save", "--to", &to(&set)]);
    let dir = root.path().join("C");
    let mut unfinished = 0;
    let calls = ["write", "fsync", "renameat2", "rename", "unlink", "openat", "mkdir", "pwrite64"];
    let kills = at_each(&calls, |call, nth| {
        let mut other = third(&node, dir.clone(), ("c", "standby"));
        let args = ["restore", "--from", set.to_str().unwrap(), "--dir", dir.to_str().unwrap()];
        let killed = killed(&args, call, nth).is_some();
        if other.dir.join("restoring").exists() {
            assert!(killed);
            unfinished += 1;
            refused(&other.verb(&["serve"]), 2, "a restore into it is not finished");
        }
        if killed {
            // It may have been killed behind its last step.
            let again = other.verb(&["restore", "--from", set.to_str().unwrap()]);
            let whole = said(&again).contains("it has been part of a pair");
            assert!(again.status.success() || whole, "{call} {nth}: {}", said(&again));
        }
        assert!(!other.dir.join("restoring").exists());
        other.start();
        other.status("to stand by", |status| status["state"] == "standby");
        audit(&other.door, &told).is_complete();
        is_equal(&set, &other, root.path());
        drop(other);
        remove(&dir);
        killed
    });
    assert!(kills >= KILLS_MIN && unfinished > 2, "{kills} kills, {unfinished} unfinished");
}

#[test]
fn tier_a_restore_into_a_primary_that_is_killed_at_any_call_goes_on_to_the_same_end() {
    tier!("strace");
    let root = memory();
    let (node, _) = source(root.path().join("A"));
    let set = root.path().join("set");
    node.done(&["save", "--to", &to(&set)]);
    let before = items(&node.door, "app,orders,");
    let scratch = root.path().join("scratch");
    let mut partly = 0;
    let calls = ["write", "sendto", "fsync", "unlink", "openat"];
    let kills = at_each(&calls, |call, nth| {
        let mut client = node.redis();
        for key in before.keys().step_by(3) {
            redis::cmd("DEL").arg(key).query::<()>(&mut client).unwrap();
        }
        redis::cmd("SET").arg("app,orders,since").arg("kept").query::<()>(&mut client).unwrap();
        std::fs::create_dir(&scratch).unwrap();
        let (from, below) = (set.to_str().unwrap(), scratch.to_str().unwrap());
        let args = ["restore", "--from", from, "--only", "app,orders", "--scratch", below, "--dir"];
        let killed = killed(&[&args[..], &[node.dir.to_str().unwrap()]].concat(), call, nth).is_some();
        // What is back is as it was, item by item.
        let mut there = items(&node.door, "app,orders,");
        assert_eq!(there.remove(&b"app,orders,since"[..]).as_deref(), Some(&b"kept"[..]));
        assert!(there.iter().all(|(key, value)| before.get(key) == Some(value)), "{call} {nth}");
        let gone = before.keys().step_by(3).filter(|key| !there.contains_key(*key)).count();
        partly += u32::from(gone > 0 && gone < before.keys().step_by(3).count());
        assert!(killed || gone == 0, "{call} {nth}: {gone} are not back");
        let output = node.verb(&args[..args.len() - 1]);
        assert!(output.status.success(), "{call} {nth}: {}", said(&output));
        there = items(&node.door, "app,orders,");
        there.remove(&b"app,orders,since"[..]);
        assert!(there == before, "{call} {nth}");
        remove(&scratch);
        killed
    });
    println!("{partly} were killed with some items back");
    assert!(kills >= KILLS_MIN, "{kills} kills");
    assert_eq!(node.state(), "serving");
}

#[test]
fn a_save_whose_node_is_killed_fails_by_name_leaves_no_set_and_the_next_one_is_whole() {
    let temp = tempfile::tempdir().unwrap();
    let (mut node, told) = source(temp.path().join("A"));
    for least in [1, 1 << 20] {
        let set = temp.path().join("set");
        let dir = node.dir.to_str().unwrap().to_owned();
        let mut save = begins(&["save", "--to", &to(&set), "--rate", "300K", "--dir", &dir]);
        let size = || std::fs::metadata(&set).map_or(0, |found| found.len());
        wait_until("some of it to be written", || (size() >= least).then_some(()));
        node.kill();
        assert_eq!(save.0.wait().unwrap().code(), Some(2), "at {} bytes", size());
        assert!(!set.exists(), "half a save is of no use");
        node.start_alone();
        node.done(&["save", "--to", &to(&set)]);
        is_equal(&set, &node, temp.path());
        std::fs::remove_file(&set).unwrap();
    }
    audit(&node.door, &told).is_complete();
}

//! A pair of real nodes as its users meet it, through the command line and the Redis client crate: what reaches the
//! standby, what survives a killed node, and that nothing that was acknowledged is unaccounted for.

use crate::support::{Door, Load, Node, Pair, Plan, Shape, audit, here, items, skipped, some, wait_until};
use nix::sys::signal::Signal;
use redis::{Commands, RedisResult};
use std::collections::HashSet;
use std::time::{Duration, Instant};

fn error_of(result: RedisResult<()>) -> String {
    result.expect_err("it must be refused").code().unwrap_or_default().to_owned()
}

/// What the node answers to a write that it must refuse.
fn refusal(node: &Node) -> String {
    error_of(node.redis().set("app,orders,1001", "refused"))
}

#[test]
fn the_set_up_of_the_readme_gives_a_pair_that_outlives_its_primary() {
    let mut pair = Pair::set_up(&Plan::default());
    pair.a.start();
    pair.b.start();
    pair.a.serves();
    pair.a.done(&["account", "create", "app"]);
    pair.a.done(&["file", "create", "app,orders", "--records", "--flags", "L"]);
    pair.connected();
    let (mut a, mut b) = (pair.a.redis(), pair.b.redis());
    let () = a.set("app,orders,1001", "hello").unwrap();
    wait_until("the update on the standby", || {
        (b.get::<_, Option<String>>("app,orders,1001").unwrap().as_deref() == Some("hello")).then_some(())
    });
    assert_eq!(refusal(&pair.b), "READONLY");
    pair.converges();
    let [of_a, of_b] = [&pair.a, &pair.b].map(|node| match node.door {
        Door::Tcp(address) => address,
        Door::Unix(_) => unreachable!("its door is on TCP"),
    });
    let told: String = redis::cmd("INFO").arg("replication").query(&mut a).unwrap();
    assert!(told.contains(&format!("slave0:ip={},port={},", of_b.ip(), of_b.port())), "{told}");
    let told: String = redis::cmd("INFO").arg("replication").query(&mut b).unwrap();
    assert!(
        told.contains(&format!("master_host:{}\r\nmaster_port:{}\r\n", of_a.ip(), of_a.port())),
        "{told}"
    );

    // The standby need not be idle: it has files of its own.
    pair.b.done(&["account", "create", "own"]);
    pair.b.done(&["file", "create", "own,notes", "--records"]);
    let () = b.set("own,notes,1", "mine").unwrap();

    pair.a.kill();
    let account = pair.b.json(&["takeover", "--peer-is-down"]);
    assert_eq!(account["name"], "b");
    assert_eq!(account["kept_up_to"], account["announced"]);
    assert_eq!((&account["lost_announced"], &account["durable_level_lost"]), (&0.into(), &0.into()));
    assert!(account["epoch"].as_u64() > account["old_epoch"].as_u64());
    let mut b = pair.b.redis();
    let () = b.set("app,orders,1002", "after").unwrap();
    let kept: Vec<String> = b.mget(&["app,orders,1001", "app,orders,1002", "own,notes,1"]).unwrap();
    assert_eq!(kept, ["hello", "after", "mine"]);

    // It had nothing that the pair did not keep, so it follows; it must not serve.
    pair.a.start();
    pair.a.status("to be the standby", |s| s["state"] == "standby" && s["epoch"] == account["epoch"]);
    assert_eq!(refusal(&pair.a), "READONLY");
    wait_until("the old primary to follow", || {
        let there: Option<String> = pair.a.redis().get("app,orders,1002").unwrap();
        (there.as_deref() == Some("after")).then_some(())
    });
}

#[test]
fn a_transaction_is_one_step_for_readers_of_the_standby_and_waits_tell_the_truth() {
    let mut pair = Pair::start(&Plan::quick());
    let (mut a, mut b) = (pair.a.redis(), pair.b.redis());
    let seen = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut seen = HashSet::new();
            while !seen.contains(&Some("299".to_owned())) {
                let [x, y]: [Option<String>; 2] = b.mget(&["app,orders,x", "app,orders,y"]).unwrap();
                assert_eq!(x, y, "half of a transaction was seen");
                seen.insert(x);
            }
            seen.len()
        });
        for n in 0..300 {
            let mut both = redis::pipe();
            both.atomic().set("app,orders,x", n).ignore().set("app,orders,y", n).ignore();
            let () = both.query(&mut a).unwrap();
        }
        reader.join().unwrap()
    });
    assert!(seen > 1, "the reader came too late to see anything");

    // Half of it would go to a journal that the standby does not get.
    pair.a.done(&["file", "create", "app,plain", "--records"]);
    let () = redis::cmd("MULTI").query(&mut a).unwrap();
    let () = a.set("app,orders,x", "no").unwrap();
    let () = a.set("app,plain,x", "no").unwrap();
    assert_eq!(error_of(redis::cmd("EXEC").query(&mut a)), "CROSSSLOT");
    assert_eq!(a.get::<_, String>("app,orders,x").unwrap(), "299");

    let wait = |a: &mut redis::Connection, ms: u64| -> i64 {
        let () = a.set("app,orders,waited", ms).unwrap();
        redis::cmd("WAIT").arg(1).arg(ms).query(a).unwrap()
    };
    assert_eq!(wait(&mut a, 60_000), 1);
    let both: [i64; 2] = redis::cmd("WAITAOF").arg(1).arg(1).arg(60_000).query(&mut a).unwrap();
    assert_eq!(both, [1, 1]);
    pair.b.kill();
    assert_eq!(wait(&mut a, 200), 0);
    let one: [i64; 2] = redis::cmd("WAITAOF").arg(1).arg(1).arg(100).query(&mut a).unwrap();
    assert_eq!(one, [1, 0]);
}

#[test]
fn a_scan_misses_no_item_that_was_there_throughout() {
    let pair = Pair::start(&Plan::quick());
    let mut a = pair.a.redis();
    let ids = (0..5000).map(|n| format!("app,orders,kept-{n}"));
    let mut pipe = redis::pipe();
    ids.clone().for_each(|id| {
        pipe.set(id, "x").ignore();
    });
    let () = pipe.query(&mut a).unwrap();
    let load = Load::start(&pair.a.door, Shape { writers: 2, window: 4, ..Shape::default() });
    let deleter = std::thread::scope(|scope| {
        // Items come and go on both sides of the cursor.
        let deleting = scope.spawn(|| {
            let mut other = pair.a.redis();
            for n in 0..400 {
                let () = other.set(format!("app,orders,kept-{n}-gone"), "x").unwrap();
                let () = other.del(format!("app,orders,kept-{}-gone", n / 2)).unwrap();
            }
        });
        for door in [&pair.a.door, &pair.a.door] {
            let found = items(door, "app,orders,kept-");
            let missed: Vec<_> = ids.clone().filter(|id| !found.contains_key(id.as_bytes())).collect();
            assert!(missed.is_empty(), "missed {missed:?}");
        }
        deleting.join()
    });
    deleter.unwrap();
    let all = load.finish();
    audit(&pair.a.door, &all).is_complete();
    pair.converges();
}

/// Kills the primary under load at some moment and takes over: at level durable nothing may be missing.
fn nothing_durable_is_lost(driver: &'static str) {
    let mut pair = Pair::start(&Plan::quick().init(&["--ack-level", "durable"]).io(driver));
    let load = Load::start(&pair.a.door, Shape { writers: 6, ..Shape::default() });
    load.goes_on(some(200));
    pair.a.kill();
    let all = load.finish();
    let account = pair.b.json(&["takeover", "--peer-is-down"]);
    assert_eq!(account["durable_level_lost"], 0);
    let found = audit(&pair.b.door, &all);
    assert!(found.acked >= 200, "{found:?}");
    found.is_complete();
    // It may hold updates that were answered to nobody. Whatever it is, it never serves again.
    pair.a.start();
    pair.a.status("to have stepped down", |s| s["state"] == "standby" || s["state"] == "diverged");
    let refused = refusal(&pair.a);
    assert!(refused == "READONLY" || refused == "MASTERDOWN", "{refused}");
}

#[test]
fn at_level_durable_no_acknowledged_update_is_missing_after_a_takeover_with_epoll() {
    nothing_durable_is_lost("epoll");
}

#[test]
fn at_level_durable_no_acknowledged_update_is_missing_after_a_takeover_with_io_uring() {
    let probe = Pair::set_up(&Plan::quick());
    if !probe.a.has_uring() {
        return skipped(here!(), "needs io_uring");
    }
    nothing_durable_is_lost("uring");
}

#[test]
fn at_level_local_what_is_missing_after_a_takeover_is_exactly_what_the_old_primary_lists() {
    let mut pair = Pair::start(&Plan::quick().config("on_diverged = \"wait\""));
    let load = Load::start(&pair.a.door, Shape::default());
    load.goes_on(some(200));
    pair.b.kill();
    load.goes_on(some(100));
    pair.a.kill();
    let all = load.finish();
    pair.b.start();
    let account = pair.b.json_when_up(&["takeover", "--peer-is-down"]);
    let found = audit(&pair.b.door, &all);
    assert!(found.missing.len() >= 50, "the standby was down while updates were acknowledged: {found:?}");

    pair.a.start();
    pair.a.status("to have stepped down", |status| status["state"] == "diverged");
    let listed = pair.a.diverged();
    let first = listed.first().expect("something is listed");
    assert_eq!(first["seq"].as_u64(), account["kept_up_to"].as_u64().map(|kept| kept + 1));
    let text = |line: &serde_json::Value, key: &str| line[key].as_str().unwrap_or_default().to_owned();
    let saved: HashSet<_> = listed.iter().map(|line| (text(line, "item"), text(line, "value"))).collect();
    let puts = listed.iter().filter(|line| line["kind"] == "put").count();
    let value = |writer: usize, n: usize| String::from_utf8(all[writer].value(n)).unwrap();
    let mut unsaved = found.missing.iter().filter(|(w, n)| !saved.contains(&(all[*w].id(*n), value(*w, *n))));
    assert_eq!(unsaved.next(), None, "acknowledged, not here and not listed");
    // Whatever else is listed was sent and never answered.
    let unanswered: usize = all.iter().map(|told| told.sent - told.answers.len()).sum();
    assert!(puts >= found.missing.len() && puts <= found.missing.len() + unanswered, "{puts} of {found:?}");
    assert_eq!(refusal(&pair.a), "MASTERDOWN");
}

/// A primary that was killed with entries that its standby, which then took over, never had.
fn diverging_pair() -> Pair {
    // With the times of a pair that was set up by hand.
    let mut pair = Pair::start(&Plan::default().config("on_diverged = \"wait\""));
    pair.converges();
    pair.b.kill();
    let () = pair.a.redis().set("app,orders,lost", "x").unwrap();
    pair.a.kill();
    pair.b.start();
    pair.b.json_when_up(&["takeover", "--peer-is-down"]);
    pair.b.serves();
    pair
}

/// A diverged node may be dialled by its peer, or dials it, after three seconds at latest; the rest is for a slow machine.
const KNOWN_WITHIN: Duration = Duration::from_millis(3_100 + 3_000);

#[track_caller]
fn knows_that_it_is_diverged(node: &Node, since: Instant) {
    let state = node.status("to know its role", |status| status["state"] == "diverged");
    let took = since.elapsed();
    assert!(took < KNOWN_WITHIN, "it took {took:?}: {state}");
}

#[test]
fn an_old_primary_that_comes_back_tells_within_seconds_that_it_is_diverged() {
    let mut pair = diverging_pair();
    pair.a.start();
    knows_that_it_is_diverged(&pair.a, Instant::now());
}

#[test]
fn an_old_primary_that_asks_tells_that_it_is_diverged_within_seconds_after_its_successor_is_back() {
    let mut pair = diverging_pair();
    pair.b.kill();
    pair.a.start();
    pair.a.incident("waiting-for-peer");
    // It has asked in vain for long enough to ask as seldom as it ever does.
    let began = Instant::now();
    pair.a.status("to have asked for a while", |_| began.elapsed() > Duration::from_secs(8));
    pair.b.start();
    knows_that_it_is_diverged(&pair.a, Instant::now());
}

#[test]
fn a_file_that_becomes_dl_is_copied_to_the_standby_while_it_is_written() {
    let pair = Pair::start(&Plan::quick());
    pair.a.done(&["file", "create", "app,plain", "--records"]);
    let mut a = pair.a.redis();
    let mut pipe = redis::pipe();
    for n in 0..1500 {
        pipe.set(format!("app,plain,{n}"), format!("old {n}")).ignore();
    }
    let () = pipe.query(&mut a).unwrap();
    let unknown = pair.b.redis().get::<_, ()>("app,plain,1").expect_err("it is not on the standby");
    assert!(unknown.to_string().contains("no such file"), "{unknown}");
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            let mut a = pair.a.redis();
            for n in 0..300 {
                let () = a.set(format!("app,plain,{}", n * 5), format!("new {n}")).unwrap();
                let () = a.del(format!("app,plain,{}", n * 5 + 1)).unwrap();
            }
        });
        pair.a.done(&["set-dptr", "+L", "app,plain"]);
        writing.join().unwrap();
    });
    assert!(pair.a.incident("copied").contains("app,plain"));
    pair.converges();
    let copied = items(&pair.b.door, "app,plain,");
    assert_eq!(copied.len(), 1200);
    assert_eq!(copied[b"app,plain,1495".as_slice()], b"new 299");

    // What is never logged cannot be a DL file, and says so.
    pair.a.done(&["file", "create", "app,scratch", "--records", "--flags", "X"]);
    assert_eq!(pair.a.verb(&["set-dptr", "+L", "app,scratch"]).status.code(), Some(1));
}

#[test]
fn what_was_written_while_logging_was_paused_is_copied_when_it_goes_on() {
    let pair = Pair::start(&Plan::quick());
    let mut a = pair.a.redis();
    let () = a.mset(&[("app,orders,1", "before"), ("app,orders,2", "before")]).unwrap();
    pair.converges();
    pair.a.done(&["log", "pause"]);
    assert_eq!(pair.a.json(&["status"])["logging"], "paused");
    let () = a.mset(&[("app,orders,2", "meanwhile"), ("app,orders,3", "meanwhile")]).unwrap();
    let () = a.del("app,orders,1").unwrap();
    let on_b: Vec<Option<String>> =
        pair.b.redis().mget(&["app,orders,1", "app,orders,2", "app,orders,3"]).unwrap();
    assert_eq!(on_b, [Some("before".to_owned()), Some("before".to_owned()), None]);
    pair.a.done(&["log", "resume"]);
    let () = a.set("app,orders,4", "after").unwrap();
    wait_until("the copy", || {
        let on_b: Vec<Option<String>> = pair.b.redis().mget(&["app,orders,1", "app,orders,3"]).unwrap();
        (on_b == [None, Some("meanwhile".to_owned())]).then_some(())
    });
    pair.converges();
}

#[test]
fn a_standby_that_dies_under_load_catches_up() {
    let mut pair = Pair::start(&Plan::quick().segments("128K"));
    let load = Load::start(&pair.a.door, Shape::default());
    for _ in 0..2 {
        load.goes_on(some(150));
        pair.b.kill();
        load.goes_on(some(150));
        pair.b.start();
        pair.connected();
    }
    load.goes_on(100);
    let all = load.finish();
    assert_eq!(all.iter().flat_map(|told| told.refusals()).next(), None);
    pair.converges();
    audit(&pair.b.door, &all).is_complete();
}

#[test]
fn both_nodes_stop_in_time_under_load_and_have_everything_when_they_are_back() {
    let mut pair = Pair::start(&Plan::quick());
    let load = Load::start(&pair.a.door, Shape::default());
    load.goes_on(some(100));
    let begin = Instant::now();
    for node in [&mut pair.b, &mut pair.a] {
        node.signal(Signal::SIGTERM);
    }
    for node in [&mut pair.a, &mut pair.b] {
        assert_eq!(node.ended().code(), Some(0));
    }
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    let all = load.finish();
    pair.a.start();
    pair.b.start();
    pair.a.serves();
    audit(&pair.a.door, &all).is_complete();
    pair.connected();
    pair.converges();
}

/// The commands of the README's first section on a pair.
fn five_minutes() -> String {
    let readme = include_str!("../README.md");
    let section =
        readme.split("\n## ").find(|section| section.starts_with("A pair in five minutes")).unwrap();
    let block = section.split("```sh\n").nth(1).unwrap();
    block.split("```").next().unwrap().to_owned()
}

#[test]
fn tier_the_five_minutes_of_the_readme_run_as_a_script_word_by_word() {
    crate::support::tier!("root", "redis-cli", "unshare", "ip", "bash");
    // Whatever the shell of a newcomer is.
    for shell in ["bash", "sh"] {
        run_five_minutes(shell);
    }
}

/// Runs a script with the program on its path, a network of its own, as its addresses and ports are fixed, and an end to
/// all that it started.
fn run_script(shell: &str, script: &str) -> std::process::Output {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("bin");
    std::fs::create_dir(&path).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_hot-backup"), path.join("hot-backup")).unwrap();
    std::fs::write(temp.path().join("script"), script).unwrap();
    // A loopback of its own, as the ports are those of the README; what still runs at the end goes with the namespace.
    let command = format!("ip link set lo up && {shell} ./script");
    std::process::Command::new("timeout")
        .args([
            "--kill-after=5",
            "120",
            "unshare",
            "--net",
            "--pid",
            "--fork",
            "--kill-child",
            "bash",
            "-c",
            &command,
        ])
        .current_dir(temp.path())
        .env(
            "PATH",
            format!("{}:{}:/usr/sbin:/sbin", path.display(), std::env::var("PATH").unwrap_or_default()),
        )
        .env_remove("HOT_BACKUP_DIR")
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap()
}

fn run_five_minutes(shell: &str) {
    let output = run_script(shell, &five_minutes());
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
    let lines: Vec<&str> = out.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(lines.last(), Some(&"OK"), "{out}\n{err}");
    let set = lines.iter().position(|line| *line == "OK").unwrap();
    assert_eq!(lines.get(set + 1), Some(&"hello"), "the standby shows what was set:\n{out}\n{err}");
    assert!(out.contains("a: primary, serving") && out.contains("\"name\":\"b\""), "{out}\n{err}");
    assert!(!err.contains("what to do"), "nothing was refused:\n{err}");
}

#[test]
fn tier_nodes_that_start_before_the_machine_has_its_addresses_meet_once_it_has_them() {
    crate::support::tier!("root", "unshare", "ip", "bash");
    let script = "
hot-backup init --dir A --name a --role primary --link-listen 10.99.0.1:2001 --peer 10.99.0.2:2000
hot-backup init --dir B --name b --role standby --link-listen 10.99.0.2:2000 --peer 10.99.0.1:2001
hot-backup trust --dir A \"$(hot-backup identity --dir B)\"; hot-backup trust --dir B \"$(hot-backup identity --dir A)\"
hot-backup serve --dir A &  hot-backup serve --dir B &
until hot-backup status --dir A 2>&1 | grep -q asking-peer; do sleep 0.1; done
until hot-backup status --dir B 2>&1 | grep -q 'b: standby, epoch'; do sleep 0.1; done
hot-backup status --dir A
ip address add 10.99.0.1/32 dev lo; ip address add 10.99.0.2/32 dev lo
hot-backup account create app --wait 60 --dir A && echo met
";
    let output = run_script("bash", script);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(out.contains("a: primary, asking-peer") && out.ends_with("met\n"), "{out}\n{err}");
    assert_eq!(err.matches("is not an address of this machine yet").count(), 2, "{err}");
}

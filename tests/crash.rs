//! Crashes of real nodes on real disks: killed at every write, power lost under ext4, a disk that fails or is full.
//! After each, every update that was acknowledged is there and none is half.

use crate::support::{
    Disk, EXPORT, Load, Nbd, Node, Plan, Shape, Told, audit, here, lacking, loopback_addresses, make_volume,
    memory, scratch, serves_volumes_at, some, tier, wait_until,
};
use redis::Commands;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A primary alone in `dir`, serving, with the DL file `app,orders`.
fn primary(dir: PathBuf, plan: &Plan) -> Node {
    let mut node = Node::alone(dir, plan);
    node.start_alone();
    node.make_orders();
    node
}

/// Through strace, which kills the process, or fails its call, when one of its threads makes the call the `nth` time.
/// The process itself stays our child. (Not with `--seccomp-bpf`, which is quicker: calls are not counted then.)
pub(crate) fn injecting(call: &str, what: &str, nth: usize) -> Vec<String> {
    let inject = format!("inject={call}:{what}:when={nth}");
    let trace = format!("trace={call}");
    let words = ["strace", "-D", "-f", "-q", "-o", "/dev/null", "-e", &trace, "-e", &inject];
    words.map(str::to_owned).to_vec()
}

/// The calls by which a node changes what is on its disk, journal and store alike.
const CALLS: [&str; 9] =
    ["pwritev2", "write", "fsync", "renameat2", "fallocate", "ftruncate", "unlink", "renameat", "rename"];

#[test]
fn tier_a_primary_killed_at_any_write_or_sync_has_all_that_it_acknowledged() {
    tier!("strace");
    let root = memory();
    let until = Instant::now() + Duration::from_secs(60);
    // Two nodes, each killed at calls of its own.
    let (some, others) = CALLS.split_at(1);
    let kills = std::thread::scope(|scope| {
        let killer = |calls, name| {
            let dir = root.path().join(name);
            scope.spawn(move || killed_at_each(calls, &dir, until))
        };
        let killers = [killer(some, "one"), killer(others, "two")];
        killers.map(|killer| killer.join().unwrap())
    });
    println!("killed at {kills:?} points");
    assert!(kills.iter().all(|kills| *kills >= 15), "only {kills:?} points were reached in time");
}

/// Kills nodes in `dir` at each of `calls` when they are made the first time, the second time, and so on.
fn killed_at_each(calls: &[&str], dir: &Path, until: Instant) -> u32 {
    std::fs::create_dir(dir).unwrap();
    // Small segments, and a store that is made durable often: whatever a node does, it does early.
    let plan = Plan::quick().segments("64K").config("checkpoint_ms = 100").io("epoll");
    let mut base = primary(dir.join("base"), &plan);
    let first = Load::start(&base.door, Shape { most: 4, ..Shape::default() }).run_to_the_end();
    base.kill();
    let (mut calls, mut kills) = (calls.to_vec(), 0);
    for nth in 1.. {
        // A call that is not made so often in a whole run has been killed everywhere.
        calls.retain(|call| {
            let round = || Round { base: &base, first: &first, call, nth }.killed(dir.join("node"));
            Instant::now() < until && round().inspect(|more| kills += more).is_some()
        });
        if calls.is_empty() {
            break;
        }
    }
    kills
}

/// A run of a copy of a node that is killed at a call.
struct Round<'a> {
    base: &'a Node,
    first: &'a [Told],
    call: &'a str,
    nth: usize,
}

impl Round<'_> {
    /// Runs it; how often it was killed, or none if it came to the end of its work.
    fn killed(&self, dir: PathBuf) -> Option<u32> {
        let Self { base, first, call, nth } = *self;
        let mut node = base.copy(dir.clone());
        node.start_through(&injecting(call, "signal=KILL", nth));
        let mut told = first.to_vec();
        let mut whole = node.serves_alone();
        if whole {
            let shape = Shape { writers: 2, window: 2, most: 150, first: 10, ..Shape::default() };
            let load = Load::start(&node.door, shape).run_to_the_end();
            // The end of its connections is seen before that of the process.
            whole = load.iter().all(|told| told.answers.len() == shape.most) && node.runs();
            told.extend(load);
        }
        let mut kills = u32::from(!whole);
        node.kill();
        if nth % 2 == 0 {
            // Recovery is a run like any other: killed, it is done again.
            node.start_through(&injecting(call, "signal=KILL", nth / 2));
            kills += u32::from(!node.serves_alone());
            node.kill();
        }
        node.start_alone();
        audit(&node.door, &told).is_complete();
        drop(node);
        std::fs::remove_dir_all(dir).unwrap();
        (kills > 0).then_some(kills)
    }
}

#[test]
fn tier_a_primary_killed_at_random_under_load_has_all_that_it_acknowledged() {
    tier!();
    let root = scratch();
    let probe = Node::alone(root.path().join("probe"), &Plan::quick());
    if !probe.has_uring() {
        return lacking(here!(), "io_uring");
    }
    let mut node = primary(root.path().join("node"), &Plan::quick().segments("128K").io("uring"));
    let mut told = Vec::new();
    for round in 0..20 {
        let load = Load::start(&node.door, Shape { first: round * 10, ..Shape::default() });
        load.goes_on(some(50));
        std::thread::sleep(Duration::from_micros(some(5000)));
        node.kill();
        told.extend(load.run_to_the_end());
        node.start_alone();
        audit(&node.door, &told).is_complete();
    }
}

#[test]
fn tier_a_primary_whose_power_was_lost_has_all_that_it_acknowledged() {
    tier!("root", "losetup", "mkfs.ext4", "python3");
    let mut disk = Disk::new(256);
    let mut node = primary(disk.path().join("node"), &Plan::quick().config("checkpoint_ms = 300"));
    let mut told = Vec::new();
    let until = Instant::now() + Duration::from_secs(45);
    for round in 0..8 {
        let load = Load::start(&node.door, Shape { first: round * 10, ..Shape::default() });
        load.goes_on(some(200));
        std::thread::sleep(Duration::from_millis(some(100)));
        disk.lose_power();
        // What it still answers now, it may not have on disk: the worst moment to be believed.
        std::thread::sleep(Duration::from_millis(some(20)));
        node.kill();
        told.extend(load.run_to_the_end());
        disk.restart();
        node.start_alone();
        audit(&node.door, &told).is_complete();
        if Instant::now() > until {
            assert!(round >= 2, "only {round} rounds were done in time");
            break;
        }
    }
}

/// strace attached to threads; it lets go when this is dropped.
struct Tracer(Child);

impl Tracer {
    fn attach(threads: &[String], inject: &str) -> Self {
        let mut strace = Command::new("strace");
        threads.iter().for_each(|thread| {
            strace.args(["-p", thread]);
        });
        strace.args(["-q", "-o", "/dev/null", "-e", "trace=pwritev2", "-e", inject]);
        let tracer = Self(strace.stderr(Stdio::null()).spawn().unwrap());
        let traced = |thread: &String| {
            let status = std::fs::read_to_string(format!("/proc/{thread}/status")).unwrap();
            status.lines().any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0"))
        };
        wait_until("strace to attach", || threads.iter().all(traced).then_some(()));
        tracer
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn tier_one_failed_write_costs_a_segment_and_two_in_a_row_make_the_node_read_only() {
    tier!("root", "strace");
    let root = scratch();
    let mut node = primary(root.path().join("node"), &Plan::quick().io("epoll"));
    let load = Load::start(&node.door, Shape::default());
    load.goes_on(100);
    let threads = node.threads("journal-write");
    assert!(!threads.is_empty(), "nobody writes the journal");
    let tracer = Tracer::attach(&threads[..1], "inject=pwritev2:error=EIO:when=1");
    assert!(node.incident("journal-poisoned").contains("Input/output error"));
    drop(tracer);
    load.goes_on(200);
    let mut told = load.finish();
    assert_eq!(told.iter().flat_map(Told::refusals).next(), None);
    assert_eq!(node.state(), "serving");
    audit(&node.door, &told).is_complete();

    let load = Load::start(&node.door, Shape { first: 10, ..Shape::default() });
    load.goes_on(100);
    let tracer = Tracer::attach(&threads, "inject=pwritev2:error=EIO");
    node.incident("journal-failed");
    // Those who wait for an answer that will never come are let go.
    told.extend(load.finish());
    drop(tracer);
    assert_eq!(node.state(), "read-only");
    let mut client = node.redis();
    let refused = client.set::<_, _, ()>("app,orders,more", "x").expect_err("it is read-only");
    assert_eq!(refused.code(), Some("MISCONF"), "{refused}");
    // What was not acknowledged is shown only if it is on the disk: its client may have been let go just before it was
    // told. To ask for it is no trap either.
    let mut shown = Vec::new();
    for last in &told[4..] {
        let update = last.answers.len();
        let id = format!("app,orders,{}", last.id(update));
        match client.get::<_, Option<String>>(&id) {
            Ok(Some(value)) if !id.ends_with("newest") => shown.push((id, value)),
            Ok(_) => {}
            Err(refused) => assert_eq!(refused.code(), Some("MISCONF"), "{refused}"),
        }
    }
    node.kill();
    node.start_alone();
    audit(&node.door, &told).is_complete();
    for (id, value) in shown {
        let kept = node.redis().get::<_, Option<String>>(&id).unwrap();
        assert!(kept.as_ref() == Some(&value), "{id} was shown as {value}, and is {kept:?}");
    }
    let () = node.redis().set("app,orders,more", "x").unwrap();
}

#[test]
fn tier_a_full_disk_refuses_updates_until_there_is_room_again() {
    tier!("root", "losetup", "mkfs.ext4");
    let disk = Disk::new(64);
    let mut node = primary(disk.path().join("node"), &Plan::quick());
    let load = Load::start(&node.door, Shape { value: 2000, ..Shape::default() });
    load.goes_on(50);
    disk.fill();
    load.is_refused();
    let mut told = load.finish();
    assert!(told.iter().flat_map(Told::refusals).all(|refusal| refusal.starts_with("OOM ")), "{told:?}");
    assert_eq!(
        told.iter().map(|told| told.sent - told.answers.len()).sum::<usize>(),
        0,
        "an update got no answer"
    );
    assert!(node.runs());
    // It does not say that it serves, and a line a moment does not fill the log as well.
    let status = node.status("to say that there is no space", |status| status["state"] == "no-space");
    assert!(
        !status["reason"].as_str().unwrap().is_empty() && !status["next"].as_str().unwrap().is_empty(),
        "{status}"
    );
    assert_eq!(node.verb(&["status", "--check"]).status.code(), Some(1));
    std::thread::sleep(Duration::from_secs(5));
    let lines =
        node.log().lines().filter(|line| line.contains("no space left") || line.contains("No space")).count();
    assert!(lines <= 24, "{lines} lines on one full disk");
    // Reading goes on.
    let () = node.redis().get::<_, Option<String>>("app,orders,w0-0").map(|_| ()).unwrap();
    disk.free();
    let mut client = node.redis();
    wait_until("updates to be taken again", || client.set::<_, _, ()>("app,orders,again", "x").ok());
    let load = Load::start(&node.door, Shape { first: 10, ..Shape::default() });
    load.goes_on(300);
    told.extend(load.finish());
    audit(&node.door, &told).is_complete();
    node.kill();
    node.start_alone();
    audit(&node.door, &told).is_complete();
}

#[test]
fn tier_clients_of_a_disk_that_hangs_are_told_so_in_time_and_all_goes_on_when_it_does() {
    tier!("root", "losetup", "mkfs.ext4", "fsfreeze");
    let disk = Disk::new(256);
    let mut node = Node::alone(disk.path().join("node"), &Plan::quick());
    let [at] = loopback_addresses();
    serves_volumes_at(&node, at);
    node.start_alone();
    node.make_orders();
    make_volume(&node, "1M");
    let mut volume = Nbd::open(at, EXPORT).unwrap();
    // Dropped first, so that the node can be ended.
    let frozen = disk.freeze();
    let began = Instant::now();
    std::thread::scope(|scope| {
        let flush = scope.spawn(|| {
            volume.write(0, &[7; 4096]).unwrap();
            volume.flush().expect_err("it cannot be safe")
        });
        let refused = node.redis().set::<_, _, ()>("app,orders,1", "x").expect_err("the disk hangs");
        assert_eq!(refused.code(), Some("IOERR"), "{refused}");
        let error = flush.join().unwrap();
        assert_eq!(error.raw_os_error(), Some(5), "{error}");
    });
    let took = began.elapsed();
    assert!(took >= Duration::from_secs(9) && took < Duration::from_secs(30), "{took:?}");
    let status = node.status("to say that its disk hangs", |status| status["state"] == "disk-hangs");
    assert!(status["next"].as_str().unwrap().contains("check the disk"), "{status}");
    assert_eq!(node.verb(&["status", "--check"]).status.code(), Some(1));
    let refused = node.redis().set::<_, _, ()>("app,orders,2", "x").expect_err("it still hangs");
    assert_eq!(refused.code(), Some("MISCONF"), "{refused}");
    drop(frozen);
    node.serves();
    let () = node.redis().set("app,orders,2", "y").unwrap();
    assert_eq!(node.redis().get::<_, String>("app,orders,1").unwrap(), "x", "it was kept after all");
    volume.flush().unwrap();
    node.incident("journal-hangs");
    node.incident("journal-moves");
}

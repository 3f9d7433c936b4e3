//! What a node has alone, in saves: the files that are not replicated, whose content no other machine has.

use crate::save::{command, refused, said, third, to, verified};
use crate::support::{
    Nbd, Node, Pair, Plan, items, loopback_addresses, make_volume, serves_volumes_at, wait_until,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

/// The volume that the node has alone.
const OWN: &str = "own/disk";
const BLOCKS: u64 = 64;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A primary alone that has files alone: of items two flagged T and one without a flag, a volume, one flagged Y and one X.
fn node(temp: &Path) -> (Node, std::net::SocketAddr) {
    let mut node = Node::alone(temp.join("A"), &Plan::quick().config("checkpoint_ms = 100"));
    let [at] = loopback_addresses();
    serves_volumes_at(&node, at);
    node.start_alone();
    node.make_orders();
    make_volume(&node, "1M");
    node.done(&["account", "create", "own"]);
    for (name, flags) in
        [("own,a", "T"), ("own,b", "T"), ("app,plain", ""), ("app,views", "Y"), ("app,never", "X")]
    {
        node.done(&["file", "create", name, "--flags", flags]);
    }
    node.done(&["file", "create", "own,disk", "--blocks", "--size", "1M", "--flags", "T"]);
    node.done(&["item", "put", "app,orders", "1", "one"]);
    node.done(&["item", "put", "app,plain", "p", "plain"]);
    node.done(&["item", "put", "app,views", "y", "not saved"]);
    node.done(&["item", "put", "app,never", "x", "not saved"]);
    (node, at)
}

/// Writes a number to one file, to the volume, and to the other file; then the next one.
struct Rounds {
    over: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Rounds {
    fn start(node: &Node, at: std::net::SocketAddr) -> Self {
        let (over, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (until, told) = (Arc::clone(&over), Arc::clone(&done));
        let mut door = node.door.connect();
        let thread = std::thread::spawn(move || {
            let mut disk = Nbd::open(at, OWN).unwrap();
            for n in 1_u64.. {
                if until.load(Ordering::Relaxed) {
                    return;
                }
                let set = |door: &mut redis::Connection, file: &str| {
                    redis::cmd("SET").arg(format!("own,{file},{n:08}")).arg(n).exec(door).unwrap();
                };
                set(&mut door, "a");
                disk.write(n % BLOCKS * 4096, &n.to_le_bytes().repeat(512)).unwrap();
                disk.flush().unwrap();
                set(&mut door, "b");
                told.store(n, Ordering::Release);
            }
        });
        Self { over, done, thread }
    }

    fn goes_on(&self, more: u64) -> u64 {
        let until = self.done.load(Ordering::Acquire) + more;
        wait_until("rounds to be written", || (self.done.load(Ordering::Acquire) >= until).then_some(()));
        until
    }

    fn end(self) {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
    }
}

/// How many rounds a node shows, if it is as it was at one moment.
#[track_caller]
fn rounds(node: &Node, at: std::net::SocketAddr) -> u64 {
    let count = |file: &str| {
        let found = items(&node.door, &format!("own,{file},"));
        let last = found.len() as u64;
        let all = (1..=last)
            .all(|n| found.get(format!("own,{file},{n:08}").as_bytes()) == Some(&n.to_string().into_bytes()));
        assert!(all, "own,{file} has a hole in {last} items");
        last
    };
    let (a, b) = (count("a"), count("b"));
    let mut disk = Nbd::open(at, OWN).unwrap();
    let block = |disk: &mut Nbd, n: u64| {
        let bytes = disk.read(n * 4096, 4096).unwrap();
        let stamp = u64::from_le_bytes(bytes[..8].try_into().unwrap());
        assert!(bytes == stamp.to_le_bytes().repeat(512), "block {n} is torn");
        stamp
    };
    let stamps: Vec<u64> = (0..BLOCKS).map(|n| block(&mut disk, n)).collect();
    let newest = stamps.iter().copied().max().unwrap();
    assert!(a >= newest && newest >= b && a <= b + 1, "{a} {newest} {b}: not one moment");
    for (n, stamp) in (0..BLOCKS).zip(stamps) {
        let last =
            (newest.saturating_sub(BLOCKS - 1)..=newest).find(|round| round % BLOCKS == n && *round > 0);
        assert_eq!(stamp, last.unwrap_or(0), "block {n} of round {newest}");
    }
    b
}

fn third_with_volumes(node: &Node, dir: PathBuf) -> (Node, std::net::SocketAddr) {
    let other = third(node, dir, ("c", "standby"));
    let [there] = loopback_addresses();
    serves_volumes_at(&other, there);
    (other, there)
}

fn restored(node: &Node, dir: PathBuf, sets: &[&Path], more: &[&str]) -> (Node, std::net::SocketAddr) {
    let (mut other, there) = third_with_volumes(node, dir);
    let from = sets.iter().flat_map(|set| ["--from", text(set)]);
    other.done(&["restore"].into_iter().chain(from).chain(more.iter().copied()).collect::<Vec<_>>());
    other.start();
    other.status("to stand by", |status| status["state"] == "standby");
    (other, there)
}

fn names(of: &serde_json::Value, key: &str) -> Vec<String> {
    of[key].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
}

#[test]
fn what_a_node_has_alone_is_saved_as_it_is_at_one_moment_while_clients_write_and_comes_back() {
    let temp = tempfile::tempdir().unwrap();
    let (node, at) = node(temp.path());
    let writing = Rounds::start(&node, at);
    let before = writing.goes_on(100);
    let set = temp.path().join("set");
    let save = node.json(&["save", "--to", &to(&set), "--rate", "400K"]);
    let more = writing.goes_on(1);
    writing.end();
    assert_eq!(names(&save, "alone"), ["own,a", "own,b", "app,plain", "own,disk"], "{save}");
    assert_eq!(
        (names(&save, "definition_only"), names(&save, "left_out")),
        (vec!["app,views".to_owned()], vec!["app,never".to_owned()])
    );
    assert_eq!(verified(&set)["whole"], true);
    let shown = String::from_utf8_lossy(&command(&["save", "show", text(&set)]).stdout).into_owned();
    assert!(
        shown.contains("own,a       record, the node's alone") && shown.contains("left out  app,never\n"),
        "{shown}"
    );
    let (mut other, there) = restored(&node, temp.path().join("C"), &[&set], &[]);
    for _ in 0..2 {
        let found = rounds(&other, there);
        assert!((before..=more).contains(&found), "{found} of {before} to {more}");
        assert_eq!(other.done(&["item", "get", "app,plain", "p"]), "plain");
        assert_eq!(other.done(&["item", "get", "app,orders", "1"]), "one");
        assert!(items(&other.door, "app,views,").is_empty());
        refused(&other.verb(&["item", "get", "app,never", "x"]), 2, "no such file");
        // They are the node's own: it takes updates of them while it stands by, and keeps them.
        other.done(&["item", "put", "app,plain", "p", "plain"]);
        other.kill();
        other.start();
        other.status("to stand by", |status| status["state"] == "standby");
    }
    other.kill();
    // On word nothing of that comes.
    let (bare, _) = restored(&node, temp.path().join("D"), &[&set], &["--replicated-only"]);
    let files = bare.json(&["file", "list"]);
    let files: Vec<&str> =
        files.as_array().unwrap().iter().map(|file| file["name"].as_str().unwrap()).collect();
    assert_eq!(files, ["app,orders", "app,disk1"]);
    let lean = temp.path().join("lean");
    let save = node.json(&["save", "--to", &to(&lean), "--replicated-only"]);
    assert!(names(&save, "alone").is_empty(), "{save}");
}

#[test]
fn a_save_since_another_takes_what_changed_of_what_a_node_has_alone_and_the_chain_is_the_whole_of_it() {
    let temp = tempfile::tempdir().unwrap();
    let (node, at) = node(temp.path());
    let value = "v".repeat(3000);
    let dir = temp.path().join("items");
    std::fs::create_dir(&dir).unwrap();
    (0..1500).for_each(|n| std::fs::write(dir.join(format!("{n:04}")), &value).unwrap());
    node.done(&["item", "import", "app,plain", text(&dir)]);
    let mut disk = Nbd::open(at, OWN).unwrap();
    disk.write(0, &[7; 65536]).unwrap();
    disk.flush().unwrap();
    let (full, since) = (temp.path().join("full"), temp.path().join("since"));
    node.done(&["save", "--to", &to(&full)]);
    node.done(&["item", "put", "app,plain", "0700", "changed"]);
    node.done(&["file", "rename", "own,b", "own,later"]);
    node.done(&["item", "put", "own,later", "1", "x"]);
    node.done(&["file", "delete", "own,a", "--yes"]);
    // Behind all that the earlier set knows, replicated and not.
    for name in ["app,new1", "app,new2", "app,new3"] {
        node.done(&["file", "create", name, "--flags", "L"]);
        node.done(&["item", "put", name, "1", "one"]);
        node.done(&["file", "create", &format!("{name}t"), "--flags", "T"]);
        node.done(&["item", "put", &format!("{name}t"), "1", "alone"]);
    }
    // One that was replicated, and one that was not.
    node.done(&["set-dptr", "-L", "+T", "app,orders"]);
    disk.write(8192, &[9; 4096]).unwrap();
    disk.flush().unwrap();
    node.done(&["save", "--to", &to(&since), "--since", text(&full)]);
    let size = |path: &Path| std::fs::metadata(path).unwrap().len();
    assert!(size(&since) * 2 < size(&full), "{} of {}", size(&since), size(&full));
    let output = command(&["verify", text(&full), text(&since)]);
    assert!(output.status.success(), "{}", said(&output));
    let expected =
        [items(&node.door, "app,plain,"), items(&node.door, "app,new"), items(&node.door, "app,orders,")];
    let (mut other, there) = restored(&node, temp.path().join("C"), &[&full, &since], &[]);
    let found =
        [items(&other.door, "app,plain,"), items(&other.door, "app,new"), items(&other.door, "app,orders,")];
    assert!(found == expected, "it is another state");
    assert_eq!(other.done(&["item", "get", "own,later", "1"]), "x");
    let files = other.json(&["file", "list"]).to_string();
    assert!(!files.contains("own,a\"") && !files.contains("own,b\"") && !files.contains("local-"), "{files}");
    let mut back = Nbd::open(there, OWN).unwrap();
    let bytes = back.read(0, 1 << 20).unwrap();
    let mut wanted = vec![0; 1 << 20];
    wanted[..65536].fill(7);
    wanted[8192..12288].fill(9);
    assert!(bytes == wanted);
    other.kill();
}

#[test]
fn parts_of_what_a_node_had_alone_come_back_into_a_primary() {
    let temp = tempfile::tempdir().unwrap();
    let (node, at) = node(temp.path());
    let mut disk = Nbd::open(at, OWN).unwrap();
    disk.write(4096, &[5; 4096]).unwrap();
    disk.flush().unwrap();
    node.done(&["item", "put", "own,a", "1", "first"]);
    let set = temp.path().join("set");
    node.done(&["save", "--to", &to(&set)]);
    node.done(&["item", "put", "own,a", "1", "second"]);
    node.done(&["file", "delete", "app,plain", "--yes"]);
    disk.write(4096, &[6; 4096]).unwrap();
    disk.flush().unwrap();
    drop(disk);
    let run = |only: &[&str]| node.json(&[&["restore", "--from", text(&set), "--only"][..], only].concat());
    run(&["own,a,1"]);
    assert_eq!(node.done(&["item", "get", "own,a", "1"]), "first");
    let made = run(&["app,plain"]);
    assert_eq!((&made[0]["made"], &made[0]["new"]), (&true.into(), &1.into()), "{made}");
    assert_eq!(node.done(&["item", "get", "app,plain", "p"]), "plain");
    wait_until("the node to have let the client go", || {
        let status = node.json(&["file", "list", "own"]);
        let of = status.as_array().unwrap().iter().find(|file| file["name"] == "own,disk").unwrap();
        (of["clients"] == 0).then_some(())
    });
    assert_eq!(run(&["own,disk"])[0]["changed"], 1);
    assert!(Nbd::open(at, OWN).unwrap().read(4096, 4096).unwrap() == [5; 4096]);
    // Flags are as they were, so nothing of it is replicated.
    let files = node.json(&["file", "list"]);
    let plain = files.as_array().unwrap().iter().find(|file| file["name"] == "app,plain").unwrap();
    assert_eq!((&plain["replicated"], &plain["flags"]), (&false.into(), &"".into()), "{plain}");
    let from = ["restore", "--from", text(&set), "--only"];
    refused(&node.verb(&[&from[..], &["app,views"]].concat()), 1, "the definition alone");
    refused(&node.verb(&[&from[..], &["app,never"]].concat()), 1, "the set has no such thing");
}

#[test]
fn a_save_of_one_node_is_held_against_the_other_without_what_each_of_them_has_alone() {
    let mut pair = Pair::start(&Plan::quick());
    let temp = tempfile::tempdir().unwrap();
    pair.a.done(&["account", "create", "here"]);
    pair.b.done(&["account", "create", "there"]);
    pair.a.done(&["file", "create", "here,f", "--flags", "T"]);
    pair.a.done(&["item", "put", "here,f", "1", "of a"]);
    pair.b.done(&["file", "create", "there,f", "--flags", "T"]);
    pair.b.done(&["item", "put", "there,f", "1", "of b"]);
    pair.a.done(&["item", "put", "app,orders", "1", "of both"]);
    pair.converges();
    let (a, b) = (temp.path().join("a"), temp.path().join("b"));
    let (of_a, of_b) = (pair.a.json(&["save", "--to", &to(&a)]), pair.b.json(&["save", "--to", &to(&b)]));
    assert_eq!(
        (names(&of_a, "alone"), names(&of_b, "alone")),
        (vec!["here,f".to_owned()], vec!["there,f".to_owned()])
    );
    for (set, node) in [(&a, &pair.b), (&b, &pair.a), (&a, &pair.a)] {
        let output = node.verb(&["verify", text(set), "--against", "--scratch", text(temp.path())]);
        assert!(output.status.success(), "{}", said(&output));
    }
    // A set of one continues one of the other: what is alike comes once, what each has alone as it is there.
    let since = temp.path().join("since");
    pair.b.done(&["save", "--to", &to(&since), "--since", text(&a)]);
    pair.b.kill();
    let (other, _) = restored(&pair.a, temp.path().join("C"), &[&a, &since], &[]);
    assert_eq!(other.done(&["item", "get", "there,f", "1"]), "of b");
    assert_eq!(other.done(&["item", "get", "app,orders", "1"]), "of both");
    assert!(!other.json(&["file", "list"]).to_string().contains("\"here,f\""));
}

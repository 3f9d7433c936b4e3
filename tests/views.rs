//! Views: one moment of a node on doors of its own, while the node goes on; what becomes of them when their room is used up,
//! when the node dies, and when they are closed.

use crate::support::{
    Door, EXPORT, Load, Nbd, Node, Plan, Shape, Volumes, items, scratch, shell, tier, wait_until,
};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const BLOCKS: u64 = 64;

/// A view on TCP doors.
struct Opened {
    name: String,
    seq: u64,
    resp: Door,
    nbd: SocketAddr,
}

impl Opened {
    #[track_caller]
    fn on(node: &Node, args: &[&str]) -> Self {
        let doors = ["view", "open", "--resp", "127.0.0.1:0", "--nbd", "127.0.0.1:0"];
        let view = node.json(&[&doors[..], args].concat());
        let text = |key: &str| view[key].as_str().unwrap().to_owned();
        Self {
            name: text("name"),
            seq: view["seq"].as_u64().unwrap(),
            resp: Door::Tcp(text("resp").parse().unwrap()),
            nbd: text("nbd").parse().unwrap(),
        }
    }

    fn items(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        items(&self.resp, "app,orders,")
    }

    fn blocks(&self) -> Vec<u8> {
        volume(self.nbd)
    }
}

fn volume(at: SocketAddr) -> Vec<u8> {
    Nbd::open(at, EXPORT).unwrap().read(0, usize::try_from(BLOCKS * 4096).unwrap()).unwrap()
}

fn fill(volumes: &Volumes, byte: u8) {
    let mut client = Nbd::open(volumes.at[0], EXPORT).unwrap();
    for n in 0..BLOCKS {
        client.write(n * 4096, &vec![byte.wrapping_add(u8::try_from(n).unwrap()); 4096]).unwrap();
    }
    client.flush().unwrap();
}

fn put_some(volumes: &Volumes, first: usize) {
    Load::start(&volumes.pair.a.door, Shape { first, most: 100, ..Shape::default() }).run_to_the_end();
}

/// Files and sockets of views in a node's directory.
fn left(node: &Node) -> Vec<String> {
    let names = std::fs::read_dir(&node.dir).unwrap().map(|entry| entry.unwrap().file_name());
    names.map(|name| name.to_string_lossy().into_owned()).filter(|name| name.starts_with("view-")).collect()
}

fn views(node: &Node) -> Vec<Value> {
    node.json(&["view", "list"]).as_array().unwrap().clone()
}

#[test]
fn views_of_both_nodes_show_the_moment_at_which_they_were_opened_while_replication_goes_on() {
    let mut volumes = Volumes::start(&Plan::quick(), "16M");
    put_some(&volumes, 0);
    fill(&volumes, 1);
    volumes.pair.converges();
    let (before, blocks) = (items(&volumes.pair.b.door, "app,orders,"), volume(volumes.at[1]));
    let old = [Opened::on(&volumes.pair.a, &[]), Opened::on(&volumes.pair.b, &["--name", "monday"])];
    assert_eq!(old[0].seq, old[1].seq, "both are level");
    assert_eq!(volumes.pair.b.json(&["status"])["views"][0]["name"], "monday");

    put_some(&volumes, 1000);
    volumes.pair.a.redis().del_prefix(&before);
    fill(&volumes, 77);
    volumes.pair.a.done(&["file", "create", "app,later", "--records", "--flags", "L"]);
    volumes.pair.converges();
    let new = Opened::on(&volumes.pair.b, &[]);
    for view in &old {
        assert_eq!(view.items(), before);
        assert_eq!(view.blocks(), blocks);
        let mut client = view.resp.connect();
        let refused = redis::cmd("SET").arg("app,orders,1").arg("x").query::<()>(&mut client).unwrap_err();
        assert!(refused.to_string().contains("READONLY") || refused.code() == Some("READONLY"), "{refused}");
        redis::cmd("GET").arg("app,later,1").query::<Option<String>>(&mut client).unwrap_err();
        Nbd::open(view.nbd, EXPORT).unwrap().write(0, &[1; 4096]).unwrap_err();
    }
    assert_eq!(new.items(), items(&volumes.pair.b.door, "app,orders,"));
    assert_eq!(new.blocks(), volume(volumes.at[0]));
    assert_ne!(new.blocks(), blocks);
    let shown = views(&volumes.pair.b);
    assert!(shown[0]["used_bytes"].as_u64() >= Some(BLOCKS * 4096), "{shown:?}");
    assert_eq!(shown.len(), 2);

    // Killed, nothing of them is left but files that the next start removes.
    assert!(left(&volumes.pair.b).contains(&"view-monday.kept".to_owned()));
    volumes.pair.b.kill();
    std::fs::write(volumes.pair.b.dir.join("view-mine.txt"), "precious").unwrap();
    volumes.pair.b.start();
    volumes.pair.b.status("to follow again", |status| status["peer"]["connected"] == true);
    assert_eq!(left(&volumes.pair.b), ["view-mine.txt"]);
    assert!(views(&volumes.pair.b).is_empty());
    let closed = volumes.pair.a.json(&["view", "close", &old[0].name]);
    assert_eq!(closed["state"], "closed");
    assert_eq!(left(&volumes.pair.a), Vec::<String>::new());
    let output = volumes.pair.a.verb(&["view", "close", &old[0].name]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    volumes.pair.converges();
}

trait Deletes {
    fn del_prefix(self, items: &BTreeMap<Vec<u8>, Vec<u8>>);
}

impl Deletes for redis::Connection {
    fn del_prefix(mut self, items: &BTreeMap<Vec<u8>, Vec<u8>>) {
        for key in items.keys().step_by(2) {
            redis::cmd("DEL").arg(key).exec(&mut self).unwrap();
        }
    }
}

#[test]
fn what_is_written_to_a_view_is_seen_there_alone_and_goes_with_it() {
    let volumes = Volumes::start(&Plan::quick(), "16M");
    put_some(&volumes, 0);
    fill(&volumes, 1);
    volumes.pair.converges();
    let (before, blocks) = (items(&volumes.pair.b.door, "app,orders,"), volume(volumes.at[1]));
    let view = Opened::on(&volumes.pair.b, &["--writable", "--name", "trial"]);
    let mut client = view.resp.connect();
    redis::cmd("SET").arg("app,orders,new").arg("x").exec(&mut client).unwrap();
    let first = before.keys().next().unwrap();
    redis::cmd("DEL").arg(first).exec(&mut client).unwrap();
    redis::pipe().atomic().set("app,orders,p", "1").set("app,orders,q", "2").exec(&mut client).unwrap();
    let mut disk = Nbd::open(view.nbd, EXPORT).unwrap();
    disk.write(4090, &[9; 20]).unwrap();
    disk.flush().unwrap();
    let found = view.items();
    assert_eq!(found.len(), before.len() + 2);
    assert!(!found.contains_key(first) && found.contains_key(b"app,orders,new".as_slice()));
    let mut changed = blocks.clone();
    changed[4090..4110].fill(9);
    assert!(view.blocks() == changed);
    // The node and its peer know nothing of it.
    fill(&volumes, 50);
    volumes.pair.converges();
    assert_eq!(items(&volumes.pair.b.door, "app,orders,"), before);
    assert!(view.blocks() == changed, "what was replicated meanwhile is not seen in it");
    volumes.pair.b.done(&["view", "close", "trial"]);
    assert_eq!(left(&volumes.pair.b), Vec::<String>::new());
    wait_until("its clients to be cut", || disk.read(0, 4096).is_err().then_some(()));
    assert!(volume(volumes.at[1]) == volume(volumes.at[0]));
}

#[test]
fn a_view_whose_room_is_used_up_ends_by_name_and_stops_nobody() {
    let volumes = Volumes::start(&Plan::quick(), "64M");
    let mut writer = Nbd::open(volumes.at[0], EXPORT).unwrap();
    for n in 0..48 {
        writer.write(n << 16, &[7; 1 << 16]).unwrap();
    }
    writer.flush().unwrap();
    volumes.pair.converges();
    let view = Opened::on(&volumes.pair.b, &["--room", "1M", "--name", "small"]);
    let mut reader = Nbd::open(view.nbd, EXPORT).unwrap();
    assert_eq!(reader.read(0, 4096).unwrap(), [7; 4096]);
    for n in 0..48 {
        writer.write(n << 16, &[8; 1 << 16]).unwrap();
        if let Ok(found) = reader.read(n << 16, 4096) {
            assert_eq!(found, [7; 4096], "never what came later");
        }
    }
    writer.flush().unwrap();
    volumes.pair.converges();
    let told = volumes.pair.b.incident("view-ended");
    assert!(told.contains("view small has ended: its room of 1.0 MiB is used up"), "{told}");
    reader.read(0, 4096).unwrap_err();
    wait_until("its files to be gone", || left(&volumes.pair.b).is_empty().then_some(()));
    let shown = views(&volumes.pair.b);
    assert_eq!((&shown[0]["state"], &shown[0]["name"]), (&"ended".into(), &"small".into()));
    assert!(volumes.pair.b.done(&["view", "list"]).contains("is used up"));
    // Its name may be had again.
    Opened::on(&volumes.pair.b, &["--name", "small"]);
    assert_eq!(views(&volumes.pair.b).len(), 1);
}

#[test]
fn under_load_a_view_holds_whole_batches_and_stays_as_it_is() {
    let volumes = Volumes::start(&Plan::quick(), "16M");
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (stop, door, at) = (Arc::clone(&stop), volumes.pair.a.door.clone(), volumes.at[0]);
        std::thread::spawn(move || {
            let (mut client, mut disk, mut n) = (door.connect(), Nbd::open(at, EXPORT).unwrap(), 0_u64);
            while !stop.load(Ordering::Relaxed) {
                n += 1;
                let mut both = redis::pipe();
                both.atomic().set("app,orders,x", n).set("app,orders,y", n).exec(&mut client).unwrap();
                disk.write(0, &n.to_le_bytes().repeat(512)).unwrap();
                disk.write(4096 * 9, &n.to_le_bytes().repeat(512)).unwrap();
                disk.flush().unwrap();
            }
            n
        })
    };
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes[..8].try_into().unwrap());
    volumes.pair.b.status("to follow what is written", |now| now["positions"]["applied"].as_u64() > Some(40));
    let mut seen = Vec::new();
    for round in 0..6 {
        let node = if round % 2 == 0 { &volumes.pair.b } else { &volumes.pair.a };
        let view = Opened::on(node, &[]);
        let mut client = view.resp.connect();
        let mut look = || {
            let pair: (Option<u64>, Option<u64>) =
                redis::cmd("MGET").arg("app,orders,x").arg("app,orders,y").query(&mut client).unwrap();
            let mut disk = Nbd::open(view.nbd, EXPORT).unwrap();
            let (first, ninth) = (disk.read(0, 4096).unwrap(), disk.read(4096 * 9, 4096).unwrap());
            assert!(first.chunks(8).all(|n| n == &first[..8]) && ninth.chunks(8).all(|n| n == &ninth[..8]));
            assert_eq!(pair.0, pair.1, "one batch sets both");
            (pair.0.unwrap_or(0), number(&first), number(&ninth))
        };
        let (x, first, ninth) = look();
        assert!(first <= x && x <= first + 1 && ninth <= first && first <= ninth + 1, "{x} {first} {ninth}");
        let before = volumes.pair.a.json(&["status"])["positions"]["durable"].as_u64();
        volumes
            .pair
            .a
            .status("to go on", |now| now["positions"]["durable"].as_u64() > before.map(|n| n + 20));
        assert_eq!(look(), (x, first, ninth));
        seen.push(view.seq);
        node.done(&["view", "close", &view.name]);
    }
    stop.store(true, Ordering::Relaxed);
    assert!(writer.join().unwrap() > 20);
    assert!(seen.windows(2).all(|two| two[0] <= two[1]), "{seen:?}");
    volumes.pair.converges();
}

#[test]
fn what_cannot_be_opened_is_refused_with_its_reason() {
    let volumes = Volumes::start(&Plan::quick(), "16M");
    let refused = |args: &[&str], why: &str| {
        let output = volumes.pair.b.verb(&[&["view", "open"], args].concat());
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{args:?}: {text}");
        assert!(text.contains(why), "{args:?}: {text}");
    };
    refused(&["--name", "../x"], "that is no name");
    refused(&["--room", "900T"], "MiB left");
    refused(&["--resp", "0.0.0.0:0"], "without a password");
    refused(&["--resp", &volumes.at[1].to_string()], "another program has that port");
    volumes.pair.b.done(&["view", "open", "--name", "one"]);
    refused(&["--name", "one"], "there is one of the name one");
    let socket = volumes.pair.b.dir.join("view-one.resp.sock");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&socket).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let mut client = Door::Unix(socket).connect();
    assert_eq!(redis::cmd("PING").query::<String>(&mut client).unwrap(), "PONG");
    for n in 0..7 {
        volumes.pair.b.done(&["view", "open", "--name", &format!("n{n}")]);
    }
    refused(&[], "8 are open already");
    assert_eq!(left(&volumes.pair.b).len(), 8 * 3, "of one that was refused nothing is left");
}

#[test]
fn a_rehearsal_says_what_a_takeover_would_find_and_changes_nothing() {
    let mut volumes = Volumes::start(&Plan::quick(), "16M");
    put_some(&volumes, 0);
    fill(&volumes, 1);
    volumes.pair.converges();
    let epoch = volumes.pair.b.json(&["status"])["epoch"].clone();
    let told = volumes.pair.b.json(&["takeover", "--rehearse"]);
    assert_eq!((&told["possible"], &told["account"]["dry_run"]), (&true.into(), &true.into()), "{told}");
    assert!(told["seconds"].as_f64() > Some(0.0), "{told}");
    let checks = told["checks"].as_array().unwrap();
    assert!(checks.len() >= 4 && checks.iter().all(|check| check["holds"] == true), "{told}");
    assert!(views(&volumes.pair.b).is_empty() && left(&volumes.pair.b).is_empty());
    assert_eq!(volumes.pair.b.json(&["status"])["epoch"], epoch);
    let text = volumes.pair.b.done(&["takeover", "--rehearse"]);
    assert!(text.contains("Nothing was changed") && text.contains("would take about"), "{text}");
    let primary = volumes.pair.a.verb(&["takeover", "--rehearse"]);
    assert_eq!(primary.status.code(), Some(1), "{primary:?}");
    // And then the real one is as it said.
    volumes.take_over();
    let applied = volumes.pair.b.json(&["status"])["positions"]["applied"].as_u64();
    assert!(applied >= told["account"]["applied"].as_u64());
}

#[test]
fn a_listing_of_both_nodes_at_one_entry_shows_under_load_only_what_differs() {
    let mut volumes = Volumes::start(&Plan::quick(), "16M");
    put_some(&volumes, 0);
    volumes.pair.converges();
    let load = Load::start(&volumes.pair.a.door, Shape { first: 1000, ..Shape::default() });
    let list = |node: &Node, query: &str| {
        let output = node.verb(&["compare", "--query", query, "--json"]);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let told: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{output:?}"));
        (output.status.code(), told)
    };
    for round in 0..4 {
        let node = if round % 2 == 0 { &volumes.pair.a } else { &volumes.pair.b };
        let (code, told) = list(node, "KEYS app,orders,*");
        assert_eq!((code, &told["differing"]), (Some(0), &0.into()), "{told}");
        assert!(told["items"].as_u64() > Some(0) && told["from"] == told["to"], "{told}");
        load.goes_on(1);
    }
    load.finish();
    volumes.pair.converges();
    volumes.pair.b.signal(nix::sys::signal::Signal::SIGTERM);
    volumes.pair.b.ended();
    crate::compare::plant(&volumes.pair.b, "app,orders", "only-here", "x");
    volumes.pair.b.start();
    volumes.pair.connected();
    let (code, told) = list(&volumes.pair.a, "KEYS app,orders,*");
    assert_eq!((code, &told["differing"]), (Some(1), &1.into()), "{told}");
    assert_eq!(
        (&told["differences"][0]["part"], &told["differences"][0]["how"]),
        (&"app,orders,only-here".into(), &"standby-only".into())
    );
    let text = volumes.pair.a.verb(&["compare", "--query", "KEYS app,orders,*"]).stdout;
    assert!(String::from_utf8_lossy(&text).contains("1 line differs"), "{text:?}");
    for bad in ["SET app,orders,1 x", "FLUSHALL", "nosuch"] {
        let output = volumes.pair.a.verb(&["compare", "--query", bad]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
    }
}

#[test]
fn tier_view_of_a_standby_is_an_image_that_other_programs_read_while_writes_go_on() {
    tier!("nbdcopy", "qemu-img", "mkfs.ext4", "e2fsck");
    let volumes = Volumes::start(&Plan::quick(), "64M");
    let dir = scratch();
    let [image, copy, raw] = ["image", "copy", "raw"].map(|name| dir.path().join(name));
    let text = |path: &PathBuf| path.to_str().unwrap().to_owned();
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
    shell(&["mkfs.ext4", "-q", "-d", source, &text(&image), "64M"]);
    shell(&["nbdcopy", "--flush", &text(&image), &volumes.a()]);
    volumes.pair.converges();
    volumes.pair.b.done(&["view", "open", "--name", "disk"]);
    let at = volumes.pair.b.dir.join("view-disk.nbd.sock");
    let stop = Arc::new(AtomicBool::new(false));
    let writer = {
        let (stop, at) = (Arc::clone(&stop), volumes.at[0]);
        std::thread::spawn(move || {
            let (mut disk, mut n) = (Nbd::open(at, EXPORT).unwrap(), 0_u64);
            while !stop.load(Ordering::Relaxed) {
                disk.write(n * 65_536 % (64 << 20), &[0xEE; 65_536]).unwrap();
                n += 1;
            }
            n
        })
    };
    let uri = format!("nbd+unix:///{EXPORT}?socket={}", at.display());
    shell(&["nbdcopy", &uri, &text(&copy)]);
    shell(&["qemu-img", "convert", "-O", "raw", &uri, &text(&raw)]);
    stop.store(true, Ordering::Relaxed);
    assert!(writer.join().unwrap() > 0);
    shell(&["cmp", &text(&image), &text(&copy)]);
    shell(&["cmp", &text(&image), &text(&raw)]);
    shell(&["e2fsck", "-f", "-n", &text(&copy)]);
}

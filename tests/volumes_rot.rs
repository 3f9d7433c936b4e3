//! Bytes of a node's volumes and tables that change on its disk: they are never served, an incident names them, and a
//! scrub finds all of them.

use crate::support::{
    EXPORT, Node, Plan, loopback_addresses, make_volume, scratch, serves_volumes_at, wait_until,
};
use hot_backup::client::NbdClient;
use serde_json::Value;
use std::fs::{File, OpenOptions};
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);
const BLOCK: usize = 4096;
const BLOCKS: usize = 64;

fn client(at: SocketAddr) -> NbdClient {
    NbdClient::open(at, EXPORT, PATIENCE).unwrap()
}

/// A node alone that serves a volume, whose blocks each hold a byte of their own.
fn filled(dir: &Path, plan: &Plan) -> (Node, SocketAddr) {
    let [at] = loopback_addresses();
    let mut node = Node::alone(dir.join("node"), plan);
    serves_volumes_at(&node, at);
    node.start_alone();
    make_volume(&node, "64M");
    let mut nbd = client(at);
    for block in 0..BLOCKS {
        nbd.write((block * BLOCK) as u64, &[value(block); BLOCK]).unwrap();
    }
    nbd.flush().unwrap();
    (node, at)
}

fn value(block: usize) -> u8 {
    u8::try_from(block % 200).unwrap() + 1
}

/// The files of the node's volume: its data, and its checksums.
fn files(node: &Node) -> [PathBuf; 2] {
    let mut found: Vec<_> = std::fs::read_dir(node.dir.join("volumes"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some())
        .collect();
    found.sort();
    <[PathBuf; 2]>::try_from(found).unwrap()
}

/// Turns a bit of a byte of a file.
fn rot(path: &Path, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 8], at).unwrap();
    file.sync_all().unwrap();
}

/// Waits until the node says on its disk that it writes to no volume.
fn rests(node: &Node) {
    node.has_applied_all();
    wait_until("it to rest", || {
        let note = std::fs::read(node.dir.join("volumes/round")).ok()?;
        (note.get(16..24) == Some(&[0; 8])).then_some(())
    });
}

/// Reads every block; gives those that fail. What is read is right.
fn failing(at: SocketAddr) -> Vec<usize> {
    let mut nbd = client(at);
    (0..BLOCKS)
        .filter(|block| {
            let mut bytes = [0; BLOCK];
            let read = nbd.read((block * BLOCK) as u64, &mut bytes);
            assert!(read.is_err() || bytes == [value(*block); BLOCK], "block {block} is served wrong");
            read.is_err()
        })
        .collect()
}

fn scrub(node: &Node, args: &[&str]) -> (Option<i32>, Value) {
    let args = [&["scrub", "--rate", "unlimited", "--json"], args].concat();
    let output = node.verb(&args);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (output.status.code(), serde_json::from_str(&text).unwrap_or_else(|_| panic!("{output:?}")))
}

#[test]
fn rot_of_a_volume_is_eio_with_an_incident_until_the_block_is_written_anew() {
    let root = scratch();
    let (node, at) = filled(root.path(), &Plan::quick());
    node.has_applied_all();
    assert_eq!(failing(at), Vec::<usize>::new());
    let (code, end) = scrub(&node, &[]);
    assert_eq!((code, &end["wrong"]), (Some(0), &Value::from(0)), "{end}");
    let [data, _] = files(&node);
    for block in [3, 4, 40] {
        rot(&data, (block * BLOCK + 7 * block) as u64);
    }
    assert_eq!(failing(at), [3, 4, 40]);
    let told = node.told("volume-damaged", 3);
    assert!(told[0].contains("app,disk1, bytes 12288 to 16383"), "{told:?}");
    assert_eq!(failing(at), [3, 4, 40]);
    let (code, end) = scrub(&node, &["app,disk1"]);
    // Told once, although they were read again since.
    node.told("volume-damaged", 3);
    assert_eq!((code, &end["stopped"]), (Some(1), &Value::from(false)), "{end}");
    assert!(end["wrong"].as_u64() >= Some(2), "{end}");
    // A part of a block makes it no right one; all of it does.
    let mut nbd = client(at);
    nbd.write((3 * BLOCK) as u64, &[value(3); 512]).unwrap();
    nbd.flush().unwrap();
    node.has_applied_all();
    assert_eq!(failing(at), [3, 4, 40]);
    for block in [3, 4, 40] {
        nbd.write((block * BLOCK) as u64, &[value(block); BLOCK]).unwrap();
    }
    nbd.flush().unwrap();
    node.has_applied_all();
    assert_eq!(failing(at), Vec::<usize>::new());
    node.incident("volume-whole");
    assert_eq!(scrub(&node, &[]).0, Some(0));
    let status = node.json(&["status"]);
    assert_eq!(status["scrub"]["last_wrong"], 0);
    assert!(status["scrub"]["last_ended_ms"].as_u64() > Some(0), "{status}");
}

#[test]
fn what_rots_while_its_node_is_dead_is_healed_by_the_replay_or_told_and_never_served() {
    for driver in ["auto", "epoll"] {
        let root = scratch();
        // Nothing is in a checkpoint when it dies, and then everything is.
        for checkpoint in ["checkpoint_ms = 3600000", "checkpoint_ms = 100"] {
            let dir = root.path().join(checkpoint.len().to_string());
            std::fs::create_dir(&dir).unwrap();
            let (mut node, at) = filled(&dir, &Plan::quick().config(checkpoint).io(driver));
            let mut nbd = client(at);
            // Parts of blocks, which the replay alone cannot vouch for.
            for block in 10..20 {
                nbd.write((block * BLOCK + 100) as u64, &[value(block); 600]).unwrap();
            }
            nbd.flush().unwrap();
            rests(&node);
            node.kill();
            let [data, sums] = files(&node);
            for block in (5..30).step_by(2) {
                rot(&data, (block * BLOCK + 3000) as u64);
            }
            rot(&sums, 4096 + 8 * 50);
            node.start_alone();
            let failed = failing(at);
            assert!(
                failed.iter().all(|block| (5..30).step_by(2).any(|rotten| rotten == *block)),
                "{failed:?}"
            );
            println!("{driver}, {checkpoint}: {failed:?} are told");
        }
    }
}

#[test]
fn a_volume_that_is_older_than_checksums_gets_them_by_its_first_scrub() {
    let root = scratch();
    let (mut node, at) = filled(root.path(), &Plan::quick().config("checkpoint_ms = 100"));
    rests(&node);
    node.kill();
    let [data, sums] = files(&node);
    std::fs::remove_file(&sums).unwrap();
    std::fs::remove_file(node.dir.join("volumes/checksums")).unwrap();
    node.start_alone();
    assert_eq!(failing(at), Vec::<usize>::new());
    assert!(!node.incidents().iter().any(|(kind, _)| kind == "checksums-lost"));
    let (code, end) = scrub(&node, &["app,disk1"]);
    assert_eq!(code, Some(0), "{end}");
    rot(&data, 9 * BLOCK as u64);
    assert_eq!(failing(at), [9]);
    // Now that it has had checksums, without them it has lost them.
    node.kill();
    std::fs::remove_file(&sums).unwrap();
    node.start_alone();
    node.incident("checksums-lost");
    File::open(&sums).expect("they begin anew");
}

#[test]
fn a_scrub_finds_rot_of_tables_and_is_stopped_by_a_word_and_its_result_is_kept() {
    let root = scratch();
    let mut node = Node::alone(root.path().join("node"), &Plan::quick().config("checkpoint_ms = 100"));
    node.start_alone();
    node.make_orders();
    for n in 0..3 {
        node.done(&["item", "put", "app,orders", &n.to_string(), &"v".repeat(90_000)]);
    }
    let largest = wait_until("a table of all items", || {
        let tables = std::fs::read_dir(node.dir.join("store/tree/tables")).ok()?;
        let tables = tables
            .filter_map(|entry| Some((entry.as_ref().ok()?.metadata().ok()?.len(), entry.ok()?.path())));
        tables.max().filter(|(bytes, _)| *bytes > 80_000).map(|(_, path)| path)
    });
    let (code, end) = scrub(&node, &[]);
    assert_eq!(code, Some(0), "{end}");
    assert!(end["read"].as_u64() > Some(50_000), "{end}");
    let kept = node.json(&["status"])["scrub"]["last_ended_ms"].clone();
    node.kill();
    node.start_alone();
    assert_eq!(node.json(&["status"])["scrub"]["last_ended_ms"], kept);
    rot(&largest, 1000);
    let (code, end) = scrub(&node, &[]);
    assert_eq!((code, &end["wrong"]), (Some(1), &Value::from(1)), "{end}");
    wait_until("both to be told", || {
        let told = |words| {
            node.incidents().iter().any(|(kind, text)| kind == "item-damaged" && text.contains(words))
        };
        (told("its checksum is wrong") && told("come again from the peer")).then_some(())
    });
    // A slow one is stopped.
    node.done(&["scrub", "--rate", "1", "--background"]);
    node.status("to scrub", |status| status["scrub"]["running"] == true);
    assert_eq!(node.verb(&["scrub"]).status.code(), Some(1), "one at a time");
    node.done(&["scrub", "--stop"]);
    let status = node.status("to have stopped", |status| status["scrub"]["running"] == false);
    assert_eq!(status["scrub"]["end"]["stopped"], true);
    assert_eq!(node.verb(&["scrub", "--stop"]).status.code(), Some(1));
}

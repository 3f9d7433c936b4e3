//! Volumes at their limits: a full disk, bursts of big writes, clients beyond loopback.

use crate::support::{
    Disk, EXPORT, Nbd, Node, Pair, Plan, Volumes, Wire, items, loopback_addresses, make_volume, scratch,
    serves_volumes_at, shell, some, tier, tool, wait_until,
};
use hot_backup::engine::admin::{AdminReply, AdminRequest};
use hot_backup::format::dptr::DptrKind;
use hot_backup::node::admin;
use redis::Commands;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;
const PIECE: usize = 64 << 10;

/// Content that no other piece has.
fn piece(number: u64) -> Vec<u8> {
    format!("piece {number}; ").bytes().cycle().take(PIECE).collect()
}

fn place(number: u64) -> u64 {
    number * PIECE as u64
}

/// The first so many pieces are there, whole.
#[track_caller]
fn has(nbd: &mut Nbd, pieces: u64) {
    for number in 0..pieces {
        assert!(nbd.read(place(number), PIECE).unwrap() == piece(number), "piece {number} of {pieces}");
    }
}

/// A node that serves without a peer, and where its one volume is to be had.
fn alone(dir: &Path, size: &str) -> (Node, SocketAddr) {
    let [at] = loopback_addresses();
    let mut node = Node::alone(dir.join("node"), &Plan::quick());
    serves_volumes_at(&node, at);
    node.start_alone();
    make_volume(&node, size);
    (node, at)
}

#[test]
fn a_client_that_goes_within_a_write_leaves_nothing_of_it_and_is_disconnected_at_once() {
    let dir = scratch();
    let (node, at) = alone(dir.path(), "1M");
    let mut nbd = Nbd::open(at, EXPORT).unwrap();
    nbd.write(place(0), &piece(0)).unwrap();
    nbd.flush().unwrap();
    let left = Instant::now();
    assert_eq!(nbd.leaves_within_a_write().unwrap(), b"", "there is no answer");
    assert!(left.elapsed() < Duration::from_secs(5), "closed after {:?}", left.elapsed());
    node.status("to have no client", |status| status["volumes"][0]["clients"] == 0);
    has(&mut Nbd::open(at, EXPORT).unwrap(), 1);
}

#[test]
fn tier_volume_files_of_a_thousand_volumes_are_written_with_few_descriptors() {
    tier!("prlimit");
    const VOLUMES: u64 = 1100;
    let dir = scratch();
    let [at] = loopback_addresses();
    // No checkpoint comes in between.
    let mut node =
        Node::alone(dir.path().join("node"), &Plan::quick().segments("16M").config("checkpoint_ms = 600000"));
    serves_volumes_at(&node, at);
    node.through = ["prlimit", "--nofile=1024:1024"].map(str::to_owned).to_vec();
    node.start_alone();
    node.done(&["account", "create", "app"]);
    let patience = Duration::from_secs(30);
    for number in 0..VOLUMES {
        let (name, flags) = (format!("app,v{number}"), Some("L".to_owned()));
        let (kind, bytes) = (DptrKind::Blocks, Some(MIB));
        let request = AdminRequest::FileCreate { name, kind, flags, bytes, ack: None };
        let reply = admin::call(&node.dir, &request, patience).unwrap();
        assert!(matches!(reply, AdminReply::Ok { .. }), "{reply:?}");
    }
    let export = |number: u64| format!("app/v{number}");
    let mut most = 0;
    for number in 0..VOLUMES {
        let mut nbd = Nbd::open(at, &export(number)).unwrap();
        nbd.write(0, &piece(number)).unwrap();
        nbd.flush().unwrap();
        most = most.max(node.descriptors());
    }
    println!("{most} descriptors at most");
    assert!(most < 400, "{most} descriptors are open");
    let audit = || {
        for number in 0..VOLUMES {
            let found = Nbd::open(at, &export(number)).unwrap().read(0, PIECE).unwrap();
            assert!(found == piece(number), "volume {number}");
        }
    };
    audit();
    let kinds: Vec<String> = node.incidents().into_iter().map(|(kind, _)| kind).collect();
    assert!(!kinds.iter().any(|kind| kind.starts_with("store-") || kind.ends_with("-damaged")), "{kinds:?}");
    node.kill();
    node.start_alone();
    audit();
}

#[test]
fn tier_volume_on_a_full_disk_refuses_writes_until_there_is_room_again() {
    tier!("root", "losetup", "mkfs.ext4");
    let disk = Disk::new(96);
    let (mut node, at) = alone(disk.path(), "64M");
    let mut nbd = Nbd::open(at, EXPORT).unwrap();
    let mut written = 0;
    while written < 64 {
        nbd.write(place(written), &piece(written)).unwrap();
        written += 1;
    }
    nbd.flush().unwrap();
    disk.fill();
    let refused = loop {
        match nbd.write(place(written), &piece(written)) {
            Ok(()) => written += 1,
            Err(error) => break error.raw_os_error(),
        }
        assert!(written < 1000, "no end of the room");
    };
    assert_eq!(refused, Some(libc::ENOSPC));
    // A thread of its own writes incidents down.
    wait_until("the incident", || {
        let full = |(kind, text): &(String, String)| {
            kind == "store-failed" || kind == "journal-no-space" || text.starts_with("the disk is full")
        };
        node.incidents().into_iter().find(full)
    });
    // The connection goes on, and all that was taken can be read.
    has(&mut nbd, written);
    disk.free();
    wait_until("writes to be taken again", || nbd.write(place(written), &piece(written)).ok());
    for number in written + 1..written + 32 {
        nbd.write(place(number), &piece(number)).unwrap();
    }
    written += 32;
    nbd.flush().unwrap();
    has(&mut nbd, written);
    node.kill();
    node.start_alone();
    has(&mut Nbd::open(at, EXPORT).unwrap(), written);
}

#[test]
fn tier_volume_of_a_tebibyte_takes_a_burst_that_costs_others_nothing_and_little_memory() {
    tier!();
    let volumes = Volumes::start(&Plan::quick().segments("64M").config("peer_timeout_ms = 1000"), "1T");
    let Volumes { pair, at } = &volumes;
    let before = [&pair.a, &pair.b].map(|node| node.incidents().len());
    let over = AtomicBool::new(false);
    let (mut slowest, mut sets, mut most) = (Duration::ZERO, 0_usize, [0, 0]);
    thread::scope(|scope| {
        let writers = [0_u64, 1].map(|half| {
            let mut nbd = Nbd::open(at[0], EXPORT).unwrap();
            scope.spawn(move || {
                let big = vec![7; 1 << 20];
                // All over the volume: no two writes touch.
                let offsets = (0..some(300)).map(|n| (n * 1741 % 1000 + half * 1000) * 500 * MIB);
                nbd.writes(offsets, &big, 32).unwrap();
                nbd.flush().unwrap();
            })
        });
        let over = &over;
        let watcher = scope.spawn(move || {
            let mut most = [0, 0];
            while !over.load(Ordering::Relaxed) {
                let now = [&pair.a, &pair.b].map(Node::memory);
                most = [0, 1].map(|node| most[node].max(now[node]));
                thread::sleep(Duration::from_millis(20));
            }
            most
        });
        let mut client = pair.a.redis();
        while sets < 10 || writers.iter().any(|writer| !writer.is_finished()) {
            let begin = Instant::now();
            let () = client.set(format!("app,orders,{sets}"), "x").unwrap();
            (slowest, sets) = (slowest.max(begin.elapsed()), sets + 1);
        }
        over.store(true, Ordering::Relaxed);
        most = watcher.join().unwrap();
    });
    println!("{sets} SETs, the slowest took {slowest:?}; memory {:?} MiB", most.map(|bytes| bytes >> 20));
    assert!(slowest < Duration::from_secs(2), "a SET took {slowest:?}");
    assert!(most.iter().all(|bytes| *bytes < 256 * MIB), "{most:?} bytes of memory");
    pair.converges();
    // Nobody missed a heartbeat.
    let after = [&pair.a, &pair.b].map(Node::incidents);
    for (before, after) in before.iter().zip(&after) {
        assert!(after[*before..].iter().all(|(kind, _)| !kind.starts_with("peer")), "{after:?}");
    }
    assert_eq!(items(&pair.b.door, "app,orders,").len(), sets);
    let mut standby = Nbd::open(at[1], EXPORT).unwrap();
    assert_eq!(standby.bytes(), 1 << 40);
    assert!(standby.read(0, 1 << 20).unwrap().iter().all(|byte| *byte == 7));
}

#[test]
fn tier_volume_beyond_loopback_is_there_only_for_clients_with_credentials() {
    tier!("root", "ip", "nsenter", "nbdinfo");
    let wire = Wire::new();
    let mut pair = Pair::set_up_at(wire.links(), &Plan::quick());
    pair.a.through = wire.through(0);
    pair.b.through = wire.through(1);
    let doors = wire.links().map(|link| SocketAddr::new(link.ip(), 10_809));
    serves_volumes_at(&pair.a, doors[0]);
    serves_volumes_at(&pair.b, doors[1]);
    pair.serve();
    make_volume(&pair.a, "64M");
    pair.converges();
    let dir = scratch();
    let folder = dir.path().join("web1");
    let folder = folder.to_str().unwrap();
    pair.a.done(&["nbd-access", "web1", "--out", folder]);
    pair.b.done(&["nbd-access", "--add-ca", "--out", folder]);
    let info = |from: usize, uri: &str| {
        let through = wire.through(from);
        let mut command = Command::new("timeout");
        command.args(["-k", "5", "30"]).args(&through).arg(tool("nbdinfo").unwrap()).args(["--json", uri]);
        let output = command.output().unwrap();
        (
            output.status.success(),
            String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned(),
        )
    };
    for (from, door) in [(1, doors[0]), (0, doors[1])] {
        let (content, text) = info(from, &format!("nbds://{door}/{EXPORT}?tls-certificates={folder}"));
        assert!(content && text.contains("\"TLS\": true"), "{text}");
        let (content, text) = info(from, &format!("nbd://{door}/{EXPORT}"));
        assert!(!content, "in the clear: {text}");
        // A stranger knows the nodes, and has a certificate that he made himself.
        let stranger = dir.path().join(format!("stranger{from}"));
        let stranger = stranger.to_str().unwrap();
        shell(&["cp", "-a", folder, stranger]);
        let other = Node::alone(dir.path().join(format!("other{from}")), &Plan::quick());
        let own = dir.path().join(format!("own{from}"));
        other.done(&["nbd-access", "web1", "--out", own.to_str().unwrap()]);
        for file in ["client-cert.pem", "client-key.pem"] {
            shell(&["cp", own.join(file).to_str().unwrap(), stranger]);
        }
        let (content, text) = info(from, &format!("nbds://{door}/{EXPORT}?tls-certificates={stranger}"));
        assert!(!content, "a stranger: {text}");
    }
}

#[test]
fn tier_volume_is_had_over_tls_by_qemu_and_the_others_with_the_credentials_that_a_node_makes() {
    tier!("qemu-img", "qemu-io", "nbdcopy", "nbdinfo", "nbdkit", "cmp");
    let dir = scratch();
    // Open to other machines, which have to use TLS; its certificate holds the address that is called.
    let port = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap().local_addr().unwrap().port();
    let mut node = Node::alone(dir.path().join("node"), &Plan::quick());
    serves_volumes_at(&node, SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)));
    node.start_alone();
    make_volume(&node, "16M");
    let folder = dir.path().join("web1");
    let folder = folder.to_str().unwrap();
    node.done(&["nbd-access", "web1", "--out", folder]);
    let tls = format!("tls-creds-x509,id=tls0,dir={folder},endpoint=client");
    let at = |host: &str| format!("driver=nbd,host={host},port={port},export={EXPORT},tls-creds=tls0");
    let image = dir.path().join("image");
    let copy = dir.path().join("copy");
    let content: Vec<u8> = (0..16 * MIB / PIECE as u64).flat_map(piece).collect();
    std::fs::write(&image, &content).unwrap();
    let (image, copy) = (image.to_str().unwrap(), copy.to_str().unwrap());

    let info = shell(&["qemu-img", "info", "--object", &tls, "--image-opts", &at("127.0.0.1")]);
    assert!(info.contains("16 MiB"), "{info}");
    shell(&[
        "qemu-img",
        "convert",
        "-n",
        "--object",
        &tls,
        "-f",
        "raw",
        "--target-image-opts",
        image,
        &at("localhost"),
    ]);
    shell(&[
        "qemu-io",
        "--object",
        &tls,
        "--image-opts",
        &at("localhost"),
        "-c",
        "write -P 7 1M 64k",
        "-c",
        "flush",
    ]);
    let uri = format!("nbds://127.0.0.1:{port}/{EXPORT}?tls-certificates={folder}");
    shell(&["nbdcopy", &uri, copy]);
    let mut expected = content;
    expected[1 << 20..(1 << 20) + (64 << 10)].fill(7);
    assert!(std::fs::read(copy).unwrap() == expected, "what was written is there");
    let server =
        ["hostname=127.0.0.1", &format!("port={port}"), &format!("export={EXPORT}")].map(str::to_owned);
    let keys = ["tls=require".to_owned(), format!("tls-certificates={folder}")];
    let [host, port_is, export] = &server;
    let [tls_is, keys_are] = &keys;
    let mut through = vec!["nbdkit", "-U", "-", "nbd", host, port_is, export, tls_is, keys_are];
    through.extend(["--run", "nbdinfo --size \"$uri\""]);
    assert_eq!(shell(&through).trim(), (16 * MIB).to_string());

    // Without credentials nothing is told, and it leaves a trace.
    let plain =
        Command::new(tool("nbdinfo").unwrap()).arg(format!("nbd://127.0.0.1:{port}/{EXPORT}")).output();
    assert!(!plain.unwrap().status.success());
    let refused =
        node.status("to count a client that it refused", |status| status["nbd_refused"].as_u64() > Some(0));
    assert_eq!(refused["resp_refused"], 0);
    let told = node.incident("client-refused");
    assert!(told.contains("127.0.0.1:") && told.contains("at the NBD door"), "{told}");
}

/// So many sets of ten items of 256 KiB by a client at level local; what was refused.
fn sets(node: &Node, count: usize) -> Vec<String> {
    let value = vec![b'v'; 256 << 10];
    let mut client = node.redis();
    let refused = (0..count).filter_map(|number| {
        let set: redis::RedisResult<()> = client.set(format!("app,orders,{}", number % 10), &value[..]);
        set.err().map(|error| format!("set {number}: {error}"))
    });
    refused.collect()
}

#[test]
fn tier_standby_whose_disk_was_full_follows_again_by_itself() {
    tier!("root", "losetup", "mkfs.ext4");
    let disk = Disk::new(400);
    let root = scratch();
    let dirs = [root.path().join("A"), disk.path().join("B")];
    let mut pair = Pair::set_up_in(root, dirs, &Plan::quick().segments("4M").config("checkpoint_ms = 500"));
    pair.serve();
    for round in 0..3 {
        assert_eq!(sets(&pair.a, 20), [] as [String; 0]);
        disk.fill();
        // The primary's users do not wait for it.
        assert_eq!(sets(&pair.a, 400), [] as [String; 0]);
        wait_until("the standby to say that its disk is full", || {
            let full = |(kind, text): &(String, String)| {
                kind == "store-failed" || kind == "journal-no-space" || text.starts_with("the disk is full")
            };
            pair.b.incidents().into_iter().find(full)
        });
        thread::sleep(Duration::from_millis(300 * round));
        disk.free();
        pair.converges();
    }
    let dropped = |(kind, _): &(String, String)| kind == "peer-dropped";
    assert!(!pair.a.incidents().iter().any(dropped), "the primary has room");
    pair.b.kill();
    drop(pair);
}

#[test]
fn tier_users_at_level_local_go_on_beside_a_dead_standby_on_a_disk_smaller_than_the_quota() {
    tier!("root", "losetup", "mkfs.ext4");
    let disk = Disk::new(500);
    let root = scratch();
    let dirs = [disk.path().join("A"), root.path().join("B")];
    let mut pair = Pair::set_up_in(root, dirs, &Plan::quick().segments("4M").config("checkpoint_ms = 500"));
    pair.serve();
    pair.b.kill();
    assert_eq!(sets(&pair.a, 3000), [] as [String; 0], "of 750 MiB");
    let told = pair.a.told("peer-dropped", 1);
    assert!(told[0].starts_with("the disk is full: "), "{told:?}");
    // On a full disk something does not work.
    let found: serde_json::Value =
        serde_json::from_slice(&pair.a.verb(&["doctor", "--json"]).stdout).unwrap();
    let quota = found.as_array().unwrap().iter().find(|finding| finding["name"] == "journal quota").unwrap();
    assert_eq!(quota["level"], "warn", "{quota}");
    pair.a.kill();
    drop(pair);
}

#[test]
fn a_quota_that_the_disk_has_no_room_for_is_warned_of_when_a_node_starts_and_by_doctor() {
    let dir = scratch();
    for (number, (quota, level)) in [("4M", "ok"), ("1000T", "warn")].into_iter().enumerate() {
        let plan = Plan::quick().init(&["--journal-quota-bytes", quota]);
        let mut node = Node::alone(dir.path().join(number.to_string()), &plan);
        let found: serde_json::Value =
            serde_json::from_slice(&node.verb(&["doctor", "--json"]).stdout).unwrap();
        let finding =
            found.as_array().unwrap().iter().find(|finding| finding["name"] == "journal quota").unwrap();
        assert_eq!(finding["level"], level, "{finding}");
        node.start_alone();
        assert_eq!(node.log().contains("journal_quota_bytes allows"), level == "warn", "{}", node.log());
        node.kill();
    }
}

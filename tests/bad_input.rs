//! What a running node does with what nobody should send it: refused by name and counted, nothing changed, no memory.

use crate::support::{Load, Node, Pair, Plan, Shape, audit, tier, wait_until};
use redis::Commands;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Where a node's link comes in.
fn link(node: &Node) -> SocketAddr {
    let text = std::fs::read_to_string(node.dir.join("config.toml")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("link_listen = ")).unwrap();
    line.trim_matches('"').parse().unwrap()
}

#[test]
fn who_is_not_the_peer_is_refused_and_counted_and_frees_no_journal() {
    let pair = Pair::start(&Plan::quick());
    let load = Load::start(&pair.a.door, Shape::default());
    load.goes_on(50);
    let before = pair.a.json(&["status"]);
    // No TLS at all, garbage, a record of TLS that announces more than there may be, another protocol's greeting.
    let noise: Vec<u8> = (0..4096_u32).flat_map(|n| n.wrapping_mul(0x9e37_79b9).to_be_bytes()).collect();
    let all: [&[u8]; 4] =
        [b"*1\r\n$4\r\nPING\r\n", &noise, b"\x16\x03\x01\xff\xff\x01\x00\xff\xfc\x03\x03", b"SSH-2.0-x\r\n"];
    for node in [&pair.a, &pair.b] {
        for bytes in all {
            let mut stranger = TcpStream::connect(link(node)).unwrap();
            stranger.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            // It may close before all is written, and reset what it did not read.
            let _ = stranger.write_all(bytes);
            let mut answer = Vec::new();
            let over = stranger.read_to_end(&mut answer);
            assert!(
                over.as_ref().is_ok_and(|_| answer.len() < 64)
                    || over.as_ref().is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset),
                "{over:?} {answer:?}"
            );
        }
        node.status("to count them", |status| status["refused"].as_u64() >= Some(4));
        node.incident("link-refused");
    }
    // A whole node with a key of its own, that calls the standby and says it is its primary.
    let mut other = Pair::set_up(&Plan::quick());
    let config = other.a.dir.join("config.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let [own, theirs] = [link(&other.b), link(&pair.b)].map(|address| address.to_string());
    std::fs::write(&config, text.replace(&own, &theirs)).unwrap();
    std::fs::remove_file(other.a.dir.join("peers")).unwrap();
    other.a.done(&["trust", pair.b.done(&["identity"]).trim()]);
    let refused = pair.b.json(&["status"])["refused"].as_u64();
    other.a.start();
    pair.b.status("to refuse a stranger", |status| status["refused"].as_u64() > refused);
    assert_eq!(other.a.json_when_up(&["status"])["peer"]["connected"], false);

    let after = pair.a.json(&["status"]);
    assert_eq!(after["journal"]["oldest_seq"], before["journal"]["oldest_seq"]);
    assert_eq!((&after["role"], &after["epoch"]), (&before["role"], &before["epoch"]));
    let told = load.finish();
    assert_eq!(told.iter().flat_map(|told| told.refusals()).next(), None);
    pair.connected();
    pair.converges();
    audit(&pair.b.door, &told).is_complete();
}

#[test]
fn a_config_with_many_errors_is_told_all_of_them_each_with_its_line() {
    let root = tempfile::tempdir().unwrap();
    let node = Node::alone(root.path().join("A"), &Plan::default());
    let path = node.dir.join("config.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let errors = [
        ("heartbeat_ms = \"soon\"", "heartbeat_ms"),
        ("segment_byts = 5", "did you mean `segment_bytes`?"),
        ("peer_timeout_ms = -1", "negative"),
        ("checkpoint_ms = 1.5", "fraction"),
        ("encryption = \"rot13\"", "\"tls\", \"none\""),
        ("resp_default = \"app\"", "account,file"),
    ];
    let lines: Vec<_> = errors.iter().map(|(line, _)| *line).collect();
    std::fs::write(&path, format!("{text}{}\n", lines.join("\n"))).unwrap();
    let refused = node.verb(&["serve"]);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    for (at, (_, needle)) in (text.lines().count() + 1..).zip(errors) {
        let told = said.lines().find(|line| line.contains(&format!("config.toml:{at}: ")));
        assert!(told.is_some_and(|line| line.contains(needle)), "line {at} should say {needle}: {said}");
    }
    assert!(!node.dir.join("admin.sock").exists(), "nothing was started");
}

#[test]
fn tier_clients_that_do_not_read_cost_little_memory_and_keep_nobody_waiting() {
    const CLIENTS: usize = 8;
    const REQUESTS: usize = 100;
    const VALUE: usize = 1 << 20;
    tier!();
    let pair = Pair::start(&Plan::quick());
    let mut a = pair.a.redis();
    let () = a.set("app,orders,large", vec![b'v'; VALUE]).unwrap();
    let ask = b"*2\r\n$3\r\nGET\r\n$16\r\napp,orders,large\r\n".repeat(REQUESTS);
    let mut silent: Vec<_> = (0..CLIENTS).map(|_| pair.a.door.stream().unwrap()).collect();
    silent.iter_mut().for_each(|(_, requests)| requests.write_all(&ask).unwrap());
    let load = Load::start(&pair.a.door, Shape::default());
    let mut most = 0;
    for _ in 0..10 {
        load.goes_on(200);
        most = most.max(pair.a.memory());
    }
    let told = load.finish();
    assert!(most < 256 << 20, "{most} bytes for clients that asked for {}", CLIENTS * REQUESTS * VALUE);
    // They are only slow: once they read, they get all of it.
    let (answers, _) = &mut silent[0];
    let mut answer = vec![0; VALUE + b"$1048576\r\n\r\n".len()];
    for _ in 0..REQUESTS {
        answers.read_exact(&mut answer).unwrap();
        assert!(answer.starts_with(b"$1048576\r\nvvv") && answer.ends_with(b"vvv\r\n"));
    }
    // And when they go, so does what they held.
    let clients = |least: u64| move |status: &serde_json::Value| status["clients"].as_u64() <= Some(least);
    drop(silent);
    pair.a.status("to forget them", clients(1));
    wait_until("an answer", || a.get::<_, Vec<u8>>("app,orders,large").ok());
    audit(&pair.a.door, &told).is_complete();
}

//! Clients that end in the middle of what they asked for, at whole nodes: what was not begun then is never carried out.

use crate::support::{EXPORT, Nbd, Plan, Volumes, wait_until};
use nix::sys::signal::Signal;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};

/// More requests than a node has under way for one client.
const MANY: usize = 128;
const BLOCK: usize = 4096;

/// Promises wait for a standby, however long it is away.
fn plan() -> Plan {
    let config = ["on_peer_loss = \"block\"", "peer_timeout_ms = 60000"];
    let plan = Plan::quick().init(&["--ack-level", "durable"]);
    config.into_iter().fold(plan, Plan::config)
}

#[test]
fn a_write_of_a_volume_client_that_left_before_it_was_begun_is_never_carried_out() {
    for io in ["uring", "epoll"] {
        let plan = plan().io(io);
        let volumes = Volumes::start(&plan, "64M");
        if io == "uring" && !volumes.pair.a.has_uring() {
            continue;
        }
        let at = volumes.at[0];
        let before = volumes.pair.a.json(&["status"])["positions"]["appended"].as_u64().unwrap();
        volumes.pair.b.signal(Signal::SIGSTOP);
        let mut old = Nbd::open(at, EXPORT).unwrap();
        for number in 1..=MANY as u64 {
            old.sends_fua_write(number * BLOCK as u64, &[1; BLOCK]).unwrap();
        }
        old.sends_write(0, &[0xEE; BLOCK]).unwrap();
        volumes.pair.a.status("to have begun all but one", |status| {
            status["positions"]["appended"].as_u64() >= Some(before + MANY as u64)
        });
        drop(old);
        let mut new = Nbd::open(at, EXPORT).unwrap();
        new.write(0, &[0xAA; BLOCK]).unwrap();
        volumes.pair.b.signal(Signal::SIGCONT);
        new.flush().unwrap();
        volumes.pair.a.status("to have one client", |status| status["volumes"][0]["clients"] == 1);
        assert!(new.read(0, BLOCK).unwrap() == [0xAA; BLOCK], "the new one was answered ({io})");
        assert!(new.read(BLOCK as u64, BLOCK).unwrap() == [1; BLOCK], "what was begun is there ({io})");
    }
}

/// Sends commands to a RESP door.
fn sends(stream: &mut TcpStream, commands: &[&[&str]]) {
    let mut bytes = Vec::new();
    for words in commands {
        bytes.extend(format!("*{}\r\n", words.len()).bytes());
        words.iter().for_each(|word| bytes.extend(format!("${}\r\n{word}\r\n", word.len()).bytes()));
    }
    stream.write_all(&bytes).unwrap();
}

#[test]
fn a_command_of_a_redis_client_that_left_before_it_was_begun_is_never_carried_out() {
    for io in ["uring", "epoll"] {
        let plan = plan().io(io);
        let volumes = Volumes::start(&plan, "1M");
        let a = &volumes.pair.a;
        if io == "uring" && !a.has_uring() {
            continue;
        }
        a.done(&["account", "create", "own"]);
        a.done(&["file", "create", "own,f", "--records"]);
        let crate::support::Door::Tcp(at) = a.door.clone() else { panic!("it has an address") };
        volumes.pair.b.signal(Signal::SIGSTOP);
        let mut old = TcpStream::connect(at).unwrap();
        let long = "x".repeat(8192);
        sends(&mut old, &[&["SET", "app,orders,n", "1"], &["WAIT", "1", "0"], &["ECHO", &long]]);
        sends(&mut old, &[&["SET", "own,f,it", "old"]]);
        let mut client = a.redis();
        wait_until("the first command", || {
            let clients: String = redis::cmd("INFO").arg("clients").query(&mut client).unwrap();
            clients.contains("blocked_clients:1").then_some(())
        });
        // Half an end is one too: it may still read.
        old.shutdown(Shutdown::Write).unwrap();
        wait_until("the new value", || {
            let _: () = redis::cmd("SET").arg("own,f,it").arg("new").query(&mut client).unwrap();
            Some(())
        });
        volumes.pair.b.signal(Signal::SIGCONT);
        let mut told = String::new();
        old.read_to_string(&mut told).unwrap();
        assert_eq!(told, "+OK\r\n:1\r\n", "what was begun is answered ({io})");
        let value: String = redis::cmd("GET").arg("own,f,it").query(&mut client).unwrap();
        assert_eq!(value, "new", "{io}");
    }
}

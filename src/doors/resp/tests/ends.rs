//! Clients that end their stream in the middle of what they asked for.

use super::super::model::{Rig, encode};
use crate::base::ConnId;
use crate::base::limits::{CLIENT_AHEAD_MAX, CLIENT_HOLDS_MAX, CLIENT_OUT_MAX};

/// Client 1 ends its stream, and client 2 sets the item that the first was about to set.
fn another_takes_over(rig: &mut Rig, drained: bool) {
    rig.end(1, drained);
    rig.model.congested = false;
    rig.open(2);
    rig.write(2, &encode("set it new"));
    while rig.give(2, usize::MAX) {}
    rig.run(true);
    assert_eq!(rig.ask_as(2, "get it"), "+OK\r\n$3\r\nnew\r\n");
}

/// Commands up to a limit, behind which the client waits, and one more.
fn waits_behind(commands: &str, count: usize) -> Rig {
    let mut rig = Rig::usual();
    let big = "x".repeat(CLIENT_OUT_MAX);
    if commands.contains("get big") {
        rig.ask(&format!("set big {big}"));
        rig.peer(1).deaf = true;
    }
    for _ in 0..count {
        rig.write(1, &encode(commands));
    }
    rig.write(1, &encode("set it old"));
    rig.run(false);
    rig
}

#[test]
fn what_waits_when_its_client_ends_the_stream_is_never_carried_out() {
    let far_ahead = format!("set n 1; wait 1 0; echo {}", "x".repeat(CLIENT_AHEAD_MAX));
    let cases = [
        ("replies that wait", "incr n", CLIENT_HOLDS_MAX),
        ("replies not taken", "get big", 2),
        ("a wait", "set n 1; wait 1 0", 1),
        ("a wait with much behind it", far_ahead.as_str(), 1),
    ];
    for (name, commands, count) in cases {
        for drained in [false, true] {
            let mut rig = waits_behind(commands, count);
            assert!(!rig.model.has_set("it"), "{name}: it waits");
            another_takes_over(&mut rig, drained);
            rig.peer(1).deaf = false;
            rig.run(true);
            assert_eq!(rig.ask_as(2, "get it"), "$3\r\nnew\r\n", "{name}, drained: {drained}");
        }
    }
}

#[test]
fn what_waits_for_the_backend_when_its_client_ends_the_stream_is_never_carried_out() {
    for drained in [false, true] {
        let mut rig = Rig::usual();
        rig.model.congested = true;
        rig.write(1, &encode("set it old"));
        rig.run(false);
        another_takes_over(&mut rig, drained);
        assert_eq!(rig.ask_as(2, "get it"), "$3\r\nnew\r\n");
        assert!(rig.peers[&1].closed, "nothing is owed to it");
    }
}

#[test]
fn commands_that_need_not_wait_are_carried_out_though_the_client_sends_no_more() {
    let mut rig = Rig::usual();
    rig.end(1, false);
    rig.write(1, &encode("set a 1; set b 2"));
    rig.run(false);
    rig.end(1, true);
    assert!(!rig.peers[&1].closed, "it is still to be answered");
    rig.run(true);
    assert_eq!(rig.got(1), "+OK\r\n+OK\r\n");
    assert!(rig.peers[&1].closed);
}

#[test]
fn a_wait_that_was_begun_is_answered_though_the_client_sends_no_more() {
    let mut rig = Rig::usual();
    rig.write(1, &encode("set a 1; wait 1 1000; get a"));
    rig.run(false);
    rig.end(1, true);
    assert!(!rig.peers[&1].closed);
    rig.run(true);
    assert_eq!(rig.got(1), "+OK\r\n:1\r\n", "the command behind it was not begun");
    assert!(rig.peers[&1].closed);
    assert_eq!(rig.door.clients(), 0);
}

#[test]
fn a_long_command_that_changes_something_is_given_up_when_its_client_ends_the_stream() {
    let keys: String = (0..5_000).map(|n| format!(" app,orders,{n:05}")).collect();
    let (del, exists) = (format!("del{keys}"), format!("exists{keys}"));
    let exec = format!("multi; {del}; exec");
    for (command, given_up) in [(&del, true), (&exists, false), (&exec, true)] {
        let mut rig = Rig::usual();
        rig.ask("set app,orders,04999 old");
        rig.write(1, &encode(command));
        while rig.give(1, usize::MAX) {}
        assert!(rig.due(), "it is in the middle");
        rig.end(1, false);
        rig.run(true);
        let command = &command[..5];
        assert_eq!(!rig.got(1).contains(':'), given_up, "{command}");
        assert_eq!(rig.peers[&1].closed, given_up, "{command}");
        assert!(rig.door.shared.changes.is_idle());
        assert!(!rig.model.batches.iter().any(|batch| *batch > 1), "nothing was deleted");
    }
}

#[test]
fn a_transaction_whose_exec_did_not_come_changes_nothing() {
    let mut rig = Rig::usual();
    rig.write(1, &encode("multi; set it old"));
    rig.run(true);
    let before = rig.model.batches.len();
    rig.end(1, true);
    rig.run(true);
    assert_eq!(rig.model.batches.len(), before);
    assert!(rig.peers[&1].closed);
    rig.door.close(ConnId(1));
}

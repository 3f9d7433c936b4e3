//! Proves that no client can grow the memory, skip its password or hold up the others.

use super::super::model::{Peer, Rig, encode};
use super::super::{DoorOutput, RespConfig, RespDoor};
use crate::base::limits::{
    AUTHENTICATE_MS, CLIENT_HOLDS_MAX, CLIENT_OUT_MAX, CLIENTS_MAX, CLIENTS_MEMORY_MAX, PASSWORDS_MAX,
};
use crate::base::{ConnId, Mono, Now};

#[test]
fn a_transaction_over_its_limits_does_nothing() {
    let mut rig = Rig::usual();
    let value = "v".repeat(9 << 20);
    rig.ask(&format!("set big {value}"));
    let too_long = format!("multi; append big {}; exec", "z".repeat(8 << 20));
    assert!(
        rig.ask(&too_long)
            .ends_with("*1\r\n-ERR item value of 17825792 bytes: an item's value has at most 16 MiB\r\n")
    );
    let gets = "get big; ".repeat(4);
    let replies = rig.ask(&format!("multi; set mark 1; {gets} exec"));
    assert!(replies.contains("-ERR the reply would be over"), "one too many for one reply");
    let mut rig = Rig::usual();
    for name in ["a", "b", "c", "d"] {
        rig.ask(&format!("set {name} {value}"));
    }
    let replies = rig.ask("multi; append a x; append b x; append c x; append d x; exec");
    assert!(replies.contains("-ERR transaction of "), "{replies}");
    assert_eq!(rig.ask("strlen a"), format!(":{}\r\n", 9 << 20));
}

#[test]
fn without_the_password_nothing_can_be_done_and_little_be_sent() {
    let config = RespConfig { password: Some("secret".to_owned()), ..RespConfig::default() };
    let mut rig = Rig::new(config);
    rig.open(1);
    let no_auth = "-NOAUTH Authentication required.\r\n";
    let wrong = "-WRONGPASS invalid username-password pair or user is disabled.\r\n";
    assert_eq!(rig.ask("ping; get a; info; multi"), no_auth.repeat(4));
    assert_eq!(rig.ask("auth wrong; auth root secret; auth default wrong"), wrong.repeat(3));
    assert!(rig.ask("hello 3").starts_with("-NOAUTH HELLO must be called with"));
    assert_eq!(rig.ask("hello 3 auth default wrong"), wrong);
    assert!(rig.ask("hello 3 auth default secret setname me").starts_with("%7\r\n"));
    assert_eq!(
        rig.ask("client getname; reset; ping; auth secret; ping"),
        format!("$2\r\nme\r\n+RESET\r\n{no_auth}+OK\r\n+PONG\r\n")
    );
    rig.open(2);
    let bytes = [&encode("auth secret")[..], &encode(&format!("echo {}", "x".repeat(9000)))].concat();
    rig.write(2, &bytes);
    rig.run(true);
    assert!(rig.got(2).starts_with("+OK\r\n$9000\r\nxxx"), "the limit ends with the password");
    rig.open(3);
    rig.write(3, &encode(&format!("auth {}", "x".repeat(5000))));
    rig.run(true);
    assert_eq!(rig.got(3), "-ERR Protocol error: unauthenticated bulk length\r\n");
    assert!(rig.peer(3).closed);
}

#[test]
fn who_does_not_give_a_password_in_time_is_sent_away() {
    let config = RespConfig { password: Some("secret".to_owned()), ..RespConfig::default() };
    let mut rig = Rig::new(config);
    rig.open(1);
    rig.open(2);
    rig.door.open(rig.now, ConnId(3), true);
    rig.peers.insert(3, Peer::default());
    rig.collect();
    rig.ask_as(2, "auth secret");
    rig.now.mono = rig.door.deadline().unwrap();
    assert_eq!(rig.now.mono, Mono(1_000_000).plus_ms(AUTHENTICATE_MS));
    rig.tick();
    assert!(rig.peer(1).closed && !rig.peer(2).closed && !rig.peer(3).closed);
    assert_eq!((rig.door.clients(), rig.door.deadline()), (2, None));
}

#[test]
fn a_client_that_does_not_read_is_not_read_from() {
    let mut rig = Rig::usual();
    rig.ask(&format!("set a {}", "x".repeat(2_000)));
    rig.peer(1).deaf = true;
    rig.write(1, &encode(&"get a;".repeat(5000)).repeat(2));
    rig.run(true);
    assert!(rig.unread(1) > 0, "it is stopped");
    let held = rig.door.shared.memory;
    assert!(held < CLIENT_OUT_MAX + 300_000, "{held}");
    rig.peer(1).deaf = false;
    rig.run(true);
    assert_eq!(rig.unread(1), 0, "and goes on when it reads");
}

#[test]
fn replies_that_wait_are_bounded_in_number() {
    let mut rig = Rig::usual();
    rig.write(1, &encode(&vec!["incr n"; CLIENT_HOLDS_MAX * 3].join(";")));
    rig.run(false);
    assert_eq!(rig.model.batches.len(), CLIENT_HOLDS_MAX, "carried out up to the limit");
    rig.run(true);
    assert!(rig.got(1).ends_with(&format!(":{}\r\n", CLIENT_HOLDS_MAX * 3)));
}

#[test]
fn while_the_backend_is_congested_nothing_is_carried_out_or_read() {
    let mut rig = Rig::usual();
    rig.open(2);
    rig.model.congested = true;
    for client in [1, 2] {
        rig.write(client, &encode("incr n"));
    }
    rig.run(true);
    assert!(rig.model.batches.is_empty());
    for client in [1, 2] {
        rig.write(client, &encode("incr n"));
    }
    rig.run(true);
    assert_eq!((rig.unread(1), rig.door.deadline()), (encode("incr n").len(), None), "no busy waiting");
    rig.model.congested = false;
    rig.run(true);
    assert_eq!(rig.model.batches.len(), 4);
    assert_eq!(rig.got(1).len() + rig.got(2).len(), 16);
}

#[test]
fn the_memory_of_all_clients_together_is_bounded() {
    let mut rig = Rig::usual();
    let value = "x".repeat(15 << 20);
    rig.ask(&format!("set a {value}"));
    for client in 2..30 {
        rig.open(client);
        rig.peer(client).deaf = true;
        rig.write(client, &encode("get a; get a; get a"));
    }
    rig.run(true);
    let held = rig.door.shared.memory;
    assert!(held > CLIENTS_MEMORY_MAX / 2 && held <= CLIENTS_MEMORY_MAX + (1 << 20), "{held}");
    let refused = (2..30).filter(|client| rig.peers[client].got.starts_with(b"-OOM ")).count();
    assert!(refused > 10);
    assert_eq!(
        rig.ask("ping; strlen a"),
        format!("+PONG\r\n:{}\r\n", 15 << 20),
        "small things are still done"
    );
    for client in 2..30 {
        rig.door.close(ConnId(client));
        rig.peers.remove(&client);
    }
    assert_eq!(rig.door.shared.memory, rig.lent());
}

#[test]
fn partial_commands_of_many_clients_cannot_use_up_the_memory() {
    let mut rig = Rig::usual();
    let part = [b"*3\r\n$3\r\nset\r\n$1\r\na\r\n$16000000\r\n".to_vec(), vec![b'x'; 15 << 20]].concat();
    for client in 2..20 {
        rig.open(client);
        rig.write(client, &part);
    }
    rig.run(true);
    assert!(rig.door.shared.memory <= CLIENTS_MEMORY_MAX + (1 << 20));
    let refused: Vec<_> = (2..20).filter(|client| rig.peers[client].closed).collect();
    assert!(!refused.is_empty());
    for client in refused {
        assert!(rig.got(client).starts_with("-OOM the clients of this node hold 128 MiB together"));
    }
}

#[test]
fn what_many_clients_hold_for_large_commands_leaves_room_for_those_of_some_kilobytes() {
    let mut rig = Rig::usual();
    let part = |len: usize, given: usize| {
        let head = format!("*3\r\n$3\r\nset\r\n$1\r\na\r\n${len}\r\n").into_bytes();
        [head, vec![b'x'; given]].concat()
    };
    for client in 2..200 {
        rig.open(client);
        rig.write(client, &part(16_000_000, 1 << 20));
    }
    rig.run(true);
    assert!((2..200).filter(|client| rig.peers[client].closed).count() > 10, "they hold all they may");
    for client in 200..230 {
        rig.open(client);
        rig.write(client, &part(100_000, 90_000));
    }
    rig.run(true);
    for client in 200..230 {
        rig.write(client, &[vec![b'x'; 10_000], b"\r\n".to_vec()].concat());
    }
    rig.run(true);
    for client in 200..230 {
        assert_eq!(rig.got(client), "+OK\r\n");
    }
    assert_eq!(rig.ask("strlen a; get a").len(), ":100000\r\n$100000\r\n".len() + 100_002);
}

#[test]
fn one_client_too_many_is_told_so() {
    let mut door = RespDoor::new(RespConfig::default());
    for client in 0..=CLIENTS_MAX as u64 {
        door.open(Now::default(), ConnId(client), false);
    }
    assert_eq!(door.clients(), CLIENTS_MAX);
    let outputs = std::iter::from_fn(|| door.output());
    let last: Vec<_> =
        outputs.filter(|output| !matches!(output, DoorOutput::Proven { .. })).skip(CLIENTS_MAX).collect();
    assert!(format!("{last:?}").contains("max number of clients reached"));
    assert_eq!(last.len(), 2);
}

#[test]
fn a_large_value_in_small_pieces_arrives_whole() {
    let mut rig = Rig::usual();
    let value = "x".repeat(16 << 20);
    rig.write(1, &encode(&format!("set a {value}")));
    let mut pieces = 0;
    while rig.give(1, 16 << 10) {
        pieces += 1;
    }
    assert_eq!(pieces, 1025);
    rig.run(true);
    assert_eq!(rig.got(1), "+OK\r\n");
    assert_eq!(rig.door.shared.memory, rig.lent());
    assert_eq!(rig.ask("get a").len(), value.len() + 13);
    let refused = rig.ask(&format!("set a {value}x; ping"));
    assert_eq!(refused, "-ERR item value of 16777217 bytes: an item's value has at most 16 MiB\r\n+PONG\r\n");
}

#[test]
fn a_few_wrong_passwords_end_the_connection_and_each_is_told_of() {
    let config = RespConfig { password: Some("sesame".to_owned()), ..RespConfig::default() };
    let mut rig = Rig::new(config);
    rig.open(1);
    let guesses = "auth a; hello 3 auth default b; auth c; auth d; auth e; auth sesame; set app,items,x 1";
    let told = rig.ask(guesses);
    assert_eq!(told.matches("-WRONGPASS").count(), usize::from(PASSWORDS_MAX), "{told}");
    assert!(rig.peers[&1].closed && !told.contains("+OK"), "{told}");
    assert_eq!((rig.peers[&1].guessed, rig.peers[&1].proven), (usize::from(PASSWORDS_MAX), false));
    rig.open(2);
    assert_eq!(rig.ask_as(2, "auth a; auth sesame; ping").matches("+").count(), 2);
    assert!(rig.peers[&2].proven);
}

//! Proves what a client of the door sees: Redis's replies, their order, what they wait for, and the limits.

use super::model::{Model, Peer, Rig, encode};
use super::{RespConfig, RespDoor, vectors};
use crate::base::limits::{
    AUTHENTICATE_MS, CLIENT_HOLDS_MAX, CLIENT_OUT_MAX, CLIENTS_MAX, CLIENTS_MEMORY_MAX, KEYS_MAX,
};
use crate::base::{AckLevel, ConnId, FileId, Mono, Prng, Seq};
use crate::doors::{Refusal, Watermarks};

#[test]
fn replies_are_byte_for_byte_those_of_redis_7() {
    for (commands, expected) in vectors::REPLIES {
        assert_eq!(Rig::usual().ask(commands), *expected, "{commands}");
    }
}

#[test]
fn a_reply_waits_for_its_promise_and_holds_back_those_behind_it() {
    let mut rig = Rig::usual();
    rig.write(1, &encode("ping; set a 1; ping; get a; set b 2; ping"));
    rig.run(false);
    assert_eq!(rig.got(1), "+PONG\r\n");
    rig.model.marks.durable[0] = Seq(1);
    rig.run(false);
    assert_eq!(rig.got(1), "", "durable here is not yet what may be told");
    rig.model.marks.replicated[0] = Seq(1);
    rig.run(false);
    assert_eq!(rig.got(1), "+OK\r\n+PONG\r\n$1\r\n1\r\n");
    rig.run(true);
    assert_eq!(rig.got(1), "+OK\r\n+PONG\r\n");
}

#[test]
fn what_another_client_wrote_is_not_told_before_it_is_safe() {
    let mut rig = Rig::usual();
    rig.open(2);
    rig.write(1, &encode("set a 1; set app,orders,x 1; del app,orders,x"));
    rig.run(false);
    rig.write(2, &encode("get none; get a; exists app,orders,x; setnx a 2; scan 0; dbsize; keys *"));
    rig.run(false);
    assert_eq!((rig.got(1), rig.got(2)), (String::new(), "$-1\r\n".to_owned()));
    rig.model.marks.replicated[0] = Seq(1);
    rig.run(false);
    assert_eq!(rig.got(2), "$1\r\n1\r\n", "that the item is gone has to be safe as well");
    rig.run(true);
    let scanned = "*2\r\n$1\r\n0\r\n*1\r\n$1\r\na\r\n";
    assert_eq!(rig.got(2), format!(":0\r\n:0\r\n{scanned}:1\r\n*1\r\n$1\r\na\r\n"));
}

#[test]
fn every_level_of_promise_is_waited_for() {
    for (index, level) in
        [AckLevel::Local, AckLevel::Received, AckLevel::Durable, AckLevel::Applied].into_iter().enumerate()
    {
        let mut rig = Rig::usual();
        rig.model.level = level;
        rig.write(1, &encode("set a 1"));
        for below in 0..4 {
            rig.run(false);
            assert_eq!(rig.got(1), if below > index { "+OK\r\n" } else { "" });
            rig.peer(1).got.clear();
            rig.model.marks.replicated[below] = Seq(1);
            if below >= index {
                rig.run(false);
                assert_eq!(rig.got(1), if below == index { "+OK\r\n" } else { "" });
                break;
            }
        }
    }
}

#[test]
fn keys_name_account_file_and_item_or_an_item_of_the_default_file() {
    let mut rig = Rig::usual();
    assert_eq!(
        rig.ask("set app,orders,a,b,c 1; get app,orders,a,b,c; get app,items,a"),
        "+OK\r\n$1\r\n1\r\n$-1\r\n"
    );
    assert_eq!(rig.ask("set a,b 2; get app,items,a,b"), "+OK\r\n$1\r\n2\r\n");
    assert_eq!(rig.ask("get no,file,x"), "-ERR no such file no,file\r\n");
    let long = "x".repeat(256);
    assert_eq!(
        rig.ask(&format!("get {long}")),
        "-ERR item id of 256 bytes: an item id has 1 to 255 bytes\r\n"
    );
    assert_eq!(rig.ask("set app,orders, 1"), "-ERR item id of 0 bytes: an item id has 1 to 255 bytes\r\n");
    let mut rig = Rig::new(RespConfig::default());
    rig.open(1);
    let expected = "-ERR key must be account,file,item-id (no default file is configured)\r\n";
    assert_eq!(rig.ask("get a; get a,b"), expected.repeat(2));
    assert_eq!(rig.ask("set app,orders,a 1"), "+OK\r\n");
}

#[test]
fn refusals_become_errors_and_change_nothing() {
    let mut rig = Rig::usual();
    rig.model.primary = false;
    let read_only = "-READONLY You can't write against a read only replica.\r\n";
    assert_eq!(rig.ask("set a 1; get a; set tmp,cache,a 1"), format!("{read_only}$-1\r\n+OK\r\n"));
    assert_eq!(
        rig.ask("multi; set a 1; exec; getset a 2; incr a"),
        format!("+OK\r\n+QUEUED\r\n{}", read_only.repeat(3))
    );
    rig.model.primary = true;
    rig.model.refuse = Some(Refusal::NoSpace);
    assert!(rig.ask("set a 1").starts_with("-OOM no space left"));
    rig.model.refuse = None;
    assert!(rig.ask("mset a 1 tmp,cache,b 2").starts_with("-CROSSSLOT "));
    assert!(rig.ask("multi; set a 1; set tmp,cache,b 2; exec").contains("-CROSSSLOT "));
    assert_eq!(rig.ask("get a; get tmp,cache,b"), "$-1\r\n$-1\r\n");
    assert!(
        rig.ask("flushall; flushdb")
            .starts_with("-ERR flushall is not possible here: use `hot-backup file clear")
    );
    assert!(rig.ask("set a 1 EX 5").starts_with("-ERR items do not expire"));
}

#[test]
fn a_transaction_is_one_batch_and_sees_itself() {
    let mut rig = Rig::usual();
    rig.ask("set n 5; set gone x");
    rig.model.batches.clear();
    let replies = rig.ask(
        "multi; incr n; incr n; get n; del gone; exists gone; set gone y; append gone z; mget n gone; exec",
    );
    assert!(
        replies
            .ends_with("*8\r\n:6\r\n:7\r\n$1\r\n7\r\n:1\r\n:0\r\n+OK\r\n:2\r\n*2\r\n$1\r\n7\r\n$2\r\nyz\r\n"),
        "{replies}"
    );
    assert_eq!(rig.model.batches, [2], "two items, one batch");
    assert_eq!(rig.ask("mset a 1 b 2 c 3"), "+OK\r\n");
    assert_eq!(rig.model.batches, [2, 3]);
    assert!(rig.ask("multi; get a; exec").ends_with("*1\r\n$1\r\n1\r\n"));
    assert_eq!(rig.model.batches, [2, 3], "a transaction that only reads makes no batch");
}

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
    let refused = rig.ask("multi; keys *; exec");
    assert!(refused.contains("-ERR Command not allowed inside a transaction\r\n-EXECABORT"));
}

#[test]
fn a_watched_key_voids_the_transaction_whoever_changes_it() {
    let mut rig = Rig::usual();
    rig.open(2);
    for (change, void) in [
        ("set k 2", true),
        ("del k", true),
        ("mset x 1 k 2", true),
        ("set other 2", false),
        ("set app,orders,k 2", false),
        ("set k 9 NX", false),
        ("get k", false),
    ] {
        rig.ask("set k 1; watch k; multi; get other");
        rig.ask_as(2, change);
        let replies = rig.ask("exec");
        assert_eq!(replies == "*-1\r\n", void, "{change}: {replies}");
    }
    rig.ask("watch k; multi; get k");
    rig.door.changed(FileId(2), None);
    assert_eq!(rig.ask("exec"), "*-1\r\n", "changed by other means");
    rig.ask("watch k; multi; get k");
    rig.door.changed(FileId(2), Some(b"k"));
    rig.door.changed(FileId(4), None);
    assert_eq!(rig.ask("exec"), "*-1\r\n");
    rig.ask("set k 1; watch k");
    rig.door.close(ConnId(1));
    assert!(rig.door.shared.watches.is_empty());
}

#[test]
fn wait_counts_the_peer_when_it_has_the_update_on_disk() {
    let mut rig = Rig::usual();
    rig.model.peer = [Seq(0); 3];
    rig.write(1, &encode("set a 1; wait 1 0; ping"));
    rig.model.marks.replicated[0] = Seq(1);
    rig.model.marks.durable[0] = Seq(1);
    rig.run(false);
    assert_eq!(rig.got(1), "+OK\r\n");
    rig.model.peer = [Seq(1), Seq(0), Seq(0)];
    rig.run(false);
    assert_eq!(rig.got(1), "", "in the peer's memory is not enough");
    rig.model.peer = [Seq(1), Seq(1), Seq(0)];
    rig.run(false);
    assert_eq!(rig.got(1), ":1\r\n+PONG\r\n");
    assert_eq!(rig.door.shared.blocked, 0);
}

#[test]
fn wait_ends_with_its_time_and_tells_what_is_true() {
    let mut rig = Rig::usual();
    rig.write(1, &encode("set a 1; wait 1 100; waitaof 1 1 50; ping"));
    rig.run(false);
    assert_eq!(rig.door.deadline(), Some(rig.now.mono.plus_ms(100)));
    rig.model.marks.durable[0] = Seq(1);
    rig.model.marks.replicated[0] = Seq(1);
    rig.run(false);
    assert_eq!(rig.got(1), "+OK\r\n");
    rig.now.mono = rig.now.mono.plus_ms(100);
    rig.run(false);
    assert_eq!(rig.got(1), ":0\r\n");
    rig.now.mono = rig.now.mono.plus_ms(50);
    rig.run(false);
    assert_eq!(rig.got(1), "*2\r\n:1\r\n:0\r\n+PONG\r\n");
    assert_eq!(rig.door.deadline(), None);
}

#[test]
fn wait_of_a_client_that_wrote_nothing_is_for_all_there_is() {
    let mut rig = Rig::usual();
    rig.open(2);
    rig.write(1, &encode("set a 1; set a 2"));
    rig.run(false);
    rig.write(2, &encode("wait 1 0"));
    rig.model.peer[1] = Seq(1);
    rig.run(false);
    assert_eq!(rig.got(2), "");
    rig.model.peer[1] = Seq(2);
    rig.run(false);
    assert_eq!(rig.got(2), ":1\r\n");
    let mut rig = Rig::usual();
    rig.model.connected = false;
    assert_eq!(rig.ask("wait 0 0"), ":0\r\n", "a peer that is away does not count, not even for nothing");
}

#[test]
fn waitaof_waits_for_both_journals_of_this_node() {
    let mut rig = Rig::usual();
    rig.write(1, &encode("set tmp,cache,a 1; waitaof 1 0 0; waitaof 2 0 0; waitaof 0 -1 0; waitaof 0 0 0"));
    rig.run(false);
    assert_eq!(rig.got(1), "");
    rig.model.marks.durable[1] = Seq(1);
    rig.run(false);
    let range = "-ERR value is out of range, value must between 0 and 1\r\n-ERR value is out of range, must be positive\r\n";
    assert_eq!(rig.got(1), format!("+OK\r\n*2\r\n:1\r\n:1\r\n{range}*2\r\n:1\r\n:1\r\n"));
    rig.model.primary = false;
    assert!(rig.ask("wait 1 0").starts_with("-ERR WAIT cannot be used with replica"));
    assert!(rig.ask("waitaof 0 1 0").starts_with("-ERR WAITAOF cannot be used with replica"));
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
fn errors_in_the_protocol_end_the_connection_after_all_replies() {
    let mut rig = Rig::usual();
    let mut bytes = encode("set a 1");
    bytes.extend_from_slice(b"*1\r\n!oops\r\n*1\r\n$4\r\nPING\r\n");
    rig.write(1, &bytes);
    rig.run(false);
    assert_eq!(rig.got(1), "");
    assert!(!rig.peer(1).closed);
    rig.run(true);
    assert_eq!(rig.got(1), "+OK\r\n-ERR Protocol error: expected '$', got '!'\r\n");
    assert!(rig.peer(1).closed);
    assert_eq!((rig.door.clients(), rig.door.shared.memory), (0, 0));
    let mut rig = Rig::usual();
    rig.write(1, b"POST / HTTP/1.1\r\nHost: x\r\nset a 1\r\n");
    rig.run(true);
    assert_eq!(rig.got(1), "");
    assert!(rig.peer(1).closed, "a browser is sent away");
}

#[test]
fn inline_commands_work_and_quit_ends_the_connection() {
    let mut rig = Rig::usual();
    rig.write(1, b"PING\r\n\r\nset a \"b c\"\nget a\r\nquit\r\nping\r\n");
    rig.run(true);
    assert_eq!(rig.got(1), "+PONG\r\n+OK\r\n$3\r\nb c\r\n+OK\r\n");
    assert!(rig.peer(1).closed);
}

#[test]
fn a_client_that_does_not_read_is_not_read_from() {
    let mut rig = Rig::usual();
    rig.ask(&format!("set a {}", "x".repeat(100_000)));
    rig.peer(1).deaf = true;
    rig.write(1, &encode(&"get a;".repeat(500)).repeat(2));
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
        assert!(rig.got(client).starts_with("-ERR the node's memory for clients is used up"));
    }
}

#[test]
fn one_client_too_many_is_told_so() {
    let mut door = RespDoor::new(RespConfig::default());
    for client in 0..=CLIENTS_MAX as u64 {
        door.open(super::Now::default(), ConnId(client), false);
    }
    assert_eq!(door.clients(), CLIENTS_MAX);
    let last: Vec<_> = std::iter::from_fn(|| door.output()).skip(CLIENTS_MAX).collect();
    assert!(format!("{last:?}").contains("max number of clients reached"));
    assert_eq!(last.len(), 2);
}

fn keys_of(rig: &mut Rig, scan: &str) -> (Vec<String>, usize) {
    let (mut cursor, mut found, mut calls) = ("0".to_owned(), Vec::new(), 0);
    loop {
        let reply = rig.ask(&scan.replacen("0", &cursor, 1));
        let mut lines = reply.lines();
        assert_eq!(lines.next(), Some("*2"), "{reply}");
        cursor = lines.nth(1).unwrap().to_owned();
        found.extend(lines.skip(1).skip(1).step_by(2).map(str::to_owned));
        calls += 1;
        if cursor == "0" {
            return (found, calls);
        }
    }
}

#[test]
fn scan_walks_a_file_or_everything() {
    let mut rig = Rig::usual();
    rig.ask("mset a 1 b 2 x,y 3 app,items,p,q,r 4 app,orders,1001 5 app,orders,1002 6 app,orders,2001 7");
    rig.ask("set tmp,cache,c 1");
    let keys = |rig: &mut Rig, scan: &str| keys_of(rig, scan).0.join(" ");
    let everything = "a b app,items,p,q,r x,y app,orders,1001 app,orders,1002 app,orders,2001 tmp,cache,c";
    for count in [1, 2, 3, 7, 100] {
        assert_eq!(keys(&mut rig, &format!("scan 0 count {count}")), everything);
    }
    assert_eq!(keys(&mut rig, "scan 0 match app,orders,10* count 1"), "app,orders,1001 app,orders,1002");
    assert_eq!(keys(&mut rig, "scan 0 match app,orders,*1"), "app,orders,1001 app,orders,2001");
    assert_eq!(
        keys(&mut rig, "scan 0 match app,items,*"),
        "app,items,a app,items,b app,items,p,q,r app,items,x,y"
    );
    assert_eq!(keys(&mut rig, "scan 0 match app,orders,1001"), "app,orders,1001");
    assert_eq!(keys(&mut rig, "scan 0 match ?"), "a b");
    assert_eq!(keys(&mut rig, "scan 0 match *1"), "app,orders,1001 app,orders,2001");
    assert_eq!(
        keys(&mut rig, "scan 0 match app,i*"),
        "app,items,a app,items,b app,items,p,q,r app,items,x,y"
    );
    assert_eq!(keys(&mut rig, "scan 0 type list"), "");
    assert_eq!(rig.ask("scan 0 match no,file,*"), "-ERR no such file no,file\r\n");
    assert!(rig.ask("scan 77").starts_with("-ERR unknown cursor"));
    assert_eq!(
        rig.ask("keys app,orders,1*; dbsize"),
        "*2\r\n$15\r\napp,orders,1001\r\n$15\r\napp,orders,1002\r\n:8\r\n"
    );
}

#[test]
fn scan_starts_at_the_literal_part_of_the_pattern() {
    let mut rig = Rig::usual();
    let items: Vec<String> = (0..500).map(|n| format!("app,orders,{n:04} v")).collect();
    rig.ask(&format!("mset {}", items.join(" ")));
    let (found, calls) = keys_of(&mut rig, "scan 0 match app,orders,040* count 20");
    assert_eq!((found.len(), calls), (10, 1), "only the ten that fit were looked at");
}

#[test]
fn scan_misses_no_item_that_was_there_throughout() {
    let mut prng = Prng::new(5);
    for _ in 0..40 {
        let mut rig = Rig::usual();
        let item =
            |n: u64| format!("{}{n}", ["", "app,orders,", "tmp,cache,"][usize::try_from(n % 3).unwrap()]);
        for n in 0..120 {
            rig.ask(&format!("set {} v", item(n)));
        }
        let (mut cursor, mut found) = ("0".to_owned(), Vec::new());
        loop {
            let reply = rig.ask(&format!("scan {cursor} count {}", 1 + prng.below(15)));
            let mut lines = reply.lines().skip(2);
            cursor = lines.next().unwrap().to_owned();
            found.extend(lines.skip(2).step_by(2).map(str::to_owned));
            if cursor == "0" {
                break;
            }
            // Items from 60 on come and go meanwhile, also those the cursor stands on.
            for _ in 0..10 {
                let n = 60 + prng.below(100);
                rig.ask(&if prng.percent(50) {
                    format!("del {}", item(n))
                } else {
                    format!("set {} w", item(n))
                });
            }
            if prng.percent(10) {
                rig.model.create(5, "app,new", true);
                rig.ask("set app,new,x 1");
            } else if prng.percent(10) {
                rig.model.remove(5);
            }
        }
        for n in 0..60 {
            assert_eq!(found.iter().filter(|key| **key == item(n)).count(), 1, "{}", item(n));
        }
    }
}

#[test]
fn keys_and_dbsize_let_others_in_between() {
    let mut rig = Rig::usual();
    rig.open(2);
    for part in 0..10 {
        let items: Vec<String> = (0..1000).map(|n| format!("app,orders,{part}-{n} v")).collect();
        rig.ask(&format!("mset {}", items.join(" ")));
    }
    rig.write(1, &encode("dbsize; keys nothing*; ping"));
    rig.give(1, usize::MAX);
    assert!(rig.due());
    assert_eq!(rig.ask_as(2, "get app,orders,3-3"), "$1\r\nv\r\n");
    rig.run(true);
    assert_eq!(rig.got(1), ":10000\r\n*0\r\n+PONG\r\n");
    assert_eq!(rig.door.deadline(), None);
    rig.write(1, &encode("dbsize"));
    rig.give(1, usize::MAX);
    rig.door.close(ConnId(1));
    rig.tick();
    assert_eq!(rig.door.deadline(), None, "a walk ends with its client");
}

#[test]
fn keys_refuses_to_return_very_many() {
    let mut rig = Rig::usual();
    for part in 0..=KEYS_MAX / 1000 {
        let items: Vec<String> = (0..1000).map(|n| format!("app,orders,{part}-{n} v")).collect();
        rig.ask(&format!("mset {}", items.join(" ")));
    }
    assert_eq!(
        rig.ask("keys *; dbsize"),
        "-ERR more than 100000 keys would be returned: use SCAN\r\n:101000\r\n"
    );
    assert!(rig.ask("keys app,orders,1-*").starts_with("*1000\r\n"));
}

#[test]
fn info_and_role_speak_redis_of_either_role() {
    let mut rig = Rig::usual();
    rig.ask("set a 1");
    let info = rig.ask("info");
    for line in [
        "# Server",
        "redis_version:7.2.0",
        "hot_backup_version:0.1.0",
        "# Clients",
        "connected_clients:1",
        "# Replication",
        "role:master",
        "connected_slaves:1",
        "slave0:ip=10.0.0.2,port=7002,state=online,offset=1,lag=1",
        "master_repl_offset:1",
    ] {
        assert!(info.contains(&format!("{line}\r\n")), "{line}");
    }
    assert!(!rig.ask("info server").contains("# Clients"));
    assert!(rig.ask("info nosuch") == "$0\r\n\r\n");
    assert_eq!(
        rig.ask("role"),
        "*3\r\n$6\r\nmaster\r\n:1\r\n*1\r\n*3\r\n$8\r\n10.0.0.2\r\n$4\r\n7002\r\n$1\r\n1\r\n"
    );
    rig.model.primary = false;
    rig.model.connected = false;
    let info = rig.ask("info replication server");
    for line in [
        "role:slave",
        "master_host:10.0.0.2",
        "master_port:7002",
        "master_link_status:down",
        "slave_repl_offset:1",
        "slave_read_only:1",
    ] {
        assert!(info.contains(&format!("{line}\r\n")), "{line}");
    }
    assert_eq!(rig.ask("role"), "*5\r\n$5\r\nslave\r\n$8\r\n10.0.0.2\r\n:7002\r\n$7\r\nconnect\r\n:1\r\n");
}

#[test]
fn what_client_libraries_send_on_connect_is_answered() {
    let mut rig = Rig::usual();
    assert_eq!(rig.ask("client setinfo lib-name redis-py; client setinfo lib-ver 5.0"), "+OK\r\n+OK\r\n");
    assert!(rig.ask("client setinfo x y").starts_with("-ERR Unrecognized option 'x'"));
    assert!(rig.ask("client info").contains("lib-name=redis-py lib-ver=5.0"));
    assert_eq!(
        rig.ask("client id; readonly; readwrite; command docs; config get appendfsync"),
        ":1\r\n+OK\r\n+OK\r\n*0\r\n*2\r\n$11\r\nappendfsync\r\n$6\r\nalways\r\n"
    );
    assert!(rig.ask("command").starts_with(&format!(
        "*{}\r\n*10\r\n$6\r\nappend\r\n:3\r\n*2\r\n+write\r\n+fast\r\n:1\r\n:1\r\n:1\r\n*3\r\n",
        super::table::TABLE.len()
    )));
    assert!(rig.ask("config set save x").starts_with("-ERR the configuration cannot be changed here"));
    assert_eq!(rig.ask("time"), "*2\r\n$10\r\n1700000000\r\n$6\r\n123000\r\n");
}

/// A long list of commands of all kinds whose replies depend on nothing but the commands.
fn script(prng: &mut Prng) -> Vec<u8> {
    let mut out = Vec::new();
    let kinds: [&[&str]; 24] = [
        &["set", "K", "V"],
        &["set", "K", "V"],
        &["get", "K"],
        &["incr", "N"],
        &["append", "K", "V"],
        &["del", "K", "K"],
        &["mset", "K", "V", "K", "V"],
        &["mget", "K", "K", "N"],
        &["multi"],
        &["exec"],
        &["discard"],
        &["watch", "K"],
        &["ping"],
        &["nonsense", "K"],
        &["setnx", "K", "V"],
        &["getdel", "K"],
        &["set", "K", "V", "GET", "NX"],
        &["strlen", "K"],
        &["set", "tmp,cache,x", "V"],
        &["mset", "K", "V", "tmp,cache,y", "V"],
        &["keys", "*"],
        &["exists", "K", "tmp,cache,x"],
        &["dbsize"],
        &["hello", "3"],
    ];
    for _ in 0..120 {
        let kind = kinds[usize::try_from(prng.below(kinds.len() as u64)).unwrap()];
        let words: Vec<Vec<u8>> = kind
            .iter()
            .map(|word| match *word {
                "K" => format!(
                    "{}k{}",
                    ["", "app,orders,"][usize::try_from(prng.below(2)).unwrap()],
                    prng.below(6)
                )
                .into_bytes(),
                "N" => b"n".to_vec(),
                "V" => vec![
                    b'v';
                    usize::try_from(if prng.percent(5) { prng.below(70_000) } else { prng.below(40) })
                        .unwrap()
                ],
                other => other.as_bytes().to_vec(),
            })
            .collect();
        let words: Vec<&[u8]> = words.iter().map(Vec::as_slice).collect();
        if prng.percent(10) && words.len() < 3 {
            out.extend_from_slice(&words.join(&b' '));
            out.extend_from_slice(b"\r\n");
        } else {
            crate::format::resp::command(&mut out, &words);
        }
    }
    out.extend_from_slice(&encode("discard"));
    if prng.percent(30) {
        out.extend_from_slice(b"*1\r\n$3\r\nget!\r\n");
    }
    out
}

#[test]
fn replies_do_not_depend_on_how_the_input_is_cut_or_on_when_updates_become_safe() {
    for seed in 0..150 {
        let mut prng = Prng::new(seed);
        let script = script(&mut prng);
        let mut rig = Rig::usual();
        rig.write(1, &script);
        rig.run(true);
        let expected = rig.got(1);
        let (closed, batches) = (rig.peer(1).closed, rig.model.batches.clone());
        let mut rig = Rig::usual();
        rig.model.level = [AckLevel::Local, AckLevel::Applied][usize::try_from(seed % 2).unwrap()];
        rig.write(1, &script);
        for _ in 0..4000 {
            match prng.below(8) {
                0..3 => drop(rig.give(
                    1,
                    usize::try_from(1 + prng.below(if seed % 3 == 0 { 20 } else { 9000 })).unwrap(),
                )),
                3 => drop(rig.complete(1)),
                4 => rig.model.settle_some(&mut prng),
                5 => rig.model.congested = prng.percent(40),
                6 => rig.release(),
                _ if rig.due() => rig.tick(),
                _ => {}
            }
        }
        rig.model.congested = false;
        rig.run(true);
        assert!(rig.got(1) == expected, "seed {seed}: the replies differ");
        assert_eq!((rig.peer(1).closed, &rig.model.batches), (closed, &batches), "seed {seed}");
        if !closed {
            assert_eq!(rig.door.shared.memory, rig.lent(), "seed {seed}: nothing is left behind");
        }
    }
}

#[test]
fn no_update_is_answered_before_it_is_safe_under_any_schedule() {
    for seed in 0..60 {
        let mut prng = Prng::new(1000 + seed);
        let mut rig = Rig::usual();
        let level = usize::try_from(seed % 4).unwrap();
        rig.model.level = [AckLevel::Local, AckLevel::Received, AckLevel::Durable, AckLevel::Applied][level];
        rig.write(1, &encode(&vec!["set a 1"; 200].join(";")));
        for _ in 0..3000 {
            match prng.below(6) {
                0 => drop(rig.give(1, usize::try_from(1 + prng.below(200)).unwrap())),
                1 => drop(rig.complete(1)),
                2 => rig.model.settle_some(&mut prng),
                3 => rig.model.congested = prng.percent(30),
                _ => rig.release(),
            }
            let told = rig.peers[&1].got.len() as u64 / 5;
            assert!(told <= rig.model.marks.replicated[level].0, "seed {seed}: {told} told");
        }
        rig.model.congested = false;
        rig.run(true);
        assert_eq!(rig.peers[&1].got.len(), 1000);
    }
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
fn the_marks_of_the_model_move_as_the_rule_says() {
    let mut model = Model::new();
    model.settle();
    assert_eq!(model.marks, Watermarks::default());
}

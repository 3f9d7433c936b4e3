//! Proves in which order and when replies leave: never before their promise is kept, whatever the schedule.

use super::super::model::{Rig, encode};
use crate::base::{AckLevel, Prng, Seq};
use crate::doors::Backend as _;

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
fn a_client_that_asks_for_it_is_told_epoch_and_number_of_its_updates_with_the_reply_and_not_before() {
    let mut rig = Rig::usual();
    rig.write(1, &encode("client receipt; client receipt on"));
    rig.run(true);
    assert!(rig.got(1).starts_with("$-1\r\n-ERR a receipt with each reply needs RESP3"));
    rig.write(1, &encode("hello 3; client receipt on; get a"));
    rig.run(true);
    let told = rig.got(1);
    assert!(told.ends_with("+OK\r\n_\r\n"), "a read has none: {told}");
    rig.write(1, &encode("set a 1; multi; set a 2; set b 3; exec; client receipt"));
    rig.run(false);
    assert_eq!(rig.got(1), "", "what it names is not safe yet");
    rig.run(true);
    let epoch = rig.model.view().epoch;
    let receipt = |seq| format!("*2\r\n:{epoch}\r\n:{seq}\r\n");
    let attribute = |seq| format!("|1\r\n+receipt\r\n{}", receipt(seq));
    let queued = "+OK\r\n+QUEUED\r\n+QUEUED\r\n";
    let (first, second) = (attribute(1), attribute(3));
    let expected = format!("{first}+OK\r\n{queued}{second}*2\r\n+OK\r\n+OK\r\n{}", receipt(3));
    assert_eq!(rig.got(1), expected);
    rig.write(1, &encode("client receipt off; set a 1; client receipt on; reset; set a 1; client receipt"));
    rig.run(true);
    assert_eq!(rig.got(1), format!("+OK\r\n+OK\r\n+OK\r\n+RESET\r\n+OK\r\n{}", receipt(5)));
}

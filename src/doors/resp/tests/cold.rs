//! Proves that reads of what is not in memory stop nobody, keep every client's order, and change no answer.

use super::super::model::{Rig, encode};
use crate::base::{ConnId, Prng};
use std::fmt::Write as _;

/// A random command over few items.
fn command(prng: &mut Prng) -> String {
    let mut id = || format!("k{}", prng.below(8));
    let (a, b, c) = (id(), id(), id());
    let n = prng.below(100);
    match prng.below(20) {
        0 => format!("get {a}"),
        1 => format!("mget {a} {b} {c} {a}"),
        2 => format!("exists {a} {b} {a}"),
        3 => format!("set {a} {n}"),
        4 => format!("set {a} {n} get"),
        5 => format!("set {a} {n} nx"),
        6 => format!("setnx {a} {n}"),
        7 => format!("incr {a}"),
        8 => format!("incrby {a} {n}"),
        9 => format!("append {a} {n}"),
        10 => format!("del {a} {b} {a}"),
        11 => format!("msetnx {a} {n} {b} {n}"),
        12 => format!("getdel {a}"),
        13 => format!("getset {a} {n}"),
        14 => format!("strlen {a}"),
        15 => "keys *".to_owned(),
        16 => "dbsize".to_owned(),
        17 => "scan 0 count 3".to_owned(),
        18 => format!("getrange {a} 0 1"),
        _ => format!("type {a}"),
    }
}

/// Commands, some of them in transactions.
fn script(prng: &mut Prng) -> String {
    let mut script = "ping".to_owned();
    while script.len() < 1500 {
        if prng.percent(20) {
            script += "; multi";
            for _ in 0..prng.below(6) {
                let _ = write!(script, "; {}", command(prng));
            }
            script += "; exec";
        } else {
            let _ = write!(script, "; {}", command(prng));
        }
    }
    script
}

/// Cursors of SCAN are numbers of the moment.
fn without_cursors(replies: &str) -> String {
    replies.lines().map(|line| if line.len() > 15 { "cursor" } else { line }).collect::<Vec<_>>().join("\n")
}

#[test]
fn whatever_is_cold_every_command_answers_what_it_answers_when_all_is_hot() {
    let (mut fetches, mut waits) = (0, 0);
    for seed in 0..300 {
        let mut prng = Prng::new(seed);
        let script = script(&mut prng);
        let mut hot = Rig::usual();
        hot.model.deletes_nothing = true;
        let expected = hot.ask(&script);
        let mut cold = Rig::usual();
        cold.model.deletes_nothing = true;
        cold.model.chill.percent = [5, 40, 90][usize::try_from(seed % 3).unwrap()];
        cold.model.chill.prng = Prng::new(seed);
        let answered = cold.ask(&script);
        assert_eq!(without_cursors(&answered), without_cursors(&expected), "seed {seed}: {script}");
        fetches += cold.model.chill.fetches;
        waits += cold.model.chill.waits;
        assert_eq!(cold.door.shared.fetches.len(), 0);
    }
    assert!(fetches > 10_000, "{fetches} fetches");
    assert!(waits < fetches / 50, "{waits} reads waited beside {fetches} fetches");
}

#[test]
fn while_one_client_waits_for_the_disk_the_others_are_answered_and_its_own_replies_keep_their_order() {
    let mut rig = Rig::usual();
    rig.open(2);
    assert_eq!(rig.ask("set a 1; set b 2"), "+OK\r\n+OK\r\n");
    rig.model.chill.percent = 100;
    rig.model.chill.held = true;
    rig.write(1, &encode("get a; ping; set c 3"));
    rig.run(true);
    assert_eq!(rig.got(1), "", "nothing overtakes what waits");
    assert_eq!(rig.ask_as(2, "ping; set d 4"), "+PONG\r\n+OK\r\n");
    assert!(!rig.model.has_set("c"), "what stands behind it is not begun");
    assert!(rig.end_fetch());
    rig.run(true);
    assert_eq!(rig.got(1), "$1\r\n1\r\n+PONG\r\n+OK\r\n");
}

#[test]
fn what_changes_while_it_is_fetched_is_seen() {
    let mut rig = Rig::usual();
    rig.open(2);
    assert_eq!(rig.ask("set n 1; set x 1; set y 1"), "+OK\r\n+OK\r\n+OK\r\n");
    rig.model.chill.percent = 100;
    rig.model.chill.held = true;
    rig.open(3);
    // Two add to one number; a third reads two items that are always set together.
    rig.write(1, &encode("incr n"));
    rig.write(2, &encode("incr n"));
    rig.write(3, &encode("mget x y"));
    rig.run(true);
    rig.open(4);
    assert_eq!(rig.ask_as(4, "mset x 2 y 2; set n 10"), "+OK\r\n+OK\r\n");
    while rig.end_fetch() {
        rig.run(true);
    }
    let mut sums = [rig.got(1), rig.got(2)];
    sums.sort();
    assert_eq!(sums, [":11\r\n", ":12\r\n"]);
    assert_eq!(rig.got(3), "*2\r\n$1\r\n2\r\n$1\r\n2\r\n");
}

#[test]
fn a_pair_of_items_that_is_always_set_together_is_never_read_in_halves() {
    for seed in 0..200 {
        let mut rig = Rig::usual();
        for client in 2..5 {
            rig.open(client);
        }
        assert_eq!(rig.ask("mset x 0 y 0"), "+OK\r\n");
        rig.model.chill.percent = 60;
        rig.model.chill.held = true;
        let mut prng = Prng::new(seed);
        rig.model.chill.prng = Prng::new(seed);
        for n in 1..40 {
            let read = ["mget x y", "multi; get x; get y; exec", "multi; mget y x; exec"];
            let reader = 2 + prng.below(2);
            rig.write(reader, &encode(read[usize::try_from(prng.below(3)).unwrap()]));
            rig.write(4, &encode(&format!("mset x {n} y {n}")));
            for _ in 0..prng.below(4) {
                rig.end_fetch();
                rig.run(true);
            }
        }
        rig.model.chill.held = false;
        rig.run(true);
        for reader in [2, 3] {
            let got = rig.got(reader);
            let numbers: Vec<&str> =
                got.lines().filter(|line| line.bytes().all(|byte| byte.is_ascii_digit())).collect();
            assert!(numbers.len().is_multiple_of(2));
            assert!(numbers.chunks(2).all(|pair| pair[0] == pair[1]), "seed {seed}: {got}");
        }
    }
}

#[test]
fn a_client_that_leaves_while_it_waits_leaves_nothing_behind_and_what_it_asked_is_not_done() {
    let mut rig = Rig::usual();
    rig.open(2);
    assert_eq!(rig.ask("set n 1; set m 1"), "+OK\r\n+OK\r\n");
    rig.model.chill.percent = 100;
    rig.model.chill.held = true;
    rig.write(2, &encode("incr n"));
    rig.run(true);
    rig.door.close(ConnId(2));
    assert!(rig.door.shared.fetches.is_empty());
    assert!(rig.end_fetch());
    rig.model.chill.forget();
    rig.run(true);
    // One that has ended what it sends is told what it asked to know; what would change something is dropped.
    rig.open(3);
    rig.open(4);
    rig.write(3, &encode("get n; set late 1"));
    rig.write(4, &encode("incr m; set late 1"));
    rig.run(true);
    rig.end(3, true);
    rig.end(4, true);
    while rig.end_fetch() {
        rig.run(true);
    }
    assert_eq!((rig.got(3), rig.got(4)), ("$1\r\n1\r\n".to_owned(), String::new()));
    assert!(rig.peer(3).closed && rig.peer(4).closed);
    assert!(!rig.model.has_set("late"));
    rig.model.chill.percent = 0;
    assert_eq!(rig.ask("mget n m"), "*2\r\n$1\r\n1\r\n$1\r\n1\r\n");
}

#[test]
fn keys_of_one_command_are_fetched_together() {
    let mut rig = Rig::usual();
    rig.model.chill.percent = 100;
    rig.model.chill.held = true;
    let keys: Vec<String> = (0..200).map(|n| format!("k{n}")).collect();
    rig.write(1, &encode(&format!("mget {}", keys.join(" "))));
    rig.run(true);
    assert_eq!(rig.model.chill.fetches, crate::base::limits::FETCH_AHEAD as u64);
    rig.model.chill.held = false;
    rig.run(true);
    assert_eq!(rig.got(1).matches("$-1").count(), 200);
    assert_eq!(rig.model.chill.waits, 0);
}

#[test]
fn what_is_never_hot_when_it_is_read_is_waited_for_in_the_end() {
    let mut rig = Rig::usual();
    assert_eq!(rig.ask("set a 1"), "+OK\r\n");
    rig.model.chill.percent = 100;
    rig.model.chill.held = true;
    rig.write(1, &encode("get a"));
    rig.run(true);
    for _ in 0..crate::base::limits::FETCH_TRIES_MAX {
        assert_eq!(rig.got(1), "");
        assert!(rig.end_fetch());
        rig.model.chill.forget();
        rig.run(true);
    }
    assert_eq!(rig.got(1), "$1\r\n1\r\n");
    assert_eq!(rig.model.chill.waits, 1);
}

#[test]
fn of_many_items_dbsize_and_info_tell_an_estimate_without_walking_and_info_says_so() {
    let mut rig = Rig::usual();
    assert_eq!(rig.ask("mset a 1 b,c 2; set app,items,x,y,z 3; set app,orders,o 4"), "+OK\r\n+OK\r\n+OK\r\n");
    assert_eq!(rig.ask("dbsize"), ":2\r\n");
    assert!(rig.ask("info keyspace").contains("hot_backup_keys_are_estimate:0"));
    let walked = rig.model.scans;
    rig.model.inflated = crate::base::limits::COUNT_EXACT_MAX;
    rig.model.chill.percent = 100;
    assert_eq!(rig.ask("dbsize; ping"), ":1000002\r\n+PONG\r\n");
    let first = rig.ask("info keyspace");
    assert!(
        first.contains("db0:keys=1000003,") && first.contains("hot_backup_keys_are_estimate:1"),
        "{first}"
    );
    assert_eq!(rig.model.scans, walked, "nothing was walked over");
    // A transaction counts what it sees itself.
    rig.model.chill.percent = 0;
    assert_eq!(rig.ask("multi; set d 1; dbsize; exec").lines().last(), Some(":3"));
}

//! Proves that SCAN, KEYS and DBSIZE find what is there and let others be served.

use super::super::RespConfig;
use super::super::model::{Rig, encode};
use crate::base::limits::{KEYS_MAX, WALK_STAGED_MAX};
use crate::base::{ConnId, Prng};
use std::collections::BTreeSet;

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

/// A database with items of three files, one of them the default, and of that one that no short key can name.
fn mixed() -> Rig {
    let mut rig = Rig::usual();
    rig.ask("mset a 1 b 2 x,y 3 app,items,p,q,r 4 app,orders,1001 5 app,orders,1002 6 app,orders,2001 7");
    rig.ask("set tmp,cache,c 1");
    rig
}

#[test]
fn a_program_that_knows_short_keys_only_sees_a_redis_that_holds_them_and_nothing_else() {
    let mut rig = mixed();
    let keys = |rig: &mut Rig, scan: &str| keys_of(rig, scan).0.join(" ");
    for count in [1, 2, 3, 7, 100] {
        assert_eq!(keys(&mut rig, &format!("scan 0 count {count}")), "a b x,y");
        assert_eq!(keys(&mut rig, &format!("scan 0 match * count {count} type string")), "a b x,y");
    }
    assert_eq!(keys(&mut rig, "scan 0 type list"), "");
    for (pattern, found) in [
        ("a*", "a"),
        ("*a*", "a"),
        ("app*", ""),
        ("*1", ""),
        ("*,*", "x,y"),
        ("x,?", "x,y"),
        ("x\\,y", "x,y"),
        ("x[,]y", "x,y"),
        ("p\\,q\\,r", ""),
        ("app[,]items[,]a", ""),
        ("[^z]", "a b"),
        ("?", "a b"),
    ] {
        assert_eq!(keys(&mut rig, &format!("scan 0 match {pattern} count 1")), found, "{pattern}");
        let listed: Vec<String> =
            rig.ask(&format!("keys {pattern}")).lines().skip(2).step_by(2).map(str::to_owned).collect();
        assert_eq!(listed.join(" "), found, "{pattern}");
    }
    assert_eq!(rig.ask("dbsize"), ":3\r\n");
    for key in rig.ask("keys *").lines().skip(2).step_by(2).map(str::to_owned).collect::<Vec<_>>() {
        assert_eq!(rig.ask(&format!("del {key}")), ":1\r\n", "every key that is told leads back to its item");
    }
    assert_eq!(rig.ask("dbsize; exists app,orders,1001 tmp,cache,c app,items,p,q,r"), ":0\r\n:3\r\n");
}

#[test]
fn a_pattern_with_two_commas_is_for_keys_in_full() {
    let mut rig = mixed();
    let keys = |rig: &mut Rig, scan: &str| keys_of(rig, scan).0.join(" ");
    assert_eq!(keys(&mut rig, "scan 0 match app,orders,10* count 1"), "app,orders,1001 app,orders,1002");
    assert_eq!(keys(&mut rig, "scan 0 match app,orders,*1"), "app,orders,1001 app,orders,2001");
    let items = "app,items,a app,items,b app,items,p,q,r app,items,x,y";
    assert_eq!(keys(&mut rig, "scan 0 match app,items,*"), items);
    assert_eq!(keys(&mut rig, "scan 0 match a?p,i*,*"), items);
    assert_eq!(keys(&mut rig, "scan 0 match app,orders,1001"), "app,orders,1001");
    assert_eq!(keys(&mut rig, "scan 0 match a*,[c]*,*"), "");
    assert_eq!(keys(&mut rig, "scan 0 match *,*,r"), "app,items,p,q,r", "a star takes commas, too");
    let all = format!("{items} app,orders,1001 app,orders,1002 app,orders,2001 tmp,cache,c");
    for count in [1, 2, 3, 7, 100] {
        assert_eq!(keys(&mut rig, &format!("scan 0 match *,*,* count {count}")), all);
    }
    assert_eq!(rig.ask("scan 0 match no,file,*"), "-ERR no such file no,file\r\n");
    assert!(rig.ask("scan 77").starts_with("-ERR unknown cursor"));
    assert_eq!(rig.ask("keys app,orders,1*"), "*2\r\n$15\r\napp,orders,1001\r\n$15\r\napp,orders,1002\r\n");
}

#[test]
fn without_a_default_file_every_walk_is_for_keys_in_full() {
    let mut rig = Rig::new(RespConfig::default());
    rig.open(1);
    rig.ask("mset app,items,a 1 app,orders,1001 5");
    rig.ask("set tmp,cache,c 1");
    let keys = |rig: &mut Rig, scan: &str| keys_of(rig, scan).0.join(" ");
    assert_eq!(keys(&mut rig, "scan 0 count 1"), "app,items,a app,orders,1001 tmp,cache,c");
    assert_eq!(keys(&mut rig, "scan 0 match *a*"), "app,items,a app,orders,1001 tmp,cache,c");
    assert_eq!(keys(&mut rig, "scan 0 match app*"), "app,items,a app,orders,1001");
    assert_eq!(rig.ask("dbsize"), ":3\r\n");
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
            let reply = rig.ask(&format!("scan {cursor} match *,*,* count {}", 1 + prng.below(15)));
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
            let in_full = if n % 3 == 0 { format!("app,items,{n}") } else { item(n) };
            assert_eq!(found.iter().filter(|key| **key == in_full).count(), 1, "{in_full}");
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
    rig.write(1, &encode("keys app,orders,nothing*; keys *,*,nothing*; ping"));
    rig.give(1, usize::MAX);
    assert!(rig.due());
    assert_eq!(rig.ask_as(2, "get app,orders,3-3"), "$1\r\nv\r\n");
    rig.run(true);
    assert_eq!(rig.got(1), "*0\r\n*0\r\n+PONG\r\n");
    assert_eq!(rig.door.deadline(), None);
    rig.write(1, &encode("keys *,*,nothing*"));
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
        rig.ask("keys *,*,*; dbsize"),
        "-ERR more than 100000 keys would be returned: use SCAN\r\n:0\r\n"
    );
    assert!(rig.ask("keys app,orders,1-*").starts_with("*1000\r\n"));
}

#[test]
fn a_walk_in_a_transaction_sees_what_the_transaction_did_and_what_is_stored() {
    let mut rig = Rig::usual();
    rig.ask("mset a 1 b 2 d 4");
    let replies = rig.ask("multi; set c 3; del a; set b 9; set app,orders,x 1; keys *; dbsize; scan 0; set a 1; keys [ac]; exec");
    let three = "$1\r\nb\r\n$1\r\nd\r\n$1\r\nc\r\n";
    let expected =
        format!("*3\r\n{three}:3\r\n*2\r\n$1\r\n0\r\n*3\r\n{three}+OK\r\n*2\r\n$1\r\na\r\n$1\r\nc\r\n");
    assert!(replies.ends_with(&expected), "{replies}");
    assert_eq!(rig.ask("dbsize"), ":4\r\n");
    // Each item is met once, by the part of the walk that it lies in.
    let replies = rig.ask("multi; set aa 1; set z 1; scan 0 count 1; exec");
    assert!(replies.contains("*1\r\n$1\r\na\r\n"), "{replies}");
}

#[test]
fn a_walk_in_a_transaction_finds_the_state_of_one_moment_whatever_others_change_between_its_turns() {
    let mut rig = Rig::usual();
    rig.open(2);
    for n in 0..5_000 {
        rig.model.put(2, format!("k{n:05}").as_bytes());
    }
    rig.write(1, &encode("multi; dbsize; keys *; dbsize; exec"));
    while rig.unread(1) > 0 {
        assert!(rig.give(1, usize::MAX));
    }
    let mut turns = 0;
    while rig.due() {
        if turns % 2 == 0 {
            // Behind and before where the walk is.
            rig.write(2, &encode(&format!("set z{turns} 1; set a{turns} 1")));
            assert!(rig.give(2, usize::MAX));
            rig.model.settle();
        }
        rig.tick();
        turns += 1;
        assert!(turns < 10_000, "it ends");
    }
    assert!(turns > 5, "it takes several turns");
    rig.run(true);
    let replies = rig.got(1);
    let counts: Vec<&str> = replies.lines().filter(|line| line.starts_with(':')).collect();
    let keys = replies.lines().filter(|line| line.starts_with(['k', 'z', 'a'])).count();
    assert!(
        counts.len() == 2 && counts[0] == counts[1] && counts[0] == format!(":{keys}"),
        "{counts:?} {keys}"
    );
}

/// Takes keys off the lines of a reply, which tells each of them once.
fn take_keys<'a>(head: &str, lines: &mut impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    let count: usize = head.strip_prefix('*').unwrap().parse().unwrap();
    let keys: Vec<String> = (0..count).map(|_| lines.nth(1).unwrap().to_owned()).collect();
    let once: BTreeSet<String> = keys.iter().cloned().collect();
    assert_eq!(once.len(), count, "a key is told twice: {keys:?}");
    once
}

/// Begins a SCAN that looks at so many keys first; its cursor, and the last of those keys. From the start if there are no
/// two.
fn scan_begun(rig: &mut Rig, stored: &BTreeSet<String>, first: u64) -> (String, String) {
    if stored.len() < 2 {
        return ("0".to_owned(), String::new());
    }
    let first = 1 + usize::try_from(first).unwrap() % (stored.len() - 1);
    let cursor = rig.ask(&format!("scan 0 count {first}")).lines().nth(2).unwrap().to_owned();
    assert_ne!(cursor, "0");
    (cursor, stored.iter().nth(first - 1).unwrap().clone())
}

/// Holds the reply to a command of a transaction against the keys that were `stored` before it, and are `there` now. A SCAN
/// that goes on does so behind the key `behind`.
fn check_walk<'a>(
    command: &str,
    lines: &mut impl Iterator<Item = &'a str>,
    (stored, there): (&BTreeSet<String>, &BTreeSet<String>),
    behind: &String,
) {
    let head = lines.next().unwrap();
    match command.split(' ').collect::<Vec<_>>()[..] {
        ["dbsize"] => assert_eq!(head, format!(":{}", there.len())),
        ["keys", pattern] => {
            let fits = |key: &&String| key.ends_with(pattern.trim_start_matches('*'));
            assert_eq!(take_keys(head, lines), there.iter().filter(fits).cloned().collect());
        }
        ["scan", from, "count", count] => {
            let ahead = |key: &&String| from == "0" || *key > behind;
            let cursor = lines.nth(1).unwrap();
            let found = take_keys(lines.next().unwrap(), lines);
            // So many of what is stored are looked at, and what is new is told with those that it lies between.
            let looked_at = stored.iter().filter(ahead).nth(count.parse::<usize>().unwrap() - 1);
            let last = looked_at.filter(|_| cursor != "0");
            let part = |key: &&String| ahead(key) && last.is_none_or(|last| *key <= last);
            assert_eq!(found, there.iter().filter(part).cloned().collect());
        }
        _ => assert!(head.starts_with(['+', ':'])),
    }
}

#[test]
fn walks_of_a_transaction_agree_with_a_plain_set_of_keys_whatever_it_put_and_deleted_before() {
    for seed in 0..45 {
        let mut prng = Prng::new(seed);
        let mut rig = Rig::usual();
        // The last are so many that a walk takes several turns.
        let bound = [6, 60, 6_000][usize::try_from(seed % 3).unwrap()];
        let key = |n: u64| format!("k{n:04}");
        let stored: BTreeSet<String> = (0..bound).filter(|_| prng.percent(60)).map(key).collect();
        stored.iter().for_each(|key| rig.model.put(2, key.as_bytes()));
        let (cursor, behind) = scan_begun(&mut rig, &stored, prng.below(bound));
        let mut steps = vec![(String::new(), stored.clone())];
        for _ in 0..12 {
            for _ in 0..prng.below(5) {
                let mut there = steps.last().unwrap().1.clone();
                let (key, put) = (key(prng.below(bound + 1)), prng.percent(60));
                let command = if put { format!("set {key} v") } else { format!("del {key}") };
                if put {
                    there.insert(key)
                } else {
                    there.remove(&key)
                };
                steps.push((command, there));
            }
            let command = match prng.below(5) {
                0 => "dbsize".to_owned(),
                3 => format!("scan {cursor} count {}", 1 + prng.below(bound + 2)),
                1 => "keys *".to_owned(),
                2 => "keys *3".to_owned(),
                _ => format!("scan 0 count {}", 1 + prng.below(bound + 2)),
            };
            steps.push((command, steps.last().unwrap().1.clone()));
        }
        steps.remove(0);
        let commands: Vec<&str> = steps.iter().map(|(command, _)| command.as_str()).collect();
        let reply = rig.ask(&format!("multi; {}; exec", commands.join("; ")));
        let mut lines = reply.lines().skip(1 + commands.len());
        assert_eq!(lines.next(), Some(format!("*{}", commands.len()).as_str()), "seed {seed}");
        for (command, there) in &steps {
            println!("seed {seed}: {command}");
            check_walk(command, &mut lines, (&stored, there), &behind);
        }
        assert_eq!(rig.ask("dbsize"), format!(":{}\r\n", steps.last().unwrap().1.len()), "seed {seed}");
    }
}

#[test]
fn a_transaction_that_changed_very_much_is_not_walked() {
    let mut rig = Rig::usual();
    let sets: String = (0..=WALK_STAGED_MAX).map(|n| format!("set k{n} 1; ")).collect();
    let replies = rig.ask(&format!("multi; {sets} dbsize; exec"));
    assert!(replies.ends_with(
        "-ERR this transaction changes more than 2000 items: look for keys before or after it\r\n"
    ));
    assert_eq!(rig.ask("dbsize"), format!(":{}\r\n", WALK_STAGED_MAX + 1), "all else is done");
}

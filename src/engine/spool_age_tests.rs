use super::*;
use crate::engine::test_kit::{CLIENT, Node, config};
use crate::engine::{ClientEvent, EngineConfig, Event, SpoolConfig, SpoolEvent, SpoolFull, SpoolMode};

const QUOTA: u64 = 6 * (64 << 10);
const DAY: u64 = 86_400_000;

/// A primary whose history is on the spool, and whose peer has all of it unless `peer` says what it has.
fn node(spool: SpoolConfig, peer: Seq) -> Node {
    let spool = SpoolConfig {
        place: "file:/spool".to_owned(),
        mode: SpoolMode::Always,
        full: SpoolFull::Alarm,
        ..spool
    };
    let mut node = Node::serving(EngineConfig { quota_bytes: QUOTA, spool, ..config(0) });
    node.engine.core.peer.retain(peer);
    puts(&mut node, 20);
    node
}

fn puts(node: &mut Node, count: usize) {
    let value = "x".repeat(30 << 10);
    let line = format!("*3\r\n$3\r\nSET\r\n$12\r\napp,orders,2\r\n${}\r\n{value}\r\n", value.len());
    for _ in 0..count {
        node.input(Event::Client(ClientEvent::Bytes { conn: CLIENT, bytes: line.clone().into_bytes() }));
    }
}

/// So many days pass, by the clock that parts are dated with.
fn days(node: &mut Node, count: u64) {
    node.now.wall_ms += count * DAY;
    node.passes(1000);
}

fn told(node: &mut Node, oldest: Option<Seq>) {
    node.input(SpoolEvent::Saves { oldest }.into());
}

/// The first and the last entry of each part.
fn parts(node: &Node) -> Vec<(Seq, Seq)> {
    node.spool.values().map(|(part, _)| (part.first(), part.end.seq)).collect()
}

const ALL: Seq = Seq(u64::MAX / 2);

#[test]
fn what_is_older_than_the_oldest_save_goes_and_what_a_save_needs_stays_whatever_its_age() {
    let saves = SpoolConfig { keep: SpoolKeep::OldestSave, keep_days: 1, ..SpoolConfig::default() };
    let mut node = node(saves, ALL);
    let before = parts(&node);
    assert!(before.len() > 5, "{before:?}");
    // Nobody told yet which saves there are.
    days(&mut node, 3);
    assert_eq!(parts(&node).first(), before.first());
    let end = before[2].1;
    told(&mut node, Some(end));
    assert_eq!(parts(&node).first(), Some(&before[3]), "a save that ends with entry {end}");
    told(&mut node, Some(before[3].1));
    assert_eq!(parts(&node).first(), Some(&before[4]));
    days(&mut node, 9);
    assert_eq!(parts(&node).first(), Some(&before[4]));
    // Without a save only age and limit count.
    told(&mut node, None);
    assert!(!parts(&node).contains(&before[4]), "{:?}", parts(&node));
}

#[test]
fn at_its_limit_the_spool_takes_no_more_before_it_gives_up_what_a_save_needs() {
    let limited = |keep| SpoolConfig { keep, limit_bytes: 5 * (70 << 10), ..SpoolConfig::default() };
    let mut node = node(limited(SpoolKeep::OldestSave), ALL);
    let first = parts(&node)[0];
    assert_eq!(first.0, Seq(1), "what nobody told of may be needed");
    let full = |node: &Node| {
        node.told.iter().rev().find(|(kind, _)| *kind == "spool-full").map(|(_, text)| text.clone())
    };
    assert!(
        full(&node).is_some_and(|text| text.contains("the saves that are kept need it")),
        "{:?}",
        node.told
    );
    told(&mut node, Some(Seq(0)));
    puts(&mut node, 4);
    assert_eq!(parts(&node)[0], first, "a save from before the first entry");
    told(&mut node, Some(first.1));
    assert!(parts(&node)[0] > first, "that part is older than the save");
    // As the config says without it: the oldest goes for the newest.
    let mut other = self::node(limited(SpoolKeep::Limits), ALL);
    told(&mut other, Some(Seq(0)));
    puts(&mut other, 4);
    assert!(parts(&other)[0] > first && full(&other).is_none(), "{:?}", other.told);
}

#[test]
fn what_an_absent_peer_needs_stays_although_it_is_older_than_every_save() {
    let saves = SpoolConfig { keep: SpoolKeep::OldestSave, ..SpoolConfig::default() };
    let mut node = node(saves, Seq(0));
    let before = parts(&node);
    told(&mut node, Some(ALL));
    days(&mut node, 1);
    assert_eq!(parts(&node).first(), before.first());
    node.engine.core.peer.retain(before[1].1);
    node.passes(1000);
    assert_eq!(parts(&node).first(), Some(&before[2]));
}

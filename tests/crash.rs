//! Death at bad moments, of real processes on the real disk: what was told "ok" is there afterwards.

use crate::support::{Load, Node, Plan, Shape, audit, scratch, tier};
use std::time::{Duration, Instant};

/// Kills a lone primary at random moments of a load, again and again, on the same directory.
fn rounds_of_kills(driver: &'static str, rounds: usize) {
    let dir = scratch();
    let mut node = Node::alone(dir.path().join("A"), &Plan::quick().io(driver));
    node.start();
    node.json_when_up(&["start", "--alone"]);
    node.serves();
    node.make_orders();
    let until = Instant::now() + Duration::from_secs(90);
    let mut done = 0;
    for round in 0..rounds {
        if Instant::now() > until {
            break;
        }
        let load = Load::start(&node.door, Shape { first: round * 4, ..Shape::default() });
        load.goes_on(20 + u64::try_from(round).expect("few") * 37);
        node.kill();
        let all = load.finish();
        node.start();
        node.json_when_up(&["start", "--alone"]);
        node.serves();
        let found = audit(&node.door, &all);
        found.is_complete();
        done += 1;
    }
    eprintln!("{done} rounds of kill -9 with {driver}: every acknowledged update was there");
    assert!(done >= 5, "only {done} rounds in the time");
}

#[test]
fn tier_twenty_kills_of_a_primary_lose_no_acknowledged_update_with_epoll() {
    tier!();
    rounds_of_kills("epoll", 20);
}

#[test]
fn tier_twenty_kills_of_a_primary_lose_no_acknowledged_update_with_io_uring() {
    tier!();
    rounds_of_kills("auto", 20);
}

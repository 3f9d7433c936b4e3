//! Two real nodes on a bad network: the wire between them is cut without a word, slow, or loses packets. The nodes
//! live in network namespaces, their clients come through sockets in the file system.

use crate::support::{Load, Node, Pair, Plan, Shape, Told, Wire, audit, some, tier, wait_until};
use std::time::{Duration, Instant};

/// A pair at the ends of a wire. The nodes are killed before their network goes.
struct Apart {
    wire: Wire,
    pair: Pair,
}

impl Apart {
    fn start(plan: &Plan) -> Self {
        let wire = Wire::new();
        let mut pair = Pair::set_up_at(wire.links(), plan);
        pair.a.through = wire.through(0);
        pair.b.through = wire.through(1);
        pair.serve();
        Self { wire, pair }
    }
}

fn lag(node: &Node) -> u64 {
    node.json(&["status"])["peer"]["lag_entries"].as_u64().unwrap()
}

fn refused_none(told: &[Told]) {
    assert_eq!(told.iter().flat_map(Told::refusals).next(), None);
}

#[test]
fn tier_a_partition_costs_the_primary_nothing_and_the_standby_catches_up_when_it_ends() {
    tier!("root", "ip", "nsenter", "nft");
    let Apart { wire, pair } = Apart::start(&Plan::quick().config("peer_timeout_ms = 1000"));
    let load = Load::start(&pair.a.door, Shape::default());
    for _ in 0..3 {
        load.goes_on(some(100));
        wire.cut();
        let begin = Instant::now();
        // Nobody told them: only silence does.
        for node in [&pair.a, &pair.b] {
            node.status("to miss its peer", |status| status["peer"]["connected"] == false);
        }
        assert!(begin.elapsed() < Duration::from_secs(15), "{:?} of silence", begin.elapsed());
        load.goes_on(some(300));
        assert!(lag(&pair.a) >= 300, "the cut let something through");
        wire.mend();
        pair.connected();
    }
    let told = load.finish();
    refused_none(&told);
    pair.converges();
    audit(&pair.b.door, &told).is_complete();
}

#[test]
fn tier_a_primary_that_a_partition_cut_off_steps_down_and_no_durable_update_is_missing() {
    tier!("root", "ip", "nsenter", "nft");
    let plan = Plan::quick()
        .init(&["--ack-level", "durable"])
        .config("on_peer_loss = \"block\"")
        .config("peer_timeout_ms = 1000");
    let Apart { wire, pair } = Apart::start(&plan);
    let load = Load::start(&pair.a.door, Shape::default());
    load.goes_on(some(200));
    wire.cut();
    pair.a.status("to miss its peer", |status| status["peer"]["connected"] == false);
    let then = load.acked();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(load.acked(), then, "an update was answered that only one node has");
    // The operator believes what the standby believes, and both are wrong: the old primary lives.
    pair.b.json(&["takeover", "--peer-is-down"]);
    let more = Load::start(&pair.b.door, Shape { first: 10, writers: 1, most: 1, ..Shape::default() });
    wait_until("the new primary to take an update", || pair.b.state().eq("peer-away").then_some(()));
    wire.mend();
    pair.a.status("to have stepped down", |s| s["state"] == "standby" || s["state"] == "diverged");
    let mut told = load.run_to_the_end();
    assert!(told.iter().all(|told| told.answers.len() < told.sent), "those it could not promise it let go");
    let found = audit(&pair.b.door, &told);
    assert!(found.acked >= 200, "{found:?}");
    found.is_complete();
    // One that diverged is no standby yet: what the new primary took waits for one.
    if pair.a.state() == "standby" {
        told.extend(more.run_to_the_end());
        audit(&pair.b.door, &told).is_complete();
    }
}

#[test]
fn tier_a_wire_slower_than_the_load_costs_the_primary_neither_speed_nor_memory() {
    tier!("root", "ip", "nsenter", "tc");
    let Apart { wire, pair } = Apart::start(&Plan::quick());
    let load = Load::start(&pair.a.door, Shape { value: 8000, ..Shape::default() });
    load.goes_on(some(100));
    wire.slow("2mbit");
    load.goes_on(4000);
    let (behind, memory) = (lag(&pair.a), pair.a.memory());
    let told = load.finish();
    refused_none(&told);
    assert!(behind >= 1000, "a wire of 2 Mbit/s took all but {behind} of 4000 updates of 64 kbit");
    assert!(memory < 256 << 20, "{memory} bytes");
    pair.connected();
    wire.fast();
    pair.converges();
    audit(&pair.b.door, &told).is_complete();
}

#[test]
fn tier_a_wire_that_loses_packets_loses_no_update() {
    tier!("root", "ip", "nsenter", "nft");
    let Apart { wire, pair } = Apart::start(&Plan::quick().init(&["--ack-level", "durable"]));
    let load = Load::start(&pair.a.door, Shape::default());
    load.goes_on(100);
    wire.loses(10);
    load.goes_on(some(300));
    wait_until("packets to get lost", || (wire.dropped() >= 30).then_some(()));
    let told = load.finish();
    wire.mend();
    refused_none(&told);
    pair.connected();
    pair.converges();
    audit(&pair.b.door, &told).is_complete();
}

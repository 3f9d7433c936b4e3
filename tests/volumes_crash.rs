//! Volumes whose node is killed under load: everything flushed is there, and what is there is the first part of what
//! was written.

use crate::support::{
    EXPORT, Node, Plan, Safe, Stamper, Volumes, audit_stamps, here, lacking, loopback_addresses, make_volume,
    scratch, serves_volumes_at, some, tier,
};

/// Flushed is what both nodes have, until one is left alone.
fn durable(driver: &'static str) -> Plan {
    let plan = Plan::quick().init(&["--ack-level", "durable"]).config("degrade_after_ms = 300");
    plan.config("peer_timeout_ms = 1000").io(driver)
}

fn taken_over(driver: &'static str) {
    for round in 0..3 {
        let mut volumes = Volumes::start(&durable(driver), "64M");
        let stamper = Stamper::start(volumes.at[0], EXPORT, 0, Safe::Flushed);
        stamper.goes_on(some(100) << (round * 2));
        volumes.pair.a.kill();
        let told = stamper.run_to_the_end();
        volumes.take_over();
        let there = audit_stamps(volumes.at[1], EXPORT, told);
        println!("{driver}: {told:?}, {there} are there");
        // The survivor goes on from there, alone.
        let stamper = Stamper::start(volumes.at[1], EXPORT, there, Safe::Fua);
        stamper.goes_on(some(50));
        let told = stamper.finish();
        assert_eq!(audit_stamps(volumes.at[1], EXPORT, told), told.sent);
    }
}

fn restarted(driver: &'static str) {
    let root = scratch();
    let [at] = loopback_addresses();
    let mut node = Node::alone(root.path().join("node"), &Plan::quick().segments("256K").io(driver));
    serves_volumes_at(&node, at);
    node.start_alone();
    make_volume(&node, "64M");
    let mut there = 0;
    for _ in 0..8 {
        let stamper = Stamper::start(at, EXPORT, there, Safe::Flushed);
        stamper.goes_on(some(300));
        node.kill();
        let told = stamper.run_to_the_end();
        node.start_alone();
        there = audit_stamps(at, EXPORT, told);
        println!("{driver}: {told:?}, {there} are there");
    }
}

fn has_uring() -> bool {
    let root = scratch();
    Node::alone(root.path().join("probe"), &Plan::quick()).has_uring()
}

#[test]
fn tier_volume_of_a_killed_primary_is_on_the_standby_as_far_as_it_was_flushed_epoll() {
    tier!();
    taken_over("epoll");
}

#[test]
fn tier_volume_of_a_killed_primary_is_on_the_standby_as_far_as_it_was_flushed_uring() {
    tier!();
    if !has_uring() {
        return lacking(here!(), "io_uring");
    }
    taken_over("uring");
}

#[test]
fn tier_volume_of_a_node_killed_and_started_again_has_all_that_was_flushed_epoll() {
    tier!();
    restarted("epoll");
}

#[test]
fn tier_volume_of_a_node_killed_and_started_again_has_all_that_was_flushed_uring() {
    tier!();
    if !has_uring() {
        return lacking(here!(), "io_uring");
    }
    restarted("uring");
}

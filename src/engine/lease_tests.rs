//! A primary under a lease accepts and acknowledges nothing after its time, whatever the holder and the clock do.

use super::*;
use crate::base::AckLevel;
use crate::engine::admin::{AdminAnswer, AdminReply, AdminRequest};
use crate::engine::test_kit::{CLIENT, Node, config};
use crate::engine::test_pair::Wired;
use crate::engine::{EngineConfig, Event, PeerLoss};

fn under_lease(ordinal: u8) -> EngineConfig {
    EngineConfig { under_lease: true, ..config(ordinal) }
}

fn ask(node: &mut Node, grant: Option<Grant>) -> Result<LeaseView, String> {
    match node.asks(AdminRequest::Lease { grant }) {
        AdminReply::Ok { value: AdminAnswer::Lease(view) } => Ok(view),
        AdminReply::No { message, .. } => Err(message),
        other => panic!("no answer to who holds a lease: {other:?}"),
    }
}

fn view(node: &mut Node) -> LeaseView {
    ask(node, None).unwrap()
}

/// Grants time from now on.
fn granted(node: &mut Node, ms: u64, alone: bool) -> LeaseView {
    let LeaseView { run, clock, .. } = view(node);
    ask(node, Some(Grant { run, from: clock, ms, alone })).unwrap()
}

/// A node that serves alone and may accept updates for a second more.
fn serving() -> Node {
    let mut node = Node::new(under_lease(0), crate::format::control::Role::Primary);
    node.input(Event::Tick);
    node.asks(AdminRequest::StartAlone);
    granted(&mut node, 1000, true);
    node.asks(AdminRequest::AccountCreate { name: "app".to_owned(), flags: "L".to_owned() });
    let (name, kind) = ("app,orders".to_owned(), crate::format::dptr::DptrKind::Records);
    node.asks(AdminRequest::FileCreate { name, kind, flags: None, bytes: None, ack: None });
    node.opens(CLIENT);
    node.told.clear();
    node
}

#[test]
fn a_primary_accepts_updates_until_its_lease_is_over_and_again_when_it_is_renewed() {
    let mut node = serving();
    assert_eq!(node.set("1"), "+OK\r\n");
    node.passes(999);
    assert_eq!(node.set("2"), "+OK\r\n");
    node.passes(1);
    assert!(node.set("3").starts_with("-READONLY"), "{}", node.said);
    let create = AdminRequest::AccountCreate { name: "more".to_owned(), flags: "L".to_owned() };
    assert!(!matches!(node.asks(create), AdminReply::Ok { .. }));
    assert_eq!((node.times("lease-over"), node.status().state.as_str()), (1, "no-lease"));
    assert!(node.says("GET app,orders,2").ends_with("x\r\n"), "{}", node.said);
    granted(&mut node, 500, true);
    assert_eq!(node.set("3"), "+OK\r\n");
    assert_eq!((node.times("lease-back"), node.status().state.as_str()), (1, "serving"));
}

#[test]
fn a_primary_that_was_never_granted_a_lease_accepts_nothing_and_says_so() {
    let mut node = Node::new(under_lease(0), crate::format::control::Role::Primary);
    node.input(Event::Tick);
    node.asks(AdminRequest::StartAlone);
    assert_eq!(node.engine.core.roles.stage(), Stage::Serving);
    let create = || AdminRequest::AccountCreate { name: "app".to_owned(), flags: "L".to_owned() };
    assert!(!matches!(node.asks(create()), AdminReply::Ok { .. }));
    // A takeover is given its lease in a moment: not worth an incident.
    assert_eq!(node.times("lease-over"), 0);
    node.passes(LEASE_LACK_MS);
    assert_eq!(node.times("lease-over"), 1);
    granted(&mut node, 1000, false);
    assert!(matches!(node.asks(create()), AdminReply::Ok { .. }));
}

#[test]
fn an_update_that_was_accepted_in_time_is_not_acknowledged_after_it() {
    let mut node = serving();
    node.ills.disk_hangs = true;
    assert_eq!(node.set("1"), "");
    // The node stands still. What the disk did meanwhile is the first thing of which it hears.
    node.now.mono = node.now.mono.plus_ms(1000);
    node.goes_on();
    assert!(node.said.starts_with("-IOERR it is not known whether this is kept"), "{}", node.said);
    assert!(!node.said.contains("+OK"), "{}", node.said);
}

#[test]
fn what_comes_to_a_node_that_stood_still_is_refused_before_it_has_looked_at_anything_else() {
    let mut node = serving();
    node.now.mono = node.now.mono.plus_ms(1000);
    assert!(node.set("1").starts_with("-READONLY"), "{}", node.said);
}

#[test]
fn a_grant_gives_no_more_time_than_is_left_of_it() {
    let mut node = serving();
    let LeaseView { run, clock, .. } = view(&mut node);
    // It waited in the socket of a node that was frozen.
    node.passes(5000);
    let grant = Grant { run, from: clock, ms: 4000, alone: true };
    assert!(!ask(&mut node, Some(grant)).unwrap().holds);
    assert!(node.set("1").starts_with("-READONLY"));
    let late = ask(&mut node, Some(Grant { ms: 6000, ..grant })).unwrap();
    assert!(late.holds && late.seconds_left <= 1.0, "{late:?}");
    // An earlier one that comes later takes nothing away.
    assert!(ask(&mut node, Some(Grant { ms: 5500, ..grant })).unwrap().seconds_left > 0.9);
}

#[test]
fn of_two_grants_the_one_counts_that_was_asked_for_later_also_if_it_is_shorter() {
    let mut node = serving();
    // A person gives it an hour, for the time in which nobody else renews.
    let LeaseView { run, clock, .. } = view(&mut node);
    let hour = Grant { run, from: clock, ms: LEASE_MS_MAX, alone: true };
    assert!(ask(&mut node, Some(hour)).unwrap().seconds_left > 3000.0);
    node.passes(60_000);
    assert_eq!(node.set("1"), "+OK\r\n");
    // The engine that decides renews again.
    let renewed = granted(&mut node, 2000, false);
    assert!(renewed.seconds_left <= 2.0 && !renewed.alone, "{renewed:?}");
    // What was asked for before that comes too late.
    let late = ask(&mut node, Some(hour)).unwrap();
    assert!(late.seconds_left <= 2.0 && !late.alone, "{late:?}");
    node.passes(2000);
    assert!(node.set("2").starts_with("-READONLY"), "{}", node.said);
}

#[test]
fn a_grant_of_another_life_of_the_future_or_from_before_the_lease_was_given_back_is_void() {
    let mut node = serving();
    let LeaseView { run, clock, .. } = view(&mut node);
    let grant = Grant { run, from: clock, ms: 1000, alone: false };
    for (wrong, why) in [
        (Grant { run: run + 1, ..grant }, "another life"),
        (Grant { from: clock + 1, ..grant }, "still to come"),
        (Grant { ms: LEASE_MS_MAX + 1, ..grant }, "more than an hour"),
    ] {
        let told = ask(&mut node, Some(wrong)).unwrap_err();
        assert!(told.contains(why), "{told}");
    }
    assert!(!ask(&mut node, Some(Grant { ms: 0, ..grant })).unwrap().holds);
    assert!(node.set("1").starts_with("-READONLY"));
    assert!(ask(&mut node, Some(grant)).unwrap_err().contains("given back"));
    node.passes(1);
    granted(&mut node, 1000, false);
    assert_eq!(node.set("1"), "+OK\r\n");
}

#[test]
fn a_node_that_operators_decide_about_takes_no_lease() {
    let mut node = Node::serving(config(0));
    assert!(ask(&mut node, None).unwrap_err().contains("does not say that a lease decides"));
    assert_eq!(node.set("1"), "+OK\r\n");
}

#[test]
fn the_promise_is_lowered_only_once_a_grant_says_that_this_is_written_down() {
    fn durable(ordinal: u8) -> EngineConfig {
        let on_peer_loss = PeerLoss::Degrade { after_ms: 500 };
        EngineConfig { ack_level: AckLevel::Durable, on_peer_loss, under_lease: true, ..config(ordinal) }
    }
    let mut node = Node::new(durable(0), crate::format::control::Role::Primary);
    node.input(Event::Tick);
    node.asks(AdminRequest::StartAlone);
    granted(&mut node, 60_000, false);
    node.input(Event::Admin {
        token: 7,
        request: AdminRequest::AccountCreate { name: "app".to_owned(), flags: "L".to_owned() },
    });
    node.lives(1000);
    let told = view(&mut node);
    assert!(told.waits_to_lower && !told.lowered, "{told:?}");
    assert_eq!(node.engine.deadline().filter(|at| *at <= node.now.mono), None, "it never rests");
    granted(&mut node, 60_000, true);
    let told = view(&mut node);
    assert!(!told.waits_to_lower && told.lowered, "{told:?}");
    // It stays as it is until it is restored; the word is taken back all the same.
    assert!(granted(&mut node, 60_000, false).lowered);
}

#[test]
fn a_switchover_moves_the_role_of_a_primary_whose_lease_is_over() {
    // A node of a test has a lease of three seconds at first.
    let mut pair = Wired::with(under_lease);
    pair.lives(2000);
    assert!(pair.a().set("2").starts_with("-READONLY"));
    pair.a().input(Event::Admin { token: 1, request: AdminRequest::Switchover { dry_run: false } });
    pair.lives(1000);
    assert_eq!(pair.stages(), [Stage::Standby, Stage::Serving]);
    pair.b().opens(CLIENT);
    assert!(pair.b().set("3").starts_with("-READONLY"));
    granted(pair.b(), 1000, false);
    assert_eq!(pair.b().set("3"), "+OK\r\n");
}

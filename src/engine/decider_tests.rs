//! Each rule of who may hold the lease, and what is written down before what.

use super::*;

fn node(role: &str, stage: &str, ordinal: u8, epoch: u64) -> LeaseView {
    LeaseView {
        name: if ordinal == 0 { "a" } else { "b" }.to_owned(),
        ordinal,
        pair: "p".to_owned(),
        role: role.to_owned(),
        stage: stage.to_owned(),
        epoch,
        promises: true,
        ..LeaseView::default()
    }
}

fn record(ordinal: u8, epoch: u64, alone: bool) -> Record {
    let name = if ordinal == 0 { "a" } else { "b" }.to_owned();
    Record { pair: "p".to_owned(), name, ordinal, epoch, alone }
}

fn seen<'a>(node: &'a LeaseView, held: Held, record: Option<&'a Record>) -> Seen<'a> {
    Seen {
        node: Ok(node),
        asking_ms: 0,
        held,
        record,
        ttl_ms: 5000,
        release_after_ms: 1000,
        allow_loss: false,
    }
}

fn why(step: Step) -> String {
    match step {
        Step::Wait(why) | Step::Release(why) | Step::Lapse(why) => why,
        other => panic!("it does something: {other:?}"),
    }
}

#[test]
fn a_standby_takes_a_free_lease_only_if_it_has_all_that_was_acknowledged() {
    let b = node("standby", "standby", 1, 4);
    let level = record(0, 4, false);
    assert_eq!(decide(&seen(&b, Held::Free(0), Some(&level))), Step::Acquire);
    assert_eq!(decide(&seen(&b, Held::Mine, Some(&level))), Step::TakeOver { ask_first: false });
    let theirs = Held::Theirs("a".to_owned());
    assert_eq!(why(decide(&seen(&b, theirs, Some(&level)))), "a holds the lease");
    let behind = record(0, 4, true);
    for held in [Held::Free(60_000), Held::Mine] {
        let told = why(decide(&seen(&b, held.clone(), Some(&behind))));
        assert!(told.contains("a recorded that b may lack updates"), "{told}");
        let allowed = Seen { allow_loss: true, ..seen(&b, held, Some(&behind)) };
        assert!(matches!(decide(&allowed), Step::Acquire | Step::TakeOver { .. }));
    }
    // It may lack what it recorded itself of the other.
    assert_eq!(decide(&seen(&b, Held::Free(0), Some(&record(1, 4, true)))), Step::Acquire);
    assert!(why(decide(&seen(&b, Held::Free(0), None))).contains("the primary begins"));
    let replaying = LeaseView { stage: "replaying".to_owned(), ..b };
    assert!(why(decide(&seen(&replaying, Held::Free(0), Some(&level)))).contains("b is replaying"));
}

#[test]
fn a_standby_that_hears_its_primary_lets_it_get_the_lease_first() {
    let hears = LeaseView { hears_primary: true, silence_seconds: 0.2, ..node("standby", "standby", 1, 4) };
    let level = record(0, 4, false);
    assert!(why(decide(&seen(&hears, Held::Free(4999), Some(&level)))).contains("the primary lives"));
    assert_eq!(decide(&seen(&hears, Held::Free(5000), Some(&level))), Step::Acquire);
    assert_eq!(decide(&seen(&hears, Held::Mine, Some(&level))), Step::TakeOver { ask_first: true });
    let silent = LeaseView { silence_seconds: 1.5, ..hears };
    assert_eq!(decide(&seen(&silent, Held::Free(0), Some(&level))), Step::Acquire);
}

#[test]
fn a_primary_that_somebody_else_outranks_gets_no_lease_and_keeps_none() {
    let a = node("primary", "asking-peer", 0, 4);
    let newer = record(1, 1_000_005, false);
    assert!(matches!(decide(&seen(&a, Held::Free(0), Some(&newer))), Step::Wait(_)));
    assert!(matches!(decide(&seen(&a, Held::Mine, Some(&newer))), Step::Release(_)));
    assert_eq!(decide(&seen(&a, Held::Free(0), Some(&record(0, 4, true)))), Step::Acquire);
    assert_eq!(decide(&seen(&a, Held::Free(0), None)), Step::Acquire);
    let asks = Seen { asking_ms: ASKING_MS, ..seen(&a, Held::Mine, None) };
    assert_eq!(decide(&asks), Step::StartAlone);
    assert_eq!(decide(&seen(&a, Held::Mine, None)), Step::Hold);
}

#[test]
fn who_can_be_no_primary_gives_the_lease_back() {
    for role in ["diverged", "incomplete"] {
        let a = node(role, role, 0, 4);
        assert!(matches!(decide(&seen(&a, Held::Mine, None)), Step::Release(_)), "{role}");
        assert!(matches!(decide(&seen(&a, Held::Free(0), None)), Step::Wait(_)), "{role}");
    }
}

#[test]
fn the_record_says_alone_before_the_node_may_lower_and_until_it_may_not_any_more() {
    let serves = node("primary", "serving", 0, 4);
    let whole = LeaseView { whole: true, ..serves.clone() };
    let step = |node: &LeaseView, record: Option<&Record>| decide(&seen(node, Held::Mine, record));
    let renew = |record: Option<Record>, alone: bool| Step::Renew { record, alone };
    // Nothing is written down yet.
    assert_eq!(step(&serves, None), renew(Some(record(0, 4, true)), true));
    assert_eq!(step(&whole, None), renew(Some(record(0, 4, false)), false));
    // All is well.
    assert_eq!(step(&whole, Some(&record(0, 4, false))), renew(None, false));
    // The peer is away, and nothing has been acknowledged without it.
    assert_eq!(step(&serves, Some(&record(0, 4, false))), renew(None, false));
    let waits = LeaseView { waits_to_lower: true, ..serves.clone() };
    assert_eq!(step(&waits, Some(&record(0, 4, false))), renew(Some(record(0, 4, true)), true));
    // It has lowered, and is restored.
    let lowered = LeaseView { lowered: true, alone: true, ..serves };
    assert_eq!(step(&lowered, Some(&record(0, 4, true))), renew(None, true));
    let restored = LeaseView { alone: true, ..whole.clone() };
    assert_eq!(step(&restored, Some(&record(0, 4, true))), renew(None, false));
    assert_eq!(step(&whole, Some(&record(0, 4, true))), renew(Some(record(0, 4, false)), false));
    // A record of an earlier epoch, or of the other node.
    assert_eq!(step(&whole, Some(&record(0, 2, false))), renew(Some(record(0, 4, false)), false));
    let took_over = node("primary", "serving", 1, 1_000_005);
    let step = step(&took_over, Some(&record(0, 4, false)));
    assert_eq!(step, renew(Some(record(1, 1_000_005, true)), true));
}

#[test]
fn a_database_that_promises_nothing_of_its_standby_records_whether_that_follows() {
    let local = LeaseView { promises: false, ..node("primary", "serving", 0, 4) };
    let step = decide(&seen(&local, Held::Mine, Some(&record(0, 4, false))));
    assert_eq!(step, Step::Renew { record: Some(record(0, 4, true)), alone: true });
}

#[test]
fn a_node_that_may_live_keeps_the_lease_until_it_runs_out_and_one_that_has_ended_gives_it_back() {
    let seen = |absent, held| Seen {
        node: Err(absent),
        asking_ms: 0,
        held,
        record: None,
        ttl_ms: 5000,
        release_after_ms: 1000,
        allow_loss: true,
    };
    assert!(matches!(decide(&seen(Absent::Silent, Held::Mine)), Step::Lapse(_)));
    assert!(matches!(decide(&seen(Absent::Gone(999), Held::Mine)), Step::Lapse(_)));
    assert!(matches!(decide(&seen(Absent::Gone(1000), Held::Mine)), Step::Release(_)));
    assert!(matches!(decide(&seen(Absent::Gone(1000), Held::Free(9))), Step::Wait(_)));
}

#[test]
fn a_node_is_granted_less_than_the_lease_lasts() {
    for (ttl, granted) in [(2000, 1800), (5000, 4750), (60_000, 57_000), (100, 0)] {
        assert_eq!(granted_ms(ttl), granted);
    }
}

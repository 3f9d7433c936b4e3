//! Each part of the way is broken on purpose, and has to be named.

use super::*;
use crate::engine::EngineConfig;
use crate::engine::test_kit::{Node, config};
use crate::engine::test_pair::Wired;

const EVERY_MS: u64 = 1000;
const LATE_MS: u64 = 700;

fn watched(ordinal: u8) -> EngineConfig {
    let canary_seconds = EVERY_MS / 1000;
    EngineConfig { canary_seconds, canary_late_ms: LATE_MS, peer_timeout_ms: 60_000, ..config(ordinal) }
}

fn late(node: &Node) -> Vec<&str> {
    node.told.iter().filter(|(kind, _)| *kind == "canary-late").map(|(_, text)| text.as_str()).collect()
}

/// Breaks a part and sees that it is named within the bound, and told to be well once it is.
fn breaks(part: Part, ill: impl Fn(&mut Wired), mend: impl Fn(&mut Wired)) {
    let mut wired = Wired::with(watched);
    wired.lives(2 * EVERY_MS);
    let before = wired.a().engine.core.canary.arrived;
    assert!(before > 0 && late(wired.a()).is_empty(), "{part:?}: all is well first");
    // None is under way in between.
    while wired.a().engine.core.canary.flight.is_some() {
        wired.lives(10);
    }
    ill(&mut wired);
    wired.lives(EVERY_MS + LATE_MS + 200);
    let told = late(wired.a());
    assert_eq!(told.len(), 1, "{part:?}: {told:?}");
    assert!(told[0].contains(&format!("({})", part.name())), "{part:?}: {told:?}");
    let view = wired.a().status().health.and_then(|health| health.canary).expect("it is shown");
    assert_eq!((view.late, view.at.as_str()), (true, part.name()));
    mend(&mut wired);
    wired.lives(2000);
    assert_eq!(wired.a().times("canary-back"), 1, "{part:?}");
    assert!(wired.a().engine.core.canary.arrived > before, "{part:?}");
    assert!(!wired.a().engine.core.incidents.lasts(Matter::CanaryLate));
}

#[test]
fn a_disk_that_does_not_end_a_write_is_named() {
    breaks(Part::Disk, |w| w.a().ills.disk_hangs = true, |w| w.a().goes_on());
}

#[test]
fn a_link_that_brings_nothing_over_is_named() {
    for deaf in 0..2 {
        let mut wired = Wired::with(watched);
        wired.lives(2 * EVERY_MS);
        wired.deaf[deaf] = true;
        wired.lives(EVERY_MS + LATE_MS + 200);
        let told = late(wired.a());
        assert!(told.len() == 1 && told[0].contains("(link)"), "{deaf}: {told:?}");
        // What was lost ends the connection, and on the next one they go on.
        wired.deaf[deaf] = false;
        let arrived = wired.a().engine.core.canary.arrived;
        wired.cut();
        wired.lives(4000);
        assert!(wired.a().engine.core.canary.arrived > arrived);
        assert!(!wired.a().engine.core.incidents.lasts(Matter::CanaryLate));
    }
}

#[test]
fn a_peer_whose_disk_does_not_end_a_write_is_named() {
    breaks(Part::PeerDisk, |w| w.b().ills.disk_hangs = true, |w| w.b().goes_on());
}

#[test]
fn a_peer_that_does_not_apply_is_named() {
    let mend = |w: &mut Wired| {
        w.b().ills.store_waits = false;
        w.b().apply();
    };
    breaks(Part::PeerApply, |w| w.b().ills.store_waits = true, mend);
}

#[test]
fn an_own_store_that_does_not_apply_is_named_as_what_holds_up_the_answer() {
    let mend = |w: &mut Wired| {
        w.a().ills.store_waits = false;
        w.a().apply();
    };
    breaks(Part::Answer, |w| w.a().ills.store_waits = true, mend);
}

#[test]
fn the_part_that_is_to_blame_stays_named_while_a_late_one_moves_on_until_another_part_holds_it_up_too() {
    let mut wired = Wired::with(watched);
    wired.lives(2 * EVERY_MS);
    while wired.a().engine.core.canary.flight.is_some() {
        wired.lives(10);
    }
    wired.b().ills.disk_hangs = true;
    wired.b().ills.store_waits = true;
    wired.lives(EVERY_MS + LATE_MS + 200);
    let parts = |wired: &mut Wired| {
        late(wired.a()).iter().map(|text| text.contains("(peer-disk)")).collect::<Vec<_>>()
    };
    assert_eq!(parts(&mut wired), [true]);
    // The disk goes on; what the store does with it takes a moment.
    wired.b().goes_on();
    wired.lives(LATE_MS / 2);
    assert_eq!(wired.a().engine.core.canary.flight.map(|flight| flight.part), Some(Part::PeerApply));
    assert_eq!(parts(&mut wired), [true]);
    wired.lives(LATE_MS);
    assert_eq!(parts(&mut wired), [true, false]);
    assert!(late(wired.a())[1].contains("(peer-apply)"));
}

#[test]
fn a_test_update_shows_nowhere_and_only_a_primary_with_a_peer_sends_it() {
    let mut wired = Wired::with(watched);
    let size = wired.a().says("DBSIZE");
    wired.lives(10 * EVERY_MS);
    let canary = &wired.a().engine.core.canary;
    assert!((10..=13).contains(&canary.sent) && canary.arrived >= canary.sent - 1, "{canary:?}");
    assert_eq!(wired.a().says("DBSIZE"), size);
    assert_eq!(wired.b().engine.core.canary.sent, 0, "a standby sends none");
    let sent = wired.a().engine.core.canary.sent;
    wired.cut();
    wired.a().ills.peer_is_there = false;
    wired.b().ills.peer_is_there = false;
    wired.lives(5 * EVERY_MS);
    assert_eq!(wired.a().engine.core.canary.sent, sent, "the peer is away, which is told");
    assert!(late(wired.a()).is_empty());
}

#[test]
fn a_peer_of_another_version_takes_them_as_it_takes_any_first_entry_of_an_epoch() {
    let mut wired = Wired::with(watched);
    wired.a().engine.core.peer.forget_features();
    wired.lives(3 * EVERY_MS);
    let (a, b) = (
        wired.a().engine.core.applied_seq(JournalKind::Replicated),
        wired.b().engine.core.applied_seq(JournalKind::Replicated),
    );
    assert_eq!(a, b);
    assert!(wired.a().engine.core.canary.arrived > 0);
}

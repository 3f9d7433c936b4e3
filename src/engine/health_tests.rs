//! Each watch sees what it is for, tells it once, and tells that it is over.

use super::*;
use crate::engine::test_kit::{Node, config};
use crate::engine::test_pair::Wired;
use crate::engine::{EngineConfig, Event};

fn watched(ordinal: u8) -> EngineConfig {
    EngineConfig {
        peer_timeout_ms: 60_000,
        apply_stall_ms: 2000,
        link_quiet_ms: 1500,
        lag_warn_seconds: 3,
        ..config(ordinal)
    }
}

/// So it is seen, told once, and over once it is mended.
#[track_caller]
fn is_told(wired: &mut Wired, n: usize, (matter, over): (Matter, &'static str), mend: impl Fn(&mut Wired)) {
    let code = matter.row().code;
    assert_eq!(wired.nodes[n].times(code), 1, "{code}: {:?}", wired.nodes[n].told);
    assert!(wired.nodes[n].engine.core.incidents.lasts(matter));
    assert!(matter.row().ends.contains(&over));
    mend(wired);
    wired.lives(20_000);
    assert!(!wired.nodes[n].engine.core.incidents.lasts(matter), "{code}");
    assert_eq!((wired.nodes[n].times(code), wired.nodes[n].times(over)), (1, 1), "{:?}", wired.nodes[n].told);
}

fn work(node: &mut Node) -> String {
    node.status().health.expect("it is shown").work
}

#[test]
fn a_pair_at_rest_is_told_nothing_and_is_idle() {
    let mut wired = Wired::with(watched);
    wired.lives(30_000);
    for n in 0..2 {
        assert_eq!(work(&mut wired.nodes[n]), "idle");
        let troubles: Vec<_> =
            wired.nodes[n].engine.core.incidents.troubles().iter().map(|t| t.code).collect();
        assert_eq!(troubles, <[&str; 0]>::default());
    }
}

#[test]
fn a_store_that_applies_nothing_is_told_and_the_four_states_differ() {
    let mut wired = Wired::with(watched);
    wired.lives(1000);
    assert_eq!(work(wired.a()), "idle");
    wired.a().ills.store_waits = true;
    assert_eq!(wired.a().set("9"), "+OK\r\n");
    assert_eq!(work(wired.a()), "busy");
    wired.lives(2500);
    assert_eq!(work(wired.a()), "lagging");
    wired.lives(4000);
    assert_eq!(work(wired.a()), "stuck");
    is_told(&mut wired, 0, (Matter::ApplyStalled, "apply-moves"), |w| {
        w.a().ills.store_waits = false;
        w.a().apply();
    });
    assert_eq!(work(wired.a()), "idle");
}

#[test]
fn the_same_holds_for_a_standby() {
    let mut wired = Wired::with(watched);
    wired.lives(1000);
    wired.b().ills.store_waits = true;
    assert_eq!(wired.a().set("9"), "+OK\r\n");
    wired.lives(2500);
    assert_eq!(work(wired.b()), "lagging");
    wired.lives(4000);
    assert_eq!(work(wired.b()), "stuck");
    is_told(&mut wired, 1, (Matter::ApplyStalled, "apply-moves"), |w| {
        w.b().ills.store_waits = false;
        w.b().apply();
    });
}

#[test]
fn a_link_that_is_silent_is_told_before_it_is_closed() {
    let mut wired = Wired::with(watched);
    wired.lives(1000);
    wired.deaf[0] = true;
    wired.lives(4000);
    assert!(wired.a().engine.core.link.is_up(), "it is not closed yet");
    is_told(&mut wired, 0, (Matter::LinkQuiet, "link-speaks"), |w| {
        w.deaf[0] = false;
        w.cut();
    });
}

#[test]
fn a_stream_that_brings_entries_and_no_word_on_the_primarys_disk_is_told_on_the_standby() {
    let mut wired = Wired::with(watched);
    wired.lives(1000);
    wired.a().ills.disk_hangs = true;
    wired.a().set("9");
    wired.lives(8000);
    assert!(wired.b().engine.core.link.hears_primary());
    assert_eq!(work(wired.b()), "stuck");
    is_told(&mut wired, 1, (Matter::NotAnnounced, "announced"), |w| w.a().goes_on());
}

#[test]
fn a_peer_that_is_connected_and_far_behind_is_told() {
    let mut wired = Wired::with(watched);
    wired.lives(1000);
    wired.b().ills.disk_hangs = true;
    wired.a().set("9");
    wired.lives(5000);
    is_told(&mut wired, 0, (Matter::PeerLags, "peer-keeps-up"), |w| w.b().goes_on());
}

#[test]
fn clocks_that_differ_are_told_and_one_late_frame_is_no_clock() {
    let mut wired = Wired::with(watched);
    wired.b().now.wall_ms += 5000;
    wired.lives(4000);
    assert_eq!(wired.a().times("clocks-differ"), 0, "it may be one frame that was held up");
    wired.lives(9000);
    assert_eq!(wired.a().status().health.unwrap().clock_distance_ms, Some(5000));
    let text = &wired.a().told.iter().find(|(kind, _)| *kind == "clocks-differ").unwrap().1;
    assert!(text.contains("5.0 s ahead of"), "{text}");
    let behind = &wired.b().told.iter().find(|(kind, _)| *kind == "clocks-differ").unwrap().1;
    assert!(behind.contains("5.0 s behind"), "{behind}");
    is_told(&mut wired, 0, (Matter::ClocksDiffer, "clocks-agree"), |w| w.b().now.wall_ms -= 5000);
}

#[test]
fn a_peer_of_another_version_is_told_until_both_are_alike() {
    let mut wired = Wired::with(watched);
    wired.a().engine.core.peer.forget_features();
    wired.lives(2000);
    is_told(&mut wired, 0, (Matter::VersionsDiffer, "versions-agree"), |w| {
        w.cut();
        w.lives(2000);
    });
}

#[test]
fn a_journal_that_fills_is_told_with_the_time_that_is_left() {
    let mut node =
        Node::serving(EngineConfig { quota_bytes: 1 << 20, journal_warn_percent: 30, ..config(0) });
    let value = "x".repeat(4000);
    for id in 0..90 {
        node.says(&format!("SET app,orders,{id} {value}"));
        node.passes(100);
    }
    assert_eq!(node.times("journal-filling"), 1, "{:?}", node.told);
    let (_, text) = node.told.iter().find(|(kind, _)| *kind == "journal-filling").unwrap();
    assert!(text.contains("of 1.0 MiB") && text.contains("at this rate it is full in"), "{text}");
    assert!(node.status().health.unwrap().journal_full_seconds.is_some());
}

#[test]
fn a_file_system_that_fills_is_told_and_its_end_has_some_room_to_spare() {
    let mut node = Node::serving(config(0));
    let room = |node: &mut Node, free| {
        node.input(Event::DiskSpace(DiskSpace { free, total: 100 }));
        node.passes(1000);
    };
    for free in [50, 11, 10] {
        room(&mut node, free);
        assert_eq!(node.times("disk-filling"), 0);
    }
    for free in [9, 8, 10, 9] {
        room(&mut node, free);
        assert_eq!((node.times("disk-filling"), node.times("disk-roomy")), (1, 0), "{free}");
    }
    room(&mut node, 11);
    assert_eq!((node.times("disk-filling"), node.times("disk-roomy")), (1, 1));
}

#[test]
fn a_watch_whose_threshold_is_nought_sees_nothing() {
    fn off(ordinal: u8) -> EngineConfig {
        EngineConfig {
            apply_stall_ms: 0,
            link_quiet_ms: 0,
            lag_warn_seconds: 0,
            clock_distance_ms: 0,
            journal_warn_percent: 0,
            disk_warn_percent: 0,
            ..watched(ordinal)
        }
    }
    let mut wired = Wired::with(off);
    wired.b().now.wall_ms += 50_000;
    wired.b().ills.disk_hangs = true;
    wired.a().ills.store_waits = true;
    wired.a().set("9");
    wired.a().input(Event::DiskSpace(DiskSpace { free: 0, total: 100 }));
    wired.lives(20_000);
    for code in
        ["apply-stalled", "link-quiet", "peer-lags", "clocks-differ", "journal-filling", "disk-filling"]
    {
        assert_eq!(wired.a().times(code), 0, "{code}");
    }
}

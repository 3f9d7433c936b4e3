use super::*;
use crate::base::Seq;
use crate::base::limits::SPOOL_TAPE_HANGS_MS;
use crate::engine::admin::AdminRequest;
use crate::engine::test_kit::{CLIENT, Node, config};
use crate::engine::{ClientEvent, EngineConfig, Event, SpoolConfig, SpoolEvent, SpoolFull};

const QUOTA: u64 = 6 * (64 << 10);

fn node(place: &str, tape: &str, full: SpoolFull) -> Node {
    let spool = SpoolConfig {
        place: place.to_owned(),
        tape: tape.to_owned(),
        limit_bytes: if tape.is_empty() { 0 } else { 400 << 10 },
        full,
        high_percent: 60,
        low_percent: 50,
        ..SpoolConfig::default()
    };
    Node::serving(EngineConfig { quota_bytes: QUOTA, spool, ..config(0) })
}

fn only(full: SpoolFull) -> Node {
    node("tape:/reels", "", full)
}

fn behind(full: SpoolFull) -> Node {
    node("file:/spool", "tape:/reels", full)
}

/// Sets an item to 30 KiB so many times; whether each was taken.
fn puts(node: &mut Node, count: usize) -> bool {
    (0..count).all(|_| {
        let value = "x".repeat(30 << 10);
        let line = format!("*3\r\n$3\r\nSET\r\n$12\r\napp,orders,2\r\n${}\r\n{value}\r\n", value.len());
        node.said.clear();
        node.input(Event::Client(ClientEvent::Bytes { conn: CLIENT, bytes: line.into_bytes() }));
        // Users wait for half of the time at most while the spool is behind.
        for _ in 0..8 {
            if !node.said.is_empty() {
                break;
            }
            node.passes(100);
        }
        node.said == "+OK\r\n"
    })
}

/// All of it can be read, each entry once.
fn reads_all(node: &mut Node) {
    use crate::engine::admin::{AdminAnswer, AdminReply};
    assert_eq!(node.engine.core.replicated().oldest(), Seq(1));
    let entries = usize::try_from(node.status().positions.appended).unwrap();
    match node.asks(AdminRequest::LogShow { limit: 1000 }) {
        AdminReply::Ok { value: AdminAnswer::Log(list) } => assert_eq!(list.len(), entries),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_the_directory_has_no_room_for_goes_on_to_reels_and_all_of_it_is_read_in_order() {
    let mut node = behind(SpoolFull::DropPeer);
    assert!(puts(&mut node, 90));
    let view = node.status().spool;
    assert!(view.reel_parts > 3 && view.parts > view.reel_parts, "{view:?}");
    assert_eq!(view.reel_parts, node.reels.len() as u64);
    assert_eq!(view.parts - view.reel_parts, node.spool.len() as u64);
    assert!(node.spool.values().map(|(part, _)| part.file_bytes()).sum::<u64>() <= 400 << 10);
    // The oldest are on reels.
    let newest_reel = node.reels.values().map(|(part, _)| part.end.seq).max();
    let oldest_here = node.spool.values().map(|(part, _)| part.base.seq).min();
    assert!(newest_reel <= oldest_here);
    assert_eq!((node.times("spool-full"), node.times("peer-dropped")), (0, 0), "{:?}", node.told);
    reads_all(&mut node);
}

#[test]
fn nothing_is_let_go_before_the_drive_says_at_a_flush_that_it_is_on_a_reel() {
    for mut node in [only(SpoolFull::Alarm), behind(SpoolFull::Alarm)] {
        node.holds_flushes = true;
        let tape = node.engine.core.spool.settings.is_tape();
        assert!(puts(&mut node, 60));
        assert!(!node.flushes.is_empty(), "the drive was given something");
        let held =
            node.status().journal.bytes + node.spool.values().map(|(part, _)| part.file_bytes()).sum::<u64>();
        assert!(held > 60 * (30 << 10), "{held} bytes are kept");
        assert_eq!(node.status().spool.reel_parts, 0);
        // A drive answers in the order in which it was asked.
        while let Some(event) = node.flushes.pop_front() {
            node.input(event);
        }
        node.holds_flushes = false;
        assert!(puts(&mut node, 4));
        assert!(node.status().spool.reel_parts > 3);
        assert!(!tape || node.status().journal.bytes <= QUOTA);
        reads_all(&mut node);
    }
}

#[test]
fn a_drive_that_loses_what_it_was_given_is_given_it_again_and_what_it_said_after_the_error_does_not_count() {
    let mut node = only(SpoolFull::Alarm);
    node.holds_flushes = true;
    assert!(puts(&mut node, 60));
    node.holds_flushes = false;
    let mut told: Vec<Event> = node.flushes.drain(..).collect();
    assert!(told.len() > 2, "several are on their way");
    // The first one failed; the others were written all the same.
    let Event::Spool(SpoolEvent::Copied { round, .. }) = told[0] else { panic!("{told:?}") };
    told[0] = SpoolEvent::Copied { round, result: Err(Fault::Errno(5)) }.into();
    node.reels.clear();
    told.into_iter().for_each(|event| node.input(event));
    assert_eq!(node.times("spool-failed"), 1, "{:?}", node.told);
    node.passes(SPOOL_RETRY_MS + 1);
    assert!(puts(&mut node, 4));
    let view = node.status().spool;
    assert!(view.reel_parts > 3 && view.reel_parts == node.reels.len() as u64, "{view:?}");
    reads_all(&mut node);
}

#[test]
fn a_missing_reel_is_told_of_with_the_time_that_is_left_and_stops_nobody_until_the_ladder_ends() {
    let mut node = only(SpoolFull::Block);
    assert!(puts(&mut node, 2));
    node.ills.reels = Some(Fault::NO_REEL);
    let wanted =
        || SpoolEvent::Reel { wanted: Some("a reel to write to, as reel 2: it is not there".into()) };
    assert!(puts(&mut node, 2), "there is room in the journal");
    node.input(wanted().into());
    node.input(wanted().into());
    assert_eq!(node.times("reel-wanted"), 1, "told once: {:?}", node.told);
    let told = node.told.iter().find(|(kind, _)| *kind == "reel-wanted").unwrap();
    assert!(told.1.contains("as reel 2") && told.1.contains("there is room for "), "{told:?}");
    let view = node.status().spool;
    assert_eq!((view.state.as_str(), view.reel_wanted.contains("reel 2")), ("waits", true), "{view:?}");
    assert!(!puts(&mut node, 10), "at the end of the ladder the config says block");
    assert_eq!(node.times("peer-dropped"), 0);
    node.ills.reels = None;
    node.passes(SPOOL_REEL_MS + 1);
    node.input(SpoolEvent::Reel { wanted: None }.into());
    assert_eq!(node.times("reel-there"), 1);
    assert!(puts(&mut node, 30));
    reads_all(&mut node);
}

#[test]
fn with_reels_that_take_nothing_the_directory_fills_and_then_the_ladder_goes_on() {
    for (full, dropped) in [(SpoolFull::DropPeer, true), (SpoolFull::Alarm, false)] {
        let mut node = behind(full);
        node.ills.reels = Some(Fault::Errno(5));
        assert!(puts(&mut node, 60), "users at level local never stop");
        assert_eq!(node.times("tape-failed"), 1, "{:?}", node.told);
        assert_eq!(node.times("spool-full"), 1, "{:?}", node.told);
        assert_eq!(node.times("peer-dropped") > 0, dropped);
        if !dropped {
            node.ills.reels = None;
            node.passes(SPOOL_RETRY_MS + 1);
            assert!(puts(&mut node, 4));
            node.passes(SPOOL_RETRY_MS + 1);
            assert!(puts(&mut node, 4));
            assert_eq!((node.times("tape-back"), node.times("spool-room")), (1, 1), "{:?}", node.told);
            assert!(node.status().spool.reel_parts > 3);
            reads_all(&mut node);
        }
    }
}

#[test]
fn a_drive_that_hangs_is_told_of_and_what_the_directory_had_for_it_stays() {
    let mut node = behind(SpoolFull::Alarm);
    node.holds_flushes = true;
    assert!(puts(&mut node, 60));
    assert_eq!(node.times("tape-failed"), 0);
    node.passes(SPOOL_TAPE_HANGS_MS + 1);
    assert_eq!(node.times("tape-failed"), 1, "{:?}", node.told);
    assert!(node.told.iter().any(|(kind, text)| *kind == "tape-failed" && text.contains("does not answer")));
    reads_all(&mut node);
}

#[test]
fn a_part_that_cannot_be_read_from_its_reel_is_named_with_its_entries_and_the_reel() {
    let mut node = only(SpoolFull::DropPeer);
    assert!(puts(&mut node, 60));
    let (part, _) = node.reels.values().nth(2).unwrap().clone();
    node.input(
        SpoolEvent::Damaged { part, why: "reel 1, position 7, block 5 of the set: medium error".into() }
            .into(),
    );
    let text = format!("entries {} to {}", part.first(), part.end.seq);
    let told = node.told.iter().find(|(kind, _)| *kind == "spool-damaged").unwrap();
    assert!(told.1.contains(&text) && told.1.contains("position 7"), "{told:?}");
    assert_eq!(node.engine.core.replicated().oldest(), part.end.seq.next());
}

#[test]
fn what_a_crash_left_in_the_directory_and_on_a_reel_is_there_once() {
    let mut node = behind(SpoolFull::Alarm);
    assert!(puts(&mut node, 90));
    // It came between the flush and the removal.
    let (name, twice) =
        node.reels.iter().next_back().map(|(name, part)| (name.clone(), part.clone())).unwrap();
    node.spool.insert(name.clone(), twice);
    node.ills.spool = Some(Fault::Errno(5));
    assert!(puts(&mut node, 10));
    node.ills.spool = None;
    node.passes(SPOOL_RETRY_MS + 1);
    assert!(puts(&mut node, 4));
    assert!(!node.spool.contains_key(&name), "only the one on the reel is left");
    reads_all(&mut node);
}

#[test]
fn flags_that_a_drive_sets_are_told_by_the_worst_of_them_with_names_and_advice() {
    let mut node = only(SpoolFull::Alarm);
    let tells = |node: &mut Node, flags: &[u8]| {
        node.told.clear();
        node.input(SpoolEvent::Alerts { drive: "tape:/dev/nst0".into(), flags: flags.to_vec() }.into());
        node.told.clone()
    };
    for (flags, kind, words) in [
        (&[19][..], "tape-note", "Nearing medium life"),
        (&[21], "tape-warning", "Cleaning requested"),
        (&[19, 20], "tape-alert", "Cleaning required"),
    ] {
        let told = tells(&mut node, flags);
        assert!(told.len() == 1 && told[0].0 == kind, "{told:?}");
        assert!(told[0].1.starts_with("tape:/dev/nst0: TapeAlert ") && told[0].1.contains(words), "{told:?}");
    }
}

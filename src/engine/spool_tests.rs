use super::*;
use crate::base::Epoch;
use crate::engine::admin::{AdminAnswer, AdminReply, AdminRequest, LogEntryView};
use crate::engine::test_kit::{CLIENT, Node, config};
use crate::engine::{ClientEvent, EngineConfig, Event};

const QUOTA: u64 = 6 * (64 << 10);

fn spool(full: SpoolFull) -> SpoolConfig {
    SpoolConfig {
        place: "file:/spool".to_owned(),
        full,
        high_percent: 60,
        low_percent: 50,
        ..SpoolConfig::default()
    }
}

/// A node that serves while its peer is away, with a small quota and a spool.
fn node(full: SpoolFull) -> Node {
    Node::serving(EngineConfig { quota_bytes: QUOTA, spool: spool(full), ..config(0) })
}

/// Sets an item to `kib` KiB; what the client is told.
fn put(node: &mut Node, kib: usize) -> String {
    let value = "x".repeat(kib << 10);
    let line = format!("*3\r\n$3\r\nSET\r\n$12\r\napp,orders,2\r\n${}\r\n{value}\r\n", value.len());
    node.said.clear();
    node.input(Event::Client(ClientEvent::Bytes { conn: CLIENT, bytes: line.into_bytes() }));
    node.said.clone()
}

/// Updates of several times the quota; each is answered.
fn outage(node: &mut Node) {
    for _ in 0..60 {
        assert_eq!(put(node, 30), "+OK\r\n");
    }
}

fn listed(node: &mut Node) -> Result<usize, String> {
    match node.asks(AdminRequest::LogShow { limit: 1000 }) {
        AdminReply::Ok { value: AdminAnswer::Log(list) } => Ok(Vec::<LogEntryView>::len(&list)),
        other => Err(format!("{other:?}")),
    }
}

#[test]
fn what_the_journal_has_no_room_for_goes_to_the_spool_and_is_read_back_from_there_in_order() {
    let mut node = node(SpoolFull::DropPeer);
    outage(&mut node);
    let status = node.status();
    assert_eq!((node.times("peer-dropped"), node.times("spooling")), (0, 1), "{:?}", node.told);
    assert!(status.journal.bytes <= QUOTA, "{:?}", status.journal);
    let view = status.spool;
    assert!(view.parts > 5 && view.from == 1 && view.parts == node.spool.len() as u64, "{view:?}");
    assert_eq!(node.engine.core.replicated().oldest(), Seq(1), "all of it can be read");
    let entries = status.positions.appended;
    assert_eq!(
        listed(&mut node),
        Ok(usize::try_from(entries).unwrap()),
        "spool, then journal, each entry once"
    );
}

#[test]
fn a_full_spool_lets_the_peer_go_or_users_wait_or_the_journal_grow_as_the_config_says() {
    for (full, dropped, refused, grows) in [
        (SpoolFull::DropPeer, true, false, false),
        (SpoolFull::Block, false, true, false),
        (SpoolFull::Alarm, false, false, true),
    ] {
        let mut node = node(full);
        node.ills.spool = Some(Fault::NoSpace);
        let told: Vec<String> = (0..60).map(|_| put(&mut node, 30)).collect();
        let name = full.name();
        assert_eq!(node.times("spool-full"), 1, "{name}: {:?}", node.told);
        assert_eq!(node.times("peer-dropped") > 0, dropped, "{name}");
        let refusals = told.iter().filter(|reply| reply.starts_with('-')).count();
        assert_eq!(refusals > 0, refused, "{name}: {told:?}");
        let status = node.status();
        assert_eq!(status.journal.bytes > QUOTA + 2 * (64 << 10), grows, "{name}: {:?}", status.journal);
        assert_eq!(status.state, if refused { "no-space" } else { "serving" }, "{name}");
        assert_eq!(status.spool.state, "full", "{name}");
        // There is room again.
        node.ills.spool = None;
        node.passes(SPOOL_RETRY_MS + 1);
        assert_eq!(put(&mut node, 1), "+OK\r\n", "{name}");
        if !dropped {
            assert!(node.times("spool-room") == 1 && !node.spool.is_empty(), "{name}: {:?}", node.told);
            assert_eq!(
                node.engine.core.replicated().oldest(),
                Seq(1),
                "{name}: nothing was lost to the peer"
            );
        }
    }
}

#[test]
fn a_part_that_is_damaged_is_named_with_its_entries_and_neither_it_nor_what_is_before_it_is_read() {
    let mut node = node(SpoolFull::DropPeer);
    outage(&mut node);
    let third = node.spool.keys().nth(2).unwrap().clone();
    let part = node.spool[&third].0;
    node.spool.get_mut(&third).unwrap().1[5000] ^= 1;
    assert!(listed(&mut node).is_err(), "the listing came to the damage");
    let told: Vec<_> = node.told.iter().filter(|(kind, _)| *kind == "spool-damaged").collect();
    let range = format!("entries {} to {}", part.first(), part.end.seq);
    assert!(told.len() == 1 && told[0].1.contains(&third) && told[0].1.contains(&range), "{told:?}");
    assert_eq!(
        node.engine.core.replicated().oldest(),
        part.end.seq.next(),
        "a peer that needs more needs a copy"
    );
}

#[test]
fn a_spool_that_went_away_is_read_anew_and_parts_of_another_history_are_neither_used_nor_removed() {
    let mut node = node(SpoolFull::Alarm);
    for _ in 0..30 {
        put(&mut node, 30);
    }
    let oldest = node.engine.core.replicated().oldest();
    node.ills.spool = Some(Fault::Errno(2));
    outage(&mut node);
    assert_eq!((node.times("spool-failed"), node.status().spool.state.as_str()), (1, "failed"));
    // Somebody put back what another history had under the same numbers.
    let (name, (part, bytes)) = node.spool.pop_first().unwrap();
    let mut other = part;
    other.end.epoch = Epoch(part.end.epoch.0 + 1_000_000);
    other.end.chain = crate::base::Chain(7);
    node.spool.insert(other.file_name(), (other, bytes.clone()));
    node.spool.insert(name, (part, bytes));
    node.ills.spool = None;
    node.passes(SPOOL_RETRY_MS + 1);
    assert_eq!((node.times("spool-stray"), node.times("spool-back")), (1, 1), "{:?}", node.told);
    assert_eq!(node.status().spool.strays, 1);
    assert_eq!(node.engine.core.replicated().oldest(), oldest, "its own are readable again");
    let entries = node.status().positions.appended;
    assert_eq!(listed(&mut node), Ok(usize::try_from(entries).unwrap()));
    assert!(node.spool.contains_key(&other.file_name()));
}

#[test]
fn a_part_that_somebody_removed_is_told_and_what_was_before_it_is_not_read() {
    let mut node = node(SpoolFull::Alarm);
    outage(&mut node);
    let second = node.spool.keys().nth(1).unwrap().clone();
    let (gone, _) = node.spool.remove(&second).unwrap();
    node.ills.spool = Some(Fault::Errno(5));
    outage(&mut node);
    node.ills.spool = None;
    node.passes(SPOOL_RETRY_MS + 1);
    assert_eq!(node.times("spool-damaged"), 1, "{:?}", node.told);
    assert_eq!(node.engine.core.replicated().oldest(), gone.end.seq.next());
}

#[test]
fn with_mode_always_every_sealed_segment_goes_there_and_the_limit_takes_only_what_nobody_needs() {
    let always =
        SpoolConfig { mode: SpoolMode::Always, limit_bytes: 5 * (70 << 10), ..spool(SpoolFull::Alarm) };
    let mut node = Node::serving(EngineConfig { spool: always, ..config(0) });
    for _ in 0..8 {
        put(&mut node, 30);
    }
    let sealed = node.segments.keys().filter(|(kind, _)| *kind == JournalKind::Replicated).count();
    assert!(!node.spool.is_empty() && node.spool.len() < sealed, "the journal is far from its mark");
    assert_eq!(node.engine.core.replicated().oldest(), Seq(1));
    outage(&mut node);
    assert_eq!(node.status().spool.state, "full", "the peer needs all that is there");
    assert_eq!(node.times("spool-full"), 1);
    assert_eq!(node.spool.values().next().unwrap().0.first(), Seq(1));
}

#[test]
fn a_spool_is_started_and_stopped_by_an_operator_and_not_stopped_while_it_is_needed() {
    let mut node = Node::serving(EngineConfig { quota_bytes: QUOTA, ..config(0) });
    let start = |to: &str| AdminRequest::SpoolStart { to: to.to_owned(), always: false };
    let refused = |reply: AdminReply| matches!(reply, AdminReply::No { .. });
    assert!(
        refused(node.asks(start("spool"))) && refused(node.asks(AdminRequest::SpoolStop { drop: false }))
    );
    assert!(!refused(node.asks(start("file:/spool"))));
    outage(&mut node);
    assert!(node.times("peer-dropped") == 0 && node.spool.len() > 3, "{:?}", node.told);
    assert!(refused(node.asks(start("file:/elsewhere"))), "what is on it is needed");
    assert!(refused(node.asks(AdminRequest::SpoolStop { drop: false })), "the peer lacks it");
    assert!(!refused(node.asks(AdminRequest::SpoolStop { drop: true })));
    assert!(node.spool.is_empty() && node.status().spool.state == "off");
    assert!(node.engine.core.replicated().oldest() > Seq(1));
}

#[test]
fn a_node_without_a_spool_asks_for_none() {
    let mut node = Node::serving(EngineConfig { quota_bytes: QUOTA, ..config(0) });
    outage(&mut node);
    assert_eq!((node.spool.len(), node.status().spool.state.as_str()), (0, "off"));
    assert_eq!(node.times("peer-dropped"), 1);
}

//! The primary's stream: what it sends, when it stops, and which acknowledgements cannot be.

use super::*;
use crate::base::{Chain, FileId, JournalKind, Mono, Ordinal};
use crate::engine::Event;
use crate::engine::event::LinkEvent;
use crate::engine::test_kit::{Node, PAIR, config};
use crate::format::batch::{BatchBuilder, Seal};
use crate::format::control::Role;
use crate::format::entry::{Entry, EntryKind};
use crate::format::frame::{Hello, PROTOCOL_FLOOR, PROTOCOL_VERSION};
use crate::pair::{Frame, Head};

fn ack(received: u64, durable: u64, applied: u64) -> Ack {
    Ack { received: Seq(received), durable: Seq(durable), applied: Seq(applied) }
}

/// A stream that has sent 20 entries, of which the peer told that it has 10, 8 and 5.
fn stream() -> Stream {
    Stream {
        sent: Position { seq: Seq(20), ..Position::default() },
        sent_bytes: 0,
        unsent: 0,
        credit: 0,
        heard_credit: true,
        acked: ack(10, 8, 5),
        announced: Seq(0),
        reader: JournalReader::after(Seq(20)),
        ready: None,
        giving: Giving::default(),
        answering: Answering::default(),
    }
}

#[test]
fn an_acknowledgement_that_cannot_be_is_told_by_what_is_wrong_with_it() {
    for (what, told, wrong) in [
        ("nothing new", ack(10, 8, 5), None),
        ("all that was sent", ack(20, 20, 20), None),
        ("more than was sent", ack(21, 20, 20), Some("received")),
        ("more on disk than received", ack(12, 13, 5), Some("durable or applied")),
        ("more applied than on disk", ack(12, 9, 10), Some("durable or applied")),
        ("less received than before", ack(9, 8, 5), Some("received")),
        ("less on disk than before", ack(12, 7, 5), Some("durable")),
        ("less applied than before", ack(12, 8, 4), Some("applied")),
    ] {
        let found = match check_ack(&stream(), told) {
            Ok(()) => None,
            Err(LinkFault::Ack { what, .. }) => Some(what),
            Err(other) => panic!("{what}: {other}"),
        };
        assert_eq!(found, wrong, "{what}");
    }
}

/// The entry `seq` alone, as a batch.
fn batch(seq: u64) -> Batch {
    let mut builder = BatchBuilder::new(Seq(seq), 0);
    builder.push(&Entry { kind: EntryKind::Put, file: FileId(9), id: b"x", value: b"v" });
    let (epoch, prev_chain) = (crate::base::Epoch(2), Chain(0));
    let journal = JournalKind::Replicated;
    builder.seal(&Seal { epoch, prev_chain, durable: Seq(0), wall_ms: 0, pair: PAIR, journal })
}

#[test]
fn the_window_keeps_what_the_peer_lacks_and_what_is_not_on_this_disk() {
    // Entries 1 to 4; this disk, the peer's, whether it follows: the first that is still there.
    for (durable, acked, streaming, first) in [
        (4, 2, true, Some(3)),
        (1, 2, true, Some(2)),
        (4, 0, true, Some(1)),
        (3, 0, false, Some(4)),
        (4, 4, true, None),
    ] {
        let mut window = SendWindow::default();
        (1..=4).for_each(|seq| window.push(batch(seq)));
        window.trim(Seq(durable), Seq(acked), streaming);
        let found = (1..=4).find(|seq| window.starting_at(Seq(*seq)).is_some());
        assert_eq!(found, first, "{durable} {acked} {streaming}");
        assert!(window.reaches(Seq(5)), "the next one will be pushed");
        assert_eq!(window.reaches(Seq(1)), first == Some(1));
    }
}

/// A primary, and its standby's end of the link, which has nothing.
fn leading() -> (Node, LinkSession) {
    let mut node = Node::serving(config(0));
    node.ills.peer_is_there = true;
    node.lives(3000);
    let conn = node.dialled.take().expect("it dials");
    node.input(Event::Link(LinkEvent::Connected { conn }));
    let mut standby = LinkSession::accepted(conn, node.now.mono);
    standby.admit();
    assert_eq!(sent(&mut node, &mut standby), (Seq(0), 0), "its hello alone");
    let hello = Hello {
        version: PROTOCOL_VERSION,
        floor: PROTOCOL_FLOOR,
        features: 0,
        pair: PAIR,
        ordinal: Ordinal(1),
        role: Role::Standby,
        serving: false,
        end: Position::default(),
        applied: Seq(0),
        table: Vec::new(),
        name: "b".to_owned(),
        known: Seq(0),
        relied_on: Seq(0),
        door: None,
        copied: false,
    };
    says(&mut node, &mut standby, 0, FrameKind::Hello, hello.encode());
    assert_eq!(sent(&mut node, &mut standby), (Seq(0), 0), "where the stream begins");
    (node, standby)
}

fn says(node: &mut Node, standby: &mut LinkSession, credit: u64, kind: FrameKind, payload: Vec<u8>) {
    let head = Head { epoch: crate::base::Epoch(0), durable: Seq(0), credit };
    standby.send(node.now, kind, head, payload.into());
    let bytes = Bytes::from(standby.take_out().concat());
    node.input(Event::Link(LinkEvent::Bytes { conn: standby.conn, bytes }));
}

/// The last entry that the node has sent, and how many bytes of batches.
fn sent(node: &mut Node, standby: &mut LinkSession) -> (Seq, u64) {
    let (mut last, mut bytes) = (Seq(0), 0);
    for (conn, parts) in std::mem::take(&mut node.sent) {
        assert_eq!(conn, standby.conn);
        standby.feed(Mono(0), &parts.concat());
        while let Some((_, frame)) = standby.poll().unwrap() {
            if let Frame::Batch(batch) = frame {
                last = batch.header().last_seq();
                bytes += u64::from(batch.header().len);
            }
        }
    }
    (last, bytes)
}

#[test]
fn nothing_is_sent_before_the_standby_granted_room_and_no_more_than_it_granted() {
    let (mut node, mut standby) = leading();
    for n in 0..40 {
        node.set(&format!("{n}"));
    }
    assert_eq!(sent(&mut node, &mut standby), (Seq(0), 0));
    let nothing = ack(0, 0, 0).encode();
    says(&mut node, &mut standby, 2000, FrameKind::Ack, nothing.clone());
    let (first, bytes) = sent(&mut node, &mut standby);
    assert!(first > Seq(0) && bytes <= 2000, "{first} {bytes}");
    says(&mut node, &mut standby, 2000, FrameKind::Ack, nothing.clone());
    assert_eq!(sent(&mut node, &mut standby), (Seq(0), 0), "nothing more was granted");
    says(&mut node, &mut standby, 1 << 20, FrameKind::Ack, nothing);
    let (last, _) = sent(&mut node, &mut standby);
    assert_eq!(
        last,
        node.engine.core.replicated().pace().appended,
        "from the journal and from memory, in order"
    );
}

#[test]
fn a_journal_that_cannot_be_read_for_the_peer_is_told_and_ends_the_connection() {
    let (mut node, mut standby) = leading();
    node.ills.reads = Some(Fault::Errno(5));
    says(&mut node, &mut standby, 1 << 20, FrameKind::Ack, ack(0, 0, 0).encode());
    assert_eq!(node.times("catch-up-failed"), 1, "{:?}", node.told);
    assert!(node.closed.contains(&standby.conn));
}

#[test]
fn a_primary_speaks_at_least_once_a_heartbeat() {
    let (mut node, mut standby) = leading();
    let beat = node.engine.core.config.heartbeat_ms;
    node.passes(beat - 1);
    assert!(node.sent.is_empty());
    node.passes(1);
    assert_eq!(node.sent.len(), 1);
    sent(&mut node, &mut standby);
}

#[test]
fn a_standby_that_acknowledges_what_cannot_be_is_cut_off() {
    let (mut node, mut standby) = leading();
    let refused = node.engine.core.link.refused();
    says(&mut node, &mut standby, 1 << 20, FrameKind::Ack, ack(1000, 1000, 1000).encode());
    assert!(node.closed.contains(&standby.conn) && node.times("link-refused") == 1);
    assert_eq!(node.engine.core.link.refused(), refused + 1);
    assert_eq!(node.engine.core.peer.retained(), Seq(0), "it has freed no journal");
}

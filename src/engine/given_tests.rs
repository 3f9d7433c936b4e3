//! A copy as either side sees it, with a peer that says what the test wants.

use super::*;
use crate::format::chunk::{Chunk, Content, CopyBegin, Want, WantFrom};
use crate::format::frame::FEATURE_COPY;

/// A primary at level `durable` that has `app,orders` and the volume `app,disk`, and gives a peer a copy; what it begins
/// the copy with.
fn giving() -> (Bench, Peer, Box<CopyBegin>) {
    let (mut a, peer) = leading();
    let (name, kind, bytes) = ("app,disk".to_owned(), crate::format::dptr::DptrKind::Blocks, Some(1 << 20));
    a.asks(AdminRequest::FileCreate { name, kind, flags: None, bytes, ack: None });
    a.input(Event::Link(LinkEvent::Closed { conn: peer.session.conn, why: "gone".to_owned() }));
    a.passes(3_000);
    let mut peer = a.meets();
    let incomplete = Hello { features: FEATURE_COPY, ..hello(1, Role::Incomplete, Position::default()) };
    a.says(&mut peer, FrameKind::Hello, at(2, 0), incomplete.encode());
    a.passes(100);
    let begin = a.heard_by(&mut peer).into_iter().find_map(|frame| match frame {
        Frame::CopyBegin(begin) => Some(begin),
        _ => None,
    });
    (a, peer, begin.expect("a copy begins"))
}

fn file_of(a: &Bench, name: &str) -> FileId {
    a.store.namespace().resolve(name.as_bytes()).unwrap()
}

/// The peer has received all that was sent and has it on its disk.
fn acks_all(a: &mut Bench, peer: &mut Peer) {
    let all = a.status().positions.appended;
    acks(a, peer, all);
}

#[test]
fn what_a_peer_confirms_while_its_copy_is_not_whole_keeps_no_promise() {
    let (mut a, mut peer, _) = giving();
    acks_all(&mut a, &mut peer);
    for _ in 0..8 {
        a.passes(500);
        a.says(&mut peer, FrameKind::Heartbeat, at(2, 0), Vec::new());
        acks_all(&mut a, &mut peer);
    }
    assert!(!a.status().lowered.is_empty(), "the peer is of no use to who asked for its word");
    a.said.clear();
    a.set();
    a.passes(10);
    assert_eq!(a.said, "+OK\r\n", "nobody waits for it");
    let told = a.times("degraded");
    for _ in 0..10 {
        a.passes(400);
        acks_all(&mut a, &mut peer);
    }
    assert!(!a.status().lowered.is_empty());
    assert_eq!((a.times("degraded"), a.times("restored")), (told, 0), "{:?}", a.told);
}

#[test]
fn blocks_that_are_read_for_a_copy_count_only_from_what_they_may_have_been_written_by() {
    let (mut a, mut peer, _) = giving();
    acks_all(&mut a, &mut peer);
    let volume = file_of(&a, "app,disk");
    let shown = a.status().positions.applied;
    a.ills.store_waits = true;
    a.set();
    a.passes(100);
    let durable = a.status().positions.durable;
    assert!(durable > shown, "the store lags behind the journal");
    // Everything up to here is sent, and the store does not show it: so nothing is read yet.
    let want = Want { id: 7, file: volume, from: WantFrom::Blocks(0), most: 1 << 20, unless: None };
    a.says(&mut peer, FrameKind::Want, at(2, 0), want.encode());
    a.passes(100);
    let chunk = |a: &mut Bench, peer: &mut Peer| {
        a.heard_by(peer).into_iter().find_map(|frame| match frame {
            Frame::Chunk(chunk) => Some(chunk),
            _ => None,
        })
    };
    assert_eq!(chunk(&mut a, &mut peer), None, "a state in the middle of what was sent");
    a.ills.store_waits = false;
    a.apply();
    a.passes(1_000);
    let chunk = chunk(&mut a, &mut peer).expect("the store shows what was sent");
    assert_eq!((chunk.at.0, chunk.file), (durable, volume));
    assert!(chunk.until.0 >= a.status().positions.durable && matches!(chunk.content, Content::Blocks { .. }));
}

/// What the node wants of the peer now.
fn wants_of(b: &mut Bench, peer: &mut Peer) -> Vec<Want> {
    let wants = b.heard_by(peer).into_iter().filter_map(|frame| match frame {
        Frame::Want(want) => Some(want),
        _ => None,
    });
    wants.collect()
}

/// An incomplete standby that is offered a copy; the connection, what the copy began with, and what it wants first.
fn taking() -> (Bench, Peer, Box<CopyBegin>, Vec<Want>) {
    let (_, _, begin) = giving();
    let mut b = Bench::new(1);
    let mut peer = b.is_called(1, "10.0.0.1:4001");
    let primary = Hello { features: FEATURE_COPY, ..hello(0, Role::Primary, begin.origin) };
    b.says(&mut peer, FrameKind::Hello, at(2, begin.origin.seq.0), primary.encode());
    b.says(&mut peer, FrameKind::CopyBegin, at(2, begin.origin.seq.0), begin.encode().unwrap());
    b.passes(500);
    assert_eq!(b.control.role, Role::Incomplete);
    let wants = wants_of(&mut b, &mut peer);
    assert!(!wants.is_empty());
    (b, peer, begin, wants)
}

/// The answer to a want, with nothing in the range, which ends the file.
fn empty(want: &Want, at: Seq, until: Seq) -> Chunk {
    let content = match &want.from {
        WantFrom::Items(after) => {
            Content::Items { after: after.clone(), through: Bytes::new(), items: Vec::new() }
        }
        WantFrom::Blocks(offset) => {
            Content::Blocks { offset: *offset, len: (1 << 20) - offset, runs: Vec::new() }
        }
        from => panic!("it wants {from:?}"),
    };
    Chunk { id: want.id, file: want.file, at, until, content, ends: true }
}

#[test]
fn a_chunk_that_stands_behind_another_entry_than_the_stream_is_refused() {
    for off in [1, 5] {
        let (mut b, mut peer, begin, wants) = taking();
        let origin = begin.origin.seq;
        let chunk = empty(&wants[0], Seq(origin.0 + off), Seq(origin.0 + off));
        b.says(&mut peer, FrameKind::Chunk, at(2, origin.0), chunk.encode());
        assert!(b.closed.contains(&peer.session.conn));
        assert!(b.last("link-refused").contains("belongs behind entry"), "{:?}", b.told);
    }
}

#[test]
fn a_copy_is_not_whole_before_the_entry_from_which_its_chunks_are_exact() {
    let (mut b, mut peer, begin, wants) = taking();
    let origin = begin.origin;
    let mut answered = 0;
    let mut wants: std::collections::VecDeque<Want> = wants.into();
    while let Some(want) = wants.pop_front() {
        let until = Seq(origin.seq.0 + if answered == 0 { 3 } else { 0 });
        b.says(&mut peer, FrameKind::Chunk, at(2, origin.seq.0), empty(&want, origin.seq, until).encode());
        b.passes(200);
        wants.extend(wants_of(&mut b, &mut peer));
        answered += 1;
    }
    assert_eq!(answered, 2, "items and blocks");
    b.passes(2_000);
    assert_eq!(b.control.role, Role::Incomplete, "entries up to {} are lacking", origin.seq.0 + 3);
    let batch = batch(origin, 3, b"v");
    let end = batch.end().seq.0;
    b.says(&mut peer, FrameKind::Batch, at(2, end), batch.wire().to_vec());
    b.says(&mut peer, FrameKind::Heartbeat, at(2, end), Vec::new());
    b.passes(2_000);
    assert_eq!(b.control.role, Role::Standby);
}

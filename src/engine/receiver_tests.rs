//! A standby whose disk is quick and whose store does nothing unless the test lets it, and a primary that sends all that
//! it may.

use super::*;
use crate::base::{AckLevel, ConnId, FileId, JournalKind, Mono, Ordinal};
use crate::engine::test_kit::{self, Node, PAIR};
use crate::engine::{EngineConfig, Event, LinkEvent, StoreEvent};
use crate::format::batch::{BatchBuilder, Seal};
use crate::format::control::Role;
use crate::format::entry::{Entry, EntryKind};
use crate::format::frame::Begin;
use std::ops::{Deref, DerefMut};

const LINK: ConnId = ConnId(1 << 63);
const EPOCH: Epoch = Epoch(2);
/// Of each item that is sent.
const VALUE: usize = 1 << 20;

struct Bench {
    node: Node,
    primary: LinkSession,
    /// The epoch that the primary says and seals in.
    epoch: Epoch,
    /// It announces what it sent as durable.
    announces: bool,
    /// What the primary was granted and has sent (bytes).
    granted: u64,
    sent: u64,
    end: Position,
    /// What the standby acknowledged.
    acks: Vec<Ack>,
}

impl Deref for Bench {
    type Target = Node;

    fn deref(&self) -> &Node {
        &self.node
    }
}

impl DerefMut for Bench {
    fn deref_mut(&mut self) -> &mut Node {
        &mut self.node
    }
}

impl Bench {
    fn following() -> Self {
        Self::following_at(AckLevel::Local)
    }

    fn following_at(ack_level: AckLevel) -> Self {
        let config = EngineConfig { ack_level, segment_bytes: 64 << 20, ..test_kit::config(1) };
        let mut node = Node::new(config, Role::Standby);
        node.ills.store_waits = true;
        let primary = LinkSession::dialed(LINK, 7, Mono(0));
        let (end, acks) = (Position::default(), Vec::new());
        let mut bench = Self { node, primary, epoch: EPOCH, announces: true, granted: 0, sent: 0, end, acks };
        bench.input(Event::Tick);
        bench.begins();
        bench
    }

    /// The primary connects, and its stream begins where its history ends.
    fn begins(&mut self) {
        self.primary.admit();
        self.input(Event::Link(LinkEvent::Accepted { conn: self.primary.conn, from: "a".to_owned() }));
        let hello = Hello {
            version: 1,
            floor: 1,
            features: 0,
            pair: PAIR,
            ordinal: Ordinal(0),
            role: Role::Primary,
            serving: true,
            end: self.end,
            applied: Seq(0),
            table: Vec::new(),
            name: "a".to_owned(),
            known: Seq(0),
            relied_on: Seq(0),
            door: None,
            copied: false,
        };
        self.send(FrameKind::Hello, hello.encode().into());
        self.send(FrameKind::Begin, Begin { common: self.end }.encode().into());
        assert!(self.granted > 0, "it follows: {:?}", self.told);
    }

    fn send(&mut self, kind: FrameKind, payload: Bytes) {
        let durable = if self.announces { self.end.seq } else { Seq(0) };
        let head = Head { epoch: self.epoch, durable, credit: 0 };
        self.primary.send(self.now, kind, head, payload);
        let bytes = self.primary.take_out().concat().into();
        self.input(Event::Link(LinkEvent::Bytes { conn: self.primary.conn, bytes }));
    }

    /// Sends the next item, and announces it as durable.
    fn send_item(&mut self) {
        self.send_sealed(|_| {});
    }

    /// The same, in a batch whose seal says something else.
    fn send_sealed(&mut self, change: impl FnOnce(&mut Seal)) {
        let first_seq = self.end.seq.next();
        let mut builder = BatchBuilder::new(first_seq, VALUE);
        builder.push(&Entry { kind: EntryKind::Put, file: FileId(9), id: b"i", value: &vec![7; VALUE] });
        let mut seal = Seal {
            epoch: self.epoch,
            prev_chain: self.end.chain,
            durable: if self.announces { self.end.seq } else { Seq(0) },
            wall_ms: 0,
            pair: PAIR,
            journal: JournalKind::Replicated,
        };
        change(&mut seal);
        let batch = builder.seal(&seal);
        self.end = batch.end();
        self.sent += u64::from(batch.header().len);
        self.send(FrameKind::Batch, batch.wire().clone());
    }

    fn may_send(&self) -> bool {
        self.sent + (VALUE as u64) + 4096 <= self.granted && !self.ended()
    }

    /// Something happens to the standby, and the primary hears what it says.
    fn input(&mut self, event: Event) {
        self.node.input(event);
        for (_, parts) in std::mem::take(&mut self.node.sent) {
            self.heard(&parts.concat());
        }
    }

    /// Whether the standby has ended the connection.
    fn ended(&self) -> bool {
        self.closed.contains(&self.primary.conn)
    }

    fn heard(&mut self, bytes: &[u8]) {
        self.primary.feed(Mono(0), bytes);
        while let Some((header, frame)) = self.primary.poll().expect("good frames") {
            if let Frame::Ack(ack) = frame {
                self.acks.push(ack);
            }
            self.granted = self.granted.max(header.credit);
        }
    }

    /// What waits for the store (bytes).
    fn held(&self) -> u64 {
        self.engine.core.appliers.replicated().bytes() as u64
    }
}

#[test]
fn a_standby_whose_store_does_nothing_holds_no_more_than_it_granted() {
    let mut bench = Bench::following();
    let mut rounds = 0;
    for _ in 0..5 {
        while bench.may_send() {
            bench.send_item();
            assert!(bench.held() <= CREDIT_WINDOW, "{} bytes wait for the store", bench.held());
        }
        for _ in 0..20 {
            bench.now.mono = bench.now.mono.plus_ms(500);
            bench.input(Event::Tick);
            bench.send(FrameKind::Heartbeat, Bytes::new());
        }
        assert!(!bench.ended() && !bench.may_send(), "time alone grants nothing: {:?}", bench.told);
        assert!(bench.held() > CREDIT_WINDOW / 2, "what was granted is made use of");
        // The store does some of it; so much more may come.
        let half = bench.given.len() / 2;
        for (journal, round, batch) in bench.given.drain(..half.max(1)).collect::<Vec<_>>() {
            let seq = batch.header().last_seq();
            bench.input(Event::Store(StoreEvent::Applied { journal, round, seq }));
        }
        rounds += u32::from(bench.may_send());
    }
    assert_eq!(rounds, 5, "the stream goes on");
}

#[test]
fn a_primary_that_sends_beyond_its_grant_is_cut_off_and_nothing_of_that_is_kept() {
    let mut bench = Bench::following();
    while bench.may_send() {
        bench.send_item();
    }
    assert!(!bench.ended(), "what was granted is taken: {:?}", bench.told);
    let (held, granted) = (bench.held(), bench.granted);
    for _ in 0..4 {
        bench.send_item();
    }
    assert!(bench.ended(), "{held} bytes are held, {granted} were granted");
    assert!(bench.held() <= CREDIT_WINDOW, "{} bytes wait for the store", bench.held());
    let (_, told) = bench.told.last().expect("it is told");
    assert!(told.contains("beyond the") && told.contains("that were granted"), "{told}");
}

#[test]
fn a_standby_tells_with_one_ack_that_a_batch_came_and_is_on_its_disk() {
    let mut bench = Bench::following();
    for _ in 0..5 {
        bench.acks.clear();
        bench.send_item();
        let seen: Vec<_> = bench.acks.iter().map(|ack| (ack.received, ack.durable)).collect();
        assert_eq!(seen, [(bench.end.seq, bench.end.seq)]);
    }
}

#[test]
fn where_the_level_received_is_promised_a_batch_is_told_of_before_it_is_on_disk() {
    let mut bench = Bench::following_at(AckLevel::Received);
    let before = bench.end.seq;
    bench.acks.clear();
    bench.send_item();
    let seen: Vec<_> = bench.acks.iter().map(|ack| (ack.received, ack.durable)).collect();
    assert_eq!(seen, [(bench.end.seq, before), (bench.end.seq, bench.end.seq)]);
}

#[test]
fn a_standby_whose_disk_takes_long_tells_in_time_what_it_holds_in_memory() {
    let mut bench = Bench::following();
    bench.send_item();
    let on_disk = bench.end.seq;
    bench.ills.disk_hangs = true;
    bench.acks.clear();
    for _ in 0..2 {
        bench.send_item();
    }
    assert_eq!(bench.acks.len(), 0, "its write is under way");
    let due = bench.engine.deadline().expect("something is to be told");
    assert_eq!(due, bench.now.mono.plus_ms(RECEIVED_ACK_MS));
    bench.now.mono = due;
    bench.input(Event::Tick);
    let seen: Vec<_> = bench.acks.iter().map(|ack| (ack.received, ack.durable)).collect();
    assert_eq!(seen, [(bench.end.seq, on_disk)]);
}

/// What a primary's seal says that has no place here.
type Lie = (&'static str, fn(&mut Seal));

#[test]
fn a_batch_that_has_no_place_in_the_history_ends_the_stream_and_nothing_of_it_is_kept() {
    let lies: [Lie; 5] = [
        ("a later epoch than that of the stream", |seal| seal.epoch = Epoch(3)),
        ("an earlier epoch than that of the entry before it", |seal| seal.epoch = Epoch(1)),
        ("another pair", |seal| seal.pair = crate::format::PairId([2; 16])),
        ("the other journal", |seal| seal.journal = JournalKind::Local),
        ("another history", |seal| seal.prev_chain.0 ^= 1),
    ];
    for (what, lie) in lies {
        let mut bench = Bench::following();
        bench.send_item();
        let end = bench.engine.core.replicated().sealed();
        assert_eq!(end, bench.end);
        bench.send_sealed(lie);
        assert!(bench.ended(), "{what}: {:?}", bench.told);
        assert_eq!(bench.engine.core.replicated().sealed(), end, "{what}");
    }
}

#[test]
fn what_was_announced_to_nobody_is_cut_for_a_new_epoch_and_the_epoch_that_it_began_is_forgotten() {
    let mut bench = Bench::following();
    bench.announces = false;
    bench.send_item();
    let epochs = |bench: &Bench| -> Vec<_> {
        let table = bench.engine.core.control.table();
        table.iter().map(|mark| (mark.epoch, mark.first_seq)).collect()
    };
    assert_eq!(epochs(&bench), [(EPOCH, Seq(1))]);
    let conn = bench.primary.conn;
    bench.input(Event::Link(LinkEvent::Closed { conn, why: "gone".to_owned() }));
    // The primary lost it with its memory, and serves anew.
    bench.primary = LinkSession::dialed(ConnId(LINK.0 + 1), 8, Mono(0));
    (bench.epoch, bench.end, bench.granted, bench.sent) = (Epoch(4), Position::default(), 0, 0);
    bench.begins();
    assert!(bench.told.iter().any(|(kind, _)| *kind == "tail-cut"), "{:?}", bench.told);
    assert_eq!(epochs(&bench), []);
    bench.send_item();
    assert_eq!(epochs(&bench), [(Epoch(4), Seq(1))]);
    assert_eq!(bench.engine.core.replicated().sealed(), bench.end);
}

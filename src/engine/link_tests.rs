//! One node whose driver does everything at once, and a peer that says what the test wants.

use super::*;
use crate::base::limits::LIVE_WINDOW_MAX;
use crate::base::{AckLevel, Chain, FileId, JournalKind, Ordinal, Position};
use crate::engine::admin::{AdminAnswer, AdminReply, AdminRequest, TakeoverAccount};
use crate::engine::test_kit::{self, CLIENT, Node, PAIR};
use crate::engine::{ClientDoor, ClientEvent, EngineConfig, Event, PeerLoss, StoreEvent};
use crate::format::PairId;
use crate::format::batch::{Batch, BatchBuilder, Seal};
use crate::format::control::Control;
use crate::format::entry::{Entry, EntryKind};
use crate::format::frame::{Ack, Begin};
use crate::store::memory::MemoryStore;
use std::ops::{Deref, DerefMut};

const BEAT: u64 = 500;

fn config(ordinal: u8) -> EngineConfig {
    EngineConfig {
        ack_level: AckLevel::Durable,
        on_peer_loss: PeerLoss::Degrade { after_ms: 2000 },
        heartbeat_ms: BEAT,
        ..test_kit::config(ordinal)
    }
}

/// A node whose peer is there.
struct Bench {
    ordinal: u8,
    node: Node,
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
    fn new(ordinal: u8) -> Self {
        let role = if ordinal == 0 { Role::Primary } else { Role::Standby };
        Self::found(ordinal, Control::new(role, PAIR), MemoryStore::new(Ordinal(ordinal)))
    }

    /// A node that starts with an empty journal, whatever its control file says.
    fn found(ordinal: u8, control: Control, store: MemoryStore) -> Self {
        let mut node = Node::found(config(ordinal), control, store);
        node.ills.peer_is_there = true;
        node.input(Event::Tick);
        Self { ordinal, node }
    }

    /// The process ends and starts with what its control file holds; the journal is lost with it.
    fn restarts(self) -> Self {
        Self::found(self.ordinal, self.node.control, MemoryStore::new(Ordinal(self.ordinal)))
    }

    /// Time passes, with a look at the clock each ten milliseconds.
    fn passes(&mut self, ms: u64) {
        self.lives(ms);
    }

    /// The peer answers a call, or calls.
    fn meets(&mut self) -> Peer {
        let conn = match self.dialled.take() {
            Some(conn) => conn,
            None => panic!("it does not dial"),
        };
        self.input(Event::Link(LinkEvent::Connected { conn }));
        let mut session = LinkSession::accepted(conn, self.now.mono);
        session.admit();
        let mut peer = Peer { session, hello: None };
        match self.heard_by(&mut peer).pop() {
            Some(Frame::Hello(hello)) => peer.hello = Some(hello),
            other => panic!("it says no hello: {other:?}"),
        }
        peer
    }

    fn is_called(&mut self, number: u64, from: &str) -> Peer {
        let conn = ConnId(1 << 63 | number);
        self.input(Event::Link(LinkEvent::Accepted { conn, from: from.to_owned() }));
        let mut session = LinkSession::dialed(conn, number, self.now.mono);
        session.admit();
        Peer { session, hello: None }
    }

    fn says(&mut self, peer: &mut Peer, kind: FrameKind, head: Head, payload: Vec<u8>) {
        peer.session.send(self.now, kind, head, payload.into());
        let bytes = Bytes::from(peer.session.take_out().concat());
        self.input(Event::Link(LinkEvent::Bytes { conn: peer.session.conn, bytes }));
    }

    /// All that the node has said to a peer since it was last asked.
    fn heard_by(&mut self, peer: &mut Peer) -> Vec<Frame> {
        let mut frames = Vec::new();
        for (conn, parts) in std::mem::take(&mut self.sent) {
            if conn != peer.session.conn {
                continue;
            }
            peer.session.feed(self.now.mono, &parts.concat());
            while let Some((_, frame)) = peer.session.poll().unwrap() {
                frames.push(frame);
            }
        }
        frames
    }

    fn asks(&mut self, request: AdminRequest) -> AdminReply {
        self.answered.clear();
        self.input(Event::Admin { token: 1, request });
        // A takeover waits for the link to be noticed as dead.
        self.passes(1600);
        assert_eq!(self.answered.len(), 1, "{:?}", self.answered);
        self.answered.remove(0)
    }

    fn takes_over(&mut self, accept_loss: bool, now: bool, dry_run: bool) -> AdminReply {
        let (peer_is_down, incomplete, epoch) = (true, false, None);
        self.asks(AdminRequest::Takeover { peer_is_down, dry_run, accept_loss, now, incomplete, epoch })
    }

    fn last(&self, kind: &str) -> &str {
        let text = self.told.iter().rev().find(|(k, _)| *k == kind).map(|(_, text)| text.as_str());
        text.unwrap_or_else(|| panic!("no {kind} in {:?}", self.told))
    }

    fn set(&mut self) {
        self.input(Event::Client(ClientEvent::Bytes {
            conn: CLIENT,
            bytes: b"SET app,orders,1 x\r\n".to_vec(),
        }));
    }
}

/// The other end of a connection.
struct Peer {
    session: LinkSession,
    /// The node's hello, if the node called.
    hello: Option<Hello>,
}

fn refused(reply: &AdminReply) -> String {
    match reply {
        AdminReply::No { message, next } => format!("{message} | {next}"),
        other => panic!("not refused: {other:?}"),
    }
}

fn account(reply: AdminReply) -> TakeoverAccount {
    match reply {
        AdminReply::Ok { value: AdminAnswer::Takeover(account) } => *account,
        other => panic!("no takeover: {other:?}"),
    }
}

fn at(epoch: u64, durable: u64) -> Head {
    Head { epoch: Epoch(epoch), durable: Seq(durable), credit: 1 << 20 }
}

/// What node `ordinal` says of itself that ends at `end`, an entry of epoch 2.
fn hello(ordinal: u8, role: Role, end: Position) -> Hello {
    let first =
        crate::format::control::EpochMark { epoch: Epoch(2), first_seq: Seq(1), prev_chain: Chain(0) };
    Hello {
        version: PROTOCOL_VERSION,
        floor: PROTOCOL_FLOOR,
        features: 0,
        pair: PAIR,
        ordinal: Ordinal(ordinal),
        role,
        serving: role == Role::Primary,
        end,
        applied: end.seq,
        table: if end.seq == Seq(0) { Vec::new() } else { vec![first] },
        name: "peer".to_owned(),
        known: Seq(0),
        relied_on: Seq(0),
        door: None,
        copied: false,
    }
}

/// A batch of `count` updates after `prev`, of the epoch 2; `value` makes it what it is.
fn batch(prev: Position, count: u64, value: &[u8]) -> Batch {
    let mut builder = BatchBuilder::new(prev.seq.next(), 0);
    for _ in 0..count {
        builder.push(&Entry { kind: EntryKind::Put, file: FileId(9), id: b"x", value });
    }
    builder.seal(&Seal {
        epoch: Epoch(2),
        prev_chain: prev.chain,
        durable: Seq(0),
        wall_ms: 0,
        pair: PAIR,
        journal: JournalKind::Replicated,
    })
}

/// A standby that follows a primary in epoch 2 and has `count` entries of it, in one batch; the primary's connection.
fn following(count: u64) -> (Bench, Peer, Position) {
    let mut b = Bench::new(1);
    let mut peer = b.is_called(1, "10.0.0.1:4001");
    let end = batch(Position::default(), count, b"v").end();
    b.says(&mut peer, FrameKind::Hello, at(2, 0), hello(0, Role::Primary, end).encode());
    b.says(&mut peer, FrameKind::Begin, at(2, 0), Begin { common: Position::default() }.encode());
    let wire = batch(Position::default(), count, b"v").wire().to_vec();
    b.says(&mut peer, FrameKind::Batch, at(2, count), wire);
    assert_eq!(b.status().positions.durable, count);
    (b, peer, end)
}

/// A primary at level `durable` whose standby follows and has everything; its connection.
fn leading() -> (Bench, Peer) {
    let mut a = Bench::new(0);
    assert!(matches!(a.asks(AdminRequest::StartAlone), AdminReply::Ok { .. }));
    a.asks(AdminRequest::AccountCreate { name: "app".to_owned(), flags: "L".to_owned() });
    let (name, kind) = ("app,orders".to_owned(), crate::format::dptr::DptrKind::Records);
    a.asks(AdminRequest::FileCreate { name, kind, flags: None, bytes: None, ack: Some(AckLevel::Applied) });
    a.input(Event::Client(ClientEvent::Opened { conn: CLIENT, door: ClientDoor::Items { trusted: true } }));
    a.passes(3000);
    let mut peer = a.meets();
    let end = a.engine.core.replicated().sealed();
    a.says(&mut peer, FrameKind::Hello, at(2, 0), hello(1, Role::Standby, end).encode());
    acks(&mut a, &mut peer, end.seq.0);
    assert!(a.status().lowered.is_empty(), "{:?}", a.told);
    a.told.clear();
    (a, peer)
}

/// The standby has received all, and has so much on its disk.
fn acks(a: &mut Bench, peer: &mut Peer, durable: u64) {
    let received = Seq(a.status().positions.appended);
    let ack = Ack { received, durable: Seq(durable), applied: Seq(durable) };
    a.says(peer, FrameKind::Ack, at(2, 0), ack.encode());
}

#[test]
fn an_update_is_answered_within_the_grace_after_the_last_word_of_a_peer_that_fell_silent() {
    let (mut a, _silent) = leading();
    a.passes(700);
    a.set();
    // Two seconds after its last word, not after its connection was given up and two seconds more.
    a.passes(1250);
    assert_eq!((a.said.as_str(), a.times("degraded")), ("", 0));
    a.passes(100);
    assert_eq!((a.said.as_str(), a.times("degraded")), ("+OK\r\n", 1));
    let status = a.status();
    let lowered: Vec<_> = status.lowered.iter().map(|l| (l.file.as_str(), l.level.as_str())).collect();
    assert_eq!((status.degraded, lowered), (true, vec![("", "durable"), ("app,orders", "applied")]));
}

#[test]
fn each_kind_of_update_ends_the_grace_of_a_living_peer_whose_disk_hangs() {
    let pairs = |count: u32| (0..count).map(|n| format!(" app,orders,{n} x")).collect::<String>();
    for lines in [
        "SET app,orders,1 x\r\n".to_owned(),
        format!("MSET{}\r\n", pairs(2)),
        // So many are one draft.
        format!("MSET{}\r\n", pairs(2000)),
        "MULTI\r\nSET app,orders,1 x\r\nSET app,orders,2 y\r\nEXEC\r\n".to_owned(),
        format!("MULTI\r\nMSET{}\r\nEXEC\r\n", pairs(2000)),
    ] {
        let start = lines.get(..30).unwrap_or(&lines);
        let (mut a, mut peer) = leading();
        let before = a.status().positions.appended;
        a.input(Event::Client(ClientEvent::Bytes { conn: CLIENT, bytes: lines.as_bytes().to_vec() }));
        a.passes(10);
        assert!(a.status().positions.appended > before, "{start}");
        for _ in 0..21 {
            a.passes(100);
            acks(&mut a, &mut peer, before);
        }
        assert_eq!(a.times("degraded"), 1, "{start}: clients wait for ever");
    }
}

#[test]
fn an_update_is_answered_within_the_grace_when_the_disk_of_a_living_peer_hangs() {
    let (mut a, mut peer) = leading();
    let before = a.status().positions.appended;
    a.set();
    for _ in 0..19 {
        a.passes(100);
        acks(&mut a, &mut peer, before);
    }
    assert_eq!((a.said.as_str(), a.times("degraded")), ("", 0));
    for _ in 0..2 {
        a.passes(100);
        acks(&mut a, &mut peer, before);
    }
    assert_eq!(a.said, "+OK\r\n");
    assert!(a.last("degraded").contains("connected and has not confirmed entry"), "{:?}", a.told);
    // What comes next does not wait either, and the promise is not restored before the disk works again.
    a.set();
    a.passes(100);
    assert_eq!(a.said, "+OK\r\n+OK\r\n");
    for _ in 0..60 {
        a.passes(100);
        acks(&mut a, &mut peer, before);
    }
    assert_eq!((a.said.as_str(), a.times("degraded"), a.times("restored")), ("+OK\r\n+OK\r\n", 1, 0));
    assert_eq!(a.times("peer-stuck"), 1);
    let all = a.status().positions.appended;
    acks(&mut a, &mut peer, all);
    assert_eq!(a.times("restored"), 1);
    // The one that waited when the promise was lowered counts.
    let first = before + 1;
    let answered =
        format!("entries {first} to {all} were answered without it, and its disk has all up to entry {all}");
    assert!(a.last("restored").contains(&answered), "{}", a.last("restored"));
    a.set();
    a.passes(100);
    assert_eq!(a.said, "+OK\r\n+OK\r\n", "it waits again");
    acks(&mut a, &mut peer, all + 1);
    assert_eq!(a.said, "+OK\r\n+OK\r\n+OK\r\n");
}

#[test]
fn without_a_licence_a_link_that_is_up_goes_on_and_no_new_one_is_begun_and_all_else_goes_on() {
    use crate::engine::licence::{Standing, Tested};
    let tested = |standing, text: &str| {
        Event::Licence(Box::new(Tested { standing, text: text.to_owned(), ..Tested::default() }))
    };
    let (mut a, mut peer) = leading();
    a.input(tested(Standing::Grace(2), "two days"));
    a.input(tested(Standing::Grace(1), "one day"));
    a.input(tested(Standing::Over, "over"));
    assert_eq!((a.times("licence-bad"), a.last("licence-over")), (2, "over"));
    a.set();
    a.passes(10);
    let all = a.status().positions.appended;
    acks(&mut a, &mut peer, all);
    assert_eq!(a.said, "+OK\r\n", "what is up goes on");
    let conn = peer.session.conn;
    a.input(Event::Link(LinkEvent::Closed { conn, why: "gone".to_owned() }));
    let end = a.engine.core.replicated().sealed();
    let calls = |a: &mut Bench| {
        a.passes(1100);
        let mut peer = a.meets();
        a.says(&mut peer, FrameKind::Hello, at(2, 0), hello(1, Role::Standby, end).encode());
        a.heard_by(&mut peer).iter().any(|frame| matches!(frame, Frame::Begin(_)))
    };
    assert!(!calls(&mut a) && !calls(&mut a), "no stream is begun");
    assert!(a.status().link.last_error.contains("without a licence"), "{:?}", a.status().link);
    a.passes(5000);
    a.set();
    a.passes(10);
    assert_eq!(a.said, "+OK\r\n+OK\r\n", "updates go on, at a lowered promise");
    a.input(tested(Standing::Good, "good"));
    assert_eq!(a.last("licence-good"), "good");
    assert!(calls(&mut a));
    // A standby takes over all the same.
    let (mut b, _, _) = following(3);
    b.input(tested(Standing::Over, "over"));
    assert_eq!(account(b.takes_over(false, true, false)).applied, 3);
    assert_eq!(b.status().state, "serving");
}

/// A primary whose promise was lowered, and whose peer has fallen behind by more than is kept in memory; with the last
/// entry that there was when it was lowered.
fn far_ahead() -> (Bench, Peer, u64) {
    let (mut a, mut peer) = leading();
    let before = a.status().positions.appended;
    a.set();
    for _ in 0..21 {
        a.passes(100);
        acks(&mut a, &mut peer, before);
    }
    assert_eq!((a.said.as_str(), a.times("degraded")), ("+OK\r\n", 1));
    let value = vec![b'x'; 1 << 20];
    for _ in 0..=LIVE_WINDOW_MAX >> 20 {
        let head = format!("*3\r\n$3\r\nSET\r\n$12\r\napp,orders,2\r\n${}\r\n", value.len());
        let bytes = [head.as_bytes(), &value, b"\r\n"].concat();
        a.said.clear();
        a.input(Event::Client(ClientEvent::Bytes { conn: CLIENT, bytes }));
        // The next round of clients' work.
        a.input(Event::Tick);
        assert_eq!(a.said, "+OK\r\n");
    }
    assert!(!a.engine.core.link.caught_up());
    a.said.clear();
    (a, peer, before + 1)
}

/// The standby has so much, in memory and on disk.
fn has(a: &mut Bench, peer: &mut Peer, seq: u64) {
    let ack = Ack { received: Seq(seq), durable: Seq(seq), applied: Seq(seq) };
    a.says(peer, FrameKind::Ack, at(2, 0), ack.encode());
}

#[test]
fn a_promise_returns_under_a_load_that_does_not_end_when_what_the_peer_lacks_is_young() {
    let (mut a, mut peer, lowered) = far_ahead();
    a.passes(900);
    a.set();
    assert_eq!(a.said, "+OK\r\n", "it lacks what there was when the promise was lowered");
    has(&mut a, &mut peer, lowered);
    a.set();
    a.passes(300);
    assert_eq!(a.said, "+OK\r\n", "it waits again");
    assert_eq!(a.times("restored"), 0, "what was answered meanwhile is not on the peer's disk");
}

#[test]
fn updates_at_a_lowered_level_give_way_half_of_the_time_to_a_peer_that_gets_on_behind_them() {
    let (mut a, mut peer, lowered) = far_ahead();
    a.passes(1100);
    has(&mut a, &mut peer, lowered);
    let mut held = 0;
    for _ in 0..200 {
        a.said.clear();
        a.set();
        held += u32::from(a.said.is_empty());
        a.passes(10);
        if a.now.mono.0 % 500_000 == 0 {
            has(&mut a, &mut peer, lowered);
        }
    }
    assert!((80..=120).contains(&held), "of 200 updates {held} had to wait");
    a.passes(300);
    assert!(a.status().degraded && a.times("restored") == 0);
    // Reads, and what was never promised more, wait for nothing.
    a.said.clear();
    a.input(Event::Client(ClientEvent::Bytes { conn: CLIENT, bytes: b"PING\r\n".to_vec() }));
    assert_eq!(a.said, "+PONG\r\n");
}

#[test]
fn a_batch_that_is_known_changes_nothing_and_the_same_numbers_with_other_content_end_the_connection() {
    let (mut b, mut peer, end) = following(3);
    let again = batch(Position::default(), 3, b"v").wire().to_vec();
    b.says(&mut peer, FrameKind::Batch, at(2, 3), again);
    assert!(b.closed.is_empty());
    assert_eq!(b.status().positions.durable, 3);
    let other = batch(Position::default(), 3, b"another").wire().to_vec();
    b.says(&mut peer, FrameKind::Batch, at(2, 3), other);
    assert_eq!(b.closed, [peer.session.conn]);
    assert!(b.last("history-differs").contains("other content"));
    let own = b.engine.core.replicated();
    assert_eq!((own.sealed(), own.pace().durable), (end, Seq(3)));
}

#[test]
fn a_copy_of_the_primary_that_calls_is_refused_and_the_living_stream_goes_on() {
    let (mut b, mut stream, end) = following(3);
    for number in 2..6 {
        for serving in [false, true] {
            let mut copy = b.is_called(10 * number + u64::from(serving), "10.0.0.9:555");
            let claim = Hello { serving, ..hello(0, Role::Primary, end) };
            b.says(&mut copy, FrameKind::Hello, at(4, 3), claim.encode());
            for _ in 0..20 {
                b.passes(100);
                b.says(&mut stream, FrameKind::Heartbeat, at(2, 3), Vec::new());
            }
            let heard = b.heard_by(&mut copy);
            let [Frame::Refuse(refuse)] = &heard[..] else { panic!("{heard:?}") };
            assert!(refuse.text.contains("10.0.0.1:4001"), "{refuse:?}");
            assert_eq!(b.closed.pop(), Some(copy.session.conn));
        }
    }
    assert!(b.closed.is_empty(), "the stream was given up");
    assert_eq!(b.times("peer-twice"), 1);
    let told = b.last("peer-twice").to_owned();
    assert!(told.contains("10.0.0.1:4001") && told.contains("10.0.0.9"), "{told}");
    // It has taught this node nothing.
    assert_eq!(b.engine.core.peer.record().epoch, Epoch(2));
    let next = batch(end, 1, b"w").wire().to_vec();
    b.says(&mut stream, FrameKind::Batch, at(2, 3), next);
    assert_eq!(b.status().positions.durable, 4);
}

#[test]
fn a_call_that_cannot_be_is_refused_at_once_and_the_stream_goes_on() {
    let (mut b, stream, end) = following(3);
    let mut stranger = b.is_called(2, "10.0.0.9:1");
    let claim = Hello { pair: PairId([9; 16]), ..hello(0, Role::Primary, end) };
    b.says(&mut stranger, FrameKind::Hello, at(2, 3), claim.encode());
    assert!(matches!(&b.heard_by(&mut stranger)[..], [Frame::Refuse(_)]));
    let mut silent: Vec<Peer> = (3..20).map(|number| b.is_called(number, "10.0.0.9:1")).collect();
    b.says(&mut silent[16], FrameKind::Heartbeat, at(2, 3), Vec::new());
    assert!(!b.closed.contains(&stream.session.conn), "{:?}", b.closed);
    // The oldest silent calls give way.
    assert!(b.closed.contains(&silent[0].session.conn));
    assert!(b.status().peer.connected);
}

#[test]
fn the_primary_itself_takes_the_place_of_its_silent_connection_quickly() {
    let (mut b, mut stream, end) = following(3);
    b.passes(200);
    b.says(&mut stream, FrameKind::Heartbeat, at(2, 3), Vec::new());
    // Its old connection is half open: nothing comes on it any more.
    let mut new = b.is_called(2, "10.0.0.1:4002");
    b.says(&mut new, FrameKind::Hello, at(2, 3), hello(0, Role::Primary, end).encode());
    b.passes(3 * BEAT + 20);
    assert_eq!(b.closed, [stream.session.conn]);
    assert!(matches!(b.heard_by(&mut new)[0], Frame::Hello(_)));
    b.says(&mut new, FrameKind::Begin, at(2, 3), Begin { common: end }.encode());
    assert!(b.status().peer.connected);
    assert_eq!(b.times("peer-twice"), 0);
    // One that has been silent for so long already gives way at once.
    b.passes(3 * BEAT + 20);
    let mut newer = b.is_called(3, "10.0.0.1:4003");
    b.says(&mut newer, FrameKind::Hello, at(2, 3), hello(0, Role::Primary, end).encode());
    assert_eq!(b.closed, [stream.session.conn, new.session.conn]);
}

#[test]
fn a_takeover_says_when_a_frozen_primary_was_last_heard_and_does_not_wait_for_who_knows() {
    let (mut b, mut stream, _) = following(3);
    b.says(&mut stream, FrameKind::Heartbeat, at(2, 3), Vec::new());
    b.passes(1600);
    let said = refused(&b.takes_over(false, false, false));
    assert!(said.contains("last heard 3.1 s ago") && said.contains("--now"), "{said}");
    assert!(said.contains("silent for 5.0 s"), "{said}");
    let account = account(b.takes_over(false, true, false));
    assert_eq!((account.kept_up_to, account.lost_announced, account.durable_level_lost), (3, 0, 0));
    assert_eq!(b.status().role, "primary");
}

/// A standby with an empty journal that was told by its primary of entries 1 to 90, of which it had acknowledged 80.
fn set_back(version: u16) -> Bench {
    let mut b = Bench::new(1);
    let mut peer = b.is_called(1, "10.0.0.1:4001");
    let end = Position { epoch: Epoch(2), seq: Seq(92), chain: Chain(5) };
    let applied = Seq(70);
    let (known, relied_on) = (Seq(80), Seq(85));
    let said = Hello { version, applied, known, relied_on, ..hello(0, Role::Primary, end) };
    b.says(&mut peer, FrameKind::Hello, at(2, 90), said.encode());
    let text = "its journal begins at entry 60".to_owned();
    let refuse = Refuse { code: RefuseCode::History as u16, text };
    b.says(&mut peer, FrameKind::Refuse, at(2, 90), refuse.encode());
    b
}

#[test]
fn a_standby_that_was_set_back_says_so_and_takes_over_only_on_the_word_that_loss_is_accepted() {
    let mut b = set_back(2);
    assert!(b.last("entries-missing").contains("entries 1 to 80"), "{:?}", b.told);
    for restarted in [false, true] {
        if restarted {
            b = b.restarts();
            assert_eq!(b.times("entries-missing"), 1, "it is told again after a restart");
        }
        let gap = b.status().gap.unwrap();
        assert_eq!((gap.here, gap.from, gap.to, gap.full_copy), (true, 1, 90, true), "{gap:?}");
        let said = refused(&b.takes_over(false, false, false));
        assert!(said.contains("entries 1 to 90") && said.contains("--accept-loss"), "{said}");
        assert!(said.contains("entries 1 to 85 may have been acknowledged at level durable"), "{said}");
        let dry = account(b.takes_over(false, false, true));
        assert!(dry.needs_accept_loss && dry.dry_run);
        assert_eq!((dry.announced, dry.lost_announced, dry.durable_level_lost), (90, 90, 85));
        assert_eq!(b.status().role, "standby");
    }
    let account = account(b.takes_over(true, false, false));
    assert_eq!((account.lost_announced, account.durable_level_lost), (90, 85));
    assert!(account.lost.contains("entries 1 to 90"), "{}", account.lost);
    // From here on its history is the pair's.
    assert_eq!(b.status().gap, None);
}

#[test]
fn a_primary_of_version_1_that_ends_without_a_stream_leaves_a_standby_that_denies_no_loss() {
    let mut b = set_back(1);
    let dry = account(b.takes_over(false, false, true));
    assert!(dry.needs_accept_loss);
    assert_eq!((dry.lost_announced, dry.durable_level_lost), (90, 90));
    assert!(refused(&b.takes_over(false, false, false)).contains("--accept-loss"));
}

#[test]
fn entries_that_were_missing_are_back_once_the_stream_has_brought_them() {
    let mut b = set_back(2);
    let mut peer = b.is_called(2, "10.0.0.1:4002");
    let all = batch(Position::default(), 90, b"v");
    b.says(&mut peer, FrameKind::Hello, at(2, 90), hello(0, Role::Primary, all.end()).encode());
    b.says(&mut peer, FrameKind::Begin, at(2, 90), Begin { common: Position::default() }.encode());
    assert_eq!(b.times("entries-back"), 0);
    b.says(&mut peer, FrameKind::Batch, at(2, 90), all.wire().to_vec());
    assert_eq!(b.times("entries-back"), 1);
    assert_eq!(b.status().gap, None);
    let account = account(b.takes_over(false, true, false));
    assert_eq!((account.lost_announced, account.durable_level_lost), (0, 0));
}

#[test]
fn a_head_that_was_only_in_a_heartbeat_is_accounted_for_after_a_restart() {
    let (mut b, mut peer, _) = following(3);
    b.says(&mut peer, FrameKind::Heartbeat, at(2, 8), Vec::new());
    b.input(Event::Link(LinkEvent::Closed { conn: peer.session.conn, why: "gone".to_owned() }));
    assert_eq!(b.control.peer.on_disk, Seq(8));
    let mut b = b.restarts();
    let dry = account(b.takes_over(false, false, true));
    assert_eq!(dry.announced, 8);
}

#[test]
fn a_standby_does_not_cut_what_its_primary_had_announced_as_durable() {
    let (mut b, mut peer, end) = following(3);
    b.says(&mut peer, FrameKind::Heartbeat, at(2, 3), Vec::new());
    let mut later = b.is_called(2, "10.0.0.1:4002");
    b.input(Event::Link(LinkEvent::Closed { conn: peer.session.conn, why: "gone".to_owned() }));
    b.says(&mut later, FrameKind::Hello, at(4, 1), hello(0, Role::Primary, end).encode());
    b.says(&mut later, FrameKind::Begin, at(4, 1), Begin { common: Position::default() }.encode());
    assert!(b.closed.contains(&later.session.conn));
    assert!(b.last("history-differs").contains("entries 1 to 3"), "{:?}", b.told);
    assert_eq!(b.engine.core.replicated().sealed(), end);
}

#[test]
fn a_primary_that_was_set_back_is_not_started_alone_and_never_opens_an_epoch_again() {
    let mut a = Bench::new(0);
    let mut peer = a.meets();
    // The standby has heard that this node had entry 9 on its disk, in epoch 4.
    let said = Hello { known: Seq(9), ..hello(1, Role::Standby, Position::default()) };
    a.says(&mut peer, FrameKind::Hello, at(4, 0), said.encode());
    assert!(a.last("state-set-back").contains("epoch 4"));
    let said = refused(&a.asks(AdminRequest::StartAlone));
    assert!(said.contains("1 to 9") && said.contains("the peer answers"), "{said}");
    assert!(said.contains("say there: hot-backup takeover --peer-is-down"), "{said}");
    assert!(refused(&a.asks(AdminRequest::StartAloneAcceptLoss)).contains("the peer answers"));
    let mut a = a.restarts();
    let said = refused(&a.asks(AdminRequest::StartAlone));
    assert!(said.contains("1 to 9") && said.contains("hot-backup start --alone --accept-loss"), "{said}");
    assert_eq!(a.status().state, "asking-peer");
    assert!(matches!(a.asks(AdminRequest::StartAloneAcceptLoss), AdminReply::Ok { .. }));
    assert_eq!((a.status().state.as_str(), a.status().epoch), ("serving", 6));
}

#[test]
fn a_primary_that_serves_and_hears_that_it_was_set_back_serves_no_more_unless_an_operator_gave_up_what_it_lacks()
 {
    // How the operator started it, the epoch and the entry that the peer knows of, and whether it goes on.
    for (word, epoch, known, goes_on) in [
        (AdminRequest::StartAlone, 2, 90, false),
        (AdminRequest::StartAlone, 4, 0, false),
        (AdminRequest::StartAlone, 2, 1, true),
        (AdminRequest::StartAloneAcceptLoss, 2, 90, true),
        (AdminRequest::StartAloneAcceptLoss, 4, 0, false),
    ] {
        let mut a = Bench::new(0);
        assert!(matches!(a.asks(word), AdminReply::Ok { .. }));
        a.passes(3000);
        let mut peer = a.meets();
        let end = a.engine.core.replicated().sealed();
        let said = Hello { known: Seq(known), ..hello(1, Role::Standby, end) };
        a.says(&mut peer, FrameKind::Hello, at(epoch, 0), said.encode());
        let state = if goes_on { "serving" } else { "asking-peer" };
        assert_eq!(a.status().state, state, "epoch {epoch}, entry {known}");
        assert_eq!(a.engine.core.serving(), goes_on);
        if !goes_on {
            assert!(a.last("state-set-back").contains("must not serve"));
            // It asks on, and another word has it serve above all that was heard.
            a.passes(6000);
            a.dialled.take();
            a.passes(30_000);
            assert!(matches!(a.asks(AdminRequest::StartAloneAcceptLoss), AdminReply::Ok { .. }));
            a.passes(100);
            assert!(a.engine.core.serving() && a.status().epoch > epoch);
        }
    }
}

#[test]
fn a_primary_tells_that_its_standby_was_set_back_until_it_has_caught_up() {
    let (mut a, peer) = leading();
    let had = a.status().positions.appended;
    a.input(Event::Link(LinkEvent::Closed { conn: peer.session.conn, why: "gone".to_owned() }));
    assert_eq!(a.control.peer.on_disk, Seq(had));
    a.passes(3000);
    let mut peer = a.meets();
    let own = peer.hello.take().unwrap();
    assert_eq!((own.known, own.relied_on), (Seq(had), Seq(had)));
    a.says(&mut peer, FrameKind::Hello, at(2, 0), hello(1, Role::Standby, Position::default()).encode());
    assert!(a.last("peer-set-back").contains(&format!("entries 1 to {had}")), "{:?}", a.told);
    let gap = a.status().gap.unwrap();
    assert_eq!((gap.here, gap.from, gap.to, gap.full_copy), (false, 1, had, false));
    assert_eq!(a.control.peer.holds, Seq(0), "it is on disk");
    // Nothing that it needs again is let go.
    assert_eq!(a.engine.core.peer.retained(), Seq(0));
    a.input(Event::Link(LinkEvent::Closed { conn: peer.session.conn, why: "gone".to_owned() }));
    a.passes(3000);
    assert_eq!(a.times("peer-whole"), 0);
    let mut peer = a.meets();
    let end = a.engine.core.replicated().sealed();
    a.says(&mut peer, FrameKind::Hello, at(2, 0), hello(1, Role::Standby, end).encode());
    assert_eq!((a.times("peer-whole"), a.status().gap), (1, None));
}

#[test]
fn a_standby_whose_disk_takes_at_last_what_is_gone_here_needs_no_full_copy() {
    let (mut a, mut peer) = leading();
    a.engine.core.config.quota_bytes = 0;
    let value = "x".repeat(60 << 10);
    for _ in 0..6 {
        let line = format!("*3\r\n$3\r\nSET\r\n$12\r\napp,orders,2\r\n${}\r\n{value}\r\n", value.len());
        a.input(Event::Client(ClientEvent::Bytes { conn: CLIENT, bytes: line.into_bytes() }));
    }
    let end = a.status().positions.appended;
    a.input(Event::Store(StoreEvent::Checkpointed { applied: [Seq(end), Seq(0)] }));
    let gone = a.engine.core.replicated().oldest().0 - 1;
    assert_eq!(a.times("peer-dropped"), 1, "{:?}", a.told);
    assert!(a.status().gap.is_some_and(|gap| gap.full_copy && gap.to == gone));
    has(&mut a, &mut peer, gone - 1);
    assert!(a.status().gap.is_some_and(|gap| gap.full_copy));
    has(&mut a, &mut peer, gone);
    let status = a.status();
    assert_eq!((status.gap, status.troubles.len()), (None, 0), "{:?}", status.troubles);
    assert_eq!(a.times("peer-follows"), 1);
}

#[test]
fn a_peer_that_was_out_of_reach_for_long_is_found_within_about_three_seconds() {
    let mut a = Bench::new(0);
    // Nothing answers, as behind a broken network: an attempt is given up, and the next follows soon.
    a.passes(60_000);
    for _ in 0..10 {
        let conn = a.dialled.take().expect("it dials");
        let began = a.now.mono;
        while a.dialled.is_none() {
            a.passes(10);
        }
        assert!(a.closed.contains(&conn));
        let took = a.now.mono.since(began) / 1000;
        assert!(took <= 3100, "the next attempt begins {took} ms after the one before");
    }
}

#[test]
fn a_pair_one_version_apart_works_both_ways() {
    let old = |hello: Hello| Hello { version: 1, ..hello }.encode();
    let mut b = Bench::new(1);
    let mut primary = b.is_called(1, "10.0.0.1:4001");
    let first = batch(Position::default(), 3, b"v");
    b.says(&mut primary, FrameKind::Hello, at(2, 0), old(hello(0, Role::Primary, first.end())));
    b.says(&mut primary, FrameKind::Begin, at(2, 0), Begin { common: Position::default() }.encode());
    b.says(&mut primary, FrameKind::Batch, at(2, 3), first.wire().to_vec());
    assert_eq!(b.status().positions.applied, 3);
    let mut a = Bench::new(0);
    assert!(matches!(a.asks(AdminRequest::StartAlone), AdminReply::Ok { .. }));
    a.passes(3000);
    let mut standby = a.meets();
    let end = a.engine.core.replicated().sealed();
    a.says(&mut standby, FrameKind::Hello, at(2, 0), old(hello(1, Role::Standby, end)));
    assert!(matches!(a.heard_by(&mut standby)[0], Frame::Begin(begin) if begin.common == end));
    acks(&mut a, &mut standby, end.seq.0);
    assert!(a.status().peer.connected && a.status().gap.is_none());
}

#[path = "given_tests.rs"]
mod given;

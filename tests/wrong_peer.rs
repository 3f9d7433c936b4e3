//! A peer with the right key that says what cannot be: refused by name and counted, before anything changes, and no
//! part of the journal is given up for it.

use crate::support::{Impostor, Load, Node, Pair, Plan, Shape, audit, hello_of, in_place_of, wait_until};
use hot_backup::base::{Epoch, JournalKind, Ordinal, Position, Seq};
use hot_backup::format::PairId;
use hot_backup::format::batch::{BatchBuilder, Seal};
use hot_backup::format::control::Role;
use hot_backup::format::entry::{Entry, EntryKind};
use hot_backup::format::frame::{Ack, Begin, FrameKind, Hello};
use hot_backup::pair::{Frame, Head};
use serde_json::Value;

/// Small segments that are let go as soon as nobody needs them.
fn plan() -> Plan {
    Plan::quick().segments("64K").config("checkpoint_ms = 100")
}

/// In this epoch.
fn at(epoch: u64) -> Head {
    Head { epoch: Epoch(epoch), ..Head::default() }
}

/// What must not change.
fn state(status: &Value) -> [&Value; 6] {
    let journal = &status["journal"];
    [
        &status["role"],
        &status["state"],
        &status["epoch"],
        &journal["oldest_seq"],
        &status["positions"]["appended"],
        &status["positions"]["applied"],
    ]
}

/// The last segment and the one made ahead are left: nothing is let go by itself any more.
fn let_go(status: &Value) -> bool {
    status["journal"]["oldest_seq"].as_u64() > Some(1) && status["journal"]["segments"] == 2
}

/// A node that is to refuse what a wrong peer says, and what it was like before.
struct Refusing<'a> {
    node: &'a Node,
    before: Value,
}

impl<'a> Refusing<'a> {
    fn new(node: &'a Node) -> Self {
        Self { node, before: node.json(&["status"]) }
    }

    /// It counts one more refusal, which `kind` of incident tells with these words; nothing else changed.
    #[track_caller]
    fn has_refused(&mut self, kind: &str, words: &str) {
        let count = self.before["refused"].as_u64().unwrap() + 1;
        let after = self.node.status("to count it", |status| status["refused"].as_u64() >= Some(count));
        assert_eq!(after["refused"].as_u64(), Some(count), "{words}");
        assert_eq!(state(&after), state(&self.before), "{words}");
        wait_until(words, || {
            self.node.incidents().iter().any(|(k, text)| k == kind && text.contains(words)).then_some(())
        });
        self.before = after;
    }
}

/// Says `hello` to a node that was called with the key of `node`, and hears the refusal.
#[track_caller]
fn is_refused(refusing: &mut Refusing, node: &Node, (hello, epoch): (Hello, u64), words: &str) {
    let mut impostor = Impostor::calls(node, refusing.node);
    impostor.says(FrameKind::Hello, at(epoch), hello.encode());
    match impostor.hears() {
        Some((_, Frame::Refuse(refuse))) => assert!(refuse.text.contains(words), "{words}: {refuse:?}"),
        other => panic!("{words}: {other:?}"),
    }
    assert!(impostor.hears().is_none(), "{words}: it listens on");
    refusing.has_refused("peer-refused", words);
}

/// Claims that no node believes, whatever its role; `ordinal` is not that of `hello`.
fn incredible(hello: &Hello, ordinal: Ordinal) -> [(Hello, &'static str); 6] {
    [
        (Hello { version: 9, floor: 9, ..hello.clone() }, "protocol versions 9..=9 there, 1..=2 here"),
        (Hello { pair: PairId([7; 16]), ..hello.clone() }, "pair 0707"),
        (Hello { ordinal, ..hello.clone() }, "both nodes are number"),
        (Hello { role: Role::Standby, ..hello.clone() }, "only a primary calls, and it is standby"),
        (Hello { role: Role::Diverged, ..hello.clone() }, "only a primary calls, and it is diverged"),
        (Hello { role: Role::Standby, serving: true, ..hello.clone() }, "it says that it serves, as standby"),
    ]
}

#[test]
fn a_primary_that_is_called_refuses_what_cannot_be_and_serves_on() {
    let pair = Pair::start(&plan());
    let load = Load::start(&pair.a.door, Shape::default());
    load.goes_on(500);
    let told = load.finish();
    pair.converges();
    pair.a.status("to have let go what both have", let_go);
    let mut a = Refusing::new(&pair.a);
    let epoch = a.before["epoch"].as_u64().unwrap();
    let hello = Hello { role: Role::Primary, ..hello_of(&pair.b) };
    for (hello, words) in incredible(&hello, Ordinal(0)) {
        is_refused(&mut a, &pair.b, (hello, epoch), words);
    }
    // Two primaries in one epoch.
    let serving = Hello { serving: true, ..hello };
    is_refused(&mut a, &pair.b, (serving.clone(), epoch), "which only node 0 opens");
    // One whose epoch is over, so that it has to step down, is answered; it has nothing to send.
    for (kind, payload) in [
        (FrameKind::Begin, Begin { common: Position::default() }.encode()),
        (FrameKind::Ack, Ack { received: Seq(u64::MAX), durable: Seq(u64::MAX), applied: Seq(0) }.encode()),
    ] {
        let mut impostor = Impostor::calls(&pair.b, &pair.a);
        impostor.says(FrameKind::Hello, at(1), serving.encode());
        assert!(matches!(impostor.hears(), Some((_, Frame::Hello(hello))) if hello.serving));
        impostor.says(kind, at(1), payload);
        assert!(impostor.hears().is_none(), "{kind:?}");
        a.has_refused("link-refused", "a frame came that has no place now");
    }
    pair.connected();
    pair.converges();
    audit(&pair.b.door, &told).is_complete();
}

#[test]
fn a_standby_that_is_called_refuses_what_cannot_be_and_follows_its_primary_again() {
    let mut pair = Pair::start(&plan());
    let told = Load::start(&pair.a.door, Shape { most: 100, ..Shape::default() }).run_to_the_end();
    pair.converges();
    // A second life of the primary: its first epoch is over.
    pair.a.kill();
    pair.a.start();
    pair.a.serves();
    pair.connected();
    pair.converges();
    pair.b.status("to have let go what both have", let_go);
    pair.a.kill();
    pair.b.status("to be left", |status| status["peer"]["connected"] == false);
    let mut b = Refusing::new(&pair.b);
    let epoch = b.before["epoch"].as_u64().unwrap();
    let hello = hello_of(&pair.a);
    for (hello, words) in incredible(&hello, Ordinal(1)) {
        is_refused(&mut b, &pair.a, (hello, epoch), words);
    }
    let serving = Hello { serving: true, ..hello };
    is_refused(&mut b, &pair.a, (serving.clone(), epoch + 1), "which only node 1 opens");
    // An epoch that is over: the caller is told of the newer one.
    let mut impostor = Impostor::calls(&pair.a, &pair.b);
    impostor.says(FrameKind::Hello, at(epoch - 2), serving.encode());
    assert!(matches!(impostor.hears(), Some((header, Frame::Hello(_))) if header.epoch == Epoch(epoch)));
    b.has_refused("peer-refused", &format!("epoch {} is over", epoch - 2));
    // The stream of another epoch than was said, and one that leaves something out.
    let mut impostor = Impostor::calls(&pair.a, &pair.b);
    impostor.says(FrameKind::Hello, at(epoch), serving.encode());
    let Some((_, Frame::Hello(answer))) = impostor.hears() else { panic!("it does not follow") };
    impostor.says(FrameKind::Begin, at(epoch + 2), Begin { common: answer.end }.encode());
    assert!(impostor.hears().is_none(), "it follows into another epoch");
    b.has_refused("link-refused", "a frame came that has no place now");
    for (first, epochs, words) in [
        (answer.end.seq.next().next(), [epoch; 2], "does not continue the history"),
        (answer.end.seq.next(), [epoch, epoch + 2], "of an epoch that has no place here"),
        (answer.end.seq.next(), [epoch + 2, epoch], "a frame came that has no place now"),
    ] {
        let mut impostor = Impostor::calls(&pair.a, &pair.b);
        impostor.says(FrameKind::Hello, at(epoch), serving.encode());
        assert!(matches!(impostor.hears(), Some((_, Frame::Hello(_)))));
        impostor.says(FrameKind::Begin, at(epoch), Begin { common: answer.end }.encode());
        assert!(matches!(impostor.hears(), Some((_, Frame::Ack(ack))) if ack.received == answer.end.seq));
        let [of_frame, of_batch] = epochs;
        impostor.says(FrameKind::Batch, at(of_frame), batch(first, of_batch, &answer));
        while let Some((_, frame)) = impostor.hears() {
            assert!(matches!(frame, Frame::Ack(ack) if ack.received == answer.end.seq), "{frame:?}");
        }
        b.has_refused("link-refused", words);
    }
    pair.a.start();
    pair.a.serves();
    pair.connected();
    pair.converges();
    audit(&pair.b.door, &told).is_complete();
}

/// A batch of one update that says it follows what `answer` tells the end of.
fn batch(first: Seq, epoch: u64, answer: &Hello) -> Vec<u8> {
    let mut builder = BatchBuilder::new(first, 0);
    let file = hot_backup::base::FileId(1);
    builder.push(&Entry { kind: EntryKind::Put, file, id: b"x", value: b"never" });
    let sealed = builder.seal(&Seal {
        epoch: Epoch(epoch),
        prev_chain: answer.end.chain,
        durable: answer.end.seq,
        wall_ms: 0,
        pair: answer.pair,
        journal: JournalKind::Replicated,
    });
    sealed.wire().to_vec()
}

#[test]
fn a_standby_that_acknowledges_what_cannot_be_frees_no_journal() {
    let mut pair = Pair::set_up(&plan());
    pair.a.start_alone();
    pair.a.make_orders();
    let load = Load::start(&pair.a.door, Shape::default());
    load.goes_on(3000);
    let told = load.finish();
    let status = pair.a.status("to be at rest", |status| {
        let [appended, durable, applied] =
            ["appended", "durable", "applied"].map(|mark| &status["positions"][mark]);
        appended == durable && appended == applied && status["journal"]["segments"].as_u64() > Some(5)
    });
    assert_eq!(status["journal"]["oldest_seq"], 1);
    let mut a = Refusing::new(&pair.a);
    let epoch = a.before["epoch"].as_u64().unwrap();
    let door = in_place_of(&pair.b);
    let hello = hello_of(&pair.b);
    for (hello, words) in [
        (Hello { version: 9, floor: 9, ..hello.clone() }, "protocol versions 9..=9 there, 1..=2 here"),
        (Hello { role: Role::Primary, serving: true, ..hello.clone() }, "which only node 0 opens"),
    ] {
        let mut impostor = Impostor::is_called(&pair.b, &door);
        assert!(matches!(impostor.hears(), Some((_, Frame::Hello(_)))));
        impostor.says(FrameKind::Hello, at(epoch), hello.encode());
        assert!(impostor.hears().is_none(), "{words}: it goes on");
        a.has_refused("peer-refused", words);
    }
    // What is said after the stream's first batch, `last` being its last entry.
    type Claim = fn(Seq) -> [Seq; 3];
    let claims: [(Claim, &str); 6] = [
        (|_| [Seq(u64::MAX); 3], "18446744073709551615 is over the limit"),
        (|_| [Seq(u64::MAX / 2); 3], "received 9223372036854775807, which cannot be: only"),
        (|last| [Seq(last.0 + 100_000), last, last], "which cannot be: only"),
        (
            |last| [last, Seq(u64::MAX / 2), last],
            "durable or applied 9223372036854775807, which cannot be: received",
        ),
        (|last| [last, Seq(0), last], "durable or applied"),
        (|_| [Seq(0); 3], "received 0, which cannot be: it was"),
    ];
    for (claim, words) in claims {
        let mut impostor = Impostor::is_called(&pair.b, &door);
        assert!(matches!(impostor.hears(), Some((_, Frame::Hello(_)))));
        impostor.says(FrameKind::Hello, at(0), hello.encode());
        assert!(
            matches!(impostor.hears(), Some((_, Frame::Begin(begin))) if begin.common == Position::default())
        );
        impostor.says(FrameKind::Ack, Head { credit: 1 << 20, ..at(epoch) }, Ack::default().encode());
        let Some((_, Frame::Batch(batch))) = impostor.hears() else { panic!("no batch came") };
        let last = batch.header().last_seq();
        let truth = Ack { received: last, durable: Seq(0), applied: Seq(0) };
        impostor.says(FrameKind::Ack, Head { credit: 1 << 20, ..at(epoch) }, truth.encode());
        let [received, durable, applied] = claim(last);
        impostor.says(FrameKind::Ack, at(epoch), Ack { received, durable, applied }.encode());
        while let Some((_, frame)) = impostor.hears() {
            assert!(matches!(frame, Frame::Batch(_)), "{words}: {frame:?}");
        }
        a.has_refused("link-refused", words);
    }
    // The real one finds all it needs.
    drop(door);
    pair.b.start();
    pair.connected();
    pair.converges();
    audit(&pair.b.door, &told).is_complete();
}

#[test]
fn a_copy_of_the_primary_that_calls_does_not_end_the_good_link() {
    let pair = Pair::start(&plan());
    let load = Load::start(&pair.a.door, Shape::default());
    load.goes_on(100);
    let epoch = pair.b.json(&["status"])["epoch"].as_u64().unwrap();
    let lost = |node: &Node| node.incidents().iter().filter(|(kind, _)| kind == "peer-lost").count();
    let before = [lost(&pair.a), lost(&pair.b)];
    let hello = Hello { role: Role::Primary, ..hello_of(&pair.a) };
    for (serving, epoch) in [(false, epoch), (true, epoch), (true, epoch + 2), (false, epoch)] {
        let mut copy = Impostor::calls(&pair.a, &pair.b);
        copy.says(FrameKind::Hello, at(epoch), Hello { serving, ..hello.clone() }.encode());
        match copy.hears() {
            Some((_, Frame::Refuse(refuse))) => {
                assert!(refuse.text.contains("streams from 127."), "{refuse:?}")
            }
            other => panic!("it is heard: {other:?}"),
        }
        load.goes_on(100);
    }
    let told = load.finish();
    assert_eq!([lost(&pair.a), lost(&pair.b)], before);
    pair.b.told("peer-twice", 1);
    pair.converges();
    audit(&pair.b.door, &told).is_complete();
}

//! Compares and healing between two nodes whose frames the test carries.

use super::super::admin::{AdminAnswer, AdminReply, AdminRequest, CompareView};
use super::super::test_kit::{Node, config};
use super::super::{CompareEvent, EngineConfig, Event, LinkEvent, StoreEvent, VolumeEvent};
use crate::base::limits::BLOCK;
use crate::base::{ConnId, FileId, Now, Seq};
use crate::doors::{BlockBackend as _, Payload};
use crate::format::chunk::{Chunk, Content, Want, WantFrom};
use crate::format::compare::{Answer, Digest, Found, Mark, Span};
use crate::format::compared::Compared;
use crate::format::control::Role;
use crate::format::dptr::DptrKind;
use crate::format::frame::FrameKind;
use crate::pair::{Head, LinkSession};
use crate::store::volumes::Check;
use crate::store::{CompareTarget as _, StoreWrite as _};
use bytes::Bytes;

const CALLED: ConnId = ConnId(1 << 63 | 5);

/// A primary, its standby, and what is on the wire between them.
struct Pair {
    a: Node,
    b: Node,
    conn: ConnId,
    /// Bytes of what each sent that were carried.
    carried: u64,
}

fn small(ordinal: u8) -> EngineConfig {
    EngineConfig { compare_range: 4096, compare_rate: 0, segment_bytes: 32 << 20, ..config(ordinal) }
}

impl Pair {
    /// With `app,orders` of so many items, and `app,disk` with some blocks.
    fn with(items: usize) -> Self {
        let a = Node::serving(small(0));
        let b = Node::new(small(1), Role::Standby);
        let mut pair = Self { a, b, conn: ConnId(0), carried: 0 };
        pair.b.input(Event::Tick);
        pair.a.store.replayed();
        pair.b.store.replayed();
        for n in 0..items {
            pair.a.says(&format!("SET app,orders,{n:05} value-of-{n}"));
        }
        pair.connect();
        for n in [0, 3, 7] {
            pair.write(n, 1);
        }
        pair.settle();
        assert_eq!(pair.b.store.digest(true), pair.a.store.digest(true));
        pair
    }

    fn connect(&mut self) {
        self.a.ills.peer_is_there = true;
        self.a.closed.clear();
        for _ in 0..40 {
            self.a.passes(100);
            self.b.passes(100);
            if let Some(conn) = self.a.dialled.take() {
                self.conn = conn;
                break;
            }
        }
        (self.a.sent, self.b.sent) = (Vec::new(), Vec::new());
        self.b.input(Event::Link(LinkEvent::Accepted { conn: CALLED, from: "a".to_owned() }));
        self.a.input(Event::Link(LinkEvent::Connected { conn: self.conn }));
        self.settle();
    }

    /// Carries what was sent one way; whether anything was.
    fn carry(&mut self, to_b: bool) -> bool {
        let (from, to, conn) = match to_b {
            true => (&mut self.a, &mut self.b, CALLED),
            false => (&mut self.b, &mut self.a, self.conn),
        };
        let sent = std::mem::take(&mut from.sent);
        for bytes in sent.iter().flat_map(|(_, parts)| parts) {
            self.carried += bytes.len() as u64;
            to.input(Event::Link(LinkEvent::Bytes { conn, bytes: bytes.clone() }));
        }
        !sent.is_empty()
    }

    /// Carries everything, with time passing, until nothing more is said but heartbeats.
    fn settle(&mut self) {
        for _ in 0..60 {
            while self.carry(true) | self.carry(false) {}
            self.a.passes(20);
            self.b.passes(20);
        }
    }

    /// A block of the volume is filled with a byte, through the journal.
    fn write(&mut self, block: u64, byte: u8) {
        let file = self.file("app,disk");
        let now = Now { ..self.a.now };
        self.a.engine.core.now = now;
        let bytes = vec![byte; BLOCK];
        assert!(self.a.engine.core.write_blocks(file, block * 4096, Payload::Borrowed(&bytes)).is_ok());
        self.a.input(Event::Tick);
    }

    fn file(&self, name: &str) -> FileId {
        let namespace = self.a.store.namespace();
        let found = namespace.files().find(|(_, info)| info.key == name).map(|(file, _)| file);
        found.expect("the file is there")
    }

    fn compare(&mut self, on_a: bool, repair: bool, dry_run: bool) -> CompareView {
        let request = AdminRequest::Compare { name: None, repair, dry_run, rate: Some(0) };
        let node = if on_a { &mut self.a } else { &mut self.b };
        let reply = node.asks(request);
        assert!(matches!(reply, AdminReply::Ok { .. }), "{reply:?}");
        self.settle();
        self.result(on_a)
    }

    fn result(&mut self, on_a: bool) -> CompareView {
        let node = if on_a { &mut self.a } else { &mut self.b };
        match node.asks(AdminRequest::CompareResult) {
            AdminReply::Ok { value: AdminAnswer::Compare(view) } => view,
            other => panic!("{other:?}"),
        }
    }

    /// The standby compares everything each so many days, and this was kept before it started.
    fn compares_each(&mut self, days: u64, kept: Compared) {
        self.b.engine.core.config.compare_every_days = days;
        self.b.input(Event::Compare(CompareEvent::Known { kept: Box::new(kept) }));
        self.settle();
    }

    fn lives_minutes(&mut self, minutes: u64) {
        // The link lives on meanwhile.
        for _ in 0..minutes * 60 {
            for node in [&mut self.a, &mut self.b] {
                node.now.wall_ms += 1000;
                node.passes(1000);
            }
            while self.carry(true) | self.carry(false) {}
        }
    }

    fn hours_to_the_next(&self) -> u64 {
        let due = self.b.engine.core.compare_deadline().expect("it is due");
        due.since(self.b.now.mono) / 3_600_000_000
    }

    /// Something is changed in the standby's store behind its back.
    fn plant(&mut self, name: &str, content: Content) {
        let (file, at) = (self.file(name), self.b.store.shown());
        let chunk = Chunk { id: 0, file, at, until: at, content, ends: false };
        self.b.store.repair(&chunk).unwrap();
    }

    fn plant_item(&mut self, after: &'static str, id: &'static str, value: Option<&'static str>) {
        let b = |text: &'static str| Bytes::from_static(text.as_bytes());
        let items = value.map(|value| (b(id), b(value))).into_iter().collect();
        self.plant("app,orders", Content::Items { after: b(after), through: b(id), items });
    }

    fn plant_block(&mut self, block: u64, byte: u8) {
        let (offset, len) = (block * 4096, 4096);
        let runs = vec![(offset, Bytes::from(vec![byte; BLOCK]))];
        self.plant("app,disk", Content::Blocks { offset, len, runs });
    }

    /// A bit of a block turns on a node, and a scrub finds it.
    fn rots(&mut self, on_a: bool, block: u64) {
        let file = self.file("app,disk");
        let node = if on_a { &mut self.a } else { &mut self.b };
        node.store.checkpoint().unwrap();
        assert!(node.store.rot(file, block * 4096 + 9));
        node.store.check_volume(file, 0, 1 << 20, Check::Scrub).unwrap();
        let places = node.store.take_bad_places();
        assert_eq!(places.len(), 1);
        node.input(Event::Volume(VolumeEvent::Wrong { places }));
    }

    fn block(&self, on_a: bool, block: u64) -> Bytes {
        let node = if on_a { &self.a } else { &self.b };
        assert_eq!(node.store.wrong_blocks(self.file("app,disk"), block * 4096, 4096), [] as [u64; 0]);
        node.store.volume_bytes(self.file("app,disk"), block * 4096, BLOCK)
    }
}

fn listing(query: &str) -> AdminRequest {
    AdminRequest::CompareQuery { query: query.to_owned() }
}

fn words(node: &Node) -> Vec<&'static str> {
    node.told.iter().map(|(word, _)| *word).collect()
}

#[test]
fn an_account_that_is_called_like_a_command_is_compared_and_a_command_is_no_name() {
    let mut pair = Pair::with(1);
    let name = "?x".to_owned();
    let made = pair.a.asks(AdminRequest::AccountCreate { name: name.clone(), flags: "L".to_owned() });
    assert!(matches!(made, AdminReply::Ok { .. }), "{made:?}");
    let (file, kind) = ("?x,orders".to_owned(), DptrKind::Records);
    let create = AdminRequest::FileCreate { name: file, kind, flags: None, bytes: None, ack: None };
    let made = pair.a.asks(create);
    assert!(matches!(made, AdminReply::Ok { .. }), "{made:?}");
    pair.settle();
    let of = |name: String| AdminRequest::Compare {
        name: Some(name),
        repair: false,
        dry_run: false,
        rate: Some(0),
    };
    let asked = pair.a.asks(of(name));
    assert!(matches!(asked, AdminReply::Ok { .. }), "{asked:?}");
    pair.settle();
    let view = pair.result(true);
    assert!(view.whole && view.what.contains("?x") && view.differing == 0, "{view:?}");
    let refused = pair.a.asks(of(",KEYS app,orders,*".to_owned()));
    assert!(
        matches!(&refused, AdminReply::No { message, .. } if message.contains("no name of an account")),
        "{refused:?}"
    );
}

#[test]
fn two_equal_nodes_are_found_equal_whichever_is_asked_and_what_was_found_is_kept_on_both() {
    let mut pair = Pair::with(800);
    for on_a in [false, true] {
        pair.carried = 0;
        let view = pair.compare(on_a, false, false);
        assert!(view.whole && !view.running, "{view:?}");
        assert_eq!((view.differing, view.passed, view.unread), (0, 0, 0));
        // The definitions of two files, the items, and three blocks.
        assert_eq!((view.items, view.what.as_str()), (2 + 800 + 3, "everything"));
        // A hole of the volume is one range.
        assert!((10..100).contains(&view.ranges) && view.from > 0 && view.from <= view.to, "{view:?}");
        assert_eq!(pair.a.kept, pair.b.kept);
        assert_eq!(pair.b.kept.last.items, 805);
        assert!(words(&pair.b).contains(&"nodes-agree"));
        assert_eq!(pair.b.status().compare.items, 805);
        assert_eq!(pair.a.status().compare.digest, view.digest);
    }
}

#[test]
fn nobody_hears_of_the_end_of_a_compare_before_it_is_kept() {
    for on_a in [false, true] {
        let mut pair = Pair::with(1);
        let node = if on_a { &mut pair.a } else { &mut pair.b };
        node.ills.keeping_hangs = true;
        let view = pair.compare(on_a, false, false);
        assert!(view.running, "on the primary: {on_a}: {view:?}");
        let node = if on_a { &mut pair.a } else { &mut pair.b };
        for _ in 0..node.engine.core.compares.keeping {
            node.input(Event::Compare(CompareEvent::Kept));
        }
        let view = pair.result(on_a);
        assert!(!view.running && view.whole, "on the primary: {on_a}: {view:?}");
    }
}

#[test]
fn each_difference_is_named_to_the_item_and_the_block_and_a_repair_makes_them_equal() {
    let mut pair = Pair::with(300);
    pair.plant_item("00006", "00007", Some("other"));
    pair.plant_item("00149", "00150", None);
    pair.plant_item("00299", "zz", Some("more"));
    pair.plant_block(3, 9);
    pair.plant_block(5, 9);
    let wanted = [
        ("app,orders", "00007", "changed"),
        ("app,orders", "00150", "primary-only"),
        ("app,orders", "zz", "standby-only"),
        ("app,disk", "bytes 12288 to 16383", "changed"),
        ("app,disk", "bytes 20480 to 24575", "standby-only"),
    ];
    for (on_a, repair, dry_run) in [(false, false, false), (true, true, true), (true, true, false)] {
        let view = pair.compare(on_a, repair, dry_run);
        let named: Vec<_> = view
            .differences
            .iter()
            .map(|found| (found.file.as_str(), found.part.as_str(), found.how.as_str()))
            .collect();
        assert_eq!(named, wanted, "repair {repair} dry run {dry_run}");
        assert_eq!((view.differing, view.passed, view.unread, view.whole), (5, 0, 0, true));
        let repaired = repair && !dry_run;
        assert_eq!(view.repaired, if repaired { 5 } else { 0 });
        assert!(view.differences.iter().all(|found| found.repaired == repaired));
        assert!(words(&pair.b).contains(&"nodes-differ"));
        assert_eq!(words(&pair.b).contains(&"repaired"), repaired);
    }
    assert_eq!(pair.b.store.digest(true), pair.a.store.digest(true));
    assert_eq!(pair.block(false, 3), pair.block(true, 3));
    assert_eq!(pair.block(false, 5), vec![0; BLOCK]);
    let view = pair.compare(false, false, false);
    assert_eq!((view.differing, view.items, view.whole), (0, 305, true));
}

#[test]
fn a_range_of_many_differences_is_repaired_as_a_whole() {
    let mut pair = Pair::with(400);
    for n in 0..200 {
        let (after, id) = (format!("{:05}", 2 * n), format!("{:05}", 2 * n + 1));
        let content = Content::Items {
            after: after.into(),
            through: id.clone().into(),
            items: vec![(id.into(), Bytes::from("x"))],
        };
        pair.plant("app,orders", content);
    }
    let view = pair.compare(false, true, false);
    assert_eq!((view.differing, view.repaired, view.whole), (200, 200, true), "{view:?}");
    assert_eq!(pair.b.store.digest(true), pair.a.store.digest(true));
    assert!(view.differences.iter().all(|found| found.repaired));
}

#[test]
fn updates_that_come_while_ranges_are_looked_at_make_no_difference() {
    let mut pair = Pair::with(200);
    pair.b.asks(AdminRequest::Compare { name: None, repair: true, dry_run: false, rate: Some(0) });
    for n in 0..3000 {
        pair.a.says(&format!("SET app,orders,{:05} again-{n}", n * 7 % 250));
        if n % 5 == 0 {
            pair.write(n % 256, 3);
        }
        // What is sent one way arrives in turn, not all at once.
        if n % 3 == 0 {
            pair.carry(true)
        } else {
            pair.carry(false)
        };
        if n % 11 == 0 {
            pair.a.passes(20);
            pair.b.passes(20);
        }
    }
    pair.settle();
    let view = pair.result(false);
    assert!(view.whole, "{view:?}");
    assert_eq!((view.differing, view.passed, view.unread, view.repaired), (0, 0, 0, 0), "{view:?}");
    assert!(view.to > view.from, "it went on while entries came: {view:?}");
    assert_eq!(pair.b.store.digest(true), pair.a.store.digest(true));
}

#[test]
fn what_was_written_anew_before_it_could_be_named_is_told_as_a_range() {
    let mut pair = Pair::with(1);
    pair.plant_item("", "00000", Some("other"));
    pair.b.asks(AdminRequest::Compare { name: None, repair: false, dry_run: false, rate: Some(0) });
    let mut written = false;
    for _ in 0..200 {
        pair.carry(true);
        let differs = pair
            .b
            .engine
            .core
            .compares
            .flights
            .iter()
            .any(|flight| matches!(flight.purpose, super::compare::Purpose::Closer(..)));
        if differs && !written {
            written = true;
            pair.a.says("SET app,orders,00000 new");
        }
        pair.carry(false);
        pair.a.passes(20);
        pair.b.passes(20);
    }
    let view = pair.result(false);
    assert_eq!((view.whole, view.differing, view.passed), (true, 0, 1), "{view:?}");
    assert_eq!(view.differences[0].how, "had-differed");
}

#[test]
fn one_compare_at_a_time_and_only_of_what_there_is_and_only_between_two_that_can() {
    let mut pair = Pair::with(800);
    let ask = |name: Option<&str>| AdminRequest::Compare {
        name: name.map(str::to_owned),
        repair: false,
        dry_run: false,
        rate: Some(1),
    };
    let no = |reply: AdminReply| match reply {
        AdminReply::No { message, .. } => message,
        other => panic!("{other:?}"),
    };
    assert!(no(pair.b.asks(ask(Some("nothing")))).contains("there is no account or file nothing"));
    assert!(matches!(pair.b.asks(ask(Some("app"))), AdminReply::Ok { .. }));
    assert!(no(pair.b.asks(ask(None))).contains("one is under way"));
    pair.settle();
    assert!(matches!(pair.b.asks(AdminRequest::CompareStop), AdminReply::Ok { .. }));
    pair.settle();
    let view = pair.result(false);
    assert_eq!((view.whole, view.why.as_str()), (false, "it was stopped"));
    assert!(no(pair.b.asks(AdminRequest::CompareStop)).contains("none is under way"));
    assert!(no(pair.a.asks(ask(Some("nothing")))).contains("there is no account or file nothing"));
    // A word of the primary that the standby cannot follow is told there.
    pair.b.asks(ask(None));
    assert!(matches!(pair.a.asks(ask(None)), AdminReply::Ok { .. }));
    while pair.carry(true) | pair.carry(false) {}
    let view = pair.result(true);
    assert!(!view.running && !view.whole && view.why.contains("one is under way"), "{view:?}");
    assert!(no(pair.b.asks(ask(None))).contains("one is under way"));
    pair.b.asks(AdminRequest::CompareStop);
    pair.b.engine.core.peer.forget_features();
    assert!(no(pair.b.asks(ask(None))).contains("older"));
}

#[test]
fn a_compare_whose_link_is_cut_ends_and_says_so_and_the_next_one_is_whole() {
    let mut pair = Pair::with(2000);
    pair.a.asks(AdminRequest::Compare { name: None, repair: false, dry_run: false, rate: Some(0) });
    for _ in 0..3 {
        pair.carry(true);
        pair.carry(false);
    }
    assert!(pair.b.engine.core.compares.run.is_some());
    pair.b.input(Event::Link(LinkEvent::Closed { conn: CALLED, why: "cut".to_owned() }));
    let conn = pair.conn;
    pair.a.input(Event::Link(LinkEvent::Closed { conn, why: "cut".to_owned() }));
    for on_a in [false, true] {
        let view = pair.result(on_a);
        assert!(!view.running && !view.whole && view.why.contains("cut off"), "{view:?}");
    }
    pair.connect();
    for on_a in [true, false] {
        let view = pair.compare(on_a, false, false);
        assert!(view.whole && view.items == 2005, "{view:?}");
    }
}

/// Whether the standby ends the connection when the primary says this in the middle of a compare.
fn lies(say: impl Fn(&mut Pair) -> (FrameKind, Vec<u8>)) -> String {
    let mut pair = Pair::with(20);
    pair.b.asks(AdminRequest::Compare { name: None, repair: true, dry_run: false, rate: Some(0) });
    let (kind, payload) = say(&mut pair);
    // The primary's next frame is another one.
    let session = &mut pair.a.engine.core.link.outbound.as_mut().unwrap().session;
    let (now, epoch) = (pair.a.now, pair.a.control.epoch);
    let head = Head { epoch, durable: Seq(1), credit: 0 };
    LinkSession::send(session, now, kind, head, payload.into());
    let parts = session.take_out();
    for bytes in parts {
        pair.b.input(Event::Link(LinkEvent::Bytes { conn: CALLED, bytes }));
    }
    assert!(pair.b.closed.contains(&CALLED), "it is not cut off");
    let told = pair.b.told.iter().find(|(word, _)| *word == "link-refused");
    told.expect("it is told").1.clone()
}

#[test]
fn a_primary_that_says_what_cannot_be_is_cut_off_by_name() {
    let first = |pair: &Pair| pair.b.engine.core.compares.flights[0].clone();
    let end = |pair: &Pair| pair.b.engine.core.replicated().sealed().seq;
    let mark = |id, at, span| (FrameKind::Mark, Mark { id, at, span }.encode());
    let told = lies(|pair| mark(first(pair).id + 7, end(pair), first(pair).span));
    assert!(told.contains("nobody asked for"), "{told}");
    let told = lies(|pair| mark(first(pair).id, Seq(end(pair).0 - 1), first(pair).span));
    assert!(told.contains("belongs behind entry"), "{told}");
    let told = lies(|pair| {
        let span = Span::Items { after: Bytes::from("k"), through: Bytes::new() };
        mark(first(pair).id, end(pair), span)
    });
    assert!(told.contains("not of what was asked for"), "{told}");
    let answer = |pair: &Pair, id, found| (FrameKind::Answer, Answer { id, at: end(pair), found }.encode());
    let told = lies(|pair| answer(pair, first(pair).id + 7, Found::Gone));
    assert!(told.contains("nobody asked"), "{told}");
    // Before its mark, of another kind, or from beyond the span.
    let digest = Digest { reached: None, count: 0, bytes: 0, hash: [0; 32] };
    for found in [Found::Digest(digest), Found::Over, Found::Unread] {
        let told = lies(|pair| answer(pair, first(pair).id, found.clone()));
        assert!(told.contains("not to what was asked"), "{told}");
    }
    let told = lies(|pair| {
        pair.b.engine.core.compares.flights[0].at = Some(end(pair));
        let content = Content::Items { after: Bytes::new(), through: Bytes::new(), items: Vec::new() };
        let chunk = Chunk { id: 1, file: FileId(4), at: end(pair), until: end(pair), content, ends: true };
        answer(pair, first(pair).id, Found::Content(chunk))
    });
    assert!(told.contains("not to what was asked"), "{told}");
}

#[test]
fn a_standby_that_asks_for_more_looks_than_it_may_is_cut_off() {
    let mut pair = Pair::with(1);
    for n in 0..20 {
        let span = Span::Items { after: Bytes::new(), through: Bytes::new() };
        let ask = crate::format::compare::Ask {
            id: n,
            at: Seq(0),
            file: FileId(4),
            what: crate::format::compare::What::Digest,
            most: 1,
            span,
        };
        let payload = ask.encode();
        pair.b.engine.core.say(FrameKind::Ask, payload);
    }
    // The primary's store never comes to look.
    pair.a.ills.store_waits = true;
    pair.a.says("SET app,orders,x y");
    let before = pair.a.told.len();
    pair.b.input(Event::Tick);
    let all: Vec<Bytes> = std::mem::take(&mut pair.b.sent).into_iter().flat_map(|(_, parts)| parts).collect();
    let (conn, bytes) = (pair.conn, Bytes::from(all.concat()));
    pair.a.input(Event::Link(LinkEvent::Bytes { conn, bytes }));
    let told = pair.a.told[before..].iter().find(|(word, _)| *word == "link-refused");
    assert!(told.is_some_and(|(_, text)| text.contains("more looks at once")), "{:?}", pair.a.told);
}

#[test]
fn what_is_not_replicated_is_given_to_no_peer_whatever_it_wants() {
    let mut pair = Pair::with(1);
    let (set, clear) = (String::new(), "L".to_owned());
    let names = vec!["app,orders".to_owned()];
    let file = pair.file("app,orders");
    let want = |pair: &mut Pair| {
        let from = WantFrom::Items(Bytes::new());
        let payload = Want { id: 1, file, from, most: 1 << 20, unless: None }.encode();
        pair.b.engine.core.say(FrameKind::Want, payload);
        pair.b.input(Event::Tick);
        pair.carry(false);
        for _ in 0..10 {
            pair.a.passes(20);
        }
        let sent: Vec<Bytes> =
            std::mem::take(&mut pair.a.sent).into_iter().flat_map(|(_, all)| all).collect();
        sent.concat().windows(10).any(|some| some == b"value-of-0")
    };
    assert!(want(&mut pair), "a file that is replicated is given");
    let mut pair = Pair::with(1);
    pair.a.asks(AdminRequest::SetDptr { set, clear, accounts: false, names, ack: None });
    pair.settle();
    assert!(!want(&mut pair), "a file of this node alone is given");
}

#[test]
fn blocks_beyond_the_end_of_a_volume_fit_nowhere() {
    let pair = Pair::with(1);
    let (file, namespace) = (pair.file("app,disk"), pair.a.store.namespace());
    let end = namespace.file(file).unwrap().dptr.blocks * 4096;
    let chunk = |offset, len| {
        let content = Content::Blocks { offset, len, runs: Vec::new() };
        Chunk { id: 1, file, at: Seq(1), until: Seq(1), content, ends: true }
    };
    let fits = |offset, len| crate::engine::sync::taker::fits(&chunk(offset, len), &namespace);
    assert!(fits(0, end) && fits(end - 4096, 4096) && fits(end, 0));
    assert!(!fits(0, end + 4096) && !fits(end, 4096) && !fits(u64::MAX - 4095, 8192));
}

#[test]
fn rot_of_a_volume_on_either_node_comes_again_from_the_other() {
    for on_a in [false, true] {
        let mut pair = Pair::with(1);
        pair.rots(on_a, 3);
        pair.settle();
        assert_eq!(pair.block(on_a, 3), vec![1; BLOCK], "on the primary: {on_a}");
        let node = if on_a { &pair.a } else { &pair.b };
        let all = words(node);
        for word in ["volume-damaged", "healed", "volume-whole"] {
            assert!(all.contains(&word), "{word} of {all:?}");
        }
        let view = pair.compare(false, false, false);
        assert_eq!((view.differing, view.unread, view.whole), (0, 0, true), "{view:?}");
    }
}

#[test]
fn what_users_write_while_a_primary_waits_for_a_block_is_never_undone() {
    let mut pair = Pair::with(1);
    pair.rots(true, 3);
    // The ask is on its way; a part of the block is written before the answer comes.
    let file = pair.file("app,disk");
    let bytes = vec![7; 100];
    assert!(pair.a.engine.core.write_blocks(file, 3 * 4096 + 50, Payload::Borrowed(&bytes)).is_ok());
    pair.a.input(Event::Tick);
    pair.settle();
    let mut wanted = vec![1; BLOCK];
    wanted[50..150].fill(7);
    assert_eq!(pair.block(true, 3), wanted);
    assert_eq!(pair.block(false, 3), wanted);
    assert!(words(&pair.a).contains(&"healed"));
}

#[test]
fn a_block_that_is_rotten_on_both_nodes_is_copied_nowhere_and_said_so() {
    for on_a in [false, true] {
        let mut pair = Pair::with(1);
        let file = pair.file("app,disk");
        let other = if on_a { &mut pair.b } else { &mut pair.a };
        other.store.checkpoint().unwrap();
        assert!(other.store.rot(file, 3 * 4096 + 1));
        pair.rots(on_a, 3);
        pair.settle();
        let node = if on_a { &pair.a } else { &pair.b };
        assert_eq!(node.store.wrong_blocks(file, 3 * 4096, 4096), [3]);
        assert!(words(node).contains(&"both-damaged"), "{:?}", words(node));
        assert!(!words(node).contains(&"healed"));
    }
}

/// Items of `app,orders` behind an id rot on a node, and a read finds it; returns what the client was told.
fn items_rot(pair: &mut Pair, on_a: bool, after: &'static str, through: &'static str) -> Vec<String> {
    let file = pair.file("app,orders");
    let node = if on_a { &mut pair.a } else { &mut pair.b };
    node.store.checkpoint().unwrap();
    let b = |text: &'static str| Bytes::from_static(text.as_bytes());
    assert!(node.store.rot_items(file, b(after), b(through)));
    node.store.tell_rotten_again();
    let items = node.store.take_rotten_items();
    assert_eq!(items.len(), 1);
    node.input(Event::Store(StoreEvent::Rotten { items }));
    node.told.iter().map(|(_, text)| text.clone()).collect()
}

#[test]
fn rot_of_items_on_either_node_comes_again_from_the_other_part_by_part() {
    for on_a in [false, true] {
        for (after, through) in [("00100", "00700"), ("", ""), ("00700", ""), ("", "00003")] {
            let mut pair = Pair::with(800);
            let told = items_rot(&mut pair, on_a, after, through);
            assert!(told.last().is_some_and(|text| text.contains("app,orders")), "{told:?}");
            pair.settle();
            let node = if on_a { &pair.a } else { &pair.b };
            assert!(!node.store.has_rotten_items(), "on the primary: {on_a}, {after} to {through}");
            let all = words(node);
            assert!(all.contains(&"item-damaged") && all.contains(&"healed"), "{all:?}");
            assert_eq!(pair.b.store.digest(true), pair.a.store.digest(true));
            let view = pair.compare(false, false, false);
            assert_eq!((view.differing, view.unread, view.whole), (0, 0, true), "{view:?}");
        }
    }
}

#[test]
fn what_users_write_while_a_primary_waits_for_items_is_never_undone() {
    for (id, value) in [("00003", "newer"), ("000031", "between"), ("9", "last")] {
        let mut pair = Pair::with(30);
        let _ = items_rot(&mut pair, true, "", "");
        // The ask is on its way.
        pair.a.says(&format!("SET app,orders,{id} {value}"));
        pair.a.says("DEL app,orders,00007");
        pair.settle();
        assert!(!pair.a.store.has_rotten_items(), "{id}");
        assert_eq!(pair.b.store.digest(true), pair.a.store.digest(true), "{id}");
        let file = pair.file("app,orders");
        let items = pair.a.store.items(file);
        assert!(items.iter().any(|(at, text)| at == id && text == value), "{id}: {items:?}");
        assert!(words(&pair.a).contains(&"healed"));
    }
}

#[test]
fn items_that_are_rotten_on_both_nodes_are_copied_nowhere_and_said_so() {
    for on_a in [false, true] {
        let mut pair = Pair::with(30);
        let file = pair.file("app,orders");
        let other = if on_a { &mut pair.b } else { &mut pair.a };
        other.store.checkpoint().unwrap();
        assert!(other.store.rot_items(file, Bytes::from_static(b"00009"), Bytes::from_static(b"00011")));
        let _ = items_rot(&mut pair, on_a, "00008", "00010");
        pair.settle();
        let node = if on_a { &pair.a } else { &pair.b };
        assert!(node.store.has_rotten_items());
        assert!(words(node).contains(&"both-damaged"), "{:?}", words(node));
        assert!(!words(node).contains(&"healed"));
    }
}

#[test]
fn a_scheduled_compare_begins_on_the_standby_and_not_before_its_day() {
    let mut pair = Pair::with(5);
    pair.compares_each(2, Compared::default());
    assert_eq!(pair.b.kept.last.began_ms, 0, "not at once");
    pair.lives_minutes(11);
    assert!(pair.b.kept.last.whole, "{:?}", pair.b.kept);
    assert_eq!(pair.b.kept.last.items, 2 + 5 + 3);
    let first = pair.b.kept.clone();
    pair.lives_minutes(60);
    assert_eq!(pair.b.kept, first, "the next one is due in two days");
    let hours = pair.hours_to_the_next();
    assert!((40..48).contains(&hours), "{hours}");
    assert_eq!(pair.a.kept, first);
}

#[test]
fn a_listing_and_a_compare_of_one_file_move_no_schedule_and_a_listing_leaves_certificate_and_status() {
    let mut pair = Pair::with(5);
    pair.compares_each(2, Compared::default());
    pair.lives_minutes(11);
    let first = pair.b.kept.clone();
    assert!(first.last.is_of_everything() && first.everything_ms == first.last.ended_ms);
    let status = |pair: &mut Pair| [pair.a.status().compare, pair.b.status().compare];
    let told = status(&mut pair);
    for on_a in [true, false] {
        let node = if on_a { &mut pair.a } else { &mut pair.b };
        node.asks(listing("KEYS app,orders,*"));
        let meanwhile = status(&mut pair);
        assert!(meanwhile.iter().all(|view| view.what == "everything" && !view.running), "{meanwhile:?}");
        pair.settle();
        assert_eq!(pair.result(on_a).what, "the listing KEYS app,orders,*");
        let now = status(&mut pair);
        let same = now.iter().zip(&told).all(|(now, then)| {
            (&now.digest, now.ended_ms, now.items, now.whole)
                == (&then.digest, then.ended_ms, then.items, true)
        });
        assert!(same, "{now:?}");
        assert_eq!((&pair.a.kept, &pair.b.kept), (&first, &first));
    }
    // One of a file is a compare, and tells nothing of everything.
    let request =
        AdminRequest::Compare { name: Some("app,orders".into()), repair: false, dry_run: false, rate: None };
    pair.a.asks(request);
    pair.settle();
    for node in [&pair.a, &pair.b] {
        assert_eq!((node.kept.last.what.as_str(), node.kept.last.items), ("app,orders", 5));
        assert_eq!(node.kept.everything_ms, first.everything_ms);
    }
    pair.lives_minutes(60);
    assert_eq!(pair.b.kept.last.what, "app,orders", "none began by itself");
    assert!((40..48).contains(&pair.hours_to_the_next()));
    // Nor does a restart make one due.
    let kept = pair.b.kept.clone();
    pair.b.engine.core.compares.kept = Compared::default();
    pair.b.engine.core.compares.not_before = crate::base::Mono(0);
    pair.compares_each(2, kept);
    assert!((40..48).contains(&pair.hours_to_the_next()));
    // What was stopped was not everything either: that is still due at its time.
    let request =
        AdminRequest::Compare { name: Some("app".into()), repair: false, dry_run: false, rate: Some(1) };
    pair.b.asks(request);
    pair.b.asks(AdminRequest::CompareStop);
    pair.settle();
    assert_eq!(pair.b.kept.last.why, "it was stopped");
    assert!((40..48).contains(&pair.hours_to_the_next()));
}

#[test]
fn a_compare_that_was_refused_over_there_leaves_the_status_and_its_asker_hears_why() {
    let mut pair = Pair::with(5);
    pair.compare(true, false, false);
    let before = pair.a.status().compare;
    assert!(before.whole);
    let of = |name: Option<&str>| {
        let name = name.map(str::to_owned);
        AdminRequest::Compare { name, repair: false, dry_run: false, rate: Some(1) }
    };
    pair.b.asks(of(Some("app")));
    pair.a.asks(of(None));
    while pair.carry(true) | pair.carry(false) {}
    let result = pair.result(true);
    assert_eq!((result.running, result.why.as_str()), (false, "one is under way"));
    let now = pair.a.status().compare;
    assert_eq!((&now.what, now.whole, now.ended_ms), (&before.what, true, before.ended_ms));
    pair.settle();
    let now = pair.a.status().compare;
    assert_eq!((now.what.as_str(), now.running), ("app", true), "what the standby does is told");
}

#[test]
fn a_listing_is_made_at_one_entry_on_both_nodes_and_what_differs_is_named_line_by_line() {
    let mut pair = Pair::with(1);
    for on_a in [true, false] {
        let node = if on_a { &mut pair.a } else { &mut pair.b };
        assert!(matches!(node.asks(listing("KEYS app,orders,*")), AdminReply::Ok { .. }));
        // What comes in between is on neither.
        pair.a.says("SET app,orders,between 1");
        pair.settle();
        let view = pair.result(on_a);
        assert!(view.whole && view.items > 0 && view.ranges == 1, "{view:?}");
        assert_eq!((view.differing, view.from), (0, view.to), "{view:?}");
        assert_eq!(view.what, "the listing KEYS app,orders,*");
    }
    pair.plant_item("", "00000", None);
    pair.plant_item("zz", "zzz", Some("more"));
    pair.a.asks(listing("KEYS app,orders,*"));
    pair.settle();
    let view = pair.result(true);
    let named: Vec<_> = view.differences.iter().map(|d| (d.part.as_str(), d.how.as_str())).collect();
    assert_eq!(named, [("app,orders,00000", "primary-only"), ("app,orders,zzz", "standby-only")], "{view:?}");
    pair.b.asks(listing("NOSUCH x"));
    pair.settle();
    let view = pair.result(false);
    assert!(!view.whole && view.why.contains("could not carry out the command"), "{view:?}");
    for bad in [String::new(), "x".repeat(300), "GET\nx".to_owned()] {
        assert!(matches!(pair.a.asks(listing(&bad)), AdminReply::No { .. }), "{bad:?}");
    }
}

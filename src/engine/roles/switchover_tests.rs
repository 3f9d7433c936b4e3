//! A switchover step by step, between two nodes that are wired together: each refusal, and each word that is lost.

use super::*;
use crate::base::Fault;
use crate::base::limits::HANDOVER_LEVEL_MS;
use crate::doors::BlockBackend as _;
use crate::engine::admin::{AdminAnswer, AdminRequest};
use crate::engine::test_kit::{Node, config};
use crate::engine::test_pair::Wired;
use crate::engine::{EngineConfig, Event};
use crate::format::control::{Control, PeerRecord, Role};
use crate::format::frame::{FEATURE_COPY, Hello};

const SWITCH: AdminRequest = AdminRequest::Switchover { dry_run: false };
const TRY: AdminRequest = AdminRequest::Switchover { dry_run: true };

impl Wired {
    /// An operator asks node `n`, and what is said goes back and forth.
    fn asks(&mut self, n: usize, request: AdminRequest) {
        self.nodes[n].answered.clear();
        self.nodes[n].input(Event::Admin { token: 9, request });
        self.talk();
    }

    #[track_caller]
    fn answer(&mut self, n: usize) -> AdminReply {
        self.nodes[n].answered.pop().expect("an answer")
    }

    #[track_caller]
    fn view(&mut self, n: usize) -> SwitchoverView {
        match self.answer(n) {
            AdminReply::Ok { value: AdminAnswer::Switchover(view) } => *view,
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn refusal(&mut self, n: usize) -> (String, String) {
        match self.answer(n) {
            AdminReply::No { message, next } => (message, next),
            other => panic!("{other:?}"),
        }
    }

    fn roles_on_disk(&self) -> [Role; 2] {
        self.nodes.each_ref().map(|node| node.control.role)
    }
}

#[test]
fn the_roles_change_at_once_from_either_node_and_back_and_nothing_is_lost() {
    for asked in [0, 1] {
        let mut wired = Wired::level();
        wired.asks(asked, SWITCH);
        let view = wired.view(asked);
        assert_eq!((view.from.as_str(), view.to.as_str(), view.possible), ("a", "b", true));
        assert_eq!(view.peer_pause_seconds.is_some(), asked == 0);
        assert_eq!(wired.stages(), [Stage::Standby, Stage::Serving]);
        assert_eq!(wired.roles_on_disk(), [Role::Standby, Role::Primary]);
        // Without a moment's pause the old primary follows, and neither knows of anything bad.
        assert!(wired.b().engine.core.link.is_streaming());
        for n in 0..2 {
            assert_eq!(wired.nodes[n].times("switchover"), 1);
            for bad in ["fenced", "diverged", "peer-lost", "handover-unanswered"] {
                assert_eq!(wired.nodes[n].times(bad), 0, "node {n}: {bad}");
            }
            assert!(!wired.nodes[n].control.peer.promised);
        }
        assert!(wired.a().set("2").starts_with("-READONLY"));
        assert_eq!(wired.a().says("GET app,orders,1"), "$1\r\nx\r\n");
        assert!(wired.b().status().switchover.is_some());
        wired.b().opens(crate::engine::test_kit::CLIENT);
        assert_eq!(wired.b().set("2"), "+OK\r\n");
        wired.lives(100);
        wired.asks(asked, SWITCH);
        assert_eq!(wired.stages(), [Stage::Serving, Stage::Standby]);
        assert_eq!(wired.a().set("3"), "+OK\r\n");
    }
}

#[test]
fn what_a_primary_promises_is_on_disk_before_its_doors_close() {
    let mut wired = Wired::level();
    wired.a().ills.control = Some(Fault::Errno(5));
    wired.asks(0, SWITCH);
    assert!(!wired.a().engine.core.roles.holds_doors());
    assert_eq!(wired.a().set("2"), "+OK\r\n");
    wired.lives(PROMISE_MS);
    let (message, _) = wired.refusal(0);
    assert!(message.contains("the control file could not be written in time"), "{message}");
    assert_eq!(wired.stages(), [Stage::Serving, Stage::Standby]);
}

/// What stands in the way, and what is told.
#[test]
fn each_condition_that_does_not_hold_refuses_it_with_its_own_words_and_next_step() {
    type Spoil = fn(&mut Wired);
    let cases: [(Spoil, &str, &str); 6] = [
        (
            |wired| drop(wired.a().asks(AdminRequest::Logging { mode: LoggingMode::Paused })),
            "logging is paused",
            "log resume",
        ),
        (
            |wired| {
                wired.a().ills.peer_is_there = false;
                wired.cut();
            },
            "b is not connected (it was cut)",
            "look at the peer",
        ),
        (
            |wired| {
                let mut hello = Hello::decode(&wired.b().engine.core.hello()).unwrap();
                hello.features = FEATURE_COPY;
                wired.a().engine.core.peer.introduced(&hello);
            },
            "the program of b is older and knows no switchover",
            "install this version",
        ),
        (
            |wired| {
                let mut hello = Hello::decode(&wired.b().engine.core.hello()).unwrap();
                hello.role = Role::Incomplete;
                wired.a().engine.core.peer.introduced(&hello);
            },
            "b is given a copy that is not whole yet",
            "wait until it is a standby",
        ),
        (
            |wired| {
                wired.deaf[1] = true;
                wired.a().set("late");
                wired.a().passes(1500);
            },
            "b lacks 1 entry",
            "wait until it has caught up",
        ),
        (
            |wired| {
                wired.a().ills.control = Some(Fault::Errno(5));
                wired.a().engine.core.write_control();
                wired.a().passes(1);
            },
            "the control file cannot be written",
            "let the node write",
        ),
    ];
    for (spoil, expected, step) in cases {
        let mut wired = Wired::level();
        spoil(&mut wired);
        wired.nodes[0].answered.clear();
        wired.nodes[0].input(Event::Admin { token: 9, request: SWITCH });
        let (message, next) = wired.refusal(0);
        assert!(
            message.starts_with("no switchover: ") && message.contains(expected),
            "{expected}: {message}"
        );
        assert!(next.contains(step), "{expected}: {next}");
        wired.nodes[0].input(Event::Admin { token: 9, request: TRY });
        let view = wired.view(0);
        let told = view.conditions.iter().find(|condition| !condition.holds).expect("one does not hold");
        assert!(!view.possible && told.text.contains(expected), "{view:?}");
        assert_eq!(wired.stages()[0], Stage::Serving);
        assert!(!wired.a().engine.core.roles.holds_doors());
    }
}

#[test]
fn a_standby_asks_its_primary_and_tells_what_that_says_or_that_it_cannot_ask() {
    let mut wired = Wired::level();
    wired.asks(1, TRY);
    let view = wired.view(1);
    assert!(view.possible && view.dry_run && view.from == "a" && view.to == "b", "{view:?}");
    wired.a().asks(AdminRequest::Logging { mode: LoggingMode::Paused });
    wired.asks(1, SWITCH);
    assert_eq!(wired.refusal(1).0, "no switchover: logging is paused");
    wired.deaf[0] = true;
    wired.asks(1, SWITCH);
    wired.asks(1, SWITCH);
    assert!(wired.refusal(1).0.contains("another one was asked for here"));
    wired.cut();
    let AdminReply::Error { message, .. } = wired.answer(1) else { panic!("it is not known") };
    assert!(message.starts_with("the connection to the primary ended"), "{message}");
    wired.asks(1, SWITCH);
    assert!(wired.refusal(1).0.contains("b follows no primary now"));
}

#[test]
fn updates_wait_while_the_standby_gets_level_and_go_on_as_if_nothing_was_if_it_does_not() {
    let mut wired = Wired::level();
    wired.b().ills.disk_hangs = true;
    assert_eq!(wired.a().set("2"), "+OK\r\n");
    wired.talk();
    wired.asks(0, SWITCH);
    assert!(wired.a().engine.core.roles.holds_doors() && wired.a().engine.core.is_held());
    assert_eq!(wired.a().set("3"), "", "it waits");
    wired.lives(HANDOVER_LEVEL_MS - 20);
    assert_eq!((wired.stages(), wired.a().said.as_str()), ([Stage::Serving, Stage::Standby], ""));
    wired.lives(40);
    assert_eq!(wired.a().said, "+OK\r\n");
    let (message, _) = wired.refusal(0);
    assert!(message.contains("b did not get level within 500 ms: it lacked"), "{message}");
    assert_eq!(wired.a().times("switchover-given-up"), 1);
    assert!(!wired.a().engine.core.roles.holds_doors() && !wired.a().control.peer.promised);
    // The same, and it gets level in time.
    wired.b().goes_on();
    wired.lives(100);
    wired.b().ills.disk_hangs = true;
    assert_eq!(wired.a().set("4"), "+OK\r\n");
    wired.talk();
    wired.asks(0, SWITCH);
    assert_eq!(wired.a().set("5"), "");
    wired.b().goes_on();
    wired.lives(100);
    assert_eq!(wired.stages(), [Stage::Standby, Stage::Serving]);
    assert!(wired.a().said.starts_with("-READONLY"), "{}", wired.a().said);
}

/// The old primary gave its role away, and nothing comes back.
fn given(wired: &mut Wired, deaf: usize) {
    wired.deaf[deaf] = true;
    wired.asks(0, SWITCH);
    assert_eq!(wired.stages()[0], Stage::HandingOver);
    assert_eq!(wired.a().set("held"), "", "it waits");
}

#[test]
fn a_role_that_was_given_away_and_did_not_arrive_comes_back_by_asking() {
    let mut wired = Wired::level();
    given(&mut wired, 1);
    assert_eq!(wired.roles_on_disk(), [Role::Primary, Role::Standby]);
    assert!(wired.a().control.peer.promised, "a restart knows it");
    wired.deaf = [false; 2];
    wired.cut();
    let AdminReply::Error { message, .. } = wired.answer(0) else { panic!("it is not known") };
    assert!(message.contains("serves again by itself only if b does not"), "{message}");
    assert_eq!(wired.stages()[0], Stage::Asking);
    wired.lives(2000);
    assert_eq!(wired.stages(), [Stage::Serving, Stage::Standby]);
    // Nobody was told anything but "ok": the update that waited was taken by the same node.
    assert_eq!(wired.a().said, "+OK\r\n");
    assert!(!wired.a().control.peer.promised);
}

#[test]
fn a_role_that_was_taken_makes_the_old_primary_the_standby_although_the_word_of_it_was_lost() {
    let mut wired = Wired::level();
    given(&mut wired, 0);
    assert_eq!(wired.stages(), [Stage::HandingOver, Stage::Serving]);
    wired.deaf = [false; 2];
    wired.cut();
    wired.lives(2000);
    assert_eq!(wired.stages(), [Stage::Standby, Stage::Serving]);
    assert!(wired.a().said.starts_with("-READONLY"), "{}", wired.a().said);
    assert_eq!(wired.a().times("diverged"), 0);
}

#[test]
fn a_standby_that_refuses_the_role_ends_the_stream_and_its_primary_goes_on_in_its_epoch() {
    let mut wired = Wired::level();
    let epoch = wired.a().control.epoch;
    wired.b().engine.core.stopping = true;
    wired.asks(0, SWITCH);
    let (message, _) = wired.refusal(0);
    assert!(message.contains("b did not take the role: b is stopping"), "{message}");
    assert_eq!((wired.stages()[0], wired.a().control.epoch), (Stage::Serving, epoch));
    assert_eq!(wired.a().set("2"), "+OK\r\n");
}

#[test]
fn clients_of_a_role_that_nobody_has_are_held_for_a_bounded_time_only() {
    let mut wired = Wired::level();
    given(&mut wired, 1);
    wired.deaf = [true; 2];
    wired.a().passes(HANDOVER_HOLD_MS - 100);
    assert_eq!(wired.a().said, "");
    wired.a().passes(200);
    assert!(wired.a().said.starts_with('-'), "{}", wired.a().said);
}

#[test]
fn a_restarted_primary_that_gave_its_role_away_asks_even_where_it_may_serve_unasked() {
    for promised in [true, false] {
        let peer = PeerRecord { promised, ..PeerRecord::default() };
        let control = Control { peer, ..Control::new(Role::Primary, crate::engine::test_kit::PAIR) };
        let own = EngineConfig { serve_alone: true, ..config(0) };
        let store = crate::store::memory::MemoryStore::new(own.ordinal);
        let mut node = Node::found(own, control, store);
        node.input(Event::Tick);
        node.lives(60_000);
        let expected = if promised { Stage::Asking } else { Stage::Serving };
        assert_eq!(node.engine.core.roles.stage(), expected);
        if promised {
            node.asks(AdminRequest::StartAlone);
            node.lives(100);
            assert_eq!(node.engine.core.roles.stage(), Stage::Serving, "the operator's word decides");
        }
    }
}

#[test]
fn a_role_that_was_not_given_cannot_be_taken_and_one_that_does_not_fit_is_refused() {
    let mut wired = Wired::level();
    let now = wired.b().now;
    let head = wired.b().engine.core.head();
    wired.b().engine.core.link.say_to_primary(now, head, &Handover::Taken { paused_us: 1 });
    wired.b().engine.core.dirty = true;
    wired.b().input(Event::Tick);
    wired.talk();
    assert_eq!(wired.stages(), [Stage::Serving, Stage::Standby]);
    assert_eq!(wired.a().times("link-refused"), 1);
    wired.lives(2000);
    let end = wired.a().engine.core.replicated().sealed();
    for at in [Position { seq: end.seq.next(), ..end }, Position { epoch: Epoch(8), ..end }] {
        let header = crate::format::frame::FrameHeader::decode(
            &crate::format::frame::encode_header(
                FrameKind::Heartbeat,
                &crate::format::frame::FrameFields { durable: at.seq, ..Default::default() },
                &[],
            ),
            0,
        )
        .unwrap();
        let why = wired.b().engine.core.cannot_take(at, &header);
        assert!(why.is_some_and(|why| why.contains("was given the role at")), "{at:?}");
    }
}

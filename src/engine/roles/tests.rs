//! Every stage against every event that may move a node: what it becomes, and what is refused with which words.

use super::*;
use super::{opening::Opening, stepping_down::StepDown};
use crate::base::{ConnId, Epoch, Fault, Position};
use crate::engine::admin::AdminReply;
use crate::engine::receiver::Inbound;
use crate::engine::test_kit::{Node, config};
use crate::engine::{Effect, EngineConfig, Event};
use crate::pair::LinkSession;

impl Roles {
    /// Puts a node at a stage, whatever it was at.
    pub(in crate::engine) fn place(&mut self, stage: Stage) {
        self.at = match stage {
            Stage::Replaying => StageData::Replaying,
            Stage::Standby => StageData::Standby,
            Stage::Incomplete => StageData::Incomplete,
            Stage::Asking => StageData::Asking(Asking::since(Mono(0))),
            Stage::Opening => StageData::Opening(Opening::new(opening::Cause::Own)),
            Stage::Serving => StageData::Serving,
            Stage::HandingOver => StageData::HandingOver(switchover::HandingOver::at(Position::default())),
            Stage::SteppingDown => {
                StageData::SteppingDown(StepDown::new(Position::default(), Epoch(9), true))
            }
            Stage::Diverged => StageData::Diverged,
            Stage::Stopped => StageData::Stopped,
        };
    }
}

/// What may move a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// The pump runs, nothing else has happened: what was found on disk is replayed.
    Pump,
    /// The peer does not serve and will not.
    PeerWillNotServe,
    /// `start --alone`.
    StartAlone,
    /// `takeover --peer-is-down`.
    Takeover,
    /// The peer serves in a higher epoch.
    HigherEpoch,
    /// All that the stage waits for is done by the disk.
    DiskDone,
    /// A write of the control file fails.
    ControlFails,
    Stop,
}

/// The stage that it comes to, and what an operator is answered with who is refused.
fn happens(node: &mut Node, cause: Cause) -> (Stage, String) {
    let core = &mut node.engine.core;
    match cause {
        Cause::Pump => core.pump_roles(),
        Cause::PeerWillNotServe => core.may_serve(),
        Cause::StartAlone => {
            core.start_alone(1, false);
            core.pump_roles();
        }
        Cause::Takeover => core.takeover(1, Word { peer_is_down: true, ..Word::default() }),
        Cause::HigherEpoch => core.step_down(Position::default(), Epoch(9)),
        Cause::DiskDone => node.input(Event::Tick),
        Cause::ControlFails => {
            node.ills.control = Some(Fault::Errno(5));
            node.input(Event::Tick);
        }
        Cause::Stop => node.input(Event::Stop),
    }
    let core = &mut node.engine.core;
    let replies = core.out.drain(..).filter_map(|effect| match effect {
        Effect::Admin { reply, .. } => Some(reply),
        _ => None,
    });
    let refused = node.answered.drain(..).chain(replies).find_map(|reply| match reply {
        AdminReply::No { message, .. } => Some(message),
        _ => None,
    });
    (core.roles.stage(), refused.unwrap_or_default())
}

type Cell = (Stage, &'static str);

/// What becomes of a node of this role at this stage, for each of [`CAUSES`].
type Row = (Stage, Role, [Cell; 8]);

const CAUSES: [Cause; 8] = [
    Cause::Pump,
    Cause::PeerWillNotServe,
    Cause::StartAlone,
    Cause::Takeover,
    Cause::HigherEpoch,
    Cause::DiskDone,
    Cause::ControlFails,
    Cause::Stop,
];

const ALREADY: &str = "a is the primary already (epoch 0)";

/// Thirteen rows: each stage, and the replay of each role.
#[rustfmt::skip]
fn table() -> [Row; 13] {
    use Role::Primary;
    use Stage::{
        Asking, Diverged, HandingOver, Incomplete, Opening, Replaying, Serving, Standby, SteppingDown, Stopped,
    };
    let no_primary = |role: &'static str| match role {
        "standby" => "this node is not the primary (its role is standby)",
        "incomplete" => "this node is not the primary (its role is incomplete)",
        _ => "this node is not the primary (its role is diverged)",
    };
    let lacks = "a cannot take over: it is incomplete: the copy that it is given is not whole, and only the primary has \
                 the rest; 0 B came, and 0 files are not whole";
    // Pump, PeerWillNotServe, StartAlone, Takeover, HigherEpoch, DiskDone, ControlFails, Stop
    [
        (Replaying, Role::Standby, [
            (Standby, ""), (Replaying, ""), (Standby, no_primary("standby")), (Opening, ""),
            (Replaying, ""), (Standby, ""), (Standby, ""), (Stopped, ""),
        ]),
        (Replaying, Role::Diverged, [
            (Diverged, ""), (Replaying, ""), (Diverged, no_primary("diverged")),
            (Replaying, "a cannot take over: its role is diverged"),
            (Replaying, ""), (Diverged, ""), (Diverged, ""), (Stopped, ""),
        ]),
        (Replaying, Role::Incomplete, [
            (Incomplete, ""), (Replaying, ""), (Incomplete, no_primary("incomplete")), (Replaying, lacks),
            (Replaying, ""), (Incomplete, ""), (Incomplete, ""), (Stopped, ""),
        ]),
        (Replaying, Primary, [
            (Asking, ""), (Replaying, ""), (Asking, "this node is replaying"), (Replaying, ALREADY),
            (Replaying, ""), (Asking, ""), (Asking, ""), (Stopped, ""),
        ]),
        (Standby, Role::Standby, [
            (Standby, ""), (Standby, ""), (Standby, no_primary("standby")), (Opening, ""),
            (Standby, ""), (Standby, ""), (Standby, ""), (Stopped, ""),
        ]),
        (Incomplete, Role::Incomplete, [
            (Incomplete, ""), (Incomplete, ""), (Incomplete, no_primary("incomplete")), (Incomplete, lacks),
            (Incomplete, ""), (Incomplete, ""), (Incomplete, ""), (Stopped, ""),
        ]),
        (Asking, Primary, [
            (Asking, ""), (Opening, ""), (Opening, ""), (Asking, ALREADY),
            (SteppingDown, ""), (Asking, ""), (Asking, ""), (Stopped, ""),
        ]),
        (Opening, Primary, [
            (Opening, ""), (Opening, ""), (Opening, "this node is starting-epoch"), (Opening, ALREADY),
            (Opening, ""), (Serving, ""), (Opening, ""), (Stopped, ""),
        ]),
        (Serving, Primary, [
            (Serving, ""), (Serving, ""), (Serving, "this node serves already"), (Serving, ALREADY),
            (SteppingDown, ""), (Serving, ""), (Serving, ""), (Stopped, ""),
        ]),
        // Without a connection it asks what became of its role.
        (HandingOver, Primary, [
            (Asking, ""), (HandingOver, ""), (Asking, "this node is handing-over"), (HandingOver, ALREADY),
            (SteppingDown, ""), (Asking, ""), (Asking, ""), (Stopped, ""),
        ]),
        (SteppingDown, Primary, [
            (SteppingDown, ""), (SteppingDown, ""), (SteppingDown, "this node is stepping-down"),
            (SteppingDown, ALREADY), (SteppingDown, ""), (Standby, ""), (SteppingDown, ""), (Stopped, ""),
        ]),
        (Diverged, Role::Diverged, [
            (Diverged, ""), (Diverged, ""), (Diverged, no_primary("diverged")),
            (Diverged, "a cannot take over: it is diverged"),
            (Diverged, ""), (Diverged, ""), (Diverged, ""), (Stopped, ""),
        ]),
        (Stopped, Primary, [
            (Stopped, ""), (Stopped, ""), (Stopped, "this node is stopping"), (Stopped, ALREADY),
            (Stopped, ""), (Stopped, ""), (Stopped, ""), (Stopped, ""),
        ]),
    ]
}

#[test]
fn at_every_stage_each_event_leads_where_the_table_says_or_is_refused_with_these_words() {
    for stage in Stage::ALL {
        assert!(table().iter().any(|(row, ..)| *row == stage), "no row for {stage:?}");
    }
    for (stage, role, cells) in table() {
        for (cause, expected) in CAUSES.into_iter().zip(cells) {
            let mut node = Node::at(stage, role);
            let (next, refused) = happens(&mut node, cause);
            assert_eq!((next, refused.as_str()), expected, "{stage:?} as {role:?}, {cause:?}");
        }
    }
}

#[test]
fn what_status_calls_a_node_at_each_stage_is_in_the_list_of_states() {
    for (stage, role, _) in table() {
        let state = Node::at(stage, role).engine.core.status(0).state;
        assert!(crate::engine::admin::STATES.contains(&state.as_str()), "{state}, at {stage:?}");
    }
}

/// A node that steps down with an entry that the pair never kept.
fn with_an_entry_of_its_own() -> Node {
    let mut node = Node::serving(config(0));
    node.engine.core.step_down(Position::default(), Epoch(9));
    node
}

#[test]
fn every_transition_of_the_table_is_one_that_happens_and_no_other_does() {
    let mut seen = Vec::new();
    for (stage, role, cells) in table() {
        seen.extend(cells.map(|(next, _)| (stage, next)).into_iter().filter(|(from, to)| from != to));
        // What the pump did in between is a transition of its own.
        if stage == Stage::Replaying {
            seen.push((stage, happens(&mut Node::at(stage, role), Cause::Pump).0));
        }
    }
    let (diverged, _) = happens(&mut with_an_entry_of_its_own(), Cause::DiskDone);
    seen.push((Stage::SteppingDown, diverged));
    let mut node = Node::at(Stage::Standby, Role::Standby);
    for change in [Roles::becomes_incomplete, Roles::becomes_whole] {
        let from = node.engine.core.roles.stage();
        change(&mut node.engine.core.roles);
        seen.push((from, node.engine.core.roles.stage()));
    }
    // Tests of switchovers beside that file come by these.
    let given = [(Stage::Serving, Stage::HandingOver), (Stage::HandingOver, Stage::Serving)];
    let mut node = Node::at(Stage::HandingOver, Role::Primary);
    assert!(node.engine.core.role_is_refused("no"));
    seen.push((Stage::HandingOver, node.engine.core.roles.stage()));
    seen.push(given[0]);
    assert!(seen.contains(&given[1]));
    for stage in [Stage::Standby, Stage::Diverged] {
        let mut node = Node::at(stage, Role::Diverged);
        node.engine.core.save_before_rewind(Position::default(), Epoch(9));
        seen.push((stage, node.engine.core.roles.stage()));
    }
    let mut node = Node::at(Stage::Diverged, Role::Diverged);
    node.engine.core.roles.becomes_incomplete();
    seen.push((Stage::Diverged, node.engine.core.roles.stage()));
    // With a part of a copy, from a peer that did so, and where the peer knows of more.
    let mut node = Node::at(Stage::Incomplete, Role::Incomplete);
    node.engine.core.open_epoch(super::opening::Cause::Own);
    seen.push((Stage::Incomplete, node.engine.core.roles.stage()));
    let mut node = Node::at(Stage::Diverged, Role::Diverged);
    node.engine.core.peer.spares();
    seen.push((Stage::Diverged, happens(&mut node, Cause::Takeover).0));
    let mut node = Node::at(Stage::Serving, Role::Primary);
    node.engine.core.serves_no_more("it was set back", Epoch(9));
    seen.push((Stage::Serving, node.engine.core.roles.stage()));
    for (from, to, cause) in stage::TRANSITIONS {
        assert!(seen.contains(&(from, to)), "{from:?} to {to:?} ({cause}) never happens");
    }
    for (from, to) in seen {
        assert!(from.may_become(to), "{from:?} to {to:?}");
    }
}

#[test]
fn what_the_pair_never_kept_is_saved_before_a_node_is_diverged() {
    let mut node = with_an_entry_of_its_own();
    assert!(node.control.role == Role::Primary && node.saved.is_empty());
    node.input(Event::Tick);
    assert_eq!(node.control.role, Role::Diverged);
    let lines = String::from_utf8(node.saved.clone()).unwrap();
    assert!(lines.lines().count() > 1 && lines.contains("\"seq\":1"), "{lines}");
    assert_eq!(node.engine.core.roles.diverged_files().len(), 1);
}

#[test]
fn a_stage_whose_control_file_cannot_be_written_tries_again_and_gets_there() {
    for (stage, end) in [(Stage::Opening, Stage::Serving), (Stage::SteppingDown, Stage::Standby)] {
        let mut node = Node::at(stage, Role::Primary);
        node.ills.control = Some(Fault::Errno(5));
        node.input(Event::Tick);
        let retry = node.engine.deadline().expect("it tries again by itself");
        assert!(retry <= node.now.mono.plus_ms(CONTROL_RETRY_MS), "{stage:?}");
        node.ills.control = None;
        node.now.mono = node.now.mono.plus_ms(CONTROL_RETRY_MS - 1);
        node.input(Event::Tick);
        assert_eq!(node.engine.core.roles.stage(), stage, "not before its time");
        node.passes(1);
        assert_eq!(node.engine.core.roles.stage(), end);
    }
}

#[test]
fn a_primary_that_waits_for_its_peer_says_so_once_its_silence_has_lasted() {
    let mut node = Node::new(config(0), Role::Primary);
    node.input(Event::Tick);
    let timeout = node.engine.core.config.peer_timeout_ms;
    node.lives(timeout - 10);
    assert_eq!(node.times("waiting-for-peer"), 0);
    node.lives(timeout);
    assert_eq!(node.times("waiting-for-peer"), 1);
}

#[test]
fn a_primary_that_may_serve_alone_does_so_when_its_peer_has_been_silent_for_long_enough() {
    let mut node = Node::new(EngineConfig { serve_alone: true, ..config(0) }, Role::Primary);
    node.input(Event::Tick);
    let asked = node.now.mono.plus_ms(node.engine.core.config.peer_timeout_ms);
    while node.engine.core.roles.stage() == Stage::Asking {
        let next = node.engine.deadline().expect("it goes on by itself");
        assert!(next <= asked, "it waits beyond the time");
        node.now.mono = next;
        node.input(Event::Tick);
    }
    assert_eq!((node.now.mono, node.engine.core.roles.stage()), (asked, Stage::Serving));
    assert_eq!(node.times("alone"), 1);
}

/// A standby that hears its primary, so that a takeover waits.
fn hearing_its_primary() -> Node {
    let mut node = Node::at(Stage::Standby, Role::Standby);
    node.engine.core.control.play(Role::Standby);
    let session = LinkSession::accepted(ConnId(9), node.now.mono);
    node.engine.core.link.inbound = Some(Inbound::beginning(session));
    node
}

#[test]
fn each_operator_whose_takeover_waits_is_answered_although_another_one_asks_meanwhile() {
    let mut node = hearing_its_primary();
    let core = &mut node.engine.core;
    for token in [1, 2] {
        core.takeover(token, Word { peer_is_down: true, ..Word::default() });
    }
    core.now.mono = core.now.mono.plus_ms(60_000);
    core.pump_roles();
    let answered: Vec<u64> = core
        .out
        .drain(..)
        .filter_map(|effect| match effect {
            Effect::Admin { token, .. } => Some(token),
            _ => None,
        })
        .collect();
    assert_eq!(answered, [1, 2]);
}

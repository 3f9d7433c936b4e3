//! The table "When things fail" of the architecture, row by row: what people and clients see of each fault.

use super::test_kit::{CLIENT, Node, config};
use super::{Event, JournalEvent, PeerLoss};
use crate::base::limits::WRITE_HANGS_MS;
use crate::base::{AckLevel, Epoch, Fault, Position};
use crate::format::control::Role;

const EIO: Fault = Fault::Errno(5);

/// How the row begins in the document; what goes wrong; the incidents; the state; what the next update is answered.
type Row = (&'static str, fn() -> Node, &'static [&'static str], &'static str, &'static str);

fn node() -> Node {
    Node::serving(config(0))
}

/// The writes under way fail, those after them do not.
fn one_write_fails() -> Node {
    let mut node = node();
    node.ills.disk_hangs = true;
    node.set("1");
    node.ills.disk_hangs = false;
    for event in std::mem::take(&mut node.late) {
        node.input(match event {
            Event::Journal(JournalEvent::Written { write }) => {
                Event::Journal(JournalEvent::WriteFailed { write, fault: EIO })
            }
            other => other,
        });
    }
    node
}

fn writes_fail() -> Node {
    let mut node = node();
    node.ills.writes = Some(EIO);
    node.set("1");
    node
}

fn no_segment_can_be_made() -> Node {
    let mut node = node();
    node.ills.segments = Some(Fault::NoSpace);
    let value = "v".repeat(4000);
    for _ in 0..100 {
        node.says(&format!("SET app,orders,1 {value}"));
        node.passes(300);
    }
    node
}

fn the_disk_hangs() -> Node {
    let mut node = node();
    node.ills.disk_hangs = true;
    node.set("1");
    for _ in 0..12 {
        node.passes(WRITE_HANGS_MS / 10);
    }
    node
}

fn the_store_cannot_apply() -> Node {
    let mut node = node();
    node.ills.store = Some(EIO);
    node.set("1");
    node
}

fn a_checkpoint_fails() -> Node {
    let mut node = node();
    node.ills.checkpoints = Some((0, EIO));
    node.set("1");
    node.engine.core.checkpoint.want();
    node.input(Event::Tick);
    node
}

fn the_control_file_cannot_be_written() -> Node {
    let mut node = node();
    node.ills.control = Some(EIO);
    node.engine.core.write_control();
    node.input(Event::Tick);
    node
}

fn the_peer_is_away() -> Node {
    let on_peer_loss = PeerLoss::Degrade { after_ms: 2000 };
    let mut node =
        Node::serving(super::EngineConfig { ack_level: AckLevel::Durable, on_peer_loss, ..config(0) });
    node.passes(2001);
    node
}

fn a_higher_epoch_is_seen() -> Node {
    let mut node = node();
    node.engine.core.step_down(Position::default(), Epoch(9));
    node.input(Event::Tick);
    node
}

fn the_state_was_set_back() -> Node {
    let mut node = Node::new(config(0), Role::Primary);
    node.input(Event::Tick);
    node.opens(CLIENT);
    node.engine.core.own_state_is_old("the peer has seen epoch 9");
    node.input(Event::Tick);
    node
}

const TABLE: [Row; 10] = [
    ("one journal write fails", one_write_fails, &["journal-poisoned"], "serving", "+OK"),
    ("two in a row", writes_fail, &["journal-poisoned", "journal-failed"], "read-only", "-MISCONF"),
    (
        "no room for a segment, or it cannot be made",
        no_segment_can_be_made,
        &["peer-dropped", "journal-no-space"],
        "no-space",
        "-OOM",
    ),
    ("the disk of a journal ends no write for", the_disk_hangs, &["journal-hangs"], "disk-hangs", "-MISCONF"),
    (
        "the store or a volume cannot be applied to",
        the_store_cannot_apply,
        &["store-failed"],
        "store-failed",
        "-MISCONF",
    ),
    ("a checkpoint fails", a_checkpoint_fails, &["checkpoint-failed"], "serving", "+OK"),
    (
        "the control file cannot be written",
        the_control_file_cannot_be_written,
        &["control-failed"],
        "serving",
        "+OK",
    ),
    ("the peer is away", the_peer_is_away, &["degraded"], "serving", "+OK"),
    ("a higher epoch is seen", a_higher_epoch_is_seen, &["fenced", "diverged"], "diverged", "-MASTERDOWN"),
    ("state set back", the_state_was_set_back, &["state-set-back"], "asking-peer", "-MASTERDOWN"),
];

#[test]
fn each_fault_shows_people_and_clients_what_the_table_of_the_architecture_says() {
    let document = include_str!("../ARCHITECTURE.md");
    for (row, fails, incidents, state, answer) in TABLE {
        let line = document.lines().find(|line| line.starts_with(&format!("| {row}")));
        let line = line.unwrap_or_else(|| panic!("no row {row:?} in the document"));
        let mut node = fails();
        let told: Vec<&str> = node.told.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(told, incidents, "{row}");
        for incident in incidents {
            let named = line.contains(incident) || incidents.iter().any(|other| line.contains(other));
            assert!(named, "the row {row:?} does not name {incident}");
        }
        if node.closed.contains(&CLIENT) {
            node.opens(CLIENT);
        }
        // As large as what the state is told for: a smaller one may still find room.
        let said = node.says(&format!("SET app,orders,2 {}", "v".repeat(4096)));
        assert!(said.starts_with(answer), "{row}: {said:?}");
        assert_eq!(node.status().state, state, "{row}");
    }
}

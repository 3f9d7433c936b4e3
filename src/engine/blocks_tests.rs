//! Volumes on a node that serves and whose effects nobody carries out.

use super::*;
use crate::base::limits::LIVE_WINDOW_FULL;
use crate::base::{ConnId, Epoch, Mono, Now, Ordinal, Position, SegmentIndex};
use crate::engine::roles::Stage;
use crate::engine::sender::{Outbound, OutboundPhase, SendWindow};
use crate::engine::test_kit::{self, PAIR};
use crate::engine::{EngineConfig, StartState};
use crate::format::batch::{BatchBuilder, Seal};
use crate::format::control::{Control, Role};
use crate::format::dptr::{Dptr, FileState, Flags};
use crate::format::frame::Ack;
use crate::journal::{Journal, JournalOp};
use crate::pair::LinkSession;
use crate::store::memory::MemoryStore;
use crate::store::namespace::Namespace;

pub(in super::super) const DISK: FileId = FileId(11);

fn config() -> EngineConfig {
    EngineConfig { segment_bytes: 256 << 10, quota_bytes: 8 << 30, ..test_kit::config(0) }
}

/// A node that serves the volume `acc/disk` of 1 GiB, with its first segment at hand.
pub(in super::super) fn core() -> Core<MemoryStore> {
    let dptr = |kind, account, name: &str| Dptr {
        kind,
        flags: Flags::L,
        state: FileState::Whole,
        generation: 0,
        account,
        blocks: 256 << 10,
        ack: None,
        name: name.to_owned(),
    };
    let account = Dptr { blocks: 0, ..dptr(DptrKind::Account, FileId(0), "acc") }.encode();
    let disk = dptr(DptrKind::Blocks, FileId(10), "disk").encode();
    let records = [(FileId(10), account.as_slice()), (DISK, disk.as_slice())];
    let namespace = Namespace::from_records(&Namespace::new().meta(), records).expect("as encoded");
    let control = Control { epoch: Epoch(2), ..Control::new(Role::Primary, PAIR) };
    let start = StartState { namespace, ..test_kit::empty(control, MemoryStore::new(Ordinal(0))) };
    let mut core = Core::new(config(), start);
    core.roles.place(Stage::Serving);
    for journal in core.journals.iter_mut() {
        journal.set_epoch(Epoch(2));
        let first = preparing(journal).expect("a segment is wanted");
        journal.segment_ready(first);
    }
    core
}

/// Lets a journal write all that it wants; which segment it waits for then.
fn preparing(journal: &mut Journal) -> Option<SegmentIndex> {
    let mut wanted = None;
    journal.pump(Now::default());
    while let Some(op) = journal.poll_op() {
        match op {
            JournalOp::Prepare { index, .. } => wanted = Some(index),
            JournalOp::Write { write, .. } => drop(journal.written(Now::default(), write)),
            JournalOp::Remove { .. } => {}
        }
        journal.pump(Now::default());
    }
    wanted
}

#[test]
fn an_export_is_account_and_file_and_no_other_spelling() {
    let core = core();
    for right in ["acc/disk", "acc,disk"] {
        assert_eq!(core.volume_named(right.as_bytes()).map(|volume| volume.name).as_deref(), Ok("acc/disk"));
    }
    for wrong in
        ["acc/disk/", "acc/disk,", "acc//disk", "acc,,disk", "/acc/disk", "acc", "acc/", "", "ACC/disk"]
    {
        let refused = core.volume_named(wrong.as_bytes());
        assert_eq!(refused, Err(Refusal::NoSuchFile(wrong.to_owned())));
    }
}

#[test]
fn near_the_end_of_the_room_that_is_certain_clients_of_volumes_wait() {
    let mut core = core();
    let write = |core: &mut Core<MemoryStore>| {
        core.write_blocks(DISK, 0, Payload::Borrowed(&[7; 4096])).expect("there is room");
    };
    write(&mut core);
    let next = preparing(&mut core.journals[0]).expect("the next segment is wanted");
    assert!(!core.blocks_congested());
    let mut taken = 0;
    while !core.blocks_congested() {
        write(&mut core);
        taken += 1;
        assert!(taken < 64, "more than the segment holds was taken");
    }
    assert!(core.journals[0].is_short() && core.journals[0].queued_bytes() < BLOCK_QUEUE_MAX);
    core.journals[0].segment_ready(next);
    assert!(!core.blocks_congested(), "there is room for certain again");
}

#[test]
fn clients_of_volumes_wait_for_a_standby_that_is_live_and_not_for_one_that_is_behind() {
    let mut core = core();
    let session = LinkSession::dialed(ConnId(1), 1, core.now.mono);
    core.link.outbound = Some(Outbound { session, phase: OutboundPhase::Connecting });
    core.start_stream(Position::default());
    core.sender_ack(Ack::default(), 0);
    core.pump_link();
    let mut end = Position::default();
    let push = |core: &mut Core<MemoryStore>, end: &mut Position| {
        let mut builder = BatchBuilder::new(end.seq.next(), 0);
        builder.push(&Entry { kind: EntryKind::Put, file: FileId(4), id: b"id", value: &[7; 4 << 20] });
        let seal = Seal {
            epoch: Epoch(2),
            prev_chain: end.chain,
            durable: Seq(0),
            wall_ms: 0,
            pair: PAIR,
            journal: JournalKind::Replicated,
        };
        let batch = builder.seal(&seal);
        *end = batch.end();
        core.link.window.push(batch);
        core.pump_link();
    };
    for _ in 0..LIVE_WINDOW_FULL / (4 << 20) - 1 {
        push(&mut core, &mut end);
        assert!(!core.blocks_congested(), "there is room for more");
    }
    push(&mut core, &mut end);
    assert!(core.blocks_congested() && !core.is_congested(), "volumes wait, items do not");
    let until = core.link.throttle.deadline().expect("not for ever");
    assert!(core.link_deadline() <= Some(until));
    core.now.mono = until;
    core.pump_link();
    assert!(!core.blocks_congested(), "long enough");
    // One that lacks what is not in memory any more is not waited for.
    core.now.mono = Mono(until.0 * 10);
    core.pump_link();
    assert!(core.blocks_congested(), "there is patience again");
    core.link.window = SendWindow::default();
    end = Position { seq: Seq(9), ..Position::default() };
    for _ in 0..LIVE_WINDOW_FULL / (4 << 20) {
        push(&mut core, &mut end);
    }
    assert!(core.link.window.is_full() && !core.blocks_congested());
}

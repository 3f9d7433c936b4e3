//! Faults that were found by chance once, made again on purpose: short lives of a pair with the trouble at exactly the
//! moment that mattered. Each gives the first broken rule, which must be none.

use super::checker::Violation;
use super::disk::{Death, Disk, Exact};
use super::exhaustive::{Small, settle};
use super::truth::JournalTruth;
use super::world::World;
use crate::base::{JournalKind, Ordinal};
use crate::engine::PeerLoss;
use crate::format::batch::Batch;
use crate::format::control::Role;
use crate::store::StoreWrite as _;
use crate::store::memory::MemoryStore;

/// A scenario that waits longer than this for what it needs has lost its sense.
const STEPS_MAX: u64 = 100_000;

/// Steps until `done`; a broken rule if that never happens.
fn until(world: &mut World, what: &str, mut done: impl FnMut(&mut World) -> bool) {
    let mut steps = 0;
    while !done(world) && world.check.violation.is_none() {
        if steps == STEPS_MAX || !world.step() {
            world.check.fail("scenario", format!("it never came to this: {what}"));
        }
        steps += 1;
    }
}

fn ended(mut world: World) -> Option<Violation> {
    settle(&mut world);
    world.check.violation
}

/// A pair whose clients were told of this many updates, and whose standby has on its disk what its primary has not.
fn standby_ahead(acked: usize) -> World {
    let mut small = Small::new(false, 12, false);
    small.world.nodes[0].ills.slow_until = u64::MAX;
    for _ in 0..STEPS_MAX {
        small.step();
        let tip = |n: usize| small.world.check.nodes[n].journals[0].tip().seq;
        if tip(1) > tip(0) && small.world.check.acked.len() >= acked {
            break;
        }
    }
    small.world.nodes[0].ills.slow_until = 0;
    small.world
}

/// Nothing of what was under way is left.
const NOTHING: Exact = Exact { sectors: [0; 2], garbage: None, control: false, made: false };

/// The standby restarts after it has released the segment in which its primary's epoch began. It must still know
/// where that epoch began, or the two can never find a common point again.
#[must_use]
pub fn restart_after_the_first_segment_was_released() -> Option<Violation> {
    let mut world = Small::new(false, 40, false).finish();
    until(&mut world, "the standby releases its first segment", |world| {
        world.nodes[1].disk.segments(JournalKind::Replicated).iter().all(|(index, _)| index.0 > 1)
    });
    world.die(1, Death::Power);
    ended(world)
}

/// The standby is killed while its store holds more than it has made durable, and restarts. What the page cache kept
/// is not durable for that, and the journal must not be released on the strength of it.
#[must_use]
pub fn restart_with_a_store_that_is_only_in_the_page_cache() -> Option<Violation> {
    let mut small = Small::new(false, 40, false);
    small.world.options.checkpoint_ms = 60_000;
    small.world.die(1, Death::Kill);
    small.world.node_boots(1);
    let mut world = small.finish();
    world.die(1, Death::Kill);
    world.node_boots(1);
    // A new epoch makes the standby write its control file, and a written control file lets it release.
    world.die(0, Death::Kill);
    world.node_boots(0);
    ended(world)
}

/// The primary loses its last write, which the standby has; it restarts, the standby cuts its tail, and dies as soon as
/// it has accepted the new epoch. The tail must not come back beside what the primary numbers alike from then on.
#[must_use]
pub fn death_right_after_a_tail_was_cut() -> Option<Violation> {
    let mut world = standby_ahead(2);
    let before = world.check.nodes[1].control.epoch;
    world.die_exactly(0, &NOTHING);
    world.node_boots(0);
    until(&mut world, "the standby accepts the new epoch", |world| {
        world.check.nodes[1].control.epoch > before
    });
    world.die_exactly(1, &NOTHING);
    let mut small = Small::again(world, 6);
    small.run();
    let mut world = small.world;
    world.take_over_now();
    until(&mut world, "the standby takes over", |world| !world.takeover_pending());
    ended(world)
}

/// The primary loses its last write, which the standby has; the standby begins to take over, shows that write, and dies
/// before it has an epoch of its own. Its peer must not serve without the write, and an operator can go on.
#[must_use]
pub fn takeover_interrupted_before_its_epoch() -> Option<Violation> {
    let mut world = standby_ahead(2);
    world.die_exactly(0, &NOTHING);
    world.take_over_now();
    until(&mut world, "the standby shows what only it has", |world| {
        world.check.nodes[1].journals[0].applied > world.check.nodes[0].journals[0].tip().seq
    });
    // It dies before its new control file is in place.
    world.nodes[1].disk.control_flight = None;
    world.die(1, Death::Kill);
    ended(world)
}

/// A primary that was replaced while it wrote on has diverged, and restarts. Its journal still holds the entries that
/// the pair never kept, and must go on holding them.
#[must_use]
pub fn restart_of_a_node_that_has_diverged() -> Option<Violation> {
    let mut small = Small::new(false, 40, false);
    small.world.options.checkpoint_bytes = 1;
    small.world.net.blocked = [true; 2];
    small.run();
    let mut world = small.world;
    world.take_over_beside();
    until(&mut world, "the standby takes over", |world| !world.takeover_pending());
    until(&mut world, "the old primary has diverged", |world| {
        world.check.nodes[0].control.role == Role::Diverged
    });
    world.die(0, Death::Kill);
    world.node_boots(0);
    ended(world)
}

/// A primary at level durable, whose clients wait for their peer, restarts alone with a write to a volume that the peer
/// never received. A flush on a new connection is for that write too: it waits until the peer has it.
#[must_use]
pub fn flush_after_a_restart_alone() -> Option<Violation> {
    let mut world = Small::with_volume().world;
    world.options.on_peer_loss = PeerLoss::Block;
    until(&mut world, "the volume is open", |world| world.blocker_comes_to(0, 0));
    world.net.blocked = [true; 2];
    world.blocker_writes(0);
    until(&mut world, "the write is on the primary's disk", |world| world.blocker_wrote(0, 0));
    world.start_alone();
    until(&mut world, "the volume is open again", |world| world.blocker_comes_to(0, 0));
    if world.blocker_wrote(0, 1) {
        world.check.fail("scenario", "the peer has the write already".to_owned());
    }
    world.blocker_flushes(0);
    until(&mut world, "the flush is answered", |world| world.blocker_is_safe(0));
    ended(world)
}

/// A node's directory, copied while the node was stopped, and what is true of it.
struct Copy {
    disk: Disk,
    log: Vec<(JournalKind, Batch)>,
    journals: [JournalTruth; 2],
}

impl Copy {
    /// Of node 1, which is stopped for it.
    fn of_standby(world: &mut World) -> Self {
        world.die(1, Death::Kill);
        let copy = Self {
            disk: world.nodes[1].disk.clone(),
            log: world.nodes[1].log.clone(),
            journals: world.check.nodes[1].journals.clone(),
        };
        world.node_boots(1);
        copy
    }

    /// Node 1 dies, its directory is replaced by this copy, and it starts.
    fn put_back(self, world: &mut World) {
        world.die(1, Death::Kill);
        let mut store = MemoryStore::new(Ordinal(1));
        for (journal, batch) in &self.log {
            let same = store.apply(*journal, std::slice::from_ref(batch));
            assert!(same.is_ok(), "what was applied once can be applied again");
        }
        let covered = store.checkpoint();
        assert!(covered.is_ok(), "a store in memory can be checkpointed");
        let control = crate::format::control::Control::decode(&self.disk.control);
        let node = &mut world.nodes[1];
        (node.disk, node.store, node.log) = (self.disk, store, self.log);
        let truth = &mut world.check.nodes[1];
        truth.control = control.unwrap_or_else(|_| truth.control.clone());
        truth.journals = self.journals;
        truth.shortened = true;
        truth.heard = super::account::HeardHeads::default();
        world.node_boots(1);
    }
}

/// A pair at level `durable` whose standby was replaced by an older copy of its directory after `updates` more updates, and
/// has met its primary since.
fn standby_set_back(updates: usize) -> World {
    let mut world = Small::in_trouble(6).finish();
    let copy = Copy::of_standby(&mut world);
    let mut world = Small::again(world, updates).finish();
    if updates > 20 {
        until(&mut world, "the primary lets go of what both had", |world| {
            world.nodes[0].disk.segments(JournalKind::Replicated).iter().all(|(index, _)| index.0 > 1)
        });
    }
    copy.put_back(&mut world);
    until(&mut world, "the standby is told that it was set back", |world| world.check.told_set_back(1));
    world
}

fn is_asked_and_tells(mut world: World) -> Option<Violation> {
    world.take_over_now();
    until(&mut world, "the standby takes over", |world| !world.takeover_pending());
    if world.check.nodes[1].control.role != Role::Primary {
        world.check.fail("scenario", "there was no takeover".to_owned());
    }
    if !world.check.nodes[1].loss_accepted {
        world.check.fail("scenario", "nobody was asked whether entries may be given up".to_owned());
    }
    ended(world)
}

/// The primary's journal no longer reaches back to a standby that was set back, and then the primary dies. The standby
/// must not say that nothing is lost, whoever asks it, and after a restart neither.
#[must_use]
pub fn takeover_by_a_standby_that_was_set_back_for_good() -> Option<Violation> {
    let mut world = standby_set_back(60);
    let mut wait = 0;
    until(&mut world, "what the standby was told is on its disk", |_| {
        wait += 1;
        wait > 400
    });
    world.die(1, Death::Power);
    world.node_boots(1);
    until(&mut world, "the standby is up again", |world| world.nodes[1].engine.is_some());
    is_asked_and_tells(world)
}

/// The same, but the primary dies while it sends again what the standby once had.
#[must_use]
pub fn takeover_by_a_standby_that_is_being_caught_up_after_it_was_set_back() -> Option<Violation> {
    is_asked_and_tells(standby_set_back(12))
}

/// The standby of a primary at level `durable` falls silent; an update that comes then is answered within the grace, not
/// within the grace and the time after which a silent link is closed.
#[must_use]
pub fn update_while_the_peer_is_silent() -> Option<Violation> {
    let mut world = Small::beating(3, 50, 5_000).finish();
    until(&mut world, "the promise is whole", |world| {
        world.nodes[0].engine.as_ref().is_some_and(|engine| engine.lowered().is_none())
    });
    world.net.blocked = [true; 2];
    let before = world.trace.now;
    let mut small = Small::again(world, 1);
    small.run();
    let mut world = small.world;
    let took = world.trace.now - before;
    // The grace of 300 ms is counted from the last word; the disk takes its time too.
    if !(100_000..=330_000).contains(&took) {
        let op = world.ops.last();
        let text = format!("an update was answered after {took} us while the peer was silent: {op:?}");
        world.check.fail("promise", text);
    }
    ended(world)
}

/// A write to a volume at level durable that the peer does not have, then a pause of logging and a write that goes to the
/// local journal. A flush is for both: it waits until the peer has the first.
#[must_use]
pub fn flush_after_a_pause() -> Option<Violation> {
    let mut world = Small::with_volume().world;
    world.options.on_peer_loss = PeerLoss::Block;
    world.die(0, Death::Kill);
    world.node_boots(0);
    until(&mut world, "the volume is open", |world| world.blocker_comes_to(0, 0));
    world.net.blocked = [true; 2];
    world.blocker_writes(0);
    until(&mut world, "the first write is on the primary's disk", |world| world.blocker_wrote(0, 0));
    world.pause_logging();
    until(&mut world, "logging is paused", |world| world.is_paused());
    world.blocker_writes(0);
    until(&mut world, "the second write is on the primary's disk", |world| world.blocker_wrote(0, 0));
    if world.check.nodes[0].journals[1].tip().seq == 0 {
        world.check.fail("scenario", "the second write is not in the local journal".to_owned());
    }
    world.blocker_flushes(0);
    let soon = world.trace.now + 200_000;
    until(&mut world, "some time passes", |world| world.trace.now >= soon);
    if world.blocker_is_safe(0) {
        world.check.fail("I-03", "a flush was answered although the peer lacks an earlier write".to_owned());
    }
    world.unblock();
    until(&mut world, "the flush is answered", |world| world.blocker_is_safe(0));
    ended(world)
}

//! Faults that were found by chance once, made again on purpose: short lives of a pair with the trouble at exactly the
//! moment that mattered. Each gives the first broken rule, which must be none.

use super::checker::Violation;
use super::disk::{Death, Exact};
use super::exhaustive::{Small, settle};
use super::world::World;
use crate::base::JournalKind;
use crate::engine::PeerLoss;
use crate::format::control::Role;

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

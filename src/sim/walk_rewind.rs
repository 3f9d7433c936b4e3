//! Every event of a rewind: a primary that was cut off comes back, with entries of its own, to a peer that took over beside it,
//! and harm comes at each step of what follows.

use super::exhaustive::{STEPS_AFTER, STEPS_MAX, Small, Walk, pursue, settle};
use super::handover::Harm;
use super::world::World;
use crate::format::control::Role;

/// Updates of both, of the old primary alone, and a takeover beside it; nothing gets through between the two.
fn parted() -> World {
    let mut small = Small::rewinding(8);
    let acked = |small: &mut Small, updates| {
        let mut steps = 0;
        while small.world.check.acked.len() < updates && steps < STEPS_MAX {
            small.step();
            steps += 1;
        }
    };
    acked(&mut small, 3);
    small.world.harm(Harm::Silence, 0);
    acked(&mut small, 6);
    small.world.take_over_beside();
    pursue(&mut small.world);
    small.world
}

/// Whether the old primary is the standby, after a copy of what was touched.
fn is_rewound(world: &World) -> bool {
    let control = &world.check.nodes[0].control;
    control.role == Role::Standby && control.origin.at.seq.0 > 0
}

/// The old primary is rewound, and that harm comes at every event of it: it goes on wherever it was (I-24, I-35).
#[must_use]
pub fn walk_rewind(harm: Harm) -> Walk {
    let mut walk = Walk::default();
    let mut after = 0;
    for point in 0..STEPS_MAX {
        let mut world = parted();
        world.unblock();
        let mut steps = 0;
        while steps < point && world.check.violation.is_none() {
            world.step();
            steps += 1;
        }
        after += u64::from(is_rewound(&world));
        walk.points += 1;
        walk.crashes += 1;
        world.harm(harm, 0);
        let until = world.trace.now + 2_000_000;
        while world.trace.now < until && world.check.violation.is_none() {
            world.step();
        }
        world.unblock();
        settle(&mut world);
        if world.check.violation.is_none() && !is_rewound(&world) {
            world.check.fail("I-50", "the old primary is not rewound at the end".to_owned());
        }
        walk.fail(format!("{harm:?} at step {point} of a rewind"), &world);
        if after > STEPS_AFTER || walk.violation.is_some() {
            break;
        }
    }
    walk
}

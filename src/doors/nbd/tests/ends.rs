//! Clients that end in the middle of what they asked for.

use super::*;
use crate::base::limits::NBD_IN_FLIGHT_MAX;

const WRITE: u16 = nbd::CMD_WRITE;
const FUA: u16 = nbd::CMD_FLAG_FUA;

/// What stands in the first block.
fn first(world: &World) -> u8 {
    world.model.content[&DISK][0]
}

/// A client with as many requests under way as it may have, and one more write behind them.
fn full(world: &mut World) {
    world.client(ONE, false);
    for cookie in 0..NBD_IN_FLIGHT_MAX as u64 {
        world.ask(ONE, WRITE, FUA, cookie, (4096, 512));
    }
    world.ask(ONE, WRITE, 0, 1000, (0, 512));
    assert_eq!(first(world), 0, "it waits");
}

#[test]
fn what_a_client_sent_and_was_not_begun_when_it_ended_is_never_carried_out() {
    for congested in [false, true] {
        let mut world = World::new(1 << 20);
        if congested {
            world.client(ONE, false);
            world.model.congested = true;
            world.ask(ONE, WRITE, 0, 1000, (0, 512));
            world.ask(ONE, nbd::CMD_TRIM, 0, 1001, (0, 512));
        } else {
            full(&mut world);
        }
        world.door.ended(ONE);
        world.run();
        assert!(world.peer(ONE).closed);
        let begun = world.model.did.len();
        world.model.congested = false;
        world.client(TWO, false);
        world.ask(TWO, WRITE, 0, 7, (0, 512));
        assert_eq!(world.replies(TWO), [(7, 0)]);
        let new = first(&world);
        world.safe(1000);
        assert_eq!((first(&world), world.model.did.len()), (new, begun + 1), "congested: {congested}");
    }
}

#[test]
fn a_goodbye_behind_requests_that_wait_does_not_have_them_carried_out_later() {
    let mut world = World::new(1 << 20);
    full(&mut world);
    world.ask(ONE, nbd::CMD_DISC, 0, 1001, (0, 0));
    world.door.ended(ONE);
    let begun = world.model.did.len();
    world.safe(1000);
    assert_eq!((first(&world), world.model.did.len()), (0, begun));
    assert_eq!(world.door.clients(), 0);
}

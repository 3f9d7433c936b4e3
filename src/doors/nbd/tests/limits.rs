//! What a client cannot make the door do.

use super::*;
use crate::base::limits::{
    NBD_CLIENTS_MAX, NBD_IN_FLIGHT_MAX, NBD_OUT_MAX, NBD_READS_ALL_MAX, NBD_READS_MAX, NBD_REQUEST_MAX,
};

const MIB: u32 = 1 << 20;

fn world(bytes: u32, clients: u64) -> World {
    let mut world = World::new(usize::try_from(bytes).expect("small"));
    (1..=clients).for_each(|conn| world.client(ConnId(conn), false));
    world
}

#[test]
fn one_client_too_many_is_closed() {
    let mut world = World::new(1);
    let most = NBD_CLIENTS_MAX as u64;
    (1..=most + 1).for_each(|conn| world.open(ConnId(conn), Tls::Off));
    assert!(world.peer(ConnId(most + 1)).closed && !world.peer(ConnId(most)).closed);
    assert_eq!(world.door.clients(), NBD_CLIENTS_MAX);
}

#[test]
fn a_client_with_many_requests_in_flight_is_read_on_when_one_is_answered() {
    let mut world = world(MIB, 1);
    for cookie in 0..=NBD_IN_FLIGHT_MAX as u64 {
        world.ask(ONE, nbd::CMD_READ, 0, cookie, (0, 1));
    }
    assert_eq!(world.model.reads.len(), NBD_IN_FLIGHT_MAX);
    assert!(world.peer(ONE).wanted.is_none());
    world.answer();
    world.answer();
    assert_eq!(world.take(ONE).len(), 17 * (NBD_IN_FLIGHT_MAX + 1));
    assert!(world.peer(ONE).wanted.is_some());
}

#[test]
fn replies_held_back_count_as_in_flight() {
    let mut world = world(MIB, 1);
    for cookie in 0..=NBD_IN_FLIGHT_MAX as u64 {
        world.ask(ONE, nbd::CMD_WRITE, nbd::CMD_FLAG_FUA, cookie, (0, 1));
    }
    assert_eq!(world.model.did.len(), NBD_IN_FLIGHT_MAX);
    world.safe(u64::MAX);
    assert_eq!(world.replies(ONE).len(), NBD_IN_FLIGHT_MAX + 1);
}

#[test]
fn a_client_reads_so_many_bytes_at_once() {
    let mut world = world(32 * MIB, 1);
    world.ask(ONE, nbd::CMD_READ, 0, 1, (0, 32 * MIB));
    world.ask(ONE, nbd::CMD_READ, 0, 2, (0, 1));
    assert_eq!(world.model.reads.len(), 1);
    assert_eq!(world.door.shared.flights.bytes(), NBD_READS_MAX);
    world.answer();
    assert_eq!(world.model.reads.len() + world.door.shared.flights.bytes(), 2);
}

#[test]
fn a_larger_read_is_refused() {
    let mut world = world(40 * MIB, 1);
    world.ask(ONE, nbd::CMD_READ, 0, 1, (0, NBD_REQUEST_MAX + 1));
    assert_eq!(world.replies(ONE), [(1, nbd::EINVAL)]);
    world.client(TWO, true);
    world.ask(TWO, nbd::CMD_READ, 0, 1, (0, NBD_REQUEST_MAX + 1));
    assert_eq!(chunks(&world.take(TWO))[0].data[..4], nbd::EOVERFLOW.to_be_bytes());
}

#[test]
fn all_clients_read_so_many_bytes_at_once_and_none_is_overtaken() {
    let mut world = world(32 * MIB, 4);
    for conn in 1..=3 {
        world.ask(ConnId(conn), nbd::CMD_READ, 0, 1, (0, 30 * MIB));
    }
    world.ask(ConnId(4), nbd::CMD_READ, 0, 1, (0, 1));
    assert_eq!(world.model.reads.len(), 2);
    assert!(world.door.shared.flights.bytes() <= NBD_READS_ALL_MAX);
    let (token, pieces) = world.model.reads.pop_front().expect("one");
    world.door.read_done(token, Ok(pieces));
    world.run();
    assert_eq!(world.model.reads.len(), 3);
}

#[test]
fn the_room_of_a_client_that_is_gone_is_free_again_and_its_answers_are_nobodys() {
    let mut world = world(32 * MIB, 2);
    world.ask(ONE, nbd::CMD_READ, 0, 1, (0, 30 * MIB));
    let (token, pieces) = world.model.reads.pop_front().expect("one");
    world.door.close(ONE);
    assert_eq!(world.door.shared.flights.bytes(), 0);
    world.door.read_done(token, Ok(pieces));
    assert!(world.door.output().is_none());
}

#[test]
fn one_that_waits_for_room_and_goes_does_not_stop_those_behind() {
    let mut world = world(32 * MIB, 4);
    for conn in 1..=3 {
        world.ask(ConnId(conn), nbd::CMD_READ, 0, 1, (0, 30 * MIB));
    }
    world.ask(ConnId(4), nbd::CMD_READ, 0, 1, (0, 1));
    world.door.close(ConnId(3));
    world.run();
    assert_eq!(world.model.reads.len(), 3);
}

#[test]
fn a_client_that_does_not_take_its_replies_is_read_no_further() {
    let mut world = world(8 * MIB, 1);
    world.takes = false;
    world.ask(ONE, nbd::CMD_READ, 0, 1, (0, 5 * MIB));
    world.answer();
    world.ask(ONE, nbd::CMD_READ, 0, 2, (0, 1));
    assert!(world.model.reads.is_empty() && world.peer(ONE).from.len() > NBD_OUT_MAX);
    for _ in 0..std::mem::take(&mut world.peer(ONE).unanswered) {
        world.door.sent(ONE);
    }
    world.run();
    assert_eq!(world.model.reads.len(), 1);
    assert_eq!(world.door.shared.unsent, 0);
}

#[test]
fn what_a_client_that_is_gone_had_not_taken_is_forgotten() {
    let mut world = world(8 * MIB, 1);
    world.takes = false;
    world.ask(ONE, nbd::CMD_READ, 0, 1, (0, 5 * MIB));
    world.answer();
    world.door.close(ONE);
    assert_eq!((world.door.shared.unsent, world.door.clients()), (0, 0));
}

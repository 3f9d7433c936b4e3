//! How the payloads of writes reach the backend.

use super::*;

const KIB: u32 = 1 << 10;
const MIB: u32 = 1 << 20;

fn world(bytes: u32) -> World {
    let mut world = World::new(usize::try_from(bytes).expect("small"));
    world.client(ONE, false);
    world
}

fn write(offset: u64, len: u32, owned: bool) -> Did {
    Did::Write { offset, len: usize::try_from(len).expect("small"), owned }
}

fn holds(world: &World, cookie: u64, range: (u64, u32)) -> bool {
    let start = usize::try_from(range.0).expect("small");
    let content = &world.model.content[&DISK];
    (0..range.1).zip(&content[start..]).all(|(at, byte)| *byte == pattern(cookie, at))
}

#[test]
fn a_large_write_comes_in_buffers_of_its_own_and_its_end_as_it_is() {
    let mut world = world(8 * MIB);
    let len = 2 * MIB + 10 * KIB;
    world.ask(ONE, nbd::CMD_WRITE, 0, 1, (3, len));
    assert_eq!(world.replies(ONE), [(1, 0)]);
    let (mib, twice) = (u64::from(MIB), u64::from(2 * MIB));
    let pieces = [write(3, MIB, true), write(3 + mib, MIB, true), write(3 + twice, 10 * KIB, false)];
    assert_eq!(world.model.did, pieces);
    assert!(holds(&world, 1, (3, len)));
}

#[test]
fn a_write_just_large_enough_has_a_buffer_of_its_own() {
    let mut world = world(MIB);
    world.ask(ONE, nbd::CMD_WRITE, 0, 1, (0, 64 * KIB - 1));
    world.ask(ONE, nbd::CMD_WRITE, 0, 2, (0, 64 * KIB));
    assert_eq!(world.model.did, [write(0, 64 * KIB - 1, false), write(0, 64 * KIB, true)]);
    assert!(holds(&world, 2, (0, 64 * KIB)));
}

#[test]
fn the_largest_write_is_taken() {
    let mut world = world(32 * MIB);
    world.ask(ONE, nbd::CMD_WRITE, 0, 1, (0, 32 * MIB));
    assert_eq!((world.replies(ONE), world.model.did.len()), (vec![(1, 0)], 32));
    assert!(holds(&world, 1, (0, 32 * MIB)));
}

#[test]
fn a_larger_write_is_thrown_away_and_invalid() {
    let mut world = world(40 * MIB);
    world.ask(ONE, nbd::CMD_WRITE, 0, 1, (0, 32 * MIB + 1));
    world.ask(ONE, nbd::CMD_WRITE, 0, 2, (0, 1));
    assert_eq!(world.replies(ONE), [(1, nbd::EINVAL), (2, 0)]);
    assert_eq!(world.model.did.len(), 1);
}

#[test]
fn the_payload_of_a_refused_write_is_thrown_away() {
    let mut world = world(MIB);
    world.ask(ONE, nbd::CMD_WRITE, 0, 1, (1, MIB));
    world.ask(ONE, nbd::CMD_WRITE, 1 << 9, 2, (0, 100 * KIB));
    world.ask(ONE, nbd::CMD_WRITE, 0, 3, (0, 1));
    assert_eq!(world.replies(ONE), [(1, nbd::ENOSPC), (2, nbd::EINVAL), (3, 0)]);
    assert_eq!(world.model.did, [write(0, 1, false)]);
}

#[test]
fn a_piece_refused_in_the_middle_fails_the_whole_and_the_rest_is_thrown_away() {
    let mut world = world(8 * MIB);
    world.model.room = Some(1);
    world.ask(ONE, nbd::CMD_WRITE, 0, 1, (0, 4 * MIB));
    world.ask(ONE, nbd::CMD_WRITE, 0, 2, (0, 1));
    assert_eq!(world.replies(ONE), []);
    (world.model.congested, world.model.room) = (false, None);
    world.model.refuse = Some(Refusal::NoSpace);
    world.run();
    assert_eq!(world.replies(ONE), [(1, nbd::ENOSPC), (2, nbd::ENOSPC)]);
    assert_eq!(world.model.did.len(), 1);
}

#[test]
fn a_volume_that_shrinks_or_goes_while_a_payload_comes_is_looked_at_again() {
    for gone in [false, true] {
        let mut world = world(8 * MIB);
        world.model.room = Some(1);
        world.ask(ONE, nbd::CMD_WRITE, 0, 1, (0, 4 * MIB));
        match gone {
            true => world.model.volumes.clear(),
            false => world.model.volumes[0].bytes = u64::from(MIB),
        }
        (world.model.congested, world.model.room) = (false, None);
        world.run();
        assert_eq!(world.replies(ONE), [(1, if gone { nbd::ESHUTDOWN } else { nbd::ENOSPC })]);
        assert_eq!(world.model.did.len(), 1);
    }
}

#[test]
fn while_it_is_congested_nothing_is_changed_and_nothing_more_is_read() {
    let mut world = world(8 * MIB);
    world.model.congested = true;
    world.ask(ONE, nbd::CMD_WRITE, 0, 1, (0, 100 * KIB));
    world.ask(ONE, nbd::CMD_WRITE_ZEROES, 0, 2, (0, 10));
    world.ask(ONE, nbd::CMD_WRITE, 0, 3, (0, 10));
    assert!(world.model.did.is_empty() && world.peer(ONE).wanted.is_none());
    world.model.congested = false;
    world.run();
    assert_eq!(world.replies(ONE), [(1, 0), (2, 0), (3, 0)]);
}

#[test]
fn reads_go_on_while_changes_are_congested() {
    let mut world = world(MIB);
    world.model.congested = true;
    world.ask(ONE, nbd::CMD_READ, 0, 1, (0, 10));
    assert_eq!(world.model.reads.len(), 1);
}

#[test]
fn clients_behind_congestion_have_their_turn_one_after_the_other() {
    let mut world = World::new(1 << 20);
    let conns = [ConnId(1), ConnId(2), ConnId(3)];
    conns.into_iter().for_each(|conn| world.client(conn, false));
    world.model.congested = true;
    for conn in conns {
        let mut bytes = Vec::new();
        let write = Request { flags: 0, command: nbd::CMD_WRITE, cookie: 1, offset: conn.0, len: 1 };
        for _ in 0..3 {
            write.encode(&mut bytes);
            bytes.push(1);
        }
        world.send(conn, &bytes);
    }
    for _ in 0..9 {
        (world.model.congested, world.model.room) = (false, Some(1));
        world.door.release(world.now, &mut world.model);
    }
    let turns: Vec<_> = world.model.did.iter().map(|did| format!("{did:?}")).collect();
    let all = (0..9).map(|at| format!("{:?}", write(at % 3 + 1, 1, false))).collect::<Vec<_>>();
    assert_eq!(turns, all);
}

#[test]
fn fua_of_several_pieces_waits_for_the_last() {
    let mut world = world(8 * MIB);
    world.ask(ONE, nbd::CMD_WRITE, nbd::CMD_FLAG_FUA, 1, (0, 3 * MIB));
    world.safe(2);
    assert_eq!(world.replies(ONE), []);
    world.safe(3);
    assert_eq!(world.replies(ONE), [(1, 0)]);
}

#[test]
fn the_headroom_of_a_buffer_is_free_and_its_size_known() {
    let mut world = world(MIB);
    let mut bytes = Vec::new();
    let len = 100 * KIB;
    Request { flags: 0, command: nbd::CMD_WRITE, cookie: 1, offset: 0, len }.encode(&mut bytes);
    bytes.extend_from_slice(&[1; 50]);
    world.send(ONE, &bytes);
    let Some(Wanted::Fill(buffer, until)) = &world.peer(ONE).wanted else { panic!("a buffer to fill") };
    assert_eq!(*until, PAYLOAD_HEADROOM + 100 * 1024);
    assert_eq!(buffer.len(), PAYLOAD_HEADROOM + 50);
    assert!(buffer.as_ref()[..PAYLOAD_HEADROOM].iter().all(|byte| *byte == 0));
}

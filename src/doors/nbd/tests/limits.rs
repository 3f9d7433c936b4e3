//! What a client cannot make the door do.

use super::*;
use crate::base::limits::{
    NBD_CLIENTS_MAX, NBD_IN_FLIGHT_MAX, NBD_LIST_MAX, NBD_OUT_ALL_MAX, NBD_OUT_FREE, NBD_OUT_MAX,
    NBD_READS_ALL_MAX, NBD_READS_MAX, NBD_REQUEST_MAX, NBD_SEND_MAX, NBD_STUCK_MS,
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
    assert_eq!(world.door.shared.requests.bytes(), NBD_READS_MAX);
    world.answer();
    assert_eq!(world.model.reads.len() + world.door.shared.requests.bytes(), 2);
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
fn all_clients_read_so_many_bytes_at_once_and_none_is_overtaken_by_more_than_a_free_share() {
    let mut world = world(32 * MIB, 4);
    for conn in 1..=3 {
        world.ask(ConnId(conn), nbd::CMD_READ, 0, 1, (0, 30 * MIB));
    }
    world.ask(ConnId(4), nbd::CMD_READ, 0, 1, (0, 1));
    world.ask(ConnId(4), nbd::CMD_READ, 0, 2, (0, MIB));
    assert_eq!(world.model.reads.len(), 3);
    assert!(world.door.shared.requests.bytes() <= NBD_READS_ALL_MAX);
    let (token, pieces) = world.model.reads.pop_front().expect("one");
    world.door.read_done(world.now, token, Ok(pieces));
    world.run();
    assert_eq!(world.model.reads.len(), 4);
}

#[test]
fn what_is_read_for_a_client_that_is_gone_counts_until_it_is_read_and_is_nobodys() {
    let mut world = world(32 * MIB, 2);
    world.ask(ONE, nbd::CMD_READ, 0, 1, (0, 30 * MIB));
    let (token, pieces) = world.model.reads.pop_front().expect("one");
    world.door.close(ONE);
    assert!(!world.door.knows(ONE) && world.door.clients() == 1);
    assert!(world.door.shared.requests.bytes() == 30 << 20 && world.door.held() > 30 << 20);
    world.door.read_done(world.now, token, Ok(pieces));
    assert_eq!((world.door.shared.requests.bytes(), world.door.held()), (0, 0));
    assert!(world.door.output().is_none() && world.door.sessions.len() == 1);
}

#[test]
fn one_that_waits_for_room_and_goes_does_not_stop_those_behind() {
    let mut world = world(32 * MIB, 4);
    for conn in 1..=3 {
        world.ask(ConnId(conn), nbd::CMD_READ, 0, 1, (0, 30 * MIB));
    }
    world.ask(ConnId(4), nbd::CMD_READ, 0, 1, (0, MIB));
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
        world.door.sent(world.now, ONE);
    }
    world.takes = true;
    world.run();
    assert_eq!(world.model.reads.len(), 1);
    world.answer();
    assert_eq!(world.door.held(), 0);
}

#[test]
fn what_a_client_that_is_gone_had_not_taken_is_forgotten() {
    let mut world = world(8 * MIB, 1);
    world.takes = false;
    world.ask(ONE, nbd::CMD_READ, 0, 1, (0, 5 * MIB));
    world.answer();
    world.door.close(ONE);
    assert_eq!((world.door.held(), world.door.clients()), (0, 0));
}

impl World {
    /// A client takes what it was sent, up to so many sends.
    fn takes(&mut self, conn: ConnId, most: usize) {
        let sends = self.peer(conn).unanswered.min(most);
        self.peer(conn).unanswered -= sends;
        self.peer(conn).from.clear();
        (0..sends).for_each(|_| self.door.sent(self.now, conn));
        self.run();
    }

    fn pass(&mut self, ms: u64) {
        self.now.mono = self.now.mono.plus_ms(ms);
        self.run();
    }

    /// Answers reads, and those that have room then, until there are no more.
    fn answer_all(&mut self) {
        while !self.model.reads.is_empty() {
            self.answer();
            assert!(self.door.held() <= NBD_OUT_ALL_MAX);
        }
    }

    fn sent(&mut self, conn: ConnId) -> usize {
        self.peer(conn).from.len()
    }
}

const CROWD: u64 = NBD_CLIENTS_MAX as u64;
/// How many replies of 8 MiB find room.
const ROOM: u64 = ((NBD_OUT_ALL_MAX - NBD_CLIENTS_MAX * NBD_OUT_FREE) >> 23) as u64;

/// As many clients as there may be, all of which asked for 8 MiB and took nothing.
fn crowd() -> World {
    let mut world = world(8 * MIB, CROWD);
    world.takes = false;
    for conn in 1..=CROWD {
        world.ask(ConnId(conn), nbd::CMD_READ, 0, 1, (0, 8 * MIB));
        assert!(world.door.held() <= NBD_OUT_ALL_MAX);
    }
    world.answer_all();
    world
}

#[test]
fn replies_that_nobody_takes_stay_within_their_bound_and_go_to_those_who_came_first() {
    let mut world = crowd();
    let served: Vec<u64> = (1..=CROWD).filter(|conn| world.sent(ConnId(*conn)) > 0).collect();
    assert_eq!(served, (1..=ROOM).collect::<Vec<_>>());
    for conn in ROOM + 1..=3 * ROOM {
        world.takes(ConnId(conn - ROOM), usize::MAX);
        world.answer();
        assert!(world.sent(ConnId(conn)) > 8 << 20, "client {conn} was next");
        assert!(world.door.held() <= NBD_OUT_ALL_MAX);
    }
}

#[test]
fn while_the_room_for_replies_is_full_small_requests_of_others_go_on() {
    let mut world = crowd();
    world.door.close(ConnId(CROWD));
    world.open(ConnId(CROWD + 1), Tls::Off);
    world.takes(ConnId(CROWD + 1), 1);
    world.door.close(ConnId(CROWD + 1));
    world.client(ConnId(CROWD + 2), false);
    let free = NBD_OUT_FREE - world.take(ConnId(CROWD + 2)).len();
    world.takes(ConnId(CROWD + 2), usize::MAX);
    let small = u32::try_from(free / 2).expect("small");
    for (cookie, command) in
        [(1, nbd::CMD_WRITE), (2, nbd::CMD_READ), (3, nbd::CMD_TRIM), (4, nbd::CMD_FLUSH)]
    {
        world.ask(ConnId(CROWD + 2), command, 0, cookie, if cookie == 4 { (0, 0) } else { (0, small) });
    }
    world.answer();
    world.safe(u64::MAX);
    assert_eq!(world.sent(ConnId(CROWD + 2)), 4 * 16 + free / 2);
    world.ask(ConnId(CROWD + 2), nbd::CMD_READ, 0, 5, (0, 2 * small));
    assert!(world.model.reads.is_empty());
}

#[test]
fn a_client_that_takes_nothing_is_cut_and_leaves_its_room_to_others() {
    let mut world = crowd();
    world.pass(NBD_STUCK_MS - 1);
    assert!(!world.peer(ONE).closed && world.door.deadline() == Some(world.now.mono.plus_ms(1)));
    world.pass(1);
    for conn in 1..=ROOM {
        assert!(world.peer(ConnId(conn)).cut && !world.door.knows(ConnId(conn)));
    }
    world.answer_all();
    for conn in ROOM + 1..=2 * ROOM {
        assert!(!world.peer(ConnId(conn)).closed && world.sent(ConnId(conn)) > 0);
    }
}

#[test]
fn a_client_that_takes_a_little_now_and_then_is_not_cut() {
    let mut world = world(8 * MIB, 1);
    world.takes = false;
    world.ask(ONE, nbd::CMD_READ, 0, 1, (0, 8 * MIB));
    world.answer();
    let sends = world.peer(ONE).unanswered;
    assert!(sends >= (8 << 20) / NBD_SEND_MAX);
    for _ in 0..sends {
        world.pass(NBD_STUCK_MS - 1);
        world.takes(ONE, 1);
        assert!(!world.peer(ONE).closed);
    }
    assert_eq!((world.door.held(), world.door.deadline()), (0, None));
}

#[test]
fn a_client_that_waited_long_for_its_reply_is_not_thought_to_be_stuck() {
    let mut world = world(MIB, 1);
    world.takes = false;
    world.ask(ONE, nbd::CMD_READ, 0, 1, (0, MIB));
    world.now.mono = world.now.mono.plus_ms(3 * NBD_STUCK_MS);
    world.answer();
    world.pass(NBD_STUCK_MS - 1);
    assert!(!world.peer(ONE).closed);
}

#[test]
fn one_that_is_ended_is_closed_when_it_has_its_replies_or_cut_when_it_does_not_take_them() {
    for patient in [true, false] {
        let mut world = world(8 * MIB, 1);
        world.takes = false;
        world.ask(ONE, nbd::CMD_READ, 0, 1, (0, 8 * MIB));
        world.ask(ONE, nbd::CMD_DISC, 0, 2, (0, 0));
        world.answer();
        let held = world.door.held();
        assert!(!world.peer(ONE).closed && held > 8 << 20 && world.door.knows(ONE));
        match patient {
            true => world.takes(ONE, usize::MAX),
            false => world.pass(NBD_STUCK_MS),
        }
        assert_eq!((world.peer(ONE).closed, world.peer(ONE).cut), (true, !patient));
        assert_eq!((world.door.held(), world.door.sessions.len()), (0, 0));
    }
}

#[test]
fn a_list_of_very_many_volumes_ends_in_an_error() {
    let mut world = World::new(1);
    let name = "n".repeat(250);
    let many = NBD_LIST_MAX / 250;
    let volume = |at: usize| Volume { file: FileId(at as u64), name: name.clone(), bytes: 1, writable: true };
    world.model.volumes = (0..many).map(volume).collect();
    world.open(ONE, Tls::Off);
    world.send(ONE, &[0, 0, 0, 3]);
    world.take(ONE);
    world.send(ONE, &option(nbd::OPT_LIST, b""));
    let bytes = world.take(ONE);
    let replies = option_replies(&bytes);
    assert!(bytes.len() <= NBD_LIST_MAX && replies.len() > many / 2);
    assert_eq!(replies.last().expect("one").1, nbd::REP_ERR_TOO_BIG);
}

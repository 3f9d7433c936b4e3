//! Clients that leave in the middle of what they asked for: nothing of it is begun once the node has seen their end.

use super::client::{Ending, File, Kind, Op};
use super::options::Mutation;
use super::world::{Ev, World, WorldEv};
use crate::base::{ConnId, Seq};
use crate::engine::ClientEvent;

/// Of runs, one of so many has clients that leave at once.
const HASTY_RUNS: u64 = 4;

/// A command that had no answer when the node saw its client's end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Left {
    op: usize,
    node: usize,
    /// The ends of the node's journals then: what was begun is in them.
    appended: [Seq; 2],
}

impl World {
    /// A client sends a command that waits and one behind it, and leaves; whether it did.
    pub(super) fn client_hurries(&mut self, c: usize, n: usize, conn: ConnId) -> bool {
        if self.options.seed % HASTY_RUNS != 3 || !self.streams.client.percent(10) {
            return false;
        }
        for kind in [Kind::Set, Kind::Wait, Kind::Set] {
            let items = if kind == Kind::Wait { Vec::new() } else { vec![b"hasty".to_vec()] };
            let (at, done_at, ending, found) = (0, 0, Ending::Open, false);
            let op = Op { kind, file: File::Main, items, node: n, at, done_at, ending, found };
            self.client_sends_op(c, (n, conn), op, &[0]);
        }
        let us = 1 + self.streams.client.below(2_000);
        let session = self.clients[c].session;
        self.after(us, WorldEv::Leaves(c, session));
        true
    }

    /// A client that was in a hurry leaves, if it is still there.
    pub(super) fn client_leaves(&mut self, c: usize, session: u64) {
        if self.clients[c].session != session {
            return;
        }
        if let Some((n, conn)) = self.clients[c].conn {
            self.trace.sometimes("a client left in the middle of what it asked for");
            self.client_ends(c, n, conn);
        }
        self.after(20_000, WorldEv::Client(c));
    }

    /// The node sees the end of a client, which may still read, or is gone.
    pub(super) fn client_ends(&mut self, c: usize, n: usize, conn: ConnId) {
        self.nodes[n].doors.remove(&conn);
        let unanswered = self.clients[c].unanswered();
        self.hang_up(c);
        if self.mutate(Mutation::CarryOn) {
            self.node_after(1_000_000, n, Ev::ClientGone(conn));
        } else if self.options.seed % HASTY_RUNS == 3 && self.streams.client.percent(50) {
            let drained = self.streams.client.percent(50);
            self.input(n, ClientEvent::Ended { conn, drained });
            let us = 1 + self.streams.client.below(500_000);
            self.node_after(us, n, Ev::ClientGone(conn));
        } else {
            self.input(n, ClientEvent::Closed { conn });
        }
        if let Some(engine) = &self.nodes[n].engine {
            let appended = engine.appended();
            self.left.extend(unanswered.into_iter().map(|op| Left { op, node: n, appended }));
        }
    }

    /// What clients had not been answered when their end was seen stands where it was begun before, or nowhere.
    pub(super) fn check_left(&mut self) {
        for Left { op, node, appended } in std::mem::take(&mut self.left) {
            let places = self.check.history.values.get(&(op, 0));
            let Some(place) = places.and_then(|places| places.first()) else { continue };
            let end = if place.space == 0 { appended[0] } else { appended[1] };
            if place.origin == node && place.seq > end.0 {
                let text = format!(
                    "command {op} is entry {}, but node {node} had seen its client's end at {end:?}",
                    place.seq
                );
                self.check.fail("I-16", text);
            }
        }
    }
}

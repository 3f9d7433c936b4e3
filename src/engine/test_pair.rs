//! Two nodes that are wired together, for tests.

use super::event::LinkEvent;
use super::roles::Stage;
use super::test_kit::{Node, config};
use super::{EngineConfig, Event};
use crate::base::ConnId;
use crate::format::control::Role;

/// A connection: who made it, its number there and at the other node.
#[derive(Clone, Copy)]
pub(in crate::engine) struct Line {
    pub(in crate::engine) caller: usize,
    pub(in crate::engine) conns: [ConnId; 2],
}

/// Node `a` and node `b`, and what is between them.
pub(in crate::engine) struct Wired {
    pub(in crate::engine) nodes: [Node; 2],
    pub(in crate::engine) lines: Vec<Line>,
    /// What is sent to this node is lost.
    pub(in crate::engine) deaf: [bool; 2],
    pub(in crate::engine) next: u64,
}

impl Wired {
    /// Both live, `a` serves with files and a client, `b` has everything.
    pub(in crate::engine) fn level() -> Self {
        Self::with(config)
    }

    /// The same, with these settings of both nodes.
    pub(in crate::engine) fn with(config: fn(u8) -> EngineConfig) -> Self {
        let mut a = Node::serving(config(0));
        let mut b = Node::new(config(1), Role::Standby);
        b.input(Event::Tick);
        a.ills.peer_is_there = true;
        b.ills.peer_is_there = true;
        let mut wired = Self { nodes: [a, b], lines: Vec::new(), deaf: [false; 2], next: 0 };
        wired.lives(2000);
        assert_eq!(wired.a().set("1"), "+OK\r\n");
        wired.lives(100);
        assert_eq!(wired.stages(), [Stage::Serving, Stage::Standby]);
        wired
    }

    pub(in crate::engine) fn a(&mut self) -> &mut Node {
        &mut self.nodes[0]
    }

    pub(in crate::engine) fn b(&mut self) -> &mut Node {
        &mut self.nodes[1]
    }

    pub(in crate::engine) fn stages(&self) -> [Stage; 2] {
        self.nodes.each_ref().map(|node| node.engine.core.roles.stage())
    }

    /// Carries what the nodes say to each other until neither says anything.
    pub(in crate::engine) fn talk(&mut self) {
        while (0..2).any(|n| self.carry(n)) {}
    }

    pub(in crate::engine) fn carry(&mut self, n: usize) -> bool {
        let mut moved = false;
        for (conn, parts) in std::mem::take(&mut self.nodes[n].sent) {
            moved = true;
            let there = self.lines.iter().find(|line| line.conns[n] == conn).map(|line| line.conns[1 - n]);
            if let Some(conn) = there.filter(|_| !self.deaf[1 - n]) {
                let bytes = parts.concat().into();
                self.nodes[1 - n].input(Event::Link(LinkEvent::Bytes { conn, bytes }));
            }
        }
        for conn in std::mem::take(&mut self.nodes[n].closed) {
            if self.deaf[1 - n] {
                continue;
            }
            let Some(at) = self.lines.iter().position(|line| line.conns[n] == conn) else { continue };
            let conn = self.lines.remove(at).conns[1 - n];
            self.nodes[1 - n].input(Event::Link(LinkEvent::Closed { conn, why: "it hung up".to_owned() }));
            moved = true;
        }
        if let Some(conn) = self.nodes[n].dialled.take() {
            self.next += 1;
            let accepted = ConnId(1 << 63 | self.next);
            let conns = if n == 0 { [conn, accepted] } else { [accepted, conn] };
            self.lines.push(Line { caller: n, conns });
            let from = "127.0.0.1:5".to_owned();
            self.nodes[1 - n].input(Event::Link(LinkEvent::Accepted { conn: accepted, from }));
            self.nodes[n].input(Event::Link(LinkEvent::Connected { conn }));
            moved = true;
        }
        moved
    }

    /// All connections end.
    pub(in crate::engine) fn cut(&mut self) {
        for Line { caller, conns } in std::mem::take(&mut self.lines) {
            for n in [caller, 1 - caller] {
                let event = LinkEvent::Closed { conn: conns[n], why: "it was cut".to_owned() };
                self.nodes[n].input(Event::Link(event));
            }
        }
    }

    pub(in crate::engine) fn lives(&mut self, ms: u64) {
        for _ in 0..ms / 10 {
            for n in 0..2 {
                self.nodes[n].passes(10);
                self.talk();
            }
        }
    }
}

//! Connections between the nodes, as events.

use super::net::{Body, EndState, Pipe, Seen};
use super::options::Mutation;
use super::world::{Ev, PAIR, World};
use crate::base::limits::CREDIT_WINDOW;
use crate::base::{AlignedBuf, Chain, ConnId, Epoch, Mono, Now, Ordinal, Position, Seq};
use crate::engine::{Event, LinkEvent};
use crate::format::control::Role;
use crate::format::frame::{FrameKind, Hello, PROTOCOL_FLOOR, PROTOCOL_VERSION};
use crate::format::handover::Handover;
use crate::pair::{Head, LinkSession};
use bytes::Bytes;

impl World {
    fn net_delay(&mut self) -> u64 {
        let median = self.options.net_us;
        let us = median / 2 + self.streams.net.below(median + 1);
        if self.streams.net.percent(2) { us * 20 } else { us }
    }

    /// A node wants to connect.
    pub(super) fn link_connect(&mut self, n: usize, conn: ConnId) {
        let lives = [self.nodes[0].life, self.nodes[1].life];
        let id = self.net.connect(n, conn, lives);
        let stuck = self.net.blocked[0] || self.net.blocked[1];
        let us = self.net_delay() * 2 + if stuck { 300_000 } else { 0 };
        self.node_after(us, n, Ev::Connect(id));
    }

    /// The attempt to connect ends.
    pub(super) fn connect_done(&mut self, n: usize, id: u64) {
        let peer = 1 - n;
        let never = self.options.mutation == Some(Mutation::NeverConnect) && self.operator.ready();
        let there = self.nodes[peer].engine.is_some() && !self.net.refusing && !never;
        let stuck = self.net.blocked[0] || self.net.blocked[1];
        let life = self.nodes[peer].life;
        let Some(connection) = self.net.connections.get_mut(&id) else { return };
        if connection.ends[n].state == EndState::Left {
            connection.ends.iter_mut().for_each(|end| end.state = EndState::Over);
            return;
        }
        if !there || stuck {
            connection.ends.iter_mut().for_each(|end| end.state = EndState::Over);
            let conn = connection.ends[n].conn;
            self.trace.event("connect-failed", conn.0, n as u64, || format!("node {n}: {conn}"));
            return self.input(n, LinkEvent::Closed { conn, why: "connection refused".into() });
        }
        connection.ends[peer].life = life;
        let (a, b) = (self.net_delay(), self.net_delay());
        self.node_after(a, n, Ev::ConnUp(id));
        self.node_after(b, peer, Ev::ConnUp(id));
    }

    /// A node is told of a connection.
    pub(super) fn conn_up(&mut self, n: usize, id: u64) {
        let Some(connection) = self.net.connections.get_mut(&id) else { return };
        let caller = connection.caller == n;
        let end = &mut connection.ends[n];
        if end.state != EndState::Unknown {
            return;
        }
        end.state = EndState::Open;
        let conn = end.conn;
        self.trace.event("connected", conn.0, n as u64, || format!("node {n}: conn {:x}", conn.0));
        let from = format!("node {}", 1 - n);
        let event = if caller {
            Event::Link(LinkEvent::Connected { conn })
        } else {
            Event::Link(LinkEvent::Accepted { conn, from })
        };
        self.input(n, event);
    }

    /// A node sends.
    pub(super) fn link_send(&mut self, n: usize, conn: ConnId, parts: &[Bytes]) {
        if self.net.copies.contains(&conn) {
            return self.check.on_replaced(n, u64::MAX);
        }
        let life = self.nodes[n].life;
        let Some((id, connection)) = self.net.find(n, life, conn) else {
            return self
                .check
                .fail("driver", format!("node {n} sends on connection {conn}, which never was"));
        };
        if connection.ends[n].state == EndState::Over {
            // The node has not heard of the end yet.
            return;
        }
        let accepted = connection.caller != n;
        let mut pipe = std::mem::take(&mut connection.ends[n].out);
        let mut given = None;
        match pipe.tap.feed(parts) {
            Ok(frames) => {
                for mut seen in frames {
                    pipe.note_frame(&seen);
                    self.takes_up(n, id, accepted, &seen.body);
                    self.note_grant(n, id, &seen, &mut pipe);
                    self.mutate_frame(&mut seen);
                    self.check.on_frame(n, &seen, &mut pipe);
                    if let Body::Handover(Handover::Give { .. }) = seen.body {
                        given = Some(seen.header.epoch);
                    }
                }
            }
            Err(error) => self.check.fail("I-40", format!("node {n}: {error}")),
        }
        if let Some(connection) = self.net.connections.get_mut(&id) {
            connection.ends[n].out = pipe;
        }
        if self.net.send(id, n, parts) {
            self.kick(id, n);
        }
        if let Some(connection) = self.net.connections.get_mut(&id) {
            connection.ends[n].out.owes_sent = true;
        }
        let us = 1 + self.streams.net.below(200);
        self.node_after(us, n, Ev::Sent(id));
        if let Some(epoch) = given {
            self.role_was_given(n, id, conn, epoch);
        }
    }

    /// An ack grants the other side room for batches; it sends no more than that.
    fn note_grant(&mut self, n: usize, id: u64, seen: &Seen, pipe: &mut Pipe) {
        match &seen.body {
            Body::Ack(_) => {
                if let Some(connection) = self.net.connections.get_mut(&id) {
                    let other = &mut connection.ends[1 - n].out;
                    other.granted = other.granted.max(seen.header.credit);
                }
            }
            Body::Batch(batch) => {
                pipe.batch_bytes += u64::from(batch.header().len);
                if self.mutate(Mutation::Overdraw) {
                    pipe.batch_bytes += 2 * CREDIT_WINDOW;
                }
                if pipe.batch_bytes > pipe.granted {
                    let (sent, granted) = (pipe.batch_bytes, pipe.granted);
                    self.check.fail(
                        "I-15",
                        format!("node {n} sent {sent} bytes of batches, {granted} were granted"),
                    );
                }
            }
            Body::Hello(_) | Body::Begin(_) | Body::CopyBegin(_) | Body::Chunk(_) | Body::Handover(_) => {}
            Body::Refuse | Body::Rewind(_) | Body::Other => {}
        }
    }

    /// A node shows by what it sends that it has taken up what it heard.
    fn takes_up(&mut self, n: usize, id: u64, accepted: bool, body: &Body) {
        let Some(connection) = self.net.connections.get_mut(&id) else { return };
        let end = &mut connection.ends[n];
        match body {
            Body::Hello(_) if accepted => {
                let (hellos, rest) = end.untaken.drain(..).partition(|heard| heard.hello);
                end.untaken = rest;
                self.check.on_heard(n, hellos);
                self.check.on_replaced(n, id);
            }
            Body::Ack(_) => {
                end.follows = true;
                let heard = std::mem::take(&mut end.untaken);
                self.check.on_heard(n, heard);
            }
            _ => {}
        }
    }

    /// A copy of the primary's directory is served elsewhere and calls the standby, with what its node may have known.
    pub(super) fn copy_calls(&mut self) {
        let Some(n) = (0..2).find(|&n| self.nodes[n].engine.is_some() && !self.is_primary(n)) else { return };
        let truth = &self.check.nodes[1 - n];
        let path = &truth.journals[0].path;
        let at = usize::try_from(self.streams.net.below(path.len() as u64)).unwrap_or(0);
        let end = path.get(if self.streams.net.percent(50) { at } else { path.len() - 1 }).copied();
        let Some(end) = end else { return };
        let (control, seq) = (&truth.control, Seq(end.seq));
        let serving = self.streams.net.percent(50);
        let epoch = Epoch(control.epoch.0 + 2 * self.streams.net.below(2));
        let hello = Hello {
            version: PROTOCOL_VERSION,
            floor: PROTOCOL_FLOOR,
            features: 0,
            pair: PAIR,
            ordinal: Ordinal(u8::try_from(1 - n).unwrap_or(0)),
            role: Role::Primary,
            serving: serving && epoch.opener().0 == u8::try_from(1 - n).unwrap_or(0),
            end: Position { epoch: Epoch(end.epoch), seq, chain: Chain(end.chain) },
            applied: seq,
            table: control.table.iter().filter(|mark| mark.first_seq <= seq).copied().collect(),
            name: "copy".to_owned(),
            known: Seq(0),
            relied_on: Seq(0),
            door: None,
            copied: false,
        };
        let conn = ConnId(3 << 62 | self.net.copies.len() as u64);
        self.net.copies.insert(conn);
        let mut session = LinkSession::dialed(conn, 99, Mono(0));
        let head = Head { epoch, durable: seq, credit: 0 };
        session.send(Now::default(), FrameKind::Hello, head, hello.encode().into());
        let bytes = Bytes::from(session.take_out().concat());
        self.trace.event("copy-calls", conn.0, n as u64, || format!("node {n}: epoch {epoch} {hello:?}"));
        self.trace.sometimes("a copy of the primary called its standby");
        self.input(n, LinkEvent::Accepted { conn, from: "a copy".to_owned() });
        self.input(n, LinkEvent::Bytes { conn, bytes });
        self.gives_way(n, conn);
    }

    /// A node answers the call of a copy, and gives up for it what it follows.
    fn gives_way(&mut self, n: usize, copy: ConnId) {
        let life = self.nodes[n].life;
        let follows = |end: &&super::net::End| end.life == life && end.follows && end.state == EndState::Open;
        let ends = self.net.connections.values().map(|connection| &connection.ends[n]);
        if let Some(conn) = ends.filter(follows).map(|end| end.conn).next_back()
            && self.mutate(Mutation::GiveWay)
        {
            self.link_close(n, conn, false);
            self.link_send(n, copy, &[]);
        }
    }

    fn mutate_frame(&mut self, seen: &mut super::net::Seen) {
        match &mut seen.body {
            Body::Ack(ack) if self.mutate(Mutation::LieAck) => {
                ack.durable = Seq(ack.durable.0 + 5);
                ack.received = ack.durable;
            }
            Body::Handover(Handover::Give { at, .. }) if self.mutate(Mutation::GiveEarly) => {
                at.seq = Seq(at.seq.0 + 5);
            }
            Body::Batch(_) if self.options.mutation == Some(Mutation::Storm) => {
                self.mutated = true;
                self.check.batch_frames += 200;
            }
            _ => {}
        }
        if seen.header.durable.0 > 0 && self.mutate(Mutation::LieDurable) {
            seen.header.durable = Seq(seen.header.durable.0 + 5);
        }
    }

    /// Schedules a delivery of what `from` has sent.
    pub(super) fn kick(&mut self, id: u64, from: usize) {
        let us = self.net_delay();
        let Some(connection) = self.net.connections.get_mut(&id) else { return };
        let pipe = &mut connection.ends[from].out;
        if !pipe.scheduled && (pipe.queued > 0 || pipe.ended) {
            pipe.scheduled = true;
            self.node_after(us, 1 - from, Ev::Pipe(id));
        }
    }

    /// Nobody is there to take the delivery.
    pub(super) fn undeliverable(&mut self, id: u64, to: usize) {
        if let Some(connection) = self.net.connections.get_mut(&id) {
            connection.ends[1 - to].out.scheduled = false;
        }
    }

    /// Bytes arrive at `n`.
    pub(super) fn deliver(&mut self, n: usize, id: u64) {
        let from = 1 - n;
        let blocked = self.net.blocked[from];
        let (corrupt, now) = (self.net.corrupt_one_in, self.trace.now);
        let Some(connection) = self.net.connections.get_mut(&id) else { return };
        connection.ends[from].out.scheduled = false;
        let (state, conn) = (connection.ends[n].state, connection.ends[n].conn);
        if blocked || state == EndState::Over {
            return;
        }
        if state == EndState::Unknown {
            return self.kick(id, from);
        }
        let pipe = &mut connection.ends[from].out;
        if pipe.queued == 0 {
            if pipe.ended {
                self.node_after(1, n, Ev::Down(id, "closed by the peer"));
            }
            return;
        }
        let mut bytes = pipe.piece(&mut self.streams.net);
        if corrupt > 0 && self.streams.net.below(corrupt) == 0 {
            let mut bad = bytes.to_vec();
            let at = usize::try_from(self.streams.net.below(bad.len() as u64)).unwrap_or(0);
            bad[at] ^= 1 << self.streams.net.below(8);
            bytes = Bytes::from(bad);
            pipe.tainted = true;
            connection.tainted_at.get_or_insert(now);
        }
        let len = bytes.len();
        let heard = connection.ends[from].out.heard(len);
        let end = &mut connection.ends[n];
        end.heard_at = now;
        if connection.tainted_at.is_none() && end.state == EndState::Open {
            end.untaken.extend(heard);
            if end.follows {
                let heard = std::mem::take(&mut end.untaken);
                self.check.on_heard(n, heard);
            }
        }
        let pipe = &connection.ends[from].out;
        let told = pipe.owes_sent && pipe.taken();
        self.trace
            .event("link-bytes", conn.0, len as u64, || format!("node {n}: {len} on conn {:x}", conn.0));
        if told {
            self.node_after(1, from, Ev::Sent(id));
        }
        self.kick(id, from);
        if state == EndState::Open {
            let bytes = self.fill_room(n, id, bytes);
            if !bytes.is_empty() {
                self.input(n, LinkEvent::Bytes { conn, bytes });
            }
        } else if self.streams.net.percent(50) {
            self.trace.sometimes("bytes of a closed connection came late");
            self.input(n, LinkEvent::Bytes { conn, bytes });
        }
    }

    /// Puts what came where the node wants it, tells it so, and gives back what did not fit.
    fn fill_room(&mut self, n: usize, id: u64, mut bytes: Bytes) -> Bytes {
        let end = self.net.connections.get_mut(&id).map(|connection| &mut connection.ends[n]);
        if let Some((conn, (mut buffer, until))) = end.and_then(|end| Some((end.conn, end.room.take()?))) {
            let here = bytes.split_to(bytes.len().min(until - buffer.len()));
            buffer.extend_from_slice(&here);
            self.trace.sometimes("a batch came into the buffer in which it stays");
            self.input(n, LinkEvent::Filled { conn, buffer });
        }
        bytes
    }

    /// A node wants what comes next in this buffer.
    pub(super) fn link_fill(&mut self, n: usize, conn: ConnId, buffer: AlignedBuf, until: usize) {
        if self.net.copies.contains(&conn) {
            return;
        }
        let life = self.nodes[n].life;
        let Some((_, connection)) = self.net.find(n, life, conn) else { return };
        let end = &mut connection.ends[n];
        if end.room.replace((buffer, until)).is_some() {
            self.check.fail("driver", format!("node {n} gives two buffers to connection {conn}"));
        }
    }

    /// The node's bytes were taken, if there is room.
    pub(super) fn sent(&mut self, n: usize, id: u64) {
        let Some(connection) = self.net.connections.get_mut(&id) else { return };
        let end = &mut connection.ends[n];
        if end.state != EndState::Open || !end.out.owes_sent || !end.out.taken() {
            return;
        }
        end.out.owes_sent = false;
        let conn = end.conn;
        self.input(n, LinkEvent::Sent { conn });
    }

    /// A node gives a connection up.
    pub(super) fn link_close(&mut self, n: usize, conn: ConnId, abort: bool) {
        let life = self.nodes[n].life;
        let Some((id, connection)) = self.net.find(n, life, conn) else { return };
        if connection.tainted_at.is_some() {
            self.trace.sometimes("a corrupted frame closed the connection");
        }
        let sender = &connection.ends[1 - n].out;
        let broken = sender.tainted || sender.ended;
        let end = &mut connection.ends[n];
        let connecting = end.state == EndState::Unknown;
        // It spoke a moment ago, and the node that listened to it gives it up. It lives unless what came on it at this very
        // moment ended it: bytes of a stream with flipped bits, which cannot be read, or the word of a peer that has left
        // it. A call that waited takes its place then, and nothing was given up for that call. Bits that were flipped
        // earlier are no excuse: while the node waits for the rest of the frame, the stream speaks.
        let ended_itself = broken && end.heard_at == self.trace.now;
        let beat = self.options.heartbeat_ms * 1000;
        let spoke = self.trace.now < end.heard_at + 2 * beat;
        if end.follows && end.state == EndState::Open && spoke && !ended_itself {
            self.check.on_left_living(n, id);
        }
        if end.follows {
            self.check.on_unheard(n, self.trace.now);
        }
        if end.state != EndState::Over {
            end.state = EndState::Left;
        }
        end.out.ended = true;
        if abort || connecting {
            end.out.drop_all();
            let us = self.net_delay();
            if !self.net.blocked[n] {
                self.node_after(us, 1 - n, Ev::Down(id, "reset by the peer"));
            }
        } else {
            self.kick(id, n);
        }
        // Late bytes may come until the driver says that it is over, if it ever does.
        let us = self.net_delay() * 4;
        self.node_after(us, n, Ev::Down(id, "closed here"));
    }

    /// A node is told that a connection is over.
    pub(super) fn conn_down(&mut self, n: usize, id: u64, why: &'static str) {
        let Some(connection) = self.net.connections.get_mut(&id) else { return };
        let caller = connection.caller == n;
        let end = &mut connection.ends[n];
        let (state, conn) = (end.state, end.conn);
        if end.follows && state == EndState::Open {
            self.check.on_unheard(n, self.trace.now);
        }
        end.state = EndState::Over;
        end.out.drop_all();
        let tell = match state {
            EndState::Open => true,
            EndState::Unknown => caller,
            EndState::Left => self.streams.net.percent(50),
            EndState::Over => false,
        };
        // The other side hears of it too, if the wire lets it.
        if state != EndState::Over && !self.net.blocked[n] {
            let us = self.net_delay();
            self.node_after(us, 1 - n, Ev::Down(id, "reset by the peer"));
        }
        if tell {
            self.trace
                .event("link-closed", conn.0, n as u64, || format!("node {n}: conn {:x} {why}", conn.0));
            self.input(n, LinkEvent::Closed { conn, why: why.to_owned() });
        }
        self.net.sweep();
    }

    /// Ends every connection that is open, noisily.
    pub(super) fn reset_all(&mut self) {
        let ids: Vec<u64> = self.net.connections.keys().copied().collect();
        for id in ids {
            for n in 0..2 {
                let us = self.net_delay();
                self.node_after(us, n, Ev::Down(id, "connection reset"));
            }
        }
        self.trace.sometimes("a connection was cut");
    }

    /// The wire works again: what was on its way comes, or the connections turn out to be gone.
    pub(super) fn unblock(&mut self) {
        self.net.blocked = [false; 2];
        self.net.refusing = false;
        let ids: Vec<u64> = self.net.connections.keys().copied().collect();
        let goes_on = self.streams.net.percent(50);
        for id in ids {
            for n in 0..2 {
                let gone =
                    self.net.connections.get(&id).is_some_and(|c| c.ends[1 - n].state == EndState::Over);
                if gone || !goes_on {
                    let us = self.net_delay();
                    self.node_after(us, n, Ev::Down(id, "connection reset"));
                } else {
                    self.kick(id, n);
                }
            }
        }
    }

    /// The connections of a node that died. Its kernel closes them, unless the power went.
    pub(super) fn connections_of_the_dead(&mut self, n: usize, kernel_lives: bool) {
        let ids: Vec<u64> = self.net.connections.keys().copied().collect();
        for id in ids {
            let Some(connection) = self.net.connections.get_mut(&id) else { continue };
            connection.ends[n].state = EndState::Over;
            connection.ends[1 - n].out.drop_all();
            let out = &mut connection.ends[n].out;
            out.owes_sent = false;
            if kernel_lives {
                out.ended = true;
                self.kick(id, n);
            } else {
                out.drop_all();
            }
        }
        self.net.sweep();
    }

    /// A node that lost its power is back: its kernel knows nothing of the old connections.
    pub(super) fn reset_orphans(&mut self, n: usize) {
        let orphans: Vec<u64> = self
            .net
            .connections
            .iter()
            .filter(|(_, c)| c.ends[n].state == EndState::Over && c.ends[1 - n].state != EndState::Over)
            .map(|(&id, _)| id)
            .collect();
        for id in orphans {
            let us = self.net_delay();
            if !self.net.blocked[n] {
                self.node_after(us, 1 - n, Ev::Down(id, "connection reset"));
            }
        }
    }
}

//! Clients at the nodes' RESP doors, as events.

use super::client::{Client, Ending, File, Kind, Op, invent};
use super::effects::level_of;
use super::options::Mutation;
use super::resp::Reply;
use super::truth::{Place, value_tag};
use super::world::{Door, Ev, World, WorldEv};
use crate::base::limits::CLIENT_OUT_MAX;
use crate::base::{AckLevel, AlignedBuf, ConnId, JournalKind};
use crate::engine::{ClientDoor, ClientEvent};
use bytes::Bytes;

/// A client gives up after this (microseconds).
const PATIENCE: u64 = 5_000_000;

impl World {
    /// A client acts: connects if it must, then sends one to three commands.
    pub(super) fn client_acts(&mut self, c: usize) {
        let probe = c == self.options.clients;
        if !self.clients[c].idle()
            || (!probe && (self.ops.len() >= self.options.ops || self.operator.healing()))
        {
            return;
        }
        if self.clients[c].conn.is_none() && !self.client_connects(c) {
            if !probe {
                self.after(20_000, WorldEv::Client(c));
            }
            return;
        }
        let Some((n, conn)) = self.clients[c].conn else { return };
        if !probe && self.client_hurries(c, n, conn) {
            return;
        }
        let count = if probe { 1 } else { 1 + self.streams.client.below(3) };
        for _ in 0..count {
            self.client_sends(c, n, conn, probe);
        }
    }

    pub(super) fn client_connects(&mut self, c: usize) -> bool {
        let mut n = self.clients[c].believes;
        if c < self.options.clients && self.streams.client.percent(15) {
            n = 1 - n;
        }
        if self.nodes[n].engine.is_none() {
            self.clients[c].believes = 1 - self.clients[c].believes;
            return false;
        }
        let conn = ConnId(self.next_conn);
        self.next_conn += 1;
        self.clients[c].conn = Some((n, conn));
        self.nodes[n].doors.insert(conn, Door { client: c, ..Door::default() });
        self.input(n, ClientEvent::Opened { conn, door: ClientDoor::Items { trusted: true } });
        self.clients[c].conn.is_some()
    }

    fn client_sends(&mut self, c: usize, n: usize, conn: ConnId, probe: bool) {
        let (mixed, churn) = (n == 0 || self.operator.mixed_is_replicated(), self.operator.churn_exists());
        let mut op = invent(&mut self.streams.client, c, n, mixed, churn);
        if probe {
            (op.kind, op.file, op.items) = (Kind::Set, File::Main, vec![b"probe".to_vec()]);
        }
        let pad: Vec<usize> = (0..op.items.len())
            .map(|_| usize::try_from(self.streams.client.below(self.options.value_max)).unwrap_or(0))
            .collect();
        self.client_sends_op(c, (n, conn), op, &pad);
    }

    /// A client sends this command.
    pub(super) fn client_sends_op(
        &mut self,
        c: usize,
        (n, conn): (usize, ConnId),
        mut op: Op,
        pad: &[usize],
    ) {
        op.at = self.trace.now;
        let number = self.ops.len();
        let Some(door) = self.nodes[n].doors.get_mut(&conn) else { return };
        op.encode(number, pad, &mut door.inbox);
        let reading = door.receive.is_some();
        self.clients[c].expect(number, &op);
        self.trace.event("command", number as u64, c as u64, || {
            format!("client {c} to node {n}: #{number} {op:?}")
        });
        self.ops.push(op);
        let session = self.clients[c].session;
        self.after(PATIENCE, WorldEv::GiveUp(c, session, number));
        if reading {
            let us = 1 + self.streams.client.below(200);
            self.node_after(us, n, Ev::ClientBytes(conn));
        }
    }

    /// The node reads from a client.
    pub(super) fn client_receive(&mut self, n: usize, conn: ConnId, buffer: Vec<u8>) {
        let Some(door) = self.nodes[n].doors.get_mut(&conn) else { return };
        if door.receive.is_some() {
            self.check.fail("driver", format!("node {n} reads twice from client {conn}"));
        }
        let Some(door) = self.nodes[n].doors.get_mut(&conn) else { return };
        door.receive = Some(buffer);
        if !door.inbox.is_empty() {
            let us = 1 + self.streams.client.below(200);
            self.node_after(us, n, Ev::ClientBytes(conn));
        }
    }

    /// The node fills a buffer from a client.
    pub(super) fn client_fill(&mut self, n: usize, conn: ConnId, buffer: AlignedBuf, until: usize) {
        let Some(door) = self.nodes[n].doors.get_mut(&conn) else { return };
        let twice = door.receive.is_some() || door.fill.is_some();
        door.fill = Some((buffer, until));
        let waiting = !door.inbox.is_empty();
        if twice {
            self.check.fail("driver", format!("node {n} reads twice from client {conn}"));
        }
        if waiting {
            self.door_has_bytes(n, conn);
        }
    }

    /// Bytes of a client arrive at the node, cut anywhere.
    pub(super) fn client_bytes(&mut self, n: usize, conn: ConnId) {
        let cut = self.streams.client.percent(30);
        let Some(door) = self.nodes[n].doors.get_mut(&conn) else { return };
        if door.inbox.is_empty() {
            return;
        }
        if let Some((mut buffer, until)) = door.fill.take() {
            // A driver fills a buffer in as many steps as it takes; the node is told of the last.
            let some = door.inbox.len().min(until - buffer.len());
            buffer.extend_from_slice(&door.inbox[..some]);
            door.inbox.drain(..some);
            if buffer.len() < until {
                door.fill = Some((buffer, until));
            } else {
                self.trace.event("client-filled", conn.0, until as u64, || format!("node {n}: {conn}"));
                self.trace.sometimes("a payload was received in place");
                self.input(n, ClientEvent::Filled { conn, buffer });
            }
            return;
        }
        let Some(mut bytes) = door.receive.take() else { return };
        let len = if cut {
            1 + usize::try_from(self.streams.client.below(door.inbox.len() as u64)).unwrap_or(0)
        } else {
            door.inbox.len()
        };
        bytes.clear();
        bytes.extend(door.inbox.drain(..len.min(door.inbox.len())));
        self.trace.event("client-bytes", conn.0, len as u64, || format!("node {n}: {len} from {conn}"));
        self.input(n, ClientEvent::Bytes { conn, bytes });
        self.early_ok(n, conn);
    }

    /// A broken rule: the client is told at once.
    fn early_ok(&mut self, n: usize, conn: ConnId) {
        let Some(door) = self.nodes[n].doors.get(&conn) else { return };
        let (client, last) = (door.client, self.ops.len().saturating_sub(1));
        if client > self.options.clients {
            return;
        }
        let Some(op) = self.ops.get(last) else { return };
        let fits = op.kind == Kind::Set && op.node == n && self.clients[client].conn == Some((n, conn));
        if fits && op.ending == Ending::Open && self.mutate(Mutation::OkBeforeDurable) {
            self.ended_ok(n, last);
        }
    }

    /// The node sends to a client.
    pub(super) fn client_send(&mut self, n: usize, conn: ConnId, bytes: &Bytes) {
        let Some(door) = self.nodes[n].doors.get_mut(&conn) else { return };
        door.sends.push_back(bytes.len());
        let queued: usize = door.sends.iter().sum();
        let client = door.client;
        if queued > 4 * CLIENT_OUT_MAX {
            self.check.fail("I-15", format!("node {n} holds {queued} bytes for client {conn}"));
        }
        let us = 1 + self.streams.client.below(300);
        self.node_after(us, n, Ev::ClientSent(conn));
        if client > self.options.clients {
            return self.blocker_receives(n, client, bytes);
        }
        match self.clients[client].receive(bytes) {
            Ok(done) => {
                for (number, reply) in done {
                    self.answered(n, number, reply);
                }
            }
            Err(error) => self.check.fail("RESP", format!("node {n} to client {conn}: {error}")),
        }
        let probe = client == self.options.clients;
        if !probe && self.clients[client].idle() && self.clients[client].conn.is_some() {
            let us = 1 + self.streams.client.below(self.options.think_us);
            self.after(us, WorldEv::Client(client));
        }
    }

    /// Bytes to a client were taken.
    pub(super) fn client_sent(&mut self, n: usize, conn: ConnId) {
        let Some(door) = self.nodes[n].doors.get_mut(&conn) else { return };
        if door.sends.pop_front().is_some() {
            self.input(n, ClientEvent::Sent { conn });
        }
    }

    /// The node closes a client's connection.
    pub(super) fn client_closed(&mut self, n: usize, conn: ConnId) {
        let Some(door) = self.nodes[n].doors.remove(&conn) else { return };
        let us = 1 + self.streams.client.below(20_000);
        if door.client > self.options.clients {
            return self.gone_from_door(door.client, n, us);
        }
        self.hang_up(door.client);
        self.after(us, WorldEv::Client(door.client));
    }

    pub(super) fn hang_up(&mut self, c: usize) {
        for number in self.clients[c].hang_up() {
            self.end(number, Ending::Unknown);
        }
    }

    /// The clients of a node that died.
    pub(super) fn clients_of_the_dead(&mut self, n: usize) {
        for (_, door) in std::mem::take(&mut self.nodes[n].doors) {
            if door.client > self.options.clients {
                let us = 1 + self.streams.client.below(50_000);
                self.gone_from_door(door.client, n, us);
                continue;
            }
            self.hang_up(door.client);
            if self.streams.client.percent(50) {
                self.clients[door.client].believes = 1 - n;
            }
            let us = 1 + self.streams.client.below(50_000);
            self.after(us, WorldEv::Client(door.client));
        }
    }

    /// A client gives up, if its command was not answered.
    pub(super) fn client_gives_up(&mut self, c: usize, session: u64, number: usize) {
        if self.clients[c].session != session || self.ops[number].ending != Ending::Open {
            return;
        }
        self.check_patience(number);
        if let Some((n, conn)) = self.clients[c].conn {
            self.client_ends(c, n, conn);
        }
        self.clients[c].believes = 1 - self.clients[c].believes;
        self.after(20_000, WorldEv::Client(c));
    }

    /// At level `local` nothing but the node's own disk may keep a client waiting (I-52).
    fn check_patience(&mut self, number: usize) {
        let op = &self.ops[number];
        let n = op.node;
        let local = level_of(op.file, true, self.options.ack_level) == AckLevel::Local
            && self.options.ack_level == AckLevel::Local;
        let healthy = self.nodes[n].engine.is_some() && self.nodes[n].ills.last + 2_000_000 < op.at;
        if local && healthy && self.options.disk_tail_percent == 0 {
            let text = format!("command {number} at level local was not answered for {PATIENCE} us: {op:?}");
            self.check.fail("I-52", text);
        }
    }

    fn end(&mut self, number: usize, ending: Ending) {
        let now = self.trace.now;
        let op = &mut self.ops[number];
        if op.ending == Ending::Open {
            self.trace.event("ended", number as u64, 0, || format!("#{number} {ending:?}"));
            op.ending = ending;
            op.done_at = now;
        }
    }

    fn answered(&mut self, n: usize, number: usize, reply: Reply) {
        if self.ops[number].ending != Ending::Open {
            return;
        }
        let kind = self.ops[number].kind;
        match (kind, reply) {
            (_, Reply::Error(text)) => self.refused(number, text),
            (Kind::Set, Reply::Simple(word)) if word == "OK" => self.ended_ok(n, number),
            (Kind::Transaction, Reply::Array(Some(all)))
                if all.iter().all(|r| *r == Reply::Simple("OK".into())) =>
            {
                self.trace.sometimes("a transaction committed");
                self.ended_ok(n, number);
            }
            (Kind::Transaction, Reply::Array(Some(all)))
                if !all.is_empty() && all.iter().all(|r| matches!(r, Reply::Error(_))) =>
            {
                let text = format!("{:?}", all[0]);
                self.refused(number, text);
            }
            (Kind::Delete, Reply::Number(found @ (0 | 1))) => {
                self.ops[number].found = found == 1;
                if found == 1 {
                    self.ended_ok(n, number);
                } else {
                    self.end(number, Ending::Ok);
                }
            }
            (Kind::Get, Reply::Bulk(value)) => self.got(n, number, value),
            (Kind::Wait, Reply::Number(0 | 1)) => {
                self.trace.sometimes("WAIT was told a count");
                self.end(number, Ending::Ok);
            }
            (_, reply) => {
                self.check.fail("RESP", format!("command {number} ({kind:?}) is answered by {reply:?}"))
            }
        }
    }

    fn refused(&mut self, number: usize, text: String) {
        if text.starts_with("IOERR") {
            // It may be kept or not.
            return self.end(number, Ending::Unknown);
        }
        let op = &self.ops[number];
        let replicated = matches!(op.file, File::Main | File::Safe);
        if text.starts_with("READONLY") {
            self.trace.sometimes("a standby refused an update");
            if !replicated && op.file != File::Mixed && op.file != File::Churn {
                self.check.fail("RESP", format!("command {number} on a local file: {text}"));
            }
        }
        if text.contains("space") {
            self.trace.sometimes("a client was refused because the disk was full");
            self.operator.saw_full(self.ops[number].node);
        }
        let node = self.ops[number].node;
        for client in &mut self.clients {
            // Only those who were told change their mind.
            if client.conn.is_some_and(|(n, _)| n == node) && text.starts_with("READONLY") {
                client.believes = 1 - node;
            }
        }
        self.end(number, Ending::Refused(text));
        self.leave_if_mistaken(number);
    }

    /// A client that was refused by a standby tries the other node.
    fn leave_if_mistaken(&mut self, number: usize) {
        let node = self.ops[number].node;
        let leaving: Vec<usize> = (0..self.clients.len())
            .filter(|&c| {
                self.clients[c].idle()
                    && self.clients[c].believes != node
                    && self.clients[c].conn.is_some_and(|(n, _)| n == node)
            })
            .collect();
        for c in leaving {
            let Some((n, conn)) = self.clients[c].conn else { continue };
            if self.streams.client.percent(50) {
                continue;
            }
            self.nodes[n].doors.remove(&conn);
            self.hang_up(c);
            self.node_after(1, n, Ev::ClientGone(conn));
            self.after(1_000, WorldEv::Client(c));
        }
    }

    /// An update was told ok: where does it stand, and is it as far as promised?
    fn ended_ok(&mut self, n: usize, number: usize) {
        let op = &self.ops[number];
        let mut places = Vec::new();
        if op.kind == Kind::Delete {
            let item = &op.items[0];
            let found = self.check.history.deletes.iter();
            let mut found = found.filter(|(id, place, at)| id == item && place.origin == n && *at >= op.at);
            places.extend(found.next().map(|(_, place, _)| *place));
        } else {
            for part in 0..op.items.len() {
                let all = self.check.history.values.get(&(number, part));
                places.extend(all.and_then(|all| all.iter().find(|p| p.origin == n)).copied());
            }
        }
        let whole = places.len() == if op.kind == Kind::Delete { 1 } else { op.items.len() };
        let (file, kind) = (op.file, op.kind);
        if !whole {
            let text =
                format!("command {number} was told ok, but was not even written to node {n}'s journal");
            return self.check.fail("I-03", text);
        }
        if places.iter().any(|p| p.chain != places[0].chain) && kind != Kind::Delete {
            self.check.fail("I-04", format!("command {number} stands in several batches"));
        }
        let place = places[places.len() - 1];
        let level = level_of(file, place.space == 0, self.options.ack_level);
        if place.space == 0 {
            self.check_lease(n, number);
        }
        self.note_ok(n, file, place);
        self.note_lowered(n);
        self.check.on_ok(n, number, place, level);
        self.end(number, Ending::Ok);
    }

    fn note_ok(&mut self, n: usize, file: File, place: Place) {
        if place.space != 0 && !self.is_primary(n) && file == File::OwnB {
            self.trace.sometimes("a standby accepted an update of its own file");
        }
        if place.space == 0 && self.check.takeovers.contains(&n) {
            self.trace.sometimes("update after a takeover");
        }
        if self.operator.was_full(n) && self.room_again(n) {
            self.trace.sometimes("disk full, then updates again");
        }
    }

    /// A read was answered: with something that was written, is durable here, and is not older than what was
    /// told ok before the read began.
    fn got(&mut self, n: usize, number: usize, mut value: Option<Vec<u8>>) {
        if self.ops[number].file == File::Main
            && self.floor(n, number).is_some()
            && self.mutate(Mutation::StaleRead)
        {
            value = None;
        }
        self.end(number, Ending::Ok);
        let op = &self.ops[number];
        let (file, item) = (op.file, op.items[0].clone());
        let mut seen: Option<Place> = None;
        if let Some(value) = &value {
            let Some((source, part)) = value_tag(value) else {
                return self.check.fail("I-40", format!("command {number} read what nobody wrote"));
            };
            let same =
                self.ops.get(source).is_some_and(|s| s.file == file && s.items.get(part) == Some(&item));
            if !same {
                return self.check.fail("I-40", format!("command {number} read another item's value"));
            }
            let nodes = &self.check.nodes;
            let held = |p: &&Place| match p.space {
                0 => nodes[n].journals[0].holds(p.chain),
                space => space == n + 1 && nodes[n].journals[1].holds(p.chain),
            };
            let all = self.check.history.values.get(&(source, part));
            seen = all.and_then(|all| all.iter().rev().find(held)).copied();
            if seen.is_none() {
                let text = format!("command {number} read v{source}.{part}, which is not on node {n}'s disk");
                return self.check.fail("I-03", text);
            }
        }
        // While logging is paused updates go to the other journal, whose numbers say nothing here.
        let elsewhere = self.operator.paused_ever && matches!(file, File::Main | File::Safe);
        if elsewhere || matches!(file, File::Mixed | File::Churn) {
            return;
        }
        let Some((floor, deleted)) = self.floor(n, number) else { return };
        let stale = match seen {
            Some(place) => place.seq < floor.seq,
            None => !deleted,
        };
        if stale {
            let text = format!(
                "command {number} on node {n} read {seen:?}, but {floor:?} was told ok before it began"
            );
            self.check.fail("I-01", text);
        }
    }

    /// The newest update of the item that a read must show: its place, and whether a deletion may have followed.
    fn floor(&self, n: usize, number: usize) -> Option<(Place, bool)> {
        let op = &self.ops[number];
        let serves = self.is_primary(n);
        let space = if matches!(op.file, File::OwnA | File::OwnB) { n + 1 } else { 0 };
        let journal = if space == 0 { JournalKind::Replicated } else { JournalKind::Local };
        let mut best: Option<Place> = None;
        for acked in &self.check.acked {
            let other = &self.ops[acked.op];
            let part = other.items.iter().position(|item| *item == op.items[0]);
            let Some(part) = part.filter(|_| other.file == op.file && acked.place.space == space) else {
                continue;
            };
            // The part's own place, for a command's last part stands later than its first.
            let all = self.check.history.values.get(&(acked.op, part));
            let place = all.and_then(|all| all.iter().find(|p| p.chain == acked.place.chain)).copied();
            let place = place.unwrap_or(acked.place);
            // A standby that restarted shows less until its primary announces again what is durable.
            let still = acked.level == AckLevel::Applied && acked.peer_deaths == self.check.nodes[n].deaths;
            let visible = space != 0 || serves || still;
            if visible
                && other.done_at < op.at
                && best.is_none_or(|b| place.seq > b.seq)
                && self.check.nodes[n].journals[journal.index()].holds(place.chain)
            {
                best = Some(place);
            }
        }
        let best = best?;
        let deletes = &self.check.history.deletes;
        let deleted =
            deletes.iter().any(|(id, p, _)| *id == op.items[0] && p.space == space && p.seq >= best.seq);
        Some((best, deleted))
    }

    /// An operation made by hand, for the last test that a pair passes.
    pub(super) fn send_probe(&mut self, n: usize) -> bool {
        let c = self.options.clients;
        if let Some((m, conn)) = self.clients[c].conn
            && (m != n || !self.nodes[m].doors.contains_key(&conn))
        {
            self.clients[c] = Client::new();
        }
        self.clients[c].believes = n;
        let before = self.ops.len();
        self.client_acts(c);
        self.ops.len() > before
    }
}

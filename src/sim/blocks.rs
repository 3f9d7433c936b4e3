//! Clients of volumes at the nodes' NBD doors: what they send, what they make of the answers.
//!
//! Each client has a range of the volume to itself, so it knows what may stand there: the newest write that is certain
//! (accepted on this connection, or told safe by a flush and not lost by a takeover), or any write after it. The
//! protocol's numbers are written out here once more, as a foreign client would have them.

use super::client::{Ending, File, Kind, Op};
use super::effects::level_of;
use super::options::Mutation;
use super::truth::Place;
use super::world::{Door, Ev, World, WorldEv};
use crate::base::{ConnId, FileId};
use crate::engine::{ClientDoor, ClientEvent, Tls};
use crate::format::batch::Batch;
use crate::format::entry::{BlockContent, EntryKind};
use bytes::Bytes;
use std::collections::BTreeMap;

/// How many clients of volumes a run has.
pub(super) const BLOCKERS: usize = 2;
/// Size of the volume (bytes).
pub(super) const VOLUME: u64 = 512 << 10;
/// What belongs to one client (bytes).
const REGION: u64 = 160 << 10;
/// Most small writes go into this much of it, so that they overlap (bytes).
const BUSY: u64 = 6 << 10;
/// A client gives up after this (microseconds).
const PATIENCE: u64 = 5_000_000;

const OPTION_MAGIC: &[u8; 8] = b"IHAVEOPT";
const REQUEST_MAGIC: u32 = 0x2560_9513;
const REPLY_MAGIC: u32 = 0x6744_6698;
const FUA: u16 = 1;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ask {
    /// Sent after so many changes, which are handled before it.
    Read {
        offset: u64,
        len: u64,
        after: usize,
    },
    Write {
        at: usize,
        fua: bool,
    },
    Zero {
        at: usize,
    },
    /// Everything answered up to here in the log is safe when it is answered.
    Flush {
        covers: usize,
    },
}

/// A change that a client sent.
#[derive(Clone, Debug)]
struct Written {
    /// Its number among all commands, which makes its bytes unique.
    number: usize,
    offset: u64,
    len: u64,
    zeros: bool,
    /// The connection on which it was accepted.
    accepted: Option<u64>,
    /// A flush covered it.
    safe: bool,
}

/// How far the connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Greeting,
    Export,
    Ready,
}

/// A client of the volume.
#[derive(Debug)]
pub(super) struct Blocker {
    conn: Option<(usize, ConnId)>,
    session: u64,
    believes: usize,
    stage: Stage,
    read_only: bool,
    inbox: Vec<u8>,
    open: BTreeMap<u64, (Ask, usize)>,
    next_cookie: u64,
    log: Vec<Written>,
}

impl Blocker {
    /// A client that was never connected.
    pub(super) fn new() -> Self {
        Self {
            conn: None,
            session: 0,
            believes: 0,
            stage: Stage::Greeting,
            read_only: false,
            inbox: Vec::new(),
            open: BTreeMap::new(),
            next_cookie: 1,
            log: Vec::new(),
        }
    }

    /// Whether every request was answered.
    pub(super) fn idle(&self) -> bool {
        self.open.is_empty()
    }
}

/// The bytes of a write.
fn payload(number: usize, len: u64) -> Vec<u8> {
    let tag = format!("v{number}.0~");
    let mut bytes = vec![b'a' + u8::try_from(number % 26).unwrap_or(0); usize::try_from(len).unwrap_or(0)];
    let some = tag.len().min(bytes.len());
    bytes[..some].copy_from_slice(&tag.as_bytes()[..some]);
    bytes
}

fn request(out: &mut Vec<u8>, flags: u16, command: u16, cookie: u64, offset: u64, len: u64) {
    out.extend_from_slice(&REQUEST_MAGIC.to_be_bytes());
    out.extend_from_slice(&flags.to_be_bytes());
    out.extend_from_slice(&command.to_be_bytes());
    out.extend_from_slice(&cookie.to_be_bytes());
    out.extend_from_slice(&offset.to_be_bytes());
    out.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
}

impl World {
    fn is_blocker(&self, c: usize) -> bool {
        c > self.options.clients
    }

    /// A client of the volume acts: connects if it must, then sends some requests.
    pub(super) fn blocker_acts(&mut self, b: usize) {
        if !self.options.volumes
            || !self.blockers[b].idle()
            || self.ops.len() >= self.options.ops
            || self.operator.healing()
        {
            return;
        }
        if self.blockers[b].conn.is_none() {
            if !self.blocker_connects(b) {
                self.after(20_000, WorldEv::Blocker(b));
            }
            return;
        }
        if self.blockers[b].stage != Stage::Ready {
            return;
        }
        for _ in 0..=self.streams.client.below(4) {
            self.blocker_sends(b);
        }
    }

    fn blocker_connects(&mut self, b: usize) -> bool {
        let mut n = self.blockers[b].believes;
        if self.streams.client.percent(15) {
            n = 1 - n;
        }
        if self.nodes[n].engine.is_none() {
            self.blockers[b].believes = 1 - n;
            return false;
        }
        self.blocker_calls(b, n);
        true
    }

    /// A client of the volume connects to a node that lives.
    fn blocker_calls(&mut self, b: usize, n: usize) {
        let conn = ConnId(self.next_conn);
        self.next_conn += 1;
        let client = &mut self.blockers[b];
        client.conn = Some((n, conn));
        client.stage = Stage::Greeting;
        client.inbox.clear();
        let session = client.session;
        let door = Door { client: self.options.clients + 1 + b, ..Door::default() };
        self.nodes[n].doors.insert(conn, door);
        self.after(PATIENCE, WorldEv::BlockerGivesUp(b, session, None));
        self.input(n, ClientEvent::Opened { conn, door: ClientDoor::Blocks { tls: Tls::Off } });
    }

    fn blocker_sends(&mut self, b: usize) {
        let base = b as u64 * REGION;
        let prng = &mut self.streams.client;
        let reads_only = self.blockers[b].read_only;
        let dice = if reads_only { 0 } else { prng.below(20) };
        let big = prng.percent(1);
        let len = if big {
            (70 << 10) + prng.below(40 << 10)
        } else {
            12 + prng.below(self.options.value_max.max(600))
        };
        let mut offset = base + if big { prng.below(40 << 10) } else { prng.below(BUSY) };
        if prng.percent(50) {
            offset = offset / 512 * 512;
        }
        let fua = prng.percent(15);
        let number = self.ops.len();
        let client = &mut self.blockers[b];
        let at = client.log.len();
        let written = Written { number, offset, len, zeros: false, accepted: None, safe: false };
        let (ask, flags, command, range) = match dice {
            0..=3 => (Ask::Read { offset, len, after: at }, 0, 0, (offset, len)),
            4..=5 => {
                client.log.push(Written { zeros: true, ..written });
                (Ask::Zero { at }, 0, if dice == 4 { 4 } else { 6 }, (offset, len))
            }
            6..=8 => {
                // What was sent before is handled before; what was not answered yet is no part of the promise.
                let covers = client.log.len();
                (Ask::Flush { covers }, 0, 3, (0, 0))
            }
            _ => {
                client.log.push(written);
                (Ask::Write { at, fua }, if fua { FUA } else { 0 }, 1, (offset, len))
            }
        };
        self.blocker_asks(b, ask, (flags, command), range);
    }

    /// Sends a request, as the newest command of all.
    fn blocker_asks(&mut self, b: usize, ask: Ask, (flags, command): (u16, u16), (offset, len): (u64, u64)) {
        let number = self.ops.len();
        let client = &mut self.blockers[b];
        let Some((n, conn)) = client.conn else { return };
        let cookie = client.next_cookie;
        client.next_cookie += 1;
        client.open.insert(cookie, (ask, number));
        let session = client.session;
        let kind = if matches!(ask, Ask::Write { .. }) { Kind::BlockWrite } else { Kind::BlockOther };
        let Some(door) = self.nodes[n].doors.get_mut(&conn) else { return };
        request(&mut door.inbox, flags, command, cookie, offset, len);
        if kind == Kind::BlockWrite {
            door.inbox.extend_from_slice(&payload(number, len));
        }
        self.trace.event("block-request", number as u64, b as u64, || {
            format!("blocker {b} to node {n}: #{number} cookie {cookie} {ask:?}")
        });
        let (at, ending) = (self.trace.now, Ending::Open);
        let file = File::Volume;
        self.ops.push(Op { kind, file, items: Vec::new(), node: n, at, done_at: 0, ending, found: false });
        self.after(PATIENCE, WorldEv::BlockerGivesUp(b, session, Some(cookie)));
        self.door_has_bytes(n, conn);
    }

    /// One step on the way of a client of the volume to a node where it may write; true when it is there.
    pub(super) fn blocker_comes_to(&mut self, b: usize, n: usize) -> bool {
        let client = &self.blockers[b];
        match (client.conn, client.stage) {
            (Some((at, _)), Stage::Ready) if at == n && !client.read_only => return true,
            // The node is not yet what it will be.
            (Some((at, conn)), Stage::Ready) => self.blocker_leaves(b, at, conn),
            (Some(_), _) => {}
            (None, _) if self.nodes[n].engine.is_some() => self.blocker_calls(b, n),
            (None, _) => {}
        }
        false
    }

    /// It writes some bytes.
    pub(super) fn blocker_writes(&mut self, b: usize) {
        let (number, at) = (self.ops.len(), self.blockers[b].log.len());
        let (offset, len) = (b as u64 * REGION, 600);
        self.blockers[b].log.push(Written { number, offset, len, zeros: false, accepted: None, safe: false });
        self.blocker_asks(b, Ask::Write { at, fua: false }, (0, 1), (offset, len));
    }

    /// It flushes.
    pub(super) fn blocker_flushes(&mut self, b: usize) {
        let covers = self.blockers[b].log.len();
        self.blocker_asks(b, Ask::Flush { covers }, (0, 3), (0, 0));
    }

    /// Whether its last write was answered and is on a node's disk.
    pub(super) fn blocker_wrote(&self, b: usize, n: usize) -> bool {
        let last = self.blockers[b].log.last().filter(|last| last.accepted.is_some());
        let places = last.and_then(|last| self.check.history.values.get(&(last.number, 0)));
        places.is_some_and(|places| places.iter().any(|place| self.check.has(n, place)))
    }

    /// Whether its last write was told safe.
    pub(super) fn blocker_is_safe(&self, b: usize) -> bool {
        self.blockers[b].log.last().is_some_and(|last| last.safe)
    }

    /// Bytes for a node wait at a door.
    pub(super) fn door_has_bytes(&mut self, n: usize, conn: ConnId) {
        let reading =
            self.nodes[n].doors.get(&conn).is_some_and(|door| door.receive.is_some() || door.fill.is_some());
        if reading {
            let us = 1 + self.streams.client.below(200);
            self.node_after(us, n, Ev::ClientBytes(conn));
        }
    }

    /// The node sends to a client of the volume.
    pub(super) fn blocker_receives(&mut self, n: usize, c: usize, bytes: &Bytes) {
        let b = c - self.options.clients - 1;
        self.blockers[b].inbox.extend_from_slice(bytes);
        while self.blocker_step(n, b) {}
        if self.blockers[b].idle()
            && self.blockers[b].conn.is_some()
            && self.blockers[b].stage == Stage::Ready
        {
            let us = 1 + self.streams.client.below(self.options.think_us);
            self.after(us, WorldEv::Blocker(b));
        }
    }

    /// Takes the next message of the node off the inbox; false when there is no whole one.
    fn blocker_step(&mut self, n: usize, b: usize) -> bool {
        let Some((_, conn)) = self.blockers[b].conn else { return false };
        let client = &mut self.blockers[b];
        match client.stage {
            Stage::Greeting if client.inbox.len() >= 18 => {
                if !client.inbox.starts_with(b"NBDMAGICIHAVEOPT") {
                    self.check.fail("NBD", format!("node {n} greets with {:?}", client.inbox));
                    return false;
                }
                client.inbox.drain(..18);
                client.stage = Stage::Export;
                // Fixed newstyle, no zeroes; then the name of the export.
                let name = b"app/vol";
                let mut out = 3_u32.to_be_bytes().to_vec();
                out.extend_from_slice(OPTION_MAGIC);
                out.extend_from_slice(&1_u32.to_be_bytes());
                out.extend_from_slice(&u32::try_from(name.len()).unwrap_or(0).to_be_bytes());
                out.extend_from_slice(name);
                if let Some(door) = self.nodes[n].doors.get_mut(&conn) {
                    door.inbox.extend_from_slice(&out);
                }
                self.door_has_bytes(n, conn);
                true
            }
            Stage::Export if client.inbox.len() >= 10 => {
                let flags = u16::from_be_bytes([client.inbox[8], client.inbox[9]]);
                client.inbox.drain(..10);
                client.stage = Stage::Ready;
                client.read_only = flags & 2 != 0;
                if client.read_only {
                    self.trace.sometimes("a standby showed a volume read-only");
                }
                let us = 1 + self.streams.client.below(self.options.think_us);
                self.after(us, WorldEv::Blocker(b));
                true
            }
            Stage::Ready if client.inbox.len() >= 16 => self.blocker_reply(n, b),
            _ => false,
        }
    }

    fn blocker_reply(&mut self, n: usize, b: usize) -> bool {
        let client = &mut self.blockers[b];
        let word = |at: usize| u32::from_be_bytes(client.inbox[at..at + 4].try_into().unwrap_or_default());
        let (magic, error) = (word(0), word(4));
        let cookie = u64::from_be_bytes(client.inbox[8..16].try_into().unwrap_or_default());
        let Some(&(ask, number)) = client.open.get(&cookie).filter(|_| magic == REPLY_MAGIC) else {
            self.check.fail("NBD", format!("node {n} answers what was not asked: cookie {cookie}"));
            return false;
        };
        let data = match ask {
            Ask::Read { len, .. } if error == 0 => usize::try_from(len).unwrap_or(0),
            _ => 0,
        };
        if client.inbox.len() < 16 + data {
            return false;
        }
        let bytes: Vec<u8> = client.inbox.drain(..16 + data).skip(16).collect();
        client.open.remove(&cookie);
        let now = self.trace.now;
        self.trace.event("block-reply", cookie, u64::from(error), || {
            format!("node {n} to blocker {b}: #{number} cookie {cookie} error {error}")
        });
        let ending = match ask {
            _ if error == 0 => Ending::Ok,
            // It may have been accepted, and is not known to be safe.
            Ask::Write { fua: true, .. } => Ending::Unknown,
            _ => Ending::Refused(format!("errno {error}")),
        };
        (self.ops[number].ending, self.ops[number].done_at) = (ending, now);
        if error == 0 {
            self.blocker_told(n, b, ask, &bytes);
        } else if error == 28 {
            self.operator.saw_full(n);
        } else if self.streams.client.percent(50) {
            self.blockers[b].believes = 1 - n;
        }
        true
    }

    /// A request was answered with success.
    fn blocker_told(&mut self, n: usize, b: usize, ask: Ask, bytes: &[u8]) {
        let session = self.blockers[b].session;
        match ask {
            Ask::Write { at, fua } => {
                self.blockers[b].log[at].accepted = Some(session);
                if fua {
                    self.blocker_safe(n, b, at + 1, at);
                }
            }
            Ask::Zero { at } => self.blockers[b].log[at].accepted = Some(session),
            Ask::Flush { covers } => self.blocker_safe(n, b, covers, usize::MAX),
            Ask::Read { offset, after, .. } => self.blocker_read(n, b, offset, after, bytes),
        }
    }

    /// Every change up to `covers` that was answered before the flush, or is `own`, is safe at the volume's level.
    fn blocker_safe(&mut self, n: usize, b: usize, covers: usize, own: usize) {
        let session = self.blockers[b].session;
        self.trace.sometimes("a flush of a volume was answered");
        let level = level_of(File::Volume, true, self.options.ack_level);
        for at in 0..covers {
            let written = &self.blockers[b].log[at];
            let due = written.accepted.is_some() && !written.safe && !written.zeros;
            if !due || (own != usize::MAX && own != at) {
                continue;
            }
            let (number, earlier) = (written.number, written.accepted != Some(session));
            let all = self.check.history.values.get(&(number, 0));
            // What was answered on an earlier connection may be lost; if this node has it, whatever its life and
            // whoever was primary then, the flush is for it too.
            let here = |p: &&Place| if earlier { self.check.has(n, p) } else { p.origin == n };
            let Some(place) = all.and_then(|all| all.iter().find(here)).copied() else {
                if earlier {
                    continue;
                }
                let text = format!("write {number} is safe, but was not even written to node {n}'s journal");
                return self.check.fail("I-03", text);
            };
            if earlier {
                self.trace.sometimes("a flush covered a write of an earlier connection");
            }
            self.blockers[b].log[at].safe = !self.check.is_replaced(n);
            self.note_lowered(n);
            self.check.on_ok(n, number, place, level);
        }
    }

    /// What was read must be what the client's own writes allow.
    fn blocker_read(&mut self, n: usize, b: usize, offset: u64, after: usize, bytes: &[u8]) {
        if !self.is_primary(n) || self.blockers[b].read_only {
            // Compared with the node's own history where it was read from the store.
            return;
        }
        let stale = self.mutate(Mutation::StaleRead);
        let client = &self.blockers[b];
        let end = offset + bytes.len() as u64;
        let touching: Vec<(usize, &Written)> = client
            .log
            .iter()
            .enumerate()
            .filter(|(_, w)| w.offset < end && w.offset + w.len > offset)
            .collect();
        let mut wrong = None;
        for (index, &byte) in bytes.iter().enumerate() {
            let byte = if stale { 0 } else { byte };
            let at = offset + index as u64;
            let covering = touching.iter().filter(|(_, w)| w.offset <= at && w.offset + w.len > at);
            let mut floor = true;
            let mut allowed = false;
            for (index, w) in covering.rev() {
                allowed |= byte == byte_of(w, at);
                let certain = *index < after
                    && (w.accepted == Some(client.session)
                        || (w.safe && !self.check.lost.contains(&w.number)));
                if certain {
                    floor = false;
                    break;
                }
            }
            let nothing_there = floor && byte == 0;
            if !allowed && !nothing_there {
                wrong = Some(at);
                break;
            }
        }
        if let Some(at) = wrong {
            let text = format!("blocker {b} read from node {n} at byte {at} what it may not see");
            self.check.fail("I-01", text);
        }
    }

    /// A client of the volume gives up.
    pub(super) fn blocker_gives_up(&mut self, b: usize, session: u64, cookie: Option<u64>) {
        let client = &self.blockers[b];
        let waits = match cookie {
            None => client.stage != Stage::Ready,
            Some(cookie) => client.open.contains_key(&cookie),
        };
        if client.session != session || !waits {
            return;
        }
        if let Some((n, conn)) = client.conn {
            self.blocker_leaves(b, n, conn);
        }
        self.blockers[b].believes = 1 - self.blockers[b].believes;
        self.after(20_000, WorldEv::Blocker(b));
    }

    /// It ends its connection.
    fn blocker_leaves(&mut self, b: usize, n: usize, conn: ConnId) {
        self.nodes[n].doors.remove(&conn);
        self.blocker_hangs_up(b);
        self.input(n, ClientEvent::Closed { conn });
    }

    /// The connection is over.
    pub(super) fn blocker_hangs_up(&mut self, b: usize) {
        let client = &mut self.blockers[b];
        client.conn = None;
        client.session += 1;
        for (_, number) in std::mem::take(&mut client.open).into_values() {
            self.ops[number].ending = Ending::Unknown;
        }
    }

    /// Whoever was at a door that is gone, client of items or of the volume.
    pub(super) fn gone_from_door(&mut self, c: usize, n: usize, us: u64) {
        if !self.is_blocker(c) {
            return;
        }
        let b = c - self.options.clients - 1;
        self.blocker_hangs_up(b);
        if self.streams.client.percent(50) {
            self.blockers[b].believes = 1 - n;
        }
        self.after(us, WorldEv::Blocker(b));
    }

    /// A node reads a volume from its store: what is there must be what its own history makes of it.
    pub(super) fn store_reads(&mut self, n: usize, file: FileId, offset: u64, len: usize) -> Bytes {
        let bytes = self.nodes[n].store.volume_bytes(file, offset, len);
        let log = self.nodes[n].log.iter().map(|(_, batch)| batch);
        let model = volume_model(n, file, (offset, len), log);
        if model != bytes.as_ref() {
            let i = bytes.iter().zip(&model).position(|(a, b)| a != b).unwrap_or(0);
            let at = offset + i as u64;
            let text = format!("node {n}'s volume {file} differs from its history at byte {at}");
            self.check.fail("I-10", text);
        }
        bytes
    }
}

fn byte_of(written: &Written, at: u64) -> u8 {
    if written.zeros {
        return 0;
    }
    let index = usize::try_from(at - written.offset).unwrap_or(usize::MAX);
    let tag = format!("v{}.0~", written.number);
    let fill = b'a' + u8::try_from(written.number % 26).unwrap_or(0);
    tag.as_bytes().get(index).copied().unwrap_or(fill)
}

/// Plays batches into a range of one volume: the small model that a store is compared with.
pub(super) fn volume_model<'a>(
    node: usize,
    file: FileId,
    (offset, len): (u64, usize),
    log: impl Iterator<Item = &'a Batch>,
) -> Vec<u8> {
    let mut range = vec![0; len];
    let end = offset + len as u64;
    for batch in log.filter(|batch| batch.changes_volumes()) {
        for (_, entry) in batch.entries().filter(|(_, entry)| entry.file == file) {
            match entry.kind {
                EntryKind::FileClear | EntryKind::FileDelete => range = vec![0; len],
                EntryKind::CopyBegin if entry.value.first().map(|&o| usize::from(o)) != Some(node) => {
                    range = vec![0; len];
                }
                _ => {
                    let Some(change) = entry.block_change() else { continue };
                    let (from, until) = (change.offset.max(offset), change.end().min(end));
                    if from >= until {
                        continue;
                    }
                    let index = |at: u64, base: u64| usize::try_from(at - base).unwrap_or(0);
                    let place = &mut range[index(from, offset)..index(until, offset)];
                    match change.content {
                        BlockContent::Data(bytes) => {
                            let (a, b) = (index(from, change.offset), index(until, change.offset));
                            place.copy_from_slice(&bytes[a..b]);
                        }
                        BlockContent::Hole | BlockContent::Zeros => place.fill(0),
                    }
                }
            }
        }
    }
    range
}

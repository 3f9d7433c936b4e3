//! The door against a small model of the database.

mod ends;
mod handshake;
mod limits;
mod payloads;
mod random;
mod requests;

use super::fuzz::{fuzz_nbd_handshake, fuzz_nbd_transmission};
use super::{NbdConfig, NbdDoor, NbdOutput, Tls};
use crate::base::limits::BLOCK_PAYLOAD_MAX;
use crate::base::{AckLevel, AlignedBuf, ConnId, FileId, JournalKind, Mono, Now, Prng, Seq, Wait};
use crate::doors::{
    Allocation, BlockBackend, CommitWatermarks, PAYLOAD_HEADROOM, Payload, Piece, Refusal, Volume,
};
use crate::format::nbd::{self, Request};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};

const DISK: FileId = FileId(7);
const NAME: &str = "acc/disk";

/// What was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Did {
    Write { offset: u64, len: usize, owned: bool },
    Zero { offset: u64, len: u64, hole: bool },
}

/// A database of volumes in memory, whose waits are over when a test says so.
#[derive(Debug)]
struct Model {
    volumes: Vec<Volume>,
    content: BTreeMap<FileId, Vec<u8>>,
    did: Vec<Did>,
    seq: u64,
    safe: u64,
    congested: bool,
    /// After so many more changes it is congested.
    room: Option<usize>,
    refuse: Option<Refusal>,
    reads: VecDeque<(u64, Vec<Piece>)>,
    allocations: VecDeque<(u64, u64)>,
}

impl Model {
    fn new(bytes: usize) -> Self {
        let size = bytes as u64;
        Self {
            volumes: vec![Volume { file: DISK, name: NAME.to_owned(), bytes: size, writable: true }],
            content: BTreeMap::from([(DISK, vec![0; bytes])]),
            did: Vec::new(),
            seq: 0,
            safe: 0,
            congested: false,
            room: None,
            refuse: None,
            reads: VecDeque::new(),
            allocations: VecDeque::new(),
        }
    }

    fn change(&mut self) -> Result<Wait, Refusal> {
        assert!(!self.congested, "a change while congested");
        if let Some(refusal) = self.refuse.clone() {
            return Err(refusal);
        }
        if let Some(room) = &mut self.room {
            *room -= 1;
            self.congested = *room == 0;
        }
        self.seq += 1;
        Ok(self.wait())
    }

    fn wait(&self) -> Wait {
        Wait { journal: JournalKind::Local, seq: Seq(self.seq), level: AckLevel::Local }
    }

    fn range(&mut self, file: FileId, offset: u64, len: u64) -> &mut [u8] {
        let start = usize::try_from(offset).expect("small");
        let len = usize::try_from(len).expect("small");
        &mut self.content.get_mut(&file).expect("there")[start..start + len]
    }
}

impl BlockBackend for Model {
    fn volumes(&self) -> Vec<Volume> {
        self.volumes.clone()
    }

    fn volume_named(&self, name: &[u8]) -> Result<Volume, Refusal> {
        let found = self.volumes.iter().find(|volume| volume.name.as_bytes() == name);
        found.cloned().ok_or_else(|| Refusal::NoSuchFile("it".to_owned()))
    }

    fn volume(&self, file: FileId) -> Result<Volume, Refusal> {
        let found = self.volumes.iter().find(|volume| volume.file == file);
        found.cloned().ok_or_else(|| Refusal::NoSuchFile("it".to_owned()))
    }

    fn write_blocks(&mut self, file: FileId, offset: u64, payload: Payload<'_>) -> Result<Wait, Refusal> {
        assert!((1..=BLOCK_PAYLOAD_MAX).contains(&payload.len()));
        let wait = self.change()?;
        let len = payload.len();
        let owned = matches!(payload, Payload::Owned(_));
        self.did.push(Did::Write { offset, len, owned });
        let place = self.range(file, offset, len as u64);
        match payload {
            Payload::Borrowed(bytes) => place.copy_from_slice(bytes),
            Payload::Owned(buffer) => place.copy_from_slice(&buffer.as_ref()[PAYLOAD_HEADROOM..]),
        }
        Ok(wait)
    }

    fn zero_blocks(&mut self, file: FileId, offset: u64, len: u64, hole: bool) -> Result<Wait, Refusal> {
        assert!(len > 0);
        let wait = self.change()?;
        self.did.push(Did::Zero { offset, len, hole });
        self.range(file, offset, len).fill(0);
        Ok(wait)
    }

    fn flush_blocks(&mut self, _: FileId) -> Result<[Wait; 2], Refusal> {
        self.refuse.clone().map_or_else(|| Ok([self.wait(); 2]), Err)
    }

    fn read_blocks(&mut self, token: u64, file: FileId, offset: u64, len: u32) -> Result<(), Refusal> {
        if let Some(refusal) = self.refuse.clone() {
            return Err(refusal);
        }
        // Blocks of zeros are told as such, so that replies have pieces of both kinds.
        let mut pieces = Vec::new();
        for block in self.range(file, offset, u64::from(len)).chunks(4096) {
            match block.iter().all(|byte| *byte == 0) {
                true => pieces.push(Piece::Zeros(block.len() as u64)),
                false => pieces.push(Piece::Data(Bytes::copy_from_slice(block))),
            }
        }
        self.reads.push_back((token, pieces));
        Ok(())
    }

    fn allocation(&mut self, token: u64, _: FileId, _: u64, len: u64) -> Result<(), Refusal> {
        self.allocations.push_back((token, len));
        Ok(())
    }

    fn watermarks(&self) -> CommitWatermarks {
        CommitWatermarks { durable: [Seq(0), Seq(self.safe)], replicated: [Seq(0); 4] }
    }

    fn blocks_congested(&self) -> bool {
        self.congested
    }
}

/// What the door asked last and was not answered.
#[derive(Debug)]
enum Wanted {
    Receive(Vec<u8>),
    Fill(AlignedBuf, usize),
}

/// One client, seen from outside.
#[derive(Debug, Default)]
struct Peer {
    /// To the door, not yet taken.
    to: VecDeque<u8>,
    /// From the door.
    from: Vec<u8>,
    sends: usize,
    unanswered: usize,
    wanted: Option<Wanted>,
    tls: bool,
    proven: bool,
    refused: Vec<String>,
    closed: bool,
    cut: bool,
}

/// The door, the model and clients.
struct World {
    door: NbdDoor,
    model: Model,
    peers: BTreeMap<ConnId, Peer>,
    now: Now,
    /// Sends are answered at once.
    takes: bool,
    random: Option<Prng>,
}

const ONE: ConnId = ConnId(1);
const TWO: ConnId = ConnId(2);

impl World {
    fn new(bytes: usize) -> Self {
        let door = NbdDoor::new(NbdConfig::default());
        let (now, peers) = (Now::default(), BTreeMap::new());
        Self { door, model: Model::new(bytes), peers, now, takes: true, random: None }
    }

    fn open(&mut self, conn: ConnId, tls: Tls) {
        self.peers.insert(conn, Peer::default());
        self.door.open(self.now, conn, tls);
        self.run();
    }

    /// A client that has chosen the disk; its greeting and replies to options are forgotten.
    fn client(&mut self, conn: ConnId, structured: bool) {
        self.open(conn, Tls::Off);
        let mut bytes = vec![0, 0, 0, 3];
        if structured {
            bytes.extend(option(nbd::OPT_STRUCTURED_REPLY, b""));
            bytes.extend(option(nbd::OPT_SET_META_CONTEXT, &meta(NAME, &["base:allocation"])));
        }
        bytes.extend(option(nbd::OPT_GO, &info(NAME, &[])));
        self.send(conn, &bytes);
        self.take(conn);
    }

    fn peer(&mut self, conn: ConnId) -> &mut Peer {
        self.peers.get_mut(&conn).expect("a client")
    }

    fn send(&mut self, conn: ConnId, bytes: &[u8]) {
        self.peer(conn).to.extend(bytes);
        self.run();
    }

    /// What came from the door since.
    fn take(&mut self, conn: ConnId) -> Vec<u8> {
        std::mem::take(&mut self.peer(conn).from)
    }

    fn outputs(&mut self) -> bool {
        let mut any = false;
        while let Some(output) = self.door.output() {
            any = true;
            match output {
                NbdOutput::Send { conn, bytes } => {
                    let takes = self.takes;
                    let peer = self.peer(conn);
                    peer.from.extend_from_slice(&bytes);
                    peer.sends += 1;
                    match takes {
                        true => self.door.sent(self.now, conn),
                        false => peer.unanswered += 1,
                    }
                }
                NbdOutput::Receive { conn, buffer } => {
                    assert!(buffer.is_empty() && buffer.capacity() > 0);
                    let before = self.peer(conn).wanted.replace(Wanted::Receive(buffer));
                    assert!(before.is_none(), "two reads at once");
                }
                NbdOutput::Fill { conn, buffer, until } => {
                    assert!(buffer.len() < until && buffer.spare() >= until - buffer.len());
                    let before = self.peer(conn).wanted.replace(Wanted::Fill(buffer, until));
                    assert!(before.is_none(), "two reads at once");
                }
                NbdOutput::StartTls { conn } => self.peer(conn).tls = true,
                NbdOutput::Proven { conn } => self.peer(conn).proven = true,
                NbdOutput::Refused { conn, why } => self.peer(conn).refused.push(why),
                NbdOutput::Close { conn, stuck } => {
                    let peer = self.peer(conn);
                    (peer.closed, peer.cut) = (true, stuck);
                }
            }
        }
        any
    }

    fn inputs(&mut self) -> bool {
        let mut any = false;
        let conns: Vec<_> = self.peers.keys().copied().collect();
        for conn in conns {
            let cut = self.random.as_mut().map(|random| 1 + random.below(3000));
            let cut = cut.map_or(usize::MAX, |cut| usize::try_from(cut).expect("small"));
            let peer = self.peers.get_mut(&conn).expect("a client");
            match peer.wanted.take() {
                Some(Wanted::Receive(mut buffer)) if !peer.to.is_empty() => {
                    let len = peer.to.len().min(buffer.capacity()).min(cut);
                    buffer.extend(peer.to.drain(..len));
                    self.door.input(self.now, conn, buffer, &mut self.model);
                    any = true;
                }
                Some(Wanted::Fill(mut buffer, until)) if !peer.to.is_empty() => {
                    let len = peer.to.len().min(until - buffer.len());
                    let bytes: Vec<u8> = peer.to.drain(..len).collect();
                    buffer.extend_from_slice(&bytes);
                    match buffer.len() == until {
                        true => self.door.filled(self.now, conn, buffer, &mut self.model),
                        false => peer.wanted = Some(Wanted::Fill(buffer, until)),
                    }
                    any = true;
                }
                other => peer.wanted = other,
            }
        }
        any
    }

    /// One round of events after the other, until nothing moves.
    fn run(&mut self) {
        loop {
            let mut moved = self.outputs();
            moved |= self.inputs();
            self.door.tick(self.now, &mut self.model);
            self.door.release(self.now, &mut self.model);
            moved |= self.outputs();
            if !moved {
                return;
            }
        }
    }

    /// The backend answers all that it was asked to read.
    fn answer(&mut self) {
        while let Some((token, pieces)) = self.model.reads.pop_front() {
            self.door.read_done(self.now, token, Ok(pieces));
        }
        while let Some((token, len)) = self.model.allocations.pop_front() {
            let half = len / 2;
            let parts = [(half, true), (len - half, false)];
            let parts = parts.map(|(len, hole)| Allocation { len, hole });
            self.door.allocation_done(self.now, token, Ok(parts.to_vec()));
        }
        self.run();
    }

    fn safe(&mut self, seq: u64) {
        self.model.safe = seq;
        self.run();
    }

    /// Sends a request with a payload, if it is a write.
    fn ask(&mut self, conn: ConnId, command: u16, flags: u16, cookie: u64, range: (u64, u32)) {
        let mut bytes = Vec::new();
        let (offset, len) = range;
        Request { flags, command, cookie, offset, len }.encode(&mut bytes);
        if command == nbd::CMD_WRITE {
            bytes.extend((0..len).map(|at| pattern(cookie, at)));
        }
        self.send(conn, &bytes);
    }

    /// The simple replies that came, as (cookie, error); none has content.
    fn replies(&mut self, conn: ConnId) -> Vec<(u64, u32)> {
        let bytes = self.take(conn);
        let (replies, rest) = bytes.as_chunks::<16>();
        assert!(rest.is_empty());
        replies.iter().map(|reply| simple(reply)).collect()
    }
}

fn pattern(cookie: u64, at: u32) -> u8 {
    let mixed = (u64::from(at) + 1).wrapping_mul(cookie.wrapping_mul(2) + 7);
    mixed.to_le_bytes()[1] | 1
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes[at..at + N].try_into().expect("long enough")
}

fn simple(reply: &[u8]) -> (u64, u32) {
    assert_eq!(u32::from_be_bytes(number(reply, 0)), nbd::SIMPLE_REPLY_MAGIC);
    (u64::from_be_bytes(number(reply, 8)), u32::from_be_bytes(number(reply, 4)))
}

fn option(option: u32, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let len = u32::try_from(data.len()).expect("short");
    nbd::OptionHeader { option, len }.encode(&mut out);
    out.extend_from_slice(data);
    out
}

fn string(text: &str) -> Vec<u8> {
    let mut out = u32::try_from(text.len()).expect("short").to_be_bytes().to_vec();
    out.extend_from_slice(text.as_bytes());
    out
}

fn info(name: &str, wanted: &[u16]) -> Vec<u8> {
    let mut out = string(name);
    out.extend_from_slice(&u16::try_from(wanted.len()).expect("few").to_be_bytes());
    wanted.iter().for_each(|want| out.extend_from_slice(&want.to_be_bytes()));
    out
}

fn meta(name: &str, queries: &[&str]) -> Vec<u8> {
    let mut out = string(name);
    out.extend_from_slice(&u32::try_from(queries.len()).expect("few").to_be_bytes());
    queries.iter().for_each(|query| out.extend(string(query)));
    out
}

/// Replies to options as (option, kind, data).
fn option_replies(mut bytes: &[u8]) -> Vec<(u32, u32, Vec<u8>)> {
    let mut replies = Vec::new();
    while !bytes.is_empty() {
        assert_eq!(u64::from_be_bytes(number(bytes, 0)), nbd::OPTION_REPLY_MAGIC);
        let len = usize::try_from(u32::from_be_bytes(number(bytes, 16))).expect("short");
        let (option, kind) = (u32::from_be_bytes(number(bytes, 8)), u32::from_be_bytes(number(bytes, 12)));
        replies.push((option, kind, bytes[20..20 + len].to_vec()));
        bytes = &bytes[20 + len..];
    }
    replies
}

/// A chunk of a structured reply.
#[derive(Debug, PartialEq, Eq)]
struct Chunk {
    done: bool,
    kind: u16,
    cookie: u64,
    data: Vec<u8>,
}

fn chunks(mut bytes: &[u8]) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    while !bytes.is_empty() {
        assert_eq!(u32::from_be_bytes(number(bytes, 0)), nbd::STRUCTURED_REPLY_MAGIC);
        let len = usize::try_from(u32::from_be_bytes(number(bytes, 16))).expect("short");
        chunks.push(Chunk {
            done: u16::from_be_bytes(number(bytes, 4)) == nbd::REPLY_FLAG_DONE,
            kind: u16::from_be_bytes(number(bytes, 6)),
            cookie: u64::from_be_bytes(number(bytes, 8)),
            data: bytes[20..20 + len].to_vec(),
        });
        bytes = &bytes[20 + len..];
    }
    chunks
}

#[test]
fn no_bytes_make_it_panic() {
    let mut random = Prng::new(5);
    for _ in 0..60 {
        let len = random.below(400);
        let bytes: Vec<u8> = (0..len).map(|_| random.next_u64().to_le_bytes()[0]).collect();
        fuzz_nbd_handshake(&bytes);
        fuzz_nbd_transmission(&bytes);
        // Bytes that look right further on.
        let (mut options, mut requests) = (vec![0, 0, 0, 3], Vec::new());
        for _ in 0..20 {
            let len = random.below(30);
            let data: Vec<u8> = (0..len).map(|_| random.below(6).to_le_bytes()[0]).collect();
            options.extend(option(u32::try_from(random.below(12)).expect("small"), &data));
            let small = |random: &mut Prng, below| u16::try_from(random.below(below)).expect("small");
            let (flags, command) = (small(&mut random, 40), small(&mut random, 9));
            let (cookie, offset) = (random.next_u64(), random.below(2 << 20));
            let len = u32::try_from(random.below(300_000)).expect("small");
            Request { flags, command, cookie, offset, len }.encode(&mut requests);
            if command == nbd::CMD_WRITE {
                requests.resize(requests.len() + usize::try_from(len).expect("small"), 9);
            }
        }
        fuzz_nbd_handshake(&options);
        fuzz_nbd_transmission(&requests);
    }
}

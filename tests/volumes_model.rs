//! Three clients of one volume, with many requests in flight, against a plain copy of what the volume must hold.
//!
//! A run goes in rounds. In a round each client sends some requests at once and takes all replies, or leaves without
//! them. Of requests that were in flight together each byte has one of a few values; between rounds all is quiet, and the
//! volume is read back. Requests of one client are handled in their order; who left had some first of them handled, and
//! none after the next client was let in.

use crate::support::{EXPORT, Plan, Volumes, tier};
use hot_backup::base::Prng;
use hot_backup::client::NbdClient;
use hot_backup::client::nbd::{Choice, NbdReply, Request};
use hot_backup::format::nbd::{
    CMD_BLOCK_STATUS as STATUS, CMD_CACHE as CACHE, CMD_FLAG_FUA as FUA, CMD_FLAG_NO_HOLE as NO_HOLE,
    CMD_FLUSH as FLUSH, CMD_READ as READ, CMD_TRIM as TRIM, CMD_WRITE as WRITE, CMD_WRITE_ZEROES as ZERO,
    REPLY_TYPE_BLOCK_STATUS, REPLY_TYPE_NONE, REPLY_TYPE_OFFSET_DATA, REPLY_TYPE_OFFSET_HOLE,
};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const BYTES: usize = 2 << 20;
/// Most requests are for this much of it, so that they overlap.
const BUSY: usize = 96 << 10;
const CLIENTS: usize = 3;
/// So much is compared at once where nothing was changed.
const CHUNK: usize = 512;

#[derive(Clone, Debug)]
struct Ask {
    command: u16,
    flags: u16,
    offset: usize,
    len: usize,
    /// Of a write: what makes its bytes its own.
    number: u64,
}

/// What a write puts at a place; never zero.
fn value(number: u64, at: usize) -> u8 {
    let mixed = (number.wrapping_mul(31) + at as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed.to_le_bytes()[6] | 1
}

impl Ask {
    fn invent(prng: &mut Prng, number: u64, structured: bool) -> Self {
        let mut below = |limit: usize| usize::try_from(prng.below(limit as u64)).unwrap();
        let command = match below(20) {
            0..8 => WRITE,
            8..12 => READ,
            12 => FLUSH,
            13..15 => TRIM,
            15..18 => ZERO,
            18 if structured => STATUS,
            _ => CACHE,
        };
        let space = if below(10) == 0 { BYTES } else { BUSY };
        let most = [512, 4096, 20_000, 70_000, 300_000][below(5)];
        let offset = if below(3) == 0 { below(space / 4096) * 4096 } else { below(space - 1) };
        let len = if below(3) == 0 { 4096 } else { 1 + below(most) }.min(BYTES - offset);
        let mut flags = if below(4) == 0 { FUA } else { 0 };
        if command == ZERO && below(2) == 0 {
            flags |= NO_HOLE;
        }
        let (offset, len) = if command == FLUSH { (0, 0) } else { (offset, len) };
        Self { command, flags, offset, len, number }
    }

    /// The byte that it puts at a place, if it changes that.
    fn puts(&self, at: usize) -> Option<u8> {
        let here = (self.offset..self.offset + self.len).contains(&at);
        match self.command {
            WRITE if here => Some(value(self.number, at)),
            TRIM | ZERO if here => Some(0),
            _ => None,
        }
    }

    /// Whether it changes any byte of a range.
    fn changes(&self, range: std::ops::Range<usize>) -> bool {
        matches!(self.command, WRITE | TRIM | ZERO)
            && self.offset < range.end
            && range.start < self.offset + self.len
    }

    fn send(&self, cookie: u64, client: &mut NbdClient) {
        let range = self.offset..self.offset + self.len;
        let payload: Vec<u8> = match self.command {
            WRITE => range.map(|at| value(self.number, at)).collect(),
            _ => Vec::new(),
        };
        let (command, flags, offset) = (self.command, self.flags, self.offset as u64);
        let request = Request { command, flags, cookie, offset, len: u32::try_from(self.len).unwrap() };
        client.send(&request, &payload).expect("the node takes it");
    }
}

/// What came back for a request.
#[derive(Clone, Debug, Default)]
struct Answer {
    bytes: Vec<u8>,
    /// Length and flags.
    extents: Vec<(usize, u32)>,
}

struct Client {
    nbd: NbdClient,
    structured: bool,
}

impl Client {
    fn open(at: SocketAddr, structured: bool) -> Self {
        let choice = if structured { Choice::Structured } else { Choice::Go };
        let nbd = NbdClient::open_by(at, EXPORT, Duration::from_secs(60), choice).unwrap();
        Self { nbd, structured }
    }

    /// Sends requests.
    fn sends(&mut self, asks: &[Ask]) {
        asks.iter().zip(0..).for_each(|(ask, cookie)| ask.send(cookie, &mut self.nbd));
        self.nbd.push().unwrap();
    }

    /// Sends requests, and takes their replies.
    fn does(&mut self, asks: &[Ask]) -> Vec<Answer> {
        self.sends(asks);
        self.answers(asks)
    }

    /// All of the volume.
    fn reads_all(&mut self) -> Vec<u8> {
        let read = Ask { command: READ, flags: 0, offset: 0, len: BYTES, number: 0 };
        self.does(&[read]).remove(0).bytes
    }

    /// Takes replies until none is missing.
    fn answers(&mut self, asks: &[Ask]) -> Vec<Answer> {
        let mut all = vec![Answer::default(); asks.len()];
        for (answer, ask) in all.iter_mut().zip(asks) {
            if ask.command == READ {
                answer.bytes = vec![0; ask.len];
            }
        }
        let mut missing: BTreeMap<u64, ()> = (0..asks.len() as u64).map(|cookie| (cookie, ())).collect();
        while !missing.is_empty() {
            let (cookie, done) = self.reply(asks, &mut all);
            if done {
                missing.remove(&cookie).expect("one reply to each request");
            }
        }
        all
    }

    fn reply(&mut self, asks: &[Ask], all: &mut [Answer]) -> (u64, bool) {
        let (cookie, done, kind, payload) = match self.nbd.receive().expect("the node answers") {
            NbdReply::Simple { cookie, error } => {
                let at = usize::try_from(cookie).unwrap();
                assert_eq!(error, 0, "{:?}", asks[at]);
                if asks[at].command == READ {
                    assert!(!self.structured, "a simple reply with content");
                    self.nbd.receive_into(&mut all[at].bytes).unwrap();
                }
                return (cookie, true);
            }
            NbdReply::Chunk { cookie, done, kind, payload } => (cookie, done, kind, payload),
        };
        let at = usize::try_from(cookie).unwrap();
        let place =
            |bytes: &[u8]| usize::try_from(u64::from_be_bytes(bytes[..8].try_into().unwrap())).unwrap();
        match kind {
            REPLY_TYPE_NONE => {}
            // Bytes that are told; holes are zero already.
            REPLY_TYPE_OFFSET_DATA => {
                let from = place(&payload) - asks[at].offset;
                all[at].bytes[from..from + payload.len() - 8].copy_from_slice(&payload[8..]);
            }
            REPLY_TYPE_OFFSET_HOLE => {}
            REPLY_TYPE_BLOCK_STATUS => {
                let words: Vec<u32> =
                    payload.as_chunks::<4>().0.iter().map(|word| u32::from_be_bytes(*word)).collect();
                let pairs = words[1..].as_chunks::<2>().0.iter();
                all[at].extents =
                    pairs.map(|[len, flags]| (usize::try_from(*len).unwrap(), *flags)).collect();
            }
            other => panic!("chunk {other} for {:?}", asks[at]),
        }
        (cookie, done)
    }
}

/// What one client did in a round.
struct Part {
    asks: Vec<Ask>,
    /// It left without its replies.
    left: bool,
}

#[derive(Debug, Default)]
struct Counts {
    rounds: u64,
    requests: u64,
    bytes_compared: u64,
    left: u64,
}

struct Run {
    prng: Prng,
    at: SocketAddr,
    clients: Vec<Client>,
    /// What the volume holds.
    plain: Vec<u8>,
    next: u64,
    counts: Counts,
}

impl Run {
    fn new(seed: u64, at: SocketAddr) -> Self {
        let clients = (0..CLIENTS).map(|c| Client::open(at, c == 2)).collect();
        Self { prng: Prng::new(seed), at, clients, plain: vec![0; BYTES], next: 1, counts: Counts::default() }
    }

    fn round(&mut self) {
        let mut parts = Vec::new();
        for client in 0..CLIENTS {
            let count = self.prng.below(9);
            let structured = self.clients[client].structured;
            let asks: Vec<Ask> =
                (0..count).map(|at| Ask::invent(&mut self.prng, self.next + at, structured)).collect();
            self.next += count;
            let left = self.prng.percent(5);
            parts.push(Part { asks, left });
        }
        for (client, part) in self.clients.iter_mut().zip(&parts) {
            client.sends(&part.asks);
        }
        let answers: Vec<_> = self
            .clients
            .iter_mut()
            .zip(&parts)
            .map(|(client, part)| if part.left { Vec::new() } else { client.answers(&part.asks) })
            .collect();
        for (at, answers) in answers.iter().enumerate() {
            for (place, answer) in answers.iter().enumerate() {
                self.check_answer(&parts, (at, place), answer);
            }
        }
        for (client, part) in parts.iter().enumerate() {
            self.counts.requests += part.asks.len() as u64;
            if part.left {
                self.counts.left += 1;
                // First it has left, then the next one comes.
                self.clients[client].nbd.hang_up();
                self.clients[client] = Client::open(self.at, client == 2);
            }
        }
        self.read_back(&parts);
        self.counts.rounds += 1;
    }

    /// Holds what was read from `from` on to what each byte may be. `whose`: the request that read it, and which of the
    /// clients sent it; all is quiet if there is none.
    fn check(&self, parts: &[Part], whose: Option<(usize, usize)>, from: usize, found: &[u8]) {
        for (chunk, found) in found.chunks(CHUNK).enumerate() {
            let start = from + chunk * CHUNK;
            let nearby: Vec<(usize, usize, &Ask)> = parts
                .iter()
                .enumerate()
                .flat_map(|(client, part)| {
                    part.asks.iter().enumerate().map(move |(at, ask)| (client, at, ask))
                })
                .filter(|(.., ask)| ask.changes(start..start + found.len()))
                .collect();
            if nearby.is_empty() && *found == self.plain[start..start + found.len()] {
                continue;
            }
            for (at, found) in (start..).zip(found) {
                let puts =
                    |(client, place, ask): &(usize, usize, &Ask)| Some((*client, *place, ask.puts(at)?));
                let puts: Vec<_> = nearby.iter().filter_map(puts).collect();
                let fits = match whose {
                    Some(whose) => may_read(&puts, whose, self.plain[at], *found),
                    None => may_stay(&puts, parts, self.plain[at], *found),
                };
                let (round, before) = (self.counts.rounds, self.plain[at]);
                assert!(
                    fits,
                    "round {round}: byte {at} is {found}, {before} before, by {whose:?} of {puts:?}"
                );
            }
        }
    }

    fn check_answer(&mut self, parts: &[Part], whose: (usize, usize), answer: &Answer) {
        let ask = &parts[whose.0].asks[whose.1];
        self.check(parts, Some(whose), ask.offset, &answer.bytes);
        self.counts.bytes_compared += answer.bytes.len() as u64;
        assert_eq!(ask.command == STATUS, !answer.extents.is_empty(), "{ask:?}");
        let (mut at, end) = (ask.offset, ask.offset + ask.len);
        for (len, flags) in &answer.extents {
            let told = (at + len).min(end).saturating_sub(at);
            if flags & 2 != 0 {
                // What is told to be zeros is held to the same as zeros that are read.
                self.check(parts, Some(whose), at, &vec![0; told]);
            }
            at += len;
        }
    }

    /// Reads all of the volume, which is quiet, and holds it to what the round may have left.
    fn read_back(&mut self, parts: &[Part]) {
        let client = usize::try_from(self.prng.below(CLIENTS as u64)).unwrap();
        let found = self.clients[client].reads_all();
        self.check(parts, None, 0, &found);
        self.counts.bytes_compared += found.len() as u64;
        self.plain = found;
    }
}

/// Whether a reader may find this byte: what was there before, or what its client's last change before it left, or what
/// any other client puts there, or what its own puts there with a request behind it. All of them are in flight at once,
/// and the server MAY process those in any order (doc/proto.md of NBD, "Ordering of messages and writes").
fn may_read(puts: &[(usize, usize, u8)], (client, place): (usize, usize), before: u8, found: u8) -> bool {
    let own = puts.iter().rev().find(|(by, at, _)| *by == client && *at < place);
    found == own.map_or(before, |(.., put)| *put)
        || puts.iter().any(|(by, at, put)| (*by != client || *at > place) && *put == found)
}

/// Whether a byte may be there when all is quiet: what the last change of a client left, or of one that went any.
fn may_stay(puts: &[(usize, usize, u8)], parts: &[Part], before: u8, found: u8) -> bool {
    let last = |client: usize| puts.iter().rev().find(|(by, ..)| *by == client);
    let stayed = (0..parts.len()).filter(|client| !parts[*client].left);
    let mut lasts = stayed.filter_map(last).peekable();
    let certain = lasts.peek().is_some();
    lasts.any(|(.., put)| *put == found)
        || puts.iter().any(|(by, _, put)| parts[*by].left && *put == found)
        || !certain && found == before
}

/// Runs for so many rounds, or so long; then both nodes hold the same.
fn run(seed: u64, (least, rounds): (u64, u64), most: Duration) {
    let volumes = Volumes::start(&Plan::quick(), "2M");
    let begin = Instant::now();
    let mut run = Run::new(seed, volumes.at[0]);
    let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        while run.counts.rounds < rounds && begin.elapsed() < most {
            run.round();
        }
    }));
    println!("seed {seed}: {:?} in {:?}", run.counts, begin.elapsed());
    if let Err(panic) = done {
        eprintln!("seed {seed} failed");
        std::panic::resume_unwind(panic);
    }
    assert!(run.counts.rounds >= least, "it was hardly tried");
    run.clients[0].does(&[Ask { command: FLUSH, flags: 0, offset: 0, len: 0, number: 0 }]);
    volumes.pair.converges();
    let there = Client::open(volumes.at[1], false).reads_all();
    let differs = there.iter().zip(&run.plain).position(|(there, here)| there != here);
    assert_eq!(differs, None, "the first byte in which the standby differs");
}

#[test]
fn a_volume_of_three_clients_is_at_all_times_what_a_plain_copy_of_it_says() {
    run(1, (20, 20), Duration::from_secs(120));
}

#[test]
fn tier_volume_of_three_clients_is_for_long_what_a_plain_copy_of_it_says() {
    tier!();
    for seed in [2, 3] {
        run(seed, (20, u64::MAX), Duration::from_secs(15));
    }
}

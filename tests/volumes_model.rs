//! Three clients of one volume, with many requests in flight, against a plain copy of what the volume must hold.
//!
//! A run goes in rounds. In a round each client sends some requests at once and takes all replies, or leaves without
//! them. Of requests that were in flight together each byte has one of a few values; between rounds all is quiet, and the
//! volume is read back. Requests of one client are handled in their order; who left had some first of them handled, and
//! none after the next client was let in.

use crate::support::{EXPORT, Plan, Volumes, tier};
use hot_backup::base::Prng;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

const BYTES: usize = 2 << 20;
/// Most requests are for this much of it, so that they overlap.
const BUSY: usize = 96 << 10;
const CLIENTS: usize = 3;

const READ: u16 = 0;
const WRITE: u16 = 1;
const FLUSH: u16 = 3;
const TRIM: u16 = 4;
const CACHE: u16 = 5;
const ZERO: u16 = 6;
const STATUS: u16 = 7;
const FUA: u16 = 1;
const NO_HOLE: u16 = 2;

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

    fn encode(&self, cookie: u64, out: &mut Vec<u8>) {
        out.extend(0x2560_9513_u32.to_be_bytes());
        out.extend(self.flags.to_be_bytes());
        out.extend(self.command.to_be_bytes());
        out.extend(cookie.to_be_bytes());
        out.extend((self.offset as u64).to_be_bytes());
        out.extend(u32::try_from(self.len).unwrap().to_be_bytes());
        if self.command == WRITE {
            out.extend((self.offset..self.offset + self.len).map(|at| value(self.number, at)));
        }
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
    stream: TcpStream,
    structured: bool,
}

fn number<const N: usize>(stream: &mut TcpStream) -> [u8; N] {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes).expect("the node answers");
    bytes
}

fn u32_of(stream: &mut TcpStream) -> u32 {
    u32::from_be_bytes(number(stream))
}

impl Client {
    fn open(at: SocketAddr, structured: bool) -> Self {
        let mut stream = TcpStream::connect(at).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        assert_eq!(&number::<16>(&mut stream), b"NBDMAGICIHAVEOPT");
        number::<2>(&mut stream);
        let mut options = 3_u32.to_be_bytes().to_vec();
        let name = [&u32::try_from(EXPORT.len()).unwrap().to_be_bytes()[..], EXPORT.as_bytes()].concat();
        let query = b"base:allocation";
        let meta = [&name[..], &[0, 0, 0, 1, 0, 0, 0, 15], query].concat();
        let go = [&name[..], &[0, 0]].concat();
        let all: &[(u32, &[u8])] = if structured { &[(8, &[]), (10, &meta), (7, &go)] } else { &[(7, &go)] };
        for (option, data) in all {
            options.extend(b"IHAVEOPT");
            options.extend(option.to_be_bytes());
            options.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
            options.extend(*data);
        }
        stream.write_all(&options).unwrap();
        let mut left = all.len();
        while left > 0 {
            number::<12>(&mut stream);
            let kind = u32_of(&mut stream);
            let len = u32_of(&mut stream);
            let mut data = vec![0; usize::try_from(len).unwrap()];
            stream.read_exact(&mut data).unwrap();
            assert_eq!(kind >> 31, 0, "refused: {data:?}");
            left -= usize::from(kind == 1);
        }
        Self { stream, structured }
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
        let stream = &mut self.stream;
        let magic = u32_of(stream);
        if magic == 0x6744_6698 {
            let error = u32_of(stream);
            let cookie = u64::from_be_bytes(number(stream));
            let at = usize::try_from(cookie).unwrap();
            assert_eq!(error, 0, "{:?}", asks[at]);
            if asks[at].command == READ {
                assert!(!self.structured, "a simple reply with content");
                stream.read_exact(&mut all[at].bytes).unwrap();
            }
            return (cookie, true);
        }
        assert_eq!(magic, 0x668E_33EF, "a reply");
        let flags = u16::from_be_bytes(number(stream));
        let kind = u16::from_be_bytes(number(stream));
        let cookie = u64::from_be_bytes(number(stream));
        let mut payload = vec![0; usize::try_from(u32_of(stream)).unwrap()];
        stream.read_exact(&mut payload).unwrap();
        let at = usize::try_from(cookie).unwrap();
        let place =
            |bytes: &[u8]| usize::try_from(u64::from_be_bytes(bytes[..8].try_into().unwrap())).unwrap();
        match kind {
            0 => {}
            // Bytes that are told; holes are zero already.
            1 => {
                let from = place(&payload) - asks[at].offset;
                all[at].bytes[from..from + payload.len() - 8].copy_from_slice(&payload[8..]);
            }
            2 => {}
            5 => {
                let words: Vec<u32> =
                    payload.as_chunks::<4>().0.iter().map(|word| u32::from_be_bytes(*word)).collect();
                let pairs = words[1..].as_chunks::<2>().0.iter();
                all[at].extents =
                    pairs.map(|[len, flags]| (usize::try_from(*len).unwrap(), *flags)).collect();
            }
            other => panic!("chunk {other} for {:?}", asks[at]),
        }
        (cookie, flags & 1 == 1)
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
            let mut bytes = Vec::new();
            part.asks.iter().zip(0..).for_each(|(ask, cookie)| ask.encode(cookie, &mut bytes));
            client.stream.write_all(&bytes).unwrap();
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
                let _ = self.clients[client].stream.shutdown(Shutdown::Both);
                self.clients[client] = Client::open(self.at, client == 2);
            }
        }
        self.read_back(&parts);
        self.counts.rounds += 1;
    }

    /// What of the round may stand at a place for a reader that is the request `place` of client `at`: what was there, or
    /// what its own last change before left, or what any other client puts there.
    fn may_read(&self, parts: &[Part], (client, place): (usize, usize), at: usize, found: u8) -> bool {
        let own = parts[client].asks[..place].iter().rev().find_map(|ask| ask.puts(at));
        let others = parts.iter().enumerate().filter(|(other, _)| *other != client);
        found == own.unwrap_or(self.plain[at])
            || others.flat_map(|(_, part)| &part.asks).any(|ask| ask.puts(at) == Some(found))
    }

    fn check_answer(&mut self, parts: &[Part], whose: (usize, usize), answer: &Answer) {
        let ask = &parts[whose.0].asks[whose.1];
        for (at, found) in (ask.offset..).zip(&answer.bytes) {
            let fits = self.may_read(parts, whose, at, *found);
            assert!(fits, "round {}: byte {at} is {found} in {ask:?}", self.counts.rounds);
        }
        self.counts.bytes_compared += answer.bytes.len() as u64;
        let mut at = ask.offset;
        assert_eq!(ask.command == STATUS, !answer.extents.is_empty(), "{ask:?}");
        for (len, flags) in &answer.extents {
            let end = ask.offset + ask.len;
            for place in (at..(at + len).min(end)).filter(|_| flags & 2 != 0) {
                assert!(self.may_read(parts, whose, place, 0), "byte {place} is told to be zero in {ask:?}");
            }
            at += len;
        }
    }

    /// Reads all of the volume, which is quiet, and holds it to what the round may have left.
    fn read_back(&mut self, parts: &[Part]) {
        let client = usize::try_from(self.prng.below(CLIENTS as u64)).unwrap();
        let read = Ask { command: READ, flags: 0, offset: 0, len: BYTES, number: 0 };
        let mut bytes = Vec::new();
        read.encode(0, &mut bytes);
        self.clients[client].stream.write_all(&bytes).unwrap();
        let found = self.clients[client].answers(&[read]).remove(0).bytes;
        let mut touched = vec![false; BYTES];
        for ask in parts.iter().flat_map(|part| &part.asks).filter(|ask| ask.puts(ask.offset).is_some()) {
            touched[ask.offset..ask.offset + ask.len].fill(true);
        }
        for (at, found) in found.iter().enumerate() {
            if *found == self.plain[at] && !touched[at] {
                continue;
            }
            let lasts = parts.iter().any(|part| {
                let mut puts = part.asks.iter().rev().filter_map(|ask| ask.puts(at));
                // Who left had some first of its requests handled.
                if part.left { puts.any(|put| put == *found) } else { puts.next() == Some(*found) }
            });
            let certain =
                parts.iter().any(|part| !part.left && part.asks.iter().any(|ask| ask.puts(at).is_some()));
            let fits = lasts || !certain && *found == self.plain[at];
            assert!(fits, "round {}: byte {at} is {found}, {} before", self.counts.rounds, self.plain[at]);
        }
        self.counts.bytes_compared += found.len() as u64;
        self.plain = found;
    }
}

/// Runs for so many rounds, or so long; then both nodes hold the same.
fn run(seed: u64, rounds: u64, most: Duration) {
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
    assert!(run.counts.rounds > 10, "it was hardly tried");
    let flush = [Ask { command: FLUSH, flags: 0, offset: 0, len: 0, number: 0 }];
    let mut bytes = Vec::new();
    flush[0].encode(0, &mut bytes);
    run.clients[0].stream.write_all(&bytes).unwrap();
    run.clients[0].answers(&flush);
    volumes.pair.converges();
    run.clients[0] = Client::open(volumes.at[1], false);
    let read = [Ask { command: READ, flags: 0, offset: 0, len: BYTES, number: 0 }];
    bytes.clear();
    read[0].encode(0, &mut bytes);
    run.clients[0].stream.write_all(&bytes).unwrap();
    let there = run.clients[0].answers(&read).remove(0).bytes;
    let differs = there.iter().zip(&run.plain).position(|(there, here)| there != here);
    assert_eq!(differs, None, "the first byte in which the standby differs");
}

#[test]
fn a_volume_of_three_clients_is_at_all_times_what_a_plain_copy_of_it_says() {
    run(1, 150, Duration::from_secs(8));
}

#[test]
fn tier_volume_of_three_clients_is_for_long_what_a_plain_copy_of_it_says() {
    tier!();
    for seed in [2, 3] {
        run(seed, u64::MAX, Duration::from_secs(12));
    }
}

//! Several clients do anything, their bytes are cut anywhere, the backend answers when it likes.

use super::*;

const PART: u32 = 3 << 20;
const CLIENTS: u64 = 3;

/// A request that was sent.
#[derive(Clone, Debug)]
struct Sent {
    command: u16,
    safe: bool,
    error: u32,
    offset: u64,
    len: usize,
    /// What a read must find.
    content: Bytes,
    /// Changes of this client that were sent up to this one.
    changes: usize,
}

/// A client, its part of the volume and what it waits for.
struct Client {
    conn: ConnId,
    structured: bool,
    start: u64,
    shadow: Vec<u8>,
    sent: BTreeMap<u64, Sent>,
    changes: usize,
    /// Content of a read that comes in chunks, and how much of it came.
    partial: BTreeMap<u64, (Vec<u8>, usize)>,
    answered: usize,
}

fn small(random: &mut Prng, below: u64) -> usize {
    usize::try_from(random.below(below)).expect("small")
}

impl Client {
    fn request(&mut self, random: &mut Prng, cookie: u64) -> Vec<u8> {
        let commands = [nbd::CMD_READ, nbd::CMD_WRITE, nbd::CMD_WRITE, nbd::CMD_FLUSH, nbd::CMD_TRIM];
        let command = commands[small(random, 5)];
        let fua = random.percent(30) && command != nbd::CMD_READ;
        let most = [10, 5000, 200_000, 1_300_000][small(random, 4)];
        let len = 1 + small(random, most);
        let at = small(random, u64::from(PART) - len as u64 + 1);
        let wrong = random.percent(5) && command != nbd::CMD_FLUSH;
        let (mut offset, mut len32) = (self.start + at as u64, u32::try_from(len).expect("small"));
        if command == nbd::CMD_FLUSH {
            (offset, len32) = (0, 0);
        }
        let mut error = 0;
        if wrong {
            offset += 1 << 40;
            error = if command == nbd::CMD_WRITE { nbd::ENOSPC } else { nbd::EINVAL };
        }
        let flags = if fua { nbd::CMD_FLAG_FUA } else { 0 };
        let mut bytes = Vec::new();
        Request { flags, command, cookie, offset, len: len32 }.encode(&mut bytes);
        let mut content = Bytes::new();
        let place = &mut self.shadow[at..at + len];
        match command {
            nbd::CMD_WRITE => {
                let payload: Vec<u8> = (0..len32).map(|at| pattern(cookie, at)).collect();
                bytes.extend_from_slice(&payload);
                if !wrong {
                    place.copy_from_slice(&payload);
                    self.changes += len.div_ceil(BLOCK_PAYLOAD_MAX);
                }
            }
            nbd::CMD_TRIM if !wrong => {
                place.fill(0);
                self.changes += 1;
            }
            nbd::CMD_READ => content = Bytes::copy_from_slice(place),
            _ => {}
        }
        let safe = (fua || command == nbd::CMD_FLUSH) && !wrong;
        self.sent.insert(cookie, Sent { command, safe, error, offset, len, content, changes: self.changes });
        bytes
    }

    /// Takes the replies that came whole.
    fn replies(&mut self, world: &mut World) {
        let from = world.take(self.conn);
        let mut rest = from.as_slice();
        while let Some(len) = self.reply(rest, &world.model) {
            rest = &rest[len..];
        }
        world.peer(self.conn).from = rest.to_vec();
    }

    /// Looks at the first reply; its length, if it is whole.
    fn reply(&mut self, from: &[u8], model: &Model) -> Option<usize> {
        let simple = from.first_chunk() == Some(&nbd::SIMPLE_REPLY_MAGIC.to_be_bytes());
        if from.len() < if simple { 16 } else { 20 } {
            return None;
        }
        let cookie = u64::from_be_bytes(number(from, 8));
        let sent = self.sent.get(&cookie).cloned().expect("a reply to what was asked, once");
        let reads = sent.command == nbd::CMD_READ;
        let content = if reads && sent.error == 0 { sent.len } else { 0 };
        let whole = match simple {
            true => 16 + content,
            false => 20 + usize::try_from(u32::from_be_bytes(number(from, 16))).expect("small"),
        };
        let reply = from.get(..whole)?;
        if simple {
            assert_eq!(u32::from_be_bytes(number(reply, 4)), sent.error);
            assert!(!(reads && self.structured));
            assert!(content == 0 || reply[16..] == sent.content);
        } else if !self.chunk(&chunks(reply).remove(0), &sent) {
            return Some(whole);
        }
        self.check_safe(&sent, model);
        self.sent.remove(&cookie);
        self.answered += 1;
        Some(whole)
    }

    /// Whether a reply is whole with this chunk.
    fn chunk(&mut self, chunk: &Chunk, sent: &Sent) -> bool {
        assert_eq!((sent.command, sent.error != 0), (nbd::CMD_READ, chunk.kind == nbd::REPLY_TYPE_ERROR));
        if sent.error != 0 {
            return true;
        }
        let offset = u64::from_be_bytes(number(&chunk.data, 0));
        let at = usize::try_from(offset - sent.offset).expect("within the request");
        let fresh = || (vec![9; sent.len], 0);
        let (content, came) = self.partial.entry(chunk.cookie).or_insert_with(fresh);
        let len = match chunk.kind {
            nbd::REPLY_TYPE_OFFSET_DATA => {
                let data = &chunk.data[8..];
                content[at..at + data.len()].copy_from_slice(data);
                data.len()
            }
            _ => {
                let len = usize::try_from(u32::from_be_bytes(number(&chunk.data, 8))).expect("small");
                content[at..at + len].fill(0);
                len
            }
        };
        *came += len;
        if chunk.done {
            assert!(*came == sent.len && *content == sent.content);
            self.partial.remove(&chunk.cookie);
        }
        chunk.done
    }

    /// Nothing is called safe before it is.
    fn check_safe(&self, sent: &Sent, model: &Model) {
        if !sent.safe || sent.changes == 0 {
            return;
        }
        let range = self.start..self.start + u64::from(PART);
        let mine = model.did.iter().enumerate().filter(|(_, did)| match did {
            Did::Write { offset, .. } | Did::Zero { offset, .. } => range.contains(offset),
        });
        let (at, _) = mine.take(sent.changes).last().expect("its own changes");
        assert!(model.safe > at as u64, "told to be safe before it was");
    }
}

/// Lets the world do one thing.
fn step(world: &mut World, random: &mut Prng, next: &mut u64, clients: &mut [Client]) {
    match random.below(10) {
        0..3 => {
            let client = &mut clients[small(random, CLIENTS)];
            if client.sent.len() < 40 {
                *next += 1;
                let bytes = client.request(random, *next);
                world.peer(client.conn).to.extend(bytes);
            }
        }
        3 => world.model.congested = random.percent(50),
        4 => world.model.safe += random.below(world.model.seq - world.model.safe + 1),
        5 => {
            let at = small(random, world.model.reads.len() as u64);
            if let Some((token, pieces)) = world.model.reads.remove(at) {
                world.door.read_done(world.now, token, Ok(pieces));
            }
        }
        6 => {
            let conn = ConnId(1 + random.below(CLIENTS));
            if world.peer(conn).unanswered > 0 {
                world.peer(conn).unanswered -= 1;
                world.door.sent(world.now, conn);
            }
        }
        _ => {
            world.inputs();
        }
    }
    world.door.tick(world.now, &mut world.model);
    world.door.release(world.now, &mut world.model);
    world.outputs();
    for client in clients {
        client.replies(world);
    }
}

fn finish(world: &mut World, clients: &mut [Client]) {
    world.takes = true;
    world.model.congested = false;
    for _ in 0..60 {
        for client in clients.iter_mut() {
            for _ in 0..std::mem::take(&mut world.peer(client.conn).unanswered) {
                world.door.sent(world.now, client.conn);
            }
        }
        world.run();
        world.answer();
        world.safe(world.model.seq);
        for client in clients.iter_mut() {
            client.replies(world);
        }
    }
}

#[test]
fn every_request_is_answered_once_and_rightly_and_nothing_is_called_safe_too_early() {
    for seed in 0..2 {
        let mut random = Prng::new(seed);
        let size = PART * u32::try_from(CLIENTS).expect("few");
        let mut world = World::new(usize::try_from(size).expect("small"));
        let mut clients = Vec::new();
        for conn in 1..=CLIENTS {
            let structured = conn == 2;
            world.client(ConnId(conn), structured);
            clients.push(Client {
                conn: ConnId(conn),
                structured,
                start: (conn - 1) * u64::from(PART),
                shadow: vec![0; usize::try_from(PART).expect("small")],
                sent: BTreeMap::new(),
                changes: 0,
                partial: BTreeMap::new(),
                answered: 0,
            });
        }
        world.takes = false;
        world.random = Some(Prng::new(seed + 100));
        let mut next = 0;
        for _ in 0..4000 {
            step(&mut world, &mut random, &mut next, &mut clients);
        }
        finish(&mut world, &mut clients);
        let answered: usize = clients.iter().map(|client| client.answered).sum();
        assert_eq!((answered as u64, world.door.held()), (next, 0));
        assert!(next > 100);
        for client in &clients {
            assert!(!world.peer(client.conn).closed && client.sent.is_empty());
            let start = usize::try_from(client.start).expect("small");
            let content = &world.model.content[&DISK][start..start + client.shadow.len()];
            assert!(content == client.shadow, "the volume holds what was written");
        }
    }
}

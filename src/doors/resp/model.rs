//! A small database in memory, and a rig that plays clients and operating system, for the door's tests.

use super::{DoorOutput, RespConfig, RespDoor};
use crate::base::limits::{ITEM_VALUE_MAX, RECEIVE_MAX};
use crate::base::{AckLevel, ConnId, FileId, JournalKind, Mono, Now, Prng, Seq, Wait};
use crate::doors::{
    Backend, Change, CommitWatermarks, CountOf, Draft, FetchId, IfCold, ItemHash, Refusal, ReplicationView,
    Scanned, Unread, Update,
};
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::ops::Bound;

#[derive(Debug)]
struct File {
    name: String,
    replicated: bool,
    /// Deleted items stay as `None`: that they are gone has to be waited for as well.
    items: BTreeMap<Vec<u8>, (Option<Bytes>, Wait)>,
}

/// The database.
#[derive(Debug)]
pub(super) struct Model {
    files: BTreeMap<FileId, File>,
    pub(super) ends: [Seq; 2],
    pub(super) marks: CommitWatermarks,
    pub(super) peer: [Seq; 3],
    pub(super) primary: bool,
    pub(super) connected: bool,
    pub(super) peer_door: Option<(String, u16)>,
    pub(super) congested: bool,
    pub(super) refuse: Option<Refusal>,
    pub(super) level: AckLevel,
    /// Sizes of the batches accepted.
    pub(super) batches: Vec<usize>,
    /// Scans so far.
    pub(super) scans: usize,
    wants_changes: bool,
    changes: VecDeque<Change>,
    /// What was asked of it since the last look.
    pub(super) meter: Meter,
    pub(super) chill: Chill,
    /// Counts of items are told so many times too large where they only say how many there are at most.
    pub(super) inflated: u64,
    /// A transaction may delete what it put itself.
    pub(super) deletes_nothing: bool,
}

/// Which reads are cold: by chance.
#[derive(Debug)]
pub(super) struct Chill {
    pub(super) percent: u64,
    pub(super) prng: Prng,
    /// Fetches under way.
    asked: Vec<(FetchId, Vec<u8>)>,
    /// What was fetched.
    hot: HashSet<Vec<u8>>,
    /// All fetches so far.
    pub(super) fetches: u64,
    /// Reads that waited for the disk.
    pub(super) waits: u64,
    /// Fetches end only when a test says so.
    pub(super) held: bool,
}

impl Chill {
    fn read(&mut self, place: String, if_cold: IfCold) -> Result<(), Unread> {
        let place = place.into_bytes();
        if self.hot.contains(&place) || !self.prng.percent(self.percent) {
            // In memory for this read, not for ever.
            self.hot.remove(&place);
            return Ok(());
        }
        if if_cold == IfCold::Wait {
            self.waits += 1;
            return Ok(());
        }
        self.fetches += 1;
        self.asked.push((FetchId(self.fetches), place));
        Err(Unread::Cold(FetchId(self.fetches)))
    }

    /// Memory is short: what was fetched is gone again.
    pub(super) fn forget(&mut self) {
        self.hot.clear();
    }

    /// Ends one of the fetches under way.
    fn end_one(&mut self) -> Option<FetchId> {
        let count = self.asked.len() as u64;
        let at = usize::try_from((count > 0).then(|| self.prng.below(count))?).unwrap();
        let (fetch, place) = self.asked.swap_remove(at);
        self.hot.insert(place);
        Some(fetch)
    }
}

/// What was asked of the database.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Meter {
    /// Items read, looked at by walks, or changed.
    pub(super) items: usize,
    /// Bytes of values read or written.
    pub(super) bytes: usize,
}

impl Model {
    /// Files `app,items`, `app,orders` (replicated), `tmp,cache` (not).
    pub(super) fn new() -> Self {
        let mut model = Self {
            files: BTreeMap::new(),
            ends: [Seq(0); 2],
            marks: CommitWatermarks::default(),
            peer: [Seq(0); 3],
            primary: true,
            connected: true,
            peer_door: Some(("10.0.0.2".to_owned(), 7002)),
            congested: false,
            refuse: None,
            level: AckLevel::Local,
            batches: Vec::new(),
            scans: 0,
            wants_changes: false,
            changes: VecDeque::new(),
            meter: Meter::default(),
            inflated: 1,
            deletes_nothing: false,
            chill: Chill {
                percent: 0,
                prng: Prng::new(1),
                asked: Vec::new(),
                hot: HashSet::new(),
                fetches: 0,
                waits: 0,
                held: false,
            },
        };
        model.create(2, "app,items", true);
        model.create(4, "app,orders", true);
        model.create(6, "tmp,cache", false);
        model
    }

    pub(super) fn create(&mut self, id: u64, name: &str, replicated: bool) {
        let file = File { name: name.to_owned(), replicated, items: BTreeMap::new() };
        self.files.insert(FileId(id), file);
    }

    /// Whether an item of the first file was ever set.
    pub(super) fn has_set(&self, id: &str) -> bool {
        self.files[&FileId(2)].items.contains_key(id.as_bytes())
    }

    /// Puts an item that is safe already.
    pub(super) fn put(&mut self, file: u64, id: &[u8]) {
        let wait = Wait { journal: JournalKind::Local, seq: Seq(0), level: AckLevel::Local };
        let items = &mut self.files.get_mut(&FileId(file)).unwrap().items;
        items.insert(id.to_vec(), (Some(Bytes::from_static(b"v")), wait));
    }

    pub(super) fn remove(&mut self, id: u64) {
        self.files.remove(&FileId(id));
        self.changed(Change::File(FileId(id)));
    }

    /// Something was changed by other means than the door.
    pub(super) fn changed(&mut self, change: Change) {
        if self.wants_changes {
            self.changes.push_back(change);
        }
    }

    /// Whether changes are kept for the door.
    pub(super) fn tells_changes(&self) -> bool {
        self.wants_changes
    }

    /// Everything accepted is safe everywhere now.
    pub(super) fn settle(&mut self) {
        self.marks = CommitWatermarks { durable: self.ends, replicated: [self.ends[0]; 4] };
        self.peer = [self.ends[0]; 3];
    }

    /// A little more is safe.
    pub(super) fn settle_some(&mut self, prng: &mut Prng) {
        let mut step = |mark: Seq, end: Seq| Seq((mark.0 + prng.below(4)).min(end.0));
        for (mark, end) in self.marks.durable.iter_mut().zip(self.ends) {
            *mark = step(*mark, end);
        }
        self.marks.replicated[0] = self.marks.durable[0];
        for at in 1..4 {
            self.marks.replicated[at] = step(self.marks.replicated[at], self.marks.replicated[at - 1]);
        }
    }

    fn pending(&self, wait: Wait) -> Option<Wait> {
        (!self.marks.reached(wait)).then_some(wait)
    }

    fn file(&self, file: FileId) -> Result<&File, Refusal> {
        self.files.get(&file).ok_or_else(|| Refusal::NoSuchFile(file.to_string()))
    }
}

impl Backend for Model {
    fn resolve(&self, name: &[u8]) -> Result<FileId, Refusal> {
        let found = self.files.iter().find(|(_, file)| file.name.as_bytes() == name);
        found
            .map(|(id, _)| *id)
            .ok_or_else(|| Refusal::NoSuchFile(String::from_utf8_lossy(name).into_owned()))
    }

    fn read(
        &mut self,
        file: FileId,
        id: &[u8],
        if_cold: IfCold,
    ) -> Result<(Option<Bytes>, Option<Wait>), Unread> {
        self.meter.items += 1;
        self.chill.read(format!("{file} {id:?}"), if_cold)?;
        let Some((value, wait)) = self.file(file)?.items.get(id).cloned() else { return Ok((None, None)) };
        self.meter.bytes += value.as_ref().map_or(0, Bytes::len);
        Ok((value, self.pending(wait)))
    }

    fn fetch(&mut self, file: FileId, id: &[u8]) -> Option<FetchId> {
        match self.chill.read(format!("{file} {id:?}"), IfCold::Fetch) {
            Err(Unread::Cold(fetch)) => Some(fetch),
            _ => None,
        }
    }

    fn update(&mut self, updates: &[Update<'_>]) -> Result<Wait, Refusal> {
        if let Some(refusal) = &self.refuse {
            return Err(refusal.clone());
        }
        let mut journals = Vec::new();
        for update in updates {
            let (Update::Put { file, .. } | Update::Delete { file, .. }) = update;
            journals.push(self.file(*file)?.replicated);
            if let Update::Put { value, .. } = update
                && value.len() > ITEM_VALUE_MAX
            {
                let limit = "an item's value has at most 16 MiB";
                return Err(Refusal::TooLarge { what: "item value", found: value.len(), limit });
            }
        }
        if journals.windows(2).any(|pair| pair[0] != pair[1]) {
            return Err(Refusal::MixedJournals);
        }
        let replicated = journals[0];
        if replicated && !self.primary {
            return Err(Refusal::ReadOnly);
        }
        let journal = if replicated { JournalKind::Replicated } else { JournalKind::Local };
        let end = &mut self.ends[journal.index()];
        end.0 += updates.len() as u64;
        let wait = Wait { journal, seq: *end, level: self.level };
        self.batches.push(updates.len());
        for update in updates {
            let (file, id, value) = match update {
                Update::Put { file, id, value } => (file, *id, Some(Bytes::copy_from_slice(value))),
                Update::Delete { file, id } => (file, *id, None),
            };
            let items = &mut self.files.get_mut(file).unwrap().items;
            assert!(
                self.deletes_nothing
                    || value.is_some()
                    || items.get(id).is_some_and(|(old, _)| old.is_some())
                    || updates.len() > 1
            );
            self.meter.items += 1;
            self.meter.bytes += value.as_ref().map_or(0, Bytes::len);
            items.insert(id.to_vec(), (value, wait));
            let item = self.item_hash(*file, id);
            self.changed(Change::Item(item));
        }
        Ok(wait)
    }

    fn commit(&mut self, mut draft: Draft) -> Result<Wait, Refusal> {
        // The engine takes the bytes as they are, whatever they hold.
        assert!(draft.fits() && draft.take_body().is_some_and(|body| body.count() as usize == draft.len()));
        let meter = self.meter;
        let result = self.update(&draft.updates().collect::<Vec<_>>());
        self.meter = meter;
        result
    }

    fn scan(
        &mut self,
        file: FileId,
        after: Option<&[u8]>,
        limit: usize,
        if_cold: IfCold,
    ) -> Result<Scanned, Unread> {
        self.chill.read(format!("{file} behind {after:?}"), if_cold)?;
        self.scans += 1;
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let range = self.file(file)?.items.range::<[u8], _>((from, Bound::Unbounded));
        let live = range.filter(|(_, (value, _))| value.is_some()).take(limit);
        let (mut ids, mut wait) = (Vec::new(), None);
        for (id, (_, item)) in live {
            ids.push(Bytes::copy_from_slice(id));
            wait = self.pending(*item).or(wait);
        }
        self.meter.items += ids.len();
        let next = ids.last().filter(|_| ids.len() == limit).cloned();
        Ok(Scanned { ids, next, wait, looked: 0 })
    }

    fn items_at_most(&self, file: FileId) -> u64 {
        self.inflated * self.files.get(&file).map_or(0, |file| file.items.len() as u64)
    }

    fn estimate(&mut self, file: FileId, of: CountOf, if_cold: IfCold) -> Result<u64, Unread> {
        self.chill.read(format!("{file} count"), if_cold)?;
        let short = |id: &[u8]| id.iter().filter(|byte| **byte == b',').count() < 2;
        let items = self.file(file)?.items.iter().filter(|(_, (value, _))| value.is_some());
        let counted = items.filter(|(id, _)| of == CountOf::All || short(id)).count() as u64;
        // So that an estimate is told from a count.
        Ok(counted + 1_000_000)
    }

    fn item_hash(&self, file: FileId, id: &[u8]) -> ItemHash {
        let hash = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        ItemHash(id.iter().fold(0xcbf2_9ce4_8422_2325 ^ file.0, hash))
    }

    fn want_changes(&mut self, wanted: bool) {
        self.wants_changes = wanted;
    }

    fn next_change(&mut self) -> Option<Change> {
        self.changes.pop_front()
    }

    fn next_record_file(&self, from: FileId) -> Option<(FileId, String)> {
        self.files.range(from..).next().map(|(id, file)| (*id, file.name.clone()))
    }

    fn record_files(&self) -> Vec<(FileId, String)> {
        self.files.iter().map(|(id, file)| (*id, file.name.clone())).collect()
    }

    fn watermarks(&self) -> CommitWatermarks {
        self.marks
    }

    fn appended(&self) -> Seq {
        self.ends[0]
    }

    fn peer_acked(&self) -> [Seq; 3] {
        self.peer
    }

    fn congested(&self) -> bool {
        self.congested
    }

    fn view(&self) -> ReplicationView {
        ReplicationView {
            name: "a".to_owned(),
            primary: self.primary,
            epoch: 2,
            appended: self.ends[0],
            applied: self.ends[0],
            peer_connected: self.connected,
            peer_door: self.peer_door.clone(),
            peer: self.peer,
            peer_silence_s: 1,
            lag_s: 0,
        }
    }
}

/// One client as its own end sees it.
#[derive(Debug, Default)]
pub(super) struct Peer {
    /// What it wrote, and how much of that was read.
    wrote: Vec<u8>,
    read: usize,
    pub(super) got: Vec<u8>,
    receive: Option<Vec<u8>>,
    pub(super) sending: bool,
    pub(super) closed: bool,
    pub(super) proven: bool,
    pub(super) guessed: usize,
    /// Takes no more replies: sends stay under way.
    pub(super) deaf: bool,
}

/// The door, the model, and clients.
#[derive(Debug)]
pub(super) struct Rig {
    pub(super) door: RespDoor,
    pub(super) model: Model,
    pub(super) peers: HashMap<u64, Peer>,
    pub(super) now: Now,
}

impl Rig {
    pub(super) fn new(config: RespConfig) -> Self {
        let now = Now { mono: Mono(1_000_000), wall_ms: 1_700_000_000_123 };
        Self { door: RespDoor::new(config), model: Model::new(), peers: HashMap::new(), now }
    }

    /// With the default file `app,items` and client 1 connected.
    pub(super) fn usual() -> Self {
        let config = RespConfig {
            default_file: Some("app,items".to_owned()),
            password: None,
            version: "0.1.0".to_owned(),
            tcp_port: 7001,
            run: 7,
        };
        let mut rig = Self::new(config);
        rig.open(1);
        rig
    }

    pub(super) fn open(&mut self, client: u64) {
        self.peers.insert(client, Peer::default());
        self.door.open(self.now, ConnId(client), false);
        self.collect();
    }

    pub(super) fn peer(&mut self, client: u64) -> &mut Peer {
        self.peers.get_mut(&client).unwrap()
    }

    pub(super) fn write(&mut self, client: u64, bytes: &[u8]) {
        self.peer(client).wrote.extend_from_slice(bytes);
    }

    /// Forgets what was written and read.
    pub(super) fn forget_written(&mut self, client: u64) {
        let peer = self.peer(client);
        peer.wrote.drain(..std::mem::take(&mut peer.read));
    }

    pub(super) fn unread(&mut self, client: u64) -> usize {
        let peer = self.peer(client);
        peer.wrote.len() - peer.read
    }

    /// Takes what the door wants done.
    pub(super) fn collect(&mut self) {
        while let Some(output) = self.door.output() {
            match output {
                DoorOutput::Send { conn, bytes } => {
                    let peer = self.peer(conn.0);
                    assert!(!peer.sending && !peer.closed, "one send at a time, none after the end");
                    peer.sending = true;
                    peer.got.extend_from_slice(&bytes);
                }
                DoorOutput::Receive { conn, buffer } => {
                    let peer = self.peer(conn.0);
                    assert!(peer.receive.is_none() && !peer.closed, "one receive at a time");
                    assert!(
                        buffer.is_empty() && buffer.capacity() > 0 && buffer.capacity() <= RECEIVE_MAX * 8
                    );
                    peer.receive = Some(buffer);
                }
                DoorOutput::Proven { conn } => self.peer(conn.0).proven = true,
                DoorOutput::Guessed { conn } => self.peer(conn.0).guessed += 1,
                DoorOutput::Close { conn } => self.peer(conn.0).closed = true,
            }
        }
    }

    /// Gives the door up to `most` bytes of a client, if it asked. False if nothing was given.
    pub(super) fn give(&mut self, client: u64, most: usize) -> bool {
        let peer = self.peers.get_mut(&client).unwrap();
        let Some(buffer) = peer.receive.as_ref() else { return false };
        let len = most.min(peer.wrote.len() - peer.read).min(buffer.capacity());
        if len == 0 {
            return false;
        }
        let mut buffer = peer.receive.take().unwrap();
        buffer.extend_from_slice(&peer.wrote[peer.read..peer.read + len]);
        peer.read += len;
        self.door.input(self.now, ConnId(client), buffer, &mut self.model);
        self.collect();
        true
    }

    /// A client sends no more; `drained` if the door has all that it sent.
    pub(super) fn end(&mut self, client: u64, drained: bool) {
        self.door.ended(self.now, ConnId(client), drained, &mut self.model);
        self.collect();
    }

    /// Completes a send. False if none was under way.
    pub(super) fn complete(&mut self, client: u64) -> bool {
        let peer = self.peer(client);
        let completes = peer.sending && !peer.deaf;
        if completes {
            peer.sending = false;
            self.door.sent(ConnId(client));
            self.collect();
        }
        completes
    }

    /// Capacity of all buffers that are being received into, and what the parsers keep for the next command.
    pub(super) fn lent(&self) -> usize {
        let parsers: usize = self.door.sessions.values().map(|session| session.parser_bytes()).sum();
        let lent: usize =
            self.peers.values().filter_map(|peer| peer.receive.as_ref()).map(Vec::capacity).sum();
        parsers + lent
    }

    pub(super) fn release(&mut self) {
        self.door.release(self.now, &mut self.model);
        self.collect();
    }

    pub(super) fn tick(&mut self) {
        self.door.begin_round();
        self.door.tick(self.now, &mut self.model);
        self.collect();
    }

    /// Ends one fetch. False if none is under way.
    pub(super) fn end_fetch(&mut self) -> bool {
        let Some(fetch) = self.model.chill.end_one() else { return false };
        self.door.fetched(fetch);
        true
    }

    pub(super) fn due(&self) -> bool {
        self.door.deadline().is_some_and(|deadline| deadline <= self.now.mono)
    }

    /// Goes on until nothing more happens by itself; `safe` makes all updates safe on the way.
    pub(super) fn run(&mut self, safe: bool) {
        let mut clients: Vec<u64> = self.peers.keys().copied().collect();
        clients.sort_unstable();
        loop {
            let mut moved = false;
            for client in &clients {
                moved |= self.give(*client, usize::MAX);
                moved |= self.complete(*client);
            }
            if safe {
                self.model.settle();
            }
            self.release();
            if !self.model.chill.held {
                moved |= self.end_fetch();
            }
            if self.due() {
                self.tick();
                moved = true;
            }
            moved |= safe && self.model.marks.durable != self.model.ends;
            moved |= clients.iter().map(|client| &self.peers[client]).any(|peer| {
                peer.sending && !peer.deaf || peer.receive.is_some() && peer.read < peer.wrote.len()
            });
            if !moved {
                return;
            }
        }
    }

    /// What a client was told since the last call.
    pub(super) fn got(&mut self, client: u64) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.peer(client).got)).into_owned()
    }

    /// Sends commands (separated by `;`, words by blanks) as client 1 and returns the replies.
    pub(super) fn ask(&mut self, commands: &str) -> String {
        self.ask_as(1, commands)
    }

    pub(super) fn ask_as(&mut self, client: u64, commands: &str) -> String {
        let bytes = encode(commands);
        self.write(client, &bytes);
        self.run(true);
        self.got(client)
    }
}

/// Commands separated by `;`, words by blanks, as requests.
pub(super) fn encode(commands: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for command in commands.split(';') {
        let words: Vec<&[u8]> = command.split_whitespace().map(str::as_bytes).collect();
        crate::format::resp::command(&mut out, &words);
    }
    out
}

//! The node's side of a save: one thread reads what the store shows and what the journal holds between two such states, and
//! sends both over the connection on which an operator asked. Whoever asked writes the set; this process writes nothing.
//!
//! Each range is read from a newest state of the store, so no state is held for longer than a read. The one thing that a save
//! holds on to is the journal behind the last batch that was sent (see `src/engine/save.rs`). What the node has alone comes at
//! the end: its changes are in no batch, so it is read of one moment, which is held meanwhile, and at which the history ends.

use super::admin::write_within;
use super::alone::AloneMoment;
use super::config::Config;
use super::inbox::{Inbox, Message};
use super::layout::Layout;
use super::views::{NotHeld, ViewDesk};
use super::volumes::read_slowly;
use crate::base::limits::{SAVE_STUCK_MS, SET_FILES_MAX};
use crate::base::{Ordinal, Seq};
use crate::engine::{Event, SaveAnswer, SaveAsk, SetWalk, is_over, within};
use crate::format::PairId;
use crate::format::alone::Alone;
use crate::format::batch::Batch;
use crate::format::chunk::{Chunk, Content, CopyBegin, Next};
use crate::format::set::SetBegin;
use crate::format::since::Same;
use crate::io::give_way;
use crate::store::namespace::Namespace;
use crate::store::tree_store::{CopyReader, StoreReader};
use crate::store::{CopySource, StoreError};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// The definitions are read again so often if the journal has forgotten where it stood at their position.
const READS_MAX: u32 = 8;
/// How far a save gives way to the node's other threads.
const SAVE_NICE: i32 = 10;
/// An answer of the core takes a read of the journal at most.
const ANSWER_TIME: Duration = Duration::from_secs(120);

/// A range of which something is known takes so many bytes at most.
const SAME_MAX: usize = 1 << 10;

/// What stands before each part of the stream: kind, then the length of what follows (u32).
pub(crate) const FRAME_HEAD: usize = 5;

/// What a part of the stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameKind {
    /// Pair (16 bytes), bytes that the node's content takes (u64), then a [`SetBegin`].
    Begin,
    /// A batch, as on the link.
    Batch,
    /// A chunk, as on the link.
    Chunk,
    /// Everything was sent.
    End,
    /// A [`Same`]: what a range is known to hold, to the node; that it is so, from the node.
    Same,
    /// It cannot go on: a message and what to do, with a line end between them.
    Failed,
    /// As [`Self::Begin`], of a save at whose end comes what the node has alone.
    BeginWhole,
    /// An [`Alone`]; the chunks behind it are of that.
    Alone,
}

impl FrameKind {
    const ALL: [Self; 8] = [
        Self::Begin,
        Self::Batch,
        Self::Chunk,
        Self::End,
        Self::Failed,
        Self::Same,
        Self::BeginWhole,
        Self::Alone,
    ];

    /// As it stands in the stream.
    pub(crate) fn byte(self) -> u8 {
        match self {
            Self::Begin => 1,
            Self::Batch => 2,
            Self::Chunk => 3,
            Self::End => 4,
            Self::Failed => 5,
            Self::Same => 6,
            Self::BeginWhole => 7,
            Self::Alone => 8,
        }
    }

    /// Of a byte of the stream.
    pub(crate) fn of(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.byte() == byte)
    }
}

/// A save whose command was killed, or failed, is noticed within this.
const BUSY: Duration = Duration::from_secs(3);
/// What was defined on this node alone is in the store within this, unless that is failing.
const EARLY: Duration = Duration::from_secs(30);
/// Between two questions whether it is so.
const REST: Duration = Duration::from_millis(20);

/// What is wanted of a save.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SaveOrder {
    /// Content of this account only; empty for all.
    pub(crate) account: String,
    /// Content in a second at most (bytes), beside what users change meanwhile; 0 is no limit.
    pub(crate) rate: u64,
    /// Who asks tells what it knows of the content, range by range, in the order of a set.
    pub(crate) since: bool,
    /// What the node has alone, too.
    pub(crate) alone: bool,
}

/// The questions of saves that the core has not answered yet.
#[derive(Debug, Default)]
pub(crate) struct SaveDesk {
    serial: u64,
    pending: Vec<(u64, SyncSender<SaveAnswer>)>,
}

impl SaveDesk {
    /// Takes a question; gives what the engine is told.
    pub(crate) fn ask(&mut self, ask: SaveAsk, reply: SyncSender<SaveAnswer>) -> Event {
        self.serial += 1;
        if !matches!(ask, SaveAsk::End { .. }) {
            self.pending.push((self.serial, reply));
        }
        Event::Save { token: self.serial, ask }
    }

    /// Hands an answer back.
    pub(crate) fn answer(&mut self, token: u64, answer: SaveAnswer) {
        if let Some(at) = self.pending.iter().position(|(other, _)| *other == token) {
            // Who asked and is gone ends the save.
            let _ = self.pending.swap_remove(at).1.try_send(answer);
        }
    }
}

/// What saves are made of.
#[derive(Clone)]
pub(crate) struct SaveSource {
    layout: Layout,
    store: StoreReader,
    ordinal: Ordinal,
    pair: PairId,
    name: String,
    inbox: Inbox,
    views: ViewDesk,
}

/// Why a save ends before its end.
enum Stop {
    /// Nobody is there any more.
    Gone,
    /// It cannot be made.
    Failed(String, String),
}

impl From<io::Error> for Stop {
    fn from(_: io::Error) -> Self {
        Self::Gone
    }
}

impl From<NotHeld> for Stop {
    fn from(why: NotHeld) -> Self {
        match why {
            NotHeld::Not(why, next) => {
                Self::Failed(format!("saving what this node has alone: {why}"), next.to_owned())
            }
            NotHeld::Failed(error) => error.into(),
        }
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        let next = "hot-backup scrub tells what is damaged; save the other node".to_owned();
        Self::Failed(format!("saving: {error}"), next)
    }
}

impl SaveSource {
    /// Of a node that starts.
    pub(crate) fn new(
        layout: &Layout,
        config: &Config,
        store: &StoreReader,
        (inbox, views): (&Inbox, &ViewDesk),
    ) -> Self {
        let (layout, store, inbox, views) = (layout.clone(), store.clone(), inbox.clone(), views.clone());
        let (ordinal, pair, name) = (config.engine.ordinal, config.engine.pair, config.engine.name.clone());
        Self { layout, store, ordinal, pair, name, inbox, views }
    }

    /// Makes a save and sends it; blocks until it is over.
    pub(crate) fn run(&self, order: &SaveOrder, stream: &UnixStream) {
        let _ = give_way(SAVE_NICE);
        let mut line = Line { stream, rate: order.rate, sent: 0, since: Instant::now() };
        let mut save = Running { source: self, save: None, up_to: [Seq(0); 2] };
        let made = save.run(order, &mut line);
        // The engine knows of the end before who asked does, who may ask for another at once.
        drop(save);
        match made.and_then(|()| line.send(FrameKind::End, &[])) {
            Ok(()) => tracing::info!("a save was sent, {} bytes of content", line.sent),
            Err(Stop::Gone) => {
                tracing::warn!("a save was given up: who asked for it is gone, or the node stops")
            }
            Err(Stop::Failed(why, next)) => {
                tracing::warn!("{why}");
                // Who does not take it knows by the end of the stream.
                let _ = line.send(FrameKind::Failed, &[format!("{why}\n{next}").as_bytes()]);
            }
        }
    }
}

/// The connection, and how fast it may be filled.
struct Line<'a> {
    stream: &'a UnixStream,
    rate: u64,
    sent: u64,
    since: Instant,
}

impl Line<'_> {
    fn send(&mut self, kind: FrameKind, payload: &[&[u8]]) -> Result<(), Stop> {
        let len: usize = payload.iter().map(|part| part.len()).sum();
        let len = u32::try_from(len).map_err(|_| Stop::Gone)?;
        let mut head = [kind.byte(); FRAME_HEAD];
        head[1..].copy_from_slice(&len.to_le_bytes());
        for part in std::iter::once(&head[..]).chain(payload.iter().copied()) {
            write_within(self.stream, part, Duration::from_millis(SAVE_STUCK_MS))?;
        }
        Ok(())
    }

    /// Counts content that was read. What users change meanwhile has to be followed, however fast they are.
    fn read(&mut self, bytes: u64) {
        self.sent += bytes;
        if let Some(due) = self.sent.saturating_mul(1000).checked_div(self.rate) {
            std::thread::sleep(Duration::from_millis(due).saturating_sub(self.since.elapsed()));
        }
    }
}

/// What who asked knows of the content, which it tells while the save is made.
struct Told<'a> {
    stream: &'a UnixStream,
    /// The range that was told last.
    next: Option<Same>,
    /// All was told, of what is replicated or of what the node has alone.
    ended: bool,
}

impl<'a> Told<'a> {
    fn of(stream: &'a UnixStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(Duration::from_millis(SAVE_STUCK_MS)))?;
        Ok(Self { stream, next: None, ended: false })
    }

    /// The range in which a place is, or the first one behind it; none if nothing is known any more.
    fn at(&mut self, place: &Next) -> Result<Option<&Same>, Stop> {
        while !self.ended && self.next.as_ref().is_none_or(|same| is_over(same, place)) {
            self.step()?;
        }
        Ok(self.next.as_ref())
    }

    /// What is told next is of what the node has alone.
    fn go_on(&mut self) -> Result<(), Stop> {
        while !self.ended {
            self.step()?;
        }
        self.ended = false;
        Ok(())
    }

    fn step(&mut self) -> Result<(), Stop> {
        let mut head = [0; FRAME_HEAD];
        self.stream.read_exact(&mut head)?;
        let [kind, len @ ..] = head;
        let len = u32::from_le_bytes(len) as usize;
        match FrameKind::of(kind) {
            Some(FrameKind::End) => {
                (self.ended, self.next) = (true, None);
                return Ok(());
            }
            Some(FrameKind::Same) if len <= SAME_MAX => {}
            _ => return Err(failed("who asked told something else than what it knows".to_owned())),
        }
        let mut payload = vec![0; len];
        self.stream.read_exact(&mut payload)?;
        let same = Same::decode(&payload.into());
        self.next = Some(same.map_err(|error| failed(format!("what is known of the content: {error}")))?);
        Ok(())
    }
}

/// A save under way. The engine is told when it is dropped.
struct Running<'a> {
    source: &'a SaveSource,
    save: Option<u64>,
    /// It does not end before these entries, by journal.
    up_to: [Seq; 2],
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if let Some(save) = self.save {
            let (reply, _) = sync_channel(1);
            // A core that has ended holds nothing.
            let _ = self.source.inbox.send(Message::Save { ask: SaveAsk::End { save }, reply });
        }
    }
}

impl Running<'_> {
    fn run(&mut self, order: &SaveOrder, line: &mut Line<'_>) -> Result<(), Stop> {
        let layout = &self.source.layout;
        let reader = self.source.store.for_copies(self.source.ordinal, &layout.volumes(), read_slowly);
        let (begin, mut walk) = self.begin(&reader, order)?;
        let expected = space_of(&layout.store()) + space_of(&layout.volumes());
        let encoded = begin.encode().map_err(|error| failed(error.to_string()))?;
        let kind = if order.alone { FrameKind::BeginWhole } else { FrameKind::Begin };
        line.send(kind, &[&self.source.pair.0, &expected.to_le_bytes(), &encoded])?;
        let mut told = order.since.then(|| Told::of(line.stream)).transpose()?;
        while let Some(want) = walk.want() {
            let known = match &mut told {
                Some(told) => told.at(walk.next())?,
                None => None,
            };
            let chunk = reader.range(&within(want, known))?;
            let given = self.batches(&mut walk, chunk.at, line)?;
            // Blocks may be newer than the store says, but not than what it was given when they had been read.
            let until = match chunk.content {
                Content::Blocks { .. } => chunk.until.max(given),
                _ => chunk.until,
            };
            send_chunk(&mut walk, Chunk { until, ..chunk }, known, line)?;
        }
        let [up_to, own] = self.up_to;
        let until = walk.until().max(up_to);
        if order.alone {
            self.alone(&mut walk, ([until, own], &order.account), told, line)
        } else {
            self.batches(&mut walk, until, line).map(drop)
        }
    }

    /// What the node has alone, at a moment behind these entries. The history ends there.
    fn alone(
        &self,
        walk: &mut SetWalk,
        (at_least, account): ([Seq; 2], &str),
        mut told: Option<Told<'_>>,
        line: &mut Line<'_>,
    ) -> Result<(), Stop> {
        let held = AloneMoment::hold(&self.source.layout, &self.source.views, at_least)?;
        let [until, at] = held.shows().applied;
        self.batches(walk, until, line)?;
        let (namespace, mut left_out) = held.shows().namespace.alone(account);
        left_out.truncate(SET_FILES_MAX as usize);
        let copy = CopyBegin { origin: walk.end(), namespace, ..CopyBegin::default() };
        let alone = Alone { at, left_out, copy };
        walk.alone(&alone).map_err(|error| failed(error.to_string()))?;
        let encoded = alone.encode().map_err(|error| failed(error.to_string()))?;
        line.send(FrameKind::Alone, &[&encoded])?;
        if let Some(told) = &mut told {
            told.go_on()?;
        }
        while let Some(want) = walk.want() {
            let known = match &mut told {
                Some(told) => told.at(walk.next())?,
                None => None,
            };
            let read = held.range(&within(want, known));
            let chunk =
                read.map_err(|(why, next)| Stop::Failed(format!("saving: {why}"), next.to_owned()))?;
            send_chunk(walk, chunk, known, line)?;
        }
        Ok(())
    }

    /// The definitions, at a position that the journal knows.
    fn begin(&mut self, reader: &CopyReader, order: &SaveOrder) -> Result<(SetBegin, SetWalk), Stop> {
        let account = order.account.as_str();
        let began = Instant::now();
        let mut reads = 0;
        while reads < READS_MAX {
            reads += 1;
            let (at, namespace) = reader.definitions()?;
            let answer = self.ask(SaveAsk::Begin { at })?;
            let patience = match answer {
                SaveAnswer::Busy => BUSY,
                SaveAnswer::Early => EARLY,
                _ => Duration::ZERO,
            };
            if began.elapsed() < patience {
                reads -= 1;
                std::thread::sleep(REST);
                continue;
            }
            let (origin, table, role) = match answer {
                SaveAnswer::Begun { save, origin, table, role, up_to, own } => {
                    (self.save, self.up_to) = (Some(save), [up_to, own]);
                    (origin, table, role)
                }
                SaveAnswer::Early => {
                    let why = "saving: the store does not take what was defined here".to_owned();
                    return Err(Stop::Failed(why, "see: hot-backup status".to_owned()));
                }
                SaveAnswer::Busy => {
                    let why = "saving: another save of this node is under way".to_owned();
                    return Err(Stop::Failed(why, "wait for its end".to_owned()));
                }
                _ => continue,
            };
            let all = Namespace::of(&namespace).map_err(|error| failed(error.to_string()))?;
            let (namespace, mut left_out) =
                if order.alone { (all.shared(), Vec::new()) } else { all.saved() };
            left_out.truncate(SET_FILES_MAX as usize);
            let copy = CopyBegin { origin, size: reader.size(), table, namespace };
            let broken = |error: crate::engine::WalkError| failed(error.to_string());
            let walk = SetWalk::begin(self.source.pair, &copy, account).map_err(broken)?;
            if !account.is_empty() && all.account_id(account).is_none() {
                let next = "see: hot-backup account list".to_owned();
                return Err(Stop::Failed(
                    format!("saving account {account}: there is none of that name"),
                    next,
                ));
            }
            let begin = SetBegin {
                base: None,
                role,
                node: self.source.name.clone(),
                account: account.to_owned(),
                left_out,
                copy,
            };
            return Ok((begin, walk));
        }
        Err(failed("the journal grows faster than definitions are read".to_owned()))
    }

    /// Sends the batches up to this entry; gives the last entry that the store may show.
    fn batches(&self, walk: &mut SetWalk, up_to: Seq, line: &mut Line<'_>) -> Result<Seq, Stop> {
        let save = self.save.unwrap_or_default();
        loop {
            let after = walk.end().seq;
            let SaveAnswer::Batches { batches, given } = self.ask(SaveAsk::Next { save, after, up_to })?
            else {
                return Err(failed("the node answered something else".to_owned()));
            };
            for batch in &batches {
                self.batch(walk, batch, line)?;
            }
            if walk.end().seq >= up_to {
                return Ok(given);
            }
        }
    }

    fn batch(&self, walk: &mut SetWalk, batch: &Batch, line: &mut Line<'_>) -> Result<(), Stop> {
        walk.batch(batch).map_err(|error| failed(error.to_string()))?;
        line.send(FrameKind::Batch, &[&batch.wire()])
    }

    fn ask(&self, ask: SaveAsk) -> Result<SaveAnswer, Stop> {
        let (reply, answer) = sync_channel(1);
        self.source.inbox.send(Message::Save { ask, reply }).map_err(|_| Stop::Gone)?;
        match answer.recv_timeout(ANSWER_TIME) {
            Ok(SaveAnswer::Refused { why, next }) => {
                Err(Stop::Failed(format!("saving: {why}"), next.to_owned()))
            }
            Ok(answer) => Ok(answer),
            Err(_) => Err(Stop::Gone),
        }
    }
}

/// Sends a range, or that it is what is known of it.
fn send_chunk(
    walk: &mut SetWalk,
    chunk: Chunk,
    known: Option<&Same>,
    line: &mut Line<'_>,
) -> Result<(), Stop> {
    line.read(chunk.content.bytes());
    match known.map(|known| (known, Same::of(&chunk))).filter(|(known, same)| same.is(known)) {
        Some((_, same)) => {
            walk.chunk(&same.range).map_err(|error| failed(error.to_string()))?;
            line.send(FrameKind::Same, &[&same.encode()])
        }
        None => {
            walk.chunk(&chunk).map_err(|error| failed(error.to_string()))?;
            line.send(FrameKind::Chunk, &[&chunk.encode()])
        }
    }
}

fn failed(why: String) -> Stop {
    Stop::Failed(format!("saving: {why}"), "begin it again".to_owned())
}

/// What the files in a directory and below it take on the disk (bytes), as far as they can be looked at.
fn space_of(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let of = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => space_of(&entry.path()),
        Ok(found) => found.blocks() * 512,
        Err(_) => 0,
    };
    entries.filter_map(Result::ok).map(of).sum()
}

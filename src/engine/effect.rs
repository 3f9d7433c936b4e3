//! What the engine asks for, one enum for each room that carries it out; [`super::event`] has what it is told. The daemon and
//! the simulator are its two drivers. A worker is handed the enum of its room as it is.
//!
//! Order: effects are carried out in the order in which they come out, but completions may come back in any
//! order and at any time, except that batches handed to [`StoreEffect::Apply`] of one journal are applied in order.
//! A driver never invents a completion and never gives one twice.

use super::admin::AdminReply;
use super::config::SpoolMode;
use super::save::SaveAnswer;
use crate::base::{AlignedBuf, ConnId, FileId, JournalKind, Round, SegmentIndex};
pub use crate::doors::Allocation;
pub use crate::doors::nbd::Tls;
pub use crate::doors::resp::{ClientPlace, Memory};
use crate::format::batch::Batch;
use crate::format::chunk::{Chunk, CopyBegin, Progress, Want};
use crate::format::compare::{Span, What};
use crate::format::rewind::{Prepared, Ranges};
use crate::format::spool::PartHeader;
use crate::store::{Fits, StoreError, StoreSnapshot};
use bytes::Bytes;

/// Something to do outside.
#[derive(Debug)]
pub enum Effect {
    /// With the journal's segments.
    Journal(JournalEffect),
    /// With the spool.
    Spool(SpoolEffect),
    /// In the record store.
    Store(StoreEffect),
    /// For a peer that is given a copy.
    Copy(CopyEffect),
    /// In the store, to hold it against the peer's.
    Compare(CompareEffect),
    /// With the volumes' files.
    Volume(VolumeEffect),
    /// With everything that is stored, to see whether it is what was written.
    Scrub(ScrubEffect),
    /// With the node's small files.
    File(FileEffect),
    /// With connections to the peer.
    Link(LinkEffect),
    /// With clients' connections.
    Client(ClientEffect),
    /// Answer an operator.
    Admin {
        /// From the request.
        token: u64,
        /// The answer.
        reply: AdminReply,
    },
    /// Answer somebody who saves what this node holds.
    Save {
        /// From the question.
        token: u64,
        /// The answer.
        answer: SaveAnswer,
    },
    /// Tell people.
    Incident(Incident),
    /// The trouble with this word is over. Told behind the incident that says so to people, if there is one.
    Ended {
        /// Which.
        code: &'static str,
        /// When (milliseconds since 1970).
        wall_ms: u64,
    },
    /// Everything is finished; the process may end.
    Stopped,
}

/// What to do with a journal's segments.
#[derive(Debug)]
pub enum JournalEffect {
    /// See [`PrepareSegment`].
    Prepare(PrepareSegment),
    /// Write durably (O_DIRECT and DSYNC, or write and fdatasync); answer written or failed. At most two per
    /// journal are under way, and may end in any order.
    Write {
        /// Comes back with the answer.
        write: u64,
        /// The journal.
        journal: JournalKind,
        /// The segment.
        segment: SegmentIndex,
        /// Offset in it, on a block boundary.
        offset: u64,
        /// One after the other; each is whole blocks, aligned in memory.
        parts: Vec<Bytes>,
    },
    /// See [`RemoveSegment`].
    Remove(RemoveSegment),
    /// See [`ReadSegment`].
    Read(ReadSegment),
}

impl From<JournalEffect> for Effect {
    fn from(effect: JournalEffect) -> Self {
        Self::Journal(effect)
    }
}

/// What to do with the spool, in order.
#[derive(Debug)]
pub enum SpoolEffect {
    /// Look at what is there, and remove what was left unfinished; answer opened.
    Open {
        /// Comes back with the answer.
        round: u64,
        /// `file:/directory`, or a place of reels.
        place: String,
        /// Where parts go for which that has no room: a place of reels, or empty.
        tape: String,
    },
    /// Copy a sealed segment of the replicated journal as it is, checked batch by batch, durably; answer copied.
    Copy {
        /// Comes back with the answer.
        round: u64,
        /// The part that it becomes.
        part: PartHeader,
    },
    /// Write a part, which is on the disk, to reels; answer moved. It stays on the disk.
    Move {
        /// Comes back with the answer.
        round: u64,
        /// Which.
        part: PartHeader,
    },
    /// Read of a part; answered as a read of the journal.
    Read {
        /// What of which segment.
        read: ReadSegment,
        /// The part that holds it.
        part: PartHeader,
    },
    /// Keep for the next start that an operator chose this place and mode, durably; answer kept.
    Keep {
        /// `file:/directory`; empty for none.
        place: String,
        /// When it is written.
        mode: SpoolMode,
    },
    /// Remove a part. No answer: one that is still there is found at the next opening.
    Remove {
        /// Which.
        part: PartHeader,
        /// It is on reels: it stays there, and is not needed any more.
        reel: bool,
    },
}

impl From<SpoolEffect> for Effect {
    fn from(effect: SpoolEffect) -> Self {
        Self::Spool(effect)
    }
}

/// What the record store is to do.
#[derive(Debug)]
pub enum StoreEffect {
    /// Apply a batch to the store; answer applied (one answer may cover several batches) or failed.
    Apply {
        /// The journal.
        journal: JournalKind,
        /// After a failure everything is given again in the next round.
        round: Round,
        /// The batch.
        batch: Batch,
    },
    /// Make the store durable; answer checkpointed or failed. At most one is under way.
    Checkpoint,
    /// Replace everything that is replicated by the definitions that a copy begins with; answer begun. Nothing of the
    /// replicated journal is under way.
    BeginCopy {
        /// The beginning.
        begin: Box<CopyBegin>,
        /// Of a rewind: what is replaced. What files hold besides stays.
        ranges: Option<Box<Ranges>>,
    },
    /// Keep what a rewind will begin with; answer prepared. A checkpoint makes it durable.
    PrepareRewind {
        /// That.
        prepared: Box<Prepared>,
    },
    /// Make a range what a chunk says, behind all that was given before; answer taken, or failed as for a batch of the
    /// replicated journal.
    TakeChunk {
        /// As for [`StoreEffect::Apply`].
        round: Round,
        /// The chunk.
        chunk: Chunk,
        /// How far the copy is with it.
        progress: Progress,
    },
    /// Items could not be read: tell which, once it is known; answer rotten, if there are any.
    FindRot,
    /// Read from the disk, so that it is in memory for the read that comes then; answer fetched.
    Fetch {
        /// Comes back with the answer.
        fetch: u64,
        /// The file.
        file: FileId,
        /// Its generation.
        generation: u32,
        /// What of it.
        part: StoredPart,
    },
}

impl From<StoreEffect> for Effect {
    fn from(effect: StoreEffect) -> Self {
        Self::Store(effect)
    }
}

/// What to read for a peer that is given a copy, from a state between two batches; answered by [`super::CopyEvent`].
#[derive(Debug)]
pub enum CopyEffect {
    /// The definitions.
    Definitions {
        /// Comes back with the answer.
        read: u64,
    },
    /// A range.
    Range {
        /// Comes back with the answer.
        read: u64,
        /// Which.
        want: Want,
    },
}

impl From<CopyEffect> for Effect {
    fn from(effect: CopyEffect) -> Self {
        Self::Copy(effect)
    }
}

/// What to do in the store for a compare. Looks and repairs are carried out in their place among the batches of the replicated
/// journal, see [`StoreEffect::Apply`]; what takes its time of a look is not.
#[derive(Debug)]
pub enum CompareEffect {
    /// Look at a range; answer looked.
    Look {
        /// Comes back with the answer.
        look: u64,
        /// As for [`StoreEffect::Apply`]; a look of a round that failed is not answered.
        round: Round,
        /// The file.
        file: FileId,
        /// Where.
        span: Span,
        /// What is wanted of it.
        what: What,
        /// How much is looked at, at most (bytes).
        most: u32,
    },
    /// Make a range what a chunk says; answer repaired.
    Repair {
        /// Comes back with the answer.
        look: u64,
        /// As for a look.
        round: Round,
        /// The range.
        chunk: Chunk,
    },
    /// Keep these bytes for the next start; answer kept, even if that fails.
    Keep {
        /// See [`crate::format::compare::Certificate`].
        bytes: Vec<u8>,
    },
}

impl From<CompareEffect> for Effect {
    fn from(effect: CompareEffect) -> Self {
        Self::Compare(effect)
    }
}

/// What to read of a file's items.
#[derive(Clone, Debug)]
pub enum StoredPart {
    /// One item.
    Item(Bytes),
    /// Up to `limit` items behind this one.
    Items {
        /// From the first on if none.
        after: Option<Bytes>,
        /// How many.
        limit: usize,
    },
    /// About how many items there are whose ids fit.
    Count(Fits),
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// It is in memory, as far as there is room.
    InMemory,
    /// So many there are, about.
    Count(u64),
}

impl StoredPart {
    /// Reads it, waiting for the disk.
    ///
    /// # Errors
    /// Any [`StoreError`].
    pub fn fetch(
        &self,
        snapshot: &impl StoreSnapshot,
        file: FileId,
        generation: u32,
    ) -> Result<Fetched, StoreError> {
        match self {
            Self::Item(id) => drop(snapshot.get(file, generation, id)?),
            Self::Items { after, limit } => {
                drop(snapshot.scan(file, generation, after.as_deref(), *limit, false)?);
            }
            Self::Count(fits) => return snapshot.estimate(file, generation, *fits).map(Fetched::Count),
        }
        Ok(Fetched::InMemory)
    }
}

/// What to read of volumes.
#[derive(Debug)]
pub enum VolumeEffect {
    /// Read `len` bytes of a volume as the store shows it; what was never written reads as zeros.
    Read {
        /// Comes back with the answer.
        read: u64,
        /// The volume.
        file: FileId,
        /// Where (bytes, any).
        offset: u64,
        /// How much (bytes).
        len: usize,
        /// Between two batches that are applied, and not while one is.
        ordered: bool,
    },
    /// Tell what takes space in a range of a volume, as the store shows it.
    Allocation {
        /// Comes back with the answer.
        read: u64,
        /// The volume.
        file: FileId,
        /// Where (bytes, any).
        offset: u64,
        /// How much (bytes).
        len: u64,
        /// As for [`VolumeEffect::Read`].
        ordered: bool,
    },
    /// The volume is gone: nothing of it is needed any more.
    Forget {
        /// The volume.
        file: FileId,
    },
}

impl From<VolumeEffect> for Effect {
    fn from(effect: VolumeEffect) -> Self {
        Self::Volume(effect)
    }
}

/// What a scrub reads as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScrubPart {
    /// A volume.
    Volume {
        /// Which.
        file: FileId,
        /// Its size (bytes).
        bytes: u64,
        /// Where to begin (bytes).
        from: u64,
    },
    /// The tables of all items.
    Items,
}

impl ScrubPart {
    /// Where it begins. The items come last.
    #[must_use]
    pub const fn place(&self) -> (FileId, u64) {
        match self {
            Self::Volume { file, from, .. } => (*file, *from),
            Self::Items => (FileId(u64::MAX), 0),
        }
    }

    /// Its size, as far as it is known before it is read (bytes).
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        match self {
            Self::Volume { bytes, .. } => *bytes,
            Self::Items => 0,
        }
    }
}

/// What to do for a scrub.
#[derive(Debug)]
pub enum ScrubEffect {
    /// Read a part, hold it to its checksums, and tell how far that is; answer done. One at a time.
    Begin {
        /// Comes back with all that is told of it.
        job: u64,
        /// Which.
        part: ScrubPart,
        /// Bytes a second at most; 0 is no limit.
        rate: u64,
        /// Give content whose checksum is damaged or missing a new one.
        renew: bool,
    },
    /// End the part that is under way, if any, as soon as possible; answer done.
    Stop,
    /// Keep these bytes for the next start; answer kept, even if that fails: a scrub that nobody knows of is made again.
    Keep {
        /// See [`crate::format::scrub`].
        bytes: Vec<u8>,
    },
}

impl From<ScrubEffect> for Effect {
    fn from(effect: ScrubEffect) -> Self {
        Self::Scrub(effect)
    }
}

/// What to do with the node's small files.
#[derive(Debug)]
pub enum FileEffect {
    /// Replace the control file durably.
    WriteControl {
        /// Comes back with the answer.
        write: u64,
        /// Its content.
        bytes: Vec<u8>,
    },
    /// Append to a file in `diverged/`, durably; answer saved or failed.
    SaveDiverged {
        /// Comes back with the answer.
        save: u64,
        /// File name, without directory.
        file: String,
        /// Begin the file anew: what an interrupted attempt left is dropped.
        first: bool,
        /// What to append.
        bytes: Bytes,
    },
}

impl From<FileEffect> for Effect {
    fn from(effect: FileEffect) -> Self {
        Self::File(effect)
    }
}

/// What to do with a connection to the peer.
#[derive(Debug)]
pub enum LinkEffect {
    /// Connect to the peer; answer connected or closed.
    Connect {
        /// The number of the new connection.
        conn: ConnId,
    },
    /// Send to the peer, after all that was given before.
    Send {
        /// The connection.
        conn: ConnId,
        /// What, in order.
        parts: Vec<Bytes>,
    },
    /// Receive what the peer sends next into the buffer, behind what is in it; answer filled as soon as some came. Without
    /// this the driver receives as it likes.
    Fill {
        /// The connection.
        conn: ConnId,
        /// Where to.
        buffer: AlignedBuf,
        /// Bytes in it in the end; they fit.
        until: usize,
    },
    /// End the connection once what was given is sent, or now if `abort`. No answer is needed afterwards.
    Close {
        /// The connection.
        conn: ConnId,
        /// Drop what is not sent.
        abort: bool,
    },
}

impl From<LinkEffect> for Effect {
    fn from(effect: LinkEffect) -> Self {
        Self::Link(effect)
    }
}

/// What to do with a client's connection.
#[derive(Debug)]
pub enum ClientEffect {
    /// Send to a client, after all that was given before; answer sent.
    Send {
        /// The client.
        conn: ConnId,
        /// What.
        bytes: Bytes,
    },
    /// Read from a client once.
    Receive {
        /// The client.
        conn: ConnId,
        /// A buffer to use again (its content is of no use), or an empty one.
        buffer: Vec<u8>,
    },
    /// Receive from a client into the buffer, behind what is in it, until it holds so many bytes; answer filled.
    Fill {
        /// The client.
        conn: ConnId,
        /// Where to.
        buffer: AlignedBuf,
        /// Bytes in it in the end; they fit.
        until: usize,
    },
    /// What was given is sent in clear; from then on the connection is TLS, this node being its server. Answer secured,
    /// or closed.
    StartTls {
        /// The client.
        conn: ConnId,
    },
    /// The client has proved that it may be here: its place is its own from now on.
    Proven {
        /// The client.
        conn: ConnId,
    },
    /// The client gave a wrong password: slow it down, count it, and tell people.
    Guessed {
        /// The client.
        conn: ConnId,
    },
    /// The client was denied what it came for: count it, and tell people.
    Refused {
        /// The client.
        conn: ConnId,
        /// Why, for people.
        why: String,
    },
    /// End the connection once what was given is sent.
    Close {
        /// The client.
        conn: ConnId,
        /// Now, as it takes nothing of what was given.
        stuck: bool,
    },
}

impl From<ClientEffect> for Effect {
    fn from(effect: ClientEffect) -> Self {
        Self::Client(effect)
    }
}

/// Make a segment, of zeros or of a file kept for reuse behind a first block of zeros, and sync it and its
/// directory; answer ready or failed.
#[derive(Debug)]
pub struct PrepareSegment {
    /// The journal.
    pub journal: JournalKind,
    /// Its number.
    pub index: SegmentIndex,
    /// Its size, a multiple of the block.
    pub bytes: u64,
}

/// The segment is needed no more: delete it, or keep its file for a segment to come. No answer. Removals of one
/// journal become durable in the order in which they are asked for, and one that fails keeps the later ones from
/// being done: a gap between segments would look like a loss.
#[derive(Debug)]
pub struct RemoveSegment {
    /// The journal.
    pub journal: JournalKind,
    /// Its number.
    pub index: SegmentIndex,
    /// Whether the file may be used again, see [`crate::journal::JournalOp::Remove`].
    pub reuse: bool,
}

/// Read `len` bytes of a segment from `offset`; fewer at its end.
#[derive(Debug)]
pub struct ReadSegment {
    /// Comes back with the answer.
    pub read: u64,
    /// The journal.
    pub journal: JournalKind,
    /// The segment.
    pub segment: SegmentIndex,
    /// Offset in it, on a block boundary.
    pub offset: u64,
    /// How much.
    pub len: usize,
}

/// Which door a client came in by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientDoor {
    /// RESP.
    Items {
        /// Whether it needs no password (the node's own Unix socket).
        trusted: bool,
    },
    /// NBD.
    Blocks {
        /// Whether it may or must secure the connection.
        tls: Tls,
    },
}

/// How much an incident matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know; also the end of a trouble.
    Notice,
    /// A promise is weaker than configured, or will be.
    Warning,
    /// Updates or protection have stopped.
    Critical,
}

impl Severity {
    /// Its word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Notice => "notice",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }

    /// The one with that word.
    #[must_use]
    pub fn of(word: &str) -> Option<Self> {
        [Self::Notice, Self::Warning, Self::Critical].into_iter().find(|severity| severity.name() == word)
    }
}

/// An unusual event that a person should know.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Incident {
    /// How much it matters.
    pub severity: Severity,
    /// A fixed word for programs, such as `peer-lost`.
    pub kind: &'static str,
    /// One sentence for people.
    pub text: String,
    /// When (milliseconds since 1970).
    pub wall_ms: u64,
    /// Whether it has begun, and [`Effect::Ended`] will tell that it is over.
    #[serde(skip)]
    pub lasts: bool,
}

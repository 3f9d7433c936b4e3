//! What the engine is told, one enum for each room that tells it. [`super::effect`] has what it asks for, and says in which
//! order.

use super::admin::AdminRequest;
use super::effect::{ClientDoor, ClientPlace, Fetched, Memory};
use super::health::DiskSpace;
use super::licence::Tested;
use super::save::SaveAsk;
use crate::base::{AlignedBuf, ConnId, Fault, JournalKind, Round, SegmentIndex, Seq};
use crate::doors::Allocation;
use crate::format::chunk::{Chunk, Definitions};
use crate::format::compare::Found;
use crate::format::compared::Compared;
use crate::format::scrub::ScrubRecord;
use crate::format::spool::PartHeader;
use crate::store::volumes::BadPlace;
use crate::store::{RottenItems, StoreError};
use bytes::Bytes;

/// Something that happened outside.
#[derive(Debug)]
pub enum Event {
    /// Of the journal's segments.
    Journal(JournalEvent),
    /// Of the spool.
    Spool(SpoolEvent),
    /// Of the record store.
    Store(StoreEvent),
    /// Of what was read for a peer that is given a copy.
    Copy(CopyEvent),
    /// Of what was looked at for a compare.
    Compare(CompareEvent),
    /// Of the volumes' files.
    Volume(VolumeEvent),
    /// Of a scrub.
    Scrub(ScrubEvent),
    /// Of the node's small files.
    File(FileEvent),
    /// Of connections to the peer.
    Link(LinkEvent),
    /// Of clients' connections.
    Client(ClientEvent),
    /// Time has come to the engine's deadline (or not: looking at the clock too early is harmless).
    Tick,
    /// What the process takes of the machine's memory, told now and then.
    Measured {
        /// How much.
        memory: Memory,
    },
    /// How much room the file system of the node's directory has, told now and then.
    DiskSpace(DiskSpace),
    /// An operator asks.
    Admin {
        /// Goes back with the answer.
        token: u64,
        /// What.
        request: AdminRequest,
    },
    /// Somebody who saves what this node holds asks.
    Save {
        /// Goes back with the answer.
        token: u64,
        /// What.
        ask: SaveAsk,
    },
    /// A view has ended by itself.
    ViewEnded {
        /// Its name.
        name: String,
        /// Why.
        why: String,
    },
    /// The licence was tested, for the first time or with another outcome than before.
    Licence(Box<Tested>),
    /// Finish what is under way, refuse what is new, then [`super::Effect::Stopped`].
    Stop,
}

/// What became of a journal's segments.
#[derive(Debug)]
pub enum JournalEvent {
    /// A file `index` of the size asked for exists, holds zeros only, and it and its name are durable.
    SegmentReady {
        /// The journal.
        journal: JournalKind,
        /// The segment.
        index: SegmentIndex,
    },
    /// The segment could not be made; nothing of it is left.
    SegmentFailed {
        /// The journal.
        journal: JournalKind,
        /// The segment.
        index: SegmentIndex,
        /// Why.
        fault: Fault,
    },
    /// The bytes of [`super::JournalEffect::Write`] are durable.
    Written {
        /// The write.
        write: u64,
    },
    /// The write failed; what is on disk at its place is unknown.
    WriteFailed {
        /// The write.
        write: u64,
        /// Why.
        fault: Fault,
    },
    /// Bytes of a segment, as asked for by [`super::ReadSegment`]; fewer only at the segment's end.
    Read {
        /// The read.
        read: u64,
        /// The bytes, or why not.
        result: Result<Bytes, Fault>,
    },
}

impl From<JournalEvent> for Event {
    fn from(event: JournalEvent) -> Self {
        Self::Journal(event)
    }
}

/// What became of the spool.
#[derive(Debug)]
pub enum SpoolEvent {
    /// What is there, or why that is not known.
    Opened {
        /// The round.
        round: u64,
        /// What was found.
        result: Result<SpoolFound, Fault>,
    },
    /// A segment was copied, durably, with all that was asked for before.
    Copied {
        /// The round.
        round: u64,
        /// Bytes that the spool's disk has left; or why it was not copied. [`Fault::STALE`]: the journal has let go of it.
        result: Result<u64, Fault>,
    },
    /// A part was moved from the disk to reels, with all that was asked for before: the drive's own word, at a flush.
    Moved {
        /// The round.
        round: u64,
        /// Or why not.
        result: Result<(), Fault>,
    },
    /// A reel is waited for, or none any more.
    Reel {
        /// Which, where, and why, for people.
        wanted: Option<String>,
    },
    /// A part on reels cannot be read.
    Damaged {
        /// Which.
        part: PartHeader,
        /// Why: reel, position, blocks.
        why: String,
    },
    /// A drive set these TapeAlert flags.
    Alerts {
        /// Which drive.
        drive: String,
        /// Their numbers.
        flags: Vec<u8>,
    },
    /// Which saves are kept, as far as this node was told of them.
    Saves {
        /// The last entry of the oldest; none if there is none.
        oldest: Option<Seq>,
    },
    /// What an operator chose is kept for the next start, or not.
    Kept {
        /// Whether.
        result: Result<(), Fault>,
    },
}

impl From<SpoolEvent> for Event {
    fn from(event: SpoolEvent) -> Self {
        Self::Spool(event)
    }
}

/// What a spool holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpoolFound {
    /// Its parts on the disk, each with its trailer.
    pub parts: Vec<PartHeader>,
    /// Its parts on reels, by the catalogue.
    pub reels: Vec<PartHeader>,
    /// Bytes that its disk has left.
    pub free: u64,
    /// Files that should be parts and are not, with what is wrong.
    pub damaged: Vec<(String, String)>,
}

/// What the record store did.
#[derive(Debug)]
pub enum StoreEvent {
    /// Everything of `journal` up to `seq` is visible in the store.
    Applied {
        /// The journal.
        journal: JournalKind,
        /// The round of the batches that were applied.
        round: Round,
        /// The last entry.
        seq: Seq,
    },
    /// The store could not apply; it holds what was applied before. What waits of that round is dropped unapplied (see
    /// [`super::Rounds`]), and nothing more is said of it.
    ApplyFailed {
        /// The journal.
        journal: JournalKind,
        /// The round of the batch that failed.
        round: Round,
        /// Why.
        fault: Fault,
    },
    /// The store holds, durably, everything up to these entries (by [`JournalKind::index`]).
    Checkpointed {
        /// The last entries.
        applied: [Seq; 2],
    },
    /// The checkpoint failed.
    CheckpointFailed {
        /// Why.
        fault: Fault,
    },
    /// The store holds the definitions of [`super::StoreEffect::BeginCopy`] and nothing else that is replicated, or could not
    /// do so.
    CopyBegun {
        /// Why not.
        result: Result<(), Fault>,
    },
    /// The store keeps what [`super::StoreEffect::PrepareRewind`] gave it, or could not do so.
    RewindPrepared {
        /// Why not.
        result: Result<(), Fault>,
    },
    /// The range of [`super::StoreEffect::TakeChunk`] is as the chunk says.
    ChunkTaken {
        /// The round of the chunk.
        round: Round,
        /// The chunk.
        id: u64,
    },
    /// Items that cannot be read.
    Rotten {
        /// Which.
        items: Vec<RottenItems>,
    },
    /// What was to be fetched was read.
    Fetched {
        /// The fetch.
        fetch: u64,
        /// What came of it, or why it failed.
        result: Result<Fetched, StoreError>,
    },
}

impl From<StoreEvent> for Event {
    fn from(event: StoreEvent) -> Self {
        Self::Store(event)
    }
}

/// What was read for a peer that is given a copy.
#[derive(Debug)]
pub enum CopyEvent {
    /// The definitions, and the last entry of the replicated journal that is applied in them.
    Definitions {
        /// The read.
        read: u64,
        /// What was found, or why nothing was.
        result: Result<(Seq, Definitions), Fault>,
        /// About how much content there is (bytes).
        size: u64,
    },
    /// A range.
    Range {
        /// The read.
        read: u64,
        /// What is to be answered ([`settled`](crate::format::unless::settled)), and how much of it the peer holds already (bytes);
        /// or why that is not known.
        result: Result<(Chunk, u64), Fault>,
    },
}

impl From<CopyEvent> for Event {
    fn from(event: CopyEvent) -> Self {
        Self::Copy(event)
    }
}

/// What was done for a compare.
#[derive(Debug)]
pub enum CompareEvent {
    /// At the start: what was kept of earlier ones.
    Known {
        /// That.
        kept: Box<Compared>,
    },
    /// A range was looked at.
    Looked {
        /// From [`super::CompareEffect::Look`].
        look: u64,
        /// The last entry of the replicated journal that was in the store.
        at: Seq,
        /// What was found.
        found: Found,
    },
    /// A range was made what a chunk says, or was not.
    Repaired {
        /// From [`super::CompareEffect::Repair`].
        look: u64,
        /// Why not.
        result: Result<(), Fault>,
    },
    /// What a compare came to is on the disk, if that can be.
    Kept,
}

impl From<CompareEvent> for Event {
    fn from(event: CompareEvent) -> Self {
        Self::Compare(event)
    }
}

/// What was read of volumes.
#[derive(Debug)]
pub enum VolumeEvent {
    /// Bytes of a volume, as asked for by [`super::VolumeEffect::Read`]: as many as were asked for.
    Read {
        /// The read.
        read: u64,
        /// The bytes, or why not.
        result: Result<Bytes, Fault>,
    },
    /// What takes space in a volume, as asked for by [`super::VolumeEffect::Allocation`]: the parts cover the whole range.
    Allocation {
        /// The question.
        read: u64,
        /// The parts in order, or why not.
        result: Result<Vec<Allocation>, Fault>,
    },
    /// Places of volumes are not what was written. Told before the answer to the read that met them.
    Wrong {
        /// Which.
        places: Vec<BadPlace>,
    },
}

impl From<VolumeEvent> for Event {
    fn from(event: VolumeEvent) -> Self {
        Self::Volume(event)
    }
}

/// What a scrub did.
#[derive(Debug)]
pub enum ScrubEvent {
    /// At the start: what was kept of earlier ones.
    Found {
        /// That.
        record: ScrubRecord,
    },
    /// How far the part under way is.
    Progress {
        /// From [`super::ScrubEffect::Begin`].
        job: u64,
        /// Everything before this is done (bytes).
        at: u64,
        /// Its size (bytes).
        of: u64,
        /// Read since this was last told (bytes).
        read: u64,
    },
    /// Tables of items are damaged.
    ItemsWrong {
        /// From [`super::ScrubEffect::Begin`].
        job: u64,
        /// Which, in which way.
        why: String,
    },
    /// The part under way has ended.
    Done {
        /// From [`super::ScrubEffect::Begin`].
        job: u64,
        /// Read since progress was last told (bytes).
        read: u64,
        /// Whether it came to its end, or what could not be read.
        result: Result<bool, Fault>,
    },
    /// What is known of scrubs is on the disk, if that can be.
    Kept,
}

impl From<ScrubEvent> for Event {
    fn from(event: ScrubEvent) -> Self {
        Self::Scrub(event)
    }
}

/// What became of the node's small files.
#[derive(Debug)]
pub enum FileEvent {
    /// The control file was replaced durably.
    ControlWritten {
        /// The write.
        write: u64,
    },
    /// The control file could not be replaced; the old or the new one is there.
    ControlFailed {
        /// The write.
        write: u64,
        /// Why.
        fault: Fault,
    },
    /// The bytes of [`super::FileEffect::SaveDiverged`] are durable in their file.
    DivergedSaved {
        /// The save.
        save: u64,
    },
    /// They are not.
    DivergedFailed {
        /// The save.
        save: u64,
        /// Why.
        fault: Fault,
    },
}

impl From<FileEvent> for Event {
    fn from(event: FileEvent) -> Self {
        Self::File(event)
    }
}

/// What happened on a connection to the peer.
#[derive(Debug)]
pub enum LinkEvent {
    /// The peer (its key was checked) connected to this node's link port.
    Accepted {
        /// A number not used before, from the driver's range (highest bit set).
        conn: ConnId,
        /// Its address, for people.
        from: String,
    },
    /// [`super::LinkEffect::Connect`] succeeded and the peer's key was checked.
    Connected {
        /// The connection.
        conn: ConnId,
    },
    /// Bytes from the peer, in order, cut anywhere.
    Bytes {
        /// The connection.
        conn: ConnId,
        /// What came.
        bytes: Bytes,
    },
    /// The buffer of [`super::LinkEffect::Fill`], with more in it. What comes with it and does not fit follows as
    /// [`LinkEvent::Bytes`].
    Filled {
        /// The connection.
        conn: ConnId,
        /// The buffer.
        buffer: AlignedBuf,
    },
    /// All bytes handed to [`super::LinkEffect::Send`] on this connection up to now were taken by the operating system.
    Sent {
        /// The connection.
        conn: ConnId,
    },
    /// Some of the bytes handed to [`super::LinkEffect::Send`] were taken. A driver may tell it or not.
    Moved {
        /// The connection.
        conn: ConnId,
    },
    /// The connection is over, or was never made. Nothing more comes from it.
    Closed {
        /// The connection.
        conn: ConnId,
        /// Why, for people.
        why: String,
    },
}

impl From<LinkEvent> for Event {
    fn from(event: LinkEvent) -> Self {
        Self::Link(event)
    }
}

/// What happened on a client's connection.
#[derive(Debug)]
pub enum ClientEvent {
    /// A client connected.
    Opened {
        /// A number not used before.
        conn: ConnId,
        /// Where.
        door: ClientDoor,
    },
    /// Where a client that was opened comes from and to.
    Placed {
        /// The client.
        conn: ConnId,
        /// Its addresses.
        place: Box<ClientPlace>,
    },
    /// The buffer of [`super::ClientEffect::Fill`], as full as was asked for.
    Filled {
        /// The client.
        conn: ConnId,
        /// The buffer.
        buffer: AlignedBuf,
    },
    /// The connection is secure from here on, as [`super::ClientEffect::StartTls`] asked for.
    Secured {
        /// The client.
        conn: ConnId,
    },
    /// Bytes from a client, as allowed by [`super::ClientEffect::Receive`].
    Bytes {
        /// The client.
        conn: ConnId,
        /// What came; the engine gives the buffer back with the next [`super::ClientEffect::Receive`].
        bytes: Vec<u8>,
    },
    /// The bytes of one [`super::ClientEffect::Send`] were taken by the operating system.
    Sent {
        /// The client.
        conn: ConnId,
    },
    /// The client sends no more than what it has sent already. Of that, what has not been begun and would have to wait is
    /// not carried out any more.
    Ended {
        /// The client.
        conn: ConnId,
        /// All that it sent was handed over.
        drained: bool,
    },
    /// The client is gone.
    Closed {
        /// The client.
        conn: ConnId,
    },
}

impl From<ClientEvent> for Event {
    fn from(event: ClientEvent) -> Self {
        Self::Client(event)
    }
}

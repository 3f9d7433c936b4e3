//! What the engine is told and what it asks for. The daemon and the simulator are its two drivers.
//!
//! Order: effects are carried out in the order in which they come out, but completions may come back in any
//! order and at any time, except that batches handed to [`Effect::Apply`] of one journal are applied in order.
//! A driver never invents a completion and never gives one twice.

use super::admin::{AdminReply, AdminRequest};
use crate::base::{AlignedBuf, ConnId, Fault, FileId, JournalKind, Round, SegmentIndex, Seq};
pub use crate::doors::Allocation;
pub use crate::doors::nbd::Tls;
pub use crate::doors::resp::{ClientPlace, Memory};
use crate::format::batch::Batch;
use bytes::Bytes;

/// Something that happened outside.
#[derive(Debug)]
pub enum Event {
    /// Time has come to the engine's deadline (or not: looking at the clock too early is harmless).
    Tick,
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
    /// The bytes of [`Effect::Write`] are durable.
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
    /// Bytes of a segment, as asked for by [`Effect::Read`]; fewer only at the segment's end.
    Read {
        /// The read.
        read: u64,
        /// The bytes, or why not.
        result: Result<Bytes, Fault>,
    },
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
    /// Bytes of a volume, as asked for by [`Effect::ReadVolume`]: as many as were asked for.
    VolumeRead {
        /// The read.
        read: u64,
        /// The bytes, or why not.
        result: Result<Bytes, Fault>,
    },
    /// What takes space in a volume, as asked for by [`Effect::VolumeAllocation`]: the parts cover the whole range.
    VolumeAllocation {
        /// The question.
        read: u64,
        /// The parts in order, or why not.
        result: Result<Vec<Allocation>, Fault>,
    },
    /// The bytes of [`Effect::SaveDiverged`] are durable in their file.
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
    /// The peer (its key was checked) connected to this node's link port.
    LinkAccepted {
        /// A number not used before, from the driver's range (highest bit set).
        conn: ConnId,
        /// Its address, for people.
        from: String,
    },
    /// [`Effect::LinkConnect`] succeeded and the peer's key was checked.
    LinkConnected {
        /// The connection.
        conn: ConnId,
    },
    /// Bytes from the peer, in order, cut anywhere.
    LinkBytes {
        /// The connection.
        conn: ConnId,
        /// What came.
        bytes: Bytes,
    },
    /// The buffer of [`Effect::LinkFill`], with more in it. What comes with it and does not fit follows as
    /// [`Self::LinkBytes`].
    LinkFilled {
        /// The connection.
        conn: ConnId,
        /// The buffer.
        buffer: AlignedBuf,
    },
    /// All bytes handed to [`Effect::LinkSend`] on this connection up to now were taken by the operating system.
    LinkSent {
        /// The connection.
        conn: ConnId,
    },
    /// Some of the bytes handed to [`Effect::LinkSend`] were taken. A driver may tell it or not.
    LinkMoved {
        /// The connection.
        conn: ConnId,
    },
    /// The connection is over, or was never made. Nothing more comes from it.
    LinkClosed {
        /// The connection.
        conn: ConnId,
        /// Why, for people.
        why: String,
    },
    /// A client connected.
    ClientOpened {
        /// A number not used before.
        conn: ConnId,
        /// Where.
        door: ClientDoor,
    },
    /// Where a client that was opened comes from and to.
    ClientPlaced {
        /// The client.
        conn: ConnId,
        /// Its addresses.
        place: Box<ClientPlace>,
    },
    /// What the process takes of the machine's memory, told now and then.
    Measured {
        /// How much.
        memory: Memory,
    },
    /// The buffer of [`Effect::ClientFill`], as full as was asked for.
    ClientFilled {
        /// The client.
        conn: ConnId,
        /// The buffer.
        buffer: AlignedBuf,
    },
    /// The connection is secure from here on, as [`Effect::ClientStartTls`] asked for.
    ClientSecured {
        /// The client.
        conn: ConnId,
    },
    /// Bytes from a client, as allowed by [`Effect::ClientReceive`].
    ClientBytes {
        /// The client.
        conn: ConnId,
        /// What came; the engine gives the buffer back with the next [`Effect::ClientReceive`].
        bytes: Vec<u8>,
    },
    /// The bytes of one [`Effect::ClientSend`] were taken by the operating system.
    ClientSent {
        /// The client.
        conn: ConnId,
    },
    /// The client sends no more than what it has sent already. Of that, what has not been begun and would have to wait is
    /// not carried out any more.
    ClientEnded {
        /// The client.
        conn: ConnId,
        /// All that it sent was handed over.
        drained: bool,
    },
    /// The client is gone.
    ClientClosed {
        /// The client.
        conn: ConnId,
    },
    /// An operator asks.
    Admin {
        /// Goes back with the answer.
        token: u64,
        /// What.
        request: AdminRequest,
    },
    /// Finish what is under way, refuse what is new, then [`Effect::Stopped`].
    Stop,
}

/// Something to do outside.
#[derive(Debug)]
pub enum Effect {
    /// Make a segment, of zeros or of a file kept for reuse behind a first block of zeros, and sync it and its
    /// directory; answer ready or failed.
    PrepareSegment {
        /// The journal.
        journal: JournalKind,
        /// Its number.
        index: SegmentIndex,
        /// Its size, a multiple of the block.
        bytes: u64,
    },
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
    /// The segment is needed no more: delete it, or keep its file for a segment to come. No answer. Removals of one
    /// journal become durable in the order in which they are asked for, and one that fails keeps the later ones from
    /// being done: a gap between segments would look like a loss.
    RemoveSegment {
        /// The journal.
        journal: JournalKind,
        /// Its number.
        index: SegmentIndex,
        /// Whether the file may be used again, see [`crate::journal::JournalOp::Remove`].
        reuse: bool,
    },
    /// Read `len` bytes of a segment from `offset`; fewer at its end.
    Read {
        /// Comes back with the answer.
        read: u64,
        /// The journal.
        journal: JournalKind,
        /// The segment.
        segment: SegmentIndex,
        /// Offset in it, on a block boundary.
        offset: u64,
        /// How much.
        len: usize,
    },
    /// Replace the control file durably.
    WriteControl {
        /// Comes back with the answer.
        write: u64,
        /// Its content.
        bytes: Vec<u8>,
    },
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
    /// Read `len` bytes of a volume as the store shows it; what was never written reads as zeros.
    ReadVolume {
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
    VolumeAllocation {
        /// Comes back with the answer.
        read: u64,
        /// The volume.
        file: FileId,
        /// Where (bytes, any).
        offset: u64,
        /// How much (bytes).
        len: u64,
        /// As for [`Effect::ReadVolume`].
        ordered: bool,
    },
    /// The volume is gone: nothing of it is needed any more.
    ForgetVolume {
        /// The volume.
        file: FileId,
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
    /// Connect to the peer; answer connected or closed.
    LinkConnect {
        /// The number of the new connection.
        conn: ConnId,
    },
    /// Send to the peer, after all that was given before.
    LinkSend {
        /// The connection.
        conn: ConnId,
        /// What, in order.
        parts: Vec<Bytes>,
    },
    /// Receive what the peer sends next into the buffer, behind what is in it; answer filled as soon as some came. Without
    /// this the driver receives as it likes.
    LinkFill {
        /// The connection.
        conn: ConnId,
        /// Where to.
        buffer: AlignedBuf,
        /// Bytes in it in the end; they fit.
        until: usize,
    },
    /// End the connection once what was given is sent, or now if `abort`. No answer is needed afterwards.
    LinkClose {
        /// The connection.
        conn: ConnId,
        /// Drop what is not sent.
        abort: bool,
    },
    /// Send to a client, after all that was given before; answer sent.
    ClientSend {
        /// The client.
        conn: ConnId,
        /// What.
        bytes: Bytes,
    },
    /// Read from a client once.
    ClientReceive {
        /// The client.
        conn: ConnId,
        /// A buffer to use again (its content is of no use), or an empty one.
        buffer: Vec<u8>,
    },
    /// Receive from a client into the buffer, behind what is in it, until it holds so many bytes; answer filled.
    ClientFill {
        /// The client.
        conn: ConnId,
        /// Where to.
        buffer: AlignedBuf,
        /// Bytes in it in the end; they fit.
        until: usize,
    },
    /// What was given is sent in clear; from then on the connection is TLS, this node being its server. Answer secured,
    /// or closed.
    ClientStartTls {
        /// The client.
        conn: ConnId,
    },
    /// The client has proved that it may be here: its place is its own from now on.
    ClientProven {
        /// The client.
        conn: ConnId,
    },
    /// The client gave a wrong password: slow it down, count it, and tell people.
    ClientGuessed {
        /// The client.
        conn: ConnId,
    },
    /// The client was denied what it came for: count it, and tell people.
    ClientRefused {
        /// The client.
        conn: ConnId,
        /// Why, for people.
        why: String,
    },
    /// End the connection once what was given is sent.
    ClientClose {
        /// The client.
        conn: ConnId,
        /// Now, as it takes nothing of what was given.
        stuck: bool,
    },
    /// Answer an operator.
    Admin {
        /// From the request.
        token: u64,
        /// The answer.
        reply: AdminReply,
    },
    /// Tell people.
    Incident(Incident),
    /// Everything is finished; the process may end.
    Stopped,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
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
}

//! The ways in for applications, each as machines without I/O: bytes in, requests to a [`Backend`], bytes out.

#![allow(unreachable_pub, reason = "this is the face of the room; outside of the crate nobody names it")]

mod draft;
mod index;
pub mod nbd;
pub mod resp;

pub use draft::Draft;

use crate::base::{AckLevel, AlignedBuf, FileId, JournalKind, Seq, Wait};
use crate::format::batch::AROUND;
use bytes::Bytes;

/// One change that a client asks for.
#[derive(Clone, Debug)]
pub enum Update<'a> {
    /// The item holds `value` from now on.
    Put {
        /// The file.
        file: FileId,
        /// The item.
        id: &'a [u8],
        /// The new content.
        value: &'a [u8],
    },
    /// The item is gone.
    Delete {
        /// The file.
        file: FileId,
        /// The item.
        id: &'a [u8],
    },
}

/// Why a request was not done; nothing of it was. Doors turn this into the words of their protocol in one place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// This node is a standby and the file is replicated.
    #[error("this node is a standby; write to the primary")]
    ReadOnly,
    /// This node serves nobody now.
    #[error("this node does not serve: {0}")]
    NotServing(String),
    /// No account or file of that name.
    #[error("no such file {0}")]
    NoSuchFile(String),
    /// The file holds blocks, not items.
    #[error("{0} is a block file")]
    NotRecords(String),
    /// The file holds items, not blocks.
    #[error("{0} is a record file")]
    NotBlocks(String),
    /// Id or value over the limit, or an empty id.
    #[error("{what} of {found} bytes: {limit}")]
    TooLarge {
        /// Id, value or transaction.
        what: &'static str,
        /// Its size.
        found: usize,
        /// The rule.
        limit: &'static str,
    },
    /// A transaction over files of both journals.
    #[error("a transaction cannot span replicated and other files")]
    MixedJournals,
    /// The disk is full.
    #[error("no space left for the journal; updates resume by themselves when there is room")]
    NoSpace,
    /// The journal failed twice: this node is read-only until it was repaired and restarted.
    #[error("the journal's disk failed; this node is read-only")]
    DiskFailed,
    /// The journal's disk ends no write.
    #[error("the journal's disk hangs: it ends no write; updates resume by themselves when it does")]
    DiskHangs,
    /// The store could not be read.
    #[error("the store could not be read: {0}")]
    Store(String),
}

/// A read of what is not in memory, under way: its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FetchId(pub u64);

/// What to do about a read whose answer is not in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfCold {
    /// Have it fetched, and say so.
    Fetch,
    /// Wait for the disk; everybody waits.
    Wait,
}

/// Which items of a file are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CountOf {
    /// All.
    All,
    /// Those whose ids have fewer than two commas.
    Short,
}

/// Why a read has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unread {
    /// It was refused.
    Refused(Refusal),
    /// It is being fetched. Once the door is told that this is over, the same read is to be made again.
    Cold(FetchId),
}

impl From<Refusal> for Unread {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// How far each journal is, on this node and at the peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommitWatermarks {
    /// Durable on this node's disk, by [`JournalKind::index`].
    pub durable: [Seq; 2],
    /// What may be answered, by [`AckLevel`] (index 0 local .. 3 applied), for the replicated journal: the local
    /// disk and the peer at that level, or less where a degraded promise was declared.
    pub replicated: [Seq; 4],
}

impl CommitWatermarks {
    /// Whether `wait` is over.
    #[must_use]
    pub fn reached(&self, wait: Wait) -> bool {
        match wait.journal {
            JournalKind::Local => self.durable[1] >= wait.seq,
            JournalKind::Replicated => {
                let level = match wait.level {
                    AckLevel::Local => 0,
                    AckLevel::Received => 1,
                    AckLevel::Durable => 2,
                    AckLevel::Applied => 3,
                };
                self.replicated[level] >= wait.seq
            }
        }
    }
}

/// What INFO, ROLE and status say about replication, in plain numbers.
#[derive(Clone, Debug, Default)]
pub struct ReplicationView {
    /// This node's name.
    pub name: String,
    /// Whether it serves as primary.
    pub primary: bool,
    /// Epoch.
    pub epoch: u64,
    /// End of the replicated journal.
    pub appended: Seq,
    /// Applied here.
    pub applied: Seq,
    /// Whether the peer is connected.
    pub peer_connected: bool,
    /// Where Redis clients reach the peer, as it told; none if that is not known or of no use to others.
    pub peer_door: Option<(String, u16)>,
    /// Acknowledged by the peer: received, durable, applied.
    pub peer: [Seq; 3],
    /// Age of the last word from the peer (seconds).
    pub peer_silence_s: u64,
    /// Lag of the peer's durable position (seconds).
    pub lag_s: u64,
}

/// A part of a file's ids, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scanned {
    /// The ids.
    pub ids: Vec<Bytes>,
    /// Where to go on: there is nothing between the last id and this. None if nothing is left.
    pub next: Option<Bytes>,
    /// What it cost beyond the ids: updates in memory that had to be looked through.
    pub looked: usize,
    /// As for [`Backend::read`].
    pub wait: Option<Wait>,
}

/// An item by number: two items have the same one only by a chance that nobody can bring about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ItemHash(pub u64);

/// What may read differently than before. More may be told than has changed, never less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// One item.
    Item(ItemHash),
    /// The items of a file, or its name.
    File(FileId),
    /// Everything: the node's role, or more than was counted.
    All,
}

/// What the doors ask of the database. The engine is one; the doors' own tests have a small model.
pub trait Backend {
    /// The file named `account,file`.
    ///
    /// # Errors
    /// [`Refusal::NoSuchFile`], [`Refusal::NotRecords`].
    fn resolve(&self, account_and_file: &[u8]) -> Result<FileId, Refusal>;

    /// The item's value after every update accepted so far. The answer may be told to a client only when the
    /// wait beside it is over: it may hold an update that is not durable.
    ///
    /// # Errors
    /// [`Refusal::Store`], [`Refusal::NotServing`]; [`Unread::Cold`] only with [`IfCold::Fetch`].
    fn read(
        &mut self,
        file: FileId,
        id: &[u8],
        if_cold: IfCold,
    ) -> Result<(Option<Bytes>, Option<Wait>), Unread>;

    /// Begins to fetch an item that will be read soon; none if it is in memory, or cannot be read.
    fn fetch(&mut self, file: FileId, id: &[u8]) -> Option<FetchId>;

    /// Accepts updates as one atomic batch in one journal. "ok" may be told only when the wait is over.
    ///
    /// # Errors
    /// Any [`Refusal`]; nothing was changed then.
    fn update(&mut self, updates: &[Update<'_>]) -> Result<Wait, Refusal>;

    /// The same for an update that was put together in steps; quick, whatever it holds. Its values are within limits.
    ///
    /// # Errors
    /// As [`Self::update`].
    fn commit(&mut self, draft: Draft) -> Result<Wait, Refusal>;

    /// Up to `limit` ids of a file after `after`, in order, every update accepted so far included. It looks at no more
    /// than twice as many, so it may return fewer than there are.
    ///
    /// # Errors
    /// [`Refusal::Store`], [`Refusal::NoSuchFile`] when the file is gone; [`Unread::Cold`] as for [`Self::read`].
    fn scan(
        &mut self,
        file: FileId,
        after: Option<&[u8]>,
        limit: usize,
        if_cold: IfCold,
    ) -> Result<Scanned, Unread>;

    /// The file has no more items than this; told at once, whatever it holds.
    fn items_at_most(&self, file: FileId) -> u64;

    /// About how many items a file has, as of a moment ago, at a cost that does not grow with it. With [`IfCold::Wait`]
    /// the answer may be older, or the greatest number possible.
    ///
    /// # Errors
    /// As [`Self::read`].
    fn estimate(&mut self, file: FileId, of: CountOf, if_cold: IfCold) -> Result<u64, Unread>;

    /// All record files as (id, `account,file`), in order of id.
    fn record_files(&self) -> Vec<(FileId, String)>;

    /// The first of them from this id on.
    fn next_record_file(&self, from: FileId) -> Option<(FileId, String)>;

    /// The number by which [`Self::next_change`] names the item.
    fn item_hash(&self, file: FileId, id: &[u8]) -> ItemHash;

    /// Whether anybody wants to know of changes. What changes until somebody does is not told.
    fn want_changes(&mut self, wanted: bool);

    /// The next change since changes are wanted, whoever made it: any client, an operator, the peer.
    fn next_change(&mut self) -> Option<Change>;

    /// How far things are; moves only forward but for declared degradations.
    fn watermarks(&self) -> CommitWatermarks;

    /// End of the replicated journal; what `WAIT` waits for when the client wrote nothing itself.
    fn appended(&self) -> Seq;

    /// The epoch in which updates are made now.
    fn epoch(&self) -> u64 {
        self.view().epoch
    }

    /// Acknowledged by the peer, never more than the truth: received, durable, applied. Zero when it is away.
    fn peer_acked(&self) -> [Seq; 3];

    /// Whether queues are full: a session leaves further commands unparsed until this is over.
    fn congested(&self) -> bool;

    /// For INFO and ROLE.
    fn view(&self) -> ReplicationView;
}

/// A block file, as a door shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Its id.
    pub file: FileId,
    /// `account/file`.
    pub name: String,
    /// Its size (bytes).
    pub bytes: u64,
    /// Whether this node accepts changes of it now.
    pub writable: bool,
}

/// What a [`Payload::Owned`] leaves free at its front: there the header of a batch and of its one entry will stand, so
/// that the bytes go from the socket to the disk and the wire without being copied.
pub const PAYLOAD_HEADROOM: usize = AROUND;

/// The bytes of a write to a volume.
#[derive(Debug)]
pub enum Payload<'a> {
    /// To be copied into the batch that is open.
    Borrowed(&'a [u8]),
    /// A buffer that becomes a batch of its own: [`PAYLOAD_HEADROOM`] bytes of any content, then the payload.
    Owned(AlignedBuf),
}

impl Payload<'_> {
    /// The payload alone.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Owned(buf) => buf.as_ref().get(PAYLOAD_HEADROOM..).unwrap_or_default(),
        }
    }

    /// Size of the payload alone (bytes).
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Borrowed(bytes) => bytes.len(),
            Self::Owned(buf) => buf.len().saturating_sub(PAYLOAD_HEADROOM),
        }
    }
}

/// A part of what was read from a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// These bytes.
    Data(Bytes),
    /// So many zeros (bytes).
    Zeros(u64),
}

/// A part of a volume, as `base:allocation` tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// How long (bytes).
    pub len: u64,
    /// No space is taken, and it reads as zeros.
    pub hole: bool,
}

/// What a door for blocks may ask of the database. A write or zero that was accepted is seen by every later read; it is
/// safe only when the wait that came with it, or that of a later [`Self::flush_blocks`], is over.
pub trait BlockBackend {
    /// All block files, in order of id.
    fn volumes(&self) -> Vec<Volume>;

    /// The block file that goes by `account/file`.
    ///
    /// # Errors
    /// [`Refusal::NoSuchFile`], [`Refusal::NotBlocks`], [`Refusal::NotServing`].
    fn volume_named(&self, name: &[u8]) -> Result<Volume, Refusal>;

    /// A block file as it is now: it may have grown, become read-only, or be gone.
    ///
    /// # Errors
    /// As [`Self::volume_named`].
    fn volume(&self, file: FileId) -> Result<Volume, Refusal>;

    /// Accepts a write. The range lies within the volume; the payload is neither empty nor longer than
    /// [`crate::base::limits::BLOCK_PAYLOAD_MAX`].
    ///
    /// # Errors
    /// Any [`Refusal`]; nothing was changed then.
    fn write_blocks(&mut self, file: FileId, offset: u64, payload: Payload<'_>) -> Result<Wait, Refusal>;

    /// Accepts that a range reads as zeros; with `hole` no space need be taken for it. The range lies within the
    /// volume and is not empty.
    ///
    /// # Errors
    /// Any [`Refusal`]; nothing was changed then.
    fn zero_blocks(&mut self, file: FileId, offset: u64, len: u64, hole: bool) -> Result<Wait, Refusal>;

    /// The waits for everything that was accepted for this volume so far, from any client: both have to be over. There
    /// are two as changes of a volume may stand in both journals, while logging is paused.
    ///
    /// # Errors
    /// Any [`Refusal`].
    fn flush_blocks(&mut self, file: FileId) -> Result<[Wait; 2], Refusal>;

    /// Begins to read a range within the volume as every change accepted so far leaves it. The answer comes under
    /// `token`, at once or later.
    ///
    /// # Errors
    /// Any [`Refusal`]; no answer comes then.
    fn read_blocks(&mut self, token: u64, file: FileId, offset: u64, len: u32) -> Result<(), Refusal>;

    /// Begins to find out which parts of a range within the volume take space. The answer comes under `token`.
    ///
    /// # Errors
    /// Any [`Refusal`]; no answer comes then.
    fn allocation(&mut self, token: u64, file: FileId, offset: u64, len: u64) -> Result<(), Refusal>;

    /// How far things are.
    fn watermarks(&self) -> CommitWatermarks;

    /// Whether clients must wait before they change more.
    fn blocks_congested(&self) -> bool;

    /// Whether no request may be begun now.
    fn is_held(&self) -> bool {
        false
    }
}

//! Takes a save from a running node, and writes it.

use super::{Block, Head, Pack, SetError, SetReader, SetWriter, Source, Target};
use crate::base::limits::FRAME_PAYLOAD_MAX;
use crate::base::{plainly, read_at_most};
use crate::engine::Known;
use crate::engine::admin::{AdminReply, AdminRequest};
use crate::format::PairId;
use crate::format::alone::Alone;
use crate::format::batch::Batch;
use crate::format::chunk::Chunk;
use crate::format::set::{SetBegin, SetId, Trailer};
use crate::format::since::{Same, SetBase};
use crate::node::admin::{AdminCallError, call_for_stream};
use crate::node::identity::random;
use crate::node::save::{FRAME_HEAD, FrameKind};
use bytes::Bytes;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Room for what stands before the payload of a frame.
const FRAME_SLACK: usize = 1 << 20;

/// Why a node was not saved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SaveError {
    /// The node cannot be asked.
    #[error(transparent)]
    Call(#[from] AdminCallError),
    /// The set cannot be written.
    #[error(transparent)]
    Set(#[from] SetError),
    /// The node said no.
    #[error("{message}")]
    Refused {
        /// Why.
        message: String,
        /// What to do.
        next: String,
    },
    /// The node ended, or sent something that is no save.
    #[error("saving the node: {why}")]
    Broken {
        /// How it was seen.
        why: String,
    },
}

impl SaveError {
    /// What to do next, for people.
    #[must_use]
    pub fn next(&self) -> String {
        match self {
            Self::Call(error) => error.next(),
            Self::Set(error) => error.next(),
            Self::Refused { next, .. } => next.clone(),
            Self::Broken { .. } => "look at the node's log, and begin the save again".to_owned(),
        }
    }
}

/// What is saved, and how.
#[derive(Clone, Debug)]
pub struct SaveOrder {
    /// Where to.
    pub target: Target,
    /// Only this account.
    pub account: Option<String>,
    /// Bytes a second at most; none is no limit.
    pub rate: Option<u64>,
    /// How it is packed.
    pub pack: Pack,
    /// Only what is not as this earlier set left it.
    pub since: Option<Source>,
    /// What the node has alone, too.
    pub alone: bool,
}

/// A save that is durable.
#[derive(Debug)]
pub struct Saved {
    /// Its number.
    pub set: SetId,
    /// The pair.
    pub pair: PairId,
    /// What it begins with.
    pub begin: SetBegin,
    /// What it ends with.
    pub trailer: Trailer,
    /// Bytes written.
    pub bytes: u64,
}

/// What is told while a save is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaveTold {
    /// It begins, and takes about so much (bytes); so much is free where it is written, if that is known.
    Begins {
        /// What the node's content takes.
        expected: u64,
        /// What the target has room for.
        free: Option<u64>,
    },
    /// So much of the earlier set was read (bytes).
    Read(u64),
    /// So much of it was written (bytes).
    Written(u64),
}

/// Saves the running node in `dir`.
///
/// # Durability
/// When it returns, the set and its name are synced; see [`SetWriter::finish`].
///
/// # Errors
/// [`SaveError`]. What was written is removed then, as far as it can be.
pub fn save(
    dir: &Path,
    order: &SaveOrder,
    patience: Duration,
    mut told: impl FnMut(SaveTold),
) -> Result<Saved, SaveError> {
    let since = order.since.as_ref().map(|source| known(source, &mut told)).transpose()?;
    let request = AdminRequest::Save {
        account: order.account.clone(),
        rate: order.rate,
        since: since.is_some(),
        alone: order.alone,
    };
    let (reply, mut stream, back) = call_for_stream(dir, &request, patience)?;
    match reply {
        AdminReply::Ok { .. } => {}
        AdminReply::No { message, next } | AdminReply::Error { message, next } => {
            return Err(SaveError::Refused { message, next });
        }
    }
    let base = since.as_ref().map(|since| since.base);
    let telling = since.as_ref().map(|since| (since.pair, since.account.clone()));
    let _told = since.map(|since| tell(since.known, back));
    // A node of an older program sends nothing that it has alone.
    let ((pair, expected, mut begin), alone) = match frame(&mut stream)? {
        (kind @ (FrameKind::Begin | FrameKind::BeginWhole), payload) => {
            (beginning(&payload)?, kind == FrameKind::BeginWhole)
        }
        other => return Err(unexpected(other)),
    };
    if let (Some(base), Some((of, account))) = (base, telling) {
        check_base(&base, (of, &account), (pair, &begin))?;
        begin.base = Some(base);
    }
    let free = order.target.place().and_then(|place| nix::sys::statvfs::statvfs(place).ok());
    let free = free.map(|disk| disk.blocks_available().saturating_mul(disk.fragment_size()));
    told(SaveTold::Begins { expected, free });
    let mut id = [0; 16];
    random(&mut id).map_err(|error| broken(error.to_string()))?;
    let head = Head { set: SetId(id), pair, wall_ms: wall_ms(), alone };
    let mut writer = SetWriter::begin(order.target.clone(), order.pack, &head, &begin)?;
    loop {
        match frame(&mut stream)? {
            (FrameKind::Batch, payload) => {
                writer.batch(&Batch::from_wire(&payload).map_err(|error| broken(error.to_string()))?)?;
            }
            (FrameKind::Chunk, payload) => {
                let chunk = Chunk::decode(&payload).map_err(|error| broken(error.to_string()))?;
                writer.chunk(&chunk, &payload)?;
            }
            (FrameKind::Same, payload) => {
                let same = Same::decode(&payload).map_err(|error| broken(error.to_string()))?;
                writer.same(&same, &payload)?;
            }
            (FrameKind::Alone, payload) => {
                let alone = Alone::decode(&payload).map_err(|error| broken(error.to_string()))?;
                writer.alone(&alone, &payload)?;
            }
            (FrameKind::End, _) => break,
            other => return Err(unexpected(other)),
        }
        told(SaveTold::Written(writer.written()));
    }
    let bytes = writer.written();
    let trailer = writer.finish(wall_ms())?;
    Ok(Saved { set: head.set, pair: head.pair, begin, trailer, bytes })
}

/// What is known from an earlier set.
struct Since {
    base: SetBase,
    pair: PairId,
    account: String,
    known: Known,
}

/// Reads all of an earlier set, which has to be whole: nothing is based on one that is damaged.
fn known(source: &Source, told: &mut impl FnMut(SaveTold)) -> Result<Since, SaveError> {
    let mut reader = SetReader::open(source.clone())?;
    reader.of_chain(None, true);
    let (mut account, mut end) = (String::new(), None);
    while let Some(block) = reader.next_block()? {
        match block {
            Block::Begin(begin) => account = begin.account,
            Block::Trailer(trailer) => end = Some(trailer),
            Block::Batch(_) | Block::Chunk(_) | Block::Same(_) | Block::Alone(_) => {}
        }
        told(SaveTold::Read(reader.bytes()));
    }
    let (Some(trailer), Some(known)) = (end, reader.learned()) else {
        unreachable!("the reader ends with a trailer")
    };
    let set = reader.header().set;
    let base = SetBase { set, end: trailer.end, wall_ms: trailer.wall_ms, digest: trailer.digest };
    Ok(Since { base, pair: reader.header().pair, account, known })
}

/// Refuses a base that this node's save cannot continue.
fn check_base(
    base: &SetBase,
    (of, account): (PairId, &str),
    (pair, begin): (PairId, &SetBegin),
) -> Result<(), SaveError> {
    let refused = |message: String, next: &str| Err(SaveError::Refused { message, next: next.to_owned() });
    if of != pair {
        let next = "give a set of this pair, or save everything";
        return refused(
            format!("saving since the earlier set: it is of pair {of}, the node of pair {pair}"),
            next,
        );
    }
    if account != begin.account {
        let named = |account: &str| {
            if account.is_empty() { "all accounts".to_owned() } else { format!("account {account}") }
        };
        let (held, wanted) = (named(account), named(&begin.account));
        let next = "save the same as it holds (--account), or everything";
        return refused(
            format!("saving since the earlier set: it holds {held}, and {wanted} is to be saved"),
            next,
        );
    }
    let origin = begin.copy.origin;
    if (origin.epoch, origin.seq) < (base.end.epoch, base.end.seq) {
        let (end, there) = (base.end.seq, origin.seq);
        let why =
            format!("saving since the earlier set: it holds entry {end}, and the node is at entry {there}");
        return refused(why, "wait until the node has it, or save the other node");
    }
    Ok(())
}

/// Tells the node what is known, while it sends; it reads that as it goes.
fn tell(known: Known, stream: UnixStream) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut stream = io::BufWriter::new(stream);
        let mut send = |kind: FrameKind, payload: &[u8]| {
            let len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
            stream.write_all(&[kind.byte()])?;
            stream.write_all(&len.to_le_bytes())?;
            stream.write_all(payload)
        };
        let mut all = |known: &Known| {
            known.ranges().try_for_each(|same| send(FrameKind::Same, &same.encode()))?;
            send(FrameKind::End, &[])
        };
        // What the node has alone is told apart.
        let nothing = Known::default();
        let sent = all(&known).and_then(|()| all(known.alone().unwrap_or(&nothing)));
        // A node that ends early says why on its own side.
        let _ = sent.and_then(|()| stream.flush());
    })
}

pub(in crate::node) fn beginning(payload: &Bytes) -> Result<(PairId, u64, SetBegin), SaveError> {
    let short = || broken("the beginning is too short".to_owned());
    let (pair, rest) = payload.split_first_chunk::<16>().ok_or_else(short)?;
    let (expected, rest) = rest.split_first_chunk::<8>().ok_or_else(short)?;
    let begin =
        SetBegin::decode(&payload.slice_ref(rest), false).map_err(|error| broken(error.to_string()))?;
    Ok((PairId(*pair), u64::from_le_bytes(*expected), begin))
}

/// The next part of what the node sends.
pub(in crate::node) fn frame(stream: &mut impl Read) -> Result<(FrameKind, Bytes), SaveError> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::UnexpectedEof => broken("it ended in the middle of the save".to_owned()),
        _ => broken(plainly(&error).to_string()),
    };
    let mut head = [0; FRAME_HEAD];
    stream.read_exact(&mut head).map_err(failed)?;
    let [kind, len @ ..] = head;
    let kind =
        FrameKind::of(kind).ok_or_else(|| broken(format!("a part of kind {kind} is not known here")))?;
    let len = u32::from_le_bytes(len) as usize;
    if len > FRAME_PAYLOAD_MAX + FRAME_SLACK {
        return Err(broken(format!("a part of {len} bytes is too long")));
    }
    let payload = read_at_most(stream.take(len as u64), len).map_err(failed)?;
    if payload.len() < len {
        return Err(failed(io::ErrorKind::UnexpectedEof.into()));
    }
    Ok((kind, payload.into()))
}

pub(in crate::node) fn unexpected((kind, payload): (FrameKind, Bytes)) -> SaveError {
    if kind != FrameKind::Failed {
        return broken(format!("{kind:?} came out of its place"));
    }
    let text = String::from_utf8_lossy(&payload).into_owned();
    let (message, next) = text.split_once('\n').unwrap_or((&text, ""));
    SaveError::Refused { message: message.to_owned(), next: next.to_owned() }
}

pub(in crate::node) fn broken(why: String) -> SaveError {
    SaveError::Broken { why }
}

/// Now (ms since 1970).
fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

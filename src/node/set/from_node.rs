//! Takes a save from a running node, and writes it.

use super::{Head, Pack, SetError, SetWriter, Target};
use crate::base::limits::FRAME_PAYLOAD_MAX;
use crate::base::{plainly, read_at_most};
use crate::engine::admin::{AdminReply, AdminRequest};
use crate::format::PairId;
use crate::format::batch::Batch;
use crate::format::chunk::Chunk;
use crate::format::set::{SetBegin, SetId, Trailer};
use crate::node::admin::{AdminCallError, call_for_stream};
use crate::node::identity::random;
use crate::node::save::{FRAME_HEAD, FrameKind};
use bytes::Bytes;
use std::io::{self, Read};
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
}

/// A save that is durable.
#[derive(Debug)]
pub struct Saved {
    /// Its number.
    pub set: SetId,
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
    let request = AdminRequest::Save { account: order.account.clone(), rate: order.rate };
    let (reply, mut stream) = call_for_stream(dir, &request, patience)?;
    match reply {
        AdminReply::Ok { .. } => {}
        AdminReply::No { message, next } | AdminReply::Error { message, next } => {
            return Err(SaveError::Refused { message, next });
        }
    }
    let (pair, expected, begin) = match frame(&mut stream)? {
        (FrameKind::Begin, payload) => beginning(&payload)?,
        other => return Err(unexpected(other)),
    };
    let free = order.target.place().and_then(|place| nix::sys::statvfs::statvfs(place).ok());
    let free = free.map(|disk| disk.blocks_available().saturating_mul(disk.fragment_size()));
    told(SaveTold::Begins { expected, free });
    let mut id = [0; 16];
    random(&mut id).map_err(|error| broken(error.to_string()))?;
    let head = Head { set: SetId(id), pair, wall_ms: wall_ms() };
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
            (FrameKind::End, _) => break,
            other => return Err(unexpected(other)),
        }
        told(SaveTold::Written(writer.written()));
    }
    let bytes = writer.written();
    let trailer = writer.finish(wall_ms())?;
    Ok(Saved { set: head.set, begin, trailer, bytes })
}

fn beginning(payload: &Bytes) -> Result<(PairId, u64, SetBegin), SaveError> {
    let short = || broken("the beginning is too short".to_owned());
    let (pair, rest) = payload.split_first_chunk::<16>().ok_or_else(short)?;
    let (expected, rest) = rest.split_first_chunk::<8>().ok_or_else(short)?;
    let begin = SetBegin::decode(&payload.slice_ref(rest)).map_err(|error| broken(error.to_string()))?;
    Ok((PairId(*pair), u64::from_le_bytes(*expected), begin))
}

/// The next part of what the node sends.
fn frame(stream: &mut impl Read) -> Result<(FrameKind, Bytes), SaveError> {
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

fn unexpected((kind, payload): (FrameKind, Bytes)) -> SaveError {
    if kind != FrameKind::Failed {
        return broken(format!("{kind:?} came out of its place"));
    }
    let text = String::from_utf8_lossy(&payload).into_owned();
    let (message, next) = text.split_once('\n').unwrap_or((&text, ""));
    SaveError::Refused { message: message.to_owned(), next: next.to_owned() }
}

fn broken(why: String) -> SaveError {
    SaveError::Broken { why }
}

/// Now (ms since 1970).
fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

//! The wire between the two nodes: ordered byte streams, cut in random pieces, late, silent or torn down.

use crate::base::{AlignedBuf, ConnId, Epoch, Prng, Seq};
use crate::format::batch::Batch;
use crate::format::chunk::{Chunk, CopyBegin};
use crate::format::frame::{Ack, Begin, FRAME_HEADER, FrameHeader, FrameKind, Hello};
use crate::format::handover::Handover;
use crate::format::rewind::Rewind;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What the operating system takes from a sender before the receiver reads it (bytes).
const SOCKET_BUFFER: usize = 128 << 10;

/// A frame as an observer on the sender's side sees it.
#[derive(Debug)]
pub(super) struct Seen {
    /// Its header.
    pub(super) header: FrameHeader,
    /// What it carries.
    pub(super) body: Body,
}

/// The payload of a frame that an observer understands.
#[derive(Debug)]
pub(super) enum Body {
    /// The first frame.
    #[allow(dead_code, reason = "shown in the words of a run")]
    Hello(Hello),
    /// The stream's start.
    #[allow(dead_code, reason = "shown in the words of a run")]
    Begin(Begin),
    /// A batch.
    Batch(Batch),
    /// How far the receiver is.
    Ack(Ack),
    /// The copy that begins next is a rewind; true if by a list of ranges.
    Rewind(bool),
    /// A copy begins.
    CopyBegin(CopyBegin),
    /// A range of it.
    Chunk(Chunk),
    /// A step of a switchover.
    Handover(Handover),
    /// The last word.
    Refuse,
    /// Anything else.
    Other,
}

/// Cuts a sender's bytes into frames.
#[derive(Debug, Default)]
pub(super) struct Tap {
    buffer: Vec<u8>,
}

impl Tap {
    /// Adds bytes and takes the frames that are whole.
    ///
    /// # Errors
    /// What is wrong with them: a node never sends bytes that it would refuse itself.
    pub(super) fn feed(&mut self, parts: &[Bytes]) -> Result<Vec<Seen>, String> {
        parts.iter().for_each(|part| self.buffer.extend_from_slice(part));
        let mut frames = Vec::new();
        let mut at = 0;
        while self.buffer.len() - at >= FRAME_HEADER {
            let head = &self.buffer[at..at + FRAME_HEADER];
            let header = FrameHeader::decode(head, 32 << 20).map_err(|e| format!("a sent frame: {e}"))?;
            let end = at + FRAME_HEADER + header.len as usize;
            let Some(payload) = self.buffer.get(at + FRAME_HEADER..end) else { break };
            let body = body(&header, head, payload).map_err(|e| format!("a sent {:?}: {e}", header.kind))?;
            frames.push(Seen { header, body });
            at = end;
        }
        self.buffer.drain(..at);
        Ok(frames)
    }
}

fn body(header: &FrameHeader, head: &[u8], payload: &[u8]) -> Result<Body, crate::format::DecodeError> {
    if !header.kind.sums_itself() {
        header.check(head, payload)?;
    }
    Ok(match header.kind {
        FrameKind::Hello => Body::Hello(Hello::decode(payload)?),
        FrameKind::Begin => Body::Begin(Begin::decode(payload)?),
        FrameKind::Batch => Body::Batch(Batch::from_wire(payload)?),
        FrameKind::Ack => Body::Ack(Ack::decode(payload)?),
        FrameKind::CopyBegin => Body::CopyBegin(CopyBegin::decode(&Bytes::copy_from_slice(payload))?),
        FrameKind::Rewind => Body::Rewind(Rewind::decode(&Bytes::copy_from_slice(payload))?.ranges.is_some()),
        FrameKind::Handover => Body::Handover(Handover::decode(payload)?),
        FrameKind::Refuse => Body::Refuse,
        FrameKind::Chunk => Body::Chunk(Chunk::decode(&Bytes::copy_from_slice(payload))?),
        _ => Body::Other,
    })
}

/// One direction of a connection.
#[derive(Debug, Default)]
pub(super) struct Pipe {
    chunks: VecDeque<Bytes>,
    /// Bytes under way.
    pub(super) queued: usize,
    /// Whether a delivery is scheduled.
    pub(super) scheduled: bool,
    /// The sender has ended the stream.
    pub(super) ended: bool,
    /// The sender waits to hear that its bytes were taken.
    pub(super) owes_sent: bool,
    /// A rewind by ranges was offered, and its beginning comes next.
    pub(super) rewinds: bool,
    /// Bits were flipped in it.
    pub(super) tainted: bool,
    /// Frames of what the sender gave.
    pub(super) tap: Tap,
    /// The last ack seen in it.
    pub(super) last_ack: Ack,
    /// The highest durable head announced in it.
    pub(super) last_durable: Seq,
    /// The epoch of the last frame in it.
    pub(super) last_epoch: Epoch,
    /// The number of the last frame in it.
    pub(super) last_number: u64,
    /// The last entry in it, or the one behind which it began.
    pub(super) sent: u64,
    /// Bytes of batches given to it, and how many the receiver has granted.
    pub(super) batch_bytes: u64,
    /// See [`Pipe::batch_bytes`].
    pub(super) granted: u64,
    /// The last batch given to it, by its end.
    pub(super) last_batch: Option<u64>,
    /// Heads in frames that are under way: where the frame ends in the stream, and what its header says.
    heads: VecDeque<(u64, Heard)>,
    /// Bytes of frames that the sender gave, and bytes that the receiver got.
    given: u64,
    got: u64,
}

/// What the receiver of a frame learns from its header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heard {
    /// The durable head.
    pub(super) durable: u64,
    /// It stands in a hello.
    pub(super) hello: bool,
}

impl Pipe {
    fn push(&mut self, parts: &[Bytes]) {
        for part in parts {
            self.queued += part.len();
            self.chunks.push_back(part.clone());
        }
    }

    /// A frame was given to it.
    pub(super) fn note_frame(&mut self, seen: &Seen) {
        self.given += FRAME_HEADER as u64 + u64::from(seen.header.len);
        let hello = matches!(seen.body, Body::Hello(_));
        self.heads.push_back((self.given, Heard { durable: seen.header.durable.0, hello }));
    }

    /// So many bytes reached the receiver: what it learns from the frames that are whole now.
    pub(super) fn heard(&mut self, bytes: usize) -> Vec<Heard> {
        self.got += bytes as u64;
        let whole = self.heads.iter().take_while(|(end, _)| *end <= self.got).count();
        self.heads.drain(..whole).map(|(_, heard)| heard).collect()
    }

    /// Drops what is under way.
    pub(super) fn drop_all(&mut self) {
        self.chunks.clear();
        self.queued = 0;
    }

    /// Whether the operating system has taken everything.
    pub(super) fn taken(&self) -> bool {
        self.queued <= SOCKET_BUFFER
    }

    /// Takes a piece of random length off the front.
    pub(super) fn piece(&mut self, prng: &mut Prng) -> Bytes {
        let want = match prng.below(4) {
            0 => usize::try_from(prng.below(100)).unwrap_or(0) + 1,
            1 => usize::try_from(prng.below(6000)).unwrap_or(0) + 1,
            _ => self.queued,
        };
        self.take(want.min(self.queued))
    }

    fn take(&mut self, want: usize) -> Bytes {
        self.queued -= want;
        let mut out = Vec::with_capacity(want);
        while out.len() < want {
            let Some(mut chunk) = self.chunks.pop_front() else { break };
            let piece = chunk.split_to(chunk.len().min(want - out.len()));
            out.extend_from_slice(&piece);
            if !chunk.is_empty() {
                self.chunks.push_front(chunk);
            }
        }
        Bytes::from(out)
    }
}

/// How one end of a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EndState {
    /// The node was not told of it yet.
    Unknown,
    /// The node uses it.
    Open,
    /// The node gave it up, but was not told that it is over: late bytes may still come.
    Left,
    /// Nothing more comes.
    Over,
}

/// One end of a connection.
#[derive(Debug)]
pub(super) struct End {
    /// The node's number for it.
    pub(super) conn: ConnId,
    /// The life of the node that it belongs to.
    pub(super) life: u64,
    /// See [`EndState`].
    pub(super) state: EndState,
    /// Where what comes next belongs, and how much fits.
    pub(super) room: Option<(AlignedBuf, usize)>,
    /// What this end sends.
    pub(super) out: Pipe,
    /// What frames told it that it has not taken up yet.
    pub(super) untaken: Vec<Heard>,
    /// It has acknowledged something, so it takes up what it hears.
    pub(super) follows: bool,
    /// When bytes last reached it.
    pub(super) heard_at: u64,
}

/// A connection; its ends are those of node 0 and node 1.
#[derive(Debug)]
pub(super) struct Connection {
    /// The node that connected.
    pub(super) caller: usize,
    /// Both ends.
    pub(super) ends: [End; 2],
    /// When bits were first flipped in it.
    pub(super) tainted_at: Option<u64>,
}

/// The wire.
#[derive(Debug, Default)]
pub(super) struct Net {
    /// Connections, by an own number.
    pub(super) connections: BTreeMap<u64, Connection>,
    next: u64,
    accepted: u64,
    /// Whether bytes from node 0, from node 1, get nowhere now.
    pub(super) blocked: [bool; 2],
    /// Connections of a copy of the caller's directory that somebody serves elsewhere.
    pub(super) copies: BTreeSet<ConnId>,
    /// Whether connecting fails at once.
    pub(super) refusing: bool,
    /// Bits are flipped in one of so many pieces; never if 0.
    pub(super) corrupt_one_in: u64,
}

impl Net {
    /// A connection asked for by `caller`; neither end knows yet whether it was made.
    pub(super) fn connect(&mut self, caller: usize, conn: ConnId, lives: [u64; 2]) -> u64 {
        self.accepted += 1;
        let accepted = ConnId(1 << 63 | self.accepted);
        let end = |node: usize| End {
            conn: if node == caller { conn } else { accepted },
            life: lives[node],
            state: EndState::Unknown,
            room: None,
            out: Pipe::default(),
            untaken: Vec::new(),
            follows: false,
            heard_at: 0,
        };
        let id = self.next;
        self.next += 1;
        self.connections.insert(id, Connection { caller, ends: [end(0), end(1)], tainted_at: None });
        id
    }

    /// The connection that `node` knows as `conn`.
    pub(super) fn find(&mut self, node: usize, life: u64, conn: ConnId) -> Option<(u64, &mut Connection)> {
        self.connections
            .iter_mut()
            .rev()
            .find(|(_, c)| c.ends[node].conn == conn && c.ends[node].life == life)
            .map(|(&id, c)| (id, c))
    }

    /// Gives bytes to a connection; false when there is nobody to take them.
    pub(super) fn send(&mut self, id: u64, node: usize, parts: &[Bytes]) -> bool {
        let Some(connection) = self.connections.get_mut(&id) else { return false };
        if connection.ends[1 - node].state == EndState::Over {
            return false;
        }
        connection.ends[node].out.push(parts);
        true
    }

    /// Forgets connections that are over at both ends.
    pub(super) fn sweep(&mut self) {
        self.connections.retain(|_, c| c.ends.iter().any(|e| e.state != EndState::Over));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::frame::{FrameFields, encode_header};

    #[test]
    fn pieces_joined_are_the_bytes_that_were_sent() {
        let mut pipe = Pipe::default();
        let sent: Vec<u8> = (0..20_000_u32).map(|i| u8::try_from(i % 251).unwrap()).collect();
        pipe.push(&[Bytes::from(sent[..7].to_vec()), Bytes::from(sent[7..].to_vec())]);
        let mut prng = Prng::new(4);
        let mut got = Vec::new();
        while pipe.queued > 0 {
            got.extend_from_slice(&pipe.piece(&mut prng));
        }
        assert_eq!(got, sent);
    }

    #[test]
    fn a_tap_sees_frames_however_they_were_cut_and_refuses_a_damaged_one() {
        let fields = FrameFields { session: 1, number: 1, ..FrameFields::default() };
        let payload = Ack { received: Seq(3), durable: Seq(2), applied: Seq(1) }.encode();
        let mut bytes = encode_header(FrameKind::Ack, &fields, &payload).to_vec();
        bytes.extend_from_slice(&payload);
        let mut tap = Tap::default();
        assert!(tap.feed(&[Bytes::from(bytes[..70].to_vec())]).unwrap().is_empty());
        let frames = tap.feed(&[Bytes::from(bytes[70..].to_vec())]).unwrap();
        assert!(matches!(frames[..], [Seen { body: Body::Ack(Ack { received: Seq(3), .. }), .. }]));
        bytes[80] ^= 1;
        assert!(Tap::default().feed(&[Bytes::from(bytes)]).is_err());
    }
}

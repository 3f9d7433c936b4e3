//! One connection between the nodes: bytes to numbered frames and back.

use crate::base::limits::{FRAME_PAYLOAD_MAX, HELLO_PAYLOAD_MAX};
use crate::base::{ConnId, Epoch, Mono, Now, Seq};
use crate::format::DecodeError;
use crate::format::batch::Batch;
use crate::format::frame::{
    Ack, Begin, FRAME_HEADER, FrameFields, FrameHeader, FrameKind, Hello, Refuse, encode_header,
};
use bytes::Bytes;

/// Why a connection must end. It is counted; nothing of the offending frame has any effect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkFault {
    /// A frame that does not decode.
    #[error("a frame could not be read: {0}")]
    Decode(#[from] DecodeError),
    /// A frame of another connection.
    #[error("a frame of session {found:#x} came in session {expected:#x}")]
    Session {
        /// This connection's.
        expected: u64,
        /// The frame's.
        found: u64,
    },
    /// A frame out of order.
    #[error("frame {found} came where {expected} was due")]
    Number {
        /// Due.
        expected: u64,
        /// Came.
        found: u64,
    },
    /// A frame that has no place now.
    #[error("{0}")]
    Unexpected(&'static str),
    /// An acknowledgement of what was not sent, or one that goes back.
    #[error("the peer acknowledged {what} {found}, which cannot be: {expected}")]
    Ack {
        /// Received, durable or applied.
        what: &'static str,
        /// The claim.
        found: u64,
        /// What could be.
        expected: String,
    },
}

/// A frame, decoded and checked.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Frame {
    /// Who is calling.
    Hello(Hello),
    /// Why it will not talk.
    Refuse(Refuse),
    /// Where the stream starts.
    Begin(Begin),
    /// Updates.
    Batch(Batch),
    /// How far the standby is.
    Ack(Ack),
    /// Only the header.
    Heartbeat,
}

/// One connection's framing state.
#[derive(Debug)]
pub struct Session {
    /// The connection.
    pub conn: ConnId,
    /// Whether this node connected (and so chose the session's number).
    pub dialer: bool,
    /// When the peer was last heard.
    pub heard: Mono,
    /// When something was last sent.
    pub sent: Mono,
    id: Option<u64>,
    limit: usize,
    next_in: u64,
    next_out: u64,
    input: Vec<u8>,
    start: usize,
    out: Vec<Bytes>,
}

impl Session {
    /// A connection that this node made; `id` must differ from those of earlier ones.
    #[must_use]
    pub fn dialed(conn: ConnId, id: u64, now: Mono) -> Self {
        Self { id: Some(id), dialer: true, ..Self::accepted(conn, now) }
    }

    /// A connection that the peer made; its number comes with its hello.
    #[must_use]
    pub fn accepted(conn: ConnId, now: Mono) -> Self {
        Self {
            conn,
            dialer: false,
            heard: now,
            sent: now,
            id: None,
            limit: HELLO_PAYLOAD_MAX,
            next_in: 1,
            next_out: 1,
            input: Vec::new(),
            start: 0,
            out: Vec::new(),
        }
    }

    /// Lets large frames in: the hello was accepted.
    pub fn admit(&mut self) {
        self.limit = FRAME_PAYLOAD_MAX;
    }

    /// Takes bytes as they came.
    pub fn feed(&mut self, now: Mono, bytes: &[u8]) {
        self.heard = now;
        if self.start > 0 {
            self.input.drain(..self.start);
            self.start = 0;
        }
        self.input.extend_from_slice(bytes);
    }

    /// The next whole frame, with its header.
    ///
    /// # Errors
    /// Any [`LinkFault`]: the connection must end.
    pub fn poll(&mut self) -> Result<Option<(FrameHeader, Frame)>, LinkFault> {
        let bytes = self.input.get(self.start..).unwrap_or_default();
        let Some(head) = bytes.get(..FRAME_HEADER) else { return Ok(None) };
        let header = FrameHeader::decode(head, self.limit)?;
        if let Some(id) = self.id
            && id != header.session
        {
            return Err(LinkFault::Session { expected: id, found: header.session });
        }
        if header.number != self.next_in {
            return Err(LinkFault::Number { expected: self.next_in, found: header.number });
        }
        let len = FRAME_HEADER + header.len as usize;
        let Some(payload) = bytes.get(FRAME_HEADER..len) else { return Ok(None) };
        if header.kind != FrameKind::Batch {
            header.check(head, payload)?;
        }
        let frame = match header.kind {
            FrameKind::Hello => Frame::Hello(Hello::decode(payload)?),
            FrameKind::Refuse => Frame::Refuse(Refuse::decode(payload)?),
            FrameKind::Begin => Frame::Begin(Begin::decode(payload)?),
            FrameKind::Batch => Frame::Batch(Batch::from_wire(payload)?),
            FrameKind::Ack => Frame::Ack(Ack::decode(payload)?),
            FrameKind::Heartbeat => Frame::Heartbeat,
        };
        self.id = Some(header.session);
        self.next_in += 1;
        self.start += len;
        Ok(Some((header, frame)))
    }

    /// Queues a frame. `epoch`, `durable` and `credit` stand in its header.
    pub fn send(&mut self, now: Now, kind: FrameKind, fields: Head, payload: Bytes) {
        let fields = FrameFields {
            session: self.id.unwrap_or_default(),
            number: self.next_out,
            epoch: fields.epoch,
            durable: fields.durable,
            credit: fields.credit,
            wall_ms: now.wall_ms,
        };
        self.next_out += 1;
        self.sent = now.mono;
        let header = encode_header(kind, &fields, &payload);
        self.out.push(Bytes::copy_from_slice(&header));
        if !payload.is_empty() {
            self.out.push(payload);
        }
    }

    /// What was queued, in order.
    pub fn take_out(&mut self) -> Vec<Bytes> {
        std::mem::take(&mut self.out)
    }

    /// Bytes received and not yet decoded.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.input.len() - self.start
    }
}

/// What every frame's header tells besides the framing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Head {
    /// The sender's epoch.
    pub epoch: Epoch,
    /// A primary's durable head.
    pub durable: Seq,
    /// A receiver's grant.
    pub credit: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Prng;

    fn wire(session: &mut Session) -> Vec<u8> {
        session.take_out().concat()
    }

    #[test]
    fn frames_come_out_as_they_went_in_however_the_stream_is_cut() {
        let now = Now::default();
        let mut prng = Prng::new(5);
        for _ in 0..200 {
            let mut a = Session::dialed(ConnId(1), 77, now.mono);
            let mut b = Session::accepted(ConnId(2), now.mono);
            for n in 0..20_u64 {
                let ack = Ack { received: Seq(n), durable: Seq(n), applied: Seq(n) };
                a.send(now, FrameKind::Ack, Head::default(), ack.encode().into());
            }
            let bytes = wire(&mut a);
            let (mut at, mut seen) = (0, 0);
            while at < bytes.len() {
                let len = usize::try_from(1 + prng.below(150)).unwrap().min(bytes.len() - at);
                b.feed(now.mono, &bytes[at..at + len]);
                at += len;
                while let Some((_, frame)) = b.poll().unwrap() {
                    assert!(matches!(frame, Frame::Ack(ack) if ack.received == Seq(seen)));
                    seen += 1;
                }
            }
            assert_eq!(seen, 20);
        }
    }

    #[test]
    fn frames_of_another_connection_lost_or_doubled_frames_end_the_session() {
        let now = Now::default();
        let frames = |id| {
            let mut s = Session::dialed(ConnId(1), id, now.mono);
            (0..3)
                .map(|_| {
                    s.send(now, FrameKind::Heartbeat, Head::default(), Bytes::new());
                    wire(&mut s)
                })
                .collect::<Vec<_>>()
        };
        let (mine, other) = (frames(1), frames(2));
        let verdict = |pieces: &[&Vec<u8>]| {
            let mut s = Session::accepted(ConnId(2), now.mono);
            for piece in pieces {
                s.feed(now.mono, piece);
                if let Err(fault) = s.poll() {
                    return Some(fault);
                }
            }
            None
        };
        assert_eq!(verdict(&[&mine[0], &mine[1]]), None);
        assert!(matches!(verdict(&[&mine[0], &other[1]]), Some(LinkFault::Session { .. })));
        assert!(matches!(verdict(&[&mine[0], &mine[2]]), Some(LinkFault::Number { .. })));
        assert!(matches!(verdict(&[&mine[0], &mine[0]]), Some(LinkFault::Number { .. })));
    }

    #[test]
    fn before_the_hello_is_accepted_large_frames_are_refused_from_their_header_alone() {
        let now = Now::default();
        let mut a = Session::dialed(ConnId(1), 1, now.mono);
        a.send(now, FrameKind::Hello, Head::default(), vec![0; 5000].into());
        let mut b = Session::accepted(ConnId(2), now.mono);
        b.feed(now.mono, &wire(&mut a)[..FRAME_HEADER]);
        assert!(matches!(b.poll(), Err(LinkFault::Decode(DecodeError::Limit { .. }))));
    }
}

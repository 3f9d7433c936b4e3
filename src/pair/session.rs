//! One connection between the nodes: bytes to numbered frames and back.

use crate::base::limits::{BLOCK, FRAME_PAYLOAD_MAX, HELLO_PAYLOAD_MAX, LINK_OWN_BUFFER_MIN};
use crate::base::{AlignedBuf, ConnId, Epoch, Mono, Now, Seq};
use crate::format::DecodeError;
use crate::format::batch::Batch;
use crate::format::chunk::{Chunk, CopyBegin, Want};
use crate::format::compare::{Answer, Ask, Mark, Order, Report};
use crate::format::frame::{
    Ack, Begin, FRAME_HEADER, FrameFields, FrameHeader, FrameKind, Hello, Refuse, encode_header,
};
use crate::format::handover::Handover;
use crate::format::rewind::Rewind;
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
    LinkSession {
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
    /// A copy begins.
    CopyBegin(Box<CopyBegin>),
    /// A range is wanted.
    Want(Want),
    /// What a range holds.
    Chunk(Chunk),
    /// A step of a change of roles.
    Handover(Handover),
    /// A look is wanted.
    Ask(Ask),
    /// Where is looked.
    Mark(Mark),
    /// What was found.
    Answer(Box<Answer>),
    /// A compare is to begin or to end.
    Order(Order),
    /// How far it is.
    Report(Box<Report>),
    /// The copy that begins next is a rewind.
    Rewind(Box<Rewind>),
}

/// One connection's framing state.
#[derive(Debug)]
pub struct LinkSession {
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
    body: Option<Body>,
    out: Vec<Bytes>,
}

/// A large batch on its way into the buffer in which it stays. Nothing behind it is in `input` before it is whole.
#[derive(Debug)]
struct Body {
    header: FrameHeader,
    /// None while it is filled outside.
    buffer: Option<AlignedBuf>,
}

impl Body {
    fn len(&self) -> usize {
        self.header.len as usize
    }
}

impl LinkSession {
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
            body: None,
            out: Vec::new(),
        }
    }

    /// Lets large frames in: the hello was accepted.
    pub fn admit(&mut self) {
        self.limit = FRAME_PAYLOAD_MAX;
    }

    /// Takes bytes as they came.
    ///
    /// # Panics
    /// If the buffer of [`Self::take_room`] is still out: these bytes belong into it, or behind it.
    pub fn feed(&mut self, now: Mono, bytes: &[u8]) {
        self.heard = now;
        let mut bytes = bytes;
        if let Some(body) = &mut self.body {
            let len = body.len();
            let buffer = body.buffer.as_mut().expect("bytes come in order");
            let (here, behind) = bytes.split_at(bytes.len().min(len - buffer.len()));
            buffer.extend_from_slice(here);
            bytes = behind;
        }
        if self.start > 0 {
            self.input.drain(..self.start);
            self.start = 0;
        }
        self.input.extend_from_slice(bytes);
    }

    /// The buffer into which the bytes that come next belong, behind those that are in it, and how many it is to hold.
    /// It comes back by [`Self::filled`]. None if they are to come by [`Self::feed`].
    pub fn take_room(&mut self) -> Option<(AlignedBuf, usize)> {
        let body = self.body.as_mut()?;
        let until = body.len();
        body.buffer.take_if(|buffer| buffer.len() < until).map(|buffer| (buffer, until))
    }

    /// Takes the buffer of [`Self::take_room`] back, with more in it or whole.
    ///
    /// # Panics
    /// If it was not out, or holds more than was asked for.
    pub fn filled(&mut self, now: Mono, buffer: AlignedBuf) {
        self.heard = now;
        let body = self.body.as_mut().expect("a buffer was given out");
        assert!(
            body.buffer.is_none() && buffer.len() <= body.len(),
            "the buffer that was given out comes back"
        );
        body.buffer = Some(buffer);
    }

    /// The next whole frame, with its header.
    ///
    /// # Errors
    /// Any [`LinkFault`]: the connection must end.
    pub fn poll(&mut self) -> Result<Option<(FrameHeader, Frame)>, LinkFault> {
        if self.body.is_some() {
            return self.poll_body();
        }
        let bytes = self.input.get(self.start..).unwrap_or_default();
        let Some(head) = bytes.get(..FRAME_HEADER) else { return Ok(None) };
        let header = FrameHeader::decode(head, self.limit)?;
        if let Some(id) = self.id
            && id != header.session
        {
            return Err(LinkFault::LinkSession { expected: id, found: header.session });
        }
        if header.number != self.next_in {
            return Err(LinkFault::Number { expected: self.next_in, found: header.number });
        }
        let len = FRAME_HEADER + header.len as usize;
        let Some(payload) = bytes.get(FRAME_HEADER..len) else {
            if header.kind == FrameKind::Batch && header.len as usize >= LINK_OWN_BUFFER_MIN {
                self.begin_body(header);
            }
            return Ok(None);
        };
        if !header.kind.sums_itself() {
            header.check(head, payload)?;
        }
        let frame = match header.kind {
            FrameKind::Hello => Frame::Hello(Hello::decode(payload)?),
            FrameKind::Refuse => Frame::Refuse(Refuse::decode(payload)?),
            FrameKind::Begin => Frame::Begin(Begin::decode(payload)?),
            FrameKind::Batch => Frame::Batch(Batch::from_wire(payload)?),
            FrameKind::Ack => Frame::Ack(Ack::decode(payload)?),
            FrameKind::Heartbeat => Frame::Heartbeat,
            FrameKind::CopyBegin => {
                Frame::CopyBegin(Box::new(CopyBegin::decode(&Bytes::copy_from_slice(payload))?))
            }
            FrameKind::Want => Frame::Want(Want::decode(&Bytes::copy_from_slice(payload))?),
            FrameKind::Chunk => Frame::Chunk(Chunk::decode(&Bytes::copy_from_slice(payload))?),
            FrameKind::Handover => Frame::Handover(Handover::decode(payload)?),
            FrameKind::Ask => Frame::Ask(Ask::decode(&Bytes::copy_from_slice(payload))?),
            FrameKind::Mark => Frame::Mark(Mark::decode(&Bytes::copy_from_slice(payload))?),
            FrameKind::Answer => Frame::Answer(Box::new(Answer::decode(&Bytes::copy_from_slice(payload))?)),
            FrameKind::Order => Frame::Order(Order::decode(payload)?),
            FrameKind::Report => Frame::Report(Box::new(Report::decode(payload)?)),
            FrameKind::Rewind => Frame::Rewind(Box::new(Rewind::decode(&Bytes::copy_from_slice(payload))?)),
        };
        self.start += len;
        self.took(&header);
        Ok(Some((header, frame)))
    }

    fn took(&mut self, header: &FrameHeader) {
        self.id = Some(header.session);
        self.next_in += 1;
    }

    /// Goes on in a buffer of its own with a batch whose header was checked and of which all that came is in the input.
    fn begin_body(&mut self, header: FrameHeader) {
        let mut buffer = AlignedBuf::with_capacity((header.len as usize).next_multiple_of(BLOCK));
        buffer.extend_from_slice(self.input.get(self.start + FRAME_HEADER..).unwrap_or_default());
        self.input.clear();
        self.start = 0;
        self.body = Some(Body { header, buffer: Some(buffer) });
    }

    fn poll_body(&mut self) -> Result<Option<(FrameHeader, Frame)>, LinkFault> {
        let whole = |body: &mut Body| body.buffer.as_ref().is_some_and(|buffer| buffer.len() == body.len());
        let Some(Body { header, buffer: Some(buffer) }) = self.body.take_if(whole) else { return Ok(None) };
        let batch = Batch::from_buffer(buffer)?;
        self.took(&header);
        Ok(Some((header, Frame::Batch(batch))))
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
        let body = self.body.as_ref().and_then(|body| body.buffer.as_ref()).map_or(0, AlignedBuf::len);
        self.input.len() - self.start + body
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

/// Gives any bytes to a session that lets large frames in, cut by their own first byte, fed and filled in turn.
///
/// # Panics
/// If more is held than came.
pub fn fuzz_session(bytes: &[u8]) {
    let mut session = LinkSession::accepted(ConnId(1), Mono(0));
    session.admit();
    let step = bytes.first().map_or(1, |&byte| 1 + usize::from(byte) * 37);
    let mut came = 0;
    for (turn, mut piece) in bytes.chunks(step).enumerate() {
        came += piece.len();
        if turn % 2 == 0
            && let Some((mut buffer, until)) = session.take_room()
        {
            let (here, rest) = piece.split_at(piece.len().min(until - buffer.len()));
            buffer.extend_from_slice(here);
            session.filled(Mono(0), buffer);
            piece = rest;
        }
        session.feed(Mono(0), piece);
        loop {
            match session.poll() {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
        assert!(session.buffered() <= came, "nothing is held that did not come");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Chain, FileId, JournalKind, Prng};
    use crate::format::PairId;
    use crate::format::batch::{BatchBuilder, Seal};
    use crate::format::entry::{Entry, EntryKind};

    fn wire(session: &mut LinkSession) -> Vec<u8> {
        session.take_out().concat()
    }

    #[test]
    fn frames_come_out_as_they_went_in_however_the_stream_is_cut() {
        let now = Now::default();
        let mut prng = Prng::new(5);
        for _ in 0..200 {
            let mut a = LinkSession::dialed(ConnId(1), 77, now.mono);
            let mut b = LinkSession::accepted(ConnId(2), now.mono);
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
            let mut s = LinkSession::dialed(ConnId(1), id, now.mono);
            (0..3)
                .map(|_| {
                    s.send(now, FrameKind::Heartbeat, Head::default(), Bytes::new());
                    wire(&mut s)
                })
                .collect::<Vec<_>>()
        };
        let (mine, other) = (frames(1), frames(2));
        let verdict = |pieces: &[&Vec<u8>]| {
            let mut s = LinkSession::accepted(ConnId(2), now.mono);
            for piece in pieces {
                s.feed(now.mono, piece);
                if let Err(fault) = s.poll() {
                    return Some(fault);
                }
            }
            None
        };
        assert_eq!(verdict(&[&mine[0], &mine[1]]), None);
        assert!(matches!(verdict(&[&mine[0], &other[1]]), Some(LinkFault::LinkSession { .. })));
        assert!(matches!(verdict(&[&mine[0], &mine[2]]), Some(LinkFault::Number { .. })));
        assert!(matches!(verdict(&[&mine[0], &mine[0]]), Some(LinkFault::Number { .. })));
    }

    /// A batch of `len` bytes of values after `seq`.
    fn batch(seq: u64, len: usize) -> Batch {
        let mut builder = BatchBuilder::new(Seq(seq), len);
        let value: Vec<u8> = (0..len).map(|at| u8::try_from((at + len) % 251).unwrap()).collect();
        builder.push(&Entry { kind: EntryKind::Put, file: FileId(4), id: b"item", value: &value });
        builder.seal(&Seal {
            epoch: Epoch(2),
            prev_chain: Chain(seq),
            durable: Seq(0),
            wall_ms: 5,
            pair: PairId([1; 16]),
            journal: JournalKind::Replicated,
        })
    }

    fn admitted(now: Now) -> LinkSession {
        let mut session = LinkSession::accepted(ConnId(2), now.mono);
        session.admit();
        session
    }

    /// Gives `session` some bytes as a driver does: first into the buffer that it gave out.
    fn deliver(session: &mut LinkSession, now: Now, mut bytes: &[u8]) {
        if let Some((mut buffer, until)) = session.take_room() {
            let (here, rest) = bytes.split_at(bytes.len().min(until - buffer.len()));
            buffer.extend_from_slice(here);
            session.filled(now.mono, buffer);
            bytes = rest;
        }
        if !bytes.is_empty() {
            session.feed(now.mono, bytes);
        }
    }

    #[test]
    fn large_batches_come_out_as_they_went_in_whether_fed_or_filled_and_however_they_are_cut() {
        let now = Now::default();
        let mut prng = Prng::new(6);
        for _ in 0..60 {
            let mut a = LinkSession::dialed(ConnId(1), 77, now.mono);
            let mut sent = Vec::new();
            for n in 0..6_u64 {
                let len = usize::try_from(prng.below(300_000)).unwrap();
                let batch = if prng.below(3) == 0 { batch(n + 1, len / 1000) } else { batch(n + 1, len) };
                a.send(now, FrameKind::Batch, Head::default(), batch.wire());
                sent.push(batch);
            }
            a.send(now, FrameKind::Heartbeat, Head::default(), Bytes::new());
            let bytes = wire(&mut a);
            let (mut b, mut at, mut seen) = (admitted(now), 0, 0);
            let most = [200, 9_000, 150_000, 2_000_000][usize::try_from(prng.below(4)).unwrap()];
            while at < bytes.len() {
                let len = usize::try_from(1 + prng.below(most)).unwrap().min(bytes.len() - at);
                let piece = &bytes[at..at + len];
                at += len;
                if prng.below(2) == 0 {
                    deliver(&mut b, now, piece)
                } else {
                    b.feed(now.mono, piece)
                }
                while let Some((_, frame)) = b.poll().unwrap() {
                    match frame {
                        Frame::Batch(batch) => assert_eq!(batch.disk(), sent[seen].disk()),
                        other => assert!(seen == 6 && matches!(other, Frame::Heartbeat)),
                    }
                    seen += 1;
                }
            }
            assert_eq!((seen, b.buffered()), (7, 0));
        }
    }

    #[test]
    fn a_large_batch_with_one_bit_wrong_ends_the_session_also_when_it_was_filled() {
        let now = Now::default();
        let mut a = LinkSession::dialed(ConnId(1), 1, now.mono);
        a.send(now, FrameKind::Batch, Head::default(), batch(1, 100_000).wire());
        let mut bytes = wire(&mut a);
        bytes[90_000] ^= 4;
        let mut b = admitted(now);
        b.feed(now.mono, &bytes[..5_000]);
        assert!(b.poll().unwrap().is_none());
        deliver(&mut b, now, &bytes[5_000..]);
        assert!(matches!(b.poll(), Err(LinkFault::Decode(DecodeError::Checksum { .. }))));
    }

    #[test]
    fn a_small_frame_with_one_bit_wrong_ends_the_session_and_does_not_keep_it_waiting() {
        let now = Now::default();
        let mut sender = LinkSession::dialed(ConnId(1), 9, Mono(0));
        let payloads = [(FrameKind::Begin, 24), (FrameKind::Ack, 24), (FrameKind::Heartbeat, 0)];
        for (kind, len) in payloads {
            let first = sender.next_out;
            sender.send(now, kind, Head::default(), Bytes::from(vec![7; len]));
            let good = wire(&mut sender);
            // A little of what comes behind it, as long as nobody notices.
            for _ in 0..4 {
                sender.send(now, FrameKind::Heartbeat, Head::default(), Bytes::new());
            }
            let behind = wire(&mut sender);
            for bit in 0..good.len() * 8 {
                let mut bad = good.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                let mut receiver = LinkSession::accepted(ConnId(2), Mono(0));
                receiver.admit();
                (receiver.id, receiver.next_in) = (Some(9), first);
                receiver.feed(Mono(0), &bad);
                receiver.feed(Mono(0), &behind);
                let polled = receiver.poll();
                assert!(polled.is_err(), "{kind:?} with bit {bit} wrong: {polled:?}");
            }
        }
    }

    #[test]
    fn no_buffer_is_made_for_a_batch_whose_header_is_wrong_or_which_is_small_or_whole() {
        let now = Now::default();
        let mut a = LinkSession::dialed(ConnId(1), 1, now.mono);
        let large = batch(1, 100_000).wire();
        let frames: Vec<Vec<u8>> = [&large, &large, &batch(1, 1000).wire()]
            .into_iter()
            .map(|payload| {
                a.send(now, FrameKind::Batch, Head::default(), payload.clone());
                wire(&mut a)
            })
            .collect();
        let room = |session: &mut LinkSession, bytes: &[u8]| {
            session.feed(now.mono, bytes);
            let polled = session.poll();
            (session.take_room().is_some(), polled)
        };
        assert!(matches!(room(&mut admitted(now), &frames[0][..100]), (true, Ok(None))));
        assert!(matches!(room(&mut admitted(now), &frames[0]), (false, Ok(Some(_)))));
        assert!(matches!(
            room(&mut admitted(now), &frames[1][..100]),
            (false, Err(LinkFault::Number { .. }))
        ));
        let mut flipped = frames[0].clone();
        flipped[13] ^= 1;
        assert!(matches!(room(&mut admitted(now), &flipped[..100]), (false, Err(LinkFault::Decode(_)))));
        let mut later = admitted(now);
        later.next_in = 3;
        assert!(matches!(room(&mut later, &frames[2][..100]), (false, Ok(None))));
        let mut unknown = LinkSession::accepted(ConnId(2), now.mono);
        assert!(matches!(room(&mut unknown, &frames[0][..100]), (false, Err(LinkFault::Decode(_)))));
    }

    #[test]
    fn any_bytes_end_a_session_or_wait_without_a_panic() {
        let now = Now::default();
        let mut prng = Prng::new(9);
        let mut a = LinkSession::dialed(ConnId(1), 1, now.mono);
        for (seq, len) in [(1, 70_000), (2, 300), (3, 66_000)] {
            a.send(now, FrameKind::Batch, Head::default(), batch(seq, len).wire());
        }
        let good = wire(&mut a);
        fuzz_session(&good);
        for _ in 0..300 {
            let mut bytes = good.clone();
            for _ in 0..prng.below(3) {
                // Most damage where it matters: in the headers.
                let most = if prng.below(2) == 0 { 64 } else { bytes.len() as u64 };
                let at = usize::try_from(prng.below(most)).unwrap();
                bytes[at] = u8::try_from(prng.below(256)).unwrap();
            }
            fuzz_session(&bytes);
        }
    }

    #[test]
    fn before_the_hello_is_accepted_large_frames_are_refused_from_their_header_alone() {
        let now = Now::default();
        let mut a = LinkSession::dialed(ConnId(1), 1, now.mono);
        a.send(now, FrameKind::Hello, Head::default(), vec![0; 5000].into());
        let mut b = LinkSession::accepted(ConnId(2), now.mono);
        b.feed(now.mono, &wire(&mut a)[..FRAME_HEADER]);
        assert!(matches!(b.poll(), Err(LinkFault::Decode(DecodeError::Limit { .. }))));
    }
}

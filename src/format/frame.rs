//! A link frame: a 64-byte header and a payload.
//!
//! | offset | size | field | rule |
//! |---|---|---|---|
//! | 0 | 4 | `magic` | `HBf1` |
//! | 4 | 4 | `crc` | CRC32C of bytes 8 .. 64 and, unless the payload carries its own checksum, of the payload |
//! | 8 | 1 | `kind` | [`FrameKind`] |
//! | 9 | 3 | reserved | 0 |
//! | 12 | 4 | `len` | payload in bytes; batch: at most 32 MiB, hello and refuse: 4 KiB, begin and ack: 24, heartbeat: 0, want: 768, handover: 16 KiB; what a copy sends: 32 MiB; what a compare asks: 2 KiB, answers: 32 MiB; any: 4 KiB before the hello was accepted |
//! | 16 | 8 | `session` | chosen by the node that connected; every frame of a connection carries it |
//! | 24 | 8 | `number` | 1, 2, 3 .. in each direction |
//! | 32 | 8 | `epoch` | the sender's epoch |
//! | 40 | 8 | `durable` | a primary's durable head, in every frame; else 0 |
//! | 48 | 8 | `credit` | a receiver's grant: batch bytes its peer may have sent in this session, in all |
//! | 56 | 8 | `wall_ms` | when it was sent, for people |
//!
//! A batch carries its own checksum, so its bytes are not summed twice; so do a copy's beginning and its chunks. The header of any other frame is summed with its
//! payload, so its length is believed before it is checked: what it can say wrongly is bounded by the kind, or a receiver
//! would wait for payload that never comes while heartbeats tell it that all is well.

use super::compare::CERTIFICATE_MAX;
use super::control::{EpochMark, Role};
use super::{DecodeError, PairId, Reader, Writer};
use crate::base::limits::{
    ASK_PAYLOAD_MAX, FRAME_PAYLOAD_MAX, HANDOVER_PAYLOAD_MAX, HELLO_EPOCHS_MAX, HELLO_FIELDS_MAX,
    HELLO_PAYLOAD_MAX, NAME_MAX, WANT_PAYLOAD_MAX,
};
use crate::base::{Chain, Epoch, Ordinal, Position, Seq, crc32c_parts};
use std::net::SocketAddr;

/// Bytes before the payload.
pub const FRAME_HEADER: usize = 64;
/// Protocol version spoken here. Version 2 has fields behind the name in a hello.
pub const PROTOCOL_VERSION: u16 = 2;
/// Lowest protocol version understood here.
pub const PROTOCOL_FLOOR: u16 = 1;
/// Feature bit: it gives and takes copies ([`super::chunk`]).
pub const FEATURE_COPY: u32 = 1;
/// Feature bit: it changes roles with its peer ([`super::handover`]).
pub const FEATURE_HANDOVER: u32 = 4;
/// Feature bit: it compares, and gives what was rotten on the other node ([`super::compare`]).
pub const FEATURE_COMPARE: u32 = 8;
/// Feature bit: it takes chunks of a block that is rotten at the giver ([`super::chunk`]).
pub const FEATURE_LOST: u32 = 512;
/// Feature bit: it carries out a listing at an entry, to compare it ([`super::compare`]).
pub const FEATURE_QUERY: u32 = 256;
/// Feature bit: a primary gives, and another node takes, a rewind ([`super::rewind`]).
pub const FEATURE_REWIND: u32 = 2;
/// Feature bit: it answers a want that says what the receiver holds there ([`super::unless`]).
pub const FEATURE_DIGESTS: u32 = 1 << 16;
/// Feature bit: this primary took over with a part of a copy.
pub const FEATURE_PARTIAL: u32 = 1 << 17;
/// Feature bit: an operator accepts that this node is made what such a primary has.
pub const FEATURE_TAKES_PARTIAL: u32 = 1 << 18;
/// Feature bit: the next copy that this primary gives brings all content, whatever its receiver holds.
pub const FEATURE_ALL_CONTENT: u32 = 1 << 19;
const MAGIC: u32 = u32::from_le_bytes(*b"HBf1");

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum FrameKind {
    /// [`Hello`]; the first frame each way.
    Hello = 1,
    /// [`Refuse`]; the last frame.
    Refuse = 2,
    /// [`Begin`]: the stream starts after this position.
    Begin = 3,
    /// A batch, byte for byte as in the journal.
    Batch = 4,
    /// [`Ack`].
    Ack = 5,
    /// Nothing but its header; keeps the link known to be alive and tells the durable head.
    Heartbeat = 6,
    /// [`super::chunk::CopyBegin`]: what the receiver has is replaced, and the stream starts after a new origin.
    CopyBegin = 7,
    /// [`super::chunk::Want`].
    Want = 8,
    /// [`super::chunk::Chunk`].
    Chunk = 9,
    /// [`super::handover::Handover`]: the two nodes change roles.
    Handover = 14,
    /// [`super::compare::Ask`].
    Ask = 16,
    /// [`super::compare::Mark`].
    Mark = 17,
    /// [`super::compare::Answer`].
    Answer = 18,
    /// [`super::compare::Order`].
    Order = 19,
    /// [`super::compare::Report`].
    Report = 20,
    /// [`super::rewind::Rewind`]: the copy that begins next brings only what either node touched since they parted.
    Rewind = 10,
}

impl FrameKind {
    fn from_byte(byte: u8) -> Result<Self, DecodeError> {
        Ok(match byte {
            1 => Self::Hello,
            2 => Self::Refuse,
            3 => Self::Begin,
            4 => Self::Batch,
            5 => Self::Ack,
            6 => Self::Heartbeat,
            7 => Self::CopyBegin,
            8 => Self::Want,
            9 => Self::Chunk,
            14 => Self::Handover,
            16 => Self::Ask,
            17 => Self::Mark,
            18 => Self::Answer,
            19 => Self::Order,
            20 => Self::Report,
            10 => Self::Rewind,
            other => {
                return Err(DecodeError::Field { what: "frame kind", expected: 1, found: u64::from(other) });
            }
        })
    }

    /// The least and the most bytes of its payload.
    fn payload(self) -> (usize, usize) {
        match self {
            Self::Hello | Self::Refuse => (0, HELLO_PAYLOAD_MAX),
            Self::Begin | Self::Ack => (24, 24),
            Self::Batch | Self::CopyBegin | Self::Chunk | Self::Rewind => (0, FRAME_PAYLOAD_MAX),
            Self::Heartbeat => (0, 0),
            Self::Want => (0, WANT_PAYLOAD_MAX),
            Self::Handover => (0, HANDOVER_PAYLOAD_MAX),
            Self::Ask | Self::Mark | Self::Order => (0, ASK_PAYLOAD_MAX),
            Self::Answer => (0, FRAME_PAYLOAD_MAX),
            Self::Report => (0, CERTIFICATE_MAX),
        }
    }

    /// Whether the payload carries its own checksum.
    #[must_use]
    pub const fn sums_itself(self) -> bool {
        matches!(
            self,
            Self::Batch | Self::CopyBegin | Self::Chunk | Self::Rewind | Self::Answer | Self::Report
        )
    }
}

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// What it carries.
    pub kind: FrameKind,
    /// Payload (bytes).
    pub len: u32,
    /// The connection's number.
    pub session: u64,
    /// 1, 2, 3 .. in each direction.
    pub number: u64,
    /// The sender's epoch.
    pub epoch: Epoch,
    /// A primary's durable head.
    pub durable: Seq,
    /// A receiver's grant (bytes of batches in this session, in all).
    pub credit: u64,
    /// When it was sent, for people.
    pub wall_ms: u64,
    crc: u32,
}

/// What a sender fills in; kind and length come from the payload.
#[derive(Clone, Copy, Debug, Default)]
pub struct FrameFields {
    /// See [`FrameHeader::session`].
    pub session: u64,
    /// See [`FrameHeader::number`].
    pub number: u64,
    /// See [`FrameHeader::epoch`].
    pub epoch: Epoch,
    /// See [`FrameHeader::durable`].
    pub durable: Seq,
    /// See [`FrameHeader::credit`].
    pub credit: u64,
    /// See [`FrameHeader::wall_ms`].
    pub wall_ms: u64,
}

/// The header's bytes for `payload`; they are sent right before it.
///
/// # Panics
/// If the payload is over [`FRAME_PAYLOAD_MAX`].
#[must_use]
pub fn encode_header(kind: FrameKind, fields: &FrameFields, payload: &[u8]) -> [u8; FRAME_HEADER] {
    assert!(payload.len() <= FRAME_PAYLOAD_MAX, "a payload stays within its limit");
    let mut w = Writer::with_capacity(FRAME_HEADER);
    w.u32(MAGIC).u32(0).u8(kind as u8).put(&[0; 3]);
    w.u32(u32::try_from(payload.len()).expect("limit fits"));
    w.u64(fields.session).u64(fields.number).u64(fields.epoch.0).u64(fields.durable.0);
    w.u64(fields.credit).u64(fields.wall_ms);
    let mut out = [0; FRAME_HEADER];
    out.copy_from_slice(&w.into_bytes());
    let summed = if kind.sums_itself() { &[][..] } else { payload };
    let crc = crc32c_parts(&[out.get(8..).unwrap_or_default(), summed]);
    out[4..8].copy_from_slice(&crc.to_le_bytes());
    out
}

impl FrameHeader {
    /// Reads a header; `limit` bounds the payload it may announce.
    ///
    /// Where the payload carries its own checksum, this also checks the header's; for others see [`Self::check`].
    ///
    /// # Errors
    /// Any [`DecodeError`]; never panics.
    pub fn decode(bytes: &[u8], limit: usize) -> Result<Self, DecodeError> {
        let mut r = Reader::new("frame header", bytes);
        let magic = r.u32()?;
        r.expect("frame magic", u64::from(MAGIC), u64::from(magic))?;
        let crc = r.u32()?;
        let kind = FrameKind::from_byte(r.u8()?)?;
        let reserved = r.array::<3>()?;
        r.expect("frame reserved bytes", 0, u64::from(reserved != [0; 3]))?;
        let len = r.u32()?;
        let (least, most) = kind.payload();
        if len as usize > most.min(limit) {
            let (limit, found) = (most.min(limit) as u64, u64::from(len));
            return Err(DecodeError::Limit { what: "frame payload", limit, found });
        }
        if (len as usize) < least {
            let (needed, found) = (least, len as usize);
            return Err(DecodeError::Short { what: "frame payload", needed, found });
        }
        let header = Self {
            kind,
            len,
            session: r.u64()?,
            number: r.u64()?,
            epoch: Epoch(r.number("epoch of a frame")?),
            durable: Seq(r.number("durable head of a frame")?),
            credit: r.u64()?,
            wall_ms: r.u64()?,
            crc,
        };
        if kind.sums_itself() {
            header.check(bytes, &[])?;
        }
        Ok(header)
    }

    /// Checks the checksum over header and payload.
    ///
    /// # Errors
    /// [`DecodeError::Checksum`].
    pub fn check(&self, header: &[u8], payload: &[u8]) -> Result<(), DecodeError> {
        let computed = crc32c_parts(&[header.get(8..FRAME_HEADER).unwrap_or_default(), payload]);
        if computed == self.crc {
            Ok(())
        } else {
            Err(DecodeError::Checksum { what: "frame", found: self.crc, computed })
        }
    }
}

/// Who is calling, and how much of the history it has.
///
/// version u16, floor u16, features u32, pair 16, ordinal u8, role u8, serving u8, reserved u8, end (epoch,
/// seq, chain) 24, applied u64, epoch count u32, epochs (24 each, newest last, at most 64), name. Fields may
/// follow, each of a tag u8, a length u16 and so many bytes; a reader skips a tag that it does not know. Version 0.1 of the
/// program writes none and ignores what is behind the name.
///
/// | tag | field |
/// |---|---|
/// | 1 | `known` u64, `relied_on` u64; written from protocol version 2 on |
/// | 2 | `door`, as text such as `10.0.0.2:6379` |
/// | 3 | `copied` u8: 1 if what an incomplete node was copied can be gone on with |
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Protocol version spoken.
    pub version: u16,
    /// Lowest version understood.
    pub floor: u16,
    /// Feature bits; unknown ones are ignored, the session uses those that both have.
    pub features: u32,
    /// The pair.
    pub pair: PairId,
    /// Which of the two.
    pub ordinal: Ordinal,
    /// The role in its control file.
    pub role: Role,
    /// Whether it accepts updates now.
    pub serving: bool,
    /// End of its journal.
    pub end: Position,
    /// Applied to its store.
    pub applied: Seq,
    /// Where its epochs begin, newest last.
    pub table: Vec<EpochMark>,
    /// Its name, for people.
    pub name: String,
    /// The last entry that it has known to be on the receiver's disk.
    pub known: Seq,
    /// The last entry that it may have answered for because the receiver acknowledged it; at least `known`.
    pub relied_on: Seq,
    /// Where Redis clients reach it over TCP, for INFO and ROLE of its peer.
    pub door: Option<SocketAddr>,
    /// An incomplete node can go on with what it was copied, if the history goes on behind its end.
    pub copied: bool,
}

/// Tag of `known` and `relied_on`.
const FIELD_KNOWN: u8 = 1;
/// Tag of [`Hello::door`].
const FIELD_DOOR: u8 = 2;
/// Tag of [`Hello::copied`].
const FIELD_COPIED: u8 = 3;

impl Hello {
    /// The payload's bytes; only the newest [`HELLO_EPOCHS_MAX`] epochs are told.
    ///
    /// # Panics
    /// Never.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let skip = self.table.len().saturating_sub(HELLO_EPOCHS_MAX);
        let told = self.table.get(skip..).unwrap_or_default();
        let mut w = Writer::with_capacity(128 + told.len() * EpochMark::LEN);
        w.u16(self.version).u16(self.floor).u32(self.features).put(&self.pair.0);
        w.u8(self.ordinal.0).u8(self.role.byte()).u8(u8::from(self.serving)).u8(0);
        w.u64(self.end.epoch.0).u64(self.end.seq.0).u64(self.end.chain.0).u64(self.applied.0);
        w.u32(u32::try_from(told.len()).expect("limit fits"));
        told.iter().for_each(|mark| mark.encode(&mut w));
        w.text(&self.name);
        if self.version > 1 {
            w.u8(FIELD_KNOWN).u16(16).u64(self.known.0).u64(self.relied_on.0);
        }
        if let Some(door) = self.door {
            w.u8(FIELD_DOOR).text(&door.to_string());
        }
        if self.copied {
            w.u8(FIELD_COPIED).u16(1).u8(1);
        }
        w.into_bytes()
    }

    /// Reads the payload.
    ///
    /// # Errors
    /// Any [`DecodeError`]; never panics.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new("hello", bytes);
        let (version, floor, features) = (r.u16()?, r.u16()?, r.u32()?);
        let pair = PairId(r.array()?);
        let ordinal = r.u8()?;
        if ordinal > 1 {
            return Err(DecodeError::Field { what: "hello ordinal", expected: 1, found: u64::from(ordinal) });
        }
        let role = Role::from_byte(r.u8()?)?;
        let serving = r.u8()? != 0;
        r.u8()?;
        let end = position(&mut r)?;
        let applied = Seq(r.number("applied entry of a hello")?);
        let count = r.u32()? as usize;
        let table = EpochMark::decode_table(&mut r, count, HELLO_EPOCHS_MAX)?;
        let name = r.text(NAME_MAX)?.to_owned();
        let ordinal = Ordinal(ordinal);
        let (known, relied_on, door, copied) = (Seq(0), Seq(0), None, false);
        let mut hello = Self {
            version,
            floor,
            features,
            pair,
            ordinal,
            role,
            serving,
            end,
            applied,
            table,
            name,
            known,
            relied_on,
            door,
            copied,
        };
        hello.decode_fields(&mut r)?;
        Ok(hello)
    }

    fn decode_fields(&mut self, r: &mut Reader<'_>) -> Result<(), DecodeError> {
        for _ in 0..HELLO_FIELDS_MAX {
            if r.rest().is_empty() {
                return Ok(());
            }
            let (tag, len) = (r.u8()?, usize::from(r.u16()?));
            let bytes = r.take(len)?;
            let mut field = Reader::new("field of a hello", bytes);
            match tag {
                FIELD_KNOWN => {
                    self.known = Seq(field.number("entry known to be here")?);
                    self.relied_on = Seq(field.number("entry relied on")?);
                }
                // It is for people and their tools: one that cannot be read is none.
                FIELD_DOOR => {
                    self.door = std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok());
                }
                FIELD_COPIED => self.copied = field.u8()? == 1,
                _ => {}
            }
        }
        r.expect("bytes after the fields of a hello", 0, r.rest().len() as u64)
    }
}

fn position(r: &mut Reader<'_>) -> Result<Position, DecodeError> {
    let epoch = Epoch(r.number("epoch of a position")?);
    Ok(Position { epoch, seq: Seq(r.number("entry of a position")?), chain: Chain(r.u64()?) })
}

/// Why a node will not talk. Sent once, then the connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
#[non_exhaustive]
pub enum RefuseCode {
    /// No common protocol version.
    Version = 1,
    /// Another pair.
    Pair = 2,
    /// Both nodes have the same ordinal, or a node called itself.
    Ordinal = 3,
    /// The caller's epoch is behind what the receiver has seen.
    Epoch = 4,
    /// The two roles do not fit together.
    Role = 5,
    /// The histories differ where they must not.
    History = 6,
    /// A frame broke a rule of this module.
    Protocol = 7,
    /// The receiver cannot take part now (starting, stopping, disk failed).
    NotNow = 8,
}

/// Payload: code u16, text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refuse {
    /// The code, as a number: a newer peer may know more.
    pub code: u16,
    /// For people.
    pub text: String,
}

impl Refuse {
    /// The payload's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        w.u16(self.code).text(&self.text);
        w.into_bytes()
    }

    /// Reads the payload.
    ///
    /// # Errors
    /// Any [`DecodeError`]; never panics.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new("refusal", bytes);
        Ok(Self { code: r.u16()?, text: r.text(1024)?.to_owned() })
    }
}

/// Payload: the position (epoch, seq, chain) after which the stream starts; what the receiver holds beyond it
/// is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begin {
    /// The last position both have.
    pub common: Position,
}

impl Begin {
    /// The payload's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        w.u64(self.common.epoch.0).u64(self.common.seq.0).u64(self.common.chain.0);
        w.into_bytes()
    }

    /// Reads the payload.
    ///
    /// # Errors
    /// Any [`DecodeError`]; never panics.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new("begin", bytes);
        Ok(Self { common: position(&mut r)? })
    }
}

/// Payload: received, durable, applied (u64 each): how far the standby is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ack {
    /// In its memory.
    pub received: Seq,
    /// On its disk.
    pub durable: Seq,
    /// Visible in its store.
    pub applied: Seq,
}

impl Ack {
    /// The payload's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::default();
        w.u64(self.received.0).u64(self.durable.0).u64(self.applied.0);
        w.into_bytes()
    }

    /// Reads the payload.
    ///
    /// # Errors
    /// Any [`DecodeError`]; never panics.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new("ack", bytes);
        let mut entry = || r.number("entry of an ack").map(Seq);
        Ok(Self { received: entry()?, durable: entry()?, applied: entry()? })
    }
}

/// Decodes any bytes as a frame and its payload.
pub fn fuzz_frame(bytes: &[u8]) {
    let Ok(header) = FrameHeader::decode(bytes, FRAME_PAYLOAD_MAX) else { return };
    let payload = bytes.get(FRAME_HEADER..).unwrap_or_default();
    let _ = header.check(bytes, payload);
    match header.kind {
        FrameKind::Hello => drop(Hello::decode(payload)),
        FrameKind::Refuse => drop(Refuse::decode(payload)),
        FrameKind::Begin => drop(Begin::decode(payload)),
        FrameKind::Batch => super::batch::fuzz_batch(payload),
        FrameKind::Ack => drop(Ack::decode(payload)),
        FrameKind::Heartbeat => {}
        FrameKind::Handover => super::handover::fuzz_handover(payload),
        // Beside this one stands the decoder of these.
        FrameKind::CopyBegin | FrameKind::Want | FrameKind::Chunk | FrameKind::Rewind => {}
        FrameKind::Ask | FrameKind::Mark | FrameKind::Answer | FrameKind::Order | FrameKind::Report => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Prng;

    fn hello() -> Hello {
        Hello {
            version: 1,
            floor: 1,
            features: 0,
            pair: PairId([3; 16]),
            ordinal: Ordinal(1),
            role: Role::Standby,
            serving: false,
            end: Position { epoch: Epoch(2), seq: Seq(10), chain: Chain(5) },
            applied: Seq(9),
            table: vec![EpochMark { epoch: Epoch(2), first_seq: Seq(1), prev_chain: Chain(0) }],
            name: "b".to_owned(),
            known: Seq(0),
            relied_on: Seq(0),
            door: None,
            copied: false,
        }
    }

    fn frame() -> Vec<u8> {
        let payload = hello().encode();
        let fields = FrameFields { session: 8, number: 1, epoch: Epoch(2), ..FrameFields::default() };
        let mut bytes = encode_header(FrameKind::Hello, &fields, &payload).to_vec();
        bytes.extend_from_slice(&payload);
        bytes
    }

    #[test]
    fn a_hello_reads_back_as_it_was_written() {
        let bytes = frame();
        let header = FrameHeader::decode(&bytes, 4096).unwrap();
        assert_eq!(header.kind, FrameKind::Hello);
        header.check(&bytes, &bytes[FRAME_HEADER..]).unwrap();
        assert_eq!(Hello::decode(&bytes[FRAME_HEADER..]), Ok(hello()));
    }

    #[test]
    fn a_hello_of_this_version_is_read_by_version_1_up_to_its_name_and_unknown_fields_are_skipped() {
        let ours = Hello { version: 2, known: Seq(80), relied_on: Seq(81), ..hello() };
        let golden = include_bytes!("../../tests/data/hello-v2.bin");
        let mut bytes = ours.encode();
        assert_eq!(bytes, golden);
        assert_eq!(Hello::decode(&bytes), Ok(ours.clone()));
        // Version 1 read so much and looked no further.
        let old = hello().encode();
        assert_eq!(bytes[2..old.len()], old[2..]);
        bytes.extend_from_slice(&[200, 3, 0, 1, 2, 3]);
        assert_eq!(Hello::decode(&bytes), Ok(ours));
        for cut in old.len() + 1..golden.len() {
            assert!(Hello::decode(&golden[..cut]).is_err(), "cut at {cut}");
        }
        let many = [&old[..], &[200, 0, 0].repeat(HELLO_FIELDS_MAX + 1)].concat();
        let many = [&2_u16.to_le_bytes()[..], &many[2..]].concat();
        assert!(Hello::decode(&many).is_err());
    }

    #[test]
    fn numbers_that_nothing_can_follow_are_refused_by_name_in_every_frame() {
        let whole = Hello { version: 2, ..hello() }.encode();
        let last = u64::MAX.to_le_bytes();
        for at in [28, 36, 52, 64, 72, whole.len() - 16, whole.len() - 8] {
            let mut bytes = whole.clone();
            bytes[at..at + 8].copy_from_slice(&last);
            assert!(matches!(Hello::decode(&bytes), Err(DecodeError::Limit { .. })), "hello at {at}");
        }
        for at in [0, 8] {
            let mut bytes = Begin { common: hello().end }.encode();
            bytes[at..at + 8].copy_from_slice(&last);
            assert!(matches!(Begin::decode(&bytes), Err(DecodeError::Limit { .. })), "begin at {at}");
        }
        for fields in [
            FrameFields { epoch: Epoch(u64::MAX), ..FrameFields::default() },
            FrameFields { durable: Seq(u64::MAX), ..FrameFields::default() },
        ] {
            let bytes = encode_header(FrameKind::Heartbeat, &fields, &[]);
            assert!(matches!(FrameHeader::decode(&bytes, 0), Err(DecodeError::Limit { .. })));
        }
    }

    #[test]
    fn the_golden_frames_are_byte_for_byte_what_version_1_sent() {
        let golden = include_bytes!("../../tests/data/frames-v1.bin");
        let refuse = Refuse { code: RefuseCode::Epoch as u16, text: "behind".to_owned() };
        let begin = Begin { common: hello().end };
        let ack = Ack { received: Seq(12), durable: Seq(11), applied: Seq(10) };
        let batch = include_bytes!("../../tests/data/batch-v1.bin");
        let payloads = [
            (FrameKind::Hello, hello().encode()),
            (FrameKind::Refuse, refuse.encode()),
            (FrameKind::Begin, begin.encode()),
            (FrameKind::Batch, batch.to_vec()),
            (FrameKind::Ack, ack.encode()),
            (FrameKind::Heartbeat, Vec::new()),
        ];
        let mut rest = &golden[..];
        for (number, (kind, payload)) in (1..).zip(payloads) {
            let (epoch, durable) = (Epoch(2), Seq(7));
            let wall_ms = 1_700_000_000_000;
            let fields = FrameFields { session: 8, number, epoch, durable, credit: 1 << 25, wall_ms };
            let (head, behind) = rest.split_at(FRAME_HEADER);
            assert_eq!(encode_header(kind, &fields, &payload), head, "{kind:?}");
            let header = FrameHeader::decode(head, FRAME_PAYLOAD_MAX).unwrap();
            let told = (header.session, header.number, header.credit, header.wall_ms);
            assert_eq!(told, (8, number, 1 << 25, wall_ms));
            assert_eq!((header.kind, header.epoch, header.durable), (kind, epoch, durable));
            let (found, next) = behind.split_at(header.len as usize);
            assert_eq!(payload, found, "{kind:?}");
            if !kind.sums_itself() {
                header.check(head, found).unwrap();
            }
            match kind {
                FrameKind::Hello => assert_eq!(Hello::decode(found), Ok(hello())),
                FrameKind::Refuse => assert_eq!(Refuse::decode(found).as_ref(), Ok(&refuse)),
                FrameKind::Begin => assert_eq!(Begin::decode(found), Ok(begin)),
                FrameKind::Ack => assert_eq!(Ack::decode(found), Ok(ack)),
                FrameKind::Batch | FrameKind::Heartbeat => {}
                _ => unreachable!("none was sent"),
            }
            rest = next;
        }
        assert!(rest.is_empty());
    }

    #[test]
    fn a_hello_with_a_door_is_the_golden_one_and_reads_back_past_unknown_fields() {
        let golden = include_bytes!("../../tests/data/hello-door-v1.bin");
        let hello = Hello { door: Some("10.0.0.2:6379".parse().unwrap()), ..hello() };
        assert_eq!(hello.encode(), golden);
        assert_eq!(Hello::decode(golden), Ok(hello.clone()));
        let newer = [&golden[..], &[200, 3, 0, 1, 2, 3]].concat();
        assert_eq!(Hello::decode(&newer), Ok(hello.clone()), "fields of a newer program are skipped");
        assert!(Hello::decode(&newer[..newer.len() - 1]).is_err(), "a field that is cut off");
        let unreadable = [&Hello { door: None, ..hello.clone() }.encode()[..], &[2, 1, 0, b'x']].concat();
        assert_eq!(Hello::decode(&unreadable), Ok(Hello { door: None, ..hello }));
    }

    #[test]
    fn every_single_bit_flip_is_detected() {
        let good = frame();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let noticed = match FrameHeader::decode(&bad, 4096) {
                Err(_) => true,
                Ok(header) => {
                    header.kind != FrameKind::Batch && header.check(&bad, &bad[FRAME_HEADER..]).is_err()
                }
            };
            assert!(noticed, "bit {bit} went unnoticed");
        }
    }

    #[test]
    fn any_bytes_are_refused_without_a_panic() {
        let mut prng = Prng::new(3);
        let good = frame();
        for _ in 0..20_000 {
            let mut bytes = good.clone();
            for _ in 0..=prng.below(3) {
                let at = usize::try_from(prng.below(bytes.len() as u64)).unwrap();
                bytes[at] = u8::try_from(prng.below(256)).unwrap();
            }
            fuzz_frame(&bytes);
            let _ = Hello::decode(bytes.get(FRAME_HEADER..).unwrap());
            let _ = Refuse::decode(bytes.get(FRAME_HEADER..).unwrap());
        }
    }
}

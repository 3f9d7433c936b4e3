//! Frames of the tape socket: how the stream of a save set goes to the drive or the disk of another machine, and what the
//! receiver notes of a file that is not whole yet.
//!
//! ```text
//!   sender                         receiver
//!     | open (which stream)  ------->|  looks what it holds of it
//!     |<------- ready (from byte N)  |  or done, or refused
//!     | data, data, data ..  ------->|
//!     |<--------- counts (up to M)   |  the drive's or the disk's own word for all before M
//!     | end (length)         ------->|
//!     |<----------------- done       |  all of it counts, and has its name
//! ```
//!
//! The sender keeps what does not count. When a connection is cut it opens the same stream again, and goes on from where the
//! receiver says: nothing is taken twice, as each data frame says where it stands in the stream. A receiver that has nothing
//! to say repeats its last `counts`, so that silence means that it is gone.
//!
//! **Head**, 16 bytes
//!
//! | size | field |
//! |---|---|
//! | 4 | magic `HBts` |
//! | 4 | CRC32C of all that follows, to the end of the frame |
//! | 1 | `version` 1 |
//! | 1 | kind |
//! | 2 | zero |
//! | 4 | length of what follows the head, [`SOCKET_PAYLOAD_MAX`] at most |
//!
//! | kind | what follows |
//! |---|---|
//! | 1 open | 1: what it is: 1 a save set, 2 and 3 parts of the spool of the node with ordinal 0 and 1, 4 and 5 one of them, for a disk; 16 the stream (the number of the set); 16 pair; 8, 8 epoch and entry with which it begins; text: its name; text: the node |
//! | 2 ready | 8: the first byte that is wanted; 8: bytes that may be sent beyond what counts, [`SOCKET_WINDOW_MAX`] at most |
//! | 3 data | 8: its first byte; the bytes, [`SOCKET_BLOCK`] at most |
//! | 4 counts | 8: all before this byte |
//! | 5 end | 8: bytes of the stream |
//! | 6 done | 8: the same |
//! | 7 refused | 1: why; text: why, for people; text: what to do |
//! | 8 want, 9 gives | what is asked for, and what is given: [`super::asked`] |
//!
//! A text is a length (u16) and printable UTF-8, [`SOCKET_TEXT_MAX`] bytes at most. A name is one of [`is_stream_name`].
//!
//! **Note** beside a file that is not whole, 40 bytes: magic `HBtn`, CRC32C of what follows, `version` 1 (u16), zeros (6 bytes), the
//! stream (16), bytes of the file that count (u64).
//!
//! Golden file: `tests/data/socket-v1.bin`.

use super::asked::{Gives, Want};
use super::set::SetId;
use super::{DecodeError, PairId, Reader, Writer};
use crate::base::limits::{
    SOCKET_BLOCK, SOCKET_NAME_MAX, SOCKET_PAYLOAD_MAX, SOCKET_TEXT_MAX, SOCKET_WINDOW_MAX,
};
use crate::base::{Epoch, Ordinal, Seq, crc32c};
use bytes::Bytes;

const MAGIC: u32 = u32::from_le_bytes(*b"HBts");
const NOTE_MAGIC: u32 = u32::from_le_bytes(*b"HBtn");
const VERSION: u8 = 1;
/// Bytes of a frame's head.
pub const SOCKET_HEAD: usize = 16;
/// Bytes of a note.
pub const SOCKET_NOTE: usize = 40;
/// A save set.
const SET: u8 = 1;
/// Parts of the spool of the node with ordinal 0; one more of the one with ordinal 1.
const SPOOL: u8 = 2;
/// One part of the spool of the node with ordinal 0; one more of the one with ordinal 1.
const PART: u8 = 4;

/// What a stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamKind {
    /// A save set.
    Set,
    /// Parts of this node's spool, one behind the other.
    Spool(Ordinal),
    /// One part of this node's spool, for a disk.
    Part(Ordinal),
}

/// Which stream is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamOpen {
    /// What it is.
    pub kind: StreamKind,
    /// Its number; of a set that of the set.
    pub stream: SetId,
    /// The pair whose content it is.
    pub pair: PairId,
    /// The state with which it begins: epoch.
    pub epoch: Epoch,
    /// The state with which it begins: entry.
    pub seq: Seq,
    /// What it is called; see [`is_stream_name`].
    pub name: String,
    /// The node that was saved.
    pub node: String,
}

/// Why a receiver does not take a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is of another pair.
    Pair,
    /// The place takes another stream.
    InUse,
    /// The name is taken.
    Exists,
    /// The place takes nothing, or no more.
    Failed,
    /// What was sent cannot be taken, or what is asked for cannot be given.
    Unfit,
    /// What is asked for is not there.
    Missing,
}

impl Refused {
    const ALL: [Self; 6] = [Self::Pair, Self::InUse, Self::Exists, Self::Failed, Self::Unfit, Self::Missing];

    fn byte(self) -> u8 {
        match self {
            Self::Pair => 1,
            Self::InUse => 2,
            Self::Exists => 3,
            Self::Failed => 4,
            Self::Unfit => 5,
            Self::Missing => 6,
        }
    }
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketFrame {
    /// Which stream comes.
    Open(StreamOpen),
    /// From where on it is wanted.
    Ready {
        /// The first byte that is wanted.
        from: u64,
        /// So much may be sent beyond what counts (bytes).
        window: u64,
    },
    /// A part of it.
    Data {
        /// Its first byte.
        offset: u64,
        /// The bytes.
        bytes: Bytes,
    },
    /// All before this byte counts.
    Counts {
        /// The first byte that does not.
        up_to: u64,
    },
    /// All was sent.
    End {
        /// Bytes of the stream.
        bytes: u64,
    },
    /// All counts.
    Done {
        /// Bytes of the stream.
        bytes: u64,
    },
    /// It is not taken.
    Refused {
        /// Why.
        why: Refused,
        /// The same, for people.
        message: String,
        /// What to do, for people.
        next: String,
    },
    /// Something is wanted.
    Want(Want),
    /// It comes.
    Gives(Gives),
}

/// Whether a stream may be called so: letters, digits, `.`, `_` and `-`, no `.` in front, [`SOCKET_NAME_MAX`] bytes at most. It
/// names a file in one directory, and never a path.
#[must_use]
pub fn is_stream_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    (1..=SOCKET_NAME_MAX).contains(&name.len()) && name.bytes().all(plain) && !name.starts_with('.')
}

/// Whether a text names another machine as a place (`tcp:HOST:PORT`).
#[must_use]
pub fn is_socket_place(text: &str) -> bool {
    let place = text.strip_prefix("tcp:").and_then(|place| place.rsplit_once(':'));
    place.is_some_and(|(host, port)| {
        !host.is_empty() && !host.contains('/') && port.parse::<u16>().is_ok_and(|port| port > 0)
    })
}

impl SocketFrame {
    /// As it is sent.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut w = Writer::with_capacity(128);
        w.u32(MAGIC).u32(0).u8(VERSION).u8(self.kind()).u16(0).u32(0);
        match self {
            Self::Open(open) => {
                let kind = match open.kind {
                    StreamKind::Set => SET,
                    StreamKind::Spool(ordinal) => SPOOL + ordinal.0.min(1),
                    StreamKind::Part(ordinal) => PART + ordinal.0.min(1),
                };
                w.u8(kind).put(&open.stream.0).put(&open.pair.0).u64(open.epoch.0).u64(open.seq.0);
                w.text(cut(&open.name)).text(cut(&open.node));
            }
            Self::Ready { from, window } => {
                w.u64(*from).u64(*window);
            }
            Self::Data { offset, bytes } => {
                w.u64(*offset).put(bytes);
            }
            Self::Counts { up_to: bytes } | Self::End { bytes } | Self::Done { bytes } => {
                w.u64(*bytes);
            }
            Self::Refused { why, message, next } => {
                w.u8(why.byte()).text(cut(message)).text(cut(next));
            }
            Self::Want(want) => want.put(&mut w),
            Self::Gives(gives) => gives.put(&mut w),
        }
        let mut bytes = w.into_bytes();
        let len = u32::try_from(bytes.len() - SOCKET_HEAD).unwrap_or(u32::MAX);
        seal(&mut bytes, Some(len));
        bytes.into()
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Open(_) => 1,
            Self::Ready { .. } => 2,
            Self::Data { .. } => 3,
            Self::Counts { .. } => 4,
            Self::End { .. } => 5,
            Self::Done { .. } => 6,
            Self::Refused { .. } => 7,
            Self::Want(_) => 8,
            Self::Gives(_) => 9,
        }
    }

    /// How many bytes a frame takes in all, of its head.
    ///
    /// # Errors
    /// [`DecodeError`]: the sender is something else, or another version.
    pub fn len_of(head: &[u8; SOCKET_HEAD]) -> Result<usize, DecodeError> {
        let mut r = Reader::new("frame of a tape socket", head);
        let magic = r.u32()?;
        r.expect("magic of a tape socket", u64::from(MAGIC), u64::from(magic))?;
        r.u32()?;
        let version = r.u8()?;
        r.expect("version of a tape socket", u64::from(VERSION), u64::from(version))?;
        r.u8()?;
        let zero = r.u16()?;
        r.expect("reserved bytes of a tape socket", 0, u64::from(zero))?;
        let len = r.u32()? as usize;
        if len > SOCKET_PAYLOAD_MAX {
            let (limit, found) = (SOCKET_PAYLOAD_MAX as u64, len as u64);
            return Err(DecodeError::Limit { what: "length of a frame of a tape socket", limit, found });
        }
        Ok(SOCKET_HEAD + len)
    }

    /// Reads one whole frame.
    ///
    /// # Errors
    /// Any [`DecodeError`]; never panics.
    pub fn decode(frame: &Bytes) -> Result<Self, DecodeError> {
        let what = "frame of a tape socket";
        let mut r = Reader::new(what, frame);
        let head: [u8; SOCKET_HEAD] = r.array()?;
        let len = Self::len_of(&head)? - SOCKET_HEAD;
        r.expect("bytes of a frame of a tape socket", len as u64, r.rest().len() as u64)?;
        check_seal(what, frame)?;
        let [.., kind, _, _, _, _, _, _] = head;
        let this = match kind {
            1 => Self::Open(open(&mut r)?),
            2 => Self::Ready { from: r.number("byte of a stream")?, window: window(&mut r)? },
            3 => {
                let offset = r.number("byte of a stream")?;
                let found = r.rest().len();
                if found > SOCKET_BLOCK {
                    let limit = SOCKET_BLOCK as u64;
                    let what = "data of a tape socket";
                    return Err(DecodeError::Limit { what, limit, found: found as u64 });
                }
                return Ok(Self::Data { offset, bytes: frame.slice_ref(r.rest()) });
            }
            4 => Self::Counts { up_to: r.number("byte of a stream")? },
            5 => Self::End { bytes: r.number("bytes of a stream")? },
            6 => Self::Done { bytes: r.number("bytes of a stream")? },
            7 => {
                let byte = r.u8()?;
                let unknown = DecodeError::Field {
                    what: "reason of a refusal",
                    expected: Refused::ALL.len() as u64,
                    found: byte.into(),
                };
                let why = Refused::ALL.into_iter().find(|why| why.byte() == byte).ok_or(unknown)?;
                let message = r.text(SOCKET_TEXT_MAX)?.to_owned();
                Self::Refused { why, message, next: r.text(SOCKET_TEXT_MAX)?.to_owned() }
            }
            8 => Self::Want(Want::take(&mut r)?),
            9 => Self::Gives(Gives::take(&mut r)?),
            other => {
                let (what, expected) = ("kind of a frame of a tape socket", 9);
                return Err(DecodeError::Field { what, expected, found: other.into() });
            }
        };
        r.expect("bytes behind a frame of a tape socket", 0, r.rest().len() as u64)?;
        Ok(this)
    }
}

fn open(r: &mut Reader<'_>) -> Result<StreamOpen, DecodeError> {
    let kind = match r.u8()? {
        SET => StreamKind::Set,
        found @ (SPOOL | 3) => StreamKind::Spool(Ordinal(found - SPOOL)),
        found @ (PART | 5) => StreamKind::Part(Ordinal(found - PART)),
        found => {
            return Err(DecodeError::Field { what: "kind of a stream", expected: 5, found: found.into() });
        }
    };
    let (stream, pair) = (SetId(r.array()?), PairId(r.array()?));
    let (epoch, seq) = (Epoch(r.number("epoch of a stream")?), Seq(r.number("entry of a stream")?));
    let name = r.text(SOCKET_TEXT_MAX)?.to_owned();
    if !is_stream_name(&name) {
        return Err(DecodeError::Text { what: "name of a stream" });
    }
    Ok(StreamOpen { kind, stream, pair, epoch, seq, name, node: r.text(SOCKET_TEXT_MAX)?.to_owned() })
}

fn window(r: &mut Reader<'_>) -> Result<u64, DecodeError> {
    match r.u64()? {
        found if found > SOCKET_WINDOW_MAX => {
            Err(DecodeError::Limit { what: "window of a stream", limit: SOCKET_WINDOW_MAX, found })
        }
        window => Ok(window),
    }
}

/// Sets the length, if there is one, then the checksum.
fn seal(bytes: &mut [u8], len: Option<u32>) {
    if let Some((field, len)) = bytes.get_mut(12..16).zip(len) {
        field.copy_from_slice(&len.to_le_bytes());
    }
    let crc = crc32c(bytes.get(8..).unwrap_or_default());
    if let Some(field) = bytes.get_mut(4..8) {
        field.copy_from_slice(&crc.to_le_bytes());
    }
}

fn check_seal(what: &'static str, bytes: &[u8]) -> Result<(), DecodeError> {
    let mut r = Reader::new(what, bytes);
    r.u32()?;
    let (found, computed) = (r.u32()?, crc32c(bytes.get(8..).unwrap_or_default()));
    if found == computed { Ok(()) } else { Err(DecodeError::Checksum { what, found, computed }) }
}

/// What is printable of a text, as much as may be sent.
fn cut(text: &str) -> &str {
    let end = (0..=text.len().min(SOCKET_TEXT_MAX)).rev().find(|at| text.is_char_boundary(*at));
    text.get(..end.unwrap_or(0)).unwrap_or_default()
}

/// How far a file is that is not whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamNote {
    /// The stream.
    pub stream: SetId,
    /// Bytes of the file that count.
    pub counts: u64,
}

impl StreamNote {
    /// The file's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::with_capacity(SOCKET_NOTE);
        w.u32(NOTE_MAGIC).u32(0).u16(VERSION.into()).u16(0).u32(0).put(&self.stream.0).u64(self.counts);
        let mut bytes = w.into_bytes();
        seal(&mut bytes, None);
        bytes
    }

    /// Reads the file's bytes.
    ///
    /// # Errors
    /// Any [`DecodeError`]; never panics.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let what = "note of a stream";
        let mut r = Reader::new(what, bytes);
        let magic = r.u32()?;
        r.expect("magic of a note", u64::from(NOTE_MAGIC), u64::from(magic))?;
        check_seal(what, bytes)?;
        r.u32()?;
        let version = r.u16()?;
        r.expect("version of a note", u64::from(VERSION), u64::from(version))?;
        let zero = u64::from(r.u16()?) | u64::from(r.u32()?);
        r.expect("reserved bytes of a note", 0, zero)?;
        let this = Self { stream: SetId(r.array()?), counts: r.number("bytes of a stream")? };
        r.expect("bytes behind a note", 0, r.rest().len() as u64)?;
        Ok(this)
    }
}

/// Decodes any bytes as a frame and as a note.
///
/// # Panics
/// If what is taken does not read back as it was.
pub fn fuzz_socket(bytes: &[u8]) {
    if let Some(head) = bytes.first_chunk() {
        let _ = SocketFrame::len_of(head);
    }
    if let Ok(frame) = SocketFrame::decode(&Bytes::copy_from_slice(bytes)) {
        assert_eq!(frame.encode(), bytes);
    }
    if let Ok(note) = StreamNote::decode(bytes) {
        assert_eq!(note.encode(), bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Prng;

    fn all() -> Vec<SocketFrame> {
        let open = StreamOpen {
            kind: StreamKind::Set,
            stream: SetId([7; 16]),
            pair: PairId([9; 16]),
            epoch: Epoch(3),
            seq: Seq(81),
            name: "monday-1.a".to_owned(),
            node: "a".to_owned(),
        };
        let spool = StreamOpen { kind: StreamKind::Spool(Ordinal(1)), ..open.clone() };
        vec![
            SocketFrame::Open(open),
            SocketFrame::Open(spool),
            SocketFrame::Ready { from: 5 << 20, window: 64 << 20 },
            SocketFrame::Data { offset: 5 << 20, bytes: Bytes::from_static(b"a part of a set") },
            SocketFrame::Counts { up_to: 6 << 20 },
            SocketFrame::End { bytes: 7 << 20 },
            SocketFrame::Done { bytes: 7 << 20 },
            SocketFrame::Refused {
                why: Refused::InUse,
                message: "it takes another one".to_owned(),
                next: "wait for its end".to_owned(),
            },
        ]
    }

    fn note() -> StreamNote {
        StreamNote { stream: SetId([7; 16]), counts: 6 << 20 }
    }

    #[test]
    fn the_golden_frames_are_byte_for_byte_what_this_version_sends_and_read_back() {
        let mut found: Vec<u8> = all().iter().flat_map(|frame| frame.encode().to_vec()).collect();
        found.extend_from_slice(&note().encode());
        assert!(found == include_bytes!("../../tests/data/socket-v1.bin"), "it differs");
        for frame in all() {
            let bytes = frame.encode();
            assert_eq!(SocketFrame::len_of(bytes.first_chunk().unwrap()), Ok(bytes.len()));
            assert_eq!(SocketFrame::decode(&bytes), Ok(frame));
            for end in 0..bytes.len() {
                assert!(SocketFrame::decode(&bytes.slice(..end)).is_err());
            }
        }
        assert_eq!(StreamNote::decode(&note().encode()), Ok(note()));
    }

    #[test]
    fn every_bit_of_a_frame_and_of_a_note_counts() {
        let frames = all().into_iter().chain(crate::format::asked::tests::frames());
        for good in frames.map(|frame| frame.encode().to_vec()).chain([note().encode()]) {
            for bit in 0..good.len() * 8 {
                let mut bad = good.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert!(SocketFrame::decode(&bad.clone().into()).is_err(), "bit {bit}");
                assert!(StreamNote::decode(&bad).is_err(), "bit {bit}");
            }
        }
    }

    #[test]
    fn a_name_is_never_a_path_and_what_claims_too_much_is_refused_before_it_is_taken() {
        assert!(["a", "monday.1", "A-b_c", &"x".repeat(64)].into_iter().all(is_stream_name));
        for bad in ["", ".", "..", ".a", "a/b", "a b", "ä", "a\0", &"x".repeat(65)] {
            assert!(!is_stream_name(bad), "{bad:?}");
        }
        let frame = |frame: &SocketFrame| SocketFrame::decode(&frame.encode()).unwrap_err().to_string();
        let SocketFrame::Open(open) = all().remove(0) else { panic!("it opens") };
        let error = frame(&SocketFrame::Open(StreamOpen { name: "../x".to_owned(), ..open }));
        assert_eq!(error, "name of a stream: not printable text");
        let error = frame(&SocketFrame::Ready { from: 0, window: SOCKET_WINDOW_MAX + 1 });
        assert!(error.starts_with("window of a stream"), "{error}");
        let bytes = vec![0; SOCKET_BLOCK + 1].into();
        let error = frame(&SocketFrame::Data { offset: 0, bytes });
        assert!(error.starts_with("length of a frame of a tape socket"), "{error}");
        let mut head = *all()[4].encode().first_chunk::<SOCKET_HEAD>().unwrap();
        head[12..].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(SocketFrame::len_of(&head).unwrap_err().to_string().contains("over the limit"));
        head[8] = 2;
        assert!(SocketFrame::len_of(&head).unwrap_err().to_string().starts_with("version"));
    }

    #[test]
    fn any_bytes_are_taken_without_a_panic() {
        let mut prng = Prng::new(11);
        let frames = all().into_iter().chain(crate::format::asked::tests::frames());
        for good in frames.map(|frame| frame.encode().to_vec()).chain([note().encode()]) {
            for _ in 0..5_000 {
                let mut bytes = good.clone();
                let at = usize::try_from(prng.below(bytes.len() as u64)).unwrap();
                bytes[at] = u8::try_from(prng.below(256)).unwrap();
                let sized = at >= SOCKET_HEAD && bytes.starts_with(b"HBts");
                let len = sized.then(|| u32::try_from(bytes.len() - SOCKET_HEAD).unwrap());
                seal(&mut bytes, len);
                fuzz_socket(&bytes);
                fuzz_socket(&bytes[..at]);
            }
        }
    }
}

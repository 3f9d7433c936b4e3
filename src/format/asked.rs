//! What is asked of a listener of a tape socket, and what it gives: a save set, or what one holds; parts of a spool.
//!
//! ```text
//!   who asks                       listener
//!     | want (which stream)  ------->|  looks what it has
//!     |<------ gives (which, length) |  or refused
//!     |<--------------- data, data ..|  up to what may be sent; no bytes: it is there, and waits for its drive
//!     | counts (up to M)     ------->|  so much may be sent
//!     |<----------------- done       |  that was all; something else may be wanted then
//! ```
//!
//! A connection that was cut is made again, and the same stream is wanted from the byte on that is lacking. Frames are those of
//! [`super::socket`].
//!
//! **Want** (kind 8)
//!
//! | size | field |
//! |---|---|
//! | 1 | what: 1 what a set holds, 2 a set, 3 a set past what cannot be read; of the spool of the node with ordinal 0 or 1: 4, 5 its parts, 6, 7 a part, 8, 9 nobody needs a part any more |
//! | 16 | pair, of a spool; else zero |
//! | 16 | number of the set; zero is the one that is named, or the newest |
//! | 1, 8 | 1 and the file whose content alone is needed, or 0 and 0 |
//! | 8 | the first byte that is wanted |
//! | 8 | the byte behind the last one that may be sent now |
//! | 8 | the byte behind the last one that is wanted; 0 is all |
//! | text | its name, or nothing |
//!
//! **Gives** (kind 9): 1: whether content of other files is left out; 16: number of the set; 8: bytes of the stream, 0 if that is
//! not known; 8: bytes that the disk of a spool has left.
//!
//! **What a set holds**: the first part's head (64), length and bytes of the beginning, length and bytes of the trailer
//! (lengths u32, unpacked), 8: bytes of all parts, 4: files.
//!
//! **The parts of a spool**: 4: how many; of each its record of the index (108), 4: the reel on which it begins, 0 on a disk,
//! 1: whether nobody needs it any more; 4: how many files are none although they are called so; of each text: its name, text: why.
//!
//! Golden file: `tests/data/asked-v1.bin`.

use super::set::{PART_HEADER, PartHeader, SetBegin, SetId, Trailer};
use super::socket::is_stream_name;
use super::spool::{self, INDEX_RECORD};
use super::{DecodeError, PairId, Reader, Writer};
use crate::base::limits::{SOCKET_NAME_MAX, SOCKET_TEXT_MAX, SPOOL_PARTS_MAX};
use crate::base::{FileId, Ordinal};
use bytes::Bytes;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// What a set holds.
    Contents,
    /// A set.
    Set,
    /// A set, past what cannot be read of it.
    Lenient,
    /// Which parts the spool of this node has.
    Parts(Ordinal),
    /// One of them.
    Part(Ordinal),
    /// Nobody needs one any more.
    LetGo(Ordinal),
}

impl Asked {
    fn byte(self) -> u8 {
        match self {
            Self::Contents => 1,
            Self::Set => 2,
            Self::Lenient => 3,
            Self::Parts(of) => 4 + of.0.min(1),
            Self::Part(of) => 6 + of.0.min(1),
            Self::LetGo(of) => 8 + of.0.min(1),
        }
    }

    fn of(byte: u8) -> Result<Self, DecodeError> {
        Ok(match byte {
            1 => Self::Contents,
            2 => Self::Set,
            3 => Self::Lenient,
            4 | 5 => Self::Parts(Ordinal(byte - 4)),
            6 | 7 => Self::Part(Ordinal(byte - 6)),
            8 | 9 => Self::LetGo(Ordinal(byte - 8)),
            found => {
                let what = "what is asked of a tape socket";
                return Err(DecodeError::Field { what, expected: 9, found: found.into() });
            }
        })
    }
}

/// Something is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    /// What.
    pub what: Asked,
    /// Of a spool: its pair.
    pub pair: PairId,
    /// The number of the set; zero is the one that is named, or the newest.
    pub stream: SetId,
    /// Only what this file needs.
    pub only: Option<FileId>,
    /// The first byte.
    pub from: u64,
    /// Behind the last byte that may be sent now.
    pub up_to: u64,
    /// Behind the last byte; 0 is all.
    pub end: u64,
    /// Its name; empty if it has none.
    pub name: String,
}

impl Want {
    /// Of a kind, with nothing said about which.
    #[must_use]
    pub fn of(what: Asked) -> Self {
        let (pair, stream, name) = (PairId([0; 16]), SetId([0; 16]), String::new());
        Self { what, pair, stream, only: None, from: 0, up_to: 0, end: 0, name }
    }

    pub(super) fn put(&self, w: &mut Writer) {
        w.u8(self.what.byte()).put(&self.pair.0).put(&self.stream.0).u8(self.only.is_some().into());
        w.u64(self.only.map_or(0, |file| file.0)).u64(self.from).u64(self.up_to).u64(self.end);
        w.text(&self.name);
    }

    pub(super) fn take(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let what = Asked::of(r.u8()?)?;
        let (pair, stream) = (PairId(r.array()?), SetId(r.array()?));
        let (some, file) = (flag(r, "whether one file is wanted")?, r.number("file that is wanted")?);
        if !some {
            r.expect("file where none is wanted", 0, file)?;
        }
        let byte = "byte of a stream";
        let (from, up_to, end) = (r.number(byte)?, r.number(byte)?, r.number(byte)?);
        let name = r.text(SOCKET_NAME_MAX)?.to_owned();
        if !name.is_empty() && !is_stream_name(&name) {
            return Err(DecodeError::Text { what: "name of a stream" });
        }
        Ok(Self { what, pair, stream, only: some.then_some(FileId(file)), from, up_to, end, name })
    }
}

/// It is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gives {
    /// Content of other files is left out.
    pub gaps: bool,
    /// The number of the set.
    pub stream: SetId,
    /// Bytes of the stream; 0 if that is not known.
    pub bytes: u64,
    /// Bytes that the disk of a spool has left.
    pub free: u64,
}

impl Gives {
    pub(super) fn put(&self, w: &mut Writer) {
        w.u8(self.gaps.into()).put(&self.stream.0).u64(self.bytes).u64(self.free);
    }

    pub(super) fn take(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (gaps, stream) = (flag(r, "whether content is left out")?, SetId(r.array()?));
        Ok(Self { gaps, stream, bytes: r.number("bytes of a stream")?, free: r.u64()? })
    }
}

fn flag(r: &mut Reader<'_>, what: &'static str) -> Result<bool, DecodeError> {
    match r.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        found => Err(DecodeError::Field { what, expected: 1, found: found.into() }),
    }
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

/// What a set says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetSummary {
    /// The first part's head.
    pub header: PartHeader,
    /// Its beginning.
    pub begin: SetBegin,
    /// Its end.
    pub trailer: Trailer,
    /// Bytes of all parts.
    pub bytes: u64,
    /// Files.
    pub parts: u32,
}

impl SetSummary {
    /// Its bytes.
    ///
    /// # Errors
    /// [`DecodeError::Limit`] where there are more definitions than fit.
    pub fn encode(&self) -> Result<Vec<u8>, DecodeError> {
        let (begin, trailer) = (self.begin.encode()?, self.trailer.encode());
        let mut w = Writer::with_capacity(PART_HEADER + begin.len() + trailer.len() + 32);
        w.put(&self.header.encode());
        w.u32(length(&begin)).put(&begin).u32(length(&trailer)).put(&trailer);
        w.u64(self.bytes).u32(self.parts);
        Ok(w.into_bytes())
    }

    /// Reads it.
    ///
    /// # Errors
    /// Any [`DecodeError`]; never panics.
    pub fn decode(bytes: &Bytes) -> Result<Self, DecodeError> {
        let mut r = Reader::new("summary of a save set", bytes);
        let header = PartHeader::decode(r.take(PART_HEADER)?)?;
        let len = r.u32()? as usize;
        let begin = SetBegin::decode(&bytes.slice_ref(r.take(len)?), header.since)?;
        let len = r.u32()? as usize;
        let trailer = Trailer::decode(r.take(len)?)?;
        let this = Self { header, begin, trailer, bytes: r.number("bytes of a save set")?, parts: r.u32()? };
        r.expect("bytes behind the summary of a save set", 0, r.rest().len() as u64)?;
        Ok(this)
    }
}

/// A part of a spool, where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartThere {
    /// The part.
    pub header: spool::PartHeader,
    /// The reel on which it begins; 0 on a disk.
    pub reel: u32,
    /// Nobody needs it any more.
    pub let_go: bool,
}

/// What a spool holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartsThere {
    /// Its parts.
    pub parts: Vec<PartThere>,
    /// Names of files that are none, and why.
    pub damaged: Vec<(String, String)>,
}

/// What is printable of a text, so much as may be sent.
fn brief(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut cut = String::new();
    for c in plain {
        if cut.len() + c.len_utf8() > SOCKET_TEXT_MAX {
            break;
        }
        cut.push(c);
    }
    cut
}

impl PartsThere {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::with_capacity(16 + self.parts.len() * (INDEX_RECORD + 5));
        let parts = self.parts.get(..SPOOL_PARTS_MAX).unwrap_or(&self.parts);
        w.u32(u32::try_from(parts.len()).unwrap_or(u32::MAX));
        for part in parts {
            w.put(&part.header.record()).u32(part.reel).u8(part.let_go.into());
        }
        let damaged = self.damaged.get(..SPOOL_PARTS_MAX).unwrap_or(&self.damaged);
        w.u32(u32::try_from(damaged.len()).unwrap_or(u32::MAX));
        for (name, why) in damaged {
            w.text(&brief(name)).text(&brief(why));
        }
        w.into_bytes()
    }

    /// Reads it.
    ///
    /// # Errors
    /// Any [`DecodeError`]; never panics.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new("parts of a spool", bytes);
        let mut this = Self::default();
        let count = limited(&mut r)?;
        this.parts.reserve(count.min(r.rest().len() / (INDEX_RECORD + 5)));
        for _ in 0..count {
            let header = spool::PartHeader::of_record(r.take(INDEX_RECORD)?)?;
            let (reel, let_go) = (r.u32()?, flag(&mut r, "whether a part is needed")?);
            this.parts.push(PartThere { header, reel, let_go });
        }
        for _ in 0..limited(&mut r)? {
            let name = r.text(SOCKET_TEXT_MAX)?.to_owned();
            this.damaged.push((name, r.text(SOCKET_TEXT_MAX)?.to_owned()));
        }
        r.expect("bytes behind the parts of a spool", 0, r.rest().len() as u64)?;
        Ok(this)
    }
}

fn limited(r: &mut Reader<'_>) -> Result<usize, DecodeError> {
    match r.u32()? as usize {
        found if found > SPOOL_PARTS_MAX => {
            let (limit, found) = (SPOOL_PARTS_MAX as u64, found as u64);
            Err(DecodeError::Limit { what: "parts of a spool", limit, found })
        }
        count => Ok(count),
    }
}

/// Decodes any bytes as a summary of a set and as a list of parts.
///
/// # Panics
/// If what is taken does not read back as it was.
pub fn fuzz_asked(bytes: &[u8]) {
    if let Ok(summary) = SetSummary::decode(&Bytes::copy_from_slice(bytes)) {
        let again = summary.encode().expect("it fitted");
        assert_eq!(SetSummary::decode(&again.into()), Ok(summary));
    }
    if let Ok(parts) = PartsThere::decode(bytes) {
        assert_eq!(PartsThere::decode(&parts.encode()), Ok(parts));
    }
}

#[cfg(test)]
pub(in crate::format) mod tests {
    use super::*;
    use crate::base::{Chain, Epoch, Position, Prng, SegmentIndex, Seq};
    use crate::format::socket::SocketFrame;

    /// A frame of each kind.
    pub(in crate::format) fn frames() -> Vec<SocketFrame> {
        let set = Want {
            stream: SetId([7; 16]),
            only: Some(FileId(12)),
            from: 5 << 20,
            up_to: 6 << 20,
            name: "monday-1.a".to_owned(),
            ..Want::of(Asked::Lenient)
        };
        let part = Want { pair: PairId([9; 16]), end: 4096, ..Want::of(Asked::Part(Ordinal(1))) };
        let all = [Asked::Contents, Asked::Set, Asked::Parts(Ordinal(0)), Asked::LetGo(Ordinal(1))];
        let gives = Gives { gaps: true, stream: SetId([7; 16]), bytes: 7 << 20, free: 9 << 30 };
        let open = crate::format::socket::StreamOpen {
            kind: crate::format::socket::StreamKind::Part(Ordinal(1)),
            stream: SetId([7; 16]),
            pair: PairId([9; 16]),
            epoch: Epoch(3),
            seq: Seq(81),
            name: "00000000000000000082-0000000004-0000000000000007.hbp".to_owned(),
            node: "ordinal 1".to_owned(),
        };
        let wants = [set, part].into_iter().chain(all.map(Want::of)).map(SocketFrame::Want);
        wants.chain([SocketFrame::Gives(gives), SocketFrame::Open(open)]).collect()
    }

    fn summary() -> SetSummary {
        let bytes = include_bytes!("../../tests/data/set-v1.hbs");
        let end = Position { epoch: Epoch(1), seq: Seq(81), chain: Chain(7) };
        let file = crate::format::set::SetFile {
            id: FileId(3),
            blocks: false,
            items: 2,
            bytes: 20,
            name: "app,orders".to_owned(),
        };
        SetSummary {
            header: PartHeader::decode(&bytes[..PART_HEADER]).unwrap(),
            begin: SetBegin {
                base: None,
                role: crate::format::control::Role::Primary,
                node: "a".to_owned(),
                account: String::new(),
                left_out: vec!["app,scratch".to_owned()],
                copy: crate::format::chunk::CopyBegin::default(),
            },
            trailer: Trailer {
                end,
                wall_ms: 1_700_000_000_000,
                counts: crate::format::set::Counts { batches: 1, chunks: 2, items: 2, bytes: 20 },
                digest: [5; 32],
                files: vec![file],
                alone: None,
            },
            bytes: bytes.len() as u64,
            parts: 1,
        }
    }

    fn parts() -> PartsThere {
        let at = |seq| Position { epoch: Epoch(1), seq: Seq(seq), chain: Chain(seq) };
        let header = |seq| spool::PartHeader {
            pair: PairId([9; 16]),
            ordinal: Ordinal(1),
            index: SegmentIndex(4),
            base: at(seq),
            end: at(seq + 10),
            bytes: 8192,
            wall_ms: 1_700_000_000_000,
        };
        PartsThere {
            parts: vec![
                PartThere { header: header(10), reel: 0, let_go: false },
                PartThere { header: header(20), reel: 2, let_go: true },
            ],
            damaged: vec![("x.hbp".to_owned(), "it is short".to_owned())],
        }
    }

    #[test]
    fn the_golden_bytes_are_what_this_version_sends_and_read_back() {
        let mut found: Vec<u8> = frames().iter().flat_map(|frame| frame.encode().to_vec()).collect();
        found.extend_from_slice(&summary().encode().unwrap());
        found.extend_from_slice(&parts().encode());
        assert!(found == include_bytes!("../../tests/data/asked-v1.bin"), "it differs");
        for frame in frames() {
            assert_eq!(SocketFrame::decode(&frame.encode()), Ok(frame));
        }
        assert_eq!(SetSummary::decode(&summary().encode().unwrap().into()), Ok(summary()));
        assert_eq!(PartsThere::decode(&parts().encode()), Ok(parts()));
    }

    #[test]
    fn what_is_cut_off_or_claims_too_much_is_refused() {
        let summary = Bytes::from(summary().encode().unwrap());
        (0..summary.len())
            .for_each(|end| assert!(SetSummary::decode(&summary.slice(..end)).is_err(), "{end}"));
        let parts = parts().encode();
        (0..parts.len()).for_each(|end| assert!(PartsThere::decode(&parts[..end]).is_err(), "{end}"));
        let mut many = parts.clone();
        many[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(PartsThere::decode(&many).unwrap_err().to_string().contains("over the limit"));
        let bad =
            |want: Want| SocketFrame::decode(&SocketFrame::Want(want).encode()).unwrap_err().to_string();
        let named = Want { name: "../x".to_owned(), ..Want::of(Asked::Set) };
        assert_eq!(bad(named), "name of a stream: not printable text");
        let long = Want { name: "x".repeat(SOCKET_NAME_MAX + 1), ..Want::of(Asked::Set) };
        assert!(bad(long).contains("over the limit"));
    }

    #[test]
    fn any_bytes_are_taken_without_a_panic() {
        let mut prng = Prng::new(12);
        for good in [summary().encode().unwrap(), parts().encode()] {
            for _ in 0..5_000 {
                let mut bytes = good.clone();
                let at = usize::try_from(prng.below(bytes.len() as u64)).unwrap();
                bytes[at] = u8::try_from(prng.below(256)).unwrap();
                fuzz_asked(&bytes);
                fuzz_asked(&bytes[..at]);
            }
        }
    }
}

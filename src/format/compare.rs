//! What two nodes say to each other to compare what they hold, and what is kept of it.
//!
//! The standby asks for a **look** at a range. The primary chooses the entry at which both look, and says so by a mark that
//! stands directly behind the batch that ends there. Then both look at the same moment of the same history, each for itself:
//! neither stream nor updates wait for the other one's disk.
//!
//! ```text
//!   standby                                   primary
//!     | Ask 7: digest of file 4 behind `k`      |
//!     |---------------------------------------->|   its store is given entry 130, and then looks
//!     | batches .. 130                          |
//!     |<----------------------------------------|
//!     | Mark 7: behind `k`, at 130              |
//!     |<----------------------------------------|
//!     |   applies 130, and then looks           |
//!     | Answer 7: what it digests to            |
//!     |<----------------------------------------|
//! ```
//!
//! **What is hashed** (blake3), [`digest`]: a byte for the kind (1 items, 2 blocks). Then of each item of the range, in order:
//! length of the id u16, id, length of the value u32, value. Of blocks, each 4 KiB block that is not all zeros: offset u64,
//! content. So a hole and zeros are alike. Details name each part (an item by its id, a block by its offset as 8 bytes,
//! big-endian) with the first 16 bytes of the hash of its value. File 0 stands for the definitions: an item for each
//! replicated file, under its id as 8 bytes, big-endian.
//!
//! **Span**: u8 1 items: after (u16, id), through (u16, id; empty to the end); 2 blocks: offset u64, length u64 (a TiB at most;
//! 32 MiB to a peer without [`FEATURE_DIGESTS`](super::frame::FEATURE_DIGESTS)); 3 behind what an ask before it reached: its
//! id u64; 4 what a read command of the RESP door answers (u16, the command), with the feature for listings: its details name
//! each line by at most 240 bytes, a zero, and u16 (big-endian) how often it came before. A long span of blocks is looked at as
//! far as its hole goes, or for as much as is asked for.
//!
//! | frame | fields |
//! |---|---|
//! | Ask | id u64, at u64 (0: whoever answers chooses), file u64, u8 1 digest 2 details 3 content, most u32, span |
//! | Mark | id u64, at u64, span |
//! | Answer | crc u32, id u64, at u64, u8: 0 no such file, 1 digest, 2 details, 3 content, 4 cannot be read, 5 nothing is behind it; then |
//! | .. digest | reached (u8 0 the end of the span, 1 and u16, id), count u32, bytes u64, hash 32 |
//! | .. details | reached, count u32, of each: u16, name, hash 16 |
//! | .. content | u32, a chunk ([`super::chunk`]) |
//! | Order | u8 1 begin 2 stop, u8 1 repair, u8 1 dry run, rate u64 (`u64::MAX`: the config's), name (text; a command behind `?`) |
//! | Report | crc u32, u8 1 under way, done u64, total u64, a certificate |
//!
//! **Certificate**, which also is a file of the node
//!
//! | size | field |
//! |---|---|
//! | 4, 4 | `magic` `HBd1`, CRC32C of all that follows |
//! | 2 | `version` 1 |
//! | 1, 1 | 1 came to its end; 1 was to repair |
//! | 8, 8 | `began_ms`, `ended_ms` (milliseconds since 1970) |
//! | 8, 8 | `from`, `to`: the first and the last entry at which was looked |
//! | 8 * 7 | `ranges`, `items`, `bytes`, `differing`, `repaired`, `passed`, `unread` |
//! | 32 | `digest`: the hash of the hashes of all ranges that were equal, in order |
//! | 2, n | `what` was compared |
//! | 2, n | `why` it ended before its end |
//! | 2 | number of differences that are named, then of each: u8 kind, u8 1 repaired, at u64, file (text), part (text) |

use super::chunk::{BLOCKS, ITEMS, check, long, sealed, short, take_id, take_long, unknown};
use super::chunk::{Chunk, Content};
use super::{DecodeError, Reader, Writer};
use crate::base::limits::{
    BLOCK, BLOCK_U64, COMPARE_NAMED_MAX, COMPARE_REACHED_MAX, COMPARE_TEXT_MAX, COPY_LOOK_MAX,
    FRAME_PAYLOAD_MAX, NAMED_MAX_BYTES, NUMBER_MAX,
};
use crate::base::{FileId, Seq, crc32c};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};

const MAGIC: u32 = u32::from_le_bytes(*b"HBd1");
const VERSION: u16 = 1;
const BEHIND: u8 = 3;
const LISTING: u8 = 4;
/// What of a line stands in its name (bytes).
const LINE_MAX: usize = 240;
/// Lines of a listing.
const LINES_MAX: usize = 50_000;

/// Stands for the lines that a command answers.
pub const QUERY: FileId = FileId(NUMBER_MAX);

/// The file whose items are the definitions.
pub const DEFINITIONS: FileId = FileId(0);

/// A range to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Span {
    /// Items behind `after` (from the first on if it is empty) up to `through` (to the end if that is empty).
    Items {
        /// Not part of it.
        after: Bytes,
        /// Part of it.
        through: Bytes,
    },
    /// Blocks, from a byte on.
    Blocks {
        /// First byte.
        offset: u64,
        /// How many.
        len: u64,
    },
    /// Items behind what the ask of this id reached; it is one of the last [`COMPARE_REACHED_MAX`].
    Behind(u64),
    /// The lines that a read command answers.
    Query(Bytes),
}

/// What is wanted of a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum What {
    /// One hash of all.
    Digest = 1,
    /// A hash of each part.
    Details = 2,
    /// Everything.
    Content = 3,
}

/// A look that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The answer bears it.
    pub id: u64,
    /// It stands behind the batch that ends with this entry, and that is where to look; 0: whoever answers chooses.
    pub at: Seq,
    /// The file.
    pub file: FileId,
    /// What of it.
    pub what: What,
    /// How much is looked at, at most (bytes); an item that is longer comes alone.
    pub most: u32,
    /// Where.
    pub span: Span,
}

/// Where the answer to an ask is looked for; it stands behind the batch that ends there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Of the ask.
    pub id: u64,
    /// The entry.
    pub at: Seq,
    /// The range.
    pub span: Span,
}

/// What a look found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// There is no such file, or it is of another kind.
    Gone,
    /// A hash of all.
    Digest(Digest),
    /// A hash of each part.
    Details(Details),
    /// Everything.
    Content(Chunk),
    /// It is there and cannot be read.
    Unread,
    /// What the ask before it reached was the end, so nothing is behind it.
    Over,
}

/// The answer to an ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Of the ask.
    pub id: u64,
    /// The entry at which was looked.
    pub at: Seq,
    /// What was found.
    pub found: Found,
}

/// What a range digests to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digest {
    /// The last id that was looked at, of blocks the byte before which was looked at (8 bytes, big-endian); none if the end of
    /// the span was reached.
    pub reached: Option<Bytes>,
    /// Items, or blocks that are not zeros.
    pub count: u32,
    /// Bytes of ids and values, or of such blocks.
    pub bytes: u64,
    /// See the module's documentation.
    pub hash: [u8; 32],
}

/// A hash of each part of a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Details {
    /// As for [`Digest::reached`].
    pub reached: Option<Bytes>,
    /// Names and hashes, in order of names.
    pub parts: Vec<(Bytes, [u8; 16])>,
}

impl Found {
    /// What is wanted of what a range holds; `span` is what was to be looked at.
    #[must_use]
    pub fn of(chunk: Chunk, span: &Span, what: What) -> Self {
        let reached = reached(&chunk, span);
        match (what, &chunk.content) {
            (_, Content::Gone | Content::Equal | Content::Differs) => Self::Gone,
            (What::Digest, content) => Self::Digest(digest(content, reached)),
            (What::Details, content) => Self::Details(details(content, reached)),
            (What::Content, _) => Self::Content(chunk),
        }
    }
}

/// The last id that a chunk covers, unless it covers all of a span.
fn reached(chunk: &Chunk, span: &Span) -> Option<Bytes> {
    match (&chunk.content, span) {
        (Content::Items { through, .. }, Span::Items { through: wanted, .. }) => {
            (!chunk.ends && (wanted.is_empty() || through < wanted)).then(|| through.clone())
        }
        (Content::Blocks { offset, len, .. }, Span::Blocks { offset: from, len: most }) => {
            let end = offset + len;
            (!chunk.ends && end < from + most).then(|| Bytes::copy_from_slice(&end.to_be_bytes()))
        }
        _ => None,
    }
}

/// Blocks that are not zeros, with their offsets.
fn blocks(runs: &[(u64, Bytes)]) -> impl Iterator<Item = (u64, &[u8])> {
    let each = runs.iter().flat_map(|(at, bytes)| (*at..).step_by(BLOCK).zip(bytes.chunks(BLOCK)));
    each.filter(|(_, block)| block.iter().any(|byte| *byte != 0))
}

/// What content digests to: see the module's documentation.
#[must_use]
pub fn digest(content: &Content, reached: Option<Bytes>) -> Digest {
    let mut hasher = super::hasher::Hasher::default();
    let (mut count, mut bytes) = (0, 0);
    match content {
        Content::Gone | Content::Equal | Content::Differs => {}
        Content::Items { items, .. } => {
            hasher.update(&[ITEMS]);
            for (id, value) in items {
                hasher.update(&u16::try_from(id.len()).unwrap_or(u16::MAX).to_le_bytes()).update(id);
                hasher.update(&u32::try_from(value.len()).unwrap_or(u32::MAX).to_le_bytes()).update(value);
                count += 1;
                bytes += (id.len() + value.len()) as u64;
            }
        }
        Content::Blocks { runs, .. } => {
            hasher.update(&[BLOCKS]);
            for (at, block) in blocks(runs) {
                hasher.update(&at.to_le_bytes()).update(block);
                count += 1;
                bytes += block.len() as u64;
            }
        }
    }
    Digest { reached, count, bytes, hash: hasher.finalize() }
}

/// The hash of the hashes of ranges up to one with this hash.
#[must_use]
pub fn chained(before: &[u8; 32], hash: &[u8; 32]) -> [u8; 32] {
    *blake3::Hasher::new().update(before).update(hash).finalize().as_bytes()
}

/// Without the definitions of which either node says nothing, as the file is not whole there.
pub fn settle_definitions(own: &mut Details, theirs: &mut Details) {
    let mut nothing = [0; 16];
    nothing.copy_from_slice(&blake3::hash(&[]).as_bytes()[..16]);
    let parts = own.parts.iter().chain(&theirs.parts);
    let unsaid: Vec<Bytes> =
        parts.filter(|(_, hash)| *hash == nothing).map(|(name, _)| name.clone()).collect();
    own.parts.retain(|(name, _)| !unsaid.contains(name));
    theirs.parts.retain(|(name, _)| !unsaid.contains(name));
}

/// The lines of a listing, in the order of their names; none if they are more than one answer takes.
#[must_use]
pub fn listed(lines: &[Vec<u8>]) -> Option<Details> {
    if lines.len() > LINES_MAX {
        return None;
    }
    let mut parts: BTreeMap<Bytes, [u8; 16]> = BTreeMap::new();
    let mut counts: BTreeMap<&[u8], u16> = BTreeMap::new();
    for line in lines {
        let text = line.get(..LINE_MAX).unwrap_or(line);
        let before = counts.entry(text).or_default();
        let name = [text, &[0], &before.to_be_bytes()].concat();
        *before = before.saturating_add(1);
        let mut hash = [0; 16];
        hash.copy_from_slice(&blake3::hash(line).as_bytes()[..16]);
        parts.insert(name.into(), hash);
    }
    Some(Details { reached: None, parts: parts.into_iter().collect() })
}

/// The line, or its beginning, that goes by a name of a listing.
#[must_use]
pub fn line_of(name: &[u8]) -> &[u8] {
    name.get(..name.len().saturating_sub(3)).unwrap_or_default()
}

/// A hash of each part of content.
#[must_use]
pub fn details(content: &Content, reached: Option<Bytes>) -> Details {
    let hash = |value: &[u8]| {
        let mut short = [0; 16];
        short.copy_from_slice(&blake3::hash(value).as_bytes()[..16]);
        short
    };
    let parts = match content {
        Content::Gone | Content::Equal | Content::Differs => Vec::new(),
        Content::Items { items, .. } => items.iter().map(|(id, value)| (id.clone(), hash(value))).collect(),
        Content::Blocks { runs, .. } => {
            blocks(runs).map(|(at, block)| (Bytes::copy_from_slice(&at.to_be_bytes()), hash(block))).collect()
        }
    };
    Details { reached, parts }
}

impl Span {
    fn encode(&self, w: &mut Writer) {
        match self {
            Self::Items { after, through } => {
                w.u8(ITEMS);
                short(w, after);
                short(w, through);
            }
            Self::Blocks { offset, len } => {
                w.u8(BLOCKS).u64(*offset).u64(*len);
            }
            Self::Behind(ask) => {
                w.u8(BEHIND).u64(*ask);
            }
            Self::Query(command) => {
                w.u8(LISTING);
                short(w, command);
            }
        }
    }

    fn decode(payload: &Bytes, r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        match r.u8()? {
            ITEMS => {
                let (after, through) = (take_id(payload, r)?, take_id(payload, r)?);
                if !through.is_empty() && through <= after {
                    return Err(DecodeError::Field { what: "end of a span", expected: 1, found: 0 });
                }
                Ok(Self::Items { after, through })
            }
            BLOCKS => {
                let (offset, len) = (r.number("offset of a span")?, r.number("length of a span")?);
                if len == 0 || len > COPY_LOOK_MAX || offset % BLOCK_U64 != 0 || len % BLOCK_U64 != 0 {
                    return Err(DecodeError::Field {
                        what: "blocks of a span",
                        expected: BLOCK_U64,
                        found: len,
                    });
                }
                Ok(Self::Blocks { offset, len })
            }
            BEHIND => Ok(Self::Behind(r.u64()?)),
            LISTING => Ok(Self::Query(take_id(payload, r)?)),
            other => Err(unknown("kind of a span", other)),
        }
    }
}

fn ended(r: &Reader<'_>, what: &'static str) -> Result<(), DecodeError> {
    r.expect(what, 0, r.rest().len() as u64)
}

impl Ask {
    /// The payload's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::with_capacity(64);
        w.u64(self.id).u64(self.at.0).u64(self.file.0).u8(self.what as u8).u32(self.most);
        self.span.encode(&mut w);
        w.into_bytes()
    }

    /// Reads the payload.
    ///
    /// # Errors
    /// Any [`DecodeError`]; never panics.
    pub fn decode(payload: &Bytes) -> Result<Self, DecodeError> {
        let mut r = Reader::new("ask", payload);
        let (id, at, file) =
            (r.u64()?, Seq(r.number("position of an ask")?), FileId(r.number("file of an ask")?));
        let what = match r.u8()? {
            1 => What::Digest,
            2 => What::Details,
            3 => What::Content,
            other => return Err(unknown("what is asked for", other)),
        };
        let (most, span) = (r.u32()?, Span::decode(payload, &mut r)?);
        ended(&r, "bytes behind an ask")?;
        Ok(Self { id, at, file, what, most, span })
    }
}

impl Mark {
    /// The payload's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::with_capacity(64);
        w.u64(self.id).u64(self.at.0);
        self.span.encode(&mut w);
        w.into_bytes()
    }

    /// Reads the payload.
    ///
    /// # Errors
    /// Any [`DecodeError`]; never panics.
    pub fn decode(payload: &Bytes) -> Result<Self, DecodeError> {
        let mut r = Reader::new("mark of a look", payload);
        let (id, at) = (r.u64()?, Seq(r.number("position of a mark")?));
        let span = Span::decode(payload, &mut r)?;
        ended(&r, "bytes behind a mark")?;
        Ok(Self { id, at, span })
    }
}

impl Answer {
    /// The payload's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::with_capacity(128);
        w.u32(0).u64(self.id).u64(self.at.0);
        match &self.found {
            Found::Gone => drop(w.u8(0)),
            Found::Digest(Digest { reached, count, bytes, hash }) => {
                w.u8(1);
                put_reached(&mut w, reached.as_ref());
                w.u32(*count).u64(*bytes).put(hash);
            }
            Found::Details(Details { reached, parts }) => {
                w.u8(2);
                put_reached(&mut w, reached.as_ref());
                w.u32(u32::try_from(parts.len()).unwrap_or(u32::MAX));
                for (name, hash) in parts {
                    short(&mut w, name);
                    w.put(hash);
                }
            }
            Found::Content(chunk) => {
                w.u8(3);
                long(&mut w, &chunk.encode());
            }
            Found::Unread => drop(w.u8(4)),
            Found::Over => drop(w.u8(5)),
        }
        sealed(w)
    }

    /// Reads the payload, of which names and content stay parts.
    ///
    /// # Errors
    /// Any [`DecodeError`]; never panics. Names that are not in order are refused.
    pub fn decode(payload: &Bytes) -> Result<Self, DecodeError> {
        let mut r = Reader::new("answer to an ask", payload);
        check(&mut r, "answer to an ask")?;
        let (id, at) = (r.u64()?, Seq(r.number("position of an answer")?));
        let found = match r.u8()? {
            0 => Found::Gone,
            1 => {
                let reached = take_reached(payload, &mut r)?;
                Found::Digest(Digest { reached, count: r.u32()?, bytes: r.u64()?, hash: r.array()? })
            }
            2 => Found::Details(decode_details(payload, &mut r)?),
            3 => {
                let bytes = take_long(payload, &mut r, FRAME_PAYLOAD_MAX, "content of an answer")?;
                Found::Content(Chunk::decode(&bytes)?)
            }
            4 => Found::Unread,
            5 => Found::Over,
            other => return Err(unknown("kind of an answer", other)),
        };
        ended(&r, "bytes behind an answer")?;
        Ok(Self { id, at, found })
    }
}

fn put_reached(w: &mut Writer, reached: Option<&Bytes>) {
    match reached {
        None => drop(w.u8(0)),
        Some(id) => {
            w.u8(1);
            short(w, id);
        }
    }
}

fn take_reached(payload: &Bytes, r: &mut Reader<'_>) -> Result<Option<Bytes>, DecodeError> {
    match r.u8()? {
        0 => Ok(None),
        1 => take_id(payload, r).map(Some),
        other => Err(unknown("how far a look came", other)),
    }
}

fn decode_details(payload: &Bytes, r: &mut Reader<'_>) -> Result<Details, DecodeError> {
    let reached = take_reached(payload, r)?;
    let count = r.u32()? as usize;
    // Each takes eighteen bytes at least.
    let mut parts: Vec<(Bytes, [u8; 16])> = Vec::with_capacity(count.min(r.rest().len() / 18));
    for _ in 0..count {
        let name = take_id(payload, r)?;
        if parts.last().is_some_and(|(last, _)| *last >= name) {
            let (expected, found) = (parts.len() as u64, parts.len() as u64 + 1);
            return Err(DecodeError::Field { what: "order of details", expected, found });
        }
        parts.push((name, r.array()?));
    }
    Ok(Details { reached, parts })
}

/// A word of the primary's operator to the standby, which compares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// End the one that is under way; else begin one.
    pub stop: bool,
    /// Make the standby's content what the primary's is, where they differ.
    pub repair: bool,
    /// Only say what that would do.
    pub dry_run: bool,
    /// Bytes a second at most; 0 is no limit; none is the config's.
    pub rate: Option<u64>,
    /// An account, or `account,file`; empty for everything.
    pub name: String,
}

impl Order {
    /// The payload's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::with_capacity(64);
        w.u8(if self.stop { 2 } else { 1 }).u8(u8::from(self.repair)).u8(u8::from(self.dry_run));
        w.u64(self.rate.unwrap_or(u64::MAX)).text(&self.name);
        w.into_bytes()
    }

    /// Reads the payload.
    ///
    /// # Errors
    /// Any [`DecodeError`]; never panics.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new("order to compare", payload);
        let stop = match r.u8()? {
            1 => false,
            2 => true,
            other => return Err(unknown("order to compare", other)),
        };
        let (repair, dry_run, rate) = (r.u8()? == 1, r.u8()? == 1, r.u64()?);
        let name = r.text(COMPARE_TEXT_MAX)?.to_owned();
        ended(&r, "bytes behind an order")?;
        Ok(Self { stop, repair, dry_run, rate: (rate != u64::MAX).then_some(rate), name })
    }
}

/// How two nodes differ in a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Both have it, with other content.
    Changed = 1,
    /// Only the standby has it.
    StandbyOnly = 2,
    /// Only the primary has it.
    PrimaryOnly = 3,
    /// A range differed, and was written anew before it could be looked at closer.
    Passed = 4,
    /// It cannot be read on the standby.
    StandbyUnread = 5,
    /// It cannot be read on the primary.
    PrimaryUnread = 6,
}

/// A part in which two nodes differ, named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// How.
    pub kind: Kind,
    /// The standby has the primary's content by now.
    pub repaired: bool,
    /// The entry at which was looked.
    pub at: Seq,
    /// `account,file`.
    pub file: String,
    /// The item's id, or the bytes of a volume, for people.
    pub part: String,
}

/// How far the last looks came, by the ids of their asks.
#[derive(Clone, Debug, Default)]
pub struct Reached {
    last: VecDeque<(u64, Option<Bytes>)>,
}

impl Reached {
    /// The look of an ask ended so: behind this id, or at the end if that is none.
    pub fn set(&mut self, ask: u64, reached: Option<Bytes>) {
        self.last.push_back((ask, reached));
        if self.last.len() > COMPARE_REACHED_MAX {
            self.last.pop_front();
        }
    }

    /// How the look of an ask ended, if that is known.
    #[must_use]
    pub fn of(&self, ask: u64) -> Option<Option<&Bytes>> {
        self.last.iter().find(|(id, _)| *id == ask).map(|(_, reached)| reached.as_ref())
    }
}

/// What is known of a compare, while it goes on and behind its end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Certificate {
    /// It came to its end.
    pub whole: bool,
    /// It was to repair.
    pub repair: bool,
    /// When it began (milliseconds since 1970); 0: there was none.
    pub began_ms: u64,
    /// When it ended.
    pub ended_ms: u64,
    /// The first entry at which was looked.
    pub from: Seq,
    /// The last one.
    pub to: Seq,
    /// Ranges looked at.
    pub ranges: u64,
    /// Items, and blocks that are not zeros.
    pub items: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Parts in which the nodes differ.
    pub differing: u64,
    /// Of those, repaired.
    pub repaired: u64,
    /// Ranges that differed and were written anew before they could be looked at closer.
    pub passed: u64,
    /// Ranges that could not be read.
    pub unread: u64,
    /// The hash of the hashes of all ranges that were equal, in order.
    pub digest: [u8; 32],
    /// What was compared.
    pub what: String,
    /// Why it ended before its end.
    pub why: String,
    /// The first differences.
    pub named: Vec<Difference>,
}

impl Certificate {
    /// As it is kept.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::with_capacity(256);
        w.u16(VERSION)
            .u8(u8::from(self.whole))
            .u8(u8::from(self.repair))
            .u64(self.began_ms)
            .u64(self.ended_ms);
        w.u64(self.from.0)
            .u64(self.to.0)
            .u64(self.ranges)
            .u64(self.items)
            .u64(self.bytes)
            .u64(self.differing);
        w.u64(self.repaired).u64(self.passed).u64(self.unread).put(&self.digest);
        w.text(&self.what).text(&self.why);
        let named = self.named.get(..COMPARE_NAMED_MAX.min(self.named.len())).unwrap_or_default();
        w.u16(u16::try_from(named.len()).unwrap_or(0));
        for difference in named {
            w.u8(difference.kind as u8).u8(u8::from(difference.repaired)).u64(difference.at.0);
            w.text(&difference.file).text(&difference.part);
        }
        let body = w.into_bytes();
        let mut w = Writer::with_capacity(8 + body.len());
        w.u32(MAGIC).u32(crc32c(&body)).put(&body);
        w.into_bytes()
    }

    /// From any bytes.
    ///
    /// # Errors
    /// [`DecodeError`]; the last compare is not known then.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let what = "certificate of a compare";
        let mut r = Reader::new(what, bytes);
        let (magic, found) = (r.u32()?, r.u32()?);
        r.expect("magic of a certificate", u64::from(MAGIC), u64::from(magic))?;
        let computed = crc32c(r.rest());
        if found != computed {
            return Err(DecodeError::Checksum { what, found, computed });
        }
        let version = r.u16()?;
        r.expect("version of a certificate", u64::from(VERSION), u64::from(version))?;
        let mut all = Self { whole: r.u8()? == 1, repair: r.u8()? == 1, ..Self::default() };
        (all.began_ms, all.ended_ms) = (r.u64()?, r.u64()?);
        (all.from, all.to) = (Seq(r.number("start of a compare")?), Seq(r.number("end of a compare")?));
        (all.ranges, all.items, all.bytes) = (r.u64()?, r.u64()?, r.u64()?);
        (all.differing, all.repaired, all.passed, all.unread) = (r.u64()?, r.u64()?, r.u64()?, r.u64()?);
        all.digest = r.array()?;
        r.text(COMPARE_TEXT_MAX)?.clone_into(&mut all.what);
        r.text(COMPARE_TEXT_MAX)?.clone_into(&mut all.why);
        let count = usize::from(r.u16()?);
        if count > COMPARE_NAMED_MAX {
            let (limit, found) = (COMPARE_NAMED_MAX as u64, count as u64);
            return Err(DecodeError::Limit { what: "differences of a certificate", limit, found });
        }
        for _ in 0..count {
            let kind = match r.u8()? {
                1 => Kind::Changed,
                2 => Kind::StandbyOnly,
                3 => Kind::PrimaryOnly,
                4 => Kind::Passed,
                5 => Kind::StandbyUnread,
                6 => Kind::PrimaryUnread,
                other => return Err(unknown("kind of a difference", other)),
            };
            let (repaired, at) = (r.u8()? == 1, Seq(r.number("position of a difference")?));
            let (file, part) = (r.text(COMPARE_TEXT_MAX)?.to_owned(), r.text(COMPARE_TEXT_MAX)?.to_owned());
            all.named.push(Difference { kind, repaired, at, file, part });
        }
        ended(&r, "bytes behind a certificate")?;
        Ok(all)
    }
}

/// What the standby tells of a compare that the primary ordered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// It is under way.
    pub running: bool,
    /// So much is done (bytes) ..
    pub done: u64,
    /// .. of so much, as far as that is known.
    pub total: u64,
    /// What is known of it.
    pub certificate: Certificate,
}

impl Report {
    /// The payload's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::with_capacity(256);
        w.u32(0).u8(u8::from(self.running)).u64(self.done).u64(self.total).put(&self.certificate.encode());
        sealed(w)
    }

    /// Reads the payload.
    ///
    /// # Errors
    /// Any [`DecodeError`]; never panics.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new("report of a compare", payload);
        check(&mut r, "report of a compare")?;
        let (running, done, total) = (r.u8()? == 1, r.u64()?, r.u64()?);
        Ok(Self { running, done, total, certificate: Certificate::decode(r.rest())? })
    }
}

/// The most that a certificate takes (bytes).
pub const CERTIFICATE_MAX: usize = 256 + COMPARE_NAMED_MAX * NAMED_MAX_BYTES + 2 * COMPARE_TEXT_MAX;

/// Decodes any bytes as one of the six, which the first byte chooses, as they are and with a checksum that fits.
pub fn fuzz_compare(bytes: &[u8]) {
    let Some((kind, rest)) = bytes.split_first() else { return };
    let mut w = Writer::with_capacity(rest.len());
    w.put(rest);
    for payload in [Bytes::copy_from_slice(rest), sealed(w).into()] {
        match kind % 6 {
            0 => {
                drop(Ask::decode(&payload).map(|ask| assert_eq!(Ask::decode(&ask.encode().into()), Ok(ask))))
            }
            1 => drop(
                Mark::decode(&payload).map(|mark| assert_eq!(Mark::decode(&mark.encode().into()), Ok(mark))),
            ),
            2 => drop(
                Answer::decode(&payload)
                    .map(|answer| assert_eq!(Answer::decode(&answer.encode().into()), Ok(answer))),
            ),
            3 => drop(Order::decode(&payload)),
            4 => drop(Report::decode(&payload)),
            _ => drop(
                Certificate::decode(&payload)
                    .map(|found| assert_eq!(Certificate::decode(&found.encode()), Ok(found))),
            ),
        }
    }
}

#[cfg(test)]
#[path = "compare_tests.rs"]
mod tests;

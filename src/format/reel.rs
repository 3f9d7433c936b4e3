//! Blocks of a reel: what stands on a tape, or on an image of one.
//!
//! A **reel set** is a row of reels that one writer fills one after the other. It holds **sessions** (a save each), which follow
//! each other and may go on from reel to reel. Every block says by itself what it is, so a reader may begin at any reel, and
//! filemarks tell it nothing.
//!
//! ```text
//!   reel 1:  label, mark, data 0, data 1, .. data 70, end of the reel, mark
//!   reel 2:  label, mark, data 71, .. data 90, end of the session 91, mark, data 92, ..
//! ```
//!
//! **Block header**, 96 bytes, directly before the block's payload; header and payload are one block of the tape
//!
//! | size | field |
//! |---|---|
//! | 4 | magic `HBtb` |
//! | 4 | CRC32C of the 88 bytes that follow |
//! | 2 | `version` 1 |
//! | 1 | kind: 1 label, 2 data, 3 end of a session, 4 end of a reel |
//! | 1 | flags: 1 the payload is encrypted |
//! | 4 | length of the payload |
//! | 4 | CRC32C of the payload as it stands |
//! | 4 | `reel`: its number from 1; 0 in the label of a reel that is prepared for any set |
//! | 16 | `set`: a random number, alike on all reels of a set |
//! | 16 | `session`: a random number, zero in a label |
//! | 8 | `sequence`: the block's number from 0 through all reels; of a label and the end of a reel that of the next block |
//! | 8 | `chain`: running checksum of the blocks before this one |
//! | 8 | `start`: the sequence of the session's first block |
//! | 8, 8 | `first`, `last`: the bytes of the session's stream that it holds, `last` not included |
//!
//! Data and ends of sessions have numbers and enter the chain with length and checksum of their payload. So the chain in a label
//! is a digest of all reels before: a reel of another history has another one. A block that may not have reached its reel
//! is written again to the next reel, with the same number; who reads takes each number once. If the payload is
//! encrypted (AES-256-GCM), 16 bytes of its length are the tag; the header, with `reel` and both checksums zero, is authenticated.
//!
//! **Label**, padded with zeros to a block of [`REEL_LABEL`]
//!
//! | size | field |
//! |---|---|
//! | 16 | `pair` |
//! | 8, 8 | epoch, seq: the state of the database at which the content of the session begins that was being written |
//! | 8 | `wall_ms`: when it was written |
//! | 4 | size of blocks (bytes) |
//! | 4 | zero |
//! | 8 | key id, 0 where nothing is encrypted |
//! | 1, n | name of the reel, as people know it |
//! | 1, n | name of the node that wrote it |
//!
//! **End of a session**: bytes of the stream (u64), number of data blocks (u64). **End of a reel**: number of the next reel
//! (u32), zero (u32), sequence of the reel's first block (u64).
//!
//! Golden file: `tests/data/reel-v1.bin`.

use super::set::SetId;
use super::{DecodeError, PairId, Reader, Writer};
use crate::base::limits::{REEL_BLOCK_MAX, REEL_LABEL, REEL_NAME_MAX};
use crate::base::{Chain, Epoch, Seq, chain_next, crc32c};

const MAGIC: u32 = u32::from_le_bytes(*b"HBtb");
const VERSION: u16 = 1;
/// Bytes of a block's header.
pub const REEL_HEADER: usize = 96;
/// Bytes by which encryption makes a payload longer.
pub const TAG: usize = 16;

/// What a block of a reel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReelKind {
    /// Which reel it is.
    Label,
    /// A part of a session's stream.
    Data,
    /// The session is complete.
    SessionEnd,
    /// The set goes on on the next reel.
    ReelEnd,
}

impl ReelKind {
    const ALL: [Self; 4] = [Self::Label, Self::Data, Self::SessionEnd, Self::ReelEnd];

    fn byte(self) -> u8 {
        match self {
            Self::Label => 1,
            Self::Data => 2,
            Self::SessionEnd => 3,
            Self::ReelEnd => 4,
        }
    }

    /// True for kinds that take a sequence number and enter the chain.
    #[must_use]
    pub fn is_numbered(self) -> bool {
        matches!(self, Self::Data | Self::SessionEnd)
    }
}

/// The head of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReelBlock {
    /// What it is.
    pub kind: ReelKind,
    /// Whether the payload is encrypted.
    pub sealed: bool,
    /// Bytes of the payload as it stands.
    pub len: u32,
    /// CRC32C of the payload as it stands.
    pub crc: u32,
    /// The reel's number, from 1; 0 on a prepared reel.
    pub reel: u32,
    /// The reel set.
    pub set: SetId,
    /// The session.
    pub session: SetId,
    /// The block's number in the set.
    pub sequence: u64,
    /// Of all numbered blocks before this one.
    pub chain: Chain,
    /// The sequence of the session's first block.
    pub start: u64,
    /// Offset of the first byte in the session's stream.
    pub first: u64,
    /// Offset behind the last byte in the session's stream.
    pub last: u64,
}

/// What a reel begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReelLabel {
    /// The pair whose data it holds.
    pub pair: PairId,
    /// Where the content of the session begins: epoch.
    pub epoch: Epoch,
    /// Where the content of the session begins: entry.
    pub seq: Seq,
    /// When the label was written (ms since 1970).
    pub wall_ms: u64,
    /// Size of full blocks (bytes).
    pub block_size: u32,
    /// Which key encrypts, 0 for none.
    pub key: u64,
    /// The reel's name, [`REEL_NAME_MAX`] bytes at most.
    pub name: String,
    /// The node that wrote it, [`REEL_NAME_MAX`] bytes at most.
    pub node: String,
}

/// What a session ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionEnd {
    /// Bytes of its stream.
    pub bytes: u64,
    /// Data blocks.
    pub blocks: u64,
}

/// What a full reel ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReelEnd {
    /// The reel on which the set goes on.
    pub next: u32,
    /// The sequence of this reel's first block.
    pub first: u64,
}

impl ReelBlock {
    /// The header's bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; REEL_HEADER] {
        let mut w = Writer::with_capacity(REEL_HEADER);
        w.u32(MAGIC).u32(0).u16(VERSION).u8(self.kind.byte()).u8(u8::from(self.sealed)).u32(self.len);
        w.u32(self.crc).u32(self.reel).put(&self.set.0).put(&self.session.0).u64(self.sequence);
        w.u64(self.chain.0).u64(self.start).u64(self.first).u64(self.last);
        let mut bytes = w.into_bytes();
        let crc = crc32c(bytes.get(8..).unwrap_or_default());
        if let Some(field) = bytes.get_mut(4..8) {
            field.copy_from_slice(&crc.to_le_bytes());
        }
        bytes.try_into().expect("a header has its length")
    }

    /// The bytes that encryption authenticates beside the payload: they stay the same on whichever reel the block stands.
    #[must_use]
    pub fn bound(&self) -> [u8; REEL_HEADER] {
        Self { reel: 0, crc: 0, ..*self }.encode()
    }

    /// Reads a block of a tape: its header, and the payload if its checksum fits.
    ///
    /// # Errors
    /// Any [`DecodeError`]; never panics.
    pub fn decode(block: &[u8]) -> Result<(Self, &[u8]), DecodeError> {
        let header = Self::header(block)?;
        let mut r = Reader::new("block of a reel", block.get(REEL_HEADER..).unwrap_or_default());
        let payload = r.take(header.len as usize)?;
        let computed = crc32c(payload);
        if computed != header.crc {
            return Err(DecodeError::Checksum { what: "block of a reel", found: header.crc, computed });
        }
        // A label is padded.
        let behind = r.rest();
        if header.kind != ReelKind::Label || behind.iter().any(|byte| *byte != 0) {
            r.expect("bytes behind a block of a reel", 0, behind.len() as u64)?;
        }
        Ok((header, payload))
    }

    fn header(block: &[u8]) -> Result<Self, DecodeError> {
        let head = Reader::new("header of a reel's block", block).take(REEL_HEADER)?;
        let mut r = Reader::new("header of a reel's block", head);
        let (magic, found) = (r.u32()?, r.u32()?);
        r.expect("magic of a reel's block", u64::from(MAGIC), u64::from(magic))?;
        let computed = crc32c(r.rest());
        if computed != found {
            return Err(DecodeError::Checksum { what: "header of a reel's block", found, computed });
        }
        let version = r.u16()?;
        r.expect("version of a reel's block", u64::from(VERSION), u64::from(version))?;
        let kind = r.u8()?;
        let (expected, found) = (ReelKind::ALL.len() as u64, u64::from(kind));
        let unknown = DecodeError::Field { what: "kind of a reel's block", expected, found };
        let kind = ReelKind::ALL.into_iter().find(|known| known.byte() == kind).ok_or(unknown)?;
        let flags = r.u8()?;
        if flags > 1 {
            return Err(DecodeError::Field {
                what: "flags of a reel's block",
                expected: 1,
                found: flags.into(),
            });
        }
        let this = Self {
            kind,
            sealed: flags == 1,
            len: r.u32()?,
            crc: r.u32()?,
            reel: r.u32()?,
            set: SetId(r.array()?),
            session: SetId(r.array()?),
            sequence: r.number("sequence of a reel's block")?,
            chain: Chain(r.u64()?),
            start: r.number("start of a session")?,
            first: r.number("first byte of a block")?,
            last: r.number("last byte of a block")?,
        };
        let most = REEL_BLOCK_MAX - REEL_HEADER;
        if this.len as usize > most {
            let (limit, found) = (most as u64, u64::from(this.len));
            return Err(DecodeError::Limit { what: "length of a reel's block", limit, found });
        }
        if this.kind == ReelKind::Data {
            let tag = if this.sealed { TAG as u64 } else { 0 };
            let covered = this.last.checked_sub(this.first).map(|bytes| bytes + tag);
            r.expect("bytes of a reel's block", u64::from(this.len), covered.unwrap_or(u64::MAX))?;
        }
        if this.start > this.sequence {
            let (limit, found) = (this.sequence, this.start);
            return Err(DecodeError::Limit { what: "start of a session", limit, found });
        }
        Ok(this)
    }

    /// The chain behind this block.
    #[must_use]
    pub fn chain_behind(&self) -> Chain {
        if self.kind.is_numbered() { chain_next(self.chain, self.crc, self.len) } else { self.chain }
    }

    /// The sequence of the block behind this one.
    #[must_use]
    pub fn sequence_behind(&self) -> u64 {
        self.sequence + u64::from(self.kind.is_numbered())
    }

    /// The block with its payload, as it stands on the reel; checksum and length are those of the payload.
    #[must_use]
    pub fn with(mut self, payload: &[u8]) -> Vec<u8> {
        self.len = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        self.crc = crc32c(payload);
        let mut bytes = [&self.encode(), payload].concat();
        if self.kind == ReelKind::Label {
            bytes.resize(REEL_LABEL, 0);
        }
        bytes
    }
}

impl ReelLabel {
    /// The payload's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::with_capacity(128);
        w.put(&self.pair.0).u64(self.epoch.0).u64(self.seq.0).u64(self.wall_ms).u32(self.block_size).u32(0);
        w.u64(self.key);
        for text in [&self.name, &self.node] {
            let mut end = text.len().min(REEL_NAME_MAX);
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            let text = text.get(..end).unwrap_or_default();
            w.u8(u8::try_from(text.len()).unwrap_or_default()).put(text.as_bytes());
        }
        w.into_bytes()
    }

    /// Reads the payload.
    ///
    /// # Errors
    /// Any [`DecodeError`]; never panics.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new("label of a reel", payload);
        let (pair, epoch, seq) =
            (PairId(r.array()?), r.number("epoch of a reel")?, r.number("entry of a reel")?);
        let (wall_ms, block_size, zero, key) = (r.u64()?, r.u32()?, r.u32()?, r.u64()?);
        r.expect("reserved bytes of a label", 0, u64::from(zero))?;
        let (name, node) = (text(&mut r)?, text(&mut r)?);
        r.expect("bytes behind a label", 0, r.rest().len() as u64)?;
        Ok(Self { pair, epoch: Epoch(epoch), seq: Seq(seq), wall_ms, block_size, key, name, node })
    }
}

fn text(r: &mut Reader<'_>) -> Result<String, DecodeError> {
    let len = usize::from(r.u8()?);
    if len > REEL_NAME_MAX {
        let (limit, found) = (REEL_NAME_MAX as u64, len as u64);
        return Err(DecodeError::Limit { what: "name of a reel", limit, found });
    }
    let bytes = r.take(len)?;
    let wrong = |_| DecodeError::Text { what: "name of a reel" };
    std::str::from_utf8(bytes).map(str::to_owned).map_err(wrong)
}

impl SessionEnd {
    /// The payload's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::with_capacity(16);
        w.u64(self.bytes).u64(self.blocks);
        w.into_bytes()
    }

    /// Reads the payload.
    ///
    /// # Errors
    /// Any [`DecodeError`]; never panics.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new("end of a session", payload);
        let this = Self { bytes: r.u64()?, blocks: r.u64()? };
        r.expect("bytes behind the end of a session", 0, r.rest().len() as u64)?;
        Ok(this)
    }
}

impl ReelEnd {
    /// The payload's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::with_capacity(16);
        w.u32(self.next).u32(0).u64(self.first);
        w.into_bytes()
    }

    /// Reads the payload.
    ///
    /// # Errors
    /// Any [`DecodeError`]; never panics.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new("end of a reel", payload);
        let (next, zero, first) = (r.u32()?, r.u32()?, r.u64()?);
        r.expect("reserved bytes of the end of a reel", 0, u64::from(zero))?;
        r.expect("bytes behind the end of a reel", 0, r.rest().len() as u64)?;
        Ok(Self { next, first })
    }
}

/// Decodes any bytes as a block of a reel, also with checksums that fit.
pub fn fuzz_reel(bytes: &[u8]) {
    let mut whole = bytes.to_vec();
    let crc = crc32c(bytes.get(REEL_HEADER..).unwrap_or_default());
    let len = u32::try_from(bytes.len().saturating_sub(REEL_HEADER)).unwrap_or(u32::MAX);
    for (at, value) in [(12, len), (16, crc)] {
        if let Some(field) = whole.get_mut(at..at + 4) {
            field.copy_from_slice(&value.to_le_bytes());
        }
    }
    let crc = crc32c(whole.get(8..REEL_HEADER).unwrap_or_default());
    if let Some(field) = whole.get_mut(4..8) {
        field.copy_from_slice(&crc.to_le_bytes());
    }
    for bytes in [bytes, &whole[..]] {
        if let Ok((header, payload)) = ReelBlock::decode(bytes) {
            assert!(bytes.starts_with(&header.with(payload)) || header.kind == ReelKind::Label);
            fuzz_payload(payload);
        }
    }
    fuzz_payload(bytes);
}

fn fuzz_payload(bytes: &[u8]) {
    if let Ok(label) = ReelLabel::decode(bytes) {
        assert_eq!(ReelLabel::decode(&label.encode()), Ok(label));
    }
    if let Ok(end) = SessionEnd::decode(bytes) {
        assert_eq!(end.encode(), bytes);
    }
    if let Ok(end) = ReelEnd::decode(bytes) {
        assert_eq!(end.encode(), bytes);
    }
}

#[cfg(test)]
#[path = "reel_tests.rs"]
mod tests;

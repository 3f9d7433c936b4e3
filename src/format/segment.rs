//! A segment's first block: who wrote it and where in the history it begins.
//!
//! | offset | size | field | rule |
//! |---|---|---|---|
//! | 0 | 4 | `magic` | `HBs1` |
//! | 4 | 4 | `crc` | CRC32C of bytes 8 .. 4096 |
//! | 8 | 2 | `version` | 1 |
//! | 10 | 1 | `journal` | 0 replicated, 1 local |
//! | 11 | 5 | reserved | 0 |
//! | 16 | 8 | `index` | number of this segment; MUST equal the one in the file name |
//! | 24 | 8+8+8 | `base` | epoch, seq, chain of the history before the first batch here |
//! | 48 | 16 | `pair` | the pair's id |
//! | 64 | 8 | `wall_ms` | for people |
//! | 72 | .. 4096 | reserved | 0 |
//!
//! `base` is also the **cut**: what an earlier segment holds beyond `base.seq` is no longer part of the history.
//! A torn tail, a poisoned segment and entries that the pair never kept are all cut this way: by the header of
//! the next segment, never by changing the old one.
//!
//! # Example
//!
//! A segment is its header and, from the next block on, batches in blocks of their own. This reads one until nothing
//! more counts. A real reader also follows the chain from batch to batch and knows which batches only seem to count: see
//! [`crate::journal::recover`].
//!
//! ```
//! use bytes::Bytes;
//! use hot_backup::base::limits::BLOCK;
//! use hot_backup::base::{FileId, JournalKind, Position, SegmentIndex, Seq};
//! use hot_backup::format::batch::{Batch, BatchBuilder, Seal};
//! use hot_backup::format::entry::{Entry, EntryKind};
//! use hot_backup::format::segment::SegmentHeader;
//! use hot_backup::format::{DecodeError, PairId};
//!
//! fn items(segment: &Bytes) -> Result<Vec<(Seq, Vec<u8>)>, DecodeError> {
//!     let header = SegmentHeader::decode(segment)?;
//!     let (mut at, mut end, mut items) = (BLOCK, header.base, Vec::new());
//!     while let Ok(batch) = Batch::from_disk(&segment.slice(at..)) {
//!         if batch.header().prev_chain != end.chain {
//!             break;
//!         }
//!         let puts = batch.entries().filter(|(_, entry)| entry.kind == EntryKind::Put);
//!         items.extend(puts.map(|(seq, entry)| (seq, entry.id.to_vec())));
//!         end = batch.end();
//!         at += batch.header().padded_len();
//!     }
//!     Ok(items)
//! }
//!
//! // What a node would have written: `let segment = Bytes::from(std::fs::read(path)?)`.
//! let (pair, journal) = (PairId([7; 16]), JournalKind::Replicated);
//! let (index, base) = (SegmentIndex(1), Position::default());
//! let header = SegmentHeader { journal, index, base, pair, wall_ms: 0 };
//! let mut builder = BatchBuilder::new(Seq(1), 0);
//! builder.push(&Entry { kind: EntryKind::Put, file: FileId(10), id: b"id", value: b"value" });
//! let seal = Seal { epoch: base.epoch, prev_chain: base.chain, durable: Seq(0), wall_ms: 0, pair, journal };
//! let segment = Bytes::from([header.encode(), builder.seal(&seal).disk().clone()].concat());
//!
//! assert_eq!(items(&segment)?, [(Seq(1), b"id".to_vec())]);
//! # Ok::<(), DecodeError>(())
//! ```

use super::{DecodeError, PairId, Reader, Writer};
use crate::base::limits::BLOCK;
use crate::base::{AlignedBuf, Chain, Epoch, JournalKind, Position, SegmentIndex, Seq, crc32c};
use bytes::Bytes;

const MAGIC: u32 = u32::from_le_bytes(*b"HBs1");
const VERSION: u16 = 1;

/// A segment's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The journal it belongs to.
    pub journal: JournalKind,
    /// Its number.
    pub index: SegmentIndex,
    /// Where the history stood before its first batch.
    pub base: Position,
    /// The pair.
    pub pair: PairId,
    /// When it was opened, for people.
    pub wall_ms: u64,
}

impl SegmentHeader {
    /// The block to write at offset 0.
    ///
    /// # Panics
    /// Never.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut w = Writer::with_capacity(BLOCK);
        w.u32(MAGIC).u32(0).u16(VERSION);
        w.u8(u8::try_from(self.journal.index()).expect("two journals")).put(&[0; 5]);
        w.u64(self.index.0).u64(self.base.epoch.0).u64(self.base.seq.0).u64(self.base.chain.0);
        w.put(&self.pair.0).u64(self.wall_ms);
        let mut buf = AlignedBuf::with_capacity(BLOCK);
        buf.extend_from_slice(&w.into_bytes());
        buf.pad_to_block();
        let crc = crc32c(buf.as_ref().get(8..).unwrap_or_default());
        if let Some(field) = buf.as_mut_slice().get_mut(4..8) {
            field.copy_from_slice(&crc.to_le_bytes());
        }
        Bytes::from_owner(buf)
    }

    /// Reads a header block.
    ///
    /// # Errors
    /// Any [`DecodeError`]; never panics.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new("segment header", bytes);
        let magic = r.u32()?;
        r.expect("segment magic", u64::from(MAGIC), u64::from(magic))?;
        let found = r.u32()?;
        let short = DecodeError::Short { what: "segment header", needed: BLOCK, found: bytes.len() };
        let computed = crc32c(bytes.get(8..BLOCK).ok_or(short)?);
        if computed != found {
            return Err(DecodeError::Checksum { what: "segment header", found, computed });
        }
        let version = r.u16()?;
        r.expect("segment version", u64::from(VERSION), u64::from(version))?;
        let journal = match r.u8()? {
            0 => JournalKind::Replicated,
            1 => JournalKind::Local,
            other => {
                return Err(DecodeError::Field {
                    what: "segment journal",
                    expected: 0,
                    found: u64::from(other),
                });
            }
        };
        r.take(5)?;
        let index = SegmentIndex(r.number("segment index")?);
        let epoch = Epoch(r.number("segment base epoch")?);
        let base = Position { epoch, seq: Seq(r.number("segment base")?), chain: Chain(r.u64()?) };
        Ok(Self { journal, index, base, pair: PairId(r.array()?), wall_ms: r.u64()? })
    }
}

/// Decodes any bytes as a segment header.
pub fn fuzz_segment(bytes: &[u8]) {
    if let Ok(header) = SegmentHeader::decode(bytes) {
        assert_eq!(SegmentHeader::decode(&header.encode()), Ok(header));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> SegmentHeader {
        SegmentHeader {
            journal: JournalKind::Local,
            index: SegmentIndex(3),
            base: Position { epoch: Epoch(2), seq: Seq(41), chain: Chain(99) },
            pair: PairId([5; 16]),
            wall_ms: 1_700_000_000_000,
        }
    }

    #[test]
    fn a_header_reads_back_and_matches_the_golden_block() {
        let block = sample().encode();
        assert_eq!(block.len(), BLOCK);
        assert_eq!(SegmentHeader::decode(&block), Ok(sample()));
        let golden = include_bytes!("../../tests/data/segment-v1.bin");
        assert_eq!(block.get(..golden.len()), Some(golden.as_slice()));
    }

    #[test]
    fn every_single_bit_flip_is_detected() {
        let block = sample().encode();
        for bit in 0..BLOCK * 8 {
            let mut bad = block.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(SegmentHeader::decode(&bad).is_err(), "bit {bit} went unnoticed");
            fuzz_segment(&bad);
        }
    }
}

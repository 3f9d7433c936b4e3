//! A part of a spool: one sealed segment of the replicated journal as it was written, in a file of its own.
//!
//! | offset | size | what |
//! |---|---|---|
//! | 0 | 4096 | header |
//! | 4096 | `bytes` | the segment's first bytes: its header block and its batches, unchanged |
//! | 4096 + `bytes` | 96 | trailer |
//!
//! Header:
//!
//! | offset | size | field | rule |
//! |---|---|---|---|
//! | 0 | 4 | `magic` | `HBp1` |
//! | 4 | 4 | `crc` | CRC32C of bytes 8 .. 4096 |
//! | 8 | 2 | `version` | 1 |
//! | 10 | 1 | `ordinal` | of the node that wrote it, 0 or 1 |
//! | 11 | 5 | reserved | 0 |
//! | 16 | 16 | `pair` | the pair's id |
//! | 32 | 8 | `index` | number of the segment |
//! | 40 | 8+8+8 | `base` | epoch, seq, chain of the history before its first batch |
//! | 64 | 8+8+8 | `end` | the same after its last batch |
//! | 88 | 8 | `bytes` | of the segment, a multiple of 4096 |
//! | 96 | 8 | `wall_ms` | when the part was written, for people and for the age at which it may go |
//! | 104 | .. 4096 | reserved | 0 |
//!
//! Trailer:
//!
//! | offset | size | field | rule |
//! |---|---|---|---|
//! | 0 | 4 | `magic` | `HBpt` |
//! | 4 | 4 | `crc` | CRC32C of bytes 8 .. 96 |
//! | 8 | 2 | `version` | 1 |
//! | 10 | 6 | reserved | 0 |
//! | 16 | 8 | `bytes` | as in the header |
//! | 24 | 32 | `digest` | BLAKE3 of header and segment |
//! | 56 | 40 | reserved | 0 |
//!
//! A part counts once its trailer is durable: it is written under another name, synced, renamed, and the directory is
//! synced. The index of a spool is a file of records, the header's bytes 0 .. 104 with a checksum of their own behind them; it
//! saves a start from opening each part, and is made again from the parts when it is lost.

use super::{DecodeError, PairId, Reader, Writer};
use crate::base::limits::{BLOCK, BLOCK_U64, SEGMENT_MAX};
use crate::base::{Chain, Epoch, Ordinal, Position, SegmentIndex, Seq, crc32c};

const MAGIC: u32 = u32::from_le_bytes(*b"HBp1");
const TRAILER_MAGIC: u32 = u32::from_le_bytes(*b"HBpt");
const VERSION: u16 = 1;
/// Bytes of a header that say something.
const FIELDS: usize = 104;
/// Size of a trailer (bytes).
pub const PART_TRAILER: usize = 96;
/// Size of a record of the index (bytes).
pub const INDEX_RECORD: usize = FIELDS + 4;
/// Where the segment begins in a part (bytes).
pub const PART_START: u64 = BLOCK_U64;
/// A segment has one batch more than its size where that batch is large (bytes).
const BYTES_MAX: u64 = 2 * SEGMENT_MAX;

/// What a part holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartHeader {
    /// The pair.
    pub pair: PairId,
    /// The node that wrote it.
    pub ordinal: Ordinal,
    /// The segment's number in that node's journal.
    pub index: SegmentIndex,
    /// Where the history stood before it.
    pub base: Position,
    /// Where it stands after its last batch.
    pub end: Position,
    /// Bytes of the segment, its header block included.
    pub bytes: u64,
    /// When it was written (milliseconds since 1970).
    pub wall_ms: u64,
}

fn position(r: &mut Reader<'_>) -> Result<Position, DecodeError> {
    let epoch = Epoch(r.number("epoch of a spool part")?);
    Ok(Position { epoch, seq: Seq(r.number("entry of a spool part")?), chain: Chain(r.u64()?) })
}

impl PartHeader {
    fn fields(&self) -> Vec<u8> {
        let mut w = Writer::with_capacity(BLOCK);
        w.u32(MAGIC).u32(0).u16(VERSION).u8(self.ordinal.0).put(&[0; 5]).put(&self.pair.0);
        w.u64(self.index.0);
        for at in [self.base, self.end] {
            w.u64(at.epoch.0).u64(at.seq.0).u64(at.chain.0);
        }
        w.u64(self.bytes).u64(self.wall_ms);
        w.into_bytes()
    }

    /// The block at the beginning of a part.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut block = self.fields();
        block.resize(BLOCK, 0);
        let crc = crc32c(block.get(8..).unwrap_or_default());
        if let Some(field) = block.get_mut(4..8) {
            field.copy_from_slice(&crc.to_le_bytes());
        }
        block
    }

    /// Reads the block at the beginning of a part.
    ///
    /// # Errors
    /// Any [`DecodeError`]; never panics.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let what = "header of a spool part";
        let short = DecodeError::Short { what, needed: BLOCK, found: bytes.len() };
        let block = bytes.get(..BLOCK).ok_or(short)?;
        let mut r = Reader::new(what, block);
        let (magic, found) = (r.u32()?, r.u32()?);
        r.expect("magic of a spool part", u64::from(MAGIC), u64::from(magic))?;
        let computed = crc32c(block.get(8..).unwrap_or_default());
        if computed != found {
            return Err(DecodeError::Checksum { what, found, computed });
        }
        Self::of_fields(&mut r)
    }

    /// From the version on.
    fn of_fields(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let version = r.u16()?;
        r.expect("version of a spool part", u64::from(VERSION), u64::from(version))?;
        let ordinal = r.u8()?;
        if ordinal > 1 {
            let (expected, found) = (1, u64::from(ordinal));
            return Err(DecodeError::Field { what: "ordinal of a spool part", expected, found });
        }
        r.take(5)?;
        let pair = PairId(r.array()?);
        let index = SegmentIndex(r.number("segment of a spool part")?);
        let (base, end) = (position(r)?, position(r)?);
        let (bytes, wall_ms) = (r.u64()?, r.u64()?);
        let sound = bytes.is_multiple_of(BLOCK_U64) && (BLOCK_U64..=BYTES_MAX).contains(&bytes);
        if !sound {
            return Err(DecodeError::Field {
                what: "bytes of a spool part",
                expected: BYTES_MAX,
                found: bytes,
            });
        }
        if end.seq <= base.seq {
            let (expected, found) = (base.seq.0 + 1, end.seq.0);
            return Err(DecodeError::Field { what: "last entry of a spool part", expected, found });
        }
        Ok(Self { pair, ordinal: Ordinal(ordinal), index, base, end, bytes, wall_ms })
    }

    /// Its record in the index.
    #[must_use]
    pub fn record(&self) -> Vec<u8> {
        let mut bytes = self.fields();
        let crc = crc32c(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a record of the index.
    ///
    /// # Errors
    /// Any [`DecodeError`]; the parts tell the same.
    pub fn of_record(bytes: &[u8]) -> Result<Self, DecodeError> {
        let what = "record of a spool's index";
        let mut r = Reader::new(what, bytes);
        let fields = r.take(FIELDS)?;
        let (found, computed) = (r.u32()?, crc32c(fields));
        if computed != found {
            return Err(DecodeError::Checksum { what, found, computed });
        }
        let mut r = Reader::new(what, fields);
        let magic = r.u32()?;
        r.expect("magic of a spool part", u64::from(MAGIC), u64::from(magic))?;
        r.take(4)?;
        Self::of_fields(&mut r)
    }

    /// The first entry that it holds.
    #[must_use]
    pub fn first(&self) -> Seq {
        self.base.seq.next()
    }

    /// The size of the whole file (bytes).
    #[must_use]
    pub const fn file_bytes(&self) -> u64 {
        PART_START + self.bytes + PART_TRAILER as u64
    }

    /// The name of its file: the first entry, the segment and the chain at its end. So parts of histories that parted have
    /// names of their own.
    #[must_use]
    pub fn file_name(&self) -> String {
        format!("{:020}-{:010x}-{:016x}.hbp", self.first().0, self.index.0, self.end.chain.0)
    }
}

/// The end of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartTrailer {
    /// Bytes of the segment, as in the header.
    pub bytes: u64,
    /// BLAKE3 of header and segment.
    pub digest: [u8; 32],
}

impl PartTrailer {
    /// As it stands behind the segment.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::with_capacity(PART_TRAILER);
        w.u16(VERSION).put(&[0; 6]).u64(self.bytes).put(&self.digest).put(&[0; 40]);
        let body = w.into_bytes();
        let mut w = Writer::with_capacity(PART_TRAILER);
        w.u32(TRAILER_MAGIC).u32(crc32c(&body)).put(&body);
        w.into_bytes()
    }

    /// From any bytes.
    ///
    /// # Errors
    /// Any [`DecodeError`]: without its trailer a part does not count.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let what = "trailer of a spool part";
        let mut r = Reader::new(what, bytes);
        let (magic, found) = (r.u32()?, r.u32()?);
        r.expect("magic of the trailer of a spool part", u64::from(TRAILER_MAGIC), u64::from(magic))?;
        let body = r.take(PART_TRAILER - 8)?;
        let computed = crc32c(body);
        if computed != found {
            return Err(DecodeError::Checksum { what, found, computed });
        }
        let mut r = Reader::new(what, body);
        let version = r.u16()?;
        r.expect("version of the trailer of a spool part", u64::from(VERSION), u64::from(version))?;
        r.take(6)?;
        Ok(Self { bytes: r.u64()?, digest: r.array()? })
    }
}

/// Decodes any bytes as each of the three.
pub fn fuzz_spool(bytes: &[u8]) {
    if let Ok(header) = PartHeader::decode(bytes) {
        assert_eq!(PartHeader::decode(&header.encode()), Ok(header));
    }
    if let Ok(header) = PartHeader::of_record(bytes) {
        assert_eq!(PartHeader::of_record(&header.record()), Ok(header));
    }
    if let Ok(trailer) = PartTrailer::decode(bytes) {
        assert_eq!(PartTrailer::decode(&trailer.encode()), Ok(trailer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl PartHeader {
        /// A part of so many blocks, for tests.
        pub(crate) fn sample(index: u64, blocks: u64) -> Self {
            let at = |seq| Position { epoch: Epoch(2), seq: Seq(seq), chain: Chain(seq * 7) };
            Self {
                pair: PairId([3; 16]),
                ordinal: Ordinal(1),
                index: SegmentIndex(index),
                base: at(index * 10),
                end: at(index * 10 + 10),
                bytes: blocks * BLOCK_U64,
                wall_ms: 9,
            }
        }
    }

    fn sample() -> (PartHeader, PartTrailer) {
        let at = |epoch, seq, chain| Position { epoch: Epoch(epoch), seq: Seq(seq), chain: Chain(chain) };
        let header = PartHeader {
            pair: PairId([5; 16]),
            ordinal: Ordinal(1),
            index: SegmentIndex(0x2a),
            base: at(2, 41, 99),
            end: at(4, 1041, 0xfeed),
            bytes: 3 * BLOCK_U64,
            wall_ms: 1_700_000_000_000,
        };
        (header, PartTrailer { bytes: header.bytes, digest: [7; 32] })
    }

    #[test]
    fn the_golden_part_is_byte_for_byte_what_version_1_wrote() {
        let (header, trailer) = sample();
        let made = [&header.encode()[..FIELDS], &header.record(), &trailer.encode()].concat();
        let golden = include_bytes!("../../tests/data/spool-v1.bin");
        assert_eq!(made, golden);
        let mut block = golden[..FIELDS].to_vec();
        block.resize(BLOCK, 0);
        assert_eq!(PartHeader::decode(&block), Ok(header));
        assert_eq!(PartHeader::of_record(&golden[FIELDS..FIELDS + INDEX_RECORD]), Ok(header));
        assert_eq!(PartTrailer::decode(&golden[FIELDS + INDEX_RECORD..]), Ok(trailer));
        assert_eq!(header.file_name(), "00000000000000000042-000000002a-000000000000feed.hbp");
        assert_eq!(header.file_bytes(), 4096 * 4 + 96);
    }

    #[test]
    fn every_single_bit_flip_and_every_cut_is_detected() {
        let (header, trailer) = sample();
        let flips = |bytes: &[u8], sound: &dyn Fn(&[u8]) -> bool| {
            for bit in 0..bytes.len() * 8 {
                let mut bad = bytes.to_vec();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert!(!sound(&bad), "bit {bit} went unnoticed");
                fuzz_spool(&bad);
            }
            for end in 0..bytes.len() {
                assert!(!sound(&bytes[..end]), "cut at {end}");
            }
        };
        flips(&header.encode(), &|bytes| PartHeader::decode(bytes).is_ok());
        flips(&header.record(), &|bytes| PartHeader::of_record(bytes).is_ok());
        flips(&trailer.encode(), &|bytes| PartTrailer::decode(bytes).is_ok());
    }

    #[test]
    fn a_part_that_holds_nothing_or_too_much_is_refused() {
        let (header, _) = sample();
        for bad in [
            PartHeader { bytes: 0, ..header },
            PartHeader { bytes: 4097, ..header },
            PartHeader { bytes: BYTES_MAX + BLOCK_U64, ..header },
            PartHeader { end: header.base, ..header },
            PartHeader { ordinal: Ordinal(2), ..header },
        ] {
            assert!(
                PartHeader::decode(&bad.encode()).is_err() && PartHeader::of_record(&bad.record()).is_err()
            );
        }
    }
}

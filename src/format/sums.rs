//! Checksums of the blocks of a volume: the file that stands beside each part of it.
//!
//! The first 4096 bytes are the header. It stands there twice, at 0 and at 2048; the rest is 0.
//!
//! | offset | size | field | rule |
//! |---|---|---|---|
//! | 0 | 4 | `magic` | `HBc1` |
//! | 4 | 4 | `crc` | CRC32C of bytes 8 .. 64 |
//! | 8 | 2 | `version` | 1 |
//! | 10 | 1 | `complete` | 1: every block that holds anything but zeros has a record; 0: some have none yet |
//! | 11 | 5 | reserved | 0 |
//! | 16 | 8 | `file` | the volume's id; MUST equal the one in the file name |
//! | 24 | 8 | `part` | MUST equal the one in the file name |
//! | 32 | 8 | `block` | 4096 |
//! | 40 | 24 | reserved | 0 |
//!
//! Behind it stands a record of 8 bytes for each block of the part, so the file has one length from the beginning on
//! ([`SUMS_BYTES`]), most of it a hole. A shorter one was cut.
//!
//! | offset | size | field | rule |
//! |---|---|---|---|
//! | 0 | 4 | `sum` | CRC32C of the block's 4096 bytes |
//! | 4 | 4 | `check` | `sum` XOR mask; the mask is the CRC32C of file, part and number of the block (u64 each), or 1 if that is 0 |
//!
//! A record whose `check` is further XORed with `0x6e6f7721` is that of a block which was wrong when a part of it was
//! changed: the block stays wrong until all of it is written.
//!
//! A record of zeros is none. Where the header says `complete`, the block holds zeros then; else nothing is known of it.
//! The two fields are two copies of one checksum: a block that fits either is right, whatever became of the other. Where
//! they contradict each other and neither fits, the record is damaged and says nothing of the block. A record lies
//! within a sector, so no power loss tears it.

use super::{DecodeError, Reader, Writer};
use crate::base::limits::{BLOCK, BLOCK_U64};
use crate::base::{FileId, crc32c, crc32c_append};

const MAGIC: u32 = u32::from_le_bytes(*b"HBc1");
const VERSION: u16 = 1;
/// One copy of the header (bytes).
const HEADER: usize = 64;
/// Where the second copy stands.
const SECOND: usize = 2048;
/// One record (bytes).
pub const RECORD: usize = 8;
const RECORD_U64: u64 = 8;
/// See the module's documentation.
const CONDEMNED: u32 = 0x6e6f_7721;
/// Blocks of a part.
const BLOCKS: u64 = (1 << 40) / BLOCK_U64;
/// The length of the file (bytes).
pub const SUMS_BYTES: u64 = BLOCK_U64 + BLOCKS * RECORD_U64;

/// Where the record of a block stands in the file.
#[must_use]
pub const fn record_at(block: u64) -> u64 {
    BLOCK_U64 + block * RECORD_U64
}

/// The block of which the record stands at this offset, which is behind the header.
#[must_use]
pub const fn block_at(offset: u64) -> u64 {
    offset.saturating_sub(BLOCK_U64) / RECORD_U64
}

/// What the file says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SumHeader {
    /// The volume.
    pub file: FileId,
    /// Its part.
    pub part: u64,
    /// Whether a block without a record holds zeros.
    pub complete: bool,
}

impl SumHeader {
    fn copy(&self) -> Vec<u8> {
        let mut w = Writer::with_capacity(HEADER);
        w.u16(VERSION).u8(u8::from(self.complete)).put(&[0; 5]);
        w.u64(self.file.0).u64(self.part).u64(BLOCK_U64).put(&[0; 24]);
        let body = w.into_bytes();
        let mut w = Writer::with_capacity(HEADER);
        w.u32(MAGIC).u32(crc32c(&body)).put(&body);
        w.into_bytes()
    }

    /// The file's first block.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let copy = self.copy();
        let mut block = copy.clone();
        block.resize(SECOND, 0);
        block.extend_from_slice(&copy);
        block.resize(BLOCK, 0);
        block
    }

    fn decode_copy(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new("checksums of a volume", bytes);
        let (magic, found) = (r.u32()?, r.u32()?);
        r.expect("magic of a volume's checksums", u64::from(MAGIC), u64::from(magic))?;
        let body = r.take(HEADER - 8)?;
        let computed = crc32c(body);
        if found != computed {
            return Err(DecodeError::Checksum { what: "checksums of a volume", found, computed });
        }
        let mut r = Reader::new("checksums of a volume", body);
        let version = r.u16()?;
        r.expect("version of a volume's checksums", u64::from(VERSION), u64::from(version))?;
        let complete = r.u8()?;
        if complete > 1 {
            return Err(DecodeError::Limit { what: "complete", limit: 1, found: u64::from(complete) });
        }
        r.take(5)?;
        let (file, part, block) = (FileId(r.u64()?), r.u64()?, r.u64()?);
        r.expect("block of a volume's checksums", BLOCK_U64, block)?;
        Ok(Self { file, part, complete: complete == 1 })
    }

    /// From the file's first block. One whole copy is enough; where both are whole and differ, the second was to follow
    /// the first, and the more cautious one counts.
    ///
    /// # Errors
    /// What is wrong with the first copy, if neither is whole.
    pub fn decode(block: &[u8]) -> Result<Self, DecodeError> {
        let first = Self::decode_copy(block);
        match (first, Self::decode_copy(block.get(SECOND..).unwrap_or_default())) {
            (Ok(a), Ok(b)) => Ok(Self { complete: a.complete && b.complete, ..a }),
            (Ok(one), Err(_)) | (Err(_), Ok(one)) => Ok(one),
            (Err(error), Err(_)) => Err(error),
        }
    }
}

/// What a record says of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is what was written.
    Right,
    /// It is what was written, and one of the two copies of its checksum is not.
    Mend,
    /// It holds something, and there is no record.
    NoRecord,
    /// The copies contradict each other, and neither fits.
    BadRecord,
    /// It is not what was written.
    Rotten,
    /// It was not what was written when a part of it was changed.
    Condemned,
}

/// Makes and reads the records of one part.
#[derive(Clone, Copy, Debug)]
pub struct SumKey(u32);

impl SumKey {
    /// Of a part of a volume.
    #[must_use]
    pub fn new(file: FileId, part: u64) -> Self {
        Self(crc32c_append(crc32c(&file.0.to_le_bytes()), &part.to_le_bytes()))
    }

    fn mask(self, block: u64) -> u32 {
        crc32c_append(self.0, &block.to_le_bytes()).max(1)
    }

    /// The record of a block with this CRC32C.
    #[must_use]
    pub fn record(self, block: u64, sum: u32) -> [u8; RECORD] {
        let (low, high) = (u64::from(sum), u64::from(sum ^ self.mask(block)));
        (high << 32 | low).to_le_bytes()
    }

    /// The record of a block with this CRC32C that was wrong before a part of it was changed.
    #[must_use]
    pub fn condemned(self, block: u64, sum: u32) -> [u8; RECORD] {
        (u64::from_le_bytes(self.record(block, sum)) ^ u64::from(CONDEMNED) << 32).to_le_bytes()
    }

    /// Whether a record is of [`Self::condemned`].
    #[must_use]
    pub fn is_condemned(self, block: u64, record: [u8; RECORD]) -> bool {
        let (first, second) = halves(record);
        record != [0; RECORD] && first ^ second ^ self.mask(block) == CONDEMNED
    }

    /// What its record says of a block and its 4096 bytes.
    #[must_use]
    pub fn judge(self, block: u64, record: [u8; RECORD], bytes: &[u8]) -> Verdict {
        if record == [0; RECORD] {
            return if is_zero(bytes) { Verdict::Right } else { Verdict::NoRecord };
        }
        if self.is_condemned(block, record) {
            return Verdict::Condemned;
        }
        let (first, second) = halves(record);
        let (second, sum) = (second ^ self.mask(block), crc32c(bytes));
        match (sum == first, sum == second) {
            (true, true) => Verdict::Right,
            (false, false) if first == second => Verdict::Rotten,
            (false, false) => Verdict::BadRecord,
            _ => Verdict::Mend,
        }
    }
}

fn halves([a, b, c, d, e, f, g, h]: [u8; RECORD]) -> (u32, u32) {
    (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]))
}

/// Whether all bytes are zeros.
#[must_use]
pub fn is_zero(bytes: &[u8]) -> bool {
    let (chunks, rest) = bytes.as_chunks::<16>();
    chunks.iter().all(|chunk| u128::from_le_bytes(*chunk) == 0) && rest.iter().all(|byte| *byte == 0)
}

/// Decodes any bytes as the first block of a file of checksums.
pub fn fuzz_sums(bytes: &[u8]) {
    if let Ok(header) = SumHeader::decode(bytes) {
        assert_eq!(SumHeader::decode(&header.encode()), Ok(header));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> SumHeader {
        SumHeader { file: FileId(0x0102_0304), part: 3, complete: true }
    }

    #[test]
    fn the_golden_file_is_byte_for_byte_what_version_1_wrote() {
        let key = SumKey::new(sample().file, sample().part);
        let block: Vec<u8> = (0..BLOCK).map(|n| u8::try_from(n % 251).unwrap()).collect();
        let mut file = sample().encode();
        for n in [0, 2] {
            file.resize(usize::try_from(record_at(n)).unwrap(), 0);
            file.extend_from_slice(&key.record(n, crc32c(&block)));
        }
        let golden = include_bytes!("../../tests/data/volume-sums-v1.bin");
        assert!(file == golden, "the format changed");
        assert_eq!(SumHeader::decode(golden), Ok(sample()));
        let record = |n: u64| golden[usize::try_from(record_at(n)).unwrap()..][..RECORD].try_into().unwrap();
        for (n, bytes, verdict) in [
            (0, block.as_slice(), Verdict::Right),
            (1, &[0; BLOCK], Verdict::Right),
            (1, &block, Verdict::NoRecord),
            (2, &block, Verdict::Right),
            (2, &[0; BLOCK], Verdict::Rotten),
        ] {
            assert_eq!(key.judge(n, record(n), bytes), verdict, "block {n}");
        }
        // A record that stands at another block's place is no checksum of that block.
        assert_eq!(key.judge(0, record(2), &block), Verdict::Mend);
        assert_eq!(key.judge(0, record(2), &[1; BLOCK]), Verdict::BadRecord);
    }

    #[test]
    fn one_whole_copy_of_the_header_is_enough_and_of_two_the_more_cautious_counts() {
        let whole = sample().encode();
        for bit in 0..BLOCK * 8 {
            let mut bad = whole.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(SumHeader::decode(&bad), Ok(sample()), "bit {bit}");
            // The same in both copies.
            if bit / 8 < HEADER {
                bad[SECOND + bit / 8] ^= 1 << (bit % 8);
                assert!(SumHeader::decode(&bad).is_err(), "bit {bit} of both went unnoticed");
            }
            fuzz_sums(&bad);
        }
        let open = SumHeader { complete: false, ..sample() }.encode();
        let mixed = [&open[..SECOND], &whole[SECOND..]].concat();
        assert!(!SumHeader::decode(&mixed).unwrap().complete);
        for end in 0..=SECOND {
            assert_eq!(SumHeader::decode(&whole[..end]).is_ok(), end >= HEADER, "cut at {end}");
        }
    }

    #[test]
    fn every_wrong_byte_of_a_block_is_seen_and_every_wrong_byte_of_a_record_harms_nothing() {
        let key = SumKey::new(FileId(7), 1);
        let block: Vec<u8> = (0..BLOCK).map(|n| u8::try_from(n % 253).unwrap()).collect();
        let record = key.record(9, crc32c(&block));
        let condemned = key.condemned(9, crc32c(&block));
        assert_eq!(key.judge(9, condemned, &block), Verdict::Condemned);
        assert!(
            key.is_condemned(9, condemned) && !key.is_condemned(9, record) && !key.is_condemned(9, [0; 8])
        );
        for at in 0..BLOCK {
            let mut bad = block.clone();
            bad[at] ^= 0x40;
            assert_eq!(key.judge(9, record, &bad), Verdict::Rotten, "byte {at}");
        }
        for at in 0..RECORD {
            for flip in 1..=255 {
                let mut bad = record;
                bad[at] ^= flip;
                assert_eq!(key.judge(9, bad, &block), Verdict::Mend, "byte {at}");
                assert_eq!(key.judge(9, bad, &[3; BLOCK]), Verdict::BadRecord, "byte {at}");
            }
        }
    }
}

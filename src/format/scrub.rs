//! What a node keeps of its scrubs.
//!
//! | offset | size | field | rule |
//! |---|---|---|---|
//! | 0 | 4 | `magic` | `HBq1` |
//! | 4 | 4 | `crc` | CRC32C of bytes 8 .. 64 |
//! | 8 | 2 | `version` | 1 |
//! | 10 | 6 | reserved | 0 |
//! | 16 | 8 | `began_ms` | when the last scrub of everything began (milliseconds since 1970); 0: never |
//! | 24 | 8 | `ended_ms` | when the last one that came to its end did; 0: never |
//! | 32 | 8 | `read` | bytes that it read |
//! | 40 | 8 | `wrong` | places that it found wrong |
//! | 48 | 8 | `file` | the volume at which the one that began last is; 0: it is at its end |
//! | 56 | 8 | `offset` | where in that volume (bytes) |

use super::{DecodeError, Reader, Writer};
use crate::base::{FileId, crc32c};

const MAGIC: u32 = u32::from_le_bytes(*b"HBq1");
const VERSION: u16 = 1;
/// Its size (bytes).
pub const SCRUB_RECORD: usize = 64;

/// See the module's documentation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScrubRecord {
    /// When the last scrub of everything began (milliseconds since 1970); 0 if none did.
    pub began_ms: u64,
    /// When the last one that came to its end did; 0 if none did.
    pub ended_ms: u64,
    /// Bytes read by the scrub of which this tells.
    pub read: u64,
    /// Places that it found wrong.
    pub wrong: u64,
    /// The volume at which it is; 0 at its end.
    pub file: FileId,
    /// Where in that volume (bytes).
    pub offset: u64,
}

impl ScrubRecord {
    /// As it is kept.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::with_capacity(SCRUB_RECORD);
        w.u16(VERSION).put(&[0; 6]).u64(self.began_ms).u64(self.ended_ms).u64(self.read).u64(self.wrong);
        w.u64(self.file.0).u64(self.offset);
        let body = w.into_bytes();
        let mut w = Writer::with_capacity(SCRUB_RECORD);
        w.u32(MAGIC).u32(crc32c(&body)).put(&body);
        w.into_bytes()
    }

    /// From any bytes.
    ///
    /// # Errors
    /// [`DecodeError`]; the last scrub is not known then.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let what = "record of the last scrub";
        let mut r = Reader::new(what, bytes);
        let (magic, found) = (r.u32()?, r.u32()?);
        r.expect("magic of the record of the last scrub", u64::from(MAGIC), u64::from(magic))?;
        let body = r.take(SCRUB_RECORD - 8)?;
        let computed = crc32c(body);
        if found != computed {
            return Err(DecodeError::Checksum { what, found, computed });
        }
        let mut r = Reader::new(what, body);
        let version = r.u16()?;
        r.expect("version of the record of the last scrub", u64::from(VERSION), u64::from(version))?;
        r.take(6)?;
        let (began_ms, ended_ms, read, wrong) = (r.u64()?, r.u64()?, r.u64()?, r.u64()?);
        Ok(Self { began_ms, ended_ms, read, wrong, file: FileId(r.u64()?), offset: r.u64()? })
    }
}

/// Decodes any bytes as the record of the last scrub.
pub fn fuzz_scrub(bytes: &[u8]) {
    if let Ok(record) = ScrubRecord::decode(bytes) {
        assert_eq!(ScrubRecord::decode(&record.encode()), Ok(record));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_golden_record_is_byte_for_byte_what_version_1_wrote() {
        let record = ScrubRecord {
            began_ms: 1_700_000_000_000,
            ended_ms: 1_700_000_123_456,
            read: 99_999,
            wrong: 2,
            file: FileId(7),
            offset: 4096,
        };
        let golden = include_bytes!("../../tests/data/scrub-v1.bin");
        assert_eq!(record.encode(), golden);
        assert_eq!(ScrubRecord::decode(golden), Ok(record));
        for bit in 0..golden.len() * 8 {
            let mut bad = golden.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(ScrubRecord::decode(&bad).is_err(), "bit {bit} went unnoticed");
            fuzz_scrub(&bad);
        }
        for end in 0..golden.len() {
            assert!(ScrubRecord::decode(&golden[..end]).is_err());
        }
    }
}

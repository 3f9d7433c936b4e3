//! The control file: the small durable state that says who this node is allowed to be.
//!
//! | size | field |
//! |---|---|
//! | 4 | `magic` `HBc1` |
//! | 4 | `crc`: CRC32C of all that follows |
//! | 2 | `version` 1 |
//! | 1 | `role`: 0 standby, 1 primary, 2 diverged |
//! | 1 | reserved |
//! | 16 | pair id |
//! | 8 | `epoch`: the highest epoch this node has opened or accepted |
//! | 4 | number of epochs in the table, then for each: epoch u64, `first_seq` u64, `prev_chain` u64 |
//!
//! It is replaced whole: written beside, synced, renamed over the old one, the directory synced.

use super::{DecodeError, PairId, Reader, Writer};
use crate::base::limits::EPOCH_TABLE_MAX;
use crate::base::{Chain, Epoch, Seq, crc32c};
use serde::{Deserialize, Serialize};

const MAGIC: u32 = u32::from_le_bytes(*b"HBc1");
const VERSION: u16 = 1;

/// What a node may do, as it stands on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Holds a copy; may take over.
    Standby,
    /// Serves the users, once it knows that the other does not.
    Primary,
    /// Was primary; holds entries that the pair never kept. Serves nobody until it was rewound.
    Diverged,
}

impl Role {
    /// The word in status and messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Standby => "standby",
            Self::Primary => "primary",
            Self::Diverged => "diverged",
        }
    }

    /// The byte in control files and hellos.
    #[must_use]
    pub fn byte(self) -> u8 {
        match self {
            Self::Standby => 0,
            Self::Primary => 1,
            Self::Diverged => 2,
        }
    }

    /// From the byte in control files and hellos.
    ///
    /// # Errors
    /// [`DecodeError::Field`].
    pub fn from_byte(byte: u8) -> Result<Self, DecodeError> {
        match byte {
            0 => Ok(Self::Standby),
            1 => Ok(Self::Primary),
            2 => Ok(Self::Diverged),
            other => Err(DecodeError::Field { what: "role", expected: 2, found: u64::from(other) }),
        }
    }
}

/// Where an epoch begins in the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochMark {
    /// The epoch.
    pub epoch: Epoch,
    /// Its first entry.
    pub first_seq: Seq,
    /// The history before that entry.
    pub prev_chain: Chain,
}

impl EpochMark {
    /// Bytes in control files and hellos.
    pub const LEN: usize = 24;

    /// Appends the three fields.
    pub fn encode(&self, w: &mut Writer) {
        w.u64(self.epoch.0).u64(self.first_seq.0).u64(self.prev_chain.0);
    }

    /// Reads `count` marks; epochs and first entries must grow.
    ///
    /// # Errors
    /// Any [`DecodeError`]; never panics, never allocates for marks that are not there.
    pub fn decode_table(r: &mut Reader<'_>, count: usize, limit: usize) -> Result<Vec<Self>, DecodeError> {
        if count > limit {
            let (limit, found) = (limit as u64, count as u64);
            return Err(DecodeError::Limit { what: "epoch table", limit, found });
        }
        if r.rest().len() < count * Self::LEN {
            let (needed, found) = (count * Self::LEN, r.rest().len());
            return Err(DecodeError::Short { what: "epoch table", needed, found });
        }
        let mut table: Vec<Self> = Vec::with_capacity(count);
        for _ in 0..count {
            let mark = Self { epoch: Epoch(r.u64()?), first_seq: Seq(r.u64()?), prev_chain: Chain(r.u64()?) };
            if let Some(last) = table.last()
                && (last.epoch >= mark.epoch || last.first_seq >= mark.first_seq)
            {
                let (expected, found) = (last.epoch.0.saturating_add(1), mark.epoch.0);
                return Err(DecodeError::Field { what: "epoch table order", expected, found });
            }
            table.push(mark);
        }
        Ok(table)
    }
}

/// The control file's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Control {
    /// The role this node has, pending what the peer says.
    pub role: Role,
    /// The pair.
    pub pair: PairId,
    /// The highest epoch opened or accepted.
    pub epoch: Epoch,
    /// Where each epoch of this node's history begins, oldest first.
    pub table: Vec<EpochMark>,
}

impl Control {
    /// The file's bytes. Only the newest [`EPOCH_TABLE_MAX`] epochs are kept.
    ///
    /// # Panics
    /// Never.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let skip = self.table.len().saturating_sub(EPOCH_TABLE_MAX);
        let kept = self.table.get(skip..).unwrap_or_default();
        let mut w = Writer::with_capacity(64 + kept.len() * EpochMark::LEN);
        w.u32(MAGIC).u32(0).u16(VERSION).u8(self.role.byte()).u8(0).put(&self.pair.0).u64(self.epoch.0);
        w.u32(u32::try_from(kept.len()).expect("limit fits"));
        kept.iter().for_each(|mark| mark.encode(&mut w));
        let mut bytes = w.into_bytes();
        let crc = crc32c(bytes.get(8..).unwrap_or_default());
        if let Some(field) = bytes.get_mut(4..8) {
            field.copy_from_slice(&crc.to_le_bytes());
        }
        bytes
    }

    /// Reads a control file.
    ///
    /// # Errors
    /// Any [`DecodeError`]; never panics.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new("control file", bytes);
        let magic = r.u32()?;
        r.expect("control file magic", u64::from(MAGIC), u64::from(magic))?;
        let found = r.u32()?;
        let computed = crc32c(r.rest());
        if computed != found {
            return Err(DecodeError::Checksum { what: "control file", found, computed });
        }
        let version = r.u16()?;
        r.expect("control file version", u64::from(VERSION), u64::from(version))?;
        let role = Role::from_byte(r.u8()?)?;
        r.u8()?;
        let pair = PairId(r.array()?);
        let epoch = Epoch(r.u64()?);
        let count = r.u32()? as usize;
        let table = EpochMark::decode_table(&mut r, count, EPOCH_TABLE_MAX)?;
        r.expect("bytes after the control file", 0, r.rest().len() as u64)?;
        Ok(Self { role, pair, epoch, table })
    }
}

/// Decodes any bytes as a control file.
pub fn fuzz_control(bytes: &[u8]) {
    if let Ok(control) = Control::decode(bytes) {
        assert_eq!(Control::decode(&control.encode()), Ok(control));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Control {
        let mark = |e, s| EpochMark { epoch: Epoch(e), first_seq: Seq(s), prev_chain: Chain(e * 7) };
        Control {
            role: Role::Primary,
            pair: PairId([9; 16]),
            epoch: Epoch(5),
            table: vec![mark(2, 1), mark(5, 40)],
        }
    }

    #[test]
    fn the_golden_control_file_is_byte_for_byte_what_version_1_wrote() {
        let golden = include_bytes!("../../tests/data/control-v1.bin");
        assert_eq!(sample().encode(), golden);
        assert_eq!(Control::decode(golden), Ok(sample()));
    }

    #[test]
    fn a_control_file_reads_back_and_every_bit_flip_is_detected() {
        let bytes = sample().encode();
        assert_eq!(Control::decode(&bytes), Ok(sample()));
        for bit in 0..bytes.len() * 8 {
            let mut bad = bytes.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(Control::decode(&bad).is_err(), "bit {bit} went unnoticed");
            fuzz_control(&bad);
        }
    }
}

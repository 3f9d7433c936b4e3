//! The control file: the small durable state that says who this node is allowed to be.
//!
//! | size | field |
//! |---|---|
//! | 4 | `magic` `HBc1` |
//! | 4 | `crc`: CRC32C of all that follows |
//! | 2 | `version` 3; a file of version 1 ends behind the epochs, one of version 2 behind the peer's record |
//! | 1 | `role`: 0 standby, 1 primary, 2 diverged, 3 incomplete |
//! | 1 | reserved |
//! | 16 | pair id |
//! | 8 | `epoch`: the highest epoch this node has opened or accepted |
//! | 4 | number of epochs in the table, then for each: epoch u64, `first_seq` u64, `prev_chain` u64 |
//! | 8 | the peer's highest epoch, see [`PeerRecord`] |
//! | 8 | the last entry that the peer said is on its disk |
//! | 8 | the last entry that the peer has now, as far as its last word tells |
//! | 8 | the last entry that the peer's hellos offered |
//! | 8 | the epoch of that entry |
//! | 8 | the last entry that both had when it was offered |
//! | 8 | the last entry that the peer has known to be on this node's disk |
//! | 8 | the last entry that the peer may have answered for because this node acknowledged it |
//! | 1 | bit 0: the record may be behind; bit 1: the two histories cannot be joined; bit 2: this primary gave its role away; bit 3: restored from a save; others 0 |
//! | 24 | where this node's history begins, see [`Origin`]: epoch u64, seq u64, chain u64 |
//! | 8 | the first segment of that history |
//!
//! Epochs and sequence numbers are at most [`NUMBER_MAX`](crate::base::limits::NUMBER_MAX). A reader refuses a higher
//! version by name. Golden files: `tests/data/control-v1.bin`, `tests/data/control-v2.bin`, `tests/data/control-v3.bin`.
//!
//! It is replaced whole: written beside, synced, renamed over the old one, the directory synced.

use super::{DecodeError, PairId, Reader, Writer};
use crate::base::limits::EPOCH_TABLE_MAX;
use crate::base::{Chain, Epoch, Position, SegmentIndex, Seq, crc32c};
use serde::{Deserialize, Serialize};

const MAGIC: u32 = u32::from_le_bytes(*b"HBc1");
const VERSION: u16 = 3;
/// Version 2 had no [`Origin`].
const VERSION_WITHOUT_ORIGIN: u16 = 2;
/// Version 1 had no [`PeerRecord`].
const VERSION_WITHOUT_PEER: u16 = 1;

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
    /// Is given a copy that is not whole yet. Serves nobody and takes nothing over.
    Incomplete,
}

impl Role {
    /// The word in status and messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Standby => "standby",
            Self::Primary => "primary",
            Self::Diverged => "diverged",
            Self::Incomplete => "incomplete",
        }
    }

    /// The byte in control files and hellos.
    #[must_use]
    pub fn byte(self) -> u8 {
        match self {
            Self::Standby => 0,
            Self::Primary => 1,
            Self::Diverged => 2,
            Self::Incomplete => 3,
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
            3 => Ok(Self::Incomplete),
            other => Err(DecodeError::Field { what: "role", expected: 3, found: u64::from(other) }),
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
            let epoch = Epoch(r.number("epoch in the table")?);
            let first_seq = Seq(r.number("first entry of an epoch")?);
            let mark = Self { epoch, first_seq, prev_chain: Chain(r.u64()?) };
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

/// What the peer has told of both journals. It is kept on disk because the peer may be gone when it matters.
///
/// Example: this node is a standby whose directory was replaced by an older copy that ends at entry 4. The primary's hello
/// says that it has entry 90 on disk (`offered`) and that this node once acknowledged entry 80 (`known_here`). Entries 5 to
/// 90 are missing here; of those, 5 to 80 may have been answered at level `durable`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerRecord {
    /// The highest epoch that the peer was heard in. This node opens no epoch at or below it.
    pub epoch: Epoch,
    /// The last entry that the peer ever said is on its disk: a primary in any frame, a standby in its acknowledgements.
    pub on_disk: Seq,
    /// The last entry that the peer has now, as far as its last word tells. Below `on_disk` if the peer was set back.
    pub holds: Seq,
    /// The last entry that the peer offered in a hello while this node lacked it.
    pub offered: Seq,
    /// The epoch of that entry. Above that of this node's end if this node has nothing of that epoch.
    pub offered_epoch: Epoch,
    /// The last entry that both nodes had when it was offered.
    pub shared: Seq,
    /// The last entry that the peer has known to be on this node's disk. Above this node's end if it was set back.
    pub known_here: Seq,
    /// The last entry that the peer may have answered for at level `durable` because this node acknowledged it.
    pub relied_on: Seq,
    /// Acknowledgements were counted on after this was written, so `on_disk` may be behind.
    pub open: bool,
    /// One of the two needs a full copy: its journal and that of the other cannot be joined.
    pub apart: bool,
    /// This node, a primary, gives its role to the peer, or has done so. It serves only once it was told that the peer does
    /// not.
    pub promised: bool,
    /// This node was restored from a save, and has not been joined to the pair since: what came after that is not known.
    pub restored: bool,
    /// This node took over with a part of a copy: the peer is not made what is here before an operator accepts that there.
    pub partial: bool,
    /// The peer took over with a part of a copy, and this node keeps what it has.
    pub spared: bool,
}

impl PeerRecord {
    fn encode(&self, w: &mut Writer) {
        w.u64(self.epoch.0).u64(self.on_disk.0).u64(self.holds.0).u64(self.offered.0);
        w.u64(self.offered_epoch.0).u64(self.shared.0);
        w.u64(self.known_here.0).u64(self.relied_on.0).u8(self.flags());
    }

    fn flags(&self) -> u8 {
        let states = [self.open, self.apart, self.promised, self.restored, self.partial, self.spared];
        states.iter().rev().fold(0, |flags, state| flags << 1 | u8::from(*state))
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let epoch = Epoch(r.number("epoch of the peer")?);
        let mut number = || r.number("entry of the peer");
        let (on_disk, holds, offered) = (Seq(number()?), Seq(number()?), Seq(number()?));
        let offered_epoch = Epoch(number()?);
        let (shared, known_here, relied_on) = (Seq(number()?), Seq(number()?), Seq(number()?));
        let flags = r.u8()?;
        if flags > 63 {
            let (expected, found) = (63, u64::from(flags));
            return Err(DecodeError::Field { what: "flags of the peer's record", expected, found });
        }
        let [open, apart, promised, restored, partial, spared] =
            [1, 2, 4, 8, 16, 32].map(|flag| flags & flag != 0);
        Ok(Self {
            epoch,
            on_disk,
            holds,
            offered,
            offered_epoch,
            shared,
            known_here,
            relied_on,
            open,
            apart,
            promised,
            restored,
            partial,
            spared,
        })
    }
}

/// Where the replicated history of a node begins that was given a copy. Zeros if it has all from entry 1 on, or had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The history up to here came as a copy.
    pub at: Position,
    /// Segments of the replicated journal below this number are of another history, and no part of this one.
    pub first_segment: SegmentIndex,
}

impl Origin {
    fn encode(&self, w: &mut Writer) {
        let Self { at, first_segment } = self;
        w.u64(at.epoch.0).u64(at.seq.0).u64(at.chain.0).u64(first_segment.0);
    }

    fn decode(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let epoch = Epoch(r.number("epoch of the origin")?);
        let at = Position { epoch, seq: Seq(r.number("entry of the origin")?), chain: Chain(r.u64()?) };
        Ok(Self { at, first_segment: SegmentIndex(r.number("first segment")?) })
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
    /// What the peer told.
    pub peer: PeerRecord,
    /// Where this node's history begins.
    pub origin: Origin,
}

impl Control {
    /// Of a node that has opened or accepted no epoch and has heard nothing of its peer.
    #[must_use]
    pub fn new(role: Role, pair: PairId) -> Self {
        Self {
            role,
            pair,
            epoch: Epoch(0),
            table: Vec::new(),
            peer: PeerRecord::default(),
            origin: Origin::default(),
        }
    }

    /// The file's bytes. Only the newest [`EPOCH_TABLE_MAX`] epochs are kept.
    ///
    /// # Panics
    /// Never.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let skip = self.table.len().saturating_sub(EPOCH_TABLE_MAX);
        let kept = self.table.get(skip..).unwrap_or_default();
        let mut w = Writer::with_capacity(128 + kept.len() * EpochMark::LEN);
        w.u32(MAGIC).u32(0).u16(VERSION).u8(self.role.byte()).u8(0).put(&self.pair.0).u64(self.epoch.0);
        w.u32(u32::try_from(kept.len()).expect("limit fits"));
        kept.iter().for_each(|mark| mark.encode(&mut w));
        self.peer.encode(&mut w);
        self.origin.encode(&mut w);
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
        if !matches!(version, VERSION_WITHOUT_PEER | VERSION_WITHOUT_ORIGIN) {
            r.expect("control file version", u64::from(VERSION), u64::from(version))?;
        }
        let role = Role::from_byte(r.u8()?)?;
        r.u8()?;
        let pair = PairId(r.array()?);
        let epoch = Epoch(r.number("epoch")?);
        let count = r.u32()? as usize;
        let table = EpochMark::decode_table(&mut r, count, EPOCH_TABLE_MAX)?;
        let peer = match version {
            // What its primary may have relied on is not known.
            VERSION_WITHOUT_PEER => PeerRecord { open: true, ..PeerRecord::default() },
            _ => PeerRecord::decode(&mut r)?,
        };
        let origin = if version == VERSION { Origin::decode(&mut r)? } else { Origin::default() };
        r.expect("bytes after the control file", 0, r.rest().len() as u64)?;
        Ok(Self { role, pair, epoch, table, peer, origin })
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
            peer: PeerRecord {
                epoch: Epoch(4),
                on_disk: Seq(38),
                holds: Seq(12),
                offered: Seq(90),
                offered_epoch: Epoch(4),
                shared: Seq(37),
                known_here: Seq(80),
                relied_on: Seq(81),
                open: true,
                apart: false,
                promised: false,
                restored: false,
                partial: false,
                spared: false,
            },
            origin: Origin {
                at: Position { epoch: Epoch(2), seq: Seq(30), chain: Chain(77) },
                first_segment: SegmentIndex(12),
            },
        }
    }

    #[test]
    fn the_golden_control_file_is_byte_for_byte_what_this_version_writes() {
        let golden = include_bytes!("../../tests/data/control-v3.bin");
        assert_eq!(sample().encode(), golden);
        assert_eq!(Control::decode(golden), Ok(sample()));
    }

    #[test]
    fn a_takeover_with_a_part_of_a_copy_is_written_on_both_nodes_and_an_older_program_refuses_such_a_file() {
        for (peer, flags) in [
            (PeerRecord { partial: true, ..sample().peer }, 1 | 16),
            (PeerRecord { spared: true, ..sample().peer }, 1 | 32),
        ] {
            let control = Control { peer, ..sample() };
            let bytes = control.encode();
            // Programs before this one knew flags up to 15.
            assert_eq!(bytes[152], flags);
            assert_eq!(Control::decode(&bytes), Ok(control));
        }
    }

    #[test]
    fn a_control_file_that_version_2_wrote_is_read_as_one_of_a_whole_history() {
        let golden = include_bytes!("../../tests/data/control-v2.bin");
        assert_eq!(Control::decode(golden), Ok(Control { origin: Origin::default(), ..sample() }));
    }

    #[test]
    fn a_control_file_that_version_1_wrote_is_read_as_one_that_knows_nothing_of_the_peer() {
        let golden = include_bytes!("../../tests/data/control-v1.bin");
        let peer = PeerRecord { open: true, ..PeerRecord::default() };
        let origin = Origin::default();
        assert_eq!(Control::decode(golden), Ok(Control { peer, origin, ..sample() }));
    }

    #[test]
    fn a_higher_version_and_numbers_that_nothing_can_follow_are_refused_by_name() {
        let sealed = |mut bytes: Vec<u8>| {
            let crc = crc32c(&bytes[8..]);
            bytes[4..8].copy_from_slice(&crc.to_le_bytes());
            bytes
        };
        let with = |at: usize, bytes: &[u8]| {
            let mut file = sample().encode();
            file[at..at + bytes.len()].copy_from_slice(bytes);
            Control::decode(&sealed(file)).unwrap_err().to_string()
        };
        assert_eq!(with(8, &4_u16.to_le_bytes()), "control file version: expected 3, found 4");
        let last = u64::MAX.to_le_bytes();
        let numbers = [
            (28, "epoch"),
            (40, "epoch in the table"),
            (48, "first entry of an epoch"),
            (88, "epoch of the peer"),
            (153, "epoch of the origin"),
            (161, "entry of the origin"),
            (177, "first segment"),
        ];
        for (at, what) in numbers.into_iter().chain((96..152).step_by(8).map(|at| (at, "entry of the peer")))
        {
            let expected = format!("{what}: {} is over the limit of {}", u64::MAX, u64::MAX / 2);
            assert_eq!(with(at, &last), expected, "at {at}");
            // The largest number that is taken has a successor.
            let mut file = sample().encode();
            file[at..at + 8].copy_from_slice(&(u64::MAX / 2).to_le_bytes());
            fuzz_control(&sealed(file));
        }
        assert!(with(152, &[64]).starts_with("flags of the peer's record"));
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

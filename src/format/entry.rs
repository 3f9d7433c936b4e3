//! An entry: one change, as it stands inside a batch.
//!
//! | offset | size | field | rule |
//! |---|---|---|---|
//! | 0 | 4 | `len` | whole entry in bytes; MUST be 24 + `id_len` + `value_len` |
//! | 4 | 1 | `kind` | [`EntryKind`]; an unknown one is refused, never skipped |
//! | 5 | 1 | `flags` | 0 |
//! | 6 | 2 | `id_len` | at most 255 |
//! | 8 | 8 | `file` | id of the file or account that changes |
//! | 16 | 4 | `value_len` | at most 16 MiB + 1 KiB |
//! | 20 | 4 | reserved | 0 |
//! | 24 | `id_len` | `id` | item id; where, for changes of blocks; empty for changes of files and accounts |
//! | .. | `value_len` | `value` | item value, blocks, or the encoded D-pointer (see [`super::dptr`]) |
//!
//! The `id` of a change of blocks (see [`BlockChange`]) is an offset in the volume u64, and for those without a
//! payload the length u64 (both bytes; no alignment is asked for). Offset and length MUST NOT reach beyond 64 TiB, and
//! the length MUST NOT be 0. The size of the volume is not looked at: whoever made the entry did.

use super::{DecodeError, Reader};
use crate::base::FileId;
use crate::base::limits::{ITEM_ID_MAX, ITEM_VALUE_MAX, VOLUME_MAX};

/// Bytes before id and value.
pub const ENTRY_HEADER: usize = 24;
/// Bytes of the id of an [`EntryKind::BlockWrite`].
pub const BLOCK_WRITE_ID: usize = 8;
const VALUE_MAX: usize = ITEM_VALUE_MAX + 1024;

/// What an entry changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
#[non_exhaustive]
pub enum EntryKind {
    /// The item `id` of `file` holds `value` from now on.
    Put = 1,
    /// The item `id` of `file` is gone.
    Delete = 2,
    /// The volume `file` holds `value` at the offset in `id` from now on.
    BlockWrite = 3,
    /// A range of the volume reads as zeros from now on, and need not take space.
    BlockPunch = 4,
    /// A range of the volume reads as zeros from now on, and space for it stays taken.
    BlockZero = 5,
    /// `file` is an account id; `value` its D-pointer. Creating what exists with the same id changes nothing.
    AccountCreate = 16,
    /// The account is gone, and with it the files it holds.
    AccountDelete = 17,
    /// The account's D-pointer changed (name or flags); `value` is the new one.
    AccountChange = 18,
    /// `value` is the new file's D-pointer.
    FileCreate = 20,
    /// The file and its items are gone.
    FileDelete = 21,
    /// The file's items are gone; `value` is its D-pointer with the new generation.
    FileClear = 22,
    /// The file's D-pointer changed (name, flags, state); `value` is the new one.
    FileChange = 24,
    /// A file's content follows as puts from the node whose ordinal stands in `value` (1 byte): elsewhere what was
    /// there is dropped, and the file is incomplete until [`EntryKind::CopyEnd`].
    CopyBegin = 25,
    /// The file is complete again.
    CopyEnd = 26,
    /// The first entry of every epoch; `value` is an [`EpochStart`].
    EpochStart = 32,
    /// The database's logging mode changed; `value` is one byte, see [`super::dptr::LoggingMode`].
    Logging = 33,
}

impl EntryKind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Put,
            2 => Self::Delete,
            3 => Self::BlockWrite,
            4 => Self::BlockPunch,
            5 => Self::BlockZero,
            16 => Self::AccountCreate,
            17 => Self::AccountDelete,
            18 => Self::AccountChange,
            20 => Self::FileCreate,
            21 => Self::FileDelete,
            22 => Self::FileClear,
            24 => Self::FileChange,
            25 => Self::CopyBegin,
            26 => Self::CopyEnd,
            32 => Self::EpochStart,
            33 => Self::Logging,
            _ => return None,
        })
    }

    /// Whether it is a change of a range of a volume.
    #[must_use]
    pub fn changes_blocks(self) -> bool {
        matches!(self, Self::BlockWrite | Self::BlockPunch | Self::BlockZero)
    }

    /// Whether it changes accounts, files or the database rather than what is in a file.
    #[must_use]
    pub fn defines(self) -> bool {
        !matches!(self, Self::Put | Self::Delete | Self::EpochStart) && !self.changes_blocks()
    }

    /// Whether it changes blocks, or a file as a whole, which may be a volume.
    #[must_use]
    pub fn may_change_volumes(self) -> bool {
        self.changes_blocks()
            || matches!(self, Self::AccountDelete | Self::FileDelete | Self::FileClear | Self::CopyBegin)
    }

    /// The word in listings.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Delete => "delete",
            Self::BlockWrite => "block-write",
            Self::BlockPunch => "block-punch",
            Self::BlockZero => "block-zero",
            Self::AccountCreate => "account-create",
            Self::AccountDelete => "account-delete",
            Self::AccountChange => "account-change",
            Self::FileCreate => "file-create",
            Self::FileDelete => "file-delete",
            Self::FileClear => "file-clear",
            Self::FileChange => "file-change",
            Self::CopyBegin => "copy-begin",
            Self::CopyEnd => "copy-end",
            Self::EpochStart => "epoch-start",
            Self::Logging => "logging",
        }
    }
}

/// One change, borrowed from a batch or from its maker.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// What changes.
    pub kind: EntryKind,
    /// Where.
    pub file: FileId,
    /// The item, or empty.
    pub id: &'a [u8],
    /// The new content, or empty.
    pub value: &'a [u8],
}

impl std::fmt::Debug for Entry<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} file {} id {} B value {} B",
            self.kind.name(),
            self.file,
            self.id.len(),
            self.value.len()
        )
    }
}

impl<'a> Entry<'a> {
    /// Bytes this entry takes in a batch.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        ENTRY_HEADER + self.id.len() + self.value.len()
    }

    /// The fixed part; id and value follow it.
    ///
    /// # Panics
    /// If id or value are over their limits: the caller has checked them.
    #[must_use]
    pub fn header(&self) -> [u8; ENTRY_HEADER] {
        assert!(self.id.len() <= ITEM_ID_MAX, "item id within its limit");
        assert!(self.value.len() <= VALUE_MAX, "item value within its limit");
        let mut out = [0; ENTRY_HEADER];
        let len = u32::try_from(self.encoded_len()).expect("limits fit");
        let id_len = u16::try_from(self.id.len()).expect("limits fit");
        let value_len = u32::try_from(self.value.len()).expect("limits fit");
        out[0..4].copy_from_slice(&len.to_le_bytes());
        out[4] = self.kind as u8;
        out[6..8].copy_from_slice(&id_len.to_le_bytes());
        out[8..16].copy_from_slice(&self.file.0.to_le_bytes());
        out[16..20].copy_from_slice(&value_len.to_le_bytes());
        out
    }

    /// Takes the entry at the front of `bytes`; also returns what follows it.
    ///
    /// # Errors
    /// Any [`DecodeError`]; never panics.
    pub fn decode(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), DecodeError> {
        let mut r = Reader::new("entry", bytes);
        let len = r.u32()?;
        let kind_byte = r.u8()?;
        let kind = EntryKind::from_byte(kind_byte).ok_or(DecodeError::Field {
            what: "entry kind",
            expected: 1,
            found: u64::from(kind_byte),
        })?;
        let flags = r.u8()?;
        r.expect("entry flags", 0, u64::from(flags))?;
        let id_len = usize::from(r.u16()?);
        let file = FileId(r.number("entry file id")?);
        let value_len = r.u32()? as usize;
        let reserved = r.u32()?;
        r.expect("entry reserved field", 0, u64::from(reserved))?;
        if id_len > ITEM_ID_MAX {
            return Err(DecodeError::Limit {
                what: "item id",
                limit: ITEM_ID_MAX as u64,
                found: id_len as u64,
            });
        }
        if value_len > VALUE_MAX {
            return Err(DecodeError::Limit {
                what: "item value",
                limit: VALUE_MAX as u64,
                found: value_len as u64,
            });
        }
        r.expect("entry length", (ENTRY_HEADER + id_len + value_len) as u64, u64::from(len))?;
        let id = r.take(id_len)?;
        let value = r.take(value_len)?;
        if kind.changes_blocks() {
            BlockChange::decode(kind, id, value)?;
        }
        Ok((Self { kind, file, id, value }, r.rest()))
    }

    /// The change of blocks that this entry is, if it is one.
    #[must_use]
    pub fn block_change(&self) -> Option<BlockChange<'a>> {
        if !self.kind.changes_blocks() {
            return None;
        }
        BlockChange::decode(self.kind, self.id, self.value).ok()
    }
}

/// A change of a range of a volume, decoded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct BlockChange<'a> {
    /// Where it begins (bytes).
    pub offset: u64,
    /// How long it is (bytes); at least 1.
    pub len: u64,
    /// What is there afterwards.
    pub content: BlockContent<'a>,
}

/// What a range of a volume holds after a change.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum BlockContent<'a> {
    /// These bytes.
    Data(&'a [u8]),
    /// Zeros; space need not be taken.
    Hole,
    /// Zeros; space stays taken.
    Zeros,
}

/// The `id` of a change of blocks: on the stack, as every write makes one.
#[derive(Clone, Copy, Debug)]
pub struct BlockId {
    bytes: [u8; 16],
    len: usize,
}

impl AsRef<[u8]> for BlockId {
    fn as_ref(&self) -> &[u8] {
        self.bytes.split_at(self.len).0
    }
}

impl BlockId {
    /// Of a [`EntryKind::BlockWrite`] at `offset`.
    #[must_use]
    pub fn write(offset: u64) -> Self {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&offset.to_le_bytes());
        Self { bytes, len: BLOCK_WRITE_ID }
    }

    /// Of a [`EntryKind::BlockPunch`] or [`EntryKind::BlockZero`].
    #[must_use]
    pub fn range(offset: u64, len: u64) -> Self {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&offset.to_le_bytes());
        bytes[8..].copy_from_slice(&len.to_le_bytes());
        Self { bytes, len: 16 }
    }
}

impl<'a> BlockChange<'a> {
    /// Where it ends (bytes, not included).
    #[must_use]
    pub fn end(&self) -> u64 {
        self.offset + self.len
    }

    fn decode(kind: EntryKind, id: &[u8], value: &'a [u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new("block range", id);
        let offset = r.u64()?;
        let (len, content) = match kind {
            EntryKind::BlockWrite => (value.len() as u64, BlockContent::Data(value)),
            kind => {
                r.expect("payload of a change without one", 0, value.len() as u64)?;
                let hole = kind == EntryKind::BlockPunch;
                (r.u64()?, if hole { BlockContent::Hole } else { BlockContent::Zeros })
            }
        };
        r.expect("bytes after a block range", 0, r.rest().len() as u64)?;
        r.expect("an empty block range", 0, u64::from(len == 0))?;
        let end = offset.saturating_add(len);
        if end > VOLUME_MAX {
            return Err(DecodeError::Limit { what: "block range", limit: VOLUME_MAX, found: end });
        }
        Ok(Self { offset, len, content })
    }
}

impl std::fmt::Debug for BlockChange<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let what = match self.content {
            BlockContent::Data(_) => "data",
            BlockContent::Hole => "hole",
            BlockContent::Zeros => "zeros",
        };
        write!(f, "{what} at {} for {} B", self.offset, self.len)
    }
}

/// The value of an [`EntryKind::EpochStart`] entry: epoch u64, ordinal u8, name (u16 length, UTF-8).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochStart {
    /// The epoch that starts; equals the batch's.
    pub epoch: crate::base::Epoch,
    /// The node that opened it.
    pub ordinal: crate::base::Ordinal,
    /// Its name, for people.
    pub name: String,
}

impl EpochStart {
    /// The value's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = super::Writer::default();
        w.u64(self.epoch.0).u8(self.ordinal.0).text(&self.name);
        w.into_bytes()
    }

    /// Reads the value back.
    ///
    /// # Errors
    /// Any [`DecodeError`]; never panics.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new("epoch start", bytes);
        Ok(Self {
            epoch: crate::base::Epoch(r.number("epoch that begins")?),
            ordinal: crate::base::Ordinal(r.u8()?),
            name: r.text(crate::base::limits::NAME_MAX)?.to_owned(),
        })
    }
}

/// Decodes any bytes as a run of entries.
pub fn fuzz_entry(mut bytes: &[u8]) {
    while let Ok((entry, rest)) = Entry::decode(bytes) {
        assert!(rest.len() < bytes.len(), "an entry takes at least its header");
        let mut again = entry.header().to_vec();
        again.extend_from_slice(entry.id);
        again.extend_from_slice(entry.value);
        assert!(bytes.starts_with(&again), "decode and encode are inverse");
        if entry.kind == EntryKind::EpochStart {
            let _ = EpochStart::decode(entry.value);
        }
        bytes = rest;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of(entry: &Entry<'_>) -> Vec<u8> {
        [&entry.header()[..], entry.id, entry.value].concat()
    }

    #[test]
    fn changes_of_blocks_read_back_as_they_were_written() {
        let (at, range) = (BlockId::write(4096), BlockId::range(1, 1 << 40));
        let file = FileId(9);
        let write = Entry { kind: EntryKind::BlockWrite, file, id: at.as_ref(), value: b"abc" };
        let punch = Entry { kind: EntryKind::BlockPunch, file, id: range.as_ref(), value: b"" };
        let zero = Entry { kind: EntryKind::BlockZero, ..punch };
        for (entry, offset, len, content) in [
            (write, 4096, 3, BlockContent::Data(b"abc")),
            (punch, 1, 1 << 40, BlockContent::Hole),
            (zero, 1, 1 << 40, BlockContent::Zeros),
        ] {
            let bytes = bytes_of(&entry);
            let (back, rest) = Entry::decode(&bytes).unwrap();
            assert_eq!((back, rest.len()), (entry, 0));
            assert_eq!(back.block_change(), Some(BlockChange { offset, len, content }));
        }
    }

    #[test]
    fn the_golden_entries_are_byte_for_byte_what_version_1_wrote() {
        let golden = include_bytes!("../../tests/data/entries-v1.bin");
        let dptr = include_bytes!("../../tests/data/dptr-v1.bin");
        let name = "b".to_owned();
        let epoch =
            EpochStart { epoch: crate::base::Epoch(5), ordinal: crate::base::Ordinal(1), name }.encode();
        let (at, range) = (BlockId::write(4096), BlockId::range(1, 1 << 40));
        let paused = [super::super::dptr::LoggingMode::Paused.byte()];
        let entries = [
            (EntryKind::BlockWrite, 9, at.as_ref(), &b"abc"[..]),
            (EntryKind::BlockPunch, 9, range.as_ref(), b""),
            (EntryKind::BlockZero, 9, range.as_ref(), b""),
            (EntryKind::AccountCreate, 9, b"", dptr),
            (EntryKind::AccountDelete, 9, b"", b""),
            (EntryKind::AccountChange, 9, b"", dptr),
            (EntryKind::FileCreate, 9, b"", dptr),
            (EntryKind::FileDelete, 9, b"", b""),
            (EntryKind::FileClear, 9, b"", dptr),
            (EntryKind::FileChange, 9, b"", dptr),
            (EntryKind::CopyBegin, 9, b"", &[1]),
            (EntryKind::CopyEnd, 9, b"", b""),
            (EntryKind::EpochStart, 0, b"", &epoch),
            (EntryKind::Logging, 0, b"", &paused),
        ];
        let mut rest = &golden[..];
        for (kind, file, id, value) in entries {
            let entry = Entry { kind, file: FileId(file), id, value };
            let (back, behind) = Entry::decode(rest).unwrap();
            assert_eq!(back, entry);
            assert_eq!(bytes_of(&entry), rest[..rest.len() - behind.len()], "{kind:?}");
            rest = behind;
        }
        assert!(rest.is_empty());
    }

    #[test]
    fn a_range_that_is_empty_or_beyond_any_volume_is_refused() {
        let file = FileId(9);
        let far = BlockId::write(VOLUME_MAX - 2);
        let entry = |kind, id, value| bytes_of(&Entry { kind, file, id, value });
        assert!(Entry::decode(&entry(EntryKind::BlockWrite, far.as_ref(), b"ab")).is_ok());
        for bad in [
            entry(EntryKind::BlockWrite, far.as_ref(), b"abc"),
            entry(EntryKind::BlockWrite, far.as_ref(), b""),
            entry(EntryKind::BlockWrite, b"1234567", b"abc"),
            entry(EntryKind::BlockPunch, BlockId::range(0, 0).as_ref(), b""),
            entry(EntryKind::BlockPunch, BlockId::range(u64::MAX, 2).as_ref(), b""),
            entry(EntryKind::BlockZero, BlockId::range(0, VOLUME_MAX + 1).as_ref(), b""),
            entry(EntryKind::BlockZero, BlockId::range(0, 1).as_ref(), b"x"),
        ] {
            assert!(Entry::decode(&bad).is_err(), "{bad:?}");
        }
    }
}

//! How items and records are keyed in the store on disk.
//!
//! | key | value |
//! |---|---|
//! | file u64, generation u32, item id | the item |
//! | 0 u64, 0 u32 | version u8 (1), ordinal of the node u8 |
//! | 0 u64, 1 u32 | last entry applied: replicated u64, local u64 |
//! | 0 u64, 2 u32 | [`super::namespace::Namespace::meta`] |
//! | 0 u64, 3 u32, id u64 | D-pointer of an account or file |
//! | 0 u64, 4 u32, file u64, generation u32 | nothing: the items of that generation wait to be purged |
//!
//! Numbers in keys are big-endian, so that keys sort as numbers do; in values they are little-endian.

use crate::base::{FileId, Ordinal, Seq};
use crate::format::{DecodeError, Reader, Writer};
use std::ops::Bound;

const VERSION: u8 = 1;
const PREFIX: usize = 12;
/// Key of the format record.
pub(super) const FORMAT: [u8; PREFIX] = record_prefix(0);
/// Key of the applied marks.
pub(super) const APPLIED: [u8; PREFIX] = record_prefix(1);
/// Key of the namespace's own record.
pub(super) const NAMESPACE: [u8; PREFIX] = record_prefix(2);
const DPTR: [u8; PREFIX] = record_prefix(3);
const PURGE: [u8; PREFIX] = record_prefix(4);

const fn record_prefix(tag: u8) -> [u8; PREFIX] {
    let mut prefix = [0; PREFIX];
    prefix[PREFIX - 1] = tag;
    prefix
}

/// What a record under file id 0 is about.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Record {
    Format,
    Applied,
    Namespace,
    Dptr(FileId),
    Purge(FileId, u32),
}

impl Record {
    /// From its key.
    pub(super) fn decode(key: &[u8]) -> Result<Self, DecodeError> {
        let (prefix, rest) = key.split_at_checked(PREFIX).unwrap_or((key, &[]));
        let mut r = Reader::new("store record key", rest);
        let record = if prefix == FORMAT {
            Self::Format
        } else if prefix == APPLIED {
            Self::Applied
        } else if prefix == NAMESPACE {
            Self::Namespace
        } else if prefix == DPTR {
            Self::Dptr(FileId(u64::from_be_bytes(r.array()?)))
        } else if prefix == PURGE {
            Self::Purge(FileId(u64::from_be_bytes(r.array()?)), u32::from_be_bytes(r.array()?))
        } else {
            let found = prefix.last().copied().map_or(0, u64::from);
            return Err(DecodeError::Field { what: "store record", expected: 4, found });
        };
        r.expect("bytes after a store record's key", 0, r.rest().len() as u64)?;
        Ok(record)
    }
}

/// Key of a D-pointer.
pub(super) fn dptr(id: FileId) -> Vec<u8> {
    [&DPTR[..], &id.0.to_be_bytes()].concat()
}

/// Key of an entry of the purge list.
pub(super) fn purge(file: FileId, generation: u32) -> Vec<u8> {
    [&PURGE[..], &file.0.to_be_bytes(), &generation.to_be_bytes()].concat()
}

/// Where the keys of a file's generation begin; also the prefix of each.
pub(super) fn prefix(file: FileId, generation: u32) -> [u8; PREFIX] {
    let mut prefix = [0; PREFIX];
    prefix[..8].copy_from_slice(&file.0.to_be_bytes());
    prefix[8..].copy_from_slice(&generation.to_be_bytes());
    prefix
}

/// Writes the key of an item into `key`.
pub(super) fn item(key: &mut Vec<u8>, file: FileId, generation: u32, id: &[u8]) {
    key.clear();
    key.extend_from_slice(&prefix(file, generation));
    key.extend_from_slice(id);
}

/// The item id in a key.
pub(super) fn id_of(key: &[u8]) -> &[u8] {
    key.get(PREFIX..).unwrap_or_default()
}

/// The keys of a file's generation whose id is greater than `after`.
pub(super) fn range(file: FileId, generation: u32, after: Option<&[u8]>) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
    let first = prefix(file, generation);
    let from = match after {
        Some(after) => Bound::Excluded([&first[..], after].concat()),
        None => Bound::Included(first.to_vec()),
    };
    let mut end = first;
    for byte in end.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            return (from, Bound::Excluded(end.to_vec()));
        }
    }
    (from, Bound::Unbounded)
}

/// The value of [`FORMAT`].
pub(super) fn format_value(node: Ordinal) -> Vec<u8> {
    vec![VERSION, node.0]
}

/// Reads the value of [`FORMAT`]; returns the node's ordinal.
pub(super) fn read_format(value: &[u8]) -> Result<Ordinal, DecodeError> {
    let mut r = Reader::new("store format record", value);
    let version = r.u8()?;
    r.expect("store format version", u64::from(VERSION), u64::from(version))?;
    Ok(Ordinal(r.u8()?))
}

/// The value of [`APPLIED`].
pub(super) fn applied_value(applied: [Seq; 2]) -> Vec<u8> {
    let mut w = Writer::with_capacity(16);
    w.u64(applied[0].0).u64(applied[1].0);
    w.into_bytes()
}

/// Reads the value of [`APPLIED`].
pub(super) fn read_applied(value: &[u8]) -> Result<[Seq; 2], DecodeError> {
    let mut r = Reader::new("store applied record", value);
    Ok([Seq(r.u64()?), Seq(r.u64()?)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_known_by_their_keys() {
        assert_eq!(Record::decode(&FORMAT), Ok(Record::Format));
        assert_eq!(Record::decode(&APPLIED), Ok(Record::Applied));
        assert_eq!(Record::decode(&dptr(FileId(258))), Ok(Record::Dptr(FileId(258))));
        assert_eq!(Record::decode(&purge(FileId(9), 7)), Ok(Record::Purge(FileId(9), 7)));
        for bad in [&[0; 11][..], &record_prefix(9), &dptr(FileId(1))[..15], &[1; 12]] {
            assert!(Record::decode(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_range_holds_one_generation_of_one_file_and_nothing_else() {
        let inside = |range: &(Bound<Vec<u8>>, Bound<Vec<u8>>), file, generation, id: &[u8]| {
            let mut key = Vec::new();
            item(&mut key, FileId(file), generation, id);
            std::ops::RangeBounds::contains(range, &key)
        };
        for generation in [0, 255, u32::MAX] {
            let all = range(FileId(5), generation, None);
            assert!(inside(&all, 5, generation, b"\0") && inside(&all, 5, generation, &[255; 255]));
            assert!(!inside(&all, 5, generation.wrapping_add(1), b"a"));
            assert!(!inside(&all, 5, generation.wrapping_sub(1), &[255; 255]));
            assert!(!inside(&all, 6, 0, b"a") && !inside(&all, 4, generation, b"a"));
        }
        let after = range(FileId(5), 1, Some(b"b"));
        assert!(!inside(&after, 5, 1, b"b") && inside(&after, 5, 1, b"b\0"));
        assert!(inside(&range(FileId(u64::MAX), u32::MAX, None), u64::MAX, u32::MAX, b"x"));
    }
}

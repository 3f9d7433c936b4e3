//! How items and records are keyed in the store on disk.
//!
//! | key | value |
//! |---|---|
//! | file, generation, item id | the item |
//! | 0, 0 | version u8 (1), ordinal of the node u8 |
//! | 0, 1 | last entry applied: replicated u64, local u64 |
//! | 0, 2 | [`super::namespace::Namespace::meta`] |
//! | 0, 3, id u64 | D-pointer of an account or file |
//! | 0, 5 | for each journal u64: volumes may lack what came after this entry; all ones: they lack nothing |
//! | 0, 6 | how far the copy is that this store was given, see [`crate::format::chunk::Progress`] |
//! | 0, 7 | the rewind that this store is in, see [`crate::format::rewind::Prepared`] |
//! | 0, 4, file u64, generation u32 | nothing: the items of that generation wait to be purged |
//!
//! File and generation are each written as a count of bytes u8 and that many bytes, without leading zeros: 3 bytes
//! for both in most databases, so that most keys fit the 20 bytes which the engine compares without following a
//! pointer. All numbers in keys are big-endian, so that keys sort as numbers do; in values they are little-endian.

use crate::base::{FileId, Ordinal, Seq};
use crate::format::{DecodeError, Reader, Writer};
use std::ops::Bound;

const VERSION: u8 = 1;
/// Key of the format record.
pub(super) const FORMAT: [u8; 2] = [0, 0];
/// Key of the applied marks.
pub(super) const APPLIED: [u8; 3] = [0, 1, 1];
/// Key of the namespace's own record.
pub(super) const NAMESPACE: [u8; 3] = [0, 1, 2];
const DPTR: [u8; 3] = [0, 1, 3];
const PURGE: [u8; 3] = [0, 1, 4];
/// Key of where volumes stand.
pub(super) const VOLUMES: [u8; 3] = [0, 1, 5];
/// Key of how far a copy is.
pub(super) const COPY: [u8; 3] = [0, 1, 6];
/// Key of the rewind that a store is in.
pub(super) const REWIND: [u8; 3] = [0, 1, 7];
/// Longest prefix: file and generation.
const PREFIX_MAX: usize = 1 + 8 + 1 + 4;

/// What a record under file id 0 is about.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Record {
    Format,
    Applied,
    Namespace,
    Dptr(FileId),
    Purge(FileId, u32),
    VolumeStore,
    Copy,
    Rewind,
}

impl Record {
    /// From its key.
    pub(super) fn decode(key: &[u8]) -> Result<Self, DecodeError> {
        let (prefix, rest) = key.split_at_checked(APPLIED.len()).unwrap_or((key, &[]));
        let mut r = Reader::new("store record key", rest);
        let record = if prefix == FORMAT {
            Self::Format
        } else if prefix == APPLIED {
            Self::Applied
        } else if prefix == NAMESPACE {
            Self::Namespace
        } else if prefix == VOLUMES {
            Self::VolumeStore
        } else if prefix == COPY {
            Self::Copy
        } else if prefix == REWIND {
            Self::Rewind
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

/// Writes the key of an item into `key`.
pub(super) fn item(key: &mut Vec<u8>, file: FileId, generation: u32, id: &[u8]) {
    key.clear();
    number(key, &file.0.to_be_bytes());
    number(key, &generation.to_be_bytes());
    key.extend_from_slice(id);
}

fn number(key: &mut Vec<u8>, bytes: &[u8]) {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    let rest = bytes.get(zeros..).unwrap_or_default();
    key.push(u8::try_from(rest.len()).expect("at most 8 bytes"));
    key.extend_from_slice(rest);
}

/// The file and the generation in a key.
pub(super) fn table_of(key: &[u8]) -> (FileId, u32) {
    let part = |at: usize| {
        let count = usize::from(key.get(at).copied().unwrap_or_default());
        let bytes = key.get(at + 1..).unwrap_or_default();
        (at + 1 + count, bytes.iter().take(count).fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte)))
    };
    let (behind, file) = part(0);
    let (_, generation) = part(behind);
    (FileId(file), u32::try_from(generation).unwrap_or(u32::MAX))
}

/// The item id in a key.
pub(super) fn id_of(key: &[u8]) -> &[u8] {
    let file = key.first().map_or(0, |count| 1 + usize::from(*count));
    let generation = key.get(file).map_or(0, |count| 1 + usize::from(*count));
    key.get(file + generation..).unwrap_or_default()
}

/// The keys of a file's generation whose id is greater than `after`.
pub(super) fn range(file: FileId, generation: u32, after: Option<&[u8]>) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
    let mut first = Vec::with_capacity(PREFIX_MAX);
    item(&mut first, file, generation, &[]);
    let from = match after {
        Some(after) => Bound::Excluded([first.as_slice(), after].concat()),
        None => Bound::Included(first.clone()),
    };
    // The first byte is a small count, so the carry ends before it runs out of bytes.
    let mut end = first;
    for byte in end.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            break;
        }
    }
    (from, Bound::Excluded(end))
}

/// All records, and nothing else.
pub(super) fn records() -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
    (Bound::Included(vec![0]), Bound::Excluded(vec![1]))
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

/// The value of [`VOLUMES`].
pub(super) fn volumes_value(dirty_from: [Option<Seq>; 2]) -> Vec<u8> {
    applied_value(dirty_from.map(|seq| seq.unwrap_or(Seq(u64::MAX))))
}

/// Reads the value of [`VOLUMES`].
pub(super) fn read_volumes(value: &[u8]) -> Result<[Option<Seq>; 2], DecodeError> {
    let mut r = Reader::new("store volumes record", value);
    let mut dirty_from = || match r.rest().starts_with(&[u8::MAX; 8]) {
        true => r.u64().map(|_| None),
        false => r.number("entry of the volumes").map(|seq| Some(Seq(seq))),
    };
    Ok([dirty_from()?, dirty_from()?])
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
    let mut entry = || r.number("applied entry").map(Seq);
    Ok([entry()?, entry()?])
}

/// Reads any bytes as the key of a record and as the values of those that have a form of their own.
pub fn fuzz_record(bytes: &[u8]) {
    let _ = (Record::decode(bytes), read_format(bytes), read_volumes(bytes), read_applied(bytes));
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
        assert_eq!(Record::decode(&VOLUMES), Ok(Record::VolumeStore));
        assert_eq!(Record::decode(&COPY), Ok(Record::Copy));
        for dirty_from in [[None, None], [Some(Seq(7)), None], [Some(Seq(0)), Some(Seq(8))]] {
            assert_eq!(read_volumes(&volumes_value(dirty_from)), Ok(dirty_from));
        }
        for bad in [&[0][..], &[0, 1, 9], &dptr(FileId(1))[..10], &[1; 12], &[0, 1, 1, 0]] {
            assert!(Record::decode(bad).is_err(), "{bad:?}");
        }
    }

    /// Each key and each value behind its length (u8).
    #[test]
    fn the_golden_records_are_byte_for_byte_what_version_1_wrote() {
        let golden = include_bytes!("../../tests/data/store-v1.bin");
        let meta =
            [&[1, 1, 1, 19, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 10], &[0; 7][..], &[12], &[0; 7]].concat();
        let namespace = crate::store::namespace::Namespace::from_records(&meta, []).unwrap();
        let (applied, dirty_from) = ([Seq(41), Seq(7)], [Some(Seq(30)), None]);
        let mut key = Vec::new();
        item(&mut key, FileId(258), 0, b"1001");
        let records = [
            (FORMAT.to_vec(), format_value(Ordinal(1))),
            (APPLIED.to_vec(), applied_value(applied)),
            (NAMESPACE.to_vec(), namespace.meta()),
            (dptr(FileId(258)), include_bytes!("../../tests/data/dptr-v1.bin").to_vec()),
            (purge(FileId(9), 7), Vec::new()),
            (VOLUMES.to_vec(), volumes_value(dirty_from)),
            (key, b"hello".to_vec()),
        ];
        let with_length =
            |bytes: &Vec<u8>| [&[u8::try_from(bytes.len()).unwrap()], bytes.as_slice()].concat();
        let all = records.iter().flat_map(|(key, value)| [with_length(key), with_length(value)]);
        assert_eq!(all.collect::<Vec<_>>().concat(), golden);
        assert_eq!(read_format(&records[0].1), Ok(Ordinal(1)));
        assert_eq!(read_applied(&records[1].1), Ok(applied));
        assert_eq!(read_volumes(&records[5].1), Ok(dirty_from));
    }

    #[test]
    fn numbers_that_nothing_can_follow_are_refused_by_name_in_every_record() {
        use crate::base::limits::NUMBER_MAX;
        let meta = |high: u64, gone: u64| {
            let numbers = [&high.to_le_bytes()[..], &1_u32.to_le_bytes(), &gone.to_le_bytes()].concat();
            let bytes = [&[1, 1, 0][..], &numbers].concat();
            crate::store::namespace::Namespace::from_records(&bytes, [])
        };
        assert!(meta(NUMBER_MAX, NUMBER_MAX).is_ok());
        assert_eq!(read_applied(&applied_value([Seq(NUMBER_MAX); 2])), Ok([Seq(NUMBER_MAX); 2]));
        assert_eq!(read_volumes(&volumes_value([Some(Seq(NUMBER_MAX)); 2])), Ok([Some(Seq(NUMBER_MAX)); 2]));
        for over in [NUMBER_MAX + 1, u64::MAX - 1, u64::MAX] {
            let refused = |what: &str, told: String| {
                assert!(
                    told.contains(&format!("{what}: {over} is over the limit of {NUMBER_MAX}")),
                    "{told}"
                );
            };
            refused("highest id", meta(over, 1).unwrap_err().to_string());
            refused("deleted id", meta(1, over).unwrap_err().to_string());
            for at in 0..2 {
                let mut applied = [Seq(1); 2];
                applied[at] = Seq(over);
                refused("applied entry", read_applied(&applied_value(applied)).unwrap_err().to_string());
                if over != u64::MAX {
                    let dirty_from = read_volumes(&volumes_value(applied.map(Some)));
                    refused("entry of the volumes", dirty_from.unwrap_err().to_string());
                }
            }
        }
    }

    #[test]
    fn a_range_holds_one_generation_of_one_file_and_nothing_else() {
        let inside = |range: &(Bound<Vec<u8>>, Bound<Vec<u8>>), file, generation, id: &[u8]| {
            let mut key = Vec::new();
            item(&mut key, FileId(file), generation, id);
            std::ops::RangeBounds::contains(range, &key)
        };
        for file in [5, 255, 256, u64::MAX - 1] {
            for generation in [0, 1, 255, 256, u32::MAX] {
                let all = range(FileId(file), generation, None);
                assert!(inside(&all, file, generation, b"\0") && inside(&all, file, generation, &[255; 255]));
                for other in [0, 1, 2, 254, 255, 256, 257, 65_536, u32::MAX - 1, u32::MAX] {
                    for near in [file - 1, file, file + 1, 1, 4, 65_536] {
                        for id in [&b"\0"[..], b"\x01\x05\0a", &[255; 255]] {
                            let same = (near, other) == (file, generation);
                            assert_eq!(
                                inside(&all, near, other, id),
                                same,
                                "{near} {other} in {file} {generation}"
                            );
                        }
                    }
                }
            }
        }
        let after = range(FileId(5), 1, Some(b"b"));
        assert!(!inside(&after, 5, 1, b"b") && inside(&after, 5, 1, b"b\0"));
        assert!(inside(&range(FileId(u64::MAX), u32::MAX, None), u64::MAX, u32::MAX, b"x"));
    }

    #[test]
    fn the_id_is_what_follows_file_and_generation() {
        let mut key = Vec::new();
        for file in [1, 255, 256, u64::MAX] {
            for generation in [0, 1, 65_536, u32::MAX] {
                item(&mut key, FileId(file), generation, b"\x01\0id");
                assert_eq!(id_of(&key), b"\x01\0id");
                assert!(std::ops::RangeBounds::contains(&range(FileId(file), generation, None), &key));
                assert!(!std::ops::RangeBounds::contains(&records(), &key));
            }
        }
        item(&mut key, FileId(4), 0, b"123456789012");
        assert!(key.len() <= 20);
    }
}

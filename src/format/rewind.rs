//! What a node that has diverged needs of a copy: the ranges that either node touched since their histories parted. All else
//! is equal on both, and stays.
//!
//! Numbers and ids are as in [`super::chunk`]. Each record carries its own checksum.
//!
//! **Rewind**, the payload of a link frame that stands before the beginning of a copy
//!
//! | size | field |
//! |---|---|
//! | 4 | `crc`: CRC32C of all that follows |
//! | 2 | `version` 1 |
//! | 24 | `common`: epoch, seq, chain of the last entry that both histories have |
//! | 1 | 1 if ranges follow, 0 if everything is to be copied |
//! | .. | the ranges that the sender touched after `common` |
//!
//! **Ranges**: number of files u32, then for each, in the order of ids:
//!
//! | size | field |
//! |---|---|
//! | 8 | `file` |
//! | 1 | 0 all of it, 1 items, 2 blocks, 3 all of it, compared by digests first (only in what a store keeps) |
//! | 4 | number of ranges, 0 for all of it |
//! | .. | items: each behind an id (u16, id; empty for the first), through an id (u16, id) |
//! | .. | blocks: each from a byte u64 to a byte u64, not included |
//!
//! **Prepared**, which the store keeps until the rewind is done: `crc` u32, length of the copy's beginning u32, the beginning,
//! then all ranges that are wanted.

use super::chunk::{CopyBegin, Next, check, position, sealed, short, take_id, unknown};
use super::entry::{Entry, EntryKind};
use super::{DecodeError, Reader, Writer};
use crate::base::limits::{BLOCK_U64, FRAME_PAYLOAD_MAX, REWIND_RANGES_MAX, VOLUME_MAX};
use crate::base::{FileId, Position};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ops::Bound;

const VERSION: u16 = 1;
const WHOLE: u8 = 0;
const ITEMS: u8 = 1;
const BLOCKS: u8 = 2;
const COMPARED: u8 = 3;

/// Parts of files that changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges {
    files: BTreeMap<FileId, Part>,
    /// All ranges of all files.
    count: usize,
    /// There are too many to tell them apart.
    everything: bool,
}

/// What changed of a file. Ranges neither overlap nor touch.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    /// All of it may have.
    Whole,
    /// All of it may have; what the node holds stays, and is compared by digests first.
    Compared,
    /// Items behind an id, through another one.
    Items(BTreeMap<Bytes, Bytes>),
    /// Blocks from a byte to another one.
    Blocks(BTreeMap<u64, u64>),
}

impl Part {
    fn count(&self) -> usize {
        match self {
            Self::Whole => 1,
            // They are as many as there are files, and never taken together.
            Self::Compared => 0,
            Self::Items(ranges) => ranges.len(),
            Self::Blocks(ranges) => ranges.len(),
        }
    }

    fn halve(&mut self) {
        match self {
            Self::Whole | Self::Compared => {}
            Self::Items(ranges) => halve(ranges),
            Self::Blocks(ranges) => halve(ranges),
        }
    }
}

/// Adds a range; what it overlaps or touches becomes one with it.
fn insert<K: Ord + Clone>(ranges: &mut BTreeMap<K, K>, from: K, to: K) {
    let (mut from, mut to) = (from, to);
    if let Some((before, end)) = ranges.range(..=&from).next_back()
        && *end >= from
    {
        to = to.max(end.clone());
        from = before.clone();
    }
    while let Some((next, end)) = ranges.range(&from..=&to).next() {
        let next = next.clone();
        to = to.max(end.clone());
        ranges.remove(&next);
    }
    ranges.insert(from, to);
}

/// Makes one range of each two neighbours, and of what is between them.
fn halve<K: Ord + Clone>(ranges: &mut BTreeMap<K, K>) {
    let all: Vec<(K, K)> = std::mem::take(ranges).into_iter().collect();
    for pair in all.chunks(2) {
        if let (Some((from, _)), Some((_, to))) = (pair.first(), pair.last()) {
            ranges.insert(from.clone(), to.clone());
        }
    }
}

/// An id in front of this one, with next to nothing between the two.
fn before(id: &[u8]) -> Bytes {
    let Some((last, rest)) = id.split_last() else { return Bytes::new() };
    match last.checked_sub(1) {
        None => Bytes::copy_from_slice(rest),
        // As long as an id may be, one byte takes the place of another.
        Some(less) if id.len() < crate::base::limits::ITEM_ID_MAX => [rest, &[less, 0xff]].concat().into(),
        Some(less) => [rest, &[less]].concat().into(),
    }
}

impl Ranges {
    /// Notes what an entry changes. Definitions of a file make all of it count; those of accounts change no content.
    pub fn note(&mut self, entry: &Entry<'_>) {
        match entry.kind {
            EntryKind::Put | EntryKind::Delete => {
                self.items(entry.file, before(entry.id), Bytes::copy_from_slice(entry.id));
            }
            EntryKind::BlockWrite | EntryKind::BlockPunch | EntryKind::BlockZero => {
                if let Some(change) = entry.block_change() {
                    let from = change.offset / BLOCK_U64 * BLOCK_U64;
                    self.blocks(entry.file, from, change.end().next_multiple_of(BLOCK_U64));
                }
            }
            EntryKind::FileCreate
            | EntryKind::FileDelete
            | EntryKind::FileClear
            | EntryKind::FileChange
            | EntryKind::CopyBegin
            | EntryKind::CopyEnd => self.whole(entry.file),
            EntryKind::AccountCreate
            | EntryKind::AccountDelete
            | EntryKind::AccountChange
            | EntryKind::EpochStart
            | EntryKind::Logging => {}
        }
    }

    /// All of a file counts.
    pub fn whole(&mut self, file: FileId) {
        self.change(file, Part::Whole, |part| *part = Part::Whole);
    }

    /// All of a file counts, and is compared by digests first with what the node holds of it.
    pub fn compare(&mut self, file: FileId) {
        self.change(file, Part::Compared, |part| *part = Part::Compared);
    }

    /// Whether a file is compared by digests.
    #[must_use]
    pub fn is_compared(&self, file: FileId) -> bool {
        matches!(self.files.get(&file), Some(Part::Compared))
    }

    /// Whether any file is compared by digests.
    #[must_use]
    pub fn compares(&self) -> bool {
        self.files.values().any(|part| *part == Part::Compared)
    }

    fn items(&mut self, file: FileId, after: Bytes, through: Bytes) {
        self.change(file, Part::Items(BTreeMap::new()), |part| match part {
            Part::Items(ranges) => insert(ranges, after, through),
            other => *other = Part::Whole,
        });
    }

    fn blocks(&mut self, file: FileId, from: u64, to: u64) {
        self.change(file, Part::Blocks(BTreeMap::new()), |part| match part {
            Part::Blocks(ranges) => insert(ranges, from, to),
            other => *other = Part::Whole,
        });
    }

    fn change(&mut self, file: FileId, new: Part, change: impl FnOnce(&mut Part)) {
        if self.everything {
            return;
        }
        let before = self.files.get(&file).map_or(0, Part::count);
        let part = self.files.entry(file).or_insert(new);
        change(part);
        self.count = self.count - before + part.count();
        // Now and then, so that each change costs little.
        if self.count > 2 * REWIND_RANGES_MAX {
            self.bound();
        }
    }

    /// Makes coarser what is over the limit.
    fn bound(&mut self) {
        while self.count > REWIND_RANGES_MAX {
            self.files.values_mut().for_each(Part::halve);
            let count = self.files.values().map(Part::count).sum();
            if count == self.count {
                *self = Self { everything: true, ..Self::default() };
                return;
            }
            self.count = count;
        }
    }

    /// Adds all of another list.
    pub fn add(&mut self, other: &Self) {
        if other.everything {
            *self = other.clone();
            return;
        }
        for (file, part) in &other.files {
            match part {
                Part::Whole => self.whole(*file),
                Part::Compared => self.compare(*file),
                Part::Items(ranges) => {
                    ranges.iter().for_each(|(after, to)| self.items(*file, after.clone(), to.clone()));
                }
                Part::Blocks(ranges) => ranges.iter().for_each(|(from, to)| self.blocks(*file, *from, *to)),
            }
        }
    }

    /// Within the limit; none if there is too much to be told apart.
    #[must_use]
    pub fn bounded(mut self) -> Option<Self> {
        self.bound();
        (!self.everything).then_some(self)
    }

    /// Whether all of a file counts.
    #[must_use]
    pub fn is_whole(&self, file: FileId) -> bool {
        self.everything || matches!(self.files.get(&file), Some(Part::Whole))
    }

    /// Whether an item may be in a range.
    #[must_use]
    pub fn has_item(&self, file: FileId, id: &[u8]) -> bool {
        match self.files.get(&file) {
            Some(Part::Items(ranges)) => {
                let before = (Bound::Unbounded, Bound::Excluded(id));
                ranges.range::<[u8], _>(before).next_back().is_some_and(|(_, through)| through[..] >= *id)
            }
            Some(Part::Whole | Part::Compared) => true,
            _ => self.everything,
        }
    }

    /// Whether a range of a volume may overlap one.
    #[must_use]
    pub fn has_blocks(&self, file: FileId, from: u64, to: u64) -> bool {
        match self.files.get(&file) {
            Some(Part::Blocks(ranges)) => ranges.range(..to).next_back().is_some_and(|(_, end)| *end > from),
            Some(Part::Whole | Part::Compared) => true,
            _ => self.everything,
        }
    }

    /// The files from this one on of which something counts, in the order of ids.
    pub fn files_from(&self, from: FileId) -> impl Iterator<Item = FileId> {
        self.files.range(from..).map(|(file, _)| *file)
    }

    /// How many files and ranges there are.
    #[must_use]
    pub fn len(&self) -> (usize, usize) {
        (self.files.len(), self.count)
    }

    /// Whether nothing counts.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty() && !self.everything
    }

    /// The first place behind `at` in a file that counts, and where the range that it is in ends, if not with the file.
    #[must_use]
    pub fn next(&self, at: &Next) -> Option<(Next, Option<Next>)> {
        match at {
            Next::Items(file, after) => match self.files.get(file)? {
                Part::Items(ranges) => {
                    let until = (Bound::Unbounded, Bound::Included(after));
                    let inside = ranges.range::<Bytes, _>(until).next_back();
                    let inside = inside.filter(|(_, through)| *through > after);
                    let behind = (Bound::Excluded(after), Bound::Unbounded);
                    let behind = || ranges.range::<Bytes, _>(behind).next();
                    let (from, through) = inside.or_else(behind)?;
                    let from = from.max(after).clone();
                    Some((Next::Items(*file, from), Some(Next::Items(*file, through.clone()))))
                }
                _ => Some((at.clone(), None)),
            },
            Next::Blocks(file, offset) => match self.files.get(file)? {
                Part::Blocks(ranges) => {
                    let inside = ranges.range(..=offset).next_back().filter(|(_, end)| *end > offset);
                    let behind = || ranges.range((Bound::Excluded(offset), Bound::Unbounded)).next();
                    let (from, to) = inside.or_else(behind)?;
                    Some((Next::Blocks(*file, *from.max(offset)), Some(Next::Blocks(*file, *to))))
                }
                _ => Some((at.clone(), None)),
            },
            Next::Nothing => None,
        }
    }

    fn encode(&self, w: &mut Writer) {
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        w.u32(number(self.files.len()));
        for (file, part) in &self.files {
            w.u64(file.0);
            match part {
                Part::Whole => {
                    w.u8(WHOLE).u32(0);
                }
                Part::Compared => {
                    w.u8(COMPARED).u32(0);
                }
                Part::Items(ranges) => {
                    w.u8(ITEMS).u32(number(ranges.len()));
                    for (after, through) in ranges {
                        short(w, after);
                        short(w, through);
                    }
                }
                Part::Blocks(ranges) => {
                    w.u8(BLOCKS).u32(number(ranges.len()));
                    for (from, to) in ranges {
                        w.u64(*from).u64(*to);
                    }
                }
            }
        }
    }

    fn decode(bytes: &Bytes, r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut this = Self::default();
        for _ in 0..r.u32()? {
            let file = FileId(r.number("file of a range")?);
            if this.files.last_key_value().is_some_and(|(last, _)| *last >= file) {
                return Err(DecodeError::Field { what: "order of files", expected: 1, found: file.0 });
            }
            let (kind, count) = (r.u8()?, r.u32()?);
            let part = match (kind, count) {
                (WHOLE, 0) => Part::Whole,
                (COMPARED, 0) => Part::Compared,
                (ITEMS, 1..) => Part::Items(decode_ranges(r, count, |r| take_id(bytes, r))?),
                (BLOCKS, 1..) => Part::Blocks(decode_ranges(r, count, take_offset)?),
                (WHOLE..=COMPARED, _) => {
                    let found = u64::from(count);
                    return Err(DecodeError::Field { what: "number of ranges", expected: 0, found });
                }
                (other, _) => return Err(unknown("kind of a range", other)),
            };
            this.count += part.count();
            this.files.insert(file, part);
            if this.count > REWIND_RANGES_MAX {
                let (limit, found) = (REWIND_RANGES_MAX as u64, this.count as u64);
                return Err(DecodeError::Limit { what: "ranges of a rewind", limit, found });
            }
        }
        Ok(this)
    }
}

fn take_offset(r: &mut Reader<'_>) -> Result<u64, DecodeError> {
    let offset = r.u64()?;
    let (limit, found) = (VOLUME_MAX, offset);
    if found > limit || !found.is_multiple_of(BLOCK_U64) {
        return Err(DecodeError::Limit { what: "offset of a range", limit, found });
    }
    Ok(offset)
}

fn decode_ranges<K: Ord>(
    r: &mut Reader<'_>,
    count: u32,
    take: impl Fn(&mut Reader<'_>) -> Result<K, DecodeError>,
) -> Result<BTreeMap<K, K>, DecodeError> {
    let mut ranges = BTreeMap::new();
    for _ in 0..count {
        let (from, to) = (take(r)?, take(r)?);
        if from >= to || ranges.last_key_value().is_some_and(|(_, end)| *end >= from) {
            let found = ranges.len() as u64;
            return Err(DecodeError::Field { what: "order of ranges", expected: 1, found });
        }
        ranges.insert(from, to);
    }
    Ok(ranges)
}

/// What a primary tells a node that has to leave entries of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rewind {
    /// The last entry that both histories have.
    pub common: Position,
    /// What the primary touched after it; none if everything has to be copied.
    pub ranges: Option<Ranges>,
}

impl Rewind {
    /// The payload's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::with_capacity(256);
        w.u32(0).u16(VERSION).u64(self.common.epoch.0).u64(self.common.seq.0).u64(self.common.chain.0);
        w.u8(u8::from(self.ranges.is_some()));
        if let Some(ranges) = &self.ranges {
            ranges.encode(&mut w);
        }
        sealed(w)
    }

    /// Reads the payload.
    ///
    /// # Errors
    /// Any [`DecodeError`]; never panics.
    pub fn decode(payload: &Bytes) -> Result<Self, DecodeError> {
        let mut r = Reader::new("rewind", payload);
        check(&mut r, "rewind")?;
        let version = r.u16()?;
        r.expect("version of a rewind", u64::from(VERSION), u64::from(version))?;
        let common = position(&mut r)?;
        let ranges = match r.u8()? {
            0 => None,
            1 => Some(Ranges::decode(payload, &mut r)?),
            other => return Err(unknown("what a rewind needs", other)),
        };
        r.expect("bytes behind a rewind", 0, r.rest().len() as u64)?;
        Ok(Self { common, ranges })
    }
}

/// A rewind that has been agreed on: the node's store keeps it before anything of the node's history is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prepared {
    /// The copy that it is a part of.
    pub begin: CopyBegin,
    /// All that is wanted.
    pub ranges: Ranges,
}

impl Prepared {
    /// The record's bytes.
    ///
    /// # Errors
    /// [`DecodeError::Limit`] if it is longer than a frame.
    pub fn encode(&self) -> Result<Vec<u8>, DecodeError> {
        let begin = self.begin.encode()?;
        let mut w = Writer::with_capacity(begin.len() + 1024);
        w.u32(0).u32(u32::try_from(begin.len()).unwrap_or(u32::MAX)).put(&begin);
        self.ranges.encode(&mut w);
        let bytes = sealed(w);
        let (limit, found) = (FRAME_PAYLOAD_MAX as u64, bytes.len() as u64);
        if found > limit {
            return Err(DecodeError::Limit { what: "record of a rewind", limit, found });
        }
        Ok(bytes)
    }

    /// Reads the record.
    ///
    /// # Errors
    /// Any [`DecodeError`]; never panics.
    pub fn decode(record: &Bytes) -> Result<Self, DecodeError> {
        let mut r = Reader::new("record of a rewind", record);
        check(&mut r, "record of a rewind")?;
        let len = r.u32()? as usize;
        let begin = CopyBegin::decode(&record.slice_ref(r.take(len)?))?;
        let ranges = Ranges::decode(record, &mut r)?;
        r.expect("bytes behind the record of a rewind", 0, r.rest().len() as u64)?;
        Ok(Self { begin, ranges })
    }
}

/// Decodes any bytes as one of the two, which the first byte chooses, as they are and with a checksum that fits.
pub fn fuzz_rewind(bytes: &[u8]) {
    let Some((kind, rest)) = bytes.split_first() else { return };
    let mut w = Writer::with_capacity(rest.len());
    w.put(rest);
    for payload in [Bytes::copy_from_slice(rest), sealed(w).into()] {
        if kind % 2 == 0 {
            if let Ok(rewind) = Rewind::decode(&payload) {
                assert_eq!(Rewind::decode(&rewind.encode().into()), Ok(rewind));
            }
        } else if let Ok(prepared) = Prepared::decode(&payload) {
            assert_eq!(Prepared::decode(&prepared.encode().expect("it fitted").into()), Ok(prepared));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Chain, Epoch, Seq};
    use crate::format::chunk::{Definitions, Want, WantFrom};
    use crate::format::entry::BlockId;

    const FILE: FileId = FileId(4);
    const DISK: FileId = FileId(5);

    fn put(ranges: &mut Ranges, id: &[u8]) {
        ranges.note(&Entry { kind: EntryKind::Put, file: FILE, id, value: b"v" });
    }

    fn write(ranges: &mut Ranges, offset: u64, len: u64) {
        let id = BlockId::range(offset, len);
        ranges.note(&Entry { kind: EntryKind::BlockPunch, file: DISK, id: id.as_ref(), value: b"" });
    }

    fn define(ranges: &mut Ranges, kind: EntryKind, file: FileId) {
        ranges.note(&Entry { kind, file, id: b"", value: b"" });
    }

    fn sample() -> Ranges {
        let mut ranges = Ranges::default();
        put(&mut ranges, b"1001");
        put(&mut ranges, b"1003");
        put(&mut ranges, b"a\0");
        write(&mut ranges, 5000, 100);
        write(&mut ranges, 1 << 30, 1 << 20);
        define(&mut ranges, EntryKind::FileClear, FileId(9));
        ranges
    }

    fn prepared() -> Prepared {
        let at = Position { epoch: Epoch(5), seq: Seq(77), chain: Chain(99) };
        let namespace = Definitions { meta: Bytes::from_static(&[1]), records: Vec::new() };
        Prepared { begin: CopyBegin { origin: at, size: 7, table: Vec::new(), namespace }, ranges: sample() }
    }

    fn rewind(ranges: Option<Ranges>) -> Rewind {
        Rewind { common: Position { epoch: Epoch(3), seq: Seq(40), chain: Chain(7) }, ranges }
    }

    fn all() -> Vec<Vec<u8>> {
        vec![
            [vec![0], rewind(None).encode()].concat(),
            [vec![0], rewind(Some(sample())).encode()].concat(),
            [vec![1], prepared().encode().unwrap()].concat(),
        ]
    }

    #[test]
    fn what_entries_touch_counts_and_nothing_else_does() {
        let ranges = sample();
        for (id, counts) in
            [(&b"1001"[..], true), (b"1002", false), (b"1003", true), (b"a", false), (b"a\0", true)]
        {
            assert_eq!(ranges.has_item(FILE, id), counts, "{id:?}");
        }
        assert!(!ranges.has_item(FILE, b"1000") && !ranges.has_item(FILE, b"10011"));
        assert!(ranges.has_blocks(DISK, 4096, 8192) && ranges.has_blocks(DISK, 0, 4097));
        assert!(!ranges.has_blocks(DISK, 0, 4096) && !ranges.has_blocks(DISK, 8192, 1 << 30));
        assert!(ranges.is_whole(FileId(9)) && !ranges.is_whole(FILE) && !ranges.has_item(DISK, b"x"));
        // What is defined anew counts as a whole, whatever was noted of it before and comes after.
        let mut ranges = ranges;
        for (kind, whole) in [
            (EntryKind::EpochStart, false),
            (EntryKind::AccountChange, false),
            (EntryKind::AccountDelete, false),
            (EntryKind::Logging, false),
            (EntryKind::CopyEnd, true),
        ] {
            define(&mut ranges, kind, FILE);
            assert_eq!(ranges.is_whole(FILE), whole, "{kind:?}");
        }
        put(&mut ranges, b"1001");
        assert!(ranges.is_whole(FILE) && ranges.has_item(FILE, b"anything"));
        for kind in
            [EntryKind::FileCreate, EntryKind::FileDelete, EntryKind::FileChange, EntryKind::CopyBegin]
        {
            let mut ranges = Ranges::default();
            define(&mut ranges, kind, FILE);
            assert!(ranges.is_whole(FILE), "{kind:?}");
        }
    }

    #[test]
    fn ranges_are_gone_through_in_order_from_wherever_one_stands() {
        let ranges = sample();
        let items = |after: &[u8]| ranges.next(&Next::Items(FILE, Bytes::copy_from_slice(after)));
        let found = |from: &[u8], through: &[u8]| {
            let at = |id: &[u8]| Next::Items(FILE, Bytes::copy_from_slice(id));
            Some((at(from), Some(at(through))))
        };
        assert_eq!(items(b""), found(b"1000\xff", b"1001"));
        assert_eq!(items(b"1000\xff"), found(b"1000\xff", b"1001"));
        assert_eq!(items(b"1000\xff5"), found(b"1000\xff5", b"1001"));
        assert_eq!(items(b"1001"), found(b"1002\xff", b"1003"));
        assert_eq!(items(b"1003"), found(b"a", b"a\0"));
        assert_eq!(items(b"a\0"), None);
        let blocks = |offset| ranges.next(&Next::Blocks(DISK, offset));
        let found = |from, to| Some((Next::Blocks(DISK, from), Some(Next::Blocks(DISK, to))));
        assert_eq!((blocks(0), blocks(4096)), (found(4096, 8192), found(4096, 8192)));
        assert_eq!(blocks(8192), found(1 << 30, (1 << 30) + (1 << 20)));
        assert_eq!(blocks((1 << 30) + 4096), found((1 << 30) + 4096, (1 << 30) + (1 << 20)));
        assert_eq!(blocks((1 << 30) + (1 << 20)), None);
        let whole = Next::Items(FileId(9), Bytes::from_static(b"k"));
        assert_eq!(ranges.next(&whole), Some((whole, None)));
        assert_eq!(ranges.next(&Next::Items(FileId(8), Bytes::new())), None);
        assert_eq!(ranges.files_from(DISK).collect::<Vec<_>>(), [DISK, FileId(9)]);
    }

    #[test]
    fn ranges_that_meet_become_one_and_two_lists_are_one_list_of_both() {
        let mut ranges = Ranges::default();
        for (from, len) in [(0, 1), (8192, 4096), (4096, 1), (65536, 4096), (60000, 20000)] {
            write(&mut ranges, from, len);
        }
        assert_eq!(ranges.len(), (1, 2));
        let mut other = sample();
        other.add(&ranges);
        assert!(other.has_blocks(DISK, 0, 1) && other.has_item(FILE, b"1001") && other.is_whole(FileId(9)));
        let mut back = ranges;
        back.add(&sample());
        assert_eq!(back, other);
    }

    #[test]
    fn a_list_that_grows_over_its_limit_becomes_coarser_and_forgets_nothing() {
        let mut ranges = Ranges::default();
        let id = |n: usize| format!("{:08}", n * 3).into_bytes();
        let many = 3 * REWIND_RANGES_MAX;
        for n in 0..many {
            put(&mut ranges, &id(n));
            assert!(ranges.len().1 <= 2 * REWIND_RANGES_MAX);
        }
        let ranges = ranges.bounded().unwrap();
        assert!(ranges.len().1 <= REWIND_RANGES_MAX && ranges.len().1 > REWIND_RANGES_MAX / 4);
        assert!((0..many).all(|n| ranges.has_item(FILE, &id(n))));
        let sent = rewind(Some(ranges));
        assert_eq!(Rewind::decode(&sent.encode().into()), Ok(sent));
        // Files cannot be taken together.
        let mut files = Ranges::default();
        for n in 0..=2 * REWIND_RANGES_MAX as u64 {
            files.whole(FileId(n));
        }
        assert!(files.is_whole(FileId(7)) && files.clone().bounded().is_none());
        let mut few = sample();
        few.add(&files);
        assert!(few.bounded().is_none());
    }

    #[test]
    fn the_id_before_another_is_as_close_as_its_length_allows() {
        assert_eq!(before(b"a"), Bytes::from_static(b"`\xff"));
        assert_eq!((before(b"\0"), before(b"x\0")), (Bytes::new(), Bytes::from_static(b"x")));
        let long = before(&[7; 255]);
        assert!(long[..] < [7; 255][..] && long.len() == 255);
    }

    #[test]
    fn the_golden_rewind_is_byte_for_byte_what_this_version_sends_and_stores() {
        let golden = include_bytes!("../../tests/data/rewind-v1.bin");
        let want = |from| Want { id: 6, file: FILE, from, most: 1 << 20, unless: None }.encode();
        let items = WantFrom::ItemsTo(Bytes::from_static(b"k"), Bytes::from_static(b"m"));
        let wants = [want(items), want(WantFrom::BlocksTo(4096, 8192))];
        let found: Vec<u8> = all()
            .iter()
            .chain(&wants)
            .flat_map(|bytes| [&u32::try_from(bytes.len()).unwrap().to_le_bytes()[..], bytes].concat())
            .collect();
        assert!(found == golden, "it differs");
    }

    #[test]
    fn all_of_a_rewind_reads_back_and_no_cut_or_change_of_it_panics() {
        assert_eq!(Prepared::decode(&prepared().encode().unwrap().into()), Ok(prepared()));
        for sent in [rewind(None), rewind(Some(sample()))] {
            assert_eq!(Rewind::decode(&sent.encode().into()), Ok(sent));
        }
        for bytes in all() {
            fuzz_rewind(&bytes);
            for cut in 0..bytes.len() {
                fuzz_rewind(&bytes[..cut]);
                for bit in 0..8 {
                    let mut other = bytes.clone();
                    other[cut] ^= 1 << bit;
                    fuzz_rewind(&other);
                }
            }
        }
    }

    #[test]
    fn ranges_that_cannot_be_are_refused_by_name() {
        let told = |change: &dyn Fn(&mut Writer)| {
            let mut w = Writer::with_capacity(64);
            w.u32(0).u16(VERSION).u64(3).u64(40).u64(7).u8(1);
            change(&mut w);
            Rewind::decode(&sealed(w).into()).unwrap_err().to_string()
        };
        let blocks = |ranges: &'static [u64]| {
            told(&move |w| {
                w.u32(1).u64(5).u8(BLOCKS).u32(u32::try_from(ranges.len() / 2).unwrap());
                ranges.iter().for_each(|offset| {
                    w.u64(*offset);
                });
            })
        };
        assert!(blocks(&[4096, 4096]).contains("order of ranges"));
        assert!(blocks(&[0, 4096, 4096, 8192]).contains("order of ranges"));
        assert!(blocks(&[1, 4096]).contains("offset of a range"));
        assert!(blocks(&[0, VOLUME_MAX + 4096]).contains("offset of a range"));
        assert!(blocks(&[]).contains("number of ranges"));
        let two = |w: &mut Writer| {
            w.u32(2).u64(5).u8(WHOLE).u32(0).u64(5).u8(WHOLE).u32(0);
        };
        assert!(told(&two).contains("order of files"));
        let kind = |w: &mut Writer| {
            w.u32(1).u64(5).u8(7).u32(0);
        };
        assert!(told(&kind).contains("kind of a range"));
    }
}

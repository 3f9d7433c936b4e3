//! What a copy consists of, beside the batches of the journal: its beginning, what the receiver wants, and chunks.
//!
//! A copy makes the replicated content of one node the content of another. The receiver starts with the definitions of one
//! position, takes every batch after it, and asks for the content range by range. A [`Chunk`] says what a range holds at a
//! position of the stream: it stands directly behind the batch that ends there. So whoever takes batches and chunks in order is
//! right for the range from then on.
//!
//! The first three are payloads of link frames ([`super::frame`]). The long ones carry their own checksum, as a batch does.
//!
//! **Beginning**
//!
//! | size | field |
//! |---|---|
//! | 4 | `crc`: CRC32C of all that follows |
//! | 2 | `version` 1 |
//! | 24 | `origin`: epoch, seq, chain; the stream goes on behind it |
//! | 8 | `size`: about how much content there is (bytes) |
//! | 4 | number of epochs, then 24 bytes for each, as in a control file: those up to the origin |
//! | 4 | length of the namespace's own record, then the record |
//! | 4 | number of definitions, then for each: id u64, length u32, D-pointer |
//!
//! **Want**
//!
//! | size | field |
//! |---|---|
//! | 8 | `id`: the chunk that answers bears it |
//! | 8 | `file` |
//! | 1 | 1 items, 2 blocks, 3 items up to one, 4 blocks up to one |
//! | 4 | `most`: content in bytes; an item that is longer comes alone |
//! | 2, n | items: those behind this id; empty for the first |
//! | 8 | blocks: from this byte on |
//! | 2, n | 3: through this id |
//! | 8 | 4: to this byte, not included |
//!
//! **Chunk**
//!
//! | size | field |
//! |---|---|
//! | 4 | `crc`: CRC32C of all that follows |
//! | 8 | `id` of the want |
//! | 8 | `file` |
//! | 8 | `at`: it stands behind the batch that ends with this entry |
//! | 8 | `until`: bytes of blocks may be newer, up to this entry; `at` for items |
//! | 1 | 0 there is no such file, 1 items, 2 blocks, 5 blocks some of which are rotten at the giver (a feature of the hello) |
//! | 1 | 1 if the file ends with it |
//! | .. | items: after (u16, id), through (u16, id; empty if the file ends), count u32, each: u16, id, u32, value |
//! | .. | blocks: offset u64, length u64, count u32, each: offset u64, u32, bytes; of kind 5 no bytes: this block is rotten. The rest of the range is zeros |
//!
//! **Progress**, which the receiver's store keeps
//!
//! | size | field |
//! |---|---|
//! | 24 | `origin`: epoch, seq, chain |
//! | 8 | `until`: the copy is not whole before this entry is applied |
//! | 8 | `bytes`: content that came (bytes) |
//! | 8 | `size`: about how much there is (bytes) |
//! | 1 | 0 nothing is wanted any more, 1 items, 2 blocks |
//! | 8 | `file` |
//! | 2, n | items: those behind this id |
//! | 8 | blocks: from this byte on |

use super::control::EpochMark;
use super::{DecodeError, Reader, Writer};
use crate::base::limits::{
    BLOCK_U64, COPY_DEFINITIONS_MAX, COPY_RUNS_MAX, EPOCH_TABLE_MAX, FRAME_PAYLOAD_MAX, ITEM_ID_MAX,
    ITEM_VALUE_MAX,
};
use crate::base::{Chain, Epoch, FileId, Position, Seq, crc32c};
use bytes::Bytes;

const VERSION: u16 = 1;
pub(super) const ITEMS: u8 = 1;
pub(super) const BLOCKS: u8 = 2;
/// Blocks, of which a run without bytes stands for one that is rotten at the giver.
const LOST: u8 = 5;
const ITEMS_TO: u8 = 3;
const BLOCKS_TO: u8 = 4;

/// The definitions that a copy starts with, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CopyBegin {
    /// The receiver's history begins here.
    pub origin: Position,
    /// About how much content there is (bytes); what holds no data is not counted.
    pub size: u64,
    /// Where the epochs of the history up to here began.
    pub table: Vec<EpochMark>,
    /// Every account and file, as the namespace encodes them.
    pub namespace: Definitions,
}

/// Accounts and files in the form in which a store keeps them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Definitions {
    /// The namespace's own record.
    pub meta: Bytes,
    /// D-pointers by id, in order of ids.
    pub records: Vec<(FileId, Bytes)>,
}

/// A range of a file that a receiver wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Want {
    /// The chunk that answers bears it.
    pub id: u64,
    /// The file.
    pub file: FileId,
    /// Where the range begins.
    pub from: WantFrom,
    /// How much content at most (bytes).
    pub most: u32,
}

/// Where a wanted range begins; whoever answers decides where it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WantFrom {
    /// Items behind this id; all if it is empty.
    Items(Bytes),
    /// Blocks from this byte on.
    Blocks(u64),
    /// Items behind the first id, through the second.
    ItemsTo(Bytes, Bytes),
    /// Blocks from the first byte to the second, which is not included.
    BlocksTo(u64, u64),
}

impl WantFrom {
    /// The items that are wanted: behind which id, and through which one if not to the end.
    #[must_use]
    pub fn items(&self) -> Option<(&Bytes, Option<&Bytes>)> {
        match self {
            Self::Items(after) => Some((after, None)),
            Self::ItemsTo(after, through) => Some((after, Some(through))),
            Self::Blocks(_) | Self::BlocksTo(..) => None,
        }
    }

    /// The blocks that are wanted: from which byte on, and to which one if not to the end.
    #[must_use]
    pub fn blocks(&self) -> Option<(u64, Option<u64>)> {
        match self {
            Self::Blocks(from) => Some((*from, None)),
            Self::BlocksTo(from, to) => Some((*from, Some(*to))),
            Self::Items(_) | Self::ItemsTo(..) => None,
        }
    }
}

/// What a range holds at a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Of the want that it answers.
    pub id: u64,
    /// The file.
    pub file: FileId,
    /// It stands behind the batch that ends with this entry.
    pub at: Seq,
    /// From this entry on the range is exact.
    pub until: Seq,
    /// The content.
    pub content: Content,
    /// The file ends with it.
    pub ends: bool,
}

/// Everything that a range holds; whatever else is there has to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// There is no such file, or not of that kind: nothing is said of it.
    Gone,
    /// Items.
    Items {
        /// The range begins behind this id; at the first one if it is empty.
        after: Bytes,
        /// The last id of the range; without meaning if the file ends with it.
        through: Bytes,
        /// Ids and values, in order.
        items: Vec<(Bytes, Bytes)>,
    },
    /// Blocks of a volume.
    Blocks {
        /// First byte.
        offset: u64,
        /// How many.
        len: u64,
        /// Offset and content, in order, without overlap; the rest is zeros.
        runs: Vec<(u64, Bytes)>,
    },
}

impl Content {
    /// Whether a block of it is rotten at the giver: its run has no bytes.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        matches!(self, Self::Blocks { runs, .. } if runs.iter().any(|(_, bytes)| bytes.is_empty()))
    }

    /// How much is in it (bytes).
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let sum = |parts: &mut dyn Iterator<Item = usize>| parts.map(|len| len as u64).sum();
        match self {
            Self::Gone => 0,
            Self::Items { items, .. } => sum(&mut items.iter().map(|(id, value)| id.len() + value.len())),
            Self::Blocks { runs, .. } => sum(&mut runs.iter().map(|(_, bytes)| bytes.len())),
        }
    }
}

/// How far a receiver is. Everything before `next`, in the order of [`Next`], is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Where the copy began.
    pub origin: Position,
    /// The highest [`Chunk::until`] so far.
    pub until: Seq,
    /// Content that came (bytes).
    pub bytes: u64,
    /// About how much there is, as the beginning of the copy told (bytes).
    pub size: u64,
    /// What is wanted next.
    pub next: Next,
}

/// What a receiver wants next: first the items of all record files, then the blocks of all volumes, each in the order of ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Items of this file, or of the first one behind it, behind this id.
    Items(FileId, Bytes),
    /// Blocks of this volume, or of the first one behind it, from this byte on.
    Blocks(FileId, u64),
    /// Nothing.
    Nothing,
}

impl Progress {
    /// Of a copy that has just begun.
    #[must_use]
    pub fn of(begin: &CopyBegin) -> Self {
        Self { size: begin.size, ..Self::at(begin.origin) }
    }

    /// Of a copy of which only the origin is known.
    #[must_use]
    pub fn at(origin: Position) -> Self {
        Self { origin, until: origin.seq, bytes: 0, size: 0, next: Next::Items(FileId(0), Bytes::new()) }
    }

    /// Whether anything is wanted yet.
    #[must_use]
    pub fn is_under_way(&self) -> bool {
        self.next != Next::Nothing
    }

    /// The record's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::with_capacity(64);
        w.u64(self.origin.epoch.0).u64(self.origin.seq.0).u64(self.origin.chain.0).u64(self.until.0);
        w.u64(self.bytes).u64(self.size);
        match &self.next {
            Next::Items(file, after) => {
                w.u8(ITEMS).u64(file.0);
                short(&mut w, after);
            }
            Next::Blocks(file, offset) => {
                w.u8(BLOCKS).u64(file.0).u64(*offset);
            }
            Next::Nothing => {
                w.u8(0);
            }
        }
        w.into_bytes()
    }

    /// Reads the record.
    ///
    /// # Errors
    /// Any [`DecodeError`]; never panics.
    pub fn decode(record: &Bytes) -> Result<Self, DecodeError> {
        let mut r = Reader::new("progress of a copy", record);
        let origin = position(&mut r)?;
        let until = Seq(r.number("end of a copy")?);
        let (bytes, size) = (r.number("content of a copy")?, r.number("size of a copy")?);
        let next = match r.u8()? {
            0 => Next::Nothing,
            ITEMS => Next::Items(FileId(r.number("file of a copy")?), take_id(record, &mut r)?),
            BLOCKS => Next::Blocks(FileId(r.number("file of a copy")?), r.number("offset of a copy")?),
            other => return Err(unknown("what a copy wants", other)),
        };
        r.expect("bytes behind the progress of a copy", 0, r.rest().len() as u64)?;
        Ok(Self { origin, until, bytes, size, next })
    }
}

pub(super) fn position(r: &mut Reader<'_>) -> Result<Position, DecodeError> {
    let epoch = Epoch(r.number("epoch of a copy's origin")?);
    let seq = Seq(r.number("entry of a copy's origin")?);
    Ok(Position { epoch, seq, chain: Chain(r.u64()?) })
}

impl CopyBegin {
    /// The payload's bytes; only the newest [`EPOCH_TABLE_MAX`] epochs are told.
    ///
    /// # Errors
    /// [`DecodeError::Limit`] if there are more definitions than one frame holds.
    ///
    /// # Panics
    /// Never.
    pub fn encode(&self) -> Result<Vec<u8>, DecodeError> {
        let skip = self.table.len().saturating_sub(EPOCH_TABLE_MAX);
        let told = self.table.get(skip..).unwrap_or_default();
        let mut w = Writer::with_capacity(256);
        w.u32(0).u16(VERSION);
        w.u64(self.origin.epoch.0).u64(self.origin.seq.0).u64(self.origin.chain.0).u64(self.size);
        w.u32(u32::try_from(told.len()).expect("limit fits"));
        told.iter().for_each(|mark| mark.encode(&mut w));
        long(&mut w, &self.namespace.meta);
        w.u32(u32::try_from(self.namespace.records.len()).unwrap_or(u32::MAX));
        for (id, record) in &self.namespace.records {
            w.u64(id.0);
            long(&mut w, record);
        }
        let bytes = sealed(w);
        let (found, limit) = (self.namespace.records.len() as u64, u64::from(COPY_DEFINITIONS_MAX));
        if bytes.len() > FRAME_PAYLOAD_MAX || found > limit {
            return Err(DecodeError::Limit { what: "definitions of a copy", limit, found });
        }
        Ok(bytes)
    }

    /// Reads the payload. The definitions themselves are read by whoever takes them.
    ///
    /// # Errors
    /// Any [`DecodeError`]; never panics.
    pub fn decode(payload: &Bytes) -> Result<Self, DecodeError> {
        let mut r = Reader::new("beginning of a copy", payload);
        check(&mut r, "beginning of a copy")?;
        let version = r.u16()?;
        r.expect("version of a copy", u64::from(VERSION), u64::from(version))?;
        let origin = position(&mut r)?;
        let size = r.number("size of a copy")?;
        let count = r.u32()? as usize;
        let table = EpochMark::decode_table(&mut r, count, EPOCH_TABLE_MAX)?;
        let meta = take_long(payload, &mut r, FRAME_PAYLOAD_MAX, "namespace of a copy")?;
        let count = r.u32()?;
        if count > COPY_DEFINITIONS_MAX {
            let (limit, found) = (u64::from(COPY_DEFINITIONS_MAX), u64::from(count));
            return Err(DecodeError::Limit { what: "definitions of a copy", limit, found });
        }
        // Each takes twelve bytes at least.
        let mut records: Vec<(FileId, Bytes)> = Vec::with_capacity((count as usize).min(r.rest().len() / 12));
        for _ in 0..count {
            let id = FileId(r.number("id of a definition")?);
            if let Some((last, _)) = records.last()
                && *last >= id
            {
                let (expected, found) = (last.0.saturating_add(1), id.0);
                return Err(DecodeError::Field { what: "order of definitions", expected, found });
            }
            records.push((id, take_long(payload, &mut r, FRAME_PAYLOAD_MAX, "definition")?));
        }
        r.expect("bytes behind the beginning of a copy", 0, r.rest().len() as u64)?;
        Ok(Self { origin, size, table, namespace: Definitions { meta, records } })
    }
}

impl Want {
    /// The payload's bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::with_capacity(64);
        w.u64(self.id).u64(self.file.0);
        match &self.from {
            WantFrom::Items(after) => {
                w.u8(ITEMS).u32(self.most);
                short(&mut w, after);
            }
            WantFrom::Blocks(offset) => {
                w.u8(BLOCKS).u32(self.most).u64(*offset);
            }
            WantFrom::ItemsTo(after, through) => {
                w.u8(ITEMS_TO).u32(self.most);
                short(&mut w, after);
                short(&mut w, through);
            }
            WantFrom::BlocksTo(from, to) => {
                w.u8(BLOCKS_TO).u32(self.most).u64(*from).u64(*to);
            }
        }
        w.into_bytes()
    }

    /// Reads the payload.
    ///
    /// # Errors
    /// Any [`DecodeError`]; never panics.
    pub fn decode(payload: &Bytes) -> Result<Self, DecodeError> {
        let mut r = Reader::new("want", payload);
        let (id, file, kind, most) = (r.u64()?, FileId(r.number("file of a want")?), r.u8()?, r.u32()?);
        let from = match kind {
            ITEMS => WantFrom::Items(take_id(payload, &mut r)?),
            BLOCKS => WantFrom::Blocks(r.number("offset of a want")?),
            ITEMS_TO => {
                let (after, through) = (take_id(payload, &mut r)?, take_id(payload, &mut r)?);
                if after >= through {
                    return Err(DecodeError::Field { what: "end of a want", expected: 1, found: 0 });
                }
                WantFrom::ItemsTo(after, through)
            }
            BLOCKS_TO => {
                let (from, to) = (r.number("offset of a want")?, r.number("end of a want")?);
                if from >= to {
                    return Err(DecodeError::Field { what: "end of a want", expected: from + 1, found: to });
                }
                WantFrom::BlocksTo(from, to)
            }
            other => return Err(unknown("kind of a want", other)),
        };
        r.expect("bytes behind a want", 0, r.rest().len() as u64)?;
        Ok(Self { id, file, from, most })
    }
}

impl Chunk {
    /// The payload's bytes.
    ///
    /// # Panics
    /// If an id is longer than [`ITEM_ID_MAX`].
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let bytes = usize::try_from(self.content.bytes()).unwrap_or(usize::MAX);
        let mut w = Writer::with_capacity(bytes.saturating_add(4096).min(FRAME_PAYLOAD_MAX));
        let kind = match &self.content {
            Content::Gone => 0,
            Content::Items { .. } => ITEMS,
            Content::Blocks { .. } if self.content.is_lost() => LOST,
            Content::Blocks { .. } => BLOCKS,
        };
        w.u32(0)
            .u64(self.id)
            .u64(self.file.0)
            .u64(self.at.0)
            .u64(self.until.0)
            .u8(kind)
            .u8(u8::from(self.ends));
        match &self.content {
            Content::Gone => {}
            Content::Items { after, through, items } => {
                short(&mut w, after);
                short(&mut w, through);
                w.u32(u32::try_from(items.len()).unwrap_or(u32::MAX));
                for (id, value) in items {
                    short(&mut w, id);
                    long(&mut w, value);
                }
            }
            Content::Blocks { offset, len, runs } => {
                w.u64(*offset).u64(*len).u32(u32::try_from(runs.len()).unwrap_or(u32::MAX));
                for (offset, bytes) in runs {
                    w.u64(*offset);
                    long(&mut w, bytes);
                }
            }
        }
        sealed(w)
    }

    /// Reads the payload, of which ids, values and blocks stay parts.
    ///
    /// # Errors
    /// Any [`DecodeError`]; never panics. Ids that are not in order, and runs that overlap or leave the range, are refused.
    pub fn decode(payload: &Bytes) -> Result<Self, DecodeError> {
        let mut r = Reader::new("chunk", payload);
        check(&mut r, "chunk")?;
        let (id, file) = (r.u64()?, FileId(r.number("file of a chunk")?));
        let (at, until) = (Seq(r.number("position of a chunk")?), Seq(r.number("end of a chunk")?));
        let (kind, ends) = (r.u8()?, r.u8()?);
        if until < at || ends > 1 {
            let (expected, found) = (at.0, until.0);
            return Err(DecodeError::Field { what: "end of a chunk", expected, found });
        }
        let content = match kind {
            0 => Content::Gone,
            ITEMS => decode_items(payload, &mut r, ends == 1)?,
            BLOCKS => decode_blocks(payload, &mut r, false)?,
            LOST => decode_blocks(payload, &mut r, true)?,
            other => return Err(unknown("kind of a chunk", other)),
        };
        r.expect("bytes behind a chunk", 0, r.rest().len() as u64)?;
        Ok(Self { id, file, at, until, content, ends: ends == 1 })
    }
}

fn decode_items(payload: &Bytes, r: &mut Reader<'_>, ends: bool) -> Result<Content, DecodeError> {
    let (after, through) = (take_id(payload, r)?, take_id(payload, r)?);
    let count = r.u32()? as usize;
    // Each takes seven bytes at least.
    let mut items: Vec<(Bytes, Bytes)> = Vec::with_capacity(count.min(r.rest().len() / 7));
    for _ in 0..count {
        let id = take_id(payload, r)?;
        let last = items.last().map_or(&after, |(last, _)| last);
        if id <= *last || (!ends && id > through) {
            let (expected, found) = (items.len() as u64, items.len() as u64 + 1);
            return Err(DecodeError::Field { what: "order of items in a chunk", expected, found });
        }
        let value = take_long(payload, r, ITEM_VALUE_MAX, "value in a chunk")?;
        items.push((id, value));
    }
    if !ends && through <= after {
        return Err(DecodeError::Field { what: "last item of a chunk", expected: 1, found: 0 });
    }
    Ok(Content::Items { after, through, items })
}

fn decode_blocks(payload: &Bytes, r: &mut Reader<'_>, lost: bool) -> Result<Content, DecodeError> {
    let (offset, len) = (r.number("offset of a chunk")?, r.number("length of a chunk")?);
    let count = r.u32()?;
    if count > COPY_RUNS_MAX {
        let (limit, found) = (u64::from(COPY_RUNS_MAX), u64::from(count));
        return Err(DecodeError::Limit { what: "runs of a chunk", limit, found });
    }
    let mut runs: Vec<(u64, Bytes)> = Vec::with_capacity((count as usize).min(r.rest().len() / 12));
    let (mut free, end) = (offset, offset + len);
    for _ in 0..count {
        let at = r.number("offset of a run")?;
        let bytes = take_long(payload, r, FRAME_PAYLOAD_MAX, "run of a chunk")?;
        let whole = lost && bytes.is_empty() && at % BLOCK_U64 == 0;
        let behind = if whole { at + BLOCK_U64 } else { at + bytes.len() as u64 };
        if at < free || behind > end || (bytes.is_empty() && !whole) {
            return Err(DecodeError::Field { what: "place of a run", expected: free, found: at });
        }
        free = behind;
        runs.push((at, bytes));
    }
    let content = Content::Blocks { offset, len, runs };
    if content.is_lost() != lost {
        return Err(DecodeError::Field { what: "rotten blocks of a chunk", expected: 1, found: 0 });
    }
    Ok(content)
}

/// The bytes with their checksum in front.
pub(super) fn sealed(w: Writer) -> Vec<u8> {
    let mut bytes = w.into_bytes();
    let crc = crc32c(bytes.get(4..).unwrap_or_default());
    if let Some(field) = bytes.get_mut(..4) {
        field.copy_from_slice(&crc.to_le_bytes());
    }
    bytes
}

pub(super) fn check(r: &mut Reader<'_>, what: &'static str) -> Result<(), DecodeError> {
    let found = r.u32()?;
    let computed = crc32c(r.rest());
    if found == computed { Ok(()) } else { Err(DecodeError::Checksum { what, found, computed }) }
}

pub(super) fn unknown(what: &'static str, found: u8) -> DecodeError {
    DecodeError::Field { what, expected: u64::from(BLOCKS), found: u64::from(found) }
}

pub(super) fn short(w: &mut Writer, id: &[u8]) {
    assert!(id.len() <= ITEM_ID_MAX, "an id stays within its limit");
    w.u16(u16::try_from(id.len()).expect("limit fits")).put(id);
}

pub(super) fn long(w: &mut Writer, bytes: &[u8]) {
    w.u32(u32::try_from(bytes.len()).expect("limit fits")).put(bytes);
}

pub(super) fn take_id(payload: &Bytes, r: &mut Reader<'_>) -> Result<Bytes, DecodeError> {
    let len = usize::from(r.u16()?);
    if len > ITEM_ID_MAX {
        let (limit, found) = (ITEM_ID_MAX as u64, len as u64);
        return Err(DecodeError::Limit { what: "id in a copy", limit, found });
    }
    Ok(payload.slice_ref(r.take(len)?))
}

pub(super) fn take_long(
    payload: &Bytes,
    r: &mut Reader<'_>,
    most: usize,
    what: &'static str,
) -> Result<Bytes, DecodeError> {
    let len = r.u32()? as usize;
    if len > most {
        return Err(DecodeError::Limit { what, limit: most as u64, found: len as u64 });
    }
    Ok(payload.slice_ref(r.take(len)?))
}

/// Decodes any bytes as one of the four, which the first byte chooses, as they are and with a checksum that fits.
pub fn fuzz_chunk(bytes: &[u8]) {
    let Some((kind, rest)) = bytes.split_first() else { return };
    let mut w = Writer::with_capacity(rest.len());
    w.put(rest);
    for payload in [Bytes::copy_from_slice(rest), sealed(w).into()] {
        fuzz_payload(kind % 4, payload);
    }
}

fn fuzz_payload(kind: u8, payload: Bytes) {
    match kind {
        0 => {
            if let Ok(begin) = CopyBegin::decode(&payload) {
                assert_eq!(CopyBegin::decode(&begin.encode().expect("it fitted").into()), Ok(begin));
            }
        }
        1 => {
            if let Ok(want) = Want::decode(&payload) {
                assert_eq!(Want::decode(&want.encode().into()), Ok(want));
            }
        }
        2 => {
            if let Ok(chunk) = Chunk::decode(&payload) {
                assert_eq!(Chunk::decode(&chunk.encode().into()), Ok(chunk));
            }
        }
        _ => {
            if let Ok(progress) = Progress::decode(&payload) {
                assert_eq!(Progress::decode(&progress.encode().into()), Ok(progress));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin() -> CopyBegin {
        let mark = |e, s| EpochMark { epoch: Epoch(e), first_seq: Seq(s), prev_chain: Chain(e * 7) };
        CopyBegin {
            origin: Position { epoch: Epoch(5), seq: Seq(77), chain: Chain(99) },
            size: 3 << 30,
            table: vec![mark(2, 1), mark(5, 40)],
            namespace: Definitions {
                meta: Bytes::from_static(&[1, 2, 3]),
                records: vec![(FileId(1), Bytes::from_static(b"dm")), (FileId(9), Bytes::new())],
            },
        }
    }

    fn items(ends: bool) -> Chunk {
        let item = |id: &'static str, value: &'static str| (Bytes::from(id), Bytes::from(value));
        let items = vec![item("b", "2"), item("c", "")];
        let content = Content::Items { after: Bytes::from("a"), through: Bytes::from("d"), items };
        Chunk { id: 3, file: FileId(4), at: Seq(80), until: Seq(80), content, ends }
    }

    fn blocks() -> Chunk {
        let runs = vec![(4096, Bytes::from_static(&[7; 5])), (8192, Bytes::from_static(&[8; 4096]))];
        let content = Content::Blocks { offset: 4096, len: 65536, runs };
        Chunk { id: 4, file: FileId(5), at: Seq(80), until: Seq(95), content, ends: true }
    }

    fn all() -> Vec<Vec<u8>> {
        let want = |from| Want { id: 6, file: FileId(4), from, most: 1 << 20 }.encode();
        let gone = Chunk { content: Content::Gone, ..items(true) };
        let progress = |next| Progress { next, bytes: 5 << 20, ..Progress::of(&begin()) }.encode();
        vec![
            [vec![0], begin().encode().unwrap()].concat(),
            [vec![1], want(WantFrom::Items(Bytes::from("k")))].concat(),
            [vec![1], want(WantFrom::Blocks(1 << 30))].concat(),
            [vec![2], items(false).encode()].concat(),
            [vec![2], items(true).encode()].concat(),
            [vec![2], blocks().encode()].concat(),
            [vec![2], gone.encode()].concat(),
            [vec![3], progress(Next::Items(FileId(4), Bytes::from("k")))].concat(),
            [vec![3], progress(Next::Blocks(FileId(5), 4096))].concat(),
            [vec![3], progress(Next::Nothing)].concat(),
        ]
    }

    #[test]
    fn all_of_a_copy_reads_back_and_no_cut_or_change_of_it_panics() {
        assert_eq!(CopyBegin::decode(&begin().encode().unwrap().into()), Ok(begin()));
        for chunk in [items(false), items(true), blocks()] {
            assert_eq!(Chunk::decode(&chunk.encode().into()), Ok(chunk));
        }
        for bytes in all() {
            fuzz_chunk(&bytes);
            for cut in 0..bytes.len().min(200) {
                fuzz_chunk(&bytes[..cut]);
                for bit in 0..8 {
                    let mut other = bytes.clone();
                    other[cut] ^= 1 << bit;
                    fuzz_chunk(&other);
                }
            }
        }
    }

    #[test]
    fn the_golden_copy_is_byte_for_byte_what_this_version_sends() {
        let golden = include_bytes!("../../tests/data/copy-v1.bin");
        let found: Vec<u8> = all()
            .iter()
            .flat_map(|bytes| [&u32::try_from(bytes.len()).unwrap().to_le_bytes()[..], bytes].concat())
            .collect();
        assert!(found == golden, "it differs");
    }

    #[test]
    fn content_that_cannot_be_is_refused_by_name() {
        let told = |chunk: Chunk| Chunk::decode(&chunk.encode().into()).unwrap_err().to_string();
        let with = |content| Chunk { content, ..items(false) };
        let item = |id: &'static str| (Bytes::from(id), Bytes::from("v"));
        let ranged = |after: &'static str, through: &'static str, ids: &[&'static str]| {
            let items = ids.iter().map(|id| item(id)).collect();
            with(Content::Items { after: Bytes::from(after), through: Bytes::from(through), items })
        };
        assert!(told(ranged("a", "d", &["c", "b"])).contains("order of items"));
        assert!(told(ranged("a", "d", &["a"])).contains("order of items"));
        assert!(told(ranged("a", "d", &["e"])).contains("order of items"));
        assert!(told(ranged("d", "d", &[])).contains("last item"));
        let run = |at, len: usize| (at, Bytes::from(vec![1; len]));
        let placed = |runs| with(Content::Blocks { offset: 100, len: 50, runs });
        for runs in [vec![run(99, 2)], vec![run(149, 2)], vec![run(100, 9), run(108, 1)], vec![run(100, 0)]] {
            assert!(told(placed(runs)).contains("place of a run"));
        }
        assert!(told(Chunk { until: Seq(79), ..items(true) }).contains("end of a chunk"));
        let bounded = |from| {
            let want = Want { id: 1, file: FileId(2), from, most: 9 };
            Want::decode(&want.encode().into()).map(|found| assert_eq!(found, want))
        };
        let to = |after, through| WantFrom::ItemsTo(Bytes::from_static(after), Bytes::from_static(through));
        assert!(bounded(to(b"a", b"b")).is_ok() && bounded(WantFrom::BlocksTo(0, 4096)).is_ok());
        for from in [to(b"b", b"b"), WantFrom::BlocksTo(4096, 4096)] {
            assert!(bounded(from).unwrap_err().to_string().contains("end of a want"));
        }
        let want = Want { id: 1, file: FileId(2), from: WantFrom::Blocks(0), most: 9 }.encode();
        let mut other = want.clone();
        other[16] = 7;
        assert!(Want::decode(&other.into()).unwrap_err().to_string().contains("kind of a want"));
        assert!(Want::decode(&[want, vec![0]].concat().into()).is_err());
    }
}

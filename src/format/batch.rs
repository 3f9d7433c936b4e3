//! A batch: entries that are sealed together, which journal, link, spool and tape carry unchanged.
//!
//! | offset | size | field | rule |
//! |---|---|---|---|
//! | 0 | 4 | `magic` | `HBb1` |
//! | 4 | 4 | `crc` | CRC32C of bytes 8 .. `len` |
//! | 8 | 2 | `version` | 1; a higher one is refused |
//! | 10 | 2 | `flags` | bit 0: a *mark* (see below); others 0 |
//! | 12 | 4 | `len` | header and entries in bytes, at most 32 MiB |
//! | 16 | 8 | `epoch` | the primary's term |
//! | 24 | 8 | `first_seq` | number of the first entry; of the next one for a mark |
//! | 32 | 4 | `count` | entries; 0 only for a mark |
//! | 36 | 4 | reserved | 0 |
//! | 40 | 8 | `prev_chain` | running checksum of the history before this batch |
//! | 48 | 8 | `durable` | what was durable at the primary when this batch was sealed |
//! | 56 | 8 | `wall_ms` | when it was sealed, for people |
//! | 64 | 16 | `pair` | the pair's id |
//! | 80 | 1 | `journal` | 0 replicated, 1 local |
//! | 81 | 15 | reserved | 0 |
//! | 96 | .. | entries | see [`super::entry`] |
//!
//! On disk a batch starts on a 4 KiB boundary and is padded with zeros to the next; the padding is not sent.
//! A **mark** holds no entry and is not part of the history: it is written when the journal goes idle and proves
//! that everything before it was durable, so that rot in the last batch can be told from a torn tail.

use super::entry::{BLOCK_WRITE_ID, BlockId, ENTRY_HEADER, Entry, EntryKind};
use super::{DecodeError, PairId, Reader};
use crate::base::limits::{BATCH_ENTRIES_MAX, BATCH_MAX, BLOCK};
use crate::base::{
    AlignedBuf, Chain, Epoch, FileId, JournalKind, Position, Seq, chain_next, crc32c, crc32c_append,
    crc32c_joined,
};
use bytes::Bytes;

/// Bytes before the first entry.
pub const BATCH_HEADER: usize = 96;
const BATCH_HEADER_LEN: u32 = 96;
/// What stands before the payload of a batch that holds one [`EntryKind::BlockWrite`].
pub const AROUND: usize = BATCH_HEADER + ENTRY_HEADER + BLOCK_WRITE_ID;
const MAGIC: u32 = u32::from_le_bytes(*b"HBb1");
const VERSION: u16 = 1;
const FLAG_MARK: u16 = 1;

/// A batch's header, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchHeader {
    /// Checksum of what follows it.
    pub crc: u32,
    /// Whether this is a mark.
    pub mark: bool,
    /// Header and entries (bytes).
    pub len: u32,
    /// The primary's term.
    pub epoch: Epoch,
    /// Number of the first entry.
    pub first_seq: Seq,
    /// Number of entries.
    pub count: u32,
    /// History before this batch.
    pub prev_chain: Chain,
    /// Durable at the primary when sealed.
    pub durable: Seq,
    /// Sealed at, for people (milliseconds since 1970).
    pub wall_ms: u64,
    /// The pair.
    pub pair: PairId,
    /// The journal.
    pub journal: JournalKind,
}

impl BatchHeader {
    /// Number of the last entry; for a mark, of the last entry before it.
    #[must_use]
    pub fn last_seq(&self) -> Seq {
        Seq(self.first_seq.0 + u64::from(self.count) - 1)
    }

    /// The history's end once this batch is part of it.
    #[must_use]
    pub fn end(&self) -> Position {
        let chain = if self.mark { self.prev_chain } else { chain_next(self.prev_chain, self.crc, self.len) };
        Position { epoch: self.epoch, seq: self.last_seq(), chain }
    }

    /// Bytes on disk: `len` up to the next block boundary.
    #[must_use]
    pub fn padded_len(&self) -> usize {
        (self.len as usize).next_multiple_of(BLOCK)
    }

    /// Decodes a header without looking at what follows it.
    ///
    /// # Errors
    /// Any [`DecodeError`] but [`DecodeError::Checksum`]; never panics.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut r = Reader::new("batch header", bytes);
        let magic = r.u32()?;
        r.expect("batch magic", u64::from(MAGIC), u64::from(magic))?;
        let crc = r.u32()?;
        let version = r.u16()?;
        r.expect("batch version", u64::from(VERSION), u64::from(version))?;
        let flags = r.u16()?;
        let mark = flags == FLAG_MARK;
        if !mark {
            r.expect("batch flags", 0, u64::from(flags))?;
        }
        let len = r.u32()?;
        if len as usize > BATCH_MAX {
            return Err(DecodeError::Limit { what: "batch", limit: BATCH_MAX as u64, found: u64::from(len) });
        }
        if (len as usize) < BATCH_HEADER {
            return Err(DecodeError::Short { what: "batch", needed: BATCH_HEADER, found: len as usize });
        }
        let epoch = Epoch(r.number("batch epoch")?);
        let first_seq = Seq(r.number("batch first seq")?);
        let count = r.u32()?;
        let reserved = r.u32()?;
        r.expect("batch reserved field", 0, u64::from(reserved))?;
        if count > BATCH_ENTRIES_MAX {
            let (limit, found) = (u64::from(BATCH_ENTRIES_MAX), u64::from(count));
            return Err(DecodeError::Limit { what: "batch entries", limit, found });
        }
        r.expect("a mark has no entries, a batch has some", u64::from(mark), u64::from(count == 0))?;
        if first_seq.0 == 0 {
            return Err(DecodeError::Field { what: "batch first seq", expected: 1, found: first_seq.0 });
        }
        let prev_chain = Chain(r.u64()?);
        let durable = Seq(r.number("batch durable head")?);
        let wall_ms = r.u64()?;
        let pair = PairId(r.array()?);
        let journal = match r.u8()? {
            0 => JournalKind::Replicated,
            1 => JournalKind::Local,
            other => {
                return Err(DecodeError::Field {
                    what: "batch journal",
                    expected: 0,
                    found: u64::from(other),
                });
            }
        };
        let tail = r.array::<15>()?;
        r.expect("batch reserved bytes", 0, u64::from(tail != [0; 15]))?;
        Ok(Self { crc, mark, len, epoch, first_seq, count, prev_chain, durable, wall_ms, pair, journal })
    }

    fn encode(&self, out: &mut [u8]) {
        let mut w = super::Writer::with_capacity(BATCH_HEADER);
        w.u32(MAGIC).u32(self.crc).u16(VERSION).u16(if self.mark { FLAG_MARK } else { 0 }).u32(self.len);
        w.u64(self.epoch.0).u64(self.first_seq.0).u32(self.count).u32(0);
        w.u64(self.prev_chain.0).u64(self.durable.0).u64(self.wall_ms).put(&self.pair.0);
        w.u8(u8::try_from(self.journal.index()).expect("two journals")).put(&[0; 15]);
        if let Some(head) = out.get_mut(..BATCH_HEADER) {
            head.copy_from_slice(&w.into_bytes());
        }
    }
}

/// A sealed batch: its header and its bytes, padded and aligned for the disk. Cloning shares the bytes.
#[derive(Clone)]
pub struct Batch {
    header: BatchHeader,
    disk: Bytes,
    /// Whether any entry changes what a volume holds, or may.
    volumes: bool,
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let h = &self.header;
        write!(f, "Batch(epoch {} seq {}..={} {} B)", h.epoch, h.first_seq, h.last_seq(), h.len)
    }
}

impl Batch {
    /// The header.
    #[must_use]
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// The history's end once this batch is part of it.
    #[must_use]
    pub fn end(&self) -> Position {
        self.header.end()
    }

    /// Whether it may change what a volume holds: it has changes of blocks, or of files as a whole.
    #[must_use]
    pub fn changes_volumes(&self) -> bool {
        self.volumes
    }

    /// The bytes for the disk: aligned, a whole number of blocks.
    #[must_use]
    pub fn disk(&self) -> &Bytes {
        &self.disk
    }

    /// The bytes for the wire: without the padding.
    #[must_use]
    pub fn wire(&self) -> Bytes {
        self.disk.slice(..self.header.len as usize)
    }

    /// The entries with their numbers, in order.
    pub fn entries(&self) -> impl Iterator<Item = (Seq, Entry<'_>)> {
        let body = self.disk.get(BATCH_HEADER..self.header.len as usize).unwrap_or_default();
        entries_of(self.header.first_seq, body)
    }

    /// Checks every rule of the layout, the checksum and each entry, and copies the bytes into an aligned buffer.
    ///
    /// # Errors
    /// Any [`DecodeError`]; never panics.
    pub fn from_wire(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (header, volumes) = verify_entries(bytes)?;
        let mut buf = AlignedBuf::with_capacity(header.padded_len());
        buf.extend_from_slice(bytes.get(..header.len as usize).unwrap_or_default());
        buf.pad_to_block();
        Ok(Self { header, disk: Bytes::from_owner(buf), volumes })
    }

    /// The same for bytes that lie in a buffer of their own already, which is kept.
    ///
    /// # Errors
    /// Any [`DecodeError`]; never panics.
    pub fn from_buffer(mut bytes: AlignedBuf) -> Result<Self, DecodeError> {
        let (header, volumes) = verify_entries(bytes.as_ref())?;
        bytes.truncate(header.len as usize);
        bytes.pad_to_block();
        Ok(Self { header, disk: Bytes::from_owner(bytes), volumes })
    }

    /// Takes a batch off the front of bytes read from a segment, sharing them. The memory need not be aligned.
    ///
    /// # Errors
    /// Any [`DecodeError`]; [`DecodeError::Short`] also when the batch goes on beyond `bytes`; never panics.
    pub fn from_disk(bytes: &Bytes) -> Result<Self, DecodeError> {
        let (header, volumes) = verify_entries(bytes)?;
        let padded = header.padded_len();
        if bytes.len() < padded {
            return Err(DecodeError::Short { what: "batch padding", needed: padded, found: bytes.len() });
        }
        Ok(Self { header, disk: bytes.slice(..padded), volumes })
    }
}

fn entries_of(first: Seq, mut body: &[u8]) -> impl Iterator<Item = (Seq, Entry<'_>)> {
    let mut seq = first;
    std::iter::from_fn(move || {
        let (entry, rest) = Entry::decode(body).ok()?;
        let this = seq;
        seq = seq.next();
        body = rest;
        Some((this, entry))
    })
}

/// Checks header, checksum and every entry of the batch at the front of `bytes`.
///
/// # Errors
/// Any [`DecodeError`]; never panics.
pub fn verify(bytes: &[u8]) -> Result<BatchHeader, DecodeError> {
    verify_entries(bytes).map(|(header, _)| header)
}

fn verify_entries(bytes: &[u8]) -> Result<(BatchHeader, bool), DecodeError> {
    let header = BatchHeader::decode(bytes)?;
    let len = header.len as usize;
    let found = bytes.len();
    let whole = bytes.get(..len).ok_or(DecodeError::Short { what: "batch", needed: len, found })?;
    let computed = crc32c(whole.get(8..).unwrap_or_default());
    if computed != header.crc {
        return Err(DecodeError::Checksum { what: "batch", found: header.crc, computed });
    }
    let mut body = whole.get(BATCH_HEADER..).unwrap_or_default();
    let mut count = 0_u32;
    let mut volumes = false;
    while !body.is_empty() {
        let (entry, rest) = Entry::decode(body)?;
        volumes |= entry.kind.may_change_volumes();
        body = rest;
        count += 1;
    }
    if count != header.count {
        let (expected, found) = (u64::from(header.count), u64::from(count));
        return Err(DecodeError::Field { what: "batch entry count", expected, found });
    }
    Ok((header, volumes))
}

/// What the sealer adds to the entries.
#[derive(Clone, Copy, Debug)]
pub struct Seal {
    /// The primary's term.
    pub epoch: Epoch,
    /// History before the batch.
    pub prev_chain: Chain,
    /// Durable at this moment.
    pub durable: Seq,
    /// Wall clock, for people.
    pub wall_ms: u64,
    /// The pair.
    pub pair: PairId,
    /// The journal.
    pub journal: JournalKind,
}

/// Collects entries until a batch is sealed.
#[derive(Debug)]
pub struct BatchBuilder {
    buf: AlignedBuf,
    first_seq: Seq,
    count: u32,
    whole: bool,
    volumes: bool,
    /// Checksum of the entries up to `summed`.
    crc: u32,
    summed: usize,
}

impl BatchBuilder {
    /// An empty batch whose first entry will be `first_seq`.
    #[must_use]
    pub fn new(first_seq: Seq, capacity: usize) -> Self {
        let mut buf = AlignedBuf::with_capacity(capacity.max(BLOCK));
        buf.extend_from_slice(&[0; BATCH_HEADER]);
        Self { buf, first_seq, count: 0, whole: false, volumes: false, crc: 0, summed: BATCH_HEADER }
    }

    /// A batch of one [`EntryKind::BlockWrite`] around a payload that is in place already: `buf` holds room for both
    /// headers and the offset, whose content is of no use, and then the payload. Nothing can be pushed behind it.
    ///
    /// # Panics
    /// If `buf` has no room in front, or a payload that is empty or beyond the limit of an entry.
    #[must_use]
    pub fn around(first_seq: Seq, file: FileId, offset: u64, mut buf: AlignedBuf) -> Self {
        let id = BlockId::write(offset);
        let (front, value) = buf.as_mut_slice().split_at_mut(AROUND);
        assert!(!value.is_empty(), "a write has a payload");
        let entry = Entry { kind: EntryKind::BlockWrite, file, id: id.as_ref(), value };
        let header = entry.header();
        let (_, rest) = front.split_at_mut(BATCH_HEADER);
        let (place, at) = rest.split_at_mut(ENTRY_HEADER);
        place.copy_from_slice(&header);
        at.copy_from_slice(id.as_ref());
        Self { buf, first_seq, count: 1, whole: true, volumes: true, crc: 0, summed: BATCH_HEADER }
    }

    /// The same entries from this number on. Nothing can be pushed behind them.
    #[must_use]
    pub fn numbered(self, first_seq: Seq) -> Self {
        Self { first_seq, whole: true, ..self }
    }

    /// Number of the first entry.
    #[must_use]
    pub fn first_seq(&self) -> Seq {
        self.first_seq
    }

    /// Whether nothing more may be pushed.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// Bytes so far, header included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buf.len()
    }

    /// Whether it holds no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Entries so far.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Appends an entry; returns its number and the offset of its value in the batch's bytes.
    ///
    /// # Panics
    /// If the batch is whole.
    pub fn push(&mut self, entry: &Entry<'_>) -> (Seq, usize) {
        assert!(!self.whole, "nothing follows a payload that was received in place");
        self.buf.extend_from_slice(&entry.header());
        self.buf.extend_from_slice(entry.id);
        let value_at = self.buf.len();
        self.buf.extend_from_slice(entry.value);
        let seq = Seq(self.first_seq.0 + u64::from(self.count));
        self.volumes |= entry.kind.may_change_volumes();
        self.count += 1;
        (seq, value_at)
    }

    /// The bytes so far; offsets given by [`Self::push`] stay valid after sealing.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.buf.as_ref()
    }

    /// Takes what was pushed into the checksum, so that sealing has less to do.
    pub fn sum(&mut self) {
        self.crc = crc32c_append(self.crc, self.buf.as_ref().get(self.summed..).unwrap_or_default());
        self.summed = self.buf.len();
    }

    /// Sets header and checksum.
    ///
    /// # Panics
    /// If the batch is empty or over [`BATCH_MAX`]: the caller looks before it seals.
    #[must_use]
    pub fn seal(mut self, seal: &Seal) -> Batch {
        assert!(self.count > 0, "a batch holds entries");
        self.sum();
        Batch { volumes: self.volumes, ..finish(self.buf, self.first_seq, self.count, self.crc, seal) }
    }
}

/// A mark: proof that everything before `next_seq` was durable. See the module's head.
#[must_use]
pub fn mark(next_seq: Seq, seal: &Seal) -> Batch {
    let mut buf = AlignedBuf::with_capacity(BLOCK);
    buf.extend_from_slice(&[0; BATCH_HEADER]);
    finish(buf, next_seq, 0, 0, seal)
}

/// Puts the header in front of entries whose checksum is `entries`.
fn finish(mut buf: AlignedBuf, first_seq: Seq, count: u32, entries: u32, seal: &Seal) -> Batch {
    let len = buf.len();
    assert!(len <= BATCH_MAX, "a batch stays within its limit");
    let mut header = BatchHeader {
        crc: 0,
        mark: count == 0,
        len: u32::try_from(len).expect("limit fits"),
        epoch: seal.epoch,
        first_seq,
        count,
        prev_chain: seal.prev_chain,
        durable: seal.durable,
        wall_ms: seal.wall_ms,
        pair: seal.pair,
        journal: seal.journal,
    };
    header.encode(buf.as_mut_slice());
    let front = crc32c(buf.as_ref().get(8..BATCH_HEADER).unwrap_or_default());
    header.crc = crc32c_joined(front, entries, header.len - BATCH_HEADER_LEN);
    if let Some(field) = buf.as_mut_slice().get_mut(4..8) {
        field.copy_from_slice(&header.crc.to_le_bytes());
    }
    buf.pad_to_block();
    Batch { header, disk: Bytes::from_owner(buf), volumes: false }
}

/// Decodes any bytes as a batch.
pub fn fuzz_batch(bytes: &[u8]) {
    let _ = BatchHeader::decode(bytes);
    if let Ok(batch) = Batch::from_wire(bytes) {
        assert_eq!(batch.entries().count(), batch.header().count as usize, "all entries decode");
        assert_eq!(Batch::from_disk(batch.disk()).map(|b| *b.header()).as_ref(), Ok(batch.header()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Prng;

    fn seal() -> Seal {
        Seal {
            epoch: Epoch(2),
            prev_chain: Chain(77),
            durable: Seq(9),
            wall_ms: 1_700_000_000_000,
            pair: PairId([7; 16]),
            journal: JournalKind::Replicated,
        }
    }

    fn sample() -> Batch {
        let mut b = BatchBuilder::new(Seq(10), 0);
        let file = FileId(4);
        b.push(&Entry { kind: EntryKind::Put, file, id: b"1001", value: b"hello" });
        b.push(&Entry { kind: EntryKind::Delete, file, id: b"1002", value: b"" });
        b.seal(&seal())
    }

    #[test]
    fn a_batch_reads_back_as_it_was_written() {
        let batch = sample();
        let back = Batch::from_wire(&batch.wire()).unwrap();
        assert_eq!(back.header(), batch.header());
        assert_eq!(back.disk(), batch.disk());
        assert_eq!(back.disk().len() % BLOCK, 0);
        let entries: Vec<_> = back.entries().collect();
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0].0, Seq(10));
        assert_eq!(entries[0].1.value, b"hello");
        assert_eq!(entries[1].0, Seq(11));
        assert_eq!(back.end().seq, Seq(11));
    }

    #[test]
    fn the_golden_batch_is_byte_for_byte_what_version_1_wrote() {
        let golden = include_bytes!("../../tests/data/batch-v1.bin");
        assert_eq!(sample().wire().as_ref(), golden.as_slice());
        assert_eq!(Batch::from_wire(&Bytes::from_static(golden)).unwrap().disk(), sample().disk());
    }

    #[test]
    fn a_payload_received_in_place_is_the_same_batch_as_one_that_was_copied() {
        let mut copied = BatchBuilder::new(Seq(3), 0);
        let id = BlockId::write(8192);
        let file = FileId(4);
        let (_, at) =
            copied.push(&Entry { kind: EntryKind::BlockWrite, file, id: id.as_ref(), value: b"payload" });
        let mut buf = AlignedBuf::with_capacity(0);
        buf.extend_from_slice(&[0xee; AROUND]);
        buf.extend_from_slice(b"payload");
        let around = BatchBuilder::around(Seq(3), file, 8192, buf);
        assert_eq!(at, AROUND);
        assert!(around.is_whole());
        assert_eq!(around.seal(&seal()).disk(), copied.seal(&seal()).disk());
    }

    #[test]
    fn every_single_bit_flip_is_detected() {
        let wire = sample().wire().to_vec();
        for bit in 0..wire.len() * 8 {
            let mut bad = wire.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(verify(&bad).is_err(), "bit {bit} went unnoticed");
        }
    }

    #[test]
    fn every_truncation_is_detected() {
        let wire = sample().wire().to_vec();
        for len in 0..wire.len() {
            assert!(verify(&wire[..len]).is_err(), "cut at {len} went unnoticed");
        }
    }

    #[test]
    fn any_bytes_are_refused_without_a_panic() {
        let mut prng = Prng::new(1);
        let wire = sample().wire().to_vec();
        for _ in 0..20_000 {
            let mut bytes = wire.clone();
            for _ in 0..=prng.below(4) {
                let at = usize::try_from(prng.below(bytes.len() as u64)).unwrap();
                bytes[at] = u8::try_from(prng.below(256)).unwrap();
            }
            // Repair the checksum in half of the cases, so that the checks behind it are reached.
            if prng.percent(50) {
                let len = (u32::from_le_bytes(bytes[12..16].try_into().unwrap()) as usize).min(bytes.len());
                if len > 8 {
                    let crc = crc32c(&bytes[8..len]);
                    bytes[4..8].copy_from_slice(&crc.to_le_bytes());
                }
            }
            fuzz_batch(&bytes);
            super::super::entry::fuzz_entry(bytes.get(BATCH_HEADER..).unwrap());
        }
    }

    #[test]
    fn a_mark_does_not_move_the_history() {
        let m = mark(Seq(10), &seal());
        assert!(m.header().mark);
        assert_eq!(m.end(), Position { epoch: Epoch(2), seq: Seq(9), chain: Chain(77) });
        assert_eq!(verify(m.disk()).unwrap(), *m.header());
    }
}

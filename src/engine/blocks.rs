//! What the doors may ask of volumes: changes into the journal, reads out of what is accepted and what is applied.
//!
//! A read captures, when it is asked for, the changes that the store does not show yet; what lies between them is read
//! from the store afterwards. So it sees every change accepted before it, whatever is applied meanwhile.
//!
//! On a standby, volumes that follow the primary are read by whoever applies, between two batches: each read shows a
//! state that the primary once had.

use super::core::Core;
use super::effect::VolumeEffect;
use super::extents::{Content, Extent};
use crate::base::limits::{
    BLOCK_PAYLOAD_MAX, BLOCK_QUEUE_MAX, BLOCK_U64, BLOCK_UNAPPLIED_MAX, BLOCKS_UNAPPLIED_MAX, VOLUME_MAX,
};
use crate::base::{AckLevel, Fault, FileId, JournalKind, Seq, Wait};
use crate::doors::{Allocation, BlockBackend, CommitWatermarks, Payload, Piece, Refusal, Volume};
use crate::format::dptr::DptrKind;
use crate::format::entry::{BlockId, ENTRY_HEADER, Entry, EntryKind};
use crate::journal::Placed;
use crate::store::StoreRead;
use crate::store::namespace::FileInfo;
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;

/// Who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    /// A client, under the door's own token.
    Door(u64),
    /// The copy of a volume into the journal, under its own number: a copy that was given up leaves questions behind.
    Copy(u64),
}

/// A read that waits for the store.
#[derive(Debug)]
pub(super) struct Reading {
    asker: Asker,
    file: FileId,
    offset: u64,
    len: u64,
    /// What was accepted and not yet applied when it was asked for.
    captured: Vec<(Extent, Option<Bytes>)>,
}

/// An answer for a door.
#[derive(Debug)]
pub(super) enum Answer {
    /// Of a read.
    Read(u64, Result<Vec<Piece>, Refusal>),
    /// Of a question for the allocation.
    Allocation(u64, Result<Vec<Allocation>, Refusal>),
}

/// Reads under way, and answers to be given.
#[derive(Debug, Default)]
pub(super) struct BlockReads {
    under_way: std::collections::HashMap<u64, Reading>,
    pub(super) answers: VecDeque<Answer>,
}

impl<S: StoreRead> Core<S> {
    fn volume_info(&self, file: FileId) -> Result<&FileInfo, Refusal> {
        if !self.readable() {
            return Err(Refusal::NotServing(self.reason()));
        }
        let info = self.namespace.file(file).ok_or_else(|| Refusal::NoSuchFile(format!("with id {file}")))?;
        match info.dptr.kind {
            DptrKind::Blocks => Ok(info),
            DptrKind::Records | DptrKind::Account => Err(Refusal::NotBlocks(info.key.clone())),
        }
    }

    fn volume_of(&self, file: FileId, info: &FileInfo) -> Volume {
        Volume {
            file,
            name: info.key.replacen(',', "/", 1),
            bytes: info.dptr.blocks * BLOCK_U64,
            writable: !self.stopping && (!info.replicated || self.may_update()),
        }
    }

    /// Whether what is applied to a file comes from the peer: nothing accepted here is ahead of it.
    fn follows(&self, info: &FileInfo) -> bool {
        info.journal == JournalKind::Replicated && !self.is_primary()
    }

    /// Checks a change of a volume; tells its journal, its level, and whether the file has to be marked stale.
    fn check_blocks(&self, file: FileId, bytes: usize) -> Result<(JournalKind, AckLevel, bool), Refusal> {
        if self.stopping {
            return Err(Refusal::NotServing(self.reason()));
        }
        let info = self.volume_info(file)?;
        if info.replicated && !self.may_update() {
            return Err(Refusal::ReadOnly);
        }
        let (journal, stale) = (info.journal, info.needs_stale_mark());
        let level =
            if journal == JournalKind::Replicated { self.level(info.dptr.ack) } else { AckLevel::Local };
        self.check_disk(journal, bytes)?;
        Ok((journal, level, stale))
    }

    /// Journals a change, behind the mark that the file is stale if one is due.
    fn append_blocks(&mut self, journal: JournalKind, entry: &Entry<'_>, stale: bool) -> Placed {
        let marks = match self.namespace.mark_stale(entry.file) {
            Ok(change) if stale => change.entries,
            _ => Vec::new(),
        };
        if marks.is_empty() {
            return self.journals[journal.index()].append_placed(std::iter::once(*entry));
        }
        let all: Vec<Entry<'_>> = marks.iter().map(|mark| mark.entry()).chain([*entry]).collect();
        let placed = self.journals[journal.index()].append_placed(all.iter().copied());
        for mark in &marks {
            self.define(journal, &mark.entry());
        }
        placed
    }

    fn note_blocks(
        &mut self,
        journal: JournalKind,
        file: FileId,
        (start, end): (u64, u64),
        (seq, content): (Seq, Content),
    ) {
        self.extents.set(file, Extent { start, end, journal, seq, content });
        self.note_copied_over(file, start, end);
        self.written_anew(file, start, end);
        self.dirty = true;
    }

    /// A volume was emptied by entry `seq`.
    pub(super) fn note_cleared(&mut self, journal: JournalKind, file: FileId, seq: Seq) {
        if self.namespace.file(file).is_some_and(|info| info.dptr.kind == DptrKind::Blocks) {
            self.note_blocks(journal, file, (0, VOLUME_MAX), (seq, Content::Hole));
        }
    }

    /// The bytes of an extent that holds data. Few bytes are copied: as a part they would keep the whole batch for as
    /// long as the client does not take them.
    fn extent_data(&self, extent: &Extent) -> Option<Bytes> {
        let Content::Data { batch, at } = extent.content else { return None };
        let len = usize::try_from(extent.end - extent.start).unwrap_or(usize::MAX);
        let range = at..at.saturating_add(len);
        let found = match self.extents.batch(extent.journal, batch) {
            Some(bytes) if len < bytes.len() / 2 => bytes.get(range).map(Bytes::copy_from_slice),
            Some(bytes) => (range.end <= bytes.len()).then(|| bytes.slice(range)),
            None => self.journals[extent.journal.index()]
                .unsealed(batch)
                .and_then(|bytes| bytes.get(range))
                .map(Bytes::copy_from_slice),
        };
        assert!(found.is_some(), "what is not applied is in a batch that is still here");
        found
    }

    fn capture(&self, file: FileId, offset: u64, len: u64) -> Vec<(Extent, Option<Bytes>)> {
        let extents = self.extents.within(file, offset, offset + len);
        extents.into_iter().map(|extent| (extent, self.extent_data(&extent))).collect()
    }

    /// Begins to read a range for `asker`.
    pub(super) fn begin_read(
        &mut self,
        asker: Asker,
        file: FileId,
        offset: u64,
        len: u64,
    ) -> Result<(), Refusal> {
        let ordered = self.follows(self.volume_info(file)?);
        let captured = self.capture(file, offset, len);
        let reading = Reading { asker, file, offset, len, captured };
        let Some((from, until)) = reading.missing() else {
            let pieces = reading.pieces(0, &Bytes::new());
            self.answer_read(asker, Ok(pieces));
            return Ok(());
        };
        let read = self.fresh_id();
        self.block_reads.under_way.insert(read, reading);
        let len = usize::try_from(until - from).unwrap_or(usize::MAX);
        self.effect(VolumeEffect::Read { read, file, offset: from, len, ordered });
        Ok(())
    }

    /// Begins to find out what takes space in a range.
    pub(super) fn begin_allocation(
        &mut self,
        asker: Asker,
        file: FileId,
        offset: u64,
        len: u64,
    ) -> Result<(), Refusal> {
        let ordered = self.follows(self.volume_info(file)?);
        let extents = self.extents.within(file, offset, offset + len);
        let captured = extents.into_iter().map(|extent| (extent, None)).collect();
        let read = self.fresh_id();
        self.block_reads.under_way.insert(read, Reading { asker, file, offset, len, captured });
        self.effect(VolumeEffect::Allocation { read, file, offset, len, ordered });
        Ok(())
    }

    /// The store has answered a read.
    pub(super) fn volume_read(&mut self, read: u64, result: Result<Bytes, Fault>) {
        let Some(reading) = self.block_reads.under_way.remove(&read) else { return };
        let result = match (result, reading.missing()) {
            // It was asked before this node left its history for a copy.
            _ if !self.readable() => Err(Refusal::NotServing(self.reason())),
            (Ok(bytes), Some((from, _))) => Ok(reading.pieces(from, &bytes)),
            (Ok(_), None) => Ok(Vec::new()),
            (Err(fault), missing) => {
                self.volume_unreadable(reading.file, missing.map_or(reading.offset, |(from, _)| from), fault);
                Err(Refusal::Store(format!("reading a volume: {fault}")))
            }
        };
        self.answer_read(reading.asker, result);
    }

    fn answer_read(&mut self, asker: Asker, result: Result<Vec<Piece>, Refusal>) {
        self.dirty = true;
        match asker {
            Asker::Door(token) => self.block_reads.answers.push_back(Answer::Read(token, result)),
            Asker::Copy(ask) => self.copy_read(ask, result),
        }
    }

    /// The store has told what takes space.
    pub(super) fn volume_allocation(&mut self, read: u64, result: Result<Vec<Allocation>, Fault>) {
        let Some(reading) = self.block_reads.under_way.remove(&read) else { return };
        self.dirty = true;
        let result = match result {
            Ok(stored) => Ok(reading.allocation(&stored)),
            Err(fault) => {
                self.volume_unreadable(reading.file, reading.offset, fault);
                Err(Refusal::Store(format!("looking at a volume: {fault}")))
            }
        };
        match reading.asker {
            Asker::Door(token) => self.block_reads.answers.push_back(Answer::Allocation(token, result)),
            Asker::Copy(ask) => self.copy_found(ask, result),
        }
    }
}

impl Reading {
    /// The range that the store has to be asked for: from the first byte to the last that no captured change covers.
    fn missing(&self) -> Option<(u64, u64)> {
        let end = self.offset + self.len;
        let (mut from, mut until) = (self.offset, end);
        for (extent, _) in &self.captured {
            if extent.start > from {
                break;
            }
            from = extent.end;
        }
        for (extent, _) in self.captured.iter().rev() {
            if extent.end < until {
                break;
            }
            until = extent.start;
        }
        (from < until).then_some((from, until))
    }

    /// The whole range; `stored` is what the store holds from `from` on.
    fn pieces(&self, from: u64, stored: &Bytes) -> Vec<Piece> {
        let mut pieces = Vec::with_capacity(2 * self.captured.len() + 1);
        let mut at = self.offset;
        let fill = |pieces: &mut Vec<Piece>, at: u64, until: u64| {
            if at < until {
                let start = usize::try_from(at - from).unwrap_or(usize::MAX);
                let end = usize::try_from(until - from).unwrap_or(usize::MAX);
                pieces.push(Piece::Data(stored.slice(start..end)));
            }
        };
        for (extent, data) in &self.captured {
            fill(&mut pieces, at, extent.start);
            pieces.push(match data {
                Some(data) => Piece::Data(data.clone()),
                None => Piece::Zeros(extent.end - extent.start),
            });
            at = extent.end;
        }
        fill(&mut pieces, at, self.offset + self.len);
        pieces
    }

    /// What takes space, when the captured changes are put over what the store says.
    fn allocation(&self, stored: &[Allocation]) -> Vec<Allocation> {
        let end = self.offset + self.len;
        let mut out: Vec<Allocation> = Vec::new();
        let mut push = |len: u64, hole: bool| match out.last_mut() {
            Some(last) if last.hole == hole => last.len += len,
            _ if len > 0 => out.push(Allocation { len, hole }),
            _ => {}
        };
        let mut captured = self.captured.iter().map(|(extent, _)| extent).peekable();
        let mut at = self.offset;
        let mut part_end = self.offset;
        for part in stored {
            part_end = (part_end + part.len).min(end);
            while at < part_end {
                match captured.peek() {
                    Some(extent) if extent.end <= at => drop(captured.next()),
                    Some(extent) if extent.start <= at => {
                        let until = extent.end.min(part_end);
                        push(until - at, extent.content == Content::Hole);
                        at = until;
                    }
                    Some(extent) if extent.start < part_end => {
                        push(extent.start - at, part.hole);
                        at = extent.start;
                    }
                    _ => {
                        push(part_end - at, part.hole);
                        at = part_end;
                    }
                }
            }
        }
        out
    }
}

/// Pieces as one range of bytes, as far as they reach.
pub(super) fn joined(pieces: &[Piece]) -> Bytes {
    if let [Piece::Data(only)] = pieces {
        return only.clone();
    }
    let mut all = BytesMut::new();
    for piece in pieces {
        match piece {
            Piece::Data(bytes) => all.extend_from_slice(bytes),
            Piece::Zeros(len) => all.resize(all.len() + usize::try_from(*len).unwrap_or(0), 0),
        }
    }
    all.freeze()
}

/// The name `account,file` of an export `account/file`, which may be written so too. The names of accounts and files
/// hold neither a comma nor a slash.
pub(super) fn key_of_export(name: &[u8]) -> Option<Vec<u8>> {
    let mut parts = name.split(|byte| matches!(byte, b'/' | b','));
    match (parts.next(), parts.next(), parts.next()) {
        (Some(account), Some(file), None) => Some([account, b",", file].concat()),
        _ => None,
    }
}

impl<S: StoreRead> BlockBackend for Core<S> {
    fn volumes(&self) -> Vec<Volume> {
        if !self.readable() {
            return Vec::new();
        }
        let blocks = |info: &FileInfo| info.dptr.kind == DptrKind::Blocks && !info.key.is_empty();
        let files = self.namespace.files().filter(|(_, info)| blocks(info));
        files.map(|(file, info)| self.volume_of(file, info)).collect()
    }

    fn volume_named(&self, name: &[u8]) -> Result<Volume, Refusal> {
        if !self.readable() {
            return Err(Refusal::NotServing(self.reason()));
        }
        let unknown = || Refusal::NoSuchFile(String::from_utf8_lossy(name).into_owned());
        let key = key_of_export(name).ok_or_else(unknown)?;
        let file = self.namespace.resolve(&key).ok_or_else(unknown)?;
        self.volume(file)
    }

    fn volume(&self, file: FileId) -> Result<Volume, Refusal> {
        self.volume_info(file).map(|info| self.volume_of(file, info))
    }

    fn write_blocks(&mut self, file: FileId, offset: u64, payload: Payload<'_>) -> Result<Wait, Refusal> {
        let len = payload.len();
        assert!((1..=BLOCK_PAYLOAD_MAX).contains(&len), "the door keeps to the limit of one change");
        let (journal, level, stale) = self.check_blocks(file, len + ENTRY_HEADER)?;
        let placed = match payload {
            Payload::Owned(buf) if !stale => self.journals[journal.index()].append_around(file, offset, buf),
            payload => {
                let id = BlockId::write(offset);
                let (kind, value) = (EntryKind::BlockWrite, payload.bytes());
                self.append_blocks(journal, &Entry { kind, file, id: id.as_ref(), value }, stale)
            }
        };
        let content = Content::Data { batch: placed.batch, at: placed.at };
        self.note_blocks(journal, file, (offset, offset + len as u64), (placed.seq, content));
        Ok(self.promise(Wait { journal, seq: placed.seq, level }))
    }

    fn zero_blocks(&mut self, file: FileId, offset: u64, len: u64, hole: bool) -> Result<Wait, Refusal> {
        let (journal, level, stale) = self.check_blocks(file, ENTRY_HEADER)?;
        let id = BlockId::range(offset, len);
        let (kind, content) = match hole {
            true => (EntryKind::BlockPunch, Content::Hole),
            false => (EntryKind::BlockZero, Content::Zeros),
        };
        let entry = Entry { kind, file, id: id.as_ref(), value: &[] };
        let placed = self.append_blocks(journal, &entry, stale);
        self.note_blocks(journal, file, (offset, offset + len), (placed.seq, content));
        Ok(self.promise(Wait { journal, seq: placed.seq, level }))
    }

    fn flush_blocks(&mut self, file: FileId) -> Result<[Wait; 2], Refusal> {
        let info = self.volume_info(file)?;
        // A pause of logging sends changes elsewhere, and takes back nothing of what was promised before.
        let level = if info.replicated { self.level(info.dptr.ack) } else { AckLevel::Local };
        let wait = |journal, level| Wait { journal, seq: self.extents.last(file, journal), level };
        let waits = [wait(JournalKind::Replicated, level), wait(JournalKind::Local, AckLevel::Local)];
        for wait in waits.iter().filter(|wait| wait.seq > self.journals[wait.journal.index()].pace().durable)
        {
            self.check_moves(wait.journal)?;
        }
        Ok(waits)
    }

    fn read_blocks(&mut self, token: u64, file: FileId, offset: u64, len: u32) -> Result<(), Refusal> {
        self.begin_read(Asker::Door(token), file, offset, u64::from(len))
    }

    fn allocation(&mut self, token: u64, file: FileId, offset: u64, len: u64) -> Result<(), Refusal> {
        self.begin_allocation(Asker::Door(token), file, offset, len)
    }

    fn watermarks(&self) -> CommitWatermarks {
        self.commit_watermarks()
    }

    fn is_held(&self) -> bool {
        self.roles.holds_doors()
    }

    fn blocks_congested(&self) -> bool {
        let (queued, short) = self.queues();
        queued > BLOCK_QUEUE_MAX
            || short
            || self.unapplied_bytes() > BLOCK_UNAPPLIED_MAX
            || self.extents.count() > BLOCKS_UNAPPLIED_MAX
            || self.is_barred()
            || self.link.throttle.holds()
            || self.spool.holds_users()
    }
}

#[cfg(test)]
#[path = "blocks_tests.rs"]
pub(super) mod tests;

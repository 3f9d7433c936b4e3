//! Reads everything that is stored, at a pace, and holds it to its checksums, on a thread that gives way to all others.
//!
//! It reads past the page cache, so that it sees the disk and pushes nothing out. Of a volume it reads beside the apply
//! thread: a block that does not match may just be written, so the apply thread looks at it again and has the last word.
//! That thread also makes the checksums of a volume that is older than they are.

use super::apply::{Apply, Looked};
use super::inbox::{CoreEnded, Inbox};
use super::layout::{Layout, OwnName};
use crate::base::limits::{BLOCK, BLOCK_U64, SCRUB_PIECE, SCRUB_TELL_MS};
use crate::base::{AlignedBuf, Fault, FileId};
use crate::engine::{ScrubEffect, ScrubEvent, ScrubPart};
use crate::format::scrub::{SCRUB_RECORD, ScrubRecord};
use crate::format::sums::{RECORD, SumKey, Verdict, record_at};
use crate::io::DirectFile;
use crate::store::tree_store::{StoreReader, TableFile, TableSum};
use crate::store::volumes::{Check, PART_BYTES, allocation_of, part_path, record_of, sums_path};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, sync_channel};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How far this thread gives way: as far as it goes.
const SCRUB_NICE: i32 = 19;
/// How much of a volume one look for data covers (bytes).
const LOOK: u64 = 1 << 30;
const TELL: Duration = Duration::from_millis(SCRUB_TELL_MS);
/// A list of tables that is being replaced is looked at again.
const LIST_LOOKS: usize = 3;

/// The thread that scrubs.
pub(crate) struct Scrubber {
    layout: Layout,
    dir: PathBuf,
    tables: StoreReader,
    apply: Sender<Apply>,
    inbox: Inbox,
    halt: Arc<AtomicBool>,
}

/// Why a part ends before its end.
enum Ended {
    /// It was stopped.
    Stopped,
    /// The core is gone.
    Core,
}

impl From<CoreEnded> for Ended {
    fn from(_: CoreEnded) -> Self {
        Self::Core
    }
}

/// A part under way.
struct Part<'s> {
    scrubber: &'s Scrubber,
    work: &'s Receiver<ScrubEffect>,
    job: u64,
    rate: u64,
    began: Instant,
    told: Instant,
    /// Of all of it, and since it was last told (bytes).
    read: (u64, u64),
    /// What could not be read.
    unread: Option<Fault>,
    reading: Reading,
}

impl Scrubber {
    /// Of the node in `layout`, which ends when `halt` is set.
    pub(crate) fn new(
        layout: &Layout,
        tables: StoreReader,
        apply: Sender<Apply>,
        inbox: &Inbox,
        halt: &Arc<AtomicBool>,
    ) -> Self {
        let (layout, dir) = (layout.clone(), layout.volumes());
        Self { layout, dir, tables, apply, inbox: inbox.clone(), halt: Arc::clone(halt) }
    }

    /// Scrubs until the core is gone.
    pub(crate) fn run(&self, work: &Receiver<ScrubEffect>) {
        let _ = crate::io::give_way(SCRUB_NICE);
        if self.inbox.event(ScrubEvent::Found { record: self.found() }).is_err() {
            return;
        }
        while let Ok(effect) = work.recv() {
            match effect {
                // What it was for has ended.
                ScrubEffect::Stop => {}
                ScrubEffect::Keep { bytes } => {
                    if self.keep(&bytes).is_err() {
                        return;
                    }
                }
                ScrubEffect::Begin { job, part, rate, renew } => {
                    let now = Instant::now();
                    let (read, unread, reading) = ((0, 0), None, Reading::new());
                    let mut under_way = Part {
                        scrubber: self,
                        work,
                        job,
                        rate,
                        began: now,
                        told: now,
                        read,
                        unread,
                        reading,
                    };
                    let done = match part {
                        ScrubPart::Volume { file, bytes, from } => under_way.volume(
                            file,
                            from,
                            bytes,
                            if renew { Check::Renew } else { Check::Scrub },
                        ),
                        ScrubPart::Items => under_way.items(),
                    };
                    let whole = match done {
                        Err(Ended::Core) => return,
                        Err(Ended::Stopped) => false,
                        Ok(()) => true,
                    };
                    let result = under_way
                        .unread
                        .map_or(Ok(whole), |fault| if whole { Err(fault) } else { Ok(false) });
                    let read = under_way.read.1;
                    if self.inbox.event(ScrubEvent::Done { job, read, result }).is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// What is kept of earlier scrubs; if that cannot be read, none is known of.
    fn found(&self) -> ScrubRecord {
        let path = self.layout.scrub();
        if !path.exists() {
            return ScrubRecord::default();
        }
        let read = self.layout.read(&path, false, SCRUB_RECORD + 1).map_err(|error| error.to_string());
        let record = read.and_then(|bytes| ScrubRecord::decode(&bytes).map_err(|error| error.to_string()));
        record.unwrap_or_else(|error| {
            tracing::warn!("reading {}: {error}; the last scrub is not known", path.display());
            ScrubRecord::default()
        })
    }

    fn keep(&self, bytes: &[u8]) -> Result<(), CoreEnded> {
        if let Err(error) = self.layout.own(OwnName::Scrub).replace(bytes) {
            tracing::warn!("writing {}: {error}", self.layout.scrub().display());
        }
        self.inbox.event(ScrubEvent::Kept)
    }

    /// Asks the apply thread; none when it is gone.
    fn ask(&self, what: Looked) -> Option<Result<(), Fault>> {
        let (back, answer) = sync_channel(1);
        self.apply.send(Apply::Scrub(what, back)).ok()?;
        answer.recv().ok()
    }
}

/// None if there is no such file.
fn opened(path: &Path) -> io::Result<Option<DirectFile>> {
    match DirectFile::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        file => file.map(Some),
    }
}

/// Fills the buffer from a file, with zeros where that does not reach or is not there. Returns how much was read.
fn fill(file: Option<&DirectFile>, into: &mut [u8], start: u64) -> io::Result<usize> {
    match file {
        Some(file) => file.read(into, start),
        None => {
            into.fill(0);
            Ok(0)
        }
    }
}

/// The part of a volume that is read, and what was read of it last.
struct Reading {
    part: Option<(FileId, u64)>,
    files: [Option<DirectFile>; 2],
    data: AlignedBuf,
    records: AlignedBuf,
}

impl Reading {
    fn new() -> Self {
        let room = |bytes: usize| {
            let mut buffer = AlignedBuf::with_capacity(bytes);
            buffer.extend_from_slice(&vec![0; bytes]);
            buffer
        };
        let (data, records) = (bytes_of(SCRUB_PIECE), bytes_of(SCRUB_PIECE / BLOCK_U64) * RECORD + 2 * BLOCK);
        Self { part: None, files: [None, None], data: room(data), records: room(records) }
    }

    /// Reads blocks of a part and their records. Returns how much that was.
    fn read(&mut self, dir: &Path, part: (FileId, u64), within: u64, len: u64) -> io::Result<usize> {
        if self.part != Some(part) || self.files.iter().any(Option::is_none) {
            let (file, number) = part;
            self.files = [opened(&part_path(dir, file, number))?, opened(&sums_path(dir, file, number))?];
            self.part = Some(part);
        }
        let [data, sums] = &self.files;
        let into = self.data.as_mut_slice().get_mut(..bytes_of(len)).unwrap_or_default();
        let got = fill(data.as_ref(), into, within)?;
        let (start, end) = Self::records_at(within, len);
        let into = self.records.as_mut_slice().get_mut(..bytes_of(end - start)).unwrap_or_default();
        Ok(got + fill(sums.as_ref(), into, start)?)
    }

    /// Where the records of blocks stand, in whole blocks of their file.
    fn records_at(within: u64, len: u64) -> (u64, u64) {
        let first = within / BLOCK_U64;
        let (start, end) = (record_at(first), record_at(first + len / BLOCK_U64));
        (start / BLOCK_U64 * BLOCK_U64, end.next_multiple_of(BLOCK_U64))
    }

    /// The blocks that were read, each with its number and record.
    fn blocks(&self, within: u64, len: u64) -> impl Iterator<Item = (u64, [u8; RECORD], &[u8])> {
        let first = within / BLOCK_U64;
        let skip = bytes_of(record_at(first) - Self::records_at(within, len).0);
        let records = self.records.as_ref().get(skip..).unwrap_or_default();
        let data = self.data.as_ref().get(..bytes_of(len)).unwrap_or_default();
        data.chunks(BLOCK)
            .enumerate()
            .zip(first..)
            .map(|((n, bytes), block)| (block, record_of(records, n), bytes))
    }
}

fn bytes_of(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

impl Part<'_> {
    /// A volume from one place to another.
    fn volume(&mut self, file: FileId, from: u64, until: u64, check: Check) -> Result<(), Ended> {
        let mut at = from / BLOCK_U64 * BLOCK_U64;
        while at < until {
            let len = LOOK.min(until - at);
            let found = match allocation_of(&self.scrubber.dir, file, at, len) {
                Ok(found) => found,
                Err(error) => {
                    self.cannot_read("looking at a volume", file, at, &error);
                    vec![(len, false)]
                }
            };
            for (len, hole) in found {
                let end = at + len;
                // A hole begins and ends anywhere; blocks do not.
                let mut place = at / BLOCK_U64 * BLOCK_U64;
                while !hole && place < end {
                    let some = SCRUB_PIECE.min(end.next_multiple_of(BLOCK_U64) - place);
                    self.piece(file, place, some, check)?;
                    place += some;
                    self.pause(place.min(until), until)?;
                }
                at = end;
            }
            self.pause(at.min(until), until)?;
        }
        if self.unread.is_none() && from == 0 {
            self.asked(Looked::Whole(file))?;
        }
        Ok(())
    }

    /// Some blocks of a volume. What does not match at first sight the apply thread looks at.
    fn piece(&mut self, file: FileId, at: u64, len: u64, check: Check) -> Result<(), Ended> {
        let (part, within) = (at / PART_BYTES, at % PART_BYTES);
        let len = len.min(PART_BYTES - within);
        match self.reading.read(&self.scrubber.dir, (file, part), within, len) {
            Ok(read) => self.count(read),
            Err(error) => {
                self.cannot_read("reading a volume", file, at, &error);
                return self.asked(Looked::Range(file, at, len, check));
            }
        }
        let key = SumKey::new(file, part);
        let mut doubtful: Vec<(u64, u64)> = Vec::new();
        for (block, record, bytes) in self.reading.blocks(within, len) {
            if key.judge(block, record, bytes) == Verdict::Right {
                continue;
            }
            let place = part * PART_BYTES + block * BLOCK_U64;
            match doubtful.last_mut() {
                Some((start, len)) if *start + *len == place => *len += BLOCK_U64,
                _ => doubtful.push((place, BLOCK_U64)),
            }
        }
        doubtful.into_iter().try_for_each(|(start, len)| self.asked(Looked::Range(file, start, len, check)))
    }

    /// Has the apply thread look.
    fn asked(&mut self, what: Looked) -> Result<(), Ended> {
        match self.scrubber.ask(what) {
            None => Err(Ended::Core),
            Some(Ok(())) => Ok(()),
            Some(Err(fault)) => {
                self.unread.get_or_insert(fault);
                Ok(())
            }
        }
    }

    fn cannot_read(&mut self, doing: &str, file: FileId, at: u64, error: &io::Error) {
        tracing::warn!("scrub: {doing} ({file}) at {at}: {error}");
        self.unread.get_or_insert(Fault::from_io(error));
    }

    /// The tables of all items, each as a whole.
    fn items(&mut self) -> Result<(), Ended> {
        for look in 1..=LIST_LOOKS {
            match self.scrubber.tables.check_list() {
                Ok(()) => break,
                Err(error) if look == LIST_LOOKS => self.wrong_items(error.to_string())?,
                Err(_) => sleep(TELL),
            }
        }
        let tables = self.scrubber.tables.table_files();
        let size = |table: &TableFile| std::fs::metadata(table.path()).map_or(0, |found| found.len());
        let of: u64 = tables.iter().map(size).sum();
        let mut at = 0;
        for table in &tables {
            let bytes = size(table);
            self.table(table, at, of)?;
            at += bytes;
        }
        self.pause(of, of)
    }

    fn table(&mut self, table: &TableFile, done: u64, of: u64) -> Result<(), Ended> {
        let (mut sum, mut at) = (TableSum::default(), 0);
        let opened = DirectFile::open(table.path());
        let wrong = loop {
            let into = self.reading.data.as_mut_slice();
            match opened
                .as_ref()
                .map_err(ToString::to_string)
                .and_then(|file| file.read(into, at).map_err(|error| error.to_string()))
            {
                Err(error) => break Some(error),
                Ok(got) => {
                    sum.push(into.get(..got).unwrap_or_default());
                    self.count(got);
                    at += u64::try_from(got).unwrap_or(0);
                    self.pause((done + at).min(of), of)?;
                    if got < bytes_of(SCRUB_PIECE) {
                        break (!table.is(&sum)).then(|| "its checksum is wrong".to_owned());
                    }
                }
            }
        };
        match wrong {
            // It was merged into others and removed meanwhile.
            Some(why) if self.scrubber.tables.has_table(table) => {
                self.wrong_items(format!("table {}: {why}", table.path().display()))?;
                self.scrubber.tables.suspect(table);
                self.asked(Looked::Items)
            }
            _ => Ok(()),
        }
    }

    fn wrong_items(&self, why: String) -> Result<(), Ended> {
        Ok(self.scrubber.inbox.event(ScrubEvent::ItemsWrong { job: self.job, why })?)
    }

    fn count(&mut self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(0);
        self.read = (self.read.0 + bytes, self.read.1 + bytes);
    }

    /// Keeps the pace, tells how far it is, and hears of a stop.
    fn pause(&mut self, at: u64, of: u64) -> Result<(), Ended> {
        loop {
            if self.scrubber.halt.load(Ordering::Relaxed) {
                return Err(Ended::Core);
            }
            while let Ok(effect) = self.work.try_recv() {
                match effect {
                    ScrubEffect::Stop => return Err(Ended::Stopped),
                    ScrubEffect::Keep { bytes } => self.scrubber.keep(&bytes)?,
                    // The engine begins one after the other.
                    ScrubEffect::Begin { .. } => {}
                }
            }
            if self.told.elapsed() >= TELL {
                self.told = Instant::now();
                let read = std::mem::take(&mut self.read.1);
                self.scrubber.inbox.event(ScrubEvent::Progress { job: self.job, at, of, read })?;
            }
            let early = due(self.read.0, self.rate).saturating_sub(self.began.elapsed());
            if early.is_zero() {
                return Ok(());
            }
            sleep(early.min(TELL));
        }
    }
}

/// When so many bytes may have been read at a rate.
fn due(bytes: u64, rate: u64) -> Duration {
    if rate == 0 {
        return Duration::ZERO;
    }
    let micros = u128::from(bytes) * 1_000_000 / u128::from(rate);
    Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_says_when_bytes_are_due_and_none_says_at_once() {
        assert_eq!(due(50 << 20, 50 << 20), Duration::from_secs(1));
        assert_eq!(due(25 << 20, 50 << 20), Duration::from_millis(500));
        assert_eq!(due(u64::MAX, 0), Duration::ZERO);
        assert!(due(u64::MAX, 1) > Duration::from_secs(1 << 40));
    }
}

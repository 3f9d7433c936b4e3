//! The journal alone beside the raw disk: how much of the rate of plain durable writes is left when the same bytes go
//! through the crate's own `Journal` and `Driver`, as the daemon drives them.
//!
//! Raw is a loop of one thread around pwritev2 with O_DIRECT and RWF_DSYNC, one write after the other, the same sizes, into
//! a file of the same kind (zeroed ahead). Both alternate in short slices, so that a disk that drifts treats both alike.

use super::{Course, MeasureError, float, median};
use crate::base::{AlignedBuf, FileId, JournalKind, Mono, Now, SegmentIndex, Seq};
use crate::format::PairId;
use crate::format::entry::{Entry, EntryKind};
use crate::io::{
    Completion, Driver, IoChoice, JournalFile, Op, Outcome, Token, open, open_journal, zero_file,
};
use crate::journal::{Journal, JournalOp, Recovered};
use crate::sys::{Parts, write_at, write_durably_at};
use bytes::Bytes;
use nix::unistd::fdatasync;
use std::collections::HashMap;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes of a value, as in the other measurements.
const VALUE: usize = 128;
/// Bytes of an item's id.
const ID: usize = 16;
/// How long the journal waits for the disk before it looks at its clock.
const PATIENCE: Duration = Duration::from_millis(10);

/// What came of one size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SideBySide {
    /// Entries in a batch.
    pub entries: usize,
    /// Bytes of a write.
    pub bytes: usize,
    /// Writes of the journal in a second.
    pub journal: f64,
    /// Raw writes of as many bytes in a second.
    pub raw: f64,
    /// The first through the second, as the median of slices next to each other.
    pub ratio: f64,
    /// Whether the journal's writes go by a thread, as the file system has no O_DIRECT.
    pub by_thread: bool,
}

/// Both, in a directory.
pub struct Sides {
    alone: Alone,
    raw: Raw,
}

impl Sides {
    /// Makes files of `segment` bytes in `dir`, which is the caller's to remove: some of the journal, one beside it.
    ///
    /// # Errors
    /// Those of the file system, and of the driver.
    pub fn new(dir: &Path, segment: u64) -> io::Result<Self> {
        Ok(Self { alone: Alone::new(dir, segment)?, raw: Raw::new(dir, segment)? })
    }

    /// Alternates `slices` times, so long for each side each time.
    ///
    /// # Errors
    /// Those of the disk, and when the course was stopped.
    pub fn measure(
        &mut self,
        entries: usize,
        slices: usize,
        slice: Duration,
        course: &Course<'_>,
    ) -> Result<SideBySide, MeasureError> {
        let failed = || MeasureError::failed("writing to the journal beside the raw disk");
        // A write tells how many bytes one is; the first of a segment carries that one's header too.
        self.alone.slice(entries, Duration::ZERO).map_err(failed())?;
        let (_, bytes) = self.alone.slice(entries, Duration::ZERO).map_err(failed())?;
        let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..slices.max(1) {
            course.check()?;
            let (journal, _) = self.alone.slice(entries, slice).map_err(failed())?;
            course.check()?;
            let raw = self.raw.slice(bytes, slice).map_err(failed())?;
            ours.push(journal);
            theirs.push(raw);
            ratios.push(journal / raw);
        }
        let (journal, raw, ratio) = (median(&mut ours), median(&mut theirs), median(&mut ratios));
        Ok(SideBySide { entries, bytes, journal, raw, ratio, by_thread: self.raw.file.by_thread })
    }
}

/// The journal with its driver and its segments, as `node` puts them together, without the other threads: a segment is
/// made on the spot, and that time is not counted.
struct Alone {
    dir: PathBuf,
    journal: Journal,
    driver: Box<dyn Driver>,
    files: HashMap<SegmentIndex, Arc<JournalFile>>,
    begun: Instant,
    completions: Vec<Completion>,
    number: u64,
    /// Time spent on making segments.
    making: Duration,
    /// Bytes of the last write.
    written: usize,
}

impl Alone {
    fn new(dir: &Path, segment: u64) -> io::Result<Self> {
        let recovered = Recovered { next_index: 1, ..Recovered::default() };
        Ok(Self {
            dir: dir.to_owned(),
            journal: Journal::new(JournalKind::Replicated, PairId([7; 16]), segment, recovered),
            driver: open(IoChoice::Auto, 256)?,
            files: HashMap::new(),
            begun: Instant::now(),
            completions: Vec::new(),
            number: 0,
            making: Duration::ZERO,
            written: 0,
        })
    }

    fn now(&self) -> Now {
        let mono = Mono(u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX));
        Now { mono, wall_ms: 0 }
    }

    /// Fills a batch of `count` entries while the one before it is being written, and then has it written.
    fn commit(&mut self, count: usize) -> io::Result<()> {
        let value = [0x5a; VALUE];
        let written = self.journal.pace().appended;
        for _ in 0..count {
            self.number += 1;
            let mut name = [b'k'; ID];
            name.iter_mut().zip(self.number.to_be_bytes()).for_each(|(to, from)| *to = from);
            let entry = Entry { kind: EntryKind::Put, file: FileId(9), id: &name, value: &value };
            self.journal.append(std::iter::once(entry));
        }
        self.until_durable(written)?;
        self.pump()?;
        // Nothing reaches the kernel before a wait, and the next batch is filled while this one is written.
        self.driver.wait(Some(Duration::ZERO), &mut self.completions)?;
        self.conclude()
    }

    /// As the daemon does: pump, carry out, wait, conclude.
    fn until_durable(&mut self, last: Seq) -> io::Result<()> {
        while self.journal.pace().durable < last {
            self.pump()?;
            self.driver.wait(Some(PATIENCE), &mut self.completions)?;
            self.conclude()?;
        }
        Ok(())
    }

    fn pump(&mut self) -> io::Result<()> {
        let now = self.now();
        drop(self.journal.pump(now));
        self.carry_out()
    }

    fn carry_out(&mut self) -> io::Result<()> {
        while let Some(op) = self.journal.poll_op() {
            match op {
                JournalOp::Write { write, segment, offset, parts } => {
                    let file = self.files.get(&segment).ok_or(io::ErrorKind::NotFound)?;
                    self.written = parts.iter().map(Bytes::len).sum();
                    self.driver.submit(Token(write), Op::WriteDurable(Arc::clone(file), parts, offset));
                }
                JournalOp::Prepare { index, bytes } => {
                    let begun = Instant::now();
                    let path = self.path(index);
                    zero_file(&path, bytes)?;
                    self.files.insert(index, Arc::new(open_journal(&path, false)?));
                    self.journal.segment_ready(index);
                    self.making += begun.elapsed();
                }
                JournalOp::Remove { index, .. } => {
                    self.files.remove(&index);
                    std::fs::remove_file(self.path(index))?;
                }
            }
        }
        Ok(())
    }

    fn conclude(&mut self) -> io::Result<()> {
        for completion in std::mem::take(&mut self.completions) {
            let Outcome::Written(result) = completion.outcome else { continue };
            result?;
            let now = self.now();
            drop(self.journal.written(now, completion.token.0));
        }
        Ok(())
    }

    fn path(&self, index: SegmentIndex) -> PathBuf {
        self.dir.join(format!("journal-{}", index.0))
    }

    /// Writes per second of one slice, and the bytes of each; one write at least.
    fn slice(&mut self, count: usize, slice: Duration) -> io::Result<(f64, usize)> {
        let durable = self.journal.durable().seq;
        let (begun, making) = (Instant::now(), self.making);
        let mut commits = 0;
        loop {
            self.commit(count)?;
            commits += 1;
            if begun.elapsed().saturating_sub(self.making - making) >= slice {
                break;
            }
        }
        self.until_durable(self.journal.pace().appended)?;
        let spent = begun.elapsed().saturating_sub(self.making - making);
        self.journal.release(durable);
        self.carry_out()?;
        Ok((super::rate(commits, spent), self.written))
    }
}

/// A file of zeros that is written from its start to its end and then made anew.
struct Raw {
    path: PathBuf,
    file: JournalFile,
    offset: u64,
    segment: u64,
}

impl Raw {
    fn new(dir: &Path, segment: u64) -> io::Result<Self> {
        let path = dir.join("raw");
        zero_file(&path, segment)?;
        let file = open_journal(&path, false)?;
        Ok(Self { path, file, offset: 0, segment })
    }

    fn slice(&mut self, bytes: usize, slice: Duration) -> io::Result<f64> {
        let mut buffer = AlignedBuf::with_capacity(bytes);
        buffer.extend_from_slice(&vec![0x5a; bytes]);
        let buffer = Bytes::from_owner(buffer);
        let (begun, mut making, mut writes) = (Instant::now(), Duration::ZERO, 0);
        while begun.elapsed().saturating_sub(making) < slice {
            if self.offset + bytes as u64 > self.segment {
                let start = Instant::now();
                std::fs::remove_file(&self.path)?;
                zero_file(&self.path, self.segment)?;
                self.file = open_journal(&self.path, false)?;
                self.offset = 0;
                making += start.elapsed();
            }
            write_once(&self.file, &buffer, self.offset)?;
            self.offset += bytes as u64;
            writes += 1;
        }
        Ok(float(writes) / begun.elapsed().saturating_sub(making).as_secs_f64().max(1e-9))
    }
}

/// One durable write in the way that is the product's own for that file.
fn write_once(file: &JournalFile, buffer: &Bytes, offset: u64) -> io::Result<()> {
    let part = Parts::new(vec![buffer.clone()]);
    let count = if file.direct {
        write_durably_at(file.as_fd(), &part, offset)?
    } else {
        let count = write_at(file.as_fd(), &part, offset)?;
        fdatasync(file.as_fd())?;
        count
    };
    if count == buffer.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_write_the_same_bytes_and_the_journal_goes_from_segment_to_segment() {
        let dir = tempfile::tempdir().unwrap();
        let mut sides = Sides::new(dir.path(), 1 << 20).unwrap();
        let course = Course::new(&|| false, &|_, _, _| {});
        for (entries, least) in [(1, 4096), (512, 512 * VALUE)] {
            let one = sides.measure(entries, 2, Duration::from_millis(20), &course).unwrap();
            assert!(one.bytes >= least && one.bytes.is_multiple_of(4096), "{one:?}");
            assert!(one.journal > 0.0 && one.raw > 0.0 && one.ratio > 0.0, "{one:?}");
        }
        let stopped = Course::new(&|| true, &|_, _, _| {});
        let result = sides.measure(1, 1, Duration::ZERO, &stopped);
        assert!(matches!(result, Err(MeasureError::Stopped)));
    }
}

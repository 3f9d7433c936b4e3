//! The journal alone beside the raw disk: how much of the rate of plain durable writes is left when the same bytes go
//! through the crate's own `Journal` and `Driver`, as the daemon drives them.
//!
//! Raw is a loop of one thread around pwritev2 with O_DIRECT and RWF_DSYNC, one write after the other, the same sizes,
//! into a file of the same kind (zeroed ahead). Both alternate in short slices, so that a disk that drifts treats both
//! alike; the figures are medians over slices. Usage: `cargo run --release --example bench-journal -- [--dir DIR] [--slices 30] [--json]`

use hot_backup::base::limits::{BLOCK_U64, SEGMENT_DEFAULT};
use hot_backup::base::{AlignedBuf, FileId, JournalKind, Mono, Now, SegmentIndex, Seq};
use hot_backup::format::PairId;
use hot_backup::format::entry::{Entry, EntryKind};
use hot_backup::io::{Driver, IoChoice, JournalFile, Op, Outcome, Token, open, open_journal, zero_file};
use hot_backup::journal::{Journal, JournalOp, Recovered};
use hot_backup::sys::{Parts, write_durably_at};
use std::collections::HashMap;
use std::error::Error;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Entries in a batch.
const COUNTS: [usize; 4] = [1, 8, 64, 512];
/// Bytes of a value, as in the other programs here.
const VALUE: usize = 128;
/// Bytes of an item's id.
const ID: usize = 16;
/// How long each side writes before the other has its turn.
const SLICE: Duration = Duration::from_millis(200);
/// Segments of both sides.
const SEGMENT: u64 = SEGMENT_DEFAULT;

type Failure = Box<dyn Error>;

/// The journal with its driver and its segments, as `node` puts them together, without the other threads: a segment is
/// made on the spot, and that time is not counted.
struct Alone {
    dir: PathBuf,
    journal: Journal,
    driver: Box<dyn Driver>,
    files: HashMap<SegmentIndex, Arc<JournalFile>>,
    begun: Instant,
    completions: Vec<hot_backup::io::Completion>,
    number: u64,
    /// Time spent on making segments.
    making: Duration,
    /// Bytes of the last write.
    written: usize,
}

impl Alone {
    fn new(dir: &Path) -> Result<Self, Failure> {
        let recovered = Recovered { next_index: 1, ..Recovered::default() };
        Ok(Self {
            dir: dir.to_owned(),
            journal: Journal::new(JournalKind::Replicated, PairId([7; 16]), SEGMENT, recovered),
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
    fn commit(&mut self, count: usize) -> Result<(), Failure> {
        let value = [0x5a; VALUE];
        let written = self.journal.pace().appended;
        for _ in 0..count {
            self.number += 1;
            let id = self.number.to_be_bytes();
            let mut name = [b'k'; ID];
            name.get_mut(..id.len()).ok_or("an id is longer than a number")?.copy_from_slice(&id);
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
    fn until_durable(&mut self, last: Seq) -> Result<(), Failure> {
        while self.journal.pace().durable < last {
            self.pump()?;
            self.driver.wait(Some(Duration::from_millis(10)), &mut self.completions)?;
            self.conclude()?;
        }
        Ok(())
    }

    fn pump(&mut self) -> Result<(), Failure> {
        let now = self.now();
        drop(self.journal.pump(now));
        self.carry_out()
    }

    fn carry_out(&mut self) -> Result<(), Failure> {
        while let Some(op) = self.journal.poll_op() {
            match op {
                JournalOp::Write { write, segment, offset, parts } => {
                    let file = self.files.get(&segment).ok_or("a write to a segment that is not there")?;
                    self.written = parts.iter().map(bytes::Bytes::len).sum();
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

    fn conclude(&mut self) -> Result<(), Failure> {
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

    /// Writes per second of one slice, and the bytes of each.
    fn slice(&mut self, count: usize) -> Result<(f64, usize), Failure> {
        let durable = self.journal.durable().seq;
        let (begun, making) = (Instant::now(), self.making);
        let mut commits = 0_u32;
        while begun.elapsed().saturating_sub(self.making - making) < SLICE {
            self.commit(count)?;
            commits += 1;
        }
        self.until_durable(self.journal.pace().appended)?;
        let spent = begun.elapsed().saturating_sub(self.making - making);
        self.journal.release(durable);
        self.carry_out()?;
        Ok((f64::from(commits) / spent.as_secs_f64(), self.written))
    }
}

/// A file of zeros that is written from its start to its end and then made anew.
struct Raw {
    path: PathBuf,
    file: JournalFile,
    offset: u64,
}

impl Raw {
    fn new(dir: &Path) -> Result<Self, Failure> {
        let path = dir.join("raw");
        zero_file(&path, SEGMENT)?;
        let file = open_journal(&path, false)?;
        Ok(Self { path, file, offset: 0 })
    }

    fn slice(&mut self, bytes: usize) -> Result<f64, Failure> {
        let mut buffer = AlignedBuf::with_capacity(bytes);
        buffer.extend_from_slice(&vec![0x5a; bytes]);
        let buffer = bytes::Bytes::from_owner(buffer);
        let (begun, mut making, mut writes) = (Instant::now(), Duration::ZERO, 0_u32);
        let step = u64::try_from(bytes)?;
        while begun.elapsed().saturating_sub(making) < SLICE {
            if self.offset + step > SEGMENT {
                let start = Instant::now();
                std::fs::remove_file(&self.path)?;
                zero_file(&self.path, SEGMENT)?;
                self.file = open_journal(&self.path, false)?;
                self.offset = 0;
                making += start.elapsed();
            }
            let part = Parts::new(vec![buffer.clone()]);
            let count = write_durably_at(self.file.as_fd(), &part, self.offset)?;
            if count != bytes {
                return Err("a short write".into());
            }
            self.offset += step;
            writes += 1;
        }
        Ok(f64::from(writes) / begun.elapsed().saturating_sub(making).as_secs_f64())
    }
}

fn median(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}

fn argument(name: &str) -> Option<String> {
    let mut args = std::env::args().skip_while(|arg| arg != name).skip(1);
    args.next()
}

fn main() -> Result<(), Failure> {
    let dir = argument("--dir").map_or_else(|| PathBuf::from("target/bench"), PathBuf::from);
    let slices: usize = argument("--slices").map_or(Ok(30), |text| text.parse())?;
    let dir = dir.join(format!("journal-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let result = measure(&dir, slices);
    std::fs::remove_dir_all(&dir)?;
    let rows = result?;
    if std::env::args().any(|arg| arg == "--json") {
        println!("[{}]", rows.join(",\n"));
    }
    Ok(())
}

/// A line for each size; the rows as JSON.
fn measure(dir: &Path, slices: usize) -> Result<Vec<String>, Failure> {
    let mut alone = Alone::new(dir)?;
    let mut raw = Raw::new(dir)?;
    let mut rows = Vec::new();
    let thread = raw.file.by_thread;
    for count in COUNTS {
        let (_, bytes) = alone.slice(count)?;
        raw.slice(bytes)?;
        let (mut ours, mut theirs, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..slices {
            let (rate, _) = alone.slice(count)?;
            let beside = raw.slice(bytes)?;
            ours.push(rate);
            theirs.push(beside);
            ratios.push(rate / beside);
        }
        let (ours, theirs, ratio) = (median(&mut ours), median(&mut theirs), median(&mut ratios));
        eprintln!(
            "{count:4} entries, {bytes:6} bytes: journal {ours:8.0} writes/s, raw {theirs:8.0} writes/s, ratio {ratio:.3}"
        );
        rows.push(format!(
            "{{\"entries\": {count}, \"bytes\": {bytes}, \"journal\": {ours:.1}, \"raw\": {theirs:.1}, \
             \"ratio\": {ratio:.4}, \"by_thread\": {thread}}}"
        ));
    }
    assert_eq!(SEGMENT % BLOCK_U64, 0, "segments are whole blocks");
    Ok(rows)
}

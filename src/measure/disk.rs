//! A directory's disk: durable writes of each size, with many at once, by each way past the kernel, sequential reads; and
//! what the product's journal reaches of that.

use super::journal::Sides;
use super::report::{Figure, Report};
use super::{Course, MeasureError, Times, usage};
use crate::base::AlignedBuf;
use crate::base::limits::BLOCK;
use crate::base::shown::bytes as shown;
use crate::io::{
    FileTrial, JournalFile, NvmeReads, Place, TrialOp, TrialWays, offers_passthrough, open_journal, zero_file,
};
use crate::sys::{Parts, direct_alignment, write_at, write_durably_at};
use bytes::Bytes;
use nix::unistd::fdatasync;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Sizes of a write (bytes).
pub const SIZES: [usize; 6] = [4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20];
/// Writes at once.
pub const DEPTHS: [u16; 6] = [1, 2, 4, 8, 16, 32];
/// Sizes and numbers at once of sequential reads.
const READS: [(usize, u16); 4] = [(128 << 10, 1), (1 << 20, 1), (128 << 10, 8), (1 << 20, 8)];
/// Entries in the batches that the journal writes.
const ENTRIES: [usize; 4] = [1, 64, 512, 4096];
/// Segments of the journal (bytes).
const SEGMENT: u64 = 16 << 20;
/// Files of [`SEGMENT`] that there are at once at most.
const SEGMENTS: u64 = 6;
/// Turns of journal and raw disk, and of the ways past the kernel: a disk that drifts treats all alike.
const SLICES: u32 = 3;
/// What must be free besides, so that nobody else is short of room (bytes).
const SPARE: u64 = 256 << 20;

/// What to measure.
#[derive(Clone, Debug)]
pub struct DiskOptions {
    /// Where; a directory of its own is made there, and removed.
    pub dir: PathBuf,
    /// How long all of it may take, about.
    pub time: Duration,
    /// The file that is written and read (bytes).
    pub size: u64,
    /// Also ways that this machine has no processors to spare for.
    pub every_way: bool,
    /// Only what is needed to say what limits a pair.
    pub brief: bool,
}

impl DiskOptions {
    /// What must be free in the directory (bytes).
    #[must_use]
    pub fn needs(&self) -> u64 {
        self.size + SEGMENTS * SEGMENT + SPARE
    }
}

/// A directory made for this only, which is removed in the end with all that is in it.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new(dir: &Path) -> io::Result<Self> {
        let nanos = std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.subsec_nanos());
        let path = dir.join(format!(".hot-backup-bench-{}-{nanos:08x}", std::process::id()));
        // mkdir(2) takes nothing over: what is in it was made here.
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A directory that stays is harmless and named by its purpose.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Room on the disk of `dir` for those without special rights (bytes).
///
/// # Errors
/// Those of statvfs(3).
pub fn free(dir: &Path) -> io::Result<u64> {
    let found = nix::sys::statvfs::statvfs(dir)?;
    Ok(found.blocks_available().saturating_mul(found.fragment_size()))
}

/// Measures. Figures: `write`, by `dsync` and `fdatasync`, by size; `depth`, by number at once; `ring`, by way; `read`;
/// `journal`, by `journal` and `raw beside`.
///
/// # Errors
/// When the directory has too little room, or cannot be written to; when the course was stopped.
pub fn disk(options: &DiskOptions, course: &Course<'_>, report: &mut Report) -> Result<(), MeasureError> {
    let dir = options.dir.display();
    let has = free(&options.dir).map_err(MeasureError::failed(format_args!("looking at {dir}")))?;
    if has < options.needs() {
        let why = format!("{} are free, and {} are needed", shown(has), shown(options.needs()));
        let error = io::Error::new(io::ErrorKind::StorageFull, why);
        return Err(MeasureError::failed(format_args!("measuring the disk of {dir}"))(error));
    }
    let scratch = Scratch::new(&options.dir)
        .map_err(MeasureError::failed(format_args!("making a directory in {dir}")))?;
    let path = scratch.0.join("file");
    let of_file = || MeasureError::failed(format!("making a file of {} in {dir}", shown(options.size)));
    course.step(&format!("making a file of {}", shown(options.size)))?;
    zero_file(&path, options.size).map_err(of_file())?;
    let file = open_journal(&path, false).map_err(of_file())?;
    facts(options, &file, report);
    let mut bench = Bench { options, course, report, path, direct: file.direct, each: Duration::ZERO };
    drop(file);
    bench.run()?;
    journal(&scratch.0, bench.each, options.brief, course, report)
}

fn facts(options: &DiskOptions, file: &JournalFile, report: &mut Report) {
    let place = Place::of(&options.dir);
    report.fact("file system", place.file_system.clone().unwrap_or_else(|| "unknown".to_owned()));
    report.fact(
        "O_DIRECT",
        match direct_alignment(file.as_fd()) {
            _ if !file.direct => "no: writes go through memory, with a sync each".to_owned(),
            Some(at) => format!("yes, memory aligned to {}, offsets to {}", at.memory, at.offset),
            None => "yes, in blocks of 4096".to_owned(),
        },
    );
    let Some(device) = &place.device else { return report.fact("device", "no block device of its own") };
    let tells = |file: &str| device.tells(file).filter(|text| !text.is_empty());
    let spins = if tells("queue/rotational").as_deref() == Some("1") { ", rotating" } else { "" };
    let model = tells("device/model").map_or_else(String::new, |model| format!(", {model}"));
    report.fact("device", format!("{}{model}{spins}", device.name));
    let fua = if device.fua == Some(true) { "with FUA" } else { "no FUA" };
    let cache = device.write_cache.clone().unwrap_or_else(|| "unknown".to_owned());
    report.fact("device cache", format!("{cache}, {fua}"));
    report.fact("poll queues", if tells("queue/io_poll").as_deref() == Some("1") { "yes" } else { "no" });
    let found = drive(&place).err();
    let tried =
        "tried for reads: a write would go past the file system, and nothing is touched that is not its own";
    report.fact("NVMe passthrough", found.unwrap_or_else(|| tried.to_owned()));
}

/// An NVMe drive to which commands can be handed through.
struct Drive {
    file: std::fs::File,
    /// Its smallest unit (bytes).
    block: u32,
    /// Its size (bytes).
    size: u64,
}

/// The drive that the device is, opened for reading, or why no command can be handed through to it.
fn drive(place: &Place) -> Result<Drive, String> {
    let not = |why: String| format!("not possible: {why}");
    let device = place.device.as_ref().ok_or_else(|| not("no block device of its own".to_owned()))?;
    let rest =
        device.name.strip_prefix("nvme").ok_or_else(|| not(format!("{} is no NVMe device", device.name)))?;
    match offers_passthrough() {
        Ok(true) => {}
        Ok(false) => return Err(not("io_uring of this kernel has no URING_CMD".to_owned())),
        Err(error) => return Err(not(format!("no io_uring: {error}"))),
    }
    let path = format!("/dev/ng{rest}");
    let file = std::fs::File::open(&path).map_err(|error| not(format!("{path}: {error}")))?;
    let number = |name: &str| device.tells(name)?.parse::<u64>().ok();
    let block = number("queue/logical_block_size").and_then(|block| u32::try_from(block).ok());
    let size = number("size").map(|sectors| sectors.saturating_mul(512));
    let (block, size) = block.zip(size).ok_or_else(|| not(format!("{path} has no size")))?;
    Ok(Drive { file, block, size })
}

/// Is told how long each operation took, and says whether to go on.
type Each<'a> = &'a mut dyn FnMut(Duration) -> bool;

struct Bench<'a> {
    options: &'a DiskOptions,
    course: &'a Course<'a>,
    report: &'a mut Report,
    path: PathBuf,
    direct: bool,
    /// How long one measurement takes.
    each: Duration,
}

/// The ways of the ring that are tried, by name.
fn ways() -> [(&'static str, TrialWays); 7] {
    let none = TrialWays::default();
    let (buffers, file) = (TrialWays { buffers: true, ..none }, TrialWays { file: true, ..none });
    let both = TrialWays { buffers: true, ..file };
    [
        ("plain", none),
        ("registered buffers", buffers),
        ("registered file", file),
        ("both registered", both),
        ("SQPOLL", TrialWays { sqpoll: true, ..none }),
        ("SQPOLL, both registered", TrialWays { sqpoll: true, ..both }),
        ("IOPOLL, both registered", TrialWays { iopoll: true, ..both }),
    ]
}

impl Bench<'_> {
    fn run(&mut self) -> Result<(), MeasureError> {
        let brief = self.options.brief;
        let sizes: &[usize] = if brief { &[4 << 10, 64 << 10, 1 << 20] } else { &SIZES };
        let syncs = if brief { 1 } else { 2 };
        let reads = READS.len() * if drive(&Place::of(&self.options.dir)).is_ok() { 2 } else { 1 };
        let ring = if brief { 0 } else { DEPTHS.len() + 2 * ways().len() + reads };
        let turns = if brief { 0 } else { 4 * ways().len() };
        let journal = if brief { 0 } else { ENTRIES.len() };
        let steps = sizes.len() * syncs + ring + journal;
        self.course.expect(steps + turns + 1);
        self.each = self.options.time / u32::try_from(steps).unwrap_or(u32::MAX);
        for &size in sizes {
            self.write("dsync", size)?;
            if !brief {
                self.write("fdatasync", size)?;
            }
        }
        if brief {
            return Ok(());
        }
        for depth in DEPTHS {
            self.trial("depth", "dsync", TrialOp::WriteDurably, TrialWays::default(), (4 << 10, depth))?;
        }
        self.ways()?;
        for read in READS {
            if self.direct {
                self.trial("read", "direct", TrialOp::Read, TrialWays::default(), read)?;
            }
            self.passthrough(read)?;
        }
        Ok(())
    }

    /// The same read of the bare drive, where commands can be handed through to one.
    fn passthrough(&mut self, (size, depth): (usize, u16)) -> Result<(), MeasureError> {
        let Ok(Drive { file, block, size: room }) = drive(&Place::of(&self.options.dir)) else {
            return Ok(());
        };
        let way = "passthrough";
        self.course.step(&format!("read of {}, {way}, {depth} at once", shown(size as u64)))?;
        let room = room.min(self.options.size);
        let opened = NvmeReads::open(file.into(), block, depth, size, room);
        let tried = opened.and_then(|mut reads| self.timed(|each| reads.run(each)));
        self.tell("read", way, (size, depth), tried)
    }

    /// Lets something run for its time, and takes the times that it tells.
    fn timed(&self, run: impl FnOnce(Each<'_>) -> io::Result<()>) -> io::Result<Times> {
        let mut times = Times::begin();
        run(&mut |took| {
            times.add(took);
            times.elapsed() < self.each && !self.course.is_stopped()
        })?;
        Ok(times)
    }

    /// Adds what was measured; what this kernel or device does not have is told as such.
    fn tell(
        &mut self,
        what: &str,
        way: &str,
        (size, depth): (usize, u16),
        tried: io::Result<Times>,
    ) -> Result<(), MeasureError> {
        match tried {
            Ok(times) => self.add(what, way, (size, depth.into()), times),
            Err(error) if !self.report.facts.iter().any(|fact| fact.name == way) => {
                self.report.fact(way, format!("not possible: {error}"));
            }
            Err(_) => {}
        }
        self.course.check()
    }

    /// Each way for a third of its time, three times over; told is the turn in the middle.
    fn ways(&mut self) -> Result<(), MeasureError> {
        let (first, each) = (self.report.figures.len(), self.each);
        self.each = each / SLICES;
        for turn in 0..SLICES {
            for (way, how) in ways() {
                for depth in [1, 8] {
                    self.way(way, how, depth, turn)?;
                }
            }
        }
        self.each = each;
        let all = self.report.figures.split_off(first);
        for (way, _) in ways() {
            for depth in [1, 8] {
                let mut turns: Vec<_> = all.iter().filter(|f| f.way == way && f.at_once == depth).collect();
                turns.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
                self.report.figures.extend(turns.get(turns.len() / 2).map(|figure| (*figure).clone()));
            }
        }
        Ok(())
    }

    fn way(&mut self, way: &'static str, how: TrialWays, depth: u16, turn: u32) -> Result<(), MeasureError> {
        let polls = self.report.facts.iter().any(|fact| fact.name == "poll queues" && fact.found == "yes");
        let why_not = match (self.options.every_way, how) {
            (false, TrialWays { sqpoll: true, .. }) if usage::spare_processors() < 1.0 => {
                "no processor to spare"
            }
            (false, TrialWays { iopoll: true, .. }) if !polls => "the device has no poll queues",
            _ => return self.trial("ring", way, TrialOp::WriteDurably, how, (4 << 10, depth)),
        };
        if depth == 1 && turn == 0 {
            self.report.fact(way, format!("not tried: {why_not}"));
        }
        Ok(())
    }

    fn add(&mut self, what: &str, way: &str, (bytes, at_once): (usize, u64), times: Times) {
        let [per_second, p50_us, p99_us, _] = times.told();
        let (what, way, bytes) = (what.to_owned(), way.to_owned(), bytes as u64);
        self.report.figures.push(Figure {
            part: "disk".to_owned(),
            what,
            way,
            bytes,
            at_once,
            per_second,
            p50_us,
            p99_us,
        });
    }

    /// One thread, one write after the other.
    fn write(&mut self, way: &'static str, size: usize) -> Result<(), MeasureError> {
        if size as u64 > self.options.size {
            return Ok(());
        }
        self.course.step(&format!("writes of {} by {way}", shown(size as u64)))?;
        let failed = || MeasureError::failed(format!("writing {} by {way}", shown(size as u64)));
        let file = open_journal(&self.path, false).map_err(failed())?;
        let mut buffer = AlignedBuf::with_capacity(size);
        let block = [0xA5; BLOCK];
        (0..size.div_ceil(BLOCK)).for_each(|_| buffer.extend_from_slice(&block));
        let buffer = Bytes::from_owner(buffer);
        let (mut times, mut at) = (Times::begin(), 0);
        while times.elapsed() < self.each && !self.course.is_stopped() {
            let begun = std::time::Instant::now();
            let part = Parts::new(vec![buffer.clone()]);
            let count = if way == "dsync" {
                write_durably_at(file.as_fd(), &part, at).map_err(failed())?
            } else {
                let count = write_at(file.as_fd(), &part, at).map_err(failed())?;
                fdatasync(file.as_fd()).map_err(|errno| failed()(errno.into()))?;
                count
            };
            if count != size {
                return Err(failed()(io::ErrorKind::WriteZero.into()));
            }
            times.add(begun.elapsed());
            at += size as u64;
            at = if at + size as u64 > self.options.size { 0 } else { at };
        }
        self.add("write", way, (size, 1), times);
        self.course.check()
    }

    /// By the ring.
    fn trial(
        &mut self,
        what: &str,
        way: &str,
        op: TrialOp,
        how: TrialWays,
        (size, depth): (usize, u16),
    ) -> Result<(), MeasureError> {
        if size as u64 > self.options.size {
            return Ok(());
        }
        self.course.step(&format!("{what} of {}, {way}, {depth} at once", shown(size as u64)))?;
        let file = open_journal(&self.path, false)
            .map_err(MeasureError::failed(format_args!("opening {}", self.path.display())))?;
        let opened = FileTrial::open(file.fd, op, how, depth, size, self.options.size);
        let tried = opened.and_then(|mut trial| self.timed(|each| trial.run(each)));
        self.tell(what, way, (size, depth), tried)
    }
}

fn journal(
    dir: &Path,
    each: Duration,
    brief: bool,
    course: &Course<'_>,
    report: &mut Report,
) -> Result<(), MeasureError> {
    if brief {
        return Ok(());
    }
    let failed = MeasureError::failed("making a journal beside the raw disk");
    let mut sides = Sides::new(dir, SEGMENT).map_err(failed)?;
    for entries in ENTRIES {
        course.step(&format!("the journal beside the raw disk, batches of {entries}"))?;
        let slices = usize::try_from(SLICES).unwrap_or(1);
        let one = sides.measure(entries, slices, each / (2 * SLICES), course)?;
        for (way, per_second) in [("journal", one.journal), ("raw beside", one.raw)] {
            report.figures.push(Figure {
                part: "disk".to_owned(),
                what: "journal".to_owned(),
                way: way.to_owned(),
                bytes: one.bytes as u64,
                at_once: 1,
                per_second,
                ..Figure::default()
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    fn options(dir: &Path) -> DiskOptions {
        let (dir, time, size) = (dir.to_owned(), Duration::from_millis(300), 8 << 20);
        DiskOptions { dir, time, size, every_way: true, brief: false }
    }

    fn is_empty(dir: &Path) -> bool {
        std::fs::read_dir(dir).unwrap().next().is_none()
    }

    #[test]
    fn every_size_and_depth_is_measured_the_journal_stands_beside_the_disk_and_nothing_stays() {
        let dir = tempfile::tempdir().unwrap();
        let mut report = Report::begin();
        let steps = Cell::new((0, 0));
        let tell = |step, of, _: &str| steps.set((step, of));
        disk(&options(dir.path()), &Course::new(&|| false, &tell), &mut report).unwrap();
        assert!(is_empty(dir.path()));
        assert_eq!(report.of("disk", "write").count(), 2 * SIZES.len());
        assert_eq!(report.of("disk", "journal").count(), 2 * ENTRIES.len());
        assert!(report.figures.iter().all(|figure| figure.per_second > 0.0), "{:?}", report.figures);
        assert!(report.facts.iter().any(|fact| fact.name == "O_DIRECT"));
        // What was tried was measured, or it is told why it was not.
        for (way, _) in ways() {
            let measured = report.of("disk", "ring").any(|figure| figure.way == way);
            assert!(measured || report.facts.iter().any(|fact| fact.name == way), "{way}");
        }
        let (step, of) = steps.get();
        assert!(step > 20 && step <= of, "{step} of {of}");
        assert!(super::super::verdict::verdict(&report).is_some());
    }

    #[test]
    fn one_that_is_stopped_or_has_no_room_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        for after in [1, 3, 20, 35] {
            let asked = Cell::new(0);
            let tell = |step, _: usize, _: &str| asked.set(step);
            let stopped = || asked.get() >= after;
            let result = disk(&options(dir.path()), &Course::new(&stopped, &tell), &mut Report::default());
            assert!(matches!(result, Err(MeasureError::Stopped)), "after {after}: {result:?}");
            assert!(is_empty(dir.path()), "after {after}");
        }
        let all = DiskOptions { size: 1 << 60, ..options(dir.path()) };
        let course = Course::new(&|| false, &|_, _, _| {});
        let error = disk(&all, &course, &mut Report::default()).unwrap_err();
        assert!(error.to_string().contains("are free, and 1"), "{error}");
        assert!(is_empty(dir.path()));
    }
}

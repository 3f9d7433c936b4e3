//! Reads of volumes for the core: at once what is in the page cache, by a thread what is not.
//!
//! Files are only read here; the apply thread writes them. What is read while it writes may be old or new: the engine
//! knows what was not applied when it asked, and puts that over it. Whole blocks are read and held to their checksums. One
//! that does not match may have been read while it was written, so it says nothing: the apply thread reads it again,
//! between two batches, and has the last word.

use super::apply::Apply;
use super::core::RoundContext;
use super::inbox::Inbox;
use super::layout::Layout;
use crate::base::limits::{BLOCK, BLOCK_U64, VOLUME_FILES_MAX, VOLUME_READERS};
use crate::base::{Fault, FileId};
use crate::engine::{Allocation, Event, VolumeEffect, VolumeEvent};
use crate::format::sums::{RECORD, SumHeader, SumKey, Verdict, record_at};
use crate::io::{read_ahead, read_at, read_cached};
use crate::store::volumes::{PART_BYTES, allocation_of, part_path, record_of, sums_path};
use bytes::Bytes;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What is read ahead of who reads a volume in order (bytes).
const AHEAD: u64 = 2 << 20;

/// A part of a volume.
type Part = (FileId, u64);

/// Its files.
#[derive(Debug)]
struct PartFiles {
    data: File,
    sums: File,
    key: SumKey,
}

/// The core's side.
#[derive(Debug)]
pub(crate) struct VolumeReads {
    dir: PathBuf,
    /// Open parts, the least recently used first.
    open: VecDeque<(Part, Arc<PartFiles>)>,
    work: Sender<Job>,
}

/// What is asked for: the number of the read, the volume, where, and how much.
#[derive(Clone, Copy, Debug)]
struct Asked {
    read: u64,
    file: FileId,
    offset: u64,
    len: usize,
}

impl Asked {
    /// For the apply thread.
    fn ordered(self) -> VolumeEffect {
        let Self { read, file, offset, len } = self;
        VolumeEffect::Read { read, file, offset, len, ordered: true }
    }
}

/// What a thread does.
#[derive(Debug)]
enum Job {
    Read(Rest),
    Allocation { read: u64, file: FileId, offset: u64, len: u64 },
}

/// Whole blocks of one part: its files, or none where nothing was ever written; offset in it; length.
#[derive(Clone, Debug)]
struct Range {
    files: Option<Arc<PartFiles>>,
    offset: u64,
    len: usize,
}

/// How far a read came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Came {
    /// To its end.
    Whole,
    /// To where it would block.
    Blocked,
    /// To a block that is not what its checksum says.
    Doubtful,
}

/// A read that is not done.
#[derive(Debug)]
struct Rest {
    asked: Asked,
    buffer: Vec<u8>,
    /// All of it, in order.
    ranges: Vec<Range>,
    /// Ranges whose data are read.
    filled: usize,
    /// Ranges that were checked.
    checked: usize,
    /// What was read of the records of the next one.
    records: Vec<u8>,
}

/// Reads once: from a file into what is behind the buffer, so much at most, at this offset. Tells how much, 0 at the end.
type ReadCall = fn(std::os::fd::BorrowedFd<'_>, &mut Vec<u8>, usize, u64) -> io::Result<usize>;

/// Reads until the buffer holds `until` bytes, with zeros behind the end of the file; false where it would block.
fn fill(read: ReadCall, file: &File, buffer: &mut Vec<u8>, until: usize, mut at: u64) -> io::Result<bool> {
    while buffer.len() < until {
        let left = until - buffer.len();
        buffer.reserve(left);
        match read(file.as_fd(), buffer, left, at) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // What was never written reads as zeros.
            Ok(0) => buffer.resize(until, 0),
            Ok(got) => at += u64::try_from(got).unwrap_or(u64::MAX),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

impl Rest {
    fn new(asked: Asked, ranges: Vec<Range>) -> Self {
        let len = ranges.iter().map(|range| range.len).sum();
        let buffer = Vec::with_capacity(len);
        Self { asked, buffer, ranges, filled: 0, checked: 0, records: Vec::new() }
    }

    /// Reads on; stops where it would block.
    fn go_on(&mut self, read: ReadCall) -> io::Result<Came> {
        while let Some(Range { files, offset, len }) = self.ranges.get(self.filled) {
            let start: usize = self.ranges.iter().take(self.filled).map(|range| range.len).sum();
            let until = start + len;
            match files {
                None => self.buffer.resize(until, 0),
                Some(files) => {
                    let have = u64::try_from(self.buffer.len() - start).unwrap_or(0);
                    if !fill(read, &files.data, &mut self.buffer, until, offset + have)? {
                        return Ok(Came::Blocked);
                    }
                }
            }
            self.filled += 1;
        }
        while let Some(Range { files, offset, len }) = self.ranges.get(self.checked) {
            if let Some(files) = files {
                let (first, until) = (offset / BLOCK_U64, len / BLOCK * RECORD);
                let have = u64::try_from(self.records.len()).unwrap_or(0);
                if !fill(read, &files.sums, &mut self.records, until, record_at(first) + have)? {
                    return Ok(Came::Blocked);
                }
                let start: usize = self.ranges.iter().take(self.checked).map(|range| range.len).sum();
                let bytes = self.buffer.get(start..start + len).unwrap_or_default();
                match is_right(read, files, first, bytes, &self.records)? {
                    Some(true) => {}
                    Some(false) => return Ok(Came::Doubtful),
                    None => return Ok(Came::Blocked),
                }
            }
            self.records.clear();
            self.checked += 1;
        }
        Ok(Came::Whole)
    }

    /// What was asked for, out of whole blocks.
    fn bytes(self) -> Bytes {
        let skip = usize::try_from(self.asked.offset % BLOCK_U64).unwrap_or(0);
        Bytes::from(self.buffer).slice(skip..skip + self.asked.len)
    }
}

/// Whether blocks are what was written, as far as can be told beside the one who writes them; none where that would block.
fn is_right(
    read: ReadCall,
    files: &PartFiles,
    first: u64,
    bytes: &[u8],
    records: &[u8],
) -> io::Result<Option<bool>> {
    let mut without = false;
    for ((n, bytes), block) in bytes.chunks(BLOCK).enumerate().zip(first..) {
        match files.key.judge(block, record_of(records, n), bytes) {
            Verdict::Right => {}
            Verdict::NoRecord => without = true,
            Verdict::Mend | Verdict::BadRecord | Verdict::Rotten | Verdict::Condemned => {
                return Ok(Some(false));
            }
        }
    }
    if !without {
        return Ok(Some(true));
    }
    // A part that is older than checksums has none of blocks that were not written since, until its first scrub.
    let mut header = Vec::with_capacity(BLOCK);
    if !fill(read, &files.sums, &mut header, BLOCK, 0)? {
        return Ok(None);
    }
    Ok(Some(SumHeader::decode(&header).is_ok_and(|header| !header.complete)))
}

/// A read beside the apply thread that meets a block on its way to the disk is made again so often ..
const SLOW_TRIES: u32 = 100;
/// .. after this.
const SLOW_REST: Duration = Duration::from_millis(2);
/// EUCLEAN: something has to be repaired.
const UNCLEAN: Fault = Fault::Errno(117);

/// Reads a range of a volume in `dir`, waiting for the disk. What does not match its checksum after many tries is not given
/// out.
pub(crate) fn read_slowly(dir: &Path, file: FileId, offset: u64, len: usize) -> Result<Bytes, Fault> {
    // Whoever wants more than a block wants what is behind it next.
    let ahead = if len > BLOCK { AHEAD } else { 0 };
    for _ in 0..SLOW_TRIES {
        if let Some(bytes) = read_with(ahead, dir, file, offset, len)? {
            return Ok(bytes);
        }
    }
    tracing::warn!("reading volume {file} at {offset}: it does not match its checksums");
    Err(UNCLEAN)
}

/// The same, tried once: none, after a short rest, for what does not match its checksum, as what is being written does not.
pub(crate) fn read_once(dir: &Path, file: FileId, offset: u64, len: usize) -> Result<Option<Bytes>, Fault> {
    read_with(0, dir, file, offset, len)
}

fn read_with(ahead: u64, dir: &Path, file: FileId, offset: u64, len: usize) -> Result<Option<Bytes>, Fault> {
    let asked = Asked { read: 0, file, offset, len };
    // Nothing tells a file that is open for longer that its volume was emptied.
    let mut reads = VolumeReads { dir: dir.to_owned(), open: VecDeque::new(), work: channel().0 };
    let ranges = reads.ranges(asked).map_err(|error| Fault::from_io(&error))?;
    for Range { files, offset, len } in ranges.iter().flatten().filter(|_| ahead > 0) {
        if let Some(files) = files {
            read_ahead(&files.data, *offset, *len as u64 + ahead);
        }
    }
    let found = ranges.and_then(|ranges| slow_read(Rest::new(asked, ranges)));
    if found.is_none() {
        std::thread::sleep(SLOW_REST);
    }
    found.transpose()
}

impl VolumeReads {
    /// Of the node in `layout`; also gives the work of the threads, to be run by [`run`].
    pub(crate) fn new(layout: &Layout) -> (Self, Readers) {
        let (work, jobs) = channel();
        let readers = Readers { dir: layout.volumes(), jobs: Arc::new(Mutex::new(jobs)) };
        (Self { dir: layout.volumes(), open: VecDeque::new(), work }, readers)
    }

    /// Does what the engine asks for; gives back what the apply thread has to do, between its batches.
    pub(crate) fn perform(&mut self, turn: &mut RoundContext, effect: VolumeEffect) -> Option<VolumeEffect> {
        match effect {
            VolumeEffect::Read { ordered: true, .. } | VolumeEffect::Allocation { ordered: true, .. } => {
                return Some(effect);
            }
            VolumeEffect::Read { read, file, offset, len, .. } => {
                return self.read(turn, Asked { read, file, offset, len });
            }
            VolumeEffect::Allocation { read, file, offset, len, .. } => {
                let _ = self.work.send(Job::Allocation { read, file, offset, len });
            }
            // Closes its files.
            VolumeEffect::Forget { file } => self.open.retain(|((other, _), _)| *other != file),
        }
        None
    }

    /// Reads at once if that does not block; gives back what the apply thread has to read.
    fn read(&mut self, turn: &mut RoundContext, asked: Asked) -> Option<VolumeEffect> {
        let Asked { read, file, offset, .. } = asked;
        let result = self.ranges(asked).and_then(|ranges| {
            let Some(ranges) = ranges else { return Ok(None) };
            let mut rest = Rest::new(asked, ranges);
            Ok(Some((rest.go_on(read_cached)?, rest)))
        });
        match result {
            Ok(None | Some((Came::Doubtful, _))) => return Some(asked.ordered()),
            Ok(Some((Came::Whole, rest))) => {
                let result = Ok(rest.bytes());
                turn.events.push(Event::Volume(VolumeEvent::Read { read, result }));
            }
            Ok(Some((Came::Blocked, rest))) => {
                let _ = self.work.send(Job::Read(rest));
            }
            Err(error) => {
                tracing::warn!("reading volume {file} at {offset}: {error}");
                let result = Err(Fault::from_io(&error));
                turn.events.push(Event::Volume(VolumeEvent::Read { read, result }));
            }
        }
        None
    }

    /// Whole blocks around what is asked for; none if only the apply thread can tell what is there.
    fn ranges(&mut self, asked: Asked) -> io::Result<Option<Vec<Range>>> {
        let end = asked.offset + u64::try_from(asked.len).unwrap_or(0);
        let mut at = asked.offset / BLOCK_U64 * BLOCK_U64;
        let mut left = usize::try_from(end.next_multiple_of(BLOCK_U64) - at).unwrap_or(0);
        let mut ranges = Vec::new();
        while left > 0 {
            let (part, within) = (at / PART_BYTES, at % PART_BYTES);
            let len = usize::try_from(PART_BYTES - within).unwrap_or(usize::MAX).min(left);
            let Some(files) = self.part((asked.file, part))? else { return Ok(None) };
            ranges.push(Range { files, offset: within, len });
            at += u64::try_from(len).unwrap_or(u64::MAX);
            left -= len;
        }
        Ok(Some(ranges))
    }

    /// The files of a part, none of them where nothing was ever written; nothing if only one of them is there.
    #[allow(clippy::option_option, reason = "both absences are told apart by their caller")]
    fn part(&mut self, part: Part) -> io::Result<Option<Option<Arc<PartFiles>>>> {
        if let Some(at) = self.open.iter().position(|(open, _)| *open == part) {
            let found = self.open.remove(at);
            let files = found.as_ref().map(|(_, files)| Arc::clone(files));
            self.open.extend(found);
            return Ok(Some(files));
        }
        let open = |path: PathBuf| match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            result => result.map(Some),
        };
        // Checksums are made before the part, so of a part that is just being made not only the data are seen.
        let data = open(part_path(&self.dir, part.0, part.1))?;
        let (data, sums) = match (data, open(sums_path(&self.dir, part.0, part.1))?) {
            (Some(data), Some(sums)) => (data, sums),
            (None, None) => return Ok(Some(None)),
            _ => return Ok(None),
        };
        let files = Arc::new(PartFiles { data, sums, key: SumKey::new(part.0, part.1) });
        if self.open.len() >= VOLUME_FILES_MAX {
            self.open.pop_front();
        }
        self.open.push_back((part, Arc::clone(&files)));
        Ok(Some(Some(files)))
    }
}

/// The threads' side: each runs [`Readers::run`].
#[derive(Clone, Debug)]
pub(crate) struct Readers {
    dir: PathBuf,
    jobs: Arc<Mutex<Receiver<Job>>>,
}

impl Readers {
    /// How many threads there should be.
    pub(crate) const THREADS: usize = VOLUME_READERS;

    /// Reads until the core is gone.
    pub(crate) fn run(&self, apply: &Sender<Apply>, inbox: &Inbox) {
        loop {
            let job = self.jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(job) = job else { return };
            let event = match job {
                Job::Read(rest) => {
                    let asked = rest.asked;
                    let Some(result) = slow_read(rest) else {
                        // Fails when that thread is gone, and then the process is ending.
                        let _ = apply.send(Apply::Volume(asked.ordered()));
                        continue;
                    };
                    Event::Volume(VolumeEvent::Read { read: asked.read, result })
                }
                Job::Allocation { read, file, offset, len } => {
                    let result = allocation_of(&self.dir, file, offset, len).map_err(|error| {
                        tracing::warn!("looking at volume {file} from {offset}: {error}");
                        Fault::from_io(&error)
                    });
                    Event::Volume(VolumeEvent::Allocation { read, result: result.map(parts) })
                }
            };
            if inbox.event(event).is_err() {
                return;
            }
        }
    }
}

/// None if the apply thread has to read it.
fn slow_read(mut rest: Rest) -> Option<Result<Bytes, Fault>> {
    match rest.go_on(read_at) {
        Ok(Came::Whole) => Some(Ok(rest.bytes())),
        Ok(Came::Doubtful | Came::Blocked) => None,
        Err(error) => {
            tracing::warn!("reading a volume: {error}");
            Some(Err(Fault::from_io(&error)))
        }
    }
}

/// As the engine wants it told.
pub(crate) fn parts(found: Vec<(u64, bool)>) -> Vec<Allocation> {
    found.into_iter().map(|(len, hole)| Allocation { len, hole }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::crc32c;
    use std::os::unix::fs::FileExt;

    /// A part of three blocks, of which the second is a hole, and a read of some of it.
    fn part(dir: &std::path::Path, complete: bool) -> (Arc<PartFiles>, Vec<u8>) {
        let open = |name: &str| {
            File::options().read(true).write(true).create(true).truncate(true).open(dir.join(name)).unwrap()
        };
        let (data, sums, key) = (open("data"), open("sums"), SumKey::new(FileId(7), 0));
        let content: Vec<u8> =
            (0..3 * BLOCK).map(|n| if n / BLOCK == 1 { 0 } else { n.to_le_bytes()[0] | 1 }).collect();
        data.write_all_at(&content, 0).unwrap();
        let header = SumHeader { file: FileId(7), part: 0, complete };
        sums.write_all_at(&header.encode(), 0).unwrap();
        for n in [0, 2] {
            let block = &content[n * BLOCK..][..BLOCK];
            sums.write_all_at(&key.record(n as u64, crc32c(block)), record_at(n as u64)).unwrap();
        }
        (Arc::new(PartFiles { data, sums, key }), content)
    }

    fn read(files: &Arc<PartFiles>, call: ReadCall) -> (Came, Rest) {
        let asked = Asked { read: 1, file: FileId(7), offset: 100, len: 2 * BLOCK };
        let ranges = vec![Range { files: Some(Arc::clone(files)), offset: 0, len: 3 * BLOCK }];
        let mut rest = Rest::new(asked, ranges);
        (rest.go_on(call).unwrap(), rest)
    }

    #[test]
    fn what_the_page_cache_holds_is_checked_and_answered_at_once_and_what_does_not_match_is_left_to_the_writer()
     {
        let dir = tempfile::tempdir().unwrap();
        for call in [read_cached as ReadCall, read_at] {
            let (files, content) = part(dir.path(), true);
            let (came, rest) = read(&files, call);
            assert_eq!(came, Came::Whole);
            assert_eq!(rest.bytes(), content[100..100 + 2 * BLOCK]);
            for (at, byte) in [(5000, 1), (BLOCK as u64 - 1, 0), (2 * BLOCK as u64, 0)] {
                let (files, _) = part(dir.path(), true);
                files.data.write_all_at(&[byte], at).unwrap();
                assert_eq!(read(&files, call).0, Came::Doubtful, "byte {at}");
            }
            // One copy of a checksum is wrong: the writer mends it.
            let (files, _) = part(dir.path(), true);
            files.sums.write_all_at(&[9], record_at(2) + 5).unwrap();
            assert_eq!(read(&files, call).0, Came::Doubtful);
            // A block without one, in a part that is older than they are, and not in another one.
            for complete in [false, true] {
                let (files, _) = part(dir.path(), complete);
                files.sums.write_all_at(&[0; RECORD], record_at(2)).unwrap();
                let came = read(&files, call).0;
                assert_eq!(came, if complete { Came::Doubtful } else { Came::Whole });
            }
        }
    }
}

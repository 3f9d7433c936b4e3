//! The files of volumes.

use super::plan::{Content, Plan};
use crate::base::limits::{VOLUME_EXTENTS_MAX, VOLUME_FILES_MAX, VOLUME_SLICES_MAX, VOLUME_WRITE_MAX};
use crate::base::{Fault, FileId};
use bytes::Bytes;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, OFlag, fallocate};
use nix::sys::uio::pwritev;
use nix::unistd::{Whence, lseek64};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What one file holds of a volume (bytes): less than any file system's limit for a file.
pub const PART_BYTES: u64 = 1 << 40;
/// Zeros are written in pieces of this size where the file system cannot make them (bytes).
const ZEROS: usize = 256 << 10;
const VOLUME_WRITE_BLOCK: u64 = VOLUME_WRITE_MAX as u64;

/// The file of a volume's part: the file id in 16 hexadecimal digits, a dot, the part in 2.
#[must_use]
pub fn part_path(dir: &Path, file: FileId, part: u64) -> PathBuf {
    dir.join(format!("{:016x}.{part:02x}", file.0))
}

fn part_of_name(name: &str) -> Option<(FileId, u64)> {
    let (file, part) = name.split_once('.')?;
    let found = (FileId(u64::from_str_radix(file, 16).ok()?), u64::from_str_radix(part, 16).ok()?);
    (part_path(Path::new(""), found.0, found.1) == Path::new(name)).then_some(found)
}

/// A part of a volume.
type Part = (FileId, u64);

/// What a range of a volume is cut into: the part, where in it, how much.
fn parts_of(offset: u64, len: u64) -> impl Iterator<Item = (u64, u64, u64)> {
    let (mut at, end) = (offset, offset + len);
    std::iter::from_fn(move || {
        let within = at % PART_BYTES;
        let some = (PART_BYTES - within).min(end - at);
        let this = (at / PART_BYTES, within, some);
        at += some;
        (some > 0).then_some(this)
    })
}

/// All files of all volumes, for their one writer.
#[derive(Debug)]
pub(in crate::store) struct VolumeFiles {
    dir: PathBuf,
    /// Those that exist, with their descriptor once it is open.
    parts: BTreeMap<Part, Option<Arc<File>>>,
    /// Those that are open, the least recently written first.
    open: VecDeque<Part>,
    /// So many at most.
    most_open: usize,
    /// Written since the last sync began, and not synced since.
    dirty: BTreeSet<Part>,
    /// The directory, and the one that it is in, once something has to be synced there.
    dirs: Vec<Arc<File>>,
    /// Files were made or removed since.
    names_changed: bool,
    /// A sync before a file was closed failed.
    failed_sync: Option<Fault>,
    /// Writes so far, for tests.
    writes: u64,
}

/// The slow part of a checkpoint. Any thread may do it, while the volumes are written on.
#[derive(Debug)]
pub(in crate::store) struct VolumeSync {
    /// Files, then directories. All are open already: nothing but a sync can fail.
    files: Vec<Arc<File>>,
    dirs: Vec<Arc<File>>,
}

impl VolumeSync {
    /// Makes everything written before [`VolumeFiles::begin_sync`] durable.
    ///
    /// # Errors
    /// Those of fdatasync(2). What is on disk is unknown then.
    pub(in crate::store) fn run(self) -> io::Result<()> {
        self.files.iter().try_for_each(|file| sync(file))?;
        self.dirs.iter().try_for_each(|dir| sync_names(dir))
    }
}

impl VolumeFiles {
    /// The volumes in `dir`, which is made when the first is written.
    ///
    /// # Errors
    /// Those of reading a directory.
    pub(in crate::store) fn open(dir: &Path) -> io::Result<Self> {
        let mut parts = BTreeMap::new();
        match std::fs::read_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            entries => {
                for entry in entries? {
                    let name = entry?.file_name();
                    parts.extend(name.to_str().and_then(part_of_name).map(|part| (part, None)));
                }
            }
        }
        let dir = dir.to_owned();
        // What an earlier life made may not be durable yet.
        let names_changed = !parts.is_empty();
        let mut files = Self {
            dir,
            parts,
            open: VecDeque::new(),
            most_open: VOLUME_FILES_MAX,
            dirty: BTreeSet::new(),
            dirs: Vec::new(),
            names_changed,
            failed_sync: None,
            writes: 0,
        };
        if names_changed {
            files.open_dirs()?;
        }
        Ok(files)
    }

    /// The sync of a file failed before it was closed.
    pub(in crate::store) fn failed_sync(&self) -> Option<Fault> {
        self.failed_sync
    }

    /// Opens the directory whose names change, and its parent, which holds its own name.
    fn open_dirs(&mut self) -> io::Result<()> {
        if self.dirs.is_empty() {
            let parent = self.dir.parent().filter(|parent| !parent.as_os_str().is_empty());
            let both = [self.dir.as_path(), parent.unwrap_or(Path::new("."))];
            self.dirs =
                both.into_iter().map(|dir| File::open(dir).map(Arc::new)).collect::<Result<_, _>>()?;
        }
        Ok(())
    }

    /// Whether a file of this volume exists.
    pub(in crate::store) fn holds(&self, file: FileId) -> bool {
        self.parts.range((file, 0)..=(file, u64::MAX)).next().is_some()
    }

    /// Carries out what a plan says. After an error any part of it may be done; all of it may be done again.
    ///
    /// # Errors
    /// Those of pwritev(2) and fallocate(2).
    pub(in crate::store) fn apply(&mut self, plan: &Plan<'_>) -> io::Result<()> {
        for file in plan.emptied() {
            self.empty(file)?;
        }
        let mut run = Run::default();
        for (file, offset, len, content) in plan.ranges() {
            for (part, within, some) in parts_of(offset, len) {
                let Content::Data(bytes) = content else {
                    self.flush(&mut run)?;
                    self.zero((file, part), within, some, content == Content::Hole)?;
                    continue;
                };
                let skip = usize::try_from(part * PART_BYTES + within - offset).unwrap_or(usize::MAX);
                let some = usize::try_from(some).unwrap_or(usize::MAX);
                let bytes = bytes.get(skip..skip.saturating_add(some)).unwrap_or_default();
                if !run.follows((file, part), within) {
                    self.flush(&mut run)?;
                    run = Run { part: Some((file, part)), offset: within, ..Run::default() };
                }
                run.push(bytes);
            }
        }
        self.flush(&mut run)
    }

    /// Writes what was gathered, in as few calls as the limit of one allows.
    fn flush(&mut self, run: &mut Run<'_>) -> io::Result<()> {
        let Run { part, offset, mut slices, len: _ } = std::mem::take(run);
        let Some(part) = part else { return Ok(()) };
        let file = self.part(part)?;
        self.writes += 1;
        let mut at = offset;
        while !slices.is_empty() {
            let where_to = i64::try_from(at).map_err(|_| Errno::EFBIG)?;
            let written = match pwritev(file.as_ref(), &front_of(&slices, at), where_to) {
                Err(Errno::EINTR) => continue,
                result => result?,
            };
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            drop_front(&mut slices, written);
            at += u64::try_from(written).unwrap_or(u64::MAX);
        }
        Ok(())
    }

    /// The file of a part, made if it is not there, and known to be written to.
    fn part(&mut self, part: Part) -> io::Result<Arc<File>> {
        if let Some(Some(file)) = self.parts.get(&part) {
            let file = Arc::clone(file);
            self.dirty.insert(part);
            if self.open.back() != Some(&part) {
                self.open.retain(|other| *other != part);
                self.open.push_back(part);
            }
            return Ok(file);
        }
        self.close_some()?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        options.custom_flags(OFlag::O_NOFOLLOW.bits());
        let path = part_path(&self.dir, part.0, part.1);
        let file = match options.open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                std::fs::DirBuilder::new().mode(0o700).recursive(true).create(&self.dir)?;
                options.open(&path)?
            }
            result => result?,
        };
        self.open_dirs()?;
        self.names_changed |= !self.parts.contains_key(&part);
        let file = Arc::new(file);
        self.parts.insert(part, Some(Arc::clone(&file)));
        self.open.push_back(part);
        self.dirty.insert(part);
        Ok(file)
    }

    /// Keeps so many files open from now on.
    pub(in crate::store) fn keep_open(&mut self, most: usize) {
        self.most_open = most.max(1);
    }

    /// Closes those written least recently while too many are open. What was written to one that no sync has seen yet is
    /// synced first.
    fn close_some(&mut self) -> io::Result<()> {
        while self.open.len() >= self.most_open {
            let Some(part) = self.open.pop_front() else { break };
            let file = self.parts.get_mut(&part).and_then(Option::take);
            if let Some(file) = file.filter(|_| self.dirty.contains(&part)) {
                sync(&file).inspect_err(|error| self.failed_sync = Some(Fault::from_io(error)))?;
                self.dirty.remove(&part);
            }
        }
        Ok(())
    }

    fn zero(&mut self, part: Part, offset: u64, len: u64, hole: bool) -> io::Result<()> {
        if hole && !self.parts.contains_key(&part) {
            return Ok(());
        }
        let file = self.part(part)?;
        self.writes += 1;
        let how = match hole {
            true => FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE,
            false => FallocateFlags::FALLOC_FL_ZERO_RANGE | FallocateFlags::FALLOC_FL_KEEP_SIZE,
        };
        let (at, count) = (i64::try_from(offset), i64::try_from(len));
        let (Ok(at), Ok(count)) = (at, count) else { return Err(Errno::EFBIG.into()) };
        let punch = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        match fallocate(file.as_ref(), how, at, count) {
            // Space is a wish, zeros are a must: no range may keep everything behind it from being applied.
            Err(Errno::EOPNOTSUPP | Errno::ENOSPC) if !hole => {
                match fallocate(file.as_ref(), punch, at, count) {
                    Err(Errno::EOPNOTSUPP) => write_zeros(&file, offset, len),
                    result => Ok(result?),
                }
            }
            Err(Errno::EOPNOTSUPP) => write_zeros(&file, offset, len),
            result => Ok(result?),
        }
    }

    /// Drops what a volume holds. The files stay, so that whoever has them open sees it.
    fn empty(&mut self, file: FileId) -> io::Result<()> {
        for part in self.parts_of_file(file) {
            self.part(part)?.set_len(0)?;
        }
        Ok(())
    }

    fn parts_of_file(&self, file: FileId) -> Vec<Part> {
        self.parts.range((file, 0)..=(file, u64::MAX)).map(|(part, _)| *part).collect()
    }

    /// Removes what a volume holds.
    fn remove(&mut self, file: FileId) -> io::Result<()> {
        for part in self.parts_of_file(file) {
            match std::fs::remove_file(part_path(&self.dir, part.0, part.1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            self.parts.remove(&part);
            self.open.retain(|other| *other != part);
            self.dirty.remove(&part);
            self.open_dirs()?;
            self.names_changed = true;
        }
        Ok(())
    }

    /// Removes every volume that is none: `is_volume` tells.
    ///
    /// # Errors
    /// Those of unlink(2).
    pub(in crate::store) fn remove_strays(&mut self, is_volume: impl Fn(FileId) -> bool) -> io::Result<()> {
        let strays: BTreeSet<FileId> =
            self.parts.keys().map(|(file, _)| *file).filter(|file| !is_volume(*file)).collect();
        strays.into_iter().try_for_each(|file| self.remove(file))
    }

    /// What has to be synced for everything written so far to be durable; none if nothing was written.
    pub(in crate::store) fn begin_sync(&mut self) -> Option<VolumeSync> {
        let dirty = std::mem::take(&mut self.dirty);
        let names_changed = std::mem::take(&mut self.names_changed);
        let files: Vec<Arc<File>> =
            dirty.iter().filter_map(|part| self.parts.get(part)?.as_ref().map(Arc::clone)).collect();
        let dirs = if names_changed { self.dirs.clone() } else { Vec::new() };
        (!files.is_empty() || !dirs.is_empty()).then_some(VolumeSync { files, dirs })
    }

    /// Reads a range; what was never written is zeros.
    ///
    /// # Errors
    /// Those of pread(2).
    pub(in crate::store) fn read(&self, file: FileId, offset: u64, len: usize) -> io::Result<Bytes> {
        let mut all = vec![0; len];
        let mut rest = all.as_mut_slice();
        for (part, within, some) in parts_of(offset, u64::try_from(len).unwrap_or(0)) {
            let (mut this, other) = rest.split_at_mut(usize::try_from(some).unwrap_or(0));
            rest = other;
            let Some(known) = self.parts.get(&(file, part)) else { continue };
            let opened;
            let source: &File = match known {
                Some(open) => open,
                None => {
                    opened = File::open(part_path(&self.dir, file, part))?;
                    &opened
                }
            };
            let mut at = within;
            while !this.is_empty() {
                let got = match source.read_at(this, at) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    result => result?,
                };
                if got == 0 {
                    break;
                }
                at += u64::try_from(got).unwrap_or(u64::MAX);
                this = this.split_at_mut(got).1;
            }
        }
        Ok(Bytes::from(all))
    }

    /// Files that are open.
    #[cfg(test)]
    pub(in crate::store) fn open_files(&self) -> usize {
        let open = self.parts.values().filter(|file| file.is_some()).count();
        assert_eq!(open, self.open.len(), "the list of what is open is right");
        let closed = |part: &Part| self.parts.get(part).is_none_or(Option::is_none);
        assert!(!self.dirty.iter().any(closed), "what no sync has seen is open");
        open
    }

    /// Writes so far.
    #[cfg(test)]
    pub(in crate::store) fn writes(&self) -> u64 {
        self.writes
    }
}

/// Makes what was written to a file durable.
fn sync(file: &File) -> io::Result<()> {
    #[cfg(test)]
    testing::sync()?;
    file.sync_data()
}

/// Makes the names in a directory durable.
fn sync_names(dir: &File) -> io::Result<()> {
    #[cfg(test)]
    testing::sync()?;
    dir.sync_all()
}

/// Counts the syncs of a thread, and makes one of them fail.
#[cfg(test)]
pub(in crate::store) mod testing {
    use std::cell::Cell;
    use std::io;

    thread_local! {
        static SYNCS: Cell<u32> = const { Cell::new(0) };
        static FAILS: Cell<u32> = const { Cell::new(u32::MAX) };
    }

    /// Syncs of files and directories so far.
    pub(in crate::store) fn syncs() -> u32 {
        SYNCS.get()
    }

    /// The `nth` sync from now on fails, 0 being the next.
    pub(in crate::store) fn fail(nth: u32) {
        FAILS.set(SYNCS.get() + nth);
    }

    pub(super) fn sync() -> io::Result<()> {
        let number = SYNCS.replace(SYNCS.get() + 1);
        if number == FAILS.get() { Err(io::Error::from_raw_os_error(5)) } else { Ok(()) }
    }
}

/// Data for one place, gathered from several ranges that follow each other.
#[derive(Default)]
struct Run<'a> {
    part: Option<Part>,
    offset: u64,
    len: u64,
    slices: VecDeque<&'a [u8]>,
}

impl<'a> Run<'a> {
    fn follows(&self, part: Part, offset: u64) -> bool {
        self.part == Some(part) && self.offset + self.len == offset && self.slices.len() < VOLUME_SLICES_MAX
    }

    fn push(&mut self, bytes: &'a [u8]) {
        self.len += u64::try_from(bytes.len()).unwrap_or(0);
        self.slices.push_back(bytes);
    }
}

/// What one call writes of `slices` at `offset`.
fn front_of<'a>(slices: &VecDeque<&'a [u8]>, offset: u64) -> Vec<IoSlice<'a>> {
    let within = usize::try_from(offset % VOLUME_WRITE_BLOCK).unwrap_or(0);
    let mut room = VOLUME_WRITE_MAX - within;
    let mut all = Vec::new();
    for slice in slices {
        let some = slice.get(..room).unwrap_or(slice);
        all.push(IoSlice::new(some));
        room -= some.len();
        if room == 0 {
            break;
        }
    }
    all
}

/// Drops the first `count` bytes, and what is empty then.
fn drop_front(slices: &mut VecDeque<&[u8]>, mut count: usize) {
    while let Some(front) = slices.front_mut() {
        let some = front.len().min(count);
        *front = front.split_at(some).1;
        count -= some;
        if !front.is_empty() {
            return;
        }
        slices.pop_front();
    }
}

/// Writes zeros where the file system knows no better; what lies beyond the end of the file is zeros already.
fn write_zeros(file: &File, offset: u64, len: u64) -> io::Result<()> {
    let end = (offset + len).min(file.metadata()?.len());
    let zeros = vec![0; ZEROS];
    let mut at = offset;
    while at < end {
        let some = usize::try_from(end - at).unwrap_or(ZEROS).min(ZEROS);
        file.write_all_at(zeros.get(..some).unwrap_or_default(), at)?;
        at += u64::try_from(some).unwrap_or(u64::MAX);
    }
    Ok(())
}

/// What takes space in a range of a volume, in order: how long, and whether it is a hole. With more than a limit of
/// them the rest is told as data.
///
/// # Errors
/// Those of lseek(2).
pub fn allocation_of(dir: &Path, file: FileId, offset: u64, len: u64) -> io::Result<Vec<(u64, bool)>> {
    let mut found: Vec<(u64, bool)> = Vec::new();
    let mut push = |len: u64, hole: bool| {
        // A client that takes too much for data loses nothing.
        let hole = hole && found.len() < VOLUME_EXTENTS_MAX;
        match found.last_mut() {
            Some(last) if last.1 == hole => last.0 += len,
            _ if len > 0 => found.push((len, hole)),
            _ => {}
        }
    };
    for (part, within, some) in parts_of(offset, len) {
        let source = match File::open(part_path(dir, file, part)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                push(some, true);
                continue;
            }
            result => result?,
        };
        let (mut at, end) = (within, within + some);
        while at < end {
            let data = seek(&source, at, Whence::SeekData)?.unwrap_or(end).min(end);
            push(data - at, true);
            if data == end {
                break;
            }
            let hole = seek(&source, data, Whence::SeekHole)?.unwrap_or(end).clamp(data, end);
            push(hole - data, false);
            at = hole;
        }
    }
    Ok(found)
}

/// None beyond the last data.
fn seek(file: &File, at: u64, whence: Whence) -> io::Result<Option<u64>> {
    let at = i64::try_from(at).map_err(|_| Errno::EFBIG)?;
    match lseek64(file, at, whence) {
        Ok(found) => Ok(u64::try_from(found).ok()),
        Err(Errno::ENXIO) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Prng;

    #[test]
    fn what_is_gathered_arrives_whole_and_no_call_goes_beyond_a_multiple_of_its_limit() {
        let dir = tempfile::tempdir().unwrap();
        let pool: Vec<u8> = (0..600_000_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
        for seed in 0..40 {
            let mut prng = Prng::new(seed);
            let offset = prng.below(200_000);
            let mut run = Run { part: Some((FileId(seed), 0)), offset, ..Run::default() };
            let mut at = 0;
            while at < pool.len() && run.follows((FileId(seed), 0), offset + run.len) {
                let len = usize::try_from(1 + prng.below([10, 5_000, 300_000][at % 3])).unwrap();
                run.push(&pool[at..pool.len().min(at + len)]);
                at += len;
            }
            let (expected, mut left, mut place) =
                (pool[..pool.len().min(at)].to_vec(), run.slices.clone(), offset);
            while !left.is_empty() {
                let call: usize = front_of(&left, place).iter().map(|slice| slice.len()).sum();
                let end = place + u64::try_from(call).unwrap();
                assert!(end <= (place / VOLUME_WRITE_BLOCK + 1) * VOLUME_WRITE_BLOCK && call > 0);
                drop_front(&mut left, call);
                place = end;
            }
            assert_eq!(place - offset, u64::try_from(expected.len()).unwrap());
            let mut files = VolumeFiles::open(dir.path()).unwrap();
            files.flush(&mut run).unwrap();
            let found = files.read(FileId(seed), offset, expected.len()).unwrap();
            assert!(found == expected, "seed {seed}");
        }
    }
}

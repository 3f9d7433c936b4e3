//! The files of volumes.

use super::calls;
use super::keep::Keeper;
use super::plan::{Content, Plan};
use super::round::{RoundFile, UnderWay};
use super::sums::{BadPlace, Found, MARK, NewSums, Sums, Wrong, look, recorded, sums_path};
use crate::base::limits::{
    BLOCK_U64, VOLUME_EXTENTS_MAX, VOLUME_FILES_MAX, VOLUME_SLICES_MAX, VOLUME_WRITE_MAX,
};
use crate::base::{Fault, FileId};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::unistd::{Whence, lseek64};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What one file holds of a volume (bytes): less than any file system's limit for a file.
pub const PART_BYTES: u64 = 1 << 40;
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

/// The part whose checksums a file of this name holds.
fn part_of_sums(name: &str) -> Option<Part> {
    part_of_name(name.strip_suffix(".sums")?)
}

/// A part of a volume.
pub(super) type Part = (FileId, u64);

/// What a range of a volume is cut into: the part, where in it, how much.
pub(super) fn parts_of(offset: u64, len: u64) -> impl Iterator<Item = (u64, u64, u64)> {
    let (mut at, end) = (offset, offset + len);
    std::iter::from_fn(move || {
        let within = at % PART_BYTES;
        let some = (PART_BYTES - within).min(end - at);
        let this = (at / PART_BYTES, within, some);
        at += some;
        (some > 0).then_some(this)
    })
}

/// A part that is open.
#[derive(Clone, Debug)]
pub(super) struct OpenPart {
    pub(super) data: Arc<File>,
    pub(super) sums: Sums,
}

/// What is known of a part.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) open: Option<OpenPart>,
    /// Whether a block without a checksum holds zeros; else nothing is known of it.
    pub(super) complete: bool,
}

/// All files of all volumes, for their one writer.
#[derive(Debug)]
pub(in crate::store) struct VolumeFiles {
    pub(super) dir: PathBuf,
    /// Those that exist.
    pub(super) parts: BTreeMap<Part, Known>,
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
    /// The directory says that what it holds has checksums.
    marked: bool,
    /// A sync before a file was closed failed.
    failed_sync: Option<Fault>,
    /// Where data and checksums may differ as long as that counts for nothing.
    under_way: UnderWay,
    /// Where rounds are noted, once it is known which page cache this is.
    round: Option<RoundFile>,
    life: Option<String>,
    /// A round was noted since it was last said that there is none.
    noted: bool,
    /// What was found wrong and not told yet.
    pub(super) found: Vec<BadPlace>,
    /// Who reads what volumes held before.
    pub(super) keeper: Keeper,
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
        self.files.iter().try_for_each(|file| calls::sync(file))?;
        self.dirs.iter().try_for_each(|dir| calls::sync_names(dir))
    }
}

impl VolumeFiles {
    /// The volumes in `dir`, which is made when the first is written.
    ///
    /// # Errors
    /// Those of reading a directory; [`io::ErrorKind::InvalidData`] for checksums of a later version.
    pub(in crate::store) fn open(dir: &Path) -> io::Result<Self> {
        let (mut data, mut all, mut marked) = (BTreeSet::new(), BTreeSet::new(), false);
        match std::fs::read_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            entries => {
                for entry in entries? {
                    let name = entry?.file_name();
                    let Some(name) = name.to_str() else { continue };
                    marked |= name == MARK;
                    data.extend(part_of_name(name));
                    all.extend(part_of_name(name).or_else(|| part_of_sums(name)));
                }
            }
        }
        // What an earlier life made may not be durable yet.
        let names_changed = !all.is_empty();
        let mut files = Self {
            dir: dir.to_owned(),
            parts: BTreeMap::new(),
            open: VecDeque::new(),
            most_open: VOLUME_FILES_MAX,
            dirty: BTreeSet::new(),
            dirs: Vec::new(),
            names_changed,
            marked,
            failed_sync: None,
            under_way: UnderWay::Anything,
            round: None,
            life: None,
            noted: false,
            found: Vec::new(),
            keeper: Keeper::default(),
            writes: 0,
        };
        if names_changed {
            files.open_dirs()?;
        }
        for part in all {
            let complete = files.look_at_sums(part, data.contains(&part))?;
            files.parts.insert(part, Known { open: None, complete });
        }
        if names_changed && let Err(error) = files.mark() {
            tracing::warn!(
                "noting that volumes have checksums, which is tried again at the next start: {error}"
            );
        }
        Ok(files)
    }

    /// Whether a part's checksums are complete. What should have some and has none, or what is not what was made, is
    /// noted, and begins anew with none; a part that is older than they are begins so too.
    fn look_at_sums(&mut self, part: Part, has_data: bool) -> io::Result<bool> {
        let found = look(&self.dir, part)?;
        match found {
            Found::Whole { complete } => return Ok(complete),
            // It was being made when the process died: before the part itself.
            _ if !has_data => return Ok(true),
            _ if self.marked => {
                let len = self.part_len(part)?;
                self.found.push(BadPlace {
                    file: part.0,
                    offset: part.1 * PART_BYTES,
                    len,
                    wrong: Wrong::AllChecksums,
                });
            }
            _ => {}
        }
        // Without room for them the part is read on as before.
        if let Err(error) = Sums::make(&self.dir, part, false) {
            let path = sums_path(&self.dir, part.0, part.1);
            tracing::warn!(
                "making {}, which is tried again when the volume is written: {error}",
                path.display()
            );
        }
        Ok(false)
    }

    /// Bytes of a part, in whole blocks.
    fn part_len(&self, part: Part) -> io::Result<u64> {
        match std::fs::metadata(part_path(&self.dir, part.0, part.1)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            found => Ok(found?.len().next_multiple_of(BLOCK_U64)),
        }
    }

    /// From now on a part without checksums has lost them.
    fn mark(&mut self) -> io::Result<()> {
        if self.marked
            || self.parts.keys().any(|part| look(&self.dir, *part).is_ok_and(|found| found == Found::Missing))
        {
            return Ok(());
        }
        self.open_dirs()?;
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600).custom_flags(OFlag::O_NOFOLLOW.bits());
        let mark = options.open(self.dir.join(MARK))?;
        mark.sync_all()?;
        self.dirs.first().map_or(Ok(()), |dir| dir.sync_all())?;
        self.marked = true;
        Ok(())
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
    pub(in crate::store) fn apply(
        &mut self,
        plan: &Plan<'_>,
        lenient: impl Fn(FileId) -> bool,
    ) -> io::Result<()> {
        self.keep(plan, &lenient);
        let under_way = UnderWay::of(plan);
        self.note_round(&under_way)?;
        let result = self.carry_out(plan, lenient);
        if result.is_err() {
            // It stays noted until it is done.
            self.noted = false;
            self.under_way.add(under_way);
        }
        result
    }

    fn carry_out(&mut self, plan: &Plan<'_>, lenient: impl Fn(FileId) -> bool) -> io::Result<()> {
        for file in plan.emptied() {
            self.empty(file)?;
        }
        let (mut run, mut sums) = (Run::default(), NewSums::default());
        for (file, offset, len, content) in plan.ranges() {
            for (part, within, some) in parts_of(offset, len) {
                let lenient = lenient(file);
                let Content::Data(bytes) = content else {
                    self.flush(&mut run, &mut sums)?;
                    let place = Place { part: (file, part), offset: within, len: some, lenient };
                    self.zero(place, content == Content::Hole, &mut sums)?;
                    continue;
                };
                let skip = usize::try_from(part * PART_BYTES + within - offset).unwrap_or(usize::MAX);
                let some = usize::try_from(some).unwrap_or(usize::MAX);
                let bytes = bytes.get(skip..skip.saturating_add(some)).unwrap_or_default();
                if !run.follows((file, part), within) {
                    self.flush(&mut run, &mut sums)?;
                    run = Run { part: Some((file, part)), offset: within, lenient, ..Run::default() };
                }
                run.push(bytes);
            }
        }
        self.flush(&mut run, &mut sums)?;
        let condemned = sums.condemned();
        sums.write(|part| self.part(part).map(|open| open.sums))?;
        for part in condemned {
            let sums = self.part(part)?.sums;
            calls::sync(&sums.file).inspect_err(|error| self.failed_sync = Some(Fault::from_io(error)))?;
        }
        Ok(())
    }

    /// The process before this one wrote into the page cache of this name, or into another one.
    pub(in crate::store) fn lives_in(&mut self, life: &str) -> io::Result<()> {
        self.life = Some(life.to_owned());
        if self.dir.try_exists()? {
            let (found, round) = RoundFile::open(&self.dir, life)?;
            self.under_way = found.unwrap_or(UnderWay::Anything);
            self.round = Some(round);
        }
        Ok(())
    }

    /// Says what is written next.
    fn note_round(&mut self, what: &UnderWay) -> io::Result<()> {
        if let (None, Some(life), true) = (&self.round, &self.life, self.dir.try_exists()?) {
            self.round = Some(RoundFile::open(&self.dir, life)?.1);
        }
        self.noted = true;
        self.round.as_ref().map_or(Ok(()), |round| round.note(what))
    }

    /// Nothing is being written now: says so, if it was not said yet.
    pub(in crate::store) fn rests(&mut self) {
        if std::mem::take(&mut self.noted)
            && let Some(Err(error)) =
                self.round.as_ref().map(|round| round.note(&UnderWay::Ranges(Vec::new())))
        {
            tracing::warn!("noting that no volume is being written: {error}");
        }
    }

    /// What may be different from now on is only what fails.
    pub(in crate::store) fn replayed(&mut self) {
        self.under_way = UnderWay::Ranges(Vec::new());
    }

    /// Whether a block may differ from its checksum where that counts for nothing.
    pub(super) fn may_differ(&self, part: Part, block: u64) -> bool {
        self.under_way.holds(part.0, part.1 * (PART_BYTES / BLOCK_U64) + block)
    }

    /// Writes what was gathered, in as few calls as the limit of one allows.
    fn flush(&mut self, run: &mut Run<'_>, sums: &mut NewSums) -> io::Result<()> {
        let Run { part, offset, mut slices, len, lenient } = std::mem::take(run);
        let Some(part) = part else { return Ok(()) };
        let open = self.part(part)?;
        self.sum_data(Place { part, offset, len, lenient }, &slices, sums)?;
        self.writes += 1;
        let mut at = offset;
        while !slices.is_empty() {
            let written = calls::write_some(&open.data, &front_of(&slices, at), at)?;
            drop_front(&mut slices, written);
            at += u64::try_from(written).unwrap_or(u64::MAX);
        }
        Ok(())
    }

    /// The files of a part, made if they are not there, and known to be written to.
    pub(super) fn part(&mut self, part: Part) -> io::Result<OpenPart> {
        if let Some(Known { open: Some(open), .. }) = self.parts.get(&part) {
            let open = open.clone();
            self.dirty.insert(part);
            if self.open.back() != Some(&part) {
                self.open.retain(|other| *other != part);
                self.open.push_back(part);
            }
            return Ok(open);
        }
        self.close_some()?;
        if !self.dir.try_exists()? {
            std::fs::DirBuilder::new().mode(0o700).recursive(true).create(&self.dir)?;
        }
        self.open_dirs()?;
        self.mark()?;
        let new = !self.parts.contains_key(&part);
        let complete = self.parts.get(&part).is_none_or(|known| known.complete);
        let sums = match look(&self.dir, part)? {
            Found::Whole { .. } => Sums::open(&self.dir, part)?,
            Found::Missing | Found::Damaged => self.make_sums(part, complete)?,
        };
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        options.custom_flags(OFlag::O_NOFOLLOW.bits());
        let data = Arc::new(options.open(part_path(&self.dir, part.0, part.1))?);
        self.names_changed |= new;
        let open = OpenPart { data, sums };
        self.parts.insert(part, Known { open: Some(open.clone()), complete });
        self.open.push_back(part);
        self.dirty.insert(part);
        Ok(open)
    }

    /// Makes the file of a part's checksums, durably: what has none later has lost them.
    fn make_sums(&mut self, part: Part, complete: bool) -> io::Result<Sums> {
        let sums = Sums::make(&self.dir, part, complete)?;
        let synced = calls::sync(&sums.file)
            .and_then(|()| self.dirs.first().map_or(Ok(()), |dir| calls::sync_names(dir)));
        synced.inspect_err(|error| self.failed_sync = Some(Fault::from_io(error)))?;
        Ok(sums)
    }

    /// Every block of a part that holds anything but zeros has a checksum now: says so, once they are durable.
    pub(super) fn completed(&mut self, part: Part) -> io::Result<()> {
        let open = self.part(part)?;
        calls::sync(&open.sums.file).inspect_err(|error| self.failed_sync = Some(Fault::from_io(error)))?;
        open.sums.write_header(true)?;
        if let Some(known) = self.parts.get_mut(&part) {
            known.complete = true;
        }
        Ok(())
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
            let open = self.parts.get_mut(&part).and_then(|known| known.open.take());
            if let Some(open) = open.filter(|_| self.dirty.contains(&part)) {
                let synced = calls::sync(&open.data).and_then(|()| calls::sync(&open.sums.file));
                synced.inspect_err(|error| self.failed_sync = Some(Fault::from_io(error)))?;
                self.dirty.remove(&part);
            }
        }
        Ok(())
    }

    fn zero(&mut self, place: Place, hole: bool, sums: &mut NewSums) -> io::Result<()> {
        if hole && !self.parts.contains_key(&place.part) {
            return Ok(());
        }
        let open = self.part(place.part)?;
        self.sum_zeros(place, sums)?;
        self.writes += 1;
        calls::zero(&open.data, place.offset, place.len, hole)
    }

    /// Drops what a volume holds. The files stay, so that whoever has them open sees it.
    fn empty(&mut self, file: FileId) -> io::Result<()> {
        for part in self.parts_of_file(file) {
            let open = self.part(part)?;
            calls::set_len(&open.data, 0)?;
            open.sums.empty()?;
        }
        Ok(())
    }

    pub(super) fn parts_of_file(&self, file: FileId) -> Vec<Part> {
        self.parts.range((file, 0)..=(file, u64::MAX)).map(|(part, _)| *part).collect()
    }

    /// Removes what a volume holds.
    fn remove(&mut self, file: FileId) -> io::Result<()> {
        for part in self.parts_of_file(file) {
            // Last the checksums: a part without them has lost them.
            calls::remove(&part_path(&self.dir, part.0, part.1))?;
            calls::remove(&sums_path(&self.dir, part.0, part.1))?;
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
        let open = dirty.iter().filter_map(|part| self.parts.get(part)?.open.as_ref());
        let files: Vec<Arc<File>> =
            open.flat_map(|open| [Arc::clone(&open.data), Arc::clone(&open.sums.file)]).collect();
        let dirs = if names_changed { self.dirs.clone() } else { Vec::new() };
        (!files.is_empty() || !dirs.is_empty()).then_some(VolumeSync { files, dirs })
    }

    /// Files that are open.
    #[cfg(test)]
    pub(in crate::store) fn open_files(&self) -> usize {
        let open = self.parts.values().filter(|known| known.open.is_some()).count();
        assert_eq!(open, self.open.len(), "the list of what is open is right");
        let closed = |part: &Part| self.parts.get(part).is_none_or(|known| known.open.is_none());
        assert!(!self.dirty.iter().any(closed), "what no sync has seen is open");
        open
    }

    /// Writes so far.
    #[cfg(test)]
    pub(in crate::store) fn writes(&self) -> u64 {
        self.writes
    }
}

/// A range of a part.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) part: Part,
    pub(super) offset: u64,
    pub(super) len: u64,
    /// What a crash or a failure left is being written again: no difference counts before that is done.
    pub(super) lenient: bool,
}

/// Data for one place, gathered from several ranges that follow each other.
#[derive(Default)]
struct Run<'a> {
    part: Option<Part>,
    offset: u64,
    len: u64,
    slices: VecDeque<&'a [u8]>,
    lenient: bool,
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
        let source = opened(&part_path(dir, file, part))?;
        let sums = opened(&sums_path(dir, file, part))?;
        let (mut at, end) = (within, within + some);
        while at < end {
            let data = match &source {
                Some(source) => seek(source, at, Whence::SeekData)?.unwrap_or(end).min(end),
                None => end,
            };
            push_hole(sums.as_ref(), at, data, &mut push)?;
            let Some(source) = source.as_ref().filter(|_| data < end) else { break };
            let hole = seek(source, data, Whence::SeekHole)?.unwrap_or(end).clamp(data, end);
            push(hole - data, false);
            at = hole;
        }
    }
    Ok(found)
}

/// None if there is no such file.
pub(super) fn opened(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        file => file.map(Some),
    }
}

/// A range that takes no space. What has a checksum in it is told as data: it was lost, and who reads it shall hear of it.
fn push_hole(sums: Option<&File>, from: u64, until: u64, push: &mut impl FnMut(u64, bool)) -> io::Result<()> {
    let runs = match sums {
        Some(sums) if from < until => recorded(sums, from / BLOCK_U64, until.div_ceil(BLOCK_U64))?,
        _ => Vec::new(),
    };
    let mut at = from;
    for (first, count) in runs {
        let start = (first * BLOCK_U64).clamp(at, until);
        let end = ((first + count) * BLOCK_U64).clamp(start, until);
        push(start - at, true);
        push(end - start, false);
        at = end;
    }
    push(until - at, true);
    Ok(())
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
            files.flush(&mut run, &mut NewSums::default()).unwrap();
            let found = files.read(FileId(seed), offset, expected.len(), true).unwrap().unwrap();
            assert!(found == expected, "seed {seed}");
        }
    }
}

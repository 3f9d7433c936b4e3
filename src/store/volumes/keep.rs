//! What volumes held at one moment, kept for somebody who reads it while they are written on.
//!
//! Whoever writes volumes copies what it is about to overwrite to a file of its own first ([`Keeper`]). A reader reads the
//! volumes' files, and looks afterwards what of the range is kept ([`Kept::within`]): what is not was not touched since.
//!
//! - Invariant: a block is kept before it is touched, once, as it was when the moment began.
//! - Invariant: nobody who writes fails by it. Where the room is used up, or the file fails, keeping ends, and with it every
//!   answer about the moment.

use super::files::{PART_BYTES, VolumeFiles, allocation_of};
use super::plan::Plan;
use crate::base::limits::{BLOCK, BLOCK_U64, VIEW_RUNS_MAX};
use crate::base::{Fault, FileId};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Bytes that are looked at together.
const STEP: u64 = 1 << 20;

/// A block that does not match its checksum, and is not being written, is read so often.
const MOMENT_TRIES: u32 = 100;

/// What is known of some blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// They stand in the file, from this byte on.
    At(u64),
    /// They are zeros.
    Zeros,
    /// They were damaged already.
    Damaged,
}

/// Blocks that follow each other.
#[derive(Clone, Copy, Debug)]
struct Run {
    blocks: u64,
    held: Held,
}

/// Where blocks of volumes stand, by volume and first block.
#[derive(Debug, Default)]
pub struct BlockMap {
    files: BTreeMap<FileId, BTreeMap<u64, Run>>,
    runs: usize,
}

impl Run {
    /// The part from `skip` on, of so many blocks.
    fn part(self, skip: u64, blocks: u64) -> Self {
        let held = match self.held {
            Held::At(at) => Held::At(at + skip * BLOCK_U64),
            other => other,
        };
        Self { blocks, held }
    }
}

impl BlockMap {
    /// How many pieces it is made of.
    #[must_use]
    pub fn runs(&self) -> usize {
        self.runs
    }

    /// What is known of the blocks from `first` to `end`, all of them in order: first block, how many, and what, if anything.
    #[must_use]
    pub fn within(&self, file: FileId, first: u64, end: u64) -> Vec<(u64, u64, Option<Held>)> {
        let (mut found, mut at) = (Vec::new(), first);
        let Some(runs) = self.files.get(&file).filter(|_| first < end) else {
            return if first < end { vec![(first, end - first, None)] } else { found };
        };
        let before = runs.range(..first).next_back().filter(|(start, run)| *start + run.blocks > first);
        for (start, run) in before.into_iter().chain(runs.range(first..end)) {
            if *start > at {
                found.push((at, start - at, None));
                at = *start;
            }
            let until = (start + run.blocks).min(end);
            found.push((at, until - at, Some(run.part(at - start, until - at).held)));
            at = until;
        }
        if at < end {
            found.push((at, end - at, None));
        }
        found
    }

    /// From now on these blocks are this.
    pub fn set(&mut self, file: FileId, first: u64, blocks: u64, held: Held) {
        let end = first + blocks;
        let runs = self.files.entry(file).or_default();
        let before = runs.len();
        let ahead = runs.range(..first).next_back().filter(|(start, run)| *start + run.blocks > first);
        let over: Vec<u64> =
            ahead.into_iter().chain(runs.range(first..end)).map(|(start, _)| *start).collect();
        for start in over {
            let Some(run) = runs.remove(&start) else { continue };
            if start < first {
                runs.insert(start, run.part(0, first - start));
            }
            if start + run.blocks > end {
                runs.insert(end, run.part(end - start, start + run.blocks - end));
            }
        }
        match runs.range_mut(..first).next_back() {
            Some((start, run)) if *start + run.blocks == first && run.part(run.blocks, 1).held == held => {
                run.blocks += blocks;
            }
            _ => drop(runs.insert(first, Run { blocks, held })),
        }
        self.runs = self.runs - before + runs.len();
    }
}

/// Why nothing more is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepEnd {
    /// The room is used up.
    Room,
    /// The file of what is kept failed.
    Failed(Fault),
    /// Nobody needs it any more.
    Closed,
}

#[derive(Debug, Default)]
struct State {
    map: BlockMap,
    used: u64,
    end: Option<KeepEnd>,
}

/// Told once when keeping ends by itself.
type OnEnd = Box<dyn Fn(KeepEnd) + Send + Sync>;

/// What is kept of one moment.
pub struct Kept {
    file: File,
    room: Arc<Room>,
    state: Mutex<State>,
    on_end: OnEnd,
    /// The volumes that it is about, if not all.
    only: OnceLock<BTreeSet<FileId>>,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Kept({:?})", self.state())
    }
}

/// Room that several files share (bytes).
#[derive(Debug)]
pub struct Room {
    left: Mutex<u64>,
    all: u64,
}

impl Room {
    /// So much.
    #[must_use]
    pub fn new(bytes: u64) -> Self {
        Self { left: Mutex::new(bytes), all: bytes }
    }

    fn left(&self) -> MutexGuard<'_, u64> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes some of it; false, and nothing taken, if there is not so much.
    #[must_use]
    pub fn take(&self, bytes: u64) -> bool {
        let mut left = self.left();
        let taken = left.checked_sub(bytes);
        *left = taken.unwrap_or(*left);
        taken.is_some()
    }

    /// How much there is in all (bytes).
    #[must_use]
    pub fn size(&self) -> u64 {
        self.all
    }

    /// How much is taken (bytes).
    #[must_use]
    pub fn used(&self) -> u64 {
        self.all - *self.left()
    }
}

impl Kept {
    /// Keeps in a file, in which nothing is, as long as there is room.
    #[must_use]
    pub fn new(file: File, room: Arc<Room>, on_end: impl Fn(KeepEnd) + Send + Sync + 'static) -> Self {
        Self { file, room, state: Mutex::default(), on_end: Box::new(on_end), only: OnceLock::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why it has ended, if it has.
    #[must_use]
    pub fn end(&self) -> Option<KeepEnd> {
        self.state().end
    }

    /// Only what these volumes held is of use; to be said before anything else is written.
    pub fn only(&self, files: BTreeSet<FileId>) {
        let _ = self.only.set(files);
    }

    fn is_about(&self, file: FileId) -> bool {
        self.only.get().is_none_or(|files| files.contains(&file))
    }

    /// Nothing more is to be kept.
    pub fn close(&self) {
        self.state().end.get_or_insert(KeepEnd::Closed);
    }

    /// See [`BlockMap::within`].
    ///
    /// # Errors
    /// Why nothing is known any more.
    pub fn within(
        &self,
        file: FileId,
        first: u64,
        end: u64,
    ) -> Result<Vec<(u64, u64, Option<Held>)>, KeepEnd> {
        let state = self.state();
        state.end.map_or_else(|| Ok(state.map.within(file, first, end)), Err)
    }

    /// Reads what is kept, from a byte of the file on.
    ///
    /// # Errors
    /// Those of pread(2).
    pub fn read(&self, into: &mut [u8], at: u64) -> io::Result<()> {
        self.file.read_exact_at(into, at)
    }

    /// Reads whole blocks as they were, those that are not kept by `live`: from a byte on, so many, as they are on disk now;
    /// none if what is there does not match its checksum, which it does not while it is being written.
    ///
    /// # Errors
    /// [`Fault::UNCLEAN`] where a block was damaged; else what the files say, or EIO when nothing is kept any more.
    pub fn read_blocks(
        &self,
        file: FileId,
        (first, end): (u64, u64),
        mut live: impl FnMut(u64, u64) -> Result<Option<Bytes>, Fault>,
    ) -> Result<Bytes, Fault> {
        let (mut all, mut at, mut tries) = (Vec::new(), first, 0);
        while at < end {
            let Some((_, blocks, held)) = self.known(file, at, end)?.first().copied() else { break };
            let (from, len) = (all.len(), usize::try_from(blocks * BLOCK_U64).unwrap_or(usize::MAX));
            match held {
                Some(Held::Damaged) => return Err(Fault::UNCLEAN),
                Some(Held::Zeros) => all.resize(from + len, 0),
                Some(Held::At(place)) => {
                    all.resize(from + len, 0);
                    let into = all.get_mut(from..).unwrap_or_default();
                    self.read(into, place).map_err(|error| Fault::from_io(&error))?;
                }
                None => {
                    let found = live(at * BLOCK_U64, blocks * BLOCK_U64)?;
                    // What was touched meanwhile is kept by now.
                    let untouched = matches!(self.known(file, at, at + blocks)?.as_slice(), [(_, _, None)]);
                    tries += 1;
                    match found.filter(|_| untouched) {
                        Some(bytes) => all.extend_from_slice(&bytes),
                        None if untouched && tries > MOMENT_TRIES => return Err(Fault::UNCLEAN),
                        None => continue,
                    }
                }
            }
            at += blocks;
        }
        Ok(Bytes::from(all))
    }

    fn known(&self, file: FileId, first: u64, end: u64) -> Result<Vec<(u64, u64, Option<Held>)>, Fault> {
        self.within(file, first, end).map_err(|_| Fault::Errno(5))
    }

    /// What took space in a range of whole blocks, in order: how long (bytes), and whether it was a hole. `live` tells it of what is
    /// on disk now.
    ///
    /// # Errors
    /// As [`Self::read_blocks`].
    pub fn allocation(
        &self,
        file: FileId,
        (first, end): (u64, u64),
        live: impl FnOnce() -> Result<Vec<(u64, bool)>, Fault>,
    ) -> Result<Vec<(u64, bool)>, Fault> {
        let (mut now, mut skip) = (live()?.into_iter().peekable(), 0);
        let mut found: Vec<(u64, bool)> = Vec::new();
        for (_, blocks, held) in self.known(file, first, end)? {
            let mut left = blocks * BLOCK_U64;
            while left > 0 {
                let (len, hole) = now.peek().map_or((left, true), |(len, hole)| (len - skip, *hole));
                let some = len.min(left);
                skip += some;
                if now.next_if(|(len, _)| *len <= skip).is_some() {
                    skip = 0;
                }
                left -= some;
                let hole = held.map_or(hole, |held| held == Held::Zeros);
                match found.last_mut() {
                    Some(last) if last.1 == hole => last.0 += some,
                    _ => found.push((some, hole)),
                }
            }
        }
        Ok(found)
    }

    fn ends(&self, why: KeepEnd) {
        let first = self.state().end.replace(why).is_none();
        if first {
            (self.on_end)(why);
        }
    }

    /// Keeps blocks as they are now; those that are kept already stay as they are.
    fn keep(&self, file: FileId, first: u64, end: u64, read: &mut ReadNow<'_>) {
        let mut at = first;
        while at < end {
            let until = end.min(at + STEP / BLOCK_U64);
            let Ok(known) = self.within(file, at, until) else { return };
            for (first, blocks, _) in known.into_iter().filter(|(_, _, held)| held.is_none()) {
                if let Err(why) = self.keep_new(file, first, blocks, read) {
                    return self.ends(why);
                }
            }
            at = until;
        }
    }

    /// The same for blocks that are zeros.
    fn keep_hole(&self, file: FileId, first: u64, end: u64) {
        let mut state = self.state();
        for (first, blocks, held) in state.map.within(file, first, end) {
            if held.is_none() {
                state.map.set(file, first, blocks, Held::Zeros);
            }
        }
    }

    fn keep_new(&self, file: FileId, first: u64, blocks: u64, read: &mut ReadNow<'_>) -> Result<(), KeepEnd> {
        let found = read(file, first * BLOCK_U64, blocks * BLOCK_U64);
        let Some(bytes) = found else {
            if blocks == 1 {
                self.note(file, first, 1, Held::Damaged);
                return Ok(());
            }
            return (first..first + blocks).try_for_each(|block| self.keep_new(file, block, 1, read));
        };
        let is_zero = |block: &[u8]| block.iter().all(|byte| *byte == 0);
        let (mut at, all) = (0, bytes.len() / BLOCK);
        let block = |n: usize| bytes.get(n * BLOCK..(n + 1) * BLOCK).unwrap_or_default();
        while at < all {
            let zeros = is_zero(block(at));
            let count = (at..all).take_while(|n| is_zero(block(*n)) == zeros).count();
            let (start, count_u64) = (first + at as u64, count as u64);
            if zeros {
                self.note(file, start, count_u64, Held::Zeros);
            } else {
                let data = bytes.get(at * BLOCK..(at + count) * BLOCK).unwrap_or_default();
                let place = self.put(data)?;
                self.note(file, start, count_u64, Held::At(place));
            }
            at += count;
        }
        if self.state().map.runs() > VIEW_RUNS_MAX { Err(KeepEnd::Room) } else { Ok(()) }
    }

    fn note(&self, file: FileId, first: u64, blocks: u64, held: Held) {
        self.state().map.set(file, first, blocks, held);
    }

    /// Writes behind all that is there; tells where.
    fn put(&self, data: &[u8]) -> Result<u64, KeepEnd> {
        let len = data.len() as u64;
        if !self.room.take(len) {
            return Err(KeepEnd::Room);
        }
        let at = self.state().used;
        self.file.write_all_at(data, at).map_err(|error| KeepEnd::Failed(Fault::from_io(&error)))?;
        self.state().used = at + len;
        Ok(at)
    }
}

/// Reads whole blocks of a volume as they are now; none if they are damaged or cannot be read.
type ReadNow<'a> = dyn FnMut(FileId, u64, u64) -> Option<Bytes> + 'a;

/// All who want something kept.
#[derive(Debug, Default)]
pub(super) struct Keeper(Vec<Arc<Kept>>);

impl Keeper {
    fn is_idle(&mut self) -> bool {
        self.0.retain(|kept| kept.end().is_none());
        self.0.is_empty()
    }
}

impl VolumeFiles {
    /// From now on what is overwritten is kept there first.
    pub(in crate::store) fn keep_for(&mut self, kept: Arc<Kept>) {
        self.keeper.0.push(kept);
    }

    /// Keeps what a plan is about to change.
    pub(super) fn keep(&mut self, plan: &Plan<'_>, lenient: impl Fn(FileId) -> bool) {
        if self.keeper.is_idle() {
            return;
        }
        let keeper = std::mem::take(&mut self.keeper);
        for file in plan.emptied() {
            for (offset, len) in self.data_of(file) {
                self.keep_range(&keeper, file, (offset, len), lenient(file));
            }
        }
        for (file, offset, len, _) in plan.ranges() {
            self.keep_range(&keeper, file, (offset, len), lenient(file));
        }
        self.keeper = keeper;
    }

    /// What takes no space is not read, however long it is.
    fn keep_range(&mut self, keeper: &Keeper, file: FileId, (offset, len): (u64, u64), lenient: bool) {
        let (first, end) = (offset / BLOCK_U64, (offset + len).div_ceil(BLOCK_U64));
        let bytes = (end - first) * BLOCK_U64;
        let parts = allocation_of(&self.dir, file, first * BLOCK_U64, bytes);
        let (mut at, mut pieces) = (first * BLOCK_U64, Vec::new());
        for (len, hole) in parts.unwrap_or_else(|_| vec![(bytes, false)]) {
            // A block of which a part takes space is data.
            let until = at + len;
            let (from, to) = match hole {
                true => (at.div_ceil(BLOCK_U64), until / BLOCK_U64),
                false => (at / BLOCK_U64, until.div_ceil(BLOCK_U64)),
            };
            pieces.push((from, to, hole));
            at = until;
        }
        let mut read = |file, offset, len: u64| {
            let len = usize::try_from(len).unwrap_or(usize::MAX);
            self.read(file, offset, len, lenient).ok().flatten()
        };
        for kept in keeper.0.iter().filter(|kept| kept.is_about(file)) {
            for (from, to, hole) in &pieces {
                match hole {
                    true => kept.keep_hole(file, *from, *to),
                    false => kept.keep(file, *from, *to, &mut read),
                }
            }
        }
    }

    /// Where a volume may hold anything but zeros.
    fn data_of(&self, file: FileId) -> Vec<(u64, u64)> {
        let mut found = Vec::new();
        for (_, part) in self.parts_of_file(file) {
            let mut at = part * PART_BYTES;
            let parts = allocation_of(&self.dir, file, at, PART_BYTES);
            for (len, hole) in parts.unwrap_or_else(|_| vec![(PART_BYTES, false)]) {
                if !hole {
                    found.push((at, len));
                }
                at += len;
            }
        }
        found
    }
}

//! Volumes on disk: sparse files, written by whoever applies, read by anybody.
//!
//! A volume is one file for each TiB of it that was ever written ([`part_path`]); what no file holds reads as zeros.
//! Its size stands in the D-pointer alone, so a large volume costs neither start-up time nor memory.
//!
//! - Invariant: content is keyed by file id alone. A clearing, or a copy that begins anew, empties the volume at its
//!   place in the journal; so giving the store a part of the journal again, in order, ends in the same content.
//! - Invariant: what is written here is not durable before a checkpoint. A record in the store, committed together with
//!   the items of the same batches, tells from where on the journals have to be given again after a crash.
//! - Invariant: each block has a checksum in the file beside its part ([`sums_path`]). Whatever reads a block checks it. A
//!   difference that a crash or a failure left counts for nothing until what was applied is applied again.
//! - Boundary: a descriptor whose sync failed is never synced again.
//! - Boundary: a file that was written to is synced before it is closed: only the descriptor that was open while it was
//!   written hears of it if that fails.

pub(super) mod calls;
mod checked;
mod files;
mod keep;
mod plan;
mod round;
mod sums;

#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod keep_tests;

#[cfg(test)]
pub(super) use calls::testing;
pub use checked::Check;
pub use files::{PART_BYTES, allocation_of, part_path};
pub use keep::{BlockMap, Held, KeepEnd, Kept, Room};
pub use round::fuzz_round;
pub use sums::{BadPlace, Wrong, read_records, record_of, sums_path};

use super::due::batches_due;
use super::{SlowSync, StoreError};
use crate::base::{Fault, FileId, JournalKind, Ordinal, Seq};
use crate::format::batch::Batch;
use bytes::Bytes;
use files::VolumeFiles;
#[cfg(any(test, feature = "sim"))]
pub(super) use plan::Content;
pub(super) use plan::Plan;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How far volumes are, by [`JournalKind::index`], and what a crash would have to be followed by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct RecoveryPoints {
    /// The last entry whose changes of volumes were carried out in this life.
    submitted: [Seq; 2],
    /// Volumes may lack, after a power loss, what came after this entry; none if they lack nothing.
    dirty_from: [Option<Seq>; 2],
    /// What was submitted when the sync under way began.
    begun: Option<[Seq; 2]>,
    /// Whether volumes changed since it began.
    changed: [bool; 2],
}

impl RecoveryPoints {
    /// At a start: as the store tells.
    pub(super) fn new(dirty_from: [Option<Seq>; 2], applied: [Seq; 2]) -> Self {
        let from = |n: usize| dirty_from[n].map_or(applied[n], |seq| seq.min(applied[n]));
        Self { submitted: [from(0), from(1)], dirty_from, begun: None, changed: [false; 2] }
    }

    /// The volumes were changed by entries after those submitted so far.
    pub(super) fn changes(&mut self, journal: JournalKind) {
        let n = journal.index();
        self.dirty_from[n].get_or_insert(self.submitted[n]);
        self.changed[n] = true;
    }

    /// Everything up to `last` was carried out.
    pub(super) fn submitted_up_to(&mut self, journal: JournalKind, last: Seq) {
        self.submitted[journal.index()] = last;
    }

    /// A journal begins anew behind `origin`, with volumes that lack nothing of what was before.
    pub(super) fn restarted(&mut self, journal: JournalKind, origin: Seq) {
        let n = journal.index();
        (self.submitted[n], self.dirty_from[n], self.changed[n]) = (origin, None, false);
        if let Some(begun) = &mut self.begun {
            begun[n] = origin;
        }
    }

    /// The store fell back to what it has stored: what it lacks is given again, to volumes too.
    pub(super) fn fell_back(&mut self, applied: [Seq; 2]) {
        for (submitted, applied) in self.submitted.iter_mut().zip(applied) {
            *submitted = (*submitted).min(applied);
        }
    }

    /// See [`VolumeStore::submitted`].
    pub(super) fn submitted(&self) -> [Seq; 2] {
        self.submitted
    }

    /// See [`VolumeStore::dirty_from`].
    pub(super) fn dirty_from(&self) -> [Option<Seq>; 2] {
        self.dirty_from
    }

    /// Whether a sync was begun and is not ended.
    pub(super) fn is_begun(&self) -> bool {
        self.begun.is_some()
    }

    /// A sync begins.
    pub(super) fn begin(&mut self) {
        self.begun = Some(self.submitted);
        self.changed = [false; 2];
    }

    /// It succeeded; tells what is to be stored. While a replay is behind the items, what it has still to give is
    /// lacking.
    pub(super) fn synced(&mut self, applied: [Seq; 2]) -> [Option<Seq>; 2] {
        let begun = self.begun.take().unwrap_or(self.submitted);
        for n in 0..2 {
            let lacking = self.changed[n] || self.submitted[n] < applied[n];
            self.dirty_from[n] = self.dirty_from[n].and(lacking.then_some(begun[n]));
        }
        self.dirty_from
    }

    /// What items and volumes both hold durably when the store holds `applied`.
    pub(super) fn covered(&self, applied: [Seq; 2]) -> [Seq; 2] {
        let covered = |n: usize| self.dirty_from[n].map_or(applied[n], |seq| seq.min(applied[n]));
        [covered(0), covered(1)]
    }
}

/// The volumes of a store, for its one writer.
#[derive(Debug)]
pub(super) struct VolumeStore {
    dir: PathBuf,
    node: Ordinal,
    files: VolumeFiles,
    recovery_points: RecoveryPoints,
    unsettled: Unsettled,
}

/// Where data and checksums may differ although nothing is rotten: what a crash or a failure left is written again, and
/// reading a part of a block before that must not fail by what it is about to mend.
#[derive(Clone, Debug)]
pub(super) struct Unsettled {
    /// The replay at the start is not done.
    replaying: bool,
    /// A copy is not whole.
    copying: bool,
    /// By journal: a failed call of apply wrote some of these files, and all of it is given again up to this entry.
    failed: [Option<(Seq, BTreeSet<FileId>)>; 2],
}

impl Unsettled {
    /// At a start.
    pub(super) fn at_start() -> Self {
        Self { replaying: true, copying: false, failed: [None, None] }
    }

    /// All that may be on disk was given again.
    pub(super) fn replayed(&mut self) {
        self.replaying = false;
    }

    /// What was to bring a journal up to `last` failed somewhere.
    pub(super) fn failed(&mut self, journal: JournalKind, last: Seq, files: impl Iterator<Item = FileId>) {
        let (until, all) = self.failed[journal.index()].get_or_insert_with(|| (last, BTreeSet::new()));
        *until = last.max(*until);
        all.extend(files);
    }

    /// Everything up to `last` was carried out.
    pub(super) fn gave(&mut self, journal: JournalKind, last: Seq) {
        self.failed[journal.index()].take_if(|(until, _)| *until <= last);
    }

    /// Whether volumes may hold anything but what was applied.
    pub(super) fn is_any(&self) -> bool {
        self.replaying || self.copying || self.failed.iter().any(Option::is_some)
    }

    /// Whether a difference in this file means nothing now.
    pub(super) fn covers(&self, file: FileId) -> bool {
        self.replaying || self.copying || self.failed.iter().flatten().any(|(_, files)| files.contains(&file))
    }
}

fn failed(doing: &'static str) -> impl Fn(io::Error) -> StoreError {
    move |error| StoreError::Disk { doing, fault: Fault::from_io(&error) }
}

impl VolumeStore {
    /// The volumes of `node` in `dir`; `since` and `applied` as the store tells them.
    pub(super) fn open(
        dir: &Path,
        node: Ordinal,
        dirty_from: [Option<Seq>; 2],
        applied: [Seq; 2],
    ) -> Result<Self, StoreError> {
        let files = VolumeFiles::open(dir).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidData => {
                StoreError::Damaged { what: "the checksums of a volume", why: error.to_string() }
            }
            _ => failed("opening the volumes")(error),
        })?;
        let recovery_points = RecoveryPoints::new(dirty_from, applied);
        Ok(Self { dir: dir.to_owned(), node, files, recovery_points, unsettled: Unsettled::at_start() })
    }

    /// From now on what is overwritten is kept first; false if volumes are not as far as the items, which are at `applied`.
    pub(super) fn keep_for(&mut self, kept: &Arc<Kept>, applied: [Seq; 2]) -> bool {
        let whole = !self.unsettled.is_any() && self.recovery_points.submitted() == applied;
        if whole {
            self.files.keep_for(Arc::clone(kept));
        }
        whole
    }

    /// Keeps so many files open for writing from now on.
    pub(super) fn keep_open(&mut self, most: usize) {
        self.files.keep_open(most);
    }

    /// The last entries whose changes of volumes were carried out in this life.
    pub(super) fn submitted(&self) -> [Seq; 2] {
        self.recovery_points.submitted()
    }

    /// The sync of a file failed before it was closed: what is on disk is unknown from then on.
    pub(super) fn failed_sync(&self) -> Option<Fault> {
        self.files.failed_sync()
    }

    /// Where the journals would have to be given again from after a power loss now.
    pub(super) fn dirty_from(&self) -> [Option<Seq>; 2] {
        self.recovery_points.dirty_from()
    }

    /// See [`RecoveryPoints::fell_back`].
    pub(super) fn fell_back(&mut self, applied: [Seq; 2]) {
        self.recovery_points.fell_back(applied);
    }

    /// Carries out what batches change; those that were carried out in this life change nothing.
    pub(super) fn apply(&mut self, journal: JournalKind, batches: &[Batch]) -> Result<(), StoreError> {
        let due = batches_due(journal, self.recovery_points.submitted()[journal.index()], batches)?;
        let Some(last) = due.last().map(|batch| batch.header().last_seq()) else { return Ok(()) };
        let plan = Plan::of(self.node, due);
        if plan.changes(|file| self.files.holds(file)) {
            self.recovery_points.changes(journal);
            let unsettled = &self.unsettled;
            self.files.apply(&plan, |file| unsettled.covers(file)).map_err(|error| {
                self.unsettled.failed(journal, last, plan.files());
                failed("writing a volume")(error)
            })?;
        }
        self.recovery_points.submitted_up_to(journal, last);
        self.unsettled.gave(journal, last);
        Ok(())
    }

    /// See [`StoreWrite::replayed`](super::StoreWrite::replayed).
    pub(super) fn replayed(&mut self) {
        self.unsettled.replayed();
        self.files.replayed();
    }

    /// See [`VolumeFiles::rests`].
    pub(super) fn rests(&mut self) {
        self.files.rests();
    }

    /// Tells which page cache this process writes into.
    pub(super) fn lives_in(&mut self, life: &str) -> Result<(), StoreError> {
        self.files.lives_in(life).map_err(failed("opening the note of what is written to volumes"))
    }

    /// See [`StoreWrite::take_bad_places`](super::StoreWrite::take_bad_places).
    pub(super) fn take_bad_places(&mut self) -> Vec<BadPlace> {
        self.files.take_found()
    }

    /// See [`StoreWrite::check_volume`](super::StoreWrite::check_volume).
    pub(super) fn check(
        &mut self,
        file: FileId,
        offset: u64,
        len: u64,
        check: Check,
    ) -> Result<(), StoreError> {
        // What is unsettled is written again, and checked by the next scrub.
        if self.unsettled.covers(file) {
            return Ok(());
        }
        self.files.check(file, offset, len, check).map_err(failed("checking a volume"))
    }

    /// See [`StoreWrite::scrubbed_volume`](super::StoreWrite::scrubbed_volume).
    pub(super) fn scrubbed(&mut self, file: FileId) -> Result<(), StoreError> {
        if self.unsettled.covers(file) {
            return Ok(());
        }
        self.files.scrubbed(file).map_err(failed("completing the checksums of a volume"))
    }

    /// A journal begins anew behind `origin`, and these volumes begin empty.
    pub(super) fn restart_at(
        &mut self,
        journal: JournalKind,
        origin: Seq,
        empty: Vec<FileId>,
    ) -> Result<(), StoreError> {
        self.empty(empty)?;
        self.recovery_points.restarted(journal, origin);
        Ok(())
    }

    /// These volumes are empty from now on. A checkpoint makes that durable, and no journal tells it again.
    pub(super) fn empty(&mut self, files: Vec<FileId>) -> Result<(), StoreError> {
        let plan = Plan::of_emptied(files);
        if plan.changes(|file| self.files.holds(file)) {
            self.files.apply(&plan, |_| true).map_err(failed("emptying a volume"))?;
        }
        Ok(())
    }

    /// Makes a range these runs, and zeros between them. A checkpoint makes that durable, and no journal tells it again. A run
    /// without bytes is a block that nobody has whole: no read gives it out until it is written anew.
    pub(super) fn set_range(
        &mut self,
        file: FileId,
        offset: u64,
        len: u64,
        runs: &[(u64, Bytes)],
    ) -> Result<(), StoreError> {
        let plan = Plan::of_range(file, offset, len, runs);
        self.files.apply(&plan, |_| true).map_err(failed("writing a volume"))?;
        let lost = runs.iter().filter(|(_, bytes)| bytes.is_empty());
        lost.map(|(offset, _)| *offset).try_for_each(|offset| {
            self.files.condemn(file, offset).map_err(failed("noting that a block is rotten"))
        })
    }

    /// From now on every copy of a volume in the journal begins with an empty one.
    pub(super) fn take_every_copy(&mut self) {
        self.node = Ordinal(u8::MAX);
    }

    /// A copy is under way, or not any more: what a crash left of its blocks is copied again.
    pub(super) fn set_copying(&mut self, copying: bool) {
        self.unsettled.copying = copying;
    }

    /// The slow part of a checkpoint, if any volume was written.
    pub(super) fn begin_sync(&mut self) -> Option<SlowSync> {
        self.recovery_points.begin();
        self.files.rests();
        let sync = self.files.begin_sync()?;
        Some(Box::new(move || sync.run()))
    }

    /// See [`RecoveryPoints::is_begun`].
    pub(super) fn is_begun(&self) -> bool {
        self.recovery_points.is_begun()
    }

    /// The sync that was begun succeeded; if none was begun, it is made here. See [`RecoveryPoints::synced`].
    pub(super) fn synced(&mut self, applied: [Seq; 2]) -> Result<[Option<Seq>; 2], StoreError> {
        if !self.recovery_points.is_begun()
            && let Some(sync) = self.begin_sync()
        {
            sync().map_err(failed("syncing the volumes"))?;
        }
        Ok(self.recovery_points.synced(applied))
    }

    /// See [`RecoveryPoints::covered`].
    pub(super) fn covered(&self, applied: [Seq; 2]) -> [Seq; 2] {
        self.recovery_points.covered(applied)
    }

    /// Files that are open for writing.
    #[cfg(test)]
    pub(super) fn open_files(&self) -> usize {
        self.files.open_files()
    }

    /// Writes so far.
    #[cfg(test)]
    pub(super) fn writes(&self) -> u64 {
        self.files.writes()
    }

    /// Removes the files of what is no volume any more, when volumes are as far as the items, which are at `applied`.
    /// What cannot be removed is tried again next time.
    pub(super) fn remove_strays(&mut self, applied: [Seq; 2], is_volume: impl Fn(FileId) -> bool) {
        if self.recovery_points.submitted() != applied {
            return;
        }
        if let Err(error) = self.files.remove_strays(is_volume) {
            tracing::warn!("removing the files of deleted volumes: {error}");
        }
    }

    /// Reads a range.
    pub(super) fn read(&mut self, file: FileId, offset: u64, len: usize) -> Result<Bytes, StoreError> {
        let lenient = self.unsettled.covers(file);
        let read = self.files.read(file, offset, len, lenient).map_err(failed("reading a volume"))?;
        read.ok_or_else(|| StoreError::Damaged {
            what: "a volume",
            why: "a block does not match its checksum".to_owned(),
        })
    }

    /// What takes space in a range.
    pub(super) fn allocation(
        &self,
        file: FileId,
        offset: u64,
        len: u64,
    ) -> Result<Vec<(u64, bool)>, StoreError> {
        allocation_of(&self.dir, file, offset, len).map_err(failed("looking at a volume"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const R: JournalKind = JournalKind::Replicated;

    fn seqs(replicated: u64) -> [Seq; 2] {
        [Seq(replicated), Seq(0)]
    }

    #[test]
    fn a_sync_in_the_middle_of_a_replay_covers_what_was_given_so_far_and_one_at_its_end_everything() {
        let mut points = RecoveryPoints::new([Some(Seq(5)), None], seqs(20));
        assert_eq!((points.submitted(), points.covered(seqs(20))), (seqs(5), seqs(5)));
        // What is given next changes no volume: what follows may.
        points.submitted_up_to(R, Seq(10));
        points.begin();
        assert_eq!(points.synced(seqs(20))[0], Some(Seq(10)));
        assert_eq!(points.covered(seqs(20)), seqs(10));
        points.changes(R);
        points.submitted_up_to(R, Seq(20));
        points.begin();
        assert_eq!(points.synced(seqs(20))[0], None);
        assert_eq!(points.covered(seqs(20)), seqs(20));
    }

    #[test]
    fn what_changes_volumes_while_a_sync_runs_is_lacking_and_nothing_that_came_before_it() {
        let mut points = RecoveryPoints::new([None; 2], seqs(4));
        points.changes(R);
        points.submitted_up_to(R, Seq(6));
        points.begin();
        points.changes(R);
        points.submitted_up_to(R, Seq(8));
        assert_eq!(points.synced(seqs(8))[0], Some(Seq(6)));
        points.begin();
        assert_eq!(points.synced(seqs(8))[0], None);
    }
}

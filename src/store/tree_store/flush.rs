//! What reader, writer and the store's two threads share: the memtables, and the tables that they are written to.
//!
//! The active memtable takes what is applied. When it is full, or at a checkpoint, it is frozen; one thread writes
//! frozen memtables to tables, the oldest first, another merges tables. Each failure is kept until the writer has heard
//! of it; nothing is tried again before.

use super::super::StoreError;
use super::blocks::Sources;
use super::memtable::Memtable;
use super::rot::RottenTables;
use super::tables::Tables;
use crate::base::limits::{STORE_FROZEN_MAX, STORE_RUNS_MAX};
use crate::base::{Fault, Seq};
use lsm_tree::SeqNo;
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::thread::JoinHandle;

/// One state of the store, for as long as somebody reads it.
#[derive(Debug)]
pub(super) struct View {
    pub(super) active: Arc<Memtable>,
    /// The newest first.
    pub(super) frozen: Vec<Arc<Memtable>>,
    /// Which state of the tables.
    pub(super) tables: SeqNo,
    /// The same, for reads that do not wait.
    pub(super) sources: Arc<Sources>,
}

/// Why a thread of the store stopped.
#[derive(Clone, Debug)]
pub(super) enum Failure {
    Fault(&'static str, Fault),
    /// What is on disk may not be what is known of it.
    Unknown(Fault),
    Damaged(&'static str, String),
}

impl Failure {
    fn of(error: StoreError) -> Self {
        match error {
            StoreError::Disk { doing, fault } => Self::Fault(doing, fault),
            StoreError::Damaged { what, why } => Self::Damaged(what, why),
            other => Self::Damaged("its work", other.to_string()),
        }
    }

    /// Of a look at what is stored: nothing is known unless only something ran out.
    fn look(error: &std::io::Error) -> Self {
        let fault = Fault::from_io(error);
        let doing = "looking which tables of the store are finished";
        if fault.is_shortage() { Self::Fault(doing, fault) } else { Self::Unknown(fault) }
    }

    pub(super) fn error(&self) -> StoreError {
        match self.clone() {
            Self::Fault(doing, fault) => StoreError::Disk { doing, fault },
            Self::Unknown(fault) => StoreError::Disk { doing: "naming the store's new tables", fault },
            Self::Damaged(what, why) => StoreError::Damaged { what, why },
        }
    }
}

impl Failure {
    /// As the writer hears of it.
    pub(super) fn told(&self) -> Told {
        let passes = matches!(self, Self::Fault(_, fault) if fault.is_shortage());
        Told { error: self.error(), passes }
    }
}

/// What a failed attempt to write tables may have left.
#[derive(Clone, Copy, Debug)]
struct Unfinished {
    /// Tables from this number on.
    from: u64,
    /// Nothing but descriptors ran out: a file was not opened, and no write and no sync failed. So if the new manifest was
    /// named already, it is durable with all that it names, and so is the known one.
    unopened: bool,
}

/// A failure as the writer hears of it.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) error: StoreError,
    /// It may be tried again: only something ran out, and what is on disk is known.
    pub(super) passes: bool,
}

#[derive(Debug, Default)]
struct Work {
    /// The number of the last memtable that is in tables.
    flushed: u64,
    /// What memtables that are not in tables yet bring, by their numbers.
    brings: BTreeMap<u64, [Seq; 2]>,
    /// The last entries whose items are in tables.
    durable: [Seq; 2],
    flush_failed: Option<Failure>,
    merge_failed: Option<Failure>,
    merge_wanted: bool,
    /// A merge is under way, or was and is not at its end.
    merging: bool,
    stop: bool,
}

impl Work {
    /// Memtable `number`, the oldest that was not, is in tables: what it brought is durable, and nothing that later ones
    /// bring.
    fn is_in_tables(&mut self, number: u64) {
        self.flushed = number;
        self.durable = self.brings.remove(&number).unwrap_or(self.durable);
    }
}

/// See the module's documentation.
pub(super) struct Shared {
    pub(super) tables: Tables,
    view: RwLock<Arc<View>>,
    /// The states that may still be read.
    views: Mutex<Vec<Weak<View>>>,
    /// Held while the tables as they are become part of the newest state.
    publishing: Mutex<()>,
    work: Mutex<Work>,
    changed: Condvar,
    /// Held shared while tables are written, alone while unfinished ones are removed. After a failure it holds what may be
    /// unfinished.
    writing: RwLock<Option<Unfinished>>,
    #[cfg(test)]
    pub(super) faults: super::tests::Faults,
}

impl Shared {
    /// With nothing in memory.
    pub(super) fn new(tables: Tables, first: Memtable) -> Result<Arc<Self>, StoreError> {
        let sources = Arc::new(tables.sources(&Sources::default())?);
        let (active, frozen) = (Arc::new(first), Vec::new());
        let view = Arc::new(View { active, frozen, tables: tables.newest(), sources });
        let views = Mutex::new(vec![Arc::downgrade(&view)]);
        let work = Work { merge_wanted: true, ..Work::default() };
        Ok(Arc::new(Self {
            tables,
            view: RwLock::new(view),
            views,
            publishing: Mutex::default(),
            work: Mutex::new(work),
            changed: Condvar::new(),
            writing: RwLock::new(None),
            #[cfg(test)]
            faults: super::tests::Faults::default(),
        }))
    }

    /// At a start: what tables hold.
    pub(super) fn begin_at(&self, durable: [Seq; 2]) {
        self.work().durable = durable;
    }

    /// The newest state.
    pub(super) fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What tables and memtables take together (bytes).
    pub(super) fn stored_bytes(&self) -> u64 {
        let view = self.view();
        let in_memory = view.frozen.iter().chain([&view.active]).map(|memtable| memtable.bytes() as u64);
        self.tables.disk_bytes() + in_memory.sum::<u64>()
    }

    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, work: MutexGuard<'a, Work>) -> MutexGuard<'a, Work> {
        self.changed.wait(work).unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes another state the newest.
    fn publish(&self, next: impl FnOnce(&View) -> View) {
        let mut view = self.view.write().unwrap_or_else(PoisonError::into_inner);
        let next = Arc::new(next(&view));
        self.views.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&next));
        *view = next;
    }

    /// Makes the tables as they are now part of the newest state, with the memtables that `frozen` leaves.
    fn publish_tables(&self, frozen: impl Fn(&Arc<Memtable>) -> bool) -> Result<(), Failure> {
        // One after the other, so that nobody puts an older state of the tables in the place of a newer one.
        let _alone = self.publishing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = Arc::clone(&self.view().sources);
        let sources = Arc::new(self.tables.sources(&before).map_err(Failure::of)?);
        self.publish(|view| View {
            active: Arc::clone(&view.active),
            frozen: view.frozen.iter().filter(|memtable| frozen(memtable)).cloned().collect(),
            tables: self.tables.newest(),
            sources,
        });
        Ok(())
    }

    /// The oldest state of the tables that may still be read.
    fn oldest(&self) -> SeqNo {
        let newest = self.view().tables;
        let mut views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        views.retain(|view| view.strong_count() > 0);
        views.iter().filter_map(Weak::upgrade).map(|view| view.tables).fold(newest, SeqNo::min)
    }

    /// Puts another memtable in the place of the active one, of which nothing else changes.
    pub(super) fn replace_active(&self, new: Memtable) {
        let active = Arc::new(new);
        self.publish(|view| View {
            active,
            frozen: view.frozen.clone(),
            tables: view.tables,
            sources: Arc::clone(&view.sources),
        });
    }

    /// Freezes the active memtable, which brings the store to `applied`, and begins `next`.
    pub(super) fn freeze(&self, applied: [Seq; 2], next: Memtable) {
        let next = Arc::new(next);
        let mut number = 0;
        self.publish(|view| {
            number = view.active.number;
            let frozen = std::iter::once(&view.active).chain(&view.frozen).cloned().collect();
            View { active: next, frozen, tables: view.tables, sources: Arc::clone(&view.sources) }
        });
        self.work().brings.insert(number, applied);
        self.changed.notify_all();
    }

    /// The last entries whose items are in tables.
    pub(super) fn durable(&self) -> [Seq; 2] {
        self.work().durable
    }

    /// The number of the last memtable that is in tables.
    pub(super) fn flushed(&self) -> u64 {
        self.work().flushed
    }

    /// Waits until memtable `number` is in tables. A failure of before is tried again first.
    pub(super) fn wait_flushed(&self, number: u64) -> Result<(), Told> {
        self.wait_until(|work| work.flushed >= number)
    }

    /// Waits until one more memtable may be frozen. A failure of before is tried again first.
    pub(super) fn wait_for_room(&self) -> Result<(), Told> {
        let failed = self.work().flush_failed.is_some();
        self.wait_until(
            |work| if failed { work.brings.is_empty() } else { work.brings.len() < STORE_FROZEN_MAX },
        )?;
        let mut work = self.work();
        while self.tables.runs() >= STORE_RUNS_MAX {
            if let Some(failure) = work.merge_failed.take() {
                work.merge_wanted = true;
                self.changed.notify_all();
                return Err(failure.told());
            }
            work.merge_wanted = true;
            self.changed.notify_all();
            work = self.wait(work);
        }
        // What cannot be merged as it is rotten is healed meanwhile.
        let rotten = |failure: &Failure| matches!(failure, Failure::Damaged(..));
        match work.merge_failed.take_if(|failure| !failure.told().passes && !rotten(failure)) {
            Some(failure) => Err(failure.told()),
            None => Ok(()),
        }
    }

    fn wait_until(&self, done: impl Fn(&Work) -> bool) -> Result<(), Told> {
        let mut work = self.work();
        if work.flush_failed.take_if(|failure| failure.told().passes).is_some() {
            self.changed.notify_all();
        }
        loop {
            if done(&work) {
                return Ok(());
            }
            if let Some(failure) = &work.flush_failed {
                return Err(failure.told());
            }
            work = self.wait(work);
        }
    }

    /// Starts the threads; they end after [`Self::stop`].
    pub(super) fn start(self: &Arc<Self>) -> std::io::Result<Vec<JoinHandle<()>>> {
        let spawn = |name: &str, run: fn(&Self)| {
            let shared = Arc::clone(self);
            std::thread::Builder::new().name(name.to_owned()).spawn(move || run(&shared))
        };
        Ok(vec![spawn("store-flush", Self::run_flushes)?, spawn("store-merge", Self::run_merges)?])
    }

    /// Waits until there is nothing to merge.
    #[cfg(test)]
    pub(super) fn merged(&self) {
        let mut work = self.work();
        while work.merging || work.merge_wanted || self.tables.wants_merge() {
            assert!(work.merge_failed.is_none(), "{:?}", work.merge_failed);
            work.merge_wanted = true;
            self.changed.notify_all();
            work = self.wait(work);
        }
    }

    /// Ends the threads after what they do now.
    pub(super) fn stop(&self) {
        self.work().stop = true;
        self.changed.notify_all();
    }

    fn run_flushes(&self) {
        let mut work = self.work();
        while !work.stop {
            let next = self.view().frozen.last().cloned();
            let (Some(memtable), None) = (next, &work.flush_failed) else {
                work = self.wait(work);
                continue;
            };
            drop(work);
            let result = self.flush(&memtable);
            work = self.work();
            match result {
                Ok(()) => {
                    work.is_in_tables(memtable.number);
                    work.merge_wanted |= self.tables.wants_merge();
                    work.merge_failed.take_if(|failure| failure.told().passes);
                }
                Err(failure) => work.flush_failed = Some(failure),
            }
            self.changed.notify_all();
        }
    }

    fn flush(&self, memtable: &Arc<Memtable>) -> Result<(), Failure> {
        let written = self.written(|| {
            #[cfg(test)]
            self.faults.before_flush()?;
            self.tables.ingest(|give| memtable.in_order(give))
        });
        written?;
        self.publish_tables(|other| !Arc::ptr_eq(other, memtable))
    }

    fn run_merges(&self) {
        let mut work = self.work();
        while !work.stop {
            let goes_on = std::mem::take(&mut work.merging);
            let wanted = std::mem::take(&mut work.merge_wanted) || goes_on;
            if !wanted || work.merge_failed.is_some() {
                work = self.wait(work);
                continue;
            }
            work.merging = true;
            drop(work);
            let result = self.merge(goes_on);
            work = self.work();
            work.merging = matches!(result, Ok(true));
            if let Err(failure) = result {
                tracing::error!("{}", failure.error());
                let rotten = matches!(failure, Failure::Damaged(..));
                work.merge_failed = Some(failure);
                if rotten {
                    drop(work);
                    self.tables.note_rotten(&self.view().sources);
                    work = self.work();
                }
            }
            self.changed.notify_all();
        }
    }

    /// Merges some tables, if there is a reason to or if that was begun; returns whether there may be more to do.
    fn merge(&self, goes_on: bool) -> Result<bool, Failure> {
        let wanted = goes_on || self.tables.wants_merge();
        let more = wanted && self.written(|| self.tables.merge(self.oldest()))?;
        self.publish_tables(|_| true)?;
        self.tables.release(self.oldest()).map_err(Failure::of)?;
        Ok(more)
    }

    /// Puts a whole table in the place of a rotten one, and merges on.
    pub(super) fn write_anew(
        &self,
        number: u64,
        covered: &RottenTables,
        is_live: impl Fn(&[u8]) -> bool,
    ) -> Result<(), Failure> {
        let sources = Arc::clone(&self.view().sources);
        self.written(|| self.tables.write_anew(number, &sources, covered, is_live))?;
        self.publish_tables(|_| true)?;
        let mut work = self.work();
        work.merge_failed.take_if(|failure| matches!(failure, Failure::Damaged(..)));
        work.merge_wanted = true;
        self.changed.notify_all();
        Ok(())
    }

    /// Writes tables. What an attempt that failed left of them is removed.
    pub(super) fn written<T>(&self, write: impl FnOnce() -> Result<T, StoreError>) -> Result<T, Failure> {
        self.settle()?;
        let from = self.tables.next_table();
        let shared = self.writing.read().unwrap_or_else(PoisonError::into_inner);
        let result = write();
        drop(shared);
        result.map_err(|error| {
            let failure = Failure::of(error);
            let unopened = matches!(failure, Failure::Fault(_, fault) if fault.is_unopened());
            let mut writing = self.writing.write().unwrap_or_else(PoisonError::into_inner);
            let before = writing.unwrap_or(Unfinished { from, unopened });
            *writing =
                Some(Unfinished { from: before.from.min(from), unopened: before.unopened && unopened });
            drop(writing);
            match (self.settle(), failure) {
                (Err(Failure::Unknown(_)), Failure::Fault(_, fault)) => Failure::Unknown(fault),
                // What ran out may be missing for that look too: then the next attempt begins with it.
                (_, failure) => failure,
            }
        })
    }

    /// After a failure: makes sure that what is on disk is what is known of it, and removes unfinished tables. Nothing may
    /// be written before that.
    fn settle(&self) -> Result<(), Failure> {
        let unsettled = *self.writing.read().unwrap_or_else(PoisonError::into_inner);
        if unsettled.is_none() {
            return Ok(());
        }
        let mut writing = self.writing.write().unwrap_or_else(PoisonError::into_inner);
        let Some(Unfinished { from, unopened }) = *writing else { return Ok(()) };
        #[cfg(test)]
        self.faults.before_look().map_err(|error| Failure::look(&error))?;
        match self.tables.is_as_stored() {
            Ok(true) => {}
            Ok(false) if unopened => self.tables.name_again().map_err(|error| Failure::look(&error))?,
            Ok(false) => return Err(Failure::Unknown(Fault::Errno(5))),
            Err(error) => return Err(Failure::look(&error)),
        }
        match self.tables.remove_unfinished(from).map_err(|error| Failure::look(&error)) {
            Err(Failure::Unknown(fault)) => {
                tracing::warn!("removing unfinished tables of the store: {fault}")
            }
            removed => removed?,
        }
        *writing = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_durable_is_what_the_last_memtable_in_tables_brought_and_not_what_waits_behind_it() {
        let mut work = Work::default();
        work.brings.extend([(1, [Seq(5), Seq(2)]), (2, [Seq(9), Seq(4)])]);
        work.is_in_tables(1);
        assert_eq!((work.flushed, work.durable, work.brings.len()), (1, [Seq(5), Seq(2)], 1));
        work.is_in_tables(2);
        assert_eq!((work.durable, work.brings.len()), ([Seq(9), Seq(4)], 0));
        // A memtable that nobody froze brings nothing new.
        work.is_in_tables(3);
        assert_eq!((work.flushed, work.durable), (3, [Seq(9), Seq(4)]));
    }
}

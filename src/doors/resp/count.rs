//! How many items there are, as INFO tells it: counted step by step while others are served, and only when asked for.
//!
//! The store keeps no count of the items of a file. So INFO tells the count of the last whole walk, and begins the next
//! one when that is old enough: a walk takes a twentieth of the time at most. A count that fits into one step is of the
//! moment. Before the first walk has ended INFO tells what was counted so far.
//!
//! Where there may be more than `COUNT_EXACT_MAX` items nothing is walked over: INFO tells the last estimate of the
//! database, begins the next, and says that it is one. Before the first it tells how many there are at most.

use crate::base::limits::{COUNT_EXACT_MAX, COUNT_PAUSE_MS, COUNT_STEP, FETCH_TRIES_MAX};
use crate::base::{FileId, Mono, Now};
use crate::doors::{Backend, CountOf, FetchId, IfCold, Scanned, Unread};

/// The last count and the one under way.
#[derive(Debug, Default)]
pub(super) struct Count {
    told: Option<CountResult>,
    walk: Option<Walk>,
    /// An estimate under way.
    estimate: Option<FetchId>,
}

/// What INFO tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Keys {
    pub(super) count: u64,
    pub(super) is_estimate: bool,
}

/// A count that was finished.
#[derive(Clone, Copy, Debug)]
struct CountResult {
    keys: u64,
    /// When the next may begin.
    again: Mono,
}

#[derive(Debug)]
struct Walk {
    /// Files not yet counted, the next one last.
    files: Vec<FileId>,
    after: Option<Vec<u8>>,
    keys: u64,
    began: Mono,
    /// When the next step is due.
    next: Mono,
    /// What the next step waits for, and how often it did.
    fetch: Option<FetchId>,
    tries: u32,
}

impl Count {
    /// The number of items of these files to tell now, and how many items were looked at for it.
    pub(super) fn ask<B: Backend>(
        &mut self,
        now: Now,
        backend: &mut B,
        mut files: Vec<FileId>,
    ) -> (Keys, usize) {
        let most: u64 = files.iter().map(|file| backend.items_at_most(*file)).sum();
        if most > COUNT_EXACT_MAX {
            let looked = files.len();
            let count = files.into_iter().map(|file| self.estimate(backend, file)).sum();
            return (Keys { count, is_estimate: true }, looked);
        }
        let mut looked = 0;
        if self.walk.is_none() && self.told.is_none_or(|told| told.again <= now.mono) {
            files.reverse();
            self.walk = Some(Walk {
                files,
                after: None,
                keys: 0,
                began: now.mono,
                next: now.mono,
                fetch: None,
                tries: 0,
            });
            looked = self.step(now, backend);
        }
        let count = match (&self.told, &self.walk) {
            (Some(told), _) => told.keys,
            (None, Some(walk)) => walk.keys,
            (None, None) => 0,
        };
        (Keys { count, is_estimate: false }, looked)
    }

    fn estimate<B: Backend>(&mut self, backend: &mut B, file: FileId) -> u64 {
        let if_cold = if self.estimate.is_some() { IfCold::Wait } else { IfCold::Fetch };
        match backend.estimate(file, CountOf::All, if_cold) {
            Ok(items) => items,
            Err(Unread::Cold(fetch)) => {
                self.estimate = Some(fetch);
                backend.estimate(file, CountOf::All, IfCold::Wait).unwrap_or(0)
            }
            // Deleted meanwhile, or of a node that does not serve.
            Err(Unread::Refused(_)) => 0,
        }
    }

    /// When [`Self::tick`] is due.
    pub(super) fn deadline(&self) -> Option<Mono> {
        self.walk.as_ref().filter(|walk| walk.fetch.is_none()).map(|walk| walk.next)
    }

    /// Whether it was this count that waited for a fetch, which is over.
    pub(super) fn fetched(&mut self, fetch: FetchId) -> bool {
        if self.estimate == Some(fetch) {
            self.estimate = None;
            return true;
        }
        let waits = self.walk.as_mut().filter(|walk| walk.fetch == Some(fetch));
        waits.is_some_and(|walk| walk.fetch.take().is_some())
    }

    /// Goes on with a count that is under way and due.
    pub(super) fn tick<B: Backend>(&mut self, now: Now, backend: &mut B) {
        let Some(walk) = &mut self.walk else { return };
        if walk.next > now.mono || walk.fetch.is_some() {
            return;
        }
        walk.next = now.mono.plus_ms(COUNT_PAUSE_MS);
        if !backend.congested() {
            self.step(now, backend);
        }
    }

    fn step<B: Backend>(&mut self, now: Now, backend: &mut B) -> usize {
        const REST: u64 = 20;
        let Some(walk) = &mut self.walk else { return 0 };
        walk.next = now.mono.plus_ms(COUNT_PAUSE_MS);
        let mut left = COUNT_STEP;
        while left > 0
            && let Some(file) = walk.files.last()
        {
            // A file that is gone counts nothing, nor does one of a node that does not serve.
            let if_cold = if walk.tries < FETCH_TRIES_MAX { IfCold::Fetch } else { IfCold::Wait };
            let Scanned { ids, next, .. } = match backend.scan(*file, walk.after.as_deref(), left, if_cold) {
                Err(Unread::Cold(fetch)) => {
                    (walk.fetch, walk.tries) = (Some(fetch), walk.tries + 1);
                    break;
                }
                scanned => scanned.unwrap_or_default(),
            };
            walk.tries = 0;
            walk.keys += ids.len() as u64;
            if next.is_none() {
                walk.files.pop();
            }
            walk.after = next.map(|id| id.to_vec());
            // An empty file is work, too.
            left = left.saturating_sub(ids.len().max(1));
        }
        if walk.files.is_empty() {
            let took = now.mono.since(walk.began);
            self.told = Some(CountResult { keys: walk.keys, again: now.mono.plus_ms(took / 1000 * REST) });
            self.walk = None;
        }
        COUNT_STEP - left
    }
}

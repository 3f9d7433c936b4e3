//! Reads of the store whose answer is not in memory: readers fetch it, and whoever asked comes again.
//!
//! A fetch brings no value back. It brings what was asked for into memory, so that the read that is made afterwards finds
//! it without waiting. That read happens at one moment, on the newest state and below the overlay, as if it had been hot
//! from the start: what changed meanwhile needs no care.

use super::core::Core;
use super::damage::Spot;
use super::effect::{Fetched, StoreEffect, StoredPart};
use crate::base::limits::{COUNT_FRESH_MS, COUNTS_KEPT_MAX, FETCH_TRIES_MAX, FETCHES_FAILED_MAX};
use crate::base::{FileId, Mono};
use crate::doors::{CountOf, FetchId, IfCold, Refusal, Unread};
use crate::store::{Fits, StoreError, StoreRead, StoreSnapshot, Tried};
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap, VecDeque};

/// Fetches under way, and what came of others.
#[derive(Debug, Default)]
pub(super) struct Fetches {
    under_way: HashMap<u64, (FileId, Purpose)>,
    /// Numbers of items, and when they were told.
    counts: BTreeMap<(FileId, CountOf), (Mono, Result<u64, Refusal>)>,
    /// What could not be fetched, until it is asked for again.
    failed: BTreeMap<(FileId, Spot), StoreError>,
    /// What the dry run of an operator's request waits for, and how often it did.
    pub(super) dry_run: Option<FetchId>,
    pub(super) dry_run_tries: u32,
    /// Those that are over, to be told to the door.
    pub(super) done: VecDeque<FetchId>,
}

/// What is fetched of a file.
#[derive(Debug)]
enum Purpose {
    Read(Spot),
    Count(CountOf),
}

/// Whether an id is one of those that a count is of.
pub(super) fn fits(of: CountOf) -> Fits {
    match of {
        CountOf::All => |_| true,
        CountOf::Short => |id| id.iter().filter(|byte| **byte == b',').count() < 2,
    }
}

impl Fetches {
    /// What a dry run that counts the items of so many files does about what is cold.
    pub(super) fn if_dry_run_is_cold(&mut self, files: usize) -> IfCold {
        self.dry_run_tries += 1;
        let most = FETCH_TRIES_MAX.saturating_add(u32::try_from(files).unwrap_or(u32::MAX));
        if self.dry_run_tries <= most { IfCold::Fetch } else { IfCold::Wait }
    }

    fn note_failed(&mut self, place: (FileId, Spot), error: StoreError) {
        if self.failed.len() >= FETCHES_FAILED_MAX {
            self.failed.pop_first();
        }
        self.failed.insert(place, error);
    }
}

#[cfg(test)]
impl Fetches {
    /// How many are under way, and how many failures are kept.
    pub(super) fn kept(&self) -> [usize; 2] {
        [self.under_way.len(), self.failed.len()]
    }
}

impl<S: StoreRead> Core<S> {
    /// The store's state that this turn reads.
    fn snapshot(&self) -> &S::Snapshot {
        self.snapshot.get_or_init(|| self.store.snapshot())
    }

    /// Clients have their turn: the next read sees the newest state. A command that was interrupted has read some items
    /// already; whether they were changed has to be known before it reads the others. So what the new state shows is
    /// noted first: on a standby the store is ahead of what is told of it.
    pub(super) fn begin_turn(&mut self) {
        self.snapshot.take();
        if self.changes.is_wanted() {
            let visible = self.snapshot().applied();
            self.note_visible(visible);
        }
    }

    /// The turn is over: what a snapshot shows takes space.
    pub(super) fn end_turn(&mut self) {
        self.snapshot.take();
    }

    fn begin_fetch(&mut self, file: FileId, generation: u32, purpose: Purpose, part: StoredPart) -> Unread {
        let fetch = self.fresh_id();
        self.fetches.under_way.insert(fetch, (file, purpose));
        self.effect(StoreEffect::Fetch { fetch, file, generation, part });
        Unread::Cold(FetchId(fetch))
    }

    /// The value of an item in the store.
    pub(super) fn stored_item(
        &mut self,
        file: FileId,
        generation: u32,
        id: &[u8],
        if_cold: IfCold,
    ) -> Result<Option<Bytes>, Unread> {
        let spot = || Spot::Item(id.to_vec());
        let mut tried = self.snapshot().try_get(file, generation, id);
        if let Ok(Tried::Cold) = tried {
            if !self.fetches.failed.is_empty()
                && let Some(error) = self.fetches.failed.remove(&(file, spot()))
            {
                tried = Err(error);
            } else if if_cold == IfCold::Wait {
                tried = self.snapshot().get(file, generation, id).map(Tried::Done);
            }
        }
        match tried {
            Ok(Tried::Done(value)) => Ok(value),
            Ok(Tried::Cold) => {
                let part = StoredPart::Item(Bytes::copy_from_slice(id));
                Err(self.begin_fetch(file, generation, Purpose::Read(spot()), part))
            }
            Err(error) => Err(self.unreadable(file, spot(), &error).into()),
        }
    }

    /// Up to `limit` items of the store after `after`, in order.
    pub(super) fn stored_items(
        &mut self,
        file: FileId,
        generation: u32,
        after: Option<&[u8]>,
        limit: usize,
        (with_values, if_cold): (bool, IfCold),
    ) -> Result<Vec<(Bytes, Bytes)>, Unread> {
        let spot = || Spot::After(after.unwrap_or_default().to_vec());
        let mut tried = self.snapshot().try_scan(file, generation, after, limit, with_values);
        if let Ok(Tried::Cold) = tried {
            if !self.fetches.failed.is_empty()
                && let Some(error) = self.fetches.failed.remove(&(file, spot()))
            {
                tried = Err(error);
            } else if if_cold == IfCold::Wait {
                tried = self.snapshot().scan(file, generation, after, limit, with_values).map(Tried::Done);
            }
        }
        match tried {
            Ok(Tried::Done(items)) => Ok(items),
            Ok(Tried::Cold) => {
                let after = after.map(Bytes::copy_from_slice);
                let part = StoredPart::Items { after, limit };
                Err(self.begin_fetch(file, generation, Purpose::Read(spot()), part))
            }
            Err(error) => Err(self.unreadable(file, spot(), &error).into()),
        }
    }

    /// The store has no more items of a file than this.
    pub(super) fn stored_at_most(&self, file: FileId) -> u64 {
        let generation = self.namespace.file(file).map_or(0, |info| info.dptr.generation);
        self.snapshot().items_at_most(file, generation)
    }

    /// About how many items the store has of a file; as it was lately.
    pub(super) fn stored_count(
        &mut self,
        file: FileId,
        generation: u32,
        of: CountOf,
        if_cold: IfCold,
    ) -> Result<u64, Unread> {
        let known = self.fetches.counts.get(&(file, of));
        let fresh = known.filter(|(at, _)| self.now.mono.since(*at) < COUNT_FRESH_MS * 1000);
        match (fresh.or(known.filter(|_| if_cold == IfCold::Wait)), if_cold) {
            (Some((_, count)), _) => Ok(count.clone()?),
            (None, IfCold::Wait) => Ok(self.stored_at_most(file)),
            (None, IfCold::Fetch) => {
                Err(self.begin_fetch(file, generation, Purpose::Count(of), StoredPart::Count(fits(of))))
            }
        }
    }

    /// A fetch is over.
    pub(super) fn fetched(&mut self, fetch: u64, result: Result<Fetched, StoreError>) {
        let Some((file, purpose)) = self.fetches.under_way.remove(&fetch) else { return };
        match (purpose, result) {
            (Purpose::Read(spot), Err(error)) => self.fetches.note_failed((file, spot), error),
            (Purpose::Read(_), Ok(_)) => {}
            (Purpose::Count(of), result) => {
                let count = match result {
                    Ok(Fetched::Count(count)) => Ok(count),
                    Ok(Fetched::InMemory) => return,
                    Err(error) => Err(self.unreadable(file, Spot::After(Vec::new()), &error)),
                };
                if self.fetches.counts.len() >= COUNTS_KEPT_MAX {
                    self.fetches.counts.pop_first();
                }
                self.fetches.counts.insert((file, of), (self.now.mono, count));
            }
        }
        self.fetches.dry_run.take_if(|waits| waits.0 == fetch);
        self.copy_fetched(FetchId(fetch));
        self.fetches.done.push_back(FetchId(fetch));
        self.dirty = true;
    }
}

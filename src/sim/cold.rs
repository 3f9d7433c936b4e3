//! A store of which any read may be cold, by chance: what was fetched is hot for the read that comes then.

use crate::base::{FileId, Prng, Seq};
use crate::engine::StoredPart;
use crate::store::memory::MemoryStore;
use crate::store::{Fits, StoreError, StoreRead, StoreSnapshot, Tried};
use bytes::Bytes;
use std::cell::RefCell;
use std::rc::Rc;

/// The place of a read: an item, or the items behind one.
type Place = (FileId, u32, bool, Bytes);

#[derive(Debug)]
struct State {
    prng: Prng,
    percent: u64,
    fetched: Vec<Place>,
}

/// The store of a node, as its engine reads it.
#[derive(Clone, Debug)]
pub(super) struct ColdStore {
    store: MemoryStore,
    state: Rc<RefCell<State>>,
}

impl ColdStore {
    /// So many of 100 reads are cold.
    pub(super) fn new(store: MemoryStore, percent: u64, seed: u64) -> Self {
        let state = State { prng: Prng::new(seed), percent, fetched: Vec::new() };
        Self { store, state: Rc::new(RefCell::new(state)) }
    }

    /// A fetch is done. What was fetched may be gone again before it is read.
    pub(super) fn fetched(&self, file: FileId, generation: u32, part: &StoredPart) {
        let state = &mut *self.state.borrow_mut();
        if !state.prng.percent(90) {
            return;
        }
        state.fetched.push(match part {
            StoredPart::Item(id) => (file, generation, false, id.clone()),
            StoredPart::Items { after, .. } => (file, generation, true, after.clone().unwrap_or_default()),
            StoredPart::Count(_) => return,
        });
    }

    fn is_cold(&self, place: &Place) -> bool {
        let state = &mut *self.state.borrow_mut();
        if let Some(at) = state.fetched.iter().position(|fetched| fetched == place) {
            state.fetched.swap_remove(at);
            return false;
        }
        state.percent > 0 && state.prng.percent(state.percent)
    }
}

impl StoreRead for ColdStore {
    type Snapshot = Self;

    fn snapshot(&self) -> Self {
        self.clone()
    }
}

impl StoreSnapshot for ColdStore {
    fn applied(&self) -> [Seq; 2] {
        self.store.applied()
    }

    fn get(&self, file: FileId, generation: u32, id: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.store.get(file, generation, id)
    }

    fn items_at_most(&self, file: FileId, generation: u32) -> u64 {
        self.store.items_at_most(file, generation)
    }

    fn estimate(&self, file: FileId, generation: u32, fits: Fits) -> Result<u64, StoreError> {
        self.store.estimate(file, generation, fits)
    }

    fn scan(
        &self,
        file: FileId,
        generation: u32,
        after: Option<&[u8]>,
        limit: usize,
        with_values: bool,
    ) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.store.scan(file, generation, after, limit, with_values)
    }

    fn try_get(&self, file: FileId, generation: u32, id: &[u8]) -> Result<Tried<Option<Bytes>>, StoreError> {
        if self.is_cold(&(file, generation, false, Bytes::copy_from_slice(id))) {
            return Ok(Tried::Cold);
        }
        self.get(file, generation, id).map(Tried::Done)
    }

    fn try_scan(
        &self,
        file: FileId,
        generation: u32,
        after: Option<&[u8]>,
        limit: usize,
        with_values: bool,
    ) -> Result<Tried<Vec<(Bytes, Bytes)>>, StoreError> {
        let place = (file, generation, true, Bytes::copy_from_slice(after.unwrap_or_default()));
        if self.is_cold(&place) {
            return Ok(Tried::Cold);
        }
        self.scan(file, generation, after, limit, with_values).map(Tried::Done)
    }
}

//! Reads of the record store that wait for the disk, for the core, which does not.
//!
//! Nothing is brought back: what was read is in the caches of store and operating system then, and the core reads it there.

use super::inbox::Inbox;
use crate::base::FileId;
use crate::base::limits::STORE_READERS;
use crate::engine::{StoreEvent, StoredPart};
use crate::store::StoreRead;
use crate::store::tree_store::StoreReader;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

/// What to read.
#[derive(Debug)]
pub(crate) struct StoreFetch {
    /// Goes back with the answer.
    pub(crate) fetch: u64,
    /// The file.
    pub(crate) file: FileId,
    /// Its generation.
    pub(crate) generation: u32,
    /// What of it.
    pub(crate) part: StoredPart,
}

/// The threads' side: each runs [`StoreReaders::run`].
#[derive(Clone, Debug)]
pub(crate) struct StoreReaders {
    store: StoreReader,
    jobs: Arc<Mutex<Receiver<StoreFetch>>>,
}

impl StoreReaders {
    /// How many threads there should be.
    pub(crate) const THREADS: usize = STORE_READERS;

    /// Readers of a store, and where they get their work from.
    pub(crate) fn new(store: StoreReader) -> (Self, Sender<StoreFetch>) {
        let (work, jobs) = channel();
        (Self { store, jobs: Arc::new(Mutex::new(jobs)) }, work)
    }

    /// Reads until the core is gone.
    pub(crate) fn run(&self, inbox: &Inbox) {
        loop {
            let job = self.jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(StoreFetch { fetch, file, generation, part }) = job else { return };
            let result = part.fetch(&self.store.snapshot(), file, generation);
            if inbox.event(StoreEvent::Fetched { fetch, result }).is_err() {
                return;
            }
        }
    }
}

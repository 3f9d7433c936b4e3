//! Batches whose entries were put together before they came here.

use super::writer::{Journal, Pending};
use crate::base::Seq;
use crate::format::batch::BatchBuilder;

impl Journal {
    /// Appends entries that were put together elsewhere, as a batch of their own.
    ///
    /// # Durability
    /// As [`Self::append`].
    ///
    /// # Panics
    /// If there is no entry.
    pub fn append_whole(&mut self, entries: BatchBuilder) -> Seq {
        assert!(!entries.is_empty(), "there is something to append");
        let entries = entries.numbered(self.appended.next());
        let last = Seq(entries.first_seq().0 + u64::from(entries.count()) - 1);
        let len = entries.len();
        self.pending.push_back(Pending::Open(entries));
        self.took(last, len);
        last
    }
}

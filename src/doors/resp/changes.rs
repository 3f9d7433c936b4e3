//! The changes of items that commands under way have yet to look at.

use crate::base::limits::CHANGES_MAX;
use crate::doors::{Backend, Change};
use std::collections::VecDeque;

/// The newest changes, numbered. Kept only while a command is under way that has read something.
#[derive(Debug, Default)]
pub(super) struct Changes {
    newest: VecDeque<Change>,
    /// The number of the first of them.
    first: u64,
    /// Commands under way.
    readers: usize,
}

impl Changes {
    /// Whether nobody looks at them.
    pub(super) fn is_idle(&self) -> bool {
        self.readers == 0
    }

    /// A command wants to know of what comes from now on; returns the number of the next.
    pub(super) fn begin<B: Backend>(&mut self, backend: &mut B) -> u64 {
        self.readers += 1;
        backend.want_changes(true);
        self.next()
    }

    /// The number of the next change.
    pub(super) fn next(&self) -> u64 {
        self.first + self.newest.len() as u64
    }

    /// It is over.
    pub(super) fn end(&mut self) {
        self.readers -= 1;
        if self.readers == 0 {
            self.first += self.newest.len() as u64;
            self.newest = VecDeque::new();
        }
    }

    /// One more.
    pub(super) fn push(&mut self, change: Change) {
        if self.readers == 0 {
            return;
        }
        if self.newest.len() >= CHANGES_MAX {
            self.newest.pop_front();
            self.first += 1;
        }
        self.newest.push_back(change);
    }

    /// All from the number on; none if some of them are forgotten.
    pub(super) fn since(&self, number: u64) -> Option<impl Iterator<Item = &Change>> {
        let skip = usize::try_from(number.checked_sub(self.first)?).ok()?;
        Some(self.newest.range(skip.min(self.newest.len())..))
    }
}

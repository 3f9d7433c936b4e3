//! What reads differently than before, for those who watch it.
//!
//! Whatever changes an item is an entry: of this node, when it is put into a journal, or of the peer, when the store
//! shows it. Both are noted where every entry passes, so no change can be made that is not told. What a definition
//! changes is told as the whole file, what a change of the node's role brings as everything.

use super::core::Core;
use crate::base::limits::CHANGES_MAX;
use crate::base::{FileId, JournalKind, Seq};
use crate::doors::{Change, Draft, ItemHash};
use crate::format::entry::{Entry, EntryKind};
use crate::journal::Journal;
use crate::store::StoreRead;
use crate::store::namespace::{Namespace, Outcome};
use foldhash::fast::FixedState;
use std::collections::VecDeque;
use std::hash::BuildHasher;

/// Numbers items.
#[derive(Clone, Debug)]
pub(super) struct ItemHasher(FixedState);

impl ItemHasher {
    /// `seed` differs from process to process.
    pub(super) fn new(seed: u64) -> Self {
        Self(FixedState::with_seed(!seed))
    }

    /// The number of an item.
    pub(super) fn item(&self, file: FileId, id: &[u8]) -> ItemHash {
        ItemHash(self.0.hash_one((file.0, id)))
    }
}

/// Changes that nobody has taken yet.
#[derive(Debug)]
pub(super) struct Changes {
    items: ItemHasher,
    wanted: bool,
    untaken: VecDeque<Change>,
    /// Whether this node served, was readable and a primary when that was last looked at.
    role: [bool; 3],
}

impl Changes {
    /// None so far; `seed` differs from process to process.
    pub(super) fn new(seed: u64) -> Self {
        Self { items: ItemHasher::new(seed), wanted: false, untaken: VecDeque::new(), role: [false; 3] }
    }

    /// The number of an item.
    pub(super) fn item(&self, file: FileId, id: &[u8]) -> ItemHash {
        self.items.item(file, id)
    }

    /// Whether anybody wants to know.
    pub(super) fn is_wanted(&self) -> bool {
        self.wanted
    }

    /// Begins or ends to keep them.
    pub(super) fn want(&mut self, wanted: bool) {
        self.wanted = wanted;
        if !wanted {
            self.untaken.clear();
        }
    }

    /// Notes one.
    pub(super) fn note(&mut self, change: Change) {
        if !self.wanted || self.untaken.front() == Some(&Change::All) {
            return;
        }
        if self.untaken.len() >= CHANGES_MAX || change == Change::All {
            self.untaken.clear();
            self.untaken.push_back(Change::All);
        } else {
            self.untaken.push_back(change);
        }
    }

    /// Notes what entries change.
    pub(super) fn note_entries<'a>(&mut self, entries: impl Iterator<Item = Entry<'a>>) {
        if !self.wanted {
            return;
        }
        for entry in entries {
            match entry.kind {
                EntryKind::Put | EntryKind::Delete => {
                    self.note(Change::Item(self.item(entry.file, entry.id)));
                }
                kind if kind.changes_blocks() => {}
                _ => self.note(Change::File(entry.file)),
            }
        }
    }

    /// Notes what an update of very many items changes.
    fn note_draft(&mut self, draft: &Draft) {
        if draft.len() >= CHANGES_MAX {
            return self.note(Change::All);
        }
        if self.wanted {
            draft.items().iter().for_each(|item| self.note(Change::Item(self.item(item.file, &item.id))));
        }
    }

    /// Notes what a definition changes; of an account, or of the names of others, it may be anything.
    pub(super) fn note_outcome(&mut self, outcome: &Outcome, namespace: &Namespace) {
        outcome.dropped.iter().for_each(|(file, _)| self.note(Change::File(*file)));
        for id in &outcome.records {
            let is_file = namespace.file(*id).is_some();
            self.note(if is_file { Change::File(*id) } else { Change::All });
        }
        if !outcome.renamed.is_empty() || outcome.meta {
            self.note(Change::All);
        }
    }

    /// The next one; `role` as it is now.
    pub(super) fn take(&mut self, role: [bool; 3]) -> Option<Change> {
        if std::mem::replace(&mut self.role, role) != role {
            self.note(Change::All);
        }
        self.untaken.pop_front()
    }
}

/// The one way of this node's own entries into a journal.
pub(super) struct Appending<'c> {
    journal: &'c mut Journal,
    changes: &'c mut Changes,
}

impl Appending<'_> {
    /// Appends, and notes what changes by it.
    pub(super) fn append<'a>(self, entries: impl Iterator<Item = Entry<'a>> + Clone) -> Seq {
        self.changes.note_entries(entries.clone());
        self.journal.append(entries)
    }

    /// The same for a whole draft.
    pub(super) fn append_draft(self, draft: &mut Draft) -> Option<Seq> {
        let entries = draft.take_body()?;
        self.changes.note_draft(draft);
        Some(self.journal.append_whole(entries))
    }
}

impl<S: StoreRead> Core<S> {
    /// The end of a journal, for entries of this node.
    pub(super) fn appending(&mut self, journal: JournalKind) -> Appending<'_> {
        Appending { journal: &mut self.journals[journal.index()], changes: &mut self.changes }
    }
}

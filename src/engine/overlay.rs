//! Items as the updates accepted so far leave them, as long as the store has not applied those updates.

use crate::base::{FileId, JournalKind, Seq};
use bytes::Bytes;
use foldhash::fast::FixedState;
use std::collections::HashMap;

/// Keys are short and chosen by clients: a fast hash whose seed they do not know.
type Map<K, V> = HashMap<K, V, FixedState>;

/// An update that the store does not show yet.
#[derive(Clone, Debug)]
pub(super) struct Unapplied {
    pub(super) journal: JournalKind,
    pub(super) seq: Seq,
    /// None: deleted.
    pub(super) value: Option<Bytes>,
}

/// By file, then by item.
#[derive(Debug)]
pub(super) struct Overlay {
    hash: FixedState,
    files: Map<FileId, Map<Box<[u8]>, Unapplied>>,
}

impl Overlay {
    /// Nothing; `seed` differs from process to process.
    pub(super) fn new(seed: u64) -> Self {
        let hash = FixedState::with_seed(seed);
        Self { files: HashMap::with_hasher(hash.clone()), hash }
    }

    pub(super) fn set(&mut self, file: FileId, id: &[u8], update: Unapplied) {
        let hash = &self.hash;
        let items = self.files.entry(file).or_insert_with(|| HashMap::with_hasher(hash.clone()));
        match items.get_mut(id) {
            Some(old) => *old = update,
            None => drop(items.insert(id.into(), update)),
        }
    }

    pub(super) fn get(&self, file: FileId, id: &[u8]) -> Option<&Unapplied> {
        self.files.get(&file)?.get(id)
    }

    /// The store shows everything of `journal` up to `seq`; `file` and `id` were among it.
    pub(super) fn applied(&mut self, journal: JournalKind, seq: Seq, file: FileId, id: &[u8]) {
        let Some(items) = self.files.get_mut(&file) else { return };
        if items.get(id).is_some_and(|item| item.journal == journal && item.seq <= seq) {
            items.remove(id);
            if items.is_empty() && items.capacity() > 4096 {
                self.files.remove(&file);
            }
        }
    }

    /// The file's items are gone, and so are the updates of them.
    pub(super) fn forget(&mut self, file: FileId) {
        self.files.remove(&file);
    }

    /// The unapplied items of a file after `after`, in order.
    pub(super) fn of(&self, file: FileId, after: Option<&[u8]>) -> Vec<(&[u8], &Unapplied)> {
        let Some(items) = self.files.get(&file) else { return Vec::new() };
        let mut found: Vec<_> = items
            .iter()
            .map(|(id, item)| (id.as_ref(), item))
            .filter(|(id, _)| after.is_none_or(|after| *id > after))
            .collect();
        found.sort_unstable_by_key(|(id, _)| *id);
        found
    }
}

//! Watched keys: which clients' transactions an update makes void.

use crate::base::limits::WATCHED_MAX;
use crate::base::{ConnId, FileId};
use std::collections::{BTreeMap, BTreeSet};

/// All watched keys of all clients.
#[derive(Debug, Default)]
pub(super) struct Watches {
    keys: BTreeMap<FileId, BTreeMap<Vec<u8>, Vec<ConnId>>>,
    by_client: BTreeMap<ConnId, Vec<(FileId, Vec<u8>)>>,
    dirty: BTreeSet<ConnId>,
    count: usize,
}

impl Watches {
    /// Whether nobody watches anything: the usual case, so that updates look no further.
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Watches a key for a client. False when too many are watched.
    pub(super) fn watch(&mut self, conn: ConnId, file: FileId, id: &[u8]) -> bool {
        if self.count >= WATCHED_MAX {
            return false;
        }
        let watchers = self.keys.entry(file).or_default().entry(id.to_vec()).or_default();
        if !watchers.contains(&conn) {
            watchers.push(conn);
            self.by_client.entry(conn).or_default().push((file, id.to_vec()));
            self.count += 1;
        }
        true
    }

    /// How many keys a client watches.
    pub(super) fn of(&self, conn: ConnId) -> usize {
        self.by_client.get(&conn).map_or(0, Vec::len)
    }

    /// Whether a key that a client watches was updated.
    pub(super) fn is_dirty(&self, conn: ConnId) -> bool {
        self.dirty.contains(&conn)
    }

    /// Ends a client's watching; returns whether a key it watched was updated.
    pub(super) fn end(&mut self, conn: ConnId) -> bool {
        for (file, id) in self.by_client.remove(&conn).unwrap_or_default() {
            self.count -= 1;
            let Some(keys) = self.keys.get_mut(&file) else { continue };
            if let Some(watchers) = keys.get_mut(&id) {
                watchers.retain(|watcher| *watcher != conn);
                if watchers.is_empty() {
                    keys.remove(&id);
                }
            }
            if keys.is_empty() {
                self.keys.remove(&file);
            }
        }
        self.dirty.remove(&conn)
    }

    /// An item was updated, or with `None` perhaps all of a file.
    pub(super) fn changed(&mut self, file: FileId, id: Option<&[u8]>) {
        let Some(keys) = self.keys.get(&file) else { return };
        match id {
            Some(id) => self.dirty.extend(keys.get(id).into_iter().flatten()),
            None => self.dirty.extend(keys.values().flatten()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_voids_the_transactions_of_those_who_watch_that_key_only() {
        let mut watches = Watches::default();
        let (a, b) = (ConnId(1), ConnId(2));
        assert!(watches.watch(a, FileId(4), b"x") && watches.watch(a, FileId(4), b"x"));
        assert!(watches.watch(b, FileId(4), b"y") && watches.watch(b, FileId(6), b"x"));
        assert_eq!((watches.of(a), watches.of(b)), (1, 2));
        watches.changed(FileId(4), Some(b"x"));
        watches.changed(FileId(6), Some(b"z"));
        assert!(watches.end(a) && !watches.end(a));
        watches.changed(FileId(6), None);
        assert!(watches.end(b));
        assert!(watches.is_empty() && watches.keys.is_empty() && watches.dirty.is_empty());
    }
}

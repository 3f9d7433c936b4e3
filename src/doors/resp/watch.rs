//! Watched keys: which clients' transactions a change makes void.

use super::FastHash;
use crate::base::limits::WATCHED_MAX;
use crate::base::{ConnId, FileId};
use crate::doors::{Change, ItemHash};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// All watched keys of all clients.
#[derive(Debug, Default)]
pub(super) struct Watches {
    keys: HashMap<ItemHash, Vec<ConnId>, FastHash>,
    by_client: BTreeMap<ConnId, Vec<(FileId, ItemHash)>>,
    dirty: BTreeSet<ConnId>,
    count: usize,
}

impl Watches {
    /// Whether nobody watches anything: the usual case, so that nobody needs to know of changes.
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Watches a key for a client. False when too many are watched.
    pub(super) fn watch(&mut self, conn: ConnId, file: FileId, item: ItemHash) -> bool {
        if self.count >= WATCHED_MAX {
            return false;
        }
        let watchers = self.keys.entry(item).or_default();
        if !watchers.contains(&conn) {
            watchers.push(conn);
            self.by_client.entry(conn).or_default().push((file, item));
            self.count += 1;
        }
        true
    }

    /// How many keys a client watches.
    pub(super) fn of(&self, conn: ConnId) -> usize {
        self.by_client.get(&conn).map_or(0, Vec::len)
    }

    /// Whether a key that a client watches was changed.
    pub(super) fn is_dirty(&self, conn: ConnId) -> bool {
        self.dirty.contains(&conn)
    }

    /// Ends a client's watching; returns whether a key it watched was changed.
    pub(super) fn end(&mut self, conn: ConnId) -> bool {
        for (_, item) in self.by_client.remove(&conn).unwrap_or_default() {
            self.count -= 1;
            if let Some(watchers) = self.keys.get_mut(&item) {
                watchers.retain(|watcher| *watcher != conn);
                if watchers.is_empty() {
                    self.keys.remove(&item);
                }
            }
        }
        if self.keys.is_empty() {
            self.keys.shrink_to_fit();
        }
        self.dirty.remove(&conn)
    }

    /// Something was changed.
    pub(super) fn changed(&mut self, change: Change) {
        match change {
            Change::Item(item) => self.dirty.extend(self.keys.get(&item).into_iter().flatten()),
            Change::File(file) => {
                let watch = |keys: &[(FileId, ItemHash)]| keys.iter().any(|(of, _)| *of == file);
                self.dirty
                    .extend(self.by_client.iter().filter(|(_, keys)| watch(keys)).map(|(conn, _)| *conn));
            }
            Change::All => self.dirty.extend(self.by_client.keys()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_voids_the_transactions_of_those_who_watch_that_key_only() {
        let mut watches = Watches::default();
        let (a, b, c) = (ConnId(1), ConnId(2), ConnId(3));
        let item = ItemHash;
        assert!(watches.watch(a, FileId(4), item(1)) && watches.watch(a, FileId(4), item(1)));
        assert!(watches.watch(b, FileId(4), item(2)) && watches.watch(b, FileId(6), item(3)));
        assert_eq!((watches.of(a), watches.of(b)), (1, 2));
        watches.changed(Change::Item(item(1)));
        watches.changed(Change::Item(item(4)));
        assert!(watches.end(a) && !watches.end(a));
        watches.changed(Change::File(FileId(8)));
        assert!(watches.dirty.is_empty());
        watches.changed(Change::File(FileId(6)));
        assert!(watches.end(b));
        assert!(watches.watch(c, FileId(4), item(1)));
        watches.changed(Change::All);
        assert!(watches.end(c));
        assert!(watches.is_empty() && watches.keys.is_empty() && watches.dirty.is_empty());
    }
}

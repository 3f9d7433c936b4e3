//! Definitions for tests.

use super::{Change, Namespace, NewFile};
use crate::base::{FileId, Ordinal};
use crate::format::dptr::{DptrKind, Flags};

/// Carries out a change.
pub(super) fn make(ns: &mut Namespace, node: Ordinal, change: Change) {
    for entry in &change.entries {
        ns.apply(node, change.journal, &entry.entry()).unwrap();
    }
}

/// Makes a record file, and its account if that is not there.
pub(super) fn file(ns: &mut Namespace, node: Ordinal, key: &str, flags: &str) -> FileId {
    let (account, name) = key.split_once(',').unwrap();
    if ns.account_id(account).is_none() {
        let change = ns.create_account(account, Flags::NONE, node).unwrap();
        make(ns, node, change);
    }
    let flags = Flags::parse(flags);
    let new = NewFile { account, name, kind: DptrKind::Records, flags, blocks: 0, ack: None };
    let change = ns.create_file(&new, node).unwrap();
    make(ns, node, change);
    ns.resolve(key.as_bytes()).unwrap()
}

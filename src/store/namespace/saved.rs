//! What a save of what is replicated alone holds of files that a node has alone, as every set of versions 1 and 2 does, and what
//! a restore makes of that. No items: of files flagged T or Y there is the definition, of files flagged X nothing, as on D3. A
//! file without a flag, which only the pair's mode keeps from being replicated, is left out too: by its definition a pair that
//! logs everything would replicate it. What a save of everything holds is told in `alone.rs`.

use super::build::{NewEntry, NewFile};
use super::{Change, FileInfo, Namespace, SYSTEM_ACCOUNT};
use crate::base::{FileId, JournalKind, Ordinal};
use crate::format::chunk::Definitions;
use crate::format::dptr::Flags;
use std::collections::BTreeSet;

/// Whether such a save holds the definition of a file, and not what it holds.
fn is_defined_alone(info: &FileInfo) -> bool {
    !info.replicated && !info.dptr.flags.has(Flags::X) && info.dptr.flags.has(Flags::T.with(Flags::Y))
}

impl Namespace {
    /// The files of which such a save holds the definition alone, in order of id.
    pub fn defined_alone(&self) -> impl Iterator<Item = (FileId, &FileInfo)> {
        self.files().filter(|(_, info)| is_defined_alone(info))
    }

    /// The definitions that such a save holds, and the names of the files that are left out of it.
    #[must_use]
    pub fn saved(&self) -> (Definitions, Vec<String>) {
        let is_held = |info: &FileInfo| info.replicated || is_defined_alone(info);
        let held: BTreeSet<FileId> =
            self.files().filter(|(_, info)| is_held(info)).map(|(id, _)| id).collect();
        let of_held = |id| self.files_of(id).any(|(file, _)| held.contains(&file));
        let accounts = self.accounts().map(|(id, _)| id);
        let accounts =
            accounts.filter(|id| self.account_is_replicated(*id) || of_held(*id) || *id == SYSTEM_ACCOUNT);
        let ids: BTreeSet<FileId> = accounts.chain(held.iter().copied()).collect();
        let left_out = self.files().filter(|(_, info)| !is_held(info)).map(|(_, info)| info.key.clone());
        (self.only(ids), left_out.collect())
    }

    /// The entries that define here, on `node`, what `saved` has alone, empty and under numbers of this node's own: its own
    /// numbers may still be in use over there. What is here already, by number or by name, stays.
    #[must_use]
    pub fn define_alone(&self, saved: &Self, node: Ordinal) -> Vec<NewEntry> {
        let (mut this, mut entries) = (self.clone(), Vec::new());
        for (id, info) in saved.defined_alone() {
            let Some(account) = saved.account(info.dptr.account) else { continue };
            if this.file(id).is_some() {
                continue;
            }
            if this.account_id(&account.name).is_none() {
                let made = this.create_account(&account.name, account.dptr.flags, node).ok();
                this.make_alone(made, node, &mut entries);
            }
            let new = NewFile {
                account: &account.name,
                name: &info.dptr.name,
                kind: info.dptr.kind,
                flags: Some(info.dptr.flags),
                blocks: info.dptr.blocks,
                ack: info.dptr.ack,
            };
            let made = this.create_file(&new, node).ok();
            this.make_alone(made, node, &mut entries);
        }
        entries
    }

    fn make_alone(&mut self, change: Option<Change>, node: Ordinal, entries: &mut Vec<NewEntry>) {
        let Some(change) = change.filter(|change| change.journal == JournalKind::Local) else { return };
        for entry in change.entries {
            if self.apply(node, JournalKind::Local, &entry.entry()).is_ok() {
                entries.push(entry);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testkit::{file, make};
    use super::*;

    const A: Ordinal = Ordinal(0);
    const B: Ordinal = Ordinal(1);

    fn account(ns: &mut Namespace, node: Ordinal, name: &str, flags: &str) {
        let change = ns.create_account(name, Flags::parse(flags).unwrap(), node).unwrap();
        make(ns, node, change);
    }

    fn node() -> Namespace {
        let mut ns = Namespace::new();
        account(&mut ns, A, "app", "L");
        account(&mut ns, A, "own", "");
        account(&mut ns, A, "secret", "X");
        for (key, flags) in [
            ("app,orders", "L"),
            ("app,scratch", "T"),
            ("app,views", "Y"),
            ("app,never", "X"),
            ("app,both", "XT"),
            ("app,plain", ""),
            ("own,list", "T"),
            ("secret,keys", "X"),
            ("dm,work", "T"),
        ] {
            file(&mut ns, A, key, flags);
        }
        ns
    }

    fn keys<'a>(files: impl Iterator<Item = (FileId, &'a FileInfo)>) -> Vec<&'a str> {
        files.map(|(_, info)| info.key.as_str()).collect()
    }

    #[test]
    fn a_save_has_definitions_of_all_that_is_replicated_or_flagged_t_or_y_and_nothing_of_x() {
        let node = node();
        let (definitions, left_out) = node.saved();
        assert_eq!(left_out, ["app,never", "app,both", "app,plain", "secret,keys"]);
        let saved = Namespace::of(&definitions).unwrap();
        let alone = ["app,scratch", "app,views", "own,list", "dm,work"];
        assert_eq!(keys(saved.files()), [&["app,orders"][..], &alone].concat());
        assert_eq!(keys(saved.defined_alone()), alone);
        assert_eq!((saved.account_id("secret"), saved.high_water()), (None, node.high_water()));
    }

    #[test]
    fn what_is_defined_alone_comes_back_empty_under_numbers_of_its_new_node() {
        let (definitions, _) = node().saved();
        let saved = Namespace::of(&definitions).unwrap();
        let mut here = Namespace::new();
        here.adopt(&definitions, None).unwrap();
        assert_eq!(keys(here.files()), ["app,orders"]);
        let entries = here.define_alone(&saved, B);
        let before = here.high_water();
        for entry in &entries {
            here.apply(B, JournalKind::Local, &entry.entry()).unwrap();
        }
        assert_eq!(keys(here.defined_alone()), ["app,scratch", "app,views", "own,list", "dm,work"]);
        for (id, info) in here.defined_alone() {
            assert!(id > before && id.0 & 1 == 1 && !info.replicated, "{id}");
            let there = saved.resolve(info.key.as_bytes()).and_then(|id| saved.file(id)).unwrap();
            assert_eq!((info.dptr.flags, info.dptr.kind), (there.dptr.flags, there.dptr.kind));
        }
        assert!(here.define_alone(&saved, B).is_empty(), "what is there stays");
        // A file of that number is the same one: it was replicated when the save began, and is not any more.
        let mut followed = Namespace::of(&definitions).unwrap();
        let scratch = followed.resolve(b"app,scratch").unwrap();
        let change = followed.delete_file(followed.resolve(b"own,list").unwrap()).unwrap();
        make(&mut followed, A, change);
        let again = followed.define_alone(&saved, B);
        assert_eq!(again.len(), 1);
        assert!(followed.file(scratch).is_some());
    }
}

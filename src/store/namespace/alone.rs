//! What a save holds of files that a node has alone, with their content, and how a node that is restored comes to have them.
//! Files flagged X are in no save, of those flagged Y there is the definition.

use super::{FileInfo, Namespace, NamespaceError, Outcome, SYSTEM_ACCOUNT};
use crate::base::limits::RESTORED_IDS_AHEAD;
use crate::base::{FileId, Ordinal};
use crate::format::chunk::Definitions;
use crate::format::dptr::{Dptr, FileState, Flags};
use std::collections::{BTreeMap, BTreeSet};

/// Whether a save of its node holds the content of a file that this node has alone.
#[must_use]
pub fn has_content(info: &FileInfo) -> bool {
    !info.replicated && !info.dptr.flags.has(Flags::X.with(Flags::Y))
}

fn is_defined(info: &FileInfo) -> bool {
    !info.replicated && !info.dptr.flags.has(Flags::X)
}

impl Namespace {
    /// The definitions of all that is replicated.
    #[must_use]
    pub fn shared(&self) -> Definitions {
        let accounts = self.accounts().map(|(id, _)| id);
        let accounts = accounts.filter(|id| self.account_is_replicated(*id) || *id == SYSTEM_ACCOUNT);
        let files = self.files().filter(|(_, info)| info.replicated).map(|(id, _)| id);
        self.only(accounts.chain(files).collect())
    }

    /// The definitions that a save holds of what this node has alone, of one account if it is named, with the accounts that
    /// hold it; and the names of the files that are left out.
    #[must_use]
    pub fn alone(&self, account: &str) -> (Definitions, Vec<String>) {
        let account = (!account.is_empty()).then(|| self.account_id(account).unwrap_or(FileId(0)));
        let chosen = |info: &FileInfo| account.is_none_or(|account| account == info.dptr.account);
        let own = || self.files().filter(|(_, info)| !info.replicated && chosen(info));
        let held = own().filter(|(_, info)| is_defined(info));
        let ids: BTreeSet<FileId> = held.flat_map(|(id, info)| [id, info.dptr.account]).collect();
        let left_out = own().filter(|(_, info)| !is_defined(info)).map(|(_, info)| info.key.clone());
        (self.only(ids), left_out.collect())
    }

    /// Replaces all that this node has alone by what [`Self::alone`] gave of another one, under numbers of this node's own: its
    /// own may still be in use over there. They are far ahead of those that either node gave, as the pair may have given more
    /// since. What is here by its number, because it was replicated before, keeps that. `ids` tells which number became which
    /// one; those that it knows are used again. What such a file holds stays if content of it comes.
    ///
    /// # Errors
    /// [`NamespaceError::Decode`]; nothing was changed then.
    pub fn adopt_alone(
        &mut self,
        definitions: &Definitions,
        ids: &mut BTreeMap<FileId, FileId>,
        node: Ordinal,
    ) -> Result<Outcome, NamespaceError> {
        let theirs = Self::of(definitions)?;
        let base = Self::of(&self.shared())?;
        let mut all: BTreeMap<FileId, Dptr> =
            base.accounts().map(|(id, info)| (id, info.dptr.clone())).collect();
        all.extend(base.files().map(|(id, info)| (id, info.dptr.clone())));
        let mut like = self.clone();
        let mut number = |id: FileId, is_here: bool, ids: &mut BTreeMap<FileId, FileId>| {
            let known = if is_here { Some(id) } else { ids.get(&id).copied() };
            let number = known.unwrap_or_else(|| {
                if like.high_water == self.high_water {
                    like.high_water = FileId(self.high_water.max(theirs.high_water).0 + RESTORED_IDS_AHEAD);
                }
                like.high_water = like.next_id(node);
                like.high_water
            });
            ids.insert(id, number);
            number
        };
        let mut accounts = BTreeMap::new();
        for (id, info) in theirs.accounts().filter(|(id, _)| theirs.files_of(*id).next().is_some()) {
            let named = || base.account_id(&info.dptr.name);
            let shared = base.account(id).map(|_| id).or_else(named);
            let here = shared.unwrap_or_else(|| number(id, self.account(id).is_some(), ids));
            if shared.is_none() {
                all.insert(here, info.dptr.clone());
            }
            accounts.insert(id, here);
        }
        for (id, info) in theirs.files().filter(|(_, info)| is_defined(info)) {
            let Some(account) = accounts.get(&info.dptr.account).copied() else { continue };
            let here = number(id, self.file(id).is_some_and(|own| !own.replicated), ids);
            let generation = match self.file(here).map(|own| &own.dptr) {
                Some(own) if own.kind == info.dptr.kind && has_content(info) => own.generation,
                Some(own) => own.generation.wrapping_add(1),
                None => 0,
            };
            all.insert(here, Dptr { account, generation, state: FileState::Whole, ..info.dptr.clone() });
        }
        let meta = like.meta();
        self.become_of(&meta, &all)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testkit::{file, make};
    use super::*;
    use crate::base::JournalKind;

    const A: Ordinal = Ordinal(0);
    const B: Ordinal = Ordinal(1);

    /// A replicated file, and one of each kind that a node has alone.
    fn node() -> Namespace {
        let mut ns = Namespace::new();
        for (key, flags) in [
            ("app,orders", "L"),
            ("app,scratch", "T"),
            ("app,views", "Y"),
            ("app,never", "X"),
            ("app,plain", ""),
            ("own,list", "T"),
            ("dm,work", ""),
        ] {
            file(&mut ns, A, key, flags);
        }
        ns
    }

    fn names(ns: &Namespace) -> Vec<&str> {
        ns.files().map(|(_, info)| info.key.as_str()).collect()
    }

    #[test]
    fn a_save_holds_content_of_all_that_a_node_has_alone_but_of_x_and_y() {
        let node = node();
        assert_eq!(names(&Namespace::of(&node.shared()).unwrap()), ["app,orders"]);
        let (alone, left_out) = node.alone("");
        let alone = Namespace::of(&alone).unwrap();
        assert_eq!(names(&alone), ["app,scratch", "app,views", "app,plain", "own,list", "dm,work"]);
        assert_eq!(left_out, ["app,never"]);
        let content = alone.files().filter(|(_, info)| has_content(info)).map(|(_, info)| info.key.as_str());
        assert_eq!(content.collect::<Vec<_>>(), ["app,scratch", "app,plain", "own,list", "dm,work"]);
        let (of_one, left_out) = node.alone("own");
        assert_eq!((names(&Namespace::of(&of_one).unwrap()), left_out.len()), (vec!["own,list"], 0));
        assert_eq!(node.alone("none"), (Definitions { records: Vec::new(), ..of_one }, Vec::new()));
    }

    #[test]
    fn what_another_node_had_alone_comes_under_numbers_far_ahead_and_a_later_set_finds_them_again() {
        let mut there = node();
        let mut here = Namespace::new();
        here.adopt(&there.shared(), None).unwrap();
        let (mut ids, before) = (BTreeMap::new(), here.high_water().max(there.high_water()));
        let out = here.adopt_alone(&there.alone("").0, &mut ids, B).unwrap();
        assert!(out.dropped.is_empty() && out.meta);
        assert_eq!(
            names(&here),
            ["app,orders", "app,scratch", "app,views", "app,plain", "own,list", "dm,work"]
        );
        let number = |ns: &Namespace, name: &str| ns.resolve(name.as_bytes()).unwrap();
        for name in ["app,scratch", "own,list", "dm,work"] {
            let id = number(&here, name);
            assert!(id.0 > before.0 + RESTORED_IDS_AHEAD && id.0 & 1 == 1, "{name} is {id}");
            assert_eq!(ids[&number(&there, name)], id);
            assert!(!here.file(id).unwrap().replicated);
        }
        assert!(here.next_id(B) > number(&here, "dm,work"));
        // What is replicated there and here has one number.
        assert_eq!(number(&here, "app,orders"), number(&there, "app,orders"));
        // A later set: one is renamed, one is gone, one is new.
        let (list, scratch) = (number(&there, "own,list"), number(&there, "app,scratch"));
        let change = there.rename_file(list, "lines").unwrap();
        make(&mut there, A, change);
        let change = there.delete_file(scratch).unwrap();
        make(&mut there, A, change);
        file(&mut there, A, "own,more", "T");
        let (was, gone) = (number(&here, "own,list"), number(&here, "app,scratch"));
        let views = number(&here, "app,views");
        let out = here.adopt_alone(&there.alone("").0, &mut ids, B).unwrap();
        assert_eq!(number(&here, "own,lines"), was);
        assert_eq!(here.file(was).unwrap().dptr.generation, 0, "what it holds stays");
        assert_eq!(out.dropped, [(gone, 0), (views, 0)], "of Y nothing is held");
        assert!(here.resolve(b"own,more").is_some() && here.resolve(b"app,scratch").is_none());
    }

    #[test]
    fn a_file_that_was_replicated_before_keeps_its_number_and_a_name_that_is_taken_is_no_reason_to_lose_one()
    {
        let mut there = node();
        let mut here = Namespace::new();
        here.adopt(&there.shared(), None).unwrap();
        let orders = there.resolve(b"app,orders").unwrap();
        let change = there.change_file_flags(orders, Flags::T, Flags::L).unwrap();
        make(&mut here, A, change.clone());
        make(&mut there, A, change);
        // The pair has a file now that is called as one that the node has alone.
        file(&mut here, A, "app,scratch", "L");
        let mut ids = BTreeMap::new();
        here.adopt_alone(&there.alone("").0, &mut ids, B).unwrap();
        assert_eq!(here.resolve(b"app,orders"), Some(orders));
        let scratch = ids[&there.resolve(b"app,scratch").unwrap()];
        assert_eq!(here.file(scratch).unwrap().key, format!("app,scratch.local-{scratch}"));
        // Nothing of a set before stays.
        let empty = Namespace::new().alone("").0;
        let out = here.adopt_alone(&empty, &mut BTreeMap::new(), B).unwrap();
        assert!(out.dropped.contains(&(orders, 0)) && out.dropped.contains(&(scratch, 0)));
        assert_eq!(names(&here), ["app,scratch"]);
        let journal = here.file(here.resolve(b"app,scratch").unwrap()).unwrap().journal;
        assert_eq!(journal, JournalKind::Replicated);
        let bad = Definitions { meta: bytes::Bytes::from_static(b"no record"), records: Vec::new() };
        assert!(here.adopt_alone(&bad, &mut BTreeMap::new(), B).is_err());
    }
}

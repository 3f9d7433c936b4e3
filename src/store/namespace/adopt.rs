//! Another node's replicated definitions in the place of this node's own.

use super::{AccountInfo, FileInfo, META_VERSION, Namespace, NamespaceError, Outcome, SYSTEM_ACCOUNT};
use crate::base::FileId;
use crate::format::Writer;
use crate::format::chunk::Definitions;
use crate::format::dptr::{Dptr, FileState};
use crate::format::rewind::Ranges;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

impl Namespace {
    /// Everything, in the form in which a copy begins with it.
    #[must_use]
    pub fn definitions(&self) -> Definitions {
        self.only(self.accounts.keys().chain(self.files.keys()).copied().collect())
    }

    /// The same, of these accounts and files.
    pub(super) fn only(&self, ids: BTreeSet<FileId>) -> Definitions {
        let records = ids.into_iter().filter_map(|id| Some((id, Bytes::from(self.record(id)?)))).collect();
        Definitions { meta: self.meta().into(), records }
    }

    /// Replaces what is replicated by what is replicated in `definitions`. What belongs to this node alone stays: its local
    /// accounts and files, and whether its logging is paused. All items of files that were replicated are dropped, and a
    /// file that is defined in both begins a new generation; but in a rewind, what files hold stays unless all of them counts
    /// in `ranges`.
    ///
    /// # Errors
    /// [`NamespaceError::Decode`]; nothing was changed then.
    pub fn adopt(
        &mut self,
        definitions: &Definitions,
        ranges: Option<&Ranges>,
    ) -> Result<Outcome, NamespaceError> {
        let theirs = Self::of(definitions)?;
        let is_ours = |(id, _): &(FileId, &AccountInfo)| {
            !theirs.account_is_replicated(*id)
                && (!self.account_is_replicated(*id) || self.files_of(*id).any(|(_, file)| !file.replicated))
        };
        let mut all: BTreeMap<FileId, Dptr> = BTreeMap::new();
        all.extend(self.accounts().filter(is_ours).map(|(id, info)| (id, info.dptr.clone())));
        let own = |(_, info): &(FileId, &FileInfo)| !info.replicated;
        all.extend(self.files().filter(own).map(|(id, info)| (id, info.dptr.clone())));
        let accounts = theirs.accounts().filter(|(id, _)| theirs.account_is_replicated(*id));
        all.extend(accounts.map(|(id, info)| (id, info.dptr.clone())));
        for (id, info) in theirs.files().filter(|(_, info)| info.replicated) {
            let stays = ranges.is_some_and(|ranges| !ranges.is_whole(id));
            let generation = match self.file(id) {
                Some(old) if stays => old.dptr.generation,
                Some(old) => old.dptr.generation.wrapping_add(1),
                None => 0,
            };
            // What is stale there is copied once logging resumes there.
            let state = if info.dptr.state == FileState::Stale { FileState::Whole } else { info.dptr.state };
            all.insert(id, Dptr { generation, state, ..info.dptr.clone() });
        }
        let meta = self.adopted_meta(&theirs);
        self.become_of(&meta, &all)
    }

    /// Has these definitions from now on, and tells what that changed.
    pub(super) fn become_of(
        &mut self,
        meta: &[u8],
        all: &BTreeMap<FileId, Dptr>,
    ) -> Result<Outcome, NamespaceError> {
        let encoded: Vec<_> = all.iter().map(|(id, dptr)| (*id, dptr.encode())).collect();
        let new = Self::from_records(meta, encoded.iter().map(|(id, record)| (*id, record.as_slice())))?;
        let old = std::mem::replace(self, new);
        let mut out = Outcome { meta: true, ..Outcome::default() };
        for (id, info) in old.files() {
            let stays = self.file(id).is_some_and(|file| file.dptr.generation == info.dptr.generation);
            if !stays {
                out.dropped.push((id, info.dptr.generation));
            }
        }
        let ids = |of: &Self| of.accounts.keys().chain(of.files.keys()).copied().collect::<Vec<_>>();
        out.records = ids(&old).into_iter().chain(ids(self)).collect();
        out.records.sort_unstable();
        out.records.dedup();
        out.records.retain(|id| old.record(*id) != self.record(*id));
        Ok(out)
    }

    /// What [`Self::definitions`] gave.
    ///
    /// # Errors
    /// [`NamespaceError::Decode`].
    pub fn of(definitions: &Definitions) -> Result<Self, NamespaceError> {
        let records = definitions.records.iter().map(|(id, record)| (*id, record.as_ref()));
        Self::from_records(&definitions.meta, records)
    }

    /// The files of `definitions` of which nothing can stay, whatever their entries say: they are not replicated in both, they
    /// are of two kinds, or one of the two holds what no entry of the replicated journal told.
    ///
    /// # Errors
    /// [`NamespaceError::Decode`].
    pub fn apart(&self, definitions: &Definitions) -> Result<Vec<FileId>, NamespaceError> {
        let theirs = Self::of(definitions)?;
        let differs = |(id, info): &(FileId, &FileInfo)| {
            let stays = |own: &&FileInfo| {
                let whole = |info: &FileInfo| info.dptr.state == FileState::Whole;
                own.replicated && own.dptr.kind == info.dptr.kind && whole(own) && whole(info)
            };
            info.replicated && self.file(*id).filter(stays).is_none()
        };
        Ok(theirs.files().filter(differs).map(|(id, _)| id).collect())
    }

    /// The replicated files of `definitions`, each with whether what this node holds of it may be what the other one has.
    ///
    /// # Errors
    /// [`NamespaceError::Decode`].
    pub fn common(&self, definitions: &Definitions) -> Result<Vec<(FileId, bool)>, NamespaceError> {
        let theirs = Self::of(definitions)?;
        let held = |(id, info): (FileId, &FileInfo)| {
            let like = |own: &&FileInfo| {
                let whole = |info: &FileInfo| info.dptr.state == FileState::Whole;
                // A volume may have grown since.
                let like = own.dptr.kind == info.dptr.kind && own.dptr.blocks <= info.dptr.blocks;
                own.replicated && like && whole(own) && whole(info)
            };
            (id, self.file(id).filter(like).is_some())
        };
        Ok(theirs.files().filter(|(_, info)| info.replicated).map(held).collect())
    }

    /// The mode is the pair's, a pause the node's own; no id is ever used again, but an account that only this node deleted
    /// is back.
    fn adopted_meta(&self, theirs: &Self) -> Vec<u8> {
        let gone = self.gone.union(&theirs.gone).copied();
        let gone: Vec<FileId> = gone.filter(|id| theirs.account(*id).is_none()).collect();
        let mut w = Writer::with_capacity(16 + 8 * gone.len());
        let high_water = self.high_water.max(theirs.high_water).max(SYSTEM_ACCOUNT);
        w.u8(META_VERSION).u8(theirs.mode.byte()).u8(u8::from(self.paused)).u64(high_water.0);
        w.u32(u32::try_from(gone.len()).unwrap_or(u32::MAX));
        for id in gone {
            w.u64(id.0);
        }
        w.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::super::testkit::make;
    use super::*;
    use crate::base::{JournalKind, Ordinal};
    use crate::format::dptr::{DptrKind, Flags};
    use crate::store::namespace::NewFile;

    const A: Ordinal = Ordinal(0);
    const B: Ordinal = Ordinal(1);

    fn with(ns: &mut Namespace, node: Ordinal, account: &str, flags: Flags, files: &[&str]) {
        let change = ns.create_account(account, flags, node).unwrap();
        make(ns, node, change);
        for name in files {
            let new =
                NewFile { account, name, kind: DptrKind::Records, flags: Some(flags), blocks: 0, ack: None };
            let change = ns.create_file(&new, node).unwrap();
            make(ns, node, change);
        }
    }

    #[test]
    fn what_is_replicated_there_takes_the_place_of_what_is_replicated_here_and_local_files_stay() {
        let (mut there, mut here) = (Namespace::new(), Namespace::new());
        with(&mut there, A, "app", Flags::L, &["orders", "items"]);
        with(&mut there, A, "own", Flags::NONE, &["notes"]);
        with(&mut here, B, "old", Flags::L, &["gone"]);
        with(&mut here, B, "mine", Flags::NONE, &["list"]);
        let gone = here.resolve(b"old,gone").unwrap();
        let list = here.resolve(b"mine,list").unwrap();
        let out = here.adopt(&there.definitions(), None).unwrap();
        assert_eq!(out.dropped, [(gone, 0)]);
        assert!(out.meta && !out.records.contains(&list));
        for name in [&b"app,orders"[..], b"app,items"] {
            assert_eq!(here.resolve(name), there.resolve(name));
            assert!(here.is_replicated(here.resolve(name).unwrap()));
        }
        assert_eq!((here.resolve(b"old,gone"), here.resolve(b"own,notes")), (None, None));
        assert_eq!((here.account_id("old"), here.resolve(b"mine,list")), (None, Some(list)));
        assert!(here.high_water() >= there.high_water());
        // Once more: what is here already begins a new generation.
        let again = here.adopt(&there.definitions(), None).unwrap();
        assert_eq!(again.dropped.len(), 2);
        let orders = here.resolve(b"app,orders").unwrap();
        assert_eq!(here.file(orders).unwrap().dptr.generation, 1);
        assert_eq!(here.file(orders).unwrap().journal, JournalKind::Replicated);
    }

    #[test]
    fn definitions_that_cannot_be_read_change_nothing() {
        let mut here = Namespace::new();
        with(&mut here, B, "old", Flags::L, &["gone"]);
        let before = here.clone();
        let mut bad = before.definitions();
        bad.records.push((FileId(1 << 40), Bytes::from_static(b"no record")));
        assert!(here.adopt(&bad, None).is_err());
        assert_eq!(here, before);
    }
}

//! Accounts, files and their D-pointers; D3's order of decision.
//!
//! A [`Namespace`] is a value. A node holds two: the sequencer's, which is ahead, and the store's, which is as
//! applied. Both are made by [`Namespace::apply`] from the same entries, but the entries of the two journals may
//! reach them interleaved differently, and differently again after a crash. Therefore:
//!
//! - Invariant: what one journal's entries do commutes with what the other's do, as long as they are about
//!   different accounts and files. Names are the one thing they share, so the name a file goes by is not stored:
//!   each D-pointer holds the name it *wants*, and of those that want the same the replicated one has it, then the
//!   oldest; the others go by `NAME.local-ID` for as long as that lasts.
//! - Entries about the *same* account or file must not cross: a [`build::Change`] with `moves` set needs everything
//!   before it applied and checkpointed first, and itself applied and checkpointed before what it moved changes again.
//!
//! The generation of a file belongs to the node: it grows whenever this node drops the file's items.

mod adopt;
mod alone;
pub mod build;
mod error;
pub mod route;
mod saved;
#[cfg(test)]
mod testkit;

pub use alone::has_content;
pub use build::{Change, NewEntry, NewFile};
pub use error::NamespaceError;
pub use route::{Question, Reason, route};

use crate::base::{AckLevel, FileId, JournalKind, Ordinal};
use crate::format::dptr::{Dptr, DptrKind, FileState, Flags, LoggingMode};
use crate::format::entry::{Entry, EntryKind};
use crate::format::{DecodeError, Reader, Writer};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// The system account `dm`: always there, never replicated unless it is flagged L.
pub const SYSTEM_ACCOUNT: FileId = FileId(1);
/// Its name.
pub const SYSTEM_NAME: &str = "dm";
/// Accounts stand beside files in the index of wanted names, under this in place of an account.
const ROOT: FileId = FileId(0);
const META_VERSION: u8 = 1;
const GONE_MAX: u32 = 1 << 24;

/// An account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountInfo {
    /// Its definition; its name there is the one it wants.
    pub dptr: Dptr,
    /// The name it goes by.
    pub name: String,
    /// How many of its files are replicated.
    replicated_files: u64,
}

/// A file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileInfo {
    /// Its definition; its name there is the one it wants.
    pub dptr: Dptr,
    /// The name it goes by in its account.
    pub name: String,
    /// `account,file`, by which it is found. Empty while its account is not known here (yet).
    pub key: String,
    /// The journal that carries updates of its content now.
    pub journal: JournalKind,
    /// Whether the peer has a copy of it: as `journal`, but a pause of logging does not count.
    pub replicated: bool,
}

impl FileInfo {
    /// Whether an update now would be missed by the standby without anything telling so: the file has to be marked
    /// [`FileState::Stale`] first.
    #[must_use]
    pub fn needs_stale_mark(&self) -> bool {
        self.replicated && self.journal == JournalKind::Local && self.dptr.state != FileState::Stale
    }

    /// Whether its content has to be copied to the peer (by a primary).
    #[must_use]
    pub fn copy_is_due(&self) -> bool {
        self.journal == JournalKind::Replicated && self.dptr.state != FileState::Whole
    }
}

/// An account or file goes by another name, although nobody renamed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renamed {
    /// Which.
    pub id: FileId,
    /// Account or file.
    pub kind: DptrKind,
    /// What it went by (the name it wanted, if it is new).
    pub from: String,
    /// What it goes by.
    pub to: String,
}

/// What an entry did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Names that gave way to another's, or came back.
    pub renamed: Vec<Renamed>,
    /// Files whose updates go to the other journal from now on.
    pub moved: Vec<FileId>,
    /// Items that are gone: file and generation.
    pub dropped: Vec<(FileId, u32)>,
    /// Records ([`Namespace::record`]) that were made, changed or deleted.
    pub records: Vec<FileId>,
    /// Whether [`Namespace::meta`] changed.
    pub meta: bool,
    /// The entry is about an account or file that is not here; nothing was done.
    pub ignored: bool,
}

/// Every account and file of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    accounts: BTreeMap<FileId, AccountInfo>,
    files: BTreeMap<FileId, FileInfo>,
    by_key: HashMap<Vec<u8>, FileId>,
    by_account: HashMap<String, FileId>,
    members: BTreeMap<FileId, BTreeSet<FileId>>,
    wanted: BTreeMap<(FileId, String), BTreeSet<FileId>>,
    /// Deleted accounts: what the other journal still says of them comes too late.
    gone: BTreeSet<FileId>,
    mode: LoggingMode,
    paused: bool,
    high_water: FileId,
}

impl Default for Namespace {
    fn default() -> Self {
        Self::new()
    }
}

impl Namespace {
    /// An empty database: the system account only.
    #[must_use]
    pub fn new() -> Self {
        let mut this = Self {
            accounts: BTreeMap::new(),
            files: BTreeMap::new(),
            by_key: HashMap::new(),
            by_account: HashMap::new(),
            members: BTreeMap::new(),
            wanted: BTreeMap::new(),
            gone: BTreeSet::new(),
            mode: LoggingMode::DlOnly,
            paused: false,
            high_water: SYSTEM_ACCOUNT,
        };
        let dptr = account_dptr(SYSTEM_NAME, Flags::NONE);
        this.insert_account(SYSTEM_ACCOUNT, dptr, &mut Outcome::default());
        this
    }

    /// The file that goes by `account,file`.
    #[must_use]
    pub fn resolve(&self, account_and_file: &[u8]) -> Option<FileId> {
        self.by_key.get(account_and_file).copied()
    }

    /// A file.
    #[must_use]
    pub fn file(&self, id: FileId) -> Option<&FileInfo> {
        self.files.get(&id)
    }

    /// Whether the peer has a copy of the file; unknown files have none.
    #[must_use]
    pub fn is_replicated(&self, id: FileId) -> bool {
        self.files.get(&id).is_some_and(|file| file.replicated)
    }

    /// An account.
    #[must_use]
    pub fn account(&self, id: FileId) -> Option<&AccountInfo> {
        self.accounts.get(&id)
    }

    /// The account that goes by `name`.
    #[must_use]
    pub fn account_id(&self, name: &str) -> Option<FileId> {
        self.by_account.get(name).copied()
    }

    /// Whether the peer has the account: it is flagged L or holds a replicated file.
    #[must_use]
    pub fn account_is_replicated(&self, id: FileId) -> bool {
        self.accounts.get(&id).is_some_and(account_is_replicated)
    }

    /// All accounts, in order of id.
    pub fn accounts(&self) -> impl Iterator<Item = (FileId, &AccountInfo)> {
        self.accounts.iter().map(|(id, info)| (*id, info))
    }

    /// All files, in order of id.
    pub fn files(&self) -> impl Iterator<Item = (FileId, &FileInfo)> {
        self.files.iter().map(|(id, info)| (*id, info))
    }

    /// Those from this id on.
    pub fn files_from(&self, from: FileId) -> impl Iterator<Item = (FileId, &FileInfo)> {
        self.files.range(from..).map(|(id, info)| (*id, info))
    }

    /// The files of an account, in order of id.
    pub fn files_of(&self, account: FileId) -> impl Iterator<Item = (FileId, &FileInfo)> {
        let members = self.members.get(&account).into_iter().flatten();
        members.filter_map(|id| self.files.get(id).map(|info| (*id, info)))
    }

    /// Files whose content a primary has to copy to its peer, in order of id.
    pub fn copies_due(&self) -> impl Iterator<Item = FileId> {
        self.files.iter().filter(|(_, info)| info.copy_is_due()).map(|(id, _)| *id)
    }

    /// The logging mode now.
    #[must_use]
    pub fn mode(&self) -> LoggingMode {
        if self.paused { LoggingMode::Paused } else { self.mode }
    }

    /// The logging mode, or, when logging is paused, the one it resumes in.
    #[must_use]
    pub fn mode_unpaused(&self) -> LoggingMode {
        self.mode
    }

    /// The highest id ever seen.
    #[must_use]
    pub fn high_water(&self) -> FileId {
        self.high_water
    }

    /// The ack level for updates of a file, if it has its own.
    #[must_use]
    pub fn ack(&self, id: FileId) -> Option<AckLevel> {
        self.files.get(&id).and_then(|file| file.dptr.ack)
    }

    /// Carries out an entry of `journal` on `node`. Items are not its business: puts and deletes do nothing.
    ///
    /// # Errors
    /// [`NamespaceError::Decode`] or [`NamespaceError::WrongKind`] when the entry's value is not what its kind
    /// needs; nothing was changed then.
    pub fn apply(
        &mut self,
        node: Ordinal,
        journal: JournalKind,
        entry: &Entry<'_>,
    ) -> Result<Outcome, NamespaceError> {
        let mut out = Outcome::default();
        let id = entry.file;
        match entry.kind {
            EntryKind::AccountCreate => self.create_account_entry(id, entry.value, &mut out)?,
            EntryKind::AccountDelete => self.delete_account_entry(id, &mut out),
            EntryKind::AccountChange => self.change_account_entry(id, entry.value, &mut out)?,
            EntryKind::FileCreate => self.create_file_entry(id, entry.value, &mut out)?,
            EntryKind::FileDelete => self.remove_file(id, &mut out),
            EntryKind::FileClear => {
                let state = file_value(entry)?.state;
                self.edit(id, &mut out, |dptr, dropped| {
                    drop_items(id, dptr, dropped);
                    dptr.state = state;
                });
            }
            EntryKind::FileChange => {
                let new = file_value(entry)?;
                self.change_file_entry(id, new, &mut out);
            }
            EntryKind::CopyBegin => {
                let copies = Ordinal(byte_value("copy begin", entry.value)?);
                self.edit(id, &mut out, |dptr, dropped| {
                    dptr.state = FileState::Copying;
                    if copies != node {
                        drop_items(id, dptr, dropped);
                    }
                });
            }
            EntryKind::CopyEnd => self.edit(id, &mut out, |dptr, _| dptr.state = FileState::Whole),
            EntryKind::Logging => self.logging_entry(journal, entry.value, &mut out)?,
            EntryKind::Put | EntryKind::Delete | EntryKind::EpochStart => {}
            EntryKind::BlockWrite | EntryKind::BlockPunch | EntryKind::BlockZero => {}
        }
        Ok(out)
    }

    /// The D-pointer of an account or file as the store keeps it; none if there is no such id.
    #[must_use]
    pub fn record(&self, id: FileId) -> Option<Vec<u8>> {
        let file = self.files.get(&id).map(|info| &info.dptr);
        file.or_else(|| self.accounts.get(&id).map(|info| &info.dptr)).map(Dptr::encode)
    }

    /// Everything but the D-pointers, as the store keeps it: version u8, mode u8, paused u8, high-water u64, number of
    /// deleted accounts u32, their ids u64 each.
    #[must_use]
    pub fn meta(&self) -> Vec<u8> {
        let mut w = Writer::with_capacity(16 + 8 * self.gone.len());
        w.u8(META_VERSION).u8(self.mode.byte()).u8(u8::from(self.paused)).u64(self.high_water.0);
        w.u32(u32::try_from(self.gone.len()).unwrap_or(GONE_MAX));
        for id in &self.gone {
            w.u64(id.0);
        }
        w.into_bytes()
    }

    /// Puts together what [`Self::meta`] and [`Self::record`] gave; the order of the records does not matter.
    ///
    /// # Errors
    /// [`NamespaceError::Decode`].
    pub fn from_records<'a>(
        meta: &[u8],
        records: impl IntoIterator<Item = (FileId, &'a [u8])>,
    ) -> Result<Self, NamespaceError> {
        let mut this = Self::new();
        this.read_meta(meta)?;
        let out = &mut Outcome::default();
        let decoded = records.into_iter().map(|(id, bytes)| Ok((id, Dptr::decode(bytes)?)));
        let all = decoded.collect::<Result<Vec<_>, DecodeError>>()?;
        // Accounts first: the flags of `dm` decide where its files go.
        let (accounts, files): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|(_, dptr)| dptr.kind == DptrKind::Account);
        for (id, dptr) in accounts {
            if this.accounts.contains_key(&id) {
                this.change_account(id, dptr, out);
            } else {
                this.insert_account(id, dptr, out);
            }
        }
        for (id, dptr) in files {
            this.insert_file(id, dptr, out);
        }
        Ok(this)
    }

    fn read_meta(&mut self, meta: &[u8]) -> Result<(), DecodeError> {
        let mut r = Reader::new("namespace record", meta);
        let version = r.u8()?;
        r.expect("namespace record version", u64::from(META_VERSION), u64::from(version))?;
        self.mode = LoggingMode::from_byte(r.u8()?)?;
        self.paused = r.u8()? != 0;
        self.high_water = FileId(r.number("highest id")?);
        for _ in 0..r.u32()? {
            self.gone.insert(FileId(r.number("deleted id")?));
        }
        r.expect("bytes after the namespace record", 0, r.rest().len() as u64)
    }
}

/// The entries, one by one.
impl Namespace {
    fn create_account_entry(
        &mut self,
        id: FileId,
        value: &[u8],
        out: &mut Outcome,
    ) -> Result<(), NamespaceError> {
        let dptr = account_value(id, value)?;
        if self.gone.contains(&id) || self.accounts.contains_key(&id) {
            out.ignored = self.gone.contains(&id);
            return Ok(());
        }
        self.saw(id, out);
        self.insert_account(id, dptr, out);
        out.records.push(id);
        Ok(())
    }

    fn change_account_entry(
        &mut self,
        id: FileId,
        value: &[u8],
        out: &mut Outcome,
    ) -> Result<(), NamespaceError> {
        let dptr = account_value(id, value)?;
        if self.accounts.contains_key(&id) {
            out.records.push(id);
            self.change_account(id, dptr, out);
        } else {
            out.ignored = true;
        }
        Ok(())
    }

    fn delete_account_entry(&mut self, id: FileId, out: &mut Outcome) {
        if id == SYSTEM_ACCOUNT {
            out.ignored = true;
            return;
        }
        // Also when the account is not here yet: its creation may still come out of the other journal.
        out.meta |= self.gone.insert(id);
        for file in self.members.get(&id).cloned().unwrap_or_default() {
            self.remove_file(file, out);
        }
        let Some(account) = self.accounts.remove(&id) else {
            out.ignored = true;
            return;
        };
        out.records.push(id);
        self.by_account.remove(&account.name);
        self.unwant(ROOT, &account.dptr.name, id, out);
    }

    fn create_file_entry(
        &mut self,
        id: FileId,
        value: &[u8],
        out: &mut Outcome,
    ) -> Result<(), NamespaceError> {
        let dptr = Dptr::decode(value)?;
        if dptr.kind == DptrKind::Account {
            return Err(NamespaceError::WrongKind { id, expected: "a file" });
        }
        if self.files.contains_key(&id) {
            return Ok(());
        }
        self.saw(id, out);
        if self.gone.contains(&dptr.account) {
            out.ignored = true;
            return Ok(());
        }
        self.insert_file(id, dptr, out);
        out.records.push(id);
        Ok(())
    }

    fn change_file_entry(&mut self, id: FileId, new: Dptr, out: &mut Outcome) {
        let Some(old) = self.files.get(&id).map(|info| info.dptr.clone()) else {
            out.ignored = true;
            return;
        };
        // A volume never shrinks, whatever an entry that was made beside a growth still says.
        let blocks = new.blocks.max(old.blocks);
        let dptr = Dptr { kind: old.kind, account: old.account, generation: old.generation, blocks, ..new };
        if dptr.name != old.name {
            self.wanted.entry((old.account, dptr.name.clone())).or_default().insert(id);
        }
        let name = dptr.name.clone();
        if let Some(info) = self.files.get_mut(&id) {
            info.dptr = dptr;
        }
        self.reroute(id, true, out);
        if name != old.name {
            self.unwant(old.account, &old.name, id, out);
        }
        self.settle(old.account, &name, out);
        out.records.push(id);
    }

    fn logging_entry(
        &mut self,
        journal: JournalKind,
        value: &[u8],
        out: &mut Outcome,
    ) -> Result<(), NamespaceError> {
        let mode = LoggingMode::from_byte(byte_value("logging mode", value)?)?;
        // The pair shares a mode; a pause is one node's own. So neither journal overtakes the other.
        match journal {
            JournalKind::Replicated if mode != LoggingMode::Paused => self.mode = mode,
            JournalKind::Replicated => {}
            JournalKind::Local => self.paused = mode == LoggingMode::Paused,
        }
        out.meta = true;
        self.reroute_all(true, out);
        Ok(())
    }
}

/// Changes that keep the indexes right.
impl Namespace {
    fn saw(&mut self, id: FileId, out: &mut Outcome) {
        if id > self.high_water {
            self.high_water = id;
            out.meta = true;
        }
    }

    fn insert_account(&mut self, id: FileId, dptr: Dptr, out: &mut Outcome) {
        let name = dptr.name.clone();
        self.wanted.entry((ROOT, name.clone())).or_default().insert(id);
        let replicated_files = self.files_of(id).filter(|(_, file)| file.replicated).count() as u64;
        self.accounts.insert(id, AccountInfo { dptr, name: String::new(), replicated_files });
        self.settle(ROOT, &name, out);
    }

    fn change_account(&mut self, id: FileId, new: Dptr, out: &mut Outcome) {
        let Some(info) = self.accounts.get_mut(&id) else { return };
        let old = std::mem::replace(&mut info.dptr, new);
        let name = info.dptr.name.clone();
        self.wanted.entry((ROOT, name.clone())).or_default().insert(id);
        if name != old.name {
            self.unwant(ROOT, &old.name, id, out);
        }
        self.settle(ROOT, &name, out);
        if id == SYSTEM_ACCOUNT {
            for file in self.members.get(&id).cloned().unwrap_or_default() {
                self.reroute(file, true, out);
            }
        }
    }

    fn insert_file(&mut self, id: FileId, dptr: Dptr, out: &mut Outcome) {
        let (account, name) = (dptr.account, dptr.name.clone());
        self.members.entry(account).or_default().insert(id);
        self.wanted.entry((account, name.clone())).or_default().insert(id);
        let (name_now, key) = (String::new(), String::new());
        let info = FileInfo { dptr, name: name_now, key, journal: JournalKind::Local, replicated: false };
        self.files.insert(id, info);
        self.reroute(id, false, &mut Outcome::default());
        self.settle(account, &name, out);
    }

    fn remove_file(&mut self, id: FileId, out: &mut Outcome) {
        let Some(info) = self.files.remove(&id) else {
            out.ignored = true;
            return;
        };
        let account = info.dptr.account;
        out.dropped.push((id, info.dptr.generation));
        out.records.push(id);
        self.by_key.remove(info.key.as_bytes());
        if let Some(members) = self.members.get_mut(&account) {
            members.remove(&id);
            if members.is_empty() {
                self.members.remove(&account);
            }
        }
        if info.replicated {
            self.count_replicated(account, false, out);
        }
        self.unwant(account, &info.dptr.name, id, out);
    }

    fn edit(&mut self, id: FileId, out: &mut Outcome, f: impl FnOnce(&mut Dptr, &mut Vec<(FileId, u32)>)) {
        match self.files.get_mut(&id) {
            Some(info) => {
                f(&mut info.dptr, &mut out.dropped);
                out.records.push(id);
            }
            None => out.ignored = true,
        }
    }

    fn reroute_all(&mut self, changes_state: bool, out: &mut Outcome) {
        for id in self.files.keys().copied().collect::<Vec<_>>() {
            self.reroute(id, changes_state, out);
        }
    }

    /// Decides anew where a file's updates go. A file that becomes replicated is unknown to the peer, or known with
    /// other content, until it was copied.
    fn reroute(&mut self, id: FileId, changes_state: bool, out: &mut Outcome) {
        let Some(info) = self.files.get(&id) else { return };
        let system = self.system_flags(info.dptr.account);
        let ask = |mode| route(&Question { mode, system, file: info.dptr.flags, updated: None }).0;
        let (journal, unpaused) = (ask(self.mode()), ask(self.mode));
        let replicated = unpaused == JournalKind::Replicated;
        let account = info.dptr.account;
        let (was_journal, was_replicated) = (info.journal, info.replicated);
        if (journal, replicated) == (was_journal, was_replicated) {
            return;
        }
        let Some(info) = self.files.get_mut(&id) else { return };
        (info.journal, info.replicated) = (journal, replicated);
        if journal != was_journal {
            out.moved.push(id);
        }
        if replicated == was_replicated {
            return;
        }
        if changes_state && replicated && info.dptr.state != FileState::Stale {
            info.dptr.state = FileState::Stale;
            out.records.push(id);
        }
        let name = info.dptr.name.clone();
        self.count_replicated(account, replicated, out);
        self.settle(account, &name, out);
    }

    fn count_replicated(&mut self, account: FileId, more: bool, out: &mut Outcome) {
        let Some(info) = self.accounts.get_mut(&account) else { return };
        let before = account_is_replicated(info);
        info.replicated_files = if more { info.replicated_files + 1 } else { info.replicated_files - 1 };
        if account_is_replicated(info) != before {
            let name = info.dptr.name.clone();
            self.settle(ROOT, &name, out);
        }
    }

    fn system_flags(&self, account: FileId) -> Option<Flags> {
        let flags = || self.accounts.get(&account).map_or(Flags::NONE, |info| info.dptr.flags);
        (account == SYSTEM_ACCOUNT).then(flags)
    }

    fn unwant(&mut self, account: FileId, name: &str, id: FileId, out: &mut Outcome) {
        let key = (account, name.to_owned());
        if let Some(ids) = self.wanted.get_mut(&key) {
            ids.remove(&id);
            if ids.is_empty() {
                self.wanted.remove(&key);
            } else {
                self.settle(account, name, out);
            }
        }
    }

    /// Decides who goes by `name` and what the others that want it go by.
    fn settle(&mut self, account: FileId, name: &str, out: &mut Outcome) {
        let Some(ids) = self.wanted.get(&(account, name.to_owned())) else { return };
        let mut ranked: Vec<(bool, FileId)> = ids.iter().map(|id| (!self.is_shared(*id), *id)).collect();
        ranked.sort_unstable();
        // Losers first: the winner's key must not be taken away again by who had it before.
        for (place, (_, id)) in ranked.into_iter().enumerate().rev() {
            let to = if place == 0 { name.to_owned() } else { format!("{name}.local-{id}") };
            if account == ROOT { self.name_account(id, to, out) } else { self.name_file(id, to, out) }
        }
    }

    fn is_shared(&self, id: FileId) -> bool {
        // `dm` is everybody's: no account of that name may take its place.
        id == SYSTEM_ACCOUNT || self.is_replicated(id) || self.account_is_replicated(id)
    }

    fn name_account(&mut self, id: FileId, to: String, out: &mut Outcome) {
        let Some(info) = self.accounts.get_mut(&id) else { return };
        if info.name != to {
            let from = std::mem::replace(&mut info.name, to.clone());
            note_rename(id, DptrKind::Account, from.clone(), &info.dptr.name, &to, out);
            if self.by_account.get(&from) == Some(&id) {
                self.by_account.remove(&from);
            }
        }
        self.by_account.insert(to, id);
        for file in self.members.get(&id).cloned().unwrap_or_default() {
            self.rekey(file);
        }
    }

    fn name_file(&mut self, id: FileId, to: String, out: &mut Outcome) {
        let Some(info) = self.files.get_mut(&id) else { return };
        if info.name != to {
            let from = std::mem::replace(&mut info.name, to.clone());
            note_rename(id, info.dptr.kind, from, &info.dptr.name, &to, out);
        }
        self.rekey(id);
    }

    fn rekey(&mut self, id: FileId) {
        let Some(info) = self.files.get_mut(&id) else { return };
        let account = self.accounts.get(&info.dptr.account);
        let key = account.map(|account| format!("{},{}", account.name, info.name)).unwrap_or_default();
        let old = std::mem::replace(&mut info.key, key.clone());
        if old != key && self.by_key.get(old.as_bytes()) == Some(&id) {
            self.by_key.remove(old.as_bytes());
        }
        if !key.is_empty() {
            self.by_key.insert(key.into_bytes(), id);
        }
    }
}

/// Tells of a name only if it, or the one before it, is not the one that was asked for.
fn note_rename(id: FileId, kind: DptrKind, from: String, wanted: &str, to: &str, out: &mut Outcome) {
    let from = if from.is_empty() { wanted.to_owned() } else { from };
    if from != to && (to != wanted || from.starts_with(&format!("{wanted}.local-"))) {
        out.renamed.push(Renamed { id, kind, from, to: to.to_owned() });
    }
}

fn account_is_replicated(info: &AccountInfo) -> bool {
    let never = Flags::X.with(Flags::Y).with(Flags::T);
    info.replicated_files > 0 || (info.dptr.flags.has(Flags::L) && !info.dptr.flags.has(never))
}

fn account_dptr(name: &str, flags: Flags) -> Dptr {
    Dptr {
        kind: DptrKind::Account,
        flags,
        state: FileState::Whole,
        generation: 0,
        account: ROOT,
        blocks: 0,
        ack: None,
        name: name.to_owned(),
    }
}

fn drop_items(id: FileId, dptr: &mut Dptr, dropped: &mut Vec<(FileId, u32)>) {
    dropped.push((id, dptr.generation));
    dptr.generation = dptr.generation.wrapping_add(1);
}

fn account_value(id: FileId, value: &[u8]) -> Result<Dptr, NamespaceError> {
    let dptr = Dptr::decode(value)?;
    if dptr.kind != DptrKind::Account {
        return Err(NamespaceError::WrongKind { id, expected: "an account" });
    }
    Ok(dptr)
}

fn file_value(entry: &Entry<'_>) -> Result<Dptr, NamespaceError> {
    let dptr = Dptr::decode(entry.value)?;
    if dptr.kind == DptrKind::Account {
        return Err(NamespaceError::WrongKind { id: entry.file, expected: "a file" });
    }
    Ok(dptr)
}

fn byte_value(what: &'static str, value: &[u8]) -> Result<u8, DecodeError> {
    let mut r = Reader::new(what, value);
    let byte = r.u8()?;
    r.expect(what, 0, r.rest().len() as u64)?;
    Ok(byte)
}

#[cfg(test)]
mod tests;

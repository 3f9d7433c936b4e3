//! From what an operator asks for to the entries that do it: validates, decides the journal, encodes.

use super::{
    AccountInfo, FileInfo, Namespace, NamespaceError, Question, SYSTEM_ACCOUNT, account_dptr,
    account_is_replicated, route,
};
use crate::base::limits::{BLOCK_U64, VOLUME_MAX};
use crate::base::{AckLevel, FileId, JournalKind, Ordinal};
use crate::format::dptr::{Dptr, DptrKind, FileState, Flags, LoggingMode, name_is_valid};
use crate::format::entry::{Entry, EntryKind};

/// Largest volume, and what is said of a larger one.
const BLOCKS_MAX: u64 = VOLUME_MAX / BLOCK_U64;
const TOO_LARGE: &str = "a block file has at most 64 TiB";

/// An entry that owns its value; such entries have no item id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEntry {
    /// What changes.
    pub kind: EntryKind,
    /// The account or file.
    pub file: FileId,
    /// The encoded definition, or what the kind needs.
    pub value: Vec<u8>,
}

impl NewEntry {
    /// The entry, borrowed.
    #[must_use]
    pub fn entry(&self) -> Entry<'_> {
        Entry { kind: self.kind, file: self.file, id: &[], value: &self.value }
    }
}

/// A validated change of definitions, ready to be journaled as one batch.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct Change {
    /// The journal that carries it.
    pub journal: JournalKind,
    /// The entries, in order.
    pub entries: Vec<NewEntry>,
    /// Whether an account or file passes from one journal to the other. If so, everything before this change must be
    /// applied and checkpointed in both journals before it is journaled, and it must itself be applied and
    /// checkpointed before anything else about what it moves is journaled. Otherwise a crash could replay the two
    /// journals in an order that never was.
    pub moves: bool,
}

/// What a new file shall be.
#[derive(Clone, Debug)]
pub struct NewFile<'a> {
    /// The account's name.
    pub account: &'a str,
    /// The file's name in it.
    pub name: &'a str,
    /// Records or blocks.
    pub kind: DptrKind,
    /// Flags, or none to inherit the account's.
    pub flags: Option<Flags>,
    /// Size of a block file (4 KiB blocks), 0 for a record file.
    pub blocks: u64,
    /// Its own ack level, if any.
    pub ack: Option<AckLevel>,
}

impl Namespace {
    /// The next id for a node.
    #[must_use]
    pub fn next_id(&self, ordinal: Ordinal) -> FileId {
        let next = self.high_water.0 + 1;
        FileId(if next & 1 == u64::from(ordinal.0 & 1) { next } else { next + 1 })
    }

    /// A new account, replicated from the start if it is flagged L.
    ///
    /// # Errors
    /// [`NamespaceError::BadName`], [`NamespaceError::Taken`], [`NamespaceError::Contradiction`],
    /// [`NamespaceError::Paused`].
    pub fn create_account(
        &self,
        name: &str,
        flags: Flags,
        ordinal: Ordinal,
    ) -> Result<Change, NamespaceError> {
        check_name(name)?;
        if self.account_id(name).is_some() {
            return Err(NamespaceError::Taken { name: name.to_owned() });
        }
        check_flags(name, Flags::NONE, flags)?;
        let dptr = account_dptr(name, flags);
        let replicated = account_is_replicated(&AccountInfo {
            dptr: dptr.clone(),
            name: String::new(),
            replicated_files: 0,
        });
        if replicated && self.paused {
            return Err(NamespaceError::Paused { doing: "creating the account", name: name.to_owned() });
        }
        let entry = new(EntryKind::AccountCreate, self.next_id(ordinal), dptr.encode());
        Ok(Change { journal: journal(replicated), entries: vec![entry], moves: false })
    }

    /// A new file. If it is the first replicated one of its account, the account's definition goes before it.
    ///
    /// # Errors
    /// [`NamespaceError::BadName`], [`NamespaceError::NoSuchAccount`], [`NamespaceError::Taken`],
    /// [`NamespaceError::Contradiction`], [`NamespaceError::SystemNotReplicated`], [`NamespaceError::Blocks`].
    pub fn create_file(&self, file: &NewFile<'_>, ordinal: Ordinal) -> Result<Change, NamespaceError> {
        let key = format!("{},{}", file.account, file.name);
        check_name(file.name)?;
        let (account, info) = self.account_named(file.account)?;
        if self.resolve(key.as_bytes()).is_some() {
            return Err(NamespaceError::Taken { name: key });
        }
        let rule = match file.kind {
            DptrKind::Account => Some("a file holds records or blocks"),
            DptrKind::Blocks if file.blocks == 0 => Some("a block file needs a size of at least one block"),
            DptrKind::Blocks if file.blocks > BLOCKS_MAX => Some(TOO_LARGE),
            DptrKind::Records if file.blocks != 0 => Some("a record file has no size"),
            DptrKind::Records | DptrKind::Blocks => None,
        };
        if let Some(rule) = rule {
            return Err(NamespaceError::Blocks { name: key, rule });
        }
        let flags = file.flags.unwrap_or(info.dptr.flags);
        check_flags(&key, Flags::NONE, flags)?;
        self.check_system(account, &key, Flags::NONE, flags)?;
        let replicated = self.would_be_replicated(account, flags);
        let dptr = Dptr {
            kind: file.kind,
            flags,
            state: if replicated && self.paused { FileState::Stale } else { FileState::Whole },
            generation: 0,
            account,
            blocks: file.blocks,
            ack: file.ack,
            name: file.name.to_owned(),
        };
        let first = replicated && !self.account_is_replicated(account);
        let mut entries = Vec::new();
        if first && !self.paused {
            entries.push(new(EntryKind::AccountCreate, account, info.dptr.encode()));
        }
        entries.push(new(EntryKind::FileCreate, self.next_id(ordinal), dptr.encode()));
        Ok(Change { journal: self.journal(replicated), entries, moves: first })
    }

    /// Deletes an account and the files it holds.
    ///
    /// # Errors
    /// [`NamespaceError::NoSuchAccount`], [`NamespaceError::SystemAccount`], [`NamespaceError::Paused`].
    pub fn delete_account(&self, name: &str) -> Result<Change, NamespaceError> {
        let (id, _) = self.account_named(name)?;
        if id == SYSTEM_ACCOUNT {
            return Err(NamespaceError::SystemAccount { doing: "deleting" });
        }
        let replicated = self.account_is_replicated(id);
        self.check_told(replicated, "deleting the account", name)?;
        let entries = vec![new(EntryKind::AccountDelete, id, Vec::new())];
        Ok(Change { journal: self.journal(replicated), entries, moves: false })
    }

    /// Renames an account; its files move with it.
    ///
    /// # Errors
    /// [`NamespaceError::NoSuchAccount`], [`NamespaceError::SystemAccount`], [`NamespaceError::BadName`],
    /// [`NamespaceError::Taken`], [`NamespaceError::Paused`].
    pub fn rename_account(&self, name: &str, to: &str) -> Result<Change, NamespaceError> {
        let (id, info) = self.account_named(name)?;
        if id == SYSTEM_ACCOUNT {
            return Err(NamespaceError::SystemAccount { doing: "renaming" });
        }
        check_name(to)?;
        if self.account_id(to).is_some_and(|other| other != id) {
            return Err(NamespaceError::Taken { name: to.to_owned() });
        }
        let replicated = self.account_is_replicated(id);
        self.check_told(replicated, "renaming the account", name)?;
        let dptr = Dptr { name: to.to_owned(), ..info.dptr.clone() };
        let entries = vec![new(EntryKind::AccountChange, id, dptr.encode())];
        Ok(Change { journal: self.journal(replicated), entries, moves: false })
    }

    /// Sets and clears flags of an account. Its files keep theirs; only files created later inherit them.
    ///
    /// # Errors
    /// [`NamespaceError::NoSuchAccount`], [`NamespaceError::Contradiction`], [`NamespaceError::Paused`].
    pub fn change_account_flags(
        &self,
        name: &str,
        set: Flags,
        clear: Flags,
    ) -> Result<Change, NamespaceError> {
        let (id, info) = self.account_named(name)?;
        let flags = info.dptr.flags.without(clear).with(set);
        check_flags(name, info.dptr.flags, flags)?;
        let after = AccountInfo { dptr: Dptr { flags, ..info.dptr.clone() }, ..info.clone() };
        let (was, is) = (account_is_replicated(info), account_is_replicated(&after));
        self.check_told(was || is, "flagging the account", name)?;
        let mut entries = Vec::new();
        if is && !was {
            entries.push(new(EntryKind::AccountCreate, id, after.dptr.encode()));
        }
        entries.push(new(EntryKind::AccountChange, id, after.dptr.encode()));
        Ok(Change { journal: self.journal(was || is), entries, moves: was != is || id == SYSTEM_ACCOUNT })
    }

    /// Deletes a file and its items.
    ///
    /// # Errors
    /// [`NamespaceError::NoSuchFile`], [`NamespaceError::Paused`].
    pub fn delete_file(&self, id: FileId) -> Result<Change, NamespaceError> {
        let info = self.file_with(id)?;
        self.check_told(info.replicated, "deleting", &info.key)?;
        let last = self.is_last_replicated(info);
        let entries = vec![new(EntryKind::FileDelete, id, Vec::new())];
        Ok(Change { journal: self.journal(info.replicated), entries, moves: last })
    }

    /// Deletes the items of a file.
    ///
    /// # Errors
    /// [`NamespaceError::NoSuchFile`].
    pub fn clear_file(&self, id: FileId) -> Result<Change, NamespaceError> {
        let info = self.file_with(id)?;
        let generation = info.dptr.generation.wrapping_add(1);
        let dptr = Dptr { generation, state: self.state_after(info), ..info.dptr.clone() };
        Ok(self.one(info, EntryKind::FileClear, id, &dptr))
    }

    /// Gives a block file more blocks.
    ///
    /// # Errors
    /// [`NamespaceError::NoSuchFile`]; [`NamespaceError::Blocks`] for a record file and a size beyond the limit;
    /// [`NamespaceError::Shrinks`].
    pub fn grow_file(&self, id: FileId, blocks: u64) -> Result<Change, NamespaceError> {
        let info = self.file_with(id)?;
        let name = info.key.clone();
        let now = info.dptr.blocks;
        if info.dptr.kind != DptrKind::Blocks {
            return Err(NamespaceError::Blocks { name, rule: "a record file has no size" });
        }
        if blocks > BLOCKS_MAX {
            return Err(NamespaceError::Blocks { name, rule: TOO_LARGE });
        }
        if blocks < now {
            return Err(NamespaceError::Shrinks { name, now: now * BLOCK_U64, wanted: blocks * BLOCK_U64 });
        }
        let dptr = Dptr { blocks, state: self.state_after(info), ..info.dptr.clone() };
        Ok(self.one(info, EntryKind::FileChange, id, &dptr))
    }

    /// Renames a file within its account. `to` is the new name without the account.
    ///
    /// # Errors
    /// [`NamespaceError::NoSuchFile`], [`NamespaceError::BadName`], [`NamespaceError::Taken`].
    pub fn rename_file(&self, id: FileId, to: &str) -> Result<Change, NamespaceError> {
        let info = self.file_with(id)?;
        check_name(to)?;
        let account = self.accounts.get(&info.dptr.account).map_or("", |account| account.name.as_str());
        let key = format!("{account},{to}");
        if self.resolve(key.as_bytes()).is_some_and(|other| other != id) {
            return Err(NamespaceError::Taken { name: key });
        }
        let dptr = Dptr { name: to.to_owned(), state: self.state_after(info), ..info.dptr.clone() };
        Ok(self.one(info, EntryKind::FileChange, id, &dptr))
    }

    /// Gives a file its own ack level, or none.
    ///
    /// # Errors
    /// [`NamespaceError::NoSuchFile`].
    pub fn change_ack(&self, id: FileId, ack: Option<AckLevel>) -> Result<Change, NamespaceError> {
        let info = self.file_with(id)?;
        let dptr = Dptr { ack, state: self.state_after(info), ..info.dptr.clone() };
        Ok(self.one(info, EntryKind::FileChange, id, &dptr))
    }

    /// Sets and clears flags of a file. A file that becomes replicated by it is [`FileState::Stale`] afterwards, and
    /// among [`Namespace::copies_due`] until it was copied.
    ///
    /// # Errors
    /// [`NamespaceError::NoSuchFile`], [`NamespaceError::Contradiction`], [`NamespaceError::SystemNotReplicated`],
    /// [`NamespaceError::Paused`] when it would cease to be replicated unheard.
    pub fn change_file_flags(&self, id: FileId, set: Flags, clear: Flags) -> Result<Change, NamespaceError> {
        let info = self.file_with(id)?;
        let (before, account) = (info.dptr.flags, info.dptr.account);
        let flags = before.without(clear).with(set);
        check_flags(&info.key, before, flags)?;
        self.check_system(account, &info.key, before, flags)?;
        let replicated = self.would_be_replicated(account, flags);
        self.check_told(info.replicated && !replicated, "flagging", &info.key)?;
        let dptr = Dptr { flags, state: self.state_after(info), ..info.dptr.clone() };
        let question = Question {
            mode: self.mode(),
            system: self.system_flags(account),
            file: before,
            updated: Some(flags),
        };
        Ok(Change {
            journal: route(&question).0,
            entries: vec![new(EntryKind::FileChange, id, dptr.encode())],
            moves: replicated != info.replicated,
        })
    }

    /// Marks a replicated file that is about to be changed while logging is paused: see
    /// [`FileInfo::needs_stale_mark`].
    ///
    /// # Errors
    /// [`NamespaceError::NoSuchFile`].
    pub fn mark_stale(&self, id: FileId) -> Result<Change, NamespaceError> {
        let info = self.file_with(id)?;
        let dptr = Dptr { state: FileState::Stale, ..info.dptr.clone() };
        Ok(self.one(info, EntryKind::FileChange, id, &dptr))
    }

    /// The entries before the content of a file that is copied to the peer: its account and itself as they are here
    /// (whatever the peer knows of them), then the start of the copy.
    ///
    /// # Errors
    /// [`NamespaceError::NoSuchFile`], [`NamespaceError::NoSuchAccount`], [`NamespaceError::Paused`].
    pub fn begin_copy(&self, id: FileId, ordinal: Ordinal) -> Result<Change, NamespaceError> {
        let info = self.file_with(id)?;
        self.check_told(true, "copying", &info.key)?;
        let account = info.dptr.account;
        let missing = || NamespaceError::NoSuchAccount { name: format!("with id {account}") };
        let account_value = self.accounts.get(&account).ok_or_else(missing)?.dptr.encode();
        let file_value = info.dptr.encode();
        let entries = vec![
            new(EntryKind::AccountCreate, account, account_value.clone()),
            new(EntryKind::AccountChange, account, account_value),
            new(EntryKind::FileCreate, id, file_value.clone()),
            new(EntryKind::FileChange, id, file_value),
            new(EntryKind::CopyBegin, id, vec![ordinal.0]),
        ];
        Ok(Change { journal: JournalKind::Replicated, entries, moves: false })
    }

    /// The entry after the content of a file that was copied.
    ///
    /// # Errors
    /// [`NamespaceError::NoSuchFile`].
    pub fn end_copy(&self, id: FileId) -> Result<Change, NamespaceError> {
        self.file_with(id)?;
        let entries = vec![new(EntryKind::CopyEnd, id, Vec::new())];
        Ok(Change { journal: JournalKind::Replicated, entries, moves: false })
    }

    /// Sets the pair's logging mode, or pauses this node's.
    ///
    /// # Errors
    /// [`NamespaceError::Mode`] when nothing would change, or when logging is paused (resume it first).
    pub fn set_logging(&self, mode: LoggingMode) -> Result<Change, NamespaceError> {
        if self.paused {
            return Err(NamespaceError::Mode { rule: "logging is paused; resume it first" });
        }
        if mode == self.mode {
            return Err(NamespaceError::Mode { rule: "it is set already" });
        }
        let paused = mode == LoggingMode::Paused;
        let entries = vec![new(EntryKind::Logging, FileId(0), vec![mode.byte()])];
        Ok(Change { journal: journal(!paused), entries, moves: true })
    }

    /// Resumes logging in the mode before the pause.
    ///
    /// # Errors
    /// [`NamespaceError::Mode`] when it is not paused.
    pub fn resume_logging(&self) -> Result<Change, NamespaceError> {
        if !self.paused {
            return Err(NamespaceError::Mode { rule: "logging is not paused" });
        }
        let entries = vec![new(EntryKind::Logging, FileId(0), vec![self.mode.byte()])];
        Ok(Change { journal: JournalKind::Local, entries, moves: true })
    }
}

impl Namespace {
    fn account_named(&self, name: &str) -> Result<(FileId, &AccountInfo), NamespaceError> {
        let id = self.account_id(name);
        let found = id.and_then(|id| self.accounts.get(&id).map(|info| (id, info)));
        found.ok_or_else(|| NamespaceError::NoSuchAccount { name: name.to_owned() })
    }

    fn file_with(&self, id: FileId) -> Result<&FileInfo, NamespaceError> {
        self.files.get(&id).ok_or_else(|| NamespaceError::NoSuchFile { name: format!("with id {id}") })
    }

    /// The journal of a definition change about what is replicated, or not.
    fn journal(&self, replicated: bool) -> JournalKind {
        journal(replicated && !self.paused)
    }

    /// While logging is paused the peer hears of nothing, so any change makes a replicated file stale.
    fn state_after(&self, info: &FileInfo) -> FileState {
        if info.replicated && self.paused { FileState::Stale } else { info.dptr.state }
    }

    fn one(&self, info: &FileInfo, kind: EntryKind, id: FileId, dptr: &Dptr) -> Change {
        let entries = vec![new(kind, id, dptr.encode())];
        Change { journal: self.journal(info.replicated), entries, moves: false }
    }

    fn would_be_replicated(&self, account: FileId, flags: Flags) -> bool {
        let system = self.system_flags(account);
        let question = Question { mode: self.mode, system, file: flags, updated: None };
        route(&question).0 == JournalKind::Replicated
    }

    /// Whether the account ceases to be replicated when this file does.
    fn is_last_replicated(&self, info: &FileInfo) -> bool {
        info.replicated
            && self.accounts.get(&info.dptr.account).is_some_and(|account| {
                !account_is_replicated(&AccountInfo {
                    replicated_files: account.replicated_files - 1,
                    ..account.clone()
                })
            })
    }

    fn check_told(&self, matters: bool, doing: &'static str, name: &str) -> Result<(), NamespaceError> {
        if matters && self.paused {
            return Err(NamespaceError::Paused { doing, name: name.to_owned() });
        }
        Ok(())
    }

    fn check_system(
        &self,
        account: FileId,
        name: &str,
        before: Flags,
        after: Flags,
    ) -> Result<(), NamespaceError> {
        let turned_on = after.has(Flags::L) && !before.has(Flags::L);
        if turned_on && self.system_flags(account).is_some_and(|flags| !flags.has(Flags::L)) {
            return Err(NamespaceError::SystemNotReplicated { name: name.to_owned() });
        }
        Ok(())
    }
}

fn journal(replicated: bool) -> JournalKind {
    if replicated { JournalKind::Replicated } else { JournalKind::Local }
}

fn new(kind: EntryKind, file: FileId, value: Vec<u8>) -> NewEntry {
    NewEntry { kind, file, value }
}

fn check_name(name: &str) -> Result<(), NamespaceError> {
    let reserved = name
        .rsplit_once(".local-")
        .is_some_and(|(_, id)| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit()));
    if reserved || !name_is_valid(name) {
        return Err(NamespaceError::BadName { name: name.to_owned() });
    }
    Ok(())
}

fn check_flags(name: &str, before: Flags, after: Flags) -> Result<(), NamespaceError> {
    let not_saved = Flags::X.with(Flags::Y);
    if after.has(Flags::L) && after.has(not_saved) {
        let clear_first = if before.has(not_saved) {
            "clear X and Y first"
        } else if before.has(Flags::L) {
            "clear L first"
        } else {
            "choose one of them"
        };
        return Err(NamespaceError::Contradiction { name: name.to_owned(), flags: after, clear_first });
    }
    Ok(())
}

//! What an operator changes: accounts, files, flags, the logging mode.
//!
//! A change that moves an account or file from one journal to the other waits behind a *barrier*: clients pause,
//! both journals drain into the store, the store is checkpointed, then the change is journaled, and the same again
//! behind it. So no crash can replay the two journals in an order that never was.

use super::admin::{AdminAnswer, AdminReply, AdminRequest, LoggingView, WouldGo};
use super::condition::Hindrance;
use super::core::Core;
use super::effect::Severity;
use super::incidents::Matter;
use crate::base::limits::BLOCK_U64;
use crate::base::{AckLevel, FileId, JournalKind, Seq, Wait};
use crate::doors::{CommitWatermarks, FetchId, IfCold, Unread};
use crate::format::control::Role;
use crate::format::dptr::{Flags, LoggingMode};
use crate::format::entry::{Entry, EntryKind};
use crate::journal::JournalState;
use crate::store::StoreRead;
use crate::store::namespace::{Change, NamespaceError, NewFile};
use std::collections::VecDeque;

/// A dry run counts this many items of a file at most.
const COUNT_MAX: usize = 10_000;
/// In so many parts at most: very many of them may have been deleted just now.
const COUNT_PARTS_MAX: usize = 32;

/// What to do when a node that could change a definition does not serve yet.
const WHEN_IT_SERVES: &str = "try again when it serves; `hot-backup status` shows how far it is";

/// A change that waits for everything before it, or for itself, to be applied and checkpointed.
#[derive(Debug)]
pub(super) struct Barrier {
    /// Not yet done; none once it was journaled.
    change: Option<(u64, AdminRequest)>,
}

/// Operators that wait: for their turn, for a barrier, or until what was done for them is durable.
#[derive(Debug, Default)]
pub(super) struct Operators {
    barrier: Option<Barrier>,
    /// What they asked for, in order.
    queue: VecDeque<(u64, AdminRequest)>,
    /// What is done, with the answer that its operator gets when it is durable.
    waits: Vec<(Wait, u64, AdminReply)>,
    /// The last entry of the local journal that defines something, since the start.
    defined_alone: Seq,
}

impl Operators {
    /// Whether anything waits, or is not durable yet.
    pub(super) fn are_busy(&self) -> bool {
        self.has_barrier() || !self.queue.is_empty() || !self.waits.is_empty()
    }

    /// A store that shows the local journal up to here shows all that was defined in it.
    pub(super) fn defined_alone(&self) -> Seq {
        self.defined_alone
    }

    pub(super) fn has_barrier(&self) -> bool {
        self.barrier.is_some()
    }

    /// The next request, unless a barrier stands before it.
    fn next(&mut self) -> Option<(u64, AdminRequest)> {
        if self.has_barrier() { None } else { self.queue.pop_front() }
    }

    /// A request that has to wait is the next one again.
    fn again(&mut self, token: u64, request: AdminRequest) {
        self.queue.push_front((token, request));
    }

    /// Ends a barrier behind which nothing was changed; gives who waits for it.
    fn give_up_barrier(&mut self) -> Option<u64> {
        let barrier = self.barrier.take_if(|barrier| barrier.change.is_some())?;
        barrier.change.map(|(token, _)| token)
    }

    /// The answers that are true now.
    fn take_reached(&mut self, watermarks: &CommitWatermarks) -> Vec<(u64, AdminReply)> {
        let mut reached = Vec::new();
        let mut at = 0;
        while at < self.waits.len() {
            if watermarks.reached(self.waits[at].0) {
                let (_, token, reply) = self.waits.swap_remove(at);
                reached.push((token, reply));
            } else {
                at += 1;
            }
        }
        reached
    }

    /// Lets go of those whose request is done and may never be durable: it comes after these entries, by journal.
    pub(super) fn give_up_beyond(&mut self, beyond: [Seq; 2]) -> Vec<u64> {
        let waits = self.waits.extract_if(.., |(wait, ..)| wait.seq > beyond[wait.journal.index()]);
        waits.map(|(_, token, _)| token).collect()
    }

    /// Lets go of all, also of who waits for a barrier to be reached; no barrier stands any more.
    fn give_up_all(&mut self) -> Vec<u64> {
        let changing = self.barrier.take().and_then(|barrier| barrier.change).map(|(token, _)| token);
        let queued = self.queue.drain(..).map(|(token, _)| token);
        changing.into_iter().chain(queued).chain(self.waits.drain(..).map(|(_, token, _)| token)).collect()
    }
}

/// Why a request was not done.
enum Refused {
    Namespace(NamespaceError),
    Bad { message: String, next: &'static str },
}

impl From<NamespaceError> for Refused {
    fn from(error: NamespaceError) -> Self {
        Self::Namespace(error)
    }
}

fn bad(message: impl Into<String>, next: &'static str) -> Refused {
    Refused::Bad { message: message.into(), next }
}

fn is_dry_run(request: &AdminRequest) -> bool {
    matches!(
        request,
        AdminRequest::AccountDelete { dry_run: true, .. }
            | AdminRequest::FileDelete { dry_run: true, .. }
            | AdminRequest::FileClear { dry_run: true, .. }
    )
}

fn flags_of(letters: &str) -> Result<Flags, Refused> {
    Flags::parse(letters).ok_or_else(|| {
        bad(format!("{letters:?} holds a letter that is no flag"), "the flags are L, X, Y and T")
    })
}

impl<S: StoreRead> Core<S> {
    pub(super) fn queue_definition(&mut self, token: u64, request: AdminRequest) {
        self.operators.queue.push_back((token, request));
        self.dirty = true;
    }

    /// Lets go of operators whose request will not be carried out.
    pub(super) fn refuse_pending(&mut self, why: &str) {
        for token in self.operators.give_up_all() {
            self.reply_no(token, why, "see `hot-backup status`");
        }
    }

    pub(super) fn pump_definitions(&mut self) {
        if self.operators.has_barrier() {
            self.pump_barrier();
        }
        while self.fetches.dry_run.is_none()
            && !self.roles.holds_doors()
            && let Some((token, request)) = self.operators.next()
        {
            match self.changes(&request) {
                Err(refused) => self.refuse_definition(token, refused),
                Ok(_) if is_dry_run(&request) => {
                    match self.would_go(&request) {
                        Ok(value) => self.reply_value(token, value),
                        // Counted anew once that is in memory.
                        Err(fetch) => {
                            self.operators.again(token, request);
                            self.fetches.dry_run = Some(fetch);
                        }
                    }
                }
                Ok(changes) if changes.iter().any(|change| change.moves) => {
                    self.operators.barrier = Some(Barrier { change: Some((token, request)) });
                    self.pump_barrier();
                }
                Ok(changes) => self.carry_out(token, &request, &changes),
            }
        }
        let watermarks = self.commit_watermarks();
        for (token, reply) in self.operators.take_reached(&watermarks) {
            self.reply(token, reply);
        }
    }

    /// What a dry run of a deletion counts.
    fn would_go(&mut self, request: &AdminRequest) -> Result<WouldGo, FetchId> {
        let items = |core: &mut Self, id: FileId, if_cold: IfCold| {
            let (mut count, mut after) = (0, None);
            for _ in 0..COUNT_PARTS_MAX {
                let found = match core.merged(id, after.as_deref(), COUNT_MAX - count, (false, if_cold)) {
                    Ok(found) => found,
                    Err(Unread::Cold(fetch)) => return Err(fetch),
                    Err(Unread::Refused(_)) => break,
                };
                count += found.items.len();
                after = found.next;
                if after.is_none() || count >= COUNT_MAX {
                    break;
                }
            }
            Ok(count)
        };
        let (account, files): (_, Vec<FileId>) = match request {
            AdminRequest::AccountDelete { name, .. } => {
                let id = self.namespace.account_id(name);
                let files = id.into_iter().flat_map(|id| self.namespace.files_of(id).map(|(file, _)| file));
                (true, files.collect())
            }
            AdminRequest::FileDelete { name, .. } | AdminRequest::FileClear { name, .. } => {
                (false, self.namespace.resolve(name.as_bytes()).into_iter().collect())
            }
            _ => (false, Vec::new()),
        };
        let if_cold = self.fetches.if_dry_run_is_cold(files.len());
        let counts =
            files.iter().map(|file| items(self, *file, if_cold)).collect::<Result<Vec<usize>, FetchId>>()?;
        self.fetches.dry_run_tries = 0;
        let (counted, at_least) = (counts.iter().sum::<usize>(), counts.contains(&COUNT_MAX));
        Ok(WouldGo {
            account,
            at_least,
            dry_run: true,
            files: files.len() as u64,
            items: counted as u64,
            node: self.config.name.clone(),
            role: self.control.role().name().to_owned(),
        })
    }

    fn pump_barrier(&mut self) {
        if !self.is_settled() {
            self.checkpoint.want_only_if(self.is_drained());
            // Its turn in this round was before it was wanted.
            self.pump_checkpoint();
            return self.give_up_barrier();
        }
        match self.operators.barrier.take().and_then(|barrier| barrier.change) {
            None => self.dirty = true,
            Some((token, request)) => match self.changes(&request) {
                Err(refused) => self.refuse_definition(token, refused),
                Ok(changes) => {
                    self.carry_out(token, &request, &changes);
                    self.operators.barrier = Some(Barrier { change: None });
                }
            },
        }
    }

    /// What it waits for may never come: as long as nothing was changed, nobody need wait for it.
    fn give_up_barrier(&mut self) {
        let Err(why) = self.check_barrier() else { return };
        if let Some(token) = self.operators.give_up_barrier() {
            let next =
                self.hindrance().map_or("see `hot-backup status`", |hindrance| hindrance.describe().next);
            self.reply_no(token, format!("nothing was changed: {why}"), next);
            self.dirty = true;
        }
    }

    /// The journals that carry this node's own entries.
    fn own_journals(&self) -> impl Iterator<Item = JournalKind> + '_ {
        JournalKind::ALL.into_iter().filter(|kind| *kind == JournalKind::Local || self.is_primary())
    }

    fn is_drained(&self) -> bool {
        self.own_journals().all(|kind| self.journals[kind.index()].is_quiet() && self.all_applied(kind))
    }

    fn is_settled(&self) -> bool {
        self.is_drained()
            && !self.checkpoint.is_running()
            && self
                .own_journals()
                .all(|kind| self.checkpoint.covered(kind) >= self.appliers.of(kind).applied())
    }

    fn refuse_definition(&mut self, token: u64, refused: Refused) {
        match refused {
            Refused::Namespace(error) => self.reply_no(
                token,
                error.to_string(),
                "see `hot-backup file list` and `hot-backup account list`",
            ),
            Refused::Bad { message, next } => self.reply_no(token, message, next),
        }
    }

    fn file_named(&self, name: &str) -> Result<FileId, Refused> {
        self.namespace
            .resolve(name.as_bytes())
            .ok_or_else(|| bad(format!("there is no file {name}"), "see `hot-backup file list`"))
    }

    /// The changes that do what is asked.
    fn changes(&self, request: &AdminRequest) -> Result<Vec<Change>, Refused> {
        let changes = self.plan(request)?;
        for change in &changes {
            let replicated = change.journal == JournalKind::Replicated
                || matches!(request, AdminRequest::Logging { .. } | AdminRequest::LoggingResume)
                || change.entries.iter().any(|entry| {
                    self.namespace.is_replicated(entry.file)
                        || self.namespace.account_is_replicated(entry.file)
                });
            if replicated && self.serving() && !self.has_lease() {
                let message = "this primary accepts no updates: no lease holds";
                return Err(bad(message, Matter::LeaseOver.row().advice));
            }
            if replicated && !self.serving() {
                let message = format!("this node does not serve as primary (it is {})", self.roles.word());
                return Err(match self.control.role() {
                    Role::Primary => bad(format!("{message}: {}", self.reason()), WHEN_IT_SERVES),
                    _ => bad(message, "definitions that are replicated are changed on the primary"),
                });
            }
            if !self.readable() {
                let message = format!("this node is {}: {}", self.roles.word(), self.reason());
                return Err(bad(message, WHEN_IT_SERVES));
            }
            if let Some(fault) = self.store_fault() {
                // It would wait for a store that may never be back.
                let told = Hindrance::Store(fault).describe();
                return Err(bad(told.reason, told.next));
            }
            match self.journal_takes(change.journal, 64 << 10) {
                JournalState::Open => {}
                JournalState::NoSpace => {
                    return Err(bad("no space left for the journal", "make room on the disk"));
                }
                JournalState::Failed => {
                    return Err(bad("the journal's disk failed", "see `hot-backup incidents`"));
                }
            }
        }
        Ok(changes)
    }

    fn plan(&self, request: &AdminRequest) -> Result<Vec<Change>, Refused> {
        let ns = &self.namespace;
        let change = match request {
            AdminRequest::AccountCreate { name, flags } => {
                ns.create_account(name, flags_of(flags)?, self.ordinal())?
            }
            AdminRequest::AccountDelete { name, .. } => ns.delete_account(name)?,
            AdminRequest::AccountRename { name, to } => ns.rename_account(name, to)?,
            AdminRequest::FileCreate { .. } => self.plan_file(request)?,
            AdminRequest::FileDelete { name, .. } => ns.delete_file(self.file_named(name)?)?,
            AdminRequest::FileClear { name, .. } => ns.clear_file(self.file_named(name)?)?,
            AdminRequest::FileGrow { name, bytes } => {
                ns.grow_file(self.file_named(name)?, bytes.div_ceil(BLOCK_U64))?
            }
            AdminRequest::FileRename { name, to } => ns.rename_file(self.file_named(name)?, to)?,
            AdminRequest::SetDptr { .. } => return self.plan_dptr(request),
            AdminRequest::Logging { mode: LoggingMode::Paused } => ns.set_logging(LoggingMode::Paused)?,
            AdminRequest::Logging { mode } => ns.set_logging(*mode)?,
            AdminRequest::LoggingResume => ns.resume_logging()?,
            _ => return Ok(Vec::new()),
        };
        Ok(vec![change])
    }

    fn plan_file(&self, request: &AdminRequest) -> Result<Change, Refused> {
        let AdminRequest::FileCreate { name, kind, flags, bytes, ack } = request else {
            return Err(bad("not a file", ""));
        };
        let (account, file) = name
            .split_once(',')
            .ok_or_else(|| bad(format!("{name:?} is not account,file"), "name it like app,orders"))?;
        let flags = flags.as_deref().map(flags_of).transpose()?;
        let blocks = bytes.unwrap_or(0).div_ceil(BLOCK_U64);
        let new = NewFile { account, name: file, kind: *kind, flags, blocks, ack: *ack };
        Ok(self.namespace.create_file(&new, self.ordinal())?)
    }

    fn plan_dptr(&self, request: &AdminRequest) -> Result<Vec<Change>, Refused> {
        let AdminRequest::SetDptr { set, clear, accounts, names, ack } = request else {
            return Err(bad("not flags", ""));
        };
        let (set, clear) = (flags_of(set)?, flags_of(clear)?);
        let ack = ack.as_deref().map(ack_of).transpose()?;
        let mut changes = Vec::new();
        for name in names {
            if *accounts {
                if set != Flags::NONE || clear != Flags::NONE {
                    changes.push(self.namespace.change_account_flags(name, set, clear)?);
                }
                continue;
            }
            let id = self.file_named(name)?;
            if set != Flags::NONE || clear != Flags::NONE {
                changes.push(self.namespace.change_file_flags(id, set, clear)?);
            }
            if let Some(ack) = ack {
                changes.push(self.namespace.change_ack(id, ack)?);
            }
        }
        Ok(changes)
    }

    /// Journals the changes and answers once they are durable.
    fn carry_out(&mut self, token: u64, request: &AdminRequest, changes: &[Change]) {
        let mut wait: Option<Wait> = None;
        for change in changes {
            let entries: Vec<Entry<'_>> = change.entries.iter().map(|entry| entry.entry()).collect();
            if entries.is_empty() {
                continue;
            }
            let seq = self.appending(change.journal).append(entries.iter().copied());
            for entry in &entries {
                self.define(change.journal, entry);
                if entry.kind == EntryKind::FileClear {
                    self.note_cleared(change.journal, entry.file, seq);
                }
            }
            wait = Some(Wait { journal: change.journal, seq, level: AckLevel::Local });
        }
        self.dirty = true;
        if wait.is_some() && matches!(request, AdminRequest::Logging { .. } | AdminRequest::LoggingResume) {
            let mode = super::status::mode_name(self.namespace.mode());
            let text = format!("logging is {mode} from now on, by an operator's word");
            self.incident(Severity::Notice, Matter::Logging, text);
        }
        let reply = AdminReply::Ok { value: self.definition_value(request) };
        match wait {
            Some(wait) => self.operators.waits.push((wait, token, reply)),
            None => self.reply(token, reply),
        }
    }

    fn definition_value(&self, request: &AdminRequest) -> AdminAnswer {
        let found = match request {
            AdminRequest::AccountCreate { name, .. } | AdminRequest::AccountRename { to: name, .. } => {
                self.account_views().into_iter().find(|view| view.name == *name).map(AdminAnswer::Account)
            }
            AdminRequest::FileCreate { name, .. }
            | AdminRequest::FileClear { name, .. }
            | AdminRequest::FileGrow { name, .. } => {
                self.file_views(None).into_iter().find(|view| view.name == *name).map(AdminAnswer::File)
            }
            AdminRequest::SetDptr { accounts: true, names, .. } => {
                let views = self.account_views().into_iter();
                Some(AdminAnswer::Accounts(views.filter(|view| names.contains(&view.name)).collect()))
            }
            AdminRequest::SetDptr { names, .. } => {
                let views = self.file_views(None).into_iter();
                Some(AdminAnswer::Files(views.filter(|view| names.contains(&view.name)).collect()))
            }
            AdminRequest::Logging { .. } | AdminRequest::LoggingResume => {
                let logging = super::status::mode_name(self.namespace.mode()).to_owned();
                Some(AdminAnswer::Logging(LoggingView { logging }))
            }
            _ => None,
        };
        found.unwrap_or_else(AdminAnswer::done)
    }

    /// Lets the sequencer's namespace follow an entry that this node made.
    pub(super) fn define(&mut self, journal: JournalKind, entry: &Entry<'_>) {
        let ordinal = self.ordinal();
        if journal == JournalKind::Local {
            self.operators.defined_alone = self.journals.appended()[journal.index()];
        }
        match self.namespace.apply(ordinal, journal, entry) {
            Ok(outcome) => self.note_outcome(&outcome),
            Err(error) => unreachable!("an entry made here is one the namespace takes: {error}"),
        }
    }

    /// The entry after the last one that both this node and its store have.
    pub(super) fn applied_seq(&self, journal: JournalKind) -> Seq {
        self.appliers.of(journal).applied()
    }
}

fn ack_of(word: &str) -> Result<Option<AckLevel>, Refused> {
    Ok(match word {
        "default" => None,
        "local" => Some(AckLevel::Local),
        "received" => Some(AckLevel::Received),
        "durable" => Some(AckLevel::Durable),
        "applied" => Some(AckLevel::Applied),
        other => {
            let message = format!("{other:?} is not an ack level");
            return Err(bad(message, "the levels are local, received, durable, applied and default"));
        }
    })
}

#[cfg(test)]
#[path = "definitions_tests.rs"]
mod tests;

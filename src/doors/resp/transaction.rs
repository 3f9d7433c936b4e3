//! MULTI, EXEC, DISCARD, WATCH: commands queued, then carried out as one batch of one journal.
//!
//! A long transaction is carried out in steps between which other clients are served. As long as it is under way only it
//! sees its updates; if another changes what it has read, it begins anew, so in the end it is as if all of it happened
//! at once.

use super::changes::Changes;
use super::gather::TOO_BUSY;
use super::outbox::Waits;
use super::pile::Pile;
use super::refusal::{Fail, NO_MEMORY};
use super::session::Blocked;
use super::table::Spec;
use super::turn::Turn;
use super::{FastHash, RespShared, work};
use crate::base::FileId;
use crate::base::limits::{
    ANEW_MAX, CLIENT_REPLY_MAX, LONG_TURN_SLICES, MULTI_MAX, RESP_ARGS_MAX, RESP_REQUEST_MAX, WORK_COMMAND,
    WORK_UPDATE,
};
use crate::doors::{Backend, Change, Draft, ItemHash, Refusal};
use crate::format::resp::{self, Args, Span};
use std::collections::HashSet;

/// Commands between MULTI and EXEC, their arguments one after another in one buffer.
#[derive(Debug, Default)]
pub(super) struct Queue {
    bytes: Vec<u8>,
    spans: Vec<Span>,
    commands: Vec<(&'static Spec, usize)>,
    /// Commands that were kept before it was void, too.
    count: usize,
    void: bool,
}

impl Queue {
    /// A command was wrong: EXEC will do nothing.
    pub(super) fn void(&mut self) {
        self.void = true;
        self.bytes = Vec::new();
        self.spans = Vec::new();
        self.commands = Vec::new();
    }

    /// Memory held (bytes).
    pub(super) fn bytes(&self) -> usize {
        self.bytes.len()
            + self.spans.len() * size_of::<Span>()
            + self.commands.len() * size_of::<(&'static Spec, usize)>()
    }

    /// How many commands were kept. Redis counts those of a void transaction too.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Takes one more; `full` when there is no memory for more than a little.
    pub(super) fn push(
        &mut self,
        spec: &'static Spec,
        args: Args<'_>,
        full: bool,
    ) -> Result<(), &'static str> {
        if self.void {
            return Ok(());
        }
        let more: usize = args.tail(0).map(<[u8]>::len).sum();
        let over =
            self.bytes.len() + more > RESP_REQUEST_MAX || self.spans.len() + args.len() > RESP_ARGS_MAX;
        if over || self.commands.len() >= MULTI_MAX {
            return Err("ERR the transaction is too large");
        }
        if full && self.bytes.len() + more > 4096 {
            return Err(NO_MEMORY);
        }
        for arg in args.tail(0) {
            self.spans.push(Span::new(self.bytes.len(), arg.len()));
            self.bytes.extend_from_slice(arg);
        }
        self.commands.push((spec, args.len()));
        self.count += 1;
        Ok(())
    }

    /// The command at this place, whose arguments begin at the span of that number.
    fn command(&self, at: usize, span: usize) -> Option<(&'static Spec, Args<'_>)> {
        let (spec, count) = self.commands.get(at)?;
        Some((spec, Args::new(&self.bytes, self.spans.get(span..span + count)?)))
    }
}

/// What a transaction has done so far.
#[derive(Debug, Default)]
pub(super) struct Staged {
    /// Its updates.
    pub(super) draft: Draft,
    /// Items read from the database.
    pub(super) reads: Vec<ItemHash>,
    /// A walk looked at all there are.
    walked: bool,
}

impl Staged {
    /// A walk looks at the database: what it finds depends on every item.
    pub(super) fn walk(&mut self) {
        self.walked = true;
    }

    /// How many items the transaction touched.
    pub(super) fn len(&self) -> usize {
        self.draft.len()
    }

    /// The ids of items that it put, and did not delete later, with their files.
    pub(super) fn puts(&self) -> impl Iterator<Item = (FileId, &[u8])> {
        let puts = self.draft.items().iter().filter(|drafted| drafted.value.is_some());
        puts.map(|drafted| (drafted.file, drafted.id.as_slice()))
    }

    /// Whether it deleted the item.
    pub(super) fn deleted(&self, item: ItemHash, file: FileId, id: &[u8]) -> bool {
        self.draft.find(item, file, id).is_some_and(|drafted| drafted.value.is_none())
    }
}

/// An EXEC under way.
#[derive(Debug)]
pub(super) struct Exec {
    queue: Box<Queue>,
    /// The next command, and its first argument.
    at: usize,
    span: usize,
    staged: Staged,
    waits: Waits,
    reply: Vec<u8>,
    /// What is left of a command of many keys or of a walk.
    inner: Option<Blocked>,
    /// What was read, once it was interrupted.
    read: Option<HashSet<ItemHash, FastHash>>,
    /// Changes looked at.
    seen: u64,
    /// How often it began anew.
    anew: u32,
}

/// A set that holds all items that the commands name without ever moving those that are in it.
fn room_for(queue: &Queue) -> HashSet<ItemHash, FastHash> {
    HashSet::with_capacity_and_hasher(queue.spans.len(), FastHash::default())
}

impl Exec {
    fn new(queue: Box<Queue>) -> Self {
        let mut reply = Vec::new();
        resp::array(&mut reply, queue.commands.len());
        // Room for what each command may change at least, so that few of them make all others move.
        let mut staged = Staged::default();
        staged.draft.reserve(queue.commands.len());
        Self {
            queue,
            at: 0,
            span: 0,
            staged,
            waits: Waits::default(),
            reply,
            inner: None,
            read: None,
            seen: 0,
            anew: 0,
        }
    }

    /// Memory held (bytes).
    pub(super) fn bytes(&self) -> usize {
        let inner = self.inner.as_ref().map_or(0, Blocked::bytes);
        let read = self.read.as_ref().map_or(0, |read| read.capacity() * 2 * size_of::<ItemHash>());
        let reads = self.staged.reads.capacity() * size_of::<ItemHash>();
        self.queue.bytes() + self.staged.draft.held() + reads + self.reply.capacity() + inner + read
    }

    /// Whether it has to know what others change.
    pub(super) fn tracks(&self) -> bool {
        self.read.is_some()
    }

    /// Whether others changed what it has read; none when the turn is over before that is known. If they change more than
    /// is looked at, that ends as soon as more was changed than is remembered.
    fn is_outdated(&mut self, changes: &Changes, work: &mut work::Work) -> Option<bool> {
        let Some(read) = &self.read else { return Some(false) };
        let walked = self.staged.walked;
        let Some(news) = changes.since(self.seen) else { return Some(true) };
        for change in news {
            if work.slice_is_over() {
                return None;
            }
            work.spend(WORK_COMMAND);
            self.seen += 1;
            let outdated = match change {
                Change::Item(item) => walked || read.contains(item),
                Change::File(_) | Change::All => true,
            };
            if outdated {
                return Some(true);
            }
        }
        Some(false)
    }

    fn begin_anew(&mut self, changes: &Changes, pile: &mut Pile) {
        let queue = std::mem::take(&mut self.queue);
        let (seen, anew, read) = (changes.next(), self.anew + 1, Some(room_for(&queue)));
        std::mem::replace(self, Self { seen, anew, read, ..Self::new(queue) }).leave(pile);
    }

    /// It is over: what it holds is freed little by little.
    pub(super) fn leave(self, pile: &mut Pile) {
        pile.add_draft(self.staged.draft);
        if let Some(inner) = self.inner {
            inner.leave(pile);
        }
    }
}

impl<B: Backend> Turn<'_, B> {
    pub(super) fn multi(&mut self) -> Result<(), Fail> {
        if self.client.queue.is_some() {
            return Err("ERR MULTI calls can not be nested".into());
        }
        self.client.queue = Some(Box::default());
        self.ok()
    }

    pub(super) fn discard(&mut self) -> Result<(), Fail> {
        if self.client.queue.take().is_none() {
            return Err("ERR DISCARD without MULTI".into());
        }
        self.shared.watches.end(self.client.conn);
        self.ok()
    }

    pub(super) fn watch(&mut self, args: Args<'_>) -> Result<(), Fail> {
        if self.client.queue.is_some() {
            return Err("ERR WATCH inside MULTI is not allowed".into());
        }
        self.shared.learn(self.backend);
        self.backend.want_changes(true);
        self.watch_on(args, 1)
    }

    /// Goes on with a WATCH at this argument. Each key is watched from its own turn on.
    pub(super) fn watch_on(&mut self, args: Args<'_>, mut at: usize) -> Result<(), Fail> {
        while at < args.len() {
            if self.shared.work.slice_is_over() {
                self.unfinished = Some(Blocked::Watch(at));
                return Ok(());
            }
            let (file, id) = self.key(args.at(at))?;
            let item = self.backend.item_hash(file, id);
            self.shared.work.spend(WORK_UPDATE);
            if !self.shared.watches.watch(self.client.conn, file, item) {
                return Err("ERR too many keys are watched".into());
            }
            at += 1;
        }
        self.ok()
    }

    pub(super) fn unwatch(&mut self) -> Result<(), Fail> {
        self.shared.watches.end(self.client.conn);
        self.ok()
    }

    /// All queued commands see each other's updates and nobody else does; the updates are one batch, so they are
    /// there together or not at all, on both nodes and after every crash.
    pub(super) fn exec(&mut self) -> Result<(), Fail> {
        let Some(queue) = self.client.queue.take() else {
            return Err("ERR EXEC without MULTI".into());
        };
        self.shared.learn(self.backend);
        let dirty = self.shared.watches.end(self.client.conn);
        if queue.void {
            return Err("EXECABORT Transaction discarded because of previous errors.".into());
        }
        if dirty {
            resp::null_array(&mut self.client.out.bytes, self.client.version);
            return Ok(());
        }
        self.exec_on(Box::new(Exec::new(queue)))
    }

    /// Goes on with a transaction, and answers when it is done.
    pub(super) fn exec_on(&mut self, mut exec: Box<Exec>) -> Result<(), Fail> {
        self.shared.learn(self.backend);
        let RespShared { changes, work, pile, .. } = &mut *self.shared;
        let was_last = exec.anew > ANEW_MAX;
        if was_last {
            self.is_last_turn = true;
            work.begin_slice(0, LONG_TURN_SLICES);
        }
        match exec.is_outdated(changes, work) {
            Some(false) => {}
            Some(true) => exec.begin_anew(changes, pile),
            None if was_last => {
                exec.leave(pile);
                return Err(TOO_BUSY.into());
            }
            None => {
                self.unfinished = Some(Blocked::Exec(exec));
                return Ok(());
            }
        }
        let last = exec.anew > ANEW_MAX;
        if last && !was_last {
            self.is_last_turn = true;
            self.shared.work.begin_slice(0, LONG_TURN_SLICES);
        }
        let written = self.enter(&mut exec);
        let mut result = self.exec_step(&mut exec);
        self.leave(&mut exec, written);
        if let Ok(true) = result {
            result = Ok(self.encode(&mut exec.staged.draft));
        }
        match result {
            Ok(true) => {
                self.commit(exec.staged.draft)?;
                self.waits.join(&exec.waits);
                self.client.out.append(exec.reply);
            }
            Ok(false) if last => {
                exec.leave(&mut self.shared.pile);
                return Err(TOO_BUSY.into());
            }
            Ok(false) => {
                let new = std::mem::take(&mut exec.staged.reads);
                if exec.read.is_none() {
                    exec.seen = self.shared.changes.begin(self.backend);
                }
                exec.read.get_or_insert_with(|| room_for(&exec.queue)).extend(new);
                self.unfinished = Some(Blocked::Exec(exec));
            }
            Err(fail) => {
                exec.leave(&mut self.shared.pile);
                return Err(fail);
            }
        }
        Ok(())
    }

    /// From here on commands write their replies and updates into the transaction. Returns the start of the reply.
    fn enter(&mut self, exec: &mut Exec) -> (usize, Waits) {
        std::mem::swap(&mut self.client.out.bytes, &mut exec.reply);
        self.staged = Some(std::mem::take(&mut exec.staged));
        (std::mem::take(&mut self.start), std::mem::replace(&mut self.waits, exec.waits))
    }

    fn leave(&mut self, exec: &mut Exec, (start, waits): (usize, Waits)) {
        std::mem::swap(&mut self.client.out.bytes, &mut exec.reply);
        exec.staged = self.staged.take().unwrap_or_default();
        self.start = start;
        exec.waits = std::mem::replace(&mut self.waits, waits);
    }

    fn exec_step(&mut self, exec: &mut Exec) -> Result<bool, Fail> {
        let Exec { queue, at, span, inner, .. } = exec;
        while let Some((spec, args)) = queue.command(*at, *span) {
            if self.shared.work.slice_is_over() {
                return Ok(false);
            }
            self.shared.work.spend(WORK_COMMAND);
            match inner.take() {
                None | Some(Blocked::Again { .. }) => self.run(spec, args),
                Some(inner) => self.run_on(inner, args),
            }
            *inner = self.unfinished.take();
            if inner.is_some() {
                return Ok(false);
            }
            (*at, *span) = (*at + 1, *span + args.len());
            self.client.fetching.progress();
            if let Some(Staged { draft, .. }) = self.staged.as_ref().filter(|staged| !staged.draft.fits()) {
                let limit = "a transaction's items together have at most 32 MiB";
                return Err(Refusal::TooLarge { what: "transaction", found: draft.bytes(), limit }.into());
            }
            if self.client.out.bytes.len() > CLIENT_REPLY_MAX {
                return Err(format!(
                    "ERR the reply would be over {CLIENT_REPLY_MAX} bytes: nothing was done"
                )
                .into());
            }
        }
        Ok(true)
    }
}

//! MULTI, EXEC, DISCARD, WATCH: commands queued, then carried out as one batch of one journal.

use super::refusal::Fail;
use super::table::Spec;
use super::turn::Turn;
use crate::base::FileId;
use crate::base::limits::{BATCH_MAX, CLIENT_REPLY_MAX, MULTI_MAX, RESP_ARGS_MAX, RESP_REQUEST_MAX};
use crate::doors::{Backend, Refusal, Update};
use crate::format::resp::{self, Args, Span};
use bytes::Bytes;
use std::collections::BTreeMap;

/// Commands between MULTI and EXEC, their arguments one after another in one buffer.
#[derive(Debug, Default)]
pub(super) struct Queue {
    bytes: Vec<u8>,
    spans: Vec<Span>,
    commands: Vec<(&'static Spec, usize)>,
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

    /// How many commands.
    pub(super) fn len(&self) -> usize {
        self.commands.len()
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
            return Err("OOM the node's memory for clients is used up: try again later");
        }
        for arg in args.tail(0) {
            self.spans.push(Span::new(self.bytes.len(), arg.len()));
            self.bytes.extend_from_slice(arg);
        }
        self.commands.push((spec, args.len()));
        Ok(())
    }

    fn each(&self) -> impl Iterator<Item = (&'static Spec, Args<'_>)> {
        let mut spans = self.spans.as_slice();
        self.commands.iter().map(move |(spec, count)| {
            let (args, rest) = spans.split_at(*count);
            spans = rest;
            (*spec, Args::new(&self.bytes, args))
        })
    }
}

/// What a transaction has updated so far: each item's last state, in the order in which items were first touched.
#[derive(Debug, Default)]
pub(super) struct Staged {
    items: Vec<(FileId, Vec<u8>, Option<Bytes>)>,
    index: BTreeMap<FileId, BTreeMap<Vec<u8>, usize>>,
    bytes: usize,
}

impl Staged {
    /// The item's state if the transaction touched it.
    pub(super) fn value(&self, file: FileId, id: &[u8]) -> Option<&Option<Bytes>> {
        let at = self.index.get(&file)?.get(id)?;
        self.items.get(*at).map(|(_, _, value)| value)
    }

    /// Notes an update.
    pub(super) fn put(&mut self, update: &Update<'_>) {
        let (file, id, value) = match update {
            Update::Put { file, id, value } => (*file, *id, Some(Bytes::copy_from_slice(value))),
            Update::Delete { file, id } => (*file, *id, None),
        };
        let len = |value: &Option<Bytes>| value.as_ref().map_or(0, Bytes::len);
        self.bytes += len(&value);
        let at = self.index.get(&file).and_then(|ids| ids.get(id));
        match at.and_then(|at| self.items.get_mut(*at)) {
            Some((_, _, old)) => {
                self.bytes -= len(old);
                *old = value;
            }
            None => {
                self.bytes += id.len();
                self.index.entry(file).or_default().insert(id.to_vec(), self.items.len());
                self.items.push((file, id.to_vec(), value));
            }
        }
    }

    fn updates(&self) -> Vec<Update<'_>> {
        self.items
            .iter()
            .map(|(file, id, value)| match value {
                Some(value) => Update::Put { file: *file, id, value },
                None => Update::Delete { file: *file, id },
            })
            .collect()
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
        for key in args.tail(1) {
            let (file, id) = self.key(key)?;
            if !self.shared.watches.watch(self.client.conn, file, id) {
                return Err("ERR too many keys are watched".into());
            }
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
        let dirty = self.shared.watches.end(self.client.conn);
        if queue.void {
            return Err("EXECABORT Transaction discarded because of previous errors.".into());
        }
        if dirty {
            resp::null_array(&mut self.client.out.bytes, self.client.version);
            return Ok(());
        }
        resp::array(&mut self.client.out.bytes, queue.commands.len());
        self.staged = Some(Staged::default());
        for (spec, args) in queue.each() {
            self.run(spec, args);
            let staged = self.staged.as_ref().map_or(0, |staged| staged.bytes);
            if staged > BATCH_MAX {
                self.staged = None;
                let limit = "a transaction's items together have at most 32 MiB";
                return Err(Refusal::TooLarge { what: "transaction", found: staged, limit }.into());
            }
            if self.client.out.bytes.len() - self.start > CLIENT_REPLY_MAX {
                self.staged = None;
                return Err(format!(
                    "ERR the reply would be over {CLIENT_REPLY_MAX} bytes: nothing was done"
                )
                .into());
            }
        }
        match self.staged.take() {
            Some(staged) if !staged.items.is_empty() => self.write(&staged.updates()),
            _ => Ok(()),
        }
    }
}

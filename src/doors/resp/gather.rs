//! Commands of many keys: DEL, EXISTS, MGET, MSET, MSETNX. They are carried out in steps between which other clients are
//! served, and yet as one: such a command is as if all of it happened at its end.
//!
//! What another changes meanwhile among the keys that were read already is read again before the end. So nobody waits
//! for the command, and it waits for nobody: if the others change its keys faster than it reads them, it gets one long
//! turn, and is refused if that does not do. Within EXEC the transaction looks after that: it begins anew.

use super::index::Index;
use super::refusal::Fail;
use super::session::Blocked;
use super::turn::Turn;
use crate::base::limits::{
    ANEW_MAX, CLIENT_REPLY_MAX, CLIENTS_MEMORY_MAX, LONG_TURN_SLICES, RECEIVE_MIN, WORK_COMMAND,
};
use crate::doors::{Backend, Change, Update};
use crate::format::resp::{self, Args};
use bytes::Bytes;

/// What others do to a command that is never done.
pub(super) const TOO_BUSY: &str = "ERR what this command reads is changed faster than it can be read: nothing was done; try again or ask for less at once";
const NO_MEMORY: &str = "OOM the node's memory for clients is used up: try again later";

/// Which command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Delete,
    Exists,
    Get,
    Put,
    PutIfAbsent,
}

impl What {
    /// From one key to the next.
    fn stride(self) -> usize {
        if matches!(self, Self::Put | Self::PutIfAbsent) { 2 } else { 1 }
    }

    fn keys(self, args: Args<'_>) -> usize {
        (args.len() - 1) / self.stride()
    }
}

/// Such a command under way. Its arguments stay where they were received.
#[derive(Debug)]
pub(super) struct Gather {
    what: What,
    keys: usize,
    /// Keys read so far.
    next: usize,
    /// What was read, by place; of MGET only.
    values: Vec<Option<Bytes>>,
    /// Whether it was there, by place.
    there: Vec<bool>,
    /// How many were.
    count: usize,
    /// The values' bytes.
    bytes: usize,
    /// Of the keys read, once it was interrupted.
    index: Option<Index>,
    /// Places to be read again, each with those of the same key before it.
    again: Vec<u32>,
    /// The next of these, and what was read for the last.
    same: Option<(u32, Option<Bytes>)>,
    /// Changes looked at.
    seen: u64,
    /// Turns that should have been the last.
    late: u32,
    /// Inside EXEC: keys updated so far, and how many of them were deleted.
    put: usize,
    gone: usize,
    /// MGET: the reply so far, and how many values it has. They are what they are from then on.
    reply: Option<(Vec<u8>, usize)>,
}

impl Gather {
    fn empty(what: What, keys: usize) -> Self {
        Self {
            what,
            keys,
            next: 0,
            values: Vec::new(),
            there: Vec::new(),
            count: 0,
            bytes: 0,
            index: None,
            again: Vec::new(),
            same: None,
            seen: 0,
            late: 0,
            put: 0,
            gone: 0,
            reply: None,
        }
    }

    /// Memory held (bytes).
    pub(super) fn bytes(&self) -> usize {
        let index = self.index.as_ref().map_or(0, Index::bytes);
        let reply = self.reply.as_ref().map_or(0, |(reply, _)| reply.capacity());
        let values = self.values.capacity() * size_of::<Option<Bytes>>() + self.bytes;
        values + self.there.capacity() + self.again.capacity() * size_of::<u32>() + index + reply
    }

    /// Whether it has to know what others change.
    pub(super) fn tracks(&self) -> bool {
        self.index.is_some()
    }

    /// Everything is to be read anew.
    fn begin_anew(&mut self) {
        *self = Self {
            index: Some(Index::with_capacity(self.keys)),
            seen: self.seen,
            late: self.late + 1,
            ..Self::empty(self.what, self.keys)
        };
    }

    fn key<'a>(&self, args: Args<'a>, place: usize) -> &'a [u8] {
        args.at(1 + place * self.what.stride())
    }

    /// Keeps what was read at `place`.
    fn keep(&mut self, place: usize, value: Option<Bytes>) {
        let there = value.is_some();
        if place == self.there.len() {
            self.there.push(false);
            if self.what == What::Get {
                self.values.push(None);
            }
        }
        if let Some(old) = self.there.get_mut(place) {
            self.count = self.count - usize::from(*old) + usize::from(there);
            *old = there;
        }
        if let Some(old) = self.values.get_mut(place) {
            let len = |value: &Option<Bytes>| value.as_ref().map_or(0, Bytes::len);
            self.bytes = self.bytes - len(old) + len(&value);
            *old = value;
        }
    }
}

impl<B: Backend> Turn<'_, B> {
    /// Begins such a command.
    pub(super) fn gather(&mut self, what: What, args: Args<'_>) -> Result<(), Fail> {
        self.gather_on(Box::new(Gather::empty(what, what.keys(args))), args)
    }

    /// Goes on with it, and answers when it is done.
    pub(super) fn gather_on(&mut self, mut gather: Box<Gather>, args: Args<'_>) -> Result<(), Fail> {
        let done = self.gather_step(&mut gather, args)?;
        if !done {
            self.unfinished = Some(Blocked::Gather(gather));
        }
        Ok(())
    }

    fn gather_step(&mut self, gather: &mut Gather, args: Args<'_>) -> Result<bool, Fail> {
        if gather.reply.is_some() {
            return self.tell_values(gather);
        }
        let reads = match gather.what {
            What::Put => false,
            What::Delete => self.staged.is_none(),
            _ => true,
        };
        if reads && !self.read_keys(gather, args)? {
            return Ok(false);
        }
        match gather.what {
            What::Get => {
                let mut reply = Vec::new();
                resp::array(&mut reply, gather.keys);
                gather.reply = Some((reply, 0));
                self.tell_values(gather)
            }
            What::Exists => {
                self.count(gather.count)?;
                Ok(true)
            }
            What::Delete if self.staged.is_some() => self.delete_staged(gather, args),
            What::Delete => self.delete_found(gather, args),
            What::Put => {
                let done = self.put_all(gather, args)?;
                if done {
                    self.ok()?;
                }
                Ok(done)
            }
            What::PutIfAbsent if gather.count > 0 => {
                self.integer(0)?;
                Ok(true)
            }
            What::PutIfAbsent => {
                let done = self.put_all(gather, args)?;
                if done {
                    self.integer(1)?;
                }
                Ok(done)
            }
        }
    }

    /// Reads until all is read and nothing of it was changed since, or the turn is over.
    fn read_keys(&mut self, gather: &mut Gather, args: Args<'_>) -> Result<bool, Fail> {
        if gather.index.is_some() {
            self.note_changes(gather)?;
            if gather.next == gather.keys {
                gather.late += 1;
            }
            if gather.late > ANEW_MAX {
                self.shared.work.begin_slice(0, LONG_TURN_SLICES);
            }
        }
        if !self.read_again(gather, args)? {
            return if gather.late > ANEW_MAX { Err(TOO_BUSY.into()) } else { Ok(false) };
        }
        while gather.next < gather.keys {
            if self.shared.work.slice_is_over() {
                self.interrupt(gather, args)?;
                return Ok(false);
            }
            self.read_place(gather, args, gather.next)?;
            if gather.tracks() {
                let (file, id) = self.key(gather.key(args, gather.next))?;
                let item = self.backend.item_hash(file, id);
                gather.index.iter_mut().for_each(|index| index.push(item));
            }
            gather.next += 1;
            if gather.what == What::PutIfAbsent && gather.count > 0 {
                return Ok(true);
            }
        }
        Ok(true)
    }

    /// Reads what was changed; those that stand for the same item are read once.
    fn read_again(&mut self, gather: &mut Gather, args: Args<'_>) -> Result<bool, Fail> {
        loop {
            while let Some((place, value)) = gather.same.take() {
                self.shared.work.spend(WORK_COMMAND / 4);
                gather.keep(place as usize, value.clone());
                let before = gather.index.as_ref().and_then(|index| index.before(place));
                gather.same = before.map(|before| (before, value));
                if self.shared.work.slice_is_over() {
                    return Ok(gather.same.is_none() && gather.again.is_empty());
                }
            }
            let Some(place) = gather.again.pop() else { return Ok(true) };
            let item = self.key(gather.key(args, place as usize))?;
            let value = self.read(item)?;
            gather.same = Some((place, value));
        }
    }

    fn read_place(&mut self, gather: &mut Gather, args: Args<'_>, place: usize) -> Result<(), Fail> {
        let item = self.key(gather.key(args, place))?;
        let value = self.read(item)?;
        gather.keep(place, value);
        if gather.bytes > RECEIVE_MIN && self.shared.memory > CLIENTS_MEMORY_MAX {
            return Err(NO_MEMORY.into());
        }
        if gather.bytes > CLIENT_REPLY_MAX {
            return Err(format!(
                "ERR the reply would be over {CLIENT_REPLY_MAX} bytes: ask for less at once"
            )
            .into());
        }
        Ok(())
    }

    /// Others are served before this is done: from now on their changes matter.
    fn interrupt(&mut self, gather: &mut Gather, args: Args<'_>) -> Result<(), Fail> {
        if self.staged.is_some() || gather.index.is_some() {
            return Ok(());
        }
        if self.shared.memory + gather.keys * Index::BYTES_EACH + gather.bytes() > CLIENTS_MEMORY_MAX {
            return Err(NO_MEMORY.into());
        }
        let mut index = Index::with_capacity(gather.keys);
        for place in 0..gather.next {
            let (file, id) = self.key(gather.key(args, place))?;
            index.push(self.backend.item_hash(file, id));
        }
        gather.index = Some(index);
        gather.seen = self.shared.changes.begin(self.backend);
        Ok(())
    }

    /// Finds out what has to be read again.
    fn note_changes(&mut self, gather: &mut Gather) -> Result<(), Fail> {
        self.shared.learn(self.backend);
        let (mut looked, mut anew) = (0, false);
        match (&gather.index, self.shared.changes.since(gather.seen)) {
            (Some(index), Some(changes)) => {
                for change in changes {
                    looked += 1;
                    match change {
                        Change::Item(item) => gather.again.extend(index.places(*item).take(1)),
                        Change::File(_) | Change::All => anew = true,
                    }
                }
            }
            // More was changed than is remembered.
            _ => anew = true,
        }
        gather.seen = self.shared.changes.next();
        gather.again.sort_unstable();
        gather.again.dedup();
        self.shared.work.spend(looked * WORK_COMMAND);
        if anew {
            gather.begin_anew();
        }
        if gather.late > 2 * ANEW_MAX { Err(TOO_BUSY.into()) } else { Ok(()) }
    }

    fn tell_values(&mut self, gather: &mut Gather) -> Result<bool, Fail> {
        let Some((reply, next)) = &mut gather.reply else { return Ok(true) };
        while let Some(value) = gather.values.get_mut(*next) {
            if self.shared.work.slice_is_over() {
                return Ok(false);
            }
            let value = value.take();
            self.shared.work.spend(WORK_COMMAND / 4 + value.as_ref().map_or(0, Bytes::len) / 4);
            match &value {
                Some(value) => resp::bulk(reply, value),
                None => resp::null(reply, self.client.version),
            }
            *next += 1;
        }
        let reply = std::mem::take(reply);
        self.check_reply(reply.len())?;
        self.client.out.append(reply);
        Ok(true)
    }

    /// Within a transaction each key is told by the transaction's own state, so one that stands twice is deleted once.
    fn delete_staged(&mut self, gather: &mut Gather, args: Args<'_>) -> Result<bool, Fail> {
        while gather.put < gather.keys {
            if self.shared.work.slice_is_over() {
                return Ok(false);
            }
            let (file, id) = self.key(gather.key(args, gather.put))?;
            if self.read((file, id))?.is_some() {
                self.write(&[Update::Delete { file, id }])?;
                gather.gone += 1;
            }
            gather.put += 1;
        }
        self.count(gather.gone)?;
        Ok(true)
    }

    fn delete_found(&mut self, gather: &mut Gather, args: Args<'_>) -> Result<bool, Fail> {
        let mut gone = Vec::with_capacity(gather.count);
        for (place, _) in gather.there.iter().enumerate().filter(|(_, there)| **there) {
            let first = gather.index.as_ref().is_none_or(|index| {
                let key = gather.key(args, place);
                index.earlier(place).all(|other| gather.key(args, other) != key)
            });
            if first {
                gone.push(self.key(gather.key(args, place))?);
            }
        }
        if gather.index.is_none() {
            gone.sort_unstable();
            gone.dedup();
        }
        if !gone.is_empty() {
            let updates: Vec<_> = gone.iter().map(|&(file, id)| Update::Delete { file, id }).collect();
            self.write(&updates)?;
        }
        self.count(gone.len())?;
        Ok(true)
    }

    fn put_all(&mut self, gather: &mut Gather, args: Args<'_>) -> Result<bool, Fail> {
        if self.staged.is_some() {
            while gather.put < gather.keys {
                if self.shared.work.slice_is_over() {
                    return Ok(false);
                }
                let at = 1 + gather.put * 2;
                let (file, id) = self.key(args.at(at))?;
                self.write(&[Update::Put { file, id, value: args.at(at + 1) }])?;
                gather.put += 1;
            }
            return Ok(true);
        }
        let mut updates = Vec::with_capacity(gather.keys);
        for at in (1..args.len()).step_by(2) {
            let (file, id) = self.key(args.at(at))?;
            updates.push(Update::Put { file, id, value: args.at(at + 1) });
        }
        self.write(&updates)?;
        Ok(true)
    }
}

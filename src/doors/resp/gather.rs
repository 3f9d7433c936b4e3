//! Commands of many keys: DEL, EXISTS, MGET, MSET, MSETNX. They are carried out in steps between which other clients are
//! served, and yet as one: such a command is as if all of it happened at its end.
//!
//! What another changes meanwhile among the keys that were read already is read again before the end. So nobody waits
//! for the command, and it waits for nobody: if the others change its keys faster than it reads them, it gets one long
//! turn, and is refused if that does not do. Within EXEC the transaction looks after that: it begins anew.

use super::RespShared;
use super::pile::Pile;
use super::refusal::{Fail, NO_MEMORY};
use super::session::Blocked;
use super::turn::{Turn, draft};
use crate::base::limits::{
    ANEW_MAX, CLIENT_REPLY_MAX, DIRECT_ITEMS_MAX, FETCH_AHEAD, LONG_TURN_SLICES, RECEIVE_MIN, WORK_COMMAND,
    WORK_READ, WORK_UPDATE,
};
use crate::doors::index::Index;
use crate::doors::{Backend, Change, Draft, Refusal, Update};
use crate::format::resp::{self, Args};
use bytes::Bytes;

/// What others do to a command that is never done.
pub(super) const TOO_BUSY: &str = "ERR what this command reads is changed faster than it can be read: nothing was done; try again or ask for less at once";

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

/// What was found of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    Item,
    /// The key stands further in front, too; of DEL only.
    Again,
}

/// Such a command under way. Its arguments stay where they were received.
#[derive(Debug)]
pub(super) struct Gather {
    what: What,
    keys: usize,
    /// Keys read so far.
    next: usize,
    /// Keys that are in the index.
    indexed: usize,
    /// What was read, by place; of MGET only.
    values: Vec<Option<Bytes>>,
    /// What was found, by place.
    found: Vec<Found>,
    /// How many were there.
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
    /// The updates, put together in steps when there are many.
    draft: Draft,
    /// Keys that are in it, or within EXEC in that of the transaction.
    put: usize,
    /// Within EXEC: how many were deleted.
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
            indexed: 0,
            values: Vec::new(),
            found: Vec::new(),
            count: 0,
            bytes: 0,
            index: None,
            again: Vec::new(),
            same: None,
            seen: 0,
            late: 0,
            draft: Draft::default(),
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
        let found = self.found.capacity() + self.draft.held();
        values + found + self.again.capacity() * size_of::<u32>() + index + reply
    }

    /// Whether it makes updates in the end.
    pub(super) fn may_change(&self) -> bool {
        matches!(self.what, What::Delete | What::Put | What::PutIfAbsent)
    }

    /// Whether it has to know what others change.
    pub(super) fn tracks(&self) -> bool {
        self.index.is_some()
    }

    /// Everything is to be read anew.
    fn begin_anew(&mut self, pile: &mut Pile) {
        let anew = Self {
            index: Some(Index::with_capacity(self.keys)),
            seen: self.seen,
            late: self.late + 1,
            ..Self::empty(self.what, self.keys)
        };
        std::mem::replace(self, anew).leave(pile);
    }

    /// It is over: what it holds is freed little by little.
    pub(super) fn leave(self, pile: &mut Pile) {
        pile.add_values(self.values);
        pile.add_draft(self.draft);
    }

    fn key<'a>(&self, args: Args<'a>, place: usize) -> &'a [u8] {
        args.at(1 + place * self.what.stride())
    }

    /// Keeps what was read at `place`.
    fn keep(&mut self, place: usize, value: Option<Bytes>) {
        if place == self.found.len() {
            self.found.push(Found::Nothing);
            if self.what == What::Get {
                self.values.push(None);
            }
        }
        if let Some(found) = self.found.get_mut(place).filter(|found| **found != Found::Again) {
            let there = if value.is_some() { Found::Item } else { Found::Nothing };
            self.count = self.count + usize::from(there == Found::Item) - usize::from(*found == Found::Item);
            *found = there;
        }
        if let Some(old) = self.values.get_mut(place) {
            let len = |value: &Option<Bytes>| value.as_ref().map_or(0, Bytes::len);
            self.bytes = self.bytes - len(old) + len(&value);
            *old = value;
        }
    }

    /// DEL: a key that stands further in front, too, counts there.
    fn note_again(&mut self, args: Args<'_>, place: usize) -> bool {
        let Some(index) = self.index.as_ref().filter(|_| self.what == What::Delete) else { return false };
        let key = self.key(args, place);
        if !index.earlier(place).any(|other| self.key(args, other) == key) {
            return false;
        }
        match self.found.get_mut(place) {
            None => self.found.push(Found::Again),
            Some(found) => self.count -= usize::from(std::mem::replace(found, Found::Again) == Found::Item),
        }
        true
    }
}

impl<B: Backend> Turn<'_, B> {
    /// Begins such a command.
    pub(super) fn gather(&mut self, what: What, args: Args<'_>) -> Result<(), Fail> {
        self.gather_on(Box::new(Gather::empty(what, what.keys(args))), args)
    }

    /// Goes on with it, and answers when it is done.
    pub(super) fn gather_on(&mut self, mut gather: Box<Gather>, args: Args<'_>) -> Result<(), Fail> {
        match self.gather_step(&mut gather, args) {
            Ok(false) => self.unfinished = Some(Blocked::Gather(gather)),
            Ok(true) => gather.leave(&mut self.shared.pile),
            Err(Fail::Cold(fetch)) => {
                self.wait_for_fetch(fetch);
                if let Err(fail) = self.interrupt(&mut gather, args) {
                    self.client.fetching.forget(&mut self.shared.fetches);
                    gather.leave(&mut self.shared.pile);
                    return Err(fail);
                }
                self.unfinished = Some(Blocked::Gather(gather));
            }
            Err(fail) => {
                gather.leave(&mut self.shared.pile);
                return Err(fail);
            }
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
            What::Delete => {
                let done = self.update_all(gather, args)?;
                if done {
                    self.count(gather.gone)?;
                }
                Ok(done)
            }
            What::PutIfAbsent if gather.count > 0 => {
                self.integer(0)?;
                Ok(true)
            }
            What::Put | What::PutIfAbsent => {
                let done = self.update_all(gather, args)?;
                match gather.what {
                    _ if !done => {}
                    What::Put => self.ok()?,
                    _ => self.integer(1)?,
                }
                Ok(done)
            }
        }
    }

    /// Reads until all is read and nothing of it was changed since, or the turn is over.
    fn read_keys(&mut self, gather: &mut Gather, args: Args<'_>) -> Result<bool, Fail> {
        if gather.index.is_some() {
            if gather.late > ANEW_MAX {
                self.is_last_turn = true;
                self.shared.work.begin_slice(0, LONG_TURN_SLICES);
            }
            if !self.note_changes(gather)? {
                return if gather.late > ANEW_MAX { Err(TOO_BUSY.into()) } else { Ok(false) };
            }
        }
        if !self.read_again(gather, args)? {
            let last = gather.late > ANEW_MAX;
            gather.late += u32::from(gather.next == gather.keys);
            return if last { Err(TOO_BUSY.into()) } else { Ok(false) };
        }
        while gather.next < gather.keys {
            if self.shared.work.slice_is_over() {
                self.interrupt(gather, args)?;
                return Ok(false);
            }
            if gather.tracks() && gather.indexed == gather.next {
                gather.indexed += 1;
                let (file, id) = self.key(gather.key(args, gather.next))?;
                let item = self.backend.item_hash(file, id);
                gather.index.iter_mut().for_each(|index| index.push(item));
                self.shared.work.spend(WORK_COMMAND / 4);
            }
            if !gather.note_again(args, gather.next) {
                if let Err(fail) = self.read_place(gather, args, gather.next) {
                    self.fetch_keys(gather, args, &fail);
                    return Err(fail);
                }
                self.client.fetching.progress();
            }
            gather.next += 1;
            if gather.what == What::PutIfAbsent && gather.count > 0 {
                return Ok(true);
            }
        }
        Ok(true)
    }

    /// The next key is not in memory: neither are those behind it, perhaps.
    fn fetch_keys(&mut self, gather: &Gather, args: Args<'_>, fail: &Fail) {
        let Fail::Cold(_) = fail else { return };
        for place in (gather.next + 1..gather.keys).take(FETCH_AHEAD - 1) {
            if let Ok(item) = self.key(gather.key(args, place)) {
                self.shared.work.spend(WORK_READ);
                self.fetch_ahead(item);
            }
        }
    }

    /// Reads what was changed; those that stand for the same item are read once.
    fn read_again(&mut self, gather: &mut Gather, args: Args<'_>) -> Result<bool, Fail> {
        loop {
            while let Some((place, value)) = gather.same.take() {
                self.shared.work.spend(WORK_COMMAND / 4);
                gather.keep(place as usize, value.clone());
                self.draft_again(gather, args, place as usize)?;
                let before = gather.index.as_ref().and_then(|index| index.before(place));
                gather.same = before.map(|before| (before, value));
                if self.shared.work.slice_is_over() {
                    return Ok(gather.same.is_none() && gather.again.is_empty());
                }
            }
            let Some(place) = gather.again.last().copied() else { return Ok(true) };
            let item = self.key(gather.key(args, place as usize))?;
            let value = self.read(item)?;
            self.client.fetching.progress();
            gather.again.pop();
            gather.same = Some((place, value));
        }
    }

    fn read_place(&mut self, gather: &mut Gather, args: Args<'_>, place: usize) -> Result<(), Fail> {
        let item = self.key(gather.key(args, place))?;
        let value = self.read(item)?;
        gather.keep(place, value);
        if gather.bytes > RECEIVE_MIN && !self.shared.has_room(gather.bytes, 0) {
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

    /// Others are served before this is done: from now on their changes matter to what was read.
    fn interrupt(&mut self, gather: &mut Gather, args: Args<'_>) -> Result<(), Fail> {
        if self.staged.is_some() || gather.index.is_some() {
            return Ok(());
        }
        let more = gather.keys * Index::BYTES_EACH + gather.bytes();
        if !self.shared.has_room(more, more) {
            return Err(NO_MEMORY.into());
        }
        if gather.what == What::Put {
            // It reads nothing.
            return Ok(());
        }
        let mut index = Index::with_capacity(gather.keys);
        for place in 0..gather.next {
            let (file, id) = self.key(gather.key(args, place))?;
            index.push(self.backend.item_hash(file, id));
        }
        gather.index = Some(index);
        gather.indexed = gather.next;
        for place in 0..gather.next {
            gather.note_again(args, place);
        }
        gather.seen = self.shared.changes.begin(self.backend);
        Ok(())
    }

    /// Finds out what has to be read again. False when the turn is over before all changes were looked at; if others
    /// change more than is looked at, that comes to an end as soon as more was changed than is remembered.
    fn note_changes(&mut self, gather: &mut Gather) -> Result<bool, Fail> {
        self.shared.learn(self.backend);
        let RespShared { changes, work, pile, .. } = &mut *self.shared;
        let (mut anew, mut all) = (false, true);
        match (&gather.index, changes.since(gather.seen)) {
            (Some(index), Some(changes)) => {
                for change in changes {
                    if work.slice_is_over() {
                        all = false;
                        break;
                    }
                    work.spend(WORK_COMMAND);
                    gather.seen += 1;
                    match *change {
                        Change::Item(item) => gather.again.extend(index.places(item).take(1)),
                        Change::File(_) | Change::All => anew = true,
                    }
                }
            }
            // More was changed than is remembered.
            _ => anew = true,
        }
        if anew {
            (gather.seen, all) = (changes.next(), true);
            gather.begin_anew(pile);
        }
        if all {
            gather.again.sort_unstable();
            gather.again.dedup();
        }
        if gather.late > 2 * ANEW_MAX { Err(TOO_BUSY.into()) } else { Ok(all) }
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

    /// DEL: an item that came meanwhile goes, too.
    fn draft_again(&mut self, gather: &mut Gather, args: Args<'_>, place: usize) -> Result<(), Fail> {
        if gather.what == What::Delete && place < gather.put && gather.found.get(place) == Some(&Found::Item)
        {
            let (file, id) = self.key(gather.key(args, place))?;
            draft(&mut gather.draft, self.backend, &Update::Delete { file, id })?;
        }
        Ok(())
    }

    /// Makes the updates, in steps until the last one, which makes them all.
    fn update_all(&mut self, gather: &mut Gather, args: Args<'_>) -> Result<bool, Fail> {
        if self.staged.is_none() && gather.put == 0 && gather.keys <= DIRECT_ITEMS_MAX {
            return self.update_at_once(gather, args);
        }
        if gather.put == 0 {
            let draft = self.staged.as_mut().map_or(&mut gather.draft, |staged| &mut staged.draft);
            draft.reserve(gather.keys);
        }
        while gather.put < gather.keys {
            if self.shared.work.slice_is_over() {
                self.interrupt(gather, args)?;
                return Ok(false);
            }
            self.update_one(gather, args, gather.put)?;
            gather.put += 1;
        }
        if self.staged.is_some() {
            return Ok(true);
        }
        if !gather.draft.fits() {
            let limit = "at most 32 MiB in one batch";
            return Err(
                Refusal::TooLarge { what: "transaction", found: gather.draft.batch_len(), limit }.into()
            );
        }
        if !self.encode(&mut gather.draft) {
            self.interrupt(gather, args)?;
            return Ok(false);
        }
        gather.gone = gather.count;
        self.commit(std::mem::take(&mut gather.draft))?;
        Ok(true)
    }

    fn update_one(&mut self, gather: &mut Gather, args: Args<'_>, place: usize) -> Result<(), Fail> {
        let (file, id) = self.key(gather.key(args, place))?;
        let update = match gather.what {
            What::Delete => Update::Delete { file, id },
            _ => Update::Put { file, id, value: args.at(2 + place * gather.what.stride()) },
        };
        if self.staged.is_none() {
            let needed = gather.what != What::Delete || gather.found.get(place) == Some(&Found::Item);
            self.shared.work.spend(WORK_UPDATE + args.at(2 + place * gather.what.stride()).len());
            return if needed { draft(&mut gather.draft, self.backend, &update) } else { Ok(()) };
        }
        // Each is told by the transaction's own state, so a key that stands twice is deleted and counted once.
        if gather.what == What::Delete && self.read((file, id))?.is_none() {
            return Ok(());
        }
        gather.gone += 1;
        self.write(&[update])
    }

    fn update_at_once(&mut self, gather: &mut Gather, args: Args<'_>) -> Result<bool, Fail> {
        let mut updates = Vec::with_capacity(gather.keys);
        for place in 0..gather.keys {
            let (file, id) = self.key(gather.key(args, place))?;
            match gather.what {
                What::Delete if gather.found.get(place) != Some(&Found::Item) => {}
                What::Delete => updates.push(Update::Delete { file, id }),
                _ => updates.push(Update::Put { file, id, value: args.at(2 + place * 2) }),
            }
        }
        if gather.what == What::Delete {
            let item = |update: &Update<'_>| match *update {
                Update::Put { file, .. } => (file, Vec::new()),
                Update::Delete { file, id } => (file, id.to_vec()),
            };
            updates.sort_by_cached_key(item);
            updates.dedup_by_key(|update| item(update));
        }
        gather.gone = updates.len();
        if !updates.is_empty() {
            self.write(&updates)?;
        }
        Ok(true)
    }
}

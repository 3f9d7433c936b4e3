//! One command's turn: finds it, checks it, carries it out, and notes what its reply waits for.

use super::connection::unknown_subcommand;
use super::gather::What;
use super::items::NO_EXPIRY;
use super::outbox::Waits;
use super::refusal::{Fail, NO_MEMORY};
use super::session::{AckWait, Blocked, Client, NO_COMMAND};
use super::table::{Cmd, Spec, flag};
use super::transaction::{Queue, Staged};
use super::{RespShared, subcommands};
use crate::base::limits::{
    CLIENT_REPLY_MAX, DIRECT_ITEMS_MAX, ITEM_ID_MAX, ITEM_VALUE_MAX, NAME_MAX, OPTIONS_MAX, WORK_COMMAND,
    WORK_READ, WORK_UPDATE,
};
use crate::base::{FileId, JournalKind, Now, Seq, Wait};
use crate::doors::{Backend, Draft, Refusal, Update};
use crate::format::resp::{self, Args, Version};
use bytes::Bytes;

/// What a command works with.
pub(super) struct Turn<'t, B: Backend> {
    pub(super) now: Now,
    pub(super) shared: &'t mut RespShared,
    pub(super) client: &'t mut Client,
    pub(super) backend: &'t mut B,
    /// What the reply waits for.
    pub(super) waits: Waits,
    /// Where in the client's replies this command's begins.
    pub(super) start: usize,
    /// Inside EXEC: updates so far, seen by the transaction only.
    pub(super) staged: Option<Staged>,
    /// What is left of the command when the client's turn is over before it is done.
    pub(super) unfinished: Option<Blocked>,
    /// It has to be done with this turn: reads wait for the disk.
    pub(super) is_last_turn: bool,
    /// It made an update whose receipt goes before its reply.
    receipt: bool,
}

/// The longest key: names, id, and two commas (bytes).
const KEY_MAX: usize = 2 * NAME_MAX + ITEM_ID_MAX + 2;
/// The longest text of an error: it may hold what a client sent (bytes).
const ERROR_MAX: usize = 1024;

impl<'t, B: Backend> Turn<'t, B> {
    /// A turn of `client`.
    pub(super) fn new(
        now: Now,
        shared: &'t mut RespShared,
        client: &'t mut Client,
        backend: &'t mut B,
    ) -> Self {
        let start = client.out.bytes.len();
        Self {
            now,
            shared,
            client,
            backend,
            waits: Waits::default(),
            start,
            staged: None,
            unfinished: None,
            is_last_turn: false,
            receipt: false,
        }
    }

    /// Carries out or queues a command as it came. Gives back what is left of it when the client's turn is over.
    pub(super) fn command(mut self, args: Args<'_>) -> Option<Blocked> {
        self.take_up(args);
        self.end()
    }

    /// Goes on with a command.
    pub(super) fn go_on(mut self, blocked: Blocked, args: Args<'_>) -> Option<Blocked> {
        self.waits = std::mem::take(&mut self.client.blocked_waits);
        self.run_on(blocked, args);
        self.end()
    }

    fn end(self) -> Option<Blocked> {
        if self.receipt && self.unfinished.is_none() && self.client.out.bytes.len() > self.start {
            self.client.attach_receipt(self.start);
        }
        if self.unfinished.is_some() {
            self.client.blocked_waits = self.waits;
        } else if !self.waits.is_empty() && self.client.out.bytes.len() > self.start {
            let marks = self.backend.watermarks();
            if self.shared.released != Some(marks) {
                self.shared.released = None;
            }
            self.client.out.hold(self.start, &self.waits, &marks);
        }
        self.unfinished
    }

    fn take_up(&mut self, args: Args<'_>) {
        self.shared.stats.commands += 1;
        self.client.active = self.now.mono;
        let Some(spec) = self.shared.lookup.find(args.at(0)) else {
            self.client.last_command = NO_COMMAND;
            return self.unknown(args);
        };
        self.shared.work.spend(WORK_COMMAND);
        if let Err(why) = self.check(spec, args) {
            return self.reject_as(spec, &why);
        }
        if self.client.queue.is_some() && !spec.has(flag::NOT_QUEUED) {
            return self.enqueue(spec, args);
        }
        self.run(spec, args);
    }

    /// What can be told without carrying it out: whether there is such a subcommand, whether the count of arguments is
    /// right, whether the client may.
    fn check(&mut self, spec: &'static Spec, args: Args<'_>) -> Result<(), String> {
        let (mut name, mut takes) = (spec.name, spec.takes(args.len()));
        if spec.has(flag::CONTAINER) && args.len() > 1 {
            let word = args.at(1);
            self.client.last_command = NO_COMMAND;
            let sub = subcommands::find(spec, word).ok_or_else(|| unknown_subcommand(spec.name, word))?;
            (name, takes) = (sub.name, sub.takes(args.len()));
        }
        self.client.last_command = name;
        if !takes {
            return Err(wrong_arity(name));
        }
        if args.len() > OPTIONS_MAX && !spec.takes_many_keys() {
            return Err(format!("ERR too many arguments for '{name}' command"));
        }
        if !self.client.authenticated && !spec.has(flag::NO_AUTH) {
            return Err("NOAUTH Authentication required.".to_owned());
        }
        Ok(())
    }

    /// Carries out a command and writes its reply, which may be an error.
    pub(super) fn run(&mut self, spec: &'static Spec, args: Args<'_>) {
        let start = self.client.out.bytes.len();
        let result = self.dispatch(spec, args);
        self.conclude(start, result, args);
    }

    /// The same for what is left of one.
    pub(super) fn run_on(&mut self, blocked: Blocked, args: Args<'_>) {
        let start = self.client.out.bytes.len();
        let result = match blocked {
            Blocked::Ack(_) => Ok(()),
            Blocked::Walk(walk) => self.walk_on(walk),
            Blocked::Gather(gather) => self.gather_on(gather, args),
            Blocked::Exec(exec) => self.exec_on(exec),
            Blocked::Watch(at) => self.watch_on(args, at),
            Blocked::Listing(listing) => self.list_on(listing, args),
            Blocked::Again { .. } => self.again(args),
        };
        self.conclude(start, result, args);
    }

    fn conclude(&mut self, start: usize, result: Result<(), Fail>, args: Args<'_>) {
        let Err(fail) = result else { return };
        self.client.out.bytes.truncate(start);
        match fail {
            Fail::Cold(fetch) => {
                self.wait_for_fetch(fetch);
                self.unfinished = Some(self.left_to_begin_anew(args));
            }
            fail => self.error(&fail.text()),
        }
    }

    pub(super) fn dispatch(&mut self, spec: &'static Spec, args: Args<'_>) -> Result<(), Fail> {
        match spec.cmd {
            Cmd::Set => self.set(args),
            Cmd::Get => self.get(args),
            Cmd::SetNx => self.set_nx(args),
            Cmd::GetDel => self.get_del(args),
            Cmd::GetEx => self.get_ex(args),
            Cmd::Expire | Cmd::SetEx => Err(NO_EXPIRY.into()),
            Cmd::GetSet => self.get_set(args),
            Cmd::GetRange => self.get_range(args),
            Cmd::StrLen => self.str_len(args),
            Cmd::Del => self.gather(What::Delete, args),
            Cmd::Exists => self.gather(What::Exists, args),
            Cmd::MGet => self.gather(What::Get, args),
            Cmd::MSet => self.gather_pairs(What::Put, args),
            Cmd::MSetNx => self.gather_pairs(What::PutIfAbsent, args),
            Cmd::Append => self.append(args),
            Cmd::Incr => self.add(args.at(1), 1),
            Cmd::Decr => self.add(args.at(1), -1),
            Cmd::IncrBy => self.incr_by(args),
            Cmd::DecrBy => self.decr_by(args),
            Cmd::Type => self.type_of(args),
            Cmd::Ttl | Cmd::ExpireTime => self.ttl(args),
            Cmd::Persist => self.persist(args),
            Cmd::Keys => self.keys(args),
            Cmd::Scan => self.scan(args),
            Cmd::DbSize => self.db_size(),
            Cmd::Multi => self.multi(),
            Cmd::Exec => self.exec(),
            Cmd::Discard => self.discard(),
            Cmd::Watch => self.watch(args),
            Cmd::Unwatch => self.unwatch(),
            Cmd::Wait => self.wait(args),
            Cmd::WaitAof => self.wait_aof(args),
            Cmd::Flush => Err(format!(
                "ERR {} is not possible here: use `hot-backup file clear account,file` on the node",
                spec.name
            )
            .into()),
            Cmd::Debug => Err("ERR DEBUG command not allowed.".into()),
            _ => self.dispatch_connection(spec, args),
        }
    }

    /// Appends an error reply.
    pub(super) fn error(&mut self, text: &str) {
        self.shared.stats.error_replies += 1;
        let end = (0..=text.len().min(ERROR_MAX)).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let (text, _) = text.split_at(end);
        resp::error(&mut self.client.out.bytes, text);
    }

    /// An error that also voids the transaction being queued.
    fn reject(&mut self, text: &str) {
        self.error(text);
        if let Some(queue) = &mut self.client.queue {
            queue.void();
        }
    }

    /// As [`Self::reject`]; an EXEC that is wrong ends its transaction, as in Redis.
    fn reject_as(&mut self, spec: &Spec, text: &str) {
        if spec.cmd != Cmd::Exec {
            return self.reject(text);
        }
        self.client.queue = None;
        self.shared.watches.end(self.client.conn);
        let why = text.strip_prefix("ERR ").unwrap_or(text);
        self.error(&format!("EXECABORT Transaction discarded because of: {why}"));
    }

    fn unknown(&mut self, args: Args<'_>) {
        const SHOWN_MAX: usize = 128;
        let name = args.at(0);
        // A browser was made to talk to this port: its headers must not be taken for commands.
        if name.eq_ignore_ascii_case(b"post") || name.eq_ignore_ascii_case(b"host:") {
            self.client.closing = true;
            return;
        }
        let cut = |bytes: &[u8], at: usize| {
            String::from_utf8_lossy(bytes.split_at(at.min(bytes.len())).0).into_owned()
        };
        let mut shown = String::new();
        for arg in args.tail(1) {
            if shown.len() >= SHOWN_MAX {
                break;
            }
            shown += &format!("'{}' ", cut(arg, SHOWN_MAX - shown.len()));
        }
        let name = cut(name, SHOWN_MAX);
        self.reject(&format!("ERR unknown command '{name}', with args beginning with: {shown}"));
    }

    /// Keeps a command for EXEC. A transaction that a watched key has made void keeps none, as in Redis.
    fn enqueue(&mut self, spec: &'static Spec, args: Args<'_>) {
        if self.shared.watches.of(self.client.conn) > 0 {
            self.shared.learn(self.backend);
            if self.shared.watches.is_dirty(self.client.conn) {
                self.client.out.bytes.extend_from_slice(b"+QUEUED\r\n");
                return;
            }
        }
        let held = self.client.queue.as_ref().map_or(0, |queue| queue.bytes());
        let full = !self.shared.has_room(held, 0);
        self.shared.work.spend(args.len() * WORK_COMMAND / 4);
        let queue = self.client.queue.get_or_insert_with(|| Box::new(Queue::default()));
        match queue.push(spec, args, full) {
            Ok(()) => self.client.out.bytes.extend_from_slice(b"+QUEUED\r\n"),
            Err(why) => self.reject(why),
        }
    }

    /// The file and the id that a key names.
    pub(super) fn key<'k>(&self, key: &'k [u8]) -> Result<(FileId, &'k [u8]), Fail> {
        if key.len() > KEY_MAX {
            let limit = "account,file,item-id has at most 513 bytes";
            return Err(Refusal::TooLarge { what: "key", found: key.len(), limit }.into());
        }
        let mut commas = key.iter().enumerate().filter(|(_, byte)| **byte == b',').map(|(at, _)| at);
        let (file, id) = match (commas.next(), commas.next()) {
            (Some(_), Some(second)) => (self.backend.resolve(&key[..second])?, &key[second + 1..]),
            _ => match &self.shared.config.default_file {
                Some(file) => (self.backend.resolve(file.as_bytes())?, key),
                None => {
                    return Err("ERR key must be account,file,item-id (no default file is configured)".into());
                }
            },
        };
        if id.is_empty() || id.len() > ITEM_ID_MAX {
            let limit = "an item id has 1 to 255 bytes";
            return Err(Refusal::TooLarge { what: "item id", found: id.len(), limit }.into());
        }
        Ok((file, id))
    }

    /// The item's value as this command has to see it.
    pub(super) fn read(&mut self, (file, id): (FileId, &[u8])) -> Result<Option<Bytes>, Fail> {
        self.shared.work.spend(WORK_READ);
        if let Some(staged) = &mut self.staged {
            let item = self.backend.item_hash(file, id);
            if let Some(drafted) = staged.draft.find(item, file, id) {
                return Ok(drafted.value.clone());
            }
            staged.reads.push(item);
        }
        let (value, wait) = self.backend.read(file, id, self.if_cold())?;
        self.shared.work.spend(value.as_ref().map_or(0, Bytes::len));
        if let Some(wait) = wait {
            self.waits.add(wait);
        }
        Ok(value)
    }

    /// Makes updates: at once, or with the rest of the transaction.
    pub(super) fn write(&mut self, updates: &[Update<'_>]) -> Result<(), Fail> {
        let bytes = |update: &Update<'_>| match update {
            Update::Put { value, .. } => value.len(),
            Update::Delete { .. } => 0,
        };
        self.shared.work.spend(updates.len() * WORK_UPDATE + updates.iter().map(bytes).sum::<usize>());
        if let Some(staged) = &mut self.staged {
            return updates.iter().try_for_each(|update| draft(&mut staged.draft, self.backend, update));
        }
        let wait = self.backend.update(updates)?;
        self.wrote(updates.len(), wait);
        Ok(())
    }

    fn wrote(&mut self, updates: usize, wait: Wait) {
        self.shared.stats.updates += updates as u64;
        self.waits.add(wait);
        self.client.last[wait.journal.index()] = wait.seq;
        if wait.journal == JournalKind::Replicated {
            self.client.last_epoch = self.backend.epoch();
            self.receipt = self.client.receipts && self.client.version == Version::V3;
        }
    }

    /// Encodes what was drafted, as far as the turn goes. A short one is taken item by item in the end.
    pub(super) fn encode(&mut self, draft: &mut Draft) -> bool {
        if draft.len() <= DIRECT_ITEMS_MAX {
            return true;
        }
        while !self.shared.work.slice_is_over() {
            let Some(bytes) = draft.encode_one() else { return true };
            self.shared.work.spend(WORK_UPDATE / 2 + bytes);
        }
        false
    }

    /// Makes the updates that were drafted, as one.
    pub(super) fn commit(&mut self, draft: Draft) -> Result<(), Fail> {
        let count = draft.len();
        if count == 0 {
            return Ok(());
        }
        let wait = match count <= DIRECT_ITEMS_MAX {
            true => self.backend.update(&draft.updates().collect::<Vec<_>>())?,
            false => self.backend.commit(draft)?,
        };
        self.wrote(count, wait);
        Ok(())
    }

    /// Appends `+OK`.
    pub(super) fn ok(&mut self) -> Result<(), Fail> {
        self.client.out.bytes.extend_from_slice(b"+OK\r\n");
        Ok(())
    }

    /// Appends an integer.
    pub(super) fn integer(&mut self, value: i64) -> Result<(), Fail> {
        resp::integer(&mut self.client.out.bytes, value);
        Ok(())
    }

    /// Appends a bulk string, if there is room for it.
    pub(super) fn bulk(&mut self, bytes: &[u8]) -> Result<(), Fail> {
        self.check_reply(bytes.len())?;
        self.shared.work.spend(bytes.len() / 4);
        resp::bulk(&mut self.client.out.bytes, bytes);
        Ok(())
    }

    /// Whether the reply may take so many bytes more.
    pub(super) fn check_reply(&self, more: usize) -> Result<(), Fail> {
        const SMALL: usize = 4096;
        let reply = self.client.out.bytes.len() - self.start + more;
        if reply > CLIENT_REPLY_MAX {
            return Err(format!(
                "ERR the reply would be over {CLIENT_REPLY_MAX} bytes: ask for less at once"
            )
            .into());
        }
        if reply > SMALL && !self.shared.has_room(reply, reply) {
            return Err(NO_MEMORY.into());
        }
        Ok(())
    }

    /// Appends a bulk string or nothing.
    pub(super) fn bulk_or_null(&mut self, bytes: Option<&[u8]>) -> Result<(), Fail> {
        match bytes {
            Some(bytes) => self.bulk(bytes),
            None => {
                resp::null(&mut self.client.out.bytes, self.client.version);
                Ok(())
            }
        }
    }

    fn wait(&mut self, args: Args<'_>) -> Result<(), Fail> {
        if !self.backend.view().primary {
            return Err("ERR WAIT cannot be used with replica instances: this node is the standby".into());
        }
        let replicas = self.parse_integer(args.at(1))?;
        self.wait_for(None, replicas, args.at(2))
    }

    fn wait_aof(&mut self, args: Args<'_>) -> Result<(), Fail> {
        let local = self.parse_integer(args.at(1))?;
        if !(0..=1).contains(&local) {
            return Err("ERR value is out of range, value must between 0 and 1".into());
        }
        let replicas = self.parse_integer(args.at(2))?;
        if replicas < 0 {
            return Err("ERR value is out of range, must be positive".into());
        }
        if replicas > 0 && !self.backend.view().primary {
            return Err("ERR WAITAOF cannot be used with replica instances: this node is the standby".into());
        }
        self.wait_for(Some(local.unsigned_abs()), replicas, args.at(3))
    }

    fn wait_for(&mut self, local: Option<u64>, replicas: i64, timeout: &[u8]) -> Result<(), Fail> {
        let timeout = super::items::parse_integer(timeout)
            .ok_or(Fail::from("ERR timeout is not an integer or out of range"))?;
        let timeout = u64::try_from(timeout).map_err(|_| Fail::from("ERR timeout is negative"))?;
        let replicated = JournalKind::Replicated.index();
        let (mut here, mut there) = (self.client.last, self.client.last[replicated]);
        if there == Seq(0) {
            there = self.backend.appended();
        }
        if here == [Seq(0); 2] {
            here[replicated] = there;
        }
        let deadline = (timeout > 0).then(|| self.now.mono.plus_ms(timeout));
        let wait = AckWait { here, there, local, replicas: u64::try_from(replicas).unwrap_or(0), deadline };
        let counts = wait.counts(self.backend, &self.backend.watermarks());
        if wait.enough(counts) || self.staged.is_some() {
            wait.reply(&mut self.client.out.bytes, counts);
            return Ok(());
        }
        if let Some(deadline) = deadline {
            self.shared.deadlines.insert((deadline, self.client.conn));
        }
        self.shared.blocked += 1;
        self.client.blocked = Some(Blocked::Ack(wait));
        Ok(())
    }
}

/// Puts an update into a draft.
pub(super) fn draft<B: Backend>(draft: &mut Draft, backend: &B, update: &Update<'_>) -> Result<(), Fail> {
    let (file, id) = match update {
        Update::Put { value, .. } if value.len() > ITEM_VALUE_MAX => {
            let limit = "an item's value has at most 16 MiB";
            return Err(Refusal::TooLarge { what: "item value", found: value.len(), limit }.into());
        }
        Update::Put { file, id, .. } | Update::Delete { file, id } => (*file, *id),
    };
    draft.put(backend.item_hash(file, id), update);
    Ok(())
}

/// Redis's text for a wrong number of arguments; `name` may be `command|subcommand`.
pub(super) fn wrong_arity(name: &str) -> String {
    format!("ERR wrong number of arguments for '{name}' command")
}

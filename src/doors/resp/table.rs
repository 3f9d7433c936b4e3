//! Every command, defined once: dispatch, arity, `COMMAND` and the rules of transactions come from here.

/// What a command does; see [`TABLE`] for its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cmd {
    Append,
    Auth,
    Client,
    Command,
    Config,
    DbSize,
    Debug,
    Decr,
    DecrBy,
    Del,
    Discard,
    Echo,
    Exec,
    Exists,
    Expire,
    ExpireTime,
    Flush,
    Get,
    GetDel,
    GetEx,
    GetRange,
    GetSet,
    Hello,
    Incr,
    IncrBy,
    Info,
    Keys,
    Memory,
    MGet,
    MSet,
    MSetNx,
    Multi,
    Persist,
    Ping,
    Quit,
    ReadMode,
    Reset,
    Role,
    Scan,
    Select,
    Set,
    SetEx,
    SetNx,
    StrLen,
    Time,
    Ttl,
    Type,
    Unwatch,
    Wait,
    WaitAof,
    Watch,
}

/// Redis's flags of a command, as far as they apply here.
pub(super) mod flag {
    /// Changes items.
    pub(in super::super) const WRITE: u16 = 1;
    /// Reads items.
    pub(in super::super) const READ: u16 = 1 << 1;
    /// Takes the same short time whatever the database holds.
    pub(in super::super) const FAST: u16 = 1 << 2;
    /// May be used before authentication.
    pub(in super::super) const NO_AUTH: u16 = 1 << 3;
    /// Is carried out at once also while a transaction is being queued.
    pub(in super::super) const NOT_QUEUED: u16 = 1 << 5;
    /// For operators.
    pub(in super::super) const ADMIN: u16 = 1 << 6;
    /// May keep the client waiting.
    pub(in super::super) const BLOCKING: u16 = 1 << 7;
    /// Has subcommands.
    pub(in super::super) const CONTAINER: u16 = 1 << 8;
}
use flag::{ADMIN, BLOCKING, CONTAINER, FAST, NO_AUTH, NOT_QUEUED, READ, WRITE};

/// One command.
#[derive(Debug)]
pub(super) struct Spec {
    /// In lower case.
    pub(super) name: &'static str,
    /// What it does.
    pub(super) cmd: Cmd,
    /// Arguments, name included; negative: at least so many.
    pub(super) arity: i8,
    /// See [`flag`].
    pub(super) flags: u16,
    /// First key, last key (negative: from the end), step; 0 for no keys.
    pub(super) keys: [i8; 3],
}

impl Spec {
    /// Whether `count` arguments, name included, are right.
    pub(super) fn takes(&self, count: usize) -> bool {
        let wanted = usize::from(self.arity.unsigned_abs());
        if self.arity < 0 { count >= wanted } else { count == wanted }
    }

    /// Whether it takes as many keys as a client likes.
    pub(super) fn takes_many_keys(&self) -> bool {
        self.keys[1] < 0
    }

    /// Whether all of `flags` are set.
    pub(super) fn has(&self, flags: u16) -> bool {
        self.flags & flags == flags
    }

    /// Redis's words for the flags.
    pub(super) fn flag_names(&self) -> Vec<&'static str> {
        let words = [
            (WRITE, "write"),
            (READ, "readonly"),
            (ADMIN, "admin"),
            (FAST, "fast"),
            (NO_AUTH, "no_auth"),
            (BLOCKING, "blocking"),
        ];
        words.iter().filter(|(flag, _)| self.has(*flag)).map(|(_, word)| *word).collect()
    }

    /// Redis's categories.
    pub(super) fn categories(&self) -> Vec<&'static str> {
        let kind = if self.keys[0] > 0 { "@string" } else { "@connection" };
        let words = [
            (self.has(WRITE), "@write"),
            (self.has(READ), "@read"),
            (self.has(WRITE) || self.has(READ) || self.has(NO_AUTH), kind),
            (self.has(ADMIN), "@admin"),
            (self.has(BLOCKING), "@blocking"),
            (self.has(FAST), "@fast"),
            (!self.has(FAST), "@slow"),
        ];
        words.iter().filter(|(is, _)| *is).map(|(_, word)| *word).collect()
    }

    /// Where the keys are among `count` arguments, name included.
    pub(super) fn key_places(&self, count: usize) -> impl Iterator<Item = usize> {
        let [first, last, step] = self.keys;
        let place = |at: i8| {
            let from_end = count.checked_sub(usize::from(at.unsigned_abs()));
            if at < 0 { from_end.unwrap_or(0) } else { usize::from(at.unsigned_abs()) }
        };
        let end = if first > 0 { place(last).min(count.saturating_sub(1)) } else { 0 };
        (place(first).max(1)..=end).step_by(usize::from(step.unsigned_abs()).max(1))
    }
}

const fn spec(name: &'static str, cmd: Cmd, arity: i8, flags: u16, keys: [i8; 3]) -> Spec {
    Spec { name, cmd, arity, flags, keys }
}

const NONE: [i8; 3] = [0, 0, 0];
const ONE: [i8; 3] = [1, 1, 1];
const ALL: [i8; 3] = [1, -1, 1];
const PAIRS: [i8; 3] = [1, -1, 2];

/// Every command, in order of name.
pub(super) static TABLE: &[Spec] = &[
    spec("append", Cmd::Append, 3, WRITE | FAST, ONE),
    spec("auth", Cmd::Auth, -2, FAST | NO_AUTH, NONE),
    spec("client", Cmd::Client, -2, CONTAINER, NONE),
    spec("command", Cmd::Command, -1, CONTAINER, NONE),
    spec("config", Cmd::Config, -2, ADMIN | CONTAINER, NONE),
    spec("dbsize", Cmd::DbSize, 1, READ, NONE),
    spec("debug", Cmd::Debug, -2, ADMIN, NONE),
    spec("decr", Cmd::Decr, 2, WRITE | FAST, ONE),
    spec("decrby", Cmd::DecrBy, 3, WRITE | FAST, ONE),
    spec("del", Cmd::Del, -2, WRITE, ALL),
    spec("discard", Cmd::Discard, 1, FAST | NOT_QUEUED, NONE),
    spec("echo", Cmd::Echo, 2, FAST, NONE),
    spec("exec", Cmd::Exec, 1, NOT_QUEUED, NONE),
    spec("exists", Cmd::Exists, -2, READ | FAST, ALL),
    spec("expire", Cmd::Expire, -3, WRITE | FAST, ONE),
    spec("expireat", Cmd::Expire, -3, WRITE | FAST, ONE),
    spec("expiretime", Cmd::ExpireTime, 2, READ | FAST, ONE),
    spec("flushall", Cmd::Flush, -1, WRITE, NONE),
    spec("flushdb", Cmd::Flush, -1, WRITE, NONE),
    spec("get", Cmd::Get, 2, READ | FAST, ONE),
    spec("getdel", Cmd::GetDel, 2, WRITE | FAST, ONE),
    spec("getex", Cmd::GetEx, -2, WRITE | FAST, ONE),
    spec("getrange", Cmd::GetRange, 4, READ, ONE),
    spec("getset", Cmd::GetSet, 3, WRITE | FAST, ONE),
    spec("hello", Cmd::Hello, -1, FAST | NO_AUTH, NONE),
    spec("incr", Cmd::Incr, 2, WRITE | FAST, ONE),
    spec("incrby", Cmd::IncrBy, 3, WRITE | FAST, ONE),
    spec("info", Cmd::Info, -1, 0, NONE),
    spec("keys", Cmd::Keys, 2, READ, NONE),
    spec("memory", Cmd::Memory, -2, READ | CONTAINER, NONE),
    spec("mget", Cmd::MGet, -2, READ | FAST, ALL),
    spec("mset", Cmd::MSet, -3, WRITE, PAIRS),
    spec("msetnx", Cmd::MSetNx, -3, WRITE, PAIRS),
    spec("multi", Cmd::Multi, 1, FAST | NOT_QUEUED, NONE),
    spec("persist", Cmd::Persist, 2, WRITE | FAST, ONE),
    spec("pexpire", Cmd::Expire, -3, WRITE | FAST, ONE),
    spec("pexpireat", Cmd::Expire, -3, WRITE | FAST, ONE),
    spec("pexpiretime", Cmd::ExpireTime, 2, READ | FAST, ONE),
    spec("ping", Cmd::Ping, -1, FAST, NONE),
    spec("psetex", Cmd::SetEx, 4, WRITE, ONE),
    spec("pttl", Cmd::Ttl, 2, READ | FAST, ONE),
    spec("quit", Cmd::Quit, -1, FAST | NO_AUTH | NOT_QUEUED, NONE),
    spec("readonly", Cmd::ReadMode, 1, FAST, NONE),
    spec("readwrite", Cmd::ReadMode, 1, FAST, NONE),
    spec("reset", Cmd::Reset, 1, FAST | NO_AUTH | NOT_QUEUED, NONE),
    spec("role", Cmd::Role, 1, ADMIN | FAST, NONE),
    spec("scan", Cmd::Scan, -2, READ, NONE),
    spec("select", Cmd::Select, 2, FAST, NONE),
    spec("set", Cmd::Set, -3, WRITE, ONE),
    spec("setex", Cmd::SetEx, 4, WRITE, ONE),
    spec("setnx", Cmd::SetNx, 3, WRITE | FAST, ONE),
    spec("strlen", Cmd::StrLen, 2, READ | FAST, ONE),
    spec("substr", Cmd::GetRange, 4, READ, ONE),
    spec("time", Cmd::Time, 1, FAST, NONE),
    spec("touch", Cmd::Exists, -2, READ | FAST, ALL),
    spec("ttl", Cmd::Ttl, 2, READ | FAST, ONE),
    spec("type", Cmd::Type, 2, READ | FAST, ONE),
    spec("unlink", Cmd::Del, -2, WRITE | FAST, ALL),
    spec("unwatch", Cmd::Unwatch, 1, FAST, NONE),
    spec("wait", Cmd::Wait, 3, BLOCKING, NONE),
    spec("waitaof", Cmd::WaitAof, 4, BLOCKING, NONE),
    spec("watch", Cmd::Watch, -2, FAST | NOT_QUEUED, ALL),
];

const SLOTS: usize = 256;
const _: () = assert!(TABLE.len() * 2 < SLOTS, "lookups stay short");

/// Finds commands by name, whatever the case of its letters.
#[derive(Debug)]
pub(super) struct Lookup {
    slots: [u8; SLOTS],
}

impl Lookup {
    /// The index over [`TABLE`].
    pub(super) fn new() -> Self {
        let mut slots = [u8::MAX; SLOTS];
        for (index, spec) in TABLE.iter().enumerate() {
            let mut slot = slot_of(spec.name.as_bytes());
            while slots[slot] != u8::MAX {
                slot = (slot + 1) % SLOTS;
            }
            slots[slot] = u8::try_from(index).unwrap_or(u8::MAX);
        }
        Self { slots }
    }

    /// The command of that name.
    pub(super) fn find(&self, name: &[u8]) -> Option<&'static Spec> {
        let mut slot = slot_of(name);
        while let Some(spec) = TABLE.get(usize::from(self.slots[slot])) {
            if name.eq_ignore_ascii_case(spec.name.as_bytes()) {
                return Some(spec);
            }
            slot = (slot + 1) % SLOTS;
        }
        None
    }
}

/// FNV-1a over the first bytes, with letters folded to lower case; a name is short.
fn slot_of(name: &[u8]) -> usize {
    let hash = name
        .iter()
        .take(16)
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte | 0x20)).wrapping_mul(0x0100_0193));
    usize::from((hash ^ (hash >> 8) ^ (hash >> 16)).to_le_bytes()[0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_found_by_its_name_in_any_case_and_nothing_else_is() {
        let lookup = Lookup::new();
        for spec in TABLE {
            assert_eq!(lookup.find(spec.name.as_bytes()).unwrap().name, spec.name);
            assert_eq!(lookup.find(spec.name.to_uppercase().as_bytes()).unwrap().name, spec.name);
        }
        for other in [&b""[..], b"ge", b"gett", b"sub", b"\xff", b"a very long name that is no command"] {
            assert!(lookup.find(other).is_none());
        }
        assert!(TABLE.windows(2).all(|pair| pair[0].name < pair[1].name), "the table is in order");
    }

    #[test]
    fn arity_and_key_places_follow_the_table() {
        let find = |name: &str| Lookup::new().find(name.as_bytes()).unwrap();
        assert!(
            find("get").takes(2) && !find("get").takes(3) && find("set").takes(9) && !find("set").takes(2)
        );
        let places = |name: &str, count| find(name).key_places(count).collect::<Vec<_>>();
        assert_eq!(places("mset", 5), [1, 3]);
        assert_eq!(places("del", 4), [1, 2, 3]);
        assert_eq!(places("get", 2), [1]);
        assert_eq!(places("ping", 1), [0_usize; 0]);
    }
}

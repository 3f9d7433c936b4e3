//! The one table of config keys. The written file, the checks and the reference for people are made from it.

use super::size::size_text;
use crate::base::limits::{BLOCK_U64, SEGMENT_MAX, SEGMENT_MIN};

/// What a key may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A node's name.
    Name,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A whole number, both ends included.
    Number {
        /// The lowest allowed.
        least: u64,
        /// The highest allowed.
        most: u64,
    },
    /// Bytes: a whole number or a text such as `"64M"`, both ends included.
    Size {
        /// The lowest allowed.
        least: u64,
        /// The highest allowed.
        most: u64,
        /// It must be a multiple of this.
        multiple: u64,
    },
    /// 32 hexadecimal digits.
    Pair,
    /// `IP:port`.
    Address,
    /// `host:port`, the host a name or an address.
    Peer,
    /// One or several of `IP:port` or the path of a Unix socket.
    Listen,
    /// `account,file`.
    File,
    /// A path; relative ones start at the node's directory.
    Path,
}

/// What holds when a key is not given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// It must be given.
    Required,
    /// The feature is off.
    Off,
    /// This TOML literal.
    Literal(&'static str),
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// As in the file.
    pub name: &'static str,
    /// What it may hold.
    pub kind: Kind,
    /// What holds when it is not given.
    pub fallback: Fallback,
    /// Of a number: milliseconds or bytes; otherwise empty.
    pub unit: &'static str,
    /// What it decides, and what each direction costs.
    pub help: &'static str,
}

const MS: &str = "milliseconds";
const BYTES: &str = "bytes";

const fn key(name: &'static str, kind: Kind, fallback: Fallback, help: &'static str) -> Key {
    let unit = match kind {
        Kind::Size { .. } => BYTES,
        _ => "",
    };
    Key { name, kind, fallback, unit, help }
}

const fn time(name: &'static str, least: u64, most: u64, ms: &'static str, help: &'static str) -> Key {
    Key { name, kind: Kind::Number { least, most }, fallback: Fallback::Literal(ms), unit: MS, help }
}

const fn size(least: u64, most: u64, multiple: u64) -> Kind {
    Kind::Size { least, most, multiple }
}

const GIB: u64 = 1 << 30;
const DAY_MS: u64 = 86_400_000;

/// All keys, in the order of the file.
pub const KEYS: &[Key] = &[
    key("name", Kind::Name, Fallback::Required, "This node's name, for people."),
    key(
        "ordinal",
        Kind::Number { least: 0, most: 1 },
        Fallback::Required,
        "Which of the pair's two nodes this is: 0 was set up as primary, 1 as standby. Never change it: epochs \
         and file ids of the two nodes are kept apart by it.",
    ),
    key(
        "initial_role",
        Kind::Word(&["primary", "standby"]),
        Fallback::Required,
        "The role it was set up with. The role it has now is in the control file and changes by takeover only.",
    ),
    key(
        "pair_id",
        Kind::Pair,
        Fallback::Required,
        "The pair. Journals, frames and saves of another pair are refused. The standby takes over the primary's \
         with `hot-backup trust`.",
    ),
    key("link_listen", Kind::Address, Fallback::Required, "Where this node receives from its peer."),
    key(
        "peer",
        Kind::Peer,
        Fallback::Required,
        "Where the peer's link_listen is reached. A name is looked up at each dial, and all its addresses are tried.",
    ),
    key(
        "encryption",
        Kind::Word(&["tls", "none"]),
        Fallback::Literal("\"tls\""),
        "The link. \"none\" is for a private wire: both nodes still prove their keys, but then anybody on the \
         wire can read and alter what is sent. Must be the same on both nodes.",
    ),
    key(
        "resp",
        Kind::Listen,
        Fallback::Off,
        "Where Redis clients connect: one address or path, or a list. DIR/resp.sock is always open to the \
         node's own user.",
    ),
    key(
        "resp_default",
        Kind::File,
        Fallback::Off,
        "The `account,file` of keys without two commas, for programs that know nothing of accounts.",
    ),
    key(
        "resp_password_file",
        Kind::Path,
        Fallback::Off,
        "Its first line is the password of the RESP door. Needed before `resp` may name an address other than \
         loopback.",
    ),
    key(
        "nbd",
        Kind::Listen,
        Fallback::Off,
        "Where clients of volumes connect (NBD): one address or path, or a list. Beyond loopback only with TLS, and \
         only for clients that this pair gave a certificate. DIR/nbd.sock is always open to the node's own user.",
    ),
    key(
        "ack_level",
        Kind::Word(&["local", "received", "durable", "applied"]),
        Fallback::Literal("\"local\""),
        "How far an update must be before the client hears \"ok\": on this disk; also in the peer's memory; on \
         the peer's disk; visible in the peer's store. Higher is safer and waits for the network.",
    ),
    key(
        "on_peer_loss",
        Kind::Word(&["degrade", "block"]),
        Fallback::Literal("\"degrade\""),
        "When the peer is away and ack_level is above local: answer at level local after degrade_after_ms (with \
         an incident), or let clients wait until it is back.",
    ),
    time(
        "degrade_after_ms",
        0,
        DAY_MS,
        "5000",
        "How long clients wait for a lost peer before the promise is lowered.",
    ),
    key(
        "on_restart_alone",
        Kind::Word(&["wait", "serve"]),
        Fallback::Literal("\"wait\""),
        "A restarted primary whose peer is silent: wait for it (or for `start --alone`), or serve at once. \
         \"serve\" can make two primaries if the peer has taken over meanwhile.",
    ),
    time("heartbeat_ms", 10, 60_000, "500", "How often a sign of life is sent. Lower finds a loss sooner."),
    time(
        "peer_timeout_ms",
        50,
        600_000,
        "5000",
        "A link that is silent for so long is closed. At least three heartbeats.",
    ),
    key(
        "segment_bytes",
        size(SEGMENT_MIN, SEGMENT_MAX, BLOCK_U64),
        Fallback::Literal("\"64M\""),
        "Size of a journal file. Smaller gives space back sooner, larger makes fewer files.",
    ),
    key(
        "journal_quota_bytes",
        size(4 * SEGMENT_MIN, 1 << 50, 1),
        Fallback::Literal("\"8G\""),
        "What the replicated journal may take on disk while the peer is away. At least four segments.",
    ),
    time(
        "checkpoint_ms",
        100,
        3_600_000,
        "10000",
        "The store is made durable at least this often while it changes. Higher writes less, but restarts slower.",
    ),
    key(
        "checkpoint_bytes",
        size(1 << 20, 64 * GIB, 1),
        Fallback::Literal("\"128M\""),
        "And whenever so much was applied since. Higher writes less, but restarts slower.",
    ),
    key(
        "io",
        Kind::Word(&["auto", "uring", "epoll"]),
        Fallback::Literal("\"auto\""),
        "How disk and network are driven. auto takes io_uring where it works.",
    ),
    key(
        "log",
        Kind::Word(&["error", "warn", "info", "debug", "trace"]),
        Fallback::Literal("\"info\""),
        "What is written to the log.",
    ),
];

impl Key {
    /// The key of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.name == name)
    }

    /// What it may hold, in words.
    #[must_use]
    pub fn allowed(&self) -> String {
        match self.kind {
            Kind::Name => "1 to 128 letters, digits, '.', '-' or '_'".to_owned(),
            Kind::Word(words) => {
                words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ")
            }
            Kind::Number { least, most } => format!("{least} to {most}"),
            Kind::Size { least, most, multiple } => {
                let range = format!("\"{}\" to \"{}\"", size_text(least), size_text(most));
                match multiple {
                    1 => range,
                    _ => format!("{range}, a multiple of {multiple}"),
                }
            }
            Kind::Pair => "32 hexadecimal digits".to_owned(),
            Kind::Address => "\"IP:port\", as \"192.0.2.7:2000\" or \"[2001:db8::7]:2000\"".to_owned(),
            Kind::Peer => {
                "\"host:port\", the host a name or an IP, as \"b.example.org:2000\" or \"[2001:db8::7]:2000\""
                    .to_owned()
            }
            Kind::Listen => "\"IP:port\" or \"/path/of.sock\", or a list of up to 16 of them".to_owned(),
            Kind::File => "\"account,file\"".to_owned(),
            Kind::Path => "a path".to_owned(),
        }
    }

    /// What holds when it is not given, in words.
    #[must_use]
    pub fn default_text(&self) -> &'static str {
        match self.fallback {
            Fallback::Required => "none, it must be given",
            Fallback::Off => "off",
            Fallback::Literal(literal) => literal,
        }
    }
}

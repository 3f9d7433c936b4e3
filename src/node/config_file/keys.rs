//! The one table of config keys. Reading, the file that `init` writes, what `init` takes, the checks and the reference for
//! people are made from it.

use super::read::DoorAddress;
use super::size::size_text;
use crate::base::limits::{BLOCK_U64, SEGMENT_MAX, SEGMENT_MIN};
use crate::base::{AckLevel, Ordinal};
use crate::engine::{FullSync, OnDiverged, PeerLoss, SpoolFull, SpoolKeep, SpoolMode};
use crate::format::PairId;
use crate::format::control::Role;
use crate::node::config::{Config, Encryption, IoChoice};
use crate::node::peer_address::PeerAddress;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Puts the value of a key where it belongs.
pub type Put<T> = fn(&mut Config, T);

/// What a key may hold, and where it goes.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A node's name.
    Name(Put<String>),
    /// One of these words.
    Word(&'static [&'static str], Put<&'static str>),
    /// A whole number, both ends included.
    Number {
        /// The lowest allowed.
        least: u64,
        /// The highest allowed.
        most: u64,
        /// Where it goes.
        put: Put<u64>,
    },
    /// Bytes: a whole number or a text such as `"64M"`, both ends included.
    Size {
        /// The lowest allowed.
        least: u64,
        /// The highest allowed.
        most: u64,
        /// It must be a multiple of this.
        multiple: u64,
        /// Where it goes (bytes).
        put: Put<u64>,
    },
    /// 32 hexadecimal digits.
    Pair(Put<PairId>),
    /// `IP:port`.
    Address(Put<SocketAddr>),
    /// `host:port`, the host a name or an address.
    Peer(Put<PeerAddress>),
    /// One or several of `IP:port` or the path of a Unix socket.
    Listen(Put<Vec<DoorAddress>>),
    /// `account,file`.
    File(Put<String>),
    /// A path; relative ones start at the node's directory.
    Path(Put<PathBuf>),
    /// 64 hexadecimal digits: an Ed25519 public key.
    PublicKey(Put<[u8; 32]>),
    /// `file:/directory`, a place of reels, or nothing.
    Spool(Put<String>),
    /// A place of reels, or nothing.
    Reels(Put<String>),
    /// A command with its arguments, or nothing.
    Command(Put<String>),
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

const fn time(
    name: &'static str,
    (least, most): (u64, u64),
    ms: &'static str,
    put: Put<u64>,
    help: &'static str,
) -> Key {
    Key { name, kind: Kind::Number { least, most, put }, fallback: Fallback::Literal(ms), unit: MS, help }
}

const fn size(least: u64, most: u64, multiple: u64, put: Put<u64>) -> Kind {
    Kind::Size { least, most, multiple, put }
}

const fn number(least: u64, most: u64, put: Put<u64>) -> Kind {
    Kind::Number { least, most, put }
}

const GIB: u64 = 1 << 30;
const DAY_MS: u64 = 86_400_000;

/// All keys, in the order of the file.
pub const KEYS: &[Key] = &[
    key(
        "name",
        Kind::Name(|c, name| c.engine.name = name),
        Fallback::Required,
        "This node's name, for people.",
    ),
    key(
        "ordinal",
        Kind::Number {
            least: 0,
            most: 1,
            put: |c, n| c.engine.ordinal = Ordinal(if n == 0 { 0 } else { 1 }),
        },
        Fallback::Required,
        "Which of the pair's two nodes this is: 0 was set up as primary, 1 as standby, and who takes a lost \
         node's place has that one's. Never change it: epochs and file ids of the two nodes are kept apart by it.",
    ),
    key(
        "initial_role",
        Kind::Word(&["primary", "standby"], |c, word| {
            c.initial_role = if word == "primary" { Role::Primary } else { Role::Standby };
        }),
        Fallback::Required,
        "The role it was set up with. The role it has now is in the control file and changes by takeover only.",
    ),
    key(
        "pair_id",
        Kind::Pair(|c, pair| c.engine.pair = pair),
        Fallback::Required,
        "The pair. Journals, frames and saves of another pair are refused. The standby takes over the primary's \
         with `hot-backup trust`.",
    ),
    key(
        "link_listen",
        Kind::Address(|c, address| c.link_listen = address),
        Fallback::Required,
        "Where this node receives from its peer.",
    ),
    key(
        "peer",
        Kind::Peer(|c, peer| c.peer = peer),
        Fallback::Required,
        "Where the peer's link_listen is reached. A name is looked up at each dial, and all its addresses are tried.",
    ),
    key(
        "encryption",
        Kind::Word(&["tls", "none"], |c, word| {
            c.encryption = if word == "none" { Encryption::None } else { Encryption::Tls };
        }),
        Fallback::Literal("\"tls\""),
        "The link. \"none\" is for a private wire: both nodes still prove their keys, but then anybody on the \
         wire can read and alter what is sent. Must be the same on both nodes.",
    ),
    key(
        "resp",
        Kind::Listen(|c, places| c.resp = places),
        Fallback::Off,
        "Where Redis clients connect: one address or path, or a list. DIR/resp.sock is always open to the \
         node's own user.",
    ),
    key(
        "resp_default",
        Kind::File(|c, file| c.engine.resp_default = Some(file)),
        Fallback::Off,
        "The `account,file` of keys without two commas, for programs that know nothing of accounts.",
    ),
    key(
        "resp_password_file",
        Kind::Path(|c, path| c.resp_password_file = Some(path)),
        Fallback::Off,
        "Its first line is the password of the RESP door. Needed before `resp` may name an address other than \
         loopback.",
    ),
    key(
        "nbd",
        Kind::Listen(|c, places| c.nbd = places),
        Fallback::Off,
        "Where clients of volumes connect (NBD): one address or path, or a list. Beyond loopback only with TLS, and \
         only for clients that this pair gave a certificate. DIR/nbd.sock is always open to the node's own user.",
    ),
    key(
        "http_listen",
        Kind::Address(|c, address| c.http_listen = Some(address)),
        Fallback::Off,
        "Where figures are served over HTTP: metrics, health, a page for people. On loopback only, as whoever reaches it \
         may look.",
    ),
    key(
        "admin_group",
        Kind::Name(|c, group| c.admin_group = Some(group)),
        Fallback::Off,
        "Members of this group of the system may look at the node by `admin_group_socket`, and change nothing. The \
         node's own user must be a member too.",
    ),
    key(
        "admin_group_socket",
        Kind::Path(|c, path| c.admin_group_socket = Some(path)),
        Fallback::Off,
        "The socket for them, in a directory that they can reach and nobody else may write to, such as \
         /run/hot-backup/look.sock. They name it as --dir.",
    ),
    key(
        "ack_level",
        Kind::Word(&["local", "received", "durable", "applied"], |c, word| {
            c.engine.ack_level = ack_level(word)
        }),
        Fallback::Literal("\"local\""),
        "How far an update must be before the client hears \"ok\": on this disk; also in the peer's memory; on \
         the peer's disk; visible in the peer's store. Higher is safer and waits for the network.",
    ),
    key(
        "on_peer_loss",
        Kind::Word(&["degrade", "block"], |c, word| {
            c.engine.on_peer_loss =
                if word == "block" { PeerLoss::Block } else { PeerLoss::Degrade { after_ms: 0 } };
        }),
        Fallback::Literal("\"degrade\""),
        "When the peer is away and ack_level is above local: answer at level local after degrade_after_ms (with \
         an incident), or let clients wait until it is back.",
    ),
    time(
        "degrade_after_ms",
        (0, DAY_MS),
        "5000",
        // Stands behind `on_peer_loss`, which says whether it means anything.
        |c, ms| {
            if let PeerLoss::Degrade { after_ms } = &mut c.engine.on_peer_loss {
                *after_ms = ms;
            }
        },
        "How long clients wait for a lost peer before the promise is lowered.",
    ),
    key(
        "on_restart_alone",
        Kind::Word(&["wait", "serve"], |c, word| c.engine.serve_alone = word == "serve"),
        Fallback::Literal("\"wait\""),
        "A restarted primary whose peer is silent: wait for it (or for `start --alone`), or serve at once. \
         \"serve\" can make two primaries if the peer has taken over meanwhile.",
    ),
    key(
        "decider",
        Kind::Word(&["operator", "lease"], |c, word| c.engine.under_lease = word == "lease"),
        Fallback::Literal("\"operator\""),
        "Who decides which node is primary: an operator, or a lease, which `hot-backup watch` holds. With \"lease\" a \
         primary accepts updates only until a deadline that `watch` moves on. The same on both nodes.",
    ),
    key(
        "full_sync",
        Kind::Word(&["auto", "ask"], |c, word| {
            c.engine.full_sync = if word == "ask" { FullSync::Ask } else { FullSync::Auto };
        }),
        Fallback::Literal("\"auto\""),
        "A peer that the journal does not reach any more: give it a copy of everything by itself, or only after \
         `hot-backup resync`. What only the peer has is never written over.",
    ),
    key(
        "on_diverged",
        Kind::Word(&["rewind", "wait"], |c, word| {
            c.engine.on_diverged = if word == "wait" { OnDiverged::Wait } else { OnDiverged::Rewind };
        }),
        Fallback::Literal("\"rewind\""),
        "A node that holds updates which the pair never kept: once they are saved in `diverged/`, let the primary rewind \
         it by itself, or only after `hot-backup resync` here.",
    ),
    time(
        "heartbeat_ms",
        (10, 60_000),
        "500",
        |c, ms| c.engine.heartbeat_ms = ms,
        "How often a sign of life is sent. Lower finds a loss sooner.",
    ),
    time(
        "peer_timeout_ms",
        (50, 600_000),
        "5000",
        |c, ms| c.engine.peer_timeout_ms = ms,
        "A link that is silent for so long is closed. At least three heartbeats.",
    ),
    key(
        "segment_bytes",
        size(SEGMENT_MIN, SEGMENT_MAX, BLOCK_U64, |c, bytes| c.engine.segment_bytes = bytes),
        Fallback::Literal("\"64M\""),
        "Size of a journal file. Smaller gives space back sooner, larger makes fewer files.",
    ),
    key(
        "journal_quota_bytes",
        size(4 * SEGMENT_MIN, 1 << 50, 1, |c, bytes| c.engine.quota_bytes = bytes),
        Fallback::Literal("\"8G\""),
        "What the replicated journal may take on disk while the peer is away. At least four segments.",
    ),
    key(
        "spool",
        Kind::Spool(|c, place| c.engine.spool.place = place),
        Fallback::Off,
        "Where the journal goes that an absent peer lacks and for which there is no room here: a directory on another \
         disk, which must be there; a machine that listens (hot-backup tape-socket listen --to dir:PATH); or reels. See \
         docs/spool.md.",
    ),
    key(
        "spool_tape",
        Kind::Reels(|c, place| c.engine.spool.tape = place),
        Fallback::Off,
        "Where the oldest parts of a spool in a directory go when that is at its high mark: reels.",
    ),
    key(
        "spool_high_percent",
        Kind::Number { least: 10, most: 95, put: |c, percent| c.engine.spool.tape_high_percent = percent },
        Fallback::Literal("75"),
        "With spool_tape: share of what the directory may hold above which its oldest parts go to reels.",
    ),
    key(
        "spool_low_percent",
        Kind::Number { least: 0, most: 95, put: |c, percent| c.engine.spool.tape_low_percent = percent },
        Fallback::Literal("50"),
        "Down to this share the directory is emptied then.",
    ),
    key(
        "tape_reel_size",
        size(0, 1 << 50, 1, |c, bytes| c.tape.reel_size = bytes),
        Fallback::Literal("0"),
        "What the spool writes to one reel at most; 0: until the drive says that it is full.",
    ),
    key(
        "tape_changer",
        Kind::Command(|c, command| c.tape.changer = command),
        Fallback::Off,
        "A command that changes the spool's reels, with the contract of Bareos' mtx-changer. See docs/tape.md.",
    ),
    key(
        "tape_key_file",
        Kind::Path(|c, path| c.tape.key_file = Some(path)),
        Fallback::Off,
        "Encrypts the spool's reels: a file with 64 hexadecimal digits that only its owner may read.",
    ),
    key(
        "tape_label_blank",
        Kind::Word(&["yes", "no"], |c, word| c.tape.label_blank = word == "yes"),
        Fallback::Literal("\"no\""),
        "Whether the spool may write to blank reels, or only to those that hot-backup tape label prepared.",
    ),
    key(
        "spool_mode",
        Kind::Word(&["auto", "always", "off"], |c, word| {
            c.engine.spool.mode = match word {
                "always" => SpoolMode::Always,
                "off" => SpoolMode::Off,
                _ => SpoolMode::Auto,
            };
        }),
        Fallback::Literal("\"auto\""),
        "When the spool is written: above the journal's high mark while the peer is away; always, which keeps a history; \
         or never.",
    ),
    key(
        "spool_limit",
        size(0, 1 << 50, 1, |c, bytes| c.engine.spool.limit_bytes = bytes),
        Fallback::Literal("0"),
        "What the spool may take; 0: all of its disk.",
    ),
    key(
        "spool_keep_days",
        Kind::Number { least: 0, most: 36_500, put: |c, days| c.engine.spool.keep_days = days },
        Fallback::Literal("0"),
        "With spool_mode \"always\": parts that are older go, unless the peer needs them; 0: only when spool_limit is \
         reached.",
    ),
    key(
        "spool_keep",
        Kind::Word(&["limits", "oldest-save"], |c, word| {
            c.engine.spool.keep = match word {
                "oldest-save" => SpoolKeep::OldestSave,
                _ => SpoolKeep::Limits,
            };
        }),
        Fallback::Literal("\"limits\""),
        "With spool_mode \"always\": what takes old parts beside spool_keep_days and spool_limit. oldest-save: that they are \
         older than the oldest save of this node that is kept; and what is not stays, whatever those two say.",
    ),
    key(
        "spool_full",
        Kind::Word(&["block", "alarm", "drop-peer"], |c, word| {
            c.engine.spool.full = match word {
                "block" => SpoolFull::Block,
                "alarm" => SpoolFull::Alarm,
                _ => SpoolFull::DropPeer,
            };
        }),
        Fallback::Literal("\"drop-peer\""),
        "When the spool takes nothing and the journal is at its quota: refuse updates of replicated files; let the journal \
         grow until its disk is full; or let the peer lose its claim, so that it needs a full copy.",
    ),
    key(
        "journal_high_percent",
        Kind::Number { least: 10, most: 95, put: |c, percent| c.engine.spool.high_percent = percent },
        Fallback::Literal("75"),
        "Share of journal_quota_bytes above which segments that the peer lacks go to the spool.",
    ),
    key(
        "journal_low_percent",
        Kind::Number { least: 5, most: 95, put: |c, percent| c.engine.spool.low_percent = percent },
        Fallback::Literal("50"),
        "Down to this share the journal is emptied then. Not above journal_high_percent.",
    ),
    time(
        "checkpoint_ms",
        (100, 3_600_000),
        "10000",
        |c, ms| c.engine.checkpoint_ms = ms,
        "The store is made durable at least this often while it changes. Higher writes less, but restarts slower.",
    ),
    key(
        "checkpoint_bytes",
        size(1 << 20, 64 * GIB, 1, |c, bytes| c.engine.checkpoint_bytes = bytes),
        Fallback::Literal("\"128M\""),
        "And whenever so much was applied since. Higher writes less, but restarts slower.",
    ),
    key(
        "scrub_every_days",
        Kind::Number { least: 0, most: 365, put: |c, days| c.engine.scrub_every_days = days },
        Fallback::Literal("7"),
        "Everything that is stored is read and held to its checksums so often; 0 never does it by itself. More often \
         finds rot sooner, and reads more.",
    ),
    key(
        "scrub_rate",
        size(1 << 20, 64 * GIB, 1, |c, bytes| c.engine.scrub_rate = bytes),
        Fallback::Literal("\"50M\""),
        "What a scrub reads in a second, unless `hot-backup scrub --rate` says otherwise. Higher is done sooner, and \
         leaves less of the disk to clients.",
    ),
    key(
        "copy_rate",
        size(0, 64 * GIB, 1, |c, bytes| c.engine.copy_rate = bytes),
        Fallback::Literal("0"),
        "What a full copy takes in a second at most, unless `hot-backup resync --rate` says otherwise. 0: as fast as it \
         goes while users change nothing, and a fifth of the time while they do.",
    ),
    key(
        "compare_every_days",
        Kind::Number { least: 0, most: 365, put: |c, days| c.engine.compare_every_days = days },
        Fallback::Literal("0"),
        "While this node is the standby, it compares everything with the primary so often; 0 never does it by itself. Both \
         nodes read all that they have.",
    ),
    key(
        "compare_rate",
        size(1 << 20, 64 * GIB, 1, |c, bytes| c.engine.compare_rate = bytes),
        Fallback::Literal("\"50M\""),
        "What a compare looks at in a second, unless `hot-backup compare --rate` says otherwise. Higher is done sooner, \
         and leaves less of both disks to clients.",
    ),
    key(
        "licence_key",
        Kind::PublicKey(|c, key| c.licence_key = Some(key)),
        Fallback::Off,
        "The public key of the distributor who signs licences. With it, the node asks for a licence of this pair; without it, \
         for none.",
    ),
    key(
        "canary_seconds",
        number(0, 86_400, |c, n| c.engine.canary_seconds = n),
        Fallback::Literal("30"),
        "A primary sends a test update the whole way to its peer's store so often; 0 is never. It changes nothing. One that is \
         late names the part that broke.",
    ),
    time(
        "canary_late_ms",
        (100, 3_600_000),
        "5000",
        |c, ms| c.engine.canary_late_ms = ms,
        "A test update that took longer is late: an incident.",
    ),
    time(
        "apply_stall_ms",
        (0, DAY_MS),
        "30000",
        |c, ms| c.engine.apply_stall_ms = ms,
        "The store applies nothing for so long although entries wait: an incident. 0 is never.",
    ),
    time(
        "link_quiet_ms",
        (0, 600_000),
        "3000",
        |c, ms| c.engine.link_quiet_ms = ms,
        "A connected peer says nothing for so long: an incident. 0 is never. Above `peer_timeout_ms` the link is closed first.",
    ),
    key(
        "lag_warn_seconds",
        number(0, 86_400, |c, n| c.engine.lag_warn_seconds = n),
        Fallback::Literal("60"),
        "A connected peer is so far behind: an incident. 0 is never.",
    ),
    time(
        "clock_distance_ms",
        (0, DAY_MS),
        "2000",
        |c, ms| c.engine.clock_distance_ms = ms,
        "The clocks of the two nodes differ by more: an incident. 0 is never.",
    ),
    key(
        "journal_warn_percent",
        number(0, 100, |c, n| c.engine.journal_warn_percent = n),
        Fallback::Literal("70"),
        "The replicated journal takes so much of its quota: an incident, with the time until it is full. 0 is never.",
    ),
    key(
        "disk_warn_percent",
        number(0, 100, |c, n| c.engine.disk_warn_percent = n),
        Fallback::Literal("10"),
        "Less than that is free on the file system of the node's directory: an incident. 0 is never.",
    ),
    key(
        "io",
        Kind::Word(&["auto", "uring", "epoll"], |c, word| {
            c.io = match word {
                "uring" => IoChoice::Uring,
                "epoll" => IoChoice::Epoll,
                _ => IoChoice::Auto,
            };
        }),
        Fallback::Literal("\"auto\""),
        "How disk and network are driven. auto takes io_uring where it works.",
    ),
    key(
        "log",
        Kind::Word(&["error", "warn", "info", "debug", "trace"], |c, word| {
            c.log = word.parse().unwrap_or(tracing::Level::INFO);
        }),
        Fallback::Literal("\"info\""),
        "What is written to the log.",
    ),
];

fn ack_level(word: &str) -> AckLevel {
    [AckLevel::Received, AckLevel::Durable, AckLevel::Applied]
        .into_iter()
        .find(|level| level.name() == word)
        .unwrap_or_default()
}

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
            Kind::Name(_) => "1 to 128 letters, digits, '.', '-' or '_'".to_owned(),
            Kind::Word(words, _) => {
                words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ")
            }
            Kind::Number { least, most, .. } => format!("{least} to {most}"),
            Kind::Size { least, most, multiple, .. } => {
                let range = format!("\"{}\" to \"{}\"", size_text(least), size_text(most));
                match multiple {
                    1 => range,
                    _ => format!("{range}, a multiple of {multiple}"),
                }
            }
            Kind::Pair(_) => "32 hexadecimal digits".to_owned(),
            Kind::Address(_) => "\"IP:port\", as \"192.0.2.7:2000\" or \"[2001:db8::7]:2000\"".to_owned(),
            Kind::Peer(_) => {
                "\"host:port\", the host a name or an IP, as \"b.example.org:2000\" or \"[2001:db8::7]:2000\""
                    .to_owned()
            }
            Kind::Listen(_) => "\"IP:port\" or \"/path/of.sock\", or a list of up to 16 of them".to_owned(),
            Kind::File(_) => "\"account,file\"".to_owned(),
            Kind::Path(_) => "a path".to_owned(),
            Kind::PublicKey(_) => "64 hexadecimal digits".to_owned(),
            Kind::Spool(_) => {
                "\"file:/directory\", \"tcp:HOST:PORT\", \"tape:/dev/nst0\" or \"tape:/path/reel-%03d.tap\", or \"\" for none"
                    .to_owned()
            }
            Kind::Reels(_) => {
                "\"tape:/dev/nst0\" or \"tape:/path/reel-%03d.tap\", or \"\" for none".to_owned()
            }
            Kind::Command(_) => "a command, or \"\" for none".to_owned(),
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

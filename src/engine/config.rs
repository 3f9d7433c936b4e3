//! What the engine is told once, at its start.

use crate::base::limits::{CHUNK_BYTES, COMPARE_RANGE};
use crate::base::{AckLevel, Ordinal, Seq};
use crate::format::PairId;
use crate::format::chunk::Progress;
use crate::format::control::Control;
use crate::format::rewind::Prepared;
use crate::journal::Recovered;
use crate::store::namespace::Namespace;
use std::net::SocketAddr;

/// What to do with a promise above `local` when the peer is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerLoss {
    /// After this long, answer at level `local` and raise an incident (milliseconds).
    Degrade {
        /// Grace.
        after_ms: u64,
    },
    /// Let clients wait until the peer is back.
    Block,
}

/// What a primary does when its peer can be joined by a full copy only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FullSync {
    /// Give it one, unless that would drop entries which only the peer has.
    Auto,
    /// Wait for an operator.
    Ask,
}

/// What a node does that holds entries which the pair never kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnDiverged {
    /// Let the primary rewind it, once they are saved.
    Rewind,
    /// Wait for an operator.
    Wait,
}

/// When sealed segments go to the spool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpoolMode {
    /// Above the journal's high mark, while the peer lacks them.
    Auto,
    /// All of them, at once: a history.
    Always,
    /// None.
    Off,
}

impl SpoolMode {
    /// Its word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Always => "always",
            Self::Off => "off",
        }
    }
}

/// What takes old parts of a history from the spool, beside its age and its limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SpoolKeep {
    /// Nothing.
    #[default]
    Limits,
    /// That it is older than the oldest save that is kept. What is not stays, whatever its age and the limit say.
    OldestSave,
}

/// What a primary does when the spool takes nothing and the journal is at its quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpoolFull {
    /// Refuse updates of replicated files.
    Block,
    /// Let the journal grow until its disk is full, then as [`Self::DropPeer`].
    Alarm,
    /// The peer loses its claim.
    DropPeer,
}

impl SpoolFull {
    /// Its word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::Alarm => "alarm",
            Self::DropPeer => "drop-peer",
        }
    }
}

/// The spool: where segments go that an absent peer lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolConfig {
    /// `file:/directory`, a place of reels (`tape:..`), or another machine (`tcp:HOST:PORT`); empty if there is none.
    pub place: String,
    /// Where parts go from a directory that has no room for them: a place of reels; empty if there is none.
    pub tape: String,
    /// Share of what the directory may hold above which parts go to reels (percent) ..
    pub tape_high_percent: u64,
    /// .. and down to which it is emptied then.
    pub tape_low_percent: u64,
    /// See [`SpoolMode`].
    pub mode: SpoolMode,
    /// What it may take (bytes); 0 is as much as its disk has.
    pub limit_bytes: u64,
    /// Share of the quota above which segments go there (percent) ..
    pub high_percent: u64,
    /// .. and down to which the journal is emptied then.
    pub low_percent: u64,
    /// See [`SpoolFull`].
    pub full: SpoolFull,
    /// With [`SpoolMode::Always`], parts that nobody needs go after this (days); 0: only for lack of room.
    pub keep_days: u64,
    /// See [`SpoolKeep`].
    pub keep: SpoolKeep,
}

impl Default for SpoolConfig {
    fn default() -> Self {
        Self {
            place: String::new(),
            tape: String::new(),
            tape_high_percent: 75,
            tape_low_percent: 50,
            mode: SpoolMode::Auto,
            limit_bytes: 0,
            high_percent: 75,
            low_percent: 50,
            full: SpoolFull::DropPeer,
            keep_days: 0,
            keep: SpoolKeep::Limits,
        }
    }
}

impl SpoolConfig {
    /// Whether there is one to write to.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.place.is_empty() && self.mode != SpoolMode::Off
    }

    /// Whether segments go to reels at once.
    #[must_use]
    pub fn is_tape(&self) -> bool {
        self.place.starts_with("tape:")
    }

    /// Whether segments go to another machine.
    #[must_use]
    pub fn is_far(&self) -> bool {
        self.place.starts_with("tcp:")
    }

    /// Where parts go from the directory; none if they stay there.
    #[must_use]
    pub fn second(&self) -> Option<&str> {
        Some(self.tape.as_str()).filter(|tape| !tape.is_empty() && !self.is_tape())
    }
}

/// Settings; the daemon makes them from the config file. What the daemon's keys default to is the default here too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineConfig {
    /// This node's name.
    pub name: String,
    /// Which of the two it is.
    pub ordinal: Ordinal,
    /// The pair.
    pub pair: PairId,
    /// Size of a segment (bytes, a multiple of the block).
    pub segment_bytes: u64,
    /// What the replicated journal may take on disk (bytes).
    pub quota_bytes: u64,
    /// See [`SpoolConfig`].
    pub spool: SpoolConfig,
    /// The database's ack level.
    pub ack_level: AckLevel,
    /// See [`PeerLoss`].
    pub on_peer_loss: PeerLoss,
    /// See [`FullSync`].
    pub full_sync: FullSync,
    /// See [`OnDiverged`].
    pub on_diverged: OnDiverged,
    /// Whether a restarted primary serves although its peer is silent. Two primaries are possible then: see
    /// `docs/takeover.md`.
    pub serve_alone: bool,
    /// Whether a primary accepts updates only as long as it is granted a lease.
    pub under_lease: bool,
    /// How much content is asked for at once in a copy (bytes).
    pub chunk_bytes: u32,
    /// Content of a full copy in a second at most (bytes); 0 leaves it to what users do.
    pub copy_rate: u64,
    /// Heartbeats are sent this often (milliseconds).
    pub heartbeat_ms: u64,
    /// A silent link is closed after this (milliseconds).
    pub peer_timeout_ms: u64,
    /// The store is checkpointed at least this often while it changes (milliseconds) ..
    pub checkpoint_ms: u64,
    /// .. and when this much was applied since (bytes).
    pub checkpoint_bytes: u64,
    /// Everything is scrubbed so often (days); 0 is never.
    pub scrub_every_days: u64,
    /// A scheduled scrub reads so much a second (bytes); 0 is no limit.
    pub scrub_rate: u64,
    /// A standby compares everything with the primary so often (days); 0 is never.
    pub compare_every_days: u64,
    /// A compare looks at so much a second (bytes); 0 is no limit.
    pub compare_rate: u64,
    /// So much is looked at as one (bytes).
    pub compare_range: u32,
    /// A primary sends a test update so often (seconds); 0 is never ..
    pub canary_seconds: u64,
    /// .. and it is late after this (milliseconds).
    pub canary_late_ms: u64,
    /// The store applies nothing although it could: told after this (milliseconds); 0 is never.
    pub apply_stall_ms: u64,
    /// A connected peer says nothing: told after this (milliseconds); 0 is never.
    pub link_quiet_ms: u64,
    /// A connected peer is so far behind: told (seconds); 0 is never.
    pub lag_warn_seconds: u64,
    /// The clocks of the two differ by more: told (milliseconds); 0 is never.
    pub clock_distance_ms: u64,
    /// The journal takes so much of its quota: told (percent); 0 is never.
    pub journal_warn_percent: u64,
    /// Less is free on the file system of the node's directory: told (percent); 0 is never.
    pub disk_warn_percent: u64,
    /// `account,file` for RESP keys without two commas.
    pub resp_default: Option<String>,
    /// Password of the RESP door, unless a client is trusted.
    pub resp_password: Option<String>,
    /// Where Redis clients reach this node over TCP, as the config names it.
    pub resp_doors: Vec<SocketAddr>,
    /// The peer's host, for status, and for ROLE and INFO where the peer's door listens at every address.
    pub peer_host: String,
    /// The peer's link port, for status.
    pub peer_port: u16,
    /// For back-off jitter.
    pub seed: u64,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            name: String::new(),
            ordinal: Ordinal(0),
            pair: PairId::default(),
            segment_bytes: 64 << 20,
            quota_bytes: 8 << 30,
            spool: SpoolConfig::default(),
            ack_level: AckLevel::Local,
            on_peer_loss: PeerLoss::Degrade { after_ms: 5000 },
            full_sync: FullSync::Auto,
            on_diverged: OnDiverged::Rewind,
            serve_alone: false,
            under_lease: false,
            chunk_bytes: CHUNK_BYTES,
            copy_rate: 0,
            heartbeat_ms: 500,
            peer_timeout_ms: 5000,
            checkpoint_ms: 10_000,
            checkpoint_bytes: 128 << 20,
            scrub_every_days: 7,
            scrub_rate: 50 << 20,
            compare_every_days: 0,
            compare_rate: 50 << 20,
            compare_range: COMPARE_RANGE,
            canary_seconds: 30,
            canary_late_ms: 5000,
            apply_stall_ms: 30_000,
            link_quiet_ms: 3000,
            lag_warn_seconds: 60,
            clock_distance_ms: 2000,
            journal_warn_percent: 70,
            disk_warn_percent: 10,
            resp_default: None,
            resp_password: None,
            resp_doors: Vec::new(),
            peer_host: String::new(),
            peer_port: 0,
            seed: 1,
        }
    }
}

/// What was found on disk.
#[derive(Debug)]
pub struct StartState<S> {
    /// The control file.
    pub control: Control,
    /// Both journals, walked and judged, by [`crate::base::JournalKind::index`].
    pub journals: [Recovered; 2],
    /// Reads of the store.
    pub store: S,
    /// The namespace as applied.
    pub namespace: Namespace,
    /// The last entries applied.
    pub applied: [Seq; 2],
    /// Where the store has to be given the journals again from: behind `applied` where volumes may be behind the items.
    pub replay_from: [Seq; 2],
    /// How far the copy is that the store is given, if it ever was given one.
    pub copied: Option<Progress>,
    /// The rewind that was agreed on, as long as it is not done.
    pub prepared: Option<Prepared>,
}

//! What an operator can ask of a running node, and the answers; `node` carries them over the admin socket as JSON lines.

mod copy;
mod takeover;

pub use super::answer::{
    AdminAnswer, CanaryView, CompareView, ConditionView, DifferenceView, DoneView, GapView, Grant,
    HealthView, IncidentView, JournalView, LeaseView, LinkView, LoggingView, LoweredView, ProofView,
    ScrubEnd, ScrubView, StartView, SwitchoverView, TargetView, ViewOrder, ViewView, WouldGo,
};
pub use super::records::RecordView;
pub use super::stats::{
    FileCount, KindCount, QueueView, RatesView, ReceiptView, STATS_VERSION, StageView, StatsView,
};
use crate::base::AckLevel;
use crate::base::shown::Grouped;
use crate::format::dptr::{DptrKind, FileState, LoggingMode};
pub use copy::CopyView;
use serde::{Deserialize, Serialize};
pub use takeover::TakeoverAccount;

/// A request. On the socket: one JSON object a line, `{"verb":"status"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case", deny_unknown_fields)]
pub enum AdminRequest {
    /// Answered by [`Status`].
    Status,
    /// Answered by a list of [`IncidentView`], newest last.
    Incidents,
    /// Incidents as records, oldest first; answered by a list of [`RecordView`].
    IncidentRecords,
    /// A person took note of a record. Answered by the [`RecordView`].
    IncidentAck {
        /// Its number.
        id: u64,
        /// Who.
        who: String,
    },
    /// Who is told of incidents; answered by a list of [`TargetView`].
    NotifyList,
    /// Sends each of them a message now; answered by a list of [`ProofView`].
    NotifyTest {
        /// Only the one of this name.
        #[serde(default)]
        name: Option<String>,
    },
    /// Become primary; answered by [`TakeoverAccount`].
    Takeover {
        /// The operator's word that the peer does not serve.
        peer_is_down: bool,
        /// Only say what would happen.
        #[serde(default)]
        dry_run: bool,
        /// The operator's word that entries of which the peer has told, and which are not here, may be given up.
        #[serde(default)]
        accept_loss: bool,
        /// Do not wait until the connection of a silent primary is given up.
        #[serde(default)]
        now: bool,
        /// Also where this node holds a part of a copy only.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        incomplete: bool,
        /// The epoch that begins then, as the operator typed it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        epoch: Option<u64>,
    },
    /// Change roles with the peer, from either node; answered by [`SwitchoverView`].
    Switchover {
        /// Only say what would happen.
        #[serde(default)]
        dry_run: bool,
    },
    /// How a node is that accepts updates only under a lease; with a grant, time to do so. Answered by [`LeaseView`].
    Lease {
        /// None only looks.
        #[serde(default)]
        grant: Option<Grant>,
    },
    /// Serve as primary although the peer could not be asked. Refused if the peer is known to have more. Answered by
    /// [`StartView`].
    StartAlone,
    /// The same, and entries of which the peer has told, and which are not here, may be given up.
    StartAloneAcceptLoss,
    /// Lets this primary give its peer a copy of everything, where `full_sync` says to ask.
    Resync {
        /// Content in a second at most (bytes), 0 for as fast as it goes; else what the config says.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rate: Option<u64>,
        /// All content of the next copy is sent, also where the peer holds it already.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        full: bool,
        /// On a node that is whole: it may be made what a primary has that took over with a copy that was not whole.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        accept_incomplete: bool,
    },
    /// Answered by [`AccountView`].
    AccountCreate {
        /// Name.
        name: String,
        /// Letters of L, X, Y, T; its files inherit them.
        #[serde(default)]
        flags: String,
    },
    /// Answered by a list of [`AccountView`].
    AccountList,
    /// Delete an account and its files. Answered by [`DoneView`]; a dry run, here and below, by [`WouldGo`].
    AccountDelete {
        /// Name.
        name: String,
        /// Only count what would go.
        #[serde(default)]
        dry_run: bool,
    },
    /// Rename an account. Answered by its [`AccountView`].
    AccountRename {
        /// Old name.
        name: String,
        /// New name.
        to: String,
    },
    /// Answered by [`FileView`].
    FileCreate {
        /// `account,file`.
        name: String,
        /// Records or blocks.
        kind: DptrKind,
        /// Letters, or none to inherit the account's.
        #[serde(default)]
        flags: Option<String>,
        /// Size of a block file (bytes).
        #[serde(default)]
        bytes: Option<u64>,
        /// Its own ack level.
        #[serde(default)]
        ack: Option<AckLevel>,
    },
    /// Answered by a list of [`FileView`].
    FileList {
        /// Only this account's.
        #[serde(default)]
        account: Option<String>,
    },
    /// Delete a file and its items. Answered by [`DoneView`].
    FileDelete {
        /// `account,file`.
        name: String,
        /// Only say what would go.
        #[serde(default)]
        dry_run: bool,
    },
    /// Delete a file's items. Answered by its [`FileView`].
    FileClear {
        /// `account,file`.
        name: String,
        /// Only say what would go.
        #[serde(default)]
        dry_run: bool,
    },
    /// Give a block file more room. Answered by its [`FileView`].
    FileGrow {
        /// `account,file`.
        name: String,
        /// Its new size (bytes).
        bytes: u64,
    },
    /// Rename a file within its account. Answered by [`DoneView`].
    FileRename {
        /// `account,file`.
        name: String,
        /// New file name, without account.
        to: String,
    },
    /// Change flags; without changes, show them. Answered by a list of [`FileView`] or [`AccountView`].
    SetDptr {
        /// Letters to set.
        #[serde(default)]
        set: String,
        /// Letters to clear.
        #[serde(default)]
        clear: String,
        /// Whether `names` are accounts.
        #[serde(default)]
        accounts: bool,
        /// Accounts, or `account,file`.
        names: Vec<String>,
        /// A file's own ack level, or `default`.
        #[serde(default)]
        ack: Option<String>,
    },
    /// Set the logging mode (D3's transaction-log menu). Answered by [`LoggingView`].
    Logging {
        /// DL files only, all, or paused.
        mode: LoggingMode,
    },
    /// Resume logging after a pause, in the mode before it; what changed meanwhile is copied.
    LoggingResume,
    /// The newest entries queued for the peer; answered by a list of [`LogEntryView`].
    LogShow {
        /// How many at most.
        limit: usize,
    },
    /// Read everything that is stored, or one file, and hold it to its checksums. Answered by [`ScrubView`] when it has
    /// begun.
    Scrub {
        /// Only this, `account,file`; of a file of items, the tables of all of them.
        #[serde(default)]
        name: Option<String>,
        /// Bytes a second at most; 0 is no limit; the config's if not given.
        #[serde(default)]
        rate: Option<u64>,
        /// Content whose checksum is damaged or missing gets a new one as it is.
        #[serde(default)]
        renew: bool,
    },
    /// End the scrub under way. Answered by [`ScrubView`].
    ScrubStop,
    /// Hold what both nodes have against each other. Answered by [`CompareView`] when it has begun.
    Compare {
        /// Only this account, or `account,file`.
        #[serde(default)]
        name: Option<String>,
        /// Give the standby the primary's content where they differ.
        #[serde(default)]
        repair: bool,
        /// Only say what that would do.
        #[serde(default)]
        dry_run: bool,
        /// Bytes a second at most; 0 is no limit; the config's if not given.
        #[serde(default)]
        rate: Option<u64>,
    },
    /// Hold what a read command answers on both nodes at one entry against each other. Answered by [`CompareView`] when it has
    /// begun.
    CompareQuery {
        /// The command, its words between spaces.
        query: String,
    },
    /// End the compare under way. Answered by [`CompareView`].
    CompareStop,
    /// The compare under way, or the last one, with the differences that it named. Answered by [`CompareView`].
    CompareResult,
    /// Send what this node holds. Answered by [`DoneView`], with the stream of a save behind it on the same connection.
    Save {
        /// Content of this account only.
        #[serde(default)]
        account: Option<String>,
        /// Bytes a second at most; none is no limit.
        #[serde(default)]
        rate: Option<u64>,
        /// What is known of the content follows on the connection, and is not sent.
        #[serde(default)]
        since: bool,
        /// What the node has alone comes at the end.
        #[serde(default)]
        alone: bool,
    },
    /// Show what this node holds now on doors of its own, while it goes on. Answered by [`ViewView`].
    ViewOpen(ViewOrder),
    /// The views, those that ended by themselves too. Answered by a list of [`ViewView`].
    ViewList,
    /// End a view. Answered by its [`ViewView`].
    ViewClose {
        /// Its name.
        name: String,
    },
    /// What this node has done, in this life and those before it. Answered by [`StatsView`].
    Stats,
    /// What the peer has not confirmed. Answered by [`QueueView`].
    Queue,
    /// What has become of an update. Answered by [`ReceiptView`].
    Receipt {
        /// Its number.
        seq: u64,
        /// Its epoch; without one the entry is meant that has the number now.
        #[serde(default)]
        epoch: Option<u64>,
    },
    /// The entries that this node had and the pair never kept; answered by a list of file names.
    DivergedList,
    /// Use a spool from now on, also after a restart. Answered by [`SpoolView`].
    SpoolStart {
        /// `file:/directory`.
        to: String,
        /// All sealed segments go there, not only those for which the journal has no room.
        #[serde(default)]
        always: bool,
    },
    /// Use none from now on. Answered by [`SpoolView`].
    SpoolStop {
        /// Even if the peer lacks what is on it: it will need a full copy.
        #[serde(default)]
        drop: bool,
    },
}

impl AdminRequest {
    /// Whether it changes nothing and takes no content away. There is no other arm: each new request has to decide.
    #[must_use]
    pub fn only_looks(&self) -> bool {
        match self {
            Self::Status
            | Self::Incidents
            | Self::AccountList
            | Self::FileList { .. }
            | Self::LogShow { .. }
            | Self::CompareResult
            | Self::DivergedList
            | Self::Stats
            | Self::Queue
            | Self::Receipt { .. }
            | Self::IncidentRecords
            | Self::CompareQuery { .. }
            | Self::ViewList
            | Self::NotifyList => true,
            Self::Lease { grant } => grant.is_none(),
            Self::Takeover { dry_run, .. }
            | Self::Switchover { dry_run }
            | Self::AccountDelete { dry_run, .. }
            | Self::FileDelete { dry_run, .. }
            | Self::FileClear { dry_run, .. }
            | Self::Compare { dry_run, .. } => *dry_run,
            Self::SetDptr { set, clear, ack, .. } => set.is_empty() && clear.is_empty() && ack.is_none(),
            Self::StartAlone
            | Self::StartAloneAcceptLoss
            | Self::Resync { .. }
            | Self::AccountCreate { .. }
            | Self::AccountRename { .. }
            | Self::FileCreate { .. }
            | Self::FileGrow { .. }
            | Self::FileRename { .. }
            | Self::Logging { .. }
            | Self::LoggingResume
            | Self::Scrub { .. }
            | Self::ScrubStop
            | Self::CompareStop
            | Self::Save { .. }
            | Self::ViewOpen(_)
            | Self::ViewClose { .. }
            | Self::SpoolStart { .. }
            | Self::SpoolStop { .. }
            | Self::IncidentAck { .. }
            | Self::NotifyTest { .. } => false,
        }
    }
}

/// An answer. On the socket: one JSON object a line.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum AdminReply {
    /// Done; what was asked for.
    Ok {
        /// The value, by request.
        value: AdminAnswer,
    },
    /// No: nothing was changed (exit code 1).
    No {
        /// What, to what, why.
        message: String,
        /// What to do next.
        next: String,
    },
    /// It failed (exit code 2).
    Error {
        /// What, to what, why.
        message: String,
        /// What to do next.
        next: String,
    },
}

/// A position for people.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PairWatermarks {
    /// In the local journal's buffer.
    pub appended: u64,
    /// On the local disk.
    pub durable: u64,
    /// In the peer's memory.
    pub received: u64,
    /// On the peer's disk.
    pub acked: u64,
    /// May be answered to a client at the database's ack level.
    pub committed: u64,
    /// Visible in this node's store.
    pub applied: u64,
}

/// The other node, as seen from here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PeerView {
    /// Its name, once it told it.
    pub name: String,
    /// Whether the link is up.
    pub connected: bool,
    /// Idle, busy, lagging, stuck or away.
    pub state: String,
    /// Entries it does not have on disk.
    pub lag_entries: u64,
    /// Bytes of batches it does not have on disk.
    pub lag_bytes: u64,
    /// Age of the oldest of them.
    pub lag_seconds: f64,
    /// Since the last word from it.
    pub silence_seconds: f64,
    /// What it has applied.
    pub applied: u64,
    /// Whether it is given a copy that is not whole yet.
    #[serde(default)]
    pub incomplete: bool,
    /// Whether it holds an old copy that would be compared by digests.
    #[serde(default)]
    pub digests: bool,
}

/// The spool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SpoolView {
    /// off, opening, empty, holding, copying, waits (for a reel), full or failed.
    pub state: String,
    /// Where it is: `file:/directory` or `tape:..`.
    pub place: String,
    /// auto, always or off.
    pub mode: String,
    /// What comes when it takes nothing and the journal is at its quota: block, alarm or drop-peer.
    pub when_full: String,
    /// Parts on it.
    pub parts: u64,
    /// Bytes that they take.
    pub bytes: u64,
    /// What it may take (bytes); 0: all of its disk.
    pub limit_bytes: u64,
    /// What its disk has left, as of the last part (bytes).
    pub free_bytes: u64,
    /// The first entry on it; 0: none.
    pub from: u64,
    /// The last one.
    pub to: u64,
    /// Parts of other histories, which are neither used nor removed.
    pub strays: u64,
    /// The size of the journal from which on segments go there (bytes) ..
    pub high_bytes: u64,
    /// .. and the one at which they stay again.
    pub low_bytes: u64,
    /// What is journalled in a second, of the last seconds (bytes).
    pub rate: u64,
    /// Room left on the spool and in the journal (bytes).
    pub room_bytes: u64,
    /// At that rate it lasts so long; none while the peer follows, or nothing is journalled.
    pub seconds_left: Option<f64>,
    /// Where parts go from the directory: a place of reels; empty for none.
    #[serde(default)]
    pub tape: String,
    /// Parts on reels, which are among [`Self::parts`].
    #[serde(default)]
    pub reel_parts: u64,
    /// Bytes of those.
    #[serde(default)]
    pub reel_bytes: u64,
    /// The reel that is waited for, and why; empty for none.
    #[serde(default)]
    pub reel_wanted: String,
}

/// What would be lost if this primary died now.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AtRisk {
    /// Entries.
    pub entries: u64,
    /// Bytes of batches.
    pub bytes: u64,
    /// Age of the oldest.
    pub seconds: f64,
    /// Whether all that there is would be: the peer is being given a copy, and could not take over.
    #[serde(default)]
    pub everything: bool,
}

/// A volume in use.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VolumeView {
    /// `account,file`.
    pub name: String,
    /// Its size (bytes).
    pub bytes: u64,
    /// Whether clients may change it here and now.
    pub writable: bool,
    /// Clients connected.
    pub clients: u64,
    /// Of the last seconds: reads a second ..
    pub reads_per_second: f64,
    /// .. writes, trims and zeros a second ..
    pub writes_per_second: f64,
    /// .. bytes read a second ..
    pub read_bytes_per_second: f64,
    /// .. and bytes written a second.
    pub written_bytes_per_second: f64,
    /// Ranges that were accepted and are not in the volume's file yet.
    pub dirty_extents: u64,
}

/// How far a start is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ReplayView {
    /// What is being done.
    pub stage: String,
    /// bytes, entries, or nothing if it is not known how much there is to do.
    pub unit: String,
    /// So much is done ..
    pub done: u64,
    /// .. of so much.
    pub total: u64,
    /// The same as a share.
    pub percent: f64,
    /// At the pace so far (seconds).
    pub seconds_left: Option<f64>,
}

impl ReplayView {
    /// After `millis` milliseconds of a stage.
    #[must_use]
    pub fn new(stage: &str, unit: &str, done: u64, total: u64, millis: u64) -> Self {
        let done = done.min(total);
        let left = u128::from(millis) * u128::from(total - done) / u128::from(done.max(1));
        let thousandths = |n: u128| f64::from(u32::try_from(n).unwrap_or(u32::MAX)) / 1000.0;
        Self {
            stage: stage.to_owned(),
            unit: unit.to_owned(),
            done,
            total,
            percent: thousandths(u128::from(done) * 100_000 / u128::from(total.max(1))),
            seconds_left: (done > 0).then(|| thousandths(left)),
        }
    }

    /// In a line.
    #[must_use]
    pub fn text(&self) -> String {
        let Self { stage, unit, done, total, percent, seconds_left } = self;
        if *total == 0 {
            return stage.clone();
        }
        let left = seconds_left.map_or_else(String::new, |left| format!(", {left:.0} s left"));
        let (done, total) = (Grouped(*done), Grouped(*total));
        format!("{stage}: {done} of {total} {unit} ({percent:.0} %){left}")
    }
}

/// A trouble that has begun and not ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TroubleView {
    /// A fixed word, as of an incident.
    pub kind: String,
    /// notice, warning or critical.
    pub severity: String,
    /// One sentence for people.
    pub text: String,
    /// What they can do.
    pub next: String,
    /// Since it began (seconds).
    pub seconds: f64,
}

/// The state of a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The node.
    pub name: String,
    /// primary, standby, diverged or incomplete.
    pub role: String,
    /// What an update would be answered now, one of [`STATES`]. serving or standby: all is as it should be; else the role
    /// has the node on its way, or something hinders it, which `reason` and `next` tell.
    pub state: String,
    /// Why it does not serve, if it does not.
    pub reason: String,
    /// What people can do then.
    #[serde(default)]
    pub next: String,
    /// How far it is, while it starts.
    #[serde(default)]
    pub replay: Option<ReplayView>,
    /// What has begun and not ended, oldest first.
    #[serde(default)]
    pub troubles: Vec<TroubleView>,
    /// Its epoch.
    pub epoch: u64,
    /// The database's ack level.
    pub ack_level: String,
    /// Whether that promise is lowered now because the peer is away.
    pub degraded: bool,
    /// dl-only, all or paused.
    pub logging: String,
    /// The replicated journal.
    pub positions: PairWatermarks,
    /// The other node.
    pub peer: PeerView,
    /// The way to it.
    #[serde(default)]
    pub link: LinkView,
    /// The lease, where one decides who is primary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseView>,
    /// Disk use.
    pub journal: JournalView,
    /// Where segments go that an absent peer lacks.
    #[serde(default)]
    pub spool: SpoolView,
    /// What would be lost now.
    pub at_risk: AtRisk,
    /// Entries that one of the two nodes lacks, beyond what is normally under way.
    #[serde(default)]
    pub gap: Option<GapView>,
    /// The copy of everything that one of the two nodes is given now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy: Option<CopyView>,
    /// The last switchover of this life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub switchover: Option<SwitchoverView>,
    /// The promises that are lowered now: the database's, and those of files with a level of their own.
    #[serde(default)]
    pub lowered: Vec<LoweredView>,
    /// The last durable position that the primary announced (on a standby).
    pub announced: u64,
    /// Volumes, those that are in use first.
    #[serde(default)]
    pub volumes: Vec<VolumeView>,
    /// The scrub under way, and those before it.
    #[serde(default)]
    pub scrub: ScrubView,
    /// The compare under way, or the last one, without its differences.
    #[serde(default)]
    pub compare: CompareView,
    /// The views that are open, or ended by themselves.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub views: Vec<ViewView>,
    /// Clients connected.
    pub clients: u64,
    /// Incidents since the start.
    pub incidents: u64,
    /// Frames and connections refused on the link since the start.
    pub refused: u64,
    /// Clients refused at the RESP door since the start.
    #[serde(default)]
    pub resp_refused: u64,
    /// Clients refused at the NBD door since the start.
    #[serde(default)]
    pub nbd_refused: u64,
    /// The newest incident.
    pub last_incident: Option<String>,
    /// Lines of the log that could not be written since the start.
    #[serde(default)]
    pub log_lines_lost: u64,
    /// The longest time for which the node did one thing only, of the last minute or two (milliseconds of a processor).
    #[serde(default)]
    pub longest_round_ms: f64,
    /// Since the start (seconds).
    pub uptime_seconds: f64,
    /// What the watches see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthView>,
    /// Who is told of incidents, and whether that works.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notify: Vec<TargetView>,
}

/// Every word that [`Status::state`] may be, those of a node that serves first.
pub const STATES: [&str; 22] = [
    "serving",
    "accept-failed",
    "no-space",
    "no-descriptors",
    "journal-failed",
    "disk-hangs",
    "store-failed",
    "peer-stuck",
    "peer-away",
    "standby",
    "incomplete",
    "starting",
    "replaying",
    "asking-peer",
    "starting-epoch",
    "taking-over",
    "handing-over",
    "stepping-down",
    "stopping",
    "diverged",
    "no-lease",
    "read-only",
];
/// So many of them are states of a primary that serves: as it should, or hindered by what may pass.
const SERVES: usize = 9;

impl Status {
    /// Whether this node is the one that serves, though something may hinder it now.
    #[must_use]
    pub fn serves(&self) -> bool {
        self.role == "primary" && STATES.iter().take(SERVES).any(|state| *state == self.state)
    }
}

/// An account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountView {
    /// Its name.
    pub name: String,
    /// Its flags.
    pub flags: String,
    /// How many files it holds.
    pub files: u64,
    /// Its stable id.
    pub id: u64,
}

/// A file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileView {
    /// `account,file`.
    pub name: String,
    /// Records or blocks.
    pub kind: DptrKind,
    /// Its flags.
    pub flags: String,
    /// Whether its updates go to the peer now.
    pub replicated: bool,
    /// Whether its content is complete.
    pub state: FileState,
    /// Its own ack level, if any.
    pub ack: Option<AckLevel>,
    /// Size of a block file (bytes).
    pub bytes: u64,
    /// Clients of a block file connected now.
    #[serde(default)]
    pub clients: u64,
    /// Its stable id.
    pub id: u64,
}

/// One entry of the replicated journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntryView {
    /// Its number.
    pub seq: u64,
    /// Its epoch.
    pub epoch: u64,
    /// What it does.
    pub kind: String,
    /// `account,file`, or the id when the name is not known.
    pub file: String,
    /// The item id, lossy UTF-8, control characters escaped.
    pub item: String,
    /// Bytes of its value.
    pub bytes: u64,
}

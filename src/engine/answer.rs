//! What operators are answered, each answer with its type. How it is written on the socket is the node's matter.

use super::admin::{AccountView, FileView, LogEntryView, SpoolView, Status, TakeoverAccount};
use super::effect::Incident;
use super::records::RecordView;
use super::stats::{QueueView, ReceiptView, StatsView};
use serde::{Deserialize, Serialize};

/// Declares [`AdminAnswer`], and how each value becomes one and comes out of it again.
macro_rules! answers {
    ($($(#[$doc:meta])* $variant:ident($type:ty),)*) => {
        /// The value of an answer. On the socket it stands bare: which one it is follows from the request.
        #[derive(Clone, Debug, PartialEq, Serialize)]
        #[serde(untagged)]
        pub enum AdminAnswer {
            $($(#[$doc])* $variant($type),)*
        }

        $(
            impl From<$type> for AdminAnswer {
                fn from(value: $type) -> Self {
                    Self::$variant(value)
                }
            }

            impl TryFrom<AdminAnswer> for $type {
                /// The answer, if it is another one.
                type Error = AdminAnswer;

                fn try_from(answer: AdminAnswer) -> Result<Self, AdminAnswer> {
                    match answer {
                        AdminAnswer::$variant(value) => Ok(value),
                        other => Err(other),
                    }
                }
            }
        )*
    };
}

answers! {
    /// The state of the node.
    Status(Box<Status>),
    /// Incidents, the newest last.
    Incidents(Vec<IncidentView>),
    /// Incidents as records, the oldest first.
    Records(Vec<RecordView>),
    /// One of them.
    Record(RecordView),
    /// Who is told of incidents.
    Targets(Vec<TargetView>),
    /// What became of a message to each of them.
    Proofs(Vec<ProofView>),
    /// What a takeover found.
    Takeover(Box<TakeoverAccount>),
    /// A node that was told to serve alone.
    Starting(StartView),
    /// A node under a lease.
    Lease(LeaseView),
    /// An account that was made or renamed.
    Account(AccountView),
    /// Accounts.
    Accounts(Vec<AccountView>),
    /// A file that was made, cleared or grown.
    File(FileView),
    /// Files.
    Files(Vec<FileView>),
    /// What a deletion would take.
    WouldGo(WouldGo),
    /// The logging mode that holds now.
    Logging(LoggingView),
    /// It was done, and there is nothing to tell of it.
    Done(DoneView),
    /// Entries that wait for the peer.
    Log(Vec<LogEntryView>),
    /// Names of files in `diverged/`.
    Diverged(Vec<String>),
    /// A scrub that has begun or ends.
    Scrub(ScrubView),
    /// A switchover, or what one would do.
    Switchover(Box<SwitchoverView>),
    /// A compare that has begun, ends or ended.
    Compare(CompareView),
    /// Counts.
    Stats(Box<StatsView>),
    /// What the peer lacks.
    Queue(QueueView),
    /// What became of an update.
    Receipt(ReceiptView),
    /// The spool.
    Spool(SpoolView),
    /// A view that was opened or closed.
    View(ViewView),
    /// The views.
    Views(Vec<ViewView>),
}

impl From<Status> for AdminAnswer {
    fn from(status: Status) -> Self {
        Self::Status(Box::new(status))
    }
}

impl From<StatsView> for AdminAnswer {
    fn from(stats: StatsView) -> Self {
        Self::Stats(Box::new(stats))
    }
}

impl From<TakeoverAccount> for AdminAnswer {
    fn from(account: TakeoverAccount) -> Self {
        Self::Takeover(Box::new(account))
    }
}

impl From<SwitchoverView> for AdminAnswer {
    fn from(view: SwitchoverView) -> Self {
        Self::Switchover(Box::new(view))
    }
}

impl AdminAnswer {
    /// The answer to what was done and has nothing to tell.
    #[must_use]
    pub fn done() -> Self {
        Self::Done(DoneView { done: true })
    }
}

/// What view is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ViewOrder {
    /// Its name; one is given if there is none.
    pub name: Option<String>,
    /// Clients may change it; that goes with it.
    pub writable: bool,
    /// Where Redis clients connect, `address:port`, instead of a socket in the node's directory.
    pub resp: Option<String>,
    /// The same for NBD clients.
    pub nbd: Option<String>,
    /// What it may take of the disk for what is changed meanwhile (bytes).
    pub room: Option<u64>,
}

/// A view: the database as it was at one moment, on doors of its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ViewView {
    /// Its name.
    pub name: String,
    /// open or ended.
    pub state: String,
    /// Why it has ended; empty while it is open.
    pub reason: String,
    /// The last entry of the replicated journal that it shows.
    pub seq: u64,
    /// The last entry of the local journal that it shows.
    pub local_seq: u64,
    /// The node's epoch when it was opened.
    pub epoch: u64,
    /// Whether clients may change it.
    pub writable: bool,
    /// Where Redis clients connect: an address with a port, or the path of a socket.
    pub resp: String,
    /// Where NBD clients connect.
    pub nbd: String,
    /// When it was opened (milliseconds since 1970).
    pub opened_ms: u64,
    /// How old it is (seconds).
    pub age_seconds: f64,
    /// What it may take of the disk (bytes).
    pub room_bytes: u64,
    /// What it takes: of volumes what was changed since, here or in the view (bytes).
    pub used_bytes: u64,
    /// What it takes of memory for items that were written to it (bytes).
    pub items_bytes: u64,
    /// Clients connected to it.
    pub clients: u64,
}

/// The test update on a timer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CanaryView {
    /// Sent since the start.
    pub sent: u64,
    /// Of those, how many made the whole way.
    pub arrived: u64,
    /// The entry of the last that did; 0 if none has.
    pub last_seq: u64,
    /// How long that took (seconds).
    pub last_seconds: Option<f64>,
    /// Whether the one under way is late.
    pub late: bool,
    /// The part of the way that the one under way has not passed: disk, link, peer-disk, peer-apply or answer.
    pub at: String,
    /// Since it was sent (seconds).
    pub under_way_seconds: f64,
}

/// What the watches of a node see.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HealthView {
    /// What this node is at with what it has to do: idle, busy, lagging or stuck.
    pub work: String,
    /// Entries that its store may have and has not.
    pub unapplied: u64,
    /// The test update; none if there is no timer for it.
    pub canary: Option<CanaryView>,
    /// The peer's clock less this one's (milliseconds).
    pub clock_distance_ms: Option<i64>,
    /// What the replicated journal takes of its quota (percent).
    pub journal_percent: u64,
    /// When it is full at the rate of the last minute (seconds); none if it does not grow.
    pub journal_full_seconds: Option<u64>,
    /// Free on the file system of the node's directory (bytes); 0 if that is not known yet.
    pub disk_free_bytes: u64,
    /// Size of that file system (bytes).
    pub disk_bytes: u64,
}

/// An entry of the notify list, and whether it works.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetView {
    /// Its name.
    pub name: String,
    /// mail, terminals, command, webhook, alertmanager, syslog, journald or ping.
    pub kind: String,
    /// Where it goes, without secrets.
    pub to: String,
    /// What is less severe is not told.
    pub severity: String,
    /// When only critical ones are told, in the machine's local time; empty for never.
    pub quiet: String,
    /// Messages that wait.
    pub queued: u64,
    /// Messages that were given up because too many waited.
    pub dropped: u64,
    /// Messages delivered since the start.
    pub delivered: u64,
    /// When the last one was (milliseconds since 1970).
    pub last_ok_ms: Option<u64>,
    /// Since when none can be delivered (milliseconds since 1970).
    pub failing_since_ms: Option<u64>,
    /// Why the last attempt failed.
    pub last_error: String,
}

/// What became of a message that was sent to prove that it arrives.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofView {
    /// The entry of the notify list.
    pub name: String,
    /// Whether the receiver took it.
    pub ok: bool,
    /// What it said, or what went wrong.
    pub text: String,
    /// How long it took (milliseconds).
    pub ms: u64,
}

/// An incident, as it is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncidentView {
    /// notice, warning or critical.
    pub severity: String,
    /// A fixed word for programs, such as `peer-lost`.
    pub kind: String,
    /// One sentence for people.
    pub text: String,
    /// When (milliseconds since 1970).
    pub wall_ms: u64,
}

impl From<&Incident> for IncidentView {
    fn from(incident: &Incident) -> Self {
        Self {
            severity: incident.severity.name().to_owned(),
            kind: incident.kind.to_owned(),
            text: incident.text.clone(),
            wall_ms: incident.wall_ms,
        }
    }
}

/// A node as the holder of a lease has to know it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LeaseView {
    /// Which life of the node this is: a number by chance.
    pub run: u64,
    /// Its clock, which begins anew with each life (microseconds).
    pub clock: u64,
    /// Its name.
    pub name: String,
    /// Which of the two it is.
    pub ordinal: u8,
    /// The pair, in hexadecimal digits.
    pub pair: String,
    /// primary, standby, diverged or incomplete.
    pub role: String,
    /// Where it is: serving, standby, asking-peer ..
    pub stage: String,
    /// Why it does not serve.
    pub reason: String,
    /// Its epoch.
    pub epoch: u64,
    /// Whether a lease holds.
    pub holds: bool,
    /// For so long (seconds).
    pub seconds_left: f64,
    /// What the last grant said, see [`Grant::alone`].
    pub alone: bool,
    /// Whether the promised level is lowered now.
    pub lowered: bool,
    /// Whether it would be lowered if a grant let it.
    pub waits_to_lower: bool,
    /// Whether the database or a file promises more than level `local`.
    pub promises: bool,
    /// Whether the standby follows, and its disk has all that was acknowledged before this epoch.
    pub whole: bool,
    /// Whether the primary is connected (on a standby).
    pub hears_primary: bool,
    /// Since the last word from the peer (seconds).
    pub silence_seconds: f64,
}

/// Time that the holder of a lease gives to its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// [`LeaseView::run`], as told before the lease was renewed ..
    pub run: u64,
    /// .. and [`LeaseView::clock`].
    pub from: u64,
    /// The node may accept updates for so long after that (milliseconds); 0 ends what was granted before.
    pub ms: u64,
    /// Whether it is written down where the lease is that the standby may lack what is acknowledged from now on.
    #[serde(default)]
    pub alone: bool,
}

/// What becomes of a node that was told to serve alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartView {
    /// Its state.
    pub state: String,
}

/// The logging mode.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoggingView {
    /// dl-only, all or paused.
    pub logging: String,
}

/// Nothing but that it was done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DoneView {
    /// True.
    pub done: bool,
}

/// The scrub under way, and those before it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ScrubView {
    /// Whether one is under way.
    pub running: bool,
    /// How many began since the node started.
    pub number: u64,
    /// What is read: everything, or `account,file`.
    pub what: String,
    /// Whether it began by itself.
    pub scheduled: bool,
    /// When it began (milliseconds since 1970).
    pub began_ms: u64,
    /// How far it is (bytes, holes of volumes among them) ..
    pub done: u64,
    /// .. of how much.
    pub total: u64,
    /// Bytes read.
    pub read: u64,
    /// Places found wrong.
    pub wrong: u64,
    /// Bytes a second at most; 0 is no limit.
    pub rate_limit: u64,
    /// For so long.
    pub seconds: f64,
    /// What it reads in a second (bytes).
    pub bytes_per_second: u64,
    /// At the pace so far.
    pub seconds_left: Option<f64>,
    /// When the last scrub of everything ended, kept over restarts (milliseconds since 1970); 0: never.
    pub last_ended_ms: u64,
    /// Places that it found wrong.
    pub last_wrong: u64,
    /// How the last one since the start ended, whatever it read.
    pub end: Option<ScrubEnd>,
}

/// How a scrub ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ScrubEnd {
    /// What was read: everything, or `account,file`.
    pub what: String,
    /// When it began (milliseconds since 1970).
    pub began_ms: u64,
    /// When it ended.
    pub ended_ms: u64,
    /// It took so long.
    pub seconds: f64,
    /// Bytes read.
    pub read: u64,
    /// Places found wrong.
    pub wrong: u64,
    /// Whether it was stopped before its end.
    pub stopped: bool,
    /// Why some of it could not be read, if so.
    pub unread: String,
}

/// The compare under way, or the last one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CompareView {
    /// How many began since this node started, here or by its word.
    pub number: u64,
    /// Whether one is under way.
    pub running: bool,
    /// What is compared: everything, an account, or `account,file`.
    pub what: String,
    /// Whether the last one came to its end.
    pub whole: bool,
    /// Why not, if not.
    pub why: String,
    /// Whether it repairs what differs.
    pub repair: bool,
    /// When it began (milliseconds since 1970); 0: none ever did.
    pub began_ms: u64,
    /// When it ended.
    pub ended_ms: u64,
    /// For so long.
    pub seconds: f64,
    /// The first entry at which both nodes were looked at ..
    pub from: u64,
    /// .. and the last one.
    pub to: u64,
    /// Ranges looked at.
    pub ranges: u64,
    /// Items, and blocks that are not zeros, in those that are equal.
    pub items: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Of the volumes so much is done (bytes) ..
    pub done: u64,
    /// .. of so much.
    pub total: u64,
    /// Items and blocks in which the nodes differ.
    pub differing: u64,
    /// Of those, repaired.
    pub repaired: u64,
    /// Ranges that had differed, and were written anew before they could be looked at closer.
    pub passed: u64,
    /// Ranges that could not be read.
    pub unread: u64,
    /// The hash of the hashes of all ranges that were equal (hexadecimal).
    pub digest: String,
    /// The first differences; of the status none.
    pub differences: Vec<DifferenceView>,
}

/// A part in which the nodes differ.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DifferenceView {
    /// `account,file`.
    pub file: String,
    /// The item's id, or the bytes of a volume.
    pub part: String,
    /// changed, standby-only, primary-only, had-differed, unreadable-on-standby or unreadable-on-primary.
    pub how: String,
    /// The entry at which was looked.
    pub at: u64,
    /// Whether the standby has the primary's content by now.
    pub repaired: bool,
}

/// What a deletion would take.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WouldGo {
    /// Whether an account would be deleted; else a file is deleted or cleared.
    pub account: bool,
    /// Whether there are more items than were counted.
    pub at_least: bool,
    /// True: nothing was done.
    pub dry_run: bool,
    /// Files.
    pub files: u64,
    /// Items in them.
    pub items: u64,
    /// The node that was asked ..
    pub node: String,
    /// .. and its role.
    pub role: String,
}

/// A switchover that was done, or would be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SwitchoverView {
    /// The old primary.
    pub from: String,
    /// The new one.
    pub to: String,
    /// Whether it only was tried out.
    pub dry_run: bool,
    /// Whether every condition holds.
    pub possible: bool,
    /// What it depends on; only of a dry run.
    pub conditions: Vec<ConditionView>,
    /// For how long nobody will be answered, about; only of a dry run.
    pub expected_pause_seconds: f64,
    /// What to do where a condition does not hold.
    pub next: String,
    /// The new epoch.
    pub epoch: u64,
    /// The last entry of the old one, which both nodes have.
    pub entry: u64,
    /// From when the doors of the old primary were closed until an update could be answered again, as this node measured it.
    pub pause_seconds: f64,
    /// The same as the peer measured it, where it is known.
    pub peer_pause_seconds: Option<f64>,
    /// From the request, or the peer's word, until all was done here.
    pub seconds: f64,
    /// When it was done (milliseconds since 1970).
    pub wall_ms: u64,
}

/// What a switchover depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConditionView {
    /// Whether it is so.
    pub holds: bool,
    /// What is so, or what is in the way.
    pub text: String,
}

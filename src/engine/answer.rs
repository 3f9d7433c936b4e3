//! What operators are answered, each answer with its type. How it is written on the socket is the node's matter.

use super::admin::{AccountView, FileView, LogEntryView, Status, TakeoverAccount};
use super::effect::Incident;
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
    /// What a takeover found.
    Takeover(Box<TakeoverAccount>),
    /// A node that was told to serve alone.
    Starting(StartView),
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
}

impl From<Status> for AdminAnswer {
    fn from(status: Status) -> Self {
        Self::Status(Box::new(status))
    }
}

impl From<TakeoverAccount> for AdminAnswer {
    fn from(account: TakeoverAccount) -> Self {
        Self::Takeover(Box::new(account))
    }
}

impl AdminAnswer {
    /// The answer to what was done and has nothing to tell.
    #[must_use]
    pub fn done() -> Self {
        Self::Done(DoneView { done: true })
    }
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

//! Commands that change something wait for a node that is starting, so that a script needs no loop.

use super::failure::Failure;
use super::out::{say, visible};
use super::{Context, glue, values};
use crate::base::limits::{COMMAND_LOOK_MS, COMMAND_WAIT_TELL_MS};
use crate::engine::admin::{AdminRequest, Status};
use clap::Args;
use std::time::{Duration, Instant};

/// The states that a node leaves by itself when it starts.
const BEFORE_REPLAY: [&str; 2] = ["starting", "recovering"];
const ON_THE_WAY: [&str; 6] =
    ["replaying", "asking-peer", "starting-epoch", "taking-over", "handing-over", "stepping-down"];

/// The flag of commands that change something.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct WaitArgs {
    /// How long to wait for a node that is starting; 0 does not wait
    #[arg(long, global = true, value_name = "SECONDS", default_value = "10", value_parser = values::wait)]
    wait: Duration,
}

impl WaitArgs {
    /// The commands of this run wait so long.
    pub(crate) fn note(self, context: &mut Context) {
        context.wait = self.wait;
    }
}

/// How far a node must have come before it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// A report is of use at any moment, most of all when the node does not come up.
    Nothing,
    /// It has read what its journal holds.
    Journal,
    /// It has replayed its journal, and may be asking its peer.
    Replayed,
    /// It serves or stands by, or does not by itself.
    Settled,
}

impl Need {
    /// Of a request. There is no other arm: each new request has to decide.
    pub(crate) fn of(request: &AdminRequest) -> Self {
        match request {
            AdminRequest::Status
            | AdminRequest::Incidents
            | AdminRequest::IncidentRecords
            | AdminRequest::IncidentAck { .. }
            | AdminRequest::NotifyList
            | AdminRequest::NotifyTest { .. }
            | AdminRequest::AccountList
            | AdminRequest::FileList { .. }
            | AdminRequest::LogShow { .. }
            | AdminRequest::ScrubStop
            | AdminRequest::SpoolStop { .. }
            | AdminRequest::CompareStop
            | AdminRequest::CompareResult
            | AdminRequest::Stats
            | AdminRequest::Queue
            | AdminRequest::Receipt { .. }
            | AdminRequest::ViewList
            | AdminRequest::ViewClose { .. }
            | AdminRequest::DivergedList => Self::Nothing,
            AdminRequest::SetDptr { set, clear, ack: None, .. } if set.is_empty() && clear.is_empty() => {
                Self::Nothing
            }
            AdminRequest::Lease { .. } => Self::Nothing,
            AdminRequest::Takeover { .. } => Self::Journal,
            AdminRequest::Switchover { .. } => Self::Settled,
            AdminRequest::StartAlone
            | AdminRequest::StartAloneAcceptLoss
            | AdminRequest::Resync { .. }
            | AdminRequest::Scrub { .. }
            | AdminRequest::SpoolStart { .. }
            | AdminRequest::Save { .. }
            | AdminRequest::ViewOpen(_)
            | AdminRequest::CompareQuery { .. }
            | AdminRequest::Compare { .. } => Self::Replayed,
            AdminRequest::AccountCreate { .. }
            | AdminRequest::AccountDelete { .. }
            | AdminRequest::AccountRename { .. }
            | AdminRequest::FileCreate { .. }
            | AdminRequest::FileDelete { .. }
            | AdminRequest::FileClear { .. }
            | AdminRequest::FileGrow { .. }
            | AdminRequest::FileRename { .. }
            | AdminRequest::SetDptr { .. }
            | AdminRequest::Logging { .. }
            | AdminRequest::LoggingResume => Self::Settled,
        }
    }

    /// Whether a node in this state can be asked.
    fn is_met(self, state: &str) -> bool {
        let early = BEFORE_REPLAY.contains(&state);
        match self {
            Self::Nothing => true,
            Self::Journal => !early,
            Self::Replayed => !early && state != "replaying",
            Self::Settled => !early && !ON_THE_WAY.contains(&state),
        }
    }
}

/// Waits until the node can be asked, or the time is over: then the request itself is told why not.
pub(crate) fn until_ready(context: &Context, need: Need) -> Result<(), Failure> {
    if need == Need::Nothing || context.wait.is_zero() {
        return Ok(());
    }
    let dir = context.dir()?;
    let (begin, mut told) = (Instant::now(), false);
    loop {
        let left = context.wait.saturating_sub(begin.elapsed());
        let Some(why) = glue::look(dir, left.max(Duration::from_secs(1))).not_ready(need) else {
            return Ok(());
        };
        if left.is_zero() {
            return Ok(());
        }
        if !told && begin.elapsed() >= Duration::from_millis(COMMAND_WAIT_TELL_MS) {
            told = true;
            let seconds = context.wait.as_secs_f64();
            say(format_args!("waiting for the node in {}, {seconds} s at most: {why}", dir.display()));
        }
        std::thread::sleep(Duration::from_millis(COMMAND_LOOK_MS).min(left));
    }
}

/// What a look at a node finds.
#[derive(Debug)]
pub(crate) enum Look {
    /// Nobody answers in its directory.
    Absent,
    /// It told its state.
    Told(Box<Status>),
    /// Something that waiting does not mend: the request meets it too, and says so.
    Hopeless,
}

impl Look {
    /// Why the node cannot be asked yet; nothing if it can.
    fn not_ready(&self, need: Need) -> Option<String> {
        match self {
            Self::Absent => Some("no node answers there yet".to_owned()),
            Self::Told(status) if !need.is_met(&status.state) => Some(match status.reason.as_str() {
                "" => format!("it is {}", visible(&status.state)),
                reason => visible(reason),
            }),
            Self::Told(_) | Self::Hopeless => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::dptr::LoggingMode;

    fn told(state: &str) -> Look {
        Look::Told(Box::new(Status { state: state.to_owned(), ..Status::default() }))
    }

    #[test]
    fn what_changes_something_waits_for_a_node_that_starts_and_a_report_does_not() {
        let create = AdminRequest::AccountCreate { name: "app".to_owned(), flags: String::new() };
        for request in [create, AdminRequest::Logging { mode: LoggingMode::All }] {
            for state in ["starting", "replaying", "asking-peer", "starting-epoch"] {
                assert!(told(state).not_ready(Need::of(&request)).is_some(), "{request:?} at {state}");
            }
            for state in ["serving", "standby", "diverged", "read-only", "stopping"] {
                assert_eq!(told(state).not_ready(Need::of(&request)), None, "{request:?} at {state}");
            }
            assert!(Look::Absent.not_ready(Need::of(&request)).is_some());
            assert_eq!(Look::Hopeless.not_ready(Need::of(&request)), None);
        }
        assert_eq!(Need::of(&AdminRequest::Status), Need::Nothing);
    }

    #[test]
    fn the_word_of_an_operator_is_given_to_a_node_that_asks_its_peer() {
        let takeover =
            AdminRequest::Takeover { peer_is_down: true, dry_run: false, accept_loss: false, now: false };
        for state in ["replaying", "asking-peer", "standby"] {
            assert_eq!(told(state).not_ready(Need::of(&takeover)), None, "{state}");
        }
        assert!(told("starting").not_ready(Need::of(&takeover)).is_some());
        assert_eq!(told("asking-peer").not_ready(Need::of(&AdminRequest::StartAlone)), None);
        assert!(told("replaying").not_ready(Need::of(&AdminRequest::StartAlone)).is_some());
    }
}

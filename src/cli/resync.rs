//! `resync`: a full copy for a peer that cannot follow, and how far it is.

use super::failure::{Answer, Done};
use super::out::{say, seconds, visible};
use super::wait::WaitArgs;
use super::{Context, ask, glue, resync_plan, values};
use crate::base::limits::CHUNK_BYTES;
use crate::base::shown::{bytes, count};
use crate::engine::admin::{AdminRequest, CopyView, DoneView, Status};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::io::IsTerminal as _;
use std::time::Duration;

const LOOK: Duration = Duration::from_millis(500);
/// Where stderr is no terminal: between two words of how far it is.
const LOOKS_TO_TELL: u32 = 20;
/// A want with a digest, its answer, and both frames' headers (bytes).
const DIGEST_TRIP: u64 = 320;
/// So often in a row nothing is to be copied before that is believed: links come and go.
const LOOKS_TO_END: u32 = 3;

/// Lets this primary give its peer a copy of everything, or this diverged node be rewound, where that is needed
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_long_help = "\
A peer that the journal does not reach any more needs a copy of everything that is replicated. It goes over the
link while users work; `hot-backup status` shows it on both nodes. Until it is whole the peer is `incomplete`: it
cannot take over, and what it acknowledges keeps no promise.

A peer that holds an old copy tells what each range of it digests to (blake3), and content comes only where that differs;
--full has all content sent. Both must be this version: else all of it is sent.

By itself a primary gives a copy if the config says full_sync = \"auto\", which is the default; with \"ask\" it waits for
this command. It never writes over entries that only the peer has. A node that has diverged is rewound by itself if its
config says on_diverged = \"rewind\", which is the default; with \"wait\" it waits for this command on it. How fast it goes is copy_rate in the config, or --rate,
also while it is under way.

Examples:
  hot-backup resync --dry-run       how the pair gets level again, why, and about how much that moves
  hot-backup resync                 give the peer a copy, if it needs one
  hot-backup resync --watch         .. and show how far it is until it is whole, on either node
  hot-backup resync --rate 20M      no faster than that, from now on until the node is restarted
  hot-backup resync --rate auto     as fast as it goes, while users change nothing
  hot-backup resync --full          .. with all content, also where the peer holds it already
  hot-backup resync plan --help     where no link is fast enough: what is carried instead"
)]
pub(crate) struct ResyncArgs {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// Content in a second at most, such as 50M; auto: as fast as it goes, but a fifth of the time while users change
    /// anything
    #[arg(long, value_name = "SIZE", value_parser = rate)]
    rate: Option<u64>,
    /// Send all content of the copy, also where the peer holds it already
    #[arg(long)]
    full: bool,
    /// On a node that is whole: your word that it may be made what a primary has that took over with a copy that was not whole
    #[arg(long, conflicts_with_all = ["full", "dry_run"])]
    accept_incomplete: bool,
    /// Only say how the pair gets level again: by the journal, a rewind, digests, or a full copy; on either node
    #[arg(long, conflicts_with_all = ["watch", "rate"])]
    dry_run: bool,
    /// Show how far the copy is until it is whole; on the node that is given it too
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Plan(Box<resync_plan::PlanArgs>),
}

impl ResyncArgs {
    fn request(&self) -> AdminRequest {
        let Self { rate, full, accept_incomplete, .. } = *self;
        AdminRequest::Resync { rate, full, accept_incomplete }
    }
}

/// `auto`, or a size that is not 0.
fn rate(text: &str) -> Result<u64, String> {
    if text == "auto" {
        return Ok(0);
    }
    match values::byte_size(text)? {
        0 => Err("expected a size such as 50M, or auto".to_owned()),
        size => Ok(size),
    }
}

/// Runs `resync`.
pub(crate) fn run(context: &mut Context, args: &ResyncArgs) -> Done {
    args.wait.note(context);
    if let Some(Verb::Plan(args)) = &args.verb {
        return resync_plan::run(context, args);
    }
    if args.dry_run {
        let status: Box<Status> = ask::ask_for(context, &AdminRequest::Status)?;
        let plan = plan(&status, glue::stored_bytes(context.dir()?), args.full);
        return match context.json {
            true => context.out.json(&plan),
            false => context.out.line(plan.sentence()),
        }
        .map(|()| Answer::Yes);
    }
    if args.watch && args.rate.is_none() {
        let status: Box<Status> = ask::ask_for(context, &AdminRequest::Status)?;
        if !matches!(status.role.as_str(), "primary" | "diverged") {
            return watch(context);
        }
    }
    let done: DoneView = ask::ask_for(context, &args.request())?;
    if args.watch {
        return watch(context);
    }
    if context.json {
        context.out.json(&done)?;
    } else {
        context.out.line("the copy or the rewind begins, if one is needed; see `hot-backup status`")?;
    }
    Ok(Answer::Yes)
}

/// How the pair gets level again.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Plan {
    /// nothing, catch-up, rewind, digests, full-copy, or unknown.
    way: &'static str,
    /// Why that one.
    why: String,
    /// What the peer lacks (entries), as far as it is known.
    entries: u64,
    /// About how much goes over the link (bytes), if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
}

impl Plan {
    fn sentence(&self) -> String {
        let much = self.bytes.map_or_else(String::new, |n| format!(", about {}", bytes(n)));
        let way = match self.way {
            "nothing" => "nothing is to be done".to_owned(),
            "catch-up" => format!("catch-up by the journal: {}{much}", entries(self.entries)),
            "full-copy" => format!("full copy of all that is replicated{much}"),
            "digests" => format!(
                "digests of all that is replicated, and content where they differ{}",
                self.bytes.map_or_else(String::new, |n| format!(", {} or more", bytes(n)))
            ),
            other => format!("{other}{much}"),
        };
        format!("{way}: {}", self.why)
    }
}

/// What the digests of so much content take on the link (bytes).
fn digests_of(stored: u64) -> u64 {
    stored.div_ceil(u64::from(CHUNK_BYTES)) * DIGEST_TRIP
}

/// The way where the journal does not reach, if the peer holds an old copy, or else.
fn copied(s: &Status, stored: u64, full: bool) -> (&'static str, Option<u64>) {
    if s.peer.digests && !full {
        return ("digests", Some(digests_of(stored).saturating_add(s.peer.lag_bytes)));
    }
    ("full-copy", Some(stored))
}

/// `stored`: what this node's store and volumes take on its disk (bytes); `full` has all content sent.
fn plan(s: &Status, stored: u64, full: bool) -> Plan {
    let peer = &s.peer;
    let name = if peer.name.is_empty() { "the peer".to_owned() } else { visible(&peer.name) };
    let (entries, lag) = (peer.lag_entries, Some(peer.lag_bytes));
    let oldest = s.journal.oldest_seq;
    let has = s.positions.appended.saturating_sub(entries);
    let way = |way, why: String, entries, bytes| Plan { way, why, entries, bytes };
    if let Some(copy) = &s.copy {
        let size = (copy.size > 0).then_some(copy.size);
        let by = match copy.way.as_str() {
            "digests" => "digests",
            "rewind" => "rewind",
            _ => "full-copy",
        };
        return way(by, format!("it is under way: {}", line(copy)), entries, size);
    }
    let gap = s.gap.as_ref().filter(|gap| gap.full_copy);
    let (by, much) = copied(s, stored, full);
    match (s.role.as_str(), gap) {
        ("diverged", _) => {
            let why = format!("this node holds entries that the pair never kept; {}", visible(&s.reason));
            way("rewind", why, 0, None)
        }
        ("primary", Some(gap)) => way(by, visible(&gap.text), entries, much),
        ("primary", None) if peer.connected && peer.incomplete => {
            way(by, format!("{name} was given a part of one"), entries, much)
        }
        ("primary", None) if peer.connected && entries == 0 => {
            way("nothing", format!("{name} follows and has everything on disk"), 0, Some(0))
        }
        ("primary", None) if peer.connected => {
            way("catch-up", format!("{name} follows and is behind"), entries, lag)
        }
        ("primary", None) if oldest > has + 1 => {
            let why = format!(
                "{name} is away, is known to have entries up to {}, and the journal reaches back to {} only",
                count(has),
                count(oldest)
            );
            way(by, why, entries, much)
        }
        ("primary", None) => {
            let why = format!(
                "{name} is away, is known to have entries up to {}, and the journal reaches back to {}; if it holds \
                 entries of its own, it is rewound",
                count(has),
                count(oldest)
            );
            way("catch-up", why, entries, lag)
        }
        (_, Some(gap)) => way("full-copy", visible(&gap.text), 0, None),
        (_, None) if peer.connected => {
            let behind = s.announced.saturating_sub(s.positions.appended);
            let why = format!("this node follows {name}");
            way(if behind == 0 { "nothing" } else { "catch-up" }, why, behind, None)
        }
        (_, None) => {
            let why = format!("{name} is not reached; ask there: hot-backup resync --dry-run");
            way("unknown", why, 0, None)
        }
    }
}

/// Whether nothing is to be copied any more, as this node knows it.
fn is_whole(status: &Status) -> bool {
    let peer = &status.peer;
    match status.role.as_str() {
        "primary" => status.copy.is_none() && peer.connected && !peer.incomplete,
        role => status.copy.is_none() && role == "standby",
    }
}

/// Shows how far a copy is until it is whole.
fn watch(context: &mut Context) -> Done {
    let bar = ProgressBar::no_length();
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {msg}") {
        bar.set_style(style);
    }
    let (mut looks, mut whole, mut seen) = (0_u32, 0, false);
    while whole < LOOKS_TO_END {
        let status: Box<Status> = ask::ask_for(context, &AdminRequest::Status)?;
        whole = if is_whole(&status) { whole + 1 } else { 0 };
        if let Some(copy) = &status.copy {
            seen = true;
            bar.set_length(copy.size.max(copy.bytes).max(1));
            bar.set_position(copy.bytes);
            bar.set_message(line(copy));
            if context.json {
                context.out.json_line(copy)?;
                context.out.flush()?;
            } else if looks.is_multiple_of(LOOKS_TO_TELL) && !std::io::stderr().is_terminal() {
                say(line(copy));
            }
        }
        looks += 1;
        std::thread::sleep(LOOK);
    }
    bar.finish_and_clear();
    if !context.json {
        context.out.line(if seen { "the copy is whole" } else { "nothing is to be copied" })?;
    }
    Ok(Answer::Yes)
}

/// How far a copy is, in a line.
pub(crate) fn line(copy: &CopyView) -> String {
    let what = if copy.here { "taken from the primary" } else { "given to the peer" };
    let done = bytes(copy.bytes);
    let moved = match copy.moved {
        0 => String::new(),
        n => format!("; the primary moved on by {} meanwhile", entries(n)),
    };
    let pace = format!("{}/s", bytes(copy.rate));
    let left = copy.size.saturating_sub(copy.bytes);
    let equal = match copy.equal {
        0 => String::new(),
        n => format!(", of which {} were equal already", bytes(n)),
    };
    let far = match (copy.size, left.checked_div(copy.rate)) {
        (0, _) => format!("{done} {what}, {pace}"),
        (size, None) => format!("{done} of about {} {what}", bytes(size)),
        (size, Some(rest)) => {
            let rest = seconds(u32::try_from(rest).map_or(f64::MAX, f64::from));
            format!("{done} of about {} {what}, {pace}, {rest} left", bytes(size))
        }
    };
    format!("{far}{equal}{moved}")
}

fn entries(n: u64) -> String {
    format!("{} {}", count(n), if n == 1 { "entry" } else { "entries" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::admin::GapView;

    #[test]
    fn a_copy_says_how_far_it_is_and_how_long_it_takes() {
        let copy =
            CopyView { here: true, bytes: 1 << 30, size: 4 << 30, rate: 100 << 20, ..CopyView::default() };
        assert_eq!(line(&copy), "1.0 GiB of about 4.0 GiB taken from the primary, 100.0 MiB/s, 30.0 s left");
        let copy = CopyView { here: false, moved: 1203, rate: 0, ..copy };
        let told =
            "1.0 GiB of about 4.0 GiB given to the peer; the primary moved on by 1,203 entries meanwhile";
        assert_eq!(line(&copy), told);
        let equal = CopyView { equal: 1 << 29, moved: 0, ..copy.clone() };
        assert!(line(&equal).ends_with("given to the peer, of which 512.0 MiB were equal already"));
        let copy = CopyView { size: 0, moved: 0, rate: 1 << 20, ..copy };
        assert_eq!(line(&copy), "1.0 GiB given to the peer, 1.0 MiB/s");
    }

    #[test]
    fn a_copy_is_over_only_where_the_peer_is_there_and_whole() {
        let mut status = Status { role: "primary".into(), ..Status::default() };
        assert!(!is_whole(&status));
        status.peer.connected = true;
        assert!(is_whole(&status));
        status.peer.incomplete = true;
        assert!(!is_whole(&status));
        let standby = |role: &str| Status { role: role.into(), ..Status::default() };
        assert!(is_whole(&standby("standby")) && !is_whole(&standby("incomplete")));
    }

    #[test]
    fn a_dry_run_says_by_which_way_the_pair_gets_level_and_why() {
        let mut s = Status { role: "primary".into(), ..Status::default() };
        (s.peer.name, s.peer.connected) = ("b".into(), true);
        (s.positions.appended, s.journal.oldest_seq) = (1000, 1);
        let said = |s: &Status| plan(s, 5 << 30, false).sentence();
        assert_eq!(said(&s), "nothing is to be done: b follows and has everything on disk");
        (s.peer.lag_entries, s.peer.lag_bytes) = (10, 2048);
        assert_eq!(said(&s), "catch-up by the journal: 10 entries, about 2.0 KiB: b follows and is behind");
        s.peer.connected = false;
        assert!(said(&s).starts_with("catch-up by the journal: 10 entries"), "{}", said(&s));
        // Entry 991 is the first that it lacks.
        s.journal.oldest_seq = 991;
        assert_eq!(plan(&s, 0, false).way, "catch-up");
        s.journal.oldest_seq = 992;
        let text = said(&s);
        assert!(text.starts_with("full copy of all that is replicated, about 5.0 GiB: b is away"), "{text}");
        assert!(text.contains("up to 990, and the journal reaches back to 992 only"), "{text}");
        let gap = |text: &str| GapView { full_copy: true, text: text.into(), ..GapView::default() };
        s.peer.digests = true;
        assert!(
            said(&s).starts_with(
                "digests of all that is replicated, and content where they differ, 1.5 MiB or more"
            ),
            "{}",
            said(&s)
        );
        assert_eq!(plan(&s, 5 << 30, true).way, "full-copy");
        (s.peer.connected, s.gap) = (true, Some(gap("entries 1 to 7 are gone")));
        assert!(said(&s).ends_with(": entries 1 to 7 are gone"), "{}", said(&s));
        s.copy = Some(CopyView { bytes: 1 << 20, size: 2 << 20, ..CopyView::default() });
        assert_eq!((plan(&s, 0, false).way, plan(&s, 0, false).bytes), ("full-copy", Some(2 << 20)));
        let mut s = Status { role: "standby".into(), announced: 7, ..Status::default() };
        assert_eq!(plan(&s, 0, false).way, "unknown");
        (s.peer.connected, s.positions.appended) = (true, 7);
        assert_eq!(plan(&s, 0, false).way, "nothing");
        s.positions.appended = 5;
        assert_eq!((plan(&s, 0, false).way, plan(&s, 0, false).entries), ("catch-up", 2));
        s.role = "diverged".into();
        assert_eq!(plan(&s, 0, false).way, "rewind");
    }

    #[test]
    fn a_rate_is_a_size_or_left_to_the_node() {
        assert_eq!(rate("50M"), Ok(50 << 20));
        assert_eq!(rate("auto"), Ok(0));
        assert!(rate("0").is_err() && rate("fast").is_err());
    }
}

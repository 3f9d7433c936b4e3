//! `resync`: a full copy for a peer that cannot follow, and how far it is.

use super::failure::{Answer, Done};
use super::out::{say, seconds};
use super::wait::WaitArgs;
use super::{Context, ask, values};
use crate::base::shown::{bytes, count};
use crate::engine::admin::{AdminRequest, CopyView, DoneView, Status};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal as _;
use std::time::Duration;

const LOOK: Duration = Duration::from_millis(500);
/// Where stderr is no terminal: between two words of how far it is.
const LOOKS_TO_TELL: u32 = 20;
/// So often in a row nothing is to be copied before that is believed: links come and go.
const LOOKS_TO_END: u32 = 3;

/// Lets this primary give its peer a copy of everything, or this diverged node be rewound, where that is needed
#[derive(Debug, Args)]
#[command(after_long_help = "\
A peer that the journal does not reach any more needs a copy of everything that is replicated. It goes over the
link while users work; `hot-backup status` shows it on both nodes. Until it is whole the peer is `incomplete`: it
cannot take over, and what it acknowledges keeps no promise.

By itself a primary gives a copy if the config says full_sync = \"auto\", which is the default; with \"ask\" it waits for
this command. It never writes over entries that only the peer has. A node that has diverged is rewound by itself if its
config says on_diverged = \"rewind\", which is the default; with \"wait\" it waits for this command on it. How fast it goes is copy_rate in the config, or --rate,
also while it is under way.

Examples:
  hot-backup resync                 give the peer a copy, if it needs one
  hot-backup resync --watch         .. and show how far it is until it is whole, on either node
  hot-backup resync --rate 20M      no faster than that, from now on until the node is restarted
  hot-backup resync --rate auto     as fast as it goes, while users change nothing")]
pub(crate) struct ResyncArgs {
    /// Content in a second at most, such as 50M; auto: as fast as it goes, but a fifth of the time while users change
    /// anything
    #[arg(long, value_name = "SIZE", value_parser = rate)]
    rate: Option<u64>,
    /// Show how far the copy is until it is whole; on the node that is given it too
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    wait: WaitArgs,
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
    if args.watch && args.rate.is_none() {
        let status: Box<Status> = ask::ask_for(context, &AdminRequest::Status)?;
        if !matches!(status.role.as_str(), "primary" | "diverged") {
            return watch(context);
        }
    }
    let done: DoneView = ask::ask_for(context, &AdminRequest::Resync { rate: args.rate })?;
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
    let far = match (copy.size, left.checked_div(copy.rate)) {
        (0, _) => format!("{done} {what}, {pace}"),
        (size, None) => format!("{done} of about {} {what}", bytes(size)),
        (size, Some(rest)) => {
            let rest = seconds(u32::try_from(rest).map_or(f64::MAX, f64::from));
            format!("{done} of about {} {what}, {pace}, {rest} left", bytes(size))
        }
    };
    format!("{far}{moved}")
}

fn entries(n: u64) -> String {
    format!("{} {}", count(n), if n == 1 { "entry" } else { "entries" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_says_how_far_it_is_and_how_long_it_takes() {
        let copy =
            CopyView { here: true, bytes: 1 << 30, size: 4 << 30, rate: 100 << 20, ..CopyView::default() };
        assert_eq!(line(&copy), "1.0 GiB of about 4.0 GiB taken from the primary, 100.0 MiB/s, 30.0 s left");
        let copy = CopyView { here: false, moved: 1203, rate: 0, ..copy };
        let told =
            "1.0 GiB of about 4.0 GiB given to the peer; the primary moved on by 1,203 entries meanwhile";
        assert_eq!(line(&copy), told);
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
    fn a_rate_is_a_size_or_left_to_the_node() {
        assert_eq!(rate("50M"), Ok(50 << 20));
        assert_eq!(rate("auto"), Ok(0));
        assert!(rate("0").is_err() && rate("fast").is_err());
    }
}

//! `compare`: holds what both nodes have against each other, while users work, and repairs the standby if it is told to.

use super::failure::{Answer, Done, Failure};
use super::out::{say, seconds, utc, visible};
use super::wait::WaitArgs;
use super::{Context, ask, glue, values};
use crate::base::shown::{bytes, count, counted};
use crate::client::{Reply, RespError};
use crate::engine::admin::{AdminRequest, CompareView, DifferenceView};
use crate::format::compared::is_listing;
use clap::Args;
use std::time::Duration;

const LOOK: Duration = Duration::from_millis(100);
/// Between two words of how far it is.
const TELL: Duration = Duration::from_secs(10);

/// Compares what both nodes hold, item by item and block by block, while users work
#[derive(Debug, Args)]
#[command(after_long_help = "\
Both nodes look at range after range of what is replicated, each time at the same entry of the journal, and the standby
compares what they found. So neither updates nor the time they take to arrive make a difference. Only hashes cross the
wire, unless something differs. It may be said on either node. Files that are not replicated are not compared.

With --repair the standby is given the primary's content where they differ, and looks again. Nothing is ever changed on
the primary. With --dry-run it says what it would repair.

Examples:
  hot-backup compare                        everything, at the config's compare_rate
  hot-backup compare app,orders --json      one file
  hot-backup compare app --repair --dry-run what a repair would do
  hot-backup compare --rate unlimited       as fast as both disks read
  hot-backup compare --query 'KEYS app,orders,1*'   one listing on both nodes, line by line
  hot-backup compare --stop                 end the one that is under way

Without --background the command waits for the end. Interrupted, it leaves the compare at work. What came of the last
one is kept, and shown by hot-backup status.
Exit codes: 0 both nodes are equal, 1 they differed (also where that was repaired), 2 error, or it did not come to its end.")]
pub(crate) struct CompareArgs {
    /// Only this, as account or account,file
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Give the standby the primary's content where they differ
    #[arg(long)]
    repair: bool,
    /// Change nothing: say what differs, and what --repair would do
    #[arg(long)]
    dry_run: bool,
    /// Bytes a second at most, such as 50M, or unlimited
    #[arg(long, value_name = "SIZE", value_parser = values::rate)]
    rate: Option<u64>,
    /// Begin it, and do not wait for its end
    #[arg(long)]
    background: bool,
    /// Only what this read command of the RESP door answers, on both nodes at one entry, line by line
    #[arg(long, value_name = "COMMAND", conflicts_with_all = ["name", "repair", "dry_run", "rate"])]
    query: Option<String>,
    /// End the compare that is under way
    #[arg(long, conflicts_with_all = ["name", "repair", "dry_run", "rate", "background", "query"])]
    stop: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Runs `compare`.
pub(crate) fn run(context: &mut Context, args: &CompareArgs) -> Done {
    args.wait.note(context);
    let request = match (args.stop, &args.query) {
        (true, _) => AdminRequest::CompareStop,
        (_, Some(query)) => AdminRequest::CompareQuery { query: readable(context, query)? },
        (false, None) => AdminRequest::Compare {
            name: args.name.clone(),
            repair: args.repair,
            dry_run: args.dry_run,
            rate: args.rate,
        },
    };
    let begun: CompareView = ask::ask_for(context, &request)?;
    if args.stop || args.background {
        if context.json {
            context.out.json(&begun)?;
        } else {
            say(if args.stop {
                "the compare ends"
            } else {
                "the compare has begun; `hot-backup status` shows it"
            });
        }
        return Ok(Answer::Yes);
    }
    let end = follow(context, begun.number)?;
    if !end.whole {
        return Err(Failure::error(
            format!("comparing: {}", visible(&end.why)),
            "say it again when `hot-backup status` shows that the standby follows",
        ));
    }
    if context.json {
        context.out.json(&end)?;
    } else {
        for difference in &end.differences {
            context.out.line(difference_line(difference, args.repair && args.dry_run))?;
        }
        context.out.line(result(&end))?;
    }
    Ok(if is_equal(&end) { Answer::Yes } else { Answer::No })
}

/// The command, if it is one that reads: the node's own door knows.
fn readable(context: &Context, query: &str) -> Result<String, Failure> {
    let name = query.split_whitespace().next().unwrap_or_default();
    let mut client = glue::items_of(context.dir()?)?;
    let failed =
        |error: RespError| Failure::error(format!("asking the node for commands: {error}"), "see its log");
    let told = client.call(&[b"COMMAND", b"INFO", name.as_bytes()]).map_err(failed)?;
    // Replies do not show what they hold; the flags of a command are words of this program.
    let reads = |reply: &Reply| matches!(reply, Reply::Simple(flag) if flag == "readonly");
    let flags =
        |parts: &Vec<Reply>| matches!(parts.get(2), Some(Reply::Array(flags)) if flags.iter().any(reads));
    match &told {
        Reply::Array(all) if matches!(all.first(), Some(Reply::Array(parts)) if flags(parts)) => {
            Ok(query.to_owned())
        }
        _ => Err(Failure::no(
            format!("comparing a listing: {} is no command that only reads", visible(name)),
            "say one, such as: hot-backup compare --query 'KEYS app,orders,*'",
        )),
    }
}

fn is_equal(end: &CompareView) -> bool {
    end.differing + end.passed + end.unread == 0
}

/// Waits for the end of a compare, and says now and then how far it is.
fn follow(context: &Context, number: u64) -> Result<CompareView, Failure> {
    let mut since_told = Duration::ZERO;
    loop {
        let view: CompareView = ask::ask_for(context, &AdminRequest::CompareResult)?;
        if view.number < number {
            return Err(Failure::error(
                "the node was restarted during the compare",
                "begin it again: hot-backup compare",
            ));
        }
        if !view.running || view.number > number {
            return Ok(view);
        }
        std::thread::sleep(LOOK);
        since_told += LOOK;
        if since_told >= TELL {
            since_told = Duration::ZERO;
            say(line(&view));
        }
    }
}

fn difference_line(difference: &DifferenceView, would: bool) -> String {
    let DifferenceView { file, part, how, at, repaired } = difference;
    let how = match how.as_str() {
        "changed" => "differs",
        "standby-only" => "is on the standby only",
        "primary-only" => "is on the primary only",
        "had-differed" => "had differed, and was written anew since",
        "unreadable-on-standby" => "cannot be read on the standby",
        "unreadable-on-primary" => "cannot be read on the primary",
        other => other,
    };
    let mended = match (repaired, would, how) {
        (true, ..) => "; repaired",
        (_, true, "is on the standby only") => "; would be removed from the standby",
        (_, true, "differs" | "is on the primary only") => "; would be copied to the standby",
        _ => "",
    };
    format!("{} {}: {how}, at entry {}{mended}", visible(file), visible(part), count(*at))
}

fn result(end: &CompareView) -> String {
    let what = visible(&end.what);
    if is_listing(&what) {
        return listing(end, &what);
    }
    let range = format!("at entries {} to {}", count(end.from), count(end.to));
    let looked = format!("{} in {}", bytes(end.bytes), seconds(end.seconds));
    if is_equal(end) {
        let parts = counted(end.items, "item or block is", "items and blocks are");
        return format!("{what}: {parts} equal on both nodes, {looked}, {range}");
    }
    let mut told = vec![format!("{what}: {}", counted(end.differing, "part differs", "parts differ"))];
    if end.repaired > 0 {
        told.push(format!("{} repaired", count(end.repaired)));
    }
    if end.passed > 0 {
        told.push(counted(end.passed, "range had differed", "ranges had differed"));
    }
    if end.unread > 0 {
        told.push(counted(end.unread, "range cannot be read", "ranges cannot be read"));
    }
    format!("{}; {looked}, {range}", told.join(", "))
}

/// The same of a listing.
fn listing(end: &CompareView, what: &str) -> String {
    let (equal, at) = (counted(end.items, "line is", "lines are"), count(end.to));
    match end.differing {
        0 => format!("{what}: {equal} equal on both nodes, at entry {at}"),
        n => format!("{what}: {}, {equal} equal, at entry {at}", counted(n, "line differs", "lines differ")),
    }
}

/// A compare under way, in a line.
fn line(view: &CompareView) -> String {
    let wrong = match view.differing + view.passed + view.unread {
        0 => String::new(),
        n => format!("; {}", counted(n, "part differs", "parts differ")),
    };
    let what = if view.what.is_empty() { "beginning".into() } else { visible(&view.what) };
    format!("{what}: {} equal after {}{wrong}", bytes(view.bytes), seconds(view.seconds))
}

/// The compare under way, or the last one, in a line of the status.
pub(crate) fn status_line(view: &CompareView) -> Option<String> {
    if view.began_ms == 0 {
        return None;
    }
    if view.running {
        return Some(line(view));
    }
    if !view.whole {
        return Some(format!("did not come to its end: {}", visible(&view.why)));
    }
    let digest = view.digest.get(..16).unwrap_or_default();
    Some(format!("last ended {}; {}; digest {digest}", utc(view.ended_ms), result(view)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn equal() -> CompareView {
        CompareView {
            whole: true,
            what: "app,orders".into(),
            began_ms: 1,
            ended_ms: 1_700_000_000_000,
            seconds: 2.0,
            items: 1001,
            bytes: 5 << 20,
            from: 1000,
            to: 1234,
            digest: "ab".repeat(32),
            ..CompareView::default()
        }
    }

    #[test]
    fn a_compare_says_what_is_equal_and_what_differs() {
        let end = equal();
        let told = "app,orders: 1,001 items and blocks are equal on both nodes, 5.0 MiB in 2.0 s, at entries 1,000 to 1,234";
        assert_eq!(result(&end), told);
        assert!(is_equal(&end));
        let differs = CompareView { differing: 3, repaired: 2, unread: 1, ..end.clone() };
        let told = "app,orders: 3 parts differ, 2 repaired, 1 range cannot be read; 5.0 MiB in 2.0 s, at entries 1,000 to 1,234";
        assert_eq!(result(&differs), told);
        assert!(!is_equal(&differs) && !is_equal(&CompareView { passed: 1, ..end }));
    }

    #[test]
    fn the_status_tells_of_the_last_compare_whatever_became_of_it() {
        assert_eq!(status_line(&CompareView::default()), None);
        let whole = status_line(&equal()).unwrap();
        assert!(
            whole.starts_with("last ended 2023-11-14") && whole.ends_with("; digest abababababababab"),
            "{whole}"
        );
        let cut = CompareView { whole: false, why: "it was stopped".into(), ..equal() };
        assert_eq!(status_line(&cut).unwrap(), "did not come to its end: it was stopped");
        let running = CompareView { running: true, differing: 1, ..equal() };
        assert_eq!(status_line(&running).unwrap(), "app,orders: 5.0 MiB equal after 2.0 s; 1 part differs");
    }

    #[test]
    fn a_difference_is_told_with_what_becomes_of_it() {
        let of = |how: &str, repaired| DifferenceView {
            file: "app,orders".into(),
            part: "1001".into(),
            how: how.into(),
            at: 7,
            repaired,
        };
        assert_eq!(
            difference_line(&of("changed", true), false),
            "app,orders 1001: differs, at entry 7; repaired"
        );
        let removed =
            "app,orders 1001: is on the standby only, at entry 7; would be removed from the standby";
        assert_eq!(difference_line(&of("standby-only", false), true), removed);
        let told = difference_line(&of("had-differed", false), true);
        assert_eq!(told, "app,orders 1001: had differed, and was written anew since, at entry 7");
    }
}

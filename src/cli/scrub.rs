//! `scrub`: reads everything that is stored, or one file, and holds it to its checksums.

use super::failure::{Answer, Done, Failure};
use super::out::{say, seconds, visible};
use super::wait::WaitArgs;
use super::{Context, ask, values};
use crate::base::shown::{bytes, counted};
use crate::engine::admin::{AdminRequest, ScrubEnd, ScrubView, Status};
use clap::Args;
use std::time::Duration;

const LOOK: Duration = Duration::from_millis(200);
/// Between two words of how far it is.
const TELL: Duration = Duration::from_secs(10);

/// Reads what is stored and says whether it is what was written
#[derive(Debug, Args)]
#[command(after_long_help = "\
Every block of a volume and every table of items has a checksum. A scrub reads them all from the disk, beside the
clients, and tells what does not match as an incident. A volume that was written by version 0.1 gets its checksums by its
first scrub; until then its reads are not checked.

Examples:
  hot-backup scrub                     everything, at the config's scrub_rate
  hot-backup scrub app,disk            one volume
  hot-backup scrub --rate unlimited    as fast as the disk reads
  hot-backup scrub --stop              end the one that is under way

Without --background the command waits for the end. Interrupted, it leaves the scrub at work.
Exit codes: 0 nothing is wrong, 1 something is, or it was stopped, 2 error.")]
pub(crate) struct ScrubArgs {
    /// Only this, as account,file; of a file of items, the tables of all of them
    #[arg(value_name = "ACCOUNT,FILE")]
    name: Option<String>,
    /// Bytes a second at most, such as 50M, or unlimited
    #[arg(long, value_name = "SIZE", value_parser = values::rate)]
    rate: Option<u64>,
    /// Give content whose checksum is damaged or missing a new one, as it is: only where you know that it is right
    #[arg(long)]
    renew_checksums: bool,
    /// Begin it, and do not wait for its end
    #[arg(long)]
    background: bool,
    /// End the scrub that is under way
    #[arg(long, conflicts_with_all = ["name", "rate", "renew_checksums", "background"])]
    stop: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Runs `scrub`.
pub(crate) fn run(context: &mut Context, args: &ScrubArgs) -> Done {
    args.wait.note(context);
    let request = match args.stop {
        true => AdminRequest::ScrubStop,
        false => {
            AdminRequest::Scrub { name: args.name.clone(), rate: args.rate, renew: args.renew_checksums }
        }
    };
    let begun: ScrubView = ask::ask_for(context, &request)?;
    if args.stop || args.background {
        if context.json {
            context.out.json(&begun)?;
        } else {
            say(if args.stop {
                "the scrub ends"
            } else {
                "the scrub has begun; `hot-backup status` shows it"
            });
        }
        return Ok(Answer::Yes);
    }
    let end = follow(context, begun.number)?;
    if context.json {
        context.out.json(&end)?;
    } else {
        context.out.line(result(&end))?;
    }
    let fine = end.wrong == 0 && end.unread.is_empty() && !end.stopped;
    Ok(if fine { Answer::Yes } else { Answer::No })
}

/// Waits for the end of a scrub, and says now and then how far it is.
fn follow(context: &Context, number: u64) -> Result<ScrubEnd, Failure> {
    let mut since_told = Duration::ZERO;
    loop {
        let status: Box<Status> = ask::ask_for(context, &AdminRequest::Status)?;
        let scrub = status.scrub;
        if scrub.number < number {
            return Err(Failure::error(
                "the node was restarted during the scrub",
                "begin it again: hot-backup scrub",
            ));
        }
        if (!scrub.running || scrub.number > number)
            && let Some(end) = scrub.end
        {
            return Ok(end);
        }
        std::thread::sleep(LOOK);
        since_told += LOOK;
        if since_told >= TELL {
            since_told = Duration::ZERO;
            say(line(&scrub));
        }
    }
}

fn result(end: &ScrubEnd) -> String {
    let what = visible(&end.what);
    let took = seconds(end.seconds);
    let wrong = match end.wrong {
        0 => "nothing is wrong".to_owned(),
        n => format!("{} wrong, see: hot-backup incidents", counted(n, "place is", "places are")),
    };
    let unread = match end.unread.as_str() {
        "" => String::new(),
        why => format!("; some could not be read: {}", visible(why)),
    };
    let read = bytes(end.read);
    match end.stopped {
        true => format!("{what}: stopped after {read}; until there {wrong}{unread}"),
        false => format!("{what}: read {read} in {took}; {wrong}{unread}"),
    }
}

/// A scrub under way, in a line.
pub(crate) fn line(s: &ScrubView) -> String {
    let percent = u128::from(s.done) * 100 / u128::from(s.total.max(1));
    let left = s.seconds_left.map_or_else(String::new, |left| format!(", {} left", seconds(left)));
    let wrong = match s.wrong {
        0 => String::new(),
        n => format!("; {} wrong", counted(n, "place is", "places are")),
    };
    let pace = bytes(s.bytes_per_second);
    format!("{}: {percent} % of {}, {pace}/s{left}{wrong}", visible(&s.what), bytes(s.total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrub_says_how_far_it_is_and_what_came_of_it() {
        let view = ScrubView {
            running: true,
            what: "everything".into(),
            done: 1 << 30,
            total: 4 << 30,
            bytes_per_second: 50 << 20,
            wrong: 2,
            seconds_left: Some(6.0),
            ..ScrubView::default()
        };
        assert_eq!(line(&view), "everything: 25 % of 4.0 GiB, 50.0 MiB/s, 6.0 s left; 2 places are wrong");
        let mut end =
            ScrubEnd { what: "app,disk".into(), seconds: 3.0, read: 1 << 20, ..ScrubEnd::default() };
        assert_eq!(result(&end), "app,disk: read 1.0 MiB in 3.0 s; nothing is wrong");
        end.wrong = 1;
        end.stopped = true;
        let told = "app,disk: stopped after 1.0 MiB; until there 1 place is wrong, see: hot-backup incidents";
        assert_eq!(result(&end), told);
    }
}

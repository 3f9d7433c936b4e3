//! `log dl-only|all|pause|resume|show`: D3's transaction-log menu.

use super::failure::{Answer, Done, Failure};
use super::out::{Table, say};
use super::wait::WaitArgs;
use super::{Context, account, ask};
use crate::base::shown::{bytes, count};
use crate::engine::admin::{AdminRequest, LogEntryView};
use crate::format::dptr::LoggingMode;
use clap::{Args, Subcommand};

/// What is logged and replicated; the queue to the peer (D3: the transaction-log menu)
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  hot-backup log dl-only          log files flagged L (the default)
  hot-backup log pause            log nothing; resume copies what changed meanwhile
  hot-backup log show --limit 50  the newest entries that the peer does not have yet")]
pub(crate) struct LogArgs {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    wait: WaitArgs,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Log and replicate files flagged L
    DlOnly,
    /// Log and replicate every file without X, Y or T
    All,
    /// Log nothing until resume: the standby misses what changes, and status says so
    Pause,
    /// Log again as before the pause; files that changed meanwhile are copied to the standby
    Resume,
    /// Show the newest entries queued for the peer
    Show {
        /// How many at most
        #[arg(long, default_value_t = 20, value_name = "N")]
        limit: usize,
    },
}

/// Runs `log`.
pub(crate) fn run(context: &mut Context, args: &LogArgs) -> Done {
    args.wait.note(context);
    let (request, told) = match args.verb {
        Verb::DlOnly => (AdminRequest::Logging { mode: LoggingMode::DlOnly }, "files flagged L are logged"),
        Verb::All => {
            (AdminRequest::Logging { mode: LoggingMode::All }, "every file without X, Y or T is logged")
        }
        Verb::Pause => (
            AdminRequest::Logging { mode: LoggingMode::Paused },
            "logging is paused: the standby misses what changes now; go on with: hot-backup log resume",
        ),
        Verb::Resume => (AdminRequest::LoggingResume, "logging goes on"),
        Verb::Show { limit } => return show(context, limit),
    };
    let value = ask::ask(context, &request)?;
    account::finish(context, &value, told)?;
    Ok(Answer::Yes)
}

fn show(context: &mut Context, limit: usize) -> Done {
    let entries: Vec<LogEntryView> = ask::ask_for(context, &AdminRequest::LogShow { limit })?;
    if context.json {
        context.out.json(&entries)?;
    } else if entries.is_empty() {
        say("nothing is queued for the peer");
    } else {
        print(context, &entries)?;
    }
    Ok(Answer::Yes)
}

fn print(context: &mut Context, entries: &[LogEntryView]) -> Result<(), Failure> {
    let mut table = Table::new(&[">entry", ">epoch", "what", "file", ">size", "item"]);
    for e in entries {
        table.row([
            count(e.seq),
            e.epoch.to_string(),
            e.kind.clone(),
            e.file.clone(),
            bytes(e.bytes),
            e.item.clone(),
        ]);
    }
    context.out.text(table.render())
}

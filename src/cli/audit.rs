//! `audit`: who changed what.

use super::failure::{Answer, Done};
use super::out::{Table, say, utc, visible};
use super::{Context, glue};
use clap::Args;

/// Lists who changed what by the admin socket, newest last
#[derive(Debug, Args)]
#[command(after_long_help = "\
Each request that changes something, or takes content away as a save does, leaves a line with the user, group and process
that the kernel names for it, and what came of it. Questions leave none. The lines are in DIR/audit.jsonl; they need no
running node.
Examples:
  hot-backup audit --limit 100
  hot-backup audit --json | jq -c '.[] | select(.request.verb == \"takeover\")'")]
pub(crate) struct AuditArgs {
    /// How many at most
    #[arg(long, default_value_t = 20, value_name = "N")]
    limit: usize,
}

/// Runs `audit`.
pub(crate) fn run(context: &mut Context, args: &AuditArgs) -> Done {
    let lines = glue::audited(context.dir()?, args.limit)?;
    if context.json {
        context.out.json(&lines)?;
    } else if lines.is_empty() {
        say("nothing was changed by the admin socket yet");
    } else {
        let mut table = Table::new(&["when", ">user", ">process", "program", "answer", "asked for"]);
        for line in lines {
            table.row([
                utc(line.wall_ms),
                line.uid.to_string(),
                line.pid.to_string(),
                visible(&line.program),
                visible(&line.answer),
                visible(&line.request.to_string()),
            ]);
        }
        context.out.text(table.render())?;
    }
    Ok(Answer::Yes)
}

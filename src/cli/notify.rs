//! `notify`: who is told of incidents, and whether that works.

use super::failure::{Answer, Done};
use super::out::{Table, say, utc, visible};
use super::{Context, ask};
use crate::base::shown::count;
use crate::engine::admin::{AdminRequest, ProofView, TargetView};
use clap::{Args, Subcommand};
use std::time::Duration;

/// A command of the list may take an hour.
const PATIENCE: Duration = Duration::from_secs(3700);

/// Who is told of incidents (the notify list of the config): list them, prove that messages arrive
#[derive(Debug, Args)]
#[command(after_long_help = "\
Entries of the list stand in config.toml, each below a line of its own: [[notify]]. Kinds: mail, terminals, command,
webhook, alertmanager, syslog, journald, ping. docs/notify.md has an example of each.
Examples:
  hot-backup notify list          who is told, what waits, since when a receiver takes nothing
  hot-backup notify test          sends each of them a message now; exit code 1 if one did not take it
  hot-backup notify test ops      only the entry named ops")]
pub(crate) struct NotifyArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the entries, and what became of their messages
    List,
    /// Send a test message now, and say what each receiver answered
    Test {
        /// Only the entry of this name
        name: Option<String>,
    },
}

/// Runs `notify`.
pub(crate) fn run(context: &mut Context, args: &NotifyArgs) -> Done {
    match &args.verb {
        Verb::List => list(context),
        Verb::Test { name } => test(context, name.clone()),
    }
}

fn list(context: &mut Context) -> Done {
    let targets: Vec<TargetView> = ask::ask_for(context, &AdminRequest::NotifyList)?;
    if context.json {
        context.out.json(&targets)?;
    } else if targets.is_empty() {
        say("nobody is told of incidents: the config has no [[notify]]");
    } else {
        let mut table =
            Table::new(&["name", "kind", "to", "from severity", "quiet", "waiting", "delivered", "last"]);
        for target in &targets {
            let last = match (target.failing_since_ms, target.last_ok_ms) {
                (Some(_), _) => trouble(target),
                (None, Some(at)) => format!("taken {}", utc(at)),
                (None, None) => String::new(),
            };
            let TargetView { name, kind, to, severity, quiet, queued, delivered, .. } = target.clone();
            table.row([name, kind, to, severity, quiet, count(queued), count(delivered), last]);
        }
        context.out.text(table.render())?;
    }
    Ok(Answer::Yes)
}

/// What is wrong with an entry, in a line.
pub(crate) fn trouble(target: &TargetView) -> String {
    let since =
        target.failing_since_ms.map(|at| format!("takes nothing since {}: {}", utc(at), target.last_error));
    let dropped = (target.dropped > 0).then(|| format!("{} messages were given up", count(target.dropped)));
    let waits = (target.queued > 0).then(|| format!("{} wait", count(target.queued)));
    let all: Vec<String> = since.into_iter().chain(waits).chain(dropped).collect();
    visible(&format!("{}: {}", target.name, all.join("; ")))
}

fn test(context: &mut Context, name: Option<String>) -> Done {
    let answer = ask::ask_within(context, &AdminRequest::NotifyTest { name }, PATIENCE)?;
    let proofs: Vec<ProofView> = ask::read(answer)?;
    if context.json {
        context.out.json(&proofs)?;
    } else if proofs.is_empty() {
        say("nobody is told of incidents: the config has no [[notify]]");
    } else {
        for proof in &proofs {
            let word = if proof.ok { "ok" } else { "failed" };
            let line = format!("{}: {word} after {} ms: {}", proof.name, count(proof.ms), proof.text);
            context.out.line(visible(&line))?;
        }
    }
    Ok(Answer::of(proofs.iter().all(|proof| proof.ok)))
}

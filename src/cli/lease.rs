//! `lease`: a node that accepts updates only under a lease: how it is, and time for it. For engines that decide who is
//! primary and keep their lease elsewhere; `watch` does the same for etcd by itself.

use super::failure::{Answer, Done};
use super::out::{seconds, visible};
use super::{Context, ask};
use crate::engine::admin::{AdminRequest, Grant, LeaseView};
use clap::Args;
use std::fmt::Write as _;

/// Shows how a node is that accepts updates only under a lease, or grants it time
#[derive(Debug, Args)]
#[command(after_long_help = "\
With decider = \"lease\" in config.toml a primary accepts updates only for the time that it was granted. For etcd,
`hot-backup watch` does all of that. This command is for other engines that decide, such as Pacemaker.

Time counts from the moment at which this command first asked the node. So one that waits before a node that is frozen
gives it nothing when it wakes. An engine must not let the other node be promoted before the time is over. Of several
grants the last one counts, also if it is shorter.

A primary lowers a promise above level local only if the last grant said --alone: before it says so, an engine has to
write down, where it will be read before a promotion, that the other node may lack what is acknowledged from now on.

Examples:
  hot-backup lease --json
  hot-backup lease --grant 10
  hot-backup lease --give-back

Exit codes: 0 a lease holds (or it is given back), 1 none holds, 2 error.")]
pub(crate) struct LeaseArgs {
    /// Let the node accept updates for so long from now on
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    grant: Option<u64>,
    /// It is written down that the other node may lack what is acknowledged from now on
    #[arg(long, requires = "grant")]
    alone: bool,
    /// End at once what was granted
    #[arg(long, conflicts_with = "grant")]
    give_back: bool,
}

/// Runs `lease`.
pub(crate) fn run(context: &mut Context, args: &LeaseArgs) -> Done {
    let mut view: LeaseView = ask::ask_for(context, &AdminRequest::Lease { grant: None })?;
    let ms = args.grant.map(|seconds| seconds * 1000).or(args.give_back.then_some(0));
    if let Some(ms) = ms {
        let grant = Some(Grant { run: view.run, from: view.clock, ms, alone: args.alone });
        view = ask::ask_for(context, &AdminRequest::Lease { grant })?;
    }
    if context.json {
        context.out.json(&view)?;
    } else {
        context.out.text(sentences(&view))?;
    }
    Ok(Answer::of(view.holds || args.give_back))
}

fn sentences(view: &LeaseView) -> String {
    let name = visible(&view.name);
    let mut text = String::new();
    let _ = writeln!(text, "{name} is {} ({}) in epoch {}.", view.role, visible(&view.stage), view.epoch);
    let _ = match view.holds {
        true => writeln!(text, "It may accept updates for {}.", seconds(view.seconds_left)),
        false => writeln!(text, "No lease holds: it accepts no updates of replicated files."),
    };
    if view.waits_to_lower {
        let _ =
            writeln!(text, "Updates wait for its peer; a grant with --alone lets it answer at level local.");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_whether_updates_are_accepted_and_for_how_long() {
        let view = LeaseView {
            name: "a".to_owned(),
            role: "primary".to_owned(),
            stage: "serving".to_owned(),
            epoch: 4,
            holds: true,
            seconds_left: 2.5,
            ..LeaseView::default()
        };
        assert_eq!(
            sentences(&view),
            "a is primary (serving) in epoch 4.\nIt may accept updates for 2.5 s.\n"
        );
        let over = sentences(&LeaseView { holds: false, waits_to_lower: true, ..view });
        assert!(over.contains("No lease holds") && over.contains("--alone"), "{over}");
    }
}

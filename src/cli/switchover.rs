//! `switchover`: primary and standby change roles while both live, and nothing is lost.

use super::failure::{Answer, Done};
use super::out::{seconds, visible};
use super::wait::WaitArgs;
use super::{Context, ask};
use crate::base::shown::count;
use crate::engine::admin::{AdminRequest, SwitchoverView};
use clap::Args;
use std::fmt::Write as _;
use std::time::Duration;

/// Both nodes bound what they wait for by less.
const PATIENCE: Duration = Duration::from_secs(60);

/// Changes the roles of the two nodes, while both live; nothing is lost
#[derive(Debug, Args)]
#[command(after_long_help = "\
It can be asked for on either node. The primary closes its doors, so that updates wait; as soon as the standby has
everything on disk and in its store, it opens a new epoch and serves, and the old primary is its standby at once.
Neither process restarts. It prints for how long nobody was answered.

If the standby does not get level within half a second, the doors open again and nothing has changed. Clients that
stay at the old primary are told -READONLY for every update that was not accepted; clients of volumes are disconnected.

A takeover is another thing: it is for a primary that is gone.

Examples:
  hot-backup switchover --dry-run        whether it is possible, and the expected pause
  hot-backup switchover
  hot-backup switchover --json

Exit codes: 0 done (or possible), 1 no, nothing has changed, 2 it failed or is not known: see `hot-backup status`.")]
pub(crate) struct SwitchoverArgs {
    /// Only say what would happen, and whether each condition holds
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Runs `switchover`.
pub(crate) fn run(context: &mut Context, args: &SwitchoverArgs) -> Done {
    args.wait.note(context);
    let request = AdminRequest::Switchover { dry_run: args.dry_run };
    let view: Box<SwitchoverView> = ask::read(ask::ask_within(context, &request, PATIENCE)?)?;
    if context.json {
        context.out.json(&view)?;
    } else {
        context.out.text(sentences(&view))?;
    }
    Ok(if view.possible { Answer::Yes } else { Answer::No })
}

/// The answer for people.
fn sentences(view: &SwitchoverView) -> String {
    let mut text = String::new();
    let (from, to) = (visible(&view.from), visible(&view.to));
    if !view.dry_run {
        let epoch = view.epoch;
        let _ = writeln!(text, "{to} is primary in epoch {epoch}, and {from} is its standby.");
        let _ = writeln!(text, "Both have every update up to entry {}.", count(view.entry));
        let pause = seconds(view.pause_seconds);
        let _ = match view.peer_pause_seconds {
            Some(peer) => {
                writeln!(text, "Nobody was answered for {pause}; {to} measured {}.", seconds(peer))
            }
            None => writeln!(text, "Nobody was answered for {pause}."),
        };
        return text;
    }
    let _ = writeln!(text, "{from} would hand over to {to}. Nothing was done.");
    for condition in &view.conditions {
        let mark = if condition.holds { "yes" } else { "no " };
        let _ = writeln!(text, "  {mark}  {}", visible(&condition.text));
    }
    let _ = match view.possible {
        true => {
            writeln!(text, "Nobody would be answered for about {}.", seconds(view.expected_pause_seconds))
        }
        false => writeln!(text, "It is not possible now: {}.", visible(&view.next)),
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::admin::ConditionView;

    fn condition(holds: bool, text: &str) -> ConditionView {
        ConditionView { holds, text: text.to_owned() }
    }

    #[test]
    fn the_answer_says_who_serves_what_is_kept_and_how_long_nobody_was_answered() {
        let view = SwitchoverView {
            from: "a".into(),
            to: "b".into(),
            possible: true,
            epoch: 1_000_003,
            entry: 1204,
            pause_seconds: 0.023,
            peer_pause_seconds: Some(0.021),
            ..SwitchoverView::default()
        };
        let text = sentences(&view);
        for part in [
            "b is primary in epoch 1000003, and a is its standby.",
            "up to entry 1,204.",
            "answered for 23 ms; b measured 21 ms.",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
    }

    #[test]
    fn a_dry_run_shows_each_condition_and_what_to_do_or_the_expected_pause() {
        let conditions = vec![condition(true, "a serves"), condition(false, "b is not connected")];
        let view = SwitchoverView {
            from: "a".into(),
            to: "b".into(),
            dry_run: true,
            conditions,
            next: "look at the peer".into(),
            expected_pause_seconds: 0.02,
            ..SwitchoverView::default()
        };
        let text = sentences(&view);
        for part in ["a would hand over to b", "  yes  a serves\n  no   b is not connected\n", "now: look at"]
        {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
        let text = sentences(&SwitchoverView { possible: true, ..view });
        assert!(text.ends_with("answered for about 20 ms.\n"), "{text}");
    }
}

//! `takeover`: the standby becomes primary, and says what is kept and what may be lost.

use super::failure::{Answer, Done};
use super::out::{seconds, visible};
use super::wait::WaitArgs;
use super::{Context, ask};
use crate::base::shown::{count, counted};
use crate::engine::admin::{AdminRequest, TakeoverAccount};
use clap::Args;
use std::fmt::Write as _;
use std::time::Duration;

/// A takeover first applies what was received, which may be much.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Makes this standby the primary, because the primary is gone
#[derive(Debug, Args)]
#[command(after_long_help = "\
Two primaries at once would each accept updates that the other never sees. No program can tell a dead peer from a
silent one; so a takeover needs your word, --peer-is-down, and you should have made sure: power is off, the
process has ended, or nobody can reach it.

It applies everything received, opens a new epoch, lets the users in, and prints the account: what is kept for
certain, and what may be lost. When the old primary comes back it sees the new epoch and refuses to serve.

Examples:
  hot-backup takeover --dry-run           what would be kept, without doing it
  hot-backup takeover --rehearse          the same, tried on a view that is thrown away, with the time it takes
  hot-backup takeover --peer-is-down
  hot-backup takeover --peer-is-down --now    the primary was frozen or cut off a moment ago
  hot-backup takeover --peer-is-down --json")]
pub(crate) struct TakeoverArgs {
    /// Your word that the primary does not serve
    #[arg(long)]
    peer_is_down: bool,
    /// Your word that entries which the primary had, and which are not here, may be given up
    #[arg(long)]
    accept_loss: bool,
    /// Do not wait until the connection of a primary that has fallen silent is given up
    #[arg(long)]
    now: bool,
    /// Only say what would happen
    #[arg(long)]
    dry_run: bool,
    /// Try it on a writable view of this moment, throw that away, and say how long the real one would take
    #[arg(long, conflicts_with_all = ["peer_is_down", "accept_loss", "now", "dry_run"])]
    rehearse: bool,
    #[command(flatten)]
    wait: WaitArgs,
}

/// Runs `takeover`.
pub(crate) fn run(context: &mut Context, args: &TakeoverArgs) -> Done {
    args.wait.note(context);
    if args.rehearse {
        return super::rehearse::run(context);
    }
    let TakeoverArgs { peer_is_down, accept_loss, now, dry_run, .. } = *args;
    let request = AdminRequest::Takeover { peer_is_down, dry_run, accept_loss, now };
    let account: Box<TakeoverAccount> = ask::read(ask::ask_within(context, &request, PATIENCE)?)?;
    if context.json {
        context.out.json(&account)?;
    } else {
        context.out.text(sentences(&account))?;
    }
    Ok(Answer::Yes)
}

/// The account for people.
pub(crate) fn sentences(a: &TakeoverAccount) -> String {
    let mut text = String::new();
    let name = visible(&a.name);
    let epochs = format!("in epoch {} (the old primary's was {})", a.epoch, a.old_epoch);
    let _ = if a.dry_run {
        writeln!(text, "{name} would be primary {epochs}. Nothing was done yet.")
    } else {
        writeln!(text, "{name} is primary {epochs}. It took {}.", seconds(a.seconds))
    };
    let _ = writeln!(text, "Kept: every update up to entry {}.", count(a.applied));
    let silence = seconds(a.silence_seconds);
    let announced = count(a.announced);
    let _ = writeln!(
        text,
        "The old primary was last heard of {silence} before; it had announced entry {announced} as durable."
    );
    if a.lost_announced > 0 {
        let entries = counted(a.lost_announced, "entry", "entries");
        let _ = writeln!(text, "Not here: {entries} that the old primary had announced.");
    }
    let _ = writeln!(text, "{}", sentence(&a.lost));
    let _ = match a.durable_level_lost {
        0 => writeln!(text, "Of updates acknowledged at level durable or above, none is lost."),
        n => {
            let entries = counted(n, "entry", "entries");
            writeln!(text, "Of updates acknowledged at level durable or above, up to {entries} may be lost.")
        }
    };
    if a.dry_run && a.needs_accept_loss {
        let _ = writeln!(text, "To give them up it takes: hot-backup takeover --peer-is-down --accept-loss");
    }
    if !a.incomplete_files.is_empty() {
        let files = a.incomplete_files.iter().map(|f| visible(f)).collect::<Vec<_>>().join(", ");
        let _ = writeln!(text, "These files were being copied and are incomplete: {files}");
    }
    text
}

/// The node's words as a sentence.
fn sentence(text: &str) -> String {
    let text = visible(text);
    let mut chars = text.chars();
    let first = chars.next().map(|c| c.to_uppercase().to_string()).unwrap_or_default();
    let end = if text.ends_with('.') { "" } else { "." };
    format!("{first}{}{end}", chars.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_says_in_sentences_what_is_kept_and_what_may_be_lost() {
        let account = TakeoverAccount {
            name: "b".into(),
            epoch: 3,
            old_epoch: 2,
            applied: 1203,
            announced: 1205,
            lost_announced: 2,
            lost: "updates from entry 1204 on".into(),
            silence_seconds: 3.0,
            seconds: 0.05,
            ..TakeoverAccount::default()
        };
        let text = sentences(&account);
        for part in [
            "b is primary in epoch 3",
            "Kept: every update up to entry 1,203.",
            "Not here: 2 entries",
            "\nUpdates from entry 1204 on.\n",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
        let dry = sentences(&TakeoverAccount { dry_run: true, ..account.clone() });
        assert!(dry.starts_with("b would be primary"), "{dry}");
        assert!(!dry.contains("--accept-loss"), "{dry}");
        let set_back =
            TakeoverAccount { dry_run: true, durable_level_lost: 2, needs_accept_loss: true, ..account };
        let dry = sentences(&set_back);
        for part in
            ["up to 2 entries may be lost", "it takes: hot-backup takeover --peer-is-down --accept-loss"]
        {
            assert!(dry.contains(part), "{part:?} is not in\n{dry}");
        }
    }
}

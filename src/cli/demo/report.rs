//! What the demo tells: step by step while it runs, and the account at the end.

use super::super::failure::Failure;
use super::super::out::{Out, per_second, say, seconds};
use super::super::takeover::sentences;
use super::audit::{Check, Counts};
use super::circle::Circle;
use super::volume::Blocks;
use crate::base::shown::count;
use crate::engine::admin::{Status, TakeoverAccount};
use serde::Serialize;
use std::cell::RefCell;
use std::fmt::Write as _;
use std::time::Duration;

/// One run of the demo at one level.
#[derive(Debug, Serialize)]
pub(super) struct Run {
    /// The promise.
    pub(super) level: &'static str,
    /// Whether all checks passed.
    pub(super) ok: bool,
    /// Writers.
    pub(super) writers: usize,
    /// How long they wrote.
    pub(super) load_seconds: f64,
    /// Updates acknowledged a second.
    pub(super) acknowledged_per_second: u64,
    /// From the kill to the end of the takeover.
    pub(super) outage_seconds: f64,
    /// The real input, as found on the survivor.
    pub(super) imported: Imported,
    /// The updates.
    pub(super) updates: Counts,
    /// The blocks of the volume.
    pub(super) blocks: Blocks,
    /// What the takeover said.
    pub(super) account: TakeoverAccount,
    /// The old primary, when it was back.
    pub(super) old_primary: OldPrimary,
    /// How the pair came to be whole again.
    pub(super) circle: Circle,
    /// What had to hold.
    pub(super) checks: Vec<Check>,
}

/// The real input.
#[derive(Debug, Default, Serialize)]
pub(super) struct Imported {
    /// Where it came from.
    pub(super) origin: String,
    /// Items of text files.
    pub(super) files: u64,
    /// Items of the table.
    pub(super) rows: u64,
    /// Bytes of the text files.
    pub(super) bytes: u64,
    /// Items that were not as they had been imported.
    pub(super) wrong: u64,
}

/// The primary that was killed, when it came back.
#[derive(Debug, Default, Serialize)]
pub(super) struct OldPrimary {
    /// Its role.
    pub(super) role: String,
    /// Its state.
    pub(super) state: String,
    /// Why it does not serve.
    pub(super) reason: String,
    /// What it answered to a write.
    pub(super) answer_to_a_write: String,
    /// The files in which its updates that the pair never kept are saved.
    pub(super) diverged: Vec<String>,
}

/// Tells what happens: on stdout, or on stderr when stdout is for a program.
pub(super) struct Narrator<'a> {
    out: RefCell<Option<&'a mut Out>>,
    failure: RefCell<Option<Failure>>,
    live: RefCell<bool>,
}

impl<'a> Narrator<'a> {
    /// Tells to `out`, or else to stderr.
    pub(super) fn new(out: Option<&'a mut Out>) -> Self {
        Self { out: RefCell::new(out), failure: RefCell::new(None), live: RefCell::new(false) }
    }

    /// Tells a line.
    pub(super) fn line(&self, text: &str) {
        let ends_live_line = self.live.replace(false);
        self.write(|out| {
            if ends_live_line {
                out.line("")?;
            }
            out.line(text)?;
            out.flush()
        });
        if self.out.borrow().is_none() {
            say(text);
        }
    }

    /// Whether live lines replace each other.
    pub(super) fn is_live(&self) -> bool {
        self.out.borrow().as_ref().is_some_and(|out| out.is_terminal())
    }

    /// Tells a line in place of the last live one.
    pub(super) fn live(&self, text: &str) {
        if !self.is_live() {
            return self.line(text);
        }
        self.live.replace(true);
        self.write(|out| {
            out.text(format_args!("\r\x1b[K{text}"))?;
            out.flush()
        });
    }

    fn write(&self, act: impl FnOnce(&mut Out) -> Result<(), Failure>) {
        if let Some(out) = self.out.borrow_mut().as_mut()
            && let Err(failure) = act(out)
        {
            self.failure.borrow_mut().get_or_insert(failure);
        }
    }

    /// Whether telling still works: a reader that is gone ends the demo.
    pub(super) fn check(&self) -> Result<(), Failure> {
        self.failure.borrow().clone().map_or(Ok(()), Err)
    }

    /// The end of all telling.
    pub(super) fn end(self) -> Result<(), Failure> {
        self.check()
    }
}

/// The live line.
pub(super) fn live_line(elapsed: Duration, acknowledged: u64, rate: u64, status: Option<&Status>) -> String {
    let mut line = format!(
        "  {:>4.1} s  {:>8} updates/s  acknowledged {:>9}",
        elapsed.as_secs_f64(),
        count(rate),
        count(acknowledged)
    );
    if let Some(s) = status {
        let (p, peer) = (&s.positions, &s.peer);
        let _ = write!(
            line,
            " | entries: here {} standby {} | lag {} entries, {}",
            count(p.durable),
            count(p.acked),
            count(peer.lag_entries),
            seconds(peer.lag_seconds)
        );
    }
    line
}

/// A run for people.
pub(super) fn text(run: &Run) -> String {
    let mut text = String::new();
    let u = &run.updates;
    let mut line = |name: &str, n: u64, note: &str| {
        let _ = writeln!(text, "    {name:<22} {:>10}  {note}", count(n));
    };
    line("sent", u.sent, "");
    line("told \"ok\"", u.acknowledged, &format!("{} a second", count(run.acknowledged_per_second)));
    let kept_note = if u.missing == 0 { "every one" } else { "" };
    line("  kept", u.kept, kept_note);
    let missing =
        if u.missing == 0 { String::new() } else { format!("first: {}", u.first_missing.join(", ")) };
    line("  missing", u.missing, &missing);
    line("never answered", u.unanswered, &format!("{} of them are there", count(u.unanswered_kept)));
    if u.refused > 0 {
        line("answered with an error", u.refused, "");
    }
    let blocks = run.blocks;
    line(
        "blocks of the volume",
        blocks.sent,
        &format!("{} flushed, {} kept", count(blocks.flushed), count(blocks.kept)),
    );
    let imported = &run.imported;
    line("imported before", imported.files + imported.rows, &format!("{} wrong now", imported.wrong));
    text.push_str("  The takeover's account:\n");
    sentences(&run.account).lines().for_each(|line| {
        let _ = writeln!(text, "    {line}");
    });
    let old = &run.old_primary;
    let reason = if old.reason.is_empty() { String::new() } else { format!(": {}", old.reason) };
    let _ = writeln!(text, "  The old primary came back, and is {} now{reason}", old.role);
    let _ = writeln!(text, "    it answered to a write: {}", old.answer_to_a_write);
    for file in &old.diverged {
        let _ = writeln!(text, "    its updates that the pair never kept are saved: {file}");
    }
    let circle = &run.circle;
    let _ = writeln!(
        text,
        "  Whole again: the roles changed back, nobody was answered for {}; a new machine was level after {}",
        seconds(circle.pause_seconds),
        seconds(circle.joined_seconds)
    );
    text.push_str("  Checked:\n");
    for check in &run.checks {
        let word = if check.ok { "ok  " } else { "FAIL" };
        let _ = writeln!(text, "    {word} {} ({})", check.name, check.detail);
    }
    text.trim_end().to_owned()
}

/// How long something took, and the rate that makes.
pub(super) fn rate(n: u64, elapsed: Duration) -> u64 {
    per_second(n, elapsed)
}

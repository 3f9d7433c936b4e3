//! `doctor`: what this machine offers, found by trying it.

use super::Context;
use super::failure::{Answer, Done};
use super::glue::{self, Level};
use super::out::{Table, visible};
use clap::Args;

/// Tries out what this machine and disk offer, and says what to improve
#[derive(Debug, Args)]
#[command(after_long_help = "\
Looks at io_uring, direct and durable writes, the disk's write cache, memory limits and the clock by using them.
Without --dir, the current directory's disk is tried. Also says which ways this machine has to attach a volume.
How fast disk, network and drive are is measured by bench.
Exit code: 0 a node can run here, 1 something does not work.")]
pub(crate) struct DoctorArgs {}

/// Runs `doctor`.
pub(crate) fn run(context: &mut Context) -> Done {
    let dir = context.dir.clone().unwrap_or_else(|| ".".into());
    let mut findings = glue::probe(&dir);
    findings.extend(glue::journal_room(&dir));
    if context.json {
        context.out.json(&findings)?;
    } else {
        let mut table = Table::new(&["what", "how", "found"]);
        for f in &findings {
            table.row([f.name.clone(), word(f.level).to_owned(), f.found.clone()]);
        }
        context.out.text(table.render())?;
        for f in findings.iter().filter(|f| !f.advice.is_empty()) {
            context.out.line(format_args!("\n{}: {}", f.name, f.advice))?;
        }
        let shown = visible(&dir.display().to_string());
        context.out.line(format_args!("\nhow fast this disk is: hot-backup bench disk --dir {shown}"))?;
    }
    Ok(Answer::of(findings.iter().all(|f| f.level != Level::Bad)))
}

fn word(level: Level) -> &'static str {
    match level {
        Level::Ok => "good",
        Level::Note => "worth knowing",
        Level::Warn => "could be better",
        Level::Bad => "does not work",
    }
}

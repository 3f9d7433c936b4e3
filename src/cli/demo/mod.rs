//! `demo`: a pair on loopback in a temp directory: load, kill, take over, account for every update.

mod audit;
mod circle;
pub(super) mod cleanup;
mod input;
pub(super) mod pair;
mod report;
mod run;
mod volume;
mod writers;

use super::Context;
use super::failure::{Answer, Done, Failure};
use crate::base::AckLevel;
use clap::{Args, ValueEnum};
use cleanup::{Guard, Leftovers};
use report::Narrator;
use serde::Serialize;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

/// The file of the writers.
const FILE: &str = "app,orders";
/// A file of level `local` in both runs.
const NOTES: &str = "app,notes";

/// Shows it all: a pair under load, a kill, a takeover, every update accounted for, and the way back
#[derive(Debug, Args)]
#[command(after_long_help = "\
Two real nodes on 127.0.0.1, in a temp directory that is removed afterwards. Real text files and a table are imported;
several writers send updates and remember which were answered with \"ok\"; the primary is killed with SIGKILL under
load; the standby takes over. Then every single update is looked up on the survivor: kept or missing, and that must
agree with the account that the takeover printed. Then the pair is made whole again: the old primary comes back,
refuses to serve, and is rewound; the roles change back; the other machine is lost for good, and a new, empty one takes
its place by a full copy; a compare of everything on both machines finds no difference.

At level local (the default of the product) the last moments may be lost, at most what the account says; at level
durable nothing that was acknowledged may be missing, or the demo fails.

Exit codes: 0 all as promised, 1 not, 2 the demo could not be run.
Examples:
  hot-backup demo
  hot-backup demo --level durable --writers 16 --seconds 10
  hot-backup demo --json | jq '.runs[] | {level, missing: .updates.missing}'")]
pub(crate) struct DemoArgs {
    /// The promise to show
    #[arg(long, value_enum, default_value_t = Levels::Both)]
    level: Levels,
    /// How long the writers write before the primary is killed
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// How many writers
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    writers: u16,
    /// Freeze the standby for the last N seconds before the kill: what it then cannot receive is lost at level local
    /// (if more than fits on the way to it), while at level durable no update is answered
    #[arg(long, value_name = "N", default_value_t = 0)]
    freeze: u64,
    /// Keep the temp directory, with both nodes' data and logs
    #[arg(long)]
    keep: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Levels {
    /// On the primary's disk
    Local,
    /// On both disks
    Durable,
    /// One after the other
    Both,
}

impl Levels {
    fn each(self) -> &'static [AckLevel] {
        match self {
            Self::Local => &[AckLevel::Local],
            Self::Durable => &[AckLevel::Durable],
            Self::Both => &[AckLevel::Local, AckLevel::Durable],
        }
    }
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    /// Whether everything was as promised.
    ok: bool,
    runs: Vec<report::Run>,
}

/// Runs `demo`.
pub(crate) fn run(context: &mut Context, args: &DemoArgs) -> Done {
    let root = make_root()?;
    // On the main thread: nodes end with the thread that started them.
    let guard = Guard(Leftovers::of(&root, args.keep));
    let narrator = Narrator::new((!context.json).then_some(&mut context.out));
    let mut runs = Vec::new();
    for &level in args.level.each() {
        let dir = root.join(level.name());
        make_dir(&dir)?;
        let (seconds, writers) = (args.seconds, usize::from(args.writers));
        let plan = run::Plan { level, seconds, freeze: args.freeze.min(seconds), writers, dir };
        runs.push(run::run(&plan, &guard.0, &narrator)?);
    }
    if args.keep {
        narrator.line(&format!("kept: {}", root.display()));
    }
    narrator.end()?;
    let ok = runs.iter().all(|run| run.ok);
    if context.json {
        context.out.json(&Report { ok, runs })?;
    }
    drop(guard);
    Ok(Answer::of(ok))
}

fn make_root() -> Result<PathBuf, Failure> {
    let nanos = std::time::UNIX_EPOCH.elapsed().map_or(0, |t| t.subsec_nanos());
    let root = std::env::temp_dir().join(format!("hot-backup-demo-{}-{nanos:08x}", std::process::id()));
    make_dir(&root)?;
    Ok(root)
}

/// A new directory for this user only.
fn make_dir(dir: &PathBuf) -> Result<(), Failure> {
    let made = std::fs::DirBuilder::new().mode(0o700).create(dir);
    made.map_err(|e| Failure::io(format_args!("making {}", dir.display()), &e))
}

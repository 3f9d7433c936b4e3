//! `license`: what a node's licence says, whether one holds, and how it is installed.

use super::Context;
use super::failure::{Answer, Done, Failure};
use super::glue::{self, LicenceView};
use super::out::say;
use crate::base::limits::LICENCE_FILE_MAX;
use crate::base::text_at_most;
use clap::{Args, Subcommand};
use std::fs::File;
use std::path::{Path, PathBuf};

/// Shows, checks or installs the licence, where the config asks for one
#[derive(Debug, Args)]
#[command(after_long_help = "\
A licence is asked for only if the config has the public key of a distributor (licence_key). A node without a good one
goes on as ever for 30 days, with incidents. After that a primary begins no new link to its standby. A link that is up, reads,
updates, takeovers, saves and restores never ask for a licence.

The file may be the whole mail that the licence came in.
Exit code: 0 it holds or none is asked for, 1 it does not hold, 2 error.

Examples:
  hot-backup license show --dir A
  hot-backup license verify licence.txt --dir A
  hot-backup license install - --dir A < mail.txt")]
pub(crate) struct LicenseArgs {
    #[command(subcommand)]
    command: LicenseCommand,
}

#[derive(Debug, Subcommand)]
enum LicenseCommand {
    /// Says what this node's licence grants, and whether it holds
    Show,
    /// Says whether a licence would hold on this node, without installing it
    Verify {
        /// The file with the licence, or - for stdin
        file: PathBuf,
    },
    /// Installs a licence that holds, in place of the one before; a running node notices it
    Install {
        /// The file with the licence, or - for stdin
        file: PathBuf,
    },
}

/// Runs `license`.
pub(crate) fn run(context: &mut Context, args: &LicenseArgs) -> Done {
    let dir = context.dir()?.to_owned();
    let view = match &args.command {
        LicenseCommand::Show => glue::licence(&dir, None)?,
        LicenseCommand::Verify { file } => glue::licence(&dir, Some(&text_of(file)?))?,
        LicenseCommand::Install { file } => glue::install_licence(&dir, &text_of(file)?)?,
    };
    show(context, &view)?;
    Ok(Answer::of(view.holds))
}

fn text_of(file: &Path) -> Result<String, Failure> {
    let read = match file.to_str() {
        Some("-") => text_at_most(std::io::stdin(), LICENCE_FILE_MAX),
        _ => File::open(file).and_then(|file| text_at_most(file, LICENCE_FILE_MAX)),
    };
    read.map_err(|error| Failure::io(format_args!("reading the licence in {}", file.display()), &error))
}

fn show(context: &mut Context, view: &LicenceView) -> Result<(), Failure> {
    if context.json {
        return context.out.json(view);
    }
    context.out.line(&view.text)?;
    if let Some(back) = &view.clock_back {
        say(format_args!("the clock is before {back}, which it once told: the licence is held to that day"));
    }
    if let Some(granted) = &view.granted {
        context.out.line(format_args!("customer: {}", super::out::visible(&granted.customer)))?;
        context.out.line(format_args!("issued:   {}\nexpires:  {}", granted.issued, granted.expires))?;
        for node in &granted.nodes {
            context.out.line(format_args!("node:     {node}"))?;
        }
    }
    if view.asked && !view.holds {
        say(
            "what to do: give the distributor what `hot-backup identity` prints on both nodes, and install what comes back",
        );
    }
    Ok(())
}

//! The command line: flags, help and output; one file for each group of commands.
//!
//! Results go to stdout, messages to stderr. A command exits with 0 for yes or done, 1 for no, 2 for an error.

mod account;
mod against;
mod ask;
mod audit;
mod bench;
mod compare;
mod demo;
mod diverged;
mod doctor;
mod dptr;
mod failure;
mod file;
mod glue;
mod glue_plan;
mod glue_socket;
mod glue_view;
mod guide;
mod incidents;
mod item;
mod lease;
mod license;
mod log;
mod menu;
mod nbd_access;
mod notify;
mod out;
mod queue;
mod receipt;
mod rehearse;
mod restore;
mod restore_volume;
mod resync;
mod resync_plan;
mod save;
mod scrub;
mod setup;
mod spool;
mod stats;
mod status;
mod switchover;
mod takeover;
mod tape;
mod tape_socket;
mod values;
mod view;
mod wait;
mod watch;

pub use item::fuzz_import;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser, Subcommand};
use failure::{Answer, Done, Failure};
use out::{Out, say_failure};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

const EXAMPLES: &str = "\
See it work, in under a minute, without any set-up:
  hot-backup demo

A pair on one machine:
  hot-backup init --dir A --name a --role primary --link-listen 127.0.0.1:2001 --peer 127.0.0.1:2000 --resp 127.0.0.1:7001
  hot-backup init --dir B --name b --role standby --link-listen 127.0.0.1:2000 --peer 127.0.0.1:2001 --resp 127.0.0.1:7002
  hot-backup trust --dir A \"$(hot-backup identity --dir B)\"
  hot-backup trust --dir B \"$(hot-backup identity --dir A)\"
  hot-backup serve --dir B &
  hot-backup serve --dir A &
  hot-backup account create app --dir A
  hot-backup file create app,orders --records --flags L --ack applied --dir A
  redis-cli -p 7001 set app,orders,1001 hello
  redis-cli -p 7002 get app,orders,1001

When the primary is gone:
  hot-backup takeover --dir B --peer-is-down

Exit codes: 0 yes or done, 1 no, 2 error. Results go to stdout, messages to stderr.
The node's directory may also be given as HOT_BACKUP_DIR.";

/// Keeps one database on two Linux machines: journal, replication, takeover.
///
/// One machine, the primary, serves the users. The other, the standby, holds a copy that is never more than moments
/// behind, and takes over when you say so. Applications use the doors (RESP, the Redis protocol), operators this
/// command. Files flagged L are replicated, item by item, in one order across all of them.
#[derive(Debug, Parser)]
#[command(name = "hot-backup", version, after_long_help = EXAMPLES, max_term_width = 110)]
struct Cli {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    command: Command,
}

/// Flags of every command.
#[derive(Clone, Debug, clap::Args)]
struct Common {
    /// The node's directory
    #[arg(long, global = true, env = "HOT_BACKUP_DIR", value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::DemoArgs),
    Setup(Box<guide::SetupArgs>),
    Init(Box<setup::InitArgs>),
    Identity(setup::IdentityArgs),
    Trust(setup::TrustArgs),
    Serve(setup::ServeArgs),
    Start(setup::StartArgs),
    Status(status::StatusArgs),
    Account(account::AccountArgs),
    File(file::FileArgs),
    Item(item::ItemArgs),
    SetDptr(dptr::DptrArgs),
    Log(log::LogArgs),
    Stats(stats::StatsArgs),
    Queue(queue::QueueArgs),
    Receipt(receipt::ReceiptArgs),
    Scrub(scrub::ScrubArgs),
    Spool(spool::SpoolArgs),
    Switchover(switchover::SwitchoverArgs),
    Compare(compare::CompareArgs),
    View(view::ViewArgs),
    Save(Box<save::SaveArgs>),
    Verify(save::VerifyArgs),
    Restore(Box<restore::RestoreArgs>),
    Tape(Box<tape::TapeCommand>),
    TapeSocket(tape_socket::TapeSocketCommand),
    Takeover(takeover::TakeoverArgs),
    Resync(resync::ResyncArgs),
    Watch(Box<watch::WatchArgs>),
    Lease(lease::LeaseArgs),
    Incidents(incidents::IncidentsArgs),
    Audit(audit::AuditArgs),
    Notify(notify::NotifyArgs),
    Diverged(diverged::DivergedArgs),
    NbdAccess(nbd_access::NbdAccessArgs),
    Menu(menu::MenuArgs),
    #[command(alias = "licence")]
    License(license::LicenseArgs),
    Doctor(doctor::DoctorArgs),
    Bench(bench::BenchArgs),
    /// Prints a completion script for your shell
    ///
    /// For example: hot-backup completions bash > ~/.local/share/bash-completion/completions/hot-backup
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// What every command works with.
struct Context {
    dir: Option<PathBuf>,
    json: bool,
    out: Out,
    /// How long what changes something waits for a node that is starting.
    wait: Duration,
}

impl Context {
    /// The node's directory, which this command needs.
    fn dir(&self) -> Result<&Path, Failure> {
        self.dir.as_deref().ok_or_else(|| {
            Failure::error(
                "no node named",
                "say --dir DIR, or set HOT_BACKUP_DIR to the directory that init made",
            )
        })
    }
}

/// The whole command line, for what is made of it: manual pages, completions.
#[must_use]
pub fn definition() -> clap::Command {
    Cli::command()
}

/// Runs the command line `args`, program name first, and gives back the exit code.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    crate::node::log::end_at_panics();
    let args: Vec<OsString> = args.into_iter().collect();
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(error) => return ExitCode::from(usage(&error, &command_of(&args))),
    };
    let Common { dir, json } = cli.common;
    let mut context = Context { dir, json, out: Out::stdout(), wait: Duration::ZERO };
    let done = execute(&mut context, cli.command).and_then(|answer| {
        context.out.flush()?;
        Ok(answer)
    });
    ExitCode::from(match done {
        Ok(answer) => answer.code(),
        Err(failure) => conclude(&mut context, &failure),
    })
}

fn execute(context: &mut Context, command: Command) -> Done {
    match command {
        Command::Demo(args) => demo::run(context, &args),
        Command::Setup(args) => guide::run(context, &args),
        Command::Init(args) => setup::init(context, *args),
        Command::Identity(_) => setup::identity(context),
        Command::Trust(args) => setup::trust(context, &args),
        Command::Serve(args) => setup::serve(context, &args),
        Command::Start(args) => setup::start(context, &args),
        Command::Resync(args) => resync::run(context, &args),
        Command::Status(args) => status::run(context, &args),
        Command::Account(args) => account::run(context, args),
        Command::File(args) => file::run(context, args),
        Command::Item(args) => item::run(context, args),
        Command::SetDptr(args) => dptr::run(context, &args),
        Command::Log(args) => log::run(context, &args),
        Command::Stats(args) => stats::run(context, &args),
        Command::Queue(args) => queue::run(context, &args),
        Command::Receipt(args) => receipt::run(context, &args),
        Command::Scrub(args) => scrub::run(context, &args),
        Command::Spool(args) => spool::run(context, args),
        Command::Switchover(args) => switchover::run(context, &args),
        Command::Compare(args) => compare::run(context, &args),
        Command::View(args) => view::run(context, args),
        Command::Save(args) => save::run(context, *args),
        Command::Verify(args) => save::verify(context, &args),
        Command::Restore(args) => restore::run(context, &args),
        Command::Tape(args) => tape::run(context, *args),
        Command::TapeSocket(args) => tape_socket::run(context, args),
        Command::Takeover(args) => takeover::run(context, &args),
        Command::Lease(args) => lease::run(context, &args),
        Command::Watch(args) => watch::run(context, *args),
        Command::Incidents(args) => incidents::incidents(context, &args),
        Command::Notify(args) => notify::run(context, &args),
        Command::Audit(args) => audit::run(context, &args),
        Command::Diverged(args) => diverged::run(context, args),
        Command::Menu(_) => menu::run(context),
        Command::License(args) => license::run(context, &args),
        Command::NbdAccess(args) => nbd_access::run(context, &args),
        Command::Doctor(_) => doctor::run(context),
        Command::Bench(args) => bench::run(context, args),
        Command::Completions { shell } => completions(context, shell),
    }
}

fn completions(context: &mut Context, shell: clap_complete::Shell) -> Done {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "hot-backup", &mut script);
    context.out.bytes(&script)?;
    Ok(Answer::Yes)
}

/// Tells why a command failed: to people, and with `--json` also to scripts.
fn conclude(context: &mut Context, failure: &Failure) -> u8 {
    if context.json
        && let Some(reply) = failure.reply()
    {
        // A reader that is gone, or a full disk, cannot be told.
        let _ = context.out.json(&reply).and_then(|()| context.out.flush());
    }
    say_failure(failure);
    failure.code()
}

/// The command that `args` name, as far as there is one: `hot-backup file create`.
fn command_of(args: &[OsString]) -> String {
    let cli = Cli::command();
    let mut command = &cli;
    let mut path = "hot-backup".to_owned();
    for word in args.iter().skip(1).filter_map(|word| word.to_str()) {
        if let Some(sub) = command.find_subcommand(word) {
            path = format!("{path} {word}");
            command = sub;
        }
    }
    path
}

/// What to do about a wrong usage.
fn advice(error: &clap::Error, command: &str) -> String {
    let argument = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(argument)) => argument.as_str(),
        _ => "it",
    };
    match error.kind() {
        _ if command == "hot-backup start" => {
            format!("to run a node say: hot-backup serve --dir DIR; what start is for: {command} --help")
        }
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            format!("give {argument} a value that is allowed, see: {command} --help")
        }
        ErrorKind::MissingRequiredArgument => format!("add what is missing, see: {command} --help"),
        ErrorKind::ArgumentConflict => format!("leave one of them out, see: {command} --help"),
        ErrorKind::InvalidSubcommand | ErrorKind::MissingSubcommand => {
            format!("the commands are listed by: {command} --help")
        }
        _ => format!("see: {command} --help"),
    }
}

/// Prints what clap has to say: help and version on stdout, a wrong usage on stderr under our name.
fn usage(error: &clap::Error, command: &str) -> u8 {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        // The reader of help may go away half-way through.
        let _ = error.print();
        return 0;
    }
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        // Nothing was asked: the help is the message.
        let _ = error.print();
        return 2;
    }
    let text = error.render().to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    // Its last words fit any mistake; ours fit this one.
    let text = text.split("\nFor more information").next().unwrap_or_default();
    say_failure(&Failure::error(text.trim_end(), advice(error, command)));
    2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    fn every_command(command: &clap::Command, path: &str, visit: &mut impl FnMut(&str, &clap::Command)) {
        for sub in command.get_subcommands() {
            let path = format!("{path} {}", sub.get_name());
            visit(&path, sub);
            every_command(sub, &path, visit);
        }
    }

    #[test]
    fn every_command_and_every_flag_explains_itself() {
        every_command(&Cli::command(), "hot-backup", &mut |path, command| {
            assert!(command.get_about().is_some(), "{path} says nothing about itself");
            for arg in command.get_arguments() {
                assert!(arg.get_help().is_some(), "{path} {} is not explained", arg.get_id());
            }
        });
    }

    #[test]
    fn the_set_up_of_a_pair_is_exactly_what_the_examples_say() {
        for line in EXAMPLES.lines().filter(|line| line.starts_with("  hot-backup")) {
            let words = line.replace("\"$(hot-backup identity --dir B)\"", "x");
            let words = words.replace("\"$(hot-backup identity --dir A)\"", "x").replace(" &", "");
            let parsed = Cli::try_parse_from(words.split_whitespace());
            assert!(parsed.is_ok(), "{line}: {:?}", parsed.err());
        }
    }
}

//! `bench`: what disk, link, pair and drive give, what the product reaches of it, and two such reports side by side.

mod pair;
mod show;
mod stop;

use super::Context;
use super::failure::{Answer, Done, Failure};
use super::glue::{self, Allowed, Place, TapeOptions};
use super::out::{say, visible};
use super::tape::place as tape_place;
use super::values;
use crate::base::read_at_most;
use crate::measure::disk::DiskOptions;
use crate::measure::report::{REPORT_MAX, Report, ReportError};
use crate::measure::tape::TapeFailure;
use crate::measure::{Course, MeasureError, compare, disk, link, page, tape, verdict};
use clap::{Args, Subcommand};
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;
use stop::{Progress, Stop};

/// Measures what disk, link, pair and tape drive give, and what hot-backup reaches of it
#[derive(Debug, Args)]
#[command(after_long_help = "\
Nothing needs root, and nothing is touched that the measurement did not make itself: it is bounded in time and space,
looks at the free space before, and removes everything at its end, also after Ctrl-C. Shown are a table and one
sentence that says what limits; --save keeps the figures, --html draws them on one page that needs nothing else.

Examples:
  hot-backup bench disk --dir /var/lib/hot-backup --html disk.html
  hot-backup bench link --listen 0.0.0.0:2010 --dir A      on one machine, and on the other:
  hot-backup bench link --to 10.0.0.1:2010 --dir B
  hot-backup bench pair --temporary --dir /var/lib        a pair of its own, on this machine
  hot-backup bench pair --dir A                           the pair of node A, in an account `bench` of its own
  hot-backup bench tape /dev/nst0 --relabel
  hot-backup bench compare before.json after.json

Exit codes: 0 measured, 2 it could not be measured.")]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Measures the disk of --dir (else of the current directory), and the journal beside it
    ///
    /// Durable writes of 4 KiB to 4 MiB with O_DIRECT and O_DSYNC, and with fdatasync; many at once; each way past the
    /// kernel that this machine has; sequential reads. Then the product's own journal, in turns with raw writes of the same
    /// sizes. What the device says of its cache is told.
    Disk {
        #[command(flatten)]
        common: Output,
        /// How long it may take, about (seconds)
        #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=3600))]
        seconds: u64,
        /// Size of the file that is written and read
        #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = values::byte_size)]
        size: u64,
        /// Also try ways for which this machine has no processor to spare
        #[arg(long)]
        every_way: bool,
    },
    /// Measures the way to another machine that listens, else this machine's own loopback
    ///
    /// A word there and back, messages one behind the other, with and without TLS, and by SEND_ZC, which saves the kernel a
    /// copy where the network card can. With --dir both sides prove the keys of the pair, and strangers are turned away;
    /// without it there is no TLS between machines.
    Link {
        #[command(flatten)]
        common: Output,
        /// Listen here for who asks, until Ctrl-C or the time is over
        #[arg(long, value_name = "ADDRESS:PORT", conflicts_with = "to")]
        listen: Option<SocketAddr>,
        /// Ask the one who listens there
        #[arg(long, value_name = "HOST:PORT")]
        to: Option<String>,
        /// How long it may take, about; one who listens does so for ten minutes unless told (seconds)
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=86_400))]
        seconds: Option<u64>,
    },
    /// Measures updates of a pair: 1, 64 and 256 at once, at each ack level
    ///
    /// In files of an account `bench` that it makes and removes; if there is one already, nothing is done. With --temporary a
    /// pair of its own is started in a directory below --dir (else the current one), with the raw limits beside it.
    Pair {
        #[command(flatten)]
        common: Output,
        /// Start a pair for this on this machine, and remove it
        #[arg(long)]
        temporary: bool,
        /// How long it may take, about (seconds)
        #[arg(long, value_name = "N", default_value_t = 24, value_parser = clap::value_parser!(u64).range(1..=3600))]
        seconds: u64,
        /// Size of a value (bytes)
        #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u64).range(1..=65_536))]
        value: u64,
    },
    /// Measures a tape drive, or an image of a reel: what it takes and gives in blocks of each size
    ///
    /// The reel has to be blank, prepared, or one that may be overwritten. An image that is not there is made and removed.
    Tape {
        #[command(flatten)]
        common: Output,
        /// The drive or image, as `tape check` names it
        #[arg(value_name = "PLACE", value_parser = tape_place)]
        place: Place,
        /// How much is written in blocks of each size
        #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = values::byte_size)]
        size: u64,
        /// A blank reel may be written
        #[arg(long)]
        label_blank: bool,
        /// Whatever is on the reel may be overwritten
        #[arg(long)]
        relabel: bool,
    },
    /// Sets two saved reports side by side: two machines, or one before and after
    Compare {
        /// What another --save wrote
        #[arg(value_name = "A.json")]
        a: PathBuf,
        /// The one that is set beside it
        #[arg(value_name = "B.json")]
        b: PathBuf,
    },
}

/// Where the result goes besides.
#[derive(Clone, Debug, Args)]
struct Output {
    /// Keep the figures in a file, for `bench compare`
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Draw the figures on one page
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// Runs `bench`.
pub(crate) fn run(context: &mut Context, args: BenchArgs) -> Done {
    match args.verb {
        Verb::Disk { common, seconds, size, every_way } => {
            let time = Duration::from_secs(seconds);
            let options = DiskOptions { dir: place(context), time, size, every_way, brief: false };
            measured(context, &common, |course, report| Ok(disk::disk(&options, course, report)?))
        }
        Verb::Link { common: _, listen: Some(at), seconds, .. } => {
            listen(context, at, seconds.unwrap_or(600))
        }
        Verb::Link { common, to, seconds, .. } => {
            let time = Duration::from_secs(seconds.unwrap_or(15));
            let asked = to.as_deref().map(address).transpose()?;
            let keys = context.dir.as_deref().filter(|_| asked.is_some()).map(glue::link_keys).transpose()?;
            measured(context, &common, |course, report| match asked {
                Some(to) => Ok(link::ask(to, keys.as_ref(), time, course, report)?),
                None => Ok(link::loopback(time, course, report)?),
            })
        }
        Verb::Pair { common, temporary, seconds, value } => {
            let plan = pair::Plan { seconds, value };
            if temporary {
                let root = place(context);
                return measured(context, &common, |course, report| {
                    pair::temporary(&root, plan, course, report)
                });
            }
            let dir = context.dir()?.to_owned();
            measured(context, &common, |course, report| pair::running(&dir, plan, course, report))
        }
        Verb::Tape { common, place, size, label_blank, relabel } => {
            let allowed = Allowed { blank: label_blank, relabel };
            let options = TapeOptions { dir: context.dir.clone(), allowed, ..TapeOptions::new(place) };
            measured(context, &common, |course, report| {
                tape::tape(&options, size, course, report).map_err(|failure| match failure {
                    TapeFailure::Measure(error) => error.into(),
                    TapeFailure::Tape(error) => glue::tape_failure(&error),
                })
            })
        }
        Verb::Compare { a, b } => {
            let compared = compare::compare(&read(&a)?, &read(&b)?);
            show::compared(context, &compared)
        }
    }
}

/// Where a disk is measured, as `doctor` looks at one.
fn place(context: &Context) -> PathBuf {
    context.dir.clone().unwrap_or_else(|| ".".into())
}

impl From<MeasureError> for Failure {
    fn from(error: MeasureError) -> Self {
        match &error {
            MeasureError::Stopped => Self::error("measuring: it was interrupted; nothing of it is left", ""),
            MeasureError::Failed { source, .. } => match source.kind() {
                std::io::ErrorKind::StorageFull => {
                    Self::error(error.to_string(), "make room, or measure less: --size 64M")
                }
                std::io::ErrorKind::ConnectionRefused => Self::error(
                    error.to_string(),
                    "on the other machine run: hot-backup bench link --listen ADDRESS:PORT",
                ),
                _ => Self::error(error.to_string(), ""),
            },
        }
    }
}

/// Measures, judges, and shows.
fn measured(
    context: &mut Context,
    output: &Output,
    measure: impl FnOnce(&Course<'_>, &mut Report) -> Result<(), Failure>,
) -> Done {
    for path in [&output.save, &output.html].into_iter().flatten() {
        writable(path)?;
    }
    let stop = Stop::catch()?;
    let progress = Progress::new();
    let mut report = Report::begin();
    let (stopped, tell) = (|| stop.is_asked(), |step, of, what: &str| progress.tell(step, of, what));
    let result = measure(&Course::new(&stopped, &tell), &mut report);
    progress.end();
    result?;
    report.limit = verdict::verdict(&report);
    if let Some(path) = &output.save {
        write(path, &report.to_json())?;
    }
    if let Some(path) = &output.html {
        write(path, &page::page(&report))?;
    }
    if context.json {
        context.out.json(&report)?;
    } else {
        show::report(context, &report)?;
    }
    Ok(Answer::Yes)
}

/// Better said before minutes of work than behind them.
fn writable(path: &Path) -> Result<(), Failure> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if path.is_dir() || !dir.is_dir() {
        let why = if path.is_dir() { "it is a directory" } else { "its directory is not there" };
        return Err(Failure::error(format!("writing {}: {why}", path.display()), "name a file"));
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    std::fs::write(path, text)
        .map_err(|error| Failure::io(format_args!("writing {}", path.display()), &error))
}

fn read(path: &Path) -> Result<Report, Failure> {
    let failed = |error: &std::io::Error| Failure::io(format_args!("reading {}", path.display()), error);
    let file = std::fs::File::open(path).map_err(|error| failed(&error))?;
    let bytes = read_at_most(file, REPORT_MAX).map_err(|error| failed(&error))?;
    Report::parse(&bytes).map_err(|error: ReportError| {
        let next = "name two files that `hot-backup bench .. --save FILE` wrote";
        Failure::error(format!("reading {}: {error}", path.display()), next)
    })
}

fn address(text: &str) -> Result<SocketAddr, Failure> {
    let next = "say HOST:PORT of the machine where `hot-backup bench link --listen` runs";
    let failed = |why: &dyn std::fmt::Display| Failure::error(format!("looking for {text}: {why}"), next);
    let mut found = text.to_socket_addrs().map_err(|error| failed(&error))?;
    found.next().ok_or_else(|| failed(&"it has no address"))
}

fn listen(context: &mut Context, at: SocketAddr, seconds: u64) -> Done {
    let keys = context.dir.as_deref().map(glue::link_keys).transpose()?;
    if keys.is_none() && !at.ip().is_loopback() {
        say(
            "without --dir nobody has to prove a key: anybody who reaches this port may send to it until it ends",
        );
    }
    let failed = |error: &std::io::Error| Failure::io(format_args!("listening on {at}"), error);
    let listener = TcpListener::bind(at).map_err(|error| failed(&error))?;
    let bound = listener.local_addr().map_err(|error| failed(&error))?;
    context.out.line(format_args!("listening on {bound} for {seconds} s"))?;
    context.out.flush()?;
    let stop = Stop::catch()?;
    let told = |text: &str| say(visible(text));
    link::listen(&listener, keys.as_ref(), Duration::from_secs(seconds), &|| stop.is_asked(), &told)
        .map_err(|error| failed(&error))?;
    Ok(Answer::Yes)
}

//! `tape-socket`: the drive, the images or the disk of this machine take the sets of another; and the way there.

use super::failure::{Answer, Done, Failure};
use super::glue::Teller;
use super::glue_socket::{self, Keep, ListenOrder, ListenerView, Remote, SocketOrder};
use super::out::{Table, say, seconds};
use super::save::{Ways, progress, source};
use super::tape::TapeWriteArgs;
use super::{Context, glue, values};
use crate::base::limits::SOCKET_WINDOW_MAX;
use crate::base::shown::{bytes, counted};
use clap::{Args, Subcommand};
use serde::Serialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The drive or the disk of one machine for the saves of another
#[derive(Debug, Args)]
#[command(after_long_help = "\
One machine listens, and keeps what comes on reels, in a directory, or in one file. The other one saves to it (hot-backup save --to
tcp:HOST:PORT), or sends a set that it has, and gets it back: restore, verify, save list and save show read tcp:HOST:PORT/NAME. Both prove the keys of their pair (--dir) over TLS; or a token, which is a file of 64
hexadecimal digits that both have and nobody else may read (--token).

What is said to count is on the reel by the drive's own word, or synced. Only then the sender lets go of it, so a connection that is
cut goes on where it was, and a listener that is killed goes on where its reel or file ends.

Examples:
  hot-backup tape-socket listen --dir B --listen 0.0.0.0:2009 --to tape:/dev/nst0
  hot-backup save --dir A --to tcp:backup-host:2009
  hot-backup tape-socket listen --dir B --listen 0.0.0.0:2009 --to dir:/backup
  hot-backup save --dir A --to tcp:backup-host:2009/monday          becomes /backup/monday.hbs
  hot-backup restore --from tcp:backup-host:2009/monday --dir NEW   and back, while it listens
  hot-backup tape-socket send tuesday.hbs --dir A --to tcp:backup-host:2009
  hot-backup tape-socket status --to dir:/backup                    on the machine that listens
  hot-backup tape-socket drain --to dir:/backup                     the same: take nothing new, and end

Exit codes: 0 yes or done, 1 no: nobody listens, or a stream was left, 2 error.")]
pub(crate) struct TapeSocketCommand {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Takes sets from another machine until it is told to drain
    Listen(Box<ListenArgs>),
    /// Sends a set that is complete; what is there of it already is not sent again
    Send(SendArgs),
    /// Shows what the listener of this machine does; exit code 1 if there is none
    Status(AtArgs),
    /// Ends the listener of this machine when what is under way is done
    Drain(AtArgs),
}

#[derive(Debug, Args)]
struct ListenArgs {
    /// Where to listen, such as 0.0.0.0:2009
    #[arg(long, value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Where sets are kept: tape:PLACE, dir:PATH for a file each, or file:PATH for one set
    #[arg(long, value_name = "PLACE", value_parser = place)]
    to: Place,
    /// End after one set; with file: it does so anyway
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    keys: KeyArgs,
    #[command(flatten)]
    tape: TapeWriteArgs,
}

#[derive(Debug, Args)]
struct SendArgs {
    /// The set: a file, or tape:PLACE; or the directory with the parts of a node's spool, which goes to reels
    #[arg(value_name = "SET")]
    set: PathBuf,
    /// The other machine, and what the set is called there: tcp:HOST:PORT or tcp:HOST:PORT/NAME
    #[arg(long, value_name = "PLACE", value_parser = remote)]
    to: Remote,
    #[command(flatten)]
    keys: KeyArgs,
    #[command(flatten)]
    retry: RetryArgs,
}

#[derive(Debug, Args)]
struct AtArgs {
    /// Where it keeps sets: tape:PLACE, dir:PATH or file:PATH
    #[arg(long, value_name = "PLACE", value_parser = place)]
    to: Place,
}

/// Which keys are proven.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct KeyArgs {
    /// Prove the secret in this file (64 hexadecimal digits) instead of the keys of the pair
    #[arg(long, value_name = "FILE", help_heading = "Another machine")]
    pub(crate) token: Option<PathBuf>,
}

/// How long a cut is borne.
#[derive(Clone, Debug, Args)]
pub(crate) struct RetryArgs {
    /// For so long a connection that was cut is made again; 0 tries once
    #[arg(long, value_name = "TIME", default_value = "5m", help_heading = "Another machine", value_parser = values::wait)]
    pub(crate) retry: Duration,
}

impl Default for RetryArgs {
    fn default() -> Self {
        Self { retry: Duration::from_secs(300) }
    }
}

/// Where sets are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    File(PathBuf),
    Dir(PathBuf),
    Tape(glue::Place),
}

fn place(text: &str) -> Result<Place, String> {
    match text.split_once(':') {
        Some(("file", path)) if !path.is_empty() => Ok(Place::File(path.into())),
        Some(("dir", path)) if !path.is_empty() => Ok(Place::Dir(path.into())),
        Some(("tape", place)) => glue::Place::parse(place).map(Place::Tape),
        _ => Err("expected tape:PLACE, dir:PATH or file:PATH".to_owned()),
    }
}

fn remote(text: &str) -> Result<Remote, String> {
    glue_socket::remote(text.strip_prefix("tcp:").unwrap_or(text))
}

/// How something is sent to another machine.
pub(super) fn order(
    context: &Context,
    (to, name): Remote,
    keys: &KeyArgs,
    retry: &RetryArgs,
) -> Result<SocketOrder, Failure> {
    let keys = glue_socket::socket_keys(context.dir.as_deref(), keys.token.as_deref())?;
    Ok(SocketOrder { to, keys, name, retry: retry.retry, teller: Teller::new(|text| say(text)) })
}

/// Runs `tape-socket`.
pub(crate) fn run(context: &mut Context, command: TapeSocketCommand) -> Done {
    match command.verb {
        Verb::Listen(args) => listen(context, *args),
        Verb::Send(args) => send(context, &args),
        Verb::Status(args) => status(context, args.to),
        Verb::Drain(args) => {
            let keep = keep_at(context, args.to);
            let name = keep.name();
            if glue_socket::drain(&keep)? {
                return Ok(Answer::Yes);
            }
            Err(nobody(&name))
        }
    }
}

fn nobody(place: &str) -> Failure {
    let message = format!("looking for the listener of {place}: there is none");
    Failure::no(message, "begin one: hot-backup tape-socket listen")
}

/// What `tape-socket listen --json` prints at its end.
#[derive(Serialize)]
struct ListenedView {
    taken: u64,
    left: bool,
}

fn listen(context: &mut Context, args: ListenArgs) -> Done {
    let ListenArgs { listen, to, once, keys, tape } = args;
    let keys = glue_socket::socket_keys(context.dir.as_deref(), keys.token.as_deref())?;
    let once = once || matches!(to, Place::File(_));
    let window = tape.stage().min(SOCKET_WINDOW_MAX);
    let keep = match to {
        Place::File(path) => Keep::File(path),
        Place::Dir(path) if !path.is_dir() => {
            let message = format!("listening for dir:{}: there is no such directory", path.display());
            return Err(Failure::error(
                message,
                "make it first: it is not made, so that nothing goes to the wrong disk",
            ));
        }
        Place::Dir(path) => Keep::Dir(path),
        Place::Tape(place) => Keep::Tape(Box::new(tape.order(context, place)?)),
    };
    let teller = Teller::new(|text| say(text));
    let listened = glue_socket::listen(ListenOrder { listen, keys, keep, window, once, teller })?;
    if context.json {
        context.out.json(&ListenedView { taken: listened.taken, left: listened.left })?;
    } else {
        let left = if listened.left { "; one was left that is not whole" } else { "" };
        context.out.line(format!("took {}{left}", counted(listened.taken, "set", "sets")))?;
    }
    Ok(Answer::of(!listened.left))
}

/// What `tape-socket send --json` prints.
#[derive(Serialize)]
struct SentView {
    to: String,
    seq: u64,
    /// False if all of it was there already.
    sent: bool,
    seconds: f64,
}

fn send(context: &mut Context, args: &SendArgs) -> Done {
    let order = order(context, args.to.clone(), &args.keys, &args.retry)?;
    if glue_socket::holds_parts(&args.set) {
        return send_parts(context, &args.set, &order);
    }
    let source = source(context, &args.set, Ways::of(&args.keys, &args.retry))?;
    let (bar, begin) = (progress(source.bytes()), Instant::now());
    let sent = glue_socket::send_set(&source, &order, |at| bar.set_position(at));
    bar.finish_and_clear();
    let (trailer, sent) = sent?;
    let (to, took) = (order.place(), begin.elapsed().as_secs_f64());
    if context.json {
        context.out.json(&SentView { to, seq: trailer.end.seq.0, sent, seconds: took })?;
    } else if sent {
        let (name, took) = (source.name(), seconds(took));
        context.out.line(format!("sent {name} to {to} in {took}: the state at entry {}", trailer.end.seq))?;
    } else {
        context.out.line(format!("{} is there already", source.name()))?;
    }
    Ok(Answer::Yes)
}

/// What `tape-socket send --json` prints of a spool.
#[derive(Serialize)]
struct SentPartsView {
    to: String,
    from: u64,
    until: u64,
    sent: bool,
}

fn send_parts(context: &mut Context, dir: &Path, order: &SocketOrder) -> Done {
    let bar = progress(None);
    let sent = glue_socket::send_parts(dir, order, |at| bar.set_position(at));
    bar.finish_and_clear();
    let ((from, until), sent) = sent?;
    let to = order.place();
    if context.json {
        context.out.json(&SentPartsView { to, from: from.0, until: until.0, sent })?;
    } else if sent {
        context.out.line(format!("sent entries {from} to {until} of the spool to {to}"))?;
    } else {
        context.out.line("these parts are there already")?;
    }
    Ok(Answer::Yes)
}

/// The place of a listener, to look at it.
fn keep_at(context: &Context, place: Place) -> Keep {
    match place {
        Place::File(path) => Keep::File(path),
        Place::Dir(path) => Keep::Dir(path),
        Place::Tape(place) => Keep::Tape(Box::new(glue::TapeOrder {
            options: glue::TapeOptions { dir: context.dir.clone(), ..glue::TapeOptions::new(place) },
            append: false,
            reel_size: None,
            block_size: 0,
            stage: 0,
            name: String::new(),
        })),
    }
}

fn status(context: &mut Context, place: Place) -> Done {
    let keep = keep_at(context, place);
    let name = keep.name();
    let Some(view) = glue_socket::listener(&keep)? else { return Err(nobody(&name)) };
    if context.json {
        context.out.json(&view)?;
        return Ok(Answer::Yes);
    }
    context.out.text(table(&view).render())?;
    Ok(Answer::Yes)
}

fn table(view: &ListenerView) -> Table {
    let mut table = Table::new(&["listens", "place", ">taken", "under way", ">came", ">counts", "state"]);
    let ends = if view.draining { "drains" } else { "-" };
    let row = |name: String, [came, counts]: [String; 2], state: &str| {
        [
            view.listen.clone(),
            view.place.clone(),
            view.taken.to_string(),
            name,
            came,
            counts,
            state.to_owned(),
        ]
    };
    table.row(match &view.stream {
        None => row("-".to_owned(), ["-", "-"].map(str::to_owned), ends),
        Some(stream) => {
            let name = format!("{} of {} from {}", stream.name, stream.node, stream.from);
            let state = if stream.connected { ends } else { "its sender is away" };
            row(name, [bytes(stream.received), bytes(stream.counts)], state)
        }
    });
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_and_names_are_judged_before_anything_is_done() {
        assert_eq!(place("dir:/backup"), Ok(Place::Dir("/backup".into())));
        assert_eq!(place("file:x.hbs"), Ok(Place::File("x.hbs".into())));
        assert!(matches!(place("tape:/dev/nst0"), Ok(Place::Tape(_))));
        assert!(place("/backup").is_err() && place("dir:").is_err());
        let (to, name) = remote("tcp:host:2009/monday").unwrap();
        assert_eq!((to.to_string().as_str(), name.as_deref()), ("host:2009", Some("monday")));
        assert_eq!(remote("[::1]:2009").unwrap().1, None);
        for bad in ["tcp:host", "tcp:host:0x1", "tcp:host:2009/", "tcp:host:2009/../x", "tcp:host:2009/.x"] {
            assert!(remote(bad).is_err(), "{bad}");
        }
    }
}

//! `save` and `verify`: what a node holds, as a set of files or in a pipe.

use super::against::AgainstArgs;
use super::failure::{Answer, Done, Failure};
use super::glue::{Contents, Damage, Pack, SaveOrder, SaveTold, Saved, Source, Target, Verified};
use super::glue_socket::{self, Remote};
use super::out::{Table, escape, per_second, say, seconds, utc};
use super::tape::{TapeArgs, TapeWriteArgs};
use super::tape_socket::{self, KeyArgs, RetryArgs};
use super::wait::{Need, WaitArgs, until_ready};
use super::{Context, glue, values};
use crate::base::shown::{bytes, counted};
use crate::format::alone::AloneFiles;
use crate::format::set::Trailer;
use clap::{Args, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a node may take to begin a save.
const PATIENCE: Duration = Duration::from_secs(60);
/// The least size of a file of a set (bytes).
const PART_MIN: u64 = 1 << 20;

/// Saves what a node holds, while users work
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_long_help = "\
A save holds every replicated account, file, item and block as they are at its end, when everything that was answered
before has its place in it. The standby can be saved as well as the primary. It holds the files that this node has
alone, too, as they are at that end; of those flagged Y the definition, of those flagged X nothing (save says which).

A set that has no trailer is no save: it was interrupted. A save never overwrites another.

Examples:
  hot-backup save --to file:/backup/monday.hbs
  hot-backup save --to dir:/backup/monday --part-size 4G      several files
  hot-backup save --to - | ssh host 'cat > monday.hbs'        a pipe
  hot-backup save --to file:tuesday.hbs --since monday.hbs    what changed, for restore --from monday.hbs --from tuesday.hbs
  hot-backup save --to file:app.hbs --account app --rate 200M --level lz4
  hot-backup save --to tape:/dev/nst0 --append                reels: see hot-backup tape --help
  hot-backup save --to tcp:host:2009/monday                   another machine: see hot-backup tape-socket --help
  hot-backup save show /backup/monday.hbs                     what it holds
  hot-backup save list /backup/*                              a line for each"
)]
pub(crate) struct SaveArgs {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// file:PATH, dir:PATH, tape:/dev/nst0, tape:reel-%03d.tap, tcp:HOST:PORT, or - for standard output
    #[arg(long, value_name = "TARGET", required = true, value_parser = place)]
    to: Option<Place>,
    /// Only the files of this account
    #[arg(long, value_name = "ACCOUNT")]
    account: Option<String>,
    /// Only what is not as this earlier set left it, which is read and checked for that
    #[arg(long, value_name = "SET")]
    since: Option<PathBuf>,
    /// Only what is replicated: nothing that this node has alone
    #[arg(long)]
    replicated_only: bool,
    /// Content in a second at most (bytes), such as 200M; what users change meanwhile comes beside that
    #[arg(long, value_name = "SIZE", value_parser = values::byte_size)]
    rate: Option<u64>,
    /// How content is packed
    #[arg(long, value_enum, default_value = "none")]
    level: LevelArg,
    /// With dir: a new file is begun when one has this size
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = part_size)]
    part_size: u64,
    #[command(flatten)]
    wait: WaitArgs,
    #[command(flatten)]
    tape: TapeWriteArgs,
    #[command(flatten)]
    keys: KeyArgs,
    #[command(flatten)]
    retry: RetryArgs,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Tells of each set what it is, a line for each
    List {
        /// Files and directories, tape:PLACE, tcp:HOST:PORT/NAME
        #[arg(required = true, value_name = "SET")]
        sets: Vec<PathBuf>,
        #[command(flatten)]
        keys: KeyArgs,
        #[command(flatten)]
        retry: RetryArgs,
    },
    /// Tells what a set holds, file by file, without reading it all
    Show {
        /// The file or directory, tape:PLACE, or tcp:HOST:PORT/NAME
        #[arg(value_name = "SET")]
        set: PathBuf,
        #[command(flatten)]
        keys: KeyArgs,
        #[command(flatten)]
        retry: RetryArgs,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LevelArg {
    /// Not at all
    None,
    /// LZ4: fast, where the place is smaller than the time
    Lz4,
}

/// Where a save goes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    File(PathBuf),
    Dir(PathBuf),
    Stdout,
    Tape(glue::Place),
    Socket(Remote),
}

fn place(text: &str) -> Result<Place, String> {
    match text.split_once(':') {
        _ if text == "-" => Ok(Place::Stdout),
        Some(("file", path)) if !path.is_empty() => Ok(Place::File(path.into())),
        Some(("dir", path)) if !path.is_empty() => Ok(Place::Dir(path.into())),
        Some(("tape", place)) => glue::Place::parse(place).map(Place::Tape),
        Some(("tcp", place)) => glue_socket::remote(place).map(Place::Socket),
        _ => Err("expected file:PATH, dir:PATH, tape:PLACE, tcp:HOST:PORT or -".to_owned()),
    }
}

fn part_size(text: &str) -> Result<u64, String> {
    match values::byte_size(text)? {
        size if size < PART_MIN => Err(format!("{} at least", bytes(PART_MIN))),
        size => Ok(size),
    }
}

/// Runs `save`.
pub(crate) fn run(context: &mut Context, args: SaveArgs) -> Done {
    args.wait.note(context);
    match args.verb {
        Some(Verb::List { ref sets, ref keys, ref retry }) => list(context, sets, Ways::of(keys, retry)),
        Some(Verb::Show { ref set, ref keys, ref retry }) => show(context, set, Ways::of(keys, retry)),
        None => save(context, args),
    }
}

fn save(context: &mut Context, args: SaveArgs) -> Done {
    let target = match args.to {
        Some(Place::File(path)) => Target::File(path),
        Some(Place::Dir(path)) => Target::Dir(path, args.part_size),
        Some(Place::Tape(place)) => Target::Tape(Box::new(args.tape.order(context, place)?)),
        Some(Place::Socket(remote)) => {
            Target::Socket(Box::new(tape_socket::order(context, remote, &args.keys, &args.retry)?))
        }
        Some(Place::Stdout) | None => Target::Stdout,
    };
    if target == Target::Stdout && context.out.is_terminal() {
        let next = "send it through a pipe or into a file: hot-backup save --to - > FILE";
        return Err(Failure::error("saving to standard output: it is a terminal", next));
    }
    let pack = if args.level == LevelArg::Lz4 { Pack::Lz4 } else { Pack::None };
    let since = match args.since {
        Some(_) if matches!(target, Target::Tape(_)) => {
            let next = "save it to a file or directory; a save of everything goes to reels";
            return Err(Failure::error("saving since an earlier set: that does not go to reels", next));
        }
        Some(path) => Some(source(context, &path, Ways::of(&args.keys, &args.retry))?),
        None => None,
    };
    let alone = !args.replicated_only;
    let order = SaveOrder { target, account: args.account, rate: args.rate, pack, since, alone };
    until_ready(context, Need::Replayed)?;
    let (bar, begin) = (progress(None), Instant::now());
    let told = |told| match told {
        SaveTold::Begins { expected, free } => {
            bar.set_length(expected);
            if free.is_some_and(|free| free < expected) {
                let (needs, has) = (bytes(expected), bytes(free.unwrap_or_default()));
                bar.suspend(|| {
                    say(format!("what the node holds takes about {needs}, and {has} are free there"))
                });
            }
        }
        SaveTold::Read(_) => bar.tick(),
        SaveTold::Written(written) => bar.set_position(written),
    };
    let saved = glue::save(context.dir()?, &order, PATIENCE, told);
    bar.finish_and_clear();
    tell_saved(context, &saved?, &order.target, begin.elapsed())
}

/// What `save --json` prints.
#[derive(Serialize)]
struct SavedView {
    set: String,
    target: String,
    epoch: u64,
    seq: u64,
    bytes: u64,
    items: u64,
    content_bytes: u64,
    digest: String,
    /// Files that the node has alone.
    alone: Vec<String>,
    definition_only: Vec<String>,
    left_out: Vec<String>,
    seconds: f64,
}

fn tell_saved(context: &mut Context, saved: &Saved, target: &Target, took: Duration) -> Done {
    let Trailer { end, counts, digest, .. } = &saved.trailer;
    let AloneFiles { files: own, defined, left_out } = glue::alone_files(&saved.begin, &saved.trailer);
    let own: Vec<String> = own.into_iter().map(|file| file.name).collect();
    if context.json && *target != Target::Stdout {
        context.out.json(&SavedView {
            set: saved.set.to_string(),
            target: target.name(),
            epoch: end.epoch.0,
            seq: end.seq.0,
            bytes: saved.bytes,
            items: counts.items,
            content_bytes: counts.bytes,
            digest: hex(digest),
            alone: own,
            definition_only: defined,
            left_out,
            seconds: took.as_secs_f64(),
        })?;
        return Ok(Answer::Yes);
    }
    let text = format!(
        "saved {} with {} to {} in {} ({}/s): the state at entry {}",
        counted(saved.trailer.all_files().count() as u64, "file", "files"),
        bytes(counts.bytes),
        target.name(),
        seconds(took.as_secs_f64()),
        bytes(per_second(saved.bytes, took)),
        end.seq
    );
    if *target == Target::Stdout {
        say(text);
    } else {
        context.out.line(text)?;
        context.out.flush()?;
    }
    for (what, names) in [
        ("this node's alone", &own),
        ("definition alone, no content", &defined),
        ("left out, as this node's alone", &left_out),
    ] {
        if !names.is_empty() {
            let files = counted(names.len() as u64, "file", "files");
            say(format!("{what}: {files} ({})", some_of(names)));
        }
    }
    Ok(Answer::Yes)
}

/// The first names of many.
fn some_of(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let shown = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(" ");
    if names.len() > SHOWN { format!("{shown} ..") } else { shown }
}

fn hex(digest: &[u8]) -> String {
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// How far something with bytes is, on stderr, shown only when that is a terminal.
pub(super) fn progress(bytes: Option<u64>) -> ProgressBar {
    let bar = bytes.map_or_else(ProgressBar::no_length, ProgressBar::new);
    if !std::io::stderr().is_terminal() {
        bar.set_draw_target(indicatif::ProgressDrawTarget::hidden());
    }
    let style = ProgressStyle::with_template(
        "{bar:30} {decimal_bytes} of about {decimal_total_bytes}  {decimal_bytes_per_sec}  {eta} left",
    );
    if let Ok(style) = style {
        bar.set_style(style);
    }
    bar
}

/// What is said of the way to a set: on reels, their key, on another machine.
#[derive(Clone, Copy, Default)]
pub(super) struct Ways<'a> {
    pub(super) tape: Option<&'a TapeArgs>,
    pub(super) key: Option<&'a Path>,
    pub(super) remote: Option<(&'a KeyArgs, &'a RetryArgs)>,
}

impl<'a> Ways<'a> {
    /// To another machine.
    pub(super) fn of(keys: &'a KeyArgs, retry: &'a RetryArgs) -> Self {
        Self { remote: Some((keys, retry)), ..Self::default() }
    }
}

/// The set on another machine that stands behind `tcp:`.
fn remote_source(context: &Context, text: &str, ways: Ways<'_>) -> Result<Source, Failure> {
    let wrong =
        |why| Failure::error(format!("reading tcp:{text}: {why}"), "see: hot-backup tape-socket --help");
    let remote = glue_socket::remote(text).map_err(wrong)?;
    let plain = (KeyArgs::default(), RetryArgs::default());
    let (keys, retry) = ways.remote.unwrap_or((&plain.0, &plain.1));
    let order = tape_socket::order(context, remote, keys, retry)?;
    Ok(Source::Socket(Box::new(glue_socket::SocketSource::new(order))))
}

/// The set that an argument names: a file, a directory, `-`, `tcp:HOST:PORT` with `/NAME` behind it, or `tape:PLACE`, with
/// `#SAVE` behind it for an older one. Without flags for reels nobody is waited for.
pub(super) fn source(context: &Context, path: &Path, ways: Ways<'_>) -> Result<Source, Failure> {
    let text = path.to_str().unwrap_or_default();
    if let Some(remote) = text.strip_prefix("tcp:") {
        return remote_source(context, remote, ways);
    }
    let Ways { tape, key, .. } = ways;
    let Some(text) = text.strip_prefix("tape:") else {
        // As --to names them.
        let bare = text.strip_prefix("file:").or_else(|| text.strip_prefix("dir:"));
        return Ok(Source::of(bare.map_or(path, Path::new)));
    };
    let (place, save) = match text.rsplit_once('#') {
        Some((place, save)) => (place, Some(save.to_owned())),
        None => (text, None),
    };
    let wrong = |why| Failure::error(format!("reading tape:{text}: {why}"), "see: hot-backup tape --help");
    let place = glue::Place::parse(place).map_err(wrong)?;
    let mut options = match tape {
        Some(tape) => tape.options(context, place),
        None => glue::TapeOptions {
            dir: context.dir.clone(),
            wait: Some(Duration::ZERO),
            ..glue::TapeOptions::new(place)
        },
    };
    options.key = key.map(glue::tape_key).transpose()?;
    Ok(Source::Tape(Box::new(glue::TapeSource { options, save, only: None, lenient: false })))
}

/// What `save show --json` and each line of `save list --json` print.
#[derive(Serialize)]
struct SetView {
    set: String,
    path: String,
    pair: String,
    node: String,
    role: String,
    account: String,
    begun: String,
    ended: String,
    epoch: u64,
    seq: u64,
    parts: u32,
    bytes: u64,
    items: u64,
    content_bytes: u64,
    digest: String,
    /// The set that it was made since; empty if it holds everything.
    since: String,
    /// The last entry of that one.
    since_seq: u64,
    /// Files of which it holds the definition, and no content.
    definition_only: Vec<String>,
    left_out: Vec<String>,
    files: Vec<FileView>,
    /// Files that its node has alone, with their content.
    alone: Vec<FileView>,
}

#[derive(Serialize)]
struct FileView {
    name: String,
    kind: &'static str,
    items: u64,
    bytes: u64,
}

impl SetView {
    fn of(path: &Path, found: &Contents) -> Self {
        let Contents { header, begin, trailer, bytes, parts } = found;
        let AloneFiles { files: own, defined, left_out } = glue::alone_files(begin, trailer);
        let file = |file: &crate::format::set::SetFile| FileView {
            name: file.name.clone(),
            kind: if file.blocks { "block" } else { "record" },
            items: file.items,
            bytes: file.bytes,
        };
        Self {
            set: header.set.to_string(),
            path: path.display().to_string(),
            pair: header.pair.to_string(),
            node: begin.node.clone(),
            role: begin.role.name().to_owned(),
            account: begin.account.clone(),
            begun: utc(header.wall_ms),
            ended: utc(trailer.wall_ms),
            epoch: trailer.end.epoch.0,
            seq: trailer.end.seq.0,
            parts: *parts,
            bytes: *bytes,
            items: trailer.counts.items,
            content_bytes: trailer.counts.bytes,
            digest: hex(&trailer.digest),
            since: begin.base.map_or_else(String::new, |base| base.set.to_string()),
            since_seq: begin.base.map_or(0, |base| base.end.seq.0),
            definition_only: defined,
            left_out,
            files: trailer.files.iter().map(file).collect(),
            alone: own.iter().map(file).collect(),
        }
    }
}

fn list(context: &mut Context, sets: &[PathBuf], ways: Ways<'_>) -> Done {
    let mut table = Table::new(&["set", "ended", "node", "account", ">entry", ">items", ">content", ">size"]);
    let (mut views, mut all) = (Vec::new(), true);
    for path in sets {
        match source(context, path, ways).and_then(|source| glue::contents(&source)) {
            Ok(found) => {
                let view = SetView::of(path, &found);
                let account = if view.account.is_empty() { "all" } else { &view.account };
                table.row([
                    view.path.clone(),
                    view.ended.clone(),
                    view.node.clone(),
                    account.to_owned(),
                    view.seq.to_string(),
                    view.items.to_string(),
                    bytes(view.content_bytes),
                    bytes(view.bytes),
                ]);
                views.push(view);
            }
            Err(failure) => {
                all = false;
                super::out::say_failure(&failure);
            }
        }
    }
    if context.json {
        context.out.json(&views)?;
    } else if !views.is_empty() {
        context.out.text(table.render())?;
    }
    Ok(Answer::of(all))
}

fn show(context: &mut Context, set: &Path, ways: Ways<'_>) -> Done {
    let found = glue::contents(&source(context, set, ways)?)?;
    let view = SetView::of(set, &found);
    if context.json {
        context.out.json(&view)?;
        return Ok(Answer::Yes);
    }
    let account =
        if view.account.is_empty() { "all accounts".to_owned() } else { escape(view.account.as_bytes()) };
    context.out.line(format!(
        "node      {} ({}), pair {}",
        escape(view.node.as_bytes()),
        view.role,
        view.pair
    ))?;
    context.out.line(format!(
        "holds     {account}, as of entry {} of epoch {}",
        found.trailer.end.seq, view.epoch
    ))?;
    if let Some(base) = &found.begin.base {
        let (set, end, ended) = (base.set, base.end.seq, utc(base.wall_ms));
        context.out.line(format!("since     set {set}, which ended with entry {end} at {ended}"))?;
    }
    context.out.line(format!("set       {}", view.set))?;
    context.out.line(format!("made      {} to {}", view.begun, view.ended))?;
    context.out.line(format!(
        "size      {} in {}",
        bytes(view.bytes),
        counted(view.parts.into(), "file", "files")
    ))?;
    context.out.line(format!("digest    {}", view.digest))?;
    if !view.definition_only.is_empty() {
        let names = escape(some_of(&view.definition_only).as_bytes());
        context.out.line(format!("defined   {names}"))?;
    }
    if !view.left_out.is_empty() {
        context.out.line(format!("left out  {}", escape(some_of(&view.left_out).as_bytes())))?;
    }
    let mut table = Table::new(&["file", "kind", ">items", ">content"]);
    for (files, of) in [(&view.files, ""), (&view.alone, ", the node's alone")] {
        for file in files {
            let items = if file.kind == "block" { "-".to_owned() } else { file.items.to_string() };
            table.row([file.name.clone(), format!("{}{of}", file.kind), items, bytes(file.bytes)]);
        }
    }
    context.out.text(table.render())?;
    Ok(Answer::Yes)
}

/// Reads all of a save set and says whether it is what was written
#[derive(Debug, Args)]
#[command(after_long_help = "\
Every block of a set has a checksum, and its trailer the digest of all of it. What does not match is told with its place
and what it held: the items or blocks that cannot be restored from this copy of the set.

With --against the set, laid out in a directory meanwhile, is held against the running node of --dir, while users work:
what differs is told, but for what updates changed since the save. Those are read in the node's journal, and in spools
where that has let them go (--spool).

Examples:
  hot-backup verify /backup/monday.hbs
  hot-backup verify monday.hbs tuesday.hbs               a save, and one since it: do they fit together
  ssh host 'cat monday.hbs' | hot-backup verify -
  hot-backup verify monday.hbs --against --dir A         is it what the node has, but for what changed since?

Exit codes: 0 all of it is what was written, and with --against nothing else differs; 1 something is damaged or it is no save, 2 error.")]
pub(crate) struct VerifyArgs {
    /// The file or directory, tape:PLACE, tcp:HOST:PORT/NAME, or - for standard input; then those that each were made since the one before
    #[arg(value_name = "SET", required = true)]
    sets: Vec<PathBuf>,
    #[command(flatten)]
    pub(super) against: AgainstArgs,
    /// The key file of an encrypted save on reels
    #[arg(long, value_name = "KEYFILE", help_heading = "Tape")]
    key: Option<PathBuf>,
    #[command(flatten)]
    tape: TapeArgs,
    #[command(flatten)]
    keys: KeyArgs,
    #[command(flatten)]
    retry: RetryArgs,
}

#[derive(Serialize)]
struct VerifyView {
    whole: bool,
    bytes: u64,
    seq: Option<u64>,
    items: Option<u64>,
    digest: Option<String>,
    damages: Vec<Damage>,
    seconds: f64,
}

/// Runs `verify`.
pub(crate) fn verify(context: &mut Context, args: &VerifyArgs) -> Done {
    let begin = Instant::now();
    let mut sources = Vec::new();
    let (tape, key) = (Some(&args.tape), args.key.as_deref());
    let ways = Ways { tape, key, remote: Some((&args.keys, &args.retry)) };
    for set in &args.sets {
        sources.push(match source(context, set, ways)? {
            // What cannot be read is gone past, and told as damage.
            Source::Tape(tape) => Source::Tape(Box::new(glue::TapeSource { lenient: true, ..*tape })),
            Source::Socket(socket) => Source::Socket(Box::new(socket.past_damage())),
            other => other,
        });
    }
    if args.against.against {
        return super::against::run(context, sources, &args.against);
    }
    let bar = progress(sources.iter().map(Source::bytes).sum());
    let found = glue::verify(sources, |read| bar.set_position(read));
    bar.finish_and_clear();
    let Verified { base, trailer, damages, bytes: read } = found?;
    if let Some(base) = base.filter(|_| args.sets.len() == 1) {
        say(format!(
            "it holds only what changed since set {}, which is not looked at: name that before it",
            base.set
        ));
    }
    let whole = damages.is_empty() && trailer.is_some();
    let took = begin.elapsed().as_secs_f64();
    if context.json {
        context.out.json(&VerifyView {
            whole,
            bytes: read,
            seq: trailer.as_ref().map(|trailer| trailer.end.seq.0),
            items: trailer.as_ref().map(|trailer| trailer.counts.items),
            digest: trailer.as_ref().map(|trailer| hex(&trailer.digest)),
            damages,
            seconds: took,
        })?;
        return Ok(Answer::of(whole));
    }
    for Damage { file, block, offset, why, held } in &damages {
        say(format!("{file}: block {block} at byte {offset} is damaged ({why}): it held {held}"));
    }
    match trailer {
        Some(trailer) if whole => context.out.line(format!(
            "whole: {} with {} and {}, the state at entry {}, digest {}",
            counted(trailer.all_files().count() as u64, "file", "files"),
            counted(trailer.counts.items, "item", "items"),
            counted(trailer.counts.batches, "batch of updates", "batches of updates"),
            trailer.end.seq,
            hex(&trailer.digest)
        ))?,
        _ => context
            .out
            .line(format!("not whole: {}", counted(damages.len() as u64, "block", "blocks") + " damaged"))?,
    }
    Ok(Answer::of(whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_named_by_what_they_are() {
        assert_eq!(place("file:/a:b"), Ok(Place::File("/a:b".into())));
        assert_eq!(place("dir:x"), Ok(Place::Dir("x".into())));
        assert_eq!(place("-"), Ok(Place::Stdout));
        assert!(matches!(place("tcp:1.2.3.4:5"), Ok(Place::Socket(_))));
        assert!(place("tcp:").is_err());
        for other in ["/a", "file:", "ftp:1.2.3.4:5", "dir:"] {
            let expected = "expected file:PATH, dir:PATH, tape:PLACE, tcp:HOST:PORT or -".to_owned();
            assert_eq!(place(other), Err(expected), "{other}");
        }
        assert!(part_size("1K").is_err());
    }
}

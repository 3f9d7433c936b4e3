//! `spool start|status|stop|list|verify|replay`.

use super::failure::{Answer, Done, Failure};
use super::glue::Until;
use super::item::{key, refused};
use super::out::{Table, escape, say, seconds, utc, visible};
use super::wait::WaitArgs;
use super::{Context, ask, glue, values};
use crate::base::FileId;
use crate::base::shown::{bytes, count, counted};
use crate::client::{Reply, RespClient};
use crate::engine::admin::{AdminRequest, FileView, SpoolView, Status};
use crate::format::batch::Batch;
use crate::format::entry::EntryKind;
use crate::format::spool::PartHeader;
use clap::{Args, Subcommand};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Journal on another disk or on reels for a long outage: begins, shows, checks and replays it
#[derive(Debug, Args)]
#[command(after_long_help = "\
When the peer is away for long, sealed segments of the journal go to a directory on another disk, and come back from
there in order when the peer returns. It is set by `spool` in the config, or with start.

Examples:
  hot-backup spool start --to file:/mnt/spool       use it from now on, also after a restart
  hot-backup spool start --to tape:/dev/nst0        the same with reels
  hot-backup spool start --to tcp:host:2009         the disk of a machine with tape-socket listen --to dir:PATH
  hot-backup spool status                           what is on it, how long there is room
  hot-backup spool list                             its parts, with their entries
  hot-backup spool verify                           read all of them, check every batch
  hot-backup spool replay --from 81205 --dry-run    what a replay would do
  hot-backup spool stop                             use none from now on

The directory must be there: if its disk is not mounted nothing is written. Exit codes: 0 yes or done, 1 no, 2 error.")]
pub(crate) struct SpoolArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Uses a spool from now on, also after a restart
    Start {
        /// Where: file:/directory, on another disk; tcp:HOST:PORT, where tape-socket listens with --to dir:PATH; tape:/dev/nst0
        /// or tape:/path/reel-%03d.tap
        #[arg(long, value_name = "PLACE")]
        to: String,
        /// Every sealed segment goes there, so that it is a history, not only what the journal has no room for
        #[arg(long)]
        always: bool,
        #[command(flatten)]
        wait: WaitArgs,
    },
    /// Shows what is on it, and how long there is room; exit code 1 if there is none
    Status,
    /// Uses none from now on; refused while the peer lacks what is on it
    Stop {
        /// Even then: the peer will need a full copy
        #[arg(long)]
        drop: bool,
    },
    /// Lists its parts
    List(Where),
    /// Reads all parts and checks every batch; exit code 1 if one is damaged or something is missing
    Verify(Where),
    Replay(ReplayArgs),
}

#[derive(Debug, Args)]
struct Where {
    /// A directory with parts, reels: tape:PLACE, or another machine: tcp:HOST:PORT; this node's spool if none is named
    #[arg(long, value_name = "PLACE")]
    at: Option<PathBuf>,
}

/// Carries out the updates of items on a spool here, through the door of this primary
#[derive(Debug, Args)]
#[command(after_long_help = "\
For a primary that was restored from a save: the updates that came after the save, as far as a spool has them. Items are
put and deleted in the order in which they were, as ordinary updates: this primary journals them, and sends them to its
standby. Files are found by their id, so the spool must be of the pair that the save was made of.

Nothing is carried out if entries are missing in between, or if a part is damaged in what can be seen of it from its ends;
at damage further in it stops there and says where. To do it again from the same entry is harmless. Changes of volumes and
of files themselves are counted and left to you: the exit code is 1 then.

Updates that this node has in its own history already are refused: they would set items back. --again does that.

Examples:
  hot-backup spool replay --at /mnt/spool/spool-0a..-0 --from 81205 --dry-run
  hot-backup spool replay --at /mnt/spool/spool-0a..-0 --from 81205 --until 90000 --only app,orders
  hot-backup spool replay --at /mnt/spool/spool-0a..-0 --from 81205 --until '2026-11-29 10:14:59'")]
struct ReplayArgs {
    /// The first entry: the one behind the end of the restored save
    #[arg(long, value_name = "ENTRY")]
    from: u64,
    /// The last entry, or the last second (UTC, such as '2026-11-29 10:14:59'); all there are if it is not given
    #[arg(long, value_name = "ENTRY|TIME", value_parser = values::until)]
    until: Option<Until>,
    /// Only this account, or account,file; may be given several times
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Also what is of this node's own history
    #[arg(long)]
    again: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    place: Where,
}

impl Where {
    fn store(&self, context: &Context) -> Result<glue::PartStore, Failure> {
        match &self.at {
            Some(place) if place.to_str().is_some_and(|place| place.starts_with("tape:")) => {
                glue::spool_reels(context.dir()?, &place.to_string_lossy())
            }
            Some(place) if place.to_str().is_some_and(|place| place.starts_with("tcp:")) => {
                glue::spool_far(context.dir()?, &place.to_string_lossy())
            }
            Some(dir) => Ok(glue::SpoolDir::at(dir.clone()).into()),
            None => glue::spool_of(context.dir()?),
        }
    }
}

/// Runs `spool`.
pub(crate) fn run(context: &mut Context, args: SpoolArgs) -> Done {
    match args.verb {
        Verb::Start { to, always, wait } => {
            wait.note(context);
            if to.starts_with("tcp:") {
                glue::check_far(context.dir()?, &to)?;
            }
            changed(context, &AdminRequest::SpoolStart { to, always })
        }
        Verb::Stop { drop } => changed(context, &AdminRequest::SpoolStop { drop }),
        Verb::Status => status(context),
        Verb::List(place) => list(context, &place),
        Verb::Verify(place) => verify(context, &place),
        Verb::Replay(args) => replay(context, &args),
    }
}

fn changed(context: &mut Context, request: &AdminRequest) -> Done {
    let view: Box<SpoolView> = ask::ask_for(context, request)?;
    if context.json {
        context.out.json(&view)?;
    } else {
        context.out.line(line(&view))?;
    }
    Ok(Answer::Yes)
}

fn status(context: &mut Context) -> Done {
    let status: Box<Status> = ask::ask_for(context, &AdminRequest::Status)?;
    let view = status.spool;
    if context.json {
        context.out.json(&view)?;
    } else {
        context.out.line(line(&view))?;
    }
    Ok(Answer::of(view.state != "off"))
}

/// The same for the status of a node; none if there is no spool.
pub(crate) fn status_line(s: &SpoolView) -> Option<String> {
    (!["off", ""].contains(&s.state.as_str())).then(|| line(s))
}

/// A spool, in a line.
pub(crate) fn line(s: &SpoolView) -> String {
    if s.state == "off" {
        return "none".to_owned();
    }
    let holds = match s.parts {
        0 => "nothing on it".to_owned(),
        n => format!(
            "{} in {}, entries {} to {}",
            bytes(s.bytes),
            counted(n, "part", "parts"),
            count(s.from),
            count(s.to)
        ),
    };
    let strays = match s.strays {
        0 => String::new(),
        n => format!("; {} of another history", counted(n, "part", "parts")),
    };
    let left = s.seconds_left.map_or_else(String::new, |left| {
        format!("; full in {} at {}/s, then {}", seconds(left), bytes(s.rate), s.when_full)
    });
    let reels = match s.reel_parts {
        0 => String::new(),
        n => format!(", {} of them on reels", counted(n, "part", "parts")),
    };
    let wanted = match s.reel_wanted.as_str() {
        "" => String::new(),
        wanted => format!("; waits for {}", visible(wanted)),
    };
    let place = match s.tape.as_str() {
        "" => visible(&s.place).to_string(),
        tape => format!("{}, then {}", visible(&s.place), visible(tape)),
    };
    format!(
        "{place} ({}, {}): {holds}{reels}{strays}; room for {}{left}{wanted}",
        s.state,
        s.mode,
        bytes(s.room_bytes)
    )
}

/// A part, as it is listed.
#[derive(Debug, Serialize)]
struct PartView {
    name: String,
    from: u64,
    to: u64,
    epoch: u64,
    bytes: u64,
    wall_ms: u64,
    /// The reel on which it begins; 0 in a directory.
    reel: u32,
    /// On a reel, and needed by nobody any more.
    let_go: bool,
    /// What is wrong with it; empty if nothing is, or nobody looked.
    damage: String,
    #[serde(skip)]
    header: Option<PartHeader>,
}

impl PartView {
    fn of(place: &glue::PartPlace) -> Self {
        let part = &place.header;
        Self {
            reel: place.reel,
            let_go: place.let_go,
            header: Some(*part),
            name: part.file_name(),
            from: part.first().0,
            to: part.end.seq.0,
            epoch: part.end.epoch.0,
            bytes: part.file_bytes(),
            wall_ms: part.wall_ms,
            damage: String::new(),
        }
    }

    fn damaged(name: String, damage: String) -> Self {
        let (reel, let_go, header) = (0, false, None);
        Self { name, from: 0, to: 0, epoch: 0, bytes: 0, wall_ms: 0, reel, let_go, damage, header }
    }
}

fn parts(store: &glue::PartStore) -> Result<Vec<PartView>, Failure> {
    let (parts, damaged) =
        store.list().map_err(|error| Failure::io("listing the spool".to_owned(), &error))?;
    let mut views: Vec<PartView> = parts.iter().map(PartView::of).collect();
    views.extend(damaged.into_iter().map(|(name, why)| PartView::damaged(name, why)));
    views.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(views)
}

fn tell_parts(context: &mut Context, views: &[PartView]) -> Result<(), Failure> {
    if context.json {
        return context.out.json(&views);
    }
    let mut table = Table::new(&["part", ">from", ">to", ">epoch", ">bytes", "written", "where", "damage"]);
    for view in views {
        let (from, to) = (count(view.from), count(view.to));
        let written = utc(view.wall_ms);
        table.row([
            view.name.clone(),
            from,
            to,
            view.epoch.to_string(),
            bytes(view.bytes),
            written,
            match (view.reel, view.let_go) {
                (0, _) => "disk".to_owned(),
                (reel, false) => format!("reel {reel}"),
                (reel, true) => format!("reel {reel}, not needed"),
            },
            visible(&view.damage).to_string(),
        ]);
    }
    context.out.text(table.render())
}

fn list(context: &mut Context, place: &Where) -> Done {
    let views = parts(&place.store(context)?)?;
    tell_parts(context, &views)?;
    Ok(Answer::of(views.iter().all(|view| view.damage.is_empty())))
}

fn verify(context: &mut Context, place: &Where) -> Done {
    let mut store = place.store(context)?;
    let mut views = parts(&store)?;
    for view in views.iter_mut().filter(|view| view.damage.is_empty()) {
        let Some(header) = view.header else { continue };
        if let Err(bad) = store.walk(&header, |_| Ok(())) {
            let rest = bad.good_to.map_or_else(String::new, |good| {
                format!("; entries {} to {} cannot be read", good + 1, view.to)
            });
            view.damage = format!("{bad}{rest}");
        }
    }
    tell_parts(context, &views)?;
    let mut fine = views.iter().all(|view| view.damage.is_empty());
    for pair in views.windows(2) {
        if let [before, after] = pair
            && after.from > before.to + 1
        {
            fine = false;
            say(format_args!("entries {} to {} are not here", before.to + 1, after.from - 1));
        }
    }
    Ok(Answer::of(fine))
}

/// What a replay did, or would do.
#[derive(Debug, Default, Serialize)]
struct Replayed {
    dry_run: bool,
    from: u64,
    /// The last entry that was looked at.
    to: u64,
    put: u64,
    deleted: u64,
    /// Updates of files that are not here, or were not chosen.
    skipped: u64,
    /// Changes of volumes and of files themselves.
    by_hand: u64,
    /// Updates by file.
    files: BTreeMap<String, u64>,
}

fn replay(context: &mut Context, args: &ReplayArgs) -> Done {
    let mut store = args.place.store(context)?;
    let until = match args.until {
        Some(Until::Entry(last)) => last.0,
        _ => u64::MAX,
    };
    let history = glue::History::of(&store, args.from, until).map_err(|error| history_failure(&error))?;
    if !args.again {
        glue::refuse_own(context.dir()?, &history)?;
    }
    let status: Box<Status> = ask::ask_for(context, &AdminRequest::Status)?;
    if !status.serves() {
        let message = format!("replaying: {} does not serve (it is {})", visible(&status.name), status.state);
        return Err(Failure::no(message, "replay at the node that serves"));
    }
    let files: Vec<FileView> = ask::ask_for(context, &AdminRequest::FileList { account: None })?;
    let files: BTreeMap<FileId, String> =
        files.into_iter().map(|file| (FileId(file.id), file.name)).collect();
    if !args.dry_run {
        let what = format!("Updates from entry {} on will be carried out again.", args.from);
        ask::confirm(context, &what, args.yes)?;
    }
    let mut door = if args.dry_run { None } else { Some(glue::items_of(context.dir()?)?) };
    let mut done = Replayed { dry_run: args.dry_run, from: args.from, ..Replayed::default() };
    let mut over = false;
    let walked = history.walk(&mut store, |batch| {
        // A clock that was set back does not take it up again.
        over |= matches!(args.until, Some(until @ Until::Time(_)) if until.ends_before(batch));
        if over {
            return Ok(());
        }
        replay_batch(batch, (args, until), &files, door.as_mut(), &mut done)
            .map_err(|failure| failure.to_string())
    });
    if let Err(error) = walked {
        say(format_args!("carried out up to entry {}", done.to));
        return Err(history_failure(&error));
    }
    tell_replayed(context, &done)?;
    Ok(Answer::of(done.by_hand == 0))
}

fn history_failure(error: &glue::HistoryError) -> Failure {
    let message = format!("replaying: {error}");
    match error {
        glue::HistoryError::Io(_) => Failure::error(message, "see --at"),
        glue::HistoryError::Stopped(_) => {
            Failure::error(message, "mend that, then replay again from the same entry")
        }
        _ => Failure::no(message, "see: hot-backup spool verify"),
    }
}

/// Carries out what a batch says, in the order in which it says it.
fn replay_batch(
    batch: &Batch,
    (args, until): (&ReplayArgs, u64),
    files: &BTreeMap<FileId, String>,
    mut door: Option<&mut RespClient>,
    done: &mut Replayed,
) -> Result<(), Failure> {
    for (seq, entry) in batch.entries().filter(|(seq, _)| (args.from..=until).contains(&seq.0)) {
        let update = matches!(entry.kind, EntryKind::Put | EntryKind::Delete);
        match files.get(&entry.file).filter(|name| is_wanted(&args.only, name)) {
            Some(name) if update => {
                let value = (entry.kind == EntryKind::Put).then_some(entry.value);
                if let Some(door) = &mut door {
                    give(door, name, entry.id, value)?;
                }
                done.put += u64::from(value.is_some());
                done.deleted += u64::from(value.is_none());
                *done.files.entry(name.clone()).or_default() += 1;
            }
            _ if entry.kind == EntryKind::EpochStart => {}
            _ if update => done.skipped += 1,
            // What concerns a file that was not chosen is nobody's matter.
            None if !args.only.is_empty() => done.skipped += 1,
            _ => done.by_hand += 1,
        }
        done.to = seq.0;
    }
    Ok(())
}

fn is_wanted(only: &[String], name: &str) -> bool {
    let is = |wanted: &String| wanted == name || name.split(',').next() == Some(wanted);
    only.is_empty() || only.iter().any(is)
}

fn give(door: &mut RespClient, file: &str, id: &[u8], value: Option<&[u8]>) -> Result<(), Failure> {
    let doing = format!("replaying item {} of {file}", escape(id));
    let key = key(file, id);
    let reply = match value {
        Some(value) => door.call(&[b"SET", &key, value]),
        None => door.call(&[b"DEL", &key]),
    };
    match reply.map_err(|error| Failure::resp(&doing, &error))? {
        Reply::Error(error) => Err(refused(&doing, &error)),
        _ => Ok(()),
    }
}

fn tell_replayed(context: &mut Context, done: &Replayed) -> Result<(), Failure> {
    if context.json {
        return context.out.json(done);
    }
    let verb = if done.dry_run { "would be" } else { "were" };
    context.out.line(format_args!(
        "entries {} to {}: {} {verb} put and {} deleted, in {}",
        done.from,
        done.to,
        counted(done.put, "item", "items"),
        counted(done.deleted, "item", "items"),
        counted(done.files.len() as u64, "file", "files")
    ))?;
    if done.skipped > 0 {
        say(format_args!(
            "{} of files that are not here or were not chosen",
            counted(done.skipped, "update", "updates")
        ));
    }
    if done.by_hand > 0 {
        let changes = counted(done.by_hand, "change", "changes");
        say(format_args!("{changes} of volumes, or of files themselves, are for you to do again"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spool_says_what_it_holds_and_how_long_there_is_room() {
        let mut view = SpoolView {
            state: "copying".into(),
            place: "file:/mnt/spool".into(),
            mode: "auto".into(),
            when_full: "drop-peer".into(),
            parts: 2,
            bytes: 128 << 20,
            from: 81_205,
            to: 90_000,
            room_bytes: 1 << 30,
            rate: 10 << 20,
            seconds_left: Some(102.0),
            ..SpoolView::default()
        };
        let told = line(&view);
        assert!(
            told.starts_with("file:/mnt/spool (copying, auto): 128.0 MiB in 2 parts, entries "),
            "{told}"
        );
        assert!(
            told.contains("room for 1.0 GiB; full in ") && told.ends_with("at 10.0 MiB/s, then drop-peer"),
            "{told}"
        );
        view.state = "off".into();
        assert_eq!(line(&view), "none");
    }

    #[test]
    fn files_are_chosen_by_account_or_name() {
        let only = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        for (names, wanted) in [
            (only(&[]), true),
            (only(&["app"]), true),
            (only(&["app,orders"]), true),
            (only(&["ap", "app,x"]), false),
        ] {
            assert_eq!(is_wanted(&names, "app,orders"), wanted, "{names:?}");
        }
    }
}

//! `restore`: a save set back into an empty node, or chosen parts of it into a running primary.

use super::failure::{Answer, Done, Failure};
use super::glue::{Past, PastSource, Source, Sources, Unpacked, Until};
use super::item::{key, refused};
use super::out::{escape, say, seconds, utc};
use super::restore_volume::{self, Blocks};
use super::save::{Ways, progress, source};
use super::tape::TapeArgs;
use super::tape_socket::{KeyArgs, RetryArgs};
use super::wait::{Need, WaitArgs, until_ready};
use super::{Context, ask, glue, glue_plan, values};
use crate::base::FileId;
use crate::base::limits::BLOCK_U64;
use crate::base::shown::{bytes, counted};
use crate::client::{Pipeline, Reply, RespClient, RespError};
use crate::engine::admin::{AccountView, AdminRequest, FileView};
use crate::format::dptr::{DptrKind, name_is_valid};
use clap::Args;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Items that are compared together.
const PAGE: usize = 256;

/// Brings a save set back
#[derive(Debug, Args)]
#[command(after_long_help = "\
Without --only the set becomes the content of the node in --dir, which `init` made and nobody started. The node is a
standby then, whatever it was made as: its peer brings it up to date, from its journal where that reaches back, else by a
full copy. Files that the saved node had alone come back with it (not with --replicated-only), as no peer has them. If the
peer is lost as well, `hot-backup takeover --peer-is-down --accept-loss` makes it the primary. An
interrupted restore is begun again by the same command; until it has ended, `serve` refuses the directory.

Several sources in order are one history: the save, then those that were made since it (`save --since`), then what holds what came after it: the directories of spools, and
of nodes, whose journals are read, whether they run or not. --until stops that history with an entry, or with a second.
What was written as one batch stays together. All of it is looked at before anything changes.

Without a save among them, what came after it goes into a node that a restore made and nobody started since: so what is
carried to it in rounds makes it newer (hot-backup resync plan). tape:PLACE#spool are reels of a spool.

With --only, chosen accounts, files or items go into the running primary in --dir as ordinary updates: items that differ
are put as the set has them, files and accounts that are missing are made. What came after the save and has no place in
it stays. --as ACCOUNT puts them beside what is there. A volume comes back block by block, and may not be in use.

Examples:
  hot-backup restore --from /backup/monday.hbs --dir NEW
  ssh host 'cat monday.hbs' | hot-backup restore --from - --dir NEW
  hot-backup restore --from 'tape:/backup/reel-%03d.tap' --dir NEW     from reels
  hot-backup restore --from tcp:host:2009/monday --dir NEW             from a machine with tape-socket listen
  hot-backup restore --from sunday.hbs --from monday.hbs --dir NEW     a save, and one since it
  hot-backup restore --from /mnt/usb/resync-round-1 --dir NEW          what came after the save that it was made of
  hot-backup restore --from monday.hbs --only app,orders --dry-run     what would change
  hot-backup restore --from monday.hbs --only app,orders,1001          one item
  hot-backup restore --from monday.hbs --only app --as app2            an account, beside the one that is there
  hot-backup restore --from monday.hbs --from /mnt/spool --from A --until '2026-11-29 10:14:59' --only app --as then

Exit codes: 0 done, 1 no: the set is damaged or no save, or does not have what was chosen, 2 error.")]
pub(crate) struct RestoreArgs {
    /// The set: a file, a directory, tape:PLACE (with #SAVE behind it for an older one), tcp:HOST:PORT/NAME, or - for standard
    /// input; then, each with --from, sets since it, and the directories of spools and nodes that have what came after
    #[arg(long, value_name = "SOURCE", required = true)]
    from: Vec<PathBuf>,
    /// As it was after this entry, or at the end of this second (UTC, such as '2026-11-29 10:14:59')
    #[arg(long, value_name = "ENTRY|TIME", value_parser = values::until)]
    until: Option<Until>,
    /// Only this, into a running primary: ACCOUNT, ACCOUNT,FILE or ACCOUNT,FILE,ID
    #[arg(long, value_name = "WHAT", value_parser = chosen)]
    only: Vec<Chosen>,
    /// With --only: into this account instead
    #[arg(long = "as", value_name = "ACCOUNT", requires = "only", value_parser = account)]
    other: Option<String>,
    /// Nothing of what the saved node had alone
    #[arg(long, conflicts_with = "only")]
    replicated_only: bool,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// With --only: the set is laid out here meanwhile [default: the directory for temporary files]
    #[arg(long, value_name = "PATH", requires = "only")]
    scratch: Option<PathBuf>,
    #[command(flatten)]
    wait: WaitArgs,
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

/// A part of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Chosen {
    account: String,
    file: Option<String>,
    id: Option<String>,
}

fn account(text: &str) -> Result<String, String> {
    if name_is_valid(text) { Ok(text.to_owned()) } else { Err("it is no name of an account".to_owned()) }
}

fn chosen(text: &str) -> Result<Chosen, String> {
    let mut parts = text.splitn(3, ',').map(str::to_owned);
    let (name, file, id) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
    let good = name_is_valid(&name) && file.as_deref().is_none_or(name_is_valid);
    if !good || id.as_deref() == Some("") {
        return Err("expected ACCOUNT, ACCOUNT,FILE or ACCOUNT,FILE,ID".to_owned());
    }
    Ok(Chosen { account: name, file, id })
}

/// Runs `restore`.
pub(crate) fn run(context: &mut Context, args: &RestoreArgs) -> Done {
    args.wait.note(context);
    let sources = sources(context, args)?;
    if sources.sets.is_empty() {
        more(context, &sources, args.dry_run)
    } else if args.only.is_empty() {
        whole_node(context, &sources, args.dry_run)
    } else {
        parts(context, &sources, args)
    }
}

fn sources(context: &Context, args: &RestoreArgs) -> Result<Sources, Failure> {
    let mut sets = Vec::new();
    let mut past = Vec::new();
    let (tape, key) = (Some(&args.tape), args.key.as_deref());
    let ways = Ways { tape, key, remote: Some((&args.keys, &args.retry)) };
    for path in &args.from {
        match history(context, args, path)? {
            Some(source) => past.push(source),
            None if past.is_empty() => {
                sets.push(source(context, path, ways)?);
            }
            None => {
                let text = format!("restoring: {} stands behind what comes after a save", path.display());
                return Err(Failure::error(text, "name the save first, then spools and nodes"));
            }
        }
    }
    if sets.is_empty() && !args.only.is_empty() {
        let text = "restoring: none of the sources is a save";
        return Err(Failure::error(text, "name the save first, then spools and nodes"));
    }
    Ok(Sources { sets, past, until: args.until.unwrap_or_default(), alone: !args.replicated_only })
}

/// How much there is to read of sets (bytes); none if that is not known.
fn bytes_of(sets: &[Source]) -> Option<u64> {
    sets.iter().map(Source::bytes).sum()
}

/// What a directory, or reels of a spool, have of what came after a save; none if it is something else.
fn history(context: &Context, args: &RestoreArgs, path: &Path) -> Result<Option<PastSource>, Failure> {
    let text = path.to_str().unwrap_or_default();
    let reels = text.strip_prefix("tape:").and_then(|text| text.strip_suffix(glue_plan::REELS_OF_SPOOL));
    let Some(place) = reels else {
        return Ok(glue::history(text.strip_prefix("file:").map_or(path, Path::new)));
    };
    let place = super::tape::place(place)
        .map_err(|why| Failure::error(format!("reading {text}: {why}"), "see: hot-backup tape --help"))?;
    let mut options = args.tape.options(context, place);
    options.key = args.key.as_deref().map(glue::tape_key).transpose()?;
    Ok(Some(PastSource::Reels(Box::new(options))))
}

/// What `restore --json` prints of a node that was given more.
#[derive(Serialize)]
struct MoreView {
    dir: String,
    /// Where it stood before.
    from: u64,
    epoch: u64,
    seq: u64,
    batches: u64,
    seconds: f64,
}

/// What came after its save, for a node that a restore made.
fn more(context: &mut Context, sources: &Sources, dry_run: bool) -> Done {
    let dir = context.dir()?.to_owned();
    let (bar, begin) = (progress(None), Instant::now());
    let what = (sources.past.as_slice(), sources.until);
    let taken = glue_plan::restore_more(&dir, what, dry_run, &mut |read| bar.set_position(read));
    bar.finish_and_clear();
    let (from, past) = taken?;
    tell_past(sources, Some(&past));
    if context.json {
        context.out.json(&MoreView {
            dir: dir.display().to_string(),
            from: from.seq.0,
            epoch: past.end.epoch.0,
            seq: past.end.seq.0,
            batches: past.batches,
            seconds: begin.elapsed().as_secs_f64(),
        })?;
        return Ok(Answer::Yes);
    }
    let (would, end) = (if dry_run { "would be " } else { "" }, past.end.seq);
    context
        .out
        .line(format!("{would}restored further: from entry {} to the state at entry {end}", from.seq))?;
    Ok(Answer::Yes)
}

/// What `restore --json` prints of a whole node.
#[derive(Serialize)]
struct NodeView {
    dir: String,
    epoch: u64,
    seq: u64,
    files: u64,
    items: u64,
    content_bytes: u64,
    /// Batches that came after the save.
    batches: u64,
    /// When the last of them was written; empty if there were none.
    at: String,
    seconds: f64,
}

fn whole_node(context: &mut Context, sources: &Sources, dry_run: bool) -> Done {
    let dir = context.dir()?.to_owned();
    let (bar, begin) = (progress(bytes_of(&sources.sets)), Instant::now());
    let restored = glue::restore_node(&dir, sources, dry_run, &mut |read| bar.set_position(read));
    bar.finish_and_clear();
    let Some(restored) = restored? else {
        say(format!("{} could be restored from that set", dir.display()));
        return Ok(Answer::Yes);
    };
    let (end, counts, took) = (restored.end, restored.trailer.counts, begin.elapsed().as_secs_f64());
    tell_past(sources, restored.past.as_ref());
    let last = restored.past.as_ref().filter(|past| past.batches > 0);
    let files = match sources.alone {
        true => restored.trailer.all_files().count() as u64,
        false => restored.trailer.files.len() as u64,
    };
    if context.json {
        context.out.json(&NodeView {
            dir: dir.display().to_string(),
            epoch: end.epoch.0,
            seq: end.seq.0,
            files,
            items: counts.items,
            content_bytes: counts.bytes,
            batches: last.map_or(0, |past| past.batches),
            at: last.map_or_else(String::new, |past| utc(past.wall_ms)),
            seconds: took,
        })?;
        return Ok(Answer::Yes);
    }
    context.out.line(format!(
        "restored {} with {} in {}: the state at entry {}",
        counted(files, "file", "files"),
        bytes(counts.bytes),
        seconds(took),
        end.seq
    ))?;
    context.out.flush()?;
    say(format!("the node is a standby; start it: hot-backup serve --dir {}", dir.display()));
    Ok(Answer::Yes)
}

/// What came of one file.
#[derive(Debug, Default, Serialize)]
struct PartView {
    file: String,
    /// It is a volume, and what is counted are blocks of 4 KiB.
    blocks: bool,
    made: bool,
    /// Items that were not there.
    new: u64,
    /// Items that were other ones.
    changed: u64,
    /// Items that were the same.
    same: u64,
    bytes: u64,
}

/// A file of the set, and where it goes.
struct Part {
    id: FileId,
    /// `account,file`, there.
    to: String,
    flags: String,
    /// Of a volume its size (bytes).
    blocks: Option<u64>,
    only: Option<String>,
}

/// Says where the history ends, if there is one.
fn tell_past(sources: &Sources, past: Option<&Past>) {
    let Some(past) = past.filter(|_| !sources.past.is_empty() || sources.until != Until::End) else { return };
    let batches = counted(past.batches, "batch of updates", "batches of updates");
    let last = match past.batches {
        0 => String::new(),
        _ => format!(", the last of {}", utc(past.wall_ms)),
    };
    let behind = match (past.tail(), sources.until) {
        (Some(tail), _) => format!("; it ends before {tail}"),
        (None, Until::Time(_)) => "; nothing later is in the sources".to_owned(),
        (None, _) => String::new(),
    };
    say(format!("after the save came {batches}{last}{behind}"));
}

fn parts(context: &mut Context, sources: &Sources, args: &RestoreArgs) -> Done {
    if sources.sets.contains(&Source::Stdin) {
        let next = "save it to a file first";
        return Err(Failure::error(
            "restoring parts of a set: it has to be read twice, and comes from a pipe",
            next,
        ));
    }
    until_ready(context, Need::Settled)?;
    let one = only_file(sources, args)?;
    let scratch = args.scratch.clone().unwrap_or_else(std::env::temp_dir);
    let bar = progress(bytes_of(&sources.sets));
    let unpacked = glue::unpack(sources, &scratch, one, &mut |read| bar.set_position(read));
    bar.finish_and_clear();
    let mut unpacked = unpacked?;
    tell_past(sources, Some(unpacked.past()));
    let chosen = choose(&unpacked, args)?;
    let mut views = Vec::new();
    make_accounts(context, &unpacked, &chosen, args.dry_run)?;
    let there: Vec<FileView> = ask::ask_for(context, &AdminRequest::FileList { account: None })?;
    for part in &chosen {
        let made = make_file(context, part, &there, args.dry_run)?;
        if let Some(bytes) = part.blocks {
            let what = (part.id, part.to.as_str(), bytes);
            let done = restore_volume::put(context.dir()?, &mut unpacked, what, (made, args.dry_run))?;
            let Blocks { changed, same } = done;
            views.push(PartView {
                file: part.to.clone(),
                blocks: true,
                made,
                changed,
                same,
                ..PartView::default()
            });
            continue;
        }
        let mut client = glue::items_of(context.dir()?)?;
        let mut view = PartView { file: part.to.clone(), made, ..PartView::default() };
        put(&mut client, &unpacked, part, &mut view, args.dry_run)?;
        views.push(view);
    }
    tell(context, &views, args.dry_run)
}

/// The one file whose content is needed, if that is known from the set's end: what comes after it may rename files.
fn only_file(sources: &Sources, args: &RestoreArgs) -> Result<Option<FileId>, Failure> {
    let [set] = sources.sets.as_slice() else { return Ok(None) };
    if !sources.past.is_empty() {
        return Ok(None);
    }
    let found = glue::contents(set)?;
    let wanted = |name: &str| args.only.iter().any(|chosen| chosen.is(name));
    let mut files = found.trailer.all_files().filter(|file| wanted(&file.name)).map(|file| file.id);
    Ok(files.next().filter(|_| files.next().is_none()))
}

impl Chosen {
    /// Whether `account,file` belongs to it.
    fn is(&self, name: &str) -> bool {
        name.split_once(',').is_some_and(|(account, file)| {
            account == self.account && self.file.as_deref().is_none_or(|chosen| chosen == file)
        })
    }
}

fn choose(unpacked: &Unpacked, args: &RestoreArgs) -> Result<Vec<Part>, Failure> {
    let mut parts = Vec::new();
    for chosen in &args.only {
        let mut any = false;
        let files = unpacked.namespace().files();
        let files = files.filter(|(_, info)| unpacked.has_content(info) && chosen.is(&info.key));
        for (id, info) in files {
            any = true;
            let to = format!("{},{}", args.other.as_ref().unwrap_or(&chosen.account), info.name);
            if let (DptrKind::Blocks, Some(item)) = (info.dptr.kind, &chosen.id) {
                let text = format!("restoring {},{}: {0} is a volume", info.key, escape(item.as_bytes()));
                return Err(Failure::no(text, "volumes come back as a whole: leave the item out"));
            }
            let blocks = (info.dptr.kind == DptrKind::Blocks).then(|| info.dptr.blocks * BLOCK_U64);
            let flags = info.dptr.flags.to_string();
            parts.push(Part { id, to, flags, blocks, only: chosen.id.clone() });
        }
        if !any {
            let what = chosen.file.as_ref().map_or_else(
                || format!("account {}", chosen.account),
                |file| format!("file {},{file}", chosen.account),
            );
            if unpacked.namespace().files().any(|(_, info)| chosen.is(&info.key)) {
                let why = "the set holds the definition alone, and no content";
                let next = "that comes back with a whole node: hot-backup restore --from SET --dir NEW";
                return Err(Failure::no(format!("restoring {what}: {why}"), next));
            }
            let next = "see what it holds: hot-backup save show SET";
            return Err(Failure::no(format!("restoring {what}: the set has no such thing"), next));
        }
    }
    Ok(parts)
}

fn make_accounts(
    context: &Context,
    unpacked: &Unpacked,
    parts: &[Part],
    dry_run: bool,
) -> Result<(), Failure> {
    let there: Vec<AccountView> = ask::ask_for(context, &AdminRequest::AccountList)?;
    let mut made: Vec<&str> = there.iter().map(|account| account.name.as_str()).collect();
    for part in parts {
        let Some((name, _)) = part.to.split_once(',') else { continue };
        if made.contains(&name) {
            continue;
        }
        made.push(name);
        if !dry_run {
            let account = unpacked.namespace().file(part.id).map(|info| info.dptr.account);
            let flags = account.and_then(|id| unpacked.namespace().account(id));
            let flags = flags.map(|account| account.dptr.flags.to_string()).unwrap_or_default();
            let request = AdminRequest::AccountCreate { name: name.to_owned(), flags };
            let _: AccountView = ask::ask_for(context, &request)?;
        }
    }
    Ok(())
}

/// Makes a file that is not there; whether it did, or would have.
fn make_file(context: &Context, part: &Part, there: &[FileView], dry_run: bool) -> Result<bool, Failure> {
    match there.iter().find(|file| file.name == part.to) {
        Some(file) if (file.kind == DptrKind::Blocks) != part.blocks.is_some() => {
            let next = "give another account with --as";
            let kind = if part.blocks.is_some() { "a file of items" } else { "a volume" };
            Err(Failure::no(format!("restoring to {}: there it is {kind}", part.to), next))
        }
        Some(file) => part.blocks.map_or(Ok(()), |bytes| restore_volume::check(file, bytes)).map(|()| false),
        None => {
            if !dry_run {
                let request = AdminRequest::FileCreate {
                    name: part.to.clone(),
                    kind: if part.blocks.is_some() { DptrKind::Blocks } else { DptrKind::Records },
                    flags: Some(part.flags.clone()),
                    bytes: part.blocks,
                    ack: None,
                };
                let _: FileView = ask::ask_for(context, &request)?;
            }
            Ok(true)
        }
    }
}

/// Puts what differs of a file.
fn put(
    client: &mut RespClient,
    unpacked: &Unpacked,
    part: &Part,
    view: &mut PartView,
    dry_run: bool,
) -> Result<(), Failure> {
    let doing = format!("restoring to {}", part.to);
    let unread = |error: String| Failure::error(format!("{doing}: reading the set as laid out: {error}"), "");
    if let Some(id) = &part.only {
        let value = unpacked.item(part.id, id.as_bytes()).map_err(|error| unread(error.to_string()))?;
        let Some(value) = value else {
            let text = format!("{doing}: the set has no item {}", escape(id.as_bytes()));
            return Err(Failure::no(text, "see which it has: restore the file with --as, or save show"));
        };
        return put_page(client, part, &[(id.as_bytes().to_vec().into(), value)], view, dry_run);
    }
    let mut after = bytes::Bytes::new();
    loop {
        let page = unpacked.items(part.id, &after, PAGE).map_err(|error| unread(error.to_string()))?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        after = last.clone();
        put_page(client, part, &page, view, dry_run)?;
    }
}

/// Why a page was not put.
enum PutError {
    Link(RespError),
    Refused(String),
}

impl From<RespError> for PutError {
    fn from(error: RespError) -> Self {
        Self::Link(error)
    }
}

fn put_page(
    client: &mut RespClient,
    part: &Part,
    page: &[(bytes::Bytes, bytes::Bytes)],
    view: &mut PartView,
    dry_run: bool,
) -> Result<(), Failure> {
    let doing = format!("restoring to {}", part.to);
    let mut differ = Vec::new();
    let mut compare = |at: usize, reply: Reply| -> Result<(), PutError> {
        let Some((_, value)) = page.get(at) else { return Ok(()) };
        match reply {
            Reply::Bulk(Some(there)) if there == value.as_ref() => view.same += 1,
            Reply::Bulk(Some(_)) => {
                view.changed += 1;
                differ.push(at);
            }
            Reply::Bulk(None) => {
                view.new += 1;
                differ.push(at);
            }
            // A file that a dry run did not make.
            Reply::Error(_) if dry_run && view.made => view.new += 1,
            Reply::Error(error) => return Err(PutError::Refused(error)),
            other => return Err(PutError::Refused(format!("unexpected answer {other:?}"))),
        }
        Ok(())
    };
    let failed = |error: PutError| match error {
        PutError::Link(error) => Failure::resp(&doing, &error),
        PutError::Refused(error) => refused(&doing, &error),
    };
    let mut pipeline = Pipeline::of_reads(client);
    for (at, (id, _)) in page.iter().enumerate() {
        pipeline.send(&[b"GET", &key(&part.to, id)], at, &mut compare).map_err(failed)?;
    }
    pipeline.finish(&mut compare).map_err(failed)?;
    if dry_run {
        return Ok(());
    }
    let mut stored = |size: u64, reply: Reply| match reply {
        Reply::Simple(_) => {
            view.bytes += size;
            Ok(())
        }
        Reply::Error(error) => Err(PutError::Refused(error)),
        other => Err(PutError::Refused(format!("unexpected answer {other:?}"))),
    };
    let mut pipeline = Pipeline::of_writes(client);
    for (id, value) in differ.iter().filter_map(|at| page.get(*at)) {
        let size = value.len() as u64;
        pipeline.send(&[b"SET", &key(&part.to, id), value], size, &mut stored).map_err(failed)?;
    }
    pipeline.finish(&mut stored).map_err(failed)
}

fn tell(context: &mut Context, views: &[PartView], dry_run: bool) -> Done {
    if context.json {
        context.out.json(&views)?;
        return Ok(Answer::Yes);
    }
    for PartView { file, blocks, made, new, changed, same, .. } in views {
        let would = if dry_run { "would be " } else { "" };
        let made = if *made { format!(", the file {would}made") } else { String::new() };
        if *blocks {
            let put = counted(*changed, "block", "blocks");
            context.out.line(format!("{file}: {put} {would}put back, {same} the same{made}"))?;
            continue;
        }
        context.out.line(format!(
            "{file}: {} {would}put back ({new} new, {changed} changed), {same} the same{made}",
            counted(new + changed, "item", "items")
        ))?;
    }
    Ok(Answer::Yes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_chosen_is_an_account_a_file_or_an_item_whose_id_may_hold_commas() {
        let some = |text: &str| Some(text.to_owned());
        let of = |account: &str, file, id| Ok(Chosen { account: account.to_owned(), file, id });
        assert_eq!(chosen("app"), of("app", None, None));
        assert_eq!(chosen("app,orders"), of("app", some("orders"), None));
        assert_eq!(chosen("app,orders,a,b"), of("app", some("orders"), some("a,b")));
        for bad in ["", "app,", "app,orders,", ",x"] {
            assert!(chosen(bad).is_err(), "{bad}");
        }
        assert!(chosen("app,orders").unwrap().is("app,orders"));
        assert!(!chosen("app,orders").unwrap().is("app,orders2"));
    }
}

//! `diverged apply`: gives items of a set to the primary again, as ordinary updates, where the primary has not changed them.
//!
//! Whether it has is known from what the rewind kept beside the set: what the primary changed from the common point until the
//! rewind was done, and what it had in the places of this node's own updates. An item is given only if the former does not
//! have it and the primary still has the latter, which a transaction holds it to. What is not known is a conflict.

use super::{Update, chosen, lines, plain, unhex};
use crate::base::FileId;
use crate::cli::failure::{Answer, Done, Failure};
use crate::cli::item::{key, refused};
use crate::cli::out::{Table, escape, say};
use crate::cli::{Context, ask, glue};
use crate::client::{Reply, RespClient};
use crate::engine::admin::{AdminRequest, Status};
use crate::format::rewind::{Ranges, Rewind};
use clap::Args;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;

/// Gives items to the primary again, as ordinary updates; exit code 1 if some cannot be given
#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    /// Only these: account,file or account,file,id
    what: Vec<String>,
    /// The set, as list prints it; the newest if none is named
    #[arg(long)]
    set: Option<String>,
    /// The primary's door for Redis clients; its own socket if the node of --dir serves
    #[arg(long, value_name = "HOST:PORT")]
    to: Option<String>,
    /// A file with the password of that door
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Only say what would be given, and what would not
    #[arg(long)]
    dry_run: bool,
    /// Also give what the primary has changed, or may have
    #[arg(long)]
    overwrite: bool,
}

/// A line of what stands beside a set.
#[derive(Debug, Deserialize)]
struct Base {
    file_id: Option<u64>,
    item: Option<String>,
    item_hex: Option<String>,
    #[serde(default)]
    there: bool,
    value: Option<String>,
    value_hex: Option<String>,
    changed_hex: Option<String>,
}

/// An item of a file: the file's id in the set, and the item's.
type Place = (u64, Vec<u8>);

/// What the primary had, and changed.
#[derive(Debug, Default)]
struct Known {
    base: BTreeMap<Place, Option<Vec<u8>>>,
    /// None if the rewind was interrupted: then nothing is known.
    changed: Option<Ranges>,
}

impl Known {
    fn read(name: &str, file: Option<File>) -> Result<Self, Failure> {
        let mut known = Self::default();
        let Some(file) = file else { return Ok(known) };
        lines(&format!("what stands beside {name}"), file, |line: Base| {
            if let Some(hex) = line.changed_hex {
                let rewind = unhex(&hex).and_then(|bytes| Rewind::decode(&bytes.into()).ok());
                known.changed = rewind.and_then(|rewind| rewind.ranges);
            } else if let (Some(file), Some(id)) =
                (line.file_id, plain(line.item.as_deref(), line.item_hex.as_deref()))
            {
                let value = plain(line.value.as_deref(), line.value_hex.as_deref());
                known.base.insert((file, id), value.filter(|_| line.there));
            }
            Ok(())
        })?;
        Ok(known)
    }

    /// What the primary must still have for an item to be given, or why it is not.
    fn expected(&self, place: &Place) -> Result<&Option<Vec<u8>>, &'static str> {
        let Some(changed) = &self.changed else {
            return Err("it is not known whether the primary has changed it: the rewind was interrupted");
        };
        if changed.has_item(FileId(place.0), &place.1) {
            return Err("the primary has changed it since the two parted");
        }
        self.base.get(place).ok_or("it is not known what the primary had in its place")
    }
}

/// What became of an item.
#[derive(Debug, Serialize)]
struct Outcome {
    file: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    item: Option<String>,
    /// given, same or conflict.
    result: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    why: String,
}

/// Runs `diverged apply`.
pub(crate) fn run(context: &mut Context, args: &ApplyArgs) -> Done {
    let name = chosen(context, args.set.as_deref())?;
    let open = || glue::diverged_set(context.dir()?, &name);
    let known = Known::read(&name, open()?.1)?;
    // The last update of each item counts.
    let (mut newest, mut others) = (BTreeMap::<Place, u64>::new(), 0_u64);
    lines(&name, open()?.0, |update: Update| {
        match update.item() {
            Some((id, _)) if is_wanted(&args.what, &update.file, &id) => {
                newest.insert((update.file_id, id), update.seq);
            }
            Some(_) => {}
            None => others += u64::from(update.kind != "epoch-start"),
        }
        Ok(())
    })?;
    let mut door = primary(context, args)?;
    let mut outcomes = Vec::new();
    lines(&name, open()?.0, |update: Update| {
        let Some((id, value)) = update.item() else { return Ok(()) };
        let place = (update.file_id, id);
        if newest.get(&place) != Some(&update.seq) {
            return Ok(());
        }
        let expected = match known.expected(&place) {
            Ok(expected) => Some(expected),
            Err(_) if args.overwrite => None,
            Err(why) => {
                outcomes.push(outcome(&update.file, &place.1, "conflict", why));
                return Ok(());
            }
        };
        let expected = expected.filter(|_| !args.overwrite);
        let (result, why) =
            give(&mut door, &update.file, &place.1, (expected, value.as_deref()), args.dry_run)?;
        outcomes.push(outcome(&update.file, &place.1, result, &why));
        Ok(())
    })?;
    report(context, args.dry_run, others, &outcomes)
}

fn is_wanted(what: &[String], file: &str, id: &[u8]) -> bool {
    let is = |wanted: &String| wanted == file || wanted.as_bytes() == key(file, id);
    what.is_empty() || what.iter().any(is)
}

fn outcome(file: &str, id: &[u8], result: &'static str, why: &str) -> Outcome {
    Outcome { file: file.to_owned(), item: Some(escape(id)), result, why: why.to_owned() }
}

/// A connection to the primary's door.
fn primary(context: &Context, args: &ApplyArgs) -> Result<RespClient, Failure> {
    let Some(to) = &args.to else {
        let status: Box<Status> = ask::ask_for(context, &AdminRequest::Status)?;
        if !status.serves() {
            return Err(Failure::no(
                format!(
                    "giving updates to the primary: {} does not serve (it is {})",
                    status.name, status.state
                ),
                "say --to HOST:PORT, where Redis clients reach the primary",
            ));
        }
        return glue::items_of(context.dir()?);
    };
    let mut client = glue::items_at(to)?;
    if let Some(path) = &args.password_file {
        let password = glue::password_in(path)?;
        let reply =
            client.call(&[b"AUTH", password.as_bytes()]).map_err(|e| Failure::resp("logging in", &e))?;
        if let Reply::Error(error) = reply {
            return Err(Failure::error(format!("logging in at {to}: {error}"), "check --password-file"));
        }
    }
    Ok(client)
}

/// Gives one item if the primary has in its place what is expected, or whatever it has if nothing is.
fn give(
    door: &mut RespClient,
    file: &str,
    id: &[u8],
    (expected, value): (Option<&Option<Vec<u8>>>, Option<&[u8]>),
    dry_run: bool,
) -> Result<(&'static str, String), Failure> {
    let doing = format!("giving item {} of {file}", escape(id));
    let key = key(file, id);
    let mut call = |args: &[&[u8]]| door.call(args).map_err(|e| Failure::resp(&doing, &e));
    call(&[b"WATCH", &key])?;
    let there = match call(&[b"GET", &key])? {
        Reply::Bulk(there) => there,
        Reply::Error(why) => {
            call(&[b"UNWATCH"])?;
            return Ok(("conflict", why));
        }
        other => return Err(Failure::error(format!("{doing}: unexpected answer {other:?}"), "")),
    };
    let settled = if there.as_deref() == value {
        Some(("same", String::new()))
    } else if expected.is_some_and(|expected| *expected != there) {
        Some(("conflict", "the primary has changed it since".to_owned()))
    } else if dry_run {
        Some(("given", String::new()))
    } else {
        None
    };
    if let Some(settled) = settled {
        call(&[b"UNWATCH"])?;
        return Ok(settled);
    }
    call(&[b"MULTI"])?;
    let queued = match value {
        Some(value) => call(&[b"SET", &key, value])?,
        None => call(&[b"DEL", &key])?,
    };
    if let Reply::Error(error) = queued {
        call(&[b"DISCARD"])?;
        return Err(refused(&doing, &error));
    }
    match call(&[b"EXEC"])? {
        Reply::Array(replies) => match replies.first() {
            Some(Reply::Error(error)) => Err(refused(&doing, error)),
            _ => Ok(("given", String::new())),
        },
        Reply::Bulk(None) => Ok(("conflict", "the primary has changed it at this moment".to_owned())),
        Reply::Error(error) => Err(refused(&doing, &error)),
        other => Err(Failure::error(format!("{doing}: unexpected answer {other:?}"), "")),
    }
}

fn report(context: &mut Context, dry_run: bool, others: u64, outcomes: &[Outcome]) -> Done {
    let of = |result: &str| outcomes.iter().filter(|outcome| outcome.result == result).count();
    let (given, same, conflicts) = (of("given"), of("same"), of("conflict"));
    if context.json {
        context.out.json(&serde_json::json!({
            "dry_run": dry_run, "given": given, "same": same, "conflicts": conflicts,
            "by_hand": others, "items": outcomes,
        }))?;
        return Ok(Answer::of(conflicts == 0));
    }
    if conflicts > 0 {
        let mut table = Table::new(&["file", "item", "not given, because"]);
        for outcome in outcomes.iter().filter(|outcome| outcome.result == "conflict") {
            table.row([outcome.file.clone(), outcome.item.clone().unwrap_or_default(), outcome.why.clone()]);
        }
        context.out.text(table.render())?;
    }
    let verb = if dry_run { "would be given" } else { "given" };
    say(format_args!("{verb}: {given}; the same there already: {same}; conflicts: {conflicts}"));
    if others > 0 {
        say(format_args!(
            "{others} changes of files themselves or of volumes are not given by this command: hot-backup diverged show"
        ));
    }
    Ok(Answer::of(conflicts == 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::entry::{Entry, EntryKind};

    #[test]
    fn an_item_is_given_only_if_it_is_known_that_the_primary_did_not_change_it() {
        let mut changed = Ranges::default();
        changed.note(&Entry { kind: EntryKind::Put, file: FileId(4), id: b"2", value: b"x" });
        let base = BTreeMap::from([((4, b"1".to_vec()), None), ((4, b"2".to_vec()), Some(b"x".to_vec()))]);
        let known = Known { base, changed: Some(changed) };
        assert_eq!(known.expected(&(4, b"1".to_vec())), Ok(&None));
        assert!(known.expected(&(4, b"2".to_vec())).unwrap_err().contains("has changed it"));
        assert!(known.expected(&(4, b"3".to_vec())).unwrap_err().contains("not known what"));
        let interrupted = Known { changed: None, ..known };
        assert!(interrupted.expected(&(4, b"1".to_vec())).unwrap_err().contains("interrupted"));
    }

    #[test]
    fn files_and_items_are_chosen_by_their_names() {
        let what = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        for (list, wanted) in [
            (what(&[]), true),
            (what(&["app,orders"]), true),
            (what(&["app,orders,1"]), true),
            (what(&["app,orders,2", "app,x"]), false),
        ] {
            assert_eq!(is_wanted(&list, "app,orders", b"1"), wanted, "{list:?}");
        }
    }
}

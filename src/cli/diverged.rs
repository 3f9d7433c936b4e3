//! `diverged list|show|apply|forget`: what this node had and the pair never kept.

mod apply;

use super::failure::{Answer, Done, Failure};
use super::out::{Table, escape, say, utc};
use super::{Context, ask, glue};
use crate::base::shown::{bytes, count};
use crate::base::{Line, next_line};
use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::BufReader;

/// The longest line of a set: an item's value in hexadecimal, and what stands around it (bytes).
const LINE_MAX: usize = 40 << 20;

/// Updates that this node had and the pair never kept: lists them, gives them to the primary again
#[derive(Debug, Args)]
#[command(after_long_help = "\
When a primary comes back after its peer took over, its updates that the standby never received are saved in
DIR/diverged before anything is undone: a set for each time. Then the node is rewound and is the standby.

Examples:
  hot-backup diverged                                the sets (as: diverged list)
  hot-backup diverged show                           the newest set, update by update
  hot-backup diverged apply --dry-run --to 10.0.0.2:6379     what the primary could be given again
  hot-backup diverged apply --to 10.0.0.2:6379 app,orders    give it the items of this file
  hot-backup diverged forget epoch-3-entries-81-90.jsonl     remove a set

apply gives an item only where the primary has not changed it since the two parted; it lists all others, and its
exit code is 1 then. Changes of volumes and of files themselves are listed by show, and are for you to do again.")]
pub(crate) struct DivergedArgs {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Lists the sets
    List,
    /// Prints a set, update by update, in the order in which they were made
    Show {
        /// The set, as list prints it; the newest if none is named
        set: Option<String>,
    },
    Apply(apply::ApplyArgs),
    /// Removes a set for good
    Forget {
        /// The set, as list prints it
        set: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

/// A line of a set.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Update {
    seq: u64,
    epoch: u64,
    kind: String,
    file: String,
    file_id: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    item: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    item_hex: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_hex: Option<String>,
}

impl Update {
    /// The item that it changes, and to what; none if it changes no item.
    fn item(&self) -> Option<(Vec<u8>, Option<Vec<u8>>)> {
        let id = plain(self.item.as_deref(), self.item_hex.as_deref())?;
        match self.kind.as_str() {
            "put" => Some((id, Some(plain(self.value.as_deref(), self.value_hex.as_deref())?))),
            "delete" => Some((id, None)),
            _ => None,
        }
    }

    fn size(&self) -> u64 {
        let text = self.value.as_ref().map_or(0, String::len);
        let hex = self.value_hex.as_ref().map_or(0, |hex| hex.len() / 2);
        self.bytes.unwrap_or((text + hex) as u64)
    }
}

/// Bytes that stand in a line as text or in hexadecimal.
fn plain(text: Option<&str>, hex: Option<&str>) -> Option<Vec<u8>> {
    match (text, hex) {
        (Some(text), _) => Some(text.as_bytes().to_vec()),
        (None, Some(hex)) => unhex(hex),
        (None, None) => None,
    }
}

fn unhex(hex: &str) -> Option<Vec<u8>> {
    let digits = hex.as_bytes().chunks(2);
    digits.map(|two| u8::from_str_radix(std::str::from_utf8(two).ok()?, 16).ok()).collect()
}

/// Calls `each` with every line of a file of JSON lines.
fn lines<T: for<'a> Deserialize<'a>>(
    what: &str,
    file: File,
    mut each: impl FnMut(T) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut source = BufReader::new(file);
    for number in 1_u64.. {
        let line = match next_line(&mut source, LINE_MAX) {
            Ok(Line::Whole(line) | Line::Unended(line)) => line,
            Ok(Line::End) => return Ok(()),
            Ok(Line::TooLong) => Vec::new(),
            Err(error) => return Err(Failure::io(format!("reading {what}"), &error)),
        };
        let parsed = serde_json::from_slice(&line).map_err(|error| {
            let message = format!("reading {what}, line {number}: {error}");
            Failure::error(
                message,
                "the set is damaged, or its save was cut off: it is saved anew at a rewind",
            )
        })?;
        each(parsed)?;
    }
    Ok(())
}

/// Runs `diverged`.
pub(crate) fn run(context: &mut Context, args: DivergedArgs) -> Done {
    match args.verb {
        None | Some(Verb::List) => list(context),
        Some(Verb::Show { set }) => show(context, set.as_deref()),
        Some(Verb::Apply(args)) => apply::run(context, &args),
        Some(Verb::Forget { set, yes }) => forget(context, &set, yes),
    }
}

/// What a set holds.
#[derive(Debug, Default, Serialize)]
struct Summary {
    set: String,
    wall_ms: u64,
    bytes: u64,
    epoch: u64,
    from: u64,
    to: u64,
    updates: u64,
    files: BTreeSet<String>,
}

fn list(context: &mut Context) -> Done {
    let mut found = Vec::new();
    for set in glue::diverged_sets(context.dir()?)? {
        let (file, _) = glue::diverged_set(context.dir()?, &set.name)?;
        let mut all =
            Summary { set: set.name.clone(), wall_ms: set.wall_ms, bytes: set.bytes, ..Summary::default() };
        lines(&set.name, file, |update: Update| {
            all.from = if all.updates == 0 { update.seq } else { all.from };
            (all.to, all.epoch) = (update.seq, update.epoch);
            all.updates += 1;
            if !update.file.is_empty() {
                all.files.insert(update.file);
            }
            Ok(())
        })?;
        found.push(all);
    }
    if context.json {
        context.out.json(&found)?;
    } else if found.is_empty() {
        say("nothing diverged: every update of this node is one of the pair");
    } else {
        let mut table = Table::new(&["set", "when", ">epoch", ">updates", "files"]);
        for set in found {
            let files: Vec<String> = set.files.into_iter().collect();
            table.row([
                set.set,
                utc(set.wall_ms),
                set.epoch.to_string(),
                count(set.updates),
                files.join(" "),
            ]);
        }
        context.out.text(table.render())?;
    }
    Ok(Answer::Yes)
}

/// The set of that name, or the newest.
fn chosen(context: &Context, set: Option<&str>) -> Result<String, Failure> {
    let sets = glue::diverged_sets(context.dir()?)?;
    let found = match set {
        Some(name) => sets.iter().find(|set| set.name == name),
        None => sets.iter().max_by_key(|set| (set.wall_ms, &set.name)),
    };
    found.map(|set| set.name.clone()).ok_or_else(|| match set {
        Some(name) => Failure::no(
            format!("looking for the set {name}: there is none of that name"),
            "hot-backup diverged list names the sets",
        ),
        None => Failure::no("nothing diverged: every update of this node is one of the pair", ""),
    })
}

fn show(context: &mut Context, set: Option<&str>) -> Done {
    let name = chosen(context, set)?;
    let (file, _) = glue::diverged_set(context.dir()?, &name)?;
    if context.json {
        lines(&name, file, |update: Update| context.out.json_line(&update))?;
        return Ok(Answer::Yes);
    }
    let mut table = Table::new(&[">entry", "what", "file", ">size", "item"]);
    lines(&name, file, |update: Update| {
        let place = match (update.item(), update.offset) {
            (Some((id, _)), _) => escape(&id),
            (None, Some(offset)) => format!("from byte {offset}"),
            (None, None) => String::new(),
        };
        let size = bytes(update.size());
        table.row([count(update.seq), update.kind, update.file, size, place]);
        Ok(())
    })?;
    context.out.text(table.render())?;
    Ok(Answer::Yes)
}

fn forget(context: &mut Context, set: &str, yes: bool) -> Done {
    let name = chosen(context, Some(set))?;
    ask::confirm(context, &format!("The updates in {name} will be gone for good."), yes)?;
    glue::forget_diverged(context.dir()?, &name)?;
    super::account::finish(context, &serde_json::json!({ "forgotten": name }), &format!("{name} is gone"))?;
    Ok(Answer::Yes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_a_line_stand_there_as_text_or_in_hexadecimal() {
        assert_eq!(plain(Some("a"), None), Some(b"a".to_vec()));
        assert_eq!(plain(None, Some("00ff")), Some(vec![0, 255]));
        assert_eq!((plain(None, Some("0g")), plain(None, None)), (None, None));
    }

    #[test]
    fn an_update_is_one_of_an_item_or_none() {
        let update = |line: &str| serde_json::from_str::<Update>(line).unwrap();
        let start = "{\"seq\":7,\"epoch\":2,\"file\":\"app,orders\",\"file_id\":4,";
        let put = update(&format!("{start}\"kind\":\"put\",\"item\":\"1\",\"value_hex\":\"ff\"}}"));
        assert_eq!((put.item(), put.size()), (Some((b"1".to_vec(), Some(vec![255]))), 1));
        let delete = update(&format!("{start}\"kind\":\"delete\",\"item_hex\":\"ff\"}}"));
        assert_eq!(delete.item(), Some((vec![255], None)));
        let blocks = format!("{start}\"kind\":\"block-punch\",\"offset\":0,\"bytes\":4096}}");
        assert_eq!((update(&blocks).item(), update(&blocks).size()), (None, 4096));
    }
}

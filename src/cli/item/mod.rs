//! `item get|put|delete|list|import|export`: items by hand and in bulk, over the node's own socket.

mod export;
mod import;
mod paths;
mod put;
mod rows;
mod sink;
mod table;

pub use import::fuzz_import;

use super::failure::{Answer, Done, Failure};
use super::out::{escape, say};
use super::values;
use super::wait::{Need, WaitArgs, until_ready};
use super::{Context, glue};
use crate::base::limits::{ITEM_ID_MAX, ITEM_VALUE_MAX};
use crate::base::shown::Grouped;
use crate::client::{Reply, RespClient, RespError};
use clap::{Args, Subcommand};
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Items: read, write, list, import and export them
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  hot-backup item put app,orders 1001 'two boxes'
  hot-backup item put app,docs README @README.md     the value is what is in the file
  hot-backup item get app,orders 1001
  hot-backup item list app,orders --match '10*' --limit 20
  hot-backup item import app,docs ./docs             each file an item
  hot-backup item import app,orders orders.csv --id-column order_no
  hot-backup item export app,orders ./orders         and back: item import app,orders ./orders")]
pub(crate) struct ItemArgs {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    wait: WaitArgs,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Prints the value of an item, byte for byte; exit code 1 if there is none
    Get {
        /// account,file
        #[arg(value_parser = values::file_name)]
        file: String,
        /// The item's id
        id: OsString,
    },
    Put(put::PutArgs),
    /// Deletes items; exit code 1 if one was not there
    Delete {
        /// account,file
        #[arg(value_parser = values::file_name)]
        file: String,
        /// The items' ids
        #[arg(required = true)]
        ids: Vec<OsString>,
    },
    List(ListArgs),
    Import(import::ImportArgs),
    Export(export::ExportArgs),
}

/// Lists the ids of a file's items
#[derive(Debug, Args)]
struct ListArgs {
    /// account,file
    #[arg(value_parser = values::file_name)]
    file: String,
    /// How many at most
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Only ids that match this pattern: * any text, ? any character, [ab] one of these
    #[arg(long = "match", value_name = "PATTERN")]
    pattern: Option<OsString>,
}

/// Runs `item`.
pub(crate) fn run(context: &mut Context, args: ItemArgs) -> Done {
    args.wait.note(context);
    match args.verb {
        Verb::Get { file, id } => get(context, &file, id.as_bytes()),
        Verb::Put(args) => put::run(context, args),
        Verb::Delete { file, ids } => delete(context, &file, &ids),
        Verb::List(args) => list(context, &args),
        Verb::Import(args) => import::run(context, &args),
        Verb::Export(args) => export::run(context, &args),
    }
}

/// The key of an item at the RESP door.
pub(crate) fn key(file: &str, id: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(file.len() + 1 + id.len());
    key.extend_from_slice(file.as_bytes());
    key.push(b',');
    key.extend_from_slice(id);
    key
}

/// Why an item cannot be stored, if it cannot.
pub(crate) fn too_large(id_len: usize, value_len: u64) -> Option<String> {
    if id_len == 0 {
        Some("its id would be empty".to_owned())
    } else if id_len > ITEM_ID_MAX {
        Some(format!("its id has {id_len} bytes, more than {ITEM_ID_MAX}"))
    } else if value_len > ITEM_VALUE_MAX as u64 {
        Some(format!("it has {} bytes, more than {} MiB", Grouped(value_len), ITEM_VALUE_MAX >> 20))
    } else {
        None
    }
}

/// A refusal of the door, by its Redis word, as a failure with what to do next.
pub(crate) fn refused(doing: &str, error: &str) -> Failure {
    let next = match error.split(' ').next().unwrap_or_default() {
        "READONLY" => "write to the primary: hot-backup status says which node that is",
        "NOAUTH" | "WRONGPASS" => "the node's own socket needs no password: check --dir",
        "LOADING" | "MASTERDOWN" => "hot-backup status says why the node does not serve",
        "OOM" | "MISCONF" => "hot-backup status and incidents say what to do",
        _ => "hot-backup file list shows the files; hot-backup status whether the node serves",
    };
    Failure::error(format!("{doing}: {error}"), next)
}

fn unexpected(doing: &str, reply: &Reply) -> Failure {
    match reply {
        Reply::Error(error) => refused(doing, error),
        other => Failure::error(
            format!("{doing}: unexpected answer {other:?}"),
            "use the same version of hot-backup for the node and for this command",
        ),
    }
}

/// A connection to the node's door for its own user, once it is open.
fn door(context: &Context) -> Result<RespClient, Failure> {
    until_ready(context, Need::Settled)?;
    glue::items_of(context.dir()?)
}

fn call(context: &Context, doing: &str, args: &[&[u8]]) -> Result<Reply, Failure> {
    let mut client = door(context)?;
    client.call(args).map_err(|e| Failure::resp(doing, &e))
}

fn get(context: &mut Context, file: &str, id: &[u8]) -> Done {
    let doing = format!("reading item {} of {file}", escape(id));
    match call(context, &doing, &[b"GET", &key(file, id)])? {
        Reply::Bulk(Some(value)) if context.json => {
            context.out.json(&table::JsonItem::new(id, Some(&value)))?;
        }
        Reply::Bulk(Some(value)) => context.out.bytes(&value)?,
        Reply::Bulk(None) => return Err(Failure::no(format!("{doing}: no such item"), "")),
        other => return Err(unexpected(&doing, &other)),
    }
    Ok(Answer::Yes)
}

/// Opens a file whose content is to be a value. One that is too large is refused before a byte of it is read.
fn open_value(path: &Path) -> std::io::Result<File> {
    let file = File::open(path)?;
    let found = file.metadata()?;
    if found.is_file() && found.len() > ITEM_VALUE_MAX as u64 {
        let why = format!("it has {} bytes, more than {} MiB", Grouped(found.len()), ITEM_VALUE_MAX >> 20);
        return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, why));
    }
    Ok(file)
}

fn delete(context: &mut Context, file: &str, ids: &[OsString]) -> Done {
    let doing = format!("deleting items of {file}");
    let keys: Vec<Vec<u8>> = ids.iter().map(|id| key(file, id.as_bytes())).collect();
    let mut command: Vec<&[u8]> = vec![b"DEL"];
    command.extend(keys.iter().map(Vec::as_slice));
    let deleted = match call(context, &doing, &command)? {
        Reply::Integer(n) => u64::try_from(n).unwrap_or(0),
        other => return Err(unexpected(&doing, &other)),
    };
    let all = deleted == ids.len() as u64;
    if context.json {
        context.out.json(&serde_json::json!({ "deleted": deleted }))?;
    } else if !all {
        say(format_args!("deleted {deleted} of {}: the others were not there", ids.len()));
    }
    Ok(Answer::of(all))
}

fn list(context: &mut Context, args: &ListArgs) -> Done {
    let mut client = door(context)?;
    let pattern = args.pattern.as_ref().map_or(&b"*"[..], |p| p.as_bytes());
    let mut scan = Scan::new(&args.file, pattern);
    let mut left = args.limit.unwrap_or(u64::MAX);
    let mut listed = Vec::new();
    while left > 0
        && let Some(ids) = scan.next(&mut client)?
    {
        for id in ids.iter().take(usize::try_from(left).unwrap_or(usize::MAX)) {
            left -= 1;
            if context.json {
                // Ids are at most 255 bytes; a list for a program is meant to be held.
                listed.push(table::JsonItem::new(id, None));
            } else if context.out.is_terminal() {
                context.out.line(escape(id))?;
            } else {
                context.out.bytes(id)?;
                context.out.bytes(b"\n")?;
            }
        }
    }
    if context.json {
        context.out.json(&listed)?;
    }
    Ok(Answer::Yes)
}

/// A walk over the ids of a file.
pub(crate) struct Scan {
    file: String,
    pattern: Vec<u8>,
    cursor: Option<Vec<u8>>,
}

impl Scan {
    /// The ids of `file` (`account,file`) that match a glob pattern.
    pub(crate) fn new(file: &str, pattern: &[u8]) -> Self {
        let mut whole = glob_escape(file.as_bytes());
        whole.push(b',');
        whole.extend_from_slice(pattern);
        Self { file: file.to_owned(), pattern: whole, cursor: Some(b"0".to_vec()) }
    }

    /// The next ids, perhaps none; nothing at the end.
    pub(crate) fn next(&mut self, client: &mut RespClient) -> Result<Option<Vec<Vec<u8>>>, Failure> {
        let Some(cursor) = self.cursor.take() else { return Ok(None) };
        let doing = format!("listing the items of {}", self.file);
        let command: [&[u8]; 6] = [b"SCAN", &cursor, b"MATCH", &self.pattern, b"COUNT", b"1000"];
        let reply = client.call(&command).map_err(|e: RespError| Failure::resp(&doing, &e))?;
        let Reply::Array(parts) = reply else { return Err(unexpected(&doing, &reply)) };
        let [Reply::Bulk(Some(next)), Reply::Array(keys)] = parts.as_slice() else {
            return Err(unexpected(&doing, &Reply::Array(parts)));
        };
        if next != b"0" {
            self.cursor = Some(next.clone());
        }
        let prefix = self.file.len() + 1;
        let id_of = |key: &Reply| match key {
            Reply::Bulk(Some(key)) => key.get(prefix..).map(<[u8]>::to_vec),
            _ => None,
        };
        Ok(Some(keys.iter().filter_map(id_of).collect()))
    }
}

/// A pattern that matches just these bytes.
fn glob_escape(bytes: &[u8]) -> Vec<u8> {
    let mut pattern = Vec::with_capacity(bytes.len());
    for &byte in bytes {
        if matches!(byte, b'*' | b'?' | b'[' | b']' | b'\\') {
            pattern.push(b'\\');
        }
        pattern.push(byte);
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_file_a_comma_and_the_id_whatever_it_holds() {
        assert_eq!(key("app,orders", b"a,b\xff"), b"app,orders,a,b\xff");
    }

    #[test]
    fn names_with_stars_are_matched_as_they_are() {
        assert_eq!(glob_escape(b"app,[a]*"), b"app,\\[a\\]\\*");
        assert_eq!(Scan::new("app,x", b"10*").pattern, b"app,x,10*");
    }

    #[test]
    fn ids_and_values_have_limits() {
        assert_eq!(too_large(255, 16 << 20), None);
        assert!(too_large(0, 0).is_some());
        assert!(too_large(256, 0).is_some());
        assert!(too_large(1, (16 << 20) + 1).is_some());
    }
}

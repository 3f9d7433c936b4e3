//! `file create|list|delete|clear|grow|rename`.

use super::account::{dash, finish};
use super::failure::{Answer, Done, Failure};
use super::out::{Table, say};
use super::values;
use super::wait::WaitArgs;
use super::{Context, ask};
use crate::base::AckLevel;
use crate::base::limits::BLOCK_U64;
use crate::base::shown::bytes;
use crate::engine::admin::{AdminRequest, FileView, WouldGo};
use crate::format::dptr::{DptrKind, FileState};
use clap::{ArgGroup, Args, Subcommand};

/// Files: of items (records) or of 4 KiB blocks
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  hot-backup file create app,orders --flags L                  items, replicated
  hot-backup file create app,ledger --flags L --ack durable    .. and never lost with the primary
  hot-backup file create app,disk1 --blocks --size 10G --flags L
  hot-backup file grow app,disk1 --size 20G
  hot-backup file list app
  hot-backup file clear app,orders --dry-run

Flags: L logged and replicated, X never saved nor logged, Y definition saved but not content, T never logged.
A file without --flags inherits those of its account.")]
pub(crate) struct FileArgs {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    wait: WaitArgs,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Create(CreateArgs),
    /// Lists files
    List {
        /// Only this account's
        #[arg(value_parser = values::account_name)]
        account: Option<String>,
    },
    /// Deletes a file with all its content
    Delete(DropArgs),
    /// Deletes all items of a file, which stays
    Clear(DropArgs),
    /// Gives a block file more room; shrinking is refused
    Grow {
        /// account,file
        #[arg(value_parser = values::file_name)]
        name: String,
        /// Its new size, such as 20G
        #[arg(long, value_name = "SIZE", value_parser = block_size)]
        size: u64,
    },
    /// Gives a file another name in its account
    Rename {
        /// account,file
        #[arg(value_parser = values::file_name)]
        name: String,
        /// Its new name; the account before a comma may be left out
        to: String,
    },
}

/// Makes a file
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("kind").args(["records", "blocks"]))]
struct CreateArgs {
    /// account,file
    #[arg(value_parser = values::file_name)]
    name: String,
    /// A file of items (this is the default)
    #[arg(long)]
    records: bool,
    /// A file of 4 KiB blocks, which needs --size
    #[arg(long, requires = "size")]
    blocks: bool,
    /// Size of a block file, such as 10G
    #[arg(long, value_name = "SIZE", requires = "blocks", value_parser = block_size)]
    size: Option<u64>,
    /// Letters of L, X, Y, T; the account's unless given
    #[arg(long, value_parser = values::flags)]
    flags: Option<String>,
    /// The file's own ack level; the database's unless given
    #[arg(long, value_name = "LEVEL", value_parser = values::ack_parser())]
    ack: Option<AckLevel>,
}

#[derive(Debug, Args)]
struct DropArgs {
    /// account,file
    #[arg(value_parser = values::file_name)]
    name: String,
    /// Only say what would go
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

fn block_size(text: &str) -> Result<u64, String> {
    let size = values::byte_size(text)?;
    if size > 0 && size.is_multiple_of(BLOCK_U64) {
        Ok(size)
    } else {
        Err("a block file has one or more whole blocks of 4K".to_owned())
    }
}

/// Runs `file`.
pub(crate) fn run(context: &mut Context, args: FileArgs) -> Done {
    args.wait.note(context);
    match args.verb {
        Verb::Create(args) => create(context, args),
        Verb::List { account } => {
            let files: Vec<FileView> = ask::ask_for(context, &AdminRequest::FileList { account })?;
            print(context, &files)?;
            Ok(Answer::Yes)
        }
        Verb::Delete(args) => {
            let request = |name: &str, dry_run| AdminRequest::FileDelete { name: name.to_owned(), dry_run };
            discard(context, &args, "delete", "deleted", request)
        }
        Verb::Clear(args) => {
            let request = |name: &str, dry_run| AdminRequest::FileClear { name: name.to_owned(), dry_run };
            discard(context, &args, "clear", "cleared", request)
        }
        Verb::Grow { name, size } => {
            let grown: FileView = ask::ask_for(context, &AdminRequest::FileGrow { name, bytes: size })?;
            if context.json {
                context.out.json(&grown)?;
            } else {
                say(format_args!(
                    "{} has {} now; clients see it when they connect again",
                    grown.name,
                    bytes(grown.bytes)
                ));
            }
            Ok(Answer::Yes)
        }
        Verb::Rename { name, to } => {
            let to = new_name(&name, &to)?;
            let what = format!("file {name} is now called {to}");
            let value = ask::ask(context, &AdminRequest::FileRename { name, to })?;
            finish(context, &value, &what)?;
            Ok(Answer::Yes)
        }
    }
}

fn create(context: &mut Context, args: CreateArgs) -> Done {
    let kind = if args.blocks { DptrKind::Blocks } else { DptrKind::Records };
    let CreateArgs { name, size, flags, ack, .. } = args;
    let request = AdminRequest::FileCreate { name, kind, flags, bytes: size, ack };
    let made: FileView = ask::ask_for(context, &request)?;
    if context.json {
        context.out.json(&made)?;
    } else {
        let replicated = if made.replicated { "replicated" } else { "not replicated" };
        say(format_args!("made {} file {}, {replicated}", kind_word(made.kind), made.name));
    }
    Ok(Answer::Yes)
}

fn discard(
    context: &mut Context,
    args: &DropArgs,
    verb: &str,
    done: &str,
    request: impl Fn(&str, bool) -> AdminRequest,
) -> Done {
    let name = &args.name;
    let would: WouldGo = ask::ask_for(context, &request(name, true))?;
    if args.dry_run {
        finish(context, &would, &format!("would {verb} {name}{}", what_goes(&would)))?;
        return Ok(Answer::Yes);
    }
    ask::confirm(context, &format!("File {name}{} will be {done}.", what_goes(&would)), args.yes)?;
    let value = ask::ask(context, &request(name, false))?;
    finish(context, &value, &format!("{done} {name}"))?;
    Ok(Answer::Yes)
}

/// What the node says would go, in brackets.
fn what_goes(would: &WouldGo) -> String {
    format!(" (files {}, items {})", would.files, would.items)
}

/// The new name of a file, without account; another account is refused.
fn new_name(name: &str, to: &str) -> Result<String, Failure> {
    let account = name.split(',').next().unwrap_or_default();
    let bare = match to.split_once(',') {
        Some((other, _)) if other != account => {
            let next = format!("say {account},NEW-NAME, or copy it with item export and import");
            return Err(Failure::error(
                format!("renaming {name} to {to}: a file stays in its account"),
                next,
            ));
        }
        Some((_, bare)) => bare,
        None => to,
    };
    values::account_name(bare).map_err(|why| Failure::error(format!("renaming {name} to {to}: {why}"), ""))
}

fn kind_word(kind: DptrKind) -> &'static str {
    match kind {
        DptrKind::Account => "account",
        DptrKind::Records => "record",
        DptrKind::Blocks => "block",
    }
}

/// Prints files as a table or JSON.
pub(crate) fn print(context: &mut Context, files: &[FileView]) -> Result<(), Failure> {
    if context.json {
        return context.out.json(&files);
    }
    if files.is_empty() {
        say("no files; make one with: hot-backup file create ACCOUNT,FILE --flags L");
        return Ok(());
    }
    let mut table =
        Table::new(&["file", "kind", "flags", "replicated", "ack", "content", ">size", ">clients"]);
    for f in files {
        table.row([
            f.name.clone(),
            kind_word(f.kind).to_owned(),
            dash(&f.flags),
            (if f.replicated { "yes" } else { "no" }).to_owned(),
            f.ack.map_or("-", AckLevel::name).to_owned(),
            state_word(f.state).to_owned(),
            if f.kind == DptrKind::Blocks { bytes(f.bytes) } else { "-".to_owned() },
            if f.kind == DptrKind::Blocks { f.clients.to_string() } else { "-".to_owned() },
        ]);
    }
    context.out.text(table.render())
}

fn state_word(state: FileState) -> &'static str {
    match state {
        FileState::Whole => "whole",
        FileState::Copying => "copying",
        FileState::Stale => "stale",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_renamed_within_its_account_only() {
        assert_eq!(new_name("app,a", "b").ok().as_deref(), Some("b"));
        assert_eq!(new_name("app,a", "app,b").ok().as_deref(), Some("b"));
        assert_eq!(new_name("app,a", "other,b").unwrap_err().code(), 2);
        assert!(new_name("app,a", "b/c").is_err());
    }

    #[test]
    fn block_files_have_whole_blocks() {
        assert_eq!(block_size("10G"), Ok(10 << 30));
        assert!(block_size("0").is_err());
        assert!(block_size("4097").is_err());
    }

    #[test]
    fn what_would_go_is_told_in_numbers() {
        let would = WouldGo { files: 1, items: 3, ..WouldGo::default() };
        assert_eq!(what_goes(&would), " (files 1, items 3)");
    }
}

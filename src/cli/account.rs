//! `account create|list|delete|rename`.

use super::failure::{Answer, Done};
use super::out::{Table, say};
use super::values;
use super::wait::WaitArgs;
use super::{Context, ask};
use crate::base::shown::{count, counted};
use crate::engine::admin::{AccountView, AdminRequest, WouldGo};
use clap::{Args, Subcommand};
use serde::Serialize;

/// Accounts: names under which files live
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  hot-backup account create app --flags L     files made in it are replicated
  hot-backup account list
  hot-backup account delete old --dry-run     count what would go
A node that is starting is waited for, see --wait.")]
pub(crate) struct AccountArgs {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    wait: WaitArgs,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Makes an account
    Create {
        /// Its name
        #[arg(value_parser = values::account_name)]
        name: String,
        /// Letters of L, X, Y, T; files made in it inherit them
        #[arg(long, default_value = "", value_parser = values::flags)]
        flags: String,
    },
    /// Lists all accounts
    List,
    /// Deletes an account with all its files
    Delete {
        /// Its name
        #[arg(value_parser = values::account_name)]
        name: String,
        /// Only count what would go
        #[arg(long)]
        dry_run: bool,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Gives an account another name
    Rename {
        /// Its name
        #[arg(value_parser = values::account_name)]
        name: String,
        /// Its new name
        #[arg(value_parser = values::account_name)]
        to: String,
    },
}

/// Runs `account`.
pub(crate) fn run(context: &mut Context, args: AccountArgs) -> Done {
    args.wait.note(context);
    match args.verb {
        Verb::Create { name, flags } => {
            let made: AccountView = ask::ask_for(context, &AdminRequest::AccountCreate { name, flags })?;
            if context.json {
                context.out.json(&made)?;
            } else {
                say(format_args!("made account {}{}", made.name, with_flags(&made.flags)));
            }
        }
        Verb::List => {
            let accounts: Vec<AccountView> = ask::ask_for(context, &AdminRequest::AccountList)?;
            print(context, &accounts)?;
        }
        Verb::Delete { name, dry_run, yes } => return delete(context, name, dry_run, yes),
        Verb::Rename { name, to } => {
            let what = format!("account {name} is now {to}");
            let value = ask::ask(context, &AdminRequest::AccountRename { name, to })?;
            finish(context, &value, &what)?;
        }
    }
    Ok(Answer::Yes)
}

fn delete(context: &mut Context, name: String, dry_run: bool, yes: bool) -> Done {
    let request = |dry_run| AdminRequest::AccountDelete { name: name.clone(), dry_run };
    let would: WouldGo = ask::ask_for(context, &request(true))?;
    let files = counted(would.files, "file", "files");
    if dry_run {
        finish(context, &would, &format!("would delete account {name} with {files}"))?;
        return Ok(Answer::Yes);
    }
    ask::confirm(context, &format!("Account {name} and its {files} will be deleted."), yes)?;
    let value = ask::ask(context, &request(false))?;
    finish(context, &value, &format!("deleted account {name} with {files}"))?;
    Ok(Answer::Yes)
}

/// Prints accounts as a table or JSON.
pub(crate) fn print(context: &mut Context, accounts: &[AccountView]) -> Result<(), super::Failure> {
    if context.json {
        return context.out.json(&accounts);
    }
    if accounts.is_empty() {
        say("no accounts yet; make one with: hot-backup account create NAME");
        return Ok(());
    }
    let mut table = Table::new(&["account", "flags", ">files"]);
    for a in accounts {
        table.row([a.name.clone(), dash(&a.flags), count(a.files)]);
    }
    context.out.text(table.render())
}

/// Ends a verb that has little to tell: a message for people, the node's value for scripts.
pub(crate) fn finish(
    context: &mut Context,
    value: &impl Serialize,
    what: &str,
) -> Result<(), super::Failure> {
    if context.json {
        context.out.json(value)
    } else {
        say(what);
        Ok(())
    }
}

/// A dash for an empty cell.
pub(crate) fn dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

/// `, flags L`, or nothing.
pub(crate) fn with_flags(flags: &str) -> String {
    if flags.is_empty() { String::new() } else { format!(", flags {flags}") }
}

//! `set-dptr`: the flags of D-pointers, changed and shown as on D3.
//!
//! D3 clears flags with `-T`, which looks like an option, so the words after the command are read by hand.

use super::failure::{Answer, Done, Failure};
use super::wait::WaitArgs;
use super::{Cli, Context, account, ask, file, values};
use crate::engine::admin::{AccountView, AdminRequest, FileView};
use clap::{Args, CommandFactory};
use std::path::PathBuf;
use std::time::Duration;

const HELP: &str = "\
Words:
  +LETTERS       set these flags, as in +L or +LT
  -LETTERS       clear these flags, as in -T
  -F             the names are files (account,file); not needed: a comma says so
  -A             the names are accounts; files made in them later inherit the flags
  --ack LEVEL    a file's own ack level: local, received, durable, applied; or default
  NAME ...       accounts, or files as account,file
Without +, - and --ack the flags are shown; without names, those of all files (with -A, of all accounts).

Flags:
  L  logged and replicated: a DL file
  X  never saved nor logged
  Y  definition saved, content not; not logged
  T  never logged
Setting L for a file that already has items copies them to the standby while users work on.
L together with X or Y is refused: it would never be logged.

Examples:
  hot-backup set-dptr +L -T app,orders app,customers
  hot-backup set-dptr -A +L app
  hot-backup set-dptr --ack durable app,ledger
  hot-backup set-dptr app,orders";

/// Shows and changes the flags of files and accounts (D3: set-dptr)
#[derive(Debug, Args)]
#[command(after_long_help = HELP, override_usage = "hot-backup set-dptr [+FLAGS] [-FLAGS] [-A|-F] [--ack LEVEL] [NAME]...")]
pub(crate) struct DptrArgs {
    /// Changes and names, in any order
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "+FLAGS|-FLAGS|-A|-F|NAME")]
    words: Vec<String>,
    #[command(flatten)]
    wait: WaitArgs,
}

/// The words, understood.
#[derive(Debug, Default, PartialEq, Eq)]
struct Change {
    set: String,
    clear: String,
    accounts: bool,
    ack: Option<String>,
    wait: Option<Duration>,
    names: Vec<String>,
    dir: Option<PathBuf>,
    json: bool,
    help: Option<Help>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Help {
    Short,
    Long,
}

/// Runs `set-dptr`.
pub(crate) fn run(context: &mut Context, args: &DptrArgs) -> Done {
    let change = parse(&args.words).map_err(|why| {
        Failure::error(format!("reading the words of set-dptr: {why}"), "see hot-backup set-dptr --help")
    })?;
    if let Some(help) = change.help {
        return show_help(context, help);
    }
    args.wait.note(context);
    if let Some(wait) = change.wait {
        context.wait = wait;
    }
    context.json |= change.json;
    if let Some(dir) = change.dir.clone() {
        context.dir = Some(dir);
    }
    let accounts = change.accounts;
    let value = ask::ask(context, &request(change))?;
    if accounts {
        let views: Vec<AccountView> = ask::read(value)?;
        account::print(context, &views)?;
    } else {
        let views: Vec<FileView> = ask::read(value)?;
        file::print(context, &views)?;
    }
    Ok(Answer::Yes)
}

fn request(change: Change) -> AdminRequest {
    let Change { set, clear, accounts, ack, names, .. } = change;
    match (names.is_empty(), accounts) {
        (true, true) => AdminRequest::AccountList,
        (true, false) => AdminRequest::FileList { account: None },
        (false, _) => AdminRequest::SetDptr { set, clear, accounts, names, ack },
    }
}

fn show_help(context: &mut Context, help: Help) -> Done {
    let mut cli = Cli::command();
    cli.build();
    if let Some(command) = cli.find_subcommand_mut("set-dptr") {
        let text = match help {
            Help::Short => command.render_help(),
            Help::Long => command.render_long_help(),
        };
        context.out.line(text)?;
    }
    Ok(Answer::Yes)
}

/// Reads the words after `set-dptr`.
fn parse(words: &[String]) -> Result<Change, String> {
    let mut change = Change::default();
    let mut files = false;
    let mut only_names = false;
    let mut words = words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        let (option, inline) = match word.split_once('=') {
            Some((option, value)) if option.starts_with("--") => (option, Some(value)),
            _ => (word, None),
        };
        let mut value = |what: &str| {
            inline.or_else(|| words.next()).map(str::to_owned).ok_or_else(|| format!("{option} needs {what}"))
        };
        match option {
            _ if only_names => change.names.push(word.to_owned()),
            "--" => only_names = true,
            "--ack" => change.ack = Some(ack(&value("a level")?)?),
            "--dir" => change.dir = Some(PathBuf::from(value("a directory")?)),
            "--wait" => change.wait = Some(values::wait(&value("a time")?)?),
            "--json" => change.json = true,
            "--help" => change.help = Some(Help::Long),
            "-h" => change.help = Some(Help::Short),
            "-A" => change.accounts = true,
            "-F" => files = true,
            _ if word.starts_with("--") => return Err(format!("unknown option {word}")),
            _ => match (word.strip_prefix('+'), word.strip_prefix('-')) {
                (Some(letters), _) => change.set.push_str(&letters_of(word, letters)?),
                (_, Some(letters)) => change.clear.push_str(&letters_of(word, letters)?),
                _ => change.names.push(word.to_owned()),
            },
        }
    }
    if change.help.is_none() {
        check(&mut change, files)?;
    }
    Ok(change)
}

/// What no order of words could mean.
fn check(change: &mut Change, files: bool) -> Result<(), String> {
    if change.accounts && files {
        return Err("-A and -F exclude each other".to_owned());
    }
    if let Some(both) = change.set.chars().find(|&letter| change.clear.contains(letter)) {
        return Err(format!("{both} cannot be set and cleared at once"));
    }
    let changes = !change.set.is_empty() || !change.clear.is_empty() || change.ack.is_some();
    if changes && change.names.is_empty() {
        return Err("a change needs the names of files or accounts".to_owned());
    }
    // An account's name holds no comma and a file's always does, so -A may be left out.
    if !files && !change.names.is_empty() && change.names.iter().all(|name| !name.contains(',')) {
        change.accounts = true;
    }
    for name in &change.names {
        let good = if change.accounts { values::account_name(name) } else { values::file_name(name) };
        good.map_err(|why| format!("{name}: {why}"))?;
    }
    if change.accounts && change.ack.is_some() {
        return Err("--ack is for files".to_owned());
    }
    Ok(())
}

fn letters_of(word: &str, letters: &str) -> Result<String, String> {
    match values::flags(letters) {
        Ok(flags) if !flags.is_empty() => Ok(flags),
        Ok(_) => Err(format!("{word} names no flag")),
        Err(why) => Err(format!("{word}: {why}")),
    }
}

fn ack(word: &str) -> Result<String, String> {
    if word == "default" || values::ack_level(word).is_some() {
        Ok(word.to_owned())
    } else {
        Err(format!("--ack {word}: expected local, received, durable, applied or default"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    fn parsed(line: &str) -> Change {
        parse(&words(line)).expect(line)
    }

    #[test]
    fn flags_are_set_with_plus_and_cleared_with_minus_among_the_names() {
        let change = parsed("+L app,orders -T other,file");
        assert_eq!((change.set.as_str(), change.clear.as_str()), ("L", "T"));
        assert_eq!(change.names, ["app,orders", "other,file"]);
        assert!(!change.accounts);
        let change = parsed("+lt -xy app,a");
        assert_eq!((change.set.as_str(), change.clear.as_str()), ("LT", "XY"));
    }

    #[test]
    fn accounts_are_told_by_a_flag_or_by_their_names() {
        assert!(parsed("-A +L app").accounts);
        assert!(parsed("+L app other").accounts);
        assert!(!parsed("-F +L app,x").accounts);
        for bad in ["-F +L app", "-A +L app,x", "+L app app,x", "-A -F app", "-A --ack local app"] {
            assert!(parse(&words(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn options_of_every_command_may_stand_among_the_words() {
        let change = parsed("app,x --dir A --json --ack=durable --wait 3");
        assert_eq!(change.wait, Some(Duration::from_secs(3)));
        assert_eq!(change.dir, Some(PathBuf::from("A")));
        assert!(change.json);
        assert_eq!(change.ack.as_deref(), Some("durable"));
        assert_eq!(parsed("app,x --ack default").ack.as_deref(), Some("default"));
        assert_eq!(parsed("+L --help").help, Some(Help::Long));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for bad in
            ["+Q app,x", "+ app,x", "- app,x", "+L -L app,x", "+L", "--ack", "--ack now app,x", "--force"]
        {
            assert!(parse(&words(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn without_changes_the_flags_are_shown_and_without_names_those_of_all() {
        assert_eq!(request(parsed("")), AdminRequest::FileList { account: None });
        assert_eq!(request(parsed("-A")), AdminRequest::AccountList);
        let AdminRequest::SetDptr { set, clear, names, .. } = request(parsed("app,x")) else { panic!() };
        assert_eq!((set.as_str(), clear.as_str(), names.len()), ("", "", 1));
    }

    #[test]
    fn clap_hands_all_words_over_untouched() {
        for line in ["+L -T app,orders", "-T +L app,orders --json", "-A +L app --dir x", "-- +L"] {
            let all = ["hot-backup", "set-dptr"].into_iter().chain(line.split_whitespace());
            let cli = Cli::try_parse_from(all).expect(line);
            let super::super::Command::SetDptr(args) = cli.command else { panic!("{line}") };
            assert_eq!(args.words, words(line.trim_start_matches("-- ")), "{line}");
        }
    }
}

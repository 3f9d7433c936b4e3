//! What the menu offers: the main menu of D3's hot backup, with a command of this program behind each choice.

/// A line of a menu.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Item {
    /// What it says.
    pub(super) label: &'static str,
    /// What it does, for the help line.
    pub(super) help: &'static str,
    /// What is done when it is chosen.
    pub(super) choice: Choice,
}

/// What is done when a line is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// Another menu is shown.
    Open(&'static Menu),
    /// A command is run.
    Run(&'static Verb),
}

/// A menu.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Menu {
    pub(super) title: &'static str,
    pub(super) items: &'static [Item],
}

/// A command with what has to be asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Verb {
    /// Words of the command line.
    pub(super) words: &'static [&'static str],
    /// Asked for in this order.
    pub(super) fields: &'static [Field],
    /// What is shown before it is carried out; then the epoch has to be typed. The fields belong to it too.
    pub(super) preview: Option<&'static [&'static str]>,
}

/// Something that is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) label: &'static str,
    pub(super) help: &'static str,
    /// The flag before the value; empty if the value stands by itself.
    pub(super) flag: &'static str,
    /// It may be left empty, and is left out then.
    pub(super) optional: bool,
}

const fn field(label: &'static str, flag: &'static str, optional: bool, help: &'static str) -> Field {
    Field { label, help, flag, optional }
}

const fn verb(words: &'static [&'static str]) -> Verb {
    Verb { words, fields: &[], preview: None }
}

const fn open(label: &'static str, menu: &'static Menu, help: &'static str) -> Item {
    Item { label, help, choice: Choice::Open(menu) }
}

const fn run(label: &'static str, verb: &'static Verb, help: &'static str) -> Item {
    Item { label, help, choice: Choice::Run(verb) }
}

const NAME: Field = field("What", "", true, "An account, or account,file; empty: everything.");
const SET: Field = field("Set", "--from", false, "The save to bring back: a file or a directory.");

static STATUS: Verb = verb(&["status"]);
static QUERY: Verb = Verb {
    words: &["item", "get"],
    fields: &[
        field("File", "", false, "The file, as account,file."),
        field("Item", "", false, "The id of the item."),
    ],
    preview: None,
};
static RESUME: Verb = verb(&["log", "resume"]);
static ALONE: Verb = Verb { words: &["start", "--alone"], fields: &[], preview: Some(&["status"]) };
static PAUSE: Verb = Verb { words: &["log", "pause"], fields: &[], preview: Some(&["status"]) };
static SCRUB_STOP: Verb = verb(&["scrub", "--stop"]);
static COMPARE_STOP: Verb = verb(&["compare", "--stop"]);
static ACCOUNTS: Verb = verb(&["account", "list"]);
static FILES: Verb = verb(&["file", "list"]);
static INCIDENTS: Verb = verb(&["incidents"]);
static DIVERGED: Verb = verb(&["diverged", "list"]);
static LICENCE: Verb = verb(&["license", "show"]);
static DOCTOR: Verb = verb(&["doctor"]);
static STATISTICS: Verb = verb(&["stats"]);
static QUEUE: Verb = verb(&["queue", "show"]);
static DL_ONLY: Verb = verb(&["log", "dl-only"]);
static ALL: Verb = verb(&["log", "all"]);
static LOG_SHOW: Verb = verb(&["log", "show"]);
static CHECK: Verb = verb(&["setup", "--check", "--patience", "5"]);
static TAKEOVER: Verb = Verb {
    words: &["takeover", "--peer-is-down"],
    fields: &[],
    preview: Some(&["takeover", "--peer-is-down", "--dry-run"]),
};
static SWITCHOVER: Verb =
    Verb { words: &["switchover"], fields: &[], preview: Some(&["switchover", "--dry-run"]) };
static RESYNC: Verb = Verb { words: &["resync"], fields: &[], preview: Some(&["resync", "--dry-run"]) };
static SAVE: Verb = Verb {
    words: &["save"],
    fields: &[field("To", "--to", false, "file:PATH for one file, dir:PATH for a directory of files.")],
    preview: None,
};
static RESTORE: Verb = Verb { words: &["restore"], fields: &[SET], preview: Some(&["restore", "--dry-run"]) };
static COMPARE: Verb = Verb { words: &["compare"], fields: &[NAME], preview: None };
static SCRUB: Verb = verb(&["scrub"]);
static SPOOL: Verb = verb(&["spool", "status"]);
static TAPE: Verb = verb(&["tape", "status"]);

static START: Menu = Menu {
    title: "Start",
    items: &[
        run("Resume logging", &RESUME, "Logs again; files that changed meanwhile are copied to the standby."),
        run(
            "Serve without the peer",
            &ALONE,
            "Your word that the peer did not take over and does not serve.",
        ),
    ],
};
static STOP: Menu = Menu {
    title: "Stop",
    items: &[
        run("Pause logging", &PAUSE, "Logs nothing until it is resumed: the standby misses what changes."),
        run("Stop the scrub", &SCRUB_STOP, "Ends the scrub under way."),
        run("Stop the compare", &COMPARE_STOP, "Ends the compare under way."),
    ],
};
static SHOW: Menu = Menu {
    title: "Show",
    items: &[
        run("Accounts", &ACCOUNTS, "All accounts."),
        run("Files", &FILES, "All files with their flags."),
        run("Incidents", &INCIDENTS, "What happened that a person should know, newest last."),
        run("Diverged updates", &DIVERGED, "What this node had and the pair never kept."),
        run("Licence", &LICENCE, "What the licence grants, if one is asked for."),
        run("This machine", &DOCTOR, "What kernel and disk offer, and what to improve."),
    ],
};
static LOG: Menu = Menu {
    title: "Transaction log",
    items: &[
        run("Log DL files only", &DL_ONLY, "Logs and replicates the files flagged L."),
        run("Log all files", &ALL, "Logs and replicates every file without X, Y or T."),
        run("Pause", &PAUSE, "Logs nothing until it is resumed: the standby misses what changes."),
        run("Resume", &RESUME, "Logs again; files that changed meanwhile are copied to the standby."),
        run("Show the newest entries", &LOG_SHOW, "The newest entries queued for the peer."),
    ],
};
static SPECIAL: Menu = Menu {
    title: "Special operations",
    items: &[
        run(
            "Set-up: check the pair",
            &CHECK,
            "Whether both nodes work together. Nodes are set up by: hot-backup setup",
        ),
        run("Takeover", &TAKEOVER, "Makes this standby the primary, because the primary is gone."),
        run("Switchover", &SWITCHOVER, "Changes the roles while both nodes live; nothing is lost."),
        run("Resync", &RESYNC, "Gives the peer a copy of everything, where that is needed."),
        run("Save", &SAVE, "Saves what this node holds, while users work."),
        run("Restore", &RESTORE, "Makes of an empty node, which is not running, what a save holds."),
        run("Compare", &COMPARE, "Compares what both nodes hold, while users work."),
        run("Spool", &SPOOL, "What waits for the peer on another disk."),
        run("Tape", &TAPE, "What is on tape, and what the drive does."),
        run("Scrub", &SCRUB, "Reads what is stored and holds it to its checksums."),
    ],
};
/// The first one.
pub(super) static MAIN: Menu = Menu {
    title: "Hot backup",
    items: &[
        run("Status", &STATUS, "Role, positions, lag, what would be lost now."),
        run("Query", &QUERY, "What an item holds on this node."),
        open("Start", &START, "Resume what was paused or waits."),
        open("Stop", &STOP, "Pause or end what is under way."),
        open("Show", &SHOW, "Accounts, files, incidents, licence, this machine."),
        run("Statistics", &STATISTICS, "Transactions by type and file, rates, latencies."),
        run("Display queue", &QUEUE, "What is on its way to the peer."),
        open("Transaction log", &LOG, "What is logged and replicated."),
        open("Special operations", &SPECIAL, "Takeover, switchover, save, restore and more."),
    ],
};

#[cfg(test)]
mod tests {
    use super::*;

    fn verbs(menu: &'static Menu, all: &mut Vec<&'static Verb>) {
        for item in menu.items {
            match item.choice {
                Choice::Open(menu) => verbs(menu, all),
                Choice::Run(verb) => all.push(verb),
            }
        }
    }

    /// Whether these words and fields are a command of this program.
    fn is_one(words: &[&str], fields: &[Field]) -> Result<(), String> {
        let mut command = crate::cli::definition();
        command.build();
        let mut flags: Vec<&str> =
            fields.iter().map(|field| field.flag).filter(|flag| !flag.is_empty()).collect();
        let mut values = fields.len() - flags.len();
        for word in words {
            match command.find_subcommand(word) {
                Some(found) => command = found.clone(),
                None if word.starts_with("--") => flags.push(word),
                None => values += 1,
            }
        }
        // What stands behind a flag is its value.
        for flag in flags {
            let found = command.get_arguments().find(|arg| arg.get_long() == flag.strip_prefix("--"));
            let found = found.ok_or_else(|| format!("{words:?} has no {flag}"))?;
            values -= usize::from(words.contains(&flag) && found.get_action().takes_values());
        }
        let most: usize = command
            .get_positionals()
            .map(|arg| arg.get_num_args().map_or(1, |n| n.max_values().min(100)))
            .sum();
        if values > most { Err(format!("{words:?} takes {most} values, and gets {values}")) } else { Ok(()) }
    }

    #[test]
    fn each_choice_and_each_preview_is_a_command_of_this_program_with_the_flags_that_it_has() {
        let mut all = Vec::new();
        verbs(&MAIN, &mut all);
        assert!(all.len() > 25);
        for verb in all {
            is_one(verb.words, verb.fields).unwrap();
            assert!(crate::cli::definition().find_subcommand(verb.words[0]).is_some(), "{:?}", verb.words);
            if let Some(preview) = verb.preview {
                is_one(preview, verb.fields).unwrap();
            }
        }
        assert!(is_one(&["takeover", "--no-such"], &[]).is_err() && is_one(&["status", "now"], &[]).is_err());
    }

    #[test]
    fn what_may_lose_something_is_shown_before_it_is_done() {
        let mut all = Vec::new();
        verbs(&MAIN, &mut all);
        for words in ["takeover", "switchover", "resync", "restore", "start"] {
            let found = all.iter().find(|verb| verb.words[0] == words).expect("it is in the menu");
            let preview = found.preview.expect("it is shown first");
            assert!(preview.contains(&"--dry-run") || preview == ["status"], "{preview:?}");
        }
    }
}

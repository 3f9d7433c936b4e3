//! Subcommands of CLIENT, COMMAND, CONFIG and MEMORY: found and counted before a command is carried out or queued, and
//! what HELP says of them.

use super::table::Spec;

/// One subcommand.
#[derive(Debug)]
pub(super) struct Sub {
    /// `command|subcommand`, in lower case.
    pub(super) name: &'static str,
    /// As [`Spec::arity`].
    pub(super) arity: i8,
    /// Its arguments, as HELP writes them.
    usage: &'static str,
    summary: &'static str,
}

impl Sub {
    /// Whether `count` arguments, both names included, are right.
    pub(super) fn takes(&self, count: usize) -> bool {
        let wanted = usize::from(self.arity.unsigned_abs());
        if self.arity < 0 { count >= wanted } else { count == wanted }
    }

    /// Where its key is among the arguments, if it has one.
    pub(super) fn key_place(&self) -> Option<usize> {
        (self.name == "memory|usage").then_some(2)
    }

    /// The part behind the command's name.
    pub(super) fn word(&self) -> &'static str {
        self.name.split_once('|').map_or("", |(_, word)| word)
    }
}

const fn sub(name: &'static str, arity: i8, usage: &'static str, summary: &'static str) -> Sub {
    Sub { name, arity, usage, summary }
}

const LIST_FILTERS: &str = "[ID <id> [<id> ...]] [TYPE <type>] [USER <name>] [ADDR <ip:port>] [LADDR <ip:port>] \
                            [SKIPME (YES|NO)]";

/// Every subcommand, in order of name.
static SUBCOMMANDS: &[Sub] = &[
    sub("client|getname", 2, "", "Return the name of the current connection."),
    sub("client|getredir", 2, "", "Return -1: invalidation messages are not redirected."),
    sub("client|help", 2, "", "Print this help."),
    sub("client|id", 2, "", "Return the ID of the current connection."),
    sub("client|info", 2, "", "Return information about the current client connection."),
    sub(
        "client|kill",
        -3,
        "(<ip:port>|<filter> <value> [...])",
        "Close the connections that all filters of LIST fit.",
    ),
    sub("client|list", -2, LIST_FILTERS, "Return information about client connections."),
    sub("client|no-evict", 3, "(ON|OFF)", "Accepted: clients are not evicted."),
    sub("client|no-touch", 3, "(ON|OFF)", "Accepted: no last access times are kept."),
    sub(
        "client|receipt",
        -2,
        "[ON|OFF]",
        "Tell epoch and number of the last update, or of each with its reply.",
    ),
    sub("client|reply", 3, "ON", "Accepted: every command is answered."),
    sub("client|setinfo", 4, "(LIB-NAME|LIB-VER) <value>", "Set the client's library name or version."),
    sub("client|setname", 3, "<name>", "Assign a name to the current connection."),
    sub("client|trackinginfo", 2, "", "Report that tracking is off."),
    sub("client|unpause", 2, "", "Accepted: clients are not paused."),
    sub("command|count", 2, "", "Return the number of commands of this server."),
    sub("command|docs", -2, "[<command> [...]]", "Return what each command is for."),
    sub("command|getkeys", -4, "<full-command>", "Return the keys of a full command."),
    sub(
        "command|getkeysandflags",
        -4,
        "<full-command>",
        "Return the keys of a full command and how it uses each.",
    ),
    sub("command|help", 2, "", "Print this help."),
    sub("command|info", -2, "[<command> [...]]", "Return details about commands, of all without arguments."),
    sub(
        "command|list",
        -2,
        "[FILTERBY (MODULE <module>|ACLCAT <category>|PATTERN <pattern>)]",
        "Return the names of all commands, or of those that fit.",
    ),
    sub("config|get", -3, "<pattern> [...]", "Return the settings that fit the patterns."),
    sub("config|help", 2, "", "Print this help."),
    sub("config|resetstat", 2, "", "Set the counters that INFO shows to zero."),
    sub("config|rewrite", 2, "", "Refused: the node's config file is the operator's."),
    sub("config|set", -4, "<setting> <value> [...]", "Refused: edit the node's config file and restart it."),
    sub("memory|help", 2, "", "Print this help."),
    sub("memory|usage", -3, "<key> [SAMPLES <count>]", "Return the bytes of an item's id and value."),
];

/// All subcommands of a command.
pub(super) fn of(spec: &Spec) -> impl Iterator<Item = &'static Sub> {
    let name = spec.name;
    SUBCOMMANDS.iter().filter(move |sub| sub.name.split_once('|').is_some_and(|(parent, _)| parent == name))
}

/// The subcommand that `word` names, whatever the case of its letters.
pub(super) fn find(spec: &Spec, word: &[u8]) -> Option<&'static Sub> {
    of(spec).find(|sub| word.eq_ignore_ascii_case(sub.word().as_bytes()))
}

/// The lines of HELP, in Redis's form.
pub(super) fn help(spec: &Spec) -> Vec<String> {
    let name = spec.name.to_ascii_uppercase();
    let mut lines = vec![format!("{name} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:")];
    // HELP itself comes last.
    let mut subs: Vec<&Sub> = of(spec).collect();
    subs.sort_by_key(|sub| sub.word() == "help");
    for sub in subs {
        lines.push(format!("{} {}", sub.word().to_ascii_uppercase(), sub.usage).trim_end().to_owned());
        lines.push(format!("    {}", sub.summary));
    }
    lines
}

/// What a subcommand is for.
pub(super) fn summary(sub: &Sub) -> &'static str {
    sub.summary
}

#[cfg(test)]
mod tests {
    use super::super::table::{TABLE, flag};
    use super::*;

    #[test]
    fn every_container_has_help_and_every_subcommand_has_its_container() {
        assert!(SUBCOMMANDS.windows(2).all(|pair| pair[0].name < pair[1].name), "in order, each once");
        let containers: Vec<&Spec> = TABLE.iter().filter(|spec| spec.has(flag::CONTAINER)).collect();
        let found: usize = containers.iter().map(|spec| of(spec).count()).sum();
        assert_eq!(found, SUBCOMMANDS.len());
        for spec in containers {
            assert_eq!(find(spec, b"HeLp").unwrap().word(), "help");
            assert!(help(spec).ends_with(&["HELP".to_owned(), "    Print this help.".to_owned()]));
            assert!(find(spec, b"nosuch").is_none());
        }
    }
}

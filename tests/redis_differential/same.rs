//! When two replies are the same, and what may differ.

use super::Outcome;
use super::commands::{Step, What, is};
use crate::support::Reply;

/// Fields of CLIENT LIST and CLIENT INFO that mean the same on both sides.
const FIELDS: &[&str] =
    &["name", "flags", "db", "sub", "psub", "ssub", "multi", "user", "redir", "resp", "events", "cmd"];

/// How a reply is compared beyond what is equal byte for byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// Byte for byte.
    Exact,
    /// The same members in any order.
    Unordered,
    /// The same type; of the content nothing.
    Type,
    /// The same type of each member, in depth one.
    Members,
    /// Only these fields of each line.
    ClientLines,
    /// The same but for what shows that a transaction is being carried out: Redis shows it, the door does not.
    ClientLinesInExec,
    /// Name, arity and places of keys of each command.
    Commands,
    /// All but version, number of the connection and modules.
    Greeting,
}

/// The rule for a command, with the reason.
fn rule(words: &[Vec<u8>]) -> Rule {
    let word = |at: usize| words.get(at).map_or(String::new(), |w| String::from_utf8_lossy(w).to_lowercase());
    let (name, sub) = (word(0), word(1));
    match (name.as_str(), sub.as_str()) {
        // No order is promised.
        ("keys", _) => Rule::Unordered,
        // Numbers are given by each server.
        ("client", "id") => Rule::Type,
        // Texts for people, each server's own.
        ("client" | "command" | "config" | "memory", "help") => Rule::Type,
        ("client", "info" | "list") => Rule::ClientLines,
        // The tables and the settings differ in length.
        ("config", "get") if words[2..].iter().any(|word| word.contains(&b'*')) => Rule::Type,
        ("command", "count" | "list" | "docs") => Rule::Type,
        ("command", "") => Rule::Type,
        ("command", "info") if words.len() == 2 => Rule::Type,
        ("command", "info") => Rule::Commands,
        // Names of databases' flags, of keys' access: Redis's own words, compared by place.
        ("command", "getkeysandflags") => Rule::Exact,
        // Where Redis keeps an item in memory, and what that costs, is its own affair.
        ("memory", _) => Rule::Type,
        // What is told is each server's own; cursors are.
        ("info" | "scan", _) => Rule::Type,
        ("role" | "time", _) => Rule::Members,
        ("hello", _) => Rule::Greeting,
        _ => Rule::Exact,
    }
}

/// Error texts that may differ: the command, how Redis's begins, how the door's begins, and why.
const TEXTS: &[(&str, &str, &str, &str)] = &[
    ("scan", "ERR", "ERR invalid cursor", "the door looks at the cursor before the options"),
    (
        "client",
        "ERR syntax error",
        "ERR Unknown client type",
        "the door takes several filters, as later Redis does",
    ),
    (
        "config",
        "ERR",
        "ERR the configuration cannot be changed",
        "settings are the operator's, whatever is wrong",
    ),
];

/// Compares step by step, and knows what each client has queued.
#[derive(Default)]
pub(super) struct Rules {
    queues: Vec<Option<Vec<Vec<Vec<u8>>>>>,
}

impl Rules {
    /// Whether both replies to a step are the same.
    pub(super) fn same(&mut self, step: &Step, redis: &Outcome, node: &Outcome) -> bool {
        let words = step.words();
        match (redis, node) {
            (Outcome::Reply(right), Outcome::Reply(found)) => {
                if let What::Walk(options) = &step.what {
                    let words = [&[b"scan".to_vec(), b"0".to_vec()], options.as_slice()].concat();
                    self.follow(step.client, &words, right);
                    return same_reply(Rule::Exact, &words, right, found);
                }
                let same = self.same_command(step.client, words, right, found);
                self.follow(step.client, words, right);
                same
            }
            (Outcome::End(right), Outcome::End(found)) => {
                *self.queue(step.client) = None;
                right.len() == found.len()
                    && right
                        .iter()
                        .zip(found)
                        .all(|(right, found)| same_reply(Rule::Exact, words, right, found))
            }
            _ => false,
        }
    }

    fn queue(&mut self, client: usize) -> &mut Option<Vec<Vec<Vec<u8>>>> {
        if self.queues.len() <= client {
            self.queues.resize(client + 1, None);
        }
        &mut self.queues[client]
    }

    fn same_command(&mut self, client: usize, words: &[Vec<u8>], right: &Reply, found: &Reply) -> bool {
        let name = words.first().map_or(&[][..], Vec::as_slice);
        if right.head == b"+QUEUED" || found.head == b"+QUEUED" {
            return right == found;
        }
        let queue = self.queue(client).clone();
        match queue {
            Some(queue) if is(name, "exec") && right.members.len() == queue.len() => {
                let same = |(words, (right, found)): (&Vec<Vec<u8>>, (&Reply, &Reply))| {
                    let rule = match rule(words) {
                        Rule::ClientLines => Rule::ClientLinesInExec,
                        rule => rule,
                    };
                    same_reply(rule, words, right, found)
                };
                right.head == found.head
                    && queue.iter().zip(right.members.iter().zip(&found.members)).all(same)
            }
            _ => same_reply(rule(words), words, right, found),
        }
    }

    fn follow(&mut self, client: usize, words: &[Vec<u8>], right: &Reply) {
        let name = words.first().map_or(&[][..], Vec::as_slice);
        let queue = self.queue(client);
        if right.head == b"+QUEUED" {
            queue.get_or_insert_default().push(words.to_vec());
        } else if is(name, "multi") && right.head == b"+OK" {
            *queue = Some(Vec::new());
        } else if ["exec", "discard", "reset"].iter().any(|end| is(name, end)) {
            *queue = None;
        }
    }
}

fn same_reply(rule: Rule, words: &[Vec<u8>], right: &Reply, found: &Reply) -> bool {
    if right == found {
        return true;
    }
    if right.kind() != found.kind() {
        return false;
    }
    if right.kind() == b'-' {
        return same_error(words, &right.text(), &found.text());
    }
    let kinds = |reply: &Reply| reply.members.iter().map(Reply::kind).collect::<Vec<_>>();
    match rule {
        Rule::Exact => false,
        Rule::Unordered => {
            let sorted = |reply: &Reply| {
                let mut members = reply.members.clone();
                members.sort();
                members
            };
            sorted(right) == sorted(found)
        }
        Rule::Type => (right.head.get(1..3) == Some(b"-1")) == (found.head.get(1..3) == Some(b"-1")),
        Rule::Members => kinds(right) == kinds(found),
        Rule::ClientLines => client_lines(&right.text(), &[]) == client_lines(&found.text(), &[]),
        Rule::ClientLinesInExec => {
            let but = ["flags", "multi"];
            client_lines(&right.text(), &but) == client_lines(&found.text(), &but)
        }
        Rule::Commands => {
            let facts = |reply: &Reply| -> Vec<Vec<Reply>> {
                let facts = |command: &Reply| {
                    [0, 1, 3, 4, 5].iter().filter_map(|at| command.members.get(*at).cloned()).collect()
                };
                reply.members.iter().map(facts).collect()
            };
            right.head == found.head && facts(right) == facts(found)
        }
        Rule::Greeting => {
            right.head == found.head
                && kinds(right) == kinds(found)
                && (0..right.members.len())
                    .filter(|at| ![3, 7, 11].contains(at) && *at < 13)
                    .all(|at| right.members[at] == found.members[at])
        }
    }
}

fn same_error(words: &[Vec<u8>], right: &str, found: &str) -> bool {
    let name = words.first().map_or(&[][..], Vec::as_slice);
    let listed = TEXTS.iter().any(|(command, redis, door, _)| {
        is(name, command) && right.starts_with(redis) && found.starts_with(door)
    });
    // Where a text quotes a word, Redis ends the quote at a zero and sends what is no UTF-8 as it is; the door does neither,
    // and quotes no more than the first 128 bytes.
    let odd = |word: &Vec<u8>| word.contains(&0) || word.len() > 128 || std::str::from_utf8(word).is_err();
    let start = |text: &str| text.split('\'').next().map(str::to_owned);
    listed || words.iter().any(odd) && start(right) == start(found)
}

fn client_lines(text: &str, but: &[&str]) -> Vec<Vec<(String, String)>> {
    let fields = |line: &str| {
        let pairs = line.split(' ').filter_map(|pair| pair.split_once('='));
        pairs
            .filter(|(name, _)| FIELDS.contains(name) && !but.contains(name))
            // Redis 7.0 keeps NO-EVICT over RESET, later ones and the door do not.
            .map(|(name, value)| match name {
                "flags" => (name.to_owned(), value.replace('e', "")),
                _ => (name.to_owned(), value.to_owned()),
            })
            .collect()
    };
    text.lines().map(fields).collect()
}

/// An outcome for people.
pub(super) fn show(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Reply(reply) => reply.to_string(),
        Outcome::End(said) => {
            let said: Vec<String> = said.iter().map(Reply::to_string).collect();
            format!("{} (connection closed)", said.join(" "))
        }
    }
}

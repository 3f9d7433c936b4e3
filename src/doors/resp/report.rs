//! Commands that describe the server: COMMAND, CONFIG, MEMORY, TIME, and HELP of all of them.

use super::docs;
use super::glob::Pattern;
use super::refusal::{Fail, SYNTAX};
use super::subcommands::{self, Sub};
use super::table::{Cmd, Spec, TABLE, flag};
use super::turn::Turn;
use crate::base::limits::{CLIENTS_MAX, ITEM_VALUE_MAX, PATTERN_MAX};
use crate::doors::Backend;
use crate::format::resp::{self, Args};

/// What CONFIG GET answers: what client libraries and benchmarks ask for, with what is true here.
fn settings() -> [(&'static str, String); 13] {
    [
        ("appendfsync", "always".to_owned()),
        ("appendonly", "yes".to_owned()),
        ("databases", "1".to_owned()),
        ("maxclients", CLIENTS_MAX.to_string()),
        ("maxmemory", "0".to_owned()),
        ("maxmemory-policy", "noeviction".to_owned()),
        ("notify-keyspace-events", String::new()),
        ("proto-max-bulk-len", ITEM_VALUE_MAX.to_string()),
        ("replica-read-only", "yes".to_owned()),
        ("save", String::new()),
        ("slave-read-only", "yes".to_owned()),
        ("tcp-keepalive", "0".to_owned()),
        ("timeout", "0".to_owned()),
    ]
}

/// Which commands COMMAND LIST names.
enum ListFilter<'a> {
    All,
    /// Of a module: there is none.
    Module,
    Category(&'a [u8]),
    Pattern(Pattern),
}

impl ListFilter<'_> {
    fn read(args: Args<'_>) -> Result<ListFilter<'_>, Fail> {
        let is = |at: usize, name: &str| args.at(at).eq_ignore_ascii_case(name.as_bytes());
        let word = args.at(4);
        match args.len() {
            2 => Ok(ListFilter::All),
            5 if is(2, "filterby") && is(3, "module") => Ok(ListFilter::Module),
            5 if is(2, "filterby") && is(3, "aclcat") => Ok(ListFilter::Category(word)),
            5 if is(2, "filterby") && is(3, "pattern") => {
                Ok(ListFilter::Pattern(Pattern::parse(&word.to_ascii_lowercase())))
            }
            _ => Err(SYNTAX.into()),
        }
    }

    fn fits(&self, spec: &Spec, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Module => false,
            Self::Category(word) => {
                let word = String::from_utf8_lossy(word).to_ascii_lowercase();
                spec.categories().iter().any(|category| category.strip_prefix('@') == Some(word.as_str()))
            }
            Self::Pattern(pattern) => pattern.matches(name.as_bytes()),
        }
    }
}

fn check_patterns<'a>(mut patterns: impl Iterator<Item = &'a [u8]>) -> Result<(), Fail> {
    match patterns.any(|pattern| pattern.len() > PATTERN_MAX) {
        true => Err(format!("ERR a pattern has at most {PATTERN_MAX} bytes").into()),
        false => Ok(()),
    }
}

impl<B: Backend> Turn<'_, B> {
    pub(super) fn dispatch_report(&mut self, spec: &'static Spec, args: Args<'_>) -> Result<(), Fail> {
        match spec.cmd {
            Cmd::Info => self.info(args),
            Cmd::Role => self.role(),
            Cmd::Command => self.describe_commands(spec, args),
            Cmd::Config => self.config(spec, args),
            Cmd::Memory => self.memory(spec, args),
            _ => self.time(),
        }
    }

    fn time(&mut self) -> Result<(), Fail> {
        let (seconds, micros) = (self.now.wall_ms / 1000, self.now.wall_ms % 1000 * 1000);
        resp::array(&mut self.client.out.bytes, 2);
        self.bulk(seconds.to_string().as_bytes())?;
        self.bulk(micros.to_string().as_bytes())
    }

    /// HELP of a command with subcommands.
    pub(super) fn help(&mut self, spec: &Spec) -> Result<(), Fail> {
        let lines = subcommands::help(spec);
        resp::array(&mut self.client.out.bytes, lines.len());
        lines.iter().for_each(|line| resp::simple(&mut self.client.out.bytes, line));
        Ok(())
    }

    /// Appends text for people.
    pub(super) fn verbatim(&mut self, text: &str) -> Result<(), Fail> {
        self.check_reply(text.len())?;
        resp::verbatim(&mut self.client.out.bytes, self.client.version, *b"txt", text);
        Ok(())
    }

    fn describe_commands(&mut self, spec: &'static Spec, args: Args<'_>) -> Result<(), Fail> {
        let count = i64::try_from(TABLE.len()).unwrap_or(i64::MAX);
        match (subcommands::find(spec, args.at(1)).map_or("", Sub::word), args.len()) {
            ("count", _) => return self.integer(count),
            ("docs", _) => self.command_docs(args),
            ("list", _) => return self.command_list(args),
            ("getkeys", _) => return self.keys_of(args, false),
            ("getkeysandflags", _) => return self.keys_of(args, true),
            ("help", _) => return self.help(spec),
            ("info", 3..) => {
                resp::array(&mut self.client.out.bytes, args.len() - 2);
                for name in args.tail(2) {
                    match self.shared.lookup.find(name) {
                        Some(spec) => self.describe(spec),
                        None => resp::null(&mut self.client.out.bytes, self.client.version),
                    }
                }
            }
            _ => {
                resp::array(&mut self.client.out.bytes, TABLE.len());
                TABLE.iter().for_each(|spec| self.describe(spec));
            }
        }
        Ok(())
    }

    fn command_list(&mut self, args: Args<'_>) -> Result<(), Fail> {
        check_patterns(args.tail(2))?;
        let filter = ListFilter::read(args)?;
        let mut names: Vec<&str> = Vec::new();
        for spec in TABLE {
            names.extend(filter.fits(spec, spec.name).then_some(spec.name));
            names.extend(subcommands::of(spec).map(|sub| sub.name).filter(|name| filter.fits(spec, name)));
        }
        resp::array(&mut self.client.out.bytes, names.len());
        names.iter().try_for_each(|name| self.bulk(name.as_bytes()))
    }

    fn command_docs(&mut self, args: Args<'_>) {
        let asked: Vec<&Spec> = match args.len() {
            2 => TABLE.iter().collect(),
            _ => args.tail(2).filter_map(|name| self.shared.lookup.find(name)).collect(),
        };
        let since = self.shared.config.version.clone();
        let version = self.client.version;
        let out = &mut self.client.out.bytes;
        let facts = |out: &mut Vec<u8>, facts: &[(&str, &str)]| {
            for (name, text) in facts {
                resp::bulk(out, name.as_bytes());
                resp::bulk(out, text.as_bytes());
            }
        };
        resp::map(out, version, asked.len());
        for spec in asked {
            let (group, summary) = docs::of(spec);
            let subs: Vec<&Sub> = subcommands::of(spec).collect();
            resp::bulk(out, spec.name.as_bytes());
            resp::map(out, version, 3 + usize::from(!subs.is_empty()));
            facts(out, &[("summary", summary), ("since", &since), ("group", group)]);
            if subs.is_empty() {
                continue;
            }
            resp::bulk(out, b"subcommands");
            resp::map(out, version, subs.len());
            for sub in subs {
                resp::bulk(out, sub.name.as_bytes());
                resp::map(out, version, 3);
                facts(out, &[("summary", subcommands::summary(sub)), ("since", &since), ("group", group)]);
            }
        }
    }

    /// One command in the shape of Redis 7: ten fields; tips and key specifications are always empty.
    fn describe(&mut self, spec: &Spec) {
        self.describe_as(spec, spec.name, spec.arity);
        let subs: Vec<&Sub> = subcommands::of(spec).collect();
        resp::array(&mut self.client.out.bytes, subs.len());
        for sub in subs {
            self.describe_as(spec, sub.name, sub.arity);
            resp::array(&mut self.client.out.bytes, 0);
        }
    }

    fn describe_as(&mut self, spec: &Spec, name: &str, arity: i8) {
        let version = self.client.version;
        let out = &mut self.client.out.bytes;
        let words = |out: &mut Vec<u8>, words: &[&str]| {
            resp::set(out, version, words.len());
            words.iter().for_each(|word| resp::simple(out, word));
        };
        resp::array(out, 10);
        resp::bulk(out, name.as_bytes());
        resp::integer(out, i64::from(arity));
        words(out, &spec.flag_names());
        spec.keys.iter().for_each(|place| resp::integer(out, i64::from(*place)));
        words(out, &spec.categories());
        resp::array(out, 0);
        resp::array(out, 0);
    }

    fn keys_of(&mut self, args: Args<'_>, with_flags: bool) -> Result<(), Fail> {
        let spec = self.shared.lookup.find(args.at(2)).ok_or(Fail::from("ERR Invalid command specified"))?;
        let count = args.len() - 2;
        let mut takes = spec.takes(count);
        let mut places: Vec<usize> = spec.key_places(count).collect();
        if spec.has(flag::CONTAINER) && count > 1 {
            let sub =
                subcommands::find(spec, args.at(3)).ok_or(Fail::from("ERR Invalid command specified"))?;
            takes = sub.takes(count);
            places = sub.key_place().into_iter().collect();
        }
        if places.is_empty() && spec.keys[0] == 0 {
            return Err("ERR The command has no key arguments".into());
        }
        if !takes {
            return Err("ERR Invalid number of arguments specified for command".into());
        }
        let get = args.tail(5).any(|word| word.eq_ignore_ascii_case(b"get"));
        let uses = docs::key_use(spec, get);
        resp::array(&mut self.client.out.bytes, places.len());
        for place in places {
            if with_flags {
                resp::array(&mut self.client.out.bytes, 2);
            }
            self.bulk(args.at(place + 2))?;
            if with_flags {
                resp::set(&mut self.client.out.bytes, self.client.version, uses.len());
                uses.iter().for_each(|word| resp::simple(&mut self.client.out.bytes, word));
            }
        }
        Ok(())
    }

    /// MEMORY USAGE tells what is stored: id and value.
    fn memory(&mut self, spec: &Spec, args: Args<'_>) -> Result<(), Fail> {
        if subcommands::find(spec, args.at(1)).is_some_and(|sub| sub.word() == "help") {
            return self.help(spec);
        }
        // An item is not measured by samples of its parts, but tools ask for so many.
        for at in (3..args.len()).step_by(2) {
            let samples = args.at(at).eq_ignore_ascii_case(b"samples") && at + 1 < args.len();
            if !samples || self.parse_integer(args.at(at + 1))? < 0 {
                return Err(SYNTAX.into());
            }
        }
        let (file, id) = self.key(args.at(2))?;
        match self.read((file, id))? {
            Some(value) => self.integer(i64::try_from(id.len() + value.len()).unwrap_or(i64::MAX)),
            None => self.bulk_or_null(None),
        }
    }

    fn config(&mut self, spec: &Spec, args: Args<'_>) -> Result<(), Fail> {
        match subcommands::find(spec, args.at(1)).map_or("", Sub::word) {
            "get" => self.config_get(args),
            "resetstat" => {
                self.shared.stats = super::Stats::default();
                self.shared.rate = super::info::Rate::default();
                self.ok()
            }
            "help" => self.help(spec),
            _ => Err(
                "ERR the configuration cannot be changed here: edit the node's config file and restart it"
                    .into(),
            ),
        }
    }

    /// As in Redis, a name without special characters is answered in the case in which it was asked for.
    fn config_get(&mut self, args: Args<'_>) -> Result<(), Fail> {
        check_patterns(args.tail(2))?;
        let settings = settings();
        let mut found: Vec<(Vec<u8>, &str)> = Vec::new();
        for asked in args.tail(2) {
            let lower = asked.to_ascii_lowercase();
            let pattern = Pattern::parse(&lower);
            let literal = !asked.iter().any(|byte| matches!(byte, b'*' | b'?' | b'['));
            for (name, value) in &settings {
                let fits = if literal { lower == name.as_bytes() } else { pattern.matches(name.as_bytes()) };
                if fits && !found.iter().any(|(known, _)| known.eq_ignore_ascii_case(name.as_bytes())) {
                    let name = if literal { asked.to_vec() } else { name.as_bytes().to_vec() };
                    found.push((name, value));
                }
            }
        }
        resp::map(&mut self.client.out.bytes, self.client.version, found.len());
        for (name, value) in found {
            self.bulk(&name)?;
            self.bulk(value.as_bytes())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_in_order_and_named_once() {
        assert!(settings().windows(2).all(|pair| pair[0].0 < pair[1].0));
    }
}

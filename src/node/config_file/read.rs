//! Config text to checked values. Every error is collected; nothing here panics on any text.

use super::errors::ConfigError;
use super::keys::{Fallback, KEYS, Key, Kind};
use super::notify;
use super::size::{parse_size, size_text};
use crate::base::limits::{CONFIG_FILE_MAX, NAME_MAX};
use crate::format::PairId;
use crate::format::licence::key_bytes;
use crate::format::socket::is_socket_place;
use crate::node::config::Config;
use crate::node::notify::target::Target;
use crate::node::peer_address::PeerAddress;
use crate::node::whole;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The one key that is a list of tables; its own keys stand in the table of [`notify`].
const NOTIFY: &str = "notify";
/// How the first line of a config file begins.
pub(super) const MARK: &str = "# hot-backup config";
/// Addresses of one door at most.
const LISTEN_MAX: usize = 16;
/// Errors reported at most.
const ERRORS_MAX: usize = 100;

/// Where a door is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DoorAddress {
    /// A TCP address.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl DoorAddress {
    /// The address, if it is one of TCP.
    #[must_use]
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// Whether only programs on this machine can reach it.
    #[must_use]
    pub fn is_private(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }
}

impl std::fmt::Display for DoorAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// A value reduced to what keys can hold.
#[derive(Clone, Debug)]
enum Raw {
    Text(String),
    Number(u64),
    Negative,
    List(Vec<Raw>),
    Other(&'static str),
}

/// A parsed file. A bad value records an error and is left out; the caller looks at [`Settings::finish`] before it uses
/// what was [filled](Settings::fill).
#[derive(Debug)]
pub struct Settings {
    found: BTreeMap<&'static str, (usize, Raw)>,
    bad: BTreeSet<&'static str>,
    errors: Vec<ConfigError>,
    broken_syntax: bool,
    warning: Option<String>,
    notify: Vec<Target>,
}

impl Settings {
    /// Reads a text; syntax errors and unknown keys are recorded.
    #[must_use]
    pub fn read(text: &str) -> Self {
        let mut settings = Self {
            found: BTreeMap::new(),
            bad: BTreeSet::new(),
            errors: Vec::new(),
            broken_syntax: false,
            warning: None,
            notify: Vec::new(),
        };
        if text.len() > CONFIG_FILE_MAX {
            settings.broken_syntax = true;
            settings.record(None, format!("the file is larger than {}", size_text(CONFIG_FILE_MAX as u64)));
            return settings;
        }
        match whole::check(text, MARK) {
            Ok(warning) => settings.warning = warning,
            Err(what) => {
                // What is missing is known by its end; the keys that went with it are not told one by one.
                settings.broken_syntax = true;
                settings.record(None, what);
            }
        }
        let (table, syntax) = DeTable::parse_recoverable(text);
        let ends = line_ends(text);
        let mut broken_lines = BTreeSet::new();
        for error in syntax.iter().take(ERRORS_MAX) {
            let line = error.span().map(|span| line_at(&ends, span.start));
            if line.is_some_and(|line| broken_lines.contains(&line)) {
                continue; // What follows an error on its line is mostly an echo of it.
            }
            broken_lines.extend(line);
            settings.record(line, error.message().replace('\n', ", "));
        }
        settings.broken_syntax |= !syntax.is_empty();
        for (name, value) in table.get_ref() {
            let line = line_at(&ends, name.span().start);
            if !broken_lines.contains(&line) {
                if name.get_ref() == NOTIFY {
                    settings.take_notify(&ends, value);
                } else {
                    settings.take(line, name.get_ref(), value.get_ref());
                }
            }
        }
        settings
    }

    fn take(&mut self, line: usize, name: &str, value: &DeValue<'_>) {
        match Key::named(name) {
            Some(key) => {
                self.found.insert(key.name, (line, raw(value)));
            }
            // What is told no more need not be looked for.
            None if self.errors.len() >= ERRORS_MAX => {}
            None => {
                self.record(Some(line), unknown_key(name));
            }
        }
    }

    fn take_notify(&mut self, ends: &[usize], value: &Spanned<DeValue<'_>>) {
        let mut wrong = Vec::new();
        self.notify = notify::read_list(value.span().start, value.get_ref(), &mut wrong);
        for (at, what) in wrong {
            self.record(Some(line_at(ends, at)), what);
        }
    }

    /// Who is told of incidents.
    #[must_use]
    pub fn notify(&self) -> &[Target] {
        &self.notify
    }

    /// Records an error.
    pub fn record(&mut self, line: Option<usize>, what: impl Into<String>) {
        if self.errors.len() < ERRORS_MAX {
            self.errors.push(ConfigError { line, what: what.into() });
        }
    }

    /// The line where `name` is set.
    #[must_use]
    pub fn line_of(&self, name: &str) -> Option<usize> {
        self.found.get(name).map(|(line, _)| *line)
    }

    /// Whether all of `names` have good values, so that they can be compared.
    #[must_use]
    pub fn are_good(&self, names: &[&str]) -> bool {
        names.iter().all(|name| !self.bad.contains(name))
    }

    /// All errors, in the order of lines.
    #[must_use]
    pub fn finish(mut self) -> Vec<ConfigError> {
        self.errors.sort_by_key(|error| error.line.unwrap_or(usize::MAX));
        self.errors
    }

    /// What to warn people of.
    #[must_use]
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    /// Whether nothing was recorded so far.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.errors.is_empty()
    }

    /// Puts every value of the file into `config`, and the defaults of the keys that are not given. What is wrong is
    /// recorded, and changes nothing.
    pub fn fill(&mut self, config: &mut Config) {
        for key in KEYS {
            self.fill_key(key, config);
        }
        config.notify.clone_from(&self.notify);
    }

    fn fill_key(&mut self, key: &'static Key, config: &mut Config) {
        let name = key.name;
        if let Some((line, raw)) = self.found.get(name) {
            if put(key.kind, raw, config).is_none() {
                self.bad.insert(name);
                let what = format!("`{name}` is {}: allowed are {}", shown(raw), key.allowed());
                let line = *line;
                self.record(Some(line), what);
            }
            return;
        }
        match key.fallback {
            Fallback::Off => {}
            Fallback::Literal(literal) => {
                let fits = raw_of_literal(literal).and_then(|raw| put(key.kind, &raw, config));
                debug_assert!(fits.is_some(), "the default of `{name}` is one that it may hold");
            }
            Fallback::Required => {
                self.bad.insert(name);
                // After a syntax error the key may well be there, on a line that could not be read.
                if !self.broken_syntax {
                    self.record(None, format!("`{name}` is missing: allowed are {}", key.allowed()));
                }
            }
        }
    }
}

/// Puts a value where it belongs; nothing if the key may not hold it.
fn put(kind: Kind, raw: &Raw, config: &mut Config) -> Option<()> {
    match (kind, raw) {
        (Kind::Word(words, put), Raw::Text(text)) => {
            put(config, words.iter().copied().find(|word| word == text)?);
        }
        (Kind::Number { least, most, put }, Raw::Number(number)) if (least..=most).contains(number) => {
            put(config, *number);
        }
        (Kind::Size { least, most, multiple, put }, raw) => {
            let bytes = match raw {
                Raw::Number(number) => *number,
                Raw::Text(text) => parse_size(text)?,
                _ => return None,
            };
            if !(least..=most).contains(&bytes) || !bytes.is_multiple_of(multiple) {
                return None;
            }
            put(config, bytes);
        }
        (Kind::Name(put), Raw::Text(text)) if is_node_name(text) => put(config, text.clone()),
        (Kind::File(put), Raw::Text(text)) if is_file_name(text) => put(config, text.clone()),
        (Kind::Path(put), Raw::Text(text)) if is_path(text) => put(config, text.into()),
        (Kind::PublicKey(put), Raw::Text(text)) => put(config, key_bytes(text)?),
        (Kind::Spool(put), Raw::Text(text)) if is_spool(text) => put(config, text.clone()),
        (Kind::Reels(put), Raw::Text(text)) if text.is_empty() || is_reels(text) => put(config, text.clone()),
        (Kind::Command(put), Raw::Text(text)) if text.len() <= 4096 => put(config, text.clone()),
        (Kind::Pair(put), Raw::Text(text)) => put(config, PairId(parse_hex(text)?)),
        (Kind::Address(put), Raw::Text(text)) => put(config, text.parse().ok()?),
        (Kind::Peer(put), Raw::Text(text)) => put(config, text.parse().ok()?),
        (Kind::Listen(put), Raw::Text(text)) => put(config, vec![resp_address(text)?]),
        (Kind::Listen(put), Raw::List(list)) if (1..=LISTEN_MAX).contains(&list.len()) => {
            let place = |raw: &Raw| match raw {
                Raw::Text(text) => resp_address(text),
                _ => None,
            };
            put(config, list.iter().map(place).collect::<Option<_>>()?);
        }
        _ => return None,
    }
    Some(())
}

/// `text` with the value of `name` replaced by a TOML literal; `None` if the key is not set there.
#[must_use]
pub fn replace_value(text: &str, name: &str, literal: &str) -> Option<String> {
    let table = DeTable::parse(text).ok()?;
    let span =
        table.get_ref().iter().find(|(key, _)| key.get_ref() == name).map(|(_, value)| value.span())?;
    let (before, after) = (text.get(..span.start)?, text.get(span.end..)?);
    Some(format!("{before}{literal}{after}"))
}

/// 16 bytes from 32 hexadecimal digits.
fn parse_hex(text: &str) -> Option<[u8; 16]> {
    (text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit()))
        .then(|| u128::from_str_radix(text, 16).ok())
        .flatten()
        .map(u128::to_be_bytes)
}

/// Whether a text can name a node: it is printed in identity strings, so it is kept plain.
#[must_use]
pub(in crate::node) fn is_node_name(text: &str) -> bool {
    (1..=NAME_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b))
}

fn is_file_name(text: &str) -> bool {
    let good = |part: &str| (1..=NAME_MAX).contains(&part.len()) && !part.chars().any(char::is_control);
    text.split_once(',').is_some_and(|(account, file)| good(account) && good(file) && !file.contains(','))
}

/// Whether a spool can be named like this.
pub(super) fn is_spool(text: &str) -> bool {
    let dir = text.strip_prefix("file:");
    let to = text.strip_prefix("tcp:").filter(|_| is_socket_place(text));
    let far = to.is_some_and(|to| to.parse::<PeerAddress>().is_ok());
    text.is_empty() || far || is_reels(text) || dir.is_some_and(|dir| dir.starts_with('/') && is_path(dir))
}

/// Whether it is a place of reels with a whole path.
fn is_reels(text: &str) -> bool {
    let place = text.strip_prefix("tape:").filter(|place| place.starts_with('/') && is_path(place));
    place.is_some_and(|place| crate::node::tape::Place::parse(place).is_ok())
}

fn is_path(text: &str) -> bool {
    (1..=4096).contains(&text.len()) && !text.contains('\0')
}

fn resp_address(text: &str) -> Option<DoorAddress> {
    match text.parse() {
        Ok(address) => Some(DoorAddress::Tcp(address)),
        Err(_) => (is_path(text) && text.contains('/')).then(|| DoorAddress::Unix(text.into())),
    }
}

fn raw(value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::String(text) => Raw::Text(text.to_string()),
        DeValue::Integer(number) if number.as_str().starts_with('-') => Raw::Negative,
        DeValue::Integer(number) => {
            u64::from_str_radix(number.as_str().trim_start_matches('+'), number.radix())
                .map_or(Raw::Number(u64::MAX), Raw::Number)
        }
        DeValue::Array(list) => {
            Raw::List(list.iter().take(LISTEN_MAX + 1).map(|item| flat(item.get_ref())).collect())
        }
        DeValue::Float(_) => Raw::Other("a number with a fraction"),
        DeValue::Boolean(_) => Raw::Other("true or false"),
        DeValue::Datetime(_) => Raw::Other("a date"),
        DeValue::Table(_) => Raw::Other("a table"),
    }
}

/// An element of a list: lists in lists are not followed, so that depth costs nothing.
fn flat(value: &DeValue<'_>) -> Raw {
    match value {
        DeValue::Array(_) => Raw::Other("a list"),
        other => raw(other),
    }
}

/// The literals of the table of keys are plain texts and numbers: they are asked for at each reading.
fn raw_of_literal(literal: &str) -> Option<Raw> {
    match literal.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(text) => Some(Raw::Text(text.to_owned())),
        None => literal.parse().ok().map(Raw::Number),
    }
}

fn shown(raw: &Raw) -> String {
    match raw {
        Raw::Text(text) if text.chars().count() <= 60 => format!("\"{}\"", text.escape_debug()),
        Raw::Text(text) => format!("a text of {} bytes", text.len()),
        Raw::Number(number) => number.to_string(),
        Raw::Negative => "negative".to_owned(),
        Raw::List(list) => {
            match list.iter().find(|item| !matches!(item, Raw::Text(text) if resp_address(text).is_some())) {
                Some(bad) if list.len() <= LISTEN_MAX => format!("a list with {}", shown_flat(bad)),
                _ => "a list".to_owned(),
            }
        }
        Raw::Other(kind) => (*kind).to_owned(),
    }
}

fn shown_flat(raw: &Raw) -> String {
    match raw {
        Raw::List(_) => "a list".to_owned(),
        other => shown(other),
    }
}

/// Where the lines of a text end. A text may have as many keys as lines, and each is asked for its line.
fn line_ends(text: &str) -> Vec<usize> {
    text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at).collect()
}

/// The line, from 1, of what stands at `offset`.
fn line_at(ends: &[usize], offset: usize) -> usize {
    1 + ends.partition_point(|&end| end < offset)
}

/// That there is no key of that name, and which one may be meant.
#[must_use]
pub fn unknown_key(name: &str) -> String {
    let hint = match nearest(name) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "remove it".to_owned(),
    };
    format!("unknown key `{}`: {hint}", name.escape_debug())
}

fn nearest(name: &str) -> Option<&'static str> {
    let (distance, key) = KEYS.iter().map(|key| (distance(name, key.name), key.name)).min()?;
    (distance <= 3 && distance * 2 <= key.len()).then_some(key)
}

/// Edits between two names; long ones count as far away.
fn distance(a: &str, b: &str) -> usize {
    if a.len() > 2 * NAME_MAX {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        if let Some(first) = row.first_mut() {
            *first = left;
        }
        for (y, cell) in b.bytes().zip(row.iter_mut().skip(1)) {
            let above = *cell;
            left = (diagonal + usize::from(x != y)).min(above + 1).min(left + 1);
            diagonal = above;
            *cell = left;
        }
    }
    row.last().copied().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_of_the_table_are_read_as_the_language_of_the_file_reads_them() {
        for key in KEYS {
            let Fallback::Literal(literal) = key.fallback else { continue };
            let parsed = DeValue::parse(literal).expect("a literal");
            let own = raw_of_literal(literal).expect("a plain one");
            assert_eq!(format!("{own:?}"), format!("{:?}", raw(parsed.get_ref())), "{}", key.name);
        }
    }

    #[test]
    fn an_offset_is_on_the_line_of_the_end_that_follows_it() {
        let ends = line_ends("a\n\nbc\n");
        let lines: Vec<_> = (0..=6).map(|offset| line_at(&ends, offset)).collect();
        assert_eq!(lines, [1, 1, 2, 3, 3, 3, 4]);
    }
}

//! Config text to checked values. Every error is collected; nothing here panics on any text.

use super::errors::ConfigError;
use super::keys::{Fallback, KEYS, Key, Kind};
use super::size::{parse_size, size_text};
use crate::base::limits::NAME_MAX;
use crate::format::PairId;
use crate::node::peer_address::PeerAddress;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Longest config file that is read (bytes).
const TEXT_MAX: usize = 64 << 10;
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

/// A parsed file, asked key by key. A question about a bad value records an error and answers with something
/// harmless; the caller looks at [`Settings::finish`] before it uses any answer.
#[derive(Debug)]
pub struct Settings {
    found: BTreeMap<&'static str, (usize, Raw)>,
    bad: BTreeSet<&'static str>,
    errors: Vec<ConfigError>,
    broken_syntax: bool,
}

impl Settings {
    /// Reads a text; syntax errors and unknown keys are recorded.
    #[must_use]
    pub fn read(text: &str) -> Self {
        let mut settings =
            Self { found: BTreeMap::new(), bad: BTreeSet::new(), errors: Vec::new(), broken_syntax: false };
        if text.len() > TEXT_MAX {
            settings.broken_syntax = true;
            settings.record(None, format!("the file is larger than {}", size_text(TEXT_MAX as u64)));
            return settings;
        }
        let (table, syntax) = DeTable::parse_recoverable(text);
        let mut broken_lines = Vec::new();
        for error in syntax.iter().take(ERRORS_MAX) {
            let line = error.span().map(|span| line_at(text, span.start));
            if line.is_some_and(|line| broken_lines.contains(&line)) {
                continue; // What follows an error on its line is mostly an echo of it.
            }
            broken_lines.extend(line);
            settings.record(line, error.message().replace('\n', ", "));
        }
        settings.broken_syntax = !syntax.is_empty();
        for (name, value) in table.get_ref() {
            let line = line_at(text, name.span().start);
            if !broken_lines.contains(&line) {
                settings.take(line, name.get_ref(), value.get_ref());
            }
        }
        settings
    }

    fn take(&mut self, line: usize, name: &str, value: &DeValue<'_>) {
        match Key::named(name) {
            Some(key) => {
                self.found.insert(key.name, (line, raw(value)));
            }
            None => {
                let hint = match nearest(name) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "remove it".to_owned(),
                };
                self.record(Some(line), format!("unknown key `{}`: {hint}", name.escape_debug()));
            }
        }
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

    /// Whether all of `names` were asked for and had a good answer, so that they can be compared.
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

    /// Whether nothing was recorded so far.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.errors.is_empty()
    }

    /// The word given for a [`Kind::Word`] key.
    pub fn word(&mut self, name: &'static str) -> &'static str {
        self.ask(name, |key, raw| match (key.kind, raw) {
            (Kind::Word(words), Raw::Text(text)) => words.iter().copied().find(|word| word == text),
            _ => None,
        })
        .unwrap_or_default()
    }

    /// The number given for a [`Kind::Number`] or [`Kind::Size`] key.
    pub fn number(&mut self, name: &'static str) -> u64 {
        self.ask(name, |key, raw| {
            let (number, least, most, multiple) = match (key.kind, raw) {
                (Kind::Number { least, most }, Raw::Number(number)) => (*number, least, most, 1),
                (Kind::Size { least, most, multiple }, Raw::Number(number)) => {
                    (*number, least, most, multiple)
                }
                (Kind::Size { least, most, multiple }, Raw::Text(text)) => {
                    (parse_size(text)?, least, most, multiple)
                }
                _ => return None,
            };
            ((least..=most).contains(&number) && number.is_multiple_of(multiple)).then_some(number)
        })
        .unwrap_or_default()
    }

    /// The node name, path or `account,file` given for a key.
    pub fn text(&mut self, name: &'static str) -> Option<String> {
        self.ask(name, |key, raw| match (key.kind, raw) {
            (Kind::Name, Raw::Text(text)) => is_node_name(text).then(|| text.clone()),
            (Kind::File, Raw::Text(text)) => is_file_name(text).then(|| text.clone()),
            (Kind::Path, Raw::Text(text)) => is_path(text).then(|| text.clone()),
            _ => None,
        })
    }

    /// The pair's id.
    pub fn pair(&mut self, name: &'static str) -> PairId {
        self.ask(name, |_, raw| match raw {
            Raw::Text(text) => parse_hex(text).map(PairId),
            _ => None,
        })
        .unwrap_or_default()
    }

    /// The address given for a [`Kind::Address`] key.
    pub fn address(&mut self, name: &'static str) -> SocketAddr {
        self.ask(name, |_, raw| match raw {
            Raw::Text(text) => text.parse().ok(),
            _ => None,
        })
        .unwrap_or(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// The name or address given for a [`Kind::Peer`] key.
    pub fn peer(&mut self, name: &'static str) -> PeerAddress {
        self.ask(name, |_, raw| match raw {
            Raw::Text(text) => text.parse().ok(),
            _ => None,
        })
        .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)).into())
    }

    /// The addresses given for a [`Kind::Listen`] key.
    pub fn listen(&mut self, name: &'static str) -> Vec<DoorAddress> {
        self.ask(name, |_, raw| match raw {
            Raw::Text(text) => Some(vec![resp_address(text)?]),
            Raw::List(list) if (1..=LISTEN_MAX).contains(&list.len()) => list
                .iter()
                .map(|raw| match raw {
                    Raw::Text(text) => resp_address(text),
                    _ => None,
                })
                .collect(),
            _ => None,
        })
        .unwrap_or_default()
    }

    fn ask<T>(&mut self, name: &'static str, check: impl Fn(&Key, &Raw) -> Option<T>) -> Option<T> {
        let key = Key::named(name)?;
        if let Some((line, raw)) = self.found.get(name) {
            let answer = check(key, raw);
            if answer.is_none() {
                self.bad.insert(name);
                let what = format!("`{name}` is {}: allowed are {}", shown(raw), key.allowed());
                let line = *line;
                self.record(Some(line), what);
            }
            return answer;
        }
        match key.fallback {
            Fallback::Off => None,
            Fallback::Literal(literal) => check(key, &raw_of_literal(literal)?),
            Fallback::Required => {
                self.bad.insert(name);
                // After a syntax error the key may well be there, on a line that could not be read.
                if !self.broken_syntax {
                    self.record(None, format!("`{name}` is missing: allowed are {}", key.allowed()));
                }
                None
            }
        }
    }
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

fn raw_of_literal(literal: &str) -> Option<Raw> {
    DeValue::parse(literal).ok().map(|value: Spanned<DeValue<'_>>| raw(value.get_ref()))
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

fn line_at(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|&b| b == b'\n').count()
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

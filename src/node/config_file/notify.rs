//! The notify list of the config, `[[notify]]`: one table of its keys, from which reading and the reference for people are made.

use super::keys::Fallback;
use super::read::is_node_name;
use crate::base::limits::NOTIFY_MAX;
use crate::engine::Severity;
use crate::engine::notices::{Quiet, Wants};
use crate::node::notify::target::{Http, Mail, MailTls, Target, Way};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use toml::de::{DeTable, DeValue};

/// What a key of an entry may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A name: letters, digits, '.', '-' and '_'.
    Name,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A text without control characters.
    Text,
    /// A list of them, at least one.
    Texts,
    /// A path; relative ones start at the node's directory.
    Path,
    /// A whole number, both ends included.
    Number(u64, u64),
    /// `HH:MM-HH:MM`.
    Hours,
    /// `http://` or `https://`, without a user in it.
    Url,
    /// `host:port`.
    Server,
}

/// A key of an entry of the list.
#[derive(Clone, Copy, Debug)]
pub struct NotifyKey {
    /// As in the file.
    pub name: &'static str,
    /// The kinds that have it; all if there is none.
    pub of: &'static [&'static str],
    /// What it may hold.
    pub shape: Shape,
    /// What holds when it is not given.
    pub fallback: Fallback,
    /// What it decides.
    pub help: &'static str,
}

/// The kinds of entries.
pub const KINDS: &[&str] =
    &["mail", "terminals", "command", "webhook", "alertmanager", "syslog", "journald", "ping"];

const MAIL: &[&str] = &["mail"];
const HTTP: &[&str] = &["webhook", "alertmanager", "ping"];

const fn key(
    name: &'static str,
    of: &'static [&'static str],
    shape: Shape,
    fallback: Fallback,
    help: &'static str,
) -> NotifyKey {
    NotifyKey { name, of, shape, fallback, help }
}

/// All keys of an entry.
pub const NOTIFY_KEYS: &[NotifyKey] = &[
    key("kind", &[], Shape::Word(KINDS), Fallback::Required, "How this entry is told."),
    key("name", &[], Shape::Name, Fallback::Required, "Its name, for `notify test`, `status` and incidents."),
    key(
        "severity",
        &[],
        Shape::Word(&["notice", "warning", "critical"]),
        Fallback::Literal("\"warning\""),
        "What is less severe is not told. A ping stops while something lasts that is as severe as this.",
    ),
    key(
        "quiet",
        &[],
        Shape::Hours,
        Fallback::Off,
        "Hours of the machine's local time in which only critical ones are told; the others wait until they are over.",
    ),
    key("server", MAIL, Shape::Server, Fallback::Required, "The mail server."),
    key(
        "tls",
        MAIL,
        Shape::Word(&["starttls", "tls", "none"]),
        Fallback::Literal("\"starttls\""),
        "How the connection is secured: by STARTTLS, from its first byte, or not. Without it there is no login, but on loopback.",
    ),
    key("from", MAIL, Shape::Text, Fallback::Required, "The sender's address."),
    key("to", MAIL, Shape::Texts, Fallback::Required, "The receivers' addresses."),
    key("user", MAIL, Shape::Text, Fallback::Off, "The name to log in with."),
    key(
        "password_file",
        MAIL,
        Shape::Path,
        Fallback::Off,
        "Its first line is the password; nobody else may read it.",
    ),
    key(
        "ca_file",
        &["mail", "webhook", "alertmanager", "ping"],
        Shape::Path,
        Fallback::Off,
        "Certificates (PEM) that the server's is checked by, in place of the usual ones of the web.",
    ),
    key(
        "url",
        HTTP,
        Shape::Url,
        Fallback::Required,
        "Where it is sent. Of an Alertmanager, without `/api/v2/alerts`.",
    ),
    key(
        "token_file",
        HTTP,
        Shape::Path,
        Fallback::Off,
        "Its first line is sent as `Authorization: Bearer`; nobody else may read the file.",
    ),
    key(
        "seconds",
        &["ping", "command"],
        Shape::Number(1, 3600),
        Fallback::Literal("30"),
        "Of a ping, how often it is sent; of a command, how long it may take before it is ended.",
    ),
    key(
        "command",
        &["command"],
        Shape::Texts,
        Fallback::Required,
        "The program with its whole path, and its arguments. No shell is between; the message is on its stdin.",
    ),
    key(
        "users",
        &["terminals"],
        Shape::Texts,
        Fallback::Off,
        "Only terminals of these users. Else of all that are logged in.",
    ),
    key(
        "utmp",
        &["terminals"],
        Shape::Path,
        Fallback::Literal("\"/run/utmp\""),
        "Where the system lists who is logged in. Where there is no such file, all terminals below `/dev/pts` are taken.",
    ),
    key(
        "socket",
        &["syslog", "journald"],
        Shape::Path,
        Fallback::Off,
        "The socket of the service: `/dev/log` of syslog, `/run/systemd/journal/socket` of journald.",
    ),
];

impl NotifyKey {
    fn named(name: &str) -> Option<&'static Self> {
        NOTIFY_KEYS.iter().find(|key| key.name == name)
    }

    fn belongs_to(&self, kind: &str) -> bool {
        self.of.is_empty() || self.of.contains(&kind)
    }

    /// What it may hold, in words.
    #[must_use]
    pub fn allowed(&self) -> String {
        match self.shape {
            Shape::Name => "1 to 128 letters, digits, '.', '-' or '_'".to_owned(),
            Shape::Word(words) => {
                words.iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ")
            }
            Shape::Text => "a text".to_owned(),
            Shape::Texts => "a list of texts".to_owned(),
            Shape::Path => "a path".to_owned(),
            Shape::Number(least, most) => format!("{least} to {most}"),
            Shape::Hours => "\"HH:MM-HH:MM\"".to_owned(),
            Shape::Url => "\"https://..\" or \"http://..\"".to_owned(),
            Shape::Server => "\"host:port\"".to_owned(),
        }
    }
}

/// A table of the keys of an entry for the documentation (Markdown).
#[must_use]
pub fn notify_reference() -> String {
    let mut out = String::from("| key | of | default | allowed | what it decides |\n|---|---|---|---|---|\n");
    for key in NOTIFY_KEYS {
        let of = if key.of.is_empty() { "all".to_owned() } else { key.of.join(", ") };
        let default = match key.fallback {
            Fallback::Required => "none, it must be given",
            Fallback::Off => "off",
            Fallback::Literal(literal) => literal,
        };
        writeln!(out, "| `{}` | {of} | {default} | {} | {} |", key.name, key.allowed(), key.help)
            .expect("writing to a string");
    }
    out
}

/// A value that fits its key.
#[derive(Clone, Debug)]
enum Value {
    Text(String),
    Texts(Vec<String>),
    Number(u64),
}

/// What is wrong, and at which byte of the file.
pub(super) type Wrong = (usize, String);

/// Reads the value of `notify`, a list of tables; what is wrong is told by its place.
pub(super) fn read_list(at: usize, value: &DeValue<'_>, wrong: &mut Vec<Wrong>) -> Vec<Target> {
    let DeValue::Array(list) = value else {
        wrong.push((
            at,
            "`notify` is no list: write each entry below a line of its own, `[[notify]]`".to_owned(),
        ));
        return Vec::new();
    };
    if list.len() > NOTIFY_MAX {
        wrong.push((at, format!("`notify` has {} entries: at most {NOTIFY_MAX} are allowed", list.len())));
    }
    let mut targets: Vec<Target> = Vec::new();
    for entry in list.iter().take(NOTIFY_MAX) {
        let at = entry.span().start;
        let DeValue::Table(table) = entry.get_ref() else {
            wrong.push((at, "an entry of `notify` is no table: begin it with `[[notify]]`".to_owned()));
            continue;
        };
        let Some(target) = read_entry(at, table, wrong) else { continue };
        if targets.iter().any(|other| other.name == target.name) {
            wrong.push((at, format!("two entries of `notify` have the name \"{}\"", target.name)));
        }
        targets.push(target);
    }
    targets
}

fn read_entry(at: usize, table: &DeTable<'_>, wrong: &mut Vec<Wrong>) -> Option<Target> {
    let before = wrong.len();
    let kind = table.iter().find_map(|(name, value)| match value.get_ref() {
        DeValue::String(text) if name.get_ref() == "kind" => Some(text.to_string()),
        _ => None,
    });
    let kind = kind.unwrap_or_default();
    let known = KINDS.contains(&kind.as_str());
    let mut values = BTreeMap::new();
    for (name, value) in table {
        let (at, name) = (name.span().start, name.get_ref().as_ref());
        match NotifyKey::named(name) {
            None => wrong.push((at, format!("unknown key `{}` of a `notify` entry", name.escape_debug()))),
            Some(key) if known && !key.belongs_to(&kind) => {
                wrong.push((at, format!("`{name}` is no key of an entry of kind \"{kind}\"")));
            }
            Some(key) => match fitting(key.shape, value.get_ref()) {
                Some(value) => drop(values.insert(key.name, value)),
                None => {
                    wrong.push((at, format!("`{name}` of a `notify` entry: allowed are {}", key.allowed())))
                }
            },
        }
    }
    for key in NOTIFY_KEYS.iter().filter(|key| key.belongs_to(&kind) && (known || key.of.is_empty())) {
        if key.fallback == Fallback::Required && !table.iter().any(|(name, _)| name.get_ref() == key.name) {
            wrong.push((
                at,
                format!("`{}` of a `notify` entry is missing: allowed are {}", key.name, key.allowed()),
            ));
        }
    }
    if wrong.len() > before {
        return None;
    }
    let target = Entry(values).target(&kind)?;
    if let Err(what) = target.check() {
        wrong.push((at, format!("the `notify` entry \"{}\": {what}", target.name)));
    }
    Some(target)
}

fn is_plain(text: &str) -> bool {
    (1..=1024).contains(&text.len()) && !text.chars().any(char::is_control)
}

fn fitting(shape: Shape, value: &DeValue<'_>) -> Option<Value> {
    let text = |good: &dyn Fn(&str) -> bool| match value {
        DeValue::String(text) if good(text) => Some(Value::Text(text.to_string())),
        _ => None,
    };
    match shape {
        Shape::Name => text(&is_node_name),
        Shape::Word(words) => text(&|word| words.contains(&word)),
        Shape::Text => text(&is_plain),
        Shape::Path => text(&|path| (1..=4096).contains(&path.len()) && !path.contains('\0')),
        Shape::Hours => text(&|hours| Quiet::parse(hours).is_some()),
        Shape::Url => text(&is_url),
        Shape::Server => text(&|server| host_and_port(server).is_some()),
        Shape::Number(least, most) => match value {
            DeValue::Integer(number) => {
                let number = u64::from_str_radix(number.as_str(), number.radix()).ok()?;
                (least..=most).contains(&number).then_some(Value::Number(number))
            }
            _ => None,
        },
        Shape::Texts => {
            let DeValue::Array(list) = value else { return None };
            let one = |item: &toml::Spanned<DeValue<'_>>| match item.get_ref() {
                DeValue::String(text) if is_plain(text) => Some(text.to_string()),
                _ => None,
            };
            let texts: Vec<String> = list.iter().map(one).collect::<Option<_>>()?;
            (1..=64).contains(&texts.len()).then_some(Value::Texts(texts))
        }
    }
}

/// A user in the address would be a secret in the config, and in what is told of the entry.
fn is_url(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")) else {
        return false;
    };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    is_plain(text) && text.is_ascii() && !text.contains(' ') && !host.is_empty() && !host.contains('@')
}

fn host_and_port(text: &str) -> Option<(String, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let good = !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_graphic());
    good.then_some((host.to_owned(), port.parse().ok().filter(|port| *port > 0)?))
}

/// The values of an entry, all of which fit.
struct Entry(BTreeMap<&'static str, Value>);

impl Entry {
    fn text(&self, name: &str) -> Option<String> {
        match self.0.get(name) {
            Some(Value::Text(text)) => Some(text.clone()),
            Some(_) => None,
            None => match NotifyKey::named(name)?.fallback {
                Fallback::Literal(literal) => Some(literal.trim_matches('"').to_owned()),
                _ => None,
            },
        }
    }

    fn texts(&self, name: &str) -> Vec<String> {
        match self.0.get(name) {
            Some(Value::Texts(texts)) => texts.clone(),
            _ => Vec::new(),
        }
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        self.text(name).map(PathBuf::from)
    }

    fn number(&self, name: &str) -> u64 {
        match self.0.get(name) {
            Some(Value::Number(number)) => *number,
            _ => self.text(name).and_then(|text| text.parse().ok()).unwrap_or_default(),
        }
    }

    fn http(&self) -> Option<Http> {
        Some(Http {
            url: self.text("url")?,
            token_file: self.path("token_file"),
            ca_file: self.path("ca_file"),
        })
    }

    fn target(&self, kind: &str) -> Option<Target> {
        let way = match kind {
            "mail" => {
                let (host, port) = host_and_port(&self.text("server")?)?;
                let tls = match self.text("tls")?.as_str() {
                    "tls" => MailTls::Whole,
                    "none" => MailTls::None,
                    _ => MailTls::Start,
                };
                Way::Mail(Mail {
                    host,
                    port,
                    tls,
                    from: self.text("from")?,
                    to: self.texts("to"),
                    user: self.text("user"),
                    password_file: self.path("password_file"),
                    ca_file: self.path("ca_file"),
                })
            }
            "terminals" => Way::Terminals { users: self.texts("users"), utmp: self.path("utmp")? },
            "command" => Way::Command { argv: self.texts("command"), seconds: self.number("seconds") },
            "webhook" => Way::Webhook(self.http()?),
            "alertmanager" => Way::Alertmanager(self.http()?),
            "syslog" => Way::Syslog(self.path("socket").unwrap_or_else(|| "/dev/log".into())),
            "journald" => {
                Way::Journald(self.path("socket").unwrap_or_else(|| "/run/systemd/journal/socket".into()))
            }
            _ => Way::Ping { http: self.http()?, seconds: self.number("seconds") },
        };
        let quiet = self.text("quiet").and_then(|hours| Quiet::parse(&hours));
        let wants = Wants { floor: Severity::of(&self.text("severity")?)?, quiet };
        Some(Target { name: self.text("name")?, wants, way })
    }
}

/// Whether a host is this machine.
pub(in crate::node) fn is_here(host: &str) -> bool {
    let address = host.parse::<IpAddr>().ok().or_else(|| host.parse::<SocketAddr>().ok().map(|at| at.ip()));
    host == "localhost" || address.is_some_and(|address| address.to_canonical().is_loopback())
}

//! Who is told of incidents, as the config names them.

use crate::base::limits::PASSWORD_FILE_MAX;
use crate::engine::notices::Wants;
use crate::io::{Demand, read_trusted_text};
use crate::node::config::Secret;
use crate::node::config_file::is_here;
use std::path::{Path, PathBuf};

/// Longest secret (bytes).
const SECRET_MAX: usize = 4096;

/// An entry of the notify list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its name.
    pub name: String,
    /// What it wants to hear.
    pub wants: Wants,
    /// How it is told.
    pub way: Way,
}

/// How somebody is told. Paths are not yet resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// By mail.
    Mail(Mail),
    /// On the terminals of who is logged in.
    Terminals {
        /// Only of these users, if there are any.
        users: Vec<String>,
        /// Where the system lists them.
        utmp: PathBuf,
    },
    /// By a program.
    Command {
        /// It and its arguments.
        argv: Vec<String>,
        /// It is ended after this (seconds).
        seconds: u64,
    },
    /// By a POST of JSON.
    Webhook(Http),
    /// By the API of an Alertmanager.
    Alertmanager(Http),
    /// By the socket of syslog.
    Syslog(PathBuf),
    /// By the socket of journald.
    Journald(PathBuf),
    /// By a sign of life, as long as all is well.
    Ping {
        /// Where.
        http: Http,
        /// How often (seconds).
        seconds: u64,
    },
}

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// The address.
    pub url: String,
    /// Where the token is.
    pub token_file: Option<PathBuf>,
    /// Whose certificates are believed.
    pub ca_file: Option<PathBuf>,
}

/// How a connection to a mail server is secured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MailTls {
    /// By STARTTLS, which must succeed.
    Start,
    /// From its first byte.
    Whole,
    /// Not at all.
    None,
}

/// Where mail goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// The server.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is secured.
    pub tls: MailTls,
    /// The sender.
    pub from: String,
    /// The receivers.
    pub to: Vec<String>,
    /// Who logs in.
    pub user: Option<String>,
    /// Where the password is.
    pub password_file: Option<PathBuf>,
    /// Whose certificates are believed.
    pub ca_file: Option<PathBuf>,
}

impl Target {
    /// The word of its kind.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self.way {
            Way::Mail(_) => "mail",
            Way::Terminals { .. } => "terminals",
            Way::Command { .. } => "command",
            Way::Webhook(_) => "webhook",
            Way::Alertmanager(_) => "alertmanager",
            Way::Syslog(_) => "syslog",
            Way::Journald(_) => "journald",
            Way::Ping { .. } => "ping",
        }
    }

    /// Where it goes, without anything that is secret: of an address neither path nor query, which may be.
    #[must_use]
    pub fn to(&self) -> String {
        match &self.way {
            Way::Mail(mail) => format!("{} by {}:{}", mail.to.join(", "), mail.host, mail.port),
            Way::Terminals { users, .. } if users.is_empty() => "all who are logged in".to_owned(),
            Way::Terminals { users, .. } => users.join(", "),
            Way::Command { argv, .. } => argv.first().cloned().unwrap_or_default(),
            Way::Webhook(http) | Way::Alertmanager(http) | Way::Ping { http, .. } => http.shown(),
            Way::Syslog(path) | Way::Journald(path) => path.display().to_string(),
        }
    }

    /// What concerns several keys.
    pub(in crate::node) fn check(&self) -> Result<(), String> {
        match &self.way {
            Way::Mail(mail) if mail.user.is_some() != mail.password_file.is_some() => {
                Err("`user` and `password_file` go together".to_owned())
            }
            Way::Mail(mail) if mail.tls == MailTls::None && mail.user.is_some() && !is_here(&mail.host) => {
                Err("a login without TLS would show the password to the network: set `tls`".to_owned())
            }
            Way::Mail(mail) => super::send::mail::check(mail),
            Way::Command { argv, .. } if !argv.first().is_some_and(|program| program.starts_with('/')) => {
                Err("the program of `command` needs its whole path".to_owned())
            }
            Way::Webhook(http) | Way::Alertmanager(http) | Way::Ping { http, .. } => http.check(),
            _ => Ok(()),
        }
    }

    /// Files that only the node's user may read.
    fn secrets(&self) -> impl Iterator<Item = &Path> {
        let secret = match &self.way {
            Way::Mail(mail) => mail.password_file.as_deref(),
            Way::Webhook(http) | Way::Alertmanager(http) | Way::Ping { http, .. } => {
                http.token_file.as_deref()
            }
            _ => None,
        };
        secret.into_iter()
    }

    /// Reads what has to be secret, to tell at the start what is wrong with it.
    pub(in crate::node) fn check_secrets(&self, dir: &Path) -> Result<(), String> {
        self.secrets()
            .try_for_each(|file| secret(dir, file).map(drop))
            .map_err(|why| format!("the `notify` entry \"{}\": {why}", self.name))
    }
}

impl Http {
    fn check(&self) -> Result<(), String> {
        let host = self.url.split('/').nth(2).unwrap_or_default();
        let host = host.rsplit_once(':').map_or(host, |(host, _)| host).trim_matches(['[', ']']);
        if self.token_file.is_some() && self.url.starts_with("http://") && !is_here(host) {
            return Err("a token without TLS would be shown to the network: use https".to_owned());
        }
        Ok(())
    }

    /// Scheme, host and port.
    fn shown(&self) -> String {
        self.url.split('/').take(3).collect::<Vec<_>>().join("/")
    }
}

/// The first line of a file that nobody else may read.
pub(in crate::node) fn secret(dir: &Path, file: &Path) -> Result<Secret, String> {
    let path = dir.join(file);
    let demand = Demand { most: PASSWORD_FILE_MAX, secret: true, linked: true };
    let text = read_trusted_text(&path, demand)
        .map_err(|why| format!("reading the secret in {}: {why}", path.display()))?;
    let line = text.lines().next().unwrap_or_default().trim_end();
    match line.len() {
        1..=SECRET_MAX if !line.chars().any(char::is_control) => Ok(Secret(line.to_owned())),
        _ => Err(format!(
            "reading the secret in {}: its first line is empty, too long or no text",
            path.display()
        )),
    }
}

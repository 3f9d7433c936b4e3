//! Commands about the connection itself: who is there and how they talk.

use super::refusal::{Fail, SYNTAX};
use super::session::Client;
use super::table::Cmd;
use super::turn::{Turn, wrong_arity};
use super::{COMPATIBLE_WITH, Shared};
use crate::base::Mono;
use crate::base::limits::PASSWORDS_MAX;
use crate::doors::Backend;
use crate::format::resp::{self, Args, Version};

/// Compares in a time that depends only on the length of what was offered.
fn same_secret(offered: &[u8], secret: &[u8]) -> bool {
    let mut different = u8::from(offered.len() != secret.len());
    for (at, byte) in offered.iter().enumerate() {
        let other = secret.get(at % secret.len().max(1)).copied().unwrap_or(0);
        different = std::hint::black_box(different | (byte ^ other));
    }
    different == 0
}

fn is(word: &[u8], name: &str) -> bool {
    word.eq_ignore_ascii_case(name.as_bytes())
}

fn check_name(name: &[u8]) -> Result<(), Fail> {
    const NAME_MAX: usize = 256;
    if name.len() > NAME_MAX || !name.iter().all(u8::is_ascii_graphic) {
        return Err("ERR Client names cannot contain spaces, newlines or special characters.".into());
    }
    Ok(())
}

/// Redis's text for a subcommand that is not known.
pub(super) fn unknown_subcommand(command: &str, word: &[u8]) -> Fail {
    let word = String::from_utf8_lossy(word.get(..128).unwrap_or(word)).into_owned();
    format!("ERR unknown subcommand '{word}'. Try {command} HELP.").into()
}

impl Client {
    fn describe(&self, shared: &Shared, now: Mono) -> String {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let seconds = |since: Mono| now.since(since) / 1_000_000;
        format!(
            "id={} name={} age={} idle={} flags={} db=0 sub=0 psub=0 ssub=0 multi={} watch={} obl={} \
             events=r cmd={} user=default redir=-1 resp={} lib-name={} lib-ver={}",
            self.conn,
            text(&self.name),
            seconds(self.opened),
            seconds(self.active),
            if self.queue.is_some() { "x" } else { "N" },
            self.queue.as_ref().map_or(-1, |queue| i64::try_from(queue.len()).unwrap_or(i64::MAX)),
            shared.watches.of(self.conn),
            self.out.pending(),
            self.last_command,
            self.version.number(),
            text(&self.library[0]),
            text(&self.library[1]),
        )
    }
}

impl<B: Backend> Turn<'_, B> {
    pub(super) fn dispatch_connection(&mut self, cmd: Cmd, args: Args<'_>) -> Result<(), Fail> {
        match cmd {
            Cmd::Ping => self.ping(args),
            Cmd::Echo => self.bulk(args.at(1)),
            Cmd::Hello => self.hello(args),
            Cmd::Auth => self.auth(args),
            Cmd::Client => self.client(args),
            Cmd::Select => self.select(args),
            Cmd::ReadMode => self.ok(),
            Cmd::Reset => self.reset(),
            Cmd::Quit => {
                self.client.closing = true;
                self.ok()
            }
            _ => self.dispatch_report(cmd, args),
        }
    }

    fn ping(&mut self, args: Args<'_>) -> Result<(), Fail> {
        match args.len() {
            1 => {
                self.client.out.bytes.extend_from_slice(b"+PONG\r\n");
                Ok(())
            }
            2 => self.bulk(args.at(1)),
            _ => Err(wrong_arity("ping").into()),
        }
    }

    fn select(&mut self, args: Args<'_>) -> Result<(), Fail> {
        match self.parse_integer(args.at(1))? {
            0 => self.ok(),
            _ => Err("ERR DB index is out of range".into()),
        }
    }

    fn reset(&mut self) -> Result<(), Fail> {
        self.shared.watches.end(self.client.conn);
        self.client.queue = None;
        self.client.version = Version::V2;
        self.client.name.clear();
        if self.shared.config.password.is_some() && !self.client.trusted {
            self.client.authenticated = false;
            self.shared.must_authenticate(self.now, self.client.conn);
        }
        resp::simple(&mut self.client.out.bytes, "RESET");
        Ok(())
    }

    fn auth(&mut self, args: Args<'_>) -> Result<(), Fail> {
        match args.len() {
            2 if self.shared.config.password.is_none() => {
                Err("ERR AUTH <password> called without any password configured for the default user. \
                 Are you sure your configuration is correct?"
                    .into())
            }
            2 => self.authenticate(b"default", args.at(1)),
            3 => self.authenticate(args.at(1), args.at(2)),
            _ => Err(SYNTAX.into()),
        }?;
        self.ok()
    }

    fn authenticate(&mut self, user: &[u8], password: &[u8]) -> Result<(), Fail> {
        let right = match &self.shared.config.password {
            Some(secret) => same_secret(password, secret.as_bytes()),
            // As in Redis, the default user without a password lets everyone in.
            None => true,
        };
        if !right || user != b"default" {
            self.shared.stats.denied += 1;
            if self.shared.config.password.is_some() {
                self.guessed();
            }
            return Err("WRONGPASS invalid username-password pair or user is disabled.".into());
        }
        self.client.authenticated = true;
        self.shared.outputs.push_back(super::DoorOutput::Proven { conn: self.client.conn });
        Ok(())
    }

    /// A wrong password; after some the connection is ended, and what was sent behind is not looked at.
    fn guessed(&mut self) {
        self.shared.outputs.push_back(super::DoorOutput::Guessed { conn: self.client.conn });
        self.client.guesses = self.client.guesses.saturating_add(1);
        self.client.closing |= self.client.guesses >= PASSWORDS_MAX;
    }

    fn hello(&mut self, args: Args<'_>) -> Result<(), Fail> {
        let version = match args.len() {
            1 => self.client.version,
            _ => match super::items::parse_integer(args.at(1)) {
                Some(2) => Version::V2,
                Some(3) => Version::V3,
                Some(_) => return Err("NOPROTO unsupported protocol version".into()),
                None => return Err("ERR Protocol version is not an integer or out of range".into()),
            },
        };
        let mut name = None;
        let mut at = 2;
        while at < args.len() {
            let (word, left) = (args.at(at), args.len() - at - 1);
            if is(word, "auth") && left >= 2 {
                self.authenticate(args.at(at + 1), args.at(at + 2))?;
                at += 3;
            } else if is(word, "setname") && left >= 1 {
                check_name(args.at(at + 1))?;
                name = Some(args.at(at + 1));
                at += 2;
            } else {
                let word = String::from_utf8_lossy(word).into_owned();
                return Err(format!("ERR Syntax error in HELLO option '{word}'").into());
            }
        }
        if !self.client.authenticated {
            return Err("NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO \
                        <proto> AUTH <user> <pass> option can be used to authenticate the client and select the \
                        RESP protocol version at the same time"
                .into());
        }
        if let Some(name) = name {
            self.client.name = name.to_vec();
        }
        self.client.version = version;
        self.greet();
        Ok(())
    }

    fn greet(&mut self) {
        let role = if self.backend.view().primary { "master" } else { "replica" };
        let (version, conn) = (self.client.version, self.client.conn);
        let out = &mut self.client.out.bytes;
        let text = |out: &mut Vec<u8>, name: &str, value: &str| {
            resp::bulk(out, name.as_bytes());
            resp::bulk(out, value.as_bytes());
        };
        resp::map(out, version, 7);
        text(out, "server", "redis");
        text(out, "version", COMPATIBLE_WITH);
        resp::bulk(out, b"proto");
        resp::integer(out, version.number());
        resp::bulk(out, b"id");
        resp::integer(out, i64::try_from(conn.0).unwrap_or(i64::MAX));
        text(out, "mode", "standalone");
        text(out, "role", role);
        resp::bulk(out, b"modules");
        resp::array(out, 0);
    }

    fn client(&mut self, args: Args<'_>) -> Result<(), Fail> {
        let sub = args.at(1);
        let takes = |name: &str, count: usize| match args.len() == count {
            true => Ok(()),
            false => Err(Fail::from(wrong_arity(&format!("client|{name}")))),
        };
        if is(sub, "id") {
            takes("id", 2)?;
            self.integer(i64::try_from(self.client.conn.0).unwrap_or(i64::MAX))
        } else if is(sub, "getname") {
            takes("getname", 2)?;
            let name = self.client.name.clone();
            self.bulk_or_null((!name.is_empty()).then_some(&name))
        } else if is(sub, "setname") {
            takes("setname", 3)?;
            check_name(args.at(2))?;
            self.client.name = args.at(2).to_vec();
            self.ok()
        } else if is(sub, "setinfo") {
            takes("setinfo", 4)?;
            self.set_info(args)
        } else if is(sub, "info") || is(sub, "list") {
            let line = self.client.describe(self.shared, self.now.mono) + "\n";
            resp::verbatim(&mut self.client.out.bytes, self.client.version, *b"txt", &line);
            Ok(())
        } else if is(sub, "no-evict") || is(sub, "no-touch") {
            takes(if is(sub, "no-evict") { "no-evict" } else { "no-touch" }, 3)?;
            if is(args.at(2), "on") || is(args.at(2), "off") { self.ok() } else { Err(SYNTAX.into()) }
        } else if is(sub, "reply") {
            takes("reply", 3)?;
            match args.at(2) {
                on if is(on, "on") => self.ok(),
                off if is(off, "off") || is(off, "skip") => {
                    Err("ERR CLIENT REPLY OFF and SKIP are not supported: every command is answered".into())
                }
                _ => Err(SYNTAX.into()),
            }
        } else {
            Err(unknown_subcommand("CLIENT", sub))
        }
    }

    fn set_info(&mut self, args: Args<'_>) -> Result<(), Fail> {
        let place = match args.at(2) {
            name if is(name, "lib-name") => 0,
            version if is(version, "lib-ver") => 1,
            other => {
                let other = String::from_utf8_lossy(other).into_owned();
                return Err(format!("ERR Unrecognized option '{other}'").into());
            }
        };
        check_name(args.at(3)).map_err(|_| {
            let what = ["lib-name", "lib-ver"][place];
            Fail::from(format!("ERR {what} cannot contain spaces, newlines or special characters."))
        })?;
        self.client.library[place] = args.at(3).to_vec();
        self.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_secret_is_the_same() {
        assert!(same_secret(b"secret", b"secret"));
        for wrong in [&b""[..], b"s", b"secre", b"secret ", b"secretsecret", b"Secret"] {
            assert!(!same_secret(wrong, b"secret"));
        }
        assert!(!same_secret(b"", b"x") && !same_secret(b"x", b"") && same_secret(b"", b""));
    }
}

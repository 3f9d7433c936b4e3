//! Commands about the connection itself: who is there and how they talk.

use super::COMPATIBLE_WITH;
use super::refusal::{Fail, SYNTAX};
use super::table::{Cmd, Spec};
use super::turn::{Turn, wrong_arity};
use crate::base::limits::{PASSWORDS_MAX, RESP_LOCKED_MAX};
use crate::doors::Backend;
use crate::format::resp::{self, Args, Version};

/// Compares in a time that depends only on the length of what was offered.
fn same_secret(offered: &[u8], secret: &[u8]) -> bool {
    if offered.len() > RESP_LOCKED_MAX {
        return false;
    }
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

pub(super) fn check_name(name: &[u8]) -> Result<(), Fail> {
    const NAME_MAX: usize = 256;
    if name.len() > NAME_MAX || !name.iter().all(u8::is_ascii_graphic) {
        return Err("ERR Client names cannot contain spaces, newlines or special characters.".into());
    }
    Ok(())
}

/// Redis's text for a subcommand that is not known.
pub(super) fn unknown_subcommand(command: &str, word: &[u8]) -> String {
    let word = String::from_utf8_lossy(word.get(..128).unwrap_or(word)).into_owned();
    format!("ERR unknown subcommand '{word}'. Try {} HELP.", command.to_ascii_uppercase())
}

impl<B: Backend> Turn<'_, B> {
    pub(super) fn dispatch_connection(&mut self, spec: &'static Spec, args: Args<'_>) -> Result<(), Fail> {
        match spec.cmd {
            Cmd::Ping => self.ping(args),
            Cmd::Echo => self.bulk(args.at(1)),
            Cmd::Hello => self.hello(args),
            Cmd::Auth => self.auth(args),
            Cmd::Client => self.client(spec, args),
            Cmd::Select => self.select(args),
            Cmd::ReadMode => self.ok(),
            Cmd::Reset => self.reset(),
            Cmd::Quit => {
                self.client.closing = true;
                self.ok()
            }
            _ => self.dispatch_report(spec, args),
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
            far if i32::try_from(far).is_err() => {
                Err(format!("ERR value is out of range, value must between {} and {}", i32::MIN, i32::MAX)
                    .into())
            }
            0 => self.ok(),
            _ => Err("ERR DB index is out of range".into()),
        }
    }

    fn reset(&mut self) -> Result<(), Fail> {
        self.shared.watches.end(self.client.conn);
        self.client.queue = None;
        self.client.version = Version::V2;
        self.client.receipts = false;
        self.reset_card();
        if self.shared.config.password.is_some() && !self.client.trusted {
            self.client.lock(self.now, self.shared);
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
        self.client.unlock(self.shared);
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
                // As Redis does: an option behind it that is wrong does not take it back.
                if self.client.authenticated {
                    self.takes_name(args.at(at + 1));
                }
                at += 2;
            } else {
                let word = String::from_utf8_lossy(word.get(..128).unwrap_or(word));
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
            self.takes_name(name);
        }
        self.client.version = version;
        self.greet();
        Ok(())
    }

    fn takes_name(&mut self, name: &[u8]) {
        if let Some(card) = self.shared.roster.card(self.client.card) {
            card.name = name.to_vec();
        }
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

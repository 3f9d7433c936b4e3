//! Values on the command line, parsed once into types that cannot be wrong.

use super::glue::{self, Until};
use crate::base::limits::COMMAND_WAIT_MAX_MS;
use crate::base::{AckLevel, Seq, moment};
use crate::format::dptr::{Flags, name_is_valid};
use clap::ValueEnum;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use std::time::Duration;

/// The role a node is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RoleArg {
    /// Serves the users first (D3: master)
    #[value(alias = "master")]
    Primary,
    /// Holds the copy first (D3: slave)
    #[value(alias = "slave")]
    Standby,
}

/// Which I/O driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum IoArg {
    /// io_uring where it works, else epoll
    Auto,
    /// io_uring, or refuse to start
    Uring,
    /// epoll and a few blocking threads
    Epoll,
}

/// What happens to a promise above `local` when the peer is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PeerLossArg {
    /// After this long (milliseconds, or the config's default), answer at level `local` and raise an incident.
    Degrade(Option<u64>),
    /// Clients wait until the peer is back.
    Block,
}

/// A parser for ack levels that names them in help and errors.
pub(crate) fn ack_parser() -> impl TypedValueParser<Value = AckLevel> {
    PossibleValuesParser::new(["local", "received", "durable", "applied"])
        .map(|word| ack_level(&word).unwrap_or_default())
}

/// An ack level from its word.
pub(crate) fn ack_level(word: &str) -> Option<AckLevel> {
    [AckLevel::Local, AckLevel::Received, AckLevel::Durable, AckLevel::Applied]
        .into_iter()
        .find(|level| level.name() == word)
}

/// `block`, `degrade` or `degrade:10s`.
pub(crate) fn peer_loss(text: &str) -> Result<PeerLossArg, String> {
    match text.split_once(':') {
        None if text == "block" => Ok(PeerLossArg::Block),
        None if text == "degrade" => Ok(PeerLossArg::Degrade(None)),
        Some(("degrade", after)) => milliseconds(after).map(|ms| PeerLossArg::Degrade(Some(ms))),
        _ => Err("expected block, degrade or degrade:TIME such as degrade:10s".to_owned()),
    }
}

/// A time such as `500ms`, `10s`, `2m`; a bare number is seconds.
pub(crate) fn milliseconds(text: &str) -> Result<u64, String> {
    let (digits, unit) = split_number(text);
    let factor = match unit {
        "ms" => 1,
        "" | "s" => 1000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        _ => return Err(format!("unknown unit {unit:?}: use ms, s, m or h")),
    };
    let number: u64 = digits.parse().map_err(|_| "expected a time such as 500ms, 10s or 2m".to_owned())?;
    number.checked_mul(factor).ok_or_else(|| "too long".to_owned())
}

/// How long a command waits for a node: a time of a day at most.
pub(crate) fn wait(text: &str) -> Result<Duration, String> {
    match milliseconds(text)? {
        ms if ms <= COMMAND_WAIT_MAX_MS => Ok(Duration::from_millis(ms)),
        _ => Err(format!("at most {} h", COMMAND_WAIT_MAX_MS / 3_600_000)),
    }
}

/// A size such as `512`, `64K`, `10G`, `10GiB`; units are powers of 1024.
pub(crate) fn byte_size(text: &str) -> Result<u64, String> {
    glue::parse_size(text)
        .ok_or_else(|| "expected a size such as 512M or 10G (K, M, G, T or P, powers of 1024)".to_owned())
}

/// An entry's number, or a moment (UTC).
pub(crate) fn until(text: &str) -> Result<Until, String> {
    let entry = text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    let until =
        entry.map(|entry| Until::Entry(Seq(entry))).or_else(|| moment::last_of(text).map(Until::Time));
    until.ok_or_else(|| {
        "expected the number of an entry, or a moment in UTC such as '2026-11-29 10:14:59'".to_owned()
    })
}

fn split_number(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    (digits, unit.trim_start())
}

/// `KEY=VALUE`.
pub(crate) fn setting(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("say KEY=VALUE, as in checkpoint_ms=5000")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

/// Letters of L, X, Y, T, in any case.
pub(crate) fn flags(text: &str) -> Result<String, String> {
    match Flags::parse(text) {
        Some(flags) => Ok(flags.to_string()),
        None => Err("flags are letters of L (logged and replicated), X (never saved nor logged), \
                     Y (definition saved, content not), T (never logged)"
            .to_owned()),
    }
}

/// The name of an account.
pub(crate) fn account_name(text: &str) -> Result<String, String> {
    if name_is_valid(text) { Ok(text.to_owned()) } else { Err(bad_name(text)) }
}

/// `account,file`.
pub(crate) fn file_name(text: &str) -> Result<String, String> {
    match text.split_once(',') {
        None => Err("a file is named account,file, as in app,orders".to_owned()),
        Some((account, file)) if !name_is_valid(account) => {
            Err(bad_name(if account.is_empty() { file } else { account }))
        }
        Some((_, file)) if !name_is_valid(file) => Err(bad_name(file)),
        Some(_) => Ok(text.to_owned()),
    }
}

fn bad_name(name: &str) -> String {
    if name.contains(',') {
        return format!("{name:?} holds a comma too many");
    }
    "a name has 1-128 bytes, no comma, slash or control character, and does not start with a dash".to_owned()
}

/// `unlimited`, or a size that is not 0.
pub(crate) fn rate(text: &str) -> Result<u64, String> {
    if text == "unlimited" {
        return Ok(0);
    }
    match byte_size(text)? {
        0 => Err("expected a size such as 50M, or unlimited".to_owned()),
        size => Ok(size),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024_and_overflow_is_refused() {
        assert_eq!(byte_size("512"), Ok(512));
        assert_eq!(byte_size("10G"), Ok(10 << 30));
        assert_eq!(byte_size("64 kib"), Ok(64 << 10));
        for bad in ["", "G", "-1", "1.5G", "10Q", "99999999999T", "1 0"] {
            assert!(byte_size(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn times_carry_their_unit() {
        assert_eq!(milliseconds("250ms"), Ok(250));
        assert_eq!(milliseconds("10"), Ok(10_000));
        assert_eq!(milliseconds("2m"), Ok(120_000));
        assert!(milliseconds("2 weeks").is_err());
        assert_eq!(peer_loss("degrade:10s"), Ok(PeerLossArg::Degrade(Some(10_000))));
        assert_eq!(peer_loss("block"), Ok(PeerLossArg::Block));
        assert!(peer_loss("block:10s").is_err());
    }

    #[test]
    fn a_file_is_named_by_exactly_two_good_names() {
        assert_eq!(file_name("app,orders"), Ok("app,orders".to_owned()));
        for bad in ["app", "app,", ",orders", "app,a,b", "app,a/b", "-app,x", "a\npp,x"] {
            assert!(file_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn flags_are_letters_and_every_ack_level_has_a_word() {
        assert_eq!(flags("tl"), Ok("LT".to_owned()));
        assert!(flags("Q").is_err());
        assert_eq!(ack_level("durable"), Some(AckLevel::Durable));
        assert_eq!(ack_level("always"), None);
    }

    #[test]
    fn master_and_slave_are_the_same_roles() {
        assert_eq!(RoleArg::from_str("master", false), Ok(RoleArg::Primary));
        assert_eq!(RoleArg::from_str("slave", false), Ok(RoleArg::Standby));
        assert_eq!(RoleArg::from_str("standby", false), Ok(RoleArg::Standby));
    }

    #[test]
    fn a_rate_is_a_size_or_has_no_limit() {
        assert_eq!(rate("50M"), Ok(50 << 20));
        assert_eq!(rate("unlimited"), Ok(0));
        assert!(rate("0").is_err() && rate("fast").is_err());
    }
}

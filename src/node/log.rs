//! The log: one line each to stderr, never a byte of stored data.

use std::borrow::Cow;
use std::fmt::Write as _;
use tracing::Level;
use tracing_subscriber::filter::LevelFilter;

/// The variable that overrides the config's `log`.
pub const LOG_VARIABLE: &str = "HOT_BACKUP_LOG";

/// Starts logging at `level` unless [`LOG_VARIABLE`] names another (`error`, `warn`, `info`, `debug`, `trace` or
/// `off`). Under systemd, which notes the time itself, lines have none. A second call changes nothing.
pub fn start(level: Level) {
    let chosen = std::env::var(LOG_VARIABLE).ok().and_then(|word| word.parse().ok());
    let level = chosen.unwrap_or(LevelFilter::from_level(level));
    let builder = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        .with_max_level(level);
    // Fails only when a subscriber is there already, which then serves as well.
    let _ = if std::env::var_os("JOURNAL_STREAM").is_some() {
        builder.without_time().try_init()
    } else {
        builder.try_init()
    };
}

/// `text` with its control characters escaped, so that what a stranger sent can neither fake a line nor steer a
/// terminal.
pub(crate) fn one_line(text: &str) -> Cow<'_, str> {
    if !text.chars().any(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if c.is_control() {
            // Writing to a String cannot fail.
            let _ = write!(out, "{}", c.escape_default());
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_cannot_reach_the_log() {
        assert_eq!(one_line("plain ünïcode"), "plain ünïcode");
        assert_eq!(one_line("a\nb\u{1b}[31mc\u{85}"), "a\\nb\\u{1b}[31mc\\u{85}");
    }
}

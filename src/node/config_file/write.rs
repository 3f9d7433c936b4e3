//! The config file as `init` writes it: every key, explained, defaults commented out.

use super::keys::{Fallback, KEYS, Key};
use super::read::MARK;
use crate::node::whole;
use std::fmt::Write as _;

const WIDTH: usize = 96;
/// What stands where the notify list goes.
const NOTIFY: &str = "Who is told of incidents stands here, behind all other keys, each below a line of its own, [[notify]]. \
                      docs/notify.md has an example of each kind; `hot-backup notify test` proves them.";

/// A config file in which the `given` keys (name, TOML literal) are set and all others are at their default.
#[must_use]
pub fn render(given: &[(&str, String)]) -> String {
    let mut out = format!(
        "{}\n\
         # A node of a hot-backup pair. Changes take effect when the node is started again.\n\
         # A key with '#' before it is at its default; remove the '#' to change it.\n\
         # Bytes can be written as 67108864 or \"64M\".\n",
        whole::first_line(MARK)
    );
    for key in KEYS {
        out.push('\n');
        wrap(&mut out, key.help);
        wrap(&mut out, &facts(key));
        let line = match (given.iter().find(|(name, _)| *name == key.name), key.fallback) {
            (Some((_, literal)), _) => format!("{} = {literal}", key.name),
            (None, Fallback::Literal(literal)) => format!("#{} = {literal}", key.name),
            (None, Fallback::Off | Fallback::Required) => format!("#{} = {}", key.name, example(key)),
        };
        out.push_str(&line);
        out.push('\n');
    }
    out.push('\n');
    wrap(&mut out, NOTIFY);
    out.push_str(whole::END);
    out.push('\n');
    out
}

/// A table of all keys for the documentation (Markdown).
#[must_use]
pub fn reference() -> String {
    let mut out =
        String::from("| key | unit | default | allowed | what it decides |\n|---|---|---|---|---|\n");
    for key in KEYS {
        let (name, unit, default, allowed) = (key.name, key.unit, key.default_text(), key.allowed());
        writeln!(out, "| `{name}` | {unit} | {default} | {allowed} | {} |", key.help)
            .expect("writing to a string");
    }
    out
}

/// Texts as a TOML literal: one as it is, several as a list.
#[must_use]
pub fn quoted_list(texts: &[String]) -> String {
    match texts {
        [one] => quoted(one),
        many => format!("[{}]", many.iter().map(|one| quoted(one)).collect::<Vec<_>>().join(", ")),
    }
}

/// A text as a TOML literal.
#[must_use]
pub fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn facts(key: &Key) -> String {
    let unit = if key.unit.is_empty() { String::new() } else { format!("{}, ", key.unit) };
    format!("({unit}default: {}; allowed: {})", key.default_text(), key.allowed())
}

fn example(key: &Key) -> &'static str {
    match key.name {
        "resp" => "\"127.0.0.1:7001\"",
        "nbd" => "\"127.0.0.1:10809\"",
        "resp_default" => "\"app,items\"",
        "resp_password_file" => "\"resp.password\"",
        _ => "\"\"",
    }
}

fn wrap(out: &mut String, text: &str) {
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.chars().count() + 1 + word.chars().count() > WIDTH {
            out.push_str(&line);
            out.push('\n');
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    out.push_str(&line);
    out.push('\n');
}

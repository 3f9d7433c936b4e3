//! How a message is brought to each kind of receiver. Each call takes a bounded time, whatever the receiver does.

mod command;
mod http;
mod local;
pub(super) mod mail;
mod terminals;

pub(in crate::node) use http::certificates;
pub(super) use http::ping;
pub use terminals::fuzz_utmp;

use super::target::{Target, Way};
use crate::base::shown::utc;
use crate::engine::records::RecordView;
use crate::node::log::one_line;
use serde_json::{Value, json};
use std::path::Path;

/// What is told, and of which node.
#[derive(Clone, Debug)]
pub(super) struct Message {
    /// The node.
    pub(super) node: String,
    /// The record as it was.
    pub(super) record: RecordView,
    /// It only proves that messages arrive.
    pub(super) test: bool,
}

impl Message {
    /// lasts, ended or happened; or that it is a test.
    fn state(&self) -> &'static str {
        if self.test { "test" } else { self.record.state() }
    }

    /// In a line: what a mail has as its subject, and a terminal as its first line.
    pub(super) fn subject(&self) -> String {
        let RecordView { severity, code, .. } = &self.record;
        let state = if self.state() == "happened" { String::new() } else { format!(" ({})", self.state()) };
        one_line(&format!("[hot-backup {}] {severity} {code}{state}: {}", self.node, self.record.what))
            .into_owned()
    }

    /// For people, in lines; what strangers said is escaped.
    pub(super) fn lines(&self) -> Vec<String> {
        let record = &self.record;
        let mut lines = vec![self.subject(), record.text()];
        if !self.test {
            lines.push(format!(
                "node {}, incident {}, {}, told {} times",
                self.node,
                record.id,
                self.state(),
                record.count
            ));
            lines.push(format!("since {}", utc(record.since_ms)));
        }
        if let (Some(ended), false) = (record.ended_ms, record.end.is_empty()) {
            lines.push(format!("ended {}: {}", utc(ended), record.end));
        } else if !record.next.is_empty() {
            lines.push(format!("what to do: {}", record.next));
        }
        lines.iter().map(|line| one_line(line).into_owned()).collect()
    }

    /// For programs.
    pub(super) fn json(&self) -> Value {
        let mut value = serde_json::to_value(&self.record).unwrap_or_default();
        if let Some(object) = value.as_object_mut() {
            object.insert("version".to_owned(), json!(1));
            object.insert("node".to_owned(), json!(self.node));
            object.insert("state".to_owned(), json!(self.state()));
        }
        value
    }
}

/// A moment as RFC 3339 has it, of UTC.
fn rfc3339(ms: u64) -> String {
    utc(ms).replacen(' ', "T", 1)
}

/// Brings a message to a receiver, and gives what that said.
pub(super) fn deliver(dir: &Path, target: &Target, message: &Message) -> Result<String, String> {
    match &target.way {
        Way::Mail(mail) => mail::send(dir, mail, message),
        Way::Terminals { users, utmp } => terminals::write(&dir.join(utmp), users, message),
        Way::Command { argv, seconds } => command::run(argv, *seconds, message),
        Way::Webhook(http) => http::webhook(dir, http, message),
        Way::Alertmanager(http) => http::alert(dir, http, std::slice::from_ref(message)),
        Way::Syslog(socket) => local::syslog(socket, message),
        Way::Journald(socket) => local::journald(socket, message),
        Way::Ping { http, .. } => ping(dir, http),
    }
}

/// Tells a receiver again what lasts, if it is one that forgets.
pub(super) fn refresh(dir: &Path, target: &Target, lasting: &[Message]) {
    if let Way::Alertmanager(http) = &target.way
        && !lasting.is_empty()
    {
        // The next one comes in a minute.
        let _ = http::alert(dir, http, lasting);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hostile() -> Message {
        let record = RecordView {
            id: 7,
            severity: "critical".to_owned(),
            code: "peer-lost".to_owned(),
            what: "gone\r\nBcc: x@y\u{1b}[2J".to_owned(),
            why: "\0\u{9b}1A".to_owned(),
            next: "look".to_owned(),
            since_ms: 1_700_000_000_123,
            count: 2,
            ..RecordView::default()
        };
        Message { node: "a".to_owned(), record, test: false }
    }

    #[test]
    fn what_strangers_said_is_neither_a_line_of_its_own_nor_a_word_to_a_terminal() {
        let lines = hostile().lines();
        assert!(lines.iter().all(|line| !line.chars().any(char::is_control)), "{lines:#?}");
        assert!(hostile().subject().contains("gone\\r\\nBcc: x@y\\u{1b}[2J"), "{}", hostile().subject());
        assert_eq!(lines.len(), 5);
    }

    #[test]
    fn moments_are_those_of_the_calendar() {
        let known = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400_000, "2000-02-29T00:00:00Z"),
            (1_700_000_000_123, "2023-11-14T22:13:20Z"),
            (4_107_542_399_000, "2100-02-28T23:59:59Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00Z"),
        ];
        for (ms, text) in known {
            assert_eq!(rfc3339(ms), text);
        }
    }

    #[test]
    fn the_json_of_a_message_has_its_version_and_every_field_of_the_record() {
        let json = hostile().json();
        assert_eq!(
            (&json["version"], &json["node"], &json["state"]),
            (&json!(1), &json!("a"), &json!("lasts"))
        );
        assert_eq!((&json["id"], &json["code"], &json["count"]), (&json!(7), &json!("peer-lost"), &json!(2)));
    }
}

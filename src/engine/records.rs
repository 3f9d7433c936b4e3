//! Incidents as records: what was told of one matter from its beginning to its end is one record, with a number.
//!
//! While a trouble lasts, what is told of it again is counted in its record. Its end closes the record: the engine's own word, or
//! an incident by which the table says that it ends. An event is closed from the start; the same event soon after is counted.
//! A start closes what an earlier life of the process left open: what still lasts is told anew.

use super::effect::{Incident, Severity};
use super::incidents::Matter;
use crate::base::limits::{RECORD_AGAIN_MS, RECORD_TEXT_MAX, RECORD_WHO_MAX, RECORDS_MAX};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// What is known of one matter, from its beginning to its end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordView {
    /// Its number, from 1 on, never given twice by a node.
    pub id: u64,
    /// notice, warning or critical.
    pub severity: String,
    /// A fixed word for programs, such as `peer-lost`.
    pub code: String,
    /// What happened.
    pub what: String,
    /// Why, as far as it is known.
    #[serde(default)]
    pub why: String,
    /// What people can do.
    #[serde(default)]
    pub next: String,
    /// When it began (milliseconds since 1970).
    pub since_ms: u64,
    /// When it was told last (milliseconds since 1970).
    pub last_ms: u64,
    /// How often it was told.
    pub count: u64,
    /// When it ended (milliseconds since 1970); none while it lasts.
    #[serde(default)]
    pub ended_ms: Option<u64>,
    /// How it ended; empty for an event, which only happened.
    #[serde(default)]
    pub end: String,
    /// When a person took note of it (milliseconds since 1970).
    #[serde(default)]
    pub acked_ms: Option<u64>,
    /// Who did.
    #[serde(default)]
    pub acked_by: String,
}

impl RecordView {
    /// Whether it lasts.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.ended_ms.is_none()
    }

    /// lasts, ended, or happened.
    #[must_use]
    pub fn state(&self) -> &'static str {
        match (self.is_open(), self.end.is_empty()) {
            (true, _) => "lasts",
            (false, false) => "ended",
            (false, true) => "happened",
        }
    }

    /// What and why in one sentence.
    #[must_use]
    pub fn text(&self) -> String {
        let separator = if self.why.is_empty() { "" } else { ": " };
        format!("{}{separator}{}", self.what, self.why)
    }

    /// How much it matters.
    #[must_use]
    pub fn rank(&self) -> Severity {
        Severity::of(&self.severity).unwrap_or(Severity::Critical)
    }

    /// Takes what an incident says.
    fn say(&mut self, text: &str) {
        let text = cut(text, RECORD_TEXT_MAX);
        let (what, why) = text.split_once(": ").unwrap_or((text, ""));
        (self.what, self.why) = (what.to_owned(), why.to_owned());
    }
}

/// The beginning of a text, at most `most` bytes of it.
fn cut(text: &str, most: usize) -> &str {
    let end = (0..=most.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.get(..end.unwrap_or(0)).unwrap_or_default()
}

/// Whether two events are told alike; behind the text may stand how often it happened unsaid.
fn is_same(told: &str, text: &str) -> bool {
    cut(told, RECORD_TEXT_MAX)
        .strip_prefix(text)
        .is_some_and(|more| more.is_empty() || more.starts_with(" ("))
}

/// A record that people have to be told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// It is new.
    Begun(RecordView),
    /// It is over.
    Ended(RecordView),
}

impl News {
    /// The record, as it is then.
    #[must_use]
    pub fn record(&self) -> &RecordView {
        match self {
            Self::Begun(record) | Self::Ended(record) => record,
        }
    }
}

/// The records of a node, oldest first; the oldest that do not last go when there are too many.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records {
    records: VecDeque<RecordView>,
    /// The highest number given.
    last: u64,
}

impl Records {
    /// As they were kept: records in the order of their numbers, and the highest number given.
    #[must_use]
    pub fn kept(records: Vec<RecordView>, last: u64) -> Self {
        let mut kept = Self {
            last: last.max(records.iter().map(|record| record.id).max().unwrap_or(0)),
            records: records.into(),
        };
        kept.bound();
        kept
    }

    /// All, oldest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &RecordView> {
        self.records.iter()
    }

    /// The highest number given.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.last
    }

    /// The record with this number.
    #[must_use]
    pub fn get(&self, id: u64) -> Option<&RecordView> {
        self.records.iter().find(|record| record.id == id)
    }

    /// Takes an incident, and gives what people have to be told.
    pub fn note(&mut self, incident: &Incident) -> Vec<News> {
        let told = Told {
            code: incident.kind,
            severity: incident.severity,
            text: &incident.text,
            wall_ms: incident.wall_ms,
            lasts: incident.lasts,
        };
        self.note_told(&told)
    }

    /// The same for a line of the file of an earlier version.
    pub fn note_told(&mut self, told: &Told<'_>) -> Vec<News> {
        let ended = |record: &RecordView| {
            Matter::of(&record.code).is_some_and(|matter| matter.row().ends.contains(&told.code))
        };
        let over = self.close(ended, cut(told.text, RECORD_TEXT_MAX), told.wall_ms);
        if !over.is_empty() {
            return over;
        }
        let again = |record: &&mut RecordView| {
            let soon = told.wall_ms < record.last_ms.saturating_add(RECORD_AGAIN_MS);
            let same = !told.lasts && record.state() == "happened" && is_same(told.text, &record.text());
            record.code == told.code && (record.is_open() || soon && same)
        };
        if let Some(record) = self.records.iter_mut().rev().find(again) {
            record.count += 1;
            record.last_ms = record.last_ms.max(told.wall_ms);
            if record.is_open() {
                record.say(told.text);
            }
            return Vec::new();
        }
        self.last += 1;
        let mut record = RecordView {
            id: self.last,
            severity: told.severity.name().to_owned(),
            code: told.code.to_owned(),
            next: Matter::of(told.code).map_or("", |matter| matter.row().advice).to_owned(),
            since_ms: told.wall_ms,
            last_ms: told.wall_ms,
            count: 1,
            ended_ms: (!told.lasts).then_some(told.wall_ms),
            ..RecordView::default()
        };
        record.say(told.text);
        self.records.push_back(record.clone());
        self.bound();
        vec![News::Begun(record)]
    }

    /// The trouble with this word is over, whatever was told of it.
    pub fn ended(&mut self, code: &str, wall_ms: u64) -> Vec<News> {
        self.close(|record| record.code == code, "it is over", wall_ms)
    }

    /// A new life of the process begins.
    pub fn restarted(&mut self, wall_ms: u64) -> Vec<News> {
        self.close(|_| true, "the node was started again; what still lasts is told anew", wall_ms)
    }

    /// A person took note of a record. Gives the record, if there is one of that number.
    pub fn ack(&mut self, id: u64, who: &str, wall_ms: u64) -> Option<&RecordView> {
        let record = self.records.iter_mut().find(|record| record.id == id)?;
        if record.acked_ms.is_none() {
            record.acked_ms = Some(wall_ms);
            record.acked_by = cut(who, RECORD_WHO_MAX).to_owned();
        }
        Some(record)
    }

    fn close(&mut self, which: impl Fn(&RecordView) -> bool, how: &str, wall_ms: u64) -> Vec<News> {
        let open = self.records.iter_mut().filter(|record| record.is_open() && which(record));
        let close = |record: &mut RecordView| {
            record.ended_ms = Some(wall_ms.max(record.since_ms));
            record.end = how.to_owned();
            News::Ended(record.clone())
        };
        open.map(close).collect()
    }

    fn bound(&mut self) {
        while self.records.len() > RECORDS_MAX {
            let at = self.records.iter().position(|record| !record.is_open()).unwrap_or(0);
            self.records.remove(at);
        }
    }
}

/// What was told of a matter, from wherever.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    /// The fixed word.
    pub code: &'a str,
    /// How much it matters.
    pub severity: Severity,
    /// One sentence for people.
    pub text: &'a str,
    /// When (milliseconds since 1970).
    pub wall_ms: u64,
    /// Whether it has begun, and will be told to be over.
    pub lasts: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told<'a>(code: &'a str, text: &'a str, wall_ms: u64, lasts: bool) -> Told<'a> {
        let severity = Matter::of(code).map_or(Severity::Notice, |matter| matter.row().severity);
        Told { code, severity, text, wall_ms, lasts }
    }

    #[test]
    fn a_trouble_is_one_record_from_its_beginning_to_its_end_however_often_it_is_told() {
        let mut records = Records::default();
        let news = records.note_told(&told("journal-no-space", "no room: the disk is full", 10, true));
        assert!(
            matches!(&news[..], [News::Begun(record)] if record.id == 1 && record.next.contains("make room"))
        );
        assert_eq!(records.note_told(&told("journal-no-space", "no room: quota", 20, true)), []);
        let open = records.get(1).unwrap();
        assert_eq!((open.what.as_str(), open.why.as_str(), open.count), ("no room", "quota", 2));
        assert_eq!((open.since_ms, open.last_ms, open.state()), (10, 20, "lasts"));
        let news = records.note_told(&told("journal-space", "there is room again", 30, false));
        assert!(
            matches!(&news[..], [News::Ended(record)] if record.end == "there is room again"),
            "{news:?}"
        );
        assert_eq!(records.get(1).unwrap().ended_ms, Some(30));
        // The end made no record of its own, and what begins anew is a new record.
        assert_eq!(records.iter().count(), 1);
        records.note_told(&told("journal-no-space", "no room", 40, true));
        assert_eq!(
            records.iter().map(|record| (record.id, record.state())).collect::<Vec<_>>(),
            [(1, "ended"), (2, "lasts")]
        );
    }

    #[test]
    fn an_event_that_comes_again_soon_is_counted_and_later_it_is_a_new_record() {
        let mut records = Records::default();
        assert_eq!(
            records.note_told(&told("client-refused", "10.0.0.9 has a wrong password", 0, false)).len(),
            1
        );
        assert_eq!(records.note_told(&told("client-refused", "10.0.0.9 has a wrong password", 5, false)), []);
        assert_eq!(
            records.note_told(&told("client-refused", "10.0.0.8 has a wrong password", 6, false)).len(),
            1
        );
        let late = 5 + RECORD_AGAIN_MS;
        assert_eq!(
            records.note_told(&told("client-refused", "10.0.0.9 has a wrong password", late, false)).len(),
            1
        );
        let counts: Vec<u64> = records.iter().map(|record| record.count).collect();
        assert_eq!(counts, [2, 1, 1]);
    }

    #[test]
    fn what_ends_without_a_word_or_with_the_process_is_closed_all_the_same() {
        let mut records = Records::default();
        records.note_told(&told("needs-full-sync", "the peer needs a copy", 1, true));
        records.note_told(&told("peer-lost", "the peer is lost", 2, true));
        assert!(matches!(&records.ended("needs-full-sync", 3)[..], [News::Ended(record)] if record.id == 1));
        assert_eq!(records.ended("needs-full-sync", 4), []);
        assert!(matches!(&records.restarted(5)[..], [News::Ended(record)] if record.id == 2));
        assert!(records.iter().all(|record| !record.is_open()));
    }

    #[test]
    fn an_acknowledgement_keeps_who_gave_it_first() {
        let mut records = Records::default();
        records.note_told(&told("takeover", "taken over", 1, false));
        assert!(records.ack(7, "ann", 2).is_none());
        assert_eq!(records.ack(1, "ann", 2).unwrap().acked_by, "ann");
        assert_eq!(records.ack(1, "bob", 3).unwrap().acked_by, "ann");
        assert_eq!(records.get(1).unwrap().acked_ms, Some(2));
        let mut one = Records::kept(records.iter().cloned().collect(), records.last());
        assert_eq!(one.ack(1, "bob", 9).unwrap().acked_by, "ann", "it is kept");
    }

    #[test]
    fn there_are_never_too_many_and_what_lasts_goes_last_and_no_number_comes_twice() {
        let mut records = Records::default();
        records.note_told(&told("peer-lost", "the peer is lost", 0, true));
        for n in 0..2 * RECORDS_MAX as u64 {
            records.note_told(&told("client-refused", &format!("caller {n}"), n, false));
        }
        assert_eq!(records.iter().count(), RECORDS_MAX);
        assert_eq!(records.iter().next().map(|record| record.id), Some(1), "it lasts");
        let last = records.last();
        assert_eq!(last, 2 * RECORDS_MAX as u64 + 1);
        let mut again = Records::kept(records.iter().cloned().collect(), last);
        again.note_told(&told("takeover", "taken over", 1, false));
        assert_eq!(again.iter().next_back().unwrap().id, last + 1);
    }

    #[test]
    fn a_long_text_is_cut_between_its_letters() {
        let long = "ä".repeat(RECORD_TEXT_MAX);
        let mut records = Records::default();
        records.note_told(&told("takeover", &long, 1, false));
        let record = records.get(1).unwrap();
        assert!(record.what.len() <= RECORD_TEXT_MAX && record.what.starts_with('ä'));
    }
}

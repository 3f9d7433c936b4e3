//! What waits to be told to one entry of the notify list: by severity, outside of quiet hours, again after a failure, bounded.
//!
//! A message is a record as it was when it began or ended. A record that ends before its beginning was told makes one message.
//! Deciding only: who delivers asks for [`Outbox::next`], and says what became of it.

use super::effect::Severity;
use super::records::{News, RecordView};
use crate::base::limits::{NOTIFY_QUEUE_MAX, NOTIFY_RETRY_MOST_MS, NOTIFY_RETRY_MS};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Hours of the day, in minutes since midnight of the machine's local time; the end may be on the next day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quiet {
    from: u16,
    until: u16,
}

impl Quiet {
    /// From `HH:MM-HH:MM`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let minutes = |text: &str| {
            let (hours, minutes) = text.split_once(':')?;
            let digits = |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
            let (h, m): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
            (digits(hours) && digits(minutes) && h < 24 && m < 60).then_some(h * 60 + m)
        };
        let (from, until) = text.split_once('-')?;
        let quiet = Self { from: minutes(from)?, until: minutes(until)? };
        (quiet.from != quiet.until).then_some(quiet)
    }

    /// Whether a minute of the day is among them.
    #[must_use]
    pub fn covers(self, minute: u16) -> bool {
        if self.from < self.until {
            (self.from..self.until).contains(&minute)
        } else {
            minute >= self.from || minute < self.until
        }
    }
}

impl std::fmt::Display for Quiet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { from, until } = self;
        write!(f, "{:02}:{:02}-{:02}:{:02}", from / 60, from % 60, until / 60, until % 60)
    }
}

/// What an entry of the list wants to hear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wants {
    /// Nothing that is less severe.
    pub floor: Severity,
    /// When only critical ones are told; the others wait until it is over.
    pub quiet: Option<Quiet>,
}

impl Wants {
    fn now(self, severity: Severity, minute: u16) -> bool {
        severity == Severity::Critical || !self.quiet.is_some_and(|quiet| quiet.covers(minute))
    }
}

/// A message.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letter {
    /// Its number in this outbox.
    pub number: u64,
    /// The record as it was.
    pub record: RecordView,
}

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Deliver this, then say what became of it.
    Deliver(Letter),
    /// Ask again after so long (milliseconds), or when there is something new.
    Wait(u64),
    /// Nothing waits.
    Idle,
}

/// Messages for one entry of the list, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outbox {
    letters: VecDeque<Letter>,
    last: u64,
    /// The one that is being delivered.
    sending: Option<u64>,
    /// Failures in a row.
    failures: u32,
    /// Nothing is tried before (milliseconds of the caller's clock).
    retry_ms: u64,
    /// Messages that gave way.
    pub dropped: u64,
    /// Delivered in this life.
    pub delivered: u64,
    /// When the last was (milliseconds since 1970).
    pub last_ok_ms: Option<u64>,
    /// Since when none can be (milliseconds since 1970).
    pub failing_since_ms: Option<u64>,
    /// Why the last one could not be.
    pub last_error: String,
}

/// Quiet hours are looked at this often (milliseconds).
const QUIET_LOOK_MS: u64 = 20_000;

impl Outbox {
    /// With what an earlier life left.
    #[must_use]
    pub fn kept(letters: Vec<Letter>, dropped: u64) -> Self {
        let last = letters.iter().map(|letter| letter.number).max().unwrap_or(0);
        let mut outbox = Self { letters: letters.into(), last, dropped, ..Self::default() };
        outbox.bound();
        outbox
    }

    /// What waits.
    pub fn letters(&self) -> impl Iterator<Item = &Letter> {
        self.letters.iter()
    }

    /// Takes what has to be told, if this entry of the list wants it.
    pub fn post(&mut self, wants: Wants, news: &News) {
        let record = news.record();
        if record.rank() < wants.floor {
            return;
        }
        let sending = self.sending;
        let untold = |letter: &&mut Letter| letter.record.id == record.id && sending != Some(letter.number);
        if let Some(letter) = self.letters.iter_mut().find(untold) {
            letter.record = record.clone();
            return;
        }
        self.last += 1;
        self.letters.push_back(Letter { number: self.last, record: record.clone() });
        self.bound();
    }

    fn bound(&mut self) {
        while self.letters.len() > NOTIFY_QUEUE_MAX {
            let sending = self.sending;
            let at = self.letters.iter().position(|letter| sending != Some(letter.number)).unwrap_or(0);
            self.letters.remove(at);
            self.dropped += 1;
        }
    }

    /// What to do at `now_ms` of the caller's clock, which only grows, and this minute of the day.
    pub fn next(&mut self, wants: Wants, now_ms: u64, minute: u16) -> Next {
        if self.letters.is_empty() {
            return Next::Idle;
        }
        if now_ms < self.retry_ms {
            return Next::Wait(self.retry_ms - now_ms);
        }
        match self.letters.iter().find(|letter| wants.now(letter.record.rank(), minute)) {
            Some(letter) => {
                self.sending = Some(letter.number);
                Next::Deliver(letter.clone())
            }
            None => Next::Wait(QUIET_LOOK_MS),
        }
    }

    /// The message was taken.
    pub fn delivered(&mut self, number: u64, wall_ms: u64) {
        self.letters.retain(|letter| letter.number != number);
        self.delivered += 1;
        self.works(wall_ms);
    }

    /// The receiver takes messages.
    pub fn works(&mut self, wall_ms: u64) {
        (self.sending, self.failures, self.retry_ms) = (None, 0, 0);
        (self.last_ok_ms, self.failing_since_ms) = (Some(wall_ms), None);
        self.last_error.clear();
    }

    /// It was not, and is tried again later.
    pub fn failed(&mut self, now_ms: u64, wall_ms: u64, why: String) {
        let wait = NOTIFY_RETRY_MS.saturating_mul(1 << self.failures.min(16)).min(NOTIFY_RETRY_MOST_MS);
        self.failures = self.failures.saturating_add(1);
        (self.sending, self.retry_ms) = (None, now_ms.saturating_add(wait));
        self.failing_since_ms.get_or_insert(wall_ms);
        self.last_error = why;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: u16 = 12 * 60;
    const ALL: Wants = Wants { floor: Severity::Notice, quiet: None };

    fn record(id: u64, severity: Severity) -> RecordView {
        RecordView { id, severity: severity.name().to_owned(), count: 1, ..RecordView::default() }
    }

    fn begun(id: u64, severity: Severity) -> News {
        News::Begun(record(id, severity))
    }

    fn take(outbox: &mut Outbox, wants: Wants, now_ms: u64, minute: u16) -> Option<Letter> {
        match outbox.next(wants, now_ms, minute) {
            Next::Deliver(letter) => Some(letter),
            _ => None,
        }
    }

    #[test]
    fn what_is_below_the_floor_is_not_told() {
        let wants = Wants { floor: Severity::Warning, quiet: None };
        let mut outbox = Outbox::default();
        outbox.post(wants, &begun(1, Severity::Notice));
        assert_eq!(outbox.next(wants, 0, NOON), Next::Idle);
        outbox.post(wants, &begun(2, Severity::Warning));
        assert_eq!(take(&mut outbox, wants, 0, NOON).unwrap().record.id, 2);
    }

    #[test]
    fn in_quiet_hours_only_what_is_critical_is_told_and_the_rest_when_they_are_over() {
        let wants = Wants { floor: Severity::Notice, quiet: Quiet::parse("22:00-07:00") };
        let mut outbox = Outbox::default();
        outbox.post(wants, &begun(1, Severity::Warning));
        for minute in [22 * 60, 23 * 60 + 59, 0, 7 * 60 - 1] {
            assert!(matches!(outbox.next(wants, 0, minute), Next::Wait(_)), "{minute}");
        }
        outbox.post(wants, &begun(2, Severity::Critical));
        let letter = take(&mut outbox, wants, 0, 60).unwrap();
        assert_eq!(letter.record.id, 2);
        outbox.delivered(letter.number, 0);
        assert_eq!(take(&mut outbox, wants, 0, 60), None);
        assert_eq!(take(&mut outbox, wants, 0, 7 * 60).unwrap().record.id, 1);
    }

    #[test]
    fn hours_are_read_as_they_are_written() {
        let day = Quiet::parse("09:30-17:00").unwrap();
        assert_eq!([569, 570, 1019, 1020].map(|minute| day.covers(minute)), [false, true, true, false]);
        assert_eq!(day.to_string(), "09:30-17:00");
        for bad in ["", "9:30-17:00", "09:30", "24:00-01:00", "09:60-10:00", "09:30-09:30", "+9:30-17:00"] {
            assert_eq!(Quiet::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_failed_is_tried_again_ever_later_and_at_once_when_it_works_again() {
        let mut outbox = Outbox::default();
        outbox.post(ALL, &begun(1, Severity::Warning));
        let (mut now, mut waits) = (0, Vec::new());
        for _ in 0..12 {
            assert!(take(&mut outbox, ALL, now, NOON).is_some());
            outbox.failed(now, 5, "refused".to_owned());
            let Next::Wait(ms) = outbox.next(ALL, now, NOON) else { panic!("it waits") };
            waits.push(ms);
            now += ms;
        }
        assert_eq!(waits[..4], [1000, 2000, 4000, 8000]);
        assert_eq!(waits[11], NOTIFY_RETRY_MOST_MS);
        assert_eq!((outbox.failing_since_ms, outbox.last_error.as_str()), (Some(5), "refused"));
        let letter = take(&mut outbox, ALL, now, NOON).unwrap();
        outbox.delivered(letter.number, 9);
        assert_eq!((outbox.failing_since_ms, outbox.last_ok_ms), (None, Some(9)));
        outbox.post(ALL, &begun(2, Severity::Warning));
        assert!(take(&mut outbox, ALL, now, NOON).is_some());
    }

    #[test]
    fn a_record_that_ends_before_its_beginning_was_told_is_one_message_but_not_while_that_is_under_way() {
        let ended = |id| News::Ended(RecordView { ended_ms: Some(9), ..record(id, Severity::Warning) });
        let mut outbox = Outbox::default();
        outbox.post(ALL, &begun(1, Severity::Warning));
        outbox.post(ALL, &ended(1));
        assert_eq!(outbox.letters().map(|letter| letter.record.ended_ms).collect::<Vec<_>>(), [Some(9)]);
        let letter = take(&mut outbox, ALL, 0, NOON).unwrap();
        outbox.delivered(letter.number, 0);
        outbox.post(ALL, &begun(2, Severity::Warning));
        let letter = take(&mut outbox, ALL, 0, NOON).unwrap();
        outbox.post(ALL, &ended(2));
        assert_eq!(outbox.letters().count(), 2);
        outbox.delivered(letter.number, 0);
        assert_eq!(take(&mut outbox, ALL, 0, NOON).unwrap().record.ended_ms, Some(9));
    }

    #[test]
    fn a_receiver_that_is_gone_for_long_costs_no_more_than_the_bound_and_what_was_left_out_is_counted() {
        let mut outbox = Outbox::default();
        for id in 0..NOTIFY_QUEUE_MAX as u64 + 7 {
            outbox.post(ALL, &begun(id, Severity::Warning));
        }
        assert_eq!((outbox.letters().count(), outbox.dropped), (NOTIFY_QUEUE_MAX, 7));
        assert_eq!(take(&mut outbox, ALL, 0, NOON).unwrap().record.id, 7, "the newest are kept");
        let mut again = Outbox::kept(outbox.letters().cloned().collect(), outbox.dropped);
        again.post(ALL, &begun(9999, Severity::Warning));
        let numbers: Vec<u64> = again.letters().map(|letter| letter.number).collect();
        assert!(numbers.is_sorted() && numbers.len() == NOTIFY_QUEUE_MAX, "no number comes twice");
    }
}

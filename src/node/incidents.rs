//! What people should know: to the log, and to a file of bounded size. Off the hot thread.

use super::core::RoundContext;
use super::layout::{Layout, OwnName};
use super::log::{PACED, one_line};
use super::notify::Desk;
use crate::base::Repeats;
use crate::base::limits::{INCIDENT_FILE_MAX, NOTES_MAX, REPEAT_KEYS_MAX, REPEAT_QUIET_MS};
use crate::engine::{Incident, Severity};
use crate::io::Own;
use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

/// Hands incidents over to their thread without ever waiting.
#[derive(Clone, Debug)]
pub(crate) struct Notes {
    sender: SyncSender<Note>,
    dropped: Arc<AtomicU64>,
}

/// What is handed over.
#[derive(Clone, Debug)]
pub(crate) enum Note {
    /// An incident.
    Told(Incident),
    /// The trouble with this word is over (milliseconds since 1970).
    Ended(&'static str, u64),
}

impl Notes {
    /// A sender, and what its thread runs on.
    pub(crate) fn new() -> (Self, Recorder) {
        let (sender, receiver) = sync_channel(NOTES_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        (Self { sender, dropped: Arc::clone(&dropped) }, Recorder { receiver, dropped })
    }

    /// Tells people, later. When far too much is told, the rest is counted only.
    pub(crate) fn incident(&self, incident: Incident) {
        self.hand_over(Note::Told(incident));
    }

    /// A trouble is over, whether people were told or not.
    pub(crate) fn ended(&self, code: &'static str, wall_ms: u64) {
        self.hand_over(Note::Ended(code, wall_ms));
    }

    fn hand_over(&self, note: Note) {
        if let Err(TrySendError::Full(_)) = self.sender.try_send(note) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The other end of [`Notes`].
pub(crate) struct Recorder {
    receiver: Receiver<Note>,
    dropped: Arc<AtomicU64>,
}

impl Recorder {
    /// Logs and files incidents until the last [`Notes`] is gone.
    pub(crate) fn run(self, layout: &Layout, desk: &Desk) {
        let mut file = IncidentFile::new(layout, INCIDENT_FILE_MAX);
        desk.save();
        self.each(
            |note| match note {
                Note::Told(incident) => {
                    log(incident);
                    if let Err(error) = file.append(incident) {
                        tracing::warn!("appending to {}: {error}", file.newest.path().display());
                    }
                    desk.note(incident);
                }
                Note::Ended(code, wall_ms) => desk.ended(code, *wall_ms),
            },
            || desk.save(),
        );
    }

    /// Gives each note to `take` until the last [`Notes`] is gone, and calls `rest` whenever no more wait.
    pub(crate) fn each(self, mut take: impl FnMut(&Note), mut rest: impl FnMut()) {
        while let Ok(note) = self.receiver.recv() {
            take(&note);
            // What came meanwhile is taken first; no more than the channel holds at once.
            for note in self.receiver.try_iter().take(NOTES_MAX) {
                take(&note);
            }
            rest();
            let dropped = self.dropped.swap(0, Ordering::Relaxed);
            if dropped > 0 {
                tracing::warn!("{dropped} incidents came too fast and were not written down");
            }
        }
    }
}

fn log(incident: &Incident) {
    let text = one_line(&incident.text);
    match incident.severity {
        Severity::Notice => tracing::info!(target: PACED, "{}: {text}", incident.kind),
        Severity::Warning => tracing::warn!(target: PACED, "{}: {text}", incident.kind),
        Severity::Critical => tracing::error!(target: PACED, "{}: {text}", incident.kind),
    }
}

/// JSON lines; at its limit it becomes `<name>.old` and a new one begins.
#[derive(Debug)]
struct IncidentFile {
    newest: Own,
    old: Own,
    limit: u64,
    open: Option<(File, u64)>,
}

impl IncidentFile {
    fn new(layout: &Layout, limit: u64) -> Self {
        let (newest, old) = (layout.own(OwnName::Incidents), layout.own(OwnName::OldIncidents));
        Self { newest, old, limit, open: None }
    }

    fn append(&mut self, incident: &Incident) -> io::Result<()> {
        let mut line = serde_json::to_vec(incident)?;
        line.push(b'\n');
        let more = line.len() as u64;
        if self.open.as_ref().is_some_and(|(_, bytes)| bytes + more > self.limit) {
            self.open = None;
            self.newest.rename(&self.old)?;
        }
        let (file, bytes) = match &mut self.open {
            Some(open) => open,
            closed @ None => {
                let file = self.newest.append()?;
                let bytes = file.metadata()?.len();
                closed.insert((file, bytes))
            }
        };
        file.write_all(&line)?;
        *bytes += more;
        Ok(())
    }
}

/// Turns a trouble that may repeat a thousand times a second into an incident a minute for each reason.
#[derive(Debug)]
pub(crate) struct RateLimited {
    kind: &'static str,
    count: u64,
    /// Reasons may hold what a stranger sent, so their number is bounded.
    repeats: Repeats<String, Incident>,
}

impl RateLimited {
    /// Nothing happened yet.
    pub(crate) fn new(kind: impl Into<&'static str>) -> Self {
        let repeats = Repeats::new(1, REPEAT_QUIET_MS, REPEAT_KEYS_MAX);
        Self { kind: kind.into(), count: 0, repeats }
    }

    /// How often it happened.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// It happened: counts it, and makes an incident of `text` if `reason` was not told within a minute.
    pub(crate) fn note(&mut self, turn: &mut RoundContext, reason: &str, text: &str) {
        self.count += 1;
        let (kind, wall_ms) = (self.kind, turn.wall_ms);
        let incident =
            Incident { severity: Severity::Warning, kind, text: text.to_owned(), wall_ms, lasts: false };
        if let Some(telling) = self.repeats.say(turn.now, reason.to_owned(), incident) {
            let mut incident = telling.what;
            if telling.unsaid > 0 {
                incident.text.push_str(&format!(" ({} more times in the last minute)", telling.unsaid));
            }
            turn.incidents.push(incident);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn incident(text: &str) -> Incident {
        Incident { severity: Severity::Notice, kind: "test", text: text.to_owned(), wall_ms: 7, lasts: false }
    }

    #[test]
    fn the_incident_file_stays_within_twice_its_limit_and_keeps_the_newest() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("incidents.jsonl");
        let mut file = IncidentFile::new(&Layout::new(dir.path()), 1000);
        for round in 0..100 {
            file.append(&incident(&format!("number {round}"))).unwrap();
        }
        let old = std::fs::read_to_string(dir.path().join("incidents.jsonl.old")).unwrap();
        let new = std::fs::read_to_string(&path).unwrap();
        assert!(old.len() <= 1000 && new.len() <= 1000, "{} and {}", old.len(), new.len());
        assert!(new.ends_with("\"text\":\"number 99\",\"wall_ms\":7}\n"), "{new}");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
        let lines = old.lines().chain(new.lines());
        assert!(lines.map(serde_json::from_str::<serde_json::Value>).all(|line| line.is_ok()));
    }

    #[test]
    fn a_reopened_incident_file_counts_what_it_held() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("incidents.jsonl");
        for _ in 0..50 {
            IncidentFile::new(&Layout::new(dir.path()), 400).append(&incident("again")).unwrap();
        }
        assert_eq!(std::fs::read(&path).unwrap().len() as u64, std::fs::metadata(&path).unwrap().len());
    }
}

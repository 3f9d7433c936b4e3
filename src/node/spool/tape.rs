//! What the spool's thread does with reels: bursts of parts, reads that wait for their reel, and the request for one.

use super::dir::WriteError;
use super::reels::{ReelSpool, Unread};
use super::{Reach, no_errno};
use crate::base::Fault;
use crate::base::limits::{SPOOL_BAD_MS, SPOOL_CHANGER_MS, SPOOL_REEL_MS};
use crate::engine::{JournalEvent, ReadSegment, SpoolEvent};
use crate::format::spool::PartHeader;
use crate::node::inbox::{CoreEnded, Inbox};
use crate::node::tape::{self, Answer, Request, TapeError};
use bytes::Bytes;
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A part that does not count yet.
#[derive(Clone, Copy, Debug)]
struct Open {
    round: u64,
    /// It is a copy of a segment of the journal, not moved from the directory.
    copied: bool,
}

/// The reels of a spool, and who waits for them.
pub(super) struct TapeDesk {
    pub(super) reels: ReelSpool,
    open: VecDeque<Open>,
    /// Reads whose reel is not there, or could not be read a moment ago.
    waiting: VecDeque<(ReadSegment, PartHeader)>,
    /// The reels that are missing: to write to, to read from.
    missing: [Option<String>; 2],
    told: Option<String>,
    number: u64,
    since: u64,
    /// After this it is looked again whether the reel is there.
    look: Instant,
    /// Not before this: a changer showed all that it has.
    not_before: Option<Instant>,
    /// A part that could not be read, and since when.
    bad: Option<(PartHeader, Instant)>,
    alerts: Alerts,
}

/// Flags that drives set, until they are told.
#[derive(Clone, Debug, Default)]
pub(super) struct Alerts(Arc<Mutex<Vec<u8>>>);

impl Alerts {
    /// What hears of them.
    pub(super) fn alarm(&self) -> tape::Alarm {
        let Self(heard) = self.clone();
        tape::Alarm::new(move |flags| heard.lock().unwrap_or_else(PoisonError::into_inner).extend(flags))
    }

    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

const WRITE: usize = 0;
const READ: usize = 1;

impl TapeDesk {
    pub(super) fn new(reels: ReelSpool, alerts: Alerts) -> Self {
        let (open, waiting) = (VecDeque::new(), VecDeque::new());
        let (missing, told, not_before) = ([None, None], None, None);
        let (number, since, look, bad) = (0, 0, Instant::now(), None);
        Self { reels, open, waiting, missing, told, number, since, look, not_before, bad, alerts }
    }

    /// Tells of flags that the drive set.
    pub(super) fn tell_alerts(&self, inbox: &Inbox) -> Result<(), CoreEnded> {
        let flags = self.alerts.take();
        if flags.is_empty() {
            return Ok(());
        }
        inbox.event(SpoolEvent::Alerts { drive: self.reels.name(), flags })
    }

    /// How long may pass until [`Self::idle`].
    pub(super) fn wait(&self) -> Duration {
        if self.missing.iter().any(Option::is_some) {
            Duration::from_millis(250)
        } else {
            Duration::from_secs(30)
        }
    }

    /// Writes a part. What counts is told; what fails ends all that does not count.
    pub(super) fn put(
        &mut self,
        (round, copied): (u64, bool),
        part: &PartHeader,
        read: impl FnMut(u64, usize) -> io::Result<Bytes>,
        reach: &Reach<'_>,
    ) -> Result<(), CoreEnded> {
        self.open.push_back(Open { round, copied });
        if self.rests() {
            return self.failed(Fault::NO_REEL, reach);
        }
        let mut done = Vec::new();
        let put = self.reels.put(part, read, &mut done);
        self.counted(done.len(), reach)?;
        let fault = match put {
            Ok(()) => return self.found(WRITE, reach.inbox),
            Err(WriteError::Tape(error)) => self.tape_fault(&error, reach.inbox)?,
            Err(_) if copied && reach.is_gone(part) => Fault::STALE,
            Err(WriteError::Spool(error) | WriteError::Read(error)) => {
                tracing::warn!("reading part {} for its reel: {error}", part.file_name());
                Fault::from_io(&no_errno(error))
            }
            Err(WriteError::Segment(error)) => {
                tracing::error!("reading part {} for its reel: {error}", part.file_name());
                Fault::UNCLEAN
            }
        };
        self.failed(fault, reach)
    }

    /// Nothing more is asked for: the burst ends, and what it holds counts.
    pub(super) fn finish(&mut self, reach: &Reach<'_>) -> Result<(), CoreEnded> {
        let mut done = Vec::new();
        let finished = self.reels.finish(&mut done);
        self.counted(done.len(), reach)?;
        let Err(error) = finished else { return Ok(()) };
        let fault = self.tape_fault(&error, reach.inbox)?;
        self.failed(fault, reach)
    }

    /// Whether a changer was asked a moment ago, and had nothing.
    fn rests(&self) -> bool {
        self.missing[WRITE].is_some() && self.not_before.is_some_and(|at| Instant::now() < at)
    }

    fn counted(&mut self, count: usize, reach: &Reach<'_>) -> Result<(), CoreEnded> {
        let count = count.min(self.open.len());
        let done: Vec<Open> = self.open.drain(..count).collect();
        done.into_iter().try_for_each(|open| answer(open, Ok(()), reach))
    }

    fn failed(&mut self, fault: Fault, reach: &Reach<'_>) -> Result<(), CoreEnded> {
        let open = std::mem::take(&mut self.open);
        open.into_iter().try_for_each(|open| answer(open, Err(fault), reach))
    }

    /// What the engine is told of an error; a reel that is missing is asked for.
    fn tape_fault(&mut self, error: &TapeError, inbox: &Inbox) -> Result<Fault, CoreEnded> {
        if error.waits() {
            self.miss(WRITE, error.to_string(), inbox)?;
            return Ok(Fault::NO_REEL);
        }
        tracing::error!("writing to {}: {error}; {}", self.reels.name(), error.next());
        Ok(Fault::Errno(libc::EIO))
    }

    /// Reads of a part; one whose reel is missing waits for it.
    pub(super) fn read(
        &mut self,
        read: ReadSegment,
        part: PartHeader,
        inbox: &Inbox,
    ) -> Result<(), CoreEnded> {
        let result = match self.reels.read(&part, read.offset, read.len) {
            Ok(bytes) => {
                self.bad.take_if(|(bad, _)| *bad == part);
                self.found(READ, inbox)?;
                Ok(bytes)
            }
            Err(Unread::Waits(error)) => {
                self.waiting.push_back((read, part));
                return self.miss(READ, error.to_string(), inbox);
            }
            Err(Unread::Bad(error)) if !self.is_bad_for_good(&part) => {
                // From its reel's label on: what is there may be another one by now.
                self.reels.rest();
                self.waiting.push_back((read, part));
                let name = part.file_name();
                return self.miss(
                    READ,
                    format!("part {name} cannot be read ({error}), and is tried again"),
                    inbox,
                );
            }
            Err(Unread::Bad(error)) => {
                self.bad = None;
                inbox.event(SpoolEvent::Damaged { part, why: error.to_string() })?;
                Err(Fault::UNCLEAN)
            }
            Err(Unread::Failed(error)) => {
                tracing::warn!("reading part {} from {}: {error}", part.file_name(), self.reels.name());
                Err(Fault::from_io(&no_errno(error)))
            }
        };
        inbox.event(JournalEvent::Read { read: read.read, result })
    }

    /// Whether a part could not be read for so long that it counts as damaged. A drive may read at another try what it did
    /// not at first, and an image may still be on its way into its place.
    fn is_bad_for_good(&mut self, part: &PartHeader) -> bool {
        self.bad.take_if(|(bad, _)| bad != part);
        let (_, since) = *self.bad.get_or_insert_with(|| (*part, Instant::now()));
        since.elapsed() >= Duration::from_millis(SPOOL_BAD_MS)
    }

    /// Looks whether reels that are missing came.
    pub(super) fn idle(&mut self, inbox: &Inbox) -> Result<(), CoreEnded> {
        if self.missing.iter().all(Option::is_none) {
            // Who waits for nothing and reads nothing lets others use the drive.
            self.reels.rest();
            return Ok(());
        }
        let answered = match tape::take_answer(self.reels.options()) {
            Some(Answer::GiveUp) => {
                self.missing[READ] = None;
                let given_up = std::mem::take(&mut self.waiting);
                self.tell(inbox)?;
                return given_up.into_iter().try_for_each(|(read, _)| {
                    inbox.event(JournalEvent::Read { read: read.read, result: Err(Fault::NO_REEL) })
                });
            }
            answer => answer.is_some(),
        };
        if answered {
            (self.look, self.not_before) = (Instant::now(), None);
        }
        if Instant::now() < self.look || self.not_before.is_some_and(|at| Instant::now() < at) {
            return Ok(());
        }
        self.look = Instant::now() + Duration::from_millis(SPOOL_REEL_MS);
        let waiting = std::mem::take(&mut self.waiting);
        waiting.into_iter().try_for_each(|(read, part)| self.read(read, part, inbox))
    }

    fn miss(&mut self, what: usize, text: String, inbox: &Inbox) -> Result<(), CoreEnded> {
        self.missing[what] = Some(text);
        self.look = Instant::now() + Duration::from_millis(SPOOL_REEL_MS);
        if self.reels.options().changer.is_some() {
            self.not_before = Some(Instant::now() + Duration::from_millis(SPOOL_CHANGER_MS));
        }
        self.tell(inbox)
    }

    fn found(&mut self, what: usize, inbox: &Inbox) -> Result<(), CoreEnded> {
        self.not_before = None;
        if self.missing[what].take().is_some() { self.tell(inbox) } else { Ok(()) }
    }

    /// Says which reels are missing, when that is something else than what was said; in a numbered request, too.
    fn tell(&mut self, inbox: &Inbox) -> Result<(), CoreEnded> {
        let all: Vec<&str> = self.missing.iter().flatten().map(String::as_str).collect();
        let wanted = (!all.is_empty()).then(|| all.join("; "));
        if wanted == self.told {
            return Ok(());
        }
        match &wanted {
            None => tape::close(self.reels.options()),
            Some(text) => self.ask(text),
        }
        self.told.clone_from(&wanted);
        inbox.event(SpoolEvent::Reel { wanted })
    }

    fn ask(&mut self, text: &str) {
        if self.told.is_none() {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            (self.number, self.since) =
                (self.number + 1, u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
        }
        let purpose = if self.missing[WRITE].is_some() { "write" } else { "read" };
        let request = Request {
            number: self.number,
            place: self.reels.name(),
            wanted: text.to_owned(),
            purpose: purpose.to_owned(),
            why: "the spool needs it".to_owned(),
            refused: None,
            since_ms: self.since,
            pid: std::process::id(),
        };
        if let Err(error) = tape::ask(self.reels.options(), &request) {
            tracing::warn!("writing down the request for a reel: {error}");
        }
    }
}

impl Drop for TapeDesk {
    fn drop(&mut self) {
        if self.told.is_some() {
            tape::close(self.reels.options());
        }
    }
}

fn answer(open: Open, result: Result<(), Fault>, reach: &Reach<'_>) -> Result<(), CoreEnded> {
    let Open { round, copied } = open;
    match copied {
        // What a reel has left is not known to anybody.
        true => reach.inbox.event(SpoolEvent::Copied { round, result: result.map(|()| 0) }),
        false => reach.inbox.event(SpoolEvent::Moved { round, result }),
    }
}

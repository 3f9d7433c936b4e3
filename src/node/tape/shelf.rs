//! Brings reels into a drive: opens an image, waits for an operator, or asks a changer.

use super::changer::Changer;
use super::requests::{self, Answer, Request};
use super::st::Tape;
use super::tap::Image;
use super::{CatalogueFile, Place, TapeError, TapeOptions};
use crate::base::plainly;
use crate::format::set::SetId;
use crate::tape::{
    Drive, Event, Fault, Found, Purpose, Refusal, Shelf, ShelfError, Want, identify, is_label_alone, judge,
};
use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How often it is looked whether the reel is there, and answers were given.
const POLL: Duration = Duration::from_millis(250);
/// How often a drive is looked at, which is opened for that.
const POLL_DRIVE: Duration = Duration::from_secs(2);

/// The shelf of a command; clones share the catalogue.
#[derive(Clone)]
pub(super) struct Operator {
    pub(super) options: TapeOptions,
    pub(super) catalogue: Arc<Mutex<CatalogueFile>>,
    asked: u64,
    /// Slots that were tried since the last reel was found.
    slots: Option<VecDeque<u32>>,
    /// The set that is written to.
    pub(super) writing: Arc<Mutex<Option<SetId>>>,
    /// Nobody is asked for reels: who uses it does that.
    pub(super) quiet: bool,
    /// Ends the waiting.
    pub(super) stopped: Arc<std::sync::atomic::AtomicBool>,
}

/// What a look at the drive came to.
enum Look {
    Fits(Box<dyn Drive>, Found),
    Refused(String),
    Nothing,
}

/// Now (ms since 1970).
pub(super) fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Opens what is at a place: a drive, or the image of this reel.
pub(super) fn open(place: &Place, reel: u32, writes: bool) -> io::Result<Box<dyn Drive>> {
    Ok(match place {
        Place::Device(path) => Box::new(Tape::new(path, writes)?),
        _ => Box::new(Image::open(&place.path(reel))?),
    })
}

impl Operator {
    pub(super) fn new(options: &TapeOptions) -> Result<Self, TapeError> {
        let catalogue = Arc::new(Mutex::new(CatalogueFile::load(options)?));
        let stopped = Arc::default();
        let (options, writing) = (options.clone(), Arc::default());
        Ok(Self { options, catalogue, asked: 0, slots: None, writing, quiet: false, stopped })
    }

    pub(super) fn catalogue(&self) -> MutexGuard<'_, CatalogueFile> {
        self.catalogue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn what(&self, want: &Want) -> String {
        let path = self.options.place.path(want.reel);
        let reel = match want.reel {
            0 => "a reel".to_owned(),
            reel => format!("reel {reel}"),
        };
        match (want.purpose, want.reel) {
            (Purpose::Write, reel) => format!("a reel to write to, as reel {reel} ({})", path.display()),
            _ if want.set.0 == [0; 16] => format!("{reel} ({})", path.display()),
            _ => format!("{reel} of set {} ({})", want.set, path.display()),
        }
    }

    fn drive_error(&self, want: &Want, fault: Fault) -> ShelfError {
        ShelfError::Drive { drive: self.options.place.path(want.reel).display().to_string(), fault }
    }

    /// Looks whether the reel is there.
    fn look(&self, want: &Want) -> Result<Look, ShelfError> {
        let path = self.options.place.path(want.reel);
        let (writes, mut allowed) = (want.purpose != Purpose::Read, self.options.allowed);
        let opened = match open(&self.options.place, want.reel, writes) {
            // An image that is made for it is blank by our own word.
            Err(error) if error.kind() == io::ErrorKind::NotFound && want.purpose == Purpose::Write => {
                allowed.blank = true;
                match &self.options.place {
                    Place::Images(..) => Image::create(&path).map(|image| Box::new(image) as Box<dyn Drive>),
                    _ => Err(error),
                }
            }
            other => other,
        };
        let mut drive = match opened {
            Ok(drive) => drive,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Look::Nothing),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(self.drive_error(want, Fault::Busy));
            }
            Err(error) => return Err(self.drive_error(want, Fault::Failed(plainly(&error)))),
        };
        match identify(&mut *drive) {
            Err(Fault::NoMedium) => Ok(Look::Nothing),
            Err(fault) => {
                drive.disarm();
                self.options.alarm.read(&drive.alerts());
                Err(self.drive_error(want, fault))
            }
            Ok((found, protected)) => match judge(&found, protected, want, allowed) {
                Ok(()) => Ok(Look::Fits(drive, found)),
                // Labelled as this reel by who was ended before that was noted.
                Err(Refusal::Wrong { found: there, wanted })
                    if want.purpose == Purpose::Write && there == wanted && !protected =>
                {
                    match is_label_alone(&mut *drive).map_err(|fault| self.drive_error(want, fault))? {
                        true => Ok(Look::Fits(drive, found)),
                        false => Ok(Look::Refused(Refusal::Wrong { found: there, wanted }.to_string())),
                    }
                }
                // An image that got no more than the label of a set that never was: who made it was ended then.
                Err(refusal @ Refusal::Used { .. })
                    if want.purpose == Purpose::Write
                        && !protected
                        && matches!(self.options.place, Place::Images(..)) =>
                {
                    match is_label_alone(&mut *drive).map_err(|fault| self.drive_error(want, fault))? {
                        true => Ok(Look::Fits(drive, found)),
                        false => Ok(Look::Refused(refusal.to_string())),
                    }
                }
                Err(refusal) => Ok(Look::Refused(refusal.to_string())),
            },
        }
    }

    /// Loads the next slot that was not tried; false if there is none.
    fn change(&mut self, want: &Want) -> Result<bool, ShelfError> {
        let Some(command) = &self.options.changer else { return Ok(false) };
        let changer = Changer::new(command, &self.options.place.path(want.reel));
        let what = self.what(want);
        let failed = |error: TapeError| ShelfError::Missing { what: what.clone(), why: error.to_string() };
        let loaded = changer.loaded().map_err(failed)?;
        if self.slots.is_none() {
            let mut slots = VecDeque::from(changer.full().map_err(failed)?);
            // What is in the drive was looked at already; the row goes on behind it.
            if let Some(at) = slots.iter().position(|slot| Some(*slot) == loaded) {
                slots.rotate_left(at + 1);
                slots.pop_back();
            }
            self.slots = Some(slots);
        }
        let Some(slot) = self.slots.as_mut().and_then(VecDeque::pop_front) else { return Ok(false) };
        if let Some(loaded) = loaded {
            changer.unload(loaded).map_err(failed)?;
        }
        changer.load(slot).map_err(failed)?;
        self.options.teller.tell(&format!("the changer loaded slot {slot}"));
        Ok(true)
    }

    /// Asks people, once for each reason.
    fn ask(&mut self, want: &Want, since_ms: u64, refused: Option<&str>) {
        self.asked += 1;
        let purpose = match want.purpose {
            Purpose::Read => "read",
            Purpose::Append => "append",
            Purpose::Write => "write",
        };
        let request = Request {
            number: self.asked,
            place: self.options.place.name(),
            wanted: self.what(want),
            purpose: purpose.to_owned(),
            why: want.why.clone(),
            refused: refused.map(str::to_owned),
            since_ms,
            pid: std::process::id(),
        };
        if let Err(error) = requests::ask(&self.options, &request) {
            self.options.teller.tell(&format!("the request cannot be written down: {error}"));
        }
        let there =
            refused.map(|why| format!("; the one that is there is not taken: {why}")).unwrap_or_default();
        self.options.teller.tell(&format!(
            "request {}: bring {} ({}){there}; it is seen by itself, or say: hot-backup tape mounted {}",
            self.asked, request.wanted, want.why, request.place
        ));
    }
}

impl Shelf for Operator {
    fn mount(&mut self, want: &Want) -> Result<(Box<dyn Drive>, Found), ShelfError> {
        let (begin, since_ms) = (Instant::now(), wall_ms());
        let mut asked: Option<Option<String>> = None;
        let mut seen: Vec<String> = Vec::new();
        self.slots = None;
        let every = if matches!(self.options.place, Place::Device(_)) { POLL_DRIVE } else { POLL };
        loop {
            match self.look(want)? {
                Look::Fits(mut drive, found) => {
                    self.options.alarm.read(&drive.alerts());
                    if asked.is_some() {
                        requests::close(&self.options);
                        self.options.teller.tell(&format!("request {}: the reel is there", self.asked));
                    }
                    return Ok((drive, found));
                }
                Look::Refused(why) if seen.last() != Some(&why) => seen.push(why),
                Look::Refused(_) | Look::Nothing => {}
            }
            if self.change(want)? {
                continue;
            }
            // Of a changer all that it has was looked at.
            let refused = (!seen.is_empty()).then(|| std::mem::take(&mut seen).join("; "));
            let out = self.options.wait.is_some_and(|wait| begin.elapsed() >= wait);
            if out || self.stopped.load(std::sync::atomic::Ordering::Relaxed) {
                if !self.quiet {
                    requests::close(&self.options);
                }
                let why = refused.unwrap_or_else(|| "it is not there".to_owned());
                return Err(ShelfError::Missing { what: self.what(want), why });
            }
            if asked.as_ref() != Some(&refused) {
                self.ask(want, since_ms, refused.as_deref());
                asked = Some(refused);
            }
            let look = Instant::now();
            while look.elapsed() < every {
                match requests::take_answer(&self.options) {
                    Some(Answer::Mounted) => {
                        self.slots = None;
                        break;
                    }
                    Some(Answer::GiveUp) => {
                        requests::close(&self.options);
                        return Err(ShelfError::Ended { what: self.what(want) });
                    }
                    None => thread::sleep(POLL.min(every)),
                }
            }
        }
    }

    fn tell(&mut self, event: &Event) {
        let name = self.options.place.name();
        let mut catalogue = self.catalogue.lock().unwrap_or_else(PoisonError::into_inner);
        let store = match event {
            Event::Began(header, label) => {
                catalogue.held.set_mut(header.set, label).note_label(header, label);
                true
            }
            Event::Kept(header, position) => {
                if let Some(set) = catalogue.held.find_mut(header.set) {
                    set.note_block(header, *position);
                }
                false
            }
            Event::Alerts(flags) => {
                self.options.alarm.read(flags);
                false
            }
            Event::Full { reel, trailer } => {
                if let Some(trailer) = trailer
                    && let Some(set) = catalogue.held.find_mut(trailer.set)
                {
                    set.note_block(trailer, 0);
                }
                let end = if trailer.is_some() { "" } else { ", without a trailer" };
                self.options.teller.tell(&format!("reel {reel} of {name} is full{end}"));
                true
            }
            Event::Failed { reel, fault } => {
                self.options.teller.tell(&format!(
                    "reel {reel} of {name} failed: {fault}; what counts on it was read back, the rest goes to the next reel"
                ));
                let newest = *self.writing.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(set) = newest.and_then(|set| catalogue.held.find_mut(set)) {
                    set.close_reel(*reel);
                }
                true
            }
        };
        if store && let Err(error) = catalogue.store() {
            self.options
                .teller
                .tell(&format!("{error}; the reels have it all: hot-backup tape list --scan {name}"));
        }
    }
}

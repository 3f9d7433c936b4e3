//! Incidents as records, and who is told of them. What is decided stands in [`crate::engine::records`] and
//! [`crate::engine::notices`]; here are the file, the threads and the receivers.
//!
//! The thread of incidents puts each into the records and into the outbox of each entry of the notify list, and replaces the file.
//! Each entry has a thread of its own, so one that hangs holds up no other. The core hands over and never waits.

mod kept;
mod send;
pub mod target;

pub use kept::fuzz_records;
pub(in crate::node) use send::certificates;
pub use send::fuzz_utmp;
pub(in crate::node) use target::secret;

use super::layout::{Layout, OwnName};
use super::log::PACED;
use crate::base::limits::{INCIDENT_FILE_MAX, NOTIFY_FAILING_MS, NOTIFY_REFRESH_MS, RECORDS_FILE_MAX};
use crate::engine::admin::{AdminReply, AdminRequest, ProofView, RecordView, Status, TargetView};
use crate::engine::incidents::Matter;
use crate::engine::notices::{Letter, Next, Outbox};
use crate::engine::records::{News, Records};
use crate::engine::{DiskSpace, Incident, Severity};
use crate::io::{Demand, Own, local_minute, read_trusted_text};
use kept::{Kept, Waiting};
use send::Message;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use target::{Target, Way};

/// The core has to be heard so often for all to be well (milliseconds).
const PULSE_MS: u64 = 30_000;

/// The records and the outboxes, for all threads that need them.
#[derive(Clone)]
pub(crate) struct Desk(Arc<Inner>);

struct Inner {
    dir: PathBuf,
    node: String,
    targets: Vec<Target>,
    start: Instant,
    state: Mutex<State>,
    changed: Condvar,
    /// Held while the file is replaced.
    file: Mutex<Own>,
}

struct State {
    records: Records,
    outboxes: Vec<Outbox>,
    /// Entries whose failing was told.
    failing: Vec<bool>,
    /// It is not in the file.
    dirty: bool,
    stop: bool,
    /// When the core was last heard (milliseconds since the desk was made).
    pulse: u64,
}

fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn minute() -> u16 {
    local_minute(i64::try_from(wall_ms() / 1000).unwrap_or_default())
}

impl Desk {
    /// With what the node's directory holds. A file that cannot be read is told of, and another one is begun.
    pub(crate) fn open(layout: &Layout, node: &str, targets: Vec<Target>) -> Self {
        let own = layout.own(OwnName::Records);
        let mut records = Records::default();
        let mut waiting = Vec::new();
        match layout.read(own.path(), false, RECORDS_FILE_MAX).map(|bytes| Kept::decode(&bytes)) {
            Ok(Ok(kept)) => {
                records = Records::kept(kept.records, kept.last);
                waiting = kept.waiting;
            }
            Ok(Err(why)) => tracing::warn!("reading {}: {why}; it is begun anew", own.path().display()),
            Err(distrust) if distrust.kind() == Some(io::ErrorKind::NotFound) => {
                read_lines(layout, &mut records)
            }
            Err(distrust) => tracing::warn!("reading {}: {distrust}; it is begun anew", own.path().display()),
        }
        let outbox = |target: &Target| {
            let mine = waiting.iter().find(|waiting| waiting.name == target.name);
            mine.map_or_else(Outbox::default, |mine| Outbox::kept(mine.letters.clone(), mine.dropped))
        };
        let outboxes: Vec<Outbox> = targets.iter().map(outbox).collect();
        let failing = vec![false; targets.len()];
        let state = State { records, outboxes, failing, dirty: true, stop: false, pulse: 0 };
        let desk = Self(Arc::new(Inner {
            dir: layout.dir().to_owned(),
            node: node.to_owned(),
            targets,
            start: Instant::now(),
            state: Mutex::new(state),
            changed: Condvar::new(),
            file: Mutex::new(own),
        }));
        let ended = desk.state().records.restarted(wall_ms());
        desk.post(&mut desk.state(), &ended);
        desk
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic ends the process; what others left is whole after each of their steps.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.0.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn post(&self, state: &mut State, news: &[News]) {
        for one in news {
            for (target, outbox) in self.0.targets.iter().zip(&mut state.outboxes) {
                if !matches!(target.way, Way::Ping { .. }) {
                    outbox.post(target.wants, one);
                }
            }
        }
        state.dirty = true;
        self.0.changed.notify_all();
    }

    /// An incident was told.
    pub(crate) fn note(&self, incident: &Incident) {
        let mut state = self.state();
        let news = state.records.note(incident);
        self.post(&mut state, &news);
    }

    /// A trouble is over.
    pub(crate) fn ended(&self, code: &str, wall_ms: u64) {
        let mut state = self.state();
        let news = state.records.ended(code, wall_ms);
        if !news.is_empty() {
            self.post(&mut state, &news);
        }
    }

    /// Replaces the file if something changed.
    pub(crate) fn save(&self) {
        let file = self.0.file.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = {
            let mut state = self.state();
            if !std::mem::take(&mut state.dirty) {
                return;
            }
            self.kept(&state).encode()
        };
        if let Err(error) = file.replace(&bytes) {
            // The next incident writes all of it.
            self.state().dirty = true;
            tracing::warn!(target: PACED, "replacing {}: {error}", file.path().display());
        }
    }

    fn kept(&self, state: &State) -> Kept {
        let waiting = |(target, outbox): (&Target, &Outbox)| Waiting {
            name: target.name.clone(),
            letters: outbox.letters().cloned().collect(),
            dropped: outbox.dropped,
        };
        Kept {
            last: state.records.last(),
            records: state.records.iter().cloned().collect(),
            waiting: self.0.targets.iter().zip(&state.outboxes).map(waiting).collect(),
        }
    }

    /// Ends the threads of the notify list; what waits is in the file.
    pub(crate) fn stop(&self) {
        self.state().stop = true;
        self.0.changed.notify_all();
    }

    /// The core lives.
    pub(crate) fn pulse(&self) {
        let now = self.now_ms();
        // The core waits for nobody; the next round is soon.
        if let Ok(mut state) = self.0.state.try_lock() {
            state.pulse = now;
        }
    }

    /// How many entries the list has.
    pub(crate) fn targets(&self) -> usize {
        self.0.targets.len()
    }

    /// Waits for so long, or until the end: then false.
    pub(crate) fn rest(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        let mut state = self.state();
        while !state.stop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return true;
            }
            state = self.0.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        false
    }

    /// Delivers to an entry of the list until the end.
    pub(crate) fn run(&self, at: usize) {
        let Some(target) = self.0.targets.get(at) else { return };
        if let Way::Ping { seconds, .. } = target.way {
            return self.run_ping(target, at, seconds);
        }
        let forgets = matches!(target.way, Way::Alertmanager(_));
        let mut refreshed = Instant::now();
        while let Some(letter) = self.wait_for_letter(at, target, forgets) {
            if let Some(letter) = letter {
                let message = Message { node: self.0.node.clone(), record: letter.record, test: false };
                let result = send::deliver(&self.0.dir, target, &message);
                self.conclude(at, target, letter.number, result);
            }
            if forgets && refreshed.elapsed() >= Duration::from_millis(NOTIFY_REFRESH_MS) {
                refreshed = Instant::now();
                send::refresh(&self.0.dir, target, &self.lasting(target));
            }
        }
    }

    fn lasting(&self, target: &Target) -> Vec<Message> {
        let state = self.state();
        let open =
            state.records.iter().filter(|record| record.is_open() && record.rank() >= target.wants.floor);
        open.map(|record| Message { node: self.0.node.clone(), record: record.clone(), test: false })
            .collect()
    }

    /// The next message; nothing in it if there is none within a minute and the entry wants to be asked, none at the end.
    fn wait_for_letter(&self, at: usize, target: &Target, asks: bool) -> Option<Option<Letter>> {
        let mut state = self.state();
        loop {
            if state.stop {
                return None;
            }
            let next = state.outboxes.get_mut(at)?.next(target.wants, self.now_ms(), minute());
            let wait = match next {
                Next::Deliver(letter) => return Some(Some(*letter)),
                Next::Wait(ms) => Some(ms),
                Next::Idle => None,
            };
            let longest = asks.then_some(NOTIFY_REFRESH_MS);
            let Some(ms) = wait.into_iter().chain(longest).min() else {
                state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let (again, timeout) = self
                .0
                .changed
                .wait_timeout(state, Duration::from_millis(ms))
                .unwrap_or_else(PoisonError::into_inner);
            state = again;
            if timeout.timed_out() && asks && longest == Some(ms) {
                return Some(None);
            }
        }
    }

    /// Notes what became of a message.
    fn conclude(&self, at: usize, target: &Target, number: u64, result: Result<String, String>) {
        let (now, wall) = (self.now_ms(), wall_ms());
        let mut state = self.state();
        let State { outboxes, failing, .. } = &mut *state;
        let (Some(outbox), Some(failing)) = (outboxes.get_mut(at), failing.get_mut(at)) else { return };
        match result {
            Ok(_) => {
                outbox.delivered(number, wall);
                *failing = false;
            }
            Err(why) => {
                tracing::warn!(target: PACED, "telling {} ({}): {why}", target.name, target.kind());
                outbox.failed(now, wall, why);
                let since = outbox.failing_since_ms.unwrap_or(wall);
                *failing |= wall.saturating_sub(since) >= NOTIFY_FAILING_MS;
            }
        }
        self.tell_failing(&mut state, wall);
        state.dirty = true;
        drop(state);
        self.save();
    }

    /// Tells the others of entries that take nothing, once, and once that is over.
    fn tell_failing(&self, state: &mut State, wall_ms: u64) {
        let matter = Matter::NotifyFailed.row();
        let told = state.records.iter().any(|record| record.is_open() && record.code == matter.code);
        let names: Vec<&str> = self
            .0
            .targets
            .iter()
            .zip(&state.failing)
            .filter(|(_, failing)| **failing)
            .map(|(target, _)| target.name.as_str())
            .collect();
        let news = match (names.is_empty(), told) {
            (false, false) => {
                let text = format!("messages to {} cannot be delivered", names.join(", "));
                let (severity, kind) = (matter.severity, matter.code);
                state.records.note(&Incident { severity, kind, text, wall_ms, lasts: true })
            }
            (true, true) => state.records.ended(matter.code, wall_ms),
            _ => return,
        };
        self.post(state, &news);
    }

    fn run_ping(&self, target: &Target, at: usize, seconds: u64) {
        let Way::Ping { http, .. } = &target.way else { return };
        while self.rest(Duration::from_secs(seconds)) {
            if !self.is_well(target.wants.floor) {
                continue;
            }
            let result = send::ping(&self.0.dir, http);
            let (now, wall) = (self.now_ms(), wall_ms());
            let mut state = self.state();
            let Some(outbox) = state.outboxes.get_mut(at) else { return };
            match result {
                Ok(_) => {
                    outbox.delivered += 1;
                    outbox.works(wall);
                }
                Err(why) => outbox.failed(now, wall, why),
            }
        }
    }

    /// Whether the core lives, and nothing lasts that is as severe as `floor`.
    fn is_well(&self, floor: Severity) -> bool {
        let now = self.now_ms();
        let state = self.state();
        now.saturating_sub(state.pulse) < PULSE_MS
            && !state.records.iter().any(|record| record.is_open() && record.rank() >= floor)
    }

    /// The notify list as people see it.
    pub(crate) fn views(&self) -> Vec<TargetView> {
        let state = self.state();
        let view = |(target, outbox): (&Target, &Outbox)| TargetView {
            name: target.name.clone(),
            kind: target.kind().to_owned(),
            to: target.to(),
            severity: target.wants.floor.name().to_owned(),
            quiet: target.wants.quiet.map(|quiet| quiet.to_string()).unwrap_or_default(),
            queued: outbox.letters().count() as u64,
            dropped: outbox.dropped,
            delivered: outbox.delivered,
            last_ok_ms: outbox.last_ok_ms,
            failing_since_ms: outbox.failing_since_ms,
            last_error: outbox.last_error.clone(),
        };
        self.0.targets.iter().zip(&state.outboxes).map(view).collect()
    }

    /// Answers what concerns records and the list; all else is not answered here.
    pub(crate) fn answer(&self, request: &AdminRequest) -> Option<AdminReply> {
        let ok = |value| AdminReply::Ok { value };
        Some(match request {
            AdminRequest::IncidentRecords => {
                let all: Vec<RecordView> = self.state().records.iter().cloned().collect();
                ok(all.into())
            }
            AdminRequest::IncidentAck { id, who } => self.ack(*id, who),
            AdminRequest::NotifyList => ok(self.views().into()),
            AdminRequest::NotifyTest { name } => self.prove(name.as_deref()),
            _ => return None,
        })
    }

    /// Adds to a status what only the desk knows.
    pub(crate) fn complete(&self, status: &mut Status) {
        status.notify = self.views();
    }

    fn ack(&self, id: u64, who: &str) -> AdminReply {
        let mut state = self.state();
        let Some(record) = state.records.ack(id, who, wall_ms()).cloned() else {
            let message = format!("acknowledging incident {id}: there is none of that number");
            return AdminReply::No { message, next: "see `hot-backup incidents list`".to_owned() };
        };
        state.dirty = true;
        drop(state);
        self.save();
        AdminReply::Ok { value: record.into() }
    }

    /// Sends a message to each entry, or to one, and says what became of it.
    fn prove(&self, name: Option<&str>) -> AdminReply {
        let chosen: Vec<usize> = (0..self.targets())
            .filter(|at| {
                name.is_none_or(|name| self.0.targets.get(*at).is_some_and(|target| target.name == name))
            })
            .collect();
        if let (true, Some(name)) = (chosen.is_empty(), name) {
            let message = format!("testing {}: the notify list has no such entry", name.escape_debug());
            return AdminReply::No { message, next: "see `hot-backup notify list`".to_owned() };
        }
        let proofs: Vec<ProofView> = thread::scope(|scope| {
            let each: Vec<_> = chosen.into_iter().map(|at| scope.spawn(move || self.prove_one(at))).collect();
            each.into_iter().filter_map(|one| one.join().ok().flatten()).collect()
        });
        AdminReply::Ok { value: proofs.into() }
    }

    fn prove_one(&self, at: usize) -> Option<ProofView> {
        let target = self.0.targets.get(at)?;
        let begin = Instant::now();
        let record = RecordView {
            severity: Severity::Notice.name().to_owned(),
            code: "test".to_owned(),
            what: format!("this is a test of the entry \"{}\" of the notify list", target.name),
            since_ms: wall_ms(),
            last_ms: wall_ms(),
            count: 1,
            ..RecordView::default()
        };
        let message = Message { node: self.0.node.clone(), record, test: true };
        let result = send::deliver(&self.0.dir, target, &message);
        let mut state = self.state();
        let (now, wall) = (self.now_ms(), wall_ms());
        if let Some(outbox) = state.outboxes.get_mut(at) {
            match &result {
                Ok(_) => outbox.works(wall),
                Err(why) if outbox.letters().next().is_none() => outbox.failed(now, wall, why.clone()),
                Err(_) => {}
            }
        }
        // What waits may go at once.
        self.0.changed.notify_all();
        let ok = result.is_ok();
        let text = super::log::one_line(&result.unwrap_or_else(|why| why)).into_owned();
        let ms = u64::try_from(begin.elapsed().as_millis()).unwrap_or(u64::MAX);
        Some(ProofView { name: target.name.clone(), ok, text, ms })
    }
}

/// Takes what an earlier version wrote down.
fn read_lines(layout: &Layout, records: &mut Records) {
    for name in [OwnName::OldIncidents, OwnName::Incidents] {
        let own = layout.own(name);
        let most = usize::try_from(2 * INCIDENT_FILE_MAX).unwrap_or(usize::MAX);
        if let Ok(text) = read_trusted_text(own.path(), Demand { most, secret: false, linked: false }) {
            kept::records_of_lines(&text, records);
        }
    }
}

/// Free space of the file system of the node's directory. May wait for that.
pub(crate) fn disk_space(layout: &Layout) -> Option<DiskSpace> {
    let told = nix::sys::statvfs::statvfs(layout.dir()).ok()?;
    let unit = told.fragment_size();
    Some(DiskSpace {
        free: told.blocks_available().saturating_mul(unit),
        total: told.blocks().saturating_mul(unit),
    })
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;

//! A watch: holds a lease in etcd for the node beside it, and lets that node accept updates while it does.
//!
//! Each round it asks the node, then etcd, and does what [`decide`] says. Nothing is kept but what can be asked again, so a
//! watch may be ended and started at any moment; one that stands still lets the node's time run out, and then the lease.

mod etcd;
mod hook;

pub use etcd::{EtcdError, EtcdPlace};
pub use hook::Hook;

use crate::base::limits::{WATCH_ASK_MS, WATCH_LOOK_MS, WATCH_RETRY_MS, WATCH_TAKEOVER_S};
use crate::engine::admin::{
    AdminAnswer, AdminReply, AdminRequest, Grant, LeaseView, SwitchoverView, TakeoverAccount,
};
use crate::engine::decider::{Absent, Held, Record, Seen, Step, decide, granted_ms};
use crate::io::{Demand, read_trusted_text};
use crate::node::admin::{AdminCallError, call};
use crate::node::layout::Layout;
use etcd::{Entry, Etcd, Unless};
use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

/// What a watch is to do.
#[derive(Clone, Debug)]
pub struct WatchOrder {
    /// The directory of its node.
    pub dir: PathBuf,
    /// Where the lease is.
    pub place: EtcdPlace,
    /// What its keys begin with.
    pub prefix: String,
    /// How long the lease lasts (seconds).
    pub ttl: u64,
    /// A node whose process has ended keeps the lease for so long.
    pub release_after: Duration,
    /// Take over although updates that were acknowledged may be lost.
    pub allow_loss: bool,
    /// What makes sure that the other node does not serve; it must succeed before a takeover.
    pub fence: Option<Hook>,
}

/// Something that people may want to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Told {
    /// A fixed word: waits, holds, lost, released, lapses, fencing, fence-failed, taking-over, taken-over, refused, error.
    pub what: &'static str,
    /// A sentence.
    pub text: String,
}

/// The value of the lease's key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Holder {
    pair: String,
    name: String,
    ordinal: u8,
    epoch: u64,
}

/// Reads any bytes as what stands where the lease is.
pub fn fuzz_lease(bytes: &[u8]) {
    let _ = serde_json::from_slice::<Holder>(bytes);
    let _ = serde_json::from_slice::<Record>(bytes);
    let _ = serde_json::from_slice(bytes).map(|answer| etcd::found(&answer, 0));
}

struct Watch<'a> {
    order: &'a WatchOrder,
    etcd: Etcd,
    told: &'a mut dyn FnMut(&Told),
    last: Option<Told>,
    /// The node, as it was last seen.
    node: Option<LeaseView>,
    gone: Option<Instant>,
    free: Option<Instant>,
    asking: Option<Instant>,
    wake: Option<Receiver<()>>,
}

/// What a round found where the lease is.
struct Found {
    lease: u64,
    record: Option<Record>,
    revision: u64,
}

fn millis(since: Option<Instant>) -> u64 {
    since.map_or(0, |since| u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX))
}

/// Watches for ever.
///
/// # Errors
/// [`EtcdError::Settings`] at the beginning; all else is tried again.
pub fn watch(order: &WatchOrder, told: &mut dyn FnMut(&Told)) -> Result<Infallible, EtcdError> {
    let patience = Duration::from_millis((order.ttl * 100).clamp(200, 2000));
    let etcd = Etcd::new(&order.place, patience)?;
    let (last, node, gone, free, asking, wake) = (None, None, None, None, None, None);
    let mut watch = Watch { order, etcd, told, last, node, gone, free, asking, wake };
    loop {
        let rest = watch.round().unwrap_or_else(|error| {
            watch.tell("error", error.to_string());
            Duration::from_millis(WATCH_RETRY_MS)
        });
        watch.rest(rest);
    }
}

impl Watch<'_> {
    /// Tells what is new.
    fn tell(&mut self, what: &'static str, text: impl Into<String>) {
        let told = Told { what, text: text.into() };
        if self.last.as_ref() != Some(&told) {
            (self.told)(&told);
            self.last = Some(told);
        }
    }

    fn call(&self, request: &AdminRequest) -> Result<AdminReply, AdminCallError> {
        call(&self.order.dir, request, Duration::from_millis(WATCH_ASK_MS))
    }

    fn key(&self, which: &str) -> String {
        let pair = self.node.as_ref().map_or("", |node| node.pair.as_str());
        format!("{}/{pair}/{which}", self.order.prefix)
    }

    /// Whether the process that served the node's directory last has ended.
    fn process_ended(&self) -> bool {
        let demand = Demand { most: 64, secret: false, linked: false };
        let text = read_trusted_text(&Layout::new(&self.order.dir).lock(), demand).unwrap_or_default();
        let Ok(pid) = text.trim().parse() else { return false };
        kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH)
    }

    /// Asks the node how it is.
    fn ask(&mut self) -> Result<LeaseView, Absent> {
        match self.call(&AdminRequest::Lease { grant: None }) {
            Ok(AdminReply::Ok { value: AdminAnswer::Lease(view) }) => {
                self.gone = None;
                self.node = Some(view.clone());
                return Ok(view);
            }
            Ok(AdminReply::No { message, .. } | AdminReply::Error { message, .. }) => {
                self.tell("waits", message)
            }
            Ok(AdminReply::Ok { .. }) => {
                self.tell("waits", "the node answers something else: it is of another version")
            }
            Err(error) => self.tell("waits", error.to_string()),
        }
        if !self.process_ended() {
            self.gone = None;
            return Err(Absent::Silent);
        }
        Err(Absent::Gone(millis(Some(*self.gone.get_or_insert_with(Instant::now)))))
    }

    /// One look at everything, and what follows from it. Returns how long it may rest.
    fn round(&mut self) -> Result<Duration, EtcdError> {
        let beat = Duration::from_millis(self.order.ttl * 200);
        let asked = self.ask();
        let Some(known) = self.node.clone() else { return Ok(Duration::from_millis(WATCH_RETRY_MS)) };
        if self.wake.is_none() {
            self.wake = Some(self.follow());
        }
        let keys = [self.key("lease"), self.key("record")];
        let [lease, record] = self.etcd.both([&keys[0], &keys[1]])?;
        let holder = lease.as_ref().map(|entry| serde_json::from_slice::<Holder>(&entry.value));
        let held = match holder {
            None => Held::Free(millis(Some(*self.free.get_or_insert_with(Instant::now)))),
            Some(Ok(holder)) if holder.ordinal == known.ordinal => Held::Mine,
            Some(Ok(holder)) => Held::Theirs(holder.name),
            Some(Err(_)) => Held::Theirs("somebody unknown".to_owned()),
        };
        if lease.is_some() {
            self.free = None;
        }
        if !(held == Held::Mine && asked.as_ref().is_ok_and(|node| node.stage == "asking-peer")) {
            self.asking = None;
        } else if self.asking.is_none() {
            self.asking = Some(Instant::now());
        }
        let found = self.found(lease, record)?;
        let seen = Seen {
            node: asked.as_ref().map_err(|absent| *absent),
            asking_ms: millis(self.asking),
            held,
            record: found.record.as_ref(),
            ttl_ms: self.order.ttl * 1000,
            release_after_ms: u64::try_from(self.order.release_after.as_millis()).unwrap_or(u64::MAX),
            allow_loss: self.order.allow_loss,
        };
        let step = decide(&seen);
        self.act(step, &known, &found).map(|rest| rest.unwrap_or(beat))
    }

    fn found(&self, lease: Option<Entry>, record: Option<Entry>) -> Result<Found, EtcdError> {
        let revision = record.as_ref().map_or(0, |entry| entry.revision);
        let record = record.map(|entry| serde_json::from_slice::<Record>(&entry.value)).transpose();
        let record = record.map_err(|error| {
            EtcdError::Refused(format!("{} holds something else than a record: {error}", self.key("record")))
        })?;
        Ok(Found { lease: lease.map_or(0, |entry| entry.lease), record, revision })
    }

    /// Does a step; returns how long to rest after it if that is not a beat.
    fn act(&mut self, step: Step, node: &LeaseView, found: &Found) -> Result<Option<Duration>, EtcdError> {
        match step {
            Step::Wait(why) => self.tell("waits", why),
            Step::Lapse(why) => {
                self.tell("lapses", format!("the lease is not renewed: {why}"));
                return Ok(Some(Duration::from_millis(WATCH_RETRY_MS)));
            }
            Step::Release(why) => {
                // What the node was granted ends first. One that does not say so may use it to its end.
                if self.gone.is_none() && !self.give(node, 0, false) {
                    return Ok(None);
                }
                self.etcd.revoke(found.lease)?;
                self.tell("released", format!("the lease is given back: {why}"));
            }
            Step::Acquire => {
                if self.acquire(node)? {
                    return Ok(Some(Duration::ZERO));
                }
            }
            Step::TakeOver { ask_first } => return self.take_over(node, found, ask_first).map(Some),
            Step::Renew { record, alone } => {
                if let Some(record) = record
                    && !self.write(&record, found)?
                {
                    return Ok(Some(Duration::ZERO));
                }
                self.renew(node, found.lease, alone)?;
            }
            Step::Hold => self.hold(found.lease)?,
            Step::StartAlone => {
                self.hold(found.lease)?;
                match self.call(&AdminRequest::StartAlone) {
                    Ok(AdminReply::Ok { .. }) => return Ok(Some(Duration::from_millis(WATCH_LOOK_MS))),
                    Ok(AdminReply::No { message, .. } | AdminReply::Error { message, .. }) => {
                        self.tell("refused", message);
                    }
                    Err(error) => self.tell("error", error.to_string()),
                }
            }
        }
        Ok(None)
    }

    fn acquire(&mut self, node: &LeaseView) -> Result<bool, EtcdError> {
        let lease = self.etcd.grant(self.order.ttl)?;
        let holder = Holder {
            pair: node.pair.clone(),
            name: node.name.clone(),
            ordinal: node.ordinal,
            epoch: node.epoch,
        };
        let (key, value) = (self.key("lease"), serde_json::to_vec(&holder).unwrap_or_default());
        let got = self.etcd.put(&[(&key, &value, lease)], &[Unless::Exists(&key)])?;
        if !got {
            self.etcd.revoke(lease)?;
        }
        Ok(got)
    }

    /// Writes the record, as long as this node holds the lease and nobody wrote another.
    fn write(&mut self, record: &Record, found: &Found) -> Result<bool, EtcdError> {
        let (lease, key) = (self.key("lease"), self.key("record"));
        let value = serde_json::to_vec(record).unwrap_or_default();
        let unless = [Unless::Leased(&lease, found.lease), Unless::Changed(&key, found.revision)];
        self.etcd.put(&[(&key, &value, 0)], &unless)
    }

    /// Renews the lease, and gives the node nothing.
    fn hold(&mut self, lease: u64) -> Result<(), EtcdError> {
        if self.etcd.keep_alive(lease)?.is_none() {
            self.tell("lost", "the lease has run out");
        }
        Ok(())
    }

    /// Renews the lease, and gives the node what is sure of it.
    fn renew(&mut self, node: &LeaseView, lease: u64, alone: bool) -> Result<(), EtcdError> {
        let Some(seconds) = self.etcd.keep_alive(lease)? else {
            self.tell("lost", "the lease has run out");
            return Ok(());
        };
        if self.give(node, granted_ms(seconds * 1000), alone) {
            self.tell("holds", format!("{} may accept updates in epoch {}", node.name, node.epoch));
        }
        Ok(())
    }

    /// Grants the node time, counted from its own clock as it was before the lease was renewed.
    fn give(&mut self, node: &LeaseView, ms: u64, alone: bool) -> bool {
        let grant = Some(Grant { run: node.run, from: node.clock, ms, alone });
        match self.call(&AdminRequest::Lease { grant }) {
            Ok(AdminReply::Ok { .. }) => return true,
            Ok(AdminReply::No { message, .. } | AdminReply::Error { message, .. }) => {
                self.tell("refused", message)
            }
            Err(error) => self.tell("error", error.to_string()),
        }
        false
    }

    /// This node holds the lease: it becomes the primary.
    fn take_over(&mut self, node: &LeaseView, found: &Found, ask_first: bool) -> Result<Duration, EtcdError> {
        if ask_first {
            self.tell("taking-over", "the primary lives: it is asked to give its role away");
            let reply = self.at_length(found.lease, AdminRequest::Switchover { dry_run: false });
            if let Ok(AdminReply::Ok { value: AdminAnswer::Switchover(view) }) = reply
                && SwitchoverView::default().epoch < view.epoch
            {
                self.tell(
                    "taken-over",
                    format!("{} is primary in epoch {}; nothing is lost", view.to, view.epoch),
                );
                return Ok(Duration::ZERO);
            }
        }
        if let Some(hook) = &self.order.fence {
            let peer = found.record.as_ref().map_or("", |record| record.name.as_str()).to_owned();
            self.tell("fencing", format!("running {} before the takeover", hook.program()));
            if let Err(why) = self.while_renewing(found.lease, || hook.run(&node.name, &peer)) {
                self.etcd.revoke(found.lease)?;
                self.tell("fence-failed", format!("no takeover: {why}"));
                return Ok(Duration::from_secs(self.order.ttl));
            }
        }
        self.take_role(node, found)
    }

    fn take_role(&mut self, node: &LeaseView, found: &Found) -> Result<Duration, EtcdError> {
        let allow_loss = self.order.allow_loss;
        let takeover = |dry_run| AdminRequest::Takeover {
            peer_is_down: true,
            dry_run,
            accept_loss: allow_loss,
            now: true,
        };
        let account = match account_of(self.call(&takeover(true))) {
            Ok(account) if !account.needs_accept_loss || allow_loss => account,
            Ok(account) => {
                return self.give_up(found, format!("it would lose known entries: {}", account.lost));
            }
            Err(why) => return self.give_up(found, why),
        };
        // From here on the other node is let accept nothing, also if this one dies half-way.
        let record = Record {
            pair: node.pair.clone(),
            name: node.name.clone(),
            ordinal: node.ordinal,
            epoch: account.epoch,
            alone: true,
        };
        if !self.write(&record, found)? {
            return Ok(Duration::ZERO);
        }
        match self.at_length(found.lease, takeover(false)) {
            Ok(AdminReply::Ok { value: AdminAnswer::Takeover(account) }) => {
                let TakeoverAccount { name, epoch, lost, .. } = *account;
                self.tell("taken-over", format!("{name} is primary in epoch {epoch}: {lost}"));
                Ok(Duration::ZERO)
            }
            Ok(AdminReply::No { message, .. }) => {
                // Nothing was done: the record is as it was.
                let [_, now] = self.etcd.both([&self.key("lease"), &self.key("record")])?;
                let written = Found {
                    lease: found.lease,
                    record: None,
                    revision: now.map_or(0, |entry| entry.revision),
                };
                if let Some(before) = &found.record {
                    self.write(before, &written)?;
                }
                self.give_up(found, message)
            }
            // It may have been done: the next round shows.
            Ok(AdminReply::Error { message, .. }) => {
                self.tell("error", message);
                Ok(Duration::from_millis(WATCH_RETRY_MS))
            }
            Ok(AdminReply::Ok { .. }) => Ok(Duration::ZERO),
            Err(error) => {
                self.tell("error", error.to_string());
                Ok(Duration::from_millis(WATCH_RETRY_MS))
            }
        }
    }

    fn give_up(&mut self, found: &Found, why: String) -> Result<Duration, EtcdError> {
        self.etcd.revoke(found.lease)?;
        self.tell("refused", format!("no takeover: {why}"));
        Ok(Duration::from_secs(self.order.ttl))
    }

    /// Asks the node for something that may take long.
    fn at_length(&mut self, lease: u64, request: AdminRequest) -> Result<AdminReply, AdminCallError> {
        let dir = self.order.dir.clone();
        self.while_renewing(lease, move || call(&dir, &request, Duration::from_secs(WATCH_TAKEOVER_S)))
    }

    /// Renews the lease while something is done.
    fn while_renewing<T: Send>(&mut self, lease: u64, work: impl FnOnce() -> T + Send) -> T {
        let beat = Duration::from_millis(self.order.ttl * 200);
        std::thread::scope(|scope| {
            let worker = scope.spawn(work);
            let mut renewed = Instant::now();
            while !worker.is_finished() {
                std::thread::sleep(Duration::from_millis(2));
                if renewed.elapsed() >= beat {
                    renewed = Instant::now();
                    // What comes of it is seen when the work is done.
                    let _ = self.etcd.keep_alive(lease);
                }
            }
            match worker.join() {
                Ok(done) => done,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Has a thread follow the lease's key, and say so when it changes.
    fn follow(&self) -> Receiver<()> {
        let (told, wake) = channel();
        let (place, key) = (self.order.place.clone(), self.key("lease"));
        std::thread::spawn(move || follow(&place, &key, &told));
        wake
    }

    /// Waits, unless the lease changes, or the node's process ends.
    fn rest(&mut self, most: Duration) {
        let until = Instant::now() + most;
        let lived = !self.process_ended();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || (lived && self.process_ended()) {
                return;
            }
            let slice = left.min(Duration::from_millis(WATCH_LOOK_MS));
            match self.wake.as_ref().map(|wake| wake.recv_timeout(slice)) {
                Some(Ok(())) => return,
                Some(Err(RecvTimeoutError::Timeout)) => {}
                None | Some(Err(RecvTimeoutError::Disconnected)) => std::thread::sleep(slice),
            }
        }
    }
}

fn account_of(reply: Result<AdminReply, AdminCallError>) -> Result<TakeoverAccount, String> {
    match reply {
        Ok(AdminReply::Ok { value: AdminAnswer::Takeover(account) }) => Ok(*account),
        Ok(AdminReply::No { message, .. } | AdminReply::Error { message, .. }) => Err(message),
        Ok(AdminReply::Ok { .. }) => {
            Err("the node answers something else: it is of another version".to_owned())
        }
        Err(error) => Err(error.to_string()),
    }
}

/// Follows a key for as long as somebody wants to hear of it.
fn follow(place: &EtcdPlace, key: &str, told: &Sender<()>) {
    let Ok(mut etcd) = Etcd::new(place, Duration::from_millis(WATCH_ASK_MS)) else { return };
    while told.send(()).is_ok() {
        // Why it ended is of no use: whoever holds or wants the lease looks by itself, too.
        let _ = etcd.follow(key, || told.send(()).is_ok());
        etcd.turn();
        std::thread::sleep(Duration::from_millis(WATCH_RETRY_MS));
    }
}

//! Views: the database as it was at one moment, on doors of its own, while the node goes on.
//!
//! Each is a thread with a driver, its listening sockets, and a machine of the engine's making. The apply thread keeps what it
//! is about to overwrite ([`Kept`]) in a file of the view's, and hears of nothing else. A view is gone when it is closed, when
//! its room is used up, and with the process; a start removes the files that a kill left.

mod blocks;
mod thread;

#[cfg(test)]
mod tests;

use super::apply::{Apply, ViewJob};
use super::config::{Config, IoChoice};
use super::core::DoorKeys;
use super::inbox::Inbox;
use super::layout::{Layout, OwnName, ViewFile, is_view_name};
use super::listen::Listeners;
use crate::base::limits::{VIEW_WAIT_MS, VIEWS_MAX};
use crate::base::{Seq, plainly};
use crate::engine::Event;
use crate::engine::admin::{AdminReply, AdminRequest, Status, ViewOrder, ViewView};
use crate::engine::view::{RespConfig, View, ViewOf};
use crate::io::Wake;
use crate::store::StoreError;
use crate::store::tree_store::Moment;
use crate::store::volumes::{KeepEnd, Kept, Room};
use blocks::ViewFiles;
use nix::sys::statvfs::statvfs;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use thread::{Start, ViewThread};

/// What a view may take of the disk, if nobody says.
const ROOM: u64 = 1 << 30;
/// The least (bytes).
const ROOM_MIN: u64 = 1 << 20;
/// Between two looks whether the store shows enough.
const REST: Duration = Duration::from_millis(5);

/// Makes what clients of the NBD doors of views are shown under TLS.
pub(crate) type KeysOf = Box<dyn Fn() -> DoorKeys + Send + Sync>;

/// What a view's thread and the rest of the node tell each other.
#[derive(Debug, Default)]
struct Shared {
    /// It is to end, or has ended.
    over: AtomicBool,
    clients: AtomicU64,
    items: AtomicU64,
    /// Why it ended by itself.
    why: Mutex<Option<String>>,
}

impl Shared {
    fn why(&self) -> MutexGuard<'_, Option<String>> {
        self.why.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ends(&self, why: &str) {
        self.why().get_or_insert_with(|| why.to_owned());
        self.over.store(true, Ordering::Release);
    }
}

/// A view as operators know it.
struct Entry {
    view: ViewView,
    since: Instant,
    shared: Arc<Shared>,
    kept: Arc<Kept>,
    room: Arc<Room>,
    waker: Arc<dyn Wake>,
    thread: Option<JoinHandle<()>>,
}

impl Entry {
    fn now(&self) -> ViewView {
        let why = self.shared.why().clone();
        ViewView {
            state: if why.is_some() { "ended" } else { "open" }.to_owned(),
            reason: why.unwrap_or_default(),
            age_seconds: self.since.elapsed().as_secs_f64(),
            used_bytes: self.room.used(),
            items_bytes: self.shared.items.load(Ordering::Relaxed),
            clients: self.shared.clients.load(Ordering::Relaxed),
            ..self.view.clone()
        }
    }

    /// Ends its thread, which removes its files, and waits for that.
    fn close(&mut self) {
        self.kept.close();
        self.shared.over.store(true, Ordering::Release);
        self.waker.wake();
        if let Some(thread) = self.thread.take() {
            // A panic has ended the process already.
            let _ = thread.join();
        }
    }
}

#[derive(Default)]
struct Views {
    apply: Option<Sender<Apply>>,
    all: Vec<Entry>,
    /// Names given so far.
    named: u64,
    /// Being opened.
    opening: Vec<String>,
}

/// All views of a node.
#[derive(Clone)]
pub(crate) struct ViewDesk {
    layout: Layout,
    config: Arc<Config>,
    keys: Arc<KeysOf>,
    io: IoChoice,
    inbox: Inbox,
    views: Arc<Mutex<Views>>,
}

/// Why a view was not opened.
struct Refused {
    message: String,
    next: &'static str,
    failed: bool,
}

impl Refused {
    fn no(message: impl Into<String>, next: &'static str) -> Self {
        Self { message: format!("opening a view: {}", message.into()), next, failed: false }
    }

    fn error(doing: &str, error: &impl ToString) -> Self {
        let message = format!("opening a view: {doing}: {}", error.to_string());
        Self { message, next: "check the disk of the node (`df`, `dmesg`), then open it again", failed: true }
    }
}

/// What was asked for, checked.
struct Order {
    name: String,
    writable: bool,
    at: [Option<SocketAddr>; 2],
    room: u64,
}

impl ViewDesk {
    pub(crate) fn new(
        layout: &Layout,
        config: &Config,
        io: IoChoice,
        (apply, inbox): (Sender<Apply>, &Inbox),
        keys: KeysOf,
    ) -> Self {
        let views = Arc::new(Mutex::new(Views { apply: Some(apply), ..Views::default() }));
        let (config, keys) = (Arc::new(config.clone()), Arc::new(keys));
        Self { layout: layout.clone(), config, keys, io, inbox: inbox.clone(), views }
    }

    fn views(&self) -> MutexGuard<'_, Views> {
        self.views.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the views to a status.
    pub(crate) fn complete(&self, status: &mut Status) {
        status.views = self.list();
    }

    /// All of them, the oldest first.
    pub(crate) fn list(&self) -> Vec<ViewView> {
        self.views().all.iter().map(Entry::now).collect()
    }

    /// Ends all views; no other is opened.
    pub(crate) fn stop(&self) {
        let mut all = {
            let mut views = self.views();
            views.apply = None;
            std::mem::take(&mut views.all)
        };
        all.iter_mut().for_each(Entry::close);
    }

    /// Ends a view.
    pub(crate) fn close(&self, name: &str) -> AdminReply {
        let found = {
            let mut views = self.views();
            let at = views.all.iter().position(|entry| entry.view.name == name);
            at.map(|at| views.all.remove(at))
        };
        let Some(mut entry) = found else {
            return AdminReply::No {
                message: format!("closing view {name}: there is none of that name"),
                next: "see `hot-backup view list`".to_owned(),
            };
        };
        let view = entry.now();
        entry.close();
        AdminReply::Ok { value: ViewView { clients: 0, state: "closed".to_owned(), ..view }.into() }
    }

    /// Opens a view. `terms` asks the node whether that may be, and what it has to show.
    pub(crate) fn open(
        &self,
        request: AdminRequest,
        terms: impl FnOnce(AdminRequest) -> AdminReply,
    ) -> AdminReply {
        use crate::engine::admin::AdminAnswer;
        let reply = |refused: Refused| match refused.failed {
            true => AdminReply::Error { message: refused.message, next: refused.next.to_owned() },
            false => AdminReply::No { message: refused.message, next: refused.next.to_owned() },
        };
        let order = match self.order(&request) {
            Ok(order) => order,
            Err(refused) => return reply(refused),
        };
        let terms = match terms(request) {
            AdminReply::Ok { value: AdminAnswer::View(terms) } => terms,
            other => {
                self.views().opening.retain(|name| *name != order.name);
                return other;
            }
        };
        let opened = self.make(&order, &terms).inspect_err(|_| remove(&self.layout, &order.name));
        let mut views = self.views();
        views.opening.retain(|name| *name != order.name);
        match opened {
            Ok(entry) if views.apply.is_some() => {
                let view = entry.now();
                views.all.push(entry);
                AdminReply::Ok { value: view.into() }
            }
            Ok(mut entry) => {
                drop(views);
                entry.close();
                reply(Refused::no("the node is stopping", "start it again with `hot-backup serve`"))
            }
            Err(refused) => reply(refused),
        }
    }

    /// Checks what is asked for, and takes its name.
    fn order(&self, request: &AdminRequest) -> Result<Order, Refused> {
        let AdminRequest::ViewOpen(ViewOrder { name, writable, resp, nbd, room }) = request else {
            return Err(Refused::no("another request", ""));
        };
        let address = |text: &Option<String>| match text.as_deref().map(str::parse::<SocketAddr>) {
            None => Ok(None),
            Some(Ok(address)) => Ok(Some(address)),
            Some(Err(_)) => Err(Refused::no(
                "an address is no IP address with a port",
                "say it as 127.0.0.1:7010, or leave it out for a socket in the node's directory",
            )),
        };
        let at = [address(resp)?, address(nbd)?];
        let public = at[0].is_some_and(|address| !address.ip().to_canonical().is_loopback());
        if public && self.config.resp_password.is_none() {
            return Err(Refused::no(
                "other machines would read it without a password",
                "set `resp_password_file` in config.toml, or use a loopback address",
            ));
        }
        let (room, mut views) = (room.unwrap_or(ROOM).max(ROOM_MIN), self.views());
        let free = statvfs(self.layout.dir())
            .map(|disk| disk.blocks_available().saturating_mul(disk.fragment_size()))
            .map_err(|error| Refused::error("looking at the room of the disk", &error))?;
        if free < room {
            let (free, room) = (free >> 20, room >> 20);
            let message = format!("it may take {room} MiB, and the disk of the node has {free} MiB left");
            return Err(Refused::no(message, "make room there, or say less with --room"));
        }
        // One that has ended gives its place and name to the next.
        views.all.retain(|entry| entry.shared.why().is_none());
        if views.all.len() + views.opening.len() >= VIEWS_MAX {
            let message = format!("{VIEWS_MAX} are open already");
            return Err(Refused::no(
                message,
                "close one: `hot-backup view list`, `hot-backup view close NAME`",
            ));
        }
        let is_taken = |views: &Views, name: &str| {
            views.all.iter().any(|entry| entry.view.name == name)
                || views.opening.iter().any(|own| own == name)
        };
        let name = match name {
            Some(name) => name.clone(),
            None => loop {
                views.named += 1;
                let name = format!("v{}", views.named);
                if !is_taken(&views, &name) {
                    break name;
                }
            },
        };
        if !is_view_name(&name) {
            return Err(Refused::no(
                "that is no name for it",
                "use up to 32 small letters, digits and hyphens",
            ));
        }
        if is_taken(&views, &name) {
            let message = format!("there is one of the name {name}");
            return Err(Refused::no(message, "use another name, or close that one first"));
        }
        views.opening.push(name.clone());
        Ok(Order { name, writable: *writable, at, room })
    }

    fn make(&self, order: &Order, terms: &ViewView) -> Result<Entry, Refused> {
        let (name, room) = (&order.name, Arc::new(Room::new(order.room)));
        let listeners = Listeners::of_view(&self.layout, name, order.at).map_err(|error| Refused {
            message: format!("opening a view: {error}"),
            next: error.next,
            failed: false,
        })?;
        let file = |file| self.file(name, file).map_err(|error| Refused::error("making its file", &error));
        let kept = file(ViewFile::Kept)?;
        let written = order.writable.then(|| file(ViewFile::Written)).transpose()?;
        let shared = Arc::new(Shared::default());
        let places = doors(&listeners);
        let (start, to_start) = sync_channel::<Start>(1);
        let (waker, to_wake) = sync_channel(1);
        let thread = ViewThread { shared: Arc::clone(&shared), keys: (self.keys)(), listeners };
        let (io, layout, at) = (self.io, self.layout.clone(), name.clone());
        let thread = std::thread::Builder::new().name("view".to_owned()).spawn(move || {
            thread.run(io, &waker, &to_start);
            remove(&layout, &at);
        });
        let thread = thread.map_err(|error| Refused::error("starting its thread", &error))?;
        let Ok(waker) = to_wake.recv() else {
            let _ = thread.join();
            return Err(Refused::error("opening its sockets' driver", &"see the node's log"));
        };
        let kept = Arc::new(self.keep(name, kept, &room, (&shared, &waker)));
        let mut entry = Entry {
            view: self.described(order, terms, places),
            since: Instant::now(),
            shared,
            kept: Arc::clone(&kept),
            room: Arc::clone(&room),
            waker,
            thread: Some(thread),
        };
        let moment = match self.moment(&kept, terms) {
            Ok(moment) => moment,
            Err(refused) => {
                drop(start);
                entry.close();
                return Err(refused);
            }
        };
        let [seq, local_seq] = moment.applied.map(|seq| seq.0);
        entry.view = ViewView { seq, local_seq, ..entry.view };
        let blocks = ViewFiles::new(self.layout.volumes(), kept, written.map(|file| (file, room)));
        let of = ViewOf {
            applied: moment.applied,
            epoch: terms.epoch,
            namespace: moment.namespace,
            items: moment.items,
            blocks,
            writable: order.writable,
        };
        // Its end is there: the thread waits for this.
        let _ = start.send(Box::new(View::new(of, self.resp_config(order))));
        Ok(entry)
    }

    /// Keeps what is overwritten in a file; when that ends by itself, the view does.
    fn keep(
        &self,
        name: &str,
        file: File,
        room: &Arc<Room>,
        (shared, waker): (&Arc<Shared>, &Arc<dyn Wake>),
    ) -> Kept {
        let (name, inbox) = (name.to_owned(), self.inbox.clone());
        let (shared, waker) = (Arc::clone(shared), Arc::clone(waker));
        let all = order_of_size(room);
        Kept::new(file, Arc::clone(room), move |end| {
            let why = match end {
                KeepEnd::Room => format!("its room of {all} is used up by what was changed in volumes since"),
                KeepEnd::Failed(fault) => format!("keeping what volumes held before failed: {fault}"),
                KeepEnd::Closed => return,
            };
            tracing::warn!("view {name} ends: {why}");
            shared.ends(&why);
            waker.wake();
            // A core that is gone needs not be told.
            let _ = inbox.send(super::inbox::Message::Event(Event::ViewEnded { name: name.clone(), why }));
        })
    }

    fn file(&self, name: &str, file: ViewFile) -> io::Result<File> {
        let own = self.layout.own(OwnName::View(name.to_owned(), file));
        own.remove()?;
        own.make()
    }

    fn described(&self, order: &Order, terms: &ViewView, [resp, nbd]: [String; 2]) -> ViewView {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let place = |found: String, file| match found.is_empty() {
            true => self.layout.view_file(&order.name, file).display().to_string(),
            false => found,
        };
        ViewView {
            name: order.name.clone(),
            writable: order.writable,
            room_bytes: order.room,
            resp: place(resp, ViewFile::Resp),
            nbd: place(nbd, ViewFile::Nbd),
            opened_ms: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
            ..terms.clone()
        }
    }

    fn resp_config(&self, order: &Order) -> RespConfig {
        RespConfig {
            default_file: self.config.engine.resp_default.clone(),
            password: self.config.resp_password.as_ref().map(|secret| secret.0.clone()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            tcp_port: order.at[0].map_or(0, |address| address.port()),
            run: super::serve::seed(),
        }
    }

    /// Holds the moment, once the store shows what it has to.
    fn moment(&self, kept: &Arc<Kept>, terms: &ViewView) -> Result<Moment, Refused> {
        let held = self.hold(kept, false, [Seq(terms.seq), Seq(terms.local_seq)]);
        held.map_err(|why| match why {
            NotHeld::Failed(error) => Refused::error("holding the store's state", &error),
            NotHeld::Not(message, next) => Refused::no(message, next),
        })
    }

    /// Holds the moment of a store that shows these entries, by journal; waits for that. `kept` has what volumes lose from then
    /// on, or only those that this node has alone.
    pub(crate) fn hold(&self, kept: &Arc<Kept>, alone: bool, at_least: [Seq; 2]) -> Result<Moment, NotHeld> {
        let until = Instant::now() + Duration::from_millis(VIEW_WAIT_MS);
        let stopping =
            || NotHeld::Not("the node is stopping".to_owned(), "start it again with `hot-backup serve`");
        loop {
            let (to, answer) = sync_channel(1);
            let job = Apply::View(Box::new(ViewJob { kept: Arc::clone(kept), alone, at_least, to }));
            let apply = self.views().apply.clone().ok_or_else(stopping)?;
            apply.send(job).map_err(|_| stopping())?;
            drop(apply);
            match answer.recv_timeout(until.saturating_duration_since(Instant::now()).max(REST)) {
                Ok(Ok(Some(moment))) => return Ok(moment),
                Ok(Ok(None)) if Instant::now() < until => std::thread::sleep(REST),
                Ok(Err(error @ StoreError::Disk { fault: crate::base::Fault::STALE, .. })) => {
                    return Err(NotHeld::Not(error.to_string(), "wait until that is over, then do it again"));
                }
                Ok(Err(error)) => return Err(NotHeld::Failed(error)),
                _ => {
                    let message = format!(
                        "the store does not show within {} s what was answered before that",
                        VIEW_WAIT_MS / 1000
                    );
                    let next = "see `hot-backup status`: the store's disk is slow or fails";
                    return Err(NotHeld::Not(message, next));
                }
            }
        }
    }
}

/// Why a moment was not held.
pub(crate) enum NotHeld {
    /// It cannot be now: why, and what people can do.
    Not(String, &'static str),
    /// The store failed.
    Failed(StoreError),
}

/// A size as people say it.
fn order_of_size(room: &Room) -> String {
    crate::base::shown::bytes(room.size())
}

/// Where listening sockets on TCP are reached, RESP and NBD; empty for others.
fn doors(listeners: &Listeners) -> [String; 2] {
    use nix::sys::socket::{SockaddrStorage, getsockname};
    let mut places = listeners.all.iter().map(|listener| {
        let address = getsockname::<SockaddrStorage>(listener.socket.as_raw_fd()).ok();
        address.filter(|address| address.as_unix_addr().is_none()).map(|address| address.to_string())
    });
    let mut next = || places.next().flatten().unwrap_or_default();
    [next(), next()]
}

/// Removes what a view had on the disk; its sockets went with its listeners.
fn remove(layout: &Layout, name: &str) {
    for file in [ViewFile::Kept, ViewFile::Written] {
        let own = layout.own(OwnName::View(name.to_owned(), file));
        if let Err(error) = own.remove() {
            tracing::warn!(
                "removing {}, which the next start does: {}",
                own.path().display(),
                plainly(&error)
            );
        }
    }
}

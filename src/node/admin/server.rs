//! The daemon's side: a thread that accepts, and one for each of a bounded number of connections.

use super::codec::{decode_request, encode_reply};
use super::rights::{May, right};
use super::{
    CONNECTIONS_MAX, Line, LineReader, REQUEST_MAX, bind_in_dir, place_of, socket_file, write_within,
};
use crate::base::limits::{ADMIN_REFUSED_MAX, ADMIN_REFUSED_MS};
use crate::base::shown::Grouped;
use crate::engine::admin::{AdminReply, AdminRequest};
use crate::io::{Access, Own, check_dir, peer_groups};
use crate::node::layout::{ADMIN_SOCKET, Layout, OwnName};
use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::geteuid;
use std::collections::BTreeMap;
use std::fs::{File, Permissions};
use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A connection that does not send a whole request within this time is closed.
const REQUEST_TIME: Duration = Duration::from_secs(30);
/// A client that does not take its answer within this time is left.
const REPLY_TIME: Duration = Duration::from_secs(10);
/// See [`ADMIN_REFUSED_MS`].
const REFUSED_TIME: Duration = Duration::from_millis(ADMIN_REFUSED_MS);
/// How long [`AdminServer::stop`] waits for answers that are under way.
const STOP_TIME: Duration = Duration::from_secs(2);

/// For one connection: its socket, what ends its thread, and the next one, which accept(2) reserves before it waits.
const SPARE_DESCRIPTORS: usize = 3;

/// Who asks, by the kernel's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ucred {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Process.
    pub pid: i32,
    /// What it may ask for.
    pub may: May,
}

/// Sends something over a connection.
pub(crate) type Sending = Box<dyn FnOnce(&UnixStream)>;

/// An answer, and what is sent behind it before the connection ends.
pub struct Answer {
    pub(crate) reply: AdminReply,
    pub(crate) then: Option<Sending>,
}

impl From<AdminReply> for Answer {
    fn from(reply: AdminReply) -> Self {
        Self { reply, then: None }
    }
}

/// Times of a server; tests use shorter ones.
#[derive(Clone, Copy)]
pub(super) struct Times {
    pub(super) request: Duration,
    pub(super) reply: Duration,
}

#[derive(Default)]
struct ServerShared {
    stopping: AtomicBool,
    /// Callers that were refused and may still send.
    turned_away: AtomicUsize,
    /// Callers that were refused and are counted with the next one.
    uncounted: AtomicU64,
    open: Mutex<Open>,
    spare: Mutex<Spare>,
    one_less: Condvar,
}

#[derive(Default)]
struct Open {
    next: u64,
    streams: BTreeMap<u64, UnixStream>,
}

impl ServerShared {
    /// Opens something, at the cost of the spare descriptors if there are no others: somebody asks, most likely why
    /// nothing goes.
    fn with_spare<T>(&self, open: impl Fn() -> io::Result<T>) -> io::Result<T> {
        let opened = open();
        if opened.as_ref().is_err_and(is_scarce) && self.spare().give_up() { open() } else { opened }
    }

    fn spare(&self) -> MutexGuard<'_, Spare> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        // The map is whole at every moment, also after a panic elsewhere.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The running admin socket; stops when dropped.
#[derive(Debug)]
pub struct AdminServer {
    file: Own,
    listener: Arc<UnixListener>,
    shared: Arc<ServerShared>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for ServerShared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Shared({} connections)", self.open().streams.len())
    }
}

/// Opens the admin socket of a node and answers with `handler`, which may block and is called from several threads
/// at once; `refused` is told who asked and may not, and how
/// often that came since it was told last. To be called by the holder of the directory's lock.
///
/// # Errors
/// The socket or the thread cannot be made.
pub fn spawn<H, A, R>(layout: &Layout, handler: H, refused: R) -> io::Result<AdminServer>
where
    H: Fn(AdminRequest, Ucred) -> A + Clone + Send + 'static,
    A: Into<Answer>,
    R: Fn(Ucred, u64) + Clone + Send + 'static,
{
    let gate = Gate { rule: right, group: None, refused };
    spawn_timed(layout, handler, gate, Times { request: REQUEST_TIME, reply: REPLY_TIME })
}

/// Opens a second socket at `path`, by which members of the group may look; else as [`spawn`].
///
/// # Errors
/// The socket or the thread cannot be made; `PermissionDenied` if others may write to its directory, or if it cannot be
/// given to the group.
pub fn spawn_for_group<H, A, R>(path: &Path, group: u32, handler: H, refused: R) -> io::Result<AdminServer>
where
    H: Fn(AdminRequest, Ucred) -> A + Clone + Send + 'static,
    A: Into<Answer>,
    R: Fn(Ucred, u64) + Clone + Send + 'static,
{
    let (dir, name) = place_of(path)?;
    check_dir(dir, Access::Read)?;
    let listener = bind_in_dir(dir, name)?;
    let file = socket_file(dir, name);
    // Nobody else may write to the directory, so the name still is that of the socket.
    let opened = std::os::unix::fs::lchown(path, None, Some(group))
        .and_then(|()| std::fs::set_permissions(path, Permissions::from_mode(0o660)));
    if let Err(error) = opened {
        drop(file.remove_socket());
        return Err(error);
    }
    let gate = Gate { rule: right, group: Some(group), refused };
    start(listener, file, handler, gate, Times { request: REQUEST_TIME, reply: REPLY_TIME })
}

/// Who may ask, and who is told of the others.
#[derive(Clone)]
pub(super) struct Gate<R> {
    /// As [`right`], given who asks and this user.
    pub(super) rule: fn(u32, u32, &[u32], u32, Option<u32>) -> Option<May>,
    /// The group whose members may look.
    pub(super) group: Option<u32>,
    pub(super) refused: R,
}

pub(super) fn spawn_timed<H, A, R>(
    layout: &Layout,
    handler: H,
    gate: Gate<R>,
    times: Times,
) -> io::Result<AdminServer>
where
    H: Fn(AdminRequest, Ucred) -> A + Clone + Send + 'static,
    A: Into<Answer>,
    R: Fn(Ucred, u64) + Clone + Send + 'static,
{
    let listener = bind_in_dir(layout.dir(), ADMIN_SOCKET)?;
    start(listener, layout.own(OwnName::AdminSocket), handler, gate, times)
}

fn start<H, A, R>(
    listener: UnixListener,
    file: Own,
    handler: H,
    gate: Gate<R>,
    times: Times,
) -> io::Result<AdminServer>
where
    H: Fn(AdminRequest, Ucred) -> A + Clone + Send + 'static,
    A: Into<Answer>,
    R: Fn(Ucred, u64) + Clone + Send + 'static,
{
    let listener = Arc::new(listener);
    let shared = Arc::new(ServerShared::default());
    let (accepting, state) = (listener.clone(), shared.clone());
    let thread = std::thread::Builder::new()
        .name("admin".to_owned())
        .spawn(move || accept_all(&accepting, &state, &handler, &gate, times))?;
    Ok(AdminServer { file, listener, shared, thread: Some(thread) })
}

impl AdminServer {
    #[cfg(test)]
    pub(super) fn connections(&self) -> usize {
        self.shared.open().streams.len()
    }

    /// Accepts no more, lets answers that are under way out (2 s at most) and removes the socket. Doing it again
    /// changes nothing.
    pub fn stop(&mut self) {
        let Some(thread) = self.thread.take() else { return };
        self.shared.stopping.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts; a failure leaves it waiting, which hurts nobody but then cannot be joined.
        if nix::sys::socket::shutdown(self.listener.as_raw_fd(), nix::sys::socket::Shutdown::Both).is_ok() {
            drop(thread.join());
        }
        // The next daemon would replace it as well, so a failure is of no matter.
        drop(self.file.remove_socket());
        let mut open = self.shared.open();
        for stream in open.streams.values() {
            drop(stream.shutdown(Shutdown::Read)); // Ends those that wait for a request.
        }
        let deadline = Instant::now() + STOP_TIME;
        while !open.streams.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let waited = self.shared.one_less.wait_timeout(open, left);
            open = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for AdminServer {
    fn drop(&mut self) {
        self.stop();
    }
}

fn accept_all<H, A, R>(
    listener: &UnixListener,
    shared: &Arc<ServerShared>,
    handler: &H,
    gate: &Gate<R>,
    times: Times,
) where
    H: Fn(AdminRequest, Ucred) -> A + Clone + Send + 'static,
    A: Into<Answer>,
    R: Fn(Ucred, u64) + Clone + Send + 'static,
{
    loop {
        shared.spare().refill();
        let accepted = shared.with_spare(|| listener.accept());
        if shared.stopping.load(Ordering::SeqCst) {
            return;
        }
        match accepted {
            Ok((stream, _)) => match caller(&stream, gate) {
                Some((caller, true)) => admit(stream, caller, shared, handler.clone(), times),
                Some((caller, false)) => turn_away(stream, caller, shared, gate.clone()),
                // Gone already.
                None => {}
            },
            // Out of descriptors, or a client that left at once: others may do better.
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// Who is at the other end, by the kernel's word, and whether it may ask at all.
fn caller<R>(stream: &UnixStream, gate: &Gate<R>) -> Option<(Ucred, bool)> {
    let found = getsockopt(stream, sockopt::PeerCredentials).ok()?;
    // A kernel that does not tell them leaves the first group alone.
    let groups = gate.group.map(|_| peer_groups(stream.as_fd()).unwrap_or_default()).unwrap_or_default();
    let may = (gate.rule)(found.uid(), found.gid(), &groups, geteuid().as_raw(), gate.group);
    let caller =
        Ucred { uid: found.uid(), gid: found.gid(), pid: found.pid(), may: may.unwrap_or(May::Look) };
    Some((caller, may.is_some()))
}

/// Tells a caller that it may not ask. What it sends is taken and thrown away for a moment: a connection that is closed
/// before its request was read breaks under the request, and the answer is never seen.
fn turn_away<R>(stream: UnixStream, caller: Ucred, shared: &Arc<ServerShared>, gate: Gate<R>)
where
    R: Fn(Ucred, u64) + Send + 'static,
{
    let what = format!("asking the node: user {} is not permitted", caller.uid);
    let refused = error(what, "run this as the user that the node runs as, or as root");
    // Its buffer is empty: this does not wait.
    drop(answer(&stream, &refused, Duration::from_millis(10)));
    drop(stream.shutdown(Shutdown::Write));
    let Some(place) = Place::take(shared) else { return };
    let linger = move || {
        let times = 1 + place.0.uncounted.swap(0, Ordering::SeqCst);
        (gate.refused)(caller, times);
        let mut reader = LineReader::new(stream, REQUEST_MAX);
        while matches!(reader.line(REFUSED_TIME), Ok(Line::Whole(_))) {}
    };
    if std::thread::Builder::new().name("admin-refused".to_owned()).spawn(linger).is_err() {
        shared.uncounted.fetch_add(1, Ordering::SeqCst);
    }
}

/// One of the places of callers that were refused, so that they take none of those who may ask.
struct Place(Arc<ServerShared>);

impl Place {
    fn take(shared: &Arc<ServerShared>) -> Option<Self> {
        let before = shared.turned_away.fetch_add(1, Ordering::SeqCst);
        let place = Self(Arc::clone(shared));
        if before < ADMIN_REFUSED_MAX {
            return Some(place);
        }
        shared.uncounted.fetch_add(1, Ordering::SeqCst);
        None
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.turned_away.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Descriptors that are let go when there are no others, so that an operator gets an answer even then.
#[derive(Default)]
struct Spare(Vec<File>);

impl Spare {
    fn refill(&mut self) {
        // Without them it goes as far as it goes.
        while self.0.len() < SPARE_DESCRIPTORS
            && let Ok(file) = File::open("/dev/null")
        {
            self.0.push(file);
        }
    }

    /// Lets one go; false if there is none.
    fn give_up(&mut self) -> bool {
        self.0.pop().is_some()
    }
}

/// Whether there are no descriptors left, of the process or of the machine.
fn is_scarce(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// Gives a connection its thread, or turns it away.
fn admit<H, A>(stream: UnixStream, caller: Ucred, shared: &Arc<ServerShared>, handler: H, times: Times)
where
    H: Fn(AdminRequest, Ucred) -> A + Send + 'static,
    A: Into<Answer>,
{
    let Ok(kept) = shared.with_spare(|| stream.try_clone()) else { return };
    let id = {
        let mut open = shared.open();
        if open.streams.len() >= CONNECTIONS_MAX {
            drop(open);
            let what = format!("asking the node: {CONNECTIONS_MAX} others ask already");
            // Its buffer is empty: this does not wait, and whoever does not read it has nothing to complain of.
            drop(answer(&stream, &error(what, "try again in a moment"), Duration::from_millis(10)));
            return;
        }
        open.next += 1;
        let id = open.next;
        open.streams.insert(id, kept);
        id
    };
    let leaving = Leaving { shared: shared.clone(), id };
    // Without a thread, closing the connection is all that can be done.
    drop(std::thread::Builder::new().name("admin-client".to_owned()).spawn(move || {
        serve(stream, caller, &handler, times);
        drop(leaving);
    }));
}

/// Takes a connection off the list, whatever ends its thread.
struct Leaving {
    shared: Arc<ServerShared>,
    id: u64,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.shared.open().streams.remove(&self.id);
        // At once: where there are none, others take what comes free.
        self.shared.spare().refill();
        self.shared.one_less.notify_all();
    }
}

fn serve<A: Into<Answer>>(
    stream: UnixStream,
    peer: Ucred,
    handler: &impl Fn(AdminRequest, Ucred) -> A,
    times: Times,
) {
    let mut reader = LineReader::new(stream, REQUEST_MAX);
    loop {
        let (reply, go_on) = match reader.line(times.request) {
            Ok(Line::Whole(line)) => match answer_to(&line, handler, peer) {
                Answer { reply, then: None } => (reply, true),
                Answer { reply, then: Some(then) } => {
                    if answer(&reader.stream, &reply, times.reply).is_ok() {
                        then(&reader.stream);
                    }
                    return;
                }
            },
            Ok(Line::TooLong) => {
                let what =
                    format!("asking the node: the request has more than {} bytes", Grouped(REQUEST_MAX));
                (error(what, "ask for less at once"), false)
            }
            Ok(Line::End | Line::Late) | Err(_) => return,
        };
        // A client that is gone or does not read is nobody to tell.
        if answer(&reader.stream, &reply, times.reply).is_err() || !go_on {
            return;
        }
    }
}

fn answer_to<A: Into<Answer>>(
    line: &[u8],
    handler: &impl Fn(AdminRequest, Ucred) -> A,
    peer: Ucred,
) -> Answer {
    match decode_request(line) {
        Ok(request) => handler(request, peer).into(),
        Err(why) => error(
            format!("asking the node: the request is not understood: {why}"),
            "use the same version of the command and the daemon",
        )
        .into(),
    }
}

fn answer(stream: &UnixStream, reply: &AdminReply, time: Duration) -> io::Result<()> {
    write_within(stream, &encode_reply(reply)?, time)
}

fn error(message: String, next: &str) -> AdminReply {
    AdminReply::Error { message, next: next.to_owned() }
}

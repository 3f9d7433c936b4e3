//! The daemon's side: a thread that accepts, and one for each of a bounded number of connections.

use super::{CONNECTIONS_MAX, Line, LineReader, REQUEST_MAX, bind_in_dir, write_within};
use crate::engine::admin::{AdminReply, AdminRequest};
use crate::node::layout::{ADMIN_SOCKET, Layout};
use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::geteuid;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A connection that does not send a whole request within this time is closed.
const REQUEST_TIME: Duration = Duration::from_secs(30);
/// A client that does not take its answer within this time is left.
const REPLY_TIME: Duration = Duration::from_secs(10);
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
}

/// Times of a server; tests use shorter ones.
#[derive(Clone, Copy)]
pub(super) struct Times {
    pub(super) request: Duration,
    pub(super) reply: Duration,
}

#[derive(Default)]
struct Shared {
    stopping: AtomicBool,
    open: Mutex<Open>,
    spare: Mutex<Spare>,
    one_less: Condvar,
}

#[derive(Default)]
struct Open {
    next: u64,
    streams: BTreeMap<u64, UnixStream>,
}

impl Shared {
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
    layout: Layout,
    listener: Arc<UnixListener>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Shared({} connections)", self.open().streams.len())
    }
}

/// Opens the admin socket of a node and answers with `handler`, which may block and is called from several threads
/// at once. To be called by the holder of the directory's lock.
///
/// # Errors
/// The socket or the thread cannot be made.
pub fn spawn<H>(layout: &Layout, handler: H) -> io::Result<AdminServer>
where
    H: Fn(AdminRequest, Ucred) -> AdminReply + Clone + Send + 'static,
{
    spawn_timed(layout, handler, Times { request: REQUEST_TIME, reply: REPLY_TIME })
}

pub(super) fn spawn_timed<H>(layout: &Layout, handler: H, times: Times) -> io::Result<AdminServer>
where
    H: Fn(AdminRequest, Ucred) -> AdminReply + Clone + Send + 'static,
{
    let listener = Arc::new(bind_in_dir(layout.dir(), ADMIN_SOCKET)?);
    let shared = Arc::new(Shared::default());
    let (accepting, state) = (listener.clone(), shared.clone());
    let thread = std::thread::Builder::new()
        .name("admin".to_owned())
        .spawn(move || accept_all(&accepting, &state, &handler, times))?;
    Ok(AdminServer { layout: layout.clone(), listener, shared, thread: Some(thread) })
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
        drop(std::fs::remove_file(self.layout.admin_socket()));
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

fn accept_all<H>(listener: &UnixListener, shared: &Arc<Shared>, handler: &H, times: Times)
where
    H: Fn(AdminRequest, Ucred) -> AdminReply + Clone + Send + 'static,
{
    loop {
        shared.spare().refill();
        let accepted = shared.with_spare(|| listener.accept());
        if shared.stopping.load(Ordering::SeqCst) {
            return;
        }
        match accepted {
            Ok((stream, _)) => admit(stream, shared, handler.clone(), times),
            // Out of descriptors, or a client that left at once: others may do better.
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
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
fn admit<H>(stream: UnixStream, shared: &Arc<Shared>, handler: H, times: Times)
where
    H: Fn(AdminRequest, Ucred) -> AdminReply + Send + 'static,
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
        serve(stream, &handler, times);
        drop(leaving);
    }));
}

/// Takes a connection off the list, whatever ends its thread.
struct Leaving {
    shared: Arc<Shared>,
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

fn serve(stream: UnixStream, handler: &impl Fn(AdminRequest, Ucred) -> AdminReply, times: Times) {
    let Ok(found) = getsockopt(&stream, sockopt::PeerCredentials) else { return };
    let peer = Ucred { uid: found.uid(), gid: found.gid(), pid: found.pid() };
    if !may_ask(peer.uid, geteuid().as_raw()) {
        let what = format!("asking the node: user {} is not permitted", peer.uid);
        let refused = error(what, "run this as the user that the node runs as, or as root");
        drop(answer(&stream, &refused, times.reply));
        return;
    }
    let mut reader = LineReader::new(stream, REQUEST_MAX);
    loop {
        let (reply, go_on) = match reader.line(times.request) {
            Ok(Line::Whole(line)) => (reply_to(&line, handler, peer), true),
            Ok(Line::TooLong) => {
                let what = format!("asking the node: the request has more than {REQUEST_MAX} bytes");
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

/// Whether a user may ask a daemon that runs as `own`.
pub(super) fn may_ask(uid: u32, own: u32) -> bool {
    uid == own || uid == 0
}

fn reply_to(line: &[u8], handler: &impl Fn(AdminRequest, Ucred) -> AdminReply, peer: Ucred) -> AdminReply {
    match serde_json::from_slice(line) {
        Ok(request) => handler(request, peer),
        Err(why) => error(
            format!("asking the node: the request is not understood: {why}"),
            "use the same version of the command and the daemon",
        ),
    }
}

fn answer(stream: &UnixStream, reply: &AdminReply, time: Duration) -> io::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    write_within(stream, &line, time)
}

fn error(message: String, next: &str) -> AdminReply {
    AdminReply::Error { message, next: next.to_owned() }
}

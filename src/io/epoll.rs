//! The driver over epoll, for machines that forbid io_uring: sockets edge-triggered, durable writes in two threads.
//!
//! Operations are tried when the driver waits, as long as nothing says that the socket would block; then they wait
//! for its next edge. Sockets may be in blocking mode: receives and sends ask not to block, and a socket that
//! accepts or connects is put into non-blocking mode.

mod socket;

use self::socket::{ReadOp, Socket, WriteOp};
use super::pool::{Job, Pool};
use super::waker::EventWaker;
use super::{Completion, Driver, DriverKind, Op, Outcome, Token, Wake};
use crate::sys::{Parts, WriteTask};
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::EfdFlags;
use nix::sys::socket::{Shutdown, shutdown};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Events taken from the kernel at once.
const EVENTS: usize = 256;
/// The waker's event; no socket has this number.
const WAKER: u64 = u64::MAX;

/// See [`Driver`].
pub(super) struct EpollDriver {
    epoll: Epoll,
    waker: Arc<EventWaker>,
    pool: Pool,
    /// By descriptor number. Grows to the highest one seen, which RLIMIT_NOFILE bounds.
    sockets: Vec<Socket>,
    /// Sockets with something to try.
    runnable: VecDeque<usize>,
    /// Completions that needed no socket.
    ready: Vec<Completion>,
    events: Vec<EpollEvent>,
}

impl EpollDriver {
    /// A driver with its threads.
    pub(super) fn open() -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let waker = Arc::new(EventWaker::new(EfdFlags::EFD_NONBLOCK)?);
        // Edge-triggered, every write to the eventfd is an edge of its own: it is never read.
        epoll.add(&*waker, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, WAKER))?;
        Ok(Self {
            epoll,
            pool: Pool::new(Arc::clone(&waker)),
            waker,
            sockets: Vec::new(),
            runnable: VecDeque::new(),
            ready: Vec::new(),
            events: vec![EpollEvent::empty(); EVENTS],
        })
    }

    /// The state of a socket that an operation arrives for; it is watched from now on.
    fn socket(&mut self, handle: &Arc<OwnedFd>) -> io::Result<usize> {
        let fd = handle.as_raw_fd();
        let index = usize::try_from(fd).map_err(|_| io::Error::from(Errno::EBADF))?;
        if index >= self.sockets.len() {
            self.sockets.resize_with(index + 1, Socket::default);
        }
        let socket = self.sockets.get_mut(index).ok_or(Errno::EBADF)?;
        if !socket.is_for(handle) {
            let flags =
                EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
            let data = u64::try_from(fd).map_err(|_| io::Error::from(Errno::EBADF))?;
            match self.epoll.add(handle, EpollEvent::new(flags, data)) {
                // The number was watched for a descriptor whose file lives on in a duplicate.
                Err(Errno::EEXIST) => self.epoll.modify(handle, &mut EpollEvent::new(flags, data))?,
                other => other?,
            }
            socket.begin(handle);
        }
        Ok(index)
    }

    fn read(&mut self, token: Token, handle: &Arc<OwnedFd>, op: ReadOp) {
        match self.socket(handle) {
            Ok(index) => {
                self.with(index, |socket| socket.readers.push_back((token, op)));
                self.schedule(index);
            }
            Err(error) => self.ready.push(Completion { token, outcome: op.failed(error) }),
        }
    }

    fn write(&mut self, token: Token, handle: &Arc<OwnedFd>, op: WriteOp) {
        match self.socket(handle) {
            Ok(index) => {
                self.with(index, |socket| socket.writers.push_back((token, op)));
                self.schedule(index);
            }
            Err(error) => self.ready.push(Completion { token, outcome: op.failed(error) }),
        }
    }

    fn with(&mut self, index: usize, change: impl FnOnce(&mut Socket)) {
        if let Some(socket) = self.sockets.get_mut(index) {
            change(socket);
        }
    }

    /// Has the socket tried soon, if there is something to try.
    fn schedule(&mut self, index: usize) {
        if let Some(socket) = self.sockets.get_mut(index)
            && !socket.scheduled
            && socket.is_runnable()
        {
            socket.scheduled = true;
            self.runnable.push_back(index);
        }
    }

    /// Tries each scheduled socket once; one that has not come to its end is scheduled again.
    fn run(&mut self, out: &mut Vec<Completion>) {
        for _ in 0..self.runnable.len() {
            let Some(index) = self.runnable.pop_front() else { break };
            if let Some(socket) = self.sockets.get_mut(index) {
                socket.scheduled = false;
                socket.run(out);
            }
            self.schedule(index);
        }
    }

    /// Waits for events and notes them. Returns whether the waker was among them.
    fn poll(&mut self, timeout: EpollTimeout) -> io::Result<bool> {
        let mut woken = false;
        let count = match self.epoll.wait(&mut self.events, timeout) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(errno) => return Err(errno.into()),
        };
        for position in 0..count {
            let Some(event) = self.events.get(position).copied() else { break };
            if event.data() == WAKER {
                self.waker.taken();
                woken = true;
            } else if let Ok(index) = usize::try_from(event.data()) {
                self.with(index, |socket| socket.note(event.events()));
                self.schedule(index);
            }
        }
        Ok(woken)
    }
}

impl Driver for EpollDriver {
    fn submit(&mut self, token: Token, op: Op) {
        match op {
            Op::Accept(socket) => self.read(token, &Arc::clone(&socket), ReadOp::Accept(socket)),
            Op::Connect(socket, address) => {
                self.write(token, &Arc::clone(&socket), WriteOp::Connect(socket, address, false));
            }
            Op::AwaitEnd(handle) => match self.socket(&handle) {
                Ok(index) => {
                    self.with(index, |socket| socket.watchers.push((token, handle)));
                    self.schedule(index);
                }
                Err(_) => self.ready.push(Completion { token, outcome: Outcome::Ended }),
            },
            Op::Receive(_, buffer) if buffer.capacity() == 0 => {
                let outcome = Outcome::Received(Err(Errno::EINVAL.into()));
                self.ready.push(Completion { token, outcome });
            }
            Op::Receive(socket, buffer) => {
                self.read(token, &Arc::clone(&socket), ReadOp::Receive(socket, buffer));
            }
            Op::Send(socket, parts) => {
                let parts = Parts::new(parts);
                if parts.is_done() {
                    self.ready.push(Completion { token, outcome: Outcome::Sent(Ok(())) });
                } else {
                    self.write(token, &Arc::clone(&socket), WriteOp::Send(socket, parts));
                }
            }
            Op::Fill(_, buffer, goal) if buffer.len() >= goal.least => {
                self.ready.push(Completion { token, outcome: Outcome::Filled(Ok(buffer)) });
            }
            Op::Fill(_, buffer, goal) if buffer.spare() < goal.least - buffer.len() => {
                let outcome = Outcome::Filled(Err(Errno::EINVAL.into()));
                self.ready.push(Completion { token, outcome });
            }
            Op::Fill(socket, buffer, goal) => {
                self.read(token, &Arc::clone(&socket), ReadOp::Fill(socket, buffer, goal));
            }
            Op::WriteDurable(file, parts, offset) => {
                self.pool.start(Job { token, write: WriteTask::new(file, parts, offset) });
            }
        }
    }

    fn wait(&mut self, timeout: Option<Duration>, out: &mut Vec<Completion>) -> io::Result<()> {
        let before = out.len();
        let deadline = match timeout {
            Some(timeout) if !timeout.is_zero() => Instant::now().checked_add(timeout),
            _ => None,
        };
        let mut left = timeout;
        loop {
            out.append(&mut self.ready);
            self.run(out);
            self.pool.take(out);
            let busy = out.len() > before || !self.runnable.is_empty();
            let woken = self.poll(if busy { EpollTimeout::ZERO } else { milliseconds(left) })?;
            self.run(out);
            self.pool.take(out);
            if out.len() > before || woken || left == Some(Duration::ZERO) {
                return Ok(());
            }
            if let Some(deadline) = deadline {
                left = Some(deadline.saturating_duration_since(Instant::now()));
                if left == Some(Duration::ZERO) {
                    return Ok(());
                }
            }
        }
    }

    fn cancel(&mut self, fd: RawFd) {
        // ENOTCONN is all that can be wrong with a socket, and then there is nothing to shut down.
        let _ = shutdown(fd, Shutdown::Both);
        let Ok(index) = usize::try_from(fd) else { return };
        if let Some(socket) = self.sockets.get_mut(index) {
            let cancelled = || io::Error::from(Errno::ECANCELED);
            for (token, op) in socket.readers.drain(..) {
                self.ready.push(Completion { token, outcome: op.failed(cancelled()) });
            }
            for (token, op) in socket.writers.drain(..) {
                self.ready.push(Completion { token, outcome: op.failed(cancelled()) });
            }
            for (token, _) in socket.watchers.drain(..) {
                self.ready.push(Completion { token, outcome: Outcome::Ended });
            }
        }
    }

    fn waker(&self) -> Arc<dyn Wake> {
        Arc::clone(&self.waker) as Arc<dyn Wake>
    }

    fn kind(&self) -> DriverKind {
        DriverKind::Epoll
    }
}

/// epoll_wait counts in milliseconds; a wait is never shorter than asked for.
fn milliseconds(timeout: Option<Duration>) -> EpollTimeout {
    let Some(timeout) = timeout else { return EpollTimeout::NONE };
    let rounded = timeout.as_nanos().div_ceil(1_000_000);
    EpollTimeout::try_from(rounded).unwrap_or(EpollTimeout::MAX)
}

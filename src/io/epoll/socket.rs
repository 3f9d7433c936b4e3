//! One socket: what waits for it, and what its last edges said.

use super::super::{Completion, Outcome, Token};
use crate::base::AlignedBuf;
use crate::sys::{self, Goal, Parts};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::epoll::EpollFlags;
use nix::sys::socket::{SockaddrStorage, connect, getpeername, getsockopt, sockopt};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::{Arc, Weak};

/// Calls on one socket before the others have their turn.
const TURN: u32 = 16;

/// What waits for a socket to become readable.
pub(super) enum ReadOp {
    Accept(Arc<OwnedFd>),
    Receive(Arc<OwnedFd>, Vec<u8>),
    Fill(Arc<OwnedFd>, AlignedBuf, Goal),
}

/// What waits for a socket to become writable. A connect knows whether it was begun.
pub(super) enum WriteOp {
    Connect(Arc<OwnedFd>, SocketAddr, bool),
    Send(Arc<OwnedFd>, Parts),
}

impl ReadOp {
    /// Its end by `error`.
    pub(super) fn failed(self, error: io::Error) -> Outcome {
        match self {
            Self::Accept(_) => Outcome::Accepted(Err(error)),
            Self::Receive(..) => Outcome::Received(Err(error)),
            Self::Fill(..) => Outcome::Filled(Err(error)),
        }
    }
}

impl WriteOp {
    /// Its end by `error`.
    pub(super) fn failed(self, error: io::Error) -> Outcome {
        match self {
            Self::Connect(..) => Outcome::Connected(Err(error)),
            Self::Send(..) => Outcome::Sent(Err(error)),
        }
    }
}

/// A watched descriptor number. Operations of one direction are served in order.
#[derive(Default)]
pub(super) struct Socket {
    /// Whose number this is; the number alone may have passed to another file.
    handle: Weak<OwnedFd>,
    /// A read may succeed: no attempt since the last edge said otherwise.
    readable: bool,
    /// The same for writes.
    writable: bool,
    /// The stream has ended or failed: reads no longer block.
    ended: bool,
    /// Whether it is in the driver's queue of sockets to try.
    pub(super) scheduled: bool,
    pub(super) readers: VecDeque<(Token, ReadOp)>,
    pub(super) writers: VecDeque<(Token, WriteOp)>,
    /// What waits for the end of the stream.
    pub(super) watchers: Vec<(Token, Arc<OwnedFd>)>,
}

impl Socket {
    /// Whether this is the state of `handle`.
    pub(super) fn is_for(&self, handle: &Arc<OwnedFd>) -> bool {
        // A weak handle keeps the address from being reused, so equal addresses are the same descriptor.
        std::ptr::eq(self.handle.as_ptr(), Arc::as_ptr(handle))
    }

    /// Starts anew for `handle`.
    pub(super) fn begin(&mut self, handle: &Arc<OwnedFd>) {
        self.handle = Arc::downgrade(handle);
        self.readable = true;
        self.writable = true;
        self.ended = false;
    }

    /// Takes an edge.
    pub(super) fn note(&mut self, events: EpollFlags) {
        let ended = EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR;
        self.ended |= events.intersects(ended);
        self.readable |= self.ended || events.contains(EpollFlags::EPOLLIN);
        self.writable |= self.ended || events.contains(EpollFlags::EPOLLOUT);
    }

    /// Whether there is something to try.
    pub(super) fn is_runnable(&self) -> bool {
        let read = self.readable && !self.readers.is_empty();
        let write = self.writable && !self.writers.is_empty();
        read || write || (self.ended && !self.watchers.is_empty())
    }

    /// Tries what waits, up to a turn.
    pub(super) fn run(&mut self, out: &mut Vec<Completion>) {
        for _ in 0..TURN {
            if !self.readable || !self.read_once(out) {
                break;
            }
        }
        for _ in 0..TURN {
            if !self.writable || !self.write_once(out) {
                break;
            }
        }
        if self.ended {
            let ended = |(token, _)| Completion { token, outcome: Outcome::Ended };
            out.extend(self.watchers.drain(..).map(ended));
        }
    }

    fn read_once(&mut self, out: &mut Vec<Completion>) -> bool {
        let Some((token, op)) = self.readers.front_mut() else { return false };
        let outcome = match op {
            ReadOp::Accept(listener) => match accept(listener) {
                Err(error) if again(&error) => None,
                result => Some(Outcome::Accepted(result)),
            },
            ReadOp::Receive(socket, buffer) => match sys::receive(socket.as_fd(), buffer) {
                Ok(count) => {
                    // epoll(7): less than asked for means that the stream is drained; what comes later is a new
                    // edge. An end that was already seen is not.
                    if count < buffer.capacity() && !self.ended {
                        self.readable = false;
                    }
                    Some(Outcome::Received(Ok(std::mem::take(buffer))))
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => return true,
                Err(error) if again(&error) => None,
                Err(error) => Some(Outcome::Received(Err(error))),
            },
            ReadOp::Fill(socket, buffer, goal) => match sys::fill(socket.as_fd(), buffer, goal.most) {
                Ok(0) => Some(Outcome::Filled(Err(io::ErrorKind::UnexpectedEof.into()))),
                Ok(_) if buffer.len() < goal.least => return true,
                Ok(_) => Some(Outcome::Filled(Ok(std::mem::replace(buffer, AlignedBuf::with_capacity(0))))),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => return true,
                Err(error) if again(&error) => None,
                Err(error) => Some(Outcome::Filled(Err(error))),
            },
        };
        let Some(outcome) = outcome else {
            self.readable = false;
            return false;
        };
        out.push(Completion { token: *token, outcome });
        self.readers.pop_front();
        true
    }

    fn write_once(&mut self, out: &mut Vec<Completion>) -> bool {
        let Some((token, op)) = self.writers.front_mut() else { return false };
        let outcome = match op {
            WriteOp::Connect(socket, address, begun) => {
                let result = if *begun { connected(socket, self.ended) } else { begin(socket, *address) };
                *begun = true;
                match result {
                    Err(error) if again(&error) => None,
                    result => Some(Outcome::Connected(result)),
                }
            }
            WriteOp::Send(socket, parts) => match sys::send(socket.as_fd(), parts) {
                Ok(count) => {
                    parts.advance(count);
                    if !parts.is_done() {
                        return true;
                    }
                    Some(Outcome::Sent(Ok(())))
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => return true,
                Err(error) if again(&error) => None,
                Err(error) => Some(Outcome::Sent(Err(error))),
            },
        };
        let Some(outcome) = outcome else {
            self.writable = false;
            return false;
        };
        out.push(Completion { token: *token, outcome });
        self.writers.pop_front();
        true
    }
}

fn again(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
}

fn unblock(socket: &OwnedFd) -> nix::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(socket, FcntlArg::F_GETFL)?);
    if !flags.contains(OFlag::O_NONBLOCK) {
        fcntl(socket, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    }
    Ok(())
}

fn accept(listener: &OwnedFd) -> io::Result<OwnedFd> {
    unblock(listener)?;
    loop {
        match sys::accept(listener.as_fd()) {
            // accept(2): the connection was gone before it was taken, or a signal came.
            Err(error)
                if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) => {}
            result => return result,
        }
    }
}

/// Begins to connect; `WouldBlock` when the end is still open.
fn begin(socket: &OwnedFd, address: SocketAddr) -> io::Result<()> {
    unblock(socket)?;
    match connect(socket.as_raw_fd(), &SockaddrStorage::from(address)) {
        // connect(2): after EINTR the connection goes on being established, as after EINPROGRESS.
        Err(Errno::EINPROGRESS | Errno::EINTR) => Err(io::ErrorKind::WouldBlock.into()),
        result => Ok(result?),
    }
}

/// What became of a connection that was begun; `WouldBlock` when its end is still open.
fn connected(socket: &OwnedFd, ended: bool) -> io::Result<()> {
    // connect(2): after writability, SO_ERROR tells whether it was successful.
    let code = getsockopt(&socket, sockopt::SocketError)?;
    if code != 0 {
        return Err(io::Error::from_raw_os_error(code));
    }
    match getpeername::<SockaddrStorage>(socket.as_raw_fd()) {
        // An edge from before the attempt.
        Err(Errno::ENOTCONN) if !ended => Err(io::ErrorKind::WouldBlock.into()),
        result => Ok(result.map(drop)?),
    }
}

//! The driver over io_uring: one ring on one thread, one system call per wait.

use super::pool::{Job, Pool};
use super::waker::EventWaker;
use super::{Completion, Driver, DriverKind, JournalFile, Op, Outcome, Token, Wake};
use crate::sys::{Finished, Parts, Ring, Task, WriteTask};
use nix::sys::eventfd::EfdFlags;
use nix::sys::socket::{Shutdown, shutdown};
use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long the self-test at the start waits for its wake.
const TRIAL: Duration = Duration::from_secs(1);
/// An eventfd's counter (bytes).
const COUNTER: usize = 8;

/// See [`Driver`].
pub(super) struct UringDriver {
    ring: Ring<JournalFile>,
    waker: Arc<EventWaker>,
    /// What the ring reads to be woken.
    event: Arc<OwnedFd>,
    /// Writes what is better written by a thread.
    pool: Pool,
    /// Completions that needed no kernel.
    ready: Vec<Completion>,
}

impl UringDriver {
    /// A ring with `entries` that has woken itself once.
    pub(super) fn open(entries: u32) -> io::Result<Self> {
        let waker = Arc::new(EventWaker::new(EfdFlags::empty())?);
        let event = Arc::new(waker.as_fd().try_clone_to_owned()?);
        let pool = Pool::new(Arc::clone(&waker));
        let mut driver = Self { ring: Ring::open(entries)?, waker, event, pool, ready: Vec::new() };
        driver.listen(Vec::with_capacity(COUNTER));
        driver.waker.wake();
        driver.wait(Some(TRIAL), &mut Vec::new())?;
        if driver.waker.is_given() {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "io_uring did not read an eventfd in a second",
            ));
        }
        Ok(driver)
    }

    /// Reads the waker's counter when somebody wakes.
    fn listen(&mut self, buffer: Vec<u8>) {
        self.ring.start(0, Task::Read(Arc::clone(&self.event), buffer));
    }

    fn write(&mut self, token: Token, write: WriteTask<JournalFile>) {
        let task = if write.done < write.len {
            if write.file.direct { Task::WriteDurably(write) } else { Task::Write(write) }
        } else if write.file.direct {
            self.ready.push(Completion { token, outcome: Outcome::Written(Ok(())) });
            return;
        } else {
            Task::Sync(write)
        };
        self.ring.start(token.0, task);
    }

    fn send(&mut self, token: Token, socket: Arc<OwnedFd>, parts: Parts) {
        if parts.is_done() {
            self.ready.push(Completion { token, outcome: Outcome::Sent(Ok(())) });
        } else {
            self.ring.start(token.0, Task::Send(socket, parts));
        }
    }

    /// Goes on with the operation of a finished step, or says what came of it.
    fn conclude(&mut self, finished: Finished<JournalFile>) -> Option<Outcome> {
        let Finished { token, task, accepted, result } = finished;
        let interrupted = matches!(&result, Err(error) if error.kind() == io::ErrorKind::Interrupted);
        match task {
            // A signal is no reason to give up. Writes and syncs are never repeated after a failure.
            Task::Accept(_) | Task::Receive(..) | Task::Send(..) | Task::AwaitEnd(_) if interrupted => {
                self.ring.start(token, task);
                None
            }
            Task::Accept(_) => {
                let missing = || io::Error::from_raw_os_error(libc::EBADF);
                Some(Outcome::Accepted(result.and_then(|_| accepted.ok_or_else(missing))))
            }
            Task::Connect(..) => Some(Outcome::Connected(result.map(drop))),
            Task::AwaitEnd(_) => Some(Outcome::Ended),
            Task::Receive(_, buffer) => Some(Outcome::Received(result.map(|_| buffer))),
            Task::Fill(..) if interrupted => {
                self.ring.start(token, task);
                None
            }
            Task::Fill(socket, buffer, goal) => match result {
                Err(error) => Some(Outcome::Filled(Err(error))),
                Ok(_) if buffer.len() >= goal.least => Some(Outcome::Filled(Ok(buffer))),
                Ok(0) => Some(Outcome::Filled(Err(io::ErrorKind::UnexpectedEof.into()))),
                Ok(_) => {
                    self.ring.start(token, Task::Fill(socket, buffer, goal));
                    None
                }
            },
            Task::Read(_, buffer) => {
                self.waker.taken();
                self.listen(buffer);
                None
            }
            Task::Send(socket, mut parts) => match result {
                Err(error) => Some(Outcome::Sent(Err(error))),
                Ok(count) => {
                    parts.advance(count);
                    if parts.is_done() {
                        return Some(Outcome::Sent(Ok(())));
                    }
                    self.ring.start(token, Task::Send(socket, parts));
                    None
                }
            },
            Task::WriteDurably(write) | Task::Write(write) => match result {
                Err(error) => Some(Outcome::Written(Err(error))),
                Ok(count) => self.go_on_writing(Token(token), write, count),
            },
            Task::Sync(_) => Some(Outcome::Written(result.map(drop))),
        }
    }

    fn go_on_writing(
        &mut self,
        token: Token,
        mut write: WriteTask<JournalFile>,
        count: usize,
    ) -> Option<Outcome> {
        let direct = write.file.direct;
        match super::write_progress(write.done, count, write.len, direct) {
            Err(error) => Some(Outcome::Written(Err(error))),
            Ok(done) if direct && done == write.len => Some(Outcome::Written(Ok(()))),
            Ok(done) => {
                write.reached(done);
                self.write(token, write);
                None
            }
        }
    }
}

impl Driver for UringDriver {
    fn submit(&mut self, token: Token, op: Op) {
        match op {
            Op::Accept(socket) => self.ring.start(token.0, Task::Accept(socket)),
            Op::Connect(socket, address) => self.ring.start(token.0, Task::Connect(socket, address)),
            Op::Receive(_, buffer) if buffer.capacity() == 0 => {
                let error = io::Error::from_raw_os_error(libc::EINVAL);
                self.ready.push(Completion { token, outcome: Outcome::Received(Err(error)) });
            }
            Op::Receive(socket, buffer) => self.ring.start(token.0, Task::Receive(socket, buffer)),
            Op::Fill(_, buffer, goal) if buffer.len() >= goal.least => {
                self.ready.push(Completion { token, outcome: Outcome::Filled(Ok(buffer)) });
            }
            Op::Fill(_, buffer, goal) if buffer.spare() < goal.least - buffer.len() => {
                let error = io::Error::from_raw_os_error(libc::EINVAL);
                self.ready.push(Completion { token, outcome: Outcome::Filled(Err(error)) });
            }
            Op::Fill(socket, buffer, goal) => self.ring.start(token.0, Task::Fill(socket, buffer, goal)),
            Op::AwaitEnd(socket) => self.ring.start(token.0, Task::AwaitEnd(socket)),
            Op::Send(socket, parts) => self.send(token, socket, Parts::new(parts)),
            Op::WriteDurable(file, parts, offset) => {
                let write = WriteTask::new(file, parts, offset);
                if write.file.by_thread {
                    self.pool.start(Job { token, write });
                } else {
                    self.write(token, write);
                }
            }
        }
    }

    fn wait(&mut self, timeout: Option<Duration>, out: &mut Vec<Completion>) -> io::Result<()> {
        let before = out.len();
        out.append(&mut self.ready);
        // Only a wait that the kernel ended for reasons of its own looks at the clock again.
        let deadline = match timeout {
            Some(timeout) if !timeout.is_zero() => Instant::now().checked_add(timeout),
            _ => None,
        };
        let mut left = timeout;
        let mut woken = false;
        loop {
            let idle = out.len() == before && !woken;
            self.ring.enter(idle && left != Some(Duration::ZERO), left.filter(|left| !left.is_zero()))?;
            while let Some(finished) = self.ring.finished() {
                let token = Token(finished.token);
                woken |= matches!(finished.task, Task::Read(..));
                if let Some(outcome) = self.conclude(finished) {
                    out.push(Completion { token, outcome });
                }
            }
            out.append(&mut self.ready);
            if woken {
                // The threads wake like anybody else.
                self.pool.take(out);
            }
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
        self.ring.cancel(fd);
    }

    fn waker(&self) -> Arc<dyn Wake> {
        Arc::clone(&self.waker) as Arc<dyn Wake>
    }

    fn kind(&self) -> DriverKind {
        DriverKind::Uring
    }
}

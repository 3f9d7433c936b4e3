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
/// After so many waits that could last, the owner counts as one who rests.
const WAITS_TO_REST: u32 = 64;
/// How long a busy owner rests for the workers that end a write of the ring.
const REST: Duration = Duration::from_micros(200);
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
    /// Waits since the last that was not to last.
    waits: u32,
    /// Steps of writes that the ring makes now.
    writing: usize,
}

impl UringDriver {
    /// A ring with `entries` that has woken itself once.
    pub(super) fn open(entries: u32) -> io::Result<Self> {
        let waker = Arc::new(EventWaker::new(EfdFlags::empty())?);
        let event = Arc::new(waker.as_fd().try_clone_to_owned()?);
        let pool = Pool::new(Arc::clone(&waker));
        let mut driver = Self {
            ring: Ring::open(entries)?,
            waker,
            event,
            pool,
            ready: Vec::new(),
            waits: WAITS_TO_REST,
            writing: 0,
        };
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

    /// Whether the owner has more to do than it comes to. The kernel ends a synced write of the ring in a worker that is
    /// bound to the processor on which it was begun, so beside an owner that never rests it may wait for very long; a
    /// thread goes where there is room.
    fn is_busy(&self) -> bool {
        self.waits < WAITS_TO_REST
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
        self.writing += 1;
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
                if write.file.by_thread || self.is_busy() {
                    self.pool.start(Job { token, write });
                } else {
                    self.write(token, write);
                }
            }
        }
    }

    fn wait(&mut self, timeout: Option<Duration>, out: &mut Vec<Completion>) -> io::Result<()> {
        let busy = timeout == Some(Duration::ZERO);
        self.waits = if busy { 0 } else { self.waits.saturating_add(1) };
        // Those begun before the owner became busy are let to their end.
        let timeout = if busy && self.writing > 0 { Some(REST) } else { timeout };
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
                let task = &finished.task;
                woken |= matches!(task, Task::Read(..));
                let wrote = matches!(task, Task::WriteDurably(_) | Task::Write(_) | Task::Sync(_));
                self.writing -= usize::from(wrote);
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

#[cfg(test)]
mod tests {
    use super::super::open_journal;
    use super::*;
    use crate::base::AlignedBuf;
    use bytes::Bytes;
    use std::path::Path;

    fn write(driver: &mut UringDriver, path: &Path) {
        let file = Arc::new(open_journal(path, false).unwrap());
        let mut block = AlignedBuf::with_capacity(4096);
        block.extend_from_slice(&[7; 4096]);
        driver.submit(Token(1), Op::WriteDurable(file, vec![Bytes::from_owner(block)], 0));
    }

    #[test]
    fn a_write_does_not_wait_for_an_owner_that_never_rests() {
        let Ok(mut driver) = UringDriver::open(8) else { return eprintln!("skipped: no io_uring") };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("segment");
        std::fs::write(&path, [0; 8192]).unwrap();
        driver.wait(Some(Duration::ZERO), &mut Vec::new()).unwrap();
        write(&mut driver, &path);
        let until = Instant::now() + Duration::from_secs(20);
        while std::fs::read(&path).unwrap()[0] != 7 {
            assert!(Instant::now() < until, "the owner is busy, and nobody writes");
            std::thread::yield_now();
        }
        let mut out = Vec::new();
        while out.is_empty() {
            driver.wait(None, &mut out).unwrap();
        }
        assert!(matches!(out[..], [Completion { token: Token(1), outcome: Outcome::Written(Ok(())) }]));
        // One that rests again has its writes made by the ring, which needs no other thread.
        (0..WAITS_TO_REST).for_each(|_| {
            driver.waker.wake();
            driver.wait(None, &mut out).unwrap();
        });
        assert!(!driver.is_busy());
    }
}

//! Two threads that write journals, because a durable write blocks.

use super::super::waker::EventWaker;
use super::super::{Completion, JournalFile, Outcome, Token, Wake, write_progress};
use crate::sys::{write_at, write_durably_at};
use bytes::Bytes;
use nix::unistd::fdatasync;
use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Two journals, so two writes at once.
const THREADS: usize = 2;
/// How long a dropped pool waits for writes under way.
const DRAIN: Duration = Duration::from_secs(10);

/// A write to do.
pub(super) struct Job {
    pub(super) token: Token,
    pub(super) file: Arc<JournalFile>,
    pub(super) bytes: Bytes,
    pub(super) offset: u64,
}

/// The threads and their queues. The queues are bounded by what the caller has in flight.
pub(super) struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// A job came or the pool stops.
    work: Condvar,
    /// A thread has ended.
    ended: Condvar,
    waker: Arc<EventWaker>,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    done: Vec<Completion>,
    threads: usize,
    stopping: bool,
}

impl Pool {
    /// Starts the threads; they wake `waker` at each completion.
    pub(super) fn open(waker: Arc<EventWaker>) -> io::Result<Self> {
        let state = Mutex::new(State::default());
        let shared = Arc::new(Shared { state, work: Condvar::new(), ended: Condvar::new(), waker });
        let pool = Self { shared };
        for _ in 0..THREADS {
            let shared = Arc::clone(&pool.shared);
            std::thread::Builder::new().name("journal-write".into()).spawn(move || shared.serve())?;
            pool.shared.lock().threads += 1;
        }
        Ok(pool)
    }

    /// Hands a job to the threads.
    pub(super) fn start(&self, job: Job) {
        self.shared.lock().jobs.push_back(job);
        self.shared.work.notify_one();
    }

    /// Takes the completions so far.
    pub(super) fn take(&self, out: &mut Vec<Completion>) {
        out.append(&mut self.shared.lock().done);
    }
}

impl Drop for Pool {
    /// Drops what was not begun and waits for what was, so that no write of this driver lands after it is gone.
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.stopping = true;
        state.jobs.clear();
        self.shared.work.notify_all();
        // The threads own their buffers; a device that does not answer keeps one thread, nothing else.
        let _ = self.shared.ended.wait_timeout_while(state, DRAIN, |state| state.threads > 0);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self) {
        let mut state = self.lock();
        while !state.stopping {
            let Some(job) = state.jobs.pop_front() else {
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(state);
            let token = job.token;
            let outcome = Outcome::Written(write_durable(job));
            self.lock().done.push(Completion { token, outcome });
            // After the unlock, or the woken thread would only wait for the lock.
            self.waker.wake();
            state = self.lock();
        }
        state.threads -= 1;
        self.ended.notify_all();
    }
}

/// Writes all of the bytes, durable when it returns; file and bytes are given up before the completion is seen. A
/// failed sync is never tried again.
fn write_durable(job: Job) -> io::Result<()> {
    let Job { file, bytes, offset, .. } = job;
    let mut done = 0;
    while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
        let at = offset.saturating_add(u64::try_from(done).unwrap_or(u64::MAX));
        let count = if file.direct {
            write_durably_at(file.as_fd(), rest, at)?
        } else {
            write_at(file.as_fd(), rest, at)?
        };
        done = write_progress(done, count, bytes.len(), file.direct)?;
    }
    if file.direct { Ok(()) } else { Ok(fdatasync(file.as_fd())?) }
}

//! Two threads that write journals, because a durable write blocks.

use super::file::calls;
use super::waker::EventWaker;
use super::{Completion, JournalFile, Outcome, Token, Wake, write_progress};
use crate::sys::WriteTask;
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
    pub(super) write: WriteTask<JournalFile>,
}

/// The threads and their queues. The queues are bounded by what the caller has in flight.
pub(super) struct Pool {
    shared: Arc<PoolState>,
    /// Threads begun; a driver that never writes has none.
    threads: usize,
}

struct PoolState {
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
    /// Threads that live.
    threads: usize,
    /// Threads that wait for a job.
    idle: usize,
    stopping: bool,
}

impl Pool {
    /// A pool that begins its threads when they are needed; they wake `waker` at each completion.
    pub(super) fn new(waker: Arc<EventWaker>) -> Self {
        let state = Mutex::new(State::default());
        let shared = Arc::new(PoolState { state, work: Condvar::new(), ended: Condvar::new(), waker });
        Self { shared, threads: 0 }
    }

    /// Hands a job to the threads. It fails like any write when the system gives no thread at all.
    pub(super) fn start(&mut self, job: Job) {
        let mut state = self.shared.lock();
        if state.jobs.len() >= state.idle && self.threads < THREADS {
            state.threads += 1;
            drop(state);
            let shared = Arc::clone(&self.shared);
            let begun =
                std::thread::Builder::new().name("journal-write".into()).spawn(move || shared.serve());
            state = self.shared.lock();
            match begun {
                Ok(_) => self.threads += 1,
                Err(error) => {
                    state.threads -= 1;
                    if self.threads == 0 {
                        let outcome = Outcome::Written(Err(error));
                        state.done.push(Completion { token: job.token, outcome });
                        drop(state);
                        self.shared.waker.wake();
                        return;
                    }
                }
            }
        }
        state.jobs.push_back(job);
        drop(state);
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

impl PoolState {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self) {
        let mut state = self.lock();
        while !state.stopping {
            let Some(job) = state.jobs.pop_front() else {
                state.idle += 1;
                state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
                continue;
            };
            drop(state);
            let token = job.token;
            let outcome = Outcome::Written(write_durable(job.write));
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
fn write_durable(mut write: WriteTask<JournalFile>) -> io::Result<()> {
    let direct = write.file.direct;
    while write.done < write.len {
        let file = write.file.as_fd();
        let count = if direct {
            calls::write_durable(file, &write.parts, write.at())?
        } else {
            calls::write(file, &write.parts, write.at())?
        };
        write.reached(write_progress(write.done, count, write.len, direct)?);
    }
    if direct { Ok(()) } else { calls::sync_data(write.file.as_fd()) }
}

#[cfg(test)]
mod tests {
    use super::super::open_journal;
    use super::*;
    use bytes::Bytes;

    #[test]
    fn a_durable_write_syncs_what_was_written_with_and_without_direct_io() {
        for direct in [true, false] {
            calls::testing::assert_syncs(
                1,
                |dir| std::fs::write(dir.join("segment"), [0; 64 << 10]).unwrap(),
                |dir| {
                    let file = open_journal(&dir.join("segment"), false)?;
                    let file = JournalFile { direct: file.direct && direct, ..file };
                    let mut block = crate::base::AlignedBuf::with_capacity(4096);
                    block.extend_from_slice(&[7; 4096]);
                    let parts = vec![Bytes::from_owner(block)];
                    write_durable(WriteTask::new(std::sync::Arc::new(file), parts, 4096))
                },
            );
        }
    }
}

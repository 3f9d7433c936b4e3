//! The thread that owns the store's writer: batches in order, as many at once as wait.

use super::inbox::{CoreEnded, Inbox};
use crate::base::limits::APPLY_MERGE_MAX;
use crate::base::{Fault, JournalKind, Seq};
use crate::engine::Event;
use crate::format::batch::Batch;
use crate::store::{StoreError, StoreWrite};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};

/// Work for the store.
#[derive(Debug)]
pub(crate) enum Apply {
    /// Apply a batch of a journal.
    Batch(JournalKind, Batch),
    /// Make what is applied durable.
    Checkpoint,
}

/// What the store does when nothing else is to be done, a little at a time.
pub(crate) trait Chores {
    /// Does a little; whether more is to do.
    fn chore(&mut self) -> Result<bool, StoreError>;
}

/// Applies until the core is gone or `stop` is set.
pub(crate) fn run<W: StoreWrite + Chores>(
    store: &mut W,
    work: &Receiver<Apply>,
    inbox: &Inbox,
    stop: &AtomicBool,
) {
    let mut next = None;
    let mut idle = false;
    while !stop.load(Ordering::Relaxed) {
        let job = match next.take().map_or_else(|| work.try_recv(), Ok) {
            Ok(job) => job,
            Err(TryRecvError::Disconnected) => return,
            Err(TryRecvError::Empty) if idle => match work.recv() {
                Ok(job) => job,
                Err(_) => return,
            },
            Err(TryRecvError::Empty) => {
                idle = !chore(store);
                continue;
            }
        };
        idle = false;
        let done = match job {
            Apply::Batch(journal, batch) => {
                let batches;
                (batches, next) = gather(journal, batch, work);
                inbox.event(apply(store, journal, &batches))
            }
            Apply::Checkpoint => inbox.event(checkpoint(store)),
        };
        if done == Err(CoreEnded) {
            return;
        }
    }
}

/// All batches of `journal` that wait already, up to a limit, and the job after them.
fn gather(journal: JournalKind, first: Batch, work: &Receiver<Apply>) -> (Vec<Batch>, Option<Apply>) {
    let mut bytes = first.disk().len();
    let mut batches = vec![first];
    while bytes < APPLY_MERGE_MAX {
        match work.try_recv() {
            Ok(Apply::Batch(other, batch)) if other == journal => {
                bytes += batch.disk().len();
                batches.push(batch);
            }
            Ok(job) => return (batches, Some(job)),
            Err(_) => break,
        }
    }
    (batches, None)
}

fn apply(store: &mut impl StoreWrite, journal: JournalKind, batches: &[Batch]) -> Event {
    match store.apply(journal, batches) {
        Ok(()) => {
            let seq = batches.iter().map(|batch| batch.header().last_seq()).max().unwrap_or(Seq(0));
            Event::Applied { journal, seq }
        }
        Err(error) => {
            tracing::error!("applying to the store: {error}");
            Event::ApplyFailed { journal, fault: fault(&error) }
        }
    }
}

fn checkpoint(store: &mut impl StoreWrite) -> Event {
    match store.checkpoint() {
        Ok(applied) => Event::Checkpointed { applied },
        Err(error) => {
            tracing::error!("making the store durable: {error}");
            Event::CheckpointFailed { fault: fault(&error) }
        }
    }
}

/// Whether there is more to do. A chore that fails is left alone until there was other work.
fn chore(store: &mut impl Chores) -> bool {
    store.chore().unwrap_or_else(|error| {
        tracing::warn!("tidying the store: {error}");
        false
    })
}

/// What the engine needs to know of a failure; the log has its words.
fn fault(error: &StoreError) -> Fault {
    match error {
        StoreError::Disk { fault, .. } => *fault,
        // Not a matter of room, so that nothing waits for it to pass.
        StoreError::Damaged { .. } => Fault::Errno(nix::libc::EUCLEAN),
        StoreError::OutOfOrder { .. } => Fault::Errno(nix::libc::EINVAL),
    }
}

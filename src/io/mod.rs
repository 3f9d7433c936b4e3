//! Operations and completions: the face that the two drivers (io_uring, epoll) share.
//!
//! A driver owns every buffer and descriptor given to it until the operation's completion has been handed out.
//! Each operation completes exactly once. Short reads are the caller's business, short writes and sends are not:
//! a driver goes on until all is done or it failed.

mod device;
mod epoll;
mod file;
mod open;
mod pool;
mod probe;
#[cfg(test)]
mod suite;
mod uring;
mod waker;

pub use crate::sys::{FileTrial, NvmeReads, SendTrial, TrialOp, TrialWays, offers_passthrough};
pub use crate::sys::{
    Goal, begin_writing, catch_signals, give_way, keep_freed, local_minute, peer_groups, processor_time,
    read_at, read_cached,
};
pub use crate::sys::{TapeOp, TapeStatus, scsi_ask, tape_do, tape_position, tape_status};
pub use device::{Device, Place, kernel_file};
#[cfg(test)]
pub(crate) use file::calls::testing as calls;
pub use file::try_lock_file;
pub use file::{
    Access, Demand, DirLock, DirectFile, Distrust, FileLock, LockError, MappedSegment, Own, append_durably,
    check_dir, lock_dir, lock_file, loose_parents, make_dir, map_segment, open_journal, open_trusted,
    page_life, put_in_place, read_ahead, read_direct, read_in_order, read_trusted, read_trusted_text,
    renew_file, sync_dir, sync_file, write_on, zero_file,
};
pub use open::{IoChoice, open};
pub use probe::{Finding, Level, probe};

use crate::base::AlignedBuf;
use crate::base::limits::BLOCK;
use bytes::Bytes;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::Duration;

/// Comes back with the completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(pub u64);

/// How a journal file is written.
#[derive(Debug)]
pub struct JournalFile {
    /// The descriptor, opened for writing.
    pub fd: OwnedFd,
    /// Whether it was opened with O_DIRECT: then buffers and offsets are block aligned.
    pub direct: bool,
    /// Whether durable writes go to a blocking thread even where a ring is at hand: with a separate sync the ring
    /// needs a worker of the kernel for each step.
    pub by_thread: bool,
}

impl AsFd for JournalFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Something to do.
#[derive(Debug)]
pub enum Op {
    /// Wait for one connection on a listening socket (stream, IP or Unix). It is closed on exec, in blocking mode.
    Accept(Arc<OwnedFd>),
    /// Connect a socket to an address.
    Connect(Arc<OwnedFd>, std::net::SocketAddr),
    /// Read once into `buffer`'s capacity (its content is dropped; capacity is at least 1).
    Receive(Arc<OwnedFd>, Vec<u8>),
    /// Append to the buffer's content, within its capacity, until it has as many bytes in all as asked for.
    Fill(Arc<OwnedFd>, AlignedBuf, Goal),
    /// Wait until the other side of a connected socket sends no more, or is gone, whether or not all it sent was received.
    AwaitEnd(Arc<OwnedFd>),
    /// Send all of the parts in order. One at a time per socket: two under way at once may mix.
    Send(Arc<OwnedFd>, Vec<Bytes>),
    /// Write all of the parts, one after the other from the offset on, and make them durable: with O_DIRECT one
    /// RWF_DSYNC write (each part is block aligned and whole blocks then), otherwise a write followed by fdatasync.
    WriteDurable(Arc<JournalFile>, Vec<Bytes>, u64),
}

/// What came of an operation.
#[derive(Debug)]
pub enum Outcome {
    /// A connection.
    Accepted(std::io::Result<OwnedFd>),
    /// Connected, or not.
    Connected(std::io::Result<()>),
    /// The buffer, its length set to what was read (0: the other side ended the stream); or the error.
    Received(std::io::Result<Vec<u8>>),
    /// The buffer, full as asked for; or the error, which is `UnexpectedEof` when the stream ended before.
    Filled(std::io::Result<AlignedBuf>),
    /// The other side sends no more, or it cannot be found out any more.
    Ended,
    /// All sent, or not.
    Sent(std::io::Result<()>),
    /// All durable, or not.
    Written(std::io::Result<()>),
}

/// An operation's end.
#[derive(Debug)]
pub struct Completion {
    /// From the submission.
    pub token: Token,
    /// What came of it.
    pub outcome: Outcome,
}

/// Which driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DriverKind {
    /// io_uring.
    Uring,
    /// epoll and a small pool of blocking threads.
    Epoll,
}

/// Wakes a [`Driver`] that waits, from any thread.
pub trait Wake: Send + Sync {
    /// Makes the current or next [`Driver::wait`] return.
    fn wake(&self);
}

/// One reactor of one thread.
pub trait Driver {
    /// Starts an operation. Nothing may reach the kernel before the next [`Self::wait`].
    fn submit(&mut self, token: Token, op: Op);

    /// Submits what is queued, waits until at least one completion is there, `timeout` has passed or it was woken,
    /// and appends all completions to `out`. `None` waits without bound, zero does not wait.
    ///
    /// # Errors
    /// Only when the driver itself is broken; single failures are completions.
    fn wait(&mut self, timeout: Option<Duration>, out: &mut Vec<Completion>) -> std::io::Result<()>;

    /// Makes pending operations on a socket end soon, with an error or end of stream (shutdown, then cancel).
    fn cancel(&mut self, fd: RawFd);

    /// A handle for other threads.
    fn waker(&self) -> Arc<dyn Wake>;

    /// Which one this is.
    fn kind(&self) -> DriverKind;
}

/// How far a write is after `count` more bytes; with O_DIRECT only whole blocks count, so that the rest starts
/// aligned.
fn write_progress(done: usize, count: usize, len: usize, direct: bool) -> std::io::Result<usize> {
    let reached = done.saturating_add(count);
    let reached = if direct && reached < len { reached / BLOCK * BLOCK } else { reached };
    if reached <= done || reached > len {
        return Err(std::io::Error::from(std::io::ErrorKind::WriteZero));
    }
    Ok(reached)
}

#[cfg(test)]
mod tests {
    use super::write_progress;

    #[test]
    fn a_short_direct_write_goes_on_at_a_block() {
        assert_eq!(write_progress(0, 5000, 12288, true).ok(), Some(4096));
        assert_eq!(write_progress(4096, 8192, 12288, true).ok(), Some(12288));
        assert_eq!(write_progress(0, 5000, 12288, false).ok(), Some(5000));
    }

    #[test]
    fn a_write_that_does_not_move_fails() {
        assert!(write_progress(4096, 0, 12288, true).is_err());
        assert!(write_progress(4096, 512, 12288, true).is_err());
        assert!(write_progress(10, 0, 20, false).is_err());
    }
}

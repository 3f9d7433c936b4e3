//! Wakes a driver through an eventfd, at the cost of one system call per sleep, not per wake.

use super::Wake;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

/// The waking side. The driver calls [`Self::taken`] when it saw the signal.
pub(super) struct EventWaker {
    event: EventFd,
    /// Whether a signal was given that the driver has not seen yet.
    given: AtomicBool,
}

impl EventWaker {
    /// A waker; `flags` besides close-on-exec.
    pub(super) fn new(flags: EfdFlags) -> io::Result<Self> {
        let event = EventFd::from_value_and_flags(0, flags | EfdFlags::EFD_CLOEXEC)?;
        Ok(Self { event, given: AtomicBool::new(false) })
    }

    /// From now on a wake is a new signal. What was done before the wakes so far is visible after this.
    pub(super) fn taken(&self) {
        self.given.swap(false, Ordering::AcqRel);
    }

    /// Whether a signal was given that nobody has taken yet.
    pub(super) fn is_given(&self) -> bool {
        self.given.load(Ordering::Acquire)
    }
}

impl Wake for EventWaker {
    fn wake(&self) {
        if !self.given.swap(true, Ordering::AcqRel) {
            // eventfd(2): a write fails only when the counter is at its end, and then the driver is woken anyhow.
            let _ = self.event.write(1);
        }
    }
}

impl AsFd for EventWaker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

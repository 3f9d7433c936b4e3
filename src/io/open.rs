//! Chooses a driver by trying it.

use super::Driver;
use super::epoll::EpollDriver;
use super::uring::UringDriver;
use serde::{Deserialize, Serialize};
use std::io;

/// Which driver is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IoChoice {
    /// io_uring where it works, otherwise epoll.
    #[default]
    Auto,
    /// io_uring or nothing.
    Uring,
    /// epoll.
    Epoll,
}

/// Opens a driver on this thread, where it must stay. `entries` is how many operations are handed to the kernel at
/// once (io_uring only; more in flight are fine).
///
/// [`IoChoice::Auto`] finds out by doing: it sets up a ring, runs an empty operation and wakes itself through it.
///
/// # Errors
/// With [`IoChoice::Uring`], why the kernel does not let it be used; otherwise why epoll could not be set up.
pub fn open(kind: IoChoice, entries: u32) -> io::Result<Box<dyn Driver>> {
    match kind {
        IoChoice::Uring => Ok(Box::new(UringDriver::open(entries)?)),
        IoChoice::Epoll => Ok(Box::new(EpollDriver::open()?)),
        IoChoice::Auto => match UringDriver::open(entries) {
            Ok(driver) => Ok(Box::new(driver)),
            Err(error) => {
                tracing::info!(%error, "io_uring cannot be used, falling back to epoll");
                Ok(Box::new(EpollDriver::open()?))
            }
        },
    }
}

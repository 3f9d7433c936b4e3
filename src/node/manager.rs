//! What the service manager is told, if it asked to be told: by a thread of its own, as it may have to wait, which the
//! core may not.
//!
//! As sd_notify(3) has it: one datagram of lines to the Unix socket that `NOTIFY_SOCKET` names, by its path, or behind
//! an `@` by its name in the abstract namespace.

use super::starting::{Extension, Starting};
use crate::base::limits::START_TELL_MS;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

const VARIABLE: &str = "NOTIFY_SOCKET";

/// What happens to the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// What the disk held is replayed: from now on it answers.
    Up,
    /// It was asked to stop.
    Stopping,
}

/// A sender with room for each, and what the thread runs on.
pub(crate) fn channel() -> (SyncSender<Life>, Receiver<Life>) {
    sync_channel(2)
}

/// Tells how far the start is, then each of `lives` until the core is gone.
pub(crate) fn run(lives: &Receiver<Life>, starting: &Starting) {
    let socket = std::env::var_os(VARIABLE);
    let mut extension = Extension::default();
    let mut patience = Duration::from_millis(START_TELL_MS);
    loop {
        let lines = match lives.recv_timeout(patience) {
            Ok(life) => {
                patience = Duration::MAX;
                match life {
                    Life::Up => "READY=1\nSTATUS=running\n".to_owned(),
                    Life::Stopping => "STOPPING=1\nSTATUS=stopping\n".to_owned(),
                }
            }
            Err(RecvTimeoutError::Timeout) => extension.lines(starting, super::process::disk_bytes()),
            Err(RecvTimeoutError::Disconnected) => return,
        };
        if let Some(Err(error)) = socket.as_deref().map(|socket| tell(socket, &lines)) {
            tracing::warn!("notifying the service manager: {error}");
        }
    }
}

fn tell(socket: &OsStr, lines: &str) -> io::Result<()> {
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(socket),
    };
    UnixDatagram::unbound()?.send_to_addr(lines.as_bytes(), &address?).map(|_| ())
}

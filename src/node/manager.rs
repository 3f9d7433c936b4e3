//! What the service manager is told, if it asked to be told: by a thread of its own, as it may have to wait, which the
//! core may not.
//!
//! As sd_notify(3) has it: one datagram of lines to the Unix socket that `NOTIFY_SOCKET` names, by its path, or behind
//! an `@` by its name in the abstract namespace.

use super::inbox::{Inbox, Message};
use super::starting::{Extension, Starting};
use crate::base::limits::START_TELL_MS;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::OnceLock;
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

/// Who is told, and what it expects.
#[derive(Debug, Default)]
pub(crate) struct Manager {
    socket: Option<OsString>,
    /// After so long without a sign of life it takes the node for hung, and starts it anew.
    watchdog: Option<Duration>,
}

impl Manager {
    /// As the environment says.
    pub(crate) fn of_environment() -> Self {
        let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
        let for_us = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|us| for_us && *us > 0).map(Duration::from_micros);
        Self { socket: std::env::var_os(VARIABLE), watchdog }
    }

    /// Tells how far the start is, then each of `lives` until the core is gone, and in between that the core answers.
    pub(crate) fn run(self, lives: &Receiver<Life>, starting: &Starting, core: &OnceLock<Inbox>) {
        let mut extension = Extension::default();
        let mut patience = Duration::from_millis(START_TELL_MS);
        let mut is_up = false;
        // Three signs within the time that it has patience.
        let beat = self.watchdog.filter(|_| self.socket.is_some()).map(|watchdog| watchdog / 3);
        loop {
            let lines = match lives.recv_timeout(patience) {
                Ok(life) => {
                    patience = beat.unwrap_or(Duration::MAX);
                    is_up = true;
                    match life {
                        Life::Up => "READY=1\nSTATUS=running\n".to_owned(),
                        Life::Stopping => "STOPPING=1\nSTATUS=stopping\n".to_owned(),
                    }
                }
                Err(RecvTimeoutError::Timeout) if is_up && answers(core, patience) => {
                    "WATCHDOG=1\n".to_owned()
                }
                // The service manager is left to notice it.
                Err(RecvTimeoutError::Timeout) if is_up => continue,
                Err(RecvTimeoutError::Timeout) => extension.lines(starting, super::process::disk_bytes()),
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if let Some(Err(error)) = self.socket.as_deref().map(|socket| tell(socket, &lines)) {
                tracing::warn!("notifying the service manager: {error}");
            }
        }
    }
}

/// Whether the core takes a message and answers within `patience`. A full inbox of a core that hangs is waited for without
/// an end.
fn answers(core: &OnceLock<Inbox>, patience: Duration) -> bool {
    let (reply, answer) = sync_channel(1);
    let asked = core.get().is_some_and(|core| core.send(Message::Alive { reply }).is_ok());
    asked && answer.recv_timeout(patience).is_ok()
}

fn tell(socket: &OsStr, lines: &str) -> io::Result<()> {
    let address = match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(socket),
    };
    UnixDatagram::unbound()?.send_to_addr(lines.as_bytes(), &address?).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::Wake;
    use std::sync::Arc;

    struct Nobody;

    impl Wake for Nobody {
        fn wake(&self) {}
    }

    #[test]
    fn the_watchdog_is_told_of_a_core_that_answers_and_not_of_one_that_hangs() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        manager.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let (inbox, core) = Inbox::new(Arc::new(Nobody));
        let cell = Arc::new(OnceLock::new());
        assert!(cell.set(inbox).is_ok());
        let (lives, told) = channel();
        let own = Manager { socket: Some(path.into()), watchdog: Some(Duration::from_millis(60)) };
        let at = Arc::clone(&cell);
        let thread = std::thread::spawn(move || own.run(&told, &Starting::new(), &at));
        let next = || {
            let mut bytes = [0; 256];
            let len = manager.recv(&mut bytes).unwrap();
            String::from_utf8(bytes[..len].to_vec()).unwrap()
        };
        lives.send(Life::Up).unwrap();
        assert_eq!(next(), "READY=1\nSTATUS=running\n");
        // It answers whenever it is asked, until that was told: on a busy machine an answer may come too late.
        manager.set_nonblocking(true).unwrap();
        let said = |lines: &str| matches!(manager.recv(&mut [0; 256]), Ok(len) if len == lines.len());
        while !said("WATCHDOG=1\n") {
            if let Some(Message::Alive { reply }) = core.take() {
                let _ = reply.try_send(());
            }
        }
        // It hangs: it is asked again and again, and answers nothing.
        let is_asked = || drop(std::iter::repeat_with(|| core.take()).flatten().next());
        is_asked();
        while said("WATCHDOG=1\n") {}
        (0..3).for_each(|_| is_asked());
        manager.set_nonblocking(false).unwrap();
        lives.send(Life::Stopping).unwrap();
        assert_eq!(next(), "STOPPING=1\nSTATUS=stopping\n");
        drop(lives);
        thread.join().unwrap();
    }
}

//! SIGTERM, SIGINT and SIGHUP: the first asks the node to stop, the second ends the process at once.

use super::inbox::{Inbox, Message};
use super::log;
use crate::base::limits::SYSTEM_FILE_MAX;
use crate::base::text_at_most;
use crate::io::catch_signals;
use nix::sys::signal::{SigSet, Signal};
use std::io::{self, PipeReader, Read};
use std::sync::OnceLock;

/// The exit code of a process that was told twice.
const KILLED: i32 = 130;

/// Catches the signals for [`Stoppers::run`]. Threads started from now on are not interrupted by them.
///
/// # Errors
/// When the handlers or the signal mask cannot be set.
pub(crate) fn catch() -> io::Result<Stoppers> {
    let status =
        std::fs::File::open("/proc/self/status").and_then(|file| text_at_most(file, SYSTEM_FILE_MAX));
    let status = status.unwrap_or_default();
    let mut signals = vec![Signal::SIGTERM, Signal::SIGINT];
    // Started by nohup: stays so.
    if !is_ignored(&status, Signal::SIGHUP) {
        signals.push(Signal::SIGHUP);
    }
    let notes = catch_signals(&signals)?;
    let set: SigSet = signals.into_iter().collect();
    set.thread_block()?;
    Ok(Stoppers { set, notes })
}

/// The signals that stop a node.
#[derive(Debug)]
pub(crate) struct Stoppers {
    set: SigSet,
    notes: PipeReader,
}

impl Stoppers {
    /// Waits for signals for the rest of the process's life. As long as `core` is empty the node is still starting
    /// and has nothing to finish.
    pub(crate) fn run(mut self, core: &OnceLock<Inbox>) {
        // If this fails, another thread of the process may still take the signals.
        let _ = self.set.thread_unblock();
        let mut asked = false;
        let mut number = [0];
        while self.notes.read_exact(&mut number).is_ok() {
            let [number] = number;
            let signal = Signal::try_from(i32::from(number)).map_or("a signal", Signal::as_str);
            if asked {
                tracing::error!("{signal} again: ending at once");
                log::flush();
                std::process::exit(KILLED);
            }
            asked = true;
            let Some(core) = core.get() else {
                tracing::info!("{signal} while starting: ending");
                log::flush();
                std::process::exit(0);
            };
            tracing::info!("{signal}: stopping; once more ends at once");
            // A core that has ended needs not be told.
            let _ = core.send(Message::Stop);
        }
    }
}

/// Whether the text of `/proc/self/status` says that `signal` is ignored.
fn is_ignored(status: &str, signal: Signal) -> bool {
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal as i32 - 1) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ignored_hangup_is_seen_in_the_status() {
        assert!(is_ignored("Name:\tx\nSigIgn:\t0000000000000001\n", Signal::SIGHUP));
        assert!(!is_ignored("SigIgn:\t0000000000001000\n", Signal::SIGHUP));
        assert!(!is_ignored("", Signal::SIGHUP));
    }
}

//! SIGTERM, SIGINT and SIGHUP: the first asks the node to stop, the second ends the process at once.

use super::inbox::{Inbox, Message};
use nix::sys::signal::{SigSet, Signal};
use std::io;
use std::sync::OnceLock;

/// The exit code of a process that was told twice.
const KILLED: i32 = 130;

/// Keeps the signals from every thread started from now on; they wait for [`Stoppers::run`].
///
/// # Errors
/// When the signal mask cannot be set.
pub(crate) fn block() -> io::Result<Stoppers> {
    let ignored = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mut set = SigSet::empty();
    set.add(Signal::SIGTERM);
    set.add(Signal::SIGINT);
    // Started by nohup: stays so.
    if !is_ignored(&ignored, Signal::SIGHUP) {
        set.add(Signal::SIGHUP);
    }
    set.thread_block()?;
    Ok(Stoppers(set))
}

/// The blocked signals.
#[derive(Debug)]
pub(crate) struct Stoppers(SigSet);

impl Stoppers {
    /// Waits for signals for the rest of the process's life. As long as `core` is empty the node is still starting
    /// and has nothing to finish.
    pub(crate) fn run(self, core: &OnceLock<Inbox>) {
        let mut asked = false;
        while let Ok(signal) = self.0.wait() {
            if asked {
                tracing::error!("{signal} again: ending at once");
                std::process::exit(KILLED);
            }
            asked = true;
            let Some(core) = core.get() else {
                tracing::info!("{signal} while starting: ending");
                std::process::exit(0);
            };
            tracing::info!("{signal}: stopping; once more ends at once");
            if core.send(Message::Stop).is_err() {
                return;
            }
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

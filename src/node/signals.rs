//! SIGTERM and SIGINT: the first asks the node to stop, the second ends the process at once. SIGHUP stops nothing: keys
//! and the peer are read anew at each connection, everything else at a start.

use super::inbox::{Inbox, Message};
use super::log;
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
    let signals = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];
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
            if number == Signal::SIGHUP as u8 {
                tracing::info!(
                    "{signal}: going on; keys and the peer are read at each connection, the config at a restart"
                );
                continue;
            }
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

//! What the demo must not leave behind: its node processes and its directory, whatever ends it.

use nix::sys::signal::{SigSet, Signal};
use nix::unistd::Pid;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How often the directory is tried to be removed.
const REMOVALS_MAX: u32 = 50;

/// Processes and directory of a demo. Removed when dropped, on a panic, and on SIGINT, SIGTERM and SIGHUP.
#[derive(Clone)]
pub(in crate::cli) struct Leftovers {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    children: Vec<Option<Child>>,
    dir: Option<PathBuf>,
}

/// A node process; the number stays the same when it was ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Process(usize);

impl Leftovers {
    /// Takes care of `dir` unless it is to be kept. Call it on the main thread, before others are started.
    pub(super) fn of(dir: &Path, keep: bool) -> Self {
        let leftovers = Self::caring_for((!keep).then(|| dir.to_owned()));
        leftovers.clean_on_signals();
        leftovers
    }

    /// The same of a caller who hears of signals, and then ends by itself.
    pub(in crate::cli) fn without_signals(dir: &Path) -> Self {
        Self::caring_for(Some(dir.to_owned()))
    }

    fn caring_for(dir: Option<PathBuf>) -> Self {
        let leftovers = Self { inner: Arc::new(Mutex::new(Inner { children: Vec::new(), dir })) };
        leftovers.clean_on_panic();
        leftovers
    }

    /// Takes care of a process.
    pub(super) fn adopt(&self, child: Child) -> Process {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.children.push(Some(child));
        Process(inner.children.len() - 1)
    }

    /// Ends a process with SIGKILL and waits until it is gone.
    pub(super) fn kill(&self, process: Process) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(child) = inner.children.get_mut(process.0).and_then(Option::take) {
            end(child);
        }
    }

    /// Lets a process stand still, or go on.
    pub(super) fn freeze(&self, process: Process, still: bool) {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let child = inner.children.get(process.0).and_then(Option::as_ref);
        if let Some(pid) = child.and_then(|child| i32::try_from(child.id()).ok()) {
            let signal = if still { Signal::SIGSTOP } else { Signal::SIGCONT };
            // Of a process that has ended meanwhile, the next question to it tells.
            let _ = nix::sys::signal::kill(Pid::from_raw(pid), signal);
        }
    }

    /// Whether a process has ended by itself.
    pub(super) fn has_ended(&self, process: Process) -> bool {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        match inner.children.get_mut(process.0).and_then(Option::as_mut) {
            Some(child) => !matches!(child.try_wait(), Ok(None)),
            None => true,
        }
    }

    /// Ends everything and removes the directory.
    fn clean(inner: &mut Inner) {
        inner.children.iter_mut().filter_map(Option::take).for_each(end);
        if let Some(dir) = inner.dir.take() {
            // The demo may just make something in it. What cannot be removed is in the temp directory, where the system
            // clears up.
            for _ in 0..REMOVALS_MAX {
                if std::fs::remove_dir_all(&dir).is_ok() || !dir.exists() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }

    fn clean_on_signals(&self) {
        let mut set = SigSet::empty();
        [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().for_each(|signal| set.add(signal));
        // Blocked here, they are inherited blocked by all threads to come and wait for the one below.
        if set.thread_block().is_err() {
            return;
        }
        let inner = Arc::clone(&self.inner);
        std::thread::spawn(move || {
            let Ok(signal) = set.wait() else { return };
            // Held to the end: the demo, which fails without its nodes, must not end the process in its own way before.
            let mut inner = inner.lock().unwrap_or_else(PoisonError::into_inner);
            // A kept directory is not removed, but no process is left.
            Self::clean(&mut inner);
            super::super::out::say("interrupted; no process of the demo is left");
            std::process::exit(128 + signal as i32);
        });
    }

    fn clean_on_panic(&self) {
        let inner = Arc::clone(&self.inner);
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            before(info);
            // A panic while the lock is held must not wait for itself; the nodes then end with this process.
            if let Ok(mut inner) = inner.try_lock() {
                Self::clean(&mut inner);
            }
        }));
    }
}

/// The demo's own hold on its leftovers.
pub(in crate::cli) struct Guard(pub(in crate::cli) Leftovers);

impl Drop for Guard {
    fn drop(&mut self) {
        Leftovers::clean(&mut self.0.inner.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

fn end(mut child: Child) {
    let _ = child.kill();
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn processes_and_directory_are_gone_after_the_demo() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("demo");
        std::fs::create_dir(&dir).unwrap();
        let inner = Inner { children: Vec::new(), dir: Some(dir.clone()) };
        let guard = Guard(Leftovers { inner: Arc::new(Mutex::new(inner)) });
        let child = Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        let process = guard.0.adopt(child);
        assert!(!guard.0.has_ended(process));
        drop(guard);
        assert!(!dir.exists());
        assert!(nix::sys::signal::kill(pid, None).is_err(), "the process is still there");
    }
}

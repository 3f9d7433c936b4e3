//! What a measurement is asked and what it tells while it runs: signals, and its progress.

use super::super::failure::Failure;
use super::super::out::say;
use crate::io::catch_signals;
use indicatif::{ProgressBar, ProgressStyle};
use nix::sys::signal::Signal;
use std::cell::Cell;
use std::io::{IsTerminal, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Where no person watches, it is told what is done no more often than this.
const TELL: Duration = Duration::from_secs(5);
/// The exit code of a process that was told twice.
const KILLED: i32 = 130;

/// Whether SIGINT, SIGTERM or SIGHUP came: the first asks to end, so that everything is removed, the second ends at once.
pub(super) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// From now on.
    pub(super) fn catch() -> Result<Self, Failure> {
        let notes = catch_signals(&[Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]);
        let mut notes = notes.map_err(|error| Failure::io("catching signals", &error))?;
        let asked = Arc::new(AtomicBool::new(false));
        let shared = Arc::clone(&asked);
        std::thread::spawn(move || {
            let mut number = [0];
            while notes.read_exact(&mut number).is_ok() {
                if shared.swap(true, Ordering::Relaxed) {
                    std::process::exit(KILLED);
                }
            }
        });
        Ok(Self(asked))
    }

    pub(super) fn is_asked(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// On stderr: a bar where a person watches, else a line now and then.
pub(super) struct Progress {
    bar: Option<ProgressBar>,
    told: Cell<Option<Instant>>,
}

impl Progress {
    pub(super) fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::no_length();
            if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}") {
                bar.set_style(style);
            }
            bar
        });
        Self { bar, told: Cell::new(None) }
    }

    /// Step `step` of `of` begins.
    pub(super) fn tell(&self, step: usize, of: usize, what: &str) {
        if let Some(bar) = &self.bar {
            bar.set_length(of as u64);
            bar.set_position(step as u64);
            return bar.set_message(what.to_owned());
        }
        if self.told.get().is_none_or(|told| told.elapsed() >= TELL) {
            self.told.set(Some(Instant::now()));
            say(format_args!("{step} of {of}: {what}"));
        }
    }

    pub(super) fn end(&self) {
        self.bar.iter().for_each(ProgressBar::finish_and_clear);
    }
}

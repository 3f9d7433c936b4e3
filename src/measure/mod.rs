//! Measurements of what a node stands on: first the raw limits of disk, wire and drive, then what the product reaches of
//! them.
//!
//! Each measurement adds [`Figure`]s to a [`Report`], tells a [`Course`] what it is at, and ends when that was stopped. What
//! it makes it removes, whatever ends it. What the figures mean is decided by [`verdict`] and [`compare`] alone, which are
//! pure.

pub mod compare;
pub mod disk;
pub mod journal;
pub mod link;
pub mod load;
pub mod page;
pub mod report;
pub mod tape;
pub mod usage;
pub mod verdict;

pub use report::{Fact, Figure, Report};

use std::cell::Cell;
use std::fmt::Display;
use std::io;
use std::time::{Duration, Instant};

/// Times that are kept of one measurement; what comes later is counted alone.
const TIMES_MAX: usize = 1 << 20;

/// Why a measurement came to nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MeasureError {
    /// Somebody asked for its end.
    #[error("it was interrupted")]
    Stopped,
    /// What was done, and why it failed.
    #[error("{doing}: {source}")]
    Failed {
        /// What was done, to what.
        doing: String,
        /// Why it failed.
        source: io::Error,
    },
}

impl MeasureError {
    pub(crate) fn failed(doing: impl Display) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.to_string();
        move |source| Self::Failed { doing, source }
    }
}

/// How a measurement goes: whether it may go on, and who is told what it is at.
pub struct Course<'a> {
    stopped: &'a dyn Fn() -> bool,
    tell: &'a dyn Fn(usize, usize, &str),
    step: Cell<usize>,
    steps: Cell<usize>,
}

impl<'a> Course<'a> {
    /// `stopped` is asked often; `tell` is told the number of each step, how many there are, and what it is.
    #[must_use]
    pub fn new(stopped: &'a dyn Fn() -> bool, tell: &'a dyn Fn(usize, usize, &str)) -> Self {
        Self { stopped, tell, step: Cell::new(0), steps: Cell::new(0) }
    }

    /// So many steps come.
    pub(crate) fn expect(&self, steps: usize) {
        self.steps.set(self.steps.get() + steps);
    }

    /// Begins a step.
    pub(crate) fn step(&self, what: &str) -> Result<(), MeasureError> {
        self.check()?;
        self.step.set(self.step.get() + 1);
        (self.tell)(self.step.get(), self.steps.get().max(self.step.get()), what);
        Ok(())
    }

    pub(crate) fn is_stopped(&self) -> bool {
        (self.stopped)()
    }

    pub(crate) fn check(&self) -> Result<(), MeasureError> {
        if self.is_stopped() { Err(MeasureError::Stopped) } else { Ok(()) }
    }
}

/// How often something was done, and how long it took each time.
#[derive(Debug)]
pub struct Times {
    begun: Instant,
    count: u64,
    nanos: Vec<u32>,
}

impl Times {
    /// From now on.
    #[must_use]
    pub fn begin() -> Self {
        Self { begun: Instant::now(), count: 0, nanos: Vec::new() }
    }

    /// It was done once more.
    pub fn add(&mut self, took: Duration) {
        self.count += 1;
        if self.nanos.len() < TIMES_MAX {
            self.nanos.push(u32::try_from(took.as_nanos()).unwrap_or(u32::MAX));
        }
    }

    /// Since the beginning.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.begun.elapsed()
    }

    /// How often.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// How often in a second until now; the times below which 500, 990 and 999 of 1,000 were (microseconds), 0 of none.
    #[must_use]
    pub fn told(mut self) -> [f64; 4] {
        let rate = rate(self.count, self.begun.elapsed());
        self.nanos.sort_unstable();
        let at = |permille: usize| {
            let index = (self.nanos.len() * permille / 1000).min(self.nanos.len().saturating_sub(1));
            self.nanos.get(index).map_or(0.0, |nanos| f64::from(*nanos) / 1000.0)
        };
        [rate, at(500), at(990), at(999)]
    }
}

/// A number as the figures have it.
#[must_use]
pub fn float(n: u64) -> f64 {
    // Above 2^53 the last digits are lost, which no figure shows.
    let (high, low) =
        (u32::try_from(n >> 32).unwrap_or_default(), u32::try_from(n & 0xffff_ffff).unwrap_or_default());
    f64::from(high) * 4_294_967_296.0 + f64::from(low)
}

/// So many in that time, for one second.
#[must_use]
pub fn rate(count: u64, elapsed: Duration) -> f64 {
    float(count) / elapsed.as_secs_f64().max(1e-9)
}

/// The one in the middle.
#[must_use]
pub fn median(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_and_nearly_all_are_told_of_times_and_nothing_of_none() {
        let mut times = Times::begin();
        (1..=100).for_each(|micros| times.add(Duration::from_micros(micros)));
        assert_eq!(times.count(), 100);
        let [rate, rest @ ..] = times.told();
        assert!(rate > 0.0);
        assert_eq!(rest, [51.0, 100.0, 100.0]);
        assert_eq!(Times::begin().told(), [0.0; 4]);
    }

    #[test]
    fn numbers_become_figures_without_loss() {
        assert_eq!(float(0), 0.0);
        assert_eq!(float(u64::from(u32::MAX) + 7), 4_294_967_302.0);
        assert_eq!(rate(500, Duration::from_millis(500)), 1000.0);
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), 2.0);
    }

    #[test]
    fn a_course_that_was_stopped_begins_no_step() {
        let told = Cell::new(0);
        let stopped = Cell::new(false);
        let (ask, tell) = (|| stopped.get(), |step, _: usize, _: &str| told.set(step));
        let course = Course::new(&ask, &tell);
        assert!(course.step("one").is_ok());
        stopped.set(true);
        assert!(matches!(course.step("two"), Err(MeasureError::Stopped)));
        assert_eq!(told.get(), 1);
    }
}

//! What the machine is, and how much of it is used meanwhile.

use super::report::Fact;
use super::{float, rate};
use crate::io::{Place, kernel_file};
use std::path::Path;
use std::time::Instant;

/// Bytes of a sector in the kernel's figures of a device, whatever the device has.
const SECTOR: u64 = 512;

/// What is known of the machine.
#[must_use]
pub fn machine() -> Vec<Fact> {
    let fact = |name: &str, found: String| Fact { name: name.to_owned(), found };
    let text = |path: &str| kernel_file(path).unwrap_or_else(|| "unknown".to_owned());
    let cpu = text("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown model");
    vec![
        fact("kernel", text("/proc/sys/kernel/osrelease")),
        fact("processors", format!("{} of {}", processors(), model.trim_start_matches([':', ' ', '\t']))),
        fact("load", text("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned()),
    ]
}

/// How many processors this process may use.
#[must_use]
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// How many of them nobody wants, by the load of the last minute.
#[must_use]
pub fn spare_processors() -> f64 {
    let load = kernel_file("/proc/loadavg").unwrap_or_default();
    let load: f64 = load.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or_default();
    float(processors() as u64) - load
}

/// A look at the kernel's counters.
#[derive(Debug)]
pub struct Look {
    at: Instant,
    busy: u64,
    all: u64,
    written: Option<u64>,
}

/// What happened between two looks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Between {
    /// The share of all processors' time in which they had something to do.
    pub processor: f64,
    /// Bytes that the device took in a second.
    pub written: Option<f64>,
}

impl Look {
    /// At processors, and the device that `dir` is on.
    #[must_use]
    pub fn now(dir: &Path) -> Self {
        let (busy, all) = kernel_file("/proc/stat").as_deref().and_then(processor_ticks).unwrap_or_default();
        let device = Place::of(dir).device;
        let written = device.and_then(|device| written_sectors(&device.tells("stat")?));
        Self { at: Instant::now(), busy, all, written }
    }

    /// What happened until `later`.
    #[must_use]
    pub fn until(&self, later: &Self) -> Between {
        let (busy, all) = (later.busy.saturating_sub(self.busy), later.all.saturating_sub(self.all));
        let took = later.at.saturating_duration_since(self.at);
        let written = self
            .written
            .zip(later.written)
            .map(|(before, after)| rate(after.saturating_sub(before).saturating_mul(SECTOR), took));
        Between { processor: float(busy) / float(all.max(1)), written }
    }
}

/// proc_stat(5): `cpu  user nice system idle iowait irq softirq steal ..`. Busy, and all.
fn processor_ticks(stat: &str) -> Option<(u64, u64)> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = line.split_whitespace().take(8).map_while(|n| n.parse().ok()).collect();
    let all = ticks.iter().fold(0, |all: u64, n| all.saturating_add(*n));
    let idle = ticks.get(3)?.saturating_add(*ticks.get(4)?);
    Some((all.saturating_sub(idle), all))
}

/// Documentation/block/stat.rst: the seventh number is sectors written.
fn written_sectors(stat: &str) -> Option<u64> {
    stat.split_whitespace().nth(6)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_lines_are_understood() {
        let stat = "cpu  10 1 20 60 5 1 2 1 0 0\ncpu0 1 1 1 1\n";
        assert_eq!(processor_ticks(stat), Some((35, 100)));
        assert_eq!(processor_ticks("cpu  10 1"), None);
        assert_eq!(written_sectors(" 1 2 3 4 5 6 700 8 9 10 11"), Some(700));
        let look = |busy, all, written| Look { at: Instant::now(), busy, all, written };
        let mut later = look(160, 300, Some(2100));
        let before = look(60, 100, Some(100));
        later.at = before.at + std::time::Duration::from_secs(2);
        let between = before.until(&later);
        assert_eq!(between, Between { processor: 0.5, written: Some(512_000.0) });
        assert_eq!(before.until(&look(0, 0, None)).processor, 0.0);
    }

    #[test]
    fn this_machine_is_known() {
        let facts = machine();
        assert!(facts.iter().all(|fact| !fact.found.is_empty()), "{facts:?}");
        assert!(processors() >= 1 && spare_processors() <= float(processors() as u64));
    }
}

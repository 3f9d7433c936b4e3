//! What this process takes of the machine's memory, and moves to and from its disks, as the kernel tells it.

use crate::base::Mono;
use crate::engine::Memory;
use nix::unistd::{SysconfVar, sysconf};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Measurements are so far apart (milliseconds).
const EVERY_MS: u64 = 1000;

/// Measures now and then.
#[derive(Debug)]
pub(crate) struct MemoryMeter {
    /// `/proc/self/statm`, where there is one.
    file: Option<File>,
    page: u64,
    peak: u64,
    next: Mono,
}

impl MemoryMeter {
    /// One that has not measured yet.
    pub(crate) fn new() -> Self {
        const USUAL_PAGE: u64 = 4096;
        let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten().and_then(|page| u64::try_from(page).ok());
        Self {
            file: File::open("/proc/self/statm").ok(),
            page: page.unwrap_or(USUAL_PAGE),
            peak: 0,
            next: Mono(0),
        }
    }

    /// A measurement, if one is due. Reads memory of the kernel, never the disk.
    pub(crate) fn look(&mut self, now: Mono) -> Option<Memory> {
        if now < self.next {
            return None;
        }
        self.next = now.plus_ms(EVERY_MS);
        let mut bytes = [0; 128];
        let len = self.file.as_ref()?.read_at(&mut bytes, 0).ok()?;
        let text = std::str::from_utf8(bytes.get(..len)?).ok()?;
        let (resident, shared) = pages(text)?;
        let resident = resident.saturating_mul(self.page);
        self.peak = self.peak.max(resident);
        let anonymous = resident.saturating_sub(shared.saturating_mul(self.page));
        Some(Memory { resident, anonymous, peak: self.peak })
    }
}

/// Resident pages, and those of them that files lie behind.
fn pages(statm: &str) -> Option<(u64, u64)> {
    let mut fields = statm.split_ascii_whitespace().skip(1).map(|field| field.parse::<u64>().ok());
    Some((fields.next()??, fields.next()??))
}

/// Bytes that this process has read from disks and written to them so far; 0 where the kernel does not count that. What
/// it reads of the kernel's own files is no part of it.
pub(crate) fn disk_bytes() -> u64 {
    let mut bytes = [0; 512];
    let file = File::open("/proc/self/io").ok();
    let len = file.and_then(|file| file.read_at(&mut bytes, 0).ok()).unwrap_or(0);
    let text = std::str::from_utf8(bytes.get(..len).unwrap_or_default()).unwrap_or_default();
    let fields = text.lines().filter_map(|line| line.split_once(": "));
    let of_disk = fields.filter(|(name, _)| matches!(*name, "read_bytes" | "write_bytes"));
    of_disk.filter_map(|(_, value)| value.parse::<u64>().ok()).fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_measured_once_a_second_and_is_that_of_this_process() {
        let as_told = || {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
            line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
        };
        let mut meter = MemoryMeter::new();
        let first = meter.look(Mono(0)).unwrap();
        // Other tests of this process take and free memory meanwhile.
        assert!((as_told() / 4..as_told() * 4).contains(&first.resident), "{first:?}");
        assert!(first.resident > first.anonymous && first.anonymous > 0, "{first:?}");
        assert_eq!(meter.look(Mono(999_999)), None);
        let second = meter.look(Mono(1_000_000)).unwrap();
        assert!(second.peak >= first.resident.max(second.resident), "{first:?} {second:?}");
        assert!(meter.look(Mono(5_000_000)).unwrap().peak >= second.peak);
        assert_eq!(pages("not a number"), None);
    }

    #[test]
    fn what_is_written_to_a_disk_is_counted_and_looking_at_that_is_not() {
        let mut file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let before = disk_bytes();
        std::io::Write::write_all(&mut file, &vec![1; 1 << 20]).unwrap();
        file.sync_data().unwrap();
        assert!(disk_bytes() >= before + (1 << 20), "{before}");
    }
}

//! What `doctor` finds out about this machine: by trying where something can be tried, else from the kernel's files.
//!
//! Nothing here needs special rights, and what is made in the directory is removed.

use super::device::{Place, kernel_file};
use super::{open_journal, read_direct, zero_file};
use crate::base::AlignedBuf;
use crate::base::limits::{BLOCK, BLOCK_U64, SEGMENT_DEFAULT};
use crate::sys::{Parts, direct_alignment, missing_operations, write_at, write_durably_at};
use bytes::Bytes;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use nix::unistd::fdatasync;
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Durable writes whose median is told.
const TRIES: u64 = 50;
/// Descriptors wanted besides those of the clients.
const FILES_WANTED: u64 = 10_240;
/// Free space under which the journal cannot even keep a few segments (bytes).
const SPACE_WANTED: u64 = 4 * SEGMENT_DEFAULT;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Worth knowing.
    Note,
    /// Works, but slower or with less safety than it could.
    Warn,
    /// Does not work, or may lose data.
    Bad,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What was looked at.
    pub name: String,
    /// How much it matters.
    pub level: Level,
    /// What was found.
    pub found: String,
    /// What to do about it; empty when there is nothing to do.
    pub advice: String,
}

/// Looks at what the node in directory `dir` depends on: kernel, io_uring, file system, device, limits, clock.
///
/// # Blocking
/// For as long as some sixty durable writes take.
#[must_use]
pub fn probe(dir: &Path) -> Vec<Finding> {
    let place = Place::of(dir);
    let mut all = vec![kernel(), ring(), clock_source(), checksum(), open_files(), locked_memory()];
    all.push(file_system(&place));
    all.push(device_cache(&place));
    all.push(free_space(dir));
    let scratch = Scratch::new(dir);
    all.extend(disk(&scratch));
    all.push(sparse_files(&scratch));
    all.push(attaching());
    all
}

/// Whether holes can be punched into files here, as volumes do.
fn sparse_files(scratch: &io::Result<Scratch>) -> Finding {
    const NAME: &str = "volumes";
    let tried = (|| {
        let file = std::fs::File::create_new(Scratch::file(scratch, "sparse")?)?;
        std::os::unix::fs::FileExt::write_all_at(&file, &[1; 8 * BLOCK], 0)?;
        let how = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        fallocate(&file, how, 0, 4 * 4096).map_err(io::Error::from)
    })();
    match tried {
        Ok(()) => {
            finding(NAME, Level::Ok, "files here can have holes: what is trimmed gives its space back", "")
        }
        Err(error) => finding(
            NAME,
            Level::Warn,
            format!("no holes can be punched here: {error}"),
            "what clients trim is written as zeros and keeps its space; ext4, xfs, btrfs and tmpfs have holes",
        ),
    }
}

/// Which ways this machine has to use a volume as a disk.
fn attaching() -> Finding {
    const NAME: &str = "attaching volumes";
    let program = |name: &str| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path)
            .chain(["/usr/sbin".into(), "/sbin".into()])
            .any(|dir| dir.join(name).is_file())
    };
    let module = |root: &str| {
        let release = kernel_file("/proc/sys/kernel/osrelease").unwrap_or_default();
        let listed = kernel_file(format!("{root}/{release}/modules.dep"));
        listed.is_some_and(|text| text.contains("/nbd.ko"))
    };
    let kernel =
        Path::new("/sys/module/nbd").exists() || module("/lib/modules") || module("/usr/lib/modules");
    let mut ways = Vec::new();
    if kernel && program("nbd-client") {
        ways.push("as a disk: nbd-client HOST PORT /dev/nbd0 -N account/file");
    }
    if program("qemu-img") {
        ways.push("QEMU: -drive file=nbd://HOST:PORT/account/file,format=raw");
    }
    if program("nbdcopy") || program("nbdinfo") {
        ways.push("libnbd: nbdcopy FILE nbd://HOST:PORT/account/file");
    }
    let lacks = match (kernel, program("nbd-client")) {
        (true, true) => "",
        (true, false) => "to have a volume as a disk here, install nbd-client",
        (false, _) => {
            "this kernel has no nbd module, so a volume cannot be a disk of this machine; programs that speak \
                       NBD themselves (QEMU, libnbd, nbdkit, fio) need none"
        }
    };
    let found = if ways.is_empty() { "no client found on PATH".to_owned() } else { ways.join("; ") };
    finding(NAME, if lacks.is_empty() { Level::Ok } else { Level::Note }, found, lacks)
}

fn finding(name: &str, level: Level, found: impl Into<String>, advice: &str) -> Finding {
    Finding { name: name.to_owned(), level, found: found.into(), advice: advice.to_owned() }
}

fn kernel() -> Finding {
    let release = kernel_file("/proc/sys/kernel/osrelease").unwrap_or_else(|| "unknown".to_owned());
    finding("kernel", Level::Ok, release, "")
}

fn ring() -> Finding {
    const NAME: &str = "io_uring";
    let sysctl = match kernel_file("/proc/sys/kernel/io_uring_disabled").as_deref() {
        Some("1") => ", kernel.io_uring_disabled = 1 (only for one group)",
        Some("2") => ", kernel.io_uring_disabled = 2 (for nobody)",
        _ => "",
    };
    let without = "epoll is used instead, at some cost in speed; allow io_uring for this service (sysctl \
                   kernel.io_uring_disabled, the container's seccomp profile)";
    let missing = match missing_operations() {
        Ok(missing) => missing,
        Err(error) => {
            return finding(NAME, Level::Warn, format!("not to be had: {error}{sysctl}"), without);
        }
    };
    if !missing.is_empty() {
        let found = format!("lacks {}{sysctl}", missing.join(", "));
        return finding(NAME, Level::Warn, found, "epoll is used instead; a newer kernel has them");
    }
    match super::open(super::IoChoice::Uring, 8) {
        Ok(_) => finding(NAME, Level::Ok, format!("works, has all operations that are used{sysctl}"), ""),
        Err(error) => finding(NAME, Level::Warn, format!("does not work: {error}{sysctl}"), without),
    }
}

fn clock_source() -> Finding {
    const NAME: &str = "clock source";
    let path = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    match kernel_file(path).as_deref() {
        Some(fast @ ("tsc" | "kvm-clock" | "arch_sys_counter" | "hyperv_clocksource_tsc_page")) => {
            finding(NAME, Level::Ok, fast, "")
        }
        Some(slow) => finding(
            NAME,
            Level::Warn,
            slow,
            "each look at the clock is a slow call; tsc or kvm-clock is faster",
        ),
        None => finding(NAME, Level::Note, "the kernel does not tell", ""),
    }
}

fn checksum() -> Finding {
    #[cfg(target_arch = "x86_64")]
    let hardware = std::arch::is_x86_feature_detected!("sse4.2");
    #[cfg(target_arch = "aarch64")]
    let hardware = std::arch::is_aarch64_feature_detected!("crc");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let hardware = false;
    if hardware {
        finding("crc32c", Level::Ok, "in hardware", "")
    } else {
        finding(
            "crc32c",
            Level::Warn,
            "in software",
            "checksums cost more time than needed on this processor",
        )
    }
}

fn limit(resource: Resource) -> Option<(u64, String)> {
    let (soft, hard) = getrlimit(resource).ok()?;
    let name = |value| if value == RLIM_INFINITY { "unlimited".to_owned() } else { format!("{value}") };
    Some((soft, format!("{} (may be raised to {})", name(soft), name(hard))))
}

fn open_files() -> Finding {
    const NAME: &str = "open files";
    match limit(Resource::RLIMIT_NOFILE) {
        Some((soft, found)) if soft >= FILES_WANTED => finding(NAME, Level::Ok, found, ""),
        Some((_, found)) => {
            finding(NAME, Level::Note, found, "each client needs one; for many clients set LimitNOFILE=16384")
        }
        None => finding(NAME, Level::Note, "the kernel does not tell", ""),
    }
}

fn locked_memory() -> Finding {
    const NAME: &str = "locked memory";
    match limit(Resource::RLIMIT_MEMLOCK) {
        // Before Linux 5.12 rings were charged to this limit; ours takes well under a mebibyte.
        Some((soft, found)) if soft >= 1 << 20 => finding(NAME, Level::Ok, found, ""),
        Some((_, found)) => {
            let advice = "a kernel before 5.12 may refuse io_uring; set LimitMEMLOCK=8M";
            finding(NAME, Level::Note, found, advice)
        }
        None => finding(NAME, Level::Note, "the kernel does not tell", ""),
    }
}

fn file_system(place: &Place) -> Finding {
    const NAME: &str = "file system";
    let Some(kind) = &place.file_system else {
        return finding(NAME, Level::Note, "the kernel does not tell", "");
    };
    match kind.as_str() {
        "ext4" | "xfs" => finding(NAME, Level::Ok, kind, ""),
        "tmpfs" | "ramfs" => {
            let advice = "nothing here survives a restart of the machine: for trials only";
            finding(NAME, Level::Bad, kind, advice)
        }
        "nfs" | "nfs4" | "cifs" | "smb3" | "9p" => {
            let advice = "a network between the node and its journal adds its failures; use a local disk";
            finding(NAME, Level::Warn, kind, advice)
        }
        "overlay" => finding(
            NAME,
            Level::Warn,
            kind,
            "a container's own layer; mount a volume for the node's directory",
        ),
        "btrfs" | "zfs" => {
            let advice = "it copies on write, so a journal written ahead gains little; ext4 or xfs is faster";
            finding(NAME, Level::Note, kind, advice)
        }
        _ => finding(NAME, Level::Note, kind, "not measured; ext4 and xfs are"),
    }
}

fn device_cache(place: &Place) -> Finding {
    const NAME: &str = "device cache";
    let Some(device) = &place.device else {
        return finding(NAME, Level::Note, "no block device of its own", "");
    };
    match (device.write_cache.as_deref(), device.fua) {
        (Some("write back"), Some(true)) => {
            let found = format!("{}: write back, with FUA", device.name);
            finding(NAME, Level::Ok, found, "")
        }
        (Some("write back"), _) => {
            let found = format!("{}: write back, no FUA", device.name);
            finding(NAME, Level::Note, found, "each durable write also flushes the device's cache")
        }
        (Some("write through"), _) => {
            let found = format!("{}: write through", device.name);
            let advice = "the kernel never flushes; be sure that the device, or what stands behind it, has no \
                          cache that forgets";
            finding(NAME, Level::Note, found, advice)
        }
        _ => finding(NAME, Level::Note, format!("{}: the kernel does not tell", device.name), ""),
    }
}

fn free_space(dir: &Path) -> Finding {
    const NAME: &str = "free space";
    match nix::sys::statvfs::statvfs(dir) {
        Ok(found) => {
            let free = found.blocks_available().saturating_mul(found.fragment_size());
            let text = format!("{} MiB", free >> 20);
            if free >= SPACE_WANTED {
                finding(NAME, Level::Ok, text, "")
            } else {
                finding(NAME, Level::Warn, text, "too little for a few journal segments")
            }
        }
        Err(errno) => finding(NAME, Level::Bad, errno.to_string(), "the directory cannot be used"),
    }
}

/// A directory made for this only, which is removed in the end with all that is in it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(dir: &Path) -> io::Result<Self> {
        let nanos = std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.subsec_nanos());
        let path = dir.join(format!(".hot-backup-doctor-{}-{nanos:08x}", std::process::id()));
        // mkdir(2) takes nothing over: what is in it was made here.
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }

    fn file(this: &io::Result<Self>, name: &str) -> io::Result<PathBuf> {
        match this {
            Ok(scratch) => Ok(scratch.0.join(name)),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The error that made it a failure was told; a directory that stays is harmless and named by its purpose.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Tries the disk itself.
fn disk(scratch: &io::Result<Scratch>) -> Vec<Finding> {
    match Scratch::file(scratch, "durable").and_then(|path| try_disk(&path)) {
        Ok(findings) => findings,
        Err(error) => {
            let advice = "the node must be able to make, write and read files here";
            vec![finding("durable write", Level::Bad, error.to_string(), advice)]
        }
    }
}

fn try_disk(path: &Path) -> io::Result<Vec<Finding>> {
    zero_file(path, TRIES * BLOCK_U64)?;
    let file = open_journal(path, false)?;
    let alignment = direct_alignment(file.as_fd());
    let direct = match (file.direct, alignment) {
        (true, Some(at)) => {
            let text = format!("works, memory aligned to {}, offsets to {}", at.memory, at.offset);
            finding("O_DIRECT", Level::Ok, text, "")
        }
        (true, None) => finding("O_DIRECT", Level::Ok, "works in blocks of 4096", ""),
        (false, _) => {
            let advice = "journal writes go through the page cache, with a sync each; a file system with O_DIRECT is \
                          faster and reads back what is really on the disk";
            finding("O_DIRECT", Level::Warn, "does not work here", advice)
        }
    };
    let mut block = AlignedBuf::with_capacity(BLOCK);
    block.extend_from_slice(&[0xA5; BLOCK]);
    let block = Bytes::from_owner(block);
    let part = Parts::new(vec![block.clone()]);
    let mut times = Vec::new();
    for at in (0..TRIES).map(|block| block * BLOCK_U64) {
        let start = Instant::now();
        if file.direct {
            write_durably_at(file.as_fd(), &part, at)?;
        } else {
            write_at(file.as_fd(), &part, at)?;
            fdatasync(file.as_fd())?;
        }
        times.push(start.elapsed());
    }
    let all = read_direct(path, 0, usize::try_from(TRIES * BLOCK_U64).unwrap_or(BLOCK))?;
    let whole = all.chunks(BLOCK).all(|found| *found == block);
    let written = if whole {
        latency(times)
    } else {
        finding("durable write", Level::Bad, "what was read is not what was written", "do not use this disk")
    };
    Ok(vec![direct, written])
}

fn latency(mut times: Vec<Duration>) -> Finding {
    times.sort_unstable();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    let worst = times.last().copied().unwrap_or_default();
    let found =
        format!("{} us at the median of {TRIES}, {} us at worst", median.as_micros(), worst.as_micros());
    let (level, advice) = if median > Duration::from_millis(5) {
        (
            Level::Warn,
            "every update waits for such a write, though many share one; a disk with power-loss protection takes some 20 us",
        )
    } else if median < Duration::from_micros(2) {
        (Level::Warn, "no disk is that fast: something here does not wait for the disk")
    } else {
        (Level::Ok, "")
    };
    finding("durable write", level, found, advice)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [&str; 13] = [
        "kernel",
        "io_uring",
        "clock source",
        "crc32c",
        "open files",
        "locked memory",
        "file system",
        "device cache",
        "free space",
        "O_DIRECT",
        "durable write",
        "volumes",
        "attaching volumes",
    ];

    #[test]
    fn every_question_has_an_answer_and_nothing_is_left_behind() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let found = probe(dir.path());
        let names: Vec<&str> = found.iter().map(|finding| finding.name.as_str()).collect();
        assert_eq!(names, ALL);
        for finding in &found {
            println!("{finding:?}");
            assert!(!finding.found.is_empty());
            assert!(finding.level < Level::Warn || !finding.advice.is_empty(), "{finding:?}");
        }
        let write = found.iter().find(|finding| finding.name == "durable write").expect("it is timed");
        assert!(write.level < Level::Bad, "{write:?}");
        assert_eq!(std::fs::read_dir(dir.path()).expect("readable").count(), 0);
    }

    #[test]
    fn files_that_were_there_before_are_there_afterwards() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let own = std::process::id();
        let names = ["sparse.tmp".to_owned(), format!(".doctor-{own}"), format!(".doctor-{own}.tmp")];
        names.iter().for_each(|name| std::fs::write(dir.path().join(name), "mine").expect("writable"));
        assert!(!probe(dir.path()).is_empty());
        for name in names {
            assert_eq!(std::fs::read(dir.path().join(&name)).ok().as_deref(), Some(&b"mine"[..]), "{name}");
        }
    }

    #[test]
    fn memory_is_told_to_be_no_disk() {
        let dir = tempfile::tempdir_in("/dev/shm").expect("a temporary directory");
        let found = probe(dir.path());
        let kind = found.iter().find(|finding| finding.name == "file system").expect("it is looked at");
        assert_eq!((kind.level, kind.found.as_str()), (Level::Bad, "tmpfs"));
    }

    #[test]
    fn a_directory_that_is_not_there_is_bad_not_a_panic() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let found = probe(&dir.path().join("nowhere"));
        assert!(found.iter().any(|finding| finding.name == "durable write" && finding.level == Level::Bad));
    }

    #[test]
    fn findings_are_plain_words_in_json() {
        let json = serde_json::to_string(&finding("a", Level::Warn, "b", "c")).expect("it is plain");
        assert_eq!(json, r#"{"name":"a","level":"warn","found":"b","advice":"c"}"#);
    }
}

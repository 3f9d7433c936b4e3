//! When a test is left out, where it may write, how long it waits.

use std::hash::{BuildHasher, RandomState};
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Nothing that is expected takes so long on a slow machine with busy neighbours.
const PATIENCE: Duration = Duration::from_secs(90);

/// The path of the function it stands in.
macro_rules! here {
    () => {{
        fn this() {}
        let name = std::any::type_name_of_val(&this);
        name.strip_suffix("::this").unwrap_or(name)
    }};
}
pub(crate) use here;

/// Ends a heavy test early unless the heavy tier is wanted and everything named is there.
macro_rules! tier {
    ($($need:expr),* $(,)?) => {
        let name = $crate::support::here!();
        if std::env::var("HB_TIER").as_deref() != Ok("ci") {
            $crate::support::skipped(name, "runs with HB_TIER=ci");
            return;
        }
        if $crate::support::missing(name, &[$($need),*]) {
            return;
        }
    };
}
pub(crate) use tier;

/// Says that a test was left out, past the harness, which swallows what a test prints.
pub(crate) fn skipped(name: &str, why: &str) {
    let name = name.split_once("::").map_or(name, |(_, rest)| rest);
    let _ = writeln!(std::io::stderr(), "skipped: {name} {why}");
}

/// Whether something that the test needs is missing: a program, or `root`.
///
/// # Panics
/// If it is, and `HB_REQUIRE=1` says that nothing may be.
pub(crate) fn missing(name: &str, needs: &[&str]) -> bool {
    let lacks = |need: &&&str| match **need {
        "root" => !nix::unistd::geteuid().is_root(),
        program => tool(program).is_none(),
    };
    let Some(need) = needs.iter().find(lacks) else { return false };
    lacking(name, need);
    true
}

/// Leaves a test out because `need` is not there.
///
/// # Panics
/// If `HB_REQUIRE=1`.
pub(crate) fn lacking(name: &str, need: &str) {
    skipped(name, &format!("needs {need}"));
    assert!(std::env::var("HB_REQUIRE").as_deref() != Ok("1"), "{name} needs {need}, and HB_REQUIRE=1");
}

/// Where a program is. Also looks where only root's PATH leads.
pub(crate) fn tool(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(more).map(|dir| dir.join(program)).find(|file| file.is_file())
}

/// A number from `least` to below twice that, different in each run: crashes are not to hit the same place always.
pub(crate) fn some(least: u64) -> u64 {
    least + RandomState::new().hash_one(least) % least
}

/// A directory on the disk that the build is on: temporary directories may be in memory.
pub(crate) fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("the build directory can be written")
}

/// A directory in memory, where there is one that holds files as a disk does: a process that is killed loses nothing of
/// what it wrote, and nobody waits for a disk.
pub(crate) fn memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| scratch())
}

/// Looks until there is something to see.
///
/// # Panics
/// If that takes too long.
#[track_caller]
pub(crate) fn wait_until<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    wait_telling(|| what.to_owned(), look)
}

/// As [`wait_until`]; what was waited for is asked only when it did not come, and can say what there was instead.
#[track_caller]
pub(crate) fn wait_telling<T>(what: impl Fn() -> String, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "waited {PATIENCE:?} for {}", what());
        std::thread::sleep(Duration::from_millis(10));
    }
}

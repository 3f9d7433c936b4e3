//! The calls that decide what is durable, each in one place: tests see which were made in which order, and make each of
//! them fail.

use crate::sys::{Parts, write_at, write_durably_at};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::BorrowedFd;
use std::path::Path;

/// Writes once at `offset`, durably. Returns how much that was.
pub(in crate::io) fn write_durable(file: BorrowedFd<'_>, parts: &Parts, offset: u64) -> io::Result<usize> {
    #[cfg(test)]
    testing::note(|| testing::Act::Wrote(testing::path(file), true))?;
    write_durably_at(file, parts, offset)
}

/// Writes once at `offset`. Returns how much that was.
pub(in crate::io) fn write(file: BorrowedFd<'_>, parts: &Parts, offset: u64) -> io::Result<usize> {
    #[cfg(test)]
    testing::note(|| testing::Act::Wrote(testing::path(file), false))?;
    write_at(file, parts, offset)
}

/// Writes all of the bytes where the file stands.
pub(super) fn write_all(file: &mut File, bytes: &[u8]) -> io::Result<()> {
    #[cfg(test)]
    testing::note(|| testing::Act::Wrote(testing::path(std::os::fd::AsFd::as_fd(file)), false))?;
    file.write_all(bytes)
}

/// Makes what was written to a file durable.
pub(in crate::io) fn sync_data(file: BorrowedFd<'_>) -> io::Result<()> {
    #[cfg(test)]
    testing::note(|| testing::Act::Synced(testing::path(file)))?;
    Ok(nix::unistd::fdatasync(file)?)
}

/// Makes a file with its size, or the names in a directory, durable.
pub(super) fn sync_all(file: BorrowedFd<'_>) -> io::Result<()> {
    #[cfg(test)]
    testing::note(|| testing::Act::Synced(testing::path(file)))?;
    Ok(nix::unistd::fsync(file)?)
}

/// A name was given to a file, in place of the one it had.
pub(super) fn renamed(_from: &Path, _to: &Path) {
    #[cfg(test)]
    let _ = testing::note(|| testing::Act::Renamed(_from.to_owned(), _to.to_owned()));
}

/// A name was given to something new.
pub(super) fn made(_path: &Path) {
    #[cfg(test)]
    let _ = testing::note(|| testing::Act::Made(_path.to_owned()));
}

/// What was called, and the power cut that follows.
#[cfg(test)]
pub(crate) mod testing {
    use std::cell::{Cell, RefCell};
    use std::collections::BTreeSet;
    use std::io;
    use std::os::fd::{AsRawFd, BorrowedFd};
    use std::path::{Path, PathBuf};

    /// One call.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub(crate) enum Act {
        /// Bytes of a file, durably or not.
        Wrote(PathBuf, bool),
        /// A file or directory.
        Synced(PathBuf),
        /// A file got another name.
        Renamed(PathBuf, PathBuf),
        /// A file or directory is new.
        Made(PathBuf),
    }

    thread_local! {
        static ACTS: RefCell<Option<Vec<Act>>> = const { RefCell::new(None) };
        static SYNCS: Cell<usize> = const { Cell::new(0) };
        static FAILS: Cell<usize> = const { Cell::new(usize::MAX) };
    }

    pub(super) fn path(file: BorrowedFd<'_>) -> PathBuf {
        std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap()
    }

    pub(super) fn note(act: impl FnOnce() -> Act) -> io::Result<()> {
        ACTS.with_borrow_mut(|acts| {
            let Some(acts) = acts else { return Ok(()) };
            let act = act();
            let syncs = matches!(act, Act::Synced(_) | Act::Wrote(_, true));
            acts.push(act);
            if syncs && SYNCS.replace(SYNCS.get() + 1) == FAILS.get() {
                return Err(io::Error::from_raw_os_error(libc::EIO));
            }
            Ok(())
        })
    }

    /// What `work` called on this thread; its sync number `fails` fails, if there are so many.
    pub(crate) fn record<T>(fails: Option<usize>, work: impl FnOnce() -> T) -> (T, Vec<Act>) {
        ACTS.set(Some(Vec::new()));
        SYNCS.set(0);
        FAILS.set(fails.unwrap_or(usize::MAX));
        let result = work();
        (result, ACTS.take().unwrap())
    }

    fn parent(path: &Path) -> PathBuf {
        path.parent().unwrap().to_owned()
    }

    /// Holds that no power cut during these calls gives a name to what is not whole, and that one after them loses
    /// nothing.
    pub(crate) fn assert_durable(acts: &[Act]) {
        // Files with bytes, and directories with names, that a power cut would take.
        let (mut bytes, mut names) = (BTreeSet::new(), BTreeSet::new());
        for act in acts {
            match act {
                Act::Wrote(path, false) => drop(bytes.insert(path.clone())),
                Act::Wrote(_, true) => {}
                Act::Synced(path) => {
                    bytes.remove(path);
                    names.remove(path);
                }
                Act::Renamed(from, to) => {
                    assert!(
                        !bytes.contains(from),
                        "{from:?} is renamed before its bytes are durable: {acts:?}"
                    );
                    names.extend([parent(from), parent(to)]);
                }
                Act::Made(path) => drop(names.insert(parent(path))),
            }
        }
        assert!(bytes.is_empty(), "bytes of {bytes:?} are not durable after {acts:?}");
        assert!(names.is_empty(), "names in {names:?} are not durable after {acts:?}");
    }

    /// Does `work` in a fresh directory: durable in the end; and once for each of its syncs, which fails then: that is
    /// told, and what could not be synced is not synced again.
    pub(crate) fn assert_syncs(
        at_least: usize,
        prepare: impl Fn(&Path),
        work: impl Fn(&Path) -> io::Result<()>,
    ) {
        let fresh = |fails| {
            let dir = tempfile::tempdir().unwrap();
            let at = dir.path().canonicalize().unwrap();
            prepare(&at);
            record(fails, || work(&at))
        };
        let (result, acts) = fresh(None);
        result.unwrap();
        assert_durable(&acts);
        let syncs = SYNCS.get();
        assert!(syncs >= at_least, "{syncs} syncs: {acts:?}");
        for nth in 0..syncs {
            let (result, acts) = fresh(Some(nth));
            assert!(result.is_err(), "sync {nth} of {acts:?} failed, and nobody was told");
            let is_sync = |act: &&Act| matches!(act, Act::Synced(_) | Act::Wrote(_, true));
            let failed = acts.iter().filter(is_sync).nth(nth).unwrap();
            let last = acts.iter().rposition(|act| act == failed).unwrap();
            let first = acts.iter().position(|act| act == failed).unwrap();
            // A file that is written piece by piece was synced before.
            let again = acts[first..=last].iter().filter(|act| *act == failed).count();
            let before = acts.iter().filter(is_sync).take(nth + 1).filter(|act| *act == failed).count();
            assert_eq!(again, before, "a sync that failed is tried again: {acts:?}");
        }
    }
}

//! The calls that change the files of volumes, or make files of the store durable, each in one place: tests see which were
//! made in which order, and make a sync fail.

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::uio::pwritev;
use std::fs::File;
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Zeros are written in pieces of this size where the file system cannot make them (bytes).
const ZEROS: usize = 256 << 10;

/// Writes once at `offset`. Returns how much that was, which is more than nothing.
pub(super) fn write_some(file: &File, slices: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
    let at = i64::try_from(offset).map_err(|_| Errno::EFBIG)?;
    loop {
        match pwritev(file, slices, at) {
            Err(Errno::EINTR) => {}
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                #[cfg(test)]
                testing::wrote(file, offset, slices, count);
                return Ok(count);
            }
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Writes all of the bytes at `offset`.
pub(in crate::store) fn write(file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        let count = write_some(file, &[IoSlice::new(bytes)], offset)?;
        bytes = bytes.get(count..).unwrap_or_default();
        offset += u64::try_from(count).unwrap_or(u64::MAX);
    }
    Ok(())
}

/// Makes a range zeros, with its space given back (`hole`) or kept. The file's length stays what it is.
pub(super) fn zero(file: &File, offset: u64, len: u64, hole: bool) -> io::Result<()> {
    let punch = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    let how = match hole {
        true => punch,
        false => FallocateFlags::FALLOC_FL_ZERO_RANGE | FallocateFlags::FALLOC_FL_KEEP_SIZE,
    };
    let (at, count) = (i64::try_from(offset), i64::try_from(len));
    let (Ok(at), Ok(count)) = (at, count) else { return Err(Errno::EFBIG.into()) };
    #[cfg(test)]
    testing::note(|| testing::Act::Zeroed(testing::path(file), offset, len));
    match fallocate(file, how, at, count) {
        // Space is a wish, zeros are a must: no range may keep everything behind it from being applied.
        Err(Errno::EOPNOTSUPP | Errno::ENOSPC) if !hole => match fallocate(file, punch, at, count) {
            Err(Errno::EOPNOTSUPP) => write_zeros(file, offset, len),
            result => Ok(result?),
        },
        Err(Errno::EOPNOTSUPP) => write_zeros(file, offset, len),
        result => Ok(result?),
    }
}

/// Writes zeros where the file system knows no better; what lies beyond the end of the file is zeros already.
fn write_zeros(file: &File, offset: u64, len: u64) -> io::Result<()> {
    let end = (offset + len).min(file.metadata()?.len());
    let zeros = vec![0; ZEROS];
    let mut at = offset;
    while at < end {
        let some = usize::try_from(end - at).unwrap_or(ZEROS).min(ZEROS);
        file.write_all_at(zeros.get(..some).unwrap_or_default(), at)?;
        at += u64::try_from(some).unwrap_or(u64::MAX);
    }
    Ok(())
}

/// Gives a file a length.
pub(super) fn set_len(file: &File, len: u64) -> io::Result<()> {
    #[cfg(test)]
    testing::note(|| testing::Act::Length(testing::path(file), len));
    file.set_len(len)
}

/// Removes a name; that it is not there is as good.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes what was written to a file durable.
pub(in crate::store) fn sync(file: &File) -> io::Result<()> {
    #[cfg(test)]
    testing::sync()?;
    #[cfg(test)]
    testing::note(|| testing::Act::Synced(testing::path(file)));
    file.sync_data()
}

/// Makes the names in a directory durable.
pub(in crate::store) fn sync_names(dir: &File) -> io::Result<()> {
    #[cfg(test)]
    testing::sync()?;
    dir.sync_all()
}

/// Counts the syncs of a thread, makes one of them fail, and notes what is done to files.
#[cfg(test)]
pub(in crate::store) mod testing {
    use std::cell::{Cell, RefCell};
    use std::fs::File;
    use std::io::{self, IoSlice};
    use std::os::fd::AsRawFd;
    use std::path::PathBuf;

    /// Something done to a file.
    #[derive(Clone, Debug, PartialEq, Eq)]
    pub(in crate::store) enum Act {
        /// Bytes were written at this offset.
        Wrote(PathBuf, u64, Vec<u8>),
        /// From this offset on so many bytes were made zeros.
        Zeroed(PathBuf, u64, u64),
        /// It was given a length.
        Length(PathBuf, u64),
        /// It was synced.
        Synced(PathBuf),
    }

    thread_local! {
        static SYNCS: Cell<u32> = const { Cell::new(0) };
        static FAILS: Cell<u32> = const { Cell::new(u32::MAX) };
        static NOTES: RefCell<Option<Vec<Act>>> = const { RefCell::new(None) };
    }

    /// Syncs of files and directories so far.
    pub(in crate::store) fn syncs() -> u32 {
        SYNCS.get()
    }

    /// The `nth` sync from now on fails, 0 being the next.
    pub(in crate::store) fn fail(nth: u32) {
        FAILS.set(SYNCS.get() + nth);
    }

    /// Notes what is done to files from now on.
    pub(in crate::store) fn watch() {
        NOTES.set(Some(Vec::new()));
    }

    /// What was noted; nothing is from now on.
    pub(in crate::store) fn seen() -> Vec<Act> {
        NOTES.take().unwrap_or_default()
    }

    pub(super) fn sync() -> io::Result<()> {
        let number = SYNCS.replace(SYNCS.get() + 1);
        if number == FAILS.get() { Err(io::Error::from_raw_os_error(5)) } else { Ok(()) }
    }

    pub(super) fn note(act: impl FnOnce() -> Act) {
        NOTES.with_borrow_mut(|notes| {
            if let Some(notes) = notes {
                notes.push(act());
            }
        });
    }

    pub(super) fn path(file: &File) -> PathBuf {
        std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap_or_default()
    }

    pub(super) fn wrote(file: &File, offset: u64, slices: &[IoSlice<'_>], count: usize) {
        note(|| {
            let mut bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
            bytes.truncate(count);
            Act::Wrote(path(file), offset, bytes)
        });
    }
}

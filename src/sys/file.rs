//! File calls for which no safe wrapper exists.

use super::{Parts, RANGES, TRANSFER_MAX};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Writes once at `offset`; what was written is durable when this returns (RWF_DSYNC). Returns how much that was.
///
/// # Durability
/// pwritev2(2): RWF_DSYNC is "a per-write equivalent of the O_DSYNC flag".
///
/// # Errors
/// Those of pwritev2(2).
pub fn write_durably_at(file: BorrowedFd<'_>, parts: &Parts, offset: u64) -> io::Result<usize> {
    write_once(file, parts, offset, libc::RWF_DSYNC)
}

/// Writes once at `offset` without making it durable. Returns how much was written.
///
/// # Errors
/// Those of pwritev2(2).
pub fn write_at(file: BorrowedFd<'_>, parts: &Parts, offset: u64) -> io::Result<usize> {
    write_once(file, parts, offset, 0)
}

fn write_once(file: BorrowedFd<'_>, parts: &Parts, offset: u64, flags: libc::c_int) -> io::Result<usize> {
    let offset = i64::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))?;
    let mut ranges = Vec::new();
    gather(parts, &mut ranges);
    let count = libc::c_int::try_from(ranges.len()).unwrap_or(libc::c_int::MAX);
    #[cfg(test)]
    tests::FLAGS.set(flags);
    // SAFETY: pwritev2(2) reads `count` iovecs at the pointer and at most its length at the base of each; ranges and
    // parts outlive the call, and a write does not change the bytes although the field is a mutable pointer.
    let written = unsafe { libc::pwritev2(file.as_raw_fd(), ranges.as_ptr(), count, offset, flags) };
    usize::try_from(written).map_err(|_| io::Error::last_os_error())
}

/// Points `ranges` at what is left of `parts`, as much as one call may move.
pub(super) fn gather(parts: &Parts, ranges: &mut Vec<libc::iovec>) {
    ranges.clear();
    let mut room = TRANSFER_MAX;
    for part in parts.remaining().take(RANGES) {
        let len = part.len().min(room);
        ranges.push(libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: len });
        room -= len;
        if room == 0 {
            break;
        }
    }
}

/// Reads once at `offset` behind what is in `buffer`, at most `most` bytes and its capacity, without waiting for the disk.
/// Returns how much that was; 0 at the end of the file.
///
/// # Errors
/// Those of preadv2(2); `WouldBlock` when the first byte is not in the page cache (RWF_NOWAIT), or when the file system
/// cannot tell.
pub fn read_cached(
    file: BorrowedFd<'_>,
    buffer: &mut Vec<u8>,
    most: usize,
    offset: u64,
) -> io::Result<usize> {
    match read_once(file, buffer, most, offset, libc::RWF_NOWAIT) {
        Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => Err(io::ErrorKind::WouldBlock.into()),
        result => result,
    }
}

/// Reads once at `offset` behind what is in `buffer`, at most `most` bytes and its capacity. Returns how much that was; 0
/// at the end of the file.
///
/// # Errors
/// Those of preadv2(2).
pub fn read_at(file: BorrowedFd<'_>, buffer: &mut Vec<u8>, most: usize, offset: u64) -> io::Result<usize> {
    read_once(file, buffer, most, offset, 0)
}

fn read_once(
    file: BorrowedFd<'_>,
    buffer: &mut Vec<u8>,
    most: usize,
    offset: u64,
    flags: libc::c_int,
) -> io::Result<usize> {
    let offset = i64::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))?;
    let room = buffer.spare_capacity_mut();
    let len = room.len().min(most).min(TRANSFER_MAX);
    let range = libc::iovec { iov_base: room.as_mut_ptr().cast(), iov_len: len };
    // SAFETY: preadv2(2) reads one iovec at the pointer and writes at most its length at its base, which is free capacity
    // of the buffer, borrowed mutably here. The bytes need not be initialised, they are only written.
    let got = unsafe { libc::preadv2(file.as_raw_fd(), &raw const range, 1, offset, flags) };
    let got = usize::try_from(got).map_err(|_| io::Error::last_os_error())?;
    assert!(got <= len, "the kernel keeps within the buffer");
    let filled = buffer.len() + got;
    // SAFETY: `got` is at most the free capacity, and preadv2(2) "returns the number of bytes read", which it wrote.
    unsafe { buffer.set_len(filled) };
    Ok(got)
}

/// What O_DIRECT demands of a file (bytes).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectAlignment {
    /// Of buffers in memory.
    pub memory: u32,
    /// Of offsets and lengths.
    pub offset: u32,
}

/// What O_DIRECT demands of `file`: `None` when kernel or file system do not tell; zeros when they tell that it
/// is not possible.
#[must_use]
pub fn direct_alignment(file: BorrowedFd<'_>) -> Option<DirectAlignment> {
    let mut found = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: statx(2) reads the path, an empty C string together with AT_EMPTY_PATH, and writes one struct statx
    // at the last pointer, which has room for it.
    let result = unsafe {
        libc::statx(
            file.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            libc::STATX_DIOALIGN,
            found.as_mut_ptr(),
        )
    };
    if result != 0 {
        return None;
    }
    // SAFETY: every field is a number or an array of numbers, for which the zeros it began with are valid too.
    let found = unsafe { found.assume_init() };
    (found.stx_mask & libc::STATX_DIOALIGN != 0)
        .then_some(DirectAlignment { memory: found.stx_dio_mem_align, offset: found.stx_dio_offset_align })
}

/// The number of the mount that a file is on, which no other mount has until the machine starts again; `None` when the
/// kernel does not tell (before Linux 6.8).
#[must_use]
pub fn mount_of(file: BorrowedFd<'_>) -> Option<u64> {
    /// STATX_MNT_ID_UNIQUE of linux/stat.h.
    const UNIQUE: libc::c_uint = 0x4000;
    let mut found = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: as in `direct_alignment`.
    let result = unsafe {
        libc::statx(file.as_raw_fd(), c"".as_ptr(), libc::AT_EMPTY_PATH, UNIQUE, found.as_mut_ptr())
    };
    if result != 0 {
        return None;
    }
    // SAFETY: every field is a number or an array of numbers, for which the zeros it began with are valid too.
    let found = unsafe { found.assume_init() };
    (found.stx_mask & UNIQUE != 0).then_some(found.stx_mnt_id)
}

/// Has the disk begin with what was written of a range, so that a sync later has little left to do. A wish: nothing is durable
/// by it, and what fails is told by the sync.
///
/// # Blocking
/// While the device takes no more requests: who writes faster than it waits here.
pub fn begin_writing(file: BorrowedFd<'_>, offset: u64, len: u64) {
    let (Ok(offset), Ok(len)) = (i64::try_from(offset), i64::try_from(len)) else { return };
    // SAFETY: sync_file_range(2) takes numbers alone.
    unsafe { libc::sync_file_range(file.as_raw_fd(), offset, len, libc::SYNC_FILE_RANGE_WRITE) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::os::fd::AsFd;

    thread_local! {
        /// Of the last write of this thread.
        pub(super) static FLAGS: Cell<libc::c_int> = const { Cell::new(0) };
    }

    #[test]
    fn a_durable_write_asks_the_kernel_for_that_and_another_one_does_not() {
        let file = tempfile::tempfile().unwrap();
        let parts = || Parts::new(vec![bytes::Bytes::from_static(b"content")]);
        assert_eq!(write_durably_at(file.as_fd(), &parts(), 0).unwrap(), 7);
        assert_eq!(FLAGS.get() & libc::RWF_DSYNC, libc::RWF_DSYNC);
        assert_eq!(write_at(file.as_fd(), &parts(), 7).unwrap(), 7);
        assert_eq!(FLAGS.get(), 0);
    }
}

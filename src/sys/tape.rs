//! The calls that only tape drives answer (st(4)).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// An operation of `MTIOCTOP`, by its number in `sys/mtio.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i16)]
pub enum TapeOp {
    /// Forward over filemarks.
    ForwardFile = 1,
    /// Back over filemarks.
    BackFile = 2,
    /// Write filemarks; 0 writes what the drive has in memory.
    WriteMarks = 5,
    /// To the beginning.
    Rewind = 6,
    /// To the beginning, and give the reel out.
    Offline = 7,
    /// Behind all that is written.
    End = 12,
    /// Block size; 0 is one block for each write.
    SetBlock = 20,
    /// To a position.
    Seek = 22,
    /// Keep the reel in the drive.
    Lock = 28,
    /// Let it go. Also makes the driver forget that it was writing.
    Unlock = 29,
}

/// What `MTIOCGET` tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TapeStatus {
    /// Block size and density.
    pub drive: i64,
    /// Bits such as online, write-protected, end of tape.
    pub general: i64,
    /// Error counts.
    pub errors: i64,
    /// The file number, -1 if it is not known.
    pub file: i32,
    /// The block number, -1 if it is not known.
    pub block: i32,
}

impl TapeStatus {
    /// The reel stands at its beginning.
    pub const BEGINNING: i64 = 0x4000_0000;
    /// The end of the reel is near.
    pub const NEAR_END: i64 = 0x2000_0000;
    /// It cannot be written to.
    pub const PROTECTED: i64 = 0x0400_0000;
    /// A reel is there and ready.
    pub const ONLINE: i64 = 0x0100_0000;
    /// The drive wants to be cleaned.
    pub const CLEAN: i64 = 0x0000_8000;

    /// Whether a bit is set.
    #[must_use]
    pub fn has(&self, bit: i64) -> bool {
        self.general & bit != 0
    }

    /// Size of blocks (bytes); 0 is one block for each write.
    #[must_use]
    pub fn block_size(&self) -> i64 {
        self.drive & 0xff_ffff
    }
}

#[repr(C)]
struct Operation {
    op: i16,
    count: i32,
}

#[repr(C)]
#[derive(Default)]
struct Status {
    kind: libc::c_long,
    residual: libc::c_long,
    drive: libc::c_long,
    general: libc::c_long,
    errors: libc::c_long,
    file: i32,
    block: i32,
}

const MTIOCTOP: libc::c_ulong = nix::request_code_write!(b'm', 1, size_of::<Operation>());
const MTIOCGET: libc::c_ulong = nix::request_code_read!(b'm', 2, size_of::<Status>());
const MTIOCPOS: libc::c_ulong = nix::request_code_read!(b'm', 3, size_of::<libc::c_long>());

fn checked(result: libc::c_int) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Does one operation, so many times.
///
/// # Errors
/// Those of st(4), also of a write before it.
pub fn tape_do(drive: BorrowedFd<'_>, op: TapeOp, count: i32) -> io::Result<()> {
    let operation = Operation { op: op as i16, count };
    // SAFETY: st(4): MTIOCTOP reads one struct mtop, which `operation` is laid out as, and it lives through the call.
    checked(unsafe { libc::ioctl(drive.as_raw_fd(), MTIOCTOP, &raw const operation) })
}

/// Where the drive is: blocks and filemarks before it.
///
/// # Errors
/// Those of st(4), also of a write before it.
pub fn tape_position(drive: BorrowedFd<'_>) -> io::Result<u64> {
    let mut position: libc::c_long = 0;
    // SAFETY: st(4): MTIOCPOS writes one struct mtpos, which is one long; it is ours and lives through the call.
    checked(unsafe { libc::ioctl(drive.as_raw_fd(), MTIOCPOS, &raw mut position) })?;
    u64::try_from(position).map_err(|_| io::Error::from_raw_os_error(libc::EIO))
}

/// What the driver knows of the drive; of a file that is no tape, ENOTTY.
///
/// # Errors
/// Those of st(4), also of a write before it.
pub fn tape_status(drive: BorrowedFd<'_>) -> io::Result<TapeStatus> {
    let mut status = Status::default();
    // SAFETY: st(4): MTIOCGET writes one struct mtget, which `status` is laid out as; it is ours and lives through the call.
    checked(unsafe { libc::ioctl(drive.as_raw_fd(), MTIOCGET, &raw mut status) })?;
    let Status { drive, general, errors, file, block, .. } = status;
    Ok(TapeStatus { drive, general, errors, file, block })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn the_numbers_of_the_calls_are_those_of_mtio_h_and_a_file_is_no_tape() {
        assert_eq!((MTIOCTOP, MTIOCGET, MTIOCPOS), (0x4008_6d01, 0x8030_6d02, 0x8008_6d03));
        let file = tempfile::tempfile().unwrap();
        assert_eq!(tape_status(file.as_fd()).unwrap_err().raw_os_error(), Some(libc::ENOTTY));
        assert!(tape_do(file.as_fd(), TapeOp::Rewind, 1).is_err() && tape_position(file.as_fd()).is_err());
    }
}

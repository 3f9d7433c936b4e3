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

/// `SG_IO` of `scsi/sg.h`.
const SG_IO: libc::c_ulong = 0x2285;
/// The answer comes from the drive.
const FROM_DRIVE: i32 = -3;

/// `struct sg_io_hdr`.
#[repr(C)]
struct PassThrough {
    interface: i32,
    direction: i32,
    command_len: u8,
    sense_len: u8,
    ranges: u16,
    answer_len: u32,
    answer: *mut libc::c_void,
    command: *const u8,
    sense: *mut u8,
    timeout_ms: u32,
    flags: u32,
    id: i32,
    user: *mut libc::c_void,
    status: u8,
    masked_status: u8,
    message_status: u8,
    sense_written: u8,
    host_status: u16,
    driver_status: u16,
    left: i32,
    duration_ms: u32,
    info: u32,
}

/// Asks a drive past its driver for something that changes nothing: so many bytes of `answer` came.
///
/// # Errors
/// `InvalidInput` for a command or answer of no possible length; those of ioctl(2), EPERM without CAP_SYS_RAWIO; EIO where
/// the drive refused.
///
/// # Needs
/// Nothing that was written may wait to be told of: before Linux 6.15 the question takes a reset's notice from the driver.
pub fn scsi_ask(
    drive: BorrowedFd<'_>,
    command: &[u8],
    answer: &mut [u8],
    timeout_ms: u32,
) -> io::Result<usize> {
    let invalid = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let command_len = u8::try_from(command.len()).map_err(invalid)?;
    let answer_len = u32::try_from(answer.len()).map_err(invalid)?;
    let mut sense = [0_u8; 32];
    let mut asked = PassThrough {
        interface: i32::from(b'S'),
        direction: FROM_DRIVE,
        command_len,
        sense_len: 32,
        ranges: 0,
        answer_len,
        answer: answer.as_mut_ptr().cast(),
        command: command.as_ptr(),
        sense: sense.as_mut_ptr(),
        timeout_ms,
        flags: 0,
        id: 0,
        user: std::ptr::null_mut(),
        status: 0,
        masked_status: 0,
        message_status: 0,
        sense_written: 0,
        host_status: 0,
        driver_status: 0,
        left: 0,
        duration_ms: 0,
        info: 0,
    };
    // SAFETY: sg(4): SG_IO reads and writes one struct sg_io_hdr, which `asked` is laid out as. It reads `command_len` bytes at
    // `command`, and writes at most `answer_len` at `answer` and `sense_len` at `sense`; all are ours and live through the
    // call, which waits until the drive is done with them.
    checked(unsafe { libc::ioctl(drive.as_raw_fd(), SG_IO, &raw mut asked) })?;
    if (asked.status, asked.host_status, asked.driver_status) != (0, 0, 0) {
        return Err(io::Error::from_raw_os_error(libc::EIO));
    }
    let left = usize::try_from(asked.left).unwrap_or(0);
    Ok(answer.len().saturating_sub(left))
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
        let mut answer = [7; 64];
        assert!(scsi_ask(file.as_fd(), &[0x4d; 10], &mut answer, 1000).is_err() && answer == [7; 64]);
        assert!(scsi_ask(file.as_fd(), &[0; 256], &mut answer, 1000).is_err());
        // As `sizeof(struct sg_io_hdr)` says on this kind of machine.
        assert_eq!(size_of::<PassThrough>(), 88);
    }
}

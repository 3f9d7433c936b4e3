//! Reads by commands that the ring hands through to an NVMe drive (URING_CMD), past the block layer and any file system, to
//! measure what these cost. There are only reads, so nothing on the drive is touched.

use super::trial::{Buffer, Queue};
use io_uring::{IoUring, cqueue, opcode, squeue, types};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

/// linux/nvme_ioctl.h, `NVME_IOCTL_ID`: the number of the device's namespace.
const NAMESPACE: libc::Ioctl = 0x4E40;
/// linux/nvme_ioctl.h, `NVME_URING_CMD_IO`: a command of 72 bytes for the queue of reads and writes.
const COMMAND: u32 = 0xC048_4E80;
/// NVM Express, NVM command set: read.
const READ: u8 = 2;

/// Reads of one size from an NVMe drive, so many at once, one behind the other.
pub struct NvmeReads {
    // Before the device: fields are dropped in this order.
    queue: Queue<squeue::Entry128, cqueue::Entry32>,
    device: OwnedFd,
    namespace: u32,
    block: u32,
    bytes: u32,
}

/// `struct nvme_uring_cmd` of linux/nvme_ioctl.h, with room for what io_uring keeps behind it: a read of `bytes` at `at`, both
/// whole blocks of `block` bytes, to the address `to`.
#[allow(clippy::host_endian_bytes, reason = "the kernel takes the numbers of its own processor")]
fn command(namespace: u32, block: u32, at: u64, bytes: u32, to: u64) -> [u8; 80] {
    let first = at / u64::from(block.max(1));
    let count = (bytes / block.max(1)).saturating_sub(1);
    let mut command = [0; 80];
    let mut put = |at: usize, bytes: &[u8]| {
        if let Some(place) = command.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    };
    put(0, &[READ]);
    put(4, &namespace.to_ne_bytes());
    put(24, &to.to_ne_bytes());
    put(36, &bytes.to_ne_bytes());
    let half = |number: u64| u32::try_from(number & u64::from(u32::MAX)).unwrap_or_default();
    put(40, &half(first).to_ne_bytes());
    put(44, &half(first >> 32).to_ne_bytes());
    put(48, &count.to_ne_bytes());
    command
}

impl NvmeReads {
    /// For `depth` reads of `bytes` at once in the first `room` bytes of `device`, the character device of a namespace
    /// (`/dev/ng0n1`) whose blocks have `block` bytes.
    ///
    /// # Errors
    /// What the kernel does not allow or have: `ENOTTY` of what is no such device.
    pub fn open(device: OwnedFd, block: u32, depth: u16, bytes: usize, room: u64) -> io::Result<Self> {
        // SAFETY: ioctl(2) with NVME_IOCTL_ID takes no argument, and gives the number of the namespace.
        let number = unsafe { libc::ioctl(device.as_raw_fd(), NAMESPACE) };
        let namespace = u32::try_from(number).map_err(|_| io::Error::last_os_error())?;
        Self::with((device, namespace, block), depth, bytes, room)
    }

    fn with(
        (device, namespace, block): (OwnedFd, u32, u32),
        depth: u16,
        bytes: usize,
        room: u64,
    ) -> io::Result<Self> {
        let mut builder = IoUring::<squeue::Entry128, cqueue::Entry32>::builder();
        builder.dontfork();
        let queue = Queue::open(&builder, depth, bytes, room)?;
        let bytes = u32::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput)?;
        if block == 0 || !bytes.is_multiple_of(block) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(Self { queue, device, namespace, block, bytes })
    }

    /// Goes on until `each`, which is told how long every read took, says that it is enough.
    ///
    /// # Errors
    /// That of a read, or of the ring; `UnexpectedEof` if the drive answered a read with an error of its own.
    pub fn run(&mut self, each: &mut dyn FnMut(Duration) -> bool) -> io::Result<()> {
        let (device, namespace) = (types::Fd(self.device.as_raw_fd()), self.namespace);
        let (block, bytes) = (self.block, self.bytes);
        let mut make = |buffer: &mut Buffer, _: u16, at: u64| {
            let to = buffer.bytes.as_mut_slice().as_mut_ptr().expose_provenance() as u64;
            opcode::UringCmd80::new(device, COMMAND).cmd(command(namespace, block, at, bytes, to)).build()
        };
        self.queue.run(0, &mut make, each)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::limits::BLOCK;

    #[test]
    fn a_read_is_laid_out_as_the_kernel_and_the_drive_expect_it() {
        let command = command(1, 512, (7 << 32 | 5) * 512, 128 << 10, 0x1122_3344_5566_7788);
        let word = |at: usize| u32::from_le_bytes(command[at..at + 4].try_into().unwrap());
        // Operation, namespace, address, length, first block, number of blocks less one.
        assert_eq!((word(0), word(4)), (2, 1));
        assert_eq!((word(24), word(28), word(36)), (0x5566_7788, 0x1122_3344, 128 << 10));
        assert_eq!((word(40), word(44), word(48)), (5, 7, 255));
        let used = [0, 4, 24, 28, 36, 40, 44, 48];
        assert!((0..80).step_by(4).all(|at| word(at) == 0 || used.contains(&at)), "{command:?}");
        // _IOWR('N', 0x80, 72 bytes)
        assert_eq!(COMMAND, 3 << 30 | 72 << 16 | u32::from(b'N') << 8 | 0x80);
    }

    #[test]
    fn what_is_no_nvme_drive_is_refused_and_commands_go_through_the_ring_to_a_device_that_takes_any() {
        let null = || -> OwnedFd { std::fs::File::open("/dev/null").unwrap().into() };
        let error = NvmeReads::open(null(), 512, 1, BLOCK, 8192).map(drop).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOTTY));
        // /dev/null answers every command with 0, since Linux 6.5.
        let mut reads = match NvmeReads::with((null(), 1, 512), 4, BLOCK, 8 * BLOCK as u64) {
            Ok(reads) => reads,
            Err(error) => return eprintln!("skipped: no io_uring with large entries: {error}"),
        };
        let mut count = 0;
        let done = reads.run(&mut |_| {
            count += 1;
            count < 20
        });
        match done {
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                eprintln!("skipped: /dev/null of this kernel takes no commands");
            }
            done => {
                done.unwrap();
                assert!((20..24).contains(&count), "{count}");
            }
        }
    }
}

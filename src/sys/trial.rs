//! Ways past the kernel that the product does not use, to measure them: registered buffers and files, a kernel thread that
//! polls the queue, polled completions, sends without a copy.
//!
//! Each trial owns its file, its buffers and its ring, and waits for all that is in flight before it lets them go.

use crate::base::AlignedBuf;
use crate::base::limits::BLOCK;
use io_uring::{IoUring, Probe, cqueue, opcode, squeue, types};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

/// How long the kernel's own thread polls before it sleeps (milliseconds).
const SQ_IDLE_MS: u32 = 50;
/// linux/io_uring.h, in `ioprio` of a send: tell whether the bytes were copied all the same.
const REPORT_USAGE: u16 = 8;
/// linux/io_uring.h, in the result of a notification: they were.
const COPIED: i32 = i32::MIN;
/// Sends whose buffers the kernel may hold at once.
const SENDS_MAX: u32 = 16;

/// Which of the ways to take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrialWays {
    /// Buffers are made known to the ring beforehand.
    pub buffers: bool,
    /// The file is made known to the ring beforehand.
    pub file: bool,
    /// A thread of the kernel looks for submissions (SQPOLL).
    pub sqpoll: bool,
    /// Completions are polled from the device (IOPOLL).
    pub iopoll: bool,
}

/// What is done to the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrialOp {
    /// Writes that are durable when they complete (RWF_DSYNC).
    WriteDurably,
    /// Reads.
    Read,
}

pub(super) struct Buffer {
    pub(super) bytes: AlignedBuf,
    begun: Instant,
}

/// A ring, and operations of one size, so many at once, one behind the other, in the first bytes of something.
pub(super) struct Queue<S: squeue::EntryMarker, C: cqueue::EntryMarker> {
    // Before what it points to: fields are dropped in this order.
    uring: IoUring<S, C>,
    buffers: Vec<Buffer>,
    bytes: u32,
    room: u64,
    offset: u64,
    in_flight: usize,
}

impl<S: squeue::EntryMarker, C: cqueue::EntryMarker + Into<cqueue::Entry>> Queue<S, C> {
    /// For `depth` operations of `bytes` at once, in the first `room` bytes, over and over.
    ///
    /// # Errors
    /// What the kernel does not allow or have; `InvalidInput` if not one operation fits the room.
    pub(super) fn open(
        builder: &io_uring::Builder<S, C>,
        depth: u16,
        bytes: usize,
        room: u64,
    ) -> io::Result<Self> {
        let size = u32::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput)?;
        if size == 0 || u64::from(size) > room || !bytes.is_multiple_of(BLOCK) || depth == 0 {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let uring = builder.build(u32::from(depth).next_power_of_two())?;
        let buffers = (0..depth).map(|_| Buffer { bytes: filled(bytes), begun: Instant::now() }).collect();
        Ok(Self { uring, buffers, bytes: size, room, offset: 0, in_flight: 0 })
    }

    /// Goes on until `each`, which is told how long every operation took, says that it is enough. `make` makes the operation
    /// on a buffer, which has a number, at an offset; one that succeeds ends with `good`.
    ///
    /// # Errors
    /// That of an operation, or of the ring; `UnexpectedEof` if one ended with another number.
    pub(super) fn run(
        &mut self,
        good: u32,
        make: &mut dyn FnMut(&mut Buffer, u16, u64) -> S,
        each: &mut dyn FnMut(Duration) -> bool,
    ) -> io::Result<()> {
        for index in 0..self.buffers.len() {
            self.begin(index, make)?;
        }
        let mut result = Ok(());
        let mut more = true;
        while self.in_flight > 0 {
            self.wait()?;
            while let Some(entry) = self.next() {
                let (index, code) = (index_of(&entry), entry.result());
                let took = self.buffers.get(index).map_or(Duration::ZERO, |buffer| buffer.begun.elapsed());
                result = result.and_then(|()| whole(code, good));
                more = more && result.is_ok() && each(took);
                if more {
                    self.begin(index, make)?;
                }
            }
        }
        result
    }

    fn next(&mut self) -> Option<cqueue::Entry> {
        let entry = self.uring.completion().next()?;
        self.in_flight -= 1;
        Some(entry.into())
    }

    fn begin(&mut self, index: usize, make: &mut dyn FnMut(&mut Buffer, u16, u64) -> S) -> io::Result<()> {
        if self.offset + u64::from(self.bytes) > self.room {
            self.offset = 0;
        }
        let number = u16::try_from(index).map_err(|_| io::ErrorKind::InvalidInput)?;
        let buffer = self.buffers.get_mut(index).ok_or(io::ErrorKind::InvalidInput)?;
        buffer.begun = Instant::now();
        let mut entry = make(buffer, number, self.offset);
        entry.set_user_data(u64::from(number));
        self.offset += u64::from(self.bytes);
        // With SQPOLL the kernel may not have taken the last one yet.
        loop {
            // SAFETY: io_uring_enter(2): the entry points into a buffer of `self`, which has nothing else in flight, is
            // never resized, and outlives the operation: `run` and `drop` wait for all that is in flight.
            if unsafe { self.uring.submission().push(&entry) }.is_ok() {
                break;
            }
            self.uring.submit()?;
            std::thread::yield_now();
        }
        self.in_flight += 1;
        Ok(())
    }

    fn wait(&mut self) -> io::Result<()> {
        match self.uring.submit_and_wait(1) {
            Err(error) if error.raw_os_error() != Some(libc::EINTR) => Err(error),
            _ => Ok(()),
        }
    }
}

impl<S: squeue::EntryMarker, C: cqueue::EntryMarker> Drop for Queue<S, C> {
    fn drop(&mut self) {
        while self.in_flight > 0 {
            match self.uring.submit_and_wait(1) {
                Err(error) if error.raw_os_error() != Some(libc::EINTR) => break,
                _ => self.in_flight -= self.uring.completion().count().min(self.in_flight),
            }
        }
        if self.in_flight > 0 {
            // What the kernel does not give back is leaked, as it may still be written to.
            std::mem::forget(std::mem::take(&mut self.buffers));
        }
    }
}

/// Reads or writes of one size in a file, so many at once, one behind the other.
pub struct FileTrial {
    // Before the file that it was told: fields are dropped in this order.
    queue: Queue<squeue::Entry, cqueue::Entry>,
    file: OwnedFd,
    ways: TrialWays,
    op: TrialOp,
}

impl FileTrial {
    /// A ring for `depth` operations of `bytes` at once, in the first `room` bytes of `file`, over and over.
    ///
    /// # Errors
    /// What the kernel does not allow or have; `InvalidInput` if not one operation fits the room.
    pub fn open(
        file: OwnedFd,
        op: TrialOp,
        ways: TrialWays,
        depth: u16,
        bytes: usize,
        room: u64,
    ) -> io::Result<Self> {
        let mut builder = IoUring::builder();
        builder.dontfork();
        if ways.sqpoll {
            builder.setup_sqpoll(SQ_IDLE_MS);
        }
        if ways.iopoll {
            builder.setup_iopoll();
        }
        let queue = Queue::open(&builder, depth, bytes, room)?;
        let mut trial = Self { queue, file, ways, op };
        trial.register()?;
        Ok(trial)
    }

    fn register(&mut self) -> io::Result<()> {
        let Queue { uring, buffers, .. } = &mut self.queue;
        if self.ways.file {
            uring.submitter().register_files(&[self.file.as_raw_fd()])?;
        }
        if !self.ways.buffers {
            return Ok(());
        }
        let ranges: Vec<_> = buffers.iter_mut().map(|buffer| range(&mut buffer.bytes)).collect();
        // SAFETY: io_uring_register(2), IORING_REGISTER_BUFFERS: the memory has to stay until the ring is gone. It belongs to
        // the queue, is never resized, and the ring is its field that is dropped first.
        unsafe { uring.submitter().register_buffers(&ranges) }
    }

    /// Goes on until `each`, which is told how long every operation took, says that it is enough.
    ///
    /// # Errors
    /// That of an operation, or of the ring; `UnexpectedEof` if one moved less than it was asked to.
    pub fn run(&mut self, each: &mut dyn FnMut(Duration) -> bool) -> io::Result<()> {
        let (op, ways, file, len) = (self.op, self.ways, self.file.as_raw_fd(), self.queue.bytes);
        let mut make =
            |buffer: &mut Buffer, number: u16, at: u64| entry((op, ways, file), (buffer, number), (at, len));
        self.queue.run(len, &mut make, each)
    }
}

fn entry(
    (op, ways, file): (TrialOp, TrialWays, RawFd),
    (buffer, number): (&mut Buffer, u16),
    (at, len): (u64, u32),
) -> squeue::Entry {
    let start = buffer.bytes.as_mut_slice().as_mut_ptr();
    let (fixed, plain) = (types::Fixed(0), types::Fd(file));
    let flags = libc::RWF_DSYNC;
    match (op, ways.buffers, ways.file) {
        (TrialOp::WriteDurably, true, true) => {
            opcode::WriteFixed::new(fixed, start, len, number).offset(at).rw_flags(flags).build()
        }
        (TrialOp::WriteDurably, true, false) => {
            opcode::WriteFixed::new(plain, start, len, number).offset(at).rw_flags(flags).build()
        }
        (TrialOp::WriteDurably, false, true) => {
            opcode::Write::new(fixed, start, len).offset(at).rw_flags(flags).build()
        }
        (TrialOp::WriteDurably, false, false) => {
            opcode::Write::new(plain, start, len).offset(at).rw_flags(flags).build()
        }
        (TrialOp::Read, true, true) => opcode::ReadFixed::new(fixed, start, len, number).offset(at).build(),
        (TrialOp::Read, true, false) => opcode::ReadFixed::new(plain, start, len, number).offset(at).build(),
        (TrialOp::Read, false, true) => opcode::Read::new(fixed, start, len).offset(at).build(),
        (TrialOp::Read, false, false) => opcode::Read::new(plain, start, len).offset(at).build(),
    }
}

/// Sends of one size over a connected socket whose bytes the kernel need not copy (SEND_ZC).
pub struct SendTrial {
    uring: IoUring,
    socket: OwnedFd,
    buffer: AlignedBuf,
    /// Completions that are still to come.
    owed: u32,
    /// Sends that have not given the buffer back.
    held: u32,
    sent: Option<io::Result<usize>>,
    copied: u64,
    told: u64,
}

impl SendTrial {
    /// For sends of `bytes` over `socket`.
    ///
    /// # Errors
    /// `Unsupported` if the kernel cannot (before Linux 6.0), and what it answered.
    pub fn open(socket: OwnedFd, bytes: usize) -> io::Result<Self> {
        if !ring_offers(opcode::SendZc::CODE)? {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let uring = IoUring::builder().dontfork().build(SENDS_MAX * 2)?;
        let buffer = filled(bytes);
        Ok(Self { uring, socket, buffer, owed: 0, held: 0, sent: None, copied: 0, told: 0 })
    }

    /// Sends the whole buffer once.
    ///
    /// # Errors
    /// Those of send(2); `Unsupported` if the socket cannot.
    pub fn send(&mut self) -> io::Result<()> {
        let mut done = 0;
        while done < self.buffer.len() {
            while self.held >= SENDS_MAX {
                self.wait()?;
            }
            done += self.send_some(done)?;
        }
        Ok(())
    }

    /// How many of all sends were copied all the same, of those of which the kernel told.
    #[must_use]
    pub fn copied(&self) -> (u64, u64) {
        (self.copied, self.told)
    }

    fn send_some(&mut self, from: usize) -> io::Result<usize> {
        let rest = self.buffer.as_ref().get(from..).unwrap_or_default();
        let len = u32::try_from(rest.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let entry = opcode::SendZc::new(types::Fd(self.socket.as_raw_fd()), rest.as_ptr(), len)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
            .zc_flags(REPORT_USAGE)
            .build();
        // SAFETY: io_uring_enter(2), IORING_OP_SEND_ZC: the bytes may be read until the notification. They belong to `self`,
        // are never changed after they were made, and `drop` waits for all notifications.
        let pushed = unsafe { self.uring.submission().push(&entry) };
        pushed.map_err(|_| io::Error::from_raw_os_error(libc::EAGAIN))?;
        self.owed += 1;
        self.held += 1;
        loop {
            self.wait()?;
            if let Some(sent) = self.sent.take() {
                return sent;
            }
        }
    }

    fn wait(&mut self) -> io::Result<()> {
        match self.uring.submit_and_wait(1) {
            Err(error) if error.raw_os_error() != Some(libc::EINTR) => return Err(error),
            _ => {}
        }
        for entry in self.uring.completion() {
            self.owed -= 1;
            if cqueue::notif(entry.flags()) {
                self.held -= 1;
                self.told += 1;
                self.copied += u64::from(entry.result() & COPIED != 0);
                continue;
            }
            // A second completion, when the buffer is given back, is announced by this flag.
            if cqueue::more(entry.flags()) {
                self.owed += 1;
            } else {
                self.held -= 1;
            }
            self.sent = Some(match usize::try_from(entry.result()) {
                // Nothing was sent, and nothing is wrong.
                Err(_) if entry.result() == -libc::EINTR => Ok(0),
                Ok(0) => Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => Ok(count),
                Err(_) => Err(io::Error::from_raw_os_error(entry.result().saturating_abs())),
            });
        }
        Ok(())
    }
}

impl Drop for SendTrial {
    fn drop(&mut self) {
        // A peer that takes nothing would hold it for ever.
        let _ = nix::sys::socket::shutdown(self.socket.as_raw_fd(), nix::sys::socket::Shutdown::Both);
        while self.owed > 0 && self.wait().is_ok() {}
        if self.owed > 0 {
            std::mem::forget(std::mem::replace(&mut self.buffer, AlignedBuf::with_capacity(0)));
        }
    }
}

/// Whether io_uring of this kernel knows the operation `code`.
fn ring_offers(code: u8) -> io::Result<bool> {
    let uring: IoUring = IoUring::builder().dontfork().build(2)?;
    let mut probe = Probe::new();
    uring.submitter().register_probe(&mut probe)?;
    Ok(probe.is_supported(code))
}

/// Whether io_uring of this kernel hands commands through to a device, as NVMe passthrough needs (URING_CMD).
///
/// # Errors
/// When there is no io_uring.
pub fn offers_passthrough() -> io::Result<bool> {
    ring_offers(opcode::UringCmd16::CODE)
}

/// A buffer that holds bytes which no layer below can make smaller.
fn filled(bytes: usize) -> AlignedBuf {
    let mut prng = crate::base::Prng::new(7);
    let mut buffer = AlignedBuf::with_capacity(bytes);
    while buffer.len() < bytes {
        let word = prng.next_u64().to_le_bytes();
        buffer.extend_from_slice(word.get(..(bytes - buffer.len()).min(8)).unwrap_or_default());
    }
    buffer
}

fn range(bytes: &mut AlignedBuf) -> libc::iovec {
    let bytes = bytes.as_mut_slice();
    libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() }
}

fn index_of(entry: &cqueue::Entry) -> usize {
    usize::try_from(entry.user_data()).unwrap_or(usize::MAX)
}

fn whole(code: i32, wanted: u32) -> io::Result<()> {
    match u32::try_from(code) {
        Ok(got) if got == wanted => Ok(()),
        Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        Err(_) => Err(io::Error::from_raw_os_error(code.saturating_abs())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn trial(op: TrialOp, ways: TrialWays) -> io::Result<(Vec<u8>, u32)> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("file");
        std::fs::write(&path, vec![0; 8 * BLOCK])?;
        let file = std::fs::File::options().read(true).write(true).open(&path)?;
        let mut trial = FileTrial::open(file.into(), op, ways, 2, BLOCK, 8 * BLOCK as u64)?;
        let mut count = 0;
        trial.run(&mut |_| {
            count += 1;
            count < 20
        })?;
        drop(trial);
        Ok((std::fs::read(path)?, count))
    }

    #[test]
    fn writes_by_each_way_land_in_the_file_and_stay_in_their_room() {
        if let Err(error) = ring_offers(opcode::Write::CODE) {
            return eprintln!("skipped: no io_uring: {error}");
        }
        for (buffers, file, sqpoll) in [
            (false, false, false),
            (true, false, false),
            (false, true, false),
            (true, true, false),
            (true, true, true),
        ] {
            let ways = TrialWays { buffers, file, sqpoll, iopoll: false };
            let (bytes, count) = trial(TrialOp::WriteDurably, ways).unwrap();
            assert_eq!((bytes.len(), count), (8 * BLOCK, 20), "{ways:?}");
            let wanted = filled(BLOCK);
            assert!(bytes.chunks(BLOCK).all(|block| block == wanted.as_ref()), "{ways:?}");
            let (bytes, count) = trial(TrialOp::Read, ways).unwrap();
            assert_eq!((bytes, count), (vec![0; 8 * BLOCK], 20), "{ways:?}");
        }
    }

    #[test]
    fn what_the_kernel_refuses_is_an_error_and_a_read_beyond_the_end_is_one() {
        let file = || -> OwnedFd { tempfile::tempfile().unwrap().into() };
        let open = |depth, bytes, room| {
            FileTrial::open(file(), TrialOp::Read, TrialWays::default(), depth, bytes, room).map(drop)
        };
        assert!(
            open(0, BLOCK, 8192).is_err()
                && open(1, 100, 8192).is_err()
                && open(1, 8192, BLOCK as u64).is_err()
        );
        if ring_offers(opcode::Read::CODE).is_err() {
            return eprintln!("skipped: no io_uring");
        }
        let mut short = FileTrial::open(file(), TrialOp::Read, TrialWays::default(), 1, BLOCK, 8192).unwrap();
        assert_eq!(short.run(&mut |_| true).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_send_without_a_copy_arrives_whole_where_the_kernel_can() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        let mut trial = match SendTrial::open(socket.into(), 100_000) {
            Ok(trial) => trial,
            Err(error) => return eprintln!("skipped: {error}"),
        };
        let reader = std::thread::spawn(move || {
            let mut got = Vec::new();
            far.read_to_end(&mut got).map(|_| got)
        });
        for _ in 0..40 {
            trial.send().unwrap();
        }
        let (copied, told) = trial.copied();
        assert!(copied <= told && told <= 80, "{copied} of {told}");
        drop(trial);
        let got = reader.join().unwrap().unwrap();
        assert_eq!(got.len(), 4_000_000);
        assert!(got.chunks(100_000).all(|one| one == filled(100_000).as_ref()));
    }
}

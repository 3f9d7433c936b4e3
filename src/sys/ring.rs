//! An io_uring that owns what its operations use.
//!
//! Soundness rests on one rule: whatever an entry in the ring points to (buffers, ranges, addresses, descriptors)
//! belongs to a slot of the table here from before the entry is pushed until its completion was taken. Each entry
//! has exactly one completion (nothing here is multishot or zero-copy), and a slot in flight is never touched. A
//! ring that is dropped first cancels and waits; what the kernel does not give back in time is leaked.

use super::file::gather;
use super::{Goal, Parts, TRANSFER_MAX};
use crate::base::AlignedBuf;
use io_uring::{IoUring, Probe, opcode, squeue, types};
use nix::sys::socket::{SockaddrLike, SockaddrStorage};
use std::collections::VecDeque;
use std::io;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The completion of a cancellation; no slot has this number.
const CANCELLED: u64 = u64::MAX;
/// The completion of the test at the start; no slot has this number.
const NOTHING: u64 = u64::MAX - 1;
/// Attempts to find room in the submission queue before an operation fails.
const ROOM_TRIES: u32 = 1000;
/// How long a full kernel is left alone between two such attempts.
const ROOM_PAUSE: Duration = Duration::from_millis(1);
/// How long a dropped ring waits for the kernel to give its buffers back.
const DRAIN: Duration = Duration::from_secs(10);
/// The longest wait that the kernel is asked for (seconds); it takes no number that overflows when negated.
const LONGEST_S: u64 = 1 << 30;
/// Room for completions at least, whatever the room for submissions.
const COMPLETIONS_MIN: u32 = 4096;
/// poll(2): the other side sends no more; that it is gone is always told too.
const END_OF_STREAM: u32 = libc::POLLRDHUP.unsigned_abs() as u32;
/// io_uring_enter(2), in `ioprio` of a receive: wait until there is something before the first attempt.
const POLL_FIRST: u16 = 1;
/// io_uring_enter(2): wait for, or at least look for, completions.
const ENTER_GETEVENTS: u32 = 1;
/// io_uring_enter(2): the argument is an extended one, with a time limit.
const ENTER_EXT_ARG: u32 = 8;

/// A write to a file and how far it is.
#[derive(Debug)]
pub struct WriteTask<F> {
    /// Where to.
    pub file: Arc<F>,
    /// What is left of it.
    pub parts: Parts,
    /// Where the first byte of the whole goes.
    pub offset: u64,
    /// Bytes that are written already.
    pub done: usize,
    /// Bytes of the whole.
    pub len: usize,
}

impl<F> WriteTask<F> {
    /// A write that has not begun.
    #[must_use]
    pub fn new(file: Arc<F>, parts: Vec<bytes::Bytes>, offset: u64) -> Self {
        let parts = Parts::new(parts);
        let len = parts.left();
        Self { file, parts, offset, done: 0, len }
    }

    /// Where what is left goes.
    #[must_use]
    pub fn at(&self) -> u64 {
        self.offset.saturating_add(u64::try_from(self.done).unwrap_or(u64::MAX))
    }

    /// Notes that `done` bytes of the whole are written.
    ///
    /// # Panics
    /// If that is less than before, or more than the whole.
    pub fn reached(&mut self, done: usize) {
        self.parts.advance(done - self.done);
        self.done = done;
    }
}

/// One step that the kernel can do.
#[derive(Debug)]
pub enum Task<F> {
    /// Wait for one connection.
    Accept(Arc<OwnedFd>),
    /// Connect to an address.
    Connect(Arc<OwnedFd>, SocketAddr),
    /// Wait until the other side of a connected socket sends no more, or is gone.
    AwaitEnd(Arc<OwnedFd>),
    /// Receive once into the whole capacity; the content is dropped.
    Receive(Arc<OwnedFd>, Vec<u8>),
    /// Append to the content, not beyond the goal; all of it at once if the kernel can where nothing less is asked for.
    Fill(Arc<OwnedFd>, AlignedBuf, Goal),
    /// Read once from a file without offsets (an eventfd) into the whole capacity; the content is dropped.
    Read(Arc<OwnedFd>, Vec<u8>),
    /// Send some of what is left.
    Send(Arc<OwnedFd>, Parts),
    /// Write some of what is left; what was written is durable (RWF_DSYNC).
    WriteDurably(WriteTask<F>),
    /// Write some of what is left.
    Write(WriteTask<F>),
    /// Make what was written durable (fdatasync).
    Sync(WriteTask<F>),
}

/// A step's end.
#[derive(Debug)]
pub struct Finished<F> {
    /// From the start.
    pub token: u64,
    /// The step with all it owned. Buffers hold what was read.
    pub task: Task<F>,
    /// The new connection of a successful [`Task::Accept`].
    pub accepted: Option<OwnedFd>,
    /// Bytes moved, where bytes are moved.
    pub result: io::Result<usize>,
}

/// What sendmsg and connect point to besides the data. Kept per slot, so that it is allocated once.
struct Arguments {
    ranges: Vec<libc::iovec>,
    message: Option<Box<libc::msghdr>>,
    address: Option<Box<SockaddrStorage>>,
}

struct Slot<F> {
    token: u64,
    task: Option<Task<F>>,
    arguments: Arguments,
}

/// An io_uring with the table of its operations in flight. It stays on the thread that opened it.
pub struct Ring<F: AsFd> {
    uring: IoUring,
    slots: Vec<Slot<F>>,
    free: Vec<u32>,
    /// Completions taken from the queue early to make room.
    parked: VecDeque<(u64, i32)>,
    /// Whether a receive may ask to wait for data before it tries.
    polls_first: bool,
    /// Only the thread that made the ring may enter it (IORING_SETUP_SINGLE_ISSUER).
    stays: PhantomData<*const ()>,
}

impl<F: AsFd> Ring<F> {
    /// A ring with room for `entries` submissions between two enters, which has proved that it works.
    ///
    /// # Errors
    /// When the kernel forbids io_uring, lacks an operation, or does not complete a first one.
    pub fn open(entries: u32) -> io::Result<Self> {
        let (uring, polls_first) = set_up(entries)?;
        let params = uring.params();
        if !(params.is_feature_nodrop() && params.is_feature_ext_arg() && params.is_feature_submit_stable()) {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "io_uring of this kernel is too old"));
        }
        for (name, code) in operations() {
            if !supported(&uring, code)? {
                let text = format!("io_uring of this kernel lacks {name}");
                return Err(io::Error::new(io::ErrorKind::Unsupported, text));
            }
        }
        let mut ring = Self {
            uring,
            slots: Vec::new(),
            free: Vec::new(),
            parked: VecDeque::new(),
            polls_first,
            stays: PhantomData,
        };
        ring.try_nothing()?;
        Ok(ring)
    }

    /// Starts a step. The kernel hears of it at the next [`Self::enter`] or when the queue is full.
    ///
    /// # Panics
    /// When there are 2^32 steps in flight.
    pub fn start(&mut self, token: u64, task: Task<F>) {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                token,
                task: None,
                arguments: Arguments { ranges: Vec::new(), message: None, address: None },
            });
            u32::try_from(self.slots.len() - 1).expect("no 2^32 operations are in flight")
        });
        let slot = self.slots.get_mut(position(u64::from(index))).expect("a free slot exists");
        slot.token = token;
        let task = slot.task.insert(task);
        let entry = entry_of(task, &mut slot.arguments, self.polls_first);
        let entry = entry.user_data(u64::from(index));
        if let Err(error) = self.push(&entry) {
            self.parked.push_back((u64::from(index), -error.raw_os_error().unwrap_or(libc::EIO)));
        }
    }

    /// Submits what was started; if `wait` and nothing has finished yet, waits until something has or `timeout`
    /// is over. A signal also ends the wait.
    ///
    /// # Errors
    /// When the ring itself is broken.
    pub fn enter(&mut self, wait: bool, timeout: Option<Duration>) -> io::Result<()> {
        let (queued, work) = {
            let queue = self.uring.submission();
            (queue.len(), queue.taskrun() || queue.cq_overflow())
        };
        let ready = !self.parked.is_empty() || !self.uring.completion().is_empty();
        let wait = wait && !ready;
        if queued == 0 && !wait && !work {
            return Ok(());
        }
        match self.enter_kernel(queued, u32::from(wait), timeout) {
            Ok(()) => Ok(()),
            Err(error) => match error.raw_os_error() {
                Some(libc::ETIME | libc::EINTR) => Ok(()),
                // EBUSY: completions must be taken first. EAGAIN: no memory for requests just now.
                Some(libc::EBUSY | libc::EAGAIN) if ready => Ok(()),
                Some(libc::EBUSY | libc::EAGAIN) => self.pause(),
                _ => Err(error),
            },
        }
    }

    /// Takes the next step that has finished.
    ///
    /// # Panics
    /// When the kernel completes what was never started.
    pub fn finished(&mut self) -> Option<Finished<F>> {
        loop {
            let (data, code) = self.parked.pop_front().or_else(|| self.completion())?;
            if data == CANCELLED || data == NOTHING {
                continue;
            }
            let slot = self.slots.get_mut(position(data)).expect("the kernel completes what was started");
            let task = slot.task.take().expect("the kernel completes each step once");
            let token = slot.token;
            self.free.push(u32::try_from(data).expect("it is the number of a slot"));
            return Some(conclude(token, task, code));
        }
    }

    /// Asks the kernel to end all that is in flight on `fd`, at once: after this call the number may be reused.
    pub fn cancel(&mut self, fd: RawFd) {
        let wanted = types::CancelBuilder::fd(types::Fd(fd)).all();
        let entry = opcode::AsyncCancel2::new(wanted).build().user_data(CANCELLED);
        // Best effort on top of the shutdown: a kernel before 5.19 does not know it.
        if self.push(&entry).is_ok() {
            let _ = self.make_room();
        }
    }

    fn completion(&mut self) -> Option<(u64, i32)> {
        self.uring.completion().next().map(|entry| (entry.user_data(), entry.result()))
    }

    fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        for _ in 0..ROOM_TRIES {
            // SAFETY: whatever the entry points to is owned by the slot whose number it carries (a cancellation
            // points to nothing), and stays there, unmoved in memory, until `finished` takes that completion.
            if unsafe { self.uring.submission().push(entry) }.is_ok() {
                return Ok(());
            }
            self.make_room()?;
        }
        Err(io::Error::from_raw_os_error(libc::EAGAIN))
    }

    fn make_room(&mut self) -> io::Result<()> {
        let error = match self.uring.submit() {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        match error.raw_os_error() {
            Some(libc::EINTR) => Ok(()),
            Some(libc::EBUSY | libc::EAGAIN) => {
                while let Some(completion) = self.completion() {
                    self.parked.push_back(completion);
                }
                self.pause()
            }
            _ => Err(error),
        }
    }

    /// Lets the kernel finish something.
    fn pause(&mut self) -> io::Result<()> {
        match self.enter_kernel(0, 1, Some(ROOM_PAUSE)) {
            Err(error)
                if !matches!(
                    error.raw_os_error(),
                    Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN)
                ) =>
            {
                Err(error)
            }
            _ => Ok(()),
        }
    }

    fn enter_kernel(&mut self, queued: usize, want: u32, timeout: Option<Duration>) -> io::Result<()> {
        let limit = timeout
            .map(|time| types::Timespec::new().sec(time.as_secs().min(LONGEST_S)).nsec(time.subsec_nanos()));
        let mut arguments = types::SubmitArgs::new();
        if let Some(limit) = &limit {
            arguments = arguments.timespec(limit);
        }
        let queued = u32::try_from(queued).unwrap_or(u32::MAX);
        let flags = ENTER_GETEVENTS | ENTER_EXT_ARG;
        // SAFETY: io_uring_enter(2) with IORING_ENTER_EXT_ARG reads a struct io_uring_getevents_arg, which is what
        // the crate's `SubmitArgs` is (its own `submit_with_args` passes it so); it and the time it points to
        // outlive the call. That the submitted entries point to live memory was settled at their push.
        unsafe { self.uring.submitter().enter(queued, want, flags, Some(&arguments)) }.map(drop)
    }

    fn try_nothing(&mut self) -> io::Result<()> {
        self.push(&opcode::Nop::new().build().user_data(NOTHING))?;
        self.enter(true, Some(Duration::from_secs(1)))?;
        match self.completion() {
            Some((NOTHING, 0)) => Ok(()),
            Some((_, code)) => Err(io::Error::from_raw_os_error(code.saturating_abs())),
            None => Err(io::Error::new(io::ErrorKind::TimedOut, "io_uring completed nothing in a second")),
        }
    }
}

impl<F: AsFd> Drop for Ring<F> {
    fn drop(&mut self) {
        let deadline = Instant::now() + DRAIN;
        let mut in_flight: Vec<u64> = (0..).zip(&self.slots).filter_map(busy).collect();
        while let Some(index) = in_flight.pop() {
            let entry = opcode::AsyncCancel::new(index).build().user_data(CANCELLED);
            if self.push(&entry).is_err() {
                break;
            }
        }
        loop {
            while self.finished().is_some() {}
            let left = deadline.saturating_duration_since(Instant::now());
            if self.in_flight() == 0 || left.is_zero() || self.enter(true, Some(left)).is_err() {
                break;
            }
        }
        if self.in_flight() > 0 {
            // A device that answers nothing for this long may still write into these buffers one day; memory that
            // is never freed cannot be hit while it is something else.
            std::mem::forget(std::mem::take(&mut self.slots));
        }
    }
}

/// Whether io_uring can be had at all, and which of the operations that are needed this kernel lacks.
///
/// # Errors
/// What io_uring_setup(2) answered.
pub fn missing_operations() -> io::Result<Vec<&'static str>> {
    let (uring, _) = set_up(8)?;
    let mut missing = Vec::new();
    for (name, code) in operations() {
        if !supported(&uring, code)? {
            missing.push(name);
        }
    }
    Ok(missing)
}

fn operations() -> [(&'static str, u8); 11] {
    [
        ("ACCEPT", opcode::Accept::CODE),
        ("CONNECT", opcode::Connect::CODE),
        ("POLL_ADD", opcode::PollAdd::CODE),
        ("RECV", opcode::Recv::CODE),
        ("READ", opcode::Read::CODE),
        ("SEND", opcode::Send::CODE),
        ("SENDMSG", opcode::SendMsg::CODE),
        ("WRITE", opcode::Write::CODE),
        ("WRITEV", opcode::Writev::CODE),
        ("FSYNC", opcode::Fsync::CODE),
        ("ASYNC_CANCEL", opcode::AsyncCancel::CODE),
    ]
}

fn supported(uring: &IoUring, code: u8) -> io::Result<bool> {
    let mut probe = Probe::new();
    uring.submitter().register_probe(&mut probe)?;
    Ok(probe.is_supported(code))
}

/// Sets up a ring with the fastest way of running completions that the kernel has. Tells whether that is the newest of
/// them, of Linux 6.1: such a kernel knows [`POLL_FIRST`] too, which is of 5.19.
fn set_up(entries: u32) -> io::Result<(IoUring, bool)> {
    let completions = entries.saturating_mul(4).max(COMPLETIONS_MIN);
    let mut best = IoUring::builder();
    best.dontfork().setup_clamp().setup_cqsize(completions).setup_submit_all();
    best.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag();
    let mut good = IoUring::builder();
    good.dontfork().setup_clamp().setup_cqsize(completions).setup_submit_all();
    good.setup_coop_taskrun().setup_taskrun_flag();
    let mut plain = IoUring::builder();
    plain.dontfork().setup_clamp().setup_cqsize(completions);
    let mut last = Err(io::Error::from_raw_os_error(libc::EINVAL));
    for (builder, newest) in [(best, true), (good, false), (plain, false)] {
        last = builder.build(entries).map(|uring| (uring, newest));
        match &last {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            _ => return last,
        }
    }
    last
}

fn busy<F>((index, slot): (u64, &Slot<F>)) -> Option<u64> {
    slot.task.is_some().then_some(index)
}

fn position(data: u64) -> usize {
    usize::try_from(data).unwrap_or(usize::MAX)
}

fn length(len: usize) -> u32 {
    u32::try_from(len.min(TRANSFER_MAX)).unwrap_or(u32::MAX)
}

/// The entry for `task`, which may point into both arguments; both stay in the same slot. With `poll_first` a receive is
/// not tried before there is something: who asks has most often just taken all that was there, and an attempt in vain costs
/// more than a look.
fn entry_of<F: AsFd>(task: &mut Task<F>, arguments: &mut Arguments, poll_first: bool) -> squeue::Entry {
    match task {
        Task::Accept(socket) => {
            opcode::Accept::new(types::Fd(socket.as_raw_fd()), ptr::null_mut(), ptr::null_mut())
                .flags(libc::SOCK_CLOEXEC)
                .build()
        }
        Task::Connect(socket, address) => {
            let address = arguments.address.insert(Box::new(SockaddrStorage::from(*address)));
            opcode::Connect::new(types::Fd(socket.as_raw_fd()), address.as_ptr(), address.len()).build()
        }
        Task::AwaitEnd(socket) => opcode::PollAdd::new(types::Fd(socket.as_raw_fd()), END_OF_STREAM).build(),
        Task::Receive(socket, buffer) => {
            buffer.clear();
            let (start, len) = (buffer.as_mut_ptr(), length(buffer.capacity()));
            let priority = if poll_first { POLL_FIRST } else { 0 };
            opcode::Recv::new(types::Fd(socket.as_raw_fd()), start, len).ioprio(priority).build()
        }
        Task::Fill(socket, buffer, goal) => {
            let want = goal.most.saturating_sub(buffer.len()).min(buffer.spare());
            let flags = if goal.least == goal.most { libc::MSG_WAITALL } else { 0 };
            let start = buffer.as_vec_mut().spare_capacity_mut().as_mut_ptr().cast();
            opcode::Recv::new(types::Fd(socket.as_raw_fd()), start, length(want)).flags(flags).build()
        }
        Task::Read(file, buffer) => {
            buffer.clear();
            let (start, len) = (buffer.as_mut_ptr(), length(buffer.capacity()));
            opcode::Read::new(types::Fd(file.as_raw_fd()), start, len).offset(u64::MAX).build()
        }
        Task::Send(socket, parts) => send_entry(socket.as_raw_fd(), parts, arguments),
        Task::WriteDurably(write) => write_entry(write, arguments, libc::RWF_DSYNC),
        Task::Write(write) => write_entry(write, arguments, 0),
        Task::Sync(write) => opcode::Fsync::new(types::Fd(write.file.as_fd().as_raw_fd()))
            .flags(types::FsyncFlags::DATASYNC)
            .build(),
    }
}

fn write_entry<F: AsFd>(write: &WriteTask<F>, arguments: &mut Arguments, flags: i32) -> squeue::Entry {
    let file = types::Fd(write.file.as_fd().as_raw_fd());
    let mut left = write.parts.remaining();
    let first = left.next().unwrap_or_default();
    if left.next().is_none() {
        return opcode::Write::new(file, first.as_ptr(), length(first.len()))
            .offset(write.at())
            .rw_flags(flags)
            .build();
    }
    let ranges = &mut arguments.ranges;
    gather(&write.parts, ranges);
    let count = u32::try_from(ranges.len()).unwrap_or_default();
    opcode::Writev::new(file, ranges.as_ptr(), count).offset(write.at()).rw_flags(flags).build()
}

/// MSG_WAITALL lets the kernel itself go on after a short send; kernels that do not know it ignore it, and then
/// the caller goes on.
fn send_entry(socket: RawFd, parts: &Parts, arguments: &mut Arguments) -> squeue::Entry {
    let flags = libc::MSG_NOSIGNAL | libc::MSG_WAITALL;
    let mut left = parts.remaining();
    let first = left.next().unwrap_or_default();
    if left.next().is_none() {
        return opcode::Send::new(types::Fd(socket), first.as_ptr(), length(first.len()))
            .flags(flags)
            .build();
    }
    let ranges = &mut arguments.ranges;
    gather(parts, ranges);
    let message = arguments.message.get_or_insert_with(|| Box::new(no_message()));
    message.msg_iov = ranges.as_mut_ptr();
    message.msg_iovlen = ranges.len();
    let flags = u32::try_from(flags).unwrap_or_default();
    opcode::SendMsg::new(types::Fd(socket), &raw const **message).flags(flags).build()
}

fn no_message() -> libc::msghdr {
    // SAFETY: sendmsg(2): all fields are numbers and pointers that may be null; zero is "no name, no ranges, no
    // control data". The struct has padding with private names, so it cannot be written out.
    unsafe { std::mem::zeroed() }
}

/// Turns the kernel's answer to `task` into its end.
fn conclude<F>(token: u64, mut task: Task<F>, code: i32) -> Finished<F> {
    let mut accepted = None;
    let result = match usize::try_from(code) {
        Err(_) => Err(io::Error::from_raw_os_error(code.saturating_abs())),
        Ok(count) => match &mut task {
            Task::Accept(_) => {
                // SAFETY: io_uring_enter(2): the result of IORING_OP_ACCEPT is that of accept4(2), a new descriptor
                // that nobody else knows, and each completion is taken once.
                accepted = Some(unsafe { OwnedFd::from_raw_fd(code) });
                Ok(0)
            }
            Task::Receive(_, buffer) | Task::Read(_, buffer) => {
                assert!(count <= buffer.capacity(), "the kernel keeps within the buffer");
                // SAFETY: recv(2), read(2): the result is the number of bytes that were written from the start of
                // the buffer, and it lies within the capacity.
                unsafe { buffer.set_len(count) };
                Ok(count)
            }
            Task::Fill(_, buffer, goal) => {
                assert!(buffer.len() + count <= goal.most, "the kernel keeps within what was asked for");
                let bytes = buffer.as_vec_mut();
                let filled = bytes.len() + count;
                assert!(filled <= bytes.capacity(), "the kernel keeps within the buffer");
                // SAFETY: recv(2): the result is the number of bytes that were written from the first free byte of
                // the buffer on, and it lies within the capacity.
                unsafe { bytes.set_len(filled) };
                Ok(count)
            }
            _ => Ok(count),
        },
    };
    Finished { token, task, accepted, result }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    /// A submission entry, as io_uring_enter(2) lays it out.
    #[repr(C)]
    struct Asked {
        opcode: u8,
        flags: u8,
        priority: u16,
        before: [u8; 24],
        op_flags: u32,
        behind: [u8; 32],
    }

    fn entry(mut task: Task<std::fs::File>, poll_first: bool) -> Asked {
        let mut arguments = Arguments { ranges: Vec::new(), message: None, address: None };
        let entry = entry_of(&mut task, &mut arguments, poll_first);
        // SAFETY: both are 64 bytes of numbers, and any numbers will do.
        unsafe { std::mem::transmute(entry) }
    }

    /// Operation code and flags of what the kernel is asked for.
    fn asked(task: Task<std::fs::File>) -> (u8, u32) {
        let entry = entry(task, true);
        (entry.opcode, entry.op_flags)
    }

    fn write(parts: usize) -> WriteTask<std::fs::File> {
        let file = Arc::new(tempfile::tempfile().unwrap());
        WriteTask::new(file, vec![Bytes::from_static(b"content"); parts], 0)
    }

    #[test]
    fn a_durable_write_by_the_ring_asks_the_kernel_for_that_and_a_sync_is_one() {
        // IORING_OP_WRITEV 2, IORING_OP_FSYNC 3, IORING_OP_WRITE 23; IORING_FSYNC_DATASYNC 1.
        let durably = u32::try_from(libc::RWF_DSYNC).unwrap();
        assert_eq!(asked(Task::WriteDurably(write(1))), (23, durably));
        assert_eq!(asked(Task::WriteDurably(write(3))), (2, durably));
        assert_eq!(asked(Task::Write(write(1))), (23, 0));
        assert_eq!(asked(Task::Sync(write(1))), (3, 1));
    }

    #[test]
    fn a_receive_waits_for_data_before_it_tries_where_the_kernel_can() {
        let receive = || {
            let (ours, _) = std::os::unix::net::UnixStream::pair().unwrap();
            Task::Receive(Arc::new(ours.into()), Vec::with_capacity(8))
        };
        // IORING_OP_RECV 27, IORING_RECVSEND_POLL_FIRST 1.
        for (newest, priority) in [(true, 1), (false, 0)] {
            let entry = entry(receive(), newest);
            assert_eq!((entry.opcode, entry.priority), (27, priority));
        }
    }
}

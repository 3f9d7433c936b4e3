//! One suite for both drivers: what the face promises, tried against real sockets and files.
//!
//! The io_uring half counts as skipped only where the kernel forbids io_uring.

use super::*;
use crate::base::{AlignedBuf, Prng, crc32c};
use std::collections::{HashMap, HashSet};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

mod disk;
mod net;

/// So few that the submission queue is full all the time.
const ENTRIES: u32 = 8;
/// Nothing here takes nearly this long.
const PATIENCE: Duration = Duration::from_secs(60);

macro_rules! on_both_drivers {
    ($($name:ident),* $(,)?) => {
        mod on_uring {
            $(#[test] fn $name() { super::super::run(super::super::IoChoice::Uring, super::$name); })*
        }
        mod on_epoll {
            $(#[test] fn $name() { super::super::run(super::super::IoChoice::Epoll, super::$name); })*
        }
    };
}
use on_both_drivers;

/// A driver whose completions can be waited for one by one.
struct Rig {
    driver: Box<dyn Driver>,
    next: u64,
    done: HashMap<Token, Outcome>,
    /// All that have ever completed.
    completed: HashSet<Token>,
}

fn run(kind: IoChoice, test: fn(&mut Rig)) {
    let driver = match open(kind, ENTRIES) {
        Ok(driver) => driver,
        Err(error) if matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES | libc::ENOSYS)) => {
            println!("skipped: this kernel forbids io_uring: {error}");
            return;
        }
        Err(error) => panic!("opening the driver: {error}"),
    };
    let expected = if kind == IoChoice::Uring { DriverKind::Uring } else { DriverKind::Epoll };
    assert_eq!(driver.kind(), expected);
    let mut rig = Rig { driver, next: 0, done: HashMap::new(), completed: HashSet::new() };
    test(&mut rig);
    // What completes a second time may do so late.
    rig.flush();
    rig.flush();
}

impl Rig {
    fn start(&mut self, op: Op) -> Token {
        // From the top, where a driver may be tempted to keep numbers for itself.
        let token = Token(u64::MAX - self.next);
        self.next += 1;
        self.driver.submit(token, op);
        token
    }

    fn wait(&mut self, timeout: Duration) -> usize {
        let mut out = Vec::new();
        self.driver.wait(Some(timeout), &mut out).expect("the driver works");
        let count = out.len();
        for completion in out {
            assert!(self.completed.insert(completion.token), "each operation completes once");
            self.done.insert(completion.token, completion.outcome);
        }
        count
    }

    fn until(&mut self, token: Token) -> Outcome {
        let start = Instant::now();
        loop {
            if let Some(outcome) = self.done.remove(&token) {
                return outcome;
            }
            assert!(start.elapsed() < PATIENCE, "an operation does not complete");
            self.wait(PATIENCE);
        }
    }

    /// Which of these has completed, as soon as one has.
    fn first_of(&mut self, tokens: &[Token]) -> usize {
        let start = Instant::now();
        loop {
            if let Some(at) = tokens.iter().position(|token| self.done.contains_key(token)) {
                return at;
            }
            assert!(start.elapsed() < PATIENCE, "none of {} operations completes", tokens.len());
            self.wait(PATIENCE);
        }
    }

    /// Has everything so far reach the kernel, without waiting.
    fn flush(&mut self) {
        self.wait(Duration::ZERO);
    }

    fn received(&mut self, token: Token) -> std::io::Result<Vec<u8>> {
        match self.until(token) {
            Outcome::Received(result) => result,
            other => panic!("a receive ended as {other:?}"),
        }
    }

    fn filled(&mut self, token: Token) -> std::io::Result<AlignedBuf> {
        match self.until(token) {
            Outcome::Filled(result) => result,
            other => panic!("a fill ended as {other:?}"),
        }
    }

    fn sent(&mut self, token: Token) -> std::io::Result<()> {
        match self.until(token) {
            Outcome::Sent(result) => result,
            other => panic!("a send ended as {other:?}"),
        }
    }

    fn written(&mut self, token: Token) -> std::io::Result<()> {
        match self.until(token) {
            Outcome::Written(result) => result,
            other => panic!("a write ended as {other:?}"),
        }
    }

    fn ended(&mut self, token: Token) {
        match self.until(token) {
            Outcome::Ended => {}
            other => panic!("a wait for the end ended as {other:?}"),
        }
    }

    fn accepted(&mut self, token: Token) -> std::io::Result<OwnedFd> {
        match self.until(token) {
            Outcome::Accepted(result) => result,
            other => panic!("an accept ended as {other:?}"),
        }
    }

    fn connected(&mut self, token: Token) -> std::io::Result<()> {
        match self.until(token) {
            Outcome::Connected(result) => result,
            other => panic!("a connect ended as {other:?}"),
        }
    }

    /// Receives exactly `len` bytes in pieces of `piece`.
    fn receive_all(&mut self, socket: &Arc<OwnedFd>, len: usize, piece: usize) -> Vec<u8> {
        let mut all = Vec::with_capacity(len);
        let mut buffer = Vec::with_capacity(piece);
        while all.len() < len {
            let token = self.start(Op::Receive(Arc::clone(socket), buffer));
            buffer = self.received(token).expect("the peer sends");
            assert!(!buffer.is_empty(), "the peer has not closed");
            all.extend_from_slice(&buffer);
        }
        all
    }
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut prng = Prng::new(seed);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend_from_slice(&prng.next_u64().to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

fn shared(socket: impl Into<OwnedFd>) -> Arc<OwnedFd> {
    Arc::new(socket.into())
}

fn unix_pair() -> (Arc<OwnedFd>, UnixStream) {
    let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
    (shared(ours), theirs)
}

fn tcp_pair() -> (Arc<OwnedFd>, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
    let ours = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
    let (theirs, _) = listener.accept().expect("it was connected");
    (shared(ours), theirs)
}

/// An unconnected TCP socket.
fn tcp_socket() -> Arc<OwnedFd> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    let flags = SockFlag::SOCK_CLOEXEC;
    shared(socket(AddressFamily::Inet, SockType::Stream, flags, None).expect("a socket"))
}

mod base {
    use super::*;

    on_both_drivers! {
        a_wake_from_another_thread_ends_an_unbounded_wait,
        a_wake_before_the_wait_is_not_lost,
        wakes_from_many_threads_each_end_in_a_return,
        a_timeout_is_honoured_and_not_shortened,
        a_zero_timeout_does_not_wait,
        a_huge_timeout_is_no_error,
        what_needs_no_kernel_completes_too,
        a_dropped_driver_gives_back_at_once_what_only_waits,
    }

    fn a_wake_from_another_thread_ends_an_unbounded_wait(rig: &mut Rig) {
        let waker = rig.driver.waker();
        let (started, begun) = mpsc::channel();
        let thread = thread::spawn(move || {
            begun.recv().expect("the test runs");
            waker.wake();
        });
        started.send(()).expect("the thread lives");
        let mut out = Vec::new();
        rig.driver.wait(None, &mut out).expect("the driver works");
        assert!(out.is_empty());
        thread.join().expect("the thread ends");
    }

    fn a_wake_before_the_wait_is_not_lost(rig: &mut Rig) {
        for _ in 0..100 {
            rig.driver.waker().wake();
            rig.driver.waker().wake();
            rig.driver.wait(None, &mut Vec::new()).expect("the driver works");
        }
        // And two wakes are one: nothing is left over.
        let start = Instant::now();
        rig.wait(Duration::from_millis(30));
        assert!(start.elapsed() >= Duration::from_millis(30));
    }

    fn wakes_from_many_threads_each_end_in_a_return(rig: &mut Rig) {
        let (sender, receiver) = mpsc::channel();
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let (waker, sender) = (rig.driver.waker(), sender.clone());
                thread::spawn(move || {
                    for n in 0..1000_u32 {
                        sender.send(n).expect("the test runs");
                        waker.wake();
                    }
                })
            })
            .collect();
        let mut seen = 0;
        while seen < 4000 {
            // If a wake were lost, this would wait for ever with messages in the channel.
            rig.driver.wait(None, &mut Vec::new()).expect("the driver works");
            seen += receiver.try_iter().count();
        }
        for thread in threads {
            thread.join().expect("the threads end");
        }
    }

    fn a_timeout_is_honoured_and_not_shortened(rig: &mut Rig) {
        let (socket, _peer) = unix_pair();
        let token = rig.start(Op::Receive(socket, Vec::with_capacity(10)));
        for wanted in [Duration::from_micros(300), Duration::from_millis(20), Duration::from_millis(150)] {
            let start = Instant::now();
            assert_eq!(rig.wait(wanted), 0);
            let took = start.elapsed();
            assert!(took >= wanted, "{took:?} instead of {wanted:?}");
            assert!(took < wanted + Duration::from_secs(10), "{took:?} instead of {wanted:?}");
        }
        assert!(!rig.done.contains_key(&token));
    }

    fn a_zero_timeout_does_not_wait(rig: &mut Rig) {
        let (socket, mut peer) = unix_pair();
        let token = rig.start(Op::Receive(socket, Vec::with_capacity(10)));
        for _ in 0..1000 {
            assert_eq!(rig.wait(Duration::ZERO), 0);
        }
        peer.write_all(b"now").expect("connected");
        while rig.wait(Duration::ZERO) == 0 {
            thread::yield_now();
        }
        assert_eq!(rig.received(token).expect("received"), b"now");
    }

    fn a_huge_timeout_is_no_error(rig: &mut Rig) {
        let (socket, mut peer) = unix_pair();
        peer.write_all(b"x").expect("connected");
        let token = rig.start(Op::Receive(socket, Vec::with_capacity(1)));
        assert_eq!(rig.wait(Duration::MAX), 1);
        assert_eq!(rig.received(token).expect("received"), b"x");
    }

    fn what_needs_no_kernel_completes_too(rig: &mut Rig) {
        let (socket, _peer) = unix_pair();
        let nothing = rig.start(Op::Send(Arc::clone(&socket), vec![Bytes::new(), Bytes::new()]));
        let nowhere = rig.start(Op::Receive(socket, Vec::new()));
        assert_eq!(rig.wait(PATIENCE), 2);
        rig.sent(nothing).expect("nothing is sent at once");
        assert_eq!(rig.received(nowhere).expect_err("no room").kind(), ErrorKind::InvalidInput);
    }

    fn a_dropped_driver_gives_back_at_once_what_only_waits(rig: &mut Rig) {
        let kind = rig.driver.kind();
        let (socket, mut peer) = unix_pair();
        let listener = shared(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback"));
        for _ in 0..50 {
            rig.start(Op::Receive(Arc::clone(&socket), Vec::with_capacity(4096)));
            rig.start(Op::Accept(Arc::clone(&listener)));
        }
        rig.start(Op::Send(Arc::clone(&socket), vec![Bytes::from(vec![0; 16 << 20])]));
        rig.flush();
        rig.start(Op::Receive(Arc::clone(&socket), Vec::with_capacity(4096)));
        let start = Instant::now();
        let other = if kind == DriverKind::Uring { IoChoice::Epoll } else { IoChoice::Auto };
        rig.driver = open(other, ENTRIES).expect("another driver");
        assert!(start.elapsed() < Duration::from_secs(5), "nothing here keeps the kernel busy");
        assert_eq!(Arc::strong_count(&socket), 1, "the operations are gone");
        assert_eq!(Arc::strong_count(&listener), 1, "the operations are gone");
        // Nobody takes this any more.
        peer.write_all(b"late").expect("connected");
        let token = rig.start(Op::Receive(socket, Vec::with_capacity(10)));
        assert_eq!(rig.received(token).expect("received"), b"late");
    }
}

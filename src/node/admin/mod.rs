//! The admin socket: how the command line reaches the daemon. One JSON [`AdminRequest`](crate::engine::admin::AdminRequest)
//! a line in, one JSON [`AdminReply`](crate::engine::admin::AdminReply) a line out.
//!
//! Who may ask: the user that the daemon runs as, and root. The directory is private, the socket has mode 0600, and
//! the kernel's word on the caller is asked besides. With `admin_group` there is a second socket, of mode 0660, by which
//! members of that group may look: see [`May`].
//!
//! Nothing here decides anything about the node; requests go to a handler and its answers come back. Types become JSON
//! and JSON becomes types in one place, `codec`.
//!
//! # Example
//!
//! [`call`] asks the node of a directory; [`serve()`](crate::node::serve::serve) has a node that is asked like this. Any other
//! program writes the line itself. Here something else answers, to show what goes over the socket:
//!
//! ```
//! use hot_backup::engine::admin::{AdminReply, AdminRequest};
//! use hot_backup::node::admin::call;
//! use std::io::{BufRead, BufReader, Write};
//! use std::os::unix::net::UnixListener;
//! use std::time::Duration;
//!
//! let dir = tempfile::tempdir()?;
//! let socket = UnixListener::bind(dir.path().join("admin.sock"))?;
//! let node = std::thread::spawn(move || {
//!     let (mut stream, _) = socket.accept()?;
//!     let mut line = String::new();
//!     BufReader::new(stream.try_clone()?).read_line(&mut line)?;
//!     stream.write_all(b"{\"answer\":\"no\",\"message\":\"this node serves already\",\"next\":\"\"}\n")?;
//!     Ok::<_, std::io::Error>(line)
//! });
//! let reply = call(dir.path(), &AdminRequest::StartAlone, Duration::from_secs(60))?;
//! assert_eq!(node.join().expect("it answers")?, "{\"verb\":\"start-alone\"}\n");
//! assert!(matches!(reply, AdminReply::No { message, .. } if message == "this node serves already"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod client;
mod codec;
#[cfg(test)]
mod golden_tests;
mod rights;
mod server;
#[cfg(test)]
mod tests;

pub use client::{AdminCallError, call, call_for_stream};
pub use codec::fuzz_admin;
pub use rights::{May, refusal};
pub use server::{AdminServer, Answer, Ucred, spawn, spawn_for_group};

use crate::io::Own;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, setsockopt, socket, sockopt,
};
use nix::sys::stat::{Mode, fchmod};
use nix::sys::time::TimeVal;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Longest request (bytes, without the line's end).
pub const REQUEST_MAX: usize = 1 << 20;
/// Longest reply that the command line takes (bytes).
pub const REPLY_MAX: usize = 64 << 20;
/// Connections at once.
pub const CONNECTIONS_MAX: usize = 32;

/// Makes a Unix socket with mode 0600 in `dir` and listens on it; a socket that an earlier process left there is
/// removed. To be called by the holder of the directory's lock only. The path may be longer than a socket address.
///
/// # Errors
/// Those of the system calls; `AlreadyExists` if something else has that name.
pub fn bind_in_dir(dir: &Path, name: &str) -> io::Result<UnixListener> {
    socket_file(dir, name).remove_socket()?;
    let fd = new_socket()?;
    // The file takes its mode from the socket, so that it is never open to others, not even for a moment.
    fchmod(&fd, Mode::S_IRUSR | Mode::S_IWUSR)?;
    let opened = File::open(dir)?;
    bind(fd.as_raw_fd(), &address(&opened, dir, name)?)?;
    listen(&fd, Backlog::new(128)?)?;
    Ok(UnixListener::from(fd))
}

/// The directory and the name of a socket somewhere else.
fn place_of(path: &Path) -> io::Result<(&Path, &str)> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    let name = path.file_name().and_then(|name| name.to_str());
    dir.zip(name).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "it is no path of a file"))
}

/// The file of a socket of the node's own.
fn socket_file(dir: &Path, name: &str) -> Own {
    Own::new(dir, name)
}

/// Connects to a Unix socket in `dir`, whose path may be longer than a socket address.
///
/// # Errors
/// Those of the system calls.
pub fn connect_in_dir(dir: &Path, name: &str, timeout: Duration) -> io::Result<UnixStream> {
    let opened = File::open(dir)?;
    let fd = new_socket()?;
    // A full queue of a daemon that does not accept must not hold us for ever.
    setsockopt(&fd, sockopt::SendTimeout, &time_val(timeout))?;
    connect(fd.as_raw_fd(), &address(&opened, dir, name)?)?;
    Ok(UnixStream::from(fd))
}

fn new_socket() -> io::Result<OwnedFd> {
    Ok(socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?)
}

/// Socket addresses hold 108 bytes; an open directory has a short name in /proc however long its path is.
fn address(opened: &File, dir: &Path, name: &str) -> io::Result<UnixAddr> {
    if let Ok(address) = UnixAddr::new(&dir.join(name)) {
        return Ok(address);
    }
    let short: PathBuf = format!("/proc/self/fd/{}/{name}", opened.as_raw_fd()).into();
    Ok(UnixAddr::new(&short)?)
}

fn time_val(time: Duration) -> TimeVal {
    let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    // Zero would mean without bound.
    let micros = i64::from(time.subsec_micros()).max(i64::from(seconds == 0));
    TimeVal::new(seconds, micros)
}

/// What a [`LineReader`] found.
#[derive(Debug, PartialEq, Eq)]
enum Line {
    /// A line, without its end.
    Whole(Vec<u8>),
    /// The stream ended before a line did.
    End,
    /// More than the limit and no end of line.
    TooLong,
    /// No whole line within the time.
    Late,
}

/// Reads lines of bounded length within bounded time, whatever the other side does.
struct LineReader {
    stream: UnixStream,
    limit: usize,
    pending: Vec<u8>,
    /// Of `pending`: what is known to hold no end of line.
    searched: usize,
}

impl LineReader {
    fn new(stream: UnixStream, limit: usize) -> Self {
        Self { stream, limit, pending: Vec::new(), searched: 0 }
    }

    fn line(&mut self, time: Duration) -> io::Result<Line> {
        let deadline = Instant::now() + time;
        loop {
            let fresh = self.pending.get(self.searched..).unwrap_or_default();
            if let Some(at) = fresh.iter().position(|&byte| byte == b'\n') {
                let rest = self.pending.split_off(self.searched + at + 1);
                let mut line = std::mem::replace(&mut self.pending, rest);
                line.pop();
                self.searched = 0;
                return Ok(if line.len() > self.limit { Line::TooLong } else { Line::Whole(line) });
            }
            self.searched = self.pending.len();
            if self.pending.len() > self.limit {
                return Ok(Line::TooLong);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Line::Late);
            }
            self.stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            let mut chunk = [0; 8192];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Ok(Line::End),
                Ok(n) => self.pending.extend_from_slice(chunk.get(..n).unwrap_or_default()),
                Err(error) if is_late(&error) => return Ok(Line::Late),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Writes all of `bytes` within `time`, however slowly the other side reads.
pub(super) fn write_within(mut stream: &UnixStream, mut bytes: &[u8], time: Duration) -> io::Result<()> {
    let deadline = Instant::now() + time;
    while !bytes.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_write_timeout(Some(left.max(Duration::from_millis(1))))?;
        match io::Write::write(&mut stream, bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
            Err(error) if is_late(&error) => return Err(io::ErrorKind::TimedOut.into()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn is_late(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

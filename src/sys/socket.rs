//! Socket calls that never block, for the driver that waits with epoll.

use super::{Parts, TRANSFER_MAX};
use crate::base::AlignedBuf;
use nix::sys::socket::{MsgFlags, SockFlag, accept4, sendmsg};
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Ranges handed to one call; a stream with more is continued.
const SLICES: usize = 64;
/// Room for the groups of a process at first; the kernel tells if there are more.
const GROUPS_FIRST: usize = 32;

/// Takes one connection off a listening socket that is in non-blocking mode. The connection is in blocking mode
/// and closed on exec.
///
/// # Errors
/// Those of accept4(2); `WouldBlock` when nobody waits.
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let fd = accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC)?;
    // SAFETY: accept4(2) returned it just now as "a file descriptor for the accepted socket": it is open, and
    // nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Receives once into the whole capacity of `buffer`, whose content is dropped, and sets its length.
///
/// # Errors
/// Those of recv(2); `WouldBlock` when nothing is there. The buffer is empty then.
///
/// # Panics
/// Never: the kernel does not receive more than it was given room for.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut Vec<u8>) -> io::Result<usize> {
    buffer.clear();
    append(socket, buffer, usize::MAX)
}

/// How much a buffer is to hold before whoever asked for it is told (bytes).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Goal {
    /// Not less.
    pub least: usize,
    /// Not more.
    pub most: usize,
}

impl Goal {
    /// So much and no less.
    #[must_use]
    pub fn all(len: usize) -> Self {
        Self { least: len, most: len }
    }
}

/// Receives once, after what is in `buffer` and not beyond `until` bytes of it nor its capacity.
///
/// # Errors
/// Those of recv(2); `WouldBlock` when nothing is there. The buffer is as before then.
///
/// # Panics
/// Never: the kernel does not receive more than it was given room for.
pub fn fill(socket: BorrowedFd<'_>, buffer: &mut AlignedBuf, until: usize) -> io::Result<usize> {
    let want = until.saturating_sub(buffer.len());
    append(socket, buffer.as_vec_mut(), want)
}

fn append(socket: BorrowedFd<'_>, buffer: &mut Vec<u8>, most: usize) -> io::Result<usize> {
    let room = buffer.spare_capacity_mut();
    let len = room.len().min(most).min(TRANSFER_MAX);
    // SAFETY: recv(2) writes at most `len` bytes at the pointer, and `room` is that long and borrowed mutably
    // here. The bytes need not be initialised, they are only written.
    let got = unsafe { libc::recv(socket.as_raw_fd(), room.as_mut_ptr().cast(), len, libc::MSG_DONTWAIT) };
    let got = usize::try_from(got).map_err(|_| io::Error::last_os_error())?;
    assert!(got <= len, "the kernel keeps within the buffer");
    let filled = buffer.len() + got;
    // SAFETY: `got` is at most the free capacity, and recv(2) "returns the number of bytes received", which it wrote.
    unsafe { buffer.set_len(filled) };
    Ok(got)
}

/// The supplementary groups of the process at the other end of a connected Unix socket, as they were when it connected.
///
/// # Errors
/// Those of getsockopt(2); before Linux 4.13 `ENOPROTOOPT`.
pub fn peer_groups(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut groups = vec![0_u32; GROUPS_FIRST];
    loop {
        let room = groups.len() * size_of::<u32>();
        let mut len = libc::socklen_t::try_from(room).map_err(|_| io::ErrorKind::InvalidData)?;
        // SAFETY: unix(7), getsockopt(2): at most `len` bytes are written at the pointer, which is that of a vector of as
        // many, and `len` is set to how many there are; any bytes are numbers.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut len,
            )
        };
        let count = usize::try_from(len).unwrap_or_default() / size_of::<u32>();
        if result == 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::ERANGE) || count <= groups.len() {
            return Err(error);
        }
        groups.resize(count, 0);
    }
}

/// Sends as much as the socket takes now of what is left of `parts`, and returns how much that was.
///
/// # Errors
/// Those of sendmsg(2); `WouldBlock` when the socket takes nothing now. No SIGPIPE is raised.
pub fn send(socket: BorrowedFd<'_>, parts: &Parts) -> io::Result<usize> {
    let mut slices = [IoSlice::new(&[]); SLICES];
    let mut count = 0;
    let mut bytes = 0_usize;
    for (slice, part) in slices.iter_mut().zip(parts.remaining()) {
        let part = part.get(..TRANSFER_MAX - bytes).unwrap_or(part);
        *slice = IoSlice::new(part);
        count += 1;
        bytes += part.len();
        if bytes == TRANSFER_MAX {
            break;
        }
    }
    let slices = slices.get(..count).unwrap_or_default();
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    Ok(sendmsg::<()>(socket.as_raw_fd(), slices, &[], flags, None)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixStream;

    #[test]
    fn the_groups_of_the_other_end_are_those_of_its_process() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let mut told = peer_groups(ours.as_fd()).unwrap();
        let own = std::fs::read_to_string("/proc/self/status").unwrap();
        let own = own.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap();
        let mut own: Vec<u32> = own.split_whitespace().map(|group| group.parse().unwrap()).collect();
        told.sort_unstable();
        own.sort_unstable();
        assert_eq!(told, own);
    }
}

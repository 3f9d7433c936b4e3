//! One connection, blocking, whose both sides have proved their keys: frames in, frames out.

use super::error::WireError;
use crate::base::limits::{PEER_ADDRESSES_MAX, SOCKET_GONE_MS, SOCKET_PROVE_MS, SOCKET_SILENT_MS};
use crate::format::socket::{SOCKET_HEAD, SocketFrame};
use crate::node::peer_address::PeerAddress;
use crate::node::tls::{LinkIdentity, SecureLink};
use bytes::BytesMut;
use nix::sys::socket::{setsockopt, sockopt};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

/// One read of the socket (bytes).
const STEP: usize = 64 << 10;
/// After a goodbye it is waited so long for the other side's.
const GOODBYE: Duration = Duration::from_secs(5);

/// A connection.
pub(super) struct Wire {
    socket: TcpStream,
    link: SecureLink,
    plain: BytesMut,
    buffer: Vec<u8>,
}

impl Wire {
    /// Connects, and proves keys.
    pub(super) fn dial(to: &PeerAddress, keys: &LinkIdentity) -> Result<Self, WireError> {
        let mut last = io::Error::from(ErrorKind::NotFound);
        for address in to.look_up()?.into_iter().take(PEER_ADDRESSES_MAX) {
            match TcpStream::connect_timeout(&address, Duration::from_millis(SOCKET_PROVE_MS)) {
                Ok(socket) => return Self::over(socket, SecureLink::dial(keys)?),
                Err(error) => last = error,
            }
        }
        Err(last.into())
    }

    /// Lets one in that proves its key.
    pub(super) fn accept(socket: TcpStream, keys: &LinkIdentity) -> Result<Self, WireError> {
        Self::over(socket, SecureLink::accept(keys)?)
    }

    fn over(socket: TcpStream, link: SecureLink) -> Result<Self, WireError> {
        socket.set_nodelay(true)?;
        socket.set_write_timeout(Some(Duration::from_millis(SOCKET_SILENT_MS)))?;
        notices_death(&socket)?;
        let mut this = Self { socket, link, plain: BytesMut::new(), buffer: vec![0; STEP] };
        this.send_wire()?;
        let until = Instant::now() + Duration::from_millis(SOCKET_PROVE_MS);
        while !this.link.is_established() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || !this.read(left)? {
                return Err(WireError::Silent(Duration::from_millis(SOCKET_PROVE_MS)));
            }
        }
        Ok(this)
    }

    /// Sends a frame.
    pub(super) fn send(&mut self, frame: &SocketFrame) -> Result<(), WireError> {
        self.link.send_plain(&[frame.encode()])?;
        self.send_wire()
    }

    fn send_wire(&mut self) -> Result<(), WireError> {
        for part in self.link.take_wire() {
            self.socket.write_all(&part)?;
        }
        Ok(())
    }

    /// The next frame, if it comes within this time; a time of zero waits for nothing.
    pub(super) fn receive(&mut self, wait: Duration) -> Result<Option<SocketFrame>, WireError> {
        let until = Instant::now() + wait;
        loop {
            if let Some(frame) = self.parsed()? {
                return Ok(Some(frame));
            }
            if self.link.peer_closed() {
                return Err(WireError::Ended);
            }
            let left = until.saturating_duration_since(Instant::now());
            if !self.read(left)? && (left.is_zero() || Instant::now() >= until) {
                return Ok(None);
            }
        }
    }

    /// The frame that came whole.
    fn parsed(&mut self) -> Result<Option<SocketFrame>, WireError> {
        let Some(head) = self.plain.first_chunk::<SOCKET_HEAD>() else { return Ok(None) };
        let len = SocketFrame::len_of(head)?;
        if self.plain.len() < len {
            return Ok(None);
        }
        Ok(Some(SocketFrame::decode(&self.plain.split_to(len).freeze())?))
    }

    /// Takes what has come; false if nothing did within this time.
    fn read(&mut self, wait: Duration) -> Result<bool, WireError> {
        let waits = !wait.is_zero();
        if waits {
            self.socket.set_read_timeout(Some(wait.max(Duration::from_millis(1))))?;
        }
        self.socket.set_nonblocking(!waits)?;
        let read = self.socket.read(&mut self.buffer);
        self.socket.set_nonblocking(false)?;
        match read {
            Ok(0) => {
                self.link.wire_end()?;
                Err(WireError::Ended)
            }
            Ok(count) => {
                let taken = self.link.wire_input(self.buffer.get(..count).unwrap_or_default());
                // Also when it fails: it tells the other side why.
                let sent = self.send_wire();
                taken?;
                sent?;
                if let Some(plain) = self.link.take_plain() {
                    self.plain.extend_from_slice(&plain);
                }
                Ok(true)
            }
            Err(error) if is_late(&error) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the other side said goodbye.
    pub(super) fn is_over(&self) -> bool {
        self.plain.is_empty() && self.link.peer_closed()
    }

    /// Says goodbye, and gives the other side time to hear what was said last: a connection that is dropped with bytes unread
    /// takes that from it. Whether it said goodbye too.
    pub(super) fn end(mut self) -> bool {
        self.link.close();
        let until = Instant::now() + GOODBYE;
        if self.send_wire().is_err() || self.socket.shutdown(Shutdown::Write).is_err() {
            return false;
        }
        while !self.link.peer_closed() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.read(left).is_err() {
                break;
            }
            // Nobody asks any more for what comes now.
            self.plain.clear();
        }
        self.link.peer_closed()
    }
}

/// A machine that died without a word is noticed, whether something is on its way to it or not.
fn notices_death(socket: &TcpStream) -> io::Result<()> {
    let seconds = SOCKET_GONE_MS / 1000;
    setsockopt(socket, sockopt::KeepAlive, &true)?;
    setsockopt(socket, sockopt::TcpKeepIdle, &(seconds / 2))?;
    setsockopt(socket, sockopt::TcpKeepInterval, &(seconds / 6))?;
    setsockopt(socket, sockopt::TcpKeepCount, &3)?;
    setsockopt(socket, sockopt::TcpUserTimeout, &SOCKET_GONE_MS)?;
    Ok(())
}

fn is_late(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

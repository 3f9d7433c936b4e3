//! One TLS connection as a machine: bytes of the wire in, bytes of the wire out, plain bytes beside them.

use super::error::LinkSecurityError;
use super::pinned::{KeyRefusal, RECORD_MAX, TlsConfigs};
use super::{GREETING, HANDSHAKE_MAX, PLAIN_MAGIC, Room, Side, proof};
use crate::base::AlignedBuf;
use crate::node::identity::{Fingerprint, certificate_public_key};
use bytes::Bytes;
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError, ClientConnection, Connection, Error, ServerConnection};
use std::io::{self, BufRead as _, IoSlice, Write as _};

/// Encrypted bytes that rustls holds before they are moved on; small enough to stay in the cache.
const CHUNK: usize = 64 << 10;
/// An unknown peer's bytes are looked at in small steps, so that little is held for it.
const HANDSHAKE_STEP: usize = 1024;
/// More than TLS adds to a record (bytes): header 5, content type 1, tag 16.
const RECORD_OVERHEAD: usize = 32;
/// Content types of TLS records (RFC 8446, section 5.1).
const ALERT: u8 = 0x15;
const HANDSHAKE: u8 = 0x16;

/// How far the first bytes of the peer are understood.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Opening {
    /// Nothing came yet.
    Nothing,
    /// As many bytes of [`PLAIN_MAGIC`] came.
    Magic(usize),
    /// TLS records.
    Tls,
}

pub(super) struct TlsSession {
    side: Side,
    connection: Connection,
    opening: Opening,
    handshake_bytes: usize,
    /// Bytes of [`GREETING`] that the dialling side has seen.
    greeted: usize,
    established: bool,
    peer_closed: bool,
    /// Where decrypted bytes go first, and whether some went there.
    room: Option<(Room, bool)>,
    plain: Vec<u8>,
    wire: Vec<u8>,
}

impl TlsSession {
    pub(super) fn new(side: Side, configs: &TlsConfigs) -> Result<Self, LinkSecurityError> {
        let local = |error: Error| LinkSecurityError::Local { what: error.to_string() };
        let mut connection = match side {
            Side::Dial => {
                // Never sent: there is no SNI, and the key is what is checked.
                let name = ServerName::try_from("hot-backup.invalid").expect("a constant DNS name");
                Connection::from(ClientConnection::new(configs.dial.clone(), name).map_err(local)?)
            }
            Side::Accept => Connection::from(ServerConnection::new(configs.accept.clone()).map_err(local)?),
        };
        connection.set_buffer_limit(Some(CHUNK));
        let mut session = Self {
            side,
            connection,
            opening: Opening::Nothing,
            handshake_bytes: 0,
            greeted: 0,
            established: false,
            peer_closed: false,
            room: None,
            plain: Vec::new(),
            wire: Vec::new(),
        };
        session.flush();
        Ok(session)
    }

    pub(super) fn wire_input(&mut self, bytes: &[u8]) -> Result<(), LinkSecurityError> {
        let mut rest = self.opened(bytes)?;
        if self.established {
            let room = self.room.as_ref().map_or(0, |(room, _)| room.until.saturating_sub(room.buffer.len()));
            self.plain.reserve(rest.len().saturating_sub(room));
        }
        // What comes after the peer's goodbye is not looked at.
        while !rest.is_empty() && !self.peer_closed {
            let was_established = self.established;
            let (step, _) =
                rest.split_at(if was_established { rest.len() } else { rest.len().min(HANDSHAKE_STEP) });
            let mut unread = step;
            let result = self.feed(&mut unread);
            self.flush();
            result?;
            let taken = step.len() - unread.len();
            rest = rest.split_at(taken).1;
            if !was_established {
                self.handshake_bytes += taken;
                if self.handshake_bytes > HANDSHAKE_MAX {
                    return Err(LinkSecurityError::HandshakeTooLong { limit: HANDSHAKE_MAX });
                }
            }
        }
        Ok(())
    }

    /// Looks at the very first bytes: TLS goes on to rustls, anything else ends here.
    fn opened<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], LinkSecurityError> {
        for (at, &byte) in bytes.iter().enumerate() {
            let matched = match self.opening {
                Opening::Tls => return Ok(bytes.split_at(at).1),
                Opening::Nothing if byte == HANDSHAKE || byte == ALERT => {
                    self.opening = Opening::Tls;
                    return Ok(bytes.split_at(at).1);
                }
                Opening::Nothing => 0,
                Opening::Magic(matched) => matched,
            };
            if PLAIN_MAGIC.get(matched) != Some(&byte) {
                return Err(LinkSecurityError::NotALink);
            }
            self.opening = Opening::Magic(matched + 1);
            if matched + 1 == PLAIN_MAGIC.len() {
                self.wire.extend_from_slice(&proof::refusal(proof::Refusal::Encryption));
                return Err(LinkSecurityError::PeerIsPlain);
            }
        }
        Ok(&[])
    }

    /// Gives rustls as many bytes as it takes at once.
    fn feed(&mut self, bytes: &mut &[u8]) -> Result<(), LinkSecurityError> {
        self.connection.read_tls(bytes).map_err(protocol)?;
        let state = match self.connection.process_new_packets() {
            Ok(state) => state,
            Err(error) => return Err(named(error, self.established)),
        };
        self.peer_closed = state.peer_has_closed();
        if state.plaintext_bytes_to_read() > 0 {
            self.take_decrypted()?;
        }
        if self.side == Side::Accept && !self.established && !self.connection.is_handshaking() {
            // The peer has proved its key. By this it learns that its key was accepted.
            self.established = true;
            self.connection.writer().write_all(GREETING).map_err(protocol)?;
        }
        Ok(())
    }

    fn take_decrypted(&mut self) -> Result<(), LinkSecurityError> {
        loop {
            let mut reader = self.connection.reader();
            let chunk = match reader.fill_buf() {
                Ok(chunk) if !chunk.is_empty() => chunk,
                // All that was decrypted is taken: no more has come yet, or the stream has ended.
                _ => return Ok(()),
            };
            let len = chunk.len();
            let mut new = chunk;
            while let (false, Some((byte, rest))) = (self.established, new.split_first()) {
                if GREETING.get(self.greeted) != Some(byte) {
                    let what = "it does not greet as a node does".to_owned();
                    return Err(LinkSecurityError::Protocol { what });
                }
                self.greeted += 1;
                self.established = self.greeted == GREETING.len();
                new = rest;
            }
            if let Some((Room { buffer, until }, some)) = &mut self.room {
                let (here, behind) = new.split_at(new.len().min(until.saturating_sub(buffer.len())));
                buffer.extend_from_slice(here);
                *some |= !here.is_empty();
                new = behind;
            }
            self.plain.extend_from_slice(new);
            reader.consume(len);
        }
    }

    pub(super) fn send_plain(&mut self, parts: &[Bytes]) -> Result<(), LinkSecurityError> {
        let total: usize = parts.iter().map(Bytes::len).sum();
        self.wire
            .reserve(total + (total / (RECORD_MAX - RECORD_OVERHEAD) + total / CHUNK + 2) * RECORD_OVERHEAD);
        let mut slices: Vec<IoSlice<'_>> =
            parts.iter().filter(|part| !part.is_empty()).map(|part| IoSlice::new(part)).collect();
        let mut left = slices.as_mut_slice();
        while !left.is_empty() {
            let written = self.connection.writer().write_vectored(left).map_err(protocol)?;
            self.flush();
            assert!(written > 0, "an empty buffer takes something");
            IoSlice::advance_slices(&mut left, written);
        }
        Ok(())
    }

    /// Moves what rustls wants to send to the outgoing bytes.
    fn flush(&mut self) {
        while self.connection.wants_write() {
            let moved = self.connection.write_tls(&mut self.wire).expect("writing to memory does not fail");
            assert!(moved > 0, "what wants to be written is not empty");
        }
    }

    pub(super) fn give_room(&mut self, room: Room) {
        self.room = Some((room, false));
    }

    pub(super) fn take_filled(&mut self) -> Option<AlignedBuf> {
        self.room.take_if(|(_, some)| *some).map(|(room, _)| room.buffer)
    }

    pub(super) fn take_plain(&mut self) -> Option<Bytes> {
        (!self.plain.is_empty()).then(|| Bytes::from(std::mem::take(&mut self.plain)))
    }

    pub(super) fn take_wire(&mut self) -> Option<Bytes> {
        (!self.wire.is_empty()).then(|| Bytes::from(std::mem::take(&mut self.wire)))
    }

    pub(super) fn is_established(&self) -> bool {
        self.established
    }

    pub(super) fn close(&mut self) {
        self.connection.send_close_notify();
        self.flush();
    }

    pub(super) fn peer(&self) -> Option<Fingerprint> {
        let certificate = self.connection.peer_certificates()?.first()?;
        certificate_public_key(certificate).map(|public| Fingerprint::of_ed25519(&public))
    }

    pub(super) fn peer_closed(&self) -> bool {
        self.peer_closed
    }
}

fn protocol(error: io::Error) -> LinkSecurityError {
    LinkSecurityError::Protocol { what: error.to_string() }
}

/// The one map from rustls to our names.
fn named(error: Error, established: bool) -> LinkSecurityError {
    match error {
        Error::InvalidCertificate(CertificateError::Other(other)) => {
            match other.0.downcast_ref::<KeyRefusal>() {
                Some(KeyRefusal::Own) => LinkSecurityError::OwnKey,
                Some(KeyRefusal::Unknown(fingerprint)) => {
                    LinkSecurityError::WrongKey { fingerprint: *fingerprint }
                }
                Some(KeyRefusal::Unreadable) | None => LinkSecurityError::NoKey,
            }
        }
        Error::NoCertificatesPresented => LinkSecurityError::NoKey,
        Error::InvalidCertificate(CertificateError::BadSignature) => LinkSecurityError::BadProof,
        Error::PeerIncompatible(what) => LinkSecurityError::Incompatible { what: format!("{what:?}") },
        Error::AlertReceived(alert) => match alert {
            AlertDescription::CertificateUnknown
            | AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied => LinkSecurityError::NotTrustedThere,
            AlertDescription::ProtocolVersion => {
                LinkSecurityError::Incompatible { what: "it refuses this version of TLS".to_owned() }
            }
            other => LinkSecurityError::PeerGaveUp { what: format!("{other:?}") },
        },
        Error::DecryptError => LinkSecurityError::Altered,
        Error::InvalidMessage(_) if !established => LinkSecurityError::NotALink,
        other => LinkSecurityError::Protocol { what: other.to_string() },
    }
}

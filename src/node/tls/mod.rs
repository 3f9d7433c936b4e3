//! The link's security: who is at the other end, and that nobody reads or alters what is said.
//!
//! A [`SecureLink`] is a machine without sockets: the daemon gives it what came from the wire and takes what is to
//! go there. Both nodes prove that they hold a key that the other one trusts; no certificate is managed.
//!
//! Invariants: no plain byte comes out before the peer has proved its key. Nothing a peer sends before that makes
//! this node hold more than [`HANDSHAKE_MAX`] bytes. A failed link never gives plain bytes again. Time is the
//! caller's: a peer that stays silent in the handshake has to be cut off by a timer.
//!
//! The dialling side is established only when the accepting side has told it that its key is accepted, so that
//! "connected" means the same on both nodes.

mod error;
mod pinned;
mod proof;
mod session;
#[cfg(test)]
mod tests;

pub use error::LinkSecurityError;
pub(crate) use pinned::no_tls12;

use super::config::Encryption;
use super::identity::{Fingerprint, NodeKey, Peers};
use super::layout::Layout;
use crate::base::AlignedBuf;
use bytes::Bytes;
use pinned::{Pins, TlsConfigs};
use proof::ProofSession;
use session::TlsSession;
use std::fmt;

/// What a peer may send before it has proved its key (bytes).
pub const HANDSHAKE_MAX: usize = 16 << 10;
/// Begins every message of the link without encryption; TLS begins otherwise.
const PLAIN_MAGIC: &[u8; 4] = b"HBp1";
/// The accepting side's first plain bytes inside TLS: the dialling side's key was accepted.
const GREETING: &[u8; 4] = b"HBok";

/// Which side of a connection this node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Dial,
    Accept,
}

/// What a node needs to secure links: its key, the keys it accepts, and whether links are encrypted.
#[derive(Clone, Debug)]
pub struct LinkIdentity {
    key: NodeKey,
    pins: Pins,
    encryption: Encryption,
    configs: TlsConfigs,
}

impl LinkIdentity {
    /// As it stands on disk. Cheap enough to be read anew for each connection, so that `trust` needs no restart.
    ///
    /// # Errors
    /// [`LinkSecurityError::Identity`] if a file is missing or damaged; no trusted peer is not an error here.
    pub fn load(layout: &Layout, encryption: Encryption) -> Result<Self, LinkSecurityError> {
        let key = NodeKey::load(layout)?;
        let peers = Peers::load(layout)?.identities.into_iter().map(|peer| peer.fingerprint).collect();
        Self::new(key, peers, encryption)
    }

    /// From its parts.
    ///
    /// # Errors
    /// [`LinkSecurityError::Local`] if TLS cannot be set up with this key.
    pub fn new(
        key: NodeKey,
        peers: Vec<Fingerprint>,
        encryption: Encryption,
    ) -> Result<Self, LinkSecurityError> {
        let pins = Pins { own: key.fingerprint, peers };
        let configs = TlsConfigs::new(&key, &pins)?;
        Ok(Self { key, pins, encryption, configs })
    }
}

/// A buffer for what comes next, and how many bytes it is to hold.
#[derive(Debug)]
pub(crate) struct Room {
    /// What comes goes behind what is in it.
    pub(crate) buffer: AlignedBuf,
    /// They fit.
    pub(crate) until: usize,
}

enum SecureSession {
    Tls(Box<TlsSession>),
    Plain(Box<ProofSession>),
}

/// One connection to the peer.
///
/// After each call that may produce bytes for the wire ([`Self::dial`], [`Self::wire_input`] also when it fails,
/// [`Self::send_plain`], [`Self::close`]) take them with [`Self::take_wire`] and send them.
pub struct SecureLink {
    session: SecureSession,
    failed: bool,
    closed: bool,
}

impl fmt::Debug for SecureLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.session {
            SecureSession::Tls(_) => "tls",
            SecureSession::Plain(_) => "plain",
        };
        write!(f, "SecureLink({kind}, established: {}, failed: {})", self.is_established(), self.failed)
    }
}

impl SecureLink {
    /// The side that connected; it speaks first.
    ///
    /// # Errors
    /// [`LinkSecurityError::NoPeer`], [`LinkSecurityError::Local`].
    pub fn dial(identity: &LinkIdentity) -> Result<Self, LinkSecurityError> {
        Self::new(Side::Dial, identity)
    }

    /// The side that was connected to.
    ///
    /// # Errors
    /// [`LinkSecurityError::NoPeer`], [`LinkSecurityError::Local`].
    pub fn accept(identity: &LinkIdentity) -> Result<Self, LinkSecurityError> {
        Self::new(Side::Accept, identity)
    }

    fn new(side: Side, identity: &LinkIdentity) -> Result<Self, LinkSecurityError> {
        if identity.pins.peers.is_empty() {
            return Err(LinkSecurityError::NoPeer);
        }
        let session = match identity.encryption {
            Encryption::Tls => SecureSession::Tls(Box::new(TlsSession::new(side, &identity.configs)?)),
            Encryption::None => {
                SecureSession::Plain(Box::new(ProofSession::new(side, &identity.key, &identity.pins)?))
            }
        };
        Ok(Self { session, failed: false, closed: false })
    }

    /// Takes bytes from the wire, cut anywhere.
    ///
    /// # Errors
    /// Any that is the peer's or the wire's fault. The link is over then: send what [`Self::take_wire`] still
    /// gives (it tells the peer why) and close the connection. Later calls give [`LinkSecurityError::Closed`].
    pub fn wire_input(&mut self, bytes: &[u8]) -> Result<(), LinkSecurityError> {
        if self.failed {
            return Err(LinkSecurityError::Closed);
        }
        let result = match &mut self.session {
            SecureSession::Tls(session) => session.wire_input(bytes),
            SecureSession::Plain(session) => session.wire_input(bytes),
        };
        self.failed = result.is_err();
        result
    }

    /// The wire ended: says whether that was in order.
    ///
    /// # Errors
    /// [`LinkSecurityError::CutInHandshake`]; [`LinkSecurityError::CutShort`] if the peer had not said goodbye
    /// (never without encryption: there is no goodbye then).
    pub fn wire_end(&mut self) -> Result<(), LinkSecurityError> {
        if self.failed {
            return Err(LinkSecurityError::Closed);
        }
        self.failed = true;
        match &self.session {
            _ if !self.is_established() => Err(LinkSecurityError::CutInHandshake),
            SecureSession::Tls(session) if !session.peer_closed() => Err(LinkSecurityError::CutShort),
            SecureSession::Tls(_) | SecureSession::Plain(_) => Ok(()),
        }
    }

    /// What the peer said since the last call, in order; `None` if nothing. To be called after each
    /// [`Self::wire_input`]: what is not taken is held.
    pub fn take_plain(&mut self) -> Option<Bytes> {
        if self.failed {
            return None;
        }
        match &mut self.session {
            SecureSession::Tls(session) => session.take_plain(),
            SecureSession::Plain(session) => session.take_plain(),
        }
    }

    /// Where what the peer says next belongs; what does not fit is given by [`Self::take_plain`].
    pub(crate) fn give_room(&mut self, room: Room) {
        match &mut self.session {
            SecureSession::Tls(session) => session.give_room(room),
            SecureSession::Plain(session) => session.room = Some(room),
        }
    }

    /// Whether what comes from the wire now is what the peer says, as it is: nobody has to look at it here.
    pub(crate) fn is_bare(&self) -> bool {
        matches!(&self.session, SecureSession::Plain(session) if session.is_established()) && !self.failed
    }

    /// The buffer given, if what comes from the wire may be received right into it.
    pub(crate) fn take_bare_room(&mut self) -> Option<Room> {
        match &mut self.session {
            SecureSession::Tls(_) => None,
            SecureSession::Plain(session) => session.room.take(),
        }
    }

    /// The buffer given, once there is more in it. It comes before what [`Self::take_plain`] gives.
    pub(crate) fn take_filled(&mut self) -> Option<AlignedBuf> {
        if self.failed {
            return None;
        }
        match &mut self.session {
            SecureSession::Tls(session) => session.take_filled(),
            SecureSession::Plain(_) => None,
        }
    }

    /// Says `parts` to the peer, after all that was said before.
    ///
    /// # Errors
    /// [`LinkSecurityError::NotEstablished`] or [`LinkSecurityError::Closed`]: nothing was taken.
    pub fn send_plain(&mut self, parts: &[Bytes]) -> Result<(), LinkSecurityError> {
        if self.failed || self.closed {
            return Err(LinkSecurityError::Closed);
        }
        if !self.is_established() {
            return Err(LinkSecurityError::NotEstablished);
        }
        match &mut self.session {
            SecureSession::Tls(session) => session.send_plain(parts),
            SecureSession::Plain(session) => {
                session.send_plain(parts);
                Ok(())
            }
        }
    }

    /// What is to be sent on the wire, in order; empty if nothing.
    pub fn take_wire(&mut self) -> Vec<Bytes> {
        match &mut self.session {
            SecureSession::Tls(session) => session.take_wire().into_iter().collect(),
            SecureSession::Plain(session) => session.take_wire(),
        }
    }

    /// Whether both nodes have proved their keys to each other.
    #[must_use]
    pub fn is_established(&self) -> bool {
        match &self.session {
            SecureSession::Tls(session) => session.is_established(),
            SecureSession::Plain(session) => session.is_established(),
        }
    }

    /// Whether the peer has said goodbye; nothing more comes from it.
    #[must_use]
    pub fn peer_closed(&self) -> bool {
        match &self.session {
            SecureSession::Tls(session) => session.peer_closed(),
            SecureSession::Plain(_) => false,
        }
    }

    /// The peer's key, once the link is established.
    #[must_use]
    pub fn peer_fingerprint(&self) -> Option<Fingerprint> {
        match &self.session {
            _ if !self.is_established() => None,
            SecureSession::Tls(session) => session.peer(),
            SecureSession::Plain(session) => session.peer(),
        }
    }

    /// Says goodbye: nothing can be sent afterwards. Doing it again changes nothing.
    pub fn close(&mut self) {
        if self.failed || self.closed {
            return;
        }
        self.closed = true;
        if let SecureSession::Tls(session) = &mut self.session {
            session.close();
        }
    }
}

/// Gives any bytes to one side of a link, which their first one chooses, of those of `identities`; it may not be
/// established by that.
pub fn fuzz_link(identities: &[LinkIdentity], bytes: &[u8]) {
    let Some((&choice, bytes)) = bytes.split_first() else { return };
    // Keys for a handshake cost far more than the reading of bytes: one link for each run.
    let Some(identity) = identities.get(usize::from(choice >> 1) % identities.len().max(1)) else { return };
    let made = if choice & 1 == 0 { SecureLink::accept(identity) } else { SecureLink::dial(identity) };
    let Ok(mut link) = made else { return };
    if link.wire_input(bytes).is_ok() {
        assert!(link.wire_end().is_err(), "bytes from nowhere prove no key");
    }
    assert!(link.take_plain().is_none(), "nothing plain from an unknown peer");
    assert!(!link.is_established(), "bytes from nowhere prove no key");
}

//! Why a link is not, or no longer, to be trusted.

use crate::node::identity::{Fingerprint, IdentityError};

/// What ended a secure link, by who has to act. The connection is of no use afterwards; what
/// [`SecureLink::take_wire`](super::SecureLink::take_wire) still gives is the refusal for the peer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkSecurityError {
    // The operator, here: something is not set up.
    /// No key of a peer is accepted yet.
    #[error("securing the link: no peer is trusted yet; run `hot-backup trust` with its identity")]
    NoPeer,
    /// This node's own key or list of peers cannot be used.
    #[error("securing the link: {0}")]
    Identity(#[from] IdentityError),
    /// This node cannot use TLS.
    #[error("securing the link: {what}")]
    Local {
        /// Why.
        what: String,
    },

    // The operator, on either side: the two nodes do not fit.
    /// The peer has a key, but not one that is accepted here.
    #[error(
        "checking the peer: its key {fingerprint} is not trusted here; if it is the peer's, run `hot-backup trust` here \
         with the line that `hot-backup identity` prints there"
    )]
    WrongKey {
        /// Of the key it showed.
        fingerprint: Fingerprint,
    },
    /// The peer showed this node's own key: the node is connected to itself, or its bytes are sent back.
    #[error("checking the peer: it shows this node's own key; is `peer` in the config this very node?")]
    OwnKey,
    /// The peer does not accept this node's key.
    #[error("waiting for the peer: it does not trust this node's key; run `hot-backup trust` there")]
    NotTrustedThere,
    /// The peer's config says `encryption = "none"`, this node's `"tls"`.
    #[error(
        "checking the peer: its link is not encrypted, this node's is; set `encryption` alike on both nodes"
    )]
    PeerIsPlain,
    /// The peer's config says `encryption = "tls"`, this node's `"none"`.
    #[error(
        "checking the peer: its link is encrypted, this node's is not; set `encryption` alike on both nodes"
    )]
    PeerIsTls,

    // Whoever is at the other end: it is no node, or not the one it says it is.
    /// The other end speaks neither of the two.
    #[error("checking the peer: what it sends is not the link protocol; is another program at that address?")]
    NotALink,
    /// The other end speaks TLS, but not 1.3 with the algorithms wanted here.
    #[error("checking the peer: its TLS does not fit, 1.3 with Ed25519 is needed ({what})")]
    Incompatible {
        /// What it lacks.
        what: String,
    },
    /// The other end showed no key.
    #[error("checking the peer: it shows no key")]
    NoKey,
    /// The other end showed a trusted key that it does not hold.
    #[error("checking the peer: it cannot prove that it holds the key it shows")]
    BadProof,
    /// The other end broke the rules.
    #[error("securing the link: the peer broke the protocol: {what}")]
    Protocol {
        /// How.
        what: String,
    },
    /// The other end sent too much before it was known.
    #[error("checking the peer: more than {limit} bytes before it proved its key")]
    HandshakeTooLong {
        /// What is allowed (bytes).
        limit: usize,
    },
    /// The other end gave up for a reason of its own.
    #[error("securing the link: the peer gave up: {what}")]
    PeerGaveUp {
        /// What it said.
        what: String,
    },

    // The wire.
    /// Bytes on the wire were altered.
    #[error("securing the link: bytes were altered on the way")]
    Altered,
    /// The connection ended before the peer proved its key.
    #[error("checking the peer: the connection ended before it proved its key")]
    CutInHandshake,
    /// The connection ended without the peer's goodbye: bytes may be missing.
    #[error("securing the link: the connection ended without a goodbye")]
    CutShort,

    // The caller.
    /// Nothing can be sent before the peer is known.
    #[error("sending on the link: the peer is not known yet")]
    NotEstablished,
    /// The link was closed or has failed before.
    #[error("using the link: it is closed")]
    Closed,
}

//! `encryption = "none"`: both nodes prove their keys, then plain bytes flow.
//!
//! Each message begins with `HBp1` and a kind:
//!
//! | kind | from | body |
//! |---|---|---|
//! | `D` | dialling side | nonce 32, public key 32 |
//! | `A` | accepting side | nonce 32, public key 32, signature 64 |
//! | `S` | dialling side | signature 64 |
//! | `K` | accepting side | nothing: the peer's key is accepted, plain bytes follow |
//! | `X` | either, instead of its next message | reason 1: 1 key not trusted, 2 proof bad, 3 encryption differs |
//!
//! What is signed: a context string, the kind of the message that carries the signature, the nonce of the dialling
//! side, that of the accepting side, the fingerprints of both in the same order. Nonces are new for every
//! connection, so a recorded handshake is of no use; kind and fingerprints keep one side's signature from being
//! used as the other's; the context keeps it from being used for TLS and the reverse.
//!
//! What this does not do: after the proof nothing protects the bytes from somebody who sits on the wire.

use super::error::LinkSecurityError;
use super::pinned::{KeyRefusal, Pins};
use super::{PLAIN_MAGIC, Room, Side};
use crate::node::identity::{Fingerprint, NodeKey, provider, random};
use bytes::Bytes;
use rustls::SignatureScheme;
use std::collections::VecDeque;

const CONTEXT: &[u8] = b"hot-backup link without encryption, version 1\0";
const NONCE: usize = 32;
const KEY: usize = 32;
const SIGNATURE: usize = 64;
const HEAD: usize = PLAIN_MAGIC.len() + 1;

const DIAL_HELLO: u8 = b'D';
const ACCEPT_HELLO: u8 = b'A';
const DIAL_PROOF: u8 = b'S';
const ACCEPTED: u8 = b'K';
const REFUSED: u8 = b'X';

/// Why the peer is refused, as told to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    Key,
    Proof,
    Encryption,
}

/// The message that tells a refusal.
pub(super) fn refusal(reason: Refusal) -> Vec<u8> {
    let reason = match reason {
        Refusal::Key => 1,
        Refusal::Proof => 2,
        Refusal::Encryption => 3,
    };
    message(REFUSED, &[&[reason]])
}

fn message(kind: u8, body: &[&[u8]]) -> Vec<u8> {
    let mut bytes = PLAIN_MAGIC.to_vec();
    bytes.push(kind);
    body.iter().for_each(|part| bytes.extend_from_slice(part));
    bytes
}

/// What this side waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ProofStep {
    DialHello,
    AcceptHello,
    DialProof,
    Accepted,
    Established,
}

impl ProofStep {
    /// Kind and length of the body of the message waited for.
    fn expected(self) -> (u8, usize) {
        match self {
            Self::DialHello => (DIAL_HELLO, NONCE + KEY),
            Self::AcceptHello => (ACCEPT_HELLO, NONCE + KEY + SIGNATURE),
            Self::DialProof => (DIAL_PROOF, SIGNATURE),
            Self::Accepted | Self::Established => (ACCEPTED, 0),
        }
    }
}

/// One side's nonce and key.
#[derive(Clone, Copy)]
struct Half {
    nonce: [u8; NONCE],
    public: [u8; KEY],
}

pub(super) struct ProofSession {
    key: NodeKey,
    pins: Pins,
    step: ProofStep,
    own: Half,
    peer: Option<Half>,
    /// The message being received; never longer than the longest.
    pending: Vec<u8>,
    /// Filled by whoever receives.
    pub(super) room: Option<Room>,
    plain: Vec<u8>,
    wire: VecDeque<Bytes>,
}

impl ProofSession {
    pub(super) fn new(side: Side, key: &NodeKey, pins: &Pins) -> Result<Self, LinkSecurityError> {
        let mut nonce = [0; NONCE];
        random(&mut nonce)?;
        let mut session = Self {
            key: key.clone(),
            pins: pins.clone(),
            step: ProofStep::DialHello,
            own: Half { nonce, public: key.public },
            peer: None,
            pending: Vec::new(),
            room: None,
            plain: Vec::new(),
            wire: VecDeque::new(),
        };
        if side == Side::Dial {
            session.step = ProofStep::AcceptHello;
            session.tell(DIAL_HELLO, &[&nonce, &key.public]);
        }
        Ok(session)
    }

    pub(super) fn wire_input(&mut self, bytes: &[u8]) -> Result<(), LinkSecurityError> {
        let mut rest = bytes;
        while let (false, Some((&byte, later))) = (self.is_established(), rest.split_first()) {
            self.pending.push(byte);
            rest = later;
            self.look()?;
        }
        self.plain.extend_from_slice(rest);
        Ok(())
    }

    /// Acts on the pending message as soon as it is whole, or cannot become a good one.
    fn look(&mut self) -> Result<(), LinkSecurityError> {
        if let Some(&first) = self.pending.first()
            && (first == 0x16 || first == 0x15)
        {
            self.wire.push_back(refusal(Refusal::Encryption).into());
            return Err(LinkSecurityError::PeerIsTls);
        }
        let magic = self.pending.len().min(PLAIN_MAGIC.len());
        if self.pending.get(..magic) != PLAIN_MAGIC.get(..magic) {
            return Err(LinkSecurityError::NotALink);
        }
        let (expected, len) = self.step.expected();
        match (self.pending.get(PLAIN_MAGIC.len()).copied(), self.pending.get(HEAD..)) {
            (Some(kind), Some(body)) if kind == expected && body.len() == len => {
                let body = body.to_vec();
                self.pending.clear();
                self.act(&body)
            }
            (Some(REFUSED), Some([reason])) => Err(match reason {
                1 => LinkSecurityError::NotTrustedThere,
                3 => LinkSecurityError::PeerIsTls,
                other => LinkSecurityError::PeerGaveUp { what: format!("refusal {other}") },
            }),
            (Some(kind), _) if kind != expected && kind != REFUSED => {
                let what = format!("message {:?} in place of {:?}", char::from(kind), char::from(expected));
                Err(LinkSecurityError::Protocol { what })
            }
            _ => Ok(()),
        }
    }

    fn act(&mut self, body: &[u8]) -> Result<(), LinkSecurityError> {
        let mut body = Fields(body);
        match self.step {
            ProofStep::DialHello => {
                let dialler = body.half();
                self.check_key(dialler)?;
                let signature = self.sign(ACCEPT_HELLO, dialler, self.own)?;
                let own = self.own;
                self.tell(ACCEPT_HELLO, &[&own.nonce, &own.public, &signature]);
                self.step = ProofStep::DialProof;
            }
            ProofStep::AcceptHello => {
                let acceptor = body.half();
                self.check_key(acceptor)?;
                self.verify(ACCEPT_HELLO, self.own, acceptor, acceptor, body.0)?;
                let signature = self.sign(DIAL_PROOF, self.own, acceptor)?;
                self.tell(DIAL_PROOF, &[&signature]);
                self.step = ProofStep::Accepted;
            }
            ProofStep::DialProof => {
                let dialler = self.peer.expect("its hello came before this step");
                self.verify(DIAL_PROOF, dialler, self.own, dialler, body.0)?;
                self.tell(ACCEPTED, &[]);
                self.step = ProofStep::Established;
            }
            ProofStep::Accepted => self.step = ProofStep::Established,
            ProofStep::Established => {}
        }
        Ok(())
    }

    fn check_key(&mut self, peer: Half) -> Result<(), LinkSecurityError> {
        self.pins.check(Fingerprint::of_ed25519(&peer.public)).map_err(|refused| {
            self.wire.push_back(refusal(Refusal::Key).into());
            match refused {
                KeyRefusal::Own => LinkSecurityError::OwnKey,
                KeyRefusal::Unknown(fingerprint) => LinkSecurityError::WrongKey { fingerprint },
                KeyRefusal::Unreadable => LinkSecurityError::NoKey,
            }
        })?;
        self.peer = Some(peer);
        Ok(())
    }

    fn sign(&self, kind: u8, dialler: Half, acceptor: Half) -> Result<Vec<u8>, LinkSecurityError> {
        let local = |what: &str| LinkSecurityError::Local { what: what.to_owned() };
        let signer = self.key.signer.choose_scheme(&[SignatureScheme::ED25519]);
        let signer = signer.ok_or_else(|| local("this node's key does not sign Ed25519"))?;
        signer.sign(&signed_bytes(kind, dialler, acceptor)).map_err(|error| local(&error.to_string()))
    }

    fn verify(
        &mut self,
        kind: u8,
        dialler: Half,
        acceptor: Half,
        signer: Half,
        signature: &[u8],
    ) -> Result<(), LinkSecurityError> {
        let algorithms = provider().signature_verification_algorithms;
        let ed25519 = algorithms.mapping.iter().find(|(scheme, _)| *scheme == SignatureScheme::ED25519);
        let algorithm =
            ed25519.and_then(|(_, algorithms)| algorithms.first()).expect("ring verifies Ed25519");
        let bytes = signed_bytes(kind, dialler, acceptor);
        algorithm.verify_signature(&signer.public, &bytes, signature).map_err(|_| {
            self.wire.push_back(refusal(Refusal::Proof).into());
            LinkSecurityError::BadProof
        })
    }

    fn tell(&mut self, kind: u8, body: &[&[u8]]) {
        self.wire.push_back(message(kind, body).into());
    }

    pub(super) fn send_plain(&mut self, parts: &[Bytes]) {
        self.wire.extend(parts.iter().filter(|part| !part.is_empty()).cloned());
    }

    pub(super) fn take_plain(&mut self) -> Option<Bytes> {
        (!self.plain.is_empty()).then(|| Bytes::from(std::mem::take(&mut self.plain)))
    }

    pub(super) fn take_wire(&mut self) -> Vec<Bytes> {
        self.wire.drain(..).collect()
    }

    pub(super) fn is_established(&self) -> bool {
        self.step == ProofStep::Established
    }

    pub(super) fn peer(&self) -> Option<Fingerprint> {
        self.peer.map(|peer| Fingerprint::of_ed25519(&peer.public))
    }
}

/// A body of known length, taken apart from the front.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&mut self) -> [u8; N] {
        let (array, rest) = self.0.split_first_chunk::<N>().expect("the length was checked by kind");
        self.0 = rest;
        *array
    }

    fn half(&mut self) -> Half {
        Half { nonce: self.array(), public: self.array() }
    }
}

fn signed_bytes(kind: u8, dialler: Half, acceptor: Half) -> Vec<u8> {
    let mut bytes = CONTEXT.to_vec();
    bytes.push(kind);
    for nonce in [dialler.nonce, acceptor.nonce] {
        bytes.extend_from_slice(&nonce);
    }
    for public in [dialler.public, acceptor.public] {
        bytes.extend_from_slice(&Fingerprint::of_ed25519(&public).0);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_signed_differs_by_kind_side_nonce_and_key() {
        let half = |nonce, public| Half { nonce: [nonce; NONCE], public: [public; KEY] };
        let all = [
            signed_bytes(ACCEPT_HELLO, half(1, 3), half(2, 4)),
            signed_bytes(DIAL_PROOF, half(1, 3), half(2, 4)),
            signed_bytes(DIAL_PROOF, half(2, 3), half(1, 4)),
            signed_bytes(DIAL_PROOF, half(1, 4), half(2, 3)),
            signed_bytes(DIAL_PROOF, half(1, 3), half(2, 5)),
            signed_bytes(DIAL_PROOF, half(1, 3), half(9, 4)),
        ];
        for (index, one) in all.iter().enumerate() {
            assert!(all.iter().skip(index + 1).all(|other| other != one), "{index}");
        }
    }
}

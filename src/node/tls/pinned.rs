//! TLS 1.3 in which a certificate counts for nothing but the key in it.
//!
//! Boundary: names, dates and issuers are not looked at. Invariant: the handshake's signature is always verified,
//! so showing a trusted key is not enough; it must be held.

use super::error::LinkSecurityError;
use crate::node::identity::{Fingerprint, NodeKey, certificate_public_key, provider};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::cipher_suite;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    ServerConfig, SignatureScheme,
};
use std::fmt;
use std::sync::Arc;

/// Size of the records that are sent (bytes).
///
/// rustls copies each record that it decrypted. Copies from 8 KiB on are done by glibc with `rep movsb`, which was
/// three times slower on an AMD machine (the bytes are not aligned); below it the receiving side went from 1.0 to
/// 2.9 GB/s, and the sending side did not change.
pub(super) const RECORD_MAX: usize = 8000;

/// Why a key is not accepted; carried through rustls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyRefusal {
    /// It is this node's own.
    Own,
    /// It is not on the list.
    Unknown(Fingerprint),
    /// It is not an Ed25519 key in a certificate of its own.
    Unreadable,
}

impl fmt::Display for KeyRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own => f.write_str("this node's own key"),
            Self::Unknown(fingerprint) => write!(f, "key {fingerprint} is not trusted"),
            Self::Unreadable => f.write_str("no Ed25519 key"),
        }
    }
}

impl std::error::Error for KeyRefusal {}

/// The keys that are accepted.
#[derive(Clone, Debug)]
pub(super) struct Pins {
    pub(super) own: Fingerprint,
    pub(super) peers: Vec<Fingerprint>,
}

impl Pins {
    /// Whether the peer may have this key.
    pub(super) fn check(&self, fingerprint: Fingerprint) -> Result<(), KeyRefusal> {
        if fingerprint == self.own {
            return Err(KeyRefusal::Own);
        }
        match self.peers.contains(&fingerprint) {
            true => Ok(()),
            false => Err(KeyRefusal::Unknown(fingerprint)),
        }
    }
}

#[derive(Debug)]
struct PinnedVerifier {
    pins: Pins,
    algorithms: WebPkiSupportedAlgorithms,
}

impl PinnedVerifier {
    fn check(&self, certificate: &CertificateDer<'_>, chain: &[CertificateDer<'_>]) -> Result<(), Error> {
        let refused = |refusal| Error::from(CertificateError::Other(OtherError(Arc::new(refusal))));
        if !chain.is_empty() {
            return Err(refused(KeyRefusal::Unreadable));
        }
        let public = certificate_public_key(certificate).ok_or_else(|| refused(KeyRefusal::Unreadable))?;
        self.pins.check(Fingerprint::of_ed25519(&public)).map_err(refused)
    }

    fn verify(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }
}

/// The answer to a signature of an older TLS.
pub(crate) fn no_tls12() -> Error {
    Error::General("TLS 1.2 is not spoken here".to_owned())
}

impl ServerCertVerifier for PinnedVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity, intermediates).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

impl ClientCertVerifier for PinnedVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity, intermediates).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

/// Both sides' TLS settings.
#[derive(Clone, Debug)]
pub(super) struct TlsConfigs {
    pub(super) dial: Arc<ClientConfig>,
    pub(super) accept: Arc<ServerConfig>,
}

impl TlsConfigs {
    /// For a node with this key that accepts these.
    pub(super) fn new(key: &NodeKey, pins: &Pins) -> Result<Self, LinkSecurityError> {
        let local = |error: Error| LinkSecurityError::Local { what: error.to_string() };
        let provider = Arc::new(CryptoProvider {
            // The fastest with AES instructions first; the others for machines without them.
            cipher_suites: vec![
                cipher_suite::TLS13_AES_128_GCM_SHA256,
                cipher_suite::TLS13_AES_256_GCM_SHA384,
                cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            ],
            ..provider()
        });
        let algorithms = provider.signature_verification_algorithms;
        let verifier = Arc::new(PinnedVerifier { pins: pins.clone(), algorithms });
        let shown = CertifiedKey::new(vec![key.certificate.clone()], key.signer.clone());
        let shown = Arc::new(SingleCertAndKey::from(shown));
        let versions = &[&rustls::version::TLS13];
        let mut dial = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions)
            .map_err(local)?
            .dangerous()
            .with_custom_certificate_verifier(verifier.clone())
            .with_client_cert_resolver(shown.clone());
        dial.max_fragment_size = Some(RECORD_MAX);
        dial.resumption = Resumption::disabled();
        dial.enable_sni = false;
        dial.enable_early_data = false;
        let mut accept = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .map_err(local)?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(shown);
        accept.max_fragment_size = Some(RECORD_MAX);
        accept.session_storage = Arc::new(NoServerSessionStorage {});
        accept.send_tls13_tickets = 0;
        accept.max_early_data_size = 0;
        Ok(Self { dial: Arc::new(dial), accept: Arc::new(accept) })
    }
}

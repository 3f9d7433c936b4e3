//! TLS of the NBD door: this node shows a certificate that its own key vouches for, and lets in clients whose
//! certificate the key of either node vouches for. So what one node gave a client serves at the other after a takeover.
//!
//! - Invariant: no plain byte comes out before the client's certificate was verified.
//! - Invariant: a client that has not proved itself makes this node hold no more than `HANDSHAKE_MAX` bytes.
//! - Boundary: a client's certificate is believed for as long as the key that signed it is trusted. To shut a client out,
//!   the node's key has to be replaced.

use super::identity::{Fingerprint, IdentityError, NodeKey, Peers, certificate_public_key, provider};
use super::layout::Layout;
use super::tls::no_tls12;
use bytes::Bytes;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName as RustlsName, Error, RootCertStore,
    ServerConfig, ServerConnection, SignatureScheme,
};
use std::io::{self, BufRead as _, Write as _};
use std::sync::Arc;

/// What a client may send before it has proved itself (bytes).
pub(crate) const HANDSHAKE_MAX: usize = 32 << 10;
/// Files of a set of credentials, as the tools that speak NBD look for them.
pub const CA_FILE: &str = "ca-cert.pem";
/// See [`CA_FILE`].
pub const CERTIFICATE_FILE: &str = "client-cert.pem";
/// See [`CA_FILE`].
pub const KEY_FILE: &str = "client-key.pem";

/// What a client needs to be let in, as PEM.
pub struct Credentials {
    /// What vouches for this node.
    pub ca: String,
    /// The client's certificate and what vouches for it.
    pub certificate: String,
    /// The client's private key.
    pub key: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(..)")
    }
}

fn make(error: rcgen::Error) -> IdentityError {
    IdentityError::Make(error.to_string())
}

/// This node's key as one that vouches for others.
fn authority(layout: &Layout) -> Result<(CertificateParams, KeyPair), IdentityError> {
    let key = NodeKey::load(layout)?;
    let pair = KeyPair::from_pem(&NodeKey::load_pem(layout)?).map_err(make)?;
    let mut params = CertificateParams::new(Vec::new()).map_err(make)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, format!("hot-backup {}", key.fingerprint));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    Ok((params, pair))
}

fn leaf(
    name: &str,
    names: Vec<String>,
    usage: ExtendedKeyUsagePurpose,
) -> Result<CertificateParams, IdentityError> {
    let mut params = CertificateParams::new(names).map_err(make)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    // Encipherment is of no use with such keys, but QEMU takes no certificate without it.
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages = vec![usage];
    Ok(params)
}

/// Makes what a client called `name` needs.
///
/// # Errors
/// [`IdentityError`] if the node's key cannot be used.
pub fn credentials(layout: &Layout, name: &str) -> Result<Credentials, IdentityError> {
    let (params, key) = authority(layout)?;
    let ca = params.self_signed(&key).map_err(make)?.pem();
    // Not Ed25519: GnuTLS, which most clients use, does not read such a key as it is written here.
    let own = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(make)?;
    let usage = ExtendedKeyUsagePurpose::ClientAuth;
    let issuer = Issuer::from_params(&params, &key);
    let certificate = leaf(name, Vec::new(), usage)?.signed_by(&own, &issuer).map_err(make)?;
    Ok(Credentials { certificate: format!("{}{ca}", certificate.pem()), ca, key: own.serialize_pem() })
}

/// What vouches for this node, as PEM.
///
/// # Errors
/// As [`credentials`].
pub fn authority_pem(layout: &Layout) -> Result<String, IdentityError> {
    let (params, key) = authority(layout)?;
    Ok(params.self_signed(&key).map_err(make)?.pem())
}

/// The door's TLS settings as they stand on disk, for a certificate that holds `names`. Cheap enough to be made anew for
/// each connection, so that `trust` needs no restart.
///
/// # Errors
/// A sentence about what is wrong with the keys.
pub(crate) fn config(layout: &Layout, names: &[String]) -> Result<Arc<ServerConfig>, String> {
    let told = |error: IdentityError| error.to_string();
    let (params, key) = authority(layout).map_err(told)?;
    let ca = params.self_signed(&key).map_err(|error| error.to_string())?;
    let own = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(|error| error.to_string())?;
    let usage = ExtendedKeyUsagePurpose::ServerAuth;
    let issuer = Issuer::from_params(&params, &key);
    let shown = leaf("hot-backup", names.to_vec(), usage)
        .map_err(told)?
        .signed_by(&own, &issuer)
        .map_err(|error| error.to_string())?;
    let mut trusted = vec![NodeKey::load(layout).map_err(told)?.fingerprint];
    trusted.extend(Peers::load(layout).map_err(told)?.identities.iter().map(|peer| peer.fingerprint));
    let verifier = Arc::new(Vouched { trusted });
    let secret = PrivateKeyDer::try_from(own.serialize_der()).map_err(str::to_owned)?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![shown.der().clone(), ca.der().clone()], secret)
        .map_err(|error| error.to_string())?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

/// Lets in whose certificate was signed by a trusted node's key; that key's certificate comes beside it.
#[derive(Debug)]
struct Vouched {
    trusted: Vec<Fingerprint>,
}

impl ClientCertVerifier for Vouched {
    fn root_hint_subjects(&self) -> &[RustlsName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let vouches = |certificate: &&CertificateDer<'_>| {
            certificate_public_key(certificate)
                .is_some_and(|public| self.trusted.contains(&Fingerprint::of_ed25519(&public)))
        };
        let unknown = || Error::from(CertificateError::UnknownIssuer);
        let authority = intermediates.iter().find(vouches).ok_or_else(unknown)?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned())?;
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(provider()))
            .build()
            .map_err(|error| Error::General(error.to_string()))?;
        verifier.verify_client_cert(end_entity, &[], now)
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
        let algorithms = provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// One client's TLS, as a machine: bytes of the wire in, plain bytes out, and the other way.
pub(crate) struct DoorSession {
    connection: ServerConnection,
    handshake_bytes: usize,
    peer_closed: bool,
}

impl std::fmt::Debug for DoorSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DoorSession(established: {})", self.is_established())
    }
}

impl DoorSession {
    /// A session that waits for the client's first word.
    pub(crate) fn new(config: Arc<ServerConfig>) -> Result<Self, Error> {
        let mut connection = ServerConnection::new(config)?;
        connection.set_buffer_limit(None);
        Ok(Self { connection, handshake_bytes: 0, peer_closed: false })
    }

    /// Whether the client has proved itself.
    pub(crate) fn is_established(&self) -> bool {
        !self.connection.is_handshaking()
    }

    /// Whether the client said goodbye: nothing of it follows.
    pub(crate) fn peer_closed(&self) -> bool {
        self.peer_closed
    }

    /// Takes bytes of the wire; what the client said is appended to `plain`. After an error what [`Self::take_wire`]
    /// gives tells the client why.
    pub(crate) fn wire_input(&mut self, mut bytes: &[u8], plain: &mut Vec<u8>) -> io::Result<()> {
        while !bytes.is_empty() {
            if !self.is_established() {
                self.handshake_bytes += bytes.len().min(1024);
                if self.handshake_bytes > HANDSHAKE_MAX {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, "the handshake is too long"));
                }
            }
            let (mut step, rest) =
                bytes.split_at(bytes.len().min(1024.max(if self.is_established() { 16 << 10 } else { 0 })));
            while !step.is_empty() {
                self.connection.read_tls(&mut step)?;
                let state = self.connection.process_new_packets();
                let state = state.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
                self.peer_closed |= state.peer_has_closed();
                self.take_plain(plain);
            }
            bytes = rest;
        }
        Ok(())
    }

    fn take_plain(&mut self, plain: &mut Vec<u8>) {
        loop {
            let mut reader = self.connection.reader();
            let len = match reader.fill_buf() {
                Ok(chunk) if !chunk.is_empty() => {
                    plain.extend_from_slice(chunk);
                    chunk.len()
                }
                _ => return,
            };
            reader.consume(len);
        }
    }

    /// Says something; what goes on the wire is given by [`Self::take_wire`].
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.connection.writer().write_all(bytes)
    }

    /// Says goodbye.
    pub(crate) fn close(&mut self) {
        self.connection.send_close_notify();
    }

    /// What is to be sent on the wire; empty if nothing.
    pub(crate) fn take_wire(&mut self) -> Bytes {
        let mut wire = Vec::new();
        while self.connection.wants_write() {
            let moved = self.connection.write_tls(&mut wire).expect("writing to memory does not fail");
            assert!(moved > 0, "what wants to be written is not empty");
        }
        Bytes::from(wire)
    }
}

#[cfg(test)]
#[path = "door_tls_tests.rs"]
mod tests;

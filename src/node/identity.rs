//! Who a node is: its key, the line that it is introduced by, and the keys that it accepts.
//!
//! A node is its Ed25519 key. The certificate around it is a shell that TLS asks for: nothing in it is believed,
//! no name, no date, no issuer. What counts is the fingerprint: SHA-256 of the `SubjectPublicKeyInfo`.
//!
//! The identity line is `hb1:<name>:<ordinal>:<pair id>:<fingerprint>:<check>`, `check` being the CRC32C (8 hex
//! digits) of all before the last colon, so that a line that was cut or mistyped is refused and not trusted.

use super::config_file::is_node_name;
use super::layout::Layout;
use super::whole;
use crate::base::limits::KEY_FILE_MAX;
use crate::base::{Ordinal, crc32c};
use crate::format::PairId;
use crate::io::Distrust;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::ParsedCertificate;
use rustls::sign::SigningKey;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

/// Keys of the peer that are accepted at once: its present one, and its next one while it is changed.
pub const PEER_KEYS_MAX: usize = 2;
/// Longest identity line that is looked at (bytes).
const LINE_MAX: usize = 512;
/// How the first line of a list of peers begins.
const PEERS_MARK: &str = "# hot-backup peers";
/// How the list of version 0.1 began, which did not say where it ends.
const PEERS_HEAD: &str = "# The keys of the peer that this node accepts";
/// `SubjectPublicKeyInfo` of an Ed25519 key up to the 32 bytes of the key (RFC 8410, sections 3 and 4).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// `PrivateKeyInfo` of an Ed25519 key up to the 32 bytes of its secret (RFC 8410, section 7).
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// Why an identity cannot be read or used. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// The text is something else.
    #[error("reading an identity: the text does not begin with \"hb1:\"")]
    NotAnIdentity,
    /// The text is of another version of this program.
    #[error("reading an identity: it is of version {found:?}, this program knows \"hb1\"")]
    Version {
        /// What it begins with.
        found: String,
    },
    /// The text is damaged.
    #[error("reading an identity: it was cut or mistyped ({what})")]
    Damaged {
        /// Where that shows.
        what: &'static str,
    },
    /// A file cannot be read.
    #[error("reading {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("reading {}: {what}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// A key cannot be made.
    #[error("making a key: {0}")]
    Make(String),
}

/// SHA-256 of a public key's `SubjectPublicKeyInfo`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub [u8; 32]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

impl Fingerprint {
    /// Of a DER-encoded `SubjectPublicKeyInfo`.
    #[must_use]
    pub fn of_spki(spki: &[u8]) -> Self {
        Self(sha256(spki))
    }

    /// Of the 32 bytes of an Ed25519 public key.
    #[must_use]
    pub fn of_ed25519(public: &[u8; 32]) -> Self {
        let mut spki = SPKI_PREFIX.to_vec();
        spki.extend_from_slice(public);
        Self::of_spki(&spki)
    }
}

/// How a node is introduced to its peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its name.
    pub name: String,
    /// Which of the two it is.
    pub ordinal: Ordinal,
    /// The pair it belonged to when the line was printed.
    pub pair: PairId,
    /// Its key.
    pub fingerprint: Fingerprint,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body = format!("hb1:{}:{}:{}:{}", self.name, self.ordinal.0, self.pair, self.fingerprint);
        write!(f, "{body}:{:08x}", crc32c(body.as_bytes()))
    }
}

impl FromStr for Identity {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let text = text.trim();
        let damaged = |what| IdentityError::Damaged { what };
        match text.split_once(':') {
            Some(("hb1", _)) if text.len() <= LINE_MAX => {}
            Some(("hb1", _)) => return Err(damaged("it is too long")),
            Some((found, _)) if found.len() <= 8 && found.starts_with("hb") => {
                return Err(IdentityError::Version { found: found.to_owned() });
            }
            _ => return Err(IdentityError::NotAnIdentity),
        }
        let (body, check) = text.rsplit_once(':').ok_or(damaged("a field is missing"))?;
        if format!("{:08x}", crc32c(body.as_bytes())) != check {
            return Err(damaged("its check digits do not fit"));
        }
        let fields: Vec<&str> = body.split(':').collect();
        let [_, name, ordinal, pair, fingerprint] = fields.as_slice() else {
            return Err(damaged("it does not have six fields"));
        };
        let ordinal = match *ordinal {
            "0" => Ordinal(0),
            "1" => Ordinal(1),
            _ => return Err(damaged("its ordinal is not 0 or 1")),
        };
        if !is_node_name(name) {
            return Err(damaged("its name is not allowed"));
        }
        let pair = parse_hex(pair).ok_or(damaged("its pair id is not 32 hexadecimal digits"))?;
        let fingerprint =
            parse_hex(fingerprint).ok_or(damaged("its fingerprint is not 64 hexadecimal digits"))?;
        Ok(Self {
            name: (*name).to_owned(),
            ordinal,
            pair: PairId(pair),
            fingerprint: Fingerprint(fingerprint),
        })
    }
}

/// Reads any text as an identity.
pub fn fuzz_identity(text: &str) {
    if let Ok(identity) = Identity::from_str(text) {
        assert_eq!(identity.to_string(), text.trim());
    }
}

/// The peers' keys that this node accepts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peers {
    /// At most [`PEER_KEYS_MAX`].
    pub identities: Vec<Identity>,
}

impl Peers {
    /// Reads the list; a file that is not there is an empty list.
    ///
    /// # Errors
    /// [`IdentityError::File`] or [`IdentityError::Content`] with the line.
    pub fn load(layout: &Layout) -> Result<Self, IdentityError> {
        Self::load_with_warning(layout).map(|(peers, _)| peers)
    }

    /// The same, and what to warn people of.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub(in crate::node) fn load_with_warning(
        layout: &Layout,
    ) -> Result<(Self, Option<String>), IdentityError> {
        let path = layout.peers();
        match read_text(layout, &path, false) {
            Err(IdentityError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok((Self::default(), None))
            }
            other => Self::parse(&path, &other?),
        }
    }

    /// Reads the text of the list; `path` is for messages.
    ///
    /// # Errors
    /// [`IdentityError::Content`] with the line.
    fn parse(path: &Path, text: &str) -> Result<(Self, Option<String>), IdentityError> {
        let content = |what| IdentityError::Content { path: path.to_owned(), what };
        let warning = whole::check(text, PEERS_MARK).map_err(content)?;
        let mut identities = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let identity = line.parse().map_err(|e| content(format!("line {}: {e}", index + 1)))?;
            if identities.len() == PEER_KEYS_MAX {
                return Err(content(format!(
                    "line {}: at most {PEER_KEYS_MAX} keys are accepted",
                    index + 1
                )));
            }
            identities.push(identity);
        }
        if identities.is_empty() && !text.starts_with(PEERS_MARK) && !text.starts_with(PEERS_HEAD) {
            return Err(content(
                "it lists no key, and does not say that it is whole: it may have been cut off; remove it, and run \
                 `hot-backup trust` with the peer's identity again"
                    .to_owned(),
            ));
        }
        let warning = warning.map(|warning| format!("{}: {warning}", path.display()));
        Ok((Self { identities }, warning))
    }

    /// The file's text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!(
            "{}\n{PEERS_HEAD}, one identity a line, at most two (the present and the\n\
             # next). Added by `hot-backup trust`; remove the line of a key that is no longer to be accepted.\n",
            whole::first_line(PEERS_MARK)
        );
        for identity in &self.identities {
            text.push_str(&identity.to_string());
            text.push('\n');
        }
        text.push_str(whole::END);
        text.push('\n');
        text
    }
}

/// A new key and its certificate, as they are stored.
#[derive(Clone)]
pub struct NewKey {
    /// Private key (PKCS#8 PEM).
    pub key_pem: String,
    /// Certificate (PEM).
    pub certificate_pem: String,
}

impl fmt::Debug for NewKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NewKey(..)")
    }
}

impl NewKey {
    /// A new random key for the node called `name`.
    ///
    /// # Errors
    /// [`IdentityError::Make`].
    pub fn generate(name: &str) -> Result<Self, IdentityError> {
        let make = |error: rcgen::Error| IdentityError::Make(error.to_string());
        Self::of(name, rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).map_err(make)?)
    }

    /// The key that this secret is; the same for the same secret.
    ///
    /// # Errors
    /// [`IdentityError::Make`].
    pub(in crate::node) fn of_secret(name: &str, secret: &[u8; 32]) -> Result<Self, IdentityError> {
        let make = |error: rcgen::Error| IdentityError::Make(error.to_string());
        let der = PrivatePkcs8KeyDer::from([&PKCS8_PREFIX[..], secret].concat());
        let key = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&der, &rcgen::PKCS_ED25519);
        Self::of(name, key.map_err(make)?)
    }

    fn of(name: &str, key: rcgen::KeyPair) -> Result<Self, IdentityError> {
        let make = |error: rcgen::Error| IdentityError::Make(error.to_string());
        let mut params = rcgen::CertificateParams::new(Vec::new()).map_err(make)?;
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let certificate = params.self_signed(&key).map_err(make)?;
        Ok(Self { key_pem: key.serialize_pem(), certificate_pem: certificate.pem() })
    }
}

/// A node's own key, ready to sign.
#[derive(Clone)]
pub struct NodeKey {
    /// The certificate that TLS shows.
    pub certificate: CertificateDer<'static>,
    /// Signs handshakes.
    pub signer: Arc<dyn SigningKey>,
    /// The public key.
    pub public: [u8; 32],
    /// Its fingerprint.
    pub fingerprint: Fingerprint,
}

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeKey({})", self.fingerprint)
    }
}

impl NodeKey {
    /// Reads the node's key and certificate.
    ///
    /// # Errors
    /// [`IdentityError::File`]; [`IdentityError::Content`] if others may read the key, if either is damaged, or if
    /// they do not belong together.
    pub fn load(layout: &Layout) -> Result<Self, IdentityError> {
        let key_pem = Self::load_pem(layout)?;
        let certificate_path = layout.identity_certificate();
        let certificate_pem = read_text(layout, &certificate_path, false)?;
        Self::from_pem(&NewKey { key_pem, certificate_pem })
            .map_err(|what| IdentityError::Content { path: certificate_path, what })
    }

    /// The private key alone, as it is stored.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub(in crate::node) fn load_pem(layout: &Layout) -> Result<String, IdentityError> {
        read_text(layout, &layout.identity_key(), true)
    }

    /// From a key and a certificate in PEM; the error says what is wrong with them.
    ///
    /// # Errors
    /// A sentence about what is wrong.
    pub fn from_pem(pem: &NewKey) -> Result<Self, String> {
        let key = PrivateKeyDer::from_pem_slice(pem.key_pem.as_bytes())
            .map_err(|error| format!("identity.key is no private key: {error}"))?;
        let certificate = CertificateDer::from_pem_slice(pem.certificate_pem.as_bytes())
            .map_err(|error| format!("identity.crt is no certificate: {error}"))?;
        let signer = provider()
            .key_provider
            .load_private_key(key)
            .map_err(|error| format!("identity.key cannot be used: {error}"))?;
        let public = certificate_public_key(&certificate).ok_or("identity.crt holds no Ed25519 key")?;
        let signed_by = signer.public_key().ok_or("identity.key tells no public key")?;
        if spki_public_key(&signed_by) != Some(public) {
            return Err("identity.key and identity.crt do not belong together".to_owned());
        }
        Ok(Self { certificate, signer, public, fingerprint: Fingerprint::of_ed25519(&public) })
    }
}

/// The Ed25519 key in a certificate; `None` for any other key or a damaged certificate.
pub(in crate::node) fn certificate_public_key(certificate: &CertificateDer<'_>) -> Option<[u8; 32]> {
    let parsed = ParsedCertificate::try_from(certificate).ok()?;
    spki_public_key(&parsed.subject_public_key_info())
}

fn spki_public_key(spki: &[u8]) -> Option<[u8; 32]> {
    spki.strip_prefix(&SPKI_PREFIX)?.try_into().ok()
}

/// The cryptography of the whole node: ring, as rustls carries it.
pub(in crate::node) fn provider() -> CryptoProvider {
    rustls::crypto::ring::default_provider()
}

/// Fills `bytes` from the system's generator.
///
/// # Errors
/// [`IdentityError::Make`] if it has none.
pub(in crate::node) fn random(bytes: &mut [u8]) -> Result<(), IdentityError> {
    let failed = |_| IdentityError::Make("the system gives no random bytes".to_owned());
    provider().secure_random.fill(bytes).map_err(failed)
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let suite = rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
    let hash = suite.tls13().map(|suite| suite.common.hash_provider.hash(bytes));
    hash.and_then(|hash| hash.as_ref().try_into().ok()).expect("this suite's hash is SHA-256, of 32 bytes")
}

fn parse_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    // Upper case is refused: a key has one spelling only.
    let plain = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if text.len() != 2 * N || !plain {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// Reads any text as the list of the peer's keys.
pub fn fuzz_peers(text: &str) {
    if let Ok((peers, _)) = Peers::parse(Path::new("peers"), text) {
        assert!(peers.identities.len() <= PEER_KEYS_MAX);
        let again = Peers::parse(Path::new("peers"), &peers.text());
        assert!(
            again.is_ok_and(|again| again == (peers, None)),
            "what is written reads back without a warning"
        );
    }
}

fn read_text(layout: &Layout, path: &Path, secret: bool) -> Result<String, IdentityError> {
    let path_owned = || path.to_owned();
    layout.read_text(path, secret, KEY_FILE_MAX).map_err(|distrust| match distrust {
        Distrust::Io(source) => IdentityError::File { path: path_owned(), source },
        other => IdentityError::Content { path: path_owned(), what: other.to_string() },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Identity {
        Identity {
            name: "node-a.example_1".to_owned(),
            ordinal: Ordinal(1),
            pair: PairId([0xab; 16]),
            fingerprint: Fingerprint([0x5c; 32]),
        }
    }

    #[test]
    fn an_identity_reads_back_with_space_around_it() {
        let line = sample().to_string();
        assert_eq!(line.lines().count(), 1);
        assert_eq!(format!("  {line}\n").parse::<Identity>().expect("good"), sample());
        assert!(
            line.bytes().all(|b| b.is_ascii_alphanumeric() || b":.-_".contains(&b)),
            "safe in a shell: {line}"
        );
    }

    #[test]
    fn every_cut_and_every_changed_character_of_an_identity_is_noticed() {
        let line = sample().to_string();
        for end in 0..line.len() {
            assert!(line[..end].parse::<Identity>().is_err(), "cut at {end}");
            assert!(line[end + 1..].parse::<Identity>().is_err(), "cut before {end}");
            for other in ['0', 'f', 'A', ':', 'é', ' '] {
                let mut bad: Vec<char> = line.chars().collect();
                if bad[end] == other {
                    continue;
                }
                bad[end] = other;
                let bad: String = bad.into_iter().collect();
                fuzz_identity(&bad);
                assert!(bad.trim() == line || bad.parse::<Identity>().is_err(), "{bad}");
            }
        }
        assert!(matches!("hello".parse::<Identity>(), Err(IdentityError::NotAnIdentity)));
        assert!(matches!("hb2:x".parse::<Identity>(), Err(IdentityError::Version { .. })));
        assert!(format!("hb1:{}", "x".repeat(100_000)).parse::<Identity>().is_err());
        // Good check digits do not make bad fields good.
        for body in ["hb1:a:2:0:0", "hb1", "hb1:a:0:00:00", "hb1:a b:0:0:0", "hb1::::", "hb1:a:0:0:0:0"] {
            let text = format!("{body}:{:08x}", crc32c(body.as_bytes()));
            assert!(matches!(text.parse::<Identity>(), Err(IdentityError::Damaged { .. })), "{text}");
        }
    }

    #[test]
    fn a_list_of_peers_that_was_cut_off_anywhere_is_refused_or_still_whole() {
        let mut other = sample();
        other.fingerprint = Fingerprint([0x11; 32]);
        let peers = Peers { identities: vec![sample(), other] };
        let (text, path) = (peers.text(), Path::new("peers"));
        for end in 0..=text.len() {
            match Peers::parse(path, &text[..end]) {
                Ok(found) => assert_eq!(found, (peers.clone(), None), "cut at {end}"),
                Err(error) => {
                    let error = error.to_string();
                    let named = ["cut off", "identity"].iter().any(|word| error.contains(word));
                    assert!(named && error.contains("peers"), "cut at {end}: {error}");
                }
            }
        }
        let empty = Peers::default();
        assert_eq!(Peers::parse(path, &empty.text()).expect("no key is a list too"), (empty, None));
    }

    #[test]
    fn a_list_of_peers_of_version_0_1_is_accepted_with_a_warning() {
        let head = "# The keys of the peer that this node accepts, one identity a line, at most two (the present and \
                    the\n# next). Added by `hot-backup trust`; remove the line of a key that is no longer to be \
                    accepted.\n";
        let path = Path::new("peers");
        let (none, warning) = Peers::parse(path, head).expect("its only key was removed by hand");
        assert!(none.identities.is_empty() && warning.is_some_and(|text| text.contains("# end")));
        let (one, warning) = Peers::parse(path, &format!("{head}{}\n", sample())).expect("one key");
        assert_eq!((one.identities, warning.is_some()), (vec![sample()], true));
        fuzz_peers(head);
    }

    #[test]
    fn the_fingerprint_is_sha_256_of_the_public_key_info() {
        let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"; // FIPS 180-2, B.1
        assert_eq!(Fingerprint::of_spki(b"abc").to_string(), digest);
        let key = NodeKey::from_pem(&NewKey::generate("a").expect("made")).expect("good");
        let parsed = ParsedCertificate::try_from(&key.certificate).expect("parses");
        assert_eq!(Fingerprint::of_spki(&parsed.subject_public_key_info()), key.fingerprint);
    }

    #[test]
    fn a_certificate_of_another_key_is_refused() {
        let (a, b) = (NewKey::generate("a").expect("made"), NewKey::generate("b").expect("made"));
        let mixed = NewKey { key_pem: a.key_pem.clone(), certificate_pem: b.certificate_pem };
        assert!(NodeKey::from_pem(&mixed).expect_err("mixed").contains("belong together"));
        let swapped = NewKey { key_pem: a.certificate_pem, certificate_pem: a.key_pem };
        assert!(NodeKey::from_pem(&swapped).is_err());
        assert!(!format!("{swapped:?}").contains("PRIVATE"));
    }
}

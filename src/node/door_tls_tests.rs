//! Who is let in by the NBD door's TLS, and who is not: a client of rustls against the machine, without sockets.

use super::*;
use crate::base::Prng;
use crate::node::setup::{InitOptions, identity, init, trust};
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection};
use std::path::Path;

/// A pair of nodes that trust each other.
fn pair(dir: &Path) -> [Layout; 2] {
    let layouts = ["a", "b"].map(|name| Layout::new(dir.join(name)));
    for (layout, role, own, peer) in [
        (&layouts[0], "primary", "127.0.0.1:2001", "127.0.0.1:2000"),
        (&layouts[1], "standby", "127.0.0.1:2000", "127.0.0.1:2001"),
    ] {
        let name = if role == "primary" { "a" } else { "b" };
        init(&InitOptions::new(layout.dir(), name, role, own, peer)).unwrap();
    }
    for (own, peer) in [(0, 1), (1, 0)] {
        let line = identity(layouts[peer].dir()).unwrap().to_string();
        trust(layouts[own].dir(), &line).unwrap();
    }
    layouts
}

fn client(credentials: Option<&Credentials>, ca: &str, name: &str) -> ClientConnection {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca.as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let config = match credentials {
        None => builder.with_no_client_auth(),
        Some(credentials) => {
            let chain = CertificateDer::pem_slice_iter(credentials.certificate.as_bytes());
            let key = PrivateKeyDer::from_pem_slice(credentials.key.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain.map(Result::unwrap).collect(), key).unwrap()
        }
    };
    ClientConnection::new(Arc::new(config), ServerName::try_from(name.to_owned()).unwrap()).unwrap()
}

/// Lets both talk until neither has anything to say; what the door heard, or why it ended.
fn talk(door: &mut DoorSession, client: &mut ClientConnection, say: &[u8]) -> Result<Vec<u8>, String> {
    let mut heard = Vec::new();
    let mut said = false;
    for _ in 0..20 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        door.wire_input(&wire, &mut heard).map_err(|error| error.to_string())?;
        let back = door.take_wire();
        let mut rest = back.as_ref();
        while !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            client.process_new_packets().map_err(|error| format!("the client: {error}"))?;
        }
        if door.is_established() && !client.is_handshaking() && !said {
            client.writer().write_all(say).unwrap();
            said = true;
        }
    }
    Ok(heard)
}

#[test]
fn a_client_of_either_node_is_let_in_by_both_and_checks_both() {
    let dir = tempfile::tempdir().unwrap();
    let layouts = pair(dir.path());
    let names = ["a".to_owned(), "localhost".to_owned(), "10.0.0.1".to_owned()];
    let both = format!("{}{}", authority_pem(&layouts[0]).unwrap(), authority_pem(&layouts[1]).unwrap());
    for maker in &layouts {
        let made = credentials(maker, "web1").unwrap();
        for door in &layouts {
            for name in ["localhost", "10.0.0.1", "a"] {
                let mut door = DoorSession::new(config(door, &names).unwrap()).unwrap();
                let mut client = client(Some(&made), &both, name);
                assert_eq!(talk(&mut door, &mut client, b"hello").unwrap(), b"hello");
            }
        }
    }
}

#[test]
fn whoever_has_no_certificate_or_a_strangers_hears_no_plain_word() {
    let dir = tempfile::tempdir().unwrap();
    let strangers = tempfile::tempdir().unwrap();
    let (layouts, others) = (pair(dir.path()), pair(strangers.path()));
    let names = ["localhost".to_owned()];
    let ca = authority_pem(&layouts[0]).unwrap();
    let mut foreign = credentials(&others[0], "web1").unwrap();
    let door = || DoorSession::new(config(&layouts[0], &names).unwrap()).unwrap();
    assert!(talk(&mut door(), &mut client(None, &ca, "localhost"), b"x").is_err());
    assert!(talk(&mut door(), &mut client(Some(&foreign), &ca, "localhost"), b"x").is_err());
    // The name of a trusted key beside a certificate that it did not sign.
    let end = foreign.certificate.find("-----END").unwrap() + "-----END CERTIFICATE-----\n".len();
    foreign.certificate = format!("{}{ca}", foreign.certificate.get(..end).unwrap());
    assert!(talk(&mut door(), &mut client(Some(&foreign), &ca, "localhost"), b"x").is_err());
    // And a client that knows whom it wants is not fooled by another node.
    let made = credentials(&layouts[0], "web1").unwrap();
    let mut other = DoorSession::new(config(&others[0], &names).unwrap()).unwrap();
    assert!(talk(&mut other, &mut client(Some(&made), &ca, "localhost"), b"x").is_err());
}

#[test]
fn any_bytes_prove_nothing_and_are_bounded() {
    let dir = tempfile::tempdir().unwrap();
    let layouts = pair(dir.path());
    let settings = config(&layouts[0], &["localhost".to_owned()]).unwrap();
    let mut prng = Prng::new(7);
    for _ in 0..200 {
        let mut door = DoorSession::new(Arc::clone(&settings)).unwrap();
        let mut plain = Vec::new();
        let mut fed = 0;
        loop {
            let mut bytes: Vec<u8> =
                (0..1 + prng.below(3000)).map(|_| u8::try_from(prng.below(256)).unwrap()).collect();
            if prng.percent(70) {
                bytes.splice(..0, [0x16, 3, 1, 0x10, 0]);
            }
            fed += bytes.len();
            if door.wire_input(&bytes, &mut plain).is_err() {
                break;
            }
            assert!(fed < 2 * HANDSHAKE_MAX, "a handshake without end");
        }
        assert!(!door.is_established() && plain.is_empty());
    }
}

/// The critical extension that says what a certificate's key is for, with one byte of uses.
fn key_usage(pem: &str) -> u8 {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
    let extension = [0x06, 3, 0x55, 0x1D, 0x0F, 0x01, 1, 0xFF, 0x04, 4, 0x03, 2];
    let at = der.windows(extension.len()).position(|bytes| bytes == extension).expect("it is there");
    der[at + extension.len() + 1]
}

#[test]
fn certificates_say_of_their_keys_what_gnutls_and_qemu_ask_for() {
    let dir = tempfile::tempdir().unwrap();
    let layouts = pair(dir.path());
    let made = credentials(&layouts[0], "web1").unwrap();
    // RFC 5280: digitalSignature is 0x80, keyEncipherment 0x20, keyCertSign 0x04.
    assert_eq!(key_usage(&made.certificate), 0x80 | 0x20);
    assert_eq!(key_usage(&made.ca) & 0x04, 0x04);
    let shown = leaf("a", vec!["a".to_owned()], ExtendedKeyUsagePurpose::ServerAuth).unwrap();
    assert_eq!(shown.key_usages, [KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment]);
}

#[test]
fn a_client_whose_certificate_was_made_without_encipherment_is_let_in_as_ever() {
    let dir = tempfile::tempdir().unwrap();
    let layouts = pair(dir.path());
    let (params, key) = authority(&layouts[0]).unwrap();
    let own = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let mut old = leaf("web1", Vec::new(), ExtendedKeyUsagePurpose::ClientAuth).unwrap();
    old.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let ca = params.self_signed(&key).unwrap().pem();
    let certificate = old.signed_by(&own, &Issuer::from_params(&params, &key)).unwrap().pem();
    let made = Credentials { certificate: format!("{certificate}{ca}"), ca, key: own.serialize_pem() };
    let mut door = DoorSession::new(config(&layouts[0], &["a".to_owned()]).unwrap()).unwrap();
    let mut client = client(Some(&made), &made.ca, "a");
    assert_eq!(talk(&mut door, &mut client, b"hello").unwrap(), b"hello");
}

//! What these prove: the right keys meet over any cutting of the wire, in both kinds of link; every wrong peer is
//! refused by its name on both sides; nothing plain comes out before that.

use super::*;
use crate::base::Prng;
use crate::node::identity::NewKey;

const BOTH: [Encryption; 2] = [Encryption::Tls, Encryption::None];

fn key(name: &str) -> NodeKey {
    NodeKey::from_pem(&NewKey::generate(name).expect("made")).expect("good")
}

fn identity(key: &NodeKey, peers: &[&NodeKey], encryption: Encryption) -> LinkIdentity {
    let peers = peers.iter().map(|peer| peer.fingerprint).collect();
    LinkIdentity::new(key.clone(), peers, encryption).expect("an identity")
}

/// Two nodes that trust each other.
fn pair(encryption: Encryption) -> (LinkIdentity, LinkIdentity) {
    let (a, b) = (key("a"), key("b"));
    (identity(&a, &[&b], encryption), identity(&b, &[&a], encryption))
}

struct Wire {
    left: SecureLink,
    right: SecureLink,
    left_plain: Vec<u8>,
    right_plain: Vec<u8>,
    left_error: Option<LinkSecurityError>,
    right_error: Option<LinkSecurityError>,
    /// Everything that the left side put on the wire, for replays.
    recorded: Vec<u8>,
    /// Changes the bytes that go to the right side.
    alter: Option<fn(&mut Vec<u8>)>,
}

impl Wire {
    /// `left` dials.
    fn new(left: &LinkIdentity, right: &LinkIdentity) -> Self {
        Self {
            left: SecureLink::dial(left).expect("dial"),
            right: SecureLink::accept(right).expect("accept"),
            left_plain: Vec::new(),
            right_plain: Vec::new(),
            left_error: None,
            right_error: None,
            recorded: Vec::new(),
            alter: None,
        }
    }

    /// Carries bytes both ways, cut at random, until nothing moves.
    fn run(&mut self, rng: &mut Prng) {
        loop {
            let mut to_right = self.left.take_wire().concat();
            let to_left = self.right.take_wire().concat();
            if to_right.is_empty() && to_left.is_empty() {
                return;
            }
            self.recorded.extend_from_slice(&to_right);
            if let Some(alter) = self.alter {
                alter(&mut to_right);
            }
            feed(&mut self.right, &to_right, &mut self.right_plain, &mut self.right_error, rng);
            feed(&mut self.left, &to_left, &mut self.left_plain, &mut self.left_error, rng);
        }
    }

    fn met(&self) -> bool {
        self.left.is_established() && self.right.is_established()
    }
}

fn feed(
    link: &mut SecureLink,
    mut bytes: &[u8],
    plain: &mut Vec<u8>,
    error: &mut Option<LinkSecurityError>,
    rng: &mut Prng,
) {
    while !bytes.is_empty() {
        let longest = if rng.percent(50) { 7 } else { 40_000 };
        let step = usize::try_from(1 + rng.below(longest)).expect("fits").min(bytes.len());
        let (now, later) = bytes.split_at(step);
        bytes = later;
        let was_established = link.is_established();
        if let Err(new) = link.wire_input(now) {
            error.get_or_insert(new);
        }
        if let Some(new) = link.take_plain() {
            assert!(was_established || link.is_established(), "nothing plain from an unknown peer");
            plain.extend_from_slice(&new);
        }
    }
}

fn noise(rng: &mut Prng, len: usize) -> Vec<u8> {
    (0..len).map(|_| rng.next_u64().to_le_bytes()[0]).collect()
}

#[test]
fn nodes_that_trust_each_other_meet_and_talk_over_any_cutting() {
    for encryption in BOTH {
        let (a, b) = pair(encryption);
        for seed in 0..20 {
            let mut rng = Prng::new(seed);
            let mut wire = Wire::new(&a, &b);
            assert!(matches!(wire.left.send_plain(&[]), Err(LinkSecurityError::NotEstablished)));
            wire.run(&mut rng);
            assert!(wire.met(), "{:?} {:?}", wire.left_error, wire.right_error);
            assert_eq!(wire.left.peer_fingerprint(), Some(b.pins.own));
            assert_eq!(wire.right.peer_fingerprint(), Some(a.pins.own));
            let (mut said_left, mut said_right) = (Vec::new(), Vec::new());
            for _ in 0..5 {
                for (link, said) in [(&mut wire.left, &mut said_left), (&mut wire.right, &mut said_right)] {
                    let parts: Vec<Bytes> = (0..rng.below(5))
                        .map(|_| {
                            let len = usize::try_from(rng.below(70_000)).expect("fits");
                            Bytes::from(noise(&mut rng, len))
                        })
                        .collect();
                    link.send_plain(&parts).expect("established");
                    said.extend(parts.concat());
                }
                wire.run(&mut rng);
            }
            assert!(wire.right_plain == said_left && wire.left_plain == said_right, "all arrives, in order");
            assert!(wire.left_error.is_none() && wire.right_error.is_none());
            let on_wire = wire.recorded.windows(64).any(|window| said_left.starts_with(window));
            assert_eq!(on_wire, encryption == Encryption::None && said_left.len() >= 64, "encrypted or not");
        }
    }
}

#[test]
fn a_second_accepted_key_is_as_good_as_the_first() {
    for encryption in BOTH {
        let (a, old, new) = (key("a"), key("b"), key("b"));
        let a_identity = identity(&a, &[&old, &new], encryption);
        for b in [old, new] {
            let mut wire = Wire::new(&identity(&b, &[&a], encryption), &a_identity);
            wire.run(&mut Prng::new(1));
            assert!(wire.met());
        }
    }
}

#[test]
fn a_key_that_is_not_trusted_is_named_on_both_sides() {
    for encryption in BOTH {
        let (a, b, stranger) = (key("a"), key("b"), key("s"));
        let good = identity(&a, &[&b], encryption);
        let bad = identity(&stranger, &[&a], encryption);
        let mut wire = Wire::new(&bad, &good);
        wire.run(&mut Prng::new(1));
        let wrong = |error: &Option<LinkSecurityError>| matches!(error, Some(LinkSecurityError::WrongKey { fingerprint }) if *fingerprint == stranger.fingerprint);
        assert!(wrong(&wire.right_error), "{:?}", wire.right_error);
        assert!(matches!(wire.left_error, Some(LinkSecurityError::NotTrustedThere)), "{:?}", wire.left_error);
        let mut wire = Wire::new(&good, &bad);
        wire.run(&mut Prng::new(2));
        assert!(wrong(&wire.left_error), "{:?}", wire.left_error);
        assert!(
            matches!(wire.right_error, Some(LinkSecurityError::NotTrustedThere)),
            "{:?}",
            wire.right_error
        );
        assert!(!wire.left.is_established() && !wire.right.is_established());
        assert!(wire.left.peer_fingerprint().is_none());
    }
}

#[test]
fn a_node_never_talks_to_itself() {
    for encryption in BOTH {
        let (a, b) = (key("a"), key("b"));
        // Even if its own key came onto its list.
        let itself = identity(&a, &[&b, &a], encryption);
        let mut wire = Wire::new(&itself, &itself);
        wire.run(&mut Prng::new(1));
        let errors = [wire.left_error.take(), wire.right_error.take()];
        assert!(
            errors.iter().flatten().any(|error| matches!(error, LinkSecurityError::OwnKey)),
            "{errors:?}"
        );
        assert!(!wire.left.is_established() && !wire.right.is_established());
        // Its own bytes sent back to it.
        let mut link = SecureLink::dial(&itself).expect("dial");
        let reflected = link.take_wire().concat();
        assert!(link.wire_input(&reflected).is_err());
    }
}

#[test]
fn showing_a_trusted_key_without_holding_it_is_not_enough() {
    for encryption in BOTH {
        let (a, b, thief) = (key("a"), key("b"), key("t"));
        let good = identity(&a, &[&b], encryption);
        let stolen = NodeKey { signer: thief.signer.clone(), ..b.clone() };
        let bad = identity(&stolen, &[&a], encryption);
        let mut wire = Wire::new(&bad, &good);
        wire.run(&mut Prng::new(1));
        assert!(matches!(wire.right_error, Some(LinkSecurityError::BadProof)), "{:?}", wire.right_error);
        assert!(
            matches!(wire.left_error, Some(LinkSecurityError::PeerGaveUp { .. })),
            "{:?}",
            wire.left_error
        );
        let mut wire = Wire::new(&good, &bad);
        wire.run(&mut Prng::new(2));
        assert!(matches!(wire.left_error, Some(LinkSecurityError::BadProof)), "{:?}", wire.left_error);
        assert!(!wire.left.is_established() && !wire.right.is_established());
    }
}

#[test]
fn unlike_encryption_is_named_on_both_sides() {
    let (a, b) = (key("a"), key("b"));
    let made = |encryption| (identity(&a, &[&b], encryption), identity(&b, &[&a], encryption));
    let ((tls_a, tls_b), (plain_a, plain_b)) = (made(Encryption::Tls), made(Encryption::None));
    for seed in 0..10 {
        let mut wire = Wire::new(&plain_a, &tls_b);
        wire.run(&mut Prng::new(seed));
        assert!(matches!(wire.right_error, Some(LinkSecurityError::PeerIsPlain)), "{:?}", wire.right_error);
        assert!(matches!(wire.left_error, Some(LinkSecurityError::PeerIsTls)), "{:?}", wire.left_error);
        let mut wire = Wire::new(&tls_a, &plain_b);
        wire.run(&mut Prng::new(seed));
        assert!(matches!(wire.right_error, Some(LinkSecurityError::PeerIsTls)), "{:?}", wire.right_error);
        assert!(matches!(wire.left_error, Some(LinkSecurityError::PeerIsPlain)), "{:?}", wire.left_error);
    }
}

#[test]
fn another_program_at_the_address_is_named_at_its_first_bytes() {
    for encryption in BOTH {
        let (a, _) = pair(encryption);
        for greeting in
            ["GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 400", "*1\r\n$4\r\nPING\r\n", "SSH-2.0-x\r\n", "HBp2", "\0"]
        {
            for mut link in [SecureLink::dial(&a).expect("dial"), SecureLink::accept(&a).expect("accept")] {
                let error = link.wire_input(greeting.as_bytes()).expect_err("refused");
                assert!(matches!(error, LinkSecurityError::NotALink), "{greeting:?}: {error:?}");
                assert!(matches!(link.wire_input(b"x"), Err(LinkSecurityError::Closed)));
            }
        }
    }
    // Bytes that look like TLS at first.
    let (a, _) = pair(Encryption::Tls);
    let mut link = SecureLink::accept(&a).expect("accept");
    let error =
        link.wire_input(b"\x16\x03\x01\x00\x20abcdefghijklmnopqrstuvwxyzabcdefghij").expect_err("refused");
    assert!(matches!(error, LinkSecurityError::NotALink), "{error:?}");
}

/// A `ClientHello` as TLS 1.2 clients send it (RFC 5246, section 7.4.1.2): no `supported_versions`.
fn tls12_hello() -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]); // random
    body.push(0); // session id
    body.extend([0, 2, 0xc0, 0x2f]); // ECDHE-RSA-AES128-GCM-SHA256
    body.extend([1, 0]); // no compression
    let extensions = [
        0, 10, 0, 4, 0, 2, 0, 29, // supported_groups: x25519
        0, 11, 0, 2, 1, 0, // ec_point_formats: uncompressed
        0, 13, 0, 4, 0, 2, 4, 3, // signature_algorithms: ecdsa_secp256r1_sha256
    ];
    body.extend([0, u8::try_from(extensions.len()).expect("short")]);
    body.extend(extensions);
    record(1, &body)
}

fn record(kind: u8, body: &[u8]) -> Vec<u8> {
    let len = u8::try_from(body.len()).expect("short");
    let mut bytes = vec![0x16, 3, 1, 0, len + 4, kind, 0, 0, len];
    bytes.extend_from_slice(body);
    bytes
}

#[test]
fn a_peer_that_knows_only_tls_1_2_is_named() {
    let (a, _) = pair(Encryption::Tls);
    let mut link = SecureLink::accept(&a).expect("accept");
    let error = link.wire_input(&tls12_hello()).expect_err("refused");
    assert!(matches!(error, LinkSecurityError::Incompatible { .. }), "{error:?}");
    assert_eq!(link.take_wire().concat().first(), Some(&0x15), "the peer is told by an alert");
    let mut link = SecureLink::dial(&a).expect("dial");
    let mut hello = vec![3, 3];
    hello.extend([7; 32]);
    hello.extend([0, 0xc0, 0x2f, 0]); // no session id, a suite of TLS 1.2, no compression
    let error = link.wire_input(&record(2, &hello)).expect_err("refused");
    let named = matches!(error, LinkSecurityError::Incompatible { .. } | LinkSecurityError::Protocol { .. });
    assert!(named, "{error:?}");
}

#[test]
fn a_handshake_cut_anywhere_proves_nothing() {
    for encryption in BOTH {
        let (a, b) = pair(encryption);
        let mut whole = Wire::new(&a, &b);
        whole.run(&mut Prng::new(3));
        let handshake = whole.recorded.clone();
        assert!(whole.met());
        for cut in 0..handshake.len() {
            // The first flight is new in every connection, so each cut gets its own.
            let mut wire = Wire::new(&a, &b);
            let mut sent = 0;
            loop {
                let flight = wire.left.take_wire().concat();
                let take = flight.len().min(cut - sent);
                sent += take;
                wire.right.wire_input(&flight[..take]).expect("good so far");
                if take < flight.len() {
                    break;
                }
                wire.left.wire_input(&wire.right.take_wire().concat()).expect("good so far");
            }
            assert!(!wire.right.is_established(), "cut at {cut} of {}", handshake.len());
            assert!(matches!(wire.right.wire_end(), Err(LinkSecurityError::CutInHandshake)));
            assert!(matches!(wire.right.wire_input(b"x"), Err(LinkSecurityError::Closed)));
        }
    }
}

#[test]
fn a_recorded_handshake_is_of_no_use() {
    for encryption in BOTH {
        let (a, b) = pair(encryption);
        let mut wire = Wire::new(&a, &b);
        wire.run(&mut Prng::new(3));
        assert!(wire.met());
        wire.left.send_plain(&[Bytes::from_static(b"attack at dawn")]).expect("established");
        wire.run(&mut Prng::new(3));
        let mut victim = SecureLink::accept(&b).expect("accept");
        let error = victim.wire_input(&wire.recorded).expect_err("its answer is another one now");
        let named = match encryption {
            Encryption::Tls => matches!(error, LinkSecurityError::Altered),
            Encryption::None => matches!(error, LinkSecurityError::BadProof),
        };
        assert!(named, "{error:?}");
        assert!(!victim.is_established() && victim.take_plain().is_none());
    }
}

#[test]
fn one_sides_signature_cannot_be_used_as_the_others() {
    // Somebody between the two nodes swaps the roles: what the accepting side signed comes back as the dialler's.
    let (a, b) = pair(Encryption::None);
    let mut dialler = SecureLink::dial(&a).expect("dial");
    let mut acceptor = SecureLink::accept(&b).expect("accept");
    acceptor.wire_input(&dialler.take_wire().concat()).expect("a good hello");
    let answer = acceptor.take_wire().concat();
    let mut forged = PLAIN_MAGIC.to_vec();
    forged.push(b'S');
    forged.extend_from_slice(&answer[answer.len() - 64..]);
    assert!(matches!(acceptor.wire_input(&forged), Err(LinkSecurityError::BadProof)));
}

#[test]
fn too_many_bytes_before_the_proof_end_the_link() {
    let (a, _) = pair(Encryption::Tls);
    let sides = [(SecureLink::dial(&a).expect("dial"), 2), (SecureLink::accept(&a).expect("accept"), 1)];
    for (mut link, kind) in sides {
        // A hello that claims 65280 bytes, in records of 1000: rustls alone would hold all of it.
        let mut taken = 0;
        let error = loop {
            let mut piece = vec![0x16, 3, 3, 0x03, 0xe8];
            piece.extend(if taken == 0 { [kind, 0, 0xff, 0] } else { [0; 4] });
            piece.extend([0; 996]);
            match link.wire_input(&piece) {
                Ok(()) => taken += piece.len(),
                Err(error) => break error,
            }
            assert!(taken <= HANDSHAKE_MAX);
        };
        assert!(matches!(error, LinkSecurityError::HandshakeTooLong { .. }), "{error:?}");
    }
    let mut link = SecureLink::accept(&a).expect("accept");
    // Records without end that say nothing.
    let flood = [0x16, 3, 3, 0, 1, 1].repeat(HANDSHAKE_MAX);
    assert!(link.wire_input(&flood).is_err());
}

#[test]
fn a_key_holder_that_does_not_greet_as_a_node_is_refused() {
    let (a, b) = pair(Encryption::Tls);
    for (greeting, met) in [("HBok", true), ("HBno", false), ("HTTP", false)] {
        let mut link = SecureLink::dial(&a).expect("dial");
        let mut server = rustls::ServerConnection::new(b.configs.accept.clone()).expect("server");
        let mut result = Ok(());
        for _ in 0..3 {
            let bytes = link.take_wire().concat();
            let mut rest = bytes.as_slice();
            while !rest.is_empty() {
                server.read_tls(&mut rest).expect("room");
                server.process_new_packets().expect("a good client");
            }
            let mut answer = Vec::new();
            if !server.is_handshaking() && result.is_ok() && !link.is_established() {
                std::io::Write::write_all(&mut server.writer(), greeting.as_bytes()).expect("room");
            }
            while server.wants_write() {
                server.write_tls(&mut answer).expect("memory");
            }
            if !answer.is_empty() {
                result = link.wire_input(&answer);
            }
        }
        assert_eq!(link.is_established(), met, "{greeting}: {result:?}");
        assert_eq!(matches!(result, Err(LinkSecurityError::Protocol { .. })), !met, "{result:?}");
    }
}

#[test]
fn altered_bytes_end_an_encrypted_link_by_name() {
    let (a, b) = pair(Encryption::Tls);
    let mut wire = Wire::new(&a, &b);
    wire.run(&mut Prng::new(3));
    wire.alter = Some(|bytes| {
        let middle = bytes.len() / 2;
        if let Some(byte) = bytes.get_mut(middle) {
            *byte ^= 1;
        }
    });
    wire.left.send_plain(&[Bytes::from_static(&[5; 100])]).expect("established");
    wire.run(&mut Prng::new(4));
    assert!(matches!(wire.right_error, Some(LinkSecurityError::Altered)), "{:?}", wire.right_error);
    assert!(wire.right_plain.is_empty());
    assert!(matches!(wire.left_error, Some(LinkSecurityError::PeerGaveUp { .. })), "{:?}", wire.left_error);
    assert!(matches!(wire.left.send_plain(&[]), Err(LinkSecurityError::Closed)));
}

#[test]
fn a_goodbye_tells_an_end_from_a_cut() {
    let (a, b) = pair(Encryption::Tls);
    for goodbye in [true, false] {
        let mut wire = Wire::new(&a, &b);
        wire.run(&mut Prng::new(3));
        wire.left.send_plain(&[Bytes::from_static(b"last words")]).expect("established");
        if goodbye {
            wire.left.close();
            wire.left.close();
            assert!(matches!(wire.left.send_plain(&[]), Err(LinkSecurityError::Closed)));
        }
        wire.run(&mut Prng::new(5));
        assert_eq!(
            (wire.right_plain.as_slice(), wire.right.peer_closed()),
            (b"last words".as_slice(), goodbye)
        );
        // The other direction still works.
        wire.right.send_plain(&[Bytes::from_static(b"echo")]).expect("open");
        wire.run(&mut Prng::new(6));
        assert_eq!(wire.left_plain, b"echo");
        assert_eq!(wire.right.wire_end().is_ok(), goodbye);
    }
}

#[test]
fn nobody_is_reached_before_a_peer_is_trusted() {
    let lonely = identity(&key("a"), &[], Encryption::Tls);
    assert!(matches!(SecureLink::dial(&lonely), Err(LinkSecurityError::NoPeer)));
    assert!(matches!(SecureLink::accept(&lonely), Err(LinkSecurityError::NoPeer)));
}

#[test]
fn any_bytes_are_taken_without_a_panic_and_prove_nothing() {
    let mut rng = Prng::new(17);
    let (tls_a, tls_b) = pair(Encryption::Tls);
    let (plain_a, plain_b) = pair(Encryption::None);
    let mut seeds = vec![tls12_hello(), Vec::new()];
    for (a, b) in [(&tls_a, &tls_b), (&plain_a, &plain_b)] {
        let mut wire = Wire::new(a, b);
        wire.run(&mut rng);
        seeds.push(wire.recorded);
    }
    let identities = [tls_b, plain_b];
    for round in 0..1500_usize {
        let mut bytes = seeds[round % seeds.len()].clone();
        for _ in 0..=rng.below(4) {
            let len = usize::try_from(rng.below(40)).expect("fits");
            let at = usize::try_from(rng.below(bytes.len() as u64 + 1)).expect("fits");
            let piece = noise(&mut rng, len);
            match rng.below(3) {
                0 => bytes.truncate(at),
                1 => drop(bytes.splice(at..at, piece)),
                _ => bytes.iter_mut().skip(at).zip(piece).for_each(|(byte, new)| *byte = new),
            }
        }
        // Which link, and which side of it.
        bytes.insert(0, u8::try_from(rng.below(4)).expect("fits"));
        fuzz_link(&identities, &bytes);
    }
}

/// Not a test of anything but speed: `cargo test --release speed_of_a_link -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement, printed, for release builds"]
fn speed_of_a_link() {
    for encryption in BOTH {
        let (a, b) = pair(encryption);
        let mut wire = Wire::new(&a, &b);
        wire.run(&mut Prng::new(1));
        let piece = Bytes::from(noise(&mut Prng::new(2), 64 << 10));
        let (mut sending, mut receiving, mut total) =
            (std::time::Duration::ZERO, std::time::Duration::ZERO, 0);
        for _ in 0..32_768 {
            let start = std::time::Instant::now();
            wire.left.send_plain(std::slice::from_ref(&piece)).expect("established");
            let sent = wire.left.take_wire();
            sending += start.elapsed();
            let start = std::time::Instant::now();
            for part in sent {
                wire.right.wire_input(&part).expect("good");
            }
            total += wire.right.take_plain().map_or(0, |plain| plain.len());
            receiving += start.elapsed();
        }
        let rate = |time: std::time::Duration| total as f64 / time.as_secs_f64() / 1e9;
        println!("{encryption:?}: send {:.2} GB/s, receive {:.2} GB/s", rate(sending), rate(receiving));
    }
}

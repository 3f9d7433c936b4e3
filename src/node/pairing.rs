//! Two machines are introduced by one short code: the first shows it and listens, a person types it on the second.
//!
//! SPAKE2 (RFC 9382) makes of the code a key that both have and nobody else: who listens on the wire cannot find the code by
//! trying, who is in between or calls without it has one guess for each connection, and only [`PAIRING_TRIES`] of them. With
//! that key each side proves its identity line, which `trust` then takes as if a person had carried it. Nothing of the code
//! is kept. The first listens where its node will, so that the way there is tried too; when the second was let in, the first
//! calls at the second's address, for the way back.

use super::identity::{Identity, IdentityError, random};
use super::peer_address::PeerAddress;
use crate::base::limits::{
    PAIRING_CALL_MS, PAIRING_CALLERS_MAX, PAIRING_RETRY_MS, PAIRING_TRIES, PAIRING_WAY_BACK_MS,
};
use crate::base::plainly;
use crate::format::pairing::{PAIRING_HEAD, PairingMessage};
use ring::hmac;
use spake2::{Ed25519Group, Identity as Side, Password, Spake2};
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

const FIRST: &[u8] = b"hot-backup first";
const SECOND: &[u8] = b"hot-backup second";
const WAY_BACK: &[u8] = b"hot-backup way back";
/// Digits of a code.
const DIGITS: usize = 8;

/// Why two machines were not introduced. Nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PairingError {
    /// The own port cannot be had.
    #[error("listening on {address}: {}", plainly(source))]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// Nobody came, or nobody was there, in time.
    #[error("{doing}: not within {} s{last}", within.as_secs())]
    TooLate {
        /// What was being done.
        doing: String,
        /// The time.
        within: Duration,
        /// What came back last, behind a colon.
        last: String,
    },
    /// A wrong code was typed, or somebody else called.
    #[error("introducing the machines: the code that was typed is not the one that the other machine shows")]
    WrongCode,
    /// Too many wrong codes.
    #[error("introducing the machines: {PAIRING_TRIES} wrong codes came; this one does not count any more")]
    TooManyTries,
    /// Both are the same node.
    #[error("introducing the machines: this very node answers there")]
    OwnIdentity,
    /// An identity cannot be made or read.
    #[error("introducing the machines: {0}")]
    Identity(#[from] IdentityError),
}

impl PairingError {
    /// What to do next, for people.
    #[must_use]
    pub fn next(&self) -> &'static str {
        match self {
            Self::Listen { source, .. } if source.kind() == ErrorKind::AddrInUse => {
                "if the node runs already, stop it, or introduce the nodes by `hot-backup identity` and `hot-backup trust`"
            }
            Self::Listen { .. } => "--listen names an address of this machine",
            Self::TooLate { .. } => {
                "look whether the other machine waits with its code, and whether --peer leads there through all firewalls"
            }
            Self::WrongCode | Self::TooManyTries => {
                "run `hot-backup setup` again on the machine that showed the code, and type the new one"
            }
            Self::OwnIdentity => "--peer has to lead to the other machine",
            Self::Identity(_) => "check the directory given with --dir",
        }
    }
}

/// What a person types on the second machine. It is never printed but by [`Code::shown`].
#[derive(Clone, PartialEq, Eq)]
pub struct Code(String);

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Code(..)")
    }
}

impl Code {
    /// A new one.
    ///
    /// # Errors
    /// [`IdentityError::Make`] if the system gives no random bytes.
    pub fn new() -> Result<Self, IdentityError> {
        let mut bytes = [0; 16];
        random(&mut bytes)?;
        // Of so many bits the remainder is as good as even.
        Ok(Self(format!("{:08}", u128::from_le_bytes(bytes) % 100_000_000)))
    }

    /// As it was typed, with or without what stands between its digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits: String = text.chars().filter(|c| !c.is_whitespace() && *c != '-').collect();
        (digits.len() == DIGITS && digits.bytes().all(|b| b.is_ascii_digit())).then_some(Self(digits))
    }

    /// For the person who types it.
    #[must_use]
    pub fn shown(&self) -> String {
        let (first, second) = self.0.split_at(DIGITS / 2);
        format!("{first}-{second}")
    }

    fn password(&self) -> Password {
        Password::new(self.0.as_bytes())
    }
}

/// Two machines that know each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introduced {
    /// The other.
    pub peer: Identity,
    /// Whether the first machine reached the second at its own port, as it has to after a takeover.
    pub way_back: bool,
}

/// What was agreed on in a connection.
struct Shared {
    key: hmac::Key,
    transcript: Vec<u8>,
}

impl Shared {
    fn new(key: &[u8], first: &[u8], second: &[u8]) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, key), transcript: [first, second].concat() }
    }

    fn text(&self, side: &[u8], line: &str) -> Vec<u8> {
        [side, &self.transcript, line.as_bytes()].concat()
    }

    fn identify(&self, side: &[u8], own: &Identity) -> PairingMessage {
        let line = own.to_string();
        PairingMessage::Identify { proof: self.proof(side, &line), line }
    }

    fn proof(&self, side: &[u8], line: &str) -> [u8; 32] {
        let tag = hmac::sign(&self.key, &self.text(side, line));
        tag.as_ref().try_into().expect("this tag has 32 bytes")
    }

    /// The other's identity, if it knows the code.
    fn believe(&self, side: &[u8], message: &PairingMessage) -> Option<Identity> {
        let PairingMessage::Identify { proof, line } = message else { return None };
        hmac::verify(&self.key, &self.text(side, line), proof).ok()?;
        line.parse().ok()
    }
}

/// A connection that has until a moment.
struct Call {
    stream: TcpStream,
    until: Instant,
}

impl Call {
    fn new(stream: TcpStream, patience: Duration) -> Self {
        Self { stream, until: Instant::now() + patience }
    }

    fn left(&self) -> io::Result<Duration> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
    }

    fn say(&mut self, message: &PairingMessage) -> io::Result<()> {
        self.stream.set_write_timeout(Some(self.left()?))?;
        self.stream.write_all(&message.encode())
    }

    fn read(&mut self, mut buffer: &mut [u8]) -> io::Result<()> {
        while !buffer.is_empty() {
            self.stream.set_read_timeout(Some(self.left()?))?;
            match self.stream.read(buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(read) => buffer = buffer.split_at_mut(read).1,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn hear(&mut self) -> io::Result<PairingMessage> {
        let bad = |error| io::Error::new(ErrorKind::InvalidData, error);
        let mut bytes = vec![0; PAIRING_HEAD];
        self.read(&mut bytes)?;
        let head = bytes.first_chunk().expect("so many were read");
        let len = PairingMessage::body_len(head).map_err(bad)?;
        bytes.resize(PAIRING_HEAD + len, 0);
        self.read(&mut bytes[PAIRING_HEAD..])?;
        PairingMessage::decode(&bytes).map_err(bad)
    }
}

/// Accepts a connection until a moment; `None` when it is there.
fn accept(listener: &TcpListener, until: Instant) -> io::Result<Option<(TcpStream, SocketAddr)>> {
    listener.set_nonblocking(true)?;
    loop {
        match listener.accept() {
            Ok((stream, from)) => {
                stream.set_nonblocking(false)?;
                return Ok(Some((stream, from)));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if Instant::now() >= until {
                    return Ok(None);
                }
                thread::sleep(Duration::from_millis(PAIRING_RETRY_MS / 10));
            }
            // Of a caller that is gone already.
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
            Err(error) => return Err(error),
        }
    }
}

fn bind(address: SocketAddr) -> Result<TcpListener, PairingError> {
    TcpListener::bind(address).map_err(|source| PairingError::Listen { address, source })
}

/// What became of a caller.
enum Caller {
    Introduced(Introduced),
    /// It proved a wrong code.
    Wrong,
    /// It did not come so far.
    Gone(io::Error),
}

/// The first machine: waits at its own `listen` until somebody proves the code, for `patience` at most. `told` hears of callers
/// that were refused.
///
/// # Errors
/// [`PairingError`].
pub fn offer(
    (listen, peer): (SocketAddr, &PeerAddress),
    own: &Identity,
    code: &Code,
    patience: Duration,
    mut told: impl FnMut(String),
) -> Result<Introduced, PairingError> {
    let listener = bind(listen)?;
    let until = Instant::now() + patience;
    let mut tries = 0;
    for _ in 0..PAIRING_CALLERS_MAX {
        let caller =
            accept(&listener, until).map_err(|source| PairingError::Listen { address: listen, source })?;
        let Some((stream, from)) = caller else { break };
        let call = Call::new(stream, Duration::from_millis(PAIRING_CALL_MS));
        match receive(call, peer, own, code) {
            Caller::Introduced(introduced) if introduced.peer.fingerprint == own.fingerprint => {
                return Err(PairingError::OwnIdentity);
            }
            Caller::Introduced(introduced) => return Ok(introduced),
            Caller::Wrong => {
                tries += 1;
                told(format!("{from} has a wrong code"));
                if tries == PAIRING_TRIES {
                    return Err(PairingError::TooManyTries);
                }
            }
            Caller::Gone(error) => told(format!("{from} was no machine of this pair: {}", plainly(&error))),
        }
    }
    let doing = format!("waiting for the other machine at {listen}");
    Err(PairingError::TooLate { doing, within: patience, last: String::new() })
}

fn receive(mut call: Call, peer: &PeerAddress, own: &Identity, code: &Code) -> Caller {
    let (state, message) =
        Spake2::<Ed25519Group>::start_a(&code.password(), &Side::new(FIRST), &Side::new(SECOND));
    let Ok(greet) = message.try_into() else { return Caller::Gone(ErrorKind::InvalidData.into()) };
    let heard = call.say(&PairingMessage::Greet(greet)).and_then(|()| call.hear());
    let theirs = match heard {
        Ok(PairingMessage::Greet(theirs)) => theirs,
        Ok(_) => return Caller::Gone(ErrorKind::InvalidData.into()),
        Err(error) => return Caller::Gone(error),
    };
    let Ok(key) = state.finish(&theirs) else { return Caller::Gone(ErrorKind::InvalidData.into()) };
    let shared = Shared::new(&key, &greet, &theirs);
    // Who called proves first: a guess shows before anything was said that could be guessed at.
    let found = match call.hear() {
        Ok(message) => shared.believe(SECOND, &message),
        Err(error) => return Caller::Gone(error),
    };
    let Some(found) = found else { return Caller::Wrong };
    let last = call.say(&shared.identify(FIRST, own)).and_then(|()| {
        call_back(peer, &shared);
        call.hear()
    });
    // The other one has believed this one when it says anything more.
    match last {
        Ok(PairingMessage::Reached(way_back)) => Caller::Introduced(Introduced { peer: found, way_back }),
        Ok(_) => Caller::Gone(ErrorKind::InvalidData.into()),
        Err(error) => Caller::Gone(error),
    }
}

/// Shows the other machine that this one finds the way to its port. It says itself whether that came.
fn call_back(peer: &PeerAddress, shared: &Shared) {
    let patience = Duration::from_millis(PAIRING_WAY_BACK_MS) / 2;
    for address in peer.look_up().unwrap_or_default() {
        if let Ok(stream) = TcpStream::connect_timeout(&address, patience) {
            let proof = shared.proof(WAY_BACK, "");
            let message = PairingMessage::Identify { proof, line: String::new() };
            if Call::new(stream, patience).say(&message).is_ok() {
                return;
            }
        }
    }
}

/// The second machine: calls at `peer` until the first one is there, for `patience` at most, and proves the code.
///
/// # Errors
/// [`PairingError`].
pub fn join(
    (listen, peer): (SocketAddr, &PeerAddress),
    own: &Identity,
    code: &Code,
    patience: Duration,
) -> Result<Introduced, PairingError> {
    let listener = bind(listen)?;
    let until = Instant::now() + patience;
    let mut last = String::new();
    while Instant::now() < until {
        for address in peer.look_up().unwrap_or_else(|error| {
            last = format!(": {}", plainly(&error));
            Vec::new()
        }) {
            let met = TcpStream::connect_timeout(&address, Duration::from_millis(PAIRING_CALL_MS))
                .and_then(|stream| meet(stream, &listener, own, code));
            match met {
                Ok(Some(introduced)) if introduced.peer.fingerprint == own.fingerprint => {
                    return Err(PairingError::OwnIdentity);
                }
                Ok(Some(introduced)) => return Ok(introduced),
                Ok(None) => return Err(PairingError::WrongCode),
                Err(error) => last = format!(": {}", plainly(&error)),
            }
        }
        thread::sleep(Duration::from_millis(PAIRING_RETRY_MS));
    }
    Err(PairingError::TooLate {
        doing: format!("calling the other machine at {peer}"),
        within: patience,
        last,
    })
}

/// Nothing if the code is wrong.
fn meet(
    stream: TcpStream,
    listener: &TcpListener,
    own: &Identity,
    code: &Code,
) -> io::Result<Option<Introduced>> {
    let invalid = || io::Error::from(ErrorKind::InvalidData);
    let mut call = Call::new(stream, Duration::from_millis(PAIRING_CALL_MS));
    let (state, message) =
        Spake2::<Ed25519Group>::start_b(&code.password(), &Side::new(FIRST), &Side::new(SECOND));
    let PairingMessage::Greet(theirs) = call.hear()? else { return Err(invalid()) };
    let greet = message.try_into().map_err(|_| invalid())?;
    call.say(&PairingMessage::Greet(greet))?;
    let key = state.finish(&theirs).map_err(|_| invalid())?;
    let shared = Shared::new(&key, &theirs, &greet);
    call.say(&shared.identify(SECOND, own))?;
    // From here on the first machine has judged the code: if it ends without a word, it was wrong.
    let Ok(answer) = call.hear() else { return Ok(None) };
    let Some(peer) = shared.believe(FIRST, &answer) else { return Ok(None) };
    let way_back = is_called_back(listener, &shared);
    call.say(&PairingMessage::Reached(way_back))?;
    Ok(Some(Introduced { peer, way_back }))
}

/// Whether the first machine comes in at this one's own port. Strangers that do are not it.
fn is_called_back(listener: &TcpListener, shared: &Shared) -> bool {
    let until = Instant::now() + Duration::from_millis(PAIRING_WAY_BACK_MS);
    while let Ok(Some((stream, _))) = accept(listener, until) {
        let left = until.saturating_duration_since(Instant::now());
        let heard = Call::new(stream, left).hear();
        if let Ok(PairingMessage::Identify { proof, line }) = heard
            && line.is_empty()
            && hmac::verify(&shared.key, &shared.text(WAY_BACK, ""), &proof).is_ok()
        {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Ordinal;
    use crate::format::PairId;
    use crate::node::identity::Fingerprint;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn identity(name: &str, ordinal: u8) -> Identity {
        let fingerprint = Fingerprint([ordinal + 1; 32]);
        Identity {
            name: name.to_owned(),
            ordinal: Ordinal(ordinal),
            pair: PairId([ordinal; 16]),
            fingerprint,
        }
    }

    fn addresses() -> [SocketAddr; 2] {
        let held = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        held.map(|listener| listener.local_addr().unwrap())
    }

    #[test]
    fn a_code_reads_as_people_type_it_and_is_never_printed_by_mistake() {
        let code = Code::new().unwrap();
        assert_eq!(Code::parse(&format!("  {} ", code.shown())), Some(code.clone()));
        assert_eq!(Code::parse("1234 5678"), Code::parse("12345678"));
        for bad in ["", "1234567", "123456789", "1234567x", "١٢٣٤٥٦٧٨"] {
            assert_eq!(Code::parse(bad), None, "{bad}");
        }
        assert_eq!(format!("{code:?}"), "Code(..)");
        assert_ne!(Code::new().unwrap(), Code::new().unwrap(), "once in a hundred million");
    }

    #[test]
    fn two_machines_with_one_code_know_each_other_and_the_way_back() {
        let [first, second] = addresses();
        let code = Code::new().unwrap();
        let other = code.clone();
        let thread = thread::spawn(move || {
            join((second, &first.into()), &identity("b", 1), &other, PATIENCE).unwrap()
        });
        let found = offer((first, &second.into()), &identity("a", 0), &code, PATIENCE, |_| {}).unwrap();
        assert_eq!(found, Introduced { peer: identity("b", 1), way_back: true });
        assert_eq!(thread.join().unwrap(), Introduced { peer: identity("a", 0), way_back: true });
    }

    #[test]
    fn a_way_back_that_leads_nowhere_is_told_on_both_machines() {
        let [first, second] = addresses();
        let [nowhere, _] = addresses();
        let code = Code::new().unwrap();
        let other = code.clone();
        let thread = thread::spawn(move || {
            join((second, &first.into()), &identity("b", 1), &other, PATIENCE).unwrap()
        });
        let found = offer((first, &nowhere.into()), &identity("a", 0), &code, PATIENCE, |_| {}).unwrap();
        assert!(!found.way_back && !thread.join().unwrap().way_back);
    }

    #[test]
    fn a_wrong_code_is_refused_and_after_three_the_right_one_is_too_and_strangers_are_no_tries() {
        let [first, second] = addresses();
        let code = Code::parse("0000-0001").unwrap();
        let right = code.clone();
        let thread = thread::spawn(move || {
            let mut told = Vec::new();
            let result =
                offer((first, &second.into()), &identity("a", 0), &right, PATIENCE, |text| told.push(text));
            (result, told)
        });
        // Strangers: one says something else, one is gone.
        for words in [&b"GET / HTTP/1.0\r\n\r\n"[..], b""] {
            let mut stranger = loop {
                match TcpStream::connect(first) {
                    Ok(stream) => break stream,
                    Err(_) => thread::sleep(Duration::from_millis(5)),
                }
            };
            stranger.write_all(words).unwrap();
        }
        for n in 2..5 {
            let wrong = Code::parse(&format!("0000000{n}")).unwrap();
            let error = join((second, &first.into()), &identity("b", 1), &wrong, PATIENCE).unwrap_err();
            assert!(matches!(error, PairingError::WrongCode), "{error}");
        }
        let (result, told) = thread.join().unwrap();
        assert!(matches!(result, Err(PairingError::TooManyTries)), "{result:?}");
        assert_eq!(told.iter().filter(|text| text.ends_with("has a wrong code")).count(), 3, "{told:?}");
        assert_eq!(told.len(), 5);
        let short = Duration::from_millis(1);
        let error = join((second, &first.into()), &identity("b", 1), &code, short).unwrap_err();
        assert!(matches!(error, PairingError::TooLate { .. }), "{error}");
    }

    #[test]
    fn nobody_is_waited_for_without_an_end_and_a_node_does_not_meet_itself() {
        let [first, second] = addresses();
        let code = Code::new().unwrap();
        let short = Duration::from_millis(30);
        let error = offer((first, &second.into()), &identity("a", 0), &code, short, |_| {}).unwrap_err();
        assert!(error.to_string().starts_with("waiting for the other machine at 127.0.0.1:"), "{error}");
        let held = TcpListener::bind(first).unwrap();
        let error = offer((first, &second.into()), &identity("a", 0), &code, short, |_| {}).unwrap_err();
        assert!(error.next().contains("if the node runs already"), "{error}");
        drop(held);
        let other = code.clone();
        let thread =
            thread::spawn(move || join((second, &first.into()), &identity("a", 0), &other, PATIENCE));
        let error = offer((first, &second.into()), &identity("a", 0), &code, PATIENCE, |_| {}).unwrap_err();
        assert!(matches!(error, PairingError::OwnIdentity), "{error}");
        assert!(matches!(thread.join().unwrap(), Err(PairingError::OwnIdentity)));
    }
}

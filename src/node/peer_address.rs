//! Where the peer is: a name or an address, and a port. A name is looked up at each dial, so that a changed answer of
//! the name service is followed.

use super::inbox::{Inbox, Message};
use crate::base::limits::{HOST_NAME_MAX, NAME_CHECK_MS, PEER_ADDRESSES_MAX};
use crate::base::plainly;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// `host:port`, the host being a name, an IPv4 address, or an IPv6 address in brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerAddress {
    host: String,
    port: u16,
}

/// The text is not `host:port`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAnAddress;

impl PeerAddress {
    /// The host, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address, if no name has to be looked up.
    #[must_use]
    pub fn literal(&self) -> Option<SocketAddr> {
        if let Ok(ip) = self.host.parse::<IpAddr>() {
            return Some(SocketAddr::new(ip, self.port));
        }
        // With a numbered zone, as in fe80::1%2.
        if self.host.contains(':') { self.to_string().parse().ok() } else { None }
    }

    /// All its addresses now. This may take as long as the name service does.
    ///
    /// # Errors
    /// The name service's, or `NotFound` if it knows none.
    pub fn look_up(&self) -> io::Result<Vec<SocketAddr>> {
        let mut found: Vec<SocketAddr> = Vec::new();
        for address in (self.host.as_str(), self.port).to_socket_addrs()? {
            if found.len() < PEER_ADDRESSES_MAX && !found.contains(&address) {
                found.push(address);
            }
        }
        if found.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
        }
        Ok(found)
    }
}

impl From<SocketAddr> for PeerAddress {
    fn from(address: SocketAddr) -> Self {
        let text = address.to_string();
        let host = text.rsplit_once(':').map_or("", |(host, _)| host);
        Self { host: host.trim_matches(['[', ']']).to_owned(), port: address.port() }
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

impl FromStr for PeerAddress {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<Self, NotAnAddress> {
        let (host, port) = text.rsplit_once(':').ok_or(NotAnAddress)?;
        // A sign or a leading zero would be another way to write the same.
        let digits = (1..=5).contains(&port.len()) && port.bytes().all(|b| b.is_ascii_digit());
        let port = port.parse().ok().filter(|_| digits).ok_or(NotAnAddress)?;
        let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let good = match inner {
            Some(inner) => is_v6(inner),
            None => is_name(host),
        };
        let host = inner.unwrap_or(host).to_owned();
        if good { Ok(Self { host, port }) } else { Err(NotAnAddress) }
    }
}

/// An IPv6 address, perhaps with a zone.
fn is_v6(text: &str) -> bool {
    let (address, zone) = text.split_once('%').map_or((text, None), |(address, zone)| (address, Some(zone)));
    let plain = |zone: &str| zone.bytes().all(|b| b.is_ascii_alphanumeric() || b".-_".contains(&b));
    address.parse::<Ipv6Addr>().is_ok()
        && zone.is_none_or(|zone| (1..=15).contains(&zone.len()) && plain(zone))
}

/// A name of the name service, or an IPv4 address: what is all digits and dots must be one.
fn is_name(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
            && !label.starts_with('-')
    };
    let numeric = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let labels = text.strip_suffix('.').unwrap_or(text).split('.').all(label);
    (1..=HOST_NAME_MAX).contains(&text.len()) && labels && (!numeric || text.parse::<IpAddr>().is_ok())
}

/// How a name is looked up; tests have a name service of their own.
pub(crate) type LookUp = Arc<dyn Fn(&PeerAddress) -> io::Result<Vec<SocketAddr>> + Send + Sync>;

/// Looks names up on a thread of its own, one at a time: the core never waits for a name service.
#[derive(Clone)]
pub(crate) struct Resolver {
    inbox: Inbox,
    busy: Arc<AtomicBool>,
    look_up: LookUp,
}

impl Resolver {
    /// The answers go into `inbox`.
    pub(crate) fn new(inbox: &Inbox) -> Self {
        Self::with(inbox, Arc::new(PeerAddress::look_up))
    }

    /// The same with another name service.
    pub(crate) fn with(inbox: &Inbox, look_up: LookUp) -> Self {
        Self { inbox: inbox.clone(), busy: Arc::new(AtomicBool::new(false)), look_up }
    }

    /// Begins to look `peer` up, unless that is under way: then its answer serves this question too.
    pub(crate) fn ask(&self, peer: &PeerAddress) -> io::Result<()> {
        if self.busy.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let (resolver, peer) = (self.clone(), peer.clone());
        let begun = thread::Builder::new().name("resolver".to_owned()).spawn(move || {
            let answer = (resolver.look_up)(&peer);
            // Free before the answer is in: who asks after it gets another.
            resolver.busy.store(false, Ordering::Release);
            // A core that has ended does not dial.
            let _ = resolver.inbox.send(Message::PeerFound(answer));
        });
        if let Err(error) = begun {
            self.busy.store(false, Ordering::Release);
            return Err(error);
        }
        Ok(())
    }
}

/// What an operator should look at, of addresses that are allowed: a name that is not known now, an address of
/// another machine. Waits a few seconds at most for the name service.
#[must_use]
pub fn doubts(peer: &str, listen: &str) -> Vec<String> {
    let mut all = Vec::new();
    if let Ok(peer) = peer.parse::<PeerAddress>()
        && peer.literal().is_none()
    {
        let (tell, told) = std::sync::mpsc::channel();
        let asked = peer.clone();
        // Left to itself if the name service is silent: the process ends soon.
        thread::spawn(move || tell.send(asked.look_up().map(drop)));
        let why = match told.recv_timeout(Duration::from_millis(NAME_CHECK_MS)) {
            Ok(answer) => answer.err().map(|error| plainly(&error)),
            Err(_) => Some("the name service does not answer".to_owned()),
        };
        all.extend(why.map(|why| {
            format!("the name of --peer {peer} is not known now: {why}; it is looked up again at each dial")
        }));
    }
    if let Ok(address) = listen.parse::<SocketAddr>()
        && let Err(error) = TcpListener::bind((address.ip(), 0))
        && error.kind() == io::ErrorKind::AddrNotAvailable
    {
        all.push(format!(
            "--link-listen {address} is no address of this machine now: the peer reaches it only once it is"
        ));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_a_name_or_an_address_with_a_port_and_is_shown_as_it_was_given() {
        for (text, literal) in [
            ("127.0.0.1:2000", true),
            ("[::1]:2000", true),
            ("[fe80::1%2]:2000", true),
            ("[fe80::1%eth0]:2000", false),
            ("b.example.org:2000", false),
            ("b.example.org.:2000", false),
            ("db_b:2000", false),
            ("localhost:1", false),
        ] {
            let peer: PeerAddress = text.parse().expect(text);
            assert_eq!(peer.to_string(), text);
            assert_eq!(peer.literal().is_some(), literal, "{text}");
            if let Some(address) = peer.literal() {
                assert_eq!(PeerAddress::from(address), peer);
            }
        }
        for bad in [
            "",
            ":",
            ":2000",
            "b",
            "b:",
            "b:x",
            "b:65536",
            "b:+1",
            "b: 1",
            "::1:2000",
            "[::1]",
            "[b]:1",
            "a b:1",
            "-b:1",
            "a..b:1",
            "1.2.3:4",
            "1.2.3.256:4",
            "[::1%]:1",
            "b/c:1",
            "b:1:2",
            "redis://b:1",
        ] {
            assert!(bad.parse::<PeerAddress>().is_err(), "{bad:?}");
        }
        assert!(format!("{}:1", "a.".repeat(200)).parse::<PeerAddress>().is_err());
    }
}

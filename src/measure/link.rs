//! The way to another machine, or to this one over loopback: how long a word takes there and back, and how much goes at
//! once, with and without TLS, with and without a copy by the kernel.
//!
//! One side [`listen`]s for as long as it is told to, the other one asks it with [`ask`]. With the keys of a pair both
//! prove them, as the link does, and whoever cannot is turned away; without, there is no TLS.
//!
//! What is said, after the keys: 16 bytes, `HBln`, what to do (u32: 1 echo, 2 count) and a size (u64), all little-endian.
//! An echo sends each so many bytes back. A count takes all up to the end and answers with how many that was (u64).

use super::report::{Figure, Report};
use super::{Course, MeasureError, Times};
use crate::base::limits::SEND_BYTES_MAX;
use crate::base::shown::bytes as shown;
use crate::io::{SendTrial, kernel_file};
use crate::node::config::Encryption;
use crate::node::identity::{NewKey, NodeKey};
use crate::node::layout::Layout;
use crate::node::tls::{LinkIdentity, SecureLink};
use bytes::Bytes;
use nix::sys::socket::{getsockopt, sockopt};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// Begins what is said.
const MAGIC: [u8; 4] = *b"HBln";
/// Begins a link without encryption that proves keys all the same.
const PROOF_MAGIC: [u8; 4] = *b"HBp1";
/// The type of a TLS record with a handshake.
const TLS_HANDSHAKE: u8 = 0x16;
const ECHO: u32 = 1;
const COUNT: u32 = 2;
/// Largest size that is asked for (bytes).
const SIZE_MAX: u64 = 16 << 20;
/// Sizes of a word that goes there and back (bytes).
const ECHOES: [usize; 3] = [64, 4 << 10, 64 << 10];
/// Sizes of a message of many (bytes).
const STREAMS: [usize; 3] = [4 << 10, 64 << 10, 1 << 20];
/// How long the other side may be silent.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a listener asks whether to go on.
const LOOK: Duration = Duration::from_millis(50);

/// What both nodes of a pair prove to each other.
#[derive(Clone, Debug)]
pub struct LinkKeys {
    tls: LinkIdentity,
    plain: LinkIdentity,
}

impl LinkKeys {
    /// Those of a node's directory.
    ///
    /// # Errors
    /// Says why they cannot be had.
    pub fn of_node(layout: &Layout) -> Result<Self, String> {
        let load = |encryption| LinkIdentity::load(layout, encryption).map_err(|error| error.to_string());
        Ok(Self { tls: load(Encryption::Tls)?, plain: load(Encryption::None)? })
    }

    /// Two that trust each other and nobody else, for a measurement of this machine with itself.
    ///
    /// # Errors
    /// Says why there are none.
    pub fn of_two() -> Result<[Self; 2], String> {
        let key = || {
            let new = NewKey::generate("bench").map_err(|error| error.to_string())?;
            NodeKey::from_pem(&new)
        };
        let (a, b) = (key()?, key()?);
        let of = |own: &NodeKey, peer: &NodeKey| {
            let with = |encryption| {
                let made = LinkIdentity::new(own.clone(), vec![peer.fingerprint], encryption);
                made.map_err(|error| error.to_string())
            };
            Ok::<_, String>(Self { tls: with(Encryption::Tls)?, plain: with(Encryption::None)? })
        };
        Ok([of(&a, &b)?, of(&b, &a)?])
    }
}

/// One connection, whose other side has proved its key if keys are asked for.
struct Channel {
    socket: TcpStream,
    link: Option<SecureLink>,
    buffer: Vec<u8>,
}

impl Channel {
    fn over(socket: TcpStream, link: Option<SecureLink>) -> io::Result<Self> {
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.set_write_timeout(Some(PATIENCE))?;
        let mut channel = Self { socket, link, buffer: vec![0; SEND_BYTES_MAX.max(64 << 10)] };
        channel.send_wire()?;
        while channel.link.as_ref().is_some_and(|link| !link.is_established()) {
            let count = channel.read()?;
            if count == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            channel.take_in(count)?;
        }
        Ok(channel)
    }

    fn dial(to: SocketAddr, keys: Option<&LinkIdentity>) -> io::Result<Self> {
        let socket = TcpStream::connect_timeout(&to, PATIENCE)?;
        let link = keys.map(SecureLink::dial).transpose().map_err(io::Error::other)?;
        Self::over(socket, link)
    }

    /// Looks at the first byte to see what the other side wants to prove; without keys nothing is proved.
    fn accept(socket: TcpStream, keys: Option<&LinkKeys>) -> io::Result<Self> {
        socket.set_read_timeout(Some(PATIENCE))?;
        let mut first = [0; 4];
        let count = socket.peek(&mut first)?;
        let keys = match (keys, first) {
            (None, _) => None,
            (Some(keys), [TLS_HANDSHAKE, ..]) if count > 0 => Some(&keys.tls),
            (Some(keys), PROOF_MAGIC) => Some(&keys.plain),
            (Some(_), _) => return Err(io::Error::new(ErrorKind::PermissionDenied, "it proves no key")),
        };
        let link = keys.map(SecureLink::accept).transpose().map_err(io::Error::other)?;
        Self::over(socket, link)
    }

    /// A receive with a time limit is broken off when a ring of this thread has something to tell, and has to be begun anew.
    fn read(&mut self) -> io::Result<usize> {
        loop {
            match self.socket.read(&mut self.buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    fn take_in(&mut self, count: usize) -> io::Result<()> {
        let Some(link) = &mut self.link else { return Ok(()) };
        let result = link.wire_input(self.buffer.get(..count).unwrap_or_default());
        self.send_wire()?;
        result.map_err(io::Error::other)
    }

    fn send_wire(&mut self) -> io::Result<()> {
        let Some(link) = &mut self.link else { return Ok(()) };
        for part in link.take_wire() {
            self.socket.write_all(&part)?;
        }
        Ok(())
    }

    fn send(&mut self, bytes: &Bytes) -> io::Result<()> {
        match &mut self.link {
            None => self.socket.write_all(bytes),
            Some(link) => {
                link.send_plain(std::slice::from_ref(bytes)).map_err(io::Error::other)?;
                self.send_wire()
            }
        }
    }

    /// What came; nothing at the end.
    fn receive(&mut self, each: &mut dyn FnMut(&[u8])) -> io::Result<bool> {
        loop {
            if let Some(link) = &mut self.link {
                if let Some(plain) = link.take_plain() {
                    each(&plain);
                    return Ok(true);
                }
                if link.peer_closed() {
                    return Ok(false);
                }
            }
            let count = self.read()?;
            if count == 0 {
                return Ok(false);
            }
            if self.link.is_none() {
                each(self.buffer.get(..count).unwrap_or_default());
                return Ok(true);
            }
            self.take_in(count)?;
        }
    }

    /// Says that nothing more comes.
    fn finish(&mut self) -> io::Result<()> {
        if let Some(link) = &mut self.link {
            link.close();
        }
        self.send_wire()?;
        self.socket.shutdown(Shutdown::Write)
    }
}

fn head(what: u32, size: usize) -> Bytes {
    let mut head = MAGIC.to_vec();
    head.extend_from_slice(&what.to_le_bytes());
    head.extend_from_slice(&(size as u64).to_le_bytes());
    head.into()
}

fn parse_head(head: &[u8]) -> Option<(u32, usize)> {
    let (magic, rest) = head.split_first_chunk::<4>()?;
    let (what, rest) = rest.split_first_chunk::<4>()?;
    let size = u64::from_le_bytes(*rest.first_chunk::<8>()?);
    let good = *magic == MAGIC && (1..=SIZE_MAX).contains(&size);
    good.then_some((u32::from_le_bytes(*what), usize::try_from(size).ok()?))
}

/// Gives any bytes to what reads the first words of a peer.
pub fn fuzz_head(bytes: &[u8]) {
    if let Some((what, size)) = parse_head(bytes) {
        assert_eq!(bytes.get(..16), Some(&head(what, size)[..]), "it is written as it was read");
    }
}

/// Answers one connection to its end.
fn serve(mut channel: Channel) -> io::Result<()> {
    let mut pending: Vec<u8> = Vec::new();
    while pending.len() < 16 {
        if !channel.receive(&mut |bytes| pending.extend_from_slice(bytes))? {
            return Ok(());
        }
    }
    let Some((what, size)) = parse_head(&pending) else { return Err(ErrorKind::InvalidData.into()) };
    pending.drain(..16);
    match what {
        ECHO => {
            let word = Bytes::from(vec![0x5a; size]);
            loop {
                while pending.len() >= size {
                    pending.drain(..size);
                    channel.send(&word)?;
                }
                if !channel.receive(&mut |bytes| pending.extend_from_slice(bytes))? {
                    return Ok(());
                }
            }
        }
        COUNT => {
            let mut all = pending.len() as u64;
            while channel.receive(&mut |bytes| all += bytes.len() as u64)? {}
            channel.send(&Bytes::copy_from_slice(&all.to_le_bytes()))?;
            channel.finish()
        }
        _ => Err(ErrorKind::InvalidData.into()),
    }
}

/// Answers who asks, one after the other, until the time is over or the course is stopped.
///
/// # Errors
/// Those of the listening socket. `told` is told of connections that ended badly.
pub fn listen(
    listener: &TcpListener,
    keys: Option<&LinkKeys>,
    time: Duration,
    stopped: &dyn Fn() -> bool,
    told: &dyn Fn(&str),
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let begun = Instant::now();
    while begun.elapsed() < time && !stopped() {
        match listener.accept() {
            Ok((socket, from)) => {
                socket.set_nonblocking(false)?;
                if let Err(error) = Channel::accept(socket, keys).and_then(serve) {
                    told(&format!("{from}: {error}"));
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(LOOK),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Measures this machine with itself, over loopback.
///
/// # Errors
/// As [`ask`].
pub fn loopback(time: Duration, course: &Course<'_>, report: &mut Report) -> Result<(), MeasureError> {
    let failed = || MeasureError::failed("listening on loopback");
    let keys = LinkKeys::of_two().map_err(|why| failed()(io::Error::other(why)))?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(failed())?;
    let to = listener.local_addr().map_err(failed())?;
    let over = std::sync::atomic::AtomicBool::new(false);
    let [ours, theirs] = keys;
    std::thread::scope(|scope| {
        let ended = || over.load(std::sync::atomic::Ordering::Relaxed);
        scope.spawn(move || {
            // What went wrong is told by the side that asks.
            let _ = listen(&listener, Some(&theirs), Duration::MAX, &ended, &|_| {});
        });
        let result = ask(to, Some(&ours), time, course, report);
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        result
    })
}

/// Measures the way to one who [`listen`]s. Figures: `echo` and `stream`, by `plain`, `tls` and `SEND_ZC`, by size.
///
/// # Errors
/// When the other side cannot be reached, proves no key or goes away; when the course was stopped.
pub fn ask(
    to: SocketAddr,
    keys: Option<&LinkKeys>,
    time: Duration,
    course: &Course<'_>,
    report: &mut Report,
) -> Result<(), MeasureError> {
    let ways: Vec<(&str, Option<&LinkIdentity>)> = match keys {
        None => vec![("plain", None)],
        Some(keys) => vec![("plain", Some(&keys.plain)), ("tls", Some(&keys.tls))],
    };
    let steps = ways.len() * (ECHOES.len() + STREAMS.len()) + STREAMS.len();
    course.expect(steps);
    let asking = Asking { to, each: time / u32::try_from(steps).unwrap_or(u32::MAX), course };
    asking.facts(ways.first().and_then(|(_, keys)| *keys), report)?;
    for (way, keys) in &ways {
        for size in ECHOES {
            let figure = asking.step("echo", way, size, || asking.echo(*keys, size))?;
            report.figures.push(figure);
        }
        for size in STREAMS {
            let figure = asking.step("stream", way, size, || asking.stream(*keys, size))?;
            report.figures.push(figure);
        }
    }
    asking.without_copies(ways.first().and_then(|(_, keys)| *keys), report)
}

struct Asking<'a> {
    to: SocketAddr,
    each: Duration,
    course: &'a Course<'a>,
}

impl Asking<'_> {
    fn doing(&self, what: &str) -> impl FnOnce(io::Error) -> MeasureError + use<> {
        MeasureError::failed(format!("{what} with {}", self.to))
    }

    fn step(
        &self,
        what: &str,
        way: &str,
        size: usize,
        measure: impl FnOnce() -> io::Result<[f64; 4]>,
    ) -> Result<Figure, MeasureError> {
        self.course.step(&format!("{what} of {}, {way}", shown(size as u64)))?;
        let [per_second, p50_us, p99_us, _] =
            measure().map_err(self.doing(&format!("the {what} by {way}")))?;
        self.course.check()?;
        let (part, what, way) = ("link".to_owned(), what.to_owned(), way.to_owned());
        Ok(Figure { part, what, way, bytes: size as u64, at_once: 1, per_second, p50_us, p99_us })
    }

    fn goes_on(&self, since: Instant) -> bool {
        since.elapsed() < self.each && !self.course.is_stopped()
    }

    fn echo(&self, keys: Option<&LinkIdentity>, size: usize) -> io::Result<[f64; 4]> {
        let mut channel = Channel::dial(self.to, keys)?;
        channel.send(&head(ECHO, size))?;
        let word = Bytes::from(vec![0x5a; size]);
        let (begun, mut times) = (Instant::now(), Times::begin());
        loop {
            let sent = Instant::now();
            channel.send(&word)?;
            let mut got = 0;
            while got < size {
                if !channel.receive(&mut |bytes| got += bytes.len())? {
                    return Err(ErrorKind::UnexpectedEof.into());
                }
            }
            times.add(sent.elapsed());
            if !self.goes_on(begun) {
                return Ok(times.told());
            }
        }
    }

    fn stream(&self, keys: Option<&LinkIdentity>, size: usize) -> io::Result<[f64; 4]> {
        let mut channel = Channel::dial(self.to, keys)?;
        channel.send(&head(COUNT, size))?;
        let message = Bytes::from(vec![0x5a; size]);
        let (begun, mut sent) = (Instant::now(), 0_u64);
        while sent == 0 || self.goes_on(begun) {
            channel.send(&message)?;
            sent += 1;
        }
        channel.finish()?;
        counted(&mut channel, sent, size)?;
        Ok([super::rate(sent, begun.elapsed()), 0.0, 0.0, 0.0])
    }

    /// After the proof of keys bytes go as they are, so that the kernel may send them from where they lie.
    fn without_copies(&self, keys: Option<&LinkIdentity>, report: &mut Report) -> Result<(), MeasureError> {
        for size in STREAMS {
            self.course.step(&format!("stream of {}, SEND_ZC", shown(size as u64)))?;
            match self.stream_without_copies(keys, size) {
                Ok((per_second, copied, told)) => {
                    report.figures.push(Figure {
                        part: "link".to_owned(),
                        what: "stream".to_owned(),
                        way: "SEND_ZC".to_owned(),
                        bytes: size as u64,
                        at_once: 1,
                        per_second,
                        ..Figure::default()
                    });
                    let name = format!("SEND_ZC of {}", shown(size as u64));
                    report.fact(&name, format!("{copied} of {told} sends were copied all the same"));
                }
                Err(error) if error.kind() == ErrorKind::Unsupported => {
                    report.fact("SEND_ZC", "not possible: io_uring of this kernel lacks it");
                    break;
                }
                Err(error) => return Err(self.doing("the stream by SEND_ZC")(error)),
            }
            self.course.check()?;
        }
        Ok(())
    }

    fn stream_without_copies(&self, keys: Option<&LinkIdentity>, size: usize) -> io::Result<(f64, u64, u64)> {
        let mut channel = Channel::dial(self.to, keys)?;
        channel.send(&head(COUNT, size))?;
        let mut trial = SendTrial::open(channel.socket.try_clone()?.into(), size)?;
        let (begun, mut sent) = (Instant::now(), 0_u64);
        while sent == 0 || self.goes_on(begun) {
            trial.send()?;
            sent += 1;
        }
        channel.finish()?;
        counted(&mut channel, sent, size)?;
        let rate = super::rate(sent, begun.elapsed());
        let (copied, told) = trial.copied();
        Ok((rate, copied, told))
    }

    fn facts(&self, keys: Option<&LinkIdentity>, report: &mut Report) -> Result<(), MeasureError> {
        let failed = || self.doing("connecting");
        let channel = Channel::dial(self.to, keys).map_err(failed())?;
        let own = channel.socket.local_addr().map_err(failed())?;
        let segment = getsockopt(&channel.socket, sockopt::TcpMaxSeg).map_err(|e| failed()(e.into()))?;
        report.fact("link", format!("{} to {}", own.ip(), self.to));
        report.fact("TCP segment", format!("{segment} bytes"));
        if let Some(name) = interface_of(own) {
            let tells = |file: &str| kernel_file(format!("/sys/class/net/{name}/{file}"));
            let speed = tells("speed").and_then(|mbit| mbit.parse::<u32>().ok()).filter(|mbit| *mbit > 0);
            let speed = speed.map_or_else(String::new, |mbit| format!(", {mbit} Mbit/s"));
            let mtu = tells("mtu").unwrap_or_else(|| "unknown".to_owned());
            report.fact("interface", format!("{name}, MTU {mtu}{speed}"));
        }
        Ok(())
    }
}

/// The name of the interface that has this address.
fn interface_of(own: SocketAddr) -> Option<String> {
    let all = nix::ifaddrs::getifaddrs().ok()?;
    let has = |found: &nix::ifaddrs::InterfaceAddress| {
        let address = found.address.as_ref()?;
        let v4 = address.as_sockaddr_in().map(|a| a.ip().into());
        let v6 = address.as_sockaddr_in6().map(|a| a.ip().into());
        v4.or(v6).filter(|ip: &std::net::IpAddr| *ip == own.ip())
    };
    all.into_iter().find(|found| has(found).is_some()).map(|found| found.interface_name)
}

/// The other side's word on how much came.
fn counted(channel: &mut Channel, sent: u64, size: usize) -> io::Result<()> {
    let mut answer = Vec::new();
    while answer.len() < 8 {
        if !channel.receive(&mut |bytes| answer.extend_from_slice(bytes))? {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
    let all = answer.first_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes));
    if all == Some(sent * size as u64) { Ok(()) } else { Err(ErrorKind::InvalidData.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn loopback_is_measured_with_and_without_tls() {
        let mut report = Report::default();
        let course = Course::new(&|| false, &|_, _, _| {});
        loopback(Duration::from_millis(300), &course, &mut report).unwrap();
        for way in ["plain", "tls"] {
            for (what, sizes) in [("echo", ECHOES), ("stream", STREAMS)] {
                let found: Vec<_> =
                    report.of("link", what).filter(|f| f.way == way).map(|f| f.bytes).collect();
                assert_eq!(found, sizes.map(|size| size as u64), "{what} {way}");
            }
        }
        assert!(report.figures.iter().all(|figure| figure.per_second > 0.0), "{:?}", report.figures);
        assert!(
            report.of("link", "echo").all(|figure| figure.p50_us > 0.0 && figure.p99_us >= figure.p50_us)
        );
        let names: Vec<_> = report.facts.iter().map(|fact| fact.name.as_str()).collect();
        assert!(names.contains(&"interface") && names.contains(&"TCP segment"), "{names:?}");
        assert!(names.iter().any(|name| name.starts_with("SEND_ZC")), "{names:?}");
    }

    #[test]
    fn who_has_not_the_keys_of_the_pair_is_turned_away_and_a_course_that_is_stopped_ends() {
        let [ours, theirs] = LinkKeys::of_two().unwrap();
        let [stranger, _] = LinkKeys::of_two().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let listening = scope.spawn(|| {
                let told = RefCell::new(Vec::new());
                let ended = || over.load(Ordering::Relaxed);
                let tell = |text: &str| told.borrow_mut().push(text.to_owned());
                listen(&listener, Some(&theirs), Duration::MAX, &ended, &tell).unwrap();
                told.into_inner()
            });
            let course = Course::new(&|| false, &|_, _, _| {});
            let short = Duration::from_millis(1);
            let ask = |keys, course: &Course<'_>| super::ask(to, keys, short, course, &mut Report::default());
            let refused = [ask(None, &course).is_err(), ask(Some(&stranger), &course).is_err()];
            let good = ask(Some(&ours), &course);
            let stopped = ask(Some(&ours), &Course::new(&|| true, &|_, _, _| {}));
            over.store(true, Ordering::Relaxed);
            let told = listening.join().unwrap();
            assert_eq!(refused, [true, true]);
            assert!(good.is_ok(), "{good:?}");
            assert!(matches!(stopped, Err(MeasureError::Stopped)), "{stopped:?}");
            assert!(told.iter().any(|line| line.contains("it proves no key")), "{told:?}");
        });
    }

    #[test]
    fn a_head_is_read_as_it_is_written_and_others_are_refused() {
        assert_eq!(parse_head(&head(ECHO, 64)), Some((ECHO, 64)));
        assert_eq!(parse_head(&head(COUNT, 16 << 20)), Some((COUNT, 16 << 20)));
        for wrong in
            [&head(ECHO, (16 << 20) + 1)[..], &head(ECHO, 0), &head(ECHO, 1)[..15], b"HBlX0000000000000"]
        {
            assert_eq!(parse_head(wrong), None, "{wrong:?}");
        }
        let mut prng = crate::base::Prng::new(5);
        for _ in 0..2000 {
            let mut bytes = head(ECHO, 7).to_vec();
            let at = usize::try_from(prng.below(16)).unwrap();
            bytes[at] = u8::try_from(prng.below(256)).unwrap();
            fuzz_head(&bytes);
        }
    }
}

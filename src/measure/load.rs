//! Updates by many connections at once: each sends one SET, takes the answer, checks it, and sends the next. One thread.

use super::Times;
use crate::format::resp::command;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// How long is waited for answers before it is asked anew whether to go on.
const LOOK: Duration = Duration::from_millis(100);
/// A first answer that takes longer is none.
const LATE: Duration = Duration::from_secs(60);
/// How long a connection may take to come about.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is asked for.
#[derive(Clone, Debug)]
pub struct LoadPlan {
    /// A door that speaks the Redis protocol.
    pub address: SocketAddr,
    /// What lets a client in, if something does.
    pub password: Option<String>,
    /// Connections.
    pub clients: usize,
    /// How long.
    pub time: Duration,
    /// Size of a value (bytes).
    pub value: usize,
    /// How many different keys.
    pub keys: u64,
    /// What stands before the number in a key.
    pub prefix: String,
    /// Whether a WAIT for one replica is sent behind each SET, in the same packet.
    pub wait: bool,
}

struct Client {
    socket: TcpStream,
    request: Vec<u8>,
    /// Answer bytes of the present request so far.
    got: usize,
    sent_at: Instant,
}

/// Numbers that need not be good, only spread (xorshift).
struct Spread(u64);

impl Spread {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit.max(1)
    }
}

/// How long each update took, until the time is over or `stopped` says so.
///
/// # Errors
/// Those of the connections; `InvalidData` at the first answer that is not "ok", with its text; `TimedOut` if nothing was
/// answered at all.
pub fn run(plan: &LoadPlan, stopped: &dyn Fn() -> bool) -> io::Result<Times> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let mut spread = Spread(0x9E37_79B9_7F4A_7C15);
    let value = vec![b'v'; plan.value];
    let answer: &[u8] = if plan.wait { b"+OK\r\n:1\r\n" } else { b"+OK\r\n" };
    let mut clients = Vec::new();
    for index in 0..plan.clients {
        let socket = connected(plan)?;
        socket.set_nonblocking(true)?;
        epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, index as u64))?;
        clients.push(Client { socket, request: Vec::new(), got: 0, sent_at: Instant::now() });
    }
    let mut times = Times::begin();
    for client in &mut clients {
        client.ask(plan, spread.below(plan.keys), &value, Instant::now())?;
    }
    let mut events = vec![EpollEvent::empty(); 256];
    let goes_on = |times: &Times| times.elapsed() < plan.time || times.count() == 0 && times.elapsed() < LATE;
    while goes_on(&times) && !stopped() {
        let count = epoll.wait(&mut events, EpollTimeout::try_from(LOOK).unwrap_or(EpollTimeout::ZERO))?;
        let now = Instant::now();
        for event in events.iter().take(count) {
            let index = usize::try_from(event.data()).unwrap_or(usize::MAX);
            let Some(client) = clients.get_mut(index) else { continue };
            if client.answered(answer)? {
                times.add(now.duration_since(client.sent_at));
                client.ask(plan, spread.below(plan.keys), &value, now)?;
            }
        }
    }
    if times.count() == 0 && !stopped() {
        return Err(io::Error::new(ErrorKind::TimedOut, "nothing was answered"));
    }
    Ok(times)
}

/// A connection that was let in.
fn connected(plan: &LoadPlan) -> io::Result<TcpStream> {
    let mut socket = TcpStream::connect_timeout(&plan.address, PATIENCE)?;
    socket.set_nodelay(true)?;
    let Some(password) = &plan.password else { return Ok(socket) };
    let (mut request, mut answer) = (Vec::new(), [0; 5]);
    command(&mut request, &[b"AUTH", password.as_bytes()]);
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.write_all(&request)?;
    socket.read_exact(&mut answer)?;
    if answer == *b"+OK\r\n" { Ok(socket) } else { Err(ErrorKind::PermissionDenied.into()) }
}

impl Client {
    fn ask(&mut self, plan: &LoadPlan, key: u64, value: &[u8], now: Instant) -> io::Result<()> {
        self.request.clear();
        command(&mut self.request, &[b"SET", format!("{}{key:012}", plan.prefix).as_bytes(), value]);
        if plan.wait {
            command(&mut self.request, &[b"WAIT", b"1", b"0"]);
        }
        self.got = 0;
        self.sent_at = now;
        // One small request at a time always fits into the socket's buffer.
        if self.socket.write(&self.request)? == self.request.len() {
            Ok(())
        } else {
            Err(ErrorKind::WriteZero.into())
        }
    }

    /// Whether the whole answer is there.
    fn answered(&mut self, answer: &[u8]) -> io::Result<bool> {
        let mut buffer = [0; 256];
        let count = match self.socket.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            other => other?,
        };
        let part = buffer.get(..count).unwrap_or_default();
        if count == 0 || answer.get(self.got..self.got + count) != Some(part) {
            let text = String::from_utf8_lossy(part).trim().to_owned();
            return Err(io::Error::new(ErrorKind::InvalidData, format!("an unexpected answer: {text}")));
        }
        self.got += count;
        Ok(self.got == answer.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn server(answer: &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                std::thread::spawn(move || {
                    let mut socket = socket;
                    let mut buffer = [0; 4096];
                    while socket.read(&mut buffer).is_ok_and(|n| n > 0) && socket.write_all(answer).is_ok() {}
                });
            }
        });
        address
    }

    fn plan(address: SocketAddr) -> LoadPlan {
        let (time, prefix) = (Duration::from_secs(60), "a,b,".to_owned());
        LoadPlan { address, password: None, clients: 4, time, value: 10, keys: 5, prefix, wait: false }
    }

    #[test]
    fn updates_are_counted_until_it_is_stopped_and_a_refusal_is_told() {
        let answered = std::cell::Cell::new(0);
        let stopped = || {
            answered.set(answered.get() + 1);
            answered.get() > 50
        };
        let times = run(&plan(server(b"+OK\r\n")), &stopped).unwrap();
        assert!(times.count() > 0);
        let with = LoadPlan { password: Some("secret".to_owned()), ..plan(server(b"+OK\r\n")) };
        assert!(connected(&with).is_ok());
        let without = LoadPlan { address: server(b"-WRONGPASS no\r\n"), ..with };
        assert_eq!(connected(&without).unwrap_err().kind(), ErrorKind::PermissionDenied);
        let error = run(&plan(server(b"-READONLY no\r\n")), &|| false).unwrap_err();
        assert!(error.to_string().contains("READONLY no"), "{error}");
    }
}

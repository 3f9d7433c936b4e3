//! A small load client for what `redis-benchmark` cannot do: each of N connections sends one SET (with `--wait`, and a
//! WAIT for one replica right behind it, in the same packet), takes the answers, checks them, and sends the next.
//!
//! Usage: `bench-load --port P [--clients 64] [--seconds 5] [--value 128] [--keys 100000] [--wait]`. Prints one line of
//! JSON. One thread, epoll; it ends with an error at the first answer that is not the expected one.

use hot_backup::format::resp::command;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::error::Error;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

type Failure = Box<dyn Error>;

/// What is asked for.
struct Plan {
    port: u16,
    clients: usize,
    time: Duration,
    value: usize,
    keys: u64,
    wait: bool,
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
        self.0 % limit
    }
}

fn argument<T: std::str::FromStr>(name: &str, otherwise: T) -> Result<T, Failure>
where
    T::Err: Error + 'static,
{
    let mut args = std::env::args().skip_while(|arg| arg != name).skip(1);
    Ok(args.next().map(|text| text.parse()).transpose()?.unwrap_or(otherwise))
}

fn main() -> Result<(), Failure> {
    let plan = Plan {
        port: argument("--port", 6379)?,
        clients: argument("--clients", 64)?,
        time: Duration::from_secs_f64(argument("--seconds", 5.0)?),
        value: argument("--value", 128)?,
        keys: argument("--keys", 100_000)?,
        wait: std::env::args().any(|arg| arg == "--wait"),
    };
    let mut taken = run(&plan)?;
    taken.sort_unstable();
    let at = |thousandths: usize| {
        let index = taken.len() * thousandths / 1000;
        taken.get(index).map_or(0.0, |micros| f64::from(*micros) / 1000.0)
    };
    let rate = f64::from(u32::try_from(taken.len())?) / plan.time.as_secs_f64();
    println!(
        "{{\"updates\": {}, \"per_second\": {rate:.1}, \"p50_ms\": {:.3}, \"p99_ms\": {:.3}, \"p999_ms\": {:.3}}}",
        taken.len(),
        at(500),
        at(990),
        at(999)
    );
    Ok(())
}

/// Microseconds that each update took.
fn run(plan: &Plan) -> Result<Vec<u32>, Failure> {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let mut spread = Spread(0x9E37_79B9_7F4A_7C15);
    let value = vec![b'v'; plan.value];
    let answer: &[u8] = if plan.wait { b"+OK\r\n:1\r\n" } else { b"+OK\r\n" };
    let begun = Instant::now();
    let mut clients = Vec::new();
    for index in 0..plan.clients {
        let socket = TcpStream::connect(("127.0.0.1", plan.port))?;
        socket.set_nodelay(true)?;
        socket.set_nonblocking(true)?;
        epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN, u64::try_from(index)?))?;
        clients.push(Client { socket, request: Vec::new(), got: 0, sent_at: begun });
    }
    let begun = Instant::now();
    for client in &mut clients {
        client.ask(spread.below(plan.keys), &value, plan.wait, begun)?;
    }
    let mut taken = Vec::with_capacity(1 << 20);
    let mut events = vec![EpollEvent::empty(); 256];
    let mut now = Instant::now();
    while now.duration_since(begun) < plan.time {
        let count = epoll.wait(&mut events, EpollTimeout::try_from(Duration::from_secs(1))?)?;
        now = Instant::now();
        for event in events.iter().take(count) {
            let client = clients.get_mut(usize::try_from(event.data())?).ok_or("an unknown client")?;
            if client.answered(answer)? {
                let micros = now.duration_since(client.sent_at).as_micros();
                taken.push(u32::try_from(micros).unwrap_or(u32::MAX));
                client.ask(spread.below(plan.keys), &value, plan.wait, now)?;
            }
        }
    }
    if taken.is_empty() { Err("nothing was answered".into()) } else { Ok(taken) }
}

impl Client {
    fn ask(&mut self, key: u64, value: &[u8], wait: bool, now: Instant) -> Result<(), Failure> {
        self.request.clear();
        command(&mut self.request, &[b"SET", format!("key:{key:012}").as_bytes(), value]);
        if wait {
            command(&mut self.request, &[b"WAIT", b"1", b"0"]);
        }
        self.got = 0;
        self.sent_at = now;
        // One small request at a time always fits into the socket's buffer.
        if self.socket.write(&self.request)? == self.request.len() {
            Ok(())
        } else {
            Err("a short write".into())
        }
    }

    /// Whether the whole answer is there.
    fn answered(&mut self, answer: &[u8]) -> Result<bool, Failure> {
        let mut buffer = [0; 64];
        let count = match self.socket.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error.into()),
            Ok(count) => count,
        };
        let part = buffer.get(..count).unwrap_or_default();
        if count == 0 || answer.get(self.got..self.got + count) != Some(part) {
            return Err(format!("an unexpected answer: {}", String::from_utf8_lossy(part)).into());
        }
        self.got += count;
        Ok(self.got == answer.len())
    }
}

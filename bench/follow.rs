//! Clients that stay with the primary over a switchover, as the load of `way_back.py`: each sends one SET at a time, and goes
//! to the other door when it is refused or its connection ends.
//!
//! Usage: `bench-follow --ports P,Q [--clients 64] [--seconds 5] [--value 128]`. Prints one line of JSON: the updates, the
//! longest time between two answers that one client saw, how many clients changed the door, and how many answered updates
//! are not there at the end.

use hot_backup::format::resp::command;
use std::error::Error;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

type Failure = Box<dyn Error + Send + Sync>;

/// A client that is answered by nobody for so long gives up.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two tries.
const AGAIN: Duration = Duration::from_millis(1);

fn argument(name: &str, otherwise: &str) -> String {
    std::env::args().skip_while(|arg| arg != name).nth(1).unwrap_or_else(|| otherwise.to_owned())
}

/// What one client saw.
#[derive(Default)]
struct Seen {
    updates: u64,
    longest: Duration,
    moved: u64,
    lost: u64,
}

struct Client {
    ports: [u16; 2],
    door: usize,
    socket: Option<BufReader<TcpStream>>,
    key: String,
}

impl Client {
    fn connect(&mut self) -> io::Result<&mut BufReader<TcpStream>> {
        if self.socket.is_none() {
            let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, self.ports[self.door]))?;
            socket.set_nodelay(true)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            self.socket = Some(BufReader::new(socket));
        }
        self.socket.as_mut().ok_or_else(|| ErrorKind::NotConnected.into())
    }

    fn ask(&mut self, parts: &[&[u8]]) -> io::Result<String> {
        let mut request = Vec::new();
        command(&mut request, parts);
        let socket = self.connect()?;
        socket.get_mut().write_all(&request)?;
        let mut line = String::new();
        if socket.read_line(&mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }

    /// One update, from whoever takes it.
    fn put(&mut self, value: &[u8], seen: &mut Seen) -> Result<(), Failure> {
        let begun = Instant::now();
        loop {
            let key = self.key.clone();
            match self.ask(&[b"SET", key.as_bytes(), value]) {
                Ok(line) if line == "+OK" => return Ok(()),
                Ok(line) if line.starts_with("-READONLY") || line.starts_with("-LOADING") => {}
                Ok(line) => return Err(line.into()),
                Err(_) => self.socket = None,
            }
            if begun.elapsed() > PATIENCE {
                return Err("nobody takes updates".into());
            }
            self.socket = None;
            self.door = 1 - self.door;
            seen.moved += 1;
            std::thread::sleep(AGAIN);
        }
    }

    fn stored(&mut self) -> Result<Vec<u8>, Failure> {
        let key = self.key.clone();
        let head = self.ask(&[b"GET", key.as_bytes()])?;
        let len: usize = head.strip_prefix('$').ok_or(head.clone())?.parse()?;
        let mut value = vec![0; len + 2];
        self.connect()?.read_exact(&mut value)?;
        value.truncate(len);
        Ok(value)
    }
}

fn one(ports: [u16; 2], number: usize, time: Duration, size: usize) -> Result<Seen, Failure> {
    let mut client = Client { ports, door: 0, socket: None, key: format!("follow:{number:04}") };
    let mut seen = Seen::default();
    let mut value = vec![b'v'; size.max(20)];
    let begun = Instant::now();
    let mut answered = begun;
    while begun.elapsed() < time {
        let text = format!("{:020}", seen.updates);
        value[..20].copy_from_slice(text.as_bytes());
        client.put(&value, &mut seen)?;
        let now = Instant::now();
        // The first answer waits for a connection of every client.
        if seen.updates > 0 {
            seen.longest = seen.longest.max(now - answered);
        }
        (answered, seen.updates) = (now, seen.updates + 1);
    }
    seen.lost = u64::from(client.stored()? != value);
    Ok(seen)
}

fn main() -> Result<(), Failure> {
    let ports: Vec<u16> =
        argument("--ports", "6379,6380").split(',').map(str::parse).collect::<Result<_, _>>()?;
    let ports = <[u16; 2]>::try_from(ports).map_err(|_| "two ports")?;
    let clients: usize = argument("--clients", "64").parse()?;
    let time = Duration::from_secs_f64(argument("--seconds", "5").parse()?);
    let size: usize = argument("--value", "128").parse()?;
    let threads: Vec<_> =
        (0..clients).map(|number| std::thread::spawn(move || one(ports, number, time, size))).collect();
    let mut all = Seen::default();
    for thread in threads {
        let seen = thread.join().map_err(|_| "a client's thread ended")??;
        all.updates += seen.updates;
        all.longest = all.longest.max(seen.longest);
        all.moved += seen.moved;
        all.lost += seen.lost;
    }
    println!(
        "{{\"updates\": {}, \"longest_gap_ms\": {:.1}, \"moved\": {}, \"lost\": {}}}",
        all.updates,
        all.longest.as_secs_f64() * 1000.0,
        all.moved,
        all.lost
    );
    Ok(())
}

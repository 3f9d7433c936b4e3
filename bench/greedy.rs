//! What others wait while some clients ask for as much as they can: one connection sends a SET at a time and takes the
//! time of each answer, beside `--clients` connections that send one huge command again and again.
//!
//! Usage: `bench-greedy --port P [--ask mget] [--clients 10] [--keys 100000] [--value 8] [--seconds 5]`. What is asked is
//! one of `nothing scan keys exists mget del mset incr set`, or `all` of them in turn. `--default-file` leaves out the
//! file `app,orders` in front of each key. Prints one line of JSON for each. Ends with an error if a SET fails.

use std::error::Error;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

type Failure = Box<dyn Error>;

/// What can be asked for.
const ASKS: [&str; 9] = ["nothing", "scan", "keys", "exists", "mget", "del", "mset", "incr", "set"];

struct Plan {
    port: u16,
    clients: usize,
    keys: usize,
    value: usize,
    time: Duration,
    prefix: &'static str,
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
        clients: argument("--clients", 10)?,
        keys: argument("--keys", 100_000)?,
        value: argument("--value", 8)?,
        time: Duration::from_secs_f64(argument("--seconds", 5.0)?),
        prefix: if std::env::args().any(|arg| arg == "--default-file") { "" } else { "app,orders," },
    };
    let ask: String = argument("--ask", "mget".to_owned())?;
    fill(&plan)?;
    match ask.as_str() {
        "all" => ASKS.iter().try_for_each(|ask| measure(&plan, ask)),
        ask => measure(&plan, ask),
    }
}

fn request(words: &[&[u8]]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        out.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        out.extend_from_slice(word);
        out.extend_from_slice(b"\r\n");
    }
    out
}

fn key(plan: &Plan, number: usize) -> Vec<u8> {
    format!("{}{number:08}{}", plan.prefix, "k".repeat(32)).into_bytes()
}

/// A command that names all keys, with values if there are any.
fn of_all(plan: &Plan, name: &[u8], value: Option<&[u8]>) -> Vec<u8> {
    let keys: Vec<Vec<u8>> = (0..plan.keys).map(|number| key(plan, number)).collect();
    let words = keys.iter().flat_map(|key| std::iter::once(key.as_slice()).chain(value));
    request(&std::iter::once(name).chain(words).collect::<Vec<_>>())
}

fn bytes_of(plan: &Plan, ask: &str) -> Result<Vec<u8>, Failure> {
    let value = vec![b'v'; plan.value];
    let file = plan.prefix;
    Ok(match ask {
        "nothing" => request(&[b"PING"]),
        "scan" => {
            let pattern = format!("{file}*[{}", "x".repeat(900));
            request(&[b"SCAN", b"0", b"MATCH", pattern.as_bytes(), b"COUNT", b"10000"])
        }
        "keys" => request(&[b"KEYS", format!("{file}*nothing*like*it*").as_bytes()]),
        "exists" => of_all(plan, b"EXISTS", None),
        "mget" => of_all(plan, b"MGET", None),
        "del" => of_all(plan, b"DEL", None),
        "mset" => of_all(plan, b"MSET", Some(&value)),
        "incr" => {
            let incr = request(&[b"INCR", format!("{file}counter").as_bytes()]);
            [request(&[b"MULTI"]), incr.repeat(plan.keys), request(&[b"EXEC"])].concat()
        }
        "set" => request(&[b"SET", format!("{file}large").as_bytes(), &vec![b'v'; 16 << 20]]),
        other => return Err(format!("{other} is none of {ASKS:?}").into()),
    })
}

/// Puts what is asked for there.
fn fill(plan: &Plan) -> Result<(), Failure> {
    let mut stream = TcpStream::connect(("127.0.0.1", plan.port))?;
    let value = vec![b'v'; plan.value];
    for first in (0..plan.keys).step_by(1000) {
        let keys: Vec<Vec<u8>> =
            (first..plan.keys.min(first + 1000)).map(|number| key(plan, number)).collect();
        let pairs = keys.iter().flat_map(|key| [key.as_slice(), value.as_slice()]);
        stream.write_all(&request(&std::iter::once(b"MSET".as_slice()).chain(pairs).collect::<Vec<_>>()))?;
        expect(&mut stream, b"+OK\r\n")?;
    }
    Ok(())
}

fn expect(stream: &mut TcpStream, answer: &[u8]) -> Result<(), Failure> {
    let mut found = vec![0; answer.len()];
    stream.read_exact(&mut found)?;
    if found == answer {
        return Ok(());
    }
    let mut more = [0; 400];
    let len = stream.read(&mut more)?;
    let rest = more.get(..len).unwrap_or_default();
    Err(format!("the answer was {}{}", String::from_utf8_lossy(&found), String::from_utf8_lossy(rest)).into())
}

/// Sends the same until told to end, and throws away what comes back.
fn ask_for_ever(plan: &Plan, bytes: &[u8], over: &AtomicBool, taken: &AtomicU64) -> Result<(), String> {
    let connect = || {
        let stream = TcpStream::connect(("127.0.0.1", plan.port))?;
        stream.set_read_timeout(Some(Duration::from_millis(100)))?;
        Ok((stream.try_clone()?, stream))
    };
    let (mut reader, mut writer) = connect().map_err(|error: std::io::Error| error.to_string())?;
    thread::scope(|scope| {
        scope.spawn(move || while !over.load(Ordering::Relaxed) && writer.write_all(bytes).is_ok() {});
        let mut buffer = vec![0; 1 << 20];
        while !over.load(Ordering::Relaxed) {
            match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(len) => _ = taken.fetch_add(len as u64, Ordering::Relaxed),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(_) => break,
            }
        }
        // The other thread may wait for room.
        let _ = reader.shutdown(Shutdown::Both);
    });
    Ok(())
}

/// Sends one SET after the other and gives the microseconds that each took.
fn honest(plan: &Plan) -> Result<Vec<u32>, Failure> {
    let mut stream = TcpStream::connect(("127.0.0.1", plan.port))?;
    stream.set_nodelay(true)?;
    let bytes = request(&[b"SET", format!("{}honest", plan.prefix).as_bytes(), b"value"]);
    let (begun, mut times) = (Instant::now(), Vec::new());
    while begun.elapsed() < plan.time {
        let sent = Instant::now();
        stream.write_all(&bytes)?;
        expect(&mut stream, b"+OK\r\n")?;
        times.push(u32::try_from(sent.elapsed().as_micros()).unwrap_or(u32::MAX));
    }
    Ok(times)
}

fn measure(plan: &Plan, ask: &str) -> Result<(), Failure> {
    let bytes = bytes_of(plan, ask)?;
    let (over, taken) = (AtomicBool::new(false), AtomicU64::new(0));
    let clients = if ask == "nothing" { 0 } else { plan.clients };
    let times = thread::scope(|scope| {
        let greedy: Vec<_> =
            (0..clients).map(|_| scope.spawn(|| ask_for_ever(plan, &bytes, &over, &taken))).collect();
        let times = honest(plan).map_err(|error| error.to_string());
        over.store(true, Ordering::Relaxed);
        for thread in greedy {
            thread.join().map_err(|_| "a thread of this program failed".to_owned())??;
        }
        times
    });
    let mut times = times?;
    times.sort_unstable();
    let at = |thousandths: usize| {
        let index = (times.len() * thousandths / 1000).min(times.len() - 1);
        times.get(index).map_or(0.0, |micros| f64::from(*micros) / 1000.0)
    };
    println!(
        "{{\"ask\": \"{ask}\", \"clients\": {clients}, \"keys\": {}, \"sets\": {}, \"p50_ms\": {:.1}, \"p99_ms\": {:.1}, \
         \"worst_ms\": {:.1}, \"answered_bytes\": {}}}",
        plan.keys,
        times.len(),
        at(500),
        at(990),
        at(1000),
        taken.load(Ordering::Relaxed)
    );
    Ok(())
}

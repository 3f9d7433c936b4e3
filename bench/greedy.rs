//! What others wait while some clients ask for as much as they can: one connection sends a SET at a time and takes the
//! time of each answer, beside `--clients` connections that send one huge command again and again.
//!
//! Usage: `bench-greedy --port P [--ask mget] [--clients 10] [--keys 100000] [--value 8] [--seconds 5]`. What is asked is
//! one of `nothing scan keys exists mget values del mset incr exec set inline pipe sort pattern list`, several of them with
//! commas between, or `all` in turn. `--default-file` leaves out the file `app,orders` in front of each key. `--idle N`
//! keeps so many silent connections beside. `values` asks for 30 items of `--large` bytes.
//!
//! Prints one line of JSON for each: the times of a SET; with `--pid`, the node's process, what is left of them without
//! the time for which its core was ready to run and the machine gave it no processor; the latest that a thread of this
//! program which sleeps a millisecond at a time woke up; the longest that a block took which is written through in the
//! directory `--disk`; what the greedy were answered first, and how often their connections were ended. Ends with an
//! error if a SET fails.

use std::error::Error;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

type Failure = Box<dyn Error>;

/// What can be asked for.
const ASKS: [&str; 16] = [
    "nothing", "scan", "keys", "exists", "mget", "values", "del", "mset", "incr", "exec", "set", "inline",
    "pipe", "sort", "pattern", "list",
];
/// Items of `--large` bytes, which `values` asks for.
const LARGE_ITEMS: usize = 30;

struct Plan {
    port: u16,
    clients: usize,
    idle: usize,
    large: usize,
    keys: usize,
    value: usize,
    time: Duration,
    disk: Option<PathBuf>,
    pid: Option<u32>,
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
        idle: argument("--idle", 0)?,
        large: argument("--large", 100_000)?,
        keys: argument("--keys", 100_000)?,
        value: argument("--value", 8)?,
        time: Duration::from_secs_f64(argument("--seconds", 5.0)?),
        pid: Some(argument("--pid", 0)?).filter(|pid| *pid > 0),
        disk: argument("--disk", String::new()).map(|dir| (!dir.is_empty()).then(|| dir.into()))?,
        prefix: if std::env::args().any(|arg| arg == "--default-file") { "" } else { "app,orders," },
    };
    let ask: String = argument("--ask", "mget".to_owned())?;
    fill(&plan)?;
    let silent: Result<Vec<_>, _> =
        (0..plan.idle).map(|_| TcpStream::connect(("127.0.0.1", plan.port))).collect();
    let _silent = silent?;
    match ask.as_str() {
        "all" => ASKS.iter().try_for_each(|ask| measure(&plan, ask)),
        some => some.split(',').try_for_each(|ask| measure(&plan, ask)),
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

fn large_key(plan: &Plan, number: usize) -> Vec<u8> {
    format!("{}large{number}", plan.prefix).into_bytes()
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
        "pattern" => request(&[b"KEYS", format!("{file}{}", "*k".repeat(32 << 10)).as_bytes()]),
        "values" => {
            let keys: Vec<Vec<u8>> = (0..LARGE_ITEMS).map(|number| large_key(plan, number)).collect();
            request(&std::iter::once(&b"MGET"[..]).chain(keys.iter().map(Vec::as_slice)).collect::<Vec<_>>())
        }
        "exec" => {
            let set = |number| request(&[b"SET", &key(plan, number), &value]);
            let sets: Vec<Vec<u8>> = (0..plan.keys).map(set).collect();
            [request(&[b"MULTI"]), sets.concat(), request(&[b"EXEC"])].concat()
        }
        "inline" => format!("SET {file}inline {}\r\n", "v".repeat(60_000)).repeat(100).into_bytes(),
        "pipe" => b"PING\r\n".repeat(100_000),
        "sort" => request(&[b"SORT", format!("{file}large").as_bytes()]).repeat(10_000),
        "list" => request(&[b"CLIENT", b"LIST"]),
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
    for number in 0..LARGE_ITEMS {
        stream.write_all(&request(&[b"SET", &large_key(plan, number), &vec![b'v'; plan.large]]))?;
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

/// What the greedy came to.
#[derive(Default)]
struct Told {
    taken: AtomicU64,
    ended: AtomicU64,
    /// The first bytes of the first answer.
    first: Mutex<Vec<u8>>,
}

/// Sends the same until told to end, and throws away what comes back; comes again when its connection was ended.
fn ask_for_ever(plan: &Plan, bytes: &[u8], over: &AtomicBool, told: &Told) -> Result<(), String> {
    while !over.load(Ordering::Relaxed) {
        ask_on_one(plan, bytes, over, told).map_err(|error| error.to_string())?;
        told.ended.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

fn ask_on_one(plan: &Plan, bytes: &[u8], over: &AtomicBool, told: &Told) -> std::io::Result<()> {
    let mut reader = TcpStream::connect(("127.0.0.1", plan.port))?;
    reader.set_read_timeout(Some(Duration::from_millis(100)))?;
    let mut writer = reader.try_clone()?;
    thread::scope(|scope| {
        scope.spawn(move || while !over.load(Ordering::Relaxed) && writer.write_all(bytes).is_ok() {});
        let mut buffer = vec![0; 1 << 20];
        while !over.load(Ordering::Relaxed) {
            match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(len) => {
                    if told.taken.fetch_add(len as u64, Ordering::Relaxed) == 0
                        && let Ok(mut first) = told.first.lock()
                    {
                        first.extend_from_slice(&buffer[..len.min(60)]);
                    }
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(_) => break,
            }
        }
        // The other thread may wait for room.
        let _ = reader.shutdown(Shutdown::Both);
    });
    Ok(())
}

/// How late this machine wakes a thread that asks for nothing but a millisecond of sleep (microseconds).
/// How long this disk takes for a block that is written through, a few each second (microseconds).
fn disk(dir: &Path, over: &AtomicBool) -> std::io::Result<u64> {
    let path = dir.join("bench-greedy.tmp");
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).custom_flags(libc::O_DSYNC).open(&path)?;
    let mut worst = Duration::ZERO;
    while !over.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(5));
        let begun = Instant::now();
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&[0; 4096])?;
        worst = worst.max(begun.elapsed());
    }
    std::fs::remove_file(&path)?;
    Ok(u64::try_from(worst.as_micros()).unwrap_or(u64::MAX))
}

fn lateness(over: &AtomicBool) -> u64 {
    let (nap, mut worst) = (Duration::from_millis(1), Duration::ZERO);
    while !over.load(Ordering::Relaxed) {
        let begun = Instant::now();
        thread::sleep(nap);
        worst = worst.max(begun.elapsed().saturating_sub(nap));
    }
    u64::try_from(worst.as_micros()).unwrap_or(u64::MAX)
}

/// How long the core of the node has been ready to run and had no processor (microseconds); 0 if it is not known.
fn kept_waiting(plan: &Plan) -> u64 {
    let path = plan.pid.map(|pid| format!("/proc/{pid}/task/{pid}/schedstat"));
    let text = path.and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
    text.split_whitespace().nth(1).and_then(|nanos| nanos.parse::<u64>().ok()).unwrap_or(0) / 1000
}

/// Sends one SET after the other and gives the microseconds that each took, and those without the time for which the
/// machine kept the node from running.
fn honest(plan: &Plan) -> Result<[Vec<u32>; 2], Failure> {
    let mut stream = TcpStream::connect(("127.0.0.1", plan.port))?;
    stream.set_nodelay(true)?;
    let bytes = request(&[b"SET", format!("{}honest", plan.prefix).as_bytes(), b"value"]);
    let (begun, mut times, mut own) = (Instant::now(), Vec::new(), Vec::new());
    let small = |micros: u128| u32::try_from(micros).unwrap_or(u32::MAX);
    while begun.elapsed() < plan.time {
        let (sent, before) = (Instant::now(), kept_waiting(plan));
        stream.write_all(&bytes)?;
        expect(&mut stream, b"+OK\r\n")?;
        let took = sent.elapsed().as_micros();
        times.push(small(took));
        own.push(small(took.saturating_sub(u128::from(kept_waiting(plan).saturating_sub(before)))));
    }
    times.sort_unstable();
    own.sort_unstable();
    Ok([times, own])
}

fn measure(plan: &Plan, ask: &str) -> Result<(), Failure> {
    let bytes = bytes_of(plan, ask)?;
    let (over, told) = (AtomicBool::new(false), Told::default());
    let clients = if ask == "nothing" { 0 } else { plan.clients };
    let times = thread::scope(|scope| {
        let greedy: Vec<_> =
            (0..clients).map(|_| scope.spawn(|| ask_for_ever(plan, &bytes, &over, &told))).collect();
        let idle = scope.spawn(|| lateness(&over));
        let disk = scope.spawn(|| plan.disk.as_ref().map_or(Ok(0), |dir| disk(dir, &over)));
        let times = honest(plan).map_err(|error| error.to_string());
        over.store(true, Ordering::Relaxed);
        for thread in greedy {
            thread.join().map_err(|_| "a thread of this program failed".to_owned())??;
        }
        let machine = idle.join().map_err(|_| "a thread of this program failed".to_owned())?;
        let disk = disk.join().map_err(|_| "a thread of this program failed".to_owned())?;
        Ok::<_, String>((times?, machine, disk.map_err(|error| error.to_string())?))
    });
    let ([times, own], machine, disk) = times?;
    let at = |times: &[u32], thousandths: usize| {
        let index = (times.len() * thousandths / 1000).min(times.len() - 1);
        times.get(index).map_or(0.0, |micros| f64::from(*micros) / 1000.0)
    };
    let first = told.first.lock().map_err(|_| "a thread of this program failed")?;
    let first =
        String::from_utf8_lossy(&first).escape_default().to_string().replace('\\', "/").replace('"', "'");
    println!(
        "{{\"ask\": \"{ask}\", \"clients\": {clients}, \"keys\": {}, \"sets\": {}, \"p50_ms\": {:.1}, \"p99_ms\": {:.1}, \
         \"worst_ms\": {:.1}, \"own_p99_ms\": {:.1}, \"own_worst_ms\": {:.1}, \"machine_worst_ms\": {:.1}, \"disk_worst_ms\": {:.1}, \"answered_bytes\": {}, \"ended\": {}, \"first\": \"{first}\"}}",
        plan.keys,
        times.len(),
        at(&times, 500),
        at(&times, 990),
        at(&times, 1000),
        at(&own, 990),
        at(&own, 1000),
        machine as f64 / 1000.0,
        disk as f64 / 1000.0,
        told.taken.load(Ordering::Relaxed),
        told.ended.load(Ordering::Relaxed).saturating_sub(clients as u64),
    );
    Ok(())
}

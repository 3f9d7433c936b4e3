//! Clients that ask for as much as they can, against a pair of real nodes. Proves that others are served meanwhile, that
//! the peer stays connected, and that the node stops when it is told to.

use crate::support::{Door, Node, Pair, Plan};
use nix::sys::signal::Signal;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Keys that one command names.
const KEYS: usize = 100_000;
/// No round of the core may take more processor time, in a program that is optimised only a little (milliseconds).
const ROUND_MAX_MS: f64 = 120.0;
/// The bound of a stop: ten seconds for the engine, and some for the threads.
const STOP: Duration = Duration::from_secs(16);

fn request(words: &[&str]) -> Vec<u8> {
    let mut out = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        out.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
    out
}

/// What one of them sends again and again.
fn greed(kind: usize) -> Vec<u8> {
    let keys: Vec<String> = (0..KEYS).map(|n| format!("app,orders,{n}{}", "k".repeat(40))).collect();
    let command = |name: &str| {
        let words: Vec<&str> = std::iter::once(name).chain(keys.iter().map(String::as_str)).collect();
        request(&words)
    };
    let sets = "*,*,[".to_owned() + &"x".repeat(1000);
    match kind {
        0 => request(&["SCAN", "0", "MATCH", &sets, "COUNT", "10000"]),
        1 => command("MGET"),
        2 => command("EXISTS"),
        3 => command("DEL"),
        4 => {
            let name = "app,orders,counter";
            let incr = request(&["INCR", name]).repeat(20_000);
            [request(&["MULTI"]), incr, request(&["EXEC"])].concat()
        }
        _ => {
            let pairs = keys.iter().flat_map(|key| [key.as_str(), "v"]).take(2 * KEYS);
            let words: Vec<&str> = std::iter::once("MSET").chain(pairs).collect();
            request(&words)
        }
    }
}

/// Sends it until told to end, and throws away what comes back.
fn ask_for_ever(door: &Door, kind: usize, over: &AtomicBool, answers: &AtomicU64) {
    let Door::Tcp(address) = door else { panic!("a TCP door") };
    let Ok(mut stream) = TcpStream::connect(address) else { return };
    let mut reader = stream.try_clone().unwrap();
    let bytes = greed(kind);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) && stream.write_all(&bytes).is_ok() {}
            let _ = stream.shutdown(std::net::Shutdown::Both);
        });
        let mut buffer = vec![0; 1 << 20];
        while reader.read(&mut buffer).is_ok_and(|len| len > 0) {
            answers.fetch_add(1, Ordering::Relaxed);
        }
    });
}

/// What the node says of itself, and the end of its log.
fn told_by(node: &mut Node) -> String {
    let state = if node.runs() { node.state() } else { "it does not run any more".to_owned() };
    let log = node.log();
    let lines: Vec<&str> = log.lines().collect();
    format!("the node: {state}; its log ends with\n{}", lines[lines.len().saturating_sub(40)..].join("\n"))
}

#[test]
fn whatever_ten_clients_ask_for_another_is_served_the_peer_stays_and_the_node_stops_in_time() {
    let mut pair = Pair::start(&Plan::quick());
    let (over, answers) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let greedy: Vec<_> = (0..10)
        .map(|n| {
            let (door, over, answers) = (pair.a.door.clone(), Arc::clone(&over), Arc::clone(&answers));
            thread::spawn(move || ask_for_ever(&door, n % 6, &over, &answers))
        })
        .collect();
    let mut honest = pair.a.redis();
    let (begin, mut times) = (Instant::now(), Vec::new());
    while begin.elapsed() < Duration::from_secs(6) || answers.load(Ordering::Relaxed) < 20 {
        let sent = Instant::now();
        let told = redis::cmd("SET").arg("app,orders,honest").arg(times.len()).exec(&mut honest);
        if let Err(error) = told {
            let at = begin.elapsed();
            panic!("SET number {} failed after {at:?}: {error}\n{}", times.len(), told_by(&mut pair.a));
        }
        times.push(sent.elapsed());
    }
    let longest = pair.a.json(&["status"])["longest_round_ms"].as_f64().unwrap();
    times.sort_unstable();
    let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
    println!(
        "{} SETs beside ten greedy clients: median {median:?}, worst {worst:?}, longest round {longest:.1} ms",
        times.len()
    );
    // Processor time, so it is the node's own, however busy the machine is; optimised code takes a fifth of it.
    assert!(longest > 0.0 && longest < ROUND_MAX_MS, "a round took {longest} ms");
    // A turn takes milliseconds; what is above that here is a busy machine.
    assert!(median < Duration::from_millis(300), "{median:?}");
    assert!(worst < Duration::from_secs(3), "{worst:?}");
    let lost = pair.a.incidents().into_iter().filter(|(kind, _)| kind == "peer-lost").count();
    assert_eq!(lost, 0, "the link lives");
    let told = Instant::now();
    pair.a.signal(Signal::SIGTERM);
    assert!(pair.a.ended().success());
    assert!(told.elapsed() < STOP, "{:?}", told.elapsed());
    over.store(true, Ordering::Relaxed);
    greedy.into_iter().for_each(|thread| thread.join().unwrap());
}

//! Strangers who hold on to the ports of a node, and say nothing: they shut out nobody.

use crate::support::{EXPORT, Nbd, Node, Pair, Plan, loopback_addresses, make_volume, scratch, wait_until};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, SockaddrStorage, bind, connect, socket,
};
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// A connection of a machine that is not the peer.
fn stranger(to: SocketAddr) -> Option<TcpStream> {
    let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(socket.as_raw_fd(), &SockaddrIn::new(127, 77, 0, 1, 0)).unwrap();
    connect(socket.as_raw_fd(), &SockaddrStorage::from(to)).ok()?;
    Some(TcpStream::from(socket))
}

/// Strangers who connect on and on, and say nothing; the last so many stay.
struct Crowd {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Crowd {
    fn start(to: Vec<SocketAddr>, stay: usize, pause: Duration) -> Self {
        let ended = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&ended);
        let thread = thread::spawn(move || {
            let mut held = VecDeque::new();
            while !over.load(Ordering::Relaxed) {
                held.extend(to.iter().filter_map(|to| stranger(*to)));
                while held.len() > stay * to.len() {
                    held.pop_front();
                }
                thread::sleep(pause);
            }
        });
        Self { ended, thread: Some(thread) }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        self.thread.take().map(JoinHandle::join);
    }
}

/// Where a node waits for its peer.
fn link_of(node: &Node) -> SocketAddr {
    let text = std::fs::read_to_string(node.dir.join("config.toml")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("link_listen = ")).unwrap();
    line.trim_matches('"').parse().unwrap()
}

#[test]
fn silent_connections_to_the_link_port_do_not_keep_a_restarted_node_from_its_peer() {
    let mut pair = Pair::start(&Plan::quick());
    let links = [&pair.a, &pair.b].map(link_of);
    // More than have a slot, of which none has the time to run out.
    let crowd = Crowd::start(links.to_vec(), 18, Duration::from_micros(1_000_000 / 16));
    wait_until("strangers that are refused", || {
        let refused = |node: &Node| node.json(&["status"])["refused"].as_u64().unwrap();
        (refused(&pair.a) > 5 && refused(&pair.b) > 5).then_some(())
    });
    for round in 0..2 {
        let begin = Instant::now();
        if round == 0 {
            pair.a.kill();
            pair.a.start();
            pair.a.serves();
        } else {
            pair.b.kill();
            pair.b.start();
        }
        pair.connected();
        assert!(begin.elapsed() < Duration::from_secs(15), "{:?} in round {round}", begin.elapsed());
    }
    drop(crowd);
    let told = pair.a.incident("link-refused");
    assert!(told.contains("127.77.0.1:"), "{told}");
}

/// An address at which other machines are expected.
fn public_address() -> SocketAddr {
    let held = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    held.local_addr().unwrap()
}

/// A node with few descriptors, whose doors are open to other machines too: itself, and its doors for those (RESP and
/// NBD) and for this machine (NBD).
fn open_to_all(dir: &std::path::Path, descriptors: u32) -> (Node, [SocketAddr; 3]) {
    let mut node = Node::alone(dir.join("node"), &Plan::quick());
    let [near_nbd] = loopback_addresses();
    let (resp, nbd) = (public_address(), public_address());
    let path = node.dir.join("config.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    let crate::support::Door::Tcp(near) = node.door.clone() else { panic!("it has an address") };
    let line = format!("resp = \"{near}\"");
    assert!(text.contains(&line), "{text}");
    let all = format!(
        "resp = [\"{near}\", \"{resp}\"]\nnbd = [\"{near_nbd}\", \"{nbd}\"]\nresp_password_file = \"secret\""
    );
    std::fs::write(&path, text.replace(&line, &all)).unwrap();
    let secret = node.dir.join("secret");
    std::fs::write(&secret, "sesame\n").unwrap();
    std::fs::set_permissions(&secret, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let limit = format!("ulimit -n {descriptors}; exec \"$@\"");
    node.start_through(&["sh", "-c", &limit, "sh"].map(str::to_owned));
    assert!(node.serves_alone(), "{}", node.log());
    node.make_orders();
    make_volume(&node, "1M");
    let at = |address: SocketAddr| SocketAddr::from((Ipv4Addr::LOCALHOST, address.port()));
    (node, [at(resp), at(nbd), near_nbd])
}

/// Says a line to a RESP door and hears the answer.
fn answer(stream: &mut (impl Read + Write), line: &str) -> String {
    stream.write_all(line.as_bytes()).unwrap();
    let mut answer = vec![0; 64];
    let len = stream.read(&mut answer).unwrap();
    String::from_utf8_lossy(&answer[..len]).into_owned()
}

/// Waits until as many were refused at a door as there is no place for.
#[track_caller]
fn refuses(node: &Node, field: &str, least: u64) {
    node.status("to have refused strangers", |status| status[field].as_u64() >= Some(least));
}

#[test]
fn silent_connections_from_other_machines_shut_out_no_client() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    let dir = scratch();
    let (node, [resp, nbd, near_nbd]) = open_to_all(dir.path(), 1200);
    // All that there could be: 602 places for Redis clients, 86 for those of volumes.
    let silent: Vec<_> = (0..700).map(|_| TcpStream::connect(resp).unwrap()).collect();
    refuses(&node, "resp_refused", 98);
    let volumes: Vec<_> = (0..300).map(|_| TcpStream::connect(nbd).unwrap()).collect();
    refuses(&node, "nbd_refused", 214);

    let mut own = UnixStream::connect(node.dir.join("resp.sock")).unwrap();
    assert_eq!(answer(&mut own, "SET app,orders,a 1\r\n"), "+OK\r\n");
    let crate::support::Door::Tcp(near) = node.door.clone() else { panic!("it has an address") };
    for address in [near, resp] {
        let mut client = TcpStream::connect(address).unwrap();
        assert_eq!(answer(&mut client, "AUTH sesame\r\n"), "+OK\r\n");
        assert_eq!(answer(&mut client, "GET app,orders,a\r\n"), "$1\r\n1\r\n");
    }
    Nbd::open(near_nbd, EXPORT).unwrap().write(0, &[1; 512]).unwrap();
    let mut own = UnixStream::connect(node.dir.join("nbd.sock")).unwrap();
    let mut greeting = [0; 18];
    own.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting[..16], b"NBDMAGICIHAVEOPT");

    // One for each door.
    let told = node.told("client-refused", 2);
    assert!(told.iter().all(|text| text.contains("127.0.0.1:")), "{told:?}");
    drop((silent, volumes));
}

#[test]
fn guessing_passwords_is_slow_and_is_told_with_the_address_of_who_does_it() {
    let dir = scratch();
    let (node, [resp, ..]) = open_to_all(dir.path(), 1200);
    let mut known = TcpStream::connect(resp).unwrap();
    assert_eq!(answer(&mut known, "AUTH sesame\r\n"), "+OK\r\n");
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(2) {
        let mut stream = TcpStream::connect(resp).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        stream.write_all("AUTH wrong\r\n".repeat(100).as_bytes()).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    }
    // Without a brake it would be many thousands.
    let guesses = node.json(&["status"])["resp_refused"].as_u64().unwrap();
    assert!((1..100).contains(&guesses), "{guesses} in {:?}", begin.elapsed());
    let before = Instant::now();
    assert_eq!(answer(&mut known, "PING\r\n"), "+PONG\r\n");
    assert!(before.elapsed() < Duration::from_millis(1000), "who is known does not wait");
    let told = node.incident("client-refused");
    assert!(told.contains("127.0.0.1:") && told.contains("gave a wrong password at the RESP door"), "{told}");
    node.told("client-refused", 1);
}

//! What a node tells the service manager that started it: that it is up when it answers, and that it stops.

use crate::support::{Nbd, Node, Pair, Plan, loopback_addresses, make_volume, serves_volumes_at};
use nix::sys::signal::Signal;
use std::fs::OpenOptions;
use std::io::{ErrorKind, PipeWriter, Read, Write};
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};
use std::path::Path;
use std::time::Duration;

const UP: &str = "READY=1\nSTATUS=running\n";
const STOPPING: &str = "STOPPING=1\nSTATUS=stopping\n";

/// The service manager's end.
struct Manager {
    socket: UnixDatagram,
    /// What a node is started through.
    through: [String; 2],
}

impl Manager {
    fn new(socket: UnixDatagram, name: &str) -> Self {
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Self { socket, through: ["env".to_owned(), format!("NOTIFY_SOCKET={name}")] }
    }

    /// Behind a path.
    fn at(path: &Path) -> Self {
        Self::new(UnixDatagram::bind(path).unwrap(), path.to_str().unwrap())
    }

    /// Behind a name in the abstract namespace.
    fn named(name: &str) -> Self {
        let address = SocketAddr::from_abstract_name(name).unwrap();
        Self::new(UnixDatagram::bind_addr(&address).unwrap(), &format!("@{name}"))
    }

    /// What it is told next.
    #[track_caller]
    fn told(&self) -> String {
        let mut bytes = [0; 4096];
        let len = self.socket.recv(&mut bytes).expect("it is told something");
        String::from_utf8(bytes[..len].to_vec()).unwrap()
    }

    /// It was told no more than what was looked at.
    #[track_caller]
    fn was_told_no_more(&self) {
        self.socket.set_nonblocking(true).unwrap();
        let more = self.socket.recv(&mut [0; 4096]).map_err(|error| error.kind());
        assert_eq!(more, Err(ErrorKind::WouldBlock));
    }
}

/// Answers at all its doors, at once.
#[track_caller]
fn answers(node: &Node) -> String {
    let client = redis::Client::open(format!("redis+unix://{}/resp.sock", node.dir.display())).unwrap();
    let pong: String = redis::cmd("PING").query(&mut client.get_connection().unwrap()).unwrap();
    assert_eq!(pong, "PONG");
    let mut volumes = UnixStream::connect(node.dir.join("nbd.sock")).unwrap();
    volumes.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut greeting = [0; 18];
    volumes.read_exact(&mut greeting).unwrap();
    assert!(greeting.starts_with(b"NBDMAGICIHAVEOPT"), "{greeting:?}");
    node.json(&["status"])["state"].as_str().unwrap().to_owned()
}

#[test]
fn the_service_manager_is_told_that_a_node_is_up_when_it_answers_and_that_it_stops() {
    let mut pair = Pair::set_up(&Plan::quick());
    let of_a = Manager::at(&pair.a.dir.join("notify.sock"));
    let of_b = Manager::named(&format!("hot-backup-test-{}", std::process::id()));
    // A standby, then a primary that it has waited for.
    pair.b.start_through(&of_b.through);
    assert_eq!(of_b.told(), UP);
    assert_eq!(answers(&pair.b), "standby");
    pair.a.start_through(&of_a.through);
    assert_eq!(of_a.told(), UP);
    let state = answers(&pair.a);
    assert!(["asking-peer", "starting-epoch", "serving"].contains(&&*state), "{state}");
    pair.a.serves();
    pair.a.make_orders();
    pair.converges();
    for (node, manager) in [(&mut pair.a, &of_a), (&mut pair.b, &of_b)] {
        node.signal(Signal::SIGTERM);
        assert_eq!(manager.told(), STOPPING);
        assert!(node.ended().success());
        manager.was_told_no_more();
    }
}

#[test]
fn the_service_manager_is_not_told_that_a_node_is_up_while_it_replays() {
    const PIECE: usize = 1 << 20;
    let root = tempfile::tempdir().unwrap();
    let plan = Plan::default().config("checkpoint_ms = 3600000").config("checkpoint_bytes = \"4G\"");
    let mut node = Node::alone(root.path().join("A"), &plan);
    let [door] = loopback_addresses();
    serves_volumes_at(&node, door);
    node.start_alone();
    make_volume(&node, "128M");
    // What was written into a volume since the last checkpoint is written again after a crash.
    let mut volume = Nbd::open(door, "app/disk1").unwrap();
    volume.writes((0..128).map(|n| n * PIECE as u64), &[7; PIECE], 8).unwrap();
    volume.flush().unwrap();
    node.kill();
    let manager = Manager::at(&root.path().join("notify.sock"));
    node.start_through(&manager.through);
    assert_eq!(manager.told(), UP);
    assert_eq!(answers(&node), "asking-peer");
}

#[test]
fn the_service_manager_is_not_told_that_a_node_is_up_that_cannot_start() {
    let root = tempfile::tempdir().unwrap();
    let mut node = Node::alone(root.path().join("A"), &Plan::default());
    let text = std::fs::read_to_string(node.dir.join("config.toml")).unwrap();
    let taken = text.lines().find_map(|line| line.strip_prefix("link_listen = ")).unwrap();
    let _taken = TcpListener::bind(taken.trim_matches('"')).unwrap();
    let manager = Manager::at(&root.path().join("notify.sock"));
    node.start_through(&manager.through);
    assert_eq!(node.ended().code(), Some(2));
    manager.was_told_no_more();
}

/// A pipe that takes nothing more, and its other end.
fn full_pipe() -> (PipeWriter, std::io::PipeReader) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let flags = |on| {
        let flags = if on { nix::fcntl::OFlag::O_NONBLOCK } else { nix::fcntl::OFlag::empty() };
        nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETFL(flags)).unwrap();
    };
    flags(true);
    while (&writer).write(&[b'.'; 512]).is_ok() {}
    flags(false);
    writer.flush().unwrap();
    (writer, reader)
}

/// The node does all its work, tells what happens in the incident file, and ends when it is told to.
#[track_caller]
fn works_and_ends(node: &mut Node, account: &str) {
    assert!(node.serves_alone(), "it ended");
    let file = format!("{account},orders");
    node.done(&["account", "create", account]);
    node.done(&["file", "create", &file, "--records", "--flags", "L"]);
    let mut client = node.door.connect();
    let _: () = redis::cmd("SET").arg(format!("{file},1")).arg("x").query(&mut client).unwrap();
    // Strangers are told of in the log.
    let text = std::fs::read_to_string(node.dir.join("config.toml")).unwrap();
    let port = text.lines().find_map(|line| line.strip_prefix("link_listen = ")).unwrap().trim_matches('"');
    let mut stranger = std::net::TcpStream::connect(port).unwrap();
    stranger.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    node.incident("link-refused");
    assert_eq!(node.json(&["status"])["state"], "serving");
    node.signal(Signal::SIGTERM);
    assert!(node.ended().success());
}

#[test]
fn a_node_lives_on_whose_log_cannot_be_written_or_is_not_read() {
    let root = tempfile::tempdir().unwrap();
    let mut node = Node::alone(root.path().join("A"), &Plan::quick());
    // A full disk.
    node.start_logging(OpenOptions::new().write(true).open("/dev/full").unwrap(), &[]);
    works_and_ends(&mut node, "full");
    // A reader that died.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    node.start_logging(writer, &[]);
    works_and_ends(&mut node, "dead");
    // A reader that was stopped: a write would wait for ever.
    let (writer, reader) = full_pipe();
    node.start_logging(writer, &[]);
    works_and_ends(&mut node, "stopped");
    drop(reader);
}

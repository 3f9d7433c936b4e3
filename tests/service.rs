//! What a node tells the service manager that started it: that it is up when it answers, and that it stops.

use crate::support::{
    Nbd, Node, Pair, Plan, here, loopback_addresses, make_volume, missing, serves_volumes_at, shell,
    wait_until,
};
use hot_backup::engine::admin::{AdminAnswer, AdminReply, AdminRequest, Status};
use hot_backup::node::admin::call;
use nix::sys::signal::Signal;
use std::fs::OpenOptions;
use std::io::{ErrorKind, PipeWriter, Read, Write};
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

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

    fn next(&self) -> std::io::Result<String> {
        let mut bytes = [0; 4096];
        let len = self.socket.recv(&mut bytes)?;
        Ok(String::from_utf8(bytes[..len].to_vec()).unwrap())
    }

    /// What it is told next, beside how far a slow start is.
    #[track_caller]
    fn told(&self) -> String {
        let told = std::iter::repeat_with(|| self.next().expect("it is told something"));
        told.into_iter().find(|told| !is_progress(told)).unwrap()
    }

    /// It was told no more than what was looked at.
    #[track_caller]
    fn was_told_no_more(&self) {
        self.socket.set_nonblocking(true).unwrap();
        let more =
            std::iter::repeat_with(|| self.next()).find(|told| !told.as_deref().is_ok_and(is_progress));
        assert_eq!(more.unwrap().map_err(|error| error.kind()), Err(ErrorKind::WouldBlock));
    }
}

fn is_progress(told: &str) -> bool {
    told.starts_with("STATUS=") && !told.contains("READY") && !told.contains("STOPPING")
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
fn a_pair_that_tests_set_up_has_nothing_to_warn_of_in_its_config() {
    let plan = Plan::quick().config("degrade_after_ms = 4000");
    let mut pair = Pair::set_up(&plan);
    for (node, address) in [&pair.a, &pair.b].into_iter().zip(loopback_addresses::<2>()) {
        serves_volumes_at(node, address);
    }
    pair.serve();
    for node in [&pair.a, &pair.b] {
        let log = node.log();
        assert!(!log.contains("config.toml"), "{log}");
        let config = std::fs::read_to_string(node.dir.join("config.toml")).unwrap();
        assert!(config.contains("\ndegrade_after_ms = 4000\nnbd = "), "{config}");
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
    // Whoever asks meanwhile is told how far it is, from before the store is open.
    let dir = node.dir.clone();
    let asker = std::thread::spawn(move || states_of_a_start(&dir));
    node.start_through(&manager.through);
    assert_eq!(manager.told(), UP);
    assert_eq!(answers(&node), "asking-peer");
    let states = asker.join().unwrap();
    let on_the_way: Vec<_> = states.iter().filter(|status| status.replay.is_some()).collect();
    assert!(!on_the_way.is_empty(), "in {} answers", states.len());
    let words = |status: &&Status| {
        let replay = status.replay.as_ref().unwrap();
        let named = ["starting", "replaying"].contains(&status.state.as_str());
        named && replay.done <= replay.total && !replay.stage.is_empty()
    };
    assert!(on_the_way.iter().all(words), "{:?}", on_the_way.iter().find(|status| !words(status)));
    let counted = on_the_way.iter().filter(|status| status.replay.as_ref().unwrap().total > 0);
    assert!(counted.count() > 0, "{:?}", on_the_way.last());
}

/// What a node in `dir` tells of itself from its first answer on until it asks its peer.
fn states_of_a_start(dir: &Path) -> Vec<Status> {
    let mut states = Vec::new();
    let until = Instant::now() + Duration::from_secs(60);
    while Instant::now() < until {
        match call(dir, &AdminRequest::Status, Duration::from_secs(60)) {
            Ok(AdminReply::Ok { value: AdminAnswer::Status(status) }) => {
                if status.state == "asking-peer" {
                    return states;
                }
                states.push(*status);
            }
            _ => std::thread::sleep(Duration::from_millis(1)),
        }
    }
    panic!("it never asks its peer: {:?}", states.last());
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

#[test]
fn a_hangup_stops_no_node() {
    let root = tempfile::tempdir().unwrap();
    let mut node = Node::alone(root.path().join("A"), &Plan::quick());
    node.start_alone();
    for n in 1..=3 {
        node.signal(Signal::SIGHUP);
        wait_until("the hangup to be told", || (node.log().matches("SIGHUP").count() == n).then_some(()));
    }
    node.make_orders();
    assert_eq!(node.state(), "serving");
    node.signal(Signal::SIGTERM);
    assert!(node.ended().success());
}

#[test]
fn a_node_whose_descriptors_are_used_up_says_so_to_an_operator_and_does_not_say_that_it_serves() {
    if missing(here!(), &["prlimit"]) {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let mut node = Node::alone(root.path().join("A"), &Plan::quick());
    node.start_alone();
    node.make_orders();
    let limit =
        |files: &str| shell(&["prlimit", "--pid", &node.id().to_string(), &format!("--nofile={files}:")]);
    // No number above those that it has open; clients use up what is free below.
    let open = std::fs::read_dir(format!("/proc/{}/fd", node.id())).unwrap();
    let highest =
        open.map(|fd| fd.unwrap().file_name().to_str().unwrap().parse::<u32>().unwrap()).max().unwrap();
    limit(&(highest + 1).to_string());
    let clients = std::cell::RefCell::new(Vec::new());
    let status = node.status("to say that nobody can connect", |status| {
        clients.borrow_mut().push(UnixStream::connect(node.dir.join("resp.sock")).unwrap());
        status["state"] == "no-descriptors"
    });
    assert!(status["reason"].as_str().unwrap().contains("Too many open files"), "{status}");
    assert!(status["next"].as_str().unwrap().contains("LimitNOFILE"), "{status}");
    let checked = node.verb(&["status", "--check"]);
    assert_eq!(checked.status.code(), Some(1));
    let told = String::from_utf8_lossy(&checked.stderr);
    // The door has none for a client, or the store none for its files, whichever asked last.
    assert!(told.contains("not well: it is no-descriptors: "), "{told}");
    assert!(told.contains("(Too many open files (os error 24))"), "{told}");
    limit("1024");
    node.serves();
    let mut last = clients.into_inner().pop().unwrap();
    last.write_all(b"PING\r\n").unwrap();
    let mut pong = [0; 7];
    last.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    last.read_exact(&mut pong).unwrap();
    assert_eq!(&pong, b"+PONG\r\n");
}

//! Whole nodes as processes of their own: the test program starts itself again with a node's directory.

use super::super::admin::call;
use super::super::setup::{InitOptions, identity, init, trust};
use super::*;
use crate::engine::admin::{AdminAnswer, AdminReply, AdminRequest, Status};
use crate::format::dptr::DptrKind;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitStatus, Stdio};

const DIR_VARIABLE: &str = "HOT_BACKUP_TEST_NODE";
const PATIENCE: Duration = Duration::from_secs(30);

/// Not a test by itself: what the processes of the tests below do.
#[test]
fn a_process_of_its_own() {
    if let Some(dir) = std::env::var_os(DIR_VARIABLE) {
        if let Err(error) = serve(Path::new(&dir), ServeOptions::default()) {
            eprintln!("{error}");
            std::process::exit(2);
        }
        std::process::exit(0);
    }
}

struct Process(Child);

impl Process {
    fn start(dir: &Path) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "node::serve::tests::a_process_of_its_own", "--nocapture"])
            .env(DIR_VARIABLE, dir)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.0.id()).unwrap()), signal).unwrap();
    }

    fn end(&mut self) -> ExitStatus {
        wait_for("the process to end", || self.0.try_wait().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < until, "waiting for {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A primary in `a` and a standby in `b` that trust each other.
fn pair(dir: &Path) -> (PathBuf, PathBuf) {
    let (a, b) = (dir.join("a"), dir.join("b"));
    // Free a moment ago; nobody else on the loopback is given them at once.
    let ports = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    let [at_a, at_b] = ports.map(|port| port.local_addr().unwrap().to_string());
    let options = |dir: &Path, name, role, own: &str, peer: &str| {
        InitOptions::new(dir, name, role, own, peer).with("segment_bytes", Some("1M"))
    };
    init(&options(&a, "a", "primary", &at_a, &at_b)).unwrap();
    init(&options(&b, "b", "standby", &at_b, &at_a)).unwrap();
    trust(&a, &identity(&b).unwrap().to_string()).unwrap();
    trust(&b, &identity(&a).unwrap().to_string()).unwrap();
    (a, b)
}

fn ask(dir: &Path, request: &AdminRequest) -> Option<AdminAnswer> {
    match call(dir, request, PATIENCE) {
        Ok(AdminReply::Ok { value }) => Some(value),
        _ => None,
    }
}

fn status(dir: &Path, good: impl Fn(&Status) -> bool) {
    wait_for("a status", || match ask(dir, &AdminRequest::Status) {
        Some(AdminAnswer::Status(status)) => good(&status).then_some(()),
        _ => None,
    });
}

fn redis(dir: &Path, lines: &str, answers: usize) -> Vec<String> {
    let mut stream = UnixStream::connect(dir.join("resp.sock")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(lines.as_bytes()).unwrap();
    BufReader::new(stream).lines().take(answers).map(Result::unwrap).collect()
}

fn make_file(dir: &Path) {
    let account = AdminRequest::AccountCreate { name: "app".to_owned(), flags: String::new() };
    let file = AdminRequest::FileCreate {
        name: "app,orders".to_owned(),
        kind: DptrKind::Records,
        flags: Some("L".to_owned()),
        bytes: None,
        ack: None,
    };
    wait_for("an account", || ask(dir, &account));
    wait_for("a file", || ask(dir, &file));
}

#[test]
fn an_update_reaches_the_standby_and_survives_restarts_of_both_nodes() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = pair(dir.path());
    let (mut primary, mut standby) = (Process::start(&a), Process::start(&b));
    status(&a, |status| status.state == "serving" && status.peer.connected);
    make_file(&a);
    let answers = redis(&a, "SET app,orders,1 one\r\nSET app,orders,2 two\r\nGET app,orders,1\r\n", 4);
    assert_eq!(answers, ["+OK", "+OK", "$3", "one"]);
    wait_for("the update on the standby", || (redis(&b, "GET app,orders,2\r\n", 1) == ["$3"]).then_some(()));
    // The primary dies in an instant; the standby stops in order. Both come back as they were.
    primary.signal(Signal::SIGKILL);
    primary.end();
    let begin = Instant::now();
    standby.signal(Signal::SIGTERM);
    assert_eq!(standby.end().code(), Some(0));
    // What is under way is finished at once, not when the next checkpoint is due.
    assert!(begin.elapsed() < Duration::from_secs(8), "{:?}", begin.elapsed());
    for gone in ["resp.sock", "admin.sock"] {
        assert!(!b.join(gone).exists(), "{gone} is removed");
    }
    let (primary, standby) = (Process::start(&a), Process::start(&b));
    status(&a, |status| status.state == "serving");
    assert_eq!(redis(&a, "GET app,orders,2\r\n", 2), ["$3", "two"]);
    assert_eq!(redis(&a, "SET app,orders,3 three\r\n", 1), ["+OK"]);
    wait_for("the update on the standby", || (redis(&b, "GET app,orders,3\r\n", 1) == ["$5"]).then_some(()));
    for mut process in [primary, standby] {
        process.signal(Signal::SIGTERM);
        assert_eq!(process.end().code(), Some(0));
    }
}

#[test]
fn a_node_under_load_stops_within_its_bound_and_a_second_signal_ends_it_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (a, _) = pair(dir.path());
    let mut primary = Process::start(&a);
    wait_for("the primary to serve alone", || ask(&a, &AdminRequest::StartAlone));
    status(&a, |status| status.state == "serving");
    make_file(&a);
    let writers: Vec<_> = (0..4)
        .map(|_| {
            let mut stream = UnixStream::connect(a.join("resp.sock")).unwrap();
            thread::spawn(move || {
                let mut reader = stream.try_clone().unwrap();
                let reading = thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
                while stream.write_all(b"SET app,orders,load value\r\n").is_ok() {}
                let _ = reading.join();
            })
        })
        .collect();
    status(&a, |status| status.positions.durable > 1000);
    let begin = Instant::now();
    primary.signal(Signal::SIGTERM);
    assert_eq!(primary.end().code(), Some(0));
    assert!(begin.elapsed() < Duration::from_secs(12), "{:?}", begin.elapsed());
    writers.into_iter().for_each(|writer| writer.join().unwrap());

    let mut primary = Process::start(&a);
    status(&a, |_| true);
    primary.signal(Signal::SIGSTOP);
    primary.signal(Signal::SIGTERM);
    primary.signal(Signal::SIGINT);
    primary.signal(Signal::SIGCONT);
    let code = primary.end().code();
    // Two signals at once may end it either way, but end it they do.
    assert!(code == Some(130) || code == Some(0), "{code:?}");
}

#[test]
fn a_second_daemon_is_kept_out_and_an_operator_gets_an_answer_from_a_node_that_stops() {
    let dir = tempfile::tempdir().unwrap();
    let (a, _) = pair(dir.path());
    let primary = Process::start(&a);
    status(&a, |_| true);
    assert_eq!(Process::start(&a).end().code(), Some(2));
    status(&a, |_| true);
    drop(primary);

    let (inbox, outbox) = Inbox::new(Arc::new(NoWake));
    let core = Arc::new(OnceLock::from(inbox));
    let config = Config::load(&a).unwrap();
    let layout = Layout::new(&a);
    let desk = Desk::open(&layout, "a", Vec::new());
    let router = AdminRouter::new(
        &layout,
        &config,
        &Arc::new(Starting::new()),
        (&core, &Arc::default(), &Arc::default()),
        &desk,
    );
    drop(outbox);
    match router.answer(AdminRequest::Status) {
        AdminReply::Error { message, .. } => assert_eq!(message, "asking the node: it is stopping"),
        other => panic!("{other:?}"),
    }
}

struct NoWake;

impl crate::io::Wake for NoWake {
    fn wake(&self) {}
}

#[test]
fn a_standby_that_served_before_it_knew_its_peer_still_joins_the_pair_while_it_holds_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let init = |name: &str, role, own, peer| {
        let at = dir.path().join(name);
        init(&InitOptions::new(&at, name, role, own, peer).with("segment_bytes", Some("1M"))).unwrap();
        at
    };
    let a = init("a", "primary", "127.0.0.1:2", "127.0.0.1:1");
    // Nobody listens and nobody calls here: it is not about the link.
    let b = init("b", "standby", "127.0.0.1:0", "127.0.0.1:2");
    let serve_once = |work: &dyn Fn()| {
        let mut process = Process::start(&b);
        status(&b, |status| status.state == "standby");
        work();
        // Segments are made in advance.
        wait_for("a segment", || {
            std::fs::read_dir(Layout::new(&b).journal(JournalKind::Local)).unwrap().next().map(drop)
        });
        process.signal(Signal::SIGTERM);
        assert!(process.end().success());
    };
    serve_once(&|| {
        let running = trust(&b, &identity(&a).unwrap().to_string()).unwrap_err();
        assert!(matches!(running, SetupError::Locked { .. }), "{running}");
    });
    // A segment whose head is lost may have held something.
    let segment = Layout::new(&b).segment(JournalKind::Local, crate::base::SegmentIndex(9));
    std::fs::write(&segment, [&[0; 8192][..], b"x"].concat()).unwrap();
    let kept = trust(&b, &identity(&a).unwrap().to_string()).unwrap_err();
    assert!(matches!(kept, SetupError::OtherPair { .. }), "{kept}");
    assert!(segment.exists());
    std::fs::remove_file(segment).unwrap();

    let joined = trust(&b, &identity(&a).unwrap().to_string()).unwrap();
    assert!(joined.joined);
    assert_eq!(identity(&b).unwrap().pair, identity(&a).unwrap().pair);
    // It starts as one of the pair; with a file of its own it holds something, and stays.
    serve_once(&|| {
        let own = AdminRequest::AccountCreate { name: "own".to_owned(), flags: String::new() };
        ask(&b, &own).unwrap();
    });
    let other = init("c", "primary", "127.0.0.1:2", "127.0.0.1:1");
    let kept = trust(&b, &identity(&other).unwrap().to_string()).unwrap_err();
    assert!(matches!(kept, SetupError::OtherPair { .. }), "{kept}");
}

//! What these prove: requests and answers go through whole, wherever the directory is; every way of not getting an
//! answer has its own name; no client can make the daemon hold much or wait long.

use super::codec::decode_reply;
use super::rights::May;
use super::server::{Gate, Times, spawn_timed};
use super::*;
use crate::engine::admin::{AdminAnswer, AdminReply, AdminRequest, Status, WouldGo};
use crate::node::layout::Layout;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::TempDir;

const LONG: Duration = Duration::from_secs(20);

/// A directory that looks like a node's.
fn node() -> (TempDir, Layout) {
    let dir = tempfile::tempdir().expect("temp dir");
    let layout = Layout::new(dir.path().join("n"));
    std::fs::create_dir(layout.dir()).expect("mkdir");
    std::fs::write(layout.config(), "").expect("write");
    (dir, layout)
}

/// Answers a deletion with its name and who asked (as files and items), everything else with a status.
fn echo(request: AdminRequest, peer: Ucred) -> AdminReply {
    let value = match request {
        AdminRequest::AccountDelete { name, .. } => {
            let pid = u64::try_from(peer.pid).expect("a process");
            WouldGo { node: name, files: peer.uid.into(), items: pid, ..WouldGo::default() }.into()
        }
        _ => Status::default().into(),
    };
    AdminReply::Ok { value }
}

/// Lets everybody in.
fn everybody() -> Gate<fn(Ucred, u64)> {
    Gate { rule: |_, _, _, _, _| Some(May::All), group: None, refused: |_, _| () }
}

fn delete(name: &str) -> AdminRequest {
    AdminRequest::AccountDelete { name: name.to_owned(), dry_run: true }
}

fn connected(layout: &Layout) -> UnixStream {
    connect_in_dir(layout.dir(), "admin.sock", LONG).expect("connect")
}

fn reply_on(stream: &UnixStream) -> AdminReply {
    let mut reader = LineReader::new(stream.try_clone().expect("clone"), REPLY_MAX);
    match reader.line(LONG).expect("read") {
        Line::Whole(line) => decode_reply(&AdminRequest::Status, &line).expect("a reply"),
        other => panic!("no reply but {other:?}"),
    }
}

fn is_closed(stream: &UnixStream) -> bool {
    let mut reader = LineReader::new(stream.try_clone().expect("clone"), REPLY_MAX);
    match reader.line(LONG) {
        Ok(line) => line == Line::End,
        Err(error) => error.kind() == io::ErrorKind::ConnectionReset,
    }
}

/// Waits until the other side has closed, without reading.
fn wait_for_hang_up(stream: &UnixStream) {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut polled = [PollFd::new(stream.as_fd(), PollFlags::empty())];
    let found = poll(&mut polled, PollTimeout::try_from(LONG).expect("fits")).expect("poll");
    assert_eq!(found, 1, "it is never left");
}

#[test]
fn a_request_is_answered_and_the_caller_is_known() {
    let (_dir, layout) = node();
    let mut server = spawn(&layout, echo, |_, _| ()).expect("spawn");
    let name = "line\nbreak \u{1F980}".repeat(1000);
    let reply = call(layout.dir(), &delete(&name), LONG).expect("answered");
    let AdminReply::Ok { value: AdminAnswer::WouldGo(told) } = reply else { panic!("{reply:?}") };
    assert_eq!(told.node, name);
    let own = (u64::from(nix::unistd::geteuid().as_raw()), u64::from(std::process::id()));
    assert_eq!((told.files, told.items), own);
    let mode = std::fs::metadata(layout.admin_socket()).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    server.stop();
    assert!(!layout.admin_socket().exists(), "the socket goes with the daemon");
    assert!(matches!(
        call(layout.dir(), &AdminRequest::Status, LONG),
        Err(AdminCallError::NotRunning { stale: false, .. })
    ));
}

#[test]
fn a_path_longer_than_a_socket_address_works() {
    let dir = tempfile::tempdir().expect("temp dir");
    let deep = dir.path().join("d".repeat(200)).join("e".repeat(200));
    std::fs::create_dir_all(&deep).expect("mkdir");
    let layout = Layout::new(deep);
    let _server = spawn(&layout, echo, |_, _| ()).expect("spawn");
    call(layout.dir(), &AdminRequest::Status, LONG).expect("answered");
    assert!(layout.admin_socket().exists(), "it lies where it should");
}

#[test]
fn every_way_of_not_reaching_a_node_has_its_name() {
    let (dir, layout) = node();
    let ask = |dir: &Path| call(dir, &AdminRequest::Status, LONG).expect_err("nobody is there");
    let error = ask(layout.dir());
    assert!(matches!(error, AdminCallError::NotRunning { stale: false, .. }), "{error}");
    assert!(error.next().contains("hot-backup serve --dir"), "{}", error.next());
    assert!(matches!(ask(&layout.dir().join("x")), AdminCallError::NoDirectory { .. }));
    assert!(matches!(ask(dir.path()), AdminCallError::NotANode { .. }));
    // A socket whose daemon is dead, as after SIGKILL.
    drop(bind_in_dir(layout.dir(), "admin.sock").expect("bind"));
    assert!(matches!(ask(layout.dir()), AdminCallError::NotRunning { stale: true, .. }));
    let _server = spawn(&layout, echo, |_, _| ()).expect("the next daemon takes its place");
    call(layout.dir(), &AdminRequest::Status, LONG).expect("answered");
}

#[test]
fn something_else_of_the_sockets_name_is_left_alone() {
    let (_dir, layout) = node();
    std::fs::write(layout.admin_socket(), "a letter").expect("write");
    assert!(spawn(&layout, echo, |_, _| ()).is_err());
    assert_eq!(std::fs::read_to_string(layout.admin_socket()).expect("still there"), "a letter");
}

#[test]
fn a_daemon_that_does_not_answer_is_a_timeout_and_one_that_dies_an_end() {
    let (_dir, layout) = node();
    let listener = bind_in_dir(layout.dir(), "admin.sock").expect("bind");
    let error = call(layout.dir(), &AdminRequest::Status, Duration::from_millis(50)).expect_err("silent");
    assert!(matches!(error, AdminCallError::Timeout { .. }), "{error}");
    let killer = std::thread::spawn(move || {
        for _ in 0..2 {
            // The first is the connection that has given up.
            drop(listener.accept().expect("accept"));
        }
        let (stream, _) = listener.accept().expect("accept");
        writeln!(&stream, "{{\"answer\":\"maybe\"}}").expect("write");
    });
    let error = call(layout.dir(), &AdminRequest::Status, LONG).expect_err("it hung up");
    assert!(matches!(error, AdminCallError::Ended { .. }), "{error}");
    let error = call(layout.dir(), &AdminRequest::Status, LONG).expect_err("gibberish");
    assert!(matches!(error, AdminCallError::BadReply { .. } | AdminCallError::Ended { .. }), "{error}");
    killer.join().expect("no panic");
}

#[test]
fn a_full_queue_does_not_hold_the_caller() {
    let (_dir, layout) = node();
    let _listener = bind_in_dir(layout.dir(), "admin.sock").expect("bind");
    let mut waiting = Vec::new();
    let error = loop {
        match connect_in_dir(layout.dir(), "admin.sock", Duration::from_millis(20)) {
            Ok(stream) => waiting.push(stream),
            Err(error) => break error,
        }
        assert!(waiting.len() < 10_000, "a queue has an end");
    };
    assert!(is_late(&error), "{error}");
}

#[test]
fn bad_requests_are_answered_and_the_next_one_is_served() {
    let (_dir, layout) = node();
    let _server = spawn(&layout, echo, |_, _| ()).expect("spawn");
    let stream = connected(&layout);
    let deep = "[".repeat(100_000);
    for bad in [
        "",
        "nonsense",
        "{\"verb\":\"dance\"}",
        "{\"verb\":\"log-show\",\"limit\":1,\"x\":1}",
        "\u{0}",
        "[]",
        deep.as_str(),
    ] {
        writeln!(&stream, "{bad}").expect("write");
        let reply = reply_on(&stream);
        assert!(matches!(reply, AdminReply::Error { .. }), "{bad:.20}: {reply:?}");
    }
    (&stream).write_all(b"\xff\xfe\n").expect("write");
    assert!(matches!(reply_on(&stream), AdminReply::Error { .. }));
    (&stream).write_all(b"{\"verb\":\"sta").expect("write");
    (&stream).write_all(b"tus\"}\n").expect("write");
    assert!(matches!(reply_on(&stream), AdminReply::Ok { .. }));
    // Without an end of line there is no request.
    let stream = connected(&layout);
    (&stream).write_all(b"{\"verb\":\"status\"}").expect("write");
    stream.shutdown(std::net::Shutdown::Write).expect("shutdown");
    assert!(is_closed(&stream));
}

#[test]
fn a_request_without_end_is_refused_at_the_limit() {
    let (_dir, layout) = node();
    let _server = spawn(&layout, echo, |_, _| ()).expect("spawn");
    let found = call(layout.dir(), &delete(&"x".repeat(REQUEST_MAX)), LONG).expect_err("too long");
    assert!(matches!(found, AdminCallError::TooLong { .. }), "{found}");
    let stream = connected(&layout);
    let chunk = vec![b'x'; 64 << 10];
    let mut sent = 0;
    // It stops reading at the limit, answers, and closes: writing on fails soon after.
    while (&stream).write_all(&chunk).is_ok() {
        sent += chunk.len();
        assert!(sent <= 4 * REQUEST_MAX, "it goes on reading");
    }
    assert!(sent >= REQUEST_MAX, "all that is allowed is read");
    call(layout.dir(), &AdminRequest::Status, LONG).expect("others are served");
}

#[test]
fn silent_and_slow_clients_are_left_and_the_rest_is_served() {
    let (_dir, layout) = node();
    let times = Times { request: Duration::from_millis(300), reply: Duration::from_millis(300) };
    let big = |_: AdminRequest, _: Ucred| {
        let status = Status { reason: "y".repeat(8 << 20), ..Status::default() };
        AdminReply::Ok { value: status.into() }
    };
    let _server = spawn_timed(&layout, big, everybody(), times).expect("spawn");
    // Asks, and never reads its 8 MiB.
    let deaf = connected(&layout);
    writeln!(&deaf, "{{\"verb\":\"status\"}}").expect("write");
    // Says nothing at all.
    let silent = connected(&layout);
    // A byte now and then never makes a line.
    let slow = connected(&layout);
    let drip = std::thread::spawn(move || {
        let start = Instant::now();
        while (&slow).write_all(b" ").is_ok() {
            assert!(start.elapsed() < LONG, "it is never left");
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let reply = call(layout.dir(), &AdminRequest::Status, LONG).expect("served meanwhile");
    assert!(matches!(reply, AdminReply::Ok { .. }));
    assert!(is_closed(&silent));
    drip.join().expect("the slow one was left");
    // The deaf one gets what was in flight and then the end, never all.
    wait_for_hang_up(&deaf);
    let mut reader = LineReader::new(deaf, REPLY_MAX);
    assert_eq!(reader.line(LONG).expect("read"), Line::End);
}

#[test]
fn connections_are_bounded_and_come_free_again() {
    let (_dir, layout) = node();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let handler = move |request, peer| {
        count.fetch_add(1, Ordering::SeqCst);
        echo(request, peer)
    };
    let _server = spawn(&layout, handler, |_, _| ()).expect("spawn");
    let mut held: Vec<UnixStream> = (0..CONNECTIONS_MAX).map(|_| connected(&layout)).collect();
    let reply = call(layout.dir(), &AdminRequest::Status, LONG);
    let full = match &reply {
        Ok(AdminReply::Error { message, .. }) => message.contains("32 others"),
        Err(AdminCallError::Ended { .. }) => true,
        _ => false,
    };
    assert!(full, "{reply:?}");
    assert_eq!(asked.load(Ordering::SeqCst), 0);
    drop(held.pop());
    let start = Instant::now();
    while !matches!(call(layout.dir(), &AdminRequest::Status, LONG), Ok(AdminReply::Ok { .. })) {
        assert!(start.elapsed() < LONG, "a place comes free");
    }
}

#[test]
fn stopping_lets_an_answer_out_first() {
    let (_dir, layout) = node();
    let (started, is_started) = std::sync::mpsc::channel();
    let handler = move |request, peer| {
        started.send(()).expect("somebody waits");
        std::thread::sleep(Duration::from_millis(200));
        echo(request, peer)
    };
    let mut server = spawn(&layout, handler, |_, _| ()).expect("spawn");
    let _idle = connected(&layout);
    let dir = layout.dir().to_owned();
    let asking = std::thread::spawn(move || call(dir, &AdminRequest::Status, LONG));
    is_started.recv().expect("it began");
    server.stop();
    assert_eq!(server.connections(), 0, "neither was left behind");
    assert!(matches!(asking.join().expect("no panic"), Ok(AdminReply::Ok { .. })));
}

#[test]
fn a_caller_that_may_not_ask_is_told_so_and_counted_and_takes_no_place_of_others() {
    let (_dir, layout) = node();
    let (told, hears) = std::sync::mpsc::channel();
    let refused = move |caller: Ucred, times| told.send((caller.uid, times)).expect("somebody counts");
    let times = Times { request: LONG, reply: LONG };
    let handler = |_: AdminRequest, _: Ucred| -> AdminReply { panic!("nobody may ask") };
    let gate = Gate { rule: |_, _, _, _, _| None, group: None, refused };
    let _server = spawn_timed(&layout, handler, gate, times).expect("spawn");
    let own = nix::unistd::geteuid().as_raw();
    // More at once than may ask, and more than may linger.
    let silent: Vec<_> = (0..2 * CONNECTIONS_MAX).map(|_| connected(&layout)).collect();
    for stream in &silent {
        let reply = reply_on(stream);
        let AdminReply::Error { message, next } = reply else { panic!("{reply:?}") };
        assert!(message.contains(&format!("user {own} is not permitted")), "{message}");
        assert!(next.contains("or as root"), "{next}");
    }
    drop(silent);
    let mut counted = 0;
    // Those that came too fast are told with the next one; each of these is a next one.
    while counted < 2 * CONNECTIONS_MAX as u64 {
        let reply = call(layout.dir(), &AdminRequest::Status, LONG).expect("told, not cut off");
        assert!(matches!(reply, AdminReply::Error { .. }), "{reply:?}");
        while let Ok((uid, times)) = hears.recv_timeout(Duration::from_millis(20)) {
            assert_eq!(uid, own);
            counted += times;
        }
    }
}

#[test]
fn a_daemon_in_a_directory_that_others_may_write_to_is_not_believed() {
    let (_dir, layout) = node();
    let _server = spawn(&layout, echo, |_, _| ()).expect("spawn");
    let chmod =
        |mode| std::fs::set_permissions(layout.dir(), PermissionsExt::from_mode(mode)).expect("chmod");
    chmod(0o777);
    let error = call(layout.dir(), &AdminRequest::Status, LONG).expect_err("anybody could answer");
    assert!(matches!(error, AdminCallError::Distrusted { .. }), "{error}");
    assert!(error.to_string().contains("chmod go-w"), "{error}");
    chmod(0o755);
    call(layout.dir(), &AdminRequest::Status, LONG).expect("answered");
}

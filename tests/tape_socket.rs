//! Saves that go to the disk or the reels of another machine, by whole processes: the wire is cut at several places, senders and
//! listeners are killed, keys are foreign, places are taken, full, or used already. A set is there once and whole, or not at all.
//! What stands between the two is a wire of our own that stops or ends a connection after so many bytes, so nothing depends on
//! who is how fast.

use crate::support::{Disk, Node, Pair, Plan, loopback_addresses, noise, program, tier, wait_until};
use redis::Commands;
use serde_json::Value;
use std::collections::VecDeque;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// What becomes of a connection after so many bytes towards the listener, or back.
#[derive(Clone, Copy)]
pub(crate) enum Fate {
    /// It is cut.
    Cut(usize),
    /// Nothing goes through any more, until [`Wire::release`], which cuts it.
    Hold(usize),
    /// It is cut on the way back.
    CutBack(usize),
    /// Nothing comes back any more, until [`Wire::release`].
    HoldBack(usize),
}

/// A wire to a listener. Each connection has the next fate; those behind the last one are left alone.
pub(crate) struct Wire {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
}

struct State {
    to: SocketAddr,
    /// Of connections as they come.
    fates: Mutex<VecDeque<Fate>>,
    /// Of those that get so far, whichever they are: a sender may try in vain before.
    holds: Mutex<VecDeque<usize>>,
    held: Mutex<Vec<[TcpStream; 2]>>,
    ended: AtomicBool,
}

impl Wire {
    pub(crate) fn start(to: SocketAddr, fates: &[Fate]) -> Self {
        let [address] = loopback_addresses();
        let listener = TcpListener::bind(address).unwrap();
        let holds = fates.iter().filter_map(|fate| match fate {
            Fate::Hold(bytes) => Some(*bytes),
            _ => None,
        });
        let holds = Mutex::new(holds.collect());
        let cuts = fates.iter().copied().filter(|fate| !matches!(fate, Fate::Hold(_)));
        let (fates, held, ended) = (Mutex::new(cuts.collect()), Mutex::default(), AtomicBool::new(false));
        let state = Arc::new(State { to, fates, holds, held, ended });
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if shared.ended.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(server) = TcpStream::connect(shared.to) else { continue };
                let fate = shared.fates.lock().unwrap().pop_front();
                let (shared, ends) = (Arc::clone(&shared), [client, server]);
                thread::spawn(move || carry(shared, &ends, fate));
            }
        });
        Self { address, state }
    }

    /// Whether a connection is held.
    pub(crate) fn holds(&self) -> bool {
        !self.state.held.lock().unwrap().is_empty()
    }

    /// Fates that no connection had yet.
    pub(crate) fn left(&self) -> usize {
        self.state.fates.lock().unwrap().len()
    }

    /// Cuts what is held.
    pub(crate) fn release(&self) {
        self.state.held.lock().unwrap().drain(..).for_each(|ends| cut(&ends));
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::Relaxed);
        self.release();
        // It wakes up, and goes.
        let _ = TcpStream::connect(self.address);
    }
}

fn cut(ends: &[TcpStream; 2]) {
    ends.iter().for_each(|end| drop(end.shutdown(Shutdown::Both)));
}

fn both(ends: &[TcpStream; 2]) -> [TcpStream; 2] {
    ends.each_ref().map(|end| end.try_clone().unwrap())
}

fn carry_back(state: &State, ends: &[TcpStream; 2], fate: Option<Fate>) {
    let most = match fate {
        Some(Fate::CutBack(bytes) | Fate::HoldBack(bytes)) => bytes as u64,
        _ => u64::MAX,
    };
    let (mut client, server) = (&ends[0], &ends[1]);
    let came = if most == 0 { 0 } else { io::copy(&mut server.take(most), &mut client).unwrap_or(0) };
    match fate {
        Some(Fate::CutBack(_)) if came == most => cut(ends),
        Some(Fate::HoldBack(_)) if came == most => {
            state.held.lock().unwrap().push(both(ends));
        }
        _ => drop(client.shutdown(Shutdown::Write)),
    }
}

fn carry(state: Arc<State>, ends: &[TcpStream; 2], fate: Option<Fate>) {
    let (mut client, mut server) = (&ends[0], &ends[1]);
    let (shared, there) = (Arc::clone(&state), both(ends));
    let back = thread::spawn(move || carry_back(&shared, &there, fate));
    let most = match fate {
        Some(Fate::Cut(bytes)) => bytes,
        _ => usize::MAX,
    };
    let (mut came, mut buffer) = (0, [0; 4096]);
    while came < most {
        let step = (most - came).min(buffer.len());
        let Ok(count) = client.read(&mut buffer[..step]) else { break };
        if count == 0 || server.write_all(&buffer[..count]).is_err() {
            let _ = server.shutdown(Shutdown::Write);
            let _ = back.join();
            return;
        }
        came += count;
        let mut holds = state.holds.lock().unwrap();
        if holds.front().is_some_and(|bytes| *bytes <= came) {
            holds.pop_front();
            return state.held.lock().unwrap().push(both(ends));
        }
    }
    cut(ends);
}

/// A listener, killed when it is dropped.
pub(crate) struct Listener {
    process: Child,
    pub(crate) address: SocketAddr,
    log: PathBuf,
    note: PathBuf,
}

impl Listener {
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// What it says of itself, once it does.
    fn view(&self) -> Option<Value> {
        let view: Value = serde_json::from_slice(&fs::read(&self.note).ok()?).ok()?;
        (view["pid"] == self.process.id()).then_some(view)
    }

    /// Waits until so many bytes count of the stream under way.
    fn counts(&self, bytes: u64) {
        wait_until("a part to count", || {
            let view = self.view()?;
            (view["stream"]["counts"].as_u64()? >= bytes).then_some(())
        });
    }

    pub(crate) fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// Waits for its end.
    fn ended(&mut self) -> Option<i32> {
        wait_until("the listener to end", || self.process.try_wait().unwrap()).code()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            eprintln!("the listener said:\n{}", self.log());
        }
    }
}

/// A pair whose primary saves to the machine of its standby.
pub(crate) struct Stage {
    pub(crate) pair: Pair,
    pub(crate) temp: tempfile::TempDir,
}

/// With a window of 4 MiB a MiB after the other counts.
pub(crate) const SMALL: [&str; 3] = ["--stage", "4M", "--no-wait"];
pub(crate) const MIB: usize = 1 << 20;

impl Stage {
    /// So many MiB.
    pub(crate) fn new(mebibytes: u64) -> Self {
        let pair = Pair::start(&Plan::quick());
        let mut client = pair.a.redis();
        for at in 0..4 * mebibytes {
            let () = client.set(format!("app,orders,{at:03}"), noise(256 << 10, at)).unwrap();
        }
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir(temp.path().join("backup")).unwrap();
        Self { pair, temp }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    /// Where sets become files.
    pub(crate) fn dir(&self) -> String {
        format!("dir:{}", self.path("backup").display())
    }

    /// Where they become saves on reels.
    pub(crate) fn reels(&self) -> String {
        format!("tape:{}", self.path("backup/reel-%03d.tap").display())
    }

    /// What is in the directory.
    pub(crate) fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path("backup")).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    pub(crate) fn listen(&self, to: &str, more: &[&str]) -> Listener {
        let [address] = loopback_addresses();
        self.listen_at(address, to, more)
    }

    /// A listener with the keys of the standby.
    pub(crate) fn listen_at(&self, address: SocketAddr, to: &str, more: &[&str]) -> Listener {
        let dir = self.pair.b.dir.to_str().unwrap();
        listener(self.temp.path(), address, to, &[&["--dir", dir], more].concat())
    }

    /// A set in a file.
    pub(crate) fn set(&self) -> (PathBuf, Value) {
        let path = self.path("set.hbs");
        let saved = self.pair.a.json(&["save", "--to", &format!("file:{}", path.display())]);
        (path, saved)
    }
}

/// A listener that is there.
pub(crate) fn listener(dir: &Path, address: SocketAddr, to: &str, more: &[&str]) -> Listener {
    let log = dir.join("listener.log");
    let file = fs::OpenOptions::new().append(true).create(true).open(&log).unwrap();
    let (at, stem) = match to.split_once(':').unwrap() {
        ("dir", at) => (Path::new(at).to_owned(), String::new()),
        ("tape", place) => {
            let before = Path::new(place.split('%').next().unwrap());
            let name = before.file_name().unwrap().to_str().unwrap().to_owned();
            (before.parent().unwrap().to_owned(), if place.contains('%') { name } else { format!("{name}-") })
        }
        (_, file) => {
            let file = Path::new(file);
            (file.parent().unwrap().to_owned(), format!("{}-", file.file_name().unwrap().to_str().unwrap()))
        }
    };
    let mut command = Command::new(program());
    command.args(["tape-socket", "listen", "--listen", &address.to_string(), "--to", to]).args(more);
    command.env_remove("HOT_BACKUP_DIR").stdin(Stdio::null()).stdout(Stdio::null()).stderr(file);
    let note = at.join(format!("{stem}tape-socket.json"));
    let mut this = Listener { process: command.spawn().unwrap(), address, log, note };
    wait_until("the listener", || {
        let ended = this.process.try_wait().unwrap();
        assert!(ended.is_none(), "it ended: {ended:?}\n{}", this.log());
        this.view()
    });
    this
}

pub(crate) fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// One that fails with these words.
#[track_caller]
pub(crate) fn refused(output: &Output, words: &[&str]) {
    let said = said(output);
    assert_eq!(output.status.code(), Some(2), "{said}");
    for word in words {
        assert!(said.contains(word), "{word} is missing in: {said}");
    }
}

/// One run of the command line that concerns no node.
pub(crate) fn command(args: &[&str]) -> Output {
    Command::new(program()).args(args).env_remove("HOT_BACKUP_DIR").stdin(Stdio::null()).output().unwrap()
}

/// A command on a node in the background.
pub(crate) fn begin(node: &Node, args: &[&str]) -> Child {
    let mut command = Command::new(program());
    command.args(args).arg("--dir").arg(&node.dir).env_remove("HOT_BACKUP_DIR");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

pub(crate) fn to(address: SocketAddr, name: &str) -> String {
    format!("tcp:{address}/{name}")
}

/// That a set is whole and the one that was saved.
#[track_caller]
fn is_whole(set: &str, digest: &Value) {
    let output = command(&["verify", set, "--json"]);
    let verified: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)));
    assert_eq!((&verified["whole"], &verified["digest"]), (&true.into(), digest), "{verified}");
}

/// The one save on the reels, which nothing is lost of.
#[track_caller]
fn on_reels(reels: &str, digest: &Value) {
    let output = command(&["tape", "list", reels, "--json"]);
    let list: Value = serde_json::from_slice(&output.stdout).unwrap();
    let saves = list["sets"][0]["saves"].as_array().unwrap();
    assert_eq!((list["sets"].as_array().unwrap().len(), saves.len()), (1, 1), "{list}");
    assert!(saves[0]["bytes"].is_u64() && saves[0]["content"]["digest"] == *digest, "{list}");
    let scanned = command(&["tape", "verify", reels, "--no-wait", "--json"]);
    let scanned: Value = serde_json::from_slice(&scanned.stdout).unwrap();
    assert_eq!(scanned["lost"].as_array().map(Vec::len), Some(0), "{scanned}");
    is_whole(reels, digest);
}

#[test]
fn a_save_goes_to_the_disk_of_the_other_machine_once_and_a_second_one_of_its_name_is_refused() {
    let stage = Stage::new(2);
    let mut listener = stage.listen(&stage.dir(), &[]);
    let saved = stage.pair.a.json(&["save", "--to", &to(listener.address, "monday")]);
    let set = stage.path("backup/monday.hbs");
    is_whole(set.to_str().unwrap(), &saved["digest"]);
    assert_eq!(fs::metadata(&set).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(stage.names(), ["monday.hbs", "tape-socket.json"]);
    let again = stage.pair.a.verb(&["save", "--to", &to(listener.address, "monday")]);
    refused(&again, &["monday.hbs: a set of that name is there already", "give it a new name"]);
    is_whole(set.to_str().unwrap(), &saved["digest"]);
    // The same set again is no second one.
    let send = ["tape-socket", "send", set.to_str().unwrap(), "--to", &to(listener.address, "monday")];
    assert!(stage.pair.a.done(&send).contains("is there already"));
    // One without a name of its own; and a name is no path.
    stage.pair.a.done(&["save", "--to", &format!("tcp:{}", listener.address)]);
    assert!(stage.names().iter().any(|name| name.starts_with("a-")), "{:?}", stage.names());
    refused(&stage.pair.a.verb(&["save", "--to", &to(listener.address, "../x")]), &["a name has letters"]);
    wait_until("both to be told of", || {
        let status = stage.pair.b.json(&["tape-socket", "status", "--to", &stage.dir()]);
        (status["taken"] == 2 && status["stream"].is_null()).then_some(())
    });
    let other = command(&[
        "tape-socket",
        "listen",
        "--listen",
        "127.0.0.1:0",
        "--to",
        &stage.dir(),
        "--dir",
        stage.pair.b.dir.to_str().unwrap(),
    ]);
    refused(&other, &["does that already"]);
    stage.pair.b.done(&["tape-socket", "drain", "--to", &stage.dir()]);
    assert_eq!(listener.ended(), Some(0));
    let status = stage.pair.b.verb(&["tape-socket", "status", "--to", &stage.dir()]);
    assert_eq!(status.status.code(), Some(1));
    refused(
        &stage.pair.a.verb(&["save", "--to", &to(listener.address, "x")]),
        &["connecting to", "tape-socket listen"],
    );
}

#[test]
fn a_wire_that_is_cut_anywhere_loses_nothing_and_nothing_is_there_twice() {
    let stage = Stage::new(6);
    // In the middle of a stream; in the proof of keys; behind the first word; at once; between two blocks, or in one.
    let fates = [MIB + 17, 700, 2600, 0, 2 * MIB, 300_000, MIB].map(Fate::Cut);
    let listener = stage.listen(&stage.dir(), &SMALL);
    let wire = Wire::start(listener.address, &fates);
    let output = stage.pair.a.verb(&["save", "--to", &to(wire.address, "cut"), "--json"]);
    let saved: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)));
    assert!(said(&output).matches("it goes on at byte").count() >= 4, "{}", said(&output));
    let set = stage.path("backup/cut.hbs");
    is_whole(set.to_str().unwrap(), &saved["digest"]);
    drop(listener);
    let listener = stage.listen(&stage.reels(), &[&SMALL[..], &["--reel-size", "2M"]].concat());
    let wire = Wire::start(listener.address, &fates);
    let output = stage.pair.a.verb(&["save", "--to", &to(wire.address, "cut"), "--json"]);
    let saved: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)));
    on_reels(&stage.reels(), &saved["digest"]);
    assert!(stage.path("backup/reel-003.tap").exists());
}

#[test]
fn a_listener_that_is_killed_goes_on_where_its_file_or_its_reel_ends() {
    let stage = Stage::new(8);
    for (to_what, reel_size) in [(stage.dir(), "1G"), (stage.reels(), "1G"), (stage.reels(), "2M")] {
        let more = [&SMALL[..], &["--reel-size", reel_size]].concat();
        let mut listener = stage.listen(&to_what, &more);
        let wire = Wire::start(listener.address, &[Fate::Hold(3 * MIB), Fate::Hold(3 * MIB)]);
        let child = begin(&stage.pair.a, &["save", "--to", &to(wire.address, "killed"), "--json"]);
        for counts in [2_000_000, 4_000_000] {
            wait_until("the wire to hold", || wire.holds().then_some(()));
            listener.counts(counts);
            listener.kill();
            wire.release();
            listener = stage.listen_at(listener.address, &to_what, &more);
        }
        let output = child.wait_with_output().unwrap();
        let saved: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("{}\n{}", said(&output), listener.log()));
        assert!(listener.log().matches(", from byte ").count() >= 2, "{}", listener.log());
        if to_what == stage.dir() {
            let set = stage.path("backup/killed.hbs");
            is_whole(set.to_str().unwrap(), &saved["digest"]);
        } else {
            on_reels(&to_what, &saved["digest"]);
        }
        drop(listener);
        fs::remove_dir_all(stage.path("backup")).unwrap();
        fs::create_dir(stage.path("backup")).unwrap();
        fs::write(stage.path("listener.log"), "").unwrap();
    }
}

#[test]
fn a_sender_that_is_killed_leaves_no_set_and_what_counts_is_not_sent_again() {
    let stage = Stage::new(6);
    let (set, saved) = stage.set();
    let set = set.to_str().unwrap();
    for to_what in [stage.dir(), stage.reels()] {
        let mut listener = stage.listen(&to_what, &SMALL);
        let wire = Wire::start(listener.address, &[Fate::Hold(3 * MIB)]);
        let mut child =
            begin(&stage.pair.a, &["tape-socket", "send", set, "--to", &to(wire.address, "sent")]);
        wait_until("the wire to hold", || wire.holds().then_some(()));
        listener.counts(2_000_000);
        // While it is under way the place is taken.
        let other = stage.pair.a.verb(&["save", "--to", &to(listener.address, "other")]);
        refused(&other, &["is in use: it takes sent of node a"]);
        child.kill().unwrap();
        child.wait().unwrap();
        wire.release();
        wait_until("the listener to miss its sender", || {
            let view = listener.view()?;
            (view["stream"]["connected"] == false).then_some(())
        });
        let other = stage.pair.a.verb(&["save", "--to", &to(listener.address, "other")]);
        refused(&other, &["is in use: it is kept for sent of node a, whose sender is away"]);
        assert!(to_what != stage.dir() || !stage.path("backup/sent.hbs").exists());
        // What is drained keeps what counts; and the set is sent on behind it.
        let drained = stage.pair.b.verb(&["tape-socket", "drain", "--to", &to_what]);
        assert!(drained.status.success(), "{}", said(&drained));
        assert_eq!(listener.ended(), Some(1));
        let listener = stage.listen(&to_what, &SMALL);
        stage.pair.a.done(&["tape-socket", "send", set, "--to", &to(listener.address, "sent")]);
        assert!(listener.log().contains("taking sent of node a, from byte "), "{}", listener.log());
        if to_what == stage.dir() {
            assert!(fs::read(stage.path("backup/sent.hbs")).unwrap() == fs::read(set).unwrap());
        } else {
            on_reels(&to_what, &saved["digest"]);
            // And the next one stands behind it.
            stage.pair.a.done(&["save", "--to", &format!("tcp:{}", listener.address)]);
            let list = command(&["tape", "list", &to_what, "--json"]);
            let list: Value = serde_json::from_slice(&list.stdout).unwrap();
            assert_eq!(list["sets"][0]["saves"].as_array().map(Vec::len), Some(2), "{list}");
        }
    }
}

#[test]
fn a_foreign_key_another_pair_and_a_place_that_is_used_are_refused_by_name() {
    let stage = Stage::new(1);
    let (set, _) = stage.set();
    let set = set.to_str().unwrap();
    let listener = stage.listen(&stage.dir(), &[]);
    let [link, peer, resp] = loopback_addresses();
    let stranger = Node::init(stage.path("C"), ("c", "primary"), (link, peer, Some(resp)), &Plan::quick());
    stranger.trusts(&stage.pair.b);
    let send = ["tape-socket", "send", set, "--to", &to(listener.address, "x")];
    refused(&stranger.verb(&send), &["it does not trust this node's key"]);
    wait_until("the listener to say so", || listener.log().contains("is not trusted here").then_some(()));
    // One that does not know whom it calls.
    let lonely = Node::init(stage.path("D"), ("d", "standby"), (link, peer, Some(resp)), &Plan::quick());
    refused(&lonely.verb(&send), &["no peer is trusted yet"]);
    let foreign = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/set-v1.hbs");
    let send = ["tape-socket", "send", foreign, "--to", &to(listener.address, "x")];
    refused(&stage.pair.a.verb(&send), &["it is of pair", "this listener takes sets of pair"]);
    // What is no save is not sent.
    let half = stage.path("half.hbs");
    fs::write(&half, &fs::read(set).unwrap()[..MIB / 2]).unwrap();
    let send = ["tape-socket", "send", half.to_str().unwrap(), "--to", &to(listener.address, "x")];
    let output = stage.pair.a.verb(&send);
    assert!(
        output.status.code() == Some(1) && said(&output).contains("it has no trailer"),
        "{}",
        said(&output)
    );
    assert_eq!(stage.names(), ["tape-socket.json"]);
    drop(listener);
    // Reels that hold something, a drive that another program has.
    stage.pair.a.done(&["save", "--to", &stage.reels()]);
    let kept = fs::read(stage.path("backup/reel-001.tap")).unwrap();
    let listener = stage.listen(&stage.reels(), &SMALL);
    let save = ["save", "--to", &to(listener.address, "x")];
    refused(&stage.pair.a.verb(&save), &["which is another one", "reel-001.tap"]);
    assert!(fs::read(stage.path("backup/reel-001.tap")).unwrap() == kept);
    drop(listener);
    let listener = stage.listen(&stage.reels(), &[&SMALL[..], &["--append"]].concat());
    let save = ["save", "--to", &to(listener.address, "x")];
    let reel = fs::File::open(stage.path("backup/reel-001.tap")).unwrap();
    let lock = nix::fcntl::Flock::lock(reel, nix::fcntl::FlockArg::LockExclusiveNonblock).unwrap();
    refused(&stage.pair.a.verb(&save), &["the drive is in use by another program"]);
    drop(lock);
    stage.pair.a.done(&save);
}

#[test]
fn a_token_takes_the_place_of_keys_and_nobody_without_it_is_let_in() {
    let stage = Stage::new(1);
    let token = |name: &str, digit: &str, mode: u32| {
        let path = stage.path(name);
        fs::write(&path, digit.repeat(64)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (good, other, open) = (token("t", "1", 0o600), token("u", "2", 0o600), token("v", "1", 0o644));
    let [address] = loopback_addresses();
    let file = format!("file:{}", stage.path("backup/one.hbs").display());
    let mut listener = listener(stage.temp.path(), address, &file, &["--token", &good]);
    let save =
        |token: &str| stage.pair.a.verb(&["save", "--to", &to(address, "x"), "--token", token, "--json"]);
    refused(&save(&other), &["is not trusted here"]);
    refused(&save(&open), &["others may read it"]);
    refused(&stage.pair.a.verb(&["save", "--to", &to(address, "x")]), &["is not trusted here"]);
    assert_eq!(stage.names(), ["one.hbs-tape-socket.json"]);
    let output = save(&good);
    let saved: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)));
    // One set is all that it takes.
    assert_eq!(listener.ended(), Some(0));
    assert_eq!(stage.names(), ["one.hbs"]);
    is_whole(stage.path("backup/one.hbs").to_str().unwrap(), &saved["digest"]);
    assert!(!listener.log().contains(&"1".repeat(64)));
    let neither =
        command(&["tape-socket", "send", stage.path("backup/one.hbs").to_str().unwrap(), "--to", "tcp:h:1"]);
    refused(&neither, &["--dir DIR", "--token FILE"]);
}

#[test]
fn reels_that_are_full_refuse_the_rest_by_name_and_a_spool_is_told_the_way_over() {
    let stage = Stage::new(5);
    let drive = format!("tape:{}", stage.path("backup/drive.tap").display());
    assert!(command(&["tape", "label", &drive]).status.success());
    let listener = stage.listen(&drive, &[&SMALL[..], &["--reel-size", "2M"]].concat());
    let output = stage.pair.a.verb(&["save", "--to", &to(listener.address, "full")]);
    refused(&output, &["a reel to write to, as reel 2", "sending to"]);
    let list = command(&["tape", "list", &drive, "--json"]);
    let list: Value = serde_json::from_slice(&list.stdout).unwrap();
    assert_eq!(list["sets"][0]["saves"][0]["bytes"], Value::Null, "{list}");
    let spool = stage.pair.a.verb(&["spool", "start", "--to", &format!("tcp:{}", listener.address)]);
    refused(&spool, &["keeps no spool that a node reads back", "--to dir:PATH"]);
}

#[test]
fn the_parts_of_a_spool_go_to_reels_of_the_other_machine_and_are_read_from_there() {
    let mut pair = Pair::set_up(&Plan::quick().segments("64K"));
    let temp = tempfile::tempdir().unwrap();
    for name in ["backup", "spool"] {
        fs::create_dir(temp.path().join(name)).unwrap();
    }
    let spool = format!("spool = \"file:{}\"", temp.path().join("spool").display());
    pair.a.configure(&[spool.as_str(), "spool_mode = \"always\""]);
    pair.serve();
    let mut client = pair.a.redis();
    for at in 0..60 {
        let () = client.set(format!("app,orders,{at}"), noise(16 << 10, at)).unwrap();
    }
    let stage = Stage { pair, temp };
    let parts = |at: &[&str]| {
        let views = stage.pair.a.json(&[&["spool", "list"], at].concat());
        let of = |view: &Value| (view["name"].clone(), view["from"].clone(), view["to"].clone());
        views.as_array().unwrap().iter().map(of).collect::<Vec<_>>()
    };
    wait_until("some parts", || (parts(&[]).len() >= 6).then_some(()));
    // Nothing is written any more, so what is sealed is all that comes.
    let dir = fs::read_dir(stage.path("spool")).unwrap().next().unwrap().unwrap().path();
    let mut listener = stage.listen(&stage.reels(), &[&SMALL[..], &["--reel-size", "2M"]].concat());
    let send = |to: SocketAddr| {
        stage.pair.a.verb(&[
            "tape-socket",
            "send",
            dir.to_str().unwrap(),
            "--to",
            &format!("tcp:{to}"),
            "--json",
        ])
    };
    let wire = Wire::start(listener.address, &[Fate::Cut(MIB / 2), Fate::Cut(100_000)]);
    let output = send(wire.address);
    let sent: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(&output)));
    let (here, reels) = (parts(&[]), stage.reels());
    assert_eq!((&sent["sent"], &sent["from"]), (&true.into(), &here[0].1), "{sent}");
    let there = parts(&["--at", &reels]);
    assert_eq!(there, here[..there.len()], "what was sealed when it was sent");
    assert!(there.len() >= 6);
    let verified = stage.pair.a.verb(&["spool", "verify", "--at", &reels]);
    assert_eq!(verified.status.code(), Some(0), "{}", said(&verified));
    // A disk takes none, and says where they go.
    listener.kill();
    let listener = stage.listen(&stage.dir(), &SMALL);
    refused(&send(listener.address), &["parts of a spool go to reels only", "--to tape:PLACE"]);
}

#[test]
fn tier_a_disk_that_is_full_refuses_the_rest_by_name_and_takes_it_when_there_is_room() {
    tier!("root", "losetup", "mkfs.ext4");
    let stage = Stage::new(6);
    let (set, _) = stage.set();
    let disk = Disk::new(16);
    let place = format!("dir:{}", disk.path().display());
    // So that the first MiB has room.
    fs::write(disk.path().join("taken"), noise(10 * MIB, 1)).unwrap();
    disk_is_full(&disk);
    let listener = stage.listen(&place, &SMALL);
    let send = ["tape-socket", "send", set.to_str().unwrap(), "--to", &to(listener.address, "x")];
    refused(&stage.pair.a.verb(&send), &["make room on that disk"]);
    assert!(!disk.path().join("x.hbs").exists());
    fs::remove_file(disk.path().join("taken")).unwrap();
    stage.pair.a.done(&send);
    assert!(fs::read(disk.path().join("x.hbs")).unwrap() == fs::read(&set).unwrap());
    drop(listener);
}

/// Leaves two MiB.
fn disk_is_full(disk: &Disk) {
    let path = disk.path().join("taken");
    let mut file = fs::OpenOptions::new().append(true).open(path).unwrap();
    let free = || nix::sys::statvfs::statvfs(disk.path()).unwrap();
    while free().blocks_available() * free().fragment_size() > 2 << 20 {
        file.write_all(&noise(64 << 10, 2)).and_then(|()| file.sync_data()).unwrap();
    }
}

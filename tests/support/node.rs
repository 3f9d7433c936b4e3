//! Nodes as processes, driven by the command line as an operator would.

use super::{wait_telling, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

/// No answer of a node may take so long.
const ANSWER: Duration = Duration::from_secs(60);

/// The program under test.
pub(crate) fn program() -> &'static str {
    env!("CARGO_BIN_EXE_hot-backup")
}

/// Runs a command line and gives its stdout.
///
/// # Panics
/// If it fails.
#[track_caller]
pub(crate) fn shell(words: &[&str]) -> String {
    let [program, args @ ..] = words else { panic!("a command has a name") };
    let program = super::tool(program).unwrap_or_else(|| PathBuf::from(program));
    let output = Command::new(&program).args(args).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("starting {words:?}: {error}"));
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{words:?}: {}\n{out}\n{err}", output.status);
    out.into_owned()
}

/// Addresses that nobody else has. Each call takes a loopback host of its own: a port that is free for a moment,
/// while a node restarts, can neither be given to another test nor be the source of an outgoing connection.
pub(crate) fn loopback_addresses<const N: usize>() -> [SocketAddr; N] {
    static HOSTS: AtomicU8 = AtomicU8::new(1);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let host = Ipv4Addr::new(127, 1 + high % 250, low, HOSTS.fetch_add(1, Ordering::Relaxed));
    let held = [(); N].map(|()| TcpListener::bind((host, 0)).expect("loopback has room"));
    held.map(|listener| listener.local_addr().expect("it is bound"))
}

/// Where Redis clients reach a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    Tcp(SocketAddr),
    /// For a node in another network namespace.
    Unix(PathBuf),
}

/// The two halves of a connection.
pub(crate) type Halves = (Box<dyn Read + Send>, Box<dyn Write + Send>);

impl Door {
    /// A connection by the Redis client crate, made when the door is open. It has no timeout: the kernel goes on by itself
    /// with a receive that was interrupted because the machine stopped this process for a moment, but not with one that
    /// has a timeout, and this client takes that for an error.
    #[track_caller]
    pub(crate) fn connect(&self) -> redis::Connection {
        let url = match self {
            Self::Tcp(address) => format!("redis://{address}/"),
            Self::Unix(path) => format!("redis+unix://{}", path.display()),
        };
        let client = redis::Client::open(url).expect("an address");
        wait_until("a connection", || client.get_connection().ok())
    }

    /// A bare connection.
    pub(crate) fn stream(&self) -> io::Result<Halves> {
        match self {
            Self::Tcp(address) => {
                let stream = TcpStream::connect(address)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(ANSWER))?;
                Ok((Box::new(stream.try_clone()?), Box::new(stream)))
            }
            Self::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(ANSWER))?;
                Ok((Box::new(stream.try_clone()?), Box::new(stream)))
            }
        }
    }
}

/// How a node is set up, beyond its name, role and addresses.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    /// Arguments of `init`.
    pub(crate) init: Vec<&'static str>,
    /// Lines of the config that `init` has no argument for.
    pub(crate) config: Vec<&'static str>,
    /// Arguments of `serve`.
    pub(crate) serve: Vec<&'static str>,
    /// Another program than the one under test.
    pub(crate) program: Option<PathBuf>,
}

impl Plan {
    /// Small segments, quick heartbeats: right for tests.
    pub(crate) fn quick() -> Self {
        Self { init: vec!["--segment-bytes", "1M"], config: vec!["heartbeat_ms = 100"], ..Self::default() }
    }

    /// With segments of another size.
    pub(crate) fn segments(mut self, size: &'static str) -> Self {
        self.init[1] = size;
        self
    }

    /// With these arguments of `init` too.
    pub(crate) fn init(mut self, args: &[&'static str]) -> Self {
        self.init.extend(args);
        self
    }

    /// With this line in the config.
    pub(crate) fn config(mut self, line: &'static str) -> Self {
        self.config.push(line);
        self
    }

    /// With this driver.
    pub(crate) fn io(mut self, driver: &'static str) -> Self {
        self.serve.extend(["--io", driver]);
        self
    }
}

/// A node. Its process is killed when this is dropped, and by the kernel when the test program ends.
pub(crate) struct Node {
    pub(crate) dir: PathBuf,
    /// Where Redis clients connect.
    pub(crate) door: Door,
    /// What the process is started through, such as `nsenter --net=FILE`.
    pub(crate) through: Vec<String>,
    /// What its process runs from the next start on, and its command line from now on.
    pub(crate) program: PathBuf,
    serve: Vec<&'static str>,
    process: Option<Child>,
    /// What the process writes to its log, over all its lives. Not on the disk of the node: that may be full or dead.
    log: File,
}

impl Node {
    fn new(dir: PathBuf, door: Door, serve: Vec<&'static str>) -> Self {
        let log = tempfile::tempfile().expect("a file for the log");
        Self { dir, door, through: Vec::new(), program: program().into(), serve, process: None, log }
    }

    /// Makes a node that is not started yet. Without an address for Redis clients they come through its own socket.
    #[track_caller]
    pub(crate) fn init(
        dir: PathBuf,
        (name, role): (&str, &str),
        (link, peer, resp): (SocketAddr, SocketAddr, Option<SocketAddr>),
        plan: &Plan,
    ) -> Self {
        let door = resp.map_or_else(|| Door::Unix(dir.join("resp.sock")), Door::Tcp);
        let mut node = Self::new(dir, door, plan.serve.clone());
        if let Some(program) = &plan.program {
            node.program.clone_from(program);
        }
        let [link, peer] = [link, peer].map(|address| address.to_string());
        let mut args = vec!["init", "--name", name, "--role", role, "--link-listen", &link, "--peer", &peer];
        let resp = resp.map(|address| address.to_string());
        args.extend(resp.iter().flat_map(|address| ["--resp", address]));
        args.extend(&plan.init);
        node.done(&args);
        node.configure(&plan.config);
        node
    }

    /// Adds lines to its config, before the line that says where the file ends: what stands behind that one is warned of.
    #[track_caller]
    pub(crate) fn configure(&self, lines: &[impl AsRef<str>]) {
        let path = self.dir.join("config.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        let at = text.rfind("# end\n").unwrap_or(text.len());
        let (before, after) = text.split_at(at);
        let lines: String = lines.iter().map(|line| format!("{}\n", line.as_ref())).collect();
        std::fs::write(&path, format!("{before}{lines}{after}")).unwrap();
    }

    /// Makes a primary whose peer is never there, in `dir`; not started.
    #[track_caller]
    pub(crate) fn alone(dir: PathBuf, plan: &Plan) -> Self {
        let [link, peer, resp] = loopback_addresses();
        let other = tempfile::tempdir().unwrap();
        let other = Self::init(other.path().join("B"), ("b", "standby"), (peer, link, None), plan);
        let node = Self::init(dir, ("a", "primary"), (link, peer, Some(resp)), plan);
        node.trusts(&other);
        node
    }

    /// Lets this node accept the other.
    #[track_caller]
    pub(crate) fn trusts(&self, other: &Self) {
        self.done(&["trust", other.done(&["identity"]).trim()]);
    }

    /// Starts the process.
    pub(crate) fn start(&mut self) {
        let through = self.through.clone();
        self.start_through(&through);
    }

    /// Starts the process by way of another program, which must end up being it, or its tracer.
    pub(crate) fn start_through(&mut self, through: &[String]) {
        let log = self.log.try_clone().unwrap();
        self.start_logging(log, through);
    }

    /// The same with another place for its log.
    pub(crate) fn start_logging(&mut self, log: impl Into<Stdio>, through: &[String]) {
        assert!(self.process.is_none(), "it runs already");
        let own = self.program.to_str().expect("its name is text");
        let words: Vec<&str> = through.iter().map(String::as_str).chain([own]).collect();
        let mut command = Command::new(super::tool(words[0]).unwrap_or_else(|| PathBuf::from(words[0])));
        command.args(&words[1..]).arg("serve").arg("--dir").arg(&self.dir).args(&self.serve);
        command.args(["--die-with-parent", &std::process::id().to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.process = Some(command.spawn().expect("the program starts"));
    }

    /// One run of the command line on this node.
    pub(crate) fn verb(&self, args: &[&str]) -> Output {
        let mut command = Command::new(&self.program);
        command.args(args).arg("--dir").arg(&self.dir).env_remove("HOT_BACKUP_DIR").stdin(Stdio::null());
        command.output().expect("the program runs")
    }

    /// One that must succeed; its stdout.
    #[track_caller]
    pub(crate) fn done(&self, args: &[&str]) -> String {
        let output = self.verb(args);
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {}\n{err}\nlog:\n{}", output.status, self.log());
        String::from_utf8(output.stdout).unwrap()
    }

    /// One that must succeed, with `--json`.
    #[track_caller]
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        let text = self.done(&[args, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error}: {text}"))
    }

    /// As [`Self::json`], tried until the node has come up far enough to do it.
    #[track_caller]
    pub(crate) fn json_when_up(&self, args: &[&str]) -> Value {
        let words = [args, &["--json"]].concat();
        wait_until(&format!("{args:?}"), || {
            let output = self.verb(&words);
            output.status.success().then(|| serde_json::from_slice(&output.stdout).unwrap())
        })
    }

    /// The entries that it had and the pair never kept, from all files that it lists.
    #[track_caller]
    pub(crate) fn diverged(&self) -> Vec<Value> {
        let files = self.json(&["diverged"]);
        let files = files.as_array().unwrap().iter().map(|set| set["set"].as_str().unwrap());
        let texts = files.map(|file| std::fs::read_to_string(self.dir.join("diverged").join(file)).unwrap());
        texts
            .flat_map(|text| text.lines().map(|line| serde_json::from_str(line).unwrap()).collect::<Vec<_>>())
            .collect()
    }

    /// What the node says of itself, once that is `good`.
    #[track_caller]
    pub(crate) fn status(&self, what: &str, good: impl Fn(&Value) -> bool) -> Value {
        let last = RefCell::new(String::new());
        let look = || {
            let output = self.verb(&["status", "--json"]);
            *last.borrow_mut() =
                [&output.stdout[..], &output.stderr[..]].map(String::from_utf8_lossy).concat();
            let status = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
            (status != Value::Null && good(&status)).then_some(status)
        };
        let told = || format!("{} {what}: {}\nlog:\n{}", self.dir.display(), last.borrow(), self.log());
        wait_telling(told, look)
    }

    /// Waits until it serves as primary.
    #[track_caller]
    pub(crate) fn serves(&self) -> Value {
        self.status("to serve", |status| status["state"] == "serving")
    }

    /// Starts the process and, when it finds nobody to ask, gives it the operator's word that it may serve.
    #[track_caller]
    pub(crate) fn start_alone(&mut self) {
        self.start();
        assert!(self.serves_alone(), "it ended\nlog:\n{}", self.log());
    }

    /// Gives the operator's word that it may serve; whether the process lived to do so.
    #[track_caller]
    pub(crate) fn serves_alone(&mut self) -> bool {
        wait_until("to serve alone", || {
            let state = self.state();
            if state == "asking-peer" {
                self.verb(&["start", "--alone"]);
            }
            (state == "serving" || !self.runs()).then_some(state == "serving")
        })
    }

    /// What it does now; nothing if it does not answer.
    pub(crate) fn state(&self) -> String {
        let output = self.verb(&["status", "--json"]);
        let status: Value = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        status["state"].as_str().unwrap_or_default().to_owned()
    }

    /// A node in another directory that holds what this one, which must be stopped, holds.
    pub(crate) fn copy(&self, dir: PathBuf) -> Self {
        assert!(self.process.is_none(), "it runs");
        shell(&["cp", "-a", self.dir.to_str().unwrap(), dir.to_str().unwrap()]);
        Self::new(dir, self.door.clone(), self.serve.clone())
    }

    /// The ids of the threads of a name.
    pub(crate) fn threads(&self, name: &str) -> Vec<String> {
        let tasks = PathBuf::from(format!("/proc/{}/task", self.process.as_ref().expect("it runs").id()));
        let tasks = std::fs::read_dir(tasks).unwrap().map(|task| task.unwrap().path());
        let named = tasks.filter(|task| std::fs::read_to_string(task.join("comm")).unwrap().trim() == name);
        named.map(|task| task.file_name().unwrap().to_str().unwrap().to_owned()).collect()
    }

    /// Bytes of memory that the process has now.
    pub(crate) fn memory(&self) -> u64 {
        let path = format!("/proc/{}/status", self.process.as_ref().expect("it runs").id());
        let text = std::fs::read_to_string(path).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
    }

    /// How many descriptors the process has open.
    pub(crate) fn descriptors(&self) -> usize {
        let path = format!("/proc/{}/fd", self.process.as_ref().expect("it runs").id());
        std::fs::read_dir(path).unwrap().count()
    }

    /// Whether io_uring can be used here; containers often forbid it.
    #[track_caller]
    pub(crate) fn has_uring(&self) -> bool {
        let found = self.json(&["doctor"]);
        let mut checks = found.as_array().unwrap().iter();
        checks
            .any(|check| check["name"] == "io_uring" && check["found"].as_str().unwrap().starts_with("works"))
    }

    /// Makes the DL file `app,orders`.
    #[track_caller]
    pub(crate) fn make_orders(&self) {
        self.done(&["account", "create", "app"]);
        self.done(&["file", "create", "app,orders", "--records", "--flags", "L"]);
    }

    /// The kinds of the incidents so far, those of earlier runs included.
    pub(crate) fn incidents(&self) -> Vec<(String, String)> {
        let text = std::fs::read_to_string(self.dir.join("incidents.jsonl")).unwrap_or_default();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines
            .map(|i| (i["kind"].as_str().unwrap().to_owned(), i["text"].as_str().unwrap().to_owned()))
            .collect()
    }

    /// Waits until there are that many incidents of a kind, and gives their texts: they are written beside the work.
    #[track_caller]
    pub(crate) fn told(&self, kind: &str, count: usize) -> Vec<String> {
        let of_kind = || {
            let all = self.incidents().into_iter();
            all.filter(|(found, _)| found == kind).map(|(_, text)| text).collect::<Vec<_>>()
        };
        wait_until(kind, || (of_kind().len() >= count).then_some(()));
        let told = of_kind();
        assert_eq!(told.len(), count, "{kind}: {told:?}");
        told
    }

    /// Waits for an incident of a kind, and gives its text.
    #[track_caller]
    pub(crate) fn incident(&self, kind: &str) -> String {
        wait_until(kind, || self.incidents().into_iter().rev().find(|(k, _)| k == kind).map(|(_, text)| text))
    }

    /// A client of its RESP door.
    #[track_caller]
    pub(crate) fn redis(&self) -> redis::Connection {
        self.door.connect()
    }

    /// What it logged.
    pub(crate) fn log(&self) -> String {
        let mut bytes = vec![0; usize::try_from(self.log.metadata().unwrap().len()).unwrap()];
        // The processes write at the offset that they share with us: it must stay where it is.
        let _ = self.log.read_exact_at(&mut bytes, 0);
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// The number of the process.
    pub(crate) fn id(&self) -> u32 {
        self.process.as_ref().expect("it runs").id()
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().expect("it runs");
        kill(Pid::from_raw(i32::try_from(process.id()).unwrap()), signal).unwrap();
    }

    /// Waits for the process to end.
    #[track_caller]
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let process = self.process.as_mut().expect("it runs");
        let status = wait_until("the process to end", || process.try_wait().unwrap());
        self.process = None;
        status
    }

    /// Whether the process still runs.
    pub(crate) fn runs(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| process.try_wait().unwrap().is_none())
    }

    /// Ends the process at once, as a crash would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Waits until all that is in the journal is in the store and in the files of volumes.
    #[track_caller]
    pub(crate) fn has_applied_all(&self) {
        self.status("to have applied all", |status| {
            status["positions"]["applied"] == status["positions"]["appended"]
        });
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            // The directory is removed; its log is what explains a failed test.
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = &lines[lines.len().saturating_sub(40)..];
            eprintln!("end of the log of {}:\n{}", self.dir.display(), tail.join("\n"));
        }
    }
}

/// A primary `a` and a standby `b` on loopback.
pub(crate) struct Pair {
    pub(crate) a: Node,
    pub(crate) b: Node,
    /// Holds both directories; dropped last.
    _root: tempfile::TempDir,
}

impl Pair {
    /// Both nodes, trusting each other, not started.
    #[track_caller]
    pub(crate) fn set_up(plan: &Plan) -> Self {
        let root = tempfile::tempdir().unwrap();
        let dirs = ["A", "B"].map(|name| root.path().join(name));
        Self::set_up_in(root, dirs, plan)
    }

    /// As [`Self::set_up`], with these addresses for the link; clients come through the nodes' own sockets.
    #[track_caller]
    pub(crate) fn set_up_at([link_a, link_b]: [SocketAddr; 2], plan: &Plan) -> Self {
        let root = tempfile::tempdir().unwrap();
        let a = Node::init(root.path().join("A"), ("a", "primary"), (link_a, link_b, None), plan);
        let b = Node::init(root.path().join("B"), ("b", "standby"), (link_b, link_a, None), plan);
        a.trusts(&b);
        b.trusts(&a);
        Self { a, b, _root: root }
    }

    /// As [`Self::set_up`], in these directories.
    #[track_caller]
    pub(crate) fn set_up_in(root: tempfile::TempDir, [dir_a, dir_b]: [PathBuf; 2], plan: &Plan) -> Self {
        let [link_a, link_b, resp_a, resp_b] = loopback_addresses();
        let a = Node::init(dir_a, ("a", "primary"), (link_a, link_b, Some(resp_a)), plan);
        let b = Node::init(dir_b, ("b", "standby"), (link_b, link_a, Some(resp_b)), plan);
        a.trusts(&b);
        b.trusts(&a);
        Self { a, b, _root: root }
    }

    /// Both nodes serving, with the DL file `app,orders`.
    #[track_caller]
    pub(crate) fn start(plan: &Plan) -> Self {
        let mut pair = Self::set_up(plan);
        pair.serve();
        pair
    }

    /// Starts both nodes and makes the DL file `app,orders`.
    #[track_caller]
    pub(crate) fn serve(&mut self) {
        self.a.start();
        self.b.start();
        self.a.serves();
        self.a.make_orders();
        self.connected();
    }

    /// Waits until the link is up.
    #[track_caller]
    pub(crate) fn connected(&self) {
        self.a.status("to have its peer", |status| status["peer"]["connected"] == true);
    }

    /// Waits until the standby has applied all of the primary's history; nobody may be writing.
    #[track_caller]
    pub(crate) fn converges(&self) {
        let end = self.a.status("to be quiet", |s| s["positions"]["durable"] == s["positions"]["appended"]);
        let end = &end["positions"]["appended"];
        self.b.status("to have applied everything", |status| {
            status["positions"]["applied"].as_u64() >= end.as_u64()
        });
        assert_eq!(super::items(&self.a.door, "app,"), super::items(&self.b.door, "app,"));
    }
}

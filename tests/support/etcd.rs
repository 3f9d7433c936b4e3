//! Three members of etcd, and watches beside nodes.

use super::{Node, memory, program, tool, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A process that ends with this.
pub(crate) struct Running(Child);

impl Running {
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.0.id()).unwrap()), signal).unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a program by way of others, such as `nsenter --net=FILE`; what it says goes to a file.
pub(crate) fn run(through: &[String], words: &[&str], (out, err): (&Path, &Path)) -> Running {
    let words: Vec<&str> = through.iter().map(String::as_str).chain(words.iter().copied()).collect();
    let program = tool(words[0]).unwrap_or_else(|| PathBuf::from(words[0]));
    let file = |path: &Path| File::options().append(true).create(true).open(path).unwrap();
    let mut command = Command::new(program);
    command.args(&words[1..]).stdin(Stdio::null()).stdout(file(out)).stderr(file(err));
    Running(command.spawn().expect("the program starts"))
}

/// The members.
pub(crate) struct Etcd {
    pub(crate) members: Vec<Running>,
    pub(crate) clients: Vec<SocketAddr>,
    _root: tempfile::TempDir,
}

impl Etcd {
    /// Three members that answer at these addresses, first those for clients.
    #[track_caller]
    pub(crate) fn start(through: &[String], addresses: [SocketAddr; 6]) -> Self {
        let root = memory();
        let (clients, peers) = addresses.split_at(3);
        let name = |n: usize| format!("e{n}");
        let all: Vec<String> = (0..3).map(|n| format!("{}=http://{}", name(n), peers[n])).collect();
        let member = |n: usize| {
            let (dir, log) = (root.path().join(name(n)), root.path().join(format!("{}.log", name(n))));
            let (client, peer) = (format!("http://{}", clients[n]), format!("http://{}", peers[n]));
            let (own, all) = (name(n), all.join(","));
            let words = [
                ["etcd", "--name", &own].as_slice(),
                &["--data-dir", dir.to_str().unwrap()],
                &["--listen-client-urls", &client, "--advertise-client-urls", &client],
                &["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer],
                &["--initial-cluster", &all, "--heartbeat-interval", "100"],
            ]
            .concat();
            run(through, &words, (&log, &log))
        };
        let members = (0..3).map(member).collect();
        let etcd = Self { members, clients: clients.to_vec(), _root: root };
        wait_until("etcd to have a leader", || etcd.get(through, "x").is_some().then_some(()));
        etcd
    }

    /// For `--etcd`.
    pub(crate) fn urls(&self) -> String {
        let urls: Vec<String> = self.clients.iter().map(|client| format!("http://{client}")).collect();
        urls.join(",")
    }

    /// What a member answers that is asked for a key.
    pub(crate) fn get(&self, through: &[String], prefix: &str) -> Option<String> {
        let words = ["etcdctl", "--endpoints", &self.urls(), "get", "--prefix", "--print-value-only", prefix];
        let words: Vec<&str> = through.iter().map(String::as_str).chain(words).collect();
        let output = Command::new(tool(words[0])?).args(&words[1..]).env("ETCDCTL_API", "3").output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// A watch beside a node.
pub(crate) struct Watch {
    process: Option<Running>,
    out: PathBuf,
    err: PathBuf,
    words: Vec<String>,
    through: Vec<String>,
}

impl Watch {
    /// Starts one.
    pub(crate) fn start(node: &Node, urls: &str, more: &[&str]) -> Self {
        let dir = node.dir.to_str().unwrap();
        let words = [program(), "watch", "--json", "--dir", dir, "--etcd", urls];
        let words = words.iter().chain(more).map(|word| (*word).to_owned()).collect();
        // Beside the node's directory.
        let file = |what: &str| node.dir.with_extension(what);
        let mut watch = Self {
            process: None,
            out: file("watch"),
            err: file("watch-errors"),
            words,
            through: node.through.clone(),
        };
        watch.again();
        watch
    }

    /// Starts it again.
    pub(crate) fn again(&mut self) {
        let words: Vec<&str> = self.words.iter().map(String::as_str).collect();
        self.process = Some(run(&self.through, &words, (&self.out, &self.err)));
    }

    /// Ends it at once.
    pub(crate) fn kill(&mut self) {
        self.process = None;
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.process.as_ref().expect("it runs").signal(signal);
    }

    /// What it told: when (milliseconds since 1970), the word, the sentence.
    pub(crate) fn told(&self) -> Vec<(u64, String, String)> {
        let text = std::fs::read_to_string(&self.out).unwrap_or_default();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let word = |line: &Value, key: &str| line[key].as_str().unwrap_or_default().to_owned();
        lines
            .map(|line| {
                (line["wall_ms"].as_u64().unwrap_or_default(), word(&line, "what"), word(&line, "text"))
            })
            .collect()
    }

    /// Waits until it has told something of this kind with these words; when, and all of it.
    #[track_caller]
    pub(crate) fn has_told(&self, what: &str, part: &str) -> (u64, String) {
        let find = || self.told().into_iter().find(|(_, word, text)| word == what && text.contains(part));
        let found = wait_until(&format!("a watch to tell {what}: {part}"), find);
        (found.0, found.2)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let errors = std::fs::read_to_string(&self.err).unwrap_or_default();
            eprintln!("{}: {:#?}\n{errors}", self.out.display(), self.told());
        }
    }
}

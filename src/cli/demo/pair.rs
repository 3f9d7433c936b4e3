//! Two real nodes on loopback, set up by the very commands that a user would type.

use super::super::failure::Failure;
use super::super::glue;
use super::cleanup::{Leftovers, Process};
use crate::base::limits::{ANSWER_MAX, SYSTEM_FILE_MAX};
use crate::base::{AckLevel, Prng, read_at_most, text_at_most};
use crate::client::RespClient;
use crate::engine::admin::{AdminReply, AdminRequest, Status};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a node may take to start, or the pair to find each other.
const START_PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(25);
/// What of a log is shown (bytes).
const LAST_WORDS: u64 = 2000;

/// One node of the demo.
pub(in crate::cli) struct Node {
    pub(super) name: &'static str,
    pub(in crate::cli) dir: PathBuf,
    pub(in crate::cli) resp: SocketAddr,
    pub(super) nbd: SocketAddr,
    process: Option<Process>,
}

/// The pair.
pub(in crate::cli) struct Pair<'a> {
    pub(in crate::cli) a: Node,
    pub(super) b: Node,
    /// Takes the place of `b`, at its addresses.
    pub(super) c: Node,
    /// The addresses of the link: of `a`, and of `b`.
    links: [SocketAddr; 2],
    level: AckLevel,
    program: PathBuf,
    leftovers: &'a Leftovers,
    tell: &'a dyn Fn(&str),
}

impl<'a> Pair<'a> {
    /// Makes both nodes below `root`; `tell` is told each command.
    pub(in crate::cli) fn set_up(
        root: &Path,
        level: AckLevel,
        leftovers: &'a Leftovers,
        tell: &'a dyn Fn(&str),
    ) -> Result<Self, Failure> {
        let program = std::env::current_exe().map_err(|e| Failure::io("finding this program", &e))?;
        let [link_a, link_b, resp_a, resp_b, nbd_a, nbd_b] = free_ports()?;
        let node =
            |name: &'static str, resp, nbd| Node { name, dir: root.join(name), resp, nbd, process: None };
        let (a, b, c) = (node("a", resp_a, nbd_a), node("b", resp_b, nbd_b), node("c", resp_b, nbd_b));
        let pair = Self { a, b, c, links: [link_a, link_b], level, program, leftovers, tell };
        pair.init(&pair.a, "primary", link_a, link_b)?;
        pair.init(&pair.b, "standby", link_b, link_a)?;
        for (node, other) in [(&pair.a, &pair.b), (&pair.b, &pair.a)] {
            let identity = pair.run(other, &["identity"])?;
            pair.run(node, &["trust", identity.trim()])?;
        }
        Ok(pair)
    }

    /// Makes the node that takes the place of `b`; that one does not run any more.
    pub(super) fn set_up_c(&self) -> Result<(), Failure> {
        let [link_a, link_b] = self.links;
        self.init(&self.c, "standby", link_b, link_a)?;
        for (node, other) in [(&self.c, &self.a), (&self.a, &self.c)] {
            let identity = self.run(other, &["identity"])?;
            self.run(node, &["trust", "--replace", identity.trim()])?;
        }
        Ok(())
    }

    fn init(&self, node: &Node, role: &str, link: SocketAddr, peer: SocketAddr) -> Result<(), Failure> {
        let (link, peer) = (link.to_string(), peer.to_string());
        let (resp, nbd) = (node.resp.to_string(), node.nbd.to_string());
        let mut args = vec!["init", "--name", node.name, "--role", role];
        args.extend(["--link-listen", &link, "--peer", &peer, "--resp", &resp, "--nbd", &nbd]);
        if self.level != AckLevel::Local {
            // A busy machine must not lower the promise that is to be shown.
            args.extend(["--ack-level", self.level.name(), "--on-peer-loss", "block"]);
        }
        self.run(node, &args).map(|_| ())
    }

    /// Runs a command of hot-backup on a node, and gives back what it printed.
    pub(super) fn run(&self, node: &Node, args: &[&str]) -> Result<String, Failure> {
        let shown: Vec<String> = args.iter().map(|arg| shorten(arg)).collect();
        (self.tell)(&format!("$ hot-backup {} --dir {}", shown.join(" "), node.name.to_uppercase()));
        let output = Command::new(&self.program)
            .args(args)
            .arg("--dir")
            .arg(&node.dir)
            .stdin(Stdio::null())
            .output()
            .map_err(|e| Failure::io(format_args!("running hot-backup {}", args.join(" ")), &e))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.trim().replace("hot-backup: ", "");
        Err(Failure::error(format!("hot-backup {}: {said}", args.first().unwrap_or(&"")), ""))
    }

    /// Starts the old or new primary.
    pub(in crate::cli) fn start_a(&mut self) -> Result<(), Failure> {
        self.a.process = Some(self.start(&self.a)?);
        Ok(())
    }

    /// Starts the standby.
    pub(in crate::cli) fn start_b(&mut self) -> Result<(), Failure> {
        self.b.process = Some(self.start(&self.b)?);
        Ok(())
    }

    /// Starts the node in the place of `b`.
    pub(super) fn start_c(&mut self) -> Result<(), Failure> {
        self.c.process = Some(self.start(&self.c)?);
        Ok(())
    }

    fn start(&self, node: &Node) -> Result<Process, Failure> {
        let failed = |e: &std::io::Error| Failure::io(format_args!("starting node {}", node.name), e);
        (self.tell)(&format!("$ hot-backup serve --dir {} &", node.name.to_uppercase()));
        let log = File::options().create(true).append(true).open(log_of(node)).map_err(|e| failed(&e))?;
        let child = Command::new(&self.program)
            .args(["serve", "--die-with-parent", &std::process::id().to_string(), "--dir"])
            .arg(&node.dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone().map_err(|e| failed(&e))?)
            .stderr(log)
            .spawn()
            .map_err(|e| failed(&e))?;
        Ok(self.leftovers.adopt(child))
    }

    /// Ends node A with SIGKILL.
    pub(super) fn kill_a(&self) {
        self.a.process.iter().for_each(|&process| self.leftovers.kill(process));
    }

    /// Ends node B with SIGKILL.
    pub(super) fn kill_b(&self) {
        self.b.process.iter().for_each(|&process| self.leftovers.kill(process));
    }

    /// Lets the standby stand still, or go on.
    pub(super) fn freeze_b(&self, still: bool) {
        self.b.process.iter().for_each(|&process| self.leftovers.freeze(process, still));
    }

    /// Ends all nodes.
    pub(super) fn stop(&self) {
        for process in [self.a.process, self.b.process, self.c.process].into_iter().flatten() {
            self.leftovers.kill(process);
        }
    }

    /// Waits until `node` is as wanted; its status then.
    pub(in crate::cli) fn wait_for(
        &self,
        node: &Node,
        what: &str,
        mut wanted: impl FnMut(&Status) -> bool,
    ) -> Result<Status, Failure> {
        let deadline = Instant::now() + START_PATIENCE;
        loop {
            let last = match status(node) {
                Ok(status) if wanted(&status) => return Ok(status),
                Ok(status) => format!("it is {}, {}; {}", status.role, status.state, status.reason),
                Err(failure) => failure.to_string(),
            };
            let ended = node.process.is_some_and(|process| self.leftovers.has_ended(process));
            if ended || Instant::now() > deadline {
                let said = if ended { "its process ended".to_owned() } else { last };
                return Err(Failure::error(
                    format!("waiting for node {} to be {what}: {said}", node.name),
                    format!("its log says: {}", last_words(node)),
                ));
            }
            std::thread::sleep(POLL);
        }
    }
}

/// A client of a node, over TCP.
pub(super) fn client(node: &Node, patience: Duration) -> Result<RespClient, Failure> {
    RespClient::tcp(node.resp, patience)
        .map_err(|e| Failure::io(format_args!("connecting to node {} at {}", node.name, node.resp), &e))
}

/// What a node says about itself.
pub(super) fn status(node: &Node) -> Result<Status, Failure> {
    let patience = Duration::from_secs(5);
    match glue::call(&node.dir, &AdminRequest::Status, patience)? {
        AdminReply::Ok { value } => super::super::ask::read::<Box<Status>>(value).map(|status| *status),
        AdminReply::No { message, next } | AdminReply::Error { message, next } => {
            Err(Failure::Error { message, next })
        }
    }
}

fn log_of(node: &Node) -> PathBuf {
    node.dir.with_extension("log")
}

/// The end of a node's log.
fn last_words(node: &Node) -> String {
    let tail = File::open(log_of(node)).and_then(|mut log| {
        let end = log.seek(SeekFrom::End(0))?;
        log.seek(SeekFrom::Start(end.saturating_sub(LAST_WORDS)))?;
        read_at_most(log.take(LAST_WORDS), ANSWER_MAX)
    });
    String::from_utf8_lossy(&tail.unwrap_or_default()).trim().to_owned()
}

/// Long arguments, such as identities, as their beginning.
fn shorten(arg: &str) -> String {
    match arg.char_indices().nth(60) {
        Some((at, _)) => format!("{}...", arg.split_at(at).0),
        None => arg.to_owned(),
    }
}

/// Ports that nobody listens on, outside of the range from which outgoing connections take theirs: the demo's
/// own clients would otherwise now and then sit on the port of a node that is about to start again.
fn free_ports() -> Result<[SocketAddr; 6], Failure> {
    let seed = u64::from(std::process::id()) << 32
        | u64::from(std::time::UNIX_EPOCH.elapsed().map_or(0, |t| t.subsec_nanos()));
    let mut prng = Prng::new(seed);
    let range = File::open("/proc/sys/net/ipv4/ip_local_port_range");
    let range = range.and_then(|file| text_at_most(file, SYSTEM_FILE_MAX)).unwrap_or_default();
    let first_outgoing =
        range.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(32_768);
    let mut held = Vec::new();
    for _ in 0..400 {
        let low = 10_000;
        let port = u16::try_from(low + prng.below(first_outgoing.saturating_sub(low).max(1))).unwrap_or(0);
        // All are held until there are enough, so that they differ.
        held.extend(TcpListener::bind(("127.0.0.1", port)).ok());
        if let [a, b, c, d, e, f] = held.as_slice() {
            let address = |l: &TcpListener| l.local_addr().map_err(|e| Failure::io("finding a port", &e));
            return Ok([address(a)?, address(b)?, address(c)?, address(d)?, address(e)?, address(f)?]);
        }
    }
    Err(Failure::error("finding six free ports on 127.0.0.1: too few of 400 tried are free", ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_different_ports_are_found() {
        let mut ports = free_ports().unwrap().map(|address| address.port());
        ports.sort_unstable();
        assert!(ports.windows(2).all(|pair| pair[0] != pair[1]), "{ports:?}");
        assert!(ports.iter().all(|&port| port >= 1024), "{ports:?}");
    }
}

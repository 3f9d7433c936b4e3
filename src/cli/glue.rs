//! What the command line asks of the node's parts: the only file here that names them.

use super::failure::Failure;
use super::values::IoArg;
use crate::engine::admin::{AdminReply, AdminRequest};
use crate::node::setup;
pub(crate) use crate::node::setup::InitOptions;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// The node's own Unix socket for items, within its directory.
pub(crate) const RESP_SOCKET: &str = "resp.sock";
const ADMIN_SOCKET: &str = "admin.sock";
const REPLY_MAX: u64 = 64 << 20;

/// One thing that `doctor` looked at.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct Finding {
    /// What was looked at.
    pub(crate) name: String,
    /// How it is.
    pub(crate) level: Level,
    /// What was found.
    pub(crate) found: String,
    /// What to do about it; empty if nothing.
    pub(crate) advice: String,
}

/// How a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    /// Good.
    Good,
    /// Works, but slower or with less protection than it could.
    Warning,
    /// Does not work.
    Bad,
}

/// Makes a node's directory, keys and config.
pub(crate) fn init(options: &InitOptions) -> Result<(), Failure> {
    setup::init(options).map(|_| ()).map_err(|e| setup_failure(&e))
}

/// The line by which the peer will know this node.
pub(crate) fn identity(dir: &Path) -> Result<String, Failure> {
    setup::identity(dir).map(|identity| identity.to_string()).map_err(|e| setup_failure(&e))
}

/// Remembers the peer's line; gives back the peer's name.
pub(crate) fn trust(dir: &Path, identity: &str) -> Result<String, Failure> {
    setup::trust(dir, identity).map(|outcome| outcome.peer.name).map_err(|e| setup_failure(&e))
}

fn setup_failure(error: &setup::SetupError) -> Failure {
    Failure::error(error.to_string(), error.next())
}

/// Runs the node until it is told to stop.
pub(crate) fn serve(dir: &Path, _io: Option<IoArg>) -> Result<(), Failure> {
    Err(missing("serve", dir))
}

/// Looks at what this machine offers to a node in `dir`.
pub(crate) fn probe(_dir: &Path) -> Vec<Finding> {
    Vec::new()
}

/// Asks a running node.
pub(crate) fn call(dir: &Path, request: &AdminRequest, timeout: Duration) -> Result<AdminReply, Failure> {
    let path = dir.join(ADMIN_SOCKET);
    let unreachable = |e: &std::io::Error| {
        Failure::error(
            format!("asking the node in {}: {e}", dir.display()),
            format!("start it with: hot-backup serve --dir {}", dir.display()),
        )
    };
    let stream = UnixStream::connect(&path).map_err(|e| unreachable(&e))?;
    stream.set_read_timeout(Some(timeout)).map_err(|e| unreachable(&e))?;
    let mut line = serde_json::to_string(request).map_err(|e| Failure::error(e.to_string(), ""))?;
    line.push('\n');
    (&stream).write_all(line.as_bytes()).map_err(|e| unreachable(&e))?;
    let mut answer = String::new();
    BufReader::new((&stream).take(REPLY_MAX)).read_line(&mut answer).map_err(|e| unreachable(&e))?;
    serde_json::from_str(&answer).map_err(|e| {
        Failure::error(format!("reading the node's answer: {e}"), "use the same version for node and command")
    })
}

fn missing(what: &str, dir: &Path) -> Failure {
    Failure::error(format!("{what} {}: not part of this build", dir.display()), "")
}

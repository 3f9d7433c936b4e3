//! A real Redis server as a process, and a bare connection that gives replies as the bytes that they are.

use super::wait_until;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// No reply may take so long.
const ANSWER: Duration = Duration::from_secs(60);

/// A server without persistence on a Unix socket. It is killed when this is dropped, and by the kernel when the thread
/// that started it ends.
pub(crate) struct RedisServer {
    process: Child,
    /// Where clients connect.
    pub(crate) socket: PathBuf,
    _dir: tempfile::TempDir,
}

impl RedisServer {
    /// Starts one and waits until it answers.
    ///
    /// # Panics
    /// If that fails.
    #[track_caller]
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("redis.sock");
        let mut command = Command::new("setpriv");
        command.args([
            "--pdeathsig",
            "KILL",
            "redis-server",
            "--port",
            "0",
            "--save",
            "",
            "--appendonly",
            "no",
        ]);
        command.args(["--databases", "1", "--daemonize", "no", "--logfile", ""]);
        command.arg("--dir").arg(dir.path()).arg("--unixsocket").arg(&socket);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().expect("redis-server starts");
        let server = Self { process, socket, _dir: dir };
        wait_until("redis-server", || RawClient::connect(&server.socket).ok());
        server
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// One reply, byte for byte. Two that are equal were sent as the same bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Reply {
    /// The first line, without its end.
    pub(crate) head: Vec<u8>,
    /// What follows the line of a bulk.
    pub(crate) body: Option<Vec<u8>>,
    /// What follows the line of an aggregate; of a map, keys and values in turn.
    pub(crate) members: Vec<Reply>,
}

impl Reply {
    /// A reply of one line.
    pub(crate) fn line(head: impl Into<Vec<u8>>) -> Self {
        Self { head: head.into(), body: None, members: Vec::new() }
    }

    /// Its type.
    pub(crate) fn kind(&self) -> u8 {
        self.head.first().copied().unwrap_or(0)
    }

    /// Text of a line or a bulk.
    pub(crate) fn text(&self) -> String {
        let bytes = self.body.as_deref().or(self.head.get(1..)).unwrap_or_default();
        String::from_utf8_lossy(bytes).into_owned()
    }
}

impl std::fmt::Display for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.head.escape_ascii())?;
        match &self.body {
            Some(body) if body.len() > 3000 => write!(f, " ({} bytes)", body.len())?,
            Some(body) => write!(f, " \"{}\"", body.escape_ascii())?,
            None => {}
        }
        self.members.iter().try_for_each(|member| write!(f, " [{member}]"))
    }
}

/// A connection without any knowledge of commands.
pub(crate) struct RawClient {
    input: BufReader<UnixStream>,
    output: UnixStream,
}

impl RawClient {
    /// Connects.
    pub(crate) fn connect(socket: &Path) -> io::Result<Self> {
        let output = UnixStream::connect(socket)?;
        output.set_read_timeout(Some(ANSWER))?;
        Ok(Self { input: BufReader::new(output.try_clone()?), output })
    }

    /// Sends bytes as they are.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.output.write_all(bytes)
    }

    /// The next reply; an error at the end of the connection.
    pub(crate) fn reply(&mut self) -> io::Result<Reply> {
        let mut head = Vec::new();
        self.input.read_until(b'\n', &mut head)?;
        if !head.ends_with(b"\r\n") {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        head.truncate(head.len() - 2);
        let mut reply = Reply::line(head);
        let count = || std::str::from_utf8(reply.head.get(1..)?).ok()?.parse::<usize>().ok();
        let Some(count) = count() else { return Ok(reply) };
        match reply.kind() {
            b'$' | b'=' => {
                let mut body = vec![0; count + 2];
                self.input.read_exact(&mut body)?;
                body.truncate(count);
                reply.body = Some(body);
            }
            kind @ (b'*' | b'~' | b'>' | b'%') => {
                let members = if kind == b'%' { count * 2 } else { count };
                for _ in 0..members {
                    reply.members.push(self.reply()?);
                }
            }
            _ => {}
        }
        Ok(reply)
    }

    /// Sends a command and gives its reply.
    ///
    /// # Panics
    /// If there is none.
    #[track_caller]
    pub(crate) fn ask(&mut self, words: &[&[u8]]) -> Reply {
        let mut bytes = Vec::new();
        hot_backup::format::resp::command(&mut bytes, words);
        self.send(&bytes).unwrap();
        self.reply().unwrap()
    }
}

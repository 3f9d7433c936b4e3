//! A small RESP2 client: for the item verbs over the node's own socket, and for the demo over TCP.

use super::failure::Failure;
use super::glue;
use crate::base::limits::ITEM_VALUE_MAX;
use std::collections::VecDeque;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Longest line of a reply, such as an error (bytes).
const LINE_MAX: u64 = 64 << 10;
/// Elements of one array.
const ARRAY_MAX: usize = 1 << 20;
/// Arrays in arrays.
const DEPTH_MAX: u32 = 8;
/// Commands without an answer at once.
const IN_FLIGHT_MAX: usize = 256;
/// Bytes of writes without an answer at once; their answers are small and always fit the socket.
const WRITES_IN_FLIGHT: usize = 4 << 20;
/// Bytes of reads without an answer at once. The node reads no further from a client that does not take its answers,
/// so requests must fit the socket's buffer: only then is sending them never a wait for ourselves.
const READS_IN_FLIGHT: usize = 32 << 10;
/// How long the node may take for one answer: a full queue or an absent peer may hold it back.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// An answer.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    /// `+OK`
    Simple(String),
    /// `-READONLY ...`
    Error(String),
    /// `:1`
    Integer(i64),
    /// `$5 hello`, or nothing.
    Bulk(Option<Vec<u8>>),
    /// `*2 ...`
    Array(Vec<Reply>),
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Simple(text) => write!(f, "+{text}"),
            Self::Error(text) => write!(f, "-{text}"),
            Self::Integer(n) => write!(f, ":{n}"),
            Self::Bulk(None) => f.write_str("nothing"),
            Self::Bulk(Some(bytes)) => write!(f, "{} bytes", bytes.len()),
            Self::Array(items) => write!(f, "array of {}", items.len()),
        }
    }
}

/// What can go wrong between client and node.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum RespError {
    /// The connection.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The node sent what is not RESP, or more than any answer may have.
    #[error("the node's answer is not RESP: {0}")]
    Protocol(&'static str),
}

impl RespError {
    /// The failure of a verb.
    pub(crate) fn failure(&self, doing: impl fmt::Display) -> Failure {
        Failure::error(format!("{doing}: {self}"), "see whether the node still runs: hot-backup status")
    }
}

/// One connection.
pub(crate) struct RespClient {
    reader: BufReader<Box<dyn Read + Send>>,
    writer: BufWriter<Box<dyn Write + Send>>,
}

impl RespClient {
    /// Connects to the Unix socket of the node in `dir`, however long that path is.
    pub(crate) fn of_node(dir: &Path) -> Result<Self, Failure> {
        connect_unix(dir)
            .and_then(|stream| Self::over_unix(&stream))
            .map_err(|error| glue::not_connected(dir, error))
    }

    fn over_unix(stream: &UnixStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self::over(Box::new(stream.try_clone()?), Box::new(stream.try_clone()?)))
    }

    /// Connects over TCP; no answer may take longer than `patience`.
    pub(crate) fn tcp(address: SocketAddr, patience: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, patience)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        Ok(Self::over(Box::new(stream.try_clone()?), Box::new(stream)))
    }

    fn over(reader: Box<dyn Read + Send>, writer: Box<dyn Write + Send>) -> Self {
        Self {
            reader: BufReader::with_capacity(64 << 10, reader),
            writer: BufWriter::with_capacity(64 << 10, writer),
        }
    }

    /// Adds a command to what [`Self::flush`] sends.
    pub(crate) fn send(&mut self, args: &[&[u8]]) -> Result<(), RespError> {
        encode(&mut self.writer, args)?;
        Ok(())
    }

    /// Sends all commands.
    pub(crate) fn flush(&mut self) -> Result<(), RespError> {
        self.writer.flush()?;
        Ok(())
    }

    /// Whether an answer, or a part of one, has already been read from the connection.
    pub(crate) fn has_buffered(&self) -> bool {
        !self.reader.buffer().is_empty()
    }

    /// The next answer.
    pub(crate) fn receive(&mut self) -> Result<Reply, RespError> {
        read_reply(&mut self.reader, 0)
    }

    /// One command and its answer.
    pub(crate) fn call(&mut self, args: &[&[u8]]) -> Result<Reply, RespError> {
        self.send(args)?;
        self.flush()?;
        self.receive()
    }
}

/// A path to a Unix socket has at most 107 bytes; through the descriptor of its directory it always fits.
fn connect_unix(dir: &Path) -> io::Result<UnixStream> {
    let opened: File =
        OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(dir)?;
    UnixStream::connect(format!("/proc/self/fd/{}/{}", opened.as_raw_fd(), glue::RESP_SOCKET))
}

/// A bounded number of commands under way, each with a tag that comes back with its answer.
pub(crate) struct Pipeline<'a, T> {
    client: &'a mut RespClient,
    under_way: VecDeque<(T, usize)>,
    bytes: usize,
    bytes_max: usize,
}

impl<'a, T> Pipeline<'a, T> {
    /// A pipeline of commands with small answers, over a connection without commands under way.
    pub(crate) fn of_writes(client: &'a mut RespClient) -> Self {
        Self { client, under_way: VecDeque::new(), bytes: 0, bytes_max: WRITES_IN_FLIGHT }
    }

    /// A pipeline of small commands with answers of any size.
    pub(crate) fn of_reads(client: &'a mut RespClient) -> Self {
        Self { client, under_way: VecDeque::new(), bytes: 0, bytes_max: READS_IN_FLIGHT }
    }

    /// Sends a command; when too many are under way, first takes in half of their answers.
    pub(crate) fn send<E: From<RespError>>(
        &mut self,
        args: &[&[u8]],
        tag: T,
        done: &mut impl FnMut(T, Reply) -> Result<(), E>,
    ) -> Result<(), E> {
        let size = args.iter().map(|arg| arg.len() + 16).sum::<usize>();
        if self.under_way.len() >= IN_FLIGHT_MAX {
            self.take_in(IN_FLIGHT_MAX / 2, usize::MAX, done)?;
        }
        if !self.under_way.is_empty() && self.bytes + size > self.bytes_max {
            self.take_in(usize::MAX, self.bytes_max.saturating_sub(size) / 2, done)?;
        }
        self.client.send(args)?;
        self.under_way.push_back((tag, size));
        self.bytes += size;
        Ok(())
    }

    /// Takes in all answers.
    pub(crate) fn finish<E: From<RespError>>(
        &mut self,
        done: &mut impl FnMut(T, Reply) -> Result<(), E>,
    ) -> Result<(), E> {
        self.take_in(0, 0, done)
    }

    fn take_in<E: From<RespError>>(
        &mut self,
        count: usize,
        bytes: usize,
        done: &mut impl FnMut(T, Reply) -> Result<(), E>,
    ) -> Result<(), E> {
        self.client.flush()?;
        while self.under_way.len() > count || self.bytes > bytes {
            let reply = self.client.receive()?;
            let Some((tag, size)) = self.under_way.pop_front() else { break };
            self.bytes -= size;
            done(tag, reply)?;
        }
        Ok(())
    }
}

fn encode(w: &mut impl Write, args: &[&[u8]]) -> io::Result<()> {
    write!(w, "*{}\r\n", args.len())?;
    for arg in args {
        write!(w, "${}\r\n", arg.len())?;
        w.write_all(arg)?;
        w.write_all(b"\r\n")?;
    }
    Ok(())
}

fn read_line(r: &mut impl BufRead) -> Result<Vec<u8>, RespError> {
    let mut line = Vec::new();
    r.take(LINE_MAX).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the node closed the connection").into());
    }
    if !line.ends_with(b"\r\n") {
        return Err(RespError::Protocol("a line does not end, or is too long"));
    }
    line.truncate(line.len() - 2);
    Ok(line)
}

fn read_reply(r: &mut impl BufRead, depth: u32) -> Result<Reply, RespError> {
    let line = read_line(r)?;
    let (kind, rest) = line.split_first().ok_or(RespError::Protocol("an empty line"))?;
    let text = || String::from_utf8_lossy(rest).into_owned();
    match kind {
        b'+' => Ok(Reply::Simple(text())),
        b'-' => Ok(Reply::Error(text())),
        b':' => number(rest).map(Reply::Integer),
        b'$' => match number(rest)? {
            -1 => Ok(Reply::Bulk(None)),
            len => read_bulk(r, len),
        },
        b'*' => match number(rest)? {
            -1 => Ok(Reply::Array(Vec::new())),
            len => read_array(r, len, depth),
        },
        _ => Err(RespError::Protocol("an unknown type")),
    }
}

fn number(digits: &[u8]) -> Result<i64, RespError> {
    let text = std::str::from_utf8(digits).ok();
    text.and_then(|text| text.parse().ok()).ok_or(RespError::Protocol("a number that is none"))
}

fn read_bulk(r: &mut impl BufRead, len: i64) -> Result<Reply, RespError> {
    // INFO and the like are far smaller than the largest item.
    let len = usize::try_from(len).ok().filter(|&len| len <= ITEM_VALUE_MAX);
    let len = len.ok_or(RespError::Protocol("a value over the limit"))?;
    let mut bytes = vec![0; len + 2];
    r.read_exact(&mut bytes)?;
    if !bytes.ends_with(b"\r\n") {
        return Err(RespError::Protocol("a value does not end where it should"));
    }
    bytes.truncate(len);
    Ok(Reply::Bulk(Some(bytes)))
}

fn read_array(r: &mut impl BufRead, len: i64, depth: u32) -> Result<Reply, RespError> {
    let len = usize::try_from(len).ok().filter(|&len| len <= ARRAY_MAX && depth < DEPTH_MAX);
    let len = len.ok_or(RespError::Protocol("an array over the limit"))?;
    // Memory grows with what arrives, not with what was announced.
    let mut items = Vec::new();
    for _ in 0..len {
        items.push(read_reply(r, depth + 1)?);
    }
    Ok(Reply::Array(items))
}

/// Reads any bytes as answers.
#[cfg(test)]
fn fuzz_replies(mut bytes: &[u8]) {
    while !bytes.is_empty() && read_reply(&mut bytes, 0).is_ok() {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Prng;
    use std::os::unix::net::UnixListener;

    fn read(mut bytes: &[u8]) -> Result<Reply, RespError> {
        read_reply(&mut bytes, 0)
    }

    #[test]
    fn each_kind_of_answer_is_read() {
        assert_eq!(read(b"+OK\r\n").unwrap(), Reply::Simple("OK".into()));
        assert_eq!(read(b"-READONLY no\r\n").unwrap(), Reply::Error("READONLY no".into()));
        assert_eq!(read(b":-7\r\n").unwrap(), Reply::Integer(-7));
        assert_eq!(read(b"$-1\r\n").unwrap(), Reply::Bulk(None));
        assert_eq!(read(b"$4\r\na\r\nb\r\n").unwrap(), Reply::Bulk(Some(b"a\r\nb".to_vec())));
        let both = Reply::Array(vec![Reply::Bulk(Some(b"0".to_vec())), Reply::Array(Vec::new())]);
        assert_eq!(read(b"*2\r\n$1\r\n0\r\n*0\r\n").unwrap(), both);
    }

    #[test]
    fn bad_answers_are_refused_before_memory_is_taken() {
        for bad in [
            &b"$99999999999\r\n"[..],
            b"*99999999\r\n",
            b"$3\r\nabcde",
            b":x\r\n",
            b"hello\r\n",
            b"+OK",
            b"",
            b"\r\n",
            b"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n",
        ] {
            assert!(read(bad).is_err(), "{}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn any_bytes_are_read_without_a_panic() {
        let mut prng = Prng::new(7);
        let good = b"*3\r\n$2\r\nab\r\n:12\r\n*1\r\n+x\r\n-ERR y\r\n$-1\r\n";
        for _ in 0..20_000 {
            let mut bytes = good.to_vec();
            for _ in 0..prng.below(4) {
                let at = usize::try_from(prng.below(bytes.len() as u64)).unwrap();
                bytes[at] = u8::try_from(prng.below(256)).unwrap();
            }
            fuzz_replies(&bytes);
        }
    }

    #[test]
    fn commands_are_encoded_as_arrays_of_bulks() {
        let mut bytes = Vec::new();
        encode(&mut bytes, &[b"SET", b"a,b,c", b""]).unwrap();
        assert_eq!(bytes, b"*3\r\n$3\r\nSET\r\n$5\r\na,b,c\r\n$0\r\n\r\n");
    }

    /// Answers each line of `count` PING commands by its number.
    fn count_pings(listener: &UnixListener, count: usize) {
        let (stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut line = String::new();
        for n in 0..count {
            for _ in 0..3 {
                line.clear();
                reader.read_line(&mut line).unwrap();
            }
            (&stream).write_all(format!(":{n}\r\n").as_bytes()).unwrap();
        }
    }

    #[test]
    fn a_pipeline_over_a_socket_with_a_long_path_pairs_each_answer_with_its_command() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("d".repeat(120));
        std::fs::create_dir(&dir).unwrap();
        // Bound through a short path, as the long one does not fit.
        let opened = File::open(&dir).unwrap();
        let short = format!("/proc/self/fd/{}/{}", opened.as_raw_fd(), glue::RESP_SOCKET);
        let listener = UnixListener::bind(short).unwrap();
        let server = std::thread::spawn(move || count_pings(&listener, 2000));

        let mut client = RespClient::of_node(&dir).unwrap();
        let mut pipeline = Pipeline::of_reads(&mut client);
        let mut next = 0;
        let mut check = |tag: i64, reply| -> Result<(), RespError> {
            assert_eq!((tag, reply), (next, Reply::Integer(next)));
            next += 1;
            Ok(())
        };
        for tag in 0..2000 {
            pipeline.send(&[b"PING"], tag, &mut check).unwrap();
            assert!(pipeline.under_way.len() <= IN_FLIGHT_MAX);
        }
        pipeline.finish(&mut check).unwrap();
        assert_eq!(next, 2000);
        server.join().unwrap();
    }
}

//! A RESP2 client, over the node's own socket or over TCP.

use crate::base::limits::ITEM_VALUE_MAX;
use crate::base::{Line, next_line};
use crate::format::resp::command;
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Longest line of a reply, such as an error (bytes).
const LINE_MAX: usize = 64 << 10;
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

/// An answer.
#[derive(Clone, PartialEq, Eq)]
pub enum Reply {
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
pub enum RespError {
    /// The connection.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The node sent what is not RESP, or more than any answer may have.
    #[error("the node's answer is not RESP: {0}")]
    Protocol(&'static str),
}

/// One connection.
pub struct RespClient {
    reader: BufReader<Box<dyn Read + Send>>,
    writer: BufWriter<Box<dyn Write + Send>>,
}

impl RespClient {
    /// Over a connection to a node's own socket; no answer may take longer than `patience`.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn unix(stream: &UnixStream, patience: Duration) -> io::Result<Self> {
        stream.set_read_timeout(Some(patience))?;
        Ok(Self::over(Box::new(stream.try_clone()?), Box::new(stream.try_clone()?)))
    }

    /// Connects over TCP; no answer may take longer than `patience`.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn tcp(address: SocketAddr, patience: Duration) -> io::Result<Self> {
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
    ///
    /// # Errors
    /// Those of the connection.
    pub fn send(&mut self, args: &[&[u8]]) -> Result<(), RespError> {
        let mut bytes = Vec::new();
        command(&mut bytes, args);
        self.writer.write_all(&bytes)?;
        Ok(())
    }

    /// Sends all commands.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn flush(&mut self) -> Result<(), RespError> {
        self.writer.flush()?;
        Ok(())
    }

    /// Whether an answer, or a part of one, has already been read from the connection.
    #[must_use]
    pub fn has_buffered(&self) -> bool {
        !self.reader.buffer().is_empty()
    }

    /// The next answer.
    ///
    /// # Errors
    /// Those of the connection, and [`RespError::Protocol`] when what comes is no answer.
    pub fn receive(&mut self) -> Result<Reply, RespError> {
        read_reply(&mut self.reader, 0)
    }

    /// One command and its answer.
    ///
    /// # Errors
    /// As [`Self::receive`].
    pub fn call(&mut self, args: &[&[u8]]) -> Result<Reply, RespError> {
        self.send(args)?;
        self.flush()?;
        self.receive()
    }
}

/// A bounded number of commands under way, each with a tag that comes back with its answer.
pub struct Pipeline<'a, T> {
    client: &'a mut RespClient,
    under_way: VecDeque<(T, usize)>,
    bytes: usize,
    bytes_max: usize,
}

impl<'a, T> Pipeline<'a, T> {
    /// A pipeline of commands with small answers, over a connection without commands under way.
    pub fn of_writes(client: &'a mut RespClient) -> Self {
        Self { client, under_way: VecDeque::new(), bytes: 0, bytes_max: WRITES_IN_FLIGHT }
    }

    /// A pipeline of small commands with answers of any size.
    pub fn of_reads(client: &'a mut RespClient) -> Self {
        Self { client, under_way: VecDeque::new(), bytes: 0, bytes_max: READS_IN_FLIGHT }
    }

    /// Sends a command; when too many are under way, first takes in half of their answers.
    ///
    /// # Errors
    /// As [`RespClient::receive`], and what `done` gives.
    pub fn send<E: From<RespError>>(
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
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn finish<E: From<RespError>>(
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

fn read_line(r: &mut impl BufRead) -> Result<Vec<u8>, RespError> {
    let mut line = match next_line(r, LINE_MAX)? {
        Line::Whole(line) => line,
        Line::End => {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the node closed the connection").into());
        }
        Line::Unended(_) | Line::TooLong => Vec::new(),
    };
    if line.pop_if(|last| *last == b'\r').is_none() {
        return Err(RespError::Protocol("a line does not end, or is too long"));
    }
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

    /// Answers each line of `count` PING commands by its number.
    fn count_pings(mut stream: &UnixStream, count: usize) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut line = String::new();
        for n in 0..count {
            for _ in 0..3 {
                line.clear();
                reader.read_line(&mut line).unwrap();
            }
            stream.write_all(format!(":{n}\r\n").as_bytes()).unwrap();
        }
    }

    #[test]
    fn a_pipeline_pairs_each_answer_with_its_command() {
        let (near, far) = UnixStream::pair().unwrap();
        let server = std::thread::spawn(move || count_pings(&far, 2000));
        let mut client = RespClient::unix(&near, Duration::from_secs(60)).unwrap();
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

//! A client of the NBD door. [`NbdClient::read`], [`NbdClient::write`] and [`NbdClient::flush`] wait for their answer;
//! with [`NbdClient::send`] and [`NbdClient::receive`] many requests can be under way.

use crate::base::limits::CLIENT_PAYLOAD_MAX;
use crate::base::read_at_most;
use crate::format::nbd as wire;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// The context that tells which ranges are zeros.
const ALLOCATION: &[u8] = b"base:allocation";

/// How an export is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// By `NBD_OPT_EXPORT_NAME`, the old way.
    ByName,
    /// By `NBD_OPT_GO`.
    Go,
    /// The same, with structured replies and `base:allocation` before it.
    Structured,
}

/// A request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// One of `CMD_*` in [`crate::format::nbd`].
    pub command: u16,
    /// Some of `CMD_FLAG_*`.
    pub flags: u16,
    /// Comes back with the answer.
    pub cookie: u64,
    /// Where (bytes).
    pub offset: u64,
    /// How much (bytes).
    pub len: u32,
}

/// What comes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NbdReply {
    /// A simple reply. What a read brings follows it and is for [`NbdClient::receive_into`].
    Simple {
        /// Of the request.
        cookie: u64,
        /// One of the errors of the protocol; 0 if there is none.
        error: u32,
    },
    /// A chunk of a structured reply.
    Chunk {
        /// Of the request.
        cookie: u64,
        /// Whether it is the last one.
        done: bool,
        /// One of `REPLY_TYPE_*`.
        kind: u16,
        /// What it carries.
        payload: Vec<u8>,
    },
}

/// A connection to one export.
#[derive(Debug)]
pub struct NbdClient {
    reader: BufReader<TcpStream>,
    writer: BufWriter<TcpStream>,
    cookie: u64,
    /// Size of the export (bytes).
    pub bytes: u64,
    /// The transmission flags.
    pub flags: u16,
}

fn unexpected(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

fn array<const N: usize>(reader: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    reader.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn number(reader: &mut impl Read) -> io::Result<u32> {
    Ok(u32::from_be_bytes(array(reader)?))
}

/// So many bytes; memory grows with what arrives, not with what was announced.
fn payload(reader: &mut impl Read, len: u32) -> io::Result<Vec<u8>> {
    let most = CLIENT_PAYLOAD_MAX;
    if usize::try_from(len).is_ok_and(|len| len > most) {
        return Err(unexpected("more is announced than a node ever sends at once"));
    }
    let bytes = read_at_most(reader.take(len.into()), most)?;
    if u32::try_from(bytes.len()) == Ok(len) { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn len_of(bytes: &[u8]) -> io::Result<u32> {
    u32::try_from(bytes.len()).map_err(|_| unexpected("it is too long for one request"))
}

/// A text with its length before it.
fn counted(text: &[u8]) -> io::Result<Vec<u8>> {
    Ok([&len_of(text)?.to_be_bytes()[..], text].concat())
}

impl NbdClient {
    /// Opens an export; each step takes at most `patience`.
    ///
    /// # Errors
    /// Those of the connection; `NotFound` when the node has no such export, `InvalidData` when it breaks the protocol.
    pub fn open(address: SocketAddr, export: &str, patience: Duration) -> io::Result<Self> {
        Self::open_by(address, export, patience, Choice::Go)
    }

    /// The same in the way that is chosen.
    ///
    /// # Errors
    /// As [`Self::open`]; by [`Choice::ByName`], a node that has no such export hangs up.
    pub fn open_by(
        address: SocketAddr,
        export: &str,
        patience: Duration,
        choice: Choice,
    ) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, patience)?;
        stream.set_nodelay(true)?;
        Self::begin(stream, export, patience, choice)
    }

    /// Opens an export over a Unix socket that is connected.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn unix(stream: UnixStream, export: &str, patience: Duration) -> io::Result<Self> {
        // Of either kind it is a descriptor that is read, written to and shut down; nothing else is asked of it.
        Self::begin(TcpStream::from(OwnedFd::from(stream)), export, patience, Choice::Go)
    }

    fn begin(stream: TcpStream, export: &str, patience: Duration, choice: Choice) -> io::Result<Self> {
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        let (reader, writer) = (BufReader::new(stream.try_clone()?), BufWriter::new(stream));
        let mut client = Self { reader, writer, cookie: 0, bytes: 0, flags: 0 };
        client.greet()?;
        let name = counted(export.as_bytes())?;
        match choice {
            Choice::ByName => client.choose_by_name(export)?,
            Choice::Go => client.option(wire::OPT_GO, &[&name[..], &[0; 2]].concat(), export)?,
            Choice::Structured => {
                let context = [&name[..], &1_u32.to_be_bytes(), &counted(ALLOCATION)?].concat();
                client.option(wire::OPT_STRUCTURED_REPLY, &[], export)?;
                client.option(wire::OPT_SET_META_CONTEXT, &context, export)?;
                client.option(wire::OPT_GO, &[&name[..], &[0; 2]].concat(), export)?;
            }
        }
        Ok(client)
    }

    /// Whether the export takes no writes.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.flags & wire::FLAG_READ_ONLY != 0
    }

    fn greet(&mut self) -> io::Result<()> {
        let greeting = [wire::NBDMAGIC.to_be_bytes(), wire::IHAVEOPT.to_be_bytes()].concat();
        if array::<16>(&mut self.reader)? != *greeting {
            return Err(unexpected("the node does not greet as an NBD server does"));
        }
        let offered = u16::from_be_bytes(array(&mut self.reader)?);
        let both = wire::FLAG_FIXED_NEWSTYLE | wire::FLAG_NO_ZEROES;
        if offered & both != both {
            return Err(unexpected("the node does not offer what each version of it does"));
        }
        self.writer.write_all(&(wire::CLIENT_FIXED_NEWSTYLE | wire::CLIENT_NO_ZEROES).to_be_bytes())
    }

    fn send_option(&mut self, option: u32, data: &[u8]) -> io::Result<()> {
        self.writer.write_all(&wire::IHAVEOPT.to_be_bytes())?;
        self.writer.write_all(&option.to_be_bytes())?;
        self.writer.write_all(&len_of(data)?.to_be_bytes())?;
        self.writer.write_all(data)?;
        self.writer.flush()
    }

    fn choose_by_name(&mut self, export: &str) -> io::Result<()> {
        self.send_option(wire::OPT_EXPORT_NAME, export.as_bytes())?;
        self.bytes = u64::from_be_bytes(array(&mut self.reader)?);
        self.flags = u16::from_be_bytes(array(&mut self.reader)?);
        Ok(())
    }

    /// Sends an option and takes its answers up to the one that ends it.
    fn option(&mut self, option: u32, data: &[u8], export: &str) -> io::Result<()> {
        self.send_option(option, data)?;
        loop {
            let magic = u64::from_be_bytes(array(&mut self.reader)?);
            let (answered, kind) = (number(&mut self.reader)?, number(&mut self.reader)?);
            let len = number(&mut self.reader)?;
            let data = payload(&mut self.reader, len)?;
            if magic != wire::OPTION_REPLY_MAGIC || answered != option {
                return Err(unexpected("the answer is none to the option that was sent"));
            }
            match kind {
                wire::REP_ACK => return Ok(()),
                wire::REP_INFO => {
                    if let [0, 0, a, b, c, d, e, f, g, h, x, y] = data[..] {
                        self.bytes = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
                        self.flags = u16::from_be_bytes([x, y]);
                    }
                }
                wire::REP_META_CONTEXT => {}
                _ => {
                    let text = format!("{export}: {}", String::from_utf8_lossy(&data));
                    return Err(io::Error::new(io::ErrorKind::NotFound, text));
                }
            }
        }
    }

    /// Adds a request to what [`Self::push`] and [`Self::receive`] send; `payload` is what a write carries.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn send(&mut self, request: &Request, payload: &[u8]) -> io::Result<()> {
        self.writer.write_all(&wire::REQUEST_MAGIC.to_be_bytes())?;
        self.writer.write_all(&request.flags.to_be_bytes())?;
        self.writer.write_all(&request.command.to_be_bytes())?;
        self.writer.write_all(&request.cookie.to_be_bytes())?;
        self.writer.write_all(&request.offset.to_be_bytes())?;
        self.writer.write_all(&request.len.to_be_bytes())?;
        self.writer.write_all(payload)
    }

    /// Sends what was added.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn push(&mut self) -> io::Result<()> {
        self.writer.flush()
    }

    /// Sends what was added and waits for the next reply.
    ///
    /// # Errors
    /// Those of the connection, and `InvalidData` when what comes is no reply.
    pub fn receive(&mut self) -> io::Result<NbdReply> {
        self.push()?;
        match number(&mut self.reader)? {
            wire::SIMPLE_REPLY_MAGIC => {
                let error = number(&mut self.reader)?;
                Ok(NbdReply::Simple { error, cookie: u64::from_be_bytes(array(&mut self.reader)?) })
            }
            wire::STRUCTURED_REPLY_MAGIC => {
                let flags = u16::from_be_bytes(array(&mut self.reader)?);
                let kind = u16::from_be_bytes(array(&mut self.reader)?);
                let cookie = u64::from_be_bytes(array(&mut self.reader)?);
                let len = number(&mut self.reader)?;
                let payload = payload(&mut self.reader, len)?;
                Ok(NbdReply::Chunk { cookie, done: flags & wire::REPLY_FLAG_DONE != 0, kind, payload })
            }
            _ => Err(unexpected("what comes is no reply")),
        }
    }

    /// Takes what follows the simple reply to a read.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn receive_into(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.reader.read_exact(bytes)
    }

    fn call(&mut self, request: Request, payload: &[u8]) -> io::Result<()> {
        self.cookie += 1;
        self.send(&Request { cookie: self.cookie, ..request }, payload)?;
        match self.receive()? {
            NbdReply::Simple { cookie, error } if cookie == self.cookie => match i32::try_from(error) {
                Ok(0) => Ok(()),
                Ok(errno) => Err(io::Error::from_raw_os_error(errno)),
                Err(_) => Err(unexpected("the answer is an unknown error")),
            },
            _ => Err(unexpected("the answer is none to what was asked")),
        }
    }

    /// Writes; answered when the node has taken it, which promises nothing. Nothing else may be under way.
    ///
    /// # Errors
    /// Those of the connection, and what the node answers.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let len = len_of(bytes)?;
        self.call(Request { command: wire::CMD_WRITE, offset, len, ..Request::default() }, bytes)
    }

    /// Answered when everything answered before is as safe as the volume's ack level says. Nothing else may be under way.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn flush(&mut self) -> io::Result<()> {
        self.call(Request { command: wire::CMD_FLUSH, ..Request::default() }, &[])
    }

    /// Reads. Nothing else may be under way, and replies must not be structured.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn read(&mut self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let len = len_of(bytes)?;
        self.call(Request { command: wire::CMD_READ, offset, len, ..Request::default() }, &[])?;
        self.receive_into(bytes)
    }

    /// Sends what was added and then the end of the connection's sending side, without a goodbye.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn end_sending(&mut self) -> io::Result<()> {
        self.push()?;
        self.writer.get_ref().shutdown(Shutdown::Write)
    }

    /// What still comes, up to the end of the connection.
    ///
    /// # Errors
    /// Those of the connection, and `FileTooLarge` when more comes than a node ever sends at once.
    pub fn receive_rest(&mut self) -> io::Result<Vec<u8>> {
        read_at_most(&mut self.reader, CLIENT_PAYLOAD_MAX)
    }

    /// Ends the connection at once, in both directions.
    pub fn hang_up(&self) {
        // One that has ended already is what is wanted.
        let _ = self.writer.get_ref().shutdown(Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread::{self, JoinHandle};

    const PATIENCE: Duration = Duration::from_secs(20);

    /// A server that says `bytes` after its greeting, and gives back what it was told.
    fn server(bytes: Vec<u8>) -> (SocketAddr, JoinHandle<Vec<u8>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let thread = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"NBDMAGICIHAVEOPT\0\x03").unwrap();
            stream.write_all(&bytes).unwrap();
            let mut told = Vec::new();
            stream.read_to_end(&mut told).unwrap();
            told
        });
        (address, thread)
    }

    fn option_reply(option: u32, kind: u32, data: &[u8]) -> Vec<u8> {
        let mut bytes = 0x0003_e889_0455_65a9_u64.to_be_bytes().to_vec();
        for field in [option, kind, u32::try_from(data.len()).unwrap()] {
            bytes.extend(field.to_be_bytes());
        }
        bytes.extend(data);
        bytes
    }

    #[test]
    fn an_export_is_opened_written_and_read_in_the_bytes_of_the_protocol() {
        let info = [&[0, 0][..], &4096_u64.to_be_bytes(), &[0, 3]].concat();
        let mut says = [option_reply(7, 3, &info), option_reply(7, 1, &[])].concat();
        for cookie in [1_u64, 2] {
            says.extend([0x67, 0x44, 0x66, 0x98, 0, 0, 0, 0]);
            says.extend(cookie.to_be_bytes());
        }
        says.extend(b"hey");
        let (address, thread) = server(says);
        let mut client = NbdClient::open(address, "a/b", PATIENCE).unwrap();
        assert_eq!((client.bytes, client.flags, client.is_read_only()), (4096, 3, true));
        client.write(512, b"yes").unwrap();
        let mut read = [0; 3];
        client.read(1024, &mut read).unwrap();
        assert_eq!(&read, b"hey");
        drop(client);
        let told = thread.join().unwrap();
        let go = b"\0\0\0\x03IHAVEOPT\0\0\0\x07\0\0\0\x09\0\0\0\x03a/b\0\0";
        let write = b"\x25\x60\x95\x13\0\0\0\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\x02\0\0\0\0\x03yes";
        let read = b"\x25\x60\x95\x13\0\0\0\0\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\x04\0\0\0\0\x03";
        assert_eq!(told, [&go[..], write, read].concat());
    }

    #[test]
    fn an_export_that_is_not_there_and_a_node_that_breaks_the_protocol_are_told_apart() {
        let unknown = option_reply(7, 0x8000_0006, b"no such file");
        let other = option_reply(8, 1, &[]);
        for (says, kind) in [(unknown, io::ErrorKind::NotFound), (other, io::ErrorKind::InvalidData)] {
            let (address, thread) = server(says);
            let error = NbdClient::open(address, "a/b", PATIENCE).unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            thread.join().unwrap();
        }
        // Nothing is allocated for what is only announced.
        let mut huge = option_reply(7, 3, &[]);
        huge.truncate(16);
        huge.extend(u32::MAX.to_be_bytes());
        let (address, thread) = server(huge);
        assert_eq!(NbdClient::open(address, "a/b", PATIENCE).unwrap_err().kind(), io::ErrorKind::InvalidData);
        thread.join().unwrap();
    }
}

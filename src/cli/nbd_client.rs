//! A small client of the NBD door, one request at a time: for the demo, and wherever a command needs a volume.

use crate::format::nbd as wire;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A connection to one export.
#[derive(Debug)]
pub(crate) struct NbdClient {
    reader: BufReader<TcpStream>,
    writer: BufWriter<TcpStream>,
    cookie: u64,
    /// Size of the export (bytes).
    pub(crate) bytes: u64,
    /// Whether it takes no writes.
    pub(crate) read_only: bool,
}

fn unexpected(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

fn array<const N: usize>(reader: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    reader.read_exact(&mut bytes)?;
    Ok(bytes)
}

impl NbdClient {
    /// Opens an export; each step takes at most `patience`.
    ///
    /// # Errors
    /// Those of the connection; `NotFound` when the node has no such export, `InvalidData` when it breaks the protocol.
    pub(crate) fn open(address: SocketAddr, export: &str, patience: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, patience)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        let (mut reader, mut writer) = (BufReader::new(stream.try_clone()?), BufWriter::new(stream));
        let greeting: [u8; 18] = array(&mut reader)?;
        if !greeting.starts_with(b"NBDMAGICIHAVEOPT") {
            return Err(unexpected("the node does not greet as an NBD server does"));
        }
        writer.write_all(&(wire::CLIENT_FIXED_NEWSTYLE | wire::CLIENT_NO_ZEROES).to_be_bytes())?;
        let name_len = u32::try_from(export.len()).map_err(|_| unexpected("the name is too long"))?;
        writer.write_all(b"IHAVEOPT")?;
        writer.write_all(&wire::OPT_GO.to_be_bytes())?;
        writer.write_all(&(name_len + 6).to_be_bytes())?;
        writer.write_all(&name_len.to_be_bytes())?;
        writer.write_all(export.as_bytes())?;
        writer.write_all(&0_u16.to_be_bytes())?;
        writer.flush()?;
        let (mut bytes, mut flags) = (0, 0);
        loop {
            let head: [u8; 20] = array(&mut reader)?;
            let field = |at: usize| head.get(at..at + 4).and_then(|b| b.try_into().ok()).unwrap_or_default();
            let (kind, len) = (u32::from_be_bytes(field(12)), u32::from_be_bytes(field(16)));
            let mut data = vec![0; usize::try_from(len.min(4096)).unwrap_or(0)];
            reader.read_exact(&mut data)?;
            match kind {
                wire::REP_ACK => break,
                wire::REP_INFO => {
                    if let [0, 0, a, b, c, d, e, f, g, h, x, y] = data[..] {
                        bytes = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
                        flags = u16::from_be_bytes([x, y]);
                    }
                }
                _ => {
                    let text = format!("{export}: {}", String::from_utf8_lossy(&data));
                    return Err(io::Error::new(io::ErrorKind::NotFound, text));
                }
            }
        }
        let read_only = flags & wire::FLAG_READ_ONLY != 0;
        Ok(Self { reader, writer, cookie: 0, bytes, read_only })
    }

    fn call(&mut self, command: u16, flags: u16, offset: u64, len: u32, payload: &[u8]) -> io::Result<()> {
        self.cookie += 1;
        self.writer.write_all(&wire::REQUEST_MAGIC.to_be_bytes())?;
        self.writer.write_all(&flags.to_be_bytes())?;
        self.writer.write_all(&command.to_be_bytes())?;
        self.writer.write_all(&self.cookie.to_be_bytes())?;
        self.writer.write_all(&offset.to_be_bytes())?;
        self.writer.write_all(&len.to_be_bytes())?;
        self.writer.write_all(payload)?;
        self.writer.flush()?;
        let magic = u32::from_be_bytes(array(&mut self.reader)?);
        let error = u32::from_be_bytes(array(&mut self.reader)?);
        let cookie = u64::from_be_bytes(array(&mut self.reader)?);
        if magic != wire::SIMPLE_REPLY_MAGIC || cookie != self.cookie {
            return Err(unexpected("the answer is none to what was asked"));
        }
        match i32::try_from(error) {
            Ok(0) => Ok(()),
            Ok(errno) => Err(io::Error::from_raw_os_error(errno)),
            Err(_) => Err(unexpected("the answer is an unknown error")),
        }
    }

    /// Writes; answered when the node has taken it, which promises nothing.
    ///
    /// # Errors
    /// Those of the connection, and what the node answers.
    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let len = u32::try_from(bytes.len()).map_err(|_| unexpected("the write is too long"))?;
        self.call(wire::CMD_WRITE, 0, offset, len, bytes)
    }

    /// Answered when everything answered before is as safe as the volume's ack level says.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.call(wire::CMD_FLUSH, 0, 0, 0, &[])
    }

    /// Reads.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub(crate) fn read(&mut self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let len = u32::try_from(bytes.len()).map_err(|_| unexpected("the read is too long"))?;
        self.call(wire::CMD_READ, 0, offset, len, &[])?;
        self.reader.read_exact(bytes)
    }
}

//! The side that asks: a set, or parts of a spool, come from another machine; after a cut they go on where they were.

use super::SocketError;
use super::dial::{Calls, Dial, SocketOrder, Stop};
use super::error::WireError;
use super::wire::Wire;
use crate::base::FileId;
use crate::base::limits::{
    FRAME_PAYLOAD_MAX, SOCKET_BLOCK, SOCKET_OPEN_MS, SOCKET_READ_AHEAD, SOCKET_SILENT_MS,
};
use crate::format::asked::{Asked, Gives, SetSummary, Want};
use crate::format::set::SetId;
use crate::format::socket::{Refused, SocketFrame};
use crate::node::set::{Contents, SetError};
use bytes::Bytes;
use std::io::{self, Read};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// A set that another machine keeps.
#[derive(Clone, Debug)]
pub struct SocketSource {
    /// Which machine, and what the set is called there.
    order: SocketOrder,
    /// Only what this file needs.
    only: Option<FileId>,
    /// Goes past what cannot be read.
    lenient: bool,
    /// What it holds, once that was asked for: from then on it is that very set.
    seen: Arc<OnceLock<Bytes>>,
}

impl PartialEq for SocketSource {
    fn eq(&self, other: &Self) -> bool {
        (&self.order, self.only, self.lenient) == (&other.order, other.only, other.lenient)
    }
}

impl Eq for SocketSource {}

impl SocketSource {
    /// The set that is called so there, or the newest.
    #[must_use]
    pub fn new(order: SocketOrder) -> Self {
        Self { order, only: None, lenient: false, seen: Arc::default() }
    }

    /// The same, without what only other files than this one need, where that saves something.
    #[must_use]
    pub fn of_file(&self, only: Option<FileId>) -> Self {
        Self { only, ..self.clone() }
    }

    /// The same, past what cannot be read.
    #[must_use]
    pub fn past_damage(&self) -> Self {
        Self { lenient: true, ..self.clone() }
    }

    /// How it is called in messages.
    #[must_use]
    pub fn name(&self) -> String {
        self.order.place()
    }

    fn want(&self, what: Asked) -> Want {
        let name = self.order.name.clone().unwrap_or_default();
        Want { name, up_to: SOCKET_BLOCK as u64, ..Want::of(what) }
    }

    /// What it holds.
    ///
    /// # Errors
    /// [`SetError`]: it is not there, it is no save, it is of another pair.
    pub fn contents(&self) -> Result<Contents, SetError> {
        let bytes = match self.seen.get() {
            Some(bytes) => bytes.clone(),
            None => {
                let mut reader = SocketReader::begin(&self.order, self.want(Asked::Contents))?;
                let bytes = Bytes::from(reader.all(2 * FRAME_PAYLOAD_MAX)?);
                reader.end();
                self.seen.get_or_init(|| bytes).clone()
            }
        };
        let no_set =
            |error: crate::format::DecodeError| SetError::NoSet { what: self.name(), why: error.to_string() };
        let SetSummary { header, begin, trailer, bytes, parts } =
            SetSummary::decode(&bytes).map_err(no_set)?;
        Ok(Contents { header, begin, trailer, bytes, parts })
    }

    /// Its bytes, from the first one on, and whether content of other files is left out.
    ///
    /// # Errors
    /// [`SetError`].
    pub fn open(&self) -> Result<(SocketReader, bool), SetError> {
        let what = if self.lenient { Asked::Lenient } else { Asked::Set };
        let stream = self.contents()?.header.set;
        let want = Want { stream, only: self.only, ..self.want(what) };
        let reader = SocketReader::begin(&self.order, want)?;
        let gaps = reader.gives().gaps;
        Ok((reader, gaps))
    }

    /// How many bytes come, if that is known.
    #[must_use]
    pub fn bytes(&self) -> Option<u64> {
        self.contents().ok().map(|found| found.bytes)
    }
}

/// Reads what another machine gives.
pub struct SocketReader {
    dial: Dial,
    wire: Option<Wire>,
    want: Want,
    gives: Option<Gives>,
    /// What came and was not taken.
    block: Bytes,
    /// The next byte that is to come.
    at: u64,
    /// All before this byte may be sent.
    may: u64,
    ended: bool,
}

impl std::fmt::Debug for SocketReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SocketReader({}, byte {})", self.dial.to, self.at)
    }
}

impl SocketReader {
    /// Connects, and asks for something.
    pub(in crate::node) fn begin(order: &SocketOrder, want: Want) -> Result<Self, SocketError> {
        let (dial, at) = (Dial::new(order, "reading from")?, want.from);
        let (wire, gives, block) = (None, None, Bytes::new());
        let mut this = Self { dial, wire, want, gives, block, at, may: 0, ended: false };
        this.first()?;
        Ok(this)
    }

    /// Asks for something else, over the same connection if it is there still.
    pub(in crate::node) fn ask(&mut self, want: Want) -> Result<(), SocketError> {
        // What is left of the stream before is in the way.
        let wire = self.wire.take().filter(|_| self.ended);
        (self.at, self.want, self.gives, self.block, self.ended) =
            (want.from, want, None, Bytes::new(), false);
        let Some(wire) = wire else { return self.first() };
        match self.open(wire) {
            Ok(()) => Ok(()),
            Err(Stop::Over(error)) => Err(error),
            // It was let go of meanwhile.
            Err(Stop::Cut(_)) => self.first(),
        }
    }

    /// What is given.
    pub(in crate::node) fn gives(&self) -> Gives {
        self.gives.unwrap_or(Gives { gaps: false, stream: SetId([0; 16]), bytes: 0, free: 0 })
    }

    fn open(&mut self, mut wire: Wire) -> Result<(), Stop> {
        self.want.from = self.at;
        self.may = self.at + SOCKET_BLOCK as u64;
        self.want.up_to = self.may;
        wire.send(&SocketFrame::Want(self.want.clone()))?;
        let patience = Duration::from_millis(SOCKET_OPEN_MS);
        let gives = match wire.receive(patience)?.ok_or(WireError::Silent(patience))? {
            SocketFrame::Gives(gives) => gives,
            // Whoever had it before may not be seen to be gone.
            SocketFrame::Refused { why: Refused::InUse, message, .. } if self.gives.is_some() => {
                return Err(WireError::Busy(message).into());
            }
            other => return Err(self.dial.unexpected(other)),
        };
        if self.want.stream.0 != [0; 16] && gives.stream != self.want.stream {
            let why = format!("set {} was asked for, and it gives set {}", self.want.stream, gives.stream);
            return Err(Stop::Over(self.dial.broken(why)));
        }
        (self.want.stream, self.gives, self.wire) = (gives.stream, Some(gives), Some(wire));
        Ok(())
    }

    /// Waits for the next bytes; false at the end.
    fn fill(&mut self) -> Result<bool, SocketError> {
        loop {
            if self.ended {
                return Ok(false);
            }
            match self.step() {
                Ok(true) => return Ok(true),
                Ok(false) => {}
                Err(Stop::Over(error)) => return Err(error),
                Err(Stop::Cut(error)) => self.again(error)?,
            }
        }
    }

    /// Takes one frame; whether bytes came.
    fn step(&mut self) -> Result<bool, Stop> {
        let wire = self.wire.as_mut().ok_or(WireError::Ended)?;
        // One that is not read yet sends no more than its beginning.
        if self.at > self.want.from && self.at + SOCKET_READ_AHEAD / 2 > self.may {
            self.may = self.at + SOCKET_READ_AHEAD;
            wire.send(&SocketFrame::Counts { up_to: self.may })?;
        }
        let patience = Duration::from_millis(SOCKET_SILENT_MS);
        match wire.receive(patience)?.ok_or(WireError::Silent(patience))? {
            SocketFrame::Data { offset, bytes } if offset == self.at => {
                self.at += bytes.len() as u64;
                self.block = bytes;
                self.dial.stuck = None;
                Ok(!self.block.is_empty())
            }
            SocketFrame::Data { offset, .. } => {
                let why = format!("byte {offset} came where byte {} was to come", self.at);
                Err(Stop::Over(self.dial.broken(why)))
            }
            SocketFrame::Done { bytes } if bytes == self.at => {
                self.ended = true;
                Ok(false)
            }
            SocketFrame::Done { bytes } => {
                let why = format!("it says that {bytes} bytes are all, and {} came", self.at);
                Err(Stop::Over(self.dial.broken(why)))
            }
            other => Err(self.dial.unexpected(other)),
        }
    }

    /// All that comes, so many bytes at most.
    pub(in crate::node) fn all(&mut self, most: usize) -> Result<Vec<u8>, SocketError> {
        let mut all = Vec::new();
        while self.fill()? {
            all.extend_from_slice(&std::mem::take(&mut self.block));
            if all.len() > most {
                return Err(self.dial.broken(format!("more than {most} bytes came")));
            }
        }
        Ok(all)
    }

    /// Says goodbye.
    pub(in crate::node) fn end(&mut self) {
        if let Some(wire) = self.wire.take() {
            wire.end();
        }
    }
}

impl Calls for SocketReader {
    fn dial(&mut self) -> &mut Dial {
        &mut self.dial
    }

    fn connect(&mut self) -> Result<(), Stop> {
        self.wire = None;
        let wire = self.dial.wire()?;
        self.open(wire)
    }

    fn goes_on(&self) -> u64 {
        self.at
    }
}

impl Read for SocketReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.block.is_empty() && !self.fill().map_err(io::Error::other)? {
            self.end();
            return Ok(0);
        }
        let count = self.block.len().min(buffer.len());
        let taken = self.block.split_to(count);
        if let Some(to) = buffer.get_mut(..count) {
            to.copy_from_slice(&taken);
        }
        Ok(count)
    }
}

/// What to do about an error of another machine, for people.
#[must_use]
pub fn next_of(error: &io::Error) -> String {
    of_stream(error).map_or_else(|| "see: hot-backup tape-socket --help".to_owned(), SocketError::next)
}

/// The error of another machine within one of a stream.
pub(in crate::node) fn of_stream(error: &io::Error) -> Option<&SocketError> {
    error.get_ref().and_then(|inner| inner.downcast_ref())
}

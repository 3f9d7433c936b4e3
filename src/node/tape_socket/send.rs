//! The sending side: keeps what does not count, connects again when it is cut, and goes on where the receiver says.

use super::SocketError;
use super::dial::{Calls, Dial, SocketOrder, Stop};
use super::error::WireError;
use super::wire::Wire;
use crate::base::Seq;
use crate::base::limits::{SOCKET_BLOCK, SOCKET_OPEN_MS, SOCKET_SILENT_MS};
use crate::format::set::{SetId, Trailer};
use crate::format::socket::{SocketFrame, StreamKind, StreamOpen};
use crate::node::set::{self, SetError, Source};
use crate::node::spool::SpoolDir;
use crate::node::tape::About;
use bytes::{Bytes, BytesMut};
use ring::digest::{Context, SHA256};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What came of opening a stream.
pub enum Begun {
    /// It may be written, from this byte on.
    From(Box<SocketWriter>, u64),
    /// All of it is there already.
    Whole,
}

impl std::fmt::Debug for Begun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::From(_, from) => write!(f, "From({from})"),
            Self::Whole => write!(f, "Whole"),
        }
    }
}

/// Sends one stream.
pub struct SocketWriter {
    dial: Dial,
    open: StreamOpen,
    wire: Option<Wire>,
    kept: Kept,
    /// The block in the making.
    filled: BytesMut,
    whole: bool,
}

impl std::fmt::Debug for SocketWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SocketWriter({}, {:?})", self.dial.to, self.kept)
    }
}

impl SocketWriter {
    /// Connects and opens a stream.
    ///
    /// # Errors
    /// [`SocketError`]; nobody is called a second time.
    pub(in crate::node) fn begin(order: &SocketOrder, about: &About) -> Result<Begun, SocketError> {
        let kind = about.spool.map_or(StreamKind::Set, StreamKind::Spool);
        Self::begin_as(kind, order, about)
    }

    /// The same for one part of a spool, which goes to a disk.
    ///
    /// # Errors
    /// [`SocketError`].
    pub(in crate::node) fn begin_part(order: &SocketOrder, about: &About) -> Result<Begun, SocketError> {
        let kind = about.spool.map_or(StreamKind::Set, StreamKind::Part);
        Self::begin_as(kind, order, about)
    }

    fn begin_as(kind: StreamKind, order: &SocketOrder, about: &About) -> Result<Begun, SocketError> {
        let dial = Dial::new(order, "sending to")?;
        let short: String = about.save.to_string().chars().take(8).collect();
        let what = match about.spool {
            None => about.node.clone(),
            Some(ordinal) => format!("spool-{}", ordinal.0),
        };
        let open = StreamOpen {
            kind,
            stream: about.save,
            pair: about.pair,
            epoch: about.epoch,
            seq: about.seq,
            name: order.name.clone().unwrap_or_else(|| format!("{what}-{short}")),
            node: about.node.clone(),
        };
        let (kept, filled) = (Kept::default(), BytesMut::new());
        let mut this = Self { dial, open, wire: None, kept, filled, whole: false };
        this.first()?;
        if this.whole {
            return Ok(Begun::Whole);
        }
        let from = this.kept.end;
        Ok(Begun::From(Box::new(this), from))
    }

    fn wrong(&self, wrong: Wrong) -> SocketError {
        match wrong {
            Wrong::Lost { from, counts } => SocketError::Lost { to: self.dial.to.clone(), from, counts },
            Wrong::Beyond(byte) => self.dial.broken(format!("it has byte {byte}, which was not sent")),
        }
    }

    fn done(&mut self, bytes: u64) -> Result<(), Stop> {
        // Of a stream that was not sent from here its length is not known.
        if self.kept.end > 0 && bytes != self.kept.end {
            return Err(Stop::Over(self.wrong(Wrong::Beyond(bytes))));
        }
        self.whole = true;
        Ok(())
    }

    /// Takes the next bytes; waits while the receiver has too much that does not count.
    ///
    /// # Errors
    /// [`SocketError`]: it cannot be sent any more.
    pub fn write(&mut self, mut bytes: &[u8]) -> Result<(), SocketError> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(SOCKET_BLOCK - self.filled.len()));
            self.filled.extend_from_slice(now);
            bytes = later;
            if self.filled.len() == SOCKET_BLOCK {
                self.push()?;
            }
        }
        Ok(())
    }

    fn push(&mut self) -> Result<(), SocketError> {
        self.kept.push(self.filled.split().freeze());
        self.drive(Self::step)
    }

    /// Sends the rest, and waits until all of it counts and has its name there.
    ///
    /// # Durability
    /// When it returns, the set is on the other machine's disk or reel, by its own word.
    ///
    /// # Errors
    /// [`SocketError`].
    pub fn finish(&mut self) -> Result<(), SocketError> {
        if !self.filled.is_empty() {
            self.push()?;
        }
        self.drive(Self::conclude)?;
        if let Some(wire) = self.wire.take() {
            wire.end();
        }
        Ok(())
    }

    /// Makes steps until there is nothing to do; over a new connection when one is cut.
    fn drive(&mut self, step: impl Fn(&mut Self) -> Result<bool, Stop>) -> Result<(), SocketError> {
        loop {
            match step(self) {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(Stop::Over(error)) => return Err(error),
                Err(Stop::Cut(error)) => self.again(error)?,
            }
        }
    }

    /// Sends one block, or hears something; false if all was sent.
    fn step(&mut self) -> Result<bool, Stop> {
        self.hear(Duration::ZERO)?;
        if self.kept.unsent().is_none() {
            return Ok(false);
        }
        let Some((offset, bytes)) = self.kept.may_send() else {
            let patience = Duration::from_millis(SOCKET_SILENT_MS);
            return if self.hear(patience)? { Ok(true) } else { Err(WireError::Silent(patience).into()) };
        };
        let wire = self.wire.as_mut().ok_or(WireError::Ended)?;
        wire.send(&SocketFrame::Data { offset, bytes })?;
        self.kept.was_sent();
        Ok(true)
    }

    /// Sends what is left, says that this is all, and waits for the word; false when that has come.
    fn conclude(&mut self) -> Result<bool, Stop> {
        if self.whole {
            return Ok(false);
        }
        while self.step()? {}
        let bytes = self.kept.end;
        let wire = self.wire.as_mut().ok_or(WireError::Ended)?;
        wire.send(&SocketFrame::End { bytes })?;
        let patience = Duration::from_millis(SOCKET_SILENT_MS);
        while !self.whole {
            if !self.hear(patience)? {
                return Err(WireError::Silent(patience).into());
            }
        }
        Ok(false)
    }

    /// Takes a frame, if one comes within this time; whether one did.
    fn hear(&mut self, wait: Duration) -> Result<bool, Stop> {
        let wire = self.wire.as_mut().ok_or(WireError::Ended)?;
        match wire.receive(wait)? {
            None => return Ok(false),
            Some(SocketFrame::Counts { up_to }) => {
                let before = self.kept.counts;
                self.kept.counts(up_to).map_err(|wrong| Stop::Over(self.wrong(wrong)))?;
                if self.kept.counts > before {
                    self.dial.stuck = None;
                }
            }
            Some(SocketFrame::Done { bytes }) => self.done(bytes)?,
            Some(other) => return Err(self.dial.unexpected(other)),
        }
        Ok(true)
    }
}

impl Calls for SocketWriter {
    fn dial(&mut self) -> &mut Dial {
        &mut self.dial
    }

    fn connect(&mut self) -> Result<(), Stop> {
        self.wire = None;
        let mut wire = self.dial.wire()?;
        wire.send(&SocketFrame::Open(self.open.clone()))?;
        let patience = Duration::from_millis(SOCKET_OPEN_MS);
        match wire.receive(patience)?.ok_or(WireError::Silent(patience))? {
            SocketFrame::Ready { from, window } => {
                self.kept.resume(from, window).map_err(|wrong| Stop::Over(self.wrong(wrong)))?;
            }
            SocketFrame::Done { bytes } => self.done(bytes)?,
            other => return Err(self.dial.unexpected(other)),
        }
        self.wire = Some(wire);
        Ok(())
    }

    fn goes_on(&self) -> u64 {
        self.kept.unsent().map_or(self.kept.end, |(offset, _)| offset)
    }
}

/// Why a receiver cannot be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// It wants what had counted.
    Lost {
        /// What it wants.
        from: u64,
        /// What had counted.
        counts: u64,
    },
    /// It has what was not sent.
    Beyond(u64),
}

/// What was sent and does not count, in order without gaps, and what is to be sent.
#[derive(Default)]
pub(super) struct Kept {
    blocks: VecDeque<(u64, Bytes)>,
    /// So many of them the receiver has.
    sent: usize,
    /// All before this byte counts.
    counts: u64,
    /// Behind the last byte of the last block.
    end: u64,
    window: u64,
    begun: bool,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {} bytes count, {} blocks are kept", self.counts, self.end, self.blocks.len())
    }
}

impl Kept {
    pub(super) fn push(&mut self, bytes: Bytes) {
        let len = bytes.len() as u64;
        self.blocks.push_back((self.end, bytes));
        self.end += len;
    }

    /// The next block to be sent.
    fn unsent(&self) -> Option<(u64, Bytes)> {
        self.blocks.get(self.sent).cloned()
    }

    /// The same, unless the receiver has all that it may have before that. One block is always allowed.
    pub(super) fn may_send(&self) -> Option<(u64, Bytes)> {
        let most = self.counts.saturating_add(self.window);
        self.unsent().filter(|(at, bytes)| *at <= self.counts || at + bytes.len() as u64 <= most)
    }

    /// It was.
    pub(super) fn was_sent(&mut self) {
        self.sent += 1;
    }

    /// The receiver's word for all before this byte.
    pub(super) fn counts(&mut self, up_to: u64) -> Result<(), Wrong> {
        let reach = self.unsent().map_or(self.end, |(offset, _)| offset);
        if up_to > reach {
            return Err(Wrong::Beyond(up_to));
        }
        // A word that is older than what was said before takes nothing back.
        self.counts = self.counts.max(up_to);
        while self.blocks.front().is_some_and(|(at, bytes)| at + bytes.len() as u64 <= self.counts) {
            self.blocks.pop_front();
            self.sent = self.sent.saturating_sub(1);
        }
        Ok(())
    }

    /// The receiver goes on at this byte.
    pub(super) fn resume(&mut self, from: u64, window: u64) -> Result<(), Wrong> {
        self.window = window;
        if !std::mem::replace(&mut self.begun, true) {
            (self.counts, self.end) = (from, from);
            return Ok(());
        }
        if from < self.counts {
            return Err(Wrong::Lost { from, counts: self.counts });
        }
        if from > self.end {
            return Err(Wrong::Beyond(from));
        }
        self.sent = self.blocks.iter().take_while(|(at, bytes)| at + bytes.len() as u64 <= from).count();
        // The receiver may have a part of a block.
        if let Some((at, bytes)) = self.blocks.get_mut(self.sent)
            && *at < from
            && let Ok(inside) = usize::try_from(from - *at)
        {
            let rest = bytes.split_off(inside);
            self.sent += 1;
            self.blocks.insert(self.sent, (from, rest));
        }
        Ok(())
    }
}

/// Sends a set that is complete, from a file or from reels; what is there already is not sent again. `progress` hears how many
/// bytes of it are there.
///
/// # Errors
/// [`SetError`].
pub fn send_set(
    source: &Source,
    order: &SocketOrder,
    progress: impl FnMut(u64),
) -> Result<(Trailer, bool), SetError> {
    let found = set::contents(source)?;
    let unfit = |why| SetError::from(SocketError::Source { what: source.name(), why });
    if found.parts > 1 && !matches!(source, Source::Tape(_)) {
        return Err(unfit("it stands in several files"));
    }
    let about = About {
        spool: None,
        save: found.header.set,
        pair: found.header.pair,
        epoch: found.trailer.end.epoch,
        seq: found.trailer.end.seq,
        node: found.begin.node.clone(),
    };
    let sent = send_stream(source.stream()?, &source.name(), order, &about, progress)?;
    Ok((found.trailer, sent))
}

/// Sends the parts of a spool that are in a directory; false if these very parts are there already. `progress` as in
/// [`send_set`]. Gives the first and the last entry that they hold.
///
/// # Errors
/// [`SetError`].
pub fn send_parts(
    dir: &Path,
    order: &SocketOrder,
    progress: impl FnMut(u64),
) -> Result<((Seq, Seq), bool), SetError> {
    let name = dir.display().to_string();
    let failed = |source| SetError::Io { doing: "reading", what: name.clone(), source };
    let unfit = |why| SetError::from(SocketError::Source { what: name.clone(), why });
    let mut parts = SpoolDir::at(dir.to_owned()).list().map_err(failed)?.parts;
    parts.sort_unstable_by_key(|part| (part.base.seq, part.index));
    let (Some(first), Some(last)) = (parts.first().copied(), parts.last().copied()) else {
        return Err(unfit("it holds no parts of a spool"));
    };
    if parts.iter().any(|part| (part.pair, part.ordinal) != (first.pair, first.ordinal)) {
        return Err(unfit("its parts are of several nodes"));
    }
    let mut digest = Context::new(&SHA256);
    parts.iter().for_each(|part| digest.update(&part.record()));
    let save = digest.finish().as_ref().first_chunk().copied().unwrap_or_default();
    let about = About {
        spool: Some(first.ordinal),
        save: SetId(save),
        pair: first.pair,
        epoch: first.base.epoch,
        seq: first.base.seq,
        node: format!("ordinal {}", first.ordinal.0),
    };
    let rest = parts.iter().map(|part| dir.join(part.file_name())).collect();
    let input = Box::new(PartFiles { rest, open: None });
    let sent = send_stream(input, &name, order, &about, progress)?;
    Ok(((first.first(), last.end.seq), sent))
}

/// Files one behind the other; each is opened when it is its turn.
struct PartFiles {
    rest: VecDeque<PathBuf>,
    open: Option<File>,
}

impl Read for PartFiles {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(file) = &mut self.open {
                match file.read(buffer)? {
                    0 => self.open = None,
                    count => return Ok(count),
                }
            }
            match self.rest.pop_front() {
                Some(path) => self.open = Some(File::open(path)?),
                None => return Ok(0),
            }
        }
    }
}

fn send_stream(
    mut input: Box<dyn Read>,
    name: &str,
    order: &SocketOrder,
    about: &About,
    mut progress: impl FnMut(u64),
) -> Result<bool, SetError> {
    let (mut writer, from) = match SocketWriter::begin(order, about)? {
        Begun::From(writer, from) => (writer, from),
        Begun::Whole => return Ok(false),
    };
    let failed = |error: io::Error| SetError::Io { doing: "reading", what: name.to_owned(), source: error };
    let mut buffer = vec![0; SOCKET_BLOCK];
    let mut at = 0_u64;
    loop {
        let count = input.read(&mut buffer).map_err(failed)?;
        let read = buffer.get(..count).unwrap_or_default();
        if count == 0 {
            break;
        }
        // What is there already is passed over.
        let there = usize::try_from(from.saturating_sub(at)).unwrap_or(usize::MAX).min(count);
        writer.write(read.get(there..).unwrap_or_default())?;
        at += count as u64;
        progress(at);
    }
    if at < from {
        let why = "it is shorter than what is there of it already";
        return Err(SocketError::Source { what: name.to_owned(), why }.into());
    }
    writer.finish()?;
    Ok(true)
}

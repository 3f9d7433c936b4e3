//! A spool on the disk of another machine, which listens there for it (`tape-socket listen --to dir:/..`).
//!
//! A part counts when that machine says that all of it is synced under its name: the rule of the tape socket. A wire that is cut
//! is made again for a moment, and goes on behind what counts; after that the part failed, as on a disk that is away.

use super::dir::{BadPart, WriteError, ends_of, stream, walk_file};
use crate::base::Ordinal;
use crate::base::limits::{SOCKET_AGAIN_MS, SOCKET_BLOCK, SPOOL_FAR_RETRY_MS, SPOOL_PARTS_MAX};
use crate::engine::SpoolFound;
use crate::format::PairId;
use crate::format::asked::{Asked, PartsThere, Want};
use crate::format::batch::Batch;
use crate::format::set::SetId;
use crate::format::socket::is_socket_place;
use crate::format::spool::{INDEX_RECORD, PART_START, PartHeader};
use crate::node::peer_address::PeerAddress;
use crate::node::tape::{About, Teller};
use crate::node::tape_socket::{Begun, SocketError, SocketKeys, SocketOrder, SocketReader, SocketWriter};
use bytes::Bytes;
use ring::digest::{SHA256, digest};
use std::collections::HashSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// What the config's `spool` begins with for another machine.
pub const FAR: &str = "tcp:";

const RETRY: Duration = Duration::from_millis(SPOOL_FAR_RETRY_MS);

/// The spool of one node on another machine.
#[derive(Debug)]
pub struct FarSpool {
    order: SocketOrder,
    pair: PairId,
    ordinal: Ordinal,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    reader: Option<SocketReader>,
    /// Names of the parts that are there.
    names: HashSet<String>,
    /// Bytes that its disk had left.
    free: u64,
}

fn failed(error: SocketError) -> io::Error {
    io::Error::other(error)
}

/// Tries to connect for a moment: a wire may be cut before anything was said.
fn patient<T>(mut connect: impl FnMut() -> Result<T, SocketError>) -> Result<T, SocketError> {
    let begin = Instant::now();
    loop {
        match connect() {
            Err(SocketError::Connect { .. }) if begin.elapsed() < RETRY => {
                thread::sleep(Duration::from_millis(SOCKET_AGAIN_MS));
            }
            other => return other,
        }
    }
}

impl FarSpool {
    /// Of the node in `dir`, at `place` (`tcp:HOST:PORT`). Touches nothing.
    ///
    /// # Errors
    /// In words, if the place is of another form.
    pub fn of(place: &str, dir: &Path, (pair, ordinal): (PairId, Ordinal)) -> Result<Self, String> {
        let to: Option<PeerAddress> =
            place.strip_prefix(FAR).filter(|_| is_socket_place(place)).and_then(|to| to.parse().ok());
        let to = to.ok_or_else(|| format!("{place:?} is no place for a spool: say tcp:HOST:PORT"))?;
        let keys = SocketKeys::Node(dir.to_owned());
        let order = SocketOrder { to, keys, name: None, retry: RETRY, teller: Teller::default() };
        Ok(Self { order, pair, ordinal, state: Mutex::default() })
    }

    /// The same, whose doings are told.
    #[must_use]
    pub fn told(mut self, teller: Teller) -> Self {
        self.order.teller = teller;
        self
    }

    /// How its place is called.
    #[must_use]
    pub fn name(&self) -> String {
        self.order.place()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for something, and takes all of it, so many bytes at most.
    fn ask(&self, want: Want, most: usize) -> io::Result<(Vec<u8>, u64)> {
        let want = Want { pair: self.pair, ..want };
        let mut state = self.state();
        let mut reader = match state.reader.take() {
            Some(mut reader) => patient(|| reader.ask(want.clone())).map(|()| reader),
            None => patient(|| SocketReader::begin(&self.order, want.clone())),
        }
        .map_err(failed)?;
        let bytes = reader.all(most).map_err(failed)?;
        let free = reader.gives().free;
        state.reader = Some(reader);
        Ok((bytes, free))
    }

    /// All parts that are there.
    ///
    /// # Errors
    /// The other machine cannot be reached, or does not answer it.
    pub fn list(&self) -> io::Result<SpoolFound> {
        let most = SPOOL_PARTS_MAX * (INDEX_RECORD + 5);
        let (bytes, free) = self.ask(Want::of(Asked::Parts(self.ordinal)), most)?;
        let PartsThere { parts, damaged } = PartsThere::decode(&bytes).map_err(io::Error::other)?;
        let parts: Vec<PartHeader> = parts.into_iter().map(|part| part.header).collect();
        let mut state = self.state();
        (state.free, state.names) = (free, parts.iter().map(PartHeader::file_name).collect());
        Ok(SpoolFound { parts, damaged, free, ..SpoolFound::default() })
    }

    /// Whether this part is there, as far as is known.
    pub(super) fn holds(&self, part: &PartHeader) -> bool {
        self.state().names.contains(&part.file_name())
    }

    /// Bytes that the other machine's disk has left, as far as is known.
    pub(super) fn free(&self) -> u64 {
        self.state().free
    }

    /// Writes a part of a segment that `read` gives, checked batch by batch.
    ///
    /// # Durability
    /// When it returns, the part is synced over there under its name, by that machine's own word.
    pub(super) fn write(
        &self,
        part: &PartHeader,
        mut read: impl FnMut(u64, usize) -> io::Result<Bytes>,
    ) -> Result<(), WriteError> {
        let spool = |error| WriteError::Spool(failed(error));
        let name = part.file_name();
        let order = SocketOrder { name: Some(name.clone()), ..self.order.clone() };
        let sum = digest(&SHA256, &part.record());
        let about = About {
            spool: Some(part.ordinal),
            save: SetId(sum.as_ref().first_chunk().copied().unwrap_or_default()),
            pair: part.pair,
            epoch: part.base.epoch,
            seq: part.base.seq,
            node: format!("ordinal {}", part.ordinal.0),
        };
        match patient(|| SocketWriter::begin_part(&order, &about)).map_err(spool)? {
            Begun::Whole => {}
            Begun::From(mut writer, from) => {
                let mut at = 0;
                stream(part, &mut read, |bytes| {
                    // What is there already is passed over.
                    let there =
                        usize::try_from(from.saturating_sub(at)).unwrap_or(usize::MAX).min(bytes.len());
                    at += bytes.len() as u64;
                    writer.write(bytes.get(there..).unwrap_or_default()).map_err(spool)
                })?;
                writer.finish().map_err(spool)?;
            }
        }
        let mut state = self.state();
        state.free = state.free.saturating_sub(part.file_bytes());
        state.names.insert(name);
        Ok(())
    }

    fn part(&self, part: &PartHeader, from: u64, end: u64) -> io::Result<Vec<u8>> {
        let want = Want { from, end, name: part.file_name(), ..Want::of(Asked::Part(self.ordinal)) };
        let most = usize::try_from(end - from).unwrap_or(usize::MAX);
        let (bytes, _) = self.ask(want, most)?;
        if bytes.len() == most { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    /// Reads of a part's segment.
    pub(super) fn read(&self, part: &PartHeader, offset: u64, len: usize) -> io::Result<Bytes> {
        let len = part.bytes.saturating_sub(offset).min(len as u64);
        let from = PART_START + offset;
        Ok(self.part(part, from, from + len)?.into())
    }

    /// Nobody needs a part any more.
    pub(super) fn remove(&self, part: &PartHeader) -> io::Result<()> {
        let want = Want { name: part.file_name(), ..Want::of(Asked::LetGo(self.ordinal)) };
        self.ask(want, 0)?;
        let mut state = self.state();
        state.free += part.file_bytes();
        state.names.remove(&part.file_name());
        Ok(())
    }

    /// Reads a whole part, and calls `each` with every batch of it.
    ///
    /// # Errors
    /// What is wrong with it, or what `each` says.
    pub fn walk(
        &self,
        part: &PartHeader,
        each: impl FnMut(Batch) -> Result<(), BadPart>,
    ) -> Result<(), BadPart> {
        let bad = |error: io::Error| BadPart { why: error.to_string(), good_to: None };
        let file = self.fetch(part).map_err(bad)?;
        let (header, trailer) = ends_of(&file)?;
        walk_file(&file, (&header, &trailer), each)
    }

    /// All of a part, in a file that has no name.
    fn fetch(&self, part: &PartHeader) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o600).custom_flags(libc::O_TMPFILE);
        let mut file = options.open(std::env::temp_dir())?;
        let (mut at, end) = (0, part.file_bytes());
        while at < end {
            let next = end.min(at + 16 * SOCKET_BLOCK as u64);
            file.write_all(&self.part(part, at, next)?)?;
            at = next;
        }
        Ok(file)
    }
}

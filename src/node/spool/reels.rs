//! The spool's parts on reels. A burst of parts is a session of the reel set; when one ends, the drive is let go.
//!
//! A part counts when the block that holds its last byte does: at a flush that succeeded with the drive where it has to be
//! (I-38). The catalogue is synced then, and only after that the part is told of. A burst that ended in its middle takes
//! nothing from the parts that counted; the others are written again, behind it or on the next reel.

use super::dir::{BadPart, WriteError, ends_of, read_part, stream, walk_file};
use crate::base::Ordinal;
use crate::base::limits::{REEL_BLOCK, SPOOL_REEL_MS, TAPE_SPOOL_UNFLUSHED};
use crate::format::PairId;
use crate::format::batch::Batch;
use crate::format::reel::{ReelKind, ReelLabel};
use crate::format::set::SetId;
use crate::format::spool::PartHeader;
use crate::node::identity::random;
use crate::node::tape::{Tape, TapeError, TapeOptions, TapeSession};
use crate::tape::{Packer, PartHeld, ReadError, ReelSet, SPOOL_NAME, SessionKey, SpanReader, SpanWriter};
use bytes::Bytes;
use std::collections::{HashSet, VecDeque};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

/// Where the spool's reels are, and whose they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReelOrder {
    /// The drive, or the images.
    pub options: TapeOptions,
    /// A reel gets no more than this (bytes).
    pub reel_size: Option<u64>,
    /// Of the node.
    pub pair: PairId,
    /// The same.
    pub ordinal: Ordinal,
    /// Its name.
    pub node: String,
    /// A directory in which a part that is being read may lie.
    pub dir: PathBuf,
}

/// The spool of a node on reels.
pub struct ReelSpool {
    order: ReelOrder,
    burst: Option<Burst>,
    reading: Option<Reading>,
    /// The part that was read from its reel last, whole.
    staged: Option<(String, File)>,
}

/// Parts that are being written one behind the other.
struct Burst {
    session: TapeSession,
    writer: SpanWriter<Tape>,
    packer: Packer,
    start: u64,
    /// Bytes of the session so far.
    offset: u64,
    /// Parts that do not count yet.
    open: VecDeque<PartHeld>,
}

/// Reels that are being read.
struct Reading {
    set: ReelSet,
    reader: SpanReader<Tape>,
    /// The block that was read last, as it was before it was packed.
    last: Option<(u64, Vec<u8>)>,
}

/// Why a part on reels cannot be had.
#[derive(Debug)]
pub enum Unread {
    /// The reel that holds it is not there.
    Waits(TapeError),
    /// It is damaged.
    Bad(BadPart),
    /// Anything else.
    Failed(io::Error),
}

/// Whether both are copies of one segment; when they were made does not matter.
pub(super) fn is_same(one: &PartHeader, other: &PartHeader) -> bool {
    (one.index, one.base, one.end) == (other.index, other.base, other.end)
}

fn bad(why: impl ToString) -> Unread {
    Unread::Bad(BadPart { why: why.to_string(), good_to: None })
}

impl std::fmt::Debug for ReelSpool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ReelSpool({})", self.order.options.place.name())
    }
}

impl ReelSpool {
    /// Of these reels. Touches nothing.
    #[must_use]
    pub fn new(order: ReelOrder) -> Self {
        Self { order, burst: None, reading: None, staged: None }
    }

    /// How its place is called.
    #[must_use]
    pub fn name(&self) -> String {
        self.order.options.place.name()
    }

    pub(super) fn options(&self) -> &TapeOptions {
        &self.order.options
    }

    fn is_own(&self, set: &ReelSet) -> bool {
        set.pair == self.order.pair.to_string() && set.spool_of() == Some(self.order.ordinal.0)
    }

    /// All parts, with the reel on which each begins. Those that nobody needs any more only if they are asked for.
    ///
    /// # Errors
    /// [`TapeError`]: the catalogue cannot be read.
    pub fn list(&self, all: bool) -> Result<Vec<(PartHeld, u32)>, TapeError> {
        let catalogue = Tape::open(&self.order.options)?.sets();
        let mut found: Vec<(PartHeld, u32)> = Vec::new();
        let mut seen = HashSet::new();
        for set in catalogue.iter().filter(|set| self.is_own(set)) {
            for save in &set.saves {
                for part in save.parts.iter().filter(|part| all || !part.let_go) {
                    let first = save.blocks(&(part.offset..part.end_offset())).start;
                    let reel = set.locate(first).map_or(0, |(reel, _)| reel.number);
                    // One that was written twice is there once.
                    if seen.insert((part.header.index, part.header.base.chain, part.header.end.chain)) {
                        found.push((*part, reel));
                    }
                }
            }
        }
        found.sort_unstable_by_key(|(part, _)| (part.header.base.seq, part.header.index));
        Ok(found)
    }

    /// Nobody needs a part any more.
    pub(super) fn let_go(&mut self, part: &PartHeader) -> Result<(), TapeError> {
        let name = part.file_name();
        if self.staged.as_ref().is_some_and(|(staged, _)| *staged == name) {
            self.staged = None;
        }
        let tape = match &self.burst {
            Some(burst) => burst.session.tape.clone(),
            None => Tape::open(&self.order.options)?,
        };
        tape.change(|sets| {
            let parts = sets.iter_mut().flat_map(|set| &mut set.saves).flat_map(|save| &mut save.parts);
            parts.filter(|held| is_same(&held.header, part)).for_each(|held| held.let_go = true);
        })
    }

    /// Writes a part behind the others of the burst. Parts that count since then are added to `done`, also those that a reel
    /// took before the next one was missing.
    ///
    /// # Errors
    /// Nothing that does not count is on a reel for certain: the burst is over.
    pub(super) fn put(
        &mut self,
        part: &PartHeader,
        mut read: impl FnMut(u64, usize) -> io::Result<Bytes>,
        done: &mut Vec<PartHeader>,
    ) -> Result<(), WriteError> {
        let tape = |error| WriteError::Tape(Box::new(error));
        if self.burst.is_none() {
            // A drive that reads is asked to do something else.
            self.reading = None;
            self.burst = Some(self.begin(part).map_err(tape)?);
        }
        let Some(mut burst) = self.burst.take() else { return Ok(()) };
        burst.open.push_back(PartHeld { header: *part, offset: burst.offset, let_go: false });
        let streamed = stream(part, &mut read, |bytes| burst.write(bytes).map_err(tape));
        done.extend(burst.counted(streamed.is_ok()).map_err(tape)?);
        streamed?;
        self.burst = Some(burst);
        Ok(())
    }

    /// Ends the burst, if there is one. Parts that count since then are added to `done`.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub(super) fn finish(&mut self, done: &mut Vec<PartHeader>) -> Result<(), TapeError> {
        let Some(mut burst) = self.burst.take() else { return Ok(()) };
        let ended = burst.end();
        done.extend(burst.counted(true)?);
        ended?;
        burst.writer.close();
        Ok(())
    }

    fn begin(&self, first: &PartHeader) -> Result<Burst, TapeError> {
        let ReelOrder { options, reel_size, pair, ordinal, node, .. } = &self.order;
        let mut id = [0; 16];
        random(&mut id).map_err(|source| TapeError::Io {
            doing: "beginning",
            what: "a burst to reels".to_owned(),
            source: io::Error::other(source.to_string()),
        })?;
        let label = ReelLabel {
            pair: *pair,
            epoch: first.base.epoch,
            seq: first.base.seq,
            wall_ms: first.wall_ms,
            block_size: u32::try_from(REEL_BLOCK).unwrap_or(u32::MAX),
            key: options.key.as_ref().map_or(0, crate::tape::Key::id),
            name: format!("{SPOOL_NAME}{}", ordinal.0),
            node: node.clone(),
        };
        let tape = Tape::open(options)?;
        let own = tape.sets().into_iter().rev().find(|set| self.is_own(set));
        let session = TapeSession {
            tape,
            set: SetId(id),
            session: SetId(id),
            cap: *reel_size,
            unflushed: TAPE_SPOOL_UNFLUSHED,
        };
        let (session, label, writer) = session.begin(label, own.as_ref())?;
        let key = options.key.as_ref().map(|key| key.of_session(session.session));
        let start = writer.next();
        let packer = Packer::new((session.set, session.session), start, label.block_size, key);
        Ok(Burst { session, writer, packer, start: start.0, offset: 0, open: VecDeque::new() })
    }

    /// Whether a part was read from its reel, so that the drive is not asked.
    pub(super) fn is_staged(&self, part: &PartHeader) -> bool {
        self.staged.as_ref().is_some_and(|(staged, _)| *staged == part.file_name())
    }

    /// Reads of a part's segment.
    pub(super) fn read(&mut self, part: &PartHeader, offset: u64, len: usize) -> Result<Bytes, Unread> {
        let file = self.stage(part)?;
        read_part(&file, part, offset, len).map_err(Unread::Failed)
    }

    /// Reads a whole part, and calls `each` with every batch of it.
    ///
    /// # Errors
    /// [`Unread`], also what `each` says.
    pub fn walk(
        &mut self,
        part: &PartHeader,
        each: impl FnMut(Batch) -> Result<(), BadPart>,
    ) -> Result<(), Unread> {
        let file = self.stage(part)?;
        let (header, trailer) = ends_of(&file).map_err(Unread::Bad)?;
        walk_file(&file, (&header, &trailer), each).map_err(Unread::Bad)
    }

    /// Reads a part from its reel into a file that has no name.
    fn stage(&mut self, part: &PartHeader) -> Result<File, Unread> {
        let name = part.file_name();
        if let Some((staged, file)) = &self.staged
            && *staged == name
        {
            return file.try_clone().map_err(Unread::Failed);
        }
        self.staged = None;
        let mut options = OpenOptions::new();
        let file =
            options.read(true).write(true).mode(0o600).custom_flags(libc::O_TMPFILE).open(&self.order.dir);
        let mut file = file.map_err(Unread::Failed)?;
        self.fetch(part, &mut file)?;
        let (header, trailer) = ends_of(&file).map_err(Unread::Bad)?;
        if !is_same(&header, part) {
            return Err(bad(format!("part {} is where it was", header.file_name())));
        }
        // I-40: what does not match its digest is not given.
        walk_file(&file, (&header, &trailer), |_| Ok(())).map_err(Unread::Bad)?;
        let staged = file.try_clone().map_err(Unread::Failed)?;
        self.staged = Some((name, staged));
        Ok(file)
    }

    fn fetch(&mut self, part: &PartHeader, file: &mut File) -> Result<(), Unread> {
        let failed = |error: TapeError| Unread::Failed(io::Error::other(error.to_string()));
        let tape = Tape::open(&self.order.options).map_err(failed)?;
        let found = tape.sets().into_iter().rev().filter(|set| self.is_own(set)).find_map(|set| {
            let held = set.saves.iter().find_map(|save| {
                let held = save.parts.iter().find(|held| is_same(&held.header, part))?;
                Some((save.clone(), *held))
            })?;
            Some((set, held))
        });
        let Some((set, (save, held))) = found else {
            return Err(bad("the catalogue of reels does not know it"));
        };
        let session = SetId(super::sixteen(&save.id));
        let key = match (set.key, self.order.options.key.as_ref()) {
            (0, _) => None,
            (id, Some(key)) if key.id() == id => Some(key.of_session(session)),
            _ => return Err(failed(TapeError::Key { save: save.id, given: None })),
        };
        let bytes = held.offset..held.end_offset();
        let blocks = save.blocks(&bytes);
        self.seek(tape, set, blocks.start)?;
        let mut at = bytes.start;
        while at < bytes.end {
            let wanted = save.first + at / save.payload.max(1);
            let reading = self.reading.as_mut().ok_or_else(|| bad("it is not read"))?;
            let payload = match reading.block(wanted, key.as_ref()) {
                Ok(payload) => payload,
                Err(unread) => {
                    self.reading = None;
                    return Err(unread);
                }
            };
            let from = usize::try_from(at - (wanted - save.first) * save.payload).unwrap_or(usize::MAX);
            let most = usize::try_from(bytes.end - at).unwrap_or(usize::MAX);
            let piece = payload.get(from..).unwrap_or_default();
            let piece = piece.get(..most.min(piece.len())).unwrap_or_default();
            if piece.is_empty() {
                return Err(bad(format!("block {wanted} of the set is shorter than it has to be")));
            }
            file.write_all(piece).map_err(Unread::Failed)?;
            at += piece.len() as u64;
        }
        Ok(())
    }

    /// Puts the reader before a block; the one that is there goes on if it can.
    fn seek(&mut self, tape: Tape, set: ReelSet, block: u64) -> Result<(), Unread> {
        // Somebody else may have the drive as long as nobody reads.
        let end = set.reels.last().map_or(0, |reel| reel.next);
        let goes_on = self.reading.as_ref().is_some_and(|reading| {
            reading.set.id == set.id && reading.set.reels.last().is_some_and(|reel| reel.next == end)
        });
        if !goes_on {
            let located = set.clone();
            let locate =
                Box::new(move |at| located.locate(at).map(|(reel, position)| (reel.number, position)));
            let reader = SpanReader::new(tape, set.number(), block..end, locate, false);
            self.reading = Some(Reading { set, reader, last: None });
        }
        Ok(())
    }

    /// The reels on which these parts are, in order.
    pub(super) fn reels_of(&self, parts: &[PartHeader]) -> Result<Vec<u32>, TapeError> {
        let mut on = std::collections::BTreeSet::new();
        for set in Tape::open(&self.order.options)?.sets().iter().filter(|set| self.is_own(set)) {
            for save in &set.saves {
                let wanted = |held: &&PartHeld| parts.iter().any(|part| is_same(&held.header, part));
                for held in save.parts.iter().filter(wanted) {
                    let blocks = save.blocks(&(held.offset..held.end_offset()));
                    let holds =
                        |reel: &&crate::tape::Reel| reel.first < blocks.end && reel.next > blocks.start;
                    on.extend(set.reels.iter().filter(holds).map(|reel| reel.number));
                }
            }
        }
        Ok(on.into_iter().collect())
    }

    /// Nothing more is written to the newest reel: what comes next goes to another one. Only for reels that nobody else
    /// writes to.
    pub(super) fn close_last(&self) -> Result<(), TapeError> {
        Tape::open(&self.order.options)?.change(|sets| {
            if let Some(set) = sets.iter_mut().rev().find(|set| self.is_own(set))
                && let Some(number) = set.reels.last().map(|reel| reel.number)
            {
                set.close_reel(number);
            }
        })
    }

    /// Reads a part from its reel, and waits for that reel if the order allows it, so that it can be walked.
    ///
    /// # Errors
    /// [`Unread`].
    pub fn bring(&mut self, part: &PartHeader) -> Result<(), Unread> {
        let mut asked = String::new();
        loop {
            match self.stage(part) {
                Err(Unread::Waits(error)) if self.order.options.wait.is_none() => {
                    let text = format!("{error}; it is seen by itself");
                    if asked != text {
                        self.order.options.teller.tell(&text);
                        asked = text;
                    }
                    self.rest();
                    std::thread::sleep(std::time::Duration::from_millis(SPOOL_REEL_MS));
                }
                other => return other.map(drop),
            }
        }
    }

    /// Lets go of the drive, if it is only read.
    pub(super) fn rest(&mut self) {
        self.reading = None;
    }
}

impl Burst {
    fn write(&mut self, bytes: &[u8]) -> Result<(), TapeError> {
        self.offset += bytes.len() as u64;
        let mut rest = bytes;
        while let Some(block) = self.packer.push(&mut rest) {
            self.writer.put(block)?;
        }
        Ok(())
    }

    /// Writes what is left of the session and its end, and flushes.
    fn end(&mut self) -> Result<(), TapeError> {
        let (last, end) = self.packer.finish();
        for block in last.into_iter().chain([end]) {
            self.writer.put(block)?;
        }
        self.writer.flush(1)?;
        Ok(())
    }

    /// The parts that count now: the catalogue has them, durably. The last one does not if it is not `whole`.
    fn counted(&mut self, whole: bool) -> Result<Vec<PartHeader>, TapeError> {
        let (next, payload) = (self.writer.next().0, self.packer.payload());
        let counts = |part: &PartHeld| self.start + part.end_offset().div_ceil(payload) <= next;
        let most = self.open.len() - usize::from(!whole);
        let count = self.open.iter().take(most).take_while(|part| counts(part)).count();
        if count == 0 {
            return Ok(Vec::new());
        }
        let done: Vec<PartHeld> = self.open.drain(..count).collect();
        let TapeSession { tape, set, session, .. } = &self.session;
        tape.change(|sets| {
            let id = set.to_string();
            if let Some(set) = sets.iter_mut().find(|known| known.id == id) {
                set.note_parts(*session, &done);
            }
        })?;
        Ok(done.iter().map(|held| held.header).collect())
    }
}

impl Reading {
    /// The content of a block of the set.
    fn block(&mut self, wanted: u64, key: Option<&SessionKey>) -> Result<&[u8], Unread> {
        if self.last.as_ref().is_none_or(|(at, _)| *at != wanted) {
            let failed = |error: ReadError, set: &ReelSet| match error {
                ReadError::Lost(ref loss) => {
                    let held = set.held(loss.first..loss.next);
                    bad(format!("{loss}; it held {held}"))
                }
                error => {
                    let error = TapeError::Read { error, held: String::new() };
                    if error.waits() {
                        Unread::Waits(error)
                    } else {
                        Unread::Failed(io::Error::other(error.to_string()))
                    }
                }
            };
            self.reader.seek(wanted).map_err(|error| failed(error, &self.set))?;
            let header = match self.reader.next_block().map_err(|error| failed(error, &self.set))? {
                Some(header) if header.sequence == wanted && header.kind == ReelKind::Data => header,
                _ => return Err(bad(format!("block {wanted} of the set is none of a spool"))),
            };
            let payload = self.reader.payload();
            let content = match (key, header.sealed) {
                (Some(key), true) => {
                    key.open(&header, payload).ok_or_else(|| bad("it cannot be decrypted"))?
                }
                _ => payload.to_vec(),
            };
            self.last = Some((wanted, content));
        }
        Ok(self.last.as_ref().map(|(_, content)| content.as_slice()).unwrap_or_default())
    }
}

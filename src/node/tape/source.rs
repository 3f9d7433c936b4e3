//! A save on reels as a stream, for who reads sets.

use super::error::into_stream;
use super::shelf::Operator;
use super::{TapeError, TapeOptions, scan};
use crate::base::{Chain, Epoch, FileId, Position, Seq};
use crate::format::PairId;
use crate::format::alone::AloneFiles;
use crate::format::chunk::CopyBegin;
use crate::format::control::Role;
use crate::format::reel::ReelKind;
use crate::format::set::{Counts, PartHeader, SetBegin, SetFile, SetId, Trailer};
use crate::node::set::Contents;
use crate::tape::{ReadError, ReelSet, Save, SessionKey, SpanReader};
use std::io::{self, Read};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// A save on reels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapeSource {
    /// Where the reels are.
    pub options: TapeOptions,
    /// Its number, or how that begins; the newest if none.
    pub save: Option<String>,
    /// Only what this file needs.
    pub only: Option<FileId>,
    /// Goes past what cannot be read.
    pub lenient: bool,
}

/// Sixteen bytes of hexadecimal text.
fn sixteen(text: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (at, byte) in bytes.iter_mut().enumerate() {
        let pair = text.get(2 * at..2 * at + 2);
        *byte = pair.and_then(|pair| u8::from_str_radix(pair, 16).ok()).unwrap_or_default();
    }
    bytes
}

/// The number of a save, of its text in a catalogue.
pub(super) fn id_of(text: &str) -> SetId {
    SetId(sixteen(text))
}

impl TapeSource {
    /// How it is called in messages.
    #[must_use]
    pub fn name(&self) -> String {
        self.options.place.name()
    }

    fn find(&self) -> Result<(Operator, ReelSet, Save), TapeError> {
        let shelf = Operator::new(&self.options)?;
        if !shelf.catalogue().found {
            self.options
                .teller
                .tell(&format!("{} has no catalogue: its reels are read to make one", self.name()));
            let scanned = scan(&self.options)?;
            shelf.catalogue().held = scanned.catalogue;
        }
        let found = {
            let catalogue = shelf.catalogue();
            catalogue.held.save(self.save.as_deref()).map(|(set, save)| (set.clone(), save.clone()))
        };
        let what = match &self.save {
            Some(save) => format!("save {save}"),
            None => "a complete save".to_owned(),
        };
        let (set, save) = found.ok_or(TapeError::NoSave { what })?;
        if save.bytes.is_none() {
            let what = format!("the end of save {}, which was interrupted", save.id);
            return Err(TapeError::NoSave { what });
        }
        Ok((shelf, set, save))
    }

    /// Bytes of its stream, if a catalogue tells.
    #[must_use]
    pub fn bytes(&self) -> Option<u64> {
        let shelf = Operator::new(&self.options).ok()?;
        let catalogue = shelf.catalogue();
        catalogue.held.save(self.save.as_deref()).and_then(|(_, save)| save.bytes)
    }

    /// What the catalogue says of it.
    ///
    /// # Errors
    /// [`TapeError`].
    pub fn contents(&self) -> Result<Contents, TapeError> {
        let (_, set, save) = self.find()?;
        let parts = set.reels.iter().filter(|reel| reel.first < save.next && reel.next > save.first).count();
        let given = self.options.key.as_ref().map(crate::tape::Key::id);
        let unknown = || match set.key {
            0 => TapeError::Unfit {
                what: format!("looking up save {}", save.id),
                why: "what it holds is not known, as a part of it could not be read".to_owned(),
                next: "bring all its reels and read them: hot-backup tape list --scan tape:..",
            },
            _ => TapeError::Key { save: save.id.clone(), given },
        };
        let content = save.content.clone().ok_or_else(unknown)?;
        let [batches, chunks, items, bytes] = content.counts;
        let position =
            Position { epoch: Epoch(content.epoch), seq: Seq(content.seq), chain: Chain(content.chain) };
        let (head, tail) = (sixteen(&content.digest), sixteen(content.digest.get(32..).unwrap_or_default()));
        let file = |file: &crate::tape::FileHeld| SetFile {
            id: FileId(file.id),
            blocks: file.blocks,
            items: file.items,
            bytes: file.bytes,
            name: file.name.clone(),
        };
        let alone = content.alone.map(|alone| AloneFiles {
            files: alone.files.iter().map(file).collect(),
            defined: alone.defined,
            left_out: alone.left_out,
        });
        let mut digest = [0; 32];
        digest.iter_mut().zip(head.into_iter().chain(tail)).for_each(|(to, from)| *to = from);
        Ok(Contents {
            header: PartHeader {
                since: false,
                alone: alone.is_some(),
                part: 1,
                set: SetId(sixteen(&content.set)),
                pair: PairId(sixteen(&set.pair)),
                wall_ms: content.begun_ms,
                first_block: 0,
            },
            begin: SetBegin {
                base: None,
                role: if content.role == Role::Primary.name() { Role::Primary } else { Role::Standby },
                node: content.node,
                account: content.account,
                left_out: content.left_out,
                copy: CopyBegin::default(),
            },
            trailer: Trailer {
                end: position,
                wall_ms: content.ended_ms,
                counts: Counts { batches, chunks, items, bytes },
                digest,
                files: content.files.iter().map(file).collect(),
                alone,
            },
            bytes: save.bytes.unwrap_or_default(),
            parts: u32::try_from(parts).unwrap_or(u32::MAX),
        })
    }

    /// Its stream, without what is not needed.
    ///
    /// # Errors
    /// [`TapeError`].
    pub fn open(&self) -> Result<TapeStream, TapeError> {
        self.open_from(0, &Arc::default())
    }

    /// The same from this byte of it on; waiting for a reel ends when `stop` is set.
    pub(in crate::node) fn open_from(
        &self,
        from: u64,
        stop: &Arc<AtomicBool>,
    ) -> Result<TapeStream, TapeError> {
        let (mut shelf, set, save) = self.find()?;
        shelf.stopped = Arc::clone(stop);
        let key = self.options.key.as_ref();
        if set.key != 0 && key.map(crate::tape::Key::id) != Some(set.key) {
            return Err(TapeError::Key { save: save.id, given: key.map(crate::tape::Key::id) });
        }
        let session = SetId(sixteen(&save.id));
        let key = key.filter(|_| set.key != 0).map(|key| key.of_session(session));
        let needed = match (self.only, &save.content) {
            (Some(file), Some(content)) => content.needed(file.0),
            _ => std::iter::once(0..u64::MAX).collect(),
        };
        // What cannot be read is no part of what was given, so that is read again.
        let (needed, pass) = if self.lenient { (needed, from) } else { (behind(needed, from), 0) };
        let number = set.number();
        let located = set.clone();
        let locate = Box::new(move |at| located.locate(at).map(|(reel, position)| (reel.number, position)));
        let reader = SpanReader::new(shelf, number, save.first..save.next, locate, self.lenient);
        let (at, part, taken, read) = (0, Vec::new(), 0, 0);
        let mut stream = TapeStream { reader, key, set, save, needed, at, part, taken, read };
        stream.pass(pass)?;
        Ok(stream)
    }
}

/// What is left of these parts of a stream behind their first bytes.
fn behind(mut needed: Vec<Range<u64>>, mut bytes: u64) -> Vec<Range<u64>> {
    for part in &mut needed {
        let passed = bytes.min(part.end.saturating_sub(part.start));
        part.start += passed;
        bytes -= passed;
    }
    needed.retain(|part| part.start < part.end);
    needed
}

/// The stream of a save on reels.
pub struct TapeStream {
    reader: SpanReader<Operator>,
    key: Option<SessionKey>,
    set: ReelSet,
    save: Save,
    /// Parts of the stream that are needed, in order.
    needed: Vec<Range<u64>>,
    /// Where in the stream it is.
    at: u64,
    /// What was read, and how much of it was taken.
    part: Vec<u8>,
    taken: usize,
    /// Blocks read.
    read: u64,
}

impl std::fmt::Debug for TapeStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TapeStream({:?}, byte {})", self.reader, self.at)
    }
}

impl TapeStream {
    /// Blocks that were read.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        self.read
    }

    /// Reads so many bytes, which are not given.
    fn pass(&mut self, mut bytes: u64) -> Result<(), TapeError> {
        while bytes > 0 && self.fill()? {
            let there = (self.part.len() - self.taken).min(usize::try_from(bytes).unwrap_or(usize::MAX));
            self.taken += there;
            bytes -= there as u64;
        }
        Ok(())
    }

    fn failed(&self, error: ReadError) -> TapeError {
        let blocks = match &error {
            ReadError::Lost(loss) => loss.first..loss.next,
            ReadError::Shelf(_) => self.reader.missing(),
            _ => 0..0,
        };
        let held = self.set.held(blocks);
        let held = if held.is_empty() { held } else { format!("; it held {held}") };
        TapeError::Read { error, held }
    }

    /// Reads until there is something to take; false at the end.
    fn fill(&mut self) -> Result<bool, TapeError> {
        while self.taken == self.part.len() {
            while self.needed.first().is_some_and(|needed| needed.end <= self.at) {
                self.needed.remove(0);
            }
            let Some(needed) = self.needed.first().cloned() else { return Ok(false) };
            if needed.start > self.at && self.save.payload > 0 {
                let block = self
                    .save
                    .first
                    .saturating_add(needed.start / self.save.payload)
                    .min(self.save.next.saturating_sub(1));
                self.at = needed.start;
                // Blocks are never read twice, so never go back to the one that was read last.
                let sought = self.reader.seek(block.max(self.reader.wanted()));
                sought.map_err(|error| self.failed(error))?;
            }
            let block = self.reader.next_block().map_err(|error| self.failed(error))?;
            let Some(header) = block else { return Ok(false) };
            self.read += 1;
            if header.kind != ReelKind::Data {
                continue;
            }
            let payload = self.reader.payload();
            self.part = match (&self.key, header.sealed) {
                (Some(key), true) => {
                    let given = None;
                    key.open(&header, payload).ok_or(TapeError::Key { save: self.save.id.clone(), given })?
                }
                _ => payload.to_vec(),
            };
            // What is before the needed part of this block, and behind it, is left out.
            let inside = |offset: u64| usize::try_from(offset - header.first).unwrap_or(usize::MAX);
            let from = self.at.clamp(header.first, header.last);
            let end = needed.end.clamp(from, header.last);
            self.part.truncate(inside(end));
            self.taken = inside(from).min(self.part.len());
            self.at = end;
        }
        Ok(true)
    }
}

impl Read for TapeStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.fill().map_err(into_stream)? {
            return Ok(0);
        }
        let mut rest = self.part.get(self.taken..).unwrap_or_default();
        let count = rest.read(buffer)?;
        self.taken += count;
        Ok(count)
    }
}

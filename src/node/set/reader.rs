//! Reads a set from its beginning to its end, and gives nothing that was not checked.

use super::target::Opened;
use super::{Digest, SetError, Source, unpacked};
use crate::base::crc32c;
use crate::engine::{Known, SetWalk};
use crate::format::DecodeError;
use crate::format::alone::Alone;
use crate::format::batch::Batch;
use crate::format::chunk::Chunk;
use crate::format::set::{
    BLOCK_HEADER, BLOCK_MAGIC, BlockHeader, BlockKind, FOOTER, PART_HEADER, PartHeader, SetBegin, Trailer,
    read_footer,
};
use crate::format::since::Same;
use bytes::Bytes;
use std::io::{self, BufReader, Read};

/// A block that was checked.
#[derive(Debug)]
pub enum Block {
    /// What the set begins with; always the first.
    Begin(Box<SetBegin>),
    /// The next batch.
    Batch(Batch),
    /// The next chunk.
    Chunk(Chunk),
    /// A range that is as the earlier set left it.
    Same(Same),
    /// What the node has alone; the chunks and ranges behind it are of that.
    Alone(Box<Alone>),
    /// The end; everything before it was given.
    Trailer(Box<Trailer>),
}

/// Reads a set block by block.
pub struct SetReader {
    source: Source,
    /// Content of files is left out.
    gaps: bool,
    name: String,
    input: BufReader<Box<dyn Read>>,
    /// Read already, and to be read before `input`.
    ahead: Vec<u8>,
    header: PartHeader,
    digest: Digest,
    walk: Option<SetWalk>,
    /// What the earlier set holds, if that was read.
    base: Option<Known>,
    /// What this one holds, if somebody wants to know.
    learns: Option<Known>,
    /// The next block.
    number: u64,
    /// Where in the part the next byte is.
    offset: u64,
    /// Bytes read of all parts.
    read: u64,
    /// Batches, or chunks, before the next one are lost.
    lost: [bool; 2],
    /// Something was damaged, so the trailer cannot tell of what was read.
    hurt: bool,
    ended: bool,
}

impl std::fmt::Debug for SetReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SetReader({}, block {}, byte {})", self.name, self.number, self.offset)
    }
}

/// One read of a set (bytes).
const STEP: usize = 256 << 10;

/// Reads so many bytes, or as many as there are.
fn fill(input: &mut impl Read, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(len.min(STEP));
    while bytes.len() < len {
        let from = bytes.len();
        // Memory grows with what is there, not with what is announced.
        bytes.resize(len.min(from + STEP), 0);
        let Some(place) = bytes.get_mut(from..) else { break };
        let got = read_some(input, place)?;
        bytes.truncate(from + got);
        if got == 0 {
            break;
        }
    }
    Ok(bytes)
}

fn read_some(input: &mut impl Read, place: &mut [u8]) -> io::Result<usize> {
    loop {
        match input.read(place) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

impl SetReader {
    /// Opens a set and reads its first header.
    ///
    /// # Errors
    /// [`SetError::Io`], [`SetError::NoSet`].
    pub fn open(source: Source) -> Result<Self, SetError> {
        let missing = || SetError::NoSet { what: source.name(), why: "it has no first part".to_owned() };
        let Opened { name, reader, gaps, .. } = source.part(1)?.ok_or_else(missing)?;
        let mut this = Self {
            source,
            gaps,
            name,
            input: BufReader::with_capacity(STEP, reader),
            ahead: Vec::new(),
            header: PartHeader::default(),
            digest: Digest::new(),
            walk: None,
            base: None,
            learns: None,
            number: 0,
            offset: 0,
            read: 0,
            lost: [false; 2],
            hurt: false,
            ended: false,
        };
        this.header = this.part_header()?;
        if this.header.part != 1 {
            let why = format!("it is part {} of a set", this.header.part);
            return Err(SetError::Part { what: this.name, why });
        }
        Ok(this)
    }

    /// Holds the set to what the earlier one holds, and learns what this one does if a later one comes.
    pub fn of_chain(&mut self, base: Option<Known>, learns: bool) {
        self.base = base;
        self.learns = learns.then(Known::default);
    }

    /// What it holds, if it was to learn that.
    pub fn learned(&mut self) -> Option<Known> {
        self.learns.take()
    }

    /// The head of the set.
    #[must_use]
    pub fn header(&self) -> &PartHeader {
        &self.header
    }

    /// How the file that is read is called in messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How far it is; none before the beginning was read.
    #[must_use]
    pub fn walk(&self) -> Option<&SetWalk> {
        self.walk.as_ref()
    }

    /// The same, to go on behind the set.
    #[must_use]
    pub fn into_walk(self) -> Option<SetWalk> {
        self.walk
    }

    /// Bytes read.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.read
    }

    fn take(&mut self, len: usize) -> Result<Vec<u8>, SetError> {
        let mut bytes = self.ahead.split_off(len.min(self.ahead.len()));
        std::mem::swap(&mut bytes, &mut self.ahead);
        let more = fill(&mut self.input, len - bytes.len());
        let more =
            more.map_err(|source| SetError::Io { doing: "reading", what: self.name.clone(), source })?;
        bytes = if bytes.is_empty() { more } else { [bytes, more].concat() };
        self.offset += bytes.len() as u64;
        self.read += bytes.len() as u64;
        Ok(bytes)
    }

    fn part_header(&mut self) -> Result<PartHeader, SetError> {
        let bytes = self.take(PART_HEADER)?;
        let no_set = |error: DecodeError| SetError::NoSet { what: self.name.clone(), why: error.to_string() };
        let header = PartHeader::decode(&bytes).map_err(no_set)?;
        self.digest.update(bytes.into());
        Ok(header)
    }

    fn cut_off(&self, why: &str) -> SetError {
        SetError::NoTrailer { what: self.name.clone(), why: why.to_owned() }
    }

    fn damaged(&self, offset: u64, why: impl ToString, held: String) -> SetError {
        let (what, number, why) = (self.name.clone(), self.number, why.to_string());
        SetError::Damaged { what, number, offset, why, held }
    }

    /// What the block at this place holds, if it is of this kind.
    fn held(&self, header: Option<&BlockHeader>) -> String {
        let Some(walk) = &self.walk else {
            return "the definitions, without which nothing can be used".to_owned();
        };
        let content = || walk.place(walk.next());
        let end = walk.end().seq;
        match header.map(|header| (header.kind, header.about)) {
            Some((BlockKind::Chunk | BlockKind::Same, _)) => content(),
            Some((BlockKind::Batch, last)) => {
                format!("entries {} to {}", end.next(), crate::base::shown::Grouped(last))
            }
            Some((kind, _)) => kind.name().to_owned(),
            None => format!("{}, or entries behind {end}", content()),
        }
    }

    /// The next block; none behind the trailer.
    ///
    /// # Errors
    /// Any [`SetError`] of reading. After [`SetError::Damaged`] it goes on behind the damaged block.
    pub fn next_block(&mut self) -> Result<Option<Block>, SetError> {
        loop {
            if self.ended {
                return Ok(None);
            }
            let (header, head, offset) = self.block_header()?;
            let payload = self.take(header.stored as usize)?;
            if payload.len() < header.stored as usize {
                let why = format!("it ends within block {}", self.number);
                return Err(self.cut_off(&why));
            }
            let sum = self.digest.value_if(header.kind == BlockKind::Trailer);
            let payload = Bytes::from(payload);
            self.digest.update(head.into());
            self.digest.update(payload.clone());
            let block = self.block(&header, payload, (offset, sum));
            if block.is_err() {
                self.note_lost(Some(header.kind));
            }
            self.number += 1;
            match block? {
                Some(block) => return Ok(Some(block)),
                None => self.next_part()?,
            }
        }
    }

    /// Whatever comes next need not follow what was before.
    fn note_lost(&mut self, kind: Option<BlockKind>) {
        self.hurt = true;
        let [batches, chunks] = &mut self.lost;
        *batches |= !matches!(kind, Some(BlockKind::Chunk | BlockKind::Same));
        *chunks |= kind != Some(BlockKind::Batch);
    }

    /// The next block's header, its bytes, and where it stands.
    fn block_header(&mut self) -> Result<(BlockHeader, Vec<u8>, u64), SetError> {
        let offset = self.offset;
        let head = self.take(BLOCK_HEADER)?;
        if head.len() < BLOCK_HEADER {
            let why = match head.len() {
                0 => "it ends behind the last block",
                _ => "it ends within the header of a block",
            };
            return Err(self.cut_off(why));
        }
        match BlockHeader::decode(&head, self.header.set) {
            Ok(header) if header.number == self.number => Ok((header, head, offset)),
            // Chunks of other files were left out, and nothing else.
            Ok(header) if header.number > self.number && self.gaps => {
                self.note_lost(Some(BlockKind::Chunk));
                self.number = header.number;
                Ok((header, head, offset))
            }
            Ok(header) => {
                let why = format!("block {} stands in its place", header.number);
                let error = self.damaged(offset, why, self.held(None));
                self.note_lost(None);
                self.number = header.number;
                self.push_back(head);
                Err(error)
            }
            Err(why) => {
                let error = self.damaged(offset, why, self.held(None));
                self.note_lost(None);
                self.find_header(head)?;
                Err(error)
            }
        }
    }

    /// Goes on with these bytes, which were read already.
    fn push_back(&mut self, bytes: Vec<u8>) {
        self.offset -= bytes.len() as u64;
        self.read -= bytes.len() as u64;
        self.ahead = [bytes, std::mem::take(&mut self.ahead)].concat();
    }

    /// Looks for the next header of this set behind one that is damaged.
    fn find_header(&mut self, mut head: Vec<u8>) -> Result<(), SetError> {
        loop {
            head.remove(0);
            let more = self.take(1)?;
            if more.is_empty() {
                return Ok(());
            }
            head.extend_from_slice(&more);
            if head.starts_with(&BLOCK_MAGIC)
                && let Ok(header) = BlockHeader::decode(&head, self.header.set)
            {
                self.number = header.number;
                self.push_back(head);
                return Ok(());
            }
        }
    }

    /// Checks a block; none at the end of a part.
    fn block(
        &mut self,
        header: &BlockHeader,
        payload: Bytes,
        (offset, sum): (u64, Option<[u8; 32]>),
    ) -> Result<Option<Block>, SetError> {
        let computed = crc32c(&payload);
        if computed != header.crc {
            let what = header.kind.name();
            let why = DecodeError::Checksum { what, found: header.crc, computed };
            return Err(self.damaged(offset, why, self.held(Some(header))));
        }
        let held = self.held(Some(header));
        let number = self.number;
        let name = self.name.clone();
        let bad = |why: String| SetError::Damaged { what: name, number, offset, why, held };
        if (header.kind == BlockKind::Begin) != (number == 0) {
            return Err(bad(format!("{} is not in its place", header.kind.name())));
        }
        let raw = match unpacked(header, payload) {
            Ok(raw) => raw,
            Err(why) => return Err(bad(why)),
        };
        let about = |found: u64| {
            let expected = header.about;
            if found == expected { Ok(()) } else { Err(format!("it is about {found}, not {expected}")) }
        };
        let checked = match header.kind {
            BlockKind::Begin => self.begin(&raw),
            BlockKind::Batch => self.batch(&raw, about),
            BlockKind::Chunk => self.chunk(&raw, about),
            BlockKind::Same if self.header.since => self.same(&raw, about),
            BlockKind::Same => Err("it continues no other set".to_owned()),
            BlockKind::Alone if self.header.alone => self.alone(&raw),
            BlockKind::Alone => Err("the set is to hold nothing of that".to_owned()),
            BlockKind::PartEnd if raw.is_empty() => return Ok(None),
            BlockKind::PartEnd => Err("the end of a part has content".to_owned()),
            BlockKind::Trailer => return self.trailer(&raw, offset, sum).map(Some),
        };
        checked.map(Some).map_err(bad)
    }

    fn begin(&mut self, raw: &Bytes) -> Result<Block, String> {
        let begin = SetBegin::decode(raw, self.header.since).map_err(told)?;
        let walk = SetWalk::begin(self.header.pair, &begin.copy, &begin.account);
        self.walk = Some(walk.map_err(told)?);
        Ok(Block::Begin(Box::new(begin)))
    }

    fn batch(&mut self, raw: &Bytes, about: impl Fn(u64) -> Result<(), String>) -> Result<Block, String> {
        let batch = Batch::from_wire(raw).map_err(told)?;
        about(batch.header().last_seq().0)?;
        let walk = self.walk.as_mut().ok_or("there are no definitions before it")?;
        if walk.is_alone() {
            return Err("it stands behind what the node has alone".to_owned());
        }
        if std::mem::take(&mut self.lost[0]) {
            walk.skip_before(&batch);
        }
        walk.batch(&batch).map_err(told)?;
        if let Some(known) = &mut self.learns {
            known.batch(&batch);
        }
        Ok(Block::Batch(batch))
    }

    /// What the node has alone stands behind all else.
    fn alone(&mut self, raw: &Bytes) -> Result<Block, String> {
        let alone = Alone::decode(raw).map_err(told)?;
        let walk = self.walk.as_mut().ok_or("there are no definitions before it")?;
        if walk.is_alone() || !(self.hurt || walk.is_whole()) {
            return Err(format!("it stands before {}", walk.place(walk.next())));
        }
        if self.hurt {
            walk.skip_to_alone(&alone);
            self.lost = [false; 2];
        }
        walk.alone(&alone).map_err(told)?;
        if let Some(known) = &mut self.learns {
            known.begin_alone();
        }
        Ok(Block::Alone(Box::new(alone)))
    }

    fn chunk(&mut self, raw: &Bytes, about: impl Fn(u64) -> Result<(), String>) -> Result<Block, String> {
        let chunk = Chunk::decode(raw).map_err(told)?;
        about(chunk.file.0)?;
        self.place(&chunk)?;
        if let Some(known) = &mut self.learns {
            known.chunk(&chunk);
        }
        Ok(Block::Chunk(chunk))
    }

    /// A range of the earlier set, which holds it just so.
    fn same(&mut self, raw: &Bytes, about: impl Fn(u64) -> Result<(), String>) -> Result<Block, String> {
        let same = Same::decode(raw).map_err(told)?;
        about(same.range.file.0)?;
        self.place(&same.range)?;
        let alone = self.walk.as_ref().is_some_and(SetWalk::is_alone);
        let is_held = |base: &Known| {
            if alone { base.alone().is_some_and(|of| of.holds(&same)) } else { base.holds(&same) }
        };
        if self.base.as_ref().is_some_and(|base| !is_held(base)) {
            return Err("the earlier set holds something else there".to_owned());
        }
        if let Some(known) = &mut self.learns {
            known.same(same.clone());
        }
        Ok(Block::Same(same))
    }

    fn place(&mut self, chunk: &Chunk) -> Result<(), String> {
        let walk = self.walk.as_mut().ok_or("there are no definitions before it")?;
        let [batches, chunks] = self.lost;
        if batches || chunks {
            walk.skip_to(chunk);
            self.lost[1] = false;
        }
        walk.chunk(chunk).map_err(told)
    }

    /// The end, if it is that of what was read before it (I-31).
    fn trailer(&mut self, raw: &[u8], offset: u64, sum: Option<[u8; 32]>) -> Result<Block, SetError> {
        let held = || BlockKind::Trailer.name().to_owned();
        let trailer = Trailer::decode(raw).map_err(|error| self.damaged(offset, error, held()))?;
        let Some(walk) = &self.walk else { return Err(self.damaged(offset, "it is all there is", held())) };
        let wrong = if self.hurt {
            None
        } else if !walk.is_whole() {
            Some(format!("{} is missing", walk.place(walk.next())))
        } else if trailer.end != walk.end()
            || trailer.counts != walk.counts()
            || trailer.files != walk.files()
            || trailer.alone != walk.alone_files()
            || walk.is_alone() != self.header.alone
        {
            Some("it tells of another content than what is before it".to_owned())
        } else if Some(trailer.digest) != sum {
            Some("its digest is not that of what is before it".to_owned())
        } else {
            None
        };
        if let Some(why) = wrong {
            return Err(self.damaged(offset, why, held()));
        }
        let footer = self.take(FOOTER)?;
        if footer.len() < FOOTER {
            return Err(self.cut_off("it ends within its end"));
        }
        let place = read_footer(&footer);
        // Where something is left out before it, its place says nothing.
        if place.as_ref().ok() != Some(&offset) && !(place.is_ok() && self.gaps) {
            let why =
                place.map_or_else(|error| error.to_string(), |at| format!("the footer leads to byte {at}"));
            return Err(self.damaged(offset, why, held()));
        }
        if !self.take(1)?.is_empty() {
            return Err(self.damaged(offset, "something stands behind it", held()));
        }
        self.ended = true;
        Ok(Block::Trailer(Box::new(trailer)))
    }

    fn next_part(&mut self) -> Result<(), SetError> {
        if !self.take(1)?.is_empty() {
            let why = "something stands behind the end of the part".to_owned();
            return Err(SetError::Part { what: self.name.clone(), why });
        }
        let part = self.header.part + 1;
        let Some(Opened { name, reader, .. }) = self.source.part(part)? else {
            self.ended = true;
            return Err(self.cut_off(&format!("part {part} is missing")));
        };
        (self.name, self.offset) = (name, 0);
        self.input = BufReader::with_capacity(STEP, reader);
        let header = self.part_header()?;
        let wanted = PartHeader { part, first_block: self.number, ..self.header };
        if header != wanted {
            self.ended = true;
            let why = if header.set == wanted.set {
                format!("it is part {}, and part {part} was wanted", header.part)
            } else {
                "it is of another set".to_owned()
            };
            return Err(SetError::Part { what: self.name.clone(), why });
        }
        self.header = header;
        Ok(())
    }
}

fn told(error: impl ToString) -> String {
    error.to_string()
}

impl Digest {
    fn value_if(&self, wanted: bool) -> Option<[u8; 32]> {
        wanted.then(|| self.value())
    }
}
